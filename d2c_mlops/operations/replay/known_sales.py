"""Sales and dataset as they were known on each day of a replay: late rows and late outcomes stay late."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, timedelta
from functools import cached_property

import numpy as np
import pandas as pd

from d2c_mlops.data.tables import LEARNED_LATER, Tables
from d2c_mlops.models.forecasting.backtest import align
from d2c_mlops.models.forecasting.panel import Panel, panel_of
from d2c_mlops.models.forecasting.periods import Freq
from d2c_mlops.models.forecasting.plans.stock_outs import stock_outs, without_stock_outs
from d2c_mlops.models.forecasting.smoothing import Array
from d2c_mlops.monitoring.daily_series import DailySeries
from d2c_mlops.monitoring.drift import DriftPass, DriftReport, find_drift
from d2c_mlops.monitoring.table_series import table_series

LONGEST = 20_000  # days of history; all of it


class KnownSales:
    """Units by series and period, in hindsight and as known on a day."""

    def __init__(self, tables: Tables, last: date, by: str, freq: Freq) -> None:
        self.tables, self.by, self.freq = tables, by, freq
        self.hindsight = panel_of(tables, last, by, freq, LONGEST)
        scored = without_stock_outs(self.hindsight, stock_outs(tables, self.hindsight, by))
        self.outcomes: Array = scored.observed_units(0, len(scored.dates))  # NaN = not known, or out of stock
        self._panels: dict[date, Panel] = {}

    @cached_property
    def has_late_rows(self) -> bool:
        """Whether anything became known of a sale after its day, such as a return; then each day has a panel of its own."""
        for name, columns in LEARNED_LATER.items():
            if name != "leads" and name in self.tables:
                frame = self.tables[name]
                if any(column in frame and bool(frame[column].notna().any()) for column in columns):
                    return True
        return False

    def place(self, day: date) -> int:
        """Return how many periods of the hindsight are over at the end of a day."""
        return int(np.searchsorted(self.hindsight.dates, np.datetime64(day, "D"), side="right"))

    def panel(self, day: date) -> Panel:
        """Return the panel as known at the end of a day, with all series of the hindsight."""
        if not self.has_late_rows:
            return self.hindsight.until(self.place(day))
        if day not in self._panels:
            self._panels[day] = align(panel_of(self.tables, day, self.by, self.freq, LONGEST), self.hindsight.series)
        return self._panels[day]


class DatasetEvidence:
    """Evidence for a change of the dataset, as a look on each day finds it."""

    def __init__(self, tables: Tables, looks: Sequence[date], false_alarms: float) -> None:
        self.tables, self.looks, self.false_alarms = tables, looks, false_alarms
        self._series: dict[date, DailySeries] = {}

    def series(self, day: date) -> DailySeries:
        """Return the daily series of the dataset as known at the end of a day."""
        if day not in self._series and self.is_shared:
            return self._series[self.looks[-1]].until(pd.Timestamp(day))
        if day not in self._series:
            self._series[day] = table_series(self.tables, day)
        return self._series[day]

    @cached_property
    def is_shared(self) -> bool:
        """Whether the series of the last look, cut off, are those of the first look and of the one in the middle: then of all looks."""
        whole = table_series(self.tables, self.looks[-1])
        self._series[self.looks[-1]] = whole
        checked = {self.looks[0], self.looks[len(self.looks) // 2]}
        return all(_is_same(whole.until(pd.Timestamp(day)), table_series(self.tables, day)) for day in checked)

    def report(self, day: date, trained_until: date) -> DriftReport:
        """Return what a look at the end of a day finds of changes since the last day of a training.

        Where the series of all looks are the same, one pass over all days serves them all.
        """
        start = trained_until + timedelta(days=1)
        if not self.is_shared:
            return find_drift(self.series(day), start, (), self.false_alarms)
        return self._shared.report(day, start)

    @cached_property
    def _shared(self) -> DriftPass:
        return DriftPass(self.series(self.looks[-1]), self.looks, self.false_alarms)


def _is_same(series: DailySeries, reference: DailySeries) -> bool:
    """Return whether two sets of series are equal, value by value."""
    pairs = (
        (series.values, reference.values),
        (series.variances, reference.variances),
        (series.covariates, reference.covariates),
        (series.relevance, reference.relevance),
    )
    same_names = series.names == reference.names and series.days.equals(reference.days)
    return same_names and all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)
