"""Panels of series whose values a test writes itself."""

import numpy as np

from d2c_mlops.models.forecasting.panel import Array, Freq, Panel


def panel(values: Array, freq: Freq = "D") -> Panel:
    dates = np.datetime64("2024-01-01", "D") + np.arange(len(values)) * (1 if freq == "D" else 7)
    return Panel(freq, dates, tuple(f"s{i}" for i in range(values.shape[1])), values)
