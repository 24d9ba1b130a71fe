"""The jobs that settings.ini names: what runs when, with which parameters, and which of its slots are due."""

from __future__ import annotations

import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from difflib import get_close_matches
from typing import Any

from d2c_mlops.errors import D2CError, Failure, UsageError
from d2c_mlops.runs.execution.slots import slot_key
from d2c_mlops.runs.schedule.cadence import Cadence, cadence, never
from d2c_mlops.settings import JobSettings, Settings

EXAMPLE = datetime(2026, 1, 1, tzinfo=UTC)  # a slot by which templates are checked
GRACE = timedelta(seconds=90)  # a slot that is later than this was missed


@dataclass(frozen=True)
class Job:
    """A [schedule:NAME] section that was read and checked."""

    settings: JobSettings
    cadence: Cadence

    @property
    def name(self) -> str:
        return self.settings.name

    def parameters(self, slot: datetime, previous: datetime | None, as_of: date | None = None) -> dict[str, str]:
        """Return the parameters of a slot, dates filled in on the clock of the job's zone."""
        zone = self.cadence.zone
        known: dict[str, Any] = {"slot": slot.astimezone(zone), "job": self.name, "slot_key": slot_key(self.name, slot)}
        known["as_of"] = as_of or last_complete_day(slot, zone)
        known["previous_success"] = previous.astimezone(zone) if previous else ""
        return {name: fill(text, known) for name, text in self.settings.params.items()}

    def shown(self, moment: datetime) -> str:
        """Return a moment on the clock of the job's zone, with its offset; commands read it back."""
        return moment.astimezone(self.cadence.zone).isoformat(timespec="seconds" if moment.second else "minutes")


def readable(settings: Settings) -> tuple[dict[str, Job], dict[str, list[Failure]]]:
    """Return the jobs whose sections can be read, and why the others are refused, by name."""
    jobs, refused = dict[str, Job](), dict[str, list[Failure]]()
    for name, job in settings.jobs.items():
        where = f"[schedule:{name}]"
        failures = [
            Failure(f"there is no job {other!r}{_near(other, settings.jobs)}", f"{where} {option}")
            for option, others in (("after", job.after), ("on", job.on))
            for other in others
            if other not in settings.jobs
        ]
        try:
            jobs[name] = Job(job, cadence(job.at, job.zone) if job.at else never(job.zone))
            jobs[name].parameters(EXAMPLE, None)
        except D2CError as err:
            failures.append(Failure(in_a_line(err), where))
        if failures:
            refused[name] = failures
    before = {name: (*job.after, *job.on) for name, job in settings.jobs.items()}
    while circle := _circle(before):
        what = f"waits for itself: {' after '.join(circle)}"
        for name in circle[1:]:
            refused.setdefault(name, []).append(Failure(what, f"[schedule:{name}]"))
        before = {name: others for name, others in before.items() if name not in circle}
    left = [name for name in settings.jobs if name not in refused]
    while behind := [(name, other) for name in left for other in _others(settings.jobs[name]) if other in refused]:
        for name, other in behind:
            refused.setdefault(name, []).append(
                Failure(f"{other}, which it waits for, is refused", f"[schedule:{name}]")
            )
        left = [name for name in left if name not in refused]
    return {name: jobs[name] for name in left}, {name: refused[name] for name in settings.jobs if name in refused}


def jobs_of(settings: Settings) -> dict[str, Job]:
    """Return the jobs that the settings name. Raises UsageError with everything that is wrong with their sections."""
    jobs, refused = readable(settings)
    if refused:
        raise refusal(refused)
    return jobs


def job_of(settings: Settings, name: str) -> Job:
    """Return a job, whatever is wrong with others. Raises UsageError where there is none or its section is refused."""
    jobs, refused = readable(settings)
    if name in refused:
        raise refusal({name: refused[name]})
    if name not in jobs:
        near = _near(name, jobs)
        raise UsageError(f"there is no job {name!r}{near}", next=f"settings.ini has: {', '.join(jobs) or 'none'}")
    return jobs[name]


def refusal(refused: Mapping[str, Sequence[Failure]]) -> UsageError:
    """Return the error that names the jobs whose sections are refused."""
    failures = [failure for each in refused.values() for failure in each]
    what = f"the schedule cannot be read whole, refused: {', '.join(refused)}"
    return UsageError(what, failures=failures, next="correct these sections of settings.ini")


def fill(text: str, known: Mapping[str, Any]) -> str:
    """Fill {name} and {name:%Y-%m-%d} in; nothing else of Python's formatting can be reached."""
    parts = []
    for plain, name, layout, conversion in string.Formatter().parse(text):
        parts.append(plain)
        if name is None:
            continue
        if name not in known or conversion:
            raise UsageError(f"{{{name}}} is not known", where=text, next=f"use one of: {', '.join(known)}")
        value = known[name]
        layout = layout or ("%Y-%m-%dT%H:%M:%S%z" if isinstance(value, datetime) else "%Y-%m-%d")
        parts.append(value.strftime(layout) if isinstance(value, date) else str(value))
    return "".join(parts)


def last_complete_day(moment: datetime, zone: tzinfo) -> date:
    """Return the last day that is over in a zone."""
    return moment.astimezone(zone).date() - timedelta(days=1)


def due(job: Job, since: datetime, now: datetime, grace: timedelta = GRACE) -> dict[datetime, tuple[str, str]]:
    """Return the slots between two moments with what is to become of them: what was missed goes by the job's policy."""
    found = list(job.cadence.slots(since, now))
    decided: dict[datetime, tuple[str, str]] = {}
    for slot in found:
        missed = now - slot > grace
        if not missed or job.settings.missed == "all":
            decided[slot] = ("waiting", "due" if not missed else "missed, made up for")
        elif job.settings.missed == "once" and slot == found[-1]:
            decided[slot] = ("waiting", "missed, the latest is made up for")
        else:
            decided[slot] = ("skipped", f"missed while nothing ran (missed = {job.settings.missed})")
    return decided


def in_a_line(err: D2CError) -> str:
    """Return what an error says, its failures and the next command in a line."""
    return str(err).replace("\n  - ", "; ").replace("\n  next: ", "; next: ").replace("\n", " ")


def _others(job: JobSettings) -> tuple[str, ...]:
    return (*job.after, *job.on)


def _near(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]!r}?" if near else ""


def _circle(before: Mapping[str, tuple[str, ...]]) -> list[str] | None:
    """Return names that wait for each other in a circle, None when there are none."""
    done: set[str] = set()
    for start in before:
        path: list[str] = []
        left = [(start, 0)]
        while left:
            name, depth = left.pop()
            del path[depth:]
            if name in path:
                return [*path[path.index(name) :], name]
            path.append(name)
            if name not in done:
                left += [(other, depth + 1) for other in before.get(name, ())]
            done.add(name)
    return None
