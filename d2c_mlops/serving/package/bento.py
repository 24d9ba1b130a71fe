"""Package a version as a Bento, offline, with only what serving needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from d2c_mlops.errors import Temporary, UsageError, child_error
from d2c_mlops.file_lock import lock
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.model import EXAMPLE_FILE
from d2c_mlops.private_files import private_folder
from d2c_mlops.registry.versions import Version, copy_verified_files, folder_digest, model_class
from d2c_mlops.serving.bento_files import LIST as FILES
from d2c_mlops.serving.bento_files import check_bento_files, digests_as_bytes, file_digests, file_list_digest
from d2c_mlops.serving.package.requirements import bare_environment, pinned_requirements
from d2c_mlops.serving.predict.older_contracts import FILE as OLDER_FILE
from d2c_mlops.serving.predict.older_contracts import FOLDER as OLDER
from d2c_mlops.serving.predict.older_contracts import OlderContract
from d2c_mlops.serving.predict.sunsets import supported_older_contracts
from d2c_mlops.settings import Settings

# Contents of an image: complete packages and modules of d2c_mlops, and the modules directly in "serving".
PARTS = (
    "__init__.py",
    "errors.py",
    "file_lock.py",
    "former_modules.py",
    "former_names.py",
    "former_objects.py",
    "library_versions.py",
    "memory_limit.py",
    "parallel.py",
    "parent_death.py",
    "private_files.py",
    "settings",
    "data",
    "models",
    "serving/*.py",
    "serving/app",
    "serving/http",
    "serving/log",
    "serving/predict",
    "serving/rollout",
)
BUILD_WAIT = 300.0  # seconds
NO_CODE = ("__pycache__", "*.ipynb")


@dataclass(frozen=True)
class Bento:
    """A packaged version."""

    tag: str
    folder: Path
    made: bool  # False when an existing Bento was reused
    sha256: str = ""  # digest of the list of its files
    version: int = 0  # of the model; 0: not known

    def to_dict(self) -> dict[str, Any]:
        """Return the Bento as JSON values."""
        return {
            "tag": self.tag,
            "folder": str(self.folder),
            "made": self.made,
            "sha256": self.sha256,
            "version": self.version,
        }


def bentoml_environment(settings: Settings) -> dict[str, str]:
    """Return the environment for BentoML's commands: the project's store, no telemetry, quiet."""
    home = settings.store / "bentoml"
    private_folder(home)
    return {**os.environ, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True", "PYTHONWARNINGS": "ignore"}


def package_model_version(version: Version, settings: Settings, challenger: Version | None = None) -> Bento:
    """Build the Bento of a version, optionally with a challenger.

    A Bento of the same files and code is reused.
    """
    if challenger is not None and challenger.version == version.version:
        challenger = None
    with TemporaryDirectory(prefix="d2c-bento-") as name:
        context = Path(name)
        copy_verified_files(version, settings, context / "model")
        model_class(version.model, settings)
        _copy_code(version, context)
        if challenger is not None:
            _copy_package(challenger, context)
            copy_verified_files(challenger, settings, context / "challenger")
        _copy_older(supported_older_contracts(Ledger.of(settings), version, settings), settings, context)
        code = folder_digest(context)
        tag = f"{version.model}:v{version.version}-{code[:12]}"
        folder = settings.store / "bentoml" / "bentos" / version.model / tag.partition(":")[2]
        for name, described in (("version.json", version), ("challenger.json", challenger)):
            if described is not None:
                (context / name).write_text(json.dumps(_version_metadata(described), indent=1), encoding="utf-8")
        files = digests_as_bytes(_copied_digests(version, context))
        bento = Bento(tag, folder, made=False, sha256=file_list_digest(files), version=version.version)
        if (folder / "bento.yaml").exists():
            check_bento_files(folder / "src", bento.sha256)
            return bento
        (context / "requirements.txt").write_text("\n".join(pinned_requirements(context)) + "\n", encoding="utf-8")
        (context / "bentofile.yaml").write_text(json.dumps(_bentofile(version), indent=1), encoding="utf-8")
        _without_examples(context)
        with lock(settings.store / "bentoml", "Bentos", BUILD_WAIT):
            if (folder / "bento.yaml").exists():
                return bento
            (context / FILES).write_bytes(files)
            _build_bento(context, tag, settings)
            check_bento_files(folder / "src", bento.sha256)
    return replace(bento, made=True)


def _copied_digests(version: Version, context: Path) -> dict[str, str]:
    """Return the digests of the files that BentoML copies from a folder, by their path in the Bento."""
    included = {path.partition("/")[0] for path in _bentofile(version)["include"]}
    digests = {}
    for name, value in file_digests(context).items():
        top, last = name.partition("/")[0], name.rpartition("/")[2]
        example = top in ("model", "challenger", OLDER) and last == EXAMPLE_FILE
        if (top in included or name.endswith(".py")) and not example:
            digests[name] = value
    return digests


def image_files_digest(version: Version, image: str, settings: Settings) -> str:
    """Return the digest of the files of an image built on this machine; empty for other images."""
    folder = settings.store / "bentoml" / "bentos" / version.model
    for file in sorted(folder.glob(f"v{version.version}-*/image.json"), key=lambda file_: -file_.stat().st_mtime):
        listed = file.parent / "src" / FILES
        if json.loads(file.read_text(encoding="utf-8"))["tag"] == image and listed.exists():
            return file_list_digest(listed.read_bytes())
    return ""


def _without_examples(context: Path) -> None:
    """Remove example records of training data, because an image may be given to others."""
    for folder in ("model", "challenger", OLDER):
        for file in (context / folder).rglob(EXAMPLE_FILE):
            file.unlink()


def copy_inside(source: Path, target: Path, *left_out: str) -> None:
    """Copy a folder; symbolic links are followed only inside it, others are skipped.

    Targets outside (a home folder, keys, another project) must not enter the store or an image.
    """
    by_pattern, root = shutil.ignore_patterns(*left_out), source.resolve()

    def ignored(folder: str, names: list[str]) -> set[str]:
        linked = {name for name in names if not Path(folder, name).resolve().is_relative_to(root)}
        gone = {name for name in names if not Path(folder, name).exists()}
        return {*by_pattern(folder, names), *linked, *gone}

    shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)


def code_files() -> dict[str, Path]:
    """Return the modules of this package that enter an image, by their paths in it."""
    home = Path(__file__).parents[2]
    places = (path for part in PARTS for path in (home.glob(part) if "*" in part else [home / part]))
    files = (file for path in places for file in ([path] if path.is_file() else path.rglob("*")))
    return {
        file.relative_to(home.parent).as_posix(): file
        for file in files
        if file.is_file() and file.suffix != ".ipynb" and "__pycache__" not in file.parts
    }


def _copy_code(version: Version, context: Path) -> None:
    for place, source in code_files().items():
        (context / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, context / place)
    _copy_package(version, context)


def _copy_older(older_versions: list[tuple[OlderContract, Version]], settings: Settings, context: Path) -> None:
    """Copy the last champion of each older major version of the contract before its sunset."""
    for old, version in older_versions:
        if old.sunset is None or old.sunset > datetime.now(UTC):
            _copy_package(version, context)
            copy_verified_files(version, settings, context / OLDER / str(old.major))
    if older_versions:
        entries = [{**old.to_dict(), "about": _version_metadata(version)} for old, version in older_versions]
        (context / OLDER_FILE).write_text(json.dumps(entries, indent=1), encoding="utf-8")


def _version_metadata(version: Version) -> dict[str, Any]:
    names = ("model", "version", "run_id", "as_of", "package_version", "sha256")
    return {name: getattr(version, name) for name in names}


def _copy_package(version: Version, context: Path) -> None:
    """Copy the package of the model's class, unless it is d2c_mlops."""
    package = version.model_class.partition(":")[0].partition(".")[0]
    if package != "d2c_mlops":
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            raise UsageError(
                f"the package {package!r} of the model cannot be found", next="run from its project folder"
            )
        origin = Path(spec.origin)
        if origin.name == "__init__.py":
            copy_inside(origin.parent, context / package, *NO_CODE)
        else:
            shutil.copy2(origin, context / origin.name)


def _bentofile(version: Version) -> dict[str, Any]:
    """Return bentofile.yaml, written as JSON, which is valid YAML."""
    return {
        "service": "d2c_mlops.serving.app.service:Service",
        "name": version.model,
        "labels": {"model": version.model, "version": str(version.version), "run": version.run_id or "none"},
        "include": [
            "d2c_mlops/**",
            "model/**",
            "challenger/**",
            "version.json",
            "challenger.json",
            f"{OLDER}/**",
            OLDER_FILE,
            FILES,
            f"{version.model_class.partition(':')[0].partition('.')[0]}/**",
            "*.py",
        ],
        "python": {"requirements_txt": "./requirements.txt", "lock_packages": False},
        "envs": [{"name": "BENTOML_DO_NOT_TRACK", "value": "True"}],
    }


def _build_bento(context: Path, tag: str, settings: Settings) -> None:
    command = [sys.executable, "-m", "bentoml", "build", str(context), "--version", tag.partition(":")[2]]
    environment_ = bare_environment(bentoml_environment(settings))
    process = subprocess.run(command, cwd=context, env=environment_, capture_output=True, text=True, timeout=600)
    if process.returncode:
        text = (process.stderr or process.stdout).strip()
        if "No space left" in text:
            raise Temporary(
                "the disk is full", where=str(settings.store), next="free some disk space, then package again"
            )
        raise child_error(text, f"BentoML could not build {tag}")
