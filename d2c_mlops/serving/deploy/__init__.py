"""Files that bring a packaged model to a platform. A module with TARGET here is a target: no list to edit."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from ...data.store import write_atomic
from ...errors import UsageError

MARK = "Written by `d2c deploy`"


@dataclass(frozen=True)
class Size:
    """What one replica may use and how many there are; the figures of `d2c package` and a load test, or of a person."""

    cpu: float = 1.0  # processors of a replica
    memory_mb: int = 512  # resident memory of a replica
    least: int = 2  # replicas
    most: int = 6
    request_ms: float = 500.0  # latency of the 99th percentile above which people are told


@dataclass(frozen=True)
class Plan:
    """What is deployed."""

    model: str
    version: int
    image: str
    size: Size
    port: int = 3000

    @property
    def slug(self) -> str:
        """The model's name as DNS allows it."""
        return self.model.replace("_", "-")


@dataclass(frozen=True)
class Target:
    """A platform that files can be written for."""

    name: str
    about: str
    files: Callable[[Plan], dict[str, str]]
    next: str  # the command that brings them there; {folder} is where they are


def targets() -> dict[str, Target]:
    """Return the targets by name."""
    modules = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
    listed = [module.TARGET for module in modules if hasattr(module, "TARGET")]
    return {target.name: target for target in sorted(listed, key=lambda target: target.name)}


def deploy(plan: Plan, target: str, folder: Path) -> list[Path]:
    """Write the files of a target and return their paths; what an earlier call wrote is replaced, nothing else."""
    known = targets()
    if target not in known:
        raise UsageError(f"there is no target {target!r}", next=f"use one of: {', '.join(known)}")
    made = {folder / name: text for name, text in known[target].files(plan).items()}
    foreign = [path for path in made if path.exists() and MARK not in path.read_text(encoding="utf-8")[:2000]]
    if foreign:
        raise UsageError("this file is not from d2c", where=str(foreign[0]), next="move it, or give another --out")
    for path, text in made.items():
        write_atomic(path, text.encode())
    return list(made)


def header(lines: Iterable[str] = ()) -> str:
    """Return the head of a file: where it is from, and what is left to a person."""
    always = f"{MARK}: change what you give it and write it again, rather than edit this file."
    return "".join(f"# {line}".rstrip() + "\n" for line in (always, *lines)) + "\n"
