"""Requests that cost the caller little and might cost the service much: their time, their memory and their answers are bounded."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import psutil
import pytest

from d2c_mlops.serving.app.app import ServiceContext, create_app
from d2c_mlops.serving.http import uvicorn_protocol as wire
from d2c_mlops.serving.predict import feedback
from d2c_mlops.serving.predict.predictor import ServedModel
from d2c_mlops.serving.predict.validation import LISTED, MORE
from d2c_mlops.settings import ServiceSettings
from support.cpu import least_cpu_seconds
from support.http_server import exchange, served
from support.lead_service import ASK, Lead
from support.local_client import LocalClient

MILLION = b",".join(b'"k%d":1' % i for i in range(1_000_000))
NDJSON = {"Content-Type": "application/x-ndjson"}
LEVELS = 100_000


def memory() -> int:
    """Return the bytes of memory of this process."""
    return int(psutil.Process().memory_info().rss)


# --- many fields that nobody knows


@pytest.mark.parametrize(
    ("path", "before", "after", "place"),
    [
        ("/predict", b'{"records":[{', b"}]}", (0, "k0")),
        ("/explain", b'{"records":[{"lead_id":"a","visits":1},{', b"}]}", (1, "k0")),
        ("/predict", b"{", b',"records":[]}', (None, "k0")),
        ("/predict", b'{"records":{', b"}}", (None, "body")),
        ("/predict", b'{"records":[{"lead_id":{', b"}}]}", (0, "lead_id")),
    ],
)
def test_a_million_unknown_fields_cost_no_more_than_their_bytes(client, path, before, after, place) -> None:
    used = memory()
    answer = client.post(path, content=before + MILLION + after)
    assert memory() - used < 300 * 2**20
    assert answer.status_code == 400 and len(answer.content) < 2_000
    assert (answer.json()["errors"][0]["index"], answer.json()["errors"][0]["field"]) == place
    assert least_cpu_seconds(lambda: client.post(path, content=before + MILLION + after), 1.0) < 1.0


def test_a_line_of_a_stream_and_feedback_with_unknown_fields_are_bounded_too(client: LocalClient) -> None:
    lines = b"{" + MILLION + b"}\n" + json.dumps(ASK).encode() + b"\n"
    answers = []

    def ask() -> None:
        streamed = client.post("/predict", content=lines, headers=NDJSON)
        answers[:] = streamed, client.post("/feedback", content=b'{"action":"followed",' + MILLION + b"}")

    assert least_cpu_seconds(ask, 1.0) < 1.0
    streamed, fed = answers
    faulty, good, last = map(json.loads, streamed.content.splitlines())
    assert (faulty["error"]["status"], good["score"], last["complete"]) == (400, 0.3, True)
    assert fed.status_code == 413 and str(feedback.LARGEST) in fed.json()["detail"]
    assert len(streamed.content) + len(fed.content) < 3_000


def test_faults_are_listed_to_a_limit_and_more_are_announced(client: LocalClient) -> None:
    few = client.post("/predict", json={"records": [ASK, {**ASK, "visits": -1, "x{0}": 1}, {}]}).json()["errors"]
    assert [(each["index"], each["field"]) for each in few] == [
        (1, "visits"), (1, "x{0}"), (2, "lead_id"), (2, "visits"),
    ]  # fmt: skip
    for records, field in (([ASK, *[{}] * 9_000], "lead_id"), ([{**ASK, "visits": "3"}] * 2_500, "visits")):
        many = client.post("/predict", json={"records": records})
        errors = many.json()["errors"]
        assert many.status_code == 400 and len(errors) == LISTED + 1 and errors[-1]["message"] == MORE
        assert (errors[0]["index"], errors[0]["field"]) == (int(ASK in records[:1]), field)
        assert errors[0]["message"] in ("Field required", "Input should be a valid integer")


def test_small_bodies_with_many_faults_are_cut_as_well(client: LocalClient) -> None:
    """Below the size from which names are checked first."""
    body = b'{"records":[' + b'{"a":1,"b":2},' * 2_000 + b'{"lead_id":NaN}]}'
    errors = client.post("/predict", content=body).json()["errors"]
    assert [each["field"] for each in errors] == ["a", "body"] and errors[-1]["message"] == MORE
    fed = client.post("/feedback", content=b'{"action":"followed",' + MILLION[:60_000].rpartition(b",")[0] + b"}")
    assert fed.status_code == 400 and len(fed.json()["errors"]) == LISTED + 1


def test_too_many_records_and_names_of_any_length_are_refused_in_short(client: LocalClient) -> None:
    many = client.post("/predict", content=b'{"records":[' + b"{}," * 50_000 + b"{}]}")
    assert (many.status_code, len(many.json()["errors"])) == (413, 1)
    long = client.post("/predict", content=b'{"records":[{"' + b"n" * 5_000_000 + b'":1}]}')
    assert long.status_code == 400 and len(long.content) < 2_000


# --- deep nesting


@pytest.mark.parametrize("opening", ["[", '{"a":'])
@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize(
    ("path", "before", "after", "media"),
    [
        ("/predict", "", "", {}),
        ("/predict", '{"records":', "}", {}),
        ("/explain", '{"records":[{"lead_id":', "}]}", {}),
        ("/predict", '{"records":[{"day":', "}]}", {}),
        ("/predict", '{"lead_id":', "}\n", NDJSON),
        ("/feedback", '{"action":"followed","value":', "}", {}),
    ],
)
@pytest.mark.parametrize("levels", [LEVELS, 2_000])
def test_deep_nesting_is_refused_at_once(client, opening, closed, path, before, after, media, levels) -> None:
    closing = {"[": "]", '{"a":': "}"}[opening] * levels if closed else ""
    inner = "1" if opening != "[" else ""
    body, answers = f"{before}{opening * levels}{inner}{closing}{after}".encode(), []
    assert least_cpu_seconds(lambda: answers.append(client.post(path, content=body, headers=media)), 0.5) < 0.5
    answer = answers[0]
    status = json.loads(answer.content.splitlines()[0])["error"]["status"] if media else answer.status_code
    assert 400 <= status < 500 and len(answer.content) < 5_000


# --- slow callers


@pytest.fixture
def service(keeping: ServiceContext, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[int]:
    monkeypatch.setattr(wire, "SILENCE", 0.6)
    keeping.settings = ServiceSettings(read_seconds=1.2)
    lead = ServedModel(Lead(), "leads", 7, {}, ASK, secret=b"s")
    with served(create_app(lambda: lead, keeping)) as (port, _):
        yield port


BODY = json.dumps({"records": [ASK]}).encode()
HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY)
SLOW = {
    "request line": (b"", b"POST /predict HTTP/1.1\r\n" * 9, b""),
    "headers": (HEAD, b"X-More: 1\r\n" * 9, b""),
    "body": (WHOLE, BODY, b"HTTP/1.1 408"),
    "chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n" * 20, b"HTTP/1.1 408"),
    "trailers": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"X-More: 1\r\n" * 9, b"HTTP/1.1 408"),
    "stream": (HEAD.replace(b"/json", b"/x-ndjson") + b"Content-Length: 999\r\n\r\n", b" " * 99, b"HTTP/1.1 408"),
    "body of an unknown path": (WHOLE.replace(b"/predict", b"/nowhere"), BODY, b"HTTP/1.1 404"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_a_caller_that_sends_byte_by_byte_is_cut_off_and_holds_up_nobody(service: int, name: str) -> None:
    first, rest, answer = SLOW[name]
    times, got = [], {}
    with ExitStack() as stack:
        lines = [stack.enter_context(socket.create_connection(("127.0.0.1", service))) for _ in range(60)]
        for line in lines:
            line.sendall(first)
            line.setblocking(False)
        for byte in range(len(rest)):
            for number, line in enumerate(lines):
                try:
                    line.sendall(rest[byte : byte + 1])
                    got[number] = got.get(number, b"") + line.recv(65_536)
                except BlockingIOError:
                    pass
                except OSError:
                    got.setdefault(number, b"")
            start = time.monotonic()
            assert exchange(service, WHOLE + BODY, until=b"}]}").startswith(b"HTTP/1.1 200")
            times.append(time.monotonic() - start)
            if len(got) == len(lines):
                break
            time.sleep(0.1)
    assert len(got) == 60 and byte < len(rest) - 1, f"{len(got)} of 60 were answered or cut off"
    assert all(each.startswith(answer) for each in got.values() if each) and median(times) < 0.5
