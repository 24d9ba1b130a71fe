"""Champion and challenger in one service, under load: who is asked, how fast a change holds, what it costs: `make test-rollout`."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import orjson
from aims import Aim, close, table

from d2c_mlops import verbs
from d2c_mlops.data.tables import Tables
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.model import Evaluation
from d2c_mlops.registry.versions import new_model, register
from d2c_mlops.serving.app.app import ServiceContext, create_app
from d2c_mlops.serving.http.metrics import Metrics
from d2c_mlops.serving.log.log_collection import collect_log_folder
from d2c_mlops.serving.predict.predictor import ServedModel
from d2c_mlops.serving.rollout.promotion import promote
from d2c_mlops.serving.rollout.rollout_commands import abort_rollout, promote_challenger, start_rollout
from d2c_mlops.serving.rollout.rollout_history import state_file_of
from d2c_mlops.serving.rollout.rollout_status import live_worker_reports, rollout_status
from d2c_mlops.serving.rollout.rollout_watcher import RolloutWatcher
from d2c_mlops.serving.rollout.state_file import Rollout
from d2c_mlops.serving.rollout.variant_counters import RolloutCounters
from d2c_mlops.serving.rollout.variants import ShareRollout
from d2c_mlops.settings import RolloutSettings, Settings, load_settings

MODEL = "ranking"
KEYS = [f"C-{i:06}" for i in range(100_000)]
BULK = 5_000
CLIENTS = 8
Who = dict[str, tuple[int, str]]


def ask(url: str, keys: list[str]) -> Who:
    """Return version and variant of each key's answer; the answer itself must be that version's."""
    found: Who = {}
    for start in range(0, len(keys), BULK):
        body = orjson.dumps({"records": [{"customer_id": key} for key in keys[start : start + BULK]]})
        request = urllib.request.Request(f"{url}/predict", body, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            answer = orjson.loads(response.read())
        said = answer["predictions"]
        if [one["customer_id"] for one in said] != keys[start : start + BULK]:
            raise SystemExit("an answer came out of order")
        for one in said:
            version = one.get("version", answer["version"])
            if (one["rank"] >= version - 1) is not (one["rank"] < version):
                raise SystemExit(f"not the answer of version {version}: {one}")
            found[one["customer_id"]] = (version, one.get("variant", "champion"))
    return found


class Hammer:
    """Clients that ask single records all the time, and note when which version answered."""

    def __init__(self, urls: list[str]) -> None:
        self.urls, self.stop = urls, threading.Event()
        self.seen: list[tuple[float, str, int, str]] = []  # when it was asked, key, version, variant
        self.took: list[float] = []
        self.wrong: list[str] = []
        self.threads = [threading.Thread(target=self._ask, args=(i,), daemon=True) for i in range(CLIENTS)]

    def __enter__(self) -> Hammer:
        for each in self.threads:
            each.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop.set()
        for each in self.threads:
            each.join()

    def _ask(self, number: int) -> None:
        import http.client

        host = self.urls[number % len(self.urls)].removeprefix("http://")
        line = http.client.HTTPConnection(host, timeout=20)
        turn = number
        while not self.stop.is_set():
            turn += CLIENTS
            key, start = KEYS[turn % len(KEYS)], time.monotonic()
            line.request("POST", "/predict", json.dumps({"records": [{"customer_id": key}]}))
            response = line.getresponse()
            body = response.read()
            self.took.append(time.monotonic() - start)
            if response.status != 200:
                self.wrong.append(f"{response.status} {body[:200]!r}")
                continue
            answer = orjson.loads(body)
            one = answer["predictions"][0]
            version = one.get("version", answer["version"])
            self.seen.append((start, key, version, one.get("variant", "champion")))

    def until(self, since: float, wanted: Callable[[str], int]) -> float:
        """Return the seconds after which no answer was another than `wanted`; call it a moment later."""
        late = [at for at, key, version, _ in self.seen if at >= since and version != wanted(key)]
        return max(late) - since if late else 0.0


def trained(folder: Path, name: str, add: float, **params: object) -> Settings:
    """Register a version and return the settings."""
    settings = load_settings(folder)
    model = new_model(name, settings, {"add": add, **params})
    example = model.records(Tables({}), date(2026, 1, 1))
    register(name, model, Evaluation("auc", 0.5 + add / 10, {"nothing": 0.1}, False), settings=settings,
             as_of=date(2026, 1, 1), example=example)  # fmt: skip
    return settings


@contextmanager
def running(settings: Settings) -> Iterator[list[str]]:
    """Two replicas with the same state: one of two workers, one of one."""
    with verbs.serve(MODEL, settings=settings, workers=2) as one, verbs.serve(MODEL, settings=settings) as two:
        limit = time.monotonic() + 60
        while len(live_worker_reports(MODEL, settings)) < 3 and time.monotonic() < limit:
            time.sleep(0.1)
        yield [one.url, two.url]


def by(rollout: Rollout) -> Callable[[str], int]:
    """Return what says which version has to answer a key."""
    return lambda key: (rollout.challenger or 0) if rollout.in_progress and rollout.chooses(key) else rollout.champion


def shares(settings: Settings) -> Iterator[Aim]:
    """Ask all keys: the share, the same ones after a restart and in another replica, all of them still in when widened."""
    ten = start_rollout(MODEL, settings, share=0.1).rollout
    assert ten is not None
    with running(settings) as urls:
        first, other = (ask(url, KEYS) for url in urls)
        share = sum(version == 2 for version, _ in first.values()) / len(KEYS)
        yield Aim("100,000 keys at 10 %: 10 ± 0.3 %", f"{share:.3%}", abs(share - 0.1) <= 0.003)
        differ = sum(first[key] != other[key] for key in KEYS)
        yield Aim("another replica divides the same way", f"{differ} of 100,000 keys differ", differ == 0)
    with running(settings) as urls:
        again = ask(urls[0], KEYS)
        differ = sum(first[key] != again[key] for key in KEYS)
        yield Aim("the same after a restart", f"{differ} of 100,000 keys differ", differ == 0)
        start_rollout(MODEL, settings, share=0.25)
        wider = ask(urls[1], KEYS)
        left = sum(first[key][0] == 2 and wider[key][0] != 2 for key in KEYS)
        grown = sum(version == 2 for version, _ in wider.values()) / len(KEYS)
        yield Aim(
            "who is in stays in when 10 % become 25 %",
            f"{left} keys left, {grown:.3%} are in",
            left == 0 and abs(grown - 0.25) < 0.005,
        )


def under_load(settings: Settings) -> Iterator[Aim]:
    """Widen, abort, shadow and promote while clients ask without a pause."""
    with running(settings) as urls, Hammer(urls) as clients:

        def change(act: Callable[[], object]) -> float:
            time.sleep(1.0)
            begun = time.monotonic()
            act()
            time.sleep(max(0.0, 6.0 - (time.monotonic() - begun)))
            now = rollout_status(MODEL, settings).rollout
            assert now is not None
            return clients.until(begun, by(now))

        took = {
            "narrow to 5 %": change(partial(start_rollout, MODEL, settings, share=0.05)),
            "widen to 50 %": change(partial(start_rollout, MODEL, settings, share=0.5)),
            "abort": change(partial(abort_rollout, MODEL, settings, reason="bench")),
        }
        for what, seconds in took.items():
            yield Aim(
                f"{what} holds in 3 workers under load in < 5 s", f"{seconds:.2f} s from the command on", seconds < 5.0
            )
        begun = time.monotonic()
        start_rollout(MODEL, settings, shadow=True, number=2)  # it was aborted: not taken again by itself
        time.sleep(6.0)
        returned = sum(version == 2 for at, _, version, _ in clients.seen if at >= begun)
        asked = sum(at >= begun for at, *_ in clients.seen)
        unheard = rollout_status(MODEL, settings).figures["challenger"]["answers"]
        yield Aim(
            "a shadow is never returned",
            f"{returned} of {asked} answers; it answered {unheard} unheard",
            returned == 0 and unheard > 0,
        )
        seconds = change(partial(promote_challenger, MODEL, settings, override=True, by="bench", reason="bench"))
        yield Aim("promote swaps without a restart in < 5 s", f"{seconds:.2f} s from the command on", seconds < 5.0)
        yield Aim(
            "no request under all of that failed", f"{len(clients.wrong)} of {len(clients.seen)}", not clients.wrong
        )
    folder = state_file_of(MODEL, settings)[1].parents[1] / "log"
    found = collect_log_folder(Ledger.of(settings), folder)
    logged = found.new_predictions
    yield Aim(
        "the ledger has the predictions of both",
        f"{logged} rows, {found.faulty} faulty lines",
        logged > 0 and not found.faulty,
    )


def guarded(folder: Path, number: int, what: str, reason: str, **params: object) -> Iterator[Aim]:
    """Roll out a bad version and see that the service takes it out by itself and no caller notices."""
    settings = trained(folder, MODEL, number - 1.0, **params)
    with running_after(settings) as urls, Hammer(urls) as clients:
        begun = time.monotonic()
        while rollout_status(MODEL, settings).in_progress and time.monotonic() - begun < 20:
            time.sleep(0.1)
        seconds = time.monotonic() - begun
        time.sleep(2.0)
        since = time.monotonic() - 1.0
        left = sum(
            version == number or variant == "challenger" for at, _, version, variant in clients.seen if at >= since
        )
    told = rollout_status(MODEL, settings).events[-1]
    said = f"after {seconds:.1f} s, {len(clients.wrong)} of {len(clients.seen)} requests failed: {told.reason}"
    met = told.by == "service" and told.reason.startswith(reason) and left == 0 and not clients.wrong
    yield Aim(f"a version that {what} is taken out by the service itself, unnoticed", said, met and seconds < 15)
    time.sleep(0.5)


@contextmanager
def running_after(settings: Settings) -> Iterator[list[str]]:
    """A rollout of the newest version to half of the keys, and what runs it."""
    start_rollout(MODEL, settings, share=0.5)
    with running(settings) as urls:
        yield urls


def cost() -> Iterator[Aim]:
    """Compare the time of a request in-process: a service that can follow a rollout, and one that cannot."""
    sys.path.insert(0, str(Path(__file__).parent))
    from ranker import Ranking

    sides = {n: ServedModel(Ranking(n - 1.0), MODEL, n, {}, {}) for n in (1, 2)}
    held: list[ServedModel] = [sides[1]]
    with TemporaryDirectory() as name:
        watcher = RolloutWatcher(
            sides, 1, lambda served: held.__setitem__(0, served), Metrics(), Path(name) / "rollout.json"
        )
    split = ShareRollout.of(
        sides[1],
        sides[2],
        Rollout(MODEL, 1, 2, "share", 0.1, "2", guards=RolloutSettings()),
        RolloutCounters(),
        Metrics(),
    )
    apps = {"alone": create_app(lambda: sides[1], ServiceContext()), "with a challenger, no rollout": create_app(lambda: held[0], ServiceContext()),
            "at 10 %": create_app(lambda: split, ServiceContext())}  # fmt: skip
    bodies = {n: orjson.dumps({"records": [{"customer_id": key} for key in KEYS[:n]]}) for n in (1, 100)}
    rows, times = [], {}
    for count, body in bodies.items():
        spent: dict[str, list[float]] = {name: [] for name in apps}
        for _ in range(15):
            for name, app in apps.items():
                spent[name].append(asyncio.run(_timed(app, body, 400 if count == 1 else 100)))
        for name, found in spent.items():
            times[name, count] = statistics.median(found) * 1e6
            rows.append({"service": name, "records": str(count), "CPU µs a request": f"{times[name, count]:.1f}"})
    watcher.closing.set()
    print(table(rows))
    more = {n: times["with a challenger, no rollout", n] - times["alone", n] for n in bodies}
    worst = max(more[n] / times["alone", n] for n in bodies)
    yield Aim(
        "no rollout, no cost: < 3 % of a request in-process",
        f"{more[1]:+.2f} µs at 1 record, {more[100]:+.2f} µs at 100",
        worst < 0.03,
    )


async def _timed(app: Callable[..., object], body: bytes, times: int) -> float:
    scope = {"type": "http", "path": "/predict", "method": "POST", "headers": [(b"content-type", b"application/json")]}

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, object]) -> None:
        pass

    start = time.process_time()
    for _ in range(times):
        await app(scope, receive, send)  # type: ignore[misc]
    return (time.process_time() - start) / times


def main() -> int:
    """Run all of it, print the aims."""
    os.environ |= {"OMP_NUM_THREADS": "1", "BENTOML_DO_NOT_TRACK": "True", "MLFLOW_DISABLE_TELEMETRY": "true"}
    aims = list(cost())
    with TemporaryDirectory(prefix="d2c-rollout-") as name:
        folder = Path(name)
        (folder / "ranker.py").write_text((Path(__file__).parent / "ranker.py").read_text())
        (folder / "settings.ini").write_text("[d2c]\npackages = ranker\n[rollout]\nmin_answers = 100\n")
        os.environ["PYTHONPATH"] = str(folder)
        os.chdir(folder)
        settings = trained(folder, MODEL, 0.0)
        promote(MODEL, settings, override=True, by="bench", reason="the first")
        trained(folder, MODEL, 1.0)
        for part in (shares(settings), under_load(settings),
                     guarded(folder, 3, "fails", "errors", fails=True),
                     guarded(folder, 4, "is slow", "latency", sleep_ms=60.0)):  # fmt: skip
            for aim in part:
                print(aim, flush=True)
                aims.append(aim)
    return close(aims)


if __name__ == "__main__":
    sys.exit(main())
