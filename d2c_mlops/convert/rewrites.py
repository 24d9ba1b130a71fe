"""Rewrite what a change took away and no single name stands for; looked up by the path of the change."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass

from d2c_mlops.convert.finding import Edit
from d2c_mlops.convert.mending import argument_added, parent_of, replaced, spelled
from d2c_mlops.convert.notebook import Cell
from d2c_mlops.convert.roles import keyword

Rewrite = Callable[[Cell, ast.Attribute | ast.Call], tuple[Edit, ...]]
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
class Rewriting:
    """One rewrite for the changes whose path matches."""

    pattern: re.Pattern[str]
    rewrite: Rewrite


_KNOWN: list[Rewriting] = []


def rewrite(pattern: str) -> Callable[[Rewrite], Rewrite]:
    """Register a function for changes whose path, and argument behind a `|`, match wholly."""

    def register(function: Rewrite) -> Rewrite:
        _KNOWN.append(Rewriting(re.compile(pattern), function))
        return function

    return register


def rewritten(path: str, cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """Return the edits of the first rewrite that knows the path; none where no rewrite does."""
    for one in _KNOWN:
        if one.pattern.fullmatch(path):
            edits = one.rewrite(cell, node)
            if edits:
                return edits
    return ()


def call_of(cell: Cell, node: ast.AST) -> ast.Call | None:
    """Return the call of an attribute: the node itself, or what calls it."""
    if isinstance(node, ast.Call):
        return node
    above = parent_of(cell, node)
    return above if isinstance(above, ast.Call) and above.func is node else None


def receiver(cell: Cell, call: ast.Call) -> str:
    """Return the text before the last dot of what is called."""
    return spelled(cell, call.func.value) if isinstance(call.func, ast.Attribute) else ""


def inner(cell: Cell, call: ast.Call, *without: str) -> list[str]:
    """Return the texts of a call's arguments, some keywords left out."""
    return [spelled(cell, one) for one in call.args] + [
        spelled(cell, word) for word in call.keywords if word.arg not in without
    ]


def word_of(call: ast.Call, name: str) -> ast.keyword | None:
    """Return a keyword argument of a call with its name."""
    return next((word for word in call.keywords if word.arg == name), None)


def recalled(cell: Cell, call: ast.Call, function: str, arguments: list[str]) -> tuple[Edit, ...]:
    """Replace a whole call."""
    return (replaced(cell, call, f"{function}({', '.join(arguments)})"),)


@rewrite(r"pandas\.(DataFrame|Series)\.append")
def _append(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """`a.append(b, ignore_index=True)` as `pd.concat([a, b], ignore_index=True)`; a dict becomes a row first."""
    call = call_of(cell, node)
    if call is None or not isinstance(call.func, ast.Attribute):
        return ()
    given = call.args[0] if call.args else keyword(call, "other")
    if given is None:
        return ()
    start, other = receiver(cell, call), spelled(cell, given)
    if isinstance(given, ast.Dict) or (isinstance(given, ast.Call) and spelled(cell, given.func) == "dict"):
        other = f"pd.DataFrame([{other}])"
    elif isinstance(given, ast.Call) and spelled(cell, given.func) in ("pd.Series", "Series"):
        other = f"{other}.to_frame().T"
    parts = f"[{start}, *{other}]" if isinstance(given, ast.ListComp) else f"[{start}, {other}]"
    if isinstance(given, ast.List):
        parts = f"[{start}, {other[1:-1].strip()}]"
    rest = inner(cell, ast.Call(call.func, [], call.keywords), "other", "verify_integrity")
    rest += [f"ignore_index={spelled(cell, call.args[1])}"] if len(call.args) > 1 else []
    return recalled(cell, call, "pd.concat", [parts, *rest])


@rewrite(r"pandas\.(DataFrame|Series)\.ix")
def _ix(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """`.ix[...]` by positions where all it holds are whole numbers, by labels otherwise."""
    above = parent_of(cell, node)
    if not isinstance(node, ast.Attribute) or not isinstance(above, ast.Subscript):
        return ()
    parts = above.slice.elts if isinstance(above.slice, ast.Tuple) else [above.slice]
    whole = all(_is_position(part) for part in parts) and len(parts) > 1
    end, line = node.end_col_offset or 0, node.end_lineno or 0
    return (Edit(cell.index, line, end - 2, line, end, "iloc" if whole else "loc"),)


def _is_position(node: ast.expr) -> bool:
    if isinstance(node, ast.Slice):
        return all(part is None or _is_position(part) for part in (node.lower, node.upper, node.step))
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    return isinstance(node, ast.Constant) and isinstance(node.value, int)


@rewrite(r"pandas\.(DataFrame|Series)\.(sum|mean|count|max|min|median)\|level")
def _level(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    word = word_of(call, "level") if call is not None else None
    if call is None or word is None or not isinstance(call.func, ast.Attribute):
        return ()
    start = f"{receiver(cell, call)}.groupby(level={spelled(cell, word.value)}).{call.func.attr}"
    return recalled(cell, call, start, inner(cell, call, "level", "axis"))


@rewrite(r"pandas\.(DataFrame|Series)\.mad")
def _mad(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    if call is None or call.args or call.keywords:
        return ()
    start = receiver(cell, call)
    return (replaced(cell, call, f"({start} - {start}.mean()).abs().mean()"),)


@rewrite(r"pandas\.DataFrame\.lookup")
def _lookup(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    if call is None or len(call.args) != 2:
        return ()
    start, (rows, columns) = receiver(cell, call), map(lambda one: spelled(cell, one), call.args)
    text = f"{start}.to_numpy()[{start}.index.get_indexer({rows}), {start}.columns.get_indexer({columns})]"
    return (replaced(cell, call, text),)


@rewrite(r"pandas\.(DataFrame|Series)\.(fillna|replace)\|method")
def _fill_method(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """`fillna(method='ffill')` as `ffill()`."""
    call = call_of(cell, node)
    method = keyword(call, "method") if call is not None else None
    if call is None or not isinstance(method, ast.Constant) or call.args:
        return ()
    name = {"ffill": "ffill", "pad": "ffill", "bfill": "bfill", "backfill": "bfill"}.get(str(method.value))
    if name is None or not isinstance(call.func, ast.Attribute) or call.func.attr != "fillna":
        return ()
    return recalled(cell, call, f"{receiver(cell, call)}.{name}", inner(cell, call, "method", "value"))


@rewrite(r"pandas\.(DataFrame|Series)\.(interpolate|pct_change)")
def _filled_first(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    if call is None or not isinstance(call.func, ast.Attribute):
        return ()
    word = "method" if call.func.attr == "interpolate" else "fill_method"
    given = keyword(call, word) or (call.args[0] if call.args and word == "method" else None)
    if not isinstance(given, ast.Constant):
        return ()
    name = {"ffill": "ffill", "pad": "ffill", "bfill": "bfill", "backfill": "bfill"}.get(str(given.value))
    if name is None:
        return ()
    rest = [spelled(cell, one) for one in call.keywords if one.arg != word]
    behind = f".pct_change({', '.join([*map(lambda one: spelled(cell, one), call.args), *rest])})"
    return (replaced(cell, call, f"{receiver(cell, call)}.{name}()" + (behind if word == "fill_method" else "")),)


@rewrite(r"pandas\.read_(csv|table)\|(error_bad_lines|warn_bad_lines|squeeze|prefix|delim_whitespace)")
def _read_csv(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    if call is None:
        return ()
    words = {word.arg: word for word in call.keywords if word.arg}
    old = ("error_bad_lines", "warn_bad_lines", "squeeze", "prefix", "delim_whitespace")
    arguments = inner(cell, call, *old)
    behind = ""
    if _is(words.get("error_bad_lines"), False) and "on_bad_lines" not in words:
        arguments.append("on_bad_lines='skip'")
    if _is(words.get("delim_whitespace"), True):
        arguments.append(r"sep=r'\s+'")
    if _is(words.get("squeeze"), True):
        behind = ".squeeze('columns')"
    if "prefix" in words and not _is(words["prefix"], None):
        behind = f".add_prefix({spelled(cell, words['prefix'].value)})"
    return (replaced(cell, call, f"{spelled(cell, call.func)}({', '.join(arguments)}){behind}"),)


def _is(word: ast.keyword | None, value: object) -> bool:
    return word is not None and isinstance(word.value, ast.Constant) and word.value.value is value


@rewrite(r"pandas\.(DataFrame|Series)\.astype")
def _astype(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """Casts to units that pandas no longer keeps."""
    call = call_of(cell, node)
    given = (call.args[0] if call.args else keyword(call, "dtype")) if call is not None else None
    if call is None or not isinstance(given, ast.Constant):
        return ()
    start, text = receiver(cell, call), str(given.value)
    if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.BinOp) and not start.startswith("("):
        start = f"({start})"
    seconds = {"h": 3600, "m": 60, "W": 604800, "M": 2629746, "Y": 31556952}
    unit = text[-2:-1]
    if text == "timedelta64[D]":
        return (replaced(cell, call, f"{start}.dt.days.astype(float)"),)
    if text.startswith("timedelta64[") and unit in seconds:
        return (replaced(cell, call, f"({start}.dt.total_seconds() // {seconds[unit]})"),)
    if text == "datetime64[D]":
        return (replaced(cell, call, f"{start}.dt.normalize()"),)
    if text in ("datetime64[M]", "datetime64[Y]"):
        return (replaced(cell, call, f"{start}.dt.to_period('{unit}').dt.to_timestamp()"),)
    if text in ("datetime64", "timedelta64"):
        return (replaced(cell, given, f"'{text}[ns]'"),)
    return ()


@rewrite(r"pandas\.(DataFrame|Series)\.resample\|(how|fill_method)")
def _resample(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    if call is None:
        return ()
    how = keyword(call, "how") or keyword(call, "fill_method")
    rest = ", ".join(inner(cell, call, "how", "fill_method"))
    name = (
        f".{how.value}()"
        if isinstance(how, ast.Constant) and isinstance(how.value, str)
        else f".agg({spelled(cell, how)})"
        if how
        else ""
    )
    return (replaced(cell, call, f"{spelled(cell, call.func)}({rest}){name}"),) if how else ()


@rewrite(r"pandas\.(Index|DatetimeIndex|Series\.dt)\.(week|weekofyear)")
def _week(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    if not isinstance(node, ast.Attribute):
        return ()
    end, line = node.end_col_offset or 0, node.end_lineno or 0
    return (Edit(cell.index, line, end - len(node.attr), line, end, "isocalendar().week"),)


@rewrite(r"pandas\.(DatetimeIndex|Series\.dt)\.weekday_name")
def _weekday_name(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    if not isinstance(node, ast.Attribute):
        return ()
    end, line = node.end_col_offset or 0, node.end_lineno or 0
    return (Edit(cell.index, line, end - len(node.attr), line, end, "day_name()"),)


@rewrite(r"pandas\.rolling_(mean|std|sum|var|median|min|max)")
def _rolling(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    if call is None or not call.args or not isinstance(call.func, ast.Attribute):
        return ()
    window = call.args[1] if len(call.args) > 1 else keyword(call, "window")
    if window is None:
        return ()
    rest = [spelled(cell, window)] + [spelled(cell, w) for w in call.keywords if w.arg != "window"]
    name = call.func.attr.removeprefix("rolling_")
    return (replaced(cell, call, f"{spelled(cell, call.args[0])}.rolling({', '.join(rest)}).{name}()"),)


@rewrite(r"pandas\.ewma")
def _ewma(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    if call is None or not call.args:
        return ()
    rest = ", ".join(
        [*(f"com={spelled(cell, one)}" for one in call.args[1:2]), *map(lambda w: spelled(cell, w), call.keywords)]
    )
    return (replaced(cell, call, f"{spelled(cell, call.args[0])}.ewm({rest}).mean()"),)


@rewrite(r"pandas\.value_counts")
def _counts(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    if call is None or not call.args:
        return ()
    rest = ", ".join(spelled(cell, word) for word in call.keywords)
    return (replaced(cell, call, f"pd.Series({spelled(cell, call.args[0])}).value_counts({rest})"),)


@rewrite(r"pandas\.datetime(\..*)?")
def _datetime(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    return (replaced(cell, node, "__import__('datetime').datetime"),) if isinstance(node, ast.Attribute) else ()


@rewrite(r"pandas\.(Int64|Float64|UInt64)Index")
def _index(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    if call is None or not isinstance(call.func, ast.Attribute) or keyword(call, "dtype") is not None:
        return ()
    kind = call.func.attr.removesuffix("Index").lower()
    return recalled(cell, call, f"{receiver(cell, call)}.Index", [*inner(cell, call), f"dtype='{kind}'"])


@rewrite(r"pandas\.TimeGrouper")
def _time_groups(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """Its first argument was the frequency; that of Grouper is a key."""
    call = call_of(cell, node)
    if call is None or not isinstance(call.func, ast.Attribute):
        return ()
    arguments = inner(cell, call)
    first = [f"freq={arguments[0]}"] if call.args else arguments[:1]
    return recalled(cell, call, f"{receiver(cell, call)}.Grouper", first + arguments[1:])


@rewrite(r"pandas\.DataFrame\.sort")
def _sort(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    if call is None:
        return ()
    words = [
        f"by={spelled(cell, word.value)}" if word.arg in ("columns", "column") else spelled(cell, word)
        for word in call.keywords
    ]
    named = [f"{name}={spelled(cell, one)}" for name, one in zip(("by", "ascending"), call.args, strict=False)]
    by = any(word.startswith("by=") for word in [*named, *words])
    return recalled(cell, call, f"{receiver(cell, call)}.sort_{'values' if by else 'index'}", named + words)


@rewrite(r"pandas\.(DataFrame|Series)\.(get|set)_value")
def _one_value(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    if call is None or not isinstance(call.func, ast.Attribute) or call.keywords:
        return ()
    setting = call.func.attr == "set_value"
    parts = [spelled(cell, one) for one in call.args]
    above = parent_of(cell, call)
    if len(parts) < 1 + setting or (setting and not isinstance(above, ast.Expr)):
        return ()
    where = parts[:-1] if setting else parts
    text = f"{receiver(cell, call)}.at[{', '.join(where)}]"
    return (replaced(cell, call, f"{text} = {parts[-1]}" if setting else text),)


@rewrite(r"pandas\.(DataFrame|Series)\.from_csv")
def _from_csv(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """Its first column was an index of dates; a Series had no names unless `header=0`."""
    call = call_of(cell, node)
    if call is None or not isinstance(call.func, ast.Attribute):
        return ()
    series = spelled(cell, call.func.value).endswith("Series")
    given = {word.arg for word in call.keywords}
    more = ["index_col=0"] if "index_col" not in given else []
    more += ["parse_dates=[0]"] if "parse_dates" not in given else []
    more += ["header=None"] if series and "header" not in given else []
    text = f"pd.read_csv({', '.join([*inner(cell, call, 'infer_datetime_format'), *more])})"
    return (replaced(cell, call, text + (".squeeze('columns')" if series else "")),)


@rewrite(r"matplotlib\.(pyplot\.)?cm\.get_cmap")
def _colours(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    if not isinstance(node, ast.Attribute):
        return ()
    start = spelled(cell, node.value)
    plots = start.removesuffix(".cm") if start.endswith(".cm") and start.count(".") == 1 else ""
    text = f"{plots}.get_cmap" if plots else "__import__('matplotlib.pyplot', fromlist=['get_cmap']).get_cmap"
    return (replaced(cell, node, text),)


@rewrite(r"sklearn\.preprocessing\.OneHotEncoder\|categorical_features")
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


@rewrite(r"pandas\.np")
def _pandas_numpy(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    return (replaced(cell, node, "__import__('numpy')"),) if isinstance(node, ast.Attribute) else ()


@rewrite(r"pandas\.tools\.plotting|pandas\.tools")
def _tools(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    if isinstance(node, ast.Attribute) and node.attr == "tools":
        above = parent_of(cell, node)
        if isinstance(above, ast.Attribute) and above.attr == "plotting":
            return (replaced(cell, above, f"{spelled(cell, node.value)}.plotting"),)
        return (replaced(cell, node, spelled(cell, node.value)),)
    return ()


@rewrite(r"numpy\.(NINF|NZERO|asscalar|asfarray|msort|cast)")
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


@rewrite(r"sklearn\.metrics\.mean_squared(_log)?_error\|squared")
def _squared(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """`squared=False` is the root: `mean_squared_error(a, b) ** 0.5`, which needs no new import."""
    call = call_of(cell, node)
    if call is None or not _is(word_of(call, "squared"), False):
        return ()
    rest = ", ".join(inner(cell, call, "squared"))
    text = f"{spelled(cell, call.func)}({rest}) ** 0.5"
    above = parent_of(cell, call)
    bare = isinstance(above, ast.Assign | ast.Call | ast.keyword | ast.Expr | ast.Return | ast.Tuple | ast.List)
    return (replaced(cell, call, text if bare else f"({text})"),)


@rewrite(r"sklearn\..*\.get_feature_names")
def _feature_names(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """The old method gave a list."""
    call = call_of(cell, node)
    if call is None or not isinstance(call.func, ast.Attribute):
        return ()
    rest = ", ".join(inner(cell, call))
    return (replaced(cell, call, f"list({receiver(cell, call)}.get_feature_names_out({rest}))"),)


@rewrite(r"sklearn\.linear_model\.LogisticRegression(CV)?\|multi_class")
def _multi_class(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """'multinomial' and 'auto' are what it does by itself; 'ovr' with liblinear too, for two classes any solver."""
    call = call_of(cell, node)
    word = word_of(call, "multi_class") if call is not None else None
    if call is None or word is None or not isinstance(word.value, ast.Constant):
        return ()
    return recalled(cell, call, spelled(cell, call.func), inner(cell, call, "multi_class"))


@rewrite(r"sklearn\..*\|(n_values|eps|presort|iid|min_impurity_split|n_jobs|precompute_distances)")
def _dropped(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """Arguments that said how to compute, not what."""
    call = call_of(cell, node)
    if call is None:
        return ()
    gone = ("presort", "iid", "min_impurity_split", "n_jobs", "precompute_distances", "eps")
    if not any(word.arg in gone for word in call.keywords):
        return ()
    return recalled(cell, call, spelled(cell, call.func), inner(cell, call, *gone))


@rewrite(r"sklearn\.linear_model\.\w+\|normalize")
def _normalize(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """Least squares do not change with the scale of their features; penalised models do and stay as they are."""
    call = call_of(cell, node)
    if call is None or spelled(cell, call.func).rpartition(".")[2] != "LinearRegression":
        return ()
    return recalled(cell, call, spelled(cell, call.func), inner(cell, call, "normalize"))


@rewrite(r"sklearn\.linear_model\.LogisticRegression")
def _no_penalty(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    given = keyword(call, "penalty") if call is not None else None
    return (replaced(cell, given, "None"),) if isinstance(given, ast.Constant) and given.value == "none" else ()


@rewrite(r"sklearn\.ensemble\.(RandomForest|ExtraTrees)Regressor")
def _all_features(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    given = keyword(call, "max_features") if call is not None else None
    return (replaced(cell, given, "1.0"),) if isinstance(given, ast.Constant) and given.value == "auto" else ()


@rewrite(r"sklearn\.ensemble\.AdaBoostClassifier\|algorithm")
def _boost(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    return recalled(cell, call, spelled(cell, call.func), inner(cell, call, "algorithm")) if call else ()


@rewrite(r"seaborn\.distplot")
def _distplot(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """A histogram with a density, as distplot drew it; without its `kde=False` the scale is the density."""
    call = call_of(cell, node)
    if call is None or any(word.arg is None for word in call.keywords):
        return ()
    words = {word.arg: word.value for word in call.keywords}
    hist, kde = words.get("hist"), words.get("kde")
    start = spelled(cell, call.func).removesuffix("distplot")
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
    arguments = [spelled(cell, words["a"])] if "a" in words else []
    arguments += [spelled(cell, one) for one in call.args[:1]]
    arguments += [f"bins={spelled(cell, one)}" for one in call.args[1:2]]
    arguments += [spelled(cell, word) for word in call.keywords if word.arg not in old]
    if isinstance(hist, ast.Constant) and hist.value is False:
        return (replaced(cell, call, f"{start}kdeplot({', '.join(one for one in arguments if 'bins=' not in one)})"),)
    if not (isinstance(kde, ast.Constant) and kde.value is False):
        arguments += ["kde=True", "stat='density'"]
    return (replaced(cell, call, f"{start}histplot({', '.join(arguments)})"),)


@rewrite(r"seaborn\.factorplot")
def _factorplot(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """catplot, which draws strips where factorplot drew points."""
    call = call_of(cell, node)
    if call is None:
        return ()
    words = [spelled(cell, w) if w.arg != "size" else f"height={spelled(cell, w.value)}" for w in call.keywords]
    if keyword(call, "kind") is None:
        words.append("kind='point'")
    named = [f"{name}={spelled(cell, one)}" for name, one in zip(("x", "y", "hue", "data"), call.args, strict=False)]
    return recalled(cell, call, spelled(cell, call.func).removesuffix("factorplot") + "catplot", named + words)


@rewrite(r"seaborn\.tsplot")
def _tsplot(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    if call is None or len(call.args) != 1 or call.keywords:
        return ()
    return recalled(cell, call, spelled(cell, call.func).removesuffix("tsplot") + "lineplot", inner(cell, call))


@rewrite(r"matplotlib\.pyplot\.(hold|plot_date)")
def _pyplot(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    if call is None or not isinstance(call.func, ast.Attribute):
        return ()
    if call.func.attr == "hold":
        return (replaced(cell, call, "None"),)
    marked = [] if len(call.args) > 2 or keyword(call, "fmt") else ["'o'"]
    parts = (
        [spelled(cell, one) for one in call.args]
        + marked
        + [spelled(cell, word) for word in call.keywords if word.arg not in ("xdate", "ydate", "tz", "fmt")]
    )
    return recalled(cell, call, f"{receiver(cell, call)}.plot", parts)


@rewrite(r"matplotlib\.figure\.Figure\.gca\|projection")
def _projection(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    return recalled(cell, call, f"{receiver(cell, call)}.add_subplot", inner(cell, call)) if call else ()


@rewrite(r"(tensorflow\.)?keras\..*\|decay")
def _decay(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    return recalled(cell, call, spelled(cell, call.func), inner(cell, call, "decay")) if call else ()


@rewrite(r"(tensorflow\.)?keras\..*\.predict_classes")
def _classes(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    if call is None:
        return ()
    start = f"{receiver(cell, call)}.predict({', '.join(inner(cell, call))})"
    text = f"(lambda made: made.argmax(axis=-1) if made.shape[-1] > 1 else (made > 0.5).astype('int32'))({start})"
    return (replaced(cell, call, text),)


@rewrite(r"xgboost\.XGB\w+\.fit\|\w+")
def _boosters(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    """Arguments of fit that moved to the constructor are set there by set_params."""
    call = call_of(cell, node)
    if call is None:
        return ()
    moved = [spelled(cell, w) for w in call.keywords if w.arg in ("early_stopping_rounds", "eval_metric", "callbacks")]
    rest = inner(cell, call, "early_stopping_rounds", "eval_metric", "callbacks")
    return recalled(cell, call, f"{receiver(cell, call)}.set_params({', '.join(moved)}).fit", rest) if moved else ()


@rewrite(r"lightgbm\.(LGBM\w+\.fit|train)\|\w+")
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


@rewrite(r"statsmodels\.tsa\.stattools\.grangercausalitytests\|verbose")
def _granger(cell: Cell, node: ast.Attribute | ast.Call) -> tuple[Edit, ...]:
    call = call_of(cell, node)
    return recalled(cell, call, spelled(cell, call.func), inner(cell, call, "verbose")) if call else ()


def numeric_only(cell: Cell, call: ast.Call) -> tuple[Edit, ...]:
    """Leave columns of text out, as pandas did by itself."""
    return () if keyword(call, "numeric_only") is not None else (argument_added(cell, call, "numeric_only=True"),)
