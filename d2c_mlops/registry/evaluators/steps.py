"""The steps of a converted notebook: what each returns in a training, and trainings in which a step returns something else."""

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

ISO_DATE = re.compile(
    r"\d{4}-\d{2}(-\d{2}([T ].*)?)?|\d{4}/\d{2}/\d{2}"
)  # texts that are read as dates; no other is sure
NO_STEP = "as_frame"  # function of a converted module that only names the columns of features


@dataclass(frozen=True)
class StepSlot:
    """One value that a step returned: which call of the training, which step, which place among its values."""

    call: int
    step: str
    place: int
    value: Any  # a copy, as it was returned

    @property
    def where(self) -> tuple[int, int]:
        """What is the same in every training."""
        return self.call, self.place


@dataclass
class Seen:
    """What a training did: the values of its steps in their order, its results, the fitted objects that became forecasts."""

    slots: list[StepSlot] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)
    fitted: list[Any] = field(default_factory=list)
    calls: int = 0


Change = Callable[[StepSlot], Any]


def unchanged(slot: StepSlot) -> Any:
    """Return what the step returned."""
    return slot.value


@dataclass(frozen=True)
class Steps:
    """The functions that the training of a converted module calls."""

    module: str
    train: str

    @property
    def space(self) -> dict[str, Any]:
        """Where the functions are looked up."""
        return vars(sys.modules[self.module])

    @classmethod
    def of(cls, model: type[Model]) -> Steps:
        """Return the steps of a class; raises DataRefused where fit() calls no function of its module."""
        trains = functions_called(model.fit)
        if not trains:
            raise DataRefused(
                "fit() calls no function of its module that trains, as a converted notebook does",
                next="convert the notebook again, or write an Evaluator in a package of [d2c] packages",
            )
        return cls(model.fit.__module__, trains[0])

    @contextmanager
    def watched(self, change: Change = unchanged) -> Iterator[Seen]:
        """Note what the trainings inside do, in which every step returns what `change` gives for its values."""
        seen, inside = Seen(), [False]
        names = [name for name in functions_called(self.space[self.train]) if name != NO_STEP]
        before = {name: self.space[name] for name in [*names, self.train]}
        forecast_of = self.space.get("forecast_of")

        def step(name: str) -> Callable[..., Any]:
            def call(*given: Any, **words: Any) -> Any:
                if inside[0]:
                    return before[name](*given, **words)
                inside[0] = True
                try:
                    returned = before[name](*given, **words)
                finally:
                    inside[0] = False
                values = returned if isinstance(returned, tuple) else (returned,)
                changed = []
                for place, value in enumerate(values):
                    slot = StepSlot(seen.calls, name, place, _copy(value))
                    changed.append(change(slot))
                    seen.slots.append(StepSlot(slot.call, name, place, _copy(changed[-1])))
                seen.calls += 1
                return tuple(changed) if isinstance(returned, tuple) else changed[0]

            return call

        def training(*given: Any, **words: Any) -> Any:
            seen.slots.clear()
            seen.calls = 0
            seen.results.append(before[self.train](*given, **words))
            return seen.results[-1]

        def forecasting(fitted: Any, *given: Any, **words: Any) -> Any:
            seen.fitted.append(fitted)
            return forecast_of(fitted, *given, **words)  # type: ignore[misc]

        self.space.update({name: step(name) for name in names} | {self.train: training})
        if forecast_of is not None:
            self.space["forecast_of"] = forecasting
        try:
            yield seen
        finally:
            self.space.update(before | ({} if forecast_of is None else {"forecast_of": forecast_of}))


def functions_called(method: Any) -> list[str]:
    """Return the functions of the module that a function names, in their order."""
    space = method.__globals__
    return [name for name in method.__code__.co_names if isinstance(space.get(name), FunctionType)
            and not space[name].__module__.startswith("d2c_mlops.")]  # fmt: skip


def _copy(value: Any) -> Any:
    if isinstance(value, pd.DataFrame | pd.Series):
        return value.copy(deep=False)  # pandas copies what is written to
    return value.copy() if isinstance(value, np.ndarray) else value


def dates_of(value: Any, texts: bool = True) -> pd.DatetimeIndex | None:
    """Return the date of each row of a table or series without time zone, of its index or its first column of dates.

    `texts`: whether a column of texts that are all dates of ISO form counts. None where there are no dates.
    """
    if not isinstance(value, pd.DataFrame | pd.Series) or not len(value):
        return None
    for level in range(value.index.nlevels):
        if (found := _dates(value.index.get_level_values(level), texts)) is not None:
            return found
    for name in value.columns if isinstance(value, pd.DataFrame) else ():
        if isinstance(value[name], pd.Series) and (found := _dates(pd.Index(value[name]), texts)) is not None:
            return found
    return None


def _dates(values: pd.Index, texts: bool) -> pd.DatetimeIndex | None:
    if isinstance(values, pd.PeriodIndex):
        return values.to_timestamp()
    if isinstance(values, pd.DatetimeIndex):
        return values.tz_localize(None)
    known = values.dropna()
    if not texts or pd.api.types.is_numeric_dtype(values.dtype) or not len(known):
        return None
    if not all(isinstance(each, str) and ISO_DATE.fullmatch(each.strip()) for each in known):
        return None
    try:
        return pd.DatetimeIndex(pd.to_datetime(values, errors="coerce", utc=True)).tz_localize(None)
    except (ValueError, TypeError, OverflowError):
        return None


def rows_of(value: Any) -> int:
    """Return the rows of a table, series or array; -1 for anything else."""
    return len(value) if isinstance(value, pd.DataFrame | pd.Series | np.ndarray) and value.ndim else -1


def taken(value: Any, places: Any) -> Any:
    """Return some rows of a table, series or array by their place, numbered anew where their labels are numbers."""
    if isinstance(value, np.ndarray):
        return value[places]
    chosen = value.iloc[places]
    return chosen.reset_index(drop=True) if pd.api.types.is_integer_dtype(value.index.dtype) else chosen
