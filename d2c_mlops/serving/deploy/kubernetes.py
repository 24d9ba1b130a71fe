"""Kubernetes target: manifests of one model, one file per kind."""

from __future__ import annotations

import json
import math
from typing import Any
from urllib.parse import urlsplit

import yaml

from d2c_mlops.serving.deploy import BUSY, DeployPlan, DeployTarget, header, slug
from d2c_mlops.serving.deploy.alerts import alert_rules
from d2c_mlops.serving.package.container.containerfile import USER
from d2c_mlops.serving.rollout.state_file import FILE, Rollout

SAID = (
    "Secret d2c-keys (key keys.json, made by `d2c keys create`) and Secret d2c-service (key log-secret) must be created first:",
    "  kubectl create secret generic d2c-keys --from-file=keys.json={keys}",
    "  kubectl create secret generic d2c-service --from-literal=log-secret=$(openssl rand -hex 32)",
    "Rollouts: `d2c rollout MODEL … --to kubernetes` prints the ConfigMap that the replicas follow; it is optional until the first rollout.",
    "The prediction log is on a volume of each replica: copy /state/log out of them, or ship it by a sidecar, and read it by",
    "`d2c collect --from FOLDER`. The decision service (`d2c decisions serve`) runs beside the ledger; no manifest here starts it.",
    "Allow callers and Prometheus of other namespaces by a label: kubectl label namespace NAME d2c/client=true.",
    "There is no CPU limit, so that a replica may use idle processors; the autoscaler sets the number of replicas.",
    "Alerts are in prometheus/: rule.yaml for a cluster with Prometheus's operator (kubectl apply -f prometheus/rule.yaml), alerts.yaml",
    "is the same for a Prometheus that reads files. Configure receivers in Alertmanager; alerts have the severity page or ticket.",
)
STAGE = "d2c/stage"  # annotation that names a step of a rollout


def files(plan: DeployPlan) -> dict[str, str]:
    """Return the manifests by file name."""
    manifests = {
        "statefulset.yaml": stateful_set(plan),
        "service.yaml": model_services(plan),
        "autoscaler.yaml": horizontal_autoscaler(plan),
        "disruption.yaml": disruption_budget(plan),
        "network.yaml": network_policy(plan),
        "account.yaml": {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": object_metadata(plan), "automountServiceAccountToken": False},
    }  # fmt: skip
    texts = {
        name: header([*(line.replace("{keys}", plan.keys) for line in SAID), plan.sized])
        + yaml.safe_dump(manifest, sort_keys=False)
        for name, manifest in manifests.items()
    }
    operated = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": object_metadata(plan),
        "spec": alert_rules(plan),
    }
    for name, resource in (("alerts", alert_rules(plan)), ("rule", operated)):
        texts[f"prometheus/{name}.yaml"] = header() + yaml.safe_dump(resource, sort_keys=False, width=120)
    return texts


def object_metadata(plan: DeployPlan) -> dict[str, Any]:
    """Return a name with its labels."""
    return {"name": plan.slug, "labels": replica_labels(plan) | {"app.kubernetes.io/version": str(plan.version)}}


def replica_labels(plan: DeployPlan) -> dict[str, str]:
    """Return the labels that select the replicas."""
    return model_selector_labels(plan.model)


def model_selector_labels(model: str) -> dict[str, str]:
    """Return the labels of a model's replicas."""
    return {"app.kubernetes.io/name": "d2c", "app.kubernetes.io/instance": slug(model)}


def rollout_volume(model: str) -> str:
    """Return the name of the ConfigMap with the rollout state."""
    return f"{slug(model)}-rollout"


def rollout_config_map(now: Rollout) -> str:
    """Return the ConfigMap with the rollout state; replicas follow it without a restart."""
    chosen = ",".join(f"{name}={value}" for name, value in model_selector_labels(now.model).items())
    rollout_comment = [
        "State of a rollout, followed by the replicas. Apply it: `| kubectl apply -f -`. Pods see a changed ConfigMap within about a minute, or at once after",
        f"  kubectl annotate pods -l {chosen} --overwrite {STAGE}={now.stage or 'none'}",
    ]
    metadata = {
        "name": rollout_volume(now.model),
        "labels": model_selector_labels(now.model),
        "annotations": {STAGE: now.stage or "none"},
    }
    data = {FILE: json.dumps(now.to_dict(), indent=1)}
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
    lines = ["Written by `d2c rollout`: do not edit; run the command again.", *rollout_comment]
    body: str = yaml.safe_dump(config_map, sort_keys=False, width=1000)
    return "".join(f"# {line}\n" for line in lines) + "\n" + body


def stateful_set(plan: DeployPlan) -> dict[str, Any]:
    """Return the StatefulSet: each replica has its own volume for the prediction log, so that no acknowledged line is lost with a pod."""
    annotations = {
        "prometheus.io/scrape": "true",
        "prometheus.io/port": str(plan.port),
        "prometheus.io/path": "/metrics",
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": object_metadata(plan),
        "spec": {
            "serviceName": plan.slug,  # the autoscaler sets the number of replicas; a number here would reset it with each apply
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": replica_labels(plan)},
            "updateStrategy": {"type": "RollingUpdate"},
            "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain", "whenScaled": "Retain"},
            "template": {
                "metadata": {"labels": replica_labels(plan), "annotations": annotations},
                "spec": pod_template(plan),
            },
            "volumeClaimTemplates": [
                {
                    "metadata": {"name": "state"},
                    "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}},
                }
            ],
        },
    }


def pod_template(plan: DeployPlan) -> dict[str, Any]:
    """Return the pod: without root, read-only except for its state, with startup, liveness and readiness probes."""
    secret = {"secretKeyRef": {"name": "d2c-service", "key": "log-secret"}}
    environment = [
        *({"name": name, "value": text} for name, text in plan.service.items()),
        {"name": "D2C_SERVICE_KEYS", "value": "/keys/keys.json"},
        {"name": "D2C_SERVICE_ROLLOUT", "value": f"/rollout/{FILE}"},
        {"name": "D2C_SERVICE_LOG_SECRET", "valueFrom": secret},
    ]
    container = {
        "name": "service",
        "image": plan.image,
        "ports": [{"name": "http", "containerPort": plan.port}],
        "env": environment,
        "resources": {
            "requests": {"cpu": f"{round(plan.size.cpu * 1000)}m", "memory": f"{plan.size.memory_mb}Mi"},
            "limits": {"memory": f"{round(plan.size.memory_mb * 1.5)}Mi"},
        },
        "startupProbe": health_probe("/livez", plan, 1, 60),
        "livenessProbe": health_probe("/livez", plan, 10, 3),
        "readinessProbe": health_probe("/readyz", plan, 2, 2),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "state", "mountPath": "/state"},
            {"name": "keys", "mountPath": "/keys", "readOnly": True},
            {
                "name": "rollout",
                "mountPath": "/rollout",
                "readOnly": True,
            },  # as a folder: a single file would never change
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - inside the container
        ],
    }
    return {
        "serviceAccountName": plan.slug,
        "terminationGracePeriodSeconds": math.ceil(plan.drain) + 30,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "keys", "secret": {"secretName": "d2c-keys"}},
            {"name": "rollout", "configMap": {"name": rollout_volume(plan.model), "optional": True}},
            {"name": "tmp", "emptyDir": {}},
        ],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": replica_labels(plan)},
            }
        ],
    }


def health_probe(path: str, plan: DeployPlan, every: int, failures: int) -> dict[str, Any]:
    """Return a probe; seconds between two of them and how many may fail."""
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": every,
        "failureThreshold": failures,
        "timeoutSeconds": 2,
    }


def model_services(plan: DeployPlan) -> dict[str, Any]:
    """Return the Services of the model."""
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": object_metadata(plan),
        "spec": {"selector": replica_labels(plan), "ports": ports},
    }


def horizontal_autoscaler(plan: DeployPlan) -> dict[str, Any]:
    """Return the HorizontalPodAutoscaler, which scales on CPU time."""
    target = {"type": "Utilization", "averageUtilization": round(100 * BUSY)}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": object_metadata(plan),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": plan.slug},
            "minReplicas": plan.size.least,
            "maxReplicas": plan.size.most,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 300}},
        },
    }


def disruption_budget(plan: DeployPlan) -> dict[str, Any]:
    """Return the PodDisruptionBudget."""
    spec = {"maxUnavailable": 1, "selector": {"matchLabels": replica_labels(plan)}}
    return {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": object_metadata(plan), "spec": spec}


def network_policy(plan: DeployPlan) -> dict[str, Any]:
    """Return the NetworkPolicy: ingress from this namespace and from labelled clients, egress only for traces."""
    marked = {"namespaceSelector": {"matchLabels": {"d2c/client": "true"}}}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": object_metadata(plan),
        "spec": {
            "podSelector": {"matchLabels": replica_labels(plan)},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": {}}, marked], "ports": [{"port": plan.port}]}],
            "egress": trace_egress_rules(plan),
        },
    }


def trace_egress_rules(plan: DeployPlan) -> list[dict[str, Any]]:
    """Return the egress rules: DNS, and the port of the trace collector where traces are on."""
    address = dict(plan.environment).get("D2C_SERVICE_TRACES")
    if not address:
        return []
    url = urlsplit(address)
    names = [{"port": 53, "protocol": protocol} for protocol in ("UDP", "TCP")]
    return [{"ports": [*names, {"port": url.port or (443 if url.scheme == "https" else 80), "protocol": "TCP"}]}]


TARGET = DeployTarget(
    "kubernetes",
    "StatefulSet, Service, autoscaler, policies, alert rules",
    files,
    "kubectl apply -f {folder}",
    rollout_config_map,
)
