"""How the gate measures the toy shop's model; a module of its own, which the service does not load."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pandas as pd

from d2c_mlops.models.core.charter import Charter
from d2c_mlops.models.core.contract import Contract
from d2c_mlops.registry.evaluators import EvaluationTrial, Evaluator, Metric, predict_shuffled


class UnitsEvaluator(Evaluator):
    """Measures units per order line, which the toolkit does not know."""

    name = "units per line"
    row = ("line", "product_id")

    def knows(self, contract: Contract) -> bool:
        return contract.name == "mean_units"

    def metrics(self, charter: Charter, params: Mapping[str, Any]) -> Sequence[Metric]:
        return (Metric("mae", lambda seen, column: float((seen[column] - seen["came"]).abs().mean())),)

    def observe(self, trial: EvaluationTrial) -> pd.DataFrame:
        model = trial.fitted(trial.as_of - timedelta(days=60))
        key, day = (field.name for field in model.contract.input_fields[:2])
        lines = trial.tables.before(trial.as_of)["order_lines"]
        late = lines[lines["ordered_at"] >= pd.Timestamp(trial.as_of - timedelta(days=59), tz="UTC")].reset_index()
        records = pd.DataFrame({key: late["product_id"].unique(), day: pd.Timestamp(trial.as_of).as_unit("us")})
        units = pd.Series(predict_shuffled(model, records, model.contract.output_fields[1].name), index=records[key])
        frame = pd.DataFrame(
            {"line": late.index, "product_id": late["product_id"], "came": late["quantity"].astype(float)}
        )
        return frame.assign(**{"model": late["product_id"].map(units).astype(float), "baseline.one": 9.0})
