"""What a fix is: exact edits with a reason, proposed before a run or after a failure; fixes are discovered."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict, TypeVar, cast

from d2c_mlops.convert.api_changes.change import is_installed_at_least
from d2c_mlops.convert.check.rule import Subject
from d2c_mlops.convert.repair.data_files import DataFiles
from d2c_mlops.convert.source.finding import Edit
from d2c_mlops.convert.source.notebook import Cell, Notebook, code_cell

if TYPE_CHECKING:
    from d2c_mlops.convert.run.session import CellError, CodePlace

FIXES_PACKAGE = "d2c_mlops.convert.repair.fixes"
Node = TypeVar("Node", bound=ast.AST)


class FixFacts(TypedDict):
    """An AppliedFix as JSON values; `cell` counts from 1."""

    cell: int | None
    kind: str
    before: str
    after: str
    reason: str


@dataclass(frozen=True)
class AppliedFix:
    """A fix that was applied; `cell` counts from 0, None if it changes no cell."""

    cell: int | None
    kind: str
    before: str
    after: str
    reason: str

    def to_dict(self) -> FixFacts:
        """Return the fix as JSON values; `cell` counts from 1."""
        cell = None if self.cell is None else self.cell + 1
        return {"cell": cell, "kind": self.kind, "before": self.before, "after": self.after, "reason": self.reason}


@dataclass(frozen=True)
class Proposal:
    """What a fix proposes: edits of cells, files to copy beside the notebook, distributions to install."""

    edits: tuple[Edit, ...] = ()
    reason: str = ""
    files: tuple[tuple[Path, str], ...] = ()
    distributions: tuple[str, ...] = ()
    restart: bool = False  # cells before the failing one have to run again


@dataclass(frozen=True)
class CellFailure:
    """The failure of a cell: exception, message, frames and nearby values."""

    cell: int
    kind: str
    message: str
    bases: tuple[str, ...] = ()
    arguments: tuple[int | str, ...] = ()
    name: str = ""  # the attribute or module that was not there
    holder: str = ""  # class of the object without that attribute
    filename: str = ""
    frames: tuple[CodePlace, ...] = ()  # of cells, outermost first
    library: tuple[str, ...] = ()
    strings: Mapping[str, str] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)

    def says(self, *texts: str) -> bool:
        """Whether the message contains any of the texts."""
        return any(text in self.message for text in texts)

    def through(self, *texts: str) -> bool:
        """Whether the failure was raised inside a library file or function of that name."""
        return any(text in place for text in texts for place in self.library)


def cell_failure(cell: int, error: CellError) -> CellFailure:
    """Return the failure of a cell from the facts that the child process sent."""
    return CellFailure(
        cell,
        error["kind"],
        error["message"],
        tuple(error["bases"]),
        tuple(error["arguments"]),
        error["name"],
        error["holder"],
        error["filename"],
        tuple(error["frames"]),
        tuple(error["library"]),
        error["strings"],
        error["kinds"],
    )


@dataclass
class RepairContext:
    """The state of a repair between two runs, which fixes may read."""

    notebook: Notebook
    data_files: DataFiles
    install: bool = False
    tried: frozenset[str] = frozenset()  # distributions that could not be installed
    kinds: Callable[[Sequence[str]], Mapping[str, str]] = lambda names: {}
    executed: int = 0  # cells up to this index have run

    def __post_init__(self) -> None:
        self.subject = Subject(self.notebook)

    def cell(self, index: int) -> Cell:
        """Return a cell by its place."""
        return self.notebook.cells[index]

    def nodes(self, kind: type[Node], cell: Cell | None = None) -> Iterator[tuple[Cell, Node]]:
        """Yield all nodes of a kind, in one cell or in all."""
        for node_cell, node in self.subject.nodes:
            if isinstance(node, kind) and (cell is None or node_cell.index == cell.index):
                yield node_cell, node

    def failing(self, failure: CellFailure, kind: type[Node]) -> Iterator[tuple[Cell, Node]]:
        """Yield the nodes of a kind at the place of the failure, most likely first, innermost frame first."""
        for frame in reversed(failure.frames):
            if not 0 <= frame["cell"] < len(self.notebook.cells):
                continue
            cell = self.cell(frame["cell"])
            ranked = [(rank, node) for _, node in self.nodes(kind, cell) if (rank := _nearness_rank(frame, node)) < 9]
            for _, node in sorted(ranked, key=lambda pair: pair[0]):
                yield cell, node

    def nearest(self, failure: CellFailure, kind: type[Node]) -> Iterator[tuple[Cell, Node]]:
        """Yield the nodes of a kind at the place of the failure, then those of the cells that ran, the last one first."""
        near = list(self.failing(failure, kind))
        yield from near
        near_ids = {id(node) for _, node in near}
        ran = [
            (cell, node) for cell, node in self.nodes(kind) if cell.index <= failure.cell and id(node) not in near_ids
        ]
        yield from sorted(ran, key=lambda pair: -pair[0].index)


def _nearness_rank(frame: CodePlace, node: ast.AST) -> int:
    """Return 0 for the node itself, 1 inside it, 2 around it, 3 on the same lines, 9 elsewhere."""
    line = getattr(node, "lineno", None)
    if line is None:
        return 9
    last = getattr(node, "end_lineno", line) or line
    column, end_column = frame["column"], frame["end_column"]
    if column is not None and end_column is not None:
        start, end = (line, getattr(node, "col_offset", 0)), (last, getattr(node, "end_col_offset", 0))
        frame_start, frame_end = (frame["line"], column), (frame["end_line"], end_column)
        if (start, end) == (frame_start, frame_end):
            return 0
        if frame_start <= start and end <= frame_end:
            return 1
        if start <= frame_start and frame_end <= end:
            return 2
    return 3 if line <= frame["end_line"] and last >= frame["line"] else 9


Find = Callable[[RepairContext], Iterator[Proposal]]
React = Callable[[RepairContext, CellFailure], Proposal | None]


@dataclass(frozen=True)
class Fix:
    """A kind of fix: its library, the version that made it necessary, and the reason."""

    id: str
    library: str
    since: str
    reason: str
    find: Find | None = None  # proposals that need no failure: changes that are silent, or certain
    react: React | None = None
    order: int = 50  # lower is asked first

    @property
    def live(self) -> bool:
        """Whether the installed version is past the change; an absent library would come in its newest."""
        return not self.since or not self.library or is_installed_at_least(self.library, self.since)


def fix_before_run(id: str, library: str, since_version: str, reason: str, *, order: int = 50) -> Callable[[Find], Fix]:
    """Turn a generator of proposals into a fix that is applied before a run."""
    return lambda find: Fix(id, library, since_version, reason, find=find, order=order)


def fix_after_failure(
    id: str, library: str, since_version: str, reason: str, *, order: int = 50
) -> Callable[[React], Fix]:
    """Turn a function of a failure into a fix that is applied after the failure."""
    return lambda react: Fix(id, library, since_version, reason, react=react, order=order)


@cache
def registered_fixes() -> tuple[Fix, ...]:
    """Return all fixes of the modules in convert/repair/fixes."""
    package = importlib.import_module(FIXES_PACKAGE)
    by_id: dict[str, Fix] = {}
    for module in pkgutil.iter_modules(package.__path__):
        for value in vars(importlib.import_module(f"{FIXES_PACKAGE}.{module.name}")).values():
            if isinstance(value, Fix) and by_id.setdefault(value.id, value) is not value:
                raise ValueError(f"two fixes have the id {value.id}")
    return tuple(sorted(by_id.values(), key=lambda fix: (fix.order, fix.id)))


def source_text(cell: Cell, node: ast.AST) -> str:
    """Return a node's text as the author wrote it."""
    return ast.get_source_segment(cell.python, node) or ast.unparse(node)


def last_name(node: ast.expr) -> str:
    """Return `c` of `a.b.c`, or a plain name."""
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def insert_text_edit(cell: Cell, line: int, column: int, text: str) -> Edit:
    """Put a text in before a place."""
    return Edit(cell.index, line, column, line, column, text)


def add_argument_edit(cell: Cell, call: ast.Call, text: str) -> Edit:
    """Add an argument at the end of a call, whatever its commas and comments look like."""
    parts: list[ast.expr | ast.keyword] = sorted(
        [*call.args, *call.keywords], key=lambda part: (part.lineno, part.col_offset)
    )
    if parts:
        last = parts[-1]
        line, column = last.end_lineno or last.lineno, last.end_col_offset or 0
        if isinstance(last, ast.GeneratorExp) and len(parts) == 1:
            return insert_text_edit(cell, line, column, f", {text}")
        closed = _after_brackets(cell, call, line, column)
        return insert_text_edit(cell, *closed, f", {text}")
    return insert_text_edit(cell, call.end_lineno or 0, (call.end_col_offset or 0) - 1, text)


def _after_brackets(cell: Cell, call: ast.Call, line: int, column: int) -> tuple[int, int]:
    """Move behind brackets that close around the last argument itself: `f((a))`."""
    lines = [text.encode() for text in cell.python.split("\n")]
    end = (call.end_lineno or line, (call.end_col_offset or 0) - 1)
    tail = lines[line - 1][column : end[1] if end[0] == line else None].decode("utf-8", "replace")
    stripped = tail.lstrip()
    if stripped.startswith(")"):
        return line, column + len(tail[: len(tail) - len(stripped)].encode()) + 1
    return line, column


def replace_node_edit(cell: Cell, node: ast.AST, text: str) -> Edit:
    """Replace a whole node; brackets around it stay."""
    place = cast("ast.expr", node)
    return Edit(cell.index, place.lineno, place.col_offset, place.end_lineno or 0, place.end_col_offset or 0, text)


def enclosing_statement(cell: Cell, node: ast.AST) -> ast.stmt | None:
    """Return the innermost statement around a node."""
    if cell.tree is None:
        return None
    best: ast.stmt | None = None
    for child in ast.walk(cell.tree):
        if isinstance(child, ast.stmt) and any(part is node for part in ast.walk(child)):
            best = child
    return best


def parent_node(cell: Cell, node: ast.AST) -> ast.AST | None:
    """Return the node right above another."""
    for part in ast.walk(cell.tree) if cell.tree is not None else ():
        if any(child is node for child in ast.iter_child_nodes(part)):
            return part
    return None


def insert_line_edit(cell: Cell, statement: ast.stmt, text: str) -> Edit:
    """Put a line in before a statement, indented like it."""
    return insert_text_edit(cell, statement.lineno, statement.col_offset, text + "\n" + " " * statement.col_offset)


def comment_out_edit(cell: Cell, statement: ast.stmt, note: str) -> Edit:
    """Comment out a whole statement; inside a block `pass` replaces it."""
    text = source_text(cell, statement).replace("\n", "\n# ")
    inside = cell.tree is not None and statement not in cell.tree.body
    lines = cell.python.split("\n")
    tail = lines[(statement.end_lineno or 1) - 1].encode()[statement.end_col_offset or 0 :].strip()
    start = "pass  # " if inside else "# "
    if tail.startswith(b";") or (inside and "\n" in text):
        return replace_node_edit(cell, statement, "pass")
    return replace_node_edit(cell, statement, f"{start}{text}" + (f"  ({note})" if note and "\n" not in text else ""))


def apply_notebook_edits(notebook: Notebook, edits: Iterable[Edit]) -> Notebook:
    """Return the notebook with edits applied; the rest is unchanged."""
    changed: dict[int, list[Edit]] = {}
    for edit in edits:
        changed.setdefault(edit.cell, []).append(edit)
    cells = list(notebook.cells)
    for index, mine in changed.items():
        old = cells[index]
        new_cell = code_cell(index, cell_source_with_edits(old, mine), tags=old.tags, id=old.id)
        cells[index] = replace(new_cell, outputs=old.outputs, execution_count=old.execution_count)
    return replace(notebook, cells=tuple(cells))


def cell_source_with_edits(cell: Cell, edits: Iterable[Edit]) -> str:
    """Return a cell's source with edits applied at positions of its Python code; of overlapping edits the first is applied."""
    lines = [line.encode() for line in cell.source.split("\n")]
    python = [line.encode() for line in cell.python.split("\n")]
    ranges: list[tuple[tuple[int, int], tuple[int, int]]] = []
    accepted: list[Edit] = []
    for edit in dict.fromkeys(edits):
        start, end = (edit.line, edit.column), (edit.end_line, edit.end_column)
        if any((start < high and low < end) or (start, end) == (low, high) for low, high in ranges):
            continue
        ranges.append((start, end))
        accepted.append(edit)
    # From the end to the start; what is put in at a place comes before what replaces the text there.
    for edit in sorted(
        accepted, key=lambda edit: (edit.line, edit.column, edit.end_line, edit.end_column), reverse=True
    ):
        first = edit.column + _column_shift(lines, python, edit.line)
        last = edit.end_column + _column_shift(lines, python, edit.end_line)
        head, tail = lines[edit.line - 1][:first], lines[edit.end_line - 1][last:]
        lines[edit.line - 1 : edit.end_line] = (head + edit.text.encode() + tail).split(b"\n")
        python = lines if len(lines) != len(python) else python
    return b"\n".join(lines).decode("utf-8", "replace")


def _column_shift(lines: Sequence[bytes], python: Sequence[bytes], line: int) -> int:
    """The column offset of a line in the source: dedented cells, `%time x = f()`."""
    if line > len(lines) or line > len(python):
        return 0
    ours, theirs = lines[line - 1], python[line - 1]
    return len(ours) - len(theirs) if theirs and ours.endswith(theirs) else 0
