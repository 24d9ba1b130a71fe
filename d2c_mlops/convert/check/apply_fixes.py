"""Write a copy of a notebook with the safe fixes applied; the original is not changed."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from d2c_mlops.convert.check.check import apply_all_rules
from d2c_mlops.convert.check.finding_report import Report
from d2c_mlops.convert.check.rule import Subject
from d2c_mlops.convert.source.finding import Edit, Finding
from d2c_mlops.convert.source.notebook import (
    Cell,
    code_cell,
    decode_notebook,
    json_cells,
    json_document,
    parse_notebook,
    read_notebook,
)
from d2c_mlops.errors import UsageError

_PASSES = 5  # an edit may uncover another on the same line


@dataclass(frozen=True)
class FixedCopy:
    """The copy, the fixes applied to it, and the remaining findings."""

    path: Path
    fixed: tuple[Finding, ...]
    report: Report

    def to_text(self) -> str:
        """Return one line per fix, then the remaining findings."""
        lines = [f"{finding.where}: {finding.rule} {finding.message}: {finding.fix}" for finding in self.fixed]
        head = (
            f"applied {len(lines)} fixes in {self.path}"
            if lines
            else f"nothing to fix; {self.path} is an unchanged copy"
        )
        return "\n".join([head, *(f"  {line}" for line in lines), "", self.report.to_text()])


def write_fixed_copy(path: Path | str, out: Path) -> FixedCopy:
    """Write `out` with every safe edit of `check` applied; raises UsageError if it would replace the original."""
    path = Path(path)
    notebook = read_notebook(path)
    if out.exists() and out.samefile(path):
        raise UsageError("the copy would overwrite the original", where=str(out), next="name another file for the copy")
    raw = path.read_bytes()
    fixed: list[Finding] = []
    for _ in range(_PASSES):
        subject = Subject(notebook, path.parent)
        findings = apply_all_rules(subject)
        sources, applied = apply_fixes(notebook.cells, findings)
        if not applied:
            break
        fixed.extend(applied)
        raw = _notebook_with_sources(raw, path, sources)
        notebook = parse_notebook(raw, path)
    _write_atomic(raw, out)
    remaining = apply_all_rules(Subject(notebook, path.parent))
    return FixedCopy(out, tuple(fixed), Report((str(path),), remaining))


def apply_fixes(cells: Iterable[Cell], findings: Iterable[Finding]) -> tuple[dict[int, str], list[Finding]]:
    """Apply edits to sources; all edits of a finding or none, and only where the cell can still be parsed."""
    by_index = {cell.index: cell for cell in cells}
    chosen: dict[int, list[Edit]] = {}
    applied: list[Finding] = []
    for finding in findings:
        if finding.cell is None or not finding.edits:
            continue
        cell, accepted = by_index[finding.cell], chosen.get(finding.cell, [])
        new = [edit for edit in finding.edits if edit not in accepted]
        if any(_edits_clash(edit, earlier) for edit in new for earlier in accepted):
            continue
        if not all(_lines_unchanged(cell, edit) for edit in new):
            continue
        source = apply_edits(cell.source, [*accepted, *new])
        if code_cell(cell.index, source).problem is None:
            chosen[finding.cell] = [*accepted, *new]
            applied.append(finding)
    return {index: apply_edits(by_index[index].source, edits) for index, edits in chosen.items()}, applied


def apply_edits(source: str, edits: Iterable[Edit]) -> str:
    """Apply edits that do not overlap, from the end to the start."""
    rows = [row.encode() for row in source.split("\n")]
    for edit in sorted(edits, key=lambda edit: (edit.line, edit.column), reverse=True):
        head = rows[edit.line - 1][: edit.column]
        tail = rows[edit.end_line - 1][edit.end_column :]
        rows[edit.line - 1 : edit.end_line] = (head + edit.text.encode() + tail).split(b"\n")
    return b"\n".join(rows).decode()


def _edits_clash(edit: Edit, earlier: Edit) -> bool:
    start, end = (edit.line, edit.column), (edit.end_line, edit.end_column)
    other_start, other_end = (earlier.line, earlier.column), (earlier.end_line, earlier.end_column)
    return (start < other_end and other_start < end) or start == other_start


def _lines_unchanged(cell: Cell, edit: Edit) -> bool:
    """Positions refer to the Python code; they are valid in the source only if the line is the same in both."""
    source, python = cell.source.split("\n"), cell.python.split("\n")
    return edit.end_line <= len(source) and all(
        source[row] == python[row] for row in range(edit.line - 1, edit.end_line)
    )


def _notebook_with_sources(raw: bytes, path: Path, sources: dict[int, str]) -> bytes:
    document = json_document(decode_notebook(raw, path), path)
    cells = json_cells(document, path)
    for index, source in sources.items():
        key = "input" if "input" in cells[index] and "source" not in cells[index] else "source"
        listed = isinstance(cells[index].get(key), list)
        cells[index][key] = source.splitlines(keepends=True) if listed else source
    return (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode("utf-8", "surrogatepass")


def _write_atomic(raw: bytes, out: Path) -> None:
    """Write under a temporary name beside the target, then rename: never half a file."""
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(raw)
        os.replace(name, out)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
