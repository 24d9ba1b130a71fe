import json
import resource
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.errors import D2CError, DataRefused, Failure, GateRefused, NotebookFailed, Temporary, UsageError


def commands(group: click.Group, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Command]]:
    found = []
    for name, command in group.commands.items():
        found.append(((*path, name), command))
        if isinstance(command, click.Group):
            found += commands(command, (*path, name))
    return found


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-m", "d2c_mlops", "--help"], capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)  # other work does not count
    assert "ingest" in done.stdout
    code = "import sys, d2c_mlops.cli; print(*sys.modules)"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split())
    heavy = {
        "pandas",
        "numpy",
        "sqlalchemy",
        "pydantic",
        "mlflow",
        "bentoml",
        "papermill",
        "duckdb",
        "rich",
        "matplotlib",
    }
    assert not heavy & loaded
    assert min(times) < 0.4, times


@pytest.mark.parametrize(("path", "command"), commands(main), ids=lambda x: " ".join(x) if isinstance(x, tuple) else "")
def test_every_command_has_help(path: tuple[str, ...], command: click.Command) -> None:
    shown = CliRunner().invoke(main, [*path, "--help"])
    assert shown.exit_code == 0 and len(command.help or "") > 20


@pytest.mark.parametrize("args", [["models"], ["runs"], ["datasets"], ["settings"], ["runbook", "list"]])
def test_in_an_empty_folder_lists_are_json_too(
    args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(main, [*args, "--json"])
    assert shown.exit_code == 0 and isinstance(json.loads(shown.output), list | dict)


@pytest.mark.parametrize(
    "args",
    [["run", "nope"], ["promote", "nope"], ["serve", "nope"], ["ingest", "nope", "--as", "x"], ["nope"], ["run"]],
)
def test_a_wrong_name_is_exit_2_and_json_on_demand(
    args: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plain = CliRunner().invoke(main, args)
    assert plain.exit_code == 2 and "Traceback" not in plain.output
    told = CliRunner().invoke(main, [*args, "--json"])
    assert told.exit_code == 2 and json.loads(told.stdout.splitlines()[-1])["exit_code"] == 2


def test_a_project_can_have_a_runbook_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pulled = json.loads(CliRunner().invoke(main, ["runbook", "pull", "train", "--json"]).output)
    assert Path(pulled["path"]) == tmp_path / "runbooks/train.ipynb"
    assert CliRunner().invoke(main, ["runbook", "pull", "train"]).exit_code == 2


@pytest.mark.parametrize(
    ("kind", "code"),
    [(D2CError, 1), (UsageError, 2), (DataRefused, 3), (GateRefused, 4), (NotebookFailed, 5), (Temporary, 75)],
)
def test_an_error_says_what_where_and_what_next(kind: type[D2CError], code: int) -> None:
    error = kind("it is wrong", where="here", next="do this", failures=[Failure("a", "b")])
    assert (error.exit_code, str(error)) == (code, "here: it is wrong\n  - b: a\n  next: do this")
    assert error.to_dict()["failures"] == [{"what": "a", "where": "b"}]
