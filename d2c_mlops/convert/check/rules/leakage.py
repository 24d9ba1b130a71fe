"""Rules about data leakage: why a score is better here than in production."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from d2c_mlops.convert.check.rule import Subject, make_hit, make_rule_example, rule
from d2c_mlops.convert.meaning.api_signatures import is_wrapper
from d2c_mlops.convert.meaning.column_selection import column_selection
from d2c_mlops.convert.meaning.inference import Binding
from d2c_mlops.convert.meaning.roles import METRICS, Fit, keyword_value
from d2c_mlops.convert.source.finding import Hit, Severity
from d2c_mlops.convert.source.notebook import Cell
from d2c_mlops.convert.source.scopes import base_name

_SPLIT = re.compile(r"\.train_test_split$")
_HARMLESS = re.compile(
    r"\.(?:LabelEncoder|LabelBinarizer|FunctionTransformer|MultiLabelBinarizer|TSNE|MDS|Isomap|Normalizer|Binarizer)$"
)
_SUPERVISED = re.compile(r"\.(?:SelectKBest|SelectPercentile|RFE|RFECV|SelectFromModel|TargetEncoder)$")
_UNLABELLED = re.compile(r"silhouette|davies|calinski|pairwise|adjusted_rand|homogeneity|v_measure")
_START = (
    "import pandas as pd\nfrom sklearn.model_selection import train_test_split\n"
    "from sklearn.preprocessing import StandardScaler\nfrom sklearn.linear_model import LogisticRegression\n"
    "from sklearn.metrics import accuracy_score\ndf = pd.read_csv('churn.csv')\n"
)
_XY = "X = df.drop(columns=['churn'])\ny = df['churn']\n"
_PARTS = "X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=1)\n"


def _split_calls(subject: Subject) -> Iterator[tuple[Cell, ast.Call]]:
    for cell, call, path in subject.calls:
        if _SPLIT.search(path) and call.args:
            yield cell, call


def _comes_after(first: Fit, cell: Cell, call: ast.Call) -> bool:
    return (first.cell, first.line) < (cell.index, call.lineno)


def _fed_split(subject: Subject, fit: Fit) -> Cell | None:
    """Return the cell of the first later split that uses the result of a fit."""
    later = [(cell, call) for cell, call in _split_calls(subject) if _comes_after(fit, cell, call)]
    if not later or fit.call is None:
        return None
    fitted_bindings = {id(binding) for binding in subject.inference.bindings if _contains_fit(binding, fit)}
    return next((cell for cell, call in later if _feeds_fit(subject, fit, call, fitted_bindings)), None)


def _feeds_fit(subject: Subject, fit: Fit, split: ast.Call, fitted_bindings: set[int]) -> bool:
    for part in split.args:
        if any(node is fit.call for node in ast.walk(part)):
            return True
        for name in (node for node in ast.walk(part) if isinstance(node, ast.Name)):
            binding = subject.inference.binding(name)
            if binding is not None and any(id(ancestor) in fitted_bindings for ancestor in binding.ancestors()):
                return True
    return False


def _contains_fit(binding: Binding, fit: Fit) -> bool:
    """A binding whose value contains the fit itself, or a later transform by the same estimator."""
    if binding.value is None or fit.call is None:
        return False
    for node in ast.walk(binding.value):
        if node is fit.call:
            return fit.method != "fit"
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "transform"
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == fit.name
            and (binding.cell, node.lineno) >= (fit.cell, fit.line)
        ):
            return True
    return False


@rule(
    "D2C701",
    "fitted-before-the-split",
    "warning",
    why="the scaler, imputer or selector was fitted on the test rows, so the score is too optimistic",
    fix="split first and fit on the training rows only; a Pipeline does this automatically",
    bad=make_rule_example(
        _START + _XY + "X = StandardScaler().fit_transform(X)\n" + _PARTS,
    ),
    good=make_rule_example(
        _START + _XY + _PARTS + "scaler = StandardScaler()\nX_train = scaler.fit_transform(X_train)",
    ),
)
def fitted_before_the_split(subject: Subject) -> Iterator[Hit]:
    for fit in subject.structure.fits:
        if fit.kind != "transformer" or _HARMLESS.search(fit.path):
            continue
        cell = _fed_split(subject, fit)
        if cell is not None:
            message = f"`{fit.path.rpartition('.')[2]}` is fitted on all rows; the split comes in cell {cell.number}"
            severity: Severity | None = "error" if _SUPERVISED.search(fit.path) else None
            yield Hit(fit.cell, fit.line, fit.column, message, severity=severity)


@rule(
    "D2C702",
    "resampled-before-the-split",
    "error",
    why="copies of the same row are in both the training and the test set, so the score is too optimistic",
    fix="split first and resample the training rows only",
    bad=make_rule_example(
        _START
        + _XY
        + "from imblearn.over_sampling import SMOTE\nX, y = SMOTE(random_state=1).fit_resample(X, y)\n"
        + _PARTS,
    ),
    good=make_rule_example(
        _START
        + _XY
        + _PARTS
        + "from imblearn.over_sampling import SMOTE\nX_train, y_train = SMOTE(random_state=1).fit_resample(X_train, y_train)",
    ),
)
def resampled_before_the_split(subject: Subject) -> Iterator[Hit]:
    for fit in subject.structure.fits:
        if fit.kind == "sampler" and fit.path.startswith("imblearn.over_sampling"):
            cell = _fed_split(subject, fit)
            if cell is not None:
                yield Hit(fit.cell, fit.line, fit.column, f"rows are resampled before the split in cell {cell.number}")


@rule(
    "D2C703",
    "target-among-features",
    "error",
    why="the model sees the target during training and scores near perfect, but the target is not available in production",
    fix="drop the target from the features",
    bad=make_rule_example(
        _START + "y = df['churn']\nX = df.drop(columns=['id'])\n" + _PARTS,
    ),
    good=make_rule_example(_START + _XY + _PARTS),
)
def target_among_features(subject: Subject) -> Iterator[Hit]:
    fits = [(cell, call, call.args[0], call.args[1]) for cell, call in _split_calls(subject) if len(call.args) > 1]
    for fit in subject.structure.models:
        if fit.call is not None and fit.kind == "model" and len(fit.call.args) > 1:
            cell = next(cell for cell in subject.notebook.code if cell.index == fit.cell)
            if not fit.path.startswith("statsmodels."):
                fits.append((cell, fit.call, fit.call.args[0], fit.call.args[1]))
    reported: set[str] = set()
    for cell, call, features, target in fits:
        target_column, feature_columns = (
            column_selection(target, subject.inference),
            column_selection(features, subject.inference),
        )
        if (
            target_column is None
            or feature_columns is None
            or target_column.only is None
            or len(target_column.only) != 1
        ):
            continue
        column = target_column.only[0]
        same = target_column.frame is feature_columns.frame and feature_columns.frame.value is not None
        if same and feature_columns.holds(column) and column not in reported:
            reported.add(column)
            yield make_hit(cell, call, f"the target `{column}` is still among the features `{ast.unparse(features)}`")


@rule(
    "D2C704",
    "scored-on-training-rows",
    "warning",
    why="the model is scored on its training rows; the score says nothing about new rows",
    fix="score on rows that were not used for the fit, or use cross-validation",
    bad=make_rule_example(
        _START + _XY + "model = LogisticRegression().fit(X, y)\nprint(accuracy_score(y, model.predict(X)))",
    ),
    good=make_rule_example(
        _START
        + _XY
        + _PARTS
        + "model = LogisticRegression().fit(X_train, y_train)\n"
        + "print(model.score(X_train, y_train), accuracy_score(y_test, model.predict(X_test)))",
    ),
)
def scored_on_training_rows(subject: Subject) -> Iterator[Hit]:
    taught = {
        (fit.features, fit.target)
        for fit in subject.structure.models
        if fit.kind == "model" and fit.target and not is_wrapper(fit.path)
    }
    targets, features = {target for _, target in taught}, {feature for feature, _ in taught}
    first: tuple[Cell, ast.Call, str] | None = None
    for cell, call, path in subject.calls:
        text = ""
        if METRICS.match(path) and not _UNLABELLED.search(path) and len(call.args) > 1:
            text = ast.unparse(call.args[0])
            honest = text not in targets
        elif isinstance(call.func, ast.Attribute) and call.func.attr in ("score", "evaluate") and len(call.args) > 1:
            text = ast.unparse(call.args[1])
            honest = ast.unparse(call.args[0]) not in features or text not in targets
        elif ".cross_val" in path:
            return
        else:
            continue
        if honest:
            return
        first = first or (cell, call, text)
    if first is not None:
        cell, call, text = first
        yield make_hit(
            cell,
            call,
            f"`{ast.unparse(call)[:70]}` scores the training rows; no other rows are scored",
        )


@rule(
    "D2C705",
    "shuffled-in-time",
    "warning",
    why="the model is trained on later days and tested on earlier ones; in production the future is not available",
    fix="split by date: train before a cutoff, test after it (shuffle=False on rows sorted by time)",
    bad=make_rule_example(
        _START + "df['date'] = pd.to_datetime(df['date'])\ntrain, test = train_test_split(df, random_state=1)",
    ),
    good=make_rule_example(
        _START
        + "df['date'] = pd.to_datetime(df['date'])\ntrain, test = train_test_split(df.sort_values('date'), shuffle=False)",
    ),
)
def shuffled_in_time(subject: Subject) -> Iterator[Hit]:
    for cell, call in _split_calls(subject):
        shuffle = keyword_value(call, "shuffle")
        if isinstance(shuffle, ast.Constant) and not shuffle.value:
            continue
        name = base_name(call.args[0])
        binding = subject.inference.binding(name) if name is not None else None
        if binding is not None and _is_dated(subject, binding):
            yield make_hit(cell, call, f"`{name.id if name else ''}` has dates, and the split shuffles its rows")


def _is_dated(subject: Subject, binding: Binding) -> bool:
    """Whether rows keep a date up to here: a date column set, and no grouping, merging or choice of columns since."""
    ancestor: Binding | None = binding
    while ancestor is not None:
        if ancestor.changes is None:
            value = ancestor.value
            dated = isinstance(value, ast.Call) and subject.inference.path(value.func) == "pandas.read_csv"
            parse = keyword_value(value, "parse_dates") if isinstance(value, ast.Call) else None
            return bool(dated and isinstance(parse, ast.List | ast.Tuple) and parse.elts)
        if ancestor.column is not None and isinstance(ancestor.value, ast.Call):
            if subject.inference.path(ancestor.value.func) == "pandas.to_datetime":
                return True
        elif ancestor.column is None:
            return False
        ancestor = ancestor.changes
    return False
