"""Requirements of a service: the distributions that it imports, pinned to the installed versions."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions
from pathlib import Path

from packaging.requirements import Requirement

from d2c_mlops.errors import Failure, UsageError, child_error

FOR_A_SERVICE = ("D2C_SERVICE_", "D2C_MODEL_FOLDER", "D2C_BENTO_")  # variables that a service reads when it starts
FORBIDDEN = ("nbdev", "papermill", "mlflow", "jupyterlab", "execnb", "fastcore")
PROBE = """
import json, sys
from pathlib import Path
from d2c_mlops.serving.predict.older_contracts import load_model as load
from d2c_mlops.models.core.contract import to_frame
import httptools, uvloop  # uvicorn uses them if they are installed
import d2c_mlops.serving.app.service
import d2c_mlops.serving.http.tracing
for folder in filter(Path.is_dir, (Path("model"), Path("challenger"))):
    model = load(folder)
    try:
        model.predict(model.contract.check_inputs(to_frame(model.contract.input_fields, [model.contract.example()])))
    except Exception:
        pass
    kept = folder / "example.json"
    if folder.name == "model" and kept.exists():  # the service must be able to predict a record that the model has predicted before
        record = json.loads(kept.read_text(encoding="utf-8"))
        model.predict(model.contract.check_inputs(to_frame(model.contract.input_fields, [record])))
here = str(Path.cwd())
beside = sorted(n for n, m in sys.modules.items() if n.startswith("d2c_mlops.") and not str(m.__file__).startswith(here))
if beside:  # imported from the installed package, which does not exist where the service runs
    raise ImportError(f"{', '.join(beside)} are not packaged with it")
from d2c_mlops.serving.predict.older_contracts import FOLDER, contract_breach
broken = {folder.name: why for folder in sorted(Path(FOLDER).glob("*")) if (why := contract_breach(folder))}
print(json.dumps([sorted({name.partition(".")[0] for name in sys.modules}), broken]))
"""


def pinned_requirements(context: Path) -> list[str]:
    """Return `name==version` of every distribution that the service in `context` imports, and of what those require."""
    environment, command = bare_environment(os.environ), [sys.executable, "-c", PROBE]
    probe = subprocess.run(command, cwd=context, env=environment, capture_output=True, text=True, timeout=300)
    if probe.returncode:
        raise child_error(probe.stderr, "the service does not start", where=str(context))
    modules, broken = json.loads(probe.stdout.splitlines()[-1])
    if broken:
        raise UsageError(
            "the current code breaks an older version of the contract that is still supported",
            failures=[Failure(why, f"contract {major}") for major, why in broken.items()],
            next="keep its class in the package, or end its support: sunset.MAJOR = DAY in the model's section of settings.ini",
        )
    owners = packages_distributions()
    roots = {
        _requirement_key(owner)
        for module in modules
        for owner in owners.get(module, ())
        if _requirement_key(owner) != "d2c-mlops"
    }
    distributions = transitive_versions(roots)
    wrong = [name for name in FORBIDDEN if name in distributions]
    if wrong:
        raise UsageError(
            f"the model imports {', '.join(wrong)} into the service",
            where=str(context),
            next="import training libraries inside fit, not at the top of the module",
        )
    return [f"{name}=={version}" for name, version in sorted(distributions.items())]


def bare_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the variables that a service reads: they must not affect a service that is being built.

    Production mode, for example, requires API keys, which a build does not have.
    """
    environment = {name: text for name, text in environ.items() if not name.startswith(FOR_A_SERVICE)}
    return {**environment, "D2C_SERVICE_MODE": "development"}


def transitive_versions(roots: Iterable[str]) -> dict[str, str]:
    """Return the installed versions of some distributions and of all their requirements, without extras."""
    versions: dict[str, str] = {}
    todo = list(roots)
    while todo:
        name = _requirement_key(todo.pop())
        if name in versions:
            continue
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            continue  # wanted on another platform or Python only
        versions[name] = installed.version
        for line in installed.requires or ():
            requirement = Requirement(line)
            extras = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if extras:
                todo.append(requirement.name)
    return versions


def _requirement_key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
