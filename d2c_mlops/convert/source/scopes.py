"""Names that Python code binds, reads and changes, in the order of execution."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


def split_words(text: str) -> list[str]:
    """Return the words of a text: a long table of names, kept readable."""
    return text.split()


CHANGING_METHODS = frozenset(
    split_words(
        "append appendleft build_vocab clear compile extend extendleft fit fit_generator fit_predict "
        "fit_resample fit_sample fit_transform insert load_state_dict load_weights partial_fit pop popitem "
        "popleft remove reverse set_params setdefault sort train_on_batch update"
    )
)
_CHANGES_ALSO_AS_EXPRESSION = frozenset(
    split_words(
        "fit fit_generator fit_predict fit_resample fit_sample fit_transform insert partial_fit pop popitem popleft "
        "set_params setdefault train_on_batch"
    )
)
_SHUFFLES = frozenset({"random.shuffle", "np.random.shuffle", "numpy.random.shuffle", "rng.shuffle"})
_Scoped = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclass(frozen=True)
class Use:
    """The position of a name; lines and columns count from 1 within the cell."""

    name: str
    line: int
    column: int


@dataclass(frozen=True)
class Import:
    """One imported name: `import a.b as c` is module a.b, bound c; `from a import b as c` adds the member b."""

    module: str
    member: str
    bound: str
    line: int
    column: int
    level: int = 0

    @property
    def path(self) -> str:
        """The dotted path of the imported object."""
        if self.member:
            return f"{self.module}.{self.member}"
        return self.module if self.bound != self.module.split(".")[0] else self.bound


@dataclass(frozen=True)
class Function:
    """A function or class of the notebook with the names that it takes from outside itself."""

    name: str
    line: int
    parameters: tuple[str, ...]
    reads: tuple[Use, ...]  # globals that its body reads, builtins among them
    writes: tuple[str, ...]  # names that it declares `global`
    mutates: tuple[str, ...]  # globals that its body changes in place


@dataclass
class Names:
    """The names of a piece of code; every mapping is in the order of first appearance."""

    defines: dict[str, Use] = field(default_factory=dict)
    binds: list[Use] = field(default_factory=list)
    reads: dict[str, Use] = field(default_factory=dict)
    loads: dict[str, list[Use]] = field(default_factory=dict)
    mutates: dict[str, Use] = field(default_factory=dict)
    deletes: dict[str, Use] = field(default_factory=dict)
    imports: list[Import] = field(default_factory=list)
    stars: list[Import] = field(default_factory=list)
    functions: dict[str, Function] = field(default_factory=dict)
    deferred: dict[str, Use] = field(default_factory=dict)


def names_in(statements: Iterable[ast.stmt]) -> Names:
    """Walk statements in the order in which they run."""
    walk = _Walk()
    for statement in statements:
        walk.visit(statement)
    return walk.names


def dotted_name(node: ast.expr) -> str:
    """Return `a.b.c` for a chain of attributes over a name, else an empty text."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def base_name(node: ast.expr) -> ast.Name | None:
    """Return the name below attributes and subscripts: `df` in `df.loc[a].x`."""
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Starred):
        node = node.value
    return node if isinstance(node, ast.Name) else None


def target_names(target: ast.expr) -> Iterator[ast.Name]:
    """Yield the names that an assignment to `target` binds."""
    if isinstance(target, ast.Name):
        yield target
    elif isinstance(target, ast.Starred):
        yield from target_names(target.value)
    elif isinstance(target, ast.Tuple | ast.List):
        for part in target.elts:
            yield from target_names(part)


def _name_use(node: ast.expr, name: str = "") -> Use:
    return Use(name or getattr(node, "id", ""), node.lineno, node.col_offset + 1)


class _Walk(ast.NodeVisitor):
    """Visits in evaluation order; `bound` is what this scope has bound so far, `hidden` what inner scopes hide."""

    def __init__(self) -> None:
        self.names = Names()
        self.hidden: list[set[str]] = []

    def bind(self, name: str, node: ast.AST) -> None:
        if any(name in scope for scope in self.hidden):
            return
        use = Use(name, getattr(node, "lineno", 1), getattr(node, "col_offset", 0) + 1)
        self.names.binds.append(use)
        self.names.defines.setdefault(name, use)

    def load(self, node: ast.Name) -> None:
        if any(node.id in scope for scope in self.hidden):
            return
        use = _name_use(node)
        self.names.loads.setdefault(node.id, []).append(use)
        if node.id not in self.names.defines:
            self.names.reads.setdefault(node.id, use)

    def change(self, node: ast.expr) -> None:
        base = base_name(node)
        if base is not None and not any(base.id in scope for scope in self.hidden):
            self.names.mutates.setdefault(base.id, _name_use(base))

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            self.load(node)
        elif isinstance(node.ctx, ast.Store):
            self.bind(node.id, node)
        else:
            self.names.deletes.setdefault(node.id, _name_use(node))
            if node.id in self.names.defines:
                del self.names.defines[node.id]
            else:
                self.load(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self.assign(target)

    def assign(self, target: ast.expr) -> None:
        for part in ast.walk(target):
            if isinstance(part, ast.Attribute | ast.Subscript) and isinstance(part.ctx, ast.Store):
                self.change(part)
        self.visit(target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if isinstance(node.target, ast.Name):
            self.load(ast.copy_location(ast.Name(node.target.id, ast.Load()), node.target))
        self.visit(node.value)
        self.assign(node.target)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.visit(node.annotation)
        if node.value is not None:
            self.visit(node.value)
            self.assign(node.target)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        self.bind(node.target.id, node.target)

    def visit_For(self, node: ast.For | ast.AsyncFor) -> None:
        self.visit(node.iter)
        self.assign(node.target)
        for statement in [*node.body, *node.orelse]:
            self.visit(statement)

    visit_AsyncFor = visit_For

    def visit_Delete(self, node: ast.Delete) -> None:
        for target in node.targets:
            if isinstance(target, ast.Attribute | ast.Subscript):
                self.change(target)
            self.visit(target)

    def visit_Expr(self, node: ast.Expr) -> None:
        call = node.value
        method = call.func if isinstance(call, ast.Call) else None
        if isinstance(method, ast.Attribute) and method.attr in CHANGING_METHODS | {"add", "discard"}:
            self.change(method)
        self.visit(call)

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute):
            in_place = any(
                word.arg == "inplace" and isinstance(word.value, ast.Constant) and word.value.value is True
                for word in node.keywords
            )
            if in_place or node.func.attr in _CHANGES_ALSO_AS_EXPRESSION:
                self.change(node.func)
            if dotted_name(node.func) in _SHUFFLES and node.args:
                self.change(node.args[0])
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            bound = alias.asname or alias.name.split(".")[0]
            self.names.imports.append(Import(alias.name, "", bound, node.lineno, node.col_offset + 1))
            self.bind(bound, node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = "." * node.level + (node.module or "")
        for alias in node.names:
            bound = alias.asname or alias.name
            imported = Import(
                module,
                alias.name,
                "" if bound == "*" else bound,
                node.lineno,
                node.col_offset + 1,
                node.level,
            )
            self.names.imports.append(imported)
            if alias.name == "*":
                self.names.stars.append(imported)
            else:
                self.bind(bound, node)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.type is not None:
            self.visit(node.type)
        if node.name:
            self.bind(node.name, node)
        for statement in node.body:
            self.visit(statement)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        if node.pattern is not None:
            self.visit(node.pattern)
        if node.name:
            self.bind(node.name, node)

    def visit_MatchStar(self, node: ast.MatchStar) -> None:
        if node.name:
            self.bind(node.name, node)

    def visit_MatchMapping(self, node: ast.MatchMapping) -> None:
        self.generic_visit(node)
        if node.rest:
            self.bind(node.rest, node)

    def comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        self.visit(node.generators[0].iter)
        targets = {name.id for generator in node.generators for name in target_names(generator.target)}
        self.hidden.append(targets)
        for number, clause in enumerate(node.generators):
            if number:
                self.visit(clause.iter)
            for test in clause.ifs:
                self.visit(test)
        if isinstance(node, ast.DictComp):
            self.visit(node.key)
            self.visit(node.value)
        else:
            self.visit(node.elt)
        self.hidden.pop()

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = comprehension

    def visit_Lambda(self, node: ast.Lambda) -> None:
        for default in [*node.args.defaults, *(default for default in node.args.kw_defaults if default)]:
            self.visit(default)
        self.hidden.append(set(_parameter_names(node.args)))
        self.visit(node.body)
        self.hidden.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for outer in [
            *node.decorator_list,
            *node.args.defaults,
            *(default for default in node.args.kw_defaults if default),
        ]:
            self.visit(outer)
        self.bind(node.name, node)
        function = _function_scope(node)
        self.names.functions[node.name] = function
        for use in function.reads:
            if not any(use.name in scope for scope in self.hidden):
                self.names.deferred.setdefault(use.name, use)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for outer in [*node.decorator_list, *node.bases, *(word.value for word in node.keywords)]:
            self.visit(outer)
        inner = names_in(node.body)
        for use in inner.reads.values():
            self.load(ast.Name(use.name, ast.Load(), lineno=use.line, col_offset=use.column - 1))
        self.bind(node.name, node)
        late = tuple(use for use in inner.deferred.values())
        reads = (*inner.reads.values(), *late)
        self.names.functions[node.name] = Function(node.name, node.lineno, (), reads, (), tuple(inner.mutates))
        for use in late:
            self.names.deferred.setdefault(use.name, use)


def _parameter_names(arguments: ast.arguments) -> tuple[str, ...]:
    every = [*arguments.posonlyargs, *arguments.args, arguments.vararg, *arguments.kwonlyargs, arguments.kwarg]
    return tuple(argument.arg for argument in every if argument is not None)


def _function_scope(node: ast.FunctionDef | ast.AsyncFunctionDef) -> Function:
    inner = names_in(node.body)
    declared = {name for part in _outside_functions(node.body) if isinstance(part, ast.Global) for name in part.names}
    local = ({use.name for use in inner.binds} | set(_parameter_names(node.args))) - declared
    every = {**inner.reads, **{name: use for name, use in inner.deferred.items() if name not in inner.reads}}
    reads = tuple(use for name, use in every.items() if name not in local)
    return Function(
        node.name,
        node.lineno,
        _parameter_names(node.args),
        reads,
        tuple(sorted(declared & {use.name for use in inner.binds})),
        tuple(name for name in inner.mutates if name not in local),
    )


def _outside_functions(statements: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Walk a body without entering the functions inside it."""
    todo = list(statements)
    while todo:
        node = todo.pop()
        yield node
        if not isinstance(node, _Scoped):
            todo.extend(ast.iter_child_nodes(node))
