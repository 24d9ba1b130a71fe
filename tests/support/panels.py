"""Panels of series whose values a test writes itself."""

from dataclasses import replace

import numpy as np

from d2c_mlops.models.forecasting.forecast_inputs import ForecastInputs, from_panel
from d2c_mlops.models.forecasting.panel import Array, Freq, Panel


def panel(values: Array, freq: Freq = "D") -> Panel:
    dates = np.datetime64("2024-01-01", "D") + np.arange(len(values)) * (1 if freq == "D" else 7)
    return Panel(freq, dates, tuple(f"s{i}" for i in range(values.shape[1])), values)


def promoted(steps: int, count: int, horizon: int, lift: float = 2.5, seed: int = 1) -> tuple[ForecastInputs, Array]:
    """Return weekly inputs with a planned promotion, and the units that came after the origin."""
    rng = np.random.default_rng(seed)
    promotion = (rng.random((steps + horizon, count)) < 0.25).astype(float)
    sold = rng.poisson(20 * np.where(promotion > 0, lift, 1.0)).astype(float)
    inputs = from_panel(panel(sold[:steps], "W"), horizon)
    return replace(inputs, flags={"promotion": promotion}), sold[steps:]
