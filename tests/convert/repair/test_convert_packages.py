"""`d2c convert --install` takes names of distributions and wheels: nothing of a package runs outside of isolation."""

from __future__ import annotations

from pathlib import Path

import pytest

from d2c_mlops.convert.conversion_report import report_html
from d2c_mlops.convert.repair import package_installation
from d2c_mlops.convert.repair.package_installation import install
from d2c_mlops.convert.run.isolation import CONTAINER, PROPERTIES, protection_table, system_modes

FAKE = '#!/bin/sh\nfor a in "$@"; do printf "%s\\n" "$a" >> "$(dirname "$0")/log"; done\npwd >> "$(dirname "$0")/log"\necho " + six==1.0" >&2\n'


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installer that notes its arguments and its folder."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "uv").write_text(FAKE)
    (tmp_path / "bin" / "uv").chmod(0o755)
    monkeypatch.setattr(package_installation, "find_program", lambda name: str(tmp_path / "bin" / name))
    return tmp_path / "bin" / "log"


@pytest.mark.parametrize("name", [
    "--index-url=https://evil.example", "-r", "git+https://evil.example/x", "https://evil.example/x.whl", "./shop", "../shop", "/srv/shop",
    "shop @ file:///srv/shop", "shop; os_name", "C:\\shop", "shop\n--pre", "", "-e.", "file:shop", "~shop",
])  # fmt: skip
def test_what_is_no_name_is_not_given_to_the_installer(name: str, log: Path, tmp_path: Path) -> None:
    done = install([name], tmp_path / "packages")
    assert done.made == () and done.failed == {name: "it is not a valid distribution name"}
    assert not log.exists()


@pytest.mark.parametrize(
    "name", ["six", "scikit-learn", "ruamel.yaml", "a", "moto[s3,ec2]", "six==1.16.0", "pandas-ta>=0.3,<1", "x~=2.0"]
)
def test_names_with_extras_and_versions_are(name: str, log: Path, tmp_path: Path) -> None:
    assert install([name], tmp_path / "packages").made == ("six==1.0",)
    assert name in log.read_text().splitlines()


def test_the_installer_takes_wheels_alone_names_after_two_dashes_and_another_folder(
    log: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "six").mkdir()
    monkeypatch.chdir(tmp_path)  # a folder of the same name is no package
    install(["six", "-x"], Path("packages"))
    lines = log.read_text().splitlines()
    calls = [lines[: lines.index(str(tmp_path / "packages")) + 1], lines[lines.index(str(tmp_path / "packages")) + 1 :]]
    for call in calls:
        assert call[call.index("--only-binary") + 1] == ":all:" and call[-1] == str(tmp_path / "packages")
        assert call[call.index("--") + 1 : -1] in (["six"], ["six==1.0"]) and "-x" not in call


def test_the_report_says_which_mode_held_what_it_protects_and_how_often_it_ran() -> None:
    done = {
        "notebook": "x.ipynb", "name": "x", "next": "", "findings": [], "seconds": {}, "isolation": "namespaces",
        "runs": {"to repair it": 2, "to verify it": 3},
    }  # fmt: skip
    text = report_html(done)
    assert "run 5 times (2 to repair it, 3 to verify it)" in text and "<b>namespaces</b>" in text
    assert all(row[0] in text for row in protection_table()) and all(meaning in text for meaning in PROPERTIES.values())
    assert "Nothing was run" in report_html(done | {"runs": {}})


def test_the_table_has_a_row_for_each_mode_and_trust_protects_limits_alone() -> None:
    rows = dict(protection_table())
    assert list(rows) == [*(mode.name for mode in system_modes()), CONTAINER.name, "none (--trust)"]
    assert [name for name, value in rows["none (--trust)"].items() if value == "yes"] == ["limits"]
    assert all(set(row) == set(PROPERTIES) for row in rows.values())
