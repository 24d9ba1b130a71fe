"""Events of a run, written as JSON lines to a file in the run's folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass

FOLDER = "D2C_RUN_FOLDER"  # set for the kernel of a run; absent in JupyterLab
RUN_ID = "D2C_RUN_ID"
SLOT_KEY = "D2C_SLOT_KEY"
EVENTS = "events.jsonl"


def run_events(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a run so far; an incomplete last line is skipped."""
    file = folder / EVENTS
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            yield json.loads(line)
        except ValueError:
            continue


def read_events(folder: Path) -> tuple[dict[str, Any], list[dict[str, str]]]:
    """Return the values and the inputs that a run has recorded so far."""
    values: dict[str, Any] = {}
    inputs: list[dict[str, str]] = []
    for event in run_events(folder):
        if event["kind"] == "values":
            values |= event["value"]
        elif event["kind"] == "input" and event["value"] not in inputs:
            inputs.append(event["value"])
    return values, inputs


def append_event(kind: str, value: Any) -> None:
    """Write an event to the run of this process; outside of a run do nothing."""
    folder = os.environ.get(FOLDER)
    if folder:
        append_event_to(Path(folder), kind, value)


def append_event_to(folder: Path, kind: str, value: Any) -> None:
    """Write an event to the run with this output folder."""
    line = json.dumps({"kind": kind, "value": value}, ensure_ascii=False) + "\n"
    with (folder / EVENTS).open("a", encoding="utf-8") as file:
        file.write(line)


def run_notes(folder: Path) -> list[str]:
    """Return the notes about a run: what readers of its results need to know."""
    return [str(event["value"]) for event in run_events(folder) if event["kind"] == "note"]
