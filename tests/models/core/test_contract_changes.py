"""Differences between two contracts: which break callers, and which version number they need."""

from typing import Any

import pandera.pandas as pa
import pytest

from d2c_mlops.models.core.contract import Contract, column
from d2c_mlops.models.core.contract_changes import broken_clauses, contract_differences

LEAD = pa.DataFrameSchema(
    {
        "lead_id": column("string", "Your identifier of the lead", personal=True, example="L-1001"),
        "source": column("string", "Where the lead came from", choices=["ads", "fair", "referral"], example="fair"),
    }
)
SCORE = pa.DataFrameSchema(
    {
        "lead_id": column("string", "The identifier that was sent", personal=True),
        "probability": column("number", "Chance that the lead buys within 30 days", unit="share 0..1", ge=0, le=1),
    }
)
COUNTRY = column("string", "Country of the lead, ISO 3166", nullable=True, example="DE")
NARROWER = pa.DataFrameSchema(
    {
        **LEAD.columns,
        "source": column("string", "Where the lead came from", choices=["ads", "referral"], example="ads"),
        "country": COUNTRY,
    }
)


def of_leads(version: str = "1.0.0", inputs: pa.DataFrameSchema = LEAD) -> Contract:
    return Contract("lead_scoring", version, "lead_id", inputs, SCORE)


def of_source(**limits: Any) -> Contract:
    schema = pa.DataFrameSchema({"source": column("string", "Where from", **limits)})
    return Contract("visits", "1.0.0", "source", schema, schema)


def of_period(frequency: str, horizon: int, version: str = "1.0.0") -> Contract:
    return Contract("units", version, "lead_id", LEAD, SCORE, frequency=frequency, horizon=horizon)


def test_a_value_that_is_no_longer_accepted_breaks_callers_and_a_new_optional_column_does_not() -> None:
    found = contract_differences(of_leads(), of_leads("1.1.0", NARROWER))
    assert [(c.where, c.breaking) for c in found] == [("inputs.source", True), ("inputs.country", False)]


def test_a_new_required_input_and_a_removed_input_break_callers() -> None:
    required = pa.DataFrameSchema({**LEAD.columns, "country": column("string", "Country", example="DE")})
    assert [(c.where, c.breaking) for c in contract_differences(of_leads(), of_leads("1.1.0", required))] == [
        ("inputs.country", True)
    ]
    assert [(c.what, c.breaking) for c in contract_differences(of_leads("1.0.0", required), of_leads())] == [
        ("is gone", True)
    ]


def test_limits_of_inputs_may_widen_and_limits_of_outputs_may_narrow() -> None:
    longer = contract_differences(of_source(max_length=9), of_source(max_length=10))
    assert [(c.where, c.breaking) for c in longer] == [("outputs.source", True), ("inputs.source", False)]
    limited = contract_differences(of_source(), of_source(max_length=9))
    assert [c.where for c in limited if c.breaking] == ["inputs.source"]


def test_marking_a_field_as_personal_breaks_nobody() -> None:
    found = contract_differences(of_source(), of_source(personal="drop"))
    assert [(c.what, c.breaking) for c in found] == [("personal was False and is drop", False)] * 2


def test_a_breaking_change_needs_a_new_major_version() -> None:
    assert len(broken_clauses(of_leads(), of_leads("1.1.0", NARROWER))) == 1
    assert broken_clauses(of_leads(), of_leads("2.0.0", NARROWER)) == []


@pytest.mark.parametrize(("version", "count"), [("0.9.0", 1), ("1.0.0", 1), ("1.0.1", 0), ("1.1.0", 0), ("2.0.0", 0)])
def test_any_change_needs_a_new_version_that_does_not_go_back(version: str, count: int) -> None:
    wider = pa.DataFrameSchema({**LEAD.columns, "country": COUNTRY})
    assert len(broken_clauses(of_leads(), of_leads(version, wider))) == count


def test_the_same_contract_may_keep_its_version() -> None:
    assert broken_clauses(of_leads(), of_leads()) == []


@pytest.mark.parametrize(("frequency", "horizon", "breaks"), [("W", 8, True), ("D", 14, True), ("D", 56, False)])
def test_another_frequency_or_a_shorter_horizon_breaks_callers(frequency: str, horizon: int, breaks: bool) -> None:
    daily = of_period("D", 28)
    other = of_period(frequency, horizon)
    assert [change.breaking for change in contract_differences(daily, other)] == [breaks]
    assert len(broken_clauses(daily, other)) == int(breaks)


def test_a_contract_without_frequency_may_get_one_and_a_major_version_may_change_it() -> None:
    assert broken_clauses(of_period("", 0), of_period("D", 28)) == []
    assert broken_clauses(of_period("D", 28), of_period("W", 8, "2.0.0")) == []
