"""Replacements for DataFrame and Series APIs of pandas."""

from __future__ import annotations

import ast

from d2c_mlops.convert.meaning.roles import keyword_value
from d2c_mlops.convert.repair.fix_registry import parent_node, replace_node_edit, source_text
from d2c_mlops.convert.repair.replacement_registry import (
    argument_texts,
    attribute_call,
    is_constant_keyword,
    keyword_with_name,
    receiver_text,
    register_replacement,
    replace_call,
)
from d2c_mlops.convert.source.finding import Edit
from d2c_mlops.convert.source.notebook import Cell


@register_replacement(r"pandas\.(DataFrame|Series)\.append")
def _replace_append(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """`a.append(b, ignore_index=True)` as `pd.concat([a, b], ignore_index=True)`; a dict becomes a row first."""
    call = attribute_call(cell, node)
    if call is None or not isinstance(call.func, ast.Attribute):
        return ()
    argument = call.args[0] if call.args else keyword_value(call, "other")
    if argument is None:
        return ()
    start, appended = receiver_text(cell, call), source_text(cell, argument)
    if isinstance(argument, ast.Dict) or (
        isinstance(argument, ast.Call) and source_text(cell, argument.func) == "dict"
    ):
        appended = f"pd.DataFrame([{appended}])"
    elif isinstance(argument, ast.Call) and source_text(cell, argument.func) in ("pd.Series", "Series"):
        appended = f"{appended}.to_frame().T"
    parts = f"[{start}, *{appended}]" if isinstance(argument, ast.ListComp) else f"[{start}, {appended}]"
    if isinstance(argument, ast.List):
        parts = f"[{start}, {appended[1:-1].strip()}]"
    arguments = argument_texts(cell, ast.Call(call.func, [], call.keywords), "other", "verify_integrity")
    arguments += [f"ignore_index={source_text(cell, call.args[1])}"] if len(call.args) > 1 else []
    return replace_call(cell, call, "pd.concat", [parts, *arguments])


@register_replacement(r"pandas\.(DataFrame|Series)\.ix")
def _replace_ix(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """`.ix[...]` as positions if all values are integers, otherwise as labels."""
    above = parent_node(cell, node)
    if not isinstance(node, ast.Attribute) or not isinstance(above, ast.Subscript):
        return ()
    parts = above.slice.elts if isinstance(above.slice, ast.Tuple) else [above.slice]
    whole = all(_is_position(part) for part in parts) and len(parts) > 1
    end, line = node.end_col_offset or 0, node.end_lineno or 0
    return (Edit(cell.index, line, end - 2, line, end, "iloc" if whole else "loc"),)


def _is_position(node: ast.expr) -> bool:
    if isinstance(node, ast.Slice):
        return all(part is None or _is_position(part) for part in (node.lower, node.upper, node.step))
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    return isinstance(node, ast.Constant) and isinstance(node.value, int)


@register_replacement(r"pandas\.(DataFrame|Series)\.(sum|mean|count|max|min|median)\|level")
def _replace_level_argument(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = attribute_call(cell, node)
    word = keyword_with_name(call, "level") if call is not None else None
    if call is None or word is None or not isinstance(call.func, ast.Attribute):
        return ()
    start = f"{receiver_text(cell, call)}.groupby(level={source_text(cell, word.value)}).{call.func.attr}"
    return replace_call(cell, call, start, argument_texts(cell, call, "level", "axis"))


@register_replacement(r"pandas\.(DataFrame|Series)\.mad")
def _replace_mad(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = attribute_call(cell, node)
    if call is None or call.args or call.keywords:
        return ()
    start = receiver_text(cell, call)
    return (replace_node_edit(cell, call, f"({start} - {start}.mean()).abs().mean()"),)


@register_replacement(r"pandas\.DataFrame\.lookup")
def _replace_lookup(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = attribute_call(cell, node)
    if call is None or len(call.args) != 2:
        return ()
    start, (rows, columns) = receiver_text(cell, call), map(lambda argument: source_text(cell, argument), call.args)
    text = f"{start}.to_numpy()[{start}.index.get_indexer({rows}), {start}.columns.get_indexer({columns})]"
    return (replace_node_edit(cell, call, text),)


@register_replacement(r"pandas\.(DataFrame|Series)\.(fillna|replace)\|method")
def _replace_fillna_method(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """`fillna(method='ffill')` as `ffill()`."""
    call = attribute_call(cell, node)
    method = keyword_value(call, "method") if call is not None else None
    if call is None or not isinstance(method, ast.Constant) or call.args:
        return ()
    name = {"ffill": "ffill", "pad": "ffill", "bfill": "bfill", "backfill": "bfill"}.get(str(method.value))
    if name is None or not isinstance(call.func, ast.Attribute) or call.func.attr != "fillna":
        return ()
    return replace_call(
        cell, call, f"{receiver_text(cell, call)}.{name}", argument_texts(cell, call, "method", "value")
    )


@register_replacement(r"pandas\.(DataFrame|Series)\.(interpolate|pct_change)")
def _replace_interpolate_fill(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = attribute_call(cell, node)
    if call is None or not isinstance(call.func, ast.Attribute):
        return ()
    word = "method" if call.func.attr == "interpolate" else "fill_method"
    argument = keyword_value(call, word) or (call.args[0] if call.args and word == "method" else None)
    if not isinstance(argument, ast.Constant):
        return ()
    name = {"ffill": "ffill", "pad": "ffill", "bfill": "bfill", "backfill": "bfill"}.get(str(argument.value))
    if name is None:
        return ()
    arguments = [source_text(cell, keyword) for keyword in call.keywords if keyword.arg != word]
    behind = f".pct_change({', '.join([*map(lambda argument: source_text(cell, argument), call.args), *arguments])})"
    return (
        replace_node_edit(
            cell, call, f"{receiver_text(cell, call)}.{name}()" + (behind if word == "fill_method" else "")
        ),
    )


@register_replacement(r"pandas\.read_(csv|table)\|(error_bad_lines|warn_bad_lines|squeeze|prefix|delim_whitespace)")
def _replace_read_csv_option(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = attribute_call(cell, node)
    if call is None:
        return ()
    words = {word.arg: word for word in call.keywords if word.arg}
    old = ("error_bad_lines", "warn_bad_lines", "squeeze", "prefix", "delim_whitespace")
    arguments = argument_texts(cell, call, *old)
    behind = ""
    if is_constant_keyword(words.get("error_bad_lines"), False) and "on_bad_lines" not in words:
        arguments.append("on_bad_lines='skip'")
    if is_constant_keyword(words.get("delim_whitespace"), True):
        arguments.append(r"sep=r'\s+'")
    if is_constant_keyword(words.get("squeeze"), True):
        behind = ".squeeze('columns')"
    if "prefix" in words and not is_constant_keyword(words["prefix"], None):
        behind = f".add_prefix({source_text(cell, words['prefix'].value)})"
    return (replace_node_edit(cell, call, f"{source_text(cell, call.func)}({', '.join(arguments)}){behind}"),)


@register_replacement(r"pandas\.(DataFrame|Series)\.astype")
def _replace_astype(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """Casts to units that pandas no longer supports."""
    call = attribute_call(cell, node)
    dtype = (call.args[0] if call.args else keyword_value(call, "dtype")) if call is not None else None
    if call is None or not isinstance(dtype, ast.Constant):
        return ()
    start, text = receiver_text(cell, call), str(dtype.value)
    if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.BinOp) and not start.startswith("("):
        start = f"({start})"
    seconds = {"h": 3600, "m": 60, "W": 604800, "M": 2629746, "Y": 31556952}
    unit = text[-2:-1]
    if text == "timedelta64[D]":
        return (replace_node_edit(cell, call, f"{start}.dt.days.astype(float)"),)
    if text.startswith("timedelta64[") and unit in seconds:
        return (replace_node_edit(cell, call, f"({start}.dt.total_seconds() // {seconds[unit]})"),)
    if text == "datetime64[D]":
        return (replace_node_edit(cell, call, f"{start}.dt.normalize()"),)
    if text in ("datetime64[M]", "datetime64[Y]"):
        return (replace_node_edit(cell, call, f"{start}.dt.to_period('{unit}').dt.to_timestamp()"),)
    if text in ("datetime64", "timedelta64"):
        return (replace_node_edit(cell, dtype, f"'{text}[ns]'"),)
    return ()


@register_replacement(r"pandas\.value_counts")
def _replace_value_counts(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = attribute_call(cell, node)
    if call is None or not call.args:
        return ()
    arguments = ", ".join(source_text(cell, word) for word in call.keywords)
    return (replace_node_edit(cell, call, f"pd.Series({source_text(cell, call.args[0])}).value_counts({arguments})"),)


@register_replacement(r"pandas\.(Int64|Float64|UInt64)Index")
def _replace_numeric_index(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = attribute_call(cell, node)
    if call is None or not isinstance(call.func, ast.Attribute) or keyword_value(call, "dtype") is not None:
        return ()
    kind = call.func.attr.removesuffix("Index").lower()
    return replace_call(
        cell, call, f"{receiver_text(cell, call)}.Index", [*argument_texts(cell, call), f"dtype='{kind}'"]
    )


@register_replacement(r"pandas\.DataFrame\.sort")
def _replace_sort(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = attribute_call(cell, node)
    if call is None:
        return ()
    words = [
        f"by={source_text(cell, word.value)}" if word.arg in ("columns", "column") else source_text(cell, word)
        for word in call.keywords
    ]
    positional = [
        f"{name}={source_text(cell, value)}" for name, value in zip(("by", "ascending"), call.args, strict=False)
    ]
    by = any(word.startswith("by=") for word in [*positional, *words])
    return replace_call(
        cell, call, f"{receiver_text(cell, call)}.sort_{'values' if by else 'index'}", positional + words
    )


@register_replacement(r"pandas\.(DataFrame|Series)\.(get|set)_value")
def _replace_get_set_value(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = attribute_call(cell, node)
    if call is None or not isinstance(call.func, ast.Attribute) or call.keywords:
        return ()
    setting = call.func.attr == "set_value"
    parts = [source_text(cell, argument) for argument in call.args]
    above = parent_node(cell, call)
    if len(parts) < 1 + setting or (setting and not isinstance(above, ast.Expr)):
        return ()
    where = parts[:-1] if setting else parts
    text = f"{receiver_text(cell, call)}.at[{', '.join(where)}]"
    return (replace_node_edit(cell, call, f"{text} = {parts[-1]}" if setting else text),)


@register_replacement(r"pandas\.(DataFrame|Series)\.from_csv")
def _replace_from_csv(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """Its first column was an index of dates; a Series had no names unless `header=0`."""
    call = attribute_call(cell, node)
    if call is None or not isinstance(call.func, ast.Attribute):
        return ()
    series = source_text(cell, call.func.value).endswith("Series")
    keywords = {word.arg for word in call.keywords}
    defaults = ["index_col=0"] if "index_col" not in keywords else []
    defaults += ["parse_dates=[0]"] if "parse_dates" not in keywords else []
    defaults += ["header=None"] if series and "header" not in keywords else []
    text = f"pd.read_csv({', '.join([*argument_texts(cell, call, 'infer_datetime_format'), *defaults])})"
    return (replace_node_edit(cell, call, text + (".squeeze('columns')" if series else "")),)


@register_replacement(r"pandas\.np")
def _replace_pandas_np(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    return (replace_node_edit(cell, node, "__import__('numpy')"),) if isinstance(node, ast.Attribute) else ()


@register_replacement(r"pandas\.tools\.plotting|pandas\.tools")
def _replace_pandas_tools(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    if isinstance(node, ast.Attribute) and node.attr == "tools":
        above = parent_node(cell, node)
        if isinstance(above, ast.Attribute) and above.attr == "plotting":
            return (replace_node_edit(cell, above, f"{source_text(cell, node.value)}.plotting"),)
        return (replace_node_edit(cell, node, source_text(cell, node.value)),)
    return ()
