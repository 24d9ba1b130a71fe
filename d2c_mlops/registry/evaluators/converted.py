"""Converted notebooks, measured on records that the gate held back from their training."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from types import FunctionType
from typing import Any

import numpy as np
import pandas as pd
from sklearn import metrics as sk

from ...errors import D2CError, DataRefused
from ...models.charter import Charter
from ...models.contract import Contract
from ...models.model import Model
from . import BASELINE, CAME, MODEL, REPORTED, Evaluator, Metric, Trial, apart
from .outcomes import Outcome, outcome_of

SUFFIX = "_on_training_data"  # of a metric that a notebook without held-out rows reports
FOLDS = ((2000, 5), (20000, 3))  # records up to which a model is trained that many times; above, once
ANSWER = "prediction"


class ConvertedEvaluator(Evaluator):
    """Classes and numbers that a converted notebook predicts of raw records."""

    name = "converted notebook"
    row = ("record",)
    world = "other outcomes in the records"
    general, own_files = True, True

    def knows(self, contract: Contract) -> bool:
        return ANSWER in (field.name for field in contract.output_fields)

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

    def observe(self, trial: Trial) -> pd.DataFrame:
        parts = Parts.of(trial.cls)
        records, outcome, reported = apart(lambda: _whole(trial, parts))
        inputs = [name for name in trial.contract.inputs.columns if name != trial.contract.key]
        if trial.disguised:
            records = outcome.disguised(records)
        usable = records[outcome.known(records)]
        fold = _folds(usable, inputs)
        found = []
        for number in range(int(fold.max()) + 1 if fold.max() > 0 else 1):
            kept, out = usable[fold != number], usable[fold == number]
            found.append(apart(partial(_observed, trial, parts, kept, out, outcome)))
        return pd.concat(found if trial.disguised else [*found, reported], ignore_index=True)


@dataclass(frozen=True)
class Parts:
    """The functions of a converted module that load the records and train, by name, and where they are looked up."""

    space: dict[str, Any]
    train: str
    load: str

    @classmethod
    def of(cls, model: type[Model]) -> Parts:
        """Return the functions that fit() and records() call."""
        fit, records = (getattr(model, name) for name in ("fit", "records"))
        space = fit.__globals__
        trains = _called(fit)
        loads = [name for name in _called(records) if name not in trains]
        if not trains:
            raise DataRefused(
                "fit() calls no function of its module that trains, as a converted notebook does",
                next="convert the notebook again, or write an Evaluator in a package of [d2c] packages",
            )
        if not loads:
            raise DataRefused(
                "its records are features or steps ahead that only the training makes, so there is no function that loads raw "
                "records, and none of them can be held back from the training",
                next="write an Evaluator in a package of [d2c] packages",
            )
        return cls(space, trains[0], loads[0])

    @contextmanager
    def noted(self) -> Iterator[list[dict[str, Any]]]:
        """Note what each training inside returns."""
        done: list[dict[str, Any]] = []
        train = self.space[self.train]

        def noting(*given: Any, **words: Any) -> Any:
            found = train(*given, **words)
            done.append(found)
            return found

        with self._instead(self.train, noting):
            yield done

    @contextmanager
    def loading(self, records: pd.DataFrame) -> Iterator[list[int]]:
        """Let the training learn from these records alone; the list grows each time it asks for them."""
        asked: list[int] = []

        def held(*given: Any, **words: Any) -> pd.DataFrame:
            asked.append(len(records))
            return records.copy()

        with self._instead(self.load, held):
            yield asked

    @contextmanager
    def _instead(self, name: str, function: Callable[..., Any]) -> Iterator[None]:
        before = self.space[name]
        self.space[name] = function
        try:
            yield
        finally:
            self.space[name] = before


def _called(method: Any) -> list[str]:
    """Return the functions of the module that a method names, in their order."""
    space = method.__globals__
    return [name for name in method.__code__.co_names if isinstance(space.get(name), FunctionType)
            and not space[name].__module__.startswith("d2c_mlops.")]  # fmt: skip


def _whole(trial: Trial, parts: Parts) -> tuple[pd.DataFrame, Outcome, pd.DataFrame]:
    """Train on all records; return them, their outcome, and the rows that evaluate() judges by."""
    with parts.noted() as done:
        model = trial.fitted(trial.as_of)
    if not done:
        raise DataRefused(f"fit() does not call {parts.train}()", next="convert the notebook again")
    inputs = [name for name in model.contract.inputs.columns if name != model.contract.key]
    outcome = outcome_of(done[-1]["records"], done[-1]["answers"], inputs, parts.load)
    return done[-1]["records"], outcome, _reported(done[-1], outcome)


def _folds(records: pd.DataFrame, inputs: Sequence[str]) -> np.ndarray[Any, Any]:
    """Return the fold of each record by its content, so that equal records are in one; 0 is held back where there is one fold."""
    if len(records) < 10:
        raise DataRefused(f"{len(records)} records with an outcome are too few to hold some back")
    asked = records[[name for name in inputs if name in records]]
    digest = pd.util.hash_pandas_object(asked.astype(str), index=False).to_numpy() >> np.uint64(8)
    number = next((folds for limit, folds in FOLDS if len(records) <= limit), 5)
    fold = (digest % np.uint64(number)).astype(int)
    if len(np.unique(fold)) < number:
        raise DataRefused("its records are too much alike to hold some of them back")
    return fold if len(records) <= FOLDS[-1][0] else np.where(fold == 0, 0, -1)


def _observed(trial: Trial, parts: Parts, kept: pd.DataFrame, out: pd.DataFrame, outcome: Outcome) -> pd.DataFrame:
    """Return the answers to records that were held back, beside what became of them."""
    handed = kept.reset_index(drop=True) if isinstance(kept.index, pd.RangeIndex) or _numbered(kept) else kept
    with parts.loading(handed) as asked:
        try:
            model = trial.fitted(trial.as_of)
        except Exception as err:
            raise DataRefused(
                f"it cannot be trained on {len(kept)} of its {len(kept) + len(out)} records: {type(err).__name__}: {err}",
                next="do not rely on the number or the place of rows in the notebook, or write an Evaluator",
            ) from err
    if not asked:
        raise DataRefused(
            f"{parts.train}() reads its data by itself instead of from {parts.load}(), so no record can be held back from it",
            next=f"let {parts.train}() take its records from {parts.load}(), or write an Evaluator",
        )
    frame = pd.DataFrame({"record": _names(out, outcome), CAME: outcome.values(out)})
    frame[MODEL] = outcome.coded(_asked(model, out, kept))
    typical = outcome.values(kept)
    if outcome.classes:
        values, counts = np.unique(typical, return_counts=True)
        frame[BASELINE + "most frequent class"] = values[counts.argmax()]
    else:
        frame[BASELINE + "mean"] = typical.mean()
    return frame.assign(**{REPORTED: False})


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
