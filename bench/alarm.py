"""A real Prometheus, told what `d2c deploy --to compose` writes, scrapes a service that becomes slow."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from aims import Aim
from machine import Podman, get, wait

from d2c_mlops.serving.deploy import DeployPlan, deploy
from d2c_mlops.serving.local.server import free_port

# Minutes are seconds here, so that the test does not take an hour; the expressions and thresholds are what is written.
SHORTER = {"[5m]": "[10s]", "for: 5m": "for: 3s", "for: 10m": "for: 10s", "15s": "1s"}


@contextmanager
def prometheus(plan: DeployPlan, port: int) -> Iterator[str]:
    """Run Prometheus on the written configuration, with the service at a port of this machine."""
    folder = Path("watched").resolve()
    deploy(plan, "compose", folder)
    files = folder / "prometheus"
    for file in (files / "prometheus.yaml", files / "alerts.yaml"):
        text = file.read_text().replace("/etc/prometheus/", f"{files}/")
        for long, short in SHORTER.items():
            text = text.replace(long, short)
        file.write_text(text.replace(f"{plan.slug}:{plan.port}", f"127.0.0.1:{port}"))
    assert yaml.safe_load((files / "prometheus.yaml").read_text())["scrape_configs"][0]["static_configs"]
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={files / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'tsdb'}",
               f"--web.listen-address={address}"]  # fmt: skip
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        if wait(f"http://{address}/-/ready", 60) == float("inf"):
            raise SystemExit((folder / "prometheus.log").read_text()[-2000:])
        yield f"http://{address}/api/v1"
    finally:
        process.terminate()
        process.wait(30)


def alarm(
    podman: Podman,
    fast: dict[str, Any],
    slow: dict[str, Any],
    hard: Sequence[str],
    plan: DeployPlan,
    asking: Callable[..., Any],
) -> Iterator[Aim]:
    """Serve the fast version, then the slow one at the same address, both under load."""
    port, keys, token = free_port(), Path("keys").resolve(), os.environ["D2C_API_KEY"]
    options = [*hard, "--env", f"BENTOML_PORT={port}", "--volume", f"{keys}:/keys:ro"]
    url = f"http://127.0.0.1:{port}"
    with prometheus(plan, port) as api:
        with podman.running("d2c-fast", fast["image"]["tag"], options):
            wait(f"{url}/readyz", 120)
            with asking(url, token):
                seen = until(lambda: counted(api, plan.model) > 100, 60)
                time.sleep(15)  # longer than the rule's window and its patience
                quiet = alerts(api)
            up = value(api, f'up{{job="{plan.slug}"}}')
            yield Aim("Prometheus scrapes the service", f"up {up:g}, {counted(api, plan.model):,.0f} requests counted",
                      up == 1 and seen < 60)  # fmt: skip
            latency = quantile(api)
            yield Aim("no latency alert while it is fast", f"p99 {latency * 1e3:.0f} ms, alerts {quiet}",
                      latency < 0.5 and "D2CSlow" not in quiet)  # fmt: skip
        with podman.running("d2c-slow", slow["image"]["tag"], options):
            wait(f"{url}/readyz", 120)
            with asking(url, token):
                took = until(lambda: alerts(api).get("D2CSlow") == "firing", 90)
                latency = quantile(api)
        yield Aim("the latency alert fires when a slow version answers",
                  f"after {took:.0f} s (5 minutes are 10 s here), p99 {latency * 1e3:.0f} ms", took < 90)  # fmt: skip


def until(holds: Callable[[], bool], patience: float) -> float:
    """Return the seconds until something holds; `patience` when it does not."""
    start = time.monotonic()
    while time.monotonic() - start < patience:
        if holds():
            return time.monotonic() - start
        time.sleep(0.5)
    return patience


def alerts(api: str) -> dict[str, str]:
    """Return the active alerts and their states."""
    told = json.loads(get(f"{api}/alerts")[1])["data"]["alerts"]
    return {each["labels"]["alertname"]: each["state"] for each in told}


def value(api: str, expression: str) -> float:
    """Return what an expression comes to; 0 when to nothing."""
    from urllib.parse import quote

    found = json.loads(get(f"{api}/query?query={quote(expression)}")[1])["data"]["result"]
    return float(found[0]["value"][1]) if found else 0.0


def counted(api: str, model: str) -> float:
    """Return the requests that Prometheus knows of."""
    return value(api, f'sum(d2c_requests_total{{model="{model}"}})')


def quantile(api: str) -> float:
    """Return the 99th percentile of the last seconds."""
    return value(api, "histogram_quantile(0.99, sum by (le) (rate(d2c_request_seconds_bucket[10s])))")
