"""A look on record: what a monitor finds, the alerts that follow, and their messages."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import date

from sqlalchemy import select

from d2c_mlops.errors import D2CError
from d2c_mlops.ledger.schema import promotions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.operations.alert_rows import find_alerts
from d2c_mlops.operations.alerts import observe_breaches
from d2c_mlops.operations.delivery import try_to_deliver
from d2c_mlops.operations.health_metrics import write_health_metrics
from d2c_mlops.operations.heartbeat import MONITOR, heartbeat
from d2c_mlops.operations.monitor import ModelHealth, breaches_of, monitor_model
from d2c_mlops.registry.promotion_history import champion_at_time
from d2c_mlops.settings import Settings


def models_with_champion(settings: Settings) -> list[str]:
    """Return the models that have a champion, in alphabetical order."""
    ledger = Ledger.of(settings)
    with ledger.read() as connection:
        names = [row.model for row in connection.execute(select(promotions.c.model).distinct())]
    return sorted(name for name in names if champion_at_time(ledger, name) is not None)


def look_at(model: str, settings: Settings, as_of: date | None = None, alerts: bool = True) -> ModelHealth:
    """Look at a model; open, update or close its alerts, send their messages, write its metrics, and give the monitor's heartbeat.

    A look at a day of the past (`as_of`), or without `alerts`, writes nothing.
    """
    if not alerts or as_of is not None:
        return monitor_model(model, settings, as_of)
    ledger = Ledger.of(settings)
    try:
        health = monitor_model(model, settings)
    except D2CError as err:
        heartbeat(ledger, settings, MONITOR, model, ok=False, note=err.what)
        raise
    breaches, judged = breaches_of(health)
    observe_breaches(ledger, settings, breaches, judged, health.at)
    try_to_deliver(ledger, settings)
    counts = Counter(alert.severity for alert in find_alerts(ledger, model))
    note = ""
    try:
        write_health_metrics(settings, health, counts)
    except OSError as err:
        note = f"the metrics of {model} have no text file: {err.strerror}: {err.filename}"
        print(f"warning: {note}", file=sys.stderr)
    heartbeat(ledger, settings, MONITOR, model, note=note)
    return health
