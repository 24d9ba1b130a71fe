"""An API change: the affected path or argument, the version that made it, and the replacement."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from typing import Literal

from d2c_mlops.convert.source.finding import Severity

CHANGES_PACKAGE = "d2c_mlops.convert.api_changes.libraries"
ChangeKind = Literal["gone", "keyword", "value", "positional", "behaviour"]


@dataclass(frozen=True)
class ApiChange:
    """One change. `path` is dotted; a method stands behind its class, `*` stands for any class or module.

    gone: the name is no longer there; `to` is its new path, `text` an expression that means the same.
    keyword: the argument was removed; `to` is its new name, `droppable` values that were the default.
    value: the argument (or position) no longer accepts the keys of `values`; each maps to its new text or None.
    positional: no more than `position` positional arguments; `names` are the keywords of those behind.
    behaviour: it still runs and means something else.
    """

    library: str  # distribution
    path: str
    since: str
    kind: ChangeKind
    instead: str
    example: str
    to: str = ""
    text: str = ""
    argument: str = ""
    position: int | None = None
    values: Mapping[str, str | None] = field(default_factory=dict)
    droppable: tuple[object, ...] = ()
    names: tuple[str, ...] = ()
    severity: Severity = "error"

    @property
    def pattern(self) -> re.Pattern[str] | None:
        """The path as a regular expression; a star matches any name."""
        return _path_pattern(self.path) if "*" in self.path else None

    @property
    def title(self) -> str:
        """What changed, in code."""
        if self.kind == "keyword":
            return f"{self.path}({self.argument}=)"
        if self.kind == "value":
            return f"{self.path}({self.argument or self.position}={' | '.join(map(repr, self.values))})"
        if self.kind == "positional":
            return f"{self.path}() with more than {self.position} positional arguments"
        return self.path


@cache
def _path_pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.escape(path).replace(r"\*", r"\w+(?:\.\w+)*") + "$")


@cache
def discover_api_changes() -> tuple[ApiChange, ...]:
    """Find the changes of all modules under convert/changes."""
    package = importlib.import_module(CHANGES_PACKAGE)
    every_found: list[ApiChange] = []
    for module in pkgutil.iter_modules(package.__path__):
        every_found.extend(importlib.import_module(f"{CHANGES_PACKAGE}.{module.name}").CHANGES)
    return tuple(every_found)


@cache
def applicable_changes() -> tuple[ApiChange, ...]:
    """Return the changes that apply to the installed versions; for a library that is not installed, all changes."""
    return tuple(change for change in discover_api_changes() if is_installed_at_least(change.library, change.since))


@cache
def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def is_installed_at_least(distribution: str, least: str) -> bool:
    """Whether the installed version is at least this one; an absent distribution would come in its newest."""
    have = installed_version(distribution)
    return have is None or is_version_at_least(have, least)


def is_version_at_least(version: str, least: str) -> bool:
    """Compare two versions by their numbers."""
    return _version_numbers(version) >= _version_numbers(least)


def _version_numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match[0].split(".")) if match else ()
