"""Check notebooks with all rules, without running them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from d2c_mlops.convert.check import linter
from d2c_mlops.convert.check.finding_report import Report
from d2c_mlops.convert.check.linter import CODES
from d2c_mlops.convert.check.rule import Rule, Subject, read_subject, rules
from d2c_mlops.convert.source.finding import SEVERITIES, Finding, Hit
from d2c_mlops.errors import UsageError

_SKIPPED = frozenset({".ipynb_checkpoints", ".venv", "venv", "node_modules", "site-packages", "__pycache__"})


def check(path: Path | str, *, select: Sequence[str] | None = None, ignore: Sequence[str] | None = None) -> Report:
    """Check a notebook, or all notebooks below a folder; `select` and `ignore` take ids, starts of ids, or names.

    A file that is no notebook is a finding; raises UsageError for a path that does not exist or an unknown rule.
    """
    path = Path(path)
    _refuse_unknown([*(select or ()), *(ignore or ())])
    findings: list[Finding] = []
    notebooks = notebooks_in(path)
    for notebook in notebooks:
        try:
            raw = notebook.read_bytes()
        except OSError as error:
            where = str(notebook)
            what = f"the file cannot be read: {error.strerror}"
            raise UsageError(what, where=where, next=f"ls -l {notebook}") from error
        subject = read_subject(raw, notebook, notebook.parent)
        findings.extend(_selected_findings(apply_all_rules(subject), select, ignore))
    return Report(tuple(map(str, notebooks)), tuple(findings))


def notebooks_in(path: Path) -> tuple[Path, ...]:
    """Return the notebook itself, or the notebooks below a folder in order of name; checkpoints are skipped."""
    if not path.exists():
        raise UsageError("the notebook or folder does not exist", where=str(path), next=f"ls {path.parent}")
    if path.is_file():
        return (path,)
    notebooks = sorted(
        file for file in path.rglob("*.ipynb") if file.is_file() and not _SKIPPED & set(file.relative_to(path).parts)
    )
    if not notebooks:
        raise UsageError("the folder contains no notebook", where=str(path), next="d2c check NOTEBOOK")
    return tuple(notebooks)


def apply_all_rules(subject: Subject) -> tuple[Finding, ...]:
    """Apply every rule and ruff to one notebook; findings in the order of cells."""
    lint = linter.start_ruff(subject.notebook)
    findings: list[Finding] = []
    for rule in rules():
        try:
            findings.extend(_finding_from_hit(subject, rule, hit) for hit in rule.check(subject))
        except Exception as error:
            subject.failed[rule.id] = f"{type(error).__name__}: {error}"
    findings.extend(linter.read_ruff_findings(lint))
    return tuple(sorted(_without_repeats(findings), key=_sort_key))


def _sort_key(finding: Finding) -> tuple[int, int, int, int, str]:
    cell = -1 if finding.cell is None else finding.cell
    return cell, finding.line, SEVERITIES.index(finding.severity), finding.column, finding.rule


def _finding_from_hit(subject: Subject, rule: Rule, hit: Hit) -> Finding:
    cells = subject.notebook.cells
    return Finding(
        rule=rule.id,
        name=rule.name,
        severity=hit.severity or rule.severity,
        notebook=str(subject.notebook.path),
        cell=hit.cell,
        line=max(1, hit.line),
        column=max(1, hit.column),
        message=hit.message,
        why=rule.why,
        fix=hit.fix or rule.fix,
        cell_id=cells[hit.cell].id if hit.cell is not None else "",
        edits=hit.edits,
    )


def _without_repeats(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Drop repeats, and ruff's findings on NumPy where one of our rules has a finding with an edit."""
    distinct: set[tuple[str, int | None, int, str]] = set()
    ours = {(finding.cell, finding.line) for finding in findings if finding.rule.startswith("D2C5")}
    for candidate in findings:
        key = (candidate.rule, candidate.cell, candidate.line, candidate.message)
        if key not in distinct and not (candidate.rule.startswith("NPY") and (candidate.cell, candidate.line) in ours):
            distinct.add(key)
            yield candidate


def _selected_findings(
    findings: Iterable[Finding], select: Sequence[str] | None, ignore: Sequence[str] | None
) -> Iterator[Finding]:
    for finding in findings:
        if (not select or _is_selected(finding, select)) and not _is_selected(finding, ignore or ()):
            yield finding


def _is_selected(finding: Finding, selected: Sequence[str]) -> bool:
    return any(finding.rule.startswith(word) or finding.name == word for word in selected)


def _refuse_unknown(words: Sequence[str]) -> None:
    identifiers = {rule.id for rule in rules()} | set(CODES)
    names = {rule.name for rule in rules()}
    for word in words:
        if word not in names and not any(identifier.startswith(word) for identifier in identifiers if word):
            raise UsageError(f"unknown rule {word!r}", next="see docs/rules.md for the rules")
