"""One error tree. An error says what is wrong, where, and the next command; its class is its exit code."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from typing import Any, ClassVar


@dataclass(frozen=True)
class Failure:
    """One thing that a check found wrong."""

    what: str
    where: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


def did_you_mean(name: str, known_names: Iterable[str], cutoff: float = 0.6) -> str:
    """Return "; did you mean 'x'?" with the known name that is most alike; "" if none has a ratio of `cutoff` (0..1, difflib)."""
    near = get_close_matches(name, list(known_names), n=1, cutoff=cutoff)
    return f"; did you mean {near[0]!r}?" if near else ""


class D2CError(Exception):
    """Base of every error that is raised on purpose; by itself it stands for a bug of ours (exit code 1)."""

    exit_code: ClassVar[int] = 1

    def __init__(
        self,
        what: str,  # what is wrong, in one line
        *,
        where: str = "",  # file, cell, row or column
        next: str = "",  # the command or the edit that fixes it
        failures: Sequence[Failure] = (),  # everything that a check collected before it stopped
        cell: int = 0,  # number of the notebook's cell that failed, from 1; 0 for none
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.next = next
        self.failures = tuple(failures)
        self.cell = cell

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
        return _rebuild_error, (type(self), self.what, self.where, self.next, self.failures, self.cell)


def _rebuild_error(
    kind: type[D2CError], what: str, where: str, next: str, failures: Sequence[Failure], cell: int
) -> D2CError:
    return kind(what, where=where, next=next, failures=failures, cell=cell)


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


def full_disk(err: Exception) -> Temporary | None:
    """Return the error of a full disk, or a full quota, for what Python or SQLite raised; None when it is another one."""
    if isinstance(err, OSError):
        full, where = err.errno in (errno.ENOSPC, errno.EDQUOT), err.filename
    else:
        full, where = "disk is full" in str(err), None
    step = "free some disk space, then give the same command again"
    return Temporary("the disk is full", where=str(where or ""), next=step) if full else None


TRACEBACK = "Traceback (most recent call last):"
STEP, ITEM = "next: ", "- "  # how `str` of an error begins its last line, and the lines of its failures
HEAD = re.compile(r"(?:[A-Za-z_][\w]*\.)*([A-Z]\w*): (.*)")
PREFIX = re.compile(r"(?:error|Error): (?=\S)")  # of the command lines of d2c and of BentoML


def child_error(
    text: str,  # what the process wrote on standard error
    what: str,  # what could not be done
    *,
    where: str = "",
    next: str = "",  # unless the process says one
) -> D2CError:
    """Return the failure of another process as an error: one of ours as what it was there, any other as a bug of ours.

    The last line is not the reason: an error of ours ends with `next: …`, others end with lines that explain the first.
    """
    name, message = _error_class(text)
    failures: list[Failure] = []
    while len(message) > 1 and message[-1].strip().startswith((STEP, ITEM)):
        line = message.pop().strip()
        if line.startswith(STEP):
            next = line.removeprefix(STEP)
        else:
            failures.insert(0, Failure(line.removeprefix(ITEM)))
    ours = _error_classes()
    reason = (message[0] if name else message[-1]) if message else "no reason given"
    if name and name not in ours:
        reason = f"{name}: {reason}"
    return ours.get(name, D2CError)(f"{what}: {reason}", where=where, next=next, failures=failures)


def child_reason(text: str) -> str:
    """Return why another process failed, in a line, from what it wrote on standard error."""
    return child_error(text, "").what.removeprefix(": ")


def _error_class(text: str) -> tuple[str, list[str]]:
    """Return the class of the error that a process ended with, empty where none is named, and the lines of its message."""
    lines = [line.rstrip() for line in text.strip().splitlines() if line.strip()]
    starts = [i for i, line in enumerate(lines) if line.strip() == TRACEBACK]
    if starts:
        margin = len(lines[starts[-1]]) - len(lines[starts[-1]].lstrip())
        message_lines = [line[margin:] for line in lines[starts[-1] + 1 :]]
        head = next((i for i, line in enumerate(message_lines) if not line.startswith(" ")), 0)
        lines = message_lines[head:]
    for i in [0] if starts else range(len(lines) - 1, -1, -1):
        match = HEAD.fullmatch(lines[i]) if i < len(lines) else None
        if match is not None and (starts or match[1] in _error_classes()):
            return match[1], [match[2], *lines[i + 1 :]]
    return "", [PREFIX.sub("", line, count=1) for line in lines]


def _error_classes() -> dict[str, type[D2CError]]:
    """Return the classes of errors that are known here, by name."""
    kinds: dict[str, type[D2CError]] = {}
    waiting = [D2CError]
    while waiting:
        kind = waiting.pop()
        kinds[kind.__name__] = kind
        waiting += kind.__subclasses__()
    return kinds
