"""When a job is due: cron expressions and phrases such as 'daily at 06:00', in a time zone with daylight saving."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from heapq import heappop, heappush
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from d2c_mlops.errors import UsageError

DAY = 24 * 60  # minutes
DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
TIME = r"(?: at)? (?P<hour>\d{1,2}):(?P<minute>\d\d)"
COUNTED = r"every (?:(?P<n>\d+) )?(?P<unit>minute|hour)s?"
PLAIN = {
    r"hourly(?: at :(?P<minute>\d\d))?": "{minute} * * * *",
    rf"daily{TIME}": "{minute} {hour} * * *",
    rf"(?:on )?weekdays{TIME}": "{minute} {hour} * * 1-5",
    rf"weekly on (?P<day>{'|'.join(DAYS)}){TIME}": "{minute} {hour} * * {day}",
    rf"monthly on (?P<date>\d{{1,2}}){TIME}": "{minute} {hour} {date} * *",
    rf"monthly on the last day{TIME}": "{minute} {hour} L * *",
}
MACROS = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}  # as crontab(5) has them
KNOWN = (
    "a cron expression, 'every 15 minutes', 'every 6 hours', 'hourly at :15', 'daily at 06:00', 'weekdays at 06:00', "
)
KNOWN += "'weekly on Monday 06:00', 'monthly on 1 06:00' or 'monthly on the last day 06:00'"
MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
LONGEST = timedelta(days=50 * 366)  # 29 February comes on a given weekday every 40 years at the least
SHIFT = timedelta(hours=3)  # no clock is set by more at a change


@dataclass(frozen=True)
class Cadence:
    """The times at which a job is due, in a time zone."""

    cron: str  # a cron expression; several, one a line, where no single expression says what `every` does
    zone: ZoneInfo
    every: int = 0  # minutes, counted from local midnight; 0: by the cron expression

    @property
    def lines(self) -> tuple[str, ...]:
        """The cron expressions; a slot exists where at least one matches."""
        return tuple(self.cron.splitlines())

    @property
    def follows_clock(self) -> bool:
        """Whether slots follow the local clock, so that they occur twice in a repeated hour.

        As in Debian's cron, this holds for jobs with `*` in minutes or hours, or with all hours listed.
        """
        minute, hour = self.cron.split()[:2]
        return bool(self.every) or minute.startswith("*") or self._covers_every_hour(hour)

    @property
    def note(self) -> str:
        """A note about dates that some months lack or steps that do not divide the hour; else empty."""
        if not self.cron or self.every:
            return ""
        sim = CronSim(self.cron, datetime(2026, 1, 1))
        if steps := self._uneven_steps(sim):
            return steps
        if not sim.day_and and not self._has_a_date(sim):
            return "its months do not have this date: due on the weekdays only"
        if not sim.day_and or len(sim.weekdays) < 8 or min(sim.days) < 29:
            return ""
        without = [MONTHS[m - 1] for m in sorted(sim.months) if LENGTHS[m - 1] < min(sim.days)]
        if min(sim.days) == 29:
            return "not in February, except in leap years" if 2 in sim.months else ""
        last = "; 'monthly on the last day 06:00' is in every month"
        return f"not in {', '.join(without)}{last}" if without else ""

    def _uneven_steps(self, sim: CronSim) -> str:
        """Return the meaning of steps that do not divide their range; empty if all do."""
        minute, hour, date, *_ = self.cron.split()
        notes = []
        for text, whole, values, unit in ((minute, 60, sim.minutes, "minutes"), (hour, 24, sim.hours, "hours")):
            step = re.fullmatch(r"(?:\*|\d+(?:-\d+)?)/(\d+)", text)
            if step and whole % int(step[1]):
                times = ", ".join(f":{n:02}" if unit == "minutes" else f"{n:02}" for n in sorted(values))
                of = "of the hour" if unit == "minutes" else "o'clock"
                notes.append(f"{text} means at {times} {of}, not every {step[1]} {unit}")
        step = re.fullmatch(r"(?:\*|1(?:-31)?)/(\d+)", date)
        if step and 1 < int(step[1]) < 31:
            notes.append(f"{date} counts from the 1st of each month, not every {step[1]} days")
        return "; ".join(notes)

    def _has_a_date(self, sim: CronSim) -> bool:
        """Return whether any of the months has any of the dates."""
        longest = max(LENGTHS[month - 1] for month in sim.months)
        return any(int(day) <= longest for day in sim.days)  # the last day is less than 0

    def slots(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """Yield the slots later than `after` and not later than `until`, in order, as times in UTC.

        A job with fixed hours runs once for a skipped hour, right after the clock has moved, and once, the
        first time, in a repeated hour. A job that runs every hour or every few minutes follows the clock.
        """
        if not self.cron:
            return
        start, waiting, latest = self._earliest_local_time(after), list[datetime](), after
        for naive in self._local_times(start):
            bound, moments = self._slot_times(naive)
            if bound > until:
                break
            for moment in moments:
                heappush(waiting, moment)
            while waiting and waiting[0] <= bound:  # later local times give no earlier moments
                moment = heappop(waiting)
                if latest < moment <= until:
                    latest = moment
                    yield moment
        for moment in sorted(waiting):
            if latest < moment <= until:
                latest = moment
                yield moment

    def last(self, until: datetime) -> datetime:
        """Return the latest slot not later than `until`."""
        for window in (timedelta(hours=1), *(timedelta(days=n) for n in (2, 40, 400)), LONGEST):
            moments = list(self.slots(until - window, until))
            if moments:
                return moments[-1]
        raise _never_due(self.cron)

    def next(self, after: datetime) -> datetime:
        """Return the first slot later than `after`."""
        moment = next(self.slots(after, after + LONGEST), None)
        if moment is None:
            raise _never_due(self.cron)
        return moment

    def _earliest_local_time(self, after: datetime) -> datetime:
        """Return the local time after which slots can be later than `after`: earlier if the clock is set back soon."""
        local, later = after.astimezone(self.zone), (after + SHIFT).astimezone(self.zone)
        back = (later.utcoffset() or timedelta()) < (local.utcoffset() or timedelta())
        return local.replace(tzinfo=None, fold=0) - (SHIFT if back else timedelta())

    def _local_times(self, start: datetime) -> Iterator[datetime]:
        """Yield the local times later than `start`."""
        if not self.every:
            yield from CronSim(self.cron, start)
            return
        midnight = start.replace(hour=0, minute=0, second=0, microsecond=0)
        passed = int((start - midnight).total_seconds() // 60 // self.every + 1) * self.every
        while True:
            yield from (midnight + timedelta(minutes=n) for n in range(passed, DAY, self.every))
            midnight, passed = midnight + timedelta(days=1), 0

    def _slot_times(self, naive: datetime) -> tuple[datetime, list[datetime]]:
        """Return the UTC time that no later local time precedes, and the slots of a local time."""
        local = naive.replace(tzinfo=self.zone)
        first = local.astimezone(UTC)
        if first.astimezone(self.zone).replace(tzinfo=None) != naive:
            moved_on = self._behind_gap(naive)
            hour = self.cron.split()[1]
            return moved_on, [] if self.every or self._covers_every_hour(hour) else [moved_on]
        second = local.replace(fold=1).astimezone(UTC)
        return first, [first, second] if second != first and self.follows_clock else [first]

    def _behind_gap(self, naive: datetime) -> datetime:
        """Return the first UTC time after a skipped local time."""
        first = (naive - SHIFT).replace(tzinfo=self.zone).astimezone(UTC)
        last = (naive + SHIFT).replace(tzinfo=self.zone).astimezone(UTC)
        while last - first > timedelta(seconds=1):
            middle = first + (last - first) / 2
            if middle.astimezone(self.zone).replace(tzinfo=None) < naive:
                first = middle
            else:
                last = middle
        return last.replace(microsecond=0)

    def _covers_every_hour(self, hour: str) -> bool:
        return hour.startswith("*") or len(CronSim(f"0 {hour} * * *", datetime(2026, 1, 1)).hours) == 24


def never_due(zone: str = "UTC") -> Cadence:
    """Return the cadence of a job without a schedule, started by other jobs or by hand."""
    return Cadence("", _cadence_zone(zone))


@cache
def parse_cadence(text: str, zone: str = "UTC") -> Cadence:
    """Parse a cron expression or a phrase such as 'daily at 06:00'. Raises UsageError if it is neither, or never due."""
    time_zone = _cadence_zone(zone)
    written = " ".join(text.lower().split())
    if counted := re.fullmatch(COUNTED, written):
        return _interval_cadence(int(counted["n"] or 1), counted["unit"], text, time_zone)
    written = MACROS.get(written, written)
    for pattern, cron in PLAIN.items():
        if match := re.fullmatch(pattern, written):
            values = {"minute": "0", **{k: v for k, v in match.groupdict().items() if v is not None}}
            if "day" in values:
                values["day"] = str(DAYS.index(values["day"]))
            written = cron.format(**{k: v.lstrip("0") or "0" for k, v in values.items()})
            break
    # The last Friday of a month was written L5 in earlier versions; Debian's cron and its kin write 5L.
    cron = re.sub(r"(?<=[\s,])L([0-7])(?=$|,)", r"\1L", written.upper())
    if len(cron.split()) != 5:
        raise UsageError(f"{text!r} is not a valid cadence", next=f"write {KNOWN}")
    try:
        first = next(CronSim(cron, datetime(2026, 1, 1)), None)
    except CronSimError as err:
        raise _cadence_error(text, cron, err) from None
    if first is None:
        raise _never_due(text)
    return Cadence(cron, time_zone)


def _interval_cadence(count: int, unit: str, text: str, zone: ZoneInfo) -> Cadence:
    """Return the cadence of every n minutes or hours from local midnight. Raises UsageError if n does not divide a day."""
    whole = DAY if unit == "minute" else 24
    if count == 0 or whole % count:
        divisors = [d for d in range(1, whole + 1) if whole % d == 0]
        below, above = [d for d in divisors if d < count][-1:], [d for d in divisors if d > count][:1]
        near = " or ".join(f"'every {d} {unit}{'s' if d > 1 else ''}'" for d in (*below, *above))
        raise UsageError(
            f"{text!r} does not divide a day, so its slots would be at other times each day", next=f"write {near}"
        )
    minutes = count if unit == "minute" else count * 60
    if minutes < 60 and 60 % minutes == 0:
        return Cadence(f"*/{minutes} * * * *" if minutes > 1 else "* * * * *", zone)
    if minutes % 60 == 0:
        return Cadence({60: "0 * * * *", DAY: "0 0 * * *"}.get(minutes, f"0 */{minutes // 60} * * *"), zone)
    hours: dict[int, list[int]] = {}
    for moment in range(0, DAY, minutes):
        hours.setdefault(moment % 60, []).append(moment // 60)
    lines: dict[str, list[int]] = {}
    for minute, listed in sorted(hours.items()):
        lines.setdefault(",".join(map(str, listed)), []).append(minute)
    return Cadence("\n".join(f"{','.join(map(str, m))} {h} * * *" for h, m in lines.items()), zone, every=minutes)


def _cadence_error(text: str, cron: str, err: CronSimError) -> UsageError:
    """Return the error for a refused cron expression: invalid, or without any date."""
    minute, hour, date, _, day = cron.split()
    try:
        CronSim(f"{minute} {hour} {date} * {day}", datetime(2026, 1, 1))
        CronSim(f"{minute} {hour} * {cron.split()[3]} {day}", datetime(2026, 1, 1))
    except CronSimError:
        return UsageError(f"{text!r} is not a valid cadence ({str(err).lower()})", next=f"write {KNOWN}")
    return _never_due(text)


def _never_due(text: str) -> UsageError:
    return UsageError(f"{text!r} is never due: its months do not have this day", next="choose a day that exists")


def _cadence_zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise UsageError(f"unknown time zone {name!r}", next="write a name such as Europe/Berlin") from None
