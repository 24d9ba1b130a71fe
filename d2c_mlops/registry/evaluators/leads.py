"""Evaluator of lead scores: the predicted chance that a lead is won against the actual outcomes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any

import numpy as np
import pandas as pd

from d2c_mlops.data.days import local_days
from d2c_mlops.data.layouts.leads import unpack_lead_fields
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import DataRefused
from d2c_mlops.models.core.charter import Charter, break_even_precision
from d2c_mlops.models.core.contract import Contract
from d2c_mlops.models.lead_scoring.additive import probability
from d2c_mlops.models.lead_scoring.baselines import source_rates
from d2c_mlops.models.lead_scoring.evaluation import calls_profit, leads_to_call
from d2c_mlops.models.lead_scoring.leakage_guard import auc
from d2c_mlops.registry.evaluators import ACTUAL, BASELINE, MODEL, EvaluationTrial, Evaluator, Metric, predict_shuffled

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

        def per_lead(observations: pd.DataFrame, column: str) -> float:
            score, won = _lead_scores(observations, column), _won_mask(observations)
            chosen = leads_to_call(
                score, break_even_precision(right or 0.0, wrong or 0.0), observations["day"].to_numpy(), capacity
            )
            return calls_profit(won, chosen, right or 0.0, wrong or 0.0) / max(1, len(observations))

        by_rank = Metric(
            "auc",
            lambda observations, column: auc(_won_mask(observations), _lead_scores(observations, column)),
            lower_is_better=False,
        )
        by_error = Metric(
            "brier",
            lambda observations, column: float(
                np.mean((_lead_scores(observations, column) - _won_mask(observations)) ** 2)
            ),
        )
        if not right or wrong is None:
            return (by_rank, by_error)
        unit = f"{charter.currency or 'money'} a lead"
        return (Metric("profit_per_lead", per_lead, False, unit, MONEY), by_rank, by_error)

    def disguise(self, tables: Tables) -> Tables:
        """Return tables in which won and lost leads are exchanged."""
        if "leads" not in tables:
            return tables
        leads = tables["leads"]
        outcomes = leads["outcome"].map({"won": "lost", "lost": "won"}).astype(leads["outcome"].dtype)
        return Tables({**dict(tables), "leads": leads.assign(outcome=outcomes)}, tables.zone)

    def observe(self, trial: EvaluationTrial) -> pd.DataFrame:
        tables = trial.tables.before(trial.as_of)
        leads = tables["leads"].sort_values("scored_at", kind="stable") if "leads" in tables else pd.DataFrame()
        closed = leads[leads["outcome"].notna()].reset_index(drop=True) if len(leads) else leads
        if len(closed) < FEWEST:
            raise DataRefused(
                f"{len(closed)} leads with an outcome are too few to measure a score", where="leads",
                next="ingest more leads that were won or lost",
            )  # fmt: skip
        days = pd.Series(local_days(closed["scored_at"], trial.tables.zone)).dt.date
        starts = np.linspace(int(len(closed) * (1 - SHARE)), len(closed), CUTOFFS + 1).astype(int)[:-1]
        cutoffs = sorted({days.iloc[start] - timedelta(days=1) for start in starts.tolist()})[-trial.cutoffs(CUTOFFS) :]
        frames = []
        for cutoff, end in zip(cutoffs, [*cutoffs[1:], trial.as_of], strict=True):
            before, until = (set(trial.tables.before(day)["leads"]["lead_id"]) for day in (cutoff, end))
            new_leads = closed[closed["lead_id"].isin(until - before)]
            if len(new_leads) and before:
                frames.append(_measure_cutoff(trial, cutoff, new_leads.reset_index(drop=True)))
        if not frames:
            raise DataRefused("there is no lead after a cutoff", where="leads", next="choose a later as_of")
        return pd.concat(frames, ignore_index=True)


def _measure_cutoff(trial: EvaluationTrial, cutoff: date, leads: pd.DataFrame) -> pd.DataFrame:
    past = trial.tables.before(cutoff)["leads"]
    past = past[past["outcome"].notna()]
    won = (past["outcome"] == "won").to_numpy(bool)
    rate = (won.sum() + 0.5) / (len(won) + 1)
    frame = pd.DataFrame({"cutoff": cutoff.isoformat(), "lead_id": leads["lead_id"].astype(str).to_numpy()})
    frame["day"] = local_days(leads["scored_at"], trial.tables.zone).astype(str)
    frame[ACTUAL] = (leads["outcome"] == "won").to_numpy(float)
    scores = predict_shuffled(trial.fitted(cutoff), unpack_lead_fields(leads), "score")
    frame[MODEL] = np.where(np.isnan(scores), rate, scores)  # a lead without a score gets the mean rate
    frame[BASELINE + "prior_rate"] = rate
    frame[BASELINE + "call_everyone"] = 1.0
    frame[BASELINE + "rate_by_source"] = rate
    fields = unpack_lead_fields(past.reset_index(drop=True))
    if "source" in fields and len(fields):
        names = pd.Index(fields["source"].astype(str).unique())
        codes = names.get_indexer(fields["source"].astype(str))
        later = names.get_indexer(unpack_lead_fields(leads)["source"].astype(str))
        rates = source_rates(codes.astype(np.intp), len(names) + 1, won)
        frame[BASELINE + "rate_by_source"] = probability(rates.margin([np.where(later < 0, len(names), later)]))
    return frame


def _won_mask(observations: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return observations[ACTUAL].to_numpy() > 0.5


def _lead_scores(observations: pd.DataFrame, column: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return observations[column].to_numpy(np.float64)
