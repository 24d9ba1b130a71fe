"""Runs 'Create Notebook Job' of JupyterLab like any other run: typed parameters, on record, within limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
from jupyter_scheduler.executors import DefaultExecutionManager

from ..ledger.store import Ledger
from ..settings import load
from . import outputs
from .execute import run
from .records import find


class RunManager(DefaultExecutionManager):  # type: ignore[misc]
    """jupyter-scheduler's execution manager with our run in it; parameters are values here, not code."""

    def execute(self) -> None:
        """Run the job's copy of the notebook and hand the output notebook back, also when a cell failed."""
        job = self.model
        settings = load(Path(self.root_dir))
        ledger = Ledger.of(settings)
        started: list[str] = []

        def hear(event: dict[str, Any]) -> None:
            if event["event"] == "start":
                started.append(event["id"])

        try:
            run(self.staging_paths["input"], job.parameters or {}, settings, ledger=ledger, progress=hear)
        finally:
            if started:
                self._hand_back(job, find(ledger, started[0]).outputs["notebook"])

    def _hand_back(self, job: Any, location: str) -> None:
        if outputs.exists(location):
            self.add_side_effects_files(str(Path(self.staging_paths["input"]).parent))
            self.create_output_files(job, nbformat.reads(outputs.read(location).decode(), as_version=4))  # type: ignore[no-untyped-call]
