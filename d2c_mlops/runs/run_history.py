"""Past runs: find, compare, export and prune them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Select, delete, func, select, update

from d2c_mlops.errors import UsageError
from d2c_mlops.formulas import escape_formula
from d2c_mlops.ledger.schema import promotions, runs, versions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution.output_storage import remove_outputs
from d2c_mlops.runs.execution.package_environments import environment_packages
from d2c_mlops.runs.execution.run_rows import Run
from d2c_mlops.settings import Settings


@dataclass(frozen=True)
class RunFilter:
    """Criteria for selecting runs; None matches every run."""

    model: str | None = None
    status: str | None = None
    job: str | None = None
    runbook: str | None = None
    failure: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def apply(self, query: Select[Any]) -> Select[Any]:
        """Return a query of runs with this filter."""
        for name in ("model", "status", "job", "failure"):
            if (value := getattr(self, name)) is not None:
                query = query.where(runs.c[name] == value)
        if self.runbook is not None:
            query = query.where((runs.c.runbook == self.runbook) | runs.c.runbook.endswith(f"/{self.runbook}"))
        if self.since is not None:
            query = query.where(runs.c.started_at >= self.since)
        return query.where(runs.c.started_at < self.until) if self.until is not None else query


def find_runs(ledger: Ledger, run_filter: RunFilter, limit: int | None = None) -> list[Run]:
    """Return runs, newest first."""
    query = run_filter.apply(select(runs)).order_by(runs.c.started_at.desc(), runs.c.id.desc()).limit(limit)
    with ledger.read() as connection:
        return [Run(**row._mapping) for row in connection.execute(query)]


def compare_runs(settings: Settings, first: Run, second: Run) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Return the differences of two runs, by group; a name that is missing in one run has None there."""
    groups: dict[str, tuple[Mapping[str, Any], Mapping[str, Any]]] = {
        "parameters": (first.parameters, second.parameters),
        "recorded": (first.recorded, second.recorded),
        "inputs": (_by_name(first.inputs), _by_name(second.inputs)),
        "code": (_code_fields(first), _code_fields(second)),
        "packages": (
            environment_packages(settings, first.environment),
            environment_packages(settings, second.environment),
        ),
        "run": (_run_outcome(first), _run_outcome(second)),
    }
    differ = {
        group: {name: (a.get(name), b.get(name)) for name in {**a, **b} if a.get(name) != b.get(name)}
        for group, (a, b) in groups.items()
    }
    return {group: values for group, values in differ.items() if values}


FLAT = ("id", "job", "slot", "attempt", "runbook", "model", "status", "failure", "exit_code", "started_at", "ended_at",
        "seconds", "cpu_seconds", "peak_memory_bytes", "cost", "package_version", "git_commit", "notebook_sha256", "seed",
        "host", "started_by")  # fmt: skip


def export_runs(listed: Iterable[Run], file: Path) -> int:
    """Write runs to a .csv, .jsonl or .parquet file atomically and return the number of runs."""
    writers = {".csv": _write_csv, ".jsonl": _write_jsonl, ".parquet": _write_parquet}
    if file.suffix not in writers:
        raise UsageError(
            f"{file.name} has an unknown extension", next=f"use one of these extensions: {', '.join(writers)}"
        )
    rows = [_flat_row(run) if file.suffix != ".jsonl" else run.to_dict() for run in listed]
    draft = file.with_name(f"{file.name}.tmp")
    try:
        writers[file.suffix](rows, draft)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    return len(rows)


def prunable_runs(ledger: Ledger, before: datetime, keep: int) -> list[Run]:
    """Return the ended runs before a time that may be pruned, oldest first.

    Excluded are: runs of a version that is or was live or is its model's newest; the last success of every job and
    notebook; and, of each job and notebook, the `keep` newest.
    """
    with ledger.read() as connection:
        needed = set(connection.execute(_runs_of_kept_versions()).scalars())
        query = select(runs).where(runs.c.started_at < before, runs.c.status != "running")
        old = [Run(**row._mapping) for row in connection.execute(query.order_by(runs.c.started_at))]
        newest: dict[tuple[str | None, str], int] = {}
        columns = (runs.c.id, runs.c.job, runs.c.runbook, runs.c.status)
        succeeded: set[tuple[str | None, str]] = set()
        for row in connection.execute(select(*columns).order_by(runs.c.started_at.desc())):
            group = (row.job, row.runbook)
            newest[group] = newest.get(group, 0) + 1
            if newest[group] <= keep:
                needed.add(row.id)
            if row.status == "succeeded" and group not in succeeded:
                succeeded.add(group)
                needed.add(row.id)
    return [run for run in old if run.id not in needed and "pruned_at" not in run.outputs]


def prune_runs(
    ledger: Ledger, settings: Settings, pruned_runs: Iterable[Run], time: datetime, rows: bool = False
) -> int:
    """Remove the outputs of runs, and with `rows` also their ledger rows; return the bytes freed on this machine."""
    freed = 0
    for run in pruned_runs:
        freed += sum(file.stat().st_size for file in _output_files(run.outputs["folder"]))
        with suppress(FileNotFoundError):
            remove_outputs(run.outputs["folder"], settings)
        with ledger.write() as connection:
            if rows:
                connection.execute(delete(runs).where(runs.c.id == run.id))
            else:
                outputs = {**run.outputs, "pruned_at": time.isoformat()}
                connection.execute(update(runs).where(runs.c.id == run.id).values(outputs=outputs))
    return freed


def _runs_of_kept_versions() -> Any:
    """Return a query of the runs that created a version which is or was live, or is its model's newest."""
    newest = select(versions.c.model, func.max(versions.c.version)).group_by(versions.c.model)
    promoted = select(promotions.c.model, promotions.c.version)
    key = func.coalesce(versions.c.model, "")
    run_ids = select(versions.c.run_id).where(versions.c.run_id.is_not(None))
    live = promoted.where(promotions.c.model == versions.c.model, promotions.c.version == versions.c.version).exists()
    last = newest.subquery()
    is_last = select(last).where(last.c[0] == key, last.c[1] == versions.c.version).exists()
    return run_ids.where(live | is_last)


def _by_name(inputs: list[dict[str, str]]) -> dict[str, str]:
    return {dataset["name"]: dataset["digest"] for dataset in inputs}


def _code_fields(run: Run) -> dict[str, Any]:
    python = (run.environment or {}).get("python")
    names = ("notebook", "notebook_sha256", "git_commit", "package_version")
    return {**{name: getattr(run, name) for name in names}, "python": python}


def _run_outcome(run: Run) -> dict[str, Any]:
    return {name: getattr(run, name) for name in ("status", "failure", "seconds", "cpu_seconds", "peak_memory_bytes")}


def _flat_row(run: Run) -> dict[str, Any]:
    values = run.to_dict()
    return {
        **{name: values[name] for name in FLAT},
        **{f"parameters.{name}": _plain_cell(value) for name, value in run.parameters.items()},
        **{f"recorded.{name}": _plain_cell(value) for name, value in run.recorded.items()},
    }


def _plain_cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else value


def _export_columns(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in ({name: None for name in FLAT}, *rows) for name in row))


def _write_csv(rows: list[dict[str, Any]], file: Path) -> None:
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out, quoting=csv.QUOTE_NONNUMERIC)  # some spreadsheets split at semicolons and tabs
        names = _export_columns(rows)
        lines: list[list[Any]] = [[*names], *([row.get(name) for name in names] for row in rows)]
        for line in lines:
            writer.writerow([escape_formula(cell) if isinstance(cell, str) else cell for cell in line])


def _write_jsonl(rows: list[dict[str, Any]], file: Path) -> None:
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _write_parquet(rows: list[dict[str, Any]], file: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame(rows, columns=_export_columns(rows))
    mixed = [c for c in frame.columns if c.startswith(("parameters.", "recorded.")) and frame[c].dtype == object]
    frame[mixed] = frame[mixed].map(lambda cell: cell if cell is None else str(cell))
    frame.to_parquet(file, index=False)


def _output_files(folder: str) -> Iterator[Path]:
    return (file for file in Path(folder).rglob("*") if file.is_file()) if "://" not in folder else iter(())
