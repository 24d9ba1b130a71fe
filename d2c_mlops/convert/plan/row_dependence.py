"""Find code that uses many rows at once, so that a single record would get other features."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from d2c_mlops.convert.meaning.api_signatures import is_sampler, is_transformer
from d2c_mlops.convert.meaning.inference import Inference
from d2c_mlops.convert.plan.plan import Plan, PlanLine
from d2c_mlops.convert.plan.slicing import is_over_columns

STATISTICS = frozenset("mean median mode std var min max quantile sum mad".split())  # noqa: SIM905
NEIGHBOURS = frozenset(
    "shift diff rolling expanding ewm cumsum cumprod cummax cummin cumcount ffill bfill interpolate pct_change".split()  # noqa: SIM905
)
_WHOLE_COLUMN = ("scipy.stats.zscore", "scipy.stats.boxcox", "scipy.stats.yeojohnson", "scipy.stats.rankdata")
_SCALES = ("sklearn.preprocessing.scale", "sklearn.preprocessing.minmax_scale", "sklearn.preprocessing.robust_scale")
_RESAMPLES = ("sklearn.utils.resample", "sklearn.utils.shuffle")


@dataclass(frozen=True)
class LearningSite:
    """Code that learns from rows: its cell and line (both from 1), its source, and the author's function around it."""

    cell: int
    line: int
    what: str
    function: str = ""

    def __str__(self) -> str:
        inside = f" in {self.function}()" if self.function else ""
        return f"`{self.what}`{inside} (cell {self.cell}, line {self.line})"


def parts_that_learn(node: ast.AST, inference: Inference) -> Iterator[tuple[ast.AST, str]]:
    """Yield each part of a piece of code that learns from all of its rows, with its text."""
    figures = _group_figures(node, inference)
    for part in ast.walk(node):
        if id(part) in figures:
            continue
        if isinstance(part, ast.Attribute) and part.attr == "codes":
            if isinstance(part.value, ast.Attribute) and part.value.attr == "cat":
                yield part, ".cat.codes"
            elif isinstance(part.value, ast.Call) and inference.path(part.value.func) == "pandas.Categorical":
                yield part, "pd.Categorical(…).codes"
        elif isinstance(part, ast.BinOp) and isinstance(part.op, ast.Sub | ast.Div):
            statistic = _statistic_call(part.left, inference) or _statistic_call(part.right, inference)
            if statistic is not None:
                yield statistic, f".{statistic.func.attr}()"  # type: ignore[attr-defined]
        elif isinstance(part, ast.Call) and (what := _call_dependence(part, inference, node)):
            yield part, what


def _group_figures(node: ast.AST, inference: Inference) -> set[int]:
    """The parts of lambdas that compute one row per group: `.agg(lambda x: (day - x.max()).days)`."""
    return {
        id(part)
        for child in ast.walk(node)
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute)
        if child.func.attr in ("agg", "aggregate") and is_grouped(child.func.value, inference)
        for argument in (*child.args, *(word.value for word in child.keywords))
        for inner in ast.walk(argument)
        if isinstance(inner, ast.Lambda)
        for part in ast.walk(inner)
    }


def _call_dependence(call: ast.Call, inference: Inference, enclosing_node: ast.AST) -> str:
    path, function = inference.path(call.func), call.func
    if path in (*_WHOLE_COLUMN, *_SCALES, *_RESAMPLES, "pandas.factorize", "pandas.get_dummies", "pandas.qcut"):
        return path.rpartition(".")[2]
    if path == "pandas.cut" and not edges_given(call):
        return "cut with a number of bins"
    if not isinstance(function, ast.Attribute):
        return ""
    name, owner = function.attr, function.value
    kind = inference.kind(owner)
    if name in ("fit_transform", "fit_resample", "fit_sample"):
        return f"{kind.rpartition('.')[2] or ast.unparse(owner)[:40]}.{name}"
    if name == "fit" and (
        is_transformer(kind)
        or is_sampler(kind)
        or _fits_and_transforms(owner, enclosing_node)
        or _is_author_class(owner, inference)
    ):
        return f"{kind.rpartition('.')[2] or ast.unparse(owner)[:40]}.fit"
    if name == "fit_predict":
        return f"{kind.rpartition('.')[2] or ast.unparse(owner)[:40]}.fit_predict"
    if name in ("factorize", "rank") and not is_over_columns(call):
        return f".{name}"
    if name == "transform" and is_grouped(owner, inference):
        return ".groupby(…).transform"
    if name in NEIGHBOURS and not is_over_columns(call):
        return f".{name} (it uses neighbouring rows)"
    if name in ("map", "replace") and call.args and (what := _aggregate_origin(call.args[0], inference)):
        return f".{name} of {what}"
    return ""


def _fits_and_transforms(owner: ast.expr, enclosing_node: ast.AST) -> bool:
    """Whether an object of unknown class is fitted and also used to transform: `self.scaler`."""
    text = ast.unparse(owner) if isinstance(owner, ast.Name | ast.Attribute) else ""
    return bool(text) and any(
        isinstance(node, ast.Attribute) and node.attr == "transform" and ast.unparse(node.value) == text
        for node in ast.walk(enclosing_node)
    )


def _is_author_class(owner: ast.expr, inference: Inference) -> bool:
    """Whether an object is of a class of the author: `prep = Prep()`."""
    binding = inference.binding(owner) if isinstance(owner, ast.Name) else None
    built = binding.value if binding is not None else owner
    built_as = inference.binding(built.func) if isinstance(built, ast.Call) else None
    return built_as is not None and built_as.thing is not None and built_as.thing.path == "builtins.type"


def _aggregate_origin(count_node: ast.expr, inference: Inference) -> str:
    """The origin of a mapping: counts of values, or statistics of groups; empty for any other."""
    value: ast.AST | None = count_node
    if isinstance(count_node, ast.Name) and (binding := inference.binding(count_node)) is not None:
        value = binding.value
    for node in ast.walk(value) if value is not None else ():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in ("value_counts", "groupby"):
                return node.func.attr
    return ""


def _statistic_call(node: ast.expr, inference: Inference) -> ast.Call | None:
    """The column statistic on one side of a difference or a quotient: `x.mean()`, `x.max() - x.min()`."""
    if isinstance(node, ast.BinOp):
        return _statistic_call(node.left, inference) or _statistic_call(node.right, inference)
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
        return None
    plain = node.func.attr in STATISTICS and not is_along_rows(node) and not is_grouped(node.func.value, inference)
    return node if plain else None


def is_along_rows(call: ast.Call) -> bool:
    """Whether a statistic is taken along each row: `df.mean(axis=1)`, `df.mean(1)`."""
    first = call.args[0] if call.args else None
    return is_over_columns(call) or (isinstance(first, ast.Constant) and first.value in (1, "columns"))


def is_grouped(node: ast.AST | None, inference: Inference) -> bool:
    """Whether an expression is a table in groups: `df.groupby("a")["b"]`, or a name for one."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    if isinstance(node, ast.Name) and (binding := inference.binding(node)) is not None:
        node = binding.value
        while isinstance(node, ast.Subscript | ast.Attribute):
            node = node.value
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "groupby"


def edges_given(call: ast.Call) -> bool:
    """Whether the edges of bins are written down, so that nothing is learned."""
    edges = (
        call.args[1] if len(call.args) > 1 else next((w.value for w in call.keywords if w.arg in ("bins", "q")), None)
    )
    called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return isinstance(edges, ast.List | ast.Tuple) and called == "cut"


def functions_called(node: ast.AST, plan: Plan) -> list[str]:
    """Return the author's functions that a piece of code mentions, and those that they mention."""
    names: list[str] = []
    todo = [node]
    while todo:
        for part in ast.walk(todo.pop()):
            if isinstance(part, ast.Name) and part.id in plan.functions and part.id not in names:
                names.append(part.id)
                todo.append(plan.functions[part.id].statement.node)
    return names


def learning_sites(lines: Sequence[PlanLine], plan: Plan) -> list[LearningSite]:
    """Return each place that learns among lines, and inside the author's functions that they call."""
    row_sites: list[LearningSite] = []
    for line in lines:
        for part, what in parts_that_learn(line.statement.node, plan.inference):
            row_sites.append(_learning_site(line.statement.cell, part, what))
        for name in functions_called(line.statement.node, plan):
            statement = plan.functions[name].statement
            for part, what in parts_that_learn(statement.node, plan.inference):
                row_sites.append(_learning_site(statement.cell, part, what, name))
    return list(dict.fromkeys(row_sites))


def _learning_site(cell: int, part: ast.AST, code: str, function: str = "") -> LearningSite:
    return LearningSite(cell + 1, getattr(part, "lineno", 1), code, function)


def row_dependence_advice(row_sites: Sequence[LearningSite]) -> str:
    """Return the advice for code that learns between a record and its features."""
    listed = ", ".join(str(site) for site in row_sites[:4]) + (
        f" and {len(row_sites) - 4} more" if len(row_sites) > 4 else ""
    )
    return (
        f"{listed} learns from all rows at once, so a single record would get different features from those in training; "
        "fit it once on the training rows in a separate cell, and only apply it to other rows"
    )
