"""Runs 'Create Notebook Job' of JupyterLab like other runs: typed parameters, recorded, within limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
from jupyter_scheduler.exceptions import SchedulerError
from jupyter_scheduler.executors import DefaultExecutionManager
from jupyter_scheduler.models import CreateJob, CreateJobDefinition
from jupyter_scheduler.scheduler import Scheduler

from d2c_mlops.errors import UsageError
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution import output_storage
from d2c_mlops.runs.execution.execute import current_user, run
from d2c_mlops.runs.execution.run_rows import find_run
from d2c_mlops.runs.parameters.parameters import (
    Parameter,
    check_values,
    declared_parameters,
    default_text,
    load_notebook,
)
from d2c_mlops.settings import load_settings


class JobScheduler(Scheduler):  # type: ignore[misc]
    """jupyter-scheduler's scheduler, which refuses a new job if its parameters do not match the notebook."""

    def create_job(self, model: CreateJob) -> str:
        """Create a job and return its id. Raises SchedulerError, which the form shows."""
        if not model.job_definition_id:
            self._check_job(model)
        return str(super().create_job(model))

    def create_job_definition(self, model: CreateJobDefinition) -> str:
        """Create a job definition and return its id. Raises SchedulerError, which the form shows."""
        self._check_job(model)
        return str(super().create_job_definition(model))

    def _check_job(self, model: CreateJob | CreateJobDefinition) -> None:
        try:
            notebook = load_notebook(Path(self.root_dir) / model.input_uri)
            declared = declared_parameters(notebook, model.input_uri)
            check_values(declared, drop_blank_fields(declared, model.parameters or {}), model.input_uri)
        except UsageError as err:
            raise SchedulerError(str(err)) from None


def drop_blank_fields(declared: Sequence[Parameter], fields: Mapping[str, str]) -> dict[str, str]:
    """Return the parameters of a form without blank fields, for which the notebook's defaults are used."""
    texts = {parameter.name for parameter in declared if parameter.annotation == "str" and default_text(parameter)}
    return {name: value for name, value in fields.items() if value != "" or name in texts}


class RunManager(DefaultExecutionManager):  # type: ignore[misc]
    """jupyter-scheduler's execution manager for recorded runs; parameters are values, not code."""

    def execute(self) -> None:
        """Run the job's copy of the notebook and return the output notebook, even if a cell failed."""
        job = self.model
        settings = load_settings(Path(self.root_dir))
        declared = declared_parameters(load_notebook(Path(self.staging_paths["input"])))
        parameters = drop_blank_fields(declared, job.parameters or {})
        ledger = Ledger.of(settings)
        started: list[str] = []

        def on_event(event: dict[str, Any]) -> None:
            if event["event"] == "start":
                started.append(event["id"])

        try:
            run(
                self.staging_paths["input"],
                parameters,
                settings,
                ledger=ledger,
                progress=on_event,
                by=f"{current_user()} in JupyterLab",
            )
        finally:
            if started:
                self._copy_output(job, find_run(ledger, started[0]).outputs["notebook"])

    def _copy_output(self, job: Any, location: str) -> None:
        if output_storage.output_exists(location):
            self.add_side_effects_files(str(Path(self.staging_paths["input"]).parent))
            self.create_output_files(job, nbformat.reads(output_storage.read_output(location).decode(), as_version=4))  # type: ignore[no-untyped-call]
