"""Name steps: from the author's headings and comments, else from what the code does."""

from __future__ import annotations

import ast
import itertools
import keyword
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from d2c_mlops.convert.meaning.api_signatures import is_clusterer, is_model, is_transformer
from d2c_mlops.convert.meaning.inference import Inference
from d2c_mlops.convert.source.statements import Statement

_VERBS = frozenset(
    "add adjust aggregate append apply assign bin build calculate change check choose clean cluster collect combine compare "  # noqa: SIM905
    "compute concatenate convert correct count create decompose define derive describe detect difference divide drop encode "
    "engineer estimate evaluate exclude explore extract fill filter find fit fix flag forecast format generate get group identify impute "
    "initialize join keep label load log make map mark measure merge model normalize one pick pivot predict prepare rank read "
    "recode reduce remove rename replace resample rescale reshape round sample scale score select separate set shift sort "
    "split standardize sum take test train transform tune update use".split()
) - {"one", "use", "get", "set", "test", "define", "model", "check", "log"}
_SMALL = frozenset(
    "the a an of our its this that these those all some into for to from in on by with and as is are".split()  # noqa: SIM905
)
_READ = 2000  # characters of a comment in which a verb is looked for
_KEPT = frozenset("on by from with into to and for in".split())  # noqa: SIM905
_VAGUE = frozenset(
    "df data dataset dataframe frame raw x y df1 df2 df0 temp tmp data0 d ds tbl table values value res result results".split()  # noqa: SIM905
)
_ACRONYMS = {"xgb": "xgboost", "lgbm": "lightgbm", "k_means": "kmeans", "svc": "svm", "svr": "svm", "pca": "pca"}


def snake_case(text: str) -> str:
    """Return a text as a Python name in lower case."""
    text = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", text)
    text = re.sub(r"\W+", "_", text).strip("_").lower()
    text = re.sub(r"__+", "_", text)
    if not text or text[0].isdigit() or keyword.iskeyword(text):
        text = f"n_{text}" if text and text[0].isdigit() else f"{text}_" if text else ""
    return text if text.isascii() else ""


def name_from_command(text: str) -> str:
    """Return the author's words as a name when they begin with a verb and are short; else an empty text."""
    text = re.sub(r"<[^<>]+>|https?://\S+|\([^()]*\)|[`*_#]", " ", text[:_READ])
    text = re.split(
        r"[.:;,\n!?]|\s[-=]+\s|--+|\bso that\b|\bbecause\b|\bwhich\b", text.strip(" -=#\t").replace("'s", "")
    )[0]
    words = [word for word in re.findall(r"[A-Za-z][A-Za-z0-9]*|\d+", re.sub(r"^\W*\d+[.)]?\s*", "", text))]
    while words and words[0].lower() in (
        "lets",
        "let",
        "now",
        "we",
        "i",
        "will",
        "us",
        "then",
        "next",
        "first",
        "finally",
        "here",
    ):
        words = words[1:]
    if not words:
        return ""
    first = base_verb(words[0].lower())
    if not first:
        return ""
    later_words = [word.lower() for word in words[1:]]
    while later_words and later_words[-1] in _SMALL:
        later_words.pop()
    main_words = [word for word in later_words if word not in _SMALL or word in _KEPT]
    while main_words and main_words[-1] in _SMALL:
        main_words.pop()
    if len(main_words) > 5:
        short = list(itertools.takewhile(lambda word: word not in (*_KEPT, "and", "of"), later_words))
        main_words = [word for word in short if word not in _SMALL]
    return snake_case("_".join([first, *main_words])) if 1 <= len(main_words) <= 5 else ""


def base_verb(word: str) -> str:
    """Return `remove` for removing or removes; an empty text if the word is not a verb for steps."""
    stem = word[:-3] if word.endswith("ing") else word[:-1] if word.endswith("s") else word
    doubled = stem[:-1] if len(stem) > 3 and stem[-1] == stem[-2] else stem
    return next((verb for verb in (word, stem, stem + "e", doubled) if verb in _VERBS), "")


def estimator_name(path: str) -> str:
    """Return `random_forest` for sklearn.ensemble.RandomForestClassifier."""
    last = snake_case(path.rpartition(".")[2])
    last = re.sub(r"_(classifier|regressor|results|result|wrapper|cv)$", "", last)
    for short, full in _ACRONYMS.items():
        last = re.sub(rf"^{short}$|^{short}(?=_)", full, last)
    return last or "model"


def first_descriptive_name(names: Iterable[str]) -> str:
    """Return the first descriptive name, in snake case."""
    for name in names:
        if (topic_word := snake_case(name)) and topic_word not in _VAGUE and len(topic_word) > 1:
            return topic_word
    return ""


def step_name(
    group: Sequence[Statement],
    role: str,
    outputs: Sequence[str],
    heading: str,
    inference: Inference,
    project: str,
    ignore_comments: bool = False,  # whether the author's comments are left out
) -> str:
    """Return a name for a group of statements."""
    comments = [line.comment for line in group if line.comment and not ignore_comments]
    spoken = name_from_command(comments[0]) if comments else ""
    if len(outputs) > 1 and all(_HALVES.match(name) for name in outputs) and not spoken.startswith("split"):
        spoken = ""
    if (columns := _selection_name(group, outputs)) == "select_features_and_target":
        return columns
    if spoken and (role not in ("load", "fit", "split") or len(group) < 8) and len(spoken) <= 48:
        return spoken
    if _splits_rows(group, role, outputs, inference):
        return "split_train_test"
    role_name = _name_by_role(group, role, outputs, inference, project)
    if role_name:
        return role_name
    if spoken := name_from_command(heading):
        return spoken
    if columns := _selection_name(group, outputs):
        return columns
    noun = first_descriptive_name(outputs)
    verb = "prepare" if role in ("prepare", "constant", "load") and not _outputs_are_new(group, outputs) else "compute"
    return f"{verb}_{noun or 'table' if verb == 'prepare' else noun or 'result'}"


_FEATURES, _TARGETS = (
    re.compile(r"^(x\d?|features?|predictors?|x_data)$"),
    re.compile(r"^(y\d?|target|labels?|y_data|outcome)$"),
)
_PREDICTED = re.compile(r"(?i)pred|forecast|prob|y_?hat|fitted")
_HALVES = re.compile(r"(?i)^(.*_)?(train|test|valid|validation)(_.*)?$")


def _splits_rows(group: Sequence[Statement], role: str, outputs: Sequence[str], inference: Inference) -> bool:
    """Whether a step only splits rows into training and test rows."""
    sides = {match[2].lower()[:4] for name in outputs if (match := _HALVES.match(name))}
    fits = any(isinstance(node, ast.Attribute) and "fit" in node.attr for line in group for node in ast.walk(line.node))
    return role == "prepare" and len(sides) > 1 and all(_HALVES.match(name) for name in outputs) and not fits


def _selection_name(group: Sequence[Statement], outputs: Sequence[str]) -> str:
    """Names for steps that only take parts: features and target, or the rows to train and to test on."""
    plain = all(isinstance(line.node, ast.Assign) for line in group)
    small = [name.lower() for name in outputs]
    if not plain or not small:
        return ""
    if len(small) > 1 and all(_HALVES.match(name) for name in small):
        return "split_train_test"
    kinds = {"features" if _FEATURES.match(name) else "target" if _TARGETS.match(name) else "" for name in small}
    if "" in kinds:
        return ""
    return "select_features_and_target" if len(kinds) == 2 else f"select_{kinds.pop()}"


def _outputs_are_new(group: Sequence[Statement], outputs: Sequence[str]) -> bool:
    before = {name for line in group for name in line.facts.reads}
    return not (set(outputs) & before)


def _name_by_role(
    group: Sequence[Statement], role: str, outputs: Sequence[str], inference: Inference, project: str
) -> str:
    calls = [node for plan_line in group for node in ast.walk(plan_line.node) if isinstance(node, ast.Call)]
    paths = [inference.path(call.func) for call in calls]
    methods = [call.func.attr if isinstance(call.func, ast.Attribute) else "" for call in calls]
    if role == "load":
        return f"load_{first_descriptive_name(outputs) or _name_from_file(calls) or project}"
    if role == "split":
        return "split_train_test" if not any("fold" in path.lower() for path in paths) else "split_folds"
    if role == "fit":
        decomposed = any(path.endswith("seasonal_decompose") for path in paths)
        noun = "decompose_seasonality" if decomposed else _fit_name(calls, inference)
        return re.sub(r"^fit_(?!model$)", "compare_", noun) if _fits_in_loop(group) else noun
    metric = next(
        (p.rpartition(".")[2] for p in paths if p.startswith(("sklearn.metrics.", "statsmodels.tools.eval"))), ""
    )
    if role == "evaluate" or (role == "predict" and metric and not any(_PREDICTED.search(name) for name in outputs)):
        noun = snake_case(metric).removesuffix("_score")
        return (
            f"measure_{noun}" if noun else "cross_validate" if any("cross_val" in p for p in paths) else "measure_score"
        )
    for curve in ("confusion_matrix", "roc_curve", "precision_recall_curve"):
        if role == "predict" and curve in {path.rpartition(".")[2] for path in paths}:
            return f"measure_{curve}"
    if role == "predict":
        verb = "forecast" if {"forecast", "get_forecast", "make_future_dataframe"} & set(methods) else "predict"
        what = first_descriptive_name(
            re.sub(r"^(y_)?(pred(iction|icted|s|ictions)?|forecast)_?|_?(y_)?pred(s|ictions)?$", "", name)
            for name in outputs
        )
        if (columns := _assigned_columns(group)) and len(columns) == 1 and verb == "predict":
            return f"predict_{columns[0]}"
        held_back = any(_HALVES.match(name) for line in group for name in line.facts.reads)
        return f"{verb}_{what}" if what else "predict_test" if held_back and verb == "predict" else f"{verb}_values"
    for words, name in _RULES:
        if any(method in words for method in methods) or any(path.rpartition(".")[2] in words for path in paths):
            if name.endswith("_"):
                noun = first_descriptive_name(outputs)
                return name + noun if noun else name + "table"
            return name
    if any(isinstance(node, ast.Attribute) and node.attr == "codes" for line in group for node in ast.walk(line.node)):
        return "encode_categories"
    if any(isinstance(t, ast.Attribute) and t.attr == "columns" for s in group for t in getattr(s.node, "targets", [])):
        return "rename_columns"
    columns = _assigned_columns(group)
    if columns and len(columns) <= 2:
        return f"derive_{'_and_'.join(columns)}"
    if dropped := _dropped_columns(calls):
        return f"drop_{'_and_'.join(dropped)}"
    for words, name in _LAST_RULES if not _outputs_are_new(group, outputs) else ():
        if any(method in words for method in methods):
            return name
    return ""


def _fits_in_loop(group: Sequence[Statement]) -> bool:
    """Whether a model is fitted in a loop to compare settings."""
    loops = (part for line in group for part in ast.walk(line.node) if isinstance(part, ast.For))
    return any(
        isinstance(node, ast.Attribute) and node.attr.startswith("fit") for loop in loops for node in ast.walk(loop)
    )


def _assigned_columns(group: Sequence[Statement]) -> list[str]:
    """The columns that `df["column"] = ...` sets, where the steps set nothing else."""
    columns: list[str] = []
    for line in group:
        for target in getattr(line.node, "targets", []):
            key = target.slice if isinstance(target, ast.Subscript) else None
            if not (isinstance(key, ast.Constant) and isinstance(key.value, str) and snake_case(key.value)):
                return []
            columns.append(re.sub(r"^n_(?=\d)", "", snake_case(key.value)))
    return list(dict.fromkeys(columns)) if all(len(name) <= 24 for name in columns) else []


def _dropped_columns(calls: Sequence[ast.Call]) -> list[str]:
    """The one or two columns that `df.drop("a", axis=1)` or `df.drop(columns=["a", "b"])` removes, if this is all the step does."""
    columns: list[str] = []
    for call in calls:
        if not isinstance(call.func, ast.Attribute) or call.func.attr != "drop":
            continue
        words = {word.arg: word.value for word in call.keywords}
        axis = words.get("axis") or (call.args[1] if len(call.args) > 1 else None)
        by_axis = isinstance(axis, ast.Constant) and axis.value in (1, "columns")
        label_node = words.get("columns") or (call.args[0] if call.args and by_axis else words.get("labels"))
        parts = label_node.elts if isinstance(label_node, ast.List | ast.Tuple) else [label_node]
        names = [
            snake_case(part.value) if isinstance(part, ast.Constant) and isinstance(part.value, str) else ""
            for part in parts
        ]
        if not all(names):
            return []
        columns += names
    return columns if 1 <= len(columns) <= 2 and all(len(name) <= 24 for name in columns) else []


_LAST_RULES: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"astype"}), "cast_columns"),
    (frozenset({"replace", "map"}), "recode_columns"),
    (frozenset({"reindex"}), "choose_columns"),
    (frozenset({"drop"}), "drop_columns"),
    (frozenset({"sort_values", "sort_index"}), "sort_rows"),
)

_RULES: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"fit_resample", "fit_sample"}), "balance_classes"),
    (frozenset({"PCA", "TruncatedSVD", "TSNE", "FactorAnalysis"}), "reduce_dimensions"),
    (frozenset({"StandardScaler", "MinMaxScaler", "RobustScaler", "MaxAbsScaler", "Normalizer", "PowerTransformer"}), "scale_features"),
    (frozenset({"get_dummies", "LabelEncoder", "OrdinalEncoder", "OneHotEncoder", "LabelBinarizer"}), "encode_categories"),
    (frozenset({"SimpleImputer", "KNNImputer"}), "fill_missing_values"),
    (frozenset({"apriori", "fpgrowth"}), "find_frequent_itemsets"),
    (frozenset({"association_rules"}), "find_association_rules"),
    (frozenset({"seasonal_decompose"}), "decompose_seasonality"),
    (frozenset({"merge", "join"}), "merge_"),
    (frozenset({"pivot_table", "pivot", "unstack", "crosstab"}), "pivot_"),
    (frozenset({"groupby", "resample"}), "aggregate_"),
    (frozenset({"codes"}), "encode_categories"),
    (frozenset({"fillna", "interpolate", "ffill", "bfill"}), "fill_missing_values"),
    (frozenset({"drop_duplicates"}), "drop_duplicates"),
    (frozenset({"dropna"}), "drop_missing_values"),
    (frozenset({"to_datetime"}), "parse_dates"),
    (frozenset({"qcut", "cut"}), "bin_"),
    (frozenset({"corr"}), "correlate_columns"),
    (frozenset({"rename"}), "rename_columns"),
)  # fmt: skip


def _fit_name(calls: Sequence[ast.Call], inference: Inference) -> str:
    fitted = []
    for call in calls:
        if isinstance(call.func, ast.Attribute) and call.func.attr.startswith(("fit", "partial_fit", "train")):
            kind = inference.kind(call.func.value)
            if is_model(kind) or is_clusterer(kind) or is_transformer(kind):
                fitted.append(kind)
    models = [path for path in fitted if not is_transformer(path)] or fitted
    built = [inference.path(call.func) for call in calls]
    verb = "fit" if models else "build"
    models = models or [path for path in built if is_model(path)]
    names = list(dict.fromkeys(estimator_name(path) for path in models))
    if not names:
        return "fit_model"
    return (
        f"{verb}_{names[0]}"
        if len(names) == 1
        else f"{verb}_{names[0]}_and_{names[1]}"
        if len(names) == 2
        else f"{verb}_models"
    )


def _name_from_file(calls: Sequence[ast.Call]) -> str:
    for call in calls:
        for path_node in call.args[:1]:
            if isinstance(path_node, ast.Constant) and isinstance(path_node.value, str):
                return snake_case(PurePosixPath(path_node.value.replace("\\", "/")).stem)[:40]
    return ""


SENTENCES = {
    "split_train_test": "Split into training and test rows",
    "scale_features": "Scale the features",
    "encode_categories": "Encode the categories as numbers",
    "fill_missing_values": "Fill in missing values",
    "drop_missing_values": "Drop rows with missing values",
    "balance_classes": "Balance the classes by resampling",
    "reduce_dimensions": "Reduce the features to fewer dimensions",
    "rename_columns": "Rename the columns",
    "choose_columns": "Select columns",
    "cast_columns": "Convert the types of the columns",
    "parse_dates": "Parse the dates",
    "decompose_seasonality": "Decompose trend and season",
    "measure_confusion_matrix": "Compute the confusion matrix",
    "select_features_and_target": "Select the features and the target",
    "select_features": "Select the features",
    "select_target": "Select the target",
    "measure_roc_curve": "Compute the ROC curve",
    "measure_precision_recall_curve": "Compute precision and recall",
    "predict_values": "Predict for the given rows",
    "predict_test": "Predict for the held-out rows",
}


def distinguishing_words(heading: str) -> str:
    """Return the distinctive words of a heading, as a name."""
    short_name = re.sub(
        r"^(model|part|step|section|exercise|chapter|case)?_?(n_)?\d*_?", "", snake_case(re.sub(r"[`*#]", "", heading))
    )
    return short_name if len(short_name) <= 24 else ""


def unique_name(name: str, used_names: set[str], hints: Iterable[str]) -> str:
    """Return an unused name, made unique by a hint or else by a number."""
    name = name[:60].strip("_") or "compute_result"
    if name not in used_names:
        return name
    for hint in hints:
        noun = snake_case(hint)
        verb, *nouns = name.split("_")
        whole = f"{verb}_{noun}" if nouns and set(nouns) < set(noun.split("_")) else f"{name}_{noun}"
        if noun and noun not in name and len(noun) <= 30 and whole not in used_names:
            return whole
    number = 2
    while f"{name}_{number}" in used_names:
        number += 1
    return f"{name}_{number}"
