"""New series have wider intervals, and series that ended decline instead of being forecast at their mean."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.models.forecasting.forecast_inputs import from_panel
from d2c_mlops.models.forecasting.forecasts import learn, read, write
from d2c_mlops.models.forecasting.hierarchy.levels import no_levels
from d2c_mlops.models.forecasting.hierarchy.life_cycle import (
    ENDED,
    chance_of_silence,
    declining,
    has_ended,
    is_christmas,
    is_unseen_christmas,
    life_notes,
    widened,
)
from d2c_mlops.models.forecasting.hierarchy.panel_forecast import forecast_panel
from d2c_mlops.models.forecasting.ladder import ladder_forecast
from d2c_mlops.models.forecasting.panel import Panel, is_selling
from d2c_mlops.models.forecasting.periods import Freq, ends_after
from d2c_mlops.models.forecasting.reasons import forecast_reasons
from support.panels import panel

NESTED = [5, 3, 1, 0, 2, 4, 6]  # lower_95, lower_80, lower_50, forecast, upper_50, upper_80, upper_95


def sold(days: int, count: int, rate: float, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).poisson(rate, (days, count)).astype(float)


@pytest.mark.parametrize(("rate", "days_without", "ended"), [(10, 7, True), (10, 1, False), (0.5, 7, False), (0.5, 40, True), (0.05, 40, False)])  # fmt: skip
def test_a_series_ended_where_its_rate_does_not_explain_the_days_without_a_sale(
    rate: float, days_without: int, ended: bool
) -> None:
    units = sold(180, 30, rate)
    units[-days_without:] = 0.0
    share = (chance_of_silence(units, 180) < ENDED).mean()
    assert share > 0.8 if ended else share < 0.1


def test_series_that_sell_as_before_are_hardly_ever_taken_for_ended() -> None:
    units = np.concatenate([sold(200, 400, rate, int(rate * 100)) for rate in (0.05, 0.3, 1.0, 5.0)], axis=1)
    assert (chance_of_silence(units, 182) < ENDED).mean() < 0.002


def test_closed_days_are_no_days_without_a_sale() -> None:
    units = sold(100, 3, 8.0)
    units[-14:] = np.nan
    assert (chance_of_silence(units, 180) == 1).all()


@pytest.mark.parametrize("freq", ["D", "W"])
def test_an_ended_series_declines_is_explained_and_is_saved(freq: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    units = sold(150, 4, 20.0)
    units[-(21 if freq == "D" else 6) :, 2] = 0.0
    learned = learn(panel(units, freq), 28 if freq == "D" else 8, 8)  # type: ignore[arg-type]
    forecast = learned.answers[..., 2, 0]
    assert forecast[-1] <= 0.6 * forecast[0] + 1e-9 and forecast.mean() < 5
    assert (learned.answers[..., [0, 1, 3], 0] > 10).all()
    assert (np.diff(learned.answers[..., NESTED], axis=-1) >= 0).all()
    assert "seems to have ended" in forecast_reasons(learned, 2, 0)[0]
    write(learned, tmp_path)
    assert read(tmp_path).ended.tolist() == [False, False, True, False]


def test_bounds_of_new_series_are_wider_and_nested_and_the_forecast_stays() -> None:
    answers = np.array([[[10.0, 8, 12, 6, 14, 0, 20]] * 3])
    wide = widened(answers, np.array([1.0, 4.0, 8.0]))
    assert (wide[..., 0] == 10).all() and (np.diff(wide[..., NESTED], axis=-1) >= 0).all()
    width = wide[0, :, 4] - wide[0, :, 3]
    assert width[0] > width[1] > width[2] == 8


@pytest.mark.parametrize(("freq", "steps"), [("D", 17), ("W", 4), ("M", 1)])
def test_christmas_is_the_second_half_of_december_by_days_weeks_and_months(freq: Freq, steps: int) -> None:
    begin = {"D": date(2024, 11, 30), "W": date(2024, 12, 1), "M": date(2024, 10, 31)}[freq]
    dates = ends_after(begin, {"D": 60, "W": 8, "M": 6}[freq], freq)
    assert is_christmas(dates, freq).sum() == steps


def test_only_a_christmas_that_a_series_has_not_had_widens_its_interval() -> None:
    units = np.random.default_rng(4).poisson(20.0, (500, 12)).astype(float)
    units[:400, 6:] = np.nan  # on sale since 100 days
    days = np.datetime64("2024-12-10") - np.arange(500)[::-1]
    history = Panel("D", days, tuple("abcdefghijkl"), units, gaps=True)
    inputs = from_panel(history, 28)
    unseen = is_unseen_christmas(inputs)
    assert not unseen[:, :6].any() and (unseen[:, 6:].sum(axis=0) == 17).all() and not unseen[21:].any()
    plain = ladder_forecast(inputs).answers
    answers = forecast_panel(history, inputs, no_levels(12)).answers
    wider = (answers[..., 4] - answers[..., 0]) / (plain[..., 4] - plain[..., 0])
    assert np.allclose(wider[unseen], 1.25) and np.allclose(wider[~unseen], 1.0)
    assert (np.diff(answers[..., NESTED], axis=-1) >= 0).all() and np.allclose(answers[..., 0], plain[..., 0])


@pytest.mark.slow
def test_intervals_of_series_of_a_few_weeks_hold_about_as_often_as_those_of_old_ones() -> None:
    rng = np.random.default_rng(3)
    level = rng.gamma(4.0, 5.0, 60) * np.exp(np.cumsum(rng.normal(0, 0.08, (80, 60)), axis=0))
    units = rng.poisson(level).astype(float)
    history, actual = units[:72].copy(), units[72:]
    history[:-3, :20] = np.nan
    answers = learn(replace(panel(history, "W"), gaps=True), 8, 8).answers
    inside = (actual >= answers[..., 3]) & (actual <= answers[..., 4])
    assert inside[:, :20].mean() > 0.7 and inside[:, 20:].mean() > 0.7


@pytest.mark.slow
def test_on_real_weeks_intervals_of_new_series_hold_as_often_as_those_of_old_ones(shared_data: Path) -> None:
    raw = pd.read_csv(shared_data / "avocado.csv", parse_dates=["Date"])
    weeks = raw.pivot_table(index="Date", columns=["region", "type"], values="Total Volume").to_numpy()
    rng, origin = np.random.default_rng(7), len(weeks) - 16  # the last two horizons are left for other measurements
    history, actual = weeks[:origin].copy(), weeks[origin : origin + 8]
    new = rng.choice(weeks.shape[1], 30, replace=False)
    for series in new:
        history[: -int(rng.integers(1, 5)), series] = np.nan
    answers = learn(replace(panel(history, "W"), gaps=True), 8, 8).answers
    inside = (actual >= answers[..., 3]) & (actual <= answers[..., 4])
    old = np.setdiff1d(np.arange(weeks.shape[1]), new)
    assert inside[:, new].mean() > inside[:, old].mean() - 0.1


@pytest.mark.slow
def test_on_a_real_shop_the_error_of_ended_series_is_lower_than_that_of_the_ladder(shared_data: Path) -> None:
    raw = pd.read_parquet(shared_data / "online_retail.parquet", columns=["StockCode", "Quantity", "InvoiceDate"])
    raw["week"] = raw["InvoiceDate"].dt.normalize().dt.to_period("W").dt.start_time
    weeks = raw[raw["Quantity"] > 0].pivot_table(index="week", columns="StockCode", values="Quantity", aggfunc="sum")
    units = weeks.to_numpy()[:, weeks.count().to_numpy() > 12][1:-1]
    history, actual = panel(units[:-8], "W"), np.nan_to_num(units[-8:])
    selling = np.flatnonzero(is_selling(history, 1))
    inputs = from_panel(history, 8).select_series(selling)
    ended, answers = has_ended(inputs), ladder_forecast(inputs).answers
    assert ended.sum() >= 5
    before, after = answers[:, ended, 0], declining(answers, ended, 4)[:, ended, 0]
    error = [np.abs(forecast - actual[:, selling[ended]]).sum() for forecast in (before, after)]
    assert error[1] < error[0]


def test_the_notes_name_new_and_ended_series() -> None:
    units = sold(150, 3, 20.0)
    units[-20:, 0], units[:-30, 1] = 0.0, np.nan
    notes = life_notes(from_panel(panel(units), 28), ("cup", "mug", "pot"))
    assert notes[0].startswith("1 of 3 series did not sell") and "(cup)" in notes[0]
    assert "less than 8 weeks" in notes[1] and "(mug)" in notes[1]
    assert life_notes(from_panel(panel(sold(150, 3, 20.0)), 28), ("cup", "mug", "pot")) == ()


def test_only_ended_series_decline() -> None:
    answers = np.ones((8, 2, 7))
    changed = declining(answers, np.array([False, True]), 4)
    assert (changed[:, 0] == 1).all() and (changed[:, 1, 0] < 1).all() and (changed[:, 1, 6] == 1).all()
