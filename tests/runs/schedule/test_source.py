from datetime import timedelta
from pathlib import Path

import pytest

from d2c_mlops.errors import UsageError
from d2c_mlops.runs.execution import slot_rows
from d2c_mlops.runs.execution.execute import run
from d2c_mlops.runs.execution.run_rows import latest_runs
from d2c_mlops.runs.schedule.jobs import scheduled_jobs
from d2c_mlops.settings import load_settings
from support.notebooks import write
from support.scheduling import NOW, SLOT, Clock, scheduler

JOBS = """[schedule:orders]
run = source.ipynb
at = daily at 05:00
params.new_rows = {rows}
[schedule:train]
run = nb.ipynb
on = orders
"""


def add(project: Path, rows: int) -> None:
    write(project / "source.ipynb", "new_rows: int = 0")
    write(project / "nb.ipynb", "n: int = 0")
    with (project / "settings.ini").open("a") as file:
        file.write(JOBS.format(rows=rows))


def settle(made) -> None:
    while made.poll() or made.running:
        for future in list(made.running):
            future.result(30)


@pytest.mark.parametrize(("rows", "jobs"), [(3, ["orders", "train"]), (0, ["orders"])])
def test_new_data_start_what_depends_on_them_once(project: Path, quick: list, rows: int, jobs: list[str]) -> None:
    add(project, rows)
    clock = Clock()
    made = scheduler(load_settings(project, environ={}), clock)
    settle(made)
    assert sorted(r.job for r in latest_runs(made.ledger)) == jobs
    if rows:
        slot = slot_rows.find_slot(made.ledger, "train", SLOT)
        assert slot.status == "succeeded" and slot_rows.slot_history(made.ledger, "train", SLOT)[0][
            "reason"
        ].startswith("new data")
    clock.now += timedelta(hours=1)
    settle(made)
    assert len(latest_runs(made.ledger)) == len(jobs)


def test_news_of_a_scheduler_that_was_killed_in_between_are_passed_on(project: Path, quick: list) -> None:
    add(project, 3)
    made = scheduler(load_settings(project, environ={}), Clock())
    slot_rows.add_slots(made.ledger, "orders", {SLOT: ("waiting", "due")}, NOW, until=SLOT)
    (slot,) = slot_rows.waiting_slots(made.ledger, NOW)
    mine = slot_rows.claim_slot(made.ledger, slot, NOW)
    assert mine is not None
    made.record_success = lambda slot, done: None  # killed after the run's row was closed, before the slot's was
    made.execute(mine)
    second = scheduler(load_settings(project, environ={}), Clock())
    second.watch.abandoned = lambda running: list(running)
    second.poll()
    assert slot_rows.find_slot(second.ledger, "orders", SLOT).status == "succeeded"
    assert slot_rows.find_slot(second.ledger, "train", SLOT).status in ("waiting", "running", "succeeded")
    settle(second)


def test_jobs_that_wait_for_each_other_are_refused(project: Path) -> None:
    with (project / "settings.ini").open("a") as file:
        file.write("[schedule:a]\nrun = nb.ipynb\non = b\n[schedule:b]\nrun = nb.ipynb\nat = hourly\nafter = a\n")
    with pytest.raises(UsageError, match="circular dependency: a after b after a"):
        scheduled_jobs(load_settings(project, environ={}))


@pytest.mark.slow
def test_the_source_runbook_takes_in_a_folder_and_says_what_is_new(project: Path) -> None:
    from d2c_mlops.data import simulate

    (project / "days").mkdir()
    for name, frame in simulate.shop(customers=10, days=20).items():
        frame.to_csv(project / "days" / f"{name}_2026-01-01.csv", index=False)
    held = load_settings(project, environ={})
    first = run("source", {"source": str(project / "days"), "name": "shop"}, held)
    assert first.recorded["new_rows"] > 0 and first.inputs[0]["digest"] == first.recorded["digest"]
    again = run("source", {"source": str(project / "days"), "name": "shop"}, held)
    assert again.recorded["new_rows"] == 0 and again.recorded["digest"] == first.recorded["digest"]
