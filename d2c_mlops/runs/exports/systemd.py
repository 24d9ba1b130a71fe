"""systemd: a service and a timer per job."""

from __future__ import annotations

from collections.abc import Mapping
from zoneinfo import ZoneInfo

from d2c_mlops.runs.exports.export_parts import (
    FINAL,
    START,
    ExportContext,
    ExportTarget,
    due_command,
    head_comment,
    job_description,
)
from d2c_mlops.runs.exports.start_times import DATE, DAY, HOUR, MINUTE, MONTH, Fields, start_times
from d2c_mlops.runs.schedule.jobs import Job

DAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat")
SAID = (
    "",
    "Install: cp d2c-* /etc/systemd/system/ && systemctl daemon-reload && systemctl enable --now d2c-JOB.timer",
    "Retries come from Restart=, after temporary failures only; the ledger sets the delay between them.",
)

SERVICE = """[Unit]
Description=d2c job {name}
{order}StartLimitIntervalSec={window}
StartLimitBurst={attempts}

[Service]
Type=oneshot
WorkingDirectory={root}
# secrets and [d2c] settings from the environment, such as D2C_LEDGER_URL
EnvironmentFile=-{root}/.env
ExecStart={command}
TimeoutStartSec={timeout}
Restart=on-failure
RestartSec={backoff:g}
RestartPreventExitStatus={final}
KillMode=mixed
"""

TIMER = """[Unit]
Description=When the d2c job {name} is due

[Timer]
{calendar}AccuracySec=1s
Persistent={persistent}

[Install]
WantedBy=timers.target
"""


def files(jobs: Mapping[str, Job], context: ExportContext) -> dict[str, str]:
    """Return the units of each job."""
    contents = {}
    for job in jobs.values():
        options, head = job.settings, head_comment([*SAID, "", *job_description(job)])
        window = (options.timeout + START) * (options.retries + 2) + options.backoff * 2**options.retries
        contents[f"d2c-{job.name}.service"] = head + SERVICE.format(
            name=job.name,
            order="".join(f"After=d2c-{dependency}.service\n" for dependency in options.preceding),
            window=int(window),
            attempts=options.retries + 1,
            root=str(context.root).replace("%", "%%"),
            command=due_command(job, context).replace("%", "%%"),
            # waiting for a forerunner or for another attempt's turn may take as long as a run
            timeout=int(2 * options.timeout + options.backoff * 2**options.retries + START),
            backoff=options.backoff,
            final=" ".join(map(str, FINAL)),
        )
        contents[f"d2c-{job.name}.timer"] = head + TIMER.format(
            name=job.name,
            calendar="".join(f"OnCalendar={line}\n" for line in calendar_events(job, context)),
            persistent="no" if options.missed == "skip" else "yes",
        )
    return contents


def calendar_events(job: Job, context: ExportContext) -> list[str]:
    """Return the calendar events of a job; two where cron means 'that date or that weekday'.

    systemd does not repeat a repeated hour, so jobs that follow the clock are started by UTC.
    """
    zone = ZoneInfo("UTC") if job.cadence.follows_clock else job.cadence.zone
    moments = start_times(job.cadence, zone, context.made_at)
    if moments[DATE] is None or moments[DAY] is None:
        return [_calendar_expression(moments, zone.key)]
    by_date, by_day = [*moments[:DAY], None], [*moments[:DATE], None, *moments[MONTH:]]
    return [_calendar_expression(by_date, zone.key), _calendar_expression(by_day, zone.key)]


def _calendar_expression(fields: Fields, zone: str) -> str:
    values = [
        ",".join(f"{v:02}" for v in sorted(values_of_field)) if values_of_field is not None else "*"
        for values_of_field in fields
    ]
    days = fields[DAY]
    weekdays = ",".join(DAYS[day] for day in sorted(days)) + " " if days is not None and len(days) < 7 else ""
    return f"{weekdays}*-{values[MONTH]}-{values[DATE]} {values[HOUR]}:{values[MINUTE]}:00 {zone}"


TARGET = ExportTarget("systemd", "a service and a timer per job", files)
