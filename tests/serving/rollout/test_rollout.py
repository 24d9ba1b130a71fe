"""A challenger meets a share of the keys: the same ones everywhere, never to a caller's harm, and out again in a moment."""

import json
import logging
import os
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from d2c_mlops import verbs
from d2c_mlops.cli import main
from d2c_mlops.errors import DataRefused, GateRefused, SettingsError, UsageError
from d2c_mlops.ledger.schema import predictions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.contract import contract_to_dict
from d2c_mlops.registry.promotion_history import champion_at_time
from d2c_mlops.registry.promotions import judge_and_promote as promote_alone
from d2c_mlops.registry.versions import Version, find_version
from d2c_mlops.serving.app.app import ServedModel
from d2c_mlops.serving.batch.score import score
from d2c_mlops.serving.http.metrics import Metrics
from d2c_mlops.serving.log.aborted import abort_markers
from d2c_mlops.serving.log.log_collection import collect_log_folder
from d2c_mlops.serving.log.log_segments import Logbook
from d2c_mlops.serving.rollout import rollout_commands as rollouts
from d2c_mlops.serving.rollout import rollout_history, variants
from d2c_mlops.serving.rollout import rollout_watcher as watch
from d2c_mlops.serving.rollout.promotion import rollback
from d2c_mlops.serving.rollout.rollout_status import live_worker_reports, rollout_status
from d2c_mlops.serving.rollout.rollout_watcher import RolloutWatcher
from d2c_mlops.serving.rollout.state_file import (
    FILE,
    Rollout,
    host_id,
    key_position,
    key_text,
    read_state,
    state_paths,
    write_state,
)
from d2c_mlops.serving.rollout.variant_counters import RolloutCounters, rollout_statistics, sum_counts, violated_guard
from d2c_mlops.serving.rollout.variants import ShadowQueue, challenger_version_in
from d2c_mlops.settings import RolloutSettings, ServiceSettings, Settings, load_settings
from support.lead_service import Lead
from support.rollouts import KEYS, Service, going, leads
from support.training import train

# --- which keys


def test_a_tenth_of_a_hundred_thousand_keys_is_a_tenth() -> None:
    for share in (0.1, 0.25, 0.5):
        chosen = sum(map(going(share).chooses, KEYS)) / len(KEYS)
        assert abs(chosen - share) < 0.003


@given(
    st.lists(st.text(min_size=1), max_size=50),
    st.floats(0, 1),
    st.floats(0, 1),
    st.text(max_size=8).filter(str.isalnum),
)
def test_who_is_in_stays_in_when_the_share_grows(keys: list[str], one: float, two: float, salt: str) -> None:
    less, more = (
        {key for key in keys if replace(going(share), salt=salt).chooses(key)} for share in sorted((one, two))
    )
    assert less <= more
    assert all(map(going(1.0).chooses, keys)) and not any(map(going(0.0).chooses, keys))


def test_the_hash_is_the_same_for_ever() -> None:
    """A release that moved keys between versions would break every rollout that is going."""
    assert key_position("demand", "2", "P001") == pytest.approx(0.4330784727342465, abs=1e-12)
    assert (
        key_position("demand", "3", "P001") != key_position("demand", "2", "P001") != key_position("leads", "2", "P001")
    )
    assert all(going(0.3).chooses(key) == (key_position("leads", "2", key) < 0.3) for key in KEYS[:2000])


@pytest.mark.parametrize(
    ("value", "text"),
    [(7, "7"), (7.0, "7"), ("7", "7"), (None, None), ("", None), (float("nan"), None), (1.5, "1.5"),
     (pd.Timestamp("2026-01-02T03:04:05Z"), "2026-01-02T03:04:05.000000Z")],
)  # fmt: skip
def test_a_key_is_the_same_text_in_a_request_a_table_and_a_command(value: object, text: str | None) -> None:
    assert key_text(value) == text


# --- two in one service


def test_without_a_rollout_the_champion_itself_answers(service: Service) -> None:
    assert service.loaded[0] is service.versions[1]
    assert set(service.ask(*leads(1)).json()["predictions"][0]) == {"prediction_id", "lead_id", "score"}


@pytest.mark.parametrize("path", ["/predict", "/explain"])
def test_records_of_one_request_are_divided_and_answered_in_order(service: Service, path: str) -> None:
    rollout = going(0.3)
    service.says(rollout)
    asked = [{"lead_id": key, "visits": i % 7 + 1} for i, key in enumerate(KEYS[:500])]
    answer = service.ask(*asked, path=path).json()
    assert [one["lead_id"] for one in answer["predictions"]] == KEYS[:500]
    for one, record in zip(answer["predictions"], asked, strict=True):
        theirs = rollout.chooses(record["lead_id"])
        assert one["score"] == record["visits"] / 10 + 100 * theirs
        assert (one["version"], one["variant"]) == ((2, "challenger") if theirs else (1, "champion"))
    if path == "/explain":
        assert [one["reasons"] for one in answer["predictions"]] == [[f"{r['visits']} visits"] for r in asked]
    ledger = Ledger(f"sqlite:///{service.folder / 'ledger.db'}")
    service.logged()
    assert collect_log_folder(ledger, service.folder / "log").new_predictions == 500
    with ledger.read() as connection:
        rows = {row.id: row for row in connection.execute(select(predictions))}
    for one in answer["predictions"]:
        row = rows[one["prediction_id"]]
        assert (row.version, row.variant, row.outputs["score"]) == (one["version"], one["variant"], one["score"])


def test_metrics_name_version_and_variant(service: Service) -> None:
    def counted() -> Counter[str]:
        lines = service.client.get("/metrics").text.splitlines()
        return Counter({k: float(v) for k, v in (x.rsplit(" ", 1) for x in lines if x.startswith("d2c_records_total"))})

    before = counted()
    service.says(going(0.5))
    service.ask(*leads(100))
    new, theirs = counted() - before, sum(map(going(0.5).chooses, KEYS[:100]))
    assert new['d2c_records_total{model="leads",variant="challenger",version="2"}'] == theirs
    assert new['d2c_records_total{model="leads",variant="champion",version="1"}'] == 100 - theirs


def test_a_stream_is_divided_too_and_follows_a_change_between_its_parts(service: Service) -> None:
    service.says(going(0.3))
    body = b"\n".join(json.dumps(one).encode() for one in [*leads(40), {"lead_id": "x"}])
    answer = service.client.post("/predict", content=body, headers={"content-type": "application/x-ndjson"})
    *lines, last = map(json.loads, answer.text.splitlines())
    assert last["complete"] and last["answered"] == 40 and "error" in lines[40]
    for index, one in enumerate(lines[:40]):
        theirs = going(0.3).chooses(KEYS[index])
        assert (one["index"], one["variant"]) == (index, "challenger" if theirs else "champion")
        assert challenger_version_in(one["prediction_id"]) == (2 if theirs else None)
        assert one["prediction_id"].endswith(f"-{index}")
    rows = [(line["indexes"] if "indexes" in line else [line["first"]], line["variant"]) for line in service.logged()]
    assert sorted(i for where, _ in rows for i in where) == list(range(40))


def test_what_the_challenger_fails_on_the_champion_answers_and_nobody_is_told(service: Service) -> None:
    service.says(going(1.0))
    asked = leads(60)
    asked[7]["visits"] = asked[40]["visits"] = 13
    answer = service.ask(*asked)
    assert answer.status_code == 200
    variants = [one["variant"] for one in answer.json()["predictions"]]
    assert [i for i, one in enumerate(variants) if one == "champion"] == [7, 40]
    assert answer.json()["predictions"][40]["score"] == 1.3
    found = rollout_statistics(sum_counts([service.watcher.tally.to_dict()]))
    assert found["challenger"]["errors"] == 2 and found["challenger"]["answers"] == 58


def test_a_challenger_that_fails_always_is_asked_a_bounded_number_of_times(service: Service) -> None:
    service.says(going(1.0))
    calls = []
    model = service.loaded[0].challenger.model
    model.predict_records = lambda records: calls.append(1) or 1 / 0
    assert {one["variant"] for one in service.ask(*leads(2000)).json()["predictions"]} == {"champion"}
    assert len(calls) <= 40 and service.watcher.tally.counts["errors", "challenger"] == 2000


def test_a_challenger_that_hangs_is_left_alone_and_counts_as_failed(service: Service, monkeypatch) -> None:
    monkeypatch.setattr(variants, "AT_LEAST", 0.2)
    monkeypatch.setattr(variants, "A_RECORD", 0.0)
    service.says(going(1.0))
    over = threading.Event()
    service.loaded[0].challenger.model.predict_records = lambda records: over.wait(20.0)
    start = time.monotonic()
    (one, two) = service.ask(*leads(2)).json()["predictions"]
    assert time.monotonic() - start < 5.0
    assert (one["variant"], two["variant"], two["score"]) == ("champion", "champion", 0.3)
    assert service.watcher.tally.counts["errors", "challenger"] == 2
    over.set()


@pytest.mark.parametrize("said", [[], [{"lead_id": "x"}] * 9, [{"lead_id": "a", "score": object()}]])
def test_an_answer_that_is_none_counts_as_a_failure(service: Service, said: list) -> None:
    service.says(going(1.0))
    service.loaded[0].challenger.model.predict_records = lambda records: said
    (one,) = service.ask(*leads(1)).json()["predictions"]
    assert (one["variant"], one["score"]) == ("champion", 0.3)


def test_what_both_refuse_is_refused_as_ever(service: Service) -> None:
    asked = leads(30)
    asked[11]["visits"] = 0
    plain = service.ask(*asked)
    service.says(going(0.5))
    divided = service.ask(*asked)
    assert divided.status_code == plain.status_code == 422 and divided.json() == plain.json()
    assert service.watcher.tally.counts["errors", "challenger"] == 0


def test_a_repeated_call_gets_the_same_answer_although_the_rollout_ended(service: Service) -> None:
    from d2c_mlops.serving.http.idempotency import IdempotencyStore

    service.keeping.kept = IdempotencyStore(service.folder / "kept.db")
    service.says(going(1.0))
    first = service.ask(*leads(3), headers={"idempotency-key": "one"})
    service.says(going(mode="off", stage="s2"))
    again = service.ask(*leads(3), headers={"idempotency-key": "one"})
    assert again.content == first.content and again.headers["idempotency-replayed"] == "true"
    service.keeping.kept.close()


def test_the_openapi_document_allows_what_a_rollout_adds(service: Service) -> None:
    schema = service.client.get("/openapi.json").json()["components"]["schemas"]["Prediction"]
    assert {"version", "variant"} <= set(schema["properties"]) and "variant" not in schema["required"]


# --- shadow


def test_a_shadow_is_logged_and_never_returned(service: Service) -> None:
    plain = service.ask(*leads(50)).json()["predictions"]
    service.says(going(mode="shadow"))
    answer = service.ask(*leads(50)).json()["predictions"]
    assert [{**one, "prediction_id": ""} for one in answer] == [{**one, "prediction_id": ""} for one in plain]
    (line,) = [line for line in service.logged() if line["variant"] == "shadow"]
    assert line["version"] == 2 and [round(one["score"], 1) for one in line["outputs"]] == [100.3] * 50
    assert line["id"] == answer[0]["prediction_id"].partition("-")[0] + ".2s"


def test_a_shadow_that_fails_or_waits_holds_nobody_up(service: Service) -> None:
    service.says(going(mode="shadow"))
    model = service.loaded[0].challenger.model
    ended = threading.Event()
    model.predict_records = lambda records: ended.wait(30) and 1 / 0
    start = time.perf_counter()
    assert all(service.ask(*leads(5)).status_code == 200 for _ in range(3))
    assert time.perf_counter() - start < 15  # the shadow of one takes 30 seconds
    ended.set()
    service.watcher.shadows.close()
    assert service.watcher.tally.counts["errors", "challenger"] == 15


def test_a_shadow_that_is_behind_drops_and_says_so() -> None:
    gate, done = [], []
    shadows = ShadowQueue(waiting=100)
    assert shadows.put(60, lambda: [time.sleep(0.01) for _ in iter(lambda: bool(gate), True)])
    assert shadows.put(40, lambda: done.append(40)) and not shadows.put(1, lambda: done.append(1))
    gate.append(1)
    shadows.close()
    assert done == [40]


# --- the file


def test_a_running_service_follows_the_file(service: Service) -> None:
    service.says(going(0.5))
    assert {one["variant"] for one in service.ask(*leads(50)).json()["predictions"]} == {"champion", "challenger"}
    service.says(Rollout("leads", 2, None, stage="s2"))  # promoted: they swap
    assert service.loaded[0] is service.versions[2]
    assert service.ask(*leads(1)).json()["version"] == 2
    service.says(Rollout("leads", 1, 2, stage="s3"))
    assert service.ask(*leads(1)).json()["version"] == 1


@pytest.mark.parametrize("text", ["", "{", '{"model": "leads"}', '{"model": "leads", "champion": 1, "mode": "half"}', "[1]",
                                  '{"model": "leads", "champion": 1, "mode": "share", "share": 7}'])  # fmt: skip
def test_a_file_that_cannot_be_read_changes_nothing(service: Service, text: str) -> None:
    service.says(going(1.0))
    service.watcher.file.write_text(text)
    with pytest.raises(UsageError, match=r"no.* a rollout file"):
        read_state(service.watcher.file)
    service.watcher.check()
    assert service.ask(*leads(1)).json()["predictions"][0]["variant"] == "challenger"


def test_a_version_that_is_not_loaded_does_not_answer(service: Service) -> None:
    service.says(replace(going(1.0), challenger=9))
    assert service.loaded[0] is service.versions[1]
    service.says(Rollout("leads", 9, None, stage="s4"))
    assert service.loaded[0] is service.versions[1]
    service.says(replace(going(1.0), model="others"))
    assert service.loaded[0] is service.versions[1]


def test_a_rollout_without_a_state_folder_works_from_a_mounted_file(tmp_path: Path) -> None:
    made = Service(tmp_path / "state")
    mounted, seen = tmp_path / "leads.json", []
    write_state(mounted, going(1.0, guards=RolloutSettings(min_answers=1, max_errors=0.0)))
    file, folder = state_paths(str(tmp_path / "{model}.json"), "", "leads")
    watcher = RolloutWatcher(made.versions, 1, seen.append, Metrics(), file, folder)
    assert file == mounted and seen[-1].rollout.share == 1.0
    watcher.tally.failed(1)
    watcher.check()
    assert seen[-1] is made.versions[1]
    made.logged()


# --- limits


def test_errors_end_a_rollout_in_every_worker_and_tell_why(service: Service, caplog) -> None:
    logging.getLogger("d2c.service").propagate = True
    seen: list[ServedModel] = []
    other = service.watch(seen.append)
    service.says(going(1.0, guards=RolloutSettings(min_answers=100, max_errors=0.02)))
    other.check()
    assert seen[-1].rollout.share == 1.0
    service.ask(*leads(2, visits=13))
    service.watcher.check()
    assert service.loaded[0] is not service.versions[1]  # two of a hundred may fail
    service.ask(*leads(1, visits=13))
    service.watcher.check()
    other.check()
    assert service.loaded[0] is service.versions[1] and seen[-1] is service.versions[1]
    (event,) = abort_markers(service.watcher.folder)
    assert event["reason"].startswith("errors: 3 of 3") and event["evidence"]["challenger"]["errors"] == 3
    assert "rollout aborted" in caplog.text
    metrics = service.client.get("/metrics").text
    assert 'd2c_rollout_aborts_total{model="leads",reason="errors",version="2"}' in metrics
    assert len([line for line in service.logged() if line["kind"] == "rollout"]) == 1
    again = Service(service.folder)  # a restart does not forget
    assert again.loaded[0] is again.versions[1]
    again.says(going(1.0, stage="s2"))  # the next decision does
    assert again.loaded[0] is not again.versions[1]
    again.logged()


def test_a_challenger_that_cannot_be_loaded_ends_its_rollout_and_says_why(service: Service) -> None:
    del service.versions[2]
    service.watcher.broken = {2: "ValueError: no such feature"}
    service.says(going(0.5))
    (event,) = abort_markers(service.watcher.folder)
    assert event["reason"] == "load: version 2 cannot be loaded: ValueError: no such feature"
    assert service.loaded[0] is service.versions[1]
    assert 'd2c_rollout_aborts_total{model="leads",reason="load",version="2"}' in service.client.get("/metrics").text


def test_at_a_hundred_percent_the_challenger_is_compared_with_what_the_champion_took_before(service: Service) -> None:
    service.says(going(0.5, guards=RolloutSettings(min_answers=20)))
    for _ in range(30):
        service.watcher.tally.count_answers("champion", 1, 0.004)
        service.watcher.tally.count_answers("challenger", 1, 0.004)
    service.says(going(1.0, stage="whole", guards=RolloutSettings(min_answers=20)))
    for _ in range(30):
        service.watcher.tally.count_answers("challenger", 1, 0.4)
    service.watcher.check()
    assert abort_markers(service.watcher.folder)[0]["reason"].startswith("latency: 30 of 30")


def test_workers_judge_together(service: Service) -> None:
    other = service.watch(lambda served: None)
    service.says(going(1.0, guards=RolloutSettings(min_answers=100, max_errors=0.02)))
    other.check()
    other.tally.failed(2)
    service.watcher.tally.failed(1)
    other.check()
    assert abort_markers(service.watcher.folder) == []
    service.watcher.check()
    assert abort_markers(service.watcher.folder)[0]["reason"].startswith("errors: 3 of 3")


def counts(**tallies: list[tuple[int, float]]):
    made = RolloutCounters()
    for variant, calls in tallies.items():
        for records, ms in calls:
            made.count_answers(variant, records, ms / 1e3)
    return sum_counts([made.to_dict()])


@pytest.mark.parametrize(
    ("champion", "challenger", "slow"),
    [
        ([(1, 10)] * 100, [(1, 15)] * 300, False),
        ([(1, 10)] * 100, [(1, 25)] * 11, True),  # certain: of 200 no more than 10 may be slow
        ([(1, 10)] * 100, [(1, 25)] * 9 + [(1, 10)] * 300, False),
        ([(1, 10)] * 5, [(1, 99)] * 300, False),  # nothing to compare with
        ([(1, 0.1)] * 100, [(1, 4)] * 300, False),  # slow_ms
        ([(100, 90)] * 100, [(10, 30)] * 300, False),
        ([(100, 90)] * 100, [(10, 300)] * 300, True),  # fewer records, longer
        ([(1, 10)] * 100, [(1000, 900)] * 300, False),  # more records: not to be compared
    ],
)
def test_latency_is_compared_with_like_calls(champion: list, challenger: list, slow: bool) -> None:
    guards = RolloutSettings(min_answers=200, max_slowdown=2.0, slow_ms=10.0)
    found = violated_guard(counts(champion=champion, challenger=challenger), guards)
    assert (found is not None and found.startswith("latency")) == slow


@pytest.mark.parametrize(
    ("ours", "theirs", "reason"),
    [((40, 10), (30, 20), "adoption"), ((40, 10), (36, 14), None), ((40, 10), (0, 49), None), ((4, 1), (10, 40), "adoption"),
     ((4, 1), (20, 31), None)],
)  # fmt: skip
def test_adoption_is_judged_on_enough_feedback(ours: tuple, theirs: tuple, reason: str | None) -> None:
    tally = RolloutCounters()
    for variant, (followed, overridden) in (("champion", ours), ("challenger", theirs)):
        for action, count in (("followed", followed), ("overridden", overridden), ("outcome", 9)):
            for _ in range(count):
                tally.count_feedback(variant, action)
    found = violated_guard(sum_counts([tally.to_dict()]), RolloutSettings(min_followed=0.3))
    assert (found or "").partition(":")[0] == (reason or "")


def test_feedback_counts_for_the_side_that_answered(service: Service) -> None:
    service.says(going(0.5, guards=RolloutSettings(min_feedback=5)))
    answer = service.ask(*leads(40)).json()["predictions"]
    sides = {side: [one for one in answer if one["variant"] == side] for side in ("champion", "challenger")}
    for one in sides["champion"][:5]:
        assert service.client.post("/feedback", json={"prediction_id": one["prediction_id"], "action": "followed"})
    no = {"action": "overridden", "reason": "no"}
    for one in sides["challenger"][:3]:
        service.client.post("/feedback", json={"prediction_id": one["prediction_id"], **no})
    for one in sides["challenger"][3:5]:
        service.client.post("/feedback", json={"key": one["lead_id"], **no})
    service.watcher.check()
    assert service.loaded[0] is service.versions[1]
    assert abort_markers(service.watcher.folder)[0]["reason"].startswith("adoption: 0% of the challenger's 5")
    said = [line for line in service.logged() if line["kind"] == "feedback"]
    assert Counter(line["version"] for line in said) == {1: 5, 2: 5}


def test_limits_come_from_the_settings_and_say_what_is_wrong(project: Path) -> None:
    ini = project / "settings.ini"
    ini.write_text(ini.read_text() + "rollout.max_errors = 0.5\n[rollout]\nmin_answers = 7\n")
    guards = load_settings(project, environ={}).guards("mean_units")
    assert (guards.max_errors, guards.min_answers, guards.slow_ms) == (0.5, 7, 10.0)
    ini.write_text(ini.read_text() + "max_erors = 1\nslow_ms = -1\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(project, environ={})
    assert any("did you mean 'max_errors'" in str(one) for one in caught.value.failures)
    assert any("is less than 0" in str(one) for one in caught.value.failures)


# --- the history


@pytest.fixture
def two(settings: Settings) -> tuple[Version, Version]:
    """A champion and a better version."""
    first = train(settings, scale=3.0)
    promote_alone("mean_units", settings, by="Jo")
    return first, train(settings, scale=1.5)


def test_a_rollout_from_start_to_promotion_is_on_record(two, settings: Settings) -> None:
    ledger = Ledger.of(settings)
    assert not rollout_status("mean_units", settings).in_progress
    rollouts.start_rollout("mean_units", settings, shadow=True, by="Jo", reason="look first")
    rollouts.start_rollout("mean_units", settings, share=0.1, by="Jo")
    told = rollouts.start_rollout("mean_units", settings, share=0.25, by="Jo")
    assert told.in_progress and told.rollout.share == 0.25 and told.rollout.salt == "2"
    file, _ = rollout_history.state_file_of("mean_units", settings)
    assert read_state(file).share == 0.25 and read_state(file).guards == settings.guards("mean_units")
    assert (
        "no change: the rollout is already in this state"
        in rollouts.start_rollout("mean_units", settings, share=0.25).notes[0]
    )
    done = rollouts.promote_challenger("mean_units", settings, by="Jo", reason="better")
    assert all(clause.holds for clause in done.gate) and not done.in_progress and done.champion == 2
    assert champion_at_time(ledger, "mean_units").version == 2 and (
        read_state(file).champion,
        read_state(file).mode,
    ) == (
        2,
        "off",
    )
    actions = [(each.action, each.by) for each in rollout_history.rollout_events(ledger, "mean_units")]
    assert actions == [("shadow", "Jo"), ("start", "Jo"), ("widen", "Jo"), ("promote", "Jo")]
    rollback("mean_units", settings)
    assert read_state(file).champion == 1


def test_an_abort_says_why_and_a_lost_file_is_made_again(two, settings: Settings) -> None:
    rollouts.start_rollout("mean_units", settings, share=0.5)
    file, _ = rollout_history.state_file_of("mean_units", settings)
    file.write_text("torn")
    assert rollout_status("mean_units", settings).in_progress and read_state(file).share == 0.5
    told = rollouts.abort_rollout("mean_units", settings, by="Ann", reason="complaints")
    assert not told.in_progress and told.events[-1].reason == "complaints" and read_state(file).mode == "off"
    assert "no rollout is in progress" in rollouts.abort_rollout("mean_units", settings).notes[0]
    with pytest.raises(UsageError, match="no rollout"):
        rollouts.promote_challenger("mean_units", settings)


def test_the_gate_holds_for_a_rollout_too(settings: Settings) -> None:
    train(settings)
    promote_alone("mean_units", settings)
    train(settings, scale=3.0)
    rollouts.start_rollout("mean_units", settings, share=0.1)
    with pytest.raises(GateRefused, match="failed the gate"):
        rollouts.promote_challenger("mean_units", settings)
    assert rollout_status("mean_units", settings).in_progress


def test_a_challenger_that_is_the_champion_again_ends_its_rollout(settings: Settings) -> None:
    train(settings)
    promote_alone("mean_units", settings)
    train(settings)
    rollouts.start_rollout("mean_units", settings, share=0.1)
    told = rollouts.promote_challenger("mean_units", settings)
    assert not told.in_progress and told.champion == 1 and [clause.name for clause in told.gate] == ["no change"]
    assert "same data" in told.events[-1].reason


def test_promoting_another_version_ends_a_rollout(two, settings: Settings) -> None:
    rollouts.start_rollout("mean_units", settings, share=0.1)
    train(settings)
    rollouts.promote("mean_units", settings, number=3)
    told = rollout_status("mean_units", settings)
    assert not told.in_progress and (told.events[-1].action, told.champion) == ("end", 3)


def test_what_a_service_ended_is_carried_into_the_ledger_once(two, settings: Settings) -> None:
    told = rollouts.start_rollout("mean_units", settings, share=0.5)
    ledger, (file, folder) = Ledger.of(settings), rollout_history.state_file_of("mean_units", settings)
    versions = {n: ServedModel(Lead(), "mean_units", n, {}, {}) for n in (1, 2)}
    book = Logbook(folder.parents[1] / "log")
    watcher = RolloutWatcher(versions, 1, lambda served: None, Metrics(), file, folder, book)
    watcher.tally.failed(9999)
    watcher.check()
    watcher.close()
    book.close()
    assert collect_log_folder(ledger, folder.parents[1] / "log").new_aborts == 1
    assert collect_log_folder(ledger, folder.parents[1] / "log").new_aborts == 0
    now = rollout_status("mean_units", settings)
    assert not now.in_progress and now.events[-1].by == "service" and now.events[-1].reason.startswith("errors")
    assert now.events[-1].stage == told.rollout.stage and read_state(file).mode == "off"
    assert rollout_history.share_rollout(ledger, "mean_units", settings) is None
    with pytest.raises(
        UsageError, match=r"not rolled out again automatically: its rollout was aborted .* by service: errors"
    ) as caught:
        rollouts.start_rollout("mean_units", settings, share=0.1)
    assert "--version 2" in caught.value.next
    told = rollouts.start_rollout("mean_units", settings, shadow=True, begin=True)
    assert not told.in_progress and "aborted" in told.notes[0]
    assert rollouts.start_rollout("mean_units", settings, share=0.1, number=2).in_progress
    assert rollouts.start_rollout("mean_units", settings, share=0.2).in_progress


def test_what_was_rolled_back_from_or_aborted_by_hand_does_not_go_out_again(two, settings: Settings) -> None:
    rollouts.promote("mean_units", settings, number=2)
    rollback("mean_units", settings, by="Jo", reason="complaints")
    with pytest.raises(UsageError, match=r"version 1 replaced it as champion .* by Jo: complaints"):
        rollouts.start_rollout("mean_units", settings, share=0.1)
    assert not rollouts.start_rollout("mean_units", settings, shadow=True, begin=True).in_progress
    assert rollouts.start_rollout("mean_units", settings, share=0.1, number=2).in_progress
    rollouts.abort_rollout("mean_units", settings, reason="again")
    with pytest.raises(UsageError, match="again"):
        rollouts.start_rollout("mean_units", settings, shadow=True)
    train(settings, scale=2.0)
    assert rollouts.start_rollout("mean_units", settings, shadow=True, begin=True).rollout.challenger == 3


def test_beginning_never_narrows_and_leaves_alone_what_cannot_begin(two, settings: Settings, monkeypatch) -> None:
    assert rollouts.start_rollout("mean_units", settings, shadow=True, begin=True).rollout.mode == "shadow"
    assert rollouts.start_rollout("mean_units", settings, share=0.1, begin=True).rollout.share == 0.1
    rollouts.start_rollout("mean_units", settings, share=0.5)
    for more in ({"shadow": True}, {"share": 0.1}):
        told = rollouts.start_rollout("mean_units", settings, begin=True, **more)
        assert (told.rollout.mode, told.rollout.share) == ("share", 0.5) and "already in progress" in told.notes[0]
    ledger = Ledger.of(settings)
    assert len(rollout_history.rollout_events(ledger, "mean_units")) == 3
    rollouts.promote_challenger("mean_units", settings)
    assert not rollouts.start_rollout("mean_units", settings, shadow=True, begin=True).in_progress
    train(settings, scale=2.0)

    def breaks(champion: Version, version: Version) -> None:
        raise GateRefused("another major")

    monkeypatch.setattr(rollouts, "check_compatible", breaks)
    told = rollouts.start_rollout("mean_units", settings, shadow=True, begin=True)
    assert not told.in_progress and told.notes == ["no change: another major"]
    with pytest.raises(GateRefused):
        rollouts.start_rollout("mean_units", settings, shadow=True)
    with pytest.raises(UsageError, match="begin goes with"):
        verbs.rollout("mean_units", begin=True, settings=settings)


def test_a_worker_in_a_container_of_its_own_lives_as_long_as_it_gives_signs_of_life(two, settings: Settings) -> None:
    _, folder = rollout_history.state_file_of("mean_units", settings)
    folder.mkdir(parents=True)
    told = {"pid": 1, "versions": [1], "champion": 1, "challenger": None, "stage": "", "counts": {}}
    for name, host in (("a", "elsewhere"), ("b", "elsewhere"), ("c", host_id())):
        (folder / f"worker-{name}.json").write_text(json.dumps({**told, "pid": 2**22 + 1, "host": host}))
    silent = time.time() - 60
    os.utime(folder / "worker-b.json", (silent, silent))
    assert [each["host"] for each in live_worker_reports("mean_units", settings)] == ["elsewhere"]


def test_a_worker_gives_signs_of_life(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "BEAT", 0.0)
    file = service.watcher.own
    os.utime(file, (1, 1))
    time.sleep(0.01)
    service.watcher.check()
    assert time.time() - file.stat().st_mtime < 10


def test_what_a_rollout_is_about_or_may_begin_with_is_packaged(two, settings: Settings) -> None:
    ledger = Ledger.of(settings)
    for begin in (False, True):
        if begin:
            rollouts.start_rollout("mean_units", settings, shadow=True)
        found = rollouts.challenger_to_package(ledger, "mean_units", settings)
        assert found is not None and found.version == 2
    rollouts.abort_rollout("mean_units", settings)
    assert rollouts.challenger_to_package(ledger, "mean_units", settings) is None, "it is not taken again by itself"


def test_another_major_version_is_refused(two, settings: Settings) -> None:
    first, second = two
    inputs = contract_to_dict(second.schema)["inputs"]
    more = {"inputs": [*inputs, {**inputs[0], "name": "region"}]}
    for contract, what in (({"version": "2.0.0"}, "has contract 2.0.0"), (more, "is not compatible with callers")):
        other = replace(second, contract={**contract_to_dict(second.schema), **contract})
        with pytest.raises(GateRefused, match=what):
            rollouts.check_compatible(first, other)
    with pytest.raises(UsageError, match="already the champion"):
        rollouts.start_rollout("mean_units", settings, share=0.1, number=1)
    with pytest.raises(UsageError, match="above 0"):
        rollouts.start_rollout("mean_units", settings, share=1.5)


def test_without_another_version_there_is_nothing_to_roll_out(settings: Settings) -> None:
    train(settings)
    promote_alone("mean_units", settings)
    with pytest.raises(UsageError, match="no other version than its champion"):
        rollouts.start_rollout("mean_units", settings, share=0.1)


def test_the_command_tells_how_it_stands(two, settings: Settings) -> None:
    def run(*args: str) -> str:
        done = CliRunner().invoke(main, ["rollout", "mean_units", *args])
        assert done.exit_code == 0, done.output
        return done.output

    assert "there was no rollout yet" in run()
    assert "version 2 serves 10 % of the keys" in run("--percent", "10", "--reason", "a tenth")
    assert json.loads(run("--json"))["rollout"]["share"] == 0.1
    assert "version 1 serves all keys" in run("--abort", "--reason", "enough")
    assert "enough" in run()
    with pytest.raises(UsageError, match="aborted on"):
        verbs.rollout("mean_units", percent=5, settings=settings)
    assert verbs.rollout("mean_units", percent=5, version=2, settings=settings).rollout.share == 0.05
    with pytest.raises(UsageError, match="only one of"):
        verbs.rollout("mean_units", percent=5, abort=True, settings=settings)


# --- what served whom


def test_what_served_a_key_is_logged_or_computed_and_says_which(two, settings: Settings) -> None:
    rollout = rollouts.start_rollout("mean_units", settings, share=0.5).rollout
    theirs = next(key for key in KEYS if rollout.chooses(key))
    ours = next(key for key in KEYS if not rollout.chooses(key))
    (one,) = verbs.served("mean_units", ours, settings=settings)[-1:]
    assert (one.version, one.variant, one.how) == (1, "champion", "computed")
    found = verbs.served("mean_units", theirs, settings=settings)
    assert [(each.version, each.variant) for each in found][-2:] == [(1, "champion"), (2, "challenger")]
    assert found[0].version is None  # nothing was live in the morning
    now = datetime.now(UTC)
    row = {"id": "p-0", "model": "mean_units", "version": 2, "contract": "1.0.0", "variant": "challenger", "key": theirs,
           "at": now, "inputs": {}, "outputs": {"units": 3}}  # fmt: skip
    with Ledger.of(settings).write() as connection:
        connection.execute(predictions.insert(), [row, {**row, "id": "p-1", "variant": "shadow", "version": 7}])
    (said,) = verbs.served("mean_units", theirs, at=f"{now:%Y-%m-%d}", settings=settings)
    assert (said.version, said.how, said.prediction_id) == (2, "logged", "p-0")
    before = f"{now - timedelta(days=1):%Y-%m-%d}"
    assert [each.version for each in verbs.served("mean_units", theirs, at=before, settings=settings)] == [None]
    shown = CliRunner().invoke(main, ["served", "mean_units", ours])
    assert "computed" in shown.output and "no logged prediction for this key" in shown.output


# --- batch


def test_a_batch_divides_the_keys_as_the_service_does(two, settings: Settings, tmp_path: Path) -> None:
    first, _ = two
    rollouts.start_rollout("mean_units", settings, share=0.3)
    both = rollout_history.share_rollout(Ledger.of(settings), "mean_units", settings)
    assert both is not None
    rollout, second = both
    source = tmp_path / "ask.parquet"
    keys = [f"P{i:03}" for i in range(1, 201)]
    pd.DataFrame({"product_id": keys, "day": pd.Timestamp("2024-01-01")}).to_parquet(source)
    told = score(first, str(source), str(tmp_path / "out.parquet"), settings, rollout_and_challenger=both, chunk=60)
    out = pd.read_parquet(tmp_path / "out.parquet")
    assert out["product_id"].tolist() == keys
    assert out["version"].tolist() == [2 if rollout.chooses(key) else 1 for key in keys]
    assert told.challenged == (out["variant"] == "challenger").sum() > 0 and told.challenger == 2
    alone = {}
    for version in (first, second):
        score(version, str(source), str(tmp_path / "one.parquet"), settings)
        alone[version.version] = pd.read_parquet(tmp_path / "one.parquet")["units"].tolist()
    assert out["units"].tolist() == [alone[v][i] for i, v in enumerate(out["version"])]
    table = f"sqlite:///{tmp_path / 'shop.db'}::units"
    assert score(first, str(source), table, settings, rollout_and_challenger=both).written.inserted == 200
    again = CliRunner().invoke(main, ["score", "mean_units", str(source), table])
    assert "200 unchanged" in again.output and "as in the rollout" in again.output


def test_a_batch_falls_back_where_the_challenger_fails(two, settings: Settings, tmp_path: Path, monkeypatch) -> None:
    first, _ = two
    rollouts.start_rollout("mean_units", settings, share=1.0)
    both = rollout_history.share_rollout(Ledger.of(settings), "mean_units", settings)
    source = tmp_path / "ask.csv"
    pd.DataFrame({"product_id": KEYS[:50], "day": "2024-01-01"}).to_csv(source, index=False)
    from toyshop import MeanUnits

    plain = MeanUnits.predict

    def predict(self, records):
        if self.scale == 1.5 and KEYS[20] in set(records["product_id"]):
            raise ZeroDivisionError
        return plain(self, records)

    monkeypatch.setattr(MeanUnits, "predict", predict)
    told = score(first, str(source), str(tmp_path / "out.csv"), settings, rollout_and_challenger=both)
    out = pd.read_csv(tmp_path / "out.csv")
    assert told.failed == 1 and out["variant"].tolist() == ["champion" if i == 20 else "challenger" for i in range(50)]


# --- over HTTP


def asked(url: str, keys: list[str]) -> dict[str, tuple[int, str]]:
    """Return version and variant by key."""
    body = {"records": [{"product_id": key, "day": "2024-01-01"} for key in keys]}
    request = urllib.request.Request(
        f"{url}/predict", json.dumps(body).encode(), headers={"content-type": "application/json"}
    )
    answer = json.load(urllib.request.urlopen(request, timeout=10))
    head = (answer["version"], "champion")
    return {
        one["product_id"]: (one.get("version", head[0]), one.get("variant", head[1])) for one in answer["predictions"]
    }


@pytest.mark.slow
def test_two_replicas_follow_within_seconds_and_agree(two, settings: Settings) -> None:
    """One with two workers, one with one: they share the state folder, as replicas on a machine do."""
    rollouts.start_rollout("mean_units", settings, share=0.1)
    keys = KEYS[:300]

    def until(urls: list[str], wanted: Callable[[dict[str, tuple[int, str]]], bool]) -> float:
        start = time.monotonic()
        for url in urls:
            in_a_row = 0
            while in_a_row < 12:  # more than one worker is met
                in_a_row = in_a_row + 1 if wanted(asked(url, keys)) else 0
                assert time.monotonic() - start < 5.0
        return time.monotonic() - start

    def exactly(share: float) -> Callable[[dict[str, tuple[int, str]]], bool]:
        chooses = replace(Rollout("mean_units", 1, 2, "share", share, "2")).chooses
        return lambda said: said == {key: (2, "challenger") if chooses(key) else (1, "champion") for key in keys}

    with (
        verbs.serve("mean_units", settings=settings, workers=2) as one,
        verbs.serve("mean_units", settings=settings) as two_,
    ):
        urls = [one.url, two_.url]
        limit = time.monotonic() + 30
        while (
            len(live_worker_reports("mean_units", settings)) < 3 and time.monotonic() < limit
        ):  # the second worker of the first
            time.sleep(0.1)
        until(urls, exactly(0.1))
        told = rollouts.start_rollout("mean_units", settings, share=0.4)
        assert len(told.workers) == 3 and told.workers_behind == [] and told.seconds < 5
        until(urls, exactly(0.4))
        assert rollouts.abort_rollout("mean_units", settings, reason="a test").seconds < 5
        until(urls, lambda said: set(said.values()) == {(1, "champion")})
        rollouts.start_rollout("mean_units", settings, share=0.4, number=2)
        rollouts.promote_challenger("mean_units", settings)
        until(urls, lambda said: set(said.values()) == {(2, "champion")})
    assert find_version(Ledger.of(settings), "mean_units", 2).version == 2
    assert FILE == "rollout.json" and DataRefused.exit_code == 3 and ServiceSettings().rollout == ""


@pytest.mark.slow
def test_a_running_service_follows_a_rollback_to_a_version_that_it_has_loaded(two, settings: Settings) -> None:
    rollouts.start_rollout("mean_units", settings, share=0.1)
    with verbs.serve("mean_units", settings=settings) as server:
        rollouts.promote_challenger("mean_units", settings)
        until(lambda: set(asked(server.url, KEYS[:50]).values()) == {(2, "champion")})
        done = CliRunner().invoke(main, ["rollback", "mean_units", "--reason", "orders look wrong"])
        assert done.exit_code == 0, done.output
        assert "1 worker processes on this machine have switched to version 1" in done.output
        assert set(asked(server.url, KEYS[:50]).values()) == {(1, "champion")}, "the same process, without a restart"


@pytest.mark.slow
def test_a_running_service_without_the_former_champion_keeps_its_version_and_the_command_reports_it(
    two, settings: Settings
) -> None:
    promote_alone("mean_units", settings)
    with verbs.serve("mean_units", settings=settings) as server:
        done = CliRunner().invoke(main, ["rollback", "mean_units"])
        assert done.exit_code == 0, done.output
        assert "1 of 1 worker processes on this machine have not switched to version 1: restart" in done.output
        assert set(asked(server.url, KEYS[:50]).values()) == {(2, "champion")}
    with verbs.serve("mean_units", settings=settings) as server:
        assert set(asked(server.url, KEYS[:50]).values()) == {(1, "champion")}, "after a restart"


def until(holds: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait until a condition holds; fail after a time limit."""
    limit = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.1)


def test_a_rollback_without_running_services_reports_none(two, settings: Settings) -> None:
    promote_alone("mean_units", settings)
    done = CliRunner().invoke(main, ["rollback", "mean_units", "--json"])
    assert (json.loads(done.stdout)["workers"], json.loads(done.stdout)["behind"]) == (0, 0)
