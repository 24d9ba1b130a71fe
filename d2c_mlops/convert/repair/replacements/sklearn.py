"""Replacements for scikit-learn."""

from __future__ import annotations

import ast

from d2c_mlops.convert.meaning.roles import keyword
from d2c_mlops.convert.repair.fix_registry import parent_of, replaced, spelled
from d2c_mlops.convert.repair.replacement_registry import (
    call_of,
    inner,
    is_value,
    recalled,
    receiver,
    replacement,
    word_of,
)
from d2c_mlops.convert.source.finding import Edit
from d2c_mlops.convert.source.notebook import Cell


@replacement(r"sklearn\.preprocessing\.OneHotEncoder\|categorical_features")
def _some_columns(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """The encoded columns come first and the others behind, as a ColumnTransformer gives them."""
    call = call_of(cell, node)
    given = keyword(call, "categorical_features") if call is not None else None
    if call is None or given is None:
        return ()
    encoder = f"{spelled(cell, call.func)}({', '.join(inner(cell, call, 'categorical_features'))})"
    maker = "__import__('sklearn.compose', fromlist=['ColumnTransformer']).ColumnTransformer"
    parts = f"[('encoder', {encoder}, {spelled(cell, given)})]"
    return recalled(cell, call, maker, [parts, "remainder='passthrough'", "sparse_threshold=1.0"])


@replacement(r"sklearn\.metrics\.mean_squared(_log)?_error\|squared")
def _squared(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """`squared=False` is the root: `mean_squared_error(a, b) ** 0.5`, which needs no new import."""
    call = call_of(cell, node)
    if call is None or not is_value(word_of(call, "squared"), False):
        return ()
    rest = ", ".join(inner(cell, call, "squared"))
    text = f"{spelled(cell, call.func)}({rest}) ** 0.5"
    above = parent_of(cell, call)
    bare = isinstance(above, ast.Assign | ast.Call | ast.keyword | ast.Expr | ast.Return | ast.Tuple | ast.List)
    return (replaced(cell, call, text if bare else f"({text})"),)


@replacement(r"sklearn\..*\.get_feature_names")
def _feature_names(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """The old method gave a list."""
    call = call_of(cell, node)
    if call is None or not isinstance(call.func, ast.Attribute):
        return ()
    rest = ", ".join(inner(cell, call))
    return (replaced(cell, call, f"list({receiver(cell, call)}.get_feature_names_out({rest}))"),)


@replacement(r"sklearn\.linear_model\.LogisticRegression(CV)?\|multi_class")
def _multi_class(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """'multinomial' and 'auto' are what it does by itself; 'ovr' with liblinear too, for two classes any solver."""
    call = call_of(cell, node)
    word = word_of(call, "multi_class") if call is not None else None
    if call is None or word is None or not isinstance(word.value, ast.Constant):
        return ()
    return recalled(cell, call, spelled(cell, call.func), inner(cell, call, "multi_class"))


@replacement(r"sklearn\..*\|(n_values|eps|presort|iid|min_impurity_split|n_jobs|precompute_distances)")
def _dropped(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """Arguments that said how to compute, not what."""
    call = call_of(cell, node)
    if call is None:
        return ()
    gone = ("presort", "iid", "min_impurity_split", "n_jobs", "precompute_distances", "eps")
    if not any(word.arg in gone for word in call.keywords):
        return ()
    return recalled(cell, call, spelled(cell, call.func), inner(cell, call, *gone))


@replacement(r"sklearn\.linear_model\.\w+\|normalize")
def _normalize(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """Least squares do not change with the scale of their features; penalised models do and stay as they are."""
    call = call_of(cell, node)
    if call is None or spelled(cell, call.func).rpartition(".")[2] != "LinearRegression":
        return ()
    return recalled(cell, call, spelled(cell, call.func), inner(cell, call, "normalize"))


@replacement(r"sklearn\.linear_model\.LogisticRegression")
def _no_penalty(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    given = keyword(call, "penalty") if call is not None else None
    return (replaced(cell, given, "None"),) if isinstance(given, ast.Constant) and given.value == "none" else ()


@replacement(r"sklearn\.ensemble\.(RandomForest|ExtraTrees)Regressor")
def _all_features(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    given = keyword(call, "max_features") if call is not None else None
    return (replaced(cell, given, "1.0"),) if isinstance(given, ast.Constant) and given.value == "auto" else ()


@replacement(r"sklearn\.ensemble\.AdaBoostClassifier\|algorithm")
def _boost(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    return recalled(cell, call, spelled(cell, call.func), inner(cell, call, "algorithm")) if call else ()
