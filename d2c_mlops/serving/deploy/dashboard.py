"""Grafana dashboard of the services: traffic, latency, errors, rollouts, feedback and decisions."""

from __future__ import annotations

import json
from typing import Any

from .alerts import ASKED

_OWN = 'model=~"$model"'
_ASKED = f'{_OWN},path=~"{ASKED}"'
_ALL = f"sum(rate(d2c_requests_total{{{_ASKED}}}[5m]))"
PANELS = (
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


def dashboard() -> str:
    """Return the dashboard as Grafana's JSON."""
    source = {"type": "prometheus", "uid": "prometheus"}
    panels = [
        {
            "id": number,
            "type": "timeseries",
            "title": title,
            "datasource": source,
            "gridPos": {"h": 8, "w": 12, "x": 12 * ((number - 1) % 2), "y": 8 * ((number - 1) // 2)},
            "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
            "targets": [{"refId": "A", "datasource": source, "expr": expression, "legendFormat": legend}],
        }
        for number, (title, unit, expression, legend) in enumerate(PANELS, 1)
    ]
    model: dict[str, Any] = {
        "name": "model",
        "type": "query",
        "datasource": source,
        "query": "label_values(d2c_requests_total, model)",
        "includeAll": True,
        "multi": True,
        "refresh": 2,
    }
    board = {
        "uid": "d2c-services",
        "title": "d2c services",
        "description": "Written by `d2c deploy`",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [model]},
        "panels": panels,
    }
    return json.dumps(board, indent=1) + "\n"
