"""One error tree. An error says what is wrong, where, and the next command; its class is its exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar


@dataclass(frozen=True)
class Failure:
    """One thing that a check found wrong."""

    what: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


class D2CError(Exception):
    """Base of every error that is raised on purpose; by itself it stands for a bug of ours (exit code 1)."""

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        what: str,  # what is wrong, in one line
        *,
        where: str = "",  # file, cell, row or column
        next: str = "",  # the command or the edit that mends it
        failures: Sequence[Failure] = (),  # everything that a check collected before it stopped
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.next = next
        self.failures = tuple(failures)

    def __str__(self) -> str:
        head = f"{self.where}: {self.what}" if self.where else self.what
        lines = [head, *(f"  - {failure}" for failure in self.failures)]
        if self.next:
            lines.append(f"  next: {self.next}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the error as plain JSON values."""
        return {
            "error": type(self).__name__,
            "exit_code": self.exit_code,
            "what": self.what,
            "where": self.where,
            "next": self.next,
            "failures": [asdict(failure) for failure in self.failures],
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.what, self.where, self.next, self.failures)


def _rebuild(kind: type[D2CError], what: str, where: str, next: str, failures: Sequence[Failure]) -> D2CError:
    return kind(what, where=where, next=next, failures=failures)


class UsageError(D2CError):
    """The command or the call was wrong: an unknown name, a wrong type, a missing file."""

    exit_code = 2


class SettingsError(UsageError):
    """settings.ini, the environment or the command line holds something that cannot be read."""


class DataRefused(D2CError):
    """The data did not pass a check; nothing was written."""

    exit_code = 3


class GateRefused(D2CError):
    """The gate found a clause broken; the champion stays."""

    exit_code = 4


class NotebookFailed(D2CError):
    """A cell raised; running it again will not help."""

    exit_code = 5


class Temporary(D2CError):
    """Something that may be gone on the next try: a lock, a full disk, a server that is away."""

    exit_code = 75
