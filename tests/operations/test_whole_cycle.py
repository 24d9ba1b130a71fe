"""A whole cycle of a model from one setting, run by the scheduler with real kernels."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from d2c_mlops import verbs
from d2c_mlops.cli import main
from d2c_mlops.data.simulate import shop
from d2c_mlops.data.store import write_dataset
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.operations.retraining.retraining_rows import retraining_history
from d2c_mlops.registry.promotion_history import live_version
from d2c_mlops.runs.execution import slot_rows
from d2c_mlops.runs.execution.run_rows import find_run
from d2c_mlops.runs.schedule.schedule import Scheduler
from d2c_mlops.settings import Settings, load_settings
from support.scheduling import finish


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_one_setting_takes_new_data_to_predictions(settings: Settings, project: Path) -> None:
    exports = project / "exports"
    exports.mkdir()
    for name, table in shop(seed=1).items():
        table.to_csv(exports / f"{name}.csv", index=False)
    text = "cycle = daily at 06:00\ncycle_steps = source train promote score collect monitor package\nsink = forecasts/{as_of}.csv\n[data:shop]\nsource = exports\nquality_ignore = silent_table\n"
    with (project / "settings.ini").open("a") as file:
        file.write(text)
    loaded = load_settings(project, environ={})
    clock = datetime(2024, 1, 2, 6, 0, 30, tzinfo=UTC)
    made = Scheduler(loaded, say=print, clock=lambda: clock)
    slot_rows.known_jobs(made.ledger, made.jobs, clock - timedelta(hours=12))
    slot = clock.replace(second=0)
    for _ in made.jobs:
        made.poll()
        finish(made)
    slots = {name: slot_rows.find_slot(made.ledger, name, slot) for name in made.jobs}
    steps = {name.split(".")[1]: slot for name, slot in slots.items()}
    monitor = steps.pop("monitor", None)
    assert {step: slot.status for step, slot in steps.items()} == dict.fromkeys(steps, "succeeded"), monitor
    recorded = {step: find_run(made.ledger, slot.run_id).recorded for step, slot in steps.items()}
    assert recorded["promote"]["action"] == "promoted"
    assert recorded["package"]["built"] is True and recorded["package"]["bento"].startswith("mean_units")
    again = verbs.run("package", model="mean_units", settings=loaded)
    assert again.recorded["built"] is False and again.recorded["version"] == recorded["package"]["version"] == 1
    assert again.recorded["sha256"] == recorded["package"]["sha256"]
    assert live_version(Ledger.of(loaded), "mean_units").version == recorded["train"]["version"] == 1
    (written,) = (project / "forecasts").glob("*.csv")
    assert written.name == "2024-01-01.csv" and len(pd.read_csv(written)) == recorded["score"]["records"] > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cycle_with_a_policy_trains_the_first_version_and_predicts_with_it_from_then_on(
    settings: Settings, project: Path
) -> None:
    text = "cycle = daily at 06:00\nretrain = weekly\nsink = forecasts/{as_of}.csv\n[data:shop]\nquality_ignore = silent_table\n"
    with (project / "settings.ini").open("a") as file:
        file.write(text)
    loaded = load_settings(project, environ={})
    write_dataset(
        loaded.store, "shop", dict(shop(seed=1)), source="simulated", layout="canonical", created_at=datetime.now(UTC)
    )
    clock = [datetime(2024, 1, 2, 6, 0, 30, tzinfo=UTC)]
    scheduler = Scheduler(loaded, say=print, clock=lambda: clock[0])
    slot_rows.known_jobs(scheduler.ledger, scheduler.jobs, clock[0] - timedelta(hours=12))
    statuses = []
    for _ in range(2):
        slot = clock[0].replace(second=0)
        for _ in scheduler.jobs:
            scheduler.poll()
            finish(scheduler)
        slots = {name.split(".")[1]: slot_rows.find_slot(scheduler.ledger, name, slot) for name in scheduler.jobs}
        statuses.append({step: slot.status for step, slot in slots.items()})
        clock[0] += timedelta(days=1)
    assert list(statuses[0]) == ["score", "collect", "monitor", "retrain"]
    assert (statuses[0]["score"], statuses[0]["retrain"]) == ("failed", "succeeded"), "there was no champion yet"
    assert statuses[1]["score"] == statuses[1]["retrain"] == "succeeded"
    assert [row.result for row in retraining_history(scheduler.ledger, "mean_units")] == ["promoted"]
    assert (project / "forecasts" / "2024-01-02.csv").exists()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_prune_and_collect_run_as_jobs_of_their_own(settings: Settings, project: Path) -> None:
    for notebook, parameter in (("collect", ()), ("prune", ("-p", "older_than=1d"))):
        done = CliRunner().invoke(main, ["run", notebook, *parameter, "--json"])
        assert done.exit_code == 0, done.output
        assert json.loads(done.output)["status"] == "succeeded"
