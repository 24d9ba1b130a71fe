from pathlib import Path

import pytest
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.errors import NotebookFailed
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution.execute import run
from d2c_mlops.runs.execution.run_rows import latest_runs
from d2c_mlops.runs.execution.stage_reuse import stage
from d2c_mlops.settings import load_settings
from support.notebooks import write

STAGED = """
from pathlib import Path
import numpy as np, pandas as pd
from d2c_mlops.runs.execution.stage_reuse import stage
from d2c_mlops.runs.recording import record

@stage
def cleaned(n):
    with Path("calls").open("a") as file: file.write("c")
    return pd.DataFrame({"x": range(n)})

@stage
def weights(frame):
    with Path("calls").open("a") as file: file.write("w")
    return np.asarray(frame["x"], float) * 2
"""
USE = "total = float(weights(cleaned(n)).sum())\nif not Path('mended').exists():\n    raise ValueError('not yet')\nrecord(total=total)"


@pytest.mark.slow
def test_a_resumed_run_computes_only_what_was_not_finished(project: Path) -> None:
    write(project / "nb.ipynb", "n: int = 3", STAGED, USE)
    held = load_settings(project, environ={})
    with pytest.raises(NotebookFailed):
        run("nb.ipynb", {}, held)
    assert (project / "calls").read_text() == "cw"
    (failed,) = latest_runs(Ledger.of(held))
    (project / "mended").touch()
    done = run("nb.ipynb", {}, held, resume=failed.id)
    assert done.recorded == {"total": 6.0} and (project / "calls").read_text() == "cw"
    assert not (done.folder / "stages").exists() and (failed.folder / "stages").exists()
    run("nb.ipynb", {"n": 4}, held, resume=failed.id)
    assert (project / "calls").read_text() == "cwcw"


def test_outside_of_a_run_a_stage_is_a_function() -> None:
    assert stage(lambda: object)() is object


def test_an_unknown_run_cannot_be_resumed(project: Path) -> None:
    write(project / "nb.ipynb", "n: int = 3")
    told = CliRunner().invoke(main, ["run", "nb.ipynb", "--resume", "nope"])
    assert told.exit_code == 2 and latest_runs(Ledger.of(load_settings(project, environ={}))) == []
