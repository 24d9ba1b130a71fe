"""Heartbeats, the check from outside, and the scheduler that sends what is due."""

import threading
import time
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from sqlalchemy import insert

from d2c_mlops.errors import DataRefused, Temporary, UsageError
from d2c_mlops.ledger.schema import predictions
from d2c_mlops.operations.alert_rows import find_alerts, find_deliveries
from d2c_mlops.operations.alerts import observe_breaches
from d2c_mlops.operations.heartbeat import heartbeat, latest_heartbeats, text_folder
from d2c_mlops.operations.upkeep import Upkeep
from d2c_mlops.operations.watch import watch
from d2c_mlops.runs.execution import slot_rows
from d2c_mlops.settings import load_settings
from support.alert_channels import BREACH, JUDGED, NOON, WebHook, alert_project

DAY = timedelta(hours=26)
JOB = "[schedule:report]\nrun = nb.ipynb\nat = daily at 06:00\n"


@pytest.fixture
def hook():
    server = WebHook()
    yield server
    server.stop()


def test_a_heartbeat_is_a_row_a_text_file_and_a_call(tmp_path: Path, hook: WebHook) -> None:
    url = f"http://127.0.0.1:{hook.port}/ping/{{model}}?key=1"
    settings, ledger = alert_project(tmp_path, f"heartbeat.monitor = {url}\ntextfiles = metrics")
    heartbeat(ledger, settings, "monitor", "demand", now=NOON)
    text = (tmp_path / "metrics/d2c_monitor_demand.prom").read_text()
    assert f'd2c_heartbeat_timestamp_seconds{{part="monitor",model="demand"}} {NOON.timestamp():.0f}\n' in text
    assert text.count("# TYPE d2c_heartbeat_timestamp_seconds gauge") == 1
    assert (tmp_path / "metrics/d2c_monitor_demand.prom").stat().st_mode & 0o777 == 0o644
    later = NOON + timedelta(hours=1)
    heartbeat(ledger, settings, "monitor", "demand", ok=False, note="no outcomes", now=later)
    assert (tmp_path / "metrics/d2c_monitor_demand.prom").read_text() == text, "the time of the latest success"
    latest = latest_heartbeats(ledger)["monitor:demand"]
    assert (latest.at, latest.ok, latest.note) == (later, False, "no outcomes")
    assert [(path, body) for _, path, _, body in hook.requests] == [
        ("/ping/demand?key=1", ""),
        ("/ping/demand/fail?key=1", "no outcomes"),
    ]


def test_a_url_that_is_away_refuses_or_hangs_stops_nothing_for_5_s(tmp_path: Path, hook: WebHook) -> None:
    class Hanging(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            time.sleep(8)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hanging)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hook.status = 404
    urls = {
        "http://127.0.0.1:1/geheim": "ConnectionError",
        f"http://127.0.0.1:{hook.port}/geheim": "it answered 404",
        "secret:MISSING_HEARTBEAT_URL": "is not defined",
        f"http://127.0.0.1:{server.server_port}/geheim": "Timeout",
    }
    for url, reason in urls.items():
        settings, ledger = alert_project(tmp_path, f"heartbeat.scheduler = {url}")
        lines: list[str] = []
        began = time.monotonic()
        heartbeat(ledger, settings, "scheduler", now=NOON, log=lines.append)
        assert time.monotonic() - began < 5
        assert len(lines) == 1 and reason in lines[0] and "geheim" not in lines[0]
    assert latest_heartbeats(ledger)["scheduler"].ok


def test_a_text_file_that_cannot_be_written_is_logged(tmp_path: Path) -> None:
    settings, ledger = alert_project(tmp_path, "textfiles = taken")
    (tmp_path / "taken").write_text("a file")
    lines: list[str] = []
    heartbeat(ledger, settings, "scheduler", now=NOON, log=lines.append)
    assert "has no text file" in lines[0] and "scheduler" in latest_heartbeats(ledger)


def prediction(ledger, hours: float, model: str = "demand", origin: str | None = None) -> None:
    row = {"id": f"{model}{hours}", "model": model, "version": 1, "contract": "1.0.0", "variant": "champion", "key": "A",
           "at": NOON + timedelta(hours=hours), "inputs": {}, "outputs": {}, "origin": origin}  # fmt: skip
    with ledger.write() as connection:
        connection.execute(insert(predictions), row)


def test_a_scheduler_that_stopped_is_one_alert_and_one_message_for_all_that_it_feeds(
    tmp_path: Path, hook: WebHook
) -> None:
    settings, ledger = alert_project(tmp_path, f"notify = {hook.url}", JOB)
    heartbeat(ledger, settings, "scheduler", now=NOON)
    heartbeat(ledger, settings, "monitor", "demand", now=NOON)
    prediction(ledger, 0)
    assert {arrival.label for arrival in watch(settings, DAY, now=NOON + timedelta(hours=1))} == {
        "scheduler",
        "monitor demand",
        "predictions demand",
    }
    for hours in (27, 28, 29):
        with pytest.raises(DataRefused, match="3 of 3 parts stopped arriving") as caught:
            watch(settings, DAY, now=NOON + timedelta(hours=hours))
    assert "scheduler: latest 2026-06-03 12:00Z, 29.0 h ago" in str(caught.value)
    assert caught.value.exit_code == 3 and "d2c schedule run" in caught.value.next
    assert len(find_alerts(ledger)) == 1 and len(hook.requests) == 1
    for part, model in (("scheduler", ""), ("monitor", "demand")):
        heartbeat(ledger, settings, part, model, now=NOON + timedelta(hours=30))
    prediction(ledger, 30)
    for hours in (30, 31):
        watch(settings, DAY, now=NOON + timedelta(hours=hours))
    assert [title.split()[0] for title in hook.titles] == ["[critical]", "resolved:"]


def test_predictions_or_data_that_stop_under_a_living_scheduler_are_named(tmp_path: Path) -> None:
    settings, ledger = alert_project(tmp_path, "", JOB + "[model:demand]\ndata = shop\n")
    now = NOON + timedelta(hours=30)
    heartbeat(ledger, settings, "scheduler", now=now)
    prediction(ledger, 0)
    prediction(ledger, 29.5, origin="probe")
    with pytest.raises(DataRefused) as caught:
        watch(settings, DAY, now=now)
    reasons = [failure.what for failure in caught.value.failures]
    assert reasons == ["predictions demand: latest 2026-06-03 12:00Z, 30.0 h ago", "data shop: never arrived"]
    assert {alert.key for alert in find_alerts(ledger)} == {"predictions demand", "data shop"}
    assert [arrival.part for arrival in watch(settings, DAY, ["scheduler"], now=now)] == ["scheduler"]


def test_a_monitor_that_runs_and_fails_is_not_alive(tmp_path: Path) -> None:
    settings, ledger = alert_project(tmp_path)
    heartbeat(ledger, settings, "monitor", "demand", ok=False, note="no outcomes", now=NOON)
    with pytest.raises(DataRefused) as caught:
        watch(settings, DAY, now=NOON + timedelta(minutes=1))
    assert "it failed: no outcomes" in str(caught.value)


def test_a_watch_of_nothing_is_refused(tmp_path: Path) -> None:
    settings, _ = alert_project(tmp_path)
    with pytest.raises(UsageError, match="there is nothing to watch"):
        watch(settings, DAY)
    with pytest.raises(UsageError, match="unknown part shop"):
        watch(settings, DAY, ["shop"])


def test_without_a_ledger_people_are_told_directly(tmp_path: Path, hook: WebHook) -> None:
    settings, _ = alert_project(tmp_path, f"notify = {hook.url}", JOB)
    away = replace(settings, ledger_url="postgresql+psycopg://me:geheim@127.0.0.1:1/db?connect_timeout=1")
    for _ in range(2):
        with pytest.raises(Temporary):
            watch(away, DAY, now=NOON)
    assert hook.titles[0] == "[critical] the ledger cannot be reached" and len(set(hook.ids)) == 1
    assert "geheim" not in hook.texts[0]


def test_the_scheduler_beats_escalates_and_sends_what_a_crash_left(tmp_path: Path, hook: WebHook) -> None:
    from d2c_mlops.runs.schedule.schedule import Scheduler

    manager = WebHook()
    channels = f"notify = {hook.url}\nnotify_critical = {manager.url}"
    settings, ledger = alert_project(tmp_path, channels, JOB)
    observe_breaches(ledger, settings, [BREACH], JUDGED, NOON)
    now = NOON + timedelta(hours=5)
    scheduler = Scheduler(load_settings(tmp_path, environ={}), say=lambda line: None, clock=lambda: now)
    scheduler.upkeep = Upkeep(lambda line: None)
    scheduler.poll()
    scheduler.poll()
    scheduler.pool.shutdown(wait=True)
    assert latest_heartbeats(ledger)["scheduler"].at == now
    assert (text_folder(settings) / "d2c_scheduler.prom").exists()
    assert len(hook.requests) == 1 and [title.split(":")[0] for title in manager.titles] == [
        "[warning] not acknowledged"
    ]
    assert {row.status for row in find_deliveries(ledger)} == {"sent"}
    manager.stop()


def test_a_job_that_fails_is_one_alert_until_it_succeeds(tmp_path: Path, hook: WebHook) -> None:
    text = "[schedule:report]\nrun = nb.ipynb\nat = daily at 06:00\nzone = Europe/Berlin\n"
    own = f"[schedule:loud]\nrun = nb.ipynb\nat = daily at 06:00\nnotify = {hook.url}\n"
    settings, ledger = alert_project(tmp_path, f"notify = {hook.url}", text + own)
    upkeep = Upkeep(lambda line: None)

    def ended(hours: float, name: str, status: str) -> None:
        slot_rows.known_jobs(ledger, [name], NOON)
        moment = NOON + timedelta(hours=hours)
        slot_rows.add_slots(ledger, name, {moment: ("waiting", "due")}, moment)
        slot_rows.close_slot(ledger, slot_rows.find_slot(ledger, name, moment), status, "no data\nline 2", moment)

    ended(0, "loud", "failed")
    upkeep(ledger, settings, NOON + timedelta(hours=1))
    assert not hook.requests, "it has channels of its own"
    ended(1, "report", "failed")
    for hours in (1, 2, 3, 4):
        upkeep(ledger, settings, NOON + timedelta(hours=hours))
    assert hook.titles == ["[warning] the job report failed: no data"]
    assert "Next: d2c schedule why report 2026-06-03T15:00" in hook.texts[0]
    ended(5, "report", "succeeded")
    for hours in (5, 6, 7, 8):
        upkeep(ledger, settings, NOON + timedelta(hours=hours))
    assert [title.split(":")[0] for title in hook.titles][1:] == ["resolved"]


def test_a_failure_that_lasts_is_logged_once(tmp_path: Path) -> None:
    lines: list[str] = []
    settings, ledger = alert_project(tmp_path, "heartbeat.scheduler = http://127.0.0.1:1/x")
    upkeep = Upkeep(lines.append)
    for minute in range(5):
        upkeep(ledger, settings, NOON + timedelta(minutes=minute))
    assert len(lines) == 1
