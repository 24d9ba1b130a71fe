"""A lead scorer as one would bring it: LightGBM, additive, so that the reasons of a score are exact look-ups."""

from __future__ import annotations

import json
import math
import struct
from bisect import bisect_left
from datetime import date
from functools import cached_property, reduce
from itertools import chain
from operator import add, getitem, itemgetter
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pandera.pandas as pa

from d2c_mlops.data.tables import Tables
from d2c_mlops.models.core.charter import Charter
from d2c_mlops.models.core.contract import Contract, column, values_of
from d2c_mlops.models.core.model import Evaluation, Model

FEATURES = [f"feature_{i:02d}" for i in range(30)]
VALUES, CONTRIBUTION = itemgetter(*FEATURES), itemgetter(2)
TREES, ROWS, TOLD = 200, 20_000, 3
ID = column("string", "The lead", max_length=40, example="L-1")
INPUTS = {name: column("number", f"Feature {name[-2:]}", ge=-100, le=100, example=0.5) for name in FEATURES}
SCORE = column("number", "Chance to buy", unit="share 0..1", ge=0, le=1)


def chance(logit: float) -> float:
    """Return the share that log-odds stand for."""
    return 1 / (1 + math.exp(-logit))


def boost(**more: Any) -> Any:
    """Return a LightGBM of TREES trees; `more` parameters make it another one of the same data."""
    import lightgbm as lgb

    random = np.random.default_rng(0)
    x = random.normal(size=(ROWS, len(FEATURES)))
    y = (np.sin(x[:, :10]).sum(axis=1) + random.normal(size=ROWS) > 0).astype(int)
    params = {"objective": "binary", "verbose": -1, "num_threads": 2, "max_bin": 63, **more}
    return lgb.train(params, lgb.Dataset(x, y), TREES)


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
        booster = boost(interaction_constraints=[[i] for i in range(len(FEATURES))])
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
    def singly(self) -> tuple[list[list[float]], list[list[tuple[float, int, float, str]]]]:
        """Return the steps as lists, which are faster for a single record: where they begin, and of each how it ranks among
        reasons (its size, then the order of the features), its contribution and what is said of it."""
        told = enumerate(zip(self.steps, self.words, strict=True))
        each = [[(-abs(v), i, v, w) for v, w in zip(at[1].tolist(), words, strict=True)] for i, (at, words) in told]
        return [at.tolist() for at, _ in self.steps], each

    @cached_property
    def table(self) -> tuple[np.ndarray, np.ndarray]:
        """Return where each feature's steps begin, and the contributions of all."""
        sizes = [len(values) for _, values in self.steps]
        return np.cumsum([0, *sizes[:-1]])[:, None], np.concatenate([values for _, values in self.steps])

    @cached_property
    def words(self) -> list[list[str]]:
        """Return what is said of each step of each feature."""
        return [[f"{n} {w:+.3f}" for w in values] for n, (_, values) in zip(FEATURES, self.steps, strict=True)]

    @cached_property
    def phrases(self) -> np.ndarray:
        """Return what is said of each step, all features' one after the other."""
        return np.array(list(chain.from_iterable(self.words)), dtype=object)

    def _shares(self, records: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the place of the step that each feature is on among all steps, and its contribution, features × rows."""
        pack = struct.Struct(f"{len(records)}d").pack  # faster than an array of the values
        packed = b"".join([pack(*values_of(records, name)) for name in FEATURES])
        columns = np.frombuffer(packed).reshape(len(FEATURES), -1)
        first, values = self.table
        on = np.array([at.searchsorted(column) for column, (at, _) in zip(columns, self.steps, strict=True)]) + first
        return on, values.take(on)

    def _outputs(self, records: Any, shares: np.ndarray) -> list[dict[str, Any]]:
        logits = np.add.reduce(shares, axis=0, initial=self.base)  # feature by feature, as for a single record
        asked = zip(values_of(records, "lead_id"), map(chance, logits.tolist()), strict=True)
        return [{"lead_id": lead, "score": score} for lead, score in asked]

    def _reasons(self, on: np.ndarray, shares: np.ndarray) -> list[list[str]]:
        top = np.argsort(-np.abs(shares), axis=0, kind="stable")[:TOLD]
        said: list[list[str]] = self.phrases[np.take_along_axis(on, top, axis=0).T].tolist()
        return said

    def predict_records(self, records: Any) -> list[dict[str, Any]]:
        return self.answer_records(records)[0]

    def answer_records(self, records: Any) -> tuple[list[dict[str, Any]], list[list[str]]]:
        if len(records) > 1:
            on, shares = self._shares(records)
            return self._outputs(records, shares), self._reasons(on, shares)
        record, (steps, each) = records[0], self.singly
        told = list(map(getitem, each, map(bisect_left, steps, VALUES(record))))
        score = chance(reduce(add, map(CONTRIBUTION, told), self.base))
        return [{"lead_id": record["lead_id"], "score": score}], [[word for *_, word in sorted(told)[:TOLD]]]

    def predict(self, records: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame(self.predict_records(records.to_dict("records")))

    def explain(self, records: pd.DataFrame) -> list[list[str]]:
        return self._reasons(*self._shares(records.to_dict("records")))

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
