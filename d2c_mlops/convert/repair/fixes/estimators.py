"""Fixes of estimators whose classes, names and outputs changed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from d2c_mlops.convert.meaning.roles import keyword_value
from d2c_mlops.convert.repair.fix_registry import (
    CellFailure,
    Proposal,
    RepairContext,
    add_argument_edit,
    fix_after_failure,
    fix_before_run,
    last_name,
    replace_node_edit,
    source_text,
)
from d2c_mlops.convert.repair.replacement_registry import argument_texts, replace_call


@fix_before_run(
    "old-imputer",
    "scikit-learn",
    "0.22",
    "Imputer was replaced by SimpleImputer, which works on columns",
    order=4,
)
def old_imputer(context: RepairContext) -> Iterator[Proposal]:
    """`Imputer(missing_values='NaN', axis=0)` as SimpleImputer, whose columns are axis 0."""
    names = {
        alias.asname or alias.name
        for _, node in context.nodes(ast.ImportFrom)
        if (node.module or "").startswith("sklearn.preprocessing")
        for alias in node.names
        if alias.name == "Imputer"
    }
    for cell, call in context.nodes(ast.Call):
        if last_name(call.func) not in names:
            continue
        arguments = [
            f"{word.arg}=float('nan')"
            if word.arg == "missing_values" and _is_nan(word.value)
            else source_text(cell, word)
            for word in call.keywords
            if word.arg not in ("axis", "verbose", "copy")
        ]
        first = [
            "missing_values=float('nan')" if _is_nan(argument) else source_text(cell, argument)
            for argument in call.args[:2]
        ]
        start = "SimpleImputer" if isinstance(call.func, ast.Name) else source_text(cell, call.func)
        if isinstance(call.func, ast.Name) and call.func.id != "Imputer":
            start = call.func.id
        if len(first) > 1:
            first[1] = f"strategy={first[1]}"
        yield Proposal(
            replace_call(cell, call, start, first + arguments),
            "Imputer was replaced by SimpleImputer, which works on columns",
        )


def _is_nan(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and node.value == "NaN"


@fix_before_run("old-boosting", "scikit-learn", "0.22", "class names changed together with their imports", order=4)
def old_mixture(context: RepairContext) -> Iterator[Proposal]:
    """`LDA`, `QDA` and `GMM` under their full names, where they were imported by the short ones."""
    names = {"LDA": "LinearDiscriminantAnalysis", "QDA": "QuadraticDiscriminantAnalysis", "GMM": "GaussianMixture"}
    modules = {"sklearn.lda": "LDA", "sklearn.qda": "QDA", "sklearn.mixture": "GMM"}
    bound = {
        alias.name
        for _, node in context.nodes(ast.ImportFrom)
        if node.module in modules
        for alias in node.names
        if alias.name == modules[node.module or ""] and alias.asname is None
    }
    for cell, node in context.nodes(ast.Name):
        if node.id in bound and isinstance(node.ctx, ast.Load):
            yield Proposal(
                (replace_node_edit(cell, node, names[node.id]),), f"`{node.id}` was renamed to {names[node.id]}"
            )


@fix_after_failure("feature-names", "scikit-learn", "1.2", "get_feature_names was removed", order=14)
def feature_names(context: RepairContext, failure: CellFailure) -> Proposal | None:
    if failure.name != "get_feature_names":
        return None
    from d2c_mlops.convert.repair.replacement_registry import replacement_edits

    for cell, node in context.failing(failure, ast.Attribute):
        if node.attr == "get_feature_names" and (edits := replacement_edits("sklearn.x.get_feature_names", cell, node)):
            return Proposal(
                edits, "get_feature_names() was replaced by get_feature_names_out(), which returns an array"
            )
    return None


@fix_after_failure("two-dimensions", "scikit-learn", "0.19", "a single column must be passed as a table", order=40)
def two_dimensions(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """A Series where a table is required: the array of one column."""
    if not failure.says("Expected 2D array, got 1D array", "Expected a 2-dimensional container but got"):
        return None
    for cell, call in context.failing(failure, ast.Call):
        if (
            last_name(call.func) not in ("fit", "transform", "fit_transform", "predict", "inverse_transform")
            or not call.args
        ):
            continue
        first = call.args[0]
        text = source_text(cell, first)
        kind = context.kinds([text]).get(text, "")
        new = (
            f"{text}.to_frame()"
            if kind == "pandas.Series"
            else f"{text}.reshape(-1, 1)"
            if kind == "numpy.ndarray"
            else ""
        )
        if new:
            return Proposal((replace_node_edit(cell, first, new),), "a single column must be passed as a table")
    return None


@fix_after_failure("names-are-text", "scikit-learn", "1.2", "feature names must all be strings", order=40)
def text_names(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """Frames whose column names are partly numbers: the names become texts."""
    if not failure.says("Feature names are only supported if all input features have string names"):
        return None
    for cell, call in context.failing(failure, ast.Call):
        if (
            last_name(call.func)
            in ("fit", "transform", "fit_transform", "predict", "score", "fit_predict", "predict_proba")
            and call.args
        ):
            text = source_text(cell, call.args[0])
            return Proposal(
                (replace_node_edit(cell, call.args[0], f"{text}.rename(columns=str)"),),
                "feature names must all be strings",
            )
    return None


@fix_after_failure(
    "solver", "scikit-learn", "1.6", "the solver does not support the penalty or the number of classes", order=40
)
def liblinear_solver(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`penalty='l1'` was possible with the former default solver, liblinear."""
    if not failure.says(
        "supports only 'l2' or None penalties", "supports only 'l2' or 'none' penalties", "got l1 penalty"
    ):
        return None
    for cell, call in context.nearest(failure, ast.Call):
        if (
            last_name(call.func) in ("LogisticRegression", "LogisticRegressionCV")
            and keyword_value(call, "solver") is None
        ):
            penalty = keyword_value(call, "penalty")
            if isinstance(penalty, ast.Constant) and penalty.value == "l1":
                return Proposal(
                    (add_argument_edit(cell, call, "solver='liblinear'"),), "liblinear was the former default solver"
                )
    return None


@fix_after_failure("loaded-data", "scikit-learn", "1.2", "the data set was removed", order=40)
def gone_parameter(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """An estimator's parameter with a removed value, which the error names: its new value."""
    match = re.search(r"The '(\w+)' parameter of (\w+) must be .*Got '(\w+)' instead", failure.message, re.DOTALL)
    new_values = {
        ("criterion", "mse"): "'squared_error'", ("criterion", "mae"): "'absolute_error'", ("loss", "ls"): "'squared_error'",
        ("loss", "deviance"): "'log_loss'", ("loss", "log"): "'log_loss'", ("max_features", "auto"): "'sqrt'",
        ("algorithm", "auto"): "'lloyd'", ("algorithm", "full"): "'lloyd'", ("algorithm", "SAMME.R"): "'SAMME'",
        ("penalty", "none"): "None", ("loss", "lad"): "'absolute_error'", ("affinity", "euclidean"): "'euclidean'",
    }  # fmt: skip
    if match is None or (match[1], match[3]) not in new_values:
        return None
    new = new_values[match[1], match[3]]
    if match[1] == "max_features" and match[2].endswith("Regressor"):
        new = "1.0"
    edits = []
    for cell, word in context.nodes(ast.keyword):
        if word.arg and word.arg.rpartition("__")[2] == match[1]:
            edits += [
                replace_node_edit(cell, node, new)
                for node in ast.walk(word.value)
                if isinstance(node, ast.Constant) and node.value == match[3]
            ]
    for cell, table in context.nodes(ast.Dict):
        for key, value in zip(table.keys, table.values, strict=True):
            if isinstance(key, ast.Constant) and str(key.value).rpartition("__")[2] == match[1]:
                edits += [
                    replace_node_edit(cell, part, new)
                    for part in ast.walk(value)
                    if isinstance(part, ast.Constant) and part.value == match[3]
                ]
    return (
        Proposal(tuple(edits), f"{match[2]} expects {new} instead of {match[1]}={match[3]!r}", restart=True)
        if edits
        else None
    )


@fix_after_failure(
    "seed-without-shuffle", "scikit-learn", "0.24", "random_state without shuffle=True is an error", order=40
)
def seed_without_shuffle(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """`KFold(random_state=0)` without `shuffle=True`: the seed never had an effect."""
    if not failure.says("Setting a random_state has no effect since shuffle is False"):
        return None
    for cell, call in context.failing(failure, ast.Call):
        if keyword_value(call, "random_state") is not None:
            edits = replace_call(cell, call, source_text(cell, call.func), argument_texts(cell, call, "random_state"))
            return Proposal(edits, "random_state has no effect without shuffle=True")
    return None
