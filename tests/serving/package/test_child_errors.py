"""What another process failed by is told with its own reason and its own next step, whatever the environment says."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from d2c_mlops.cli import main
from d2c_mlops.errors import D2CError, DataRefused, Failure, SettingsError, Temporary, UsageError, child_error
from d2c_mlops.serving.http import api_keys as keys
from d2c_mlops.serving.package.container import builders
from d2c_mlops.serving.package.container.image_preparation import error_line
from d2c_mlops.serving.package.requirements import pinned_requirements
from d2c_mlops.serving.rollout.promotion import promote
from d2c_mlops.serving.state_paths import keys_file
from support.training import train

HERE = Path(__file__).parents[3]
WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"], exclude_characters="`"), min_size=1, max_size=30
)
KINDS = [D2CError, UsageError, DataRefused, Temporary, SettingsError]


def raised(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE)
    assert done.returncode
    return done.stderr


@given(st.sampled_from(KINDS), WORDS, WORDS, st.lists(WORDS, max_size=3), st.booleans())
def test_an_error_of_ours_is_told_whole(kind, what, next, faults, wrapped) -> None:
    err = kind(what, next=next, failures=[Failure(each) for each in faults])
    head = 'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n    raise it\n'
    text = f"a warning: of a library\n{head}d2c_mlops.errors.{kind.__name__}: {err}\n"
    if wrapped:
        text = f"{head}KeyError: 'x'\n\nDuring handling of the above exception, another exception occurred:\n\n{text}"
    told = child_error(text, "it failed", next="read the log")
    assert (type(told), told.what, told.next) == (kind, f"it failed: {what}", next)
    assert [each.what for each in told.failures] == faults


@pytest.mark.parametrize(
    ("code", "kind", "what", "next"),
    [
        ("raise UsageError('no key', where='k.json', next='make one')", UsageError, "k.json: no key", "make one"),
        ("raise Temporary('the disk is full')", Temporary, "the disk is full", "look"),
        ("import nothing_like_it", D2CError, "ModuleNotFoundError: No module named 'nothing_like_it'", "look"),
        ("import sys; sys.exit(str(DataRefused('3 of 5 wrong', next='try')))", D2CError, "3 of 5 wrong", "try"),
        ("from pydantic import TypeAdapter as T; T(int).validate_python('x')", D2CError, "ValidationError: 1 validation error for int", "look"),
        ("def f(): f()\nf()", D2CError, "RecursionError: maximum recursion depth exceeded", "look"),
        ("import os; os._exit(3)", D2CError, "no reason given", "look"),
    ],
)  # fmt: skip
def test_the_reason_of_a_process_is_its_errors_own(code: str, kind: type, what: str, next: str) -> None:
    told = child_error(raised(f"from d2c_mlops.errors import *\n{code}"), "it failed", next="look")
    assert (type(told), told.what, told.next) == (kind, f"it failed: {what}", next)


def test_what_a_builder_says_last_is_told_and_never_the_next_step() -> None:
    lines = ["STEP 1/9: FROM x", "STEP 5/9: RUN y", "error: k.json: no key", "  next: make one"]
    assert builders.build_failure("podman", "x", lines).what == "podman could not build: k.json: no key"
    with pytest.raises(D2CError, match="no key") as err:
        builders._run_builder(sys.executable, "-c", "import sys; sys.exit('no key\\n  next: make one')")
    assert err.value.next == "make one"
    assert error_line("Traceback:\n  File\nd2c_mlops.errors.UsageError: no key\n  - a: b\n  next: make one\n").endswith(
        ": no key"
    )


def test_a_service_that_cannot_be_imported_is_told_with_its_own_next_step(tmp_path: Path) -> None:
    package = tmp_path / "d2c_mlops"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "models").mkdir()
    (package / "serving" / "predict").mkdir(parents=True)
    (package / "serving/predict/older_contracts.py").write_text(
        "raise SystemExit('the model is gone\\n  next: train it again')"
    )
    with pytest.raises(D2CError, match="the model is gone") as err:
        pinned_requirements(tmp_path)
    assert err.value.next == "train it again"


PRODUCTION = {"D2C_SERVICE_MODE": "production", "D2C_SERVICE_KEYS": "/nowhere/keys.json", "D2C_MODEL_FOLDER": "/nowhere/model",
              "D2C_SERVICE_WORKERS": "2", "D2C_SERVICE_LOG_SECRET": "x" * 20}  # fmt: skip


@pytest.mark.slow
def test_production_mode_from_the_environment_packages_measures_serves_and_checks(
    settings, project, monkeypatch
) -> None:
    train(settings)
    promote("mean_units", settings)
    for name, text in PRODUCTION.items():
        monkeypatch.setenv(name, text)
    built = CliRunner().invoke(main, ["package", "mean_units", "--json"])
    assert built.exit_code == 0 and json.loads(built.stdout)["made"], built.output
    load = CliRunner().invoke(main, ["loadtest", "mean_units", "--seconds", "1", "--connections", "1", "--json"])
    assert load.exit_code == 0 and json.loads(load.stdout)["requests"] > 5, load.output
    monkeypatch.delenv("D2C_SERVICE_KEYS")
    refused = CliRunner().invoke(main, ["serve", "mean_units", "--port", "0"])
    assert refused.exit_code == 2 and "d2c keys create" in refused.output
    now = datetime.now(UTC)
    keys.create_key(keys_file(settings), "crm", ["mean_units"], now=now)
    probe = keys.create_key(keys_file(settings), "ci", ["mean_units"], now=now, scopes=["probe"])[1]
    from d2c_mlops.serving.local.server import free_port

    port = free_port()
    command = [sys.executable, "-m", "d2c_mlops", "serve", "mean_units", "--port", str(port), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=project) as served:
        try:
            started = json.loads("".join(iter(lambda: served.stdout.readline(), "}\n")) + "}")
            checked = CliRunner().invoke(main, ["contract", "check", "mean_units", started["url"], "--key", probe])
        finally:
            served.terminate()
    assert checked.exit_code == 0, checked.output
