"""Prediction logs end up in the ledger once, whatever is killed when."""

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select

from d2c_mlops.ledger.schema import feedback, predictions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.serving.log.log_collection import collect_log_folder, feedback_with_predictions
from d2c_mlops.serving.log.log_segments import Logbook
from support.log_lines import line, said

TRIALS = int(os.environ.get("CRASH_TRIALS", "4"))
WRITER = """
import sys
from pathlib import Path
from d2c_mlops.serving.log.log_segments import Logbook
book, i = Logbook(Path(sys.argv[1]), segment=2**16, rotate=0.2), 0
line = ('{"kind":"predictions","id":"%s-%d","first":0,"model":"m","version":1,"contract":"1.0.0","variant":"champion",'
        '"caller":null,"request_id":"r","key":"k","at":"2026-01-01T00:00:00+00:00",'
        '"inputs":[{"k":"a","pad":"%s"}],"outputs":[{"k":"a"}]}')
while True:
    text = line % (sys.argv[2], i, "x" * (300 if i % 5 else 12_000))
    if book.append(text.encode()):
        sys.stdout.write(f"{sys.argv[2]}-{i}-0\\n")  # acknowledged
        sys.stdout.flush()
    i += 1
"""
COLLECTOR = """
import sys
from pathlib import Path
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.serving.log.log_collection import collect_log_folder
ledger = Ledger(sys.argv[2])
while True:
    collect_log_folder(ledger, Path(sys.argv[1]))
"""


def ids(ledger: Ledger) -> list[str]:
    with ledger.read() as connection:
        return list(connection.execute(select(predictions.c.id)).scalars())


def test_collecting_twice_and_while_the_service_writes_changes_nothing(tmp_path: Path) -> None:
    ledger, book = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}"), Logbook(tmp_path / "log")
    now = datetime.now(UTC)
    assert book.append(line("a", now))
    assert collect_log_folder(ledger, tmp_path / "log").new_predictions == 2
    assert book.append(line("b", now)) and book.append(b'{"kind": "gossip"}')
    told = collect_log_folder(ledger, tmp_path / "log")
    assert (told.predictions, told.new_predictions, told.faulty) == (4, 2, 1)
    book.close()
    assert collect_log_folder(ledger, tmp_path / "log").new_predictions == 0
    assert sorted(ids(ledger)) == ["a-0", "a-1", "b-0", "b-1"]
    assert not list((tmp_path / "log").glob("*.jsonl")) and len(list((tmp_path / "log").glob("*.faulty"))) == 1


def test_feedback_and_outcomes_join_by_id_or_by_the_last_prediction_of_the_key(tmp_path: Path) -> None:
    ledger, book = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}"), Logbook(tmp_path / "log")
    early, middle, late = (datetime(2026, 1, day, tzinfo=UTC) for day in (1, 2, 3))
    for each in (line("old", early), line("new", late), said("f1", late, prediction_id="old-1"),
                 said("f2", middle, key="a", action="outcome", value=3.5), said("f3", late, key="z")):  # fmt: skip
        assert book.append(each)
    book.close()
    assert collect_log_folder(ledger, tmp_path / "log").new_feedback == 3
    joined = {one["id"]: one for one in feedback_with_predictions(ledger, "m")}
    assert joined["f1"]["prediction"]["key"] == "b" and joined["f2"]["prediction"]["id"] == "old-0"
    assert joined["f2"]["value"] == 3.5 and joined["f3"]["prediction"] is None


def test_a_line_that_the_database_refuses_holds_up_no_other(tmp_path: Path) -> None:
    ledger, book = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}"), Logbook(tmp_path / "log")
    now, never = datetime.now(UTC), "0001-01-01T02:00:00+14:00"  # before the first moment that UTC can tell
    bad = [said("f", now).replace(now.isoformat().encode(), never.encode()), said("g", now, action=None)]
    for each in (line("a", now), *bad, said("h", now)):
        assert book.append(each)
    book.close()
    told = collect_log_folder(ledger, tmp_path / "log")
    assert (told.new_predictions, told.new_feedback, told.faulty) == (2, 1, 2)
    (kept,) = (tmp_path / "log").glob("*.faulty")
    assert kept.read_bytes().splitlines() == bad and not list((tmp_path / "log").glob("*.jsonl"))
    ledger.close()


def test_predictions_are_collected_into_postgresql(postgres: str, tmp_path: Path) -> None:
    ledger, book = Ledger(postgres), Logbook(tmp_path)
    book.append(line("a", datetime.now(UTC)))
    book.append(said("f", datetime.now(UTC), value={"x": 1}, key="a\0b", reason="\0"))
    for expected in (2, 0):
        assert collect_log_folder(ledger, tmp_path).new_predictions == expected
    with ledger.read() as connection:
        assert connection.execute(select(func.count()).select_from(feedback)).scalar() == 1
    book.close()
    ledger.close()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_was_acknowledged_is_in_the_ledger_once_after_kill_9_of_writer_and_collector(tmp_path: Path) -> None:
    url, log, chance = f"sqlite:///{tmp_path / 'ledger.db'}", tmp_path / "log", np.random.default_rng(0)
    ledger, acknowledged = Ledger(url), set()
    for trial in range(TRIALS):
        commands = (["-c", WRITER, str(log), f"t{trial}"], ["-c", COLLECTOR, str(log), url])
        told = tmp_path / f"{trial}.txt"
        with told.open("wb") as out:
            writer, collector = (subprocess.Popen([sys.executable, *command], stdout=out) for command in commands)
            end = time.monotonic() + 30
            while told.stat().st_size == 0 and time.monotonic() < end:
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.4))
            order = (writer, collector) if chance.random() < 0.5 else (collector, writer)
            for process in order:
                process.send_signal(signal.SIGKILL)
                time.sleep(chance.uniform(0, 0.05))
            for process in order:
                process.wait(10)
        lines = told.read_bytes().split(b"\n")[:-1]
        assert lines
        acknowledged |= {one.decode() for one in lines}
    collect_log_folder(ledger, log)
    found = ids(ledger)
    assert len(found) == len(set(found)) and acknowledged <= set(found)
    assert len(found) <= len(acknowledged) + TRIALS  # at most the one line that was kept but not yet told
    assert not list(log.glob("*.jsonl")) and not list(log.glob("*.open"))
