"""Fixes of plots: arguments that must be keywords, renamed styles."""

from __future__ import annotations

import ast
import re

from d2c_mlops.convert.repair.fix_registry import (
    CellFailure,
    Proposal,
    RepairContext,
    comment_out_edit,
    enclosing_statement,
    fix_after_failure,
    insert_text_edit,
    last_name,
    replace_node_edit,
    source_text,
)
from d2c_mlops.convert.source.finding import Edit

_NAMED = {"pairplot": ("data",), "heatmap": ("data",)}
_XY = [
    "barplot",
    "boxplot",
    "boxenplot",
    "catplot",
    "countplot",
    "kdeplot",
    "lineplot",
    "lmplot",
    "pointplot",
    "regplot",
    "relplot",
    "residplot",
    "scatterplot",
    "stripplot",
    "swarmplot",
    "violinplot",
    "jointplot",
    "histplot",
    "displot",
    "ecdfplot",
]


@fix_after_failure("named-axes", "seaborn", "0.12", "only the data may be passed by position", order=14)
def named_axes(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`sns.countplot(df['a'])` and `sns.barplot(a, b)`: `x=`, `y=`."""
    if not failure.through("seaborn/") and not re.search(
        r"takes (?:from 0 to )?\d+ positional|got multiple values", failure.message
    ):
        return None
    for cell, call in context.failing(failure, ast.Call):
        if last_name(call.func) not in _XY or not call.args:
            continue
        keywords = {word.arg for word in call.keywords}
        names = (
            [name for name in ("x", "y", "hue") if name not in keywords]
            if len(call.args) > 1 or "data" in keywords
            else ["x"]
        )
        if len(call.args) > 1 and len(call.args) <= 4:
            names = [
                *names[: min(2, len(call.args))],
                *(["data"] if len(call.args) == 3 and "data" not in keywords else names[2:]),
            ]
        if len(names) < len(call.args) or (len(call.args) == 1 and "x" in keywords):
            continue
        edits = tuple(
            Edit(cell.index, argument.lineno, argument.col_offset, argument.lineno, argument.col_offset, f"{name}=")
            for argument, name in zip(call.args, names, strict=False)
        )
        return Proposal(edits, "seaborn accepts only the data by position")
    return None


@fix_after_failure("gone-style", "matplotlib", "3.8", "the style was renamed", order=14)
def gone_style(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """A removed style name: replaced by its new name, or left out because it only affects colours."""
    if not failure.says("is not a valid package style"):
        return None
    import matplotlib.style as style

    for cell, call in context.failing(failure, ast.Call):
        for text in ast.walk(call):
            if isinstance(text, ast.Constant) and isinstance(text.value, str) and text.value not in style.available:
                new = text.value.replace("seaborn", "seaborn-v0_8", 1)
                if new in style.available:
                    return Proposal(
                        (replace_node_edit(cell, text, repr(new)),), f"the style {text.value!r} is now {new!r}"
                    )
                statement = enclosing_statement(cell, call)
                if isinstance(statement, ast.Expr):
                    return Proposal(
                        (comment_out_edit(cell, statement, ""),),
                        f"the style {text.value!r} was removed; it only affects colours",
                    )
    return None


@fix_after_failure(
    "plot-argument", "matplotlib", "3.0", "the argument was removed; it only affects the appearance", order=58
)
def plot_argument(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """An argument that a plotting function no longer accepts: left out."""
    match = re.search(
        r"(?:unexpected keyword argument|no property|Unknown property|invalid keyword) '?(\w+)'?", failure.message
    )
    if match is None or not (
        failure.through("matplotlib/", "seaborn/", "plotting/")
        or "set()" in failure.message
        or ".set(" in failure.message
    ):
        return None
    for cell, call in context.failing(failure, ast.Call):
        for word in call.keywords:
            if word.arg == match[1] and word.arg not in ("x", "y", "data", "hue"):
                arguments = [source_text(cell, argument) for argument in call.args] + [
                    source_text(cell, keyword) for keyword in call.keywords if keyword is not word
                ]
                text = f"{source_text(cell, call.func)}({', '.join(arguments)})"
                return Proposal(
                    (replace_node_edit(cell, call, text),), f"`{word.arg}` was removed; it only affects the appearance"
                )
    return None


@fix_after_failure("three-dimensions", "matplotlib", "3.7", "3D axes are added to their figure", order=14)
def three_dimensions(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`Axes3D(fig)` no longer adds itself to the figure; `fig.gca(projection='3d')` was removed."""
    if "gca() got an unexpected" not in failure.message:
        return None
    for cell, call in context.failing(failure, ast.Call):
        if isinstance(call.func, ast.Attribute) and call.func.attr == "gca":
            end, line = call.func.end_col_offset or 0, call.func.end_lineno or 0
            return Proposal((Edit(cell.index, line, end - 3, line, end, "add_subplot"),), "3D axes are added")
    return None


@fix_after_failure(
    "interpret-index", "seaborn", "0.12", "the index of the DataFrame is no longer renamed automatically", order=50
)
def wide_index(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`sns.barplot(x=counts.index, y=counts)` with unequal names is fine; a Series as `data` with x and y is not."""
    if not failure.says("DataFrame constructor not properly called", "must be passed as keyword"):
        return None
    for cell, call in context.failing(failure, ast.Call):
        if last_name(call.func) in _XY and len(call.args) == 1:
            first = call.args[0]
            return Proposal(
                (insert_text_edit(cell, first.lineno, first.col_offset, "x="),), "pass the plotted data by keyword"
            )
    return None
