"""Check what `d2c deploy` writes with the platforms' own tools: `make test-deploy`."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from aims import Aim, close
from exports import workflows

from d2c_mlops.serving.deploy import DecisionServicePlan, DeployPlan, ReplicaSize, deploy

TOOLS = Path(__file__).resolve().parents[1] / ".bench/exports/bin"
ABORTED = "D2CRolloutAborted"
KUBERNETES = ("1.31", "1.33")  # versions whose published schemas are asked
PLAN = DeployPlan("lead_scoring", 3, "registry.example/lead_scoring:v3", ReplicaSize())


def main() -> int:
    """Write the files of every platform and let its tools judge them."""
    return close(written(PLAN))


def written(plan: DeployPlan) -> list[Aim]:
    """Write the files of a plan for every platform and return what the platforms' tools say."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        cluster = deploy(plan, "kubernetes", folder / "kubernetes")
        team = deploy(
            replace(plan, deciding=DecisionServicePlan(3100, ("LINKS",), ("HOOK",))), "compose", folder / "compose"
        )
        manifests = [path for path in cluster if path.parent.name != "prometheus"]
        validator = TOOLS / "kubernetes-validate"
        aims = [
            judged(
                f"manifests fit the schemas of Kubernetes {version}", [validator, "-k", version, "--strict", *manifests]
            )
            for version in KUBERNETES
        ]
        (compose,) = [path for path in team if path.name == "compose.yaml"]
        schema = ["--builtin-schema", "vendor.compose-spec", compose]
        aims.append(judged("the compose file fits the published schema", [TOOLS / "check-jsonschema", *schema]))
        for rules in (path for path in [*cluster, *team] if path.name == "alerts.yaml"):
            aims.append(
                judged(f"promtool accepts the rules for {rules.parents[1].name}", ["promtool", "check", "rules", rules])
            )
        aims.append(aborted(folder, next(path for path in cluster if path.name == "alerts.yaml"), plan))
        (scraped,) = [path for path in team if path.name == "prometheus.yaml" and path.parent.name == "prometheus"]
        text = scraped.read_text().replace("/etc/prometheus/alerts.yaml", str(scraped.with_name("alerts.yaml")))
        scraped.write_text(text)
        aims.append(judged("promtool accepts what Prometheus is told", ["promtool", "check", "config", scraped]))
        return [*aims, workflows(deploy(plan, "github-actions", folder / "github"))]


def aborted(folder: Path, rules: Path, plan: DeployPlan) -> Aim:
    """Let promtool play a service that ends a rollout: the counter is not there, then it is 1, later it goes with a new pod."""
    series = f'd2c_rollout_aborts_total{{model="{plan.model}",version="2",reason="errors"}}'
    labels = {"severity": "ticket", "model": plan.model}
    (alert,) = [
        one
        for group in yaml.safe_load(rules.read_text())["groups"]
        for one in group["rules"]
        if one["alert"] == ABORTED
    ]
    fires = [{"exp_labels": labels, "exp_annotations": alert["annotations"]}]
    cases = [("9m", []), ("12m", fires), ("60m", fires), ("75m", [])]
    test = {
        "rule_files": [str(rules)], "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": [{"series": series, "values": "_x10 1x90"}],
                   "alert_rule_test": [{"eval_time": at, "alertname": ABORTED, "exp_alerts": said} for at, said in cases]}],
    }  # fmt: skip
    file = folder / "aborted.yaml"
    file.write_text(yaml.safe_dump(test))
    return judged(
        "an aborted rollout alerts for an hour, although its counter begins at 1", ["promtool", "test", "rules", file]
    )


def judged(what: str, command: list[object]) -> Aim:
    """Return whether a tool is content, with its last words."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120)
    said = (done.stdout + done.stderr).strip().splitlines()
    if done.returncode:
        print("\n".join(said))
    return Aim(what, "accepted" if done.returncode == 0 else said[-1] if said else "refused", done.returncode == 0)


if __name__ == "__main__":
    sys.exit(main())
