"""A finding of a check, and the exact edits that fix it."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Literal, TypedDict, TypeGuard

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")


def is_severity(text: str) -> TypeGuard[Severity]:
    """Whether a text is one of the three severities."""
    return text in SEVERITIES


@dataclass(frozen=True)
class Edit:
    """Replace a stretch of a cell's source. Lines from 1; columns from 0 in UTF-8 bytes, as in the ast module."""

    cell: int
    line: int
    column: int
    end_line: int
    end_column: int
    text: str


@dataclass(frozen=True)
class Hit:
    """A result of a rule: the place and the problem; `cell` is None for the whole notebook."""

    cell: int | None
    line: int
    column: int
    message: str
    fix: str = ""  # instead of the rule's own
    severity: Severity | None = None  # instead of the rule's own
    edits: tuple[Edit, ...] = ()  # an exact fix that preserves the meaning


class FindingFacts(TypedDict):
    """A Finding as JSON values; `cell` counts from 1, null for the whole notebook."""

    rule: str
    name: str
    severity: Severity
    notebook: str
    cell: int | None
    cell_id: str
    line: int
    column: int
    message: str
    why: str
    fix: str
    autofix: bool


@dataclass(frozen=True)
class Finding:
    """One finding in one notebook; `cell` counts from 0 among all cells, `line` and `column` from 1 within the cell."""

    rule: str
    name: str
    severity: Severity
    notebook: str
    cell: int | None
    line: int
    column: int
    message: str
    why: str
    fix: str
    cell_id: str = ""
    edits: tuple[Edit, ...] = field(default=(), repr=False)

    @property
    def autofix(self) -> bool:
        """Whether `--fix` can fix it without changing the meaning of the notebook."""
        return bool(self.edits)

    @property
    def where(self) -> str:
        """The place as a reader counts: cells, lines and columns from 1."""
        return "notebook" if self.cell is None else f"cell {self.cell + 1}, line {self.line}"

    def to_dict(self) -> FindingFacts:
        """Return the finding as plain JSON values; `cell` counts from 1, null for the whole notebook."""
        return {
            "rule": self.rule,
            "name": self.name,
            "severity": self.severity,
            "notebook": self.notebook,
            "cell": None if self.cell is None else self.cell + 1,
            "cell_id": self.cell_id,
            "line": self.line,
            "column": self.column,
            "message": self.message,
            "why": self.why,
            "fix": self.fix,
            "autofix": self.autofix,
        }


def node_replacement(cell: int, node: ast.AST, text: str) -> Edit:
    """Replace a whole node by a text."""
    assert isinstance(node, ast.expr | ast.stmt | ast.keyword | ast.alias)
    return Edit(
        cell,
        node.lineno,
        node.col_offset,
        node.end_lineno or node.lineno,
        node.end_col_offset or node.col_offset,
        text,
    )


def last_name_replacement(cell: int, node: ast.Attribute, name: str) -> Edit:
    """Replace the last name of `a.b.c`."""
    line, end = node.end_lineno or node.lineno, node.end_col_offset or 0
    return Edit(cell, line, end - len(node.attr.encode()), line, end, name)


def keyword_name_replacement(cell: int, word: ast.keyword, name: str) -> Edit:
    """Replace the name of a keyword argument."""
    old = word.arg or ""
    return Edit(cell, word.lineno, word.col_offset, word.lineno, word.col_offset + len(old.encode()), name)
