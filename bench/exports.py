"""Check what `d2c schedule export` writes with the targets' own tools: `make test-exports`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from aims import Aim, close

ROOT = Path(__file__).resolve().parents[1]
AIRFLOW = ROOT / ".bench/airflow/bin/python"
TOOLS = ROOT / ".bench/exports/bin"
KUBERNETES = ("1.31", "1.33")  # versions whose published schemas are asked
JOBS = """[d2c]
[schedule:train_demand]
run = nb.ipynb
at = weekly on Monday 02:30
zone = Europe/Berlin
params.day = {slot:%Y-%m-%d}
retries = 3
[schedule:score_demand]
run = nb.ipynb
at = weekly on Monday 02:30
zone = Europe/Berlin
after = train_demand
missed = skip
[schedule:month_end]
run = nb.ipynb
at = monthly on the last day 23:30
zone = America/New_York
missed = all
after = score_demand
[schedule:quick]
run = nb.ipynb
at = every 15 minutes
retries = 0
[schedule:date_or_day]
run = nb.ipynb
at = 15 6,18 13 * 5
zone = Asia/Kolkata
[schedule:ninety]
run = nb.ipynb
at = every 90 minutes
zone = America/New_York
[schedule:last_weekday]
run = nb.ipynb
at = 0 6 LW * *
[schedule:last_friday]
run = nb.ipynb
at = */30 6 * * 5L
"""
CELL = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": "day: str = ''", "outputs": [],
        "execution_count": None, "id": "a"}  # fmt: skip
# Imports the DAGs with Airflow itself, asks what it understood and when it would run them, and runs one task's callable.
ASK = """
import json, sys
from datetime import datetime, timezone
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(sys.argv[1])
told = {"errors": list(bag.import_errors.values())}
for name, dag in bag.dags.items():
    told[name] = {
        "tasks": {t.task_id: [t.retries, sorted(t.downstream_task_ids)] for t in dag.tasks},
        "zone": str(dag.timezone), "catchup": dag.catchup, "runs": dag.max_active_runs,
        "timetable": dag.timetable._expression,
    }
task = bag.dags["d2c_score_demand"].get_task("train_demand")
outcomes = []
for slot in ("ok", "temporary", "final"):
    try:
        task.python_callable("train_demand", slot)
        outcomes.append("done")
    except Exception as error:
        outcomes.append(type(error).__name__)
told["outcomes"] = outcomes
print("TOLD", json.dumps(told))
"""
FAKE = '#!/bin/sh\ncase "$4" in temporary) exit 75;; final) exit 3;; *) exit 0;; esac\n'


def call(*command: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run a tool and return what it said."""
    return subprocess.run([str(c) for c in command], capture_output=True, text=True, env={**os.environ, **more})


def export(folder: Path, target: str, *more: str) -> list[Path]:
    """Export the schedule of a project to a target."""
    out = folder / target
    command = [sys.executable, "-m", "d2c_mlops", "schedule", "export", "--to", target, "--out", str(out), *more]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return sorted(path for path in out.iterdir())


def airflow(folder: Path) -> Aim:
    """Import the DAGs with a real Airflow."""
    import json

    fake = folder / "fake-d2c"
    fake.write_text(FAKE)
    fake.chmod(0o755)
    export(folder, "airflow", "--command", str(fake))
    home = {"AIRFLOW_HOME": str(folder / "home"), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    call(AIRFLOW, "-m", "airflow", "db", "migrate", **home)
    done = call(AIRFLOW, "-c", ASK, folder / "airflow", **home)
    lines = [line for line in done.stdout.splitlines() if line.startswith("TOLD ")]
    if not lines:
        return Aim("Airflow imports the DAGs", done.stderr.strip()[-300:], False)
    told = json.loads(lines[0].removeprefix("TOLD "))
    right = (
        not told["errors"]
        and told["d2c_score_demand"]["tasks"] == {"train_demand": [3, ["score_demand"]], "score_demand": [2, []]}
        and told["d2c_score_demand"]["timetable"] == "30 2 * * 1"
        and not told["d2c_score_demand"]["catchup"]
        and told["d2c_month_end"]["catchup"]
        and told["d2c_month_end"]["zone"] == "America/New_York"
        and told["outcomes"] == ["done", "AirflowException", "AirflowFailException"]
    )
    version = call(AIRFLOW, "-c", "import airflow; print(airflow.__version__)", **home).stdout.strip()
    said = f"{len(told) - 2} DAGs by Airflow {version}, errors {told['errors']}, exit codes 0/75/3: {told['outcomes']}"
    return Aim("Airflow imports and parses the DAGs, retries what is temporary only", said, right)


def kubernetes(folder: Path) -> Aim:
    """Validate the manifests against the published schemas."""
    files, bad = export(folder, "kubernetes", "--image", "registry.example/shop:1"), []
    for version in KUBERNETES:
        done = call(TOOLS / "kubernetes-validate", "--strict", "-k", version, *files)
        bad += [done.stdout + done.stderr] if done.returncode else []
    broken = yaml.safe_load(files[0].read_text())
    broken["spec"]["shedule"] = broken["spec"].pop("schedule")
    (folder / "broken.yaml").write_text(yaml.safe_dump(broken))
    refused = (
        call(TOOLS / "kubernetes-validate", "--strict", "-k", KUBERNETES[-1], folder / "broken.yaml").returncode != 0
    )
    said = f"{len(files)} CronJobs for {', '.join(KUBERNETES)}; a broken one {'refused' if refused else 'passed'} {bad or ''}"
    return Aim("Kubernetes' published schemas accept the manifests", said.strip(), not bad and refused)


def systemd(folder: Path) -> Aim:
    """Verify the units, and compare the calendar with the ledger's slots."""
    files = export(folder, "systemd")
    done = call("systemd-analyze", "verify", *[f for f in files if f.suffix == ".timer"], *files)
    own = [line for line in done.stderr.splitlines() if "d2c" in line]
    calendars = [line.split("=", 1)[1] for f in files for line in f.read_text().splitlines() if "OnCalendar=" in line]
    unread = [c for c in calendars if call("systemd-analyze", "calendar", c).returncode]
    said = f"{len(files)} units, {len(calendars)} calendar events; said: {own + unread or 'nothing'}"
    return Aim("systemd-analyze verify accepts the units", said, done.returncode == 0 and not own and not unread)


def github(folder: Path) -> Aim:
    """Validate the workflows against their schema."""
    return workflows(export(folder, "github-actions"))


def workflows(files: list[Path]) -> Aim:
    """Return whether GitHub's schema accepts workflows, each job with a timeout."""
    done = call(TOOLS / "check-jsonschema", "--builtin-schema", "vendor.github-workflows", *files)
    timeouts = call(TOOLS / "check-jsonschema", "--builtin-schema", "custom.github-workflows-require-timeout", *files)
    said = f"{len(files)} workflows: {(done.stdout + done.stderr).strip().splitlines()[0]}"
    return Aim("the workflow schema accepts the workflows", said, done.returncode == timeouts.returncode == 0)


def cron(folder: Path) -> Aim:
    """Let cron itself read the crontab."""
    (file,) = export(folder, "cron")
    done = call("crontab", "-n", file)
    return Aim("cron reads the crontab", (done.stdout + done.stderr).strip() or "no complaint", done.returncode == 0)


def main() -> int:
    """Export a schedule with everything in it to every target and ask the targets."""
    import json

    with TemporaryDirectory(prefix="d2c-exports-") as name:
        folder = Path(name)
        (folder / "settings.ini").write_text(JOBS)
        content = {"cells": [CELL], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
        (folder / "nb.ipynb").write_text(json.dumps(content))
        return close([check(folder) for check in (airflow, kubernetes, systemd, github, cron)])


if __name__ == "__main__":
    sys.exit(main())
