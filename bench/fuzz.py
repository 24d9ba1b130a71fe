"""Give random bytes to what reads HTTP, rules, notebooks and settings: `make test-fuzz`. FULL=1 takes an hour of CPU.

Each case is drawn from the seed printed, by mutation of valid texts, so that a failure can be repeated with `--reader NAME --seed N`.
What is read may be refused with an error of ours; anything else (another exception, a 5xx, a dead process, a case that
takes more than ten seconds of CPU) fails, and its input is kept in .bench/fuzz.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
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
from d2c_mlops.convert.check.rule import subject_of
from d2c_mlops.decisions.rules import DecisionRule, NotEvaluable
from d2c_mlops.errors import D2CError
from d2c_mlops.models.core.charter import Charter
from d2c_mlops.models.core.contract import Contract, column
from d2c_mlops.models.core.model import Model
from d2c_mlops.serving.app.app import ServedModel, create_app
from d2c_mlops.serving.http.uvicorn_protocol import FastHttpProtocol
from d2c_mlops.settings import load

SEED = 20_261_129
OUT = Path(".bench/fuzz")
CASE = 10.0  # seconds of CPU that a case may take
GROWTH, LENGTH, TELLING = (
    6.0,
    8_000,
    0.1,
)  # times as long for four times the bytes; bytes; seconds below which nothing is told
RECORD = {"lead_id": "L-1", "visits": 3, "day": "2024-02-01"}
BODY = json.dumps({"records": [RECORD]})
HEAD = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
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
    around: tuple[bytes, bytes] = (b"", b"")


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
        subject = subject_of(data, path, Path("nothing"))
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
        load(file.parent, environ={"D2C_SERVICE_MAX_BODY": data[:40].decode("utf-8", "replace").replace("\0", "")})

    def tolerant(data: bytes) -> None:
        with contextlib.suppress(D2CError):
            load(file.parent, environ={})
        read(data)

    return tolerant


READERS: dict[str, Callable[[], Reader]] = {
    "http": lambda: Reader(
        "http", http_reader(),
        (
            f"{HEAD}Content-Length: {len(BODY)}\r\n\r\n{BODY}".encode(),
            f"{HEAD}Transfer-Encoding: chunked\r\n\r\n{len(BODY):x}\r\n{BODY}\r\n0\r\n\r\n".encode(),
            HEAD.replace("json", "x-ndjson").encode() + b"Content-Length: 42\r\n\r\n" + json.dumps(RECORD).encode()[:41] + b"\n",
            b"GET /contract HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: gzip\r\n\r\nGET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n",
            HEAD.replace("predict", "feedback").encode() + b"Content-Length: 35\r\n\r\n" + b'{"action": "followed", "key": "P4"}',
        ),
        (b"1\r\na\r\n", b'{"a": 1}, ', b"[", b'{"a":', b'"a": 1, ', b"9", b"\n", b"{}\n", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        (HEAD.encode() + b"Content-Length: 9000000\r\n\r\n", b""),
    ),
    "rules": lambda: Reader(
        "rules", rule_reader(),
        (b"price > 3 and stock <= 5", b"abs(price - 3) / 2 < 1.5 or not price == 4", b"price in (1, 2, 3) and outputs.price >= inputs.stock * 2"),
        (b"price and ", b"-", b"(", b"not ", b"1+", b"a.", b"9", b"'", b"1,"),
    ),
    "notebooks": lambda: Reader(
        "notebooks", notebook_reader(), (json.dumps(NOTEBOOK).encode(), json.dumps(NOTEBOOK, indent=1).encode()),
        (b"a.a.a?", b"a ", b"x = 1\\n", b"(", b"<", b"#", b"\\n", b"!a ", b"a\\n", b"import a\\n", b"'", b"1.", b"df = df.drop('a')\\n", b"if a:\\n", b"password_"),
        (b'{"cells": [{"cell_type": "code", "id": "a", "metadata": {}, "outputs": [], "execution_count": null, "source": "', b'"}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}'),
    ),
    "settings": lambda: Reader(
        "settings", settings_reader(),
        (
            b"store = d2c_store\nrun_slots = 2\n[service]\nmode = production\nworkers = 2\nhosts = a.example, b.example\n",
            b"[schedule:daily]\nrun = a.ipynb\nat = weekly on Monday 06:00\nparams.a = {slot:%Y-%m-%d}\nzone = Europe/Berlin\n",
            b"[decisions:price]\nfield = price\nauto = price < 3\ndeadline = 24h\n[model:price]\nparams.a = 1\nrollout.max_errors = 0.1\n",
        ),
        (b"a = 1\n", b"[a]\n", b" ", b"=", b"%(a)s", b"store = ", b"\n", b"[schedule:a]\nat = every 5 minutes\n", b"9", b"*/1 "),
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


def fuzz(reader: Reader, seed: int, seconds: float) -> tuple[int, list[str]]:
    """Give a reader random cases for so many seconds of CPU; return their number and what went wrong, each kind once."""
    draw, count, found = random.Random(f"{reader.name}{seed}"), 0, dict[str, str]()
    end, late = time.process_time() + seconds, time.monotonic() + 2.0 * seconds  # where it has to wait
    last = OUT / f"{reader.name}.last"
    while time.process_time() < end and time.monotonic() < late:
        data = mutated(draw, reader.corpus)
        count += 1
        last.write_bytes(data)  # what is left when the process dies
        if (wrong := failure(reader, data)) and wrong not in found:
            file = OUT / f"{reader.name}-{seed}-{count}.bin"
            file.write_bytes(data)
            found[wrong] = f"{wrong} ({file})"
    last.unlink(missing_ok=True)
    return count, list(found.values())


def grown(reader: Reader, length: int = LENGTH) -> Iterator[tuple[str, float]]:
    """Yield each repeated piece with how many times as long four times its bytes take; 1 where that is too short to tell."""

    def took(data: bytes) -> float:
        start = time.process_time()
        if wrong := failure(reader, data):
            return CASE if "took more" in wrong else time.process_time() - start
        return time.process_time() - start

    before, behind = reader.around
    for piece in reader.repeated:
        small, large = ((before + (piece * (size // len(piece) + 1))[:size] + behind) for size in (length, 4 * length))
        took(small)  # what is loaded once
        slow = min(took(large) for _ in range(2))
        yield piece.decode(), slow / max(min(took(small) for _ in range(3)), 1e-6) if slow > TELLING else 1.0


def work(name: str, seed: int, seconds: float, told: Any) -> None:
    """Run one reader in this process."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    reader = READERS[name]()
    times = list(grown(reader))
    count, wrong = fuzz(reader, seed, max(0.0, seconds - time.process_time()))
    told.put((count, wrong, max(times, key=lambda each: each[1]), time.process_time()))


def main() -> int:
    """Run the readers, one after the other, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--minutes", type=float, default=60.0 if os.environ.get("FULL") == "1" else 20.0, help="of CPU, in all"
    )
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--reader", choices=READERS, action="append")
    given = parser.parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    names, aims, total = given.reader or list(READERS), [], 0.0
    for name in names:
        told: Any = multiprocessing.get_context("spawn").SimpleQueue()
        share = given.minutes * 60 / len(names)
        process = multiprocessing.get_context("spawn").Process(target=work, args=(name, given.seed, share, told))
        process.start()
        while process.is_alive() and told.empty():
            time.sleep(0.1)
        if told.empty():
            aims.append(
                Aim(
                    f"{name}: no crash",
                    f"the process ended with {process.exitcode}; its input: {OUT / name}.last",
                    False,
                )
            )
            continue
        count, wrong, (piece, times), cpu = told.get()
        process.join()
        total += cpu
        aims.append(
            Aim(
                f"{name}: no failure, no 5xx",
                f"{count:,} cases, seed {given.seed}: {'; '.join(wrong) or 'none'}",
                not wrong,
            )
        )
        aims.append(
            Aim(
                f"{name}: 4 n bytes take at most {GROWTH:g} times as long as n",
                f"{times:.1f} times ({piece!r})",
                times <= GROWTH,
            )
        )
        print(*aims[-2:], sep="\n", flush=True)
    print(f"{total / 60:.1f} minutes of CPU")
    os.environ.setdefault("STRICT", "1")
    return close(aims)


if __name__ == "__main__":
    sys.exit(main())
