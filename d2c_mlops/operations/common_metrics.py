"""Metrics by their usual names, for models without an evaluator."""

from __future__ import annotations

import numpy as np
import pandas as pd

from d2c_mlops.monitoring.performance import auc
from d2c_mlops.registry.evaluators import ACTUAL, Metric


def common_metrics() -> tuple[Metric, ...]:
    """Return the metrics that need nothing but answers and outcomes."""
    return (
        Metric("mae", _absolute_error),
        Metric("mean_absolute_error", _absolute_error),
        Metric("rmse", lambda frame, column: float(np.sqrt(np.mean(_errors(frame, column) ** 2)))),
        Metric("wape", lambda frame, column: float(np.abs(_errors(frame, column)).sum() / frame[ACTUAL].abs().sum())),
        Metric("brier", lambda frame, column: float(np.mean(_errors(frame, column) ** 2))),
        Metric("auc", _auc, lower_is_better=False),
        Metric("roc_auc", _auc, lower_is_better=False),
    )


def _errors(frame: pd.DataFrame, column: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    errors: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = frame[column].to_numpy(float) - frame[ACTUAL].to_numpy(
        float
    )
    return errors


def _absolute_error(frame: pd.DataFrame, column: str) -> float:
    return float(np.abs(_errors(frame, column)).mean())


def _auc(frame: pd.DataFrame, column: str) -> float:
    return auc(frame[ACTUAL].to_numpy(float), frame[column].to_numpy(float))
