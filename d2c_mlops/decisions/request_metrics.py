"""Prometheus metrics of the decision service's own requests; their names differ from those of a model's service."""

from __future__ import annotations

from functools import cache
from typing import Any

from d2c_mlops.serving.http.metrics import BUCKETS


class RequestMetrics:
    """Requests to the decision service, and refused callers."""

    def __init__(self) -> None:
        _, self.seconds, self.total, self.refused = _request_counters()

    def request(self, model: str, path: str, status: int, seconds: float) -> None:
        """Count a request; durations of refused requests are not measured."""
        self.total.labels(model, path, str(status)).inc()
        if status < 400:
            self.seconds.labels(model, path).observe(seconds)


@cache
def _request_counters() -> tuple[Any, ...]:
    from prometheus_client import CollectorRegistry, Counter, Histogram

    registry = CollectorRegistry()
    return (
        registry,
        Histogram(
            "d2c_desk_seconds", "Request duration in seconds", ("model", "path"), buckets=BUCKETS, registry=registry
        ),
        Counter(
            "d2c_desk_requests",
            "Requests answered by the decision service",
            ("model", "path", "status"),
            registry=registry,
        ),
        Counter("d2c_desk_refused", "Callers refused by the decision service", ("model", "reason"), registry=registry),
    )


def metrics_text() -> tuple[bytes, str]:
    """Return the counts in Prometheus's text format, and its media type."""
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    return generate_latest(_request_counters()[0]), CONTENT_TYPE_LATEST
