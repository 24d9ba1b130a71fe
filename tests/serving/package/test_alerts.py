"""Prometheus itself judges the alert rules on series that a service, or its absence, would leave behind."""

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from d2c_mlops.serving.deploy import DeployPlan, ReplicaSize
from d2c_mlops.serving.deploy.alerts import alert_rules

PLAN = DeployPlan("mean_units", 3, "mean_units:v3", ReplicaSize(), heartbeats=("scheduler", "monitor"))
OWN = 'model="mean_units",version="3"'
WEEK = 7 * 24 * 6  # tens of minutes
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")


def answers(path: str, status: int, values: str) -> dict[str, str]:
    return {"series": f'd2c_requests_total{{{OWN},path="{path}",status="{status}"}}', "values": values}


def took(path: str, within: str, values: str) -> dict[str, str]:
    return {"series": f'd2c_request_seconds_bucket{{{OWN},path="{path}",le="{within}"}}', "values": values}


def beats(labels: str, values: str) -> dict[str, str]:
    """The Unix times that node_exporter reads from a text file, a value a minute; the test begins at 0."""
    return {"series": f"d2c_heartbeat_timestamp_seconds{{{labels}}}", "values": values}


SCHEDULER, MONITOR = 'part="scheduler",instance="node:9100"', 'part="monitor",model="mean_units"'
CASES = {
    "the scheduler beats each minute": ([beats(SCHEDULER, "0+60x60")], "D2CSchedulerSilent", 60, False),
    "the scheduler stopped half an hour ago": ([beats(SCHEDULER, "0+60x30 1800x30")], "D2CSchedulerSilent", 60, True),
    "no text file of the scheduler is read": ([answers("/predict", 200, "0+1x60")], "D2CSchedulerSilent", 60, True),
    "a second scheduler took over": (
        [beats(SCHEDULER, "0x60"), beats('part="scheduler",instance="b:9100"', "0+60x60")],
        "D2CSchedulerSilent", 60, False),
    "the monitor ran an hour ago": ([beats(MONITOR, "0x60")], "D2CMonitorSilent", 60, False),
    "the monitor ran two days ago": ([beats(MONITOR, "0x2880")], "D2CMonitorSilent", 2880, True),
    "only another model is monitored": (
        [beats('part="monitor",model="other"', "0+60x60")], "D2CMonitorSilent", 60, True),
    "a clean rolling update": (
        [answers("/predict", 200, "0+600x60"), answers("/readyz", 503, "0+30x60")], "D2CFailing", 20, False),
    "one answer in fifty fails": (
        [answers("/predict", 200, "0+600x60"), answers("/predict", 500, "0+12x60")], "D2CFailing", 20, True),
    "feedback fails": (
        [answers("/predict", 200, "0+6x60"), answers("/feedback", 500, "0+6x60")], "D2CFailing", 20, True),
    "slow answers among many quick probes": (
        [took("/predict", "0.5", "0x60"), took("/predict", "2.5", "0+2x60"), took("/predict", "+Inf", "0+2x60"),
         *(took("/readyz", within, "0+500x60") for within in ("0.5", "2.5", "+Inf"))], "D2CSlow", 20, True),
    "quick answers and slow probes": (
        [*(took("/predict", within, "0+500x60") for within in ("0.5", "2.5", "+Inf")),
         took("/readyz", "0.5", "0x60"), took("/readyz", "2.5", "0+50x60"), took("/readyz", "+Inf", "0+50x60")],
        "D2CSlow", 20, False),
    "nobody calls since a restart": (
        [answers("/predict", 200, f"0+600x{WEEK - 6}"), answers("/readyz", 200, f"0+10x{WEEK + 12}")],
        "D2CQuiet", 10 * (WEEK + 6), True),
    "as many calls as a week ago": (
        [answers("/predict", 200, f"0+600x{WEEK + 12}")], "D2CQuiet", 10 * (WEEK + 6), False),
    "nobody called a week ago either": (
        [answers("/readyz", 200, f"0+10x{WEEK + 12}")], "D2CQuiet", 10 * (WEEK + 6), False),
    "the service is dead, the desk lives": (
        [{"series": 'd2c_desk_requests_total{model="mean_units",path="/d/ID/approve",status="200"}', "values": "1+1x60"},
         {"series": 'd2c_desk_refused_total{model="mean_units",reason="no key"}', "values": "1+90x60"}],
        "D2CAway", 30, True),
    "no metric is in breach": (
        [{"series": 'd2c_health_breach{model="mean_units",metric="drift"}', "values": "0x60"}], "D2CBreach", 30, False),
    "another model is in breach": (
        [{"series": 'd2c_health_breach{model="other",metric="drift"}', "values": "1x60"}], "D2CBreach", 30, False),
    "the metrics of a look are fresh": (
        [{"series": 'd2c_health_timestamp_seconds{model="mean_units"}', "values": "0+60x60"}], "D2CHealthStale", 60, False),
    "the metrics of a look are two days old": (
        [{"series": 'd2c_health_timestamp_seconds{model="mean_units"}', "values": "0x2880"}], "D2CHealthStale", 2880, True),
    "a service that only probes ask": ([answers("/readyz", 200, "0+1x60")], "D2CAway", 30, False),
}  # fmt: skip


@needs_promtool
@pytest.mark.parametrize("case", CASES)
def test_prometheus_wakes_people_when_it_should_and_only_then(case: str, tmp_path: Path) -> None:
    series, name, minute, fires = CASES[case]
    judge_by_promtool(series, name, minute, [{}] if fires else [], tmp_path)


@needs_promtool
def test_each_metric_in_breach_is_an_alert_of_its_own(tmp_path: Path) -> None:
    series = [
        {"series": f'd2c_health_breach{{model="mean_units",metric="{metric}"}}', "values": values}
        for metric, values in (("drift", "0x10 1x50"), ("accuracy", "1x60"), ("latency", "0x60"))
    ]
    judge_by_promtool(series, "D2CBreach", 30, [{"metric": "accuracy"}, {"metric": "drift"}], tmp_path)


def judge_by_promtool(
    series: list[dict[str, str]], name: str, minute: int, fired: list[dict[str, str]], tmp_path: Path
) -> None:
    """Let promtool judge which alerts of a rule fire; `fired` are the labels that they have beside the rule's."""
    written = alert_rules(PLAN)
    (alert,) = [each for group in written["groups"] for each in group["rules"] if each["alert"] == name]
    expected = [{"exp_labels": alert["labels"] | more, "exp_annotations": alert["annotations"]} for more in fired]
    (tmp_path / "alerts.yaml").write_text(yaml.safe_dump(written))
    step = "10m" if minute > WEEK else "1m"
    test = {"interval": step, "input_series": series,
            "alert_rule_test": [{"eval_time": f"{minute}m", "alertname": name, "exp_alerts": expected}]}  # fmt: skip
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump({"rule_files": ["alerts.yaml"], "evaluation_interval": step, "tests": [test]}))
    done = subprocess.run(["promtool", "test", "rules", file], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_projects_without_a_schedule_have_no_rules_about_heartbeats() -> None:
    def names(heartbeats: tuple[str, ...]) -> set[str]:
        plan = DeployPlan("mean_units", 3, "mean_units:v3", ReplicaSize(), heartbeats=heartbeats)
        return {rule["alert"] for group in alert_rules(plan)["groups"] for rule in group["rules"]}

    assert names(("scheduler", "monitor")) - names(()) == {
        "D2CSchedulerSilent",
        "D2CMonitorSilent",
        "D2CBreach",
        "D2CHealthStale",
    }
    assert names(("scheduler",)) - names(()) == {"D2CSchedulerSilent"}
