"""Rewrite statements that learn from the training data into ones that replay on a record what was learned."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable

from d2c_mlops.convert.inference import Inference
from d2c_mlops.convert.plan import Line, plots
from d2c_mlops.convert.slicing import across, row_choice, rows_in_place

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
    for name in ("mean", "median", "std", "var", "percentile", "quantile", "max", "min")
)


class Turned(ast.NodeTransformer):
    """Rewrites what learns; it works on copies, so meanings are looked up on the original nodes first."""

    def __init__(
        self,
        inference: Inference,
        fitted: set[str],  # transformers whose fitted state comes from the training
        key: str,  # under which figures are kept
        every: bool = False,  # whether choices of rows are left out
        undone: frozenset[str] = frozenset(),  # columns that are never set, so need not be dropped
    ) -> None:
        self.inference, self.fitted, self.key, self.every, self.undone = inference, fitted, key, every, undone
        self.count, self.inside = 0, 0
        self.paths: dict[int, str] = {}
        self.kinds: dict[int, str] = {}

    def statement(self, line: Line) -> list[ast.stmt] | None:
        node = line.statement.node
        if plots(line.statement, self.inference) and not isinstance(node, ast.Assign):
            return None
        if split := self.split(node):
            return split
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.Expr) and self.is_preparing(node):
            return None
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            rows = self.rows_in_place(node.value)
            if rows is not None:
                return [] if self.every else rows
        made = copy.deepcopy(node)
        self.paths = {id(b): self.inference.path(a.func) for a, b in _pairs(node, made) if isinstance(a, ast.Call)}
        self.kinds = {id(b): self.inference.kind(a) for a, b in _pairs(node, made)}
        chosen = None if self.every else self.rows(made)
        if chosen is not None:
            return [chosen]
        done = self.visit(made)
        alone = isinstance(done, ast.Expr) and isinstance(done.value, ast.Name)
        return [done] if isinstance(done, ast.stmt) and not alone else None

    def split(self, node: ast.stmt) -> list[ast.stmt] | None:
        """`a, b, c, d = train_test_split(X, y)`: every part is the whole."""
        if not (isinstance(node, ast.Assign) and isinstance(node.value, ast.Call)):
            return None
        if not self.inference.path(node.value.func).endswith(".train_test_split"):
            return None
        target = node.targets[0]
        if not isinstance(target, ast.Tuple | ast.List):
            return None
        made: list[ast.stmt] = []
        for place, part in enumerate(target.elts):
            if place // 2 < len(node.value.args):
                made.append(ast.Assign([copy.deepcopy(part)], copy.deepcopy(node.value.args[place // 2])))
        return made

    def is_preparing(self, node: ast.Assign | ast.AnnAssign | ast.Expr) -> bool:
        """Whether a statement only builds or fits a transformer whose fitted state comes from the training."""
        value = node.value
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            return node.targets[0].id in self.fitted
        if isinstance(node, ast.Expr) and isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
            owner = value.func.value
            return value.func.attr == "fit" and isinstance(owner, ast.Name) and owner.id in self.fitted
        return False

    def rows_in_place(self, call: ast.Call) -> list[ast.stmt] | None:
        """`df.dropna(inplace=True)`: the same choice, bound to the name."""
        if rows_in_place(call) is None:
            return None
        kept = copy.deepcopy(call)
        kept.keywords = [word for word in kept.keywords if word.arg != "inplace"]
        return [_rows(rows_in_place(call) or "", kept)]

    def rows(self, node: ast.stmt) -> ast.stmt | None:
        """`df = df[condition]`, `df = df.dropna()`: the training chose rows, records are all answered."""
        if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
            return None
        base = row_choice(node.value)
        return None if base is None else ast.Assign(node.targets, _call("rows", [copy.deepcopy(base), node.value]))

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        inner = node.value
        if node.attr == "codes" and isinstance(inner, ast.Attribute) and inner.attr == "cat":
            cast = inner.value
            if isinstance(cast, ast.Call) and isinstance(cast.func, ast.Attribute) and cast.func.attr == "astype":
                return _call("codes", [self.next_key(), cast.func.value])
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        path = self.paths.get(id(node), "")
        function = node.func
        if self.every and (base := row_choice(node)) is not None:
            return self.visit(base)  # type: ignore[no-any-return]
        if self.undone and isinstance(function, ast.Attribute) and function.attr == "drop":
            if self.spared(node):
                return self.visit(function.value)  # type: ignore[no-any-return]
        if path == "pandas.get_dummies":
            self.generic_visit(node)
            return ast.Call(_learned("dummies"), [self.next_key(), *node.args], node.keywords)
        if path in ("pandas.cut", "pandas.qcut") and len(node.args) <= 3 and not _edges_given(node):
            self.generic_visit(node)
            return ast.Call(_learned("cut"), [self.next_key(), function, *node.args], node.keywords)
        if path.startswith("statsmodels.") and path.endswith(".add_constant") and len(node.args) == 1:
            self.generic_visit(node)
            return ast.Call(_learned("constant"), [self.next_key(), *node.args], node.keywords)
        if path.removeprefix("numpy.") in _NUMPY_STATISTICS and path.startswith("numpy.") and not across(node):
            if not self.inside and not any(word.arg == "axis" for word in node.keywords):
                return self.kept(node)
        if isinstance(function, ast.Attribute):
            owner = function.value
            if (
                function.attr in ("fit_transform", "transform")
                and isinstance(owner, ast.Name)
                and owner.id in self.fitted
            ):
                node.args = [self.visit(each) for each in node.args[:1]]
                return ast.Call(ast.Attribute(owner, "transform", ast.Load()), node.args, [])
            if function.attr == "fit_transform":
                self.generic_visit(node)
                return _call("encode", [self.next_key(), owner, *node.args])
            kind = self.kinds.get(id(owner), "")
            if (
                function.attr in _STATISTICS
                and not self.inside
                and not across(node)
                and "GroupBy" not in kind
                and not path.startswith(("numpy.", "builtins."))
            ):
                return self.kept(node)
        self.generic_visit(node)
        return node

    def spared(self, call: ast.Call) -> bool:
        """Take columns that are never set out of what `drop` names; whether none is left."""
        named = [word.value for word in call.keywords if word.arg in ("columns", "labels")] or call.args[:1]
        if not named or not across(call):
            return False
        if isinstance(named[0], ast.Constant):
            return named[0].value in self.undone
        if isinstance(named[0], ast.List):
            kept = [each for each in named[0].elts if getattr(each, "value", None) not in self.undone]
            named[0].elts[:] = kept
            return not kept
        return False

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        """What a lambda computes it computes for each record, not once for all of them."""
        self.inside += 1
        self.generic_visit(node)
        self.inside -= 1
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        inner = node.value
        if self.every and isinstance(node.ctx, ast.Load) and (base := row_choice(node)) is not None:
            return self.visit(base)  # type: ignore[no-any-return]
        if (
            isinstance(inner, ast.Call)
            and isinstance(inner.func, ast.Attribute)
            and inner.func.attr == "mode"
            and not self.inside
        ):
            return self.kept(node)
        self.generic_visit(node)
        return node

    def kept(self, node: ast.expr) -> ast.AST:
        nothing = ast.arguments([], [], None, [], [], None, [])
        return _call("keep", [self.next_key(), ast.Lambda(nothing, node)])

    def next_key(self) -> ast.Constant:
        self.count += 1
        return ast.Constant(f"cell_{self.key}" + (f"_{self.count}" if self.count > 1 else ""))


def _learned(method: str) -> ast.Attribute:
    return ast.Attribute(ast.Name("learned", ast.Load()), method, ast.Load())


def _call(method: str, given: list[ast.expr]) -> ast.Call:
    return ast.Call(_learned(method), given, [])


def _edges_given(call: ast.Call) -> bool:
    """Whether the edges of bins are written down, so that nothing is learned."""
    given = (
        call.args[1] if len(call.args) > 1 else next((w.value for w in call.keywords if w.arg in ("bins", "q")), None)
    )
    called = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    return isinstance(given, ast.List | ast.Tuple) and called == "cut"


def _rows(name: str, chosen: ast.expr) -> ast.stmt:
    return ast.Assign([ast.Name(name, ast.Store())], _call("rows", [ast.Name(name, ast.Load()), chosen]))


def _pairs(left: ast.AST, right: ast.AST) -> Iterable[tuple[ast.AST, ast.AST]]:
    """Walk two copies of one tree together."""
    yield left, right
    for one, other in zip(ast.iter_child_nodes(left), ast.iter_child_nodes(right), strict=True):
        yield from _pairs(one, other)
