"""What is loaded is what was registered and packaged, and a saved model's file does not choose what is imported."""

import json
import os
import py_compile
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.errors import DataRefused, UsageError
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.model import MODEL_FILE, Model, load, model_class_at
from d2c_mlops.monitoring.reference import read_reference
from d2c_mlops.registry import versions
from d2c_mlops.registry.clean_process import run_task
from d2c_mlops.registry.versions import find_version, load_version, register, version_files
from d2c_mlops.serving.app import service
from d2c_mlops.serving.bento_files import (
    LIST,
    VARIABLE,
    check_bento_files,
    digests_as_bytes,
    file_digests,
    file_list_digest,
)
from d2c_mlops.serving.deploy import DeployPlan, ReplicaSize, targets
from d2c_mlops.serving.local.server import serve_bento
from d2c_mlops.serving.package.bento import image_files_digest, package_model_version
from d2c_mlops.serving.rollout.promotion import promote
from d2c_mlops.settings import Settings
from support.training import SHOP, train

CANARY = "import pathlib\npathlib.Path('imported').touch()\nfrom toyshop import *\n"


def renamed(folder: Path, path: str) -> None:
    """Let a saved model name another class."""
    file = folder / MODEL_FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"class": path}))


# --- the class of a saved model


@pytest.mark.parametrize(
    "path", ["os:system", "subprocess:Popen", "evil:Model", "evil.inner:Model", "antigravity:Model", "toyshop;os:x", ":x", "..toyshop:M"]
)  # fmt: skip
def test_a_class_outside_of_the_projects_packages_is_refused_before_it_is_imported(
    path: str, settings: Settings
) -> None:
    folder = settings.root / "saved"
    load_version(train(settings), settings).save(folder)
    renamed(folder, path)
    for name in ("evil.py", "antigravity.py"):
        (settings.root / name).write_text(CANARY)
    for packages in (settings.packages, None, []):
        with pytest.raises(UsageError):
            load(folder, packages)
    assert not Path("imported").exists() and "evil" not in sys.modules and "antigravity" not in sys.modules


@pytest.mark.parametrize("target", ["secret", "../../secret", "model.json"])
def test_a_saved_model_with_a_link_is_not_registered(
    target: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("PRIVATE")
    kind = versions.model_class("mean_units", settings)
    plain = kind.save

    def save(model: Model, folder: Path) -> None:
        plain(model, folder)
        (folder / "more").mkdir()
        (folder / "more" / "key").symlink_to(tmp_path / target if target == "secret" else target)

    monkeypatch.setattr(kind, "save", save)
    with pytest.raises(DataRefused, match="contains links: more/key"):
        train(settings)
    assert not list((settings.store / "mlartifacts").rglob("key"))


def test_what_is_imported_already_is_still_no_model_where_it_is_none(settings: Settings) -> None:
    for path in ("os:system", "subprocess:Popen", "d2c_mlops.models.core.model:load"):
        with pytest.raises(UsageError, match=r"not a Model|outside"):
            model_class_at(path)
    assert model_class_at("toyshop:MeanUnits", settings.packages).__name__ == "MeanUnits"


# --- versions of the registry


def test_a_changed_version_is_refused_before_anything_of_it_is_parsed_or_imported(settings: Settings) -> None:
    version = train(settings)
    (settings.root / "evil.py").write_text(CANARY)
    file = version_files(version, settings) / MODEL_FILE
    for text in ('{"class": "evil:Model", "params": {}}', "{", "[" * 100_000):
        file.write_text(text)
        for do in (load_version, package_model_version):
            with pytest.raises(DataRefused, match="changed after they were registered"):
                do(version, settings)
    assert not Path("imported").exists()


def test_files_that_change_after_they_were_checked_are_not_used(settings: Settings, monkeypatch) -> None:
    version = train(settings)
    folder, real = version_files(version, settings), versions.model_class
    wanted = load_version(version, settings).units

    def meanwhile(name: str, held: Settings) -> type:
        (folder / "units.json").write_text("{}")
        renamed(folder, "os:system")
        return real(name, held)

    monkeypatch.setattr(versions, "model_class", meanwhile)
    assert load_version(version, settings).units == wanted != {}


def test_the_gates_clean_process_compares_files_before_it_loads_them(settings: Settings, tmp_path: Path) -> None:
    version = train(settings)
    folder, result = version_files(version, settings), tmp_path / "result.json"
    (folder / "units.json").write_text("{}")
    task = {"kind": "answers", "folder": str(folder), "files": version.sha256, "packages": ["evil"], "class": "evil:Model",
            "of": {}, "file": str(result)}  # fmt: skip
    (settings.root / "evil.py").write_text(CANARY)
    run_task(task)
    assert "changed after they were registered" in json.loads(result.read_text())["error"]
    run_task(task | {"files": versions.folder_digest(folder), "packages": ["toyshop"]})
    assert "outside of the project's packages" in json.loads(result.read_text())["error"]
    assert not Path("imported").exists()


# --- the files of a Bento


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A Bento's folder with its list."""
    root = tmp_path / "src"
    for name, text in {"toys/__init__.py": "WORTH = 1\n", "model/model.json": "{}", "version.json": "{}"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / LIST).write_bytes(digests_as_bytes(file_digests(root)))
    return root


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("model/model.json", "[]", "was changed"), ("toys/__init__.py", "WORTH = 2\n", "was changed"), ("version.json", None, "is missing"),
        ("pandas.py", "x = 1\n", "was added"), ("challenger/model.json", "{}", "was added"), (LIST, None, "is missing"), (LIST, "{}", "was changed"),
    ],
)  # fmt: skip
def test_a_file_of_a_bento_that_is_not_what_was_packaged_is_named(
    home: Path, name: str, text: str | None, what: str
) -> None:
    wanted = file_list_digest((home / LIST).read_bytes())
    check_bento_files(home, wanted)
    (home / name).parent.mkdir(exist_ok=True)
    (home / name).write_text(text) if text is not None else (home / name).unlink()
    with pytest.raises(DataRefused) as refused:
        check_bento_files(home, wanted)
    assert f"{name}: {what}" in str(refused.value)
    if name != LIST:
        (home / LIST).write_bytes(digests_as_bytes(file_digests(home)))  # and the list with it
        with pytest.raises(DataRefused, match=LIST):
            check_bento_files(home, wanted)


@pytest.mark.parametrize("name", ["orjson", "toys/inner", "toys/extra.py", "toys/__pycache__"])
def test_a_link_in_a_bento_is_refused(home: Path, name: str) -> None:
    wanted = file_list_digest((home / LIST).read_bytes())
    elsewhere = home.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "__init__.py").write_text("print('foreign code')")
    (home / name).symlink_to(elsewhere)
    with pytest.raises(DataRefused, match=f"{name}: is a link"):
        check_bento_files(home, wanted)


def test_a_packaged_file_that_became_a_link_to_a_copy_is_refused(home: Path) -> None:
    wanted, file = file_list_digest((home / LIST).read_bytes()), home / "model/model.json"
    file.replace(home.parent / "copy.json")
    file.symlink_to(home.parent / "copy.json")
    with pytest.raises(DataRefused, match=r"model/model\.json: is a link"):
        check_bento_files(home, wanted)


def test_a_pipe_in_a_bento_is_refused(home: Path) -> None:
    wanted = file_list_digest((home / LIST).read_bytes())
    os.mkfifo(home / "toys/model.bin")
    with pytest.raises(DataRefused, match=r"toys/model\.bin: is a special file"):
        check_bento_files(home, wanted)


@pytest.mark.parametrize("mode", list(py_compile.PycInvalidationMode))
@pytest.mark.parametrize("level", [0, 2])
def test_compiled_files_are_those_of_their_sources(home: Path, mode, level: int) -> None:
    wanted, source = file_list_digest((home / LIST).read_bytes()), home / "toys/__init__.py"
    made = Path(py_compile.compile(str(source), invalidation_mode=mode, optimize=level))
    check_bento_files(home, wanted)
    other = home.parent / "other.py"
    other.write_text("WORTH = 2\n")
    made.write_bytes(Path(py_compile.compile(str(other), invalidation_mode=mode, optimize=level)).read_bytes())
    with pytest.raises(DataRefused, match="does not match its source"):
        check_bento_files(home, wanted)
    made.write_bytes(b"\0" * 20)
    with pytest.raises(DataRefused, match="__pycache__"):
        check_bento_files(home, wanted)


def test_a_service_ends_with_the_files_name_and_without_a_digest_says_unverified(
    home: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(service, "HOME", home)
    monkeypatch.delenv(VARIABLE, raising=False)
    assert service.verify_files() == "unverified"
    monkeypatch.setenv(VARIABLE, file_list_digest((home / LIST).read_bytes()))
    assert service.verify_files() == "verified"
    (home / "model/model.json").write_text("[]")
    with pytest.raises(SystemExit) as ended:
        service.verify_files()
    assert ended.value.code == DataRefused.exit_code and "model/model.json: was changed" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["compose", "kubernetes"])
def test_manifests_say_which_files_the_service_has(target: str) -> None:
    for files in ("", "a" * 64):
        plan = DeployPlan("mean_units", 3, "mean-units:v3", ReplicaSize(), files=files)
        text = "".join(targets()[target].files(plan).values())
        assert (VARIABLE in text, "a" * 64 in text) == (bool(files), bool(files))


def test_a_workflow_hands_on_the_digest_of_what_it_packaged() -> None:
    (text,) = (
        targets()["github-actions"]
        .files(DeployPlan("mean_units", 3, "ghcr.io/x/mean-units:v3", ReplicaSize()))
        .values()
    )
    jobs = yaml.safe_load(text)["jobs"]
    assert jobs["image"]["outputs"]["files"] == "${{ steps.package.outputs.files }}"
    for name in ("staging", "production"):
        (step,) = [each for each in jobs[name]["steps"] if "d2c deploy" in each.get("run", "")]
        assert '--files "$FILES"' in step["run"] and step["env"]["FILES"] == "${{ needs.image.outputs.files }}"


def test_deploy_takes_the_digest_of_an_image_that_was_built_here(settings: Settings) -> None:
    version = train(settings)
    promote("mean_units", settings)
    folder = settings.store / "bentoml/bentos/mean_units/v1-x"
    (folder / "src").mkdir(parents=True)
    (folder / "src" / LIST).write_text("{}")
    (folder / "image.json").write_text(json.dumps({"tag": "mean_units:v1"}))
    assert image_files_digest(version, "mean_units:v1", settings) == file_list_digest(b"{}") and not image_files_digest(
        version, "x", settings
    )
    told = CliRunner().invoke(main, ["deploy", "mean_units", "--to", "compose"])
    assert (
        told.exit_code == 0 and file_list_digest(b"{}") in Path("deploy/compose/mean_units/compose.yaml").read_text()
    ), told.output
    other = CliRunner().invoke(main, ["deploy", "mean_units", "--to", "compose", "--image", "other:v1"])
    assert "cannot verify its files" in other.output
    assert VARIABLE not in Path("deploy/compose/mean_units/compose.yaml").read_text()
    wrong = CliRunner().invoke(main, ["deploy", "mean_units", "--to", "compose", "--files", "abc"])
    assert wrong.exit_code == 2 and "is not a SHA-256 digest" in wrong.output


@pytest.mark.slow
def test_a_bento_is_built_checked_and_served_or_refused(settings: Settings) -> None:
    version = train(settings)
    made = package_model_version(version, settings)
    assert made.made and len(made.sha256) == 64 and package_model_version(version, settings).sha256 == made.sha256
    with serve_bento(made, settings, port=bento_port()) as server:
        import httpx

        assert httpx.get(f"{server.url}/healthz").headers["x-d2c-files"] == "verified"
        assert httpx.get(f"{server.url}/contract").json()["about"]["files"] == "verified"
    check_bento_files(made.folder / "src", made.sha256)  # what it compiled meanwhile is of its sources
    file = made.folder / "src/toyshop/__init__.py"
    file.write_text(file.read_text() + "\nWORTH = 1\n")
    with pytest.raises(DataRefused, match=r"toyshop/__init__\.py: was changed"):
        package_model_version(version, settings)
    with (
        pytest.raises(Exception, match="differ from the packaged ones") as refused,
        serve_bento(made, settings, port=bento_port()),
    ):
        pass
    assert "toyshop/__init__.py" in str(refused.value)


def bento_port() -> int:
    from d2c_mlops.serving.local.server import free_port

    return free_port()


@pytest.mark.slow
def test_a_bento_carries_the_reference_of_its_version_by_stratum(settings: Settings) -> None:
    train(settings)
    fitted, (tables, as_of) = load_version(find_version(Ledger.of(settings), "mean_units"), settings), SHOP
    records = fitted.records(tables, as_of)
    days = pd.date_range("2023-12-04", periods=28).strftime("%Y-%m-%d").repeat(300 * 7 // 28 + 1)
    asked = pd.concat([records] * (len(days) // len(records) + 1), ignore_index=True).iloc[: len(days)]
    version = register("mean_units", fitted, fitted.evaluate(tables, as_of), settings=settings, as_of=as_of, questions=asked.assign(day=days))  # fmt: skip
    folder = package_model_version(version, settings).folder / "src" / "model"
    reference = read_reference(folder)
    assert reference is not None and reference == read_reference(version_files(version, settings))
    assert len(reference.strata) == 7 and reference.strata["Monday"].outputs["units"].rows >= 200
