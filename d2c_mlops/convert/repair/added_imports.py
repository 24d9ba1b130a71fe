"""Add an import line for the names that a fix uses, if no name of the notebook conflicts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from dataclasses import replace

from d2c_mlops.convert.repair.fix_registry import RepairContext, insert_line_edit
from d2c_mlops.convert.source.finding import Edit
from d2c_mlops.convert.source.notebook import Cell

_INLINE = re.compile(r"__import__\('([\w.]+)'(?:, fromlist=\['\w+'\])?\)(?:\.(\w+))?")
_SHORT = {"numpy": "np", "pandas": "pd"}


def resolve_added_imports(context: RepairContext, cell: Cell, edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """Return edits whose `__import__('m').x` became names: imported already, or by a line at the top of the cell."""
    lines: list[str] = []

    def named(match: re.Match[str]) -> str:
        name, line = _import_name(context, cell, match[1], match[2] or "")
        if line and line not in lines:
            lines.append(line)
        return name or match[0]

    edits_by_name = tuple(replace(edit, text=_INLINE.sub(named, edit.text)) for edit in edits)
    first = cell.tree.body[0] if cell.tree is not None and cell.tree.body else None
    if not lines:
        return edits_by_name
    return (insert_line_edit(cell, first, "\n".join(lines)), *edits_by_name) if first is not None else tuple(edits)


def _import_name(context: RepairContext, cell: Cell, module: str, name: str) -> tuple[str, str]:
    """Return the name to write and the line that binds it; both empty if the name is in use."""
    bound = name or _SHORT.get(module, module)
    same = False
    for import_cell, node in context.nodes(ast.ImportFrom):
        for existing in node.names:
            if node.module == module and existing.name == name and name:
                same = True
                if import_cell.index <= cell.index:
                    return existing.asname or existing.name, ""
    for import_cell, plain in context.nodes(ast.Import):
        for existing in plain.names:
            if existing.name == module and import_cell.index <= cell.index:
                alias = existing.asname or existing.name
                return (f"{alias}.{name}" if name else alias), ""
            same = same or (existing.name == module and (existing.asname or existing.name) == bound)
    if not bound.isidentifier() or (bound in _bound_names(context) and not same):
        return "", ""
    if name:
        return name, f"from {module} import {name}"
    return bound, f"import {module}" + (f" as {bound}" if bound != module else "")


def _bound_names(context: RepairContext) -> set[str]:
    """Return all names that the notebook binds anywhere."""
    bound_names = {node.id for _, node in context.nodes(ast.Name) if not isinstance(node.ctx, ast.Load)}
    bound_names |= {node.name for _, node in context.nodes(ast.FunctionDef)}
    bound_names |= {node.name for _, node in context.nodes(ast.ClassDef)}
    bound_names |= {node.arg for _, node in context.nodes(ast.arg)}
    return bound_names | {part.asname or part.name.partition(".")[0] for _, part in context.nodes(ast.alias)}
