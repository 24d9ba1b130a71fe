"""The scheduler: finds the slots that are due, claims them, runs them, and takes over what others left."""

from __future__ import annotations

import string
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from ..errors import D2CError, Failure, Temporary, UsageError
from ..ledger.store import Ledger
from ..settings import JobSettings, Settings
from . import slots
from .cadence import Cadence, cadence
from .execute import prepare, run
from .records import close_lost
from .slots import Slot

Clock = Callable[[], datetime]
Say = Callable[[str], None]
GRACE = timedelta(seconds=90)  # a slot that is later than this was missed
TICK = 1.0  # seconds between two looks
BEAT = 15.0  # seconds between two signs of life


def utc_now() -> datetime:
    return datetime.now(UTC)


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
    """Return the jobs that the settings name. Raises UsageError with everything that is wrong with them."""
    found, failures = {}, []
    for name, job in settings.jobs.items():
        try:
            found[name] = Job(job, cadence(job.at, job.zone))
            prepare(job.run, found[name].parameters(datetime(2026, 1, 1, tzinfo=UTC), None), settings)
        except D2CError as err:
            failures.append(Failure(str(err).replace("\n", " "), f"[schedule:{name}]"))
        failures += [
            Failure(f"there is no job {other!r}", f"[schedule:{name}] after")
            for other in job.after
            if other not in settings.jobs
        ]
    if failures:
        raise UsageError("the schedule cannot be read", failures=failures, next="correct settings.ini")
    return found


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


@dataclass
class Scheduler:
    """One scheduler; any number may share a ledger."""

    settings: Settings
    say: Say = print
    clock: Clock = utc_now
    ledger: Ledger = field(init=False)
    running: dict[Future[None], Slot] = field(default_factory=dict)
    stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.jobs = jobs_of(self.settings)
        self.ledger = Ledger.of(self.settings)
        self.pool = ThreadPoolExecutor(self.settings.run_slots, thread_name_prefix="run")

    def loop(self) -> None:
        """Look, start, look again, until stopped; then wait for what runs."""
        beaten = self.clock()
        while not self.stopped.is_set():
            try:
                self.look()
                if (self.clock() - beaten).total_seconds() >= BEAT:
                    slots.beat(self.ledger, self.running.values(), self.clock())
                    beaten = self.clock()
            except Temporary as err:  # the ledger may be back at the next look
                self.say(str(err))
            self.stopped.wait(TICK)
        if self.running:
            self.say(f"stopping: waiting for {len(self.running)} run(s)")
        self.pool.shutdown(wait=True)

    def look(self) -> int:
        """Put due slots on record, take over what is abandoned, start what may start; return how many were started."""
        now = self.clock()
        for future in [f for f in self.running if f.done()]:
            slot = self.running.pop(future)
            if error := future.exception():
                self.say(f"{slot.job} {slot.slot.isoformat()}: {error}")
        self.recover(now)
        latest = slots.newest(self.ledger)
        known = slots.known_jobs(self.ledger, self.jobs, now)
        for name, job in self.jobs.items():
            since, paused = known[name]
            decided = {} if paused else due(job, max(since, latest.get(name, since)), now)
            if decided:
                slots.add(self.ledger, name, decided, now)
        return sum(self.start(slot) for slot in self.startable(now))

    def startable(self, now: datetime) -> list[Slot]:
        """Return the waiting slots whose dependencies are met, the most urgent first."""
        found = [s for s in slots.waiting(self.ledger, now) if s.job in self.jobs]
        ready = [slot for slot in found if self.dependencies_met(slot, now)]
        return sorted(ready, key=lambda s: (-self.jobs[s.job].settings.priority, s.slot))

    def dependencies_met(self, slot: Slot, now: datetime) -> bool:
        """Return whether the jobs that come first succeeded; a slot whose turn passes meanwhile is skipped."""
        for name in self.jobs[slot.job].settings.after:
            recent = [s for s in slots.listed(self.ledger, name, 20) if s.slot <= slot.slot]
            if recent and recent[0].status == "succeeded":
                continue
            if self.jobs[slot.job].cadence.next(slot.slot) <= now:
                slots.close(self.ledger, slot, "skipped", f"{name} did not succeed before the next slot", now)
            return False
        return True

    def start(self, slot: Slot) -> bool:
        """Claim a slot and run it in a thread, when there is room."""
        if len(self.running) >= self.settings.run_slots or self.stopped.is_set():
            return False
        mine = slots.claim(self.ledger, slot, self.clock())
        if mine is None:
            return False
        self.running[self.pool.submit(self.execute, mine)] = mine
        return True

    def execute(self, slot: Slot) -> None:
        """Run a claimed slot to its end and write down what became of it."""
        job = self.jobs[slot.job]
        mark = {"job": slot.job, "slot": slot.slot, "attempt": slot.attempt}
        self.say(f"{slot.job} {slot.slot.isoformat()}: attempt {slot.attempt}")
        try:
            parameters = job.parameters(slot.slot, slots.previous_success(self.ledger, slot.job, slot.slot))
            timeout = job.settings.timeout
            done = run(job.settings.run, parameters, self.settings, ledger=self.ledger, timeout=timeout, mark=mark)
            slots.close(self.ledger, slot, "succeeded", f"attempt {slot.attempt}", self.clock(), run_id=done.id)
        except D2CError as err:
            self.settle(slot, err.exit_code, err.what)

    def settle(self, slot: Slot, code: int, why: str) -> None:
        """Write down a failure: another attempt later when it was temporary and some are left, else the end."""
        job, now = self.jobs[slot.job].settings, self.clock()
        row = slots.run_of(self.ledger, slot)
        more = {"run_id": row.id} if row else {}
        if code == Temporary.exit_code and slot.attempt <= job.retries:
            wait = timedelta(seconds=job.backoff * 2 ** (slot.attempt - 1))
            reason = f"attempt {slot.attempt} failed for now ({why}); again in {wait.total_seconds():g} s"
            slots.close(self.ledger, slot, "waiting", reason, now, not_before=now + wait, **more)
        else:
            slots.close(self.ledger, slot, "failed", f"attempt {slot.attempt} failed: {why}", now, **more)
        self.say(f"{slot.job} {slot.slot.isoformat()}: {why}")

    def recover(self, now: datetime) -> None:
        """Settle the slots of schedulers that are gone: a run that had ended counts, one that had not is lost."""
        gone = slots.abandoned(self.ledger, now)
        if not gone:
            return
        close_lost(self.ledger, now)
        for slot in gone:
            row = slots.run_of(self.ledger, slot)
            if row is not None and row.status == "succeeded":
                slots.close(self.ledger, slot, "succeeded", f"attempt {slot.attempt}", now, run_id=row.id)
            elif slot.job in self.jobs:
                ended = row is not None and row.status not in ("running", "lost", "cancelled")
                self.settle(slot, row.exit_code if ended else Temporary.exit_code, "its scheduler was gone")
