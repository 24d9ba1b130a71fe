"""The retraining policy: its text, its reasons, and one reason for a storm of alerts."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2c_mlops.errors import UsageError
from d2c_mlops.monitoring.retraining import (
    OpenIncident,
    RetrainingPolicy,
    RetrainingState,
    default_retrain,
    in_cool_down,
    reason_to_retrain,
    retraining_checks,
)
from d2c_mlops.settings.parsing import parse_retrain

TRAINED = datetime(2024, 6, 3, 5, tzinfo=UTC)
DAY = timedelta(days=1)
ANY = RetrainingPolicy.parse("weekly or on drift or on new data 20% or on expected loss")

policies = st.builds(
    RetrainingPolicy,
    cadence_days=st.none() | st.integers(1, 3660).map(float),
    on_drift=st.booleans(),
    on_new_data=st.none() | st.integers(1, 1000).map(lambda share: share / 100),
    on_expected_loss=st.booleans(),
)


@given(policies)
def test_the_text_of_a_policy_is_read_back(policy: RetrainingPolicy) -> None:
    parsed = RetrainingPolicy.parse(policy.text, policy.cool_down_days)
    assert parsed.on_new_data == pytest.approx(policy.on_new_data)
    assert replace(parsed, on_new_data=None) == replace(policy, on_new_data=None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not a reason to retrain"),
        ("weekly or", "is not a reason to retrain"),
        ("weekyl", "did you mean 'weekly'"),
        ("on drfit", "did you mean 'on drift'"),
        ("weekly or every 28 days", "two cadences"),
        ("on drift or on drift", "'on drift' twice"),
        ("never or weekly", "never is not combined"),
        ("every 0 days", "from 1 to 3660 days"),
        ("every 9999 days", "from 1 to 3660 days"),
        ("on new data 0%", "above 0 %"),
        ("on new data", "is not a reason to retrain"),
    ],
)
def test_a_text_that_is_no_policy_is_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_retrain(text)
    with pytest.raises(UsageError, match="every 28 days or on drift"):
        RetrainingPolicy.parse(text)


@pytest.mark.parametrize("values", [{"cadence_days": 0}, {"on_new_data": -0.1}, {"cool_down_days": float("nan")}])
def test_a_policy_out_of_range_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        RetrainingPolicy(**values)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 60 * 24 * 9)), min_size=1, max_size=40),
    st.integers(1, 12),
)
def test_a_storm_of_alerts_causes_one_training(storm: list[tuple[str, int]], looks_a_day: int) -> None:
    """Incidents open and stay open; trainings succeed: each look at or after a training finds only what opened after it."""
    begin = TRAINED + DAY
    incidents = tuple(OpenIncident(cause, begin + timedelta(minutes=minutes)) for cause, minutes in storm)
    policy = RetrainingPolicy(on_drift=True, cool_down_days=10)
    state, reasons = RetrainingState(trained_at=TRAINED, incidents=incidents), []
    for look in range(12 * looks_a_day):
        now = TRAINED + 9 * DAY + look * DAY / looks_a_day
        reason = reason_to_retrain(policy, state, now)
        if reason is not None:
            reasons.append(reason)
            state = replace(state, trained_at=now, started_at=now)
    assert 1 <= len(reasons) <= 2 and len({reason.cause for reason in reasons}) == len(reasons)
    if max(minutes for _, minutes in storm) <= 60 * 24 * 7:
        assert len(reasons) == 1


@given(st.permutations(range(12)), st.integers(1, 12))
def test_the_cause_is_the_same_while_the_storm_grows(order: list[int], first: int) -> None:
    incidents = [OpenIncident(f"column {number}", TRAINED + DAY + timedelta(minutes=number)) for number in range(12)]
    now = TRAINED + 3 * DAY
    grown = [incidents[number] for number in order if number < first] + incidents[first:]
    early = reason_to_retrain(ANY, RetrainingState(trained_at=TRAINED, incidents=tuple(incidents[:first])), now)
    late = reason_to_retrain(ANY, RetrainingState(trained_at=TRAINED, incidents=tuple(grown)), now + DAY)
    assert early is not None and late is not None and early.cause == late.cause


@given(policies, st.integers(-5, 400), st.integers(0, 90), st.booleans())
def test_no_reason_within_the_cool_down(policy: RetrainingPolicy, age: int, cool_down: int, is_open: bool) -> None:
    policy = replace(policy, cool_down_days=float(cool_down))
    now = TRAINED + age * DAY
    incidents = (OpenIncident("price", TRAINED + DAY),) if is_open else ()
    state = RetrainingState(trained_at=TRAINED, started_at=TRAINED, incidents=incidents, rows_then=1, rows_now=99)
    reason = reason_to_retrain(policy, state, now)
    if age < cool_down * 7 / 8 - 0.01:
        assert in_cool_down(policy, state, now) and reason is None
    elif age >= 1 and policy.on_drift and is_open and age >= cool_down:
        assert reason is not None and reason.kind == "drift"


def test_a_training_that_failed_leaves_its_reason_until_the_cool_down_is_over() -> None:
    weekly = RetrainingPolicy.parse("weekly", cool_down_days=2)
    failed = RetrainingState(trained_at=TRAINED, started_at=TRAINED + 7 * DAY)
    assert reason_to_retrain(weekly, failed, TRAINED + 8 * DAY) is None
    again = reason_to_retrain(weekly, failed, TRAINED + 9 * DAY)
    assert again is not None and again == replace(again, cause="cadence:2024-06-03T05:00:00")


def test_a_training_that_gave_a_refused_version_answers_its_reason() -> None:
    state = RetrainingState(
        data_until=date(2024, 1, 31), trained_at=TRAINED, incidents=(OpenIncident("price", TRAINED - DAY),)
    )
    for day in range(1, 7):
        assert reason_to_retrain(ANY, state, TRAINED + day * DAY) is None


@given(st.integers(1, 30), st.booleans())
def test_a_dated_change_is_learned_again_each_time_its_days_have_doubled(first: int, is_open: bool) -> None:
    begin = datetime(2024, 6, 1, tzinfo=UTC)
    change = OpenIncident("prices", begin + first * DAY - DAY / 2, begin.date(), is_open)
    drift, ages, causes, trained = RetrainingPolicy(on_drift=True), [first], set[str](), begin + first * DAY
    for age in range(first + 1, 200):
        now = begin + age * DAY
        reason = reason_to_retrain(drift, RetrainingState(trained_at=trained, incidents=(change,)), now)
        if reason is not None:
            ages, trained = [*ages, age], now
            causes.add(reason.cause)
    assert len(causes) == len(ages) - 1, "each training has a cause of its own"
    assert ages[-2] < 56 <= ages[-1], "until a training knew eight weeks"
    assert all(2 * a - 1 <= b <= max(2 * a, a + 2) for a, b in pairwise(ages))


def test_a_forecast_is_renewed_before_it_ends_where_no_cadence_does_it() -> None:
    state = RetrainingState(trained_at=TRAINED, answers_until=date(2024, 6, 30), horizon_days=28)
    reasons = [reason_to_retrain(RetrainingPolicy(on_drift=True), state, TRAINED + day * DAY) for day in range(30)]
    assert [reason is not None for reason in reasons] == [day >= 21 for day in range(30)]
    assert reasons[21] is not None and reasons[21].kind == "horizon" and "2024-06-30" in reasons[21].text
    refused = replace(state, trained_at=TRAINED + 21 * DAY)
    assert reason_to_retrain(RetrainingPolicy(on_drift=True), refused, TRAINED + 23 * DAY) is None
    assert reason_to_retrain(RetrainingPolicy(on_drift=True), refused, TRAINED + 28 * DAY) is not None
    for text in ("every 91 days or on drift", "never"):
        assert reason_to_retrain(RetrainingPolicy.parse(text), state, TRAINED + 29 * DAY) is None


def test_a_model_without_a_version_is_trained_unless_its_policy_is_never() -> None:
    assert reason_to_retrain(RetrainingPolicy(), RetrainingState(), TRAINED) is None
    reason = reason_to_retrain(ANY, RetrainingState(), TRAINED)
    assert reason is not None and (reason.kind, reason.cause) == ("first", "first")
    assert reason_to_retrain(ANY, RetrainingState(started_at=TRAINED - DAY), TRAINED) is None, "it failed yesterday"


@pytest.mark.parametrize(("rows", "is_due"), [(1199, False), (1200, True), (900, False)])
def test_new_data_counts_from_the_last_training(rows: int, is_due: bool) -> None:
    policy = RetrainingPolicy.parse("on new data 20%")
    state = RetrainingState(trained_at=TRAINED, rows_then=1000, rows_now=rows)
    assert (reason_to_retrain(policy, state, TRAINED + 3 * DAY) is not None) == is_due
    assert reason_to_retrain(policy, replace(state, rows_then=None), TRAINED + 3 * DAY) is None


@pytest.mark.parametrize(
    ("age", "excess", "error", "is_due"),
    [(20, 10, 0, True), (19, 10, 0, False), (20, 10, 0.1, False), (200, -1, 0, False), (200, 1, 1.5, False)],
)
def test_the_expected_loss_pays_for_a_training(age: int, excess: float, error: float, is_due: bool) -> None:
    policy = RetrainingPolicy.parse("on expected loss")
    state = RetrainingState(
        trained_at=TRAINED, loss_without=100 + excess, loss_with=100, loss_error=error, training_cost=100
    )
    assert (reason_to_retrain(policy, state, TRAINED + age * DAY) is not None) == is_due
    unknown = reason_to_retrain(policy, replace(state, training_cost=None), TRAINED + age * DAY)
    assert unknown is None


def test_each_part_of_a_policy_says_whether_it_is_due() -> None:
    checks = retraining_checks(ANY, RetrainingState(trained_at=TRAINED, rows_then=100, rows_now=105), TRAINED + 8 * DAY)
    assert [(check.kind, check.is_due) for check in checks] == [
        ("drift", False),
        ("expected loss", False),
        ("new data", False),
        ("cadence", True),
    ]
    assert checks[2].text == "5.0% new rows since the last training, 20.0% are needed"
    with pytest.raises(UsageError, match="no time zone"):
        retraining_checks(ANY, RetrainingState(), datetime(2024, 6, 3))


def test_the_usual_policies_are_policies() -> None:
    assert [RetrainingPolicy.parse(default_retrain(kind)).text for kind in ("demand", "pricing", "leads")] == [
        "every 7 days",
        "on drift",
        "every 30 days",
    ]
