"""The jobs that [model:NAME] cycle stands for."""

from pathlib import Path

import pytest

from d2c_mlops.errors import SettingsError
from d2c_mlops.settings import JobSettings, load_settings
from d2c_mlops.settings.cycles import RUNBOOKS, STEPS

WEEKLY = "[model:demand]\ndata = shop\ncycle = weekly on Monday 05:00\n"
SOURCE = "[data:shop]\nsource = secret:URL\ncolumn = ordered_at\nzone = Europe/Berlin\n"
PRESENT = [step for step in STEPS if step not in ("retrain", "package") and (RUNBOOKS / f"{step}.ipynb").exists()]


def jobs(folder: Path, text: str) -> dict[str, JobSettings]:
    (folder / "settings.ini").write_text(f"[d2c]\n{text}")
    return dict(load_settings(folder, environ={}).jobs)


def test_a_cycle_is_a_job_for_each_step_in_its_order(tmp_path: Path) -> None:
    listed = jobs(tmp_path, SOURCE + WEEKLY)
    assert list(listed) == [f"demand.{step}" for step in PRESENT] and len(listed) >= 5
    assert {(job.at, job.zone) for job in listed.values()} == {("weekly on Monday 05:00", "Europe/Berlin")}
    assert listed["demand.source"].params == {"source": "secret:URL", "column": "ordered_at", "name": "shop"}
    assert listed["demand.train"].after == ("demand.source",)
    assert listed["demand.promote"].after == ("demand.train",)
    score = listed["demand.score"]
    assert (score.after, score.after_end) == (("demand.source",), ("demand.promote",)), "also if the training failed"
    assert all(0 < job.timeout <= 4 * 3600 and 1 <= job.retries <= 3 for job in listed.values())


def test_a_section_of_a_step_replaces_what_the_cycle_says(tmp_path: Path) -> None:
    own = "[schedule:demand.train]\ntimeout = 99\nparams.as_of = 2026-01-01\n[schedule:demand.score]\nat = daily at 06:00\n"
    listed = jobs(tmp_path, own + SOURCE + WEEKLY)
    assert list(listed) == [f"demand.{step}" for step in PRESENT]
    train = listed["demand.train"]
    assert (train.timeout, train.run, train.after) == (99, "train", ("demand.source",))
    assert train.params == {"model": "demand", "as_of": "2026-01-01"}
    assert listed["demand.score"].at == "daily at 06:00"


def test_a_source_job_of_the_dataset_is_used_instead_of_another(tmp_path: Path) -> None:
    own = "[schedule:orders]\nrun = source\nat = daily at 04:00\nparams.source = exports\nparams.name = shop\n"
    listed = jobs(tmp_path, own + SOURCE + WEEKLY)
    assert "demand.source" not in listed
    assert listed["demand.train"].after == listed["demand.score"].after == ("orders",)


def test_a_model_without_a_source_trains_on_what_is_there(tmp_path: Path) -> None:
    listed = jobs(tmp_path, WEEKLY)
    assert "demand.source" not in listed and listed["demand.train"].after == ()
    assert listed["demand.score"].after == () and listed["demand.score"].after_end == ("demand.promote",)


def test_a_bento_is_built_at_the_end_where_the_model_asks_for_it(tmp_path: Path) -> None:
    listed = jobs(tmp_path, SOURCE + WEEKLY + "cycle_steps = source train promote package monitor\n")
    assert list(listed)[-1] == "demand.package"
    assert listed["demand.package"].after_end == ("demand.monitor",)
    assert listed["demand.package"].params == {"model": "demand"}


def test_steps_that_are_left_out_are_not_waited_for(tmp_path: Path) -> None:
    listed = jobs(tmp_path, SOURCE + WEEKLY + "cycle_steps = source train score\n")
    assert list(listed) == ["demand.source", "demand.train", "demand.score"]
    assert listed["demand.score"].after_end == ("demand.train",)
    only = jobs(tmp_path, WEEKLY + "cycle_steps = score\nsink = forecasts/{as_of}.parquet\n")
    assert only["demand.score"].after_end == () == only["demand.score"].after
    assert only["demand.score"].params["sink"] == "forecasts/{as_of}.parquet"


def test_a_policy_of_retraining_takes_the_place_of_training_at_each_slot(tmp_path: Path) -> None:
    listed = jobs(tmp_path, SOURCE + WEEKLY + "retrain = every 28 days or on drift\n")
    assert list(listed) == [f"demand.{step}" for step in ("source", "score", "collect", "monitor", "retrain")]
    retrain = listed["demand.retrain"]
    assert (retrain.run, dict(retrain.params), retrain.after_end) == (
        "retrain",
        {"model": "demand"},
        ("demand.monitor",),
    )
    assert listed["demand.score"].after == ("demand.source",) and listed["demand.score"].after_end == ()
    never = jobs(tmp_path, SOURCE + WEEKLY + "retrain = Never\n")
    assert list(never) == [f"demand.{step}" for step in ("source", "promote", "score", "collect", "monitor")]
    chosen = jobs(tmp_path, WEEKLY + "retrain = weekly\ncycle_steps = train, promote\n")
    assert list(chosen) == ["demand.train", "demand.promote"]


def test_two_models_have_a_cycle_each_and_others_none(tmp_path: Path) -> None:
    listed = jobs(tmp_path, WEEKLY + "[model:price]\ncycle = daily at 03:00\n[model:leads]\ndata = crm\n")
    assert {name.split(".")[0] for name in listed} == {"demand", "price"}
    assert listed["price.train"].params == {"model": "price"}


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("cycle_steps = trian score", "'trian' is not a step of a cycle; did you mean 'train'"),
        ("cycle_steps = source train", "needs [data:NAME] source"),
        ("release = 0%", "is not a release"),
        ("release = most", "is not a release"),
        ("release = 101 %", "is not a release"),
        ("release_after = soon", "is not an age"),
        ("retrain_after = soon", "is not an age"),
        ("retrain = weekyl", "did you mean 'weekly'"),
        ("retrain = weekly or default", "is not a reason to retrain"),
    ],
)
def test_what_a_cycle_cannot_do_is_refused_with_its_place(tmp_path: Path, line: str, reason: str) -> None:
    with pytest.raises(SettingsError) as caught:
        jobs(tmp_path, WEEKLY + line + "\n")
    (failure,) = caught.value.failures
    assert reason in failure.what and failure.where == f"[model:demand] {line.split()[0]}"


def test_a_section_named_like_a_step_of_no_cycle_is_a_job_of_its_own(tmp_path: Path) -> None:
    listed = jobs(tmp_path, "[schedule:demand.report]\nrun = nb.ipynb\nat = hourly\n" + WEEKLY)
    assert listed["demand.report"].run == "nb.ipynb"
    with pytest.raises(SettingsError, match=r"\[schedule:demand.train\] run: is needed"):
        jobs(tmp_path, "[schedule:demand.train]\nat = hourly\n")
