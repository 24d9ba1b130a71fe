"""Promote a version or roll back: change the champion, end its rollout, and update running services."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

from sqlalchemy import insert

from d2c_mlops.errors import D2CError
from d2c_mlops.file_lock import lock
from d2c_mlops.ledger.schema import rollouts
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.registry import artifacts
from d2c_mlops.registry.gate import Clause
from d2c_mlops.registry.promotion_history import Promotion, promotions_until
from d2c_mlops.registry.promotions import judge_and_promote, revert_promotion
from d2c_mlops.serving.rollout.rollout_history import current_event, current_rollout, rollout_events, state_file_of
from d2c_mlops.serving.rollout.state_file import Rollout, write_state
from d2c_mlops.settings import Settings


def promote(
    model: str,
    settings: Settings,
    *,
    number: int | None = None,
    by: str | None = None,
    reason: str = "",
    override: bool = False,
) -> tuple[Promotion | None, list[Clause]]:
    """Promote a version that passes the gate, end the rollout, and update running services without a restart."""
    return judge_and_promote(
        model,
        settings,
        number=number,
        by=by,
        reason=reason,
        override=override,
        on_promotion=lambda p: _update_services(p, settings),
    )


def rollback(
    model: str, settings: Settings, *, number: int | None = None, by: str | None = None, reason: str = ""
) -> Promotion:
    """Roll back to a previous champion, end the rollout, and update running services without a restart."""
    return revert_promotion(
        model, settings, number=number, by=by, reason=reason, on_promotion=lambda p: _update_services(p, settings)
    )


def complete_promotion(model: str, settings: Settings) -> None:
    """Complete the last promotion if its process was killed: end the rollout of the former champion, update services and alias.

    Changes nothing where all is as the record says.
    """
    ledger = Ledger.of(settings)
    history = promotions_until(ledger, model)
    if not history:
        return
    event = current_event(rollout_events(ledger, model))
    if event is None or event.mode == "off" or event.champion != history[-1].version:
        _update_services(history[-1], settings)
    if artifacts.version_of_alias(settings, model, "champion") != history[-1].version:
        artifacts.set_alias(settings, model, "champion", history[-1].version)


def append_event(
    ledger: Ledger,
    settings: Settings,
    model: str,
    action: str,
    reason: str,
    by: str | None,
    *,
    champion: int,
    challenger: int | None,
    mode: str = "off",
    share: float = 0.0,
) -> None:
    """Append an event to the history and write the state file. The ledger is written first; the file can be restored from it."""
    row: dict[str, Any] = {
        "event": token_hex(12), "model": model, "at": datetime.now(UTC), "by": by or getpass.getuser(),
        "reason": reason, "action": action, "mode": mode, "share": share, "champion": champion,
        "challenger": challenger, "salt": str(challenger or ""), "stage": token_hex(8), "evidence": {},
    }  # fmt: skip
    file, _ = state_file_of(model, settings)
    with lock(file.parent, "the rollout", 10.0):
        with ledger.write() as connection:
            connection.execute(insert(rollouts).values(row))
        now = current_rollout(ledger, model, settings)
        assert now is not None
        write_state(file, now)


def _update_services(promotion: Promotion, settings: Settings) -> None:
    """End a rollout whose champion has changed, and switch services that have loaded the new champion."""
    ledger, model = Ledger.of(settings), promotion.model
    event = current_event(rollout_events(ledger, model))
    if event is not None and event.mode != "off":
        won = promotion.version == event.challenger
        why = promotion.reason if won else f"version {promotion.version} became champion"
        action = "promote" if won else "end"
        append_event(
            ledger, settings, model, action, why, promotion.by, champion=promotion.version, challenger=event.challenger
        )
        return
    file, folder = state_file_of(model, settings)
    if file.exists() or folder.exists():
        write_state(file, current_rollout(ledger, model, settings) or Rollout(model, promotion.version))


def alias_notes(change: Any) -> list[str]:
    """Move the registry's alias; an unavailable registry is reported as a note."""
    try:
        change()
    except D2CError as err:
        return [f"the alias `challenger` could not be moved: {err.what}"]
    return []
