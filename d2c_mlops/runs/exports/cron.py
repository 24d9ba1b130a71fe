"""A crontab."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from zoneinfo import ZoneInfo

from d2c_mlops.runs.exports.export_parts import ExportContext, ExportTarget, due_command, head_comment, job_description
from d2c_mlops.runs.exports.start_times import MINUTE, fields_text, start_times
from d2c_mlops.runs.schedule.jobs import Job

SAID = (
    "",
    "Many crons do not support time zones, so each line starts d2c at every hour at which a slot may be due, on any machine whose",
    "clock differs from UTC by whole hours; the ledger decides whether a slot is due. This also catches up after the machine was",
    "off. --stay retries within the process, since cron does not retry; the timeout of settings.ini ends a run.",
    "Install: crontab FILE. The output of d2c is mailed to MAILTO or written to the system's log.",
)


def files(jobs: Mapping[str, Job], context: ExportContext) -> dict[str, str]:
    """Return a crontab with a line per job."""
    lines = [head_comment(SAID), "SHELL=/bin/sh\n", "PATH=/usr/local/bin:/usr/bin:/bin\n"]
    for job in jobs.values():
        lines += ["\n", *(f"# {line}\n" for line in job_description(job))]
        wake_times = start_times(job.cadence, ZoneInfo("UTC"), context.made_at, after_skipped_hour=False)
        hourly = fields_text([wake_times[MINUTE], None, None, None, None])
        command = f"cd {shlex.quote(str(context.root))} && {due_command(job, context, '--stay')}".replace("%", r"\%")
        lines.append(f"{hourly} {command}\n")
    return {"crontab": "".join(lines)}


TARGET = ExportTarget("cron", "a crontab", files)
