"""Fits of a replay: each defined by the last day that it knows, made once, and shared by all policies."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import D2CError, DataRefused
from d2c_mlops.models.core.charter import Charter
from d2c_mlops.models.core.model import Model, build_model, load, save
from d2c_mlops.parallel import current_backend, run_jobs, usable_cores
from d2c_mlops.registry.evaluators import EvaluationTrial

Progress = Callable[[int, int], None]  # fits that are finished, and fits in all as far as they are known


@dataclass(frozen=True)
class FitReport:
    """How long a fit took in CPU seconds, or why there is none."""

    seconds: float
    error: str = ""


@dataclass
class FitStore:
    """Models of one class and parameters, fitted on what was known at the end of a day; kept in files, as versions are."""

    cls: type[Model]
    params: Mapping[str, Any]
    charter: Charter
    tables: Tables
    folder: Path
    packages: Sequence[str] = ()
    progress: Progress | None = None
    reports: dict[date, FitReport] = field(default_factory=dict)
    _models: dict[date, Model] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """The CPU seconds of all fits so far."""
        return sum(report.seconds for report in self.reports.values())

    def fit_all(self, days: Iterable[date]) -> None:
        """Fit on all of these days that are missing; the backend of `use_backend` says where. Errors are kept until the model is asked for."""
        missing = sorted(set(days) - set(self.reports))
        backend = current_backend()
        size = 1 if backend.name == "sequential" else 4 * (backend.workers or usable_cores())
        for start in range(0, len(missing), size):
            chunk = missing[start : start + size]
            jobs = [(self.cls, dict(self.params), self.tables, day, self.folder / day.isoformat()) for day in chunk]
            self.reports |= dict(zip(chunk, run_jobs(fit_into, jobs), strict=True))
            if self.progress is not None:
                self.progress(len(self.reports), len(self.reports) + len(missing) - start - len(chunk))

    def model(self, day: date) -> Model:
        """Return the model of a day, fitted now if it was not before. Raises DataRefused if it cannot be fitted on that day."""
        self.fit_all([day])
        if error := self.reports[day].error:
            raise DataRefused(error, where=f"fit of {day}")
        if day not in self._models:
            model = load(self.folder / day.isoformat(), (*self.packages, self.cls.__module__))
            model.charter = self.charter  # type: ignore[misc]
            self._models[day] = model
        return self._models[day]


def fit_into(cls: type[Model], params: Mapping[str, Any], tables: Tables, day: date, folder: Path) -> FitReport:
    """Fit a new model on what was known at the end of a day, as the runbook train does without an earlier version, and save it."""
    start = time.process_time()
    try:
        model = build_model(cls, params).fit(tables.before(day), day)
    except D2CError as error:
        return FitReport(time.process_time() - start, error.what)
    seconds = time.process_time() - start
    save(model, folder)
    return FitReport(seconds)


@dataclass(frozen=True)
class SharedTrial(EvaluationTrial):
    """The gate's measurement of a model on one day of a replay; its fits at past cutoffs are those of the replay."""

    fits: FitStore | None = None
    own_tables: Tables | None = (
        None  # as known on the day; other tables, without leaking events, need fits of their own
    )

    def fitted(self, cutoff: date) -> Model:
        """Return the model fitted at the end of `cutoff`."""
        if self.fits is not None and self.tables is self.own_tables:
            return self.fits.model(cutoff)
        return super().fitted(cutoff)
