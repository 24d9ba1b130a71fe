"""Bring a copy of a notebook back to life on the installed libraries: run, mend what fails, run again; the original stays."""

from __future__ import annotations

import ast
import json
import re
import shutil
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from d2c_mlops.convert import saving
from d2c_mlops.convert.change import live_changes
from d2c_mlops.convert.files import Shelf
from d2c_mlops.convert.mending import (
    Frame,
    Mend,
    Mender,
    Proposal,
    Scene,
    Trouble,
    apply,
    menders,
    trouble,
    without_statement,
)
from d2c_mlops.convert.mends.frames import chained
from d2c_mlops.convert.mends.modules import distribution_of, missing_module, needed
from d2c_mlops.convert.notebook import Cell, Notebook, read_notebook
from d2c_mlops.convert.packages import install as install_packages
from d2c_mlops.convert.plan import PLOT_METHODS, PLOTS
from d2c_mlops.convert.sandbox import CellRun, Limits, Session, Stopped, Workplace, copy_folder
from d2c_mlops.errors import D2CError

MOST_MENDS = 120
MOST_RUNS = 25
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Refusal:
    """Why a notebook cannot be revived: which cell (from 0), what is the matter, what a person can do."""

    cell: int | None
    why: str
    next: str
    error: str = ""  # the exception's name, where a cell failed

    def to_dict(self) -> dict[str, Any]:
        """Return the refusal as plain JSON values; `cell` counts from 1."""
        cell = None if self.cell is None else self.cell + 1
        return {"cell": cell, "why": self.why, "next": self.next, "error": self.error}


@dataclass(frozen=True)
class Revived:
    """A revived notebook; `order` tells for each of its cells the place that it had in the original."""

    status: str  # as is, revived or refused
    original: Path
    notebook: Path | None
    mends: tuple[Mend, ...] = ()
    missing: tuple[str, ...] = ()  # distributions that are not installed
    installed: tuple[str, ...] = ()  # what was added to the run's own folder
    refusal: Refusal | None = None
    order: tuple[int, ...] = ()
    seconds: float = 0.0
    runs: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON values."""
        return {
            "status": self.status,
            "original": str(self.original),
            "notebook": None if self.notebook is None else str(self.notebook),
            "mends": [mend.to_dict() for mend in self.mends],
            "missing": list(self.missing),
            "installed": list(self.installed),
            "refusal": None if self.refusal is None else self.refusal.to_dict(),
            "order": list(self.order),
            "seconds": round(self.seconds, 2),
            "runs": self.runs,
        }


def revive(
    notebook: Path,
    work: Path,
    *,
    data: Path | None = None,
    install: bool = False,
    timeout: float = 600.0,
    memory: int = 4 << 30,
    progress: Progress = lambda text: None,
) -> Revived:
    """Run a copy of a notebook, mending it until it runs; refused with the cell and the reason where that cannot be.

    `timeout` is seconds for each run, `memory` bytes; `data` is a folder whose files may be laid beside the copy.
    """
    notebook, work = Path(notebook), Path(work)
    try:
        read = read_notebook(notebook)
        doctor = Doctor(read, work, data, install, Limits(timeout, memory), progress)
        return doctor.revive()
    except D2CError as error:
        return Revived("refused", notebook, None, refusal=Refusal(None, error.what, error.next))


def workplace(work: Path) -> Workplace:
    """Return the folders of a conversion."""
    packages = work / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    return Workplace(work / "revived", work / "runs", work / "home", (packages,))


class Refused(Exception):
    """The way out of the loop, with the refusal."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.why)
        self.refusal = refusal


@dataclass
class Doctor:
    """One revival: the notebook as it stands, what was mended, and the session it runs in."""

    notebook: Notebook
    work: Path
    data: Path | None
    install: bool
    limits: Limits
    progress: Progress
    mends: list[Mend] = field(default_factory=list)
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
        self.place = workplace(self.work)
        self.folder = self.place.pristine

    def revive(self) -> Revived:
        """Go the whole way; whatever happens the original is not written to."""
        try:
            self.refuse_what_never_ran()
            self.prepare()
            self.before()
            self.run_until_it_runs()
        except Refused as refused:
            return self.result("refused", refused.refusal)
        finally:
            shutil.rmtree(self.place.scratch, ignore_errors=True)
        return self.result("revived" if self.mends else "as is", None)

    def result(self, status: str, refusal: Refusal | None) -> Revived:
        """Write the copy as far as it ran, and say what was done."""
        path = None
        if self.folder.exists() and self.notebook.is_python:
            path = self.folder / f"{self.original.path.stem}.ipynb"
            saving.save(self.notebook, self.original, self.order, self.results, path)
        made = Revived(
            status,
            self.original.path,
            path,
            tuple(self.mends),
            tuple(self.missing),
            tuple(self.installed),
            refusal,
            tuple(self.order),
            self.seconds,
            self.runs,
        )
        self.work.mkdir(parents=True, exist_ok=True)
        (self.work / "revived.json").write_text(json.dumps(made.to_dict(), indent=1), encoding="utf-8")
        return made

    def refuse_what_never_ran(self) -> None:
        """Other kernels, and notebooks without code."""
        if not self.notebook.is_python:
            what = f"its kernel speaks {self.notebook.language.upper() if self.notebook.language == 'r' else self.notebook.language}, not Python"
            raise Refused(Refusal(None, what, "rewrite it in Python, or run it as it is with its own kernel"))
        if not any(cell.source.strip() for cell in self.notebook.code):
            raise Refused(Refusal(None, "it has no code", "nothing is to be converted"))

    def prepare(self) -> None:
        """Copy the folder; the files left out for their size are named if a cell wants them."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        source = self.original.path.resolve().parent
        self.too_large = copy_folder(source, self.folder)
        folders = [self.folder, *([self.data] if self.data is not None else [])]
        self.shelf = Shelf([*folders, source.parent], source)
        saving.keep_reference(self.original, self.work / "reference.json")

    def before(self) -> None:
        """Make the mends that need no failure, until none is left; install what is allowed."""
        for _ in range(12):
            scene = self.scene(None)
            found = [(one, offer) for one in menders() if one.live and one.find for offer in self.offers(one, scene)]
            edits = _compatible([offer for _, offer in found])
            accepted = [(one, offer) for one, offer in found if offer in edits]
            if not accepted or not self.accept(accepted):
                break
        problem = next((cell for cell in self.notebook.code if cell.problem is not None), None)
        if problem is not None and problem.problem is not None:
            why = f"line {problem.problem.line}: {problem.problem.message}"
            kind = "it was never valid Python" if problem.problem.kind == "invalid" else "it is written in Python 2"
            raise Refused(Refusal(self.at(problem.index), f"{kind}: {why}", "mend the cell by hand", "SyntaxError"))
        self.missing = needed(self.scene(None), self.folder)
        if self.install and self.missing:
            self.add_packages(self.missing)

    def offers(self, mender: Mender, scene: Scene) -> list[Proposal]:
        """Ask one mender; what goes wrong inside it is its own affair."""
        try:
            return list(mender.find(scene)) if mender.find else []
        except Exception:
            self.progress(f"{mender.id} failed: {traceback.format_exc(limit=1).splitlines()[-1]}")
            return []

    def accept(self, offers: Sequence[tuple[Mender, Proposal]]) -> bool:
        """Make proposals at once and write them down; False where nothing changed or the state was there before."""
        old = self.notebook
        new = apply(old, [edit for _, offer in offers for edit in offer.edits])
        laid = [pair for _, offer in offers for pair in offer.files if not (self.folder / pair[1]).exists()]
        if new == old and not laid:
            return False
        state = hash((tuple(cell.source for cell in new.cells), len(laid)))
        if state in self.seen and not laid:
            return False
        self.seen.add(state)
        for mender, offer in offers:
            self.note(mender, offer, old)
        for file, name in laid:
            place = self.folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place)
        self.notebook = new
        self.shelf.forget()
        return True

    def note(self, mender: Mender, offer: Proposal, old: Notebook) -> None:
        """Write down a mend with the lines that it changed, before and after."""
        cells = list(dict.fromkeys(edit.cell for edit in offer.edits))
        reason = offer.reason or mender.reason
        for index in cells:
            mine = [edit for edit in offer.edits if edit.cell == index]
            new = apply(old, mine).cells[index]
            was, now = _changed_lines(old.cells[index].source, new.source)
            if was == now:
                continue
            self.mends.append(Mend(self.at(index), mender.id, was, now, reason))
        for file, name in offer.files:
            self.mends.append(Mend(None, mender.id, "", name, reason or f"{file.name} is laid beside the notebook"))

    def at(self, index: int) -> int:
        """Return the place that a cell had in the original."""
        return self.order[index]

    def scene(self, session: Session | None) -> Scene:
        """Show the menders the notebook as it stands."""
        kinds: Callable[[Sequence[str]], Mapping[str, str]] = session.kinds if session is not None else lambda names: {}
        return Scene(self.notebook, self.shelf, self.install, frozenset(self.tried), kinds)

    def add_packages(self, wanted: Sequence[str]) -> list[str]:
        """Install distributions into the run's own folder; remember those for which none fits."""
        self.progress(f"installing {', '.join(wanted)}")
        done = install_packages(wanted, self.place.packages[0])
        self.installed += [one for one in done.made if one not in self.installed]
        self.tried |= {name: done.failed.get(name, "") for name in wanted}
        self.missing = [
            name
            for name in dict.fromkeys([*self.missing, *wanted])
            if done.failed.get(name) or (name in self.missing and name in done.failed)
        ]
        return [name for name in wanted if name not in done.failed]

    def run_until_it_runs(self) -> None:
        """Run; mend and go on in the same session; end with one clean run from the top."""
        while self.runs < MOST_RUNS:
            if self.run_once():
                return
        raise Refused(
            Refusal(None, f"it still fails after {self.runs} runs", "read the mends, and mend the rest by hand")
        )

    def run_once(self) -> bool:
        """Run from the top, going on after mends; True where all cells ran without any mend on the way."""
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
                    if self.mend_copies(session, done):
                        clean, retried = False, index
                        continue
                    index += 1
                    continue
                facts = trouble(index, done.error)
                line = max((frame.line for frame in facts.frames if frame.cell == index), default=0)
                if retried == index and line <= failed_line:
                    return False  # perhaps only because the cell ran twice
                self.results[index] = done
                restart = self.mend(session, facts)
                clean, retried, failed_line = False, index, line
                if restart:
                    return False
                self.lay(folder)
        return clean

    def lay(self, folder: Path) -> None:
        """Lay files that were added to the copied folder into the running one too."""
        for file in self.shelf.files(self.folder):
            place = folder / file.relative_to(self.folder)
            if not place.exists():
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, place)

    def run_cell(self, session: Session, cell: Cell) -> CellRun:
        """Run one cell; a child that does not come back is a refusal."""
        try:
            done = session.run(cell.index, cell.source)
        except Stopped as stopped:
            ended = stopped.ended
            self.seconds += ended.seconds
            steps = {
                "timeout": "shorten the loop or the data of this cell, or give it longer: --timeout SECONDS",
                "memory": "work on a part of the data, or give it more: --memory GB",
            }
            step = steps.get(ended.status, "run the cell by itself and see what ends the process")
            raise Refused(Refusal(self.at(cell.index), ended.says, step, ended.status)) from stopped
        self.seconds += done.seconds
        return done

    def mend_copies(self, session: Session, done: CellRun) -> bool:
        """Mend assignments to copies that pandas warned about while a cell ran."""
        accepted = False
        for place in done.chained:
            index = place["cell"]
            if isinstance(index, int) and 0 <= index < len(self.notebook.cells):
                offer = chained(self.scene(session), self.notebook.cells[index], place["line"], place["end_line"])
                mender = Mender("copy-on-write", "pandas", "3.0", "the value went into a copy")
                accepted = (offer is not None and self.accept([(mender, offer)])) or accepted
        return accepted

    def mend(self, session: Session, facts: Trouble) -> bool:
        """Ask the menders in turn until one changes something; True where the run has to start again."""
        if len(self.mends) >= MOST_MENDS:
            self.refuse(facts)
        for mender in menders():
            if mender.react is None or not mender.live:
                continue
            try:
                offer = mender.react(self.scene(session), facts)
            except Stopped:
                return True
            except Exception:
                self.progress(f"{mender.id} failed: {traceback.format_exc(limit=2).splitlines()[-1]}")
                continue
            if offer is None:
                continue
            if offer.distributions:
                if self.add_packages(offer.distributions):
                    return True
                continue
            if self.accept([(mender, offer)]):
                self.progress(f"cell {facts.cell + 1}: {mender.id}: {offer.reason or mender.reason}")
                first = min((edit.cell for edit in offer.edits), default=facts.cell)
                return offer.restart or first < facts.cell
        if self.move_definition(facts) or self.leave_out(facts) or self.leave_out_plot(facts):
            return True
        self.refuse(facts)
        return True

    def move_definition(self, facts: Trouble) -> bool:
        """A name that only a later cell defines: that cell is moved before the one that needs it, once."""
        if facts.kind != "NameError" or not facts.name:
            return False
        flow = self.scene(None).subject.flow
        later = [index for index in flow.definers.get(facts.name, ()) if index > facts.cell]
        if not later:
            return False
        source, target = later[0], facts.cell
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
        why = f"`{facts.name}` is used in cell {self.at(target) + 1} and defined in cell {self.at(source) + 1}: it ran out of order"
        self.mends.append(Mend(self.at(source), "order", f"cell {source + 1}", f"cell {target + 1}", why))
        self.order = order
        self.notebook = replace(self.notebook, cells=tuple(replace(cell, index=i) for i, cell in enumerate(cells)))
        return True

    def leave_out(self, facts: Trouble) -> bool:
        """A statement that failed in the same way when the notebook was saved never had an effect: it is commented out."""
        cell = self.notebook.cells[facts.cell]
        saved = [output for output in cell.outputs if output.kind == "error"]
        if not saved or cell.tree is None or not any(facts.kind in output.text for output in saved):
            return False
        lines = [frame.line for frame in facts.frames if frame.cell == facts.cell]
        start = next(
            (one.lineno for one in cell.tree.body if lines and one.lineno <= lines[0] <= (one.end_lineno or 0)), None
        )
        if start is None:
            return False
        source = cell.source.split("\n")
        made = "\n".join(line if number < start else f"# {line}" for number, line in enumerate(source, 1))
        from d2c_mlops.convert.finding import Edit

        edit = Edit(cell.index, 1, 0, len(source), len(source[-1].encode()), made)
        plain = replace(cell, python=cell.source)
        self.notebook = replace(
            self.notebook, cells=tuple(plain if one is cell else one for one in self.notebook.cells)
        )
        reason = f"it failed with {facts.kind} when the notebook was saved too"
        return self.accept([(Mender("failed-before", "", "", reason), Proposal((edit,), reason))])

    def leave_out_plot(self, facts: Trouble) -> bool:
        """A statement that only draws and cannot be drawn any more changes no result: it is commented out."""
        cell = self.notebook.cells[facts.cell]
        lines = [frame.line for frame in facts.frames if frame.cell == facts.cell]
        body = cell.tree.body if cell.tree is not None and lines else []
        failed = next((one for one in body if one.lineno <= lines[0] <= (one.end_lineno or 0)), None)
        if not isinstance(failed, ast.Expr) or facts.kind in ("NameError", "KeyboardInterrupt", "MemoryError"):
            return False
        inference = self.scene(None).subject.inference
        calls = [node for node in ast.walk(failed) if isinstance(node, ast.Call)]
        drawn = any(inference.path(call.func).startswith(PLOTS) or _draws(call) for call in calls)
        if not drawn or not facts.through(
            "matplotlib/", "seaborn/", "plotly/", "pandas/plotting", "wordcloud/", "missingno/"
        ):
            return False
        first = facts.message.splitlines()[0][:120] if facts.message else ""
        reason = f"the plot cannot be drawn ({facts.kind}: {first}); no result depends on it"
        edit = without_statement(cell, failed, "")
        return self.accept([(Mender("undrawn", "", "", reason), Proposal((edit,), reason))])

    def refuse(self, facts: Trouble) -> None:
        """Say which cell fails, why, and what a person can do about it."""
        module = missing_module(facts)
        if module:
            name = distribution_of(module)
            self.missing = list(dict.fromkeys([*self.missing, name]))
            if module.startswith("ipywidgets"):
                why, step = (
                    "it is interactive: it waits for a person at its widgets",
                    "put the values into a parameters cell",
                )
            elif name in self.tried:
                why, step = (
                    f"`{module}` is missing and {name} cannot be installed: {self.tried[name]}",
                    "replace the package",
                )
            else:
                why = f"missing packages: {', '.join(self.missing)}"
                step = "install them into the run's own folder: add --install"
            raise Refused(Refusal(self.at(facts.cell), why, step, facts.kind))
        text = facts.message.splitlines()[0][:300] if facts.message else ""
        raise Refused(Refusal(self.at(facts.cell), f"{facts.kind}: {text}", self.advice(facts), facts.kind))

    def advice(self, facts: Trouble) -> str:
        """What a person can do about a failure that no mend fits."""
        if "OSError" in facts.bases and "FileNotFoundError" in facts.bases:
            large = ", ".join(one.name for one in self.too_large)
            return (
                f"these files are too large to be copied: {large}"
                if large
                else "give the folder of its data: --data FOLDER"
            )
        gone = re.search(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'", facts.message)
        for change in live_changes() if gone else ():
            if gone and change.argument == gone[2] and change.path.rpartition(".")[2] == gone[1]:
                return f"{gone[1]} has no `{gone[2]}` since {change.library} {change.since}: write {change.instead}, and convert again"
        if facts.kind == "EOFError":
            return "put the value into a parameters cell"
        if facts.kind == "NameError":
            return "define the name above this cell, or take the cell out"
        if facts.kind in ("URLError", "HTTPError", "ConnectionError", "gaierror", "SSLError"):
            return "download the file, and give its folder: --data FOLDER"
        where = next((f"line {frame.line}" for frame in _last_first(facts.frames)), "the cell")
        return f"mend {where} of the cell, and convert again"


def _draws(call: ast.Call) -> bool:
    """Whether a call is a plot method of pandas: `frame.plot(...)`, `frame.plot.bar()`, `frame.hist()`."""
    function = call.func
    if not isinstance(function, ast.Attribute):
        return False
    return function.attr in PLOT_METHODS or (
        isinstance(function.value, ast.Attribute) and function.value.attr == "plot"
    )


def _last_first(frames: Sequence[Frame]) -> list[Frame]:
    return list(reversed(frames))


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


def plain_text(output: Mapping[str, Any]) -> str:
    """Return the text of an nbformat 4 output."""
    if output.get("output_type") == "stream":
        return str(output.get("text", ""))
    text = output.get("data", {}).get("text/plain", "") if isinstance(output.get("data"), dict) else ""
    return re.sub(r"\x1b\[[0-9;]*m", "", str(text))
