"""Scored leads: their relation to outcomes is watched apart from their mix, and open leads have an expectation."""

from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.monitoring.performance import auc
from d2c_mlops.operations import monitor
from d2c_mlops.operations.live_answers import expected_of_open_leads, settled_answers
from d2c_mlops.operations.monitor import DriftLook
from d2c_mlops.settings.schema import MonitorSettings
from support.lead_service import Lead

NOW = datetime(2025, 1, 1, tzinfo=UTC)
VERSION: Any = SimpleNamespace(schema=Lead.contract, version=3, model="leads", as_of="2023-01-01")


def scored_leads(count: int, days: int, factor: float = 1.0, seed: int = 5) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The log, and its answers with their outcome; in the last third of the days the odds are `factor` times as high."""
    rng = np.random.default_rng(seed)
    visits, ago = rng.integers(1, 10, count), np.sort(rng.integers(0, days, count))
    odds = np.exp(visits * 0.5 - 3.5) * np.where(ago < days / 3, factor, 1.0)
    won = (rng.random(count) < odds / (1 + odds)).astype(float)
    at = [NOW - timedelta(days=int(day), hours=1) for day in ago]
    keys = [f"L-{number}" for number in range(count)]
    logged = pd.DataFrame(
        {
            "version": 3,
            "key": keys,
            "at": at,
            "inputs": [{"lead_id": key, "visits": int(n)} for key, n in zip(keys, visits, strict=True)],
            "outputs": [{"score": float(n / 10)} for n in visits],
        }
    )
    answers = pd.DataFrame(
        {"day": pd.to_datetime([moment.date() for moment in at]), "key": keys, "version": 3, "variant": "champion"}
    )
    return logged, answers.assign(predicted=visits / 10, outcome=won)


def test_open_leads_have_an_expected_auc_near_the_true_one() -> None:
    logged, answers = scored_leads(4_000, 100)
    is_open = answers["day"] >= "2024-12-12"
    expected = expected_of_open_leads(VERSION, logged, answers[~is_open], NOW - timedelta(days=20))
    true = auc(answers["outcome"][is_open].to_numpy(), answers["predicted"][is_open].to_numpy())
    assert expected is not None
    assert expected.auc.rows == int(is_open.sum()) > 500
    assert abs(expected.auc.value - true) < 0.04
    assert expected.auc.lower <= expected.auc.value <= expected.auc.upper


def test_nothing_is_expected_of_few_open_leads_or_few_outcomes() -> None:
    logged, answers = scored_leads(4_000, 100)
    since = NOW - timedelta(days=20)
    assert expected_of_open_leads(VERSION, logged, answers, since) is None  # no lead is open
    assert expected_of_open_leads(VERSION, logged, answers.iloc[-60:], since) is None


@pytest.mark.parametrize(("factor", "drifts"), [(1.0, False), (0.4, True)])
def test_the_relation_of_leads_is_looked_at_by_their_outcomes(factor: float, drifts: bool, monkeypatch: Any) -> None:
    monkeypatch.setattr(monitor, "acknowledged_columns", lambda ledger, model: ())
    logged, answers = scored_leads(9_000, 300, factor)
    looks: list[DriftLook] = monitor._drifts(
        None, VERSION, None, logged.iloc[:0], answers, date(2025, 1, 1), MonitorSettings()
    )
    (look,) = looks
    assert look.kind == "concept"
    assert look.report.has_drifted is drifts
    if drifts:
        assert look.report.changes[0].column == "outcome at the same score"
        assert "below what they were, since 2024-" in look.report.changes[0].message


def test_outcomes_that_come_late_when_leads_are_lost_are_no_changed_relation(monkeypatch: Any) -> None:
    monkeypatch.setattr(monitor, "acknowledged_columns", lambda ledger, model: ())
    logged, answers = scored_leads(9_000, 300)
    age = (pd.Timestamp("2024-12-31") - answers["day"]).dt.days
    in_time = answers[age >= np.where(answers["outcome"] == 1, 1, 40)]
    settled = settled_answers(VERSION, logged, in_time, "UTC")
    assert 35 <= (pd.Timestamp("2024-12-31") - settled["day"].max()).days <= 45
    assert len(settled) == (answers["day"] <= settled["day"].max()).sum(), "no answer of a settled day is left out"
    reports = [
        monitor._drifts(None, VERSION, None, logged.iloc[:0], part, date(2025, 1, 1), MonitorSettings())[0].report
        for part in (in_time, settled)
    ]
    assert [report.has_drifted for report in reports] == [True, False], "the first shows why the second is needed"


def test_answers_of_other_models_count_at_once() -> None:
    logged, answers = scored_leads(500, 30)
    other: Any = SimpleNamespace(schema=SimpleNamespace(key="series", outputs=Lead.contract.outputs), version=3)
    assert settled_answers(other, logged, answers.iloc[:100], "UTC").equals(answers.iloc[:100])
