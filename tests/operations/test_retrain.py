"""Retraining without a person: the reason, the training, the gate, the release, and what is on record."""

import json
import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from sqlalchemy import update

import d2c_mlops as d2c
from d2c_mlops.cli import main
from d2c_mlops.errors import NotebookFailed, Temporary, UsageError
from d2c_mlops.ledger.schema import retrainings
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.contract import contract_to_dict
from d2c_mlops.models.forecasting.demand_contract import DEMAND_CHARTER, demand_contract
from d2c_mlops.monitoring.alerts import Breach
from d2c_mlops.monitoring.retraining import RetrainingReason
from d2c_mlops.operations.alert_rows import find_alerts
from d2c_mlops.operations.alerts import close_alert, observe_breaches
from d2c_mlops.operations.retraining import expected_loss as pricing
from d2c_mlops.operations.retraining import retrain as machinery
from d2c_mlops.operations.retraining.known_state import configured_policy, known_state
from d2c_mlops.operations.retraining.retrain import RetrainingLook, retrain
from d2c_mlops.operations.retraining.retraining_rows import (
    events_of_retraining,
    find_open_retraining,
    keep_retraining,
    open_retraining,
    retraining_history,
    take_retraining,
    write_step,
)
from d2c_mlops.registry.promotion_history import champion_at_time
from d2c_mlops.registry.promotions import judge_and_promote
from d2c_mlops.registry.versions import Version, all_versions
from d2c_mlops.runs.execution.execute import run
from d2c_mlops.runs.execution.run_rows import latest_runs
from d2c_mlops.serving.rollout.rollout_commands import abort_rollout
from d2c_mlops.serving.rollout.rollout_history import current_rollout, state_file_of
from d2c_mlops.serving.rollout.state_file import Rollout, write_state
from d2c_mlops.settings import ModelSettings, RolloutSettings, Settings, load_settings
from support.notebooks import write
from support.processes import marked, wait_for
from support.retraining import (
    DAY,
    MODEL,
    check_record,
    in_process,
    kill_here,
    retrained,
    to_the_end,
    trained_here,
    was_killed,
)

TRIALS = int(os.environ.get("CRASH_TRIALS", 2))
BAD, GOOD, BETTER = 1.6, 1.3, 1.1  # scales of the toy model: the closer to 1, the smaller its error


@pytest.fixture
def errors(monkeypatch: pytest.MonkeyPatch) -> list:
    """Trainings run in this process; the errors in the list are raised first."""
    raised: list = []
    monkeypatch.setattr("d2c_mlops.operations.retraining.retrain.run", trained_here(raised))
    return raised


def now_plus(days: float) -> datetime:
    return datetime.now(UTC) + days * DAY


def with_scale(settings: Settings, scale: float, **options: str) -> Settings:
    return retrained(settings, params={"scale": scale}, **options)


def look_at(settings: Settings, days: float) -> RetrainingLook:
    return retrain(MODEL, settings, now=now_plus(days))


def champion(settings: Settings) -> int | None:
    version = champion_at_time(Ledger.of(settings), MODEL)
    return version.version if version else None


def breach(version: int = 1, cause: str = "price_index") -> Breach:
    return Breach(MODEL, "drift", cause, "warning", "prices moved", "d2c monitor", version=version)


def test_a_model_is_trained_released_and_left_alone_until_its_cadence_is_over(settings: Settings, errors: list) -> None:
    settings = with_scale(settings, GOOD)
    first = look_at(settings, 0)
    assert (first.action, first.retraining.result, first.retraining.kind) == ("finished", "promoted", "first")
    assert look_at(settings, 3).action == "none" and len(all_versions(Ledger.of(settings), MODEL)) == 1
    settings = with_scale(settings, BETTER)
    dry = retrain(MODEL, settings, now=now_plus(7), dry_run=True)
    assert (dry.action, dry.reason.kind) == ("due", "cadence") and champion(settings) == 1
    second = look_at(settings, 7)
    assert (second.retraining.version, second.retraining.result, champion(settings)) == (2, "promoted", 2)
    check_record(settings, "promoted")
    states = [event["state"] for event in events_of_retraining(Ledger.of(settings), second.retraining.id)]
    assert states == ["opened", "releasing", "promoted"]


@pytest.mark.slow
def test_a_version_that_is_not_better_is_not_promoted_and_the_record_says_why(settings: Settings, errors: list) -> None:
    look_at(with_scale(settings, BETTER), 0)
    look = look_at(with_scale(settings, BAD), 7)
    assert (look.retraining.version, look.retraining.result) == (2, "refused")
    assert "version 1 stays champion" in look.retraining.detail and "mae" in look.retraining.detail
    last = check_record(with_scale(settings, BAD), "refused")
    assert last.detail == retraining_history(Ledger.of(settings), MODEL)[0].detail


@pytest.mark.slow
@pytest.mark.parametrize(("release", "mode"), [("shadow", "shadow"), ("10%", "share")])
def test_later_looks_continue_the_rollout(settings: Settings, errors: list, release: str, mode: str) -> None:
    look_at(with_scale(settings, GOOD), 0)
    settings = with_scale(settings, BETTER, release=release)
    began = look_at(settings, 7)
    rollout = current_rollout(Ledger.of(settings), MODEL, settings)
    assert (began.action, rollout.mode, rollout.challenger, champion(settings)) == ("waiting", mode, 2, 1)
    assert retrain(MODEL, settings, now=now_plus(7), dry_run=True).action == "waiting"
    assert look_at(settings, 8).retraining.result == "promoted"
    check_record(settings, "promoted")


@pytest.mark.slow
def test_a_rollout_that_a_person_ended_ends_the_retraining(settings: Settings, errors: list) -> None:
    look_at(with_scale(settings, GOOD), 0)
    settings = with_scale(settings, BETTER, release="shadow")
    look_at(settings, 7)
    abort_rollout(MODEL, settings, by="jo", reason="too slow")
    look = look_at(settings, 8)
    assert look.retraining.result == "aborted" and "too slow" in look.retraining.detail
    check_record(settings, "aborted")


@pytest.mark.slow
def test_a_version_that_nobody_asks_is_given_up_after_four_weeks(settings: Settings, errors: list) -> None:
    look_at(with_scale(settings, GOOD), 0)
    settings = replace(with_scale(settings, BETTER, release="10%"), rollout=RolloutSettings(min_answers=200))
    assert [look_at(settings, days).action for days in (7, 14, 34)] == ["waiting"] * 3
    look = look_at(settings, 36)
    assert look.retraining.result == "aborted" and "0 predictions on record" in look.retraining.detail
    check_record(settings, "aborted")
    again = retrain(MODEL, settings, now=now_plus(37), dry_run=True)
    assert again.action == "due", "newer data are learned from"


@pytest.mark.slow
def test_a_newer_champion_ends_the_retraining(settings: Settings, errors: list) -> None:
    look_at(with_scale(settings, GOOD), 0)
    settings = with_scale(settings, BETTER, release="shadow")
    look_at(settings, 7)
    trained_here([])("train", {"model": MODEL}, with_scale(settings, 1.05), ledger=Ledger.of(settings), by="jo")
    judge_and_promote(MODEL, settings, number=3, by="jo")
    assert look_at(settings, 8).retraining.result == "superseded"


def test_a_training_that_fails_is_told_and_waits_for_the_cool_down(settings: Settings, errors: list) -> None:
    settings = with_scale(settings, GOOD)
    look_at(settings, 0)
    errors.append(NotebookFailed("no rows of June"))
    with pytest.raises(NotebookFailed, match="no rows of June"):
        look_at(settings, 7)
    failed = retraining_history(Ledger.of(settings), MODEL)[0]
    assert (failed.state, failed.result, failed.detail) == ("finished", "failed", "no rows of June")
    state = replace(known_state(MODEL, settings, now_plus(7)), started_at=now_plus(7))
    for days, is_due in ((8, False), (9.1, True)):
        reason = machinery.reason_to_retrain(configured_policy(MODEL, settings), state, now_plus(days))
        assert (reason is not None) == is_due
    assert reason.cause == failed.cause, "the failed attempt gave no version, so its cause may be tried again"
    assert look_at(settings, 9.1).retraining.version == 2


@pytest.mark.slow
def test_a_temporary_failure_leaves_the_retraining_open(settings: Settings, errors: list) -> None:
    settings = with_scale(settings, GOOD)
    errors += [Temporary("the disk is full")] * 2
    for _ in range(2):
        with pytest.raises(Temporary):
            look_at(settings, 0)
    assert find_open_retraining(Ledger.of(settings), MODEL).host is None
    assert look_at(settings, 0).retraining.attempt == 3
    assert len(retraining_history(Ledger.of(settings), MODEL)) == 1


@pytest.mark.slow
def test_trainings_that_are_always_lost_end(settings: Settings, errors: list) -> None:
    settings = with_scale(settings, GOOD)
    errors += [Temporary("killed")] * machinery.MOST_RUNS
    for _ in range(machinery.MOST_RUNS):
        with pytest.raises(Temporary):
            look_at(settings, 0)
    with pytest.raises(NotebookFailed, match="lost or failed temporarily"):
        look_at(settings, 0)
    assert retraining_history(Ledger.of(settings), MODEL)[0].result == "failed"


def test_a_storm_of_alerts_causes_one_retraining(settings: Settings, errors: list) -> None:
    settings = with_scale(settings, GOOD, retrain="on drift")
    look_at(settings, 0)
    ledger, opened = Ledger.of(settings), now_plus(0.5)
    for hour in range(24):
        storm = [breach(cause=f"column {number}") for number in range(hour + 1)]
        observe_breaches(ledger, settings, storm, set(), opened + hour * DAY / 24)
    other_version = known_state(MODEL, settings, now_plus(2))
    assert len(other_version.incidents) == 24
    settings = with_scale(settings, BETTER, retrain="on drift")
    look = look_at(settings, 2)
    assert (look.retraining.kind, look.retraining.result) == (
        "drift",
        "promoted",
    ) and "column 0" in look.retraining.reason
    assert not known_state(MODEL, settings, now_plus(5)).incidents, "they are about the former champion"
    assert [look_at(settings, days).action for days in (2, 3, 5, 9)] == ["none"] * 4
    assert len(retraining_history(ledger, MODEL)) == 2


def test_a_model_without_a_policy_is_left_alone(settings: Settings, errors: list) -> None:
    look = look_at(retrained(settings, retrain=""), 0)
    assert (look.action, look.text, look.policy) == ("none", "its policy is never", "never")
    assert configured_policy("demand", settings).text == "never"
    usual = replace(settings, models={"demand": replace(settings.model("demand"), retrain="default")})
    assert configured_policy("demand", usual).text == "every 7 days"


def test_a_model_has_one_open_retraining_and_one_owner(settings: Settings) -> None:
    ledger, now = Ledger.of(retrained(settings)), now_plus(0)
    with ThreadPoolExecutor(4) as pool:
        reasons = [RetrainingReason("drift", f"drift:{number}", "moved") for number in range(4)]
        opened = list(pool.map(lambda reason: open_retraining(ledger, MODEL, reason, "jo", now), reasons))
        assert len(retraining_history(ledger, MODEL)) == 1
        taken = list(pool.map(lambda _: take_retraining(ledger, next(filter(None, opened))), range(4)))
    (mine,) = filter(None, taken)
    with ledger.write() as connection:  # its process has stopped
        connection.execute(update(retrainings).values(pid_started=0.0))
    again = take_retraining(ledger, mine)
    assert again is not None and again.attempt == 2
    with pytest.raises(Temporary, match="taken over"):
        write_step(ledger, mine, "releasing", "late", now)
    with keep_retraining(ledger, again) as should_stop:
        assert should_stop() is None
    assert find_open_retraining(ledger, MODEL).host is None


def test_a_lease_on_another_machine_is_taken_over_when_it_has_ended(settings: Settings) -> None:
    ledger = Ledger.of(retrained(settings))
    opened = open_retraining(ledger, MODEL, RetrainingReason("drift", "drift:a", "moved"), "jo", now_plus(0))
    for lease, is_free in ((now_plus(0.1), False), (now_plus(-0.1), True)):
        with ledger.write() as connection:
            connection.execute(
                update(retrainings).values(host="elsewhere#1.2.3", pid=1, pid_started=1.0, lease_until=lease)
            )
        assert (take_retraining(ledger, opened) is not None) == is_free


def test_the_change_of_a_closed_alert_is_still_known(settings: Settings) -> None:
    ledger, since = Ledger.of(retrained(settings)), now_plus(-3).date()
    dated = replace(breach(), since=since)
    observe_breaches(ledger, settings, [dated], {(MODEL, "drift")}, now_plus(-1))
    (alert,) = find_alerts(ledger, MODEL)
    close_alert(ledger, settings, alert.id, "jo", "real", now_plus(-0.5))
    assert not find_alerts(ledger, MODEL)
    (incident,) = known_state(MODEL, settings, now_plus(0)).incidents
    assert (incident.since, incident.is_open) == (since, False)
    assert not known_state(MODEL, settings, now_plus(365)).incidents


def test_a_cause_that_gave_a_version_gives_no_other_one(settings: Settings) -> None:
    ledger, reason = Ledger.of(retrained(settings)), RetrainingReason("drift", "drift:a", "moved")
    opened = open_retraining(ledger, MODEL, reason, "jo", now_plus(0))
    write_step(ledger, opened, "finished", "worse", now_plus(0), result="refused", version=1)
    assert open_retraining(ledger, MODEL, reason, "jo", now_plus(3)) is None
    assert open_retraining(ledger, MODEL, replace(reason, cause="drift:b"), "jo", now_plus(3)) is not None


@pytest.mark.slow
def test_the_command_says_why_and_shows_the_record(settings: Settings, project: Path, errors: list) -> None:
    def called(*arguments: str) -> str:
        result = CliRunner().invoke(main, ["retrain", MODEL, *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    assert "its policy is never" in called() and "retrain = monthly" in called("--why")
    assert "no retraining of mean_units is on record" in called("--history")
    with (project / "settings.ini").open("a") as file:
        file.write("retrain = monthly or on drift or on expected loss\nretrain_after = 3 days\n")
    retrained(settings)
    dry = json.loads(called("--dry-run", "--json"))
    assert (dry["action"], dry["reason"]["kind"], dry["retraining"]) == ("due", "first", None)
    assert "finished" in called() and "promoted" in called("--history")
    assert [event["state"] for event in json.loads(called("--history", "--json"))[0]["events"]][-1] == "promoted"
    why = called("--why")
    assert "the cadence is 30 days" in why and "no incident has opened" in why
    assert "the expected loss is not known" in why
    assert d2c.retrain(MODEL, dry_run=True).policy == "every 30 days or on drift or on expected loss"


def test_the_expected_loss_of_a_forecaster_is_priced_by_its_charter(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = retrained(settings)
    contract = contract_to_dict(demand_contract("D", 28))
    charter = DEMAND_CHARTER.to_dict() | {"right_value": 3.0, "wrong_cost": 1.0}
    version = Version("demand", 1, now_plus(-40), None, "", {"freq": "D", "horizon": 28}, contract, charter,
                      {"metric": "wape", "value": 0.2, "baselines": {}, "lower_is_better": True}, [], "2023-10-01", "", "", "")  # fmt: skip
    days = pd.date_range("2023-12-08", "2023-12-27").repeat(2)
    answers = pd.DataFrame({"day": days, "version": 1, "predicted": [6.0, 14.0] * 20, "outcome": [10.0, 10.0] * 20})
    monkeypatch.setattr(pricing, "answers_with_outcomes", lambda *_: answers)
    settings = replace(settings, models={"demand": ModelSettings("demand", data="shop")})
    loss = pricing.expected_loss(version, "train", settings, datetime(2024, 1, 1, tzinfo=UTC))
    assert loss == pricing.ExpectedLoss(pytest.approx(16.0), pytest.approx(8.0), pytest.approx(0.0), None)
    monkeypatch.setattr(pricing, "answers_with_outcomes", lambda *_: answers.head(20))
    assert pricing.expected_loss(version, "train", settings, datetime(2024, 1, 1, tzinfo=UTC)) is None, "10 days"
    assert pricing.expected_loss(replace(version, charter={}), "train", settings, now_plus(0)) is None


@pytest.mark.slow
def test_the_record_is_the_same_on_postgresql(settings: Settings, errors: list, postgres: str) -> None:
    settings = replace(with_scale(settings, GOOD), ledger_url=postgres)
    look_at(settings, 0)
    look_at(replace(with_scale(settings, BETTER), ledger_url=postgres), 7)
    check_record(settings, "promoted")


STEPS = (
    "d2c_mlops.operations.retraining.retrain.take_retraining",  # opened, and nobody works on it
    "d2c_mlops.operations.retraining.retrain.run",  # before the training
    "support.retraining.close_row",  # registered, the run not closed
    "d2c_mlops.operations.retraining.retrain.release_newest",  # trained
    "d2c_mlops.operations.release.start_rollout",  # the gate accepted it
    "d2c_mlops.serving.rollout.promotion.write_state",  # the rollout is on record, services do not know it
    "d2c_mlops.serving.rollout.promotion._update_services",  # the promotion is on record, the rollout goes on
    "d2c_mlops.registry.promotions.artifacts.set_alias",  # services know it, the registry does not
    "d2c_mlops.serving.rollout.rollout_commands.rollout_status",
)
ROLLOUTS = ("start_rollout", "rollout_commands.rollout_status")  # steps of a release to a share of the keys


def drifts(settings: Settings, number: int) -> None:
    """Open an incident about the champion."""
    ledger = Ledger.of(settings)
    observe_breaches(ledger, settings, [breach(champion(settings) or 0, f"column {number}")], set(), now_plus(0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("release", "step"),
    [("champion", step) for step in STEPS if not step.endswith(ROLLOUTS)] + [("10%", step) for step in STEPS],
)
def test_kill_9_at_a_step_leaves_one_challenger_and_a_whole_promotion(
    settings: Settings, errors: list, monkeypatch: pytest.MonkeyPatch, step: str, release: str
) -> None:
    settings = with_scale(settings, GOOD, retrain="on drift")
    look_at(settings, 0)
    file, _ = state_file_of(MODEL, settings)
    write_state(file, Rollout(MODEL, 1))  # there are services
    drifts(settings, 1)
    settings = with_scale(settings, BETTER, release=release, retrain="on drift", retrain_after="0d")
    with monkeypatch.context() as patch:
        patch.setattr(step, kill_here)
        assert was_killed(in_process(lambda: to_the_end(settings))), "the step is part of this release"
    to_the_end(settings)
    last = check_record(settings, "promoted")
    assert last.version == 2 and len(retraining_history(Ledger.of(settings), MODEL)) == 2


TRAIN = (
    'model: str = "mean_units"',
    "from support.retraining import train\n"
    "from d2c_mlops.runs.recording import run_id\n"
    "from d2c_mlops.settings import load_settings\n"
    "train(load_settings(), run_id())",
)


@pytest.mark.slow
def test_kill_9_of_the_runbook_is_taken_over(
    settings: Settings, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runbook retrain runs in a kernel and starts the training run, which has a kernel of its own."""
    tests = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (project, tests, tests.parent))))
    (project / "runbooks").mkdir()
    write(project / "runbooks" / "train.ipynb", *TRAIN)
    with (project / "settings.ini").open("a") as file:
        file.write("retrain = weekly\n")
    retrained(settings)
    loaded = load_settings(project, environ={})
    ledger = Ledger.of(loaded)
    pid = in_process(lambda: run("retrain", {"model": MODEL}, loaded))
    wait_for(lambda: any(row.runbook == "train" for row in latest_runs(ledger)))
    os.kill(pid, signal.SIGKILL)
    assert was_killed(pid)
    wait_for(lambda: retrain(MODEL, loaded, dry_run=True).action == "waiting")
    finished = run("retrain", {"model": MODEL}, loaded)
    assert (finished.recorded["action"], finished.recorded["result"]) == ("finished", "promoted")
    assert check_record(loaded, "promoted").version == 1
    statuses = sorted((row.runbook, row.status) for row in latest_runs(ledger))
    assert ("retrain", "lost") in statuses and ("train", "running") not in statuses


@pytest.mark.slow
@pytest.mark.timeout(6000)
def test_kill_9_at_random_moments_leaves_one_challenger_for_each_cause(
    settings: Settings, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real training runs, killed once or twice each; every third version is worse, every second release is a rollout."""
    tests = Path(__file__).parents[1]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (project, tests, tests.parent))))
    (project / "runbooks").mkdir()
    write(project / "runbooks" / "train.ipynb", *TRAIN)
    lots, kills, scale = random.Random(20261130), 0, BAD

    def trial(number: int, scale: float) -> Settings:
        text = (project / "settings.ini").read_text().partition("[model:")[0]
        (project / "settings.ini").write_text(f"{text}[model:{MODEL}]\ndata = shop\nparams.scale = {scale}\n")
        release = "10%" if number % 2 else "champion"
        return with_scale(settings, scale, release=release, retrain="on drift", retrain_after="0d")

    chosen = trial(0, scale)
    to_the_end(chosen)
    whole, killed, number = 0.0, 0, 0
    while killed < TRIALS:  # a retraining that ended before its kill is none of the trials
        number, kills_before = number + 1, kills
        is_worse = number % 3 == 0
        scale -= 0 if is_worse else 0.4 / max(TRIALS, 10)
        chosen = trial(number, 2.5 if is_worse else scale)
        drifts(chosen, number)
        for _ in range(lots.choice((1, 2)) if whole else 0):
            pid = in_process(lambda chosen=chosen: to_the_end(chosen))
            time.sleep(lots.uniform(0, whole))
            os.kill(pid, signal.SIGKILL)
            kills += was_killed(pid)
        begun = time.monotonic()
        both = [in_process(lambda chosen=chosen: to_the_end(chosen)) for _ in range(2)]
        assert [was_killed(pid) for pid in both] == [False, False]
        if kills == kills_before:
            whole = time.monotonic() - begun
        last = check_record(chosen, "refused" if is_worse else "promoted")
        assert f"column {number} " in last.reason and last.cause.startswith(f"drift:column {number}:")
        assert len(retraining_history(Ledger.of(chosen), MODEL, 1000)) == number + 1
        assert not marked(str(last.run_id)), "no process is left"
        killed += kills > kills_before
        assert number < 3 * TRIALS + 3, "they end before they are killed"
    lost = sum(run.status == "lost" for run in latest_runs(Ledger.of(chosen), 1000, MODEL))
    print(f"\nmeasured: {killed} retrainings, {kills} kills, {lost} training runs lost, {number} retrainings in all")


def test_a_name_that_no_model_has_is_refused(settings: Settings) -> None:
    with pytest.raises(UsageError, match="no model has a contract named 'nothing'"):
        retrain("nothing", settings, dry_run=True)
