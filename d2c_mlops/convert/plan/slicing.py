"""Slice a notebook backwards: which statements define the requested names and columns."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

from d2c_mlops.convert.meaning.api_signatures import SERIES
from d2c_mlops.convert.meaning.column_selection import dropped_columns, string_list
from d2c_mlops.convert.meaning.inference import Inference
from d2c_mlops.convert.plan.block import Block
from d2c_mlops.convert.source.statements import Facts, Statement

_CHANCE = ("numpy.random.", "random.")
_ROWS = frozenset(
    "dropna drop_duplicates sample head tail query nlargest nsmallest sort_values sort_index truncate".split()  # noqa: SIM905
)
_MASKS = frozenset({"isin", "between", "notna", "notnull", "isna", "isnull", "duplicated"})


@dataclass(frozen=True)
class ColumnSet:
    """The columns in `only`, or all of them but `without`."""

    only: frozenset[str] | None = None
    without: frozenset[str] = frozenset()

    def __or__(self, addend: ColumnSet) -> ColumnSet:
        if self.only is not None and addend.only is not None:
            return ColumnSet(self.only | addend.only)
        if self.only is None and addend.only is None:
            return ColumnSet(None, self.without & addend.without)
        whole, part = (self, addend) if self.only is None else (addend, self)
        return ColumnSet(None, whole.without - (part.only or frozenset()))

    def __sub__(self, names: frozenset[str]) -> ColumnSet:
        return ColumnSet(None, self.without | names) if self.only is None else ColumnSet(self.only - names)

    def __and__(self, names: frozenset[str]) -> frozenset[str]:
        return names - self.without if self.only is None else names & self.only


ALL, NONE = ColumnSet(), ColumnSet(frozenset())


@dataclass
class NeededColumns:
    """The names and columns that are needed at one place; statements are processed from the last to the first."""

    inference: Inference
    seen: frozenset[str] = frozenset()  # names that need no statement: builtins, imports, functions of the module
    columns: dict[str, ColumnSet] = field(default_factory=dict)
    every: bool = False  # whether each row is wanted, whatever the code chooses

    def want(self, name: str, columns: ColumnSet = ALL) -> None:
        """Mark a name, or some of its columns, as needed."""
        if name not in self.seen:
            self.columns[name] = self.columns.get(name, NONE) | columns

    def read(self, node: ast.AST, limited_to: Collection[str] | None = None) -> None:
        """Mark the names that a piece of code reads as needed; with `limited_to` only these names."""
        for name, columns in self.reads(node):
            if limited_to is None or name in limited_to:
                self.want(name, columns)

    def reads(self, node: ast.AST) -> Iterator[tuple[str, ColumnSet]]:
        """Yield each name in a piece of code with the columns that are read of it."""
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Load):
                yield node.id, ALL
            return
        if self.every and (base := table_of_row_selection(node)) is not None:
            yield from self.reads(base)
            return
        owner = getattr(node, "value", None)
        if isinstance(owner, ast.Name) and isinstance(getattr(node, "ctx", None), ast.Load):
            if isinstance(node, ast.Subscript) and (names := string_list(node.slice, self.inference)) is not None:
                yield owner.id, ColumnSet(frozenset(names))
                yield from self.reads(node.slice)
                return
            if isinstance(node, ast.Attribute) and self.inference.kind(node) == SERIES:
                yield owner.id, ColumnSet(frozenset([node.attr]))
                return
        for child in ast.iter_child_nodes(node):
            yield from self.reads(child)

    def touches(
        self, statement: Statement, facts: Facts | None = None, limited_to: Collection[str] | None = None
    ) -> bool:
        """Whether a statement creates or changes a needed name; with `limited_to` only of these names."""
        facts = facts or statement.facts
        touched = {*facts.binds, *facts.mutates} & set(self.columns)
        touched = touched if limited_to is None else touched & set(limited_to)
        if self.every and inplace_filtered_table(getattr(statement.node, "value", None)) is not None:
            return False
        stored = column_assignment(statement.node, self.inference)
        if not touched or stored is None or touched != {stored.name} or self._uses_randomness(statement.node):
            return bool(touched)
        return bool(self.columns[stored.name] & stored.columns)

    def step_back_over(self, statement: Statement, facts: Facts | None = None) -> None:
        """Replace the names that a statement creates by the names that it reads."""
        facts = facts or statement.facts
        node, around = statement.node, {*facts.reads, *facts.mutates}
        for name in facts.reads - {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}:
            self.want(name)  # what a function of the author reads from the notebook
        stored = column_assignment(node, self.inference)
        if stored is not None:
            before = self.columns.get(stored.name, NONE)
            self.columns[stored.name] = before | ColumnSet(stored.columns) if stored.kept else before - stored.columns
            for part in stored.reads:
                self.read(part, around)
            return
        if (passed := self._table_assignment(node)) is not None:
            target, source, gone = passed
            columns = self.columns.pop(target, NONE)
            self.want(source, columns - gone if self.every else columns | ColumnSet(gone))
            return
        if (parts := split_parts(node, self.inference)) is not None:
            for target, part in parts:
                if self.every and target not in self.columns:
                    continue
                columns = self.columns.pop(target, NONE)
                if isinstance(part, ast.Name):
                    self.want(part.id, columns)
                else:
                    self.read(part, around)
            if self.every:
                return
        for name in facts.definite:
            self.columns.pop(name, None)
        self.read(node if parts is None else ast.Module(_optional_statements(node), []), around)
        for name in facts.mutates:
            self.want(name)

    def _table_assignment(self, node: ast.stmt) -> tuple[str, str, frozenset[str]] | None:
        """`a = b`, `a = b.copy()`, `a = b.drop(columns=…)`, `b.drop(…, inplace=True)`: the names, and the columns dropped."""
        if not isinstance(node, ast.Assign | ast.Expr):
            return None
        source, gone = node.value, frozenset[str]()
        while not isinstance(source, ast.Name):
            base = table_of_row_selection(source) if self.every else None
            if base is None:
                if not (isinstance(source, ast.Call) and isinstance(source.func, ast.Attribute)):
                    return None
                if source.func.attr == "drop" and (names := dropped_columns(source, self.inference)):
                    gone |= frozenset(names)
                elif source.func.attr not in ("copy", "reset_index") or source.args:
                    return None
                base = source.func.value
            source = base
        if isinstance(node, ast.Expr):
            return (source.id, source.id, gone) if gone else None
        target = node.targets[0] if len(node.targets) == 1 else None
        return (target.id, source.id, gone) if isinstance(target, ast.Name) else None

    def _uses_randomness(self, node: ast.AST) -> bool:
        calls = (part for part in ast.walk(node) if isinstance(part, ast.Call))
        return any(self.inference.path(call.func).startswith(_CHANCE) for call in calls)


@dataclass(frozen=True)
class ColumnAssignment:
    """`table["column"] = …`: the columns that are set; `kept` if some rows keep their former values."""

    name: str
    columns: frozenset[str]
    reads: tuple[ast.AST, ...]
    kept: bool = False


def column_assignment(node: ast.stmt, inference: Inference) -> ColumnAssignment | None:
    """Return the columns that a statement sets, if it does nothing else."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target, row_selected = node.targets[0], False
    elif isinstance(node, ast.AugAssign):
        target, row_selected = node.target, True
    else:
        return None
    if not isinstance(target, ast.Subscript):
        return None
    owner, key = target.value, target.slice
    reads: tuple[ast.AST, ...] = (node.value, key)
    if isinstance(owner, ast.Attribute) and owner.attr == "loc" and isinstance(key, ast.Tuple) and len(key.elts) == 2:
        owner, key, row_selected = owner.value, key.elts[1], True
    names = string_list(key, inference)
    return (
        ColumnAssignment(owner.id, frozenset(names), reads, row_selected)
        if isinstance(owner, ast.Name) and names
        else None
    )


def split_parts(node: ast.stmt, inference: Inference) -> list[tuple[str, ast.expr]] | None:
    """`a, b, c, d = train_test_split(X, y)`: each name with the table that it is a part of."""
    if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
        return None
    target = node.targets[0]
    if not (inference.path(node.value.func).endswith(".train_test_split") and isinstance(target, ast.Tuple | ast.List)):
        return None
    arguments = node.value.args
    pairs = [(part, arguments[place // 2]) for place, part in enumerate(target.elts) if place // 2 < len(arguments)]
    return [(part.id, whole) for part, whole in pairs if isinstance(part, ast.Name)]


def _optional_statements(node: ast.stmt) -> list[ast.stmt]:
    call = getattr(node, "value", None)
    return [ast.Expr(word.value) for word in call.keywords] if isinstance(call, ast.Call) else []


def table_of_row_selection(node: ast.AST | None) -> ast.expr | None:
    """Return the table of which an expression only chooses or orders rows: `df[df.a > 1]`, `df.iloc[:9]`, `df.dropna()`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return node.func.value if node.func.attr in _ROWS and not is_over_columns(node) else None
    if not (isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load)):
        return None
    base, key = node.value, node.slice
    method = key.func.attr if isinstance(key, ast.Call) and isinstance(key.func, ast.Attribute) else ""
    either = isinstance(key, ast.BinOp) and isinstance(key.op, ast.BitAnd | ast.BitOr)
    not_so = isinstance(key, ast.UnaryOp) and isinstance(key.op, ast.Invert)
    if not (isinstance(key, ast.Compare | ast.Slice) or either or not_so or method in _MASKS):
        return None
    return base.value if isinstance(base, ast.Attribute) and base.attr in ("loc", "iloc") else base


def inplace_filtered_table(node: ast.AST | None) -> str | None:
    """Return the table in which `df.dropna(inplace=True)` or `df.drop(rows, inplace=True)` chooses rows."""
    function = node.func if isinstance(node, ast.Call) else None
    if not (
        isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and isinstance(node, ast.Call)
    ):
        return None
    inside = any(word.arg == "inplace" for word in node.keywords)
    chooses = function.attr in _ROWS or function.attr == "drop"
    return function.value.id if inside and chooses and not is_over_columns(node) else None


def is_over_columns(call: ast.Call) -> bool:
    """Whether a call works on columns."""
    for word in call.keywords:
        if word.arg == "columns" or (
            word.arg == "axis" and isinstance(word.value, ast.Constant) and word.value.value in (1, "columns")
        ):
            return True
    is_drop = isinstance(call.func, ast.Attribute) and call.func.attr == "drop"
    return is_drop and len(call.args) > 1 and isinstance(call.args[1], ast.Constant) and call.args[1].value == 1


def take_if_needed(block: Block, needed: NeededColumns) -> bool:
    """Whether a step creates a needed name; if so, all of its inputs become needed."""
    if not any(needed.touches(line.statement, line.facts, block.outputs) for line in block.lines):
        return False
    before = set(needed.columns) - {name for line in block.lines for name in line.facts.binds}
    for line in reversed(block.lines):
        needed.step_back_over(line.statement, line.facts)
    for name in set(needed.columns) - before - set(block.inputs):
        del needed.columns[name]
    for name in set(block.inputs) - set(needed.columns):
        needed.want(name)
    return True
