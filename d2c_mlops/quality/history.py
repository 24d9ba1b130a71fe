"""The reports of a dataset, one file each, and its score over time."""

from __future__ import annotations

import json
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from d2c_mlops.data.manifest import dataset_folder
from d2c_mlops.data.quality.report import QualityReport
from d2c_mlops.data.store import write_atomic
from d2c_mlops.errors import DataRefused

MOST = 400  # reports that are kept


def reports_folder(store: Path, name: str) -> Path:
    """Return the folder of a dataset's reports. Raises UsageError for a bad name."""
    dataset_folder(store, name)
    return store / "quality" / name


def keep_report(store: Path, name: str, digest: str, report: QualityReport, status: str, now: datetime) -> Path:
    """Write a report beside the earlier ones; one of the same day and content replaces it. The oldest ones are removed."""
    folder = reports_folder(store, name)
    file = folder / f"{report.as_of.isoformat()}-{digest[:12]}.json"
    values = {"digest": digest, "status": status, "assessed_at": now.isoformat(), "report": report.to_dict()}
    write_atomic(file, json.dumps(values, ensure_ascii=False, indent=1).encode(), private=True)
    for old in sorted(folder.glob("*.json"))[:-MOST]:
        old.unlink()
    return file


def kept_report(store: Path, name: str, digest: str, as_of: date) -> QualityReport | None:
    """Return the report of a day and a version of a dataset; None where it was not assessed."""
    file = reports_folder(store, name) / f"{as_of.isoformat()}-{digest[:12]}.json"
    return QualityReport.from_dict(_read_file(file)["report"]) if file.exists() else None


def earlier_reports(store: Path, name: str) -> list[QualityReport]:
    """Return the reports of a dataset, the earliest day first."""
    return [QualityReport.from_dict(values["report"]) for values in _read(store, name)]


def score_history(store: Path, name: str) -> pd.DataFrame:
    """Return a row per report: day, digest, status, the whole score and that of each fault (0 is clean)."""
    rows = [
        {
            "as_of": v["report"]["as_of"],
            "digest": v["digest"][:12],
            "status": v["status"],
            "score": v["report"]["score"],
        }
        | v["report"]["scores"]
        for v in _read(store, name)
    ]
    return pd.DataFrame(rows)


def _read(store: Path, name: str) -> list[dict[str, Any]]:
    return [_read_file(file) for file in sorted(reports_folder(store, name).glob("[!.]*.json"))]


def _read_file(file: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return values
    except ValueError as error:
        raise DataRefused(
            f"the report cannot be read ({error})", where=str(file), next=f"remove it: rm {file}"
        ) from error
