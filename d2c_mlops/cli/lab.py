"""Command that starts JupyterLab: lab."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from d2c_mlops.cli import example, json_option, main, section, settings, show
from d2c_mlops.errors import UsageError

MANAGER = "d2c_mlops.runs.lab.job_manager.RunManager"
SCHEDULER = "d2c_mlops.runs.lab.job_manager.JobScheduler"
SERVER = "d2c_mlops.runs.lab.server_extension"
EXTENSIONS = Path(__file__).parents[1] / "runs" / "labextensions"


@example("d2c lab", "d2c lab -- --no-browser --port 8899")
@section("Start")
@main.command()
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@json_option
def lab(arguments: tuple[str, ...], as_json: bool) -> None:
    """Start JupyterLab on the project.

    'Create Notebook Job' records its runs in the ledger. The job form shows the notebook's parameters with their defaults and refuses invalid values.
    Arguments after -- go to JupyterLab. With --json, print the command and start nothing.
    """
    missing = [name for name in ("jupyterlab", "jupyter_scheduler") if find_spec(name) is None]
    if missing:
        raise UsageError(f"{' and '.join(missing)} cannot be imported", next="pip install 'd2c_mlops[lab]'")
    config = settings()
    config.store.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={config.root}",
        f"--SchedulerApp.db_url=sqlite:///{config.store / 'lab.db'}",
        f"--SchedulerApp.scheduler_class={SCHEDULER}",
        f"--Scheduler.execution_manager_class={MANAGER}",
        f"--ServerApp.jpserver_extensions={SERVER}=True",
        f"--LabApp.extra_labextensions_path={EXTENSIONS}",
        *arguments,
    ]
    if as_json:
        return show({"command": command})
    os.execv(sys.executable, command)  # noqa: S606
