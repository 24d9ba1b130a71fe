"""Airflow: a DAG per group of jobs, for Airflow 2.10 and later and 3."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from d2c_mlops.runs.exports.clock import MINUTE, text, wakes
from d2c_mlops.runs.exports.common import ExportTarget, Place, about, header, together
from d2c_mlops.runs.schedule.cadence import Cadence
from d2c_mlops.runs.schedule.jobs import Job

SAID = (
    "",
    "Put this file into the DAG folder. The workers need d2c on their path, the project's folder, and D2C_LEDGER_URL naming",
    "a database that all of them reach. Jobs that share a cadence and depend on each other are tasks of one DAG; for what",
    "comes first in another DAG, d2c waits. Airflow tries again after temporary failures only; the wait between attempts",
    "is the ledger's, whichever is longer. A run by hand means the latest slot before it: one that succeeded stays so.",
    "missed = all is Airflow's catchup, from the day of the export on; skip and once both are its absence: the latest only.",
    "A cadence that Airflow would read otherwise, or that no single expression says, wakes d2c a little more often, and",
    "the ledger says whether a slot is due.",
)

IMPORTS = """from __future__ import annotations

import subprocess
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from airflow.exceptions import AirflowException, AirflowFailException
from airflow.timetables.trigger import CronTriggerTimetable

try:  # Airflow 3
    from airflow.providers.standard.operators.python import PythonOperator
    from airflow.sdk import DAG
except ImportError:  # Airflow 2
    from airflow import DAG
    from airflow.operators.python import PythonOperator

ROOT = {root!r}
COMMAND = {command!r}
TEMPORARY = (75, 130, 137, 143)  # try again, or stopped from outside


def run(job: str, slot: str) -> None:
    \"\"\"Run a slot of a job; only a failure that may pass is tried again.\"\"\"
    with subprocess.Popen([*COMMAND, "run", job, "--slot", slot], cwd=ROOT) as process:
        try:
            code = process.wait()
        except BaseException:
            process.terminate()
            raise
    if code:
        kind = AirflowException if code % 256 in TEMPORARY or code < 0 else AirflowFailException
        raise kind(f"d2c ended with {{code}}; `d2c schedule why {{job}} {{slot}}` says more")

"""

DAG = """
with DAG(
    dag_id={dag_id!r},
    description={description!r},
    schedule=CronTriggerTimetable({cron!r}, timezone={zone!r}),
    start_date=datetime({start}, tzinfo=ZoneInfo({zone!r})),
    catchup={catchup},
    max_active_runs=1,
    tags=["d2c"],
):
"""

TASK = """    {name} = PythonOperator(
        task_id={name!r},
        python_callable=run,
        op_kwargs={{"job": {name!r}, "slot": {slot!r}}},
        retries={retries},
        retry_delay=timedelta(seconds={backoff:g}),
        retry_exponential_backoff=True,
        execution_timeout=timedelta(seconds={timeout:g}),
        priority_weight={priority},
        max_active_tis_per_dag=1,
    )
"""


LOGICAL_DATE = "{{ (dag_run.logical_date or dag_run.run_after).isoformat() }}"


def files(jobs: Mapping[str, Job], place: Place) -> dict[str, str]:
    """Return a file with the DAGs."""
    groups = together(jobs)
    said = header([*SAID, *(line for group in groups for job in group for line in ("", *about(job)))])
    parts = [said, IMPORTS.format(root=str(place.root), command=shlex.split(place.command))]
    return {"d2c_dags.py": "".join([*parts, *(_dag(group, place) for group in groups)])}


def _dag(group: list[Job], place: Place) -> str:
    last = group[-1]
    start = place.made_at.astimezone(last.cadence.zone)
    cron, slot = expression(last.cadence, place), LOGICAL_DATE if understood(last.cadence) else "due"
    dag = DAG.format(
        dag_id=f"d2c_{last.name}",
        description=", ".join(f"{job.name}: {job.settings.run}" for job in group),
        cron=cron,
        zone=last.settings.zone,
        start=f"{start.year}, {start.month}, {start.day}",
        catchup=any(job.settings.missed == "all" for job in group),
    )
    for job in group:
        each = job.settings
        dag += TASK.format(
            name=job.name,
            slot=slot,
            retries=each.retries,
            backoff=each.backoff,
            # waiting for another attempt's turn, or for what comes first, may take as long as a run
            timeout=2 * each.timeout + each.backoff * 2**each.retries,
            priority=max(1, 1 + each.priority),
        )
    names = {job.name for job in group}
    edges = [(other, job.name) for job in group for other in job.settings.after if other in names]
    return dag + "".join(f"    {first} >> {then}\n" for first, then in edges)


def understood(cadence: Cadence) -> bool:
    """Return whether Airflow's croniter gives the same slots: it knows no LW and no 5L, a date and a weekday of which one
    has a star mean either to it, and it repeats the hours of the clock only for jobs of every hour."""
    _, hour, date, _, day = cadence.lines[0].split()
    either = date != "*" and day != "*" and (date.startswith("*") or day.startswith("*"))
    partly = cadence.follows_clock and hour != "*"
    names = "W" in date or day.endswith("L")
    return len(cadence.lines) == 1 and not either and not partly and not names


def expression(cadence: Cadence, place: Place) -> str:
    """Return the cron expression at whose times Airflow has to wake a job."""
    if understood(cadence):
        return cadence.cron
    moments = wakes(cadence, cadence.zone, place.made_at)
    return text([moments[MINUTE], None, None, None, None]) if cadence.follows_clock else text(moments)


TARGET = ExportTarget("airflow", "a DAG per group of jobs", files)
