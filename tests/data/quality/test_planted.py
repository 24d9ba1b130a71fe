"""Faults that are planted into simulated shops are found within a week, dated, sized and attributed; calm shops stay silent."""

from datetime import date, timedelta

import pandas as pd
import pytest

from d2c_mlops.data.quality import QualityReport, assess_quality
from d2c_mlops.data.simulate import Shop
from d2c_mlops.data.simulate.script import event

START = date(2024, 4, 22)
TODAY = START + timedelta(days=7)
SIZE = {"regime": "fashion", "seed": 11, "days": 121, "orders": 100.0, "products": 60}
PLANTED = [
    ("tracking", 0.35, {}, "incompleteness", "missing_field_rose", 0.35),
    ("channel_lost", 0.8, {"channel": "app"}, "incompleteness", "lost_rows", 0.8),
    ("date_bases", (3.0, 7.0), {}, "inconsistency", "line_dates", 5.0),
    ("over_represented", 4.0, {"segment": "country:FR"}, "bias", "over_represented", 4.0),
    ("unit_swap", 12.0, {"column": "quantity"}, "inconsistency", "scale_changed", 12.0),
    ("currency_swap", 0.0, {"currency": "EUR", "to": "SEK"}, "inconsistency", "scale_changed", 11.4),
    ("changed_code", 0.0, {"column": "channel", "code": "app", "to": "APP"}, "schema_volume", "changed_code", 1.0),
]


@pytest.fixture(scope="module")
def calm() -> QualityReport:
    return assess_quality(Shop(**SIZE).tables(), TODAY)


def test_a_calm_shop_has_no_severe_finding(calm: QualityReport) -> None:
    assert [finding for finding in calm.findings if finding.severity == "severe"] == []


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "size", "options", "fault", "check", "expected"), PLANTED)
def test_a_planted_fault_is_the_worst_finding(kind, size, options, fault, check, expected) -> None:  # type: ignore[no-untyped-def]
    shop = Shop(events=[event(kind, kind, START, size, **options)], **SIZE)
    report = assess_quality(shop.tables(), TODAY)
    worst = report.findings[0]
    assert (worst.fault, worst.check, worst.severity) == (fault, check, "severe")
    assert worst.size is not None and abs(worst.size / expected - 1) < 0.35
    assert worst.since is not None and abs((worst.since - START).days) <= 2


def test_a_lost_customer_explains_the_mix_of_channels() -> None:
    shop = Shop(events=[event("web", "tracking", START, 0.6)], **SIZE)
    report = assess_quality({"orders": shop.tables()["orders"]}, TODAY)
    severe = {(finding.fault, finding.check) for finding in report.findings if finding.severity == "severe"}
    assert severe == {("incompleteness", "missing_field_rose")}


@pytest.mark.slow
def test_history_of_reports_shows_a_renamed_column() -> None:
    orders = Shop(**SIZE).tables()["orders"]
    earlier = assess_quality({"orders": orders}, TODAY)
    stored = QualityReport.from_dict(earlier.to_dict())
    renamed = orders.rename(columns={"country": "ship_to"})
    report = assess_quality({"orders": renamed}, TODAY + timedelta(days=1), history=[stored])
    found = [finding for finding in report.findings if finding.check == "renamed_column"]
    assert [finding.column for finding in found] == ["country"] and "ship_to" in found[0].message
    by_tables = assess_quality({"orders": renamed}, TODAY, history={"orders": orders})
    assert "renamed_column" in {finding.check for finding in by_tables.findings}


@pytest.mark.slow
def test_a_reference_shows_what_was_never_tracked() -> None:
    orders = Shop(**SIZE).tables()["orders"]
    days = orders["ordered_at"].dt.tz_localize(None).dt.normalize().value_counts().sort_index()
    ledger = pd.DataFrame({"date": days.index, "orders": (days / 0.65).round().to_numpy()})
    report = assess_quality({"orders": orders}, TODAY, reference={"ledger": ledger})
    unseen = next(finding for finding in report.findings if finding.check == "unseen_share")
    assert unseen.fault == "incompleteness" and abs(unseen.share - 0.35) < 0.02


@pytest.mark.slow
def test_the_population_to_be_scored_shows_bias() -> None:
    orders = Shop(**SIZE).tables()["orders"]
    french = pd.concat(
        [orders[orders["country"] != "FR"].sample(frac=0.2, random_state=1), orders[orders["country"] == "FR"]]
    )
    report = assess_quality({"orders": french}, TODAY, reference={"population": orders[["country", "channel"]]})
    bias = next(finding for finding in report.findings if finding.check == "unlike_population")
    assert bias.column == "country" and bias.keys == ("FR",) and bias.severity == "severe"
    same = assess_quality(
        {"orders": orders},
        TODAY,
        reference={"population": orders[["country", "channel"]].sample(frac=0.5, random_state=2)},
    )
    assert "unlike_population" not in {finding.check for finding in same.findings}
