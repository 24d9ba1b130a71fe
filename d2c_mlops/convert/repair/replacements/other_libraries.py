"""Replacements for numpy, Keras, XGBoost, LightGBM and statsmodels."""

from __future__ import annotations

import ast

from d2c_mlops.convert.repair.fix_registry import replace_node_edit, source_text
from d2c_mlops.convert.repair.replacement_registry import (
    argument_texts,
    attribute_call,
    keyword_with_name,
    receiver_text,
    register_replacement,
    replace_call,
)
from d2c_mlops.convert.source.finding import Edit
from d2c_mlops.convert.source.notebook import Cell


@register_replacement(r"numpy\.(NINF|NZERO|asscalar|asfarray|msort|cast)")
def _replace_numpy(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    if not isinstance(node, ast.Attribute):
        return ()
    if node.attr in ("NINF", "NZERO"):
        return (replace_node_edit(cell, node, "float('-inf')" if node.attr == "NINF" else "-0.0"),)
    call = attribute_call(cell, node)
    if call is None or len(call.args) != 1:
        return ()
    start, text = source_text(cell, node.value), source_text(cell, call.args[0])
    new = {
        "asscalar": f"{start}.asarray({text}).item()",
        "asfarray": f"{start}.asarray({text}, dtype=float)",
        "msort": f"{start}.sort({text}, axis=0)",
    }.get(node.attr)
    return (replace_node_edit(cell, call, new),) if new else ()


@register_replacement(r"(tensorflow\.)?keras\..*\|decay")
def _replace_keras_decay(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = attribute_call(cell, node)
    return replace_call(cell, call, source_text(cell, call.func), argument_texts(cell, call, "decay")) if call else ()


@register_replacement(r"(tensorflow\.)?keras\..*\.predict_classes")
def _replace_predict_classes(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = attribute_call(cell, node)
    if call is None:
        return ()
    start = f"{receiver_text(cell, call)}.predict({', '.join(argument_texts(cell, call))})"
    text = f"(lambda made: made.argmax(axis=-1) if made.shape[-1] > 1 else (made > 0.5).astype('int32'))({start})"
    return (replace_node_edit(cell, call, text),)


@register_replacement(r"xgboost\.XGB\w+\.fit\|\w+")
def _replace_xgboost_fit(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """Arguments of fit that moved to the constructor are set there by set_params."""
    call = attribute_call(cell, node)
    if call is None:
        return ()
    moved = [
        source_text(cell, w) for w in call.keywords if w.arg in ("early_stopping_rounds", "eval_metric", "callbacks")
    ]
    arguments = argument_texts(cell, call, "early_stopping_rounds", "eval_metric", "callbacks")
    return (
        replace_call(cell, call, f"{receiver_text(cell, call)}.set_params({', '.join(moved)}).fit", arguments)
        if moved
        else ()
    )


@register_replacement(r"lightgbm\.(LGBM\w+\.fit|train)\|\w+")
def _replace_lightgbm(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = attribute_call(cell, node)
    if call is None or keyword_with_name(call, "callbacks"):
        return ()
    parts = []
    for name, callback in (("early_stopping_rounds", "early_stopping"), ("verbose_eval", "log_evaluation")):
        word = keyword_with_name(call, name)
        if word is not None and not (isinstance(word.value, ast.Constant) and isinstance(word.value.value, bool)):
            parts.append(f"__import__('lightgbm').{callback}({source_text(cell, word.value)})")
    arguments = argument_texts(cell, call, "early_stopping_rounds", "verbose_eval")
    return replace_call(
        cell, call, source_text(cell, call.func), arguments + ([f"callbacks=[{', '.join(parts)}]"] if parts else [])
    )


@register_replacement(r"statsmodels\.tsa\.stattools\.grangercausalitytests\|verbose")
def _replace_granger(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = attribute_call(cell, node)
    return replace_call(cell, call, source_text(cell, call.func), argument_texts(cell, call, "verbose")) if call else ()
