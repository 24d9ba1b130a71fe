import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from d2c_mlops.errors import NotebookFailed, SettingsError, Temporary
from d2c_mlops.runs.schedule.notify import notify_channels
from d2c_mlops.settings import Settings, load_settings
from support.notebooks import write
from support.scheduling import Clock, finish, scheduler


@pytest.fixture
def sink() -> Iterator[tuple[str, list[dict]]]:
    """The URL of a channel and what it was told."""
    told: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"json://127.0.0.1:{server.server_port}", told
    server.shutdown()


def test_a_failure_is_told_once_and_a_retry_only_who_asked(
    scheduled: Settings, project: Path, quick: list, sink
) -> None:
    url, told = sink
    quick += [Temporary("away"), NotebookFailed("no")]
    text = (project / "settings.ini").read_text()
    (project / "settings.ini").write_text(text + f"notify = {url}\nnotify_on = failed retry\n")
    clock = Clock()
    made = scheduler(load_settings(project, environ={}), clock)
    made.poll(), finish(made)
    clock.now += timedelta(seconds=11)
    made.poll(), finish(made)
    assert [each["title"].split()[-1] for each in told] == ["retry", "failed"]
    assert "d2c schedule why report" in told[1]["message"]


def test_a_channel_is_named_by_a_secret_and_its_failure_stops_nothing(
    scheduled: Settings, sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, told = sink
    job = replace(scheduled.jobs["report"], notify=("secret:CHANNEL", "nonsense://x"), notify_on=("failed",))
    monkeypatch.setenv("D2C_SECRET_CHANNEL", url)
    said: list[str] = []
    assert notify_channels(job, "failed", "title", "text", said.append) == 1
    assert notify_channels(job, "succeeded", "title", "text", said.append) == 0
    assert len(told) == 1 and said == ["report: nonsense is not a channel that apprise supports"]
    assert notify_channels(replace(job, notify=("secret:NONE",)), "failed", "t", "x", said.append) == 0
    assert "secret 'NONE' is not defined" in said[-1] and url not in "".join(said)


def test_an_unknown_event_is_refused(project: Path) -> None:
    write(project / "nb.ipynb", "n: int = 1")
    with (project / "settings.ini").open("a") as file:
        file.write("[schedule:x]\nrun = nb.ipynb\nat = hourly\nnotify_on = exploded\n")
    with pytest.raises(SettingsError, match="'exploded' is none of"):
        load_settings(project, environ={})
