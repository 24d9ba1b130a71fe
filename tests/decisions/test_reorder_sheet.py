"""A planner's sheet: orders go out, overrides come back once, and nothing in a cell is a formula."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path

import openpyxl
import pandas as pd
import pytest
from click.testing import CliRunner
from sqlalchemy import select

from d2c_mlops.cli import main
from d2c_mlops.data.simulate import shop
from d2c_mlops.data.store import write_dataset
from d2c_mlops.data.validation import validate
from d2c_mlops.decisions.reorder_sheet import collect_sheet, read_stock, reorder_sheet
from d2c_mlops.errors import DataRefused, UsageError
from d2c_mlops.ledger.schema import feedback
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.model import Evaluation
from d2c_mlops.models.forecasting.ordering import OrderRules
from d2c_mlops.registry.versions import Version, new_model, register
from d2c_mlops.settings import Settings
from support.training import train

AS_OF, NOW = date(2023, 7, 19), datetime(2023, 7, 20, 8, tzinfo=UTC)
SERIES = ("bath", "face", "gifts", "hair")


@pytest.fixture
def demand(settings: Settings) -> Version:
    """A version of the demand forecast of a simulated shop with a stock table of two categories."""
    day = pd.Timestamp("2023-07-18", tz="UTC")
    rows = [(f'{{"category":"{name}"}}', day, day, None, units, None) for name, units in (("bath", 3.0), ("hair", 9e5))]
    stock = pd.DataFrame(rows, columns=["keys", "first_day", "last_day", "share_out", "on_hand", "hours"])
    tables = {**shop(days=200, customers=200), "stock": validate("stock", stock)}
    manifest, _ = write_dataset(settings.store, "shop", tables, source="simulated", layout="canonical", created_at=NOW)
    model = new_model("demand", settings, {"horizon": 14}).fit(shop(days=200, customers=200), AS_OF)
    inputs = [{"name": "shop", "digest": manifest.digest}]
    evaluation = Evaluation("wape", 0.2, {"weekday_mean_8w": 0.3}, True)
    return register("demand", model, evaluation, settings=settings, as_of=AS_OF, inputs=inputs)


def rows_of(settings: Settings) -> list[tuple[str, str, float | None, str | None]]:
    with Ledger.of(settings).read() as connection:
        found = connection.execute(select(feedback).order_by(feedback.c.key)).all()
    return [(row.key, row.action, row.value, row.reason) for row in found]


def entered(path: Path, **entries: tuple[object, object]) -> None:
    """Write overrides and reasons by series into an Excel sheet, as a planner does."""
    book = openpyxl.load_workbook(path)
    sheet = book["orders"]
    names = [cell.value for cell in sheet[1]]
    for row in sheet.iter_rows(min_row=2):
        if row[0].value in entries:
            row[names.index("override")].value, row[names.index("reason")].value = entries[row[0].value]
    book.save(path)


def test_stock_of_the_dataset_is_taken_and_what_is_not_known_is_told(settings: Settings, demand: Version) -> None:
    sheet = reorder_sheet(demand, settings, OrderRules())
    frame = sheet.frame.set_index("series")
    assert frame["on_hand"].dropna().to_dict() == {"bath": 3.0, "hair": 9e5}
    assert frame.loc["bath", "order"] > 0 and frame.loc["hair", "order"] == 0 and frame["order"].isna().sum() == 2
    assert "2 of 4 series" in sheet.about["stock"]


@pytest.mark.parametrize("suffix", [".xlsx", ".csv"])
def test_a_sheet_comes_back_as_it_was_written(settings: Settings, demand: Version, tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"reorder{suffix}"
    reorder_sheet(demand, settings, OrderRules(), dict.fromkeys(SERIES, (2.0, 1.0))).write(file)
    counts = collect_sheet(file, Ledger.of(settings), NOW)
    assert (counts.followed, counts.overridden) == (4, 0)
    assert [(key, action) for key, action, *_ in rows_of(settings)] == [(name, "followed") for name in SERIES]


def test_an_override_is_read_once_with_its_reason(settings: Settings, demand: Version, tmp_path: Path) -> None:
    file = tmp_path / "reorder.xlsx"
    reorder_sheet(demand, settings, OrderRules(), dict.fromkeys(SERIES, (2.0, 1.0))).write(file)
    entered(file, bath=(40, "the fair"), hair=(0, None))
    first, again = (collect_sheet(file, Ledger.of(settings), NOW) for _ in range(2))
    assert (first.followed, first.overridden, first.without_reason) == (2, 2, 1)
    assert (again.followed, again.overridden, again.repeated) == (0, 0, 4)
    entered(file, bath=(50, "the fair"))
    assert collect_sheet(file, Ledger.of(settings), NOW).changed == 1
    assert [rows_of(settings)[number] for number in (0, 3)] == [
        ("bath", "overridden", 40.0, "the fair"),
        ("hair", "overridden", 0.0, None),
    ]


def test_a_cell_that_is_no_number_takes_nothing_in(settings: Settings, demand: Version, tmp_path: Path) -> None:
    file = tmp_path / "reorder.xlsx"
    reorder_sheet(demand, settings, OrderRules(), dict.fromkeys(SERIES, (2.0, 1.0))).write(file)
    entered(file, bath=("forty", "the fair"), hair=(-1, None))
    with pytest.raises(DataRefused, match="2 cells of override") as refusal:
        collect_sheet(file, Ledger.of(settings), NOW)
    assert [failure.where for failure in refusal.value.failures] == ["row 2", "row 5"]
    assert rows_of(settings) == []


def test_another_file_is_no_sheet(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "sales.csv"
    file.write_text("series,units\ntea,3\n")
    with pytest.raises(DataRefused, match="no reorder sheet"):
        collect_sheet(file, Ledger.of(settings), NOW)
    (tmp_path / "broken.xlsx").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(DataRefused, match="cannot be read"):
        collect_sheet(tmp_path / "broken.xlsx", Ledger.of(settings), NOW)


def test_no_name_of_a_series_is_a_formula(settings: Settings, demand: Version, tmp_path: Path) -> None:
    sheet = reorder_sheet(demand, settings, OrderRules(), dict.fromkeys(SERIES, (2.0, 1.0)))
    sheet.frame.loc[0, "series"] = "=HYPERLINK(1)"
    for name in ("reorder.xlsx", "reorder.csv"):
        sheet.write(tmp_path / name)
    assert openpyxl.load_workbook(tmp_path / "reorder.xlsx")["orders"]["A2"].data_type == "s"
    assert "'=HYPERLINK(1)" in (tmp_path / "reorder.csv").read_text("utf-8-sig")
    collect_sheet(tmp_path / "reorder.csv", Ledger.of(settings), NOW)
    assert "=HYPERLINK(1)" in [key for key, *_ in rows_of(settings)]


def test_stock_of_a_file_is_by_series_and_each_row_is_checked(tmp_path: Path) -> None:
    file = tmp_path / "stock.csv"
    file.write_text("series,on_hand,on_order\ntea,3,2\nhair,4,\n")
    assert read_stock(file) == {"tea": (3.0, 2.0), "hair": (4.0, 0.0)}
    file.write_text("series,on_hand\ntea,3\ntea,4\n")
    with pytest.raises(DataRefused, match="one row") as refusal:
        read_stock(file)
    assert refusal.value.failures[0].where == "row 3"
    file.write_text("series,on_hand\ntea,many\n")
    with pytest.raises(DataRefused, match="no units"):
        read_stock(file)


def test_other_models_and_other_files_are_refused(settings: Settings, demand: Version, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no demand forecast"):
        reorder_sheet(train(settings), settings, OrderRules())
    with pytest.raises(UsageError, match=r"\.xlsx or a \.csv"):
        reorder_sheet(demand, settings, OrderRules()).write(tmp_path / "reorder.ods")
    assert not list(tmp_path.glob("reorder*"))


def test_the_commands_write_and_read_a_sheet(
    settings: Settings, demand: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(settings.root)
    (settings.root / "stock.csv").write_text("series,on_hand\n" + "".join(f"{name},1\n" for name in SERIES))
    options = ["--version", "1", "--stock", "stock.csv", "--pack", "6", "--service-level", "0.9", "--json"]
    run = CliRunner().invoke(main, ["reorder", "demand", "reorder.xlsx", *options])
    assert run.exit_code == 0, run.output
    report = json.loads(run.output)
    assert report["series"] == report["ordered"] == 4 and report["units"] % 6 == 0
    run = CliRunner().invoke(main, ["collect", "--sheet", "reorder.xlsx"])
    assert run.exit_code == 0 and "4 orders followed, 0 overridden" in run.output
    run = CliRunner().invoke(main, ["reorder", "demand", "reorder.xlsx", "--version", "1", "--lead-time", "30"])
    assert run.exit_code == 2 and "the forecast reaches 14" in run.output
