"""How long answers take by the size of what is asked: a slow one is made in a thread, a quick one is not worth the change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from time import perf_counter, thread_time
from typing import TypeVar

SLOW = 0.005  # seconds of predicting that would hold up other callers
LARGE = 16_384  # bytes that count as slow until they were measured
WEIGHT = 0.5  # of the newest measurement of work
RISE = 0.2  # of a longer wait: a machine that does something else for a moment is no slow model
Size = tuple[bool, int]  # whether reasons are wanted, bytes of records
T = TypeVar("T")


@dataclass
class Known:
    """Seconds that answers of a size take."""

    work: float
    wait: float


class Pace:
    """Seconds of an answer, for each power of two of bytes.

    What an answer works and what it waits (for a feature store, another service, a disk) hold up others alike. Work is a thread's own
    CPU time, whoever else runs. A wait shows only where nothing else was answered meanwhile: among threads that take turns each seems
    to wait for what the others do.
    """

    def __init__(self) -> None:
        self.known: dict[Size, Known] = {}
        self.lock = Lock()
        self.going = self.begun = 0

    def slow(self, size: Size) -> bool:
        """Return whether an answer is expected to take so long that others should not wait for it."""
        known = self.known.get((size[0], size[1].bit_length()))
        return size[1] > LARGE if known is None else known.work + known.wait > SLOW

    def timed(self, size: Size, work: Callable[[], T]) -> T:
        """Do work and remember how long it took."""
        with self.lock:
            alone, self.going, self.begun = self.going == 0, self.going + 1, self.begun + 1
            begun = self.begun
        start, busy = perf_counter(), thread_time()
        try:
            made = work()
        finally:
            worked = thread_time() - busy
            waited = perf_counter() - start - worked
            with self.lock:
                self.going -= 1
                alone = alone and self.begun == begun
        self._learn((size[0], size[1].bit_length()), worked, waited, alone)
        return made

    def _learn(self, place: Size, worked: float, waited: float, alone: bool) -> None:
        known = self.known.get(place)
        if known is None:
            self.known[place] = Known(worked, waited if alone else 0.0)
            return
        known.work += WEIGHT * (worked - known.work)
        if waited < known.wait:
            known.wait = waited
        elif alone:
            known.wait += RISE * (waited - known.wait)
