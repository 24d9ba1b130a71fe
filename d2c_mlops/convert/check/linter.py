"""Run ruff over all cells in one process and map its findings back to cells."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import NotRequired, TypedDict

from d2c_mlops.convert.source.finding import Finding, Severity
from d2c_mlops.convert.source.notebook import Cell, Notebook
from d2c_mlops.programs import find_program

CODES: dict[str, tuple[Severity, str]] = {
    "F401": ("info", "an unused import must still be installed"),
    "F402": ("warning", "a loop variable shadows an import"),
    "F502": ("error", "the format string is invalid; the cell raises"),
    "F507": ("error", "the format string is invalid; the cell raises"),
    "F524": ("error", "the format string is invalid; the cell raises"),
    "F601": ("warning", "the last value of a repeated key silently overwrites the others"),
    "F632": ("warning", "`is` compares identity, not value"),
    "F634": ("error", "a test on a tuple is always true"),
    "F811": ("info", "the first definition is never used"),
    "F823": ("error", "the name is not assigned yet; the function raises"),
    "E722": ("warning", "a bare except hides every error, KeyboardInterrupt included"),
    "B006": ("warning", "a mutable default is shared by all calls"),
    "DTZ003": ("warning", "utcnow() returns a time without a time zone"),
    "DTZ004": ("warning", "utcfromtimestamp() returns a time without a time zone"),
    "NPY001": ("error", "NumPy removed the alias"),
    "NPY003": ("error", "NumPy removed the function"),
    "NPY201": ("error", "NumPy 2 removed the name"),
    "PLE1205": ("error", "the log message cannot be formatted"),
    "S102": ("warning", "exec executes any code in the string"),
    "S301": ("warning", "loading a pickle executes the code that it contains"),
    "S307": ("warning", "eval executes any code in the string"),
    "S501": ("warning", "the certificate is not verified, so any server can answer"),
    "S506": ("warning", "yaml.load can create any object"),
    "S608": ("warning", "a query built from strings allows SQL injection"),
}
_SIDE_EFFECTS = re.compile(r"Axes3D|enable_\w+|cufflinks|google\.colab|mpl_toolkits")
_FROM_LINE = re.compile(r"\bline (\d+)\b")
_QUOTED = re.compile(r"`([^`]+)`")


class RuffPlace(TypedDict):
    """A place in the source that ruff read: row and column from 1."""

    row: int
    column: int


class RuffHit(TypedDict):
    """A finding as ruff writes it; only what is used here."""

    code: str
    name: NotRequired[str]
    message: str
    location: RuffPlace
    fix: dict[str, str] | None
    url: NotRequired[str]


@dataclass
class Lint:
    """A running ruff; `read_ruff_findings` waits for it."""

    notebook: Notebook
    process: subprocess.Popen[str] | None
    source: str
    places: tuple[tuple[Cell, int], ...] = field(repr=False)  # for each row of the source: cell, line


@cache
def find_ruff() -> str | None:
    """Return the ruff of this environment, else the one on the path."""
    return find_program("ruff")


def start_ruff(notebook: Notebook) -> Lint:
    """Start ruff on the Python of all cells that can be parsed; it works while the rules do."""
    rows: list[str] = []
    places: list[tuple[Cell, int]] = []
    for cell in notebook.code:
        if cell.tree is not None:
            for line, text in enumerate(cell.python.split("\n"), start=1):
                rows.append(text.replace("\f", " "))
                places.append((cell, line))
    program = find_ruff()
    process = None
    if program and rows and notebook.is_python:
        command = [program, "check", "--isolated", "--no-cache", "--quiet", "--exit-zero", "--ignore-noqa"]
        command += ["--target-version", "py311", "--output-format", "json", "--select", ",".join(CODES)]
        command += ["--stdin-filename", "notebook.py", "-"]
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, encoding="utf-8"
        )
    return Lint(notebook, process, "\n".join(rows) + "\n", tuple(places))


def read_ruff_findings(lint: Lint) -> Iterator[Finding]:
    """Wait for ruff and yield its findings, with its codes as rule ids; nothing if ruff is not installed."""
    if lint.process is None:
        return
    try:
        answer, _ = lint.process.communicate(lint.source, timeout=30)
        hits: list[RuffHit] = json.loads(answer or "[]")
    except (subprocess.TimeoutExpired, ValueError, OSError):
        lint.process.kill()
        return
    elsewhere = _words_unseen_by_ruff(lint.notebook)
    for hit in hits:
        row = hit["location"]["row"] - 1
        if hit["code"] not in CODES or not 0 <= row < len(lint.places):
            continue
        if hit["code"] == "F401" and _is_ruff_finding_kept(hit["message"], elsewhere):
            continue
        yield _finding_from_ruff(lint, hit, *lint.places[row])


def _finding_from_ruff(lint: Lint, hit: RuffHit, cell: Cell, line: int) -> Finding:
    severity, why = CODES[hit["code"]]
    fix = (hit.get("fix") or {}).get("message") or "see the documentation of the rule"
    return Finding(
        rule=hit["code"],
        name=hit.get("name") or "ruff",
        severity=severity,
        notebook=str(lint.notebook.path),
        cell=cell.index,
        line=line,
        column=hit["location"]["column"],
        message=_FROM_LINE.sub(lambda match: _cell_and_line_text(lint, match), hit["message"].rstrip(".")),
        why=why,
        fix=fix
        if fix != "see the documentation of the rule"
        else f"{fix}: {hit.get('url') or 'https://docs.astral.sh/ruff'}",
        cell_id=cell.id,
    )


def _cell_and_line_text(lint: Lint, match: re.Match[str]) -> str:
    """Return the cell and the line in it; ruff counts the lines of all cells together."""
    row = int(match[1]) - 1
    cell, line = lint.places[row] if row < len(lint.places) else lint.places[-1]
    return f"cell {cell.number}, line {line}"


def _words_unseen_by_ruff(notebook: Notebook) -> frozenset[str]:
    """Words of magics and of cells that ruff does not see."""
    texts = [cell.source for cell in notebook.code if cell.tree is None]
    texts += [magic.command for cell in notebook.code for magic in cell.magics]
    texts += [cell.source for cell in notebook.code if any(magic.kind == "cell" for magic in cell.magics)]
    return frozenset(word for text in texts for word in re.findall(r"\w+", text))


def _is_ruff_finding_kept(message: str, elsewhere: frozenset[str]) -> bool:
    quoted = _QUOTED.search(message)
    name = quoted[1] if quoted else ""
    last = re.split(r"[. ]", name)[-1]
    return last in elsewhere or _SIDE_EFFECTS.search(name) is not None
