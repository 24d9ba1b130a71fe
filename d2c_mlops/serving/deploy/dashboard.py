"""Grafana dashboards: of the services (traffic, latency, errors, rollouts, decisions), and of the health of the models behind them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .alerts import ASKED

_OWN = 'model=~"$model"'
_ASKED = f'{_OWN},path=~"{ASKED}"'
_ALL = f"sum(rate(d2c_requests_total{{{_ASKED}}}[5m]))"
SERVICE_PANELS = (
    ("Responses per second", "reqps", f"sum by (version) (rate(d2c_requests_total{{{_ASKED}}}[5m]))", "{{version}}"),
    ("Records per second", "short", f"sum by (variant) (rate(d2c_records_total{{{_OWN}}}[5m]))", "{{variant}}"),
    ("Latency, 99th percentile", "s", f"histogram_quantile(0.99, sum by (le, version) (rate(d2c_request_seconds_bucket{{{_ASKED}}}[5m])))", "{{version}}"),
    ("Share of server errors", "percentunit", f'sum(rate(d2c_requests_total{{{_ASKED},status=~"5.."}}[5m])) / {_ALL}', "5xx"),
    ("Share of client errors", "percentunit", f'sum(rate(d2c_requests_total{{{_ASKED},status=~"4.."}}[5m])) / {_ALL}', "4xx"),
    ("Feedback by action", "short", f"sum by (action) (increase(d2c_feedback_total{{{_OWN}}}[1d]))", "{{action}}"),
    ("Share of keys routed to the challenger", "percentunit", f"max by (model, version) (d2c_rollout_share{{{_OWN}}})", "{{model}} {{version}}"),
    ("Challenger errors per second", "short", f"sum by (model, version) (rate(d2c_challenger_errors_total{{{_OWN}}}[5m]))", "{{model}} {{version}}"),
    ("Median time from prediction to action", "s", f'd2c_decision_seconds{{{_OWN},quantile="0.5"}}', "{{model}}"),
    ("Age of the oldest pending decision", "s", f"d2c_decision_oldest_pending_seconds{{{_OWN}}}", "{{model}}"),
)  # fmt: skip


_METRICS = "{{model}} {{metric}}"
HEALTH_PANELS = (
    ("Metrics past their threshold", "short", f"d2c_health_breach{{{_OWN}}}", _METRICS),
    ("Metrics with enough data", "short", f"d2c_health_judged{{{_OWN}}}", _METRICS),
    *(
        (f"{metric.capitalize()}, and its threshold", "short", f'{{__name__=~"d2c_health_value|d2c_health_threshold",{_OWN},metric="{metric}"}}', "{{model}} {{__name__}}")
        for metric in ("accuracy", "drift", "latency", "throughput", "cost", "importance", "confidence")
    ),
    ("Evidence of drift over its threshold", "percentunit", f"d2c_drift_evidence{{{_OWN}}} / d2c_drift_threshold", "{{model}} {{kind}} {{place}}"),
    ("Open alerts", "short", f"d2c_alerts_open{{{_OWN}}}", "{{model}} {{severity}}"),
    ("Version that is live", "short", f"d2c_champion_version{{{_OWN}}}", "{{model}}"),
    ("Age of the last look", "s", f"time() - d2c_health_timestamp_seconds{{{_OWN}}}", "{{model}}"),
)  # fmt: skip


def service_dashboard() -> str:
    """Return the dashboard of the services as Grafana's JSON."""
    return _dashboard("d2c-services", "d2c services", "d2c_requests_total", "now-6h", SERVICE_PANELS)


def health_dashboard() -> str:
    """Return the dashboard of the models' health, as the monitor last saw it, as Grafana's JSON."""
    return _dashboard("d2c-health", "d2c models", "d2c_champion_version", "now-30d", HEALTH_PANELS)


def _dashboard(uid: str, title: str, listed: str, since: str, questions: Sequence[tuple[str, str, str, str]]) -> str:
    source = {"type": "prometheus", "uid": "prometheus"}
    panels = [
        {
            "id": number,
            "type": "timeseries",
            "title": question,
            "datasource": source,
            "gridPos": {"h": 8, "w": 12, "x": 12 * ((number - 1) % 2), "y": 8 * ((number - 1) // 2)},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "targets": [{"refId": "A", "datasource": source, "expr": expression, "legendFormat": legend}],
        }
        for number, (question, unit, expression, legend) in enumerate(questions, 1)
    ]
    model: dict[str, Any] = {
        "name": "model",
        "type": "query",
        "datasource": source,
        "query": f"label_values({listed}, model)",
        "includeAll": True,
        "multi": True,
        "refresh": 2,
    }
    board = {
        "uid": uid,
        "title": title,
        "description": "Written by `d2c deploy`",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": since, "to": "now"},
        "templating": {"list": [model]},
        "panels": panels,
    }
    return json.dumps(board, indent=1) + "\n"
