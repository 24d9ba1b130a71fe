"""The channels of alerts: who is told by severity and model, without URLs in the ledger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from hashlib import sha256

from d2c_mlops.monitoring.alert_messages import QuietHours, alert_message, due_time, parse_time
from d2c_mlops.monitoring.alerts import Alert, Transition
from d2c_mlops.operations.alert_rows import Delivery
from d2c_mlops.settings import Settings
from d2c_mlops.settings.parsing import time_zone


@dataclass(frozen=True)
class AlertChannel:
    """An apprise URL of settings.ini, or a reference secret:NAME to one."""

    place: str  # section and position, such as `alerts notify 0`
    url: str

    @property
    def digest(self) -> str:
        """A digest of the URL, which may hold a password: the ledger stores this instead."""
        return sha256(self.url.encode()).hexdigest()[:16]


def all_channels(settings: Settings) -> list[AlertChannel]:
    """Return all channels of alerts."""
    models = [_listed(f"model:{name} notify", model.notify) for name, model in settings.models.items()]
    return [
        *_listed("alerts notify", settings.alerts.notify),
        *_listed("alerts notify_critical", settings.alerts.notify_critical),
        *(channel for channels in models for channel in channels),
    ]


def channels_of_alert(settings: Settings, alert: Alert, kind: str) -> list[AlertChannel]:
    """Return the channels of a transition of an alert: those of its models' owners, and of critical alerts.

    An escalation goes to those of critical alerts that have not had the alert yet.
    """
    owners: list[AlertChannel] = []
    for model in alert.models or ("",):
        urls = settings.models[model].notify if model in settings.models else ()
        owners += _listed(f"model:{model} notify", urls) or _listed("alerts notify", settings.alerts.notify)
    others = _listed("alerts notify_critical", settings.alerts.notify_critical)
    is_critical = "critical" in (alert.severity, alert.announced)
    if kind == "escalated":
        informed = {channel.url for channel in owners}
        return [] if is_critical else [channel for channel in others if channel.url not in informed]
    chosen = owners + (others if is_critical or alert.escalated_at is not None else [])
    return list({channel.url: channel for channel in reversed(chosen)}.values())[::-1]


def deliveries_of_look(settings: Settings, transitions: Sequence[Transition], now: datetime) -> list[Delivery]:
    """Return the messages about the announced transitions of a look: one to each channel and time of delivery."""
    zone = alert_zone(settings)
    quiet, digest = QuietHours.parse(settings.alerts.quiet, zone), parse_time(settings.alerts.digest)
    groups: dict[tuple[str, datetime], list[Transition]] = {}
    channels: dict[str, AlertChannel] = {}
    for change in transitions:
        if not change.announced:
            continue
        severity = (
            "critical" if "critical" in (change.alert.severity, change.alert.announced) else change.alert.severity
        )
        due = due_time(severity, now, quiet, digest)
        for channel in channels_of_alert(settings, change.alert, change.kind):
            channels[channel.digest] = channel
            groups.setdefault((channel.digest, due), []).append(change)
    return [_delivery(channels[channel], changes, now, due) for (channel, due), changes in groups.items()]


def alert_zone(settings: Settings) -> tzinfo:
    """Return the time zone of quiet hours."""
    return time_zone(settings.alerts.zone or settings.zone or "UTC")


def _delivery(channel: AlertChannel, changes: Sequence[Transition], now: datetime, due: datetime) -> Delivery:
    title, text = alert_message(changes)
    content = "\0".join([channel.digest, *(f"{c.alert.id} {c.kind} {c.at.isoformat()}" for c in changes)])
    return Delivery(
        id=sha256(content.encode()).hexdigest()[:16],
        alerts=[change.alert.id for change in changes],
        place=channel.place,
        channel=channel.digest,
        title=title,
        text=text,
        status="pending",
        created_at=now,
        not_before=due,
        digest=due > now,
    )


def _listed(place: str, urls: Sequence[str]) -> list[AlertChannel]:
    return [AlertChannel(f"{place} {number}", url) for number, url in enumerate(urls)]
