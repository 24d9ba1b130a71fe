"""Small losses are found by the share and the count together; a fall of all counts alone, or a change of taste alone, is none."""

from __future__ import annotations

from datetime import date

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from d2c_mlops.data.quality.daily_mix import CERTAIN, change_of, daily_mix, stories
from d2c_mlops.data.quality.inputs import Inputs

DAYS = pd.date_range("2026-02-01", periods=120)
LEVELS = {"DE": 60, "AT": 25, "FR": 18}


def counts(seed: int, factors: dict[str, float], days: int, level: float = 1.0) -> pd.DataFrame:
    """Return Poisson counts of countries by day, thinned for the last days by a factor each."""
    draw = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {name: draw.poisson(level * rate, len(DAYS)) for name, rate in LEVELS.items()}, index=DAYS, dtype=float
    )
    for name, factor in factors.items():
        thinned: npt.NDArray[np.int64] = draw.binomial(frame[name].iloc[-days:].astype(int), factor)
        frame.loc[DAYS[-days:], name] = thinned
    return frame


def test_a_segment_over_represented_half_as_much_again_is_mostly_found_within_a_week() -> None:
    first = [stories(counts(seed, {"DE": 1 / 1.5, "AT": 1 / 1.5}, 8))[:1] for seed in range(12)]
    found = [story for named in first for story, _, _ in named]
    assert len(found) >= 9 and {(story.check, story.fault, story.value) for story in found} == {
        ("over_represented", "bias", "FR")
    }
    assert all(abs(story.start - 112) <= 3 and 1.2 < story.size < 2.2 for story in found)


def test_a_small_loss_is_certain_by_both_witnesses_where_the_share_alone_is_not() -> None:
    frame = counts(6, {"DE": 1 / 1.5, "AT": 1 / 1.5}, 8)
    pair = change_of(frame, "FR")
    assert pair is not None and abs(pair[0].z) < CERTAIN < pair[1]


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("factors", [{}, {"DE": 0.5, "AT": 0.5, "FR": 0.5}], ids=["quiet", "all fall alike"])
def test_counts_that_fall_alike_tell_no_story(seed: int, factors: dict[str, float]) -> None:
    assert stories(counts(seed, factors, 8)) == []


def test_missing_rows_are_a_witness_of_one_story_alone() -> None:
    frame = counts(3, {"DE": 1 / 3, "AT": 1 / 3}, 8)
    draw = np.random.default_rng(7)
    days = np.repeat(DAYS, frame.sum(axis=1).astype(int))
    country = np.concatenate([np.repeat(list(LEVELS), row.astype(int)) for row in frame.to_numpy()])
    recent = np.asarray(days >= DAYS[-8])
    channel = np.where(draw.random(len(days)) < np.where(recent, 0.32, 0.25), "app", "web")
    orders = pd.DataFrame(
        {
            "order_id": [f"O{n}" for n in range(len(days))],
            "ordered_at": days,
            "channel": channel,
            "country": country,
            "amount": 20.0,
        }
    )
    findings = daily_mix(Inputs.of({"orders": orders}, DAYS[-1].date()))
    assert [(f.column, f.check, f.keys) for f in findings] == [("country", "over_represented", ("FR",))]
    assert findings[0].since == date(2026, 5, 24)
