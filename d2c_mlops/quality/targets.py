"""What an assessment is about: a dataset of the store, or a source that was not ingested."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pandas as pd

from d2c_mlops.data.ingestion.reading import read_location
from d2c_mlops.data.manifest import list_datasets
from d2c_mlops.data.quality.inputs import Inputs
from d2c_mlops.data.sources.fetch import without_password
from d2c_mlops.data.sources.files import FileFormat
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import DataRefused

FAR = date(9999, 12, 30)  # a day after all rows


@dataclass(frozen=True)
class QualityTarget:
    """Tables to assess, their name, the day up to which they are known, and the digest of a dataset (empty for a source).

    `unread` are files that nothing reads, `notes` what the readers of a source left out or named themselves.
    """

    name: str
    tables: Mapping[str, pd.DataFrame]
    as_of: date
    digest: str = ""
    unread: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_dataset(self) -> bool:
        """Whether the tables are those of a dataset in the store."""
        return bool(self.digest)


def open_target(
    target: str, store: Path, *, as_of: date | None = None, file_format: FileFormat | None = None
) -> QualityTarget:
    """Return the dataset of a name, or else the raw tables at a location.

    Without `as_of` that is the last day on which anything happened. Raises UsageError where nothing is found, DataRefused
    where no column has dates and `as_of` is not given.
    """
    if target in list_datasets(store):
        tables = Tables.open(store, target)
        manifest = tables.manifest
        assert manifest is not None
        day = as_of or manifest.last_day
        if day is None:
            raise DataRefused("the dataset has no rows with a time", where=target, next="ingest rows, or give --as-of")
        return QualityTarget(target, tables, day, manifest.digest)
    reading = read_location(target, None, file_format)
    frames = {table_name(name): frame for name, frame in reading.frames.items()}
    day, unread, notes = as_of or last_day(frames, target), tuple(reading.unread), tuple(reading.notes)
    return QualityTarget(without_password(target), frames, day, unread=unread, notes=notes)


def last_day(frames: Mapping[str, pd.DataFrame], where: str) -> date:
    """Return the last day of raw tables, today at most, by the columns that hold the time of a row.

    Raises DataRefused without such a column, and where all rows are dated after today.
    """
    inputs = Inputs.of(frames, FAR)
    days = [
        inputs.query(f"SELECT min(day) AS first, max(day) AS last FROM {table.lines}").iloc[0]
        for table in inputs.tables
        if table.rows and "at" in table.roles
    ]
    days = [row for row in days if not pd.isna(row["last"])]
    if not days:
        raise DataRefused("no column with the time of a row was found", where=where, next="give the day: --as-of DATE")
    today = date.today()
    if (first := min(pd.Timestamp(row["first"]).date() for row in days)) > today:
        raise DataRefused(
            f"all rows are dated after today, from {first} on",
            where=where,
            next="correct the dates at their source, or give the day: --as-of DATE",
        )
    return min(max(pd.Timestamp(row["last"]).date() for row in days), today)


def table_name(name: str) -> str:
    """Return the name of a raw table: that of its file without folder and suffix."""
    return Path(name).stem or name
