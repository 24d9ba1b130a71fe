"""`d2c alerts` and its commands."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

import d2c_mlops as d2c
from d2c_mlops.cli import main
from d2c_mlops.errors import UsageError
from d2c_mlops.operations.alerts import observe_breaches
from d2c_mlops.operations.heartbeat import heartbeat
from support.alert_channels import BREACH, JUDGED, WebHook, alert_project


def called(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def project_with_alert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    hook = WebHook()
    settings, ledger = alert_project(tmp_path, f"notify = {hook.url}\nzone = Europe/Berlin", "[model:demand]\n")
    monkeypatch.chdir(tmp_path)
    (change,) = observe_breaches(ledger, settings, [BREACH], JUDGED)
    yield change.alert.id, hook, ledger, settings
    hook.stop()


def test_alerts_are_listed_shown_taken_on_snoozed_and_closed(project_with_alert) -> None:
    id, hook, *_ = project_with_alert
    assert id in called("alerts") and id in called("alerts", "demand") and id not in called("alerts", "price")
    assert json.loads(called("alerts", "--json"))[0]["signals"][0]["metric"] == "drift"
    assert json.loads(called("alerts", "deliver", "--json")) == {"sent": 1, "retried_later": 0, "given_up": 0}
    assert "acknowledged by jo" in called("alerts", "ack", id[:5], "--by", "jo", "--note", "looking")
    assert "snoozed until" in called("alerts", "snooze", id, "--for", "8h")
    assert "there is no alert" in called("alerts", "ack", "zz", code=2)
    called("alerts", "close", id, "--reason", "a new price list")
    assert len(hook.requests) == 2, "the end is sent at once"
    assert "no open alerts" in called("alerts") and "closed" in called("alerts", "demand", "--all")
    shown = json.loads(called("alerts", "show", id, "--json"))
    assert [event["kind"] for event in shown["events"]] == ["opened", "acknowledged", "snoozed", "closed"]
    assert [message["status"] for message in shown["messages"]] == ["sent", "sent"]
    assert "looking" in called("alerts", "show", id) and "a new price list" in called("alerts", "show", id)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ((), "give --until or --for"),
        (("--for", "8h", "--until", "2030-01-01"), "give --until or --for"),
        (("--until", "tomorrow"), "neither a day nor a time"),
        (("--until", "2001-01-01"), "is over"),
        (("--for", "soon"), "is not an age"),
    ],
)
def test_a_snooze_without_a_plain_end_is_refused(project_with_alert, options, reason: str) -> None:
    assert reason in called("alerts", "snooze", project_with_alert[0], *options, code=2)


def test_the_end_of_a_snooze_is_in_the_zone_of_alerts(project_with_alert) -> None:
    shown = json.loads(called("alerts", "snooze", project_with_alert[0], "--until", "2040-07-01T08:00", "--json"))
    assert shown["snoozed_until"] == "2040-07-01T06:00:00+00:00"


def test_calls_do_what_the_commands_do(project_with_alert) -> None:
    id, hook, *_ = project_with_alert
    assert [alert.id for alert in d2c.list_alerts("demand")] == [id]
    assert d2c.ack_alert(id, note="mine", by="jo").acknowledged_by == "jo"
    with pytest.raises(UsageError, match="no time zone"):
        d2c.snooze_alert(id, datetime(2040, 1, 1))
    assert d2c.snooze_alert(id, datetime.now(UTC) + timedelta(hours=1)).snoozed_until
    assert d2c.deliver_alerts().sent == 1
    assert d2c.close_alert(id, "fixed").status == "closed" and len(hook.requests) == 2
    assert d2c.list_alerts() == []


def test_watch_ends_with_3_and_says_what_stopped(project_with_alert) -> None:
    _, _, ledger, settings = project_with_alert
    heartbeat(ledger, settings, "scheduler", now=datetime.now(UTC) - timedelta(hours=2))
    assert json.loads(called("alerts", "watch", "--json"))[0]["part"] == "scheduler"
    assert "1 of 1 parts stopped arriving" in called("alerts", "watch", "--max-age", "1h", code=3)
    assert [arrival.part for arrival in d2c.watch()] == ["scheduler"]


def test_what_no_channel_hears_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, ledger = alert_project(tmp_path, "notify = json://jo:geheim@127.0.0.1:1")
    monkeypatch.chdir(tmp_path)
    observe_breaches(ledger, settings, [BREACH], JUDGED)
    assert "0 sent, 1 to be retried" in called("alerts", "deliver")
    assert "1 message(s) not accepted by their channel yet" in called("alerts")
    assert "geheim" not in called("alerts") + called("settings") + called("settings", "--json")
    alert_project(tmp_path)
    assert "no channel is set" in called("alerts")
