"""Repair a copy of a notebook: run it, fix what fails, run it again; the original is not changed."""

from __future__ import annotations

import json
import shutil
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from d2c_mlops.convert.check import addresses
from d2c_mlops.convert.repair import downloads, saving
from d2c_mlops.convert.repair.data_files import DataFiles
from d2c_mlops.convert.repair.fix_registry import (
    AppliedFix,
    CellFailure,
    Fix,
    Proposal,
    RepairContext,
    apply,
    cell_failure,
    registered_fixes,
)
from d2c_mlops.convert.repair.fixes.frames import chained
from d2c_mlops.convert.repair.fixes.modules import distribution_of, missing_module, needed
from d2c_mlops.convert.repair.last_resorts import RESORTS, Resort
from d2c_mlops.convert.repair.packages import install as install_packages
from d2c_mlops.convert.repair.refusal_messages import absent, failed
from d2c_mlops.convert.repair.repair_result import Refusal, RepairRefused, RepairResult
from d2c_mlops.convert.run.containers import PREFIX
from d2c_mlops.convert.run.folder_copies import LeftOut, Workplace, copy_folder, summary
from d2c_mlops.convert.run.isolated_run import ChildLimits, Stopped
from d2c_mlops.convert.run.session import CellRun, Session
from d2c_mlops.convert.source.notebook import Cell, Notebook, read_notebook
from d2c_mlops.errors import D2CError

MAX_FIXES = 120
MAX_RUNS = 25
Progress = Callable[[str], None]


def repair_notebook(
    notebook: Path,
    work: Path,
    *,
    data: Path | None = None,
    install: bool = False,
    index: Sequence[str] = (),  # names that mean a package, though a module beside the notebook has them too
    timeout: float = 600.0,
    memory: int = 4 << 30,
    isolation: str = "",  # name of a mode; the best that works here when empty
    fetch: bool = False,  # whether addresses that it reads are downloaded first, outside of the isolation
    fetch_from: Sequence[str] = (),  # hosts of this network that may be asked
    progress: Progress = lambda text: None,
) -> RepairResult:
    """Run a copy of a notebook and fix it until it runs; the result is a refusal with cell and reason if that fails.

    `timeout` is seconds for each run, `memory` bytes; `data` is a folder whose files may be laid beside the copy.
    """
    notebook, work = Path(notebook), Path(work)
    try:
        read = read_notebook(notebook)
        limits = ChildLimits(timeout, memory, isolation)
        repair = NotebookRepair(
            read, work, data, install, limits, progress, index=tuple(index), fetch=fetch, fetch_from=fetch_from
        )
        return repair.run()
    except D2CError as error:
        return RepairResult("refused", notebook, None, refusal=Refusal(None, error.what, error.next))


def workplace(work: Path) -> Workplace:
    """Return the folders of a conversion."""
    packages = work / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    local = work / "local"
    return Workplace(work / "revived", work / "runs", work / "home", (*((local,) if local.is_dir() else ()), packages))


@dataclass
class NotebookRepair:
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
        self.left_out: list[LeftOut] = []
        self.place = workplace(self.work)
        self.folder = self.place.pristine

    def run(self) -> RepairResult:
        """Repair the notebook; the original is never written."""
        try:
            self.refuse_what_never_ran()
            self.prepare()
            self.before()
            self.run_until_it_runs()
        except RepairRefused as refused:
            return self.result("refused", refused.refusal)
        finally:
            shutil.rmtree(self.place.scratch, ignore_errors=True)
        return self.result("revived" if self.fixes else "as is", None)

    def result(self, status: str, refusal: Refusal | None) -> RepairResult:
        """Write the copy as far as it ran, and return the result."""
        path = None
        if self.folder.exists() and self.notebook.is_python:
            path = self.folder / f"{self.original.path.stem}.ipynb"
            saving.save(self.notebook, self.original, self.order, self.results, path)
        made = RepairResult(
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
        (self.work / "revived.json").write_text(json.dumps(made.to_dict(), indent=1), encoding="utf-8")
        return made

    def refuse_what_never_ran(self) -> None:
        """Refuse notebooks for other kernels and notebooks without code."""
        if not self.notebook.is_python:
            what = f"its kernel language is {self.notebook.language.upper() if self.notebook.language == 'r' else self.notebook.language}, not Python"
            raise RepairRefused(Refusal(None, what, "port it to Python, or run it with its own kernel"))
        if not any(cell.source.strip() for cell in self.notebook.code):
            raise RepairRefused(Refusal(None, "the notebook has no code cells", "choose a notebook with code"))

    def prepare(self) -> None:
        """Copy the folder; what is left out is reported, and named again if a cell fails because a file is missing."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        source = self.original.path.resolve().parent
        self.left_out = copy_folder(source, self.folder)
        if self.left_out:
            self.progress(f"not copied from {source}: {summary(self.left_out, source)}")
        for name in self.index:
            (self.folder / f"{name}.py").unlink(missing_ok=True)
            shutil.rmtree(self.folder / name, ignore_errors=True)
        folders = [self.folder, *([self.data] if self.data is not None else [])]
        self.data_files = DataFiles([*folders, source.parent], source)
        saving.keep_reference(self.original, self.work / "reference.json")
        if self.fetch:
            self.fetch_sources()

    def fetch_sources(self) -> None:
        """Download the URLs that can be inferred, and let the notebook read the copies."""
        beside = {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()}
        place = self.work / "fetched"
        found = list(addresses.sources(self.context(None).subject))
        self.fetched = downloads.fetch(found, place, allowed=self.fetch_from, taken=beside, progress=self.progress)
        for download in self.fetched:
            self.progress(download.text)
        shutil.copytree(place, self.folder, dirs_exist_ok=True)  # in place of older copies that lay beside it
        self.data_files.forget()
        self.accept(downloads.offers(self.context(None), self.fetched))

    def before(self) -> None:
        """Apply the fixes that need no failure, until none is left; install packages where allowed."""
        for _ in range(12):
            context = self.context(None)
            found = [
                (fix, offer)
                for fix in registered_fixes()
                if fix.live and fix.find
                for offer in self.offers(fix, context)
            ]
            edits = _compatible([offer for _, offer in found])
            accepted = [(one, offer) for one, offer in found if offer in edits]
            if not accepted or not self.accept(accepted):
                break
        problem = next((cell for cell in self.notebook.code if cell.problem is not None), None)
        if problem is not None and problem.problem is not None:
            why = f"line {problem.problem.line}: {problem.problem.message}"
            kind = "it is not valid Python" if problem.problem.kind == "invalid" else "it is Python 2 code"
            raise RepairRefused(
                Refusal(self.at(problem.index), f"{kind}: {why}", "fix the cell by hand", "SyntaxError")
            )
        own = [path.stem for folder in self.place.packages[:-1] for path in folder.iterdir()]
        self.missing = needed(self.context(None), self.folder, own)
        if self.install and self.missing:
            self.add_packages(self.missing)

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
        new = apply(old, [edit for _, offer in offers for edit in offer.edits])
        laid = [pair for _, offer in offers for pair in offer.files if not (self.folder / pair[1]).exists()]
        if new == old and not laid:
            return False
        state = hash((tuple(cell.source for cell in new.cells), len(laid)))
        if state in self.seen and not laid:
            return False
        self.seen.add(state)
        for fix, offer in offers:
            self.note(fix, offer, old)
        for file, name in laid:
            place = self.folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
        self.notebook = new
        self.data_files.forget()
        return True

    def note(self, fix: Fix, offer: Proposal, old: Notebook) -> None:
        """Record a fix with the changed lines, before and after."""
        cells = list(dict.fromkeys(edit.cell for edit in offer.edits))
        reason = offer.reason or fix.reason
        for index in cells:
            mine = [edit for edit in offer.edits if edit.cell == index]
            new = apply(old, mine).cells[index]
            was, now = _changed_lines(old.cells[index].source, new.source)
            if was == now:
                continue
            self.fixes.append(AppliedFix(self.at(index), fix.id, was, now, reason))
        for file, name in offer.files:
            self.fixes.append(
                AppliedFix(None, fix.id, "", name, reason or f"{file.name} is copied beside the notebook")
            )

    def at(self, index: int) -> int:
        """Return the index of a cell in the original."""
        return self.order[index]

    def context(self, session: Session | None) -> RepairContext:
        """Return the current state for the fixes."""
        kinds: Callable[[Sequence[str]], Mapping[str, str]] = session.kinds if session is not None else lambda names: {}
        return RepairContext(self.notebook, self.data_files, self.install, frozenset(self.tried), kinds)

    def add_packages(self, wanted: Sequence[str]) -> list[str]:
        """Install distributions into the folder of this conversion; record those that cannot be installed."""
        self.progress(f"installing {', '.join(wanted)}")
        done = install_packages(wanted, self.place.packages[-1])
        self.installed += [one for one in done.made if one not in self.installed]
        self.tried |= {name: done.failed.get(name, "") for name in wanted}
        self.missing = [
            name
            for name in dict.fromkeys([*self.missing, *wanted])
            if done.failed.get(name) or (name in self.missing and name in done.failed)
        ]
        return [name for name in wanted if name not in done.failed]

    def run_until_it_runs(self) -> None:
        """Run and fix in the same session until one run from the top needs no fix."""
        while self.runs < MAX_RUNS:
            if self.run_once():
                return
        raise RepairRefused(
            Refusal(
                None,
                f"the notebook still fails after {self.runs} runs",
                "read the applied fixes, and fix the remaining failures by hand",
            )
        )

    def run_once(self) -> bool:
        """Run from the top and continue after fixes; True if all cells ran without a fix."""
        self.runs += 1
        self.results.clear()
        folder = self.place.fresh()
        clean, retried = True, -1
        failed_line = 0
        with Session(folder, self.place.home, self.limits, extra=self.place.packages, plots=True) as session:
            index = 0
            while index < len(self.notebook.cells):
                cell = self.notebook.cells[index]
                if cell.kind != "code" or not cell.source.strip():
                    index += 1
                    continue
                self.progress(f"run {self.runs}: cell {index + 1} of {len(self.notebook.cells)}")
                done = self.run_cell(session, cell)
                if done.error is None:
                    self.results[index] = done
                    if self.fix_copies(session, done):
                        clean, retried = False, index
                        continue
                    index += 1
                    continue
                failure = cell_failure(index, done.error)
                line = max((frame.line for frame in failure.frames if frame.cell == index), default=0)
                if retried == index and line <= failed_line:
                    return False  # perhaps only because the cell ran twice
                self.results[index] = done
                restart = self.fix_failure(session, failure)
                clean, retried, failed_line = False, index, line
                if restart:
                    return False
                self.lay(folder)
        return clean

    def lay(self, folder: Path) -> None:
        """Copy files that were added to the copied folder into the running one too."""
        for file in self.data_files.files(self.folder):
            place = folder / file.relative_to(self.folder)
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place)

    def run_cell(self, session: Session, cell: Cell) -> CellRun:
        """Run one cell; a child process that ends is a refusal."""
        try:
            done = session.run(cell.index, cell.source)
        except Stopped as stopped:
            ended = stopped.ended
            self.seconds += ended.seconds
            steps = {
                "timeout": "reduce the loop or the data of this cell, or raise the limit: --timeout SECONDS",
                "memory": "use a part of the data, or raise the limit: --memory GB",
            }
            step = steps.get(ended.status, "run the cell alone to see what ends the process")
            raise RepairRefused(Refusal(self.at(cell.index), ended.says, step, ended.status)) from stopped
        self.seconds += done.seconds
        return done

    def fix_copies(self, session: Session, done: CellRun) -> bool:
        """Fix assignments to copies about which pandas warned while a cell ran."""
        accepted = False
        for place in done.chained:
            index = place["cell"]
            if isinstance(index, int) and 0 <= index < len(self.notebook.cells):
                offer = chained(self.context(session), self.notebook.cells[index], place["line"], place["end_line"])
                fix = Fix("copy-on-write", "pandas", "3.0", "the value was written to a copy")
                accepted = (offer is not None and self.accept([(fix, offer)])) or accepted
        return accepted

    def fix_failure(self, session: Session, failure: CellFailure) -> bool:
        """Try the fixes in order until one changes something; True if the run must start again."""
        if len(self.fixes) >= MAX_FIXES:
            self.refuse(failure)
        for fix in registered_fixes():
            if fix.react is None or not fix.live:
                continue
            try:
                offer = fix.react(self.context(session), failure)
            except Stopped:
                return True
            except Exception:
                self.progress(f"{fix.id} failed: {traceback.format_exc(limit=2).splitlines()[-1]}")
                continue
            if offer is None:
                continue
            if offer.distributions:
                if self.add_packages(offer.distributions):
                    return True
                continue
            if self.accept([(fix, offer)]):
                self.progress(f"cell {failure.cell + 1}: {fix.id}: {offer.reason or fix.reason}")
                first = min((edit.cell for edit in offer.edits), default=failure.cell)
                return offer.restart or first < failure.cell
        if self.move_definition(failure) or any(self.resort(each, failure) for each in RESORTS):
            return True
        self.refuse(failure)
        return True

    def move_definition(self, failure: CellFailure) -> bool:
        """A name that only a later cell defines: that cell is moved before the one that needs it, once."""
        if failure.kind != "NameError" or not failure.name:
            return False
        flow = self.context(None).subject.flow
        later = [index for index in flow.definers.get(failure.name, ()) if index > failure.cell]
        if not later:
            return False
        source, target = later[0], failure.cell
        if any(edge.user == source and target <= edge.definer < source for edge in flow.edges):
            return False
        cells = list(self.notebook.cells)
        moved = cells.pop(source)
        cells.insert(target, moved)
        order = [*self.order]
        order.insert(target, order.pop(source))
        state = hash(tuple(order))
        if state in self.seen:
            return False
        self.seen.add(state)
        why = f"`{failure.name}` is used in cell {self.at(target) + 1} and defined in cell {self.at(source) + 1}: the cells were run out of order"
        self.fixes.append(AppliedFix(self.at(source), "order", f"cell {source + 1}", f"cell {target + 1}", why))
        self.order = order
        self.notebook = replace(self.notebook, cells=tuple(replace(cell, index=i) for i, cell in enumerate(cells)))
        return True

    def resort(self, leave_out: Resort, failure: CellFailure) -> bool:
        """Take what failed out of the cell, where that changes no result."""
        context = self.context(None)
        offer = leave_out(context, failure)
        if offer is None:
            return False
        if offer.whole:  # lines of the source are replaced, whatever magics they hold
            cells = [
                replace(cell, python=cell.source) if cell.index == failure.cell else cell
                for cell in self.notebook.cells
            ]
            self.notebook = replace(self.notebook, cells=tuple(cells))
        fix = Fix(offer.id, "", "", offer.proposal.reason)
        return self.accept([(fix, offer.proposal)])

    def _left_out_text(self) -> str:
        """Return what was neither copied nor searched, in one line."""
        return summary([*self.left_out, *self.data_files.left_out], self.original.path.resolve().parent)

    def refuse(self, failure: CellFailure) -> None:
        """Say which cell fails, why, and what a person can do about it."""
        module = missing_module(failure)
        if module:
            self.missing = list(dict.fromkeys([*self.missing, distribution_of(module)]))
            image = self.limits.isolation.removeprefix(PREFIX) if self.limits.isolation.startswith(PREFIX) else ""
            raise RepairRefused(absent(failure, self.at(failure.cell), module, self.missing, self.tried, image))
        here = [download for download in self.fetched if download.cell == self.at(failure.cell) + 1] or self.fetched
        told = [each.to_dict() for each in here] if self.fetch else None
        raise RepairRefused(failed(failure, self.at(failure.cell), self._left_out_text(), told))


def _compatible(offers: Sequence[Proposal]) -> list[Proposal]:
    """Keep proposals whose edits do not overlap with those before; the others get their turn in the next round."""
    kept: list[Proposal] = []
    taken: dict[int, list[tuple[tuple[int, int], tuple[int, int]]]] = {}
    for offer in offers:
        spans = [(edit.cell, (edit.line, edit.column), (edit.end_line, edit.end_column)) for edit in offer.edits]
        if any(
            (start < high and low < end)
            or (start, end) == (low, high)
            or low <= start == end <= high
            or start <= low == high <= end
            for cell, start, end in spans
            for low, high in taken.get(cell, ())
        ):
            continue
        for cell, start, end in spans:
            taken.setdefault(cell, []).append((start, end))
        kept.append(offer)
    return kept


def _changed_lines(old: str, new: str) -> tuple[str, str]:
    """Return the lines that differ between two sources."""
    was, now = old.split("\n"), new.split("\n")
    while was and now and was[0] == now[0]:
        was, now = was[1:], now[1:]
    while was and now and was[-1] == now[-1]:
        was, now = was[:-1], now[:-1]
    return "\n".join(was), "\n".join(now)
