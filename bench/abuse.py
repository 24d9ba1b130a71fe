"""What a service takes: generated and broken requests, slow callers, a thousand connections, SIGTERM and kill -9: `make test-abuse`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import re
import resource
import signal
import statistics
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import orjson
import pandas as pd
import psutil
from aims import Aim, close
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from sqlalchemy import select

from d2c_mlops import verbs
from d2c_mlops.ledger.schema import predictions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.lead_scoring.lead_scoring import LeadScorer
from d2c_mlops.registry.versions import register
from d2c_mlops.serving.local.server import Server
from d2c_mlops.serving.log.log_collection import collect_log_folder
from d2c_mlops.serving.rollout.promotion import promote
from d2c_mlops.settings import Settings, load_settings

ROOT = Path(__file__).resolve().parents[1]
SCHEMATHESIS = ROOT / ".bench/abuse/bin/schemathesis"
MODEL = "lead_scoring"
KEY = ""  # the API key, once it is made
Records = list[dict[str, Any]]


@dataclass
class Bench:
    """A project with one model, its records, and what it has to answer to each of them."""

    settings: Settings
    records: Records
    answers: dict[str, dict[str, Any]]

    @classmethod
    def make(cls, folder: Path) -> Bench:
        global KEY
        (folder / "settings.ini").write_text("[d2c]\n[service]\nmode = production\nread_seconds = 3\n")
        held = load_settings(folder)
        tables, as_of = LeadScorer.example()
        model = LeadScorer().fit(tables, as_of)
        asked = model.records(tables, as_of)
        register(MODEL, model, model.evaluate(tables, as_of), settings=held, as_of=as_of, example=asked)
        promote(MODEL, held, override=True, by="bench", reason="the only one")
        said = subprocess.run([sys.executable, "-m", "d2c_mlops", "keys", "create", "bench", "--model", MODEL, "--json"],
                              cwd=folder, capture_output=True, text=True, check=True)  # fmt: skip
        KEY = json.loads(said.stdout)["token"]
        told = model.predict(asked).astype(object).where(lambda f: f.notna(), None)
        records = [{k: None if pd.isna(v) else v for k, v in row.items()} for row in asked.to_dict("records")]
        answers = {row["lead_id"]: row for row in told.to_dict("records")}
        return cls(held, records, answers)

    @contextmanager
    def serving(self, port: int | None = None) -> Iterator[Server]:
        with verbs.serve(MODEL, settings=self.settings, port=port) as server:
            yield server

    def right(self, body: bytes, record: dict[str, Any]) -> bool:
        """Return whether an answer is the model's own."""
        (one,) = orjson.loads(body)["predictions"]
        wanted = self.answers[record["lead_id"]]
        return all(one[name] == value or abs(one[name] - value) < 1e-9 for name, value in wanted.items()
                   if value is not None)  # fmt: skip


def line(url: str, timeout: float = 30) -> HTTPConnection:
    return HTTPConnection(urlsplit(url).netloc, timeout=timeout)


def post(
    connection: HTTPConnection, body: bytes, path: str = "/predict", **headers: str
) -> tuple[int, bytes, dict[str, str]]:
    own = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    connection.request("POST", path, body, own | {k.replace("_", "-"): v for k, v in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.read(), {k.lower(): v for k, v in answer.getheaders()}


def asked(record: dict[str, Any]) -> bytes:
    return orjson.dumps({"records": [record]})


# --- generated requests


def generated(url: str, cases: int) -> list[Aim]:
    """Let schemathesis make requests from the service's own OpenAPI document until there were enough of them."""
    made, failures, seed = 0, [], 0
    while made < cases and seed < 20:
        seed += 1
        command = [str(SCHEMATHESIS), "--config-file", str(ROOT / "bench/abuse.toml"), "run", f"{url}/openapi.json", "--max-examples", str(max(100, cases // 3)), "--seed", str(seed),
                   "--checks", "all", "--phases", "examples,coverage,fuzzing", "--no-color", "--header", f"Authorization: Bearer {KEY}",
                   "--request-timeout", "60"]  # fmt: skip
        own = {"SCHEMATHESIS_HOOKS": "abuse_hooks", "PYTHONPATH": str(ROOT / "bench")}
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT / ".bench", env=os.environ | own)
        text = done.stdout + done.stderr
        found = re.search(r"([\d,]+) generated", text)
        if not found:
            raise SystemExit(f"schemathesis said nothing of its cases:\n{text[-4000:]}")
        made += int(found[1].replace(",", ""))
        if done.returncode:
            failures.append(text)
            Path("/tmp/d2c-schemathesis.txt").write_text(text)
            break
    said = failures[0].strip().splitlines()[-1] if failures else "none"
    where = "; all of it: /tmp/d2c-schemathesis.txt" if failures else ""
    return [
        Aim(f"schemathesis: at least {cases:,} cases", f"{made:,}", made >= cases),
        Aim("schemathesis: no 5xx, no violation of the schema", f"{said}{where}", not failures),
    ]


# --- broken requests


def fuzzed(bench: Bench, url: str, cases: int) -> Aim:
    """Send bodies that are broken in every way that hypothesis finds, and right ones between them."""
    seen: Counter[int] = Counter()
    wrong: list[str] = []
    scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40)
    values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4), max_leaves=12)  # fmt: skip
    names = st.sampled_from(sorted({name for record in bench.records for name in record}))
    changed = st.tuples(st.sampled_from(bench.records), st.dictionaries(names, values, max_size=5)).map(
        lambda both: dump({"records": [both[0] | both[1]]})
    )
    cut = st.tuples(st.sampled_from(bench.records), st.integers(0, 400)).map(lambda both: asked(both[0])[: both[1]])
    deep = st.integers(1, 100_000).map(lambda n: b'{"records":' + b"[" * n)
    bodies = (
        changed | cut | deep | st.binary(max_size=300) | values.map(dump) | values.map(lambda v: dump({"records": v}))
    )
    paths = st.sampled_from(["/predict", "/explain", "/feedback"])
    kinds = st.sampled_from(
        ["application/json", "application/x-ndjson", "text/plain", "", "application/json; charset=utf-16"]
    )
    packed = st.sampled_from(["", "gzip", "br"])
    connection = line(url)

    @examples(
        max_examples=cases,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(bodies, paths, kinds, packed)
    def send(body: bytes, path: str, kind: str, encoding: str) -> None:
        more = {"content_encoding": encoding} if encoding else {}
        try:
            status, said, headers = post(connection, body, path, content_type=kind, **more)
        except (HTTPException, OSError):
            connection.close()
            return
        seen[status] += 1
        problem = headers.get("content-type", "").startswith("application/problem+json")
        if status >= 500 or (status >= 400 and not problem) or b"Traceback" in said:
            wrong.append(f"{status} {path} {body[:80]!r}")
        if sum(seen.values()) % 50 == 0:
            record = random.choice(bench.records)
            status, said, _ = post(connection, asked(record))
            if status != 200 or not bench.right(said, record):
                wrong.append(f"{status} to a request that is right")

    send()
    return Aim(f"{cases:,} broken bodies: no 5xx, each refusal a problem, right requests between them answered rightly",
               f"{dict(sorted(seen.items()))}; wrong: {wrong[:3] or 'none'}", not wrong and sum(seen.values()) > 0.9 * cases)  # fmt: skip


def dump(value: Any) -> bytes:
    return json.dumps(value, default=str).encode("utf-8", "surrogatepass")


# --- many and slow callers


def crowded(bench: Bench, url: str, many: int) -> list[Aim]:
    """Hold connections open, some of them sending a byte a second, while somebody asks."""
    return asyncio.run(_crowded(bench, url, many))


async def _crowded(bench: Bench, url: str, many: int) -> list[Aim]:
    host, port = urlsplit(url).hostname, urlsplit(url).port
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n"
    opened = [await asyncio.open_connection(host, port) for _ in range(many)]

    async def slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        writer.write(head.encode())
        with contextlib.suppress(ConnectionError):
            for _ in range(30):
                writer.write(b"{")
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    said = await asyncio.wait_for(reader.read(15), 1)
                    return int(said.split()[1]) if said else 0
        return -1

    slow = [asyncio.create_task(slowly(*each)) for each in opened[: many // 5]]
    await asyncio.sleep(0.5)
    took, right = await asyncio.to_thread(_ask_some, bench, url, 300)
    ended = Counter(await asyncio.gather(*slow))
    answered = 0
    for reader, writer in opened[many // 5 :][:50]:  # those that were idle still work
        record = random.choice(bench.records)
        body = asked(record)
        writer.write(head.replace("5000", str(len(body))).encode() + body)
        answered += b"200" in await asyncio.wait_for(reader.readline(), 10)
    for _, writer in opened:
        writer.close()
    p50, p99 = statistics.median(took) * 1e3, sorted(took)[int(0.99 * len(took))] * 1e3
    return [
        Aim(f"{many:,} open connections: every caller answered rightly", f"{right} of {len(took)}, p50 {p50:.1f} ms, p99 {p99:.1f} ms", right == len(took)),
        Aim("connections that idled still work", f"{answered} of 50", answered == 50),
        Aim(f"{len(slow)} callers that send a byte a second are told 408", f"{dict(ended)}", set(ended) == {408}),
    ]  # fmt: skip


def _ask_some(bench: Bench, url: str, times: int) -> tuple[list[float], int]:
    connection, took, right = line(url), [], 0
    for _ in range(times):
        record, start = random.choice(bench.records), time.perf_counter()
        status, said, _ = post(connection, asked(record))
        took.append(time.perf_counter() - start)
        right += status == 200 and bench.right(said, record)
    return took, right


# --- SIGTERM


@dataclass
class Heard:
    """What callers were told."""

    acknowledged: set[str] = field(default_factory=set)  # prediction ids that were said to be logged
    wrong: list[str] = field(default_factory=list)
    count: int = 0


def told_to_stop(bench: Bench, rounds: int, clients: int = 8) -> list[Aim]:
    """SIGTERM at a random moment under load: what was acknowledged is in the ledger once, and no answer is wrong."""
    heard, codes = Heard(), []
    for _ in range(rounds):
        with bench.serving() as server:
            ending = threading.Event()
            threads = [
                threading.Thread(target=_hammer, args=(bench, server.url, heard, ending)) for _ in range(clients)
            ]
            for each in threads:
                each.start()
            time.sleep(random.uniform(0.5, 2))
            server.process.send_signal(signal.SIGTERM)
            codes.append(server.process.wait(60))
            ending.set()
            for each in threads:
                each.join()
    found = logged(bench)
    lost = heard.acknowledged - set(found)
    return [
        Aim(f"SIGTERM under load, {rounds} times: no acknowledged prediction lost, none twice",
            f"{len(heard.acknowledged):,} acknowledged, {len(lost)} lost, {len(found) - len(set(found))} double",
            not lost and len(found) == len(set(found)) and len(heard.acknowledged) > 0),
        Aim("SIGTERM under load: no wrong answer", f"{heard.count:,} answers, wrong: {heard.wrong[:3] or 'none'}", not heard.wrong),
        Aim("SIGTERM under load: the service ends by itself", f"exit codes {dict(Counter(codes))}", set(codes) <= {0, -signal.SIGTERM}),
    ]  # fmt: skip


def _hammer(bench: Bench, url: str, heard: Heard, ending: threading.Event) -> None:
    connection = line(url, 20)
    while not ending.is_set():
        record = random.choice(bench.records)
        try:
            status, said, headers = post(connection, asked(record))
        except (HTTPException, OSError):
            connection.close()
            if ending.wait(0.02):
                return
            continue
        heard.count += 1
        if status == 200:
            if not bench.right(said, record):
                heard.wrong.append(said[:200].decode())
            if headers.get("x-prediction-logged") == "true":
                heard.acknowledged.add(orjson.loads(said)["predictions"][0]["prediction_id"])
        elif status != 503:
            heard.wrong.append(f"{status} {said[:200]!r}")


def logged(bench: Bench) -> list[str]:
    """Collect what services logged and return the ids of all predictions."""
    ledger = Ledger.of(bench.settings)
    for folder in (bench.settings.store / "serving").glob("*/log"):
        collect_log_folder(ledger, folder)
    with ledger.read() as connection:
        return list(connection.execute(select(predictions.c.id)).scalars())


# --- kill -9 and Idempotency-Key


def repeated(bench: Bench, trials: int) -> list[Aim]:
    """Kill -9 at a random moment while calls with keys go; call again: each key has one answer and is on record once."""
    first: dict[str, str] = {}
    sent: dict[str, dict[str, Any]] = {}
    differ: list[str] = []
    for trial in range(trials):
        with bench.serving() as server:
            mine = {f"{trial}-{n}-{uuid.uuid4().hex[:6]}": random.choice(bench.records) for n in range(60)}
            sent |= mine
            bomb = threading.Timer(random.uniform(0.0, 0.15), _kill, (server.process.pid,))
            bomb.start()
            for key, record in mine.items():
                with contextlib.suppress(HTTPException, OSError):
                    status, said, _ = post(line(server.url, 5), asked(record), idempotency_key=key)
                    if status == 200:
                        first[key] = said.decode()
            bomb.join()
        with bench.serving() as server:
            for key, record in mine.items():
                status, said, _ = post(line(server.url), asked(record), idempotency_key=key)
                if status != 200 or first.setdefault(key, said.decode()) != said.decode():
                    differ.append(f"{key}: {status} {said[:80]!r}")
        print(f"  kill -9: {trial + 1} of {trials}", file=sys.stderr, flush=True)
    found = Counter(logged(bench))
    ids = {key: orjson.loads(text)["predictions"][0]["prediction_id"] for key, text in first.items()}
    once = sum(found[id] == 1 for id in ids.values())
    return [
        Aim(f"kill -9, {trials} times: a call repeated with its Idempotency-Key gets the answer that was given",
            f"{len(first) - len(differ):,} of {len(sent):,}", not differ and len(first) == len(sent)),
        Aim("kill -9: each key is on record exactly once", f"{once:,} of {len(sent):,}", once == len(sent) == len(set(ids.values()))),
    ]  # fmt: skip


def _kill(pid: int) -> None:
    with contextlib.suppress(psutil.Error):
        top = psutil.Process(pid)
        for each in [*top.children(recursive=True), top]:
            with contextlib.suppress(psutil.Error):
                each.kill()


def main() -> int:
    """Try everything and print the aims."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--bodies", type=int, default=5_000)
    parser.add_argument("--connections", type=int, default=1_000)
    parser.add_argument("--rounds", type=int, default=5, help="services told to stop under load")
    parser.add_argument("--trials", type=int, default=50, help="services killed")
    parser.add_argument("--only", choices=("generated", "fuzzed", "crowded", "stopped", "killed"))
    asked_for = parser.parse_args()
    aims: list[Aim] = []
    wanted = lambda part: asked_for.only in (None, part)  # noqa: E731
    with TemporaryDirectory(ignore_cleanup_errors=True) as name:
        os.chdir(name)
        bench = Bench.make(Path(name))
        if any(wanted(part) for part in ("generated", "fuzzed", "crowded")):
            with bench.serving() as server:
                if wanted("generated"):
                    aims += generated(server.url, asked_for.cases)
                if wanted("fuzzed"):
                    aims.append(fuzzed(bench, server.url, asked_for.bodies))
                if wanted("crowded"):
                    aims += crowded(bench, server.url, asked_for.connections)
        if wanted("stopped"):
            aims += told_to_stop(bench, asked_for.rounds)
        if wanted("killed"):
            aims += repeated(bench, asked_for.trials)
        os.chdir("/")
    return close(aims)


if __name__ == "__main__":
    sys.exit(main())
