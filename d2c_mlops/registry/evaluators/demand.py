"""Evaluator of demand: forecasts of units per series and period against the actual sales."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd

from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import DataRefused
from d2c_mlops.models.core.charter import Charter
from d2c_mlops.models.core.contract import Contract
from d2c_mlops.models.core.model import Model
from d2c_mlops.models.forecasting.baselines import last_year, seasonal_naive, weekday_mean
from d2c_mlops.models.forecasting.panel import COLUMNS, Panel, is_selling, panel_of
from d2c_mlops.models.forecasting.periods import LENGTH, Freq, day_before, freq_of, steps_after
from d2c_mlops.models.forecasting.plans.leaking_flags import measured_events, without_events
from d2c_mlops.models.forecasting.plans.stock_outs import stock_outs, without_stock_outs
from d2c_mlops.registry.evaluators import (
    ACTUAL,
    BASELINE,
    CHAMPION,
    FACTOR,
    MODEL,
    EvaluationTrial,
    Evaluator,
    Metric,
    in_own_process,
    multiply_numbers,
    predict_shuffled,
)

CUTOFFS = 3  # one horizon apart, the last of them one horizon before as_of
HISTORY = 1096  # days of sales that the baselines may look back
LEAST_AFTER = 3  # periods after a change, of which the first ones are learned from and the others measured
LEAST: dict[Freq, int] = {"D": 28, "W": 8, "M": 6}  # periods on sale below which a series is not measured
KEYS = tuple(name for names in COLUMNS.values() for name in names)


class DemandEvaluator(Evaluator):
    """Units per series and day, week or month."""

    name = "demand"
    row = ("cutoff", "step", "series")
    world = "three times the sales"

    def knows(self, contract: Contract) -> bool:
        return contract.frequency in LEAST and bool(_date_field(contract) and _forecast_field(contract))

    def population(self, params: Mapping[str, Any]) -> str:
        return f"series by {params.get('by') or 'key'}"

    def metrics(self, charter: Charter, params: Mapping[str, Any]) -> Sequence[Metric]:
        return (Metric("wape", wape), Metric("mae", mae, unit="units"), Metric("rmse", rmse, unit="units"))

    def disguise(self, tables: Tables) -> Tables:
        """Return tables in which all sold and returned quantities are multiplied by three."""
        return multiply_numbers(
            tables, ("order_lines", "sales_totals", "orders"), FACTOR, excluded=("unit_price", "list_price")
        )

    def days_back(self, contract: Contract) -> int:
        return CUTOFFS * self.horizon(contract) * LENGTH[freq_of(contract.frequency)]

    def without_change(self, observations: pd.DataFrame, contract: Contract, since: date) -> pd.DataFrame:
        freq = freq_of(contract.frequency)
        spans = [
            date.fromisoformat(cutoff) < since and steps_after(date.fromisoformat(cutoff), _day(since), freq)[0] <= step
            for cutoff, step in zip(observations["cutoff"], observations["step"], strict=True)
        ]
        return observations[~np.array(spans, bool)]

    def observe_change(self, trial: EvaluationTrial, champion: Model, known_until: date, since: date) -> pd.DataFrame:
        trial, freq = _without_leaking_events(trial), freq_of(trial.contract.frequency)
        first = max(since - timedelta(days=1), known_until)
        count = int(steps_after(first, _day(trial.as_of), freq)[0])
        if count < LEAST_AFTER:
            what = f"{max(count, 0)} of the periods that the champion does not know lie after the change of {since}, and {LEAST_AFTER} are needed"
            raise DataRefused(what, next="train again when more sales after the change are known")
        horizon = count - count // LEAST_AFTER
        cutoff = day_before(trial.as_of, horizon, freq)
        by = _series_columns(trial, freq)
        sold = panel_of(trial.tables, trial.as_of, by, freq, HISTORY)
        came = without_stock_outs(sold, stock_outs(trial.tables, sold, by))
        history = _history_at(trial.tables, cutoff, by, freq)
        if history is None:
            raise DataRefused(f"no series was on sale for {LEAST[freq]} periods on {cutoff}")
        horizon = min(horizon, trial.contract.horizon or horizon)
        frame = _measure_cutoff(trial.fitted(cutoff), trial, cutoff, horizon, history, came)
        standing = _model_forecasts(champion, trial, known_until, horizon, history)
        rows = pd.MultiIndex.from_frame(frame[["step", "series"]])
        days = np.datetime64(history.as_of, "D") + frame["step"].to_numpy() * np.timedelta64(LENGTH[freq], "D")
        return frame.assign(**{CHAMPION: standing.reindex(rows).to_numpy(), "day": days})

    def observe(self, trial: EvaluationTrial) -> pd.DataFrame:
        trial = _without_leaking_events(trial)
        contract = trial.contract
        freq = next(frequency for frequency in LEAST if frequency == contract.frequency)
        days, frames = LENGTH[freq], []
        horizon = contract.horizon or in_own_process(lambda: _periods_ahead(trial, days))
        spacing = trial.spacing or horizon
        horizon = min(horizon, spacing)  # there are no sales after as_of
        by = _series_columns(trial, freq)
        sold = panel_of(trial.tables, trial.as_of, by, freq, HISTORY)
        came = without_stock_outs(sold, stock_outs(trial.tables, sold, by))  # where stock was out, demand is not known
        for back in range(trial.cutoffs(CUTOFFS), 0, -1):
            cutoff = day_before(trial.as_of, back * spacing, freq)
            history = _history_at(trial.tables, cutoff, by, freq)
            if history is None:
                continue
            try:
                model = trial.fitted(cutoff)
            except DataRefused:
                if back == 1:
                    raise
                continue
            frames.append(_measure_cutoff(model, trial, cutoff, horizon, history, came))
        if not frames:
            raise DataRefused(
                f"no series was on sale for {LEAST[freq]} periods at {spacing * days} days before {trial.as_of}, "
                "so nothing can be measured",
                next="ingest older sales, or choose a shorter horizon",
            )
        return pd.concat(frames, ignore_index=True)


def wape(observations: pd.DataFrame, column: str) -> float:
    """Return the absolute errors per unit sold (WAPE)."""
    total = float(observations[ACTUAL].abs().sum())
    return float((observations[column] - observations[ACTUAL]).abs().sum()) / total if total else float("nan")


def mae(observations: pd.DataFrame, column: str) -> float:
    """Return the mean absolute error in units."""
    return float((observations[column] - observations[ACTUAL]).abs().mean())


def rmse(observations: pd.DataFrame, column: str) -> float:
    """Return the root of the mean squared error in units."""
    return float(np.sqrt(((observations[column] - observations[ACTUAL]) ** 2).mean()))


def _without_leaking_events(trial: EvaluationTrial) -> EvaluationTrial:
    """Return the trial without events that were measured only after their day."""
    measured = measured_events(trial.tables, trial.as_of)
    return replace(trial, tables=without_events(trial.tables, measured)) if measured else trial


def _day(day: date) -> np.ndarray[Any, np.dtype[np.datetime64]]:
    return np.array([day], "datetime64[D]")


def _measure_cutoff(
    model: Model, trial: EvaluationTrial, cutoff: date, horizon: int, history: Panel, sales: Panel
) -> pd.DataFrame:
    """Return forecasts, baselines and sales of every series that was on sale at a cutoff, for each period after it."""
    series = history.series
    shape = (horizon, len(series))
    rows = pd.MultiIndex.from_product([range(1, horizon + 1), series], names=["step", "series"])
    first = int((sales.dates <= np.datetime64(history.as_of, "D")).sum())
    place = pd.Index(sales.series).get_indexer(pd.Index(series))
    sold = sales.observed_units(first, horizon)[:, place]
    baselines = {"seasonal_naive": seasonal_naive, "weekday_mean_8w": weekday_mean, "last_year": last_year}
    answers = {name: method(history, horizon) for name, method in baselines.items()}
    values = {BASELINE + name: units for name, units in answers.items() if units is not None}
    frame = pd.DataFrame({name: np.broadcast_to(units, shape).ravel() for name, units in values.items()}, index=rows)
    frame.insert(0, ACTUAL, sold.ravel())
    frame.insert(1, MODEL, _model_forecasts(model, trial, cutoff, horizon, history).reindex(rows).to_numpy())
    frame = frame[frame[ACTUAL].notna()]  # the sales in a gap of totals are not known
    return frame.reset_index().assign(cutoff=cutoff.isoformat())


def _model_forecasts(
    model: Model, trial: EvaluationTrial, cutoff: date, horizon: int, history: Panel
) -> pd.Series[float]:
    """Return a model's forecasts for its own records of a day, by series and step after the end of a history."""
    contract = model.contract
    when = _date_field(contract)
    records = model.records(trial.tables.before(cutoff), cutoff).reset_index(drop=True)
    step = steps_after(history.as_of, pd.to_datetime(records[when]).to_numpy(), history.freq)
    inside = (step >= 1) & (step <= horizon)
    records, step = records[inside], step[inside]
    values = predict_shuffled(model, records, _forecast_field(contract))
    index = pd.MultiIndex.from_arrays([step, records[contract.key].astype(str)], names=["step", "series"])
    answered = pd.Series(values, index=index)
    return answered[~index.duplicated()]


def _history_at(tables: Tables, cutoff: date, by: str, freq: Freq) -> Panel | None:
    """Return the series on sale at a cutoff, with the data of that time; None if there are none."""
    try:
        panel = panel_of(tables.before(cutoff), cutoff, by, freq, HISTORY)
    except DataRefused:
        return None
    scored = is_selling(panel, LEAST[freq])
    return panel.select_series(scored) if scored.any() else None


def _series_columns(trial: EvaluationTrial, freq: Freq) -> str:
    """Return the columns that identify a series: the parameter `by`, the key, else those whose values are in the records."""
    by = trial.params.get("by")
    if isinstance(by, str) and by:
        return by
    key = trial.contract.key
    if key in KEYS:
        return key
    series = in_own_process(lambda: set(trial.fitted(trial.as_of).records(trial.tables, trial.as_of)[key].astype(str)))
    for column in KEYS:
        try:
            names = set(panel_of(trial.tables, trial.as_of, column, freq, HISTORY).series)
        except DataRefused:
            continue
        if series and len(series & names) >= 0.5 * len(series):
            return column
    raise DataRefused(
        f"the series {', '.join(sorted(series)[:3])} are not in the sales, so there are no actual values",
        next="give the model a parameter `by` that names the columns of its series",
    )


def _periods_ahead(trial: EvaluationTrial, days: int) -> int:
    """Return the number of periods ahead in the records of a model without a horizon."""
    model = trial.fitted(trial.as_of)
    last = pd.to_datetime(model.records(trial.tables, trial.as_of)[_date_field(model.contract)]).max()
    return max(1, ((last - pd.Timestamp(trial.as_of)).days + days - 1) // days)


def _date_field(contract: Contract) -> str:
    fields = [field.name for field in contract.input_fields if field.kind == "date"]
    return fields[0] if len(fields) == 1 else ""


def _forecast_field(contract: Contract) -> str:
    units = [field.name for field in contract.output_fields if field.kind == "number" and field.unit == "units"]
    return "forecast" if "forecast" in units else units[0] if len(units) == 1 else ""
