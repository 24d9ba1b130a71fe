"""Run a notebook: check its parameters, open a row, supervise the worker, close the row."""

from __future__ import annotations

import json
import os
import secrets
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from .. import __version__, errors
from ..errors import D2CError, NotebookFailed, Temporary, UsageError
from ..ledger.store import Ledger, temporary
from ..settings import Settings
from . import processes
from .parameters import check, load_notebook, parameters_of, to_json
from .records import Run, close_lost, close_row, find, open_row
from .values import FOLDER, RUN_ID, read_events

Progress = Callable[[dict[str, Any]], None]
SAMPLE_SECONDS = 0.5
EXIT_CODES = {
    name: cls.exit_code for name, cls in vars(errors).items() if isinstance(cls, type) and issubclass(cls, D2CError)
}


@dataclass(frozen=True)
class Job:
    """A run that is about to start: everything about it has been checked."""

    id: str
    runbook: str
    notebook: Path
    parameters: dict[str, Any]
    folder: Path
    cwd: Path
    kernel: str
    language: str
    row: dict[str, Any]


def runbooks(settings: Settings) -> dict[str, Path]:
    """Return the runbooks by name: those that ship here, then the project's own, which win."""
    shipped = Path(str(files("d2c_mlops") / "runbooks"))
    folders = (shipped, settings.root / "runbooks")
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.ipynb"))}


def run(
    name: str,  # name of a runbook, or path of a notebook
    given: Mapping[str, Any],  # parameters, as text or as values
    settings: Settings,
    *,
    ledger: Ledger | None = None,
    timeout: float | None = None,  # seconds; the settings' run_timeout when None
    progress: Progress = lambda event: None,  # called with each event: {"event": "cell", "index": …, "total": …}
    mark: Mapping[str, Any] | None = None,  # job, slot and attempt, for a run of the schedule
) -> Run:
    """Run a notebook on record and return its row. Raises an error of the notebook's class when a cell failed."""
    job = prepare(name, given, settings)
    ledger = ledger or Ledger.of(settings)
    close_lost(ledger, datetime.now(UTC))
    try:
        job.folder.mkdir(parents=True)
    except OSError as err:
        raise temporary(err, str(job.folder)) from None
    open_row(ledger, {**job.row, **(mark or {}), "started_at": datetime.now(UTC)})
    progress({"event": "start", "id": job.id, "folder": str(job.folder)})
    usage = processes.Usage()
    limit = timeout if timeout is not None else settings.run_timeout
    try:
        status, error = _supervise(job, settings, limit, usage, progress)
    except BaseException as err:
        cancelled = isinstance(err, KeyboardInterrupt | SystemExit)
        error = {"kind": type(err).__name__, "message": str(err)}
        _close(ledger, job, "cancelled" if cancelled else "failed", error, usage)
        raise
    _close(ledger, job, status, error, usage)
    finished = find(ledger, job.id)
    if status != "succeeded":
        raise failure(finished)
    return finished


def prepare(name: str, given: Mapping[str, Any], settings: Settings) -> Job:
    """Check all that can be checked before anything is written. Raises UsageError."""
    known = runbooks(settings)
    notebook = known.get(name) or Path(name)
    if name not in known and notebook.suffix != ".ipynb":
        raise UsageError(
            f"there is no runbook {name!r}", next=f"use a path ending in .ipynb or one of: {', '.join(known)}"
        )
    notebook = notebook.resolve()
    content = load_notebook(notebook)
    values = check(parameters_of(content, str(notebook)), given, str(notebook))
    id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{notebook.stem[:24]}-{secrets.token_hex(3)}"
    folder = settings.store / "runs" / id
    plain = to_json(values)
    seed = plain.get("seed")
    row = {
        "id": id,
        "runbook": name if name in known else str(notebook),
        "model": str(plain["model"]) if "model" in plain else None,
        "notebook": str(notebook),
        "notebook_sha256": sha256(notebook.read_bytes()).hexdigest(),
        "parameters": plain,
        "package_version": __version__,
        "git_commit": _commit(settings.root),
        "inputs": [],
        "seed": seed if isinstance(seed, int) else None,
        "recorded": {},
        "outputs": {kind: str(folder / file) for kind, file in OUTPUTS.items()} | {"folder": str(folder)},
    }
    metadata = content.get("metadata", {})
    kernel = metadata.get("kernelspec", {}).get("name") or "python3"
    language = (
        metadata.get("language_info", {}).get("name") or metadata.get("kernelspec", {}).get("language") or "python"
    )
    cwd = settings.root if name in known else notebook.parent
    return Job(id, row["runbook"], notebook, plain, folder, cwd, kernel, language, row)


OUTPUTS = {"notebook": "output.ipynb", "html": "output.html", "log": "log.txt"}


def failure(run: Run) -> D2CError:
    """Return the error that says how a run failed; its class carries the exit code."""
    error = run.error or {}
    where = str(run.folder / OUTPUTS["notebook"])
    if error.get("cell") is not None:
        where = f"{run.notebook}, cell {error['cell']}"
    what = f"{error.get('kind')}: {error.get('message')}" if run.status == "failed" else str(error.get("message"))
    kinds = {cls.exit_code: cls for cls in (UsageError, errors.DataRefused, errors.GateRefused, Temporary)}
    kind = kinds.get(run.exit_code or 0, NotebookFailed)
    return kind(what, where=where, next=f"open {run.folder / OUTPUTS['html']}, or `d2c runs show {run.id}`")


def _supervise(
    job: Job, settings: Settings, limit: float, usage: processes.Usage, progress: Progress
) -> tuple[str, dict[str, Any] | None]:
    """Run the worker until it is done, dead or out of time; return the status and the error."""
    spec = {
        "notebook": str(job.notebook),
        "parameters": job.parameters,
        "folder": str(job.folder),
        "cwd": str(job.cwd),
        "kernel": job.kernel,
        "language": job.language,
        "output": str(job.folder / OUTPUTS["notebook"]),
        "html": str(job.folder / OUTPUTS["html"]),
        "render_only": False,
    }
    done: dict[str, Any] = {}

    def hear(event: dict[str, Any]) -> None:
        if event["event"] == "done":
            done.update(event)
        else:
            progress(event)

    code, late = _worker(job, spec, settings, limit, usage, hear)
    if late:
        if (job.folder / OUTPUTS["notebook"]).exists():
            _worker(job, {**spec, "render_only": True}, settings, 60.0, processes.Usage(), hear)
        return "timeout", {"kind": "Timeout", "message": f"the run took longer than {limit:g} s and was stopped"}
    if not done:
        message = f"the worker ended with status {code} before the notebook was done: {_last_line(job)}"
        return "failed", {"kind": "WorkerDied", "message": message}
    return ("failed", done["error"]) if done["error"] else ("succeeded", None)


def _worker(
    job: Job, spec: dict[str, Any], settings: Settings, limit: float, usage: processes.Usage, hear: Progress
) -> tuple[int, bool]:
    """Start a worker in a process group of its own and follow it; return its exit status and whether time ran out."""
    (job.folder / "spec.json").write_text(json.dumps(spec), encoding="utf-8")
    marks = {
        RUN_ID: job.id,
        FOLDER: str(job.folder),
        **settings.environment(),
        "PYTHONWARNINGS": "ignore::FutureWarning",
    }
    deadline = time.monotonic() + limit
    with (job.folder / OUTPUTS["log"]).open("ab") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "d2c_mlops.runs.worker", str(job.folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **marks},
            start_new_session=True,
        )
    try:
        late = _follow(worker, deadline, usage, hear)
    finally:
        processes.end(worker.pid)
        processes.end_marked(RUN_ID, job.id)
        code = worker.wait()
        assert worker.stdout is not None
        worker.stdout.close()
    return code, late


def _follow(worker: subprocess.Popen[bytes], deadline: float, usage: processes.Usage, hear: Progress) -> bool:
    """Read events until the worker closes its end; return True when the deadline came first."""
    assert worker.stdout is not None
    pipe = worker.stdout.fileno()
    os.set_blocking(pipe, False)
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            ready = selector.select(min(SAMPLE_SECONDS, left))
            usage.sample(worker.pid)
            if not ready:
                continue
            chunk = os.read(pipe, 65536)
            if not chunk:
                return False
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                hear(json.loads(line))
    return True


def _close(ledger: Ledger, job: Job, status: str, error: dict[str, Any] | None, usage: processes.Usage) -> None:
    recorded, inputs = read_events(job.folder)
    for draft in job.folder.glob("*.tmp"):
        draft.unlink(missing_ok=True)
    (job.folder / "spec.json").unlink(missing_ok=True)
    codes = {"succeeded": 0, "timeout": 5, "cancelled": 130}
    code = codes.get(status, EXIT_CODES.get(str((error or {}).get("kind")), 5))
    close_row(
        ledger,
        job.id,
        {
            "status": status,
            "ended_at": datetime.now(UTC),
            "recorded": recorded,
            "inputs": inputs,
            "error": error,
            "exit_code": code,
            "cpu_seconds": usage.cpu_seconds,
            "peak_memory_bytes": usage.peak_memory_bytes,
        },
    )


def _last_line(job: Job) -> str:
    lines = (job.folder / OUTPUTS["log"]).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _commit(root: Path) -> str | None:
    """Return the git commit of the project, with `+changes` when the work tree differs; None outside of git."""
    try:
        head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
        if head.returncode:
            return None
        dirty = subprocess.run(["git", "-C", str(root), "diff", "--quiet", "HEAD"], capture_output=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() + ("+changes" if dirty.returncode else "")
