"""Limit of the memory that this process may add, for reading files whose content may be far larger than they are."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

_ONE_AT_A_TIME = RLock()  # the limit belongs to the process


@contextmanager
def memory_limit(size: int) -> Iterator[None]:
    """Let the process add at most `size` bytes of memory until the block ends; more raises MemoryError where it is asked for.

    Threads that use it at once wait for one another. Systems other than Linux have no such limit: nothing is limited there.
    Source: setrlimit(2), RLIMIT_DATA.
    """
    if sys.platform != "linux":
        yield
        return
    import resource

    with _ONE_AT_A_TIME:
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limits = (_private_memory() + size, *(limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_DATA, (min(limits), hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _private_memory() -> int:
    """Return the bytes of private memory that the process has now, as RLIMIT_DATA counts them."""
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData:"))
