"""What moved slowly stands on the page and in JSON, and opens no alert."""

from dataclasses import replace
from datetime import UTC, date, datetime

import numpy as np
import pandas as pd

from d2c_mlops.monitoring.daily_series import DailySeries
from d2c_mlops.monitoring.drift import DriftReport
from d2c_mlops.monitoring.slow_changes import SlowChange, slow_changes
from d2c_mlops.monitoring.vital_signs import OK, VitalSign, judge_drift
from d2c_mlops.operations.monitor import DriftLook, ModelHealth, breaches_of
from d2c_mlops.operations.monitor_page import page

REPORT = DriftReport(pd.date_range("2024-01-01", periods=3), np.array([0.0, 1.0, 2.0]), 20.0, (), 4)
CHANGE = SlowChange("lines.category", "<b>red", date(2024, 1, 1), -0.6, -0.9, -0.3, True, -1.0)
LOOK = DriftLook("data", "dataset", REPORT, (CHANGE,))
SIGN = VitalSign("drift", OK, "no change")
HEALTH = ModelHealth("demand", 7, date(2024, 1, 3), datetime(2024, 1, 4, tzinfo=UTC), "wape", (SIGN,), (LOOK,), ())


def test_a_slow_change_is_told_and_is_no_breach() -> None:
    text = page(HEALTH)
    assert "Slow changes" in text and "moved by -45 % (95 %: -59 to -26) since 2024-01-01" in text
    assert "<b>red" not in text and "&lt;b&gt;red" in text
    (look,) = HEALTH.to_dict()["drifts"]
    assert look["slow_changes"][0]["message"] == CHANGE.message and look["slow_changes"][0]["size"] == -0.6
    assert breaches_of(HEALTH)[0] == []


def test_a_slow_change_of_rare_rows_is_told_in_rows() -> None:
    now = 0.6 * np.sqrt(9 + 0.375)  # nine rows a day
    change = SlowChange(
        "orders.country", "newly missing", date(2024, 1, 1), now - 0.6 * np.sqrt(4.375), 0.3, 0.9, False, now
    )
    assert change.message.startswith("orders.country is missing in 9.0 rows a day since 2024-01-01, where 4.0 (95 %: ")
    assert " %:" in change.message and "moved by" not in change.message


def test_a_small_change_of_many_rows_is_not_listed() -> None:
    rows = {usual: 0.6 * np.sqrt(usual + 0.375) for usual in (422, 387, 300)}
    days = pd.date_range("2024-01-01", periods=364)
    listed = []
    for now in (387, 300):
        values = np.full((364, 1), rows[422]) + np.random.default_rng(0).normal(0, 0.05, (364, 1))
        values[-28:] += rows[now] - rows[422]
        series = DailySeries(
            days,
            (("orders.country", "newly missing"),),
            values,
            np.ones((364, 1)),
            np.zeros((364, 1, 2)),
            np.array([0.3]),
        )
        listed.append([change.column for change in slow_changes(series)])
    assert listed == [[], ["orders.country"]], "8 % fewer rows are no fifth, 29 % are"


def test_an_alarm_that_has_ended_is_told() -> None:
    days = pd.date_range("2024-01-01", periods=6)
    report = DriftReport(days, np.array([1.0, 30.0, 40.0, 2.0, 25.0, 3.0]), 20.0, (), 4)
    assert not report.has_drifted
    assert report.ended_alarms == ((date(2024, 1, 2), date(2024, 1, 3)), (date(2024, 1, 5), date(2024, 1, 5)))
    assert judge_drift("demand", report).message.endswith("an earlier change from 2024-01-05 to 2024-01-05 has ended")
    text = page(replace(HEALTH, drifts=(replace(LOOK, report=report),)))
    assert "A change from 2024-01-02 to 2024-01-03 has ended." in text
    open_now = DriftReport(days, np.array([30.0, 1.0, 2.0, 2.0, 25.0, 30.0]), 20.0, (), 4)
    assert open_now.ended_alarms == ((date(2024, 1, 1), date(2024, 1, 1)),), "the present alarm has not ended"


def test_a_page_without_slow_changes_does_not_speak_of_them() -> None:
    assert "Slow changes" not in page(replace(HEALTH, drifts=(replace(LOOK, slow=()),)))
