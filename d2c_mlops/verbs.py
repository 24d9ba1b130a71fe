"""The commands as calls, for notebooks: the same names, the same errors."""

from __future__ import annotations

import getpass
from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from d2c_mlops.convert.check.check import check
from d2c_mlops.data.ingestion.ingest import IngestResult
from d2c_mlops.data.ingestion.ingest import ingest as _ingest
from d2c_mlops.data.sources.files import FileFormat
from d2c_mlops.decisions.applying import now_utc
from d2c_mlops.decisions.deciding import decide as _decide
from d2c_mlops.decisions.policy import Policy
from d2c_mlops.decisions.records import Decision, find, listed
from d2c_mlops.decisions.stats import Stats, stats
from d2c_mlops.decisions.turn import Turn, policies, turn
from d2c_mlops.errors import UsageError
from d2c_mlops.forgetting.forget import Forgetting
from d2c_mlops.forgetting.forget import forget as _forget
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.registry.gate import Clause
from d2c_mlops.registry.promotion_history import Promotion, live
from d2c_mlops.registry.versions import Version, find_version
from d2c_mlops.runs.execution.execute import run as _run
from d2c_mlops.runs.execution.records import Run
from d2c_mlops.serving.batch.score import BatchResult
from d2c_mlops.serving.batch.score import score as _score
from d2c_mlops.serving.local.loadtest import Load
from d2c_mlops.serving.local.loadtest import loadtest as _loadtest
from d2c_mlops.serving.local.server import Server, free_port, serving
from d2c_mlops.serving.package.bento import Bento
from d2c_mlops.serving.package.bento import package as _package
from d2c_mlops.serving.package.container import Image
from d2c_mlops.serving.package.container import containerize as _containerize
from d2c_mlops.serving.rollout.commands import abort as _abort
from d2c_mlops.serving.rollout.commands import challenger as _challenger
from d2c_mlops.serving.rollout.commands import finish as _finish
from d2c_mlops.serving.rollout.commands import rollout as _rollout
from d2c_mlops.serving.rollout.history import beside
from d2c_mlops.serving.rollout.lookup import Answerer, moments
from d2c_mlops.serving.rollout.lookup import served as _served
from d2c_mlops.serving.rollout.promotion import promote as _promote
from d2c_mlops.serving.rollout.promotion import rollback as _rollback
from d2c_mlops.serving.rollout.status import Standing
from d2c_mlops.serving.rollout.status import standing as _standing
from d2c_mlops.settings import Settings, load

__all__ = [
    "check",
    "containerize",
    "decide",
    "decision_stats",
    "forget",
    "ingest",
    "list_decisions",
    "loadtest",
    "package",
    "promote",
    "rollback",
    "rollout",
    "run",
    "run_decisions",
    "score",
    "serve",
    "served",
]


def ingest(
    source: str,
    name: str,
    *,
    layout: str | None = None,
    encoding: str = "",  # of text files; these three are taken from the files where they are clear when not given
    decimal: str = "",  # "." or ","
    dates: str = "",  # "dmy", "mdy" or "ymd"
    replace: str = "period",  # of an existing dataset: rows of the period that is read, only the same orders, or all
    zone: str | None = None,  # time zone of the shop; settings.ini, else the times say which when not given
    settings: Settings | None = None,
) -> IngestResult:
    """Read a source into the canonical tables of dataset `name`; see `d2c ingest`."""
    held = settings or load()
    zone = zone or held.dataset_zone(name)
    form = FileFormat(encoding, decimal, dates)
    now = datetime.now(UTC)
    return _ingest(source, name, store=held.store, layout=layout, form=form, replace=replace, zone=zone, created_at=now)


def forget(
    customer: str,  # a customer_id or a lead_id
    *,
    also: Sequence[str] = (),  # further identifiers, such as e-mail addresses
    dataset: Sequence[str] = (),  # where the identifiers hold; all datasets when empty
    erase: bool = False,  # remove rows, instead of replacing identifiers by pseudonyms
    yes: bool = False,  # do it; without, nothing is changed
    by: str | None = None,  # the user of this machine when None
    settings: Settings | None = None,
) -> Forgetting:
    """Erase or pseudonymise a customer wherever the store keeps one; see `d2c forget`."""
    return _forget(customer, settings or load(), also=also, dataset=dataset, erase=erase, yes=yes, by=by)


def run(
    notebook: str | Path, *, timeout: float | None = None, settings: Settings | None = None, **parameters: Any
) -> Run:
    """Run a runbook or a notebook on record, with `parameters`; see `d2c run`."""
    return _run(str(notebook), parameters, settings or load(), timeout=timeout)


def promote(
    model: str,
    *,
    version: int | None = None,
    override: bool = False,
    by: str | None = None,
    reason: str = "",
    settings: Settings | None = None,
) -> tuple[Promotion | None, list[Clause]]:
    """Make a version champion when the gate agrees; see `d2c promote`."""
    return _promote(model, settings or load(), number=version, override=override, by=by, reason=reason)


def rollback(
    model: str, *, to: int | None = None, by: str | None = None, reason: str = "", settings: Settings | None = None
) -> Promotion:
    """Make a former champion live again; see `d2c rollback`."""
    return _rollback(model, settings or load(), number=to, by=by, reason=reason)


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
) -> Standing:
    """Let a challenger answer a share of the keys, promote or end it, or tell how it stands; see `d2c rollout`."""
    held = settings or load()
    if sum((percent is not None, shadow, promote, abort)) > 1:
        raise UsageError("use only one of percent, shadow, promote and abort", where="rollout")
    if begin and not (shadow or percent is not None):
        raise UsageError("begin goes with percent or shadow", where="rollout")
    if promote:
        return _finish(model, held, by=by, reason=reason, override=override)
    if abort:
        return _abort(model, held, by=by, reason=reason)
    if shadow or percent is not None:
        share = None if percent is None else percent / 100
        return _rollout(model, held, share=share, shadow=shadow, number=version, by=by, reason=reason, begin=begin)
    return _standing(model, held)


def served(model: str, key: str, *, at: str | None = None, settings: Settings | None = None) -> list[Answerer]:
    """Return what answered a key on a day (today when not given): logged, or computed from the history; see `d2c served`."""
    return _served(model, key, settings or load(), *moments(at, datetime.now(UTC)))


def package(
    model: str,
    *,
    version: int | None = None,
    challenger: int | str | None = None,  # a version, or "alias" for the one that the registry calls challenger
    settings: Settings | None = None,
) -> Bento:
    """Build the Bento of the champion, or of a version, with the challenger of a rollout beside it; see `d2c package`."""
    held = settings or load()
    return _package(_version(model, version, held), held, _packaged_challenger(model, version, challenger, held))


def containerize(
    model: str,
    *,
    version: int | None = None,
    tag: str = "",
    backend: str = "",
    base: str = "",
    settings: Settings | None = None,
) -> Image:
    """Build an image of the champion's Bento, or of a version's; see `d2c package --containerize`."""
    held = settings or load()
    found = _version(model, version, held)
    return _containerize(
        package(model, version=version, settings=held), found, held, tag=tag, backend=backend, base=base
    )


def loadtest(
    model: str,
    *,
    version: int | None = None,
    seconds: float = 10.0,
    connections: int = 8,
    settings: Settings | None = None,
) -> Load:
    """Measure what the champion's service, or a version's, takes; see `d2c loadtest`."""
    held = settings or load()
    found = _version(model, version, held)
    return _loadtest(
        package(model, version=version, settings=held), found, held, seconds=seconds, connections=connections
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
    """Serve the champion, or a version, while the `with` block lasts, on a free port when none is given."""
    held = settings or load()
    bento = _package(_version(model, version, held), held, _packaged_challenger(model, version, challenger, held))
    return serving(bento, held, port=port or free_port(), workers=workers)


def score(
    model: str,
    source: str,
    sink: str,
    *,
    version: int | None = None,
    reasons: bool = False,
    encoding: str = "",
    decimal: str = "",
    dates: str = "",
    settings: Settings | None = None,
) -> BatchResult:
    """Answer every record of `source` and write the answers to `sink`; see `d2c score`."""
    held = settings or load()
    both = beside(Ledger.of(held), model, held) if version is None else None
    form = FileFormat(encoding, decimal, dates)
    return _score(_version(model, version, held), source, sink, held, form=form, reasons=reasons, beside=both)


def run_decisions(model: str | None = None, *, settings: Settings | None = None) -> list[Turn]:
    """Make decisions of predictions, heed deadlines and apply what is due; see `d2c decisions run`."""
    held = settings or load()
    return turn(Ledger.of(held), held, model)


def list_decisions(
    model: str | None = None, *, status: str | None = "pending", limit: int = 100, settings: Settings | None = None
) -> list[Decision]:
    """Return decisions, the newest first; of any status when it is None; see `d2c decisions list`."""
    wanted = None if status is None else [status]
    return listed(Ledger.of(settings or load()), None if model is None else [model], wanted, limit)


def decide(
    id: str,
    action: str,  # approve, reject or edit
    *,
    value: Any = None,  # what is applied instead, for edit
    by: str | None = None,  # the user of this machine when None
    reason: str = "",
    settings: Settings | None = None,
) -> Decision:
    """Decide upon a prediction; see `d2c decisions approve`, `reject` and `edit`."""
    held = settings or load()
    ledger = Ledger.of(held)
    policy = Policy.of(find(ledger, id).model, held)
    who = by or getpass.getuser()
    return _decide(ledger, policy, id, action, by=who, now=now_utc(), value=value, reason=reason, how="call")[0]


def decision_stats(model: str, *, days: float = 30.0, settings: Settings | None = None) -> Stats:
    """Return how long it takes from prediction to action, and the share applied unasked; see `d2c decisions stats`."""
    held = settings or load()
    policies(held, model)
    return stats(Ledger.of(held), model, now_utc(), timedelta(days=days))


def _version(model: str, number: int | None, settings: Settings) -> Version:
    ledger = Ledger.of(settings)
    return find_version(ledger, model, number) if number is not None else live(ledger, model)


def _packaged_challenger(
    model: str, version: int | None, challenger: int | str | None, settings: Settings
) -> Version | None:
    """Return the challenger to package beside the champion; none beside a version that was named alone."""
    if version is not None and challenger is None:
        return None
    return _challenger(Ledger.of(settings), model, settings, challenger)
