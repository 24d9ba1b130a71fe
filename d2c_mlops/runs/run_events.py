"""What a notebook says to the ledger while it runs: values worth keeping and the data that it read."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from d2c_mlops.errors import UsageError
from d2c_mlops.settings import load

if TYPE_CHECKING:
    from d2c_mlops.data.tables import Tables

FOLDER = "D2C_RUN_FOLDER"  # set for the kernel of a run; absent in JupyterLab
RUN_ID = "D2C_RUN_ID"
SLOT_KEY = "D2C_SLOT_KEY"
EVENTS = "events.jsonl"


def record(**values: Any) -> None:
    """Keep named values (numbers, texts, lists, dicts) with the run; outside of a run they are only printed."""
    from d2c_mlops.runs.secrets.redaction import clean, forms
    from d2c_mlops.runs.secrets.secrets import resolved

    plain = clean({name: _plain(value, name) for name, value in values.items()}, forms(resolved()))
    tell("values", plain)
    print(" · ".join(f"{name} = {_short(value)}" for name, value in plain.items()))


def open_tables(name: str, digest: str | None = None) -> Tables:
    """Open a dataset that `d2c ingest` wrote; the run remembers which content it was."""
    from d2c_mlops.data.tables import Tables

    tables = Tables.open(load().store, name, digest)
    if tables.manifest is not None:
        tell("input", {"name": name, "digest": tables.manifest.digest})
    return tables


def run_id() -> str | None:
    """Return the id of the run that this notebook is executed in; None in JupyterLab."""
    return os.environ.get(RUN_ID)


def slot_key() -> str:
    """Return the key of the job and slot that this run is for, the same at every attempt; empty outside of the schedule."""
    return os.environ.get(SLOT_KEY, "")


def events(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield what a run has told so far; a torn last line is passed over."""
    file = folder / EVENTS
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def read_events(folder: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Return the recorded values and the inputs that a run has told so far."""
    values: dict[str, Any] = {}
    inputs: list[dict[str, str]] = []
    for event in events(folder):
        if event["kind"] == "values":
            values |= event["value"]
        elif event["kind"] == "input" and event["value"] not in inputs:
            inputs.append(event["value"])
    return values, inputs


def tell(kind: str, value: Any) -> None:
    """Tell the run that this process belongs to; outside of a run do nothing."""
    folder = os.environ.get(FOLDER)
    if folder:
        tell_in(Path(folder), kind, value)


def tell_in(folder: Path, kind: str, value: Any) -> None:
    """Tell the run whose outputs lie in a folder."""
    line = json.dumps({"kind": kind, "value": value}, ensure_ascii=False) + "\n"
    with (folder / EVENTS).open("a", encoding="utf-8") as file:
        file.write(line)


def notes_of(folder: Path) -> list[str]:
    """Return the notes about a run: what a reader of its result has to know."""
    return [str(event["value"]) for event in events(folder) if event["kind"] == "note"]


def _plain(value: Any, name: str) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _plain(each, name) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each, name) for each in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise UsageError(f"a value of type {type(value).__name__} cannot be recorded", where=name,
                     next="record numbers, texts, dates, lists or dicts")  # fmt: skip


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
