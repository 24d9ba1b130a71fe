"""Rows of the ledger that tell of slots: which are due, who has one, what became of it. One claim wins, whoever asks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Select, and_, func, insert, select, update

from d2c_mlops.errors import UsageError
from d2c_mlops.ledger.schema import jobs, runs, slot_events, slots
from d2c_mlops.ledger.store import Ledger, insert_new
from d2c_mlops.runs.execution import processes

OPEN = ("waiting", "running")
LISTED = 5


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
    parallel: int | None = None  # how many of the job's slots may run at a time beside this one, for a backfill

    @property
    def key(self) -> tuple[str, datetime, int]:
        """The job, the slot and the attempt: what one claim is about."""
        return self.job, self.slot, self.attempt

    def __str__(self) -> str:
        return f"{self.job} {self.slot.isoformat()}"

    def to_dict(self) -> dict[str, Any]:
        """Return the slot as JSON values."""
        return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in vars(self).items()}


def slot_key(job: str, slot: datetime) -> str:
    """Return the key of a slot for writes that must happen once: the same at every attempt, another for every other slot."""
    moment = slot.astimezone(UTC)
    return f"{job}-{moment:%Y%m%dT%H%M%S}{f'.{moment.microsecond:06}' if moment.microsecond else ''}Z"


def known_jobs(ledger: Ledger, names: Iterable[str], now: datetime) -> dict[str, tuple[datetime, bool]]:
    """Return until when the slots of each job are decided and whether it is paused; a new job is due from now on."""
    wanted = list(names)
    with ledger.read() as connection:
        found = {row.name: (row.since, row.paused) for row in connection.execute(select(jobs))}
    missing = [{"name": name, "since": now, "paused": False} for name in wanted if name not in found]
    if missing:
        with ledger.write() as connection:
            insert_new(connection, jobs, missing)
        return known_jobs(ledger, wanted, now)
    return found


def pause(ledger: Ledger, job: str, paused: bool, now: datetime) -> None:
    """Let a job rest, or go on. Slots that pass while it rests are not made up for."""
    known_jobs(ledger, [job], now)
    with ledger.write() as connection:
        connection.execute(update(jobs).where(jobs.c.name == job).values(paused=paused, since=now))


def add(
    ledger: Ledger,
    job: str,
    due: Mapping[datetime, tuple[str, str]],
    now: datetime,
    *,
    until: datetime | None = None,  # the slots up to here are decided by this, so that nobody looks at them again
    parallel: int | None = None,
) -> list[datetime]:
    """Put slots on record with their status and reason; those that are there already stay; return the new ones."""
    with ledger.write() as connection:
        made = add_in(connection, job, due, now, parallel)
        if until is not None:
            connection.execute(update(jobs).where(jobs.c.name == job, jobs.c.since < until).values(since=until))
    return made


def add_in(
    connection: Connection,
    job: str,
    due: Mapping[datetime, tuple[str, str]],
    now: datetime,
    parallel: int | None = None,
) -> list[datetime]:
    """Put slots on record as part of a transaction; return the new ones in order."""
    rows = [
        {"job": job, "slot": slot, "status": status, "reason": reason, "attempt": 0, "not_before": slot,
         "changed_at": now, "parallel": parallel}
        for slot, (status, reason) in sorted(due.items())
    ]  # fmt: skip
    made = sorted(row.slot for row in insert_new(connection, slots, rows))
    if made:
        events = [_event(job, slot, 0, now, *due[slot]) for slot in made]
        connection.execute(insert(slot_events), events)
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


def history(ledger: Ledger, job: str, slot: datetime) -> list[dict[str, Any]]:
    """Return what happened to a slot, the first first: when, which attempt, what became of it, why, where."""
    query = select(slot_events).where(slot_events.c.job == job, slot_events.c.slot == slot).order_by(slot_events.c.id)
    names = ("at", "attempt", "status", "reason", "run_id", "host", "pid")
    with ledger.read() as connection:
        return [{name: row._mapping[name] for name in names} for row in connection.execute(query)]


def listed(ledger: Ledger, job: str, limit: int = LISTED) -> list[Slot]:
    """Return the latest slots of a job, newest first."""
    return _slots(ledger, select(slots).where(slots.c.job == job).order_by(slots.c.slot.desc()).limit(limit))


def listed_all(ledger: Ledger, until: datetime, limit: int = LISTED) -> dict[str, list[Slot]]:
    """Return the latest slots of each job up to a moment, newest first."""
    inner = slots.alias()
    newest = select(inner.c.slot).where(inner.c.job == jobs.c.name, inner.c.slot <= until)
    newest = newest.order_by(inner.c.slot.desc()).limit(limit)
    query = select(slots).join_from(jobs, slots, and_(slots.c.job == jobs.c.name, slots.c.slot.in_(newest)))
    found: dict[str, list[Slot]] = {}
    for slot in _slots(ledger, query):
        found.setdefault(slot.job, []).append(slot)
    return {job: sorted(each, key=lambda s: s.slot, reverse=True) for job, each in found.items()}


def waiting(ledger: Ledger, now: datetime) -> list[Slot]:
    """Return the slots of jobs that do not rest which may start now, the earliest first."""
    query = select(slots).join(jobs, jobs.c.name == slots.c.job).where(~jobs.c.paused)
    return _slots(ledger, query.where(slots.c.status == "waiting", slots.c.not_before <= now).order_by(slots.c.slot))


def latest(ledger: Ledger, job: str, until: datetime) -> Slot | None:
    """Return the latest slot of a job on record that is not later than a moment."""
    query = select(slots).where(slots.c.job == job, slots.c.slot <= until).order_by(slots.c.slot.desc()).limit(1)
    return next(iter(_slots(ledger, query)), None)


def between(ledger: Ledger, job: str, since: datetime, until: datetime) -> list[Slot]:
    """Return the slots of a job on record from a moment on and before another, the earliest first."""
    query = select(slots).where(slots.c.job == job, slots.c.slot >= since, slots.c.slot < until)
    return _slots(ledger, query.order_by(slots.c.slot))


def running(ledger: Ledger) -> list[Slot]:
    """Return the slots that are running, wherever."""
    return _slots(ledger, select(slots).where(slots.c.status == "running"))


def open_of(ledger: Ledger, job: str) -> list[datetime]:
    """Return the slots of a job that wait or run, the earliest first."""
    query = select(slots).where(slots.c.job == job, slots.c.status.in_(OPEN)).order_by(slots.c.slot)
    return [slot.slot for slot in _slots(ledger, query)]


def claim(ledger: Ledger, slot: Slot, now: datetime, concurrency: int = 1) -> Slot | None:
    """Take a waiting slot for this process; None when somebody else was first or enough of the job are running."""
    mine = {"host": processes.place(), "pid": os.getpid(), "pid_started": processes.started(os.getpid())}
    other = slots.alias()
    going = select(func.count()).select_from(other).where(other.c.job == slot.job, other.c.status == "running")
    room = going.correlate(None).scalar_subquery() < max(concurrency, slot.parallel or 1)
    with ledger.write() as connection:
        # Claims of one job come one after the other, so that each sees what the others have taken.
        connection.execute(update(jobs).where(jobs.c.name == slot.job).values(name=slot.job))
        taken = connection.execute(
            update(slots)
            .where(slots.c.job == slot.job, slots.c.slot == slot.slot)
            .where(slots.c.status == "waiting", slots.c.attempt == slot.attempt, room)
            .values(status="running", attempt=slot.attempt + 1, heartbeat_at=now, changed_at=now, run_id=None, **mine)
        )
        if taken.rowcount != 1:
            return None
        event = _event(slot.job, slot.slot, slot.attempt + 1, now, "running", "claimed")
        connection.execute(insert(slot_events).values({**event, "host": mine["host"], "pid": mine["pid"]}))
    return find(ledger, slot.job, slot.slot)


def close(ledger: Ledger, slot: Slot, status: str, reason: str, now: datetime, **more: Any) -> bool:
    """Change the status of a slot from the one that it is seen in; False when somebody else has changed it since."""
    with ledger.write() as connection:
        return close_in(connection, slot, status, reason, now, **more)


def close_in(connection: Connection, slot: Slot, status: str, reason: str, now: datetime, **more: Any) -> bool:
    """Change the status of a slot as part of a transaction."""
    done = connection.execute(
        update(slots)
        .where(_claim(slot), slots.c.status == slot.status)
        .values(status=status, reason=reason, changed_at=now, **more)
    )
    if done.rowcount == 1:
        event = _event(slot.job, slot.slot, slot.attempt, now, status, reason)
        connection.execute(insert(slot_events).values({**event, "run_id": more.get("run_id")}))
    return done.rowcount == 1


def beat(ledger: Ledger, mine: Iterable[Slot], now: datetime) -> list[Slot]:
    """Give a sign of life for claims of this process; return those that are no longer its own."""
    lost = []
    with ledger.write() as connection:
        for slot in mine:
            held = update(slots).where(_claim(slot), slots.c.status == "running").values(heartbeat_at=now)
            if connection.execute(held).rowcount != 1:
                lost.append(slot)
    return lost


def runs_of(ledger: Ledger, slot: Slot) -> list[Any]:
    """Return the runs of a slot, one an attempt, the latest attempt first."""
    query = select(runs.c.id, runs.c.status, runs.c.exit_code, runs.c.attempt, runs.c.recorded)
    query = query.where(runs.c.job == slot.job, runs.c.slot == slot.slot).order_by(runs.c.attempt.desc())
    with ledger.read() as connection:
        return list(connection.execute(query))


def previous_success(ledger: Ledger, job: str, before: datetime) -> datetime | None:
    """Return the latest slot before a moment that succeeded."""
    query = select(func.max(slots.c.slot)).where(
        slots.c.job == job, slots.c.status == "succeeded", slots.c.slot < before
    )
    with ledger.read() as connection:
        found: datetime | None = connection.execute(query).scalar()
    return found


def _claim(slot: Slot) -> Any:
    return and_(slots.c.job == slot.job, slots.c.slot == slot.slot, slots.c.attempt == slot.attempt)


def _slots(ledger: Ledger, query: Select[Any]) -> list[Slot]:
    with ledger.read() as connection:
        return [Slot(**row._mapping) for row in connection.execute(query)]


def _event(job: str, slot: datetime, attempt: int, at: datetime, status: str, reason: str) -> dict[str, Any]:
    return {"job": job, "slot": slot, "attempt": attempt, "at": at, "status": status, "reason": reason}
