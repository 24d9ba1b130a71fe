"""Forecasts of units per series and period, measured against the sales that came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import pandas as pd

from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import DataRefused
from d2c_mlops.models.core.charter import Charter
from d2c_mlops.models.core.contract import Contract
from d2c_mlops.models.core.model import Model
from d2c_mlops.models.forecasting.baselines import last_year, seasonal_naive, weekday_mean
from d2c_mlops.models.forecasting.panel import COLUMNS, Panel, alive, panel_of
from d2c_mlops.models.forecasting.periods import LENGTH, Freq, day_before, steps_after
from d2c_mlops.registry.evaluators import (
    BASELINE,
    CAME,
    FACTOR,
    MODEL,
    EvaluationTrial,
    Evaluator,
    Metric,
    answers_of,
    apart,
    multiplied,
)

CUTOFFS = 3  # one horizon apart, the last of them one horizon before as_of
HISTORY = 1096  # days of sales that the baselines may look back
LEAST: dict[Freq, int] = {"D": 28, "W": 8, "M": 6}  # periods on sale below which a series is not measured
KEYS = tuple(name for names in COLUMNS.values() for name in names)


class DemandEvaluator(Evaluator):
    """Units per series and day, week or month."""

    name = "demand"
    row = ("cutoff", "step", "series")
    world = "three times the sales"

    def knows(self, contract: Contract) -> bool:
        return contract.frequency in LEAST and bool(_date(contract) and _answer(contract))

    def population(self, params: Mapping[str, Any]) -> str:
        return f"series by {params.get('by') or 'key'}"

    def metrics(self, charter: Charter, params: Mapping[str, Any]) -> Sequence[Metric]:
        return (Metric("wape", wape), Metric("mae", mae, unit="units"), Metric("rmse", rmse, unit="units"))

    def disguise(self, tables: Tables) -> Tables:
        """Everything sold and returned is three times as much."""
        return multiplied(tables, ("order_lines", "sales_totals", "orders"), FACTOR, but=("unit_price", "list_price"))

    def observe(self, trial: EvaluationTrial) -> pd.DataFrame:
        contract = trial.contract
        freq = next(each for each in LEAST if each == contract.frequency)
        days, found = LENGTH[freq], []
        horizon = contract.horizon or apart(lambda: _reach(trial, days))
        spacing = trial.spacing or horizon
        horizon = min(horizon, spacing)  # what comes after as_of is not known
        by = _by(trial, freq)
        came = panel_of(trial.tables, trial.as_of, by, freq, HISTORY)
        for back in range(trial.cutoffs(CUTOFFS), 0, -1):
            cutoff = day_before(trial.as_of, back * spacing, freq)
            known = _known(trial.tables, cutoff, by, freq)
            if known is None:
                continue
            try:
                model = trial.fitted(cutoff)
            except DataRefused:
                if back == 1:
                    raise
                continue
            found.append(_observed(model, trial, cutoff, horizon, known, came))
        if not found:
            raise DataRefused(
                f"no series was on sale for {LEAST[freq]} periods {spacing * days} days before {trial.as_of}, "
                "so there is nothing to measure on",
                next="ingest older sales, or choose a shorter horizon",
            )
        return pd.concat(found, ignore_index=True)


def wape(seen: pd.DataFrame, column: str) -> float:
    """Return absolute errors per unit sold."""
    total = float(seen[CAME].abs().sum())
    return float((seen[column] - seen[CAME]).abs().sum()) / total if total else float("nan")


def mae(seen: pd.DataFrame, column: str) -> float:
    """Return the mean absolute error in units."""
    return float((seen[column] - seen[CAME]).abs().mean())


def rmse(seen: pd.DataFrame, column: str) -> float:
    """Return the root of the mean squared error in units."""
    return float(np.sqrt(((seen[column] - seen[CAME]) ** 2).mean()))


def _observed(
    model: Model, trial: EvaluationTrial, cutoff: date, horizon: int, known: Panel, came: Panel
) -> pd.DataFrame:
    """Return forecasts, baselines and sales of every series that was on sale at a cutoff, for each period after it."""
    series = known.series
    shape = (horizon, len(series))
    rows = pd.MultiIndex.from_product([range(1, horizon + 1), series], names=["step", "series"])
    first = int((came.dates <= np.datetime64(known.as_of, "D")).sum())
    place = pd.Index(came.series).get_indexer(pd.Index(series))
    sold = came.came(first, horizon)[:, place]
    baselines = {"seasonal_naive": seasonal_naive, "weekday_mean_8w": weekday_mean, "last_year": last_year}
    answers = {name: method(known, horizon) for name, method in baselines.items()}
    values = {BASELINE + name: units for name, units in answers.items() if units is not None}
    frame = pd.DataFrame({name: np.broadcast_to(each, shape).ravel() for name, each in values.items()}, index=rows)
    frame.insert(0, CAME, sold.ravel())
    frame.insert(1, MODEL, _asked(model, trial, cutoff, horizon, known).reindex(rows).to_numpy())
    frame = frame[frame[CAME].notna()]  # what came in a gap of totals is not known
    return frame.reset_index().assign(cutoff=cutoff.isoformat())


def _asked(model: Model, trial: EvaluationTrial, cutoff: date, horizon: int, known: Panel) -> pd.Series[float]:
    """Return what a model answers to its own records, by step and series."""
    contract = model.contract
    when = _date(contract)
    records = model.records(trial.tables.before(cutoff), cutoff).reset_index(drop=True)
    step = steps_after(known.as_of, pd.to_datetime(records[when]).to_numpy(), known.freq)
    inside = (step >= 1) & (step <= horizon)
    records, step = records[inside], step[inside]
    values = answers_of(model, records, _answer(contract))
    index = pd.MultiIndex.from_arrays([step, records[contract.key].astype(str)], names=["step", "series"])
    answered = pd.Series(values, index=index)
    return answered[~index.duplicated()]


def _known(tables: Tables, cutoff: date, by: str, freq: Freq) -> Panel | None:
    """Return the series on sale at a cutoff as they were known then; None where there are none."""
    try:
        panel = panel_of(tables.before(cutoff), cutoff, by, freq, HISTORY)
    except DataRefused:
        return None
    scored = alive(panel, LEAST[freq])
    return panel.only(scored) if scored.any() else None


def _by(trial: EvaluationTrial, freq: Freq) -> str:
    """Return the columns that name a series: the parameter `by`, the key, else those whose values the records carry."""
    by = trial.params.get("by")
    if isinstance(by, str) and by:
        return by
    key = trial.contract.key
    if key in KEYS:
        return key
    asked = apart(lambda: set(trial.fitted(trial.as_of).records(trial.tables, trial.as_of)[key].astype(str)))
    for column in KEYS:
        try:
            names = set(panel_of(trial.tables, trial.as_of, column, freq, HISTORY).series)
        except DataRefused:
            continue
        if asked and len(asked & names) >= 0.5 * len(asked):
            return column
    raise DataRefused(
        f"the series {', '.join(sorted(asked)[:3])} are not found in the sales, so nothing tells what came of them",
        next="give the model a parameter `by` that names the columns of its series",
    )


def _reach(trial: EvaluationTrial, days: int) -> int:
    """Return the periods that the records of a model without a horizon reach ahead."""
    model = trial.fitted(trial.as_of)
    last = pd.to_datetime(model.records(trial.tables, trial.as_of)[_date(model.contract)]).max()
    return max(1, ((last - pd.Timestamp(trial.as_of)).days + days - 1) // days)


def _date(contract: Contract) -> str:
    found = [field.name for field in contract.input_fields if field.kind == "date"]
    return found[0] if len(found) == 1 else ""


def _answer(contract: Contract) -> str:
    units = [field.name for field in contract.output_fields if field.kind == "number" and field.unit == "units"]
    return "forecast" if "forecast" in units else units[0] if len(units) == 1 else ""
