"""Send the messages about alerts that the ledger holds: at least once, each with a stable id, later if a channel is away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from sqlalchemy import select, text, update

from d2c_mlops.errors import D2CError, Temporary
from d2c_mlops.file_lock import lock
from d2c_mlops.ledger.schema import alert_deliveries
from d2c_mlops.ledger.store import Ledger, insert_new
from d2c_mlops.operations.alert_rows import Delivery
from d2c_mlops.operations.channels import AlertChannel, all_channels
from d2c_mlops.runs.schedule.notify import send_notification
from d2c_mlops.settings import Settings
from d2c_mlops.settings.parsing import parse_age

MOST_FAILURES = 3  # of a channel until its other messages wait for the next time
FIRST_WAIT, LONGEST_WAIT = 30.0, 1800.0  # seconds until the next attempt, doubled from one to the other
LogMessage = Callable[[str], None]


@dataclass(frozen=True)
class DeliveryReport:
    """What became of the messages that were due."""

    sent: int = 0
    retried_later: int = 0  # no channel accepted them yet
    given_up: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return dict(vars(self))


def ignore_message(line: str) -> None:
    """Ignore a progress message."""


def utc_now() -> datetime:
    """Return the present in UTC."""
    return datetime.now(UTC)


def deliver(
    ledger: Ledger,
    settings: Settings,
    *,
    clock: Callable[[], datetime] = utc_now,
    log: LogMessage = ignore_message,
) -> DeliveryReport:
    """Send the messages that are due, oldest first; return what became of them.

    A message stays pending until its channel accepted it, so a killed process or a channel that is away loses none. After a
    kill between sending and recording it is sent again, with the same id. One process at a time sends; the lock ends with
    it. Raises Temporary if another process has been sending for longer than [d2c] lock_wait.
    """
    with _sending_alone(ledger, settings):
        _combine_digests(ledger, clock())
        counts = dict.fromkeys(("sent", "retried_later", "given_up"), 0)
        blocked, failures = _blocked_alerts(ledger, clock()), Counter[str]()
        for delivery in _due(ledger, clock()):
            about = {(delivery.channel, id) for id in delivery.alerts}
            if about & blocked or failures[delivery.channel] >= MOST_FAILURES:
                counts["retried_later"] += 1
                blocked |= about
                continue
            result = _attempt(ledger, settings, delivery, clock, log)
            counts[result] += 1
            if result == "retried_later":
                blocked |= about
                failures[delivery.channel] += 1
    return DeliveryReport(**counts)


def try_to_deliver(
    ledger: Ledger, settings: Settings, log: LogMessage = ignore_message, clock: Callable[[], datetime] = utc_now
) -> DeliveryReport:
    """Send the messages that are due as `deliver`, but log errors: they stay pending, and the scheduler retries."""
    try:
        return deliver(ledger, settings, clock=clock, log=log)
    except D2CError as err:
        log(f"messages about alerts are sent later: {err.what}")
        return DeliveryReport()


def channel_of(settings: Settings, delivery: Delivery) -> AlertChannel | None:
    """Return the channel of a message: the same URL, else the URL now at its place in settings.ini; None without both."""
    channels = all_channels(settings)
    same = [channel for channel in channels if channel.digest == delivery.channel]
    return next(iter([*same, *(channel for channel in channels if channel.place == delivery.place)]), None)


def _attempt(
    ledger: Ledger, settings: Settings, delivery: Delivery, clock: Callable[[], datetime], log: LogMessage
) -> str:
    """Try to send a message once and record the result; return its name in DeliveryReport."""
    channel = channel_of(settings, delivery)
    lines: list[str] = []
    accepted = False
    if channel is None:
        lines.append(f"settings.ini has no channel at {delivery.place} any more")
    else:
        body = f"{delivery.text}\n\nMessage {delivery.id}"
        try:
            accepted = send_notification(
                channel.url, delivery.title, body, lines.append, channel.place, delivery_id=delivery.id
            )
        except D2CError as err:
            lines.append(str(err))
    now = clock()
    attempts, error = delivery.attempts + 1, "; ".join(lines)
    values: dict[str, Any] = {"attempts": attempts, "status": "sent", "sent_at": now, "error": None}
    if not accepted:
        log(error)
        given_up = now - delivery.created_at > timedelta(seconds=parse_age(settings.alerts.give_up))
        wait = timedelta(seconds=min(FIRST_WAIT * 2.0 ** min(delivery.attempts, 20), LONGEST_WAIT))
        values = {"attempts": attempts, "error": error, "status": "failed" if given_up else "pending"}
        values |= {} if given_up else {"not_before": now + wait}
    mine = alert_deliveries.c.id == delivery.id

    def write() -> None:
        with ledger.write() as connection:
            connection.execute(update(alert_deliveries).where(mine).values(values))

    ledger.with_retries(write, timeout=60.0, print_line=log)
    return "sent" if accepted else "given_up" if values["status"] == "failed" else "retried_later"


def _due(ledger: Ledger, now: datetime) -> list[Delivery]:
    query = (
        select(alert_deliveries)
        .where(alert_deliveries.c.status == "pending", alert_deliveries.c.not_before <= now)
        .order_by(alert_deliveries.c.created_at, alert_deliveries.c.id)
    )
    with ledger.read() as connection:
        return [Delivery(**row._mapping) for row in connection.execute(query)]


def _blocked_alerts(ledger: Ledger, now: datetime) -> set[tuple[str, str]]:
    """Return the channels and alerts with an earlier message that waits for another attempt: an end must not overtake a beginning."""
    query = select(alert_deliveries.c.channel, alert_deliveries.c.alerts).where(
        alert_deliveries.c.status == "pending", alert_deliveries.c.attempts > 0, alert_deliveries.c.not_before > now
    )
    with ledger.read() as connection:
        return {(row.channel, id) for row in connection.execute(query) for id in row.alerts}


def _combine_digests(ledger: Ledger, now: datetime) -> None:
    """Replace messages that waited for the same time by one message to each channel."""
    waiting: dict[str, list[Delivery]] = {}
    for delivery in _due(ledger, now):
        if delivery.digest:
            waiting.setdefault(delivery.channel, []).append(delivery)
    for deliveries in waiting.values():
        members = alert_deliveries.c.id.in_([delivery.id for delivery in deliveries])
        values: dict[str, Any] = {"digest": False}  # from its first attempt a message keeps its id
        if len(deliveries) > 1:
            digest = _digest(deliveries, now)
            values = {"status": "combined", "digest_id": digest.id}
        with ledger.write() as connection:
            if len(deliveries) > 1:
                insert_new(connection, alert_deliveries, [vars(digest)])
            connection.execute(update(alert_deliveries).where(members).values(values))


def _digest(deliveries: Sequence[Delivery], now: datetime) -> Delivery:
    texts = [f"{delivery.title}\n{delivery.text}" for delivery in deliveries]
    return replace(
        deliveries[0],
        id=sha256("\0".join(delivery.id for delivery in deliveries).encode()).hexdigest()[:16],
        alerts=list(dict.fromkeys(id for delivery in deliveries for id in delivery.alerts)),
        title=f"digest of {len(deliveries)} messages, the first: {deliveries[0].title}",
        text="\n\n".join(texts),
        created_at=now,
        not_before=now,
        digest=False,
    )


@contextmanager
def _sending_alone(ledger: Ledger, settings: Settings) -> Iterator[None]:
    """Let one process at a time send; the lock is the kernel's or the database's, and ends with the process."""
    with lock(settings.store / "alerts", "messages about alerts", settings.lock_wait):
        if ledger.engine.dialect.name != "postgresql":
            yield
            return
        with ledger.read() as connection:
            if not connection.execute(text("SELECT pg_try_advisory_lock(5023063)")).scalar():
                raise Temporary("another machine is sending messages", next="run the same command again later")
            try:
                yield
            finally:
                connection.execute(text("SELECT pg_advisory_unlock(5023063)"))
