"""The series that a converted notebook forecasts: its numbers and dates, and how its last periods are held out."""

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
from d2c_mlops.registry.evaluators.outcome_column import FORMS, Outcome
from d2c_mlops.registry.evaluators.step_recording import Change, RecordedTraining, StepResult, number_of_rows, row_dates

FEWEST, MOST = 4, 1000  # periods of a series; series in one table of records
PERIODS: Mapping[Freq, tuple[float, float]] = {
    "D": (0.9, 1.1),
    "W": (6.9, 7.1),
    "M": (27, 32),
}  # days between two periods
YEARS = ((80, 100, 4), (0.04, 0.042, 24 * 364))  # days between two periods, from and to, and the periods of a year
Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class SeriesColumn:
    """A column of a step's value that contains the series, with a transform such as log1p."""

    position: tuple[int, int]
    name: Any  # name of a table's column, number of an array's column, None for a series
    form: str
    first_row: int  # row of the first period in the training


@dataclass(frozen=True)
class FullSeries:
    """A series with all its periods, in the unit of the forecast."""

    numbers: Array
    dates: pd.DatetimeIndex | None  # of each period
    season: int  # periods of a season in the model; 0 = none
    column: SeriesColumn | None  # the step's value that contains the series; None if no step returns it
    offset: int  # row of the first period in that column
    dated: tuple[tuple[int, int], ...]  # steps' values with dates
    distinct: tuple[pd.Timestamp, ...]  # dates of the first of these values
    larger: bool = False  # whether the numbers are multiplied

    @property
    def names(self) -> list[str]:
        """Return a name for each period."""
        if self.dates is None:
            return [f"period {number:06d}" for number in range(1, len(self.numbers) + 1)]
        return [f"{day:%Y-%m-%d}" if day == day.normalize() else day.isoformat() for day in self.dates]

    def multiply(self, step_result: StepResult) -> Any:
        """Return a step's value with the numbers of the series multiplied."""
        if self.column is not None:
            return (
                _multiply_columns(step_result.value, [self.column.name])
                if step_result.position == self.column.position
                else step_result.value
            )
        if not self.dated or step_result.position != self.dated[0]:
            return step_result.value
        value = step_result.value
        return _multiply_columns(
            value, list(value.select_dtypes("number")) if isinstance(value, pd.DataFrame) else [None]
        )

    def as_multiplied_from(self, plain: FullSeries) -> FullSeries:
        """Return this series as the multiplied form of the plain one."""
        return replace(
            self, larger=True, column=plain.column, offset=plain.offset, dated=plain.dated, distinct=plain.distinct
        )

    def holdout_changes(self, holdout_length: int) -> Iterator[Change]:
        """Yield the ways to hide the last periods from the steps, the earliest step first."""
        length = len(self.numbers) - holdout_length
        bounds: list[pd.Timestamp] = []
        if self.dates is not None:
            last, following = self.dates[length - 1], self.dates[length]
            until = last + (pd.Timedelta(days=1) if last == last.normalize() else pd.Timedelta(1))
            bounds = list(dict.fromkeys([following, min(following, until)]))
        elif self.column is None and len(self.distinct) > holdout_length:
            bounds = [self.distinct[-holdout_length]]
        for texts in (True, False) if self.dated else ():
            for bound in bounds:
                yield self._value_change(
                    lambda result, bound=bound, texts=texts: _rows_before(result.value, bound, texts)  # type: ignore[misc]
                )
        if self.column is not None:
            where, rows = self.column.position, self.offset + length
            yield self._value_change(
                lambda step_result: step_result.value[:rows] if step_result.position == where else step_result.value
            )

    def _value_change(self, change: Change) -> Change:
        if not self.larger:
            return change
        return lambda step_result: change(replace(step_result, value=self.multiply(step_result)))

    def end_of(self, values: Array, dates: pd.DatetimeIndex | None, length: int) -> tuple[int | None, str]:
        """Return how many periods of this series lie before the end of another series, or the period in which the two differ.

        None if the other series is not a part of this; its last period may be incomplete, as a week is on a Wednesday.
        """
        if self.dates is None or dates is None:
            ends = [
                *range(min(length, len(self.numbers)), len(values) - 1, -1),
                *range(length + 1, len(self.numbers) + 1),
            ]
            fits = (
                end
                for end in ends
                if end >= len(values) and _is_close(self.numbers[end - len(values) : end], values).all()
            )
            return next(fits, None), ""
        end = int(self.dates.searchsorted(dates[-1], side="right"))
        both = min(end, len(values))
        if not both or not self.dates[end - both : end].equals(dates[-both:]):
            return None, ""
        alike = _is_close(self.numbers[end - both : end], values[-both:])
        if alike.all():
            return end, ""
        if alike[:-1].all():
            return None, ""
        row = int(np.flatnonzero(~alike)[0])
        was, now = self.numbers[end - both + row], values[len(values) - both + row]
        return None, f"{self.names[end - both + row]} is {now:g} instead of {was:g}"


def training_series(fitted: Any) -> tuple[Array, pd.DatetimeIndex | None]:
    """Return the numbers and dates of the training series of a statsmodels, pmdarima or Prophet model; None without dates."""
    if hasattr(fitted, "make_future_dataframe"):
        return fitted.history["y"].to_numpy(np.float64), pd.DatetimeIndex(fitted.history["ds"])
    model = fitted.arima_res_.model if hasattr(fitted, "arima_res_") else fitted.model
    numbers = np.asarray(model.endog, np.float64)
    if numbers.ndim > 1 and numbers.shape[1] > 1:
        raise DataRefused(
            "it forecasts several series at once", next="write an Evaluator in a package of [d2c] packages"
        )
    index = getattr(model.data, "dates", None)
    dates = index.to_timestamp() if isinstance(index, pd.PeriodIndex) else index
    return numbers.ravel(), dates.tz_localize(None) if isinstance(dates, pd.DatetimeIndex) else None


def full_series_of(recorded_training: RecordedTraining) -> FullSeries:
    """Return the series of a training. Raises DataRefused if it is too short."""
    values, dates = training_series(recorded_training.fitted[-1])
    if len(values) < FEWEST:
        raise DataRefused(
            f"its series has {len(values)} periods, too few for a holdout", next="provide a longer series"
        )
    season = int(getattr(getattr(recorded_training.fitted[-1], "model", None), "seasonal_periods", 0) or 0)
    with_dates = [
        (step_result, dates_found)
        for step_result in recorded_training.step_results
        if (dates_found := row_dates(step_result.value)) is not None
    ]
    dated = tuple(step_result.position for step_result, _ in with_dates)
    distinct = tuple(with_dates[0][1].dropna().unique().sort_values()) if with_dates else ()
    column = next(
        (
            candidate
            for step_result in recorded_training.step_results
            if (candidate := _column_with(step_result, values)) is not None
        ),
        None,
    )
    whole = FullSeries(values, dates, season, column, column.first_row if column else 0, dated, distinct)
    if column is None:
        return whole
    value = next(
        step_result.value for step_result in recorded_training.step_results if step_result.position == column.position
    )
    longer, days = _transform_column(_column_numbers(value, column.name), column.form), row_dates(value)
    period_rows = slice(column.first_row, column.first_row + len(values))
    if len(longer) == period_rows.stop + 1:  # an incomplete last period, which a later step removes
        longer, days = longer[:-1], None if days is None else days[:-1]
    if dates is None or (days is not None and days[period_rows].equals(dates)):
        steady = days is not None and days.is_monotonic_increasing and days.is_unique
        return replace(whole, numbers=longer, dates=days if steady else None, offset=0)
    return whole


def naive_forecasts(full_series: FullSeries, training_length: int, horizon: int) -> dict[str, Array]:
    """Return baseline forecasts for the periods after the first `training_length`: values [horizon] by name."""
    past = full_series.numbers[:training_length]
    finite = past[np.isfinite(past)]
    forecasts = {"last value": np.full(horizon, finite[-1] if len(finite) else np.nan)}
    days = (
        np.diff(full_series.dates[:training_length].to_numpy()) / np.timedelta64(1, "D")
        if full_series.dates is not None and training_length > 1
        else np.array([])
    )
    usual = float(np.median(days)) if len(days) else 0.0
    freq = next((frequency for frequency, (low, high) in PERIODS.items() if low <= usual <= high), None)
    open_days = (
        full_series.dates is not None
        and len(days) > 0
        and bool((full_series.dates[:training_length].day_of_week < 5).all())
    )
    seasons = {"last season": full_series.season}
    if freq is not None and not (freq == "D" and open_days) and full_series.dates is not None:
        panel = Panel(
            freq,
            full_series.dates[:training_length].to_numpy().astype("datetime64[D]"),
            ("series",),
            past[:, None],
            gaps=True,
        )
        if freq == "D":
            forecasts["last week"] = seasonal_naive(panel, horizon)[:, 0]
            forecasts["weekday mean of 8 weeks"] = weekday_mean(panel, horizon)[:, 0]
        if (then := last_year(panel, horizon)) is not None:
            forecasts["same period of last year"] = then[:, 0]
        if full_series.season in {"D": (7, 364), "W": (52,), "M": (12,)}[freq]:
            seasons = {}
    elif freq == "D" and open_days:
        seasons |= {"last week": 5, "same period of last year": 260}
    else:
        seasons |= {"same period of last year": next((many for low, high, many in YEARS if low <= usual <= high), 0)}
        seasons |= {"last day": 24, "last week": 168} if usual and usual < 0.042 else {}
    for name, periods in seasons.items():
        if 1 < periods <= len(past):
            again = past[-periods:]
            forecasts[name] = again[np.arange(horizon) % periods]
    return forecasts


def naive_forecasts_by_series(
    training: pd.DataFrame, holdout: pd.DataFrame, days: np.ndarray[Any, Any], outcome: Outcome
) -> dict[str, Array]:
    """Return baseline forecasts for later records; each record is a period of one series, or of the series that a text column names.

    `days` are those of the earlier and the later records. Empty if several records have the same period.
    """
    every = pd.DataFrame({"day": days, "came": np.r_[outcome.values(training), outcome.values(holdout)]})
    every["place"] = np.r_[np.full(len(training), -1), np.arange(len(holdout))]
    texts = [name for name in training.columns if not pd.api.types.is_numeric_dtype(training[name].dtype)]
    keys = [
        training[name].tolist() + holdout[name].tolist()
        for name in texts
        if row_dates(training[[name]].reset_index(drop=True)) is None
    ]
    alone = [0] * len(every)
    for key in [alone, *keys]:
        every["series"] = pd.factorize(pd.Series(key, dtype=object))[0]
        if not every.duplicated(["series", "day"]).any() and every["series"].nunique() <= min(MOST, len(training) // 2):
            break
    else:
        return {}
    forecasts: dict[str, Array] = {}
    for _, part in every.sort_values("day", kind="stable").groupby("series"):
        end, places = int((part["place"] < 0).sum()), part.loc[part["place"] >= 0, "place"].to_numpy()
        if end and len(places):
            whole = FullSeries(part["came"].to_numpy(), pd.DatetimeIndex(part["day"]), 0, None, 0, (), ())
            for name, values in naive_forecasts(whole, end, len(places)).items():
                forecasts.setdefault(name, np.full(len(holdout), np.nan))[places] = values
    return forecasts


def _column_with(step_result: StepResult, values: Array) -> SeriesColumn | None:
    """Return the column of a step's value that contains the values in a row."""
    if number_of_rows(step_result.value) < len(values):
        return None
    value = step_result.value
    names: list[Any] = list(value.columns) if isinstance(value, pd.DataFrame) else [None]
    if isinstance(value, np.ndarray):
        names = [None] if value.ndim == 1 else list(range(value.shape[1])) if value.ndim == 2 else []
    for name in names:
        numbers = _column_numbers(value, name)
        for form in FORMS if len(numbers) else ():
            transformed = _transform_column(numbers, form)
            starts = np.flatnonzero(_is_close(transformed[: len(transformed) - len(values) + 1], values[0]))
            for first in starts[::-1].tolist():
                if _is_close(transformed[first : first + len(values)], values).all():
                    return SeriesColumn(step_result.position, name, form, first)
    return None


def _column_numbers(value: Any, name: Any) -> Array:
    """Return a column as numbers; empty if it is not numeric."""
    column = value if name is None else value[:, name] if isinstance(value, np.ndarray) else value[name]
    if not isinstance(column, np.ndarray | pd.Series) or not pd.api.types.is_numeric_dtype(column.dtype):
        return np.array([])
    return column.astype(np.float64) if isinstance(column, np.ndarray) else column.to_numpy(np.float64, na_value=np.nan)


def _transform_column(numbers: Array, transform_name: str) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(FORMS[transform_name](numbers), dtype=np.float64)


def _is_close(first: Any, second: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.asarray(np.isclose(first, second, rtol=1e-9, atol=1e-9, equal_nan=True))


def _multiply_columns(value: Any, names: list[Any]) -> Any:
    """Return a table, series or array with some of its columns multiplied."""
    if isinstance(value, pd.DataFrame):
        return value.assign(**{name: value[name] * FACTOR for name in names})
    if names == [None]:
        return value * FACTOR
    changed = value.copy()
    changed[:, names] = changed[:, names] * FACTOR
    return changed


def _rows_before(value: Any, end_time: pd.Timestamp, texts: bool) -> Any:
    """Return the rows of a table or series before a moment; anything without dates as it is."""
    dates = row_dates(value, texts)
    return value if dates is None else value[np.asarray(dates < end_time)]
