"""Forecasts of converted notebooks, trained without the last periods of their series and compared with them."""

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
    BASELINE,
    CAME,
    MODEL,
    REPORTED,
    EvaluationTrial,
    Evaluator,
    Metric,
    answers_of,
    apart,
)
from d2c_mlops.registry.evaluators.demand import mae, rmse, wape
from d2c_mlops.registry.evaluators.series import Whole, naive, series_of, whole_of
from d2c_mlops.registry.evaluators.steps import Change, Steps, unchanged

CUTOFFS = 3  # the last of them one horizon before the end of the series
ANSWER, STEP = "prediction", "step"
IN_SAMPLE = "mean_absolute_error_in_sample"  # that evaluate() of a converted forecast reports
SHORTER = "ask for fewer periods ahead in the notebook, or bring a longer series"


class ForecastEvaluator(Evaluator):
    """The next periods of one series, as a fitted statsmodels, pmdarima or Prophet model of a notebook says."""

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
        whole, reported = apart(lambda: _trained(trial, steps, unchanged))
        if trial.disguised:
            plain = whole
            whole, _ = apart(lambda: _trained(trial, steps, plain.multiplied))
            if len(whole.numbers) == len(plain.numbers) and np.allclose(whole.numbers, plain.numbers, equal_nan=True):
                raise DataRefused("no step hands out the numbers of its series, so they cannot be changed")
            whole = whole.times(plain)
        backwards = _backwards(len(whole.numbers), trial.spacing or horizon)
        found = [
            apart(partial(_observed, trial, steps, whole, back, horizon, back == backwards[-1]))
            for back in backwards[-trial.cutoffs(CUTOFFS) :]
        ]
        rows = pd.concat(found, ignore_index=True).drop_duplicates(list(self.row), keep="last")
        return rows if trial.disguised else pd.concat([rows, reported], ignore_index=True)


def is_forecast(contract: Contract) -> bool:
    """Return whether a record is a step ahead and nothing else."""
    inputs = [field for field in contract.input_fields if field.name != contract.key]
    steps = len(inputs) == 1 and inputs[0].name == STEP and inputs[0].unit == "periods" and bool(inputs[0].le)
    return steps and ANSWER in (field.name for field in contract.output_fields)


def _backwards(periods: int, horizon: int) -> list[int]:
    """Return how many of the last periods are held back at each cutoff, most first; a half of the series is left."""
    most = max(horizon, min(CUTOFFS * horizon, periods // 2))
    return sorted({round(back) for back in np.linspace(horizon, most, CUTOFFS)}, reverse=True)


def _trained(trial: EvaluationTrial, steps: Steps, change: Change) -> tuple[Whole, pd.DataFrame]:
    """Train on all periods; return the series, and the rows that evaluate() judges by."""
    with steps.watched(change) as seen:
        trial.fitted(trial.as_of)
    if not seen.results:
        raise DataRefused(f"fit() does not call {steps.train}()", next="convert the notebook again")
    if not seen.fitted:
        raise DataRefused(
            f"{steps.train}() makes no forecast by forecast_of(), so nothing tells which series it forecasts",
            next="convert the notebook again",
        )
    past, expected = in_sample(seen.fitted[-1])
    frame = pd.DataFrame({CAME: past, MODEL: expected}).dropna()
    nowhere = dict.fromkeys(ForecastEvaluator.row)
    return whole_of(seen), frame.assign(**nowhere, **{REPORTED: True})


def _observed(
    trial: EvaluationTrial, steps: Steps, whole: Whole, back: int, horizon: int, needed: bool
) -> pd.DataFrame:
    """Train without the last periods; return the forecasts of them beside what came.

    An empty frame where it cannot be trained on so few periods, unless that is `needed`.
    """
    known, why = len(whole.numbers) - back, ""
    if known < 2:
        raise DataRefused(
            f"its series has {len(whole.numbers)} periods, of which none are left without the last {back}", next=SHORTER
        )
    for change in whole.without(back):
        with steps.watched(change) as seen:
            try:
                model = trial.fitted(trial.as_of)
            except Exception as err:
                why = f"it cannot be trained without the last {back} of its {len(whole.numbers)} periods: {type(err).__name__}: {err}"
                continue
        values, dates = series_of(seen.fitted[-1])
        end, differs = whole.place(values, dates, known)
        if differs:
            raise DataRefused(
                f"its series is another one without the last {back} periods: {differs}, so a step before the fit learns from later "
                "periods",
                next="compute each period from its own rows alone, or write an Evaluator",
            )
        if end is None:
            why = f"its series cannot be recognised when the last {back} periods are held back"
        elif end > known:
            why = f"{steps.train}() reads its data by itself instead of by its steps, so no period can be held back from it"
        else:
            break
    else:
        return _nothing(why, back, needed)
    return _compared(model, seen.results[-1]["model"], whole, end, min(horizon, trial.spacing or horizon))


def _nothing(why: str, back: int, needed: bool) -> pd.DataFrame:
    """Refuse, or return no rows where it cannot be trained on so few periods and that is not needed."""
    if not why:
        why = "no step hands out a table with dates, or the series that it is fitted on, so no period can be held back"
    elif why.startswith("it cannot be trained") and not needed:
        return pd.DataFrame()
    raise DataRefused(
        why,
        next=SHORTER if why.startswith("it cannot be trained") else "write an Evaluator in a package of [d2c] packages",
    )


def _compared(model: Model, table: Any, whole: Whole, end: int, horizon: int) -> pd.DataFrame:
    steps = np.arange(1, horizon + 1)
    key = model.contract.key
    answers = answers_of(model, pd.DataFrame({key: [f"ahead-{step}" for step in steps], STEP: steps}), ANSWER)
    if isinstance(table, Forecast):
        own = np.asarray(table.values)[:horizon]
        if not np.allclose(answers, own) and np.allclose(np.sort(answers), np.sort(own)):
            raise DataRefused(
                "predict() gives what its fitted model says, but to other steps than were asked for",
                next="correct predict()",
            )
    last = min(end + horizon, len(whole.numbers))
    count = last - end
    names = whole.names
    frame = pd.DataFrame({"cutoff": names[end - 1], "period": names[end:last], STEP: steps[:count].astype(str)})
    frame[CAME], frame[MODEL] = whole.numbers[end:last], answers[:count]
    for name, values in naive(whole, end, count).items():
        frame[BASELINE + name] = values
    return frame[frame[CAME].notna()].assign(**{REPORTED: False})
