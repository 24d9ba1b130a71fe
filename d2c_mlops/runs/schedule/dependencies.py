"""Dependencies of jobs: the success of other jobs, and new data of a source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution import slot_rows
from d2c_mlops.runs.execution.run_rows import Run
from d2c_mlops.runs.execution.slot_rows import Slot
from d2c_mlops.runs.schedule.jobs import Job

NEWS = "new_rows"  # the recorded value by which a source says that there are new data


def unmet_dependency(jobs: Mapping[str, Job], ledger: Ledger, slot: Slot) -> tuple[str, str] | None:
    """Return the first job that a slot waits for, and the state of its latest slot; None if all have succeeded."""
    for name in jobs[slot.job].settings.after:
        first = slot_rows.latest_slot(ledger, name, slot.slot)
        if first is None:
            return name, f"waits for {name}, which has no slot yet"
        if first.status != "succeeded":
            moment = jobs[name].local_time(first.slot) if name in jobs else first.slot.isoformat()
            return name, f"waits for {name}, whose slot {moment} is {first.status}: {first.reason}"
    return None


def jobs_on_new_data(jobs: Iterable[Job], source: str, finished_run: Run) -> list[str]:
    """Return the jobs that run on new data of `source`, if the run has recorded new data."""
    if not finished_run.recorded.get(NEWS):
        return []
    return [job.name for job in jobs if source in job.settings.on]
