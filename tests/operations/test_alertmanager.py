"""A real Prometheus judges the rules on heartbeats that it scrapes, and a real Alertmanager sends what fires to a web hook."""

import json
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from d2c_mlops.operations.heartbeat import heartbeat, text_folder
from d2c_mlops.serving.deploy import DeployPlan, ReplicaSize
from d2c_mlops.serving.deploy.alerts import alert_rules
from support.alert_channels import WebHook, alert_project
from support.processes import wait_for

PROGRAMS = ("prometheus", "alertmanager") if shutil.which("alertmanager") else ("prometheus", "prometheus-alertmanager")
needs_both = pytest.mark.skipif(not all(map(shutil.which, PROGRAMS)), reason="prometheus or alertmanager is missing")
PLAN = DeployPlan("demand", 1, "demand:v1", ReplicaSize(), heartbeats=("scheduler", "monitor"))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def text_files(folder: Path) -> Iterator[int]:
    """Serve the text files of a folder as node_exporter does."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            texts = [file.read_text() for file in sorted(folder.glob("*.prom"))]
            lines = dict.fromkeys(line for text in texts for line in text.splitlines())
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(("\n".join(sorted(lines, key=lambda line: not line.startswith("#"))) + "\n").encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


@contextmanager
def running(folder: Path, *command: str) -> Iterator[None]:
    with (folder / f"{Path(command[0]).name}.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


@pytest.mark.slow
@pytest.mark.timeout(180)
@needs_both
def test_prometheus_and_alertmanager_tell_that_a_scheduler_stopped_and_that_it_is_back(tmp_path: Path) -> None:
    settings, ledger = alert_project(tmp_path / "shop")
    now = datetime.now(UTC)
    heartbeat(ledger, settings, "scheduler", now=now - timedelta(hours=1))
    heartbeat(ledger, settings, "monitor", "demand", now=now)
    rules = alert_rules(PLAN)
    for rule in rules["groups"][0]["rules"]:
        rule["for"] = "0s"  # in the test nobody waits five minutes
    hook, ports = WebHook(), (free_port(), free_port(), free_port())
    route = {"receiver": "hook", "group_by": ["alertname"], "group_wait": "0s", "group_interval": "1s"}
    receiver = {"name": "hook", "webhook_configs": [{"url": f"http://127.0.0.1:{hook.port}/", "send_resolved": True}]}
    with text_files(text_folder(settings)) as port:
        target = [{"job_name": "node", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}]
        managers = {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{ports[1]}"]}]}]}
        every = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        files = {
            "rules.yaml": rules,
            "prometheus.yaml": {
                "global": every, "rule_files": ["rules.yaml"], "scrape_configs": target, "alerting": managers,
            },
            "alertmanager.yaml": {"route": route, "receivers": [receiver], "global": {"resolve_timeout": "5s"}},
        }  # fmt: skip
        for name, content in files.items():
            (tmp_path / name).write_text(yaml.safe_dump(content))
        manager = (
            PROGRAMS[1], "--config.file=alertmanager.yaml", f"--web.listen-address=127.0.0.1:{ports[1]}",
            "--cluster.listen-address=", "--storage.path=alertmanager",
        )  # fmt: skip
        prometheus = (
            PROGRAMS[0], "--config.file=prometheus.yaml", f"--web.listen-address=127.0.0.1:{ports[0]}",
            "--storage.tsdb.path=prometheus", "--rules.alert.resend-delay=1s",
        )  # fmt: skip

        def states(name: str) -> list[str]:
            bodies = [json.loads(body) for *_, body in hook.requests]
            return [b["status"] for b in bodies if b["commonLabels"].get("alertname") == name]

        with running(tmp_path, *manager), running(tmp_path, *prometheus):
            wait_for(lambda: states("D2CSchedulerSilent"), 60)
            assert states("D2CSchedulerSilent") == ["firing"] and not states("D2CMonitorSilent")
            heartbeat(ledger, settings, "scheduler")
            wait_for(lambda: states("D2CSchedulerSilent")[-1] == "resolved", 60)
    hook.stop()
