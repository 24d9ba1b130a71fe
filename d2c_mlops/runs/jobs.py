"""The jobs that settings.ini names: what runs when, with which parameters, and which of its slots are due."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ..errors import D2CError, Failure, UsageError
from ..settings import JobSettings, Settings
from .cadence import Cadence, cadence, never
from .execute import checked

GRACE = timedelta(seconds=90)  # a slot that is later than this was missed


@dataclass(frozen=True)
class Job:
    """A [schedule:NAME] section that was read and checked."""

    settings: JobSettings
    cadence: Cadence

    @property
    def name(self) -> str:
        return self.settings.name

    def parameters(self, slot: datetime, previous: datetime | None) -> dict[str, str]:
        """Return the parameters of a slot, dates filled in on the clock of the job's zone."""
        zone = self.cadence.zone
        known = {"slot": slot.astimezone(zone), "job": self.name}
        known["previous_success"] = previous.astimezone(zone) if previous else ""
        return {name: fill(text, known) for name, text in self.settings.params.items()}


def jobs_of(settings: Settings) -> dict[str, Job]:
    """Return the jobs that the settings name. Raises UsageError with everything that is wrong with their sections."""
    found, failures = {}, []
    for name, job in settings.jobs.items():
        try:
            found[name] = Job(job, cadence(job.at, job.zone) if job.at else never(job.zone))
            found[name].parameters(datetime(2026, 1, 1, tzinfo=UTC), None)
        except D2CError as err:
            failures.append(Failure(str(err).replace("\n", " "), f"[schedule:{name}]"))
        for option, others in (("after", job.after), ("on", job.on)):
            unknown = [other for other in others if other not in settings.jobs]
            failures += [Failure(f"there is no job {other!r}", f"[schedule:{name}] {option}") for other in unknown]
    if circle := _circle({name: (*job.after, *job.on) for name, job in settings.jobs.items()}):
        failures.append(Failure(f"waits for itself: {' after '.join(circle)}", f"[schedule:{circle[0]}]"))
    if failures:
        raise UsageError("the schedule cannot be read", failures=failures, next="correct settings.ini")
    return found


def troubles(jobs: Mapping[str, Job], settings: Settings) -> list[Failure]:
    """Return what would stop the jobs' notebooks today: a missing file, a parameter that does not fit."""
    failures = []
    for name, job in jobs.items():
        try:
            checked(job.settings.run, job.parameters(datetime(2026, 1, 1, tzinfo=UTC), None), settings)
        except D2CError as err:
            failures.append(Failure(str(err).replace("\n", " "), f"[schedule:{name}]"))
    return failures


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
        layout = layout or "%Y-%m-%dT%H:%M:%S%z"
        parts.append(value.strftime(layout) if isinstance(value, datetime) else str(value))
    return "".join(parts)


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
