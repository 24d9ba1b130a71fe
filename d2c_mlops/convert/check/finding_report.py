"""The findings of a check, as text, JSON, SARIF and HTML."""

from __future__ import annotations

import html
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from urllib.parse import quote

from d2c_mlops import __version__
from d2c_mlops.convert.check.linter import CODES
from d2c_mlops.convert.check.rule import rules
from d2c_mlops.convert.source.finding import SEVERITIES, Finding, Severity
from d2c_mlops.errors import UsageError

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {"error": "error", "warning": "warning", "info": "note"}
_SHADES = {"error": "#c62828", "warning": "#b26a00", "info": "#546e7a"}


@dataclass(frozen=True)
class Report:
    """The findings of a check in one or more notebooks."""

    notebooks: tuple[str, ...]
    findings: tuple[Finding, ...]
    fail_on: str = "error"

    @property
    def exit_code(self) -> int:
        """Return 3 if a finding is at or above `fail_on` (error, warning, info or never), else 0."""
        return self.exit_code_for(self.fail_on)

    def exit_code_for(self, fail_on: str) -> int:
        """Return the exit code for a level; raises UsageError for an unknown one."""
        if fail_on not in (*SEVERITIES, "never"):
            raise UsageError(f"unknown level {fail_on!r}", next="use error, warning, info or never")
        if fail_on == "never":
            return 0
        levels = SEVERITIES[: [*SEVERITIES].index(_parse_severity(fail_on)) + 1]
        return 3 if any(finding.severity in levels for finding in self.findings) else 0

    def counts(self) -> dict[str, int]:
        """Return how many findings there are of each severity."""
        counted = Counter(finding.severity for finding in self.findings)
        return {severity: counted[severity] for severity in SEVERITIES}

    def findings_of(self, notebook: str) -> tuple[Finding, ...]:
        """Return the findings of one notebook."""
        return tuple(finding for finding in self.findings if finding.notebook == notebook)

    def to_text(self) -> str:
        """Return plain text, cell by cell, with the counts and the next command."""
        lines: list[str] = []
        for notebook in self.notebooks:
            lines += [notebook, *_findings_by_cell(self.findings_of(notebook)), ""]
        return "\n".join([*lines, *self._summary_lines()]) + "\n"

    def _summary_lines(self) -> Iterator[str]:
        counts = self.counts()
        totals = ", ".join(f"{count} {_plural_text(name, count)}" for name, count in counts.items())
        files = len(self.notebooks)
        yield f"{totals} in {files} {_plural_text('notebook', files)}"
        fixable = sum(finding.autofix for finding in self.findings)
        first = _shell_command(
            next((finding.notebook for finding in self.findings), self.notebooks[0] if self.notebooks else "")
        )
        if fixable:
            yield f"{fixable} can be fixed automatically"
            yield f"next: d2c check {first} --fix"
        elif first:
            yield f"next: d2c convert {first}"

    def to_dict(self) -> dict[str, object]:
        """Return plain JSON values."""
        return {
            "notebooks": list(self.notebooks),
            "counts": self.counts(),
            "exit_code": self.exit_code,
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def to_json(self) -> str:
        """Return `to_dict` as JSON text."""
        return json.dumps(self.to_dict(), indent=2, ensure_ascii=False)

    def to_sarif(self) -> dict[str, object]:
        """Return a SARIF 2.1.0 log; lines are those of the cell, which the logical location names."""
        described = _rule_descriptors(self.findings)
        index = {rule["id"]: number for number, rule in enumerate(described)}
        driver = {
            "name": "d2c",
            "version": __version__,
            "semanticVersion": __version__,
            "rules": described,
        }
        run = {
            "tool": {"driver": driver},
            "columnKind": "unicodeCodePoints",
            "artifacts": [{"location": {"uri": _file_uri(notebook)}} for notebook in self.notebooks],
            "results": [self._sarif_result(finding, index[finding.rule]) for finding in self.findings],
        }
        return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}

    def _sarif_result(self, finding: Finding, rule_index: int) -> dict[str, object]:
        where: dict[str, object] = {
            "physicalLocation": {
                "artifactLocation": {
                    "uri": _file_uri(finding.notebook),
                    "index": self.notebooks.index(finding.notebook),
                },
                "region": {"startLine": finding.line, "startColumn": finding.column},
            }
        }
        if finding.cell is not None:
            where["logicalLocations"] = [{"name": f"cell {finding.cell + 1}", "kind": "module"}]
        return {
            "ruleId": finding.rule,
            "ruleIndex": rule_index,
            "level": _LEVELS[finding.severity],
            "message": {"text": f"{finding.message}. {finding.why}. Fix: {finding.fix}"},
            "locations": [where],
            "properties": {"cell": None if finding.cell is None else finding.cell + 1, "autofix": finding.autofix},
        }

    def to_html(self) -> str:
        """Return a table whose cell numbers lead to the cells in JupyterLab."""
        rows = "".join(_finding_row(finding) for finding in self.findings)
        totals = html.escape(" · ".join(self._summary_lines()))
        if not rows:
            return f'<div class="d2c-check"><p>{totals}</p></div>'
        heads = "".join(
            f'<th style="text-align:left">{head}</th>' for head in ("cell", "severity", "rule", "what", "fix")
        )
        table = f"<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
        return f'<div class="d2c-check"><p>{totals}</p>{table}</div>'


def _parse_severity(text: str) -> Severity:
    return next(severity for severity in SEVERITIES if severity == text)


def _plural_text(word: str, count: int) -> str:
    return word if count == 1 else f"{word}s"


def _shell_command(path: str) -> str:
    return f"'{path}'" if " " in path else path


def _findings_by_cell(findings: tuple[Finding, ...]) -> Iterator[str]:
    if not findings:
        yield "  no findings"
    before: int | None = -1
    for finding in findings:
        if finding.cell != before:
            yield "  whole notebook" if finding.cell is None else f"  cell {finding.cell + 1}"
            before = finding.cell
        place = f"line {finding.line}: " if finding.cell is not None else ""
        yield f"    {finding.severity:<8}{finding.rule:<8}{place}{finding.message}"
        mark = "  [--fix]" if finding.autofix else ""
        yield f"            why: {finding.why}"
        yield f"            fix: {finding.fix}{mark}"


def _rule_descriptors(findings: tuple[Finding, ...]) -> list[dict[str, object]]:
    ours: list[dict[str, object]] = [
        {
            "id": rule.id,
            "name": rule.name,
            "shortDescription": {"text": rule.name.replace("-", " ")},
            "fullDescription": {"text": rule.why},
            "help": {"text": rule.fix},
            "defaultConfiguration": {"level": _LEVELS[rule.severity]},
        }
        for rule in rules()
    ]
    theirs = {finding.rule: finding for finding in findings if finding.rule in CODES}
    return ours + [
        {
            "id": code,
            "name": finding.name,
            "shortDescription": {"text": finding.name.replace("-", " ")},
            "fullDescription": {"text": finding.why},
            "help": {"text": finding.fix},
            "defaultConfiguration": {"level": _LEVELS[finding.severity]},
        }
        for code, finding in sorted(theirs.items())
    ]


def _file_uri(notebook: str) -> str:
    path = Path(notebook)
    return path.as_uri() if path.is_absolute() else quote(PurePath(notebook).as_posix())


def _finding_row(finding: Finding) -> str:
    label = "notebook" if finding.cell is None else f"cell {finding.cell + 1}"
    if finding.cell_id:
        href = f"{quote(PurePath(finding.notebook).name)}#cell-id={quote(finding.cell_id)}"
        label = f'<a href="{href}">{label}</a>'
    line = f":{finding.line}" if finding.cell is not None else ""
    cells = (
        f"{label}{line}",
        f'<span style="color:{_SHADES[finding.severity]}">{finding.severity}</span>',
        f"<code>{html.escape(finding.rule)}</code>",
        f'<span title="{html.escape(finding.why)}">{html.escape(finding.message)}</span>',
        html.escape(finding.fix),
    )
    return "<tr>" + "".join(f'<td style="text-align:left">{cell}</td>' for cell in cells) + "</tr>"
