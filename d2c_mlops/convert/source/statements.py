"""Statements of a notebook in document order, with the names that each reads, binds and changes."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from d2c_mlops.convert.source.notebook import Cell, Notebook, code_cell
from d2c_mlops.convert.source.scopes import names_in, target_names

_OPAQUE = frozenset({"exec", "eval", "globals", "locals", "vars", "get_ipython"})
_NOW = frozenset(
    "agg aggregate apply applymap assign filter groupby map pipe rename sort sort_values transform pivot_table".split()  # noqa: SIM905
)
_NOW_FUNCTIONS = frozenset({"sorted", "max", "min", "any", "all", "sum", "list", "dict", "set", "tuple", "len", "next"})


@dataclass(frozen=True)
class Facts:
    """The names of a statement; `reads` may happen before the statement itself has bound the name."""

    reads: frozenset[str] = frozenset()
    loads: frozenset[str] = frozenset()  # every name read anywhere inside
    binds: tuple[str, ...] = ()  # in order of appearance, loop variables last
    definite: frozenset[str] = frozenset()  # bound whatever happens
    mutates: tuple[str, ...] = ()
    deletes: frozenset[str] = frozenset()
    passing: frozenset[str] = frozenset()  # loop variables, handlers and the like
    captured: frozenset[str] = frozenset()  # free names of functions that outlive the statement
    opaque: bool = False


@dataclass(frozen=True, eq=False)
class Statement:
    """One top-level statement; `source` holds its lines with the comments above it."""

    cell: int
    order: int
    node: ast.stmt
    source: str
    first: int  # line of the cell at which `source` starts, from 1
    comment: str
    facts: Facts = field(default_factory=Facts)

    @property
    def lines(self) -> int:
        """How many lines the statement itself has."""
        return (self.node.end_lineno or self.node.lineno) - self.node.lineno + 1

    @property
    def place(self) -> tuple[int, int]:
        """Cell and order within the cell."""
        return self.cell, self.order


def normalise_notebook(notebook: Notebook) -> Notebook:
    """Return the notebook with one statement a line at most and without IPython's own syntax."""
    cells = tuple(_normalised_cell(cell) if cell.kind == "code" else cell for cell in notebook.cells)
    return replace(notebook, cells=cells)


def _normalised_cell(cell: Cell) -> Cell:
    if cell.tree is None:
        return cell
    source, body = cell.python, cell.tree.body
    shared = any(a.end_lineno == _first_line(b) for a, b in pairwise(body))
    if shared or any(node.col_offset for node in body):
        source = "\n".join(ast.unparse(node) for node in body)
    plain_cell = code_cell(cell.index, source, outputs=cell.outputs, id=cell.id, tags=cell.tags)
    return replace(plain_cell, magics=cell.magics)


def _first_line(node: ast.stmt) -> int:
    decorators = getattr(node, "decorator_list", [])
    first: int = min([node.lineno, *(decorator.lineno for decorator in decorators)])
    return first


def cell_statements(cell: Cell) -> list[Statement]:
    """Return the top-level statements of a normalised cell; every line of the cell belongs to one of them."""
    if cell.tree is None:
        return []
    lines = cell.python.split("\n")
    found_statements: list[Statement] = []
    first = 1
    body = cell.tree.body
    for order, node in enumerate(body):
        last = len(lines) if order == len(body) - 1 else node.end_lineno or node.lineno
        text = "\n".join(lines[first - 1 : last]).rstrip()
        above = [line.strip() for line in lines[first - 1 : _first_line(node) - 1]]
        comment = " ".join(line.lstrip("# ").strip() for line in above if line.startswith("#"))
        found_statements.append(Statement(cell.index, order, node, text, first, comment, statement_names(node)))
        first = last + 1
    return found_statements


def statement_names(node: ast.stmt, extras: dict[str, frozenset[str]] | None = None) -> Facts:
    """Read the names of one statement; mentioning a function in `extras` reads what it takes from outside."""
    names = names_in([node])
    walk = _Definite(extras or {})
    definite = walk.block([node], frozenset())
    handlers = {
        descendant.name
        for descendant in ast.walk(node)
        if isinstance(descendant, ast.ExceptHandler) and descendant.name
    }
    passing = {name.id for part in ast.walk(node) for name in _loop_targets(part)} | handlers
    binds = tuple(dict.fromkeys(use.name for use in names.binds if use.name not in handlers))
    loads = frozenset(names.loads) | walk.reads | frozenset(names.deferred)
    awaits = any(isinstance(child, ast.Await | ast.NamedExpr | ast.Global) for child in ast.walk(node))
    return Facts(
        reads=frozenset(walk.reads),
        loads=loads,
        binds=binds,
        definite=definite,
        mutates=tuple(names.mutates),
        deletes=frozenset(names.deletes),
        passing=frozenset(passing),
        captured=frozenset(_captured_names(node)),
        opaque=awaits or bool(_OPAQUE & loads) or bool(names.stars),
    )


def _loop_targets(node: ast.AST) -> Iterator[ast.Name]:
    """Yield the names that a loop or a with statement binds."""
    if isinstance(node, ast.For | ast.AsyncFor):
        yield from target_names(node.target)
    elif isinstance(node, ast.withitem) and node.optional_vars is not None:
        yield from target_names(node.optional_vars)


class _Definite:
    """Collects the names of a block that may be read before they are bound."""

    def __init__(self, extras: dict[str, frozenset[str]]) -> None:
        self.reads: set[str] = set()
        self.extras = extras

    def block(self, body: Sequence[ast.stmt], bound: frozenset[str]) -> frozenset[str]:
        for node in body:
            bound = self.statement(node, bound)
        return bound

    def read(self, names: Iterable[str], bound: frozenset[str]) -> None:
        for name in names:
            self.reads |= ({name} | self.extras.get(name, frozenset())) - bound

    def expressions(self, nodes: Iterable[ast.AST | None], bound: frozenset[str]) -> frozenset[str]:
        for node in nodes:
            if isinstance(node, ast.expr):
                node = ast.copy_location(ast.Expr(node), node)
            if isinstance(node, ast.stmt):
                names = names_in([node])
                self.read([*names.reads, *names.deferred, *names.mutates], bound)
                bound = bound | frozenset(names.defines)
                self.read([name for name in names.loads if name in self.extras], bound)
        return bound

    def statement(self, node: ast.stmt, bound_names: frozenset[str]) -> frozenset[str]:
        if isinstance(node, ast.If):
            self.expressions([node.test], bound_names)
            return self.block(node.body, bound_names) & self.block(node.orelse, bound_names)
        if isinstance(node, ast.For | ast.AsyncFor):
            self.expressions([node.iter], bound_names)
            inside = bound_names | {name.id for name in target_names(node.target)}
            self.expressions([ast.copy_location(ast.Assign([node.target], ast.Constant(0)), node)], bound_names)
            bound_after = self.block(node.body, inside)
            self.block(node.orelse, bound_names)
            leaves = any(isinstance(child, ast.Break | ast.Continue) for child in ast.walk(node))
            return bound_after if _loop_runs(node.iter) and not leaves else bound_names
        if isinstance(node, ast.While):
            self.expressions([node.test], bound_names)
            self.block(node.body, bound_names)
            self.block(node.orelse, bound_names)
            return bound_names
        if isinstance(node, ast.With | ast.AsyncWith):
            for item in node.items:
                self.expressions([item.context_expr], bound_names)
                if item.optional_vars is not None:
                    bound_names = bound_names | {name.id for name in target_names(item.optional_vars)}
            return self.block(node.body, bound_names)
        if isinstance(node, ast.Try | ast.TryStar):
            bound_after = self.block([*node.body, *node.orelse], bound_names)
            for handler in node.handlers:
                self.expressions([handler.type], bound_names)
                caught = bound_names | ({handler.name} if handler.name else set())
                bound_after &= self.block(handler.body, caught)
            return self.block(node.finalbody, bound_after)
        if isinstance(node, ast.Match):
            self.expressions([node.subject], bound_names)
            for case in node.cases:
                bound = {n for part in ast.walk(case.pattern) if (n := getattr(part, "name", None))}
                self.expressions([case.guard], bound_names | bound)
                self.block(case.body, bound_names | bound)
            return bound_names
        return self.expressions([node], bound_names)


def _loop_runs(iterated: ast.expr) -> bool:
    """Whether a loop over it runs at least once."""
    if isinstance(iterated, ast.List | ast.Tuple):
        return any(not isinstance(element, ast.Starred) for element in iterated.elts)
    if isinstance(iterated, ast.Call) and isinstance(iterated.func, ast.Name) and iterated.func.id == "range":
        try:
            return len(range(*(ast.literal_eval(argument) for argument in iterated.args))) > 0
        except (ValueError, TypeError):
            return False
    return False


def _captured_names(node: ast.AST, now: bool = False) -> Iterator[str]:
    """Yield the free names of lambdas, generators and inner functions that may be called after the statement."""
    if isinstance(node, ast.Lambda | ast.GeneratorExp) and not now:
        yield from names_in([ast.copy_location(ast.Expr(node), node)]).reads
        return
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield from names_in([node]).deferred
        return
    calls = isinstance(node, ast.Call) and (
        (isinstance(node.func, ast.Attribute) and node.func.attr in (_NOW | {"join", "fromkeys"}))
        or (isinstance(node.func, ast.Name) and node.func.id in _NOW_FUNCTIONS)
    )
    for child in ast.iter_child_nodes(node):
        yield from _captured_names(child.value if isinstance(child, ast.keyword) and calls else child, calls)
