"""What is asked of a builder, what an image is refused for, what a load test and a running service tell; no real image."""

import json
import os
import shutil
import sys
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version as installed
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.errors import D2CError, GateRefused, Temporary, UsageError
from d2c_mlops.registry.versions import Version
from d2c_mlops.serving.deploy import DeployPlan, deploy, size_of
from d2c_mlops.serving.local.contract_check import check_service
from d2c_mlops.serving.local.loadtest import FILE, LoadResult, measured_load
from d2c_mlops.serving.local.server import serve_bento
from d2c_mlops.serving.package import container
from d2c_mlops.serving.package.bento import Bento
from d2c_mlops.serving.package.container import builders, containerize, find_builder, image_preparation, wheels
from d2c_mlops.serving.package.container.containerfile import USER
from d2c_mlops.serving.package.requirements import FORBIDDEN
from d2c_mlops.serving.rollout.promotion import promote
from d2c_mlops.settings import Settings, load_settings
from support.training import train

FAKE = """#!{python}
import json, os, shutil, sys
from pathlib import Path
told, name = Path({told!r}), Path(sys.argv[0]).name
with told.open("a") as out:
    out.write(json.dumps([name, *sys.argv[1:]]) + "\\n")
asked = sys.argv[1]
if asked == "version" and name in os.environ.get("NO_DAEMON", ""):
    sys.exit("Cannot connect to the Docker daemon")
if asked == "build":
    kept = told.with_name("context")
    shutil.rmtree(kept, ignore_errors=True)
    shutil.copytree(sys.argv[-1], kept)
    print("STEP 1/2: FROM base"); print(os.environ.get("STEP", "[2/2] COPY site/")); print(os.environ.get("SAYS", ""))
    sys.exit(int(os.environ.get("ENDS", "0")))
if asked in ("from", "create"):
    print("box")
if asked == "run":
    print(told.with_name("context").joinpath("sbom.cdx.json").read_text())
if asked == "cp":
    import tarfile
    with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as out:
        out.add(told.with_name("context") / "sbom.cdx.json", "sbom.cdx.json")
if asked == "images":
    print(json.dumps([{{"id": "abc", "size": "812 MB"}}]))
if asked == "image":
    print(json.dumps([{{"Id": "abc", "Size": 812000000}}]))
"""
PINS = ("orjson", "click", "packaging")
VERSION = Version(
    "mean_units", 3, datetime(2026, 1, 1, tzinfo=UTC), None, "toyshop:MeanUnits", {},
    {"name": "mean_units", "version": "1.2.0", "key": "k",
     "inputs": [{"name": "k", "kind": "string", "description": "K"}],
     "outputs": [{"name": "k", "kind": "string", "description": "K"}]},
    {}, {}, [], "2026-01-01", "0.1.0", "uri", "a" * 64,
)  # fmt: skip
LOAD = LoadResult("mean_units:v3-x", "/predict", 8, 5.0, 9_000, 1_800.0, 2.0, 9.0, 0.5, 0.9, 240.0, 300.4, 10_000, 5.0,
            "x86_64", "2026-11-26T10:00:00+00:00")  # fmt: skip


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with three builders that write down what they are asked, and nothing else."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("docker", "podman", "buildah"):
        (folder / name).write_text(FAKE.format(python=sys.executable, told=str(tmp_path / "told.jsonl")))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return tmp_path


@pytest.fixture
def bento(fakes: Path, monkeypatch: pytest.MonkeyPatch) -> Bento:
    """A Bento of three pins, whose packages are the ones installed here."""
    folder = fakes / "store/bentoml/bentos/mean_units/v3-x"
    (folder / "env/python").mkdir(parents=True)
    pins = "".join(f"{name}=={installed(name)}\n" for name in PINS)
    (folder / "env/python/requirements.txt").write_text(pins)
    (folder / "src").mkdir()
    (folder / "src/app.py").write_text("x = 1\n")
    (folder / "load.json").write_text("{}")

    def fetch(pins: Path, site: Path, python: str) -> None:
        for pin in pins.read_text().split():
            name, _, number = pin.partition("==")
            info = site / f"{name}-{number}.dist-info"
            info.mkdir(parents=True)
            (info / "METADATA").write_text(
                f"Metadata-Version: 2.4\nName: {name}\nVersion: {number}\nLicense-Expression: MIT\n"
            )

    monkeypatch.setattr(container, "install_wheels", fetch)
    return Bento("mean_units:v3-x", folder, made=True)


@pytest.fixture
def held(fakes: Path) -> Settings:
    return load_settings(fakes, environ={"D2C_STORE": str(fakes / "store")})


def told(fakes: Path) -> list[list[str]]:
    return [json.loads(line) for line in (fakes / "told.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["docker", "podman", "buildah"])
def test_each_builder_is_asked_for_the_image_and_for_its_bill(name: str, bento: Bento, held: Settings, fakes: Path):
    said: list[str] = []
    image = containerize(
        bento, VERSION, held, backend=name, base="localhost/py", options=["network=host"], log=said.append
    )
    assert (image.tag, image.id, image.size, image.packages) == ("mean_units:v3", "abc", 812_000_000, 3)
    asked = {call[1]: call for call in told(fakes)}
    build = asked["build"]
    assert build[0] == name and "--network=host" in build and build[build.index("--tag") + 1] == "mean_units:v3"
    assert ("--format" in build) == (name != "docker")  # a health check is kept in Docker's format only
    assert asked["rm"][2:] == ["box"]
    assert any("step 2 of 2" in line for line in said)
    assert json.loads((bento.folder / "image.json").read_text())["base"] == "localhost/py"


def test_the_image_has_no_root_declares_what_it_writes_and_says_what_it_is(bento: Bento, held: Settings, fakes: Path):
    containerize(bento, VERSION, held, backend="buildah", base="localhost/py")
    lines = (fakes / "context/Containerfile").read_text().splitlines()
    assert lines[0] == "FROM localhost/py"
    assert [line for line in lines if line.startswith("USER")][-1] == f"USER {USER}:{USER}"
    assert 'VOLUME ["/state", "/tmp"]' in lines and any(line.startswith("HEALTHCHECK") for line in lines)
    (labels,) = [line for line in lines if line.startswith("LABEL")]
    for wanted in (
        'd2c.model="mean_units"',
        'd2c.version="3"',
        'd2c.contract="1.2.0"',
        "org.opencontainers.image.base.name",
    ):
        assert wanted in labels
    (check,) = [line for line in lines if '"check"' in line]
    assert all(f'"{name}"' in check for name in FORBIDDEN)


def test_what_is_copied_holds_no_secret_and_nothing_that_was_written_beside_the_bento(
    bento: Bento, held: Settings, fakes: Path
):
    (keys := held.store / "serving").mkdir()
    (keys / "keys.json").write_text("{}")
    (keys / "log.secret").write_text("s3cret")
    containerize(bento, VERSION, held, backend="buildah", base="localhost/py")
    copied = {path.relative_to(fakes / "context") for path in (fakes / "context").rglob("*") if path.is_file()}
    assert Path("bento/src/app.py") in copied and not {"keys.json", "log.secret", "load.json"} & {
        p.name for p in copied
    }
    assert not any("s3cret" in (fakes / "context" / path).read_text() for path in copied)


def test_the_bill_lists_every_pin_with_its_license_and_the_model(bento: Bento, held: Settings):
    containerize(bento, VERSION, held, backend="buildah", base="localhost/py")
    bill = json.loads((bento.folder / "sbom.cdx.json").read_text())
    parts = {part["bom-ref"]: part for part in bill["components"]}
    for name in PINS:
        part = parts[f"{name}=={installed(name)}"]
        assert part["purl"] == f"pkg:pypi/{name}@{installed(name)}"
        assert part["licenses"] == [{"license": {"id": "MIT"}}]
    assert parts["model"]["type"] == "machine-learning-model" and parts["model"]["hashes"][0]["content"] == "a" * 64
    assert set(bill["dependencies"][[d["ref"] for d in bill["dependencies"]].index("image")]["dependsOn"]) == set(parts)


def test_what_the_image_refuses_is_told_and_nothing_is_left(
    bento: Bento, held: Settings, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ENDS", "3")
    monkeypatch.setenv("SAYS", f"#9 0.1 {image_preparation.REFUSED}mlflow can be imported: use a base image without it")
    with pytest.raises(UsageError, match="mlflow can be imported"):
        containerize(bento, VERSION, held, backend="buildah", base="localhost/py")
    assert not (bento.folder / "image.json").exists() and not (bento.folder / "sbom.cdx.json").exists()
    assert not list(held.store.glob("image-*"))


@pytest.mark.parametrize(
    ("step", "says", "error", "words"),
    [("", "initializing source docker://localhost/py: not found", UsageError, "base image cannot be pulled.*\n.*--base-image"),
     ("[2/2] RUN ldconfig || apt-get install libgomp1", "connection refused", UsageError, "lacks a library.*\n.*network=host"),
     ("[2/2] COPY site/", "write /x: no space left on device", Temporary, "disk is full"),
     ('[2/2] RUN ["python3", "prepare.py", "base"]', "executable not found", UsageError, "no python3"),
     ("[2/2] COPY site/", "segfault", D2CError, "could not build: segfault")],
)  # fmt: skip
def test_a_build_that_fails_says_why(
    step: str,
    says: str,
    error: type[D2CError],
    words: str,
    bento: Bento,
    held: Settings,
    monkeypatch: pytest.MonkeyPatch,
):
    for name, value in (("ENDS", "1"), ("STEP", step), ("SAYS", says)):
        monkeypatch.setenv(name, value)
    with pytest.raises(error, match=words):
        containerize(bento, VERSION, held, backend="podman", base="localhost/py")


def test_a_docker_without_its_daemon_is_passed_over(fakes: Path, monkeypatch: pytest.MonkeyPatch):
    assert find_builder().name == "docker"
    monkeypatch.setenv("NO_DAEMON", "docker")
    assert find_builder().name == "podman"
    with pytest.raises(UsageError, match=r"docker cannot build images here\n.*daemon"):
        find_builder("docker")


def test_without_a_builder_the_command_says_what_to_install(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    train(settings)
    promote("mean_units", settings)
    monkeypatch.setenv("PATH", "/nowhere")
    done = CliRunner().invoke(main, ["package", "mean_units", "--containerize"])
    assert (
        done.exit_code == 2 and "apt-get install buildah" in done.output and "docker: is not installed" in done.output
    )
    assert not (settings.store / "bentoml/bentos").exists()  # said before anything was built
    alone = CliRunner().invoke(main, ["package", "mean_units", "--tag", "x"])
    assert alone.exit_code == 2 and "require --containerize" in alone.output


def test_wheels_come_by_uv_else_by_pip_else_it_says_so(fakes: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(wheels, "find_spec", lambda _: None)
    monkeypatch.setattr(wheels, "find_program", shutil.which)
    with pytest.raises(UsageError, match="neither uv nor pip"):
        wheels.install_command("x86_64", "3.11", Path("site"))
    monkeypatch.setattr(wheels, "find_spec", lambda _: object())
    assert "manylinux_2_28_x86_64" in wheels.install_command("x86_64", "3.11", Path("site"))
    (fakes / "bin/uv").write_text("#!/bin/sh\necho 'error sending request for url' >&2\nexit 2\n")
    (fakes / "bin/uv").chmod(0o755)
    assert "x86_64-manylinux_2_34" in wheels.install_command("x86_64", "3.11", Path("site"))
    with pytest.raises(Temporary, match="cannot be downloaded"):
        wheels.install_wheels(Path("pins.txt"), Path("site"), "3.11")


def test_in_the_image_another_python_a_moved_pin_and_a_forbidden_module_are_refused(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        image_preparation.check_base("3.2", ["json"])
    told = capsys.readouterr().out
    assert "the packages are for 3.2" in told and "json can be imported" in told
    assert image_preparation.unpinned_versions([f"click=={installed('click')}", "click==0.0", "no-such==1"]) == [
        f"click 0.0 is pinned, {installed('click')} is installed", "no-such 1 is pinned, none is installed",
    ]  # fmt: skip
    assert image_preparation.forbidden_modules(["json", "no_such"]) == [
        "json can be imported: use a base image without it"
    ]


def test_the_systems_packages_are_read_from_dpkg(tmp_path: Path):
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\n')
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(
        "Package: zlib1g\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:1.2-1\nDescription: z\n more: text\n\n"
        "Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n"
    )
    (found,) = image_preparation.system_packages(tmp_path)
    assert found["purl"] == "pkg:deb/debian/zlib1g@1%3A1.2-1?arch=amd64"


def test_steps_of_all_builders_are_understood():
    for line in ("STEP 3/12: COPY a b", "Step 3/12 : COPY a b", "#7 [3/12] COPY a b", "#7 [stage-0 3/12] COPY a b"):
        found = builders.STEP.match(line)
        assert found is not None and found.groups() == ("3", "12", "COPY a b"), line
    assert builders.parse_bytes("812 MB") == 812_000_000 and builders.parse_bytes("1.5 GB") == 1_500_000_000


def test_limits_come_from_the_load_test_and_what_a_person_says_is_stronger():
    size, said = size_of(LOAD)
    assert (size.memory_mb, size.cpu, size.least) == (301, 1.0, 2) and "load test of 2026-11-26" in said
    busy, _ = size_of(LOAD, rate=10_000)  # 10,000 × 0.5 ms = 5 processors, at 70 % of them
    assert (busy.least, busy.cpu, busy.most) == (8, 0.9, 24)
    mine, said = size_of(LOAD, cpu=2.0, memory_mb=900, replicas=(3, 4))
    assert (mine.cpu, mine.memory_mb, mine.least, mine.most) == (2.0, 900, 3, 4) and "Set by options: --cpu" in said
    assert "not measured" in size_of(None)[1]
    with pytest.raises(UsageError, match="--rate needs a load test"):
        size_of(None, rate=5)


def test_the_commands_are_calls_too(bento: Bento, settings: Settings, monkeypatch: pytest.MonkeyPatch):
    import d2c_mlops as d2c
    from d2c_mlops import verbs

    train(settings)
    monkeypatch.setattr(verbs, "package", lambda *_, **__: bento)
    image = d2c.containerize("mean_units", version=1, backend="podman", base="localhost/py", settings=settings)
    assert (image.tag, image.builder, image.bento) == ("mean_units:v1", "podman", bento.tag)


@pytest.mark.slow
def test_a_service_is_loaded_its_limits_are_deployed_and_it_keeps_its_contract(settings: Settings, project: Path):
    version = train(settings)
    promote("mean_units", settings)
    unmeasured = CliRunner().invoke(main, ["deploy", "mean_units", "--to", "kubernetes"])
    assert "Limits are not measured: `d2c loadtest`" in unmeasured.output
    done = CliRunner().invoke(main, ["loadtest", "mean_units", "--seconds", "1", "--connections", "2", "--json"])
    assert done.exit_code == 0, done.output
    load = measured_load(version, settings)
    assert load is not None and load.to_dict() == json.loads(done.stdout)
    assert load.requests > 20 and 0.05 < load.cpu_ms < 100 and load.p50_ms <= load.p99_ms
    assert 50 < load.worker_mb < 2_000 and load.records == 10_000
    assert not list(settings.store.glob("load-*")) and not (settings.store / "serving/mean_units").exists()
    done = CliRunner().invoke(main, ["deploy", "mean_units", "--to", "kubernetes", "--json"])
    pod = yaml.safe_load((project / "deploy/kubernetes/mean_units/statefulset.yaml").read_text())
    (container,) = pod["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["requests"]["memory"] == f"{json.loads(done.stdout)['size']['memory_mb']}Mi"
    assert load.service_mb <= json.loads(done.stdout)["size"]["memory_mb"] <= load.service_mb + 1
    bento = Bento(load.bento, settings.store / "bentoml/bentos" / load.bento.replace(":", "/"), made=False)
    assert (bento.folder / FILE).exists()
    with serve_bento(bento, settings, port=_port()) as server:
        assert all(check.holds for check in check_service(server.url, version.schema, 1))
        other = CliRunner().invoke(main, ["contract", "check", "mean_units", server.url, "--version", "1"])
        assert other.exit_code == 0 and "/predict answers the example" in other.output
        fields = {**version.contract, "version": "2.0.0"}
        broken = [c.what for c in check_service(server.url, replace(version, contract=fields).schema, 7) if not c.holds]
        assert broken == ["/contract is mean_units 2.0.0", "version 7 answers", "/v2/predict answers, too"]
    gone = CliRunner().invoke(main, ["contract", "check", "mean_units", server.url])
    assert gone.exit_code == GateRefused.exit_code and "no answer" in gone.output


def _port() -> int:
    from d2c_mlops.serving.local.server import free_port

    return free_port()


def test_the_workflow_goes_from_push_to_production_by_way_of_staging_and_contract(tmp_path: Path):
    size, sized = size_of(LOAD)
    (file,) = deploy(
        DeployPlan("mean_units", 3, "ghcr.io/acme/units:v3", size, sized=sized), "github-actions", tmp_path
    )
    flow = yaml.safe_load(file.read_text())
    jobs = flow["jobs"]
    assert flow["on"] == {"push": {"branches": ["main"]}, "workflow_dispatch": {}}
    assert [jobs[name].get("needs") for name in ("test", "image", "staging", "production")] == [
        None, ["test"], ["image"], ["image", "staging"],
    ]  # fmt: skip
    commands = {name: "\n".join(step.get("run", "") for step in job["steps"]) for name, job in jobs.items()}
    assert 'd2c contract diff "$MODEL"' in commands["test"]
    assert '--containerize --backend docker --tag "$IMAGE"' in commands["image"]
    assert 'd2c contract check "$MODEL" "$SERVICE_URL"' in commands["staging"]
    assert 'd2c rollout "$MODEL" --percent 10' in commands["production"]
    assert jobs["production"]["environment"] == "production" and "--memory 301" in commands["production"]
    assert flow["env"]["IMAGE"] == "ghcr.io/acme/units:${{ github.sha }}"
    given = [value for job in jobs.values() for step in job["steps"] for value in step.get("env", {}).values()]
    assert given and all(value.startswith("${{ ") for value in given)
    assert "&id" not in file.read_text()  # not every runner knows anchors


def test_the_image_of_the_project_copies_what_it_needs_and_no_store(tmp_path: Path, settings: Settings, project: Path):
    train(settings)
    promote("mean_units", settings)
    (project / "requirements.txt").write_text("d2c_mlops\n")
    assert CliRunner().invoke(main, ["deploy", "mean_units", "--to", "compose"]).exit_code == 0
    folder = project / "deploy/compose/mean_units"
    lines = (folder / "project.Containerfile").read_text().splitlines()
    copied = [line.split()[1] for line in lines if line.startswith("COPY")]
    assert copied == ["requirements.txt", "settings.ini", "toyshop"]
    assert [line for line in lines if line.startswith("USER")][-1] == f"USER {USER}:{USER}"
    built = yaml.safe_load((folder / "compose.yaml").read_text())["services"]["scheduler"]["build"]
    context = Path(os.path.normpath(folder / built["context"]))
    assert context == project and (context / built["dockerfile"]).exists()
