"""Columns of a sales file that are known ahead: promotions, opening days, prices beside the units."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.data.ingestion.ingest import IngestResult, ingest
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import DataRefused, UsageError
from d2c_mlops.models.forecasting.forecasting import DemandForecaster
from d2c_mlops.models.forecasting.plans.known_future import known_future

NOW = datetime(2024, 4, 1, tzinfo=UTC)


def ingested(folder: Path, text: str, *planned: str) -> tuple[Tables, IngestResult]:
    """Ingest a file of sales with columns that are known ahead."""
    path = folder / "sales.csv"
    path.write_text(text, encoding="utf-8")
    result = ingest(str(path), "shop", store=folder / "store", zone="UTC", planned=planned, created_at=NOW)
    return Tables.open(folder / "store", "shop"), result


def stores(days: int = 70, ahead: int = 14) -> str:
    """Return a file of two stores: closed on Sundays, promoted in every second week, the last days without units."""
    dates = pd.date_range("2024-01-01", periods=days + ahead)
    lines = ["store_id,date,units,open,promo,price"]
    for store in ("01", "02"):
        for number, day in enumerate(dates):
            open_, promo = int(day.day_of_week != 6), number // 7 % 2
            units = "" if number >= days else str(open_ * (20 + 40 * promo))
            lines.append(f"{store},{day:%Y-%m-%d},{units},{open_},{promo},{4 - promo}")
    return "\n".join(lines) + "\n"


def test_promotion_open_days_and_price_reach_the_forecast(tmp_path: Path) -> None:
    tables, _ = ingested(tmp_path, stores(), "promo", "open", "price")
    assert len(tables["sales_totals"]) == 140
    model = DemandForecaster(by="store_id", horizon=14).fit(tables, date(2024, 3, 10))
    answers = model.predict(model.records(tables, date(2024, 3, 10))).set_index("date").query("series == '01'")
    week = answers["forecast"].to_numpy().reshape(2, 7)
    assert week[:, 6].tolist() == [0, 0]  # Sundays are closed
    assert week[0, :6].mean() < 35 < 45 < week[1, :6].mean()  # the second week is promoted


def test_without_planned_the_note_says_how_to_use_the_columns(tmp_path: Path) -> None:
    rows = [line for line in stores(ahead=0).splitlines()]
    _, result = ingested(tmp_path, "\n".join(rows) + "\n")
    assert any("--planned open,promo,price" in note for note in result.notes)


def test_days_of_the_same_value_are_one_row_and_a_value_of_all_stores_one_plan(tmp_path: Path) -> None:
    tables, _ = ingested(tmp_path, stores(), "promo")
    calendar = tables["calendar"]
    assert len(calendar) == 12 and calendar["keys"].unique().tolist() == ["{}"]
    assert (calendar["last_day"] - calendar["first_day"]).dt.days.tolist() == [6] * 12


def test_words_become_an_event_each(tmp_path: Path) -> None:
    text = "store_id,date,units,holiday\n1,2024-01-01,3,new year\n1,2024-01-02,4,0\n1,2024-01-03,5,\n1,2024-01-04,5,bridge\n"
    tables, _ = ingested(tmp_path, text, "holiday")
    events = tables["calendar"].query("value == 1").set_index("event")["first_day"].dt.day.to_dict()
    assert events == {"holiday=bridge": 4, "holiday=new year": 1}


def test_weeks_keep_their_days(tmp_path: Path) -> None:
    text = "store_id,date,units,promo\n" + "".join(f"1,2024-01-{d:02d},{d},{d % 2}\n" for d in (1, 8, 15, 22))
    tables, _ = ingested(tmp_path, text, "promo")
    rows = tables["calendar"]
    assert rows["first_day"].dt.day.tolist() == [1, 8, 15, 22] and rows["last_day"].dt.day.tolist() == [7, 14, 21, 28]


def test_a_discount_under_another_name_is_a_promotion(tmp_path: Path) -> None:
    text = "store_id,date,units,offer\n1,2024-01-01,3,0\n1,2024-01-02,9,0.25\n1,2024-01-03,3,0\n"
    tables, _ = ingested(tmp_path, text, "offer=discount")
    assert tables["promotions"]["discount"].tolist() == [0, 0.25, 0]


def test_a_column_that_no_row_ahead_has_is_refused(tmp_path: Path) -> None:
    text = "store_id,date,units,visitors\n1,2024-01-01,3,40\n1,2024-01-02,9,90\n1,2024-01-03,,\n"
    with pytest.raises(DataRefused, match="not known ahead") as refusal:
        ingested(tmp_path, text, "visitors")
    assert refusal.value.where == "sales_totals.visitors"


def test_an_empty_cell_between_sales_is_no_plan_and_is_refused(tmp_path: Path) -> None:
    text = "store_id,date,units,promo\n1,2024-01-01,3,0\n1,2024-01-02,,1\n1,2024-01-03,4,0\n"
    with pytest.raises(DataRefused, match="units"):
        ingested(tmp_path, text, "promo")


@pytest.mark.parametrize(
    ("column", "message"),
    [("promos", "did you mean 'promo'"), ("promo=offer", "'offer' is none of"), ("weather", "no column of the sales")],
)
def test_a_wrong_name_is_refused_with_the_columns_there_are(tmp_path: Path, column: str, message: str) -> None:
    with pytest.raises(UsageError) as refusal:
        ingested(tmp_path, stores(), column)
    assert message in str(refusal.value.failures) and "store_id, date, units, open, promo, price" in str(
        refusal.value.next
    )


def test_planned_columns_without_a_sales_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="belong to a file of sales"):
        ingested(tmp_path, "lead_id,scored_at,outcome\n1,2024-01-01,won\n", "promo")


def test_too_many_words_are_no_events(tmp_path: Path) -> None:
    text = "store_id,date,units,note\n" + "".join(f"1,2024-01-{d:02d},3,text {d}\n" for d in range(1, 25))
    with pytest.raises(DataRefused, match="too many for events"):
        ingested(tmp_path, text, "note")


def test_a_plan_file_beside_the_sales_joins_their_columns(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "sales_totals.csv").write_text(stores(), encoding="utf-8")
    (folder / "calendar.csv").write_text("date,event\n2024-02-14,valentine\n", encoding="utf-8")
    ingest(str(folder), "shop", store=tmp_path / "store", zone="UTC", planned=("promo",), created_at=NOW)
    tables = Tables.open(tmp_path / "store", "shop")
    assert set(tables["calendar"]["event"]) == {"promo", "valentine"}


def test_the_plan_of_each_day_is_that_of_the_file(tmp_path: Path) -> None:
    tables, _ = ingested(tmp_path, stores(), "promo", "open")
    model = DemandForecaster(by="store_id", horizon=14)
    panel = model.panel(tables, date(2024, 3, 10))
    plan = known_future(tables, panel, 14, "store_id")
    number = np.arange(84)
    assert np.array_equal(plan.values["promo"], np.repeat((number // 7 % 2)[:, None], 2, axis=1))
    assert np.array_equal(plan.closed[:, 0], number % 7 == 6)


def test_visitors_without_a_future_are_left_out_and_said(tmp_path: Path) -> None:
    rows = [line.split(",") for line in stores(ahead=0).splitlines()]
    draws = np.random.default_rng(3)
    visitors = ["visitors", *(f"{int(row[2]) * 1.5 + draws.normal(0, 9):.0f}" for row in rows[1:])]
    text = "\n".join(",".join([*row, number]) for row, number in zip(rows, visitors, strict=True)) + "\n"
    tables, _ = ingested(tmp_path, text, "promo", "visitors", "open")
    model = DemandForecaster(by="store_id", horizon=14).fit(tables, date(2024, 3, 10))
    assert sorted(note.split(":")[0] for note in model.notes if "left out of the forecast" in note) == [
        "promo",
        "visitors",
    ]
    assert all("no value for any step ahead" in note for note in model.notes if "left out" in note)


def test_visitors_that_tell_the_sales_are_used_neither_in_forecast_nor_backtest(tmp_path: Path) -> None:
    draws = np.random.default_rng(3)
    lines = ["store_id,date,units,visitors"]
    for number, day in enumerate(pd.date_range("2024-01-01", periods=100)):
        units = draws.poisson(40)
        lines.append(f"1,{day:%Y-%m-%d},{units if number < 86 else ''},{units * 3}")
    tables, _ = ingested(tmp_path, "\n".join(lines) + "\n", "visitors")
    model = DemandForecaster(by="store_id", horizon=14, cutoffs=2)
    assert model.evaluate(tables, date(2024, 3, 26)).value > 0.08  # the noise of a Poisson distribution
    model.fit(tables, date(2024, 3, 26))
    assert any("moves with the sales of the same step" in note for note in model.notes)


def test_the_data_end_with_the_sales_and_not_with_the_plan(tmp_path: Path) -> None:
    _, result = ingested(tmp_path, stores(), "promo", "open")
    assert result.manifest.tables["calendar"].max_date == date(2024, 3, 24)
    assert result.manifest.last_day == date(2024, 3, 10)


def test_a_dataset_of_plans_alone_ends_with_them(tmp_path: Path) -> None:
    path = tmp_path / "calendar.csv"
    path.write_text("date,event\n2024-02-14,valentine\n", encoding="utf-8")
    result = ingest(str(path), "plans", store=tmp_path / "store", zone="UTC", created_at=NOW)
    assert result.manifest.last_day == date(2024, 2, 14)
