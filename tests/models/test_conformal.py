"""Widths of intervals follow how often the latest ones held."""

from __future__ import annotations

import numpy as np
import pytest

from d2c_mlops.models.forecasting.calibration.conformal import LARGEST, SMALLEST, adapted_share, corrections
from d2c_mlops.models.forecasting.forecast_inputs import from_panel
from d2c_mlops.models.forecasting.ladder import (
    fine_origins,
    inner_origins,
    ladder_forecast,
    past_forecasts,
    simple_forecasts,
    with_bounds,
)
from d2c_mlops.models.forecasting.panel import Panel
from d2c_mlops.models.forecasting.smoothing import Array

STEPS = np.arange(0, 24, 2)
GROUP = np.repeat([0, 1, 2], 20)


def misses(latest: float, series: int = 60) -> Array:
    """Return misses of 12 origins, two steps apart; those of the last four are `latest` times as large."""
    out = np.random.default_rng(1).standard_normal((12, 8, series))
    out[8:] *= latest
    return out


def moved_bounds(latest: float, origins: np.ndarray | None) -> Array:
    actual = misses(latest)
    bounds = np.stack([sign * half + 0 * actual for half in (0.5, 1.0, 1.5) for sign in (-1, 1)], axis=-1)
    return corrections(actual, bounds, np.ones_like(actual), GROUP, origins=origins)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_bounds_move_out_further_where_the_latest_origins_missed_more_often(level: int) -> None:
    followed, pooled = moved_bounds(2.0, STEPS), moved_bounds(2.0, None)
    assert (followed[:, 2 * level : 2 * level + 2] > pooled[:, 2 * level : 2 * level + 2] + 0.05).all()


def test_bounds_move_in_by_little_where_the_latest_origins_missed_less_often() -> None:
    share = adapted_share(misses(0.3), STEPS, 0.1, -1.0)
    assert share == pytest.approx(LARGEST * 0.1)
    assert adapted_share(misses(9.0), STEPS, 0.1, -1.0) == pytest.approx(SMALLEST * 0.1)


def test_the_share_moves_less_where_a_class_has_few_misses() -> None:
    few, many = (adapted_share(misses(1.5, series), STEPS, 0.1, -1.0) for series in (2, 60))
    assert many < few <= 0.1 * LARGEST


def test_misses_that_are_not_known_yet_change_nothing() -> None:
    known = misses(1.5)
    for number, step in enumerate(STEPS):
        known[number, max(24 - step, 0) :] = np.nan
    unknown = known.copy()
    unknown[-1] = np.nan
    assert adapted_share(known[:-1], STEPS[:-1], 0.1, -1.0) == adapted_share(unknown, STEPS, 0.1, -1.0)
    assert adapted_share(known, STEPS, 0.1, -1.0) != adapted_share(unknown, STEPS, 0.1, -1.0)


def test_no_origin_is_judged_by_misses_that_came_after_it() -> None:
    later = misses(1.0)
    later[-1, 2:] = 1e6  # not known at any origin, and judged at the last one alone
    first = adapted_share(misses(1.0)[:-1], STEPS[:-1], 0.1, -1.0)
    assert adapted_share(later[:-1], STEPS[:-1], 0.1, -1.0) == first
    assert adapted_share(later, STEPS, 0.1, -1.0) < first


def noise(series: int) -> Panel:
    sold = np.random.default_rng(2).poisson(20, (80, series)).astype(float)
    days = np.datetime64("2023-01-01") + 7 * np.arange(80)
    return Panel("W", days, tuple(f"s{i}" for i in range(series)), sold, gaps=True)


def test_fine_origins_reach_into_the_last_horizon_and_hold_the_inner_ones() -> None:
    inputs = from_panel(noise(3), 8)
    inner = inner_origins(inputs)
    fine = fine_origins(inputs, inner)
    assert set(inner) < set(fine) and fine == sorted(fine) and fine[-1] == 78 and fine[0] == min(inner)
    trials = past_forecasts(inputs, fine, None, all_series=True)
    assert np.isnan(trials.actual[-1]).sum() == 6 * 3 and not np.isnan(trials.actual[: len(inner)]).any()
    np.testing.assert_array_equal(trials.at(inner).actual[0], inputs.units[inner[0] :])


def test_a_large_panel_is_tried_on_a_sample_between_the_inner_origins(monkeypatch: pytest.MonkeyPatch) -> None:
    from d2c_mlops.models.forecasting import boosted

    tried: list[tuple[int, int]] = []

    def counted(inputs, effects=None):  # type: ignore[no-untyped-def]
        tried.append((inputs.origin, inputs.units.shape[1]))
        return simple_forecasts(inputs, effects)

    monkeypatch.setattr(boosted, "SERIES", 10)
    monkeypatch.setattr("d2c_mlops.models.forecasting.ladder.simple_forecasts", counted)
    answer = ladder_forecast(from_panel(noise(30), 8), has_tree=False)
    assert {series for origin, series in tried if origin in (72, 64, 56, 80)} == {10, 30}
    assert {series for origin, series in tried if origin in (78, 76, 74, 70)} == {10}
    assert answer.past.shape == (3, 8, 30)


def test_bounds_never_cross_whatever_the_corrections() -> None:
    random = np.random.default_rng(4)
    forecast = random.exponential(2.0, (8, 60))
    raw = np.sort(random.exponential(2.0, (8, 60, 6)), axis=-1)
    answers = with_bounds(forecast, raw, np.ones_like(forecast), random.normal(0, 2, (60, 6)))
    assert (np.diff(answers[..., [5, 3, 1, 0, 2, 4, 6]], axis=-1) >= 0).all() and (answers >= 0).all()


def test_a_sale_that_no_bound_can_leave_out_is_no_miss() -> None:
    random = np.random.default_rng(5)
    rate = np.tile(np.repeat([0.02, 1.5], 10), 3)  # half of a class hardly ever sells
    actual = random.poisson(rate, (12, 8, 60)).astype(float)
    forecast = np.broadcast_to(rate, actual.shape)
    bounds = np.stack([np.zeros_like(actual), np.where(forecast < 1, forecast, 4.0)] * 3, axis=-1)
    unit = np.where(forecast < 1, 0.035, 1.2)
    shares = []
    for centre in (None, forecast):
        moved = corrections(actual, bounds, unit, GROUP, origins=STEPS, forecast=centre)[GROUP]
        answers = with_bounds(forecast[0], bounds[0], unit[0], moved)
        shares.append(float(((actual >= answers[..., 3]) & (actual <= answers[..., 4])).mean()))
    assert 0.88 <= shares[1] < shares[0] - 0.05  # 0.98 of the half without sales: 0.89 holds eight in ten of the others
