"""Smoothing: the textbook's recursion, gaps, and the search for parameters."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from statsmodels.tsa.exponential_smoothing.ets import ETSModel
from statsmodels.tsa.holtwinters import ExponentialSmoothing

from d2c_mlops.models.forecasting.smoothing import (
    Array,
    SmoothingParameters,
    State,
    fit,
    project,
    smooth,
    start,
    to_parameters,
)

UNITS = st.floats(0, 1e6, allow_nan=False, width=32)


def constants(alpha: float, beta: float, gamma: float, phi: float) -> SmoothingParameters:
    return SmoothingParameters(*(np.array([value]) for value in (alpha, beta, gamma, phi)))


def weekly(seed: int, days: int = 140, slope: float = 0.0, wander: float = 0.0) -> Array:
    rng, day = np.random.default_rng(seed), np.arange(days)
    noise = rng.normal(0, 2, days) + np.cumsum(rng.normal(0, 1, days)) * wander
    return np.asarray(30 + slope * day + 6 * (day % 7 == 5) + noise)


@pytest.mark.parametrize(
    "pace", [(0.3, 0.03, 0.1, 0.9), (0.05, 0.0, 0.0, 0.8), (0.9, 0.4, 0.05, 0.98), (0.2, 0.2, 0.3, 0.95)]
)
@pytest.mark.parametrize("period", [7, 4])
def test_states_errors_and_forecasts_equal_statsmodels(pace: tuple[float, float, float, float], period: int) -> None:
    y = weekly(1, slope=0.05)
    begin = State(np.array([25.0]), np.array([0.4]), np.arange(period, dtype=float)[:, None] - period / 2)
    theirs = ETSModel(
        y,
        error="add",
        trend="add",
        damped_trend=True,
        seasonal="add",
        seasonal_periods=period,
        initialization_method="known",
        initial_level=25.0,
        initial_trend=0.4,
        initial_seasonal=begin.season[:, 0],
    ).smooth(np.r_[pace, 25.0, 0.4, begin.season[::-1, 0]])
    ours = smooth(y[:, None], constants(*pace), begin, keep=range(1, len(y) + 1), errors=True)
    assert ours.errors is not None
    np.testing.assert_allclose(ours.errors[:, 0], theirs.resid, atol=1e-8)
    levels, trends = (np.array([getattr(ours.kept[t + 1], n)[0] for t in range(len(y))]) for n in ("level", "trend"))
    np.testing.assert_allclose(levels, theirs.level, atol=1e-8)
    np.testing.assert_allclose(trends, theirs.slope, atol=1e-8)
    seasons = [ours.kept[t + 1].season[-1, 0] for t in range(len(y))]
    np.testing.assert_allclose(seasons, theirs.season, atol=1e-8)
    np.testing.assert_allclose(project(ours.state, constants(*pace), 28)[:, 0], theirs.forecast(28), atol=1e-8)
    np.testing.assert_allclose(ours.sse[0], (theirs.resid**2).sum(), rtol=1e-10)


def test_without_season_it_equals_statsmodels_holt() -> None:
    y = weekly(2, slope=0.1)
    alpha, beta, phi = 0.4, 0.1, 0.85  # holtwinters' smoothing_trend is beta over alpha
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = ExponentialSmoothing(
            y, trend="add", damped_trend=True, initialization_method="known", initial_level=28.0, initial_trend=0.2
        ).fit(smoothing_level=alpha, smoothing_trend=beta / alpha, damping_trend=phi, optimized=False)
    begin = State(np.array([28.0]), np.array([0.2]), np.zeros((1, 1)))
    ours = smooth(y[:, None], constants(alpha, beta, 0.0, phi), begin, errors=True)
    assert ours.errors is not None
    np.testing.assert_allclose(y - ours.errors[:, 0], theirs.fittedvalues, atol=1e-8)
    forecast = project(ours.state, constants(alpha, beta, 0.0, phi), 20)[:, 0]
    np.testing.assert_allclose(forecast, theirs.forecast(20), atol=1e-8)


@pytest.mark.parametrize(("slope", "wander"), [(0.0, 0.0), (0.1, 0.0), (0.0, 0.3), (0.0, 1.0)])
def test_the_search_comes_close_to_the_optimum_of_statsmodels(slope: float, wander: float) -> None:
    y = weekly(3, slope=slope, wander=wander)
    begin = start(y[:, None], 7)
    optimum = ETSModel(
        y,
        error="add",
        trend="add",
        damped_trend=True,
        seasonal="add",
        seasonal_periods=7,
        initialization_method="known",
        initial_level=begin.level[0],
        initial_trend=0.0,
        initial_seasonal=begin.season[:, 0],
    ).fit(disp=False)
    best = (optimum.resid**2).sum()
    assert fit(y[:, None], 7, begin=begin).sse[0] < 1.03 * best
    assert fit(y[:, None], 7, rounds=6, begin=begin).sse[0] < 1.015 * best


def test_many_series_are_fitted_as_each_alone() -> None:
    y = np.column_stack([weekly(seed, wander=seed / 5) for seed in range(5)])
    y[:30, 2] = np.nan
    together = fit(y, 7)
    for i in range(5):
        alone = fit(y[:, [i]], 7)
        assert alone.sse[0] == pytest.approx(together.sse[i], rel=1e-12)
        assert alone.parameters.alpha[0] == together.parameters.alpha[i]


def test_candidates_on_a_leading_axis_give_what_each_gives_alone() -> None:
    y = np.column_stack([weekly(1), weekly(2)])
    shares = np.random.default_rng(0).uniform(0.1, 0.8, (3, 2, 4))
    begin = start(y, 7)
    together = smooth(y, to_parameters(shares), begin)
    for g in range(3):
        np.testing.assert_allclose(together.sse[g], smooth(y, to_parameters(shares[g]), begin).sse, rtol=1e-12)


def test_a_kept_state_is_the_state_of_a_shorter_walk() -> None:
    y = np.column_stack([weekly(1), weekly(2)])
    parameters, begin = to_parameters(np.full((2, 4), 0.3)), start(y, 7)
    kept = smooth(y, parameters, begin, keep=[100]).kept[100]
    short = smooth(y[:100], parameters, begin).state
    np.testing.assert_array_equal(project(kept, parameters, 14), project(short, parameters, 14))


def test_before_the_launch_nothing_changes() -> None:
    y = weekly(1)[:, None]
    late = np.vstack([np.full((70, 1), np.nan), y])
    one, two = fit(y, 7), fit(late, 7)
    assert two.sse[0] == pytest.approx(one.sse[0], rel=1e-12)
    np.testing.assert_allclose(
        project(smooth(late, two.parameters, two.begin).state, two.parameters, 14),
        project(smooth(y, one.parameters, one.begin).state, one.parameters, 14),
    )


def test_a_gap_leaves_a_level_as_it_was() -> None:
    y = weekly(1)[:, None]
    parameters, begin = constants(0.3, 0.0, 0.1, 0.9), start(y, 7)
    before = smooth(y, parameters, begin).state
    after = smooth(np.vstack([y, np.full((14, 1), np.nan)]), parameters, begin).state
    np.testing.assert_array_equal(before.level, after.level)
    np.testing.assert_array_equal(before.season, after.season)


@settings(max_examples=40, deadline=None)
@given(arrays(float, (40, 3), elements=UNITS), st.floats(0.001, 1000))
def test_twice_the_units_make_twice_the_forecast(y: Array, factor: float) -> None:
    parameters = to_parameters(np.full((3, 4), 0.4))
    one = project(smooth(y, parameters, start(y, 7)).state, parameters, 10)
    many = project(smooth(y * factor, parameters, start(y * factor, 7)).state, parameters, 10)
    np.testing.assert_allclose(many, one * factor, rtol=1e-6, atol=1e-6 * factor * max(1.0, y.max()))


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 1e6), st.integers(1, 60), st.sampled_from([1, 7]))
def test_a_constant_series_is_forecast_as_that_constant(value: float, days: int, period: int) -> None:
    y = np.full((days, 2), value)
    fitted = fit(y, period)
    ahead = project(smooth(y, fitted.parameters, fitted.begin).state, fitted.parameters, 10)
    np.testing.assert_allclose(ahead, value, rtol=1e-9, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(arrays(float, (30, 2), elements=st.one_of(UNITS, st.just(float("nan")))))
def test_gaps_never_poison_the_state(y: Array) -> None:
    fitted = fit(y, 7, rounds=1)
    walk = smooth(y, fitted.parameters, fitted.begin, errors=True)
    assert walk.errors is not None
    assert np.isfinite(project(walk.state, fitted.parameters, 14)).all()
    np.testing.assert_array_equal(np.isnan(walk.errors), np.isnan(y))


def test_a_series_without_values_starts_and_stays_at_zero() -> None:
    y = np.full((20, 1), np.nan)
    fitted = fit(y, 7)
    assert not project(smooth(y, fitted.parameters, fitted.begin).state, fitted.parameters, 7).any()
    assert fitted.sse[0] == 0
