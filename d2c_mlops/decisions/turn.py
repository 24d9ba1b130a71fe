"""Decision cycle: collect prediction logs, propose decisions, apply deadlines, notify deciders, apply due decisions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from d2c_mlops.decisions.applying import Applied, apply_due, now_utc
from d2c_mlops.decisions.deciding import Proposed, propose, settle
from d2c_mlops.decisions.policy import Policy
from d2c_mlops.decisions.telling import Say, tell
from d2c_mlops.errors import D2CError, UsageError
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.serving.log.collect import collect, folders
from d2c_mlops.serving.rollout.history import settle as settle_rollouts
from d2c_mlops.settings import Settings


@dataclass
class Turn:
    """Counts of a decision cycle for one model."""

    model: str
    proposed: Proposed = field(default_factory=Proposed)
    late: dict[str, int] = field(default_factory=dict)  # deadlines that had passed, by what happened then
    told: int = 0
    applied: Applied = field(default_factory=Applied)
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {
            "model": self.model, "proposed": self.proposed.to_dict(), "deadlines": self.late, "told": self.told,
            "applied": self.applied.to_dict(), "error": self.error,
        }  # fmt: skip


def quiet(text: str) -> None:
    """Ignore a progress message."""


def policies(settings: Settings, model: str | None = None) -> list[Policy]:
    """Return the policy of one model, or of all that have one. Raises UsageError."""
    if model is None and not settings.policies:
        raise UsageError(
            "no decision policy is configured",
            where="settings.ini",
            next="add a section [decisions:MODEL] with `field = …`",
        )
    return [Policy.of(each, settings) for each in ([model] if model else settings.policies)]


def collect_all(ledger: Ledger, settings: Settings) -> int:
    """Load the prediction logs of the store's services; return how many predictions were new."""
    found = [collect(ledger, each) for each in folders(settings)]
    if any(each.new_aborts for each in found):
        settle_rollouts(ledger, settings)
    return sum(each.new_predictions for each in found)


def collected(ledger: Ledger, settings: Settings, model: str | None, now: datetime, write: bool = True) -> list[Turn]:
    """Collect prediction logs and propose decisions; apply nothing."""
    chosen = policies(settings, model)
    collect_all(ledger, settings)
    return [Turn(each.model, propose(ledger, each, now, write=write)) for each in chosen]


def turn(
    ledger: Ledger,
    settings: Settings,
    model: str | None = None,
    *,
    clock: Callable[[], datetime] = now_utc,
    say: Say = quiet,
    bear: bool = False,  # a failure of one model does not stop the others
) -> list[Turn]:
    """Run the decision cycle for one model or for all with a policy; safe when several processes run it at once."""
    chosen = policies(settings, model)
    collect_all(ledger, settings)
    turns = []
    for policy in chosen:
        done = Turn(policy.model)
        turns.append(done)
        try:
            done.proposed = propose(ledger, policy, clock())
            done.late = settle(ledger, policy, clock())
            done.told = tell(ledger, policy, settings, clock(), say)
            done.applied = apply_due(ledger, policy, clock=clock)
        except D2CError as err:
            if not bear:
                raise
            done.error = str(err)
            say(done.error)
    return turns
