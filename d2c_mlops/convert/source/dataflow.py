"""Data flow of a notebook: what each cell defines, reads and changes, and the edges between cells."""

from __future__ import annotations

import builtins
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from d2c_mlops.convert.source.notebook import KERNEL_NAMES, Cell, Notebook
from d2c_mlops.convert.source.scopes import Function, Import, Names, Use, names_in

BUILTINS = frozenset(dir(builtins))
_PROMPT_NAME = re.compile(r"^_i?\d+$")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*")
_OPAQUE_MAGICS = frozenset({"pylab", "run", "store", "load", "loadpy", "reload_ext", "R", "sql", "bigquery"})
_OPAQUE_CALLS = frozenset({"exec", "globals", "locals", "vars"})


@dataclass(frozen=True)
class CellFlow:
    """The names of one cell. `reads` are free names, read before the cell itself binds them."""

    cell: int
    defines: Mapping[str, Use]
    reads: Mapping[str, Use]
    mutates: Mapping[str, Use]
    deletes: Mapping[str, Use]
    binds: tuple[Use, ...]  # every binding, in order; a name bound twice appears twice
    loads: Mapping[str, tuple[Use, ...]]  # every load at the top level of the cell
    imports: tuple[Import, ...]
    stars: tuple[Import, ...]
    functions: Mapping[str, Function]
    opaque: bool  # names may appear that nobody can see: star imports, %run, exec


@dataclass(frozen=True)
class Edge:
    """`user` takes `name` from `definer` (indices of cells); through a function where `via` names one."""

    name: str
    definer: int
    user: int
    kind: str  # read or mutate
    via: str = ""


@dataclass(frozen=True)
class Missing:
    """A name that has no value when the cell is run from top to bottom."""

    cell: int
    use: Use
    defined_in: int | None  # the later cell that binds it, if any
    via: str = ""  # the function whose body reads it


@dataclass(frozen=True)
class Order:
    """The order of the last session by the saved execution counts; cells by index."""

    executed: tuple[int, ...]  # code cells with a count, in document order
    backwards: tuple[int, ...]  # cells run before the cell above them
    gaps: int  # counts that are missing between the lowest and the highest
    unrun: tuple[int, ...]  # code cells without a count, where others have one


@dataclass(frozen=True)
class Flow:
    """The data flow of a whole notebook, in document order."""

    cells: Mapping[int, CellFlow]
    edges: tuple[Edge, ...]
    missing: tuple[Missing, ...]
    order: Order
    definers: Mapping[str, tuple[int, ...]] = field(repr=False)
    functions: Mapping[str, Function] = field(repr=False)

    @property
    def undefined(self) -> tuple[Missing, ...]:
        """Names that no cell binds."""
        return tuple(missing_name for missing_name in self.missing if missing_name.defined_in is None)

    @property
    def early(self) -> tuple[Missing, ...]:
        """Names that only a later cell binds."""
        return tuple(missing_name for missing_name in self.missing if missing_name.defined_in is not None)

    def feeding(self, cell: int) -> frozenset[int]:
        """Return the cells that `cell` needs, directly or through others."""
        definers: set[int] = set()
        todo = [cell]
        while todo:
            now = todo.pop()
            for edge in self.edges:
                if edge.user == now and edge.definer not in definers and edge.definer != now:
                    definers.add(edge.definer)
                    todo.append(edge.definer)
        return frozenset(definers)


def trace_names(notebook: Notebook) -> Flow:
    """Trace names through a notebook as if it were run from top to bottom."""
    cells = {cell.index: _cell_flow(cell) for cell in notebook.code}
    definers: dict[str, list[int]] = {}
    for index, flow in cells.items():
        for name in dict.fromkeys(use.name for use in flow.binds):
            definers.setdefault(name, []).append(index)
        for function in flow.functions.values():
            for name in function.writes:
                definers.setdefault(name, []).append(index)
    functions = {name: function for flow in cells.values() for name, function in flow.functions.items()}
    edges, missing = _cell_edges(cells, definers, functions, _words_of_invalid_cells(notebook))
    frozen = {name: tuple(dict.fromkeys(where)) for name, where in definers.items()}
    return Flow(cells, tuple(edges), tuple(missing), execution_order(notebook), frozen, functions)


def is_kernel_name(name: str) -> bool:
    """Whether a fresh kernel knows the name: builtins, `display`, `_`, `In`, `_12`, ..."""
    return name in BUILTINS or name in KERNEL_NAMES or bool(_PROMPT_NAME.match(name))


def execution_order(notebook: Notebook) -> Order:
    """Read the saved execution counts."""
    counted = [(cell.index, cell.execution_count) for cell in notebook.code if cell.execution_count is not None]
    backwards = tuple(later[0] for earlier, later in pairwise(counted) if later[1] <= earlier[1])
    counts = {count for _, count in counted}
    gaps = max(counts) - min(counts) + 1 - len(counts) if counts else 0
    empty = [cell.index for cell in notebook.code if cell.execution_count is None and cell.source.strip() and counts]
    return Order(tuple(index for index, _ in counted), backwards, gaps, tuple(empty))


def _cell_flow(cell: Cell) -> CellFlow:
    names = names_in(cell.tree.body) if cell.tree is not None else Names()
    opaque = bool(names.stars) or any(
        magic.name.lstrip("%") in _OPAQUE_MAGICS and not _is_plain_load(magic.name) for magic in cell.magics
    )
    opaque = opaque or any(name in names.loads for name in _OPAQUE_CALLS)
    return CellFlow(
        cell.index,
        names.defines,
        names.reads,
        names.mutates,
        names.deletes,
        tuple(names.binds),
        {name: tuple(uses) for name, uses in names.loads.items()},
        tuple(names.imports),
        tuple(names.stars),
        names.functions,
        opaque,
    )


def _is_plain_load(name: str) -> bool:
    return name in ("reload_ext", "R")


def _words_of_invalid_cells(notebook: Notebook) -> frozenset[str]:
    """Words of cells that cannot be parsed: any of them may be a name that they bind."""
    broken = [cell.source for cell in notebook.code if cell.problem is not None]
    broken += [magic.argument for cell in notebook.code for magic in cell.magics if magic.kind != "help"]
    return frozenset(word for text in broken for word in _IDENTIFIER.findall(text))


def _cell_edges(
    cells: Mapping[int, CellFlow],
    definers: Mapping[str, list[int]],
    functions: Mapping[str, Function],
    unseen: frozenset[str],
) -> tuple[list[Edge], list[Missing]]:
    edges: list[Edge] = []
    missing: list[Missing] = []
    live: dict[str, int] = {}
    opaque = False
    for index, flow in cells.items():
        opaque = opaque or flow.opaque
        defined_names = set(functions) & set(live) | set(flow.functions)
        for name, use, via in _needed_names(flow, functions, defined_names):
            if name in live:
                changed = name in flow.mutates and not via
                edges.append(Edge(name, live[name], index, "mutate" if changed else "read", via))
            elif not (is_kernel_name(name) or opaque or name in unseen or (via and name in flow.defines)):
                later = [cell for cell in definers.get(name, ()) if cell > index]
                same = name in flow.defines and not via
                if name in flow.deletes and (same or later):
                    continue
                missing.append(Missing(index, use, index if same else later[0] if later else None, via))
        _update_bindings(live, flow)
    return edges, _without_repeats(missing)


def _needed_names(
    flow: CellFlow, functions: Mapping[str, Function], defined_names: set[str]
) -> list[tuple[str, Use, str]]:
    """Names that a cell needs from before: its own reads, and those of the functions that it mentions."""
    reads_by_name = {name: (name, use, "") for name, use in flow.reads.items()}
    todo = [(name, uses[0]) for name, uses in flow.loads.items() if name in defined_names]
    visited: set[str] = set()
    while todo:
        name, at = todo.pop(0)
        function = flow.functions.get(name) or functions.get(name)
        if name in visited or function is None:
            continue
        visited.add(name)
        for read in function.reads:
            if read.name in defined_names:
                todo.append((read.name, at))
            if read.name not in flow.defines:
                reads_by_name.setdefault(read.name, (read.name, Use(read.name, at.line, at.column), name))
    return list(reads_by_name.values())


def _update_bindings(live: dict[str, int], flow: CellFlow) -> None:
    for name in flow.deletes:
        live.pop(name, None)
    for name in flow.defines:
        live[name] = flow.cell
    for name in flow.mutates:
        if name in live:
            live[name] = flow.cell
    for function in flow.functions.values():
        for name in function.writes:
            live.setdefault(name, flow.cell)


def _without_repeats(missing: list[Missing]) -> list[Missing]:
    first_missing: dict[tuple[str, int | None], Missing] = {}
    for unbound in missing:
        first_missing.setdefault((unbound.use.name, unbound.defined_in), unbound)
    return list(first_missing.values())
