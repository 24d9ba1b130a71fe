"""Batch scoring of a folder of Parquet files: workers read, predict and write one file each; the folder is published as a whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from d2c_mlops.data.sources.files import file_kind, files_below
from d2c_mlops.data.store import translate_full_disk
from d2c_mlops.errors import DataRefused, Failure, UsageError
from d2c_mlops.file_lock import lock
from d2c_mlops.models.core.model import Model, load
from d2c_mlops.parallel import run_jobs, use_backend
from d2c_mlops.registry.versions import Version, copy_verified_files, model_class
from d2c_mlops.serving.batch.contract_coercion import coerce_inputs
from d2c_mlops.serving.batch.record_source import read_records
from d2c_mlops.serving.batch.score import CHUNK, BatchResult, Progress, SplitScorer, has_reasons, predict_chunk
from d2c_mlops.serving.batch.sinks import WriteCounts
from d2c_mlops.serving.rollout.state_file import Rollout
from d2c_mlops.settings import Settings
from d2c_mlops.settings.parsing import home_path


@dataclass(frozen=True)
class PartTask:
    """What a worker needs to know of all parts. All paths must be visible to it."""

    version: Version
    model: Path  # folder with the verified files of the version
    packages: tuple[str, ...]
    reasons: bool
    rollout: Rollout | None = None
    challenger: Version | None = None
    challenger_model: Path | None = None


@dataclass(frozen=True)
class PartCounts:
    """What came of a part; `failures` are those of its records."""

    records: int = 0
    challenged: int = 0
    failed: int = 0
    columns: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()


def is_parts_sink(sink: str) -> bool:
    """Return whether a sink is a folder of Parquet files: it ends with a slash, and is no URL."""
    return sink.endswith("/") and "://" not in sink


def score_parts(
    version: Version,
    source: str,  # a folder of Parquet files
    sink: str,  # a folder that is replaced as a whole; its files have the names of the source's
    settings: Settings,
    *,
    reasons: bool = False,
    rollout_and_challenger: tuple[Rollout, Version] | None = None,
    progress: Progress | None = None,
) -> BatchResult:
    """Predict every record of a folder of Parquet files, one file a job of the backend in the settings.

    Raises DataRefused with the errors of all files where records do not match the contract; the former predictions then stay. Raises Temporary where workers are lost again
    and again: the same command predicts only the files that are not finished.
    """
    folder, target = home_path(source), home_path(sink).resolve()
    names = parquet_files_below(folder, target)
    both = rollout_and_challenger
    batch = _batch_digest(folder, names, version, reasons, both)
    with _draft_folder(target, batch, settings) as draft:
        task = _prepare_part_task(draft, version, settings, reasons, both)
        resumed = sum((draft / "parts" / name).exists() for name in names)
        with use_backend(settings.backend):
            counts = run_jobs(score_part, [(task, folder / name, draft / "parts" / name) for name in names])
        if failures := [failure for part in counts for failure in part.failures]:
            shutil.rmtree(draft)
            raise DataRefused(
                "records do not match the contract; nothing was written", where=source, failures=failures,
                next="correct the records and run the same command again",
            )  # fmt: skip
        records = sum(part.records for part in counts)
        if not records:
            raise DataRefused("the source has no records", where=source, next="check that this is the right folder")
        written = _publish_target(draft, target, records)
    if progress is not None:
        progress(records, records)
    model = both[1].version if both else None
    challenged, failed = sum(part.challenged for part in counts), sum(part.failed for part in counts)
    result = BatchResult(
        version.model, version.version, records, written, batch, sink, 0, max(part.columns for part in counts)
    )
    empty = [name for name, part in zip(names, counts, strict=True) if not part.records]
    notes = [f"{resumed} of {len(names)} files were finished by an earlier attempt"] if resumed else []
    notes += [f"{len(empty)} files have no records and are left out: {', '.join(empty[:3])}"] if empty else []
    return replace(result, challenger=model, challenged=challenged, failed=failed, notes=tuple(notes))


def parquet_files_below(folder: Path, target: Path) -> list[str]:
    """Return the names of the Parquet files below a folder; raises UsageError where it is none or has other files."""
    if not folder.is_dir():
        raise UsageError(
            "predictions of a folder need a source that is a folder of Parquet files",
            where=str(folder),
            next="name a folder, or a sink that is a file",
        )
    names = list(files_below(folder))
    if others := [name for name in names if file_kind(name) != "parquet"]:
        listed = ", ".join(others[:5]) + (", …" if len(others) > 5 else "")
        raise UsageError(f"not Parquet: {listed}", where=str(folder), next="convert or remove these files")
    if not names:
        raise UsageError("there is no Parquet file", where=str(folder), next="check that this is the right folder")
    inside = folder.resolve()
    if target.is_relative_to(inside) or inside.is_relative_to(target):
        raise UsageError("the predictions would overwrite the source", where=str(target), next="name another sink")
    if target.exists() and not target.is_dir():
        raise UsageError("there is a file of this name", where=str(target), next="name another sink")
    if not target.parent.is_dir():
        raise UsageError("the folder does not exist", where=str(target.parent), next=f"mkdir -p {target.parent}")
    if foreign := [name for name in (files_below(target) if target.is_dir() else ()) if file_kind(name) != "parquet"]:
        raise UsageError(
            f"the folder holds other files ({foreign[0]}) and would be replaced as a whole",
            where=str(target),
            next="name another sink",
        )
    return names


def _batch_digest(
    folder: Path,
    names: list[str],
    version: Version,
    reasons: bool,
    rollout_and_challenger: tuple[Rollout, Version] | None,
) -> str:
    """Return the digest of name, size and time of the source's files, of version, reasons and rollout."""
    about = [version.model, version.version, version.sha256, reasons, str(folder.resolve())]
    if rollout_and_challenger is not None:
        about += [
            rollout_and_challenger[1].version,
            rollout_and_challenger[1].sha256,
            rollout_and_challenger[0].share,
            rollout_and_challenger[0].salt,
        ]
    for name in names:
        status = (folder / name).stat()
        about += [name, status.st_size, status.st_mtime_ns]
    return sha256(repr(about).encode()).hexdigest()[:24]


def lock_folder(target: Path, settings: Settings) -> Path:
    """Return the folder of the lock that whoever writes to a target holds."""
    return settings.store / "scoring" / sha256(str(target).encode()).hexdigest()[:16]


@contextmanager
def _draft_folder(target: Path, batch: str, settings: Settings) -> Iterator[Path]:
    """Yield the folder with the finished parts of a batch, which stays after an interruption; parts of another batch are removed.

    Raises Temporary where another process writes to the same target.
    """
    draft = target.with_name(f".{target.name}.draft")
    with lock(lock_folder(target, settings), str(target), settings.lock_wait), translate_full_disk(target.parent):
        if (draft / "former").exists() and not target.exists():  # killed between the two renames
            (draft / "former").rename(target)
        batch_file = draft / "batch"
        if not batch_file.exists() or batch_file.read_text(encoding="utf-8") != batch:
            shutil.rmtree(draft, ignore_errors=True)
            (draft / "parts").mkdir(parents=True)
            batch_file.write_text(batch, encoding="utf-8")
        (draft / "parts").mkdir(exist_ok=True)
        try:
            yield draft
        finally:
            for models in draft.glob("model-*"):
                shutil.rmtree(models, ignore_errors=True)


def _prepare_part_task(
    draft: Path,
    version: Version,
    settings: Settings,
    reasons: bool,
    rollout_and_challenger: tuple[Rollout, Version] | None,
) -> PartTask:
    """Copy the verified files of the versions where workers read them; raises UsageError where one gives no reasons."""

    def files(registered: Version) -> Path:
        folder = draft / f"model-{registered.version}"
        shutil.rmtree(folder, ignore_errors=True)
        model_class(registered.model, settings)
        return copy_verified_files(registered, settings, folder)

    task = PartTask(version, files(version), tuple(settings.packages), reasons)
    if reasons and not has_reasons(load(task.model, task.packages)):
        raise UsageError(f"{version.model} gives no reasons", next="run the command without --reasons")
    return (
        task
        if rollout_and_challenger is None
        else replace(
            task,
            rollout=replace(rollout_and_challenger[0]),
            challenger=rollout_and_challenger[1],
            challenger_model=files(rollout_and_challenger[1]),
        )
    )


@lru_cache(maxsize=2)
def _load_cached_model(folder: Path, packages: tuple[str, ...]) -> Model:
    return load(folder, packages)


def score_part(task: PartTask, part: Path, out: Path) -> PartCounts:
    """Predict the records of a Parquet file and write them to another one, which appears when it is complete."""
    if out.exists():
        return _finished_part_counts(out, task.challenger is not None)
    model = _load_cached_model(task.model, task.packages)
    try:
        read = read_records(str(part), model.contract)
        frame = coerce_inputs(model.contract, read.frame, str(part), read.untyped)
    except DataRefused as error:
        places = [replace(f, where=f"{part}: {f.where}" if f.where else str(part)) for f in error.failures]
        return PartCounts(failures=tuple(places) or (Failure(error.what, str(part)),))
    if frame.empty:
        return PartCounts()
    both = None
    if task.rollout is not None and task.challenger is not None and task.challenger_model is not None:
        challenger = _load_cached_model(task.challenger_model, task.packages)
        both = SplitScorer(model, task.version, challenger, task.rollout, task.challenger, task.reasons)
    out.parent.mkdir(parents=True, exist_ok=True)
    draft = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    writer: pq.ParquetWriter | None = None
    columns: tuple[str, ...] = ()
    try:
        for first in range(0, len(frame), CHUNK):
            rows = frame.iloc[first : first + CHUNK].reset_index(drop=True)
            answers = both.answers(rows) if both else predict_chunk(model, rows, task.version, task.reasons)
            table = pa.Table.from_pandas(answers, preserve_index=False)
            writer = writer or pq.ParquetWriter(draft, table.schema)
            writer.write_table(table.cast(writer.schema))
            columns = tuple(answers.columns)
        if writer is not None:
            writer.close()
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        draft.replace(out)
    finally:
        draft.unlink(missing_ok=True)
    return PartCounts(len(frame), both.challenged if both else 0, both.failed if both else 0, columns)


def _finished_part_counts(out: Path, has_challenger: bool) -> PartCounts:
    """Return the counts of a part that an earlier attempt finished; what the challenger failed on is not known any more."""
    footer = pq.read_metadata(out)
    challenged = 0
    if has_challenger:
        challenged = int((pd.read_parquet(out, columns=["variant"])["variant"] == "challenger").sum())
    return PartCounts(footer.num_rows, challenged, 0, tuple(footer.schema.to_arrow_schema().names))


def _publish_target(draft: Path, target: Path, records: int) -> WriteCounts:
    """Replace the target by the finished parts, or leave it where it has the same."""
    parts, former = draft / "parts", draft / "former"
    names = list(files_below(parts))
    there = list(files_below(target)) if target.is_dir() else []
    same = there == names and all((target / name).read_bytes() == (parts / name).read_bytes() for name in names)
    if not same:
        shutil.rmtree(former, ignore_errors=True)
        if target.exists():
            target.rename(former)
        parts.rename(target)
    shutil.rmtree(draft)
    return WriteCounts(unchanged=records) if same else WriteCounts(inserted=records)
