"""How long a model may hold others up, whatever it does."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from test_service import ASK, Lead

from d2c_mlops.serving import pace
from d2c_mlops.serving.app import App, Keeping, Served, create_app
from d2c_mlops.serving.http import Refused
from d2c_mlops.serving.pace import ALARM, LIMIT, Overrun
from d2c_mlops.serving.threads import Threads
from d2c_mlops.settings import ServiceSettings


@pytest.fixture
def alarm() -> Iterator[None]:
    ALARM.install()
    yield
    ALARM.remove()


class Moody(Lead):
    """Quick, but for leads with 66 visits: sleeps a second, and takes every error of its own for nothing."""

    def __init__(self) -> None:
        self.ran: list[str] = []

    def predict_records(self, records: Any) -> Any:
        self.ran.append(threading.current_thread().name)
        if records[0]["visits"] == 66:
            try:
                time.sleep(1.0)
            except Exception:
                return []
        return super().predict_records(records)


HEADERS = [(b"content-type", b"application/json"), (b"host", b"localhost")]


async def ask(app: App, visits: int) -> int:
    """Ask the application as a server does; return the status."""
    told: list[Any] = []
    body = json.dumps({"records": [{**ASK, "visits": visits}]}).encode()

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        told.append(message)

    await app({"type": "http", "method": "POST", "path": "/predict", "headers": HEADERS}, receive, send)
    return int(told[0]["status"])


async def longest_stall(app: App, *visits: int) -> tuple[list[int], float]:
    """Ask in turn; return the statuses, and the longest time in which nothing else ran."""
    stalls, over = [0.0], False

    async def tick() -> None:
        last = time.perf_counter()
        while not over:
            await asyncio.sleep(0.005)
            now = time.perf_counter()
            stalls.append(now - last)
            last = now

    ticking = asyncio.ensure_future(tick())
    await asyncio.sleep(0.02)
    statuses = [await ask(app, each) for each in visits]
    over = True
    await ticking
    return statuses, max(stalls)


@pytest.mark.parametrize(("patience", "status"), [(5.0, 200), (0.3, 504)])
def test_a_record_on_which_a_quick_model_hangs_holds_nobody_up(alarm: None, patience: float, status: int) -> None:
    model = Moody()
    served = Served(model, "leads", 7, {}, ASK)
    app = create_app(lambda: served, Keeping(ServiceSettings(max_seconds=patience)))
    statuses, stall = asyncio.run(longest_stall(app, *[3] * 14, 66, 3))
    assert statuses == [200] * 14 + [status, 200]
    assert LIMIT / 2 < stall < 0.8, "the alarm ends it on the event loop"
    loop = threading.main_thread().name
    assert model.ran[:15] == [loop] * 15 and loop not in model.ran[15:], "and then such calls go to a thread"


def test_a_size_is_answered_at_once_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "SHY", 0.2)
    one, size = pace.Pace(), (False, 100)
    one.timed(size, lambda: time.sleep(LIMIT))
    for _ in range(20):
        one.timed(size, lambda: None)
    assert one.slow(size)
    time.sleep(0.25)
    assert not one.slow(size)


def test_the_alarm_does_not_ring_when_the_work_is_done(alarm: None) -> None:
    assert ALARM.within(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        ALARM.within(lambda: 1 // 0)
    time.sleep(LIMIT * 1.5)
    with pytest.raises(Overrun):
        ALARM.within(lambda: time.sleep(1.0))
    time.sleep(LIMIT * 1.5)


def test_calls_that_are_stuck_are_not_waited_for() -> None:
    stuck, over = Threads(count=2), threading.Event()

    async def main() -> list[int]:
        late = await asyncio.gather(*(stuck.do(over.wait, 0.1) for _ in range(2)), return_exceptions=True)
        start = time.perf_counter()
        with pytest.raises(Refused) as full:
            await stuck.do(over.wait, 5.0)
        assert time.perf_counter() - start < 1.0
        over.set()
        while stuck.stuck:
            await asyncio.sleep(0.01)
        assert await stuck.do(lambda: 7, 5.0) == 7
        return [*(each.answer.status for each in late if isinstance(each, Refused)), full.value.answer.status]

    assert asyncio.run(main()) == [504, 504, 503]


def test_an_error_of_the_model_is_not_taken_for_lateness() -> None:
    def fail() -> None:
        raise TimeoutError("the store does not answer")

    with pytest.raises(TimeoutError, match="the store"):
        asyncio.run(Threads().do(fail, 5.0))


def test_what_a_thread_raises_is_told_once_and_not_complained_about_later(caplog: pytest.LogCaptureFixture) -> None:
    over = threading.Event()

    def fail() -> None:
        over.wait(5.0)
        raise ValueError("no such feature")

    async def main() -> None:
        threads = Threads()
        with pytest.raises(Refused):
            await threads.do(fail, 0.05)
        over.set()
        with pytest.raises(ValueError, match="no such feature"):
            await threads.do(fail, 5.0)
        while threads.stuck:
            await asyncio.sleep(0.01)
        gc.collect()

    asyncio.run(main())
    gc.collect()
    assert "never retrieved" not in caplog.text
