"""Commands for schedules: list, run, trigger, pause, resume, backfill."""

from __future__ import annotations

import json
import signal
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from d2c_mlops.cli import example, json_option, main, section, settings, show, table
from d2c_mlops.errors import UsageError

if TYPE_CHECKING:
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.runs.schedule.jobs import Job
    from d2c_mlops.settings import Settings


@example("d2c schedule list", "d2c schedule why train_demand 2026-11-23", "d2c schedule run")
@section("Operate")
@main.group()
def schedule() -> None:
    """Run notebooks on a schedule.

    Each slot of each [schedule:NAME] in settings.ini runs once and is recorded.

    \b
    at = every 15 minutes · every 6 hours    counted from local midnight; must divide the day evenly
         hourly at :15 · daily at 06:00 · weekdays at 06:00 · weekly on Monday 06:00
         monthly on 31 06:00                 not in months without a 31st
         monthly on the last day 06:00       in every month
         a cron expression                   with the rules of Debian's cron

    Daylight saving: a job at a fixed hour runs once, even if the clock skips that hour (it runs right after) or repeats
    it. Jobs that run hourly or every few minutes follow the clock.

    \b
    params.NAME = text with placeholders (times are in the job's zone):
         {slot} {slot:%Y-%m-%d}              the time at which the slot is due
         {as_of}                             the last complete day before the slot in the dataset's zone, plus
                                             as_of_offset days
         {previous_success}                  the last slot before it that succeeded; empty if there is none
         {slot_key} {job}                    a key that is the same at every attempt; the job's name

    A notebook that declares as_of or slot_key as a parameter gets them automatically.
    """


@example("d2c schedule list", "d2c schedule list --json")
@schedule.command("list")
@json_option
def list_jobs(as_json: bool) -> None:
    """List the jobs with their next slot and their last five slots.

    Ends with exit code 2 and the reason if a job cannot run: its schedule has no dates, or a runbook, notebook, parameter or
    job is unknown.
    """
    from d2c_mlops.runs.execution import slot_rows
    from d2c_mlops.runs.schedule.jobs import readable_jobs, refusal_error
    from d2c_mlops.runs.schedule.slot_parameters import notebook_failures

    config, now = settings(), datetime.now(UTC)
    jobs, refused = readable_jobs(config)
    refused |= notebook_failures(jobs, config)
    if refused and as_json:
        raise refusal_error(refused)
    ledger = configured_ledger()
    states = slot_rows.known_jobs(ledger, jobs, now)
    last = {name: recent for name, recent in slot_rows.list_all_slots(ledger, now).items() if name in jobs}
    rows: list[dict[str, Any]] = [
        {
            "job": name,
            "run": job.settings.run,
            "at": f"{job.settings.at} ({job.settings.zone})" if job.settings.at else "",
            "on": list(job.settings.on),
            "paused": states[name][1],
            "next": job.cadence.next(now).isoformat() if job.cadence.cron and not states[name][1] else None,
            "last": [s.to_dict() for s in last.get(name, [])],
            "note": job.cadence.note or retraining_note(job, config),
        }
        for name, job in jobs.items()
    ]
    if as_json:
        return show(rows)
    if not rows and not refused:
        click.echo("no jobs; add a section to settings.ini:\n\n[schedule:train_demand]\nrun = train\n"
                   "at = weekly on Monday 06:00\nzone = Europe/Berlin\nparams.model = demand")  # fmt: skip
        return None
    marks = {"succeeded": "✓", "failed": "✗", "skipped": "-", "running": "▶", "waiting": "…"}
    shown = [
        (
            row["job"],
            row["run"],
            row["at"] or f"on new data of {', '.join(row['on'])}",
            "paused"
            if row["paused"]
            else row["next"] and jobs[row["job"]].local_time(datetime.fromisoformat(row["next"])),
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
        raise refusal_error(refused)
    return None


@example("d2c schedule run")
@schedule.command("run")
@json_option
def run(as_json: bool) -> None:
    """Start the scheduler: run due slots until Ctrl-C or SIGTERM.

    Each minute it also writes its heartbeat, escalates alerts and sends the messages about them that are due. It waits for active
    runs before it ends. Several schedulers may share a ledger.

    A second Ctrl-C or SIGTERM also stops active runs; the next scheduler retries them. Changes to settings.ini are applied without a
    restart. Jobs with an invalid section are reported, and the other jobs continue.
    """
    from d2c_mlops.operations.upkeep import Upkeep
    from d2c_mlops.runs.schedule.schedule import Scheduler

    say = lambda text: click.echo(json.dumps({"said": text}) if as_json else text)  # noqa: E731
    scheduler = Scheduler(settings(), say=say, reload=settings, upkeep=Upkeep(say))
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(signal_number, lambda *_: scheduler.stop())
    scheduler.say(f"{len(scheduler.jobs)} job(s): {', '.join(scheduler.jobs) or 'none'}")
    scheduler.loop()


@example("d2c schedule trigger train_demand")
@schedule.command()
@click.argument("job")
@json_option
def trigger(job: str, as_json: bool) -> None:
    """Add a slot of JOB that is due now; a running scheduler starts it."""
    from d2c_mlops.runs.execution import slot_rows

    definition = configured_job(job)
    now = datetime.now(UTC).replace(microsecond=0)
    added = slot_rows.add_slots(configured_ledger(), job, {now: ("waiting", "triggered by hand")}, now)
    return _show_added(definition, added, as_json)


@example("d2c schedule pause train_demand")
@schedule.command()
@click.argument("job")
@json_option
def pause(job: str, as_json: bool) -> None:
    """Pause JOB. Slots that are due during the pause are not run later."""
    return _set_paused(job, True, as_json)


@example("d2c schedule resume train_demand")
@schedule.command()
@click.argument("job")
@json_option
def resume(job: str, as_json: bool) -> None:
    """Resume a paused JOB, starting with its next slot."""
    return _set_paused(job, False, as_json)


@example("d2c schedule backfill score_demand --from 2026-10-01 --to 2026-10-31")
@schedule.command()
@click.argument("job")
@click.option("--from", "first", required=True, metavar="DATE", help="First day, in the job's time zone.")
@click.option("--to", "last", required=True, metavar="DATE", help="Last day.")
@click.option(
    "--parallel", default=1, show_default=True, help="Number of slots to run in parallel, up to [d2c] run_slots."
)
@json_option
def backfill(job: str, first: str, last: str, parallel: int, as_json: bool) -> None:
    """Add the slots of JOB between two days. Existing slots are not changed."""
    from d2c_mlops.runs.execution import slot_rows

    definition = configured_job(job)
    begin, end = job_day_start(first, definition), next_day_start(job_day_start(last, definition), definition)
    now = datetime.now(UTC)
    due = definition.cadence.slots(begin - timedelta(microseconds=1), min(end - timedelta(microseconds=1), now))
    added = slot_rows.add_slots(
        configured_ledger(), job, dict.fromkeys(due, ("waiting", "backfill")), now, parallel=parallel
    )
    return _show_added(definition, added, as_json)


def _set_paused(job: str, paused: bool, as_json: bool) -> None:
    from d2c_mlops.runs.execution import slot_rows

    configured_job(job)
    slot_rows.pause_job(configured_ledger(), job, paused, datetime.now(UTC))
    return (
        show({"job": job, "paused": paused})
        if as_json
        else click.echo(f"{job} {'is paused' if paused else 'is resumed'}")
    )


def _show_added(job: Job, added: list[datetime], as_json: bool) -> None:
    if as_json:
        return show({"job": job.name, "slots": [slot.isoformat() for slot in added]})
    span = f", {job.local_time(added[0])} to {job.local_time(added[-1])}" if added else ""
    click.echo(f"{job.name}: {len(added)} slot(s) added{span}")
    click.echo("`d2c schedule run` runs them")
    return None


def job_day_start(text: str, job: Job) -> datetime:
    """Return the time at which a day begins in the job's zone, in UTC."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=job.cadence.zone).astimezone(UTC)
    except ValueError:
        raise UsageError(f"{text!r} is not a day", next="write 2026-10-31") from None


def next_day_start(begin: datetime, job: Job) -> datetime:
    """Return the time at which the next day begins, in UTC: days have 23 to 25 hours."""
    local = begin.astimezone(job.cadence.zone).replace(tzinfo=None) + timedelta(days=1)
    return local.replace(hour=0, minute=0, tzinfo=job.cadence.zone).astimezone(UTC)


def retraining_note(job: Job, config: Settings) -> str:
    """Return when a job of the runbook retrain trains its model; empty for other jobs."""
    model = job.settings.params.get("model", "")
    if job.settings.run != "retrain" or not model:
        return ""
    from d2c_mlops.operations.retraining.known_state import configured_policy

    policy = configured_policy(model, config)
    release = config.model(model).release
    return f"retrains {model} {policy.text}, at most every {policy.cool_down_days:g} days, then release = {release}"


def configured_job(name: str) -> Job:
    """Return a job of the current settings."""
    from d2c_mlops.runs.schedule.jobs import scheduled_job

    return scheduled_job(settings(), name)


def configured_ledger() -> Ledger:
    """Return the ledger of the current settings."""
    from d2c_mlops.ledger.store import Ledger

    return Ledger.of(settings())
