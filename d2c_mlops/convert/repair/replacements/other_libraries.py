"""Replacements for numpy, Keras, XGBoost, LightGBM and statsmodels."""

from __future__ import annotations

import ast

from d2c_mlops.convert.repair.fix_registry import replaced, spelled
from d2c_mlops.convert.repair.replacement_registry import call_of, inner, recalled, receiver, replacement, word_of
from d2c_mlops.convert.source.finding import Edit
from d2c_mlops.convert.source.notebook import Cell


@replacement(r"numpy\.(NINF|NZERO|asscalar|asfarray|msort|cast)")
def _numpy(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    if not isinstance(node, ast.Attribute):
        return ()
    if node.attr in ("NINF", "NZERO"):
        return (replaced(cell, node, "float('-inf')" if node.attr == "NINF" else "-0.0"),)
    call = call_of(cell, node)
    if call is None or len(call.args) != 1:
        return ()
    start, text = spelled(cell, node.value), spelled(cell, call.args[0])
    new = {
        "asscalar": f"{start}.asarray({text}).item()",
        "asfarray": f"{start}.asarray({text}, dtype=float)",
        "msort": f"{start}.sort({text}, axis=0)",
    }.get(node.attr)
    return (replaced(cell, call, new),) if new else ()


@replacement(r"(tensorflow\.)?keras\..*\|decay")
def _decay(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    return recalled(cell, call, spelled(cell, call.func), inner(cell, call, "decay")) if call else ()


@replacement(r"(tensorflow\.)?keras\..*\.predict_classes")
def _classes(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    if call is None:
        return ()
    start = f"{receiver(cell, call)}.predict({', '.join(inner(cell, call))})"
    text = f"(lambda made: made.argmax(axis=-1) if made.shape[-1] > 1 else (made > 0.5).astype('int32'))({start})"
    return (replaced(cell, call, text),)


@replacement(r"xgboost\.XGB\w+\.fit\|\w+")
def _boosters(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """Arguments of fit that moved to the constructor are set there by set_params."""
    call = call_of(cell, node)
    if call is None:
        return ()
    moved = [spelled(cell, w) for w in call.keywords if w.arg in ("early_stopping_rounds", "eval_metric", "callbacks")]
    rest = inner(cell, call, "early_stopping_rounds", "eval_metric", "callbacks")
    return recalled(cell, call, f"{receiver(cell, call)}.set_params({', '.join(moved)}).fit", rest) if moved else ()


@replacement(r"lightgbm\.(LGBM\w+\.fit|train)\|\w+")
def _lightgbm(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    if call is None or word_of(call, "callbacks"):
        return ()
    parts = []
    for name, made in (("early_stopping_rounds", "early_stopping"), ("verbose_eval", "log_evaluation")):
        word = word_of(call, name)
        if word is not None and not (isinstance(word.value, ast.Constant) and isinstance(word.value.value, bool)):
            parts.append(f"__import__('lightgbm').{made}({spelled(cell, word.value)})")
    rest = inner(cell, call, "early_stopping_rounds", "verbose_eval")
    return recalled(cell, call, spelled(cell, call.func), rest + ([f"callbacks=[{', '.join(parts)}]"] if parts else []))


@replacement(r"statsmodels\.tsa\.stattools\.grangercausalitytests\|verbose")
def _granger(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    return recalled(cell, call, spelled(cell, call.func), inner(cell, call, "verbose")) if call else ()
