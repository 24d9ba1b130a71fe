"""The thread pool in which models answer, with a time limit for each answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from d2c_mlops.serving.http.messages import HttpRefused, is_in_task, problem_answer

COUNT = 16  # a worker
T = TypeVar("T")


class ThreadPool:
    """A bounded thread pool. A call beyond its time limit occupies its thread until it returns, because threads cannot be stopped."""

    def __init__(self, count: int = COUNT) -> None:
        self.count, self.stuck = count, 0
        self.pool = ThreadPoolExecutor(count, "model")

    async def run(self, work: Callable[[], T], seconds: float) -> T:
        """Run a call. Raises HttpRefused when it takes longer than `seconds`, and at once while all threads run such calls."""
        if self.stuck >= self.count:
            raise HttpRefused(
                problem_answer(503, "Model worker threads exhausted", "retry later", {"retry_after": "5"})
            )
        await is_in_task()
        making = self.pool.submit(work)
        answer = asyncio.wrap_future(making)
        if (await asyncio.wait([answer], timeout=seconds))[0]:
            return answer.result()
        answer.cancel()  # the result is not read
        self._abandon_work(making)
        took = f"the prediction took more than {seconds:g} s; send fewer records per request"
        raise HttpRefused(problem_answer(504, "Prediction timed out", took))

    def _abandon_work(self, making: Future[Any]) -> None:
        if making.cancel():
            return
        self.stuck += 1
        loop = asyncio.get_running_loop()
        making.add_done_callback(lambda _: loop.call_soon_threadsafe(self._thread_freed))

    def _thread_freed(self) -> None:
        self.stuck -= 1
