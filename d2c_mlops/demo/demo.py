"""The demo: from raw sales lines to a served forecast, with a report."""

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
from d2c_mlops.demo.http_check import compare_predictions, request_predictions
from d2c_mlops.demo.old_notebook import convert_old_notebook, missing_requirement
from d2c_mlops.demo.report import write_report
from d2c_mlops.errors import Temporary
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.contract import to_records
from d2c_mlops.models.core.model import Model
from d2c_mlops.models.forecasting.forecasting import DemandForecaster
from d2c_mlops.registry.promotion_history import live_version
from d2c_mlops.registry.versions import Version, load_version
from d2c_mlops.runs.execution.execute import run
from d2c_mlops.serving.local.server import free_port, serve_bento
from d2c_mlops.serving.package.bento import package_model_version
from d2c_mlops.serving.rollout.promotion import promote
from d2c_mlops.settings import Settings

MODEL, DATASET, SOURCE = "demand", "sample", "sample"
ASKED = 200  # records sent to the service
StepDone = Callable[[str, str, float], None]  # step, result, seconds
Progress = Callable[[dict[str, Any]], None]


@dataclass
class DemoResult:
    """Steps and facts of the demo, for the report and for `--json`."""

    steps: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @contextmanager
    def step(self, title: str, print_line: StepDone) -> Iterator[list[str]]:
        """Time a step; its result is the texts appended to the list."""
        start, notes = time.monotonic(), list[str]()
        yield notes
        seconds = time.monotonic() - start
        self.steps.append({"step": title, "result": "; ".join(notes), "seconds": round(seconds, 2)})
        print_line(title, "; ".join(notes), seconds)


def demo(settings: Settings, print_line: StepDone, progress: Progress) -> DemoResult:
    """Run the complete workflow; each step makes the same call as its command. It is safe to run it again."""
    story = DemoResult()
    with story.step("ingest", print_line) as notes:
        data = ingest(SOURCE, DATASET, store=settings.store, created_at=datetime.now(UTC))
        lines = data.manifest.tables["order_lines"].rows
        notes.append(f"{lines:,} order lines, {'written' if data.changed else 'unchanged'}")
    with story.step("train", print_line) as notes:
        trained = run("train", {"model": MODEL, "data": DATASET}, settings, progress=progress)
        notes.append(f"run {trained.id}, version {trained.recorded['version']}")
    with story.step("promote", print_line) as notes:
        _promote_version(settings, trained.recorded["version"])
        version = live_version(Ledger.of(settings), MODEL)
        notes += [f"version {version.version} is champion", score_text(version)]
    with story.step("package", print_line) as notes:
        bento = package_model_version(version, settings)
        notes.append(bento.tag + ("" if bento.made else ", exists already"))
    model = load_version(version, settings)
    assert isinstance(model, DemandForecaster)
    tables = Tables.open(settings.store, DATASET, version.inputs[0]["digest"])
    frame = model.contract.check_inputs(model.records(tables, date.fromisoformat(version.as_of)))
    records = sample_records(model, frame)
    with ExitStack() as stack:
        with story.step("serve", print_line) as notes:
            server = stack.enter_context(serve_bento(bento, settings, port=free_port()))
            notes.append(server.url)
        with story.step("ask", print_line) as notes:
            answer = request_predictions(server.url, records)
            notes.append(compare_predictions(model, records, answer))
    with story.step("report", print_line) as notes:
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
        story.facts["report"] = str(write_report(report_path(settings), story.steps, story.facts, model, frame))
        notes.append(story.facts["report"])
    if missing := missing_requirement():
        print_line("old notebook", f"skipped: {missing}", 0.0)
    else:
        story.facts["old_notebook"] = convert_old_notebook(
            settings, lambda title: story.step(f"old: {title}", print_line), progress
        )
    return story


def score_text(version: Version) -> str:
    """Return a version's metric and its baselines as text."""
    score = version.score
    beside = ", ".join(f"{name} {value:.3f}" for name, value in score.baselines.items())
    return f"{score.metric} {score.value:.3f} against {beside}"


def sample_records(model: Model, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return sample records for a service as JSON values, spread over all records."""
    chosen = frame.iloc[:: max(1, len(frame) // ASKED)].head(ASKED)
    return to_records(model.contract.input_fields, chosen)


def _promote_version(settings: Settings, number: int, tries: int = 5) -> None:
    """Promote; if another process has changed the champion in the meantime, try again."""
    for remaining in reversed(range(tries)):
        try:
            promote(MODEL, settings, number=number, reason="demo: passed the gate")
            return
        except Temporary:
            if not remaining:
                raise


def report_path(settings: Settings) -> Path:
    """Return the path of the report."""
    return settings.store / "reports" / "demo.html"
