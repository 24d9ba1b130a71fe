"""Decision cycle: collect prediction logs, propose decisions, apply deadlines, notify deciders, apply due decisions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from d2c_mlops import former_names
from d2c_mlops.decisions.apply import ApplyCounts, apply_due, now_utc
from d2c_mlops.decisions.notifications import LogMessage, notify_deciders
from d2c_mlops.decisions.policy import Policy
from d2c_mlops.decisions.verdicts import ProposalCounts, apply_deadlines, create_decisions
from d2c_mlops.errors import D2CError, UsageError
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.serving.log.log_collection import collect_log_folder, log_folders
from d2c_mlops.serving.rollout.rollout_history import record_all_aborts as settle_rollouts
from d2c_mlops.settings import Settings


@dataclass
class CycleReport:
    """Counts of a decision cycle for one model."""

    model: str
    proposed: ProposalCounts = field(default_factory=ProposalCounts)
    deadlines: dict[str, int] = field(default_factory=dict)  # deadlines that had passed, by what happened then
    notified: int = 0
    applied: ApplyCounts = field(default_factory=ApplyCounts)
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {
            "model": self.model, "proposed": self.proposed.to_dict(), "deadlines": self.deadlines, "told": self.notified,
            "applied": self.applied.to_dict(), "error": self.error,
        }  # fmt: skip


def ignore_message(text: str) -> None:
    """Ignore a progress message."""


def configured_policies(settings: Settings, model: str | None = None) -> list[Policy]:
    """Return the policy of one model, or of all that have one. Raises UsageError."""
    if model is None and not settings.policies:
        raise UsageError(
            "no decision policy is configured",
            where="settings.ini",
            next="add a section [decisions:MODEL] with `field = …`",
        )
    return [Policy.of(name, settings) for name in ([model] if model else settings.policies)]


def collect_all(ledger: Ledger, settings: Settings) -> int:
    """Load the prediction logs of the store's services; return how many predictions were new."""
    collected_logs = [collect_log_folder(ledger, folder) for folder in log_folders(settings)]
    if any(log.new_aborts for log in collected_logs):
        settle_rollouts(ledger, settings)
    return sum(log.new_predictions for log in collected_logs)


def collect_and_propose(
    ledger: Ledger, settings: Settings, model: str | None, now: datetime, write: bool = True
) -> list[CycleReport]:
    """Collect prediction logs and propose decisions; apply nothing."""
    chosen = configured_policies(settings, model)
    collect_all(ledger, settings)
    return [CycleReport(policy.model, create_decisions(ledger, policy, now, write=write)) for policy in chosen]


def run_cycle(
    ledger: Ledger,
    settings: Settings,
    model: str | None = None,
    *,
    clock: Callable[[], datetime] = now_utc,
    log: LogMessage = ignore_message,
    continue_on_error: bool = False,  # a failure of one model does not stop the others
) -> list[CycleReport]:
    """Run the decision cycle for one model or for all with a policy; safe when several processes run it at once."""
    chosen = configured_policies(settings, model)
    collect_all(ledger, settings)
    turns = []
    for policy in chosen:
        report = CycleReport(policy.model)
        turns.append(report)
        try:
            report.proposed = create_decisions(ledger, policy, clock())
            report.deadlines = apply_deadlines(ledger, policy, clock())
            report.notified = notify_deciders(ledger, policy, settings, clock(), log)
            report.applied = apply_due(ledger, policy, clock=clock)
        except D2CError as err:
            if not continue_on_error:
                raise
            report.error = str(err)
            log(report.error)
    return turns


def __getattr__(name: str) -> Any:
    """Return a class or function of this module by its former name."""
    return former_names.renamed_class(__name__, name)
