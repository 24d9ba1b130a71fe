"""Decide which functions of the notebook can be exported, and what they read from its globals."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from d2c_mlops.convert.source.dataflow import BUILTINS
from d2c_mlops.convert.source.scopes import Function, names_in, target_names
from d2c_mlops.convert.source.statements import Statement

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class AuthorFunction:
    """A function or class of the author; `extras` become keyword arguments, `reason` says why it is not exported."""

    name: str
    statement: Statement
    extras: tuple[str, ...]
    reason: str = ""


def author_functions_in(
    all_statements: Sequence[Statement],
    imported: frozenset[str],
    bound_before: Mapping[tuple[int, int], frozenset[str]],
) -> dict[str, AuthorFunction]:
    """Return the author's functions and classes by name."""
    bindings: dict[str, int] = {}
    for node in all_statements:
        for name in node.facts.binds:
            bindings[name] = bindings.get(name, 0) + 1
    defined = {s.node.name: s for s in all_statements if isinstance(s.node, Definition)}
    reads = {name: _global_reads(s, imported, set(bindings)) for name, s in defined.items()}
    reasons = {name: _unexportable_reason(s, bindings, imported) for name, s in defined.items()}
    while True:
        extras = _transitive_reads(reads, reasons)
        wrong = {}
        for name, statement in defined.items():
            if not reasons[name]:
                reason = _refusal_reason(name, statement, extras, all_statements, bound_before)
                if reason:
                    wrong[name] = reason
        if not wrong:
            break
        reasons |= wrong
    return {
        name: AuthorFunction(name, s, () if reasons[name] else tuple(sorted(extras[name])), reasons[name])
        for name, s in defined.items()
    }


def _global_reads(statement: Statement, imported: frozenset[str], bound: set[str]) -> set[str]:
    names = names_in([statement.node])
    function: Function = names.functions[statement.node.name]  # type: ignore[attr-defined]
    read = {use.name for use in function.reads} | set(function.mutates)
    if isinstance(statement.node, ast.ClassDef):
        read |= set(names.reads)
    return {name for name in read if name in bound or name not in (BUILTINS | imported)} - {statement.node.name}  # type: ignore[attr-defined]


def _unexportable_reason(statement: Statement, bindings: Mapping[str, int], imported: frozenset[str]) -> str:
    node = statement.node
    assert isinstance(node, Definition)
    names = names_in([node])
    if bindings[node.name] > 1 or node.name in imported:
        return f"the name {node.name} has different meanings in the notebook"
    if names.functions[node.name].writes:
        return f"{node.name} assigns global names"
    if any(isinstance(part, ast.Nonlocal | ast.Global) for part in ast.walk(node)):
        return f"{node.name} assigns names outside of itself"
    outside = {name for name in names.reads if name in bindings}
    if outside and not isinstance(node, ast.ClassDef):
        return f"the defaults or decorators of {node.name} read {', '.join(sorted(outside))}"
    if node.name.startswith("__"):
        return f"{node.name} is a Python builtin"
    return ""


def _transitive_reads(reads: Mapping[str, set[str]], reasons: Mapping[str, str]) -> dict[str, set[str]]:
    """The global names that each function reads, including those of the functions that it calls."""
    extras = {
        name: {mentioned for mentioned in needed if reasons.get(mentioned, "kept")} for name, needed in reads.items()
    }
    while True:
        grown = False
        for name, needed in reads.items():
            for reference in needed:
                if reference in extras and not reasons[reference] and not extras[reference] <= extras[name]:
                    extras[name] |= extras[reference]
                    grown = True
        if not grown:
            return extras


def _refusal_reason(
    name: str,
    statement: Statement,
    extras: Mapping[str, set[str]],
    all_statements: Sequence[Statement],
    bound_before: Mapping[tuple[int, int], frozenset[str]],
) -> str:
    needed = extras[name]
    if not needed:
        return ""
    if isinstance(statement.node, ast.ClassDef):
        return f"the class {name} reads {', '.join(sorted(needed))} from the notebook"
    for node in all_statements:
        for call, hidden in function_reads(node.node, name):
            if call is None:
                return f"{name} reads {', '.join(sorted(needed))} from the notebook and is passed as a value"
            if hidden & needed:
                return f"{name} is called where {', '.join(sorted(hidden & needed))} has another meaning"
            if any(word.arg in needed or word.arg is None for word in call.keywords):
                return f"{name} is called with keywords that have the same names as the values it reads"
        top = not isinstance(node.node, Definition)
        if top and name in node.facts.loads and (missing := needed - bound_before[node.place]):
            return f"{name} is called before {', '.join(sorted(missing))} has a value"
    return ""


def function_reads(
    node: ast.AST, name: str, hidden: frozenset[str] = frozenset()
) -> Iterator[tuple[ast.Call | None, set[str]]]:
    """Yield each read of `name`: the call, or None if it is used as a value, with the names that inner scopes hide."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
        if name not in hidden:
            yield node, set(hidden)
        for child in [*node.args, *node.keywords]:
            yield from function_reads(child, name, hidden)
        return
    if isinstance(node, ast.Name) and node.id == name and isinstance(node.ctx, ast.Load) and name not in hidden:
        yield None, set(hidden)
        return
    yield from (nested for child, inner in _walk_scopes(node, hidden) for nested in function_reads(child, name, inner))


def _walk_scopes(node: ast.AST, hidden: frozenset[str]) -> Iterator[tuple[ast.AST, frozenset[str]]]:
    inner = hidden
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
        arguments = node.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
        inner = hidden | {statement.arg for statement in every if statement is not None}
        if not isinstance(node, ast.Lambda):
            inner |= {use.name for use in names_in(node.body).binds}
    elif isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        inner = hidden | {name.id for generator in node.generators for name in target_names(generator.target)}
    elif isinstance(node, ast.ClassDef):
        inner = hidden | {use.name for use in names_in(node.body).binds}
    for child in ast.iter_child_nodes(node):
        yield child, inner
