"""A clock that jumps ahead and back silences no job: what is in the future is ignored, and said."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from d2c_mlops.errors import Temporary
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution import slot_rows
from d2c_mlops.runs.execution.run_rows import latest_runs
from d2c_mlops.runs.schedule.schedule import Scheduler
from d2c_mlops.settings import Settings, load_settings
from support.scheduling import NOW, SLOT, Clock, call, finish, scheduler


def ran(ledger: Ledger) -> list[datetime]:
    return sorted(run.slot for run in latest_runs(ledger, 100) if run.slot)


@pytest.mark.parametrize("jump", [timedelta(hours=30), timedelta(days=40), timedelta(days=400)])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_clock_that_was_ahead_silences_no_job(
    scheduled: Settings, quick: list[Exception], jump: timedelta, restarted: bool
) -> None:
    said: list[str] = []
    clock = Clock()
    made = scheduler(scheduled, clock)
    made.say = said.append
    made.poll(), finish(made)
    clock.now = NOW + jump
    made.poll(), finish(made)
    if restarted:
        made = Scheduler(scheduled, say=said.append, clock=clock)
    clock.now = NOW + timedelta(minutes=5)
    assert made.poll() == 0
    early = [slot for slot in ran(made.ledger) if slot > clock.now]  # ran while the clock was ahead, and run once
    for day in (1, 2):
        clock.now = NOW + timedelta(days=day)
        assert made.poll() == (SLOT + timedelta(days=day) not in early)
        finish(made)
    assert {SLOT + timedelta(days=n) for n in range(3)} <= set(ran(made.ledger))
    assert len(ran(made.ledger)) == len(set(ran(made.ledger))) and len(early) == 1
    assert any("the clock was ahead" in line and early[0].isoformat()[:10] in line for line in said)


def test_slots_that_passed_while_the_clock_was_ahead_go_by_the_policy(
    scheduled: Settings, quick: list[Exception], project: Path
) -> None:
    ini = project / "settings.ini"
    ini.write_text(ini.read_text().replace("daily at 06:00", "every 5 minutes") + "missed = all\n")
    clock = Clock(NOW - timedelta(minutes=20))
    made = scheduler(load_settings(project, environ={}), clock, known_since=NOW - timedelta(minutes=20))
    made.settings = load_settings(project, {"run_slots": "50"}, environ={})
    clock.now = NOW + timedelta(hours=2)
    made.poll(), finish(made)
    clock.now = NOW
    for _ in range(40):
        made.poll(), finish(made)
    wanted = [SLOT - timedelta(minutes=5 * n) for n in range(4)]
    assert set(wanted) <= set(ran(made.ledger))
    assert all(slot_rows.find_slot(made.ledger, "report", slot).status == "succeeded" for slot in wanted)


def test_a_retry_that_was_put_off_by_a_clock_ahead_comes_now(scheduled: Settings, quick: list[Exception]) -> None:
    clock = Clock()
    made = scheduler(scheduled, clock)
    slot_rows.add_slots(made.ledger, "report", {SLOT: ("waiting", "due")}, NOW)
    mine = slot_rows.claim_slot(made.ledger, slot_rows.find_slot(made.ledger, "report", SLOT), NOW)
    assert mine is not None
    clock.now = NOW + timedelta(days=300)
    made.record_failure(mine, Temporary.exit_code, "away")
    assert slot_rows.find_slot(made.ledger, "report", SLOT).not_before > NOW + timedelta(days=299)
    made.poll()
    clock.now = NOW + timedelta(minutes=1)
    quick.clear()
    made.poll(), finish(made), made.poll(), finish(made)
    assert slot_rows.find_slot(made.ledger, "report", SLOT).status == "succeeded"


def test_orchestrators_are_not_silenced_either(scheduled: Settings, quick: list[Exception]) -> None:
    call(scheduled)
    assert [s.slot for s in call(scheduled, clock=Clock(NOW + timedelta(days=40)))] == [SLOT + timedelta(days=40)]
    assert [s.slot for s in call(scheduled, clock=Clock(NOW + timedelta(days=1)))] == [SLOT + timedelta(days=1)]


def test_a_sign_of_life_ahead_of_now_is_said_once_and_keeps_nothing_alive(
    scheduled: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    made = scheduler(scheduled, Clock())
    made.say = said.append
    slot_rows.add_slots(made.ledger, "report", {SLOT: ("waiting", "due")}, NOW)
    mine = slot_rows.claim_slot(made.ledger, slot_rows.find_slot(made.ledger, "report", SLOT), NOW)
    assert mine is not None
    slot_rows.send_heartbeats(made.ledger, [mine], NOW + timedelta(days=400))
    made.recover(NOW), made.recover(NOW)
    assert len([line for line in said if "is in the future" in line]) == 1
    monkeypatch.setattr("d2c_mlops.runs.execution.leases.processes.is_alive", lambda pid, started: False)
    made.recover(NOW)
    assert slot_rows.find_slot(made.ledger, "report", SLOT).status == "waiting"


def test_clocks_that_differ_by_a_minute_take_nothing_back(scheduled: Settings, quick: list[Exception]) -> None:
    said: list[str] = []
    ahead, behind = scheduler(scheduled, Clock()), scheduler(scheduled, Clock(NOW - timedelta(minutes=1)))
    behind.say = said.append
    ahead.poll(), finish(ahead)
    behind.poll(), finish(behind)
    assert ran(ahead.ledger) == [SLOT] and said == []


def test_a_forerunner_far_ahead_or_behind_a_backfill_holds_nothing_up(
    scheduled: Settings, quick: list[Exception], project: Path
) -> None:
    with (project / "settings.ini").open("a") as file:
        file.write("[schedule:second]\nrun = nb.ipynb\nat = daily at 06:00\nzone = Europe/Berlin\nafter = report\n")
    made = scheduler(load_settings(project, environ={}), Clock())
    later = [SLOT + timedelta(days=n) for n in range(1, 31)]
    slot_rows.add_slots(made.ledger, "report", dict.fromkeys(later, ("skipped", "missed")), NOW)
    made.poll(), finish(made), made.poll(), finish(made)
    assert slot_rows.find_slot(made.ledger, "second", SLOT).status == "succeeded"
