"""The figures that the gate compares: measured by the toolkit where it knows how, else as the model reports them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from d2c_mlops.models.core.model import Evaluation
from d2c_mlops.registry.evaluators import BASELINE, MODEL, REPORTED, Evaluator, Metric

TOLERANCE = 1e-9  # share by which two figures of the same model on the same data may differ
MONEY = re.compile(r"profit|revenue|margin|cost|money|spend|turnover", re.IGNORECASE)


@dataclass(frozen=True)
class FigurePair:
    """Two figures of one metric on the same rows."""

    metric: Metric
    value: float
    other: float
    name: str  # of the other

    @property
    def gain(self) -> float:
        """By how much the value is better than the other, in the unit of the metric (negative: worse)."""
        return self.other - self.value if self.metric.lower_is_better else self.value - self.other

    @property
    def better(self) -> bool:
        """Whether the value is better by more than rounding."""
        return self.gain > TOLERANCE * max(abs(self.value), abs(self.other))

    @property
    def worse(self) -> bool:
        """Whether the value is worse by more than rounding, or one of the two is no number."""
        return not self.gain >= -TOLERANCE * max(abs(self.value), abs(self.other))

    @property
    def strength(self) -> float:
        """The gain as a share of the larger figure, for telling which of several others is the strongest."""
        size = max(abs(self.value), abs(self.other))
        return self.gain / size if size else 0.0

    def __str__(self) -> str:
        word = "better" if self.better else "worse" if self.worse else "no difference"
        unit = self.metric.unit
        if word == "no difference":
            amount = ""
        elif unit or not self.other > 0:
            amount = f"{abs(self.gain):.4f} {unit}".strip() + " "
        else:
            amount = f"{abs(self.gain) / self.other:.1%} "
        return f"{self.metric.name} {self.value:.4f} against {self.other:.4f} of the {self.name}, {amount}{word}"


@dataclass(frozen=True)
class Measured:
    """What a model answered at past cutoffs beside what came, and the metric that it is judged by."""

    evaluator: Evaluator
    metric: Metric
    seen: pd.DataFrame

    @property
    def answered(self) -> pd.DataFrame:
        """The rows that the model answers."""
        found = self.seen[self.seen[MODEL].notna()]
        return found[~found[REPORTED].astype(bool)] if REPORTED in found else found

    @property
    def repeated(self) -> pd.DataFrame | None:
        """The rows that evaluate() is said to judge by; None where the gate does not know them."""
        return self.seen[self.seen[REPORTED].astype(bool)] if REPORTED in self.seen else None

    @property
    def value(self) -> float:
        """The metric over all rows that the model answers."""
        return self.metric.score(self.answered, MODEL)

    def baselines(self) -> dict[str, FigurePair]:
        """Return the model beside each baseline, on the rows that both answer."""
        found = {}
        for column in self.seen.columns:
            if column.startswith(BASELINE):
                both = self.answered[self.answered[column].notna()]
                if len(both):
                    name = column.removeprefix(BASELINE)
                    value, other = self.metric.score(both, MODEL), self.metric.score(both, column)
                    found[name] = FigurePair(self.metric, value, other, name)
        return found

    def beside(self, other: Measured, name: str) -> FigurePair | None:
        """Return this model beside another on the rows that both answer; None where there is no such row."""
        keys = list(self.evaluator.row)
        theirs = other.answered[[*keys, MODEL]].rename(columns={MODEL: "other"})
        both = self.answered.merge(theirs, on=keys)
        if both.empty:
            return None
        return FigurePair(self.metric, self.metric.score(both, MODEL), self.metric.score(both, "other"), name)

    def keys(self) -> set[str]:
        """Return the series (customers, leads) that the model answers."""
        return set(self.answered[self.evaluator.row[-1]].astype(str))


def reported(score: Evaluation, currency: str) -> Metric:
    """Return the metric that evaluate() reports; nothing is computed with it."""
    unit = (currency or "money") if MONEY.search(score.metric) else ""
    return Metric(score.metric, lambda seen, column: float("nan"), score.lower_is_better, unit)


def pairs_of(score: Evaluation, metric: Metric) -> Mapping[str, FigurePair]:
    """Return the figure that evaluate() reports beside each of its baselines."""
    return {name: FigurePair(metric, score.value, value, name) for name, value in score.baselines.items()}
