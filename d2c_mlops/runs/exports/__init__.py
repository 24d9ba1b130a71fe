"""Files for other schedulers, which call the same `d2c run`. A module with TARGET here is a target: no list to edit."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from d2c_mlops.errors import UsageError
from d2c_mlops.runs.exports.common import MARK, ExportTarget, Place
from d2c_mlops.runs.schedule.jobs import Job


def targets() -> dict[str, ExportTarget]:
    """Return the targets by name."""
    modules = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
    listed = [module.TARGET for module in modules if hasattr(module, "TARGET")]
    return {target.name: target for target in sorted(listed, key=lambda target: target.name)}


def export(jobs: Mapping[str, Job], target: str, folder: Path, place: Place) -> list[Path]:
    """Write the files of a target and return their paths; what an earlier export wrote is replaced, nothing else."""
    known = targets()
    if target not in known:
        raise UsageError(f"there is no target {target!r}", next=f"use one of: {', '.join(known)}")
    if not jobs:
        raise UsageError("there is no job to export", next="write a section [schedule:NAME] in settings.ini")
    made = {folder / name: text for name, text in known[target].files(jobs, place).items()}
    foreign = [path for path in made if path.exists() and MARK not in path.read_text(encoding="utf-8").split("\n\n")[0]]
    if foreign:
        raise UsageError(
            "this file is not from an export", where=str(foreign[0]), next="move it, or give another --out"
        )
    for path, text in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(path.name + ".tmp")
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    return list(made)
