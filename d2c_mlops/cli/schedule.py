"""Commands about schedules: what runs when, by itself."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from . import example, json_option, main, settings, show, table

if TYPE_CHECKING:
    from ..ledger.store import Ledger
    from ..runs.jobs import Job


@main.group()
def schedule() -> None:
    """Run notebooks by themselves: each slot of each [schedule:NAME] of settings.ini once, on record."""


@example("d2c schedule list", "d2c schedule list --json")
@schedule.command("list")
@json_option
def list_jobs(as_json: bool) -> None:
    """List the jobs with their next slot and what became of the last five."""
    from ..ledger.store import Ledger
    from ..runs import slots
    from ..runs.jobs import jobs_of

    held, now = settings(), datetime.now(UTC)
    ledger = Ledger.of(held)
    jobs = jobs_of(held)
    known = slots.known_jobs(ledger, jobs, now)
    found = slots.listed_all(ledger)
    rows: list[dict[str, Any]] = []
    lasts = []
    for name, job in jobs.items():
        last = found.get(name, [])
        lasts.append(last)
        rows.append(
            {
                "job": name,
                "run": job.settings.run,
                "at": f"{job.settings.at} ({job.settings.zone})" if job.settings.at else "",
                "on": list(job.settings.on),
                "paused": known[name][1],
                "next": job.cadence.next(now).isoformat() if job.cadence.cron and not known[name][1] else None,
                "last": [s.to_dict() for s in last],
            }
        )
    if as_json:
        return show(rows)
    if not rows:
        click.echo("no jobs; a section of settings.ini makes one:\n\n[schedule:train_demand]\nrun = train\n"
                   "at = weekly on Monday 06:00\nzone = Europe/Berlin\nparams.model = demand")  # fmt: skip
        return None
    marks = {"succeeded": "✓", "failed": "✗", "skipped": "-", "running": "▶", "waiting": "…"}
    shown = [
        (
            row["job"],
            row["run"],
            row["at"] or f"on new data of {', '.join(row['on'])}",
            "paused" if row["paused"] else row["next"],
            " ".join(marks[s.status] for s in last),
        )
        for row, last in zip(rows, lasts, strict=True)
    ]
    table(("job", "run", "at", "next", "last five, newest first"), shown)
    return None


@example("d2c schedule run")
@schedule.command("run")
@json_option
def run(as_json: bool) -> None:
    """Run what is due, until Ctrl-C or SIGTERM; then finish what runs. Any number may share a ledger.

    A second Ctrl-C or SIGTERM stops what runs, too; it is tried again by whoever runs the schedule next. Changes of
    settings.ini are taken over while it runs.
    """
    from ..runs.schedule import Scheduler

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
    from ..runs import slots

    _job(job)
    now = datetime.now(UTC).replace(microsecond=0)
    made = slots.add(_ledger(), job, {now: ("waiting", "triggered by hand")}, now)
    return _added(job, made, as_json)


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
    from ..runs import slots

    known = _job(job)
    begin, end = (_day(text, known) for text in (first, last))
    now = datetime.now(UTC)
    found = known.cadence.slots(begin - timedelta(microseconds=1), min(end + timedelta(days=1), now))
    made = slots.add(_ledger(), job, dict.fromkeys(found, ("waiting", "backfill")), now, parallel=parallel)
    return _added(job, made, as_json)


@example("d2c schedule why train_demand 2026-11-23T05:00Z")
@schedule.command()
@click.argument("job")
@click.argument("slot")
@json_option
def why(job: str, slot: str, as_json: bool) -> None:
    """Say why a SLOT of JOB ran, waits, was skipped or failed."""
    from ..runs import slots

    try:
        moment = datetime.fromisoformat(slot)
    except ValueError:
        raise UsageError(f"{slot!r} is not a moment", next="write 2026-11-23T05:00Z") from None
    known = _job(job)
    moment = moment.replace(tzinfo=known.cadence.zone) if moment.tzinfo is None else moment
    found = slots.find(_ledger(), job, moment.astimezone(UTC))
    told = slots.history(_ledger(), job, found.slot)
    if as_json:
        return show({**found.to_dict(), "history": told})
    click.echo(f"{job} {found.slot.isoformat()} {found.status}: {found.reason}")
    for event in told:
        where = f" on {event['host'].partition('#')[0]}, process {event['pid']}" if event["host"] else ""
        click.echo(f"  {event['at']:%Y-%m-%d %H:%M:%S}Z  {event['status']}: {event['reason']}{where}")
    if found.run_id:
        click.echo(f"run: d2c runs show {found.run_id}")
    return None


def _rest(job: str, paused: bool, as_json: bool) -> None:
    from ..runs import slots

    _job(job)
    slots.pause(_ledger(), job, paused, datetime.now(UTC))
    return show({"job": job, "paused": paused}) if as_json else click.echo(f"{job} {'rests' if paused else 'goes on'}")


def _added(job: str, made: list[datetime], as_json: bool) -> None:
    texts = [slot.isoformat() for slot in made]
    if as_json:
        return show({"job": job, "slots": texts})
    click.echo(f"{job}: {len(texts)} slot(s) wait" + (f", {texts[0]} to {texts[-1]}" if texts else ""))
    click.echo("`d2c schedule run` runs them")
    return None


def _day(text: str, job: Job) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=job.cadence.zone).astimezone(UTC)
    except ValueError:
        raise UsageError(f"{text!r} is not a day", next="write 2026-10-31") from None


def _job(name: str) -> Job:
    from ..runs.jobs import jobs_of

    known = jobs_of(settings())
    if name not in known:
        raise UsageError(f"there is no job {name!r}", next=f"settings.ini has: {', '.join(known) or 'none'}")
    return known[name]


def _ledger() -> Ledger:
    from ..ledger.store import Ledger

    return Ledger.of(settings())
