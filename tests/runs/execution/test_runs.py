import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.errors import DataRefused, NotebookFailed, Temporary, UsageError
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution.execute import run
from d2c_mlops.runs.execution.run_rows import close_lost_runs, find_run, latest_runs
from d2c_mlops.settings import Settings, load_settings
from support.notebooks import PARAMETERS, RECORD, write
from support.processes import marked, wait_for


def test_a_run_is_on_record_with_typed_parameters_and_recorded_values(settings: Settings, project: Path) -> None:
    write(project / "nb.ipynb", PARAMETERS, RECORD)
    before = (project / "nb.ipynb").read_bytes()
    done = run("nb.ipynb", {"who": "007", "day": "2024-05-06", "n": "21"}, settings)
    assert done.status == "succeeded" and done.exit_code == 0
    assert done.recorded == {"who": "007", "day": "2024-05-06", "twice": 42}
    assert done.parameters == {"who": "007", "day": "2024-05-06", "n": 21}
    assert done.cpu_seconds > 0 and done.peak_memory_bytes > 2**20
    assert sorted(f.name for f in done.folder.iterdir()) == ["events.jsonl", "log.txt", "output.html", "output.ipynb"]
    assert "twice = 42" in Path(done.outputs["html"]).read_text()
    assert (project / "nb.ipynb").read_bytes() == before


def test_a_wrong_parameter_starts_nothing(settings: Settings, project: Path) -> None:
    write(project / "nb.ipynb", PARAMETERS, RECORD)
    with pytest.raises(UsageError, match="did you mean 'who'"):
        run("nb.ipynb", {"whoo": "x"}, settings)
    assert not (settings.store / "runs").exists() and latest_runs(Ledger.of(settings)) == []


def test_a_broken_notebook_keeps_its_output_and_names_the_cell(settings: Settings, project: Path) -> None:
    write(project / "nb.ipynb", PARAMETERS, "1 / 0", "print('never')")
    with pytest.raises(NotebookFailed, match="cell 2: ZeroDivisionError") as caught:
        run("nb.ipynb", {"n": 1}, settings)
    assert caught.value.exit_code == 5
    (row,) = latest_runs(Ledger.of(settings))
    assert (row.status, row.exit_code, row.error["cell"]) == ("failed", 5, 2)
    assert "ZeroDivisionError" in Path(row.outputs["html"]).read_text()


@pytest.mark.parametrize(("kind", "code"), [(DataRefused, 3), (Temporary, 75)])
def test_an_error_of_ours_keeps_its_exit_code(settings: Settings, project: Path, kind: type, code: int) -> None:
    write(project / "nb.ipynb", PARAMETERS, f"from d2c_mlops.errors import *\nraise {kind.__name__}('no')")
    with pytest.raises(kind):
        run("nb.ipynb", {}, settings)
    assert latest_runs(Ledger.of(settings))[0].exit_code == code


@pytest.mark.slow
def test_a_run_out_of_time_leaves_no_process(settings: Settings, project: Path) -> None:
    mark = f"sleep 9{os.getpid()}"
    write(
        project / "nb.ipynb", PARAMETERS, f"import subprocess, time\nsubprocess.Popen({mark.split()})\ntime.sleep(99)"
    )
    with pytest.raises(NotebookFailed, match="longer than 20 s"):
        run("nb.ipynb", {}, settings, timeout=20)
    row = latest_runs(Ledger.of(settings))[0]
    assert row.status == "timeout" and Path(row.outputs["html"]).exists()
    assert marked(mark) == [] and marked(row.id) == []


def test_a_killed_run_is_lost_and_leaves_nothing_behind(settings: Settings, project: Path) -> None:
    mark = f"sleep 8{os.getpid()}"
    spawn = f"subprocess.Popen({mark.split()}, start_new_session=True)"
    write(project / "nb.ipynb", PARAMETERS, RECORD, f"import subprocess, time\n{spawn}\ntime.sleep(99)")
    command = subprocess.Popen(
        [sys.executable, "-m", "d2c_mlops", "run", "nb.ipynb"], cwd=project, stderr=subprocess.PIPE
    )
    wait_for(lambda: marked(mark))
    command.send_signal(signal.SIGKILL)
    command.wait()
    ledger = Ledger.of(settings)
    (lost,) = close_lost_runs(ledger, datetime.now(UTC))
    row = find_run(ledger, lost)
    assert (row.status, row.exit_code, row.recorded["twice"]) == ("lost", 75, 6)
    wait_for(lambda: not marked(mark) and not marked(lost))
    assert list(row.folder.glob("*.tmp")) == []
    json.loads((row.folder / "output.ipynb").read_text())


def test_an_interrupted_run_is_cancelled(settings: Settings, project: Path) -> None:
    write(project / "nb.ipynb", PARAMETERS, "import time\ntime.sleep(99)")
    command = subprocess.Popen(
        [sys.executable, "-m", "d2c_mlops", "run", "nb.ipynb"], cwd=project, stderr=subprocess.PIPE
    )
    wait_for(lambda: latest_runs(Ledger.of(settings)) and marked(latest_runs(Ledger.of(settings))[0].id))
    command.send_signal(signal.SIGTERM)
    assert command.wait(20) == 130
    assert latest_runs(Ledger.of(settings))[0].status == "cancelled"


def test_a_full_disk_is_temporary_and_leaves_no_row_open(project: Path) -> None:
    small = project / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "none", str(small)], capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        write(project / "nb.ipynb", PARAMETERS, "print('x' * 2_000_000)")
        held = load_settings(project, {"store": "small/store"}, {})
        Ledger.of(held).close()
        with pytest.raises(Temporary, match="No space left"):
            run("nb.ipynb", {}, held)
        (row,) = latest_runs(Ledger.of(held))
        assert row.status == "failed" and list(row.folder.glob("*.tmp")) == []
    finally:
        subprocess.run(["umount", "-l", str(small)], check=True)


def test_the_command_lists_and_shows_runs(settings: Settings, project: Path) -> None:
    write(project / "nb.ipynb", PARAMETERS, RECORD)
    done = run("nb.ipynb", {}, settings)
    runner = CliRunner()
    listed = runner.invoke(main, ["runs"])
    assert listed.exit_code == 0 and done.id in listed.output and "twice=6" in listed.output
    shown = json.loads(runner.invoke(main, ["runs", "show", done.id[:22], "--json"]).output)
    assert shown["id"] == done.id and shown["notebook_sha256"] == done.notebook_sha256
    unknown = runner.invoke(main, ["runs", "show", "nope", "--json"])
    assert unknown.exit_code == 2 and json.loads(unknown.output)["error"] == "UsageError"
