"""`d2c schedule why`: the history of a job's slots, in the job's time zone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from d2c_mlops.cli import example, json_option, settings, show
from d2c_mlops.cli.schedules.schedule import configured_job, configured_ledger, job_day_start, next_day_start, schedule
from d2c_mlops.errors import UsageError

if TYPE_CHECKING:
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.runs.execution.slot_rows import Slot
    from d2c_mlops.runs.schedule.jobs import Job

DAY = re.compile(r"\d{4}-\d\d-\d\d")


@example("d2c schedule why train_demand 2026-11-23", "d2c schedule why train_demand 2026-11-23T06:00")
@schedule.command()
@click.argument("job")
@click.argument("slot", metavar="SLOT|DAY")
@json_option
def why(job: str, slot: str, as_json: bool) -> None:
    """Explain what became of a SLOT of JOB, or of the slots of a DAY.

    A slot ran, is waiting, was skipped or failed.

    A day, or a time without an offset, is in the job's time zone.
    """
    from d2c_mlops.runs.execution import slot_rows

    ledger = configured_ledger()
    definition = _job_on_record(job, ledger)
    try:
        moment = datetime.fromisoformat(slot)
    except ValueError:
        raise UsageError(
            f"{slot!r} is neither a time nor a date", next="write 2026-11-23 or 2026-11-23T05:00Z"
        ) from None
    if DAY.fullmatch(slot):
        return _why_day(definition, job_day_start(slot, definition), slot, as_json)
    moment = moment.replace(tzinfo=definition.cadence.zone) if moment.tzinfo is None else moment
    try:
        record = slot_rows.find_slot(ledger, job, moment.astimezone(UTC))
    except UsageError:
        local = moment.astimezone(definition.cadence.zone)
        day = f"d2c schedule why {job} {local:%Y-%m-%d}"
        raise UsageError(
            f"{job} has no slot {definition.local_time(moment)} on record", next=f"`{day}` shows the slots of the day"
        ) from None
    if as_json:
        return show({**record.to_dict(), "history": slot_rows.slot_history(ledger, job, record.slot)})
    _print_slot_history(definition, record)
    return None


def _why_day(job: Job, begin: datetime, day: str, as_json: bool) -> None:
    """Print the history of a day's slots in the job's zone, or why there are none."""
    from d2c_mlops.runs.execution import slot_rows

    ledger, end = configured_ledger(), next_day_start(begin, job)
    records = slot_rows.slots_between(ledger, job.name, begin, end)
    if as_json:
        rows = [
            {**record.to_dict(), "history": slot_rows.slot_history(ledger, job.name, record.slot)} for record in records
        ]
        return show({"job": job.name, "day": day, "zone": job.settings.zone, "slots": rows})
    for record in records:
        _print_slot_history(job, record)
    if records:
        return None
    due = list(job.cadence.slots(begin - timedelta(microseconds=1), end - timedelta(microseconds=1)))
    if due:
        when = (
            "not due yet"
            if due[0] > datetime.now(UTC)
            else "not on record: no scheduler was running, or the job was not known"
        )
        click.echo(f"{job.name}: {len(due)} slot(s) on {day}, from {job.local_time(due[0])}, {when}")
        return None
    note = f"; {job.cadence.note}" if job.cadence.note else ""
    when = f" ({job.settings.at}, {job.settings.zone})" if job.settings.at else ""
    click.echo(f"{job.name} has no slot on {day}{when}{note}")
    if job.cadence.cron:
        click.echo(
            f"previous slot: {job.local_time(job.cadence.last(begin))}, next slot: {job.local_time(job.cadence.next(begin))}"
        )
    return None


def _print_slot_history(job: Job, slot: Slot) -> None:
    """Print the history of a slot, in the job's zone."""
    from d2c_mlops.runs.execution import slot_rows
    from d2c_mlops.runs.schedule.dependencies import unmet_dependency
    from d2c_mlops.runs.schedule.jobs import readable_jobs

    ledger = configured_ledger()
    jobs = readable_jobs(settings())[0]
    waits = unmet_dependency(jobs, ledger, slot) if slot.status == "waiting" and slot.job in jobs else None
    click.echo(f"{job.name} {job.local_time(slot.slot)} {slot.status}: {slot.reason}{f'; {waits[1]}' if waits else ''}")
    for event in slot_rows.slot_history(ledger, job.name, slot.slot):
        where = f" on {event['host'].partition('#')[0]}, process {event['pid']}" if event["host"] else ""
        at = event["at"].astimezone(job.cadence.zone).isoformat(sep=" ", timespec="seconds")
        click.echo(f"  {at}  {event['status']}: {event['reason']}{where}")
    if slot.run_id:
        click.echo(f"run: d2c runs show {slot.run_id}")


def _job_on_record(name: str, ledger: Ledger) -> Job:
    """Return a job; with the defaults if its section is missing or invalid but its slots are on record."""
    from d2c_mlops.runs.execution import slot_rows
    from d2c_mlops.runs.schedule.cadence import never_due
    from d2c_mlops.runs.schedule.jobs import Job
    from d2c_mlops.settings import JobSettings

    try:
        return configured_job(name)
    except UsageError:
        if slot_rows.list_slots(ledger, name, 1):
            return Job(JobSettings(name), never_due())
        raise
