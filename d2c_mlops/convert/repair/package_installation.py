"""Install missing packages into a separate folder, never into the environment."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from d2c_mlops.errors import Temporary
from d2c_mlops.programs import find_program

# A name as the packaging standard writes it, extras and versions: no URL, path or option can be written so.
_NAME = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?(?:\[[A-Za-z0-9._,-]+\])?(?:(?:[=!~<>]=|[<>])[A-Za-z0-9.*+!]+,?)*"
)
_WHEELS = ("--only-binary", ":all:")  # building a package would run its author's code outside of all isolation
KEPT = ("numpy", "pandas", "scikit-learn", "scipy", "statsmodels", "matplotlib", "lightgbm", "ipython")
_PASSED = re.compile(
    r"(?i)^(?:path|home|lang|tmpdir|ssl_cert_(?:file|dir)|requests_ca_bundle|(?:https?|no|all)_proxy|(?:uv|pip)_.*)$"
)
_MADE = re.compile(r"^ \+ ([\w.-]+==\S+)", re.MULTILINE)
_SECONDS = 900


@dataclass(frozen=True)
class InstallResult:
    """The result of an installation: installed distributions with versions, and failed ones with the reason."""

    made: tuple[str, ...]
    failed: dict[str, str]


def install(distributions: Sequence[str], folder: Path) -> InstallResult:
    """Install distributions and what they need, beyond what is installed, into `folder`; one at a time where all fail.

    Only names are taken, with extras and versions, and only wheels: an installation runs no code of a package. The versions of the libraries in KEPT stay as they are. Raises Temporary where uv is missing.
    """
    if (uv := find_program("uv")) is None:
        raise Temporary("uv is not installed, so no package can be installed", next="pip install uv")
    wrong = {name: "it is not a valid distribution name" for name in distributions if not _NAME.fullmatch(name)}
    distributions = [name for name in distributions if name not in wrong]
    if not distributions:
        return InstallResult((), wrong)
    folder.mkdir(parents=True, exist_ok=True)
    folder = folder.resolve()
    installed, why = _install_packages(uv, distributions, folder)
    if why is None:
        return InstallResult(tuple(installed), wrong)
    if len(distributions) == 1:
        return InstallResult((), wrong | {distributions[0]: why})
    every = [install([distribution], folder) for distribution in distributions]
    failed = wrong | {name: reason for result in every for name, reason in result.failed.items()}
    return InstallResult(tuple(name for result in every for name in result.made), failed)


def _install_packages(uv: str, distributions: Sequence[str], folder: Path) -> tuple[list[str], str | None]:
    constraints = folder / ".kept.txt"
    constraints.write_text("".join(f"{name}=={version}\n" for name in KEPT if (version := _installed_version(name))))
    common = ["--python", sys.executable, *_WHEELS]
    plan = [uv, "pip", "install", "--dry-run", *common, "--constraint", str(constraints), "--", *distributions]
    planned = _run_installer(plan, folder)
    if planned.returncode:
        return [], _failure_reason(planned.stderr)
    requirements = [match for match in _MADE.findall(planned.stderr) if not _is_installed(folder, match)]
    if not requirements:
        return [], None
    process = _run_installer(
        [
            uv,
            "pip",
            "install",
            "--compile-bytecode",
            *common,
            "--target",
            str(folder),
            "--no-deps",
            "--",
            *requirements,
        ],
        folder,
    )
    return (requirements, None) if process.returncode == 0 else ([], _failure_reason(process.stderr))


def _run_installer(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run an installer with the environment variables that it needs, outside of the notebook's folders."""
    variables = {name: value for name, value in os.environ.items() if _PASSED.match(name)}
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, env=variables, cwd=folder, check=False
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer within {_SECONDS} s")


def _installed_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _is_installed(folder: Path, requirement: str) -> bool:
    name, _, version = requirement.partition("==")
    return any(folder.glob(f"{name.replace('-', '_')}-{version}.dist-info"))


def _failure_reason(text: str) -> str:
    """Return the part of an installer's message with the reason."""
    lines = [re.sub(r"^[\s│╰─▶××]+", "", line).strip() for line in text.splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(("Using Python", "Resolved")))[:600]
