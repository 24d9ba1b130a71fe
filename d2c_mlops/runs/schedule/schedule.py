"""The scheduler: finds due slots, claims them, runs them, and recovers slots of stopped schedulers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from d2c_mlops.errors import D2CError, Failure, Temporary
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution import slot_rows
from d2c_mlops.runs.execution.execute import run, run_limits
from d2c_mlops.runs.execution.leases import Clock, LeaseKeeper, LeaseWatch, LogMessage
from d2c_mlops.runs.execution.run_rows import Run, close_lost_runs, find_run, mark_lost
from d2c_mlops.runs.execution.slot_rows import Slot
from d2c_mlops.runs.schedule.clock_changes import TOLERANCE, decided_until, undo_future_decisions
from d2c_mlops.runs.schedule.dependencies import jobs_on_new_data, unmet_dependency
from d2c_mlops.runs.schedule.jobs import Job, due_slots, readable_jobs, refusal_error
from d2c_mlops.runs.schedule.notify import notify_channels
from d2c_mlops.runs.schedule.reload_settings import reload_jobs
from d2c_mlops.runs.schedule.slot_parameters import notebook_failures, slot_parameters
from d2c_mlops.settings import FILE, JobSettings, Settings, has_own_section

TICK = 0.5  # seconds between two looks when nothing is due before
UPKEEP = 60.0  # seconds between two calls of `upkeep`
REFRESH = 10.0  # seconds after which settings.ini and what rests are looked up again
FARTHEST = datetime.max.replace(tzinfo=UTC)


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Scheduler:
    """A scheduler; several may share a ledger."""

    settings: Settings
    say: LogMessage = print
    clock: Clock = utc_now
    reload: Callable[[], Settings] | None = None  # reads the settings again when settings.ini has changed
    upkeep: Callable[[Ledger, Settings, datetime], None] | None = None  # called each minute while it looks for slots
    ledger: Ledger = field(init=False)
    running: dict[Future[None], Slot] = field(default_factory=dict)
    plan: dict[str, datetime] = field(default_factory=dict)  # when each job is due next
    stops: int = 0  # how often it was told to stop
    _woken: threading.Event = field(default_factory=threading.Event)
    _claimed: set[tuple[str, datetime, int]] = field(default_factory=set)
    _refreshed: float = float("-inf")
    _written: tuple[int, ...] = ()
    _latest: datetime | None = None  # the latest moment that its clock has shown
    _upkeep_at: float = float("-inf")
    _upkeep: Future[None] | None = None
    _noted: set[str] = field(default_factory=set)  # what was said and need not be said again

    def __post_init__(self) -> None:
        self.jobs, self.refused = readable_jobs(self.settings)
        if self.refused and not self.jobs:
            raise refusal_error(self.refused)
        self._begun: dict[tuple[str, datetime, int], Job] = {}  # the jobs of claimed slots, as they were then
        self.ledger = Ledger.of(self.settings)
        self.pool = ThreadPoolExecutor(64, thread_name_prefix="run")
        self.leases = LeaseKeeper(self.ledger, self.say, self.clock)
        self.watch = LeaseWatch()
        self._written = self._changed_at()
        file = self.settings.root / FILE
        self._own_section = file.is_file() and has_own_section(file)

    def stop(self) -> None:
        """Start no more runs and wait for active ones; on a second call, stop those too, so that others can retry them."""
        self.stops += 1
        if self.stops > 1:
            self.leases.stopping = "its scheduler was stopped immediately"

    def loop(self) -> None:
        """Check for due slots and start them, until stopped; then wait for active runs."""
        self._log_refused(self.refused)
        while not self.stops:
            try:
                self.poll()
            except Temporary as err:  # the ledger may be back at the next look
                self.say(str(err))
            self._woken.wait(self._seconds_until_next())
            self._woken.clear()
        if self.running:
            self.say(f"stopping: waiting for {len(self.running)} run(s)")
        while any(not future.done() for future in self.running):
            time.sleep(0.1)
        self._remove_finished()
        self.pool.shutdown(wait=True)

    def poll(self) -> int:
        """Record due slots, recover abandoned ones, start what may start; return the number of started slots."""
        now = self.clock()
        self._remove_finished()
        self._handle_clock_change(now)
        if time.monotonic() - self._refreshed > REFRESH:
            self._reload_settings(now)
        self.recover(now)
        self._record_due_slots(now)
        self._start_upkeep(now)
        return sum(self.start(slot) for slot in self.startable(now))

    def startable(self, now: datetime) -> list[Slot]:
        """Return the waiting slots whose dependencies are met, by priority."""
        startable_slots = [
            s for s in slot_rows.waiting_slots(self.ledger, now) if s.job in self.jobs and s.slot <= now + TOLERANCE
        ]
        ready = [slot for slot in startable_slots if self.dependencies_met(slot, now)]
        return sorted(ready, key=lambda s: (-self.jobs[s.job].settings.priority, s.slot))

    def dependencies_met(self, slot: Slot, now: datetime) -> bool:
        """Return whether the jobs it depends on succeeded; a slot is skipped if the next one is due first."""
        if not (waits := unmet_dependency(self.jobs, self.ledger, slot)):
            return True
        name, why = waits
        cadence = self.jobs[slot.job].cadence
        if cadence.cron and cadence.next(slot.slot) <= now:
            why = f"{name} did not succeed before the next slot"
            if slot_rows.close_slot(self.ledger, slot, "skipped", why, now):
                self._notify_failure(slot, "skipped", why)
        else:
            self._log_once(f"{self.slot_text(slot)}: {why}")
        return False

    def start(self, slot: Slot) -> bool:
        """Claim a slot and run it in a thread, if the limits allow."""
        if len(self.running) >= self.settings.run_slots or self.stops:
            return False
        mine = slot_rows.claim_slot(self.ledger, slot, self.clock(), self.jobs[slot.job].settings.concurrency)
        if mine is None:
            return False
        self._claimed.add(mine.key)
        future = self.pool.submit(self.execute, mine, self.jobs[slot.job])
        self.running[future] = mine
        future.add_done_callback(lambda _: self._woken.set())
        return True

    def execute(self, slot: Slot, job: Job | None = None) -> None:
        """Run a claimed slot and record the result, even if its job was removed meanwhile."""
        job = self._begun[slot.key] = job or self.jobs[slot.job]
        mark = {"job": slot.job, "slot": slot.slot, "attempt": slot.attempt}
        self.say(f"{self.slot_text(slot)}: attempt {slot.attempt}")
        with self.leases.keep_lease(slot) as stop:
            try:
                previous = slot_rows.previous_success(self.ledger, slot.job, slot.slot)
                before = slot_rows.runs_of_slot(self.ledger, slot)
                parameters = slot_parameters(job, slot.slot, previous, self.settings)
                if parameters.note:
                    self.say(f"{self.slot_text(slot)}: {parameters.note}")
                record = run(
                    job.settings.run,
                    parameters.values,
                    self.settings,
                    ledger=self.ledger,
                    limits=run_limits(self.settings, job.settings),
                    slot_fields=mark,
                    should_stop=stop,
                    resume=before[0].id if before else None,
                )
            except D2CError as err:
                self.record_failure(slot, err.exit_code, err.what)
            except Exception as err:  # a bug of ours must not leave the slot claimed for ever
                self.record_failure(slot, 1, f"{type(err).__name__}: {err}")
                raise
            else:
                self.record_success(slot, record)
            finally:
                self._begun.pop(slot.key, None)

    def record_success(self, slot: Slot, finished_run: Run) -> None:
        """Record a success, and in the same transaction the slots of jobs that wait for its new data."""

        def write() -> None:
            now = self.clock()
            with self.ledger.write() as connection:
                if not slot_rows.close_slot_in(
                    connection, slot, "succeeded", f"attempt {slot.attempt}", now, run_id=finished_run.id
                ):
                    return
                for name in jobs_on_new_data(self.jobs.values(), slot.job, finished_run):
                    slot_rows.add_slots_in(
                        connection, name, {slot.slot: ("waiting", f"new data of {self.slot_text(slot)}")}, now
                    )

        self.ledger.with_retries(write, print_line=self.say)
        self.say(f"{self.slot_text(slot)}: succeeded in {finished_run.seconds or 0:.1f} s, run {finished_run.id}")
        self._notify_failure(
            slot, "succeeded", f"attempt {slot.attempt}, run {finished_run.id}: {finished_run.recorded}"
        )

    def record_failure(self, slot: Slot, code: int, why: str) -> None:
        """Record a failure: schedule another attempt if it was temporary and attempts remain, else close the slot."""
        job = self._settings_of(slot)
        vanished = slot.job not in self.jobs

        def write() -> str:
            now, runs = self.clock(), slot_rows.runs_of_slot(self.ledger, slot)
            columns = {"run_id": runs[0].id} if runs and runs[0].attempt == slot.attempt else {}
            if code == Temporary.exit_code and len(runs) <= job.retries and not vanished:
                wait = timedelta(seconds=job.backoff * 2 ** max(0, len(runs) - 1) if columns else 0)
                reason = (
                    f"attempt {slot.attempt} failed temporarily ({why}); next attempt in {wait.total_seconds():g} s"
                )
                mine = slot_rows.close_slot(self.ledger, slot, "waiting", reason, now, not_before=now + wait, **columns)
                return "retry" if mine else ""
            gone = "; its job is no longer in settings.ini" if vanished else ""
            reason = f"attempt {slot.attempt} failed: {why}{gone}"
            return "failed" if slot_rows.close_slot(self.ledger, slot, "failed", reason, now, **columns) else ""

        event = self.ledger.with_retries(write, print_line=self.say)
        self.say(f"{self.slot_text(slot)}: {why}")
        self._notify_failure(slot, event, f"attempt {slot.attempt}: {why}\n\nd2c schedule why {self.slot_text(slot)}")

    def recover(self, now: datetime) -> None:
        """Close the slots of stopped schedulers: a run that had ended counts, others are lost."""
        open_now = slot_rows.running_slots(self.ledger)
        busy = self.leases.claims.keys() | {slot.key for slot in self.running.values()}
        gone = self.watch.abandoned(open_now)
        gone += [slot for slot in open_now if slot.key in self._claimed and slot.key not in busy and slot not in gone]
        for slot in open_now:
            if slot.heartbeat_at and slot.heartbeat_at > now + TOLERANCE:
                ahead = f"its heartbeat of {slot.heartbeat_at.isoformat(timespec='seconds')} is in the future"
                self._log_once(f"{self.slot_text(slot)}: {ahead} and is ignored")
        if not gone:
            return
        close_lost_runs(self.ledger, now)
        for slot in gone:
            row = next((row for row in slot_rows.runs_of_slot(self.ledger, slot) if row.attempt == slot.attempt), None)
            if row is not None and row.status == "running":
                mark_lost(self.ledger, find_run(self.ledger, row.id), now)
                row = None
            if row is not None and row.status == "succeeded":
                self.record_success(slot, find_run(self.ledger, row.id))
            else:
                ended = row is not None and row.status not in ("lost", "cancelled")
                code = row.exit_code if row is not None and ended else Temporary.exit_code
                self.record_failure(slot, code, "its scheduler has stopped")

    def _notify_failure(self, slot: Slot, event: str, text: str) -> None:
        notify_channels(self._settings_of(slot), event, f"{self.slot_text(slot)} {event}", text, self.say)

    def slot_text(self, slot: Slot) -> str:
        """Return the job of a slot and the slot's time in the job's zone."""
        job = self.jobs.get(slot.job) or self._begun.get(slot.key)
        return f"{slot.job} {job.local_time(slot.slot)}" if job else str(slot)

    def _settings_of(self, slot: Slot) -> JobSettings:
        """Return the settings of a slot's job; if the job was removed, those at its start, else the defaults."""
        job = self.jobs.get(slot.job) or self._begun.get(slot.key)
        return job.settings if job else JobSettings(slot.job)

    def _log_once(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self.say(text)

    def _log_refused(self, refused: Mapping[str, Sequence[Failure]]) -> None:
        """Log which jobs are refused, and which notebooks of the others would fail."""
        for name, failures in refused.items():
            goes_on = "keeps its previous settings" if name in self.jobs else "is not run"
            for failure in failures:
                self.say(f"{name} is refused and {goes_on}: {failure}")
        for failures in notebook_failures(self.jobs, self.settings).values():
            self.say(f"will fail with the current settings: {failures[0]}")

    def _handle_clock_change(self, now: datetime) -> None:
        """If the clock was set back, undo its decisions and plan again from now."""
        if self._latest is not None and now < self._latest - TOLERANCE:
            self.say(f"the clock was set back from {self._latest:%Y-%m-%d %H:%M:%S}Z to {now:%Y-%m-%d %H:%M:%S}Z")
            undo_future_decisions(self.ledger, self.jobs, now, self.say)
            self.plan, self._refreshed, self._latest = {}, float("-inf"), now
        self._latest = max(now, self._latest or now)

    def _start_upkeep(self, now: datetime) -> None:
        """Call `upkeep` in a thread, a call at a time: a slow channel must not delay runs."""
        if self.upkeep is None or time.monotonic() - self._upkeep_at < UPKEEP:
            return
        if self._upkeep is not None:
            if not self._upkeep.done():
                return
            if error := self._upkeep.exception():
                self.say(f"upkeep: {type(error).__name__}: {error}")
        self._upkeep_at = time.monotonic()
        self._upkeep = self.pool.submit(self.upkeep, self.ledger, self.settings, now)

    def _remove_finished(self) -> None:
        for future in [f for f in self.running if f.done()]:
            slot = self.running.pop(future)
            if error := future.exception():
                self.say(f"{self.slot_text(slot)}: {error}")

    def _record_due_slots(self, now: datetime) -> None:
        """Record the slots that are due now, and compute when their jobs are due next."""
        names = [name for name, at in self.plan.items() if at <= now]
        states = decided_until(self.ledger, names, now, self.say) if names else {}
        for name in names:
            since, paused = states[name]
            decided = {} if paused else due_slots(self.jobs[name], since, now)
            if decided:
                slot_rows.add_slots(self.ledger, name, decided, now, until=max(decided))
            self.plan[name] = self.jobs[name].cadence.next(max(since, now))

    def _reload_settings(self, now: datetime) -> None:
        """Reload settings.ini if it has changed, and plan new and resumed jobs."""
        self._refreshed = time.monotonic()
        written = self._changed_at()
        if self.reload is not None and written != self._written:
            self._written = written
            try:
                self._apply_settings(reload_jobs(self.reload, self.settings, bool(self.jobs), self._own_section))
            except (D2CError, OSError) as err:
                self.say(f"the changed settings.ini is not used: {err}")
        timed = {name: job for name, job in self.jobs.items() if job.cadence.cron}
        states = decided_until(self.ledger, self.jobs, now, self.say)
        self.plan |= {name: job.cadence.next(states[name][0]) for name, job in timed.items() if name not in self.plan}

    def _apply_settings(self, settings: Settings) -> None:
        """Apply new settings; a job with a refused section keeps its previous settings, if it had any."""
        jobs, refused = readable_jobs(settings)
        unchanged = {name: self.jobs[name] for name in refused if name in self.jobs}
        self.settings, self.jobs, self.refused, self.plan = settings, {**jobs, **unchanged}, refused, {}
        self.say(f"settings.ini has changed: {len(self.jobs)} job(s)")
        self._log_refused(refused)

    def _seconds_until_next(self) -> float:
        remaining = (min(self.plan.values(), default=FARTHEST) - self.clock()).total_seconds()
        return max(0.01, min(TICK, remaining))

    def _changed_at(self) -> tuple[int, ...]:
        """Return a value that changes when the file is written, replaced or becomes readable again."""
        try:
            status = (self.settings.root / FILE).stat()
        except OSError:
            return ()
        return status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size
