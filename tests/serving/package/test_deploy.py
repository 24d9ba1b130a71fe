"""What `d2c deploy` writes runs without root, holds no secret, and asks only for metrics that the service has."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from sqlalchemy import make_url

from d2c_mlops.cli import main
from d2c_mlops.decisions.decision_statistics import decision_stats, metrics_text
from d2c_mlops.decisions.server import decision_service_plan
from d2c_mlops.errors import UsageError
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.monitoring.vital_signs import METRICS
from d2c_mlops.operations.health_metrics import health_metrics
from d2c_mlops.operations.heartbeat import METRIC as HEARTBEAT
from d2c_mlops.operations.monitor import ModelHealth
from d2c_mlops.serving.deploy import DecisionServicePlan, DeployPlan, ReplicaSize, deploy, size_of, targets
from d2c_mlops.serving.http.metrics import _http_counters
from d2c_mlops.serving.local.loadtest import LoadResult
from d2c_mlops.serving.rollout import rollout_commands as rollouts
from d2c_mlops.serving.rollout.promotion import promote
from d2c_mlops.serving.rollout.rollout_history import state_file_of
from d2c_mlops.serving.rollout.rollout_status import rollout_status
from d2c_mlops.serving.rollout.state_file import FILE, read_state, state_paths
from d2c_mlops.serving.state_paths import keys_file
from d2c_mlops.settings import load_settings, service_settings
from support.training import train

PLAN = DeployPlan(
    "mean_units", 3, "registry.example/mean_units:v3", ReplicaSize(cpu=0.5, memory_mb=600, least=3, most=9)
)


def written(target: str) -> dict[str, str]:
    return targets()[target].files(replace(PLAN, heartbeats=("scheduler", "monitor")))


HEALTH = ModelHealth("mean_units", 1, date(2024, 1, 1), datetime(2024, 1, 2, tzinfo=UTC), "wape", (), (), ())


def metric_names() -> set[str]:
    names = {sample.name for counter in _http_counters() for family in counter.collect() for sample in family.samples}
    for counter in _http_counters():
        names |= {f"{counter._name}{suffix}" for suffix in ("", "_total", "_bucket", "_count", "_sum")}
    told = metrics_text(
        [decision_stats(Ledger("sqlite://"), "mean_units", datetime.now(UTC), timedelta(days=1))]
    ).decode()
    looked = health_metrics(HEALTH, {}).decode()
    return names | {HEARTBEAT} | set(re.findall(r"^# TYPE (d2c_\w+)", told + looked, re.MULTILINE))


def test_a_replica_has_no_root_and_writes_nothing_but_its_state():
    pod = yaml.safe_load(written("kubernetes")["statefulset.yaml"])["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] != 0
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    mounts = {mount["mountPath"]: mount.get("readOnly", False) for mount in container["volumeMounts"]}
    assert mounts == {"/state": False, "/keys": True, "/rollout": True, "/tmp": False}
    assert container["image"] == PLAN.image
    assert container["resources"]["requests"] == {"cpu": "500m", "memory": "600Mi"}


def test_the_same_holds_under_compose():
    service = yaml.safe_load(written("compose")["compose.yaml"])["services"]["mean-units"]
    assert service["read_only"]
    assert service["user"].split(":")[0] not in ("0", "root")
    assert service["cap_drop"] == ["ALL"]
    assert service["deploy"]["resources"]["limits"] == {"cpus": "0.5", "memory": "900M"}


def test_what_the_autoscaler_scales_is_what_there_is():
    made = {name: yaml.safe_load(text) for name, text in written("kubernetes").items()}
    stateful, scaler = made["statefulset.yaml"], made["autoscaler.yaml"]["spec"]
    aimed = scaler["scaleTargetRef"]
    assert (aimed["kind"], aimed["name"]) == (stateful["kind"], stateful["metadata"]["name"])
    assert (scaler["minReplicas"], scaler["maxReplicas"]) == (3, 9)
    assert "replicas" not in stateful["spec"]  # each apply would scale back to it
    wanted = stateful["spec"]["selector"]["matchLabels"]
    assert wanted.items() <= stateful["spec"]["template"]["metadata"]["labels"].items()
    assert made["service.yaml"]["spec"]["selector"] == wanted


@pytest.mark.parametrize("target", sorted(targets()))
def test_no_secret_is_written(target):
    for name, text in written(target).items():
        code = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
        assert not re.search(r"(?i)(password|secret|token)\w*['\"]?\s*[:=]\s*['\"]?[A-Za-z0-9+]{12,}", code), name


@pytest.mark.parametrize("target", ["compose", "kubernetes"])
def test_rules_and_dashboards_ask_for_metrics_that_there_are(target):
    asked = set()
    for name, text in written(target).items():
        if "alerts" in name or name.endswith(".json"):
            asked |= set(re.findall(r"\bd2c_\w+", text))
    assert asked
    assert asked <= metric_names()


def test_the_health_board_has_a_panel_for_each_of_the_seven_metrics():
    text = written("compose")["grafana/dashboards/health.json"]
    assert all(f'metric=\\"{metric}\\"' in text for metric in METRICS)


@pytest.mark.parametrize("name", ["services", "health"])
def test_a_dashboard_is_grafanas_json_with_a_panel_for_each_question(name):
    board = json.loads(written("compose")[f"grafana/dashboards/{name}.json"])
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) >= 6
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in board["panels"]}
    assert len(places) == len(board["panels"])


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path):
    (tmp_path / "service.yaml").write_text("mine: true\n")
    with pytest.raises(UsageError, match="d2c did not write this file"):
        deploy(PLAN, "kubernetes", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["service.yaml"]
    assert len(deploy(PLAN, "kubernetes", tmp_path / "mine")) == len(deploy(PLAN, "kubernetes", tmp_path / "mine"))


def test_the_command_says_what_comes_next(settings, project):
    train(settings)
    promote("mean_units", settings)
    done = CliRunner().invoke(main, ["deploy", "mean_units", "--to", "kubernetes"])
    assert done.exit_code == 0, done.output
    assert "kubectl apply -f deploy/kubernetes/mean_units" in done.output
    pod = yaml.safe_load((project / "deploy/kubernetes/mean_units/statefulset.yaml").read_text())
    assert pod["spec"]["template"]["spec"]["containers"][0]["image"] == "mean_units:v1"


def test_replicas_follow_what_the_rollout_command_prints(settings, project):
    train(settings)
    promote("mean_units", settings)
    train(settings)
    first = CliRunner().invoke(main, ["rollout", "mean_units", "--to", "kubernetes"])
    assert json.loads(yaml.safe_load(first.stdout)["data"][FILE])["mode"] == "off"
    done = CliRunner().invoke(main, ["rollout", "mean_units", "--percent", "10", "--to", "kubernetes"])
    assert done.exit_code == 0, done.output
    assert "10 % of the keys" in done.stderr
    told = yaml.safe_load(done.stdout)
    pod = yaml.safe_load(written("kubernetes")["statefulset.yaml"])["spec"]["template"]["spec"]
    (volume,) = [each["configMap"] for each in pod["volumes"] if "configMap" in each]
    (mount,) = [each for each in pod["containers"][0]["volumeMounts"] if each["name"] == "rollout"]
    environment = {each["name"]: each.get("value") for each in pod["containers"][0]["env"]}
    assert "subPath" not in mount  # such a file never changes
    assert volume == {"name": told["metadata"]["name"], "optional": True}
    (name,) = told["data"]
    assert environment["D2C_SERVICE_ROLLOUT"] == f"{mount['mountPath']}/{name}"
    file = project / name
    file.write_text(told["data"][name])
    now = read_state(file)
    assert (now.champion, now.challenger, now.mode, now.share) == (1, 2, "share", 0.1)
    assert told["metadata"]["annotations"] == {"d2c/stage": now.stage}
    as_json = json.loads(CliRunner().invoke(main, ["rollout", "mean_units", "--to", "kubernetes", "--json"]).stdout)
    assert yaml.safe_load(as_json["manifest"]) == told


def test_the_workflow_brings_a_rollout_to_every_replica():
    (text,) = written("github-actions").values()
    jobs = yaml.safe_load(text)["jobs"]
    before = [step["run"] for step in jobs["staging"]["steps"] if "run" in step]
    (first,) = [i for i, run in enumerate(before) if "--to kubernetes > manifests/rollout.yaml" in run]
    (second,) = [i for i, run in enumerate(before) if run.startswith("kubectl apply")]
    assert first < second
    (last,) = [
        step["run"] for step in jobs["production"]["steps"] if step.get("name") == "Roll out to 10 % of the keys"
    ]
    assert "--percent 10" in last
    assert "configmap mean-units-rollout -o jsonpath='{.metadata.annotations.d2c/stage}'" in last
    assert "pods -l app.kubernetes.io/name=d2c,app.kubernetes.io/instance=mean-units" in last
    assert subprocess.run(["bash", "-n"], input=last, text=True, capture_output=True).returncode == 0


def steps_of(plan: DeployPlan, job: str) -> list[dict]:
    (text,) = targets()["github-actions"].files(plan).values()
    return yaml.safe_load(text)["jobs"][job]["steps"]


@pytest.mark.slow
def test_the_workflow_begins_a_rollout_once_and_leaves_it_alone_from_then_on(settings, project: Path):
    """The commands of the file are run, as a runner does on each push."""
    (begins,) = [step["run"] for step in steps_of(PLAN, "image") if step.get("id") == "rollout"]
    (last,) = [
        step["run"] for step in steps_of(PLAN, "production") if step.get("name") == "Roll out to 10 % of the keys"
    ]
    widens = last.splitlines()[0]
    own = project / "bin"
    own.mkdir()
    (own / "d2c").write_text(f'#!/bin/sh\nexec {sys.executable} -m d2c_mlops "$@"\n')
    (own / "d2c").chmod(0o755)

    def pushed(command: str = begins) -> tuple[str, str]:
        out = project / "output"
        out.write_text("")
        path = f"{own}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        given = os.environ | {"MODEL": "mean_units", "GITHUB_SHA": "0f", "GITHUB_OUTPUT": str(out), "PATH": path}
        done = subprocess.run(["bash", "-e", "-c", command], env=given, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr
        now = rollout_status("mean_units", settings).rollout
        return out.read_text().strip() + done.stdout, f"{now.mode} {now.share:g}" if now else "none"

    train(settings)
    promote("mean_units", settings)
    said, state = pushed()
    assert said.startswith("challenger=false") and "no other version than its champion" in said and state == "none"
    train(settings)
    assert pushed()[0].startswith("challenger=true")
    assert pushed(widens)[1] == "share 0.1"
    rollouts.start_rollout("mean_units", settings, share=0.5)
    assert pushed()[1] == pushed(widens)[1] == "share 0.5"
    rollouts.abort_rollout("mean_units", settings, reason="complaints")
    said, state = pushed()
    assert said.startswith("challenger=false") and "complaints" in said and state == "off 0"


def test_the_workflow_keeps_the_size_and_the_latency_that_were_given():
    plan = replace(PLAN, size=ReplicaSize(cpu=0.5, memory_mb=600, least=3, most=9, request_ms=80.0))
    (write,) = [step["run"] for step in steps_of(plan, "staging") if "d2c deploy" in step.get("run", "")]
    assert write.endswith("--cpu 0.5 --memory 600 --replicas 3 9 --latency 80")


def test_the_workflow_asks_for_what_there_is():
    bare, whole = (
        steps_of(replace(PLAN, project=files), "test") for files in (("settings.ini",), ("requirements.txt",))
    )
    assert bare[1]["with"] == {"python-version": "3.11"}  # without the file, its cache would fail
    assert whole[1]["with"]["cache"] == "pip"
    assert "d2c_mlops[notify]==" in bare[2]["run"] and "-r requirements.txt" in whole[2]["run"]
    (text,) = written("github-actions").values()
    assert "has no requirements.txt" in text
    tests = next(step["run"] for step in whole if "pytest -q" in step.get("run", ""))
    for code, right in ((0, True), (5, True), (1, False)):
        done = subprocess.run(["bash", "-e", "-c", tests.replace("python -m pytest -q", f"(exit {code})")])
        assert (done.returncode == 0) == right


@pytest.mark.parametrize(
    ("image", "host"),
    [("mean_units:v1", "docker.io"), ("acme/mean_units:v1", "docker.io"), ("ghcr.io/acme/mean_units", "ghcr.io"),
     ("localhost/mean_units:v1", "localhost"), ("registry.example:5000/a/b:v1", "registry.example:5000")],
)  # fmt: skip
def test_the_workflow_logs_into_the_registry_that_the_image_names(image: str, host: str):
    assert steps_of(replace(PLAN, image=image), "image")[3]["with"]["registry"] == host


def test_under_compose_the_scheduler_decides_and_the_service_follows(tmp_path: Path):
    services = yaml.safe_load(written("compose")["compose.yaml"])["services"]
    scheduler, service = services["scheduler"], services["mean-units"]
    assert "state:/state" in scheduler["volumes"]
    assert "state:/state" in service["volumes"]
    for name in ("D2C_SERVICE_STATE",):
        assert scheduler["environment"][name] == service["environment"][name] == "/state"
    held = load_settings(tmp_path, environ=scheduler["environment"] | {"D2C_LEDGER_URL_FILE": str(secret(tmp_path))})
    inside = service_settings(service["environment"] | {"D2C_SERVICE_LOG_SECRET_FILE": str(secret(tmp_path))})
    assert held.ledger == inside.log_secret == "sqlite:///x"
    assert state_file_of("mean_units", held) == state_paths(inside.rollout, inside.state, "mean_units")


def test_people_decide_under_compose_where_the_project_has_a_policy(tmp_path: Path):
    assert "decisions" not in yaml.safe_load(written("compose")["compose.yaml"])["services"]
    (tmp_path / "settings.ini").write_text(
        "[d2c]\n[decisions]\nlinks = secret:LINKS\nport = 3456\n"
        "[decisions:mean_units]\nfield = units\napply = secret:HOOK\nsign = secret:SIGN\nnotify.jo = secret:MAIL\n"
    )
    asked = decision_service_plan(load_settings(tmp_path))
    assert asked == DecisionServicePlan(3456, ("LINKS",), ("HOOK", "MAIL", "SIGN"))
    made = targets()["compose"].files(replace(PLAN, deciding=asked))
    whole = yaml.safe_load(made["compose.yaml"])
    service = whole["services"]["decisions"]
    assert service["command"][:3] == ["d2c", "decisions", "serve"] and service["ports"] == [
        "127.0.0.1:${D2C_DECISIONS_PORT:-3456}:3456"
    ]
    assert set(service["secrets"]) == {"ledger", "keys", "HOOK", "LINKS", "MAIL", "SIGN"} <= set(whole["secrets"])
    head = made["compose.yaml"].partition("\nname: d2c")[0]
    assert "openssl rand -hex 32 > secrets/LINKS" in head and "secrets/HOOK, secrets/MAIL, secrets/SIGN" in head
    given = service["environment"] | {"D2C_LEDGER_URL_FILE": str(secret(tmp_path))}
    held = load_settings(tmp_path, environ=given)
    assert str(keys_file(held)) == "/run/secrets/keys" and held.service.state == "/state"
    assert (
        service["environment"].items()
        <= (whole["services"]["scheduler"]["environment"] | {"D2C_SERVICE_KEYS": "/run/secrets/keys"}).items()
    )
    scheduler = whole["services"]["scheduler"]  # its jobs may run decisions, and look up who may cause them
    assert scheduler["environment"]["D2C_SERVICE_KEYS"] == "/run/secrets/keys" and "keys" in scheduler["secrets"]
    scraped = yaml.safe_load(made["prometheus/prometheus.yaml"])["scrape_configs"]
    assert [each["job_name"] for each in scraped] == ["mean-units", "decisions"]


def composed(plan: DeployPlan = PLAN) -> dict:
    return yaml.safe_load(targets()["compose"].files(plan)["compose.yaml"])


def test_what_the_service_section_says_reaches_replicas(settings, project: Path):
    train(settings)
    promote("mean_units", settings)
    with (project / "settings.ini").open("a") as out:
        out.write("[service]\nmax_records = 50\nworkers = 3\nlog_sample = 0.5\ndrain_seconds = 25\nkeys = mine.json\n"
                  "traces = http://otel:4318/v1/traces\n")  # fmt: skip
    for target in ("compose", "kubernetes"):
        done = CliRunner().invoke(main, ["deploy", "mean_units", "--to", target])
        assert done.exit_code == 0, done.output
    service = yaml.safe_load((project / "deploy/compose/mean_units/compose.yaml").read_text())["services"]["mean-units"]
    folder = project / "deploy/kubernetes/mean_units"
    assert "--from-file=keys.json=mine.json" in (folder / "statefulset.yaml").read_text()
    assert "cp ../../../mine.json secrets/keys.json" in done_head(project / "deploy/compose/mean_units")
    pod = yaml.safe_load((folder / "statefulset.yaml").read_text())["spec"]["template"]["spec"]
    there = {each["name"]: each["value"] for each in pod["containers"][0]["env"] if "value" in each}
    for environment in (there, {k: v for k, v in service["environment"].items() if not k.endswith("_FILE")}):
        held = service_settings(environment)
        assert (held.max_records, held.workers, held.log_sample, held.drain_seconds) == (50, 3, 0.5, 25.0)
        assert held.traces == "http://otel:4318/v1/traces" and held.mode == "production"
        assert held.keys in ("/keys/keys.json", "/run/secrets/keys")
    assert pod["terminationGracePeriodSeconds"] == 55 and service["stop_grace_period"] == "55s"
    (out,) = yaml.safe_load((folder / "network.yaml").read_text())["spec"]["egress"]
    assert {each["port"] for each in out["ports"]} == {53, 4318}
    assert yaml.safe_load(written("kubernetes")["network.yaml"])["spec"]["egress"] == []


def test_the_schedule_has_its_secrets_and_its_files_under_compose(settings, project: Path):
    train(settings)
    promote("mean_units", settings)
    (project / "reports").mkdir()
    (project / "config").mkdir()
    for name in ("reports/weekly.ipynb", "config/words.toml", "orders.csv", "d2c_store/words.toml"):
        (project / name).write_text("{}")
    with (project / "settings.ini").open("a") as out:
        out.write("[schedule:orders]\nrun = source\nat = daily 06:00\nparams.source = secret:SHOP_URL\nnotify = secret:OPS\n"
                  "[schedule:weekly]\nrun = reports/weekly.ipynb\nat = weekly on Monday 06:00\nparams.words = config/words.toml\n"
                  "params.other = d2c_store/words.toml\nparams.data = orders.csv\nparams.away = /etc/words.toml\n")  # fmt: skip
    done = CliRunner().invoke(main, ["deploy", "mean_units", "--to", "compose"])
    assert done.exit_code == 0, done.output
    folder = project / "deploy/compose/mean_units"
    whole = yaml.safe_load((folder / "compose.yaml").read_text())
    assert set(whole["services"]["scheduler"]["secrets"]) == {"ledger", "SHOP_URL", "OPS"} <= set(whole["secrets"])
    assert "refer to: secrets/OPS, secrets/SHOP_URL" in (folder / "compose.yaml").read_text()
    recipe = (folder / "project.Containerfile").read_text()
    assert "python3 -m d2c_mlops.serving.package.container.sbom /opt/d2c/sbom.cdx.json" in recipe
    copied = re.findall(r"^COPY (\S+) \./", recipe, re.MULTILINE)
    assert sorted(copied) == ["config/words.toml", "reports", "settings.ini", "toyshop"]
    assert re.search(r'pip install \S+ "d2c_mlops\[notify]==', recipe) and "no requirements.txt" in done_head(folder)
    (project / "requirements.txt").write_text("")
    (project / "wheels").mkdir()
    CliRunner().invoke(main, ["deploy", "mean_units", "--to", "compose"])
    recipe = (folder / "project.Containerfile").read_text()
    install = recipe.index("pip install --no-cache-dir --find-links wheels -r requirements.txt")
    assert (
        max(map(recipe.index, ("COPY requirements.txt", "COPY wheels"))) < install < recipe.index("COPY settings.ini")
    )
    assert "no requirements.txt" not in done_head(folder)


def done_head(folder: Path) -> str:
    return (folder / "compose.yaml").read_text().partition("\nname: ")[0]


def test_no_model_takes_the_place_of_another_or_of_a_service_of_the_team():
    assert composed()["name"] != composed(replace(PLAN, model="other"))["name"]
    for model in set(composed()["services"]) - {"mean-units"} | {"decisions"}:
        plan = replace(PLAN, model=model, deciding=DecisionServicePlan(3100))
        services = composed(plan)["services"]
        assert services[f"model-{model}"]["image"] == PLAN.image and services[model]["image"] != PLAN.image
        scraped = yaml.safe_load(targets()["compose"].files(plan)["prometheus/prometheus.yaml"])["scrape_configs"]
        assert scraped[0]["static_configs"] == [{"targets": [f"model-{model}:3000"]}]
    ports = [port for each in composed()["services"].values() for port in each.get("ports", ())]
    assert len(ports) == 6 and all(re.fullmatch(r"127\.0\.0\.1:\$\{D2C_\w+_PORT:-\d+}:\d+", port) for port in ports)


def test_the_head_makes_the_ledger_and_the_secrets_that_the_services_read(tmp_path: Path):
    """Its commands are run, as a person does; both addresses are of the ledger that compose starts."""
    (tmp_path / "d2c_store/serving").mkdir(parents=True)
    (tmp_path / "d2c_store/serving/keys.json").write_text("{}")
    plan = replace(PLAN, deciding=DecisionServicePlan(3100, ("LINKS",)), context="../../..")
    folder = tmp_path / "deploy/compose/mean_units"
    deploy(plan, "compose", folder)
    for line in (folder / "compose.yaml").read_text().splitlines():
        if line.startswith("#   ") and "> secrets/" in line:
            subprocess.run(["bash", "-e", "-c", line[1:]], cwd=folder, check=True)
    whole = yaml.safe_load((folder / "compose.yaml").read_text())
    for each in whole["secrets"].values():
        assert (folder / each["file"]).stat().st_mode & 0o444 == 0o444
    assert {name for each in whole["services"].values() for name in each.get("secrets", ())} == set(whole["secrets"])
    urls = [make_url((folder / f"secrets/{name}").read_text().strip()) for name in ("ledger", "ledger.here")]
    assert [(url.host, url.port) for url in urls] == [("postgres", None), ("127.0.0.1", 5432)]
    assert {(url.password, url.database) for url in urls} == {
        ((folder / "secrets/postgres").read_text().strip(), "ledger")
    }
    services = whole["services"]
    assert services["postgres"]["ports"] == ["127.0.0.1:${D2C_POSTGRES_PORT:-5432}:5432"]
    assert services["mlflow"]["ports"] == ["127.0.0.1:${D2C_MLFLOW_PORT:-5000}:5000"]
    head = done_head(folder)
    assert "D2C_LEDGER_URL_FILE=" in head and head.index("d2c keys create") < head.index("cp ../../..") < head.index(
        "d2c run train"
    )


def test_alerts_reach_somebody():
    made = {name: yaml.safe_load(text) for name, text in written("compose").items() if name.endswith(".yaml")}
    (asked,) = made["prometheus/prometheus.yaml"]["alerting"]["alertmanagers"]
    name, _, port = asked["static_configs"][0]["targets"][0].partition(":")
    service = composed()["services"][name]
    assert service["ports"][0].endswith(f":{port}")
    told = made["alertmanager/alertmanager.yaml"]
    (receiver,) = told["receivers"]
    assert told["route"]["receiver"] == receiver["name"]
    assert receiver["webhook_configs"][0]["url_file"] == f"/run/secrets/{service['secrets'][0]}"
    cluster = written("kubernetes")
    rule = yaml.safe_load(cluster["prometheus/rule.yaml"])
    assert (rule["kind"], rule["spec"]) == ("PrometheusRule", yaml.safe_load(cluster["prometheus/alerts.yaml"]))
    assert "kubectl apply -f prometheus/rule.yaml" in cluster["statefulset.yaml"]


@pytest.mark.parametrize(
    "wrong",
    [["--cpu", "-1"], ["--cpu", "nan"], ["--memory", "0"], ["--replicas", "5", "2"], ["--replicas", "0", "2"],
     ["--latency", "-3"], ["--rate", "0"]],
    ids=" ".join,
)  # fmt: skip
def test_a_size_that_cannot_be_is_refused(wrong: list[str]):
    with pytest.raises(UsageError) as caught:
        size_of(None, **{wrong[0].strip("-").replace("memory", "memory_mb").replace("latency", "request_ms"):
                         tuple(map(int, wrong[1:])) if len(wrong) > 2 else float(wrong[1])})  # fmt: skip
    assert caught.value.where == wrong[0]


def test_a_rate_that_one_replica_cannot_answer_is_refused_under_compose():
    load = LoadResult(
        "mean_units:1", "/predict", 8, 5.0, 9000, 1800.0, 3.0, 9.0, 3.0, 1.0, 200.0, 250.0, 10_000, 2.0, "here", "2026-11-27"
    )  # fmt: skip
    assert size_of(load, rate=200.0, alone=True)[0] == ReplicaSize(cpu=0.9, memory_mb=250, least=1, most=1)
    with pytest.raises(UsageError, match=r"5000 requests/s need 21\.4"):
        size_of(load, rate=5000.0, alone=True)
    assert size_of(load, rate=5000.0, cpu=22.0, alone=True)[0].cpu == 22.0
    assert size_of(load, rate=5000.0)[0].least == 22
    with pytest.raises(UsageError, match="one replica"):
        size_of(load, replicas=(2, 4), alone=True)


def secret(folder: Path) -> Path:
    file = folder / "secret"
    file.write_text("sqlite:///x\n")
    return file
