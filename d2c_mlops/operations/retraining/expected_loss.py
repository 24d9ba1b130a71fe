"""What a live forecaster loses a day in money, and what it is expected to lose after a training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta

import numpy as np
import pandas as pd
from sqlalchemy import func, select

from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import D2CError
from d2c_mlops.ledger.schema import runs
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.monitoring.performance import forecast_error
from d2c_mlops.operations.live_answers import answers_with_outcomes, is_forecast, logged_predictions
from d2c_mlops.registry.versions import Version
from d2c_mlops.settings import Settings

LEAST_DAYS = 14  # with outcomes
METRIC = "wape"


@dataclass(frozen=True)
class ExpectedLoss:
    """Losses a day in the currency of the charter, and the cost of a training."""

    without: float  # of the champion's answers in the last days
    after_training: float
    error: float  # standard error of the difference
    training_cost: float | None  # None where no run has a cost: [d2c] cpu_hour_price


def expected_loss(version: Version, runbook: str, settings: Settings, now: datetime) -> ExpectedLoss | None:
    """Return the expected losses of a forecaster; None without prices, or with fewer than 14 days of outcomes.

    A unit too few costs the charter's `right_value`, a unit too many its `wrong_cost`. After a training the error is expected to be what it was
    at promotion, so that the loss shrinks by the ratio of both errors; it is never expected to grow.
    """
    too_few, too_many = version.case.right_value, version.case.wrong_cost
    if not is_forecast(version.schema) or version.score.metric != METRIC or too_few is None or too_many is None:
        return None
    ledger, days = Ledger.of(settings), settings.monitor_limits(version.model).days
    try:
        tables = Tables.open(settings.store, settings.model(version.model).data)
    except D2CError:
        return None
    last = min(tables.last_sale() or date.max, (now - timedelta(days=1)).date())
    logged = logged_predictions(ledger, version.model, now - timedelta(days=days + 400), now)
    answers = answers_with_outcomes(ledger, version, logged, tables, last, now)
    answers = answers[answers["version"] == version.version]
    losses = loss_of_answers(answers, last, days, version.score.value, too_few, too_many)
    if losses is None:
        return None
    return replace(losses, training_cost=_training_cost(ledger, version.model, runbook))


def loss_of_answers(
    answers: pd.DataFrame, last: date, days: int, promoted: float, too_few: float, too_many: float
) -> ExpectedLoss | None:
    """Return the expected losses by the answers (columns day, predicted, outcome) of some days until `last`, without the cost of a training.

    `promoted` is the error (WAPE) at promotion. None with fewer than 14 days of outcomes.
    """
    recent = answers[pd.to_datetime(answers["day"]) > pd.Timestamp(last) - pd.Timedelta(days=days)]
    if not len(recent) or recent["day"].nunique() < LEAST_DAYS:
        return None
    missing = (recent["outcome"] - recent["predicted"]).astype(float)
    losses = too_few * missing.clip(lower=0) + too_many * (-missing).clip(lower=0)
    by_day = losses.groupby(recent["day"]).sum()
    live = forecast_error(recent)
    ratio = min(1.0, promoted / live) if np.isfinite(live) and live > 0 else 1.0
    gain = by_day * (1 - ratio)
    error = float(gain.std(ddof=1)) / len(gain) ** 0.5
    return ExpectedLoss(float(by_day.mean()), float(by_day.mean() * ratio), error, None)


def _training_cost(ledger: Ledger, model: str, runbook: str) -> float | None:
    """Return the mean cost of the training runs that gave a version."""
    query = select(func.avg(runs.c.cost)).where(
        runs.c.model == model, runs.c.runbook == runbook, runs.c.status == "succeeded"
    )
    with ledger.read() as connection:
        cost = connection.execute(query).scalar()
    return float(cost) if cost is not None else None
