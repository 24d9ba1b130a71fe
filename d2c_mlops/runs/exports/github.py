"""GitHub Actions: a workflow per group of jobs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

import yaml

from d2c_mlops.runs.exports.export_parts import (
    ExportContext,
    ExportTarget,
    dependent_groups,
    due_command,
    head_comment,
    job_description,
    longest_seconds,
)
from d2c_mlops.runs.exports.start_times import fields_text, start_times
from d2c_mlops.runs.schedule.jobs import Job

SAID = (
    "",
    "The ledger and the store must persist between runners: secrets D2C_LEDGER_URL (a database that runners can reach) and D2C_STORE",
    "(a folder of a self-hosted runner, or a mounted one). GitHub's clock is UTC and often late by minutes: the job starts",
    "at both offsets of the zone, the ledger decides which slot is due, and a slot counts as missed after --grace seconds (3600).",
    "Put these files into .github/workflows/. GitHub starts no job more often than every five minutes and stops schedules of",
    "a repository without activity for 60 days. It does not retry: --stay retries within the job.",
)
HOSTED = 360  # minutes that GitHub allows a job


def files(jobs: Mapping[str, Job], context: ExportContext) -> dict[str, str]:
    """Return a workflow for each group of jobs that share a cadence and depend on each other."""
    contents = {}
    for group in dependent_groups(jobs):
        head = head_comment([*SAID, *(line for job in group for line in ("", *job_description(job)))])
        contents[f"d2c-{group[-1].name}.yml"] = head + yaml.safe_dump(
            workflow_of_jobs(group, context), sort_keys=False, width=120
        )
    return contents


def workflow_of_jobs(group: list[Job], context: ExportContext) -> dict[str, Any]:
    """Return the workflow of a group of jobs."""
    cron = fields_text(start_times(group[0].cadence, ZoneInfo("UTC"), context.made_at))
    return {
        "name": f"d2c {group[-1].name}",
        "on": {"schedule": [{"cron": cron}], "workflow_dispatch": {}},
        "permissions": {"contents": "read"},
        "concurrency": {"group": f"d2c-{group[-1].name}", "cancel-in-progress": False},
        "jobs": {job_id(job.name): _workflow_job(job, group, context) for job in group},
    }


def job_id(name: str) -> str:
    """Return a job's name as an identifier, which may have no dot."""
    return name.replace(".", "__")


def _workflow_job(job: Job, group: list[Job], context: ExportContext) -> dict[str, Any]:
    members = {member.name for member in group}
    needs = [job_id(dependency) for dependency in job.settings.preceding if dependency in members]
    minutes = min(HOSTED, math.ceil((longest_seconds(job) + job.settings.timeout) / 60))
    return {
        **({"needs": needs} if needs else {}),
        **({"if": "${{ !cancelled() }}"} if job.settings.after_end else {}),  # d2c itself judges what it waits for
        "runs-on": "ubuntu-latest",
        "timeout-minutes": minutes,
        "env": {name: f"${{{{ secrets.{name} }}}}" for name in ("D2C_LEDGER_URL", "D2C_STORE")},
        "steps": [
            {"uses": "actions/checkout@v4"},
            {"uses": "actions/setup-python@v5", "with": {"python-version": "3.11", "cache": "pip"}},
            {"run": "python -m pip install -r requirements.txt", "shell": "bash"},
            {"run": due_command(job, context, "--stay"), "shell": "bash"},
        ],
    }


TARGET = ExportTarget("github-actions", "a workflow per group of jobs", files)
