"""Fixes of cells that depend on deleted cells or on the order in the author's session."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from d2c_mlops.convert.repair.fix_registry import (
    CellFailure,
    Proposal,
    RepairContext,
    add_argument_edit,
    enclosing_statement,
    fix_after_failure,
    fix_before_run,
    insert_text_edit,
    last_name,
    parent_node,
    replace_node_edit,
    source_text,
)

_MISSING = ("not in index", "are in the [columns]")


def _missing_labels(message: str) -> list[str]:
    """The labels that a KeyError names."""
    return re.findall(r"'((?:[^'\\]|\\.)+)'", message.replace('"', "'") if "[" not in message else message)


_HABITS = {
    "pd": "import pandas as pd",
    "np": "import numpy as np",
    "plt": "import matplotlib.pyplot as plt",
    "sns": "import seaborn as sns",
    "sm": "import statsmodels.api as sm",
    "smf": "import statsmodels.formula.api as smf",
    "px": "import plotly.express as px",
    "go": "import plotly.graph_objects as go",
    **{name: f"import {name}" for name in ("json", "math", "os", "random", "re", "sys", "time", "warnings")},
}  # what these names stand for wherever people write notebooks


@fix_after_failure("never-imported", "", "", "the author's session had imported the name", order=30)
def never_imported(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`pd` and similar names that no cell imports: the usual import."""
    if failure.kind != "NameError" or failure.name not in _HABITS or context.subject.flow.definers.get(failure.name):
        return None
    cell = context.notebook.cells[failure.cell]
    if cell.tree is None or not cell.tree.body:
        return None
    first, text = cell.tree.body[0], _HABITS[failure.name]
    edit = insert_text_edit(cell, first.lineno, 0, f"{text}\n")
    return Proposal((edit,), f"no cell imports `{failure.name}`; the usual import is assumed: {text}")


@fix_after_failure("dropped-already", "", "", "the column was created by a deleted cell", order=45)
def dropped_already(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`drop` of a column that no cell creates: it is already dropped."""
    if failure.kind != "KeyError" or "not found in axis" not in failure.message:
        return None
    for cell, call in context.failing(failure, ast.Call):
        if last_name(call.func) == "drop" and not any(word.arg in ("errors", None) for word in call.keywords):
            lost = ", ".join(_missing_labels(failure.message.split(" not found")[0])) or "it"
            return Proposal(
                (add_argument_edit(cell, call, "errors='ignore'"),), f"no cell creates {lost}, so it cannot be dropped"
            )
    return None  # fmt: skip


@fix_after_failure("lost-columns", "", "", "the table had lost columns before this cell", order=60)
def lost_columns(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """Columns that an earlier cell removed and that an earlier copy still has: `Original = df.copy()`."""
    if failure.kind != "KeyError":
        return None
    lost = (
        set(_missing_labels(failure.message))
        if any(text in failure.message for text in _MISSING)
        else {str(failure.message).strip("'\"")}
    )
    place = max((frame["cell"] for frame in failure.frames), default=failure.cell)
    for _, part in context.failing(failure, ast.Subscript):
        if not isinstance(part.value, ast.Name):
            continue
        columns = {
            node.value
            for node in ast.walk(part.slice)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        copy = _first_copy_name(context, part.value.id, place) if columns & lost else ""
        if copy:
            same = [
                replace_node_edit(use_cell, node.value, copy)
                for use_cell, node in context.nodes(ast.Subscript, context.cell(place))
                if isinstance(node.value, ast.Name)
                and node.value.id == part.value.id
                and isinstance(node.ctx, ast.Load)
            ]
            return Proposal(
                tuple(same),
                f"`{part.value.id}` has lost {', '.join(sorted(columns & lost))} before this cell; `{copy}` is an earlier copy",
            )
    return None  # fmt: skip


def _first_copy_name(context: RepairContext, name: str, before: int) -> str:
    """The first copy of a table under another name that is not rebound."""
    bound: list[str] = []
    for cell, node in context.nodes(ast.Assign):
        target = node.targets[0]
        if cell.index >= before or not isinstance(target, ast.Name):
            continue
        bound.append(target.id)
        value = node.value
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr == "copy":
            value = value.func.value
            if isinstance(value, ast.Name) and value.id == name and target.id != name:
                later = [c for c, n in context.nodes(ast.Name) if n.id == target.id and isinstance(n.ctx, ast.Store)]
                if len(later) == 1:
                    return target.id
    return ""


_MISMATCH = re.compile(r"time data ['\"](.{1,99}?)['\"] (?:doesn't|does not) match format ['\"](.{1,99}?)['\"]")


@fix_after_failure("separated-otherwise", "", "", "the dates of the available file have another separator", order=38)
def date_separators(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """A format that fits once its separators are those of the file: `%d-%m-%Y` for 01/05/2017."""
    match = _MISMATCH.search(failure.message)
    if match is None:
        return None
    value, form = match[1], match[2]
    signs = re.findall(r"[^\w%: ]", value)
    separators = re.findall(r"(?<=[a-zA-Z])[^\w%: ]", form)
    if not signs or not separators or signs[0] == separators[0]:
        return None
    new = form.replace(separators[0], signs[0])
    if not _date_matches_format(value, new):
        return None
    for cell, text in context.failing(failure, ast.Constant):
        if text.value == form:
            return Proposal(
                (replace_node_edit(cell, text, repr(new)),), f"the available file writes its dates as {value}"
            )
    return None


def _date_matches_format(value: str, date_format: str) -> bool:
    from datetime import datetime

    try:
        datetime.strptime(value, date_format)
    except ValueError:
        return False
    return True


@fix_before_run(
    "numbers-for-texts", "pandas", "3.0", "a text column keeps dtype object when numbers replace its values", order=20
)
def numbers_for_texts(context: RepairContext) -> Iterator[Proposal]:
    """`replace({'no': 0, 'yes': 1})` returned integers; since pandas 3 this needs infer_objects()."""
    for cell, call in context.nodes(ast.Call):
        if not _maps_texts_to_numbers(call) or isinstance(parent_node(cell, call), ast.Attribute):
            continue
        place = next((word for word in call.keywords if word.arg == "inplace"), None)
        if place is None:
            end, line = call.end_col_offset or 0, call.end_lineno or 0
            yield Proposal((insert_text_edit(cell, line, end, ".infer_objects()"),), _NUMBERS)
            continue
        statement = enclosing_statement(cell, call)
        owner = call.func.value if isinstance(call.func, ast.Attribute) else None
        alone = isinstance(statement, ast.Expr) and statement.value is call
        if alone and isinstance(owner, ast.Name | ast.Subscript) and _is_constant(place.value, True):
            arguments = ", ".join(
                source_text(cell, part) for part in [*call.args, *(w for w in call.keywords if w is not place)]
            )
            text = f"{source_text(cell, owner)} = {source_text(cell, call.func)}({arguments}).infer_objects()"
            yield Proposal((replace_node_edit(cell, call, text),), _NUMBERS)


_NUMBERS = "when numbers replace text, the column becomes numeric, as before pandas 3"


def _maps_texts_to_numbers(call: ast.Call) -> bool:
    """Whether it is a `replace` of texts by numbers alone."""
    if last_name(call.func) != "replace" or not isinstance(call.func, ast.Attribute) or not call.args:
        return False
    argument = call.args[0]
    if isinstance(argument, ast.Dict):
        old, new = [key for key in argument.keys if key is not None], argument.values
    elif len(call.args) > 1:
        old, new = _condition_parts(argument), _condition_parts(call.args[1])
    else:
        return False
    numbers = [value for value in new if isinstance(value, ast.Constant) and type(value.value) in (int, float)]
    texts = [value for value in old if isinstance(value, ast.Constant) and isinstance(value.value, str)]
    return bool(numbers) and len(numbers) == len(new) and bool(texts)


def _condition_parts(node: ast.expr) -> list[ast.expr]:
    return node.elts if isinstance(node, ast.List | ast.Tuple) else [node]


def _is_constant(node: ast.expr, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value
