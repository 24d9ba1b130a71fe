"""The whole way, as a newcomer walks it: in an empty folder, twice at once, and interrupted."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from d2c_mlops.errors import UsageError

DEMO = [sys.executable, "-m", "d2c_mlops", "demo", "--json"]


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    """An empty folder in which two demos ran at once."""
    folder = tmp_path_factory.mktemp("demo")
    both = [subprocess.Popen(DEMO, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
    told = [process.communicate(timeout=560) for process in both]
    assert [process.returncode for process in both] == [0, 0], [err.decode()[-2000:] for _, err in told]
    return folder, [json.loads(out) for out, _ in told]


def using(folder: Path) -> list[psutil.Process]:
    """Return the living processes that work in a folder or have it on their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            mine = str(folder) in " ".join([*process.cmdline(), process.cwd()])
            if mine and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_demos_at_once_both_end_with_a_live_forecast(walked: tuple[Path, list[dict]]) -> None:
    folder, stories = walked
    for story in stories:
        steps = {step["step"]: step["result"] for step in story["steps"]}
        way = ["ingest", "train", "promote", "package", "serve", "ask", "report"]
        assert list(steps) == [*way, "old: check", "old: convert", "old: package", "old: ask"]
        assert "equal the local ones" in steps["ask"] and "equal the local ones" in steps["old: ask"]
        assert "values are the same" in steps["old: convert"]
        assert story["version"]["evaluation"]["value"] < min(story["version"]["evaluation"]["baselines"].values())
    report = (folder / "d2c_store/reports/demo.html").read_text()
    assert "Prediction over HTTP" in report and report.rstrip().endswith("</html>")
    assert using(folder) == []
    assert [f for f in folder.rglob("*.tmp")] == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_interrupted_demo_leaves_no_process_and_no_half_written_file(walked: tuple[Path, list[dict]]) -> None:
    folder, _ = walked
    before = {f.name for f in (folder / "d2c_store/runs").iterdir()}
    listens = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}  # a shell's background ignores it
    demo = subprocess.Popen(DEMO, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **listens)
    limit = time.monotonic() + 60
    while not (new := {f.name for f in (folder / "d2c_store/runs").iterdir()} - before):
        assert time.monotonic() < limit
        time.sleep(0.1)
    time.sleep(4)
    demo.send_signal(signal.SIGINT)
    assert demo.wait(30) == 130
    assert using(folder) == []
    assert [f for f in folder.rglob("*.tmp")] == []
    (run,) = new
    command = [sys.executable, "-m", "d2c_mlops", "runs", "show", run, "--json"]
    shown = json.loads(subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout)
    assert shown["status"] == "cancelled"


def test_every_verb_is_a_call_too(settings, project: Path) -> None:
    import d2c_mlops as d2c
    from support.notebooks import PARAMETERS, RECORD, write
    from support.training import train

    write(project / "nb.ipynb", PARAMETERS, RECORD)
    assert d2c.run("nb.ipynb", n=4).recorded["twice"] == 8
    train(settings)
    promotion, _ = d2c.promote("mean_units", by="Jo")
    assert promotion.version == 1
    assert d2c.check("nb.ipynb").notebooks == ("nb.ipynb",)
    with pytest.raises(UsageError, match="no earlier champion"):
        d2c.rollback("mean_units")


@pytest.mark.slow
def test_serve_is_a_call_too(settings, project: Path) -> None:
    import d2c_mlops as d2c
    from support.training import train

    train(settings)
    d2c.promote("mean_units", by="Jo")
    with d2c.serve("mean_units") as server:
        assert server.url.startswith("http://127.0.0.1:")
