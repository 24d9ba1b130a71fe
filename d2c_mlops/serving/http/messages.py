"""HTTP requests and responses: read a body within limits, reply, and problem details (RFC 9457)."""

from __future__ import annotations

import asyncio
import os
import re
import types
import zlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, MutableMapping
from functools import cache, partial
from time import monotonic
from typing import Any

import orjson

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGI = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

JSON, NDJSON, PROBLEM, TEXT = "application/json", "application/x-ndjson", "application/problem+json", "text/plain"
PACK_FROM = 1024  # bytes; smaller answers are not compressed
SLOWEST = 64  # bytes of a stream that must arrive within the time for a part, so that a slow sender does not hold a slot forever
UNPACK = 2**20  # bytes that are decompressed at a time
SLICE = 16_384  # compressed bytes passed to zlib at a time: it copies the remainder after the end of each member
MEMBERS, MEMBER = 64, 64  # gzip members allowed in a body, plus one per this many decompressed bytes
WHOLE = "d2c.whole"  # ASGI extension: sends status, headers and body at once, or reports that it cannot
GZIP = re.compile(rb"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))")  # of Accept-Encoding
PROBED = (b"x-d2c-origin", b"probe")  # response header: the call counts as a probe
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
JSON_TYPE = re.compile(rb"application/(?:[\w.-]{1,100}\+)?json\s*(?:;.*)?", re.IGNORECASE | re.DOTALL)


_drawn: deque[str] = deque()  # ids are generated in advance: a system call for each would cost more than the rest
os.register_at_fork(after_in_child=_drawn.clear)


def new_id() -> str:
    """Return 128 random bits in hexadecimal digits."""
    try:
        return _drawn.popleft()
    except IndexError:
        digits = os.urandom(16 * 256).hex()
        _drawn.extend(digits[at : at + 32] for at in range(32, len(digits), 32))
        return digits[:32]


class HttpAnswer:
    """A status, a body and headers."""

    __slots__ = ("body", "headers", "media", "status")

    def __init__(self, body: bytes, status: int = 200, media: str = JSON, **headers: str) -> None:
        self.body, self.status, self.media = body, status, media
        self.headers = headers  # underscores in names become hyphens


class HttpRefused(Exception):
    """Refuses a request with an answer, usually a problem (RFC 9457)."""

    def __init__(self, answer: HttpAnswer) -> None:
        self.answer = answer


class ClientDisconnected(Exception):
    """The caller disconnected before the request was complete."""


def problem_answer(
    status: int, title: str, detail: str, headers: dict[str, str] | None = None, **more: Any
) -> HttpAnswer:
    """Return an error body as RFC 9457 describes it."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
    return HttpAnswer(orjson.dumps(body), status, PROBLEM, **(headers or {}))


class Request:
    """An HTTP request: headers, and a body within limits."""

    __slots__ = ("after", "caller", "header", "id", "older", "path", "probe", "receive", "scope", "send", "sent")

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope, self.receive, self.send = scope, receive, send
        headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        self.header = headers.get  # the first header of a (lower case) name
        request_id = self.header(b"x-request-id")
        self.id = request_id.decode() if request_id and REQUEST_ID.fullmatch(request_id) else new_id()
        self.caller: str | None = None  # id of the API key
        self.probe = False  # a probe with synthetic records, which causes no decision
        self.after: Callable[[], None] | None = None  # called after the answer is sent
        self.sent = 0  # status of a started answer
        self.path: str = scope["path"]  # path without the prefix of a contract version
        self.older: Any = None  # older_contracts.Older of the path

    async def body(self, limit: int, seconds: float) -> bytes:
        """Return the decompressed body. Raises HttpRefused when it is too large or arrives too slowly."""
        length = self.header(b"content-length")
        if length is not None and length.isdigit() and (len(length) > 18 or int(length) > limit):
            raise HttpRefused(too_large_answer(limit))
        message = await self._first_message(seconds)
        packed = self.header(b"content-encoding")
        if not message.get("more_body") and not packed:
            body = bytes(message.get("body", b""))
            if len(body) > limit:
                raise HttpRefused(too_large_answer(limit))
            return body
        parts, size = [], 0
        async with _ReceiveTimeout(seconds):
            async for part in self._decompress_body(message, limit):
                size += len(part)
                if size > limit:
                    raise HttpRefused(too_large_answer(limit))
                parts.append(part)
        return b"".join(parts)

    async def stream(self, limit: int, seconds: float) -> AsyncIterator[bytes]:
        """Yield the decompressed body in parts as they arrive; each part must arrive within `seconds`."""
        message = await self._first_message(seconds)
        async for part in self._decompress_body(message, limit, seconds):
            yield part

    async def _first_message(self, seconds: float) -> MutableMapping[str, Any]:
        """Return the first message; a timer is set only when it has not arrived yet."""
        going = self.receive().__await__()
        try:
            waits_for = going.send(None)
        except StopIteration as done:
            return _raise_if_disconnected(done.value)
        async with _ReceiveTimeout(seconds):
            return _raise_if_disconnected(await resume_coroutine(going, waits_for))

    async def _decompress_body(
        self, message: MutableMapping[str, Any], limit: int, seconds: float | None = None
    ) -> AsyncIterator[bytes]:
        packed = (self.header(b"content-encoding") or b"identity").strip().lower()
        if packed not in (b"identity", b"gzip"):
            raise HttpRefused(
                problem_answer(415, "Content-Encoding not supported", "send the body uncompressed, or with gzip")
            )
        zipped, received, since = _Members() if packed == b"gzip" else None, 0, monotonic()
        total = 0
        while True:
            part = message.get("body", b"")
            received += len(part)
            total += len(part)
            if seconds is None and total > limit:
                raise HttpRefused(too_large_answer(limit))
            if received >= SLOWEST:
                received, since = 0, monotonic()
            if zipped is not None:
                for unpacked in zipped.unpack(part):
                    yield unpacked
            elif part:
                yield part
            if not message.get("more_body"):
                break
            async with _ReceiveTimeout(seconds and max(0.0, seconds - (monotonic() - since))):
                message = _raise_if_disconnected(await self.receive())
        if zipped is not None and not zipped.whole:
            raise HttpRefused(problem_answer(400, "Body is an incomplete gzip stream", "send the whole stream"))

    async def reply(self, answer: HttpAnswer, close_connection: bool = False) -> None:
        """Send an answer, compressed when the caller accepts gzip and the body is large enough."""
        body, media = answer.body, answer.media
        headers = [(b"content-type", media.encode()), (b"x-request-id", self.id.encode())]
        headers += [(_header_name(key), value.encode()) for key, value in answer.headers.items()]
        if self.older is not None:
            headers += self.older.headers
        if self.probe:
            headers.append(PROBED)
        if len(body) >= PACK_FROM and GZIP.search(self.header(b"accept-encoding") or b""):
            body = await asyncio.get_running_loop().run_in_executor(None, _gzip_body, body)
            headers += [(b"content-encoding", b"gzip"), (b"vary", b"accept-encoding")]
        if close_connection:
            headers.append((b"connection", b"close"))
        headers.append((b"content-length", str(len(body)).encode()))
        self.sent = answer.status
        if self.scope["method"] == "HEAD":
            body = b""
        whole = self.scope.get("extensions", {}).get(WHOLE)
        if whole is not None and whole(answer.status, headers, body):
            return
        await self.send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def begin(self, media: str) -> None:
        """Start a streamed answer."""
        self.sent = 200
        headers = [(b"content-type", media.encode()), (b"x-request-id", self.id.encode())]
        if self.older is not None:
            headers += self.older.headers
        if self.probe:
            headers.append(PROBED)
        await self.send({"type": "http.response.start", "status": 200, "headers": headers})

    async def part(self, body: bytes, seconds: float, last: bool = False) -> None:
        """Send a part of a streamed answer; waits while the caller does not read. Raises ClientDisconnected after the time limit."""
        await is_in_task()
        try:
            async with asyncio.timeout(seconds):
                await self.send({"type": "http.response.body", "body": body, "more_body": not last})
        except TimeoutError:
            raise ClientDisconnected from None


def too_large_answer(limit: int) -> HttpAnswer:
    """Return the answer to a body that is too large."""
    return problem_answer(
        413, "Body too large", f"at most {limit} bytes; send fewer records per request, or stream NDJSON"
    )


def check_json(request: Request) -> None:
    """Raise HttpRefused unless the content type is JSON: browsers send other types to any site without a CORS preflight."""
    content_type = request.header(b"content-type") or b""
    if content_type != b"application/json" and not JSON_TYPE.fullmatch(content_type):
        raise HttpRefused(problem_answer(415, "Unsupported media type", "send Content-Type: application/json"))


@cache
def _header_name(key: str) -> bytes:
    return key.replace("_", "-").encode()


@types.coroutine
def resume_coroutine(coroutine: Generator[Any, Any, Any], pending_future: Any) -> Generator[Any, Any, Any]:
    """Continue a manually started coroutine that now waits; sent values and exceptions are passed to it."""
    while True:
        try:
            sent = yield pending_future
        except BaseException as err:
            step = partial(coroutine.throw, err)
        else:
            step = partial(coroutine.send, sent)
        try:
            pending_future = step()
        except StopIteration as done:
            return done.value


class _Members:
    """Decompresses gzip with several members, as `cat a.gz b.gz` creates them."""

    def __init__(self) -> None:
        self.one = zlib.decompressobj(wbits=31)
        self.count, self.size = 1, 0  # of members, and of bytes that were unpacked

    @property
    def whole(self) -> bool:
        """Whether the data so far ends at the end of a member."""
        return self.one.eof

    def unpack(self, part: bytes) -> Iterator[bytes]:
        """Yield the decompressed data of a part, at most UNPACK bytes at a time. Raises HttpRefused for invalid gzip or too many members."""
        for start in range(0, len(part), SLICE):
            yield from self._body_slices(part[start : start + SLICE])

    def _body_slices(self, part: bytes) -> Iterator[bytes]:
        unpacked = b""
        while part or len(unpacked) == UNPACK:
            if self.one.eof:
                if not part:
                    return
                self.one = zlib.decompressobj(wbits=31)
                self.count += 1
                if self.count > MEMBERS + self.size // MEMBER:
                    raise HttpRefused(
                        problem_answer(400, "Body has too many gzip members", "send a single gzip member")
                    )
            try:
                unpacked = self.one.decompress(part, UNPACK)
            except zlib.error:
                raise HttpRefused(
                    problem_answer(400, "Body is not valid gzip", "Content-Encoding is gzip, the body is not")
                ) from None
            part = self.one.unconsumed_tail or self.one.unused_data
            self.size += len(unpacked)
            if unpacked:
                yield unpacked


async def is_in_task() -> None:
    """Continue as a task of the event loop, which timers require; a request that is answered immediately has no task."""
    if asyncio.current_task() is None:
        await asyncio.sleep(0)


def _raise_if_disconnected(message: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if message["type"] == "http.disconnect":
        raise ClientDisconnected
    return message


class _ReceiveTimeout:
    """Raise HttpRefused with 408 when a caller takes longer than `seconds` to send; None means no limit."""

    def __init__(self, seconds: float | None) -> None:
        self.timer = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await is_in_task()
        await self.timer.__aenter__()

    async def __aexit__(self, *exc: Any) -> None:
        try:
            await self.timer.__aexit__(*exc)
        except TimeoutError:
            slow = problem_answer(
                408, "Request timed out", "the body did not arrive in time: send it faster, or in smaller parts"
            )
            slow.headers["connection"] = "close"
            raise HttpRefused(slow) from None


def _gzip_body(body: bytes) -> bytes:
    packer = zlib.compressobj(1, wbits=31)
    return packer.compress(body) + packer.flush()


async def lifespan(scope: Scope, receive: Receive, send: Send) -> None:
    """Confirm the server's startup and shutdown events; refuse web sockets."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1000})
        return
    event = ""
    while event != "lifespan.shutdown":
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
