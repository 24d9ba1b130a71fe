"""Rollouts that services ended by themselves: what they wrote about it, and its row of the ledger."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from d2c_mlops.ledger.schema import rollouts


def abort_row(line: dict[str, Any]) -> dict[str, Any]:
    """Return the ledger's row of what a service said when it ended a rollout."""
    names = [column.name for column in rollouts.columns if column.name not in ("id", "at")]
    return {**{name: line[name] for name in names}, "at": datetime.fromisoformat(line["at"])}


def marks(folder: Path) -> list[dict[str, Any]]:
    """Return what services said about stages that they ended."""
    found = []
    for file in sorted(folder.glob("aborted-*.json")):
        with suppress(OSError, ValueError):
            found.append(json.loads(file.read_text(encoding="utf-8")))
    return found
