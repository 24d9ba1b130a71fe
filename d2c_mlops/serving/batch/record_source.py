"""Read the records to score from a file, a folder, an archive or a database, as `d2c ingest` does."""

from __future__ import annotations

from typing import NamedTuple

import pandas as pd

from d2c_mlops.data.ingestion.cells import CellNotes, plain_cells
from d2c_mlops.data.ingestion.joining import with_unique_labels
from d2c_mlops.data.ingestion.reading import parts_at
from d2c_mlops.data.layouts.discovery import RawTable
from d2c_mlops.data.origin import LINE
from d2c_mlops.data.sources.fetch import without_password
from d2c_mlops.data.sources.files import FileFormat, Part, file_stem
from d2c_mlops.errors import DataRefused, UsageError
from d2c_mlops.models.core.contract import Contract


class RecordSource(NamedTuple):
    """The rows of a source, whether all their cells are text, and notes for the user."""

    frame: pd.DataFrame  # rows of a text file have their line there as index, named `line`
    untyped: bool
    notes: tuple[str, ...] = ()


def read_records(source: str, contract: Contract, file_format: FileFormat | None = None) -> RecordSource:
    """Return the records of a source with the numbers and dates of text files in one notation.

    Raises UsageError where source or table is ambiguous, DataRefused where a cell is ambiguous.
    """
    file_format = file_format or FileFormat()
    read = parts_at(source, file_format)
    part = read.parts[0] if len(read.parts) == 1 else _matching_part(read.parts, source, contract)
    notes = (*part.notes, *(f"{name}: not read, no source supports this file type" for name in read.unread))
    if part.unit != "line":
        return RecordSource(part.frame.reset_index(drop=True), False, notes)
    (marked,), origin = with_unique_labels([part])
    cell_notes = CellNotes(origin)
    (plain,) = plain_cells([marked], cell_formats(contract), file_format, cell_notes)
    if cell_notes.failures:
        raise DataRefused(
            "cells are ambiguous",
            where=without_password(source),
            next="correct them at their source, or declare their format: --decimal , or --decimal . for numbers, --dates dmy or --dates mdy for dates",
            failures=cell_notes.failures,
        )
    return RecordSource(plain.frame, True, (*notes, *cell_notes.notes))


def cell_formats(contract: Contract) -> RawTable:
    """Return the cell formats that a contract declares for a text file."""
    names = {kind: tuple(field.name for field in contract.input_fields if field.kind in kind) for kind in KINDS}
    numbers, times = (names[kind] for kind in KINDS)
    keys = tuple(field.name for field in contract.input_fields if field.name == contract.key and field.kind == "string")
    columns = tuple(field.name for field in contract.input_fields)
    return RawTable(columns, name="records", numbers=numbers, times=times, identifiers=keys, checked=True)


KINDS = (("integer", "number"), ("date", "date-time"))


def row_numbers(frame: pd.DataFrame) -> tuple[str, pd.Index[int]]:
    """Return the unit of row numbers in messages (line or row), and the number of each row."""
    if frame.index.name == LINE:
        return "lines", pd.Index(frame.index, name=None)
    return "rows", pd.RangeIndex(1, len(frame) + 1)


def _matching_part(parts: list[Part], source: str, contract: Contract) -> Part:
    needed = {field.name for field in contract.input_fields if not field.nullable}
    fitting = [part for part in parts if needed <= set(part.frame.columns)]
    if len(fitting) != 1:
        listed = ", ".join(sorted(file_stem(part.name) for part in parts)) or "none"
        raise UsageError(
            f"{len(fitting)} of its tables have the columns of {contract.name}: {', '.join(sorted(needed))}",
            where=without_password(source),
            next=f"name one of its tables ({listed}): a single file, or URL::TABLE",
        )
    return fitting[0]
