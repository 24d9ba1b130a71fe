"""Metric values that the gate compares: measured by an evaluator if there is one, else reported by the model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from d2c_mlops.models.core.model import Evaluation
from d2c_mlops.registry.evaluators import BASELINE, MODEL, REPORTED, Evaluator, Metric

TOLERANCE = 1e-9  # share by which two values of the same model on the same data may differ
MONEY = re.compile(r"profit|revenue|margin|cost|money|spend|turnover", re.IGNORECASE)


@dataclass(frozen=True)
class FigurePair:
    """Two values of one metric on the same rows: a model's, and a baseline's or champion's."""

    metric: Metric
    value: float
    reference: float
    name: str  # of the reference, such as a baseline

    @property
    def gain(self) -> float:
        """How much better the value is than the reference, in the unit of the metric (negative: worse)."""
        return self.reference - self.value if self.metric.lower_is_better else self.value - self.reference

    @property
    def better(self) -> bool:
        """Whether the value is better by more than rounding."""
        return self.gain > TOLERANCE * max(abs(self.value), abs(self.reference))

    @property
    def worse(self) -> bool:
        """Whether the value is worse by more than rounding, or one of the two is not a number."""
        return not self.gain >= -TOLERANCE * max(abs(self.value), abs(self.reference))

    @property
    def strength(self) -> float:
        """The gain as a share of the larger value; the strongest of several references has the smallest."""
        size = max(abs(self.value), abs(self.reference))
        return self.gain / size if size else 0.0

    def __str__(self) -> str:
        word = "better" if self.better else "worse" if self.worse else "no difference"
        unit = self.metric.unit
        if word == "no difference":
            amount = ""
        elif unit or not self.reference > 0:
            amount = f"{abs(self.gain):.4f} {unit}".strip() + " "
        else:
            amount = f"{abs(self.gain) / self.reference:.1%} "
        return f"{self.metric.name} {self.value:.4f} against {self.reference:.4f} of the {self.name}, {amount}{word}"


@dataclass(frozen=True)
class MeasuredModel:
    """Predictions of a model with the actual outcomes, and the metric that it is evaluated by."""

    evaluator: Evaluator
    metric: Metric
    observations: pd.DataFrame

    @property
    def answered_rows(self) -> pd.DataFrame:
        """The rows with a prediction."""
        rows = self.observations[self.observations[MODEL].notna()]
        return rows[~rows[REPORTED].astype(bool)] if REPORTED in rows else rows

    @property
    def reported_rows(self) -> pd.DataFrame | None:
        """The rows that evaluate() uses; None if the gate does not know them."""
        return self.observations[self.observations[REPORTED].astype(bool)] if REPORTED in self.observations else None

    @property
    def value(self) -> float:
        """The metric over all rows with a prediction."""
        return self.metric.score(self.answered_rows, MODEL)

    def baselines(self) -> dict[str, FigurePair]:
        """Return the comparison with each baseline, on the rows that both predict."""
        pairs = {}
        for column in self.observations.columns:
            if column.startswith(BASELINE):
                both = self.answered_rows[self.answered_rows[column].notna()]
                if len(both):
                    name = column.removeprefix(BASELINE)
                    value, baseline = self.metric.score(both, MODEL), self.metric.score(both, column)
                    pairs[name] = FigurePair(self.metric, value, baseline, name)
        return pairs

    def compared_with(self, champion: MeasuredModel, name: str) -> FigurePair | None:
        """Return the comparison with another model on the rows that both predict; None if there is no such row."""
        keys = list(self.evaluator.row)
        theirs = champion.answered_rows[[*keys, MODEL]].rename(columns={MODEL: "other"})
        both = self.answered_rows.merge(theirs, on=keys)
        if both.empty:
            return None
        return FigurePair(self.metric, self.metric.score(both, MODEL), self.metric.score(both, "other"), name)

    def keys(self) -> set[str]:
        """Return the keys (series, customers, leads) with a prediction."""
        return set(self.answered_rows[self.evaluator.row[-1]].astype(str))


def reported_metric(score: Evaluation, currency: str) -> Metric:
    """Return the metric that evaluate() reports, for its name and unit; its score is not computed."""
    unit = (currency or "money") if MONEY.search(score.metric) else ""
    return Metric(score.metric, lambda observations, column: float("nan"), score.lower_is_better, unit)


def reported_pairs(score: Evaluation, metric: Metric) -> Mapping[str, FigurePair]:
    """Return the comparison of the reported value with each reported baseline."""
    return {name: FigurePair(metric, score.value, value, name) for name, value in score.baselines.items()}
