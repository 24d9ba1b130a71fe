"""Docker Compose target: database, MLflow, scheduler, model service, decision service, Prometheus with Alertmanager and Grafana on one machine."""

from __future__ import annotations

import math
from typing import Any

import yaml

from d2c_mlops.serving.deploy import DecisionServicePlan, DeployPlan, DeployTarget, header, unpinned
from d2c_mlops.serving.deploy.alerts import alert_rules
from d2c_mlops.serving.deploy.dashboard import health_dashboard, service_dashboard
from d2c_mlops.serving.deploy.project import project_containerfile
from d2c_mlops.serving.package.container.containerfile import USER

POSTGRES, PROMETHEUS, GRAFANA = "postgres:17", "prom/prometheus:v3.5.0", "grafana/grafana:12.1.0"
ALERTMANAGER = "prom/alertmanager:v0.28.1"
OTHERS = ("postgres", "mlflow", "scheduler", "decisions", "prometheus", "alertmanager", "grafana")
HOSTS = "mlflow,mlflow:5000,localhost,localhost:*,127.0.0.1,127.0.0.1:*"  # others are refused by MLflow
URL = 'postgresql+psycopg://d2c:"$$(cat /run/secrets/postgres)"@postgres/mlflow'
LEDGER = "postgresql+psycopg://d2c:$(cat secrets/postgres)@{host}/ledger"


def head_comment(plan: DeployPlan) -> list[str]:
    """Return the manual steps, as comment lines."""
    deciding = plan.deciding
    keys = f"{plan.context}/{plan.keys}"
    return [
        f"1. Callers need an API key. First create one in the project's folder: `d2c keys create NAME --model {plan.model}`.",
        "2. Secrets are read from files beside this one. Create them:",
        "  mkdir -p secrets && openssl rand -hex 24 > secrets/postgres && openssl rand -hex 24 > secrets/grafana",
        f"  openssl rand -hex 32 > secrets/log && cp {keys} secrets/keys.json",
        *(f"  openssl rand -hex 32 > secrets/{name}" for name in (deciding.links if deciding else ())),
        f'  echo "{LEDGER.format(host="postgres")}" > secrets/ledger',
        f'  echo "{LEDGER.format(host="127.0.0.1:${D2C_POSTGRES_PORT:-5432}")}" > secrets/ledger.here',
        "  echo https://alerts.example/d2c > secrets/alerts && chmod 644 secrets/*",
        "The last is the web hook that Alertmanager calls when an alert fires: replace it with your own, or configure receivers in",
        "alertmanager/alertmanager.yaml.",
        *_setup_steps(plan),
        "3. The ledger and MLflow of this file start empty. Start them and point the project to them, so that the scheduler, the",
        "decision service and your own commands use the same versions. Run in the project's folder, with psycopg[binary] installed and the options of the first `d2c deploy` at the end:",
        f"   docker compose -f {plan.place or '.'}/compose.yaml up -d --build postgres mlflow",
        f"   export D2C_LEDGER_URL_FILE={plan.place or '.'}/secrets/ledger.here D2C_TRACKING_URI=http://127.0.0.1:${{D2C_MLFLOW_PORT:-5000}}",
        f"   d2c run train -p model={plan.model} && d2c promote {plan.model}",
        f"   d2c package {plan.model} --containerize && d2c deploy {plan.model} --to compose",
        "The scheduler has a store of its own. Bring data into it by jobs (run = source), or by docker compose exec scheduler d2c ingest ….",
        "4. Start the rest: docker compose up -d --build",
        "The scheduler and MLflow run in an image of your project, built from project.Containerfile or set by D2C_IMAGE.",
        *unpinned(plan),
        f"Run rollout commands where the ledger is: docker compose exec scheduler d2c rollout {plan.model} --percent 10. The service",
        "shares its state with the scheduler and follows within a second. `d2c collect` there reads the prediction log, too. The image of a",
        "challenger contains both versions: `d2c package --with-challenger N --containerize`.",
        "Change API keys in the project's folder, not in a container: d2c keys create, rotate or revoke. Then copy the file over the old",
        f"one (cp, which keeps it mounted, not mv): cp {keys} secrets/keys.json. The services follow within a second.",
        "The ports below suit one team per machine. To change them, set D2C_SERVICE_PORT, D2C_DECISIONS_PORT, D2C_GRAFANA_PORT, D2C_PROMETHEUS_PORT,",
        "D2C_ALERTMANAGER_PORT, D2C_POSTGRES_PORT or D2C_MLFLOW_PORT (in the environment, or in .env beside this file).",
        plan.sized,
    ]


def _setup_steps(plan: DeployPlan) -> list[str]:
    others = [*(plan.deciding.secrets if plan.deciding else ()), *plan.secrets]
    files = ", ".join(f"secrets/{name}" for name in dict.fromkeys(others))
    secret_step = [f"Create the secrets that policies and the schedule refer to: {files}"] if files else []
    if plan.deciding is None:
        return secret_step
    return [
        *secret_step,
        f"The decision service listens on port {plan.deciding.port}; approvers use API keys with the scope decide, or signed links. Put a TLS proxy in front of it.",
        "Only predictions requested by a batch, by an API key with the scope decide, or by a key listed in `keys` of the policy become decisions.",
    ]


def image_name(plan: DeployPlan) -> str:
    """Return the service name of the model in compose.yaml."""
    return f"model-{plan.slug}" if plan.slug in OTHERS else plan.slug


def published_port(name: str, port: int, container_port: int | None = None) -> list[str]:
    """Return a port mapping on 127.0.0.1 that an environment variable overrides."""
    return [f"127.0.0.1:${{D2C_{name}_PORT:-{port}}}:{container_port or port}"]


def files(plan: DeployPlan) -> dict[str, str]:
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
        "compose.yaml": compose_document(plan),
        "prometheus/prometheus.yaml": prometheus_configuration(plan),
        "prometheus/alerts.yaml": alert_rules(plan),
        "alertmanager/alertmanager.yaml": alertmanager_configuration(),
        "grafana/datasources/prometheus.yaml": {"apiVersion": 1, "datasources": [source]},
        "grafana/dashboards/provider.yaml": {"apiVersion": 1, "providers": [provider]},
    }
    made = {
        name: header(head_comment(plan) if name == "compose.yaml" else ())
        + yaml.safe_dump(document, sort_keys=False, width=120)
        for name, document in texts.items()
    }
    databases = "-- Written by `d2c deploy`\nCREATE DATABASE ledger;\nCREATE DATABASE mlflow;\n"
    return made | {
        "grafana/dashboards/services.json": service_dashboard(),
        "grafana/dashboards/health.json": health_dashboard(),
        "postgres/databases.sql": databases,
        "project.Containerfile": project_containerfile(plan),
    }


def compose_document(plan: DeployPlan) -> dict[str, Any]:
    """Return compose.yaml: all services with their limits."""
    project_service = {
        "image": f"${{D2C_IMAGE:-d2c-{plan.slug}-project}}",
        "build": {"context": plan.context, "dockerfile": f"{plan.place or '.'}/project.Containerfile"},
    }
    stored = {"volumes": ["store:/store"], "secrets": ["postgres"]}
    up = {"postgres": {"condition": "service_healthy"}}
    serve = f"exec mlflow server --host 0.0.0.0 --port 5000 --workers 2 --allowed-hosts '{HOSTS}' --backend-store-uri {URL} --artifacts-destination /store/mlartifacts"
    return {
        "name": f"d2c-{plan.slug}",
        "services": {
            "postgres": {
                "image": POSTGRES,
                "environment": {"POSTGRES_USER": "d2c", "POSTGRES_PASSWORD_FILE": "/run/secrets/postgres"},
                "secrets": ["postgres"],
                "volumes": ["postgres:/var/lib/postgresql/data", "./postgres:/docker-entrypoint-initdb.d:ro"],
                "healthcheck": {"test": ["CMD-SHELL", "pg_isready -U d2c -d ledger"], "interval": "5s", "retries": 12},
                "ports": published_port("POSTGRES", 5432),
                **_resource_limits(1.0, 1024),
            },
            "mlflow": {
                **project_service,
                "command": ["sh", "-c", serve],
                "environment": {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                "depends_on": up,
                "ports": published_port("MLFLOW", 5000),
                **stored,
                **_resource_limits(1.0, 2048),  # four workers and those of its jobs went beyond 1.5 GB
            },
            "scheduler": {
                **project_service,
                "command": ["d2c", "schedule", "run"],
                "environment": {
                    "D2C_STORE": "/store",
                    "D2C_TRACKING_URI": "http://mlflow:5000",
                    "D2C_LEDGER_URL_FILE": "/run/secrets/ledger",
                    "D2C_SERVICE_STATE": "/state",
                    **({"D2C_SERVICE_KEYS": "/run/secrets/keys"} if plan.deciding else {}),  # keys that may cause decisions
                },
                "depends_on": up | {"mlflow": {"condition": "service_started"}},
                "stop_grace_period": "5m",
                "volumes": ["store:/store", "state:/state"],
                "secrets": ["ledger", *(["keys"] if plan.deciding else []), *plan.secrets],
                **_resource_limits(2.0, 4096),
            },
            image_name(plan): model_service(plan),
            **({"decisions": decision_service(plan.deciding, project_service, up)} if plan.deciding else {}),
            "prometheus": {
                "image": PROMETHEUS,
                "command": ["--config.file=/etc/prometheus/prometheus.yaml", "--storage.tsdb.retention.time=90d"],
                "volumes": ["./prometheus:/etc/prometheus:ro", "prometheus:/prometheus"],
                "ports": published_port("PROMETHEUS", 9090),
                **_resource_limits(0.5, 512),
            },
            "alertmanager": {
                "image": ALERTMANAGER,
                "command": ["--config.file=/etc/alertmanager/alertmanager.yaml", "--storage.path=/alertmanager"],
                "secrets": ["alerts"],
                "volumes": ["./alertmanager:/etc/alertmanager:ro", "alertmanager:/alertmanager"],
                "ports": published_port("ALERTMANAGER", 9093),
                **_resource_limits(0.2, 128),
            },
            "grafana": {
                "image": GRAFANA,
                "environment": {"GF_SECURITY_ADMIN_PASSWORD__FILE": "/run/secrets/grafana"},
                "secrets": ["grafana"],
                "volumes": ["./grafana:/etc/grafana/provisioning:ro", "grafana:/var/lib/grafana"],
                "ports": published_port("GRAFANA", 3001, 3000),
                **_resource_limits(0.5, 512),
            },
        },
        "volumes": {name: {} for name in ("postgres", "store", "state", "prometheus", "alertmanager", "grafana")},
        "secrets": {name: {"file": f"./secrets/{'keys.json' if name == 'keys' else name}"} for name in _secret_names(plan)},
    }  # fmt: skip


def model_service(plan: DeployPlan) -> dict[str, Any]:
    """Return the model service: without root, read-only except for its state."""
    ready = f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{plan.port}/readyz', timeout=2)"
    return {
        "image": plan.image,
        "user": f"{USER}:{USER}",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "tmpfs": ["/tmp"],  # noqa: S108 - inside the container
        "environment": {
            **plan.service,
            "D2C_SERVICE_KEYS": "/run/secrets/keys",
            "D2C_SERVICE_LOG_SECRET_FILE": "/run/secrets/log",
            "BENTOML_DO_NOT_TRACK": "True",
        },
        "secrets": ["log", "keys"],
        "volumes": ["state:/state"],
        "ports": published_port("SERVICE", plan.port),
        "stop_grace_period": f"{math.ceil(plan.drain) + 30}s",
        "healthcheck": {
            "test": ["CMD", "python3", "-c", ready],
            "interval": "10s",
            "timeout": "3s",
            "start_period": "30s",
        },
        **_resource_limits(plan.size.cpu, round(plan.size.memory_mb * 1.5)),
    }


def decision_service(
    decision_plan: DecisionServicePlan, project_service: dict[str, Any], depends_on: dict[str, Any]
) -> dict[str, Any]:
    """Return the decision service, which also collects, proposes and applies decisions."""
    ready = f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{decision_plan.port}/readyz', timeout=5)"
    return {
        **project_service,
        "command": ["d2c", "decisions", "serve", "--host", "0.0.0.0", "--port", str(decision_plan.port)],  # noqa: S104 - in a container
        "environment": {
            "D2C_STORE": "/store",
            "D2C_LEDGER_URL_FILE": "/run/secrets/ledger",
            "D2C_SERVICE_STATE": "/state",
            "D2C_SERVICE_KEYS": "/run/secrets/keys",
        },
        "depends_on": depends_on,
        "volumes": ["store:/store", "state:/state"],
        "secrets": ["ledger", "keys", *decision_plan.links, *decision_plan.secrets],
        "ports": published_port("DECISIONS", decision_plan.port),
        "stop_grace_period": "1m",
        "healthcheck": {
            "test": ["CMD", "python3", "-c", ready],
            "interval": "10s",
            "timeout": "6s",
            "start_period": "30s",
        },
        **_resource_limits(0.5, 1024),
    }


def alertmanager_configuration() -> dict[str, Any]:
    """Return the configuration of Alertmanager: a web hook whose address is a secret."""
    hook = {"url_file": "/run/secrets/alerts", "send_resolved": True}
    return {
        "route": {"receiver": "hook", "group_by": ["alertname", "model"], "repeat_interval": "4h"},
        "receivers": [{"name": "hook", "webhook_configs": [hook]}],
    }


def _secret_names(plan: DeployPlan) -> list[str]:
    """Return the secrets of all services, each once."""
    deciding = (*plan.deciding.links, *plan.deciding.secrets) if plan.deciding else ()
    return list(dict.fromkeys(("postgres", "ledger", "grafana", "log", "keys", "alerts", *deciding, *plan.secrets)))


def _resource_limits(cpus: float, memory_mb: int) -> dict[str, Any]:
    return {
        "restart": "unless-stopped",
        "deploy": {"resources": {"limits": {"cpus": f"{cpus:g}", "memory": f"{memory_mb}M"}}},
    }


def prometheus_configuration(plan: DeployPlan) -> dict[str, Any]:
    """Return the scrape configuration of Prometheus."""
    at = {image_name(plan): plan.port} | ({"decisions": plan.deciding.port} if plan.deciding else {})
    scrape_configs = [
        {"job_name": name, "static_configs": [{"targets": [f"{name}:{port}"]}]} for name, port in at.items()
    ]
    return {
        "global": {"scrape_interval": "15s", "evaluation_interval": "15s"},
        "rule_files": ["/etc/prometheus/alerts.yaml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": ["alertmanager:9093"]}]}]},
        "scrape_configs": scrape_configs,
    }


TARGET = DeployTarget(
    "compose",
    "service, scheduler, decisions, PostgreSQL, MLflow, Prometheus, Alertmanager, Grafana on one machine",
    files,
    "docker compose -f {folder}/compose.yaml up -d --build",
)
