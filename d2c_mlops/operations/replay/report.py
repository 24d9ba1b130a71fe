"""The report of a replay: figures of each policy, the recommendation, and what limits them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from d2c_mlops.monitoring.policy_choice import PolicyChoice
from d2c_mlops.monitoring.replay import PolicyWalk, StepSums


@dataclass(frozen=True)
class ReplayReport:
    """What each policy would have cost, and which one is recommended."""

    model: str
    dataset: str
    currency: str
    first: date  # look
    last: date  # day whose outcome counts
    step: int  # periods between two looks
    horizon: int
    training_cost: float
    walks: tuple[PolicyWalk, ...]  # of each policy, begun at the first look
    phases: tuple[
        tuple[PolicyWalk, ...], ...
    ]  # of each policy, begun at several days of its cadence; costs are their mean
    choice: PolicyChoice
    fits: int
    fit_seconds: float  # of all fits, each counted once; differs from run to run
    seconds: float  # CPU time of the replay without the fits that ran in other processes; differs from run to run
    notes: tuple[str, ...] = ()  # what a reader of the costs has to know, such as missing prices
    without_reasons: Mapping[str, str] = field(
        default_factory=dict
    )  # policy to the parts that could not be due, and why

    def costs(self) -> pd.DataFrame:
        """Return loss and cost of trainings by week and policy."""
        days = max(7, int(np.diff([day.toordinal() for day in self.walks[0].days]).max(initial=1)))
        weekly = {
            walks[0].policy: [walked.weekly(self.training_cost, days) for walked in walks] for walks in self.phases
        }
        return pd.DataFrame({policy: sum(costs) / len(costs) for policy, costs in weekly.items()})

    def rows(self) -> list[dict[str, Any]]:
        """Return the figures of each policy, as means over the phases of its cadence."""
        return [self._row(walks) for walks in self.phases]

    def _row(self, walks: Sequence[PolicyWalk]) -> dict[str, Any]:
        total = sum((walked.total for walked in walks), StepSums()).times(1 / len(walks))
        policy, revision = walks[0].policy, float(np.mean([walked.revision for walked in walks]))
        weeks = ((walks[0].days[-1] - walks[0].days[0]).days + 1) / 7
        counts = {
            name: float(np.mean([walked.count(name) for walked in walks])) for name in ("trained", "refused", "failed")
        }
        return {
            "policy": policy,
            "chosen": policy == self.choice.chosen,
            "trainings": counts["trained"],
            "refused": counts["refused"],
            "failed": counts["failed"],
            "wape": total.error / total.units if total.units else None,
            "answered": total.answered / total.outcomes if total.outcomes else None,
            "revision": revision if np.isfinite(revision) else None,
            "loss_a_week": total.loss / weeks,
            "training_cost_a_week": self.training_cost * counts["trained"] / weeks,
            "cost_first_half": float(self.choice.first[policy]),
            "cost_second_half": float(self.choice.second[policy]),
            "without_reasons": self.without_reasons.get(policy, ""),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON values, without times: they are the same at each run."""
        events = {walked.policy: [event.to_dict() for event in walked.events] for walked in self.walks}
        return {
            "model": self.model, "dataset": self.dataset, "currency": self.currency, "first_look": self.first.isoformat(), "last_day": self.last.isoformat(),
            "periods_between_looks": self.step, "periods_priced": self.horizon, "training_cost": self.training_cost, "fits": self.fits,
            "notes": list(self.notes), "choice": self.choice.to_dict(), "policies": self.rows(), "events": events,
        }  # fmt: skip
