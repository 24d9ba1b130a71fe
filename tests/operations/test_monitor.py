"""A look at a live model: what can be judged is judged, what cannot is never called ok, and a breach is one alert."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from sqlalchemy import insert, select

from d2c_mlops.cli import main
from d2c_mlops.errors import D2CError, UsageError
from d2c_mlops.ledger.schema import acknowledged_changes, alerts, feedback, predictions, promotions, runs
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.monitoring.reference import REFERENCE_FILE, read_reference
from d2c_mlops.monitoring.vital_signs import BREACH, METRICS, NOT_MEASURED, OK, TOO_LITTLE
from d2c_mlops.operations.heartbeat import latest_heartbeats
from d2c_mlops.operations.look import look_at
from d2c_mlops.operations.monitor import ModelHealth, breaches_of, monitor_model
from d2c_mlops.operations.monitor_page import page
from d2c_mlops.registry.versions import load_version, register, version_files
from d2c_mlops.settings import Settings, load_settings
from support.training import SHOP, train

NOW = datetime(2024, 2, 1, 6, tzinfo=UTC)


def live(settings: Settings) -> Ledger:
    """The ledger of a project whose model is champion."""
    train(settings)
    ledger = Ledger.of(settings)
    row = {
        "model": "mean_units",
        "version": 1,
        "previous": None,
        "action": "promote",
        "at": datetime(2023, 12, 31, tzinfo=UTC),
        "by": "Jo",
        "reason": "",
        "gate": [],
    }
    with ledger.write() as connection:
        connection.execute(insert(promotions), [row])
    return ledger


def log(
    ledger: Ledger,
    days: int,
    a_day: int,
    units: float = 3.0,
    truth: float | None = 3.0,
    until: datetime = NOW,
    **more: Any,
) -> None:
    """Write predictions of some days, each with its outcome unless `truth` is None."""
    rng = np.random.default_rng(days + a_day)
    rows, outcomes = [], []
    for day in range(days):
        for number in range(a_day):
            id = f"{units}-{day}-{number}"
            at = until - timedelta(days=day, minutes=5 + number * (1400 // a_day))
            rows.append({"id": id, "model": "mean_units", "version": 1, "contract": "1.0.0", "variant": "champion", "key": f"P{number:03}", "at": at,
                         "inputs": {"product_id": f"P{number:03}", "day": "2024-01-01"}, "outputs": {"units": units}, "reasons": None,
                         "caller": "shop", "request_id": id, "origin": None} | more)  # fmt: skip
            if truth is not None:
                outcomes.append({"id": f"o{id}", "model": "mean_units", "prediction_id": id, "key": None, "at": at + timedelta(minutes=1),
                                 "action": "outcome", "reason": None, "value": truth + rng.normal(0, 0.5), "caller": "shop", "origin": None})  # fmt: skip
    with ledger.write() as connection:
        connection.execute(insert(predictions), rows)
        if outcomes:
            connection.execute(insert(feedback), outcomes)


def signs(health: ModelHealth) -> dict[str, str]:
    return {sign.metric: sign.state for sign in health.signs}


def test_a_model_that_nobody_asked_is_not_called_healthy(settings: Settings) -> None:
    live(settings)
    health = monitor_model("mean_units", settings, now=NOW)
    states = signs(health)
    assert tuple(states) == METRICS
    assert states["accuracy"] == states["throughput"] == TOO_LITTLE
    assert states["latency"] == states["cost"] == NOT_MEASURED
    assert breaches_of(health)[0] == []
    assert ("mean_units", "accuracy") not in breaches_of(health)[1]


def test_a_model_without_a_champion_is_refused_with_the_next_command(settings: Settings) -> None:
    train(settings)
    with pytest.raises(UsageError) as caught:
        monitor_model("mean_units", settings)
    assert "d2c promote mean_units" in caught.value.next


def test_answers_that_are_as_good_as_promised_are_ok_and_worse_ones_a_breach(settings: Settings) -> None:
    ledger = live(settings)
    log(ledger, days=14, a_day=12)
    assert signs(monitor_model("mean_units", settings, now=NOW))["accuracy"] == OK
    log(ledger, days=13, a_day=40, units=30.0)
    worse = monitor_model("mean_units", settings, now=NOW)
    assert signs(worse)["accuracy"] == BREACH
    (breach, *_), _ = breaches_of(worse)
    assert breach.severity == "critical" and "d2c run train -p model=mean_units" in breach.advice
    assert "d2c retrain" not in breach.advice, "without a policy it would do nothing"
    model = replace(settings.model("mean_units"), retrain="every 28 days or on drift")
    by_policy = monitor_model("mean_units", replace(settings, models={"mean_units": model}), now=NOW)
    (breach, *_), _ = breaches_of(by_policy)
    assert breach.advice.endswith("by its policy the next `d2c retrain` trains it again")


@pytest.mark.slow
def test_outcomes_that_nobody_knew_yet_do_not_count(settings: Settings) -> None:
    ledger = live(settings)
    log(ledger, days=14, a_day=12)
    early = monitor_model("mean_units", settings, as_of=date(2024, 1, 20))
    assert signs(early)["accuracy"] == TOO_LITTLE


@pytest.mark.slow
def test_answers_to_probes_do_not_count(settings: Settings) -> None:
    ledger = live(settings)
    log(ledger, days=14, a_day=12, origin="probe")
    assert signs(monitor_model("mean_units", settings, now=NOW))["accuracy"] == TOO_LITTLE


def test_a_service_that_is_asked_less_is_a_breach(settings: Settings) -> None:
    ledger = live(settings)
    log(ledger, days=35, a_day=60, truth=None, until=NOW - timedelta(days=1))
    health = monitor_model("mean_units", settings, now=NOW)
    assert signs(health)["throughput"] == BREACH
    before = monitor_model("mean_units", settings, now=NOW - timedelta(days=1))
    assert signs(before)["throughput"] == OK


@pytest.mark.slow
def test_the_cost_of_runs_is_judged_by_the_budget_of_the_charter(settings: Settings, project: Path) -> None:
    live(settings)
    (project / "settings.ini").write_text(
        (project / "settings.ini").read_text().replace("[d2c]", "[d2c]\ncpu_hour_price = 1")
    )
    priced = load_settings(project, environ={})
    ledger = Ledger.of(priced)
    row = {"id": "r1", "runbook": "train", "model": "mean_units", "notebook": "n", "notebook_sha256": "0", "parameters": {}, "package_version": "1", "inputs": [],
           "status": "succeeded", "started_at": datetime(2024, 1, 4, tzinfo=UTC), "outputs": {}, "recorded": {}, "host": "h", "pid": 1, "pid_started": 0.0, "cost": 9.0}  # fmt: skip
    with ledger.write() as connection:
        connection.execute(insert(runs), [row])
    at = datetime(2024, 1, 10, tzinfo=UTC)
    assert signs(monitor_model("mean_units", priced, now=at))["cost"] == BREACH  # 9 of 10 EUR in ten days
    assert signs(monitor_model("mean_units", priced, now=datetime(2024, 1, 31, tzinfo=UTC)))["cost"] == OK


def test_a_breach_is_one_alert_however_often_somebody_looks(settings: Settings) -> None:
    ledger = live(settings)
    recent = datetime.now(UTC)
    log(ledger, days=14, a_day=40, units=30.0, until=recent)
    for _ in range(2):
        look_at("mean_units", settings)
    with ledger.read() as connection:
        rows = connection.execute(select(alerts)).all()
    assert len(rows) == 1 and rows[0].severity == "critical"
    assert latest_heartbeats(ledger)["monitor:mean_units"].ok


@pytest.mark.slow
def test_a_look_at_the_past_touches_no_alert(settings: Settings) -> None:
    ledger = live(settings)
    log(ledger, days=14, a_day=40, units=30.0)
    health = look_at("mean_units", settings, as_of=date(2024, 1, 31))
    assert signs(health)["accuracy"] == BREACH
    with ledger.read() as connection:
        assert not connection.execute(select(alerts)).all()


def test_the_reference_of_a_version_travels_with_its_files(settings: Settings) -> None:
    model, (tables, as_of) = train(settings), SHOP
    fitted = load_version(model, settings)
    records = fitted.records(tables, as_of)
    version = register("mean_units", fitted, model.score, settings=settings, as_of=as_of, questions=records)
    folder = version_files(version, settings)
    reference = read_reference(folder)
    assert (
        reference is not None
        and list(reference.outputs) == ["units"]
        and reference.outputs["units"].rows == len(records)
    )
    assert "P00" not in (folder / REFERENCE_FILE).read_text()  # no key
    assert read_reference(version_files(model, settings)) is None


def test_the_command_prints_json_and_writes_a_page(settings: Settings, project: Path) -> None:
    ledger = live(settings)
    log(ledger, days=14, a_day=40, units=30.0, until=datetime.now(UTC))
    done = CliRunner().invoke(main, ["monitor", "mean_units", "--json", "--html", "--no-alerts"])
    assert done.exit_code == 0, done.output
    values = json.loads(done.output)
    assert values["state"] == BREACH and [sign["metric"] for sign in values["metrics"]] == list(METRICS)
    html = (project / "d2c_store/monitor/mean_units.html").read_text()
    assert "Something is wrong" in html and "d2c run train -p model=mean_units" in html
    assert "http://" not in html and "https://" not in html and "<script" not in html
    with ledger.read() as connection:
        assert not connection.execute(select(alerts)).all()


@pytest.mark.slow
def test_a_name_in_a_page_cannot_run(settings: Settings) -> None:
    live(settings)
    health = monitor_model("mean_units", settings, now=NOW)
    sign = replace(health.signs[0], message="<script>alert(1)</script>", state=BREACH)
    assert "<script>" not in page(replace(health, signs=(sign,)))


@pytest.mark.slow
def test_only_a_column_that_moved_can_be_acknowledged(settings: Settings) -> None:
    ledger = live(settings)
    done = CliRunner().invoke(main, ["monitor", "mean_units", "--acknowledge", "lines.unit_price"])
    assert done.exit_code == 2 and "not among the columns that moved" in done.output
    with ledger.read() as connection:
        assert not connection.execute(select(acknowledged_changes)).all()


def test_a_day_of_the_future_and_two_things_at_once_are_refused(settings: Settings) -> None:
    for given, what in (
        (["--as-of", "2999-01-01"], "is in the future"),
        (["--html", "--acknowledge", "all"], "give one of them"),
    ):
        done = CliRunner().invoke(main, ["monitor", "mean_units", *given])
        assert done.exit_code == 2 and what in done.output


def test_metrics_that_cannot_be_written_are_said(settings: Settings) -> None:
    live(settings)
    (settings.store / "metrics").write_text("no folder")
    done = CliRunner().invoke(main, ["monitor", "mean_units"])
    assert done.exit_code == 0 and "warning: the metrics of mean_units have no text file" in done.output


def test_the_state_says_how_much_of_it_is_measured(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    live(settings)
    done = CliRunner().invoke(main, ["monitor", "mean_units", "--no-alerts"])
    assert done.exit_code == 0 and "as far as it is measured: " in done.output and " of 7 metrics" in done.output


@pytest.mark.slow
def test_prometheus_that_does_not_answer_is_said(settings: Settings, project: Path) -> None:
    live(settings)
    text = (project / "settings.ini").read_text() + "[monitor]\nprometheus = http://127.0.0.1:9\n"
    (project / "settings.ini").write_text(text)
    health = monitor_model("mean_units", load_settings(project, environ={}), now=NOW)
    (latency,) = [sign for sign in health.signs if sign.metric == "latency"]
    assert latency.state == NOT_MEASURED and "does not answer" in latency.message


def test_a_threshold_of_the_model_overrides_the_general_one(settings: Settings, project: Path) -> None:
    text = (project / "settings.ini").read_text() + "monitor.error = 50\n[monitor]\nerror = 1.1\n"
    (project / "settings.ini").write_text(text)
    config = load_settings(project, environ={})
    assert config.monitor_limits("mean_units").error == 50 and config.monitor_limits("other").error == 1.1
    (project / "settings.ini").write_text(text.replace("monitor.error = 50", "monitor.eror = 50"))
    with pytest.raises(D2CError, match="eror"):
        load_settings(project, environ={})
