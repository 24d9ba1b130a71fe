"""The result of a repair: the copy that runs with its fixes, or the failing cell and the reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from d2c_mlops.convert.repair.downloads import Fetched, FetchedFacts
from d2c_mlops.convert.repair.fix_registry import AppliedFix, FixFacts
from d2c_mlops.convert.run.folder_copies import LeftOut


class RefusalFacts(TypedDict):
    """A Refusal as JSON values; `cell` counts from 1."""

    cell: int | None
    why: str
    next: str
    error: str


class LeftOutFacts(TypedDict):
    """A file that was not copied, and why."""

    path: str
    why: str


class RepairFacts(TypedDict):
    """A RepairResult as JSON values; `mends` are the fixes."""

    status: str
    original: str
    notebook: str | None
    mends: list[FixFacts]
    missing: list[str]
    installed: list[str]
    refusal: RefusalFacts | None
    order: list[int]
    seconds: float
    runs: int
    fetched: list[FetchedFacts]
    left_out: list[LeftOutFacts]


@dataclass(frozen=True)
class Refusal:
    """Why a notebook cannot be repaired: the cell (from 0), the reason, and what a person can do."""

    cell: int | None
    why: str
    next: str
    error: str = ""  # the exception's name, where a cell failed

    def to_dict(self) -> RefusalFacts:
        """Return the refusal as plain JSON values; `cell` counts from 1."""
        cell = None if self.cell is None else self.cell + 1
        return {"cell": cell, "why": self.why, "next": self.next, "error": self.error}


@dataclass(frozen=True)
class RepairResult:
    """The result of a repair; `order` is the index in the original for each cell."""

    status: str  # "as is", "revived" (repaired) or "refused"
    original: Path
    notebook: Path | None
    fixes: tuple[AppliedFix, ...] = ()
    missing: tuple[str, ...] = ()  # distributions that are not installed
    installed: tuple[str, ...] = ()  # what was added to the run's own folder
    refusal: Refusal | None = None
    order: tuple[int, ...] = ()
    seconds: float = 0.0
    runs: int = 0
    fetched: tuple[Fetched, ...] = ()  # addresses that were to be downloaded before the runs
    left_out: tuple[LeftOut, ...] = ()  # files of the notebook's folder that were not copied

    def to_dict(self) -> RepairFacts:
        """Return the result as plain JSON values."""
        return {
            "status": self.status,
            "original": str(self.original),
            "notebook": None if self.notebook is None else str(self.notebook),
            "mends": [fix.to_dict() for fix in self.fixes],
            "missing": list(self.missing),
            "installed": list(self.installed),
            "refusal": None if self.refusal is None else self.refusal.to_dict(),
            "order": list(self.order),
            "seconds": round(self.seconds, 2),
            "runs": self.runs,
            "fetched": [download.to_dict() for download in self.fetched],
            "left_out": [{"path": str(omitted.path), "why": omitted.why} for omitted in self.left_out],
        }


class RepairRefused(Exception):
    """Ends the repair with a refusal."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.why)
        self.refusal = refusal
