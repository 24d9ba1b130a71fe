"""The planner's sheet: forecast, interval, order quantity and a column for overrides, which is read back as feedback."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import orjson
import pandas as pd

from d2c_mlops.data.store import write_atomic
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import DataRefused, Failure, UsageError
from d2c_mlops.formulas import csv_text, escape_formulas, unescape_formulas
from d2c_mlops.ledger.schema import feedback
from d2c_mlops.ledger.store import Ledger, insert_new
from d2c_mlops.models.forecasting.forecasting import DemandForecaster
from d2c_mlops.models.forecasting.ordering import OrderRules, order_quantities
from d2c_mlops.registry.versions import Version, load_version
from d2c_mlops.serving.http.idempotency import request_identity
from d2c_mlops.settings import Settings

UNITS = ("demand", "lower_80", "upper_80", "safety_stock", "order_up_to", "on_hand", "on_order", "order")
ENTRIES = ("override", "reason")  # what the planner writes
ORIGIN = ("model", "version", "as_of")  # which forecast a row is of
CALLER = "reorder sheet"
MOST_BYTES = 200_000_000  # of a workbook when it is unpacked
SHEET, ABOUT = "orders", "about"


@dataclass(frozen=True)
class ReorderSheet:
    """The rows of a sheet, and what is said about them."""

    frame: pd.DataFrame
    about: dict[str, str]

    def write(self, path: Path) -> None:
        """Write an Excel file (.xlsx) or a CSV file, as a whole or not at all. Raises UsageError for another kind of file."""
        if path.suffix == ".csv":
            content = csv_text(escape_formulas(self.frame)).encode("utf-8-sig")  # Excel reads UTF-8 by its mark
        elif path.suffix == ".xlsx":
            content = _workbook_bytes(self.frame, self.about)
        else:
            raise UsageError("a sheet is an .xlsx or a .csv file", where=str(path), next="name it reorder.xlsx")
        write_atomic(path, content)


def reorder_sheet(
    version: Version, settings: Settings, rules: OrderRules, stock: Mapping[str, tuple[float, float]] | None = None
) -> ReorderSheet:
    """Return the order of each series by the forecast of a version.

    `stock` is units on hand and on order by series; by default the stock table of the dataset that the version was trained on.
    Raises UsageError where the model is no demand forecast, or the rules are wrong.
    """
    model = load_version(version, settings)
    if not isinstance(model, DemandForecaster):
        raise UsageError(f"{version.model} is no demand forecast", next="name a model that forecasts units")
    units = stock_of_dataset(version, settings, model) if stock is None else stock
    hand, way = ({name: pair[position] for name, pair in units.items()} for position in (0, 1))
    orders = order_quantities(model.learned, rules, hand, way).reset_index()
    origin: dict[str, Any] = {
        "model": version.model,
        "version": version.version,
        "as_of": model.learned.as_of.isoformat(),
    }
    frame = orders.round(dict.fromkeys(UNITS, 1)).assign(override=None, reason=None, **origin)
    absent = int(frame["on_hand"].isna().sum())
    about = {
        "forecast": f"{version.model} version {version.version}, sales until {origin['as_of']}",
        "an order lasts": f"{rules.steps} periods: {rules.lead_time} until it arrives, {rules.review} until the next one",
        "stock covers": f"demand in {rules.quantile:.0%} of these periods",
        "override": "write the units that you order instead, and why; d2c collect --sheet FILE takes them in",
        "stock": f"not known for {absent} of {len(frame)} series: they have no order"
        if absent
        else "known for all series",
    }
    return ReorderSheet(frame, about)


def stock_of_dataset(version: Version, settings: Settings, model: DemandForecaster) -> dict[str, tuple[float, float]]:
    """Return the last units on hand of each series in the dataset that a version was trained on; nothing without a stock table."""
    dataset = version.inputs[0]["name"] if version.inputs else ""
    tables = Tables.open(settings.store, dataset) if dataset else Tables({})
    if "stock" not in tables:
        return {}
    rows = tables.before(date.fromisoformat(version.as_of))["stock"].dropna(subset=["on_hand"]).sort_values("last_day")
    names = [column.strip() for column in model.by.split(",")]
    last = rows.drop_duplicates("keys", keep="last")
    keys = [orjson.loads(text) for text in last["keys"]]
    series = ["|".join(str(key[name]) for name in names) if set(key) == set(names) else None for key in keys]
    return {name: (float(units), 0.0) for name, units in zip(series, last["on_hand"], strict=True) if name is not None}


def read_stock(path: Path) -> dict[str, tuple[float, float]]:
    """Return units on hand and on order by series from a file with the columns series, on_hand and, if there are any, on_order.

    Raises DataRefused with every row that cannot be used.
    """
    frame = _read_sheet(path)
    absent = [Failure("is missing", name) for name in ("series", "on_hand") if name not in frame]
    if absent:
        raise DataRefused("columns are missing", where=str(path), failures=absent, next="name them series and on_hand")
    hand = _unit_column(frame, "on_hand", path)
    way = (
        _unit_column(frame, "on_order", path).fillna(0.0) if "on_order" in frame else pd.Series(0.0, index=frame.index)
    )
    twice = frame["series"].duplicated() | frame["series"].isna()
    if twice.any():
        failures = [
            Failure(f"series {frame['series'][row]} is empty or there twice", f"row {row + 2}")
            for row in frame.index[twice]
        ]
        raise DataRefused("each series has one row", where=str(path), failures=failures[:20])
    return {str(name): (a, b) for name, a, b in zip(frame["series"], hand, way, strict=True)}


@dataclass(frozen=True)
class SheetFeedback:
    """How many rows of a sheet became feedback."""

    followed: int
    overridden: int
    repeated: int  # read before
    changed: int  # read before with another entry; the first one counts
    without_reason: int


def collect_sheet(path: Path, ledger: Ledger, time: datetime) -> SheetFeedback:
    """Take the entries of a sheet into the ledger as feedback: an override, or that the order was followed; each row once.

    Rows without an order and without an override say nothing. Raises DataRefused with every row that cannot be read; then nothing is
    taken in.
    """
    frame = _read_sheet(path)
    needed = ("series", "order", *ENTRIES, *ORIGIN)
    absent = [Failure("is missing", name) for name in needed if name not in frame]
    if absent:
        raise DataRefused(
            "this is no reorder sheet", where=str(path), failures=absent, next="write one with d2c reorder MODEL SHEET"
        )
    order, override = (_unit_column(frame, name, path) for name in ("order", "override"))
    entries = frame[order.notna() | override.notna()]
    rows = [
        _feedback_row(entry, override[number], time)
        for number, entry in zip(entries.index, entries.to_dict("records"), strict=True)
    ]
    with ledger.write() as connection:
        added = {key[0] for key in insert_new(connection, feedback, rows)}
        earlier = {row["id"]: row for row in rows if row["id"] not in added}
        columns = feedback.c.id, feedback.c.action, feedback.c.value
        query = feedback.select().with_only_columns(*columns).where(feedback.c.id.in_(list(earlier)))
        changed = sum(
            (row.action, row.value) != (earlier[row.id]["action"], earlier[row.id]["value"])
            for row in connection.execute(query)
        )
    new = [row for row in rows if row["id"] in added]
    overridden = [row for row in new if row["action"] == "overridden"]
    return SheetFeedback(
        followed=len(new) - len(overridden),
        overridden=len(overridden),
        repeated=len(earlier) - changed,
        changed=changed,
        without_reason=sum(row["reason"] is None for row in overridden),
    )


def _feedback_row(entry: Mapping[Any, Any], override: float, time: datetime) -> dict[str, Any]:
    """Return the feedback of one row."""
    model, version, as_of, series = (str(entry[name]) for name in (*ORIGIN, "series"))
    reason = entry["reason"] if isinstance(entry["reason"], str) and entry["reason"].strip() else None
    is_other = not pd.isna(override)
    return {
        "id": request_identity(CALLER, model, version, as_of, series),
        "model": model,
        "prediction_id": None,
        "key": series[:200],
        "at": time,
        "action": "overridden" if is_other else "followed",
        "reason": reason[:2000] if is_other and reason else None,
        "value": float(override) if is_other else None,
        "caller": CALLER,
        "origin": None,
    }


def _read_sheet(path: Path) -> pd.DataFrame:
    """Return the rows of a CSV or Excel file as text, numbers of Excel as numbers. Raises UsageError and DataRefused."""
    if not path.is_file():
        raise UsageError("there is no such file", where=str(path), next="name an .xlsx or a .csv file")
    try:
        if path.suffix == ".csv":
            return unescape_formulas(pd.read_csv(path, dtype="str", encoding="utf-8-sig"))
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > MOST_BYTES:
                raise DataRefused(f"the workbook holds more than {MOST_BYTES:,} bytes", where=str(path))
        return pd.read_excel(path, dtype=object, engine="openpyxl")
    except (zipfile.BadZipFile, ValueError, KeyError) as error:
        raise DataRefused(
            f"the file cannot be read: {error}", where=str(path), next="save it as .xlsx or .csv"
        ) from error


def _unit_column(frame: pd.DataFrame, name: str, path: Path) -> pd.Series[float]:
    """Return a column of units as numbers, NaN where it is empty. Raises DataRefused with every row that is no number of at least 0."""
    text = frame[name].map(lambda value: None if pd.isna(value) or not str(value).strip() else str(value).strip())
    numbers: pd.Series[float] = pd.to_numeric(text, errors="coerce").astype(float)
    wrong = text.notna() & ~((numbers >= 0) & (numbers < float("inf")))
    if wrong.any():
        failures = [Failure(f"{name} is {text[row]!r}", f"row {row + 2}") for row in frame.index[wrong]]
        raise DataRefused(
            f"{len(failures)} cells of {name} are no units",
            where=str(path),
            failures=failures[:20],
            next="write a number of at least 0, or leave the cell empty",
        )
    return numbers


def _workbook_bytes(frame: pd.DataFrame, about: Mapping[str, str]) -> bytes:
    """Return the bytes of an Excel file: the orders with a marked column for overrides, and what they rest on."""
    from openpyxl import Workbook
    from openpyxl.styles import Font, PatternFill
    from openpyxl.utils import get_column_letter

    book = Workbook()
    sheet, notes = book.active, book.create_sheet(ABOUT)
    sheet.title = SHEET
    sheet.append(list(frame.columns))
    for row in frame.itertuples(index=False):
        sheet.append([None if pd.isna(value) else value for value in row])
    for line in about.items():
        notes.append(line)
    for cells in (*sheet.iter_rows(), *notes.iter_rows()):
        for cell in cells:
            if isinstance(cell.value, str):
                cell.data_type = "s"  # a text that begins with = is no formula
    marked = PatternFill("solid", fgColor="FFF2CC")
    for number, name in enumerate(frame.columns, 1):
        sheet.cell(1, number).font = Font(bold=True)
        sheet.column_dimensions[get_column_letter(number)].width = 30 if name in ("series", "reason") else 13
        if name in ENTRIES:
            for (cell,) in sheet.iter_rows(min_col=number, max_col=number):
                cell.fill = marked
    notes.column_dimensions["A"].width, notes.column_dimensions["B"].width = 18, 90
    sheet.freeze_panes = "B2"
    sheet.auto_filter.ref = sheet.dimensions
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()
