"""Kubernetes: a CronJob per job."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import yaml

from d2c_mlops.runs.exports.export_parts import (
    FINAL,
    ExportContext,
    ExportTarget,
    due_command,
    head_comment,
    job_description,
    longest_seconds,
)
from d2c_mlops.runs.exports.start_times import cron_expression
from d2c_mlops.runs.schedule.jobs import Job

SAID = (
    "",
    "The ledger must be a database that all pods can reach: Secret d2c-environment with D2C_LEDGER_URL, and any other D2C_",
    "setting or secret. The store is the volume claim d2c-store, mounted at /store. You must create both, and the",
    "image: the project's folder with settings.ini is its working directory, and d2c is on its path.",
    "Kubernetes has no order between CronJobs and does not run in a skipped hour: d2c waits for dependencies,",
    "and a schedule may start a job more often than its cadence; then nothing is due. Retries come from",
    "backoffLimit, after temporary failures and kills only; a pod that is evicted does not count as one.",
)
SKIPPED, CAUGHT_UP = 600, 14 * 24 * 3600  # seconds for which Kubernetes still starts what it missed


def files(jobs: Mapping[str, Job], context: ExportContext) -> dict[str, str]:
    """Return a manifest per job."""
    return {
        f"{kubernetes_name(job)}.yaml": head_comment([*SAID, "", *job_description(job)])
        + yaml.safe_dump(cronjob_manifest(job, context), sort_keys=False)
        for job in jobs.values()
    }


def kubernetes_name(job: Job) -> str:
    """Return a job's name as Kubernetes allows it; a CronJob's may have 52 characters."""
    return f"d2c-{job.name.replace('_', '-').replace('.', '--')}"[:52].rstrip("-")


def cronjob_manifest(job: Job, context: ExportContext) -> dict[str, Any]:
    """Return the CronJob of a job."""
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {"name": kubernetes_name(job), "labels": _job_labels(job)},
        "spec": {
            "schedule": cron_expression(job.cadence, job.cadence.zone, context.made_at),
            "timeZone": job.settings.zone,
            "concurrencyPolicy": "Forbid",
            "startingDeadlineSeconds": SKIPPED if job.settings.missed == "skip" else CAUGHT_UP,
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 3,
            "jobTemplate": {
                "spec": {
                    "backoffLimit": job.settings.retries,
                    "activeDeadlineSeconds": longest_seconds(job) + int(job.settings.timeout),
                    "ttlSecondsAfterFinished": 7 * 24 * 3600,
                    "podFailurePolicy": {
                        "rules": [
                            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                            {"action": "FailJob", "onExitCodes": {"operator": "In", "values": list(FINAL)}},
                        ]
                    },
                    "template": {"metadata": {"labels": _job_labels(job)}, "spec": _pod_template(job, context)},
                }
            },
        },
    }


def _job_labels(job: Job) -> dict[str, str]:
    return {"app.kubernetes.io/name": "d2c", "app.kubernetes.io/component": kubernetes_name(job)}


def _pod_template(job: Job, context: ExportContext) -> dict[str, Any]:
    container = {
        "name": "d2c",
        "image": context.image,
        "command": shlex.split(due_command(job, context)),
        "env": [{"name": "D2C_STORE", "value": "/store"}],
        "envFrom": [{"secretRef": {"name": "d2c-environment"}}],
        "volumeMounts": [{"name": "store", "mountPath": "/store"}],
        "resources": {"requests": {"cpu": "500m", "memory": "1Gi"}},
    }
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 60,
        "containers": [container],
        "volumes": [{"name": "store", "persistentVolumeClaim": {"claimName": "d2c-store"}}],
    }


TARGET = ExportTarget("kubernetes", "a CronJob per job", files)
