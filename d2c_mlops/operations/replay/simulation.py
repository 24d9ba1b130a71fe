"""Replay a model over the history of its dataset, and recommend a retraining policy: `d2c replay MODEL`. Nothing is registered or recorded."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import DataRefused, Failure, UsageError
from d2c_mlops.models.core.model import Model
from d2c_mlops.models.forecasting.periods import LENGTH, Freq, day_before, freq_of
from d2c_mlops.monitoring.policy_choice import LEAST_WEEKS, choose_policy
from d2c_mlops.monitoring.replay import Clock, PolicyWalk, ReleaseRule, walk
from d2c_mlops.monitoring.retraining import RetrainingPolicy
from d2c_mlops.operations.live_answers import is_forecast
from d2c_mlops.operations.replay.fits import FitStore, Progress
from d2c_mlops.operations.replay.history import ForecastHistory, Prices
from d2c_mlops.operations.replay.known_sales import DatasetEvidence, KnownSales
from d2c_mlops.operations.replay.report import ReplayReport
from d2c_mlops.registry.evaluators import evaluator_of
from d2c_mlops.registry.evaluators.demand import CUTOFFS, LEAST
from d2c_mlops.registry.versions import model_class, new_model
from d2c_mlops.settings import Settings
from d2c_mlops.settings.parsing import parse_age, parse_release

POLICIES = (
    "never", "every 7 days", "every 14 days", "every 28 days", "every 91 days", "on drift", "on expected loss",
    "every 7 days or on drift", "every 14 days or on drift", "every 28 days or on drift", "every 91 days or on drift",
)  # fmt: skip
PERIODS_OF_YEAR: dict[Freq, int] = {"D": 364, "W": 52, "M": 12}


@dataclass(frozen=True)
class PolicyReplayOptions:
    """What is replayed; the defaults fit most histories."""

    policies: tuple[str, ...] = POLICIES
    start: date | None = None  # first look; default: a year before the end, or later where little history lies before
    end: date | None = None  # last day whose outcome counts; default: the last complete day of the dataset
    step: int = 0  # days between two looks; default: a period of the forecast
    horizon: int = 0  # periods after a look whose outcomes are priced; default: those until the next look
    training_cost: float = 1.0  # of one training, in the charter's currency
    cool_down: float | None = None  # days between two trainings at least; default: [model:NAME] retrain_after

    def __post_init__(self) -> None:
        """Raise UsageError for a cost that is no amount, and for an end before the start."""
        if not (math.isfinite(self.training_cost) and self.training_cost >= 0):
            raise UsageError(
                f"{self.training_cost} is not the cost of a training",
                where="--training-cost",
                next="give an amount in the charter's currency, such as 25",
            )
        if self.start and self.end and self.end <= self.start:
            raise UsageError(
                f"the last day {self.end} is not after the first look {self.start}",
                where="--to",
                next="exchange the two",
            )


def replay_model(
    model: str, settings: Settings, options: PolicyReplayOptions | None = None, progress: Progress | None = None
) -> ReplayReport:
    """Replay a model of the project over its dataset. Raises DataRefused for too short a history, UsageError for what cannot be replayed."""
    model_class(model, settings)  # a name that no model has is refused before its data are looked for
    name = settings.model(model).data or "sample"
    tables = Tables.open(settings.store, name)
    new = new_model(model, settings, {}, tables)
    return replay_tables(model, new, tables, settings, options or PolicyReplayOptions(), progress)


def replay_tables(
    name: str,
    model: Model,
    tables: Tables,
    settings: Settings,
    options: PolicyReplayOptions,
    progress: Progress | None = None,
) -> ReplayReport:
    """Replay a model that is not fitted over tables; see `replay_model`."""
    evaluator = evaluator_of(model.contract, settings.packages)
    if evaluator is None or evaluator.name != "demand" or not is_forecast(model.contract):
        raise UsageError(
            f"{name} is not a forecast of units by series and period, and only such models can be replayed",
            where="d2c replay",
            next="replay a demand model; other models are judged by `d2c monitor` and their gate",
        )
    begun = time.process_time()
    policies = _policies(options, _cool_down(name, settings) if options.cool_down is None else options.cool_down)
    freq = freq_of(model.contract.frequency)
    last = _last_day(tables, options.end)
    sales = KnownSales(tables, last, str(model.params().get("by") or model.contract.key), freq)
    step = max(1, round(options.step / LENGTH[freq])) if options.step else 1
    ahead = options.horizon or step
    looks = _looks(sales, model, freq, step, ahead, options.start)
    clocks = [Clock.at_end_of(day, tables.zone) for day in looks]
    charter = model.charter
    prices = Prices.of(charter)
    release = _release_rule(name, settings)
    with TemporaryDirectory(prefix="d2c-replay-") as folder:
        fits = FitStore(type(model), model.params(), charter, tables, Path(folder), settings.packages, progress)
        plans = [(policy, _phases(policy, policies)) for policy in policies]
        fits.fit_all(_planned_fits(plans, looks, evaluator.horizon(model.contract), freq))
        dataset = DatasetEvidence(tables, looks, settings.monitor_limits(name).false_alarms)
        history = ForecastHistory(
            name, model, evaluator, fits, sales, dataset, settings, prices, ahead, options.training_cost
        )
        phases = tuple(
            tuple(walk(policy, clocks, history, release, timedelta(days=ahead_by)) for ahead_by in days)
            for policy, days in plans
        )
        without_reasons = {policy.text: text for policy in policies if (text := _no_reasons(policy, history, looks))}
        count, fit_seconds = len(fits.reports), fits.seconds
    scale = step / ahead  # an outcome that is priced at several looks counts once
    phases = tuple(tuple(_scaled(walked, scale) for walked in walks) for walks in phases)
    walks = tuple(walked[0] for walked in phases)
    half = clocks[0].day + timedelta(days=7 * (_weeks(walks) // 2))
    trainings = {
        walked[0].policy: float(
            np.mean([sum(e.action == "trained" and e.day < half for e in w.events) for w in walked])
        )
        for walked in phases
    }
    draft = ReplayReport(
        name, tables.manifest.name if tables.manifest else "tables", charter.currency or "money", looks[0], last, step, ahead,
        options.training_cost, walks, phases, None, count, fit_seconds, 0.0,  # type: ignore[arg-type]
        prices.notes(), without_reasons,
    )  # fmt: skip
    reacting = {policy.text for policy in policies if policy.on_drift or policy.on_expected_loss}
    choice = choose_policy(draft.costs(), trainings, reacting)
    return ReplayReport(**vars(draft) | {"choice": choice, "seconds": time.process_time() - begun})


def _policies(options: PolicyReplayOptions, cool_down: float) -> list[RetrainingPolicy]:
    policies, failures = dict[str, RetrainingPolicy](), []
    for text in options.policies:
        try:
            policy = RetrainingPolicy.parse(text, cool_down_days=cool_down)
            policies.setdefault(policy.text, policy)
        except UsageError as error:
            failures.append(Failure(error.what, text))
    if failures or not policies:
        raise UsageError(
            "policies cannot be read", failures=failures, next="write a policy such as `every 28 days or on drift`"
        )
    return list(policies.values())


def _last_day(tables: Tables, end: date | None) -> date:
    """Return the last day whose outcomes count: the last complete day, as the runbook train has it, or an earlier one."""
    last = tables.last_sale()
    if last is None:
        raise DataRefused("the dataset has neither orders nor sales totals", next="d2c ingest LOCATION --as NAME")
    whole = "order_lines" not in tables and "sales_totals" in tables
    complete = last if whole else last - timedelta(days=1)
    return min(complete, end) if end else complete


def _looks(sales: KnownSales, model: Model, freq: Freq, step: int, ahead: int, start: date | None) -> list[date]:
    """Return the days at whose end the model is looked at. Raises DataRefused where the history is too short."""
    days = [pd.Timestamp(day).date() for day in sales.hindsight.dates]
    needed = LEAST[freq] + model.contract.horizon  # to fit, and to measure once
    usual = max(needed + CUTOFFS * model.contract.horizon, len(days) // 3, len(days) - ahead - PERIODS_OF_YEAR[freq])
    first = min(usual, max(needed, len(days) - ahead - 26 * 7 // LENGTH[freq]))
    first = max(first, usual) if len(days) - ahead - usual >= 2 * LEAST_WEEKS * 7 // LENGTH[freq] else first
    if start is not None:
        first = max(sales.place(start), 1)
        if first < needed:
            raise DataRefused(
                f"{first} {'period lies' if first == 1 else 'periods of history lie'} before {start}; {needed} are needed to fit and to measure the model once",
                where="--from",
                next=f"begin on {days[min(needed, len(days) - 1)]} or later",
            )
    end = len(days) - ahead
    places = list(range(end - 1, first - 2, -step))[::-1]
    weeks = (len(places) * step * LENGTH[freq]) // 7
    if weeks < 2 * LEAST_WEEKS:
        what = f"{len(days)} periods of history leave {max(weeks, 0)} weeks to replay; {2 * LEAST_WEEKS} are needed"
        raise DataRefused(what, next="ingest older data, begin earlier with --from, or train with a shorter horizon")
    return [days[place] for place in places]


PHASES = 4  # of a cadence, at most


def _phases(policy: RetrainingPolicy, policies: Sequence[RetrainingPolicy]) -> list[int]:
    """Return the days by which the cadence of a policy is ahead, in multiples of the shortest cadence, so that all share the same fits."""
    if not policy.cadence_days:
        return [0]
    shortest = min(cadence for cadence in (plan.cadence_days for plan in policies) if cadence)
    count = max(1, min(PHASES, int(policy.cadence_days // shortest)))
    steps = [round(number * policy.cadence_days / count / shortest) for number in range(count)]
    return [round(step * shortest) for step in steps]


def _planned_fits(
    plans: Sequence[tuple[RetrainingPolicy, Sequence[int]]], looks: Sequence[date], horizon: int, freq: Freq
) -> list[date]:
    """Return the days of the fits that are certain: those of cadences, and those at the past cutoffs of their gates."""
    days = {looks[0]}
    for policy, phases in plans:
        for phase in phases if policy.cadence_days else ():
            trained = looks[0] - timedelta(days=phase)
            for day in looks[1:]:
                if (day - trained).days >= (policy.cadence_days or 0):
                    trained = day
                    days.add(day)
    cutoffs = {day_before(day, back * horizon, freq) for day in days for back in range(1, CUTOFFS + 1)}
    return sorted(days | cutoffs)


def _cool_down(name: str, settings: Settings) -> float:
    return parse_age(settings.model(name).retrain_after) / 86_400


def _release_rule(name: str, settings: Settings) -> ReleaseRule:
    section = settings.model(name)
    mode, share = parse_release(section.release)
    return ReleaseRule(1.0 if mode == "champion" else share, timedelta(seconds=parse_age(section.release_after)))


def _no_reasons(policy: RetrainingPolicy, history: ForecastHistory, looks: Sequence[date]) -> str:
    """Return the parts of a policy that could not be due at any look, and why; empty: all could."""
    texts = []
    if policy.on_expected_loss and (why := history.why_no_expected_loss()):
        texts.append(f"on expected loss: {why}")
    if policy.on_drift and (why := history.dataset.report(looks[-1], looks[0]).too_little):
        texts.append(f"on drift: only accuracy and errors of answers were looked at, in the dataset {why}")
    return "; ".join(texts)


def _scaled(walked: PolicyWalk, scale: float) -> PolicyWalk:
    from dataclasses import replace

    return walked if scale == 1 else replace(walked, sums=tuple(sums.times(scale) for sums in walked.sums))


def _weeks(walks: Sequence[PolicyWalk]) -> int:
    return len(walks[0].weekly())
