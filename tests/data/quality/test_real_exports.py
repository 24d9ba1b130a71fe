"""Faults of real exports: a source that ends, a rare code that is renamed, units in dozens beside totals."""

from __future__ import annotations

from datetime import date

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.data.quality import QualityReport, assess_quality

TODAY = pd.Timestamp("2024-12-20")
COUNTRIES = [f"land {n:02d}" for n in range(24)]


def invoices(closed: list[tuple[str, str]], days: int = 500, daily: int = 25) -> pd.DataFrame:
    """Return lines of a shop, `daily` invoices a day of 24 countries and some cancellations, without the days that are closed."""
    draw = np.random.default_rng(3)
    calendar = pd.date_range(TODAY - pd.Timedelta(days=days - 1), TODAY)
    for first, last in closed:
        calendar = calendar[(calendar < first) | (calendar > last)]
    at = calendar.repeat(daily)
    share = 1 / np.arange(1.5, 25.5)
    frame = pd.DataFrame(
        {
            "invoice": [f"A{n}" for n in range(len(at))],
            "sku": [f"S{n % 9}" for n in range(len(at))],
            "quantity": np.where(
                draw.random(len(at)) < 0.02, -1 - draw.integers(0, 3, len(at)), 1 + draw.integers(0, 3, len(at))
            ),
            "price": 5.0,
            "country": draw.choice(COUNTRIES, len(at), p=share / share.sum()),
            "ordered_at": at,
        }
    )
    return frame


def severe(report: QualityReport) -> dict[str, date | None]:
    """Return the checks that are severe, with their days."""
    return {finding.check: finding.since for finding in report.findings if finding.severity == "severe"}


@pytest.mark.parametrize(
    ("closed", "is_silent"),
    [
        ([("2024-12-13", "2024-12-20")], True),
        ([("2024-04-01", "2024-04-12"), ("2024-12-13", "2024-12-20")], True),
        ([("2023-12-22", "2024-01-03"), ("2024-12-13", "2024-12-20")], False),
        ([("2024-04-01", "2024-04-12"), ("2024-07-01", "2024-07-12"), ("2024-12-13", "2024-12-20")], False),
    ],
    ids=["no gap before", "a closing in another season", "closed at Christmas before", "often closed"],
)
def test_a_source_that_ends_is_named_and_nothing_follows_from_it(
    closed: list[tuple[str, str]], is_silent: bool
) -> None:
    report = assess_quality(invoices(closed), TODAY.date())
    assert severe(report) == ({"silent_table": date(2024, 12, 13)} if is_silent else {})


@pytest.mark.parametrize("place", [5, 9])
def test_a_rare_code_that_is_renamed_is_found(place: int) -> None:
    frame = invoices([], 160, 80)
    new = (frame["country"] == COUNTRIES[place]) & (frame["ordered_at"] > TODAY - pd.Timedelta(days=8))
    frame["country"] = frame["country"].mask(new, "XX")
    [finding] = [f for f in assess_quality(frame, TODAY.date()).findings if f.check == "changed_code"]
    assert finding.keys == (COUNTRIES[place],) and "'XX'" in finding.message
    assert finding.since is not None and abs((finding.since - date(2024, 12, 13)).days) <= 2


@pytest.mark.parametrize("factor", [12.0, 0.01])
def test_units_on_another_scale_beside_totals_are_one_finding(factor: float) -> None:
    frame = invoices([], 120).query("quantity > 0")
    frame["total"] = frame.pop("price") * frame["quantity"]
    recent = frame["ordered_at"] > TODAY - pd.Timedelta(days=8)
    frame["quantity"] = frame["quantity"].astype(float).mask(recent, frame["quantity"] * factor)
    [finding] = [f for f in assess_quality(frame, TODAY.date()).findings if f.check == "scale_changed"]
    assert finding.column == "quantity" and finding.size == pytest.approx(factor, rel=0.1)
