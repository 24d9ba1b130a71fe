"""What a slot gives its notebook: as_of in the dataset's zone, a key that is the same at every attempt, dates by template."""

import json
import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.data.manifest import Manifest, TableParts
from d2c_mlops.errors import SettingsError, Temporary
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution import slot_rows
from d2c_mlops.runs.execution.execute import run
from d2c_mlops.runs.execution.run_rows import latest_runs
from d2c_mlops.runs.schedule.jobs import scheduled_job
from d2c_mlops.runs.schedule.slot_parameters import slot_parameters
from d2c_mlops.settings import Settings, load_settings
from support.notebooks import write
from support.scheduling import NOW, SLOT, Clock, call, finish, scheduler

TRAIN = 'from datetime import date\nmodel: str = "mean_units"\ndata: str = ""\nas_of: date | None = None\nslot_key: str = ""'


def dataset(project: Path, name: str, zone: str, last: date = date(2027, 1, 1)) -> None:
    """Put the manifest of an empty dataset with a time zone on disk."""
    table = TableParts(rows=0, min_date=date(2024, 1, 1), max_date=last, columns=(), parts=())
    made = Manifest(name, "0" * 64, "x", "canonical", NOW, {"orders": table}, zone=zone)
    folder = project / "d2c_store/data" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(made.to_json())


def with_job(project: Path, *lines: str, cell: str = TRAIN) -> Settings:
    write(project / "nb.ipynb", cell)
    text = "[d2c]\npackages = toyshop\n[model:mean_units]\ndata = shop\n[schedule:train_it]\nrun = nb.ipynb\n"
    (project / "settings.ini").write_text(text + "".join(f"{line}\n" for line in ("at = daily at 06:00", *lines)))
    return load_settings(project, environ={})


def given(settings: Settings, slot: datetime) -> dict[str, str]:
    return slot_parameters(scheduled_job(settings, "train_it"), slot, None, settings).values


@pytest.mark.parametrize(
    ("zone", "slot", "as_of"),
    [
        ("UTC", "2026-11-22T05:00", "2026-11-21"),
        ("America/Los_Angeles", "2026-11-22T05:00", "2026-11-20"),
        ("America/Los_Angeles", "2026-11-22T08:00", "2026-11-21"),
        ("America/Los_Angeles", "2026-11-22T07:59", "2026-11-20"),
        ("Pacific/Auckland", "2026-11-22T12:00", "2026-11-22"),
        ("UTC+09:00", "2026-11-22T15:00", "2026-11-22"),
        ("UTC", "2026-03-01T00:00", "2026-02-28"),
    ],
)
def test_as_of_is_the_last_day_that_was_over_in_the_datasets_zone(
    project: Path, zone: str, slot: str, as_of: str
) -> None:
    settings = with_job(project, "zone = Europe/Berlin")
    dataset(project, "shop", zone)
    assert given(settings, datetime.fromisoformat(slot).replace(tzinfo=UTC))["as_of"] == as_of


def test_the_dataset_is_the_one_that_the_run_will_read(project: Path) -> None:
    dataset(project, "shop", "UTC")
    dataset(project, "west", "America/Los_Angeles")
    dataset(project, "sample", "Pacific/Auckland")
    assert given(with_job(project), SLOT)["as_of"] == "2026-11-21"
    assert given(with_job(project, "params.data = west"), SLOT)["as_of"] == "2026-11-20"
    assert given(with_job(project, "params.model = other"), SLOT + timedelta(hours=8))["as_of"] == "2026-11-22"
    no_data = "from datetime import date\nas_of: date | None = None"
    settings = with_job(project, "zone = Asia/Tokyo", cell=no_data)
    assert given(settings, SLOT + timedelta(hours=11))["as_of"] == "2026-11-22"  # the job's zone


def test_an_offset_is_added_what_is_given_wins_and_nothing_undeclared_is_passed(project: Path) -> None:
    assert given(with_job(project, "as_of_offset = -2"), SLOT)["as_of"] == "2026-11-19"
    assert given(with_job(project, "params.as_of = 2025-01-01"), SLOT)["as_of"] == "2025-01-01"
    assert given(with_job(project, cell="who: str = ''"), SLOT) == {}
    with pytest.raises(SettingsError, match="later than the last day"):
        with_job(project, "as_of_offset = 1")


def test_templates_have_the_day_the_key_and_the_slot_in_the_jobs_zone(project: Path) -> None:
    lines = ["params.a = {as_of}", "params.b = {as_of:%Y%m}", "params.c = {slot:%H:%M}", "params.d = {slot_key}/{job}"]
    cell = "a: str = ''\nb: str = ''\nc: str = ''\nd: str = ''"
    settings = with_job(project, "zone = Europe/Berlin", "as_of_offset = -1", *lines, cell=cell)
    assert given(settings, SLOT) == {
        "a": "2026-11-20", "b": "202611", "c": "06:00", "d": "train_it-20261122T050000Z/train_it",
    }  # fmt: skip


def test_a_backfill_trains_as_of_each_of_its_days(project: Path, quick: list[Exception]) -> None:
    settings = with_job(project, "concurrency = 4")
    dataset(project, "shop", "America/New_York")
    days = ["--from", "2026-11-01", "--to", "2026-11-04"]
    assert CliRunner().invoke(main, ["schedule", "backfill", "train_it", *days]).exit_code == 0
    made = scheduler(settings, Clock(SLOT - timedelta(hours=2)))
    for _ in range(6):
        made.poll(), finish(made)
    as_of = {f"{run.slot:%m-%d}": run.parameters["as_of"] for run in latest_runs(made.ledger) if run.slot.day < 5}
    assert as_of == {f"11-0{n}": str(date(2026, 11, n) - timedelta(days=1)) for n in (1, 2, 3, 4)}


def test_data_that_end_before_as_of_are_told(project: Path, quick: list[Exception]) -> None:
    settings = with_job(project)
    dataset(project, "shop", "UTC", last=date(2024, 12, 31))
    said: list[str] = []
    made = scheduler(settings, Clock(SLOT.replace(hour=6, minute=1)))
    made.say = said.append
    made.poll(), finish(made)
    assert any("the data of 'shop' end on 2024-12-31, before as_of 2026-11-21" in line for line in said)


def test_attempts_share_a_key_and_other_slots_and_jobs_have_their_own(project: Path, quick: list[Exception]) -> None:
    text = "[schedule:other]\nrun = nb.ipynb\nat = daily at 06:00\n"
    with_job(project, "retries = 3", "backoff = 1")
    with (project / "settings.ini").open("a") as file:
        file.write(text)
    settings = load_settings(project, environ={})
    quick += [Temporary("away"), Temporary("away")]
    clock = Clock(NOW.replace(hour=6))
    call(settings, clock=clock, name="train_it", wait_for_slot=True)
    call(settings, clock=clock, name="other")
    clock.now += timedelta(days=1)
    call(settings, clock=clock, name="train_it")
    keys = [
        (r.job, r.slot.day, r.attempt, r.parameters["slot_key"]) for r in reversed(latest_runs(Ledger.of(settings)))
    ]
    assert sorted(keys) == [
        ("other", 22, 1, "other-20261122T060000Z"),
        ("train_it", 22, 1, "train_it-20261122T060000Z"),
        ("train_it", 22, 2, "train_it-20261122T060000Z"),
        ("train_it", 22, 3, "train_it-20261122T060000Z"),
        ("train_it", 23, 1, "train_it-20261123T060000Z"),
    ]


def test_keys_of_slots_tell_moments_apart_whatever_their_zone() -> None:
    moments = [SLOT, SLOT + timedelta(seconds=1), SLOT + timedelta(microseconds=5), SLOT + timedelta(days=365)]
    assert len({slot_rows.slot_key("a", each) for each in moments}) == len(moments)
    assert slot_rows.slot_key("a", SLOT) == slot_rows.slot_key("a", SLOT.astimezone()) != slot_rows.slot_key("b", SLOT)
    assert re.fullmatch(r"[a-z0-9_.TZ-]+", slot_rows.slot_key("a_b", moments[2]))


@pytest.mark.slow
def test_the_key_is_in_the_environment_of_a_slots_run_and_in_no_other(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = "from d2c_mlops.runs.recording import record, slot_key as key\nrecord(parameter=slot_key, environment=key())"
    settings = with_job(project)
    write(project / "nb.ipynb", TRAIN, cell)
    (slot,) = call(settings, clock=Clock(NOW.replace(hour=6)), name="train_it")
    monkeypatch.setenv("D2C_SLOT_KEY", "of the run that started this one")
    by_hand = run("nb.ipynb", {}, settings)
    first = next(r for r in latest_runs(Ledger.of(settings)) if r.id == slot.run_id)
    assert first.recorded == {"parameter": "train_it-20261122T060000Z", "environment": "train_it-20261122T060000Z"}
    assert by_hand.recorded == {"parameter": "", "environment": ""}


def test_why_finds_the_slots_of_a_day_in_the_jobs_zone(scheduled: Settings) -> None:
    def why(*args: str) -> str:
        done = CliRunner().invoke(main, ["schedule", "why", "report", *args])
        assert done.exit_code == 0, done.output
        return done.output

    ledger = Ledger.of(scheduled)
    late = datetime(2026, 11, 22, 23, 30, tzinfo=UTC)  # the 23rd in Berlin
    slot_rows.known_jobs(ledger, ["report"], NOW)
    slot_rows.add_slots(ledger, "report", {SLOT: ("waiting", "due"), late: ("waiting", "triggered by hand")}, NOW)
    assert "report 2026-11-22T06:00+01:00 waiting: due" in why("2026-11-22") and "hand" not in why("2026-11-22")
    assert "report 2026-11-23T00:30+01:00 waiting: triggered by hand" in why("2026-11-23")
    assert "2026-11-22 06:00:30+01:00  waiting: due" in why("2026-11-22T06:00")
    assert "1 slot(s) on 2099-01-01, from 2099-01-01T06:00+01:00, not due yet" in why("2099-01-01")
    assert "not on record" in why("2026-01-01")
    told = json.loads(why("2026-11-23", "--json"))
    assert [each["slot"] for each in told["slots"]] == [late.isoformat()] and told["zone"] == "Europe/Berlin"


@pytest.mark.parametrize("text", ["[d2c]\n", "[d2c]\n[schedule:report]\nrun = nb.ipynb\nat = 0 0 31 2 *\n"])
def test_why_knows_the_slots_of_a_job_that_is_gone_or_refused(scheduled: Settings, project: Path, text: str) -> None:
    ledger = Ledger.of(scheduled)
    slot_rows.known_jobs(ledger, ["report"], NOW)
    slot_rows.add_slots(ledger, "report", {SLOT: ("waiting", "due")}, NOW)
    (project / "settings.ini").write_text(text)
    done = CliRunner().invoke(main, ["schedule", "why", "report", "2026-11-22"])
    assert done.exit_code == 0 and "report 2026-11-22T05:00+00:00 waiting: due" in done.output
    assert CliRunner().invoke(main, ["schedule", "why", "nobody", "2026-11-22"]).exit_code == 2


def test_why_says_what_becomes_of_the_31st_in_a_short_month(scheduled: Settings, project: Path) -> None:
    ini = project / "settings.ini"
    ini.write_text(ini.read_text().replace("daily at 06:00", "monthly on 31 06:00"))
    done = CliRunner().invoke(main, ["schedule", "why", "report", "2026-02-28"])
    assert "has no slot on 2026-02-28" in done.output and "not in February" in done.output
    assert "next slot: 2026-03-31T06:00+02:00" in done.output
    assert "not in February" in CliRunner().invoke(main, ["schedule", "list"]).output
    assert "31st" in CliRunner().invoke(main, ["schedule", "--help"]).output


def test_a_slot_that_waits_names_the_job_that_it_waits_for(
    scheduled: Settings, quick: list[Exception], project: Path
) -> None:
    with (project / "settings.ini").open("a") as file:
        file.write("[schedule:second]\nrun = nb.ipynb\nat = daily at 06:00\nzone = Europe/Berlin\nafter = report\n")
        file.write("timeout = 10\n")
    settings = load_settings(project, environ={})
    said: list[str] = []
    with pytest.raises(Temporary, match="waits for report, whose slot 2026-11-22T06:00"):
        call(settings, name="second")
    quick.append(Temporary("away"))
    made = scheduler(settings, Clock())
    made.say = said.append
    made.poll(), finish(made), made.poll(), made.poll()
    assert (
        len([s for s in said if "second 2026-11-22T06:00+01:00: waits for report" in s and "failed temporarily" in s])
        == 1
    )
    done = CliRunner().invoke(main, ["schedule", "why", "second", "2026-11-22"])
    assert "waits for report, whose slot 2026-11-22T06:00+01:00 is waiting" in done.output


def test_times_are_shown_in_the_jobs_zone_with_their_offset(
    scheduled: Settings, quick: list[Exception], project: Path
) -> None:
    made = scheduler(scheduled, Clock())
    said: list[str] = []
    made.say = said.append
    made.poll(), finish(made)
    assert all(line.startswith("report 2026-11-22T06:00+01:00: ") for line in said) and said
    for args in (["list"], ["backfill", "report", "--from", "2026-07-01", "--to", "2026-07-01"]):
        done = CliRunner().invoke(main, ["schedule", *args])
        assert re.search(r"\d\dT06:00\+0[12]:00", done.output), done.output


def test_a_days_backfill_ends_with_the_day_also_where_it_has_25_hours(scheduled: Settings, project: Path) -> None:
    ini = project / "settings.ini"
    ini.write_text(ini.read_text().replace("daily at 06:00", "hourly"))
    for day, hours in (("2026-10-25", 25), ("2026-03-29", 23), ("2026-11-01", 24)):
        done = CliRunner().invoke(main, ["schedule", "backfill", "report", "--from", day, "--to", day, "--json"])
        assert len(json.loads(done.output)["slots"]) == hours
