"""Which version answered a key at a time: from logged predictions, else computed from the history of rollouts."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import select

from d2c_mlops.errors import UsageError
from d2c_mlops.ledger.schema import by_callers, predictions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.contract import Contract
from d2c_mlops.registry import promotion_history
from d2c_mlops.registry.versions import find_version
from d2c_mlops.serving.predict.privacy import keyed_pseudonym
from d2c_mlops.serving.rollout import rollout_history
from d2c_mlops.serving.state_paths import log_secret
from d2c_mlops.settings import Settings


@dataclass(frozen=True)
class Answerer:
    """A version that answered a key, or would have answered it."""

    at: datetime  # of the prediction; start time if it is computed
    version: int | None  # None while no version was live
    variant: str
    how: str  # logged, or computed from the history if no prediction was logged
    prediction_id: str | None = None
    outputs: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"at": self.at.isoformat()}


def versions_of_key(model: str, key: str, settings: Settings, start: datetime, end: datetime) -> list[Answerer]:
    """Return the versions that answered a key between two times: from logged predictions, else computed with start times."""
    ledger = Ledger.of(settings)
    contract = find_version(ledger, model).schema
    rollout_history.record_aborts(ledger, model, settings)
    return logged_answerers(ledger, model, key, contract, settings, start, end) or computed_answerers(
        ledger, model, key, settings, start, end
    )


def logged_answerers(
    ledger: Ledger, model: str, key: str, contract: Contract, settings: Settings, start: datetime, end: datetime
) -> list[Answerer]:
    """Return the logged predictions for callers, without those of shadows and probes."""
    text: str | None = key
    if any(field.personal for field in contract.output_fields if field.name == contract.key):
        secret = log_secret(settings)
        text = keyed_pseudonym(key, secret.encode()) if secret else None
    if text is None:
        return []
    conditions = (
        predictions.c.model == model,
        predictions.c.key == text,
        predictions.c.variant != "shadow",
        by_callers(predictions),
    )
    when = (predictions.c.at >= start, predictions.c.at <= end)
    query = select(predictions).where(*conditions, *when).order_by(predictions.c.at)
    with ledger.read() as connection:
        return [
            Answerer(row.at, row.version, row.variant, "logged", row.id, row.outputs)
            for row in connection.execute(query)
        ]


def computed_answerers(
    ledger: Ledger, model: str, key: str, settings: Settings, start: datetime, end: datetime
) -> list[Answerer]:
    """Return the versions that would have answered, by champions and rollouts of the time, with start times."""
    changes = [promotion.at for promotion in promotion_history.promotions_until(ledger, model)] + [
        event.at for event in rollout_history.rollout_events(ledger, model)
    ]
    moments = [start, *sorted(moment for moment in changes if start < moment <= end)]
    answerers: list[Answerer] = []
    for moment in moments:
        version, variant = version_and_variant(ledger, model, key, settings, moment)
        if answerers and (answerers[-1].version, answerers[-1].variant) == (version, variant):
            continue
        answerers.append(Answerer(moment, version, variant, "computed"))
    return answerers


def version_and_variant(
    ledger: Ledger, model: str, key: str, settings: Settings, time: datetime
) -> tuple[int | None, str]:
    """Return the version and the variant that answer a key at a moment."""
    champion = promotion_history.champion_at_time(ledger, model, time)
    if champion is None:
        return None, "none"
    now = rollout_history.current_rollout(ledger, model, settings, time)
    if now is not None and now.in_progress and now.chooses(key):
        return now.challenger, "challenger"
    return champion.version, "champion"


def time_range(at: str | None, now: datetime) -> tuple[datetime, datetime]:
    """Return the requested time range: a whole day (UTC), or a day until a time. Raises UsageError."""
    try:
        moment = now if at is None else datetime.fromisoformat(at)
    except ValueError:
        raise UsageError(f"{at!r} is not a date", where="--at", next="write 2026-11-01 or 2026-11-01T12:00Z") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    start = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    return start, start + timedelta(days=1, microseconds=-1) if at is not None and len(at) == 10 else moment
