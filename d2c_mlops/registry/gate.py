"""The gate: what a version must show before it may become champion, clause by clause."""

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
from d2c_mlops.registry.evaluators import Metric
from d2c_mlops.registry.figures import FigurePair, Measured, pairs_of, reported
from d2c_mlops.registry.gate_question import ANSWERS, CHECK, OTHER, OURS, THEIRS, Question, judging_metric
from d2c_mlops.registry.promotion_history import former_champions, history
from d2c_mlops.registry.versions import Version, find_version, load_version, zone_of_days
from d2c_mlops.settings import Settings

FLATTERED = 0.5  # share by which evaluate() may report a better figure than the gate measures
ALIKE = 1e-6  # share by which evaluate() and the gate may differ on the same rows
KNOWING = 0.25  # share of the figure by which another world may set a model back against the strongest baseline


@dataclass(frozen=True)
class Clause:
    """One condition of the gate, whether it holds, and the figures behind it."""

    name: str
    holds: bool
    finding: str

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.name, "holds": self.holds, "finding": self.finding}

    def __str__(self) -> str:
        return f"{'holds ' if self.holds else 'BROKEN'} {self.name}: {self.finding}"


def charter_is_complete(question: Question) -> Iterator[Clause]:
    """charter"""
    open_questions = question.version.case.open_questions()
    finding = "; ".join(f"{q.where} is open ({q.what})" for q in open_questions)
    example = question.example
    if not finding and example.fields:
        finding = f"complete, but {example.what} rest on the {example}: {example.how(question.version.model)}"
    yield Clause("charter", not open_questions, finding or "complete, answered for this shop")


def contract_is_unbroken(question: Question) -> Iterator[Clause]:
    """contract"""
    version, champion = question.version, question.champion
    if champion is None:
        yield Clause("contract", True, f"{version.schema.version}, the first")
        return
    broken = broken_clauses(champion.schema, version.schema)
    finding = "; ".join(str(change) for change in broken)
    if broken and (former := _former(question)):
        finding += f". It keeps the contract of version {former}: `d2c rollback {version.model} --to {former}` first"
    yield Clause("contract", not broken, finding or f"{version.schema.version} breaks no caller")


def model_keeps_its_promises(question: Question) -> Iterator[Clause]:
    """check_model"""
    both = [question.evidence[CHECK], question.evidence[ANSWERS]]
    errors = [each.error.strip().splitlines()[0] for each in both if each.error]
    wrong = [f"{each['where']}: {each['what']}" for found in both for each in found.failures]
    if errors or wrong:
        yield Clause("check_model", False, "; ".join(dict.fromkeys([*errors, *wrong])))
        return
    count = len(both[0].found["rules"])
    yield Clause(
        "check_model", True, f"{count} rules hold in a clean process, and the answers of this version keep theirs"
    )


def population_is_covered(question: Question) -> Iterator[Clause]:
    """population"""
    version, champion, ours, theirs = question.version, question.champion, question.ours, question.theirs
    if champion is None or question.evaluator is None:
        return
    was, now = ((each.inputs or [{"name": ""}])[0]["name"] for each in (champion, version))
    what = question.evaluator.population(version.params)
    before, moved = question.evaluator.population(champion.params), version.schema.major > champion.schema.major
    if what != before:
        yield Clause(
            "population", moved,
            f"{what} instead of {before}: callers ask for keys that this version does not know"
            + (f"; contract {version.schema.version} is new, so nobody does yet" if moved else "; give its contract a new major version"),
        )  # fmt: skip
    elif was != now:
        yield Clause(
            "population", moved,
            f"trained on dataset {now!r}, the champion on {was!r}: figures of two datasets are not compared; if they are the same "
            "shop, override on record",
        )  # fmt: skip
    elif other := _other_zone(question):
        yield Clause("population", moved, other + ("" if moved else "; give its contract a new major version"))
    elif ours is not None and theirs is not None:
        lost = sorted(theirs.keys() - ours.keys())
        shown = ", ".join(lost[:5]) + (", …" if len(lost) > 5 else "")
        text = f"{len(ours.keys()):,} {what}" + (
            f"; {len(lost)} that the champion answers are not: {shown}" if lost else ""
        )
        yield Clause("population", not lost, text)


def _other_zone(question: Question) -> str:
    """Return that the version's days are those of another time zone than the champion's; empty where they are the same."""
    champion, version = question.champion, question.version
    if champion is None or question.evaluator is None or question.evaluator.own_files:
        return ""
    try:
        was, now = (zone_of_days(each, question.settings) for each in (champion, version))
    except D2CError:  # files that are gone or changed are told where they are needed
        return ""
    return (
        ""
        if was == now
        else f"its days are those of {now}, the champion's are those of {was}: callers get another day for the same date"
    )


def evaluation_is_measured(question: Question) -> Iterator[Clause]:
    """evaluation"""
    version, ours, model = question.version, question.ours, question.version.model
    if ours is None:
        found = question.evidence.get(OURS)
        if found is not None:
            yield Clause("evaluation", False, f"could not be measured: {_with_next(found.error)}")
            return
        why = "no evaluator knows this kind of model" if question.evaluator is None else "it names no dataset"
        yield Clause(
            "evaluation", False,
            f"the figures are evaluate()'s own and could not be recomputed: {why}. Write an Evaluator in a package of [d2c] packages "
            f"(or bring one by the entry point d2c_mlops.evaluators), or `d2c promote {model} --override --by NAME --reason TEXT`",
        )  # fmt: skip
        return
    text = f"{ours.metric.name} {ours.value:.4f}, measured {_where(ours)}"
    if ours.metric.name != version.case.metric:
        text += _why_not(question)
    if (other := question.evidence.get(OTHER)) is not None and other.error:
        text += f"; it could not be asked in another world: {other.error.strip().splitlines()[0]}"
    wrong = [*_not_finite(ours), *_repeated(question, ours), *_knows_more(question, ours)]
    yield Clause("evaluation", not wrong, "; ".join([text, *wrong]))


def _with_next(error: str) -> str:
    """Return the first line of an error and what to do next, in one line."""
    first, *others = error.strip().splitlines()
    return "; ".join([first, *(line.strip() for line in others if line.strip().startswith("next:"))])


def _where(ours: Measured) -> str:
    if "cutoff" not in ours.seen:
        return f"on {len(ours.answered):,} records that were held back from the training"
    text = f"at {ours.seen['cutoff'].nunique()} past cutoffs on {len(ours.answered):,} answers"
    every = ours.seen[ours.evaluator.row[-1]].nunique()
    if (answered := len(ours.keys())) < every:
        text += f"; {answered:,} of {every:,} {ours.evaluator.row[-1]} keys are answered, the others are not judged"
    return text


def _not_finite(ours: Measured) -> Iterator[str]:
    if not np.isfinite(ours.value):
        yield "its answers are no numbers that can be compared"


def _repeated(question: Question, ours: Measured) -> Iterator[str]:
    """Yield how evaluate()'s report differs from what the gate finds, beyond rounding on the same rows."""
    version = question.version
    known = {each.name: each for each in ours.evaluator.metrics(version.case, version.params)}
    own = known.get(version.score.metric)
    if own is None:
        return
    if ours.repeated is not None and len(ours.repeated):
        pair = FigurePair(
            own, version.score.value, own.score(ours.repeated, "model"), "same rows, computed by the gate"
        )
        if pair.gain > ALIKE * max(abs(pair.value), abs(pair.other)) or not np.isfinite(pair.gain):
            yield f"evaluate() reports {pair}"
        return
    pair = FigurePair(own, version.score.value, own.score(ours.answered, "model"), "gate's own measurement")
    if pair.better and pair.gain > FLATTERED * max(abs(pair.value), abs(pair.other)):
        yield f"evaluate() reports {pair}"


def _knows_more(question: Question, ours: Measured) -> Iterator[str]:
    """Yield that a model does well only where what came is what it may have read elsewhere than in its tables."""
    found = question.evidence.get(OTHER)
    if found is None or found.frame is None:
        return
    plain = next(
        each for each in ours.evaluator.metrics(question.version.case, question.version.params) if not each.unit
    )
    other = Measured(ours.evaluator, plain, found.frame)
    rows = list(ours.evaluator.row)
    here = Measured(ours.evaluator, plain, ours.seen.merge(other.seen[rows], on=rows))
    mine, theirs = here.baselines(), other.baselines()
    if not mine or not theirs or here.answered.empty:
        return
    now, then = (min(each.values(), key=lambda pair: pair.strength) for each in (mine, theirs))
    if now.better and not then.better and now.strength - then.strength > KNOWING:
        yield (
            f"it knows what came from elsewhere than the tables that it is handed: with the same history in another world "
            f"({ours.evaluator.world}), {then}"
        )


def better_than_the_baseline(question: Question) -> Iterator[Clause]:
    """baseline"""
    version, named = question.version, question.version.case.baseline
    pairs = question.ours.baselines() if question.ours is not None else _reported(version)
    if not pairs:
        yield Clause("baseline", False, "there is no baseline to beat")
        return
    strongest = min(pairs.values(), key=lambda pair: pair.strength)
    if question.ours is not None:
        others = ", ".join(f"{pair.name} {pair.other:.4f}" for pair in pairs.values() if pair is not strongest)
        yield Clause("baseline", strongest.better, f"{strongest}" + (f" (the strongest; {others})" if others else ""))
    if not named or (named in pairs and question.ours is not None):
        if named and pairs[named] is not strongest:
            yield Clause("baseline", pairs[named].better, f"{pairs[named]}, the charter's")
        return
    if named not in version.score.baselines:
        text = f"the charter's baseline {named!r} is measured neither by the gate nor by evaluate(), which has {', '.join(pairs)}"
        yield Clause("baseline", False, text)
        return
    if question.ours is None:
        for name in [named] if named else sorted(pairs):
            yield Clause("baseline", pairs[name].better, f"{pairs[name]}, as evaluate() reports it")
        return
    own, value = question.ours, version.score.baselines[named]
    if own.metric.name != version.score.metric:
        text = f"evaluate() reports the charter's baseline {named!r} as {version.score.metric}, the gate measures {own.metric.name}"
        yield Clause("baseline", False, text)
        return
    pair = FigurePair(own.metric, own.value, value, named)
    yield Clause("baseline", pair.better, f"{pair}, the charter's, which only evaluate() reports")


def it_pays(question: Question) -> Iterator[Clause]:
    """break-even"""
    version, ours, needed = question.version, question.ours, question.version.case.break_even
    if needed is None:
        return
    if question.example.rests_on("break_even"):
        text = f"not judged: {needed:g} is the {question.example}; set charter.break_even in [model:{version.model}]"
        yield Clause("break-even", True, text)
        return
    metric, value = _figure(question, version.case.metric or version.score.metric)
    if metric is None:
        text = f"it is in {version.case.metric}, which the gate does not measure; {ours.metric.name if ours else ''} {value:.4f}"
        known = ours.evaluator.metrics(version.case, version.params) if ours else []
        names = ", ".join(each.name for each in known if not each.judged_as)
        how = f"; set charter.metric ({names}) and charter.break_even in [model:{version.model}]" if names else ""
        yield Clause("break-even", False, text + how)
        return
    pair = FigurePair(metric, value, needed, "break-even")
    yield Clause("break-even", not pair.worse, f"{pair}" + ("" if ours is not None else ", as evaluate() reports it"))


def not_worse_than_the_champion(question: Question) -> Iterator[Clause]:
    """champion"""
    version, champion = question.version, question.champion
    if champion is None:
        yield Clause("champion", True, "there is none yet")
        return
    name = f"champion (version {champion.version})"
    moved = version.schema.major > champion.schema.major
    if question.incomparable:
        text = f"not compared with {name}: {question.incomparable}"
        yield Clause("champion", moved, text + _what_to_do(question, moved))
        return
    if question.ours is not None:
        pair = question.ours.beside(question.theirs, name) if question.theirs is not None else None
        if pair is not None:
            yield Clause("champion", not pair.worse, f"{pair}, on the same rows")
            return
        found = question.evidence.get(THEIRS)
        why = (
            found.error.strip().splitlines()[0] if found is not None and found.error else "they answer no row in common"
        )
        yield Clause("champion", moved, f"not compared with {name}: {why}" + _what_to_do(question, moved))
        return
    try:
        other = _on_the_same_ground(question, champion)
    except (D2CError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as err:
        why = str(err).splitlines()[0]
        yield Clause("champion", moved, f"not compared with {name}: {why}" + _what_to_do(question, moved))
        return
    pair = FigurePair(reported(version.score, version.case.currency), version.score.value, other.value, name)
    yield Clause("champion", not pair.worse, f"{pair}, as evaluate() reports it")


CLAUSES: tuple[Callable[[Question], Iterator[Clause]], ...] = (
    charter_is_complete,
    contract_is_unbroken,
    model_keeps_its_promises,
    population_is_covered,
    evaluation_is_measured,
    better_than_the_baseline,
    it_pays,
    not_worse_than_the_champion,
)


def judge(version: Version, champion: Version | None, settings: Settings) -> list[Clause]:
    """Return every clause of the gate for a version that wants to replace the champion."""
    question = Question(version, champion, settings)
    return [clause for check in CLAUSES for clause in check(question)]


def _reported(version: Version) -> Mapping[str, FigurePair]:
    return pairs_of(version.score, reported(version.score, version.case.currency))


def _figure(question: Question, name: str) -> tuple[Metric | None, float]:
    """Return the metric of a name and its value for the version; no metric where the gate does not measure it."""
    version, ours = question.version, question.ours
    if ours is None:
        return reported(version.score, version.case.currency), version.score.value
    known = ours.evaluator.metrics(version.case, version.params)
    for metric in known:
        if metric.name == judging_metric(known, name):
            return metric, metric.score(ours.answered, "model")
    return None, ours.value


def _why_not(question: Question) -> str:
    wanted, version = question.version.case.metric, question.version
    if not wanted:
        return ""
    if question.evaluator is not None:
        judging = judging_metric(question.evaluator.metrics(version.case, version.params), wanted)
        if judging != wanted:
            return f" ({wanted} flatters, so {judging} on what it had not seen is judged)"
    if question.example.rests_on("right_value", "wrong_cost") and question.evaluator is not None:
        return f" ({wanted} would be in the money of the {question.example})"
    return f" (the charter's {wanted} is not measured for this kind of model)"


def _former(question: Question) -> int | None:
    """Return the last former champion whose contract the version keeps."""
    ledger = Ledger.of(question.settings)
    for number in reversed(former_champions(history(ledger, question.version.model))):
        if not broken_clauses(find_version(ledger, question.version.model, number).schema, question.version.schema):
            return number
    return None


def _what_to_do(question: Question, moved: bool) -> str:
    if moved:
        return f"; its contract {question.version.schema.version} has callers of its own, who are served beside it"
    return (
        "; train it as the champion was, give its contract a new major version, or register it under another name "
        f"([model:NAME] model = {question.version.schema.name})"
    )


def _on_the_same_ground(question: Question, champion: Version) -> Evaluation:
    """Return the champion's evaluation on the data and the day of the version, evaluated now where it differs."""
    version = question.version
    if (champion.inputs, champion.as_of) == (version.inputs, version.as_of):
        return champion.score
    model = load_version(champion, question.settings)
    return model.evaluate(_tables(version, question.settings), date.fromisoformat(version.as_of))


def _tables(version: Version, settings: Settings) -> Tables:
    if not version.inputs:
        return Tables({})
    only = version.inputs[0]
    return Tables.open(settings.store, only["name"], only["digest"])
