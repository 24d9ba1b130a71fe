"""Assess a dataset or a source: read, compare with earlier reports, judge, and keep report and page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from d2c_mlops.data.ingestion.reading import read_location
from d2c_mlops.data.manifest import read_manifest
from d2c_mlops.data.quality.assess import assess_quality
from d2c_mlops.data.quality.report import Finding, QualityReport
from d2c_mlops.data.schemas import SCHEMAS
from d2c_mlops.data.sources.files import FileFormat
from d2c_mlops.data.store import write_atomic
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import UsageError
from d2c_mlops.quality.history import earlier_reports, keep_report, kept_report, reports_folder, score_history
from d2c_mlops.quality.page import page
from d2c_mlops.quality.quarantine import QuarantineEntry, quarantine
from d2c_mlops.quality.row_conditions import possible_checks
from d2c_mlops.quality.targets import QualityTarget, open_target, table_name
from d2c_mlops.quality.verdict import QualityVerdict, Thresholds, judge, lights
from d2c_mlops.settings import Settings


@dataclass(frozen=True)
class Assessment:
    """An assessment that was judged: target, report, thresholds, verdict, and the page if one was written."""

    target: QualityTarget
    report: QualityReport
    thresholds: Thresholds
    verdict: QualityVerdict
    page: Path | None = None

    def shown(self) -> list[Finding]:
        """Return the findings that warn or refuse, the worst first."""
        return [finding for finding in self.report.findings if self.thresholds.status(finding) != "pass"]

    def to_dict(self) -> dict[str, Any]:
        """Return the assessment with plain values, for JSON."""
        return {
            "name": self.target.name,
            "digest": self.target.digest,
            "unread": list(self.target.unread),
            "reading": list(self.target.notes),
            "verdict": self.verdict.to_dict(),
            "report": self.report.to_dict(),
            "page": None if self.page is None else str(self.page),
        }


def assess(
    target: str,
    settings: Settings,
    *,
    now: datetime,  # with a time zone; it is recorded, nothing depends on it
    as_of: date | None = None,
    references: Sequence[
        str
    ] = (),  # locations of tables to compare with, named by their files: refunds, population, others
    file_format: FileFormat | None = None,
    write_page: bool = False,
) -> Assessment:
    """Assess a dataset, or a source that was not ingested. The report of a dataset is kept in the store.

    Raises UsageError, DataRefused or Temporary where the data cannot be read.
    """
    opened = open_target(target, settings.store, as_of=as_of, file_format=file_format)
    frames = {
        table_name(name): frame
        for location in references
        for name, frame in read_location(location, None, file_format).frames.items()
    }
    earlier = (
        [r for r in earlier_reports(settings.store, target) if r.as_of < opened.as_of] if opened.is_dataset else []
    )
    report = assess_quality(opened.tables, opened.as_of, frames or None, earlier or None)
    thresholds = Thresholds.of(settings, target)
    verdict = judge(report, thresholds)
    scores = pd.DataFrame()
    if opened.is_dataset:
        keep_report(settings.store, target, opened.digest, report, verdict.status, now)
        scores = score_history(settings.store, target)
    file = None
    if write_page:
        file = _page_file(settings.store, opened)
        write_atomic(file, page(opened.name, report, verdict, thresholds, scores).encode(), private=True)
    return Assessment(opened, report, thresholds, verdict, file)


def _page_file(store: Path, target: QualityTarget) -> Path:
    if target.is_dataset:
        return reports_folder(store, target.name) / "quality.html"
    stem = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in Path(target.name).stem.lower())
    return store / "quality" / "sources" / f"{stem.strip('-') or 'source'}.html"


def score_rows(result: Assessment) -> list[tuple[str, str, str, int]]:
    """Return a row per fault for people: status, fault, score, number of findings."""
    statuses = lights(result.report, result.thresholds)
    return [
        (statuses[fault], fault.replace("_", " "), f"{score:.2f}", len(result.report.of_fault(fault)))
        for fault, score in result.report.scores.items()
    ]


def require_quality(name: str, settings: Settings, *, as_of: date, now: datetime) -> Assessment:
    """Assess a dataset before a model learns from it. Raises DataRefused with every finding that refuses it.

    A report of the same day and content is read again instead of made again.
    """
    thresholds = Thresholds.of(settings, name)
    opened = open_target(name, settings.store, as_of=as_of)
    report = kept_report(settings.store, name, opened.digest, as_of)
    if report is None:
        result = assess(name, settings, now=now, as_of=as_of)
    else:
        result = Assessment(opened, report, thresholds, judge(report, thresholds))
    result.verdict.require(name)
    return result


def quarantine_by_settings(name: str, settings: Settings, *, by: str, now: datetime) -> list[QuarantineEntry]:
    """Move the rows out of a dataset that [data:NAME] quarantine names as TABLE.CHECK; return the new entries.

    Raises UsageError for a table or a check that does not exist; a table that the dataset does not have is passed over.
    """
    section = settings.datasets.get(name)
    checks: dict[str, list[str]] = {}
    for part in (part.strip() for part in (section.quarantine if section else "").split(",") if part.strip()):
        table, dot, check = part.partition(".")
        if not dot or table not in SCHEMAS:
            raise UsageError(
                f"{part!r} is no TABLE.CHECK",
                where=f"settings.ini: [data:{name}] quarantine",
                next=f"write it as in order_lines.product_postage; tables: {', '.join(SCHEMAS)}",
            )
        checks.setdefault(table, []).append(check)
    there = read_manifest(settings.store, name).tables
    moved = [
        quarantine(settings.store, name, table, _possible(settings, name, table, table_checks), by=by, now=now)[0]
        for table, table_checks in checks.items()
        if table in there and _possible(settings, name, table, table_checks)
    ]
    return [entry for entry in moved if entry is not None]


def _possible(settings: Settings, name: str, table: str, table_checks: list[str]) -> list[str]:
    """Return the named checks that concern rows of this version of the dataset; kinds of products come and go."""
    possible = possible_checks(Tables.open(settings.store, name), table)
    return [check for check in table_checks if check in possible]
