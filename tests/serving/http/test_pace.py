"""Which answers run on the event loop and which in the thread pool, whatever a model does."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from d2c_mlops.serving.app.app import App, ServedModel, ServiceContext, create_app
from d2c_mlops.serving.http import latency as pace
from d2c_mlops.serving.http.latency import DECLARED, LIMIT, LONG, MEASURED, PAUSE, QUICK, LatencyEstimate
from d2c_mlops.serving.http.messages import HttpRefused
from d2c_mlops.serving.http.metrics import Metrics
from d2c_mlops.serving.http.thread_pool import ThreadPool
from d2c_mlops.serving.rollout.state_file import Rollout
from d2c_mlops.serving.rollout.variant_counters import RolloutCounters
from d2c_mlops.serving.rollout.variants import ShareRollout
from d2c_mlops.settings import ServiceSettings
from support.lead_service import ASK, Lead

LOOP = threading.main_thread().name
SIZE = (False, 100)
HEADERS = [(b"content-type", b"application/json"), (b"host", b"localhost")]


class Clock:
    """Seconds that only a model's work adds to: a busy machine makes no model slow."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(pace, "perf_counter", made)
    return made


class Timing(Lead):
    """Takes `seconds` of a clock for an answer, and sleeps `hang` real seconds on a lead with 66 visits."""

    def __init__(self, clock: Clock, seconds: float = 0.0, hang: float = 0.0) -> None:
        self.clock, self.seconds, self.hang = clock, seconds, hang
        self.ran: list[tuple[str, int]] = []  # thread, visits

    def predict_records(self, records: Any) -> Any:
        self.ran.append((threading.current_thread().name, records[0]["visits"]))
        self.clock.now += self.seconds
        if records[0]["visits"] == 66:
            time.sleep(self.hang)
        return super().predict_records(records)

    @property
    def threads(self) -> list[str]:
        return [name for name, _ in self.ran]


def app_of(model: Lead, **settings: Any) -> App:
    served = ServedModel(model, "leads", 7, {}, ASK)
    return create_app(lambda: served, ServiceContext(ServiceSettings(**settings)))


async def ask(app: App, visits: int = 3, lead: str = "L-1", path: str = "/predict", **more: Any) -> int:
    """Ask the application as a server does; return the status."""
    sent: list[Any] = []
    body = json.dumps({"records": [{**ASK, "visits": visits, "lead_id": lead, **more}]}).encode()

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    method = "GET" if path == "/livez" else "POST"
    await app({"type": "http", "method": method, "path": path, "headers": HEADERS}, receive, send)
    return int(sent[0]["status"])


def answers(app: App, count: int, **more: Any) -> list[int]:
    async def main() -> list[int]:
        return [await ask(app, **more) for _ in range(count)]

    return asyncio.run(main())


# --- measured


def test_the_first_request_runs_in_the_pool_and_a_model_measured_as_quick_on_the_loop(clock: Clock) -> None:
    assert MEASURED >= 20
    model = Timing(clock, QUICK * 0.9)
    assert answers(app_of(model), MEASURED + 5) == [200] * (MEASURED + 5)
    assert LOOP not in model.threads[:MEASURED] and model.threads[MEASURED:] == [LOOP] * 5


@pytest.mark.parametrize("seconds", [QUICK * 1.1, LIMIT * 4, 10.0])
def test_a_slow_model_never_runs_on_the_loop(clock: Clock, seconds: float) -> None:
    model = Timing(clock, seconds)
    assert set(answers(app_of(model), 3 * MEASURED)) == {200}
    assert len(model.ran) == 3 * MEASURED and LOOP not in model.threads


def test_one_slow_answer_of_twenty_is_enough_to_stay_in_the_pool() -> None:
    estimate = LatencyEstimate()
    for _ in range(10):
        for _ in range(MEASURED - 1):
            estimate.add(SIZE, 0.0001, on_loop=False)
        estimate.add(SIZE, QUICK * 1.1, on_loop=False)
        assert not estimate.quick(SIZE), "the mean is far below the limit"


def test_requests_that_the_model_does_not_answer_measure_nothing(clock: Clock) -> None:
    model = Timing(clock)
    app = app_of(model)
    assert set(answers(app, 3 * MEASURED, visits="many")) == {400} and not model.ran
    assert set(answers(app, 1)) == {200} and LOOP not in model.threads


@pytest.mark.parametrize("size", [(True, 100), (False, 300), (False, 20)])
def test_reasons_and_other_sizes_are_measured_separately(size: tuple[bool, int]) -> None:
    estimate = LatencyEstimate()
    for _ in range(MEASURED):
        estimate.add(SIZE, 0.0001, on_loop=False)
    assert estimate.quick(SIZE) and not estimate.quick(size)


def test_a_long_answer_on_the_loop_sends_its_size_to_the_pool_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    estimate, now = LatencyEstimate(), [1000.0]
    monkeypatch.setattr(pace, "monotonic", lambda: now[0])

    def measured(seconds: float, on_loop: bool = False) -> bool:
        for _ in range(MEASURED):
            estimate.add(SIZE, 0.0001, on_loop=False)
        assert estimate.quick(SIZE)
        estimate.add(SIZE, seconds, on_loop=True)
        assert not estimate.quick(SIZE)
        for _ in range(MEASURED):
            estimate.add(SIZE, 0.0001, on_loop=False)
        return estimate.quick(SIZE)

    assert measured(LIMIT * 1.1), "a little too long: measured anew"
    assert not measured(LONG * 1.1), "long: a minute in the pool"
    now[0] += PAUSE + 1
    assert estimate.quick(SIZE)
    estimate.add(SIZE, QUICK * 1.5, on_loop=True)
    assert estimate.quick(SIZE), "between the two limits nothing changes"


# --- declared


@pytest.mark.parametrize(("declared", "loop"), [(True, True), (False, False), (None, False)])
def test_a_model_that_declares_itself_quick_runs_on_the_loop_at_once(clock: Clock, declared: Any, loop: bool) -> None:
    model = Timing(clock)
    type(model).quick = declared
    try:
        answers(app_of(model), 1)
        assert (model.threads == [LOOP]) is loop
        answers(app_of(model), 3 * MEASURED)
        assert (LOOP in model.threads) is (declared is not False)
    finally:
        del type(model).quick


def test_what_a_model_declares_holds_for_small_bodies_and_until_it_is_slow() -> None:
    estimate = LatencyEstimate(declared=True)
    assert estimate.quick((False, DECLARED)) and not estimate.quick((False, DECLARED * 4))
    estimate.add((False, DECLARED), LONG * 2, on_loop=True)
    assert not estimate.quick((False, DECLARED)) and estimate.quick((False, 100))


# --- a model that hangs


async def longest_stall(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return what the work returns, and the longest time in which nothing else ran."""
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
    result = await work()
    over = True
    await ticking
    return result, max(stalls)


def test_a_model_that_hangs_from_the_first_request_on_delays_no_other_caller(clock: Clock) -> None:
    model = Timing(clock, hang=1.0)
    app = app_of(model, max_seconds=0.4)

    async def work() -> list[int]:
        late = asyncio.ensure_future(ask(app, 66))
        await asyncio.sleep(0)
        others = [await ask(app, 3), await ask(app, path="/livez"), await ask(app, 3)]
        assert not late.done(), "the others did not wait for it"
        return [*others, await late]

    statuses, stall = asyncio.run(longest_stall(work))
    assert statuses == [200, 200, 200, 504] and stall < 0.9
    assert LOOP not in model.threads


def test_a_model_measured_as_quick_that_blocks_the_loop_is_logged_and_goes_to_the_pool(
    clock: Clock, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "BLOCKED", 0.1)
    model = Timing(clock, hang=0.6)
    app = app_of(model)
    answers(app, MEASURED)
    assert answers(app, 1, visits=66) == [200]
    told = [record for record in caplog.records if record.getMessage() == "event loop blocked by a model"]
    assert len(told) == 1 and told[0].facts["model"] == "leads"  # type: ignore[attr-defined]
    answers(app, MEASURED + 5)
    answers(app, 2, mail="someone.with.a.longer.address@example.com" * 3)
    assert model.threads[MEASURED] == LOOP and LOOP not in model.threads[MEASURED + 1 :], "for a minute, in every size"
    assert Counter(visits for _, visits in model.ran) == {3: 2 * MEASURED + 7, 66: 1}, "and nothing is done twice"


def test_no_signal_is_used_against_a_model(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Any] = []
    before = signal.getsignal(signal.SIGALRM)  # pytest-timeout's
    for name in ("signal", "setitimer", "alarm", "pthread_kill", "raise_signal"):
        inner = getattr(signal, name)
        monkeypatch.setattr(signal, name, lambda *args, n=name, f=inner: (used.append((n, *args)), f(*args))[1])
    model = Timing(clock, hang=0.3)
    app = app_of(model)
    assert answers(app, MEASURED + 1, visits=3) and answers(app, 1, visits=66) == [200]
    assert not [call for call in used if call[0] != "signal" or call[1] == signal.SIGALRM]
    assert signal.getsignal(signal.SIGALRM) is before
    assert len(model.ran) == MEASURED + 2


# --- two versions


def test_a_challenger_is_measured_separately(clock: Clock) -> None:
    sides = [Timing(clock), Timing(clock)]
    champion, challenger = (ServedModel(model, "leads", 7 + i, {}, ASK) for i, model in enumerate(sides))
    answers(create_app(lambda: champion), MEASURED)
    rollout = Rollout("leads", 7, 8, "share", 0.5, "salt", "stage")
    split = ShareRollout.of(champion, challenger, rollout, RolloutCounters(), Metrics())
    theirs = next(f"L-{i}" for i in range(100) if rollout.chooses(f"L-{i}"))
    ours = next(f"L-{i}" for i in range(100) if not rollout.chooses(f"L-{i}"))
    app = create_app(lambda: split)
    answers(app, 2 * MEASURED, lead=ours)
    assert LOOP not in sides[0].threads[MEASURED:] and not sides[1].ran, "the challenger is not measured yet"
    answers(app, MEASURED, lead=theirs)
    assert LOOP not in sides[1].threads and len(sides[1].ran) == MEASURED
    answers(app, 1, lead=theirs)
    assert sides[1].threads[-1] == LOOP
    sides[1].seconds = LONG * 2
    answers(app, 3, lead=theirs)
    assert LOOP not in sides[1].threads[-2:], "a slow challenger goes back to the pool"
    quick = [[known.quick >= MEASURED for known in each.latency.classes.values()] for each in (champion, challenger)]
    assert quick == [[True], [False]], "the champion's own measurements stay"


# --- the pool


def test_while_every_thread_runs_a_late_call_callers_get_503_at_once() -> None:
    stuck, over = ThreadPool(count=2), threading.Event()

    async def main() -> list[int]:
        late = await asyncio.gather(*(stuck.run(over.wait, 0.1) for _ in range(2)), return_exceptions=True)
        start = time.perf_counter()
        with pytest.raises(HttpRefused) as full:
            await stuck.run(over.wait, 5.0)
        assert time.perf_counter() - start < 1.0
        assert json.loads(full.value.answer.body)["title"] == "Model worker threads exhausted"
        assert full.value.answer.headers == {"retry_after": "5"}
        over.set()
        while stuck.stuck:
            await asyncio.sleep(0.01)
        assert await stuck.run(lambda: 7, 5.0) == 7
        return [*(each.answer.status for each in late if isinstance(each, HttpRefused)), full.value.answer.status]

    assert asyncio.run(main()) == [504, 504, 503]


def test_an_error_of_the_model_is_not_taken_for_lateness() -> None:
    def fail() -> None:
        raise TimeoutError("the store does not answer")

    with pytest.raises(TimeoutError, match="the store"):
        asyncio.run(ThreadPool().run(fail, 5.0))


def test_what_a_thread_raises_is_told_once_and_not_complained_about_later(caplog: pytest.LogCaptureFixture) -> None:
    over = threading.Event()

    def fail() -> None:
        over.wait(5.0)
        raise ValueError("no such feature")

    async def main() -> None:
        threads = ThreadPool()
        with pytest.raises(HttpRefused):
            await threads.run(fail, 0.05)
        over.set()
        with pytest.raises(ValueError, match="no such feature"):
            await threads.run(fail, 5.0)
        while threads.stuck:
            await asyncio.sleep(0.01)
        gc.collect()

    asyncio.run(main())
    gc.collect()
    assert "never retrieved" not in caplog.text
