"""Fixes of removed APIs: by the table of API changes, before a run and after a failure."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace

from d2c_mlops.convert.api_changes.change import ApiChange, applicable_changes
from d2c_mlops.convert.check.rules.library_changes import affected_places
from d2c_mlops.convert.repair.added_imports import resolve_added_imports
from d2c_mlops.convert.repair.fix_registry import (
    CellFailure,
    Proposal,
    RepairContext,
    add_argument_edit,
    fix_after_failure,
    fix_before_run,
    last_name,
    replace_node_edit,
    source_text,
)
from d2c_mlops.convert.repair.replacement_registry import IMPORTED, attribute_call, replacement_edits
from d2c_mlops.convert.source.finding import Edit, Hit, last_name_replacement
from d2c_mlops.convert.source.notebook import Cell


@fix_before_run("api", "", "", "removed from the installed library", order=10)
def removed_names(context: RepairContext) -> Iterator[Proposal]:
    for hit, change in affected_places(context.subject):
        if hit.cell is None:
            continue
        cell = context.cell(hit.cell)
        if change.kind == "behaviour" and change.path != "seaborn.distplot":
            continue
        edits = hit.edits or _rewrite_hit(context, cell, hit, change)
        if edits:
            yield Proposal(edits, f"{hit.message}: use {change.instead}")


def _rewrite_hit(context: RepairContext, cell: Cell, hit: Hit, change: ApiChange) -> tuple[Edit, ...]:
    """Rewrite at the place of a hit that has no simple edit."""
    key = change.path + (f"|{change.argument}" if change.kind == "keyword" else "")
    for kind in (ast.Call, ast.Attribute):
        for _, node in context.nodes(kind, cell):
            if (node.lineno, node.col_offset + 1) != (hit.line, hit.column):
                continue
            func = node.func if isinstance(node, ast.Call) else node
            same = context.subject.inference.path(func)
            if same == change.path or (change.pattern and change.pattern.match(same)):
                real = node if change.kind in ("keyword", "value") else func
                if isinstance(real, ast.Call | ast.Attribute) and (edits := replacement_edits(key, cell, real)):
                    return with_imported_names(context, cell, edits)
    return ()


def with_pandas_alias(context: RepairContext, edits: tuple[Edit, ...]) -> tuple[Edit, ...]:
    """Write the name under which the notebook imported pandas."""
    name = module_alias(context, "pandas")
    if name == "pd":
        return edits
    return tuple(replace(edit, text=re.sub(r"(?<![\w.])pd\.", f"{name}.", edit.text)) for edit in edits)


def with_imported_names(context: RepairContext, cell: Cell, edits: tuple[Edit, ...]) -> tuple[Edit, ...]:
    """Write edits with the names that the notebook imports, and import missing ones."""
    return resolve_added_imports(context, cell, with_pandas_alias(context, edits))


def module_alias(context: RepairContext, module: str) -> str:
    """Return the name of an imported module, or an expression that imports it."""
    for _, node in context.nodes(ast.Import):
        for alias in node.names:
            if alias.name == module:
                return alias.asname or module
    return f"__import__('{module}')"


@fix_before_run("moved-import", "", "", "the name has moved", order=5)
def moved_imports(context: RepairContext) -> Iterator[Proposal]:
    for cell, node in context.nodes(ast.ImportFrom):
        if node.level or not node.module:
            continue
        aliases: list[str] = []
        lines: dict[str, list[str]] = {}
        uses: list[tuple[str, str]] = []
        reasons: list[str] = []
        for alias in node.names:
            path = f"{node.module}.{alias.name}"
            change = _removal_at_path(path)
            new, use = IMPORTED.get(path, ("", ""))
            if change is None or not (new or change.to):
                aliases.append(_bound_name(alias.name, alias.asname))
                continue
            new = new or change.to + path[len(change.path) :]
            parent, _, last = new.rpartition(".")
            bound = alias.asname or alias.name
            if use and use != bound and ("." in use or alias.asname is None):
                uses.append((bound, use))
                bound = last
            lines.setdefault(parent, []).append(_bound_name(last, bound))
            reasons.append(f"`{path}` was removed in {change.library} {change.since}: use {new}")
        if not lines:
            continue
        moved = [
            f"from {module} import {', '.join(dict.fromkeys(names))}" if module else f"import {', '.join(names)}"
            for module, names in lines.items()
        ]
        first = [f"from {node.module} import {', '.join(aliases)}"] if aliases else []
        text = ("\n" + " " * node.col_offset).join([*first, *moved])
        edits = [replace_node_edit(cell, node, text), *_usage_edits(context, uses)]
        yield Proposal(tuple(edits), "; ".join(reasons))


def _bound_name(name: str, asname: str | None) -> str:
    return name if asname in (None, name) else f"{name} as {asname}"


def _removal_at_path(path: str) -> ApiChange | None:
    removals = [
        c for c in applicable_changes() if c.kind == "gone" and (path == c.path or path.startswith(c.path + "."))
    ]
    return max(removals, key=lambda change: len(change.path), default=None)


def _usage_edits(context: RepairContext, uses: list[tuple[str, str]]) -> Iterator[Edit]:
    new = dict(uses)
    for cell, node in context.nodes(ast.Name):
        if node.id in new and isinstance(node.ctx, ast.Load):
            yield replace_node_edit(cell, node, new[node.id])


@fix_before_run("moved-attribute", "", "", "the name has moved", order=6)
def moved_attributes(context: RepairContext) -> Iterator[Proposal]:
    """`metrics.plot_confusion_matrix(...)`: the module is there, the name in it is not."""
    for cell, node in context.nodes(ast.Attribute):
        path = context.subject.inference.path(node)
        new, use = IMPORTED.get(path, ("", ""))
        change = _removal_at_path(path) if new else None
        if change is None:
            continue
        if new.rpartition(".")[0] == path.rpartition(".")[0]:
            text = f"{source_text(cell, node.value)}.{use}"
        else:
            module, _, name = new.rpartition(".")
            text = f"__import__('{module}', fromlist=['{name}']).{use}"
        edits = with_imported_names(context, cell, (replace_node_edit(cell, node, text),))
        yield Proposal(edits, f"`{path}` was removed in {change.library} {change.since}")


@fix_after_failure("gone-attribute", "", "", "removed from the installed library", order=20)
def gone_attribute(context: RepairContext, failure: CellFailure) -> Proposal | None:
    if failure.kind != "AttributeError" or not failure.name:
        return None
    holder = failure.holder.removeprefix("module:").removeprefix("class:")
    short = holder.rpartition(".")[2]
    for change in applicable_changes():
        parent, _, name = change.path.rpartition(".")
        if change.kind != "gone" or name != failure.name:
            continue
        if parent != holder and parent.rpartition(".")[2] != short:
            continue
        for cell, node in context.failing(failure, ast.Attribute):
            if node.attr != name:
                continue
            edits = _same_place_edit(cell, node, change) or with_imported_names(
                context, cell, replacement_edits(change.path, cell, node)
            )
            edits = edits or _moved_name(context, cell, node, change)
            if edits:
                return Proposal(edits, change_reason(change))
    return None


def _same_place_edit(cell: Cell, node: ast.Attribute, change: ApiChange) -> tuple[Edit, ...]:
    if change.text:
        return (replace_node_edit(cell, node, change.text),)
    if change.to and change.to.rpartition(".")[0] == change.path.rpartition(".")[0]:
        return (last_name_replacement(cell.index, node, change.to.rpartition(".")[2]),)
    return ()


def _moved_name(context: RepairContext, cell: Cell, node: ast.Attribute, change: ApiChange) -> tuple[Edit, ...]:
    """A name that lives in another module now."""
    module, _, name = change.to.rpartition(".")
    if not module or module[0].isupper() or module.rpartition(".")[2][:1].isupper():
        return ()
    text = f"__import__('{module}', fromlist=['{name}']).{name}"
    return resolve_added_imports(context, cell, (replace_node_edit(cell, node, text),))


def change_reason(change: ApiChange) -> str:
    """Return the reason of a fix by the table of changes."""
    return f"`{change.title[:90]}` was removed in {change.library} {change.since}: use {change.instead}"


@fix_after_failure("cannot-import", "", "", "the name has moved", order=30)
def cannot_import(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """A name that was removed from its module: imported from its new place, or left out if it is unused."""
    match = re.match(r"cannot import name '(\w+)' from '([\w.]+)'", failure.message)
    if failure.kind != "ImportError" or match is None:
        return None
    for cell, node in context.failing(failure, ast.ImportFrom):
        if node.module is None or not any(alias.name == match[1] for alias in node.names):
            continue
        bound = next(
            resolve_added_imports.asname or resolve_added_imports.name
            for resolve_added_imports in node.names
            if resolve_added_imports.name == match[1]
        )
        used = any(name.id == bound for _, name in context.nodes(ast.Name))
        if used:
            continue
        aliases = [_bound_name(alias.name, alias.asname) for alias in node.names if alias.name != match[1]]
        text = f"from {node.module} import {', '.join(aliases)}" if aliases else "pass"
        return Proposal(
            (replace_node_edit(cell, node, text),), f"`{match[1]}` was removed from {match[2]}, and nothing uses it"
        )
    return None


@fix_after_failure("numeric-only", "pandas", "2.0", "text columns are no longer skipped silently", order=15)
def numbers_only(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """Means, correlations and similar methods of frames with text columns."""
    names = {
        "corr",
        "cov",
        "mean",
        "median",
        "std",
        "var",
        "sem",
        "skew",
        "kurt",
        "kurtosis",
        "quantile",
        "sum",
        "prod",
        "max",
        "min",
        "corrwith",
    }
    text = (
        "could not convert string to float",
        "does not support operation",
        "agg function failed",
        "Could not convert",
        "Cannot perform reduction",
        "unsupported operand type",
        "not supported for the input types",
        "can't multiply",
        "Cannot convert",
        "complex() arg",
        "cannot perform",
        "not supported between instances of",
        "datetime64 type does not",
        "does not support reduction",
        "Invalid value",
        "could not convert",
        "has no kernel matching input types",
        "does not support aggregation",
        "Cannot aggregate non-numeric type",
        "Cannot interpolate with",
    )
    if not failure.says(*text) or not {"TypeError", "ValueError", "NotImplementedError"} & set(failure.bases):
        return None
    if not failure.through("pandas/"):
        return None
    for cell, call in context.failing(failure, ast.Call):
        name = last_name(call.func)
        keywords = {word.arg for word in call.keywords}
        if name in names and isinstance(call.func, ast.Attribute) and "numeric_only" not in keywords:
            return Proposal(
                (add_argument_edit(cell, call, "numeric_only=True"),),
                f"{name}() over text columns raises since pandas 2",
            )
        first = call.args[0] if call.args else None
        plain = isinstance(first, ast.Constant) or (first is not None and last_name(first) in names)
        if name in ("agg", "aggregate") and plain and "numeric_only" not in keywords:
            return Proposal(
                (add_argument_edit(cell, call, "numeric_only=True"),), "agg() over text columns raises since pandas 2"
            )
        inner_call = attribute_call(cell, call)
        if inner_call is not None and last_name(inner_call.func) in names:
            return Proposal(
                (add_argument_edit(cell, inner_call, "numeric_only=True"),), "text columns raise since pandas 2"
            )
    return None
