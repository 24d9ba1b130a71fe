"""Run a notebook: check its parameters, open a row, supervise the worker, close the row."""

from __future__ import annotations

import getpass
import os
import secrets as randomness
import shutil
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

from d2c_mlops import __version__
from d2c_mlops.errors import D2CError, UsageError
from d2c_mlops.ledger.store import Ledger, error_of_os_error
from d2c_mlops.private_files import make_private, private_folder
from d2c_mlops.runs.execution import processes
from d2c_mlops.runs.execution.failures import classify_failure, error_of_exit_code
from d2c_mlops.runs.execution.kernels import choose_kernel
from d2c_mlops.runs.execution.leases import Stop
from d2c_mlops.runs.execution.output_storage import output_exists, publish_outputs
from d2c_mlops.runs.execution.package_environments import store_environment
from d2c_mlops.runs.execution.page_header import finish_page, next_step
from d2c_mlops.runs.execution.run_rows import Run, close_lost_runs, close_row, find_run, move_outputs, open_row
from d2c_mlops.runs.execution.slot_rows import slot_key
from d2c_mlops.runs.execution.stage_reuse import RESUME, STAGES
from d2c_mlops.runs.execution.supervise import Progress, RunLimits, supervise_worker
from d2c_mlops.runs.execution.temporary_folder import scratch_folder
from d2c_mlops.runs.parameters.parameters import (
    check_values,
    declared_parameters,
    default_model,
    load_notebook,
    to_json,
    to_source,
    untyped_notes,
)
from d2c_mlops.runs.run_events import SLOT_KEY, append_event_to, read_events, run_notes
from d2c_mlops.runs.secrets.redaction import Redaction
from d2c_mlops.runs.secrets.secrets import secret, secret_names_in
from d2c_mlops.settings import JobSettings, Settings
from d2c_mlops.settings.parsing import parse_size


@dataclass(frozen=True)
class RunJob:
    """A validated run that is about to start."""

    id: str
    runbook: str
    notebook: Path
    parameters: dict[str, Any]  # as JSON values
    sources: dict[str, str]  # Python source of each parameter's value
    folder: Path
    cwd: Path
    kernel: str
    language: str
    notes: list[str]
    row: dict[str, Any]


def available_runbooks(settings: Settings) -> dict[str, Path]:
    """Return the runbooks by name: the included ones, replaced by the project's own of the same name."""
    shipped = Path(str(files("d2c_mlops") / "runbooks"))
    folders = (shipped, settings.root / "runbooks")
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.ipynb"))}


def run(
    name: str,  # name of a runbook, or path of a notebook
    parameters: Mapping[str, Any],  # parameters, as text or as values
    settings: Settings,
    *,
    ledger: Ledger | None = None,
    timeout: float | None = None,  # seconds; the settings' run_timeout when None
    limits: RunLimits | None = None,  # instead of timeout and the settings' limits
    progress: Progress = lambda event: None,  # called with each event: {"event": "cell", "index": …, "total": …}
    slot_fields: Mapping[str, Any] | None = None,  # job, slot and attempt, for a run of the schedule
    should_stop: Stop = lambda: None,  # asked now and then; why the run must stop, None while it may go on
    spare_worker_process: subprocess.Popen[bytes] | None = None,  # a worker that waits, see supervise.start
    resume: str | None = None,  # id of a failed run whose finished stages are taken over
    by: str | None = None,  # who starts it; the user of the machine, or the schedule for its jobs, when None
) -> Run:
    """Run a notebook, record the run and return its record. If a cell failed, raises the error class of the failure."""
    job = prepare_job(name, parameters, settings)
    ledger = ledger or Ledger.of(settings)
    limits = limits or run_limits(settings, seconds=timeout)
    close_lost_runs(ledger, datetime.now(UTC))
    former = _stage_folder(find_run(ledger, resume)) if resume else None
    started_by = by or ("schedule" if (slot_fields or {}).get("job") else current_user())
    _open_run(ledger, job, {"started_by": started_by, **(slot_fields or {})})
    progress({"event": "start", "id": job.id, "folder": str(job.folder)})
    for note in job.notes:
        append_event_to(job.folder, "note", note)
        with (job.folder / OUTPUTS["log"]).open("a", encoding="utf-8") as log:
            log.write(f"note: {note}\n")
        progress({"event": "note", "text": note})
    usage = processes.ResourceUsage()
    try:
        with scratch_folder() as scratch:
            error = _supervise_worker(
                job,
                settings,
                limits,
                usage,
                progress,
                should_stop,
                spare_worker_process,
                former,
                slot_fields or {},
                scratch,
            )
    except OSError as err:
        failure_ = error_of_os_error(err, str(job.folder))
        _close_run(ledger, job, {"kind": type(failure_).__name__, "message": failure_.what}, usage, limits, settings)
        raise failure_ from None
    except BaseException as err:
        _close_run(ledger, job, {"kind": type(err).__name__, "message": str(err)}, usage, limits, settings)
        raise
    _close_run(ledger, job, error, usage, limits, settings)
    make_private(job.folder)
    finished = ledger.with_retries(lambda: find_run(ledger, job.id))
    if finished.status != "succeeded":
        raise run_failure(finished)
    return finished


def run_limits(settings: Settings, job: JobSettings | None = None, seconds: float | None = None) -> RunLimits:
    """Return the limits of a run: those of its job, else the general ones."""
    memory = (job.memory if job else "") or settings.run_memory
    return RunLimits(
        seconds=job.timeout if job else settings.run_timeout if seconds is None else seconds,
        memory_bytes=parse_size(memory) if memory else None,
        cpus=(job.cpus if job else 0) or settings.run_cpus or None,
        cost=job.max_cost if job and job.max_cost else None,
        cpu_hour_price=settings.cpu_hour_price,
    )


def check_parameters(
    name: str, parameters: Mapping[str, Any], settings: Settings
) -> tuple[Path, dict[str, Any], dict[str, Any]]:
    """Return the path and the content of a notebook and the converted parameters. Raises UsageError."""
    available = available_runbooks(settings)
    notebook = available.get(name) or settings.root / name if not Path(name).exists() else Path(name)
    if name not in available and notebook.suffix != ".ipynb":
        raise UsageError(
            f"there is no runbook {name!r}", next=f"use a path ending in .ipynb or one of: {', '.join(available)}"
        )
    notebook = (available.get(name) or notebook).resolve()
    content = load_notebook(notebook)
    return notebook, content, check_values(declared_parameters(content, str(notebook)), parameters, str(notebook))


def prepare_job(name: str, parameters: Mapping[str, Any], settings: Settings) -> RunJob:
    """Validate a run before anything is written. Raises UsageError."""
    notebook, content, values = check_parameters(name, parameters, settings)
    kernel = choose_kernel(content.get("metadata", {}), str(notebook))
    shipped = name in available_runbooks(settings)
    id = f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{notebook.stem[:24]}-{randomness.token_hex(3)}"
    folder = settings.store / "runs" / id
    plain = to_json(values)
    seed = plain.get("seed")
    for reference in sorted(secret_names_in(plain)):
        secret(reference)
    row = {
        "id": id,
        "runbook": name if shipped else str(notebook),
        "model": str(plain["model"])
        if "model" in plain
        else default_model(declared_parameters(content, str(notebook))),
        "notebook": str(notebook),
        "notebook_sha256": sha256(notebook.read_bytes()).hexdigest(),
        "parameters": plain,
        "package_version": __version__,
        "git_commit": _git_commit(settings.root),
        "inputs": [],
        "seed": seed if isinstance(seed, int) else None,
        "recorded": {},
        "environment": store_environment(settings),
        "outputs": {kind: str(folder / file) for kind, file in OUTPUTS.items()} | {"folder": str(folder)},
    }
    notes = [kernel.note] if kernel.note else []
    notes += untyped_notes(declared_parameters(content, str(notebook)), parameters)
    sources = {parameter: to_source(value) for parameter, value in values.items()}
    cwd = settings.root if shipped else notebook.parent
    return RunJob(id, row["runbook"], notebook, plain, sources, folder, cwd, kernel.name, kernel.language, notes, row)


OUTPUTS = {"notebook": "output.ipynb", "html": "output.html", "log": "log.txt"}


def run_failure(run: Run) -> D2CError:
    """Return the error for a failed run; its class has the exit code."""
    error = run.error or {}
    where = run.outputs["notebook"]
    if error.get("cell") is not None:
        where = f"{run.notebook}, cell {error['cell']}"
    what = f"{error.get('kind')}: {error.get('message')}" if run.status == "failed" else str(error.get("message"))
    page = run.outputs["html"] if output_exists(run.outputs["html"]) else ""
    details = f"open {page}, or `d2c runs show {run.id}`" if page else f"`d2c runs show {run.id}`"
    return error_of_exit_code(run.exit_code or 0)(
        what, where=where, next="\n        ".join([next_step(run), f"details: {details}"])
    )


def _open_run(ledger: Ledger, job: RunJob, slot_fields: Mapping[str, Any]) -> None:
    try:
        private_folder(job.folder.parent)
        job.folder.mkdir(0o700)
    except OSError as err:
        raise error_of_os_error(err, str(job.folder)) from None
    try:
        open_row(ledger, {**job.row, **slot_fields, "started_at": datetime.now(UTC)})
    except BaseException:
        job.folder.rmdir()
        raise


def _supervise_worker(
    job: RunJob,
    settings: Settings,
    limits: RunLimits,
    usage: processes.ResourceUsage,
    progress: Progress,
    stop: Stop,
    spare_worker_process: subprocess.Popen[bytes] | None,
    former: Path | None,
    slot_fields: Mapping[str, Any],
    scratch: Path,
) -> dict[str, Any] | None:
    """Run the worker until it ends; return the error, None if all cells ran."""
    spec = {
        "notebook": str(job.notebook),
        "parameters": job.parameters,
        "sources": job.sources,
        "scratch": str(scratch),
        "folder": str(job.folder),
        "cwd": str(job.cwd),
        "kernel": job.kernel,
        "language": job.language,
        "output": str(job.folder / OUTPUTS["notebook"]),
        "html": str(job.folder / OUTPUTS["html"]),
        "memory_bytes": limits.memory_bytes,
        "cpus": limits.cpus,
        "render_only": False,
    }
    key = slot_key(slot_fields["job"], slot_fields["slot"]) if slot_fields.get("slot") else ""
    environment = {RESUME: str(former) if former else "", SLOT_KEY: key}
    worker = partial(
        supervise_worker,
        folder=job.folder,
        run_id=job.id,
        settings=settings,
        on_event=progress,
        environment=environment,
    )
    oom_kills = processes.oom_kills()
    ended = worker(spec, limits=limits, usage=usage, should_stop=stop, spare=spare_worker_process)
    full = (ended.done.get("error") or {}).get("kind") == "Temporary"  # the disk takes no page either
    for _ in range(2):  # a worker that was stopped, or killed after the last cell, leaves no page
        if full or (job.folder / OUTPUTS["html"]).exists() or not (job.folder / OUTPUTS["notebook"]).exists():
            break
        rendering = {**spec, "render_only": True}
        worker(rendering, limits=RunLimits(60.0), usage=processes.ResourceUsage(), should_stop=lambda: None)
    if ended.error:
        return ended.error
    error = ended.done["error"] if ended.done else _worker_death_error(job, ended.code)
    if error and error["kind"] in ("Killed", "DeadKernelError") and processes.oom_kills() > oom_kills:
        peak = f"{usage.peak_memory_bytes / 2**20:,.0f} MiB"
        return {"kind": "OutOfMemory", "message": f"the machine ran out of memory; the run used {peak}"}
    return error


def _stage_folder(run: Run) -> Path | None:
    """Return the folder of a run with completed stages; None if its outputs are not on this machine."""
    return run.folder if (run.folder / STAGES).is_dir() else None


def _worker_death_error(job: RunJob, code: int) -> dict[str, Any]:
    if code in (-signal.SIGKILL, -signal.SIGTERM):
        name = signal.Signals(-code).name
        return {"kind": "Killed", "message": f"the worker was killed by a signal ({name})"}
    message = f"the worker exited with status {code} before the notebook was finished: {_last_line(job)}"
    return {"kind": "WorkerDied", "message": message}


def _close_run(
    ledger: Ledger,
    job: RunJob,
    error: dict[str, Any] | None,
    usage: processes.ResourceUsage,
    limits: RunLimits,
    settings: Settings,
) -> None:
    redaction = Redaction(job.folder, secret_names_in(job.parameters))
    recorded, inputs = read_events(job.folder)
    for draft in job.folder.glob("*.tmp"):
        draft.unlink(missing_ok=True)
    (job.folder / "spec.json").unlink(missing_ok=True)
    kind, code = classify_failure(error)
    if kind is None:
        shutil.rmtree(job.folder / STAGES, ignore_errors=True)
    values = {
        "status": {None: "succeeded", "timeout": "timeout", "cancelled": "cancelled"}.get(kind, "failed"),
        "ended_at": datetime.now(UTC),
        "recorded": redaction.remove_secrets(recorded),
        "inputs": inputs,
        "error": redaction.remove_secrets(error),
        "notes": redaction.remove_secrets(run_notes(job.folder)),
        "exit_code": code,
        "failure": kind,
        "cpu_seconds": usage.cpu_seconds,
        "peak_memory_bytes": usage.peak_memory_bytes,
        "cost": usage.cpu_seconds / 3600 * limits.cpu_hour_price if limits.cpu_hour_price else None,
    }
    _finish_page(ledger, job, values, settings)
    ledger.with_retries(lambda: close_row(ledger, job.id, values))
    try:
        outputs = publish_outputs(job.folder, job.row["outputs"], settings)
    except D2CError as err:
        outputs = {**job.row["outputs"], "refused": err.what}
    if outputs != job.row["outputs"]:
        ledger.with_retries(lambda: move_outputs(ledger, job.id, outputs))


def _finish_page(ledger: Ledger, job: RunJob, values: Mapping[str, Any], settings: Settings) -> None:
    """Add the run's details to the top of its page; if the disk is full, only the page is lost."""
    run = replace(ledger.with_retries(lambda: find_run(ledger, job.id)), **values)
    zone = settings.jobs[run.job].zone if run.job and run.job in settings.jobs else None
    with suppress(OSError):
        finish_page(run, job.folder / OUTPUTS["html"], zone, settings.cpu_hour_price)


def current_user() -> str:
    """Return the name of the machine's user that this process runs as."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"user {os.getuid()}"


def _last_line(job: RunJob) -> str:
    lines = (job.folder / OUTPUTS["log"]).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else "it printed nothing"


def _git_commit(root: Path) -> str | None:
    """Return the git commit of the project, with `+changes` if the work tree has changes; None outside of git."""
    try:
        head = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5)
        if head.returncode:
            return None
        dirty = subprocess.run(["git", "-C", str(root), "diff", "--quiet", "HEAD"], capture_output=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return head.stdout.strip() + ("+changes" if dirty.returncode else "")
