"""The whole way on real data: raw sales lines in, a served forecast out, one report of it all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from d2c_mlops.data.ingestion.ingest import ingest
from d2c_mlops.data.tables import Tables
from d2c_mlops.demo.asking import ask, same
from d2c_mlops.demo.report import write
from d2c_mlops.demo.revival import available, revival
from d2c_mlops.errors import Temporary
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.contract import to_records
from d2c_mlops.models.core.model import Model
from d2c_mlops.models.forecasting.forecasting import DemandForecaster
from d2c_mlops.registry.promotion_history import live
from d2c_mlops.registry.versions import Version, load_version
from d2c_mlops.runs.execution.execute import run
from d2c_mlops.serving.local.server import free_port, serving
from d2c_mlops.serving.package.bento import package
from d2c_mlops.serving.rollout.promotion import promote
from d2c_mlops.settings import Settings

MODEL, DATASET, SOURCE = "demand", "sample", "sample"
ASKED = 200  # records sent to the service
Say = Callable[[str, str, float], None]  # step, what came of it, seconds
Progress = Callable[[dict[str, Any]], None]


@dataclass
class Story:
    """What the demo did, for the report and for `--json`."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def step(self, title: str, say: Say) -> Iterator[list[str]]:
        """Time a step; what it appends to the list is told."""
        start, told = time.monotonic(), list[str]()
        yield told
        seconds = time.monotonic() - start
        self.steps.append({"step": title, "result": "; ".join(told), "seconds": round(seconds, 2)})
        say(title, "; ".join(told), seconds)


def demo(settings: Settings, say: Say, progress: Progress) -> Story:
    """Walk the whole way; every step is the call that its command makes. Running it again is safe."""
    story = Story()
    with story.step("ingest", say) as told:
        data = ingest(SOURCE, DATASET, store=settings.store, created_at=datetime.now(UTC))
        lines = data.manifest.tables["order_lines"].rows
        told.append(f"{lines:,} order lines, {'written' if data.changed else 'unchanged'}")
    with story.step("train", say) as told:
        trained = run("train", {"model": MODEL, "data": DATASET}, settings, progress=progress)
        told.append(f"run {trained.id}, version {trained.recorded['version']}")
    with story.step("promote", say) as told:
        _promote(settings, trained.recorded["version"])
        version = live(Ledger.of(settings), MODEL)
        told += [f"version {version.version} is champion", compared(version)]
    with story.step("package", say) as told:
        bento = package(version, settings)
        told.append(bento.tag + ("" if bento.made else ", was there already"))
    model = load_version(version, settings)
    assert isinstance(model, DemandForecaster)
    tables = Tables.open(settings.store, DATASET, version.inputs[0]["digest"])
    frame = model.contract.check_inputs(model.records(tables, date.fromisoformat(version.as_of)))
    records = questions(model, frame)
    with ExitStack() as stack:
        with story.step("serve", say) as told:
            server = stack.enter_context(serving(bento, settings, port=free_port()))
            told.append(server.url)
        with story.step("ask", say) as told:
            answer = ask(server.url, records)
            told.append(same(model, records, answer))
    with story.step("report", say) as told:
        shown = max(range(len(records)), key=lambda i: answer["predictions"][i]["forecast"] or 0)
        story.facts = {
            "asked": records[shown],
            "answered": answer["predictions"][shown],
            "store": str(settings.store),
            "dataset": str(settings.store / "data" / DATASET),
            "run": trained.outputs,
            "bento": str(bento.folder),
            "version": version.to_dict(),
        }
        story.facts["report"] = str(write(report_path(settings), story.steps, story.facts, model, frame))
        told.append(story.facts["report"])
    if missing := available():
        say("old notebook", f"left out: {missing}", 0.0)
    else:
        story.facts["old_notebook"] = revival(settings, lambda title: story.step(f"old: {title}", say), progress)
    return story


def compared(version: Version) -> str:
    """Say how a version does beside its baselines."""
    score = version.score
    beside = ", ".join(f"{name} {value:.3f}" for name, value in score.baselines.items())
    return f"{score.metric} {score.value:.3f} against {beside}"


def questions(model: Model, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return records to ask a service about, as JSON values, spread over all that one could ask."""
    chosen = frame.iloc[:: max(1, len(frame) // ASKED)].head(ASKED)
    return to_records(model.contract.input_fields, chosen)


def _promote(settings: Settings, number: int, tries: int = 5) -> None:
    """Promote; when another process moved the champion in between, look again."""
    for left in reversed(range(tries)):
        try:
            promote(MODEL, settings, number=number, reason="demo: the gate agreed")
            return
        except Temporary:
            if not left:
                raise


def report_path(settings: Settings) -> Path:
    """Return where the report lies."""
    return settings.store / "reports" / "demo.html"
