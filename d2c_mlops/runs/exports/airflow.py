"""Airflow: a DAG per group of jobs, for Airflow 2.10 and later and 3."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from d2c_mlops.runs.exports.export_parts import (
    ExportContext,
    ExportTarget,
    dependent_groups,
    head_comment,
    job_description,
)
from d2c_mlops.runs.exports.start_times import MINUTE, fields_text, start_times
from d2c_mlops.runs.schedule.cadence import Cadence
from d2c_mlops.runs.schedule.jobs import Job

SAID = (
    "",
    "Put this file into the DAG folder. The workers need d2c on their path, the project's folder, and D2C_LEDGER_URL naming",
    "a database that all of them can reach. Jobs that share a cadence and depend on each other are tasks of one DAG; for",
    "dependencies in other DAGs, d2c waits. Airflow retries temporary failures only; the delay between attempts is",
    "that of Airflow or of the ledger, whichever is longer. A manual run uses the latest slot before it; a finished slot is not repeated.",
    "missed = all uses Airflow's catchup, from the day of the export on; skip and once disable it: only the latest slot runs.",
    "If Airflow interprets a cadence differently, or one expression is not enough, d2c is started more often, and",
    "the ledger decides whether a slot is due.",
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

TASK = """    {variable} = PythonOperator(
        task_id={name!r},
        python_callable=run,
        op_kwargs={{"job": {name!r}, "slot": {slot!r}}},
        retries={retries},
        retry_delay=timedelta(seconds={backoff:g}),
        retry_exponential_backoff=True,
        execution_timeout=timedelta(seconds={timeout:g}),
        priority_weight={priority},
        max_active_tis_per_dag=1,
        trigger_rule={rule!r},
    )
"""


LOGICAL_DATE = "{{ (dag_run.logical_date or dag_run.run_after).isoformat() }}"


def files(jobs: Mapping[str, Job], context: ExportContext) -> dict[str, str]:
    """Return a file with the DAGs."""
    groups = dependent_groups(jobs)
    head = head_comment([*SAID, *(line for group in groups for job in group for line in ("", *job_description(job)))])
    parts = [head, IMPORTS.format(root=str(context.root), command=shlex.split(context.command))]
    return {"d2c_dags.py": "".join([*parts, *(_dag_source(group, context) for group in groups)])}


def _dag_source(group: list[Job], context: ExportContext) -> str:
    last = group[-1]
    start = context.made_at.astimezone(last.cadence.zone)
    cron, slot = (
        airflow_cron_expression(last.cadence, context),
        LOGICAL_DATE if is_airflow_supported(last.cadence) else "due",
    )
    dag = DAG.format(
        dag_id=f"d2c_{last.name}",
        description=", ".join(f"{job.name}: {job.settings.run}" for job in group),
        cron=cron,
        zone=last.settings.zone,
        start=f"{start.year}, {start.month}, {start.day}",
        catchup=any(job.settings.missed == "all" for job in group),
    )
    for job in group:
        options = job.settings
        dag += TASK.format(
            variable=_variable(job.name),
            name=job.name,
            # d2c itself judges what a task waits for that also runs after a failure
            rule="all_done" if options.after_end else "all_success",
            slot=slot,
            retries=options.retries,
            backoff=options.backoff,
            # waiting for another attempt's turn, or for what comes first, may take as long as a run
            timeout=2 * options.timeout + options.backoff * 2**options.retries,
            priority=max(1, 1 + options.priority),
        )
    names = {job.name for job in group}
    edges = [(dependency, job.name) for job in group for dependency in job.settings.preceding if dependency in names]
    return dag + "".join(f"    {_variable(first)} >> {_variable(then)}\n" for first, then in edges)


def _variable(name: str) -> str:
    return name.replace(".", "__")


def is_airflow_supported(cadence: Cadence) -> bool:
    """Return whether Airflow's croniter gives the same slots: it does not support LW and 5L, combines a date and a weekday with a
    star differently, and repeats hours of the clock only for hourly jobs."""
    _, hour, date, _, day = cadence.lines[0].split()
    either = date != "*" and day != "*" and (date.startswith("*") or day.startswith("*"))
    partly = cadence.follows_clock and hour != "*"
    names = "W" in date or day.endswith("L")
    return len(cadence.lines) == 1 and not either and not partly and not names


def airflow_cron_expression(cadence: Cadence, context: ExportContext) -> str:
    """Return the cron expression with which Airflow must start a job."""
    if is_airflow_supported(cadence):
        return cadence.cron
    moments = start_times(cadence, cadence.zone, context.made_at)
    return fields_text([moments[MINUTE], None, None, None, None]) if cadence.follows_clock else fields_text(moments)


TARGET = ExportTarget("airflow", "a DAG per group of jobs", files)
