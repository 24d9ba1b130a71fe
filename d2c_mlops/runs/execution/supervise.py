"""Supervise the worker of a run until it ends or exceeds a limit; write its output to a log of limited size."""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from d2c_mlops.runs.execution import processes
from d2c_mlops.runs.execution.leases import Stop
from d2c_mlops.runs.run_events import FOLDER, RUN_ID
from d2c_mlops.runs.secrets.redaction import Redaction
from d2c_mlops.settings import Settings

Progress = Callable[[dict[str, Any]], None]
SAMPLE_SECONDS = 0.25
LOG_BYTES = 8 * 2**20  # of what a run prints beside its notebook; the rest is counted and left out
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_MAX_THREADS", "LOKY_MAX_CPU_COUNT")


@dataclass(frozen=True)
class RunLimits:
    """The limits of a run."""

    seconds: float
    memory_bytes: float | None = None  # resident, of all its processes together
    cpus: int | None = None
    cost: float | None = None
    cpu_hour_price: float = 0.0

    def exceeded(self, usage: processes.ResourceUsage, since: float) -> dict[str, Any] | None:
        """Return the error of the first exceeded limit."""
        if time.monotonic() - since > self.seconds:
            return _worker_error("Timeout", f"the run took longer than {self.seconds:g} s and was stopped")
        if self.memory_bytes and usage.memory_bytes > self.memory_bytes:
            used, limit = (f"{n / 2**20:,.0f} MiB" for n in (usage.memory_bytes, self.memory_bytes))
            return _worker_error("OutOfMemory", f"the run used {used} and was stopped; its limit is {limit}")
        cost = usage.cpu_seconds / 3600 * self.cpu_hour_price
        if self.cost is not None and cost > self.cost:
            return _worker_error("TooExpensive", f"the run cost {cost:.4g} and was stopped; its limit is {self.cost:g}")
        return None


@dataclass
class RunEnding:
    """How a worker ended."""

    code: int
    error: dict[str, Any] | None = None  # of the limit that it broke, or why it had to stop
    done: dict[str, Any] = field(default_factory=dict)  # what it said last


def start_worker(marks: Mapping[str, str] = MappingProxyType({})) -> subprocess.Popen[bytes]:
    """Start a worker that waits for its task, so that its imports (about a second) run in parallel."""
    return subprocess.Popen(
        [sys.executable, "-m", "d2c_mlops.runs.execution.worker", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **marks, "PYTHONWARNINGS": "ignore::FutureWarning"},
        start_new_session=True,
    )


@contextmanager
def spare_worker() -> Iterator[subprocess.Popen[bytes]]:
    """A waiting worker; it is ended at exit, even if it was not used."""
    worker = start_worker()
    try:
        yield worker
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait()


def supervise_worker(
    spec: Mapping[str, Any],
    folder: Path,
    run_id: str,
    settings: Settings,
    limits: RunLimits,
    usage: processes.ResourceUsage,
    on_event: Progress,
    should_stop: Stop,
    environment: Mapping[str, str],
    spare: subprocess.Popen[bytes] | None = None,  # a worker that was started before and waits
) -> RunEnding:
    """Start a worker in its own session and supervise it until it ends; all its processes have ended on return."""
    (folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    marks = {RUN_ID: run_id, FOLDER: str(folder), "TMPDIR": spec["scratch"], **settings.environment(), **environment}
    threads = {name: str(limits.cpus) for name in THREADS} if limits.cpus else {}
    worker = spare or start_worker(marks)
    message = json.dumps({"folder": str(folder), "environment": {**threads, **marks}}) + "\n"
    assert worker.stdin is not None
    with suppress(BrokenPipeError):  # it died; that is found out below
        worker.stdin.write(message.encode())
        worker.stdin.close()
    ended = RunEnding(0)
    try:
        log = WorkerLog(folder / "log.txt", Redaction.of(folder))
        ended.error = _read_events(worker, limits, usage, log, _handler_recording_end(ended, on_event), should_stop)
    finally:
        processes.end_processes(worker.pid)
        processes.kill_marked_processes(RUN_ID, run_id)
        ended.code = worker.wait()
        for pipe in (worker.stdout, worker.stderr):
            assert pipe is not None
            pipe.close()
    return ended


class WorkerLog:
    """The log of a worker, with secrets removed and limited size; if the disk is full, only log lines are lost."""

    def __init__(self, file: Path, redaction: Redaction) -> None:
        self.file = file
        self.redaction = redaction
        self.kept = 0
        self.left_out = 0
        self.rest = b""

    def write(self, chunk: bytes) -> None:
        """Write printed output; its end is buffered, because a secret may start there."""
        self.rest += chunk
        cut = max(self.rest.rfind(b"\n") + 1, len(self.rest) - 65536)
        self._write_within_limit(self.rest[:cut])
        self.rest = self.rest[cut:]

    def close(self) -> None:
        """Write the buffered output and the number of omitted bytes."""
        self._write_within_limit(self.rest)
        self.rest = b""
        if self.left_out:
            self._append_event(f"\n[{self.left_out:,} more bytes omitted]\n".encode())

    def _write_within_limit(self, chunk: bytes) -> None:
        room = max(0, LOG_BYTES - self.kept)
        written = len(chunk[:room]) if self._append_event(self.redaction.clean_bytes(chunk[:room])) else 0
        self.kept += written
        self.left_out += len(chunk) - written

    def _append_event(self, text: bytes) -> bool:
        try:
            with self.file.open("ab") as file:
                file.write(text)
        except OSError:
            return False
        return True


def _read_events(
    worker: subprocess.Popen[bytes],
    limits: RunLimits,
    usage: processes.ResourceUsage,
    log: WorkerLog,
    on_event: Progress,
    stop: Stop,
) -> dict[str, Any] | None:
    """Read events and output until the worker closes its pipe; return the error if it has to be stopped before."""
    assert worker.stdout is not None and worker.stderr is not None
    begun = sampled = time.monotonic()
    remainder = b""
    with selectors.DefaultSelector() as selector:
        for pipe in (worker.stdout, worker.stderr):
            os.set_blocking(pipe.fileno(), False)
            selector.register(pipe, selectors.EVENT_READ)
        try:
            while worker.stdout in {key.fileobj for key in selector.get_map().values()}:
                ready = selector.select(SAMPLE_SECONDS)
                for key, _ in ready:
                    chunk = os.read(key.fd, 1 << 16)
                    if not chunk:
                        selector.unregister(key.fileobj)
                    elif key.fileobj is worker.stderr:
                        log.write(chunk)
                    else:
                        *lines, remainder = (remainder + chunk).split(b"\n")
                        for line in lines:
                            on_event(json.loads(line))
                if time.monotonic() - sampled >= SAMPLE_SECONDS:
                    sampled = time.monotonic()
                    usage.sample(worker.pid)
                    if (error := limits.exceeded(usage, begun)) or (error := _stop_error(stop)):
                        return error
            return None
        finally:
            _drain_pipe(worker.stderr.fileno(), log)
            log.close()


def _drain_pipe(pipe: int, log: WorkerLog) -> None:
    """Read remaining output without waiting for processes that may still have the pipe open."""
    with suppress(BlockingIOError):
        while chunk := os.read(pipe, 1 << 16):
            log.write(chunk)


def _stop_error(should_stop: Stop) -> dict[str, Any] | None:
    why = should_stop()
    return _worker_error("Stopped", f"the run was stopped: {why}") if why else None


def _handler_recording_end(ended: RunEnding, on_event: Progress) -> Progress:
    def record_event(event: dict[str, Any]) -> None:
        if event["event"] == "done":
            ended.done = event
        else:
            on_event(event)

    return record_event


def _worker_error(kind: str, message: str) -> dict[str, Any]:
    return {"kind": kind, "message": message}
