"""Edit source text by the positions of its nodes, so that comments and layout are preserved."""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from d2c_mlops.convert.source.statements import Statement


@dataclass(frozen=True, order=True)
class TextChange:
    """Replace a stretch of a cell: lines from 1, columns from 0 in UTF-8 bytes; an empty stretch inserts."""

    line: int
    column: int
    end_line: int
    end_column: int
    text: str


def replacing(node: ast.expr, text: str) -> TextChange:
    """Replace a node."""
    return TextChange(node.lineno, node.col_offset, node.end_lineno or node.lineno, node.end_col_offset or 0, text)


def calling(call: ast.Call, extras: Iterable[str], source: Sequence[str]) -> TextChange:
    """Add `name=name` for every extra to the end of a call's arguments."""
    line, column = call.end_lineno or call.lineno, (call.end_col_offset or 1) - 1
    given = [*call.args, *(word.value for word in call.keywords)]
    words = ", ".join(f"{name}={name}" for name in extras)
    if given:
        last = max(given, key=lambda each: (each.end_lineno or 0, each.end_col_offset or 0))
        between = _between(source, last.end_lineno or 0, last.end_col_offset or 0, line, column)
        bare = "".join(part.partition("#")[0] for part in between.split("\n"))
        if "," not in bare:
            words = f", {words}"
    return TextChange(line, column, line, column, words)


def _between(lines: Sequence[str], line: int, column: int, end_line: int, end_column: int) -> str:
    part = [plan_line.encode() for plan_line in lines[line - 1 : end_line]]
    part[-1] = part[-1][:end_column]
    part[0] = part[0][column:]
    return b"\n".join(part).decode()


def changed(statement: Statement, changes: Iterable[TextChange]) -> str:
    """Return the statement's source with changes applied."""
    lines = [line.encode() for line in statement.source.split("\n")]
    for change in sorted(set(changes), reverse=True):
        start, end = change.line - statement.first, change.end_line - statement.first
        head, tail = lines[start][: change.column], lines[end][change.end_column :]
        lines[start : end + 1] = (head + change.text.encode() + tail).split(b"\n")
    return b"\n".join(lines).decode()


def indented(source: str) -> str:
    """Return source one level deeper; texts over several lines keep their value."""
    plain = textwrap.indent(source, "    ")
    try:
        same = ast.dump(ast.parse("if 1:\n" + plain).body[0]) == ast.dump(_under(source))
    except SyntaxError:
        same = False
    return plain if same else textwrap.indent(_unparsed(source), "    ")


def returning(sources: Sequence[str], value: str) -> list[str]:
    """Return statements with `return value` after them; a value that the last one binds is returned at once."""
    *before, last = sources or [""]
    lines = last.split("\n")
    start = next((n for n, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    code = "\n".join(lines[start:])
    if value.isidentifier() and (found := re.match(rf"{re.escape(value)}\s*=\s*(?=[^=\s])", code)):
        node = ast.parse(code).body
        if len(node) == 1 and isinstance(node[0], ast.Assign) and len(node[0].targets) == 1:
            return [*before, "\n".join([*lines[:start], f"return {code[found.end() :]}"])]
    return [*sources, f"return {value}"]


def _under(source: str) -> ast.stmt:
    tree = ast.parse("if 1:\n    pass").body[0]
    assert isinstance(tree, ast.If)
    tree.body = ast.parse(source).body
    return tree


def _unparsed(source: str) -> str:
    """Write code anew without texts over several lines."""

    class Flat(ast._Unparser):  # type: ignore[name-defined,misc]
        def get_raw_docstring(self, node: ast.AST) -> None:
            return None

        def _write_constant(self, value: object) -> None:
            self.write(repr(value))

    made = str(Flat().visit(ast.parse(source)))
    return made


def with_extras(node: ast.FunctionDef | ast.AsyncFunctionDef, extras: Sequence[str]) -> str:
    """Return the head of a function, `def name(...):`, with keyword arguments added."""
    given = node.args
    kept = {*(argument.arg for argument in [*given.posonlyargs, *given.args, *given.kwonlyargs])}
    words = [ast.arg(name) for name in extras if name not in kept]
    args = ast.arguments(
        given.posonlyargs, given.args, given.vararg, [*given.kwonlyargs, *words],
        [*given.kw_defaults, *(None for _ in words)], given.kwarg, given.defaults,
    )  # fmt: skip
    arrow = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    prefix = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    return f"{prefix} {node.name}({ast.unparse(args)}){arrow}:"
