"""How the gate measures a model: fitted at past cutoffs, asked for what came after them, compared with what came."""

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
from d2c_mlops.models.core.model import Model, build

GROUP = "d2c_mlops.evaluators"  # entry points of evaluators that other packages bring
CAME, MODEL, BASELINE = "came", "model", "baseline."  # columns of an observation; baselines carry their name behind
REPORTED = "reported"  # column: true in rows that only repeat what evaluate() reports, and judge nothing else
FACTOR = 3  # by which a disguised world sells more
T = TypeVar("T")
Score = Callable[[pd.DataFrame, str], float]  # observations, column of answers


@dataclass(frozen=True)
class Metric:
    """A figure that is computed from observations."""

    name: str
    score: Score
    lower_is_better: bool = True
    unit: str = ""  # of money or a count, in which it is compared; "" = compared as a share
    parameters: tuple[str, ...] = ()  # charter fields that it is computed with
    judged_as: str = ""  # metric that judges versions instead; then evaluate()'s report alone is checked by this one


@dataclass(frozen=True)
class EvaluationTrial:
    """A model class with a version's parameters, and the data and the day on which it is measured."""

    cls: type[Model]
    params: Mapping[str, Any]
    charter: Mapping[str, Any]
    tables: Tables
    as_of: date
    spacing: int = 0  # periods between cutoffs, so that another model is asked on the same days; 0 = one horizon
    disguised: bool = (
        False  # whether the data are those of another world (Evaluator.disguise); the last cutoff is enough
    )

    def fitted(self, cutoff: date) -> Model:
        """Return a new model, fitted on what was known at the end of `cutoff`; it never sees a later row."""
        model = build(self.cls, self.params)
        if self.charter:
            model.charter = self.case  # type: ignore[misc]
        return model.fit(self.tables.before(cutoff), cutoff)

    def cutoffs(self, usual: int) -> int:
        """Return the number of past cutoffs, the last of which is enough for a disguised world."""
        return 1 if self.disguised else usual

    @property
    def case(self) -> Charter:
        """The version's charter."""
        return amend(Charter(), {name: value for name, value in self.charter.items() if value is not None})

    @property
    def contract(self) -> Contract:
        """The contract of a model with these parameters."""
        return build(self.cls, self.params).contract


class Evaluator(ABC):
    """Measures one kind of model. Subclasses in `d2c_mlops.evaluators`, in [d2c] packages or by entry point are found."""

    name: ClassVar[str]
    row: ClassVar[tuple[str, ...]]  # columns that tell one observation from another
    world: ClassVar[str] = "other outcomes"  # of `disguise`, in words
    general: ClassVar[bool] = False  # whether evaluators of packages come before this one
    own_files: ClassVar[bool] = False  # whether the models read files by themselves instead of a dataset

    @abstractmethod
    def knows(self, contract: Contract) -> bool:
        """Return whether models of this contract are measured here."""

    @abstractmethod
    def observe(self, trial: EvaluationTrial) -> pd.DataFrame:
        """Return one row per question at a past cutoff: `row`, came, model (NaN = no answer), baseline.NAME (NaN = none)."""

    @abstractmethod
    def metrics(self, charter: Charter, params: Mapping[str, Any]) -> Sequence[Metric]:
        """Return the figures that are computed from observations, the usual one first."""

    def disguise(self, tables: Tables) -> Tables:
        """Return the tables of another world in which a model that learns only from tables is as good; the same = none."""
        return tables

    def population(self, params: Mapping[str, Any]) -> str:
        """Return what one key stands for under these parameters, such as `series by category`."""
        return self.row[-1]

    def horizon(self, contract: Contract) -> int:
        """Return the periods that models of this contract answer; 0 where nothing limits them."""
        return contract.horizon


def multiplied(tables: Tables, names: Sequence[str], factor: int, but: Sequence[str] = ()) -> Tables:
    """Return tables in which all numbers of some of them are multiplied, but those of some columns."""
    frames = dict(tables)
    for name in set(names) & set(frames):
        frame = frames[name]
        numbers = [each for each in frame.select_dtypes("number").columns if each not in but]
        frames[name] = frame.assign(**{each: frame[each] * factor for each in numbers})
    return Tables(frames, tables.zone)


def apart(function: Callable[[], T]) -> T:
    """Return what a function gives in a process of its own, so that nothing a model keeps outlives it; errors as DataRefused."""
    if "fork" not in multiprocessing.get_all_start_methods():
        return function()
    context = multiprocessing.get_context("fork")
    source, sink = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sink, function))
    process.start()
    sink.close()
    try:
        done, found = source.recv()
    except EOFError:
        done, found = False, "its process ended without a result"
    process.join()
    if not done:
        raise DataRefused(str(found).strip())
    return found  # type: ignore[no-any-return]


def _send(sink: Connection, function: Callable[[], Any]) -> None:
    try:
        sink.send((True, function()))
    except (Exception, SystemExit) as err:
        sink.send((False, str(err) if isinstance(err, D2CError) else f"{type(err).__name__}: {err}"))


def answers_of(model: Model, records: pd.DataFrame, answer: str) -> np.ndarray[Any, Any]:
    """Return the answers to records, asked in another order than theirs, as a caller pairs them: by position."""
    order = np.random.default_rng(0).permutation(len(records))
    asked = model.contract.check_inputs(records.iloc[order].reset_index(drop=True))
    found = model.predict(asked.copy())
    if len(found) != len(asked):
        raise DataRefused(f"predict gave {len(found)} answers to {len(asked)} records")
    values = np.full(len(records), np.nan)
    values[order] = model.contract.check_outputs(found)[answer].to_numpy(dtype=float, na_value=np.nan)
    return values


def evaluator_of(contract: Contract, packages: Sequence[str] = ()) -> Evaluator | None:
    """Return the evaluator of a kind of model: the toolkit's, else that of a package; None where nobody knows it."""
    known = [found for found in _evaluators(packages) if found.knows(contract)]
    return min(known, key=lambda found: found.general, default=None)


def _evaluators(packages: Sequence[str]) -> Iterator[Evaluator]:
    for module in sorted(each.name for each in pkgutil.iter_modules(__path__)):
        yield from _classes(importlib.import_module(f"{__name__}.{module}"))
    for point in entry_points(group=GROUP):
        yield point.load()()
    for package in packages:
        root = importlib.import_module(package)
        yield from _classes(root)
        for found in pkgutil.walk_packages(getattr(root, "__path__", []), f"{package}."):
            yield from _classes(importlib.import_module(found.name))


def _classes(module: Any) -> Iterator[Evaluator]:
    for found in vars(module).values():
        own = isinstance(found, type) and issubclass(found, Evaluator) and found.__module__ == module.__name__
        if own and not inspect.isabstract(found):
            yield found()


def __getattr__(name: str) -> Any:
    """Return a class of this module by its former name."""
    return former_names.renamed_class(__name__, name)
