"""Rows of the ledger that tell of slots: which are due, who has one, what became of it. One claim wins, whoever asks."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, and_, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from ..errors import UsageError
from ..ledger.schema import jobs, runs, slots
from ..ledger.store import Ledger
from . import processes

LEASE = timedelta(seconds=60)  # a claim on another machine without a sign of life for so long is taken over
OPEN = ("waiting", "running")


@dataclass(frozen=True)
class Slot:
    """One time at which a job is due, and what became of it."""

    job: str
    slot: datetime
    status: str  # waiting, running, succeeded, failed, skipped
    reason: str
    attempt: int
    not_before: datetime
    run_id: str | None
    host: str | None
    pid: int | None
    pid_started: float | None
    heartbeat_at: datetime | None
    changed_at: datetime

    def to_dict(self) -> dict[str, Any]:
        """Return the slot as JSON values."""
        return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in vars(self).items()}


def known_jobs(ledger: Ledger, names: Iterable[str], now: datetime) -> dict[str, tuple[datetime, bool]]:
    """Return since when each job is known and whether it is paused; a new job is due from now on."""
    with ledger.write() as connection:
        found = {row.name: (row.since, row.paused) for row in connection.execute(select(jobs))}
        for name in set(names) - found.keys():
            _insert_new(connection, jobs, {"name": name, "since": now, "paused": False})
            found[name] = (now, False)
    return found


def pause(ledger: Ledger, job: str, paused: bool, now: datetime) -> None:
    """Let a job rest, or go on. Slots that pass while it rests are not made up for."""
    known_jobs(ledger, [job], now)
    with ledger.write() as connection:
        connection.execute(update(jobs).where(jobs.c.name == job).values(paused=paused, since=now))


def newest(ledger: Ledger) -> dict[str, datetime]:
    """Return the latest slot that is on record for each job."""
    with ledger.read() as connection:
        query = select(slots.c.job, func.max(slots.c.slot).label("slot")).group_by(slots.c.job)
        return {row.job: row.slot for row in connection.execute(query)}


def add(ledger: Ledger, job: str, due: Mapping[datetime, tuple[str, str]], now: datetime) -> list[datetime]:
    """Put slots on record with their status and reason; those that are there already stay; return the new ones."""
    made = []
    with ledger.write() as connection:
        for slot, (status, reason) in sorted(due.items()):
            row = {"job": job, "slot": slot, "status": status, "reason": reason, "attempt": 0, "not_before": slot,
                   "changed_at": now}  # fmt: skip
            if _insert_new(connection, slots, row):
                made.append(slot)
    return made


def find(ledger: Ledger, job: str, slot: datetime) -> Slot:
    """Return a slot. Raises UsageError when it is not on record."""
    with ledger.read() as connection:
        row = connection.execute(select(slots).where(slots.c.job == job, slots.c.slot == slot)).one_or_none()
    if row is None:
        raise UsageError(
            f"{job} has no slot {slot.isoformat()} on record", next=f"`d2c schedule list` shows {job}'s last"
        )
    return Slot(**row._mapping)


def listed(ledger: Ledger, job: str, limit: int = 5) -> list[Slot]:
    """Return the latest slots of a job, newest first."""
    query = select(slots).where(slots.c.job == job).order_by(slots.c.slot.desc()).limit(limit)
    with ledger.read() as connection:
        return [Slot(**row._mapping) for row in connection.execute(query)]


def waiting(ledger: Ledger, now: datetime) -> list[Slot]:
    """Return the slots that may start now, the earliest first."""
    query = select(slots).where(slots.c.status == "waiting", slots.c.not_before <= now).order_by(slots.c.slot)
    with ledger.read() as connection:
        return [Slot(**row._mapping) for row in connection.execute(query)]


def open_of(ledger: Ledger, job: str) -> list[datetime]:
    """Return the slots of a job that wait or run, the earliest first."""
    query = select(slots.c.slot).where(slots.c.job == job, slots.c.status.in_(OPEN)).order_by(slots.c.slot)
    with ledger.read() as connection:
        return list(connection.execute(query).scalars())


def claim(ledger: Ledger, slot: Slot, now: datetime) -> Slot | None:
    """Take a waiting slot for this process; None when somebody else was first or a slot of the job is running."""
    mine = {"host": socket.gethostname(), "pid": os.getpid(), "pid_started": processes.started(os.getpid())}
    busy = select(slots.c.job).where(slots.c.job == slot.job, slots.c.status == "running")
    with ledger.write() as connection:
        taken = connection.execute(
            update(slots)
            .where(slots.c.job == slot.job, slots.c.slot == slot.slot)
            .where(slots.c.status == "waiting", slots.c.attempt == slot.attempt, ~busy.correlate(None).exists())
            .values(status="running", attempt=slot.attempt + 1, heartbeat_at=now, changed_at=now, run_id=None, **mine)
        )
    return find(ledger, slot.job, slot.slot) if taken.rowcount == 1 else None


def close(ledger: Ledger, slot: Slot, status: str, reason: str, now: datetime, **more: Any) -> bool:
    """End a claim of this attempt; False when it is no longer this attempt's to end."""
    with ledger.write() as connection:
        done = connection.execute(
            update(slots)
            .where(slots.c.job == slot.job, slots.c.slot == slot.slot, slots.c.attempt == slot.attempt)
            .where(slots.c.status.in_(OPEN))
            .values(status=status, reason=reason, changed_at=now, **more)
        )
    return done.rowcount == 1


def beat(ledger: Ledger, mine: Iterable[Slot], now: datetime) -> None:
    """Give a sign of life for the claims of this process."""
    with ledger.write() as connection:
        for slot in mine:
            where = and_(slots.c.job == slot.job, slots.c.slot == slot.slot, slots.c.attempt == slot.attempt)
            connection.execute(update(slots).where(where).values(heartbeat_at=now))


def abandoned(ledger: Ledger, now: datetime) -> list[Slot]:
    """Return the running slots whose process is gone, here or (by its silence) elsewhere."""
    here = socket.gethostname()
    query = select(slots).where(slots.c.status == "running")
    query = query.where(or_(slots.c.host == here, slots.c.heartbeat_at < now - LEASE))
    with ledger.read() as connection:
        found = [Slot(**row._mapping) for row in connection.execute(query)]
    return [s for s in found if s.host != here or not processes.alive(s.pid or 0, s.pid_started or 0.0)]


def run_of(ledger: Ledger, slot: Slot) -> Any:
    """Return the row of the run of a slot's present attempt; None when none was opened."""
    query = select(runs.c.id, runs.c.status, runs.c.exit_code)
    query = query.where(runs.c.job == slot.job, runs.c.slot == slot.slot, runs.c.attempt == slot.attempt)
    with ledger.read() as connection:
        return connection.execute(query.order_by(runs.c.started_at.desc()).limit(1)).one_or_none()


def previous_success(ledger: Ledger, job: str, before: datetime) -> datetime | None:
    """Return the latest slot before a moment that succeeded."""
    query = select(func.max(slots.c.slot)).where(
        slots.c.job == job, slots.c.status == "succeeded", slots.c.slot < before
    )
    with ledger.read() as connection:
        found: datetime | None = connection.execute(query).scalar()
    return found


def _insert_new(connection: Connection, table: Any, row: Mapping[str, Any]) -> bool:
    """Insert a row unless one with its key is there: the unique key decides between processes."""
    try:
        with connection.begin_nested():
            connection.execute(insert(table).values(**row))
    except IntegrityError:
        return False
    return True
