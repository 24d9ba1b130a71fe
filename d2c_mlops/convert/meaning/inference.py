"""Infer the type of each expression of a notebook, without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from d2c_mlops.convert.meaning.api_signatures import (
    ARRAY,
    ATTRIBUTES,
    AXES,
    COLUMN_GROUPS,
    FRAME,
    FRAME_ATTRIBUTES,
    GROUPS,
    SERIES,
    returned_class,
)
from d2c_mlops.convert.source.notebook import Notebook
from d2c_mlops.convert.source.scopes import base_name, split_words, target_names

_LITERALS: dict[type[ast.AST], str] = {
    ast.List: "builtins.list",
    ast.ListComp: "builtins.list",
    ast.Dict: "builtins.dict",
    ast.DictComp: "builtins.dict",
    ast.Set: "builtins.set",
    ast.SetComp: "builtins.set",
    ast.Tuple: "builtins.tuple",
    ast.JoinedStr: "builtins.str",
}
_CONVERSIONS = {
    "float": "float",
    "int": "int",
    "len": "int",
    "str": "str",
    "list": "list",
    "dict": "dict",
    "set": "set",
}
_SAME_AGAIN = frozenset({"fit", "partial_fit", "set_params"})
_GROUPING = {GROUPS: COLUMN_GROUPS, "pandas.Resampler": "pandas.SeriesResampler"}
_ROLLING = {"pandas.Rolling": "pandas.SeriesRolling"}


@dataclass(frozen=True)
class InferredObject:
    """A dotted path; with `instance` an object of that class, otherwise the module, class or function itself."""

    path: str
    instance: bool = False


@dataclass(frozen=True, eq=False)
class Binding:
    """One value of a name: by an assignment, or by a change in place of the value before (`changes`)."""

    name: str
    cell: int
    line: int
    value: ast.expr | None  # the expression assigned, or the call that changes in place
    thing: InferredObject | None
    sources: tuple[Binding, ...] = field(default=(), repr=False)
    position: int | None = None  # place in the tuple that `value` gives
    changes: Binding | None = field(default=None, repr=False)
    column: str | None = None  # the column set by `df["x"] = ...`

    def ancestors(self) -> Iterator[Binding]:
        """Yield every binding that this one is computed from, nearest first, itself included."""
        visited: set[int] = set()
        todo: list[Binding] = [self]
        while todo:
            binding = todo.pop(0)
            if id(binding) not in visited:
                visited.add(id(binding))
                yield binding
                todo.extend(binding.sources)


@dataclass
class Inference:
    """The inferred objects of a notebook's syntax trees, by the identity of their nodes: keep the notebook in memory."""

    things: dict[int, InferredObject] = field(default_factory=dict)
    bound: dict[int, Binding] = field(default_factory=dict)
    bindings: list[Binding] = field(default_factory=list)

    def thing(self, node: ast.AST) -> InferredObject | None:
        """Return the inferred object of an expression, None if it is unknown."""
        return self.things.get(id(node))

    def path(self, node: ast.AST) -> str:
        """Return the dotted path of a name or attribute: `numpy.nan`, or `pandas.DataFrame.append` for a method."""
        inferred = self.things.get(id(node))
        return inferred.path if inferred is not None and not inferred.instance else ""

    def kind(self, node: ast.AST) -> str:
        """Return the class of which an expression is an instance."""
        inferred = self.things.get(id(node))
        return inferred.path if inferred is not None and inferred.instance else ""

    def binding(self, node: ast.AST) -> Binding | None:
        """Return the binding of a name where it is read."""
        return self.bound.get(id(node))


def infer_types(notebook: Notebook) -> Inference:
    """Follow all cells in document order; functions are followed where they are defined."""
    walk = _Walker()
    for cell in notebook.code:
        if cell.tree is not None:
            walk.cell = cell.index
            try:
                walk.block(cell.tree.body)
            except RecursionError:  # an expression of thousands of terms; the rest is still followed
                continue
    return walk.result


class _Walker:
    def __init__(self) -> None:
        self.result = Inference()
        self.names: dict[str, Binding] = {}
        self.cell = 0

    def block(self, statements: Iterable[ast.stmt]) -> None:
        for statement in statements:
            self.statement(statement)

    def statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Import | ast.ImportFrom):
            self.imported(node)
        elif isinstance(node, ast.Assign):
            inferred = self.expression(node.value)
            for target in node.targets:
                self.assign(target, node.value, inferred)
        elif isinstance(node, ast.AnnAssign) and node.value is not None:
            self.assign(node.target, node.value, self.expression(node.value))
        elif isinstance(node, ast.AugAssign):
            self.expression(node.value)
            self.expression(node.target)
            self.assign(node.target, node.value, self.result.thing(node.target), again=True)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            self.scope(node)
        elif isinstance(node, ast.For | ast.AsyncFor):
            self.expression(node.iter)
            self.assign(node.target, node.iter, None)
            self.block([*node.body, *node.orelse])
        elif isinstance(node, ast.With | ast.AsyncWith):
            for item in node.items:
                inferred = self.expression(item.context_expr)
                if item.optional_vars is not None:
                    self.assign(item.optional_vars, item.context_expr, inferred)
            self.block(node.body)
        else:
            self.parts(node)

    def parts(self, node: ast.AST) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.stmt):
                self.statement(child)
            elif isinstance(child, ast.expr):
                self.expression(child)
            else:
                self.parts(child)

    def scope(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> None:
        for decorator in node.decorator_list:
            self.expression(decorator)
        outside = dict(self.names)
        if not isinstance(node, ast.ClassDef):
            for default in [*node.args.defaults, *(default for default in node.args.kw_defaults if default)]:
                self.expression(default)
            every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg]
            for argument in [*every, node.args.kwarg]:
                if argument is not None:
                    self.names.pop(argument.arg, None)
        self.block(node.body)
        self.names = outside
        kind = "builtins.type" if isinstance(node, ast.ClassDef) else "builtins.function"
        self.bind(Binding(node.name, self.cell, node.lineno, None, InferredObject(kind, instance=True)))

    def imported(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            if isinstance(node, ast.Import):
                bound = alias.asname or alias.name.split(".")[0]
                path = alias.name if alias.asname else bound
            else:
                bound = alias.asname or alias.name
                path = f"{'.' * node.level}{node.module or ''}.{alias.name}"
            self.bind(Binding(bound, self.cell, node.lineno, None, InferredObject(path)))

    def bind(self, binding: Binding) -> None:
        self.names[binding.name] = binding
        self.result.bindings.append(binding)

    def assign(
        self,
        target: ast.expr,
        value: ast.expr,
        inferred: InferredObject | None,
        position: int | None = None,
        again: bool = False,
    ) -> None:
        sources = tuple(self.sources(value))
        if isinstance(target, ast.Tuple | ast.List):
            parts = value.elts if isinstance(value, ast.Tuple | ast.List) else []
            for place, part in enumerate(target.elts):
                if len(parts) == len(target.elts):
                    self.assign(part, parts[place], self.result.thing(parts[place]))
                else:
                    self.assign(part, value, self.unpacked(value, place), place)
        elif isinstance(target, ast.Name):
            before = self.names.get(target.id) if again else None
            extra = (before,) if before else ()
            self.bind(Binding(target.id, self.cell, target.lineno, value, inferred, sources + extra, position, before))
        else:
            for inner in ast.walk(target):
                if isinstance(inner, ast.expr) and isinstance(getattr(inner, "ctx", None), ast.Load):
                    self.expression(inner)
            self.changed(target, value, sources)

    def changed(self, target: ast.expr, value: ast.expr, sources: tuple[Binding, ...]) -> None:
        """`df["x"] = value`, `df.loc[m, "x"] = value`, `df.drop(inplace=True)`: the same name, a new value."""
        base = base_name(target)
        before = self.names.get(base.id) if base is not None else None
        if base is None or before is None:
            return
        column = None
        if isinstance(target, ast.Subscript):
            part = target.slice.elts[-1] if isinstance(target.slice, ast.Tuple) else target.slice
            column = part.value if isinstance(part, ast.Constant) and isinstance(part.value, str) else None
        self.bind(
            Binding(
                base.id,
                self.cell,
                target.lineno,
                value,
                before.thing,
                (before, *sources),
                changes=before,
                column=column,
            )
        )

    def sources(self, value: ast.expr) -> Iterator[Binding]:
        for part in ast.walk(value):
            if isinstance(part, ast.Name) and (binding := self.result.bound.get(id(part))) is not None:
                yield binding

    def unpacked(self, value: ast.expr, place: int) -> InferredObject | None:
        if not isinstance(value, ast.Call):
            return None
        path = self.result.path(value.func)
        if path.endswith(".train_test_split") and place // 2 < len(value.args):
            return self.result.thing(value.args[place // 2])
        if path == "matplotlib.pyplot.subplots":
            return InferredObject("matplotlib.figure.Figure" if place == 0 else AXES, instance=True)
        if path.endswith((".fit_resample", ".fit_sample")) and place < len(value.args):
            return self.result.thing(value.args[place])
        return None

    def expression(self, node: ast.expr) -> InferredObject | None:
        inferred = self.meaning(node)
        if inferred is not None:
            self.result.things[id(node)] = inferred
        return inferred

    def meaning(self, node: ast.expr) -> InferredObject | None:
        if isinstance(node, ast.Name):
            binding = self.names.get(node.id)
            if binding is not None:
                self.result.bound[id(node)] = binding
            return binding.thing if binding is not None else None
        if isinstance(node, ast.Constant):
            return InferredObject(f"builtins.{type(node.value).__name__}", instance=True)
        if isinstance(node, ast.Attribute):
            return _infer_attribute(self.expression(node.value), node.attr)
        if isinstance(node, ast.Call):
            return self.call(node)
        if isinstance(node, ast.Subscript):
            self.expression(node.slice)
            return self.subscript(self.expression(node.value), node)
        if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp | ast.Lambda):
            outside = dict(self.names)
            self.inner(node)
            self.names = outside
        elif isinstance(node, ast.NamedExpr):
            inferred = self.expression(node.value)
            self.assign(node.target, node.value, inferred)
            return inferred
        else:
            self.parts(node)
        if isinstance(node, ast.BinOp | ast.Compare | ast.UnaryOp | ast.IfExp):
            return self.combined(node)
        literal = _LITERALS.get(type(node))
        return InferredObject(literal, instance=True) if literal else None

    def inner(self, node: ast.expr) -> None:
        """Lambdas and comprehensions hide the names that they bind."""
        if isinstance(node, ast.Lambda):
            for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]:
                self.names.pop(argument.arg, None)
            self.expression(node.body)
            return
        for generator in getattr(node, "generators", []):
            self.expression(generator.iter)
            for name in target_names(generator.target):
                self.names.pop(name.id, None)
            for test in generator.ifs:
                self.expression(test)
        for part in ("elt", "key", "value"):
            if isinstance(child := getattr(node, part, None), ast.expr):
                self.expression(child)

    def call(self, node: ast.Call) -> InferredObject | None:
        function = self.expression(node.func)
        for argument in [*node.args, *(word.value for word in node.keywords)]:
            self.expression(argument)
        self.record_inplace_call(node)
        if isinstance(node.func, ast.Attribute):
            receiver = self.result.thing(node.func.value)
            if (
                node.func.attr in _SAME_AGAIN
                and receiver is not None
                and receiver.instance
                and not receiver.path.startswith("statsmodels.")
            ):
                return receiver
            if node.func.attr in ("fit_transform", "transform") and receiver is not None:
                return InferredObject(ARRAY, instance=True)
        if function is None and isinstance(node.func, ast.Name) and node.func.id in _CONVERSIONS:
            return InferredObject(f"builtins.{_CONVERSIONS[node.func.id]}", instance=True)
        if function is None or function.instance:
            return None
        result_path = returned_class(function.path)
        if function.path == "pandas.concat":
            across = any(word.arg == "axis" for word in node.keywords)
            parts = node.args[0].elts if node.args and isinstance(node.args[0], ast.List | ast.Tuple) else []
            series = bool(parts) and all(self.result.kind(part) == SERIES for part in parts)
            result_path = SERIES if series and not across else FRAME
        return InferredObject(result_path, instance=True) if result_path else None

    def record_inplace_call(self, node: ast.Call) -> None:
        if not isinstance(node.func, ast.Attribute):
            return
        in_place = any(
            word.arg == "inplace" and isinstance(word.value, ast.Constant) and word.value.value is True
            for word in node.keywords
        )
        if in_place or node.func.attr in ("pop", "insert"):
            self.changed(node.func, node, tuple(self.sources(node)))

    def subscript(self, value: InferredObject | None, node: ast.Subscript) -> InferredObject | None:
        if value is None:
            return None
        key = node.slice
        if value.path in (f"{FRAME}.loc", f"{FRAME}.iloc"):
            if isinstance(key, ast.Tuple) and len(key.elts) == 2:
                last = key.elts[1]
                single = isinstance(last, ast.Constant) or (
                    isinstance(last, ast.UnaryOp) and isinstance(last.operand, ast.Constant)
                )
                if single:
                    return (
                        InferredObject(SERIES, True)
                        if isinstance(key.elts[0], ast.Slice | ast.Compare | ast.BinOp)
                        else None
                    )
                return InferredObject(FRAME, True) if isinstance(last, ast.Slice | ast.List) else None
            return (
                InferredObject(FRAME, True) if isinstance(key, ast.Slice | ast.Compare | ast.BinOp | ast.List) else None
            )
        if not value.instance:
            return None
        if value.path == FRAME:
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                return InferredObject(SERIES, True)
            key_kind = self.result.kind(key)
            whole = isinstance(key, ast.List | ast.Compare | ast.Slice | ast.BinOp | ast.UnaryOp | ast.ListComp)
            return InferredObject(FRAME, True) if whole or key_kind in (SERIES, "builtins.list") else None
        if value.path in _GROUPING or value.path in _ROLLING:
            single = isinstance(key, ast.Constant)
            return InferredObject({**_GROUPING, **_ROLLING}[value.path], True) if single else value
        if value.path == SERIES and isinstance(key, ast.Slice | ast.Compare):
            return value
        return value if value.path in (ARRAY, AXES) else None

    def combined(self, node: ast.BinOp | ast.Compare | ast.UnaryOp | ast.IfExp) -> InferredObject | None:
        if isinstance(node, ast.BinOp):
            sides: list[ast.expr] = [node.left, node.right]
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
        elif isinstance(node, ast.UnaryOp):
            sides = [node.operand]
        else:
            return None
        kinds = [self.result.kind(side) for side in sides]
        return next((InferredObject(kind, True) for kind in (FRAME, SERIES, ARRAY) if kind in kinds), None)


def _infer_attribute(value: InferredObject | None, name: str) -> InferredObject | None:
    if value is None:
        return None
    path = f"{value.path}.{name}"
    if not value.instance:
        return InferredObject(path)
    if path in ATTRIBUTES:
        kind = ATTRIBUTES[path]
        return InferredObject(kind, instance=kind != path)
    if value.path == FRAME and name not in FRAME_ATTRIBUTES and not returned_class(path) and not hasattr_frame(name):
        return InferredObject(SERIES, instance=True)
    if value.path == GROUPS and not returned_class(path) and name not in _GROUP_METHODS:
        return InferredObject(COLUMN_GROUPS, instance=True)
    return InferredObject(path)


_GROUP_METHODS = frozenset(
    split_words("groups indices ngroup get_group pipe describe resample rolling plot hist corr head")
)


def hasattr_frame(name: str) -> bool:
    """Whether a DataFrame has or had a method of that name; any other name is treated as a column."""
    return name.startswith(("to_", "from_", "_")) or name in _FRAME_METHODS


_FRAME_METHODS: Mapping[str, None] = dict.fromkeys(
    split_words(
        "as_matrix at_time backfill between_time blocks bool combine corrwith dot eq equals eval "
        "expanding first first_valid_index floordiv ge get get_dtype_counts get_value group groupby gt "
        "info insert is_copy items iteritems iterrows itertuples last last_valid_index le lookup lt "
        "memory_usage mod multiply ne pad pow product radd rdiv reindex_like reorder_levels resample "
        "rfloordiv rmod rmul rolling rpow rsub rtruediv select set_flags set_value slice_shift sort "
        "sortlevel subtract swapaxes take truediv tshift update xs keys plot hist boxplot style"
    )
)
