"""Edit source text by the positions of its nodes, so that comments and layout are preserved."""

from __future__ import annotations

import ast
import io
import re
import tokenize
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


def node_text_change(node: ast.expr, text: str) -> TextChange:
    """Replace a node."""
    return TextChange(node.lineno, node.col_offset, node.end_lineno or node.lineno, node.end_col_offset or 0, text)


def add_keyword_arguments(call: ast.Call, extras: Iterable[str], source: Sequence[str]) -> TextChange:
    """Add `name=name` for every extra to the end of a call's arguments."""
    line, column = call.end_lineno or call.lineno, (call.end_col_offset or 1) - 1
    arguments = [*call.args, *(word.value for word in call.keywords)]
    words = ", ".join(f"{name}={name}" for name in extras)
    if arguments:
        last = max(arguments, key=lambda argument: (argument.end_lineno or 0, argument.end_col_offset or 0))
        between = _text_between(source, last.end_lineno or 0, last.end_col_offset or 0, line, column)
        bare = "".join(part.partition("#")[0] for part in between.split("\n"))
        if "," not in bare:
            words = f", {words}"
    return TextChange(line, column, line, column, words)


def _text_between(lines: Sequence[str], line: int, column: int, end_line: int, end_column: int) -> str:
    part = [plan_line.encode() for plan_line in lines[line - 1 : end_line]]
    part[-1] = part[-1][:end_column]
    part[0] = part[0][column:]
    return b"\n".join(part).decode()


def apply_changes(statement: Statement, changes: Iterable[TextChange]) -> str:
    """Return the statement's source with changes applied."""
    lines = [line.encode() for line in statement.source.split("\n")]
    for change in sorted(set(changes), reverse=True):
        start, end = change.line - statement.first, change.end_line - statement.first
        head, tail = lines[start][: change.column], lines[end][change.end_column :]
        lines[start : end + 1] = (head + change.text.encode() + tail).split(b"\n")
    return b"\n".join(lines).decode()


def indent_source(source: str) -> str:
    """Return source one level deeper; lines inside a text over several lines stay as they are, so that it keeps its value."""
    inside = _lines_inside_texts(source)
    lines = enumerate(source.split("\n"), 1)
    return "\n".join(line if number in inside or not line.strip() else f"    {line}" for number, line in lines)


def _lines_inside_texts(source: str) -> set[int]:
    """Return the numbers of the lines (1 is the first) that begin inside a text, an f-string among them."""
    inside: set[int] = set()
    starts: list[int] = []  # lines of the open f-strings, which Python 3.12 and later cut into tokens
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        if kind == "STRING":
            inside.update(range(token.start[0] + 1, token.end[0] + 1))
        elif kind == "FSTRING_START":
            starts.append(token.start[0])
        elif kind == "FSTRING_END":
            inside.update(range(starts.pop() + 1, token.end[0] + 1))
    return inside


def append_return(sources: Sequence[str], value: str) -> list[str]:
    """Return statements with `return value` after them; a value that the last one binds is returned at once."""
    *before, last = sources or [""]
    lines = last.split("\n")
    start = next((n for n, line in enumerate(lines) if line.strip() and not line.startswith("#")), len(lines))
    code = "\n".join(lines[start:])
    if value.isidentifier() and (match := re.match(rf"{re.escape(value)}\s*=\s*(?=[^=\s])", code)):
        node = ast.parse(code).body
        if len(node) == 1 and isinstance(node[0], ast.Assign) and len(node[0].targets) == 1:
            return [*before, "\n".join([*lines[:start], f"return {code[match.end() :]}"])]
    return [*sources, f"return {value}"]


def with_keyword_parameters(node: ast.FunctionDef | ast.AsyncFunctionDef, extras: Sequence[str]) -> str:
    """Return the head of a function, `def name(...):`, with keyword arguments added."""
    signature = node.args
    present = {*(argument.arg for argument in [*signature.posonlyargs, *signature.args, *signature.kwonlyargs])}
    words = [ast.arg(name) for name in extras if name not in present]
    args = ast.arguments(
        signature.posonlyargs, signature.args, signature.vararg, [*signature.kwonlyargs, *words],
        [*signature.kw_defaults, *(None for _ in words)], signature.kwarg, signature.defaults,
    )  # fmt: skip
    arrow = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    prefix = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    return f"{prefix} {node.name}({ast.unparse(args)}){arrow}:"
