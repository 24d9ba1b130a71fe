"""Lead scores as a frame for a batch and as records for a service, equal to the last digit.

The batch works on columns. A single lead is scored without a frame, because making one costs more than the score. Both use the same
two functions and add up in the same order.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from d2c_mlops.models.lead_scoring.additive import probability
from d2c_mlops.models.lead_scoring.answers import (
    BASES,
    TIERS,
    TOLD,
    WEAK,
    ScoredLeads,
    Sheet,
    needed_change_text,
    too_few_fields_text,
)
from d2c_mlops.models.lead_scoring.fields import Floats

PROBIT = 1.702  # the logistic curve that is closest to the normal distribution (Bowling et al. 2009)


def score_and_certainty(margin: Floats, deviation: Floats, call_threshold: float) -> tuple[Floats, Floats]:
    """Return the score (share 0..1) and the chance that the advice to call, or not to, is right."""
    both = probability(np.stack([margin, PROBIT * np.abs(margin - call_threshold) / deviation]))
    return np.round(both[0], 6), np.round(both[1], 4)


def answers_frame(score_sheet: Sheet, ids: pd.Series[str], scored: ScoredLeads) -> pd.DataFrame:
    """Return the answers to leads as a frame in the contract's types."""
    values, sure = score_and_certainty(scored.margin, scored.deviation, score_sheet.call_threshold)
    enough = scored.known >= score_sheet.least
    basis = np.where(enough, int(bool(score_sheet.baseline)), 2)
    tier = np.where(enough, 3 - np.searchsorted(score_sheet.cuts, scored.margin, side="right"), len(TIERS))
    call = pd.array(scored.margin >= score_sheet.call_threshold, dtype="boolean")
    call[~enough] = pd.NA
    return pd.DataFrame(
        {
            "lead_id": ids,
            "score": np.where(enough, values, np.nan),
            "tier": _texts_of_codes(tier, (*TIERS, None)),
            "call": call,
            "confidence": np.where(enough, sure, np.nan),
            "basis": _texts_of_codes(basis, BASES),
        },
        index=ids.index,
    )


def _texts_of_codes(codes: Any, texts: Sequence[str | None]) -> Any:
    return pd.array(list(texts), dtype="str").take(codes)


Parts = tuple[list[int], float, float, int]  # codes of the terms, log-odds, standard deviation, known fields


def record_parts(score_sheet: Sheet, record: Mapping[str, Any]) -> Parts:
    """Return what the answer and the reasons for one lead are made of."""
    codes, known_fields = [], 0
    for field in score_sheet.fields:
        code = field.code(record.get(field.name))
        codes.append(code)
        known_fields += code != field.size - 1
    for term in score_sheet.terms[len(codes) :]:
        (a, b), (_, size) = term.parts, term.sizes
        codes.append(codes[a] * size + codes[b])
    margin, variance = score_sheet.level, score_sheet.level_variance
    for table, unsure, code in zip(score_sheet.lists, score_sheet.variance_lists, codes, strict=True):
        margin += table[code]
        variance += unsure[code]
    return codes, margin, math.sqrt(variance), known_fields


def record_answer(score_sheet: Sheet, lead_id: str, parts: Parts) -> dict[str, Any]:
    """Return the answer to one lead as JSON values."""
    _, margin, deviation, known_fields = parts
    enough = known_fields >= score_sheet.least
    chance, sure = score_and_certainty(np.array([margin]), np.array([deviation]), score_sheet.call_threshold)
    return {
        "lead_id": lead_id,
        "score": chance.item() if enough else None,
        "tier": TIERS[3 - bisect_right(score_sheet.cuts, margin)] if enough else None,
        "call": margin >= score_sheet.call_threshold if enough else None,
        "confidence": sure.item() if enough else None,
        "basis": BASES[int(bool(score_sheet.baseline)) if enough else 2],
    }


def record_answers(score_sheet: Sheet, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the answers to checked records as JSON values."""
    return [record_answer(score_sheet, record["lead_id"], record_parts(score_sheet, record)) for record in records]


def record_reasons(score_sheet: Sheet, parts: Parts) -> list[str]:
    """Return the reasons for one lead, as the batch gives them."""
    codes, margin, _, known_fields = parts
    if known_fields < score_sheet.least:
        return [too_few_fields_text(score_sheet, known_fields)]
    summands = [table[code] for table, code in zip(score_sheet.lists, codes, strict=True)]
    order = sorted(range(len(codes)), key=summands.__getitem__)
    top = [i for i in order[: -TOLD - 1 : -1] if summands[i] >= WEAK]
    low = [i for i in order[:TOLD] if summands[i] <= -WEAK]
    texts = [score_sheet.reason_lists[i][codes[i]] for i in top + low]
    if margin < score_sheet.call_threshold and any(score_sheet.changeable):
        room = [entries[code] for entries, code in zip(score_sheet.shortfall_lists, codes, strict=True)]
        a, *others = sorted(range(len(room)), key=room.__getitem__, reverse=True)[:2]
        b = others[0] if others else a
        second = room[b] if others else -math.inf
        texts.append(
            needed_change_text(
                score_sheet, score_sheet.call_threshold - margin, room[a], second, (a, codes[a]), (b, codes[b])
            )
        )
    return [*texts, score_sheet.baseline] if score_sheet.baseline else texts


def explained_answers(
    score_sheet: Sheet, records: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """Return answers and reasons for checked records as JSON values, both from the same parts."""
    parts = [record_parts(score_sheet, record) for record in records]
    outputs = [record_answer(score_sheet, record["lead_id"], part) for record, part in zip(records, parts, strict=True)]
    return outputs, [record_reasons(score_sheet, part) for part in parts]
