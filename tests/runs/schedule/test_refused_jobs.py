"""A section that cannot be run is refused by name; the others go on, also after an edit while a scheduler runs."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.errors import SettingsError, Temporary, UsageError
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution import slot_rows
from d2c_mlops.runs.schedule.jobs import readable_jobs, scheduled_job, scheduled_jobs
from d2c_mlops.runs.schedule.reload_settings import reload_jobs
from d2c_mlops.runs.schedule.schedule import Scheduler
from d2c_mlops.runs.schedule.slot_run import run_job
from d2c_mlops.settings import Settings, load_settings
from support.notebooks import PARAMETERS, RECORD, write
from support.processes import wait_for
from support.scheduling import NOW, SLOT, Clock, finish, scheduler

GOOD = "[schedule:good]\nrun = nb.ipynb\nat = every 15 minutes\n"


def section(name: str, *lines: str) -> str:
    return f"[schedule:{name}]\nrun = nb.ipynb\n" + "".join(f"{line}\n" for line in lines)


def with_jobs(project: Path, *sections: str) -> Settings:
    write(project / "nb.ipynb", PARAMETERS, RECORD)
    (project / "settings.ini").write_text("[d2c]\n" + "".join(sections))
    return load_settings(project, environ={})


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["at = 0 0 31 2 *"], "'0 0 31 2 *' is never due"),
        (["at = 30 4 30,31 FEB *"], "is never due"),
        (["at = every 7 hours"], "'every 6 hours' or 'every 8 hours'"),
        (["at = daily at 06:00", "zone = Europe/Berln"], "unknown time zone 'Europe/Berln'"),
        (["at = daily at 06:00", "params.who = {slott}"], "{slott} is not a known placeholder"),
        (["at = daily at 06:00", "after = goood"], "there is no job 'goood'; did you mean 'good'?"),
        (["on = nobody"], "there is no job 'nobody'"),
        (["at = daily at 06:00", "after = bad"], "circular dependency: bad after bad"),
    ],
)
def test_a_section_that_cannot_be_read_is_named_and_the_others_are_jobs(
    project: Path, lines: list[str], said: str
) -> None:
    settings = with_jobs(project, GOOD, section("bad", *lines), section("behind", "at = hourly", "after = bad"))
    jobs, refused = readable_jobs(settings)
    assert list(jobs) == ["good"] and list(refused) == ["bad", "behind"]
    assert said in str(refused["bad"][0]) and refused["bad"][0].where.startswith("[schedule:bad]")
    assert "it depends on bad, whose section is refused" in str(refused["behind"][0])
    with pytest.raises(UsageError, match="invalid jobs: bad, behind"):
        scheduled_jobs(settings)
    assert scheduled_job(settings, "good").name == "good"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["run = trian"], "there is no runbook 'trian'"),
        (["run = missing.ipynb"], "there is no such notebook"),
        (["run = nb.ipynb", "params.whoo = x"], "did you mean 'who'?"),
        (["run = nb.ipynb", "params.n = many"], "'many' is not of type int"),
    ],
)
def test_the_list_refuses_what_could_not_run(project: Path, lines: list[str], said: str) -> None:
    bad = "[schedule:bad]\nat = daily at 06:00\n" + "".join(f"{line}\n" for line in lines)
    with_jobs(project, GOOD, bad)
    done = CliRunner().invoke(main, ["schedule", "list"])
    assert done.exit_code == 2 and "[schedule:bad]" in done.output and said in done.output
    assert "every 15 minutes (UTC)" in done.output  # the others are shown all the same
    as_json = CliRunner().invoke(main, ["schedule", "list", "--json"])
    told = json.loads(as_json.output)
    assert as_json.exit_code == told["exit_code"] == 2 and said in told["failures"][0]["what"]


def test_commands_about_a_good_job_work_beside_a_bad_one(project: Path, quick: list[Exception]) -> None:
    settings = with_jobs(project, GOOD, section("bad", "at = 0 0 31 2 *"))
    for args, code in (
        (["trigger", "good"], 0),
        (["trigger", "bad"], 2),
        (["backfill", "bad", "--from", "2026-01-01", "--to", "2026-01-02"], 2),
        (["export", "good", "--to", "cron"], 0),
        (["export", "--to", "cron"], 2),
    ):
        done = CliRunner().invoke(main, ["schedule", *args])
        assert done.exit_code == code and ("is never due" in done.output) == (code == 2), done.output
    (slot,) = run_job("good", "2026-11-22T05:00Z", settings, print_line=print, clock=Clock())
    assert slot.status == "succeeded"
    with pytest.raises(UsageError, match="bad"):
        run_job("bad", "due", settings, print_line=print, clock=Clock())


class Edited:
    """A scheduler whose settings.ini is edited while it runs."""

    def __init__(self, project: Path, *sections: str) -> None:
        self.said: list[str] = []
        self.clock = Clock()
        self.file = project / "settings.ini"
        settings = with_jobs(project, *sections)
        self.made = Scheduler(
            settings, say=self.said.append, clock=self.clock, reload=lambda: load_settings(project, environ={})
        )
        slot_rows.known_jobs(self.made.ledger, self.made.jobs, NOW - timedelta(minutes=20))
        self.edits = 0

    def write(self, text: str | None) -> None:
        self.edits += 1
        if text is None:
            self.file.unlink()
        else:
            self.file.write_text(text)
            os.utime(self.file, (2e9 + self.edits, 2e9 + self.edits))

    def poll(self) -> int:
        self.made._refreshed = float("-inf")
        return self.made.poll()


def test_an_edit_that_refuses_a_job_keeps_the_others_and_the_job_as_it_was(
    project: Path, quick: list[Exception]
) -> None:
    edited = Edited(project, GOOD, section("report", "at = daily at 05:00"))
    edited.write("[d2c]\n" + GOOD + section("report", "at = 0 0 30 2 *") + section("new", "at = 0 0 31 4 *"))
    assert edited.poll() == 2 and sorted(edited.made.jobs) == ["good", "report"]
    finish(edited.made)
    assert slot_rows.find_slot(edited.made.ledger, "report", SLOT).status == "succeeded"
    text = "\n".join(edited.said)
    assert "report is refused and keeps its previous settings: [schedule:report]: '0 0 30 2 *' is never due" in text
    assert "new is refused and is not run: [schedule:new]" in text


@pytest.mark.parametrize(
    "text",
    ["", "\n\n", "# moved\n", "[package]\nname = x\n", "[d2c]\n", "[d2c]\nstore = elsewhere\n[model:x]\n", GOOD, None],
)
def test_a_file_that_lost_its_sections_is_not_taken_over_and_said_once(
    project: Path, quick: list[Exception], text: str | None
) -> None:
    edited = Edited(project, GOOD)
    edited.write(text)
    assert edited.poll() == 1
    finish(edited.made)
    assert edited.poll() == 0 and list(edited.made.jobs) == ["good"]
    assert len([line for line in edited.said if "the changed settings.ini is not used" in line]) == 1
    edited.clock.now += timedelta(minutes=15)
    assert edited.poll() == 1
    finish(edited.made)
    edited.write("[d2c]\n" + GOOD + section("second", "at = hourly"))
    edited.poll()
    assert sorted(edited.made.jobs) == ["good", "second"]


@pytest.mark.parametrize("text", ["", "[package]\nname = x\n", None])
def test_a_scheduler_without_jobs_keeps_its_store_when_the_file_is_emptied(project: Path, text: str | None) -> None:
    before = with_jobs(project, "store = here\n")
    (project / "settings.ini").unlink() if text is None else (project / "settings.ini").write_text(text)
    with pytest.raises(SettingsError, match="has no section"):
        reload_jobs(lambda: load_settings(project, environ={}), before, had_jobs=False)


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (None, "succeeded", "attempt 1"),
        (ValueError("broken"), "failed", "ValueError: broken"),
        (UsageError("no such column"), "failed", "no such column; its job is no longer in settings.ini"),
        (Temporary("away"), "failed", "away; its job is no longer in settings.ini"),
    ],
)
def test_a_job_that_vanishes_while_it_runs_is_settled_by_what_the_run_did(
    project: Path, monkeypatch: pytest.MonkeyPatch, error: Exception | None, status: str, said: str
) -> None:
    edited = Edited(project, GOOD, section("gone", "at = daily at 05:00", "notify = json://127.0.0.1:1"))

    def vanish(*args: object, **kwargs: object) -> object:
        edited.made.jobs.pop("gone")
        if error:
            raise error
        return type("Done", (), {"id": None, "seconds": 1.0, "recorded": {}})()

    monkeypatch.setattr("d2c_mlops.runs.schedule.schedule.run", vanish)
    slot_rows.add_slots(edited.made.ledger, "gone", {SLOT: ("waiting", "due")}, NOW)
    slot = slot_rows.find_slot(edited.made.ledger, "gone", SLOT)
    edited.made.start(slot)
    for future in list(edited.made.running):
        assert not isinstance(future.exception(60), KeyError)
    ended = slot_rows.find_slot(edited.made.ledger, "gone", SLOT)
    assert ended.status == status and said in ended.reason


@pytest.mark.parametrize("ending", ["succeeded", "failed", "lost"])
def test_a_slot_of_a_vanished_job_whose_scheduler_is_gone_is_settled(
    project: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    from d2c_mlops.runs.execution.execute import prepare_job
    from d2c_mlops.runs.execution.run_rows import close_row, open_row

    settings = with_jobs(project, GOOD, section("gone", "at = daily at 05:00"))
    ledger = Ledger.of(settings)
    slot_rows.known_jobs(ledger, ["gone", "good"], NOW)
    slot_rows.add_slots(ledger, "gone", {SLOT: ("waiting", "due")}, NOW)
    mine = slot_rows.claim_slot(ledger, slot_rows.find_slot(ledger, "gone", SLOT), NOW)
    assert mine is not None
    job = prepare_job("nb.ipynb", {}, settings)
    open_row(ledger, {**job.row, "job": "gone", "slot": SLOT, "attempt": 1, "started_at": NOW})
    if ending != "lost":
        close_row(ledger, job.id, {"status": ending, "exit_code": 0 if ending == "succeeded" else 5, "ended_at": NOW,
                                   "recorded": {}})  # fmt: skip
    monkeypatch.setattr("d2c_mlops.runs.execution.leases.processes.is_alive", lambda pid, started: False)
    made = scheduler(with_jobs(project, GOOD), Clock())
    made.recover(NOW)
    slot = slot_rows.find_slot(ledger, "gone", SLOT)
    assert slot.status == ("succeeded" if ending == "succeeded" else "failed")


@pytest.mark.slow
def test_a_running_daemon_survives_a_bad_edit(project: Path, wait: Callable[..., None] = wait_for) -> None:
    with_jobs(project, GOOD)
    command = [sys.executable, "-m", "d2c_mlops", "schedule", "run"]
    with (project / "out.txt").open("w") as out:
        daemon = subprocess.Popen(command, cwd=project, stdout=out, stderr=out)
    try:
        wait(lambda: "1 job(s): good" in (project / "out.txt").read_text())
        (project / "settings.ini").write_text("[d2c]\n" + GOOD + section("bad", "at = 0 0 31 2 *"))
        wait(lambda: "bad is refused and is not run" in (project / "out.txt").read_text())
        assert daemon.poll() is None
    finally:
        daemon.terminate()
        assert daemon.wait(60) == 0


def test_a_file_without_the_section_d2c_is_read_and_read_again(project: Path, quick: list[Exception]) -> None:
    (project / "settings.ini").write_text(GOOD)
    settings = load_settings(project, environ={})
    assert settings.root == project and list(settings.jobs) == ["good"]
    said: list[str] = []
    made = Scheduler(settings, say=said.append, clock=Clock(), reload=lambda: load_settings(project, environ={}))
    (project / "settings.ini").write_text(GOOD + section("second", "at = hourly"))
    made._refreshed = float("-inf")
    made.poll()
    assert sorted(made.jobs) == ["good", "second"]
    finish(made)


@pytest.mark.parametrize("how", ["mode", "content"])
def test_a_file_is_read_again_although_its_time_is_the_same(
    project: Path, quick: list[Exception], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    edited, read = Edited(project, GOOD), Path.read_bytes
    text = "[d2c]\n" + GOOD + section("second", "at = hourly")
    if how == "mode":  # written while it may not be read, and made readable again

        def refused(path: Path) -> bytes:
            if path != edited.file:  # a run in another thread reads its notebook meanwhile
                return read(path)
            raise PermissionError(13, "Permission denied", str(path))

        with monkeypatch.context() as denied:
            denied.setattr(Path, "read_bytes", refused)
            edited.write(text)
            edited.poll()
        finish(edited.made)
        assert "the file cannot be read: Permission denied" in "".join(edited.said) and list(edited.made.jobs) == [
            "good"
        ]
        edited.file.chmod(0o640)
    else:
        before = edited.file.stat()
        edited.file.write_text(text)
        os.utime(edited.file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert Path.read_bytes is read
    edited.poll()
    assert sorted(edited.made.jobs) == ["good", "second"]
    finish(edited.made)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "cp1252"])
def test_an_edit_in_another_encoding_is_refused_and_the_jobs_go_on(
    project: Path, quick: list[Exception], encoding: str
) -> None:
    edited = Edited(project, GOOD)
    edited.file.write_bytes(("[d2c]\n# grün\n" + GOOD).encode(encoding))
    assert edited.poll() == 1 and list(edited.made.jobs) == ["good"]
    finish(edited.made)
    assert [line for line in edited.said if "the changed settings.ini is not used" in line and str(edited.file) in line]
