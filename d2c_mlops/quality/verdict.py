"""Pass, warn or refuse: the findings of an assessment against the thresholds of settings.ini."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from d2c_mlops.data.quality.report import FAULTS, Finding, QualityReport
from d2c_mlops.data.schemas import SCHEMAS
from d2c_mlops.errors import DataRefused, UsageError
from d2c_mlops.settings import Settings

STATUSES = ("pass", "warn", "refuse")
NEVER = 2.0  # no score reaches it


@dataclass(frozen=True)
class Thresholds:
    """Scores (0..1) from which a finding warns or refuses, by table where a table has its own; checks that are ignored."""

    warn: float = 0.2
    refuse: float = NEVER
    refuse_tables: Mapping[str, float] = field(default_factory=dict)
    warn_tables: Mapping[str, float] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()  # names of checks, of faults, or TABLE.CHECK

    @classmethod
    def of(cls, settings: Settings, dataset: str) -> Thresholds:
        """Return the thresholds of a dataset: [data:NAME] before [d2c]. Raises UsageError with what is wrong in them."""
        section = settings.datasets.get(dataset)
        section_values = {
            name: getattr(section, name) for name in ("quality_warn", "quality_refuse", "quality_ignore") if section
        }
        place = f"settings.ini: [data:{dataset}]"
        warn = section_values.get("quality_warn") or settings.quality_warn
        refuse = section_values.get("quality_refuse") or settings.quality_refuse
        general, tables = _parse_scores(refuse, f"{place} quality_refuse")
        ignored = tuple(_words(section_values.get("quality_ignore") or settings.quality_ignore))
        usual, _ = _parse_scores(settings.quality_warn, "settings.ini: [d2c] quality_warn", cls.warn)
        general_warn, warn_tables = _parse_scores(warn, f"{place} quality_warn", usual)
        return cls(general_warn, general, tables, warn_tables, ignored)

    def status(self, finding: Finding) -> str:
        """Return what a finding leads to: pass, warn or refuse."""
        if {finding.check, finding.fault} & set(self.ignored):
            return "pass"
        tables = [t for t in (finding.table, *finding.also) if f"{t}.{finding.check}" not in self.ignored]
        if any(finding.score >= self.refuse_tables.get(table, self.refuse) for table in tables):
            return "refuse"
        return "warn" if any(finding.score >= self.warn_tables.get(table, self.warn) for table in tables) else "pass"


def _words(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _parse_score(text: str, place: str) -> float:
    if text.strip().lower() == "never":
        return NEVER
    try:
        score = float(text)
    except ValueError:
        score = -1.0
    if not 0 < score <= 1:
        raise UsageError(f"{text!r} is no score", where=place, next="use a number above 0 up to 1, or never")
    return score


def _parse_scores(text: str, place: str, default: float = NEVER) -> tuple[float, dict[str, float]]:
    """Return the score for all tables, and those of single ones, of a text such as `0.6, order_lines 0.8`."""
    general, tables = default, {}
    for part in _words(text):
        name, _, score = part.rpartition(" ")
        if not name:
            general = _parse_score(score, place)
            continue
        if name.strip() not in SCHEMAS:
            near = get_close_matches(name.strip(), list(SCHEMAS), n=1)
            raise UsageError(
                f"there is no table {name.strip()!r}",
                where=place,
                next=f"use {near[0] if near else ', '.join(SCHEMAS)}",
            )
        tables[name.strip()] = _parse_score(score, place)
    return general, tables


@dataclass(frozen=True)
class QualityVerdict:
    """What an assessment leads to: its status, and the findings that refuse or warn, the worst first."""

    status: str
    refusing: tuple[Finding, ...]
    warning: tuple[Finding, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the verdict with plain values."""
        return {
            "status": self.status,
            "refusing": [f"{finding.table}.{finding.check}" for finding in self.refusing],
            "warning": [f"{finding.table}.{finding.check}" for finding in self.warning],
        }

    def require(self, name: str) -> None:
        """Raise DataRefused with every finding that refuses."""
        if self.status != "refuse":
            return
        lines = "\n".join(f"  {f.table}: {f.message} (score {f.score:.2f}); {f.advice}" for f in self.refusing)
        checks = ", ".join(dict.fromkeys(finding.check for finding in self.refusing))
        raise DataRefused(
            f"the data are not good enough:\n{lines}",
            where=name,
            next=f"d2c quality {name} --html; accept it on record with [data:{name}] quality_ignore = {checks}",
        )


def judge(report: QualityReport, thresholds: Thresholds) -> QualityVerdict:
    """Return the verdict on a report."""
    by_status: dict[str, list[Finding]] = {status: [] for status in STATUSES}
    for finding in report.findings:
        by_status[thresholds.status(finding)].append(finding)
    status = "refuse" if by_status["refuse"] else "warn" if by_status["warn"] else "pass"
    return QualityVerdict(status, tuple(by_status["refuse"]), tuple(by_status["warn"]))


def lights(report: QualityReport, thresholds: Thresholds) -> dict[str, str]:
    """Return the worst status of each fault: pass, warn or refuse; unchecked where nothing could be looked for."""
    statuses: dict[str, str] = {}
    for fault in FAULTS:
        statuses_of_fault = [thresholds.status(finding) for finding in report.of_fault(fault)]
        usual = "unchecked" if fault in report.unchecked else "pass"
        statuses[fault] = max(statuses_of_fault, key=STATUSES.index, default=usual)
    return statuses
