"""A first summer that the model has not seen: the monitor alerts by mid-June, the retrained challenger is promoted, and most of the avoidable cost of July is saved."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import monitor_june


@pytest.mark.slow
def test_a_model_that_is_watched_saves_half_of_the_avoidable_cost_of_its_first_summer() -> None:
    summer = monitor_june.live_through((monitor_june.SEEDS[0], 1))
    assert summer.alerted is not None
    assert monitor_june.SUMMER <= summer.alerted <= monitor_june.MID_JUNE
    assert summer.cause == "lines.category"
    assert summer.promoted and summer.promoted[0] <= monitor_june.MID_JUNE
    assert summer.oracle < summer.without
    assert summer.saved >= 0.5
