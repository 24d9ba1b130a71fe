"""How much forecasts of the same date change from run to run, and which series moved most."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.data.layouts.planned_columns import split_plans
from d2c_mlops.data.simulate import shop
from d2c_mlops.data.tables import Tables
from d2c_mlops.data.validation import validate
from d2c_mlops.data.zones import localize_all
from d2c_mlops.models.forecasting.forecasting import DemandForecaster
from d2c_mlops.models.forecasting.forecasts import LearnedDemand, learn
from d2c_mlops.models.forecasting.periods import Freq
from d2c_mlops.models.forecasting.revisions import mean_revision, revision_of, top_movers
from support.panels import panel


def units(seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).poisson([20.0, 30.0, 5.0], (154, 3)).astype(float)


def two_runs(values: np.ndarray, apart: int = 7) -> tuple[LearnedDemand, LearnedDemand]:
    history = panel(values)
    return learn(history.until(154 - apart), 28, 28), learn(history, 28, 28)


def test_the_same_run_twice_changes_nothing() -> None:
    (now, again) = two_runs(units(), 0)
    assert (top_movers(now, again)["change"] == 0).all()
    assert mean_revision(now.answers[..., 0], again.answers[..., 0]) == 0


@pytest.mark.parametrize(("factor", "up"), [(3.0, True), (0.2, False)])
def test_the_series_that_changed_is_the_first_with_its_level_as_the_reason(factor: float, up: bool) -> None:
    values = units()
    values[-14:, 0] *= factor
    first = top_movers(*two_runs(values, 14)).iloc[0]
    assert first["series"] == "s0" and (first["change"] > 0) == up
    assert first["why"].startswith(("level", "season and other"))


def test_series_that_are_new_or_gone_are_named_as_such() -> None:
    values = units()
    before, now = two_runs(values)
    fewer = learn(panel(values[:, :2]), 28, 28)
    assert dict(top_movers(fewer, now)[["series", "why"]].to_numpy())["s2"].startswith("new")
    assert dict(top_movers(before, fewer)[["series", "why"]].to_numpy())["s2"].startswith("gone")


def test_runs_without_a_common_date_are_compared_by_their_means() -> None:
    moved = top_movers(*two_runs(units(), 56))
    assert len(moved) == 3 and moved["before"].between(1, 40).all()


@pytest.mark.parametrize(
    ("freq", "horizon", "common"), [("D", 3, 0), ("D", 7, 0), ("D", 9, 2), ("W", 1, 0), ("M", 2, 1)]
)
def test_a_revision_is_measured_on_the_dates_that_both_runs_have(freq: Freq, horizon: int, common: int) -> None:
    before, now = np.arange(horizon * 2.0).reshape(horizon, 2), np.ones((horizon, 2))
    revision = float(revision_of(before, now, freq))
    assert np.isnan(revision) if common == 0 else np.isclose(revision, np.abs(before[-common:] - 1).mean())


def test_the_evaluation_tells_how_much_forecasts_change_in_a_week() -> None:
    tables, as_of = shop(days=200, customers=200), date(2023, 7, 19)
    model = DemandForecaster(cutoffs=2, horizon=14)
    revision = model.evaluate(tables, as_of).details["revision"]
    assert 0 < revision < 0.5


def test_the_model_compares_itself_with_the_one_before() -> None:
    tables = shop(days=200, customers=200)
    before, now = (DemandForecaster().fit(tables, day) for day in (date(2023, 7, 5), date(2023, 7, 19)))
    moved = now.movers(before)
    assert moved is not None and set(moved["series"]) <= set(now.learned.panel.series)
    assert DemandForecaster(freq="W").fit(tables, date(2023, 7, 19)).movers(before) is None  # days are no weeks


def test_a_shop_that_opened_days_before_the_last_cutoff_is_evaluated_without_a_revision() -> None:
    rng, days = np.random.default_rng(1), pd.date_range("2024-01-01", periods=12)
    rows = [pd.DataFrame({"product_id": p, "date": days, "units": rng.poisson(9.0, 12) * 1.0}) for p in ("tea", "mug")]
    frames, _ = split_plans({"sales_totals": pd.concat(rows, ignore_index=True)}, ())
    frames, _ = localize_all(frames, "UTC")
    tables = Tables({name: validate(name, frame) for name, frame in frames.items()})
    model = DemandForecaster(by="product_id", horizon=7, min_history=3, cutoffs=1)
    evaluation = model.evaluate(tables, date(2024, 1, 12))
    assert np.isfinite(evaluation.value) and evaluation.details["revision"] is None
