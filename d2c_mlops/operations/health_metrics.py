"""The latest look at a model as metrics in a text file, for node_exporter and Prometheus."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from d2c_mlops.data.store import write_atomic
from d2c_mlops.monitoring.vital_signs import BREACH, OK
from d2c_mlops.operations.heartbeat import text_folder
from d2c_mlops.operations.monitor import ModelHealth
from d2c_mlops.settings import Settings


def health_metrics(health: ModelHealth, open_alerts: Mapping[str, int]) -> bytes:
    """Return a look as Prometheus' text format; `open_alerts` is their number by severity.

    A metric that cannot be judged has `d2c_health_judged` 0 and no state, so that nobody takes it for healthy.
    """
    registry = CollectorRegistry()

    def gauge(name: str, meaning: str, *labels: str) -> Gauge:
        return Gauge(name, meaning, ["model", *labels], registry=registry)

    judged = gauge("d2c_health_judged", "1 where the metric has enough data to be judged, else 0.", "metric")
    state = gauge("d2c_health_breach", "1 where the metric is past its threshold, 0 where it is not.", "metric")
    value = gauge("d2c_health_value", "What was measured, in the unit of the metric.", "metric")
    threshold = gauge("d2c_health_threshold", "The threshold of the metric, in its unit.", "metric")
    for sign in health.signs:
        labels = {"model": health.model, "metric": sign.metric}
        judged.labels(**labels).set(sign.state in (OK, BREACH))
        if sign.state in (OK, BREACH):
            state.labels(**labels).set(sign.state == BREACH)
            for figure, number in ((value, sign.value), (threshold, sign.threshold)):
                if number is not None:
                    figure.labels(**labels).set(number)
    evidence = gauge(
        "d2c_drift_evidence", "Evidence that something changed, by where it was looked for.", "kind", "place"
    )
    limit = gauge("d2c_drift_threshold", "Evidence from which a change is told.", "kind", "place")
    for look in health.drifts:
        if not look.report.too_little:
            labels = {"model": health.model, "kind": look.kind, "place": look.place}
            evidence.labels(**labels).set(float(look.report.evidence[-1]))
            limit.labels(**labels).set(look.report.threshold)
    alerts = gauge("d2c_alerts_open", "Open alerts by severity, at the last look.", "severity")
    for severity in ("critical", "warning"):
        alerts.labels(model=health.model, severity=severity).set(open_alerts.get(severity, 0))
    gauge("d2c_champion_version", "The version that is live.").labels(model=health.model).set(health.version)
    gauge("d2c_health_timestamp_seconds", "Time of the look, in Unix seconds.").labels(model=health.model).set(
        int(health.at.timestamp())
    )
    return generate_latest(registry)


def write_health_metrics(settings: Settings, health: ModelHealth, open_alerts: Mapping[str, int]) -> Path:
    """Write the metrics of a look to the folder of the text files, atomically; return the file."""
    folder = text_folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"d2c_health_{re.sub(r'[^a-z0-9_]', '_', health.model)}.prom"
    write_atomic(file, health_metrics(health, open_alerts))
    if settings.alerts.textfiles:
        with suppress(PermissionError):  # another user's file
            file.chmod(0o644)  # node_exporter is another user
    return file
