"""Rollouts that services aborted automatically: their marker files, and the row in the ledger."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from d2c_mlops.ledger.schema import rollouts


def abort_row(line: dict[str, Any]) -> dict[str, Any]:
    """Return the ledger row of a rollout that a service aborted."""
    names = [column.name for column in rollouts.columns if column.name not in ("id", "at")]
    return {**{name: line[name] for name in names}, "at": datetime.fromisoformat(line["at"])}


def abort_markers(folder: Path) -> list[dict[str, Any]]:
    """Return the marker files of stages that services aborted."""
    markers = []
    for file in sorted(folder.glob("aborted-*.json")):
        with suppress(OSError, ValueError):
            markers.append(json.loads(file.read_text(encoding="utf-8")))
    return markers
