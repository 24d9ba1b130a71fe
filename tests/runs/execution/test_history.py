import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from sqlalchemy import insert

from d2c_mlops.cli import main
from d2c_mlops.ledger.schema import promotions, versions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution import output_storage
from d2c_mlops.runs.execution.execute import prepare_job, run
from d2c_mlops.runs.execution.package_environments import installed_packages
from d2c_mlops.runs.execution.run_rows import Run, close_row, find_run, latest_runs, open_row
from d2c_mlops.runs.run_history import RunFilter, compare_runs, find_runs, prunable_runs, prune_runs
from d2c_mlops.settings import Settings, load_settings
from support.notebooks import PARAMETERS, RECORD, write

NOW = datetime(2026, 11, 22, 5, 0, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def held(project: Path) -> Settings:
    write(project / "nb.ipynb", PARAMETERS, RECORD)
    return load_settings(project, environ={})


def past(held: Settings, at: datetime, status: str = "succeeded", job: str | None = None, **recorded: object) -> Run:
    """Put a run on record that was at some time."""
    ledger = Ledger.of(held)
    n = recorded.get("n")
    made = prepare_job("nb.ipynb", {"n": n if isinstance(n, int) else 3}, held)
    open_row(ledger, {**made.row, "started_at": at})
    made.folder.mkdir(parents=True)
    (made.folder / "output.html").write_text("<html></html>")
    close_row(ledger, made.id, {"status": status, "ended_at": at + timedelta(seconds=9), "recorded": recorded})
    return find_run(ledger, made.id)


def call(*args: str) -> dict:
    done = CliRunner().invoke(main, ["runs", *args, "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def test_runs_are_found_by_what_they_were(held: Settings) -> None:
    old, new = past(held, NOW - 9 * DAY), past(held, NOW, "failed")
    ledger = Ledger.of(held)
    assert [r.id for r in find_runs(ledger, RunFilter())] == [new.id, old.id]
    assert [r.id for r in find_runs(ledger, RunFilter(status="failed"))] == [new.id]
    assert [r.id for r in find_runs(ledger, RunFilter(until=NOW - DAY, runbook="nb.ipynb"))] == [old.id]
    assert [r["id"] for r in call("--since", "2026-11-20")] == [new.id]
    assert call("--job", "nope") == []


def test_two_runs_differ_in_what_was_changed(held: Settings, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = past(held, NOW, n=1, wape=0.3)
    write(project / "nb.ipynb", PARAMETERS, RECORD, "print('more')")
    monkeypatch.setattr(
        "d2c_mlops.runs.execution.package_environments.installed_packages",
        lambda: {**installed_packages(), "pandas": "9.9.9"},
    )
    other = past(held, NOW, n=2, wape=0.2)
    differ = compare_runs(held, one, other)
    assert differ["parameters"] == {"n": (1, 2)} and differ["recorded"] == {"n": (1, 2), "wape": (0.3, 0.2)}
    assert differ["packages"] == {"pandas": (installed_packages()["pandas"], "9.9.9")}
    assert list(differ["code"]) == ["notebook_sha256"] and "inputs" not in differ
    assert call("compare", one.id, other.id)["differ"]["recorded"]["wape"] == [0.3, 0.2]
    assert compare_runs(held, one, one) == {}


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
def test_runs_are_exported(held: Settings, project: Path, suffix: str) -> None:
    past(held, NOW, n=1, names=["a"]), past(held, NOW, n="x")
    assert call("export", f"out.{suffix}")["runs"] == 2
    reader = {"csv": pd.read_csv, "parquet": pd.read_parquet, "jsonl": lambda f: pd.read_json(f, lines=True)}[suffix]
    frame = reader(project / f"out.{suffix}")
    assert len(frame) == 2 and set(frame["status"]) == {"succeeded"}
    if suffix != "jsonl":
        assert set(frame["recorded.n"].astype(str)) == {"1", "x"}
    assert not list(project.glob("*.tmp"))


def test_pruning_never_takes_what_a_live_version_came_from(held: Settings) -> None:
    rolled, live, other, fresh = (past(held, NOW - days * DAY) for days in (99, 98, 97, 2))
    last_success, broken = fresh, past(held, NOW - 96 * DAY, "failed")
    ledger = Ledger.of(held)
    row = {"model": "m", "created_at": NOW, "model_class": "x", "params": {}, "contract": {}, "charter": {}, "inputs": [],
           "evaluation": {}, "as_of": "2026-01-01", "package_version": "0", "artifact_uri": "x", "sha256": "0"}  # fmt: skip
    with ledger.write() as connection:
        for number, origin in enumerate((rolled, live, other, fresh), 1):
            connection.execute(insert(versions).values(**row, version=number, run_id=origin.id))
        for number in (1, 2):
            connection.execute(insert(promotions).values(model="m", version=number, action="promote", at=NOW, by="me",
                                                         reason="", gate=[]))  # fmt: skip
    gone = prunable_runs(ledger, NOW - 30 * DAY, keep=1)
    assert {r.id for r in gone} == {other.id, broken.id}
    assert prune_runs(ledger, held, gone, NOW) > 0
    assert (
        not other.folder.exists() and live.folder.exists() and rolled.folder.exists() and last_success.folder.exists()
    )
    assert "pruned_at" in find_run(ledger, other.id).outputs and prunable_runs(ledger, NOW - 30 * DAY, keep=1) == []
    assert call("prune", "--older-than", "1d", "--dry-run")["runs"] == []


def test_pruning_removes_nothing_outside_of_the_store(held: Settings, project: Path) -> None:
    with pytest.raises(Exception, match="not in the store"):
        output_storage.remove_outputs(str(project / "toyshop"), held)
    with pytest.raises(Exception, match="not in the store"):
        output_storage.remove_outputs(f"{held.store}/runs/../../toyshop", held)
    assert (project / "toyshop").exists()


def test_outputs_go_to_a_url_and_a_store_that_refuses_loses_nothing(held: Settings, project: Path) -> None:
    (project / "wall").write_text("a file where a folder is wanted")
    refusing = load_settings(project, {"outputs": f"file://{project}/wall"}, environ={})
    done = run("nb.ipynb", {}, refusing)
    assert done.status == "succeeded" and "the output store failed" in done.outputs["refused"] and done.folder.exists()
    willing = load_settings(project, {"outputs": f"file://{project}/kept"}, environ={})
    assert output_storage.publish_remaining(Ledger.of(held), willing) == [done.id]
    moved = find_run(Ledger.of(held), done.id)
    assert "refused" not in moved.outputs and moved.outputs["html"] == f"file://{project}/kept/{done.id}/output.html"
    assert b"twice = 6" in output_storage.read_output(moved.outputs["html"]) and not done.folder.exists()
    assert output_storage.output_exists(moved.outputs["log"]) and not output_storage.output_exists(
        f"file://{project}/kept/nope"
    )
    prune_runs(Ledger.of(held), willing, [moved], NOW)
    assert not output_storage.output_exists(moved.outputs["html"])


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a bucket on a server that speaks S3."""
    pytest.importorskip("moto", reason="moto is not installed; `make test-s3` has it")
    s3fs = pytest.importorskip("s3fs")
    server = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", "5799"], stderr=subprocess.DEVNULL)
    url = "http://127.0.0.1:5799"
    for name, value in {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s", "AWS_ENDPOINT_URL": url,
                        "AWS_DEFAULT_REGION": "us-east-1"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    system = s3fs.S3FileSystem(endpoint_url=url)
    for _ in range(100):
        try:
            system.mkdir("runs")
            break
        except Exception:  # it is not up yet
            time.sleep(0.3)
    monkeypatch.setenv("FSSPEC_S3_ENDPOINT_URL", url)
    yield "s3://runs/shop"
    server.kill()
    server.wait()


def test_outputs_go_to_s3(held: Settings, project: Path, bucket: str) -> None:
    on_s3 = load_settings(project, {"outputs": bucket}, environ={})
    done = run("nb.ipynb", {}, on_s3)
    assert done.outputs.get("refused") is None
    assert done.outputs["html"] == f"{bucket}/{done.id}/output.html"
    assert b"twice = 6" in output_storage.read_output(done.outputs["html"])
    assert not (held.store / "runs" / done.id).exists()
    refused = load_settings(project, {"outputs": "s3://no-such-bucket/x"}, environ={})
    kept = run("nb.ipynb", {}, refused)
    assert "refuses" in kept.outputs["refused"] and kept.folder.exists()
    assert [r.status for r in latest_runs(Ledger.of(held))] == ["succeeded", "succeeded"]
    assert output_storage.publish_remaining(Ledger.of(held), on_s3) == [kept.id] and output_storage.output_exists(
        f"{bucket}/{kept.id}/log.txt"
    )
    assert os.environ["AWS_ENDPOINT_URL"]
