"""Signs of life: a scheduler gives them for the claims that it holds, and judges by them whether others are gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

from d2c_mlops.errors import Temporary
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution import processes, slots
from d2c_mlops.runs.execution.slots import Slot

BEAT = 15.0  # seconds between two signs of life
LEASE = 180.0  # seconds of silence after which a claim on another machine is taken over
FENCE = LEASE - 3 * BEAT  # seconds of own silence after which a run is stopped, before somebody else may start it

Say = Callable[[str], None]
Clock = Callable[[], datetime]
Ticks = Callable[[], float]
Stop = Callable[[], str | None]


def ticks() -> float:
    """Return seconds that nobody can set, counted while the machine sleeps, too, where it can tell."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


@dataclass
class Pulse:
    """Beats for the claims of this process, in a thread of its own, as long as there are any."""

    ledger: Ledger
    say: Say
    clock: Clock
    ticks: Ticks = ticks
    held: dict[tuple[str, datetime, int], Slot] = field(default_factory=dict)
    lost: set[tuple[str, datetime, int]] = field(default_factory=set)
    stopping: str | None = None  # why everything has to stop now
    _beaten: float = 0.0
    _wake: threading.Condition = field(default_factory=threading.Condition)
    _thread: threading.Thread | None = None

    @contextmanager
    def hold(self, slot: Slot) -> Iterator[Stop]:
        """Give signs of life for a claim; what is yielded says why its run must stop, None while it may go on."""
        with self._wake:
            if not self.held:
                self._beaten = self.ticks()
            self.held[slot.key] = slot
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._beat, daemon=True, name="pulse")
                self._thread.start()
        try:
            yield lambda: self._reason(slot)
        finally:
            with self._wake:
                self.held.pop(slot.key, None)
                self.lost.discard(slot.key)
                self._wake.notify()

    def _reason(self, slot: Slot) -> str | None:
        if slot.key in self.lost:
            return "its claim was taken over"
        if self.ticks() - self._beaten > FENCE:
            return f"the ledger has not heard of it for {FENCE:g} s, so that another scheduler may take it over"
        return self.stopping

    def _beat(self) -> None:
        with self._wake:
            while self.held:
                self._wake.wait(BEAT)
                mine = list(self.held.values())
                self._wake.release()
                try:
                    asked = self.ticks()
                    gone = slots.beat(self.ledger, mine, self.clock())
                    self.lost |= {slot.key for slot in gone if slot.key in self.held}
                    self._beaten = asked
                except Temporary as err:  # the ledger may be back at the next beat
                    self.say(str(err))
                finally:
                    self._wake.acquire()
            self._thread = None


@dataclass
class LeaseWatch:
    """Finds claims whose process is gone: at once on this machine, by its silence on another.

    Silence is measured on this machine's own clock from one look to the next, because clocks differ and are set.
    """

    ticks: Ticks = ticks
    seen: dict[tuple[str, datetime, int], tuple[datetime | None, float]] = field(default_factory=dict)

    def abandoned(self, running: Iterable[Slot]) -> list[Slot]:
        """Return those of the running slots that nobody runs any more."""
        found, seen = [], {}
        for slot in running:
            if slot.host == processes.place():
                if not processes.alive(slot.pid or 0, slot.pid_started or 0.0):
                    found.append(slot)
                continue
            beat, since = self.seen.get(slot.key, (slot.heartbeat_at, self.ticks()))
            seen[slot.key] = (beat, since) if beat == slot.heartbeat_at else (slot.heartbeat_at, self.ticks())
            if self.ticks() - seen[slot.key][1] > LEASE:
                found.append(slot)
        self.seen = seen
        return found
