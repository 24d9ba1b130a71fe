"""Commands about schedules: what runs when, by itself."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from d2c_mlops.cli import example, json_option, main, settings, show, table
from d2c_mlops.errors import UsageError

if TYPE_CHECKING:
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.runs.schedule.jobs import Job


@example("d2c schedule list", "d2c schedule why train_demand 2026-11-23", "d2c schedule run")
@main.group()
def schedule() -> None:
    """Run notebooks by themselves: each slot of each [schedule:NAME] of settings.ini once, on record.

    \b
    at = every 15 minutes · every 6 hours    counted from local midnight; what does not divide the day is refused
         hourly at :15 · daily at 06:00 · weekdays at 06:00 · weekly on Monday 06:00
         monthly on 31 06:00                 not in months without a 31st
         monthly on the last day 06:00       in every month
         a cron expression                   as Debian's cron reads it

    An hour that the clock skips in spring is run once, when the clock has moved on, and one that it repeats in autumn once,
    by jobs that name their hours; what runs every hour or every few minutes follows the clock.

    \b
    params.NAME = text in which are filled in, on the clock of the job's zone:
         {slot} {slot:%Y-%m-%d}              when the slot is due
         {as_of}                             the last day that is over before the slot in the dataset's zone, and
                                             as_of_offset days from it
         {previous_success}                  the latest slot before that succeeded; empty when there is none
         {slot_key} {job}                    a key that is the same at every attempt; the job's name

    A notebook that declares as_of or slot_key among its parameters gets them unasked.
    """


@example("d2c schedule list", "d2c schedule list --json")
@schedule.command("list")
@json_option
def list_jobs(as_json: bool) -> None:
    """List the jobs with their next slot and what became of the last five.

    Ends with 2 and the reason where a job cannot run: a cadence that never comes, an unknown runbook, notebook, parameter or
    job.
    """
    from d2c_mlops.runs.execution import slots
    from d2c_mlops.runs.schedule.jobs import readable, refusal
    from d2c_mlops.runs.schedule.slot_parameters import troubles

    held, now = settings(), datetime.now(UTC)
    jobs, refused = readable(held)
    refused |= troubles(jobs, held)
    if refused and as_json:
        raise refusal(refused)
    ledger = ledger_here()
    known = slots.known_jobs(ledger, jobs, now)
    last = {name: found for name, found in slots.listed_all(ledger, now).items() if name in jobs}
    rows: list[dict[str, Any]] = [
        {
            "job": name,
            "run": job.settings.run,
            "at": f"{job.settings.at} ({job.settings.zone})" if job.settings.at else "",
            "on": list(job.settings.on),
            "paused": known[name][1],
            "next": job.cadence.next(now).isoformat() if job.cadence.cron and not known[name][1] else None,
            "last": [s.to_dict() for s in last.get(name, [])],
            "note": job.cadence.note,
        }
        for name, job in jobs.items()
    ]
    if as_json:
        return show(rows)
    if not rows and not refused:
        click.echo("no jobs; a section of settings.ini makes one:\n\n[schedule:train_demand]\nrun = train\n"
                   "at = weekly on Monday 06:00\nzone = Europe/Berlin\nparams.model = demand")  # fmt: skip
        return None
    marks = {"succeeded": "✓", "failed": "✗", "skipped": "-", "running": "▶", "waiting": "…"}
    shown = [
        (
            row["job"],
            row["run"],
            row["at"] or f"on new data of {', '.join(row['on'])}",
            "paused" if row["paused"] else row["next"] and jobs[row["job"]].shown(datetime.fromisoformat(row["next"])),
            " ".join(marks[s.status] for s in last.get(row["job"], [])),
        )
        for row in rows
    ]
    if shown:
        table(("job", "run", "at", "next", "last five, newest first"), shown)
    for row in rows:
        if row["note"]:
            click.echo(f"{row['job']}: {row['note']}")
    if refused:
        raise refusal(refused)
    return None


@example("d2c schedule run")
@schedule.command("run")
@json_option
def run(as_json: bool) -> None:
    """Run what is due, until Ctrl-C or SIGTERM; then finish what runs. Any number may share a ledger.

    A second Ctrl-C or SIGTERM stops what runs, too; it is tried again by whoever runs the schedule next. Changes of
    settings.ini are taken over while it runs; a job whose section is refused is named, the others go on.
    """
    from d2c_mlops.runs.schedule.schedule import Scheduler

    say = lambda text: click.echo(json.dumps({"said": text}) if as_json else text)  # noqa: E731
    scheduler = Scheduler(settings(), say=say, reload=settings)
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: scheduler.stop())
    scheduler.say(f"{len(scheduler.jobs)} job(s): {', '.join(scheduler.jobs) or 'none'}")
    scheduler.loop()


@example("d2c schedule trigger train_demand")
@schedule.command()
@click.argument("job")
@json_option
def trigger(job: str, as_json: bool) -> None:
    """Put a slot of JOB on record that is due now; a running scheduler starts it."""
    from d2c_mlops.runs.execution import slots

    known = job_here(job)
    now = datetime.now(UTC).replace(microsecond=0)
    made = slots.add(ledger_here(), job, {now: ("waiting", "triggered by hand")}, now)
    return _added(known, made, as_json)


@example("d2c schedule pause train_demand")
@schedule.command()
@click.argument("job")
@json_option
def pause(job: str, as_json: bool) -> None:
    """Let JOB rest. Slots that pass meanwhile are not made up for."""
    return _rest(job, True, as_json)


@example("d2c schedule resume train_demand")
@schedule.command()
@click.argument("job")
@json_option
def resume(job: str, as_json: bool) -> None:
    """Let JOB go on, from now."""
    return _rest(job, False, as_json)


@example("d2c schedule backfill score_demand --from 2026-10-01 --to 2026-10-31")
@schedule.command()
@click.argument("job")
@click.option("--from", "first", required=True, metavar="DATE", help="First day, on the clock of the job's zone.")
@click.option("--to", "last", required=True, metavar="DATE", help="Last day.")
@click.option("--parallel", default=1, show_default=True, help="Slots of it that run at a time, up to [d2c] run_slots.")
@json_option
def backfill(job: str, first: str, last: str, parallel: int, as_json: bool) -> None:
    """Put the slots of JOB between two days on record, those that are there already left alone."""
    from d2c_mlops.runs.execution import slots

    known = job_here(job)
    begin, end = day_of(first, known), next_day(day_of(last, known), known)
    now = datetime.now(UTC)
    found = known.cadence.slots(begin - timedelta(microseconds=1), min(end - timedelta(microseconds=1), now))
    made = slots.add(ledger_here(), job, dict.fromkeys(found, ("waiting", "backfill")), now, parallel=parallel)
    return _added(known, made, as_json)


def _rest(job: str, paused: bool, as_json: bool) -> None:
    from d2c_mlops.runs.execution import slots

    job_here(job)
    slots.pause(ledger_here(), job, paused, datetime.now(UTC))
    return show({"job": job, "paused": paused}) if as_json else click.echo(f"{job} {'rests' if paused else 'goes on'}")


def _added(job: Job, made: list[datetime], as_json: bool) -> None:
    if as_json:
        return show({"job": job.name, "slots": [slot.isoformat() for slot in made]})
    span = f", {job.shown(made[0])} to {job.shown(made[-1])}" if made else ""
    click.echo(f"{job.name}: {len(made)} slot(s) wait{span}")
    click.echo("`d2c schedule run` runs them")
    return None


def day_of(text: str, job: Job) -> datetime:
    """Return the moment at which a day begins in the job's zone."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=job.cadence.zone).astimezone(UTC)
    except ValueError:
        raise UsageError(f"{text!r} is not a day", next="write 2026-10-31") from None


def next_day(begin: datetime, job: Job) -> datetime:
    """Return the moment at which the day after begins: days have 23 to 25 hours."""
    local = begin.astimezone(job.cadence.zone).replace(tzinfo=None) + timedelta(days=1)
    return local.replace(hour=0, minute=0, tzinfo=job.cadence.zone).astimezone(UTC)


def job_here(name: str) -> Job:
    """Return a job of the settings that hold here."""
    from d2c_mlops.runs.schedule.jobs import job_of

    return job_of(settings(), name)


def ledger_here() -> Ledger:
    """Return the ledger of the settings that hold here."""
    from d2c_mlops.ledger.store import Ledger

    return Ledger.of(settings())
