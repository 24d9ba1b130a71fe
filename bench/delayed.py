"""The additive scorer, answered by LightGBM itself and as slow as it is told: what a test of latency alerts serves."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from d2c_mlops.models.core.contract import Contract

from .additive import FEATURES, Additive


class Delayed(Additive):
    """A score that takes `delay` seconds longer than it has to."""

    contract: Contract = replace(Additive.contract, name="delayed")

    def __init__(self, delay: float = 0.0) -> None:
        super().__init__()
        self.delay = float(delay)
        self.booster: Any = None

    def predict_records(self, records: Any) -> list[dict[str, Any]]:
        time.sleep(self.delay)
        rows = [[record[name] for name in FEATURES] for record in records]
        scores = self._booster().predict(rows, num_threads=1)
        return [{"lead_id": r["lead_id"], "score": s} for r, s in zip(records, scores.tolist(), strict=True)]

    def _booster(self) -> Any:
        import lightgbm

        if self.booster is None:
            self.booster = lightgbm.Booster(model_str=self.text)
        return self.booster

    def read(self, folder: Path) -> None:
        super().read(folder)
        self._booster()
