"""A job due at a fixed time, a clock that tests set, and the scheduler that reads it."""

from datetime import UTC, datetime, timedelta

from d2c_mlops.runs.execution import slot_rows
from d2c_mlops.runs.schedule.schedule import Scheduler
from d2c_mlops.runs.schedule.slot_run import run_job
from d2c_mlops.settings import Settings

JOB = "[schedule:report]\nrun = nb.ipynb\nat = daily at 06:00\nzone = Europe/Berlin\nparams.day = {slot:%Y-%m-%d}\nbackoff = 10\n"
NOW = datetime(2026, 11, 22, 5, 0, 30, tzinfo=UTC)
SLOT = datetime(2026, 11, 22, 5, 0, tzinfo=UTC)


class Clock:
    def __init__(self, now: datetime = NOW) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def scheduler(settings: Settings, clock: Clock, known_since: datetime = NOW - timedelta(days=1)) -> Scheduler:
    made = Scheduler(settings, say=lambda text: None, clock=clock)
    slot_rows.known_jobs(made.ledger, made.jobs, known_since)
    return made


def finish(made: Scheduler) -> None:
    for future in list(made.running):
        future.result(60)


def call(settings: Settings, when: str = "due", clock: Clock | None = None, name: str = "report", **more: object):
    clock = clock or Clock()

    def sleep(seconds: float) -> None:
        clock.now += timedelta(seconds=max(seconds, 5))

    return run_job(name, when, settings, print_line=lambda text: None, clock=clock, sleep=sleep, **more)
