"""Evaluator of customer value: the predicted value of the next 90 days against the actual spend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pandas as pd

from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import DataRefused
from d2c_mlops.models.core.charter import Charter
from d2c_mlops.models.core.contract import Contract
from d2c_mlops.models.segmentation.customer_features import WINDOW, customer_features, spend_in_window
from d2c_mlops.models.segmentation.rfm import Rfm, segment_mean
from d2c_mlops.registry.evaluators import (
    ACTUAL,
    BASELINE,
    FACTOR,
    MODEL,
    EvaluationTrial,
    Evaluator,
    Metric,
    multiply_numbers,
    predict_shuffled,
)
from d2c_mlops.registry.evaluators.demand import mae, wape

CUTOFFS, APART = 2, 30  # the last of them 90 days before as_of, days between two
ANSWER = f"value_{WINDOW}d"


class CustomerValueEvaluator(Evaluator):
    """The expected spend of each customer."""

    name = "customer value"
    row = ("cutoff", "customer_id")
    world = "three times the prices"

    def knows(self, contract: Contract) -> bool:
        return contract.key == "customer_id" and ANSWER in (field.name for field in contract.output_fields)

    def metrics(self, charter: Charter, params: Mapping[str, Any]) -> Sequence[Metric]:
        return (Metric(f"wape_{WINDOW}d", wape), Metric(f"mae_{WINDOW}d", mae, unit=charter.currency or "money"))

    def disguise(self, tables: Tables) -> Tables:
        """Return tables in which all prices are multiplied by three."""
        return multiply_numbers(tables, ("order_lines", "orders"), FACTOR, excluded=("quantity", "returned_quantity"))

    def observe(self, trial: EvaluationTrial) -> pd.DataFrame:
        frames = []
        for k in reversed(range(trial.cutoffs(CUTOFFS))):
            cutoff = trial.as_of - timedelta(days=WINDOW + APART * k)
            past = trial.tables.before(cutoff)
            try:
                features = customer_features(past, cutoff)
                model = trial.fitted(cutoff)
            except DataRefused:
                if k == 0:
                    raise
                continue
            spend = features["spend_90d"].to_numpy(dtype=float)
            records = model.records(past, cutoff)
            predictions = pd.Series(predict_shuffled(model, records, ANSWER), index=records["customer_id"].astype(str))
            baselines = {
                "carry_forward_90d": spend,
                "rfm_mean_90d": segment_mean(Rfm.of(features).segments(features), spend),
                "one_segment_mean_90d": spend.mean(),
            }
            frame = pd.DataFrame({"cutoff": cutoff.isoformat(), "customer_id": features["customer_id"].astype(str)})
            frame[ACTUAL] = spend_in_window(
                features, trial.tables.before(trial.as_of), cutoff, cutoff + timedelta(days=WINDOW)
            )
            frame[MODEL] = predictions[~predictions.index.duplicated()].reindex(frame["customer_id"]).to_numpy()
            frames.append(frame.assign(**{BASELINE + name: value for name, value in baselines.items()}))
        return pd.concat(frames, ignore_index=True)
