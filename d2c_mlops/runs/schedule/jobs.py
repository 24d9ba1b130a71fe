"""The jobs of settings.ini: their schedule, parameters and due slots."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any

from d2c_mlops.errors import D2CError, Failure, UsageError, did_you_mean
from d2c_mlops.runs.execution.slot_rows import slot_key
from d2c_mlops.runs.schedule.cadence import Cadence, never_due, parse_cadence
from d2c_mlops.settings import JobSettings, Settings

EXAMPLE = datetime(2026, 1, 1, tzinfo=UTC)  # a slot by which templates are checked
GRACE = timedelta(seconds=90)  # a slot that is later than this was missed


@dataclass(frozen=True)
class Job:
    """A validated [schedule:NAME] section."""

    settings: JobSettings
    cadence: Cadence

    @property
    def name(self) -> str:
        return self.settings.name

    def parameters(self, slot: datetime, previous: datetime | None, as_of: date | None = None) -> dict[str, str]:
        """Return the parameters of a slot, with placeholders replaced; dates are in the job's zone."""
        zone = self.cadence.zone
        placeholders: dict[str, Any] = {
            "slot": slot.astimezone(zone),
            "job": self.name,
            "slot_key": slot_key(self.name, slot),
        }
        placeholders["as_of"] = as_of or last_complete_day(slot, zone)
        placeholders["previous_success"] = previous.astimezone(zone) if previous else ""
        return {name: fill_placeholders(text, placeholders) for name, text in self.settings.params.items()}

    def local_time(self, time: datetime) -> str:
        """Return a time in the job's zone with its offset; commands accept this format."""
        return time.astimezone(self.cadence.zone).isoformat(timespec="seconds" if time.second else "minutes")


def readable_jobs(settings: Settings) -> tuple[dict[str, Job], dict[str, list[Failure]]]:
    """Return the jobs with valid sections, and the failures of the others, by name."""
    jobs, refused = dict[str, Job](), dict[str, list[Failure]]()
    for name, job in settings.jobs.items():
        where = f"[schedule:{name}]"
        failures = [
            Failure(f"there is no job {dependency!r}{did_you_mean(dependency, settings.jobs)}", f"{where} {option}")
            for option, others in (("after", job.after), ("after_end", job.after_end), ("on", job.on))
            for dependency in others
            if dependency not in settings.jobs
        ]
        try:
            jobs[name] = Job(job, parse_cadence(job.at, job.zone) if job.at else never_due(job.zone))
            jobs[name].parameters(EXAMPLE, None)
        except D2CError as err:
            failures.append(Failure(one_line_error(err), where))
        if failures:
            refused[name] = failures
    before = {name: _other_jobs(job) for name, job in settings.jobs.items()}
    while circle := _dependency_circle(before):
        what = f"circular dependency: {' after '.join(circle)}"
        for name in circle[1:]:
            refused.setdefault(name, []).append(Failure(what, f"[schedule:{name}]"))
        before = {name: others for name, others in before.items() if name not in circle}
    remaining = [name for name in settings.jobs if name not in refused]
    while behind := [
        (name, dependency)
        for name in remaining
        for dependency in _other_jobs(settings.jobs[name])
        if dependency in refused
    ]:
        for name, dependency in behind:
            refused.setdefault(name, []).append(
                Failure(f"it depends on {dependency}, whose section is refused", f"[schedule:{name}]")
            )
        remaining = [name for name in remaining if name not in refused]
    return {name: jobs[name] for name in remaining}, {name: refused[name] for name in settings.jobs if name in refused}


def scheduled_jobs(settings: Settings) -> dict[str, Job]:
    """Return the jobs of the settings. Raises UsageError with all failures of their sections."""
    jobs, refused = readable_jobs(settings)
    if refused:
        raise refusal_error(refused)
    return jobs


def scheduled_job(settings: Settings, name: str) -> Job:
    """Return a job, even if other jobs are invalid. Raises UsageError if it is unknown or its section is refused."""
    jobs, refused = readable_jobs(settings)
    if name in refused:
        raise refusal_error({name: refused[name]})
    if name not in jobs:
        near = did_you_mean(name, jobs)
        raise UsageError(f"there is no job {name!r}{near}", next=f"settings.ini has: {', '.join(jobs) or 'none'}")
    return jobs[name]


def refusal_error(refused: Mapping[str, Sequence[Failure]]) -> UsageError:
    """Return the error that lists the jobs with refused sections."""
    failures = [failure for job_failures in refused.values() for failure in job_failures]
    what = f"the schedule has invalid jobs: {', '.join(refused)}"
    return UsageError(what, failures=failures, next="correct these sections of settings.ini")


def fill_placeholders(text: str, values: Mapping[str, Any]) -> str:
    """Replace {name} and {name:%Y-%m-%d}; other Python formatting is not available."""
    parts = []
    for plain, name, layout, conversion in string.Formatter().parse(text):
        parts.append(plain)
        if name is None:
            continue
        if name not in values or conversion:
            raise UsageError(
                f"{{{name}}} is not a known placeholder", where=text, next=f"use one of: {', '.join(values)}"
            )
        value = values[name]
        layout = layout or ("%Y-%m-%dT%H:%M:%S%z" if isinstance(value, datetime) else "%Y-%m-%d")
        parts.append(value.strftime(layout) if isinstance(value, date) else str(value))
    return "".join(parts)


def last_complete_day(time: datetime, zone: tzinfo) -> date:
    """Return the last complete day in a time zone."""
    return time.astimezone(zone).date() - timedelta(days=1)


def due_slots(job: Job, since: datetime, now: datetime, grace: timedelta = GRACE) -> dict[datetime, tuple[str, str]]:
    """Return the slots between two times with their status; missed slots follow the job's policy."""
    slots = list(job.cadence.slots(since, now))
    decided: dict[datetime, tuple[str, str]] = {}
    for slot in slots:
        missed = now - slot > grace
        if not missed or job.settings.missed == "all":
            decided[slot] = ("waiting", "due" if not missed else "missed, run late")
        elif job.settings.missed == "once" and slot == slots[-1]:
            decided[slot] = ("waiting", "missed, the latest is run late")
        else:
            decided[slot] = ("skipped", f"missed while no scheduler was running (missed = {job.settings.missed})")
    return decided


def one_line_error(err: D2CError) -> str:
    """Return the message of an error, its failures and the next command in one line."""
    return str(err).replace("\n  - ", "; ").replace("\n  next: ", "; next: ").replace("\n", " ")


def _other_jobs(job: JobSettings) -> tuple[str, ...]:
    return (*job.preceding, *job.on)


def _dependency_circle(before: Mapping[str, tuple[str, ...]]) -> list[str] | None:
    """Return names with a circular dependency; None if there is none."""
    visited: set[str] = set()
    for start in before:
        path: list[str] = []
        stack = [(start, 0)]
        while stack:
            name, depth = stack.pop()
            del path[depth:]
            if name in path:
                return [*path[path.index(name) :], name]
            path.append(name)
            if name not in visited:
                stack += [(dependency, depth + 1) for dependency in before.get(name, ())]
            visited.add(name)
    return None
