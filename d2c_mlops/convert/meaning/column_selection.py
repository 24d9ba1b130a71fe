"""Infer which columns of which DataFrame an expression selects."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass

from d2c_mlops.convert.meaning.inference import Binding, Inference

_PASS_THROUGH = frozenset(
    [
        "astype",
        "copy",
        "dropna",
        "fillna",
        "head",
        "reset_index",
        "round",
        "sample",
        "sort_index",
        "sort_values",
        "tail",
        "to_frame",
        "to_numpy",
        "flatten",
        "ravel",
        "reshape",
        "squeeze",
    ]
)
_COLUMNWISE = re.compile(r"^sklearn\.\w+\.(?:\w*Scaler|\w*Imputer|PowerTransformer|QuantileTransformer)$")
_WRAPPERS = ("numpy.array", "numpy.asarray", "numpy.ravel", "pandas.DataFrame", "pandas.Series")


@dataclass(frozen=True, eq=False)
class Selection:
    """Columns of the frame bound at `frame`: the ones in `only`, or all of them but `without`."""

    frame: Binding
    only: tuple[str, ...] | None = None
    without: frozenset[str] = frozenset()

    def __str__(self) -> str:
        if self.only is not None:
            return f"{self.frame.name}[{', '.join(self.only)}]"
        return f"{self.frame.name} without {', '.join(sorted(self.without))}" if self.without else self.frame.name

    def holds(self, column: str) -> bool:
        """Whether the selection has a column, provided that the frame has it."""
        return column in self.only if self.only is not None else column not in self.without


def column_selection(node: ast.expr, inference: Inference, depth: int = 0) -> Selection | None:
    """Read the columns of an expression, through variables, splits, `drop`, `copy` and the like; None if unreadable."""
    if depth > 40:
        return None
    if isinstance(node, ast.Name):
        binding = inference.binding(node)
        return _selection_of_binding(binding, inference, depth) if binding is not None else None
    if isinstance(node, ast.Subscript):
        return _selection_of_subscript(node, inference, depth)
    if isinstance(node, ast.Attribute):
        if node.attr == "values":
            return column_selection(node.value, inference, depth + 1)
        under = column_selection(node.value, inference, depth + 1)
        is_series = inference.kind(node) == "pandas.Series"
        return Selection(under.frame, (node.attr,)) if under and is_series and under.only is None else None
    if isinstance(node, ast.Call):
        return _selection_of_call(node, inference, depth)
    return None


def _selection_of_binding(binding: Binding, inference: Inference, depth: int) -> Selection | None:
    if binding.changes is not None:
        return _selection_after_change(binding, inference, depth)
    value = binding.value
    if value is None:
        return None
    if isinstance(value, ast.Call) and binding.position is not None:
        if not inference.path(value.func).endswith(".train_test_split"):
            return None
        part = binding.position // 2
        return column_selection(value.args[part], inference, depth + 1) if part < len(value.args) else None
    inferred = column_selection(value, inference, depth + 1) if binding.position is None else None
    if inferred is not None:
        return inferred
    return Selection(binding) if binding.thing and binding.thing.path == "pandas.DataFrame" else None


def _selection_after_change(binding: Binding, inference: Inference, depth: int) -> Selection | None:
    """The former selection without the columns that the in-place change removed, with those that it added."""
    before = binding.changes
    under = _selection_of_binding(before, inference, depth + 1) if before is not None else None
    if under is None:
        return None
    if binding.column is not None:
        if under.only is not None:
            return Selection(under.frame, (*under.only, binding.column))
        return Selection(under.frame, None, under.without - {binding.column})
    value = binding.value
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
        if value.func.attr == "drop":
            return _selection_without(under, dropped_columns(value, inference))
        if value.func.attr == "pop" and value.args:
            return _selection_without(under, string_list(value.args[0], inference))
        if value.func.attr in _PASS_THROUGH:
            return under
    return None


def _selection_without(base_selection: Selection, removed_columns: tuple[str, ...] | None) -> Selection | None:
    if removed_columns is None:
        return None
    if base_selection.only is not None:
        return Selection(
            base_selection.frame, tuple(name for name in base_selection.only if name not in removed_columns)
        )
    return Selection(base_selection.frame, None, base_selection.without | set(removed_columns))


def _selection_of_subscript(node: ast.Subscript, inference: Inference, depth: int) -> Selection | None:
    value, key = node.value, node.slice
    if isinstance(value, ast.Attribute) and value.attr in ("loc", "iloc"):
        under = column_selection(value.value, inference, depth + 1)
        if under is None or (isinstance(key, ast.Tuple) and value.attr == "iloc"):
            return None
        if isinstance(key, ast.Tuple) and len(key.elts) == 2:
            names = string_list(key.elts[1], inference)
            whole = isinstance(key.elts[1], ast.Slice) and key.elts[1].lower is None and key.elts[1].upper is None
            return under if whole else Selection(under.frame, names) if names is not None else None
        return under
    under = column_selection(value, inference, depth + 1)
    if under is None:
        return None
    names = string_list(key, inference)
    if names is not None:
        return Selection(under.frame, names)
    rows = isinstance(key, ast.Compare | ast.Slice) or inference.kind(key) == "pandas.Series"
    return under if rows else None


def _selection_of_call(node: ast.Call, inference: Inference, depth: int) -> Selection | None:
    if inference.path(node.func) in _WRAPPERS and len(node.args) == 1 and not node.keywords:
        return column_selection(node.args[0], inference, depth + 1)
    if not isinstance(node.func, ast.Attribute):
        return None
    if node.func.attr == "drop":
        under = column_selection(node.func.value, inference, depth + 1)
        return _selection_without(under, dropped_columns(node, inference)) if under is not None else None
    if node.func.attr == "pop" and node.args:
        under = column_selection(node.func.value, inference, depth + 1)
        names = string_list(node.args[0], inference)
        return Selection(under.frame, names) if under is not None and names else None
    if node.func.attr in ("fit_transform", "transform") and len(node.args) in (1, 2):
        same = _COLUMNWISE.search(inference.kind(node.func.value))
        return column_selection(node.args[0], inference, depth + 1) if same else None
    return column_selection(node.func.value, inference, depth + 1) if node.func.attr in _PASS_THROUGH else None


def dropped_columns(call: ast.Call, inference: Inference) -> tuple[str, ...] | None:
    """The columns that `drop` removes; none for rows, None if unreadable."""
    for word in call.keywords:
        if word.arg == "columns":
            return string_list(word.value, inference)
    axis = next((word.value for word in call.keywords if word.arg == "axis"), None)
    if axis is None and len(call.args) > 1:
        axis = call.args[1]
    across = isinstance(axis, ast.Constant) and axis.value in (1, "columns")
    labels = call.args[0] if call.args else next((word.value for word in call.keywords if word.arg == "labels"), None)
    if not across or labels is None:
        return ()
    return string_list(labels, inference)


def string_list(node: ast.expr, inference: Inference) -> tuple[str, ...] | None:
    """Read a text or a list of texts, through a variable if need be."""
    if isinstance(node, ast.Constant):
        return (node.value,) if isinstance(node.value, str) else None
    if isinstance(node, ast.List | ast.Tuple):
        strings = [part.value for part in node.elts if isinstance(part, ast.Constant) and isinstance(part.value, str)]
        return tuple(strings) if len(strings) == len(node.elts) else None
    if isinstance(node, ast.Name):
        binding = inference.binding(node)
        if binding is not None and binding.value is not None and binding.position is None and not binding.changes:
            return string_list(binding.value, inference) if not isinstance(binding.value, ast.Name) else None
    return None
