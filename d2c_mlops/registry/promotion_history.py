"""Read the append-only history of promotions: which version was champion at a time."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import select

from ..errors import UsageError
from ..ledger.schema import promotions
from ..ledger.store import Ledger
from .versions import Version, find_version


@dataclass(frozen=True)
class Promotion:
    """A row of the append-only record: which version became champion when, why, by whom."""

    id: int
    model: str
    version: int
    previous: int | None
    action: str  # promote, override, rollback
    at: datetime
    by: str
    reason: str
    gate: list[dict[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Return the promotion as JSON values."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"at": self.at.isoformat()}


def promotions_until(ledger: Ledger, model: str | None = None, at: datetime | None = None) -> list[Promotion]:
    """Return the promotions, oldest first; up to and including the moment `at`."""
    query = select(promotions).order_by(promotions.c.id)
    if model:
        query = query.where(promotions.c.model == model)
    if at:
        query = query.where(promotions.c.at <= at)
    with ledger.read() as connection:
        return [Promotion(**row._mapping) for row in connection.execute(query)]


def champion_at_time(ledger: Ledger, model: str, at: datetime | None = None) -> Version | None:
    """Return the version that is live, or was live at a time; None if there was none."""
    records = promotions_until(ledger, model, at)
    return find_version(ledger, model, records[-1].version) if records else None


def live_version(ledger: Ledger, model: str) -> Version:
    """Return the champion. Raises UsageError if the model has none."""
    version = champion_at_time(ledger, model)
    if version is None:
        find_version(ledger, model)
        raise UsageError(f"{model} has versions, but no champion", next=f"`d2c promote {model}`")
    return version


def former_champions(records: list[Promotion]) -> list[int]:
    """Return the versions for a rollback; the last element is the first choice.

    A rollback undoes the promotion before it, so that rolling back twice goes two versions back.
    """
    stack: list[int] = []
    for record in records:
        if record.action == "rollback" and record.version in stack:
            del stack[stack.index(record.version) + 1 :]
        else:
            stack.append(record.version)
    return stack[:-1]
