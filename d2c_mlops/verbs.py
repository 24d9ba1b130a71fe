"""Python functions for the commands, for notebooks: same names, same errors."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from d2c_mlops.convert.check.check import check
from d2c_mlops.data.ingestion.ingest import IngestResult
from d2c_mlops.data.ingestion.ingest import ingest as _ingest
from d2c_mlops.data.sources.files import FileFormat
from d2c_mlops.decisions.apply import now_utc
from d2c_mlops.decisions.cycle import CycleReport, configured_policies, run_cycle
from d2c_mlops.decisions.decision_rows import Decision, find_decision
from d2c_mlops.decisions.decision_rows import list_decisions as _list_decisions
from d2c_mlops.decisions.decision_statistics import DecisionStats
from d2c_mlops.decisions.decision_statistics import decision_stats as _decision_stats
from d2c_mlops.decisions.policy import Policy
from d2c_mlops.decisions.verdicts import decide as _decide
from d2c_mlops.errors import UsageError
from d2c_mlops.forgetting.forget import ForgetReport
from d2c_mlops.forgetting.forget import forget as _forget
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.monitoring.alerts import Alert
from d2c_mlops.operations.alert_rows import find_alerts
from d2c_mlops.operations.alerts import acknowledge_alert, advance_alerts
from d2c_mlops.operations.alerts import close_alert as _close_alert
from d2c_mlops.operations.alerts import snooze_alert as _snooze_alert
from d2c_mlops.operations.delivery import DeliveryReport, deliver, try_to_deliver
from d2c_mlops.operations.look import look_at
from d2c_mlops.operations.monitor import ModelHealth
from d2c_mlops.operations.replay.report import ReplayReport
from d2c_mlops.operations.replay.simulation import POLICIES, PolicyReplayOptions, replay_model
from d2c_mlops.operations.retraining.retrain import RetrainingLook
from d2c_mlops.operations.retraining.retrain import retrain as _retrain
from d2c_mlops.operations.watch import Arrival
from d2c_mlops.operations.watch import watch as _watch
from d2c_mlops.parallel import use_backend
from d2c_mlops.registry.gate import Clause
from d2c_mlops.registry.promotion_history import Promotion, live_version
from d2c_mlops.registry.versions import Version, find_version
from d2c_mlops.runs.execution.execute import run as _run
from d2c_mlops.runs.execution.run_rows import Run
from d2c_mlops.serving.batch.parquet_folder import is_parts_sink, score_parts
from d2c_mlops.serving.batch.score import BatchResult
from d2c_mlops.serving.batch.score import score as _score
from d2c_mlops.serving.local.loadtest import LoadResult
from d2c_mlops.serving.local.loadtest import loadtest as _loadtest
from d2c_mlops.serving.local.server import Server, free_port, serve_bento
from d2c_mlops.serving.package.bento import Bento
from d2c_mlops.serving.package.bento import package_model_version as _package
from d2c_mlops.serving.package.container import Image
from d2c_mlops.serving.package.container import containerize as _containerize
from d2c_mlops.serving.rollout.promotion import promote as _promote
from d2c_mlops.serving.rollout.promotion import rollback as _rollback
from d2c_mlops.serving.rollout.rollout_commands import abort_rollout as _abort
from d2c_mlops.serving.rollout.rollout_commands import challenger_to_package as _challenger
from d2c_mlops.serving.rollout.rollout_commands import promote_challenger as _finish
from d2c_mlops.serving.rollout.rollout_commands import start_rollout as _rollout
from d2c_mlops.serving.rollout.rollout_history import share_rollout
from d2c_mlops.serving.rollout.rollout_status import RolloutStatus
from d2c_mlops.serving.rollout.rollout_status import rollout_status as _standing
from d2c_mlops.serving.rollout.version_lookup import Answerer, time_range
from d2c_mlops.serving.rollout.version_lookup import versions_of_key as _served
from d2c_mlops.settings import Settings, load_settings

__all__ = [
    "ack_alert",
    "check",
    "close_alert",
    "containerize",
    "decide",
    "decision_stats",
    "deliver_alerts",
    "forget",
    "ingest",
    "list_alerts",
    "list_decisions",
    "loadtest",
    "monitor",
    "package",
    "promote",
    "replay",
    "retrain",
    "rollback",
    "rollout",
    "run",
    "run_decisions",
    "score",
    "serve",
    "served",
    "snooze_alert",
    "watch",
]


def ingest(
    source: str,
    name: str,
    *,
    layout: str | None = None,
    encoding: str = "",  # of text files; default for these three: detected from the files
    decimal: str = "",  # "." or ","
    dates: str = "",  # "dmy", "mdy" or "ymd"
    replace: str = "period",  # which rows of an existing dataset: those of the period that is read, only the same orders, or all
    zone: str | None = None,  # time zone of the shop; default: that of settings.ini, else that of the times
    planned: Sequence[str] = (),  # columns of a sales file that are known ahead; default: those of settings.ini
    settings: Settings | None = None,
) -> IngestResult:
    """Read a source into the canonical tables of dataset `name`; see `d2c ingest`."""
    resolved = settings or load_settings()
    zone, planned = zone or resolved.dataset_zone(name), planned or resolved.planned_columns(name)
    form = FileFormat(encoding, decimal, dates)
    now = datetime.now(UTC)
    return _ingest(
        source,
        name,
        store=resolved.store,
        layout=layout,
        file_format=form,
        replace=replace,
        zone=zone,
        planned=planned,
        created_at=now,
    )


def forget(
    customer: str,  # a customer_id or a lead_id
    *,
    also: Sequence[str] = (),  # further identifiers, such as e-mail addresses
    dataset: Sequence[str] = (),  # datasets in which the identifiers are valid; default: all
    erase: bool = False,  # remove rows instead of replacing identifiers by pseudonyms
    yes: bool = False,  # apply the changes; otherwise nothing is changed
    by: str | None = None,  # default: the current user
    settings: Settings | None = None,
) -> ForgetReport:
    """Erase or pseudonymise the data of a customer in the store; see `d2c forget`."""
    return _forget(customer, settings or load_settings(), also=also, dataset=dataset, erase=erase, yes=yes, by=by)


def run(
    notebook: str | Path, *, timeout: float | None = None, settings: Settings | None = None, **parameters: Any
) -> Run:
    """Run a runbook or a notebook with `parameters` and record the run; see `d2c run`."""
    return _run(str(notebook), parameters, settings or load_settings(), timeout=timeout)


def promote(
    model: str,
    *,
    version: int | None = None,
    override: bool = False,
    by: str | None = None,
    reason: str = "",
    settings: Settings | None = None,
) -> tuple[Promotion | None, list[Clause]]:
    """Make a version champion if it passes the gate; see `d2c promote`."""
    return _promote(model, settings or load_settings(), number=version, override=override, by=by, reason=reason)


def rollback(
    model: str, *, to: int | None = None, by: str | None = None, reason: str = "", settings: Settings | None = None
) -> Promotion:
    """Roll back to a former champion; see `d2c rollback`."""
    return _rollback(model, settings or load_settings(), number=to, by=by, reason=reason)


def rollout(
    model: str,
    *,
    percent: float | None = None,
    shadow: bool = False,
    promote: bool = False,
    abort: bool = False,
    version: int | None = None,
    begin: bool = False,
    override: bool = False,
    by: str | None = None,
    reason: str = "",
    settings: Settings | None = None,
) -> RolloutStatus:
    """Route a share of the keys to a challenger, promote or end it, or return the status of the rollout; see `d2c rollout`."""
    resolved = settings or load_settings()
    if sum((percent is not None, shadow, promote, abort)) > 1:
        raise UsageError("use only one of percent, shadow, promote and abort", where="rollout")
    if begin and not (shadow or percent is not None):
        raise UsageError("begin goes with percent or shadow", where="rollout")
    if promote:
        return _finish(model, resolved, by=by, reason=reason, override=override)
    if abort:
        return _abort(model, resolved, by=by, reason=reason)
    if shadow or percent is not None:
        share = None if percent is None else percent / 100
        return _rollout(model, resolved, share=share, shadow=shadow, number=version, by=by, reason=reason, begin=begin)
    return _standing(model, resolved)


def served(model: str, key: str, *, at: str | None = None, settings: Settings | None = None) -> list[Answerer]:
    """Return which versions answered a key on a day (default: today): logged, or computed from the history; see `d2c served`."""
    return _served(model, key, settings or load_settings(), *time_range(at, datetime.now(UTC)))


def package(
    model: str,
    *,
    version: int | None = None,
    challenger: int | str | None = None,  # a version, or "alias" for the registry's alias `challenger`
    settings: Settings | None = None,
) -> Bento:
    """Build the Bento of the champion or of a version, with the challenger of a rollout; see `d2c package`."""
    resolved = settings or load_settings()
    return _package(
        _find_version(model, version, resolved), resolved, _packaged_challenger(model, version, challenger, resolved)
    )


def containerize(
    model: str,
    *,
    version: int | None = None,
    tag: str = "",
    backend: str = "",
    base: str = "",
    settings: Settings | None = None,
) -> Image:
    """Build a container image of the champion's Bento or of a version's; see `d2c package --containerize`."""
    resolved = settings or load_settings()
    version_ = _find_version(model, version, resolved)
    return _containerize(
        package(model, version=version, settings=resolved), version_, resolved, tag=tag, backend=backend, base=base
    )


def loadtest(
    model: str,
    *,
    version: int | None = None,
    seconds: float = 10.0,
    connections: int = 8,
    settings: Settings | None = None,
) -> LoadResult:
    """Measure the throughput and memory of the champion's service or of a version's; see `d2c loadtest`."""
    resolved = settings or load_settings()
    version_ = _find_version(model, version, resolved)
    return _loadtest(
        package(model, version=version, settings=resolved), version_, resolved, seconds=seconds, connections=connections
    )


def serve(
    model: str,
    *,
    version: int | None = None,
    challenger: int | str | None = None,
    port: int | None = None,
    workers: int | None = None,
    settings: Settings | None = None,
) -> AbstractContextManager[Server]:
    """Serve the champion or a version during the `with` block; default: on a free port."""
    resolved = settings or load_settings()
    bento = _package(
        _find_version(model, version, resolved), resolved, _packaged_challenger(model, version, challenger, resolved)
    )
    return serve_bento(bento, resolved, port=port or free_port(), workers=workers)


def score(
    model: str,
    source: str | None,  # None: what the model itself names: all series, all customers, all open leads
    sink: str,
    *,
    version: int | None = None,
    reasons: bool = False,
    encoding: str = "",
    decimal: str = "",
    dates: str = "",
    settings: Settings | None = None,
) -> BatchResult:
    """Predict every record of `source` and write the predictions to `sink`; see `d2c score`."""
    resolved = settings or load_settings()
    both = share_rollout(Ledger.of(resolved), model, resolved) if version is None else None
    form, registered = FileFormat(encoding, decimal, dates), _find_version(model, version, resolved)
    if source is not None and is_parts_sink(sink):
        return score_parts(registered, source, sink, resolved, reasons=reasons, rollout_and_challenger=both)
    return _score(
        registered,
        source,
        sink,
        resolved,
        file_format=form,
        reasons=reasons,
        rollout_and_challenger=both,
    )


def monitor(
    model: str, *, as_of: date | None = None, alerts: bool = True, settings: Settings | None = None
) -> ModelHealth:
    """Look at a live model: seven metrics and two drifts; see `d2c monitor`."""
    return look_at(model, settings or load_settings(), as_of, alerts)


def retrain(model: str, *, dry_run: bool = False, settings: Settings | None = None) -> RetrainingLook:
    """Retrain a model if its policy has a reason, or continue the retraining that is open; see `d2c retrain`."""
    return _retrain(model, settings or load_settings(), dry_run=dry_run)


def replay(
    model: str,
    *,
    policies: Sequence[str] = (),  # default: eleven usual ones
    start: date | None = None,
    end: date | None = None,
    step: int = 0,  # days between two looks; 0: a period of the forecast
    horizon: int = 0,  # periods after a look whose outcomes are priced; 0: those until the next look
    training_cost: float = 1.0,
    settings: Settings | None = None,
) -> ReplayReport:
    """Replay a model's history under retraining policies, and recommend one; see `d2c replay`."""
    resolved = settings or load_settings()
    options = PolicyReplayOptions(tuple(policies) or POLICIES, start, end, step, horizon, training_cost)
    with use_backend(resolved.backend):
        return replay_model(model, resolved, options)


def run_decisions(model: str | None = None, *, settings: Settings | None = None) -> list[CycleReport]:
    """Create decisions from predictions, apply deadlines and apply due decisions; see `d2c decisions run`."""
    resolved = settings or load_settings()
    return run_cycle(Ledger.of(resolved), resolved, model)


def list_decisions(
    model: str | None = None, *, status: str | None = "pending", limit: int = 100, settings: Settings | None = None
) -> list[Decision]:
    """Return decisions, newest first; of any status if `status` is None; see `d2c decisions list`."""
    statuses = None if status is None else [status]
    return _list_decisions(Ledger.of(settings or load_settings()), None if model is None else [model], statuses, limit)


def decide(
    id: str,
    action: str,  # approve, reject or edit
    *,
    value: Any = None,  # the value to apply instead, for edit
    by: str | None = None,  # default: the current user
    reason: str = "",
    settings: Settings | None = None,
) -> Decision:
    """Approve, reject or edit a decision; see `d2c decisions approve`, `reject` and `edit`."""
    resolved = settings or load_settings()
    ledger = Ledger.of(resolved)
    policy = Policy.of(find_decision(ledger, id).model, resolved)
    who = by or getpass.getuser()
    return _decide(ledger, policy, id, action, decider=who, now=now_utc(), value=value, reason=reason, channel="call")[
        0
    ]


def decision_stats(model: str, *, days: float = 30.0, settings: Settings | None = None) -> DecisionStats:
    """Return the time from prediction to action and the share applied automatically; see `d2c decisions stats`."""
    resolved = settings or load_settings()
    configured_policies(resolved, model)
    return _decision_stats(Ledger.of(resolved), model, now_utc(), timedelta(days=days))


def list_alerts(
    model: str | None = None, *, every: bool = False, limit: int = 100, settings: Settings | None = None
) -> list[Alert]:
    """Return the open alerts, or all if `every`, newest first; see `d2c alerts`."""
    return find_alerts(Ledger.of(settings or load_settings()), model, every, limit)


def ack_alert(id: str, *, note: str = "", by: str | None = None, settings: Settings | None = None) -> Alert:
    """Acknowledge an alert, so that it is not escalated; see `d2c alerts ack`."""
    resolved = settings or load_settings()
    return acknowledge_alert(Ledger.of(resolved), resolved, id, by or getpass.getuser(), note)


def snooze_alert(
    id: str, until: datetime, *, note: str = "", by: str | None = None, settings: Settings | None = None
) -> Alert:
    """Send no messages about an alert until a time with a time zone, unless it gets worse; see `d2c alerts snooze`."""
    resolved = settings or load_settings()
    if until.tzinfo is None:
        raise UsageError(f"{until} has no time zone", where="until", next="use datetime(…, tzinfo=UTC)")
    return _snooze_alert(Ledger.of(resolved), resolved, id, until.astimezone(UTC), by or getpass.getuser(), note)


def close_alert(id: str, reason: str, *, by: str | None = None, settings: Settings | None = None) -> Alert:
    """Close an alert with a reason and send the messages that are due; see `d2c alerts close`."""
    resolved = settings or load_settings()
    ledger = Ledger.of(resolved)
    alert = _close_alert(ledger, resolved, id, by or getpass.getuser(), reason)
    try_to_deliver(ledger, resolved)
    return alert


def deliver_alerts(*, settings: Settings | None = None) -> DeliveryReport:
    """Send the messages about alerts that are due; see `d2c alerts deliver`."""
    resolved = settings or load_settings()
    ledger = Ledger.of(resolved)
    advance_alerts(ledger, resolved)
    return deliver(ledger, resolved)


def watch(
    *, max_age: timedelta = timedelta(hours=26), parts: Sequence[str] = (), settings: Settings | None = None
) -> list[Arrival]:
    """Check that scheduler, monitors, predictions and data keep arriving; see `d2c alerts watch`.

    Raises DataRefused if one of them is older than `max_age`, after an alert was sent.
    """
    return _watch(settings or load_settings(), max_age, parts)


def _find_version(model: str, number: int | None, settings: Settings) -> Version:
    ledger = Ledger.of(settings)
    return find_version(ledger, model, number) if number is not None else live_version(ledger, model)


def _packaged_challenger(
    model: str, version: int | None, challenger: int | str | None, settings: Settings
) -> Version | None:
    """Return the challenger to package with the champion; None if only a version was named."""
    if version is not None and challenger is None:
        return None
    return _challenger(Ledger.of(settings), model, settings, challenger)
