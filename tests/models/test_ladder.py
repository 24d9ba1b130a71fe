"""The ladder of forecasters: what it may read, what it may never do, and what its rungs are worth."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from d2c_mlops.models.forecasting import boosted, forecasts
from d2c_mlops.models.forecasting.effects import Effects, effects_of, factors_of
from d2c_mlops.models.forecasting.forecast_inputs import (
    ForecastInputs,
    from_panel,
    from_plan,
    moving_level,
    sale_size,
    without_absurd,
)
from d2c_mlops.models.forecasting.ladder import (
    LadderForecast,
    combine_weights,
    corrections,
    inner_origins,
    ladder_forecast,
    prior_of,
    simple_forecasts,
)
from d2c_mlops.models.forecasting.panel import Freq, Panel
from d2c_mlops.models.forecasting.plans.known_future import KnownFuture
from d2c_mlops.models.forecasting.reasons import forecast_reasons
from d2c_mlops.models.forecasting.seasonal import last_year_with_growth, smoothed_level
from d2c_mlops.models.forecasting.smoothing import Array
from support.panels import panel, promoted

NAN = float("nan")
NESTED = [5, 3, 1, 0, 2, 4, 6]  # lower_95, lower_80, lower_50, forecast, upper_50, upper_80, upper_95


@pytest.fixture(autouse=True)
def _short_training(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Let trees of quick tests learn a few rounds only."""
    if "slow" not in request.keywords:
        monkeypatch.setattr(boosted, "ROUNDS", 12)


def error(forecast: Array, actual: Array) -> float:
    return float(np.abs(forecast - actual).sum() / np.abs(actual).sum())


# -- what a forecaster may read


def test_sales_after_an_origin_change_nothing_that_is_forecast_there() -> None:
    inputs, _ = promoted(130, 60, 8)
    changed = inputs.units.copy()
    changed[110:] = 9_999.0
    before, after = (ladder_forecast(i.as_of_origin(110, 8)).answers for i in (inputs, replace(inputs, units=changed)))
    np.testing.assert_array_equal(before, after)


def test_the_plan_after_the_origin_is_read() -> None:
    inputs, actual = promoted(130, 60, 8)
    blind = ladder_forecast(replace(inputs, flags={})).answers[..., 0]
    assert error(ladder_forecast(inputs).answers[..., 0], actual) < 0.7 * error(blind, actual)


@pytest.mark.parametrize("order", [0, 1])
def test_the_order_of_series_changes_no_simple_forecast(order: int) -> None:
    inputs, _ = promoted(90, 12, 8)
    turned = np.random.default_rng(order).permutation(12)
    np.testing.assert_allclose(
        simple_forecasts(inputs.select_series(turned)), simple_forecasts(inputs)[:, :, turned], rtol=0.02, atol=1e-6
    )


def test_two_climbs_give_the_same_numbers() -> None:
    inputs, _ = promoted(130, 60, 8)
    np.testing.assert_array_equal(ladder_forecast(inputs).answers, ladder_forecast(inputs).answers)


# -- bad and odd histories


def odd(freq: Freq) -> dict[str, Array]:
    long, rng = 120 if freq == "D" else 60, np.random.default_rng(3)
    gaps = rng.poisson(5, (long, 3)).astype(float)
    gaps[rng.random(gaps.shape) < 0.4] = NAN
    late = np.full((long, 3), NAN)
    late[-1] = 4.0
    return {
        "one observation": late,
        "all zeros": np.zeros((long, 3)),
        "all missing": np.full((long, 3), NAN),
        "constant": np.full((long, 3), 7.0),
        "negative": -rng.poisson(5, (long, 3)).astype(float),
        "huge": rng.poisson(5, (long, 3)) * 1e12,
        "gaps": gaps,
        "shorter than the horizon": rng.poisson(5, (3, 3)).astype(float),
    }


@pytest.mark.parametrize("freq", ["D", "W", "M"])
@pytest.mark.parametrize("name", list(odd("D")))
def test_every_history_has_finite_nested_answers(name: str, freq: Freq) -> None:
    values = odd(freq)[name]
    history = Panel(
        freq, np.datetime64("2024-01-31", "D") + 7 * np.arange(len(values)), ("a", "b", "c"), values, gaps=True
    )
    if freq == "D":
        history = replace(history, dates=np.datetime64("2024-01-01", "D") + np.arange(len(values)))
    answers = ladder_forecast(from_panel(history, 12)).answers
    assert answers.shape == (12, 3, 7) and np.isfinite(answers).all() and (answers >= 0).all()
    assert (np.diff(answers[..., NESTED], axis=-1) >= 0).all()
    if name in ("all zeros", "all missing", "negative"):
        assert (answers[..., 0] == 0).all()
    if name == "constant":
        np.testing.assert_allclose(answers[..., 0], 7.0, rtol=0.05)


def test_one_absurd_order_becomes_no_certain_forecast() -> None:
    values = np.random.default_rng(2).poisson(10, (200, 3)).astype(float)
    values[-1, 0] = 100_000.0
    answers = ladder_forecast(from_panel(panel(values), 28)).answers[:, 0]
    assert answers[:, 0].max() < 40
    assert (answers[:, 4] - answers[:, 3] > 3).all()


def test_promotions_are_not_absurd() -> None:
    values = np.full((104, 1), 10.0)
    values[::8] = 90.0
    np.testing.assert_array_equal(without_absurd(values, 52), values)


# -- rungs


def test_last_year_needs_a_year_and_eight_weeks() -> None:
    sold = np.random.default_rng(5).poisson(30, (59, 4)).astype(float)
    inputs = from_panel(panel(sold, "W"), 8)
    np.testing.assert_array_equal(last_year_with_growth(inputs), smoothed_level(inputs))


def test_last_year_finds_a_peak_that_came_a_year_ago() -> None:
    sold = np.full((100, 4), 20.0)
    sold[50:52] = 80.0  # weeks 102 and 103 come after the origin
    forecast = last_year_with_growth(from_panel(panel(sold, "W"), 8))
    assert (forecast[2:4] > 60).all() and (forecast[4:] < 30).all()


def test_growth_is_that_of_the_group_where_a_series_is_too_small() -> None:
    sold = np.full((110, 6), 50.0)
    sold[90:] *= 1.5
    sold[:, 5] = np.where(np.arange(110) % 13 == 0, 1.0, 0.0)
    forecast = last_year_with_growth(from_panel(panel(sold, "W"), 8))
    np.testing.assert_allclose(forecast[:, :5], 75.0, rtol=0.05)


def test_effects_are_found_and_zero_without_a_plan() -> None:
    inputs, _ = promoted(150, 40, 8, lift=2.0)
    assert abs(effects_of(inputs).factors().mean() - 2.0) < 0.2
    nothing = effects_of(replace(inputs, flags={}))
    assert nothing.names == () and (factors_of(inputs, nothing, slice(0, 150)) == 1).all()


def test_a_price_far_outside_of_what_was_seen_multiplies_by_at_most_e_to_the_fourth() -> None:
    inputs, _ = promoted(60, 4, 8)
    effects = Effects(("log price",), np.full((1, 4), -4.0), np.full((1, 4), 10.0))
    price = replace(inputs, flags={}, prices={"price": np.full((68, 4), 1e-9)})
    assert factors_of(price, effects, slice(60, 68)).max() <= np.exp(4.0) + 1e-9


def test_training_costs_no_more_for_more_series(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boosted, "SERIES", 20)
    monkeypatch.setattr(boosted, "ROWS", 3_000)
    small, _ = promoted(130, 40, 8)
    large, _ = promoted(130, 400, 8)
    rows = [
        len(boosted.training_rows(i, boosted.training_origins(i, 130), simple_forecasts)[1]) for i in (small, large)
    ]
    assert max(rows) <= 3_000 and abs(rows[0] - rows[1]) < 100


# -- weights and intervals


def test_a_second_tree_on_the_same_inputs_shares_the_past_forecasts_of_the_first() -> None:
    inputs, _ = promoted(130, 60, 8)
    origins = boosted.training_origins(inputs, inputs.origin)
    computed: list[int] = []

    def simple(past: ForecastInputs) -> Array:
        computed.append(past.origin)
        return simple_forecasts(past)

    first = boosted.training_rows(inputs, origins, simple)
    again = boosted.training_rows(inputs, origins[3:], simple)
    assert sorted(computed) == sorted(origins)
    fresh = boosted.training_rows(replace(inputs), origins[3:], simple_forecasts)
    for shared, alone in zip(again, fresh, strict=True):
        np.testing.assert_array_equal(shared, alone)
    assert len(first[1]) > 0


def test_past_forecasts_of_other_inputs_are_not_shared() -> None:
    inputs, _ = promoted(130, 60, 8)
    origins = boosted.training_origins(inputs, inputs.origin)[:4]
    boosted.training_rows(inputs, origins, simple_forecasts)
    doubled = replace(inputs, units=2 * inputs.units)
    features = [
        boosted.training_rows(i, origins, simple_forecasts)[0] for i in (doubled, replace(doubled, units=doubled.units))
    ]
    np.testing.assert_array_equal(*features)


@pytest.mark.parametrize("window", [1, 2, 5, 12, 13, 40])
def test_a_moving_level_is_the_mean_of_the_steps_around(window: int) -> None:
    rng = np.random.default_rng(window)
    units, expected = rng.poisson(3.0, (12, 4)).astype(float), rng.random((12, 4)) + 0.1
    units[rng.random((12, 4)) < 0.3] = NAN
    reach = window // 2
    for step in range(12):
        around = slice(max(0, step - reach), step + reach + 1)
        usual = np.where(np.isnan(units[around]), 0.0, expected[around]).sum(axis=0)
        wanted = np.where(usual > 0, np.nansum(units[around], axis=0) / np.where(usual > 0, usual, 1.0), 0.0)
        np.testing.assert_allclose(moving_level(units, expected, window)[step], wanted, atol=1e-12)


def test_weights_sum_to_one_and_a_hopeless_rung_has_none() -> None:
    weights = combine_weights(np.array([1.0, 1.2, 9.0]), np.array([0.2, 0.3, 0.5]))
    assert np.isclose(weights.sum(), 1) and weights[2] == 0 and weights[0] > 0.4
    np.testing.assert_allclose(combine_weights(np.zeros(3), np.ones(3)), 1 / 3)


def test_the_tree_weighs_less_before_a_year() -> None:
    young, old = (prior_of(from_panel(panel(np.ones((n, 1)), "W"), 8), has_tree=True) for n in (26, 104))
    assert young[-1] < 0.6 < old[-1] and np.isclose(young.sum(), 1)


@pytest.mark.parametrize("scale", [0.3, 1.0, 3.0])
def test_corrections_widen_intervals_that_were_too_narrow(scale: float) -> None:
    rng = np.random.default_rng(1)
    actual = 100 + 10 * rng.standard_normal((3, 8, 60))
    half = np.array([6.7, 12.8, 19.6]) * scale
    bounds = np.stack([100 + sign * width + 0 * actual for width in half for sign in (-1, 1)], axis=-1)
    group: NDArray[np.int64] = np.repeat([0, 1, 2], 20)
    moved = corrections(actual, bounds, np.full(actual.shape, 12.8), group)[group]
    inside = (actual >= bounds[..., 2] - moved[:, 2] * 12.8) & (actual <= bounds[..., 3] + moved[:, 3] * 12.8)
    assert inside.mean() >= 0.79
    assert inside.mean() <= (0.83 if scale <= 1 else 1.0)


def test_an_interval_whose_lower_end_is_zero_holds_no_more_than_it_promises() -> None:
    rng = np.random.default_rng(2)
    rate = rng.uniform(0.2, 2.0, 300)
    actual = rng.poisson(rate, (3, 28, 300)).astype(float)
    upper = np.broadcast_to(rate + 1.3 * np.sqrt(rate), actual.shape)
    bounds = np.stack([np.zeros_like(actual), upper] * 3, axis=-1)
    group: NDArray[np.int64] = np.repeat([0, 1, 2], 100)
    moved = corrections(actual, bounds, np.full(actual.shape, 1.0), group)[group]
    inside = (actual >= 0) & (actual <= bounds[..., 3] + moved[:, 3])
    assert 0.79 <= inside.mean() <= 0.85 < (actual <= upper).mean()


def test_a_spread_with_past_promotions_is_narrowed_where_none_is_ahead() -> None:
    rng = np.random.default_rng(6)
    flag = np.zeros((88, 4))
    flag[0:80:4] = 1.0
    sold = rng.poisson(20 * np.where(flag[:80] > 0, 3.0, 1.0)).astype(float)
    inputs = replace(from_panel(panel(sold, "W"), 8), flags={"promotion": flag})
    answers = ladder_forecast(inputs).answers
    assert (answers[..., 4] - answers[..., 3]).mean() < 30  # a spread of 20 to 60 without the plan is some 45 wide
    assert (answers[..., 3] <= 20).mean() > 0.8 and (answers[..., 4] >= 20).mean() > 0.8


def test_a_closed_step_is_said_to_be_closed() -> None:
    sold = np.random.default_rng(4).poisson(20, (120, 5)).astype(float)
    shut = np.zeros((128, 5), bool)
    shut[124] = True
    history = panel(sold)
    learned = forecasts.learn(history, 8, 28, from_plan(history, plan_of(history, closed=shut)))
    assert forecast_reasons(learned, 0, 4) == ["closed that day, as planned: nothing is expected"]


def coverage(answer: LadderForecast, actual: Array) -> float:
    return float(((actual >= answer.answers[..., 3]) & (actual <= answer.answers[..., 4])).mean())


@pytest.mark.parametrize("unit", [0.001, 0.05, 1.0, 40.0])
def test_sales_in_tonnes_or_parts_have_intervals_as_narrow_as_in_pieces(unit: float) -> None:
    rng = np.random.default_rng(7)
    sold = rng.normal(1.0, 0.2, (55, 120)).clip(0.0) * unit
    answer = ladder_forecast(from_panel(panel(sold[:48]), 7))
    assert 0.72 <= coverage(answer, sold[48:]) <= 0.88


@pytest.mark.parametrize("steps", [29, 34])  # too few for a past origin
def test_fractional_sales_have_no_spread_of_whole_pieces_before_an_origin_was_tried(steps: int) -> None:
    rng = np.random.default_rng(8)
    sold = rng.normal(0.5, 0.1, (steps + 7, 150)).clip(0.0)
    answer = ladder_forecast(from_panel(panel(sold[:steps]), 7))
    assert not len(answer.past) and 0.68 <= coverage(answer, sold[steps:]) <= 0.92


def test_the_size_of_a_sale_is_one_piece_or_what_the_sales_vary_by() -> None:
    pieces = np.random.default_rng(9).poisson(5.0, (180, 200)).astype(float)
    assert sale_size(pieces) == sale_size(np.full((60, 3), 4.0)) == sale_size(np.zeros((60, 1))) == 1.0
    assert 0.09 < sale_size(pieces * 0.1) < 0.11  # a piece weighs 0.1
    assert sale_size(pieces * 30.5) == 1.0 and sale_size(np.full((60, 3), 0.5)) > 0
    assert sale_size(np.full((60, 3), NAN)) == 1.0


@pytest.mark.parametrize(
    ("steps", "origins"), [(34, []), (41, [34]), (48, [41, 34]), (62, [55, 48, 41]), (63, [56]), (80, [73, 66, 59])]
)
def test_past_origins_leave_eight_weeks_else_four(steps: int, origins: list[int]) -> None:
    assert inner_origins(from_panel(panel(np.ones((steps, 1))), 7)) == origins


@pytest.mark.slow
def test_eighty_percent_intervals_hold_about_eighty_percent() -> None:
    shares = []
    for seed in range(4):
        inputs, actual = promoted(130, 60, 8, seed=seed)
        shares.append(coverage(ladder_forecast(inputs), actual))
    assert 0.76 <= np.mean(shares) <= 0.86


# -- plans


def plan_of(history: Panel, **changes: object) -> KnownFuture:
    steps, count = len(history.dates) + 8, len(history.series)
    dates = from_panel(history, 8).dates
    shut = np.zeros((steps, count), bool)
    plan = KnownFuture(dates, {}, {}, shut, np.ones((steps, count)), np.zeros((0, count), np.int64))
    return replace(plan, **changes)  # type: ignore[arg-type]


def test_a_closed_step_sells_nothing_and_teaches_nothing() -> None:
    sold = np.random.default_rng(4).poisson(20, (120, 5)).astype(float)
    shut = np.zeros((128, 5), bool)
    shut[20:120:7] = True
    shut[124] = True
    sold[shut[:120]] = 0.0
    history = panel(sold)
    inputs = from_plan(history, plan_of(history, closed=shut))
    assert np.isnan(inputs.units[shut[:120]]).all()
    answers = ladder_forecast(inputs).answers
    assert (answers[4] == 0).all() and (answers[5, :, 0] > 5).all()


def test_a_step_that_is_half_open_sells_half() -> None:
    sold = np.full((60, 3), 20.0)
    share = np.ones((68, 3))
    share[50:60:2] = share[63] = 0.5
    sold[50:60:2] = 10.0
    history = panel(sold, "W")
    answers = ladder_forecast(from_plan(history, plan_of(history, open_share=share))).answers[..., 0]
    np.testing.assert_allclose(answers[3], 10.0, rtol=0.05)
    np.testing.assert_allclose(answers[4], 20.0, rtol=0.05)


def test_a_flag_without_a_plan_is_taken_to_be_as_frequent_as_usual() -> None:
    sold = np.full((60, 2), 20.0)
    flag = np.zeros((68, 2))
    flag[::4] = 1.0
    flag[60:] = NAN
    history = panel(sold, "W")
    inputs = from_plan(history, plan_of(history, values={"promo": flag}, kinds={"promo": "flag"}))
    assert (inputs.flags["promo"][60:] == 0.25).all()


# -- saved versions


def reader(folder: Path) -> Callable[[], forecasts.LearnedDemand]:
    return lambda: forecasts.read(folder)


def test_forecasts_saved_before_there_was_a_plan_are_read(tmp_path: Path) -> None:
    learned = forecasts.learn(panel(np.random.default_rng(1).poisson(9, (90, 3)).astype(float)), 28, 28)
    forecasts.write(learned, tmp_path)
    with np.load(tmp_path / "forecasts.npz", allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files if name != "planned"}
    np.savez_compressed(tmp_path / "forecasts.npz", allow_pickle=False, **arrays)
    again = reader(tmp_path)()
    np.testing.assert_array_equal(again.answers, learned.answers)
    assert (again.planned == 1).all() and json.loads((tmp_path / "forecasts.json").read_text())["freq"] == "D"


def test_reasons_say_what_the_plan_does() -> None:
    inputs, _ = promoted(130, 60, 8)
    history = Panel("W", inputs.dates[:130], tuple(f"s{i}" for i in range(60)), inputs.units)
    learned = forecasts.learn(history, 8, 8, inputs)
    step = int(inputs.flags["promotion"][130:, 0].argmax())
    assert any(text.startswith("as planned for that week: promotion +") for text in forecast_reasons(learned, 0, step))
