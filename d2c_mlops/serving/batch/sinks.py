"""Sinks of batch predictions: a file that is replaced as a whole, a database table with upserts, a web hook."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from d2c_mlops import former_names
from d2c_mlops.data.sources.fetch import URL, load_entry_points, without_password
from d2c_mlops.data.store import translate_full_disk
from d2c_mlops.errors import UsageError
from d2c_mlops.formulas import csv_text, escape_formulas
from d2c_mlops.models.core.contract import Contract
from d2c_mlops.settings import Settings
from d2c_mlops.settings.parsing import home_path


@dataclass(frozen=True)
class Batch:
    """Description of a batch for its sink."""

    id: str
    model: str
    version: int
    contract: Contract
    identity: tuple[str, ...]  # columns that identify a prediction
    reasons: bool
    records: int
    challenger: int | None = None  # the version that answers some of them
    asked: pd.DataFrame | None = field(default=None, compare=False, repr=False)  # the checked records, in order


@dataclass
class WriteCounts:
    """Counts of a sink: new, changed and unchanged predictions."""

    inserted: int = 0
    updated: int = 0
    unchanged: int = 0
    dead: int = 0  # undeliverable predictions, stored in `letters`
    letters: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return asdict(self)


class BatchWriter(Protocol):
    """An open sink."""

    resumed_at: int  # records that an earlier attempt at this batch has written
    columns: list[str]

    def write(self, frame: pd.DataFrame, first: int) -> None:
        """Write predictions; `first` is the place of the first one in the batch."""

    def finish(self) -> WriteCounts:
        """Publish the predictions and return the counts."""


class Sink(Protocol):
    """Interface of a sink; sinks are discovered by the entry points `d2c_mlops.sinks`."""

    expects: ClassVar[str]
    unique: ClassVar[bool]  # whether it stores one prediction per key and version

    def matches(self, location: str) -> bool:
        """Return whether this sink supports the location."""

    def open(self, location: str, batch: Batch) -> AbstractContextManager[BatchWriter]:
        """Open the sink for a batch. Raises UsageError where it does not fit the batch, Temporary where it is unavailable."""


def find_sink(location: str, settings: Settings) -> Sink:
    """Return the sink for a location. Raises UsageError that lists the supported locations."""
    sinks: dict[str, Any] = load_entry_points("d2c_mlops.sinks")
    for sink in sinks.values():
        if sink.matches(location):
            if hasattr(sink, "store"):
                sink.store = settings.store
            if hasattr(sink, "settings"):
                sink.settings = settings
            return sink  # type: ignore[no-any-return]
    raise UsageError(
        "no sink supports this location; supported: "
        + "; ".join(f"{name} ({sink_.expects})" for name, sink_ in sinks.items()),
        where=without_password(location),
        next="check the spelling of the file's suffix or of the URL",
    )


@dataclass
class _File:
    """A file under a temporary name until it is complete."""

    path: Path
    draft: Path
    resumed_at: int = 0
    columns: list[str] = field(default_factory=list)
    count: int = 0
    writer: Any = None

    def write(self, frame: pd.DataFrame, first: int) -> None:
        self.columns = list(frame.columns)
        with translate_full_disk(self.path.parent):
            if self.path.suffix.lower() == ".csv":
                with self.draft.open("a", encoding="utf-8", newline="") as file:
                    file.write(csv_text(escape_formulas(frame), header=self.count == 0))
            else:
                table = pa.Table.from_pandas(frame, preserve_index=False)
                self.writer = self.writer or pq.ParquetWriter(self.draft, table.schema)
                self.writer.write_table(table.cast(self.writer.schema))
        self.count += len(frame)

    def finish(self) -> WriteCounts:
        with translate_full_disk(self.path.parent):
            if self.writer is not None:
                self.writer.close()
                self.writer = None
            with self.draft.open("rb+") as file:
                os.fsync(file.fileno())
            same = self.path.exists() and self.path.read_bytes() == self.draft.read_bytes()
            if not same:
                self.draft.replace(self.path)
        return WriteCounts(unchanged=self.count) if same else WriteCounts(inserted=self.count)


class FileSink:
    """Sink for a Parquet or CSV file, which is replaced as a whole."""

    expects: ClassVar[str] = "FILE.parquet or FILE.csv"
    unique: ClassVar[bool] = False

    def matches(self, location: str) -> bool:
        return not URL.match(location) and Path(location).suffix.lower() in (".parquet", ".csv")

    @contextmanager
    def open(self, location: str, batch: Batch) -> Iterator[BatchWriter]:
        path = home_path(location)
        if not path.parent.is_dir():
            raise UsageError("the folder does not exist", where=str(path.parent), next=f"mkdir -p {path.parent}")
        draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        out = _File(path, draft)
        try:
            yield out
        finally:
            if out.writer is not None:
                out.writer.close()
            draft.unlink(missing_ok=True)


def __getattr__(name: str) -> Any:
    """Return a class or function of this module by its former name."""
    return former_names.renamed_class(__name__, name)
