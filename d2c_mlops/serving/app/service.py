"""The Bento service: loads the model of its folder and mounts the HTTP application."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import bentoml
from pydantic import ValidationError

from d2c_mlops.errors import DataRefused, UsageError
from d2c_mlops.parent_death import die_with_parent
from d2c_mlops.serving.app.app import App, ServedModel, ServiceContext, create_app
from d2c_mlops.serving.app.bentoml_internals import make_service
from d2c_mlops.serving.bento_files import VARIABLE, check_bento_files
from d2c_mlops.serving.http import json_logging as journal
from d2c_mlops.serving.http import uvicorn_protocol as wire
from d2c_mlops.serving.http.api_keys import Keyring
from d2c_mlops.serving.http.idempotency import IdempotencyStore
from d2c_mlops.serving.http.messages import ASGI
from d2c_mlops.serving.http.metrics import Metrics
from d2c_mlops.serving.log.log_segments import Logbook
from d2c_mlops.serving.predict import synthetic
from d2c_mlops.serving.predict.older_contracts import load_model as load
from d2c_mlops.serving.predict.older_contracts import older_contracts
from d2c_mlops.serving.rollout.rollout_watcher import RolloutWatcher
from d2c_mlops.serving.rollout.state_file import state_paths
from d2c_mlops.settings import service_settings

HOME = Path(__file__).parents[3]
FOLDER = Path(os.environ.get("D2C_MODEL_FOLDER") or HOME / "model")
CHALLENGER = FOLDER.parent / "challenger"  # folder of the challenger in the Bento
GRACE = 5.0  # seconds beyond an answer's time limit in which a stopping service must end
LOG = logging.getLogger("d2c.service")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of glibc's malloc.h
FILES = ""  # verified or unverified
settings = service_settings(os.environ)
loaded: list[ServedModel] = []
keeping = ServiceContext(settings)


def loaded_model() -> ServedModel:
    """Return the loaded model. Raises LookupError before it is loaded."""
    if not loaded:
        raise LookupError("not loaded")
    return loaded[0]


def version_metadata(name: str = "version.json") -> dict[str, Any]:
    """Return the metadata of the version from version.json."""
    described: dict[str, Any] = json.loads((FOLDER.parent / name).read_text(encoding="utf-8"))
    return described | {"files": FILES}


def verify_files() -> str:
    """Verify the files of this Bento against the packaged ones; return whether that was possible, end the process where they differ."""
    expected_digest = os.environ.get(VARIABLE, "")
    if not expected_digest:
        return "unverified"
    try:
        check_bento_files(HOME, expected_digest)
    except DataRefused as err:
        sys.stderr.write(f"{err}\n")
        raise SystemExit(err.exit_code) from None
    return "verified"


def load_served_model(folder: Path, saved_metadata: dict[str, Any]) -> ServedModel:
    """Load a version and warm it up with one synthetic record; a model may refuse the unknown key."""
    model = load(folder)
    example, secret = synthetic.synthetic_record(model.contract), settings.log_secret.encode()
    served_model = ServedModel(
        model, saved_metadata["model"], saved_metadata["version"], saved_metadata, example, settings.max_records, secret
    )
    try:
        served_model.predict(json.dumps({"records": [example]}).encode(), "0", served_model.explains)
    except (DataRefused, ValidationError):
        pass
    except Exception as err:
        LOG.warning(
            "the model fails on the synthetic record", exc_info=err, extra={"facts": {"model": served_model.name}}
        )
    return served_model


def load_versions() -> tuple[dict[int, ServedModel], dict[int, str]]:
    """Load the champion and, where there is one, the challenger; a challenger that cannot be loaded does not stop the service.

    Returns the loaded versions, the champion first, and why a challenger was not loaded.
    """
    champion = load_served_model(FOLDER, version_metadata())
    if not CHALLENGER.is_dir():
        return {champion.version: champion}, {}
    described = version_metadata("challenger.json")
    try:
        beside = load_served_model(CHALLENGER, described)
    except Exception as err:
        LOG.error("challenger cannot be loaded", exc_info=err)
        return {champion.version: champion}, {described["version"]: f"{type(err).__name__}: {err}"}
    return {champion.version: champion, beside.version: beside}, {}


def open_keyring() -> Keyring | None:
    """Return the API keys. Raises UsageError in production mode when there is none for this model."""
    ring = Keyring(Path(settings.keys)) if settings.keys else None
    if settings.mode == "production":
        model = version_metadata()["model"]
        if ring is None or not ring.has_valid_key(model, datetime.now(UTC)):
            raise UsageError(
                f"production mode requires an API key for {model}",
                where=settings.keys or "[service] keys",
                next=f"`d2c keys create NAME --model {model}`",
            )
    return ring


class ModelService:
    """The service of one model; BentoML creates one instance in each worker."""

    def __init__(self) -> None:
        die_with_parent()  # a worker ends when its supervisor is killed
        trim_memory()
        listener = journal.start_json_logging()
        if FILES == "unverified":
            LOG.warning("unverified", extra={"facts": {"why": f"{VARIABLE} is not set: files were not compared"}})
        loaded_versions, broken = load_versions()
        champion = next(iter(loaded_versions.values()))
        keeping.majors = older_contracts(FOLDER.parent, load_served_model)
        keeping.keyring = open_keyring()
        if settings.state:
            state = Path(settings.state)
            keeping.kept = IdempotencyStore(
                state / "kept.db", most=settings.kept_bytes, most_each=settings.kept_key_bytes
            )
            keeping.logbook = Logbook(state / "log") if settings.log else None
        if settings.traces:
            from d2c_mlops.serving.http.tracing import Tracer

            keeping.tracer = Tracer(settings.traces, champion.name, str(champion.version))
        self.watcher = start_watcher(loaded_versions, champion.version, broken)
        self.listener = listener
        drain_on_sigterm()
        freeze_garbage_collector()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def close(self) -> None:
        """Seal the prediction log and send the remaining traces."""
        for part in (self.watcher, keeping.logbook, keeping.kept, keeping.tracer):
            if part is not None:
                part.close()
        self.listener.stop()


def start_watcher(
    loaded_versions: dict[int, ServedModel], first_version: int, failed_versions: dict[int, str]
) -> RolloutWatcher:
    """Start the watcher that applies the rollout file."""

    def install(chosen: ServedModel) -> None:
        loaded[:] = [chosen]

    file, folder = state_paths(settings.rollout, settings.state, loaded_versions[first_version].name)
    watcher = RolloutWatcher(loaded_versions, first_version, install, Metrics(), file, folder, keeping.logbook)
    watcher.broken, watcher.patience = failed_versions, settings.max_seconds / 2
    if file is not None:
        watcher.start()
    return watcher


def freeze_garbage_collector() -> None:
    """Exclude loaded objects from garbage collection: half a million objects that live as long as the process.

    A full collection visits all of them and blocks every request for 150 ms and more.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def trim_memory() -> None:
    """Make glibc's allocator return large blocks to the system; no change with other C libraries.

    Otherwise each prediction thread keeps an arena as large as the largest body that it has answered.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        for option, value in ((M_ARENA_MAX, 2), (M_MMAP_THRESHOLD, 1 << 18), (M_TRIM_THRESHOLD, 1 << 20)):
            libc.mallopt(option, value)


def drain_on_sigterm() -> None:
    """On SIGTERM answer 503 at /readyz, keep answering for `drain_seconds`, then let the server stop.

    A caller that does not read, or a model that hangs, delays the stop by at most the time limit of an answer.
    """
    former = signal.getsignal(signal.SIGTERM)

    def end(number: int) -> None:
        if callable(former):
            former(number, None)

    def late() -> None:
        LOG.error("the service did not stop in time", extra={"facts": {"seconds": settings.max_seconds}})
        time.sleep(0.2)  # so that the line is written
        os._exit(1)  # the prediction log is safe, as from kill -9

    def drain(number: int, _frame: Any) -> None:
        keeping.draining = True
        timer = threading.Timer(settings.drain_seconds + settings.max_seconds + GRACE, late)
        timer.daemon = True
        timer.start()
        with suppress(RuntimeError):
            asyncio.get_running_loop().call_later(settings.drain_seconds, end, number)
            return
        end(number)

    with suppress(ValueError):  # not in the main thread: a test
        signal.signal(signal.SIGTERM, drain)


def create_application(inner: ASGI | None) -> App:
    """Return the application of a worker; `inner` is BentoML's own, which runs start and stop."""
    wire.install_protocol()
    return create_app(loaded_model, keeping, inner)


FILES = keeping.files = verify_files()  # before anything of the model is read, its class imported
Service = make_service(ModelService, create_application, traffic={"timeout": 60}, workers=settings.workers)
open_keyring()
