"""Ledger rows of slots: due times, claims and results. Of concurrent claims exactly one succeeds."""

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
    """One time at which a job is due, and its status."""

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
        """The job, the slot and the attempt, which identify a claim."""
        return self.job, self.slot, self.attempt

    def __str__(self) -> str:
        return f"{self.job} {self.slot.isoformat()}"

    def to_dict(self) -> dict[str, Any]:
        """Return the slot as JSON values."""
        return {key: value.isoformat() if isinstance(value, datetime) else value for key, value in vars(self).items()}


def slot_key(job: str, slot: datetime) -> str:
    """Return the idempotency key of a slot: the same at every attempt, different for every slot."""
    moment = slot.astimezone(UTC)
    return f"{job}-{moment:%Y%m%dT%H%M%S}{f'.{moment.microsecond:06}' if moment.microsecond else ''}Z"


def known_jobs(ledger: Ledger, names: Iterable[str], now: datetime) -> dict[str, tuple[datetime, bool]]:
    """Return up to which time each job's slots are decided and whether the job is paused; a new job starts now."""
    job_names = list(names)
    with ledger.read() as connection:
        states = {row.name: (row.since, row.paused) for row in connection.execute(select(jobs))}
    missing = [{"name": name, "since": now, "paused": False} for name in job_names if name not in states]
    if missing:
        with ledger.write() as connection:
            insert_new(connection, jobs, missing)
        return known_jobs(ledger, job_names, now)
    return states


def pause_job(ledger: Ledger, job: str, paused: bool, now: datetime) -> None:
    """Pause or resume a job. Slots that are due during the pause are not run later."""
    known_jobs(ledger, [job], now)
    with ledger.write() as connection:
        connection.execute(update(jobs).where(jobs.c.name == job).values(paused=paused, since=now))


def add_slots(
    ledger: Ledger,
    job: str,
    due: Mapping[datetime, tuple[str, str]],
    now: datetime,
    *,
    until: datetime | None = None,  # the slots up to here are decided by this, so that nobody looks at them again
    parallel: int | None = None,
) -> list[datetime]:
    """Add slots with their status and reason; existing slots are not changed; return the new ones."""
    with ledger.write() as connection:
        added = add_slots_in(connection, job, due, now, parallel)
        if until is not None:
            connection.execute(update(jobs).where(jobs.c.name == job, jobs.c.since < until).values(since=until))
    return added


def add_slots_in(
    connection: Connection,
    job: str,
    due: Mapping[datetime, tuple[str, str]],
    now: datetime,
    parallel: int | None = None,
) -> list[datetime]:
    """Add slots as part of a transaction; return the new ones in order."""
    rows = [
        {"job": job, "slot": slot, "status": status, "reason": reason, "attempt": 0, "not_before": slot,
         "changed_at": now, "parallel": parallel}
        for slot, (status, reason) in sorted(due.items())
    ]  # fmt: skip
    added = sorted(row.slot for row in insert_new(connection, slots, rows))
    if added:
        events = [_slot_event(job, slot, 0, now, *due[slot]) for slot in added]
        connection.execute(insert(slot_events), events)
    return added


def find_slot(ledger: Ledger, job: str, slot: datetime) -> Slot:
    """Return a slot. Raises UsageError if it is not recorded."""
    with ledger.read() as connection:
        row = connection.execute(select(slots).where(slots.c.job == job, slots.c.slot == slot)).one_or_none()
    if row is None:
        raise UsageError(
            f"{job} has no slot {slot.isoformat()} on record", next=f"`d2c schedule list` shows the last slots of {job}"
        )
    return Slot(**row._mapping)


def slot_history(ledger: Ledger, job: str, slot: datetime) -> list[dict[str, Any]]:
    """Return the history of a slot, oldest first: time, attempt, status, reason, host."""
    query = select(slot_events).where(slot_events.c.job == job, slot_events.c.slot == slot).order_by(slot_events.c.id)
    names = ("at", "attempt", "status", "reason", "run_id", "host", "pid")
    with ledger.read() as connection:
        return [{name: row._mapping[name] for name in names} for row in connection.execute(query)]


def list_slots(ledger: Ledger, job: str, limit: int = LISTED) -> list[Slot]:
    """Return the latest slots of a job, newest first."""
    return _slot_rows(ledger, select(slots).where(slots.c.job == job).order_by(slots.c.slot.desc()).limit(limit))


def list_all_slots(ledger: Ledger, until: datetime, limit: int = LISTED) -> dict[str, list[Slot]]:
    """Return the latest slots of each job up to a moment, newest first."""
    inner = slots.alias()
    newest = select(inner.c.slot).where(inner.c.job == jobs.c.name, inner.c.slot <= until)
    newest = newest.order_by(inner.c.slot.desc()).limit(limit)
    query = select(slots).join_from(jobs, slots, and_(slots.c.job == jobs.c.name, slots.c.slot.in_(newest)))
    slots_by_job: dict[str, list[Slot]] = {}
    for slot in _slot_rows(ledger, query):
        slots_by_job.setdefault(slot.job, []).append(slot)
    return {job: sorted(job_slots, key=lambda s: s.slot, reverse=True) for job, job_slots in slots_by_job.items()}


def waiting_slots(ledger: Ledger, now: datetime) -> list[Slot]:
    """Return the slots of active jobs that may start now, earliest first."""
    query = select(slots).join(jobs, jobs.c.name == slots.c.job).where(~jobs.c.paused)
    return _slot_rows(
        ledger, query.where(slots.c.status == "waiting", slots.c.not_before <= now).order_by(slots.c.slot)
    )


def job_state(ledger: Ledger, name: str) -> tuple[datetime, bool] | None:
    """Return up to which time a job's slots are decided and whether it is paused; None if no scheduler has met it yet."""
    with ledger.read() as connection:
        row = connection.execute(select(jobs.c.since, jobs.c.paused).where(jobs.c.name == name)).first()
    return (row.since, row.paused) if row else None


def latest_slot(ledger: Ledger, job: str, until: datetime) -> Slot | None:
    """Return the latest recorded slot of a job that is not later than a time."""
    query = select(slots).where(slots.c.job == job, slots.c.slot <= until).order_by(slots.c.slot.desc()).limit(1)
    return next(iter(_slot_rows(ledger, query)), None)


def slots_between(ledger: Ledger, job: str, since: datetime, until: datetime) -> list[Slot]:
    """Return the recorded slots of a job from one time (inclusive) to another (exclusive), earliest first."""
    query = select(slots).where(slots.c.job == job, slots.c.slot >= since, slots.c.slot < until)
    return _slot_rows(ledger, query.order_by(slots.c.slot))


def running_slots(ledger: Ledger) -> list[Slot]:
    """Return the slots that are running on any machine."""
    return _slot_rows(ledger, select(slots).where(slots.c.status == "running"))


def open_slots(ledger: Ledger, job: str) -> list[datetime]:
    """Return the waiting and running slots of a job, earliest first."""
    query = select(slots).where(slots.c.job == job, slots.c.status.in_(OPEN)).order_by(slots.c.slot)
    return [slot.slot for slot in _slot_rows(ledger, query)]


def claim_slot(ledger: Ledger, slot: Slot, now: datetime, concurrency: int = 1) -> Slot | None:
    """Claim a waiting slot for this process; None if another process was first or the job's limit is reached."""
    mine = {"host": processes.host_identity(), "pid": os.getpid(), "pid_started": processes.process_start(os.getpid())}
    other_slots = slots.alias()
    going = (
        select(func.count())
        .select_from(other_slots)
        .where(other_slots.c.job == slot.job, other_slots.c.status == "running")
    )
    room = going.correlate(None).scalar_subquery() < max(concurrency, slot.parallel or 1)
    with ledger.write() as connection:
        # Claims of one job come one after the other, so that each sees what the others have taken.
        connection.execute(update(jobs).where(jobs.c.name == slot.job).values(name=slot.job))
        result = connection.execute(
            update(slots)
            .where(slots.c.job == slot.job, slots.c.slot == slot.slot)
            .where(slots.c.status == "waiting", slots.c.attempt == slot.attempt, room)
            .values(status="running", attempt=slot.attempt + 1, heartbeat_at=now, changed_at=now, run_id=None, **mine)
        )
        if result.rowcount != 1:
            return None
        event = _slot_event(slot.job, slot.slot, slot.attempt + 1, now, "running", "claimed")
        connection.execute(insert(slot_events).values({**event, "host": mine["host"], "pid": mine["pid"]}))
    return find_slot(ledger, slot.job, slot.slot)


def close_slot(ledger: Ledger, slot: Slot, status: str, reason: str, now: datetime, **values: Any) -> bool:
    """Change the status of a slot; False if another process has changed it in the meantime."""
    with ledger.write() as connection:
        return close_slot_in(connection, slot, status, reason, now, **values)


def close_slot_in(connection: Connection, slot: Slot, status: str, reason: str, now: datetime, **values_: Any) -> bool:
    """Change the status of a slot as part of a transaction."""
    result = connection.execute(
        update(slots)
        .where(_claim_values(slot), slots.c.status == slot.status)
        .values(status=status, reason=reason, changed_at=now, **values_)
    )
    if result.rowcount == 1:
        event = _slot_event(slot.job, slot.slot, slot.attempt, now, status, reason)
        connection.execute(insert(slot_events).values({**event, "run_id": values_.get("run_id")}))
    return result.rowcount == 1


def send_heartbeats(ledger: Ledger, claims: Iterable[Slot], now: datetime) -> list[Slot]:
    """Send a heartbeat for claims of this process; return the claims that it has lost."""
    lost = []
    with ledger.write() as connection:
        for slot in claims:
            heartbeat = update(slots).where(_claim_values(slot), slots.c.status == "running").values(heartbeat_at=now)
            if connection.execute(heartbeat).rowcount != 1:
                lost.append(slot)
    return lost


def runs_of_slot(ledger: Ledger, slot: Slot) -> list[Any]:
    """Return the runs of a slot, one per attempt, latest attempt first."""
    query = select(runs.c.id, runs.c.status, runs.c.exit_code, runs.c.attempt, runs.c.recorded)
    query = query.where(runs.c.job == slot.job, runs.c.slot == slot.slot).order_by(runs.c.attempt.desc())
    with ledger.read() as connection:
        return list(connection.execute(query))


def previous_success(ledger: Ledger, job: str, before: datetime) -> datetime | None:
    """Return the latest successful slot before a time."""
    query = select(func.max(slots.c.slot)).where(
        slots.c.job == job, slots.c.status == "succeeded", slots.c.slot < before
    )
    with ledger.read() as connection:
        slot_time: datetime | None = connection.execute(query).scalar()
    return slot_time


def _claim_values(slot: Slot) -> Any:
    return and_(slots.c.job == slot.job, slots.c.slot == slot.slot, slots.c.attempt == slot.attempt)


def _slot_rows(ledger: Ledger, query: Select[Any]) -> list[Slot]:
    with ledger.read() as connection:
        return [Slot(**row._mapping) for row in connection.execute(query)]


def _slot_event(job: str, slot: datetime, attempt: int, time: datetime, status: str, reason: str) -> dict[str, Any]:
    return {"job": job, "slot": slot, "attempt": attempt, "at": time, "status": status, "reason": reason}
