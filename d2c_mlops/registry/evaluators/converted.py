"""Converted notebooks, measured on records that the gate held back from their training."""

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
from d2c_mlops.registry.evaluators import BASELINE, CAME, MODEL, REPORTED, EvaluationTrial, Evaluator, Metric, apart
from d2c_mlops.registry.evaluators.forecasts import is_forecast
from d2c_mlops.registry.evaluators.outcomes import Outcome, in_form, outcome_of
from d2c_mlops.registry.evaluators.rows import PreparedRows, rows_in
from d2c_mlops.registry.evaluators.series import by_series
from d2c_mlops.registry.evaluators.steps import Steps, dates_of, functions_called

SUFFIX = "_on_training_data"  # of a metric that a notebook without held-out rows reports
FOLDS = ((2000, 5), (20000, 3))  # records up to which a model is trained that many times; above, once
ANSWER, FEWEST = "prediction", 10  # records below which none are held back
LATER, PARTS = (
    0.4,
    3,
)  # share of records with dates that are held back, the latest; parts of it, before each of which a model is trained
NEXT = "write an Evaluator in a package of [d2c] packages"


class ConvertedEvaluator(Evaluator):
    """Classes and numbers that a converted notebook predicts of raw records."""

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
        known = [
            Metric("accuracy", _of(sk.accuracy_score), False),
            Metric("r2", _of(sk.r2_score), False),
            Metric("mean_absolute_error", _of(sk.mean_absolute_error)),
            Metric("mean_squared_error", _of(sk.mean_squared_error)),
            Metric("roc_auc", _of(sk.roc_auc_score), False),
        ]
        known += [replace(metric, name=metric.name + SUFFIX) for metric in known]
        return sorted(known, key=lambda metric: metric.name != plain)

    def observe(self, trial: EvaluationTrial) -> pd.DataFrame:
        learning = apart(lambda: _whole(trial))
        records, outcome, reported = learning.records, learning.outcome, learning.reported
        inputs = [name for name in trial.contract.inputs.columns if name != trial.contract.key]
        if trial.disguised:
            records = outcome.disguised(records)
        usable = records[outcome.known(records)]
        parts = learning.rows or ConvertedParts.of(trial.cls)
        found = []
        for kept, out in _splits(usable, inputs, outcome.column):
            found.append(apart(partial(_observed, trial, parts, kept, out, outcome)))
        return pd.concat(found if trial.disguised else [*found, reported], ignore_index=True)


@dataclass(frozen=True)
class ConvertedParts:
    """The functions of a converted module that train and load the records, by name, and where they are looked up."""

    steps: Steps
    load: str

    @classmethod
    def of(cls, model: type[Model]) -> ConvertedParts:
        """Return the functions that fit() and records() call."""
        load = loading_function(model)
        if load is None:
            raise DataRefused("its records are made by the training alone", next=NEXT)
        return cls(Steps.of(model), load)

    @contextmanager
    def loading(self, records: pd.DataFrame) -> Iterator[list[int]]:
        """Let the training learn from these records alone; the list grows each time it asks for them."""
        asked: list[int] = []
        handed = records.reset_index(drop=True) if _numbered(records) else records

        def held(*given: Any, **words: Any) -> pd.DataFrame:
            asked.append(len(records))
            return handed.copy()

        space = self.steps.space
        before = space[self.load]
        space[self.load] = held
        try:
            yield asked
        finally:
            space[self.load] = before


def loading_function(model: type[Model]) -> str | None:
    """Return the function that returns the raw records: the one that records() calls and fit() does not; None without one."""
    trains = functions_called(model.fit)
    return next((name for name in functions_called(model.records) if name not in trains), None)


@dataclass(frozen=True)
class Learning:
    """What a training on all records learns from: records, outcome, the rows that evaluate() judges by."""

    records: pd.DataFrame
    outcome: Outcome
    reported: pd.DataFrame
    rows: PreparedRows | None  # where the steps hand the records out; None where a function loads them


def _whole(trial: EvaluationTrial) -> Learning:
    """Train on all records; they are those that a function loads, else those that a step hands out."""
    steps = Steps.of(trial.cls)
    with steps.watched() as seen:
        model = trial.fitted(trial.as_of)
    if not seen.results:
        raise DataRefused(f"fit() does not call {steps.train}()", next="convert the notebook again")
    done = seen.results[-1]
    inputs = [name for name in model.contract.inputs.columns if name != model.contract.key]
    why: DataRefused | None = None
    if (load := loading_function(trial.cls)) is not None:
        try:
            outcome = outcome_of(done["records"], done["answers"], inputs, load)
            return Learning(done["records"], outcome, _reported(done, outcome), None)
        except DataRefused as err:
            why = err
    try:
        rows = rows_in(seen, steps, inputs)
    except DataRefused as err:
        raise why or err from None
    return Learning(rows.frame(), rows.outcome, _reported(done, rows.outcome), rows)


def _splits(records: pd.DataFrame, inputs: Sequence[str], outcome: str) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Yield the records to learn from and those held back: later ones where the records have dates, else folds."""
    if len(records) < FEWEST:
        raise DataRefused(
            f"{len(records)} records with an outcome are too few to hold some back", next="bring more records"
        )
    later = list(_later(records, _days(records.drop(columns=outcome))))
    yield from later
    if later:
        return
    fold = _folds(records, inputs)
    for number in range(int(fold.max()) + 1 if fold.max() > 0 else 1):
        yield records[fold != number], records[fold == number]


def _later(records: pd.DataFrame, days: np.ndarray[Any, Any] | None) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Yield the records up to a moment and those between it and the next one; none where there are no dates."""
    if days is None:
        return
    number = days.astype("int64")
    edges = np.unique(np.quantile(number, np.linspace(1 - LATER, 1, PARTS + 1), method="lower"))
    for low, high in pairwise(edges.tolist()):
        kept, out = number <= low, (number > low) & (number <= high)
        if kept.sum() >= FEWEST and out.any():
            yield records[kept], records[out]


def _days(records: pd.DataFrame) -> np.ndarray[Any, Any] | None:
    """Return the time of each record, as datetime64; None where no column or more than one has a time for every record."""
    found = []
    for name in records.columns:
        times = dates_of(records[[name]].reset_index(drop=True))
        if times is not None and times.notna().all() and times.nunique() >= FEWEST:
            found.append(times)
    ordered = [times for times in found if times.is_monotonic_increasing or times.is_monotonic_decreasing]
    chosen = ordered[0] if ordered else found[0] if len(found) == 1 else None
    return None if chosen is None else chosen.to_numpy()


def _folds(records: pd.DataFrame, inputs: Sequence[str]) -> np.ndarray[Any, Any]:
    """Return the fold of each record by its content, so that equal records are in one; 0 is held back where there is one fold."""
    asked = records[[name for name in inputs if name in records]]
    digest = pd.util.hash_pandas_object(asked.astype(str), index=False).to_numpy() >> np.uint64(8)
    number = next((folds for limit, folds in FOLDS if len(records) <= limit), 5)
    fold = (digest % np.uint64(number)).astype(int)
    if len(np.unique(fold)) < number:
        raise DataRefused("its records are too much alike to hold some of them back")
    return fold if len(records) <= FOLDS[-1][0] else np.where(fold == 0, 0, -1)


def _observed(
    trial: EvaluationTrial,
    parts: ConvertedParts | PreparedRows,
    kept: pd.DataFrame,
    out: pd.DataFrame,
    outcome: Outcome,
) -> pd.DataFrame:
    """Return the answers to records that were held back, beside what became of them."""
    with parts.loading(kept) as asked:
        try:
            model = trial.fitted(trial.as_of)
        except Exception as err:
            raise DataRefused(
                f"it cannot be trained on {len(kept)} of its {len(kept) + len(out)} records: {type(err).__name__}: {err}",
                next="do not rely on the number or the place of rows in the notebook, or write an Evaluator",
            ) from err
    if not asked:
        raise DataRefused(
            f"{parts.steps.train}() reads its data by itself instead of from {parts.load}(), so no record can be held back from it",
            next=f"let {parts.steps.train}() take its records from {parts.load}(), or write an Evaluator",
        )
    frame = pd.DataFrame({"record": _names(out, outcome), CAME: outcome.values(out)})
    frame[MODEL] = outcome.coded(_asked(model, out, kept))
    typical = outcome.values(kept)
    if outcome.classes:
        values, counts = np.unique(typical, return_counts=True)
        frame[BASELINE + "most frequent class"] = values[counts.argmax()]
    else:
        for name, values in {
            "mean": typical.mean(),
            **_simple(kept, out, outcome, list(trial.contract.inputs.columns)),
        }.items():
            frame[BASELINE + name] = values
    return frame.assign(**{REPORTED: False})


def _simple(kept: pd.DataFrame, out: pd.DataFrame, outcome: Outcome, inputs: Sequence[str]) -> dict[str, Any]:
    """Return what needs no model for numbers: the input that is nearest to the outcome, and the past of dated records."""
    came, found = outcome.values(kept), dict[str, Any]()
    far = {
        name: float(np.nanmean(np.abs(in_form(kept[name], outcome.form) - came)))
        for name in kept.columns
        if name in inputs and pd.api.types.is_numeric_dtype(kept[name].dtype) and kept[name].notna().any()
    }
    nearest = min(far, key=lambda name: far[name], default="")
    if nearest and far[nearest] < np.abs(came - came.mean()).mean():
        found["nearest column, as it is"] = in_form(out[nearest], outcome.form)
    days = _days(pd.concat([kept, out]).drop(columns=outcome.column))
    if days is None or not days[: len(kept)].max() < days[len(kept) :].min():
        return found
    return found | by_series(kept, out, days, outcome)


def _numbered(records: pd.DataFrame) -> bool:
    return bool(pd.api.types.is_integer_dtype(records.index.dtype))


def _names(records: pd.DataFrame, outcome: Outcome) -> list[str]:
    """Return a name for each record by its content, numbered where several are equal."""
    digest = pd.util.hash_pandas_object(records.drop(columns=outcome.column).astype(str), index=False)
    number = digest.groupby(digest.to_numpy()).cumcount()
    return [f"{name:016x}-{place}" for name, place in zip(digest, number, strict=True)]


def _asked(model: Model, out: pd.DataFrame, kept: pd.DataFrame) -> np.ndarray[Any, Any]:
    """Return the answers to raw records in another order than theirs; None where a record cannot be asked."""
    contract = model.contract
    answers: np.ndarray[Any, Any] = np.full(len(out), None, dtype=object)
    columns = [name for name in contract.inputs.columns if name != contract.key]
    needed = [name for name in columns if name in out and not contract.inputs.columns[name].nullable]
    usable = out[needed].notna().all(axis=1).to_numpy()
    for fewer in (False, True):  # a category that only the held-back records have may be refused by the encoder
        if fewer:
            for name in out[columns].select_dtypes(exclude="number").columns:
                usable &= out[name].isin(kept[name].unique()).to_numpy()
        places = np.random.default_rng(0).permutation(np.flatnonzero(usable))
        records = out.iloc[places][columns].reset_index(drop=True)
        records.insert(0, contract.key, [f"held-{number}" for number in range(len(records))])
        records = contract.check_inputs(records[list(contract.inputs.columns)])
        try:
            found = contract.check_outputs(model.predict(records.copy()))
        except (D2CError, ValueError, KeyError):
            if fewer:
                raise
            continue
        if len(found) != len(records):
            raise DataRefused(f"predict gave {len(found)} answers to {len(records)} records")
        answers[places] = found[ANSWER].astype(object).to_numpy()
        break
    return answers


def _reported(done: Mapping[str, Any], outcome: Outcome) -> pd.DataFrame:
    """Return the notebook's own held-out rows as evaluate() judges them: what its estimator predicts, beside its answers."""
    predicted = np.asarray(done["model"].predict(done["features"])).ravel()
    frame = pd.DataFrame({CAME: outcome.coded(np.asarray(done["answers"]).ravel()), MODEL: outcome.coded(predicted)})
    return frame.assign(record=[f"notebook-{number}" for number in range(len(frame))], **{REPORTED: True})


def _of(metric: Callable[..., Any]) -> Callable[[pd.DataFrame, str], float]:
    def score(seen: pd.DataFrame, column: str) -> float:
        try:
            return float(metric(seen[CAME], seen[column]))
        except ValueError:  # a metric of classes asked of numbers, or one class alone
            return float("nan")

    return score
