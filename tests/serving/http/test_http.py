"""How a request's body is waited for: at once where it is there, with patience where it is not."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from d2c_mlops.serving.http.messages import ClientDisconnected, HttpRefused, Request

Message = dict[str, Any]
BODY: Message = {"type": "http.request", "body": b"{}", "more_body": False}


def asked(receive: Callable[[], Awaitable[Message]], seconds: float = 1.0) -> Awaitable[bytes]:
    async def send(message: Any) -> None:
        raise AssertionError("nothing is to be sent")

    return Request({"path": "/predict", "headers": []}, receive, send).body(100, seconds)


def after(message: Message, *pauses: float) -> Callable[[], Awaitable[Message]]:
    async def receive() -> Message:
        for pause in pauses:
            await asyncio.sleep(pause)
        return message

    return receive


@pytest.mark.parametrize("pauses", [(), (0,), (0.01, 0.01)])
def test_a_body_is_taken_whenever_it_comes(pauses: tuple[float, ...]) -> None:
    assert asyncio.run(asked(after(BODY, *pauses))) == b"{}"  # type: ignore[arg-type]


def test_a_body_that_does_not_come_is_refused_with_408() -> None:
    with pytest.raises(HttpRefused) as caught:
        asyncio.run(asked(after(BODY, 5.0), seconds=0.05))  # type: ignore[arg-type]
    assert caught.value.answer.status == 408 and caught.value.answer.headers["connection"] == "close"


@pytest.mark.parametrize("pauses", [(), (0.01,)])
def test_a_caller_that_leaves_is_not_answered(pauses: tuple[float, ...]) -> None:
    with pytest.raises(ClientDisconnected):
        asyncio.run(asked(after({"type": "http.disconnect"}, *pauses)))  # type: ignore[arg-type]


def test_what_ends_the_wait_reaches_the_server() -> None:
    ended = []

    async def receive() -> Message:
        try:
            await asyncio.sleep(5.0)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise
        return BODY

    async def main() -> None:
        task = asyncio.ensure_future(asked(receive))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert ended == ["cancelled"]
