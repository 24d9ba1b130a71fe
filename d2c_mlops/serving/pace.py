"""How long answers take by the size of what is asked: a slow one is made in a thread, a quick one is not worth the change."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, perf_counter, thread_time
from typing import Any, TypeVar

SLOW = 0.005  # seconds of predicting that would hold up other callers
LARGE = 16_384  # bytes that count as slow until they were measured
WEIGHT = 0.5  # of the newest measurement of work
RISE = 0.2  # of a longer wait: a machine that does something else for a moment is no slow model
LIMIT = 0.25  # seconds that an answer may hold the event loop
LONG, SHY = 0.1, 60.0  # seconds of work after which a size is answered in threads only, and how long that lasts
Size = tuple[bool, int]  # whether reasons are wanted, bytes of records
T = TypeVar("T")


class Overrun(BaseException):
    """What was done on the event loop has held it for too long; no model takes it for an error of its own."""


class Alarm:
    """Ends what the event loop's thread does once it took LIMIT, by SIGALRM; where there is none, nothing is ended."""

    def __init__(self) -> None:
        self.set = self.armed = False

    def install(self) -> None:
        """Begin to watch. Raises ValueError in any other thread than the main one."""
        signal.signal(signal.SIGALRM, self._ring)
        self.set = True

    def remove(self) -> None:
        """Watch no more."""
        if self.set:
            self.set = False
            signal.signal(signal.SIGALRM, signal.SIG_DFL)

    def _ring(self, number: int, frame: Any) -> None:
        if self.armed:
            self.armed = False
            raise Overrun

    def within(self, work: Callable[[], T]) -> T:
        """Do work. Raises Overrun when it takes too long."""
        if not self.set:
            return work()
        signal.setitimer(signal.ITIMER_REAL, LIMIT)
        self.armed = True
        try:
            return work()
        finally:
            self.armed = False
            signal.setitimer(signal.ITIMER_REAL, 0.0)


ALARM = Alarm()


@dataclass
class Known:
    """Seconds that answers of a size take."""

    work: float
    wait: float
    shy: float = 0.0  # until then (monotonic) they are made in threads, because one of them took long


class Pace:
    """Seconds of an answer, for each power of two of bytes.

    What an answer works and what it waits (for a feature store, another service, a disk) hold up others alike. Work is a thread's own
    CPU time, whoever else runs. A wait shows only where nothing else was answered meanwhile: among threads that take turns each seems
    to wait for what the others do.
    """

    def __init__(self) -> None:
        self.known: dict[Size, Known] = {}
        self.lock = threading.Lock()
        self.going = self.begun = 0

    def slow(self, size: Size) -> bool:
        """Return whether an answer is expected to take so long that others should not wait for it."""
        known = self.known.get((size[0], size[1].bit_length()))
        if known is None:
            return size[1] > LARGE
        return known.work + known.wait > SLOW or (known.shy > 0.0 and known.shy > monotonic())

    def at_once(self, size: Size, work: Callable[[], T]) -> T:
        """Do work on the event loop. Raises Overrun when it held it for too long; then it is to be done again in a thread."""
        return self.timed(size, lambda: ALARM.within(work))

    def timed(self, size: Size, work: Callable[[], T]) -> T:
        """Do work and remember how long it took, whether it ends well or not."""
        with self.lock:
            alone, self.going, self.begun = self.going == 0, self.going + 1, self.begun + 1
            begun = self.begun
        start, busy = perf_counter(), thread_time()
        try:
            return work()
        finally:
            worked = thread_time() - busy
            took = perf_counter() - start
            with self.lock:
                self.going -= 1
                alone = alone and self.begun == begun
            self._learn((size[0], size[1].bit_length()), worked, took - worked, alone)

    def _learn(self, place: Size, worked: float, waited: float, alone: bool) -> None:
        known = self.known.get(place)
        if known is None:
            known = self.known[place] = Known(worked, waited if alone else 0.0)
        else:
            known.work += WEIGHT * (worked - known.work)
            if waited < known.wait:
                known.wait = waited
            elif alone:
                known.wait += RISE * (waited - known.wait)
        if worked > LONG or (alone and worked + waited > 0.9 * LIMIT):
            known.shy = monotonic() + SHY
