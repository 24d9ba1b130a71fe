"""Replacements for removed APIs that need more than another name; looked up by the path of the change."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

from d2c_mlops.convert.repair.fix_registry import parent_node, replace_node_edit, source_text
from d2c_mlops.convert.source.finding import Edit
from d2c_mlops.convert.source.notebook import Cell

REPLACEMENTS_PACKAGE = "d2c_mlops.convert.repair.replacements"
Replace = Callable[[Cell, ast.Attribute | ast.Call], tuple[Edit, ...]]
IMPORTED: dict[str, tuple[str, str]] = {  # path that is gone: what to import, what to write where it is used
    **{
        f"sklearn.metrics.{old}": (f"sklearn.metrics.{new}", f"{new}.from_estimator")
        for old, new in {
            "plot_confusion_matrix": "ConfusionMatrixDisplay",
            "plot_roc_curve": "RocCurveDisplay",
            "plot_precision_recall_curve": "PrecisionRecallDisplay",
            "plot_det_curve": "DetCurveDisplay",
        }.items()
    },
    "sklearn.inspection.plot_partial_dependence": (
        "sklearn.inspection.PartialDependenceDisplay",
        "PartialDependenceDisplay.from_estimator",
    ),
    "sklearn.preprocessing.Imputer": ("sklearn.impute.SimpleImputer", "SimpleImputer"),
    "sklearn.lda.LDA": ("sklearn.discriminant_analysis.LinearDiscriminantAnalysis", "LinearDiscriminantAnalysis"),
    "sklearn.qda.QDA": (
        "sklearn.discriminant_analysis.QuadraticDiscriminantAnalysis",
        "QuadraticDiscriminantAnalysis",
    ),
    "sklearn.mixture.GMM": ("sklearn.mixture.GaussianMixture", "GaussianMixture"),
    "sklearn.metrics.jaccard_similarity_score": ("sklearn.metrics.accuracy_score", "accuracy_score"),
    "statsmodels.tsa.arima_model.ARIMA": ("statsmodels.tsa.arima.model.ARIMA", "ARIMA"),
    "statsmodels.tsa.arima_model.ARIMAResults": ("statsmodels.tsa.arima.model.ARIMAResults", "ARIMAResults"),
    "statsmodels.tsa.arima_model.ARMA": ("statsmodels.tsa.arima.model.ARIMA", "ARIMA"),
    "statsmodels.tsa.ar_model.AR": ("statsmodels.tsa.ar_model.AutoReg", "AutoReg"),
    **{
        f"statsmodels.formula.api.{name}": (f"statsmodels.api.{name}", name)
        for name in ("OLS", "GLS", "WLS", "GLM", "Logit", "Probit", "Poisson")
    },
    **{
        f"pandas.tools.plotting.{n}": (f"pandas.plotting.{n}", n)
        for n in (
            "scatter_matrix",
            "autocorrelation_plot",
            "parallel_coordinates",
            "andrews_curves",
            "lag_plot",
            "radviz",
            "bootstrap_plot",
            "table",
        )
    },
    "keras.utils.np_utils": ("keras.utils", "utils"),
    "keras.wrappers.scikit_learn.KerasClassifier": ("scikeras.wrappers.KerasClassifier", "KerasClassifier"),
    "keras.wrappers.scikit_learn.KerasRegressor": ("scikeras.wrappers.KerasRegressor", "KerasRegressor"),
    "tensorflow.keras.wrappers.scikit_learn.KerasClassifier": ("scikeras.wrappers.KerasClassifier", "KerasClassifier"),
    "tensorflow.keras.wrappers.scikit_learn.KerasRegressor": ("scikeras.wrappers.KerasRegressor", "KerasRegressor"),
    "tensorflow.set_random_seed": ("tensorflow.random.set_seed", "set_seed"),
    "pandas.datetime": ("datetime.datetime", "datetime"),
    "keras.utils.vis_utils.plot_model": ("keras.utils.plot_model", "plot_model"),
    "scipy.misc.factorial": ("scipy.special.factorial", "factorial"),
    "scipy.stats.median_absolute_deviation": ("scipy.stats.median_abs_deviation", "median_abs_deviation"),
    "matplotlib.dates.epoch2num": ("matplotlib.dates.date2num", "date2num"),
}


@dataclass(frozen=True)
class Replacement:
    """A replacement for the API changes whose path matches."""

    pattern: re.Pattern[str]
    replacement: Replace


_REPLACEMENTS: list[Replacement] = []


def register_replacement(pattern: str) -> Callable[[Replace], Replace]:
    """Register a replacement for the changes whose path, and argument after a `|`, match fully."""

    def register(function: Replace) -> Replace:
        _REPLACEMENTS.append(Replacement(re.compile(pattern), function))
        return function

    return register


@cache
def _all_replacements() -> list[Replacement]:
    """Return the replacements of all modules in convert/repair/replacements."""
    package = importlib.import_module(REPLACEMENTS_PACKAGE)
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{REPLACEMENTS_PACKAGE}.{module.name}")
    return _REPLACEMENTS


def replacement_edits(path: str, cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """Return the edits of the first replacement that matches the path; none if no replacement matches."""
    for replacement in _all_replacements():
        if replacement.pattern.fullmatch(path):
            edits = replacement.replacement(cell, node)
            if edits:
                return edits
    return ()


def attribute_call(cell: Cell, node: ast.AST) -> ast.Call | None:
    """Return the call of an attribute: the node itself or its parent."""
    if isinstance(node, ast.Call):
        return node
    above = parent_node(cell, node)
    return above if isinstance(above, ast.Call) and above.func is node else None


def receiver_text(cell: Cell, call: ast.Call) -> str:
    """Return the text before the last dot of a called function."""
    return source_text(cell, call.func.value) if isinstance(call.func, ast.Attribute) else ""


def argument_texts(cell: Cell, call: ast.Call, *without: str) -> list[str]:
    """Return the texts of a call's arguments without some keywords."""
    return [source_text(cell, argument) for argument in call.args] + [
        source_text(cell, word) for word in call.keywords if word.arg not in without
    ]


def keyword_with_name(call: ast.Call, name: str) -> ast.keyword | None:
    """Return a keyword argument of a call with its name."""
    return next((word for word in call.keywords if word.arg == name), None)


def replace_call(cell: Cell, call: ast.Call, function: str, arguments: list[str]) -> tuple[Edit, ...]:
    """Replace a whole call."""
    return (replace_node_edit(cell, call, f"{function}({', '.join(arguments)})"),)


def is_constant_keyword(word: ast.keyword | None, value: object) -> bool:
    """Whether a keyword argument is this constant."""
    return word is not None and isinstance(word.value, ast.Constant) and word.value.value is value
