"""Run a Bento on this machine: start, wait until ready, stop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from d2c_mlops.errors import UsageError, child_error
from d2c_mlops.private_files import private_file, private_folder
from d2c_mlops.serving.bento_files import VARIABLE
from d2c_mlops.serving.http.api_keys import Keyring
from d2c_mlops.serving.package.bento import Bento, bentoml_environment
from d2c_mlops.serving.package.requirements import bare_environment
from d2c_mlops.serving.state_paths import keys_file, service_environment
from d2c_mlops.settings import Settings


@dataclass(frozen=True)
class Server:
    """A running service."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path


def free_port() -> int:
    """Return a free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def check_port(host: str, port: int) -> None:
    """Raise UsageError when the port is in use or not available."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as err:
            raise UsageError(
                f"port {port} is not available: {err.strerror}",
                where=f"{host}:{port}",
                next="stop the process that listens on it, or choose another port with --port",
            ) from None


def check_keys(model: str, settings: Settings) -> None:
    """Raise UsageError when the API keys cannot be read, or production mode has no key for the model."""
    file = keys_file(settings)
    ring = Keyring(file)
    if settings.service.mode == "production" and not ring.has_valid_key(model, datetime.now(UTC)):
        raise UsageError(
            f"production mode requires an API key for {model}",
            where=str(file),
            next=f"`d2c keys create NAME --model {model}`",
        )


@contextmanager
def serve_bento(
    bento: Bento,
    settings: Settings,
    *,
    port: int,
    host: str = "127.0.0.1",
    timeout: float = 120.0,  # seconds to wait until it is ready
    workers: int | None = None,  # worker processes; from the settings when None
) -> Iterator[Server]:
    """Serve a Bento during the block; all its processes end with the block."""
    check_port(host, port)
    model = bento.tag.partition(":")[0]
    check_keys(model, settings)
    log = settings.store / "logs" / f"serve-{bento.tag.replace(':', '-')}-{port}.log"
    private_file(log)
    command = [
        sys.executable,
        "-m",
        "d2c_mlops.serving.local.bentoml_process",
        str(bento.folder),
        "--host",
        host,
        "--port",
        str(port),
    ]
    environment_ = service_environment(model, settings) | (
        {"D2C_SERVICE_WORKERS": str(workers)} if workers is not None else {}
    )
    home = settings.store / "serving" / "homes" / str(port)  # BentoML empties its folder of metrics at a start
    private_folder(home)
    environment_["BENTOML_HOME"] = str(home)
    environment_ |= {VARIABLE: bento.sha256} if bento.sha256 else {}
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            env=bare_environment(bentoml_environment(settings)) | environment_,
            cwd=settings.store,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}"  # noqa: S104
        _wait_until_ready(url, process, log, timeout)
        yield Server(url, process, log)
    finally:
        stop_service(process)


def stop_service(process: subprocess.Popen[bytes], timeout: float = 10.0) -> None:
    """Stop a service gracefully; kill it after `timeout` seconds."""
    for number, wait in ((signal.SIGTERM, timeout), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            continue
    process.wait(5.0)


def is_service_ready(url: str) -> bool:
    """Return whether a service is ready: /readyz answers 200."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=2.0) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path, timeout: float) -> None:
    limit = time.monotonic() + timeout
    while not is_service_ready(url):
        if process.poll() is not None or time.monotonic() > limit:
            text = log.read_text(encoding="utf-8", errors="replace")
            raise child_error(text, "the service did not become ready", where=str(log), next="read the log")
        time.sleep(0.1)
