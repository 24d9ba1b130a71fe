"""Modules that moved are found by their former names, each of them, and attributes of modules that became packages."""

import importlib
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from d2c_mlops import former_modules, former_objects

ALONE = ("child", "container_init", "isolation_launcher", "kernel_setup", "prepare", "worker")  # run as programs


@pytest.mark.parametrize(
    "name", [name for name in sorted(former_modules.MODULES) if name.rpartition(".")[2] not in ALONE]
)
def test_a_module_is_found_by_its_former_name(name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        former = importlib.import_module(f"d2c_mlops.{name}")
    present = importlib.import_module(f"d2c_mlops.{former_modules.MODULES[name]}")
    assert former is present and present.__spec__.name == present.__name__


@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("models.forecasting", "DemandForecaster"),
        ("serving.http", "problem"),
        ("runs.schedule", "Scheduler"),
        ("convert.verify", "Verdict"),
        ("data.layouts", "Layout"),
    ],
)
def test_a_package_has_what_the_module_of_its_name_had(package: str, name: str) -> None:
    module = importlib.import_module(f"d2c_mlops.{former_modules.PACKAGES[package]}")
    assert getattr(importlib.import_module(f"d2c_mlops.{package}"), name) is getattr(module, name)


def test_a_former_name_warns_once_imported_and_no_other_name_is_found() -> None:
    code = "import d2c_mlops.runs.cadence as c; print(c.__name__)\ntry:\n import d2c_mlops.runs.no_such\nexcept ModuleNotFoundError as e:\n print(e)"
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["d2c_mlops.runs.schedule.cadence", "No module named 'd2c_mlops.runs.no_such'"]
    assert "d2c_mlops.runs.cadence is now d2c_mlops.runs.schedule.cadence" in done.stderr


def test_another_copy_of_the_package_keeps_its_own_names(tmp_path: Path) -> None:
    """A Bento brings the package it was made with, whose modules may lie where ours lay before."""
    folder = tmp_path / "d2c_mlops" / "runs"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    (folder / "__init__.py").touch()
    (folder / "cadence.py").write_text("WHOSE = 'of the Bento'\n", encoding="utf-8")
    code = f"""
import sys, d2c_mlops
for name in [name for name in sys.modules if name.partition(".")[0] == "d2c_mlops"]:
    del sys.modules[name]
sys.path.insert(0, {str(tmp_path)!r})
import d2c_mlops.runs.cadence as cadence
print(cadence.__name__, cadence.WHOSE)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split(maxsplit=1) == ["d2c_mlops.runs.cadence", "of the Bento\n"], done.stdout


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module, names in former_objects.OBJECTS.items() for name in names]
)
def test_a_class_or_function_is_found_by_its_former_name(module: str, name: str) -> None:
    holder = importlib.import_module(f"d2c_mlops.{module}")
    with pytest.warns(DeprecationWarning, match=f"{module}.{name} is now"):
        home, _, present = former_objects.OBJECTS[module][name].rpartition(":")
        owner = importlib.import_module(f"d2c_mlops.{home}") if home else holder
        assert getattr(holder, name) is getattr(owner, present)
        assert present not in former_objects.OBJECTS.get(home or module, {})
    with pytest.raises(AttributeError):
        getattr(holder, f"No{name}")
