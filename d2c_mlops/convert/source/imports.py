"""Collect the imports of a notebook, and the names with more than one meaning."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Sequence
from dataclasses import dataclass, field

from d2c_mlops.convert.source.star_imports import public_names
from d2c_mlops.convert.source.statements import Statement

Place = tuple[int, int]


@dataclass
class Imports:
    """The imports that move to the top; `contested` names have several meanings in the notebook and stay in place."""

    lines: list[str] = field(default_factory=list)
    paths: dict[str, str] = field(default_factory=dict)  # bound name -> dotted path
    contested: set[str] = field(default_factory=set)
    hoisted: set[Place] = field(default_factory=set)
    staying: dict[Place, tuple[str, ...]] = field(default_factory=dict)  # what a star import that stays binds
    stars: list[str] = field(default_factory=list)  # modules whose names could not be listed


def is_import(node: ast.stmt) -> bool:
    """Whether a statement only imports: an import, or a try around imports."""
    if isinstance(node, ast.Try):
        parts = [*node.body, *node.orelse, *(statement for handler in node.handlers for statement in handler.body)]
        return (
            bool(node.body)
            and all(is_import(statement) for statement in node.body)
            and all(is_import(part) or isinstance(part, ast.Pass) for part in parts)
        )
    return isinstance(node, ast.Import | ast.ImportFrom)


def collect_imports(all_statements: Sequence[Statement]) -> Imports:
    """Collect the imports of all statements; star imports are resolved to the names that the notebook uses."""
    imports = Imports()
    paths: dict[str, set[str]] = {}
    first: dict[str, Place] = {}
    used = {name for statement in all_statements for name in statement.facts.loads}
    bound = {name for statement in all_statements if not is_import(statement.node) for name in statement.facts.binds}
    entries: list[tuple[Place, str, str, str]] = []  # place, bound name, path, line
    for code_statement in all_statements:
        if not is_import(code_statement.node):
            continue
        for name, path, line in _imported_names(code_statement.node, used, imports):
            entries.append((code_statement.place, name, path, line))
            paths.setdefault(name, set()).add(path)
            first.setdefault(name, code_statement.place)
    for name, where in paths.items():
        early = any(name in node.facts.loads and node.place < first[name] for node in all_statements) and hasattr(
            builtins, name
        )
        if len(where) > 1 or name in bound or early:
            imports.contested.add(name)
    stay = {place for place, name, _, _ in entries if name in imports.contested}
    for _, name, path, line in entries:
        if name in imports.contested:
            continue
        imports.paths[name] = path
        if line not in imports.lines:
            imports.lines.append(line)
    stars = {
        statement.place
        for statement in all_statements
        if isinstance(statement.node, ast.ImportFrom) and statement.node.names[0].name == "*"
    }
    for place, name, _, _ in entries:
        if place in stay & stars and name in imports.contested:
            imports.staying[place] = (*imports.staying.get(place, ()), name)
    imports.hoisted = {
        statement.place for statement in all_statements if is_import(statement.node) and statement.place not in stay
    }
    return imports


def _imported_names(node: ast.stmt, used: set[str], imports: Imports) -> list[tuple[str, str, str]]:
    if isinstance(node, ast.Try):
        text = ast.unparse(node)
        inner = [word for part in ast.walk(node) if isinstance(part, ast.Import | ast.ImportFrom)
                 for word in _imported_names(part, used, imports)]  # fmt: skip
        return [(name, f"try {text}", text) for name, _, _ in inner]
    if isinstance(node, ast.Import):
        entries = []
        for alias in node.names:
            name = alias.asname or alias.name.split(".")[0]
            path = alias.name if alias.asname else name
            entries.append((name, path, f"import {alias.name}" + (f" as {alias.asname}" if alias.asname else "")))
        return entries
    assert isinstance(node, ast.ImportFrom)
    module = "." * node.level + (node.module or "")
    if module == "__future__":
        return []
    entries = []
    for alias in node.names:
        if alias.name == "*":
            listed = public_names(module)
            if listed is None:
                imports.stars.append(module)
                imports.lines.append(f"from {module} import *")
                continue
            entries += [
                (public_name, f"{module}.{public_name}", f"from {module} import {public_name}")
                for public_name in listed
                if public_name in used
            ]
            continue
        name = alias.asname or alias.name
        tail = f" as {alias.asname}" if alias.asname else ""
        entries.append((name, f"{module}.{alias.name}", f"from {module} import {alias.name}{tail}"))
    return entries
