"""GitHub Actions target: a workflow from push to production that runs d2c commands."""

from __future__ import annotations

from typing import Any

import yaml

from . import REQUIREMENTS, DeployPlan, DeployTarget, header, pip_arguments, unpinned
from .kubernetes import STAGE, replica_labels, rollout_volume

SAID = (
    "Put this file into .github/workflows/. Create what it refers to (Settings, Secrets and variables):",
    "  secrets D2C_LEDGER_URL, D2C_TRACKING_URI: the ledger and MLflow; runners must be able to connect to them",
    "  variable D2C_STORE: where the store is mounted on a self-hosted runner, or empty for one that starts empty",
    "  environments staging and production, each with secret KUBECONFIG (base64), secret D2C_API_KEY and variable SERVICE_URL;",
    "  D2C_API_KEY has the scope probe, so that predictions of the check never become decisions: `d2c keys create ci --model MODEL --scope probe`",
    "  reviewers of the environment production approve each deployment before callers are affected",
    "A version newer than the champion is packaged as the challenger and runs in shadow mode; at the end it answers 10 % of the keys. Widen the rollout by",
    "`d2c rollout MODEL --percent 50 --to kubernetes | kubectl apply -f -`, end it by --promote or --abort. Without a newer version, the champion is deployed again with the new code.",
    "A rollout in progress is not changed. A version that was aborted or rolled back is rolled out again only when it is requested by",
    "--version.",
)
CHECKOUT: dict[str, Any] = {"uses": "actions/checkout@v4"}
PYTHON = {"python-version": "3.11"}
TESTS = "python -m pytest -q || test $? -eq 5"  # 5: the project has no tests
KUBECONFIG = (
    'mkdir -p ~/.kube && echo "$KUBECONFIG_DATA" | base64 --decode > ~/.kube/config && chmod 600 ~/.kube/config'
)
CHALLENGER = """d2c rollout "$MODEL" --shadow --begin --reason "$GITHUB_SHA" --json > rollout.json
python -c "import json; told = json.load(open('rollout.json')); print(*told['notes'], sep='\\n')"
python -c "import json; print('challenger=' + json.dumps(json.load(open('rollout.json'))['going']))" >> "$GITHUB_OUTPUT"
"""
PACKAGE = """d2c package "$MODEL" --containerize --backend docker --tag "$IMAGE" --json > package.json
python -c "import json; print('files=' + json.load(open('package.json'))['sha256'])" >> "$GITHUB_OUTPUT"
"""
# Pods see a changed ConfigMap at once when they are annotated, else within about a minute.
REACH = """d2c rollout "$MODEL" --percent 10 --begin --reason "$GITHUB_SHA" --to kubernetes > rollout.yaml
kubectl apply -f rollout.yaml
stage=$(kubectl get configmap {map} -o jsonpath='{{.metadata.annotations.{annotation}}}')
kubectl annotate pods -l {chosen} --overwrite {annotation}="$stage"
for pod in $(kubectl get pods -l {chosen} -o name); do
  timeout 180 sh -c "until kubectl exec $pod -- grep -q $stage /rollout/rollout.json; do sleep 2; done"
done
"""


class _Plain(yaml.SafeDumper):  # type: ignore[misc]
    """Steps that are repeated are written out; commands of several lines stay lines."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _literal_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Plain.add_representer(str, _literal_text)


def files(plan: DeployPlan) -> dict[str, str]:
    """Return the workflow."""
    text = yaml.dump(deployment_workflow(plan), Dumper=_Plain, sort_keys=False, width=120)
    return {f"d2c-{plan.slug}.yml": header([*SAID, *unpinned(plan)]) + text}


def deployment_workflow(plan: DeployPlan) -> dict[str, Any]:
    """Return the workflow of a model: one job per stage, each needs the previous one."""
    return {
        "name": f"d2c {plan.model}",
        "on": {"push": {"branches": ["main"]}, "workflow_dispatch": {}},
        "permissions": {"contents": "read"},
        "concurrency": {"group": f"d2c-{plan.model}", "cancel-in-progress": False},
        "env": {
            "MODEL": plan.model,
            "IMAGE": f"{image_repository(plan.image)}:${{{{ github.sha }}}}",
            "D2C_STORE": "${{ vars.D2C_STORE || 'd2c_store' }}",
        },
        "jobs": {
            "test": _workflow_job(plan, 20, [
                {"run": TESTS},
                {"name": "Contract is compatible with callers", "run": 'd2c contract diff "$MODEL"', "env": _ledger_service()},
            ]),
            "image": image_build_job(plan),
            "staging": deployment_job("staging", "image", plan, []),
            "production": deployment_job("production", "staging", plan, [
                {
                    "name": "Roll out to 10 % of the keys",
                    "if": "needs.image.outputs.challenger == 'true'",
                    "run": rollout_start_commands(plan),
                    "env": _ledger_service(),
                },
            ]),
        },
    }  # fmt: skip


def rollout_start_commands(plan: DeployPlan) -> str:
    """Return the commands that start the rollout at 10 % of the keys and wait until every replica follows."""
    chosen = ",".join(f"{name}={value}" for name, value in replica_labels(plan).items())
    return REACH.format(map=rollout_volume(plan.model), annotation=STAGE, chosen=chosen)


def image_build_job(plan: DeployPlan) -> dict[str, Any]:
    """Return the job that builds the Bento and its image and uploads the bill of materials."""
    host = image_registry(plan.image)
    github = host == "ghcr.io"
    login = {
        "registry": host,
        "username": "${{ github.actor }}" if github else "${{ secrets.REGISTRY_USER }}",
        "password": f"${{{{ secrets.{'GITHUB_TOKEN' if github else 'REGISTRY_TOKEN'} }}}}",
    }
    steps: list[dict[str, Any]] = [
        {"uses": "docker/login-action@v3", "with": login},
        {
            "name": "Package a newer version as challenger in shadow mode",
            "id": "rollout",
            "run": CHALLENGER,
            "env": _ledger_service(),
        },
        {"id": "package", "run": PACKAGE, "env": _ledger_service()},
        {"run": 'docker push "$IMAGE"'},
        {
            "uses": "actions/upload-artifact@v4",
            "with": {"name": "sbom", "path": "${{ env.D2C_STORE }}/bentoml/bentos/*/*/sbom.cdx.json"},
        },
    ]
    job_options: dict[str, Any] = {"permissions": {"contents": "read", "packages": "write"}} if github else {}
    job_options["outputs"] = {
        "challenger": "${{ steps.rollout.outputs.challenger }}",
        "files": "${{ steps.package.outputs.files }}",
    }
    return _workflow_job(plan, 45, steps, needs=["test"], **job_options)


def deployment_job(name: str, before: str, plan: DeployPlan, next_step: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the job that deploys the image to an environment and checks its contract."""
    sizes = f"--cpu {plan.size.cpu:g} --memory {plan.size.memory_mb} --replicas {plan.size.least} {plan.size.most} --latency {plan.size.request_ms:g}"
    write = f'd2c deploy "$MODEL" --to kubernetes --image "$IMAGE" --files "$FILES" --out manifests {sizes}'
    steps: list[dict[str, Any]] = [
        {"run": KUBECONFIG, "env": {"KUBECONFIG_DATA": "${{ secrets.KUBECONFIG }}"}},
        {"run": write, "env": _ledger_service() | {"FILES": "${{ needs.image.outputs.files }}"}},
        {
            "name": "Write the rollout state before replicas start",
            "run": 'd2c rollout "$MODEL" --to kubernetes > manifests/rollout.yaml',
            "env": _ledger_service(),
        },
        {"run": f"kubectl apply -f manifests && kubectl rollout status statefulset/{plan.slug} --timeout=10m"},
        {
            "name": "Contract check",
            "run": 'd2c contract check "$MODEL" "$SERVICE_URL"',
            "env": {"SERVICE_URL": "${{ vars.SERVICE_URL }}", "D2C_API_KEY": "${{ secrets.D2C_API_KEY }}"},
        },
        *next_step,
    ]
    earlier = ["image"] if before == "image" else ["image", before]
    return _workflow_job(plan, 30, steps, needs=earlier, environment=name)


def image_repository(image_build_job: str) -> str:
    """Return an image's name without its tag."""
    head, slash, last = image_build_job.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def image_registry(image_build_job: str) -> str:
    """Return the registry of an image name; a first part that is not a host means Docker Hub."""
    first, slash, _ = image_repository(image_build_job).partition("/")
    return first if slash and (set(first) & set(".:") or first == "localhost") else "docker.io"


def _workflow_job(plan: DeployPlan, minutes: int, steps: list[dict[str, Any]], **job_options: Any) -> dict[str, Any]:
    cached = {"cache": "pip"} if REQUIREMENTS in plan.project else {}  # the action fails without this file
    first = [
        CHECKOUT,
        {"uses": "actions/setup-python@v5", "with": PYTHON | cached},
        {"run": f"python -m pip install {pip_arguments(plan)} pytest"},
    ]
    return {**job_options, "runs-on": "ubuntu-latest", "timeout-minutes": minutes, "steps": [*first, *steps]}


def _ledger_service() -> dict[str, str]:
    return {name: f"${{{{ secrets.{name} }}}}" for name in ("D2C_LEDGER_URL", "D2C_TRACKING_URI")}


TARGET = DeployTarget(
    "github-actions",
    "on every push: tests, Bento, image, staging, contract check, production by rollout",
    files,
    "cp {folder}/*.yml .github/workflows/",
)
