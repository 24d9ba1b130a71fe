import json
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.errors import SettingsError, UsageError
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution import slot_rows
from d2c_mlops.runs.execution.run_rows import latest_runs
from d2c_mlops.runs.schedule.jobs import due_slots, fill_placeholders, scheduled_jobs
from d2c_mlops.runs.schedule.schedule import Scheduler
from d2c_mlops.settings import Settings, load_settings
from support.notebooks import PARAMETERS, RECORD, write
from support.processes import marked, wait_for
from support.scheduling import NOW, SLOT, Clock, finish, scheduler


def test_a_due_slot_runs_once_with_its_parameters(scheduled: Settings) -> None:
    first, second = scheduler(scheduled, Clock()), scheduler(scheduled, Clock())
    assert first.poll() + second.poll() == 1
    finish(first), finish(second)
    assert first.poll() + second.poll() == 0
    slot = slot_rows.find_slot(first.ledger, "report", SLOT)
    assert (slot.status, slot.attempt) == ("succeeded", 1)
    (row,) = latest_runs(first.ledger)
    assert (row.job, row.slot, row.attempt, row.recorded["day"]) == ("report", SLOT, 1, "2026-11-22")
    assert slot.run_id == row.id


def test_nothing_runs_before_its_time_or_from_before_the_job_was_known(scheduled: Settings) -> None:
    clock = Clock(NOW - timedelta(hours=1))
    made = scheduler(scheduled, clock, known_since=clock.now)
    assert made.poll() == 0 and slot_rows.list_slots(made.ledger, "report") == []


def test_a_clock_set_back_an_hour_runs_nothing_twice(scheduled: Settings) -> None:
    clock = Clock()
    made = scheduler(scheduled, clock)
    made.poll(), finish(made)
    clock.now -= timedelta(hours=1)
    assert made.poll() == 0
    clock.now += timedelta(hours=1)
    assert made.poll() == 0 and len(latest_runs(made.ledger)) == 1


@pytest.mark.parametrize(("policy", "waiting", "skipped"), [("once", 1, 13), ("all", 14, 0), ("skip", 0, 14)])
def test_two_weeks_asleep_go_by_the_policy(scheduled: Settings, policy: str, waiting: int, skipped: int) -> None:
    job = scheduled_jobs(scheduled)["report"]
    job = replace(job, settings=replace(job.settings, missed=policy))
    later = NOW + timedelta(days=14, hours=1)
    found = [status for status, _ in due_slots(job, NOW, later).values()]
    assert (found.count("waiting"), found.count("skipped")) == (waiting, skipped)


@pytest.mark.slow
def test_a_temporary_failure_is_tried_again_and_another_is_not(scheduled: Settings, project: Path) -> None:
    write(project / "nb.ipynb", PARAMETERS, "from d2c_mlops.errors import Temporary\nraise Temporary('away')")
    clock = Clock()
    made = scheduler(scheduled, clock)
    waits = []
    for attempt in (1, 2, 3):
        assert made.poll() == 1
        finish(made)
        slot = slot_rows.find_slot(made.ledger, "report", SLOT)
        assert slot.attempt == attempt
        waits.append((slot.not_before - clock.now).total_seconds())
        clock.now = max(slot.not_before, clock.now)
    assert waits[:2] == [10, 20] and slot.status == "failed" and "attempt 3 failed" in slot.reason
    assert [r.exit_code for r in latest_runs(made.ledger)] == [75, 75, 75]


def test_a_broken_notebook_is_not_tried_again(scheduled: Settings, project: Path) -> None:
    write(project / "nb.ipynb", PARAMETERS, "1 / 0")
    made = scheduler(scheduled, Clock())
    made.poll(), finish(made)
    slot = slot_rows.find_slot(made.ledger, "report", SLOT)
    assert (slot.status, slot.attempt) == ("failed", 1) and "ZeroDivisionError" in slot.reason


def test_a_notebook_that_is_gone_is_a_failure_on_record(scheduled: Settings, project: Path) -> None:
    made = scheduler(scheduled, Clock())
    (project / "nb.ipynb").unlink()
    made.poll(), finish(made)
    assert "no such notebook" in slot_rows.find_slot(made.ledger, "report", SLOT).reason


@pytest.mark.slow
def test_a_job_waits_for_the_one_before_it(scheduled: Settings, project: Path) -> None:
    with (project / "settings.ini").open("a") as file:
        file.write("[schedule:second]\nrun = nb.ipynb\nat = daily at 06:00\nzone = Europe/Berlin\nafter = report\n")
    made = scheduler(load_settings(project, environ={}), Clock())
    assert made.poll() == 1 and [s.job for s in made.running.values()] == ["report"]
    finish(made)
    assert made.poll() == 1 and [s.job for s in made.running.values()] == ["second"]
    finish(made)


@pytest.mark.slow
def test_a_job_whose_forerunner_failed_is_skipped_when_its_turn_has_passed(scheduled: Settings, project: Path) -> None:
    write(project / "bad.ipynb", PARAMETERS, "1 / 0")
    with (project / "settings.ini").open("a") as file:
        file.write("[schedule:first]\nrun = bad.ipynb\nat = daily at 05:00\nzone = Europe/Berlin\n")
        file.write("[schedule:second]\nrun = nb.ipynb\nat = daily at 06:00\nzone = Europe/Berlin\nafter = first\n")
    clock = Clock()
    made = scheduler(load_settings(project, environ={}), clock)
    made.poll(), finish(made)
    clock.now += timedelta(days=1)
    made.poll(), finish(made)
    slot = slot_rows.find_slot(made.ledger, "second", SLOT)
    assert slot.status == "skipped" and "first did not succeed" in slot.reason


@pytest.mark.slow
def test_a_killed_scheduler_loses_no_slot_and_doubles_none(scheduled: Settings, project: Path) -> None:
    write(project / "nb.ipynb", PARAMETERS, RECORD, "import time\ntime.sleep(60)")
    ledger = Ledger.of(scheduled)
    now = datetime.now(UTC).replace(microsecond=0)
    slot_rows.known_jobs(ledger, ["report"], now)
    slot_rows.add_slots(ledger, "report", {now: ("waiting", "triggered by hand")}, now)
    command = [sys.executable, "-m", "d2c_mlops", "schedule", "run"]
    killed = subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL)
    wait_for(
        lambda: latest_runs(ledger) and latest_runs(ledger)[0].recorded == {} and marked(latest_runs(ledger)[0].id)
    )
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    write(project / "nb.ipynb", PARAMETERS, RECORD)
    clock = Clock(now + timedelta(seconds=5))
    made = Scheduler(scheduled, say=lambda text: None, clock=clock)
    made.poll()
    slot = slot_rows.find_slot(ledger, "report", now)
    assert slot.status == "waiting" and "next attempt in 10 s" in slot.reason
    clock.now += timedelta(seconds=10)
    assert made.poll() == 1
    finish(made)
    assert slot_rows.find_slot(ledger, "report", now).status == "succeeded"
    assert sorted((r.attempt, r.status) for r in latest_runs(ledger)) == [(1, "lost"), (2, "succeeded")]
    assert not marked(latest_runs(ledger)[1].id)


@pytest.mark.slow
def test_sigterm_lets_what_runs_finish(scheduled: Settings, project: Path) -> None:
    write(project / "nb.ipynb", PARAMETERS, "import time\ntime.sleep(3)", RECORD)
    ledger = Ledger.of(scheduled)
    now = datetime.now(UTC).replace(microsecond=0)
    slot_rows.known_jobs(ledger, ["report"], now)
    slot_rows.add_slots(ledger, "report", {now: ("waiting", "triggered by hand")}, now)
    command = [sys.executable, "-m", "d2c_mlops", "schedule", "run"]
    daemon = subprocess.Popen(command, cwd=project, stdout=subprocess.DEVNULL)
    wait_for(lambda: latest_runs(ledger))
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(60) == 0
    assert slot_rows.find_slot(ledger, "report", now).status == "succeeded"


def test_two_claims_of_one_slot_are_decided_by_the_ledger(scheduled: Settings, postgres: str) -> None:
    for ledger in (Ledger.of(scheduled), Ledger(postgres)):
        slot_rows.known_jobs(ledger, ["report"], NOW)
        assert slot_rows.add_slots(ledger, "report", {SLOT: ("waiting", "due")}, NOW) == [SLOT]
        assert slot_rows.add_slots(ledger, "report", {SLOT: ("waiting", "due")}, NOW) == []
        (slot,) = slot_rows.waiting_slots(ledger, NOW)
        assert slot_rows.claim_slot(ledger, slot, NOW) is not None and slot_rows.claim_slot(ledger, slot, NOW) is None


def day(number: int) -> datetime:
    return datetime(2026, 11, number, 5, 0, tzinfo=UTC)


@pytest.mark.slow
@pytest.mark.parametrize(("line", "parallel", "room"), [("concurrency = 2\n", 1, 2), ("", 3, 3)])
def test_no_more_of_a_job_run_at_a_time_than_may(
    scheduled: Settings, project: Path, line: str, parallel: int, room: int
) -> None:
    with (project / "settings.ini").open("a") as file:
        file.write(line)
    write(project / "nb.ipynb", PARAMETERS, "import time\ntime.sleep(2)", RECORD)
    made = scheduler(load_settings(project, {"run_slots": "8"}, environ={}), Clock(NOW - timedelta(hours=1)))
    wanted = [day(number) for number in range(1, 5)]
    slot_rows.add_slots(made.ledger, "report", dict.fromkeys(wanted, ("waiting", "backfill")), NOW, parallel=parallel)
    assert made.poll() == room and len(slot_rows.running_slots(made.ledger)) == room
    while any(slot_rows.find_slot(made.ledger, "report", each).status in ("waiting", "running") for each in wanted):
        finish(made), made.poll()
    assert {run.slot for run in latest_runs(made.ledger)} == set(wanted)
    assert most_at_once(made.ledger) == room


def most_at_once(ledger: Ledger) -> int:
    """The largest number of runs that were going together."""
    moments = [(run.started_at, 1) for run in latest_runs(ledger)] + [(run.ended_at, -1) for run in latest_runs(ledger)]
    going = most = 0
    for _, step in sorted(moments):
        going += step
        most = max(most, going)
    return most


@pytest.mark.slow
def test_a_run_that_becomes_too_dear_is_stopped_and_not_tried_again(scheduled: Settings, project: Path) -> None:
    text = (project / "settings.ini").read_text().replace("[d2c]\n", "[d2c]\ncpu_hour_price = 7200\n")
    (project / "settings.ini").write_text(text + "max_cost = 8\nretries = 3\n")
    write(project / "nb.ipynb", PARAMETERS, RECORD, "while True: pass")
    made = scheduler(load_settings(project, environ={}), Clock())
    made.poll(), finish(made)
    slot = slot_rows.find_slot(made.ledger, "report", SLOT)
    (row,) = latest_runs(made.ledger)
    assert (slot.status, row.status) == ("failed", "failed")
    assert row.error["kind"] == "TooExpensive" and "its limit is 8" in row.error["message"]
    assert row.cost is not None and row.cost >= 8 and row.recorded["twice"] == 6


def test_templates_fill_dates_in_and_reach_nothing_else() -> None:
    known = {"slot": SLOT, "job": "report", "previous_success": ""}
    assert fill_placeholders("{slot:%Y-%m} of {job} after {previous_success}", known) == "2026-11 of report after "
    for wrong in ("{slot.__class__}", "{other}", "{slot!r}"):
        with pytest.raises(UsageError, match="is not a known placeholder"):
            fill_placeholders(wrong, known)


def test_a_wrong_section_is_refused_with_all_that_is_wrong(project: Path) -> None:
    with (project / "settings.ini").open("a") as file:
        file.write("[schedule:x]\nrn = nb.ipynb\nmissed = never\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(project, environ={})
    text = str(caught.value)
    assert "did you mean 'run'" in text and "'never' is none of" in text and "[schedule:x] at: is needed" in text


def test_the_commands_list_trigger_pause_backfill_and_explain(scheduled: Settings) -> None:
    def call(*args: str) -> dict:
        done = CliRunner().invoke(main, ["schedule", *args, "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.output)

    assert call("list")[0]["job"] == "report"
    made = call("backfill", "report", "--from", "2026-01-01", "--to", "2026-01-03")
    assert made["slots"] == [f"2026-01-0{day}T05:00:00+00:00" for day in (1, 2, 3)]
    assert call("backfill", "report", "--from", "2026-01-01", "--to", "2026-01-03")["slots"] == []
    assert call("why", "report", "2026-01-02T06:00")["reason"] == "backfill"
    assert len(call("trigger", "report")["slots"]) == 1
    assert call("pause", "report")["paused"] and call("list")[0]["next"] is None
    assert not call("resume", "report")["paused"]
    assert CliRunner().invoke(main, ["schedule", "trigger", "nope"]).exit_code == 2
