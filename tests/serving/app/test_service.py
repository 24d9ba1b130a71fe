"""The application in-process: who is let in, what is kept, what is refused."""

import fcntl
import gzip
import json
import logging
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from d2c_mlops.errors import SettingsError, UsageError
from d2c_mlops.serving.app.app import ServedModel, ServiceContext, create_app
from d2c_mlops.serving.http import api_keys as keys
from d2c_mlops.serving.http.api_keys import Keyring
from d2c_mlops.serving.http.tracing import Tracer
from d2c_mlops.serving.log.log_segments import Logbook, intact_lines, seal_abandoned_segments
from d2c_mlops.settings import ServiceSettings, service_settings
from support.lead_service import ASK, Lead, asking, logged
from support.local_client import LocalClient

NOW = datetime.now(UTC)


def test_explain_answers_as_predict_does_with_reasons(client: LocalClient) -> None:
    predicted, explained = (client.post(p, json={"records": [ASK]}).json() for p in ("/predict", "/explain"))
    (plain,), (said,) = predicted["predictions"], explained["predictions"]
    assert said.pop("reasons") == ["3 visits"] and plain["score"] == said["score"] == 0.3


@pytest.mark.parametrize("secret", [b"s", b""])
def test_the_log_holds_each_prediction_and_nothing_personal(keeping: ServiceContext, secret: bytes) -> None:
    ask = {**ASK, "mail": "jo@example.com", "day": "2026-01-02"}
    answer = asking(keeping, secret=secret).post("/explain", json={"records": [ask, ask]})
    assert answer.headers["x-prediction-logged"] == "true"
    (line,) = logged(keeping)
    assert f"{line['id']}-1" == answer.json()["predictions"][1]["prediction_id"]
    assert line["outputs"][0]["score"] == 0.3 and line["inputs"][0]["day"] == "2026-01-02"
    assert line["reasons"][0] == ["3 visits"] and (line["model"], line["version"]) == ("leads", 7)
    text = json.dumps(line)
    assert "jo@example.com" not in text and "L-1" not in text and ("lead_id" in line["inputs"][0]) == bool(secret)


def test_a_sample_is_told_to_be_one(keeping: ServiceContext) -> None:
    keeping.settings = ServiceSettings(log_sample=0.0)
    assert asking(keeping).post("/predict", json={"records": [ASK]}).headers["x-prediction-logged"] == "sampled-out"
    assert logged(keeping) == []


def test_a_full_buffer_is_told_and_the_answer_comes_all_the_same(keeping: ServiceContext, monkeypatch) -> None:
    monkeypatch.setattr(keeping.logbook, "_start_segment", lambda: None)
    client = asking(keeping)
    told = [client.post("/predict", json={"records": [ASK] * 200}).headers["x-prediction-logged"] for _ in range(12)]
    assert told[0] == "true" and told[-1] == "false"
    monkeypatch.undo()
    assert len(logged(keeping)) == told.count("true")


def test_a_log_that_was_cut_off_keeps_its_whole_lines(tmp_path: Path) -> None:
    whole = b'{"a":1}\n{"b":2}\n'
    assert (
        intact_lines(whole + b'{"c":\0\0}\n' + b"\0" * 50)
        == [b'{"a":1}', b'{"b":2}']
        == intact_lines(whole + b'{"c"' + b"\0" * 9)
    )
    (tmp_path / "1.open").write_bytes(whole + b'{"c"\0\0')
    assert seal_abandoned_segments(tmp_path) == 1 and [f.read_bytes() for f in tmp_path.iterdir()] == [whole]


def test_segments_rotate_and_nothing_is_lost(tmp_path: Path) -> None:
    book = Logbook(tmp_path, segment=4096, spare=4)
    kept = [i for i in range(2000) if book.append(b'{"i":%d}' % i) or book.work.set()]
    book.close()
    lines = [line for file in sorted(tmp_path.glob("*.jsonl")) for line in file.read_bytes().splitlines()]
    assert [orjson.loads(line)["i"] for line in lines] == kept and len(kept) + book.refused == 2000
    assert book.append(b"{}") is False


def test_short_and_long_lines_stand_side_by_side(tmp_path: Path) -> None:
    book, lines = Logbook(tmp_path), [b'"%s"' % (b"%d" % (i % 10) * i) for i in (1, 9_000, 5, 8_189, 8_190, 200_000, 3)]
    assert all(book.append(line) for line in lines)
    (living,) = [file for file in tmp_path.glob("*.open") if intact_lines(file.read_bytes())]
    assert intact_lines(living.read_bytes()) == lines
    book.close()
    assert [line for file in tmp_path.glob("*.jsonl") for line in file.read_bytes().splitlines()] == lines


@pytest.mark.parametrize("fault", [OSError(5, "input/output error"), 4_000])
def test_a_line_that_the_disk_takes_in_part_is_refused_and_written_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: OSError | int
) -> None:
    book, long = Logbook(tmp_path), b'"%s"' % (b"x" * 9_000)

    def torn(file: int, parts: tuple[bytes, ...], offset: int) -> int:
        os.pwrite(file, b"".join(parts)[:4_000], offset)
        if isinstance(fault, OSError):
            raise fault
        return fault

    assert book.append(b"1")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", torn)
        assert book.append(long) is False and book.refused == 1
    assert book.append(b"2") and book.append(long)
    book.close()
    assert [file.read_bytes() for file in tmp_path.glob("*.jsonl")] == [b"1\n2\n" + long + b"\n"]


# --- keys


@pytest.fixture
def tokens(tmp_path: Path) -> dict[str, str]:
    file = tmp_path / "keys.json"
    made = {
        "right": keys.create_key(file, "crm", ["leads"], now=NOW)[1],
        "every": keys.create_key(file, "all", ["*"], now=NOW)[1],
        "other": keys.create_key(file, "shop", ["demand"], now=NOW)[1],
        "expired": keys.create_key(file, "old", ["leads"], now=NOW - timedelta(2), lifetime=timedelta(1))[1],
    }
    gone, made["revoked"] = keys.create_key(file, "gone", ["leads"], now=NOW)
    keys.revoke_key(file, gone.id, now=NOW)
    made["wrong"] = made["right"][:-3] + "abc"
    assert made["right"].split("_", 2)[2] not in file.read_text() and file.stat().st_mode & 0o077 == 0
    return made


@pytest.mark.parametrize(
    ("which", "status"),
    [("right", 200), ("every", 200), ("other", 403), ("expired", 401), ("revoked", 401), ("wrong", 401), (None, 401)],
)
@pytest.mark.parametrize("path", ["/predict", "/explain", "/feedback"])
def test_only_a_valid_key_for_the_model_is_let_in(
    tokens: dict[str, str], keeping: ServiceContext, which: str | None, status: int, path: str, caplog
) -> None:
    keeping.keyring.reload_if_changed()
    logging.getLogger("d2c.service").propagate = True
    headers = {"Authorization": f"Bearer {tokens[which]}"} if which else {}
    with caplog.at_level("INFO", "d2c.service"):
        answer = asking(keeping).post(path, json={"records": [ASK]}, headers=headers)
    if status == 200:
        assert answer.status_code in (200, 400)  # past the door: feedback wants another body
        return
    assert answer.status_code == status and answer.json()["status"] == status
    assert ("www-authenticate" in answer.headers) == (status == 401)
    (refusal,) = [r.facts for r in caplog.records if r.message == "caller refused"]
    assert refusal["model"] == "leads" and (tokens.get(which or "") or "none") not in str(refusal)
    if path == "/predict":
        seen = asking(keeping).get("/metrics").text
        assert f'd2c_refused_callers_total{{model="leads",reason="{refusal["reason"]}",version="7"}}' in seen


def test_x_api_key_works_and_the_log_names_the_key_not_the_token(
    tokens: dict[str, str], keeping: ServiceContext
) -> None:
    keeping.keyring.reload_if_changed()
    asking(keeping).post("/predict", json={"records": [ASK]}, headers={"X-API-Key": tokens["right"]})
    (line,) = logged(keeping)
    assert line["caller"] == tokens["right"].split("_")[1]


def test_a_rotated_key_and_its_successor_both_work_until_the_grace_is_over(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    old, first = keys.create_key(file, "crm", ["leads"], now=NOW)
    ring = Keyring(file)
    assert ring.refusal(first, "leads", NOW)[1] is None
    _, second = keys.rotate_key(file, old.id, now=NOW, grace=timedelta(days=1))
    ring.looked = 0.0  # a second has passed
    assert [ring.refusal(t, "leads", NOW)[1] for t in (first, second)] == [None, None]
    late = NOW + timedelta(days=2)
    assert [ring.refusal(t, "leads", late)[1] for t in (first, second)] == ["expired key", None]
    with pytest.raises(UsageError, match="no key"):
        keys.revoke_key(file, "nope", now=NOW)


def test_in_production_nobody_is_let_in_without_a_key(keeping: ServiceContext) -> None:
    keeping.settings = ServiceSettings(mode="production")
    assert asking(keeping).post("/predict", json={"records": [ASK]}).status_code == 401


# --- the same call again


def test_a_repeated_call_gets_the_same_answer_and_is_logged_once(keeping: ServiceContext) -> None:
    client, once = asking(keeping), {"Idempotency-Key": "k1"}
    first, second = (client.post("/predict", json={"records": [ASK]}, headers=once) for _ in range(2))
    assert first.content == second.content and second.headers["idempotency-replayed"] == "true"
    other = client.post("/predict", json={"records": [{**ASK, "visits": 9}]}, headers=once)
    assert other.status_code == 422
    assert client.post("/predict", json={"records": [ASK]}, headers={"Idempotency-Key": "x" * 201}).status_code == 400
    assert len(logged(keeping)) == 1


def test_what_was_refused_is_not_kept(client: LocalClient) -> None:
    once = {"Idempotency-Key": "k2"}
    assert client.post("/predict", json={"records": []}, headers=once).status_code == 400
    assert client.post("/predict", json={"records": [ASK]}, headers=once).status_code == 200


# --- bodies


def test_gzip_goes_both_ways(client: LocalClient) -> None:
    body = gzip.compress(json.dumps({"records": [ASK] * 100}).encode())
    answer = client.post("/predict", content=body, headers={"Content-Encoding": "gzip", "Accept-Encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip" and len(answer.json()["predictions"]) == 100


@pytest.mark.parametrize(("body", "status"), [(b"no gzip", 400), (gzip.compress(b"x" * 10**6, mtime=0)[:-9], 400)])
def test_what_is_not_gzip_is_refused(client: LocalClient, body: bytes, status: int) -> None:
    assert client.post("/predict", content=body, headers={"Content-Encoding": "gzip"}).status_code == status


def test_a_small_body_that_unpacks_to_a_large_one_is_refused(client: LocalClient) -> None:
    bomb = gzip.compress(b" " * 40 * 2**20)
    assert client.post("/predict", content=bomb, headers={"Content-Encoding": "gzip"}).status_code == 413
    assert client.post("/predict", content=b"x", headers={"Content-Encoding": "br"}).status_code == 415


def test_a_stream_answers_line_by_line_and_says_that_it_is_complete(keeping: ServiceContext) -> None:
    lines = [json.dumps({**ASK, "visits": i % 7}) for i in range(1200)] + ["", "nonsense"]
    head = {"Content-Type": "application/x-ndjson"}
    answer = asking(keeping).post("/explain", content="\n".join(lines), headers=head)
    *found, last = [json.loads(line) for line in answer.text.splitlines()]
    assert [one["index"] for one in found] == list(range(1201))
    refused = {one["index"] for one in found if "error" in one}
    assert refused == {i for i in range(1200) if i % 7 == 0} | {1200}
    assert all(one["score"] == i % 7 / 10 for i, one in enumerate(found) if i not in refused)
    assert last == {"complete": True, "records": 1201, "answered": 1201 - len(refused), "logged": "true"}
    ids = [f"{line['id']}-{line['first'] + i}" for line in logged(keeping) for i in range(len(line["outputs"]))]
    assert sorted(ids) == sorted(one["prediction_id"] for one in found if "error" not in one)


def test_a_stream_takes_no_idempotency_key(client: LocalClient) -> None:
    head = {"Content-Type": "application/x-ndjson", "Idempotency-Key": "k"}
    assert client.post("/predict", content="{}", headers=head).status_code == 400


def test_a_segment_that_another_worker_sweeps_at_the_start_is_made_anew(tmp_path: Path, monkeypatch) -> None:
    lock, swept = fcntl.flock, []

    def sweeping(file, how):
        if not swept and (drafts := list(tmp_path.glob("*.draft"))):
            swept.append(drafts[0].unlink())
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", sweeping)
    book = Logbook(tmp_path)
    assert swept and book.append(b'{"a":1}')
    book.close()
    assert [file.read_bytes() for file in tmp_path.glob("*.jsonl")] == [b'{"a":1}\n']


# --- feedback


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"action": "followed", "prediction_id": "a" * 32 + "-0"}, 202),
        ({"action": "followed", "prediction_id": "a-0"}, 422),
        ({"action": "ignored", "key": "L-1"}, 202),
        ({"action": "overridden", "key": "L-1", "reason": "knows them", "value": 0.9}, 202),
        ({"action": "outcome", "key": "L-1", "value": True, "at": "2026-02-03T04:05:06Z"}, 202),
        ({"action": "overridden", "key": "L-1"}, 400),
        ({"action": "outcome", "key": "L-1"}, 400),
        ({"action": "followed"}, 400),
        ({"action": "praised", "key": "L-1"}, 400),
        ({"action": "followed", "key": 1}, 400),
    ],
)
def test_feedback_says_what_became_of_a_prediction(client: LocalClient, body: dict, status: int) -> None:
    assert client.post("/feedback", json=body).status_code == status


def test_feedback_that_cannot_be_kept_is_not_acknowledged() -> None:
    assert asking().post("/feedback", json={"action": "followed", "key": "L-1"}).status_code == 503


def test_feedback_by_key_meets_the_hashed_key_of_the_prediction(keeping: ServiceContext) -> None:
    client = asking(keeping)
    client.post("/predict", json={"records": [ASK]})
    client.post("/feedback", json={"action": "followed", "key": "L-1"})
    prediction, said = logged(keeping)
    assert said["key"] == prediction["outputs"][0]["lead_id"] != "L-1"


@pytest.mark.parametrize(("at", "kept"), [("0001-01-01T02:00:00+14:00", "0001-01-01T00:00:00"), ("9999-12-31T23:00:00-14:00", "9999-12-31T23:59:59.999999")])  # fmt: skip
def test_feedback_at_the_ends_of_the_calendar_can_be_kept(keeping: ServiceContext, at: str, kept: str) -> None:
    assert asking(keeping).post("/feedback", json={"action": "followed", "key": "L-1", "at": at}).status_code == 202
    (said,) = logged(keeping)
    assert said["at"] == f"{kept}+00:00"


# --- the rest


def test_request_ids_are_taken_over_or_made(client: LocalClient) -> None:
    assert client.get("/livez", headers={"X-Request-ID": "abc-1"}).headers["x-request-id"] == "abc-1"
    assert len(client.get("/livez", headers={"X-Request-ID": 'a"b'}).headers["x-request-id"]) == 32


def test_a_service_told_to_stop_is_not_ready_but_answers(keeping: ServiceContext) -> None:
    keeping.draining = True
    client = asking(keeping)
    assert client.get("/readyz").status_code == 503 and client.get("/livez").status_code == 200
    answer = client.post("/predict", json={"records": [ASK]})
    assert answer.status_code == 200 and answer.headers["connection"] == "close"


def test_too_many_at_a_time_are_told_to_come_back(keeping: ServiceContext) -> None:
    keeping.settings = ServiceSettings(max_concurrency=0)
    answer = asking(keeping).post("/predict", json={"records": [ASK]})
    assert answer.status_code == 503 and answer.headers["retry-after"] == "1"


@pytest.mark.parametrize(
    "said",
    [
        [{"lead_id": "L-2", "score": 0.2}],  # the first record left out
        [{"lead_id": "L-2", "score": 0.2}, {"lead_id": "L-1", "score": 0.1}],
        [{"lead_id": "L-1", "score": 0.1}, {"lead_id": "L-2", "score": None}],
        [{"lead_id": "L-1", "score": 0.1}, {"lead_id": "L-2", "score": float("inf")}],
    ],
)
def test_what_is_no_answer_is_not_given_as_one(keeping: ServiceContext, monkeypatch, said: list) -> None:
    monkeypatch.setattr(Lead, "predict_records", lambda self, records: said)
    answer = asking(keeping).post("/predict", json={"records": [ASK, {**ASK, "lead_id": "L-2"}]})
    assert answer.status_code == 500 and "predictions" not in answer.json()
    assert logged(keeping) == []


def test_reasons_in_the_log_name_no_personal_value(keeping: ServiceContext, monkeypatch) -> None:
    say = "L-1 (jo@example.com) came 3 times, L-10 never"
    monkeypatch.setattr(Lead, "explain", lambda self, records: [[say]])
    body = {"records": [{**ASK, "mail": "jo@example.com"}]}
    assert asking(keeping).post("/explain", json=body).json()["predictions"][0]["reasons"] == [say]
    (line,) = logged(keeping)
    assert line["reasons"] == [["[lead_id] ([mail]) came 3 times, L-10 never"]]


@pytest.mark.parametrize(("tail", "status"), [(b"", 200), (b"nonsense", 400)])
def test_gzip_of_several_members_is_read_whole(client: LocalClient, tail: bytes, status: int) -> None:
    body = json.dumps({"records": [ASK, {**ASK, "lead_id": "L-2"}]}).encode()
    packed = gzip.compress(body[:20]) + gzip.compress(body[20:]) + tail
    head = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    answer = client.post("/predict", content=packed, headers=head)
    assert answer.status_code == status and len(answer.json().get("predictions", ())) == (2 if status == 200 else 0)


@pytest.mark.parametrize(("accepted", "packed"), [("gzip", True), ("br, gzip;q=0.5", True), ("gzip;q=0, br", False)])
def test_an_answer_is_packed_for_who_takes_it(client: LocalClient, accepted: str, packed: bool) -> None:
    answer = client.get("/openapi.json", headers={"Accept-Encoding": accepted})
    assert (answer.headers.get("content-encoding") == "gzip") is packed


def test_what_takes_too_long_is_told(keeping: ServiceContext, monkeypatch) -> None:
    keeping.settings = ServiceSettings(max_seconds=0.05)
    monkeypatch.setattr(Lead, "predict_records", lambda self, records: time.sleep(0.5))
    assert asking(keeping).post("/predict", json={"records": [ASK] * 1000}).status_code == 504


def test_a_service_without_its_model_is_not_ready() -> None:
    def nothing() -> ServedModel:
        raise LookupError("not loaded")

    client = LocalClient(create_app(nothing))
    assert client.get("/readyz").status_code == 503 == client.post("/predict", json={}).status_code


def test_unknown_paths_and_methods_are_problems(client: LocalClient) -> None:
    assert client.get("/nothing").status_code == 404 and client.head("/contract").content == b""
    answer = client.get("/predict")
    assert answer.status_code == 405 and answer.headers["allow"] == "POST"


def test_settings_of_the_service_say_what_is_wrong() -> None:
    with pytest.raises(SettingsError, match="development, production"):
        service_settings({"D2C_SERVICE_MODE": "prod"})
    held = ServiceSettings(mode="production", log=False, log_sample=0.5)
    assert service_settings(held.environment()) == held


def test_a_span_joins_the_callers_trace(keeping: ServiceContext, capsys) -> None:
    keeping.tracer = Tracer("console", "leads", "7")
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    asking(keeping).post("/predict", json={"records": [ASK]}, headers={"traceparent": parent})
    keeping.tracer.close()
    span = json.loads(capsys.readouterr().out.splitlines()[0])
    assert span["context"]["trace_id"] == "0x0af7651916cd43dd8448eb211c80319c" and span["name"] == "POST /predict"
    assert span["attributes"]["http.response.status_code"] == 200


def test_the_schema_is_json_schema(client: LocalClient) -> None:
    schema = client.get("/schema.json").json()
    assert schema["$defs"]["Record"]["properties"]["mail"]["type"] == ["string", "null"]
