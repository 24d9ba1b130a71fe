"""Versions of libraries whose private names this package uses; outside of them the ordinary, slower way is taken."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

LOG = logging.getLogger("d2c.libraries")


@dataclass
class VersionRange:
    """The versions of one library with which its private names were tested: from `low` to below `high`."""

    library: str
    low: tuple[int, ...]
    high: tuple[int, ...]
    warned: set[str] = field(default_factory=set)

    def __str__(self) -> str:
        return f"{self.library} >={'.'.join(map(str, self.low))},<{'.'.join(map(str, self.high))}"

    @property
    def installed(self) -> str:
        """The version that is installed; "" where there is none."""
        try:
            return version(self.library)
        except PackageNotFoundError:
            return ""

    def holds(self) -> bool:
        """Return whether the installed version lies in the range."""
        numbers = leading_numbers(self.installed)
        return bool(numbers) and self.low <= numbers < self.high

    def warn(self, why: str, instead: str) -> None:
        """Log, once for each reason in a process, that the ordinary way is taken."""
        if why in self.warned:
            return
        self.warned.add(why)
        facts = {
            "library": self.library,
            "installed": self.installed,
            "tested": str(self),
            "why": why,
            "instead": instead,
        }
        LOG.warning("private names of %s are not used: %s; %s", self.library, why, instead, extra={"facts": facts})

    def usable(self, missing: str, instead: str) -> bool:
        """Return whether private names may be used; else warn. `missing` says which name is missing, "" for none."""
        if not self.holds():
            self.warn(f"version {self.installed or 'unknown'} is outside of the tested range {self}", instead)
            return False
        if missing:
            self.warn(f"{missing} is missing in version {self.installed}", instead)
        return not missing


def leading_numbers(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version: (0, 54, 0) of 0.54.0rc1."""
    numbers: list[int] = []
    for part in text.split("."):
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if digits:
            numbers.append(int(digits))
        if digits != part or not digits:
            break
    return tuple(numbers)
