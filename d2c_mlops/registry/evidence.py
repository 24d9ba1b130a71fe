"""Evidence for the gate: checks and metrics of a version from a clean process, cached by the digests of code, data and parameters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import uuid4

import pandas as pd

from d2c_mlops import __version__
from d2c_mlops.errors import D2CError, Failure, Temporary
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.model import class_path, code_digest, resolve
from d2c_mlops.registry.evaluators import Evaluator, evaluator_of
from d2c_mlops.registry.versions import Version, all_versions, files_of, find_version, model_class
from d2c_mlops.settings import Settings

FOLDER, LIMIT = "gate", 3600.0  # below the store; seconds that a clean process may take
FORMAT = 1  # of the evidence; another number makes all of it anew


@dataclass(frozen=True)
class Evidence:
    """The result of one task, or the error why there is none."""

    found: dict[str, Any]
    frame: pd.DataFrame | None = None

    @property
    def error(self) -> str:
        """Why there is no result; empty if there is one."""
        return str(self.found.get("error", ""))

    @property
    def failures(self) -> list[dict[str, str]]:
        """What breaks a rule."""
        return list(self.found.get("failures", []))


@dataclass(frozen=True)
class EvidenceRequest:
    """A task for a version: check its rules, or measure its predictions on the data of `ground`."""

    kind: str  # rules, answers, observe, disguise
    version: Version
    ground: Version


def evidence(asked: Sequence[EvidenceRequest], settings: Settings) -> list[Evidence]:
    """Return the evidence for each request; missing evidence is computed in one clean process."""
    tasks = [_task(each, settings) for each in asked]
    wanted = [task for task in tasks if "error" not in task and not Path(task["file"]).exists()]
    if wanted:
        _find_out(wanted, settings)
    return [_read(task) for task in tasks]


@dataclass(frozen=True)
class Checked:
    """The rules that a model follows, and the failures of the others."""

    name: str
    rules: list[str]
    failures: list[Failure]

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values."""
        return {"model": self.name, "rules": self.rules, "failures": [vars(failure) for failure in self.failures]}


def check(model: str, settings: Settings, number: int | None = None) -> Checked:
    """Check a version in a clean process, the newest when no number is given; the class alone where there is none yet."""
    ledger = Ledger.of(settings)
    if number is None and not all_versions(ledger, model):
        return _class_alone(model, settings)
    version = find_version(ledger, model, number)
    found = evidence(
        [EvidenceRequest("rules", version, version), EvidenceRequest("answers", version, version)], settings
    )
    failures = [Failure(each.error.strip(), "clean process") for each in found if each.error]
    failures += [Failure(**failure) for each in found for failure in each.failures]
    rules = [rule for each in found for rule in each.found.get("rules", []) if rule not in {f.where for f in failures}]
    return Checked(f"version {version.version} of {model}", list(dict.fromkeys(rules)), failures)


def _class_alone(model: str, settings: Settings) -> Checked:
    cls = model_class(model, settings)
    code = code_digest(cls)
    file = settings.store / FOLDER / f"rules-{sha256(f'{class_path(cls)} {code}'.encode()).hexdigest()[:32]}.json"
    of = {"kind": "rules", "class": class_path(cls), "code": code, "package": __version__}
    task = {**of, "of": of, "file": str(file), "frame": "", "packages": list(settings.packages)}
    if not file.exists():
        _find_out([task], settings)
    found = _read(task)
    failures = [Failure(found.error.strip(), "clean process")] if found.error else []
    failures += [Failure(**failure) for failure in found.failures]
    return Checked(f"{model} ({class_path(cls)})", list(found.found.get("rules", [])), failures)


def evaluator(version: Version, settings: Settings) -> Evaluator | None:
    """Return the evaluator for a version; None if there is none for its kind of model."""
    model_class(version.model, settings)  # makes the project's packages importable
    return evaluator_of(version.schema, settings.packages)


def _task(asked: EvidenceRequest, settings: Settings) -> dict[str, Any]:
    """Return a question as the clean process reads it, and the file that is named by all that the answer depends on."""
    version, data = asked.version, (asked.ground.inputs or [{"name": "", "digest": ""}])[0]
    try:
        model_class(version.model, settings)
        folder = str(files_of(version, settings)) if asked.kind == "answers" else ""
        code = code_digest(resolve(version.model_class, settings.packages))
    except D2CError as err:
        return {"error": str(err)}
    of: dict[str, Any] = {"kind": asked.kind, "class": version.model_class, "code": code, "package": __version__}
    if asked.kind != "rules":
        of |= {"digest": data["digest"], "dataset": data["name"], "as_of": asked.ground.as_of, "params": version.params}
    if asked.kind == "answers":
        of |= {"files": version.sha256}
    if asked.kind in ("observe", "disguise"):
        known = evaluator(version, settings)
        ground = asked.ground.schema
        of |= {
            "spacing": known.horizon(ground) if known is not None else ground.horizon,
            "charter": version.charter,
            "evaluators": _evaluators_digest(version, settings),
        }
        if (
            known is not None and known.own_files
        ):  # no digest tells whether its files are the same, so it is measured anew
            of |= {"params": _on_files_of(asked, settings), "moment": uuid4().hex}
    digest = sha256(json.dumps([FORMAT, of], sort_keys=True, default=str).encode()).hexdigest()[:32]
    file = settings.store / FOLDER / f"{asked.kind}-{digest}.json"
    defaults = {"digest": "", "dataset": "", "as_of": "", "params": {}, "charter": {}, "spacing": 0}
    here = {"of": of, "file": str(file), "frame": str(file.with_suffix(".parquet")), "folder": folder}
    return {**defaults, **of, **here, "store": str(settings.store), "packages": list(settings.packages)}


def _on_files_of(asked: EvidenceRequest, settings: Settings) -> dict[str, Any]:
    """Return the parameters of a version with those that name a file or folder taken from the ground."""
    theirs = asked.ground.params
    files = {
        name for name, value in theirs.items() if isinstance(value, str) and value and (settings.root / value).exists()
    }
    return {name: theirs[name] if name in files else value for name, value in asked.version.params.items()}


def _evaluators_digest(version: Version, settings: Settings) -> str:
    """Return the SHA-256 of the Python files beside the evaluator that measures a version."""
    file = getattr(sys.modules.get(type(evaluator(version, settings)).__module__), "__file__", None)
    files = sorted(Path(file).parent.glob("*.py")) if file else []
    return sha256(b"".join(sha256(path.read_bytes()).digest() for path in files)).hexdigest()


def _find_out(tasks: Sequence[dict[str, Any]], settings: Settings) -> None:
    """Let a clean process do tasks, each of which leaves its own file."""
    (settings.store / FOLDER).mkdir(parents=True, exist_ok=True)
    path = os.pathsep.join([str(settings.root), *(part for part in sys.path if part)])
    with TemporaryDirectory() as name:
        file = Path(name, "tasks.json")
        file.write_text(json.dumps(list(tasks), default=str), encoding="utf-8")
        command = [sys.executable, "-m", "d2c_mlops.registry.clean_process", str(file)]
        try:
            done = subprocess.run(
                command, cwd=settings.root, env=os.environ | {"PYTHONPATH": path, "MPLBACKEND": "agg"},
                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Temporary(
                f"the gate's clean process took longer than {LIMIT:.0f} seconds", next="repeat on a faster machine"
            ) from None
    if done.returncode and (absent := [task for task in tasks if not Path(task["file"]).exists()]):
        last = next((line for line in reversed(done.stderr.splitlines()) if line and line[0] != " "), "no message")
        raise Temporary(
            f"the clean process of the gate ended with {done.returncode} at {absent[0]['kind']} of {absent[0]['class']}",
            where=last, next="look at the memory of this machine, then repeat",
        )  # fmt: skip


def _read(task: dict[str, Any]) -> Evidence:
    """Return the result of a task; a result that is an error is found out anew the next time."""
    if "error" in task:
        return Evidence({"error": task["error"]})
    file, frame = Path(task["file"]), Path(task["frame"])
    found = json.loads(file.read_text(encoding="utf-8"))
    if "error" in found:
        file.unlink(missing_ok=True)
        return Evidence(found)
    return Evidence(found, pd.read_parquet(frame) if task["kind"] in ("observe", "disguise") else None)
