"""Programs of this environment are found although it is not activated."""

import shutil
import sys
from pathlib import Path

import pytest

from d2c_mlops.programs import find_program


def test_a_program_beside_this_python_is_found_without_activation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("environment", "elsewhere"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "uv").write_text("#!/bin/sh\n")
        (tmp_path / folder / "uv").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "environment" / "python"))
    monkeypatch.setenv("PATH", str(tmp_path / "elsewhere"))
    assert find_program("uv") == str(tmp_path / "environment" / "uv")
    (tmp_path / "environment" / "uv").unlink()
    assert find_program("uv") == str(tmp_path / "elsewhere" / "uv") == shutil.which("uv")
    assert find_program("no-such-program") is None
