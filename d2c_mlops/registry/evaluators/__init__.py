"""Evaluators: fit a model at past cutoffs, predict the following periods, and compare with the actual outcomes."""

from __future__ import annotations

import importlib
import inspect
import multiprocessing
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import entry_points
from multiprocessing.connection import Connection
from typing import Any, ClassVar, TypeVar

import numpy as np
import pandas as pd

from d2c_mlops import former_names
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import D2CError, DataRefused
from d2c_mlops.models.core.charter import Charter, amend
from d2c_mlops.models.core.contract import Contract
from d2c_mlops.models.core.model import Model, build_model

GROUP = "d2c_mlops.evaluators"  # group of entry points of evaluators in other packages
ACTUAL, MODEL, BASELINE = (
    "came",
    "model",
    "baseline.",
)  # columns of an observation; a baseline's name follows its prefix
CHAMPION = "champion"  # column: predictions of the champion as it stands, beside those of a model fitted anew
REPORTED = (
    "reported"  # column: true in rows that only recompute the report of evaluate(), and are not used for decisions
)
FACTOR = 3  # by which sales are multiplied in disguised data
T = TypeVar("T")
Score = Callable[[pd.DataFrame, str], float]  # observations, column of answers


@dataclass(frozen=True)
class Metric:
    """A metric that is computed from observations."""

    name: str
    score: Score
    lower_is_better: bool = True
    unit: str = ""  # of money or a count, in which it is compared; "" = compared as a share
    parameters: tuple[str, ...] = ()  # charter fields that are needed to compute it
    judged_as: str = ""  # metric that is used for decisions instead; then this one only checks the report of evaluate()


@dataclass(frozen=True)
class EvaluationTrial:
    """A model class with a version's parameters, and the data and the day of its measurement."""

    cls: type[Model]
    params: Mapping[str, Any]
    charter: Mapping[str, Any]
    tables: Tables
    as_of: date
    spacing: int = 0  # periods between cutoffs, so that two models are measured on the same days; 0 = one horizon
    disguised: bool = False  # whether the data are changed (Evaluator.disguise); the last cutoff is enough

    def fitted(self, cutoff: date) -> Model:
        """Return a new model, fitted on rows up to the end of `cutoff`."""
        model = build_model(self.cls, self.params)
        if self.charter:
            model.charter = self.case  # type: ignore[misc]
        return model.fit(self.tables.before(cutoff), cutoff)

    def cutoffs(self, usual: int) -> int:
        """Return the number of past cutoffs; for disguised data the last one is enough."""
        return 1 if self.disguised else usual

    @property
    def case(self) -> Charter:
        """The version's charter."""
        return amend(Charter(), {name: value for name, value in self.charter.items() if value is not None})

    @property
    def contract(self) -> Contract:
        """The contract of a model with these parameters."""
        return build_model(self.cls, self.params).contract


class Evaluator(ABC):
    """Measures one kind of model. Subclasses in this package, in [d2c] packages and from entry points are discovered."""

    name: ClassVar[str]
    row: ClassVar[tuple[str, ...]]  # columns that identify an observation
    world: ClassVar[str] = "other outcomes"  # description of what `disguise` changes
    general: ClassVar[bool] = False  # whether evaluators of packages take precedence over this one
    own_files: ClassVar[bool] = False  # whether the models read their own files instead of a dataset

    @abstractmethod
    def knows(self, contract: Contract) -> bool:
        """Return whether this evaluator measures models with this contract."""

    @abstractmethod
    def observe(self, trial: EvaluationTrial) -> pd.DataFrame:
        """Return one row per prediction at a past cutoff: `row`, came (the actual outcome), model (NaN = no prediction), baseline.NAME (NaN = none)."""

    @abstractmethod
    def metrics(self, charter: Charter, params: Mapping[str, Any]) -> Sequence[Metric]:
        """Return the metrics that are computed from observations, the default first."""

    def days_back(self, contract: Contract) -> int:
        """Return how many days before the day of a measurement `observe` looks at; 0 = a change of the data is of no concern."""
        return 0

    def without_change(self, observations: pd.DataFrame, contract: Contract, since: date) -> pd.DataFrame:
        """Return the observations without predictions made before a change for days after it; `since` is its first day."""
        return observations

    def observe_change(self, trial: EvaluationTrial, champion: Model, known_until: date, since: date) -> pd.DataFrame:
        """Return one row per prediction for the last days after a change: `row`, day, came, model, champion (NaN = no prediction).

        model: fitted anew on the first of these days; champion: as it stands, which knows nothing after `known_until`. Raises DataRefused for too few days.
        """
        raise DataRefused("models of this kind are not measured by days")

    def disguise(self, tables: Tables) -> Tables:
        """Return changed tables on which a model that learns only from tables is as good; the same tables = no such test."""
        return tables

    def population(self, params: Mapping[str, Any]) -> str:
        """Return what a key identifies with these parameters, such as `series by category`."""
        return self.row[-1]

    def horizon(self, contract: Contract) -> int:
        """Return the number of periods that models with this contract predict; 0 = no limit."""
        return contract.horizon


def multiply_numbers(tables: Tables, names: Sequence[str], factor: int, excluded: Sequence[str] = ()) -> Tables:
    """Return tables in which the numbers of some tables are multiplied, except those of some columns."""
    frames = dict(tables)
    for name in set(names) & set(frames):
        frame = frames[name]
        numbers = [column for column in frame.select_dtypes("number").columns if column not in excluded]
        frames[name] = frame.assign(**{column: frame[column] * factor for column in numbers})
    return Tables(frames, tables.zone)


def in_own_process(function: Callable[[], T]) -> T:
    """Return the result of a function that runs in its own process, so that a model leaves no state. Raises DataRefused for its errors."""
    if "fork" not in multiprocessing.get_all_start_methods():
        return function()
    context = multiprocessing.get_context("fork")
    source, sink = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(sink, function))
    process.start()
    sink.close()
    try:
        success, result = source.recv()
    except EOFError:
        success, result = False, "its process ended without a result"
    process.join()
    if not success:
        raise DataRefused(str(result).strip())
    return result  # type: ignore[no-any-return]


def _send_result(sink: Connection, function: Callable[[], Any]) -> None:
    try:
        sink.send((True, function()))
    except (Exception, SystemExit) as err:
        sink.send((False, str(err) if isinstance(err, D2CError) else f"{type(err).__name__}: {err}"))


def predict_shuffled(model: Model, records: pd.DataFrame, answer: str) -> np.ndarray[Any, Any]:
    """Return the predictions for records, by position; the model gets them in a random order."""
    order = np.random.default_rng(0).permutation(len(records))
    inputs = model.contract.check_inputs(records.iloc[order].reset_index(drop=True))
    predictions = model.predict(inputs.copy())
    if len(predictions) != len(inputs):
        raise DataRefused(f"predict() returned {len(predictions)} predictions for {len(inputs)} records")
    values = np.full(len(records), np.nan)
    values[order] = model.contract.check_outputs(predictions)[answer].to_numpy(dtype=float, na_value=np.nan)
    return values


def evaluator_of(contract: Contract, packages: Sequence[str] = ()) -> Evaluator | None:
    """Return the evaluator for a contract: the toolkit's, else a package's; None if there is none."""
    candidates = [evaluator for evaluator in _evaluators(packages) if evaluator.knows(contract)]
    return min(candidates, key=lambda evaluator: evaluator.general, default=None)


def _evaluators(packages: Sequence[str]) -> Iterator[Evaluator]:
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__)):
        yield from _evaluators_in(importlib.import_module(f"{__name__}.{module}"))
    for point in entry_points(group=GROUP):
        yield point.load()()
    for package in packages:
        root = importlib.import_module(package)
        yield from _evaluators_in(root)
        for info in pkgutil.walk_packages(getattr(root, "__path__", []), f"{package}."):
            yield from _evaluators_in(importlib.import_module(info.name))


def _evaluators_in(module: Any) -> Iterator[Evaluator]:
    for value in vars(module).values():
        is_evaluator = isinstance(value, type) and issubclass(value, Evaluator) and value.__module__ == module.__name__
        if is_evaluator and not inspect.isabstract(value):
            yield value()


def __getattr__(name: str) -> Any:
    """Return a class of this module by its former name."""
    return former_names.renamed_class(__name__, name)
