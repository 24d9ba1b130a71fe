"""Evidence for the gate: checks and metrics of a version from a clean process, cached by the digests of code, data and parameters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import pandas as pd

from d2c_mlops import __version__
from d2c_mlops.errors import D2CError, Failure, Temporary
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.model import class_path, code_digest, model_class_at
from d2c_mlops.registry.evaluators import Evaluator, evaluator_of
from d2c_mlops.registry.versions import Version, all_versions, find_version, model_class, version_files
from d2c_mlops.settings import Settings

FOLDER, LIMIT = "gate", 3600.0  # folder below the store; time limit of a clean process in seconds
FORMAT = 1  # of the evidence; a new number invalidates all cached evidence


@dataclass(frozen=True)
class Evidence:
    """The result of one task, or the error why there is none."""

    result: dict[str, Any]
    frame: pd.DataFrame | None = None

    @property
    def error(self) -> str:
        """Why there is no result; empty if there is one."""
        return str(self.result.get("error", ""))

    @property
    def failures(self) -> list[dict[str, str]]:
        """The broken rules."""
        return list(self.result.get("failures", []))


@dataclass(frozen=True)
class EvidenceRequest:
    """A task for a version: check its rules, or measure its predictions on the data of `ground`."""

    kind: str  # rules, answers, observe, disguise, change
    version: Version
    data_version: Version
    since: date | None = None  # first day of a change: `version` as it stands beside `data_version` fitted anew


def collect_evidence(requests: Sequence[EvidenceRequest], settings: Settings) -> list[Evidence]:
    """Return the evidence for each request; missing evidence is computed in one clean process."""
    tasks = [_task_of(request, settings) for request in requests]
    missing = [task for task in tasks if "error" not in task and not Path(task["file"]).exists()]
    if missing:
        _run_clean_process(missing, settings)
    return [_read_result(task) for task in tasks]


@dataclass(frozen=True)
class CheckReport:
    """The rules that a model follows, and the failures of the other rules."""

    name: str
    rules: list[str]
    failures: list[Failure]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {"model": self.name, "rules": self.rules, "failures": [vars(failure) for failure in self.failures]}


def check_version(model: str, settings: Settings, number: int | None = None) -> CheckReport:
    """Check a version in a clean process, by default the newest; only the class if there is no version."""
    ledger = Ledger.of(settings)
    if number is None and not all_versions(ledger, model):
        return _check_class(model, settings)
    version = find_version(ledger, model, number)
    results = collect_evidence(
        [EvidenceRequest("rules", version, version), EvidenceRequest("answers", version, version)], settings
    )
    failures = [Failure(result.error.strip(), "clean process") for result in results if result.error]
    failures += [Failure(**failure) for result in results for failure in result.failures]
    rules = [
        rule for result in results for rule in result.result.get("rules", []) if rule not in {f.where for f in failures}
    ]
    return CheckReport(f"version {version.version} of {model}", list(dict.fromkeys(rules)), failures)


def _check_class(model: str, settings: Settings) -> CheckReport:
    cls = model_class(model, settings)
    code = code_digest(cls)
    file = settings.store / FOLDER / f"rules-{sha256(f'{class_path(cls)} {code}'.encode()).hexdigest()[:32]}.json"
    of = {"kind": "rules", "class": class_path(cls), "code": code, "package": __version__}
    task = {**of, "of": of, "file": str(file), "frame": "", "packages": list(settings.packages)}
    if not file.exists():
        _run_clean_process([task], settings)
    result = _read_result(task)
    failures = [Failure(result.error.strip(), "clean process")] if result.error else []
    failures += [Failure(**failure) for failure in result.failures]
    return CheckReport(f"{model} ({class_path(cls)})", list(result.result.get("rules", [])), failures)


def find_evaluator(version: Version, settings: Settings) -> Evaluator | None:
    """Return the evaluator for a version; None if there is none for its kind of model."""
    model_class(version.model, settings)  # makes the project's packages importable
    return evaluator_of(version.schema, settings.packages)


def _task_of(request: EvidenceRequest, settings: Settings) -> dict[str, Any]:
    """Return a task for the clean process; its file is named by the digest of everything that the result depends on."""
    is_change = request.kind == "change"
    version = request.data_version if is_change else request.version  # the one that is fitted or checked
    data = (request.data_version.inputs or [{"name": "", "digest": ""}])[0]
    loaded = request.version if is_change or request.kind == "answers" else None
    try:
        model_class(version.model, settings)
        folder = str(version_files(loaded, settings)) if loaded is not None else ""
        code = code_digest(model_class_at(version.model_class, settings.packages))
    except D2CError as err:
        return {"error": str(err)}
    of: dict[str, Any] = {"kind": request.kind, "class": version.model_class, "code": code, "package": __version__}
    if request.kind != "rules":
        of |= {
            "digest": data["digest"],
            "dataset": data["name"],
            "as_of": request.data_version.as_of,
            "params": version.params,
        }
    if loaded is not None:
        of |= {"files": loaded.sha256}
    if is_change:
        of |= {"since": str(request.since), "known_until": request.version.as_of}
    if request.kind in ("observe", "disguise", "change"):
        measuring = find_evaluator(version, settings)
        ground = request.data_version.schema
        of |= {
            "spacing": measuring.horizon(ground) if measuring is not None else ground.horizon,
            "charter": version.charter,
            "evaluators": _evaluators_digest(version, settings),
        }
        if measuring is not None and measuring.own_files:  # its files have no digest, so the result is never reused
            of |= {"params": _params_with_files_of(request, settings), "moment": uuid4().hex}
    digest = sha256(json.dumps([FORMAT, of], sort_keys=True, default=str).encode()).hexdigest()[:32]
    file = settings.store / FOLDER / f"{request.kind}-{digest}.json"
    defaults = {"digest": "", "dataset": "", "as_of": "", "params": {}, "charter": {}, "spacing": 0}
    files = {"of": of, "file": str(file), "frame": str(file.with_suffix(".parquet")), "folder": folder}
    return {**defaults, **of, **files, "store": str(settings.store), "packages": list(settings.packages)}


def _params_with_files_of(request: EvidenceRequest, settings: Settings) -> dict[str, Any]:
    """Return the parameters of a version; those that name a file or folder are taken from the data version."""
    theirs = request.data_version.params
    files = {
        name for name, value in theirs.items() if isinstance(value, str) and value and (settings.root / value).exists()
    }
    return {name: theirs[name] if name in files else value for name, value in request.version.params.items()}


def _evaluators_digest(version: Version, settings: Settings) -> str:
    """Return the SHA-256 of the Python files in the folder of a version's evaluator."""
    file = getattr(sys.modules.get(type(find_evaluator(version, settings)).__module__), "__file__", None)
    files = sorted(Path(file).parent.glob("*.py")) if file else []
    return sha256(b"".join(sha256(path.read_bytes()).digest() for path in files)).hexdigest()


def _run_clean_process(tasks: Sequence[dict[str, Any]], settings: Settings) -> None:
    """Run tasks in a clean process; each task writes its own file."""
    (settings.store / FOLDER).mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([str(settings.root), *(part for part in sys.path if part)])
    with TemporaryDirectory() as name:
        file = Path(name, "tasks.json")
        file.write_text(json.dumps(list(tasks), default=str), encoding="utf-8")
        command = [sys.executable, "-m", "d2c_mlops.registry.clean_process", str(file)]
        try:
            process = subprocess.run(
                command, cwd=settings.root, env=os.environ | {"PYTHONPATH": path, "MPLBACKEND": "agg"},
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Temporary(
                f"the gate's clean process took longer than {LIMIT:.0f} seconds", next="repeat on a faster machine"
            ) from None
    if process.returncode and (absent := [task for task in tasks if not Path(task["file"]).exists()]):
        last = next((line for line in reversed(process.stderr.splitlines()) if line and line[0] != " "), "no message")
        raise Temporary(
            f"the clean process of the gate ended with exit code {process.returncode} in the task {absent[0]['kind']} of {absent[0]['class']}",
            where=last, next="check the free memory of this machine and repeat",
        )  # fmt: skip


def _read_result(task: dict[str, Any]) -> Evidence:
    """Return the result of a task; an error is not cached, so the task is run again the next time."""
    if "error" in task:
        return Evidence({"error": task["error"]})
    file, frame = Path(task["file"]), Path(task["frame"])
    result = json.loads(file.read_text(encoding="utf-8"))
    if "error" in result:
        file.unlink(missing_ok=True)
        return Evidence(result)
    return Evidence(result, pd.read_parquet(frame) if task["kind"] in ("observe", "disguise", "change") else None)
