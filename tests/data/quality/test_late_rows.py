"""Rows that come after the end of their day are found by the reports of earlier days."""

from datetime import date, timedelta

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.data.quality import QualityReport, assess_quality

FIRST = date(2024, 1, 1)
DAYS = 40


def orders(delays: list[float]) -> pd.DataFrame:
    """Return 50 orders a day, each with the days after which it arrives: `delays` are the shares of 0, 1, 2 … days."""
    day = np.repeat(np.arange(DAYS), 50)
    arrival = day + np.random.default_rng(4).choice(len(delays), len(day), p=delays)
    at = pd.Timestamp(FIRST) + pd.to_timedelta(day, unit="D") + pd.Timedelta(hours=12)
    return pd.DataFrame({"order_id": np.arange(len(day)).astype(str), "ordered_at": at, "arrival": arrival})


def last_report(rows: pd.DataFrame) -> QualityReport:
    """Return the report of the last of eight daily assessments, each with what had arrived."""
    history: list[QualityReport] = []
    for number in range(DAYS - 8, DAYS):
        there = rows[rows["arrival"] <= number].drop(columns="arrival")
        day = FIRST + timedelta(days=number)
        history.append(
            assess_quality(
                {"orders": there[there["ordered_at"] < pd.Timestamp(day) + pd.Timedelta(days=1)]}, day, history=history
            )
        )
    return history[-1]


@pytest.mark.parametrize(
    ("delays", "late", "told"), [([0.7, 0.3], 0.3, "after 1 day"), ([0.8, 0.0, 0.0, 0.2], 0.2, "after 3 days")]
)
def test_the_share_that_comes_late_and_the_days_to_wait_are_told(delays: list[float], late: float, told: str) -> None:
    found = [f for f in last_report(orders(delays)).findings if f.check == "late_rows"]
    assert len(found) == 1 and found[0].size == pytest.approx(late, abs=0.06)
    assert told in found[0].message and found[0].severity == "warning"


@pytest.mark.parametrize("delays", [[1.0], [0.995, 0.005]])
def test_rows_that_come_in_time_are_no_finding(delays: list[float]) -> None:
    assert [f for f in last_report(orders(delays)).findings if f.check == "late_rows"] == []


def test_profiles_of_before_have_no_days_and_are_read() -> None:
    rows = orders([0.7, 0.3]).drop(columns="arrival")
    values = assess_quality({"orders": rows}, FIRST + timedelta(days=30)).to_dict()
    del values["profiles"]["orders"]["days"]
    report = assess_quality({"orders": rows}, FIRST + timedelta(days=31), history=[QualityReport.from_dict(values)] * 8)
    assert [f for f in report.findings if f.check == "late_rows"] == []
