"""A changed relation is counted in outcomes: moved inputs are none, and the order of rows does not matter."""

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from d2c_mlops.monitoring.relation import find_changed_relation


def leads(seed: int, factor: float = 1.0, moved: float = 0.0, a_day: int = 20) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    place = np.repeat(np.arange(400), rng.poisson(a_day, 400))
    quality = rng.normal(0, 1, len(place)) + np.where(place >= 250, moved, 0.0)
    odds = np.exp(quality - 1) * np.where(place >= 250, factor, 1.0)
    won = (rng.random(len(place)) < odds / (1 + odds)).astype(float)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(place, "D")
    return pd.DataFrame({"day": days, "predicted": 1 / (1 + np.exp(1 - quality)), "outcome": won})


def test_worse_leads_are_no_changed_relation_and_lower_odds_are() -> None:
    moved = [find_changed_relation(leads(seed, moved=-0.8)) for seed in range(5)]
    changed = [find_changed_relation(leads(seed, factor=0.5)) for seed in range(5)]
    assert [report.has_drifted for report in moved] == [False] * 5
    assert [report.has_drifted for report in changed] == [True] * 5
    assert all(report.changes[0].size < -0.4 for report in changed)


@given(st.integers(0, 50), st.integers(0, 1_000))
@settings(max_examples=8, deadline=None)
def test_the_order_of_rows_does_not_matter(seed: int, shuffled: int) -> None:
    answers = leads(seed, factor=0.6, a_day=8)
    order = np.random.default_rng(shuffled).permutation(len(answers))
    once, again = (find_changed_relation(frame) for frame in (answers, answers.iloc[order]))
    assert np.allclose(once.evidence, again.evidence, rtol=1e-9)
    assert once.changes == again.changes or np.isclose(once.changes[0].size, again.changes[0].size)


def test_outcomes_of_one_kind_are_too_little_and_never_healthy() -> None:
    answers = leads(1)
    report = find_changed_relation(answers.assign(outcome=0.0))
    assert "too few outcomes" in report.too_little
    assert not report.has_drifted
