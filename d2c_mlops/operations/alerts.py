"""Alerts on record: each look and each decision of a person is one transaction, with the messages that follow from it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import Connection

from d2c_mlops.ledger.schema import alert_deliveries
from d2c_mlops.ledger.store import Ledger, insert_new
from d2c_mlops.monitoring.alerts import (
    Alert,
    AlertRules,
    Breach,
    Transition,
    acknowledge,
    advance,
    close,
    observe,
    snooze,
)
from d2c_mlops.operations.alert_rows import alert_dict, find_alert_in, open_alerts_in, write_transitions_in
from d2c_mlops.operations.channels import deliveries_of_look
from d2c_mlops.settings import Settings
from d2c_mlops.settings.parsing import parse_age

__all__ = [
    "acknowledge_alert",
    "advance_alerts",
    "alert_dict",
    "close_alert",
    "configured_rules",
    "observe_breaches",
    "snooze_alert",
]


def configured_rules(settings: Settings) -> AlertRules:
    """Return when alerts close, reopen and escalate, by [alerts]."""
    options = settings.alerts
    return AlertRules(
        healthy_looks=options.healthy_looks,
        healthy_for=timedelta(seconds=parse_age(options.healthy_for)),
        reopen_within=timedelta(seconds=parse_age(options.reopen_within)),
        escalate_after=timedelta(seconds=parse_age(options.escalate_after)),
    )


def observe_breaches(
    ledger: Ledger,
    settings: Settings,
    breaches: Iterable[Breach],
    judged: Collection[tuple[str, str]],  # (model, metric) that had enough data at this look
    now: datetime | None = None,  # UTC; default: the present
) -> list[Transition]:
    """Record a look: alerts, events and messages in one transaction; return what happened. Nothing is sent yet.

    `d2c alerts deliver`, or `delivery.deliver`, sends the messages.
    """
    at, rules = now or datetime.now(UTC), configured_rules(settings)

    def changes(connection: Connection) -> list[Transition]:
        current = open_alerts_in(connection, closed_since=at - rules.reopen_within)
        observed = observe(current, breaches, judged, at, rules)
        latest = {alert.id: alert for alert in current} | {change.alert.id: change.alert for change in observed}
        return [*observed, *advance(latest.values(), at, rules)]

    breaches = list(breaches)
    return _record(ledger, settings, changes, at)


def advance_alerts(ledger: Ledger, settings: Settings, now: datetime | None = None) -> list[Transition]:
    """Record the snoozes that ended and the escalations that are due."""
    at, rules = now or datetime.now(UTC), configured_rules(settings)
    with ledger.read() as connection:  # most looks find nothing: no write lock for them
        if not advance(open_alerts_in(connection), at, rules):
            return []
    return _record(ledger, settings, lambda connection: advance(open_alerts_in(connection), at, rules), at)


def acknowledge_alert(
    ledger: Ledger, settings: Settings, id: str, by: str, note: str = "", now: datetime | None = None
) -> Alert:
    """Record that a person takes an alert on; `id` may be its start. Raises UsageError if it is unknown or closed."""
    at = now or datetime.now(UTC)
    return _decided(ledger, settings, id, lambda alert: acknowledge(alert, by, at, note), at)


def snooze_alert(
    ledger: Ledger, settings: Settings, id: str, until: datetime, by: str, note: str = "", now: datetime | None = None
) -> Alert:
    """Record that an alert sends no messages until a time, unless it gets more severe. Raises UsageError."""
    at = now or datetime.now(UTC)
    return _decided(ledger, settings, id, lambda alert: snooze(alert, until, by, at, note), at)


def close_alert(
    ledger: Ledger, settings: Settings, id: str, by: str, reason: str, now: datetime | None = None
) -> Alert:
    """Record that a person closes an alert, with the reason. Raises UsageError if it is unknown or closed."""
    at = now or datetime.now(UTC)
    return _decided(ledger, settings, id, lambda alert: close(alert, by, at, reason), at)


def _decided(
    ledger: Ledger, settings: Settings, id: str, decision: Callable[[Alert], Transition], at: datetime
) -> Alert:
    changes = _record(ledger, settings, lambda connection: [decision(find_alert_in(connection, id))], at)
    return changes[0].alert


def _record(
    ledger: Ledger, settings: Settings, changes: Callable[[Connection], Sequence[Transition]], at: datetime
) -> list[Transition]:
    """Write transitions and their messages in one transaction."""
    with ledger.write_alone() as connection:
        transitions = list(changes(connection))
        write_transitions_in(connection, transitions)
        deliveries = deliveries_of_look(settings, transitions, at)
        insert_new(connection, alert_deliveries, [vars(delivery) for delivery in deliveries])
    return transitions
