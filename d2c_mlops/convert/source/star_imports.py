"""Names that `from module import *` binds, read from the module's source without importing it."""

from __future__ import annotations

import ast
import importlib
import re
import sys
import sysconfig
from collections.abc import Iterator
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path

_DEEPEST = 12  # star imports that lead to star imports
_GATHERING = frozenset({"list", "set", "tuple", "sorted", "frozenset"})


class _Unknown(Exception):
    """An expression whose value cannot be read from the source."""


@cache
def public_names(module: str) -> tuple[str, ...] | None:
    """Return the names that a star import of an installed module binds, sorted; None if the source does not show them.

    Modules of the standard library without source (math, itertools) are the one exception: they come with the interpreter
    and are asked themselves. A module that lies beside the notebook is no installed one.
    """
    if module.startswith("."):
        return None
    names = _public_names(module, 0)
    return None if names is None else tuple(sorted(names))


def _public_names(module: str, depth: int) -> set[str] | None:
    if depth > _DEEPEST:
        return None
    source = module_source_file(module)
    if source is None:
        if module in sys.stdlib_module_names and (module in sys.builtin_module_names or _is_standard(module)):
            loaded = importlib.import_module(module)
            return set(getattr(loaded, "__all__", None) or (n for n in vars(loaded) if not n.startswith("_")))
        return None
    try:
        tree = ast.parse(source.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return None
    package = module if source.name == "__init__.py" else module.rpartition(".")[0]
    body = list(_module_statements(tree.body))
    try:
        listed = _dunder_all_names(body, package, depth)
    except _Unknown:
        listed = None
    if listed is not None:
        return listed
    bound = _bound_names(body, package, depth)
    return None if bound is None else {name for name in bound if not name.startswith("_")}


@cache
def module_source_file(module: str) -> Path | None:
    """Return the source file of an installed module; no parent package is imported to find it."""
    top, *parts = module.split(".")
    installed = [sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")]
    spec = PathFinder.find_spec(top, list(dict.fromkeys(installed)))
    for part in parts:
        if spec is None or spec.submodule_search_locations is None:
            return None
        spec = PathFinder.find_spec(part, list(spec.submodule_search_locations))
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin)


def _is_standard(module: str) -> bool:
    spec = PathFinder.find_spec(module, [sysconfig.get_path("stdlib"), sysconfig.get_config_var("DESTSHARED") or ""])
    return spec is not None


def _module_statements(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements that run when a module is imported here, those of its branches included."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With | ast.For | ast.While):
            branches = [[] if _never_true(statement) else statement.body]
            branches += [getattr(statement, "orelse", []), getattr(statement, "finalbody", [])]
            branches += [handler.body for handler in getattr(statement, "handlers", [])]
            for branch in branches:
                yield from _module_statements(branch)


def _never_true(statement: ast.stmt) -> bool:
    """Return whether a branch is for type checkers or another platform."""
    if not isinstance(statement, ast.If):
        return False
    test = ast.unparse(statement.test)
    return test.endswith("TYPE_CHECKING") or (bool(re.search(r"== '(nt|win32)'", test)) and sys.platform != "win32")


def _dunder_all_names(body: list[ast.stmt], package: str, depth: int) -> set[str] | None:
    """Return the value of __all__; None if the module has none; raises _Unknown if the source does not show it."""
    listed_names: set[str] | None = None
    for statement in body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and _assigns_dunder_all(statement):
            value = statement.value
            listed_names = listed_names if value is None else _listed_names(value, body, package, depth, listed_names)
        elif isinstance(statement, ast.AugAssign) and _is_dunder_all(statement.target):
            listed_names = (listed_names or set()) | _listed_names(statement.value, body, package, depth, listed_names)
        elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
            call = statement.value
            if isinstance(call.func, ast.Attribute) and _is_dunder_all(call.func.value):
                listed_names = _changed_all_names(listed_names or set(), call, body, package, depth)
    return listed_names


def _changed_all_names(
    listed_names: set[str], call: ast.Call, body: list[ast.stmt], package: str, depth: int
) -> set[str]:
    assert isinstance(call.func, ast.Attribute)
    if call.func.attr == "extend" and len(call.args) == 1:
        return listed_names | _listed_names(call.args[0], body, package, depth, listed_names)
    if call.func.attr in ("append", "remove") and len(call.args) == 1 and isinstance(call.args[0], ast.Constant):
        name = {str(call.args[0].value)}
        return listed_names | name if call.func.attr == "append" else listed_names - name
    if call.func.attr in ("sort", "reverse"):
        return listed_names
    raise _Unknown


def _assigns_dunder_all(statement: ast.Assign | ast.AnnAssign) -> bool:
    targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
    return any(_is_dunder_all(target) for target in targets)


def _is_dunder_all(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == "__all__"


def _listed_names(node: ast.expr, body: list[ast.stmt], package: str, depth: int, current: set[str] | None) -> set[str]:
    """Return the names that an expression lists."""

    def listed_part(part: ast.expr) -> set[str]:
        return _listed_names(part, body, package, depth, current)

    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        names: set[str] = set()
        for element in node.elts:
            if isinstance(element, ast.Starred):
                names |= listed_part(element.value)
            elif isinstance(element, ast.Constant) and isinstance(element.value, str):
                names.add(element.value)
            else:
                raise _Unknown
        return names
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.BitOr):
        return listed_part(node.left) | listed_part(node.right)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub):
        return listed_part(node.left) - listed_part(node.right)
    if isinstance(node, ast.Call):
        if isinstance(node.func, ast.Name) and node.func.id in _GATHERING and len(node.args) <= 1 and not node.keywords:
            return listed_part(node.args[0]) if node.args else set()
        if isinstance(node.func, ast.Attribute) and node.func.attr == "copy" and not node.args:
            return listed_part(node.func.value)
    if isinstance(node, ast.Name):
        if node.id == "__all__" and current is not None:
            return current
        values = [
            assignment.value
            for assignment in body
            if isinstance(assignment, ast.Assign) and _assigns_name(assignment, node.id)
        ]
        if len(values) == 1:
            return listed_part(values[0])
    if isinstance(node, ast.Attribute) and node.attr == "__all__":
        module = _module_of(node.value, body, package)
        listed = None if module is None else _public_names(module, depth + 1)
        if listed is not None:
            return listed
    raise _Unknown


def _assigns_name(statement: ast.Assign, name: str) -> bool:
    return any(isinstance(target, ast.Name) and target.id == name for target in statement.targets)


def _module_of(node: ast.expr, body: list[ast.stmt], package: str) -> str | None:
    """Return the dotted name of the module of an expression."""
    text = ast.unparse(node)
    for statement in body:
        if isinstance(statement, ast.Import):
            for alias in statement.names:
                if alias.asname == text or (alias.asname is None and alias.name == text):
                    return alias.name
        elif isinstance(statement, ast.ImportFrom):
            origin = _absolute_module(statement, package)
            for alias in statement.names:
                if (alias.asname or alias.name) == text and module_source_file(f"{origin}.{alias.name}") is not None:
                    return f"{origin}.{alias.name}"
    return None


def _absolute_module(statement: ast.ImportFrom, package: str) -> str:
    if not statement.level:
        return statement.module or ""
    parts = package.split(".")[: len(package.split(".")) - statement.level + 1]
    return ".".join([*parts, *([statement.module] if statement.module else [])])


def _bound_names(body: list[ast.stmt], package: str, depth: int) -> set[str] | None:
    """Return every name that a module's statements bind; None if one of its star imports cannot be read."""
    names: set[str] = set()
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Import):
            names |= {alias.asname or alias.name.split(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            if statement.names[0].name == "*":
                listed = _public_names(_absolute_module(statement, package), depth + 1)
                if listed is None:
                    return None
                names |= listed
            else:
                names |= {alias.asname or alias.name for alias in statement.names}
        elif isinstance(statement, ast.Delete):
            names -= {target.id for target in statement.targets if isinstance(target, ast.Name)}
        else:
            names |= {node.id for node in _assigned_names(statement)}
    return names


def _assigned_names(statement: ast.stmt) -> Iterator[ast.Name]:
    """Yield the names that an assignment, a loop or a with statement binds."""
    bound: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        bound = statement.targets
    elif isinstance(statement, ast.For) or (isinstance(statement, ast.AnnAssign) and statement.value is not None):
        bound = [statement.target]
    elif isinstance(statement, ast.With):
        bound = [item.optional_vars for item in statement.items if item.optional_vars is not None]
    for target in bound:
        yield from (node for node in ast.walk(target) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
