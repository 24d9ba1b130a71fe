"""A channel without rows, where a column has two values alone."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.data.quality.daily_mix import daily_mix
from d2c_mlops.data.quality.inputs import Inputs


@pytest.mark.parametrize("silent_share", [0.25, 0.5, 0.7])
def test_the_silent_one_of_two_channels_is_named_once(silent_share: float) -> None:
    rng = np.random.default_rng(5)
    days = pd.date_range("2026-03-01", periods=100)
    ordered_at = days.repeat(60)
    channel = np.where(rng.random(len(ordered_at)) < silent_share, "shop", "web")
    orders = pd.DataFrame(
        {
            "order_id": [f"O{n}" for n in range(len(channel))],
            "ordered_at": ordered_at,
            "channel": channel,
            "amount": 20.0,
        }
    )
    orders = orders[(orders["channel"] == "web") | (orders["ordered_at"] < days[-10])]
    [finding] = daily_mix(Inputs.of({"orders": orders}, date(2026, 6, 8)))
    assert (finding.check, finding.fault, finding.keys) == (
        "lost_rows",
        "incompleteness",
        ("shop",),
    ) and "silent" in finding.message
    assert finding.since == days[-10].date()
