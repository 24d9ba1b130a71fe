"""Panels: gaps of single series and totals among their parts are found; sparse sales and ordinary names are neither."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.data.quality import assess_quality
from d2c_mlops.data.quality.report import QualityFinding

DAY = date(2024, 12, 31)


def panel(frequency: str, periods: int = 48) -> pd.DataFrame:
    """Return units of nine products in two shops for each period, and a note that differs from row to row."""
    rows = [
        {"date": day, "shop": shop, "article": f"P{number}", "units": 5 + number + place % 3, "note": f"{place % 7} ok"}
        for place, day in enumerate(pd.date_range("2023-01-01", periods=periods, freq=frequency))
        for shop in ("Ulm", "Bonn")
        for number in range(9)
    ]
    return pd.DataFrame(rows)


def findings(frame: pd.DataFrame, check: str) -> list[QualityFinding]:
    return [f for f in assess_quality(frame, DAY, name="sales").findings if f.check == check]


@pytest.mark.parametrize("frequency", ["D", "7D", "MS"])
def test_periods_that_one_series_lacks_are_counted_and_it_is_named(frequency: str) -> None:
    frame = panel(frequency)
    days = frame["date"].drop_duplicates().iloc[10:14]
    gap = (frame["shop"] == "Ulm") & (frame["article"] == "P4") & frame["date"].isin(days)
    found = findings(frame[~gap].sample(frac=1, random_state=1), "series_gaps")
    assert [(f.rows, len(f.keys)) for f in found] == [(4, 1)]
    assert {"Ulm", "P4"} == set(found[0].keys[0].split())
    assert findings(frame, "series_gaps") == []


def test_rows_that_exist_only_where_something_was_sold_are_no_gaps() -> None:
    frame = panel("D")
    sold = np.random.default_rng(3).random(len(frame)) < 0.4
    assert findings(frame[sold], "series_gaps") == []


@pytest.mark.parametrize("name", ["Total", "TOTAL", "All shops", "Gesamt", "TotalDE", "Grand total"])
def test_a_total_among_its_parts_is_named_with_its_share(name: str) -> None:
    frame = panel("7D")
    whole = frame.groupby(["date", "article"], as_index=False)["units"].sum().assign(shop=name, note="0 ok")
    found = findings(pd.concat([frame, whole]), "part_total")
    assert [(f.keys, f.rows) for f in found] == [((name,), len(whole))]
    assert found[0].size == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", ["Allgäu", "Totally Mugs", "Sumatra", "Total Repair"])
def test_an_ordinary_shop_of_such_a_name_is_no_total(name: str) -> None:
    assert findings(panel("7D").replace({"shop": {"Ulm": name}}), "part_total") == []
