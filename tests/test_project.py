"""What the project's own files say fits together: versions of Python, pins, addresses, the release."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from types import ModuleType

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
INI = ConfigParser(interpolation=None)
INI.read(ROOT / "settings.ini", encoding="utf-8")
PACKAGE = INI["package"]


@pytest.fixture(scope="module")
def release() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", ROOT / ".ci/release.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def project(folder: Path, version: str, changes: str) -> Path:
    (folder / "settings.ini").write_text(f"[package]\nversion = {version}\n")
    (folder / "CHANGELOG.md").write_text(changes)
    return folder


def test_the_workflow_tests_every_version_of_python_that_the_package_claims() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/tests.yml").read_text())
    tested = workflow["jobs"]["quick"]["strategy"]["matrix"]["python"]
    claimed = re.findall(r"Python :: (3\.\d+)", PACKAGE["classifiers"])
    assert tested == claimed == ["3.11", "3.12", "3.13"]
    assert claimed[0] == PACKAGE["min_python"]


def test_a_release_is_published_without_a_stored_secret() -> None:
    workflow = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    publish = workflow["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text()
    assert workflow[True]["push"]["tags"] == ["v*.*.*"]  # `on` is a boolean in YAML


def test_workflows_may_only_read_unless_a_job_says_so() -> None:
    for file in sorted((ROOT / ".github/workflows").glob("*.yml")):
        workflow = yaml.safe_load(file.read_text())
        if file.name != "dependencies.yml":  # its only job opens a pull request
            assert workflow["permissions"] == {"contents": "read"}, file.name
        assert all("timeout-minutes" in job for job in workflow["jobs"].values()), file.name


def test_workflows_call_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    for file in sorted((ROOT / ".github/workflows").glob("*.yml")):
        assert set(re.findall(r"make ([a-z0-9-]+)", file.read_text())) <= targets, file.name


def test_hooks_install_the_versions_of_the_lock_and_need_no_venv() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text()
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), flags=re.M))
    hooks = [hook for repo in yaml.safe_load(text)["repos"] for hook in repo["hooks"]]
    pins = [pin.split("==") for hook in hooks for pin in hook["additional_dependencies"]]
    assert pins and all(locked[name] == version for name, version in pins)
    assert ".venv" not in text
    assert {hook["language"] for hook in hooks} == {"python"}


def test_the_address_of_the_repository_is_that_of_settings_ini_everywhere() -> None:
    contact = yaml.safe_load((ROOT / ".github/ISSUE_TEMPLATE/config.yml").read_text())["contact_links"][0]["url"]
    assert contact == f"{PACKAGE['url']}/security/advisories/new"
    owner = PACKAGE["url"].removeprefix("https://github.com/")
    for text in (ROOT / "README.md").read_text(), contact:
        assert set(re.findall(r"https://(?:raw\.githubusercontent|github)\.com/([\w-]+/[\w-]+)", text)) == {owner}


def test_readme_names_the_two_commands_that_do_all_the_set_up() -> None:
    readme, makefile = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
    for target in ("demo", "test"):
        assert re.search(rf"^make {target}\b", readme, re.MULTILINE)
        assert re.search(
            rf"^({target}|{target} .*|.* {target}): \$\(READY\)|^{target} .*: \$\(READY\)", makefile, re.MULTILINE
        )


def test_readme_shows_its_pictures_on_other_sites_too() -> None:
    places = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (ROOT / "README.md").read_text())
    assert len(places) >= 2
    for place in places:
        assert place.startswith("https://")
        assert (ROOT / place.split(f"/{PACKAGE['branch']}/")[1]).stat().st_size < 300_000


def test_the_newest_version_of_the_changelog_is_the_version_to_release(release: ModuleType, tmp_path: Path) -> None:
    assert release.faults(project(tmp_path, "0.2.0", "# C\n\n## 0.2.0, 2027-01-31\n\n### Added\n\n- x\n")) == []
    [fault] = release.faults(project(tmp_path, "0.3.0", "# C\n\n## Unreleased\n\n- y\n\n## 0.2.0, 2027-01-31\n\n- x\n"))
    assert "0.3.0" in fault and "0.2.0" in fault


def test_a_version_without_a_date_and_an_unknown_heading_are_refused(release: ModuleType, tmp_path: Path) -> None:
    changes = "# C\n\n## 0.2.0, soon\n\n### News\n\n- x\n"
    assert [fault.split(": ")[1] for fault in release.faults(project(tmp_path, "0.2.0", changes))] == [
        "0.2.0 has the heading News",
        "0.2.0 has no date",
    ]


@pytest.mark.parametrize("tag", ["v9.9.9", "0.1.0", "v0.1.0-rc1"])
def test_a_tag_of_another_version_releases_nothing(tag: str) -> None:
    done = subprocess.run([sys.executable, ROOT / ".ci/release.py", tag], capture_output=True, text=True)
    assert done.returncode == 1 and not done.stdout
    assert f"the tag is {tag}" in done.stderr
