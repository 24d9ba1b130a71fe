"""The packages of a run, stored once per set of versions under the digest of the list."""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Mapping
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from d2c_mlops.settings import Settings

INSTALLED = re.compile(r"(.+?)-([^-]+)\.(?:dist|egg)-info")


@cache
def installed_packages() -> dict[str, str]:
    """Return the versions of the installed packages, by the names of their folders: reading each costs half a second."""
    versions: dict[str, str] = {}
    for entry in sys.path:
        folder = Path(entry)
        for path in sorted(folder.glob("*-info")) if folder.is_dir() else ():
            if match := INSTALLED.fullmatch(path.name):
                versions.setdefault(match[1].lower().replace("_", "-"), match[2])
    return dict(sorted(versions.items()))


def store_environment(settings: Settings) -> dict[str, str]:
    """Store the list of packages and return Python's version and the list's digest for the run's record."""
    text = "".join(f"{name}=={version}\n" for name, version in installed_packages().items())
    digest = sha256(text.encode()).hexdigest()[:16]
    file = _lock_file(settings, digest)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(f".{id(text)}.tmp")
        draft.write_text(text, encoding="utf-8")
        draft.replace(file)
    return {"python": platform.python_version(), "packages": digest}


def environment_packages(settings: Settings, environment: Mapping[str, Any] | None) -> dict[str, str]:
    """Return the packages of a run with their versions; empty if the list is not on this machine."""
    file = _lock_file(settings, str((environment or {}).get("packages")))
    if not file.exists():
        return {}
    return dict(line.split("==", 1) for line in file.read_text(encoding="utf-8").splitlines())


def _lock_file(settings: Settings, digest: str) -> Path:
    return settings.store / "environments" / f"{digest}.txt"
