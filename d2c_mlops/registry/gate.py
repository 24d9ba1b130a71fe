"""The gate: what a version must show before it may become champion, clause by clause."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from ..data.tables import Tables
from ..models.contract_changes import broken_clauses
from ..models.model import Evaluation
from ..settings import Settings
from .versions import Version, load_version

TOLERANCE = 1e-9  # two evaluations of the same model on the same data are equal up to rounding


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


@dataclass(frozen=True)
class Question:
    """A version at the gate, and the champion that it would replace."""

    version: Version
    champion: Version | None
    settings: Settings


def charter_is_complete(question: Question) -> Iterator[Clause]:
    """charter"""
    open_questions = question.version.case.open_questions()
    finding = "; ".join(f"{q.where} is open ({q.what})" for q in open_questions)
    yield Clause("charter", not open_questions, finding or "complete")


def contract_is_unbroken(question: Question) -> Iterator[Clause]:
    """contract"""
    if question.champion is None:
        yield Clause("contract", True, f"{question.version.schema.version}, the first")
        return
    broken = broken_clauses(question.champion.schema, question.version.schema)
    finding = "; ".join(str(change) for change in broken)
    yield Clause("contract", not broken, finding or f"{question.version.schema.version} breaks no caller")


def better_than_the_baseline(question: Question) -> Iterator[Clause]:
    """baseline"""
    score, named = question.version.score, question.version.case.baseline
    if named and named not in score.baselines:
        yield Clause("baseline", False, f"evaluate() does not report the charter's baseline {named!r}")
        return
    if not score.baselines:
        yield Clause("baseline", False, "evaluate() reports no baseline")
    for name in [named] if named else sorted(score.baselines):
        gain = score.gain(score.baselines[name])
        yield Clause("baseline", gain > TOLERANCE, _compared(score, name, score.baselines[name], gain))


def it_pays(question: Question) -> Iterator[Clause]:
    """break-even"""
    score, needed = question.version.score, question.version.case.break_even
    if needed is not None:
        gain = score.gain(needed)
        yield Clause("break-even", gain >= -TOLERANCE, _compared(score, "break-even", needed, gain))


def not_worse_than_the_champion(question: Question) -> Iterator[Clause]:
    """champion"""
    champion = question.champion
    if champion is None:
        yield Clause("champion", True, "there is none yet")
        return
    score, other = question.version.score, _on_the_same_ground(question, champion)
    gain = score.gain(other.value)
    name = f"champion (version {champion.version})"
    yield Clause("champion", gain >= -TOLERANCE, _compared(score, name, other.value, gain))


CLAUSES: tuple[Callable[[Question], Iterator[Clause]], ...] = (
    charter_is_complete,
    contract_is_unbroken,
    better_than_the_baseline,
    it_pays,
    not_worse_than_the_champion,
)


def judge(version: Version, champion: Version | None, settings: Settings) -> list[Clause]:
    """Return every clause of the gate for a version that wants to replace the champion."""
    question = Question(version, champion, settings)
    return [clause for check in CLAUSES for clause in check(question)]


def _on_the_same_ground(question: Question, champion: Version) -> Evaluation:
    """Return the champion's evaluation on the data and the day of the version, evaluated now where it differs."""
    version = question.version
    if (champion.inputs, champion.as_of) == (version.inputs, version.as_of):
        return champion.score
    model = load_version(champion, question.settings)
    return model.evaluate(_tables(version, question.settings.store), date.fromisoformat(version.as_of))


def _tables(version: Version, store: Path) -> Tables:
    only = version.inputs[0]
    return Tables.open(store, only["name"], only["digest"])


def _compared(score: Evaluation, name: str, other: float, gain: float) -> str:
    word = "better" if gain > 0 else "worse"
    return f"{score.metric} {score.value:.4f} against {other:.4f} of the {name}, {abs(gain):.1%} {word}"
