"""Latency of a model's service, asked of the Prometheus server that scrapes it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from math import isfinite

from d2c_mlops.errors import Temporary

TIMEOUT = 5.0  # seconds
PERCENTILE = 0.95


@dataclass(frozen=True)
class Latency:
    """The 95th percentile of the duration of requests in milliseconds, None without requests, and their number."""

    milliseconds: float | None
    requests: int


def latency_of_day(prometheus: str, model: str, until: datetime) -> Latency:
    """Return the latency of a model's service in the day before a moment. Raises Temporary where Prometheus does not answer."""
    name = model.replace("\\", "\\\\").replace('"', '\\"')
    duration = f'sum(rate(d2c_request_seconds_bucket{{model="{name}"}}[1d])) by (le)'
    seconds = _query(prometheus, f"histogram_quantile({PERCENTILE}, {duration})", until)
    count = _query(prometheus, f'sum(increase(d2c_request_seconds_count{{model="{name}"}}[1d]))', until)
    is_number = seconds is not None and isfinite(seconds)
    return Latency(1000 * seconds if is_number and seconds is not None else None, round(count or 0))


def _query(prometheus: str, query: str, at: datetime) -> float | None:
    import requests

    address = f"{prometheus.rstrip('/')}/api/v1/query"
    try:
        response = requests.get(address, params={"query": query, "time": str(at.timestamp())}, timeout=TIMEOUT)
        response.raise_for_status()
        result = response.json()["data"]["result"]
        return float(result[0]["value"][1]) if result else None
    except (requests.RequestException, ValueError, KeyError, IndexError, TypeError) as error:
        what = f"Prometheus does not answer ({type(error).__name__})"
        raise Temporary(what, where="[monitor] prometheus", next="check the address, and that it is up") from None
