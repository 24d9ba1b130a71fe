"""Jobs of a cycle in the scheduler and in the files for other schedulers."""

import ast
import json
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.errors import NotebookFailed
from d2c_mlops.runs.execution import slot_rows
from d2c_mlops.settings import load_settings
from support.scheduling import NOW, SLOT, Clock, finish, scheduler

CYCLE = "cycle = daily at 06:00\ncycle_steps = train promote score collect\n[data:shop]\nzone = Europe/Berlin\n"


@pytest.fixture
def cycle(project: Path):
    with (project / "settings.ini").open("a") as file:
        file.write(CYCLE)
    return load_settings(project, environ={})


def run_to_the_end(settings, clock: Clock | None = None):
    clock = clock or Clock()
    made = scheduler(settings, clock)
    for _ in range(30):
        made.poll()
        finish(made)
        clock.now += timedelta(minutes=11)
    return {name: slot_rows.find_slot(made.ledger, name, SLOT).status for name in made.jobs}


def test_the_steps_run_one_after_another(cycle, quick: list) -> None:
    assert set(run_to_the_end(cycle).values()) == {"succeeded"}


def test_the_champion_predicts_although_the_training_failed(cycle, quick: list) -> None:
    quick += [NotebookFailed("too little data")]
    statuses = run_to_the_end(cycle)
    assert statuses.pop("mean_units.train") == "failed" and statuses.pop("mean_units.promote") in ("waiting", "skipped")
    assert set(statuses.values()) == {"succeeded"}, statuses


def test_a_step_waits_for_the_end_of_one_that_runs_or_is_still_to_come(cycle, quick: list) -> None:
    made = scheduler(cycle, Clock())
    from d2c_mlops.runs.schedule.dependencies import unmet_dependency

    slot_rows.add_slots(made.ledger, "mean_units.score", {SLOT: ("waiting", "due")}, NOW)
    score = slot_rows.find_slot(made.ledger, "mean_units.score", SLOT)
    assert "not on record yet" in unmet_dependency(made.jobs, made.ledger, score)[1]
    slot_rows.pause_job(made.ledger, "mean_units.promote", True, NOW)
    assert unmet_dependency(made.jobs, made.ledger, score) is None, "a paused job has no slot to come"
    slot_rows.pause_job(made.ledger, "mean_units.promote", False, NOW)
    slot_rows.add_slots(made.ledger, "mean_units.promote", {SLOT: ("waiting", "due")}, NOW)
    assert "is waiting" in unmet_dependency(made.jobs, made.ledger, score)[1]
    promote = slot_rows.find_slot(made.ledger, "mean_units.promote", SLOT)
    slot_rows.close_slot(made.ledger, promote, "failed", "test", NOW)
    assert unmet_dependency(made.jobs, made.ledger, score) is None


def called(*arguments: str):
    done = CliRunner().invoke(main, list(arguments))
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


def test_schedule_list_shows_the_jobs_of_a_cycle(cycle) -> None:
    rows = called("schedule", "list", "--json")
    assert [(row["job"], row["run"]) for row in rows] == [
        (f"mean_units.{step}", step) for step in ("train", "promote", "score", "collect")
    ]
    assert called("schedule", "trigger", "mean_units.train", "--json")["slots"]


def test_other_schedulers_get_the_jobs_of_a_cycle_under_names_that_they_allow(cycle) -> None:
    def files(target: str) -> dict[str, str]:
        written = called("schedule", "export", "--to", target, "--json")
        return {Path(name).name: Path(name).read_text() for name in written}

    (dags,) = files("airflow").values()
    ast.parse(dags)
    assert dags.count("PythonOperator(\n        task_id=") == 4
    assert "    mean_units__promote >> mean_units__score\n" in dags and "trigger_rule='all_done'" in dags
    assert "\"job\": 'mean_units.score'" in dags
    manifests = [yaml.safe_load(text) for text in files("kubernetes").values()]
    names = {manifest["metadata"]["name"] for manifest in manifests}
    assert "d2c-mean-units--train" in names and len(names) == 4
    (workflow,) = [yaml.safe_load(text) for text in files("github-actions").values()]
    jobs = workflow["jobs"]
    assert jobs["mean_units__score"]["needs"] == ["mean_units__promote"] and "if" in jobs["mean_units__score"]
    assert "d2c run mean_units.score --slot due" in jobs["mean_units__score"]["steps"][-1]["run"]
    (crontab,) = files("cron").values()
    assert crontab.count(" run mean_units.") == 4
    assert "After=d2c-mean_units.promote.service" in files("systemd")["d2c-mean_units.score.service"]


def test_a_dependency_that_does_not_exist_is_refused(project: Path) -> None:
    with (project / "settings.ini").open("a") as file:
        file.write("[schedule:a]\nrun = train\nat = hourly\nafter_end = b\n")
    done = CliRunner().invoke(main, ["schedule", "list"])
    assert done.exit_code == 2 and "there is no job 'b'" in done.output


def test_the_list_of_jobs_says_when_a_model_is_retrained(project: Path) -> None:
    policy = "retrain = every 28 days or on drift\nretrain_after = 3 days\nrelease = 10%\n"
    with (project / "settings.ini").open("a") as file:
        file.write(f"cycle = daily at 06:00\n{policy}")
    listed = CliRunner().invoke(main, ["schedule", "list"])
    note = "retrains mean_units every 28 days or on drift, at most every 3 days, then release = 10%"
    assert listed.exit_code == 0 and f"mean_units.retrain: {note}" in listed.output
    assert "mean_units.train" not in listed.output
