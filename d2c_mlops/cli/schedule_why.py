"""`d2c schedule why`: what became of the slots of a job, on the clock of its zone."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from d2c_mlops.cli import example, json_option, settings, show
from d2c_mlops.cli.schedule import day_of, job_here, ledger_here, next_day, schedule
from d2c_mlops.errors import UsageError

if TYPE_CHECKING:
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.runs.execution.slots import Slot
    from d2c_mlops.runs.schedule.jobs import Job

DAY = re.compile(r"\d{4}-\d\d-\d\d")


@example("d2c schedule why train_demand 2026-11-23", "d2c schedule why train_demand 2026-11-23T06:00")
@schedule.command()
@click.argument("job")
@click.argument("slot", metavar="SLOT|DAY")
@json_option
def why(job: str, slot: str, as_json: bool) -> None:
    """Say why a SLOT of JOB, or those of a DAY, ran, wait, were skipped or failed.

    A time without an offset, and a day, are on the clock of the job's zone.
    """
    from d2c_mlops.runs.execution import slots

    ledger = ledger_here()
    known = _job_on_record(job, ledger)
    try:
        moment = datetime.fromisoformat(slot)
    except ValueError:
        raise UsageError(
            f"{slot!r} is neither a moment nor a day", next="write 2026-11-23 or 2026-11-23T05:00Z"
        ) from None
    if DAY.fullmatch(slot):
        return _why_day(known, day_of(slot, known), slot, as_json)
    moment = moment.replace(tzinfo=known.cadence.zone) if moment.tzinfo is None else moment
    try:
        found = slots.find(ledger, job, moment.astimezone(UTC))
    except UsageError:
        local = moment.astimezone(known.cadence.zone)
        day = f"d2c schedule why {job} {local:%Y-%m-%d}"
        raise UsageError(
            f"{job} has no slot {known.shown(moment)} on record", next=f"`{day}` shows those of the day"
        ) from None
    if as_json:
        return show({**found.to_dict(), "history": slots.history(ledger, job, found.slot)})
    _explain(known, found)
    return None


def _why_day(job: Job, begin: datetime, day: str, as_json: bool) -> None:
    """Say what became of the slots of a day of the job's zone, or why there is none."""
    from d2c_mlops.runs.execution import slots

    ledger, end = ledger_here(), next_day(begin, job)
    found = slots.between(ledger, job.name, begin, end)
    if as_json:
        told = [{**each.to_dict(), "history": slots.history(ledger, job.name, each.slot)} for each in found]
        return show({"job": job.name, "day": day, "zone": job.settings.zone, "slots": told})
    for each in found:
        _explain(job, each)
    if found:
        return None
    due = list(job.cadence.slots(begin - timedelta(microseconds=1), end - timedelta(microseconds=1)))
    if due:
        when = (
            "not due yet"
            if due[0] > datetime.now(UTC)
            else "not on record: nothing ran the schedule, or it was not known"
        )
        click.echo(f"{job.name}: {len(due)} slot(s) on {day}, from {job.shown(due[0])}, {when}")
        return None
    note = f"; {job.cadence.note}" if job.cadence.note else ""
    when = f" ({job.settings.at}, {job.settings.zone})" if job.settings.at else ""
    click.echo(f"{job.name} has no slot on {day}{when}{note}")
    if job.cadence.cron:
        click.echo(
            f"the one before: {job.shown(job.cadence.last(begin))}, the next: {job.shown(job.cadence.next(begin))}"
        )
    return None


def _explain(job: Job, slot: Slot) -> None:
    """Print what happened to a slot, on the clock of the job's zone."""
    from d2c_mlops.runs.execution import slots
    from d2c_mlops.runs.schedule.jobs import readable
    from d2c_mlops.runs.schedule.waits import waits_for

    ledger = ledger_here()
    jobs = readable(settings())[0]
    waits = waits_for(jobs, ledger, slot) if slot.status == "waiting" and slot.job in jobs else None
    click.echo(f"{job.name} {job.shown(slot.slot)} {slot.status}: {slot.reason}{f'; {waits[1]}' if waits else ''}")
    for event in slots.history(ledger, job.name, slot.slot):
        where = f" on {event['host'].partition('#')[0]}, process {event['pid']}" if event["host"] else ""
        at = event["at"].astimezone(job.cadence.zone).isoformat(sep=" ", timespec="seconds")
        click.echo(f"  {at}  {event['status']}: {event['reason']}{where}")
    if slot.run_id:
        click.echo(f"run: d2c runs show {slot.run_id}")


def _job_on_record(name: str, ledger: Ledger) -> Job:
    """Return a job; one whose section is gone or refused, but whose slots are on record, with the defaults."""
    from d2c_mlops.runs.execution import slots
    from d2c_mlops.runs.schedule.cadence import never
    from d2c_mlops.runs.schedule.jobs import Job
    from d2c_mlops.settings import JobSettings

    try:
        return job_here(name)
    except UsageError:
        if slots.listed(ledger, name, 1):
            return Job(JobSettings(name), never())
        raise
