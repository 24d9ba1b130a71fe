"""Prometheus alert rules for the metrics of a service."""

from __future__ import annotations

from typing import Any

from . import DeployPlan

# Paths of callers, also below /v1, /v2, …; probes, scrapes and /readyz are excluded.
ASKED = "/predict|/explain|/feedback"
HEARTBEAT = "d2c_heartbeat_timestamp_seconds"  # in text files that node_exporter reads


def alert_rules(plan: DeployPlan) -> dict[str, Any]:
    """Return the alert rules of a model."""
    model_label = f'model="{plan.model}"'
    prediction_paths = f'{model_label},path=~"{ASKED}"'
    requests = f"sum(rate(d2c_requests_total{{{prediction_paths}}}[5m]))"
    failed = f'sum(rate(d2c_requests_total{{{prediction_paths},status=~"5.."}}[5m]))'
    slow = f"histogram_quantile(0.99, sum by (le) (rate(d2c_request_seconds_bucket{{{prediction_paths}}}[5m])))"
    before = f"sum(rate(d2c_requests_total{{{prediction_paths}}}[1h] offset 1w))"
    hour = f"(sum(rate(d2c_requests_total{{{prediction_paths}}}[1h])) or vector(0))"  # there may be no calls since a restart
    aborted = f"sum(d2c_rollout_aborts_total{{{model_label}}})"
    aborted_before = (
        f"sum(d2c_rollout_aborts_total{{{model_label}}} offset 1h)"  # increase() misses a counter that begins at 1
    )
    listed = [
        _alert_rule("D2CFailing", f"{failed} / {requests} > 0.01", "5m", "page",
               "more than 1 % of the responses are server errors", "read the service's log; d2c rollback restores the previous champion"),
        _alert_rule("D2CSlow", f"{slow} > {plan.size.request_ms / 1e3:g}", "5m", "page",
               f"the 99th percentile of the latency is above {plan.size.request_ms:g} ms", "add replicas, or check recent changes"),
        _alert_rule("D2CQuiet", f"{hour} < 0.8 * {before}", "30m", "ticket",
               "the request rate is 20 % lower than at this hour a week ago", "ask the calling team whether a release changed its traffic"),
        _alert_rule("D2CUnlogged", f"sum(rate(d2c_unlogged_total{{{model_label}}}[5m])) > 0", "5m", "ticket",
               "predictions are not logged: the log buffer is full", "check the disk of the state folder"),
        _alert_rule("D2CRefusedCallers", f"sum(rate(d2c_refused_callers_total{{{model_label}}}[5m])) > 1", "10m", "ticket",
               "callers use API keys that are not valid", "d2c keys list shows expired and revoked keys"),
        _alert_rule("D2CRolloutAborted", f"{aborted} > ({aborted_before} or vector(0))", "0m", "ticket",
               "a service aborted a rollout in the last hour",
               "d2c collect, then d2c rollout shows the reason; --abort ends it in all replicas"),
        _alert_rule("D2CAway", f'absent(d2c_requests_total{{{model_label}}})', "10m", "page",
               "Prometheus scrapes no replica of the service", "check that it runs and that Prometheus can reach /metrics"),
    ]  # fmt: skip
    if "scheduler" in plan.heartbeats:
        listed.append(
            _alert_rule("D2CSchedulerSilent", _silent('part="scheduler"', 900), "5m", "page",
                "the scheduler has written no heartbeat for 15 minutes", "start it: d2c schedule run; d2c alerts watch shows what else stopped")
        )  # fmt: skip
    if "monitor" in plan.heartbeats:
        listed.append(
            _alert_rule("D2CMonitorSilent", _silent(f'part="monitor",{model_label}', 26 * 3600), "5m", "page",
                "the monitor has not run for 26 hours", "d2c schedule list shows its last slots")
        )  # fmt: skip
        listed.append(
            _alert_rule("D2CBreach", f"d2c_health_breach{{{model_label}}} == 1", "0m", "ticket",
                "a metric of the model is past its threshold", f"d2c monitor {plan.model} says which, since when, and what to do")
        )  # fmt: skip
        listed.append(
            _alert_rule("D2CHealthStale", f"time() - max(d2c_health_timestamp_seconds{{{model_label}}}) > {26 * 3600}", "5m", "ticket",
                "the metrics of the last look are older than 26 hours, so a breach may not show", "check that the folder of [alerts] textfiles can be written")
        )  # fmt: skip
    return {
        "groups": [
            {
                "name": f"d2c-{plan.slug}",
                "rules": [rule | {"labels": rule["labels"] | {"model": plan.model}} for rule in listed],
            }
        ]
    }


def _silent(labels: str, seconds: int) -> str:
    """Return the expression for a heartbeat that is too old or absent, also if Prometheus reads no text files at all."""
    heartbeat = f"{HEARTBEAT}{{{labels}}}"
    return f"(time() - max({heartbeat}) > {seconds}) or max(absent({heartbeat}))"


def _alert_rule(name: str, expression: str, duration: str, severity: str, meaning: str, action: str) -> dict[str, Any]:
    return {
        "alert": name,
        "expr": expression,
        "for": duration,
        "labels": {"severity": severity},
        "annotations": {"summary": meaning, "action": action},
    }
