"""Servers on a free port, an application that answers by path, and requests byte by byte."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import uvicorn

from d2c_mlops.serving.http import uvicorn_protocol as wire
from d2c_mlops.serving.http.messages import HttpAnswer, HttpRefused, Request, is_in_task
from d2c_mlops.serving.local.server import free_port


@contextmanager
def listening(app: Any) -> Iterator[str]:
    """Serve an application over real HTTP while the block lasts."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    limit = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < limit
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(10)


ABOUT: ContextVar[str] = ContextVar("ABOUT", default="nothing")


class Shop:
    """An application that answers by path and remembers how it was run."""

    def __init__(self) -> None:
        self.at_once: list[bool] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive, send)
        self.at_once.append(asyncio.current_task() is None)
        path, headers = scope["path"], {}
        try:
            body = await request.body(10**6, 2.0)
        except HttpRefused as err:
            await request.reply(err.answer)
            return
        if path == "/wait":
            token = ABOUT.set(body.decode())
            await is_in_task()
            async with asyncio.timeout(5.0):
                await asyncio.sleep(0.3)
            body = ABOUT.get().encode()
            ABOUT.reset(token)
        elif path == "/raise":
            raise RuntimeError("the application failed")
        elif path == "/smuggle":
            headers = {"x_note": "1\r\nset-cookie: a=b"}
        elif path == "/close":
            headers = {"connection": "close"}
        await request.reply(HttpAnswer(b"got " + body, **headers))


@contextmanager
def served(app: Any) -> Iterator[tuple[int, uvicorn.Server]]:
    """Serve an application with this protocol in a thread."""
    port = free_port()
    config = uvicorn.Config(
        app, port=port, log_level="critical", lifespan="off", http=wire.FastHttpProtocol, access_log=False
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield port, server
    finally:
        server.should_exit = True
        thread.join(10.0)
        assert not thread.is_alive()


def exchange(port: int, *parts: bytes, pause: float = 0.0, until: bytes = b"") -> bytes:
    """Send parts and return what comes back until it ends with `until`, or the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout=10.0) as line:
        for part in parts:
            line.sendall(part)
            time.sleep(pause)
        got = b""
        while not until or not got.endswith(until):
            part = line.recv(65536)
            if not part:
                break
            got += part
        return got
