"""The kernel of a notebook: the project's Python, or another installed kernel that the notebook names."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from d2c_mlops.errors import UsageError

PROJECT = "python3"  # the kernel of this environment's Python, whatever is installed under that name elsewhere
PYTHONS = ("", "python", "python3")
# Names of kernels whose notebooks may not say their language.
LANGUAGES = {"ir": "R", "julia": "Julia", "bash": "bash", "scala": "scala", "almond": "scala", "javascript": "javascript",
             "deno": "typescript", "tslab": "typescript", "rust": "rust", "gonb": "go", "octave": "octave", "stata": "stata",
             "sas": "sas", "matlab": "matlab", ".net-csharp": "C#", "kotlin": "kotlin", "sparkr": "R"}  # fmt: skip


@dataclass(frozen=True)
class Kernel:
    """The kernel of a run; `note` says if it differs from the kernel with which the notebook was saved."""

    name: str
    language: str
    note: str = ""


def choose_kernel(metadata: Mapping[str, Any], where: str) -> Kernel:
    """Return the kernel for a notebook's metadata. Raises UsageError if no kernel for its language is installed."""
    spec = metadata.get("kernelspec") or {}
    name = str(spec.get("name") or "")
    language = _kernel_language(name, spec, metadata.get("language_info") or {})
    if language == "python" and name in PYTHONS:
        return Kernel(PROJECT, language)
    languages = installed_kernels()
    if name in languages:
        return Kernel(name, languages[name])
    if language == "python":
        note = f"saved with the kernel {name!r}, which is not installed here; ran on the project's Python "
        return Kernel(PROJECT, language, f"{note}{platform.python_version()} ({sys.executable})")
    same = sorted(kernel for kernel, spoken in languages.items() if spoken.lower() == language.lower())
    if same:
        return Kernel(
            same[0], language, f"saved with the kernel {name!r}, which is not installed here; ran on {same[0]}"
        )
    others = ", ".join(f"{kernel} ({spoken})" for kernel, spoken in sorted(languages.items()))
    raise UsageError(
        f"the notebook is written in {language} and no kernel for it is installed (it names {name or 'none'!r})",
        where=where,
        next=f"install a kernel for {language}; `{sys.executable} -m jupyter kernelspec list` shows what is installed: "
        f"{others}",
    )


def installed_kernels() -> dict[str, str]:
    """Return the installed kernels with their languages, without those whose program is missing."""
    from jupyter_client.kernelspec import KernelSpecManager

    manager = KernelSpecManager()
    languages = {PROJECT: "python"}
    for name in manager.find_kernel_specs():
        try:
            spec = manager.get_kernel_spec(name)
        except (OSError, ValueError):  # its file is gone or broken
            continue
        program = str(spec.argv[0]) if spec.argv else ""
        if name not in PYTHONS and (program == "python" or Path(program).exists() or shutil.which(program)):
            languages[name] = "python" if str(spec.language).lower() in ("python", "ipython") else str(spec.language)
    return languages


def _kernel_language(name: str, spec: Mapping[str, Any], info: Mapping[str, Any]) -> str:
    language = str(spec.get("language") or info.get("name") or "")
    if not language:
        starts = (
            language
            for start, language in LANGUAGES.items()
            if name.lower() == start or name.lower().startswith(f"{start}-")
        )
        language = next(starts, "python")
    return "python" if language.lower() in ("python", "python3", "ipython") else language
