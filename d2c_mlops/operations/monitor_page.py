"""The page of a look at a model, for a person at 3 a.m.: what is wrong, since when, what to do. One file without external resources."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment

from d2c_mlops.monitoring.vital_signs import BREACH, NOT_MEASURED, OK, TOO_LITTLE
from d2c_mlops.operations.monitor import DriftLook, ModelHealth
from d2c_mlops.quality.page import page_style

WIDTH, HEIGHT = 640, 110  # of a plot, in pixels
LIGHTS = {OK: "pass", BREACH: "refuse", TOO_LITTLE: "unchecked", NOT_MEASURED: "unchecked"}
SIGNS = {OK: "✓", BREACH: "✕", TOO_LITTLE: "–", NOT_MEASURED: "–"}
TITLES = {
    "data dataset": "The data it learns from",
    "data inputs": "What it is asked",
    "concept answers": "The errors of its answers",
}
MOST_DAYS = 180  # of a plot
TOP = 1e4  # of the scale


def page(health: ModelHealth) -> str:
    """Return the page as HTML."""
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        files("d2c_mlops.operations").joinpath("monitor_page.html").read_text(encoding="utf-8")
    )
    signs = [
        {
            "metric": sign.metric,
            "state": sign.state,
            "light": LIGHTS[sign.state],
            "sign": SIGNS[sign.state],
            "message": sign.message,
            "advice": sign.advice,
            "since": sign.since.isoformat() if sign.since else "",
        }
        for sign in health.signs
    ]
    return template.render(
        style=page_style(),
        model=health.model,
        version=health.version,
        as_of=health.as_of.isoformat(),
        state=health.state,
        light=LIGHTS[health.state],
        word={OK: "Healthy, as far as it is measured.", BREACH: "Something is wrong."}.get(
            health.state, "Nothing can be judged yet."
        ),
        broken=[sign for sign in signs if sign["state"] == BREACH],
        signs=signs,
        drifts=[_drift_values(look) for look in health.drifts],
        metric=health.metric,
        variants=[variant.to_dict() for variant in health.variants],
        expected=health.expected,
    )


def _drift_values(look: DriftLook) -> dict[str, Any]:
    report = look.report
    return {
        "title": TITLES.get(f"{look.kind} {look.place}", look.place),
        "too_little": report.too_little,
        "drifted": report.has_drifted,
        "series": report.series,
        "ended": report.ended_alarms,
        "slow": [change.message for change in look.slow],
        "changes": [
            {"message": change.message, "share": f"{change.share:.0%}"}
            for change in report.changes
            if report.has_drifted
        ],
        "plot": None if report.too_little else _plot(look),
    }


def _plot(look: DriftLook) -> dict[str, Any]:
    """Return the points of the evidence of the last days, on a logarithmic scale from .01 to 10,000."""
    evidence, days = look.report.evidence[-MOST_DAYS:], look.report.days[-MOST_DAYS:]
    x = np.linspace(0, WIDTH, len(evidence)) if len(evidence) > 1 else np.zeros(1)
    points = " ".join(f"{a:.1f},{_height(value):.1f}" for a, value in zip(x, evidence, strict=True))
    return {"points": points, "limit": round(_height(look.report.threshold), 1), "width": WIDTH, "height": HEIGHT, "first": days[0].date().isoformat(), "last": days[-1].date().isoformat(), "value": f"{evidence[-1]:.3g}" if evidence[-1] < TOP else "over 10,000", "threshold": f"{look.report.threshold:.0f}"}  # fmt: skip


def _height(value: float) -> float:
    share = (np.log10(np.clip(value, 1e-2, TOP)) + 2) / 6
    return float(HEIGHT - 4 - share * (HEIGHT - 8))
