"""Dependencies of jobs: the success of other jobs, and new data of a source."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

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
    for name in jobs[slot.job].settings.after_end:
        if name in jobs and (state := _unfinished(jobs, ledger, name, slot.slot)):
            return name, f"waits for the end of {name}, {state}"
    return None


def _unfinished(jobs: Mapping[str, Job], ledger: Ledger, name: str, moment: datetime) -> str:
    """Return the state of a job's latest slot until a moment, if it has not ended; "" if it has, or if none is to come.

    A slot that waits for the success of one that failed counts as ended.
    """
    job = jobs[name]
    first = slot_rows.latest_slot(ledger, name, moment)
    if first is not None and first.status in ("waiting", "running"):
        if first.status == "waiting" and _waits_for_a_failure(jobs, ledger, first):
            return ""
        return f"whose slot {job.local_time(first.slot)} is {first.status}: {first.reason}"
    due = job.cadence.last(moment) if job.cadence.cron else None
    if due is None or (first is not None and first.slot >= due):
        return ""
    state = slot_rows.job_state(ledger, name)
    is_to_come = state is not None and not state[1] and state[0] < due
    return f"whose slot {job.local_time(due)} is not on record yet" if is_to_come else ""


def _waits_for_a_failure(jobs: Mapping[str, Job], ledger: Ledger, slot: Slot) -> bool:
    """Return whether a slot waits for the success of a slot that failed or was skipped, directly or through others."""
    for name in jobs[slot.job].settings.after:
        first = slot_rows.latest_slot(ledger, name, slot.slot)
        if first is None:
            continue
        if first.status in ("failed", "skipped"):
            return True
        if first.status == "waiting" and name in jobs and _waits_for_a_failure(jobs, ledger, first):
            return True
    return False


def jobs_on_new_data(jobs: Iterable[Job], source: str, finished_run: Run) -> list[str]:
    """Return the jobs that run on new data of `source`, if the run has recorded new data."""
    if not finished_run.recorded.get(NEWS):
        return []
    return [job.name for job in jobs if source in job.settings.on]
