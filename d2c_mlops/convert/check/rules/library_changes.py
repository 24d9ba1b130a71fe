"""Rules about APIs that the installed libraries removed or changed."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

from d2c_mlops.convert.api_changes.change import ApiChange, applicable_changes, installed_version
from d2c_mlops.convert.check.rule import Subject, make_hit, make_rule_example, rule
from d2c_mlops.convert.meaning.roles import keyword_value
from d2c_mlops.convert.source.finding import (
    Edit,
    Hit,
    keyword_name_replacement,
    last_name_replacement,
    node_replacement,
)
from d2c_mlops.convert.source.notebook import Cell
from d2c_mlops.convert.source.scopes import Import

_ONLY_PANDAS = frozenset({"applymap", "as_matrix", "iteritems", "ix"})


@rule(
    "D2C501",
    "api-gone",
    "error",
    why="the installed version of the library removed it; the cell raises",
    fix="use the replacement",
    bad=make_rule_example("import numpy as np\nx = np.NaN"),
    good=make_rule_example("import numpy as np\nx = np.nan\nlist.append([], 1)"),
)
def api_gone(subject: Subject) -> Iterator[Hit]:
    yield from (usage for usage, change in affected_places(subject) if change.kind != "behaviour")


@rule(
    "D2C502",
    "api-changed",
    "warning",
    why="it still runs, but its meaning changed after the notebook was written",
    fix="state the intended behaviour explicitly",
    bad=make_rule_example("import seaborn as sns\nsns.distplot([1, 2])"),
    good=make_rule_example("import seaborn as sns\nsns.histplot([1, 2])"),
)
def api_changed(subject: Subject) -> Iterator[Hit]:
    yield from (usage for usage, change in affected_places(subject) if change.kind == "behaviour")


def affected_places(subject: Subject) -> Iterator[tuple[Hit, ApiChange]]:
    """Yield every place that a change affects, with the change."""
    for cell, node in subject.nodes:
        if isinstance(node, ast.ImportFrom | ast.Import):
            yield from _import_changes(cell, node)
        elif isinstance(node, ast.Attribute):
            path = subject.inference.path(node) or _pandas_only_name(subject, node)
            for change in _matching_changes(path, "gone"):
                yield _change_hit(subject, cell, node, change, _attribute_edits(cell, node, path, change)), change
    for cell, call, path in subject.calls:
        if not path and _appends_rows(call):
            for change in _matching_changes("pandas.DataFrame.append", "gone"):
                yield _change_hit(subject, cell, call.func, change, ()), change
        for kind in ("keyword", "value", "positional", "behaviour"):
            for change in _matching_changes(path, kind):
                edits = _call_edits(subject, cell, call, change)
                if edits is not None:
                    yield _change_hit(subject, cell, call, change, edits), change


def _appends_rows(call: ast.Call) -> bool:
    """`x.append(row, ignore_index=True)`: no list takes that argument."""
    is_append = isinstance(call.func, ast.Attribute) and call.func.attr == "append"
    return is_append and keyword_value(call, "ignore_index") is not None


def _pandas_only_name(subject: Subject, node: ast.Attribute) -> str:
    """Names that exist only in pandas, on objects of unknown type such as results of functions."""
    inferred = subject.inference.thing(node) or subject.inference.thing(node.value)
    return f"pandas.DataFrame.{node.attr}" if inferred is None and node.attr in _ONLY_PANDAS else ""


@cache
def _matching_changes(path: str, kind: str) -> tuple[ApiChange, ...]:
    if not path:
        return ()
    return tuple(
        change
        for change in applicable_changes()
        if change.kind == kind and (change.path == path or (change.pattern and change.pattern.match(path)))
    )


def _change_hit(subject: Subject, cell: Cell, node: ast.AST, change: ApiChange, edits: tuple[Edit, ...]) -> Hit:
    have = installed_version(change.library)
    status = {"gone": "is gone", "behaviour": "has changed"}.get(change.kind, "is no longer accepted")
    if change.kind != "behaviour" and change.severity != "error":
        status = "is deprecated"
    version = f"{change.library} {change.since}" + (f", {have} is installed" if have else "")
    message = f"`{change.title if len(change.title) < 100 else change.path}` {status} since {version}"
    inside = id(node) in subject.fstring_node_ids  # nodes in f-strings have no trustworthy place in Python 3.11
    return make_hit(
        cell,
        node,
        message,
        fix=f"use {change.instead}",
        severity=change.severity,
        edits=() if inside else edits,
    )


def _import_changes(cell: Cell, node: ast.Import | ast.ImportFrom) -> Iterator[tuple[Hit, ApiChange]]:
    replaced: list[tuple[ast.alias, ApiChange, str]] = []
    for alias in node.names:
        module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        if isinstance(node, ast.ImportFrom) and node.level:
            continue
        path = f"{module}.{alias.name}" if module else alias.name
        change = _longest_match(path)
        if change is not None:
            replaced.append((alias, change, change.to + path[len(change.path) :] if change.to else ""))
    whole = len(replaced) == len(node.names) and all(new for _, _, new in replaced)
    text = _import_text(replaced) if whole else ""
    for alias, change, _ in replaced:
        have = installed_version(change.library)
        version = f"{change.library} {change.since}" + (f", {have} is installed" if have else "")
        edits = (node_replacement(cell.index, node, text),) if text else ()
        message = f"`{change.path}` was removed in {version}"
        yield (
            make_hit(cell, alias, message, fix=f"use {change.instead}", severity=change.severity, edits=edits),
            change,
        )


@cache
def _longest_match(path: str) -> ApiChange | None:
    fitting = [
        change
        for change in applicable_changes()
        if change.kind == "gone" and (path == change.path or path.startswith(change.path + "."))
    ]
    return max(fitting, key=lambda change: len(change.path), default=None)


def _import_text(replaced: list[tuple[ast.alias, ApiChange, str]]) -> str:
    """The statement that imports the same names from their new places; empty where one line cannot."""
    modules = {new.rpartition(".")[0] for _, _, new in replaced}
    if len(modules) != 1:
        return ""
    module = modules.pop()
    parts = []
    for alias, _, new in replaced:
        last = new.rpartition(".")[2]
        bound = alias.asname or alias.name
        if "." in bound:
            return ""
        parts.append(last if bound == last else f"{last} as {bound}")
    return f"from {module} import {', '.join(parts)}" if module else f"import {', '.join(parts)}"


def _attribute_edits(cell: Cell, node: ast.Attribute, path: str, change: ApiChange) -> tuple[Edit, ...]:
    if change.text:
        return (node_replacement(cell.index, node, change.text),)
    new_parent, _, new = change.to.rpartition(".")
    if new and new_parent == path.rpartition(".")[0]:
        return (last_name_replacement(cell.index, node, new),)
    return ()


def _call_edits(subject: Subject, cell: Cell, call: ast.Call, change: ApiChange) -> tuple[Edit, ...] | None:
    """Return edits that fix the call, none if no edit is safe; None if the change does not affect the call."""
    if change.kind == "behaviour":
        return () if not change.argument or keyword_value(call, change.argument) is None else None
    if change.kind == "positional":
        return _positional_edits(cell, call, change)
    if change.kind == "keyword":
        word = next((word for word in call.keywords if word.arg == change.argument), None)
        if word is None:
            return None
        if change.to:
            return (keyword_name_replacement(cell.index, word, change.to),)
        drop = isinstance(word.value, ast.Constant) and any(
            word.value.value is value or (word.value.value == value and type(word.value.value) is type(value))
            for value in change.droppable
        )
        return (_keyword_removal(cell, call, word),) if drop else ()
    argument = keyword_value(call, change.argument) if change.argument else None
    if argument is None and change.position is not None and len(call.args) > change.position:
        argument = call.args[change.position]
    if not isinstance(argument, ast.Constant) or (
        isinstance(argument.value, int | float) and not isinstance(argument.value, bool)
    ):
        return None
    return _value_edits(cell, argument, change)


def _value_edits(cell: Cell, argument: ast.Constant, change: ApiChange) -> tuple[Edit, ...] | None:
    text = str(argument.value)
    count, name = "", text
    if text not in change.values and (numbered := re.match(r"^(-?\d+)(\D.*)$", text)):
        count, name = numbered[1], numbered[2]
    if name not in change.values or (count and change.library != "pandas"):
        return None
    new = change.values[name]
    return (node_replacement(cell.index, argument, repr(count + new)),) if new is not None else ()


def _positional_edits(cell: Cell, call: ast.Call, change: ApiChange) -> tuple[Edit, ...] | None:
    position = change.position or 0
    extra = call.args[position:]
    if not extra or any(isinstance(part, ast.Starred) for part in call.args):
        return None
    keywords = {word.arg for word in call.keywords}
    names = change.names[: len(extra)]
    if len(names) < len(extra) or keywords & set(names) or None in keywords:
        return ()
    return tuple(
        Edit(cell.index, part.lineno, part.col_offset, part.lineno, part.col_offset, f"{name}=")
        for part, name in zip(extra, names, strict=True)
    )


def _keyword_removal(cell: Cell, call: ast.Call, word: ast.keyword) -> Edit:
    """Remove a keyword with the comma before it, or after it if it is the first argument."""
    parts: list[ast.expr | ast.keyword] = [*call.args, *call.keywords]
    parts.sort(key=lambda part: (part.lineno, part.col_offset))
    at = parts.index(word)
    end_line, end = word.end_lineno or 0, word.end_col_offset or 0
    if at:
        before = parts[at - 1]
        return Edit(cell.index, before.end_lineno or 0, before.end_col_offset or 0, end_line, end, "")
    if len(parts) > 1:
        return Edit(cell.index, word.lineno, word.col_offset, parts[1].lineno, parts[1].col_offset, "")
    return Edit(cell.index, word.lineno, word.col_offset, end_line, end, "")


def import_change(imported: Import) -> ApiChange | None:
    """Return the change that took an import away, if any."""
    return _longest_match(imported.path)
