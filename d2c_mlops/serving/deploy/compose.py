"""Docker Compose: the whole of a team on one machine: database, MLflow, scheduler, service, decisions, Prometheus, Grafana."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import yaml

from ..container import BASE
from ..container.containerfile import LIBRARY, SYSTEM, USER
from . import Deciding, Plan, Target, header
from .alerts import rules
from .dashboard import dashboard
from .kubernetes import DRAIN

PROJECT = """# Written by `d2c deploy`: the image of your project, which runs the schedule and MLflow. Secrets are mounted, never copied.
ARG BASE={base}
FROM ${{BASE}}
USER 0:0
ENV PYTHONUNBUFFERED=1 HOME=/tmp PYTHONPATH=/project D2C_STORE=/store MLFLOW_DISABLE_TELEMETRY=true BENTOML_DO_NOT_TRACK=True
{library}
WORKDIR /project
{install}
{copies}
RUN mkdir /store /state && chown {user}:{user} /store /state
USER {user}:{user}
VOLUME ["/store", "/state", "/tmp"]
CMD ["d2c", "schedule", "run"]
"""
POSTGRES, PROMETHEUS, GRAFANA = "postgres:17", "prom/prometheus:v3.5.0", "grafana/grafana:12.1.0"
HOSTS = "mlflow,mlflow:5000,localhost,localhost:*,127.0.0.1,127.0.0.1:*"  # others are refused by MLflow
URL = 'postgresql+psycopg://d2c:"$$(cat /run/secrets/postgres)"@postgres/mlflow'
LEDGER = "postgresql+psycopg://d2c:$(cat secrets/postgres)@postgres/ledger"


def said(plan: Plan) -> list[str]:
    """Return what is left to a person."""
    deciding = plan.deciding
    return [
        "Secrets are read from files beside this one and are yours to make:",
        "  mkdir -p secrets && openssl rand -hex 24 > secrets/postgres && openssl rand -hex 24 > secrets/grafana",
        f"  openssl rand -hex 32 > secrets/log && cp {plan.context}/d2c_store/serving/keys.json secrets/keys.json",
        *(f"  openssl rand -hex 32 > secrets/{name}" for name in (deciding.links if deciding else ())),
        f'  echo "{LEDGER}" > secrets/ledger && chmod 644 secrets/*',
        *(_about(deciding) if deciding else ()),
        "The scheduler and MLflow run in an image of your project, made by project.Containerfile, or named by D2C_IMAGE.",
        f"Decide about rollouts where the ledger is: docker compose exec scheduler d2c rollout {plan.model} --percent 10; the service",
        "shares its state with the scheduler and follows within a second. There `d2c collect` reads its log, too.",
        plan.sized,
    ]


def _about(deciding: Deciding) -> list[str]:
    files = ", ".join(f"secrets/{name}" for name in deciding.secrets)
    own = [f"Those that the policies name are yours to bring: {files}"] if files else []
    return [
        *own,
        f"People decide at port {deciding.port}, by keys of the scope decide or by links: put a proxy with TLS before it.",
    ]


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
        name: header(said(plan) if name == "compose.yaml" else ()) + yaml.safe_dump(each, sort_keys=False, width=120)
        for name, each in texts.items()
    }
    databases = "-- Written by `d2c deploy`\nCREATE DATABASE ledger;\nCREATE DATABASE mlflow;\n"
    return made | {
        "grafana/dashboards/services.json": dashboard(),
        "postgres/databases.sql": databases,
        "project.Containerfile": project(plan),
    }


def project(plan: Plan) -> str:
    """Return the recipe of the project's image: what it needs, then what changes more often."""
    wanted = "requirements.txt" if "requirements.txt" in plan.project else ""
    needs = f"-r {wanted}" if wanted else f"d2c_mlops=={version('d2c_mlops')}"
    pip = f'RUN python3 -m pip install --no-cache-dir {needs} "psycopg[binary]>=3.2,<4"'
    install = f"COPY {wanted} ./\n{pip}" if wanted else pip
    copies = "\n".join(f"COPY {name} ./{name}" for name in plan.project if name != wanted)
    library = LIBRARY.format(library=SYSTEM["lightgbm"][0], package=SYSTEM["lightgbm"][1])
    return PROJECT.format(base=BASE, library=library, install=install, copies=copies, user=USER)


def compose(plan: Plan) -> dict[str, Any]:
    """Return the services of the team, each with its limits."""
    own = {
        "image": "${D2C_IMAGE:-d2c-project}",
        "build": {"context": plan.context, "dockerfile": f"{plan.place or '.'}/project.Containerfile"},
    }
    stored = {"volumes": ["store:/store"], "secrets": ["postgres"]}
    up = {"postgres": {"condition": "service_healthy"}}
    serve = f"exec mlflow server --host 0.0.0.0 --port 5000 --workers 2 --allowed-hosts '{HOSTS}' --backend-store-uri {URL} --artifacts-destination /store/mlartifacts"
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
                **own,
                "command": ["sh", "-c", serve],
                "environment": {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                "depends_on": up,
                **stored,
                **_limits(1.0, 2048),  # four workers and those of its jobs went beyond 1.5 GB
            },
            "scheduler": {
                **own,
                "command": ["d2c", "schedule", "run"],
                "environment": {
                    "D2C_STORE": "/store",
                    "D2C_TRACKING_URI": "http://mlflow:5000",
                    "D2C_LEDGER_URL_FILE": "/run/secrets/ledger",
                    "D2C_SERVICE_STATE": "/state",
                },
                "depends_on": up | {"mlflow": {"condition": "service_started"}},
                "stop_grace_period": "5m",
                "volumes": ["store:/store", "state:/state"],
                "secrets": ["ledger"],
                **_limits(2.0, 4096),
            },
            plan.slug: service(plan),
            **({"decisions": decisions(plan.deciding, own, up)} if plan.deciding else {}),
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
        "secrets": {name: {"file": f"./secrets/{file}"} for name, file in (("postgres", "postgres"), ("ledger", "ledger"),
                    ("grafana", "grafana"), ("log", "log"), ("keys", "keys.json"), *((s, s) for s in _secrets(plan)))},
    }  # fmt: skip


def service(plan: Plan) -> dict[str, Any]:
    """Return the model's service: no root, nothing written but its state."""
    ready = f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{plan.port}/readyz', timeout=2)"
    return {
        "image": plan.image,
        "user": f"{USER}:{USER}",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "tmpfs": ["/tmp"],  # noqa: S108 - inside the container
        "environment": {
            "D2C_SERVICE_MODE": "production",
            "D2C_SERVICE_STATE": "/state",
            "D2C_SERVICE_KEYS": "/run/secrets/keys",
            "D2C_SERVICE_LOG_SECRET_FILE": "/run/secrets/log",
            "D2C_SERVICE_DRAIN_SECONDS": str(DRAIN),
            "BENTOML_DO_NOT_TRACK": "True",
        },
        "secrets": ["log", "keys"],
        "volumes": ["state:/state"],
        "ports": [f"127.0.0.1:{plan.port}:{plan.port}"],
        "stop_grace_period": f"{DRAIN + 30}s",
        "healthcheck": {
            "test": ["CMD", "python3", "-c", ready],
            "interval": "10s",
            "timeout": "3s",
            "start_period": "30s",
        },
        **_limits(plan.size.cpu, round(plan.size.memory_mb * 1.5)),
    }


def decisions(deciding: Deciding, own: dict[str, Any], up: dict[str, Any]) -> dict[str, Any]:
    """Return where people decide, and what collects, proposes and applies meanwhile."""
    ready = f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{deciding.port}/readyz', timeout=5)"
    return {
        **own,
        "command": ["d2c", "decisions", "serve", "--host", "0.0.0.0", "--port", str(deciding.port)],  # noqa: S104 - in a container
        "environment": {
            "D2C_STORE": "/store",
            "D2C_LEDGER_URL_FILE": "/run/secrets/ledger",
            "D2C_SERVICE_STATE": "/state",
            "D2C_SERVICE_KEYS": "/run/secrets/keys",
        },
        "depends_on": up,
        "volumes": ["store:/store", "state:/state"],
        "secrets": ["ledger", "keys", *deciding.links, *deciding.secrets],
        "ports": [f"127.0.0.1:{deciding.port}:{deciding.port}"],
        "stop_grace_period": "1m",
        "healthcheck": {
            "test": ["CMD", "python3", "-c", ready],
            "interval": "10s",
            "timeout": "6s",
            "start_period": "30s",
        },
        **_limits(0.5, 1024),
    }


def _secrets(plan: Plan) -> tuple[str, ...]:
    return (*plan.deciding.links, *plan.deciding.secrets) if plan.deciding else ()


def _limits(cpus: float, memory_mb: int) -> dict[str, Any]:
    return {
        "restart": "unless-stopped",
        "deploy": {"resources": {"limits": {"cpus": f"{cpus:g}", "memory": f"{memory_mb}M"}}},
    }


def prometheus(plan: Plan) -> dict[str, Any]:
    """Return whom Prometheus asks, and how often."""
    at = {plan.slug: plan.port} | ({"decisions": plan.deciding.port} if plan.deciding else {})
    asked = [{"job_name": name, "static_configs": [{"targets": [f"{name}:{port}"]}]} for name, port in at.items()]
    return {
        "global": {"scrape_interval": "15s", "evaluation_interval": "15s"},
        "rule_files": ["/etc/prometheus/alerts.yaml"],
        "scrape_configs": asked,
    }


TARGET = Target(
    "compose",
    "service, scheduler, decisions, PostgreSQL, MLflow, Prometheus, Grafana on one machine",
    files,
    "docker compose -f {folder}/compose.yaml up -d --build",
)
