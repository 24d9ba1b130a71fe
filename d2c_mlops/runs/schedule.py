"""The scheduler: finds the slots that are due, claims them, runs them, and takes over what others left."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from ..errors import D2CError, Temporary
from ..ledger.store import Ledger
from ..settings import FILE, Settings
from . import slots
from .execute import limits_of, run
from .jobs import Job, due, jobs_of, troubles
from .notify import notify
from .pulse import Clock, Pulse, Say, Watch
from .records import Run, close_lost, find, lose
from .slots import Slot

TICK = 0.5  # seconds between two looks when nothing is due before
REFRESH = 10.0  # seconds after which settings.ini and what rests are looked up again
NEWS = "new_rows"  # the recorded value by which a source says that there are new data
FARTHEST = datetime.max.replace(tzinfo=UTC)


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Scheduler:
    """One scheduler; any number may share a ledger."""

    settings: Settings
    say: Say = print
    clock: Clock = utc_now
    reload: Callable[[], Settings] | None = None  # reads the settings again when settings.ini has changed
    ledger: Ledger = field(init=False)
    running: dict[Future[None], Slot] = field(default_factory=dict)
    plan: dict[str, datetime] = field(default_factory=dict)  # when each job is due next
    stops: int = 0  # how often it was told to stop
    _woken: threading.Event = field(default_factory=threading.Event)
    _claimed: set[tuple[str, datetime, int]] = field(default_factory=set)
    _refreshed: float = float("-inf")
    _written: float = 0.0

    def __post_init__(self) -> None:
        self.jobs = jobs_of(self.settings)
        self.ledger = Ledger.of(self.settings)
        self.pool = ThreadPoolExecutor(64, thread_name_prefix="run")
        self.pulse = Pulse(self.ledger, self.say, self.clock)
        self.watch = Watch()
        self._written = self._changed_at()

    def stop(self) -> None:
        """Start nothing more and finish what runs; told a second time, stop that, too, so that others may try it."""
        self.stops += 1
        if self.stops > 1:
            self.pulse.stopping = "its scheduler was told to stop at once"

    def loop(self) -> None:
        """Look, start, look again, until stopped; then wait for what runs."""
        for trouble in troubles(self.jobs, self.settings):
            self.say(f"will fail as it is now: {trouble}")
        while not self.stops:
            try:
                self.look()
            except Temporary as err:  # the ledger may be back at the next look
                self.say(str(err))
            self._woken.wait(self._nap())
            self._woken.clear()
        if self.running:
            self.say(f"stopping: waiting for {len(self.running)} run(s)")
        while any(not future.done() for future in self.running):
            time.sleep(0.1)
        self._reap()
        self.pool.shutdown(wait=True)

    def look(self) -> int:
        """Put due slots on record, take over what is abandoned, start what may start; return how many were started."""
        now = self.clock()
        self._reap()
        if time.monotonic() - self._refreshed > REFRESH:
            self._refresh(now)
        self.recover(now)
        self._decide(now)
        return sum(self.start(slot) for slot in self.startable(now))

    def startable(self, now: datetime) -> list[Slot]:
        """Return the waiting slots whose dependencies are met, the most urgent first."""
        found = [s for s in slots.waiting(self.ledger, now) if s.job in self.jobs]
        lists: dict[str, list[Slot]] = {}
        ready = [slot for slot in found if self.dependencies_met(slot, now, lists)]
        return sorted(ready, key=lambda s: (-self.jobs[s.job].settings.priority, s.slot))

    def dependencies_met(self, slot: Slot, now: datetime, lists: dict[str, list[Slot]] | None = None) -> bool:
        """Return whether the jobs that come first succeeded; a slot whose turn passes meanwhile is skipped."""
        known = {} if lists is None else lists
        for name in self.jobs[slot.job].settings.after:
            if name not in known:
                known[name] = slots.listed(self.ledger, name, 20)
            recent = [s for s in known[name] if s.slot <= slot.slot]
            if recent and recent[0].status == "succeeded":
                continue
            cadence = self.jobs[slot.job].cadence
            if cadence.cron and cadence.next(slot.slot) <= now:
                why = f"{name} did not succeed before the next slot"
                if slots.close(self.ledger, slot, "skipped", why, now):
                    self._tell(slot, "skipped", why)
            return False
        return True

    def start(self, slot: Slot) -> bool:
        """Claim a slot and run it in a thread, when there is room."""
        if len(self.running) >= self.settings.run_slots or self.stops:
            return False
        mine = slots.claim(self.ledger, slot, self.clock(), self.jobs[slot.job].settings.concurrency)
        if mine is None:
            return False
        self._claimed.add(mine.key)
        future = self.pool.submit(self.execute, mine)
        self.running[future] = mine
        future.add_done_callback(lambda _: self._woken.set())
        return True

    def execute(self, slot: Slot) -> None:
        """Run a claimed slot to its end and write down what became of it."""
        job = self.jobs[slot.job]
        mark = {"job": slot.job, "slot": slot.slot, "attempt": slot.attempt}
        self.say(f"{slot}: attempt {slot.attempt}")
        with self.pulse.hold(slot) as stop:
            try:
                previous = slots.previous_success(self.ledger, slot.job, slot.slot)
                before = slots.runs_of(self.ledger, slot)
                done = run(
                    job.settings.run,
                    job.parameters(slot.slot, previous),
                    self.settings,
                    ledger=self.ledger,
                    limits=limits_of(self.settings, job.settings),
                    mark=mark,
                    stop=stop,
                    resume=before[0].id if before else None,
                )
            except D2CError as err:
                self.settle(slot, err.exit_code, err.what)
            except Exception as err:  # a bug of ours must not leave the slot claimed for ever
                self.settle(slot, 1, f"{type(err).__name__}: {err}")
                raise
            else:
                self.succeed(slot, done)

    def succeed(self, slot: Slot, done: Run) -> None:
        """Write down a success, and in the same transaction the slots of the jobs that wait for its news."""

        def write() -> None:
            now = self.clock()
            with self.ledger.write() as connection:
                if not slots.close_in(connection, slot, "succeeded", f"attempt {slot.attempt}", now, run_id=done.id):
                    return
                for name in waiting_for_news(self.jobs.values(), slot.job, done):
                    slots.add_in(connection, name, {slot.slot: ("waiting", f"new data of {slot}")}, now)

        self.ledger.insist(write, say=self.say)
        self.say(f"{slot}: succeeded in {done.seconds or 0:.1f} s, run {done.id}")
        self._tell(slot, "succeeded", f"attempt {slot.attempt}, run {done.id}: {done.recorded}")

    def settle(self, slot: Slot, code: int, why: str) -> None:
        """Write down a failure: another attempt later when it was temporary and some are left, else the end."""
        job = self.jobs[slot.job].settings

        def write() -> str:
            now, made = self.clock(), slots.runs_of(self.ledger, slot)
            more = {"run_id": made[0].id} if made and made[0].attempt == slot.attempt else {}
            if code == Temporary.exit_code and len(made) <= job.retries:
                wait = timedelta(seconds=job.backoff * 2 ** max(0, len(made) - 1) if more else 0)
                reason = f"attempt {slot.attempt} failed for now ({why}); again in {wait.total_seconds():g} s"
                mine = slots.close(self.ledger, slot, "waiting", reason, now, not_before=now + wait, **more)
                return "retry" if mine else ""
            mine = slots.close(self.ledger, slot, "failed", f"attempt {slot.attempt} failed: {why}", now, **more)
            return "failed" if mine else ""

        event = self.ledger.insist(write, say=self.say)
        self.say(f"{slot}: {why}")
        self._tell(slot, event, f"attempt {slot.attempt}: {why}\n\nd2c schedule why {slot.job} {slot.slot.isoformat()}")

    def recover(self, now: datetime) -> None:
        """Settle the slots of schedulers that are gone: a run that had ended counts, one that had not is lost."""
        open_now = slots.running(self.ledger)
        busy = self.pulse.held.keys() | {slot.key for slot in self.running.values()}
        gone = self.watch.abandoned(open_now)
        gone += [slot for slot in open_now if slot.key in self._claimed and slot.key not in busy and slot not in gone]
        if not gone:
            return
        close_lost(self.ledger, now)
        for slot in [slot for slot in gone if slot.job in self.jobs]:
            row = next((row for row in slots.runs_of(self.ledger, slot) if row.attempt == slot.attempt), None)
            if row is not None and row.status == "running":
                lose(self.ledger, find(self.ledger, row.id), now)
                row = None
            if row is not None and row.status == "succeeded":
                self.succeed(slot, find(self.ledger, row.id))
            else:
                ended = row is not None and row.status not in ("lost", "cancelled")
                code = row.exit_code if row is not None and ended else Temporary.exit_code
                self.settle(slot, code, "its scheduler was gone")

    def _tell(self, slot: Slot, event: str, text: str) -> None:
        notify(self.jobs[slot.job].settings, event, f"{slot} {event}", text, self.say)

    def _reap(self) -> None:
        for future in [f for f in self.running if f.done()]:
            slot = self.running.pop(future)
            if error := future.exception():
                self.say(f"{slot}: {error}")

    def _decide(self, now: datetime) -> None:
        """Put the slots that are due by now on record, and find out when each of their jobs is due next."""
        names = [name for name, at in self.plan.items() if at <= now]
        known = slots.known_jobs(self.ledger, names, now) if names else {}
        for name in names:
            since, paused = known[name]
            decided = {} if paused else due(self.jobs[name], since, now)
            if decided:
                slots.add(self.ledger, name, decided, now, until=max(decided))
            self.plan[name] = self.jobs[name].cadence.next(max(since, now))

    def _refresh(self, now: datetime) -> None:
        """Read settings.ini again when it has changed, and plan the jobs that are new or go on after a rest."""
        self._refreshed = time.monotonic()
        written = self._changed_at()
        if self.reload is not None and written != self._written:
            self._written = written
            try:
                self.settings = self.reload()
                self.jobs = jobs_of(self.settings)
                self.plan = {}
                self.say(f"settings.ini has changed: {len(self.jobs)} job(s)")
            except D2CError as err:
                self.say(f"settings.ini has changed and is not used: {err}")
        timed = {name: job for name, job in self.jobs.items() if job.cadence.cron}
        known = slots.known_jobs(self.ledger, self.jobs, now)
        self.plan |= {name: job.cadence.next(known[name][0]) for name, job in timed.items() if name not in self.plan}

    def _nap(self) -> float:
        left = (min(self.plan.values(), default=FARTHEST) - self.clock()).total_seconds()
        return max(0.01, min(TICK, left))

    def _changed_at(self) -> float:
        file = self.settings.root / FILE
        return file.stat().st_mtime if file.exists() else 0.0


def waiting_for_news(jobs: Iterable[Job], source: str, done: Run) -> list[str]:
    """Return the jobs that run on new data of `source`, when the run has recorded that there are some."""
    if not done.recorded.get(NEWS):
        return []
    return [job.name for job in jobs if source in job.settings.on]
