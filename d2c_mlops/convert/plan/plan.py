"""Plan a conversion: which code becomes functions, which stays in cells, and their inputs and outputs."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from d2c_mlops.convert.meaning.api_signatures import is_model
from d2c_mlops.convert.meaning.inference import Inference, infer_types
from d2c_mlops.convert.meaning.roles import Fit, Structure, infer_structure
from d2c_mlops.convert.plan.author_functions import AuthorFunction, Definition, author_functions_in
from d2c_mlops.convert.source.comments import move_import_comments, remove_section_titles
from d2c_mlops.convert.source.dataflow import BUILTINS
from d2c_mlops.convert.source.imports import Imports, collect_imports, is_import
from d2c_mlops.convert.source.notebook import KERNEL_NAMES, Notebook
from d2c_mlops.convert.source.sections import split_section_titles
from d2c_mlops.convert.source.statements import Facts, Statement, cell_statements, normalise_notebook, statement_names
from d2c_mlops.errors import DataRefused, Failure

KERNEL_ONLY = KERNEL_NAMES - {"display", "__name__", "__doc__", "__builtins__", "open", "quit", "exit"}
PLOTS = ("matplotlib.", "seaborn.", "plotly.", "missingno.", "bokeh.", "altair.", "wordcloud.", "pylab.", "folium.")
PLOT_METHODS = frozenset({"plot", "hist", "boxplot", "show", "savefig", "scatter"})
_SETTINGS = ("warnings.", "pandas.set_option", "pandas.options", "numpy.set_printoptions", "matplotlib.", "seaborn.")
_SEEDS = (
    "numpy.random.seed",
    "random.seed",
    "tensorflow.random.set_seed",
    "tensorflow.set_random_seed",
    "torch.manual_seed",
)


@dataclass(eq=False)
class PlanLine:
    """A statement with its kind, its role and the names that later code uses."""

    statement: Statement
    kind: str  # import, definition, work, show or plain
    role: str
    live: frozenset[str] = frozenset()  # names read after it
    before: frozenset[str] = frozenset()  # names that have a value before it
    imports: tuple[str, ...] = ()  # import lines that hold only here
    reason: str = ""  # why it stays a plain cell
    titles: tuple[str, ...] = ()  # of the sections that begin here, where the author marked them by comments

    @property
    def facts(self) -> Facts:
        """The names that the statement reads, binds and changes."""
        return self.statement.facts


@dataclass
class Plan:
    """The plan of a notebook from its source alone; no code was run."""

    notebook: Notebook
    inference: Inference
    structure: Structure
    lines: list[PlanLine]
    imports: Imports
    functions: dict[str, AuthorFunction]
    dropped: list[str] = field(default_factory=list)  # magics that were left out

    @property
    def fits(self) -> tuple[Fit, ...]:
        """Every fit, in document order."""
        return self.structure.fits

    def of_cell(self, cell: int) -> list[PlanLine]:
        """Return the lines of a cell."""
        return [line for line in self.lines if line.statement.cell == cell]

    @property
    def names(self) -> set[str]:
        """Every name that the notebook binds or reads."""
        line_names = {name for line in self.lines for name in (*line.facts.binds, *line.facts.loads)}
        return line_names | set(self.imports.paths) | set(self.functions)


def plan_notebook(notebook: Notebook) -> Plan:
    """Plan a notebook. Raises DataRefused if a cell is not valid Python."""
    if not notebook.is_python:
        raise DataRefused(
            f"the kernel language is {notebook.language}, not Python",
            where=str(notebook.path),
            next="convert it by hand",
        )
    broken = [cell for cell in notebook.code if cell.problem is not None]
    if broken:
        raise DataRefused(
            "cells cannot be read as Python",
            where=str(notebook.path),
            failures=[
                Failure(c.problem.message, f"cell {c.number}, line {c.problem.line}") for c in broken if c.problem
            ],
            next=f"d2c check {notebook.path}",
            cell=broken[0].number,
        )
    notebook = normalise_notebook(notebook)
    inference = infer_types(notebook)
    every = [statement for cell in notebook.code for statement in cell_statements(cell)]
    imports = collect_imports(every)
    every = [_resolve_star_import(statement, imports) for statement in every]
    code_statements = move_import_comments(
        [statement for statement in every if not (is_import(statement.node) and statement.place in imports.hoisted)],
        every,
    )
    titles = {node.place: split_section_titles(node.source)[0] for node in code_statements}
    code_statements = [
        remove_section_titles(statement) if titles[statement.place] else statement for statement in code_statements
    ]
    before = _bound_before(code_statements, every)
    free = frozenset(imports.paths) - imports.contested
    functions = author_functions_in(code_statements, free, before)
    extras = {name: frozenset(f.extras) for name, f in functions.items() if not f.reason and f.extras}
    code_statements = [
        _resolve_star_import(replace(statement, facts=statement_names(statement.node, extras)), imports)
        for statement in code_statements
    ]
    roles = _statement_roles(notebook, every, inference)
    lines = [
        PlanLine(
            statement,
            "",
            roles.get(statement.place, "prepare"),
            before=before[statement.place],
            titles=titles[statement.place],
        )
        for statement in code_statements
    ]
    plan = Plan(notebook, inference, infer_structure(notebook, inference), lines, imports, functions)
    _set_live_names(lines, _names_read_later(lines, functions, free))
    _mark_line_kinds(plan)
    plan.dropped = [
        f"cell {cell.number}: {magic.command}"
        for cell in notebook.code
        for magic in cell.magics
        if magic.kind != "help"
    ]
    return plan


def _resolve_star_import(statement: Statement, imports: Imports) -> Statement:
    """The statement with the names of a star import that stays in its cell."""
    names = imports.staying.get(statement.place)
    if names is None:
        return statement
    star_facts = replace(statement.facts, binds=names, definite=frozenset(names), opaque=False)
    return replace(statement, facts=star_facts)


def exported_names(plan: Plan) -> frozenset[str]:
    """Names that exported code can use: builtins, imports, exported functions."""
    exported = {name for name, function in plan.functions.items() if not function.reason}
    bound = {name for line in plan.lines for name in line.facts.binds} - exported
    return frozenset(((BUILTINS | {"display"}) - bound) | (set(plan.imports.paths) - plan.imports.contested) | exported)


def _bound_before(
    code_statements: Sequence[Statement], every: Sequence[Statement]
) -> dict[tuple[int, int], frozenset[str]]:
    bound_names: dict[tuple[int, int], frozenset[str]] = {}
    bound: frozenset[str] = frozenset()
    for statement in code_statements:
        bound_names[statement.place] = bound
        bound = (bound | frozenset(statement.facts.binds)) - (statement.facts.deletes - set(statement.facts.binds))
    return bound_names


def _statement_roles(
    notebook: Notebook, every: Sequence[Statement], inference: Inference
) -> dict[tuple[int, int], str]:
    """The role of each statement, read as if it had a cell of its own."""
    cells = {cell.index: cell for cell in notebook.code}
    alone = tuple(
        replace(cells[statement.cell], index=number, tree=ast.Module([statement.node], []), outputs=())
        for number, statement in enumerate(every)
    )
    sections = infer_structure(replace(notebook, cells=alone), inference)
    kinds: dict[int, set[str]] = {}
    for fit in sections.fits:
        kinds.setdefault(fit.cell, set()).add(fit.kind)
    roles = {}
    for number, node in enumerate(every):
        role = sections.roles[number].role if number in sections.roles else "prepare"
        if role == "fit" and kinds.get(number, {"model"}) <= {"transformer", "sampler"}:
            role = "prepare"
        if role == "prepare" and _builds_model(node, inference):
            role = "fit"
        roles[node.place] = role if role not in ("explore", "import") else "prepare"
    return roles


def _builds_model(statement: Statement, inference: Inference) -> bool:
    value = getattr(statement.node, "value", None)
    return isinstance(value, ast.Call) and is_model(inference.path(value.func))


def _names_read_later(
    lines: Sequence[PlanLine], functions: dict[str, AuthorFunction], free_names: frozenset[str]
) -> frozenset[str]:
    """Names that functions which stay in the notebook read when they are called."""
    watched: set[str] = set()
    names = {name for line in lines for name in line.facts.binds}
    bound_after: set[str] = set()
    for plan_line in reversed(lines):
        node = plan_line.statement.node
        if isinstance(node, Definition):
            if functions[node.name].reason:
                watched |= set(statement_names(node).loads) & names
        elif plan_line.facts.captured & bound_after:
            plan_line.reason = "it stores a function that reads names which change later"
            watched |= plan_line.facts.captured & names
        bound_after |= set(plan_line.facts.binds)
    return frozenset(watched - free_names)


def _set_live_names(lines: Sequence[PlanLine], watched: frozenset[str]) -> None:
    live: frozenset[str] = watched
    for line in reversed(lines):
        line.live = live
        live = (live - line.facts.definite) | line.facts.reads | watched
    for line in lines:
        if watched & set(line.facts.binds) and not isinstance(line.statement.node, Definition):
            line.reason = line.reason or "a function that stays in the notebook reads a name that it assigns"


def _mark_line_kinds(plan: Plan) -> None:
    """Distinguish computation from lines that only show results; lines that cannot move safely are kept as plain code."""
    drawn: set[str] = set()  # names of figures, axes and the like
    visible_names = exported_names(plan)
    for line in plan.lines:
        node = line.statement.node
        if isinstance(node, Definition):
            line.kind = "plain" if plan.functions[node.name].reason else "definition"
            line.reason = plan.functions[node.name].reason
        elif reason := _reason_to_stay(line, visible_names):
            line.kind, line.reason = "plain", reason
        elif is_import(node):
            line.kind = "show"
        elif _only_displays(line, plan, drawn):
            line.kind = "show"
            if draws_plot(line.statement, plan.inference):
                drawn |= set(line.facts.binds)
        else:
            line.kind = "work"
    for place, line in enumerate(plan.lines):
        if line.kind == "work" and line.role == "constant" and _is_used_only_for_display(line, plan.lines[place + 1 :]):
            line.kind = "show"


def _is_used_only_for_display(line: PlanLine, later: Sequence[PlanLine]) -> bool:
    """Whether only figures and prints read the names that a line sets."""
    readers = []
    for name in line.facts.binds:
        for plan_line in later:
            if name in plan_line.facts.loads or name in plan_line.facts.mutates:
                readers.append(plan_line)
            if name in plan_line.facts.definite:
                break
    return bool(readers) and all(reader.kind == "show" for reader in readers)


def _reason_to_stay(line: PlanLine, visible_names: frozenset[str]) -> str:
    if line.reason:
        return line.reason
    line_facts = line.facts
    if line_facts.opaque:
        return "it evaluates code, awaits, or assigns names inside an expression"
    if line_facts.deletes:
        return f"it deletes {', '.join(sorted(line_facts.deletes))}"
    if odd := (line_facts.loads & KERNEL_ONLY) - line.before:
        return f"it reads {', '.join(sorted(odd))}, which exists only in a notebook"
    if lost := line_facts.reads - visible_names - line.before:
        return f"it reads {', '.join(sorted(lost))}, which has no value before it"
    return ""


def _only_displays(line: PlanLine, plan: Plan, drawn_names: set[str]) -> bool:
    node, line_facts = line.statement.node, line.facts
    changes = {name for name in line_facts.mutates if name in line.before} - drawn_names
    if isinstance(node, ast.Expr):
        if not isinstance(node.value, ast.Call):
            return True
        path = plan.inference.path(node.value.func)
        if path in _SEEDS:
            return False
        return not changes or path.startswith(_SETTINGS)
    if isinstance(node, ast.Assert | ast.Pass):
        return True
    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
        value = node.value
        if value is not None and draws_plot(line.statement, plan.inference) and not changes:
            return True
        return bool(line_facts.reads & drawn_names) and not changes
    used = {name for name in line_facts.binds if name in line.live} | changes
    if draws_plot(line.statement, plan.inference) or _prints_text(node):
        return not (used - drawn_names)
    return False


def draws_plot(statement: Statement, inference: Inference) -> bool:
    """Whether a statement draws."""
    for node in ast.walk(statement.node):
        if isinstance(node, ast.Call):
            path = inference.path(node.func)
            if path.startswith(PLOTS) and not path.endswith((".linspace", ".color_palette")):
                return True
            if isinstance(node.func, ast.Attribute) and node.func.attr in PLOT_METHODS:
                return True
        elif isinstance(node, ast.Attribute) and node.attr == "plot":
            return True
    return False


def _prints_text(node: ast.AST) -> bool:
    return any(
        isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id in ("print", "display")
        for part in ast.walk(node)
    )
