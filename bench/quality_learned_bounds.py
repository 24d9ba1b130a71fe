"""Bounds learned from history: Auto-Validate-by-History (Tu et al., KDD 2023, arXiv 2306.02421), written anew after the paper and its authors' code.

As in github.com/microsoft/Auto-Validate-by-History: 14 measures of a column of numbers and 20 of one of texts, of the batch and against the batch of the
day before; a window of 29 days; measures of one batch made stationary by the first of lags 0 to 10, then of logarithms, that passes the augmented
Dickey-Fuller test at 5 %; bounds of 1 to 10.5 standard deviations whose false positive rate is that of the central limit theorem, of Chebyshev's or (one
side, for distances) of Cantelli's inequality; 27 and 33 faults made up from the last batch; bounds chosen greedily by faults found over rate, at most one
for a measure, within a budget for each column, or the best single bound where that finds more.

What differs: empty cells are made empty (there zeros or the text NULL are appended, so that the share of empty cells is never chosen); a measure that
no lag makes stationary is left out; the Kolmogorov-Smirnov test is the asymptotic one; batches of more than 1,000 rows enter by 1,000 of them, their count
apart; where more than 30 days are judged, bounds are learned each week (there for each day). Batches are short here, so the budget is .001 of false
positives a day for each column, of the authors' list from .0005 to .5.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import erfc, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from quality_history_measures import DISTANCES, NUMBERS, TEXTS, Floats, number_measures, text_measures

WINDOW, BUDGET, MOST_ROWS = 29, 0.001, 1_000
WIDTHS = np.arange(1, 11, 0.5)
FALLS = ("KS", "chi-squared", "pattern chi-squared")  # probabilities: a fault lowers them
NORMAL = ("count", "mean", "length", "letters", "digits", "punctuation", "distinct")
ALARM_DAYS = 30  # days that are judged by bounds of their own; more are judged by those of their week


def is_distance(measure: str) -> bool:
    """Return whether a measure compares a batch with the one before."""
    return measure.split(" ")[-1] in (*DISTANCES, "EMD", "KS", "Cohen")


def rates(measures: Sequence[str]) -> Floats:
    """Return the false positive rate of each width (rows) and measure (columns)."""
    normal = np.array([max(erfc(width / sqrt(2)), 0.0002) for width in WIDTHS])
    columns = []
    for measure in measures:
        clt = measure in NORMAL or (measure in ("unique", "complete") and measures is TEXTS)
        columns.append(1 / (1 + WIDTHS**2) if is_distance(measure) else normal if clt else 1 / WIDTHS**2)
    return np.array(columns).T


# Faults that are made up.

Batch = npt.NDArray[Any]


def replaced(batch: Batch, share: float, change: Callable[[Batch], Batch], draw: np.random.Generator) -> Batch:
    """Return a batch with a share of its values changed."""
    result = batch.copy()
    places = draw.choice(len(batch), int(len(batch) * share), replace=False)
    result[places] = change(batch[places])
    return result


def cell_by_cell(change: Callable[[str], str], batch: Batch) -> Batch:
    """Return a batch of texts with each text changed."""
    return np.array([text if text is None else change(text) for text in batch], object)


def with_characters(batch: Batch, change: Callable[[str], str], is_number: bool) -> Batch:
    """Return a batch with the characters of all its values changed."""
    texts = [change(str(value)) for value in batch if value == value and value is not None]
    return np.array([parsed(text) for text in texts]) if is_number else np.array(texts, object)


def parsed(text: str) -> float:
    """Return a text as a number, 0 where it is none any more."""
    try:
        return float(text)
    except ValueError:
        return 0.0


def made_up(batch: Batch, neighbour: Batch | None, is_number: bool, draw: np.random.Generator) -> list[Batch]:
    """Return the batches of the faults that the authors make up."""
    alphabet = string.digits if is_number else string.digits + string.ascii_letters

    def pick() -> str:
        return alphabet[draw.integers(len(alphabet))]

    def perturbed(share: float, text: str) -> str:
        return "".join(pick() if char.isalnum() and draw.random() < share else char for char in text)

    def lengthened(share: float, text: str) -> str:
        return "".join(char + pick() if draw.random() < share else char for char in text)

    def shortened(share: float, text: str) -> str:
        return "".join(char for char in text if draw.random() >= share)

    empty = np.nan if is_number else None
    result = []
    if neighbour is not None and len(neighbour):
        result += [replaced(batch, p, lambda part: draw.choice(neighbour, len(part)), draw) for p in (0.1, 0.5, 1.0)]
    if is_number:
        result += [replaced(batch, p, partial(np.multiply, by), draw) for p in (0.1, 1.0) for by in (10, 100, 1000)]
    else:
        texts: list[Callable[[str], str]] = [str.upper, str.lower, lambda text: f" {text}", lambda text: f"{text} "]
        for change in texts:
            result += [replaced(batch, share, partial(cell_by_cell, change), draw) for share in (0.1, 0.5, 1.0)]
    result += [replaced(batch, p, lambda part: np.full(len(part), empty), draw) for p in (0.1, 0.5, 1.0)]
    result += [
        np.tile(batch, 2),
        np.tile(batch, 10),
        draw.choice(batch, len(batch) // 2, False),
        draw.choice(batch, len(batch) // 10, False),
    ]
    filled = [value for value in batch.tolist() if value is not None and value == value]
    counts = Counter(filled)
    ordered = np.array(sorted(filled, key=lambda value: (-counts[value], value)), batch.dtype)
    result += [part for p in (0.1, 0.5) if (n := int(len(ordered) * p)) for part in (ordered[:n], ordered[-n:])]
    for share in (0.1, 0.5, 1.0):
        result.append(with_characters(batch, partial(perturbed, share), is_number))
    for share in (0.1, 0.5):
        result.append(with_characters(batch, partial(lengthened, share), is_number))
        result.append(with_characters(batch, partial(shortened, share), is_number))
    return [part for part in result if len(part)]


# Bounds.


def is_stationary(series: Floats) -> bool:
    """Return whether the augmented Dickey-Fuller test (constant, lags by AIC) refuses a unit root at 5 %."""
    if len(series) < 12 or not np.isfinite(series).all() or np.ptp(series) == 0:
        return bool(len(series) and np.isfinite(series).all())
    change, rows = np.diff(series), len(series) - 1
    most = min(int(np.ceil(12 * (rows / 100) ** 0.25)), rows // 2 - 2)

    def fitted(lags: int, first: int) -> tuple[float, float]:
        columns = [
            series[first:-1],
            *(change[first - lag : rows - lag] for lag in range(1, lags + 1)),
            np.ones(rows - first),
        ]
        design, target = np.column_stack(columns), change[first:]
        inverse = np.linalg.pinv(design.T @ design)
        slope = inverse @ design.T @ target
        residual = float(((target - design @ slope) ** 2).sum())
        free = max(len(target) - design.shape[1], 1)
        aic = len(target) * np.log(max(residual, 1e-300) / len(target)) + 2 * design.shape[1]
        return float(aic), float(slope[0] / max(sqrt(max(residual / free * inverse[0, 0], 0.0)), 1e-300))

    lags = min(range(most + 1), key=lambda count: fitted(count, most)[0])
    limit = -2.86154 - 2.8903 / rows - 4.234 / rows**2 - 40.04 / rows**3  # MacKinnon 2010
    return fitted(lags, lags)[1] <= limit


def transform_of(series: Floats) -> tuple[bool, int] | None:
    """Return the logarithm and the lag that make a series stationary, None for none."""
    for use_log in (False, True):
        if use_log and not (series > 0).all():
            continue
        values = np.log(series) if use_log else series
        for lag in range(11):
            if is_stationary(values[lag:] - values[:-lag] if lag else values):
                return use_log, lag
    return None


def chosen(finds: npt.NDArray[np.bool_], rate: Floats) -> list[tuple[int, int]]:
    """Return the widths and measures chosen greedily by `finds` (faults, widths, measures) within the budget."""
    open_measures, found, cost = np.ones(rate.shape[1], bool), np.zeros(len(finds), bool), 0.0
    bounds: list[tuple[int, int]] = []
    while open_measures.any():
        gain = np.where(open_measures, (finds & ~found[:, None, None]).sum(axis=0) / rate, -1.0)
        width, measure = np.unravel_index(int(gain.argmax()), gain.shape)
        if gain[width, measure] <= 0:
            break
        if cost + rate[width, measure] < BUDGET:
            bounds.append((int(width), int(measure)))
            cost, found = cost + rate[width, measure], found | finds[:, width, measure]
        open_measures[measure] = False
    single = np.where(rate < BUDGET, finds.sum(axis=0), 0)
    if single.size and single.max() > found.sum():
        width, measure = np.unravel_index(int(single.argmax()), single.shape)
        return [(int(width), int(measure))]
    return bounds


@dataclass
class ColumnBounds:
    """One column by day: its measures, how each is made stationary, and the bounds that are in force."""

    batches: list[Batch]
    scales: list[float]
    neighbour: list[Batch] | None
    is_number: bool
    first: int  # place of the first day that is judged
    names: tuple[str, ...] = ()
    measured: Floats = field(default_factory=lambda: np.empty((0, 0)))
    transforms: list[tuple[bool, int] | None] = field(default_factory=list)
    bounds: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = NUMBERS if self.is_number else TEXTS
        start = max(self.first - WINDOW - 11, 1)
        rows = [
            self.measure(self.batches[n], n) if n >= start else [np.nan] * len(self.names)
            for n in range(len(self.batches))
        ]
        self.measured = np.array(rows, float)
        past = self.measured[max(self.first - WINDOW, 1) : self.first]
        known = [column[np.isfinite(column)] for column in past.T]
        self.transforms = [
            (False, 0) if is_distance(name) else transform_of(known[n]) for n, name in enumerate(self.names)
        ]

    def measure(self, batch: Batch, place: int) -> list[float]:
        """Return the measures of a batch at the place of a day, against the day before."""
        before, scale = self.batches[place - 1], self.scales[place]
        if self.is_number:
            return number_measures(batch, before, scale)
        return text_measures(batch.tolist(), before.tolist(), scale)

    def stationary(self, measures: Floats, place: int) -> Floats:
        """Return measures at the place of a day, made stationary."""
        result = np.full(len(self.names), np.nan)
        for n, transform in enumerate(self.transforms):
            if transform is not None:
                use_log, lag = transform
                pair = np.array([measures[n], self.measured[place - lag, n] if lag else 1.0 if use_log else 0.0])
                with np.errstate(divide="ignore", invalid="ignore"):
                    pair = np.log(pair) if use_log else pair
                result[n] = pair[0] - pair[1]
        return result

    def limits(self, place: int) -> tuple[Floats, Floats]:
        """Return the mean and the standard deviation of each measure in the window before the place of a day."""
        past = np.array([self.stationary(self.measured[n], n) for n in range(max(place - WINDOW, 1), place)])
        past = np.where(np.isfinite(past), past, np.nan)
        return np.nanmean(past, axis=0), np.nanstd(past, axis=0)

    def outside(self, measures: Floats, place: int, limits: tuple[Floats, Floats]) -> npt.NDArray[np.bool_]:
        """Return by width and measure whether measures at the place of a day are out of bounds."""
        mean, spread = limits
        values = self.stationary(measures, place)
        room = WIDTHS[:, None] * spread + 1e-5
        above, below = values > mean + room, values < mean - room
        one_side = np.array([is_distance(name) for name in self.names])
        falls = np.array([name in FALLS for name in self.names])
        return np.where(one_side, np.where(falls, below, above), above | below)

    def learn(self, place: int, draw: np.random.Generator) -> None:
        """Choose the bounds of a day by faults made up from the day before."""
        batch = self.batches[place - 1]
        self.bounds = []
        if len(batch) < 10:
            return
        neighbour = None if self.neighbour is None else self.neighbour[place - 1]
        faults = made_up(batch, neighbour, self.is_number, draw)
        limits = self.limits(place)
        finds = [self.outside(np.array(self.measure(fault, place), float), place, limits) for fault in faults]
        self.bounds = chosen(np.array(finds), rates(self.names))

    def broken(self, place: int) -> list[str]:
        """Return the measures of a day that break their bounds."""
        outside = self.outside(self.measured[place], place, self.limits(place))
        return [self.names[measure] for width, measure in self.bounds if outside[width, measure]]


def columns_by_day(frame: pd.DataFrame, days: Sequence[pd.Timestamp], first: int) -> dict[str, ColumnBounds]:
    """Return the columns of a table for some consecutive days."""
    draw = np.random.default_rng(7)
    parts, scales = [], []
    by_day = dict(iter(frame.groupby("day")))
    for day in days:
        part = by_day.get(day, frame.iloc[:0])
        scales.append(max(len(part) / MOST_ROWS, 1.0))
        parts.append(
            part.sample(MOST_ROWS, random_state=int(draw.integers(1 << 30))) if len(part) > MOST_ROWS else part
        )
    batches: dict[bool, dict[str, list[Batch]]] = {True: {}, False: {}}
    for name in frame.columns.drop("day"):
        is_number = pd.api.types.is_numeric_dtype(frame[name]) and not str(name).lower().endswith(("id", "no"))
        as_values: Callable[[pd.Series], Batch] = (
            (lambda column: column.to_numpy(float, na_value=np.nan)) if is_number
            else lambda column: np.array([None if pd.isna(value) else str(value) for value in column], object)
        )  # fmt: skip
        batches[is_number][str(name)] = [as_values(part[name]) for part in parts]
    columns = {}
    for is_number, of_kind in batches.items():
        names = list(of_kind)
        for n, name in enumerate(names):
            near = of_kind[names[n + 1 if n + 1 < len(names) else n - 1]] if len(names) > 1 else None
            columns[name] = ColumnBounds(of_kind[name], scales, near, is_number, first)
    return columns


def batch_days(frame: pd.DataFrame, judged: Sequence[pd.Timestamp]) -> list[pd.Timestamp]:
    """Return the days of batches up to the last one that is judged: those of weekdays on which a batch came before, three months back."""
    calendar = pd.date_range(judged[0] - pd.Timedelta(days=3 * WINDOW), judged[-1])
    before = frame.loc[frame["day"].between(calendar[0], judged[0] - pd.Timedelta(days=1)), "day"]
    weekdays = set(before.dt.weekday)
    return [day for day in calendar if day.weekday() in weekdays]


def learned_bounds(
    tables: dict[str, pd.DataFrame], judged: Sequence[pd.Timestamp]
) -> list[tuple[pd.Timestamp, str, str, str]]:
    """Return day, table, column and measure of each bound that a day breaks, of bounds that are learned from the days before."""
    alarms = []
    draw = np.random.default_rng(3)
    weekly = len(judged) > ALARM_DAYS
    for name, frame in tables.items():
        days = batch_days(frame, judged)
        first = next((place for place, day in enumerate(days) if day >= judged[0]), len(days))
        places = {day: place for place, day in enumerate(days)}
        for column, bounds in columns_by_day(frame, days, first).items():
            for n, day in enumerate(judged):
                if (place := places.get(day, 0)) <= WINDOW:
                    continue
                if n == 0 or not weekly or n % 7 == 0:
                    bounds.learn(place, draw)
                alarms += [(day, name, column, measure) for measure in bounds.broken(place)]
    return alarms
