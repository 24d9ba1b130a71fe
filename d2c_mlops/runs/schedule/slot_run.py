"""Run the slots of one job and return, for cron and orchestrators. A claim in the ledger makes each slot run once."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from d2c_mlops.errors import NotebookFailed, Temporary, UsageError
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution import slot_rows
from d2c_mlops.runs.execution.failures import error_of_exit_code
from d2c_mlops.runs.execution.leases import Clock, LogMessage
from d2c_mlops.runs.execution.run_rows import find_run
from d2c_mlops.runs.execution.slot_rows import Slot
from d2c_mlops.runs.schedule.clock_changes import TOLERANCE, decided_until
from d2c_mlops.runs.schedule.dependencies import unmet_dependency
from d2c_mlops.runs.schedule.jobs import Job, due_slots, scheduled_job
from d2c_mlops.runs.schedule.schedule import Scheduler, utc_now
from d2c_mlops.settings import Settings

DUE = "due"
GRACE = timedelta(hours=1)  # orchestrators start late: pods wait for a node, hosted runners for a machine
LOOK = 1.0  # seconds between two looks at a slot that somebody else has
Sleep = Callable[[float], None]


def run_job(
    name: str,  # of a [schedule:NAME] section
    slot_text: str,  # `due`, or a moment: the slot of that time, else the latest before it
    settings: Settings,
    *,
    wait_for_slot: bool = False,  # make the further attempts after temporary failures here, too
    grace: timedelta = GRACE,  # a slot that is later than this was missed
    print_line: LogMessage = print,
    clock: Clock = utc_now,
    sleep: Sleep = time.sleep,
) -> list[Slot]:
    """Run slots of a job and return them; it is not a failure if they are already done or nothing is due.

    Waits for dependencies and for a slot that another process runs, at most for the job's timeout. Raises the error class
    of a failure, or Temporary when another attempt is due later.
    """
    scheduler = Scheduler(settings, say=print_line, clock=clock)
    scheduled_job(settings, name)
    now = clock()
    if decided_until(scheduler.ledger, scheduler.jobs, now, print_line)[name][1]:
        print_line(f"{name} is paused; `d2c schedule resume {name}` resumes it")
        return []
    for job_name in _with_dependencies(scheduler, name):
        add_due_slots(scheduler, scheduler.jobs[job_name], now, grace)
    if slot_text == DUE:
        targets = [slot for slot in slot_rows.open_slots(scheduler.ledger, name) if slot <= now + TOLERANCE]
    else:
        targets = [_requested_slots(scheduler, name, slot_text)]
    ended = [_run_or_wait(scheduler, name, slot, wait_for_slot, sleep) for slot in targets]
    for slot in ended:
        _raise_failure(scheduler.ledger, slot, scheduler.slot_text(slot))
    return ended


def add_due_slots(scheduler: Scheduler, job: Job, now: datetime, grace: timedelta) -> None:
    """Record the due slots of a job; if it has no slots yet, only the latest one that is not missed."""
    since, paused = decided_until(scheduler.ledger, [job.name], now, scheduler.say)[job.name]
    if not job.cadence.cron:
        return
    last = job.cadence.last(now)
    if now - last <= grace and not slot_rows.list_slots(scheduler.ledger, job.name, 1):
        since = min(since, last - timedelta(microseconds=1))
    decided = {} if paused else due_slots(job, since, now, grace)
    if decided:
        slot_rows.add_slots(scheduler.ledger, job.name, decided, now, until=max(decided))


def due_slot(job: Job, text: str, ledger: Ledger) -> datetime:
    """Return the slot for a time: the recorded slot at that time, else the latest slot of the cadence before it."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a time", next=f"write 2026-11-23T05:00Z, or {DUE}") from None
    moment = (moment if moment.tzinfo else moment.replace(tzinfo=job.cadence.zone)).astimezone(UTC)
    try:
        return slot_rows.find_slot(ledger, job.name, moment).slot
    except UsageError:
        return job.cadence.last(moment)


def _requested_slots(scheduler: Scheduler, name: str, slot_text: str) -> datetime:
    slot, now = due_slot(scheduler.jobs[name], slot_text, scheduler.ledger), scheduler.clock()
    if slot > now:
        moment = scheduler.jobs[name].local_time(slot)
        raise UsageError(f"the slot {moment} of {name} is not due yet", next=f"d2c run {name} --slot {DUE}")
    slot_rows.add_slots(scheduler.ledger, name, {slot: ("waiting", "asked for")}, now)
    return slot


def _with_dependencies(scheduler: Scheduler, name: str) -> list[str]:
    """Return a job and all its dependencies, so that their due slots are recorded too."""
    names = [name]
    for job_name in names:
        names += [dependency for dependency in scheduler.jobs[job_name].settings.after if dependency not in names]
    return names


def _run_or_wait(scheduler: Scheduler, name: str, time: datetime, wait_for_slot: bool, sleep: Sleep) -> Slot:
    """Wait until a slot may run and run it, or wait until another process has run it."""
    ledger, attempts = scheduler.ledger, 0
    deadline = scheduler.clock() + timedelta(seconds=scheduler.jobs[name].settings.timeout)
    while True:
        now = scheduler.clock()
        scheduler.recover(now)
        slot = slot_rows.find_slot(ledger, name, time)
        if slot.status not in slot_rows.OPEN or (attempts and not wait_for_slot and slot.status == "waiting"):
            return slot
        if slot.status == "waiting" and slot.not_before <= now:
            ready = scheduler.dependencies_met(slot, now)
            concurrency = scheduler.jobs[name].settings.concurrency
            mine = slot_rows.claim_slot(ledger, slot, now, concurrency) if ready else None
            if mine is not None:
                _run_attempt(scheduler, mine)
                attempts += 1
                deadline = scheduler.clock() + timedelta(seconds=scheduler.jobs[name].settings.timeout)
                continue
        if now >= max(deadline, slot.not_before):
            shown = scheduler.jobs[name].local_time(time)
            waits = unmet_dependency(scheduler.jobs, ledger, slot) if slot.status == "waiting" else None
            what = "is running in another process" if slot.status == "running" else "waits"
            what = waits[1] if waits else f"{what}: {slot.reason}"
            raise Temporary(f"{name} {shown} {what}", next=f"d2c schedule why {name} {shown}")
        sleep(LOOK)


def _run_attempt(scheduler: Scheduler, slot: Slot) -> None:
    """Run a claimed slot; if this process is stopped, another may retry it."""
    try:
        scheduler.execute(slot)
    except (KeyboardInterrupt, SystemExit):
        scheduler.record_failure(slot, Temporary.exit_code, "it was stopped by a signal")
        raise


def _raise_failure(ledger: Ledger, slot: Slot, shown: str) -> None:
    """Raise the error of a slot: Temporary if there will be another attempt, else the class of its failure."""
    if slot.status == "waiting":
        raise Temporary(f"{shown}: {slot.reason}", next="run it again, or use --stay")
    if slot.status == "failed":
        code = find_run(ledger, slot.run_id).exit_code if slot.run_id else None
        raise (NotebookFailed if code == Temporary.exit_code else error_of_exit_code(code or 0))(
            f"{shown}: {slot.reason}",
            next=f"d2c runs show {slot.run_id}" if slot.run_id else f"d2c schedule trigger {slot.job}",
        )
