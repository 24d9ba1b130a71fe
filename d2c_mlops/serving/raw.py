"""Raw tables as records of a contract: what a service would refuse in a request is refused in a table, too."""

from __future__ import annotations

from typing import Any

import pandas as pd

from ..errors import DataRefused, Failure
from ..models.contract import Contract, Field

TRUE, FALSE = frozenset({"true", "t", "yes", "y", "1"}), frozenset({"false", "f", "no", "n", "0"})
NUMBERS = frozenset({"integer", "floating", "mixed-integer-float", "decimal"})
MOMENTS = frozenset({"string", "date", "datetime", "datetime64"})
TAKEN: dict[str, frozenset[str]] = {  # what pandas may find in a column of each kind
    "string": frozenset({"string", "integer"}),  # a table's identifiers are often numbers
    "integer": NUMBERS,
    "number": NUMBERS,
    "boolean": frozenset({"boolean", "string", "integer", "floating"}),  # not every database has a type for it
    "date": MOMENTS,
    "date-time": MOMENTS - {"date"},
}
DAY = r"\d{4}-\d\d-\d\d(?:[T ]00:00(?::00(?:\.0+)?)?)?"
CLOCK = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?"
ZONE = r"\s?(?:[Zz]|[+-]\d\d:?\d\d)"


def checked(contract: Contract, frame: pd.DataFrame, where: str, untyped: bool) -> pd.DataFrame:
    """Return the contract's inputs of a raw table; raises DataRefused with every fault.

    `untyped` says that all cells are text, as in a CSV file: numbers are read from it then, and a moment has to tell its zone.
    Words for yes and no are true and false; days and moments are ISO 8601; a database's moments without a zone are UTC.
    """
    kept = [one for one in contract.input_fields if one.name in frame]
    made, failures = frame[[one.name for one in kept]].copy(), []
    for one in kept:
        column = made[one.name]
        made[one.name], fault = _column(one, column, untyped)
        if fault:
            failures.append(Failure(fault, one.name))
    try:
        found = contract.check_inputs(made, where=where)
    except DataRefused as err:
        told = {each.where for each in failures}
        rest = [each for each in err.failures if each.where not in told]
        raise DataRefused(err.what, where=err.where, next=err.next, failures=[*failures, *rest]) from None
    if failures:
        raise DataRefused(
            "the data breaks its contract", where=f"{contract.name} {contract.version} {where}", failures=failures
        )
    return found


def _column(one: Field, column: pd.Series[Any], untyped: bool) -> tuple[pd.Series[Any], str]:
    """Return a column as values of its field's kind, or as it is and why it cannot be that."""
    cells = column.astype("object") if isinstance(column.dtype, pd.CategoricalDtype) else column
    kind = pd.api.types.infer_dtype(cells, skipna=True)
    if kind == "empty" or cells.isna().all():
        return column, ""
    if kind == "string":
        if one.kind == "boolean":
            return _truths(cells)
        if one.kind in ("date", "date-time"):
            return _moments(one, cells, untyped)
        if untyped:
            return cells, ""
    return cells, "" if kind in TAKEN[one.kind] else f"holds {kind} where {one.kind} is asked for"


def _truths(column: pd.Series[Any]) -> tuple[pd.Series[Any], str]:
    words = column.astype("str").str.strip().str.lower()
    told = words.map({**dict.fromkeys(TRUE, True), **dict.fromkeys(FALSE, False)})
    if fault := _wrong(column, told.isna(), "is neither true nor false"):
        return column, fault
    return told.astype("boolean"), ""


def _moments(one: Field, column: pd.Series[Any], untyped: bool) -> tuple[pd.Series[Any], str]:
    words, day = column.astype("str").str.strip(), one.kind == "date"
    layout = DAY if day else CLOCK + (ZONE if untyped else f"(?:{ZONE})?")
    made = pd.to_datetime(words.where(column.notna()), format="ISO8601", errors="coerce", utc=not day)
    asked = "a day, as 2024-01-31" if day else "a moment with its zone, as 2024-01-31T12:00:00Z"
    fault = _wrong(column, ~words.str.fullmatch(layout).astype(bool) | made.isna(), f"is not {asked}")
    return (column, fault) if fault else (made, "")


def _wrong(column: pd.Series[Any], wrong: pd.Series[Any], what: str) -> str:
    """Return what is wrong with how many cells that are there, with examples; an empty text when none is."""
    bad = column[wrong & column.notna()]
    examples = ", ".join(map(repr, bad.head(3)))
    return (
        f"{what}: {len(bad)} value(s), rows {', '.join(map(str, bad.index[:3]))}, e.g. {examples}" if len(bad) else ""
    )
