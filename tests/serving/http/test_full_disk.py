"""A full disk harms only what needs it: kept answers are limited, the log has its space, and everybody else is answered."""

import errno
import json
import os
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from d2c_mlops.cli import main
from d2c_mlops.errors import SettingsError
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.serving.app.app import ServiceContext
from d2c_mlops.serving.http import idempotency as kept
from d2c_mlops.serving.http.idempotency import CALLER, SIZE, Full, IdempotencyStore, request_identity
from d2c_mlops.serving.log import log_segments as logbook
from d2c_mlops.serving.log.log_collection import collect_log_folder
from d2c_mlops.serving.log.log_segments import Logbook, seal_abandoned_segments
from d2c_mlops.serving.predict.privacy import body_key, decrypt_answer, encrypt_answer
from d2c_mlops.settings import load_settings
from support.lead_service import ASK, asking, logged

SCOPE = "leads/predict {}"


def usage(held: IdempotencyStore) -> tuple[dict[str, int], dict[str, int]]:
    """Return what is counted for each caller, and what a scan of all rows gives."""
    counted = dict(held.db.execute("SELECT caller, bytes FROM usage WHERE bytes > 0").fetchall())
    scan = f"SELECT {CALLER.format('a')}, sum({SIZE.format('a')}) FROM answers a GROUP BY 1"
    return counted, dict(held.db.execute(scan).fetchall())


def full_for(held: IdempotencyStore) -> None:
    """Let SQLite find no further page, as on a full disk."""
    held.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    pages = held.db.execute("PRAGMA page_count").fetchone()[0]
    held.db.execute(f"PRAGMA max_page_count = {pages}")


# --- limits of kept answers


def test_a_caller_that_keeps_too_much_is_refused_and_others_are_not(tmp_path: Path) -> None:
    held = IdempotencyStore(tmp_path / "kept.db", most=10**6, most_each=5_000)
    for number in range(4):
        held.begin(SCOPE.format("a"), f"k{number}", "d")
        held.store_answer(SCOPE.format("a"), f"k{number}", "d", bytes(1_100))
    for scope in (SCOPE.format("a"), "leads/explain a"):
        with pytest.raises(Full, match="this API key's stored answers") as refused:
            held.begin(scope, "new", "d")
        assert 1 <= refused.value.wait <= kept.LONGEST_WAIT
    assert held.begin(SCOPE.format("a"), "k2", "d")[1] == bytes(1_100)  # what was promised holds
    assert held.begin(SCOPE.format("b"), "new", "d")[1] == b""


def test_all_kept_answers_together_are_limited(tmp_path: Path) -> None:
    held = IdempotencyStore(tmp_path / "kept.db", most=5_000, most_each=4_000)
    for caller in "abc":
        held.begin(SCOPE.format(caller), "k", "d")
        held.store_answer(SCOPE.format(caller), "k", "d", bytes(1_500))
    with pytest.raises(Full, match="all stored answers"):
        held.begin(SCOPE.format("d"), "k", "d")


def test_calls_that_are_refused_count_as_well(tmp_path: Path) -> None:
    held = IdempotencyStore(tmp_path / "kept.db", most_each=10 * kept.ROW)
    with pytest.raises(Full):
        for number in range(11):
            held.begin(SCOPE.format("a"), f"k{number}", "d")
    assert number == 10


def test_old_answers_give_their_space_back_without_a_thousand_new_ones(tmp_path: Path, monkeypatch) -> None:
    held, now = IdempotencyStore(tmp_path / "kept.db", most_each=5_000), time.time()
    held.begin(SCOPE.format("a"), "old", "d")
    held.store_answer(SCOPE.format("a"), "old", "d", bytes(4_900))
    with pytest.raises(Full):
        held.begin(SCOPE.format("a"), "new", "d")
    monkeypatch.setattr(kept.time, "time", lambda: now + kept.KEEP + 60)
    assert held.begin(SCOPE.format("a"), "new", "d")[1] == b""
    assert [key for (key,) in held.db.execute("SELECT key FROM answers")] == ["new"]


MOVES = st.lists(
    st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(0, 300), st.booleans()), max_size=12
)


@given(MOVES)
def test_what_is_counted_is_what_is_kept(moves) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as name:
        held = IdempotencyStore(Path(name, "kept.db"))
        for caller, key, size, remove in moves:
            held.begin(SCOPE.format(caller), key, "d")
            held.store_answer(SCOPE.format(caller), key, "d", bytes(size))
            if remove:
                held.db.execute("DELETE FROM answers WHERE key = ?", (key,))
        assert usage(held)[0] == usage(held)[1]
        held.close()


def test_a_file_of_before_is_counted_and_still_answers(tmp_path: Path) -> None:
    file = tmp_path / "kept.db"
    old = sqlite3.connect(file)
    columns = "scope TEXT, key TEXT, digest TEXT NOT NULL, answer BLOB NOT NULL, at REAL NOT NULL"
    old.execute(f"CREATE TABLE answers ({columns}, PRIMARY KEY (scope, key)) WITHOUT ROWID")
    old.execute("INSERT INTO answers VALUES ('leads/predict a', 'k', 'd', CAST('answer' AS BLOB), ?)", (time.time(),))
    old.commit()
    held = IdempotencyStore(file, most_each=kept.ROW + 10)
    assert held.begin(SCOPE.format("a"), "k", "d")[1] == b"answer" and usage(held)[0] == usage(held)[1] != {}
    old.execute("INSERT INTO answers VALUES ('leads/predict b', 'k', 'd', CAST('answer' AS BLOB), ?)", (time.time(),))
    old.commit()  # a worker of before beside a new one
    assert usage(held)[0] == usage(held)[1]
    with pytest.raises(Full):
        held.begin(SCOPE.format("a"), "other", "d")


@pytest.mark.parametrize("line", ["kept_bytes = 0", "kept_key_bytes = -1", "kept_bytes = many"])
def test_limits_that_cannot_be_meant_are_refused(line: str, tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_text(f"[d2c]\n[service]\n{line}\n")
    with pytest.raises(SettingsError, match="kept_"):
        load_settings(tmp_path, environ={})


def test_a_call_writes_few_pages(tmp_path: Path) -> None:
    held, calls = IdempotencyStore(tmp_path / "kept.db"), 200
    for number in range(calls):
        held.begin(SCOPE.format("a"), request_identity(str(number)), "d")
        held.store_answer(SCOPE.format("a"), request_identity(str(number)), "d", bytes(700))
    pages = (tmp_path / "kept.db-wal").stat().st_size / (4096 + 24)
    assert pages / calls < 7.8  # splits included
    seen: list[str] = []
    held.db.set_trace_callback(seen.append)
    held.begin(SCOPE.format("a"), "b", "d")
    held.store_answer(SCOPE.format("a"), "b", "d", b"x")
    counts = {verb: sum(each.startswith(verb) for each in seen) for verb in ("BEGIN", "SELECT", "COMMIT")}
    assert counts == {"BEGIN": 1, "SELECT": 1, "COMMIT": 1}  # what was written is not read again


def test_calls_at_the_same_time_in_several_workers_get_one_answer(tmp_path: Path) -> None:
    workers = [IdempotencyStore(tmp_path / "kept.db") for _ in range(3)]
    began: dict[str, set[float]] = {f"k{number}": set() for number in range(40)}
    answers: dict[str, set[bytes]] = {key: set() for key in began}

    def call(worker: int) -> None:
        for key in began:
            moment, answer = workers[worker % 3].begin(SCOPE.format("a"), key, "d")
            began[key].add(moment)
            own = b"by %d" % worker
            answers[key].add(answer or workers[worker % 3].store_answer(SCOPE.format("a"), key, "d", own))

    with ThreadPoolExecutor(9) as pool:
        list(pool.map(call, range(9)))
    assert all(len(each) == 1 for each in (*began.values(), *answers.values()))
    assert usage(workers[0])[0] == usage(workers[0])[1]


def test_an_answer_is_removed_a_day_after_its_call_began(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, now = IdempotencyStore(tmp_path / "kept.db"), time.time()
    monkeypatch.setattr(kept.time, "time", lambda: now)
    held.begin(SCOPE.format("a"), "k", "d")
    monkeypatch.setattr(kept.time, "time", lambda: now + 3600)
    assert held.store_answer(SCOPE.format("a"), "k", "d", b"answer") == b"answer"
    assert held.begin(SCOPE.format("a"), "k", "d") == (now, b"answer")
    monkeypatch.setattr(kept.time, "time", lambda: now + kept.KEEP + 1)
    assert held.begin(SCOPE.format("a"), "k", "d") == (now + kept.KEEP + 1, b"")


def test_what_was_swept_stays_so_when_the_call_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, now = IdempotencyStore(tmp_path / "kept.db", most_each=5_000), time.time()
    held.begin(SCOPE.format("a"), "old", "d")
    monkeypatch.setattr(kept.time, "time", lambda: now + kept.KEEP / 2)
    held.begin(SCOPE.format("a"), "young", "d")
    held.store_answer(SCOPE.format("a"), "young", "d", bytes(4_800))
    monkeypatch.setattr(kept.time, "time", lambda: now + kept.KEEP + 60)
    with pytest.raises(Full, match="this API key's"):
        held.begin(SCOPE.format("a"), "new", "d")
    assert held.db.execute("SELECT key FROM answers").fetchall() == [("young",)] and not held.db.in_transaction
    assert usage(held)[0] == usage(held)[1]


@pytest.mark.parametrize("fails", ["BEGIN IMMEDIATE", "INSERT", "COMMIT"])
def test_a_call_that_cannot_be_written_leaves_no_transaction_open(tmp_path: Path, fails: str) -> None:
    held, other = IdempotencyStore(tmp_path / "kept.db"), IdempotencyStore(tmp_path / "kept.db")

    class Full13:
        """A connection to which the disk is full at one statement."""

        broken = True

        def __init__(self, db: sqlite3.Connection) -> None:
            self.db = db

        def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
            if self.broken and statement.startswith(fails):
                raise sqlite3.OperationalError("database or disk is full")
            return self.db.execute(statement, *values)

        def __getattr__(self, name: str) -> object:
            return getattr(self.db, name)

    held.db = Full13(held.db)
    with pytest.raises(Full, match="disk is full"):
        held.begin(SCOPE.format("a"), "k", "d")
    assert not held.db.in_transaction
    other.db.execute("PRAGMA busy_timeout = 0")
    assert other.begin(SCOPE.format("a"), "k", "d")[1] == b""  # nothing is locked
    held.db.broken = False
    assert held.begin(SCOPE.format("a"), "k2", "d")[1] == b""
    assert usage(other)[0] == usage(other)[1]


# --- a full disk


def test_without_space_a_call_with_a_key_waits_and_all_others_are_answered(keeping: ServiceContext) -> None:
    client, once = asking(keeping), {"Idempotency-Key": "a"}
    first = client.post("/predict", json={"records": [ASK]}, headers=once)
    full_for(keeping.kept)
    refused = None
    for number in range(200):
        refused = client.post("/predict", json={"records": [ASK] * 50}, headers={"Idempotency-Key": f"b{number}"})
        if refused.status_code != 200:
            break
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5"), refused.text
    assert "cannot be stored" in refused.json()["title"]
    for path in ("/predict", "/explain"):
        other = client.post(path, json={"records": [ASK]})
        assert (other.status_code, other.headers["x-prediction-logged"]) == (200, "true")
    again = client.post("/predict", json={"records": [ASK]}, headers=once)
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    keeping.kept.db.execute("PRAGMA max_page_count = 100000")
    assert client.post("/predict", json={"records": [ASK]}, headers={"Idempotency-Key": "c"}).status_code == 200


def test_kept_answers_leave_the_last_space_to_the_log(keeping: ServiceContext, monkeypatch: pytest.MonkeyPatch) -> None:
    real, client = os.statvfs(keeping.kept.file.parent), asking(keeping)

    class Nearly:
        f_frsize, f_blocks, f_bavail = real.f_frsize, real.f_blocks, 10

    monkeypatch.setattr(kept.os, "statvfs", lambda folder: Nearly)
    refused = client.post("/predict", json={"records": [ASK]}, headers={"Idempotency-Key": "a"})
    assert (refused.status_code, "nearly full" in refused.json()["detail"]) == (503, True)
    answer = client.post("/predict", json={"records": [ASK]})
    assert (answer.status_code, answer.headers["x-prediction-logged"]) == (200, "true")


def test_a_file_of_answers_that_cannot_be_opened_is_opened_when_it_can_be(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("in the way")
    held = IdempotencyStore(tmp_path / "state" / "kept.db")
    with pytest.raises(Full):
        held.begin(SCOPE.format("a"), "k", "d")
    (tmp_path / "state").unlink()
    assert held.begin(SCOPE.format("a"), "k", "d")[1] == b""


def test_a_service_starts_and_answers_without_space_for_its_log(tmp_path: Path, monkeypatch) -> None:
    full = [True]
    real = os.posix_fallocate

    def allocate(file: int, start: int, size: int) -> None:
        if full[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file, start, size)

    monkeypatch.setattr(logbook.os, "posix_fallocate", allocate)
    monkeypatch.setattr(logbook, "SYNC", 0.05)
    held = ServiceContext(logbook=Logbook(tmp_path / "log", segment=2**16))
    client = asking(held)
    answer = client.post("/predict", json={"records": [ASK]})
    assert (answer.status_code, answer.headers["x-prediction-logged"]) == (200, "false")
    told = client.post("/feedback", json={"action": "followed", "key": "L-1"})
    assert (told.status_code, "retry-after" in told.headers) == (503, True)
    full[0] = False
    limit = time.monotonic() + 10
    while client.post("/predict", json={"records": [ASK]}).headers["x-prediction-logged"] != "true":
        assert time.monotonic() < limit
        time.sleep(0.05)
    assert len(logged(held)) == 1 and not list((tmp_path / "log").glob("*.draft"))


def test_a_log_whose_folder_may_not_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file")
    with pytest.raises(OSError):
        Logbook(tmp_path / "log")


def test_recovering_needs_no_space_and_loses_no_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [json.dumps({"kind": "x", "i": i}).encode() for i in range(500)]
    (tmp_path / "1.open").write_bytes(b"\n".join(lines) + b"\n" + lines[0][:9] + bytes(2**16))
    monkeypatch.setattr(Path, "open", _no_new_file(Path.open))
    assert seal_abandoned_segments(tmp_path) == 1
    monkeypatch.undo()
    assert (tmp_path / "1.jsonl").read_bytes().splitlines() == lines
    assert [each.name for each in tmp_path.iterdir()] == ["1.jsonl"]


def _no_new_file(real):
    def opened(path: Path, mode: str = "r", *rest, **more):
        if "w" in mode:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, mode, *rest, **more)

    return opened


def test_a_collection_on_a_full_disk_says_so_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "settings.ini").write_text("[d2c]\n")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "d2c_store/serving/price/log"
    folder.mkdir(parents=True)
    line = {
        "kind": "predictions", "id": "a", "first": 0, "model": "price", "version": 1, "contract": "1.0.0", "caller": None,
        "variant": "champion", "request_id": "r", "key": "sku", "at": "2026-06-01T12:00:00+00:00", "inputs": [{"sku": "1"}],
        "outputs": [{"sku": "1"}],
    }  # fmt: skip
    (folder / "1.jsonl").write_bytes(
        json.dumps(line).encode() + b"\nno line\n" + json.dumps({"kind": "?"}).encode() + b"\n"
    )
    real = Path.write_bytes

    def write(path: Path, data: bytes) -> int:
        if path.suffix == ".faulty":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", write)
        done = CliRunner().invoke(main, ["collect", "--json"])
    assert done.exit_code == 75 and json.loads(done.output)["what"] == "the disk is full", done.output
    assert (folder / "1.jsonl").exists()
    ledger = Ledger.of(load_settings(tmp_path, environ={}))
    told = collect_log_folder(ledger, folder)
    assert (told.predictions, told.new_predictions, told.faulty) == (1, 0, 1)
    assert (folder / "1.faulty").exists() and not (folder / "1.jsonl").exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)  # half a minute alone, many on a machine that does much else
def test_kills_on_a_nearly_full_disk_lose_nothing_that_was_acknowledged() -> None:
    bench = Path(__file__).parents[3] / "bench/full_disk.py"
    done = subprocess.run([sys.executable, str(bench), "--kills", "2"], capture_output=True, text=True,
                          env=os.environ | {"STRICT": "1"}, timeout=1150)  # fmt: skip
    if done.returncode == 77:
        pytest.skip(done.stderr.strip().splitlines()[-1])
    assert done.returncode == 0 and done.stdout.count("| met") == 4, done.stdout + done.stderr


# --- what is kept of personal values

PERSON = {**ASK, "mail": "jo.doe@example.com"}


def test_no_personal_value_lies_in_the_file_of_answers(keeping: ServiceContext) -> None:
    client, once = asking(keeping), {"Idempotency-Key": "a"}
    answers = [client.post("/explain", json={"records": [PERSON]}, headers=once) for _ in range(2)]
    assert answers[0].content == answers[1].content and answers[1].headers["idempotency-replayed"] == "true"
    (answer, digest) = keeping.kept.db.execute("SELECT answer, digest FROM answers").fetchone()
    key = answers[0].json()["predictions"][0]["prediction_id"].encode()
    assert key not in bytes(answer) and b"score" not in bytes(answer)
    keeping.kept.close()
    held = b"".join(file.read_bytes() for file in keeping.kept.file.parent.glob("kept.db*"))
    assert b"jo.doe" not in held and key not in held and len(digest) == 32
    other = client.post("/explain", json={"records": [{**PERSON, "mail": "x@example.com"}]}, headers=once)
    assert other.status_code == 422


def test_without_a_secret_nothing_personal_is_kept_and_the_ids_are_the_same(keeping: ServiceContext) -> None:
    client, once = asking(keeping, secret=b""), {"Idempotency-Key": "a"}
    answers = [client.post("/predict", json={"records": [PERSON]}, headers=once) for _ in range(2)]
    assert [each.status_code for each in answers] == [200, 200] and answers[0].json() == answers[1].json()
    assert keeping.kept.db.execute("SELECT count(*) FROM answers").fetchone() == (0,)


@given(st.binary(max_size=300), st.binary(max_size=40), st.binary(max_size=80))
def test_what_is_sealed_is_opened_by_the_same_body_and_secret_only(answer: bytes, body: bytes, secret: bytes) -> None:
    key = body_key(body, secret)
    held = encrypt_answer(answer, key)
    assert decrypt_answer(held, key) == answer and encrypt_answer(answer, key) != held
    if len(answer) > 8:
        assert answer not in held and decrypt_answer(held, body_key(body + b".", secret)) != answer
    assert decrypt_answer(b"[200]\n{}", key) == b"[200]\n{}"  # kept by a release of before
