"""A real image, built and run without a Docker daemon, asked, scraped and alarmed about: `make test-container`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory

from aims import Aim, close
from deploy import written
from machine import BASE, PYTHON, Podman, base_image, get, run, wait
from team import team

from d2c_mlops.serving.deploy import DeployPlan, ReplicaSize
from d2c_mlops.serving.local.server import free_port
from d2c_mlops.serving.package.requirements import FORBIDDEN
from d2c_mlops.serving.state_paths import service_environment
from d2c_mlops.settings import load_settings

HERE = Path(__file__).resolve().parent
MODEL, SLOW = "delayed", 0.8  # seconds, above the 0.5 that the alert rule allows
HARD = ("--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--volume", "/state")
TRIED = "for f in / /etc /opt/d2c /opt/d2c/site /home/bentoml/bento /usr /var/lib /state /tmp; do touch $f/.t 2>/dev/null && echo $f; done"
FOUND = "import importlib.util as u, sys; print([n for n in sys.argv[1:] if u.find_spec(n)])"
TRAIN = """
from datetime import date
from d2c_mlops.data.tables import Tables
from d2c_mlops.models.core.model import Evaluation
from d2c_mlops.registry.versions import new_model, register
from d2c_mlops.settings import load_settings
held = load_settings()
for delay in ({delays}):
    model = new_model("{model}", held, {{"delay": delay}}).fit(Tables({{}}), date(2026, 1, 1))
    example = model.records(Tables({{}}), date(2026, 1, 1))
    register("{model}", model, Evaluation("auc", 0.5, {{}}, False), settings=held, as_of=date(2026, 1, 1), example=example)
"""


def d2c(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run our command in the current folder."""
    return run(sys.executable, "-m", "d2c_mlops", *arguments, check=check)


def project(folder: Path) -> list[str]:
    """Make a project with two versions of a model, one fast and one slow; return its secrets: a key, its hash, the log's."""
    package = folder / "shop"
    package.mkdir()
    for name in ("additive.py", "delayed.py"):
        shutil.copy(HERE / name, package)
    (package / "__init__.py").write_text("from .delayed import Delayed\n")
    (folder / "settings.ini").write_text("[d2c]\npackages = shop\n")
    os.chdir(folder)
    os.environ |= {"PYTHONPATH": str(folder), "BUILDAH_ISOLATION": "chroot"}
    run(sys.executable, "-c", TRAIN.format(model=MODEL, delays=f"0.0, {SLOW}"))
    os.environ["D2C_API_KEY"] = json.loads(d2c("keys", "create", "crm", "--model", MODEL, "--json").stdout)["token"]
    probe = json.loads(d2c("keys", "create", "check", "--model", MODEL, "--scope", "probe", "--json").stdout)["token"]
    os.environ["D2C_PROBE_KEY"] = probe
    hashes = [one["sha256"] for one in json.loads(Path("d2c_store/serving/keys.json").read_text())["keys"]]
    secret = service_environment(MODEL, load_settings())["D2C_SERVICE_LOG_SECRET"]
    assert secret == Path("d2c_store/serving/log.secret").read_text() and len(secret) > 30 and hashes
    return [os.environ["D2C_API_KEY"], probe, *hashes, secret]


def build(number: int, *more: str) -> tuple[dict, float]:
    """Build the image of a version and return what the command says and how long it took."""
    start = time.monotonic()
    done = d2c("package", MODEL, "--version", number, "--containerize", "--backend", "buildah", "--base-image", BASE,
               "--json", *more)  # fmt: skip
    took = time.monotonic() - start
    made = json.loads(done.stdout)
    print(f"{made['image']['tag']}: {made['image']['size'] / 1e6:.0f} MB in {took:.0f} s", flush=True)
    return made, took


def refuses_mlflow() -> Iterator[Aim]:
    """A base image in which mlflow can be imported is refused."""
    name = "localhost/d2c-with-mlflow"
    Path("with").mkdir()
    place = "/usr/lib/python3/dist-packages/mlflow/__init__.py"
    Path("with/Containerfile").write_text(f"FROM {BASE}\nRUN mkdir -p {Path(place).parent} && touch {place}\n")
    run("buildah", "build", "--tag", name, "--pull=false", "with")
    done = d2c("package", MODEL, "--version", 1, "--containerize", "--backend", "buildah", "--base-image", name,
               "--tag", "localhost/refused", "--json", check=False)  # fmt: skip
    told = json.loads(done.stdout)
    said = [each["what"] for each in told.get("failures", ())]
    there = run("podman", "image", "exists", "localhost/refused", check=False).returncode == 0
    right = done.returncode == 2 and any(each.startswith("mlflow can be imported") for each in said) and not there
    run("podman", "rmi", "--force", name, check=False)
    yield Aim("an image in which mlflow can be imported is refused", f"exit {done.returncode}, {said}", right)


def bill(podman: Podman, name: str, folder: Path) -> Iterator[Aim]:
    """The bill of materials: the same in the image and beside the Bento, valid, with every pin."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    beside = (folder / "sbom.cdx.json").read_text()
    inside = podman.inside(name, "cat", "/opt/d2c/sbom.cdx.json").stdout
    parts = json.loads(beside)["components"]
    pins = (folder / "env/python/requirements.txt").read_text().split()
    missing = set(pins) - {part["bom-ref"] for part in parts}
    fault = JsonStrictValidator(SchemaVersion.V1_6).validate_str(beside)
    system = sum(part.get("purl", "").startswith("pkg:deb/debian/") for part in parts)
    said = f"{len(pins)} pins, {len(missing)} missing; {system} Debian packages; schema: {fault or 'valid'}"
    right = not missing and fault is None and json.loads(inside) == json.loads(beside) and system > 50
    yield Aim("the bill of materials lists every pin, is valid, and is in the image as beside the Bento", said, right)


def hardened(podman: Podman, name: str, secrets: list[str]) -> Iterator[Aim]:
    """What a process in the container may, and what is in the image."""
    user = podman.inside(name, "id", "-u").stdout.strip()
    status = podman.inside(name, "cat", "/proc/1/status").stdout
    held = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    process = held["Uid"].split()[0]
    yield Aim("it runs as a user that is not root", f"uid {user}, process {process}", "0" not in (user, process))
    could = podman.inside(name, "sh", "-c", TRIED).stdout.split()
    yield Aim("nothing but /state and /tmp can be written", " ".join(could), sorted(could) == ["/state", "/tmp"])
    yield Aim("it has no capabilities and gains none", f"CapBnd {held['CapBnd']}, NoNewPrivs {held['NoNewPrivs']}",
              int(held["CapBnd"], 16) == 0 and held["NoNewPrivs"] == "1")  # fmt: skip
    found = podman.inside(name, "python3", "-c", FOUND, *FORBIDDEN, "lightgbm").stdout.strip()
    yield Aim(f"{', '.join(FORBIDDEN)} cannot be imported, lightgbm can", found, found == "['lightgbm']")
    listed = [
        podman.inside(name, "grep", "-rlF", "--", secret, "/opt", "/home", "/etc").stdout.split() for secret in secrets
    ]
    told = run("buildah", "inspect", "--type", "image", f"{MODEL}:v1").stdout
    leaked = [*chain.from_iterable(listed), *(["configuration"] if any(secret in told for secret in secrets) else [])]
    kinds = f"{len(secrets)} secrets that were there before the build: {len(leaked)} places"
    yield Aim("no key, no hash of one and no log secret is in the image", kinds, not leaked)


def service(podman: Podman, made: dict, size: ReplicaSize, secrets: list[str]) -> Iterator[Aim]:
    """Run the image as a platform would and ask it."""
    token, probe = secrets[:2]
    file = Path("d2c_store/serving/keys.json")
    (keys := Path("keys")).mkdir(exist_ok=True)
    (keys / "keys.json").write_text(file.read_text())
    (keys / "keys.json").chmod(0o644)
    keys.chmod(0o755)
    port = free_port()
    limit = ["--memory", f"{round(size.memory_mb * 1.5)}m"]
    options = [*HARD, *limit, "--env", f"BENTOML_PORT={port}", "--volume", f"{keys.resolve()}:/keys:ro"]
    url = f"http://127.0.0.1:{port}"
    with podman.running("d2c-test", made["image"]["tag"], options) as name:
        ready = wait(f"{url}/readyz", 120)
        yield Aim(
            "ready on a read-only root within the memory of the load test", f"{ready:.1f} s, {limit[1]}", ready < 60
        )
        if ready == float("inf"):
            print(podman.log(name))
            return
        yield from hardened(podman, name, secrets)
        yield from bill(podman, name, Path(made["folder"]))
        done = d2c("contract", "check", MODEL, url, "--version", 1, "--key", probe, "--json", check=False)
        told = json.loads(done.stdout)
        said = f"{len(told['checks'])} checks hold" if done.returncode == 0 else str(told["failures"])
        yield Aim("over HTTP it keeps its contract", said, done.returncode == 0 and len(told["checks"]) >= 9)
        largest = asked(url, token, 10_000)
        yield Aim(
            "10,000 records at once fit its memory limit",
            f"status {largest[0]} in {largest[1]:.1f} s",
            largest[0] == 200,
        )
        health = podman("healthcheck", "run", name, check=False)
        yield Aim("its health check says healthy", health.stdout.strip() or "exit 0", health.returncode == 0)
        start = time.monotonic()
        podman("stop", "--time", "30", name)
        code = podman("inspect", "--format", "{{.State.ExitCode}}", name).stdout.strip()
        volume = podman("inspect", "--format", "{{range .Mounts}}{{.Source}} {{end}}", name).stdout.split()
        lines = sum(text.count("\n") for folder in volume for text in
                    (each.read_text() for each in Path(folder).rglob("*.jsonl")))  # fmt: skip
        said = f"exit {code} in {time.monotonic() - start:.1f} s, {lines:,} lines in sealed logs of its volume"
        yield Aim("told to stop, it seals its log and ends by itself", said, code == "0" and lines > 0)
    with podman.running("d2c-test", made["image"]["tag"], [*HARD, "--env", f"BENTOML_PORT={port}"]) as name:
        code = podman("wait", name).stdout.strip()
        told = "is not served without an API key" in podman.log(name)
        yield Aim("without mounted keys it does not start", f"exit {code}, says why: {told}", code != "0" and told)


def asked(url: str, key: str, records: int = 1) -> tuple[int, float]:
    """Ask for some records and return the status and the seconds."""
    document = json.loads(get(f"{url}/openapi.json")[1])
    example = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]["records"][
        0
    ]
    start = time.monotonic()
    status, _ = get(f"{url}/predict", key, {"records": [example] * records})
    return status, time.monotonic() - start


@contextmanager
def asking(url: str, key: str) -> Iterator[None]:
    """Ask a service again and again while the block lasts."""
    stopped = threading.Event()

    def ask() -> None:
        while not stopped.wait(0.05):
            asked(url, key)

    callers = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
    for each in callers:
        each.start()
    try:
        yield
    finally:
        stopped.set()
        for each in callers:
            each.join()


def said_aloud(aims: Iterable[Aim]) -> Iterator[Aim]:
    """Print each aim as soon as it is known: the whole takes minutes."""
    for aim in aims:
        print(f"  {aim}", flush=True)
        yield aim


def main() -> int:
    """Build, run, ask, scrape, alarm; one line an aim."""
    from alarm import alarm

    tools = HERE.parent
    os.chdir(tools)
    base_image()
    podman = Podman()
    with TemporaryDirectory(prefix="d2c-container-") as folder:
        secrets = project(Path(folder))
        first, took = build(1)
        image = first["image"]
        said = f"{took:.0f} s, {image['size'] / 1e6:.0f} MB, {image['packages']} packages, Python {PYTHON}"
        aims = [Aim("buildah builds the image without a daemon and without network", said, image["size"] > 0)]
        aims += said_aloud(refuses_mlflow())
        load = json.loads(d2c("loadtest", MODEL, "--version", 1, "--seconds", 5, "--json").stdout)
        told = json.loads(d2c("deploy", MODEL, "--version", 1, "--to", "kubernetes", "--json").stdout)
        size = ReplicaSize(**told["size"])
        right = told["load"] == load and load["service_mb"] <= size.memory_mb <= load["service_mb"] + 1
        said = f"peak {load['service_mb']} MB, {load['cpu_ms']} ms a request; manifests ask for {size.memory_mb} MB"
        aims.append(Aim("limits of the manifests are those of the load test", said, right))
        aims += said_aloud(service(podman, first, size, secrets))
        aims += said_aloud(alarm(podman, first, build(2)[0], HARD, DeployPlan(MODEL, 2, f"{MODEL}:v2", size), asking))
        both = f"{MODEL}:v1-beside-v2"
        build(1, "--with-challenger", "2", "--tag", both)
        train = TRAIN.format(model=MODEL, delays=f"0.0, {SLOW}")
        aims += said_aloud(team(podman, DeployPlan(MODEL, 1, both, size), train))
        os.chdir(tools)
        for tag in (f"{MODEL}:v1", f"{MODEL}:v2", both):
            run("podman", "rmi", "--force", tag, check=False)
    aims += written(DeployPlan(MODEL, 1, "registry.example/delayed:v1", size))
    return close(aims)


if __name__ == "__main__":
    sys.exit(main())
