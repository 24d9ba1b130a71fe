"""A first summer that the model has not seen: the monitor alerts within days, and the retrained challenger is promoted. `make bench-monitor` measures what July costs."""

import sys
from datetime import timedelta
from pathlib import Path

import pytest

from d2c_mlops.monitoring.replay import walk
from d2c_mlops.monitoring.retraining import RetrainingPolicy

sys.path.insert(0, str(Path(__file__).parents[2] / "bench"))

import monitor_june


@pytest.mark.slow
def test_a_first_summer_is_told_by_mid_june_and_learned(tmp_path: Path) -> None:
    history, clocks = monitor_june.history_of(monitor_june.SEEDS[0], 1, tmp_path)
    june = [clock for clock in clocks if clock.day <= monitor_june.MID_JUNE]
    watched, alone = (walk(RetrainingPolicy.parse(text), june, history) for text in ("on drift", "never"))
    trained = [event for event in watched.events if event.action == "trained"]
    assert trained and monitor_june.SUMMER <= trained[0].day <= monitor_june.MID_JUNE
    assert "lines.category" in trained[0].reason
    promoted = [event.day for event in watched.events if event.action == "promoted"]
    assert promoted and not [event for event in alone.events if event.action == "trained"]
    after = promoted[0] + timedelta(days=1)
    losses = [
        sum(look.loss for day, look in zip(w.days, w.sums, strict=True) if day >= after) for w in (watched, alone)
    ]
    assert losses[0] < losses[1]
