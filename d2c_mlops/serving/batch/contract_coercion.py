"""Convert and validate raw tables by a contract, with the same rules as a request to the service."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from d2c_mlops.data.sources.frames import EXACT
from d2c_mlops.data.validation import read_text
from d2c_mlops.errors import DataRefused, Failure
from d2c_mlops.models.core.contract import Contract, Field
from d2c_mlops.serving.batch.record_source import row_numbers

TRUE, FALSE = frozenset({"true", "t", "yes", "y", "1"}), frozenset({"false", "f", "no", "n", "0"})
NUMBERS = frozenset({"integer", "floating", "mixed-integer-float", "decimal"})
IDENTIFIERS = NUMBERS | {"bytes", "mixed-integer", "mixed"}  # what a table's identifiers may be, beside text
MOMENTS = frozenset({"string", "date", "datetime", "datetime64"})
TAKEN: dict[str, frozenset[str]] = {  # what pandas may find in a column of each kind
    "string": frozenset({"string"}),
    "integer": NUMBERS,
    "number": NUMBERS,
    "boolean": frozenset({"boolean", "string", "integer", "floating"}),  # not every database has a type for it
    "date": MOMENTS,
    "date-time": MOMENTS - {"date"},
}
PLAIN = (str, int, float, Decimal, bytes, np.integer, np.floating)
LARGEST = 2**63
DAY = r"\d{4}-\d\d-\d\d(?:[T ]00:00(?::00(?:\.0+)?)?)?"
CLOCK = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?"
ZONE = r"\s?(?:[Zz]|[+-]\d\d:?\d\d)"


def coerce_inputs(contract: Contract, frame: pd.DataFrame, source_name: str, cells_are_text: bool) -> pd.DataFrame:
    """Return the contract's inputs of a raw table. Raises DataRefused with every error.

    `cells_are_text` means that all cells are text, as in a CSV file: numbers are parsed, and times need a zone.
    Identifiers keep every digit; messages name the lines of a text file, else rows counted from 1. Booleans are true and false; dates and times are ISO 8601; a database's times without a zone are UTC.
    """
    present = [field for field in contract.input_fields if field.name in frame]
    unit, numbers = row_numbers(frame)
    typed, failures = frame[[field.name for field in present]].set_axis(numbers), []
    for field in present:
        column = typed[field.name]
        typed[field.name], fault = _coerce_column(field, column, cells_are_text)
        fault = fault or _missing_values(field, typed[field.name])
        if fault:
            failures.append(Failure(fault, field.name))
    failures = [_with_row_number(failure, unit) for failure in failures]
    try:
        inputs = contract.check_inputs(typed, source_name=source_name).reset_index(drop=True)
    except DataRefused as err:
        reported_columns = {failure.where for failure in failures}
        other_failures = [
            _with_row_number(failure, unit) for failure in err.failures if failure.where not in reported_columns
        ]
        raise DataRefused(err.what, where=err.where, next=err.next, failures=[*failures, *other_failures]) from None
    if failures:
        raise DataRefused(
            "the data does not match its contract",
            where=f"{contract.name} {contract.version} {source_name}",
            failures=failures,
        )
    return inputs


def _with_row_number(failure: Failure, unit: str) -> Failure:
    """Return a failure whose row numbers have the right unit: lines or rows."""
    return replace(failure, what=failure.what.replace("value(s), rows ", f"value(s), {unit} "))


def _coerce_column(field: Field, column: pd.Series[Any], cells_are_text: bool) -> tuple[pd.Series[Any], str]:
    """Return a column converted to its field's kind, or unchanged with the error."""
    cells = column.astype("object") if isinstance(column.dtype, pd.CategoricalDtype) else column
    kind = pd.api.types.infer_dtype(cells, skipna=True)
    if kind == "empty" or cells.isna().all():
        return column, ""
    if field.kind == "string" and kind in IDENTIFIERS:
        return _to_texts(cells)
    if field.kind == "integer" and kind in NUMBERS and (fault := _inexact_numbers(cells)):
        return cells, fault
    if kind == "string":
        if field.kind == "boolean":
            return _to_booleans(cells)
        if field.kind in ("date", "date-time"):
            return _to_times(field, cells, cells_are_text)
        if cells_are_text and field.kind in ("integer", "number"):
            numbers = pd.to_numeric(cells, errors="coerce")
            return cells, _wrong_rows(
                cells, numbers.isna(), f"is not {'a number' if field.kind == 'number' else 'an integer'}"
            )
        if cells_are_text:
            return cells, ""
    return cells, "" if kind in TAKEN[field.kind] else f"holds {kind}, expected {field.kind}"


def _to_texts(column: pd.Series[Any]) -> tuple[pd.Series[Any], str]:
    """Return identifiers as text with every digit; a fraction or a float beyond 2^53 is an error."""
    texts, lost = read_text(column)
    text = column.map(lambda value: isinstance(value, str)).to_numpy(bool)
    fraction = texts.str.contains(".", regex=False, na=False).to_numpy(bool)
    strange = column.map(lambda value: not isinstance(value, PLAIN)).to_numpy(bool) & column.notna().to_numpy(bool)
    wrong = pd.Series(lost | strange | (fraction & ~text), index=column.index)
    fault = _wrong_rows(column, wrong, "is not an identifier (a fraction, or a float that lost digits)")
    return (column, fault) if fault else (texts, "")


def _inexact_numbers(column: pd.Series[Any]) -> str:
    """Return a mask of integers that do not fit into signed 64 bits, or that lost digits in a column of floats."""

    def wrong(value: Any) -> bool:
        limit = EXACT if isinstance(value, float) else LARGEST
        return bool(pd.notna(value) and not -limit <= value < limit)

    if pd.api.types.is_signed_integer_dtype(column.dtype):
        return ""
    return _wrong_rows(
        column, column.map(wrong).astype(bool), "does not fit into 64 bits, or is a float that lost digits"
    )


def _missing_values(field: Field, column: pd.Series[Any]) -> str:
    """Return an error for missing values of a required field, with rows."""
    gone = [] if field.nullable else column.index[column.isna().to_numpy(bool)].tolist()
    return f"must not be empty: {len(gone)} value(s), rows {', '.join(map(str, gone[:3]))}" if len(gone) else ""


def _to_booleans(column: pd.Series[Any]) -> tuple[pd.Series[Any], str]:
    words = column.astype("str").str.strip().str.lower()
    booleans = words.map({**dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)})
    if fault := _wrong_rows(column, booleans.isna(), "is not a boolean"):
        return column, fault
    return booleans.astype("boolean"), ""


def _to_times(field: Field, column: pd.Series[Any], cells_are_text: bool) -> tuple[pd.Series[Any], str]:
    words, day = column.astype("str").str.strip(), field.kind == "date"
    layout = DAY if day else CLOCK + (ZONE if cells_are_text else f"(?:{ZONE})?")
    moments = pd.to_datetime(words.where(column.notna()), format="ISO8601", errors="coerce", utc=not day)
    expected = "a date such as 2024-01-31" if day else "a time with a zone such as 2024-01-31T12:00:00Z"
    fault = _wrong_rows(column, ~words.str.fullmatch(layout).astype(bool) | moments.isna(), f"is not {expected}")
    return (column, fault) if fault else (moments, "")


def _wrong_rows(column: pd.Series[Any], wrong: pd.Series[Any], fault: str) -> str:
    """Return an error with the count and examples of invalid cells; empty when there is none."""
    bad = column[wrong & column.notna()]
    examples = ", ".join(map(repr, bad.head(3)))
    return (
        f"{fault}: {len(bad)} value(s), rows {', '.join(map(str, bad.index[:3]))}, e.g. {examples}" if len(bad) else ""
    )
