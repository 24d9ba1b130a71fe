"""Rules about random numbers without a seed and reads of the clock."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from d2c_mlops.convert.check.rule import Subject, make_hit, make_rule_example, rule
from d2c_mlops.convert.meaning.roles import keyword_value
from d2c_mlops.convert.source.finding import Hit
from d2c_mlops.convert.source.notebook import Cell

_RANDOM_ESTIMATORS = re.compile(
    r"^sklearn\.(?:cluster\.(?:KMeans|MiniBatchKMeans|BisectingKMeans)|mixture\.\w*GaussianMixture|"
    r"ensemble\.(?:RandomForest|ExtraTrees|Bagging|AdaBoost|GradientBoosting|IsolationForest|HistGradientBoosting)\w*|"
    r"tree\.(?:DecisionTree|ExtraTree)\w*|neural_network\.MLP\w+|manifold\.TSNE|"
    r"linear_model\.(?:SGDClassifier|SGDRegressor|Perceptron))$|^imblearn\.over_sampling\.\w+|"
    r"^imblearn\.under_sampling\.RandomUnderSampler|^kmodes\.\w+\.\w+$"
)
_TIES = re.compile(r"\.(?:DecisionTree|GradientBoosting|HistGradientBoosting|AdaBoost)\w*$")  # chance decides ties only
_SPLIT = re.compile(r"\.train_test_split$")
_SHUFFLED = re.compile(r"^sklearn\.(?:model_selection|cross_validation)\.(?:\w*ShuffleSplit|RandomizedSearchCV)$")
_FOLDS = re.compile(r"^sklearn\.model_selection\.(?:Stratified)?KFold$")
_DRAWS = re.compile(
    r"^numpy\.random\.(?!seed$|default_rng$|RandomState$|Generator$|SeedSequence$|get_state$|set_state$)[a-z]\w*$|"
    r"^random\.(?:random|randint|choice|choices|sample|shuffle|uniform|gauss|randrange)$|"
    r"^numpy\.random\.default_rng$|^numpy\.random\.RandomState$"
)
_SAMPLES = frozenset({"pandas.DataFrame.sample", "pandas.Series.sample"})
_SEEDS = re.compile(
    r"^(?:numpy\.random\.seed|random\.seed|tensorflow\.(?:random\.)?set_(?:random_)?seed|keras\.utils\.set_random_seed)$"
)
_SEED_LINE = re.compile(r"(?<!\w)(?:random\.seed|set_random_seed|random\.set_seed|manual_seed|set_seed)\s*\(")
_NOW = re.compile(
    r"^(?:datetime\.(?:datetime\.)?(?:datetime\.)?(?:now|today|utcnow)|datetime\.date\.today|pandas\.(?:Timestamp|datetime)\.(?:now|today|utcnow)|"
    r"time\.(?:strftime|localtime|gmtime))$"
)


def _is_seeded(subject: Subject) -> bool:
    """NumPy's global seed is what scikit-learn falls back on."""
    return any(_SEEDS.match(path) for _, _, path in subject.calls)


def _has_seed(call: ast.Call, name: str) -> bool:
    """Whether a seed is named, or may hide in `**settings`."""
    value = keyword_value(call, name)
    open_ended = any(word.arg is None for word in call.keywords)
    return open_ended or (value is not None and not (isinstance(value, ast.Constant) and value.value is None))


@rule(
    "D2C601",
    "unseeded-estimator",
    "warning",
    why="two runs on the same data give different models, so a real change cannot be distinguished from randomness",
    fix="say random_state=...",
    bad=make_rule_example(
        "from sklearn.model_selection import train_test_split\na, b = train_test_split([1, 2, 3])",
    ),
    good=make_rule_example(
        "from sklearn.model_selection import train_test_split\na, b = train_test_split([1, 2, 3], random_state=7)",
        "c, d = train_test_split([1, 2, 3], shuffle=False)",
    ),
)
def unseeded_estimator(subject: Subject) -> Iterator[Hit]:
    if _is_seeded(subject):
        return
    for cell, call, path in subject.calls:
        name = path.rpartition(".")[2]
        shuffle = keyword_value(call, "shuffle")
        shuffled = isinstance(shuffle, ast.Constant) and bool(shuffle.value)
        unshuffled = isinstance(shuffle, ast.Constant) and not shuffle.value
        asks = bool(_RANDOM_ESTIMATORS.match(path) or _SHUFFLED.match(path))
        asks = asks or (bool(_SPLIT.search(path)) and not unshuffled) or (bool(_FOLDS.match(path)) and shuffled)
        if asks and not _has_seed(call, "random_state"):
            yield make_hit(
                cell, call, f"`{name}` without random_state", severity="info" if _TIES.search(path) else None
            )


@rule(
    "D2C602",
    "unseeded-draw",
    "warning",
    why="the random numbers, and all results that use them, differ in every run",
    fix="draw from np.random.default_rng(seed), or pass random_state=...",
    bad=make_rule_example("import numpy as np\nnoise = np.random.normal(size=3)"),
    good=make_rule_example("import numpy as np\nrng = np.random.default_rng(7)\nnoise = rng.normal(size=3)"),
)
def unseeded_draw(subject: Subject) -> Iterator[Hit]:
    seeded = {"numpy": False, "random": False}
    for cell, call, path in subject.calls:
        if _SEEDS.match(path):
            seeded["numpy" if path.startswith("numpy") else "random"] = True
        elif _DRAWS.match(path):
            maker = path.endswith((".default_rng", ".RandomState"))
            library = "numpy" if path.startswith("numpy") else "random"
            if (maker and not call.args and not call.keywords) or (not maker and not seeded[library]):
                yield make_hit(cell, call, f"`{ast.unparse(call.func)}` without a seed")
        elif path in _SAMPLES and not (seeded["numpy"] or _has_seed(call, "random_state") or _is_shown(cell, call)):
            yield make_hit(cell, call, f"`{ast.unparse(call.func)[:60]}` without random_state")


def _is_shown(cell: Cell, call: ast.Call) -> bool:
    """A sample that is only looked at changes nothing."""
    statements = cell.tree.body if cell.tree else []
    return any(isinstance(statement, ast.Expr) and statement.value is call for statement in statements)


@rule(
    "D2C603",
    "clock-in-logic",
    "warning",
    why="the same data give another result tomorrow, and a past day cannot be recomputed",
    fix="pass the day as a parameter: as_of",
    bad=make_rule_example("from datetime import datetime\nage = (datetime.now() - birthday).days"),
    good=make_rule_example("from datetime import datetime\nstart = datetime.now()\nprint(datetime.now() - start)"),
)
def clock_in_logic(subject: Subject) -> Iterator[Hit]:
    for cell in subject.notebook.code:
        for statement in cell.tree.body if cell.tree else ():
            for call in (node for node in ast.walk(statement) if isinstance(node, ast.Call)):
                path = subject.inference.path(call.func)
                texts = call.args[:1]
                today = path == "pandas.to_datetime" and texts and _is_one_of(texts[0], ("today", "now"))
                if (today or _NOW.match(path)) and not _is_stopwatch(subject, statement, call):
                    yield make_hit(cell, call, f"`{ast.unparse(call)}` reads the clock")


def _is_one_of(node: ast.expr, words: tuple[str, ...]) -> bool:
    return isinstance(node, ast.Constant) and node.value in words


def _is_stopwatch(subject: Subject, statement: ast.stmt, call: ast.Call) -> bool:
    """`start = datetime.now()` that only feeds a difference of two readings, a print or a file name."""
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        return isinstance(statement.value.func, ast.Name) and statement.value.func.id in ("print", "display")
    if not (isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)):
        return False
    if statement.value is not call:
        return _two_readings(subject, statement.value)
    name = statement.targets[0].id
    uses = [
        node
        for _, node in subject.nodes
        if isinstance(node, ast.BinOp)
        and any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(node))
    ]
    return bool(uses) and all(_two_readings(subject, use, name) for use in uses)


def _two_readings(subject: Subject, node: ast.AST, name: str = "") -> bool:
    if not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub)):
        return False
    sides = [node.left, node.right]

    def reads(side: ast.expr) -> bool:
        if isinstance(side, ast.Call):
            return bool(_NOW.match(subject.inference.path(side.func)))
        binding = subject.inference.binding(side)
        value = binding.value if binding is not None else None
        is_name = isinstance(side, ast.Name) and side.id == name
        return is_name or (isinstance(value, ast.Call) and bool(_NOW.match(subject.inference.path(value.func))))

    return all(reads(side) for side in sides)
