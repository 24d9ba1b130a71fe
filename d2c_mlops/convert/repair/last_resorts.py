"""Comment out a failing statement that no result depends on: it failed before, or only draws."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass

from d2c_mlops.convert.plan.plan import PLOT_METHODS, PLOTS
from d2c_mlops.convert.repair.fix_registry import CellFailure, Proposal, RepairContext, comment_out_edit
from d2c_mlops.convert.repair.fixes.modules import missing_module
from d2c_mlops.convert.source.finding import Edit
from d2c_mlops.convert.source.notebook import Cell

_DRAWERS = ("matplotlib/", "seaborn/", "plotly/", "pandas/plotting", "wordcloud/", "missingno/")


@dataclass(frozen=True)
class Omission:
    """Code to remove from a cell, and the id under which the removal is listed."""

    id: str
    proposal: Proposal
    whole: bool = False  # whether the edit is of the source as it was written, magics included


Resort = Callable[[RepairContext, CellFailure], Omission | None]


def leave_out_failed_before(context: RepairContext, failure: CellFailure) -> Omission | None:
    """A statement that failed in the same way when the notebook was saved never had an effect: it is commented out."""
    cell = context.cell(failure.cell)
    saved = [output for output in cell.outputs if output.kind == "error"]
    failed = _failed_statement(cell, failure) if any(failure.kind in output.text for output in saved) else None
    if failed is None:
        return None
    source = cell.source.split("\n")
    source_before = "\n".join(line if number < failed.lineno else f"# {line}" for number, line in enumerate(source, 1))
    edit = Edit(cell.index, 1, 0, len(source), len(source[-1].encode()), source_before)
    reason = f"it also failed with {failure.kind} when the notebook was saved"
    return Omission("failed-before", Proposal((edit,), reason), whole=True)


def leave_out_invalid_cell(cell: Cell) -> Omission | None:
    """Comment out a cell that is not valid Python and was saved with an error: it never had an effect. None for other cells."""
    if cell.problem is None or cell.problem.kind != "invalid":
        return None
    if not any(output.kind == "error" and "Error" in output.text for output in cell.outputs):
        return None
    source = cell.source.split("\n")
    edit = Edit(cell.index, 1, 0, len(source), len(source[-1].encode()), "\n".join(f"# {line}" for line in source))
    reason = f"it is not valid Python and was saved with its error ({cell.problem.message})"
    return Omission("invalid-before", Proposal((edit,), reason), whole=True)


# Packages whose results are only looked at: reports, diagrams, and plots of their own kind.
VIEWING = frozenset(("yellowbrick", "pandas_profiling", "ydata_profiling", "sweetviz", "missingno", "pydotplus", "pydot", "graphviz", "dtreeviz", "autoviz", "klib",
                     "pandasgui", "ptitprince", "joypy", "scikitplot", "cufflinks", "chart_studio", "folium", "wordcloud", "squarify", "pywaffle", "venn", "matplotlib_venn",
                     "upsetplot", "qgrid", "itables", "ipywidgets", "dataprep", "lux", "dython"))  # fmt: skip
_CHANGING = frozenset(
    (
        "append",
        "extend",
        "insert",
        "update",
        "add",
        "fit",
        "partial_fit",
        "fit_transform",
        "fit_predict",
        "setdefault",
        "to_csv",
        "to_excel",
        "to_sql",
    )
)


def leave_out_viewing(context: RepairContext, failure: CellFailure) -> Omission | None:
    """Comment out the statements of a package for viewing (VIEWING) that cannot be installed or fails, and all statements that only show their results.

    None where such a result is written into data, deleted, or given to a method that changes its object.
    """
    missing = missing_module(failure).partition(".")[0]
    package = (
        missing if missing in VIEWING else next((name for name in sorted(VIEWING) if failure.through(f"{name}/")), "")
    )
    if missing and not context.install:
        return None  # with --install its pictures may be kept
    if not package or any(cell.tree is None for cell in context.notebook.code):
        return None
    shown: set[str] = set()  # names that only the package's results have
    edits: list[Edit] = []
    for cell in context.notebook.code:
        for statement in cell.tree.body if cell.tree is not None else ():
            imported = _imported_names(statement, package)
            uses = {
                node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
            }
            stored = _stored_names(statement)
            if imported:
                if isinstance(statement, ast.Import) and len(statement.names) > 1:
                    return None
                shown |= imported
            elif not uses & shown:
                shown -= stored
                continue
            elif not _only_shows(statement, shown):
                return None
            else:
                shown |= stored
            edits.append(comment_out_edit(cell, statement, ""))
    reason = (
        f"`{package}` {'is not installed' if missing else f'fails ({failure.kind})'}; its results were only looked at"
    )
    return Omission("only-looked-at", Proposal(tuple(edits), reason)) if edits else None


def _imported_names(statement: ast.stmt, package: str) -> set[str]:
    """Return the names that a statement imports from a package."""
    if isinstance(statement, ast.ImportFrom):
        is_imported = (statement.module or "").partition(".")[0] == package
        return {alias.asname or alias.name for alias in statement.names} if is_imported else set()
    if isinstance(statement, ast.Import):
        return {
            alias.asname or alias.name.partition(".")[0]
            for alias in statement.names
            if alias.name.partition(".")[0] == package
        }
    return set()


def _stored_names(statement: ast.stmt) -> set[str]:
    names = {node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    return names | {node.name for node in ast.walk(statement) if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def _only_shows(statement: ast.stmt, shown: set[str]) -> bool:
    """Whether a statement with results of a package changes nothing but names of its own."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute | ast.Subscript) and isinstance(node.ctx, ast.Store | ast.Del):
            return False
        if isinstance(node, ast.Delete | ast.Global | ast.Nonlocal):
            return False
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGING:
            root: ast.expr = node.func.value
            while isinstance(root, ast.Attribute | ast.Subscript | ast.Call):
                root = root.func if isinstance(root, ast.Call) else root.value
            if not (isinstance(root, ast.Name) and root.id in shown):
                return False
    return True


def leave_out_plot(context: RepairContext, failure: CellFailure) -> Omission | None:
    """A statement that only draws and cannot be drawn any more changes no result: it is commented out."""
    cell = context.cell(failure.cell)
    failed = _failed_statement(cell, failure)
    if not isinstance(failed, ast.Expr) or failure.kind in ("NameError", "KeyboardInterrupt", "MemoryError"):
        return None
    inference = context.subject.inference
    calls = [node for node in ast.walk(failed) if isinstance(node, ast.Call)]
    drawn = any(inference.path(call.func).startswith(PLOTS) or _is_pandas_plot(call) for call in calls)
    if not drawn or not failure.through(*_DRAWERS):
        return None
    first = failure.message.splitlines()[0][:120] if failure.message else ""
    reason = f"the plot cannot be drawn ({failure.kind}: {first}); no result depends on it"
    return Omission("undrawn", Proposal((comment_out_edit(cell, failed, ""),), reason))


def _failed_statement(cell: Cell, failure: CellFailure) -> ast.stmt | None:
    """Return the statement of a cell that failed."""
    lines = [frame["line"] for frame in failure.frames if frame["cell"] == failure.cell]
    body = cell.tree.body if cell.tree is not None and lines else []
    return next((statement for statement in body if statement.lineno <= lines[0] <= (statement.end_lineno or 0)), None)


def _is_pandas_plot(call: ast.Call) -> bool:
    """Whether a call is a plot method of pandas: `frame.plot(...)`, `frame.plot.bar()`, `frame.hist()`."""
    function = call.func
    if not isinstance(function, ast.Attribute):
        return False
    return function.attr in PLOT_METHODS or (
        isinstance(function.value, ast.Attribute) and function.value.attr == "plot"
    )


RESORTS: tuple[Resort, ...] = (leave_out_failed_before, leave_out_plot, leave_out_viewing)
