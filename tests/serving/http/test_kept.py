"""What is asked again within a day is done once; after that a key is as if it had never been used."""

import time
from pathlib import Path

import pytest

from d2c_mlops.serving.app.app import ServiceContext
from d2c_mlops.serving.http import idempotency as kept
from d2c_mlops.serving.http.idempotency import Conflict, IdempotencyStore
from support.lead_service import ASK, asking, logged


def test_a_key_of_yesterday_is_as_if_never_used(keeping: ServiceContext, monkeypatch: pytest.MonkeyPatch) -> None:
    client, once, now = asking(keeping), {"Idempotency-Key": "daily"}, time.time()
    told = []
    for day in range(3):
        monkeypatch.setattr(kept.time, "time", lambda day=day: now + day * kept.KEEP * 1.01)
        answers = [client.post("/predict", json={"records": [ASK]}, headers=once) for _ in range(2)]
        assert answers[0].content == answers[1].content
        assert [a.headers.get("idempotency-replayed") for a in answers] == [None, "true"]
        told.append(answers[0].json()["predictions"][0]["prediction_id"])
    changed = client.post("/predict", json={"records": [{**ASK, "visits": 9}]}, headers=once)
    assert changed.status_code == 422
    assert sorted(f"{line['id']}-0" for line in logged(keeping)) == sorted(set(told)) and len(set(told)) == 3


def test_a_call_that_is_repeated_after_a_crash_is_the_same_use(tmp_path: Path) -> None:
    file = tmp_path / "kept.db"
    began, answer = IdempotencyStore(file).begin("s", "k", "d")
    again = IdempotencyStore(file)
    assert again.begin("s", "k", "d") == (began, b"") and answer == b""
    assert again.store_answer("s", "k", "d", b"first") == b"first"
    assert IdempotencyStore(file).store_answer("s", "k", "d", b"second") == b"first"
    assert again.begin("s", "k", "d")[1] == b"first"
    with pytest.raises(Conflict):
        again.begin("s", "k", "other")


def test_a_use_without_an_answer_does_not_stand_in_the_way_of_another_body(tmp_path: Path) -> None:
    held = IdempotencyStore(tmp_path / "kept.db")
    began, _ = held.begin("s", "k", "refused")
    assert held.begin("s", "k", "mended")[0] > began
    assert held.store_answer("s", "k", "mended", b"answer") == b"answer"
    with pytest.raises(Conflict):
        held.store_answer("s", "k", "refused", b"late")


def test_only_the_owner_reads_kept_answers(tmp_path: Path) -> None:
    (tmp_path / "kept.db").touch(mode=0o644)
    held = IdempotencyStore(tmp_path / "kept.db")
    held.store_answer("s", "k", "d", b"answer")
    assert {each.name: oct(each.stat().st_mode & 0o777) for each in tmp_path.iterdir()} == dict.fromkeys(
        ("kept.db", "kept.db-wal", "kept.db-shm"), "0o600"
    )


def test_feedback_that_could_never_join_is_refused(keeping: ServiceContext) -> None:
    client = asking(keeping, secret=b"")
    answer = client.post("/feedback", json={"action": "followed", "key": "L-1"})
    assert answer.status_code == 422 and "prediction_id" in answer.json()["detail"]
    both = {"action": "followed", "key": "L-1", "prediction_id": "a-0"}
    assert client.post("/feedback", json=both).status_code == 202
    (line,) = logged(keeping)
    assert (line["key"], line["prediction_id"]) == (None, "a-0")
