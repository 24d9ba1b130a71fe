import ast
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import yaml
from click.testing import CliRunner
from cronsim import CronSim
from hypothesis import example, given, settings
from hypothesis import strategies as st

from d2c_mlops.cli import main
from d2c_mlops.runs.exports import targets
from d2c_mlops.runs.exports.start_times import cron_expression
from d2c_mlops.runs.schedule.cadence import Cadence, parse_cadence
from support.notebooks import PARAMETERS, write

NOW = datetime(2026, 11, 24, tzinfo=UTC)
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Pacific/Auckland")
JOBS = """
[schedule:train]
run = nb.ipynb
at = weekly on Monday 02:30
zone = Europe/Berlin
retries = 3
backoff = 30
timeout = 600
[schedule:score_all]
run = nb.ipynb
at = weekly on Monday 02:30
zone = Europe/Berlin
after = train
missed = skip
[schedule:month_end]
run = nb.ipynb
at = monthly on the last day 23:30
zone = America/New_York
missed = all
after = score_all
priority = 5
[schedule:quick]
run = nb.ipynb
at = every 15 minutes
"""


@pytest.fixture
def jobs(project: Path) -> Path:
    write(project / "nb.ipynb", PARAMETERS)
    with (project / "settings.ini").open("a") as file:
        file.write(JOBS)
    return project


def export(target: str, *more: str) -> dict[str, str]:
    done = CliRunner().invoke(main, ["schedule", "export", "--to", target, "--json", *more])
    assert done.exit_code == 0, done.output
    return {Path(name).name: Path(name).read_text() for name in json.loads(done.output)}


def matches(cron: str, local: datetime) -> bool:
    """Whether a clock that shows `local` wakes a job."""
    return next(CronSim(cron, local - timedelta(seconds=1))) == local


field = {
    "minute": st.sampled_from(["0", "5", "30", "59", "*/15", "0,45"]),
    "hour": st.sampled_from(["*", "0", "1", "2", "3", "6", "23", "*/6", "8-10", "2,14"]),
    "date": st.sampled_from(["*", "1", "13", "28", "30", "L", "1,15"]),
    "month": st.sampled_from(["*", "3", "10,11", "2,4"]),
    "day": st.sampled_from(["*", "0", "1", "5", "1-5", "6,0"]),
}


@settings(max_examples=40)
@given(st.tuples(*field.values()).map(" ".join), st.sampled_from(ZONES), st.sampled_from(ZONES))
@example("30 2 * * *", "Europe/Berlin", "Europe/Berlin")
@example("30 23 L * *", "America/New_York", "UTC")
@example("30 23 * 3 *", "America/New_York", "UTC")
@example("30 * * * *", "Australia/Lord_Howe", "UTC")
def test_no_slot_is_without_a_wake_up(cron: str, zone: str, there: str) -> None:
    cadence = Cadence(cron, ZoneInfo(zone))
    woken = cron_expression(cadence, ZoneInfo(there), NOW)
    months = (
        datetime(2027, m, d, tzinfo=UTC) for m, d in ((2, 27), (3, 13), (3, 27), (4, 3), (9, 25), (10, 30), (11, 6))
    )
    for begin in months:
        for slot in cadence.slots(begin, begin + timedelta(days=3)):
            local = slot.astimezone(ZoneInfo(there)).replace(tzinfo=None)
            assert matches(woken, local), (slot, local, woken)


def test_a_cadence_that_a_target_understands_is_left_as_it_is() -> None:
    for cron in ("0 6 * * 1", "*/15 * * * *", "15 6,18 13 * 5"):
        assert cron_expression(Cadence(cron, ZoneInfo("Europe/Berlin")), ZoneInfo("Europe/Berlin"), NOW) == cron


@pytest.mark.parametrize(
    "text", ["every 90 minutes", "every 45 minutes", "0 */2 * * *", "0 0 LW * *", "0 6 * * 5L", "*/30 2 * * *"]
)
@pytest.mark.parametrize("there", ["UTC", "America/New_York"])
def test_counted_minutes_and_last_weekdays_have_their_wake_ups(text: str, there: str) -> None:
    own = parse_cadence(text, "America/New_York")
    woken = cron_expression(own, ZoneInfo(there), NOW)
    for begin in (
        datetime(2027, 3, 13, tzinfo=UTC),
        datetime(2027, 11, 6, tzinfo=UTC),
        datetime(2027, 1, 28, tzinfo=UTC),
    ):
        found = list(own.slots(begin, begin + timedelta(days=3)))
        for slot in found:
            local = slot.astimezone(ZoneInfo(there)).replace(tzinfo=None)
            assert matches(woken, local), (slot, local, woken)


COUNTED = """
[schedule:ninety]
run = nb.ipynb
at = every 90 minutes
zone = America/New_York
[schedule:odd_mondays]
run = nb.ipynb
at = 0 6 */2 * 1
[schedule:friday]
run = nb.ipynb
at = 0 6 * * L5
"""


def test_what_no_single_expression_says_wakes_more_often_and_asks_the_ledger(project: Path) -> None:
    write(project / "nb.ipynb", PARAMETERS)
    with (project / "settings.ini").open("a") as file:
        file.write(COUNTED)
    (dags,) = export("airflow").values()
    assert re.findall(r"CronTriggerTimetable\('(.*?)'", dags) == [
        "0,30 * * * *",
        "0 6 1,3,5,7,9,11,13,15,17,19,21,23,25,27,29,31 * 1",
        "0 6 * * 5",
    ]
    assert re.findall(r'"slot": \'(\w+)\'', dags) == ["due", "due", "due"]
    (crontab,) = export("cron").values()
    assert next(line.split(" cd ")[0] for line in crontab.splitlines() if line.endswith("--stay")) == "0,30 * * * *"
    kubernetes = {name: yaml.safe_load(text)["spec"]["schedule"] for name, text in export("kubernetes").items()}
    assert kubernetes["d2c-ninety.yaml"] == "0,30 0,1,3,4,6,7,9,10,12,13,15,16,18,19,21,22 * * *"
    timer = export("systemd")["d2c-ninety.timer"]
    assert re.search(r"OnCalendar=\*-\*-\* [\d,]+:00,30:00 UTC\n", timer)
    github = yaml.safe_load(export("github-actions")["d2c-ninety.yml"])
    assert github["on"]["schedule"][0]["cron"].startswith("0,30 ")


def test_a_timer_of_every_hour_is_woken_by_utc_and_one_of_an_hour_by_its_zone(project: Path) -> None:
    write(project / "nb.ipynb", PARAMETERS)
    with (project / "settings.ini").open("a") as file:
        file.write("[schedule:h]\nrun = nb.ipynb\nat = hourly at :20\nzone = Asia/Kolkata\n")
        file.write("[schedule:d]\nrun = nb.ipynb\nat = daily at 06:20\nzone = Asia/Kolkata\n")
    made = export("systemd")
    assert "OnCalendar=*-*-* *:50:00 UTC\n" in made["d2c-h.timer"]
    assert "OnCalendar=*-*-* 06:20:00 Asia/Kolkata\n" in made["d2c-d.timer"]


def test_kubernetes_retries_what_is_temporary_only(jobs: Path) -> None:
    made = {name: yaml.safe_load(text) for name, text in export("kubernetes", "--image", "shop:1").items()}
    assert sorted(made) == ["d2c-month-end.yaml", "d2c-quick.yaml", "d2c-score-all.yaml", "d2c-train.yaml"]
    spec = made["d2c-train.yaml"]["spec"]
    assert (spec["schedule"], spec["timeZone"], spec["concurrencyPolicy"]) == (
        "0,30 2,3 * * 1",
        "Europe/Berlin",
        "Forbid",
    )
    job = spec["jobTemplate"]["spec"]
    rule = job["podFailurePolicy"]["rules"][-1]
    assert job["backoffLimit"] == 3 and rule["action"] == "FailJob" and 75 not in rule["onExitCodes"]["values"]
    assert job["activeDeadlineSeconds"] > 4 * 600 + 30 + 60 + 120
    pod = job["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["containers"][0]["command"] == ["d2c", "run", "train", "--slot", "due"]
    deadlines = {name: each["spec"]["startingDeadlineSeconds"] for name, each in made.items()}
    assert deadlines["d2c-score-all.yaml"] < deadlines["d2c-train.yaml"]


def test_airflow_gets_a_dag_per_group_with_its_edges(jobs: Path) -> None:
    (text,) = export("airflow").values()
    ast.parse(text)
    assert re.findall(r"dag_id='(\w+)'", text) == ["d2c_score_all", "d2c_month_end", "d2c_quick"]
    assert "    train >> score_all\n" in text and "month_end\n" not in text.replace("month_end = ", "").split(">>")[-1]
    assert re.findall(r"catchup=(\w+)", text) == ["False", "True", "False"]
    assert "CronTriggerTimetable('30 23 L * *', timezone='America/New_York')" in text
    assert "retries=3,\n        retry_delay=timedelta(seconds=30)" in text and "priority_weight=6" in text


def test_systemd_gets_zones_order_and_limits(jobs: Path) -> None:
    made = export("systemd")
    assert "OnCalendar=Mon *-*-* 02,03:00,30:00 Europe/Berlin\n" in made["d2c-train.timer"]
    assert "Persistent=no" in made["d2c-score_all.timer"] and "Persistent=yes" in made["d2c-train.timer"]
    assert "After=d2c-train.service" in made["d2c-score_all.service"]
    service = made["d2c-train.service"]
    assert "StartLimitBurst=4" in service and "RestartPreventExitStatus=1 2 3 4 5\n" in service
    assert re.search(r"ExecStart=/\S+/d2c run train --slot due\n", service)


def test_github_wakes_at_both_offsets_and_keeps_the_order(jobs: Path) -> None:
    made = {name: yaml.safe_load(text) for name, text in export("github-actions").items()}
    flow = made["d2c-score_all.yml"]
    assert flow["on"]["schedule"] == [{"cron": "0,30 0,1 * * 1"}] and not flow["concurrency"]["cancel-in-progress"]
    assert list(flow["jobs"]) == ["train", "score_all"] and flow["jobs"]["score_all"]["needs"] == ["train"]
    assert flow["jobs"]["train"]["steps"][-1]["run"] == "d2c run train --slot due --stay"
    assert made["d2c-month_end.yml"]["on"]["schedule"] == [{"cron": "30 3,4 1,29,30,31 * *"}]


def test_cron_wakes_each_hour_and_leaves_the_rest_to_the_ledger(jobs: Path) -> None:
    (text,) = export("cron", "--command", "/opt/d2c").values()
    lines = [line for line in text.splitlines() if line.endswith("--stay")]
    assert len(lines) == 4 and lines[0].startswith("30 * * * * cd ")
    assert lines[3].startswith("0,15,30,45 * * * * ") and "/opt/d2c run quick --slot due --stay" in lines[3]


def test_every_target_says_what_it_leaves_to_the_ledger(jobs: Path) -> None:
    assert list(targets()) == ["airflow", "cron", "github-actions", "kubernetes", "systemd"]
    for target in targets():
        for text in export(target).values():
            assert text.startswith("# Written by `d2c schedule export`") and "--slot" in text


def test_an_export_replaces_its_own_files_and_no_others(jobs: Path) -> None:
    export("cron", "--out", "made")
    export("cron", "--out", "made")
    (jobs / "made/crontab").write_text("0 0 * * * mine\n")
    for args, said in (
        (["--to", "cron", "--out", "made"], "not written by an export"),
        (["--to", "luigi"], "airflow, cron, github-actions"),
        (["nope", "--to", "cron"], "there is no job 'nope'"),
    ):
        done = CliRunner().invoke(main, ["schedule", "export", *args])
        assert done.exit_code == 2 and said in done.output
    assert (jobs / "made/crontab").read_text() == "0 0 * * * mine\n"
