"""Comment out a failing statement that no result depends on: it failed before, or only draws."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass

from d2c_mlops.convert.plan.plan import PLOT_METHODS, PLOTS
from d2c_mlops.convert.repair.fix_registry import CellFailure, Proposal, RepairContext, comment_out_edit
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


RESORTS: tuple[Resort, ...] = (leave_out_failed_before, leave_out_plot)
