"""Load test on this machine: CPU time per request and peak memory of a service, from which limits are set."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from pydantic import ValidationError

from d2c_mlops.data.store import write_atomic
from d2c_mlops.errors import DataRefused, UsageError, child_error
from d2c_mlops.models.core.model import EXAMPLE_FILE, Model, load
from d2c_mlops.registry.versions import Version, version_files
from d2c_mlops.serving.batch.score import has_reasons
from d2c_mlops.serving.bento_files import check_bento_files
from d2c_mlops.serving.local.server import free_port, serve_bento
from d2c_mlops.serving.package.bento import Bento
from d2c_mlops.serving.predict import synthetic
from d2c_mlops.serving.predict.predictor import ServedModel
from d2c_mlops.settings import Settings

FILE = "load.json"  # beside the Bento
SAMPLE = 0.1  # seconds between two measurements of memory
WARM = 1.0  # seconds


@dataclass(frozen=True)
class LoadResult:
    """Results of a load test. Megabytes are 10^6 bytes."""

    bento: str
    path: str
    connections: int
    seconds: float
    requests: int  # answered requests, of one record each
    rate: float  # requests/s
    p50_ms: float
    p99_ms: float
    cpu_ms: float  # CPU time per request in ms, all processes of the service
    cores: float  # processors in use during the test
    worker_mb: float  # peak resident memory of its largest process
    service_mb: float  # peak memory of all its processes, shared memory counted once where the system reports it
    records: int  # in the largest request, which was sent as well
    ready_seconds: float
    machine: str
    measured_at: str

    def to_dict(self) -> dict[str, Any]:
        """Return the figures as JSON values."""
        return asdict(self)


def loadtest(
    bento: Bento,
    version: Version,
    settings: Settings,
    *,
    seconds: float = 10.0,
    connections: int = 8,
    path: str = "",  # /explain where the model explains, else /predict
    log: Callable[[str], None] = lambda _: None,
) -> LoadResult:
    """Serve a Bento, send requests on `connections` for `seconds`, then one request with the maximum number of records.

    Requests are probes with a synthetic key where the model accepts one, else with the example record that the registry
    stores. The results are written beside the Bento; `d2c deploy` reads them. The project's prediction log and API keys are not used:
    requests of the test are not logged. Raises D2CError when an answer is not 200.
    """
    model, example = _model_and_example(bento, version, settings)
    path = path or ("/explain" if has_reasons(model) else "/predict")
    largest = settings.service.max_records
    with TemporaryDirectory(prefix="load-", dir=settings.store) as name:
        folder = Path(name)
        service_settings = replace(
            settings.service, mode="development", state=str(folder), keys=str(folder / "keys.json"), traces=""
        )
        start, port = time.monotonic(), free_port()
        with (
            serve_bento(bento, replace(settings, service=service_settings), port=port) as server,
            peak_memory(server.process.pid) as top,
        ):
            ready = time.monotonic() - start
            log(f"ready in {ready:.1f} s, sending requests to {path} on {connections} connections for {seconds:g} s")
            ask = _load_requester(folder, port, path, example)
            ask(1, connections, WARM)
            before, began = _cpu_seconds(server.process.pid), time.monotonic()
            answers = ask(1, connections, seconds)
            spent, took = _cpu_seconds(server.process.pid) - before, time.monotonic() - began
            log(f"sending {largest:,} records in one request")
            ask(largest, 1, WARM)
    result = LoadResult(
        bento.tag, path, connections, seconds, int(answers["requests"]), round(answers["rate"], 1), round(answers["p50"], 3),
        round(answers["p99"], 3), round(spent / answers["requests"] * 1e3, 4), round(spent / took, 2), round(top["worker"] / 1e6, 1),
        round(top["service"] / 1e6, 1), largest, round(ready, 2), f"{platform.machine()}, {os.cpu_count()} processors",
        datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    write_atomic(bento.folder / FILE, json.dumps(result.to_dict(), indent=1).encode())
    return result


def measured_load(version: Version, settings: Settings) -> LoadResult | None:
    """Return the newest load test of a version's Bentos; None when there is none."""
    folder = settings.store / "bentoml" / "bentos" / version.model
    files = sorted(folder.glob(f"v{version.version}-*/{FILE}"), key=lambda file: file.stat().st_mtime)
    return LoadResult(**json.loads(files[-1].read_text(encoding="utf-8"))) if files else None


@contextmanager
def peak_memory(pid: int) -> Iterator[dict[str, float]]:
    """Measure the peak memory in bytes of a process and its children: of the largest one, and of all together."""
    top, stopped = {"worker": 0.0, "service": 0.0}, threading.Event()

    def watch() -> None:
        while not stopped.wait(SAMPLE):
            for name, size in zip(top, _memory_bytes(pid), strict=True):
                top[name] = max(top[name], size)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield top
    finally:
        stopped.set()
        watcher.join()


def _memory_bytes(pid: int) -> tuple[float, float]:
    sizes, shares = [0.0], [0.0]
    for process in _process_tree(pid):
        try:
            memory = process.memory_full_info()
        except psutil.Error:
            continue
        sizes.append(memory.rss)
        shares.append(getattr(memory, "pss", memory.rss))
    return max(sizes), sum(shares)


def _cpu_seconds(pid: int) -> float:
    times = [process.cpu_times() for process in _process_tree(pid)]
    return float(sum(cpu_times.user + cpu_times.system for cpu_times in times))


def _process_tree(pid: int) -> list[psutil.Process]:
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _load_requester(
    folder: Path, port: int, path: str, example: dict[str, Any]
) -> Callable[[int, int, float], dict[str, float]]:
    def ask(records: int, connections: int, seconds: float) -> dict[str, float]:
        file = folder / f"{records}.json"
        file.write_text(json.dumps({"records": [example] * records}), encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "d2c_mlops.serving.local.load_generator",
            str(port),
            path,
            str(file),
            str(connections),
            str(seconds),
        ]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 300)
        if finished.returncode:
            raise child_error(finished.stderr, "the service fails under load", where=path)
        figures: dict[str, float] = json.loads(finished.stdout)
        return figures

    return ask


def _model_and_example(bento: Bento, version: Version, settings: Settings) -> tuple[Model, dict[str, Any]]:
    """Return the model and a record that it accepts: a synthetic one where possible, else the registry's example."""
    if bento.sha256:
        check_bento_files(bento.folder / "src", bento.sha256)
    model = load(bento.folder / "src" / "model", settings.packages)
    record = synthetic.synthetic_record(model.contract)
    if _accepts_connection(model, record):
        return model, record
    example_file = version_files(version, settings) / EXAMPLE_FILE
    if not example_file.exists():
        raise UsageError(
            f"{version.model} refuses unknown keys, and the registry has no example record for it",
            where=str(example_file),
            next=f"train it again: `d2c run train -p model={version.model}`",
        )
    return model, json.loads(example_file.read_text(encoding="utf-8"))


def _accepts_connection(model: Model, record: dict[str, Any]) -> bool:
    body = json.dumps({"records": [record]}).encode()
    try:
        ServedModel(model, model.contract.name, 0, {}, record).predict(body, "0", has_reasons(model))
    except (DataRefused, ValidationError):
        return False
    return True
