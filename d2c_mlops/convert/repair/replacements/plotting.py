"""Replacements for matplotlib and seaborn."""

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


@register_replacement(r"matplotlib\.(pyplot\.)?cm\.get_cmap")
def _replace_get_cmap(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    if not isinstance(node, ast.Attribute):
        return ()
    start = source_text(cell, node.value)
    plots = start.removesuffix(".cm") if start.endswith(".cm") and start.count(".") == 1 else ""
    text = f"{plots}.get_cmap" if plots else "__import__('matplotlib.pyplot', fromlist=['get_cmap']).get_cmap"
    return (replace_node_edit(cell, node, text),)


@register_replacement(r"seaborn\.distplot")
def _replace_distplot(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """A histogram with a density, as distplot drew it; without its `kde=False` the scale is the density."""
    call = attribute_call(cell, node)
    if call is None or any(word.arg is None for word in call.keywords):
        return ()
    words = {word.arg: word.value for word in call.keywords}
    hist, kde = words.get("hist"), words.get("kde")
    start = source_text(cell, call.func).removesuffix("distplot")
    old = (
        "hist",
        "kde",
        "rug",
        "fit",
        "norm_hist",
        "kde_kws",
        "hist_kws",
        "rug_kws",
        "fit_kws",
        "axlabel",
        "a",
        "vertical",
    )
    arguments = [source_text(cell, words["a"])] if "a" in words else []
    arguments += [source_text(cell, argument) for argument in call.args[:1]]
    arguments += [f"bins={source_text(cell, value)}" for value in call.args[1:2]]
    arguments += [source_text(cell, word) for word in call.keywords if word.arg not in old]
    if isinstance(hist, ast.Constant) and hist.value is False:
        return (
            replace_node_edit(
                cell,
                call,
                f"{start}kdeplot({', '.join(argument for argument in arguments if 'bins=' not in argument)})",
            ),
        )
    if not (isinstance(kde, ast.Constant) and kde.value is False):
        arguments += ["kde=True", "stat='density'"]
    return (replace_node_edit(cell, call, f"{start}histplot({', '.join(arguments)})"),)


@register_replacement(r"seaborn\.factorplot")
def _replace_factorplot(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """catplot, which draws strips where factorplot drew points."""
    call = attribute_call(cell, node)
    if call is None:
        return ()
    words = [source_text(cell, w) if w.arg != "size" else f"height={source_text(cell, w.value)}" for w in call.keywords]
    if keyword_value(call, "kind") is None:
        words.append("kind='point'")
    positional = [
        f"{name}={source_text(cell, value)}" for name, value in zip(("x", "y", "hue", "data"), call.args, strict=False)
    ]
    return replace_call(
        cell, call, source_text(cell, call.func).removesuffix("factorplot") + "catplot", positional + words
    )


@register_replacement(r"seaborn\.tsplot")
def _replace_tsplot(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = attribute_call(cell, node)
    if call is None or len(call.args) != 1 or call.keywords:
        return ()
    return replace_call(
        cell, call, source_text(cell, call.func).removesuffix("tsplot") + "lineplot", argument_texts(cell, call)
    )


@register_replacement(r"matplotlib\.pyplot\.(hold|plot_date)")
def _replace_hold_and_plot_date(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = attribute_call(cell, node)
    if call is None or not isinstance(call.func, ast.Attribute):
        return ()
    if call.func.attr == "hold":
        return (replace_node_edit(cell, call, "None"),)
    marked = [] if len(call.args) > 2 or keyword_value(call, "fmt") else ["'o'"]
    parts = (
        [source_text(cell, argument) for argument in call.args]
        + marked
        + [source_text(cell, word) for word in call.keywords if word.arg not in ("xdate", "ydate", "tz", "fmt")]
    )
    return replace_call(cell, call, f"{receiver_text(cell, call)}.plot", parts)


@register_replacement(r"matplotlib\.figure\.Figure\.gca\|projection")
def _replace_projection(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = attribute_call(cell, node)
    return (
        replace_call(cell, call, f"{receiver_text(cell, call)}.add_subplot", argument_texts(cell, call)) if call else ()
    )
