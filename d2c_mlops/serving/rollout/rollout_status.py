"""Status of a rollout: the current stage, the workers on this machine, and statistics of the challenger."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from d2c_mlops.ledger.store import Ledger
from d2c_mlops.registry import promotion_history
from d2c_mlops.registry.gate import Clause
from d2c_mlops.registry.versions import find_version
from d2c_mlops.serving.rollout.rollout_history import (
    RolloutEvent,
    current_rollout,
    record_aborts,
    rollout_events,
    state_file_of,
)
from d2c_mlops.serving.rollout.state_file import BEAT, Rollout, host_id
from d2c_mlops.serving.rollout.variant_counters import rollout_statistics, sum_counts
from d2c_mlops.settings import Settings

PATIENCE = 4.0  # seconds to wait for running services


@dataclass
class RolloutStatus:
    """Status of a rollout and of the services on this machine."""

    model: str
    champion: int | None
    rollout: Rollout | None  # the last rollout; mode off when it has ended
    events: list[RolloutEvent]
    workers: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)  # counters of the workers in this stage
    seconds: float | None = None  # seconds until all workers followed
    gate: list[Clause] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    file: str = ""  # state file of the services; in a container set by D2C_SERVICE_ROLLOUT

    @property
    def in_progress(self) -> bool:
        """Whether a rollout is in progress."""
        return self.rollout is not None and self.rollout.in_progress

    @property
    def workers_behind(self) -> list[dict[str, Any]]:
        """The workers that do not follow the current stage yet."""
        now = self.rollout
        expected = (self.champion, now.challenger if now and now.in_progress else None, now.stage if now else "")
        return [
            worker for worker in self.workers if (worker["champion"], worker["challenger"], worker["stage"]) != expected
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return {
            "model": self.model, "champion": self.champion, "going": self.in_progress,
            "rollout": self.rollout.to_dict() if self.rollout else None, "figures": self.figures,
            "workers": len(self.workers), "behind": len(self.workers_behind), "seconds": self.seconds, "notes": self.notes, "file": self.file,
            "gate": [clause.to_dict() for clause in self.gate], "history": [event.to_dict() for event in self.events],
        }  # fmt: skip


def rollout_status(model: str, settings: Settings, *, wait: bool = False, notes: Sequence[str] = ()) -> RolloutStatus:
    """Return the status of a rollout; with `wait` after the services on this machine follow it, or after PATIENCE seconds."""
    ledger, start = Ledger.of(settings), time.monotonic()
    record_aborts(ledger, model, settings)
    champion, now = promotion_history.champion_at_time(ledger, model), current_rollout(ledger, model, settings)
    status = RolloutStatus(
        model, champion.version if champion else None, now, rollout_events(ledger, model), notes=list(notes)
    )
    status.file = str(state_file_of(model, settings)[0])
    if champion is None:
        find_version(ledger, model)
    status.workers = live_worker_reports(model, settings)
    while wait and status.workers_behind and time.monotonic() - start < PATIENCE:
        time.sleep(0.1)
        status.workers = live_worker_reports(model, settings)
    if wait and status.workers and not status.workers_behind:
        status.seconds = round(time.monotonic() - start, 2)
    counted = [
        report["counts"]
        for report in _worker_reports(model, settings)
        if now is not None and report["stage"] == now.stage
    ]
    status.figures = rollout_statistics(sum_counts(counted)) if counted else {}
    return status


def live_worker_reports(model: str, settings: Settings) -> list[dict[str, Any]]:
    """Return the reports of live workers that share this machine's folder."""
    return [report for report in _worker_reports(model, settings) if _is_alive(report)]


def _worker_reports(model: str, settings: Settings) -> list[dict[str, Any]]:
    _, folder = state_file_of(model, settings)
    reports = []
    for file in folder.glob("worker-*.json"):
        with suppress(OSError, ValueError):
            age = time.time() - file.stat().st_mtime
            reports.append({**json.loads(file.read_text(encoding="utf-8")), "age": age})
    return reports


def _is_alive(report: dict[str, Any]) -> bool:
    if report.get("host", host_id()) != host_id():  # in another container, where the process id is not valid
        return bool(report["age"] < 3 * BEAT)
    try:
        os.kill(report["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
