"""What jobs wait for: the success of jobs that come first, and new data of a source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..ledger.store import Ledger
from . import slots
from .jobs import Job
from .records import Run
from .slots import Slot

NEWS = "new_rows"  # the recorded value by which a source says that there are new data


def waits_for(jobs: Mapping[str, Job], ledger: Ledger, slot: Slot) -> tuple[str, str] | None:
    """Return the first job that a slot waits for, and what is known of its latest slot; None when all have succeeded."""
    for name in jobs[slot.job].settings.after:
        first = slots.latest(ledger, name, slot.slot)
        if first is None:
            return name, f"waits for {name}, which has no slot yet"
        if first.status != "succeeded":
            moment = jobs[name].shown(first.slot) if name in jobs else first.slot.isoformat()
            return name, f"waits for {name}, whose slot {moment} is {first.status}: {first.reason}"
    return None


def waiting_for_news(jobs: Iterable[Job], source: str, done: Run) -> list[str]:
    """Return the jobs that run on new data of `source`, when the run has recorded that there are some."""
    if not done.recorded.get(NEWS):
        return []
    return [job.name for job in jobs if source in job.settings.on]
