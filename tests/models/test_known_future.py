"""What is known of the future: which plans are seen, for which series, and what is not known."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.data.store import write_dataset
from d2c_mlops.data.tables import Tables
from d2c_mlops.data.validation import check_table, validate
from d2c_mlops.errors import UsageError
from d2c_mlops.models.forecasting.panel import Panel
from d2c_mlops.models.forecasting.plans.known_future import KnownFuture, known_future

NOW = datetime(2024, 6, 1, tzinfo=UTC)
START = np.datetime64("2024-01-01")


def plan(table: str, *rows: dict[str, Any]) -> pd.DataFrame:
    texts = [{**row, "keys": json.dumps(row.get("keys", {}))} for row in rows]
    return validate(table, pd.DataFrame(texts))


def panel(*series: str, days: int = 10, freq: Any = "D") -> Panel:
    step = 1 if freq == "D" else 7
    dates = START + np.arange(days) * np.timedelta64(step, "D") + np.timedelta64(step - 1, "D")
    return Panel(freq, dates, series, np.ones((days, len(series))))


def interval(first: str, last: str = "", **values: Any) -> dict[str, Any]:
    return {"first_day": first, "last_day": last or first, **values}


def seen(known: KnownFuture, name: str, series: int = 0) -> list[float | None]:
    return [None if np.isnan(v) else round(float(v), 4) for v in known.values[name][:, series]]


def test_a_plan_is_seen_from_the_day_on_which_it_is_known_also_if_it_lies_ahead(tmp_path: Path) -> None:
    rows = [
        interval("2024-03-01", "2024-03-07", kind="early", known_at="2024-01-05T12:00:00Z"),
        interval("2024-03-01", "2024-03-07", kind="late", known_at="2024-02-05T12:00:00Z"),
        interval("2024-03-01", "2024-03-07", kind="always"),
    ]
    given = {"promotions": plan("promotions", *rows)}
    write_dataset(tmp_path, "shop", given, "test", layout="canonical", created_at=NOW)
    for tables in (Tables(given), Tables.open(tmp_path, "shop")):
        for day, kinds in ((date(2024, 1, 4), {"always"}), (date(2024, 1, 5), {"always", "early"})):
            assert set(tables.before(day)["promotions"]["kind"]) == kinds
            assert set(tables.before(day).sql("select kind from promotions")["kind"]) == kinds
        assert len(tables.before(date(2024, 2, 5))["promotions"]) == 3


def test_stock_after_the_day_is_hidden() -> None:
    tables = Tables({"stock": plan("stock", interval("2024-01-01", share_out=0.5), interval("2024-01-09", on_hand=3))})
    assert len(tables.before(date(2024, 1, 8))["stock"]) == 1
    assert tables.before(date(2024, 1, 8)).sql("select count(*) as n from stock")["n"].item() == 1


@pytest.mark.parametrize(
    ("table", "values", "what"),
    [
        ("promotions", {"kind": "a", "discount": 20}, "share from 0 to 1"),
        ("promotions", {"kind": "a", "last_day": "2023-01-01"}, "last_day must not be before first_day"),
        ("prices", {"price": 0}, "more than 0"),
        ("calendar", {"event": "tv", "value": None}, "must not be empty"),
        ("stock", {"share_out": 1.5}, "share from 0 to 1"),
    ],
)
def test_rows_that_cannot_be_a_plan_are_refused(table: str, values: dict[str, Any], what: str) -> None:
    frame = pd.DataFrame([{"keys": "{}", **interval("2024-01-01"), **values}])
    assert any(what in str(failure) for failure in check_table(table, frame)[1])


def test_a_list_of_promotions_means_none_between_its_rows_and_nothing_outside() -> None:
    tables = Tables(
        {"promotions": plan("promotions", interval("2024-01-03", kind="a"), interval("2024-01-12", kind="a"))}
    )
    known = known_future(tables, panel("mug"), 4, "product_id")
    assert seen(known, "a") == [None, None, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, None, None]
    assert any("2024-01-12" in note and "plan_days" in note for note in known.notes)
    said = known_future(tables, panel("mug"), 4, "product_id", plan_until=date(2024, 1, 13))
    assert seen(said, "a")[-3:] == [1, 0, None]


def test_a_row_with_discount_0_says_how_far_the_plan_reaches() -> None:
    rows = [interval("2024-01-03", kind="a", discount=0.5), interval("2024-01-04", "2024-01-14", kind="a", discount=0)]
    known = known_future(Tables({"promotions": plan("promotions", *rows)}), panel("mug"), 4, "product_id")
    assert seen(known, "a")[2:] == [1] + [0] * 11 and seen(known, "discount")[2:] == [0.5] + [0] * 11
    assert not [note for note in known.notes if "last row" in note]


def test_events_with_stated_zeros_are_not_known_where_no_row_is() -> None:
    rows = [interval("2024-01-01", "2024-01-10", event="tv", value=0), interval("2024-01-05", event="launch", value=1)]
    known = known_future(Tables({"calendar": plan("calendar", *rows)}), panel("mug"), 2, "product_id")
    assert seen(known, "tv")[-2:] == [None, None] and seen(known, "launch")[:10] == [0] * 4 + [1] + [0] * 5
    assert any(note.startswith("tv: no plan from 2024-01-11") for note in known.notes)


def test_the_special_row_counts_before_the_general_one() -> None:
    rows = [
        interval("2024-01-01", "2024-01-12", event="open", value=0),
        interval("2024-01-02", "2024-01-03", event="open", value=1, keys={"store_id": "7"}),
        interval("2024-01-03", event="open", value=0, keys={"store_id": "7", "product_id": "mug"}),
    ]
    known = known_future(
        Tables({"calendar": plan("calendar", *rows)}), panel("7|mug", "7|cup"), 2, "store_id,product_id"
    )
    assert known.closed[:4].tolist() == [[True, True], [False, False], [True, False], [True, True]]
    assert known.closed[-1].all() and "open" not in known.values


def test_weeks_have_the_share_of_their_days() -> None:
    rows = [interval("2024-01-14", "2024-01-16", event="fair", value=1), interval("2024-01-06", event="open", value=0)]
    tables = Tables({"calendar": plan("calendar", *rows)})
    known = known_future(tables, panel("mug", days=2, freq="W"), 1, "product_id", plan_until=date(2024, 2, 1))
    assert seen(known, "fair")[1:] == [round(1 / 7, 4), round(2 / 7, 4)]
    assert known.open_share[:, 0].round(4).tolist() == [round(6 / 7, 4), 1, 1] and not known.closed.any()


def test_the_paid_price_is_the_planned_one_or_the_regular_one_less_the_discount() -> None:
    promoted = [
        interval("2024-01-02", kind="a", discount=0.25),
        interval("2024-01-03", kind="a", planned_price=6),
        interval("2024-01-11", kind="a", discount=0.1, planned_price=7),
    ]
    tables = Tables(
        {
            "prices": plan("prices", interval("2024-01-01", "2024-01-11", price=8)),
            "promotions": plan("promotions", *promoted),
        }
    )
    known = known_future(tables, panel("mug"), 2, "product_id")
    assert seen(known, "price") == [8, 6, 6, *[8] * 7, 7, None] and known.kinds["price"] == "price"
    assert seen(known, "discount")[1:4] == [0.25, 0.25, 0] and seen(known, "discount")[10] == 0.1


def test_a_plan_by_category_holds_for_its_products_and_one_by_product_for_its_share_of_the_category() -> None:
    products = validate(
        "products", pd.DataFrame({"product_id": ["mug", "cup", "tea"], "category": ["hot", "hot", "cold"]})
    )
    by_category = [interval("2024-01-01", "2024-01-11", kind="a", keys={"category": "hot"})]
    tables = Tables({"products": products, "promotions": plan("promotions", *by_category)})
    known = known_future(tables, panel("cup", "tea"), 1, "product_id")
    assert known.values["a"][0].tolist() == [1, 0] and known.groups.shape == (0, 2)
    by_product = [interval("2024-01-01", "2024-01-11", kind="a", keys={"product_id": "mug"})]
    tables = Tables({"products": products, "promotions": plan("promotions", *by_product)})
    assert known_future(tables, panel("cold", "hot"), 1, "category").values["a"][0].tolist() == [0, 0.5]


def test_a_plan_that_lacks_series_or_names_strange_columns_is_told() -> None:
    rows = [
        interval("2024-01-01", "2024-01-12", price=3, keys={"product_id": "mug"}),
        interval("2024-01-01", "2024-01-11", price=4, keys={"product_id": "cup"}),
        interval("2024-01-01", "2024-01-12", price=5, keys={"shop": "1"}),
    ]
    known = known_future(Tables({"prices": plan("prices", *rows)}), panel("mug", "cup", "tea"), 2, "product_id")
    told = " · ".join(known.notes)
    assert "1 of 3 series (tea)" in told and "no plan from 2024-01-12 on for 1 of 2 series" in told
    assert "rows by shop left out" in told and np.isnan(known.values["price"][:, 2]).all()


def test_holidays_are_those_of_country_and_region() -> None:
    days = panel("mug", days=366)
    assert known_future(Tables({}), days, 3, "product_id", country="DE").values["holiday"][:, 0].sum() == 10
    bavaria = known_future(Tables({}), days, 3, "product_id", country="DE", region="BY")
    assert bavaria.values["holiday"][:, 0].sum() == 13 and bavaria.values["holiday"][5, 0] == 1
    with pytest.raises(UsageError, match="BW"):
        known_future(Tables({}), days, 3, "product_id", country="DE", region="XX")
    with pytest.raises(UsageError, match="ISO 3166"):
        known_future(Tables({}), days, 3, "product_id", country="QQ")


def test_groups_go_from_coarse_to_fine_and_leave_out_what_groups_nothing() -> None:
    products = validate(
        "products", pd.DataFrame({"product_id": ["a", "b", "c"], "category": ["x", "x", "y"], "brand": ["q"] * 3})
    )
    names = [f"{store}|{product}" for store in "1234" for product in "abc"]
    groups = known_future(Tables({"products": products}), panel(*names), 1, "store_id,product_id").groups
    assert [len(np.unique(level)) for level in groups] == [2, 3, 4]
    assert known_future(Tables({}), panel("a", "b"), 1, "product_id").groups.shape == (0, 2)


def test_nothing_planned_is_nothing_known_and_everything_open() -> None:
    known = known_future(Tables({}), panel("a", "b"), 3, "product_id")
    assert (
        not known.values
        and known.open_share.shape == (13, 2)
        and (known.open_share == 1).all()
        and not known.closed.any()
    )
    assert known.until(5, 2).closed.shape == (7, 2) and known.select_series(
        np.array([True, False])
    ).open_share.shape == (13, 1)


def test_days_are_those_of_the_shop() -> None:
    row = interval("2024-01-12T08:00:00Z", "2024-01-12T08:00:00Z", kind="a")  # midnight of 12 January in Los Angeles
    tables = Tables({"promotions": plan("promotions", row)}, zone="America/Los_Angeles")
    assert seen(known_future(tables, panel("mug"), 3, "product_id"), "a")[10:] == [None, 1, None]


@pytest.mark.slow
def test_twenty_thousand_series_of_two_years_take_seconds_and_little_memory() -> None:
    import resource
    import time

    series, days = 20_000, 730
    rng = np.random.default_rng(0)
    stores, products = np.divmod(np.arange(series), 200)
    texts = [f'{{"product_id":"{p}","store_id":"{s}"}}' for s, p in zip(stores, products, strict=True)]
    first = rng.integers(0, days, (series, 12))
    begin = pd.to_datetime(START + first.ravel() * np.timedelta64(1, "D")).tz_localize("UTC").as_unit("us")
    rows = pd.DataFrame({"keys": np.repeat(texts, 12), "first_day": begin, "last_day": begin + pd.Timedelta(days=6)})
    promoted = rows.assign(
        kind="promotion",
        discount=0.2,
        planned_price=np.nan,
        known_at=pd.Series(pd.NaT, index=rows.index, dtype="datetime64[us, UTC]"),
    )
    priced = rows.assign(
        price=5.0, currency=None, known_at=pd.Series(pd.NaT, index=rows.index, dtype="datetime64[us, UTC]")
    )
    tables = Tables({"promotions": promoted, "prices": priced})
    names = tuple(f"{s}|{p}" for s, p in zip(stores, products, strict=True))
    start, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    known = known_future(tables, panel(*names, days=days), 28, "store_id,product_id")
    assert len(known.values) == 3 and known.values["price"].shape == (days + 28, series)
    assert time.process_time() - start < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2_000_000  # kB
