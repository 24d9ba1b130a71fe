"""What the targets share: where the project lies there, what is said about a job, which jobs belong together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from d2c_mlops.runs.schedule.jobs import Job

MARK = "Written by `d2c schedule export`"
FINAL = (1, 2, 3, 4, 5)  # exit codes after which another attempt does not help; 75 and a kill are left
START = 120  # seconds for a process to start, beside its run


@dataclass(frozen=True)
class Place:
    """What the files have to know of the place where they will be used."""

    command: str  # that starts d2c there
    root: Path  # the folder of settings.ini there
    image: str  # for containers
    made_at: datetime  # with a time zone


@dataclass(frozen=True)
class ExportTarget:
    """A scheduler that files can be written for."""

    name: str
    about: str
    files: Callable[[Mapping[str, Job], Place], dict[str, str]]


def due(job: Job, place: Place, *more: str) -> str:
    """Return the command that runs what is due of a job."""
    return " ".join((place.command, "run", job.name, "--slot", "due", *more))


def longest(job: Job) -> int:
    """Return the seconds that a slot may take: all attempts, and the waiting between them."""
    each = job.settings
    waits = sum(each.backoff * 2**n for n in range(each.retries))
    return int((each.retries + 1) * (each.timeout + START) + waits)


def header(lines: Iterable[str] = ()) -> str:
    """Return the head of a file: where it is from and what is left to the ledger or cannot be said there."""
    always = (
        f"{MARK}; export again after a change of settings.ini.",
        "`d2c run JOB --slot` claims a slot in the ledger before it runs it, so that this scheduler, another one and",
        "`d2c schedule run` never run a slot twice; one that was done already ends with 0. Parameters, the slot's dates",
        "in them and the order of jobs are read from settings.ini and the ledger when it runs.",
    )
    return "".join(f"# {line}".rstrip() + "\n" for line in (*always, *lines)) + "\n"


def about(job: Job) -> list[str]:
    """Return what a job is, in lines for a comment."""
    each = job.settings
    lines = [
        f"{job.name}: {each.run}, {each.at} ({each.zone})",
        f"{each.retries} further attempt(s) after temporary failures, from {each.backoff:g} s on, doubled; "
        f"timeout {each.timeout:g} s; missed slots: {each.missed}",
    ]
    lines += [job.cadence.note] if job.cadence.note else []
    return [*lines, f"after {', '.join(each.after)}: waits for their slots"] if each.after else lines


def together(jobs: Mapping[str, Job]) -> list[list[Job]]:
    """Return the jobs in groups that share a cadence and hang together by `after`, forerunners first."""
    groups: dict[str, list[str]] = {name: [name] for name in jobs}
    for name, job in jobs.items():
        for other in job.settings.after:
            if other in jobs and jobs[other].cadence == job.cadence and groups[other] is not groups[name]:
                groups[other] += groups[name]
                groups.update(dict.fromkeys(groups[name], groups[other]))
    whole = {id(group): group for group in groups.values()}
    return [_in_order([jobs[name] for name in group]) for group in whole.values()]


def _in_order(jobs: list[Job]) -> list[Job]:
    left, ordered = list(jobs), []
    while left:
        names = {job.name for job in left}
        ready = [job for job in left if not names & set(job.settings.after)] or left
        ordered += ready
        left = [job for job in left if job not in ready]
    return ordered
