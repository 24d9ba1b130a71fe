"""Files for other schedulers, which call `d2c run`. Each module of this package with TARGET is an export target."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from d2c_mlops.errors import UsageError
from d2c_mlops.runs.exports.export_parts import MARK, ExportContext, ExportTarget
from d2c_mlops.runs.schedule.jobs import Job


def targets() -> dict[str, ExportTarget]:
    """Return the targets by name."""
    modules = [import_module(f"{__name__}.{info.name}") for info in iter_modules(__path__)]
    listed = [module.TARGET for module in modules if hasattr(module, "TARGET")]
    return {target.name: target for target in sorted(listed, key=lambda target: target.name)}


def export(jobs: Mapping[str, Job], target: str, folder: Path, context: ExportContext) -> list[Path]:
    """Write the files of a target and return their paths; only files of an earlier export are replaced."""
    available = targets()
    if target not in available:
        raise UsageError(f"unknown target {target!r}", next=f"use one of: {', '.join(available)}")
    if not jobs:
        raise UsageError("no jobs to export", next="add a section [schedule:NAME] to settings.ini")
    contents = {folder / name: text for name, text in available[target].files(jobs, context).items()}
    foreign = [
        path for path in contents if path.exists() and MARK not in path.read_text(encoding="utf-8").split("\n\n")[0]
    ]
    if foreign:
        raise UsageError(
            "this file was not written by an export", where=str(foreign[0]), next="move it, or use another --out"
        )
    for path, text in contents.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(path.name + ".tmp")
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    return list(contents)
