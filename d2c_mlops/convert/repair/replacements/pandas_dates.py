"""Replacements for dates and rolling windows of pandas."""

from __future__ import annotations

import ast

from d2c_mlops.convert.meaning.roles import keyword_value
from d2c_mlops.convert.repair.fix_registry import replace_node_edit, source_text
from d2c_mlops.convert.repair.replacement_registry import (
    argument_texts,
    attribute_call,
    receiver_text,
    register_replacement,
    replace_call,
)
from d2c_mlops.convert.source.finding import Edit
from d2c_mlops.convert.source.notebook import Cell


@register_replacement(r"pandas\.(DataFrame|Series)\.resample\|(how|fill_method)")
def _replace_resample(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = attribute_call(cell, node)
    if call is None:
        return ()
    how = keyword_value(call, "how") or keyword_value(call, "fill_method")
    arguments = ", ".join(argument_texts(cell, call, "how", "fill_method"))
    name = (
        f".{how.value}()"
        if isinstance(how, ast.Constant) and isinstance(how.value, str)
        else f".agg({source_text(cell, how)})"
        if how
        else ""
    )
    return (replace_node_edit(cell, call, f"{source_text(cell, call.func)}({arguments}){name}"),) if how else ()


@register_replacement(r"pandas\.(Index|DatetimeIndex|Series\.dt)\.(week|weekofyear)")
def _replace_week(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    if not isinstance(node, ast.Attribute):
        return ()
    end, line = node.end_col_offset or 0, node.end_lineno or 0
    return (Edit(cell.index, line, end - len(node.attr), line, end, "isocalendar().week"),)


@register_replacement(r"pandas\.(DatetimeIndex|Series\.dt)\.weekday_name")
def _replace_weekday_name(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    if not isinstance(node, ast.Attribute):
        return ()
    end, line = node.end_col_offset or 0, node.end_lineno or 0
    return (Edit(cell.index, line, end - len(node.attr), line, end, "day_name()"),)


@register_replacement(r"pandas\.rolling_(mean|std|sum|var|median|min|max)")
def _replace_rolling(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = attribute_call(cell, node)
    if call is None or not call.args or not isinstance(call.func, ast.Attribute):
        return ()
    window = call.args[1] if len(call.args) > 1 else keyword_value(call, "window")
    if window is None:
        return ()
    arguments = [source_text(cell, window)] + [source_text(cell, w) for w in call.keywords if w.arg != "window"]
    name = call.func.attr.removeprefix("rolling_")
    return (
        replace_node_edit(cell, call, f"{source_text(cell, call.args[0])}.rolling({', '.join(arguments)}).{name}()"),
    )


@register_replacement(r"pandas\.ewma")
def _replace_ewma(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = attribute_call(cell, node)
    if call is None or not call.args:
        return ()
    arguments = ", ".join(
        [
            *(f"com={source_text(cell, argument)}" for argument in call.args[1:2]),
            *map(lambda w: source_text(cell, w), call.keywords),
        ]
    )
    return (replace_node_edit(cell, call, f"{source_text(cell, call.args[0])}.ewm({arguments}).mean()"),)


@register_replacement(r"pandas\.datetime(\..*)?")
def _replace_datetime(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    return (
        (replace_node_edit(cell, node, "__import__('datetime').datetime"),) if isinstance(node, ast.Attribute) else ()
    )


@register_replacement(r"pandas\.TimeGrouper")
def _replace_time_grouper(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """Its first argument was the frequency; that of Grouper is a key."""
    call = attribute_call(cell, node)
    if call is None or not isinstance(call.func, ast.Attribute):
        return ()
    arguments = argument_texts(cell, call)
    first = [f"freq={arguments[0]}"] if call.args else arguments[:1]
    return replace_call(cell, call, f"{receiver_text(cell, call)}.Grouper", first + arguments[1:])
