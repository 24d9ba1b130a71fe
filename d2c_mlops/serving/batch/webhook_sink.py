"""Sink for a web hook: sends new and changed predictions with idempotency keys, retries, and stores refused ones as dead letters."""

from __future__ import annotations

import base64
import email.utils
import http.client
import json
import os
import sqlite3
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit, urlunsplit

import pandas as pd

from d2c_mlops.data.sources.fetch import LIKE_TOKEN
from d2c_mlops.errors import Temporary, UsageError
from d2c_mlops.models.core.contract import to_records
from d2c_mlops.private_files import private_file, private_folder
from d2c_mlops.serving.batch.sinks import Batch, BatchWriter, WriteCounts

AT_ONCE = 500  # answers in one call
TRIES, FIRST_WAIT, LONGEST_WAIT = 6, 0.5, 30.0  # attempts, and seconds between them: doubled each time
TIMEOUT = 30.0  # seconds for one call
AWAY = frozenset({408, 425, 429, 500, 502, 503, 504})
TOKEN = "D2C_WEBHOOK_TOKEN"  # noqa: S105 - the name of the variable with the bearer token


@dataclass(frozen=True)
class LastDelivery:
    """The last delivery of a prediction to a web hook."""

    digest: str = ""  # empty when it has taken nothing
    turns: int = 0  # how often it was told, taken or refused


@dataclass(frozen=True)
class HookMessage:
    """A prediction to deliver."""

    number: int  # within the batch
    name: str  # of what it is about
    digest: str  # of what it says
    row: dict[str, Any]


NEVER = LastDelivery()


class DeliveryLog:
    """A SQLite file with the digest of the last delivered prediction for each record of a model."""

    def __init__(self, file: Path, model: str) -> None:
        self.model = model
        private_file(file)
        self.db = sqlite3.connect(file, timeout=10.0, isolation_level=None)
        columns = "model TEXT, name TEXT, digest TEXT NOT NULL, turns INTEGER NOT NULL"
        self.db.execute(f"CREATE TABLE IF NOT EXISTS sent ({columns}, PRIMARY KEY (model, name)) WITHOUT ROWID")

    def last(self, names: Sequence[str]) -> dict[str, LastDelivery]:
        """Return the last deliveries by name; names without one are missing."""
        query = "SELECT name, digest, turns FROM sent WHERE model = ? AND name IN (SELECT value FROM json_each(?))"
        return {
            name: LastDelivery(*columns) for name, *columns in self.db.execute(query, (self.model, json.dumps(names)))
        }

    def record(self, letters: Sequence[HookMessage], accepted: bool) -> None:
        """Record deliveries; after a refused one the receiver's state is unknown."""
        rows = [(self.model, message.name, message.digest if accepted else "") for message in letters]
        with self.db:
            self.db.execute("BEGIN")
            self.db.executemany(
                "INSERT INTO sent VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE SET digest = excluded.digest, turns = turns + 1",
                rows,
            )

    def close(self) -> None:
        """Close the file."""
        self.db.close()


def _payload_digest(values: Any) -> str:
    return blake2b(json.dumps(values, default=str).encode(), digest_size=12).hexdigest()


class WebhookSink:
    """Sink for a URL that accepts POSTs of JSON: {"batch", "first", "model", "version", "predictions": [...]}."""

    expects: ClassVar[str] = "https://HOST/PATH"
    unique: ClassVar[bool] = False
    store: Path = Path("d2c_store")

    def matches(self, location: str) -> bool:
        return location.lower().startswith(("http://", "https://"))

    @contextmanager
    def open(self, location: str, batch: Batch) -> Iterator[BatchWriter]:
        check_encrypted(location)
        folder = self.store / "outbox"
        private_folder(folder)
        sent = DeliveryLog(folder / f"{sha256(location.encode()).hexdigest()[:24]}.db", batch.model)
        try:
            yield _HookWriter(location, batch, sent, folder / f"{batch.id}.dead.jsonl")
        finally:
            sent.close()


@dataclass
class _HookWriter:
    url: str
    batch: Batch
    deliveries: DeliveryLog
    letters: Path
    resumed_at: int = 0  # every prediction is looked up: accepted ones are not sent again
    columns: list[str] = field(default_factory=list)
    sleep: Callable[[float], None] = time.sleep
    told: WriteCounts = field(default_factory=WriteCounts)
    seen: Counter[str] = field(default_factory=Counter)

    def write(self, frame: pd.DataFrame, first: int) -> None:
        """Send predictions that changed since the last delivery, at most AT_ONCE per call, and record the accepted and refused ones."""
        self.columns = list(frame.columns)
        letters = list(self._hook_messages(frame, first))
        last = self.deliveries.last([message.name for message in letters])
        due = [message for message in letters if last.get(message.name, NEVER).digest != message.digest]
        self.told.unchanged += len(letters) - len(due)
        for start in range(0, len(due), AT_ONCE):
            part = due[start : start + AT_ONCE]
            before = [last.get(message.name, NEVER) for message in part]
            refusal = self._post_message(part, [delivery.turns for delivery in before])
            self.deliveries.record(part, accepted=not refusal)
            if refusal:
                self._write_dead_letters(part, refusal)
            else:
                again = sum(bool(delivery.digest) for delivery in before)
                self.told.updated += again
                self.told.inserted += len(part) - again

    def _hook_messages(self, frame: pd.DataFrame, first: int) -> Iterator[HookMessage]:
        """Yield each prediction with the name of its record and a digest of its content."""
        rows = to_records(self.batch.contract.output_fields, frame)
        versions = frame["version"].tolist() if "version" in frame else [self.batch.version] * len(rows)
        if self.batch.reasons:
            for row, reasons_text in zip(rows, frame["reasons"], strict=True):
                row["reasons"] = json.loads(reasons_text)
        if "variant" in frame:
            for row, version, variant in zip(rows, versions, frame["variant"], strict=True):
                row |= {"version": version, "variant": variant}
        for number, (row, version) in enumerate(zip(rows, versions, strict=True), first):
            about = _payload_digest([row[name] for name in self.batch.identity])
            self.seen[about] += 1
            yield HookMessage(number, f"{about}-{self.seen[about]}", _payload_digest([version, row]), row)

    def _post_message(self, part: list[HookMessage], turns: list[int]) -> str:
        """Return an empty text when the call was accepted, else why it was refused.

        Raises Temporary when the receiver is unavailable, UsageError when it refuses the credentials.
        """
        place, batch = part[0].number, self.batch
        about = {"batch": batch.id, "first": place, "model": batch.model, "version": batch.version}
        body = json.dumps({**about, "predictions": [message.row for message in part]}).encode()
        # The same key until the call is known to be accepted; a new one when the same predictions must be sent again.
        key = f"{batch.id}-{place}-{sha256(body + repr(turns).encode()).hexdigest()[:16]}"
        headers = {"content-type": "application/json", "idempotency-key": key}
        if token := os.environ.get(TOKEN):
            headers["authorization"] = f"Bearer {token}"
        wait = FIRST_WAIT
        for attempt in range(1, TRIES + 1):
            response = post_once(self.url, body, headers)
            if response.status in (401, 403):
                raise UsageError(
                    f"the web hook refused the credentials ({response.what})", where=masked_url(self.url),
                    next=f"set {TOKEN} to its token and run the same command again: it resumes where it stopped",
                )  # fmt: skip
            if not response.away:
                return response.what
            wait = max(wait, response.retry_after)
            if attempt < TRIES:
                self.sleep(min(wait, LONGEST_WAIT))
                wait *= 2
        raise Temporary(
            f"the web hook did not accept the predictions from number {place} on, {TRIES} times ({response.what})",
            where=masked_url(self.url),
            next="run the same command again: it resumes where it stopped",
        )

    def _write_dead_letters(self, part: list[HookMessage], refusal: str) -> None:
        mode = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if self.told.dead else os.O_TRUNC)
        with os.fdopen(os.open(self.letters, mode, 0o600), "w", encoding="utf-8") as file:
            self.letters.chmod(0o600)
            for message in part:
                file.write(json.dumps({"number": message.number, "why": refusal, "prediction": message.row}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.told.dead += len(part)

    def finish(self) -> WriteCounts:
        if self.told.dead:
            self.told.letters = str(self.letters)
        else:
            self.letters.unlink(missing_ok=True)  # dead letters of an earlier attempt were accepted meanwhile
        return self.told


@dataclass(frozen=True)
class HookResponse:
    """Response of the receiver; an empty `what` means success."""

    what: str = ""
    away: bool = False  # a retry may succeed
    retry_after: float = 0.0  # seconds of Retry-After
    status: int = 0  # HTTP status; 0 when there was no answer, or on success


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: a redirected POST would become a GET without its body and count as accepted."""

    def redirect_request(self, *args: Any) -> None:
        return None


CALLS = urllib.request.build_opener(_NoRedirect)


def check_encrypted(location: str, where: str = "") -> None:
    """Raise UsageError where predictions would be sent over an unencrypted connection."""
    url = urlsplit(location)
    if url.scheme.lower() == "http" and url.hostname not in ("127.0.0.1", "localhost", "::1"):
        place = where or masked_url(location)
        raise UsageError("predictions are not sent over an unencrypted connection", where=place, next="use https://")


def masked_url(url: str) -> str:
    """Return a web hook's URL without secrets: user, query, and random parts of its path."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return url.partition("://")[0] + "://***"
    place = f"[{host}]" if ":" in host else host
    path = "/".join("***" if LIKE_TOKEN.fullmatch(part) else part for part in parts.path.split("/"))
    return f"{parts.scheme}://{place}{f':{port}' if port else ''}{path}"


def split_credentials(url: str, headers: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Return a URL without user and password, and the Authorization header for them (RFC 7617)."""
    parts = urlsplit(url)
    user, at, place = parts.netloc.rpartition("@")
    all_headers = dict(headers)
    if at:
        all_headers.setdefault("authorization", f"Basic {base64.b64encode(unquote(user).encode()).decode()}")
    return urlunsplit(parts._replace(netloc=place)), all_headers


def post_once(url: str, body: bytes, headers: Mapping[str, str], timeout: float = TIMEOUT) -> HookResponse:
    """Send one call, without retries, and return the response."""
    try:
        plain, all_headers = split_credentials(url, headers)
        request = urllib.request.Request(plain, body, all_headers, method="POST")  # noqa: S310 - scheme checked by matches
        with CALLS.open(request, timeout=timeout):
            return HookResponse()
    except urllib.error.HTTPError as error:
        away = error.code in AWAY
        wait = _retry_after(error.headers.get("retry-after")) if away else 0.0
        return HookResponse(f"HTTP {error.code}", away, wait, error.code)
    except (http.client.InvalidURL, ValueError):  # their texts repeat the URL
        return HookResponse("the URL is malformed", True)
    except (OSError, TimeoutError, http.client.HTTPException) as error:
        return HookResponse(str(getattr(error, "reason", error)) or type(error).__name__, True)


def _retry_after(value: str | None) -> float:
    """Return the seconds of a Retry-After header: a number, or a date."""
    if not value:
        return 0.0
    if value.strip().isascii() and value.strip().isdigit():
        return float(value)
    try:
        return max(0.0, (email.utils.parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0
