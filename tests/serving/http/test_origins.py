"""What a web page, or a caller that means harm, can send to a service is refused, and costs little."""

import asyncio
import gzip
import json
import socket
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from d2c_mlops.serving.app.app import ServedModel, ServiceContext, create_app
from d2c_mlops.serving.http import uvicorn_protocol as wire
from d2c_mlops.serving.http.messages import HttpRefused, Request
from d2c_mlops.serving.http.origins import local_host_names
from d2c_mlops.settings import ServiceSettings, service_settings
from support.cpu import least_cpu_seconds
from support.http_server import Shop, exchange, served
from support.lead_service import ASK, Lead, asking
from support.local_client import LocalClient

BODY = json.dumps({"records": [ASK]})

# --- what two servers would read differently


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST / HTTP/1.1\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nhost: a\r\nhost: a\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nHost: a\r\nHOST: b\r\n", b"400"),
        (b"POST / HTTP/1.0\r\nhost: a\r\nhost: b\r\n", b"400"),
        (b"POST / HTTP/2.0\r\nhost: a\r\n", b"400"),
        (b"POST / HTTP/2.0\r\n", b"400"),
        (b"POST / HTTP/0.9\r\nhost: a\r\n", b"400"),
        (b"POST / HTTP/1.2\r\nhost: a\r\n", b"400"),
        (b"POST / HTTP/3.0\r\nhost: a\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nhost:\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nhost: a b\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nhost: a/b\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nhost: u@a\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nhost: a:port\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nhost: \xff\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nhost: a\r\n" + b"x: y\r\n" * 300, b"431"),
        (b"POST / HTTP/1.1\r\nhost: a\r\n", b"200"),
        (b"POST / HTTP/1.1\r\nhost: [::1]:80\r\n", b"200"),
        (b"POST / HTTP/1.0\r\n", b"200"),
    ],
)
def test_a_head_that_is_not_clear_is_refused_and_the_connection_closed(head: bytes, status: bytes) -> None:
    with served(shop := Shop()) as (port, _):
        asked = head + b"content-length: 3\r\n\r\nabc"
        if status == b"200":
            asked = asked.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
        got = exchange(port, asked + b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n")
    assert got.startswith(b"HTTP/1.1 " + status) and got.count(b"HTTP/1.1 ") == 1
    assert len(shop.at_once) == (status == b"200")


def test_of_requests_in_one_packet_the_one_without_a_host_is_refused_and_ends_the_rest() -> None:
    whole, bare = (f"POST / HTTP/1.1\r\n{host}content-length: 1\r\n\r\nx".encode() for host in ("host: a\r\n", ""))
    with served(shop := Shop()) as (port, _):
        got = exchange(port, whole + bare + whole)
    first, second = got.split(b"HTTP/1.1 ")[1:]
    assert first.startswith(b"200") and second.startswith(b"400") and len(shop.at_once) == 1


# --- what costs a caller little and the service much


def took(asked: bytes) -> float:
    """Return the seconds until a request is answered, and check that it is."""
    with served(Shop()) as (port, _):
        start = time.perf_counter()
        assert exchange(port, asked).startswith(b"HTTP/1.1 200")
        return time.perf_counter() - start


def test_a_body_in_chunks_of_one_byte_takes_time_by_its_length() -> None:
    head = b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    small, large = (min(took(head + b"1\r\na\r\n" * n + b"0\r\n\r\n") for _ in range(3)) for n in (10_000, 40_000))
    assert large < 6 * max(small, 0.02)


def test_a_piece_of_a_body_is_copied_once_however_small_its_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    inner = wire.HttpToolsProtocol.on_body
    monkeypatch.setattr(
        wire.HttpToolsProtocol, "on_body", lambda self, body: (calls.append(len(body)), inner(self, body))
    )
    head = b"POST / HTTP/1.1\r\nhost: a\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    with served(Shop()) as (port, _):
        got = exchange(port, head + b"1\r\na\r\n" * 20_000 + b"0\r\n\r\n")
    assert got.endswith(b"a" * 100) and sum(calls) == 20_000 and len(calls) < 100


def test_trailers_without_end_close_the_connection() -> None:
    head = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n"
    with served(Shop()) as (port, _), socket.create_connection(("127.0.0.1", port), timeout=10.0) as line:
        line.sendall(head)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            for _ in range(200):
                line.sendall(b"x: y\r\n" * 1000)
                time.sleep(0.005)


def packed(member: bytes, count: int) -> bytes:
    return gzip.compress(member, mtime=0) * count


async def _read(parts: list[bytes], limit: int = 10**6, stream: bool = False) -> int:
    """Return the size of a packed body as a service reads it."""
    left = list(parts)

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}

    async def send(message: Any) -> None:
        raise AssertionError(message)

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"content-encoding", b"gzip")]}
    request = Request(scope, receive, send)
    if not stream:
        return len(await request.body(limit, 60.0))
    pieces: AsyncIterator[bytes] = request.stream(limit, 60.0)
    return sum([len(piece) async for piece in pieces])


def read(parts: list[bytes], limit: int = 10**6, stream: bool = False) -> int:
    return asyncio.run(_read(parts, limit, stream))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("member", [b"", b"a", b"\n" * 8])
def test_a_million_gzip_members_that_hold_next_to_nothing_are_refused(member: bytes, stream: bool) -> None:
    body = packed(member, 1_000_000)

    def refused() -> None:
        with pytest.raises(HttpRefused) as err:
            read([body[i : i + 65_536] for i in range(0, len(body), 65_536)], 10**9, stream)
        assert err.value.answer.status == 400

    assert least_cpu_seconds(refused, 0.5) < 0.5


def test_gzip_of_a_line_per_member_is_read_in_time_by_its_length() -> None:
    line = json.dumps({**ASK, "note": "x" * 60}).encode() + b"\n"

    def seconds(count: int) -> float:
        start = time.process_time()
        assert read([packed(line, count)], 10**9) == count * len(line)
        return time.process_time() - start

    small, large = [min([seconds(n) for _ in range(3)]) for n in (2_000, 8_000)]
    assert large < 6 * max(small, 0.005)


def test_packed_bytes_count_against_the_limit_where_no_length_says_them() -> None:
    head, nothing = gzip.compress(b"", mtime=0)[:10], b"\0\0\0\xff\xff"  # a stored block without a byte
    body = head + nothing * 100_000
    with pytest.raises(HttpRefused) as err:
        read([body[i : i + 1000] for i in range(0, len(body), 1000)], 10_000)
    assert err.value.answer.status == 413
    assert read([gzip.compress(b"a" * 9_000)], 10_000) == 9_000


# --- pages of other sites


@pytest.mark.parametrize("path", ["/predict", "/explain", "/feedback", "/v7/predict"])
@pytest.mark.parametrize(
    "media",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "",
        "text/plain; application/json",
        "application/jsonp",
        "application/json, text/plain",
        "xapplication/json",
    ],
)
def test_a_body_that_is_not_called_json_is_refused(path: str, media: str) -> None:
    answer = asking().post(path, content=BODY, headers={"content-type": media})
    assert answer.status_code in (404, 415) and (answer.status_code == 415 or path.startswith("/v"))


@pytest.mark.parametrize(
    "media", ["application/json", "Application/JSON", "application/json; charset=utf-8", "application/vnd.shop+json"]
)
def test_a_body_that_is_called_json_is_taken(media: str) -> None:
    assert asking().post("/predict", content=BODY, headers={"content-type": media}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:3000",
        "attacker",
        "localhost.evil.example",
        "127.0.0.1.nip.io",
        "evil.example#localhost",
        "notlocalhost",
        "[::1].evil.example",
        "0x7f.1",
    ],
)
@pytest.mark.parametrize("path", ["/predict", "/contract", "/", "/metrics", "/openapi.json"])
def test_a_name_that_is_not_this_machines_is_refused_in_development(path: str, host: str) -> None:
    client = asking()
    answer = client.request(
        "POST" if path == "/predict" else "GET", path, json={"records": [ASK]}, headers={"host": host}
    )
    assert answer.status_code == 403 and "hosts" in answer.json()["detail"]
    assert client.get("/readyz", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:3000",
        "shop.localhost",
        "127.0.0.1:3000",
        "[::1]:3000",
        "10.0.0.7",
        *sorted(local_host_names()),
    ],
)
def test_this_machine_answers_under_its_addresses_and_own_names(host: str) -> None:
    assert asking().post("/predict", json={"records": [ASK]}, headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "http://localhost:8888",
        "http://127.0.0.1",
        "file://",
        "",
        "https://localhost.evil.example",
        "chrome-extension://a",
    ],
)
def test_a_page_of_another_site_is_refused_in_development(origin: str) -> None:
    for path in ("/predict", "/explain", "/feedback"):
        answer = asking().post(path, json={"records": [ASK]}, headers={"origin": origin})
        assert answer.status_code == 403 and answer.headers["content-type"] == "application/problem+json"


def test_the_services_own_page_and_hosts_of_the_settings_are_answered() -> None:
    own = service_settings({"D2C_SERVICE_HOSTS": "ml.shop.example, app.shop.example:8080"})
    assert own.hosts == ("ml.shop.example", "app.shop.example:8080")
    assert service_settings(own.environment()) == own
    client = asking(ServiceContext(own))

    def status(**headers: str) -> int:
        return client.post("/predict", json={"records": [ASK]}, headers=headers).status_code

    assert status(host="localhost:3000", origin="http://localhost:3000") == 200
    assert status(host="ML.shop.example:3000") == status(origin="https://app.shop.example:8080") == 200
    assert status(host="app.shop.example") == status(origin="https://app.shop.example") == 403


def test_a_service_in_production_is_asked_under_any_name() -> None:
    made = ServedModel(Lead(), "leads", 7, {}, ASK)
    client = LocalClient(create_app(lambda: made, ServiceContext(ServiceSettings(mode="production"))))
    assert (
        client.get("/contract", headers={"host": "ml.shop.example", "origin": "https://shop.example"}).status_code
        == 200
    )
