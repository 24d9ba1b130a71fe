"""The history of a forecasting model: its answers, what a monitor finds, and what the gate says, on each day as known then."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from d2c_mlops import __version__
from d2c_mlops.data.days import day_end
from d2c_mlops.data.schemas import TIME_COLUMN
from d2c_mlops.errors import DataRefused
from d2c_mlops.models.core.charter import Charter
from d2c_mlops.models.core.contract import Contract, contract_to_dict
from d2c_mlops.models.core.model import Evaluation, Model, class_path
from d2c_mlops.models.forecasting.baselines import last_year, seasonal_naive, weekday_mean
from d2c_mlops.models.forecasting.panel import is_selling
from d2c_mlops.models.forecasting.periods import LENGTH, freq_of
from d2c_mlops.models.forecasting.smoothing import Array
from d2c_mlops.monitoring.performance import Estimate
from d2c_mlops.monitoring.replay import Champion, Clock, StepSums
from d2c_mlops.monitoring.retraining import RetrainingState
from d2c_mlops.monitoring.vital_signs import BREACH, VitalSign, judge_accuracy
from d2c_mlops.operations.monitor import (
    DriftLook,
    accuracy_sign,
    answer_drift,
    drift_sign,
    metric_limits,
    recent_answers,
)
from d2c_mlops.operations.replay.fits import FitStore, SharedTrial
from d2c_mlops.operations.replay.known_sales import DatasetEvidence, KnownSales
from d2c_mlops.operations.retraining.expected_loss import LEAST_DAYS, METRIC, ExpectedLoss, loss_of_answers
from d2c_mlops.registry.compared_metrics import MeasuredModel
from d2c_mlops.registry.evaluators import ACTUAL, MODEL, Evaluator
from d2c_mlops.registry.evaluators.demand import LEAST
from d2c_mlops.registry.evidence import Evidence
from d2c_mlops.registry.gate import better_than_the_baseline, break_even_is_reached, not_worse_than_the_champion
from d2c_mlops.registry.gate_candidate import CHANGE, OURS, THEIRS, PromotionCandidate, latest_change
from d2c_mlops.registry.versions import Version
from d2c_mlops.settings import Settings

BASELINES = {"seasonal_naive": seasonal_naive, "weekday_mean_8w": weekday_mean, "last_year": last_year}
USUAL_BASELINE = "weekday_mean_8w"
CLAUSES = (better_than_the_baseline, break_even_is_reached, not_worse_than_the_champion)  # that depend on the data
BOUNDS = ("lower_80", "upper_80")


@dataclass(frozen=True)
class Prices:
    """What a unit too few and a unit too many cost."""

    too_few: float
    too_many: float
    missing: tuple[str, ...] = ()  # fields of the charter that are not set, in whose place 1 is used

    @classmethod
    def of(cls, charter: Charter) -> Prices:
        """Return the prices of a charter; 1 in place of one that is not set."""
        priced = {"right_value": charter.right_value, "wrong_cost": charter.wrong_cost}
        missing = tuple(name for name, value in priced.items() if value is None)
        too_few, too_many = (1.0 if value is None else float(value) for value in priced.values())
        return cls(too_few, too_many, missing)

    def notes(self) -> tuple[str, ...]:
        """Return a sentence for each price that the charter does not have."""
        what = {"right_value": "a unit too few", "wrong_cost": "a unit too many"}
        return tuple(f"the charter has no {name}: {what[name]} counts as 1" for name in self.missing)

    def loss(self, forecast: Array, outcome: Array) -> Array:
        """Return the loss of each forecast, in money; NaN where the outcome is not known."""
        return self.too_few * np.maximum(outcome - forecast, 0.0) + self.too_many * np.maximum(forecast - outcome, 0.0)


@dataclass(frozen=True)
class ReplayedCandidate(PromotionCandidate):
    """A challenger of a replay at the gate; champion and challenger are measured by the shared fits."""

    measurements: Mapping[str, Evidence] = field(default_factory=dict)

    @cached_property
    def evidence(self) -> dict[str, Evidence]:
        """The measurements of both."""
        return dict(self.measurements)


class ForecastHistory:
    """Answers of one forecasting model and what came of them; a `ReplayedHistory` that a policy is walked over."""

    def __init__(
        self,
        name: str,
        model: Model,  # not fitted
        evaluator: Evaluator,
        fits: FitStore,
        sales: KnownSales,
        dataset: DatasetEvidence,
        settings: Settings,
        prices: Prices,
        ahead: int,  # periods after a look whose outcomes are priced
        training_cost: float,
    ) -> None:
        self.name, self.model, self.evaluator, self.fits, self.sales, self.dataset = (
            name,
            model,
            evaluator,
            fits,
            sales,
            dataset,
        )
        self.settings, self.prices, self.ahead, self.training_cost = settings, prices, ahead, training_cost
        self.limits = settings.monitor_limits(name)
        self._answers: dict[date, tuple[int, Array]] = {}
        self._outcomes: dict[tuple[date, date], StepSums] = {}
        self._measured: dict[date, pd.DataFrame] = {}
        self._baselines: dict[date, Array] = {}
        self._breaches: dict[tuple[Champion, date], dict[str, date | None]] = {}
        self._losses: dict[tuple[Champion, date], ExpectedLoss | None] = {}
        self._evaluations: dict[date, Evaluation] = {}
        self._refusals: dict[tuple[date, date | None, date | None], str] = {}
        self._versions: dict[date, Version] = {}
        self._selling: dict[int, np.ndarray[Any, np.dtype[np.bool_]]] = {}

    @property
    def contract(self) -> Contract:
        """The contract of the model."""
        return self.model.contract

    @cached_property
    def horizon(self) -> timedelta:
        """How long after a training a model has answers; 0 = without an end."""
        return timedelta(days=self.contract.horizon * LENGTH[freq_of(self.contract.frequency)])

    # what is answered and what came

    def answers(self, trained_until: date) -> tuple[int, Array]:
        """Return the first period after a training, and the answers from there on [period, series, 3]: forecast and 80 % interval."""
        if trained_until not in self._answers:
            model = self.fits.model(trained_until)
            own_records = model.own_records()
            records = (
                model.records(self.sales.tables.before(trained_until), trained_until)
                if own_records is None
                else own_records
            )
            predicted = model.predict(records)
            first, series = self.sales.place(trained_until), pd.Index(self.sales.hindsight.series)
            when = next(f.name for f in self.contract.input_fields if f.kind == "date")
            days = pd.to_datetime(records[when]).to_numpy().astype("datetime64[D]")
            row = np.searchsorted(self.sales.hindsight.dates, days) - first
            column = series.get_indexer(pd.Index(records[self.contract.key].astype(str)))
            inside = (row >= 0) & (row < len(self.sales.hindsight.dates) - first) & (column >= 0)
            values = np.full((int(row[inside].max(initial=-1)) + 1, len(series), 3), np.nan)
            for place, name in enumerate(("forecast", *BOUNDS)):
                if name in predicted:
                    values[row[inside], column[inside], place] = predicted[name].to_numpy(float, na_value=np.nan)[
                        inside
                    ]
            self._answers[trained_until] = (first, values)
        return self._answers[trained_until]

    def forecast(self, trained_until: date, day: date, count: int) -> Array:
        """Return the forecasts [count, series] for the periods after a day; NaN = the model has no answer."""
        first, values = self.answers(trained_until)
        begin = self.sales.place(day) - first
        forecast = np.full((count, values.shape[1]), np.nan)
        part = values[max(begin, 0) : max(begin + count, 0), :, 0]
        forecast[: len(part)] = part
        return forecast

    def baseline(self, day: date) -> Array:
        """Return what people would expect for the periods after a day without a model [ahead, series]: the charter's baseline."""
        if day not in self._baselines:
            method = BASELINES.get(self.model.charter.baseline, BASELINES[USUAL_BASELINE])
            panel = self.sales.panel(day)
            expected = method(panel, self.ahead)
            self._baselines[day] = np.nan_to_num(weekday_mean(panel, self.ahead) if expected is None else expected)
        return self._baselines[day]

    def is_scored(self, day: date) -> Array:
        """Return the outcomes [ahead, series] of the periods after a day; NaN where they are not known, or the series was not on sale on the day."""
        place = self.sales.place(day)
        if place not in self._selling:
            past = self.sales.hindsight.until(place)
            self._selling[place] = is_selling(past, LEAST[freq_of(self.contract.frequency)])
        came = self.sales.outcomes[place : place + self.ahead]
        return np.where(self._selling[place], came, np.nan)

    def outcome(self, trained_until: date, clock: Clock) -> StepSums:
        """Return the sums of the periods after a look."""
        at = (trained_until, clock.day)
        if at not in self._outcomes:
            came = self.is_scored(clock.day)
            forecast = self.forecast(trained_until, clock.day, self.ahead)[: len(came)]
            is_known, has_answer = ~np.isnan(came), ~np.isnan(forecast)
            if not has_answer[is_known].all():
                forecast = np.where(has_answer, forecast, self.baseline(clock.day)[: len(came)])
            self._outcomes[at] = StepSums(
                float(np.nansum(self.prices.loss(forecast, came))),
                float(np.nansum(np.abs(forecast - came))),
                float(np.nansum(np.abs(came))),
                float(is_known.sum()),
                float((is_known & has_answer).sum()),
            )
        return self._outcomes[at]

    def revision(self, before: date, after: date, clock: Clock) -> tuple[float, float]:
        """Return by how much the forecasts of the periods after a look differ between two trainings, in units, and their sum."""
        count = max(self.contract.horizon, self.ahead)
        old, new = (self.forecast(trained, clock.day, count) for trained in (before, after))
        both = ~np.isnan(old) & ~np.isnan(new)
        return float(np.abs(new - old)[both].sum()), float(np.abs(new)[both].sum())

    # what a monitor finds

    def version(self, trained_until: date) -> Version:
        """Return the training of a day as a version would be registered; its number is that of the day."""
        if trained_until not in self._versions:
            created, score = datetime.combine(trained_until, time(), UTC), self.evaluation(trained_until).to_dict()
            self._versions[trained_until] = Version(
                self.name, trained_until.toordinal(), created, None, class_path(type(self.model)), self.model.params(),
                contract_to_dict(self.contract), self.model.charter.to_dict(), score, [], trained_until.isoformat(), __version__, "", "",
            )  # fmt: skip
        return self._versions[trained_until]

    def live_answers(self, champion: Champion, clock: Clock) -> tuple[int, Array, Array]:
        """Return the first period that a champion answered, its answers [period, series, 3] and their outcomes [period, series], as known at a look."""
        first, values = self.answers(champion.trained_until)
        begin = self.sales.place(Clock(champion.since, clock.zone).day)
        panel = self.sales.panel(clock.day)
        end = max(begin, min(self.sales.place(clock.day), first + len(values), len(panel.dates)))
        return begin, values[begin - first : end - first], panel.observed_units(begin, end - begin)

    def answers_with_outcomes(self, champion: Champion, clock: Clock) -> pd.DataFrame:
        """Return the champion's answers with their outcomes in the form of `d2c monitor`, where log and dataset have them."""
        begin, values, came = self.live_answers(champion, clock)
        row, column = np.nonzero(~np.isnan(values[..., 0]) & ~np.isnan(came))
        series = np.array(self.sales.hindsight.series, dtype=object)
        return pd.DataFrame(
            {
                "day": pd.DatetimeIndex(self.sales.hindsight.dates[begin + row]),
                "key": series[column],
                "version": champion.trained_until.toordinal(),
                "variant": "champion",
                "predicted": values[row, column, 0],
                "lower": values[row, column, 1],
                "upper": values[row, column, 2],
                "outcome": came[row, column],
            }
        )

    def breaches(self, champion: Champion, clock: Clock) -> Mapping[str, date | None]:
        """Return the causes of the breaches of drift and accuracy that `d2c monitor` reports at a look, and the first days of their changes."""
        at = (champion, clock.day)
        if at not in self._breaches:
            signs = self._signs_in_question(champion, clock)
            self._breaches[at] = {sign.cause or sign.metric: sign.since for sign in signs if sign.state == BREACH}
        return self._breaches[at]

    def _signs_in_question(self, champion: Champion, clock: Clock) -> list[VitalSign]:
        """Return the signs that may be in breach: drift, and the accuracy where it would be if it were certain, as only then its bounds are worked out."""
        version, answers = self.version(champion.trained_until), self.answers_with_outcomes(champion, clock)
        recent = recent_answers(answers, clock.day, self.limits).rename(columns={"outcome": ACTUAL, "predicted": MODEL})
        value = self.metric.score(recent, MODEL) if len(recent) else float("nan")
        certain = Estimate(value, float("inf"), float("-inf"), len(recent))
        score, limits, days = version.score, metric_limits(self.limits), int(recent["day"].nunique())
        sign = judge_accuracy(self.name, score.metric, certain, score.value, score.lower_is_better, days, limits)
        looks = self._drift_looks(champion, version, answers, clock)
        signs = [self._accuracy(version, answers, clock)] if sign.state == BREACH else []
        return [*signs, drift_sign(self.name, looks)] if any(look.report.has_drifted for look in looks) else signs

    def signs(self, champion: Champion, clock: Clock) -> tuple[VitalSign, VitalSign]:
        """Return the signs of accuracy and drift at a look, by the functions of `d2c monitor`."""
        version, answers = self.version(champion.trained_until), self.answers_with_outcomes(champion, clock)
        drift = drift_sign(self.name, self._drift_looks(champion, version, answers, clock))
        return self._accuracy(version, answers, clock), drift

    def _accuracy(self, version: Version, answers: pd.DataFrame, clock: Clock) -> VitalSign:
        recent = recent_answers(answers, clock.day, self.limits)
        accuracy, _ = accuracy_sign(version, self.metric, recent, self.limits)
        return accuracy

    def _drift_looks(
        self, champion: Champion, version: Version, answers: pd.DataFrame, clock: Clock
    ) -> list[DriftLook]:
        looks = [DriftLook("data", "dataset", self.dataset.report(clock.day, champion.trained_until))]
        return [*looks, *answer_drift(answers, version, (), self.limits)]

    @cached_property
    def metric(self) -> Any:
        """The metric that gate and monitor judge by."""
        metrics = self.evaluator.metrics(self.model.charter, self.model.params())
        return next((metric for metric in metrics if metric.name == self.model.charter.metric), metrics[0])

    def state(self, champion: Champion, clock: Clock) -> RetrainingState:
        """Return rows and expected loss as known at a look."""
        if (champion, clock.day) not in self._losses:
            self._losses[champion, clock.day] = self._expected_loss(champion, clock)
        loss = self._losses[champion, clock.day]
        return RetrainingState(
            data_until=champion.trained_until,
            rows_then=self.rows(champion.trained_until),
            rows_now=self.rows(clock.day),
            loss_without=loss.without if loss else None,
            loss_with=loss.after_training if loss else None,
            loss_error=loss.error if loss else 0.0,
            training_cost=self.training_cost,
            answers_until=champion.trained_until + self.horizon if self.horizon else None,
            horizon_days=self.horizon / timedelta(days=1),
        )

    def rows(self, day: date) -> int:
        """Return the rows of sales known at the end of a day."""
        return int(
            np.searchsorted(self._row_times, day_end(day, self.sales.tables.zone).tz_localize(None).to_datetime64())
        )

    @cached_property
    def _row_times(self) -> np.ndarray[Any, np.dtype[np.datetime64]]:
        name = "order_lines" if "order_lines" in self.sales.tables else "sales_totals"
        times = self.sales.tables[name][TIME_COLUMN[name]].dt.tz_convert("UTC").dt.tz_localize(None)
        return np.sort(times.to_numpy())

    def _expected_loss(self, champion: Champion, clock: Clock) -> ExpectedLoss | None:
        """Return what the champion's recent answers lose, and what they would after a training, by the function of `d2c retrain`."""
        if self._why_unpriced:
            return None
        answers, promoted = self.answers_with_outcomes(champion, clock), self.evaluation(champion.trained_until).value
        prices = self.prices
        return loss_of_answers(answers, clock.day, self.limits.days, promoted, prices.too_few, prices.too_many)

    @cached_property
    def _why_unpriced(self) -> str:
        """Why `on expected loss` is not known for this model, as in production; empty: it is."""
        if self.prices.missing:
            return f"the charter has no {' and no '.join(self.prices.missing)}"
        return "" if self.metric.name == METRIC else f"the model is judged by {self.metric.name}, not by {METRIC}"

    def why_no_expected_loss(self) -> str:
        """Return why the expected loss was known at no look that was walked so far; empty: it was at some."""
        if self._why_unpriced or any(loss is not None for loss in self._losses.values()):
            return self._why_unpriced
        return f"no look had answers with outcomes of {LEAST_DAYS} days"

    # what the gate says

    def observations(self, trained_until: date) -> pd.DataFrame:
        """Return the gate's forecasts, baselines and outcomes at past cutoffs, as known at the end of a day."""
        if trained_until not in self._measured:
            self._measured[trained_until] = self.evaluator.observe(self._trial(trained_until))
        return self._measured[trained_until]

    def _trial(self, day: date) -> SharedTrial:
        past, charter = self.sales.tables.before(day), self.model.charter.to_dict()
        spacing = self.evaluator.horizon(self.contract)
        return SharedTrial(type(self.model), self.model.params(), charter, past, day, spacing, False, self.fits, past)

    def evaluation(self, trained_until: date) -> Evaluation:
        """Return the gate's measurement as an evaluation."""
        if trained_until not in self._evaluations:
            self._evaluations[trained_until] = self._evaluate(trained_until)
        return self._evaluations[trained_until]

    def _evaluate(self, trained_until: date) -> Evaluation:
        measured = MeasuredModel(self.evaluator, self.metric, self.observations(trained_until))
        baselines = {name: pair.reference for name, pair in measured.baselines().items()}
        return Evaluation(self.metric.name, measured.value, baselines, self.metric.lower_is_better)

    def refusal(self, trained_until: date, champion: Champion, changes: Collection[date]) -> str:
        """Train a challenger, and return the clauses of the gate that it breaks; empty: none."""
        self.fits.model(trained_until)
        change = latest_change(list(changes), trained_until, self.evaluator.days_back(self.contract))
        at = (trained_until, change, champion.trained_until if change else None)
        if at not in self._refusals:
            version, live = self.version(trained_until), self.version(champion.trained_until)
            measured = {OURS: Evidence({}, self.observations(trained_until))}
            measured[THEIRS] = measured[OURS]  # class and parameters are the same, so that one serves for both
            if change is not None:
                measured[CHANGE] = self._evidence_after(change, trained_until, champion.trained_until)
            candidate = ReplayedCandidate(version, live, self.settings, change, measured)
            clauses = [clause for check in CLAUSES for clause in check(candidate)]
            broken = [f"{clause.name}: {clause.finding}" for clause in clauses if not clause.holds]
            self._refusals[at] = "; ".join(broken)
        return self._refusals[at]

    def _evidence_after(self, change: date, trained_until: date, known_until: date) -> Evidence:
        """Return what the champion as it stands, and a model fitted anew, predicted for the last days after a change."""
        try:
            observed = self.evaluator.observe_change(
                self._trial(trained_until), self.fits.model(known_until), known_until, change
            )
        except DataRefused as error:
            return Evidence({"error": error.what})
        return Evidence({}, observed)
