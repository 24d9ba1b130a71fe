"""What the project is built of: licences are judged, the lock is whole, and an audit that saw nothing is no clean bill."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / ".ci"), str(ROOT / "bench")]
import audit  # noqa: E402
import licences  # noqa: E402


@pytest.mark.parametrize(
    ("text", "judged"),
    [
        ("Apache-2.0", "allowed"),
        ("BSD License; MIT License", "allowed"),
        ("MIT OR GPL-2.0-only", "allowed"),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", "listed"),
        ("GNU Lesser General Public License v3 (LGPLv3)", "listed"),
        ("LGPL-3.0-only", "listed"),
        ("Apache-2.0 AND GPL-3.0-or-later", "refused"),
        ("GNU General Public License v3", "refused"),
        ("GPLv2", "refused"),
        ("AGPL-3.0-or-later", "refused"),
        ("GNU Affero General Public License v3", "refused"),
        ("SSPL-1.0", "refused"),
        ("Server Side Public License", "refused"),
        ("Business Source License 1.1", "refused"),
        ("BSD License; GNU General Public License (GPL)", "refused"),
        ("", "refused"),
    ],
)
def test_a_licence_is_judged_by_whom_it_binds(text: str, judged: str) -> None:
    assert licences.verdict(text) == judged


def test_a_lock_with_hashes_and_markers_is_read_by_its_names() -> None:
    text = "a2wsgi==1.0 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11\nuvloop==0.23 ; sys_platform != 'win32' \\\n    --hash=sha256:22\n"
    assert licences.locked(text) == ["a2wsgi", "uvloop"]


def test_the_lock_holds_hashes_that_pip_checks(tmp_path: Path) -> None:
    wheel = tmp_path / "toy-1.0-py3-none-any.whl"
    import zipfile

    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("toy.py", "")
        archive.writestr("toy-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy\nVersion: 1.0\n")
        archive.writestr("toy-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("toy-1.0.dist-info/RECORD", "")
    lock = tmp_path / "lock.txt"
    lock.write_text(f"toy==1.0 --hash=sha256:{'0' * 64}\n")
    command = [sys.executable, "-m", "pip", "install", "--no-index", "--find-links", str(tmp_path), "--target"]
    command += [str(tmp_path / "site"), "--require-hashes", "-r", str(lock)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode and "HASHES" in done.stderr.upper()
    install = [line for line in (ROOT / "Makefile").read_text().splitlines() if "-r requirements.lock" in line]
    assert len(install) == 2 and all("--require-hashes" in line for line in install)


def test_a_package_that_the_advisories_do_not_know_is_not_counted_as_checked(monkeypatch, capsys) -> None:
    told = {"dependencies": [{"name": "toy", "skip_reason": "Dependency not found on PyPI"}], "fixes": []}
    monkeypatch.setattr(
        audit.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=json.dumps(told), stderr="", returncode=0)
    )
    monkeypatch.setenv("STRICT", "1")
    assert audit.main("pip-audit") == 1
    printed = capsys.readouterr().out
    assert "could not be reached" in printed and "0 of 1 packages checked" in printed
    assert "aim: no known vulnerability | measured: 0 found in 0 checked | missed" in printed


def test_a_vulnerability_is_named_with_the_release_that_fixes_it(monkeypatch, capsys) -> None:
    flaw = {"id": "PYSEC-1", "fix_versions": ["1.1"], "aliases": [], "description": ""}
    told = {
        "dependencies": [
            {"name": "toy", "version": "1.0", "vulns": [flaw]},
            {"name": "other", "version": "2", "vulns": []},
        ]
    }
    monkeypatch.setattr(
        audit.subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=json.dumps(told), stderr="", returncode=1)
    )
    monkeypatch.setenv("STRICT", "1")
    assert audit.main("pip-audit") == 1
    printed = capsys.readouterr().out
    assert (
        "toy 1.0: PYSEC-1, fixed in 1.1" in printed
        and "every locked package is checked | measured: 2 of 2 | met" in printed
    )


def test_the_projects_image_lists_what_it_holds(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "d2c_mlops.serving.package.container.sbom", str(tmp_path / "sbom.cdx.json")]
    subprocess.run(command, check=True, cwd=tmp_path)
    bill = json.loads((tmp_path / "sbom.cdx.json").read_text())
    components = {(part["name"], part["version"]): part for part in bill["components"]}
    from importlib.metadata import version

    for name in ("pandas", "mlflow", "d2c_mlops"):
        assert (name, version(name)) in components
    assert components["pandas", version("pandas")]["licenses"]
    if Path("/var/lib/dpkg/status").is_file():
        assert any(part.get("purl", "").startswith("pkg:deb/") for part in bill["components"])
    needed = {part["ref"]: part.get("dependsOn", []) for part in bill["dependencies"]}
    assert any(name.startswith("numpy==") for name in needed[f"pandas=={version('pandas')}"])
