"""Order quantities: the service level that was asked for, whole packs, and what is not known stays unknown."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from d2c_mlops.errors import UsageError
from d2c_mlops.models.forecasting import forecasts
from d2c_mlops.models.forecasting.forecasts import LearnedDemand
from d2c_mlops.models.forecasting.ladder import USUAL_CORRELATION, error_correlation
from d2c_mlops.models.forecasting.ordering import (
    OrderRules,
    demand_ahead,
    demand_quantile,
    order_quantities,
    stock_cost,
    whole_packs,
)
from d2c_mlops.models.forecasting.panel import Panel
from d2c_mlops.models.forecasting.smoothing import Array

SERIES = tuple(f"p{number:02d}" for number in range(60))


@cache
def shop() -> tuple[LearnedDemand, Array]:
    """Return forecasts of 60 products of steady Poisson demand, and the 28 days that came after them."""
    rate = np.random.default_rng(4).uniform(0.5, 20, 60)
    units = np.random.default_rng(5).poisson(rate, (228, 60)).astype(float)
    dates = np.datetime64("2024-01-01") + np.arange(200) * np.timedelta64(1, "D")
    return forecasts.learn(Panel("D", dates, SERIES, units[:200]), 28, 28), units[200:]


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_stock_lasts_in_the_share_of_periods_that_was_asked_for(share: float) -> None:
    learned, came = shop()
    level = order_quantities(learned, OrderRules(7, 7, service_level=share), {})["order_up_to"].to_numpy()
    lasted = np.mean([came[start : start + 14].sum(axis=0) <= level for start in (0, 7, 14)])
    assert share - 0.12 <= lasted <= min(share + 0.14, 1.0)


def test_dearer_stock_outs_order_more_and_dearer_stock_less() -> None:
    learned, _ = shop()
    stock = dict.fromkeys(SERIES, 5.0)
    usual, brave, shy = (
        order_quantities(learned, OrderRules(understock_cost=under, overstock_cost=over), stock)["order"].sum()
        for under, over in ((3, 1), (19, 1), (1, 3))
    )
    assert shy < usual < brave


def test_the_level_of_the_costs_is_cheaper_than_the_mean_forecast() -> None:
    learned, came = shop()
    rules = OrderRules(7, 7, understock_cost=9.0, overstock_cost=1.0)
    table, sold = order_quantities(learned, rules, {}), came[:14].sum(axis=0)
    levels = (table[name].to_numpy() for name in ("order_up_to", "demand", "upper_80"))
    priced, mean, _ = (stock_cost(level, sold, rules) for level in levels)
    assert priced < mean


def test_what_is_on_its_way_is_not_ordered_again() -> None:
    learned, _ = shop()
    here, coming = dict.fromkeys(SERIES, 50.0), dict.fromkeys(SERIES, 30.0)
    one, two = (order_quantities(learned, OrderRules(), here, way)["order"] for way in (None, coming))
    assert (one - two <= 30).all() and (one - two >= 0).all() and (one > two).any()


def test_unknown_stock_has_a_level_and_no_order() -> None:
    learned, _ = shop()
    table = order_quantities(learned, OrderRules(), {"p00": 1.0})
    assert table["order"].notna().tolist() == [True] + [False] * 59
    assert table["order_up_to"].notna().all()


def test_orders_are_whole_packs_of_at_least_the_minimum() -> None:
    rules = OrderRules(pack=12, minimum=30)
    orders = whole_packs(np.array([-5.0, 0.0, 1.0, 31.0, 36.0, np.nan]), rules)
    np.testing.assert_array_equal(orders, [0, 0, 36, 36, 36, np.nan])


@pytest.mark.parametrize(("mean", "deviation"), [(3.0, 5.0), (40.0, 12.0), (0.2, 0.9), (7.0, 1.0)])
def test_quantiles_are_those_of_counts_with_this_mean_and_spread(mean: float, deviation: float) -> None:
    rng, variance = np.random.default_rng(1), deviation**2
    draws = (
        rng.negative_binomial(mean**2 / (variance - mean), mean / variance, 200_000)
        if variance > mean
        else rng.poisson(mean, 200_000)
    )
    for share in (0.1, 0.5, 0.9, 0.99):
        level = float(demand_quantile(np.array([mean]), np.array([deviation]), share)[0])
        assert (draws <= level).mean() >= share - 0.005 and (level == 0 or (draws <= level - 1).mean() < share + 0.005)


def test_the_spread_of_a_fortnight_lies_between_that_of_independent_and_of_equal_days() -> None:
    learned, _ = shop()
    mean, deviation = demand_ahead(learned, 14)
    _, day = demand_ahead(learned, 1)
    assert (deviation < 14 * day * 1.2).all() and (deviation > np.sqrt(14) * day * 0.6).all()
    np.testing.assert_allclose(mean, learned.answers[:14, :, 0].sum(axis=0))


@pytest.mark.parametrize("shared", [0.0, 0.4, 0.8])
def test_the_correlation_of_errors_is_measured(shared: float) -> None:
    rng = np.random.default_rng(8)
    errors = np.sqrt(shared) * rng.standard_normal((3, 1, 900)) + np.sqrt(1 - shared) * rng.standard_normal(
        (3, 14, 900)
    )
    assert abs(error_correlation(errors, np.ones_like(errors), "D") - shared) < 0.06
    assert error_correlation(errors[:, :1], np.ones_like(errors[:, :1]), "W") == USUAL_CORRELATION["W"]


def test_every_rule_that_is_wrong_is_told_at_once() -> None:
    learned, _ = shop()
    with pytest.raises(UsageError) as refusal:
        order_quantities(learned, OrderRules(-1, 0, 0.0, float("nan"), 1.0, 0.0, -2.0), {})
    wrong = {failure.where for failure in refusal.value.failures}
    assert wrong == {"lead_time", "review", "understock_cost", "overstock_cost", "service_level", "pack", "minimum"}


def test_a_period_beyond_the_forecast_is_refused() -> None:
    learned, _ = shop()
    with pytest.raises(UsageError, match="orders cannot be worked out") as refusal:
        order_quantities(learned, OrderRules(lead_time=25), {})
    assert "the forecast reaches 28" in str(refusal.value.failures[0])


def test_versions_saved_before_correlations_take_the_usual_one(tmp_path: Path) -> None:
    learned, _ = shop()
    forecasts.write(learned, tmp_path)
    about = json.loads((tmp_path / "forecasts.json").read_text())
    assert forecasts.read(tmp_path).correlation == learned.correlation == about.pop("correlation")
    (tmp_path / "forecasts.json").write_text(json.dumps(about))
    assert forecasts.read(tmp_path).correlation == USUAL_CORRELATION["D"]
