"""A batch answers as the service does, and the same batch again changes nothing, whatever happened in between."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pandera.pandas as pa
import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.data.sources.files import FileFormat
from d2c_mlops.errors import DataRefused, Temporary, UsageError
from d2c_mlops.models.core.contract import Contract, column
from d2c_mlops.registry.versions import Version, load_version
from d2c_mlops.serving.app.app import ServedModel, create_app
from d2c_mlops.serving.batch import sql_sink, webhook_sink
from d2c_mlops.serving.batch.contract_coercion import coerce_inputs
from d2c_mlops.serving.batch.record_source import read_records
from d2c_mlops.serving.batch.score import identity_columns, score
from d2c_mlops.serving.predict.predictor import InvalidPredictions
from d2c_mlops.serving.rollout.promotion import promote
from d2c_mlops.settings import Settings
from support.batches import asked
from support.local_client import LocalClient
from support.training import train

TRIALS = int(os.environ.get("CRASH_TRIALS", "3"))


@pytest.fixture
def version(settings: Settings) -> Version:
    made = train(settings)
    promote("mean_units", settings)
    return made


def table(url: str, name: str = "forecasts") -> pd.DataFrame:
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        found = pd.read_sql_query(sa.text(f"SELECT * FROM {name} ORDER BY product_id"), connection)
    engine.dispose()
    return found


def test_ten_thousand_answers_are_those_of_the_service_to_the_last_digit(settings, version, tmp_path):
    source = asked(tmp_path, 10_000)
    score(version, source, str(tmp_path / "out.parquet"), settings, chunk=3_000)
    batch = pd.read_parquet(tmp_path / "out.parquet")
    served = ServedModel(load_version(version, settings), "mean_units", version.version, {}, {})
    client = LocalClient(create_app(lambda: served))
    records = [{"product_id": one, "day": "2024-01-01"} for one in batch["product_id"]]
    online = client.post("/predict", json={"records": records}).json()["predictions"]
    assert batch["units"].tolist() == [one["units"] for one in online]
    assert batch["version"].unique().tolist() == [version.version]


def test_a_csv_file_is_read_and_written(settings, version, tmp_path):
    (tmp_path / "ask.csv").write_text("day,product_id\n2024-01-01,P001\n2024-01-02,P002\n")
    told = score(version, str(tmp_path / "ask.csv"), str(tmp_path / "out.csv"), settings)
    out = pd.read_csv(tmp_path / "out.csv")
    assert out["product_id"].tolist() == ["P001", "P002"]
    assert out["units"].tolist() == [load_version(version, settings).units[one] for one in out["product_id"]]
    assert told.written.inserted == 2
    again = score(version, str(tmp_path / "ask.csv"), str(tmp_path / "out.csv"), settings)
    assert (again.batch, again.written.unchanged, again.written.inserted) == (told.batch, 2, 0)


def test_records_that_break_the_contract_are_all_told_and_nothing_is_written(settings, version, tmp_path):
    (tmp_path / "ask.csv").write_text("product_id,day\nP001,2024-01-01\n,2024-01-01\nP003,yesterday\n")
    with pytest.raises(DataRefused) as refused:
        score(version, str(tmp_path / "ask.csv"), str(tmp_path / "out.csv"), settings)
    assert {each.where for each in refused.value.failures} == {"product_id", "day"}
    assert sorted(each.name for each in tmp_path.glob("*out*")) == []


def bigints(folder: Path, *ids: int | None) -> str:
    """Return a database's table of records whose key is a BIGINT column."""
    engine = sa.create_engine(f"sqlite:///{folder / 'ask.db'}")
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE ask (product_id BIGINT, day TEXT)"))
        for one in ids:
            connection.execute(sa.text("INSERT INTO ask VALUES (:id, '2024-01-01')"), {"id": one})
    engine.dispose()
    return f"sqlite:///{folder / 'ask.db'}::ask"


TWINS = (1239162456494753670, 1239162456494753671)


def test_keys_of_19_digits_arrive_in_every_sink_as_they_are(settings, version, tmp_path, hook):
    source = bigints(tmp_path, *TWINS)
    out = tmp_path / "out"
    for sink in (f"{out}.csv", f"{out}.parquet", f"sqlite:///{out}.db::forecasts", hook):
        assert score(version, source, sink, settings).written.inserted == 2
    expected = [str(one) for one in TWINS]
    assert pd.read_csv(f"{out}.csv", dtype="str")["product_id"].tolist() == expected
    assert pd.read_parquet(f"{out}.parquet")["product_id"].tolist() == expected
    assert table(f"sqlite:///{out}.db")["product_id"].tolist() == expected
    sent = [one["product_id"] for body in Hook.taken.values() for one in body["predictions"]]
    assert sorted(sent) == expected


def test_a_missing_key_in_a_bigint_column_is_named_by_its_row(settings, version, tmp_path):
    source = bigints(tmp_path, TWINS[0], None, TWINS[1])
    with pytest.raises(DataRefused) as refused:
        score(version, source, str(tmp_path / "out.csv"), settings)
    assert [(each.where, each.what) for each in refused.value.failures] == [
        ("product_id", "must not be empty: 1 value(s), rows 2")
    ]
    assert not (tmp_path / "out.csv").exists()


KINDS = Contract(
    "kinds", "1.0.0", "id",
    pa.DataFrameSchema({
        "id": column("string", "Which", pattern="[a-z]+"),
        "n": column("integer", "How many", nullable=True),
        "x": column("number", "How much", nullable=True),
        "yes": column("boolean", "Whether", nullable=True),
        "day": column("date", "Which day", nullable=True),
        "at": column("date-time", "When", nullable=True),
        "self": column("number", "A name of Python's", nullable=True),
    }),
    pa.DataFrameSchema({"id": column("string", "Which")}),
)  # fmt: skip
NOON = datetime(2024, 1, 2, 12)


@pytest.mark.parametrize(
    ("field", "value", "untyped"),
    [
        ("id", "abc\n", True), ("id", 1.5, False), ("id", True, False),
        ("n", "3", False), ("n", True, False), ("n", 1.5, False), ("n", "1.5", True),
        ("x", "inf", True), ("x", float("inf"), False), ("x", "3.0", False), ("x", True, False), ("x", NOON, False),
        ("yes", "perhaps", True), ("yes", 2, False), ("yes", NOON, False),
        ("day", "01/02/2024", True), ("day", "2024-13-01", True), ("day", "2024-01-02 10:00", True), ("day", 20240102, False),
        ("at", "2024-01-02T12:00:00", True), ("at", "01/02/2024 12:00Z", True), ("at", 1.7e9, False),
    ],
)  # fmt: skip
def test_a_table_holds_what_a_request_may_hold(field: str, value: object, untyped: bool):
    with pytest.raises(DataRefused) as refused:
        coerce_inputs(KINDS, pd.DataFrame({"id": ["abc"], **{field: [value]}}), "here", untyped)
    assert {each.where for each in refused.value.failures} == {field}


@pytest.mark.parametrize(
    ("field", "value", "untyped", "made"),
    [
        ("n", "3", True, 3), ("n", 3.0, False, 3), ("n", Decimal(3), False, 3),
        ("x", "3.5", True, 3.5), ("x", 3, False, 3.0), ("x", Decimal("3.5"), False, 3.5), ("self", 1.0, False, 1.0),
        ("yes", "Yes", True, True), ("yes", 0, False, False), ("yes", True, False, True),
        ("day", "2024-01-02", True, NOON.replace(hour=0)), ("day", NOON.date(), False, NOON.replace(hour=0)),
        ("day", "2024-01-02 00:00:00.000", False, NOON.replace(hour=0)),
        ("at", "2024-01-02T14:00:00+02:00", True, NOON.replace(tzinfo=UTC)), ("at", NOON, False, NOON.replace(tzinfo=UTC)),
        ("at", "2024-01-02 12:00:00", False, NOON.replace(tzinfo=UTC)),
    ],
)  # fmt: skip
def test_a_table_is_read_as_its_contract_says(field: str, value: object, untyped: bool, made: object):
    frame = coerce_inputs(KINDS, pd.DataFrame({"id": ["abc", "abd"], **{field: [value, None]}}), "here", untyped)
    assert list(frame.columns) == list(KINDS.inputs.columns)
    assert frame[field][0] == made and pd.isna(frame[field][1])


def test_what_the_model_refuses_leaves_the_former_file(settings, version, tmp_path):
    (tmp_path / "out.csv").write_text("former")
    with pytest.raises(DataRefused, match="2000"):
        score(version, asked(tmp_path, day="1999-01-01"), str(tmp_path / "out.csv"), settings)
    assert (tmp_path / "out.csv").read_text() == "former"
    assert not list(tmp_path.glob(".out*"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda made: made.iloc[1:],
        lambda made: made.iloc[::-1],
        lambda made: made.assign(units=float("inf")),
        lambda made: made.assign(units=made["units"].where(made.index > 0)),
    ],
)
def test_what_is_no_answer_leaves_the_former_file(settings, version, tmp_path, monkeypatch, spoil):
    (tmp_path / "out.csv").write_text("former")
    cls = type(load_version(version, settings))
    predict = cls.predict
    monkeypatch.setattr(cls, "predict", lambda self, records: spoil(predict(self, records)))
    with pytest.raises(InvalidPredictions):
        score(version, asked(tmp_path), str(tmp_path / "out.csv"), settings)
    assert (tmp_path / "out.csv").read_text() == "former"


@pytest.mark.parametrize("server", ["sqlite", "postgresql"])
def test_a_table_takes_what_is_new_and_changed_and_leaves_the_rest(server, settings, version, tmp_path, request):
    url = f"sqlite:///{tmp_path / 'shop.db'}" if server == "sqlite" else request.getfixturevalue("postgres")
    first = score(version, asked(tmp_path, 40), f"{url}::forecasts", settings, chunk=7)
    assert (first.written.inserted, first.written.updated) == (40, 0)
    before = table(url)
    again = score(version, asked(tmp_path, 40), f"{url}::forecasts", settings, chunk=7)
    assert (again.resumed_at, again.written.unchanged) == (0, 40)
    assert (again.written.inserted, again.written.updated) == (0, 0)
    pd.testing.assert_frame_equal(table(url), before)
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("UPDATE forecasts SET units = 99 WHERE product_id = 'P00003'"))
    more = score(version, asked(tmp_path, 45, "more.parquet"), f"{url}::forecasts", settings)
    assert (more.written.inserted, more.written.updated, more.written.unchanged) == (5, 1, 39)
    after = table(url)
    assert len(after) == 45
    assert after["units"].tolist()[:40] == before["units"].tolist()
    untouched = after["product_id"].isin(before["product_id"]) & (after["product_id"] != "P00003")
    assert after[untouched]["scored_at"].tolist() == before[before["product_id"] != "P00003"]["scored_at"].tolist()


def change(url: str, *statements: str) -> None:
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        for each in statements:
            connection.execute(sa.text(each))
    engine.dispose()


def test_a_finished_batch_is_compared_with_what_the_table_holds_now(settings, version, tmp_path):
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    score(version, asked(tmp_path, 10), f"{url}::forecasts", settings)
    before = table(url)
    change(
        url,
        "UPDATE forecasts SET units = 99 WHERE product_id = 'P00003'",
        "DELETE FROM forecasts WHERE product_id = 'P00004'",
    )
    again = score(version, asked(tmp_path, 10), f"{url}::forecasts", settings)
    assert (again.written.inserted, again.written.updated, again.written.unchanged) == (1, 1, 8)
    assert table(url)["units"].tolist() == before["units"].tolist()


def interrupted(count: int):
    """Return a progress that ends a batch once so many records are done."""

    def stop(done: int, total: int) -> None:
        if done >= count:
            raise KeyboardInterrupt

    return stop


def test_an_interrupted_batch_goes_on_unless_another_has_written_since(settings, version, tmp_path):
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    source, other = asked(tmp_path, 50), asked(tmp_path, 10, "other.parquet")

    def again(source: str, stop: int = 1000):
        return score(version, source, f"{url}::forecasts", settings, chunk=10, progress=interrupted(stop))

    with pytest.raises(KeyboardInterrupt):
        again(source, 20)
    with pytest.raises(KeyboardInterrupt):
        again(source, 30)
    again(other)
    change(url, "UPDATE forecasts SET units = 99 WHERE product_id = 'P00003'")
    told = again(source)
    assert (told.resumed_at, told.written.updated, told.written.inserted) == (0, 1, 20)


def test_an_interrupted_batch_goes_on_where_it_stopped(settings, version, tmp_path):
    url = f"sqlite:///{tmp_path / 'shop.db'}::forecasts"
    with pytest.raises(KeyboardInterrupt):
        score(version, asked(tmp_path, 50), url, settings, chunk=10, progress=interrupted(20))
    told = score(version, asked(tmp_path, 50), url, settings, chunk=10)
    assert (told.resumed_at, told.written.inserted, told.written.unchanged) == (20, 30, 20)


def test_of_two_batches_into_one_table_at_once_neither_goes_on_from_its_note(settings, version, tmp_path):
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    source, other = asked(tmp_path, 50), asked(tmp_path, 10, "other.parquet")

    def meanwhile(done: int, total: int) -> None:
        if done == 20:
            score(version, other, f"{url}::forecasts", settings)
        interrupted(40)(done, total)

    with pytest.raises(KeyboardInterrupt):
        score(version, source, f"{url}::forecasts", settings, chunk=10, progress=meanwhile)
    assert score(version, source, f"{url}::forecasts", settings, chunk=10).resumed_at == 0


def test_a_row_that_another_batch_was_quicker_to_write_is_compared_with_it(settings, version, tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    score(version, asked(tmp_path, 10), f"{url}::forecasts", settings)
    known, looks = sql_sink._Table._existing_rows, iter(["too early"])
    monkeypatch.setattr(sql_sink._Table, "_existing_rows", lambda *given: {} if next(looks, None) else known(*given))
    told = score(version, asked(tmp_path, 12, "more.parquet"), f"{url}::forecasts", settings)
    assert (told.written.inserted, told.written.unchanged) == (2, 10)


def test_a_value_that_the_table_does_not_take_is_told_as_such(settings, version, tmp_path):
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    score(version, asked(tmp_path, 1), f"{url}::forecasts", settings)
    change(
        url,
        "CREATE TRIGGER full BEFORE INSERT ON forecasts BEGIN SELECT RAISE(ABORT, 'NOT NULL constraint failed'); END",
    )
    with pytest.raises(DataRefused, match=r"does not take a value \(NOT NULL"):
        score(version, asked(tmp_path, 2, "more.parquet"), f"{url}::forecasts", settings)


def test_what_a_model_raises_is_not_blamed_on_the_database(settings, version, tmp_path, monkeypatch):
    monkeypatch.setattr(type(load_version(version, settings)), "predict", lambda self, frame: int("three"))
    with pytest.raises(ValueError, match="three"):
        score(version, asked(tmp_path), f"sqlite:///{tmp_path / 'shop.db'}::forecasts", settings)


def test_a_day_that_may_be_missing_is_no_part_of_a_tables_key():
    day = column("date", "The day", nullable=True)
    schema = pa.DataFrameSchema({"id": column("string", "Who"), "day": day, "asked": column("date", "Asked for")})
    made = Contract("visits", "1.0.0", "id", schema, schema)
    assert identity_columns(made) == ("id", "day", "asked")
    assert identity_columns(made, nullable=False) == ("id", "asked")


def test_a_source_is_not_overwritten_by_its_answers(settings, version, tmp_path):
    source = Path(asked(tmp_path, 5))
    before = source.read_bytes()
    (tmp_path / "link.parquet").symlink_to(source)
    (tmp_path / "sub").mkdir()
    for place, sink in (
        (source, source),
        (source, tmp_path / "link.parquet"),
        (source, tmp_path / "sub" / ".." / source.name),
    ):
        with pytest.raises(UsageError, match="overwrite"):
            score(version, str(place), str(sink), settings)
    assert source.read_bytes() == before


def test_a_table_that_was_dropped_is_written_again(settings, version, tmp_path):
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    score(version, asked(tmp_path), f"{url}::forecasts", settings)
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("DROP TABLE forecasts"))
    assert score(version, asked(tmp_path), f"{url}::forecasts", settings).written.inserted == 50


def test_two_records_for_one_row_are_refused(settings, version, tmp_path):
    path = tmp_path / "ask.csv"
    path.write_text("product_id,day\nP001,2024-01-01\nP001,2024-01-02\n")
    with pytest.raises(DataRefused, match="one row per product_id"):
        score(version, str(path), f"sqlite:///{tmp_path / 'shop.db'}::forecasts", settings)


def test_a_table_of_another_shape_is_refused(settings, version, tmp_path):
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    with sa.create_engine(url).begin() as connection:
        connection.execute(sa.text("CREATE TABLE forecasts (product_id TEXT PRIMARY KEY, price REAL)"))
    with pytest.raises(UsageError) as refused:
        score(version, asked(tmp_path), f"{url}::forecasts", settings)
    assert {each.where for each in refused.value.failures} >= {"units", "primary key"}


KILLED = """
import sys
from pathlib import Path
from d2c_mlops.serving.batch import score as batch
from d2c_mlops.settings import load_settings
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.registry.promotion_history import live_version
held = load_settings(Path(sys.argv[1]), environ={})
print("ready", flush=True)
batch.score(live_version(Ledger.of(held), "mean_units"), sys.argv[2], sys.argv[3], held, chunk=20)
"""


@pytest.mark.slow
@pytest.mark.parametrize("trial", range(TRIALS))
def test_kill_9_of_a_batch_leaves_each_answer_once(trial, settings, version, tmp_path, project):
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    source = asked(tmp_path, 2_000)
    command = [sys.executable, "-c", KILLED, str(project), source, f"{url}::forecasts"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.2 + 3.0 * trial / TRIALS)
        child.send_signal(signal.SIGKILL)
    done = score(version, source, f"{url}::forecasts", settings, chunk=20)
    assert done.resumed_at % 20 == 0
    assert done.written.inserted + done.written.unchanged == 2_000, "one that was finished is compared"
    assert done.written.updated == 0
    found = table(url)
    assert found["product_id"].is_unique
    assert len(found) == 2_000


class Hook(BaseHTTPRequestHandler):
    answers: ClassVar[list[int]] = []
    taken: ClassVar[dict[str, dict]] = {}
    tokens: ClassVar[set[str]] = set()
    seen: ClassVar[list[str]] = []  # idempotency keys, also of what was refused

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.seen.append(self.headers["idempotency-key"])
        status = self.answers.pop(0) if self.answers else 200
        if status == 200:
            self.taken[self.headers["idempotency-key"]] = body
            self.tokens.add(self.headers.get("authorization", ""))
        self.send_response(status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    Hook.answers, Hook.taken, Hook.tokens, Hook.seen = [], {}, set(), []
    monkeypatch.setattr(webhook_sink, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(webhook_sink, "AT_ONCE", 20)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/scores"
    server.shutdown()
    server.server_close()


def test_a_web_hook_that_is_away_for_a_moment_gets_all_answers_once(settings, version, tmp_path, hook, monkeypatch):
    monkeypatch.setenv("D2C_WEBHOOK_TOKEN", "hush")
    Hook.answers = [503, 200, 429, 200]
    told = score(version, asked(tmp_path, 50), hook, settings)
    assert told.written.inserted == 50
    got = [
        one["product_id"]
        for body in sorted(Hook.taken.values(), key=lambda b: b["first"])
        for one in body["predictions"]
    ]
    assert got == [f"P{i:05}" for i in range(50)]
    assert Hook.tokens == {"Bearer hush"}
    Hook.taken.clear()
    assert score(version, asked(tmp_path, 50), hook, settings).written.inserted == 0
    assert Hook.taken == {}


def test_a_web_hook_that_stays_away_is_gone_on_with_later(settings, version, tmp_path, hook):
    Hook.answers = [200, *[503] * webhook_sink.TRIES]
    with pytest.raises(Temporary, match="number 20"):
        score(version, asked(tmp_path, 50), hook, settings)
    told = score(version, asked(tmp_path, 50), hook, settings)
    assert (told.written.unchanged, told.written.inserted) == (20, 30)


def test_what_a_web_hook_refuses_is_kept_as_dead_letters(settings, version, tmp_path, hook):
    Hook.answers = [200, 422]
    told = score(version, asked(tmp_path, 50), hook, settings)
    assert (told.written.inserted, told.written.dead) == (30, 20)
    letters = [json.loads(line) for line in Path(told.written.letters).read_text().splitlines()]
    assert [each["number"] for each in letters] == list(range(20, 40))
    assert {each["why"] for each in letters} == {"HTTP 422"}


def test_dead_letters_are_sent_again_by_the_same_command(settings, version, tmp_path, hook):
    Hook.answers = [200, 422]
    letters = Path(score(version, asked(tmp_path, 50), hook, settings).written.letters)
    assert oct(letters.stat().st_mode & 0o777) == "0o600"
    keys = set(Hook.seen)
    Hook.answers = [400]
    assert score(version, asked(tmp_path, 50), hook, settings).written.dead == 20
    assert len(letters.read_text().splitlines()) == 20
    Hook.taken.clear()
    told = score(version, asked(tmp_path, 50), hook, settings)
    assert (told.written.inserted, told.written.unchanged, told.written.dead) == (20, 30, 0)
    ((key, body),) = Hook.taken.items()
    assert [one["product_id"] for one in body["predictions"]] == [f"P{i:05}" for i in range(20, 40)]
    assert key not in keys, "a receiver that remembers what it said to a key would say the same"
    assert not letters.exists()


def test_a_sender_that_is_not_known_stops_the_batch(settings, version, tmp_path, hook):
    Hook.answers = [200, 401]
    with pytest.raises(UsageError, match="D2C_WEBHOOK_TOKEN"):
        score(version, asked(tmp_path, 50), hook, settings)
    told = score(version, asked(tmp_path, 50), hook, settings)
    assert (told.written.inserted, told.written.unchanged, told.written.dead) == (30, 20, 0)


def test_what_was_last_sent_about_a_key_decides_whether_it_is_sent(settings, version, tmp_path, hook, monkeypatch):
    kind, source, used = type(load_version(version, settings)), asked(tmp_path, 50), set()
    real = kind.predict
    for turn, news in enumerate(("inserted", "updated", "updated", "updated", "updated")):
        add = turn % 2
        monkeypatch.setattr(kind, "predict", lambda self, frame, add=add: real(self, frame).assign(units=lambda f: f["units"] + add * (f["product_id"] < "P00030")))  # fmt: skip
        Hook.taken.clear()
        told = score(version, source, hook, settings)
        count = 30 if turn else 50
        assert (getattr(told.written, news), told.written.unchanged) == (count, 50 - count)
        assert not used & set(Hook.taken), "a receiver would take it for a call that it has had"
        used |= set(Hook.taken)
        Hook.taken.clear()
        assert score(version, source, hook, settings).written.unchanged == 50 and not Hook.taken


def test_a_call_that_was_taken_but_not_noted_is_repeated_under_its_key(settings, version, tmp_path, hook, monkeypatch):
    note = webhook_sink.DeliveryLog.record
    monkeypatch.setattr(webhook_sink.DeliveryLog, "record", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        score(version, asked(tmp_path, 50), hook, settings)
    monkeypatch.setattr(webhook_sink.DeliveryLog, "record", note)
    score(version, asked(tmp_path, 50), hook, settings)
    assert Hook.seen[0] == Hook.seen[1] and len(Hook.taken) == 3


def test_records_of_one_key_are_told_apart(settings, version, tmp_path, hook):
    (tmp_path / "ask.csv").write_text("product_id,day\nP001,2024-01-01\nP001,2024-01-02\n")
    assert score(version, str(tmp_path / "ask.csv"), hook, settings).written.inserted == 2
    assert score(version, str(tmp_path / "ask.csv"), hook, settings).written.unchanged == 2


def test_answers_do_not_go_over_an_open_line(settings, version, tmp_path):
    with pytest.raises(UsageError, match="unencrypted connection"):
        score(version, asked(tmp_path), "http://crm.example/hook", settings)


def test_the_command_tells_what_was_written(settings, version, tmp_path):
    done = CliRunner().invoke(main, ["score", "mean_units", asked(tmp_path), "out.csv"])
    assert done.exit_code == 0, done.output
    assert "predicted 50 records: 50 new, 0 changed, 0 unchanged in out.csv" in done.output
    told = json.loads(CliRunner().invoke(main, ["score", "mean_units", asked(tmp_path), "out.csv", "--json"]).stdout)
    assert (told["records"], told["unchanged"]) == (50, 50)
    unknown = CliRunner().invoke(main, ["score", "mean_units", asked(tmp_path), "out.docx"])
    assert unknown.exit_code == 2


def priced(folder: Path, text: str, **form: str) -> pd.DataFrame:
    """Return what the contract KINDS makes of a text file of records."""
    (folder / "ask.csv").write_text(text)
    read = read_records(str(folder / "ask.csv"), KINDS, FileFormat(**form))
    return coerce_inputs(KINDS, read.frame, "ask.csv", read.untyped)


@pytest.mark.parametrize(
    ("rows", "form", "x"),
    [
        ("a;1.234,50\nb;2,5\n", {}, [1234.5, 2.5]),
        ("a;1.200\nb;2,5\n", {}, [1200.0, 2.5]),
        ("a;1.200\nb;2.500\n", {"decimal": ","}, [1200.0, 2500.0]),
        ("a;1.200\nb;2.500\n", {"decimal": "."}, [1.2, 2.5]),
        ("a;1.200\nb;2.5\n", {}, [1.2, 2.5]),
        ("a;1'200.5\nb;2.5\n", {}, [1200.5, 2.5]),
    ],
)
def test_numbers_of_records_are_read_as_an_ingest_reads_them(tmp_path, rows, form, x):
    assert priced(tmp_path, "id;x\n" + rows, **form)["x"].tolist() == x


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("id;x\na;1.200\nb;2.500\n", "can be read in two ways, declare the decimal mark"),
        ("id,day\na,01/02/2024\nb,03/04/2024\n", "day and month cannot be told apart"),
        ("id;x\na;1,5\nb;2.5\n", "decimal point and decimal comma in one column"),
        ("id,x\nABE,1\n4.00638E+12,2\n", "an identifier in scientific notation has lost digits: line 3"),
    ],
)
def test_cells_of_records_that_mean_two_things_are_refused_with_their_line(tmp_path, text, told):
    with pytest.raises(DataRefused) as refused:
        priced(tmp_path, text)
    (failure,) = refused.value.failures
    assert told in failure.what
    assert "line" in failure.what


@pytest.mark.parametrize(("dates", "day"), [("dmy", "2024-02-01"), ("mdy", "2024-01-02")])
def test_the_order_of_day_and_month_of_records_can_be_declared(tmp_path, dates, day):
    frame = priced(tmp_path, "id,day\na,01/02/2024\n", dates=dates)
    assert frame["day"].dt.strftime("%Y-%m-%d").tolist() == [day]


def test_faults_of_records_are_named_by_their_line(tmp_path):
    with pytest.raises(DataRefused) as refused:
        priced(tmp_path, "id;n;x\na;1;2,5\n\nb;2;x\nc;1,5;1,0\n;1;1,0\n")
    found = [str(each) for each in refused.value.failures]
    assert "id: must not be empty: 1 value(s), lines 6" in found
    assert "x: is not a number: 1 value(s), lines 4, e.g. 'x'" in found
    assert any(each.startswith("n: ") and "1 value(s), lines 5, e.g. '1.5'" in each for each in found)


def test_a_csv_file_in_an_archive_is_text_too(tmp_path):
    with zipfile.ZipFile(tmp_path / "ask.zip", "w") as file:
        file.writestr("records/ask.csv", "id;n;x\na;3;1.234,5\n")
    read = read_records(str(tmp_path / "ask.zip"), KINDS)
    frame = coerce_inputs(KINDS, read.frame, "ask.zip", read.untyped)
    assert (frame["n"].tolist(), frame["x"].tolist()) == ([3], [1234.5])


def test_the_command_takes_what_is_declared_of_a_text_file(settings, version, tmp_path):
    (tmp_path / "ask.csv").write_bytes("product_id;day;note\nP001;01/02/2024;M\xfcller\n".encode("cp1252"))
    arguments = ["score", "mean_units", str(tmp_path / "ask.csv"), str(tmp_path / "out.csv")]
    refused = CliRunner().invoke(main, arguments, env={"D2C_HOME": str(tmp_path)})
    assert (
        "day and month cannot be told apart, declare their order (--dates dmy or --dates mdy): line 2" in refused.output
    )
    taken = CliRunner().invoke(main, [*arguments, "--dates", "dmy", "--encoding", "cp1252", "--decimal", ","])
    assert taken.exit_code == 0
    assert "dates in day are read as day, month, year" in taken.output
    assert pd.read_csv(tmp_path / "out.csv")["product_id"].tolist() == ["P001"]
