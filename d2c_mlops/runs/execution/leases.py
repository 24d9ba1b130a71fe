"""Leases of claims: a scheduler sends heartbeats for its claims, and detects stopped schedulers by missing heartbeats."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from d2c_mlops.errors import Temporary
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution import processes, slot_rows
from d2c_mlops.runs.execution.slot_rows import Slot

BEAT = 15.0  # seconds between two signs of life
LEASE = 180.0  # seconds of silence after which a claim on another machine is taken over
FENCE = LEASE - 3 * BEAT  # seconds of own silence after which a run is stopped, before somebody else may start it

LogMessage = Callable[[str], None]
Clock = Callable[[], datetime]
MonotonicClock = Callable[[], float]
Stop = Callable[[], str | None]


def monotonic_seconds() -> float:
    """Return seconds of a monotonic clock, which includes the time that the machine sleeps, if available."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@dataclass
class LeaseKeeper:
    """Sends heartbeats for the claims of this process from a separate thread, while there are any."""

    ledger: Ledger
    say: LogMessage
    clock: Clock
    ticks: MonotonicClock = monotonic_seconds
    claims: dict[tuple[str, datetime, int], Slot] = field(default_factory=dict)
    lost: set[tuple[str, datetime, int]] = field(default_factory=set)
    stopping: str | None = None  # why everything has to stop now
    _beaten: float = 0.0
    _wake: threading.Condition = field(default_factory=threading.Condition)
    _thread: threading.Thread | None = None

    @contextmanager
    def keep_lease(self, slot: Slot) -> Iterator[Stop]:
        """Send heartbeats for a claim; yields a function that returns why its run must stop, or None while it may continue."""
        with self._wake:
            if not self.claims:
                self._beaten = self.ticks()
            self.claims[slot.key] = slot
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._send_heartbeats, daemon=True, name="leases")
                self._thread.start()
        try:
            yield lambda: self._why_to_stop(slot)
        finally:
            with self._wake:
                self.claims.pop(slot.key, None)
                self.lost.discard(slot.key)
                self._wake.notify()

    def _why_to_stop(self, slot: Slot) -> str | None:
        if slot.key in self.lost:
            return "its claim was taken over"
        if self.ticks() - self._beaten > FENCE:
            return f"no heartbeat reached the ledger for {FENCE:g} s, so another scheduler may take over the claim"
        return self.stopping

    def _send_heartbeats(self) -> None:
        with self._wake:
            while self.claims:
                self._wake.wait(BEAT)
                mine = list(self.claims.values())
                self._wake.release()
                try:
                    asked_at = self.ticks()
                    gone = slot_rows.send_heartbeats(self.ledger, mine, self.clock())
                    self.lost |= {slot.key for slot in gone if slot.key in self.claims}
                    self._beaten = asked_at
                except Temporary as err:  # the ledger may be back at the next beat
                    self.say(str(err))
                finally:
                    self._wake.acquire()
            self._thread = None


@dataclass
class LeaseWatch:
    """Finds claims of stopped processes: immediately on this machine, by missing heartbeats on others.

    The time without heartbeats is measured with this machine's own clock, because clocks of machines differ and can be set.
    """

    ticks: MonotonicClock = monotonic_seconds
    seen: dict[tuple[str, datetime, int], tuple[datetime | None, float]] = field(default_factory=dict)

    def abandoned(self, running: Iterable[Slot]) -> list[Slot]:
        """Return the running slots whose process has stopped."""
        abandoned_slots, observed = [], {}
        for slot in running:
            if slot.host == processes.host_identity():
                if not processes.is_alive(slot.pid or 0, slot.pid_started or 0.0):
                    abandoned_slots.append(slot)
                continue
            beat, since = self.seen.get(slot.key, (slot.heartbeat_at, self.ticks()))
            observed[slot.key] = (beat, since) if beat == slot.heartbeat_at else (slot.heartbeat_at, self.ticks())
            if self.ticks() - observed[slot.key][1] > LEASE:
                abandoned_slots.append(slot)
        self.seen = observed
        return abandoned_slots
