"""What would have sold without stock-outs: bias on simulated shops, and what learns from it."""

from __future__ import annotations

from datetime import date
from functools import cache

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from d2c_mlops.data.simulate.simulator import Shop
from d2c_mlops.data.tables import Tables
from d2c_mlops.data.validation import validate
from d2c_mlops.models.forecasting.baselines import weekday_profile
from d2c_mlops.models.forecasting.forecasting import DemandForecaster, replay
from d2c_mlops.models.forecasting.plans.stock_outs import StockOuts, mean_above, rate_size, recovered_units
from d2c_mlops.models.forecasting.smoothing import Array

RNG = np.random.default_rng(11)


def test_half_a_day_without_stock_is_made_up_without_bias() -> None:
    rate = RNG.gamma(4, 3, (120, 80))  # days differ
    wanted = RNG.poisson(rate).astype(float)
    share = np.where(RNG.random(wanted.shape) < 0.15, RNG.uniform(0.1, 0.9, wanted.shape), 0.0)
    sold = RNG.binomial(wanted.astype(int), 1 - share).astype(float)
    units = recovered_units(sold, StockOuts(share, np.zeros_like(share, bool)), np.ones_like(sold), 56)
    cut = share > 0
    assert abs(units[cut].sum() / wanted[cut].sum() - 1) < 0.02 < 0.4 < 1 - sold[cut].sum() / wanted[cut].sum()
    assert (units >= sold).all() and (units[~cut] == sold[~cut]).all()
    assert np.abs(units - wanted)[cut].sum() < 0.6 * np.abs(sold - wanted)[cut].sum()


def test_a_day_whose_stock_ran_out_at_an_unknown_hour_is_made_up_without_bias() -> None:
    wanted = RNG.poisson(RNG.gamma(6, 2, (120, 80))).astype(float)
    stock = np.where(RNG.random(wanted.shape) < 0.3, RNG.integers(4, 20, wanted.shape), 1e9)
    sold, flagged = np.minimum(wanted, stock), wanted >= stock
    units = recovered_units(sold, StockOuts(np.zeros_like(sold), flagged), np.ones_like(sold), 56)
    assert abs(units[flagged].sum() / wanted[flagged].sum() - 1) < 0.05
    assert units[flagged].sum() > 1.2 * sold[flagged].sum()


def test_days_without_any_stock_get_the_usual_sales_of_their_weekday() -> None:
    usual = np.tile([1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 0.0], 12)[:, None]
    sold = 10 * usual
    share = np.zeros_like(sold)
    share[40:47] = 1.0
    units = recovered_units(np.where(share > 0, 0.0, sold), StockOuts(share, share > 1), usual, 28)
    np.testing.assert_allclose(units[40:47], sold[40:47], rtol=0.02, atol=1e-6)


@pytest.mark.parametrize(("mean", "size"), [(0.3, 0.5), (5.0, 2.0), (40.0, 30.0)])
def test_the_mean_of_demand_above_the_stock_is_that_of_draws(mean: float, size: float) -> None:
    draws = np.random.default_rng(3).negative_binomial(size, size / (size + mean), 400_000)
    for least in (0.0, 1.0, float(np.quantile(draws, 0.9))):
        expected = draws[draws >= least].mean()
        assert abs(float(mean_above(np.array([mean]), size, np.array([least]))[0]) / expected - 1) < 0.03


@pytest.mark.parametrize("unit", [0.04, 1.0, 70.0])
def test_demand_in_parts_of_a_piece_is_made_up_without_bias(unit: float) -> None:
    wanted = RNG.gamma(8, 0.1, (120, 150)) * unit
    stock = np.where(RNG.random(wanted.shape) < 0.3, RNG.uniform(0.4, 1.2, wanted.shape) * unit, np.inf)
    sold, flagged = np.minimum(wanted, stock), wanted >= stock
    units = recovered_units(sold, StockOuts(np.zeros_like(sold), flagged), np.ones_like(sold), 28)
    assert (
        abs(units[flagged].sum() / wanted[flagged].sum() - 1)
        < 0.05
        < 0.2
        < 1 - sold[flagged].sum() / wanted[flagged].sum()
    )
    assert (units >= sold - 1e-12).all() and np.allclose(units[~flagged], sold[~flagged])


@pytest.mark.parametrize(("mean", "size"), [(0.3, 0.5), (5.0, 2.0), (40.0, 30.0)])
def test_the_mean_of_continuous_demand_above_the_stock_is_that_of_draws(mean: float, size: float) -> None:
    shape = 1 / (1 / size + 1 / mean)
    draws = np.random.default_rng(3).gamma(shape, mean / shape, 400_000)
    for least in (0.0, 0.7, float(np.quantile(draws, 0.9))):
        expected = draws[draws >= least].mean()
        assert abs(float(mean_above(np.array([mean]), size, np.array([least]), False)[0]) / expected - 1) < 0.03


def test_series_that_never_sold_and_stock_that_was_always_out_have_an_answer() -> None:
    sold, always = np.zeros((30, 2)), np.ones((30, 2))
    units = recovered_units(sold, StockOuts(always, always > 1), np.ones_like(sold), 14)
    assert (units == 0).all()
    units = recovered_units(sold, StockOuts(sold, always > 0), np.ones_like(sold), 14)
    assert np.isfinite(units).all() and rate_size(sold, sold, always > 0) > 0


@cache
def simulated() -> tuple[Array, Array, NDArray[np.bool_], Array]:
    """Return units wanted and sold, whether stock was out, and the share of the day's orders after that [day, product]."""
    shop = Shop("gift", seed=2, days=150, orders=100, products=40)
    demand = shop.truth.demand
    moments = pd.to_datetime(demand["out_of_stock_at"], utc=True).dt.tz_convert(shop.zone)
    orders = pd.to_datetime(shop.tables()["orders"]["ordered_at"], utc=True).dt.tz_convert(shop.zone)
    minutes = np.sort((orders.dt.hour * 60 + orders.dt.minute).to_numpy())
    after = 1 - np.searchsorted(minutes, (moments.dt.hour * 60 + moments.dt.minute).fillna(1440).to_numpy()) / len(
        minutes
    )
    table = demand.assign(share=np.where(moments.isna(), 0.0, after), out=moments.notna())
    wanted, sold, share, out = (
        table.pivot_table(index="date", columns="product_id", values=name, aggfunc="first").to_numpy(float)
        for name in ("demanded", "sold", "share", "out")
    )
    return wanted, sold, out > 0, share


@pytest.mark.parametrize("by_hours", [True, False])
def test_demand_of_a_simulated_shop_is_recovered(by_hours: bool) -> None:
    wanted, sold, out, share = simulated()
    stock = StockOuts(share * out, np.zeros_like(out)) if by_hours else StockOuts(np.zeros_like(share), out)
    usual = weekday_profile(np.where(out, np.nan, sold), 7)[(np.arange(len(sold)) - len(sold)) % 7]
    units = recovered_units(sold, stock, usual, 14)
    assert abs(units.sum() / wanted.sum() - 1) < (0.03 if by_hours else 0.05)
    assert abs(units[out].sum() / wanted[out].sum() - 1) < 0.2 < 1 - sold[out].sum() / wanted[out].sum()


def shop_with_stock_outs() -> tuple[Tables, date]:
    """Return sales of a product whose stock lasts for half of each Friday to Sunday of the last four weeks."""
    dates = pd.date_range("2024-01-01", periods=140)
    units, share = RNG.poisson(20, 140).astype(float), np.zeros(140)
    late = (np.arange(140) >= 112) & (np.arange(140) % 7 >= 4)
    units[late], share[late] = np.round(units[late] / 2), 0.5
    key = '{"product_id":"tea"}'
    sales = pd.DataFrame({"keys": key, "date": dates, "last_day": dates, "frequency": "D", "units": units})
    stock = pd.DataFrame({"keys": key, "first_day": dates, "last_day": dates, "share_out": share})
    return Tables({"sales_totals": validate("sales_totals", sales), "stock": validate("stock", stock)}), date(
        2024, 5, 19
    )


def test_the_forecast_is_of_demand_and_says_what_was_estimated() -> None:
    tables, as_of = shop_with_stock_outs()
    model = DemandForecaster(by="product_id", horizon=14).fit(tables, as_of)
    forecast = model.predict(model.own_records())["forecast"].mean()
    blind = DemandForecaster(by="product_id", horizon=14).fit(Tables({"sales_totals": tables["sales_totals"]}), as_of)
    assert blind.predict(blind.own_records())["forecast"].mean() < 18 < forecast < 22
    assert any(note.startswith("stock: sold out on 12 of 140 steps") for note in model.notes)


def test_a_backtest_measures_no_step_without_stock() -> None:
    tables, as_of = shop_with_stock_outs()
    results = replay(DemandForecaster(by="product_id", horizon=14, cutoffs=2), tables, as_of)
    actual = results["forecast"].actual[:, :, 0]
    assert np.isnan(actual).sum() == 12
    assert np.array_equal(np.isnan(actual), np.isnan(results["last_year"].actual[:, :, 0]))
