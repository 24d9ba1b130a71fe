"""Replacements for scikit-learn."""

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


@register_replacement(r"sklearn\.preprocessing\.OneHotEncoder\|categorical_features")
def _replace_categorical_features(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """The encoded columns come first and the others after them, as in a ColumnTransformer."""
    call = attribute_call(cell, node)
    argument = keyword_value(call, "categorical_features") if call is not None else None
    if call is None or argument is None:
        return ()
    encoder = f"{source_text(cell, call.func)}({', '.join(argument_texts(cell, call, 'categorical_features'))})"
    maker = "__import__('sklearn.compose', fromlist=['ColumnTransformer']).ColumnTransformer"
    parts = f"[('encoder', {encoder}, {source_text(cell, argument)})]"
    return replace_call(cell, call, maker, [parts, "remainder='passthrough'", "sparse_threshold=1.0"])


@register_replacement(r"sklearn\.metrics\.mean_squared(_log)?_error\|squared")
def _replace_squared(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """`squared=False` is the root: `mean_squared_error(a, b) ** 0.5`, which needs no new import."""
    call = attribute_call(cell, node)
    if call is None or not is_constant_keyword(keyword_with_name(call, "squared"), False):
        return ()
    arguments = ", ".join(argument_texts(cell, call, "squared"))
    text = f"{source_text(cell, call.func)}({arguments}) ** 0.5"
    above = parent_node(cell, call)
    bare = isinstance(above, ast.Assign | ast.Call | ast.keyword | ast.Expr | ast.Return | ast.Tuple | ast.List)
    return (replace_node_edit(cell, call, text if bare else f"({text})"),)


@register_replacement(r"sklearn\..*\.get_feature_names")
def _replace_get_feature_names(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """The old method gave a list."""
    call = attribute_call(cell, node)
    if call is None or not isinstance(call.func, ast.Attribute):
        return ()
    arguments = ", ".join(argument_texts(cell, call))
    return (replace_node_edit(cell, call, f"list({receiver_text(cell, call)}.get_feature_names_out({arguments}))"),)


@register_replacement(r"sklearn\.linear_model\.LogisticRegression(CV)?\|multi_class")
def _replace_multi_class(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """'multinomial' and 'auto' are the default; 'ovr' is the default of liblinear, and of any solver for two classes."""
    call = attribute_call(cell, node)
    word = keyword_with_name(call, "multi_class") if call is not None else None
    if call is None or word is None or not isinstance(word.value, ast.Constant):
        return ()
    return replace_call(cell, call, source_text(cell, call.func), argument_texts(cell, call, "multi_class"))


@register_replacement(r"sklearn\..*\|(n_values|eps|presort|iid|min_impurity_split|n_jobs|precompute_distances)")
def _drop_removed_arguments(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """Removed arguments that affected only the speed."""
    call = attribute_call(cell, node)
    if call is None:
        return ()
    gone = ("presort", "iid", "min_impurity_split", "n_jobs", "precompute_distances", "eps")
    if not any(word.arg in gone for word in call.keywords):
        return ()
    return replace_call(cell, call, source_text(cell, call.func), argument_texts(cell, call, *gone))


@register_replacement(r"sklearn\.linear_model\.\w+\|normalize")
def _replace_normalize(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """Least squares do not change with the scale of their features; penalised models do and stay as they are."""
    call = attribute_call(cell, node)
    if call is None or source_text(cell, call.func).rpartition(".")[2] != "LinearRegression":
        return ()
    return replace_call(cell, call, source_text(cell, call.func), argument_texts(cell, call, "normalize"))


@register_replacement(r"sklearn\.linear_model\.LogisticRegression")
def _replace_penalty_none(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = attribute_call(cell, node)
    argument = keyword_value(call, "penalty") if call is not None else None
    return (
        (replace_node_edit(cell, argument, "None"),)
        if isinstance(argument, ast.Constant) and argument.value == "none"
        else ()
    )


@register_replacement(r"sklearn\.ensemble\.(RandomForest|ExtraTrees)Regressor")
def _replace_max_features_auto(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = attribute_call(cell, node)
    argument = keyword_value(call, "max_features") if call is not None else None
    return (
        (replace_node_edit(cell, argument, "1.0"),)
        if isinstance(argument, ast.Constant) and argument.value == "auto"
        else ()
    )


@register_replacement(r"sklearn\.ensemble\.AdaBoostClassifier\|algorithm")
def _replace_adaboost_algorithm(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = attribute_call(cell, node)
    return (
        replace_call(cell, call, source_text(cell, call.func), argument_texts(cell, call, "algorithm")) if call else ()
    )
