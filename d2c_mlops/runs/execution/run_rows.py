"""Ledger rows of runs: open, close, find, and detect lost runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import and_, insert, select, update

from d2c_mlops.errors import Temporary, UsageError
from d2c_mlops.ledger.schema import runs, slots
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution import processes
from d2c_mlops.runs.execution.temporary_folder import remove_scratch
from d2c_mlops.runs.run_events import RUN_ID, read_events, run_notes


@dataclass(frozen=True)
class Run:
    """One execution of a notebook, as recorded in the ledger."""

    id: str
    runbook: str
    model: str | None
    notebook: str
    notebook_sha256: str
    parameters: dict[str, Any]
    package_version: str
    git_commit: str | None
    inputs: list[dict[str, str]]
    seed: int | None
    status: str  # running, succeeded, failed, timeout, cancelled, lost
    started_at: datetime
    ended_at: datetime | None
    cpu_seconds: float | None
    peak_memory_bytes: float | None
    outputs: dict[str, str]
    recorded: dict[str, Any]
    error: dict[str, Any] | None
    exit_code: int | None
    host: str
    pid: int
    pid_started: float
    job: str | None = None  # the schedule's job, the slot and the attempt that it was for
    slot: datetime | None = None
    attempt: int | None = None
    cost: float | None = None  # cpu_seconds at [d2c] cpu_hour_price
    failure: str | None = None  # the class of its failure: data_refused, notebook_error, timeout, out_of_memory, …
    environment: dict[str, str] | None = None  # versions of the packages that it ran with
    started_by: str | None = None  # a user of the machine, `schedule` or `JupyterLab`
    notes: list[str] | None = None  # what a reader of the result has to know, such as another kernel

    @property
    def seconds(self) -> float | None:
        """Wall-clock seconds from start to end; None while it runs."""
        return (self.ended_at - self.started_at).total_seconds() if self.ended_at else None

    @property
    def folder(self) -> Path:
        """Folder of its output notebook, HTML page and log on this machine."""
        return Path(self.outputs["folder"])

    def to_dict(self) -> dict[str, Any]:
        """Return the run as JSON values."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        times = {
            name: moment.isoformat() if (moment := values[name]) else None
            for name in ("started_at", "ended_at", "slot")
        }
        return {**values, **times, "seconds": self.seconds}


def open_row(ledger: Ledger, values: Mapping[str, Any]) -> None:
    """Insert the row of a run that starts now in this process.

    Raises Temporary if the run is an attempt at a slot that this process no longer has claimed.
    """
    mine = {"host": processes.host_identity(), "pid": os.getpid(), "pid_started": processes.process_start(os.getpid())}
    with ledger.write() as connection:
        if values.get("job"):
            claim = and_(slots.c.job == values["job"], slots.c.slot == values["slot"])
            claim = and_(claim, slots.c.attempt == values["attempt"], slots.c.status == "running")
            result = connection.execute(update(slots).where(claim).values(status="running"))
            if result.rowcount != 1:
                raise Temporary("the claim was taken over", where=f"{values['job']} {values['slot'].isoformat()}")
        connection.execute(insert(runs).values(status="running", **mine, **values))


def close_row(ledger: Ledger, run: str, values: Mapping[str, Any]) -> None:
    """Close the row of a run; a row that is already closed is not changed."""
    with ledger.write() as connection:
        connection.execute(update(runs).where(runs.c.id == run, runs.c.status == "running").values(**values))


def move_outputs(ledger: Ledger, run: str, outputs: Mapping[str, str]) -> None:
    """Record the new locations of a run's outputs."""
    with ledger.write() as connection:
        connection.execute(update(runs).where(runs.c.id == run).values(outputs=dict(outputs)))


def find_run(ledger: Ledger, run_id: str) -> Run:
    """Return a run by its id or the start of it. Raises UsageError if none or several match."""
    with ledger.read() as connection:
        exact = connection.execute(select(runs).where(runs.c.id == run_id)).one_or_none()
        query = select(runs).where(runs.c.id.startswith(run_id, autoescape=True)).limit(5)
        rows = [exact] if exact else connection.execute(query).all()
    if len(rows) != 1:
        reason = "several runs begin" if rows else "no run begins"
        raise UsageError(f"{reason} with {run_id!r}", where=ledger.display_url, next="`d2c runs` lists them")
    return Run(**rows[0]._mapping)


def latest_runs(ledger: Ledger, limit: int = 20, model: str | None = None, status: str | None = None) -> list[Run]:
    """Return the newest runs first."""
    query = select(runs).order_by(runs.c.started_at.desc(), runs.c.id.desc()).limit(limit)
    if model:
        query = query.where(runs.c.model == model)
    if status:
        query = query.where(runs.c.status == status)
    with ledger.read() as connection:
        return [Run(**row._mapping) for row in connection.execute(query)]


def close_lost_runs(ledger: Ledger, time: datetime) -> list[str]:
    """Mark the runs of this machine whose process has ended as lost, end their remaining processes, return their ids."""
    query = select(runs).where(runs.c.status == "running")
    with ledger.read() as connection:
        rows = [Run(**row._mapping) for row in connection.execute(query)]
    lost = [run for run in rows if _has_ended(run)]
    for run in lost:
        mark_lost(ledger, run, time)
    return [run.id for run in lost]


def mark_lost(ledger: Ledger, run: Run, time: datetime) -> None:
    """Mark a run as lost and end its remaining processes on this machine."""
    processes.kill_marked_processes(RUN_ID, run.id)
    for draft in run.folder.glob("*.tmp"):
        draft.unlink(missing_ok=True)
    remove_scratch(run.folder)
    (run.folder / "spec.json").unlink(missing_ok=True)
    recorded, inputs = read_events(run.folder)
    error = {"kind": "Lost", "message": "the run's process no longer exists; it was killed or the machine stopped"}
    close_row(ledger, run.id, {"status": "lost", "ended_at": time, "recorded": recorded, "inputs": inputs,
                               "notes": run_notes(run.folder), "error": error, "exit_code": 75, "failure": "lost"})  # fmt: skip


def _has_ended(run: Run) -> bool:
    if run.host == processes.host_identity():
        return not processes.is_alive(run.pid, run.pid_started)
    return processes.is_before_reboot(run.host)
