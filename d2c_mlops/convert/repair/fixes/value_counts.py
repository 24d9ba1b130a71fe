"""Fixes of code that uses the former column name of value_counts()."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from d2c_mlops.convert.api_changes.library_versions import before_version
from d2c_mlops.convert.repair.fix_registry import (
    Proposal,
    RepairContext,
    enclosing_statement,
    fix_before_run,
    insert_text_edit,
    last_name,
    parent_node,
    replace_node_edit,
    source_text,
)
from d2c_mlops.convert.source.notebook import Cell


@fix_before_run(
    "counted-columns", "pandas", "2.0", "the result of value_counts() is named `count`, not after its column", order=20
)
def counted_columns(context: RepairContext) -> Iterator[Proposal]:
    """Rename the columns of counts to their former names: `index` and the name of the data."""
    if _uses_new_count_name(context):
        return
    yield from _counts_in_frames(context)
    for cell, call in context.nodes(ast.Call):
        if last_name(call.func) != "reset_index" or call.args or call.keywords:
            continue
        counts = call.func.value if isinstance(call.func, ast.Attribute) else None
        if not (isinstance(counts, ast.Call) and last_name(counts.func) == "value_counts"):
            continue
        column = counts.func.value if isinstance(counts.func, ast.Attribute) else None
        name = _column_name(cell, column)
        if (
            not name
            or _is_renamed(context, cell, call)
            or context.subject.inference.kind(column or call) == "pandas.DataFrame"
        ):
            continue
        new = f"{source_text(cell, counts)}.rename_axis('index').reset_index(name={name})"
        yield Proposal((replace_node_edit(cell, call, new),))


def _uses_new_count_name(context: RepairContext) -> bool:
    """Whether the author had the new names already: `counts['count']`, and nowhere 'index'."""
    if before_version(context.notebook.metadata, "pandas", "2.0"):
        return False
    labels = {
        part.value
        for _, node in context.nodes(ast.AST)
        for part in _column_labels(node)
        if isinstance(part, ast.Constant) and part.value in ("count", "index")
    }
    return labels == {"count"}


_COLUMN_WORDS = frozenset(
    ("x", "y", "hue", "by", "on", "left_on", "right_on", "columns", "values", "names", "color", "subset")
)
_COLUMN_CALLS = frozenset(("sort_values", "groupby", "set_index", "drop", "nlargest", "nsmallest", "rename"))


def _column_labels(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the constants of a node that stand for columns: a title or the label of an axis is none."""
    if isinstance(node, ast.Subscript):
        yield from ast.walk(node.slice)
    elif isinstance(node, ast.keyword) and node.arg in _COLUMN_WORDS:
        yield from ast.walk(node.value)
    elif isinstance(node, ast.Call) and last_name(node.func) in _COLUMN_CALLS:
        for argument in node.args:
            yield from ast.walk(argument)


def _counts_in_frames(context: RepairContext) -> Iterator[Proposal]:
    """Counts that become a frame by to_frame(), by DataFrame(), or later under their own name."""
    for cell, counts in context.nodes(ast.Call):
        column = counts.func.value if isinstance(counts.func, ast.Attribute) else None
        name = _column_name(cell, column) if last_name(counts.func) == "value_counts" else ""
        if not name or context.subject.inference.kind(column or counts) == "pandas.DataFrame" or _is_grouped(column):
            continue
        above = parent_node(cell, counts)
        further = parent_node(cell, above) if isinstance(above, ast.Attribute) else None
        framed = isinstance(above, ast.Attribute) and above.attr == "to_frame" and not getattr(further, "args", True)
        framed = framed or (
            isinstance(above, ast.Call) and last_name(above.func) == "DataFrame" and above.args[:1] == [counts]
        )
        if isinstance(above, ast.Assign) and isinstance(above.targets[0], ast.Name):
            framed = _becomes_frame_later(context, above.targets[0].id)
        if framed:
            end = (counts.end_lineno or 0, counts.end_col_offset or 0)
            yield Proposal((insert_text_edit(cell, *end, f".rename_axis(None).rename({name})"),))


def _is_grouped(column: ast.expr | None) -> bool:
    """Whether a column is one of groups, whose counts have two index levels: `frame.groupby("store")["promo"]`."""
    node: ast.expr | None = column
    while node is not None:
        if isinstance(node, ast.Call):
            if last_name(node.func) == "groupby":
                return True
            node = node.func
        elif isinstance(node, ast.Attribute | ast.Subscript):
            node = node.value
        else:
            return False
    return False


def _becomes_frame_later(context: RepairContext, name: str) -> bool:
    """Whether a name is converted to a frame anywhere: `counts.reset_index()`, `counts.to_frame()`, `pd.DataFrame(counts)`."""
    for _, call in context.nodes(ast.Call):
        owner = call.func.value if isinstance(call.func, ast.Attribute) else None
        plain = not call.args and not call.keywords
        if (
            last_name(call.func) in ("reset_index", "to_frame")
            and plain
            and isinstance(owner, ast.Name)
            and owner.id == name
        ):
            return True
        if last_name(call.func) == "DataFrame" and len(call.args) == 1 and isinstance(call.args[0], ast.Name):
            if call.args[0].id == name and not call.keywords:
                return True
    return False


def _column_name(cell: Cell, column: ast.expr | None) -> str:
    if isinstance(column, ast.Subscript) and isinstance(column.slice, ast.Constant | ast.Name):
        return (
            source_text(cell, column.slice)
            if not isinstance(column.slice, ast.Constant) or isinstance(column.slice.value, str)
            else ""
        )
    return repr(column.attr) if isinstance(column, ast.Attribute) else ""


def _is_renamed(context: RepairContext, cell: Cell, call: ast.Call) -> bool:
    """Whether all columns get new names right away, so that the old ones do not matter."""
    statement = enclosing_statement(cell, call)
    if not isinstance(statement, ast.Assign) or not isinstance(statement.targets[0], ast.Name):
        return False
    name = statement.targets[0].id
    return any(
        isinstance(target, ast.Attribute) and target.attr == "columns" and last_name(target.value) == name
        for _, assign in context.nodes(ast.Assign)
        for target in assign.targets
    )
