"""Turn the author's preparation of the training data into one that replays on new records what was learned."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from d2c_mlops.convert.inference import Inference
from d2c_mlops.convert.plan import Line, Plan, plots

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
_ROWS = frozenset(
    [
        "dropna",
        "drop_duplicates",
        "sample",
        "head",
        "tail",
        "query",
        "nlargest",
        "nsmallest",
        "sort_values",
        "sort_index",
        "truncate",
    ]
)


@dataclass
class Replay:
    """Source of the statements between a frame and the features, and the names that they take from the training."""

    start: str  # the frame that a record stands for
    lines: list[str] = field(default_factory=list)
    features: str = ""
    given: list[str] = field(default_factory=list)


def replayed(plan: Plan, lines: Sequence[Line], start: str, features: ast.expr, seen: frozenset[str]) -> Replay | None:
    """Return how to get from `start` to `features` by the lines after it; None where that cannot be told."""
    wanted = {node.id for node in ast.walk(features) if isinstance(node, ast.Name)} - seen
    chosen: list[Line] = []
    for line in reversed(lines):
        touched = {*line.facts.binds, *line.facts.mutates}
        if not touched & wanted:
            continue
        if line.facts.opaque or line.kind == "definition":
            return None
        chosen.insert(0, line)
        wanted = (
            (wanted - line.facts.definite)
            | {n for n in line.facts.reads if n not in seen}
            | ({n for n in line.facts.mutates} - seen)
        )
    fitted = _fitted_once(plan, chosen)
    made = Replay(start)
    known = {start}
    for line in chosen:
        turned = _Turned(plan.inference, fitted, f"{line.statement.cell + 1}_{line.statement.order + 1}")
        statement = turned.statement(line)
        if statement is None:
            continue
        turn = _Given(known, seen)
        turn.before(statement)
        made.lines += [ast.unparse(ast.fix_missing_locations(turn.visit(each))) for each in statement]
        made.given += [name for name in turn.given if name not in made.given]
        known |= {name for name in line.facts.binds if name not in fitted}
    turned = _Turned(plan.inference, fitted, "features")
    last = _Given(known, seen)
    made.features = ast.unparse(ast.fix_missing_locations(last.visit(turned.visit(copy.deepcopy(features)))))
    made.lines = _living([text for text in made.lines if text], made.features)
    text = "\n".join([*made.lines, made.features])
    made.given = [name for name in [*made.given, *last.given] if f"learned['{name}']" in text]
    made.given = list(dict.fromkeys(made.given))
    return made


def _living(lines: Sequence[str], features: str) -> list[str]:
    """Leave out assignments whose value nothing uses and which learn nothing."""
    used = {node.id for node in ast.walk(ast.parse(features)) if isinstance(node, ast.Name)}
    kept: list[str] = []
    for text in reversed(lines):
        node = ast.parse(text).body[0]
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(target, ast.Name) and target.id not in used and "learned." not in text:
            continue
        kept.insert(0, text)
        used |= {each.id for each in ast.walk(node) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Load)}
    return kept


def _fitted_once(plan: Plan, lines: Iterable[Line]) -> set[str]:
    """Transformers that are fitted at one place among the lines, outside of loops: their last state is the right one."""
    places: dict[str, list[tuple[int, int]]] = {}
    looped: set[str] = set()
    for fit in plan.fits:
        if fit.kind == "transformer" and fit.name:
            places.setdefault(fit.name, []).append((fit.cell, fit.line))
    for line in lines:
        if isinstance(line.statement.node, ast.For | ast.While | ast.If | ast.With | ast.Try):
            for node in ast.walk(line.statement.node):
                if isinstance(node, ast.Attribute) and node.attr.startswith("fit") and isinstance(node.value, ast.Name):
                    looped.add(node.value.id)
        node = line.statement.node
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) and isinstance(node.targets[0], ast.Name):
            function = node.value.func
            if isinstance(function, ast.Attribute) and function.attr == "fit" and isinstance(function.value, ast.Call):
                if ".preprocessing." in plan.inference.path(function.value.func):
                    places.setdefault(node.targets[0].id, [(line.statement.cell, node.lineno)])
    inside = list(lines)
    found = set()
    for name, where in places.items():
        sites = [w for w in where if any(each.statement.cell == w[0] and _spans(each, w[1]) for each in inside)]
        if len(sites) <= 1 and name not in looped:
            found.add(name)
    return found


def _spans(line: Line, at: int) -> bool:
    node = line.statement.node
    return node.lineno <= at <= (node.end_lineno or node.lineno)


class _Turned(ast.NodeTransformer):
    """Rewrites what learns; it works on copies, so meanings are looked up on the original nodes first."""

    def __init__(self, inference: Inference, fitted: set[str], key: str) -> None:
        self.inference, self.fitted, self.key = inference, fitted, key
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
                return rows
        made = copy.deepcopy(node)
        self.paths = {id(b): self.inference.path(a.func) for a, b in _pairs(node, made) if isinstance(a, ast.Call)}
        self.kinds = {id(b): self.inference.kind(a) for a, b in _pairs(node, made)}
        chosen = self.rows(made)
        if chosen is not None:
            return [chosen]
        done = self.visit(made)
        return [done] if isinstance(done, ast.stmt) else None

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
        function = call.func
        if not (
            isinstance(function, ast.Attribute) and function.attr in _ROWS and isinstance(function.value, ast.Name)
        ):
            if (
                isinstance(function, ast.Attribute)
                and function.attr == "drop"
                and isinstance(function.value, ast.Name)
                and not _across(call)
            ):
                name = function.value.id
            else:
                return None
        else:
            name = function.value.id
        if _across(call):
            return None
        kept = copy.deepcopy(call)
        kept.keywords = [word for word in kept.keywords if word.arg != "inplace"]
        return [_rows(name, kept)]

    def rows(self, node: ast.stmt) -> ast.stmt | None:
        """`df = df[condition]`, `df = df.dropna()`: the training chose rows, records are all answered."""
        if not (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)):
            return None
        value = node.value
        base = value.value if isinstance(value, ast.Subscript) else None
        if isinstance(base, ast.Attribute) and base.attr in ("loc", "iloc"):
            key = value.slice if isinstance(value, ast.Subscript) else None
            single = isinstance(key, ast.Slice | ast.Compare | ast.BinOp)
            if single and isinstance(base.value, ast.Name):
                return ast.Assign(node.targets, _call("rows", [ast.Name(base.value.id, ast.Load()), value]))
        if isinstance(base, ast.Name) and isinstance(value, ast.Subscript):
            key = value.slice
            mask = isinstance(key, ast.Compare | ast.BinOp | ast.UnaryOp | ast.Slice) or (
                isinstance(key, ast.Call)
                and isinstance(key.func, ast.Attribute)
                and key.func.attr in ("isin", "between", "notna", "notnull")
            )
            if mask:
                return ast.Assign(node.targets, _call("rows", [ast.Name(base.id, ast.Load()), value]))
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) and value.func.attr in _ROWS:
            if not _across(value):
                return ast.Assign(node.targets, _call("rows", [copy.deepcopy(value.func.value), value]))
        return None

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
        if path == "pandas.get_dummies":
            self.generic_visit(node)
            return ast.Call(_learned("dummies"), [self.next_key(), *node.args], node.keywords)
        if path in ("pandas.cut", "pandas.qcut") and len(node.args) <= 3 and not _edges_given(node):
            self.generic_visit(node)
            return ast.Call(_learned("cut"), [self.next_key(), function, *node.args], node.keywords)
        if path.startswith("statsmodels.") and path.endswith(".add_constant") and len(node.args) == 1:
            self.generic_visit(node)
            return ast.Call(_learned("constant"), [self.next_key(), *node.args], node.keywords)
        if path.removeprefix("numpy.") in _NUMPY_STATISTICS and path.startswith("numpy.") and not _across(node):
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
                and not _across(node)
                and "GroupBy" not in kind
                and not path.startswith(("numpy.", "builtins."))
            ):
                return self.kept(node)
        self.generic_visit(node)
        return node

    def visit_Lambda(self, node: ast.Lambda) -> ast.AST:
        """What a lambda computes it computes for each record, not once for all of them."""
        self.inside += 1
        self.generic_visit(node)
        self.inside -= 1
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        inner = node.value
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


class _Given(ast.NodeTransformer):
    """Names that neither the record nor the module gives come from the training."""

    def __init__(self, known: set[str], seen: frozenset[str]) -> None:
        self.known, self.seen = set(known), seen
        self.given: list[str] = []

    def before(self, statements: Iterable[ast.stmt]) -> None:
        for each in statements:
            for node in ast.walk(each):
                if isinstance(node, ast.comprehension | ast.For):
                    self.known |= {n.id for n in ast.walk(node.target) if isinstance(n, ast.Name)}
                elif isinstance(node, ast.arg):
                    self.known.add(node.arg)
                elif isinstance(node, ast.If | ast.For | ast.While | ast.With):
                    inner = [n for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)]
                    self.known |= {n.id for n in inner}

    def visit_Name(self, node: ast.Name) -> ast.AST:
        if not isinstance(node.ctx, ast.Load) or node.id in self.known or node.id in self.seen or node.id == "learned":
            return node
        if node.id not in self.given:
            self.given.append(node.id)
        return ast.Subscript(ast.Name("learned", ast.Load()), ast.Constant(node.id), ast.Load())


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


def _across(call: ast.Call) -> bool:
    """Whether a call works on columns."""
    for word in call.keywords:
        if word.arg == "columns" or (
            word.arg == "axis" and isinstance(word.value, ast.Constant) and word.value.value in (1, "columns")
        ):
            return True
    named = isinstance(call.func, ast.Attribute) and call.func.attr == "drop"
    return named and len(call.args) > 1 and isinstance(call.args[1], ast.Constant) and call.args[1].value == 1


def _pairs(left: ast.AST, right: ast.AST) -> Iterable[tuple[ast.AST, ast.AST]]:
    """Walk two copies of one tree together."""
    yield left, right
    for one, other in zip(ast.iter_child_nodes(left), ast.iter_child_nodes(right), strict=True):
        yield from _pairs(one, other)
