"""Batch scoring: predict a whole table with the model and checks of the service, and write to an idempotent sink."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

import orjson
import pandas as pd

from d2c_mlops.data.sources.fetch import split_location, without_password
from d2c_mlops.data.sources.files import FileFormat
from d2c_mlops.errors import DataRefused, Failure, UsageError
from d2c_mlops.formulas import unescape_formulas
from d2c_mlops.models.core.contract import Contract, to_records
from d2c_mlops.models.core.model import Model
from d2c_mlops.registry.versions import Version, load_version
from d2c_mlops.serving.batch.asked_records import asked_records
from d2c_mlops.serving.batch.contract_coercion import coerce_inputs
from d2c_mlops.serving.batch.record_source import read_records
from d2c_mlops.serving.batch.sinks import Batch, WriteCounts, find_sink
from d2c_mlops.serving.predict.predictor import check_predictions
from d2c_mlops.serving.rollout.state_file import Rollout
from d2c_mlops.serving.rollout.variants import TRIES
from d2c_mlops.settings import Settings
from d2c_mlops.settings.parsing import home_path

CHUNK = 20_000  # records per chunk: predicted, written and committed together
Progress = Callable[[int, int], None]  # records done, records in all


@dataclass(frozen=True)
class BatchResult:
    """Result of scoring a table."""

    model: str
    version: int
    records: int
    written: WriteCounts
    batch: str  # digest of records, version and sink: a repeated command is the same batch
    sink: str
    resumed_at: int = 0  # records written by an earlier, interrupted attempt
    columns: tuple[str, ...] = field(default=())
    challenger: int | None = None  # the challenger, while a rollout is in progress
    challenged: int = 0  # records that the challenger answered in this run
    failed: int = 0  # records that the challenger failed on; the champion answered them
    notes: tuple[str, ...] = ()  # how the source was read

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {
            "model": self.model,
            "version": self.version,
            "records": self.records,
            **self.written.to_dict(),
            "batch": self.batch,
            "sink": self.sink,
            "resumed_at": self.resumed_at,
            "columns": list(self.columns),
            "challenger": self.challenger,
            "challenged": self.challenged,
            "failed": self.failed,
            "notes": list(self.notes),
        }


def score(
    version: Version,
    source: str
    | None,  # a file, a folder or a database's URL with ::TABLE; None: the records that the model itself names
    sink: str,  # FILE.parquet, FILE.csv, a database's URL with ::TABLE, or a web hook's URL
    settings: Settings,
    *,
    file_format: FileFormat | None = None,  # what is declared about text files
    reasons: bool = False,
    rollout_and_challenger: tuple[Rollout, Version]
    | None = None,  # rollout in progress: the challenger answers its share of keys here too
    chunk: int = CHUNK,
    progress: Progress = lambda done, total: None,
    sums: bool = False,  # without a source: the sums of series too
) -> BatchResult:
    """Predict every record of a source, or every record that the model itself names, and write the predictions; predictions that an interrupted attempt has written are not written again.

    Raises DataRefused with every error where records do not match the contract (nothing is written), UsageError where source
    or sink cannot be read, Temporary where a server is unavailable: the same command resumes where it stopped.
    """
    if source is not None:
        _check_not_the_same(source, sink)
    model = load_version(version, settings)
    contract = model.contract
    if reasons and not has_reasons(model):
        raise UsageError(f"{version.model} gives no reasons", next="run the command without --reasons")
    read = (
        asked_records(model, version, settings, sums) if source is None else read_records(source, contract, file_format)
    )
    rows = unescape_formulas(read.frame) if read.untyped else read.frame
    where = f"the records of {version.model}" if source is None else without_password(source)
    frame = coerce_inputs(contract, rows, where, read.untyped)
    if frame.empty:
        raise DataRefused("the source has no records", where=where, next="check that this is the right table")
    writer = find_sink(sink, settings)
    identity = identity_columns(contract, nullable=not writer.unique)
    batch = Batch(
        _batch_id(frame, version, sink, reasons, rollout_and_challenger), version.model, version.version, contract, identity, reasons,
        len(frame), rollout_and_challenger[1].version if rollout_and_challenger else None, frame,
    )  # fmt: skip
    both = (
        SplitScorer(model, version, load_version(rollout_and_challenger[1], settings), *rollout_and_challenger, reasons)
        if rollout_and_challenger
        else None
    )
    if writer.unique and (twice := list(islice(repeated_keys(frame, identity), 20))):
        raise DataRefused(
            f"{without_password(sink)} stores one row per {', '.join(identity)}, and the source has duplicates",
            where=where,
            failures=twice,
            next="remove the duplicates from the source, or write to a file",
        )
    with writer.open(sink, batch) as out:
        start = out.resumed_at
        for first in range(start, len(frame), chunk):
            rows = frame.iloc[first : first + chunk].reset_index(drop=True)
            out.write(both.answers(rows) if both else predict_chunk(model, rows, version, reasons), first)
            progress(min(first + chunk, len(frame)), len(frame))
        written = out.finish()
    rollout_counts = (both.beside.version, both.challenged, both.failed) if both else ()
    result = BatchResult(
        version.model,
        version.version,
        len(frame),
        written,
        batch.id,
        without_password(sink),
        start,
        tuple(out.columns),
        *rollout_counts,
    )
    return replace(result, notes=read.notes)


def predict_chunk(model: Model, rows: pd.DataFrame, version: Version, reasons: bool) -> pd.DataFrame:
    """Return the predictions for checked records, with the version that made each. Raises InvalidPredictions for invalid predictions."""
    extra: dict[str, Any] = {"model": version.model, "version": version.version}
    if reasons:
        predicted, row_reasons = model.predict_with_reasons(rows)
        extra["reasons"] = [orjson.dumps(texts).decode() for texts in row_reasons or [[]] * len(rows)]
    else:
        predicted = model.predict(rows.copy())
    check_predictions(model.contract, rows, predicted, version.model)
    return predicted.reset_index(drop=True).assign(**extra)


@dataclass
class SplitScorer:
    """A champion and a challenger that split a table by the key, as in the service."""

    model: Model
    version: Version
    challenger: Model
    rollout: Rollout
    beside: Version
    reasons: bool
    challenged: int = 0
    failed: int = 0

    def answers(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return a prediction per record in order, with its version and variant."""
        (field,) = (
            key_field for key_field in self.model.contract.input_fields if key_field.name == self.model.contract.key
        )
        keys = [record[field.name] for record in to_records((field,), rows)]
        chosen = pd.Series([self.rollout.chooses(key) for key in keys], index=rows.index, dtype=bool)
        parts_of_challenger = list(self._challenger_chunks(rows[chosen], [])) if chosen.any() else []
        remaining = rows.drop(index=[i for part in parts_of_challenger for i in part.index])
        self.challenged += int(chosen.sum())
        self.failed += int(chosen.sum()) - sum(map(len, parts_of_challenger))
        parts = [part.assign(variant="challenger") for part in parts_of_challenger]
        if len(remaining):
            ours = predict_chunk(self.model, remaining.reset_index(drop=True), self.version, self.reasons)
            parts.insert(0, ours.set_index(remaining.index).assign(variant="champion"))
        columns = [field_.name for field_ in self.model.contract.output_fields]
        columns += ["model", "version", *(["reasons"] if self.reasons else []), "variant"]
        return pd.concat([part[columns] for part in parts]).sort_index().reset_index(drop=True)

    def _challenger_chunks(self, rows: pd.DataFrame, tried: list[int]) -> Iterator[pd.DataFrame]:
        """Yield the challenger's predictions; a failing chunk is halved and retried, up to a number of failures."""
        contract = self.challenger.contract
        inputs = rows.reset_index(drop=True).reindex(columns=[field.name for field in contract.input_fields])
        try:
            if self.reasons and not has_reasons(self.challenger):
                raise ValueError("no reasons")
            predicted = predict_chunk(self.challenger, inputs, self.beside, self.reasons)
            yield predicted.set_axis(rows.index)
        except Exception:
            tried.append(len(rows))
            if len(rows) > 1 and len(tried) < TRIES:
                half = len(rows) // 2
                yield from self._challenger_chunks(rows.iloc[:half], tried)
                yield from self._challenger_chunks(rows.iloc[half:], tried)


def has_reasons(model: Model) -> bool:
    """Whether the model gives reasons."""
    return type(model).explain is not Model.explain


def identity_columns(contract: Contract, nullable: bool = True) -> tuple[str, ...]:
    """Return the columns that identify a prediction: the key, and requested dates.

    A primary key has no nullable columns: `nullable=False` omits nullable dates.
    """
    inputs = {field.name for field in contract.input_fields}
    dates = [field for field in contract.output_fields if field.kind in ("date", "date-time") and field.name in inputs]
    days = [field.name for field in dates if nullable or not field.nullable]
    return (contract.key, *(name for name in days if name != contract.key))


def _check_not_the_same(source: str, sink: str) -> None:
    """Raise UsageError where the sink would overwrite the source."""
    target, place = home_path(sink), home_path(source)
    read = place.iterdir() if place.is_dir() else [place]
    same = target.exists() and any(path.exists() and path.samefile(target) for path in read)
    if same or source == sink:
        raise UsageError(
            "the predictions would overwrite the source", where=without_password(sink), next="name another sink"
        )


def _batch_id(
    frame: pd.DataFrame,
    version: Version,
    sink: str,
    reasons: bool,
    rollout_and_challenger: tuple[Rollout, Version] | None,
) -> str:
    """Return the id of a batch: a digest of records, version, sink, reasons and rollout."""
    hashed = sha256(pd.util.hash_pandas_object(frame, index=False).to_numpy().tobytes())
    place = split_location(sink)[0] if "://" in sink else str(Path(sink).resolve())
    hashed.update(
        f"{list(frame.columns)}|{version.model}|{version.version}|{version.sha256}|{place}|{sink}|{reasons}".encode()
    )
    if rollout_and_challenger is not None:
        rollout, challenger = rollout_and_challenger
        hashed.update(f"|{challenger.version}|{challenger.sha256}|{rollout.share!r}|{rollout.salt}".encode())
    return hashed.hexdigest()[:24]


def repeated_keys(frame: pd.DataFrame, identity: tuple[str, ...]) -> Iterator[Failure]:
    """Yield the identities that occur more than once in a table."""
    twice = frame[frame.duplicated(list(identity), keep=False)]
    for key, group in twice.groupby(list(identity), sort=False):
        yield Failure(
            f"occurs {len(group)} times in the source", ", ".join(map(str, key if isinstance(key, tuple) else (key,)))
        )
