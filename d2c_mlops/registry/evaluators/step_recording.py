"""The steps of a converted notebook: record what they return in a training, or replace it."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import numpy as np
import pandas as pd

from d2c_mlops.errors import DataRefused
from d2c_mlops.models.core.model import Model

ISO_DATE = re.compile(r"\d{4}-\d{2}(-\d{2}([T ].*)?)?|\d{4}/\d{2}/\d{2}")  # only texts in this form are read as dates
NO_STEP = "as_frame"  # function of a converted module that only names feature columns; not a step


@dataclass(frozen=True)
class StepResult:
    """One value that a step returned: the call in the training, the step, and the place in its result."""

    call: int
    step: str
    place: int
    value: Any  # a copy, as it was returned

    @property
    def position(self) -> tuple[int, int]:
        """The call and the place, which are the same in every training."""
        return self.call, self.place


@dataclass
class RecordedTraining:
    """Record of a training: the values of its steps in order, its results, and the fitted objects of forecasts."""

    step_results: list[StepResult] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    fitted: list[Any] = field(default_factory=list)
    calls: int = 0


Change = Callable[[StepResult], Any]


def keep_step_value(step_result: StepResult) -> Any:
    """Return the step's value as it is."""
    return step_result.value


@dataclass(frozen=True)
class Steps:
    """The functions that the training of a converted module calls."""

    module: str
    train: str

    @property
    def namespace(self) -> dict[str, Any]:
        """The module's namespace, in which the functions are looked up."""
        return vars(sys.modules[self.module])

    @classmethod
    def of(cls, model: type[Model]) -> Steps:
        """Return the steps of a class. Raises DataRefused if fit() calls no function of its module."""
        trains = functions_called(model.fit)
        if not trains:
            raise DataRefused(
                "fit() calls no training function of its module, as in a converted notebook",
                next="convert the notebook again, or write an Evaluator in a package of [d2c] packages",
            )
        return cls(model.fit.__module__, trains[0])

    @contextmanager
    def watched(self, change: Change = keep_step_value) -> Iterator[RecordedTraining]:
        """Record the trainings in the block; each value of a step is replaced by the result of `change`."""
        recorded, inside = RecordedTraining(), [False]
        names = [name for name in functions_called(self.namespace[self.train]) if name != NO_STEP]
        before = {name: self.namespace[name] for name in [*names, self.train]}
        forecast_of = self.namespace.get("forecast_of")

        def step(name: str) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                if inside[0]:
                    return before[name](*args, **kwargs)
                inside[0] = True
                try:
                    returned = before[name](*args, **kwargs)
                finally:
                    inside[0] = False
                values = returned if isinstance(returned, tuple) else (returned,)
                changed = []
                for place, value in enumerate(values):
                    step_result = StepResult(recorded.calls, name, place, _copy_value(value))
                    changed.append(change(step_result))
                    recorded.step_results.append(StepResult(step_result.call, name, place, _copy_value(changed[-1])))
                recorded.calls += 1
                return tuple(changed) if isinstance(returned, tuple) else changed[0]

            return call

        def training(*args: Any, **kwargs: Any) -> Any:
            recorded.step_results.clear()
            recorded.calls = 0
            recorded.results.append(before[self.train](*args, **kwargs))
            return recorded.results[-1]

        def forecasting(fitted: Any, *args: Any, **kwargs: Any) -> Any:
            recorded.fitted.append(fitted)
            return forecast_of(fitted, *args, **kwargs)  # type: ignore[misc]

        self.namespace.update({name: step(name) for name in names} | {self.train: training})
        if forecast_of is not None:
            self.namespace["forecast_of"] = forecasting
        try:
            yield recorded
        finally:
            self.namespace.update(before | ({} if forecast_of is None else {"forecast_of": forecast_of}))


def functions_called(method: Any) -> list[str]:
    """Return the module's functions that a function calls, in their order."""
    space = method.__globals__
    return [name for name in method.__code__.co_names if isinstance(space.get(name), FunctionType)
            and not space[name].__module__.startswith("d2c_mlops.")]  # fmt: skip


def _copy_value(value: Any) -> Any:
    if isinstance(value, pd.DataFrame | pd.Series):
        return value.copy(deep=False)  # pandas copies on write
    return value.copy() if isinstance(value, np.ndarray) else value


def row_dates(value: Any, texts: bool = True) -> pd.DatetimeIndex | None:
    """Return the date of each row of a table or series without time zone, of its index or its first column of dates.

    `texts`: whether a column of ISO dates as text counts. None if there are no dates.
    """
    if not isinstance(value, pd.DataFrame | pd.Series) or not len(value):
        return None
    for level in range(value.index.nlevels):
        if (dates := _index_dates(value.index.get_level_values(level), texts)) is not None:
            return dates
    for name in value.columns if isinstance(value, pd.DataFrame) else ():
        if isinstance(value[name], pd.Series) and (dates := _index_dates(pd.Index(value[name]), texts)) is not None:
            return dates
    return None


def _index_dates(values: pd.Index, texts: bool) -> pd.DatetimeIndex | None:
    if isinstance(values, pd.PeriodIndex):
        return values.to_timestamp()
    if isinstance(values, pd.DatetimeIndex):
        return values.tz_localize(None)
    texts_present = values.dropna()
    if not texts or pd.api.types.is_numeric_dtype(values.dtype) or not len(texts_present):
        return None
    if not all(isinstance(text, str) and ISO_DATE.fullmatch(text.strip()) for text in texts_present):
        return None
    try:
        return pd.DatetimeIndex(pd.to_datetime(values, errors="coerce", utc=True)).tz_localize(None)
    except (ValueError, TypeError, OverflowError):
        return None


def number_of_rows(value: Any) -> int:
    """Return the rows of a table, series or array; -1 for anything else."""
    return len(value) if isinstance(value, pd.DataFrame | pd.Series | np.ndarray) and value.ndim else -1


def select_rows_at(value: Any, places: Any) -> Any:
    """Return some rows of a table, series or array by position; a numeric index is renumbered."""
    if isinstance(value, np.ndarray):
        return value[places]
    chosen = value.iloc[places]
    return chosen.reset_index(drop=True) if pd.api.types.is_integer_dtype(value.index.dtype) else chosen
