"""Command that starts JupyterLab: lab."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from d2c_mlops.cli import example, json_option, main, settings, show
from d2c_mlops.errors import UsageError

MANAGER = "d2c_mlops.runs.lab.job_manager.RunManager"
SCHEDULER = "d2c_mlops.runs.lab.job_manager.JobScheduler"
SERVER = "d2c_mlops.runs.lab.server_extension"
EXTENSIONS = Path(__file__).parents[1] / "runs" / "labextensions"


@example("d2c lab", "d2c lab -- --no-browser --port 8899")
@main.command()
@click.argument("more", nargs=-1, type=click.UNPROCESSED)
@json_option
def lab(more: tuple[str, ...], as_json: bool) -> None:
    """Start JupyterLab on the project, with 'Create Notebook Job' running through the ledger.

    The form of a job offers the notebook's own parameters with their defaults; those that do not fit are refused there.
    What is behind -- goes to JupyterLab. With --json, print the command and start nothing.
    """
    missing = [name for name in ("jupyterlab", "jupyter_scheduler") if find_spec(name) is None]
    if missing:
        raise UsageError(f"{' and '.join(missing)} cannot be imported", next="pip install 'd2c_mlops[lab]'")
    held = settings()
    held.store.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "jupyterlab",
        f"--ServerApp.root_dir={held.root}",
        f"--SchedulerApp.db_url=sqlite:///{held.store / 'lab.db'}",
        f"--SchedulerApp.scheduler_class={SCHEDULER}",
        f"--Scheduler.execution_manager_class={MANAGER}",
        f"--ServerApp.jpserver_extensions={SERVER}=True",
        f"--LabApp.extra_labextensions_path={EXTENSIONS}",
        *more,
    ]
    if as_json:
        return show({"command": command})
    os.execv(sys.executable, command)  # noqa: S606
