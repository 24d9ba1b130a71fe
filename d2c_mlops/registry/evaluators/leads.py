"""The chance that a lead becomes a customer, measured against what became of the leads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd

from d2c_mlops.data.days import local_days
from d2c_mlops.data.layouts.leads import unpack
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import DataRefused
from d2c_mlops.models.core.charter import Charter, break_even_precision
from d2c_mlops.models.core.contract import Contract
from d2c_mlops.models.lead_scoring.additive import share
from d2c_mlops.models.lead_scoring.baselines import source_rates
from d2c_mlops.models.lead_scoring.evaluation import called, profit
from d2c_mlops.models.lead_scoring.leakage_guard import auc
from d2c_mlops.registry.evaluators import BASELINE, CAME, MODEL, EvaluationTrial, Evaluator, Metric, answers_of

CUTOFFS, SHARE, FEWEST = 2, 0.4, 40  # cutoffs in the last share of the leads with an outcome; leads below which none
MONEY = ("right_value", "wrong_cost")


class LeadEvaluator(Evaluator):
    """A score 0..1 per lead."""

    name = "leads"
    row = ("cutoff", "lead_id")
    world = "won and lost exchanged"

    def knows(self, contract: Contract) -> bool:
        return contract.key == "lead_id" and "score" in (f.name for f in contract.output_fields if f.kind == "number")

    def metrics(self, charter: Charter, params: Mapping[str, Any]) -> Sequence[Metric]:
        right, wrong, capacity = charter.right_value, charter.wrong_cost, int(params.get("capacity") or 0)

        def per_lead(seen: pd.DataFrame, column: str) -> float:
            score, won = _scores(seen, column), _won(seen)
            chosen = called(score, break_even_precision(right or 0.0, wrong or 0.0), seen["day"].to_numpy(), capacity)
            return profit(won, chosen, right or 0.0, wrong or 0.0) / max(1, len(seen))

        by_rank = Metric("auc", lambda seen, column: auc(_won(seen), _scores(seen, column)), lower_is_better=False)
        by_error = Metric("brier", lambda seen, column: float(np.mean((_scores(seen, column) - _won(seen)) ** 2)))
        if not right or wrong is None:
            return (by_rank, by_error)
        unit = f"{charter.currency or 'money'} a lead"
        return (Metric("profit_per_lead", per_lead, False, unit, MONEY), by_rank, by_error)

    def disguise(self, tables: Tables) -> Tables:
        """Every lead that was won was lost, and the other way round."""
        if "leads" not in tables:
            return tables
        leads = tables["leads"]
        other = leads["outcome"].map({"won": "lost", "lost": "won"}).astype(leads["outcome"].dtype)
        return Tables({**dict(tables), "leads": leads.assign(outcome=other)}, tables.zone)

    def observe(self, trial: EvaluationTrial) -> pd.DataFrame:
        known = trial.tables.before(trial.as_of)
        leads = known["leads"].sort_values("scored_at", kind="stable") if "leads" in known else pd.DataFrame()
        closed = leads[leads["outcome"].notna()].reset_index(drop=True) if len(leads) else leads
        if len(closed) < FEWEST:
            raise DataRefused(
                f"{len(closed)} leads with an outcome are too few to measure a score", where="leads",
                next="ingest more leads that were won or lost",
            )  # fmt: skip
        days = pd.Series(local_days(closed["scored_at"], trial.tables.zone)).dt.date
        starts = np.linspace(int(len(closed) * (1 - SHARE)), len(closed), CUTOFFS + 1).astype(int)[:-1]
        cutoffs = sorted({days.iloc[start] - timedelta(days=1) for start in starts.tolist()})[-trial.cutoffs(CUTOFFS) :]
        found = []
        for cutoff, end in zip(cutoffs, [*cutoffs[1:], trial.as_of], strict=True):
            before, until = (set(trial.tables.before(day)["leads"]["lead_id"]) for day in (cutoff, end))
            asked = closed[closed["lead_id"].isin(until - before)]
            if len(asked) and before:
                found.append(_observed(trial, cutoff, asked.reset_index(drop=True)))
        if not found:
            raise DataRefused("no lead came after a cutoff", where="leads", next="choose a later as_of")
        return pd.concat(found, ignore_index=True)


def _observed(trial: EvaluationTrial, cutoff: date, asked: pd.DataFrame) -> pd.DataFrame:
    past = trial.tables.before(cutoff)["leads"]
    past = past[past["outcome"].notna()]
    won = (past["outcome"] == "won").to_numpy(bool)
    rate = (won.sum() + 0.5) / (len(won) + 1)
    frame = pd.DataFrame({"cutoff": cutoff.isoformat(), "lead_id": asked["lead_id"].astype(str).to_numpy()})
    frame["day"] = local_days(asked["scored_at"], trial.tables.zone).astype(str)
    frame[CAME] = (asked["outcome"] == "won").to_numpy(float)
    scores = answers_of(trial.fitted(cutoff), unpack(asked), "score")
    frame[MODEL] = np.where(np.isnan(scores), rate, scores)  # a lead without a score is as good as any
    frame[BASELINE + "prior_rate"] = rate
    frame[BASELINE + "call_everyone"] = 1.0
    frame[BASELINE + "rate_by_source"] = rate
    fields = unpack(past.reset_index(drop=True))
    if "source" in fields and len(fields):
        names = pd.Index(fields["source"].astype(str).unique())
        codes = names.get_indexer(fields["source"].astype(str))
        later = names.get_indexer(unpack(asked)["source"].astype(str))
        rates = source_rates(codes.astype(np.intp), len(names) + 1, won)
        frame[BASELINE + "rate_by_source"] = share(rates.margin([np.where(later < 0, len(names), later)]))
    return frame


def _won(seen: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return seen[CAME].to_numpy() > 0.5


def _scores(seen: pd.DataFrame, column: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return seen[column].to_numpy(np.float64)
