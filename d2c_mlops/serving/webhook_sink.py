"""Answers to a web hook: chunks with an idempotency key, retries while the other side is away, dead letters for what it refuses."""

from __future__ import annotations

import email.utils
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pandas as pd

from ..data.store import write_atomic
from ..errors import Temporary, UsageError
from ..models.contract import to_records
from .sinks import Batch, Out, Written

AT_ONCE = 500  # answers in one call
TRIES, FIRST_WAIT, LONGEST_WAIT = 6, 0.5, 30.0  # attempts, and seconds between them: doubled each time
TIMEOUT = 30.0  # seconds for one call
AWAY = frozenset({408, 425, 429, 500, 502, 503, 504})
TOKEN = "D2C_WEBHOOK_TOKEN"  # noqa: S105 - the name of the variable with the bearer token


class WebhookSink:
    """A URL that takes POSTs of JSON: {"batch", "first", "model", "version", "predictions": [...]}."""

    expects: ClassVar[str] = "https://HOST/PATH"
    unique: ClassVar[bool] = False
    store: Path = Path("d2c_store")

    def matches(self, location: str) -> bool:
        return location.lower().startswith(("http://", "https://"))

    @contextmanager
    def open(self, location: str, batch: Batch) -> Iterator[Out]:
        check_line(location)
        folder = self.store / "outbox"
        folder.mkdir(parents=True, exist_ok=True)
        yield _Hook(location, batch, folder / f"{batch.id}.json", folder / f"{batch.id}.dead.jsonl")


@dataclass
class _Hook:
    url: str
    batch: Batch
    note: Path  # how far this batch has come
    letters: Path
    columns: list[str] = field(default_factory=list)
    sleep: Callable[[float], None] = time.sleep
    sent: int = 0
    dead: int = 0

    def __post_init__(self) -> None:
        noted = json.loads(self.note.read_text(encoding="utf-8")) if self.note.exists() else {}
        self.resumed_at = int(noted.get("records", 0))
        self.dead = int(noted.get("dead", 0))

    def write(self, frame: pd.DataFrame, first: int) -> None:
        """Send a chunk in calls of at most AT_ONCE answers, and note each that was taken or given up."""
        self.columns = list(frame.columns)
        rows = to_records(self.batch.contract.output_fields, frame)
        if self.batch.reasons:
            for row, said in zip(rows, frame["reasons"], strict=True):
                row["reasons"] = json.loads(said)
        if "variant" in frame:
            for row, version, variant in zip(rows, frame["version"].tolist(), frame["variant"], strict=True):
                row |= {"version": version, "variant": variant}
        for start in range(0, len(rows), AT_ONCE):
            part, place = rows[start : start + AT_ONCE], first + start
            body = {"batch": self.batch.id, "first": place, "model": self.batch.model, "version": self.batch.version}
            refusal = self._post(json.dumps({**body, "predictions": part}).encode(), place)
            if refusal:
                self._bury(part, place, refusal)
            else:
                self.sent += len(part)
            note = {"url": sha256(self.url.encode()).hexdigest(), "records": place + len(part), "dead": self.dead}
            write_atomic(self.note, json.dumps(note).encode())

    def _post(self, body: bytes, place: int) -> str:
        """Return an empty text when it was taken, why it was refused otherwise. Raises Temporary when nobody answers."""
        headers = {"content-type": "application/json", "idempotency-key": f"{self.batch.id}-{place}"}
        if token := os.environ.get(TOKEN):
            headers["authorization"] = f"Bearer {token}"
        wait = FIRST_WAIT
        for attempt in range(1, TRIES + 1):
            said = post(self.url, body, headers)
            if not said.away:
                return said.what
            wait = max(wait, said.retry_after)
            if attempt < TRIES:
                self.sleep(min(wait, LONGEST_WAIT))
                wait *= 2
        raise Temporary(
            f"the web hook did not take the answers from number {place} on, {TRIES} times ({said.what})",
            where=self.url.split("?")[0],
            next="run the same command again: it goes on where it stopped",
        )

    def _bury(self, part: list[dict[str, Any]], place: int, refusal: str) -> None:
        with self.letters.open("a", encoding="utf-8") as file:
            for number, row in enumerate(part, place):
                file.write(json.dumps({"number": number, "why": refusal, "prediction": row}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.dead += len(part)

    def finish(self) -> Written:
        return Written(
            inserted=self.sent,
            unchanged=self.resumed_at,
            dead=self.dead,
            letters=str(self.letters) if self.dead else "",
        )


@dataclass(frozen=True)
class Said:
    """What the other side said to a call: nothing to complain about when `what` is empty."""

    what: str = ""
    away: bool = False  # it may take the same later
    retry_after: float = 0.0  # seconds that it asks for


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A POST that is sent elsewhere would arrive there as a GET, without its body, and count as taken."""

    def redirect_request(self, *args: Any) -> None:
        return None


CALLS = urllib.request.build_opener(_NoRedirect)


def check_line(location: str, where: str = "") -> None:
    """Raise UsageError where answers would go over an open line."""
    url = urlsplit(location)
    if url.scheme.lower() == "http" and url.hostname not in ("127.0.0.1", "localhost", "::1"):
        place = where or location.split("?")[0]
        raise UsageError("answers are not sent over an open line", where=place, next="use https://")


def post(url: str, body: bytes, headers: Mapping[str, str], timeout: float = TIMEOUT) -> Said:
    """Send one call, once, and return what was said to it."""
    request = urllib.request.Request(url, body, dict(headers), method="POST")  # noqa: S310 - scheme checked by matches
    try:
        with CALLS.open(request, timeout=timeout):
            return Said()
    except urllib.error.HTTPError as error:
        away = error.code in AWAY
        return Said(f"HTTP {error.code}", away, _retry_after(error.headers.get("retry-after")) if away else 0.0)
    except (OSError, TimeoutError, http.client.HTTPException) as error:
        return Said(str(getattr(error, "reason", error)) or type(error).__name__, True)


def _retry_after(value: str | None) -> float:
    """Return the seconds that the other side asks for: a number, or the moment it names."""
    if not value:
        return 0.0
    if value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, (email.utils.parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0
