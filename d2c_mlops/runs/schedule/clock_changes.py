"""Ledger entries with a time in the future: they come from a wrong clock and are ignored until they are due."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, insert, select, update

from d2c_mlops.ledger.schema import jobs, slot_events, slots
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution.leases import LogMessage
from d2c_mlops.runs.execution.slot_rows import known_jobs

TOLERANCE = timedelta(seconds=90)  # by which the clocks of several machines may differ


def decided_until(
    ledger: Ledger, names: Iterable[str], now: datetime, print_line: LogMessage
) -> dict[str, tuple[datetime, bool]]:
    """Return up to which time each job's slots are decided, at most now, and whether the job is paused."""
    job_names = list(names)
    states = known_jobs(ledger, job_names, now)
    ahead = [name for name in job_names if states[name][0] > now + TOLERANCE]
    if not ahead:
        return states
    undo_future_decisions(ledger, ahead, now, print_line)
    return known_jobs(ledger, job_names, now)


def undo_future_decisions(ledger: Ledger, names: Iterable[str], now: datetime, print_line: LogMessage) -> None:
    """Undo decisions of a clock that was ahead: the slots become due again at their time.

    Slots that were run keep their rows. The waiting time of a slot before another attempt is counted from now.
    """
    limit = now + TOLERANCE
    for name in names:
        with ledger.write() as connection:
            early = select(slots).where(slots.c.job == name, slots.c.changed_at > limit)
            rows = list(connection.execute(early.order_by(slots.c.slot)))
            undone = [row for row in rows if _was_not_run(row)]
            if undone:
                decided = slots.c.attempt == 0, slots.c.status.in_(("waiting", "skipped"))
                connection.execute(delete(slots).where(slots.c.job == name, slots.c.changed_at > limit, *decided))
                why = f"ignored: it was decided at {row_time(undone[0].changed_at)}, which is in the future"
                connection.execute(
                    insert(slot_events),
                    [
                        {"job": name, "slot": row.slot, "attempt": 0, "at": now, "status": "withdrawn", "reason": why}
                        for row in undone
                    ],
                )
            again = slots.c.job == name, slots.c.status == "waiting", slots.c.changed_at > limit, slots.c.slot <= limit
            connection.execute(update(slots).where(*again).values(not_before=now, changed_at=now))
            begin = min([now, *(row.slot - timedelta(microseconds=1) for row in undone)])
            moved = update(jobs).where(jobs.c.name == name, jobs.c.since > limit).values(since=begin)
            shifted = connection.execute(moved).rowcount
        if rows or shifted:
            ran = [row_time(row.slot) for row in rows if row.slot > limit and not _was_not_run(row)]
            already_run = f"; {', '.join(ran)} have already run" if ran else ""
            print_line(
                f"{name}: the clock was ahead; {len(undone)} slot(s) decided too early are ignored until they are due{already_run}"
            )


def _was_not_run(row: Any) -> bool:
    """Return whether a slot is only due or missed, and was not run."""
    return row.attempt == 0 and row.status in ("waiting", "skipped")


def row_time(time: datetime) -> str:
    """Return a time of the ledger in UTC, to the second."""
    return time.isoformat(timespec="seconds")
