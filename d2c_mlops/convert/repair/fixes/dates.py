"""Fixes of dates and durations whose units and formats changed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from d2c_mlops.convert.repair.fix_registry import (
    CellFailure,
    Proposal,
    RepairContext,
    fix_after_failure,
    fix_before_run,
    insert_text_edit,
    last_name,
    parent_node,
    replace_node_edit,
    source_text,
)


@fix_before_run("ten-digits", "pandas", "3.0", "datetimes have microsecond resolution, no longer nanoseconds", order=20)
def nanosecond_integers(context: RepairContext) -> Iterator[Proposal]:
    """`dates.astype('int64') // 10**9` counts seconds only from nanoseconds."""
    for cell, node in context.nodes(ast.BinOp):
        if not isinstance(node.op, ast.Div | ast.FloorDiv) or not _is_billion(node.right):
            continue
        call = node.left
        if (
            isinstance(call, ast.Call)
            and last_name(call.func) in ("astype", "view")
            and isinstance(call.func, ast.Attribute)
        ):
            start = source_text(cell, call.func.value)
            if call.args and "int" in source_text(cell, call.args[0]) and "datetime64" not in start:
                where = call.func.value
                yield Proposal(
                    (
                        insert_text_edit(
                            cell, where.end_lineno or 0, where.end_col_offset or 0, ".astype('datetime64[ns]')"
                        ),
                    )
                )


def _is_billion(node: ast.expr) -> bool:
    """Return whether an expression is 1e9, 10**9 or a million, written out."""
    if isinstance(node, ast.Constant):
        return node.value in (10**9, 10**6)
    return ast.unparse(node) in ("10 ** 9", "10 ** 6")


@fix_before_run("month-unit", "pandas", "2.0", "months and years have no fixed length", order=20)
def month_units(context: RepairContext) -> Iterator[Proposal]:
    """`/ np.timedelta64(1, 'M')`: a mean month is 2,629,746 seconds, a mean year 31,556,952."""
    seconds = {"M": 2629746, "Y": 31556952}
    for cell, call in context.nodes(ast.Call):
        if last_name(call.func) != "timedelta64" or len(call.args) != 2:
            continue
        unit = call.args[1]
        above = parent_node(cell, call)
        if (
            isinstance(unit, ast.Constant)
            and unit.value in seconds
            and isinstance(above, ast.BinOp)
            and isinstance(above.op, ast.Div | ast.FloorDiv)
        ):
            count = source_text(cell, call.args[0])
            size = f"{seconds[unit.value]}" if count == "1" else f"{seconds[unit.value]} * {count}"
            yield Proposal((replace_node_edit(cell, call.args[0], size), replace_node_edit(cell, unit, "'s'")))


@fix_after_failure("days-of-differences", "pandas", "2.0", "timedeltas cannot be cast to days", order=15)
def days_of_differences(context: RepairContext, failure: CellFailure) -> Proposal | None:
    if not failure.says(
        "Cannot convert from timedelta64", "Supported resolutions are", "Units 'M', 'Y'", "Cannot cast"
    ):
        return None
    from d2c_mlops.convert.repair.replacement_registry import replacement_edits

    for cell, call in context.failing(failure, ast.Call):
        if last_name(call.func) == "astype" and (edits := replacement_edits("pandas.Series.astype", cell, call)):
            return Proposal(edits, "pandas supports only seconds and smaller units")
    return None


@fix_after_failure("text-dates", "pandas", "2.0", "all dates of a column must have the same format", order=40)
def mixed_dates(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """to_datetime of dates in several formats: each is parsed separately, as before."""
    if not failure.says(
        "doesn't match format", "does not match format", "unconverted data remains"
    ) or not failure.through("pandas/"):
        return None
    for cell, call in context.failing(failure, ast.Call):
        keywords = {word.arg for word in call.keywords}
        if last_name(call.func) == "to_datetime" and not keywords & {"format"}:
            from d2c_mlops.convert.repair.fix_registry import add_argument_edit

            return Proposal(
                (add_argument_edit(cell, call, "format='mixed'"),), "dates of several formats are parsed one by one"
            )
    return None


_FREQUENCY = re.compile(r"'(\w+)' is no longer supported for \w+\. Please use '(\w+)' instead")


@fix_after_failure("spelling-of-frequency", "pandas", "3.0", "the frequency has another name", order=20)
def spelling_of_frequency(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`resample('m')`: the name that the error tells, in all calls of the same functions."""
    match = _FREQUENCY.search(failure.message)
    if match is None:
        return None
    old = re.compile(rf"(-?\d*){re.escape(match[1])}")
    functions = {
        last_name(call.func) for _, call in context.failing(failure, ast.Call) if any(_texts_of_call(call, old))
    }
    edits = [
        replace_node_edit(cell, text, repr(old.sub(rf"\g<1>{match[2]}", str(text.value))))
        for cell, call in context.nodes(ast.Call)
        if last_name(call.func) in functions
        for text in _texts_of_call(call, old)
    ]
    return Proposal(tuple(edits), f"the frequency `{match[1]}` is now `{match[2]}`") if edits else None


def _texts_of_call(call: ast.Call, pattern: re.Pattern[str]) -> Iterator[ast.Constant]:
    for part in [*call.args, *(word.value for word in call.keywords)]:
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and pattern.fullmatch(part.value):
            yield part
