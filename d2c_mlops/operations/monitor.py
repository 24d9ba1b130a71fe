"""Look at a live model: seven metrics, two drifts, and the alerts that follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd
from sqlalchemy import func, select

from d2c_mlops.data.days import day_start, local_days, parse_zone
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import D2CError, UsageError
from d2c_mlops.ledger.schema import runs
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.monitoring.alerts import Breach
from d2c_mlops.monitoring.daily_filter import BURN_IN
from d2c_mlops.monitoring.daily_series import daily_series
from d2c_mlops.monitoring.drift import Acknowledged, DriftReport, find_drift
from d2c_mlops.monitoring.performance import Estimate, error_series, estimate
from d2c_mlops.monitoring.reference import LEAST_OF_STRATUM, ReferenceSketches, compare_column, read_reference
from d2c_mlops.monitoring.relation import find_changed_relation
from d2c_mlops.monitoring.replay import Clock
from d2c_mlops.monitoring.sketches import LevelSketch
from d2c_mlops.monitoring.slow_changes import SlowChange, slow_changes
from d2c_mlops.monitoring.table_series import table_series
from d2c_mlops.monitoring.unlabelled import ExpectedPerformance
from d2c_mlops.monitoring.vital_signs import (
    BREACH,
    NOT_MEASURED,
    OK,
    TOO_LITTLE,
    MetricLimits,
    VitalSign,
    judge_accuracy,
    judge_confidence,
    judge_cost,
    judge_drift,
    judge_expected,
    judge_importance,
    judge_latency,
    judge_throughput,
    not_measured,
    too_little,
)
from d2c_mlops.operations.acknowledged import acknowledged_columns
from d2c_mlops.operations.common_metrics import common_metrics
from d2c_mlops.operations.daily_sketches import is_exact, sketches_of_days
from d2c_mlops.operations.live_answers import (
    answers_with_outcomes,
    calls_by_hour,
    expected_of_open_leads,
    has_own_outcomes,
    input_frame,
    is_forecast,
    is_lead_score,
    logged_predictions,
    settled_answers,
    sketch_logged,
)
from d2c_mlops.operations.retraining.known_state import METRICS as RETRAINED
from d2c_mlops.operations.retraining.known_state import configured_policy
from d2c_mlops.operations.service_metrics import latency_of_day
from d2c_mlops.registry.evaluators import ACTUAL, MODEL, Metric, evaluator_of
from d2c_mlops.registry.promotion_history import live_version
from d2c_mlops.registry.versions import Version, version_files
from d2c_mlops.settings import MonitorSettings, Settings

LOG_DAYS = 400  # days of the log that drift of the inputs is looked for in
WEEKS_OF_CALLS = 5
PROMISED = 0.8  # share of outcomes that the interval promises


@dataclass(frozen=True)
class DriftLook:
    """Where a drift was looked for, and what was found."""

    kind: str  # data: what the model learns from or is asked; concept: the relation to the outcome
    place: str
    report: DriftReport
    slow: tuple[SlowChange, ...] = ()  # of the dataset: what moved over the last four weeks; it opens no alert


@dataclass(frozen=True)
class VariantAccuracy:
    """The accuracy of one version's live answers."""

    version: int
    variant: str
    answers: int
    accuracy: Estimate | None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "version": self.version,
            "variant": self.variant,
            "answers": self.answers,
            "accuracy": vars(self.accuracy) if self.accuracy else None,
        }


@dataclass(frozen=True)
class MovedInput:
    """How far an input is from its values at registration: the population stability index, and which rows of the reference counted."""

    column: str
    index: float
    against: str


@dataclass(frozen=True)
class ModelHealth:
    """What one look at a live model found."""

    model: str
    version: int
    as_of: date
    at: datetime
    metric: str
    signs: tuple[VitalSign, ...]
    drifts: tuple[DriftLook, ...]
    variants: tuple[VariantAccuracy, ...]
    expected: ExpectedPerformance | None = None  # of scores whose outcome is not known yet
    inputs: tuple[MovedInput, ...] = ()  # how far inputs are from those at registration; it opens no alert

    @property
    def state(self) -> str:
        """The worst state: breach, else ok where something could be judged, else too little data."""
        states = {sign.state for sign in self.signs}
        return next((state for state in (BREACH, OK, TOO_LITTLE) if state in states), NOT_MEASURED)

    def to_dict(self) -> dict[str, Any]:
        """Return the health as JSON values."""
        drifts = [
            {"kind": look.kind, "place": look.place, **look.report.to_dict(), "slow_changes": [change.to_dict() for change in look.slow]}
            for look in self.drifts
        ]  # fmt: skip
        return {"model": self.model, "version": self.version, "as_of": self.as_of.isoformat(), "at": self.at.isoformat(), "state": self.state,
                "metrics": [sign.to_dict() for sign in self.signs], "drifts": drifts, "variants": [v.to_dict() for v in self.variants],
                "expected": self.expected.to_dict() if self.expected else None, "inputs": [vars(column) for column in self.inputs]}  # fmt: skip


def monitor_model(
    model: str,
    settings: Settings,
    as_of: date | None = None,  # last day whose data count; default: the last complete day of its dataset
    now: datetime | None = None,  # UTC; default: the end of `as_of` where that is given, else the present
) -> ModelHealth:
    """Look at the champion of a model. Nothing is written. Raises UsageError where the model has no champion."""
    if as_of is not None and as_of > datetime.now(UTC).date() + timedelta(days=1):
        raise UsageError(
            f"{as_of} is in the future, and nothing is known of it",
            where="as_of",
            next="give a day of the past, as YYYY-MM-DD",
        )
    ledger = Ledger.of(settings)
    version = live_version(ledger, model)
    tables, problem = _open_tables(version, settings)
    zone = tables.zone if tables is not None else "UTC"
    clock = Clock.at_end_of(as_of, zone) if as_of and now is None else Clock(now or datetime.now(UTC), zone)
    day, moment = as_of or _last_day(tables, clock), clock.now
    chosen = settings.monitor_limits(model)
    logged = logged_predictions(ledger, model, moment - timedelta(days=LOG_DAYS), moment)
    answers = answers_with_outcomes(ledger, version, logged, tables, day, moment)
    answers = settled_answers(version, logged, answers, zone)
    drifts = _drifts(ledger, version, tables, logged, answers, day, chosen)
    last = day if has_own_outcomes(version.schema) else moment.date()
    if is_lead_score(version.schema) and len(answers):
        last = min(last, pd.to_datetime(answers["day"]).max().date())
    recent = recent_answers(answers, last, chosen)
    accuracy, variants = accuracy_sign(version, live_metric(version, settings), recent, chosen)
    reference, problem_of_reference = _reference_of(version, settings)
    current = recent_sketches(ledger, version, logged, moment, zone, chosen.days)
    expected = expected_of_open_leads(version, logged, answers, moment - timedelta(days=chosen.days))
    if expected is not None:
        accuracy = judge_expected(model, accuracy, expected, metric_limits(chosen))
    signs: tuple[VitalSign, ...] = (
        accuracy,
        drift_sign(model, drifts, problem),
        _latency_sign(model, chosen, moment),
        judge_throughput(
            calls_by_hour(ledger, model, moment - timedelta(weeks=WEEKS_OF_CALLS), moment),
            moment.replace(tzinfo=None),
            metric_limits(chosen),
        ),
        _cost_sign(ledger, version, settings, moment, chosen),
        _importance_sign(reference, problem_of_reference, current, chosen),
        _confidence_sign(version, recent, chosen),
    )
    if configured_policy(model, settings).on_drift:
        signs = tuple(_retrained(sign) for sign in signs)
    return ModelHealth(
        model,
        version.version,
        day,
        moment,
        version.score.metric,
        signs,
        tuple(drifts),
        tuple(variants),
        expected,
        tuple(moved_inputs(reference, current)),
    )


def _retrained(sign: VitalSign) -> VitalSign:
    """Return a sign whose advice says that a breach which a new version may end starts a retraining."""
    if sign.state != BREACH or sign.metric not in RETRAINED:
        return sign
    return replace(sign, advice=f"{sign.advice}; by its policy the next `d2c retrain` trains it again")


def breaches_of(health: ModelHealth) -> tuple[list[Breach], set[tuple[str, str]]]:
    """Return the breaches of a look for the alerts, and the (model, metric) pairs that could be judged."""
    breaches = [
        Breach(
            model=health.model,
            metric=sign.metric,
            cause=sign.cause or sign.metric,
            severity=sign.severity,
            message=sign.message,
            advice=sign.advice,
            value=sign.value,
            threshold=sign.threshold,
            since=sign.since,
            version=health.version,
        )
        for sign in health.signs
        if sign.state == BREACH
    ]
    return breaches, {(health.model, sign.metric) for sign in health.signs if sign.state in (OK, BREACH)}


def metric_limits(chosen: MonitorSettings) -> MetricLimits:
    """Return the thresholds of settings as those of the seven metrics."""
    names = ("error", "score", "latency_ms", "throughput_drop", "cost_over", "importance", "confidence")
    return MetricLimits(**{name: getattr(chosen, name) for name in names})


def _open_tables(version: Version, settings: Settings) -> tuple[Tables | None, str]:
    """Return the tables of the model's dataset as they are now, or why there are none."""
    name = settings.model(version.model).data or next((dataset["name"] for dataset in version.inputs), "")
    if not name:
        return None, "the version names no dataset"
    try:
        return Tables.open(settings.store, name), ""
    except D2CError as error:
        return None, f"dataset {name}: {error.what}"


def _last_day(tables: Tables | None, clock: Clock) -> date:
    manifest = tables.manifest if tables is not None else None
    last = manifest.last_day if manifest is not None else None
    return min(last, clock.day) if last is not None else clock.day


def _drifts(
    ledger: Ledger,
    version: Version,
    tables: Tables | None,
    logged: pd.DataFrame,
    answers: pd.DataFrame,
    day: date,
    chosen: MonitorSettings,
) -> list[DriftLook]:
    """Look for a change in the dataset, in what callers ask, and in the errors of answers."""
    acknowledged = acknowledged_columns(ledger, version.model)
    looks = []
    if tables is not None:
        start = date.fromisoformat(version.as_of) + timedelta(days=1)
        series = table_series(tables, day)
        report = find_drift(series, start, acknowledged, chosen.false_alarms)
        looks.append(DriftLook("data", "dataset", report, slow_changes(series)))
    if len(logged):
        inputs = input_frame(logged, version.schema)
        days = local_days(logged["at"], tables.zone if tables is not None else "UTC")
        if inputs.shape[1]:
            series = daily_series(inputs, days, reference=BURN_IN, prefix="inputs.")
            looks.append(DriftLook("data", "inputs", find_drift(series, None, acknowledged, chosen.false_alarms)))
    return [*looks, *answer_drift(answers, version, acknowledged, chosen)]


def answer_drift(
    answers: pd.DataFrame, version: Version, acknowledged: Sequence[Acknowledged], chosen: MonitorSettings
) -> list[DriftLook]:
    """Look for a change in the errors of a version's answers; nothing where it has none with an outcome."""
    current = answers[answers["version"] == version.version] if len(answers) else answers
    if not len(current):
        return []
    if is_lead_score(version.schema):
        report = find_changed_relation(current, acknowledged, chosen.false_alarms)
    else:
        report = find_drift(error_series(current), None, acknowledged, chosen.false_alarms)
    return [DriftLook("concept", "answers", report)]


def recent_answers(answers: pd.DataFrame, last: date, chosen: MonitorSettings) -> pd.DataFrame:
    """Return the answers of the days that are judged, until the day `last`."""
    return answers[pd.to_datetime(answers["day"]) > pd.Timestamp(last) - pd.Timedelta(days=chosen.days)]


def drift_sign(model: str, looks: Sequence[DriftLook], problem: str = "") -> VitalSign:
    """Return the sign of the drift that is most certain: a changed relation before changed data."""
    changed = sorted((look for look in looks if look.report.has_drifted), key=lambda look: look.kind != "concept")
    if changed:
        sign = judge_drift(model, changed[0].report)
        kind = "the relation to outcomes changed" if changed[0].kind == "concept" else "the data changed"
        return VitalSign(**vars(sign) | {"message": f"{kind}: {sign.message}"})
    judged = [look for look in looks if not look.report.too_little]
    if not judged:
        reasons = [f"{look.place}: {look.report.too_little}" for look in looks]
        return too_little("drift", problem or "; ".join(reasons) or "no dataset and no predictions are known")
    sign = judge_drift(model, max((look.report for look in judged), key=lambda report: report.evidence[-1]))
    places = ", ".join(look.place for look in judged)
    return VitalSign(**vars(sign) | {"message": f"{sign.message} ({places})"})


def live_metric(version: Version, settings: Settings) -> Metric | None:
    """Return the metric of the version's evaluation, as the gate computes it; None where it cannot be computed."""
    evaluator = evaluator_of(version.schema, settings.packages)
    metrics = [] if evaluator is None else list(evaluator.metrics(version.case, version.params))
    name = version.score.metric
    return next((metric for metric in (*metrics, *common_metrics()) if metric.name == name), None)


def accuracy_sign(
    version: Version, metric: Metric | None, answers: pd.DataFrame, chosen: MonitorSettings
) -> tuple[VitalSign, list[VariantAccuracy]]:
    """Return the sign of the accuracy of a version's recent answers, and the accuracy of each version and variant."""
    score, limits = version.score, metric_limits(chosen)
    if metric is None:
        why = f"{score.metric} cannot be computed from single answers"
        return not_measured("accuracy", why, "write an Evaluator, see docs/operations.md"), []

    def value_of(frame: pd.DataFrame) -> float:
        return metric.score(frame.rename(columns={"outcome": ACTUAL, "predicted": MODEL}), MODEL)

    variants = []
    for number, variant in (
        answers[["version", "variant"]].drop_duplicates().sort_values("version").itertuples(index=False)
    ):
        part = answers[(answers["version"] == number) & (answers["variant"] == variant)]
        accuracy = estimate(part, value_of) if len(part) >= 2 else None
        variants.append(VariantAccuracy(int(number), str(variant), len(part), accuracy))
    current = answers[answers["version"] == version.version]
    days = int(current["day"].nunique()) if len(current) else 0
    now = estimate(current, value_of) if len(current) >= 2 else None
    return judge_accuracy(version.model, score.metric, now, score.value, score.lower_is_better, days, limits), variants


def _latency_sign(model: str, chosen: MonitorSettings, moment: datetime) -> VitalSign:
    if not chosen.prometheus:
        return judge_latency(None, 0, metric_limits(chosen))
    try:
        latency = latency_of_day(chosen.prometheus, model, moment)
    except D2CError as error:
        return not_measured("latency", error.what, error.next)
    if latency.milliseconds is None:
        return too_little("latency", "Prometheus knows no request of the last day")
    return judge_latency(latency.milliseconds, latency.requests, metric_limits(chosen))


def _cost_sign(
    ledger: Ledger, version: Version, settings: Settings, moment: datetime, chosen: MonitorSettings
) -> VitalSign:
    charter = version.case
    if settings.cpu_hour_price <= 0:
        return not_measured("cost", "the price of a CPU hour is not known", "set cpu_hour_price in [d2c]")
    first = moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    query = select(func.sum(runs.c.cost)).where(
        runs.c.model == version.model, runs.c.started_at >= first, runs.c.started_at < moment
    )
    with ledger.read() as connection:
        spent = connection.execute(query).scalar() or 0.0
    return judge_cost(float(spent), charter.budget, moment.date(), charter.currency or "money", metric_limits(chosen))


def _reference_of(version: Version, settings: Settings) -> tuple[ReferenceSketches | None, str]:
    """Return the sketches that a version was registered with, or why they cannot be read."""
    try:
        return read_reference(version_files(version, settings)), ""
    except (D2CError, OSError) as error:
        return None, f"the files of the version cannot be read ({error})"


def _importance_sign(
    reference: ReferenceSketches | None, problem: str, current: ReferenceSketches, chosen: MonitorSettings
) -> VitalSign:
    """Return the sign of the first reasons, against the same weekdays or quarters of the reference."""
    if problem:
        return not_measured("importance", problem)
    compared = None if reference is None else compare_column(reference, current, "reasons")
    limits = metric_limits(chosen)
    if compared is None or not isinstance(compared.reference, LevelSketch):
        return judge_importance(reference.reasons if reference else None, current.reasons, limits)
    return judge_importance(compared.reference, current.reasons, limits, compared.index, compared.against)


def recent_sketches(
    ledger: Ledger, version: Version, logged: pd.DataFrame, moment: datetime, zone: str, days: int
) -> ReferenceSketches:
    """Return the sketches of a version's predictions of the last local days: the sums of `d2c collect` of complete days where they equal those of all rows."""
    last = (moment - timedelta(microseconds=1)).astimezone(parse_zone(zone)).date()
    first = last - timedelta(days=days - 1)
    begin = day_start(last, zone)  # of the last day, which may not be over
    of_version = logged["version"] == version.version
    summed = sketches_of_days(ledger, version, first, last - timedelta(days=1), zone)
    if summed is not None:
        of_last_day = logged[of_version & (logged["at"] >= begin)]
        both = summed + sketch_logged(version.schema, of_last_day, zone) if len(of_last_day) else summed
        if is_exact(both):
            return both
    return sketch_logged(version.schema, logged[of_version & (logged["at"] >= day_start(first, zone))], zone)


def moved_inputs(reference: ReferenceSketches | None, current: ReferenceSketches) -> list[MovedInput]:
    """Return how far each input is from its reference, the farthest first; inputs of fewer than 200 known rows are left out."""
    names = [f"inputs.{name}" for name in current.inputs]
    compared = {name: compare_column(reference, current, name) for name in names} if reference is not None else {}
    moved = [
        MovedInput(name.partition(".")[2], round(comparison.index, 4), comparison.against)
        for name, comparison in compared.items()
        if comparison is not None
        and min(
            comparison.reference.rows - comparison.reference.missing,
            comparison.current.rows - comparison.current.missing,
        )
        >= LEAST_OF_STRATUM
    ]
    return sorted(moved, key=lambda column: -column.index)


def _confidence_sign(version: Version, answers: pd.DataFrame, chosen: MonitorSettings) -> VitalSign:
    if not is_forecast(version.schema):
        return judge_confidence(None, PROMISED, 0, metric_limits(chosen))
    current = answers[answers["version"] == version.version] if len(answers) else answers
    current = current.dropna(subset=["lower", "upper"]) if "lower" in current else current.iloc[:0]
    inside = (
        float(((current["outcome"] >= current["lower"]) & (current["outcome"] <= current["upper"])).mean())
        if len(current)
        else 0.0
    )
    return judge_confidence(inside, PROMISED, len(current), metric_limits(chosen))
