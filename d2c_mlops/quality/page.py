"""The page of an assessment: traffic lights, money at stake, examples, what to do next. One file without external resources."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from importlib.resources import files
from typing import Any

import pandas as pd
from jinja2 import Environment

from d2c_mlops.data.quality.report import FAULTS, Finding, FindingChart, QualityReport
from d2c_mlops.quality.verdict import QualityVerdict, Thresholds, lights

TITLES = {
    "incompleteness": ("Incomplete", "Rows, days, channels or fields are missing."),
    "inconsistency": ("Inconsistent", "Dates, totals, units or names contradict each other."),
    "bias": ("Biased", "The rows are not those that will be scored."),
    "staleness": ("Stale", "The past no longer tells the present."),
    "schema_volume": ("Changed form", "Columns, types, codes or row counts changed."),
    "mislabelling": ("Mislabelled", "Rows count as sales and are none."),
}
WORDS = {"pass": "good", "warn": "look at it", "refuse": "refused", "unchecked": "not checked"}
SIGNS = {"pass": "✓", "warn": "!", "refuse": "✕", "unchecked": "–"}
WIDTH, HEIGHT = 560, 90  # of the history and of plots, in pixels


def page(
    name: str, report: QualityReport, verdict: QualityVerdict, thresholds: Thresholds, history: pd.DataFrame
) -> str:
    """Return the page as HTML. `history` is a table of scores as `score_history` gives it."""
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        files("d2c_mlops.quality").joinpath("page.html").read_text(encoding="utf-8")
    )
    shown = [finding for finding in report.findings if thresholds.status(finding) != "pass"]
    faults = [
        {
            "title": TITLES[fault][0],
            "meaning": TITLES[fault][1],
            "light": light,
            "word": WORDS[light],
            "sign": SIGNS[light],
            "money": _money(largest_amount(report.of_fault(fault))),
            "count": len([finding for finding in shown if finding.fault == fault]),
        }
        for fault, light in lights(report, thresholds).items()
    ]
    return template.render(
        style=page_style(),
        name=name,
        as_of=report.as_of.isoformat(),
        status=verdict.status,
        word={"pass": "The data are good.", "warn": "Usable, with warnings.", "refuse": "Refused: do not train on it."}[
            verdict.status
        ],
        rows=[(table, f"{rows:,}") for table, rows in report.rows.items()],
        faults=faults,
        findings=[_finding_values(finding, thresholds) for finding in shown],
        passed=[_finding_values(finding, thresholds) for finding in report.findings if finding not in shown],
        notes=[*report.notes, *report.absent],
        history=_history_values(history),
    )


def page_style() -> str:
    """Return the style rules that the pages for people share."""
    return files("d2c_mlops.quality").joinpath("page_style.html").read_text(encoding="utf-8").strip()


def largest_amount(findings: tuple[Finding, ...]) -> tuple[float, str] | None:
    """Return the largest amount of money in the rows of a finding, and its currency; rows of several findings overlap."""
    amounts = [(finding.amount, finding.currency or "") for finding in findings if finding.amount]
    return max(amounts, default=None)


def _money(amount: tuple[float, str] | None) -> str:
    return f"{amount[0]:,.0f} {amount[1]}".strip() if amount else ""


def _finding_values(finding: Finding, thresholds: Thresholds) -> Mapping[str, Any]:
    status = thresholds.status(finding)
    return {
        "title": TITLES[finding.fault][0],
        "table": finding.table,
        "check": finding.check.replace("_", " "),
        "light": status,
        "sign": SIGNS[status],
        "word": WORDS[status],
        "message": finding.message,
        "advice": finding.advice,
        "rows": f"{finding.rows:,}" if finding.rows else "",
        "share": f"{finding.share:.2%}" if finding.share else "",
        "since": finding.since.isoformat() if finding.since else "",
        "until": finding.until.isoformat() if finding.until else "",
        "examples": finding.keys,
        "money": _money(largest_amount((finding,))),
        "score": f"{finding.score:.2f}",
        "chart": None if finding.chart is None else chart_values(finding.chart, finding.since),
    }


def chart_values(chart: FindingChart, since: date | None) -> Mapping[str, Any]:
    """Return the plot of a finding as points and a mark of its day in pixels, or as widths of two bars."""
    numbers = [value for value in chart.values if value is not None]
    low, high = min(0.0, *numbers) if numbers else 0.0, max(numbers, default=0.0)
    texts = {
        "title": chart.title,
        "low": f"{low:,.4g}",
        "high": f"{high:,.4g}",
        "first": chart.labels[0],
        "last": chart.labels[-1],
    }
    if not chart.by_day:
        total = max(sum(numbers), 1)
        bars = [
            (label, f"{value:,.0f}", round(WIDTH * value / total, 1))
            for label, value in zip(chart.labels, numbers, strict=True)
        ]
        return texts | {"bars": bars, "lines": [], "mark": None, "size": (WIDTH, HEIGHT)}
    step = WIDTH / max(len(chart.values) - 1, 1)
    lines: list[list[tuple[float, float]]] = [[]]
    for place, value in enumerate(chart.values):
        if value is None:
            lines.append([])
        else:
            lines[-1].append(
                (round(place * step, 1), round(HEIGHT - 2 - (HEIGHT - 4) * (value - low) / max(high - low, 1e-12), 1))
            )
    mark = round(chart.labels.index(day) * step, 1) if since and (day := since.isoformat()) in chart.labels else None
    return texts | {"bars": [], "lines": [line for line in lines if line], "mark": mark, "size": (WIDTH, HEIGHT)}


def _history_values(history: pd.DataFrame) -> Mapping[str, Any] | None:
    """Return the points of the curve of scores, and the table behind it; None for a single day."""
    if len(history) < 2:
        return None
    days = pd.to_datetime(history["as_of"])
    span = max((days.max() - days.min()).days, 1)
    points = [
        (round(10 + (WIDTH - 20) * (day - days.min()).days / span, 1), round(HEIGHT - 10 - (HEIGHT - 20) * score, 1))
        for day, score in zip(days, history["score"], strict=True)
    ]
    columns = ["as_of", "status", "score", *FAULTS]
    rows = history[columns].tail(30).iloc[::-1].to_numpy().tolist()
    return {"points": points, "columns": [c.replace("_", " ") for c in columns], "rows": rows, "size": (WIDTH, HEIGHT)}
