"""A look on record: what a monitor finds, the alerts that follow, and their messages."""

from __future__ import annotations

from contextlib import suppress
from datetime import date

from sqlalchemy import select

from d2c_mlops.errors import Temporary
from d2c_mlops.ledger.schema import promotions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.operations.alerts import observe_breaches
from d2c_mlops.operations.delivery import deliver
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
    """Look at a model, and open, update or close its alerts and send their messages.

    A look at a day of the past (`as_of`) changes no alert.
    """
    health = monitor_model(model, settings, as_of)
    if alerts and as_of is None:
        ledger = Ledger.of(settings)
        breaches, judged = breaches_of(health)
        observe_breaches(ledger, settings, breaches, judged, health.at)
        with suppress(Temporary):  # another process is sending; what is due is sent by the next delivery
            deliver(ledger, settings)
    return health
