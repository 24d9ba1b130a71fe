"""Latency of answers by the size of the request: it decides which answers run on the event loop and which in the thread pool."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import monotonic, perf_counter
from typing import Generic, TypeVar

QUICK = 0.0025  # seconds; each of the measured answers has to take less before a size class runs on the event loop
LIMIT = 0.005  # seconds; a longer answer on the event loop sends its size class back to the pool
MEASURED = 20  # consecutive quick answers that are needed
DECLARED = 16_384  # bytes; requests up to this size of a model that declares itself quick are not measured first
LONG = 0.05  # seconds; after a longer answer on the event loop its size class stays in the pool for PAUSE
BLOCKED, LOOK = 0.5, 0.1  # seconds after which the event loop counts as blocked, and between two checks of it
PAUSE = 60.0  # seconds
LOG = logging.getLogger("d2c.service")
Size = tuple[bool, int]  # whether reasons are wanted, bytes of records
T = TypeVar("T")


@dataclass
class SizeClass:
    """Measurements of one size class."""

    quick: int = 0  # answers in a row below QUICK
    paused_until: float = 0.0  # monotonic seconds


class LatencyEstimate:
    """Latency of one model version, for each power of two of bytes, with and without reasons."""

    def __init__(self, declared: bool | None = None) -> None:
        """Start without measurements; `declared` is what the model says of itself (`Model.quick`)."""
        self.declared = declared
        self.classes: dict[Size, SizeClass] = {}
        self.paused_until = 0.0  # monotonic seconds, for all sizes

    def quick(self, size: Size) -> bool:
        """Return whether answers of this size may run on the event loop."""
        if self.declared is False or (self.paused_until and self.paused_until > monotonic()):
            return False
        size_class = self._size_class(size)
        return size_class.quick >= MEASURED and not (size_class.paused_until and size_class.paused_until > monotonic())

    def add(self, size: Size, seconds: float, *, on_loop: bool, complete: bool = True) -> None:
        """Record the wall time of an answer; a request that the model refused or failed on (`complete` False) counts only when slow."""
        size_class = self._size_class(size)
        if seconds > (LONG if on_loop else BLOCKED):
            size_class.paused_until = monotonic() + PAUSE
        if seconds > LIMIT or (seconds > QUICK and not on_loop):
            size_class.quick = 0
        elif complete:
            size_class.quick += 1

    def pause(self) -> None:
        """Send answers of every size to the pool for PAUSE seconds, then measure them again."""
        self.paused_until = monotonic() + PAUSE
        for size_class in list(self.classes.values()):
            size_class.quick = 0

    def _size_class(self, size: Size) -> SizeClass:
        place = (size[0], size[1].bit_length())
        size_class = self.classes.get(place)
        if size_class is None:
            size_class = SizeClass(MEASURED if self.declared and size[1] <= DECLARED else 0)
            size_class = self.classes.setdefault(place, size_class)
        return size_class


class TimedCall(Generic[T]):
    """A call that measures its own wall time in seconds, whether it returns or raises."""

    seconds: float | None  # None until the call has ended

    def __init__(self, work: Callable[[], T]) -> None:
        self.work, self.seconds = work, None

    def __call__(self) -> T:
        """Call once and return the result."""
        start = perf_counter()
        try:
            return self.work()
        finally:
            self.seconds = perf_counter() - start


@dataclass(eq=False, slots=True)
class LoopCall:
    """An answer that runs on the event loop."""

    model: str
    size: int  # bytes
    estimates: Iterable[LatencyEstimate]
    start: float = field(default_factory=monotonic)
    reported: bool = False


class LoopWatchdog:
    """A thread that logs when an answer blocks the event loop, and sends further answers of its models to the pool.

    The answer itself goes on until it ends: nothing is raised into the code of a model.
    """

    def __init__(self) -> None:
        self.calls: set[LoopCall] = set()
        self.thread: threading.Thread | None = None
        self.lock = threading.Lock()

    @contextmanager
    def watching(self, call: LoopCall) -> Iterator[None]:
        """Watch an answer while the block lasts."""
        if self.thread is None or not self.thread.is_alive():  # not started, or a child of fork
            self._start_measuring()
        self.calls.add(call)
        try:
            yield
        finally:
            self.calls.discard(call)

    def _start_measuring(self) -> None:
        with self.lock:
            if self.thread is None or not self.thread.is_alive():
                self.thread = threading.Thread(target=self._measure_loop, name="loop-watchdog", daemon=True)
                self.thread.start()

    def _measure_loop(self) -> None:
        wait = threading.Event().wait
        while True:
            wait(LOOK)
            for call in self.calls.copy():
                self._check_call(call)

    def _check_call(self, call: LoopCall) -> None:
        seconds = monotonic() - call.start
        if call.reported or seconds < BLOCKED:
            return
        call.reported = True
        for estimate in call.estimates:
            estimate.pause()
        facts = {"model": call.model, "bytes": call.size, "seconds": round(seconds, 1), "pool_seconds": PAUSE}
        LOG.error("event loop blocked by a model", extra={"facts": facts})


WATCHDOG = LoopWatchdog()
