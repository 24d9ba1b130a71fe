"""What planners do: by hand, and where values are missing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from d2c_mlops.models.forecasting.baselines import (
    last_weeks,
    level_and_profile,
    seasonal_naive,
    weekday_mean,
    weekday_profile,
)
from d2c_mlops.models.forecasting.smoothing import Array
from support.panels import panel

NAN = float("nan")
METHODS = [seasonal_naive, weekday_mean, level_and_profile]


def test_seasonal_naive_repeats_the_last_week_from_the_right_weekday() -> None:
    ten_days = np.arange(1.0, 11)[:, None]
    assert seasonal_naive(panel(ten_days), 9)[:, 0].tolist() == [4, 5, 6, 7, 8, 9, 10, 4, 5]


def test_weekday_mean_takes_the_last_eight_weeks_and_no_more() -> None:
    ten_weeks = np.repeat(np.arange(10.0), 7)[:, None]
    assert weekday_mean(panel(ten_weeks), 7)[:, 0].tolist() == [np.arange(2, 10).mean()] * 7


def test_weekly_data_has_one_mean() -> None:
    weeks = panel(np.arange(1.0, 13)[:, None], "W")
    assert weekday_mean(weeks, 3)[:, 0].tolist() == [8.5] * 3
    assert seasonal_naive(weeks, 2)[:, 0].tolist() == [12, 12]


def test_a_weekday_never_seen_takes_the_mean_of_the_others() -> None:
    three_days = panel(np.array([[2.0], [4.0], [6.0]]))
    assert weekday_mean(three_days, 7)[:, 0].tolist() == [4, 4, 4, 4, 2, 4, 6]


def test_weeks_are_counted_back_from_the_end() -> None:
    cut = last_weeks(np.arange(10.0)[:, None], 7, 2)[:, :, 0]
    np.testing.assert_array_equal(cut, [[NAN, NAN, NAN, NAN, 0, 1, 2], [3, 4, 5, 6, 7, 8, 9]])


def test_a_profile_without_pooling_is_the_share_of_each_weekday() -> None:
    week = np.array([1.0, 2, 3, 4, 5, 6, 0])
    profile = weekday_profile(np.tile(week, 26)[:, None], 7, pool=0.0)
    np.testing.assert_allclose(profile[:, 0], week / 3, atol=1e-9)


def test_pooling_moves_a_slow_series_more_than_a_fast_one() -> None:
    rng = np.random.default_rng(0)
    week = np.array([0.5, 0.5, 1, 1, 1, 1.5, 1.5])
    shop = rng.poisson(np.tile(week, 26)[:, None] * 20, (182, 20)).astype(float)
    flat = np.column_stack([rng.poisson(0.1, 182), rng.poisson(20, 182)]).astype(float)
    moved = np.abs(weekday_profile(np.column_stack([flat, shop]), 7) - 1)[:, :2].mean(axis=0)
    assert moved[0] > 2 * moved[1]


def test_one_giant_does_not_speak_for_all() -> None:
    week = np.tile(np.array([0.5, 0.5, 1, 1, 1, 1.5, 1.5]), 26)[:, None]
    shop = week * np.full(30, 10.0)
    giant = np.tile(np.array([7.0, 0, 0, 0, 0, 0, 0]), 26)[:, None] * 10_000
    slow = np.zeros((182, 1))
    slow[::20] = 1
    without, beside = (weekday_profile(np.column_stack(c), 7)[:, 0] for c in ([slow, shop], [slow, shop, giant]))
    assert np.abs(without - beside).max() < 1.6


@pytest.mark.parametrize("method", METHODS)
def test_zero_gone_and_new_series_are_finite(method: object) -> None:
    values = np.full((120, 4), NAN)
    values[:, 0] = 0.0
    values[:20, 1] = 5.0  # gone
    values[-1, 2] = 7.0  # launched yesterday
    values[:, 3] = -2.0  # only returns
    ahead = method(panel(values), 14)  # type: ignore[operator]
    assert np.isfinite(ahead).all()
    assert not ahead[:, 0].any() and not ahead[:, 1].any()
    np.testing.assert_allclose(ahead[:, 2].mean(), 7.0)


@settings(max_examples=40, deadline=None)
@given(arrays(float, (60, 3), elements=st.floats(0, 1e6, width=32)), st.sampled_from([0.5, 3.0, 1000.0]))
def test_scale_goes_through(values: Array, factor: float) -> None:
    for method in METHODS:
        np.testing.assert_allclose(
            method(panel(values * factor), 10), method(panel(values), 10) * factor, rtol=1e-6, atol=1e-6 * factor
        )


@settings(max_examples=30, deadline=None)
@given(st.one_of(st.just(0.0), st.floats(0.001, 1e9)), st.integers(1, 100))
def test_a_constant_stays(value: float, days: int) -> None:
    for method in METHODS:
        np.testing.assert_allclose(method(panel(np.full((days, 2), value)), 10), value, rtol=1e-9)
