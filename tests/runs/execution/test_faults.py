"""What goes wrong around a run: it is recorded, recovered, or refused with a clear message."""

import os
import sqlite3
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from d2c_mlops.errors import NotebookFailed, Temporary
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution import execute, processes, slot_rows
from d2c_mlops.runs.execution.execute import run
from d2c_mlops.runs.execution.failures import classify_failure
from d2c_mlops.runs.execution.leases import FENCE, LEASE, LeaseKeeper, LeaseWatch
from d2c_mlops.runs.execution.run_rows import latest_runs, open_row
from d2c_mlops.runs.execution.supervise import RunLimits
from d2c_mlops.settings import Settings, load_settings
from support.notebooks import PARAMETERS, RECORD, write
from support.scheduling import NOW, SLOT, Clock, finish, scheduler

CPUS = "import os\nfrom d2c_mlops.runs.recording import record\nrecord(cpus=len(os.sched_getaffinity(0)), omp=os.environ['OMP_NUM_THREADS'])"


@pytest.mark.slow
def test_a_run_keeps_to_its_processors_and_ends_at_its_memory(project: Path) -> None:
    grow = "import numpy as np, time\nheld = np.ones(2**27)\ntime.sleep(30)"
    write(project / "nb.ipynb", PARAMETERS, CPUS, grow)
    held = load_settings(project, environ={})
    with pytest.raises(NotebookFailed, match="its limit is 600 MiB"):
        run("nb.ipynb", {}, held, limits=RunLimits(60, memory_bytes=600 * 2**20, cpus=1))
    (row,) = latest_runs(Ledger.of(held))
    assert row.recorded == {"cpus": 1, "omp": "1"}
    assert (row.status, row.failure, row.exit_code) == ("failed", "out_of_memory", 5)
    assert row.peak_memory_bytes > 600 * 2**20 and Path(row.outputs["html"]).exists()


@pytest.mark.slow
def test_prints_of_100_mb_are_cut_and_the_run_goes_on(project: Path) -> None:
    loud = "for i in range(100):\n    print('x' * 1_000_000)\nimport os\nos.write(2, b'y' * 20_000_000)"
    write(project / "nb.ipynb", PARAMETERS, loud, RECORD)
    done = run("nb.ipynb", {}, load_settings(project, environ={}))
    assert done.recorded["twice"] == 6
    text = Path(done.outputs["notebook"]).read_text()
    assert len(text) < 3_000_000 and "characters left out" in text
    assert (
        Path(done.outputs["log"]).stat().st_size < 9_000_000
        and "more bytes omitted" in Path(done.outputs["log"]).read_text()
    )


@pytest.mark.parametrize(
    ("death", "failure", "code"),
    [
        ("kill(os.getpid(), 9)", "killed", 75),
        pytest.param("_exit(3)", "kernel_died", 5, marks=pytest.mark.slow),
    ],
)
def test_a_kernel_that_dies_is_recorded_for_what_it_is(project: Path, death: str, failure: str, code: int) -> None:
    write(project / "nb.ipynb", PARAMETERS, RECORD, f"import os\nos.{death}")
    with pytest.raises(Temporary if code == 75 else NotebookFailed):
        run("nb.ipynb", {}, load_settings(project, environ={}))
    (row,) = latest_runs(Ledger.of(load_settings(project, environ={})))
    assert (row.failure, row.exit_code, row.recorded["twice"]) == (failure, code, 6)


@pytest.mark.slow
def test_a_ledger_that_goes_away_during_a_run_hears_of_it_afterwards(scheduled: Settings, project: Path) -> None:
    write(project / "nb.ipynb", PARAMETERS, "from pathlib import Path\nPath('begun').touch()", RECORD)
    made = scheduler(replace(scheduled, lock_wait=0.2), Clock())
    assert made.poll() == 1
    while not (project / "begun").exists():
        time.sleep(0.05)
    away = sqlite3.connect(scheduled.store / "ledger.db", isolation_level=None)
    away.execute("BEGIN EXCLUSIVE")
    with pytest.raises(Temporary, match="locked"):
        slot_rows.send_heartbeats(made.ledger, made.running.values(), NOW)
    time.sleep(6)
    away.execute("ROLLBACK")
    finish(made)
    assert slot_rows.find_slot(made.ledger, "report", SLOT).status == "succeeded"
    assert [run.status for run in latest_runs(made.ledger)] == ["succeeded"]


def test_a_claim_elsewhere_is_taken_over_only_after_silence_on_our_own_clock(scheduled: Settings) -> None:
    made = scheduler(scheduled, Clock())
    slot_rows.add_slots(made.ledger, "report", {SLOT: ("waiting", "due")}, NOW)
    (slot,) = slot_rows.waiting_slots(made.ledger, NOW)
    slot_rows.claim_slot(made.ledger, slot, NOW)
    elsewhere = [replace(s, host="other#1.2.3") for s in slot_rows.running_slots(made.ledger)]
    time_here = [1000.0]
    watch = LeaseWatch(lambda: time_here[0])
    assert watch.abandoned(elsewhere) == []  # whatever its clock said in heartbeat_at
    time_here[0] += LEASE - 1
    assert watch.abandoned([replace(s, heartbeat_at=NOW + timedelta(days=1)) for s in elsewhere]) == []
    time_here[0] += LEASE - 1
    alive = [replace(s, heartbeat_at=NOW + timedelta(days=1)) for s in elsewhere]
    assert watch.abandoned(alive) == []
    time_here[0] += 2
    assert watch.abandoned(alive) == alive


def test_a_process_whose_beats_do_not_arrive_stops_before_another_starts(scheduled: Settings) -> None:
    made = scheduler(scheduled, Clock())
    slot_rows.add_slots(made.ledger, "report", {SLOT: ("waiting", "due")}, NOW)
    (slot,) = slot_rows.waiting_slots(made.ledger, NOW)
    mine = slot_rows.claim_slot(made.ledger, slot, NOW)
    assert mine is not None
    time_here = [0.0]
    with LeaseKeeper(made.ledger, print, Clock(), lambda: time_here[0]).keep_lease(mine) as stop:
        assert stop() is None
        time_here[0] = FENCE + 1
        assert "no heartbeat reached the ledger" in str(stop())
    assert FENCE < LEASE


def test_a_claim_that_was_taken_over_opens_no_run(scheduled: Settings) -> None:
    made = scheduler(scheduled, Clock())
    slot_rows.add_slots(made.ledger, "report", {SLOT: ("waiting", "due")}, NOW)
    (slot,) = slot_rows.waiting_slots(made.ledger, NOW)
    mine = slot_rows.claim_slot(made.ledger, slot, NOW)
    assert mine is not None
    made.record_failure(mine, 75, "silence")  # by another scheduler
    with pytest.raises(Temporary, match="taken over"):
        open_row(made.ledger, {"job": mine.job, "slot": mine.slot, "attempt": mine.attempt})
    assert slot_rows.send_heartbeats(made.ledger, [mine], NOW) == [mine]


def test_processes_are_told_apart_by_a_clock_that_nobody_sets() -> None:
    assert 0 < processes.process_start(os.getpid()) < time.clock_gettime(time.CLOCK_BOOTTIME)
    assert processes.is_alive(os.getpid(), processes.process_start(os.getpid()))
    assert not processes.is_alive(os.getpid(), processes.process_start(os.getpid()) - 5)
    host, rest = processes.host_identity().split("#")
    machine, _, namespace = rest.split(".")
    if machine:
        assert processes.is_before_reboot(f"{host}#{machine}.00000000.{namespace}")
    assert not processes.is_before_reboot(processes.host_identity()) and not processes.is_before_reboot("another#0.1.2")


@pytest.mark.parametrize(
    ("kind", "message", "expected"),
    [
        ("ValueError", "x", ("notebook_error", 5)),
        ("ConnectionResetError", "", ("temporary", 75)),
        ("OperationalError", "(psycopg) connection refused", ("temporary", 75)),
        ("OperationalError", "no such table: x", ("notebook_error", 5)),
        ("OSError", "[Errno 28] No space left on device", ("temporary", 75)),
        ("HTTPError", "HTTP Error 503: Service Unavailable", ("temporary", 75)),
        ("MemoryError", "", ("out_of_memory", 5)),
        ("DataRefused", "", ("data_refused", 3)),
        ("SchemaErrors", "", ("data_refused", 3)),
        ("Timeout", "", ("timeout", 5)),
    ],
)
def test_failures_are_classified(kind: str, message: str, expected: tuple[str, int]) -> None:
    assert classify_failure({"kind": kind, "message": message}) == expected


@pytest.mark.slow
def test_a_worker_that_is_killed_after_the_last_cell_leaves_a_page_all_the_same(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(project / "nb.ipynb", PARAMETERS, RECORD)
    follow, calls = execute.supervise_worker, []

    def killed_while_rendering(spec: dict[str, object], **rest: Any) -> Any:
        ended = follow(spec, **rest)
        calls.append(spec["render_only"])
        if len(calls) == 1:
            Path(str(spec["html"])).unlink()
        return ended

    monkeypatch.setattr(execute, "supervise_worker", killed_while_rendering)
    done = run("nb.ipynb", {}, load_settings(project, environ={}))
    assert done.status == "succeeded" and calls == [False, True]
    assert Path(done.outputs["html"]).read_text().rstrip().endswith("</html>")
