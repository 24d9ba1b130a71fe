from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2c_mlops.errors import UsageError
from d2c_mlops.runs.cadence import cadence


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def slots(text: str, zone: str, after: str, until: str) -> list[str]:
    return [f"{slot:%m-%dT%H:%M}" for slot in cadence(text, zone).slots(at(after), at(until))]


@pytest.mark.parametrize(
    ("plain", "cron"),
    [
        ("every 15 minutes", "*/15 * * * *"),
        ("hourly", "0 * * * *"),
        ("Hourly at :05", "5 * * * *"),
        ("daily at 06:00", "0 6 * * *"),
        ("weekdays 18:30", "30 18 * * 1-5"),
        ("weekly on Monday 06:00", "0 6 * * 1"),
        ("monthly on 1 at 00:00", "0 0 1 * *"),
        ("monthly on the last day 23:00", "0 23 L * *"),
        ("5 4 * * 0", "5 4 * * 0"),
    ],
)
def test_plain_words_mean_a_cron_expression(plain: str, cron: str) -> None:
    assert cadence(plain).cron == cron


@pytest.mark.parametrize("text", ["", "sometimes", "* * *", "99 * * * *", "daily at 25:00", "weekly on Foo 06:00"])
def test_what_is_no_cadence_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a cadence"):
        cadence(text)


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(UsageError, match="no time zone"):
        cadence("hourly", "Mars/Base")


@pytest.mark.parametrize(
    ("zone", "skipped", "expected"),
    [
        ("Europe/Berlin", "2026-03-28", ["03-28T01:30", "03-29T01:00", "03-30T00:30"]),
        ("America/New_York", "2026-03-07", ["03-07T07:30", "03-08T07:00", "03-09T06:30"]),
        ("Australia/Sydney", "2026-10-03", ["10-02T16:30", "10-03T16:00", "10-04T15:30"]),
    ],
)
def test_a_skipped_hour_runs_once(zone: str, skipped: str, expected: list[str]) -> None:
    start = at(skipped) - timedelta(hours=14 if "Sydney" in zone else 1)
    found = slots("daily at 02:30", zone, start.isoformat()[:19], (start + timedelta(hours=72)).isoformat()[:19])
    assert found[:3] == expected


@pytest.mark.parametrize(
    ("zone", "day", "expected"),
    [
        ("Europe/Berlin", "2026-10-24T20:00", ["10-25T00:30", "10-26T01:30"]),
        ("America/New_York", "2026-11-01T02:00", ["11-01T05:30", "11-02T06:30"]),
        ("Australia/Sydney", "2026-04-04T12:00", ["04-04T15:30", "04-05T16:30"]),
    ],
)
def test_a_repeated_hour_runs_once(zone: str, day: str, expected: list[str]) -> None:
    hour = "01:30" if "New_York" in zone else "02:30"
    until = (at(day) + timedelta(hours=40)).isoformat()[:19]
    assert slots(f"daily at {hour}", zone, day, until)[:2] == expected


def test_every_hour_runs_once_over_both_changes() -> None:
    spring = slots("hourly", "Europe/Berlin", "2026-03-28T22:00", "2026-03-29T04:00")
    assert spring == ["03-28T23:00", "03-29T00:00", "03-29T01:00", "03-29T02:00", "03-29T03:00", "03-29T04:00"]
    autumn = slots("hourly", "Europe/Berlin", "2026-10-24T22:00", "2026-10-25T03:00")
    assert autumn == ["10-24T23:00", "10-25T00:00", "10-25T02:00", "10-25T03:00"]


def test_month_ends_and_the_leap_day() -> None:
    ends = slots("monthly on the last day 12:00", "UTC", "2028-01-15T00:00", "2028-04-30T13:00")
    assert ends == ["01-31T12:00", "02-29T12:00", "03-31T12:00", "04-30T12:00"]
    assert slots("0 0 31 * *", "UTC", "2028-01-15T00:00", "2028-04-01T00:00") == ["01-31T00:00", "03-31T00:00"]


def test_two_weeks_asleep_are_fourteen_daily_slots() -> None:
    assert len(slots("daily at 06:00", "Europe/Berlin", "2026-03-20T12:00", "2026-04-03T12:00")) == 14


def test_last_and_next_enclose_a_moment() -> None:
    weekly = cadence("weekly on Monday 06:00", "Europe/Berlin")
    now = at("2026-11-22T22:00")
    assert (weekly.last(now), weekly.next(now)) == (at("2026-11-16T05:00"), at("2026-11-23T05:00"))


zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"])


@given(zones, st.datetimes(datetime(2024, 1, 1), datetime(2028, 12, 31)), st.integers(0, 23), st.integers(0, 59))
def test_a_daily_job_has_one_slot_a_local_day(zone: str, start: datetime, hour: int, minute: int) -> None:
    begin = start.replace(tzinfo=UTC)
    found = list(cadence(f"{minute} {hour} * * *", zone).slots(begin, begin + timedelta(days=10)))
    days = [slot.astimezone(ZoneInfo(zone)).date() for slot in found]
    assert len(days) == len(set(days)) and 9 <= len(days) <= 11 and found == sorted(found)
