from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2c_mlops.errors import UsageError
from d2c_mlops.runs.schedule.cadence import Cadence, parse_cadence
from support.cpu import least_cpu_seconds


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def slots(text: str, zone: str, after: str, until: str) -> list[str]:
    return [f"{slot:%m-%dT%H:%M}" for slot in parse_cadence(text, zone).slots(at(after), at(until))]


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
    assert parse_cadence(plain).cron == cron


@pytest.mark.parametrize("text", ["", "sometimes", "* * *", "99 * * * *", "daily at 25:00", "weekly on Foo 06:00"])
def test_what_is_no_cadence_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a valid cadence"):
        parse_cadence(text)


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown time zone"):
        parse_cadence("hourly", "Mars/Base")


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


NIGHTS = [
    ("Europe/Berlin", "2026-03-28T12:00"),
    ("Europe/Berlin", "2026-10-24T12:00"),
    ("America/New_York", "2026-03-07T12:00"),
    ("America/New_York", "2026-10-31T12:00"),
    ("Australia/Lord_Howe", "2026-04-04T03:00"),
    ("Australia/Lord_Howe", "2026-10-03T03:00"),
    ("Africa/Cairo", "2026-04-23T12:00"),
]


def minutes_of_the_clock(zone: str, begin: datetime, hours: int, step: int) -> list[datetime]:
    """Every minute that the clock of a zone shows as a multiple of `step` minutes from midnight."""
    moments = (begin + timedelta(minutes=n) for n in range(1, hours * 60 + 1))
    local = ((moment, moment.astimezone(ZoneInfo(zone))) for moment in moments)
    return [moment for moment, shown in local if (shown.hour * 60 + shown.minute) % step == 0]


@pytest.mark.parametrize(("zone", "noon"), NIGHTS)
@pytest.mark.parametrize("step", [1, 5, 15, 20, 30, 45, 60, 90, 120, 360, 480])
def test_what_runs_every_few_minutes_follows_the_clock_over_its_changes(zone: str, noon: str, step: int) -> None:
    begin = at(noon)
    counted = list(parse_cadence(f"every {step} minutes", zone).slots(begin, begin + timedelta(hours=30)))
    assert counted == minutes_of_the_clock(zone, begin, 30, step)


@pytest.mark.parametrize(
    ("text", "spring", "autumn"),
    [
        ("hourly", 24, 26),
        ("0 0-23 * * *", 24, 26),
        ("hourly at :15", 24, 26),
        ("5,35 * * * *", 48, 52),
        ("0,15,30,45 * * * *", 96, 104),
        ("*/20 * * * 0,6", 72, 78),
    ],
)
def test_no_hour_is_without_its_slots_on_the_nights_of_daylight_saving(text: str, spring: int, autumn: int) -> None:
    for first, last, slots_due in (("03-28T11", "03-29T11", spring), ("10-24T09", "10-25T11", autumn)):
        found = list(parse_cadence(text, "Europe/Berlin").slots(at(f"2026-{first}:59"), at(f"2026-{last}:59")))
        gaps = {(b - a).total_seconds() for a, b in pairwise(found)}
        assert len(found) == slots_due and len(gaps) == 1


def test_a_job_that_names_its_hour_does_not_lose_the_night_in_which_it_is_skipped() -> None:
    assert slots("*/30 2 * * *", "Europe/Berlin", "2026-03-28T20:00", "2026-03-29T20:00") == ["03-29T01:00"]
    assert slots("0,30 2 * * *", "Europe/Berlin", "2026-03-28T20:00", "2026-03-29T20:00") == ["03-29T01:00"]
    assert slots("15,45 1-3 * * *", "America/New_York", "2026-03-08T05:00", "2026-03-08T12:00") == [
        "03-08T06:15", "03-08T06:45", "03-08T07:00", "03-08T07:15", "03-08T07:45",
    ]  # fmt: skip


@pytest.mark.parametrize("step", [n for n in range(1, 1441) if 1440 % n == 0])
def test_counted_minutes_that_divide_the_day_are_that_far_apart(step: int) -> None:
    begin = at("2026-03-01T23:59")
    found = list(parse_cadence(f"every {step} minutes").slots(begin, begin + timedelta(days=2)))
    assert found[0] == at("2026-03-02T00:00") and len(found) == 2 * 1440 // step
    assert {(b - a) for a, b in pairwise(found)} == {timedelta(minutes=step)}


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("every 7 minutes", ("every 6 minutes", "every 8 minutes")),
        ("every 50 minutes", ("every 48 minutes", "every 60 minutes")),
        ("every 7 hours", ("every 6 hours", "every 8 hours")),
        ("every 5 hours", ("every 4 hours", "every 6 hours")),
        ("every 2000 minutes", ("every 1440 minutes",)),
        ("every 0 minutes", ("every 1 minute",)),
    ],
)
def test_a_count_that_does_not_divide_the_day_is_refused_with_the_nearest(text: str, near: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="does not divide a day") as caught:
        parse_cadence(text)
    assert all(f"'{each}'" in caught.value.next for each in near)


@pytest.mark.parametrize(
    "text",
    ["0 0 31 2 *", "0 0 30 2 *", "0 6 30,31 2 *", "0 6 31 2,4,6,9,11 *", "0 0 31 FEB */2", "0 0 */31 2 FRI#2"],
)
def test_a_day_that_never_comes_is_refused_at_once(text: str) -> None:
    def refused() -> None:
        with pytest.raises(UsageError, match="is never due") as caught:
            parse_cadence(text)
        assert repr(text) in str(caught.value)

    assert least_cpu_seconds(refused, 1.0) < 1.0


@pytest.mark.parametrize(
    ("text", "first"), [("0 0 29 2 *", "2028-02-29"), ("0 0 31 2 1", "2027-02-01"), ("0 0 * 2 MON#5", "2044-02-29")]
)
def test_a_day_that_comes_seldom_is_no_error(text: str, first: str) -> None:
    found = parse_cadence(text).next(at("2026-11-22T00:00"))
    assert f"{found:%Y-%m-%d}" == first and parse_cadence(text).last(found) == found


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("monthly on 31 06:00", "not in February, April, June, September, November"),
        ("monthly on 30 06:00", "not in February; 'monthly on the last day 06:00'"),
        ("monthly on 29 06:00", "not in February, except in leap years"),
        ("0 0 31 1,4 *", "not in April"),
        ("*/45 * * * *", "*/45 means at :00, :45 of the hour, not every 45 minutes"),
        ("monthly on 28 06:00", ""),
        ("monthly on the last day 06:00", ""),
        ("0 0 31 * 1", ""),
        ("every 45 minutes", ""),
        ("0-59/40 * * * *", "0-59/40 means at :00, :40 of the hour, not every 40 minutes"),
        ("7-59/25 6 * * *", "7-59/25 means at :07, :32, :57 of the hour, not every 25 minutes"),
        ("0 */5 * * *", "*/5 means at 00, 05, 10, 15, 20 o'clock, not every 5 hours"),
        ("0 */18 * * *", "*/18 means at 00, 18 o'clock, not every 18 hours"),
        (
            "*/50 */7 * * *",
            "*/50 means at :00, :50 of the hour, not every 50 minutes; */7 means at 00, 07, 14, 21 o'clock",
        ),
        ("0 6 */2 * *", "*/2 counts from the 1st of each month, not every 2 days"),
        ("0 6 1-31/3 * *", "1-31/3 counts from the 1st of each month, not every 3 days"),
        ("0 0 31 2 FRI", "its months do not have this date: due on the weekdays only"),
        ("0 0 30,31 2 1-5", "its months do not have this date: due on the weekdays only"),
        ("0 0 L 2 FRI", ""),
        ("0 0 29 2 MON", ""),
        ("*/20 */6 */31 * *", ""),
    ],
)
def test_what_short_months_and_odd_steps_mean_is_said(text: str, note: str) -> None:
    assert parse_cadence(text).note.startswith(note) and bool(parse_cadence(text).note) == bool(note)


@pytest.mark.parametrize(
    ("text", "same"),
    [("@daily", "0 0 * * *"), ("@Hourly", "0 * * * *"), ("@weekly", "0 0 * * 0"), ("@midnight", "0 0 * * *"),
     ("@monthly", "0 0 1 * *"), ("@yearly", "0 0 1 1 *"), ("@annually", "0 0 1 1 *")],
)  # fmt: skip
def test_the_names_of_crontab_are_read(text: str, same: str) -> None:
    assert parse_cadence(text, "Europe/Berlin") == parse_cadence(same, "Europe/Berlin")


def test_a_name_that_starts_with_the_machine_is_refused() -> None:
    with pytest.raises(UsageError, match="'@reboot' is not a valid cadence"):
        parse_cadence("@reboot")


def test_a_job_of_every_minute_is_searched_in_a_moment() -> None:
    minutely, now = parse_cadence("* * * * *", "Europe/Berlin"), at("2026-11-22T22:00:30")

    def search() -> None:
        for _ in range(20):
            assert (minutely.last(now), minutely.next(now)) == (at("2026-11-22T22:00"), at("2026-11-22T22:01"))

    assert least_cpu_seconds(search, 0.4) < 0.4


def test_the_last_weekday_as_it_was_written_before_still_holds() -> None:
    assert parse_cadence("0 0 * * L5") == parse_cadence("0 0 * * 5L") == Cadence("0 0 * * 5L", ZoneInfo("UTC"))


def test_month_ends_and_the_leap_day() -> None:
    ends = slots("monthly on the last day 12:00", "UTC", "2028-01-15T00:00", "2028-04-30T13:00")
    assert ends == ["01-31T12:00", "02-29T12:00", "03-31T12:00", "04-30T12:00"]
    assert slots("0 0 31 * *", "UTC", "2028-01-15T00:00", "2028-04-01T00:00") == ["01-31T00:00", "03-31T00:00"]


def test_two_weeks_asleep_are_fourteen_daily_slots() -> None:
    assert len(slots("daily at 06:00", "Europe/Berlin", "2026-03-20T12:00", "2026-04-03T12:00")) == 14


def test_last_and_next_enclose_a_moment() -> None:
    weekly = parse_cadence("weekly on Monday 06:00", "Europe/Berlin")
    now = at("2026-11-22T22:00")
    assert (weekly.last(now), weekly.next(now)) == (at("2026-11-16T05:00"), at("2026-11-23T05:00"))


zones = st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"])


@given(zones, st.datetimes(datetime(2024, 1, 1), datetime(2028, 12, 31)), st.integers(0, 23), st.integers(0, 59))
def test_a_daily_job_has_one_slot_a_local_day(zone: str, start: datetime, hour: int, minute: int) -> None:
    begin = start.replace(tzinfo=UTC)
    found = list(parse_cadence(f"{minute} {hour} * * *", zone).slots(begin, begin + timedelta(days=10)))
    days = [slot.astimezone(ZoneInfo(zone)).date() for slot in found]
    assert len(days) == len(set(days)) and 9 <= len(days) <= 11 and found == sorted(found)
