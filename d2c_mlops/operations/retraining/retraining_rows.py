"""Retrainings as rows of the ledger: at most one open for each model, owned by one process at a time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from secrets import token_hex
from typing import Any

from sqlalchemy import Connection, and_, insert, select, update

from d2c_mlops.errors import Temporary
from d2c_mlops.ledger.schema import retraining_events, retrainings, runs, versions
from d2c_mlops.ledger.store import Ledger, insert_new
from d2c_mlops.monitoring.retraining import RetrainingReason
from d2c_mlops.runs.execution import processes
from d2c_mlops.runs.execution.leases import BEAT, FENCE, LEASE, Stop, monotonic_seconds

TRAINING, RELEASING, FINISHED = "training", "releasing", "finished"
NOBODY: Mapping[str, Any] = {"host": None, "pid": None, "pid_started": None, "lease_until": None}


@dataclass(frozen=True)
class Retraining:
    """One retraining of a model, from its reason to its result. Times are UTC."""

    id: str
    model: str
    kind: str
    cause: str
    reason: str
    by: str
    opened_at: datetime
    state: str  # training, releasing or finished
    run_id: str | None
    version: int | None
    result: str | None  # promoted, refused, aborted, unchanged, superseded or failed
    detail: str
    finished_at: datetime | None
    attempt: int
    host: str | None
    pid: int | None
    pid_started: float | None
    lease_until: datetime | None

    @property
    def mark(self) -> str:
        """Who started its runs, as these have it on record; it links them to the retraining from their first moment."""
        return f"retraining {self.id}"

    def to_dict(self) -> dict[str, Any]:
        """Return the retraining as JSON values."""
        values = asdict(self).items()
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values}


NAMES = tuple(field.name for field in fields(Retraining))
COLUMNS = [retrainings.c[name] for name in NAMES]


def retraining_history(ledger: Ledger, model: str, limit: int = 20) -> list[Retraining]:
    """Return the retrainings of a model, newest first."""
    query = select(*COLUMNS).where(retrainings.c.model == model)
    query = query.order_by(retrainings.c.opened_at.desc(), retrainings.c.id).limit(limit)
    with ledger.read() as connection:
        return [Retraining(**row._mapping) for row in connection.execute(query)]


def events_of_retraining(ledger: Ledger, id: str) -> list[dict[str, Any]]:
    """Return the steps of a retraining, oldest first, as JSON values."""
    query = select(retraining_events).where(retraining_events.c.retraining_id == id).order_by(retraining_events.c.id)
    with ledger.read() as connection:
        rows = connection.execute(query).all()
    return [{"at": row.at.isoformat(), "state": row.state, "note": row.note} for row in rows]


def find_open_retraining(ledger: Ledger, model: str) -> Retraining | None:
    """Return the open retraining of a model, if there is one."""
    with ledger.read() as connection:
        row = connection.execute(select(*COLUMNS).where(retrainings.c.open_key == model)).one_or_none()
    return Retraining(**row._mapping) if row else None


def open_retraining(ledger: Ledger, model: str, reason: RetrainingReason, by: str, now: datetime) -> Retraining | None:
    """Record a retraining and return it; None if one is open, or one for the same cause gave a version before."""
    row = {
        "id": token_hex(6),
        "model": model,
        "open_key": model,
        "kind": reason.kind,
        "cause": reason.cause,
        "reason": reason.text,
        "by": by,
        "opened_at": now,
        "state": TRAINING,
        "detail": "",
        "attempt": 0,
    }
    answered = select(retrainings.c.id).where(
        retrainings.c.model == model, retrainings.c.cause == reason.cause, retrainings.c.version.is_not(None)
    )
    with ledger.write_alone() as connection:
        if connection.execute(answered.limit(1)).first() or not insert_new(connection, retrainings, [row]):
            return None
        _add_event(connection, str(row["id"]), now, "opened", reason.text)
    return find_open_retraining(ledger, model)


def take_retraining(ledger: Ledger, retraining: Retraining) -> Retraining | None:
    """Take a retraining on in this process; None if it is finished or the process that works on it is alive."""
    now = datetime.now(UTC)
    with ledger.write_alone() as connection:
        row = connection.execute(select(*COLUMNS).where(retrainings.c.id == retraining.id)).one()
        current = Retraining(**row._mapping)
        if current.state == FINISHED or _is_owned(current, now):
            return None
        values = {
            "host": processes.host_identity(),
            "pid": os.getpid(),
            "pid_started": processes.process_start(os.getpid()),
            "lease_until": now + timedelta(seconds=LEASE),
            "attempt": current.attempt + 1,
        }
        connection.execute(update(retrainings).where(retrainings.c.id == current.id).values(**values))
        if current.host:
            _add_event(connection, current.id, now, "resumed", f"process {current.pid} on {current.host} has stopped")
    return Retraining(**asdict(current) | values)


@contextmanager
def keep_retraining(ledger: Ledger, retraining: Retraining) -> Iterator[Stop]:
    """Renew the lease of a retraining from a thread, and give it up at the end; yields why its run must stop, or None."""
    renewed, is_lost, is_over = [monotonic_seconds()], threading.Event(), threading.Event()

    def renew() -> None:
        while not is_over.wait(BEAT):
            asked_at = monotonic_seconds()
            try:
                if not _write_lease(ledger, retraining, {"lease_until": datetime.now(UTC) + timedelta(seconds=LEASE)}):
                    is_lost.set()
                renewed[0] = asked_at
            except Temporary:  # the ledger may be back at the next beat
                continue

    def why_to_stop() -> str | None:
        if is_lost.is_set():
            return "its retraining was taken over"
        if monotonic_seconds() - renewed[0] > FENCE:
            return f"no heartbeat reached the ledger for {FENCE:g} s, so another process may take over the retraining"
        return None

    thread = threading.Thread(target=renew, daemon=True, name="retraining")
    thread.start()
    try:
        yield why_to_stop
    finally:
        is_over.set()
        thread.join()
        ledger.with_retries(lambda: _write_lease(ledger, retraining, NOBODY), timeout=FENCE)


def write_step(
    ledger: Ledger, retraining: Retraining, state: str, note: str, now: datetime, **values: Any
) -> Retraining:
    """Record a step of a retraining. Raises Temporary if another process has taken it over."""
    changes = {"state": state, "detail": note, **values}
    if state == FINISHED:
        changes |= {"finished_at": now, "open_key": None}
    with ledger.write() as connection:
        if connection.execute(update(retrainings).where(_mine(retraining)).values(**changes)).rowcount != 1:
            raise Temporary("the retraining was taken over by another process", where=f"retraining {retraining.id}")
        event = str(values.get("result") or state)
        if (event, note) != _last_event(connection, retraining.id):
            _add_event(connection, retraining.id, now, event, note)
    changes.pop("open_key", None)
    return Retraining(**asdict(retraining) | changes)


def runs_of_retraining(ledger: Ledger, retraining: Retraining) -> list[str]:
    """Return the ids of a retraining's training runs, oldest first."""
    query = select(runs.c.id).where(runs.c.model == retraining.model, runs.c.started_by == retraining.mark)
    with ledger.read() as connection:
        return list(connection.execute(query.order_by(runs.c.started_at, runs.c.id)).scalars())


def version_of_retraining(ledger: Ledger, retraining: Retraining) -> tuple[int, str] | None:
    """Return the version that a retraining's runs registered, the first if there are more, and the run's id."""
    query = select(versions.c.version, versions.c.run_id).join(runs, runs.c.id == versions.c.run_id)
    query = query.where(versions.c.model == retraining.model, runs.c.started_by == retraining.mark)
    with ledger.read() as connection:
        row = connection.execute(query.order_by(versions.c.version).limit(1)).one_or_none()
    return (int(row.version), str(row.run_id)) if row else None


def _is_owned(retraining: Retraining, now: datetime) -> bool:
    """Return whether the process that works on a retraining is alive; on other machines, whether its lease has not ended."""
    if not retraining.host:
        return False
    if retraining.host == processes.host_identity():
        return processes.is_alive(retraining.pid or 0, retraining.pid_started or 0.0)
    if processes.is_before_reboot(retraining.host):
        return False
    return retraining.lease_until is not None and retraining.lease_until > now


def _mine(retraining: Retraining) -> Any:
    return and_(retrainings.c.id == retraining.id, retrainings.c.attempt == retraining.attempt)


def _write_lease(ledger: Ledger, retraining: Retraining, values: Mapping[str, Any]) -> bool:
    with ledger.write() as connection:
        return connection.execute(update(retrainings).where(_mine(retraining)).values(**values)).rowcount == 1


def _last_event(connection: Connection, id: str) -> tuple[str, str] | None:
    query = select(retraining_events.c.state, retraining_events.c.note).where(retraining_events.c.retraining_id == id)
    row = connection.execute(query.order_by(retraining_events.c.id.desc()).limit(1)).one_or_none()
    return (row.state, row.note) if row else None


def _add_event(connection: Connection, id: str, now: datetime, state: str, note: str) -> None:
    connection.execute(insert(retraining_events).values(retraining_id=id, at=now, state=state, note=note))
