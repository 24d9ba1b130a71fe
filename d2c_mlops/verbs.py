"""The commands as calls, for notebooks: the same names, the same errors."""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .convert.check import check
from .data.ingest import IngestResult
from .data.ingest import ingest as _ingest
from .ledger.store import Ledger
from .registry.gate import Clause
from .registry.promotions import Promotion, live
from .registry.promotions import promote as _promote
from .registry.promotions import rollback as _rollback
from .registry.versions import Version, find_version
from .runs.execute import run as _run
from .runs.records import Run
from .serving.batch import Scored
from .serving.batch import score as _score
from .serving.bento import Bento
from .serving.bento import package as _package
from .serving.server import Server, free_port, serving
from .settings import Settings, load

__all__ = ["check", "ingest", "package", "promote", "rollback", "run", "score", "serve"]


def ingest(source: str, name: str, *, layout: str | None = None, settings: Settings | None = None) -> IngestResult:
    """Read a source into the canonical tables of dataset `name`; see `d2c ingest`."""
    held = settings or load()
    return _ingest(source, name, store=held.store, layout=layout, created_at=datetime.now(UTC))


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


def package(model: str, *, version: int | None = None, settings: Settings | None = None) -> Bento:
    """Build the Bento of the champion, or of a version; see `d2c package`."""
    held = settings or load()
    return _package(_version(model, version, held), held)


def serve(
    model: str, *, version: int | None = None, port: int | None = None, settings: Settings | None = None
) -> AbstractContextManager[Server]:
    """Serve the champion, or a version, while the `with` block lasts, on a free port when none is given."""
    held = settings or load()
    return serving(_package(_version(model, version, held), held), held, port=port or free_port())


def score(
    model: str,
    source: str,
    sink: str,
    *,
    version: int | None = None,
    reasons: bool = False,
    settings: Settings | None = None,
) -> Scored:
    """Answer every record of `source` and write the answers to `sink`; see `d2c score`."""
    held = settings or load()
    return _score(_version(model, version, held), source, sink, held, reasons=reasons)


def _version(model: str, number: int | None, settings: Settings) -> Version:
    ledger = Ledger.of(settings)
    return find_version(ledger, model, number) if number is not None else live(ledger, model)
