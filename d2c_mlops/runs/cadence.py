"""When a job is due: cron expressions and plain cadences, in a time zone with its daylight saving."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import croniter

from ..errors import UsageError

DAYS = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
TIME = r"(?: at)? (?P<hour>\d{1,2}):(?P<minute>\d\d)"
PLAIN = {
    r"every (?P<n>\d+) minutes": "*/{n} * * * *",
    r"hourly(?: at :(?P<minute>\d\d))?": "{minute} * * * *",
    rf"daily{TIME}": "{minute} {hour} * * *",
    rf"(?:on )?weekdays{TIME}": "{minute} {hour} * * 1-5",
    rf"weekly on (?P<day>{'|'.join(DAYS)}){TIME}": "{minute} {hour} * * {day}",
    rf"monthly on (?P<date>\d{{1,2}}){TIME}": "{minute} {hour} {date} * *",
    rf"monthly on the last day{TIME}": "{minute} {hour} L * *",
}
KNOWN = "a cron expression, 'every 15 minutes', 'hourly at :15', 'daily at 06:00', 'weekdays at 06:00', "
KNOWN += "'weekly on Monday 06:00', 'monthly on 1 06:00' or 'monthly on the last day 06:00'"


@dataclass(frozen=True)
class Cadence:
    """The slots of a job: a cron expression on the clock of a zone."""

    cron: str
    zone: ZoneInfo

    def slots(self, after: datetime, until: datetime) -> Iterator[datetime]:
        """Yield the slots later than `after` and not later than `until`, in order, as moments in UTC.

        An hour that the clock skips is run once, when the clock has moved on; an hour that it repeats is run once, the
        first time.
        """
        if not self.cron:
            return
        # Where the clock has been moved back within a day, naive times are read from a day earlier.
        local = after.astimezone(self.zone)
        moved = (after - timedelta(days=1)).astimezone(self.zone).utcoffset() != local.utcoffset()
        start = local.replace(tzinfo=None) - timedelta(days=1 if moved else 0)
        given: set[datetime] = set()
        for naive in croniter(self.cron, start).all_next(datetime):
            moment = self._moment(naive)
            if moment > until + timedelta(hours=3):
                return
            if after < moment <= until and moment not in given:
                given.add(moment)
                yield moment

    def last(self, until: datetime) -> datetime:
        """Return the latest slot not later than `until`."""
        for days in (2, 40, 400, 4000):
            found = list(self.slots(until - timedelta(days=days), until))
            if found:
                return found[-1]
        raise UsageError(f"{self.cron!r} is never due", next=f"write {KNOWN}")

    def next(self, after: datetime) -> datetime:
        """Return the first slot later than `after`."""
        found = next(self.slots(after, after + timedelta(days=4000)), None)
        if found:
            return found
        raise UsageError(f"{self.cron!r} is never due", next=f"write {KNOWN}")

    def _moment(self, naive: datetime) -> datetime:
        """Return the instant at which the zone's clock shows `naive`, or first shows something later."""
        local = naive.replace(tzinfo=self.zone)
        back = local.astimezone(UTC).astimezone(self.zone).replace(tzinfo=None)
        if back == naive:
            return local.astimezone(UTC)
        # The clock skips this time: with fold=1 the offset after the change is used, which gives the wall time that the
        # same distance behind the change has; the change itself is the first minute that exists again.
        lower, upper = naive - timedelta(hours=3), naive + timedelta(hours=3)
        first = lower.replace(tzinfo=self.zone).astimezone(UTC)
        last = upper.replace(tzinfo=self.zone).astimezone(UTC)
        while last - first > timedelta(seconds=1):
            middle = first + (last - first) / 2
            if middle.astimezone(self.zone).replace(tzinfo=None) < naive:
                first = middle
            else:
                last = middle
        return last.replace(microsecond=0)


def never(zone: str = "UTC") -> Cadence:
    """Return the cadence of a job that only other jobs or people start."""
    return Cadence("", _zone(zone))


@cache
def cadence(text: str, zone: str = "UTC") -> Cadence:
    """Read a cron expression or a plain cadence. Raises UsageError when it is neither."""
    known = _zone(zone)
    written = " ".join(text.lower().split())
    for pattern, cron in PLAIN.items():
        if found := re.fullmatch(pattern, written):
            values = {"minute": "0", **{k: v for k, v in found.groupdict().items() if v is not None}}
            if "day" in values:
                values["day"] = str(DAYS.index(values["day"]))
            written = cron.format(**{k: v.lstrip("0") or "0" for k, v in values.items()})
            break
    if len(written.split()) != 5 or not croniter.is_valid(written.upper()):
        raise UsageError(f"{text!r} is not a cadence", next=f"write {KNOWN}")
    return Cadence(written.upper(), known)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise UsageError(f"there is no time zone {name!r}", next="write a name such as Europe/Berlin") from None
