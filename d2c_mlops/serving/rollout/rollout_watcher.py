"""Watcher of the rollout file: switches versions in a running service, and aborts a rollout that violates a guardrail."""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from d2c_mlops.errors import UsageError
from d2c_mlops.serving.http.metrics import Metrics
from d2c_mlops.serving.log.log_segments import Logbook
from d2c_mlops.serving.predict.predictor import ServedModel
from d2c_mlops.serving.rollout.state_file import (
    BEAT,
    Rollout,
    host_id,
    marker_file,
    read_state,
    write_atomically,
    write_marker,
)
from d2c_mlops.serving.rollout.variant_counters import RolloutCounters, rollout_statistics, sum_counts, violated_guard
from d2c_mlops.serving.rollout.variants import PATIENCE, ShadowQueue, ShadowRollout, ShareRollout

LOOK = 0.5  # seconds between two checks of the file
STALE = 30 * 24 * 3600.0  # seconds
LOG = logging.getLogger("d2c.service")


@dataclass
class RolloutWatcher:
    """Selects which loaded versions answer, by the rollout file; one watcher per worker."""

    versions: Mapping[int, ServedModel]
    first: int  # the default version, until the file selects another loaded one
    install: Callable[[ServedModel], None]
    metrics: Metrics
    file: Path | None = None
    folder: Path | None = None  # shared by the workers of a service; nothing is shared without one
    logbook: Logbook | None = None
    look_every: float = LOOK
    rollout: Rollout | None = None
    aborted: set[str] = field(default_factory=set)  # stages
    tally: RolloutCounters = field(default_factory=RolloutCounters)
    shadows: ShadowQueue | None = None
    broken: Mapping[int, str] = field(default_factory=dict)  # versions that could not be loaded, with the error
    patience: float = PATIENCE

    def __post_init__(self) -> None:
        self.stamp: tuple[int, int] | None = None
        self.applied: tuple[Any, ...] = ()
        self.written: dict[str, Any] = {}
        self.beaten = 0.0
        self.closing = threading.Event()
        self.own = self.folder / f"worker-{os.getpid()}-{secrets.token_hex(4)}.json" if self.folder else None
        self._remove_old_reports()
        self.check()
        self.thread = threading.Thread(target=self._watch_loop, name="rollout", daemon=True)

    def _remove_old_reports(self) -> None:
        """Remove reports of ended workers a month after their last heartbeat."""
        for file in self.folder.glob("worker-*.json") if self.folder else ():
            with suppress(OSError):
                if time.time() - file.stat().st_mtime > STALE:
                    file.unlink()

    def start(self) -> None:
        """Watch the file in a thread."""
        self.thread.start()

    def _watch_loop(self) -> None:
        while not self.closing.wait(self.look_every):
            try:
                self.check()
            except Exception as err:  # a service keeps answering despite any error in a rollout
                LOG.error("rollout state cannot be applied", exc_info=err)

    def check(self) -> None:
        """Read the file when it changed, apply it, and check the guardrails."""
        self._read_state()
        rollout = self.rollout
        if (
            rollout is not None
            and rollout.in_progress
            and rollout.stage not in self.aborted
            and self._is_aborted(rollout.stage)
        ):
            self.aborted.add(rollout.stage)
        self._apply_rollout()
        why = self.broken.get(rollout.challenger or 0) if rollout is not None and rollout.in_progress else None
        if rollout is not None and why and rollout.stage not in self.aborted:
            self._abort_stage(rollout, f"load: version {rollout.challenger} cannot be loaded: {why}", {})
        if isinstance(self.applied[-1], RolloutCounters) and rollout is not None:
            counts = sum_counts([self.tally.to_dict(), *self._other_workers_counts(rollout.stage)])
            if reason := violated_guard(counts, rollout.guards):
                self._abort_stage(rollout, reason, rollout_statistics(counts))
        self._write_report()

    def _read_state(self) -> None:
        if self.file is None:
            return
        try:
            status = self.file.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp == self.stamp:
                return
            rollout = read_state(self.file)
            self.stamp = stamp
        except FileNotFoundError:
            self.rollout, self.stamp = None, None
            return
        except (OSError, UsageError) as err:
            LOG.warning("rollout file cannot be read", extra={"facts": {"file": str(self.file), "why": str(err)}})
            return
        if rollout.model != self.versions[self.first].name:
            LOG.warning("rollout of another model", extra={"facts": {"file": str(self.file), "model": rollout.model}})
            return
        self.rollout = rollout

    def _is_aborted(self, stage: str) -> bool:
        return self.folder is not None and marker_file(self.folder, stage).exists()

    def _apply_rollout(self) -> None:
        """Switch to the versions of the rollout; running requests finish with the previous ones."""
        rollout = self.rollout
        champion = self.versions.get(rollout.champion if rollout else self.first) or self.versions[self.first]
        challenger = self.versions.get(rollout.challenger or 0) if rollout else None
        going = rollout is not None and rollout.in_progress and rollout.stage not in self.aborted
        if rollout is None or not going or challenger is None or challenger is champion:
            target: tuple[Any, ...] = (champion.version, None)
            if self.applied != target:
                self._install_versions(champion, target, 0.0)
            return
        if self.applied[:3] == (champion.version, challenger.version, rollout.stage):
            return
        self.tally = (
            self.tally.for_next_stage() if self.applied and self.applied[0] == champion.version else RolloutCounters()
        )
        sides = (champion, challenger, rollout, self.tally, self.metrics, self.patience)
        target = (champion.version, challenger.version, rollout.stage, self.tally)
        if rollout.mode == "share":
            self._install_versions(ShareRollout.of(*sides), target, rollout.share)
            return
        self.shadows = self.shadows or ShadowQueue()
        self._install_versions(
            ShadowRollout.of(*sides, shadows=self.shadows, write=self._write_abort_reason), target, 0.0
        )

    def _install_versions(self, served_model: ServedModel, target: tuple[Any, ...], share: float) -> None:
        self.install(served_model)
        first, self.applied = not self.applied, target
        for label in {served_version.label for served_version in self.versions.values()}:
            answers = isinstance(served_model, ShareRollout) and label == served_model.challenger.label
            self.metrics.share.labels(served_model.name, label).set(share if answers else 0.0)
        if not first or len(target) > 2:
            mode = self.rollout.mode if self.rollout and len(target) > 2 else "off"
            facts = {
                "model": served_model.name,
                "champion": target[0],
                "challenger": target[1],
                "mode": mode,
                "share": share,
            }
            LOG.info("rollout", extra={"facts": facts})

    def _abort_stage(self, rollout: Rollout, reason: str, evidence: dict[str, Any]) -> None:
        """Abort the stage in this worker, then in the others; the first worker writes the reason for the ledger."""
        self.aborted.add(rollout.stage)
        self._apply_rollout()
        event = {
            "event": f"abort-{rollout.stage}", "model": rollout.model, "at": datetime.now(UTC).isoformat(),
            "by": "service", "reason": reason, "action": "abort", "mode": "off", "share": 0.0,
            "champion": rollout.champion, "challenger": rollout.challenger, "salt": rollout.salt,
            "stage": rollout.stage, "evidence": evidence,
        }  # fmt: skip
        mine = True
        if self.folder is not None:
            try:
                mine = write_marker(self.folder, rollout.stage, event)
            except OSError as err:
                LOG.error("rollout abort cannot be saved", exc_info=err)
        if mine:
            self._write_abort_reason([orjson.dumps({"kind": "rollout", **event})])
            self.metrics.aborts.labels(rollout.model, str(rollout.challenger), reason.partition(":")[0]).inc()
            LOG.error("rollout aborted", extra={"facts": event})

    def _write_abort_reason(self, lines: list[bytes]) -> None:
        if self.logbook is not None:
            for line in lines:
                self.logbook.append(line)

    def _other_workers_counts(self, stage: str) -> list[dict[str, int]]:
        """Return the counters of the service's other workers in a stage."""
        counts = []
        for file in self.folder.glob("worker-*.json") if self.folder else ():
            if file != self.own:
                with suppress(OSError, ValueError):
                    report = json.loads(file.read_text(encoding="utf-8"))
                    if report.get("stage") == stage:
                        counts.append(report["counts"])
        return counts

    def _write_report(self) -> None:
        """Write the report of this worker, for the other workers and for `d2c rollout`."""
        if self.own is None:
            return
        stage = self.rollout.stage if self.rollout else ""
        counts = self.tally.to_dict() if len(self.applied) > 2 else self.written.get("counts", {})
        if len(self.applied) <= 2 and self.written.get("stage") != stage:
            counts = {}
        report = {"pid": os.getpid(), "versions": sorted(self.versions), "champion": self.applied[0],
                "challenger": self.applied[1], "stage": stage, "counts": counts, "host": host_id()}  # fmt: skip
        with suppress(OSError):
            if report != self.written:
                write_atomically(self.own, orjson.dumps({**report, "at": time.time()}))
                self.written, self.beaten = report, time.monotonic()
            elif time.monotonic() - self.beaten > BEAT:
                os.utime(self.own)
                self.beaten = time.monotonic()

    def close(self) -> None:
        """Stop watching; counters stay for the other workers during the stage."""
        self.closing.set()
        if self.thread.is_alive():
            self.thread.join(5.0)
        if self.shadows is not None:
            self.shadows.close()
        with suppress(OSError):
            self._write_report()
            if self.own is not None and len(self.applied) <= 2:
                self.own.unlink(missing_ok=True)
