"""Shared by all targets: location of the project, description of jobs, groups of jobs."""

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
class ExportContext:
    """The location where the files will be used."""

    command: str  # that starts d2c there
    root: Path  # the folder of settings.ini there
    image: str  # for containers
    made_at: datetime  # with a time zone


@dataclass(frozen=True)
class ExportTarget:
    """A scheduler for which files can be written."""

    name: str
    about: str
    files: Callable[[Mapping[str, Job], ExportContext], dict[str, str]]


def due_command(job: Job, context: ExportContext, *options: str) -> str:
    """Return the command that runs a job's due slots."""
    return " ".join((context.command, "run", job.name, "--slot", "due", *options))


def longest_seconds(job: Job) -> int:
    """Return the maximum seconds of a slot: all attempts and the delays between them."""
    options = job.settings
    waits = sum(options.backoff * 2**n for n in range(options.retries))
    return int((options.retries + 1) * (options.timeout + START) + waits)


def head_comment(lines: Iterable[str] = ()) -> str:
    """Return the header of a file: its origin, and rules that the ledger applies or that the target cannot express."""
    always = (
        f"{MARK}; export again after a change of settings.ini.",
        "`d2c run JOB --slot` claims a slot in the ledger before it runs it, so that this scheduler, another one and",
        "`d2c schedule run` never run a slot twice; one that was done already ends with 0. Parameters, the slot's dates",
        "in them and the order of jobs are read from settings.ini and the ledger when it runs.",
    )
    return "".join(f"# {line}".rstrip() + "\n" for line in (*always, *lines)) + "\n"


def job_description(job: Job) -> list[str]:
    """Return the description of a job as comment lines."""
    options = job.settings
    lines = [
        f"{job.name}: {options.run}, {options.at} ({options.zone})",
        f"{options.retries} further attempt(s) after temporary failures, after {options.backoff:g} s, doubled each time; "
        f"timeout {options.timeout:g} s; missed slots: {options.missed}",
    ]
    lines += [job.cadence.note] if job.cadence.note else []
    lines += [f"after {', '.join(options.after)}: waits for their slots"] if options.after else []
    lines += [f"after the end of {', '.join(options.after_end)}, also if they failed"] if options.after_end else []
    return lines


def dependent_groups(jobs: Mapping[str, Job]) -> list[list[Job]]:
    """Return the jobs in groups that share a cadence and depend on each other by `after`, dependencies first."""
    groups: dict[str, list[str]] = {name: [name] for name in jobs}
    for name, job in jobs.items():
        for dependency in job.settings.preceding:
            if (
                dependency in jobs
                and jobs[dependency].cadence == job.cadence
                and groups[dependency] is not groups[name]
            ):
                groups[dependency] += groups[name]
                groups.update(dict.fromkeys(groups[name], groups[dependency]))
    whole = {id(group): group for group in groups.values()}
    return [_in_order([jobs[name] for name in group]) for group in whole.values()]


def _in_order(jobs: list[Job]) -> list[Job]:
    remaining, ordered = list(jobs), []
    while remaining:
        names = {job.name for job in remaining}
        ready = [job for job in remaining if not names & set(job.settings.preceding)] or remaining
        ordered += ready
        remaining = [job for job in remaining if job not in ready]
    return ordered
