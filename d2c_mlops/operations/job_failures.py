"""Failed jobs of the schedule as alerts: one message when a job fails, one when it succeeds again."""

from __future__ import annotations

from datetime import datetime

from d2c_mlops.ledger.store import Ledger
from d2c_mlops.monitoring.alerts import Breach, Transition
from d2c_mlops.operations.alert_rows import find_alerts
from d2c_mlops.operations.alerts import observe_breaches
from d2c_mlops.runs.execution import slot_rows
from d2c_mlops.runs.execution.slot_rows import Slot
from d2c_mlops.runs.schedule.cadence import parse_cadence
from d2c_mlops.settings import JobSettings, Settings

METRIC = "schedule"


def observe_jobs(ledger: Ledger, settings: Settings, now: datetime) -> list[Transition]:
    """Record the jobs whose latest ended slot failed, and those that succeeded again; return what happened.

    A job with channels of its own (`notify`) sends its failures there, and has no alert.
    """
    breaches, judged = [], set()
    for name, slots in slot_rows.list_all_slots(ledger, now).items():
        job = settings.jobs.get(name)
        latest = next((slot for slot in slots if slot.status in ("succeeded", "failed")), None)
        if job is None or job.notify or latest is None:
            continue
        model = job.params.get("model", "")
        judged.add((model, METRIC))
        if latest.status == "failed":
            breaches.append(_breach(job, latest, model))
    is_open = any(signal.pair in judged for alert in find_alerts(ledger, limit=1000) for signal in alert.signals)
    return observe_breaches(ledger, settings, breaches, judged, now) if breaches or is_open else []


def _breach(job: JobSettings, slot: Slot, model: str) -> Breach:
    local = slot.slot.astimezone(parse_cadence(job.at or "daily at 00:00", job.zone).zone)
    return Breach(
        model=model,
        metric=METRIC,
        cause=f"job {job.name}",
        severity="warning",
        message=f"the job {job.name} failed: {slot.reason.splitlines()[0] if slot.reason else 'no reason on record'}",
        advice=f"d2c schedule why {job.name} {local:%Y-%m-%dT%H:%M}",
        since=local.date(),
    )
