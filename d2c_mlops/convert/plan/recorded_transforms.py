"""Rewrite statements that fit on training data so that they apply the recorded values to a record."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from d2c_mlops.convert.meaning.api_signatures import SERIES
from d2c_mlops.convert.meaning.inference import Inference
from d2c_mlops.convert.plan.plan import PlanLine, draws_plot
from d2c_mlops.convert.plan.row_dependence import edges_given, is_along_rows, is_grouped
from d2c_mlops.convert.plan.slicing import inplace_filtered_table, is_over_columns, table_of_row_selection

_STATISTICS = frozenset(
    [
        "mean",
        "median",
        "mode",
        "std",
        "var",
        "min",
        "max",
        "quantile",
        "sum",
        "nunique",
        "unique",
        "idxmax",
        "idxmin",
        "mad",
        "count",
    ]
)
_NUMPY_STATISTICS = frozenset(
    f"{prefix}{name}"
    for prefix in ("", "nan")
    for name in ("mean", "median", "std", "var", "percentile", "quantile", "max", "min", "sum")
) | {"unique", "ptp", "amax", "amin"}


_GROUP_FIGURES = _STATISTICS | {"agg", "aggregate", "size", "first", "last", "value_counts"}
_TABLES = ("describe", "pivot_table", "corr", "cov", "skew", "kurt")  # methods that sum up a whole table
_FIGURES = frozenset("mean median std var min max count sum nunique size first last".split())  # noqa: SIM905


@dataclass(frozen=True)
class AuthorFunctions:
    """The author's functions: the globals that each reads, and the function that replays it if it learns."""

    extras: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    served: Mapping[str, str] = field(default_factory=dict)  # name -> name of the function that takes `learned`
    inner: bool = False  # whether what learns inside functions, and what no other manner knows, is learned once


class RecordedTransforms(ast.NodeTransformer):
    """Rewrites code that learns. It works on copies, and looks up inferred objects on the original nodes."""

    def __init__(
        self,
        inference: Inference,
        fitted: set[str],  # transformers whose fitted state comes from the training
        key: str,  # under which figures are kept
        every: bool = False,  # whether choices of rows are left out
        undone: frozenset[str] = frozenset(),  # columns that are never set, so need not be dropped
        functions: AuthorFunctions = AuthorFunctions(),
    ) -> None:
        self.functions = functions
        self.inference, self.fitted, self.key, self.every, self.undone = inference, fitted, key, every, undone
        self.count, self.inside = 0, 0
        self.paths: dict[int, str] = {}
        self.kinds: dict[int, str] = {}
        self.grouped: set[int] = set()
        self.originals: list[ast.AST] = []

    def statement(self, line: PlanLine) -> list[ast.stmt] | None:
        node = line.statement.node
        if draws_plot(line.statement, self.inference) and not isinstance(node, ast.Assign):
            return None
        if split := self.split(node):
            return split
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.Expr) and self.is_transformer_setup(node):
            return None
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            rows = self.replay_inplace_rows(node.value)
            if rows is not None:
                return [] if self.every else rows
        duplicate = self.copied(node)
        chosen = None if self.every else self.rows(duplicate)
        if chosen is not None:
            return [chosen]
        transformed = self.visit(duplicate)
        alone = isinstance(transformed, ast.Expr) and isinstance(transformed.value, ast.Name)
        return [transformed] if isinstance(transformed, ast.stmt) and not alone else None

    def copied(self, node: ast.stmt) -> ast.stmt:
        """Return a copy to rewrite; the inferred objects of its parts are looked up on the original."""
        duplicate = copy.deepcopy(node)
        pairs = list(_paired_nodes(node, duplicate))
        self.paths |= {id(b): self.inference.path(a.func) for a, b in pairs if isinstance(a, ast.Call)}
        self.kinds |= {id(b): self.inference.kind(a) for a, b in pairs}
        self.grouped |= {id(b) for a, b in pairs if isinstance(a, ast.expr) and is_grouped(a, self.inference)}
        self.originals.append(duplicate)  # ids stay taken as long as the copies live
        return duplicate

    def split(self, node: ast.stmt) -> list[ast.stmt] | None:
        """`a, b, c, d = train_test_split(X, y)`: every part is the whole."""
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
            return None
        if not self.inference.path(node.value.func).endswith(".train_test_split"):
            return None
        target = node.targets[0]
        if not isinstance(target, ast.Tuple | ast.List):
            return None
        assignments: list[ast.stmt] = []
        for place, part in enumerate(target.elts):
            if place // 2 < len(node.value.args):
                assignments.append(ast.Assign([copy.deepcopy(part)], copy.deepcopy(node.value.args[place // 2])))
        return assignments

    def is_transformer_setup(self, node: ast.Assign | ast.AnnAssign | ast.Expr) -> bool:
        """Whether a statement only builds or fits a transformer; its fitted state comes from the training."""
        value = node.value
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            return node.targets[0].id in self.fitted
        if isinstance(node, ast.Expr) and isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
            owner = value.func.value
            return value.func.attr == "fit" and isinstance(owner, ast.Name) and owner.id in self.fitted
        return False

    def replay_inplace_rows(self, call: ast.Call) -> list[ast.stmt] | None:
        """`df.dropna(inplace=True)`: the same choice, bound to the name."""
        if inplace_filtered_table(call) is None:
            return None
        filtering = copy.deepcopy(call)
        filtering.keywords = [word for word in filtering.keywords if word.arg != "inplace"]
        return [_row_selection(inplace_filtered_table(call) or "", filtering)]

    def rows(self, node: ast.stmt) -> ast.stmt | None:
        """`df = df[condition]`, `df = df.dropna()`: the training chose rows, records are all answered."""
        if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
            return None
        base = table_of_row_selection(node.value)
        return (
            None if base is None else ast.Assign(node.targets, learned_call("rows", [copy.deepcopy(base), node.value]))
        )

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        inner = node.value
        if node.attr == "codes" and isinstance(inner, ast.Attribute) and inner.attr == "cat":
            cast = inner.value
            if isinstance(cast, ast.Call) and isinstance(cast.func, ast.Attribute) and cast.func.attr == "astype":
                return learned_call("codes", [self.next_key(), cast.func.value])
            if self.functions.inner:
                return learned_call("codes", [self.next_key(), cast])
        if node.attr == "codes" and isinstance(inner, ast.Call) and self.functions.inner:
            if self.paths.get(id(inner)) == "pandas.Categorical" and len(inner.args) == 1 and not inner.keywords:
                return learned_call("codes", [self.next_key(), inner.args[0]])
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        path = self.paths.get(id(node), "")
        function = node.func
        if isinstance(function, ast.Name) and function.id in {*self.functions.extras, *self.functions.served}:
            return self.author(node, function)
        if self.functions.inner and (learner_call := self.learner(node, path)) is not None:
            return learner_call
        if self.every and (base := table_of_row_selection(node)) is not None:
            return self.visit(base)  # type: ignore[no-any-return]
        if self.undone and isinstance(function, ast.Attribute) and function.attr == "drop":
            if self.spared(node):
                return self.visit(function.value)  # type: ignore[no-any-return]
        if path == "pandas.get_dummies":
            self.generic_visit(node)
            return ast.Call(learned_method("dummies"), [self.next_key(), *node.args], node.keywords)
        if path in ("pandas.cut", "pandas.qcut") and len(node.args) <= 3 and not edges_given(node):
            self.generic_visit(node)
            return ast.Call(learned_method("cut"), [self.next_key(), function, *node.args], node.keywords)
        if path.startswith("statsmodels.") and path.endswith(".add_constant") and len(node.args) == 1:
            self.generic_visit(node)
            return ast.Call(learned_method("constant"), [self.next_key(), *node.args], node.keywords)
        if path.removeprefix("numpy.") in _NUMPY_STATISTICS and path.startswith("numpy.") and not is_over_columns(node):
            if not self.inside and not _returns_several(node) and _aggregates_all_rows(node):
                return self.kept(node)
        if isinstance(function, ast.Attribute):
            owner = function.value
            if (
                function.attr in ("fit_transform", "transform")
                and isinstance(owner, ast.Name)
                and owner.id in self.fitted
            ):
                node.args = [self.visit(argument) for argument in node.args[:1]]
                return ast.Call(ast.Attribute(owner, "transform", ast.Load()), node.args, [])
            if function.attr == "fit_transform":
                self.generic_visit(node)
                return learned_call("encode", [self.next_key(), owner, *node.args])
            kind = self.kinds.get(id(owner), "")
            if (
                function.attr in _STATISTICS
                and not self.inside
                and not is_along_rows(node)
                and not (isinstance(owner, ast.Attribute) and owner.attr == "str")  # counts in each text
                and "GroupBy" not in kind
                and id(owner) not in self.grouped
                and not path.startswith(("numpy.", "builtins."))
            ):
                return self.kept(node)
        self.generic_visit(node)
        return node

    def author(self, node: ast.Call, function: ast.Name) -> ast.AST:
        """A call of the author's function, with the globals that it reads and the values that it learned."""
        self.generic_visit(node)
        name = function.id
        handed = [ast.keyword(extra, ast.Name(extra, ast.Load())) for extra in self.functions.extras.get(name, ())]
        node.keywords += [word for word in handed if word.arg not in {keyword.arg for keyword in node.keywords}]
        if name in self.functions.served and not self.inside:
            function.id = self.functions.served[name]
            node.keywords.append(ast.keyword("learned", ast.Name("learned", ast.Load())))
        return node

    def learner(self, node: ast.Call, path: str) -> ast.AST | None:
        """The call that replays a function with its own way of learning; None for any other call."""
        if self.inside:
            return None
        function, key = node.func, self.next_key
        if path == "pandas.factorize" and len(node.args) == 1 and not node.keywords:
            self.generic_visit(node)
            return learned_call("factorize", [key(), *node.args])
        if path in ("pandas.crosstab", "pandas.pivot_table"):
            return self.kept(node)
        if not isinstance(function, ast.Attribute):
            return None
        owner, name = function.value, function.attr
        if name == "assign":
            return self.assigned(node)
        if name in _TABLES and not is_over_columns(node) and id(owner) not in self.grouped:
            return self.kept(node)
        if name in ("apply", "pipe", "transform") and node.args and not is_along_rows(node):
            return self.applied(node, owner)
        if name == "factorize" and not node.args and not node.keywords:
            return learned_call("factorize", [key(), self.visit(owner)])
        if name == "rank" and not node.args and not is_over_columns(node):
            return ast.Call(learned_method("rank"), [key(), self.visit(owner)], node.keywords)
        if name == "fit_predict" and len(node.args) == 1:
            return learned_call("predict", [key(), self.visit(owner), self.visit(node.args[0])])
        if name == "value_counts" or (name in _GROUP_FIGURES and id(owner) in self.grouped):
            return self.kept(node)
        return None

    def assigned(self, node: ast.Call) -> ast.AST:
        """`.assign(z=lambda d: ...)`: such a lambda gets the whole table, once."""
        node.func = self.visit(node.func)
        node.args = [self.visit(argument) for argument in node.args]
        for word in node.keywords:
            if isinstance(word.value, ast.Lambda):
                word.value.body = self.visit(word.value.body)
            else:
                word.value = self.visit(word.value)
        return node

    def applied(self, node: ast.Call, owner: ast.expr) -> ast.AST | None:
        """`.apply(f)` to columns, `.pipe(f)`, and `.groupby(keys)[column].transform("mean")`."""
        first = node.args[0]
        if isinstance(first, ast.Name) and first.id in self.functions.served:
            self.generic_visit(node)
            first.id = self.functions.served[first.id]
            node.keywords.append(ast.keyword("learned", ast.Name("learned", ast.Load())))
            return node
        if isinstance(first, ast.Lambda) and id(owner) not in self.grouped and self.kinds.get(id(owner)) != SERIES:
            first.body = self.visit(first.body)
            node.func = self.visit(node.func)
            return node
        if not (isinstance(first, ast.Constant) and first.value in _FIGURES and len(node.args) == 1):
            return None
        column = owner.slice if isinstance(owner, ast.Subscript) else None
        groups = owner.value if isinstance(owner, ast.Subscript) else None
        if not (isinstance(column, ast.Constant) and isinstance(groups, ast.Call) and len(groups.args) == 1):
            return None
        if not (isinstance(groups.func, ast.Attribute) and groups.func.attr == "groupby") or groups.keywords:
            return None
        return learned_call("groups", [self.next_key(), self.visit(groups.func.value), groups.args[0], column, first])

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        """A share of all rows is a share of those of the training: `counts / len(df)`, `counts / df.shape[0]`."""
        right = node.right
        if self.functions.inner and not self.inside and isinstance(node.op, ast.Div) and _is_row_count(right):
            node.left = self.visit(node.left)
            node.right = self.kept(right)  # type: ignore[assignment]
            return node
        self.generic_visit(node)
        return node

    def spared(self, call: ast.Call) -> bool:
        """Remove columns that are never set from the arguments of `drop`; return whether none is left."""
        column_nodes = [word.value for word in call.keywords if word.arg in ("columns", "labels")] or call.args[:1]
        if not column_nodes or not is_over_columns(call):
            return False
        if isinstance(column_nodes[0], ast.Constant):
            return column_nodes[0].value in self.undone
        if isinstance(column_nodes[0], ast.List):
            remaining = [
                element for element in column_nodes[0].elts if getattr(element, "value", None) not in self.undone
            ]
            column_nodes[0].elts[:] = remaining
            return not remaining
        return False

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        """A lambda computes its result for each record, not once for all records."""
        self.inside += 1
        self.generic_visit(node)
        self.inside -= 1
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        inner = node.value
        if self.every and isinstance(node.ctx, ast.Load) and (base := table_of_row_selection(node)) is not None:
            return self.visit(base)  # type: ignore[no-any-return]
        if (
            isinstance(inner, ast.Call)
            and isinstance(inner.func, ast.Attribute)
            and inner.func.attr == "mode"
            and not self.inside
        ):
            return self.kept(node)
        if self.functions.inner and not self.inside and (values := self.inverse_indices(node)) is not None:
            return learned_call("inverse", [self.next_key(), self.visit(values)])
        self.generic_visit(node)
        return node

    def inverse_indices(self, node: ast.Subscript) -> ast.expr | None:
        """The values of `np.unique(values, return_inverse=True)[1]`."""
        inner = node.value
        if not (isinstance(inner, ast.Call) and self.paths.get(id(inner)) == "numpy.unique" and len(inner.args) == 1):
            return None
        second = isinstance(node.slice, ast.Constant) and node.slice.value == 1
        return inner.args[0] if second and [word.arg for word in inner.keywords] == ["return_inverse"] else None

    def kept(self, node: ast.expr) -> ast.AST:
        nothing = ast.arguments([], [], None, [], [], None, [])
        return learned_call("keep", [self.next_key(), ast.Lambda(nothing, node)])

    def next_key(self) -> ast.Constant:
        self.count += 1
        return ast.Constant(f"cell_{self.key}" + (f"_{self.count}" if self.count > 1 else ""))


def learned_method(method: str) -> ast.Attribute:
    """Return `learned.method`."""
    return ast.Attribute(ast.Name("learned", ast.Load()), method, ast.Load())


def learned_call(method: str, arguments: list[ast.expr]) -> ast.Call:
    """Return `learned.method(...)`."""
    return ast.Call(learned_method(method), arguments, [])


def _returns_several(call: ast.Call) -> bool:
    """Whether numpy returns more than the statistic: positions or counts of each value."""
    return any(word.arg is None or word.arg.startswith("return_") for word in call.keywords)


def _aggregates_all_rows(call: ast.Call) -> bool:
    """Whether a function of numpy takes all rows together: without an axis, or along the first one of a table."""
    axis = next((word.value for word in call.keywords if word.arg == "axis"), None)
    first = call.args[0] if call.args else None
    return axis is None or (
        isinstance(axis, ast.Constant)
        and axis.value == 0
        and isinstance(first, ast.Name | ast.Subscript | ast.Attribute)
    )


def _is_row_count(node: ast.expr) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "len"
    return isinstance(node, ast.Subscript) and isinstance(node.value, ast.Attribute) and node.value.attr == "shape"


def _row_selection(name: str, row_selection: ast.expr) -> ast.stmt:
    return ast.Assign([ast.Name(name, ast.Store())], learned_call("rows", [ast.Name(name, ast.Load()), row_selection]))


def _paired_nodes(original: ast.AST, right: ast.AST) -> Iterable[tuple[ast.AST, ast.AST]]:
    """Walk two copies of one tree together."""
    yield original, right
    for original_child, copied_child in zip(ast.iter_child_nodes(original), ast.iter_child_nodes(right), strict=True):
        yield from _paired_nodes(original_child, copied_child)
