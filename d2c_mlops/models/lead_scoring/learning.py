"""Learn a lead score from a leads table: leakage guard, contract, score sheet, fallback with few won leads, and its JSON form.

Names that a recipe gives (to drop, to allow, to pair) must exist: a typing error that drops nothing would let a leak in. Every leads
table has fields of its own, so the contract is made with the score. Fields that are not used yet (constant, or a clock) are accepted
all the same: callers do not break on the day on which they become useful.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa

from d2c_mlops.data.layouts.leads import unpack_lead_fields
from d2c_mlops.errors import DataRefused, Failure, UsageError
from d2c_mlops.models.core.charter import break_even_precision
from d2c_mlops.models.core.contract import Contract, column
from d2c_mlops.models.lead_scoring.additive import Additive, LearningPace, age_weights, probability, additive_terms
from d2c_mlops.models.lead_scoring.answers import BASES, TIERS, Sheet, tag_with_term
from d2c_mlops.models.lead_scoring.baselines import source_rates
from d2c_mlops.models.lead_scoring.fields import Category, Field, field_from_dict, field_to_dict, learn_fields
from d2c_mlops.models.lead_scoring.leakage_guard import (
    time_proxy_fields,
    fields_filled_afterwards,
    leaking_fields,
    refuse_leaks,
)
from d2c_mlops.models.lead_scoring.training import (
    PACES,
    FittedScore,
    Sample,
    TrainingPlan,
    learning_sample,
    fit_score_tables,
    score_variances,
)
from d2c_mlops.models.lead_scoring.wording import Word, code_phrases, words_for


@dataclass(frozen=True)
class Recipe:
    """What the owner decides about a score."""

    drop: tuple[str, ...] = ()  # fields left out
    allow: tuple[str, ...] = ()  # fields that the guard or the clock would take out, and that stay
    pairs: tuple[tuple[str, str], ...] = ()  # fields that count together
    words: Mapping[str, Word] = field(default_factory=dict)
    min_wins: int = 30
    min_fields: int = 2
    capacity: int = 0  # calls a day; 0 = no limit
    lifetime: int = 0  # leads that a version scores; 0 = those of a week
    paces: tuple[LearningPace, ...] = PACES


@dataclass(frozen=True)
class Prepared:
    """Leads that may be learned from, and how their fields become codes."""

    sample: Sample
    fields: tuple[Field, ...]
    clocks: tuple[str, ...]
    notes: tuple[str, ...]


def prepare_leads(recipe: Recipe, leads: pd.DataFrame, zone: str = "UTC") -> Prepared:
    """Return what may be learned from leads, their days in the zone; raises DataRefused for leaks, UsageError for unknown names."""
    ordered = leads.sort_values("scored_at", kind="stable")
    frame = unpack_lead_fields(ordered)
    _check_names(recipe, frame)
    dropped = [*recipe.drop]
    sample = learning_sample(ordered.assign(outcome=ordered["outcome"]), zone)
    if not len(sample):
        raise DataRefused(
            "no lead has an outcome yet", where="leads.outcome", next="ingest leads that were won or lost"
        )
    sample = replace(sample, frame=sample.frame.drop(columns=dropped))
    fields, notes = learn_fields(sample.frame)
    moments = pd.Series(pd.to_datetime(sample.scored_at, utc=True), index=sample.frame.index)
    failures = leaking_fields(sample.frame, fields, sample.won, moments, zone)
    failures += fields_filled_afterwards(frame.drop(columns=dropped), ordered["outcome"].notna().to_numpy(bool))
    refuse_leaks(failures, recipe.allow)
    timed = {name: beat for name, beat in time_proxy_fields(sample.frame, fields).items() if name not in recipe.allow}
    clock_notes = [
        f"{name}: left out, it tells when a lead came and not who it is (allow={name} keeps it)" for name in timed
    ]
    kept_fields = tuple(f for f in fields if f.name not in timed)
    return Prepared(sample, kept_fields, tuple(timed), (*notes, *clock_notes))


def _check_names(recipe: Recipe, frame: pd.DataFrame) -> None:
    option_names = [("drop", n) for n in recipe.drop] + [("allow", n) for n in recipe.allow]
    option_names += [("pairs", n) for pair in recipe.pairs for n in pair]
    field_names = [str(c) for c in frame.columns if c != "lead_id"]
    wrong = [
        Failure(f"{name!r} is not a field of the leads", what) for what, name in option_names if name not in field_names
    ]
    wrong += [Failure("a field's name may not start with _", n) for n in field_names if n.startswith("_")]
    if wrong:
        raise UsageError(
            "fields are named that are not there", failures=wrong, next=f"use some of: {', '.join(field_names)}"
        )


def lead_contract(frame: pd.DataFrame, words: Mapping[str, Word], version: str = "1.0.0") -> Contract:
    """Return what goes in, one optional column per field of the frame, and what comes out."""
    lead = column("string", "the lead", max_length=200, example="L000001")
    inputs = {"lead_id": lead}
    for name in (str(c) for c in frame.columns if c != "lead_id"):
        word = words.get(name, Word(""))
        label = words_for([Category(name, ())], words)[name].label
        better = f"; more is {word.more_is}" if word.more_is else ""
        number = frame[name].dtype.kind == "f"
        unit = word.unit or ("as in the leads table" if number else "text")
        there = frame[name].dropna()
        example = (float(there.iloc[0]) if number else str(there.iloc[0])) if len(there) else None
        limit = None if number else 1000
        inputs[name] = column(
            "number" if number else "string",
            label + better,
            unit=unit,
            max_length=limit,
            nullable=True,
            example=example,
        )
    chance = "chance that the lead becomes a customer; null with too little data"
    sure = "chance that the advice to call, or not to, is right"
    outputs = {
        "lead_id": lead,
        "score": column("number", chance, unit="share 0..1", ge=0, le=1, nullable=True),
        "tier": column("string", "A to C pay a call, D does not", unit="tier", choices=TIERS, nullable=True),
        "call": column("boolean", "call: it pays and there is time", unit="yes or no", nullable=True),
        "confidence": column("number", sure, unit="share 0..1", ge=0, le=1, nullable=True),
        "basis": column("string", "what the answer rests on", unit="basis", choices=BASES),
    }
    return Contract("lead_scoring", version, "lead_id", pa.DataFrameSchema(inputs), pa.DataFrameSchema(outputs))


def leads_with_contract_fields(prepared: Prepared) -> pd.DataFrame:
    """Return the leads with the fields that a contract is made of: all but those that tell one lead from another."""
    once = [note.split(":")[0] for note in prepared.notes if note.endswith("hardly any value comes twice")]
    return prepared.sample.frame.drop(columns=once)


@dataclass(frozen=True)
class Money:
    """What a right and a wrong call are worth, from the charter."""

    right_value: float
    wrong_cost: float

    @property
    def break_even(self) -> float:
        """Return the chance from which on a call pays."""
        return break_even_precision(self.right_value, self.wrong_cost)


@dataclass(frozen=True)
class LearnedLeads:
    """A score, and how it came about."""

    sheet: Sheet
    contract: Contract
    about: Mapping[str, Any]  # leads, won, paces, slope, notes


def learn_lead_score(recipe: Recipe, prepared: Prepared, money: Money) -> LearnedLeads:
    """Return the score learned from all prepared leads; raises DataRefused where all were won or all were lost."""
    sample = prepared.sample
    wins = int(sample.won.sum())
    if wins in (0, len(sample)):
        raise DataRefused(
            f"all {len(sample):,} leads were {'won' if wins else 'lost'}, so nothing tells one from another",
            where="leads.outcome", next="wait for other outcomes, or ingest an earlier period too",
        )  # fmt: skip
    words = words_for(prepared.fields, recipe.words)
    wanting = wins < recipe.min_wins or not prepared.fields
    plan = _make_training_plan(recipe, prepared, words)
    if wanting:
        why = f"rate by source only: {wins} leads were won, a score of its own needs {recipe.min_wins}"
        sheet = _make_score_sheet(*_fit_by_source(prepared), recipe, words, money, sample, why)
        return LearnedLeads(
            sheet,
            lead_contract(leads_with_contract_fields(prepared), recipe.words),
            _learned_facts(prepared, None, why),
        )
    fitted = fit_score_tables(plan, sample)
    sheet = _make_score_sheet(plan, fitted, recipe, words, money, sample, "")
    return LearnedLeads(
        sheet, lead_contract(leads_with_contract_fields(prepared), recipe.words), _learned_facts(prepared, fitted, "")
    )


def _make_training_plan(recipe: Recipe, prepared: Prepared, words: Mapping[str, Word]) -> TrainingPlan:
    names = [f.name for f in prepared.fields]
    pairs = [(names.index(a), names.index(b)) for a, b in recipe.pairs if a in names and b in names]
    monotone = {name: word.direction for name, word in words.items() if word.direction}
    last = prepared.sample.scored_at[-1] - np.timedelta64(7, "D")
    week = int((prepared.sample.scored_at > last).sum())
    terms = additive_terms(prepared.fields, pairs)
    return TrainingPlan(tuple(prepared.fields), terms, monotone, recipe.paces, recipe.lifetime or max(1, week))


def _fit_by_source(prepared: Prepared) -> tuple[TrainingPlan, FittedScore]:
    sample = prepared.sample
    fields = tuple(f for f in prepared.fields if f.name == "source") or (Category("source", ()),)
    codes = [fields[0].codes(sample.frame["source"])] if "source" in sample.frame else [np.zeros(len(sample), np.intp)]
    model = source_rates(codes[0], fields[0].size, sample.won)
    plan = TrainingPlan(fields, additive_terms(fields), {}, PACES[:1])
    level, spread = score_variances(model, codes, age_weights(len(sample), 0), PACES[0])
    return plan, FittedScore(model, level, spread, PACES[:1], 1.0)


def _learned_facts(prepared: Prepared, fitted: FittedScore | None, why: str) -> dict[str, Any]:
    sample = prepared.sample
    about = {"leads": len(sample), "won": int(sample.won.sum()), "notes": [*prepared.notes, *([why] if why else [])]}
    if fitted:
        about |= {"paces": [[p.memory, p.recency] for p in fitted.paces], "slope": round(fitted.slope, 4)}
    return about


RECENT = 0.2  # of the leads, the last ones, which say what a usual day is


def _make_score_sheet(
    plan: TrainingPlan,
    fitted: FittedScore,
    recipe: Recipe,
    words: Mapping[str, Word],
    money: Money,
    sample: Sample,
    baseline: str,
) -> Sheet:
    codes = plan.codes(sample.frame) if "source" in sample.frame or len(plan.fields) > 1 else []
    term_codes = [term.codes(codes) for term in plan.terms] if codes else []
    tables = fitted.model.tables
    texts_by_field = {
        f.name: code_phrases(f, words.get(f.name, Word(f.name)), t) for f, t in zip(plan.fields, tables, strict=False)
    }
    spoken, changeable, populated = [], [], []
    paired = {i for term in plan.terms if len(term.parts) > 1 for i in term.parts}
    for i, term in enumerate(plan.terms):
        names = [plan.fields[part].name for part in term.parts]
        if len(names) == 1:
            spoken.append(tuple(texts_by_field[names[0]]))
        else:
            spoken.append(tuple(f"{a} and {b}" for a in texts_by_field[names[0]] for b in texts_by_field[names[1]]))
        fixed = any(words.get(name, Word(name)).fixed for name in names)
        changeable.append(len(names) == 1 and not fixed and term.parts[0] not in paired)
        had = np.bincount(term_codes[i], minlength=term.size) > 0 if term_codes else np.zeros(term.size, bool)
        had[-1] = False  # nobody is asked to become unknown
        populated.append(had)
    return Sheet(
        plan.fields, plan.terms, fitted.model.level, tuple(tag_with_term(t, i) for i, t in enumerate(tables)),
        fitted.level_variance, fitted.variances, tuple(spoken), tuple(changeable), tuple(populated), money.break_even,
        capacity_bar(recipe.capacity, fitted.model, term_codes, sample), min(recipe.min_fields, sum(f.size > 1 for f in plan.fields)), baseline,
    )  # fmt: skip


def capacity_bar(capacity: int, model: Additive, term_codes: Sequence[Any], sample: Sample) -> float:
    """Return the score above which as many leads come on a usual day as can be called; 0 where there is no limit."""
    first = int(len(sample) * (1 - RECENT))
    days = np.unique(sample.days[first:]).size
    calls = capacity * days
    if not capacity or not term_codes or calls >= len(sample) - first:
        return 0.0
    scores = np.sort(probability(model.margin([code[first:] for code in term_codes])))
    return float(scores[-calls])


def learned_to_dict(learned_leads: LearnedLeads) -> dict[str, Any]:
    """Return a score as JSON values; numbers come back to the last digit."""
    sheet = learned_leads.sheet
    return {
        "fields": [field_to_dict(f) for f in sheet.fields],
        "pairs": [list(t.parts) for t in sheet.terms if len(t.parts) > 1],
        "level": sheet.level,
        "tables": [t.tolist() for t in sheet.tables],
        "level_variance": sheet.level_variance,
        "variances": [v.tolist() for v in sheet.variances],
        "phrases": [list(p) for p in sheet.phrases],
        "changeable": list(sheet.changeable),
        "seen": [s.astype(int).tolist() for s in sheet.seen],
        "break_even": sheet.break_even,
        "bar": sheet.bar,
        "least": sheet.least,
        "baseline": sheet.baseline,
        "about": dict(learned_leads.about),
    }


def learned_from_dict(values: Mapping[str, Any], contract: Contract) -> LearnedLeads:
    """Return the score that `learned_to_dict` wrote."""
    fields = tuple(field_from_dict(f) for f in values["fields"])
    sheet = Sheet(
        fields, additive_terms(fields, [(a, b) for a, b in values["pairs"]]), values["level"],
        tuple(np.array(t, np.float64) for t in values["tables"]), values["level_variance"],
        tuple(np.array(v, np.float64) for v in values["variances"]), tuple(tuple(p) for p in values["phrases"]),
        tuple(values["changeable"]), tuple(np.array(s, bool) for s in values["seen"]),
        values["break_even"], values["bar"], values["least"], values["baseline"],
    )  # fmt: skip
    return LearnedLeads(sheet, contract, values["about"])
