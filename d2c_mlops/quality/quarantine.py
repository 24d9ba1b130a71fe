"""Rows of a dataset that no model may learn: moved to a partition of their own with a reason, released or dropped on record.

No row is lost: the rows of the former version are those of the new one and those in quarantine, counted in the written files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from d2c_mlops.data.manifest import Manifest, dataset_folder, read_manifest
from d2c_mlops.data.schemas import KEYS, SCHEMAS
from d2c_mlops.data.store import write_atomic, write_dataset
from d2c_mlops.data.tables import Tables
from d2c_mlops.data.validation import REFERENCES
from d2c_mlops.errors import DataRefused, UsageError
from d2c_mlops.file_lock import lock
from d2c_mlops.quality.row_conditions import flagged_rows

REASON = "quarantine_reason"
UNSETTLED = ("moving", "releasing")


@dataclass(frozen=True)
class QuarantineEntry:
    """Rows that were moved at once: id, table, rows by check, state, and who changed it when.

    The state is held, released or dropped; moving or releasing while the dataset is rewritten. After an interruption the
    digest of the dataset tells which of both happened.
    """

    id: str
    table: str
    rows: int
    checks: dict[str, int]
    state: str
    digest_before: str
    digest_after: str
    history: tuple[dict[str, str], ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the entry with plain values."""
        return {**vars(self), "history": list(self.history)}


def quarantine_folder(store: Path, name: str) -> Path:
    """Return the folder of a dataset's quarantine. Raises UsageError for a bad name."""
    dataset_folder(store, name)
    return store / "quarantine" / name


def entries(store: Path, name: str) -> list[QuarantineEntry]:
    """Return what was put into the quarantine of a dataset, the oldest first; what was interrupted is settled before."""
    folder = quarantine_folder(store, name)
    listed = [_read_entry(file) for file in sorted(folder.glob("[!.]*.json"))]
    if any(entry.state in UNSETTLED for entry in listed):
        with lock(folder, "this quarantine", 30.0):
            settled = [
                _settle(store, name, entry) for entry in (_read_entry(f) for f in sorted(folder.glob("[!.]*.json")))
            ]
        return [entry for entry in settled if entry is not None]
    return listed


def _settle(store: Path, name: str, entry: QuarantineEntry) -> QuarantineEntry | None:
    """Finish or undo a change that was interrupted: the dataset was rewritten, or it was not."""
    folder = quarantine_folder(store, name)
    if entry.state not in UNSETTLED:
        return entry
    is_rewritten = read_manifest(store, name).digest != entry.history[-1]["digest"]
    if entry.state == "moving" and not is_rewritten:
        for file in [*_files(folder, entry), folder / f"{entry.id}.json"]:
            file.unlink(missing_ok=True)
        return None
    state = "held" if entry.state == "moving" or not is_rewritten else "released"
    settled = replace(entry, state=state, digest_after=entry.digest_after or read_manifest(store, name).digest)
    _write_entry(folder, settled)
    return settled


def find_entry(store: Path, name: str, entry_id: str) -> QuarantineEntry:
    """Return an entry by its id, or by what it begins with. Raises UsageError where there is none, or more than one."""
    hits = [entry for entry in entries(store, name) if entry.id.startswith(entry_id)]
    if len(hits) != 1 or not entry_id:
        listed = ", ".join(entry.id for entry in entries(store, name)) or "none"
        raise UsageError(
            f"{len(hits) if entry_id else 'no'} entries of the quarantine of {name!r} begin with {entry_id!r}",
            next=f"use one of: {listed}",
        )
    return hits[0]


def quarantined_rows(store: Path, name: str, entry: QuarantineEntry) -> pd.DataFrame:
    """Return the rows of an entry with the column `quarantine_reason`. Raises UsageError where they were dropped."""
    file = quarantine_folder(store, name) / f"{entry.id}.parquet"
    if not file.exists():
        raise UsageError(f"the rows of {entry.id} are {entry.state}", next=f"d2c quarantine list {name}")
    frame: pd.DataFrame = pq.read_table(file).to_pandas()
    return frame


def quarantine(
    store: Path, name: str, table: str, checks: Sequence[str], *, by: str, now: datetime
) -> tuple[QuarantineEntry | None, Manifest]:
    """Move the rows of some checks out of a dataset; return the entry (None without such rows) and the present manifest.

    A row of several checks has the first one as its reason. Rows that a person released stay in the dataset. A row that other
    tables refer to is not moved alone: lines go with their order. Raises UsageError for an unknown table or check, DataRefused
    where nothing would stay.
    """
    manifest = read_manifest(store, name)
    if table not in manifest.tables:
        raise UsageError(f"dataset {name!r} has no table {table!r}", next=f"use one of: {', '.join(manifest.tables)}")
    if not checks:
        raise UsageError("no check is named", next=f"d2c quality {name} lists checks with their rows")
    frames = dict(Tables.open(store, name))
    flags = flagged_rows(Tables.open(store, name), table, checks)
    mask = np.logical_or.reduce(list(flags.values()))
    reasons = np.select(list(flags.values()), [*flags], default="")
    free = ~mask
    released = _released_rows(store, name, table)
    if len(released):
        free |= _row_hashes(frames[table]).isin(released).to_numpy()
    moved, reasons = frames[table][~free], reasons[~free]
    if moved.empty:
        return None, manifest
    if free.sum() == 0:
        raise DataRefused(
            f"all {len(moved):,} rows of {table!r} would leave the dataset", where=name, next="name fewer checks"
        )
    folder = quarantine_folder(store, name)
    entry_id = f"{now:%Y%m%dT%H%M%S}-{table}"
    stay, followers = _without(frames, table, moved)
    frame = moved.assign(**{REASON: reasons})
    checks_count = {check: int((reasons == check).sum()) for check in checks if (reasons == check).any()}
    checks_count |= {f"follows {table}: {follower}": len(rows) for follower, rows in followers.items()}
    unsettled_entry = {"state": "moving", "by": by, "at": now.isoformat(), "digest": manifest.digest}
    entry = QuarantineEntry(
        entry_id, table, len(moved), checks_count, "moving", manifest.digest, "", (unsettled_entry,)
    )
    with lock(folder, "this quarantine", 30.0):
        try:
            _write_rows(folder / f"{entry_id}.parquet", frame)
            for follower, rows in followers.items():
                _write_rows(folder / f"{entry_id}.{follower}.parquet", rows.assign(**{REASON: f"follows {table}"}))
            _write_entry(folder, entry)
            changed = _rewrite(store, manifest, stay, now)
        except Exception:
            _settle(store, name, entry)
            raise
        _require_all_rows(store, name, manifest, changed, folder, entry_id, [table, *followers])
        entry = replace(entry, state="held", digest_after=changed.digest)
        _write_entry(folder, entry)
    return entry, changed


def release(store: Path, name: str, entry_id: str, *, by: str, now: datetime) -> tuple[QuarantineEntry, Manifest]:
    """Put the rows of an entry back into the dataset; they are not taken out again by the same checks.

    A row whose key is in the dataset again, because it was ingested anew, stays as it is there.
    """
    entry = _require_held(store, name, entry_id)
    folder = quarantine_folder(store, name)
    manifest = read_manifest(store, name)
    frames = dict(Tables.open(store, name))
    with lock(folder, "this quarantine", 30.0):
        for file in _files(folder, entry):
            table = _table_of_file(file, entry)
            rows = pq.read_table(file).to_pandas().drop(columns=REASON)
            keys = KEYS[table]
            back = pd.MultiIndex.from_frame(frames[table][keys])
            rows = rows[~pd.MultiIndex.from_frame(rows[keys]).isin(back)]  # a later ingest may have brought them back
            frames[table] = pd.concat([frames[table], rows.astype(frames[table].dtypes.to_dict())], ignore_index=True)
        unsettled_entry = _change_state(folder, entry, "releasing", by, now, manifest.digest)
        try:
            changed = _rewrite(store, manifest, frames, now)
        except Exception:
            _settle(store, name, unsettled_entry)
            raise
        result = replace(unsettled_entry, state="released")
        _write_entry(folder, result)
    return result, changed


def drop(store: Path, name: str, entry_id: str, *, by: str, now: datetime) -> QuarantineEntry:
    """Delete the rows of an entry; that it was done stays on record."""
    entry = _require_held(store, name, entry_id)
    folder = quarantine_folder(store, name)
    with lock(folder, "this quarantine", 30.0):
        result = _change_state(folder, entry, "dropped", by, now)
        for file in _files(folder, entry):
            file.unlink()
    return result


def _without(
    frames: dict[str, pd.DataFrame], table: str, moved: pd.DataFrame
) -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    """Return the tables without some rows of one, and the rows of others that refer to those alone."""
    stay = {**frames, table: frames[table].drop(moved.index)}
    followers: dict[str, pd.DataFrame] = {}
    waiting = [table]
    while waiting:
        target = waiting.pop()
        for reference in REFERENCES:
            if reference.target != target or reference.table not in stay:
                continue
            column = reference.column
            identifiers = stay[target][column] if column in stay[target] else pd.Series([], dtype=object)
            lost = stay[reference.table][column].notna() & ~stay[reference.table][column].isin(identifiers)
            if lost.any():
                rows = stay[reference.table][lost]
                followers[reference.table] = pd.concat([followers.get(reference.table, rows.iloc[:0]), rows])
                stay[reference.table] = stay[reference.table][~lost]
                waiting.append(reference.table)
    return stay, followers


def _rewrite(store: Path, manifest: Manifest, frames: dict[str, pd.DataFrame], now: datetime) -> Manifest:
    ordered = {table: frames[table].reset_index(drop=True) for table in SCHEMAS if table in frames}
    changed, _ = write_dataset(
        store, manifest.name, ordered, manifest.source, layout=manifest.layout, created_at=now, notes=manifest.notes,
        zone=manifest.zone, zone_from=manifest.zone_from,
    )  # fmt: skip
    return changed


def _require_all_rows(
    store: Path, name: str, before: Manifest, after: Manifest, folder: Path, entry_id: str, tables: Sequence[str]
) -> None:
    """Count the rows of the written files: none may be lost, none be twice. Raises DataRefused."""
    with duckdb.connect() as session:
        for table in tables:
            suffix = "" if table == tables[0] else f".{table}"
            paths = [str(dataset_folder(store, name) / part.path) for part in after.tables[table].parts]
            count = "SELECT count(*) FROM read_parquet(?, hive_partitioning = false)"
            stayed = session.execute(count, [paths]).fetchall()[0][0] if paths else 0
            moved = session.execute(count, [[str(folder / f"{entry_id}{suffix}.parquet")]]).fetchall()[0][0]
            if stayed + moved != before.tables[table].rows:
                raise DataRefused(
                    f"{table}: {before.tables[table].rows:,} rows before, {stayed:,} stay and {moved:,} are in quarantine",
                    where=name,
                    next="the former version is kept: d2c datasets; run the command again",
                )


def _write_rows(file: Path, rows: pd.DataFrame) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), sink, compression="zstd")
    write_atomic(file, memoryview(sink.getvalue()), private=True)


def _row_hashes(frame: pd.DataFrame) -> pd.Series[Any]:
    return pd.util.hash_pandas_object(frame.astype(str), index=False)


def _released_rows(store: Path, name: str, table: str) -> np.ndarray[Any, Any]:
    """Return the hashes of rows that were released: the same checks do not take them again."""
    folder = quarantine_folder(store, name)
    hashes = [
        _row_hashes(pq.read_table(file).to_pandas().drop(columns=REASON)).to_numpy()
        for entry in entries(store, name)
        if entry.state == "released"
        for file in _files(folder, entry)
        if _table_of_file(file, entry) == table
    ]
    return np.concatenate(hashes) if hashes else np.array([], np.uint64)


def _files(folder: Path, entry: QuarantineEntry) -> list[Path]:
    return sorted(folder.glob(f"{entry.id}*.parquet"))


def _table_of_file(file: Path, entry: QuarantineEntry) -> str:
    return file.name.removeprefix(entry.id).removesuffix(".parquet").removeprefix(".") or entry.table


def _require_held(store: Path, name: str, entry_id: str) -> QuarantineEntry:
    entry = find_entry(store, name, entry_id)
    if entry.state != "held":
        last = entry.history[-1]
        raise UsageError(
            f"the rows of {entry.id} were {entry.state} by {last['by']} at {last['at']}",
            next=f"d2c quarantine list {name}",
        )
    return entry


def _change_state(
    folder: Path, entry: QuarantineEntry, state: str, by: str, now: datetime, digest: str = ""
) -> QuarantineEntry:
    history = (*entry.history, {"state": state, "by": by, "at": now.isoformat(), "digest": digest})
    changed = replace(entry, state=state, history=history)
    _write_entry(folder, changed)
    return changed


def _write_entry(folder: Path, entry: QuarantineEntry) -> None:
    text = json.dumps(entry.to_dict(), ensure_ascii=False, indent=1)
    write_atomic(folder / f"{entry.id}.json", text.encode(), private=True)


def _read_entry(file: Path) -> QuarantineEntry:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        return QuarantineEntry(**{**values, "history": tuple(values["history"])})
    except (ValueError, KeyError, TypeError) as error:
        raise DataRefused(
            f"the record cannot be read ({error})", where=str(file), next="restore it from a backup"
        ) from error
