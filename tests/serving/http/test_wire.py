"""The server's protocol: what has come whole is answered at once, in one piece, and everything else as uvicorn does it."""

from __future__ import annotations

import gc
import socket
import threading
import time

import pytest

from d2c_mlops.serving.http import uvicorn_protocol as wire
from support.http_server import Shop, exchange, served


def asking(path: str, body: bytes = b"", method: str = "POST", version: str = "1.1") -> bytes:
    return f"{method} {path} HTTP/{version}\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def test_a_whole_request_is_answered_at_once_and_in_one_packet() -> None:
    shop = Shop()
    with served(shop) as (port, _), socket.create_connection(("127.0.0.1", port), timeout=10.0) as line:
        for body in (b"one", b"two"):
            line.sendall(asking("/", body))
            got = line.recv(65536)
            assert got.startswith(b"HTTP/1.1 200 OK\r\n") and got.endswith(b"\r\n\r\ngot " + body)
            assert b"content-length: 7\r\n" in got and b"transfer-encoding" not in got
    assert shop.at_once == [True, True]


def test_a_body_that_comes_later_is_waited_for() -> None:
    shop, asked = Shop(), asking("/", b"slow body")
    with served(shop) as (port, _):
        assert exchange(port, asked[:-4], asked[-4:], pause=0.1, until=b"body").endswith(b"\r\n\r\ngot slow body")
    assert shop.at_once == [False]


def test_requests_in_one_packet_are_answered_in_their_order() -> None:
    shop, asked = Shop(), [asking("/wait", b"first"), asking("/", b"second"), asking("/", b"third")]
    with served(shop) as (port, _):
        got = exchange(port, b"".join(asked), until=b"got third")
    assert got.count(b"HTTP/1.1 200") == 3
    assert got.index(b"got first") < got.index(b"got second") < got.index(b"got third")


def test_what_waits_goes_on_as_a_task_in_its_own_context() -> None:
    shop = Shop()
    with served(shop) as (port, _):
        found: list[bytes] = []

        def ask(word: bytes) -> None:
            found.append(exchange(port, asking("/wait", word), until=word))

        threads = [threading.Thread(target=ask, args=(word,)) for word in (b"red", b"blue")]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert sorted(got.rpartition(b"\r\n\r\n")[2] for got in found) == [b"got blue", b"got red"]
    assert shop.at_once == [True, True]


def test_a_request_that_still_waits_is_answered_before_the_server_ends() -> None:
    with served(Shop()) as (port, server):
        threading.Timer(0.1, setattr, (server, "should_exit", True)).start()
        assert exchange(port, asking("/wait", b"last")).endswith(b"got last")


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        (asking("/raise"), b"500"),
        (asking("/close"), b"200"),
        (asking("/", version="1.0"), b"200"),
        (b"nonsense\r\n\r\n", b"400"),
    ],
)
def test_uvicorn_answers_and_closes_where_there_is_more_to_it(asked: bytes, status: bytes) -> None:
    with served(Shop()) as (port, _):
        start = time.monotonic()
        got = exchange(port, asked)
        assert time.monotonic() - start < 2.0  # idle connections are kept longer
    assert got.startswith(b"HTTP/1.1 " + status) and got.count(b"HTTP/1.1") == 1
    assert b"connection: close" in got


def test_a_header_that_holds_a_line_reaches_nobody() -> None:
    with served(Shop()) as (port, _):
        assert exchange(port, asking("/smuggle")) == b""


def test_a_request_with_nonsense_behind_it_is_not_run() -> None:
    shop = Shop()
    with served(shop) as (port, _):
        assert exchange(port, asking("/", b"fine") + b"\0nonsense\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert shop.at_once == []


def test_the_answer_to_head_has_no_body() -> None:
    with served(Shop()) as (port, _):
        got = exchange(port, asking("/", method="HEAD"), until=b"\r\n\r\n")
    assert b"content-length: 4\r\n" in got and got.endswith(b"\r\n\r\n")


def test_a_caller_that_stops_sending_is_refused_in_time() -> None:
    with served(Shop()) as (port, _):
        assert exchange(port, asking("/", b"never whole")[:-1]).startswith(b"HTTP/1.1 408")


def test_a_head_without_end_is_refused() -> None:
    with served(Shop()) as (port, _), socket.create_connection(("127.0.0.1", port), timeout=10.0) as line:
        line.sendall(b"GET / HTTP/1.1\r\n")
        sent = 0
        with pytest.raises(OSError, match=r"reset|closed|pipe"):
            for _ in range(100_000):
                line.sendall(b"x-more: " + b"a" * 1000 + b"\r\n")
                sent += 1000
        assert sent < 20_000_000  # what the kernel's buffers held besides


def test_a_connection_on_which_nothing_is_asked_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "SILENCE", 0.2)
    with served(Shop()) as (port, _):
        start = time.monotonic()
        assert exchange(port) == b"" == exchange(port, b"POST / HT")
        assert time.monotonic() - start < 2.0
        with socket.create_connection(("127.0.0.1", port), timeout=10.0) as line:
            for body in (b"one", b"two"):
                line.sendall(asking("/", body))
                assert line.recv(65536).endswith(body)
                time.sleep(0.7)


def test_requests_leave_nothing_for_the_collector() -> None:
    with served(Shop()) as (port, _):
        exchange(port, asking("/", b"warm"), until=b"warm")
        gc.collect()
        gc.disable()
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=10.0) as line:
                for _ in range(200):
                    line.sendall(asking("/", b"again"))
                    line.recv(65536)
            assert gc.collect() < 200
        finally:
            gc.enable()
