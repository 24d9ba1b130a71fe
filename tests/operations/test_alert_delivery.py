"""Alerts on record and their messages, against a web hook and an SMTP server of 127.0.0.1."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from d2c_mlops.errors import Temporary, UsageError
from d2c_mlops.file_lock import lock
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.operations.alert_rows import events_of_alert, find_alert, find_alerts, find_deliveries
from d2c_mlops.operations.alerts import (
    acknowledge_alert,
    advance_alerts,
    close_alert,
    observe_breaches,
    snooze_alert,
)
from d2c_mlops.operations.delivery import deliver
from support.alert_channels import BREACH, JUDGED, NOON, WebHook, alert_project, smtp_server

TRIALS = int(os.environ.get("CRASH_TRIALS", 12))


@pytest.fixture
def hook() -> Iterator[WebHook]:
    server = WebHook()
    yield server
    server.stop()


def at(hours: float):
    return lambda: NOON + timedelta(hours=hours)


def look(ledger, settings, hours: float = 0.0, *breaches, judged=JUDGED):
    return observe_breaches(ledger, settings, breaches, judged, NOON + timedelta(hours=hours))


def test_1000_breaches_of_a_cause_in_a_day_are_one_message_and_one_resolution(tmp_path: Path, hook: WebHook) -> None:
    with smtp_server() as (port, mails):
        mail = f"mailto://127.0.0.1:{port}/?from=d2c@example.org&to=jo@example.org&mode=insecure"
        settings, ledger = alert_project(tmp_path, f"notify = {hook.url} {mail}")
        for number in range(1000):
            hours = 24 * number / 1000
            look(ledger, settings, hours, replace(BREACH, value=1 + number / 100))
            if number % 100 == 0:
                deliver(ledger, settings, clock=at(hours))
        assert len(hook.requests) == len(mails) == 1
        for hours in (25, 26):
            look(ledger, settings, hours)
            deliver(ledger, settings, clock=at(hours))
        assert [title.split(":")[0] for title in hook.titles] == ["[warning] demand", "resolved"]
        assert [str(message["Subject"]).split(":")[0] for message in mails] == ["[warning] demand", "resolved"]
        assert [message["D2C-Delivery"] for message in mails] == [
            delivery.id for delivery in find_deliveries(ledger) if delivery.place == "alerts notify 1"
        ]
    (alert,) = find_alerts(ledger, every=True)
    assert alert.status == "closed" and alert.signals[0].breaches == 1000
    kinds = [event["kind"] for event in events_of_alert(ledger, alert.id)]
    assert kinds == ["opened", "escalated", "recovered", "closed"], "nobody else is to be told of the escalation"


def test_causes_and_models_at_one_look_are_one_message_for_each_owner(tmp_path: Path, hook: WebHook) -> None:
    other = WebHook()
    settings, ledger = alert_project(
        tmp_path, f"notify = {hook.url}", f"[model:price]\nnotify = {other.url}\n[model:demand]\n"
    )
    columns = [replace(BREACH, cause=f"column_{number}") for number in range(30)]
    look(ledger, settings, 0, *columns, replace(BREACH, model="price", metric="accuracy", cause=""))
    deliver(ledger, settings, clock=at(0))
    assert len(hook.requests) == len(other.requests) == 1
    assert hook.titles[0].startswith("30 alerts") and "price accuracy" in other.texts[0]
    assert len(find_alerts(ledger, "price")) == 1 and len(find_alerts(ledger)) == 31
    other.stop()


def test_critical_messages_pass_quiet_hours_and_others_wait_in_one_digest(tmp_path: Path, hook: WebHook) -> None:
    options = f"notify = {hook.url}\nquiet = 22:00-07:00\nzone = Europe/Berlin\ndigest = 08:00"
    settings, ledger = alert_project(tmp_path, options)
    look(ledger, settings, 10, BREACH)  # 22:00 UTC is midnight in Berlin
    look(ledger, settings, 10.5, BREACH, replace(BREACH, cause="orders"))
    look(ledger, settings, 11, replace(BREACH, cause="scheduler", model="", severity="critical"), judged=set())
    deliver(ledger, settings, clock=at(11))
    assert [title.split()[0] for title in hook.titles] == ["[critical]"]
    deliver(ledger, settings, clock=at(16.9))
    assert len(hook.requests) == 1, "07:00 in Berlin is 05:00 UTC"
    deliver(ledger, settings, clock=at(17))
    assert len(hook.requests) == 2 and hook.titles[1].startswith("digest of 2 messages")
    assert {delivery.status for delivery in find_deliveries(ledger)} == {"sent", "combined"}


def test_an_alert_of_severity_info_is_told_in_the_digest_of_the_day(tmp_path: Path, hook: WebHook) -> None:
    settings, ledger = alert_project(tmp_path, f"notify = {hook.url}\ndigest = 08:00")
    look(ledger, settings, 0, replace(BREACH, severity="info"))
    deliver(ledger, settings, clock=at(19.9))
    assert not hook.requests
    deliver(ledger, settings, clock=at(20))
    assert hook.titles == ["[info] demand: price_index is 9 % above its reference"]


def test_a_receiver_that_is_away_gets_its_messages_later_in_their_order(tmp_path: Path) -> None:
    gone = WebHook()
    gone.stop()
    settings, ledger = alert_project(tmp_path, f"notify = {gone.url}")
    look(ledger, settings, 0, BREACH)
    lines: list[str] = []
    assert deliver(ledger, settings, clock=at(0), log=lines.append).retried_later == 1
    assert "did not accept" in lines[0] and gone.url not in lines[0]
    look(ledger, settings, 2)
    look(ledger, settings, 3)
    back = WebHook(gone.port)
    assert deliver(ledger, settings, clock=at(3)).sent == 2
    assert [title.split()[0] for title in back.titles] == ["[warning]", "resolved:"]
    assert [delivery.attempts for delivery in find_deliveries(ledger)] == [2, 1]
    back.stop()


def test_an_end_does_not_overtake_its_beginning_nor_wait_for_messages_about_others(
    tmp_path: Path, hook: WebHook
) -> None:
    settings, ledger = alert_project(tmp_path, f"notify = {hook.url}")
    hook.status = 503
    opened = look(ledger, settings, 0, BREACH)
    deliver(ledger, settings, clock=at(0))
    hook.status = 200
    hook.requests.clear()
    second = 1 / 3600
    close_alert(ledger, settings, opened[0].alert.id, "jo", "fixed", NOON + timedelta(seconds=5))
    look(ledger, settings, 6 * second, replace(BREACH, cause="orders"))
    deliver(ledger, settings, clock=at(10 * second))
    assert [title.split()[0] for title in hook.titles] == ["[warning]"] and "orders" in hook.texts[0]
    deliver(ledger, settings, clock=at(40 * second))
    assert [title.split()[0] for title in hook.titles] == ["[warning]", "[warning]", "resolved:"]


def test_a_receiver_that_is_down_is_not_asked_for_each_of_many_messages(tmp_path: Path, hook: WebHook) -> None:
    settings, ledger = alert_project(tmp_path, f"notify = {hook.url}")
    for number in range(20):
        look(ledger, settings, number / 3600, replace(BREACH, cause=f"cause_{number}"), judged=set())
    hook.status = 503
    assert deliver(ledger, settings, clock=at(1)).retried_later == 20 and len(hook.requests) == 3
    hook.status = 200
    assert deliver(ledger, settings, clock=at(2)).sent == 20


def test_a_receiver_that_refuses_is_asked_again_with_longer_waits_and_the_same_id(
    tmp_path: Path, hook: WebHook
) -> None:
    settings, ledger = alert_project(tmp_path, f"notify = {hook.url}\ngive_up = 2d")
    hook.status = 503
    look(ledger, settings, 0, BREACH)
    for minute in range(0, 60 * 6, 5):
        deliver(ledger, settings, clock=at(minute / 60))
    assert 8 <= len(hook.requests) <= 20 and len(set(hook.ids)) == 1
    assert find_deliveries(ledger)[0].status == "pending"
    assert deliver(ledger, settings, clock=at(49)).given_up == 1
    assert find_deliveries(ledger)[0].status == "failed" and find_deliveries(ledger)[0].error
    assert deliver(ledger, settings, clock=at(50)).given_up == 0


def test_a_corrected_channel_gets_what_the_wrong_one_did_not(tmp_path: Path, hook: WebHook) -> None:
    settings, ledger = alert_project(tmp_path, "notify = nonsense://x")
    look(ledger, settings, 0, BREACH)
    assert deliver(ledger, settings, clock=at(0)).retried_later == 1
    corrected, _ = alert_project(tmp_path, f"notify = {hook.url}")
    assert deliver(ledger, corrected, clock=at(1)).sent == 1 and len(hook.requests) == 1


def test_a_password_of_a_channel_is_not_in_the_ledger(tmp_path: Path, hook: WebHook) -> None:
    url = hook.url.replace("json://", "json://jo:geheim@")
    settings, ledger = alert_project(tmp_path, f"notify = {url}")
    look(ledger, settings, 0, BREACH)
    deliver(ledger, settings, clock=at(0))
    ledger.close()
    assert len(hook.requests) == 1
    assert all(b"geheim" not in file.read_bytes() for file in settings.store.glob("ledger.db*"))


def test_people_take_on_snooze_and_close_alerts_by_the_start_of_the_id(tmp_path: Path, hook: WebHook) -> None:
    manager = WebHook()
    options = f"notify = {hook.url}\nnotify_critical = {manager.url}\nescalate_after = 4h"
    settings, ledger = alert_project(tmp_path, options)
    (opened,) = look(ledger, settings, 0, BREACH)
    id = opened.alert.id
    snooze_alert(ledger, settings, id[:6], NOON + timedelta(hours=8), "jo", now=NOON)
    assert not advance_alerts(ledger, settings, NOON + timedelta(hours=5))
    assert [change.kind for change in advance_alerts(ledger, settings, NOON + timedelta(hours=9))] == [
        "resumed",
        "escalated",
    ]
    assert not advance_alerts(ledger, settings, NOON + timedelta(hours=10))
    acknowledge_alert(ledger, settings, id[:6], "jo", "looking", NOON + timedelta(hours=10))
    assert close_alert(ledger, settings, id, "jo", "a sale", NOON + timedelta(hours=11)).status == "closed"
    deliver(ledger, settings, clock=at(11))
    assert [title.split(":")[0] for title in hook.titles] == ["[warning] demand", "[warning] still open", "resolved"]
    assert [title.split(":")[0] for title in manager.titles] == ["[warning] not acknowledged", "resolved"]
    manager.stop()
    kinds = [event["kind"] for event in events_of_alert(ledger, id)]
    assert kinds == ["opened", "snoozed", "resumed", "escalated", "acknowledged", "closed"]
    with pytest.raises(UsageError, match="closed since"):
        acknowledge_alert(ledger, settings, id, "jo")
    with pytest.raises(UsageError, match="there is no alert 'zz'"):
        find_alert(ledger, "zz")
    with pytest.raises(UsageError, match="there is no alert ''"):
        find_alert(ledger, "")


def test_a_closed_alert_breaches_again_under_its_id_and_later_under_a_new_one(tmp_path: Path) -> None:
    settings, ledger = alert_project(tmp_path)
    (first,) = look(ledger, settings, 0, BREACH)
    close_alert(ledger, settings, first.alert.id, "jo", "fixed", NOON + timedelta(hours=1))
    (again,) = look(ledger, settings, 2, BREACH)
    assert (again.kind, again.alert.id) == ("reopened", first.alert.id)
    close_alert(ledger, settings, first.alert.id, "jo", "fixed", NOON + timedelta(hours=3))
    (later,) = look(ledger, settings, 40, BREACH)
    assert later.kind == "opened" and later.alert.id != first.alert.id
    assert len(find_alerts(ledger, every=True)) == 2 and find_alerts(ledger) == [later.alert]


def test_a_message_is_written_with_its_alert_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, ledger = alert_project(tmp_path, "notify = json://127.0.0.1:1")
    monkeypatch.setattr("d2c_mlops.operations.alerts.deliveries_of_look", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        look(ledger, settings, 0, BREACH)
    assert not find_alerts(ledger, every=True) and not find_deliveries(ledger)


def test_one_process_at_a_time_sends(tmp_path: Path, hook: WebHook) -> None:
    settings, ledger = alert_project(tmp_path, f"notify = {hook.url}")
    look(ledger, settings, 0, BREACH)
    with lock(settings.store / "alerts", "messages", 1), pytest.raises(Temporary, match="messages about alerts"):
        deliver(ledger, replace(settings, lock_wait=0.1), clock=at(0))
    assert deliver(ledger, settings, clock=at(0)).sent == 1


KILLED = """
import os, signal, sys
from datetime import timedelta
from pathlib import Path
import d2c_mlops.operations.delivery as delivery
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.operations.alerts import observe_breaches
from d2c_mlops.settings import load_settings
from support.alert_channels import BREACH, JUDGED, NOON
from dataclasses import replace
folder, step, number = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
settings = load_settings(folder, environ={})
ledger = Ledger.of(settings)
now = NOON + timedelta(minutes=number)
die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
observe_breaches(ledger, settings, [replace(BREACH, cause=f"cause_{number}")], JUDGED, now)
if step == "decided":
    die()
send = delivery.send_notification
def killed(*arguments, **options):
    if step == "before":
        die()
    send(*arguments, **options)
    die()
delivery.send_notification = killed
delivery.deliver(ledger, settings, clock=lambda: now)
"""


def killed(folder: Path, step: str, number: int) -> None:
    command = [sys.executable, "-c", KILLED, str(folder), step, str(number)]
    process = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}, timeout=120)
    assert process.returncode == -signal.SIGKILL


def check_each_delivered(ledger: Ledger, hook: WebHook, causes: int) -> None:
    """Each cause reached the web hook; what reached it twice had the same id."""
    deliveries = find_deliveries(ledger)
    assert len(deliveries) == causes and {delivery.status for delivery in deliveries} == {"sent"}
    assert set(hook.ids) == {delivery.id for delivery in deliveries}
    texts: dict[str, set[str]] = {}
    for id, text in zip(hook.ids, hook.texts, strict=True):
        texts.setdefault(id, set()).add(text)
    assert all(len(same) == 1 for same in texts.values())


def test_kill_9_between_decision_and_delivery_loses_no_message(tmp_path: Path, hook: WebHook) -> None:
    settings, ledger = alert_project(tmp_path, f"notify = {hook.url}")
    for number, step in enumerate(("decided", "before", "after")):
        killed(tmp_path, step, number)
        assert deliver(ledger, settings, clock=at(1)).sent == 1, "at once: the lock ended with the process"
    check_each_delivered(ledger, hook, 3)
    assert len(hook.requests) == 4, "only what was sent but not recorded is sent again"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kill_9_at_each_step_delivers_every_message_under_one_id(tmp_path: Path, hook: WebHook) -> None:
    settings, ledger = alert_project(tmp_path, f"notify = {hook.url}")
    for number in range(TRIALS):
        killed(tmp_path, ("decided", "before", "after")[number % 3], number)
    deliver(ledger, settings, clock=at(24))
    check_each_delivered(ledger, hook, TRIALS)


@pytest.mark.slow
def test_alerts_and_messages_are_the_same_on_postgresql(tmp_path: Path, hook: WebHook, postgres: str) -> None:
    settings, _ = alert_project(tmp_path, f"notify = {hook.url}")
    settings = replace(settings, ledger_url=postgres)
    ledger = Ledger.of(settings)
    look(ledger, settings, 0, BREACH)
    look(ledger, settings, 1, BREACH)
    assert deliver(ledger, settings, clock=at(1)).sent == 1
    look(ledger, settings, 2)
    look(ledger, settings, 3)
    assert deliver(ledger, settings, clock=at(3)).sent == 1
    assert [alert.status for alert in find_alerts(ledger, every=True)] == ["closed"]


def test_two_looks_at_the_same_time_open_one_alert(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    settings, _ = alert_project(tmp_path)
    ledgers = [Ledger.of(settings) for _ in range(4)]

    def observed(ledger: Ledger) -> list[str]:
        return [change.kind for change in look(ledger, settings, 0, BREACH)]

    with ThreadPoolExecutor(4) as pool:
        kinds = sorted(kind for kinds in pool.map(observed, ledgers) for kind in kinds)
    assert kinds == ["opened", "seen", "seen", "seen"] and len(find_alerts(ledgers[0])) == 1


def test_settings_of_alerts_that_are_wrong_are_all_named(tmp_path: Path) -> None:
    from d2c_mlops.errors import SettingsError

    wrong = "quiet = at night\ndigest = 25:00\nhealthy_for = long\nzone = Berlin\nhealthy_looks = 0\nheartbeat.shop = x\nnotfy = y"
    with pytest.raises(SettingsError) as caught:
        alert_project(tmp_path, wrong)
    for name in ("quiet", "digest", "healthy_for", "zone", "healthy_looks", "heartbeat.shop", "notfy"):
        assert f"[alerts] {name}" in str(caught.value)
