"""Prometheus metrics of a service, with labels for model and version; the client library sums several workers."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
WHO = ("model", "version")


class Metrics:
    """Counters and histograms of a service; children of the most frequent labels are cached."""

    def __init__(self) -> None:
        counters = _http_counters()
        self.seconds, self.total, self.records, self.refused, self.unlogged, self.feedback = counters[:6]
        self.answers, self.failed, self.dropped, self.aborts, self.share = counters[6:]
        self.done, self.answered = cache(self._requests_counter), cache(self.records.labels)

    def _requests_counter(self, model: str, version: str, path: str, status: int) -> tuple[Any, Any]:
        return (
            self.total.labels(model, version, path, str(status)),
            self.seconds.labels(model, version, path) if status < 400 else None,
        )

    def request(self, model: str, version: str, path: str, status: int, seconds: float) -> None:
        """Count a request; durations of refused requests are not measured."""
        total, timed = self.done(model, version, path, status)
        total.inc()
        if timed is not None:
            timed.observe(seconds)


@cache
def _http_counters() -> tuple[Any, ...]:
    from prometheus_client import Counter, Gauge, Histogram

    return (
        Histogram("d2c_request_seconds", "Request duration in seconds", (*WHO, "path"), buckets=BUCKETS),
        Counter("d2c_requests", "Requests answered", (*WHO, "path", "status")),
        Counter("d2c_records", "Records answered", (*WHO, "variant")),
        Counter("d2c_refused_callers", "Callers refused", (*WHO, "reason")),
        Counter("d2c_unlogged", "Requests whose predictions were not logged because the buffer was full", WHO),
        Counter("d2c_feedback", "Feedback accepted", (*WHO, "action")),
        Histogram(
            "d2c_answer_seconds",
            "Prediction duration in seconds during a rollout, by variant",
            (*WHO, "variant"),
            buckets=BUCKETS,
        ),
        Counter("d2c_challenger_errors", "Records that the challenger failed on; the champion answered them", WHO),
        Counter("d2c_shadow_dropped", "Records that the shadow skipped because its queue was full", WHO),
        Counter("d2c_rollout_aborts", "Rollouts that the service aborted automatically", (*WHO, "reason")),
        Gauge("d2c_rollout_share", "Share of keys routed to the challenger", WHO, multiprocess_mode="livemax"),
    )


def metrics_text() -> tuple[bytes, str]:
    """Return the metrics of all workers in Prometheus's text format, and its media type."""
    import prometheus_client as client

    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        from prometheus_client import multiprocess

        registry = client.CollectorRegistry()
        multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return client.generate_latest(registry), client.CONTENT_TYPE_LATEST
    return client.generate_latest(), client.CONTENT_TYPE_LATEST
