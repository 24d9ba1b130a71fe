"""How long answers take by the size of what is asked: a slow one is made in a thread, a quick one is not worth the change."""

from __future__ import annotations

from collections.abc import Callable
from time import thread_time
from typing import TypeVar

SLOW = 0.005  # seconds of predicting that would hold up other callers
LARGE = 16_384  # bytes that count as slow until they were measured
WEIGHT = 0.5  # of the newest measurement
Size = tuple[bool, int]  # whether reasons are wanted, bytes of records
T = TypeVar("T")


class Pace:
    """CPU seconds of an answer, for each power of two of bytes."""

    def __init__(self) -> None:
        self.seconds: dict[tuple[bool, int], float] = {}

    def slow(self, size: Size) -> bool:
        """Return whether an answer is expected to take so long that others should not wait for it."""
        reasons, count = size
        known = self.seconds.get((reasons, count.bit_length()))
        return count > LARGE if known is None else known > SLOW

    def timed(self, size: Size, work: Callable[[], T]) -> T:
        """Do work and remember how long it took."""
        start = thread_time()
        made = work()
        took, place = thread_time() - start, (size[0], size[1].bit_length())
        known = self.seconds.get(place, took)
        self.seconds[place] = known + WEIGHT * (took - known)
        return made
