"""Evaluator of converted notebooks: measures them on holdout records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from sklearn import metrics as sk

from d2c_mlops.errors import D2CError, DataRefused
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
)
from d2c_mlops.registry.evaluators.converted_forecasts import is_forecast
from d2c_mlops.registry.evaluators.forecast_series import naive_forecasts_by_series
from d2c_mlops.registry.evaluators.outcome_column import Outcome, target_column, transform_column
from d2c_mlops.registry.evaluators.step_recording import Steps, functions_called, row_dates
from d2c_mlops.registry.evaluators.training_rows import PreparedRows, prepared_training_rows

SUFFIX = "_on_training_data"  # suffix of metrics of a notebook without a holdout
FOLDS = ((2000, 5), (20000, 3))  # (records, folds): above the last limit the model is trained once
ANSWER, FEWEST = "prediction", 10  # records below which none are held back
LATER, PARTS = (
    0.4,
    3,
)  # share of the latest records with dates that is the holdout, and the number of its parts; a model is trained before each part
NEXT = "write an Evaluator in a package of [d2c] packages"


class ConvertedEvaluator(Evaluator):
    """Classes and numbers that a converted notebook predicts for raw records."""

    name = "converted notebook"
    row = ("record",)
    world = "other outcomes in the records"
    general, own_files = True, True

    def knows(self, contract: Contract) -> bool:
        return ANSWER in (field.name for field in contract.output_fields) and not is_forecast(contract)

    def population(self, params: Mapping[str, Any]) -> str:
        return "records"

    def metrics(self, charter: Charter, params: Mapping[str, Any]) -> Sequence[Metric]:
        plain = charter.metric.removesuffix(SUFFIX)
        figures = [
            Metric("accuracy", _score_with(sk.accuracy_score), False),
            Metric("r2", _score_with(sk.r2_score), False),
            Metric("mean_absolute_error", _score_with(sk.mean_absolute_error)),
            Metric("mean_squared_error", _score_with(sk.mean_squared_error)),
            Metric("roc_auc", _score_with(sk.roc_auc_score), False),
        ]
        figures += [replace(metric, name=metric.name + SUFFIX) for metric in figures]
        return sorted(figures, key=lambda metric: metric.name != plain)

    def observe(self, trial: EvaluationTrial) -> pd.DataFrame:
        learning = in_own_process(lambda: _train_on_all(trial))
        records, outcome, reported = learning.records, learning.outcome, learning.reported
        inputs = [name for name in trial.contract.inputs.columns if name != trial.contract.key]
        if trial.disguised:
            records = outcome.disguised(records)
        usable = records[outcome.known(records)]
        parts = learning.rows or ConvertedParts.of(trial.cls)
        frames = []
        for training, holdout in _holdout_splits(usable, inputs, outcome.column):
            frames.append(in_own_process(partial(_measure_holdout, trial, parts, training, holdout, outcome)))
        return pd.concat(frames if trial.disguised else [*frames, reported], ignore_index=True)


@dataclass(frozen=True)
class ConvertedParts:
    """The functions of a converted module that train and that load the records."""

    steps: Steps
    load: str

    @classmethod
    def of(cls, model: type[Model]) -> ConvertedParts:
        """Return the functions that fit() and records() call."""
        load = loading_function(model)
        if load is None:
            raise DataRefused("only the training creates its records", next=NEXT)
        return cls(Steps.of(model), load)

    @contextmanager
    def loading(self, records: pd.DataFrame) -> Iterator[list[int]]:
        """Let the training load only these records; the list grows with each load."""
        loads: list[int] = []
        loaded = records.reset_index(drop=True) if _has_integer_index(records) else records

        def load(*args: Any, **kwargs: Any) -> pd.DataFrame:
            loads.append(len(records))
            return loaded.copy()

        space = self.steps.namespace
        before = space[self.load]
        space[self.load] = load
        try:
            yield loads
        finally:
            space[self.load] = before


def loading_function(model: type[Model]) -> str | None:
    """Return the function that loads the raw records: records() calls it, fit() does not; None if there is none."""
    trains = functions_called(model.fit)
    return next((name for name in functions_called(model.records) if name not in trains), None)


@dataclass(frozen=True)
class TrainingInputs:
    """Input of a training on all records: records, outcome, and the rows that evaluate() uses."""

    records: pd.DataFrame
    outcome: Outcome
    reported: pd.DataFrame
    rows: PreparedRows | None  # if the steps return the records; None if a function loads them


def _train_on_all(trial: EvaluationTrial) -> TrainingInputs:
    """Train on all records: those that a function loads, else those that a step returns."""
    steps = Steps.of(trial.cls)
    with steps.watched() as recorded:
        model = trial.fitted(trial.as_of)
    if not recorded.results:
        raise DataRefused(f"fit() does not call {steps.train}()", next="convert the notebook again")
    result = recorded.results[-1]
    inputs = [name for name in model.contract.inputs.columns if name != model.contract.key]
    why: DataRefused | None = None
    if (load := loading_function(trial.cls)) is not None:
        try:
            outcome = target_column(result["records"], result["answers"], inputs, load)
            return TrainingInputs(result["records"], outcome, _reported_rows(result, outcome), None)
        except DataRefused as err:
            why = err
    try:
        rows = prepared_training_rows(recorded, steps, inputs)
    except DataRefused as err:
        raise why or err from None
    return TrainingInputs(rows.frame(), rows.outcome, _reported_rows(result, rows.outcome), rows)


def _holdout_splits(
    records: pd.DataFrame, inputs: Sequence[str], outcome: str
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Yield training records and holdout records: the holdout is the latest records if they have dates, else a fold."""
    if len(records) < FEWEST:
        raise DataRefused(
            f"{len(records)} records with an outcome are too few for a holdout", next="provide more records"
        )
    later = list(_splits_by_date(records, _record_times(records.drop(columns=outcome))))
    yield from later
    if later:
        return
    fold = _fold_numbers(records, inputs)
    for number in range(int(fold.max()) + 1 if fold.max() > 0 else 1):
        yield records[fold != number], records[fold == number]


def _splits_by_date(
    records: pd.DataFrame, days: np.ndarray[Any, Any] | None
) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Yield the records up to a time and those between it and the next time; nothing without dates."""
    if days is None:
        return
    number = days.astype("int64")
    edges = np.unique(np.quantile(number, np.linspace(1 - LATER, 1, PARTS + 1), method="lower"))
    for low, high in pairwise(edges.tolist()):
        training, holdout = number <= low, (number > low) & (number <= high)
        if training.sum() >= FEWEST and holdout.any():
            yield records[training], records[holdout]


def _record_times(records: pd.DataFrame) -> np.ndarray[Any, Any] | None:
    """Return the time of each record as datetime64; None unless exactly one column has a time for every record."""
    candidates = []
    for name in records.columns:
        times = row_dates(records[[name]].reset_index(drop=True))
        if times is not None and times.notna().all() and times.nunique() >= FEWEST:
            candidates.append(times)
    ordered = [times for times in candidates if times.is_monotonic_increasing or times.is_monotonic_decreasing]
    chosen = ordered[0] if ordered else candidates[0] if len(candidates) == 1 else None
    return None if chosen is None else chosen.to_numpy()


def _fold_numbers(records: pd.DataFrame, inputs: Sequence[str]) -> np.ndarray[Any, Any]:
    """Return the fold of each record by its content, so that equal records share a fold; with one fold, 0 is the holdout."""
    inputs_only = records[[name for name in inputs if name in records]]
    digest = pd.util.hash_pandas_object(inputs_only.astype(str), index=False).to_numpy() >> np.uint64(8)
    number = next((folds for limit, folds in FOLDS if len(records) <= limit), 5)
    fold = (digest % np.uint64(number)).astype(int)
    if len(np.unique(fold)) < number:
        raise DataRefused("its records are too similar for a holdout")
    return fold if len(records) <= FOLDS[-1][0] else np.where(fold == 0, 0, -1)


def _measure_holdout(
    trial: EvaluationTrial,
    parts: ConvertedParts | PreparedRows,
    training: pd.DataFrame,
    holdout: pd.DataFrame,
    outcome: Outcome,
) -> pd.DataFrame:
    """Return the predictions for holdout records with their actual outcomes."""
    with parts.loading(training) as loads:
        try:
            model = trial.fitted(trial.as_of)
        except Exception as err:
            raise DataRefused(
                f"it cannot be trained on {len(training)} of its {len(training) + len(holdout)} records: {type(err).__name__}: {err}",
                next="do not depend on the number or the position of rows in the notebook, or write an Evaluator",
            ) from err
    if not loads:
        raise DataRefused(
            f"{parts.steps.train}() reads its data directly instead of from {parts.load}(), so there can be no holdout",
            next=f"let {parts.steps.train}() get its records from {parts.load}(), or write an Evaluator",
        )
    frame = pd.DataFrame({"record": _record_names(holdout, outcome), ACTUAL: outcome.values(holdout)})
    frame[MODEL] = outcome.coded(_predict_holdout(model, holdout, training))
    typical = outcome.values(training)
    if outcome.classes:
        values, counts = np.unique(typical, return_counts=True)
        frame[BASELINE + "most frequent class"] = values[counts.argmax()]
    else:
        for name, values in {
            "mean": typical.mean(),
            **_numeric_baselines(training, holdout, outcome, list(trial.contract.inputs.columns)),
        }.items():
            frame[BASELINE + name] = values
    return frame.assign(**{REPORTED: False})


def _numeric_baselines(
    training: pd.DataFrame, holdout: pd.DataFrame, outcome: Outcome, inputs: Sequence[str]
) -> dict[str, Any]:
    """Return baselines for numbers: the input column that is nearest to the outcome, and the past of dated records."""
    actual, baselines = outcome.values(training), dict[str, Any]()
    far = {
        name: float(np.nanmean(np.abs(transform_column(training[name], outcome.form) - actual)))
        for name in training.columns
        if name in inputs and pd.api.types.is_numeric_dtype(training[name].dtype) and training[name].notna().any()
    }
    nearest = min(far, key=lambda name: far[name], default="")
    if nearest and far[nearest] < np.abs(actual - actual.mean()).mean():
        baselines["nearest column, as it is"] = transform_column(holdout[nearest], outcome.form)
    days = _record_times(pd.concat([training, holdout]).drop(columns=outcome.column))
    if days is None or not days[: len(training)].max() < days[len(training) :].min():
        return baselines
    return baselines | naive_forecasts_by_series(training, holdout, days, outcome)


def _has_integer_index(records: pd.DataFrame) -> bool:
    return bool(pd.api.types.is_integer_dtype(records.index.dtype))


def _record_names(records: pd.DataFrame, outcome: Outcome) -> list[str]:
    """Return a name for each record by its content; equal records are numbered."""
    digest = pd.util.hash_pandas_object(records.drop(columns=outcome.column).astype(str), index=False)
    number = digest.groupby(digest.to_numpy()).cumcount()
    return [f"{name:016x}-{place}" for name, place in zip(digest, number, strict=True)]


def _predict_holdout(model: Model, holdout: pd.DataFrame, training: pd.DataFrame) -> np.ndarray[Any, Any]:
    """Return the predictions for raw records in a random order; None for records with missing inputs."""
    contract = model.contract
    answers: np.ndarray[Any, Any] = np.full(len(holdout), None, dtype=object)
    columns = [name for name in contract.inputs.columns if name != contract.key]
    needed = [name for name in columns if name in holdout and not contract.inputs.columns[name].nullable]
    usable = holdout[needed].notna().all(axis=1).to_numpy()
    for fewer in (False, True):  # the encoder may refuse a category that only holdout records have
        if fewer:
            for name in holdout[columns].select_dtypes(exclude="number").columns:
                usable &= holdout[name].isin(training[name].unique()).to_numpy()
        places = np.random.default_rng(0).permutation(np.flatnonzero(usable))
        records = holdout.iloc[places][columns].reset_index(drop=True)
        records.insert(0, contract.key, [f"held-{number}" for number in range(len(records))])
        records = contract.check_inputs(records[list(contract.inputs.columns)])
        try:
            predictions = contract.check_outputs(model.predict(records.copy()))
        except (D2CError, ValueError, KeyError):
            if fewer:
                raise
            continue
        if len(predictions) != len(records):
            raise DataRefused(f"predict() returned {len(predictions)} predictions for {len(records)} records")
        answers[places] = predictions[ANSWER].astype(object).to_numpy()
        break
    return answers


def _reported_rows(result: Mapping[str, Any], outcome: Outcome) -> pd.DataFrame:
    """Return the notebook's own holdout rows, which evaluate() uses: predictions of its estimator with the outcomes."""
    predicted = np.asarray(result["model"].predict(result["features"])).ravel()
    frame = pd.DataFrame(
        {ACTUAL: outcome.coded(np.asarray(result["answers"]).ravel()), MODEL: outcome.coded(predicted)}
    )
    return frame.assign(record=[f"notebook-{number}" for number in range(len(frame))], **{REPORTED: True})


def _score_with(metric: Callable[..., Any]) -> Callable[[pd.DataFrame, str], float]:
    def score(observations: pd.DataFrame, column: str) -> float:
        try:
            return float(metric(observations[ACTUAL], observations[column]))
        except ValueError:  # a classification metric for numbers, or only one class
            return float("nan")

    return score
