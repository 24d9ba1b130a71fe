"""BentoML as its quickstart shows it: JSON in and out, and the reasons by LightGBM's own contributions."""

import os

import bentoml

FEATURES = [f"feature_{i:02d}" for i in range(30)]


@bentoml.service
class Plain:
    def __init__(self) -> None:
        import lightgbm

        self.booster = lightgbm.Booster(model_file=os.environ["MODEL_FILE"])

    def rows(self, records: list[dict]):
        import numpy as np

        return np.array([[record[name] for name in FEATURES] for record in records])

    @bentoml.api
    def predict(self, records: list[dict]) -> list[float]:
        return self.booster.predict(self.rows(records), num_threads=1).tolist()

    @bentoml.api
    def explain(self, records: list[dict]) -> list[dict]:
        import numpy as np

        rows = self.rows(records)
        shares = self.booster.predict(rows, pred_contrib=True, num_threads=1)[:, :-1]
        scores = self.booster.predict(rows, num_threads=1).tolist()
        top = np.argsort(-np.abs(shares), axis=1)[:, :3]
        return [{"score": s, "reasons": [FEATURES[i] for i in t]} for s, t in zip(scores, top.tolist(), strict=True)]
