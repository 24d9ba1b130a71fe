"""Watch from outside that the scheduler, monitors, predictions and data keep arriving."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import func, select

from d2c_mlops.data.manifest import list_datasets, read_manifest
from d2c_mlops.errors import D2CError, DataRefused, Failure, Temporary, UsageError
from d2c_mlops.ledger.schema import by_callers, predictions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.monitoring.alerts import Breach
from d2c_mlops.operations.alerts import observe_breaches
from d2c_mlops.operations.channels import all_channels
from d2c_mlops.operations.delivery import deliver
from d2c_mlops.operations.heartbeat import MONITOR, SCHEDULER, latest_heartbeats
from d2c_mlops.runs.schedule.notify import send_notification
from d2c_mlops.settings import Settings

PARTS = (SCHEDULER, MONITOR, "predictions", "data")
ADVICE = {
    SCHEDULER: "d2c schedule run",
    MONITOR: "d2c schedule list",
    "predictions": "d2c collect",
    "data": "d2c schedule list",
}
LogMessage = Callable[[str], None]


@dataclass(frozen=True)
class Arrival:
    """The latest sign of life of a part of the project."""

    part: str  # one of PARTS
    name: str  # a model or a dataset; empty for the scheduler
    latest: datetime | None  # UTC; None: it never arrived
    failure: str = ""  # why the latest one failed

    @property
    def label(self) -> str:
        """The part and its name."""
        return f"{self.part} {self.name}".strip()

    def is_late(self, now: datetime, max_age: timedelta) -> bool:
        """Return whether it did not arrive in time, or failed."""
        return self.latest is None or now - self.latest > max_age or bool(self.failure)

    def sentence(self, now: datetime) -> str:
        """Return since when it has not arrived, in words."""
        if self.latest is None:
            return f"{self.label}: never arrived"
        hours = (now - self.latest) / timedelta(hours=1)
        failure = f"; it failed: {self.failure}" if self.failure else ""
        return f"{self.label}: latest {self.latest:%Y-%m-%d %H:%M}Z, {hours:.1f} h ago{failure}"

    def to_dict(self) -> dict[str, Any]:
        """Return the arrival as JSON values."""
        latest = self.latest.isoformat() if self.latest else None
        return {"part": self.part, "name": self.name, "latest": latest, "failure": self.failure}


def arrivals(ledger: Ledger, settings: Settings, parts: Sequence[str] = ()) -> list[Arrival]:
    """Return the latest signs of life of the parts that the project has: all, or those of some kinds.

    The scheduler counts if there are jobs, a monitor from its first run, predictions of a model from its first logged one,
    and the datasets that [model:…] sections name. Raises UsageError for an unknown kind, or if there is nothing to watch.
    """
    if unknown := set(parts) - set(PARTS):
        raise UsageError(f"unknown part {', '.join(sorted(unknown))}", next=f"use one of: {', '.join(PARTS)}")
    listed = [arrival for arrival in _all_arrivals(ledger, settings) if not parts or arrival.part in parts]
    names = ", ".join(parts)
    if not listed:
        raise UsageError(
            f"there is nothing to watch{f' of {names}' if names else ''}",
            next="add a section [schedule:NAME], or name the dataset of a model in [model:NAME] data",
        )
    return listed


def watch(
    settings: Settings,
    max_age: timedelta,
    parts: Sequence[str] = (),  # of PARTS; default: all that the project has
    now: datetime | None = None,  # UTC; default: the present
    log: LogMessage = lambda line: None,
) -> list[Arrival]:
    """Return the latest signs of life. Raises DataRefused, after an alert was sent, if one is older than `max_age` or failed.

    If the ledger cannot be reached, the channels of [alerts] are told directly and the Temporary error is raised.
    """
    at = now or datetime.now(UTC)
    try:
        ledger = Ledger.of(settings)
        listed = arrivals(ledger, settings, parts)
    except Temporary as err:
        _tell_without_ledger(settings, err, at, log)
        raise
    late = [arrival for arrival in listed if arrival.is_late(at, max_age)]
    judged = {(arrival.name, f"heartbeat of {arrival.part}") for arrival in listed}
    scheduler_is_late = any(arrival.part == SCHEDULER for arrival in late)
    breaches = [_breach(arrival, at, max_age, scheduler_is_late) for arrival in late]
    try:
        observe_breaches(ledger, settings, breaches, judged, at)
        deliver(ledger, settings, clock=lambda: at, log=log)
    except D2CError as err:
        log(f"the alert was not sent: {err.what}")
    if late:
        raise DataRefused(
            f"{len(late)} of {len(listed)} parts stopped arriving for more than {max_age / timedelta(hours=1):g} h",
            failures=[Failure(arrival.sentence(at)) for arrival in late],
            next=" · ".join(dict.fromkeys(ADVICE[arrival.part] for arrival in late)),
        )
    return listed


def _all_arrivals(ledger: Ledger, settings: Settings) -> Iterator[Arrival]:
    beats = latest_heartbeats(ledger)
    if settings.jobs and SCHEDULER not in beats:
        yield Arrival(SCHEDULER, "", None)
    for name, beat in beats.items():
        part, _, model = name.partition(":")
        yield Arrival(part, model, beat.at, "" if beat.ok else beat.note or "without a reason")
    query = select(predictions.c.model, func.max(predictions.c.at)).where(by_callers(predictions))
    with ledger.read() as connection:
        rows = connection.execute(query.group_by(predictions.c.model).order_by(predictions.c.model)).all()
    for model, latest in rows:
        yield Arrival("predictions", model, latest)
    stored = set(list_datasets(settings.store))
    for dataset in sorted({model.data for model in settings.models.values() if model.data}):
        created = read_manifest(settings.store, dataset).created_at if dataset in stored else None
        yield Arrival("data", dataset, created)


def _breach(arrival: Arrival, now: datetime, max_age: timedelta, scheduler_is_late: bool) -> Breach:
    """Return the breach of a part; without a scheduler nothing else can arrive, so that is then the cause of all."""
    hours = max_age / timedelta(hours=1)
    return Breach(
        model=arrival.name if arrival.part in (MONITOR, "predictions") else "",
        metric=f"heartbeat of {arrival.part}",
        cause=SCHEDULER if scheduler_is_late else arrival.label,
        severity="critical",
        message=f"{arrival.sentence(now)}, expected every {hours:g} h",
        advice=ADVICE[arrival.part],
        value=(now - arrival.latest) / timedelta(hours=1) if arrival.latest else None,
        threshold=hours,
        since=arrival.latest.date() if arrival.latest else None,
    )


def _tell_without_ledger(settings: Settings, err: Temporary, now: datetime, log: LogMessage) -> None:
    id = sha256(f"ledger {now:%Y-%m-%d}".encode()).hexdigest()[
        :16
    ]  # the same all day, for receivers that join messages
    for channel in all_channels(settings):
        if channel.place.startswith("alerts "):
            try:
                send_notification(
                    channel.url,
                    "[critical] the ledger cannot be reached",
                    f"{err}\n\nNext: d2c alerts watch\n\nMessage {id}",
                    log,
                    channel.place,
                    delivery_id=id,
                )
            except D2CError as failure:
                log(str(failure))
