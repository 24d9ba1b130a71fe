"""The backtest: what it shows the forecaster, whom it scores, and its metrics by hand."""

from __future__ import annotations

from datetime import date

import matplotlib
import numpy as np
import pytest

from d2c_mlops.errors import DataRefused
from d2c_mlops.models.forecasting.backtest import (
    Backtest,
    align,
    backtest,
    bias,
    by_step,
    coverage,
    plot_coverage,
    plot_cutoffs,
    plot_metric,
    rmsse,
    summary,
    wape,
)
from d2c_mlops.models.forecasting.baselines import seasonal_naive, weekday_mean
from d2c_mlops.models.forecasting.intervals import forecast
from d2c_mlops.models.forecasting.panel import Panel
from d2c_mlops.models.forecasting.smoothing import Array

matplotlib.use("Agg")
NAN = float("nan")


def panel(values: Array, start: str = "2024-01-01") -> Panel:
    dates = np.datetime64(start, "D") + np.arange(len(values))
    return Panel("D", dates, tuple(f"s{i}" for i in range(values.shape[1])), values)


def noisy(days: int = 200, series: int = 6) -> Panel:
    return panel(np.random.default_rng(0).poisson(5, (days, series)).astype(float))


def test_every_day_of_the_last_four_horizons_is_forecast_once() -> None:
    result = backtest(noisy(), weekday_mean, 14)
    assert [str(day) for day in result.cutoffs] == ["2024-05-23", "2024-06-06", "2024-06-20", "2024-07-04"]
    np.testing.assert_array_equal(result.actual.reshape(56, 6), noisy().sold[-56:])


def test_the_forecaster_sees_nothing_after_the_cutoff() -> None:
    seen: list[date] = []

    def spy(known: Panel, horizon: int) -> Array:
        seen.append(known.as_of)
        assert len(known.units) == len(known.dates)
        return weekday_mean(known, horizon)

    whole = noisy()
    result = backtest(whole, spy, 14)
    assert tuple(seen) == result.cutoffs
    changed = panel(np.vstack([whole.sold[:-14], whole.sold[-14:] * 1000]))
    np.testing.assert_array_equal(backtest(changed, spy, 14).forecast, result.forecast)


def test_a_series_that_ends_is_scored_with_zeros_and_then_no_more() -> None:
    values = noisy().sold
    values[144 + 3 :, 0] = NAN  # last sale three days after the first of the cutoffs
    result = backtest(panel(values), weekday_mean, 14)
    assert (result.actual[0, 3:, 0] == 0).all() and (result.forecast[0, :, 0] > 0).all()
    gone = backtest(panel(np.vstack([values, values[-50:]])), weekday_mean, 14)
    assert np.isnan(gone.actual[-1, :, 0]).all()


def test_a_series_that_is_too_young_is_not_scored() -> None:
    values = noisy().sold
    values[:130, 1] = NAN
    result = backtest(panel(values), weekday_mean, 14, least=28)
    assert np.isnan(result.actual[0, :, 1]).all() and np.isfinite(result.actual[1, :, 1]).all()


def test_what_was_known_may_come_from_elsewhere() -> None:
    whole = noisy()

    def known(day: date) -> Panel:
        steps = int((np.datetime64(day) - whole.dates[0]).astype(int)) + 1
        cut = whole.until(steps)
        return Panel("D", cut.dates, cut.series[::-1], cut.sold[:, ::-1] + 1)  # one more: not yet returned

    told = backtest(whole, weekday_mean, 14, known=known)
    np.testing.assert_allclose(told.forecast, backtest(whole, weekday_mean, 14).forecast + 1)
    np.testing.assert_array_equal(told.actual, backtest(whole, weekday_mean, 14).actual)


def test_align_orders_drops_and_adds_series() -> None:
    two = align(panel(np.array([[1.0, 2.0, 3.0]])), ("s2", "new", "s0"))
    np.testing.assert_array_equal(two.sold, [[3.0, NAN, 1.0]])


def test_metrics_by_hand() -> None:
    result = Backtest(
        (date(2024, 1, 1),),
        actual=np.array([[[10.0, NAN], [0.0, 4.0]]]),
        forecast=np.array([[[12.0, NAN], [3.0, 0.0]]]),
        bounds=np.array([[[[9.0, 11, 8, 12, 7, 13], [NAN] * 6], [[1.0, 5, 0, 6, 0, 7], [0.0, 2, 0, 3, 0, 4]]]]),
        scale=np.array([[4.0, 0.0]]),
    )
    assert float(wape(result)) == 9 / 14
    assert float(bias(result)) == 1 / 14
    assert rmsse(result) == pytest.approx(np.sqrt((4 + 9) / 2 / 4))  # the second never changed before
    assert {k: float(v) for k, v in coverage(result).items()} == {0.5: 1 / 3, 0.8: 2 / 3, 0.95: 1.0}
    steps = by_step(result)
    assert steps.wape.tolist() == [0.2, 7 / 4] and steps.index.tolist() == [1, 2]


def test_a_method_without_intervals_has_no_coverage() -> None:
    assert coverage(backtest(noisy(), seasonal_naive, 14)) == {}
    assert "coverage_80" in summary(backtest(noisy(), forecast, 14))


def test_too_little_history_is_refused_and_less_gives_fewer_cutoffs() -> None:
    with pytest.raises(DataRefused, match="too few to go back by 28"):
        backtest(noisy(40), weekday_mean, 28)
    assert len(backtest(noisy(90), weekday_mean, 28).cutoffs) == 2


def test_a_shop_that_sold_nothing_has_no_wape() -> None:
    assert np.isnan(wape(backtest(panel(np.zeros((100, 2))), weekday_mean, 14)))


def test_plots_draw_a_line_per_method() -> None:
    results = {"naive": backtest(noisy(), seasonal_naive, 14), "ours": backtest(noisy(), forecast, 14)}
    for metric in ("wape", "bias"):
        lines = plot_metric(results, metric).get_lines()
        assert [line.get_label() for line in lines[:2]] == ["naive", "ours"]
        np.testing.assert_allclose(np.asarray(lines[1].get_ydata(), dtype=float), by_step(results["ours"])[metric])
    assert len(plot_coverage(results["ours"]).get_lines()) == 6
    for metric in ("wape", "bias", "rmsse"):
        assert np.asarray(plot_cutoffs(results, metric).get_lines()[0].get_ydata()).shape == (4,)
