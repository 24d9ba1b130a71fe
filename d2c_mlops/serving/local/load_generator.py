"""HTTP/1.1 load generator: connections that send requests one after the other, in one process."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import orjson

from d2c_mlops.errors import D2CError
from d2c_mlops.serving.app.auth import PROBING


async def _send_requests(
    host: str, port: int, request: bytes, until: float, durations: list[float], wrong: list[bytes]
) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    while time.perf_counter() < until:
        start = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        length = int(lower.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        await reader.readexactly(length)
        durations.append(time.perf_counter() - start)
        if not head.startswith(b"HTTP/1.1 200"):
            wrong.append(head)
    writer.close()


async def generate_load(
    host: str, port: int, path: str, body: bytes, connections: int, seconds: float
) -> dict[str, float]:
    """Return the number of answers, requests per second, and latencies in ms. Raises D2CError for any status but 200."""
    head = (
        f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"{PROBING.decode()}: 1\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    durations: list[float] = []
    wrong: list[bytes] = []
    start = time.perf_counter()
    until = start + seconds
    await asyncio.gather(
        *(_send_requests(host, port, head.encode() + body, until, durations, wrong) for _ in range(connections))
    )
    spent = time.perf_counter() - start
    durations.sort()
    if wrong:
        raise D2CError(
            f"{len(wrong)} of {len(durations)} answers were not 200: {wrong[0].splitlines()[0].decode()}", where=path
        )
    p50, p99 = (durations[min(len(durations) - 1, int(share * len(durations)))] * 1e3 for share in (0.5, 0.99))
    return {
        "requests": len(durations),
        "rate": len(durations) / spent,
        "p50": p50,
        "p99": p99,
        "max": durations[-1] * 1e3,
    }


if __name__ == "__main__":
    port, path, file, connections, seconds = sys.argv[1:]
    try:
        figures = generate_load("127.0.0.1", int(port), path, Path(file).read_bytes(), int(connections), float(seconds))
        sys.stdout.write(orjson.dumps(asyncio.run(figures)).decode())
    except (D2CError, OSError, asyncio.IncompleteReadError) as err:
        sys.exit(str(err))
