"""What is known now about the training of a model: champion, runs, open alerts, rows of its dataset, expected loss."""

from __future__ import annotations

from datetime import date, datetime, timedelta

from sqlalchemy import func, select

from d2c_mlops.data.manifest import Manifest, read_manifest
from d2c_mlops.errors import D2CError
from d2c_mlops.ledger.schema import runs
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.forecasting.periods import LENGTH, freq_of
from d2c_mlops.monitoring.retraining import OpenIncident, RetrainingPolicy, RetrainingState, default_retrain
from d2c_mlops.operations.alert_rows import find_alerts
from d2c_mlops.operations.live_answers import is_forecast
from d2c_mlops.operations.retraining.expected_loss import expected_loss
from d2c_mlops.registry.promotion_history import Promotion, promotions_until
from d2c_mlops.registry.versions import Version, all_versions
from d2c_mlops.settings import Settings
from d2c_mlops.settings.parsing import parse_age

RUNBOOK = "train"
METRICS = ("drift", "accuracy", "confidence")  # whose alerts a new version may close
DAY = 86_400.0
LONGEST_CHANGE = timedelta(days=180)  # after which a change is not learned again


def configured_policy(model: str, settings: Settings) -> RetrainingPolicy:
    """Return when a model is retrained, by [model:NAME] retrain and retrain_after; never without a setting."""
    section = settings.model(model)
    text = section.retrain.strip().lower() or "never"
    return RetrainingPolicy.parse(
        default_retrain(section.contract) if text == "default" else text, parse_age(section.retrain_after) / DAY
    )


def known_state(model: str, settings: Settings, now: datetime) -> RetrainingState:
    """Return what is known about the training of a model at this moment; the expected loss if its policy asks for it."""
    ledger = Ledger.of(settings)
    versions = all_versions(ledger, model)
    live = next(reversed(promotions_until(ledger, model, now)), None)
    champion = next((version for version in versions if live and version.version == live.version), None)
    newest = versions[0] if versions else None
    name = settings.model(model).data
    is_priced = configured_policy(model, settings).on_expected_loss
    loss = expected_loss(champion, RUNBOOK, settings, now) if champion is not None and is_priced else None
    return RetrainingState(
        data_until=date.fromisoformat(champion.as_of) if champion else None,
        trained_at=_training_began(ledger, newest) if newest else None,
        started_at=_last_start(ledger, model),
        incidents=tuple(_incidents(ledger, model, live, now)),
        rows_then=_rows_of_version(newest, name, settings) if newest else None,
        rows_now=_rows(name, settings),
        loss_without=loss.without if loss else None,
        loss_with=loss.after_training if loss else None,
        loss_error=loss.error if loss else 0.0,
        training_cost=loss.training_cost if loss else None,
        answers_until=_answers_until(champion),
        horizon_days=_horizon_days(champion),
    )


def _horizon_days(champion: Version | None) -> float:
    """Return how many days after its training a champion has answers for; 0 = without an end."""
    if champion is None or not is_forecast(champion.schema):
        return 0.0
    return float(champion.schema.horizon * LENGTH[freq_of(champion.schema.frequency)])


def _answers_until(champion: Version | None) -> date | None:
    days = _horizon_days(champion)
    return date.fromisoformat(champion.as_of) + timedelta(days=days) if champion is not None and days else None


def _incidents(ledger: Ledger, model: str, live: Promotion | None, now: datetime) -> list[OpenIncident]:
    """Return the open alerts about the champion, and the dated changes of others; an alert that was there before the champion counts from its promotion on."""
    incidents, dated = [], list[OpenIncident]()
    for alert in find_alerts(ledger, model, every=True, limit=1000):
        every = [signal for signal in alert.signals if signal.model == model and signal.metric in METRICS]
        signals = [signal for signal in every if signal in alert.breached]
        opened_at = alert.reopened_at or alert.opened_at
        since = min((signal.since for signal in every if signal.since), default=None)
        is_open = alert.status != "closed"
        if is_open and any(live is None or signal.version in (None, live.version) for signal in signals):
            incidents.append(OpenIncident(alert.key, max(opened_at, live.at) if live else opened_at, since))
        if since is not None and now.date() - since <= LONGEST_CHANGE:
            dated.append(OpenIncident(alert.key, opened_at, since, is_open=False))
    return [incident for incident in (*incidents, *dated) if incident.opened_at <= now]


def _training_began(ledger: Ledger, version: Version) -> datetime:
    with ledger.read() as connection:
        started: datetime | None = connection.execute(
            select(runs.c.started_at).where(runs.c.id == version.run_id)
        ).scalar()
    return started or version.created_at


def _last_start(ledger: Ledger, model: str) -> datetime | None:
    query = select(func.max(runs.c.started_at)).where(runs.c.model == model, runs.c.runbook == RUNBOOK)
    with ledger.read() as connection:
        started: datetime | None = connection.execute(query).scalar()
    return started


def _rows_of_version(version: Version, name: str, settings: Settings) -> int | None:
    digest = next((dataset["digest"] for dataset in version.inputs if dataset["name"] == name), None)
    return _rows(name, settings, digest) if digest else None


def _rows(name: str, settings: Settings, digest: str | None = None) -> int | None:
    """Return the rows of a dataset as it is, or as it was; None where it is not in the store any more."""
    try:
        manifest: Manifest = read_manifest(settings.store, name, digest)
    except D2CError:
        return None
    return sum(table.rows for table in manifest.tables.values())
