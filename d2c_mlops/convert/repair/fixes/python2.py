"""Fixes of Python 2 code: print statements and similar syntax, removed names and methods."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from d2c_mlops.convert.repair.fix_registry import (
    CellFailure,
    Proposal,
    RepairContext,
    fix_after_failure,
    fix_before_run,
    replace_node_edit,
)
from d2c_mlops.convert.source.finding import Edit, last_name_replacement
from d2c_mlops.convert.source.notebook import code_cell

_PRINT = re.compile(
    r"^(?P<indent>\s*(?:[^#'\"]*:\s)?)print(?:(?P<gap>[ \t]+)(?P<rest>(?!\().*?|\(.*\)\s*[%,+].*?))?(?P<end>\s*;?\s*)$"
)
_LONGEST = 500  # characters of a line; longer ones are data
_EXCEPT = re.compile(r"^(\s*except\s+[\w.]+|\s*except\s*\([^)]*\))\s*,\s*(\w+)\s*:")
_RAISE = re.compile(r"^(\s*raise\s+[\w.]+)\s*,\s*(.+)$")


@fix_before_run("python-2", "", "", "the cell is Python 2 code", order=1)
def python_two(context: RepairContext) -> Iterator[Proposal]:
    """Rewrite lines until the cell can be parsed; otherwise the cell is unchanged."""
    for cell in context.notebook.code:
        if cell.problem is None or cell.problem.kind == "automagic":
            continue
        lines = cell.source.split("\n")
        new_lines = [python_3_line(line) for line in lines]
        if new_lines != lines and code_cell(cell.index, "\n".join(new_lines)).problem is None:
            edits = tuple(
                Edit(cell.index, number, 0, number, len(old.encode()), new)
                for number, (old, new) in enumerate(zip(lines, new_lines, strict=True), 1)
                if old != new
            )
            yield Proposal(edits)


def python_3_line(line: str) -> str:
    """Return a line of Python 2 as Python 3; other lines as they are."""
    if len(line) > _LONGEST:
        return line
    line = _EXCEPT.sub(r"\1 as \2:", line)
    raised = _RAISE.match(line)
    if raised:
        return f"{raised[1]}({raised[2].strip()})"
    first, *parts = line.split("<>")
    line = " != ".join([first.rstrip(), *(part.strip() for part in parts[:-1]), parts[-1].lstrip()]) if parts else line
    if "'" not in line and '"' not in line:
        line = re.sub(r"(?<![\w.])0([0-7]+)(?![\w.])", r"0o\1", line)
        line = re.sub(r"(?<![\w.])(\d+)[lL]\b", r"\1", line)
        line = re.sub(r"`([\w.]+)`", r"repr(\1)", line)
    line = re.sub(r"\bur(['\"])", r"r\1", line)
    match = _PRINT.match(line)
    if match and (match["rest"] or line.strip() == "print"):
        printed = (match["rest"] or "").strip()
        if printed.startswith(">>"):
            target, _, printed = printed[2:].partition(",")
            return f"{match['indent']}print({printed.strip()}, file={target.strip()})"
        if not re.match(r"[=.,\[)]|(?:in|is|and|or|not|if)\b", printed):
            tail = printed.endswith(",")
            inside = printed.rstrip(",").rstrip() + (", end=' '" if tail else "")
            return f"{match['indent']}print({inside}){match['end']}"
    return line


@fix_after_failure("no-numpy-alias", "", "", "the name is a Python 2 builtin", order=30)
def python_two_names(context: RepairContext, failure: CellFailure) -> Proposal | None:
    """Names of Python 2 that no longer exist."""
    names = {
        "xrange": "range",
        "unicode": "str",
        "raw_input": "input",
        "basestring": "str",
        "long": "int",
        "unichr": "chr",
    }
    if failure.kind != "NameError" or failure.name not in names:
        return None
    edits = tuple(
        replace_node_edit(cell, node, names[node.id])
        for cell, node in context.nodes(ast.Name)
        if node.id == failure.name
    )
    return Proposal(edits, f"`{failure.name}` is a Python 2 builtin: use {names[failure.name]}") if edits else None


@fix_after_failure("old-method", "", "", "the dict method was removed in Python 3", order=30)
def old_methods(context: RepairContext, failure: CellFailure) -> Proposal | None:
    names = {"iteritems": "items", "itervalues": "values", "iterkeys": "keys"}
    if failure.kind != "AttributeError" or failure.name not in names:
        return None
    for cell, node in context.failing(failure, ast.Attribute):
        if node.attr == failure.name:
            return Proposal((last_name_replacement(cell.index, node, names[node.attr]),), f"use .{names[node.attr]}()")
    return None
