import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from d2c_mlops.errors import DataRefused, NotebookFailed, Temporary, UsageError
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution import slot_rows
from d2c_mlops.runs.execution.run_rows import latest_runs
from d2c_mlops.runs.schedule.slot_run import run_job
from d2c_mlops.settings import Settings, load_settings
from support.notebooks import PARAMETERS, RECORD, write
from support.processes import wait_for
from support.scheduling import NOW, SLOT, Clock, call, finish, scheduler


def test_the_first_call_runs_the_slot_and_the_second_finds_it_done(scheduled: Settings, quick: list[Exception]) -> None:
    (slot,) = call(scheduled)
    assert (slot.slot, slot.status, slot.attempt) == (SLOT, "succeeded", 1)
    assert call(scheduled) == []
    assert [s.status for s in call(scheduled, SLOT.isoformat())] == ["succeeded"]
    assert [(r.slot, r.recorded["day"]) for r in latest_runs(Ledger.of(scheduled))] == [(SLOT, "2026-11-22")]


def test_a_moment_means_the_latest_slot_before_it_and_none_that_is_to_come(
    scheduled: Settings, quick: list[Exception]
) -> None:
    (slot,) = call(scheduled, "2026-11-21T06:00:17+01:00")
    assert slot.slot == SLOT - timedelta(days=1)
    with pytest.raises(UsageError, match="not due yet"):
        call(scheduled, "2026-11-23T06:00")
    with pytest.raises(UsageError, match="is not a time"):
        call(scheduled, "noon")
    with pytest.raises(UsageError, match="there is no job 'nope'"):
        call(scheduled, name="nope")


def test_the_scheduler_leaves_alone_what_an_orchestrator_ran_and_the_other_way_round(
    scheduled: Settings, quick: list[Exception]
) -> None:
    daemon = scheduler(scheduled, Clock())
    call(scheduled)
    assert daemon.poll() == 0
    tomorrow = Clock(NOW + timedelta(days=1))
    daemon.clock = tomorrow
    assert daemon.poll() == 1
    (slot,) = run_job("report", (SLOT + timedelta(days=1)).isoformat(), scheduled, print_line=print, clock=tomorrow)
    finish(daemon)
    assert slot.status == "succeeded" and len(latest_runs(Ledger.of(scheduled))) == 2


def test_what_was_missed_goes_by_the_jobs_policy(scheduled: Settings, quick: list[Exception], project: Path) -> None:
    call(scheduled)
    late = Clock(NOW + timedelta(days=3, hours=5))
    assert [s.slot for s in call(scheduled, clock=late)] == [SLOT + timedelta(days=3)]
    ini = project / "settings.ini"
    ini.write_text(ini.read_text() + "missed = all\n")
    later = Clock(NOW + timedelta(days=5, hours=5))
    ran = [s.slot for s in call(load_settings(project, environ={}), clock=later)]
    assert ran == [SLOT + timedelta(days=4), SLOT + timedelta(days=5)]
    ini.write_text(ini.read_text().replace("missed = all", "missed = skip"))
    assert call(load_settings(project, environ={}), clock=Clock(NOW + timedelta(days=6, hours=5))) == []


def test_a_temporary_failure_asks_for_another_call_and_the_last_one_does_not(
    scheduled: Settings, quick: list[Exception], project: Path
) -> None:
    quick += [Temporary("away")] * 3
    clock = Clock()
    for _ in range(2):
        with pytest.raises(Temporary, match="away"):
            call(scheduled, clock=clock)
    assert clock.now >= NOW + timedelta(seconds=10)  # the second call came too early and waited
    with pytest.raises(NotebookFailed, match="attempt 3 failed"):
        call(scheduled, SLOT.isoformat(), clock)
    assert sorted(r.attempt for r in latest_runs(Ledger.of(scheduled))) == [1, 2, 3]


def test_with_stay_all_attempts_are_made_by_one_call(scheduled: Settings, quick: list[Exception]) -> None:
    quick.append(Temporary("away"))
    (slot,) = call(scheduled, wait_for_slot=True)
    assert (slot.status, slot.attempt) == ("succeeded", 2)


def test_a_refusal_keeps_its_class(scheduled: Settings, quick: list[Exception]) -> None:
    quick.append(DataRefused("no rows"))
    with pytest.raises(DataRefused, match="no rows"):
        call(scheduled)


def test_a_job_that_rests_runs_nothing(scheduled: Settings, quick: list[Exception]) -> None:
    slot_rows.pause_job(Ledger.of(scheduled), "report", True, NOW - timedelta(hours=1))
    assert call(scheduled) == [] and latest_runs(Ledger.of(scheduled)) == []


def test_a_dependent_waits_for_todays_forerunner_even_when_asked_first(
    scheduled: Settings, quick: list[Exception], project: Path
) -> None:
    with (project / "settings.ini").open("a") as file:
        file.write("[schedule:second]\nrun = nb.ipynb\nat = daily at 06:00\nzone = Europe/Berlin\nafter = report\n")
        file.write("timeout = 60\n")
    settings = load_settings(project, environ={})
    call(settings)
    tomorrow = Clock(NOW + timedelta(days=1))
    with pytest.raises(Temporary, match="waits"):
        call(settings, clock=tomorrow, name="second")
    call(settings, clock=tomorrow)
    assert [s.status for s in call(settings, clock=tomorrow, name="second")][-1] == "succeeded"


def test_a_stopped_call_leaves_the_slot_to_another(scheduled: Settings, project: Path) -> None:
    write(project / "nb.ipynb", PARAMETERS, RECORD, "import time\ntime.sleep(60)")
    ledger = Ledger.of(scheduled)
    command = [sys.executable, "-m", "d2c_mlops", "run", "report", "--slot", "now", "--json"]
    command[-2] = datetime.now().astimezone().isoformat()
    started = subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, text=True)
    wait_for(lambda: latest_runs(ledger))
    started.terminate()
    said, _ = started.communicate(timeout=60)
    assert started.returncode == 130 and "Cancelled" in said
    (slot,) = slot_rows.list_slots(ledger, "report")
    assert slot.status == "waiting" and "stopped by a signal" in slot.reason


@pytest.mark.slow
def test_two_calls_at_once_run_the_slot_once(scheduled: Settings, project: Path) -> None:
    write(project / "nb.ipynb", PARAMETERS, "import time\ntime.sleep(1)", RECORD)
    now = datetime.now().astimezone().isoformat()
    command = [sys.executable, "-m", "d2c_mlops", "run", "report", "--slot", now]
    both = [subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [p.wait(120) for p in both] == [0, 0]
    assert [r.status for r in latest_runs(Ledger.of(scheduled))] == ["succeeded"]
