"""A lead scorer as one would bring it: LightGBM, additive, so that the reasons of a score are exact look-ups."""

from __future__ import annotations

import json
from bisect import bisect_left
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pandera.pandas as pa

from d2c_mlops.data.tables import Tables
from d2c_mlops.models.charter import Charter
from d2c_mlops.models.contract import Contract, column
from d2c_mlops.models.model import Evaluation, Model

FEATURES = [f"feature_{i:02d}" for i in range(30)]
TREES, ROWS, TOLD = 200, 20_000, 3
ID = column("string", "The lead", max_length=40, example="L-1")
INPUTS = {name: column("number", f"Feature {name[-2:]}", ge=-100, le=100, example=0.5) for name in FEATURES}
SCORE = column("number", "Chance to buy", unit="share 0..1", ge=0, le=1)


class Additive(Model):
    """A step function per feature, read from a LightGBM of one-feature trees."""

    contract = Contract(
        name="additive", version="1.0.0", key="lead_id",
        inputs=pa.DataFrameSchema({"lead_id": ID, **INPUTS}), outputs=pa.DataFrameSchema({"lead_id": ID, "score": SCORE}),
    )  # fmt: skip
    charter = Charter()

    def __init__(self) -> None:
        self.base = 0.0
        self.steps: list[tuple[np.ndarray, np.ndarray]] = []
        self.text = ""

    def fit(self, tables: Tables, as_of: date) -> Self:
        import lightgbm as lgb

        chance = np.random.default_rng(0)
        x = chance.normal(size=(ROWS, len(FEATURES)))
        y = (np.sin(x[:, :10]).sum(axis=1) + chance.normal(size=ROWS) > 0).astype(int)
        params = {"objective": "binary", "verbose": -1, "num_threads": 2, "max_bin": 63,
                  "interaction_constraints": [[i] for i in range(len(FEATURES))]}  # fmt: skip
        booster = lgb.train(params, lgb.Dataset(x, y), TREES)
        self.text = booster.model_to_string()
        origin = np.zeros((1, len(FEATURES)))
        self.base = float(booster.predict(origin, raw_score=True)[0])
        splits = booster.trees_to_dataframe().dropna(subset=["threshold"])
        self.steps = []
        for i in range(len(FEATURES)):
            at = np.unique(splits.loc[splits["split_feature"] == f"Column_{i}", "threshold"].to_numpy(float))
            points = np.repeat(origin, len(at) + 1, axis=0)
            points[:, i] = [*at, (at[-1] if len(at) else 0) + 1]
            self.steps.append((at, booster.predict(points, raw_score=True) - self.base))
        return self

    @cached_property
    def lists(self) -> list[tuple[list[float], list[float]]]:
        """Return the steps as lists, which are faster for a single record."""
        return [(at.tolist(), values.tolist()) for at, values in self.steps]

    def _shares(self, records: Any) -> np.ndarray:
        """Return the contribution of each feature, rows × features."""
        if len(records) == 1:
            record = records[0]
            row = [values[bisect_left(at, record[n])] for n, (at, values) in zip(FEATURES, self.lists, strict=True)]
            return np.array([row])
        x = np.array([[record[n] for record in records] for n in FEATURES])
        return np.stack([v[at.searchsorted(x[i])] for i, (at, v) in enumerate(self.steps)], axis=1)

    def _scores(self, shares: np.ndarray) -> list[float]:
        return (1 / (1 + np.exp(-self.base - shares.sum(axis=1)))).tolist()

    def _reasons(self, shares: np.ndarray) -> list[list[str]]:
        top = np.argsort(-np.abs(shares), axis=1, kind="stable")[:, :TOLD]
        weights = np.take_along_axis(shares, top, axis=1)
        rows = zip(top.tolist(), weights.tolist(), strict=True)
        return [[f"{FEATURES[i]} {w:+.3f}" for i, w in zip(*row, strict=True)] for row in rows]

    def predict_records(self, records: Any) -> list[dict[str, Any]]:
        scores = self._scores(self._shares(records))
        return [{"lead_id": r["lead_id"], "score": s} for r, s in zip(records, scores, strict=True)]

    def answer_records(self, records: Any) -> tuple[list[dict[str, Any]], list[list[str]]]:
        shares = self._shares(records)
        scores = self._scores(shares)
        outputs = [{"lead_id": r["lead_id"], "score": s} for r, s in zip(records, scores, strict=True)]
        return outputs, self._reasons(shares)

    def predict(self, records: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame(self.predict_records(records.to_dict("records")))

    def explain(self, records: pd.DataFrame) -> list[list[str]]:
        return self._reasons(self._shares(records.to_dict("records")))

    def evaluate(self, tables: Tables, as_of: date) -> Evaluation:
        return Evaluation("auc", 0.5, {}, False)

    def write(self, folder: Path) -> None:
        steps = [[at.tolist(), values.tolist()] for at, values in self.steps]
        (folder / "steps.json").write_text(json.dumps({"base": self.base, "steps": steps}))
        (folder / "model.txt").write_text(self.text)

    def read(self, folder: Path) -> None:
        held = json.loads((folder / "steps.json").read_text())
        self.base = held["base"]
        self.steps = [(np.array(at), np.array(values)) for at, values in held["steps"]]
        self.text = (folder / "model.txt").read_text()

    @classmethod
    def example(cls) -> tuple[Tables, date]:
        return Tables({}), date(2026, 1, 1)

    def records(self, tables: Tables, as_of: date) -> pd.DataFrame:
        values = np.random.default_rng(1).normal(size=(100, len(FEATURES))).round(6)
        return pd.DataFrame(values, columns=FEATURES).assign(lead_id=[f"L-{i}" for i in range(100)])
