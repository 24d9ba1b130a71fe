"""Alerts, their events and the messages about them, as rows of the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import date, datetime
from typing import Any

from sqlalchemy import Connection, or_, select, update

from d2c_mlops.errors import UsageError
from d2c_mlops.ledger.schema import alert_deliveries, alert_events, alerts
from d2c_mlops.ledger.store import Ledger, insert_new
from d2c_mlops.monitoring.alerts import Alert, Signal, Transition

SINGLE = tuple(f.name for f in fields(Alert) if f.name != "signals")  # columns with the name of the field


@dataclass(frozen=True)
class Delivery:
    """A message about alerts to a channel."""

    id: str
    alerts: Sequence[str]
    place: str
    channel: str
    title: str
    text: str
    status: str
    created_at: datetime
    not_before: datetime
    digest: bool
    digest_id: str | None = None
    attempts: int = 0
    sent_at: datetime | None = None
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the delivery as JSON values; times are UTC."""
        return {name: _json_value(value) for name, value in asdict(self).items()}


def alert_dict(alert: Alert) -> dict[str, Any]:
    """Return an alert as JSON values; times are UTC."""
    return {
        **{name: _json_value(getattr(alert, name)) for name in SINGLE},
        "models": list(alert.models),
        "since": alert.since.isoformat(),
        "signals": [_signal_dict(signal) for signal in alert.signals],
    }


def open_alerts_in(connection: Connection, closed_since: datetime | None = None) -> list[Alert]:
    """Return the open alerts, and those that were closed since a moment, oldest first."""
    is_open = alerts.c.open_key.is_not(None)
    condition = is_open if closed_since is None else or_(is_open, alerts.c.closed_at >= closed_since)
    query = select(alerts).where(condition).order_by(alerts.c.opened_at, alerts.c.id)
    return [_alert(row._mapping) for row in connection.execute(query)]


def write_transitions_in(connection: Connection, transitions: Sequence[Transition]) -> None:
    """Write what happened to alerts: their rows, and an event for each recorded transition."""
    for change in transitions:
        values = _alert_values(change.alert)
        if not insert_new(connection, alerts, [values]):
            connection.execute(update(alerts).where(alerts.c.id == change.alert.id).values(values))
    events = [
        {
            "alert_id": change.alert.id,
            "at": change.at,
            "kind": change.kind,
            "severity": change.alert.severity,
            "by": change.by,
            "note": change.note,
        }
        for change in transitions
        if change.recorded
    ]
    if events:
        connection.execute(alert_events.insert(), events)


def find_alerts(ledger: Ledger, model: str | None = None, every: bool = False, limit: int = 100) -> list[Alert]:
    """Return the open alerts, or all, newest first; of one model, with those of no single model, if one is given."""
    query = select(alerts).order_by(alerts.c.opened_at.desc(), alerts.c.id)
    if not every:
        query = query.where(alerts.c.open_key.is_not(None))
    rows: list[Alert] = []
    with ledger.read() as connection:
        for row in connection.execute(query):
            models = row.models
            if model is None or model in models or not models:
                rows.append(_alert(row._mapping))
                if len(rows) == limit:
                    break
    return rows


def find_alert(ledger: Ledger, start: str) -> Alert:
    """Return the alert whose id begins with a text. Raises UsageError if there is none, or more than one."""
    with ledger.read() as connection:
        return find_alert_in(connection, start)


def find_alert_in(connection: Connection, start: str) -> Alert:
    """Return the alert whose id begins with a text, read by a connection."""
    condition = alerts.c.id.startswith(start, autoescape=True)
    rows = connection.execute(select(alerts).where(condition).limit(2)).all() if start else []
    if len(rows) != 1:
        what = f"{len(rows)} or more alerts begin with {start!r}" if rows else f"there is no alert {start!r}"
        raise UsageError(what, next="`d2c alerts --all` lists the ids")
    return _alert(rows[0]._mapping)


def events_of_alert(ledger: Ledger, id: str) -> list[dict[str, Any]]:
    """Return the history of an alert, oldest first, as JSON values."""
    query = select(alert_events).where(alert_events.c.alert_id == id).order_by(alert_events.c.id)
    with ledger.read() as connection:
        rows = connection.execute(query).all()
    return [
        {"at": row.at.isoformat(), "kind": row.kind, "severity": row.severity, "by": row.by, "note": row.note}
        for row in rows
    ]


def find_deliveries(ledger: Ledger, alert: str | None = None, status: str | None = None) -> list[Delivery]:
    """Return the messages, oldest first; about one alert, or of one status, if it is given."""
    query = select(alert_deliveries).order_by(alert_deliveries.c.created_at, alert_deliveries.c.id)
    if status is not None:
        query = query.where(alert_deliveries.c.status == status)
    with ledger.read() as connection:
        rows = [Delivery(**row._mapping) for row in connection.execute(query)]
    return [row for row in rows if alert is None or alert in row.alerts]


def _alert_values(alert: Alert) -> dict[str, Any]:
    return {
        **{name: getattr(alert, name) for name in SINGLE},
        "open_key": None if alert.status == "closed" else alert.key,
        "models": list(alert.models),
        "signals": [_signal_dict(signal) for signal in alert.signals],
    }


def _alert(row: Mapping[Any, Any]) -> Alert:
    signals = tuple(
        Signal(
            **values
            | {
                "breached_at": datetime.fromisoformat(values["breached_at"]),
                "since": date.fromisoformat(values["since"]) if values["since"] else None,
            }
        )
        for values in row["signals"]
    )
    return Alert(signals=signals, **{name: row[name] for name in SINGLE})


def _signal_dict(signal: Signal) -> dict[str, Any]:
    return {name: _json_value(value) for name, value in asdict(signal).items()}


def _json_value(value: Any) -> Any:
    return value.isoformat() if isinstance(value, date) else value
