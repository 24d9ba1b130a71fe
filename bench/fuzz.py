"""Give random bytes to what reads HTTP, rules, notebooks and settings: `make test-fuzz`. FULL=1 takes an hour of CPU.

Each case is drawn from the seed printed, by mutation of valid texts, so that a failure can be repeated with `--reader NAME --seed N`.
What is read may be refused with an error of ours; anything else (another exception, a 5xx, a dead process, a case that
takes more than ten seconds of CPU) fails, and its input is kept in .bench/fuzz. After each round of 30 seconds of CPU a line is
added to .bench/fuzz/rounds.jsonl and printed. `--continue` counts the rounds of earlier runs whose reader has not changed since.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gzip
import hashlib
import json
import logging
import multiprocessing
import os
import random
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pandera.pandas as pa
import uvicorn
from aims import Aim, close
from uvicorn.server import ServerState

from d2c_mlops.convert.check.check import rules
from d2c_mlops.convert.check.rule import read_subject
from d2c_mlops.decisions.rules import DecisionRule, NotEvaluable
from d2c_mlops.errors import D2CError
from d2c_mlops.models.core.charter import Charter
from d2c_mlops.models.core.contract import Contract, column
from d2c_mlops.models.core.model import Model
from d2c_mlops.serving.app.app import ServedModel, create_app
from d2c_mlops.serving.http.uvicorn_protocol import FastHttpProtocol
from d2c_mlops.settings import load_settings

SEED = 20_261_129
OUT = Path(".bench/fuzz")
PACKAGE = Path(__file__).resolve().parents[1] / "d2c_mlops"
ROUND = 30.0  # seconds of CPU between two lines of the record
CASE = 10.0  # seconds of CPU that a case may take
GROWTH, LENGTH, TELLING = (
    6.0,
    8_000,
    0.1,
)  # times as long for four times the bytes; bytes; seconds below which nothing is told
RECORD = {"lead_id": "L-1", "visits": 3, "day": "2024-02-01"}
BODY = json.dumps({"records": [RECORD]})
HEAD = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
ZIPPED = gzip.compress(BODY.encode(), mtime=0)
NOTEBOOK = {
    "cells": [
        {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "# Sales\n- a [link](http://a.example)"},
        {
            "cell_type": "code", "id": "b", "metadata": {}, "execution_count": 1,
            "source": "import pandas as pd\n%matplotlib inline\ndf = pd.read_csv('sales.csv')\nfiles = !ls\ndf.head?\ndf.append(df)",
            "outputs": [{"output_type": "stream", "name": "stdout", "text": "1.5 jo@example.com"}],
        },
    ],
    "metadata": {"kernelspec": {"name": "python3", "language": "python", "display_name": "Python 3"}},
    "nbformat": 4, "nbformat_minor": 5,
}  # fmt: skip
TOKENS = [
    *(chr(i) for i in range(32)), "\r\n", "\r\n\r\n", "Host: a\r\n", "HTTP/2.0", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n",
    "1\r\na\r\n0\r\n\r\n", "Content-Encoding: gzip\r\n", "Expect: 100-continue\r\n", "Upgrade: websocket\r\n", "GET / HTTP/1.1\r\n", "[" * 300,
    "(" * 60, "9" * 400, "1e999", "NaN", "\\ud800", "\u202e", "²", "🙂", "not ", " and ", "price", "==", "in (", "'", '"', "%", "%%", "!", "?", "#",
    "{}", "[]", "null", "true", "[d2c]\n", "[service]\n", "mode = ", "=", ":", ";", "${a}", "%(a)s", "\x00", "\ufeff", "<", "```", "\n", " " * 50,
]  # fmt: skip


@dataclass(frozen=True)
class Reader:
    """What reads a text, valid texts to begin with, and pieces that are repeated to see how its time grows."""

    name: str
    read: Callable[[bytes], None]
    corpus: tuple[bytes, ...]
    repeated: tuple[bytes, ...]
    sources: tuple[str, ...] = ()  # of the package: rounds on other versions of them do not count
    whole: Callable[[bytes], bytes] = bytes  # puts a repeated piece into a text that is read to its end
    length: int = LENGTH  # bytes of a repeated piece

    def version(self) -> str:
        """Return a digest of the reader's sources."""
        files = (
            file
            for each in self.sources
            for file in sorted([*(PACKAGE / each).rglob("*.py"), PACKAGE / each])
            if file.is_file()
        )
        return hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:12]


class Lead(Model):
    """Visits times a tenth."""

    contract = Contract(
        name="leads", version="1.0.0", key="lead_id",
        inputs=pa.DataFrameSchema({
            "lead_id": column("string", "The lead", personal=True, example="L-1", max_length=20),
            "visits": column("integer", "Visits", unit="visits", ge=0, example=3),
            "day": column("date", "Day of the visit", nullable=True),
        }),
        outputs=pa.DataFrameSchema({
            "lead_id": column("string", "The lead", personal=True),
            "score": column("number", "Chance to buy", unit="share 0..1", ge=0),
        }),
    )  # fmt: skip
    charter = Charter()

    def predict(self, records: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"lead_id": records["lead_id"], "score": records["visits"] / 10})

    fit = evaluate = write = read = example = records = None  # type: ignore[assignment]


Lead.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]


class Line(asyncio.Transport):
    """A connection that keeps what is answered."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1), "sockname": ("127.0.0.1", 2)})
        self.answers, self.ended = bytearray(), False

    def write(self, data: Any) -> None:
        self.answers += data

    def close(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return self.ended

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None: ...


def http_reader() -> Callable[[bytes], None]:
    """Return what gives bytes to the server's protocol and the application behind it. Raises AssertionError for a 5xx."""
    model = Lead()
    served = ServedModel(model, "leads", 7, {}, RECORD)
    app = create_app(lambda: served)
    app.settings = app.keeping.settings.__class__(read_seconds=0.05)
    config = uvicorn.Config(
        app, log_level="critical", lifespan="off", http=FastHttpProtocol, ws="none", access_log=False
    )
    config.load()
    loop = asyncio.new_event_loop()

    async def exchange(data: bytes) -> bytes:
        line, state = Line(), ServerState()
        protocol = FastHttpProtocol(config=config, server_state=state, app_state={}, _loop=loop)
        protocol.connection_made(line)
        for start in range(0, len(data), 65_536):
            if not line.ended:
                protocol.data_received(data[start : start + 65_536])
                await asyncio.sleep(0)
        end, turns = time.monotonic() + 0.5, 0
        while (
            protocol.cycle is not None
            and not protocol.cycle.response_complete
            and time.monotonic() < end
            and not line.ended
        ):
            turns += 1
            if protocol.cycle.more_body and turns > 10:
                break  # the caller goes away before the body is whole
            await asyncio.sleep(0.0002)
        protocol.connection_lost(None)
        for task in list(state.tasks):
            with contextlib.suppress(Exception):
                await asyncio.wait_for(task, 1.0)
        return bytes(line.answers)

    def read(data: bytes) -> None:
        answers = loop.run_until_complete(exchange(data))
        assert b"HTTP/1.1 5" not in answers, answers[:300]

    return read


def rule_reader() -> Callable[[bytes], None]:
    """Return what reads a rule and applies it."""

    def read(data: bytes) -> None:
        rule = DecisionRule.of(data.decode("utf-8", "replace"), "[decisions:price] auto")
        for values in ({"price": 3.0}, {"price": None}, {"price": "²"}, {"price": 1e308}):
            with contextlib.suppress(NotEvaluable):  # neither true nor false
                assert rule.holds({"stock": 5}, values) in (True, False)

    return read


def notebook_reader() -> Callable[[bytes], None]:
    """Return what reads a notebook and applies every rule to it."""
    path = Path("fuzz.ipynb")

    def read(data: bytes) -> None:
        subject = read_subject(data, path, Path("nothing"))
        for rule in rules():
            with contextlib.suppress(RecursionError):  # told as a rule that could not be applied
                for _ in rule.check(subject):
                    pass

    return read


def settings_reader() -> Callable[[bytes], None]:
    """Return what reads settings.ini and the settings of a service in the environment."""
    folder = TemporaryDirectory()
    file = Path(folder.name, "settings.ini")

    def read(data: bytes, _folder: Any = folder) -> None:
        file.write_bytes(b"[d2c]\n" + data)
        with contextlib.suppress(D2CError):
            load_settings(file.parent, environ={})
        load_settings(
            file.parent, environ={"D2C_SERVICE_MAX_BODY": data[:40].decode("utf-8", "replace").replace("\0", "")}
        )

    return read


def chunked(body: bytes) -> bytes:
    """Return a request with a body that is whole."""
    return f"{HEAD}Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"


def celled(source: bytes) -> bytes:
    """Return a notebook with a cell of that source."""
    cell = (
        b'{"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "execution_count": null, "source": "'
        + source
        + b'"}'
    )
    return b'{"cells": [' + cell + b'], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'


READERS: dict[str, Callable[[], Reader]] = {
    "http": lambda: Reader(
        "http", http_reader(),
        (
            f"{HEAD}Content-Length: {len(BODY)}\r\n\r\n{BODY}".encode(),
            f"{HEAD}Transfer-Encoding: chunked\r\n\r\n{len(BODY):x}\r\n{BODY}\r\n0\r\n\r\n".encode(),
            HEAD.replace("json", "x-ndjson").encode() + b"Content-Length: 42\r\n\r\n" + json.dumps(RECORD).encode()[:41] + b"\n",
            b"GET /contract HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\nGET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n",
            HEAD.replace("predict", "feedback").encode() + b"Content-Length: 35\r\n\r\n" + b'{"action": "followed", "key": "P4"}',
            f"{HEAD}Content-Encoding: gzip\r\nContent-Length: {len(ZIPPED)}\r\n\r\n".encode() + ZIPPED,
            f"{HEAD}Authorization: Bearer abc\r\nIdempotency-Key: k-1\r\nOrigin: http://localhost\r\nContent-Length: {len(BODY)}\r\n\r\n{BODY}".encode(),
            b"GET /openapi.json?a=%41&b[]=1 HTTP/1.1\r\nHost: localhost:3000\r\nAccept: text/html;q=0.5, */*\r\nCookie: a=b; c=d\r\n\r\n",
        ),
        (b"1, ", b'{"a": 1}, ', b"[", b'{"a":', b'"a": 1, ', b"9", b"\n", b"{}\n", b"\\ud83d", b"\\u0041", b"-", b"1e9", b'{"lead_id": "L-1", "visits": 3}, '),
        ("serving/http", "serving/app", "serving/predict", "models/core"), chunked, 50_000,
    ),
    "rules": lambda: Reader(
        "rules", rule_reader(),
        (b"price > 3 and stock <= 5", b"abs(price - 3) / 2 < 1.5 or not price == 4", b"price in (1, 2, 3) and outputs.price >= inputs.stock * 2"),
        (b"price and ", b"-", b"(", b"not ", b"1+", b"a.", b"9", b"'", b"1,"),
        ("decisions/rules.py",),
    ),
    "notebooks": lambda: Reader(
        "notebooks", notebook_reader(), (json.dumps(NOTEBOOK).encode(), json.dumps(NOTEBOOK, indent=1).encode()),
        (b"a.a.a?", b"a ", b"x = 1\\n", b"(", b"<", b"#", b"\\n", b"!a ", b"a\\n", b"import a\\n", b"'", b"1.", b"df = df.drop('a')\\n", b"if a:\\n", b"password_"),
        ("convert/check", "convert/source", "convert/meaning", "convert/api_changes"), celled,
    ),
    "settings": lambda: Reader(
        "settings", settings_reader(),
        (
            b"store = d2c_store\nrun_slots = 2\n[service]\nmode = production\nworkers = 2\nhosts = a.example, b.example\n",
            b"[schedule:daily]\nrun = a.ipynb\nat = weekly on Monday 06:00\nparams.a = {slot:%Y-%m-%d}\nzone = Europe/Berlin\n",
            b"[decisions:price]\nfield = price\nauto = price < 3\ndeadline = 24h\n[model:price]\nparams.a = 1\nrollout.max_errors = 0.1\n",
        ),
        (b"a = 1\n", b"[a]\n", b" ", b"=", b"%(a)s", b"store = ", b"\n", b"[schedule:a]\nat = every 5 minutes\n", b"9", b"*/1 "),
        ("settings",),
    ),
}  # fmt: skip


def mutated(draw: random.Random, corpus: tuple[bytes, ...]) -> bytes:
    """Return a valid text with up to eight changes: bytes flipped, cut, doubled or moved, tokens put in."""
    data = bytearray(draw.choice(corpus))
    for _ in range(draw.choice((1, 1, 2, 3, 5, 8))):
        at, size = draw.randrange(len(data) + 1), draw.choice((1, 1, 2, 8, 60))
        match draw.randrange(7):
            case 0:
                data[at : at + 1] = bytes([draw.randrange(256)])
            case 1:
                del data[at : at + size]
            case 2:
                data[at:at] = draw.choice(TOKENS).encode("utf-8", "surrogatepass")
            case 3:
                data[at:at] = data[at : at + size] * draw.choice((1, 3, 50))
            case 4:
                other = draw.choice(corpus)
                data[at:] = other[draw.randrange(len(other)) :]
            case 5:
                data[at:at] = draw.randbytes(size)
            case _:
                piece = data[at : at + size]
                del data[at : at + size]
                there = draw.randrange(len(data) + 1)
                data[there:there] = piece
    return bytes(data)


class TooSlow(BaseException):
    """A case took longer than it may."""


@contextmanager
def limited() -> Iterator[None]:
    """Raise TooSlow where the block takes longer than a case may."""

    def ring(*_: Any) -> None:
        raise TooSlow

    former = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, CASE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, former)


def failure(reader: Reader, data: bytes) -> str:
    """Return what went wrong with a case; an empty text where it was read or refused."""
    try:
        with limited():
            reader.read(data)
    except D2CError:
        return ""
    except TooSlow:
        return f"took more than {CASE:g} s"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return ""


def fuzz(reader: Reader, seed: int, seconds: float, number: int = 0) -> tuple[int, list[str]]:
    """Give a reader random cases for so many seconds of CPU; return their number and what went wrong, each kind once."""
    draw, count, found = random.Random(f"{reader.name}{seed}{number or ''}"), 0, dict[str, str]()
    end = time.process_time() + seconds
    last = OUT / f"{reader.name}.last"
    while time.process_time() < end:
        data = mutated(draw, reader.corpus)
        count += 1
        last.write_bytes(data)  # what is left when the process dies
        if (wrong := failure(reader, data)) and wrong not in found:
            file = OUT / f"{reader.name}-{seed}-{number}-{count}.bin"
            file.write_bytes(data)
            found[wrong] = f"{wrong} ({file})"
    last.unlink(missing_ok=True)
    return count, list(found.values())


def grown(reader: Reader, length: int = 0) -> Iterator[tuple[str, float]]:
    """Yield each repeated piece with how many times as long four times its bytes take; 1 where that is too short to tell."""

    def took(data: bytes) -> float:
        start = time.process_time()
        if wrong := failure(reader, data):
            return CASE if "took more" in wrong else time.process_time() - start
        return time.process_time() - start

    length = length or reader.length
    for piece in reader.repeated:
        small, large = (
            reader.whole((piece * (size // len(piece) + 1))[: size // len(piece) * len(piece)])
            for size in (length, 4 * length)
        )
        took(small)  # what is loaded once
        slow = min(took(large) for _ in range(2))
        yield piece.decode(), slow / max(min(took(small) for _ in range(3)), 1e-6) if slow > TELLING else 1.0


@dataclass(frozen=True)
class Round:
    """What one reader was given in a round: `number` counts the rounds of a seed; in round 0 its growth is measured."""

    reader: str
    version: str
    seed: int
    number: int
    cases: int
    cpu: float
    wrong: tuple[str, ...]
    piece: str = ""
    times: float = 0.0

    def __str__(self) -> str:
        grown = f", {self.times:.1f} times as long for four times {self.piece!r}" if self.piece else ""
        return f"{time.strftime('%H:%M:%S')} {self.reader} {self.version} round {self.number}: {self.cases:,} cases, {self.cpu:.1f} s of CPU{grown}, wrong: {'; '.join(self.wrong) or 'none'}"


def record() -> Path:
    """Return the file with a line for each round."""
    return OUT / "rounds.jsonl"


def rounds() -> list[Round]:
    """Return all rounds that are written down; a line that was cut off is none."""
    found = []
    for line in record().read_text(encoding="utf-8").splitlines() if record().exists() else ():
        with contextlib.suppress(ValueError):
            facts = json.loads(line)
            found.append(Round(**{**facts, "wrong": tuple(facts["wrong"])}))
    return found


def work(name: str, seed: int, seconds: float, first: int) -> None:
    """Give one reader random cases in this process until its CPU time is spent; write down each round."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    reader = READERS[name]()
    version, spent, number = reader.version(), 0.0, first
    while spent < seconds:
        began = time.process_time()
        piece, times = max(grown(reader), key=lambda each: each[1]) if number == first else ("", 0.0)
        left = max(0.0, min(ROUND, seconds - spent) - (time.process_time() - began))
        count, wrong = fuzz(reader, seed, left, number)
        spent += (cpu := time.process_time() - began)
        done = Round(name, version, seed, number, count, round(cpu, 2), tuple(wrong), piece, round(times, 2))
        with record().open("a", encoding="utf-8") as file:
            file.write(json.dumps(vars(done)) + "\n")
        print(done, flush=True)
        number += 1


def judged(name: str, listed: list[Round], minutes: float, code: int) -> Iterator[Aim]:
    """Yield what the rounds of a reader, and the exit code of its process, show."""
    if code:
        yield Aim(f"{name}: no crash", f"the process ended with {code}; its input: {OUT / name}.last", False)
    wrong = [text for each in listed for text in each.wrong]
    seeds = ", ".join(map(str, sorted({each.seed for each in listed})))
    cases, cpu = sum(each.cases for each in listed), sum(each.cpu for each in listed) / 60
    said = (
        f"{cases:,} cases in {len(listed)} rounds, {cpu:.1f} minutes of CPU, seed {seeds}: {'; '.join(wrong) or 'none'}"
    )
    yield Aim(f"{name}: no failure, no 5xx in {minutes:.3g} minutes", said, not wrong and cpu >= minutes * 0.99)
    if grown := [each for each in listed if each.piece]:
        slowest = max(grown, key=lambda each: each.times)
        said = f"{slowest.times:.1f} times ({slowest.piece!r})"
        yield Aim(f"{name}: 4 n bytes take at most {GROWTH:g} times as long as n", said, slowest.times <= GROWTH)


def main() -> int:
    """Run the readers, each in a process of its own, as many at once as there are processors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=60.0 if os.environ.get("FULL") == "1" else 20.0, help="of CPU, in all"
    )
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--reader", choices=READERS, action="append")
    parser.add_argument("--at-once", type=int, default=os.cpu_count() or 1, help="readers")
    parser.add_argument("--continue", action="store_true", dest="goes_on", help="count what is written down already")
    given = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    if not given.goes_on:
        record().unlink(missing_ok=True)
    names, share = given.reader or list(READERS), given.minutes * 60 / len(given.reader or READERS)
    versions = {name: READERS[name]().version() for name in names}

    def counted(name: str) -> list[Round]:
        return [each for each in rounds() if (each.reader, each.version) == (name, versions[name])]

    waiting, running, codes = list(names), dict[str, Any](), dict[str, int]()
    while waiting or running:
        while waiting and len(running) < given.at_once:
            name = waiting.pop(0)
            before = counted(name)
            first = 1 + max((each.number for each in before if each.seed == given.seed), default=-1)
            left = share - sum(each.cpu for each in before)
            running[name] = multiprocessing.get_context("spawn").Process(
                target=work, args=(name, given.seed, left, first)
            )
            running[name].start()
        for name in [name for name, process in running.items() if not process.is_alive()]:
            codes[name] = running.pop(name).exitcode
        time.sleep(0.1)
    aims = [aim for name in names for aim in judged(name, counted(name), share / 60, codes[name])]
    print(f"{sum(each.cpu for name in names for each in counted(name)) / 60:.1f} minutes of CPU")
    os.environ.setdefault("STRICT", "1")
    return close(aims)


if __name__ == "__main__":
    sys.exit(main())
