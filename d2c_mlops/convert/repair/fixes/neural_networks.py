"""Fixes of neural networks written for Keras 1 and 2."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from d2c_mlops.convert.repair.fix_registry import (
    CellFailure,
    Proposal,
    RepairContext,
    fix_after_failure,
    fix_before_run,
    last_name,
    replace_node_edit,
)
from d2c_mlops.convert.source.finding import Edit, keyword_name_replacement

_RENAMED = {
    "Dense": {"output_dim": "units", "init": "kernel_initializer", "W_regularizer": "kernel_regularizer"},
    "LSTM": {"output_dim": "units", "init": "kernel_initializer", "batch_input_shape": "batch_shape"},
    "GRU": {"output_dim": "units", "init": "kernel_initializer", "batch_input_shape": "batch_shape"},
    "Dropout": {"p": "rate"},
    "fit": {"nb_epoch": "epochs"},
}
_SCORES = {"acc": "accuracy", "val_acc": "val_accuracy", "accuracy": "acc", "val_accuracy": "val_acc"}


@fix_before_run("keras-words", "keras", "2.0", "arguments of layers were renamed", order=12)
def renamed_words(context: RepairContext) -> Iterator[Proposal]:
    """`Dense(output_dim=6, init='uniform')` as `Dense(units=6, kernel_initializer='uniform')`."""
    imports: list[ast.Import | ast.ImportFrom] = [node for _, node in context.nodes(ast.ImportFrom)]
    imports += [node for _, node in context.nodes(ast.Import)]
    modules = [node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imports]
    if not any("keras" in name or name.startswith("tensorflow") for name in modules):
        return
    for cell, call in context.nodes(ast.Call):
        renamed = _RENAMED.get(last_name(call.func), {})
        words = [word for word in call.keywords if word.arg in renamed]
        if words:
            edits = tuple(keyword_name_replacement(cell.index, word, renamed[word.arg or ""]) for word in words)
            yield Proposal(edits, "; ".join(f"`{word.arg}=` is now `{renamed[word.arg or '']}=`" for word in words))


@fix_after_failure("history-names", "keras", "2.3", "the training history uses the names of the metrics", order=40)
def history_names(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`history.history['acc']` as `['accuracy']`."""
    metric = failure.arguments[0] if failure.kind == "KeyError" and failure.arguments else None
    if metric not in _SCORES:
        return None
    edits: list[Edit] = []
    for cell, node in context.nodes(ast.Subscript):
        part = node.slice
        if (
            last_name(node.value) in ("history", "hist", "h")
            and isinstance(part, ast.Constant)
            and part.value in _SCORES
        ):
            if ("acc" in _SCORES[str(part.value)]) and (str(part.value).endswith("acc") == str(metric).endswith("acc")):
                edits.append(replace_node_edit(cell, part, repr(_SCORES[str(part.value)])))
    return Proposal(tuple(edits), f"its name in the history is {_SCORES[metric]!r}") if edits else None
