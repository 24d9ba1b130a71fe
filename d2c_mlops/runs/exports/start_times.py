"""Times at which another scheduler must start `d2c run JOB --slot due`, so that no slot is missed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from cronsim import CronSim

from d2c_mlops.runs.schedule.cadence import Cadence

# Which slot is due is the ledger's to say, and a wake-up with nothing due does nothing. So a target that knows less of
# time zones, daylight saving or month ends than a Cadence is given a few wake-ups more, and never one too few.
RANGES = (range(60), range(24), range(1, 32), range(1, 13), range(7))
MINUTE, HOUR, DATE, MONTH, DAY = range(5)
Fields = list[frozenset[int] | None]  # None: every value


def cron_fields(cron: str) -> Fields:
    """Return the values of each field; the last day of a month as the days 28 to 31."""
    sim = CronSim(cron, datetime(2026, 1, 1))
    dates = {day for day in sim.days if day > 0} | (set(range(26, 32)) if CronSim.LAST_WEEKDAY in sim.days else set())
    dates |= set(range(28, 32)) if CronSim.LAST in sim.days else set()
    weekdays = {(day[0] if isinstance(day, tuple) else day) % 7 for day in sim.weekdays}
    read = (sim.minutes, sim.hours, dates, sim.months, weekdays)
    return [
        None if len(values) == len(whole) else frozenset(values) for values, whole in zip(read, RANGES, strict=True)
    ]


def merge_cron_lines(lines: Iterable[str]) -> Fields:
    """Return fields that match at least where one of the expressions does."""
    both = zip(*map(cron_fields, lines), strict=True)
    return [
        None if None in values else frozenset[int]().union(*(v for v in values if v is not None)) for values in both
    ]


def fields_text(fields: Fields) -> str:
    """Return fields as a cron expression that every cron supports."""
    return " ".join(
        "*" if values is None or len(values) == len(whole) else ",".join(map(str, sorted(values)))
        for values, whole in zip(fields, RANGES, strict=True)
    )


def start_times(
    cadence: Cadence,
    zone: ZoneInfo,
    since: datetime,
    after_skipped_hour: bool = True,  # also right behind an hour that the clock skips, not only at the next regular time
) -> Fields:
    """Return when a clock in `zone` must start the job: on time, at the zone's other offset, after a skipped hour."""
    fields_of_job = merge_cron_lines(cadence.lines)
    changes = _offset_changes(cadence.zone, since)
    moments = [since, *(moment for moment, _, _ in changes)]
    shifts = {_offset_minutes(zone, m) - _offset_minutes(cadence.zone, m) for m in moments}
    shifts |= {_offset_minutes(zone, m) - _offset_minutes(cadence.zone, m) for m, _, _ in _offset_changes(zone, since)}
    minutes: set[int] = set()
    hours: set[int] = set()
    days: set[int] = set()
    for hour in fields_of_job[HOUR] or RANGES[HOUR]:
        for minute in fields_of_job[MINUTE] or RANGES[MINUTE]:
            for shift in shifts:
                over, minute_of_day = divmod(hour * 60 + minute + shift, 24 * 60)
                minutes.add(minute_of_day % 60)
                hours.add(minute_of_day // 60)
                days.add(over)
    for moment, before, after in changes if after_skipped_hour else ():
        if _is_in_skipped_hour(fields_of_job, moment + before, moment + after):
            local = (moment + after).replace(tzinfo=cadence.zone).astimezone(zone)
            minutes.add(local.minute)
            hours.add(local.hour)
    weekdays = fields_of_job[DAY]
    return [
        frozenset(minutes),
        frozenset(hours) if fields_of_job[HOUR] is not None else None,
        _moved_dates(fields_of_job[DATE], days),
        fields_of_job[MONTH] if days == {0} else None,
        None if weekdays is None else frozenset((d + over) % 7 for d in weekdays for over in days),
    ]


def cron_expression(cadence: Cadence, zone: ZoneInfo, since: datetime) -> str:
    """Return the cron expression for a clock in `zone`: the cadence's own expression if possible."""
    wake_fields = start_times(cadence, zone, since)
    plain = len(cadence.lines) == 1 and not set("LW#") & set(cadence.cron)
    return cadence.cron if plain and wake_fields == cron_fields(cadence.cron) else fields_text(wake_fields)


@lru_cache(64)
def _offset_changes(zone: ZoneInfo, since: datetime) -> tuple[tuple[datetime, timedelta, timedelta], ...]:
    """Return the changes of a zone's offset in the next ten years: when (UTC, naive), the offsets before and after."""
    return tuple(_each_offset_change(zone, since))


def _each_offset_change(zone: ZoneInfo, since: datetime) -> Iterator[tuple[datetime, timedelta, timedelta]]:
    start = since.astimezone(UTC).replace(tzinfo=None, minute=0, second=0, microsecond=0)
    for day in range(0, 3660):
        first, last = start + timedelta(days=day), start + timedelta(days=day + 1)
        before, after = _offset_delta(zone, first), _offset_delta(zone, last)
        while before != after and last - first > timedelta(minutes=1):
            middle = first + (last - first) / 2
            first, last = (first, middle) if _offset_delta(zone, middle) == after else (middle, last)
        if before != after:
            yield (last + timedelta(seconds=30)).replace(second=0, microsecond=0), before, after


def _is_in_skipped_hour(job_fields: Fields, begin: datetime, end: datetime) -> bool:
    """Return whether a time of the fields is in a skipped hour."""
    minutes = (begin + timedelta(minutes=n) for n in range(max(0, int((end - begin).total_seconds() // 60))))
    return any(
        m.hour in (job_fields[HOUR] or RANGES[HOUR]) and m.minute in (job_fields[MINUTE] or RANGES[MINUTE])
        for m in minutes
    )


def _moved_dates(dates: frozenset[int] | None, days: Iterable[int]) -> frozenset[int] | None:
    if dates is None:
        return None
    moved = {date + over for date in dates for over in days}
    moved |= {1 for date in dates if date >= 28 and 1 in days}  # the day after the last one of a short month
    return frozenset(m for m in moved if 1 <= m <= 31) | (frozenset(range(28, 32)) if 0 in moved else frozenset())


def _offset_delta(zone: ZoneInfo, moment: datetime) -> timedelta:
    offset = moment.replace(tzinfo=UTC).astimezone(zone).utcoffset()
    assert offset is not None
    return offset


def _offset_minutes(zone: ZoneInfo, moment: datetime) -> int:
    """Return a zone's offset in minutes."""
    return (
        int(
            _offset_delta(
                zone, moment.astimezone(UTC).replace(tzinfo=None) if moment.tzinfo else moment
            ).total_seconds()
        )
        // 60
    )
