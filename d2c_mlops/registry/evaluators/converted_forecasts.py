"""Evaluator of converted forecasts: trains without the last periods of the series and predicts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from d2c_mlops.errors import DataRefused
from d2c_mlops.models.converted.statistical import Forecast, in_sample
from d2c_mlops.models.core.charter import Charter
from d2c_mlops.models.core.contract import Contract
from d2c_mlops.models.core.model import Model
from d2c_mlops.registry.evaluators import (
    ACTUAL,
    BASELINE,
    MODEL,
    REPORTED,
    EvaluationTrial,
    Evaluator,
    Metric,
    in_own_process,
    predict_shuffled,
)
from d2c_mlops.registry.evaluators.demand import mae, rmse, wape
from d2c_mlops.registry.evaluators.forecast_series import FullSeries, full_series_of, naive_forecasts, training_series
from d2c_mlops.registry.evaluators.step_recording import Change, Steps, keep_step_value

CUTOFFS = 3  # the last of them one horizon before the end of the series
ANSWER, STEP = "prediction", "step"
IN_SAMPLE = "mean_absolute_error_in_sample"  # metric that evaluate() of a converted forecast reports
SHORTER = "forecast fewer periods in the notebook, or provide a longer series"


class ForecastEvaluator(Evaluator):
    """The next periods of one series, by the fitted statsmodels, pmdarima or Prophet model of a notebook."""

    name = "converted forecast"
    row = ("cutoff", "period", "step")
    world = "three times the series"
    general, own_files = True, True

    def knows(self, contract: Contract) -> bool:
        return is_forecast(contract)

    def population(self, params: Mapping[str, Any]) -> str:
        return "steps ahead"

    def horizon(self, contract: Contract) -> int:
        return next(int(field.le or 0) for field in contract.input_fields if field.name == STEP)

    def metrics(self, charter: Charter, params: Mapping[str, Any]) -> Sequence[Metric]:
        return (Metric("wape", wape), Metric("mae", mae), Metric("rmse", rmse), Metric(IN_SAMPLE, mae, judged_as="mae"))

    def observe(self, trial: EvaluationTrial) -> pd.DataFrame:
        steps, horizon = Steps.of(trial.cls), self.horizon(trial.contract)
        whole, reported = in_own_process(lambda: _train_on_all(trial, steps, keep_step_value))
        if trial.disguised:
            plain = whole
            whole, _ = in_own_process(lambda: _train_on_all(trial, steps, plain.multiply))
            if len(whole.numbers) == len(plain.numbers) and np.allclose(whole.numbers, plain.numbers, equal_nan=True):
                raise DataRefused("no step returns the numbers of its series, so they cannot be changed")
            whole = whole.as_multiplied_from(plain)
        backwards = _holdout_lengths(len(whole.numbers), trial.spacing or horizon)
        frames = [
            in_own_process(partial(_measure_holdout, trial, steps, whole, back, horizon, back == backwards[-1]))
            for back in backwards[-trial.cutoffs(CUTOFFS) :]
        ]
        rows = pd.concat(frames, ignore_index=True).drop_duplicates(list(self.row), keep="last")
        return rows if trial.disguised else pd.concat([rows, reported], ignore_index=True)


def is_forecast(contract: Contract) -> bool:
    """Return whether the only input of a record is the number of steps ahead."""
    inputs = [field for field in contract.input_fields if field.name != contract.key]
    steps = len(inputs) == 1 and inputs[0].name == STEP and inputs[0].unit == "periods" and bool(inputs[0].le)
    return steps and ANSWER in (field.name for field in contract.output_fields)


def _holdout_lengths(periods: int, horizon: int) -> list[int]:
    """Return how many of the last periods are held out at each cutoff, most first; half of the series remains."""
    most = max(horizon, min(CUTOFFS * horizon, periods // 2))
    return sorted({round(back) for back in np.linspace(horizon, most, CUTOFFS)}, reverse=True)


def _train_on_all(trial: EvaluationTrial, steps: Steps, change: Change) -> tuple[FullSeries, pd.DataFrame]:
    """Train on all periods; return the series, and the rows that evaluate() uses."""
    with steps.watched(change) as recorded:
        trial.fitted(trial.as_of)
    if not recorded.results:
        raise DataRefused(f"fit() does not call {steps.train}()", next="convert the notebook again")
    if not recorded.fitted:
        raise DataRefused(
            f"{steps.train}() does not call forecast_of(), so its series is not known",
            next="convert the notebook again",
        )
    past, expected = in_sample(recorded.fitted[-1])
    frame = pd.DataFrame({ACTUAL: past, MODEL: expected}).dropna()
    nowhere = dict.fromkeys(ForecastEvaluator.row)
    return full_series_of(recorded), frame.assign(**nowhere, **{REPORTED: True})


def _measure_holdout(
    trial: EvaluationTrial, steps: Steps, full_series: FullSeries, holdout_length: int, horizon: int, needed: bool
) -> pd.DataFrame:
    """Train without the last periods; return their forecasts with the actual values.

    The frame is empty if the training fails with so few periods; with `needed` this raises DataRefused.
    """
    length, why = len(full_series.numbers) - holdout_length, ""
    if length < 2:
        raise DataRefused(
            f"its series has {len(full_series.numbers)} periods, too few to hold out the last {holdout_length}",
            next=SHORTER,
        )
    for change in full_series.holdout_changes(holdout_length):
        with steps.watched(change) as recorded:
            try:
                model = trial.fitted(trial.as_of)
            except Exception as err:
                why = f"it cannot be trained without the last {holdout_length} of its {len(full_series.numbers)} periods: {type(err).__name__}: {err}"
                continue
        values, dates = training_series(recorded.fitted[-1])
        end, differs = full_series.end_of(values, dates, length)
        if differs:
            raise DataRefused(
                f"its series changes when the last {holdout_length} periods are held out: {differs}, so a step before the fit uses later "
                "periods",
                next="compute each period only from its own rows, or write an Evaluator",
            )
        if end is None:
            why = f"its series cannot be identified when the last {holdout_length} periods are held out"
        elif end > length:
            why = f"{steps.train}() reads its data directly instead of with its steps, so no period can be held out"
        else:
            break
    else:
        return _refuse_or_skip(why, holdout_length, needed)
    return _compare_forecasts(
        model, recorded.results[-1]["model"], full_series, end, min(horizon, trial.spacing or horizon)
    )


def _refuse_or_skip(why: str, holdout_length: int, needed: bool) -> pd.DataFrame:
    """Raise DataRefused, or return no rows if the training fails with so few periods and is not needed."""
    if not why:
        why = (
            "no step returns a table with dates or the series that the model is fitted on, so no period can be held out"
        )
    elif why.startswith("it cannot be trained") and not needed:
        return pd.DataFrame()
    raise DataRefused(
        why,
        next=SHORTER if why.startswith("it cannot be trained") else "write an Evaluator in a package of [d2c] packages",
    )


def _compare_forecasts(model: Model, table: Any, whole: FullSeries, end: int, horizon: int) -> pd.DataFrame:
    steps = np.arange(1, horizon + 1)
    key = model.contract.key
    answers = predict_shuffled(model, pd.DataFrame({key: [f"ahead-{step}" for step in steps], STEP: steps}), ANSWER)
    if isinstance(table, Forecast):
        fitted_values = np.asarray(table.values)[:horizon]
        if not np.allclose(answers, fitted_values) and np.allclose(np.sort(answers), np.sort(fitted_values)):
            raise DataRefused(
                "predict() returns the forecasts of its fitted model for other steps than requested",
                next="correct predict()",
            )
    last = min(end + horizon, len(whole.numbers))
    count = last - end
    names = whole.names
    frame = pd.DataFrame({"cutoff": names[end - 1], "period": names[end:last], STEP: steps[:count].astype(str)})
    frame[ACTUAL], frame[MODEL] = whole.numbers[end:last], answers[:count]
    for name, values in naive_forecasts(whole, end, count).items():
        frame[BASELINE + name] = values
    return frame[frame[ACTUAL].notna()].assign(**{REPORTED: False})
