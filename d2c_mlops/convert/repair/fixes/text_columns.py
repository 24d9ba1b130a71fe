"""Fixes of text columns, which have their own dtype since pandas 3."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from d2c_mlops.convert.meaning.roles import keyword_value
from d2c_mlops.convert.repair.fix_registry import (
    CellFailure,
    Proposal,
    RepairContext,
    fix_after_failure,
    fix_before_run,
    insert_line_edit,
    insert_text_edit,
    last_name,
    replace_node_edit,
    source_text,
)
from d2c_mlops.convert.repair.fixes.frames import inplace_on_part
from d2c_mlops.convert.source.notebook import Cell

_OBJECT = ("object", "O", "object_")


@fix_before_run("text-is-str", "pandas", "3.0", "text columns have the dtype `str`, no longer `object`", order=20)
def object_means_text(context: RepairContext) -> Iterator[Proposal]:
    """`df[c].dtype == object` as `(df[c].dtype == object or ...)`, so that it is true for text columns again."""
    for cell, node in context.nodes(ast.Compare):
        if len(node.ops) != 1:
            continue
        left_side, right, op = node.left, node.comparators[0], node.ops[0]
        typed = left_side if _is_dtype(left_side) else right if _is_dtype(right) else None
        operand = right if typed is left_side else left_side
        if typed is None:
            continue
        text = source_text(cell, typed)
        if f"({text} == 'str')" in cell.source or f"({text} != 'str')" in cell.source:
            continue
        if isinstance(op, ast.Eq | ast.NotEq | ast.Is | ast.IsNot) and _is_object(operand):
            same = isinstance(op, ast.Eq | ast.Is)
            sign, joint = ("==", "|") if same else ("!=", "&")
            plain = f"({text} {sign} {source_text(cell, operand)}) {joint} ({text} {sign} 'str')"
            yield Proposal((replace_node_edit(cell, node, f"({plain})"),))
        elif isinstance(op, ast.In | ast.NotIn) and isinstance(right, ast.List | ast.Tuple | ast.Set):
            if any(_is_object(element) for element in right.elts) and not _mentions_str(right.elts):
                last = right.elts[-1]
                yield Proposal((insert_text_edit(cell, last.end_lineno or 0, last.end_col_offset or 0, ", 'str'"),))


def _is_dtype(node: ast.expr) -> bool:
    """`x.dtype`, `df.dtypes`, `df.dtypes[c]`, `df[c].dtype.name`, `str(df[c].dtype)`."""
    if isinstance(node, ast.Subscript) or (isinstance(node, ast.Attribute) and node.attr == "name"):
        return _is_dtype(node.value)
    if isinstance(node, ast.Call) and last_name(node.func) in ("str", "get_dtype") and node.args:
        return _is_dtype(node.args[0])
    return isinstance(node, ast.Attribute) and node.attr in ("dtype", "dtypes")


def _is_object(node: ast.expr) -> bool:
    if isinstance(node, ast.Call) and last_name(node.func) == "dtype" and node.args:
        return _is_object(node.args[0])
    if isinstance(node, ast.Constant):
        return node.value in _OBJECT
    return last_name(node) in _OBJECT


def _mentions_str(nodes: list[ast.expr]) -> bool:
    return any(
        (isinstance(node, ast.Constant) and node.value in ("str", "string")) or last_name(node) == "str"
        for node in nodes
    )


@fix_before_run("select-texts", "pandas", "3.0", "text columns have the dtype `str`, no longer `object`", order=20)
def select_texts(context: RepairContext) -> Iterator[Proposal]:
    """`select_dtypes(include='object')` selects text columns too, with a warning that will become an error."""
    for cell, call in context.nodes(ast.Call):
        if last_name(call.func) != "select_dtypes":
            continue
        arguments = [*call.args, *(word.value for word in call.keywords)]
        for argument in arguments:
            parts = argument.elts if isinstance(argument, ast.List | ast.Tuple | ast.Set) else [argument]
            if _mentions_str(parts) or not any(_is_object(part) for part in parts):
                continue
            if isinstance(argument, ast.List | ast.Tuple | ast.Set):
                last = parts[-1]
                yield Proposal((insert_text_edit(cell, last.end_lineno or 0, last.end_col_offset or 0, ", 'str'"),))
            else:
                yield Proposal((replace_node_edit(cell, argument, f"[{source_text(cell, argument)}, 'str']"),))


@fix_after_failure(
    "texts-take-no-numbers", "pandas", "3.0", "a column no longer accepts values of another dtype", order=40
)
def other_values(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """Values of another dtype set into a column: the column is first cast to `object`, as pandas did before."""
    if not failure.says("Invalid value", "Cannot set non-string value") or not failure.through("pandas/"):
        return None
    for frame in reversed(failure.frames):
        cell = context.cell(frame["cell"])
        for node in ast.walk(cell.tree) if cell.tree else ():
            if not isinstance(node, ast.Assign | ast.Expr) or not node.lineno <= frame["line"] <= (
                node.end_lineno or 0
            ):
                continue
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                if edits := inplace_on_part(cell, node, node.value):
                    return Proposal(edits, failure.message[:120])
            column = _assigned_column(cell, node.targets[0] if isinstance(node, ast.Assign) else node.value)
            if column:
                text = _object_cast_text(
                    column, context.kinds([column]).get(column, "") if failure.says("'str'") else ""
                )
                if text not in cell.source:
                    return Proposal((insert_line_edit(cell, _enclosing_loop(cell, node), text),), failure.message[:120])
    return None


def _object_cast_text(name: str, kind: str) -> str:
    """Return the cast of a column; of a frame only the columns of text are cast."""
    if kind != "pandas.DataFrame":
        return f"{name} = {name}.astype(object)"
    texts = f"{name}.select_dtypes(include='str')"
    return f"{name}[{texts}.columns] = {texts}.astype(object)"


def _enclosing_loop(cell: Cell, node: ast.stmt) -> ast.stmt:
    """Return the loop around a statement, or the statement: a cast inside a loop would be repeated."""
    loops = (child for child in ast.walk(cell.tree or node) if isinstance(child, ast.For | ast.While))
    return next((loop for loop in loops if any(part is node for part in ast.walk(loop))), node)


def _assigned_column(cell: Cell, target: ast.expr) -> str:
    """Return the assigned column if it can be inferred, else the name that is changed in place."""
    if isinstance(target, ast.Call) and isinstance(target.func, ast.Attribute):
        changes = keyword_value(target, "inplace") is not None or target.func.attr == "update"
        return target.func.value.id if changes and isinstance(target.func.value, ast.Name) else ""
    if not isinstance(target, ast.Subscript):
        return ""
    holder = target.value
    if isinstance(holder, ast.Attribute) and holder.attr in ("loc", "at"):
        if (
            isinstance(target.slice, ast.Tuple)
            and len(target.slice.elts) == 2
            and isinstance(target.slice.elts[1], ast.Constant)
        ):
            return f"{source_text(cell, holder.value)}[{source_text(cell, target.slice.elts[1])}]"
        return source_text(cell, holder.value) if not isinstance(target.slice, ast.Tuple) else ""
    if isinstance(holder, ast.Attribute) and holder.attr in ("iloc", "iat"):
        return source_text(cell, holder.value)
    return source_text(cell, holder) if isinstance(holder, ast.Subscript | ast.Name | ast.Attribute) else ""


@fix_after_failure("array-methods", "pandas", "3.0", "text columns have their own array type", order=40)
def array_methods(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`.unique().sort()` and similar methods on arrays of text: converted to a NumPy array first."""
    if failure.kind != "AttributeError" or (
        "StringArray" not in failure.message and "ArrowStringArray" not in failure.message
    ):
        return None
    for cell, node in context.failing(failure, ast.Attribute):
        if node.attr == failure.name:
            end = (node.value.end_lineno or 0, node.value.end_col_offset or 0)
            return Proposal(
                (insert_text_edit(cell, *end, ".to_numpy(dtype=object)"),), "text is stored in its own array type"
            )
    return None
