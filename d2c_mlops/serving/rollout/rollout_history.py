"""History of rollouts in the ledger: the current state, the state at a time, and the state file for services."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from d2c_mlops.errors import UsageError
from d2c_mlops.ledger.schema import rollouts
from d2c_mlops.ledger.store import Ledger, insert_new
from d2c_mlops.registry.promotion_history import champion_at_time as champion_at
from d2c_mlops.registry.versions import Version, find_version
from d2c_mlops.serving.log.aborted import abort_markers, abort_row
from d2c_mlops.serving.rollout.state_file import Rollout, ended_rollout, read_state, state_paths, write_state
from d2c_mlops.serving.state_paths import state_folder
from d2c_mlops.settings import Settings


@dataclass(frozen=True)
class RolloutEvent:
    """A row of the append-only history of rollouts."""

    id: int
    event: str
    model: str
    at: datetime
    by: str
    reason: str
    action: str  # start, widen, narrow, shadow, promote, abort, end
    mode: str
    share: float
    champion: int
    challenger: int | None
    salt: str
    stage: str
    evidence: dict[str, Any]

    @property
    def was_aborted_by_service(self) -> bool:
        """Whether a service aborted a stage automatically."""
        return self.event == f"abort-{self.stage}"

    def to_dict(self) -> dict[str, Any]:
        """Return the event as JSON values."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"at": self.at.isoformat()}


def rollout_events(ledger: Ledger, model: str, until: datetime | None = None) -> list[RolloutEvent]:
    """Return the events of a model's rollouts, oldest first, up to and including the time `until`."""
    query = select(rollouts).where(rollouts.c.model == model).order_by(rollouts.c.at, rollouts.c.id)
    if until is not None:
        query = query.where(rollouts.c.at <= until)
    with ledger.read() as connection:
        return [RolloutEvent(**row._mapping) for row in connection.execute(query)]


def current_event(events: Sequence[RolloutEvent]) -> RolloutEvent | None:
    """Return the current event: the last command, or the abort by a service that followed it."""
    decided = [event for event in events if not event.was_aborted_by_service]
    if not decided:
        return None
    over = [event for event in events if event.was_aborted_by_service and event.stage == decided[-1].stage]
    return over[0] if over else decided[-1]


def current_rollout(ledger: Ledger, model: str, settings: Settings, until: datetime | None = None) -> Rollout | None:
    """Return the current or last rollout; None when there never was one."""
    event, champion = current_event(rollout_events(ledger, model, until)), champion_at(ledger, model, until)
    if event is None or champion is None:
        return None
    rollout = Rollout(
        model, event.champion, event.challenger, event.mode, event.share, event.salt, event.stage,
        event.at.isoformat(), event.by, event.reason, settings.guards(model),
    )  # fmt: skip
    if rollout.in_progress and champion.version == rollout.champion:
        return rollout
    return replace(ended_rollout(rollout), champion=champion.version)


def share_rollout(ledger: Ledger, model: str, settings: Settings) -> tuple[Rollout, Version] | None:
    """Return the rollout and the challenger when a share of the keys is routed to the challenger."""
    record_aborts(ledger, model, settings)
    now = current_rollout(ledger, model, settings)
    if now is None or not now.in_progress or now.mode != "share" or now.challenger is None:
        return None
    return now, find_version(ledger, model, now.challenger)


def record_aborts(ledger: Ledger, model: str, settings: Settings) -> int:
    """Record automatic aborts of services on this machine in the ledger, and update the state file."""
    file, folder = state_file_of(model, settings)
    rows = [row for marker in (abort_markers(folder)) if (row := _abort_row(marker)) and row["model"] == model]
    new = 0
    if rows:
        with ledger.write() as connection:
            new = len(insert_new(connection, rollouts, rows))
    now = current_rollout(ledger, model, settings)
    if now is not None and file.exists():
        with suppress(UsageError, FileNotFoundError):
            written = read_state(file)
            if (written.stage, written.mode, written.share, written.champion) == (
                now.stage,
                now.mode,
                now.share,
                now.champion,
            ):
                return new
        write_state(file, now)
    return new


def record_all_aborts(ledger: Ledger, settings: Settings) -> None:
    """Update the state file of every model that had a rollout."""
    with ledger.read() as connection:
        models = connection.execute(select(rollouts.c.model).distinct()).scalars().all()
    for model in models:
        record_aborts(ledger, model, settings)


def _abort_row(marker: dict[str, Any]) -> dict[str, Any] | None:
    try:
        return abort_row(marker)
    except (KeyError, TypeError, ValueError):
        return None


def state_file_of(model: str, settings: Settings) -> tuple[Path, Path]:
    """Return the state file of a model's services on this machine, and the folder shared by their workers."""
    rollout_file = settings.service.rollout
    file, folder = state_paths(
        str(settings.root / rollout_file) if rollout_file else "", str(state_folder(model, settings)), model
    )
    assert file is not None and folder is not None
    return file, folder
