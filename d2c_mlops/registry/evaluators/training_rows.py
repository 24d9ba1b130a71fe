"""Training rows of a converted notebook without a load function: features and outcomes that its steps return."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from ...errors import DataRefused
from .outcome_column import Outcome, target_column
from .step_recording import RecordedTraining, StepResult, Steps, number_of_rows, row_dates, select_rows_at

WHEN = "(date)"  # column of the rows with the dates of their index


@dataclass(frozen=True)
class RowSource:
    """A value returned by a step that contains some columns of the training rows."""

    step_result: StepResult
    columns: dict[Any, Any]  # name in the rows: name in a table, number in an array, None of a series

    def frame(self) -> pd.DataFrame:
        """Return these columns of the rows, numbered from 0."""
        value = self.step_result.value
        if isinstance(value, pd.Series):
            value = value.to_frame("(series)")
        parts = {
            name: value[source_column] if isinstance(value, pd.DataFrame) and source_column is not None
            else value.iloc[:, 0] if isinstance(value, pd.DataFrame) else value if source_column is None else value[:, source_column]
            for name, source_column in self.columns.items()
        }  # fmt: skip
        return pd.DataFrame({name: pd.Series(part).reset_index(drop=True) for name, part in parts.items()})

    def of(self, places: Any, column: Any, values: pd.Series) -> Any:
        """Return the step's value with only some rows, and with other values in one column."""
        value = select_rows_at(self.step_result.value, places)
        if column not in self.columns:
            return value
        source_column = self.columns[column]
        if isinstance(value, pd.Series):
            return pd.Series(values.to_numpy(), index=value.index, name=value.name).astype(value.dtype)
        if isinstance(value, pd.DataFrame):
            name = value.columns[0] if source_column is None else source_column
            return value.assign(**{name: pd.Series(values.to_numpy(), index=value.index).astype(value[name].dtype)})
        changed = value.copy()
        changed[(slice(None),) if source_column is None else (slice(None), source_column)] = values.to_numpy().reshape(
            changed.shape if source_column is None else len(changed)
        )
        return changed


@dataclass(frozen=True)
class PreparedRows:
    """The rows of a training that its steps return, and which column is the outcome."""

    steps: Steps
    features: RowSource
    outcomes: RowSource
    outcome: Outcome

    @property
    def load(self) -> str:
        """The step that returns the rows."""
        return self.features.step_result.step

    def frame(self) -> pd.DataFrame:
        """Return all rows, numbered from 0, with the dates of their index if there are some."""
        frame = self.features.frame()
        if self.outcomes is not self.features:
            outcomes = self.outcomes.frame()
            frame = frame.join(outcomes[[name for name in outcomes.columns if name not in frame]])
        labels = getattr(self.features.step_result.value, "index", None)
        if isinstance(labels, pd.DatetimeIndex | pd.PeriodIndex):
            frame[WHEN] = row_dates(labels.to_frame())
        return frame

    @contextmanager
    def loading(self, records: pd.DataFrame) -> Iterator[list[int]]:
        """Let the training learn only from these rows; the list grows each time a step returns them."""
        places, whole = records.index.to_numpy(), number_of_rows(self.features.step_result.value)
        first = min(self.features.step_result.call, self.outcomes.step_result.call)
        parts = {source.step_result.position: source for source in (self.features, self.outcomes)}
        loads: list[int] = []

        def restricted_value(step_result: StepResult) -> Any:
            if step_result.position in parts:
                loads.append(len(places))
                return parts[step_result.position].of(places, self.outcome.column, records[self.outcome.column])
            return (
                select_rows_at(step_result.value, places)
                if step_result.call >= first and number_of_rows(step_result.value) == whole
                else step_result.value
            )

        with self.steps.watched(restricted_value):
            yield loads


def prepared_training_rows(recorded: RecordedTraining, steps: Steps, inputs: Sequence[str]) -> PreparedRows:
    """Return the rows of a training. Raises DataRefused if no step returns them with their outcome."""
    result = recorded.results[-1]
    records, answers = result["records"], result["answers"]
    if answers is None:
        raise DataRefused(
            "the notebook learns from no outcome (it has no target), so its predictions cannot be measured"
        )
    if (
        isinstance(answers, pd.Series | pd.DataFrame)
        and records.index.is_unique
        and answers.index.isin(records.index).all()
    ):
        records = records.loc[answers.index]
    input_columns = records[[name for name in records.columns if name in inputs]]
    why: DataRefused | None = None
    before_fit = [
        step_result for step_result in recorded.step_results if step_result.call < _fit_call(recorded, result["model"])
    ]
    for step_result in before_fit:
        features = _feature_source(step_result, input_columns)
        if features is None:
            continue
        others = [
            candidate
            for candidate in before_fit
            if candidate.position != step_result.position
            and number_of_rows(candidate.value) == number_of_rows(step_result.value)
        ]
        for outcome_result in [
            step_result,
            *sorted(others, key=lambda candidate: abs(candidate.call - step_result.call)),
        ]:
            outcomes = _outcome_source(outcome_result, features if outcome_result is step_result else None, inputs)
            if outcomes is None:
                continue
            if outcome_result is step_result:
                outcomes = RowSource(step_result, features.columns | outcomes.columns)
            rows = PreparedRows(
                steps, outcomes if outcome_result is step_result else features, outcomes, Outcome("", {})
            )
            try:
                return replace(rows, outcome=target_column(_with_labels(rows), answers, inputs, step_result.step))
            except DataRefused as err:
                why = why or err
    raise why or DataRefused(
        "no step returns the features of each row, so there can be no holdout",
        next="let a step of the notebook return the table of features, or write an Evaluator in a package of [d2c] packages",
    )


def _fit_call(recorded: RecordedTraining, model: Any) -> int:
    """Return the number of the call that returns the fitted model; the number after all calls if no step does."""
    calls = [step_result.call for step_result in recorded.step_results if step_result.value is model]
    return min(
        calls or [step_result.call for step_result in recorded.step_results if hasattr(step_result.value, "predict")],
        default=recorded.calls,
    )


def _with_labels(rows: PreparedRows) -> pd.DataFrame:
    """Return the rows with the index of the steps' values, if features and outcomes have the same index."""
    frame = rows.frame()
    values = [source.step_result.value for source in (rows.features, rows.outcomes)]
    labels = [value.index for value in values if isinstance(value, pd.DataFrame | pd.Series)]
    if len(labels) == 2 and labels[0].equals(labels[1]) and labels[0].is_unique:
        frame.index = labels[0]
    return frame


def _feature_source(step_result: StepResult, input_columns: pd.DataFrame) -> RowSource | None:
    """Return the source of features in a step's value, if it has the values of all input columns for each row."""
    value = step_result.value
    if number_of_rows(value) < len(input_columns):
        return None
    if isinstance(value, pd.DataFrame):
        if not value.columns.is_unique or not set(input_columns.columns) <= set(value.columns):
            return None
        source = RowSource(step_result, {name: name for name in input_columns.columns})
    elif isinstance(value, np.ndarray) and value.ndim == 2:
        numbers = _matching_columns(value, input_columns)
        if numbers is None:
            return None
        source = RowSource(step_result, dict(zip(input_columns.columns, numbers, strict=True)))
    else:
        return None
    return source if _row_digests(input_columns).isin(_row_digests(source.frame())).all() else None


def _matching_columns(value: Any, input_columns: pd.DataFrame) -> list[int] | None:
    """Return which columns of an array contain the input columns, in their order."""
    numbers: list[int] = []
    for name in input_columns.columns:
        cells = input_columns[name].to_numpy()
        free = [number for number in range(value.shape[1]) if number not in numbers]
        fits = next((number for number in free if bool(np.isin(cells, value[:, number]).all())), None)
        if fits is None:
            return None
        numbers.append(fits)
    return numbers


def _outcome_source(step_result: StepResult, features: RowSource | None, inputs: Sequence[str]) -> RowSource | None:
    """Return the columns of a step's value that are not features."""
    value = step_result.value
    if isinstance(value, pd.DataFrame):
        if not value.columns.is_unique:
            return None
        names = [name for name in value.columns if isinstance(name, str) and name not in inputs]
        return RowSource(step_result, {name: name for name in names}) if names else None
    if features is None and value.ndim == 1:
        name = str(value.name) if isinstance(value, pd.Series) and value.name not in (None, *inputs) else "(outcome)"
        return RowSource(step_result, {name: None})
    if isinstance(value, np.ndarray) and value.ndim == 2:
        used = set(features.columns.values()) if features is not None else set()
        return (
            RowSource(step_result, {f"(column {n + 1})": n for n in range(value.shape[1]) if n not in used})
            if len(used) < value.shape[1]
            else None
        )
    return None


def _row_digests(frame: pd.DataFrame) -> pd.Series:
    """Return a digest of each row; 1 and 1.0 have the same digest."""
    plain = {
        name: frame[name].to_numpy(np.float64, na_value=np.nan) + 0.0
        if pd.api.types.is_numeric_dtype(frame[name].dtype)
        else frame[name].astype(str)
        for name in frame.columns
    }
    return pd.util.hash_pandas_object(pd.DataFrame(plain, index=frame.index), index=False)
