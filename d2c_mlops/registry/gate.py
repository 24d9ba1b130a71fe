"""The gate: the clauses that a version must meet before it may become champion."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

import numpy as np

from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import D2CError
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.contract_changes import broken_clauses
from d2c_mlops.models.core.model import Evaluation
from d2c_mlops.registry.compared_metrics import FigurePair, MeasuredModel, reported_metric, reported_pairs
from d2c_mlops.registry.evaluators import Metric
from d2c_mlops.registry.gate_candidate import (
    ANSWERS,
    CHECK,
    OTHER,
    OURS,
    THEIRS,
    PromotionCandidate,
    change_on_record,
    compare_after_change,
    judging_metric,
)
from d2c_mlops.registry.promotion_history import former_champions, promotions_until
from d2c_mlops.registry.versions import Version, find_version, load_version, zone_of_days
from d2c_mlops.settings import Settings

MOST_OPTIMISM = 0.5  # share by which evaluate() may report a better figure than the gate measures
REPORT_TOLERANCE = 1e-6  # share by which evaluate() and the gate may differ on the same rows
LEAKAGE_LIMIT = 0.25  # share of the metric that a model may lose against the strongest baseline on changed data


@dataclass(frozen=True)
class Clause:
    """One condition of the gate, whether it holds, and the finding with its figures."""

    name: str
    holds: bool
    finding: str

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "holds": self.holds, "finding": self.finding}

    def __str__(self) -> str:
        return f"{'holds ' if self.holds else 'BROKEN'} {self.name}: {self.finding}"


def charter_is_complete(candidate: PromotionCandidate) -> Iterator[Clause]:
    """charter"""
    open_questions = candidate.version.case.open_questions()
    finding = "; ".join(f"{q.where} is open ({q.what})" for q in open_questions)
    example = candidate.example
    if not finding and example.fields:
        finding = f"complete, but {example.fields_text} still have the values of the {example}: {example.instructions(candidate.version.model)}"
    yield Clause("charter", not open_questions, finding or "complete and answered for this shop")


def contract_is_unbroken(candidate: PromotionCandidate) -> Iterator[Clause]:
    """contract"""
    version, champion = candidate.version, candidate.champion
    if champion is None:
        yield Clause("contract", True, f"{version.schema.version}, the first contract")
        return
    broken = broken_clauses(champion.schema, version.schema)
    finding = "; ".join(str(change) for change in broken)
    if broken and (former := _compatible_former_champion(candidate)):
        finding += f". It is compatible with the contract of version {former}: run `d2c rollback {version.model} --to {former}` first"
    yield Clause("contract", not broken, finding or f"{version.schema.version} is compatible with all callers")


def model_rules_hold(candidate: PromotionCandidate) -> Iterator[Clause]:
    """check_model"""
    both = [candidate.evidence[CHECK], candidate.evidence[ANSWERS]]
    errors = [evidence.error.strip().splitlines()[0] for evidence in both if evidence.error]
    wrong = [f"{failure['where']}: {failure['what']}" for evidence in both for failure in evidence.failures]
    if errors or wrong:
        yield Clause("check_model", False, "; ".join(dict.fromkeys([*errors, *wrong])))
        return
    count = len(both[0].result["rules"])
    yield Clause(
        "check_model", True, f"{count} rules hold in a clean process, and the predictions of this version are valid"
    )


def population_is_covered(candidate: PromotionCandidate) -> Iterator[Clause]:
    """population"""
    version, champion, ours, theirs = (
        candidate.version,
        candidate.champion,
        candidate.own_measurement,
        candidate.champion_measurement,
    )
    if champion is None or candidate.evaluator is None:
        return
    was, now = ((version_side.inputs or [{"name": ""}])[0]["name"] for version_side in (champion, version))
    what = candidate.evaluator.population(version.params)
    before, moved = candidate.evaluator.population(champion.params), version.schema.major > champion.schema.major
    if what != before:
        yield Clause(
            "population", moved,
            f"{what} instead of {before}: callers request keys that this version does not know"
            + (f"; contract {version.schema.version} is new, so it has no callers yet" if moved else "; give its contract a new major version"),
        )  # fmt: skip
    elif was != now:
        yield Clause(
            "population", moved,
            f"trained on dataset {now!r}, the champion on {was!r}: metrics of two datasets are not comparable; if both are of the same "
            "shop, promote with --override",
        )  # fmt: skip
    elif zone_change := _zone_change(candidate):
        yield Clause("population", moved, zone_change + ("" if moved else "; give its contract a new major version"))
    elif ours is not None and theirs is not None:
        lost = sorted(theirs.keys() - ours.keys())
        shown = ", ".join(lost[:5]) + (", …" if len(lost) > 5 else "")
        text = f"{len(ours.keys()):,} {what}" + (
            f"; {len(lost)} that the champion answers are missing: {shown}" if lost else ""
        )
        yield Clause("population", not lost, text)


def _zone_change(candidate: PromotionCandidate) -> str:
    """Return how the time zones of the two versions' days differ; empty if they are equal."""
    champion, version = candidate.champion, candidate.version
    if champion is None or candidate.evaluator is None or candidate.evaluator.own_files:
        return ""
    try:
        was, now = (zone_of_days(version_side, candidate.settings) for version_side in (champion, version))
    except D2CError:  # missing and changed files are reported where they are needed
        return ""
    return (
        ""
        if was == now
        else f"its days are in the time zone {now}, the champion's in {was}: the same date is another day for callers"
    )


def evaluation_is_measured(candidate: PromotionCandidate) -> Iterator[Clause]:
    """evaluation"""
    version, ours, model = candidate.version, candidate.own_measurement, candidate.version.model
    if ours is None:
        evidence = candidate.evidence.get(OURS)
        if evidence is not None:
            yield Clause("evaluation", False, f"could not be measured: {_error_in_one_line(evidence.error)}")
            return
        why = (
            "there is no evaluator for this kind of model"
            if candidate.evaluator is None
            else "the version has no dataset"
        )
        yield Clause(
            "evaluation", False,
            f"the metrics are reported by evaluate() and could not be recomputed: {why}. Write an Evaluator in a package of [d2c] packages "
            f"(or install one with the entry point d2c_mlops.evaluators), or `d2c promote {model} --override --by NAME --reason TEXT`",
        )  # fmt: skip
        return
    text = f"{ours.metric.name} {ours.value:.4f}, measured {_where_measured(ours)}"
    if ours.metric.name != version.case.metric:
        text += _why_other_metric(candidate)
    if (disguised := candidate.evidence.get(OTHER)) is not None and disguised.error:
        text += f"; the leakage test on changed data failed: {disguised.error.strip().splitlines()[0]}"
    wrong = [*_non_finite_finding(ours), *_report_differences(candidate, ours), *_leakage_finding(candidate, ours)]
    yield Clause("evaluation", not wrong, "; ".join([text, *wrong]))


def _error_in_one_line(error: str) -> str:
    """Return the first line of an error and what to do next, in one line."""
    first, *others = error.strip().splitlines()
    return "; ".join([first, *(line.strip() for line in others if line.strip().startswith("next:"))])


def _where_measured(measured: MeasuredModel) -> str:
    if "cutoff" not in measured.observations:
        return f"on {len(measured.answered_rows):,} holdout records"
    text = f"at {measured.observations['cutoff'].nunique()} past cutoffs on {len(measured.answered_rows):,} predictions"
    every = measured.observations[measured.evaluator.row[-1]].nunique()
    if (answered := len(measured.keys())) < every:
        text += f"; {answered:,} of {every:,} {measured.evaluator.row[-1]} keys have a prediction, the others are not evaluated"
    return text


def _non_finite_finding(measured: MeasuredModel) -> Iterator[str]:
    if not np.isfinite(measured.value):
        yield "the metric is not a finite number"


def _report_differences(candidate: PromotionCandidate, measured: MeasuredModel) -> Iterator[str]:
    """Yield how the report of evaluate() differs from the gate's measurement, beyond rounding on the same rows."""
    version = candidate.version
    metrics = {metric.name: metric for metric in measured.evaluator.metrics(version.case, version.params)}
    metric = metrics.get(version.score.metric)
    if metric is None:
        return
    if measured.reported_rows is not None and len(measured.reported_rows):
        pair = FigurePair(
            metric, version.score.value, metric.score(measured.reported_rows, "model"), "gate on the same rows"
        )
        if pair.gain > REPORT_TOLERANCE * max(abs(pair.value), abs(pair.reference)) or not np.isfinite(pair.gain):
            yield f"evaluate() reports {pair}"
        return
    pair = FigurePair(metric, version.score.value, metric.score(measured.answered_rows, "model"), "gate")
    if pair.better and pair.gain > MOST_OPTIMISM * max(abs(pair.value), abs(pair.reference)):
        yield f"evaluate() reports {pair}"


def _leakage_finding(candidate: PromotionCandidate, ours: MeasuredModel) -> Iterator[str]:
    """Yield a finding if the model is only good on the true data: then it read outcomes from elsewhere than its tables."""
    evidence = candidate.evidence.get(OTHER)
    if evidence is None or evidence.frame is None:
        return
    plain = next(
        metric for metric in ours.evaluator.metrics(candidate.version.case, candidate.version.params) if not metric.unit
    )
    disguised = MeasuredModel(ours.evaluator, plain, evidence.frame)
    rows = list(ours.evaluator.row)
    measured = MeasuredModel(ours.evaluator, plain, ours.observations.merge(disguised.observations[rows], on=rows))
    mine, theirs = measured.baselines(), disguised.baselines()
    if not mine or not theirs or measured.answered_rows.empty:
        return
    now, then = (min(pairs.values(), key=lambda pair: pair.strength) for pairs in (mine, theirs))
    if now.better and not then.better and now.strength - then.strength > LEAKAGE_LIMIT:
        yield (
            f"it reads outcomes from other places than the tables passed to it (leakage): with the same history on changed data "
            f"({ours.evaluator.world}), {then}"
        )


def better_than_the_baseline(candidate: PromotionCandidate) -> Iterator[Clause]:
    """baseline"""
    version, charter_baseline = candidate.version, candidate.version.case.baseline
    pairs = (
        candidate.measurement_beside_baselines.baselines()
        if candidate.measurement_beside_baselines is not None
        else _reported_baselines(version)
    )
    if not pairs:
        yield Clause("baseline", False, "there is no baseline to compare with")
        return
    strongest = min(pairs.values(), key=lambda pair: pair.strength)
    if candidate.measurement_beside_baselines is not None:
        others = ", ".join(f"{pair.name} {pair.reference:.4f}" for pair in pairs.values() if pair is not strongest)
        where = f", on the days after the change of {candidate.change}" if candidate.is_new_world else ""
        finding = f"{strongest}{where}" + (f" (the strongest; {others})" if others else "")
        yield Clause("baseline", strongest.better, finding)
    if not charter_baseline or (charter_baseline in pairs and candidate.measurement_beside_baselines is not None):
        if charter_baseline and pairs[charter_baseline] is not strongest:
            yield Clause(
                "baseline", pairs[charter_baseline].better, f"{pairs[charter_baseline]}, the charter's baseline"
            )
        return
    if charter_baseline not in version.score.baselines:
        text = f"the charter's baseline {charter_baseline!r} is measured neither by the gate nor by evaluate(), which has {', '.join(pairs)}"
        yield Clause("baseline", False, text)
        return
    if candidate.measurement_beside_baselines is None:
        for name in [charter_baseline] if charter_baseline else sorted(pairs):
            yield Clause("baseline", pairs[name].better, f"{pairs[name]}, as reported by evaluate()")
        return
    measured, value = candidate.measurement_beside_baselines, version.score.baselines[charter_baseline]
    if measured.metric.name != version.score.metric:
        text = f"evaluate() reports the charter's baseline {charter_baseline!r} as {version.score.metric}, the gate measures {measured.metric.name}"
        yield Clause("baseline", False, text)
        return
    pair = FigurePair(measured.metric, measured.value, value, charter_baseline)
    yield Clause("baseline", pair.better, f"{pair}, the charter's baseline, which only evaluate() reports")


def break_even_is_reached(candidate: PromotionCandidate) -> Iterator[Clause]:
    """break-even"""
    version, ours, needed = candidate.version, candidate.judged_measurement, candidate.version.case.break_even
    if needed is None:
        return
    if candidate.example.uses_example("break_even"):
        text = f"not checked: {needed:g} is the value of the {candidate.example}; set charter.break_even in [model:{version.model}]"
        yield Clause("break-even", True, text)
        return
    metric, value = _metric_value(candidate, version.case.metric or version.score.metric)
    if metric is None:
        text = f"it is given in {version.case.metric}, which the gate does not measure; {ours.metric.name if ours else ''} {value:.4f}"
        metrics = ours.evaluator.metrics(version.case, version.params) if ours else []
        names = ", ".join(metric_option.name for metric_option in metrics if not metric_option.judged_as)
        how = f"; set charter.metric ({names}) and charter.break_even in [model:{version.model}]" if names else ""
        yield Clause("break-even", False, text + how)
        return
    pair = FigurePair(metric, value, needed, "break-even")
    yield Clause("break-even", not pair.worse, f"{pair}" + ("" if ours is not None else ", as reported by evaluate()"))


def not_worse_than_the_champion(candidate: PromotionCandidate) -> Iterator[Clause]:
    """champion"""
    version, champion = candidate.version, candidate.champion
    if champion is None:
        yield Clause("champion", True, "there is no champion yet")
        return
    name = f"champion (version {champion.version})"
    moved = version.schema.major > champion.schema.major
    if candidate.incomparable:
        text = f"not compared with {name}: {candidate.incomparable}"
        yield Clause("champion", moved, text + _comparison_advice(candidate, moved))
        return
    if (after := compare_after_change(candidate, name)) is not None:
        yield Clause("champion", *after)
        return
    if candidate.own_measurement is not None:
        pair = (
            candidate.own_measurement.compared_with(candidate.champion_measurement, name)
            if candidate.champion_measurement is not None
            else None
        )
        if pair is not None:
            yield Clause("champion", not pair.worse, f"{pair}, on the same rows")
            return
        evidence = candidate.evidence.get(THEIRS)
        why = (
            evidence.error.strip().splitlines()[0]
            if evidence is not None and evidence.error
            else "the two versions have no predictions for the same rows"
        )
        yield Clause("champion", moved, f"not compared with {name}: {why}" + _comparison_advice(candidate, moved))
        return
    try:
        champion_score = _champion_evaluation(candidate, champion)
    except (D2CError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as err:
        why = str(err).splitlines()[0]
        yield Clause("champion", moved, f"not compared with {name}: {why}" + _comparison_advice(candidate, moved))
        return
    pair = FigurePair(
        reported_metric(version.score, version.case.currency), version.score.value, champion_score.value, name
    )
    yield Clause("champion", not pair.worse, f"{pair}, as reported by evaluate()")


CLAUSES: tuple[Callable[[PromotionCandidate], Iterator[Clause]], ...] = (
    charter_is_complete,
    contract_is_unbroken,
    model_rules_hold,
    population_is_covered,
    evaluation_is_measured,
    better_than_the_baseline,
    break_even_is_reached,
    not_worse_than_the_champion,
)


def judge_clauses(version: Version, champion: Version | None, settings: Settings) -> list[Clause]:
    """Return the result of every clause of the gate for a version that is to replace the champion."""
    candidate = PromotionCandidate(version, champion, settings, change_on_record(version, champion, settings))
    return [clause for check in CLAUSES for clause in check(candidate)]


def _reported_baselines(version: Version) -> Mapping[str, FigurePair]:
    return reported_pairs(version.score, reported_metric(version.score, version.case.currency))


def _metric_value(candidate: PromotionCandidate, name: str) -> tuple[Metric | None, float]:
    """Return the metric of a name and its value for the version; None if the gate does not measure it."""
    version, ours = candidate.version, candidate.judged_measurement
    if ours is None:
        return reported_metric(version.score, version.case.currency), version.score.value
    metrics = ours.evaluator.metrics(version.case, version.params)
    for metric in metrics:
        if metric.name == judging_metric(metrics, name):
            return metric, metric.score(ours.answered_rows, "model")
    return None, ours.value


def _why_other_metric(candidate: PromotionCandidate) -> str:
    charter_metric, version = candidate.version.case.metric, candidate.version
    if not charter_metric:
        return ""
    if candidate.evaluator is not None:
        judging = judging_metric(candidate.evaluator.metrics(version.case, version.params), charter_metric)
        if judging != charter_metric:
            return f" ({charter_metric} is computed on training data, so {judging} on holdout data is used)"
    if candidate.example.uses_example("right_value", "wrong_cost") and candidate.evaluator is not None:
        return f" ({charter_metric} would be computed with the money values of the {candidate.example})"
    return f" (the charter's {charter_metric} is not measured for this kind of model)"


def _compatible_former_champion(candidate: PromotionCandidate) -> int | None:
    """Return the last former champion whose contract the version is compatible with."""
    ledger = Ledger.of(candidate.settings)
    for number in reversed(former_champions(promotions_until(ledger, candidate.version.model))):
        if not broken_clauses(find_version(ledger, candidate.version.model, number).schema, candidate.version.schema):
            return number
    return None


def _comparison_advice(candidate: PromotionCandidate, has_new_major: bool) -> str:
    if has_new_major:
        return f"; its contract {candidate.version.schema.version} has its own callers, so both versions can be served"
    return (
        "; train it with the champion's parameters, give its contract a new major version, or register it under another name "
        f"([model:NAME] model = {candidate.version.schema.name})"
    )


def _champion_evaluation(candidate: PromotionCandidate, champion: Version) -> Evaluation:
    """Return the champion's evaluation on the version's data and day; evaluate it now if they differ from its own."""
    version = candidate.version
    if (champion.inputs, champion.as_of) == (version.inputs, version.as_of):
        return champion.score
    model = load_version(champion, candidate.settings)
    return model.evaluate(_gate_tables(version, candidate.settings), date.fromisoformat(version.as_of))


def _gate_tables(version: Version, settings: Settings) -> Tables:
    if not version.inputs:
        return Tables({})
    only = version.inputs[0]
    return Tables.open(settings.store, only["name"], only["digest"])
