"""How notebooks end: exit(), shell commands, magics, kernels, temporary files, logs, parameters."""

import json
import math
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.errors import NotebookFailed, UsageError
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution import kernels
from d2c_mlops.runs.execution.execute import run
from d2c_mlops.runs.execution.failures import classify_failure
from d2c_mlops.runs.execution.kernel_client import error_message, user_frames
from d2c_mlops.runs.execution.kernels import choose_kernel
from d2c_mlops.runs.execution.run_rows import Run, close_lost_runs, latest_runs
from d2c_mlops.runs.execution.temporary_folder import LONGEST, remove_scratch, scratch_folder
from d2c_mlops.settings import Settings, load_settings
from support.tagged_notebooks import ran, write

REACHED = "open('reached', 'a').write('x')"


def printed(row: Run) -> str:
    cells = json.loads(Path(row.outputs["notebook"]).read_text())["cells"]
    return "".join("".join(o.get("text", "")) for cell in cells for o in cell.get("outputs", ()))


def test_exit_ends_the_notebook_in_the_middle_of_its_cell(project: Path) -> None:
    row = ran(project, "print('first')", f"exit()\n{REACHED}", REACHED)
    assert row.status == "succeeded" and not (project / "reached").exists()
    assert row.notes == ["cell 2 ended the notebook early; the following cells did not run"]
    page = Path(row.outputs["html"]).read_text()
    assert "The notebook ended here." in page and "SystemExit" not in page


@pytest.mark.slow
@pytest.mark.parametrize(
    "end",
    ["exit", "quit()", "exit(0)", "import sys\nsys.exit(0)", "raise SystemExit", "raise SystemExit(None)",
     "get_ipython().ask_exit()", "def f():\n    try:\n        quit()\n    except Exception:\n        pass\nf()",
     "from helper import stop\nstop()"],
)  # fmt: skip
def test_every_way_to_exit_with_success_ends_the_notebook(project: Path, end: str) -> None:
    (project / "helper.py").write_text("def stop():\n    exit()\n")
    row = ran(project, end, REACHED)
    assert (row.status, row.exit_code, (project / "reached").exists()) == ("succeeded", 0, False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "message"),
    [("exit(3)", "3"), ("import sys\nsys.exit(1)", "1"), ("quit('no orders today')", "no orders today"),
     ("raise SystemExit(2)", "2"), ("import os\nos._exit(0)", "ended its process"), ("raise KeyboardInterrupt", "")],
)  # fmt: skip
def test_exit_with_another_status_fails_in_its_cell(project: Path, end: str, message: str) -> None:
    row = ran(project, "1", end, REACHED)
    assert (row.status, row.exit_code, row.error["cell"]) == ("failed", 5, 2)
    assert message in row.error["message"] and not (project / "reached").exists()


def test_only_who_stops_a_run_cancels_it() -> None:
    assert classify_failure({"kind": "SystemExit", "message": "1", "cell": 3}) == ("notebook_error", 5)
    assert classify_failure({"kind": "KeyboardInterrupt", "message": "", "cell": 3}) == ("notebook_error", 5)
    assert classify_failure({"kind": "KeyboardInterrupt", "message": ""}) == ("cancelled", 130)


def test_a_failing_shell_line_fails_the_run_with_command_and_status(project: Path) -> None:
    row = ran(project, f"!cp export_of_today.csv in.csv\n{REACHED}", REACHED)
    assert (row.status, row.exit_code, row.error["cell"]) == ("failed", 5, 1)
    assert row.error["message"] == "Command 'cp export_of_today.csv in.csv' returned non-zero exit status 1."
    assert not (project / "reached").exists()
    page = Path(row.outputs["html"]).read_text()
    assert "|| true" in page and "zmqshell" not in page and "No such file" in page


@pytest.mark.slow
@pytest.mark.parametrize(
    "cell",
    ["%%bash\necho a\nls nothing_here", "%%sh\nexit 7", "!!ls nothing_here", "files = !ls nothing_here",
     "def f(name):\n    !ls {name}\nf('nothing_here')", "%sx ls nothing_here", "%pip install ./nothing_here",
     "%cd nothing_here", "%run nothing_here.py"],
)  # fmt: skip
def test_every_failing_command_fails_the_run(project: Path, cell: str) -> None:
    row = ran(project, cell, REACHED)
    assert (row.status, row.exit_code, row.error["cell"]) == ("failed", 5, 1)
    assert not (project / "reached").exists() and row.error["message"]


@pytest.mark.slow
def test_a_command_may_fail_where_the_author_says_so(project: Path) -> None:
    row = ran(project, "!ls nothing_here || true", "#tags:allow-shell-errors\n!false\nx = !ls nothing_here", "!true",
              "!false\nif _exit_code: print('seen in the cell')", "!false", "if _exit_code: print('seen in the next')",
              "#tags:raises-exception\n1 / 0", "%%bash --no-raise-error\nfalse", REACHED)  # fmt: skip
    assert row.status == "succeeded" and (project / "reached").exists()
    assert "seen in the cell" in printed(row) and "seen in the next" in printed(row)
    assert ran(project, "#tags:allow-shell-errors\n!false", "!false", REACHED).error["cell"] == 2


def test_the_bytes_of_a_script_are_shown_as_text() -> None:
    assert error_message("Command 'b'ls x\\n'' returned non-zero exit status 2.").startswith("Command 'ls x' returned")
    assert error_message("Command 'b'echo \\xc3\\xbc\\n'' died with <Signals.SIGKILL: 9>.").startswith(
        "Command 'echo ü' died"
    )
    assert error_message("no command at all") == "no command at all"


def test_frames_of_what_executes_cells_are_taken_out_of_a_traceback() -> None:
    own = [
        "Cell In[1], line 1",
        "File ~/shop/prices.py:3, in f()",
        "File /x/site-packages/pandas/core/frame.py:1, in g()",
    ]
    machinery = ["File /x/site-packages/IPython/core/interactiveshell.py:9, in run()",
                 "\x1b[32mFile /x/site-packages/ipykernel/zmqshell.py:9\x1b[39m, in run()"]  # fmt: skip
    assert list(user_frames([own[0], *machinery, *own[1:]])) == own


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cell", "kind", "message"),
    [("%nonexistent 3", "MagicError", "Line magic function `%nonexistent` not found."),
     ("%%nonexistent\na", "MagicError", "Cell magic `%%nonexistent` not found."),
     ("x = = 3", "SyntaxError", "invalid syntax"), ("input('name? ')", "StdinNotImplementedError", "input requests"),
     ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "DeadKernelError", "Segmentation fault")],
)  # fmt: skip
def test_what_breaks_a_cell_is_named(project: Path, cell: str, kind: str, message: str) -> None:
    row = ran(project, "1", cell, REACHED)
    assert (row.error["kind"], row.error["cell"], row.exit_code) == (kind, 2, 5)
    assert message in row.error["message"] and not (project / "reached").exists()


@pytest.mark.slow
def test_bytes_colours_and_broken_characters_are_printed(project: Path) -> None:
    row = ran(project, "import os, sys\nprint('\\x1b[31mred\\x1b[0m', b'\\xff', '\\udcff')\nos.write(1, b'\\xff\\xfe')\n"
              "sys.stdout.write('\\x00')", "print('the end')")  # fmt: skip
    assert row.status == "succeeded" and "the end" in printed(row) and "b'\\xff'" in printed(row)
    assert "ansi-red-fg" in Path(row.outputs["html"]).read_text()


@pytest.mark.slow
def test_many_log_lines_arrive_in_order_and_whole(project: Path) -> None:
    logged = "import logging, sys\nlogging.basicConfig(stream=sys.stdout, level=20, force=True, format='%(message)s')\n"
    row = ran(project, f"{logged}for i in range(30_000): logging.info('step %d', i)", "print('the end')")
    lines = printed(row).splitlines()
    assert row.status == "succeeded" and lines == [*(f"step {i}" for i in range(30_000)), "the end"]


def metadata(name: str, language: str = "python") -> dict[str, Any]:
    return {"kernelspec": {"name": name, "display_name": name, "language": language}}


def test_a_kernel_of_another_machine_gives_way_to_the_projects_python(project: Path) -> None:
    write(project / "nb.ipynb", "import sys\nprint(sys.executable)", metadata=metadata("conda-env-forecast-py"))
    done = CliRunner().invoke(main, ["run", "nb.ipynb", "--json"])
    row = json.loads(done.stdout)
    assert row["status"] == "succeeded" and "conda-env-forecast-py" in row["notes"][0]
    assert sys.executable in Path(row["outputs"]["notebook"]).read_text()
    assert "conda-env-forecast-py" in Path(row["outputs"]["html"]).read_text()
    assert "conda-env-forecast-py" in CliRunner().invoke(main, ["runs", "show", row["id"]]).output
    assert "conda-env-forecast-py" in Path(row["outputs"]["log"]).read_text()


@pytest.mark.parametrize(
    "saved",
    [metadata("ir", "R"), {"kernelspec": {"name": "ir"}}, metadata("julia-1.9", "julia"), {"language_info": {"name": "R"}},
     {"kernelspec": {"name": "julia-1.10"}}],
)  # fmt: skip
def test_a_language_without_a_kernel_is_refused_with_what_there_is(project: Path, saved: dict[str, Any]) -> None:
    write(project / "nb.ipynb", "x <- 1", metadata=saved)
    with pytest.raises(UsageError, match="no kernel for it is installed") as caught:
        run("nb.ipynb", {}, load_settings(project, environ={}))
    assert "python3 (python)" in caught.value.next and not (project / "d2c_store").exists()


def test_the_kernel_follows_name_then_language(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        kernels, "installed_kernels", lambda: {"python3": "python", "shop-env": "python", "julia-1.10": "julia"}
    )
    assert choose_kernel({}, "").name == "python3" and choose_kernel(metadata("python3"), "").note == ""
    assert choose_kernel(metadata("shop-env"), "").name == "shop-env"
    other = choose_kernel(metadata("julia-1.9", "julia"), "")
    assert other.name == "julia-1.10" and "'julia-1.9'" in other.note
    python2 = choose_kernel(metadata("python2", "python"), "")
    assert python2.name == "python3" and "'python2'" in python2.note


def test_a_kernel_whose_program_is_gone_counts_as_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = {"argv": ["/gone/python", "-m", "ipykernel_launcher"], "display_name": "x", "language": "python"}
    for name, program in (("gone", "/gone/python"), ("there", sys.executable)):
        folder = tmp_path / "kernels" / name
        folder.mkdir(parents=True)
        (folder / "kernel.json").write_text(json.dumps({**spec, "argv": [program, "-m", "ipykernel_launcher"]}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    found = kernels.installed_kernels()
    assert "there" in found and "gone" not in found and found["python3"] == "python"


def test_temporary_files_lie_in_a_short_private_folder_that_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("deep" * 20)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with scratch_folder() as folder:
        assert len(str(folder)) <= LONGEST + 14 and not folder.is_relative_to(long)
        assert folder.stat().st_mode & 0o777 == 0o700
        (folder / "file").touch()
    assert not folder.exists()


def test_only_a_scratch_folder_of_ours_is_removed(tmp_path: Path) -> None:
    victim = tmp_path / "precious"
    victim.mkdir()
    (tmp_path / "d2c-link").symlink_to(victim)
    for scratch in (victim, tmp_path / "d2c-link", tmp_path / "d2c-absent"):
        (tmp_path / "spec.json").write_text(json.dumps({"scratch": str(scratch)}))
        remove_scratch(tmp_path)
        assert victim.is_dir()
    own = tmp_path / "d2c-abc123"
    own.mkdir()
    (tmp_path / "spec.json").write_text(json.dumps({"scratch": str(own)}))
    remove_scratch(tmp_path)
    assert not own.exists()


@pytest.mark.slow
def test_a_manager_finds_room_for_its_socket_in_a_deep_project(tmp_path: Path) -> None:
    deep = tmp_path / "a_rather_long_folder_name" / "and_another_rather_long_one" / "and_a_third"
    deep.mkdir(parents=True)
    (deep / "settings.ini").write_text("[d2c]\n")
    source = "import multiprocessing as mp\nwith mp.Manager() as m: d = m.dict(a=1); print('shared', dict(d))"
    row = ran(deep, source)
    assert row.status == "succeeded" and "shared {'a': 1}" in printed(row)


@pytest.mark.slow
def test_temporary_files_of_a_killed_run_are_removed_when_it_is_found_lost(settings: Settings, project: Path) -> None:
    where = "import tempfile, time\nopen('where.tmp', 'w').write(tempfile.gettempdir())\n"
    write(project / "nb.ipynb", f"{where}import os\nos.rename('where.tmp', 'where')\ntime.sleep(99)")
    command = subprocess.Popen(
        [sys.executable, "-m", "d2c_mlops", "run", "nb.ipynb"], cwd=project, stderr=subprocess.PIPE
    )
    limit = time.monotonic() + 60
    while not (project / "where").exists():
        assert time.monotonic() < limit
        time.sleep(0.1)
    folder = Path((project / "where").read_text())
    command.send_signal(signal.SIGKILL)
    command.wait()
    assert folder.is_dir() and folder.name.startswith("d2c-")
    from datetime import UTC, datetime

    assert len(close_lost_runs(Ledger.of(settings), datetime.now(UTC))) == 1
    assert not folder.exists()


TYPED = "#tags:parameters\nx: float = 1.0\nxs: list = []\nd: dict = {}\nname: str | None = 'x'\ncode: str = ''"


def test_parameters_that_json_lacks_arrive_and_are_recorded_as_valid_json(project: Path) -> None:
    given = {"x": "nan", "xs": "[1, NaN, -Infinity]", "d": '{"a": Infinity}', "name": "None", "code": "007"}
    row = ran(project, TYPED, "print([repr(v) for v in (x, xs, d, name, code)])", given=given)
    assert "['nan', '[1, nan, -inf]', \"{'a': inf}\", 'None', \"'007'\"]" in printed(row)
    held = load_settings(project, environ={})
    with Ledger.of(held).read() as connection:
        (text,) = connection.exec_driver_sql("select parameters from runs").one()
    expected = {"x": "nan", "xs": [1, "nan", "-inf"], "d": {"a": "inf"}, "name": None, "code": "007"}
    assert json.loads(text, parse_constant=lambda token: pytest.fail(f"{token} is not JSON")) == expected
    json.loads(Path(row.outputs["notebook"]).read_text(), parse_constant=lambda token: pytest.fail(token))


@pytest.mark.slow
def test_a_value_from_python_arrives_as_it_is(project: Path) -> None:
    row = ran(project, TYPED, "print(repr(x), xs)", given={"x": math.inf, "xs": [math.nan, None]})
    assert "inf [nan, None]" in printed(row)


def test_a_run_whose_page_is_absent_names_what_is_there(project: Path) -> None:
    write(project / "nb.ipynb", "1 / 0")
    held = load_settings(project, environ={})
    with pytest.raises(NotebookFailed) as caught:
        run("nb.ipynb", {}, held)
    row = latest_runs(Ledger.of(held))[0]
    assert f"open {row.outputs['html']}" in caught.value.next
    from d2c_mlops.runs.execution.execute import run_failure

    shutil.rmtree(row.folder)
    assert "output.html" not in run_failure(row).next and f"d2c runs show {row.id}" in run_failure(row).next


@pytest.mark.slow
def test_exit_ends_a_cell_that_may_raise_as_well(project: Path) -> None:
    assert ran(project, "#tags:raises-exception\nexit()", REACHED).status == "succeeded"
    assert ran(project, "#tags:raises-exception\nexit(4)", REACHED).error["message"] == "4"
    assert not (project / "reached").exists()


@pytest.mark.slow
def test_a_kernel_that_does_not_start_is_a_clear_error(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "jupyter" / "kernels" / "broken"
    folder.mkdir(parents=True)
    spec = {"argv": [sys.executable, "-c", "import sys; sys.exit(3)"], "display_name": "x", "language": "python"}
    (folder / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    row = ran(project, "1", metadata=metadata("broken"))
    assert (row.status, row.exit_code) == ("failed", 5) and "Kernel died" in row.error["message"]
    assert "Kernel died" in Path(row.outputs["html"]).read_text()
