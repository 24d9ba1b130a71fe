"""Fixes of DataFrames: columns of groups, chained assignments, read-only arrays, removed options."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from d2c_mlops.convert.meaning.api_signatures import GROUPS
from d2c_mlops.convert.meaning.roles import keyword_value
from d2c_mlops.convert.repair.fix_registry import (
    CellFailure,
    Proposal,
    RepairContext,
    comment_out_edit,
    enclosing_statement,
    fix_after_failure,
    fix_before_run,
    insert_text_edit,
    last_name,
    replace_node_edit,
    source_text,
)
from d2c_mlops.convert.source.finding import Edit
from d2c_mlops.convert.source.notebook import Cell


@fix_before_run("grouped-columns", "pandas", "2.0", "several columns of a groupby need a list", order=20)
def grouped_columns(context: RepairContext) -> Iterator[Proposal]:
    for cell, node in context.nodes(ast.Subscript):
        if isinstance(node.slice, ast.Tuple) and node.slice.elts and _is_groups(context, node.value):
            first, last = node.slice.elts[0], node.slice.elts[-1]
            end = (last.end_lineno or 0, last.end_col_offset or 0)
            if (first.lineno, first.col_offset) > (node.slice.lineno, node.slice.col_offset):
                continue
            yield Proposal(
                (insert_text_edit(cell, first.lineno, first.col_offset, "["), insert_text_edit(cell, *end, "]"))
            )


def _is_groups(context: RepairContext, node: ast.expr) -> bool:
    called = isinstance(node, ast.Call) and last_name(node.func) in ("groupby", "resample", "rolling")
    return called or context.subject.inference.kind(node) == GROUPS


@fix_after_failure("grouped-columns-late", "pandas", "2.0", "several columns of a groupby need a list", order=15)
def grouped_columns_late(context: RepairContext, failure: CellFailure) -> Proposal | None:
    if not failure.says("Cannot subset columns with a tuple"):
        return None
    for cell, node in context.failing(failure, ast.Subscript):
        if isinstance(node.slice, ast.Tuple):
            return Proposal(
                (replace_node_edit(cell, node.slice, f"[{source_text(cell, node.slice)}]"),), "write a list of columns"
            )
    return None


def chained_assignment(context: RepairContext, cell: Cell, line: int, end_line: int) -> Proposal | None:
    """Fix an assignment to a copy that pandas reported: the parts of one statement in one step."""
    for node in ast.walk(cell.tree) if cell.tree else ():
        if not isinstance(node, ast.stmt) or node.lineno > line or (node.end_lineno or 0) < end_line:
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            edits = inplace_on_part(cell, node, node.value)
        elif isinstance(node, ast.Assign | ast.AugAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            edits = tuple(edit for target in targets for edit in assign_in_one_step(cell, target))
        else:
            continue
        if edits:
            return Proposal(edits, "under copy-on-write the value was written to a copy; the DataFrame did not change")
    return None


def inplace_on_part(cell: Cell, statement: ast.Expr, call: ast.Call) -> tuple[Edit, ...]:
    """`df['a'].fillna(0, inplace=True)` as `df['a'] = df['a'].fillna(0)`."""
    argument = keyword_value(call, "inplace")
    if not isinstance(call.func, ast.Attribute):
        return ()
    part = call.func.value
    if not isinstance(part, ast.Subscript | ast.Attribute):
        return ()
    target = source_text(cell, part)
    if argument is None:
        if call.func.attr != "update" or not call.args:
            return ()
        new = f"{target} = {source_text(cell, call.args[0])}.combine_first({target})"
        return (replace_node_edit(cell, statement, new),)
    word = next(word for word in call.keywords if word.arg == "inplace")
    given_all: list[ast.expr | ast.keyword] = [*call.args, *call.keywords]
    order = sorted(given_all, key=lambda node: (node.lineno, node.col_offset))
    at = order.index(word)
    ends = (word.end_lineno or 0, word.end_col_offset or 0)
    if at:
        start = (order[at - 1].end_lineno or 0, order[at - 1].end_col_offset or 0)
    else:
        start = (word.lineno, word.col_offset)
        if len(order) > 1:
            ends = (order[1].lineno, order[1].col_offset)
    if isinstance(part, ast.Attribute):
        target = f"{source_text(cell, part.value)}[{part.attr!r}]"
    head = insert_text_edit(cell, statement.lineno, statement.col_offset, f"{target} = ")
    return head, Edit(cell.index, *start, *ends, "")


def assign_in_one_step(cell: Cell, target: ast.expr) -> tuple[Edit, ...]:
    """`df['a'][mask] = v` and `df[mask]['a'] = v` as `df.loc[mask, 'a'] = v`; `.iloc` keeps positions."""
    if not isinstance(target, ast.Subscript):
        return ()
    middle, accessor = target.value, ""
    if isinstance(middle, ast.Attribute) and middle.attr in ("loc", "iloc", "at", "iat"):
        accessor, middle = middle.attr, middle.value
    key = source_text(cell, target.slice)
    if isinstance(middle, ast.Attribute) and middle.attr not in ("loc", "iloc", "values"):
        base, column = source_text(cell, middle.value), repr(middle.attr)
    elif isinstance(middle, ast.Subscript):
        base, column = source_text(cell, middle.value), source_text(cell, middle.slice)
    else:
        return ()
    if base.endswith((".loc", ".iloc")):
        base = base.rpartition(".")[0]
        if isinstance(target.slice, ast.Constant) and isinstance(target.slice.value, str):
            return (replace_node_edit(cell, target, f"{base}.loc[{column}, {key}]"),)
        return ()
    if accessor in ("iloc", "iat"):
        return (replace_node_edit(cell, target, f"{base}.loc[{base}.index[{key}], {column}]"),)
    text = isinstance(target.slice, ast.Constant) and isinstance(target.slice.value, str)
    names = isinstance(middle, ast.Subscript) and not _selects_one_column(middle.slice)
    if text and names and isinstance(middle, ast.Subscript):
        return (replace_node_edit(cell, target, f"{base}.loc[{column}, {key}]"),)
    return (replace_node_edit(cell, target, f"{base}.loc[{key}, {column}]"),)


def _selects_one_column(node: ast.expr) -> bool:
    """Whether a subscript picks a column: a text, or a plain name that is no mask."""
    return isinstance(node, ast.Constant | ast.Name | ast.List | ast.JoinedStr)


@fix_after_failure("read-only", "pandas", "3.0", "arrays taken from a DataFrame are read-only", order=40)
def read_only(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`a = df.values; a[0] = 1`: the array is copied."""
    if not failure.says("read-only", "is read only", "WRITEABLE"):
        return None
    names = {name.id for _, name in context.failing(failure, ast.Name)}
    for cell, node in reversed(list(context.nodes(ast.Assign))):
        value = node.value
        is_array = isinstance(value, ast.Attribute) and value.attr == "values"
        is_array = is_array or (isinstance(value, ast.Call) and last_name(value.func) in ("to_numpy", "asarray"))
        if is_array and {last_name(target) for target in node.targets} & names:
            end = (value.end_lineno or 0, value.end_col_offset or 0)
            return Proposal(
                (insert_text_edit(cell, *end, ".copy()"),), "arrays taken from a DataFrame are read-only", restart=True
            )
    return None


@fix_after_failure("plain-array", "pandas", "3.0", "the method was removed from Series", order=35)
def plain_array(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """Methods of arrays called on a Series: `.reshape`, `.ravel`, `.nonzero`, `.flatten`."""
    if failure.kind != "AttributeError" or failure.holder not in ("pandas.Series", "pandas.DataFrame"):
        return None
    if failure.name not in (
        "reshape",
        "ravel",
        "nonzero",
        "flatten",
        "tolist",
        "item",
        "argsort",
        "compress",
        "itemsize",
        "data",
        "strides",
    ):
        return None
    for cell, node in context.failing(failure, ast.Attribute):
        if node.attr == failure.name:
            end = (node.value.end_lineno or 0, node.value.end_col_offset or 0)
            return Proposal(
                (insert_text_edit(cell, *end, ".to_numpy()"),),
                f"Series.{failure.name} was removed: use the method of its array",
            )
    return None


@fix_after_failure("rank-two", "pandas", "1.0", "a Series does not support a second axis", order=35)
def second_axis(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`series[:, None]`: applied to the array of the Series."""
    if not failure.says("Multi-dimensional indexing", "key of type tuple not found", "tuple not found"):
        return None
    for cell, node in context.failing(failure, ast.Subscript):
        if isinstance(node.slice, ast.Tuple) and any(_is_none(element) for element in node.slice.elts):
            end = (node.value.end_lineno or 0, node.value.end_col_offset or 0)
            return Proposal(
                (insert_text_edit(cell, *end, ".to_numpy()"),), "a Series does not support a second axis: use its array"
            )
    return None


def _is_none(node: ast.expr) -> bool:
    return (isinstance(node, ast.Constant) and node.value is None) or last_name(node) == "newaxis"


@fix_after_failure(
    "positions-by-number", "pandas", "3.0", "an integer in brackets is a label, no longer a position", order=40
)
def by_position(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`series[0]` with an index without numbers: `.iloc[0]`."""
    if failure.kind != "KeyError" or not failure.arguments or not re.fullmatch(r"-?\d+", str(failure.arguments[0])):
        return None
    if not failure.through("pandas/"):
        return None
    for cell, node in context.failing(failure, ast.Subscript):
        holder = source_text(cell, node.value)
        if holder.endswith((".loc", ".iloc", ".at")) or isinstance(node.slice, ast.Slice):
            continue
        kind = context.kinds([holder, f"{holder}.index"])
        if failure.kinds.get(holder, kind.get(holder)) == "pandas.Series" and "Range" not in kind.get(
            f"{holder}.index", ""
        ):
            end = (node.value.end_lineno or 0, node.value.end_col_offset or 0)
            return Proposal(
                (insert_text_edit(cell, *end, ".iloc"),), "an integer in brackets is a label, no longer a position"
            )
    return None


@fix_after_failure("infer-objects", "pandas", "3.0", "the option was removed", order=40)
def gone_option(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`pd.set_option` and `pd.options` of removed options: pandas now always behaves so, or never."""
    if "OptionError" not in failure.bases and "No such keys" not in failure.message:
        return None
    for cell, node in [*context.failing(failure, ast.Call), *context.failing(failure, ast.Attribute)]:
        statement = enclosing_statement(cell, node)
        removed_options = {
            "'display.max_colwidth', -1": "None",
            "mode.chained_assignment": "",
        }
        if isinstance(statement, ast.Expr | ast.Assign) and removed_options:
            return Proposal((comment_out_edit(cell, statement, ""),), "pandas removed this option")
    return None


@fix_after_failure("colwidth", "pandas", "1.0", "None means no limit, no longer -1", order=40)
def column_width_limit(context: RepairContext, failure: CellFailure) -> Proposal | None:
    if not failure.says("Value must be a nonnegative integer or None"):
        return None
    for cell, node in context.failing(failure, ast.UnaryOp):
        return Proposal((replace_node_edit(cell, node, "None"),), "None means no limit, no longer -1")
    return None


@fix_after_failure("aggregate-renamed", "pandas", "1.0", "agg() expects new column names as keywords", order=40)
def nested_renamer(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`agg({'total': 'sum'})` on one column, which renamed: `agg(total='sum')`."""
    if "nested renamer is not supported" not in failure.message:
        return None
    for cell, call in context.failing(failure, ast.Call):
        argument = call.args[0] if call.args else None
        if last_name(call.func) not in ("agg", "aggregate") or not isinstance(argument, ast.Dict):
            continue
        pairs = list(zip(argument.keys, argument.values, strict=True))
        if all(
            isinstance(key, ast.Constant) and isinstance(value, ast.Constant | ast.Attribute | ast.Lambda | ast.Name)
            for key, value in pairs
        ):
            words = ", ".join(
                f"{key.value!r}: {source_text(cell, value)}" for key, value in pairs if isinstance(key, ast.Constant)
            )
            return Proposal(
                (replace_node_edit(cell, argument, f"**{{{words}}}"),), "agg() expects new column names as keywords"
            )
    return None


@fix_after_failure("dummies-are-true", "pandas", "2.0", "dummy columns are boolean, no longer 0 and 1", order=45)
def integer_dummies(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """Code that needs numbers from get_dummies: `dtype=int` is added."""
    if not failure.says(
        "numpy boolean subtract", "dtype('bool')", "dtype bool", "bool_", "dtype of object", "object to float"
    ):
        return None
    from d2c_mlops.convert.repair.fix_registry import add_argument_edit

    edits = tuple(
        add_argument_edit(cell, call, "dtype=int")
        for cell, call in context.nodes(ast.Call)
        if last_name(call.func) == "get_dummies" and keyword_value(call, "dtype") is None
    )
    return (
        Proposal(edits, "dummy columns are boolean since pandas 2; the notebook expects 0 and 1", restart=True)
        if edits
        else None
    )
