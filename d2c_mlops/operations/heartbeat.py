"""Heartbeats: that a part of the project is alive, on record, as a Prometheus text file, and at a URL that watches from outside."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import requests
from sqlalchemy import select, update

from d2c_mlops.data.store import write_atomic
from d2c_mlops.errors import D2CError
from d2c_mlops.ledger.schema import heartbeats
from d2c_mlops.ledger.store import Ledger, insert_new
from d2c_mlops.runs.secrets.secrets import resolve_reference
from d2c_mlops.settings import Settings

SCHEDULER, MONITOR = "scheduler", "monitor"
CALL_SECONDS = (2.0, 2.5)  # to connect, and to answer: together less than 5 s
LARGEST_NOTE = 2000  # characters
METRIC = "d2c_heartbeat_timestamp_seconds"
HEAD = f"# HELP {METRIC} Time of the latest successful heartbeat of a part, in Unix seconds.\n# TYPE {METRIC} gauge\n"
LogMessage = Callable[[str], None]


@dataclass(frozen=True)
class Heartbeat:
    """The latest heartbeat of a part."""

    part: str  # scheduler, or monitor:MODEL
    at: datetime  # UTC
    ok: bool
    note: str


def ignore_message(line: str) -> None:
    """Ignore a progress message."""


def heartbeat(
    ledger: Ledger,
    settings: Settings,
    part: str,  # scheduler or monitor
    model: str = "",  # of a monitor
    *,
    ok: bool = True,
    note: str = "",  # why it failed
    now: datetime | None = None,  # UTC; default: the present
    log: LogMessage = ignore_message,
) -> None:
    """Record that a part is alive or that it failed; call its URL, or URL/fail. Raises nothing: failures are logged.

    The text file has the time of the latest success. A URL that does not answer within 5 s is given up.
    """
    at = now or datetime.now(UTC)
    try:
        _write_row(ledger, Heartbeat(f"{part}:{model}" if model else part, at, ok, note[:LARGEST_NOTE]))
    except D2CError as err:
        log(f"the heartbeat of {part} is not on record: {err}")
    if ok:
        try:
            write_text_file(settings, part, model, at)
        except OSError as err:
            log(f"the heartbeat of {part} has no text file: {err.strerror}: {err.filename}")
    if url := settings.alerts.heartbeat.get(part, ""):
        try:
            _call(resolve_reference(url).replace("{model}", model), ok, note)
        except (D2CError, requests.RequestException, ValueError) as err:
            log(f"[alerts] heartbeat.{part} was not reached: {_short(err)}")


def text_folder(settings: Settings) -> Path:
    """Return the folder of the text files that node_exporter reads."""
    chosen = settings.alerts.textfiles
    return settings.root / chosen if chosen else settings.store / "metrics"


def write_text_file(settings: Settings, part: str, model: str, at: datetime) -> Path:
    """Write the time of a heartbeat as a metric, atomically; return the file."""
    folder = text_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    labels = f'part="{part}"' + (f',model="{model}"' if model else "")
    file = folder / f"d2c_{re.sub(r'[^a-z0-9_]', '_', f'{part}_{model}'.strip('_'))}.prom"
    write_atomic(file, f"{HEAD}{METRIC}{{{labels}}} {at.timestamp():.0f}\n".encode())
    if settings.alerts.textfiles:
        with suppress(PermissionError):  # another user's file
            file.chmod(0o644)  # node_exporter is another user
    return file


def latest_heartbeats(ledger: Ledger) -> Mapping[str, Heartbeat]:
    """Return the latest heartbeat of each part that ever had one, by its name."""
    with ledger.read() as connection:
        rows = connection.execute(select(heartbeats).order_by(heartbeats.c.part)).all()
    return {row.part: Heartbeat(**row._mapping) for row in rows}


def _write_row(ledger: Ledger, beat: Heartbeat) -> None:
    with ledger.write() as connection:
        if not insert_new(connection, heartbeats, [vars(beat)]):
            connection.execute(update(heartbeats).where(heartbeats.c.part == beat.part).values(vars(beat)))


def _call(url: str, ok: bool, note: str) -> None:
    """Call a URL in the manner of healthchecks: URL after a success, URL/fail with the note after a failure."""
    parts = urlsplit(url)
    target = url if ok else urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/fail"))
    with requests.post(target, data=note.encode(), timeout=CALL_SECONDS, stream=True, allow_redirects=False) as answer:
        answer.raise_for_status()


def _short(err: Exception) -> str:
    """Return an error without its URL, which may hold a token."""
    if isinstance(err, requests.HTTPError) and err.response is not None:
        return f"it answered {err.response.status_code}"
    return type(err).__name__ if not isinstance(err, D2CError) else err.what
