"""Fixes of groupby and pivot tables: which groups and which columns they contain."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from d2c_mlops.convert.meaning.roles import keyword_value
from d2c_mlops.convert.repair.fix_registry import (
    CellFailure,
    Proposal,
    RepairContext,
    add_argument_edit,
    fix_after_failure,
    fix_before_run,
    insert_text_edit,
    last_name,
    source_text,
)
from d2c_mlops.convert.source.notebook import Cell

_BANDS = ("cut", "qcut", "Categorical")
_TEXT = (
    "does not support operation",
    "does not support aggregation",
    "agg function failed",
    "Could not convert",
    "Cannot perform reduction",
)


@fix_before_run("observed", "pandas", "3.0", "empty groups are dropped unless observed=False", order=20)
def empty_groups(context: RepairContext) -> Iterator[Proposal]:
    """A groupby over bands and categories keeps empty groups, as by default before."""
    bands = _category_names(context)
    for cell, call in context.nodes(ast.Call):
        name = last_name(call.func)
        if name not in ("groupby", "pivot_table") or keyword_value(call, "observed") is not None:
            continue
        if any(word.arg is None for word in call.keywords):
            continue
        words = (keyword_value(call, label) for label in ("by", "index", "columns"))
        keys = [*(call.args[:1] if name == "groupby" else []), *(word for word in words if word is not None)]
        if any(_is_category_key(key, bands) for key in keys):
            yield Proposal((add_argument_edit(cell, call, "observed=False"),))


def _category_names(context: RepairContext) -> set[str]:
    """Names and columns that are bound to bands: `df['age'] = pd.cut(...)`, `.astype('category')`."""
    bands: set[str] = set()
    for _, node in context.nodes(ast.Assign):
        if _creates_categories(node.value):
            for target in node.targets:
                part = target.slice if isinstance(target, ast.Subscript) else None
                if isinstance(part, ast.Constant) and isinstance(part.value, str):
                    bands.add(part.value)
                elif part is None and (name := last_name(target)):
                    bands.add(name)
    return bands


def _creates_categories(node: ast.expr) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = last_name(node.func)
    if name == "astype" and node.args:
        dtype = node.args[0]
        return isinstance(dtype, ast.Constant) and dtype.value == "category"
    return name in _BANDS and keyword_value(node, "retbins") is None


def _is_category_key(key: ast.expr, bands: set[str]) -> bool:
    parts = key.elts if isinstance(key, ast.List | ast.Tuple) else [key]
    for part in parts:
        if _creates_categories(part):
            return True
        if isinstance(part, ast.Subscript):
            part = part.slice
        name = part.value if isinstance(part, ast.Constant) else last_name(part)
        if name in bands:
            return True
    return False


@fix_after_failure("grouped-keys", "pandas", "3.0", "apply() no longer passes the grouping columns", order=44)
def grouped_keys(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`df.groupby('shop').apply(f)`: f, or later code, reads the column 'shop'."""
    column = str(failure.arguments[0]) if failure.kind == "KeyError" and failure.arguments else failure.name
    if failure.kind not in ("KeyError", "AttributeError") or not column:
        return None
    for cell, call in context.nodes(ast.Call):
        groups = call.func.value if isinstance(call.func, ast.Attribute) else None
        if last_name(call.func) != "apply" or not isinstance(groups, ast.Call) or last_name(groups.func) != "groupby":
            continue
        keys = {node.value for part in groups.args[:1] for node in ast.walk(part) if isinstance(node, ast.Constant)}
        owner = groups.func.value if isinstance(groups.func, ast.Attribute) else None
        if column in keys and isinstance(owner, ast.Name):
            end = (groups.end_lineno or 0, groups.end_col_offset or 0)
            edit = insert_text_edit(cell, *end, f"[list({owner.id}.columns)]")
            reason = f"apply() no longer passes the grouping column {column!r} unless it is selected"
            return Proposal((edit,), reason, restart=cell.index < failure.cell)
    return None


@fix_after_failure("several-aggregates", "pandas", "2.0", "text columns are no longer skipped silently", order=16)
def several_aggregates(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`df.groupby('shop').agg(['mean', 'std'])` over text: the numeric columns are selected."""
    if not failure.says(*_TEXT) or not failure.through("pandas/"):
        return None
    for cell, call in context.failing(failure, ast.Call):
        if last_name(call.func) not in ("agg", "aggregate", "apply") or not isinstance(call.func, ast.Attribute):
            continue
        groups, argument = call.func.value, call.args[0] if call.args else None
        if not isinstance(argument, ast.List | ast.Attribute | ast.Name):
            continue
        if (
            isinstance(groups, ast.Call)
            and last_name(groups.func) == "groupby"
            and isinstance(groups.func, ast.Attribute)
        ):
            text = _numeric_selection(cell, groups)
            end = (groups.end_lineno or 0, groups.end_col_offset or 0)
            if text:
                return Proposal((insert_text_edit(cell, *end, text),), "text columns are no longer skipped silently")
        elif isinstance(groups, ast.Name) and context.kinds([groups.id]).get(groups.id) == "pandas.DataFrame":
            edit = insert_text_edit(
                cell, groups.end_lineno or 0, groups.end_col_offset or 0, ".select_dtypes('number')"
            )
            return Proposal((edit,), "text columns are no longer skipped silently")
    return None


def _numeric_selection(cell: Cell, groups: ast.Call) -> str:
    """The selection of the numeric columns after a groupby, without its keys."""
    owner = groups.func.value if isinstance(groups.func, ast.Attribute) else None
    if not isinstance(owner, ast.Name) or not groups.args:
        return ""
    key = groups.args[0]
    parts = key.elts if isinstance(key, ast.List | ast.Tuple) else [key]
    if not all(isinstance(part, ast.Constant) for part in parts):
        return ""
    keys = ", ".join(source_text(cell, part) for part in parts)
    return f"[{owner.id}.select_dtypes('number').columns.difference([{keys}], sort=False)]"


@fix_after_failure("pivoted-texts", "pandas", "2.0", "text columns are no longer skipped silently", order=16)
def pivoted_texts(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`df.pivot_table(index='shop')` over text."""
    if not failure.says(*_TEXT) or not failure.through("pandas/"):
        return None
    for cell, call in context.failing(failure, ast.Call):
        if last_name(call.func) == "pivot_table" and keyword_value(call, "numeric_only") is None:
            if not any(
                isinstance(aggfunc, ast.List | ast.Dict)
                for aggfunc in [keyword_value(call, "aggfunc")]
                if aggfunc is not None
            ):
                edit = add_argument_edit(cell, call, "numeric_only=True")
                return Proposal((edit,), "text columns are no longer skipped silently")
    return None
