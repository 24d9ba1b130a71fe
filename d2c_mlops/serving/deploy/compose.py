"""Docker Compose: the whole of a team on one machine: database, MLflow, scheduler, service, Prometheus, Grafana."""

from __future__ import annotations

from typing import Any

import yaml

from . import Plan, Target, header
from .alerts import rules
from .dashboard import dashboard
from .kubernetes import DRAIN, USER

SAID = (
    "Secrets are read from files beside this one and are yours to make:",
    "  mkdir -p secrets && openssl rand -hex 24 > secrets/postgres && openssl rand -hex 24 > secrets/grafana",
    "  openssl rand -hex 32 > secrets/log && cp ../d2c_store/serving/keys.json secrets/keys.json && chmod 644 secrets/keys.json",
    "D2C_IMAGE is an image of your project (its folder with settings.ini, d2c on its path): it runs the schedule and MLflow.",
)
POSTGRES, PROMETHEUS, GRAFANA = "postgres:17", "prom/prometheus:v3.5.0", "grafana/grafana:12.1.0"
URL = 'postgresql+psycopg://d2c:"$$(cat /run/secrets/postgres)"@postgres'


def files(plan: Plan) -> dict[str, str]:
    """Return the files by name."""
    provider = {"name": "d2c", "type": "file", "options": {"path": "/etc/grafana/provisioning/dashboards"}}
    source = {
        "name": "Prometheus",
        "uid": "prometheus",
        "type": "prometheus",
        "url": "http://prometheus:9090",
        "isDefault": True,
    }
    texts = {
        "compose.yaml": compose(plan),
        "prometheus/prometheus.yaml": prometheus(plan),
        "prometheus/alerts.yaml": rules(plan),
        "grafana/datasources/prometheus.yaml": {"apiVersion": 1, "datasources": [source]},
        "grafana/dashboards/provider.yaml": {"apiVersion": 1, "providers": [provider]},
    }
    made = {
        name: header(SAID if name == "compose.yaml" else ()) + yaml.safe_dump(each, sort_keys=False, width=120)
        for name, each in texts.items()
    }
    databases = "-- Written by `d2c deploy`\nCREATE DATABASE ledger;\nCREATE DATABASE mlflow;\n"
    return made | {"grafana/dashboards/services.json": dashboard(), "postgres/databases.sql": databases}


def compose(plan: Plan) -> dict[str, Any]:
    """Return the services of the team, each with its limits."""
    project = "${D2C_IMAGE:?the image of your project}"
    stored = {"volumes": ["store:/store"], "secrets": ["postgres"]}
    up = {"postgres": {"condition": "service_healthy"}}
    serve = f"exec mlflow server --host 0.0.0.0 --port 5000 --backend-store-uri {URL}/mlflow --artifacts-destination /store/mlartifacts"
    schedule = f"export D2C_LEDGER_URL={URL}/ledger && exec d2c schedule run"
    return {
        "name": "d2c",
        "services": {
            "postgres": {
                "image": POSTGRES,
                "environment": {"POSTGRES_USER": "d2c", "POSTGRES_PASSWORD_FILE": "/run/secrets/postgres"},
                "secrets": ["postgres"],
                "volumes": ["postgres:/var/lib/postgresql/data", "./postgres:/docker-entrypoint-initdb.d:ro"],
                "healthcheck": {"test": ["CMD-SHELL", "pg_isready -U d2c -d ledger"], "interval": "5s", "retries": 12},
                **_limits(1.0, 1024),
            },
            "mlflow": {
                "image": project,
                "command": ["sh", "-c", serve],
                "environment": {"MLFLOW_DISABLE_TELEMETRY": "true"},
                "depends_on": up,
                **stored,
                **_limits(1.0, 1536),
            },
            "scheduler": {
                "image": project,
                "command": ["sh", "-c", schedule],
                "environment": {"D2C_STORE": "/store", "D2C_TRACKING_URI": "http://mlflow:5000"},
                "depends_on": up | {"mlflow": {"condition": "service_started"}},
                "stop_grace_period": "5m",
                **stored,
                **_limits(2.0, 4096),
            },
            plan.slug: service(plan),
            "prometheus": {
                "image": PROMETHEUS,
                "command": ["--config.file=/etc/prometheus/prometheus.yaml", "--storage.tsdb.retention.time=90d"],
                "volumes": ["./prometheus:/etc/prometheus:ro", "prometheus:/prometheus"],
                "ports": ["127.0.0.1:9090:9090"],
                **_limits(0.5, 512),
            },
            "grafana": {
                "image": GRAFANA,
                "environment": {"GF_SECURITY_ADMIN_PASSWORD__FILE": "/run/secrets/grafana"},
                "secrets": ["grafana"],
                "volumes": ["./grafana:/etc/grafana/provisioning:ro", "grafana:/var/lib/grafana"],
                "ports": ["127.0.0.1:3001:3000"],
                **_limits(0.5, 512),
            },
        },
        "volumes": {name: {} for name in ("postgres", "store", "state", "prometheus", "grafana")},
        "secrets": {name: {"file": f"./secrets/{file}"} for name, file in (("postgres", "postgres"), ("grafana", "grafana"),
                    ("log", "log"), ("keys", "keys.json"))},
    }  # fmt: skip


def service(plan: Plan) -> dict[str, Any]:
    """Return the model's service: no root, nothing written but its state."""
    start = "D2C_SERVICE_LOG_SECRET=$$(cat /run/secrets/log) exec /home/bentoml/bento/env/docker/entrypoint.sh bentoml serve /home/bentoml/bento"
    ready = f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{plan.port}/readyz', timeout=2)"
    return {
        "image": plan.image,
        "entrypoint": ["sh", "-c", start],
        "user": f"{USER}:{USER}",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "tmpfs": ["/tmp"],  # noqa: S108 - inside the container
        "environment": {
            "D2C_SERVICE_MODE": "production",
            "D2C_SERVICE_STATE": "/state",
            "D2C_SERVICE_KEYS": "/run/secrets/keys",
            "D2C_SERVICE_DRAIN_SECONDS": str(DRAIN),
            "BENTOML_DO_NOT_TRACK": "True",
        },
        "secrets": ["log", "keys"],
        "volumes": ["state:/state"],
        "ports": [f"127.0.0.1:{plan.port}:{plan.port}"],
        "stop_grace_period": f"{DRAIN + 30}s",
        "healthcheck": {
            "test": ["CMD", "python", "-c", ready],
            "interval": "10s",
            "timeout": "3s",
            "start_period": "30s",
        },
        **_limits(plan.size.cpu, round(plan.size.memory_mb * 1.5)),
    }


def _limits(cpus: float, memory_mb: int) -> dict[str, Any]:
    return {
        "restart": "unless-stopped",
        "deploy": {"resources": {"limits": {"cpus": f"{cpus:g}", "memory": f"{memory_mb}M"}}},
    }


def prometheus(plan: Plan) -> dict[str, Any]:
    """Return whom Prometheus asks, and how often."""
    asked = {"job_name": plan.slug, "static_configs": [{"targets": [f"{plan.slug}:{plan.port}"]}]}
    return {
        "global": {"scrape_interval": "15s", "evaluation_interval": "15s"},
        "rule_files": ["/etc/prometheus/alerts.yaml"],
        "scrape_configs": [asked],
    }


TARGET = Target(
    "compose",
    "service, scheduler, PostgreSQL, MLflow, Prometheus, Grafana on one machine",
    files,
    "docker compose -f {folder}/compose.yaml up -d",
)
