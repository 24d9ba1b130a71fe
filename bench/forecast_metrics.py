"""Errors of quantile forecasts, and what orders by them cost: the same formulas for ours and for other libraries."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from d2c_mlops.models.forecasting.backtest import Backtest
from d2c_mlops.models.forecasting.forecast_inputs import ForecastInputs
from d2c_mlops.models.forecasting.hierarchy.life_cycle import is_christmas
from d2c_mlops.models.forecasting.intervals import LEVELS

Array = NDArray[np.float64]
QUANTILES = (0.1, 0.5, 0.9)
COSTS = {3: 0.75, 9: 0.9}  # cost of a unit short over a unit left -> the quantile that is ordered
NORMAL_SHARE = (
    0.6745 / 1.2816
)  # of the way from the median to the ninetieth percentile: where 0.75 lies in a normal distribution
METRICS = ("WAPE", "WQL", "cost")


def quantiles_of(result: Backtest) -> Array:
    """Return the quantiles .1, .5, .75 and .9 [4, cutoff, horizon, series] of a backtest; without intervals all are the forecast."""
    if np.isnan(result.bounds).all():
        return np.stack([result.forecast] * 4)
    side = {level: 2 * LEVELS.index(level) for level in (0.5, 0.8)}
    bounds = result.bounds
    return np.stack([bounds[..., side[0.8]], result.forecast, bounds[..., side[0.5] + 1], bounds[..., side[0.8] + 1]])


def with_upper_quartile(quantiles: Array) -> Array:
    """Return .1, .5, .75 and .9 for .1, .5 and .9."""
    low, middle, high = quantiles
    return np.stack([low, middle, middle + NORMAL_SHARE * (high - middle), high])


def errors_of(actual: Array, quantiles: Array, scale: Array) -> dict[str, float]:
    """Return WAPE, WQL, RMSSE, the share inside of 80 %, and the mean cost of an order at 3:1 and 9:1, per unit sold.

    `actual` is [cutoff, horizon, series], `quantiles` .1, .5, .75 and .9, `scale` the mean squared change [cutoff, series].
    """
    scored = ~np.isnan(actual)
    sold = float(np.abs(actual[scored]).sum())
    low, middle, upper, high = quantiles
    pinball = [
        2 * np.maximum(q * (actual - forecast), (q - 1) * (actual - forecast))[scored].sum() / sold
        for q, forecast in zip(QUANTILES, (low, middle, high), strict=True)
    ]
    orders = {3: upper, 9: high}
    costs = {
        ratio: float((ratio * np.maximum(actual - order, 0) + np.maximum(order - actual, 0))[scored].sum()) / sold
        for ratio, order in orders.items()
    }
    count = np.maximum(scored.sum(axis=1), 1)
    squared = np.where(scored, (middle - actual) ** 2, 0.0).sum(axis=1) / count
    usable = scale > 0
    return {
        "WAPE": float(np.abs(middle - actual)[scored].sum()) / sold,
        "WQL": float(np.mean(pinball)),
        "RMSSE": float(np.sqrt(squared[usable] / scale[usable]).mean()),
        "in 80 %": float(((actual >= low) & (actual <= high))[scored].mean()),
        "cost 3:1": costs[3],
        "cost 9:1": costs[9],
        "cost": (costs[3] + costs[9]) / 2,
    }


def coverage_by_class(result: Backtest, classes: NDArray[np.int64]) -> list[float]:
    """Return the share inside of the 80 % interval for slow, middle and fast sellers."""
    return [coverage_of(result, classes == number) for number in np.unique(classes)]


def zero_shares(actual: Array, classes: NDArray[np.int64]) -> list[float]:
    """Return the share of scored cells [cutoff, horizon, series] without a sale, of slow, middle and fast sellers."""
    scored = ~np.isnan(actual)
    return [float((actual[..., c == classes] <= 0).sum() / scored[..., c == classes].sum()) for c in np.unique(classes)]


def coverage_of(result: Backtest, cells: NDArray[np.bool_]) -> float:
    """Return the share of some cells [cutoff, horizon, series] inside of the 80 % interval; NaN where none of them was scored."""
    quantiles = quantiles_of(result)
    inside = (result.actual >= quantiles[0]) & (result.actual <= quantiles[3])
    scored = ~np.isnan(result.actual) & cells
    return float(inside[scored].mean()) if scored.any() else float("nan")


def season_cells(inputs: ForecastInputs, cutoffs: list[int], horizon: int) -> dict[str, NDArray[np.bool_]]:
    """Return the cells [cutoff, horizon, series] of Christmas, of big promotions in other weeks, and of the rest.

    Christmas is a step with a day from 15 to 31 December. A promotion is big from a discount or a price of BIG below the usual one; where no discount
    is known, each promotion, feature or display is.
    """
    shape = (len(inputs.dates), inputs.units.shape[1])
    christmas = np.broadcast_to(is_christmas(inputs.dates, inputs.freq)[:, None], shape)
    flags = inputs.flags
    depth = "discount" if "discount" in flags else ""
    promoted = np.zeros(shape, bool)
    for name in (depth,) if depth else [name for name in PROMOTED if name in flags]:
        promoted |= np.asarray(flags[name]) >= (BIG if depth else 0.5)
    for price in inputs.prices.values():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            promoted |= np.asarray(price) <= (1 - BIG) * np.nanmedian(price, axis=0)
    steps = np.array(cutoffs)[:, None] + np.arange(horizon)
    classes = {"Christmas": christmas, "promotions": promoted & ~christmas, "rest": ~promoted & ~christmas}
    return {name: cells[steps] for name, cells in classes.items()}


BIG = 0.2  # discount of a big promotion
PROMOTED = ("promotion", "feature", "display", "mailer")


def mean_ratios(
    by_panel: Mapping[str, Mapping[str, Mapping[str, float]]], naives: tuple[str, ...]
) -> dict[str, dict[str, float]]:
    """Return by method and metric the mean over panels of its error over that of the better naive; methods of all panels only."""
    methods = set.intersection(*(set(errors) for errors in by_panel.values()))
    return {
        method: {
            metric: float(
                np.mean([errors[method][metric] / best(errors, naives, metric) for errors in by_panel.values()])
            )
            for metric in METRICS
        }
        for method in sorted(methods)
    }


def best(errors: Mapping[str, Mapping[str, float]], methods: tuple[str, ...], metric: str) -> float:
    """Return the smallest error of some methods."""
    return min(errors[method][metric] for method in methods if method in errors)
