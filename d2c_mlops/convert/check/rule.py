"""A rule of `d2c check`: what it looks for, why that breaks production, how to fix it, and examples."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

from d2c_mlops.convert.meaning.inference import Inference, infer_types
from d2c_mlops.convert.meaning.roles import Structure, calls_in_cell, infer_structure
from d2c_mlops.convert.source.dataflow import Flow, trace_names
from d2c_mlops.convert.source.finding import Edit, Hit, Severity
from d2c_mlops.convert.source.notebook import Cell, Notebook, Output, code_cell, parse_notebook
from d2c_mlops.errors import DataRefused

RULES_PACKAGE = "d2c_mlops.convert.check.rules"


@dataclass
class Subject:
    """A notebook with its inferred types, data flow and calls, each computed once for all rules."""

    notebook: Notebook
    folder: Path | None = None  # where relative paths start; None where nothing lies beside the notebook
    refusal: str = ""  # why the file could not be read at all; the notebook is empty then
    failed: dict[str, str] = field(default_factory=dict)  # rules that raised, with what they raised

    @cached_property
    def flow(self) -> Flow:
        """Names across cells."""
        return trace_names(self.notebook)

    @cached_property
    def inference(self) -> Inference:
        """The inferred objects of expressions."""
        return infer_types(self.notebook)

    @cached_property
    def structure(self) -> Structure:
        """Roles and fits."""
        return infer_structure(self.notebook, self.inference)

    @cached_property
    def calls(self) -> tuple[tuple[Cell, ast.Call, str], ...]:
        """Every call in document order, with the dotted path of the called function."""
        code_calls = [(cell, call) for cell in self.notebook.code for call in calls_in_cell(cell)]
        return tuple((cell, call, self.inference.path(call.func)) for cell, call in code_calls)

    @cached_property
    def nodes(self) -> tuple[tuple[Cell, ast.AST], ...]:
        """Every node of every cell that can be parsed."""
        return tuple((cell, node) for cell in self.notebook.code if cell.tree for node in ast.walk(cell.tree))

    @cached_property
    def fstring_node_ids(self) -> frozenset[int]:
        """Identities of all nodes inside f-strings."""
        return frozenset(
            id(part) for _, node in self.nodes if isinstance(node, ast.JoinedStr) for part in ast.walk(node)
        )

    @cached_property
    def docstrings(self) -> frozenset[int]:
        """Identities of constants that stand alone as statements: prose, not values."""
        return frozenset(id(node.value) for _, node in self.nodes if isinstance(node, ast.Expr))


Check = Callable[[Subject], Iterator[Hit]]


@dataclass(frozen=True)
class RuleExample:
    """A small notebook: code cells, or prose where a text starts with `md:`."""

    cells: tuple[str, ...]
    outputs: Mapping[int, str] = field(default_factory=dict)  # text printed by the cell of that index
    counts: tuple[int, ...] = ()
    language: str = "python"
    files: Mapping[str, bytes] = field(default_factory=dict)  # what lies beside the notebook
    raw: str = ""  # the file itself, where it is no notebook
    failed: Mapping[str, str] = field(default_factory=dict)

    def subject(self, folder: Path | None = None) -> Subject:
        """Build the subject of a rule; `files` are written into `folder`."""
        if folder is not None:
            for name, content in self.files.items():
                (folder / name).write_bytes(content)
        if self.raw:
            return read_subject(self.raw.encode(), Path("example.ipynb"), folder)
        return Subject(self.notebook(), folder, failed=dict(self.failed))

    def notebook(self) -> Notebook:
        """Build the notebook in memory."""
        return Notebook(
            Path("example.ipynb"), tuple(map(self._example_cell, range(len(self.cells)))), self.language, "", 4
        )

    def _example_cell(self, index: int) -> Cell:
        text = self.cells[index]
        if text.startswith("md:"):
            return Cell(index, "markdown", text[3:])
        saved = (Output("stream", self.outputs[index]),) if index in self.outputs else ()
        count = self.counts[index] if self.counts else None
        if self.language != "python":
            return Cell(index, "code", text, outputs=saved, execution_count=count)
        return code_cell(index, text, outputs=saved, execution_count=count)


@dataclass(frozen=True)
class Rule:
    """One thing that breaks production, found by `check`."""

    id: str
    name: str
    severity: Severity
    why: str
    fix: str
    check: Check
    bad: RuleExample
    good: RuleExample


def make_rule_example(
    *cells: str,
    outputs: Mapping[int, str] | None = None,
    counts: tuple[int, ...] = (),
    language: str = "python",
    files: Mapping[str, bytes] | None = None,
    raw_notebook: str = "",
    failed_cell: Mapping[str, str] | None = None,
) -> RuleExample:
    """Write an example in one line."""
    return RuleExample(cells, outputs or {}, counts, language, files or {}, raw_notebook, failed_cell or {})


def rule(
    id: str, name: str, severity: Severity, *, why: str, fix: str, bad: RuleExample, good: RuleExample
) -> Callable[[Check], Rule]:
    """Turn a generator of hits into a rule; a module under convert/rules holding one is all that it takes."""
    return lambda check: Rule(id, name, severity, why, fix, check, bad, good)


def read_subject(raw: bytes, path: Path, folder: Path | None) -> Subject:
    """Read a notebook for checking; an unreadable file becomes an empty notebook with the reason."""
    try:
        return Subject(parse_notebook(raw, path), folder)
    except DataRefused as error:
        return Subject(Notebook(path, (), "python", "", 4), folder, f"{error.what}; {error.next}")


@cache
def rules() -> tuple[Rule, ...]:
    """Find all rules of the modules under convert/rules, ordered by id."""
    package = importlib.import_module(RULES_PACKAGE)
    by_id: dict[str, Rule] = {}
    for module in pkgutil.iter_modules(package.__path__):
        for value in vars(importlib.import_module(f"{RULES_PACKAGE}.{module.name}")).values():
            if isinstance(value, Rule) and by_id.setdefault(value.id, value) is not value:
                raise ValueError(f"two rules share the id {value.id}: {by_id[value.id].name}, {value.name}")
    return tuple(by_id[key] for key in sorted(by_id))


def make_hit(
    cell: Cell,
    node: ast.AST,
    message: str,
    *,
    fix: str = "",
    severity: Severity | None = None,
    edits: tuple[Edit, ...] = (),
) -> Hit:
    """Place a message at a node."""
    line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
    return Hit(cell.index, line, column + 1, message, fix, severity, edits)
