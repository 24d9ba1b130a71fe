"""The series that a converted notebook forecasts: its numbers and days, and how its last periods are held back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from d2c_mlops.errors import DataRefused
from d2c_mlops.models.forecasting.baselines import last_year, seasonal_naive, weekday_mean
from d2c_mlops.models.forecasting.panel import Panel
from d2c_mlops.models.forecasting.periods import Freq
from d2c_mlops.registry.evaluators import FACTOR
from d2c_mlops.registry.evaluators.outcomes import FORMS, Outcome
from d2c_mlops.registry.evaluators.steps import Change, Seen, StepSlot, dates_of, rows_of

FEWEST, MOST = 4, 1000  # periods of a series; series in one table of records
PERIODS: Mapping[Freq, tuple[float, float]] = {
    "D": (0.9, 1.1),
    "W": (6.9, 7.1),
    "M": (27, 32),
}  # days between two periods
YEARS = ((80, 100, 4), (0.04, 0.042, 24 * 364))  # days between two periods, from and to, and the periods of a year
Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Column:
    """A column of what a step returned that holds the series, in a form such as log1p."""

    where: tuple[int, int]
    name: Any  # of a table's column, the number of an array's, None of a series
    form: str
    first: int  # row of the first period that the model is fitted on


@dataclass(frozen=True)
class Whole:
    """A series with all its periods, in the unit in which it is forecast."""

    numbers: Array
    dates: pd.DatetimeIndex | None  # of each period
    season: int  # periods that the model calls a season; 0 = none
    column: Column | None  # where the series is handed out; None where no step does
    offset: int  # row of the first period in that column
    dated: tuple[tuple[int, int], ...]  # what steps returned that has dates
    distinct: tuple[pd.Timestamp, ...]  # dates of the first of them
    larger: bool = False  # whether the numbers are multiplied

    @property
    def names(self) -> list[str]:
        """Return a name for each period."""
        if self.dates is None:
            return [f"period {number:06d}" for number in range(1, len(self.numbers) + 1)]
        return [f"{day:%Y-%m-%d}" if day == day.normalize() else day.isoformat() for day in self.dates]

    def multiplied(self, slot: StepSlot) -> Any:
        """Return what a step returned, with the numbers of the series multiplied."""
        if self.column is not None:
            return _times(slot.value, [self.column.name]) if slot.where == self.column.where else slot.value
        if not self.dated or slot.where != self.dated[0]:
            return slot.value
        value = slot.value
        return _times(value, list(value.select_dtypes("number")) if isinstance(value, pd.DataFrame) else [None])

    def times(self, plain: Whole) -> Whole:
        """Return this series, of which the plain one is multiplied."""
        return replace(
            self, larger=True, column=plain.column, offset=plain.offset, dated=plain.dated, distinct=plain.distinct
        )

    def without(self, back: int) -> Iterator[Change]:
        """Yield the ways to hold the last periods back from the steps, the earliest step first."""
        known = len(self.numbers) - back
        bounds: list[pd.Timestamp] = []
        if self.dates is not None:
            last, following = self.dates[known - 1], self.dates[known]
            until = last + (pd.Timedelta(days=1) if last == last.normalize() else pd.Timedelta(1))
            bounds = list(dict.fromkeys([following, min(following, until)]))
        elif self.column is None and len(self.distinct) > back:
            bounds = [self.distinct[-back]]
        for texts in (True, False) if self.dated else ():
            for bound in bounds:
                yield self._changing(lambda slot, bound=bound, texts=texts: _before(slot.value, bound, texts))  # type: ignore[misc]
        if self.column is not None:
            where, rows = self.column.where, self.offset + known
            yield self._changing(lambda slot: slot.value[:rows] if slot.where == where else slot.value)

    def _changing(self, change: Change) -> Change:
        if not self.larger:
            return change
        return lambda slot: change(replace(slot, value=self.multiplied(slot)))

    def place(self, values: Array, dates: pd.DatetimeIndex | None, known: int) -> tuple[int | None, str]:
        """Return how many periods of this series lie before the end of another one; or in which period the two differ.

        None where the other one is no part of this; its last period may be incomplete, as a week is on a Wednesday.
        """
        if self.dates is None or dates is None:
            ends = [
                *range(min(known, len(self.numbers)), len(values) - 1, -1),
                *range(known + 1, len(self.numbers) + 1),
            ]
            fits = (
                end
                for end in ends
                if end >= len(values) and _alike(self.numbers[end - len(values) : end], values).all()
            )
            return next(fits, None), ""
        end = int(self.dates.searchsorted(dates[-1], side="right"))
        both = min(end, len(values))
        if not both or not self.dates[end - both : end].equals(dates[-both:]):
            return None, ""
        alike = _alike(self.numbers[end - both : end], values[-both:])
        if alike.all():
            return end, ""
        if alike[:-1].all():
            return None, ""
        row = int(np.flatnonzero(~alike)[0])
        was, now = self.numbers[end - both + row], values[len(values) - both + row]
        return None, f"{self.names[end - both + row]} is {now:g} instead of {was:g}"


def series_of(fitted: Any) -> tuple[Array, pd.DatetimeIndex | None]:
    """Return the numbers and dates that a statsmodels, pmdarima or Prophet model was fitted on; None without dates."""
    if hasattr(fitted, "make_future_dataframe"):
        return fitted.history["y"].to_numpy(np.float64), pd.DatetimeIndex(fitted.history["ds"])
    model = fitted.arima_res_.model if hasattr(fitted, "arima_res_") else fitted.model
    numbers = np.asarray(model.endog, np.float64)
    if numbers.ndim > 1 and numbers.shape[1] > 1:
        raise DataRefused(
            "it forecasts several series at once", next="write an Evaluator in a package of [d2c] packages"
        )
    found = getattr(model.data, "dates", None)
    dates = found.to_timestamp() if isinstance(found, pd.PeriodIndex) else found
    return numbers.ravel(), dates.tz_localize(None) if isinstance(dates, pd.DatetimeIndex) else None


def whole_of(seen: Seen) -> Whole:
    """Return the series of a training; raises DataRefused where it is too short."""
    values, dates = series_of(seen.fitted[-1])
    if len(values) < FEWEST:
        raise DataRefused(
            f"its series has {len(values)} periods, too few to hold some back", next="bring a longer series"
        )
    season = int(getattr(getattr(seen.fitted[-1], "model", None), "seasonal_periods", 0) or 0)
    with_dates = [(slot, found) for slot in seen.slots if (found := dates_of(slot.value)) is not None]
    dated = tuple(slot.where for slot, _ in with_dates)
    distinct = tuple(with_dates[0][1].dropna().unique().sort_values()) if with_dates else ()
    column = next((each for slot in seen.slots if (each := _column(slot, values)) is not None), None)
    whole = Whole(values, dates, season, column, column.first if column else 0, dated, distinct)
    if column is None:
        return whole
    value = next(slot.value for slot in seen.slots if slot.where == column.where)
    longer, days = _in_form(_numbers(value, column.name), column.form), dates_of(value)
    own = slice(column.first, column.first + len(values))
    if len(longer) == own.stop + 1:  # a period that is not over yet, which a later step leaves out
        longer, days = longer[:-1], None if days is None else days[:-1]
    if dates is None or (days is not None and days[own].equals(dates)):
        steady = days is not None and days.is_monotonic_increasing and days.is_unique
        return replace(whole, numbers=longer, dates=days if steady else None, offset=0)
    return whole


def naive(whole: Whole, end: int, horizon: int) -> dict[str, Array]:
    """Return what needs no model, for the periods after the first `end`: values [horizon] by name."""
    past = whole.numbers[:end]
    seen = past[np.isfinite(past)]
    found = {"last value": np.full(horizon, seen[-1] if len(seen) else np.nan)}
    days = (
        np.diff(whole.dates[:end].to_numpy()) / np.timedelta64(1, "D")
        if whole.dates is not None and end > 1
        else np.array([])
    )
    usual = float(np.median(days)) if len(days) else 0.0
    freq = next((each for each, (low, high) in PERIODS.items() if low <= usual <= high), None)
    open_days = whole.dates is not None and len(days) > 0 and bool((whole.dates[:end].day_of_week < 5).all())
    seasons = {"last season": whole.season}
    if freq is not None and not (freq == "D" and open_days) and whole.dates is not None:
        panel = Panel(freq, whole.dates[:end].to_numpy().astype("datetime64[D]"), ("series",), past[:, None], gaps=True)
        if freq == "D":
            found["last week"] = seasonal_naive(panel, horizon)[:, 0]
            found["weekday mean of 8 weeks"] = weekday_mean(panel, horizon)[:, 0]
        if (then := last_year(panel, horizon)) is not None:
            found["same period of last year"] = then[:, 0]
        if whole.season in {"D": (7, 364), "W": (52,), "M": (12,)}[freq]:
            seasons = {}
    elif freq == "D" and open_days:
        seasons |= {"last week": 5, "same period of last year": 260}
    else:
        seasons |= {"same period of last year": next((many for low, high, many in YEARS if low <= usual <= high), 0)}
        seasons |= {"last day": 24, "last week": 168} if usual and usual < 0.042 else {}
    for name, periods in seasons.items():
        if 1 < periods <= len(past):
            again = past[-periods:]
            found[name] = again[np.arange(horizon) % periods]
    return found


def by_series(kept: pd.DataFrame, out: pd.DataFrame, days: np.ndarray[Any, Any], outcome: Outcome) -> dict[str, Array]:
    """Return what `naive` says of later records, of which each is a period of a series, alone or named by a column of texts.

    `days` are those of the earlier and the later records. Nothing where several records have the same period.
    """
    every = pd.DataFrame({"day": days, "came": np.r_[outcome.values(kept), outcome.values(out)]})
    every["place"] = np.r_[np.full(len(kept), -1), np.arange(len(out))]
    texts = [name for name in kept.columns if not pd.api.types.is_numeric_dtype(kept[name].dtype)]
    keys = [
        kept[name].tolist() + out[name].tolist()
        for name in texts
        if dates_of(kept[[name]].reset_index(drop=True)) is None
    ]
    alone = [0] * len(every)
    for key in [alone, *keys]:
        every["series"] = pd.factorize(pd.Series(key, dtype=object))[0]
        if not every.duplicated(["series", "day"]).any() and every["series"].nunique() <= min(MOST, len(kept) // 2):
            break
    else:
        return {}
    found: dict[str, Array] = {}
    for _, part in every.sort_values("day", kind="stable").groupby("series"):
        end, places = int((part["place"] < 0).sum()), part.loc[part["place"] >= 0, "place"].to_numpy()
        if end and len(places):
            whole = Whole(part["came"].to_numpy(), pd.DatetimeIndex(part["day"]), 0, None, 0, (), ())
            for name, values in naive(whole, end, len(places)).items():
                found.setdefault(name, np.full(len(out), np.nan))[places] = values
    return found


def _column(slot: StepSlot, values: Array) -> Column | None:
    """Return the column of what a step returned in which the values stand one after another."""
    if rows_of(slot.value) < len(values):
        return None
    value = slot.value
    names: list[Any] = list(value.columns) if isinstance(value, pd.DataFrame) else [None]
    if isinstance(value, np.ndarray):
        names = [None] if value.ndim == 1 else list(range(value.shape[1])) if value.ndim == 2 else []
    for name in names:
        numbers = _numbers(value, name)
        for form in FORMS if len(numbers) else ():
            made = _in_form(numbers, form)
            starts = np.flatnonzero(_alike(made[: len(made) - len(values) + 1], values[0]))
            for first in starts[::-1].tolist():
                if _alike(made[first : first + len(values)], values).all():
                    return Column(slot.where, name, form, first)
    return None


def _numbers(value: Any, name: Any) -> Array:
    """Return a column as numbers; none where it holds others."""
    column = value if name is None else value[:, name] if isinstance(value, np.ndarray) else value[name]
    if not isinstance(column, np.ndarray | pd.Series) or not pd.api.types.is_numeric_dtype(column.dtype):
        return np.array([])
    return column.astype(np.float64) if isinstance(column, np.ndarray) else column.to_numpy(np.float64, na_value=np.nan)


def _in_form(numbers: Array, form: str) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(FORMS[form](numbers), dtype=np.float64)


def _alike(left: Any, right: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.asarray(np.isclose(left, right, rtol=1e-9, atol=1e-9, equal_nan=True))


def _times(value: Any, names: list[Any]) -> Any:
    """Return a table, series or array with some of its columns multiplied."""
    if isinstance(value, pd.DataFrame):
        return value.assign(**{name: value[name] * FACTOR for name in names})
    if names == [None]:
        return value * FACTOR
    changed = value.copy()
    changed[:, names] = changed[:, names] * FACTOR
    return changed


def _before(value: Any, bound: pd.Timestamp, texts: bool) -> Any:
    """Return the rows of a table or series before a moment; anything without dates as it is."""
    dates = dates_of(value, texts)
    return value if dates is None else value[np.asarray(dates < bound)]
