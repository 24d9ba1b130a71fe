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


def chances(margin: Floats, deviation: Floats, call_threshold: float) -> tuple[Floats, Floats]:
    """Return the score (share 0..1) and the chance that the advice to call, or not to, is right."""
    both = probability(np.stack([margin, PROBIT * np.abs(margin - call_threshold) / deviation]))
    return np.round(both[0], 6), np.round(both[1], 4)


def answers(sheet: Sheet, ids: pd.Series[str], scored: ScoredLeads) -> pd.DataFrame:
    """Return the answers to leads as a frame in the contract's types."""
    values, sure = chances(scored.margin, scored.deviation, sheet.call_threshold)
    enough = scored.known >= sheet.least
    basis = np.where(enough, int(bool(sheet.baseline)), 2)
    tier = np.where(enough, 3 - np.searchsorted(sheet.cuts, scored.margin, side="right"), len(TIERS))
    call = pd.array(scored.margin >= sheet.call_threshold, dtype="boolean")
    call[~enough] = pd.NA
    return pd.DataFrame(
        {
            "lead_id": ids,
            "score": np.where(enough, values, np.nan),
            "tier": _texts(tier, (*TIERS, None)),
            "call": call,
            "confidence": np.where(enough, sure, np.nan),
            "basis": _texts(basis, BASES),
        },
        index=ids.index,
    )


def _texts(codes: Any, texts: Sequence[str | None]) -> Any:
    return pd.array(list(texts), dtype="str").take(codes)


Parts = tuple[list[int], float, float, int]  # codes of the terms, log-odds, standard deviation, known fields


def record_parts(sheet: Sheet, record: Mapping[str, Any]) -> Parts:
    """Return what the answer and the reasons for one lead are made of."""
    codes, known_fields = [], 0
    for field in sheet.fields:
        code = field.code(record.get(field.name))
        codes.append(code)
        known_fields += code != field.size - 1
    for term in sheet.terms[len(codes) :]:
        (a, b), (_, size) = term.parts, term.sizes
        codes.append(codes[a] * size + codes[b])
    margin, variance = sheet.level, sheet.level_variance
    for table, unsure, code in zip(sheet.lists, sheet.variance_lists, codes, strict=True):
        margin += table[code]
        variance += unsure[code]
    return codes, margin, math.sqrt(variance), known_fields


def record_answer(sheet: Sheet, lead_id: str, parts: Parts) -> dict[str, Any]:
    """Return the answer to one lead as JSON values."""
    _, margin, deviation, known_fields = parts
    enough = known_fields >= sheet.least
    chance, sure = chances(np.array([margin]), np.array([deviation]), sheet.call_threshold)
    return {
        "lead_id": lead_id,
        "score": chance.item() if enough else None,
        "tier": TIERS[3 - bisect_right(sheet.cuts, margin)] if enough else None,
        "call": margin >= sheet.call_threshold if enough else None,
        "confidence": sure.item() if enough else None,
        "basis": BASES[int(bool(sheet.baseline)) if enough else 2],
    }


def record_answers(sheet: Sheet, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the answers to checked records as JSON values."""
    return [record_answer(sheet, record["lead_id"], record_parts(sheet, record)) for record in records]


def record_reasons(sheet: Sheet, parts: Parts) -> list[str]:
    """Return the reasons for one lead, as the batch gives them."""
    codes, margin, _, known_fields = parts
    if known_fields < sheet.least:
        return [too_few_fields_text(sheet, known_fields)]
    summands = [table[code] for table, code in zip(sheet.lists, codes, strict=True)]
    order = sorted(range(len(codes)), key=summands.__getitem__)
    top = [i for i in order[: -TOLD - 1 : -1] if summands[i] >= WEAK]
    low = [i for i in order[:TOLD] if summands[i] <= -WEAK]
    texts = [sheet.reason_lists[i][codes[i]] for i in top + low]
    if margin < sheet.call_threshold and any(sheet.changeable):
        room = [entries[code] for entries, code in zip(sheet.shortfall_lists, codes, strict=True)]
        a, *others = sorted(range(len(room)), key=room.__getitem__, reverse=True)[:2]
        b = others[0] if others else a
        second = room[b] if others else -math.inf
        texts.append(
            needed_change_text(sheet, sheet.call_threshold - margin, room[a], second, (a, codes[a]), (b, codes[b]))
        )
    return [*texts, sheet.baseline] if sheet.baseline else texts


def explained_answers(
    sheet: Sheet, records: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], list[list[str]]]:
    """Return answers and reasons for checked records as JSON values, both from the same parts."""
    parts = [record_parts(sheet, record) for record in records]
    outputs = [record_answer(sheet, record["lead_id"], part) for record, part in zip(records, parts, strict=True)]
    return outputs, [record_reasons(sheet, part) for part in parts]
