"""The state of one repair: the current text of the notebook, the applied fixes and the results of its cells."""

from __future__ import annotations

import json
import shutil
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from d2c_mlops.convert.repair import downloads, save_repaired
from d2c_mlops.convert.repair.data_files import DataFiles
from d2c_mlops.convert.repair.fix_registry import (
    AppliedFix,
    Fix,
    Proposal,
    RepairContext,
    apply_notebook_edits,
)
from d2c_mlops.convert.repair.package_installation import install as install_packages
from d2c_mlops.convert.repair.repair_result import Refusal, RepairResult
from d2c_mlops.convert.run.folder_copies import LeftOut, Workplace, left_out_summary
from d2c_mlops.convert.run.isolated_run import ChildLimits
from d2c_mlops.convert.run.session import CellRun, Session
from d2c_mlops.convert.source.notebook import Notebook

Progress = Callable[[str], None]


def make_workplace(work: Path) -> Workplace:
    """Return the folders of a conversion."""
    packages = work / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    local = work / "local"
    return Workplace(work / "revived", work / "runs", work / "home", (*((local,) if local.is_dir() else ()), packages))


@dataclass
class RepairState:
    """The repair of one notebook: its current text, the applied fixes and the results of its cells."""

    notebook: Notebook
    work: Path
    data: Path | None
    install: bool
    limits: ChildLimits
    progress: Progress
    index: tuple[str, ...] = ()
    fetch: bool = False
    fetch_from: Sequence[str] = ()
    fetched: list[downloads.Fetched] = field(default_factory=list)
    fixes: list[AppliedFix] = field(default_factory=list)
    installed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    tried: dict[str, str] = field(default_factory=dict)
    results: dict[int, CellRun] = field(default_factory=dict)
    runs: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.original = self.notebook
        self.order = list(range(len(self.notebook.cells)))
        self.seen: set[int] = set()
        self.place = make_workplace(self.work)
        self.folder = self.place.pristine
        self.data_files = DataFiles([self.folder])  # with the folders of data, once the copy is made
        self.left_out: list[LeftOut] = []  # files of the folder that were not copied

    def result(self, status: str, refusal: Refusal | None) -> RepairResult:
        """Write the copy as far as it ran, and return the result."""
        path = None
        if self.folder.exists() and self.notebook.is_python:
            path = self.folder / f"{self.original.path.stem}.ipynb"
            save_repaired.save_notebook(self.notebook, self.original, self.order, self.results, path)
        repair_result = RepairResult(
            status,
            self.original.path,
            path,
            tuple(self.fixes),
            tuple(self.missing),
            tuple(self.installed),
            refusal,
            tuple(self.order),
            self.seconds,
            self.runs,
            tuple(self.fetched),
            tuple(self.left_out),
        )
        self.work.mkdir(parents=True, exist_ok=True)
        (self.work / "revived.json").write_text(json.dumps(repair_result.to_dict(), indent=1), encoding="utf-8")
        return repair_result

    def left_out_text(self) -> str:
        """Return what was neither copied nor searched, in one line."""
        return left_out_summary([*self.left_out, *self.data_files.left_out], self.original.path.resolve().parent)

    def offers(self, fix: Fix, context: RepairContext) -> list[Proposal]:
        """Return the proposals of a fix; an error inside the fix is only reported."""
        try:
            return list(fix.find(context)) if fix.find else []
        except Exception:
            self.progress(f"{fix.id} failed: {traceback.format_exc(limit=1).splitlines()[-1]}")
            return []

    def accept(self, offers: Sequence[tuple[Fix, Proposal]]) -> bool:
        """Apply and record proposals; False if nothing changed or the state occurred before."""
        old = self.notebook
        new = apply_notebook_edits(old, [edit for _, offer in offers for edit in offer.edits])
        laid = [pair for _, offer in offers for pair in offer.files if not (self.folder / pair[1]).exists()]
        if new == old and not laid:
            return False
        state = hash((tuple(cell.source for cell in new.cells), len(laid)))
        if state in self.seen and not laid:
            return False
        self.seen.add(state)
        for fix, offer in offers:
            self.record_fix(fix, offer, old)
        for file, name in laid:
            place = self.folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
        self.notebook = new
        self.data_files.forget()
        return True

    def record_fix(self, fix: Fix, offer: Proposal, old: Notebook) -> None:
        """Record a fix with the changed lines, before and after."""
        cells = list(dict.fromkeys(edit.cell for edit in offer.edits))
        reason = offer.reason or fix.reason
        for index in cells:
            mine = [edit for edit in offer.edits if edit.cell == index]
            new = apply_notebook_edits(old, mine).cells[index]
            was, now = _changed_lines(old.cells[index].source, new.source)
            if was == now:
                continue
            self.fixes.append(AppliedFix(self.original_index(index), fix.id, was, now, reason))
        for file, name in offer.files:
            self.fixes.append(
                AppliedFix(None, fix.id, "", name, reason or f"{file.name} is copied beside the notebook")
            )

    def original_index(self, index: int) -> int:
        """Return the index of a cell in the original."""
        return self.order[index]

    def context(self, session: Session | None) -> RepairContext:
        """Return the current state for the fixes."""
        kinds: Callable[[Sequence[str]], Mapping[str, str]] = session.kinds if session is not None else lambda names: {}
        return RepairContext(self.notebook, self.data_files, self.install, frozenset(self.tried), kinds)

    def add_packages(self, distributions: Sequence[str]) -> list[str]:
        """Install distributions into the folder of this conversion; record those that cannot be installed."""
        self.progress(f"installing {', '.join(distributions)}")
        installed = install_packages(distributions, self.place.packages[-1])
        self.installed += [name for name in installed.made if name not in self.installed]
        self.tried |= {name: installed.failed.get(name, "") for name in distributions}
        self.missing = [
            name
            for name in dict.fromkeys([*self.missing, *distributions])
            if installed.failed.get(name) or (name in self.missing and name in installed.failed)
        ]
        return [name for name in distributions if name not in installed.failed]


def _changed_lines(old: str, new: str) -> tuple[str, str]:
    """Return the lines that differ between two sources."""
    was, now = old.split("\n"), new.split("\n")
    while was and now and was[0] == now[0]:
        was, now = was[1:], now[1:]
    while was and now and was[-1] == now[-1]:
        was, now = was[:-1], now[:-1]
    return "\n".join(was), "\n".join(now)
