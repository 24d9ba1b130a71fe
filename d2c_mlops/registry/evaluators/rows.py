"""Rows of a converted notebook that no function loads: the features and outcomes that its steps hand out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ...errors import DataRefused
from .outcomes import Outcome, outcome_of
from .steps import Seen, Steps, StepSlot, dates_of, rows_of, taken

WHEN = "(date)"  # column of the rows with the dates that label them


@dataclass(frozen=True)
class RowSource:
    """What a step returned that holds a part of the rows: the columns of the rows by those of the step's value."""

    slot: StepSlot
    columns: dict[Any, Any]  # name in the rows: name in a table, number in an array, None of a series

    def frame(self) -> pd.DataFrame:
        """Return the part of the rows, numbered from 0."""
        value = self.slot.value
        if isinstance(value, pd.Series):
            value = value.to_frame("(series)")
        parts = {
            name: value[own] if isinstance(value, pd.DataFrame) and own is not None
            else value.iloc[:, 0] if isinstance(value, pd.DataFrame) else value if own is None else value[:, own]
            for name, own in self.columns.items()
        }  # fmt: skip
        return pd.DataFrame({name: pd.Series(part).reset_index(drop=True) for name, part in parts.items()})

    def of(self, places: Any, column: Any, values: pd.Series) -> Any:
        """Return the step's value with some of its rows, one column of which has other values."""
        value = taken(self.slot.value, places)
        if column not in self.columns:
            return value
        own = self.columns[column]
        if isinstance(value, pd.Series):
            return pd.Series(values.to_numpy(), index=value.index, name=value.name).astype(value.dtype)
        if isinstance(value, pd.DataFrame):
            name = value.columns[0] if own is None else own
            return value.assign(**{name: pd.Series(values.to_numpy(), index=value.index).astype(value[name].dtype)})
        changed = value.copy()
        changed[(slice(None),) if own is None else (slice(None), own)] = values.to_numpy().reshape(
            changed.shape if own is None else len(changed)
        )
        return changed


@dataclass(frozen=True)
class PreparedRows:
    """The rows that a training learns from, where its steps hand them out, and which column is the outcome."""

    steps: Steps
    features: RowSource
    outcomes: RowSource
    outcome: Outcome

    @property
    def load(self) -> str:
        """The step that hands the rows out."""
        return self.features.slot.step

    def frame(self) -> pd.DataFrame:
        """Return all rows, numbered from 0, with the dates that label them where there are some."""
        frame = self.features.frame()
        if self.outcomes is not self.features:
            outcomes = self.outcomes.frame()
            frame = frame.join(outcomes[[name for name in outcomes.columns if name not in frame]])
        labels = getattr(self.features.slot.value, "index", None)
        if isinstance(labels, pd.DatetimeIndex | pd.PeriodIndex):
            frame[WHEN] = dates_of(labels.to_frame())
        return frame

    @contextmanager
    def loading(self, records: pd.DataFrame) -> Iterator[list[int]]:
        """Let the training learn from these rows alone; the list grows each time a step hands them out."""
        places, whole = records.index.to_numpy(), rows_of(self.features.slot.value)
        first = min(self.features.slot.call, self.outcomes.slot.call)
        parts = {source.slot.where: source for source in (self.features, self.outcomes)}
        asked: list[int] = []

        def change(slot: StepSlot) -> Any:
            if slot.where in parts:
                asked.append(len(places))
                return parts[slot.where].of(places, self.outcome.column, records[self.outcome.column])
            return taken(slot.value, places) if slot.call >= first and rows_of(slot.value) == whole else slot.value

        with self.steps.watched(change):
            yield asked


def rows_in(seen: Seen, steps: Steps, inputs: Sequence[str]) -> PreparedRows:
    """Return the rows of a training; raises DataRefused where no step hands them out with their outcome."""
    done = seen.results[-1]
    records, answers = done["records"], done["answers"]
    if answers is None:
        raise DataRefused("the notebook predicts nothing that comes true later (it has no answers to learn from)")
    if (
        isinstance(answers, pd.Series | pd.DataFrame)
        and records.index.is_unique
        and answers.index.isin(records.index).all()
    ):
        records = records.loc[answers.index]
    wanted = records[[name for name in records.columns if name in inputs]]
    why: DataRefused | None = None
    before_fit = [slot for slot in seen.slots if slot.call < _fitting(seen, done["model"])]
    for slot in before_fit:
        features = _features(slot, wanted)
        if features is None:
            continue
        others = [
            each for each in before_fit if each.where != slot.where and rows_of(each.value) == rows_of(slot.value)
        ]
        for other in [slot, *sorted(others, key=lambda each: abs(each.call - slot.call))]:
            outcomes = _others(other, features if other is slot else None, inputs)
            if outcomes is None:
                continue
            if other is slot:
                outcomes = RowSource(slot, features.columns | outcomes.columns)
            rows = PreparedRows(steps, outcomes if other is slot else features, outcomes, Outcome("", {}))
            try:
                return replace(rows, outcome=outcome_of(_labelled(rows), answers, inputs, slot.step))
            except DataRefused as err:
                why = why or err
    raise why or DataRefused(
        "no step hands out its features row by row, so none can be held back from the training",
        next="let a step of the notebook return the table of features, or write an Evaluator in a package of [d2c] packages",
    )


def _fitting(seen: Seen, model: Any) -> int:
    """Return the call that hands out the fitted model, after all calls where no step does."""
    calls = [slot.call for slot in seen.slots if slot.value is model]
    return min(calls or [slot.call for slot in seen.slots if hasattr(slot.value, "predict")], default=seen.calls)


def _labelled(rows: PreparedRows) -> pd.DataFrame:
    """Return the rows with the labels that the steps give them, where those of features and outcomes are the same."""
    frame = rows.frame()
    values = [each.slot.value for each in (rows.features, rows.outcomes)]
    labels = [value.index for value in values if isinstance(value, pd.DataFrame | pd.Series)]
    if len(labels) == 2 and labels[0].equals(labels[1]) and labels[0].is_unique:
        frame.index = labels[0]
    return frame


def _features(slot: StepSlot, wanted: pd.DataFrame) -> RowSource | None:
    """Return what a step returned, if it has a row for each of the wanted ones, with their values."""
    value = slot.value
    if rows_of(value) < len(wanted):
        return None
    if isinstance(value, pd.DataFrame):
        if not value.columns.is_unique or not set(wanted.columns) <= set(value.columns):
            return None
        source = RowSource(slot, {name: name for name in wanted.columns})
    elif isinstance(value, np.ndarray) and value.ndim == 2:
        own = _matched(value, wanted)
        if own is None:
            return None
        source = RowSource(slot, dict(zip(wanted.columns, own, strict=True)))
    else:
        return None
    return source if _digests(wanted).isin(_digests(source.frame())).all() else None


def _matched(value: Any, wanted: pd.DataFrame) -> list[int] | None:
    """Return which columns of an array hold the wanted ones, in their order."""
    found: list[int] = []
    for name in wanted.columns:
        cells = wanted[name].to_numpy()
        free = [number for number in range(value.shape[1]) if number not in found]
        fits = next((number for number in free if bool(np.isin(cells, value[:, number]).all())), None)
        if fits is None:
            return None
        found.append(fits)
    return found


def _others(slot: StepSlot, features: RowSource | None, inputs: Sequence[str]) -> RowSource | None:
    """Return the columns of what a step returned that are no features."""
    value = slot.value
    if isinstance(value, pd.DataFrame):
        if not value.columns.is_unique:
            return None
        names = [name for name in value.columns if isinstance(name, str) and name not in inputs]
        return RowSource(slot, {name: name for name in names}) if names else None
    if features is None and value.ndim == 1:
        name = str(value.name) if isinstance(value, pd.Series) and value.name not in (None, *inputs) else "(outcome)"
        return RowSource(slot, {name: None})
    if isinstance(value, np.ndarray) and value.ndim == 2:
        used = set(features.columns.values()) if features is not None else set()
        return (
            RowSource(slot, {f"(column {n + 1})": n for n in range(value.shape[1]) if n not in used})
            if len(used) < value.shape[1]
            else None
        )
    return None


def _digests(frame: pd.DataFrame) -> pd.Series:
    """Return a digest of each row, in which 1 and 1.0 are the same."""
    plain = {
        name: frame[name].to_numpy(np.float64, na_value=np.nan) + 0.0
        if pd.api.types.is_numeric_dtype(frame[name].dtype)
        else frame[name].astype(str)
        for name in frame.columns
    }
    return pd.util.hash_pandas_object(pd.DataFrame(plain, index=frame.index), index=False)
