"""An id is taken for a prediction only where a service of the project gave it, and feedback on it counts once."""

import json
import uuid
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from d2c_mlops.ledger.schema import feedback, predictions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.serving.app.app import ServiceContext, create_app
from d2c_mlops.serving.log.log_collection import collect_log_folder, feedback_with_predictions
from d2c_mlops.serving.log.log_segments import Logbook
from d2c_mlops.serving.predict.prediction_ids import Signer
from d2c_mlops.serving.predict.predictor import ServedModel
from d2c_mlops.settings import RolloutSettings
from support.lead_service import ASK, Lead, asking, logged
from support.local_client import LocalClient
from support.log_lines import line, said
from support.rollouts import Keen, Service, going, leads

NO = {"action": "overridden", "reason": "no"}
EAGER = RolloutSettings(min_feedback=5)


def tell(service: Service, **body: object) -> int:
    return service.client.post("/feedback", json={**NO, **body}).status_code


def heard(service: Service) -> dict[str, int]:
    return {name: n for name, n in service.watcher.tally.to_dict().items() if name.startswith("overridden")}


# --- what an id says


@given_settings(max_examples=60)
@given(
    st.binary(min_size=1, max_size=90), st.from_regex("[0-9a-f]{32}", fullmatch=True), st.integers(0, 10**9 - 1),
    st.integers(1, 10_000), st.one_of(st.none(), st.integers(1, 10**9 - 1)), st.data(),
)  # fmt: skip
def test_an_id_holds_for_its_places_its_model_and_its_secret(secret, batch, first, count, version, data) -> None:
    signer = Signer(secret, "leads")
    token = signer.token(batch, first, first + count, version)
    place = data.draw(st.integers(first, first + count - 1))
    id = f"{token}-{place}"
    given_ = signer.decode(id)
    assert given_ is not None and given_.verified and given_.challenger == version and len(id) <= 80
    others = [f"{token}-{first + count}", f"{token}-0{place}", f"{token}-{place} ", f"{token}.7-{place}", f" {id}"]
    if first:
        others.append(f"{token}-{first - 1}")
    changed = data.draw(st.integers(0, 39))
    others.append(f"{id[:changed]}{'0' if id[changed] != '0' else '1'}{id[changed + 1 :]}")
    assert [each for each in others if signer.decode(each)] == []
    assert Signer(secret + b"x", "leads").decode(id) is None and Signer(secret, "prices").decode(id) is None


@given_settings(max_examples=15)
@given(
    st.lists(st.sampled_from(["good", "refused", "nonsense", ""]), min_size=1, max_size=30),
    st.sampled_from([0.0, 0.4, 1.0]),
)
def test_every_id_of_an_answer_is_one_that_another_replica_takes(kinds, share) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as name:
        service = Service(Path(name))
        if share:
            service.says(going(share))
        records = [{"lead_id": f"L-{i}", "visits": 3} for i in range(len(kinds))]
        told = [one["prediction_id"] for one in service.ask(*records).json()["predictions"]]
        lines = {"good": json.dumps(records[0]), "refused": '{"lead_id": "L", "visits": 0}', "nonsense": "{", "": ""}
        body = "\n".join(lines[each] for each in kinds)
        stream = service.client.post("/predict", content=body, headers={"content-type": "application/x-ndjson"})
        told += [one["prediction_id"] for one in map(json.loads, stream.text.splitlines()) if "prediction_id" in one]
        replica = Signer(b"s", "leads")
        assert len(set(told)) == len(told) == len(kinds) + kinds.count("good")
        assert all((found := replica.decode(id)) is not None and found.verified for id in told)
        rows = service.logged()
        ids = [
            id
            for row in rows
            for id in row.get("ids") or [f"{row['id']}-{row['first'] + i}" for i in range(len(row["outputs"]))]
        ]
        assert Counter(ids) == Counter(told)


@pytest.mark.parametrize(
    "id",
    [
        "a.²-0", "a-0", "-", "", ".", "1.2.3-4", "a.2-0", f"{'a' * 32}.²-0", f"{'a' * 32}-²", f"{'a' * 32}.{'9' * 40}-0",
        f"{'a' * 32}-{2**64}", f"{'a' * 40}-{'9' * 30}", "\x00", f"{'a' * 32}-0\x00", f"{'a' * 32}-0\n", "🙂-0", "A" * 80,
        f"{'a' * 40}-0", f"{'a' * 40}x0x9-3", "'; DROP TABLE predictions; --",
    ],
)  # fmt: skip
def test_an_odd_id_is_refused_and_nothing_is_logged(keeping, id: str) -> None:
    answer = asking(keeping).post("/feedback", json={"action": "followed", "prediction_id": id})
    assert answer.status_code == 422 and answer.headers["content-type"] == "application/problem+json"
    assert logged(keeping) == []


@pytest.fixture
def keeping(tmp_path: Path):
    made = ServiceContext(logbook=Logbook(tmp_path / "log", segment=2**16))
    yield made
    made.logbook.close()


@pytest.mark.parametrize(
    "body",
    [
        b'{"action":"followed","prediction_id":"%s-0"}' % (b"a" * 10_000),
        b'{"action":"followed","prediction_id":"\\ud800"}',
        b'{"action":"followed","prediction_id":"\xff"}',
    ],
)
def test_an_id_that_is_no_text_of_an_id_is_refused(keeping, body: bytes) -> None:
    assert asking(keeping).post("/feedback", content=body).status_code == 400


# --- what counts


def test_made_up_ids_and_keys_end_no_rollout(service: Service) -> None:
    service.says(going(0.5, guards=EAGER))
    (real, *_) = [one["prediction_id"] for one in service.ask(*leads(1)).json()["predictions"]]
    head, _, place = real.rpartition("-")
    for i in range(60):
        tell(service, prediction_id=f"a.2-{i}")
        tell(service, prediction_id=f"{uuid.uuid4().hex}.2-{i}")
        tell(service, prediction_id=f"{head}-{int(place) + 1 + i}")
        tell(service, prediction_id=f"{head.partition('.')[0]}.2-{place}")
        tell(service, key=f"nobody-{i}")
    service.watcher.check()
    assert heard(service) == {} and not service.watcher.aborted


def test_one_prediction_told_of_again_and_again_ends_no_rollout(service: Service) -> None:
    service.says(going(0.5, guards=EAGER))
    told = service.ask(*leads(40)).json()["predictions"]
    one = next(each for each in told if each["variant"] == "challenger")
    first = service.client.post("/feedback", json={**NO, "prediction_id": one["prediction_id"]})
    again = [service.client.post("/feedback", json={**NO, "prediction_id": one["prediction_id"]}) for _ in range(60)]
    for _ in range(60):
        assert tell(service, key=one["lead_id"]) == 202
    service.watcher.check()
    assert first.status_code == 202 and {each.status_code for each in again} == {200}
    assert {each.json()["feedback_id"] for each in (first, *again)} == {first.json()["feedback_id"]}
    assert heard(service) == {"overridden challenger": 2} and not service.watcher.aborted  # by its id, and by its key
    assert sum(row.get("prediction_id") == one["prediction_id"] for row in service.logged()) == 1


def test_feedback_on_enough_predictions_ends_a_rollout_still(service: Service) -> None:
    service.says(going(0.5, guards=EAGER))
    for one in service.ask(*leads(40)).json()["predictions"]:
        action = {"action": "followed"} if one["variant"] == "champion" else NO
        assert (
            service.client.post("/feedback", json={**action, "prediction_id": one["prediction_id"]}).status_code == 202
        )
    service.watcher.check()
    assert service.watcher.aborted


def test_an_answer_of_the_champion_cannot_be_told_of_as_the_challengers(service: Service) -> None:
    service.says(going(0.5))
    told = service.ask(*leads(40)).json()["predictions"]
    sides = {each["variant"]: each["prediction_id"] for each in told}
    mine, theirs = (sides[name].rpartition("-") for name in ("champion", "challenger"))
    assert (
        tell(service, prediction_id=f"{theirs[0]}-{mine[2]}")
        == tell(service, prediction_id=f"{mine[0]}.2-{mine[2]}")
        == 422
    )


def test_another_content_of_the_same_kind_is_refused_and_the_first_holds(keeping) -> None:
    client = asking(keeping)
    id = client.post("/predict", json={"records": [ASK]}).json()["predictions"][0]["prediction_id"]
    bodies = [{"action": "outcome", "value": value, "prediction_id": id} for value in (True, True, False, 1, "true")]
    assert [client.post("/feedback", json=body).status_code for body in bodies] == [202, 200, 409, 409, 409]
    assert client.post("/feedback", json={"action": "followed", "prediction_id": id}).status_code == 202
    assert [row["value"] for row in logged(keeping) if row["kind"] == "feedback"] == [True, None]


def test_two_replicas_that_are_told_the_same_count_it_once(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    books = [Logbook(tmp_path / name / "log") for name in ("one", "two")]
    clients = [
        LocalClient(
            create_app(lambda: ServedModel(Lead(), "leads", 7, {}, ASK, secret=b"s"), ServiceContext(logbook=book))
        )
        for book in books
    ]
    ids = [
        one["prediction_id"] for one in clients[0].post("/predict", json={"records": [ASK] * 3}).json()["predictions"]
    ]
    for client in clients:
        assert client.post("/feedback", json={"action": "followed", "prediction_id": ids[0]}).status_code == 202
        assert client.post("/feedback", json={**NO, "prediction_id": ids[1]}).status_code == 202
    assert (
        clients[1]
        .post("/feedback", json={"action": "overridden", "reason": "late", "prediction_id": ids[1]})
        .status_code
        == 409
    )
    for book in books:
        book.close()
    told = [collect_log_folder(ledger, book.folder) for book in books]
    assert [each.new_feedback for each in told] == [2, 0]
    assert len(feedback_with_predictions(ledger, "leads")) == 2


def test_feedback_of_a_service_of_before_joins_and_is_not_counted_twice(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    at, id = datetime(2026, 1, 1, tzinfo=UTC), f"{'a' * 32}-0"
    ledger, folder = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}"), tmp_path / "log"
    folder.mkdir()
    with ledger.write() as connection:  # as the code of before has written it
        row = {"id": "f-old", "model": "m", "prediction_id": id, "at": at, "action": "followed"}
        connection.execute(sa.insert(feedback), row)
    rows = [line("a" * 32, at), said("f1", at, prediction_id=id), said("f2", at, prediction_id=f"{'a' * 32}-1"),
            said("f3", at, prediction_id=f"{'a' * 32}-1"), said("f4", at, prediction_id=f"{'a' * 32}-1", reason="other")]  # fmt: skip
    (folder / "a.jsonl").write_bytes(b"".join(row + b"\n" for row in rows))
    told = collect_log_folder(ledger, folder)
    assert (told.new_feedback, told.repeated) == (1, 1)
    with ledger.read() as connection:
        found = (
            connection.execute(sa.select(feedback.c.prediction_id).order_by(feedback.c.prediction_id)).scalars().all()
        )
    assert found == [id, f"{'a' * 32}-1"]


def test_an_id_of_a_service_of_before_is_taken_and_does_not_count_in_a_rollout(service: Service) -> None:
    service.says(going(0.5))
    for id in (f"{'a' * 32}-0", f"{'a' * 32}.2-0", f"{'b' * 24}-17"):  # the last one of a batch in the ledger
        assert tell(service, prediction_id=id) == 202
    assert heard(service) == {}


def test_without_a_secret_feedback_is_kept_and_never_counted(tmp_path: Path) -> None:
    service = Service(tmp_path)
    for number, each in list(service.versions.items()):
        service.versions[number] = ServedModel(Keen() if number == 2 else Lead(), "leads", each.version, {}, {})
    service.says(going(0.5, guards=EAGER))
    for one in service.ask(*leads(40)).json()["predictions"]:
        assert tell(service, prediction_id=one["prediction_id"]) == 202
    assert heard(service) == {}
    assert len([row for row in service.logged() if row["kind"] == "feedback"]) == 40


def test_a_prediction_of_a_rollout_is_in_the_ledger_under_the_id_that_was_given(
    service: Service, tmp_path: Path
) -> None:
    service.says(going(0.5))
    told = {one["prediction_id"]: one["variant"] for one in service.ask(*leads(30)).json()["predictions"]}
    service.logged()
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}")
    collect_log_folder(ledger, service.folder / "log")
    with ledger.read() as connection:
        assert {row.id: row.variant for row in connection.execute(sa.select(predictions))} == told


def test_feedback_on_an_id_that_somebody_made_up_is_in_no_figure(tmp_path: Path) -> None:
    ledger, now = Ledger(f"sqlite:///{tmp_path / 'ledger.db'}"), datetime(2026, 6, 1, tzinfo=UTC)
    batch, signed = f"{'b' * 24}-17", Signer(b"x" * 32, "leads").token("c" * 24, 0, 1) + "-0"
    prediction = {"id": batch, "model": "leads", "version": 1, "contract": "1.0.0", "variant": "champion", "key": "L-1", "at": now,
                  "inputs": {}, "outputs": {}}  # fmt: skip
    rows = [{"id": f"f-{n}", "model": "leads", "prediction_id": about, "key": None, "at": now, "action": "followed"}
            for n, about in enumerate([batch, signed, f"{'a' * 24}-0", f"{'a' * 32}-7", f"{'a' * 32}.2-0"])]  # fmt: skip
    with ledger.write() as connection:
        connection.execute(sa.insert(predictions), prediction)
        connection.execute(sa.insert(feedback), rows)
    assert [each["prediction_id"] for each in feedback_with_predictions(ledger, "leads")] == [batch, signed]
    ledger.close()
