"""Columns that tell the answer are found, and plans are not."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

from d2c_mlops.data.tables import Tables
from d2c_mlops.data.validation import validate
from d2c_mlops.models.forecasting.forecasting import DemandForecaster, replay
from d2c_mlops.models.forecasting.panel import Panel
from d2c_mlops.models.forecasting.plans.known_future import KnownFuture
from d2c_mlops.models.forecasting.plans.leaking_flags import leaking_flags
from d2c_mlops.registry.evaluators import EvaluationTrial
from d2c_mlops.registry.evaluators.demand import DemandEvaluator

BAKERY = Path(__file__).parents[3] / "shared/data/bakery.parquet"
RNG = np.random.default_rng(7)
SOLD = RNG.poisson(0.8, (120, 6)).astype(float)


def reasons(kind: str, value: NDArray[np.float64], sold: NDArray[np.float64] = SOLD) -> list[str]:
    days = np.datetime64("2024-01-01") + np.arange(len(value)) * np.timedelta64(1, "D")
    names = tuple(map(str, range(sold.shape[1])))
    always = np.ones(value.shape)
    known = KnownFuture(days, {"x": value}, {"x": kind}, always == 0, always, np.empty((0, sold.shape[1]), np.int64))
    return [str(failure) for failure in leaking_flags(known, Panel("D", days[: len(sold)], names, sold, gaps=True))]


def with_future(past: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.vstack([past, past[:10]])


def test_a_flag_that_is_set_only_where_something_was_sold_is_found() -> None:
    flag = ((SOLD > 0) & (RNG.random(SOLD.shape) < 0.4)).astype(float)
    assert "only where something was sold" in reasons("flag", with_future(flag))[0]


def test_a_promotion_that_doubles_sales_is_no_lie() -> None:
    flag = (RNG.random(SOLD.shape) < 0.2).astype(float)
    sold = np.where(flag == 1, RNG.poisson(1.6, SOLD.shape), SOLD)
    assert reasons("flag", with_future(flag), sold) == []


def test_a_promotion_that_sells_eight_times_as_much_is_no_lie() -> None:
    flag = (RNG.random(SOLD.shape) < 0.3).astype(float)
    assert reasons("flag", with_future(flag), np.where(flag == 1, RNG.poisson(6.4, SOLD.shape), SOLD)) == []


def test_a_promotion_on_weekdays_alone_is_no_lie_where_sundays_sell_nothing() -> None:
    weekday = np.arange(len(SOLD)) % 7
    flag = np.broadcast_to(((np.arange(len(SOLD)) // 7 % 2 == 0) & (weekday < 5))[:, None], SOLD.shape).astype(float)
    sold = np.where((weekday == 6)[:, None], 0, RNG.poisson(30, SOLD.shape)).astype(float)
    assert reasons("flag", with_future(flag), sold) == []


def test_a_discount_that_explains_nearly_all_sales_is_no_lie() -> None:
    discount = RNG.choice([0.0, 0.1, 0.3], SOLD.shape)
    assert reasons("number", with_future(discount), 100 * (1 + 3 * discount) + RNG.normal(0, 1, SOLD.shape)) == []


def test_a_price_that_is_empty_where_nothing_was_sold_is_found_and_a_planned_one_is_not() -> None:
    price = RNG.uniform(1, 2, SOLD.shape)
    assert "empty where nothing was sold" in reasons("price", with_future(np.where(SOLD > 0, price, np.nan)))[0]
    assert reasons("price", with_future(np.where(RNG.random(SOLD.shape) < 0.2, np.nan, price))) == []


def test_a_column_that_ends_with_the_sales_is_not_known_ahead() -> None:
    weather = np.vstack([RNG.normal(15, 5, SOLD.shape), np.full((10, 6), np.nan)])
    assert "no value for any step ahead" in reasons("number", weather)[0]


def test_a_column_that_moves_with_the_sales_of_the_same_step_is_found() -> None:
    assert "same step" in reasons("number", with_future(SOLD * 3 + RNG.normal(0, 0.1, SOLD.shape)))[0]
    assert reasons("number", with_future(SOLD + RNG.normal(0, 3, SOLD.shape))) == []


def test_the_promotions_of_a_bakery_are_honest() -> None:
    if not BAKERY.exists():
        pytest.skip(f"{BAKERY} is absent")
    rows = pd.read_parquet(BAKERY, columns=["date", "store", "product", "demand", "promotion_currentweek"])
    rows = rows[rows["store"] <= rows["store"].unique()[:12].max()].assign(key=rows["store"] * 1000 + rows["product"])
    units, flag = (
        rows.pivot_table(index="date", columns="key", values=c).to_numpy(float)
        for c in ("demand", "promotion_currentweek")
    )
    assert reasons("flag", flag, units[:-28]) == []


def measured_shop(later_days: int = 0, column: str = "visitors") -> Tables:
    """Return 160 days of two products that sell as many come in, and how many came in up to `later_days` after the sales."""
    random = np.random.default_rng(3)
    dates = pd.date_range("2024-01-01", periods=160 + later_days)
    visitors = np.exp(random.normal(0, 0.5, len(dates))) * 100
    keys = [f'{{"product_id":"{name}"}}' for name in ("mug", "tea")]
    sold = pd.DataFrame(
        {
            "keys": key,
            "date": dates[:160],
            "last_day": dates[:160],
            "frequency": "D",
            "units": random.poisson(0.3 * visitors[:160] * np.exp(random.normal(0, 0.3, 160))),
        }
        for key in keys
    ).explode(["date", "last_day", "units"], ignore_index=True)
    rows = pd.DataFrame({"keys": "{}", "first_day": dates, "last_day": dates, "event": column, "value": visitors})
    if column == "promotion":
        rows["value"] = (visitors > 150).astype(float)
    frames = {"sales_totals": sold.astype({"units": float}), "calendar": rows.assign(known_at=pd.NaT)}
    return Tables({name: validate(name, frame) for name, frame in frames.items()})


AS_OF = date(2024, 6, 8)  # the 160th day


def backtest_of(tables: Tables) -> np.ndarray:
    model = DemandForecaster(by="product_id", horizon=14, cutoffs=2)
    return replay(model, tables, AS_OF)["forecast"].forecast


def test_a_measured_column_that_ends_with_the_sales_does_not_improve_the_backtest() -> None:
    tables = measured_shop()
    without = Tables({"sales_totals": tables["sales_totals"]})
    assert np.array_equal(backtest_of(tables), backtest_of(without))


def test_the_gate_does_not_know_a_measured_column_either() -> None:
    tables, params = measured_shop(), {"by": "product_id", "horizon": 14}
    shops = (tables, Tables({"sales_totals": tables["sales_totals"]}))
    measured = [DemandEvaluator().observe(EvaluationTrial(DemandForecaster, params, {}, shop, AS_OF)) for shop in shops]
    pd.testing.assert_frame_equal(*measured)


def test_what_is_forecast_ahead_or_decided_by_the_shop_is_used_in_the_backtest() -> None:
    plain = backtest_of(Tables({"sales_totals": measured_shop(14)["sales_totals"]}))
    assert not np.allclose(backtest_of(measured_shop(14)), plain)
    assert not np.allclose(backtest_of(measured_shop(0, "promotion")), plain)


def test_a_fit_tells_that_a_measured_column_was_left_out_also_a_day_before_the_last_one() -> None:
    for day in (AS_OF, AS_OF - timedelta(days=1)):
        model = DemandForecaster(by="product_id", horizon=14).fit(measured_shop(), day)
        assert any(note.startswith("visitors: left out of the forecast, it has no value") for note in model.notes)
        assert not any("the backtest knew it" in note for note in model.notes)
