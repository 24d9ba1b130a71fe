"""HTTP/1.1 server protocol: uvicorn's protocol with a fast path for requests that arrive completely.

All private names of uvicorn are used here. Tested with uvicorn >=0.45,<0.55; outside of that range uvicorn keeps its own protocol.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Generator
from contextvars import copy_context
from functools import partial
from inspect import signature
from typing import Any

import uvicorn.config

from d2c_mlops.library_versions import VersionRange
from d2c_mlops.serving.http.messages import (
    WHOLE,
    Headers,
    Receive,
    Request,
    Scope,
    Send,
    problem_answer,
    resume_coroutine,
)

try:
    from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
except ImportError:  # install() logs a warning
    STATUS_LINE, HttpToolsProtocol, RequestResponseCycle = {}, object, object  # type: ignore[misc,assignment]

TESTED = VersionRange("uvicorn", (0, 45), (0, 55))
INSTEAD = "uvicorn's own HTTP protocol is used, which is slower"
HEADING = 65_536  # approximate limit in bytes of a request's line and headers
MOST_HEADERS = 256  # of a request, trailers of its body included
HOST = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")  # RFC 9110, section 7.2
SILENCE = 30.0  # seconds between two checks of a connection; it is closed after two without a request


class FastHttpProtocol(HttpToolsProtocol):
    """Answers a request without a task if it is complete when it is read.

    uvicorn creates a task for each request before its body has arrived, and sends head and body separately: a turn of the event loop and a second
    packet, which together cost more than a prediction. A request that must wait (for its body, a thread) continues as a task.
    """

    heading = 0  # bytes received since the last complete request
    silent = False  # whether there was none a while ago
    watch: asyncio.TimerHandle | None = None
    reading = False  # received data is being parsed
    begun: tuple[RequestResponseCycle, Any] | None = None  # the first request that began in it, with its application
    headers: Headers  # of the request that is being parsed
    pieces: list[bytes]  # of a body, as they were parsed

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.headers, self.pieces = [], []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the connection and its idle timer."""
        super().connection_made(transport)
        self.watch = self.loop.call_later(SILENCE, self._close_if_idle)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer and end the connection."""
        super().connection_lost(exc)
        if self.watch is not None:
            self.watch.cancel()

    def data_received(self, data: bytes) -> None:
        """Parse received data, then answer complete requests."""
        before, self.reading = self.cycle, True
        super().data_received(data)
        self._pass_body_on()
        self.reading = False
        if len(self.headers) > MOST_HEADERS and self.begun is None and not self.transport.is_closing():
            self.transport.close()  # trailers without end
        if self.begun is None:
            between = self.cycle is before and (before is None or before.response_complete)
            self.heading = self.heading + len(data) if between else 0
            if self.heading > HEADING and not self.transport.is_closing():
                self.send_400_response("Request header fields too large.")
            return
        self.heading, self.silent = 0, False
        (cycle, app), self.begun = self.begun, None
        if cycle.more_body:
            super()._start_asgi_task(cycle, app)
        elif not self.transport.is_closing():
            self._run_application(cycle, app)

    def on_body(self, body: bytes) -> None:
        """Collect pieces of the body until all received data is parsed, so that a body in small chunks is copied once."""
        self.pieces.append(body)

    def on_message_complete(self) -> None:
        """Pass the body on before its end."""
        self._pass_body_on()
        super().on_message_complete()

    def _pass_body_on(self) -> None:
        if self.pieces:
            body = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
            self.pieces.clear()
            if self.parser is not None:
                super().on_body(body)

    def _close_if_idle(self) -> None:
        """Close a connection on which no request was completed since the last check."""
        if self.transport.is_closing():
            return
        waiting = self.cycle is None or (self.cycle.response_complete and self.heading > 0)
        if waiting and self.silent:
            self.transport.close()
            return
        self.silent = waiting
        self.watch = self.loop.call_later(SILENCE, self._close_if_idle)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        scope: dict[str, Any] = cycle.scope  # type: ignore[assignment]
        scope["extensions"] = {WHOLE: partial(self._send_at_once, cycle)}
        if trouble := _malformed_request(scope):
            app = partial(_refuse_request, *trouble)
        if self.reading:  # later requests in the same packet are queued
            self.begun = cycle, app
        else:
            super()._start_asgi_task(cycle, app)

    def _run_application(self, cycle: RequestResponseCycle, app: Any) -> None:
        context, going = copy_context(), cycle.run_asgi(app).__await__()
        try:
            waits_for = context.run(going.send, None)
        except StopIteration:
            return
        task = self.loop.create_task(_resume_request(going, waits_for), context=context)
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def _send_at_once(self, cycle: RequestResponseCycle, status: int, headers: Headers, body: bytes) -> bool:
        """Send an answer at once and return True; False where uvicorn must send it."""
        if cycle.response_started or cycle.disconnected or not cycle.keep_alive or self.flow.write_paused:
            return False
        pieces = [STATUS_LINE[status]]
        all_headers = cycle.default_headers + headers
        for name, value in all_headers:
            if name == b"connection":
                return False
            pieces += (name, b": ", value, b"\r\n")
        pieces.append(b"\r\n")
        head = b"".join(pieces)
        if not head.count(b"\r") == head.count(b"\n") == len(all_headers) + 2:
            return False  # a header with a line break: uvicorn refuses it
        self.transport.write(head + body)
        cycle.response_started = cycle.response_complete = True
        cycle.message_event.set()
        cycle.scope["extensions"] = {}  # otherwise the cycle references itself and needs garbage collection
        cycle.on_response()
        return True


def _malformed_request(scope: Scope) -> tuple[int, str, str] | None:
    """Return status, title and detail for an ambiguous or malformed request, which servers could interpret differently."""
    headers, version = scope["headers"], scope["http_version"]
    if len(headers) > MOST_HEADERS:
        return 431, "Too many request headers", f"at most {MOST_HEADERS}"
    if version not in ("1.1", "1.0"):
        return 400, "HTTP version not supported", "send HTTP/1.1"
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) != 1 and (hosts or version == "1.1"):
        return 400, "Exactly one Host header is required", f"the request has {len(hosts)}"
    if hosts and not HOST.fullmatch(hosts[0]):
        return 400, "Malformed Host header", "expected a name or an address, optionally with a port"
    return None


async def _refuse_request(status: int, title: str, detail: str, scope: Scope, receive: Receive, send: Send) -> None:
    await Request(scope, receive, send).reply(problem_answer(status, title, detail), close_connection=True)


async def _resume_request(going: Generator[Any, Any, None], waits_for: Any) -> None:
    await resume_coroutine(going, waits_for)


def missing_uvicorn_name() -> str:
    """Return the first name of uvicorn that `FastHttpProtocol` needs and that is missing or has changed; "" if there is none."""
    protocol = (
        "_start_asgi_task", "connection_made", "connection_lost", "data_received", "on_body", "on_message_complete",
        "send_400_response",
    )  # fmt: skip
    for owner, names in ((HttpToolsProtocol, protocol), (RequestResponseCycle, ("run_asgi",))):
        for name in names:
            if not callable(getattr(owner, name, None)):
                return f"{getattr(owner, '__name__', owner)}.{name}"
    if list(signature(HttpToolsProtocol._start_asgi_task).parameters) != ["self", "cycle", "app"]:
        return "HttpToolsProtocol._start_asgi_task(self, cycle, app)"
    return "" if "auto" in getattr(uvicorn.config, "HTTP_PROTOCOLS", ()) else "uvicorn.config.HTTP_PROTOCOLS"


def install_protocol() -> bool:
    """Make uvicorn use this protocol unless another is configured, and return True; warn and return False where it cannot."""
    if not TESTED.usable(missing_uvicorn_name(), INSTEAD):
        return False
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:{FastHttpProtocol.__name__}"
    return True
