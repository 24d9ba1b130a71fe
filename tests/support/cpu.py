"""CPU time that a call takes whatever else the machine and the tests before it do."""

import gc
import time
from collections.abc import Callable


def least_cpu_seconds(call: Callable[[], object], bound: float, times: int = 3) -> float:
    """Return the CPU seconds of the cheapest of several calls.

    A call under the bound ends the repetition. The collector of garbage is off meanwhile: what it walks through was made by the
    tests before.
    """
    least = float("inf")
    gc.collect()
    gc.disable()
    try:
        for _ in range(times):
            start = time.process_time()
            call()
            least = min(least, time.process_time() - start)
            if least < bound:
                break
    finally:
        gc.enable()
    return least
