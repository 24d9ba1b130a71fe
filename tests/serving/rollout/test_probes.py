"""What is asked with made-up keys is marked, and nothing is decided, counted or shown of it."""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pandera.pandas as pa
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from d2c_mlops.cli import main
from d2c_mlops.convert.run.inferred_contract import infer_contract
from d2c_mlops.decisions.apply import now_utc
from d2c_mlops.decisions.verdicts import create_decisions
from d2c_mlops.errors import D2CError, DataRefused, UsageError
from d2c_mlops.ledger.migrate import alembic_config
from d2c_mlops.ledger.schema import decisions, feedback, predictions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.contract import Contract, Field, column
from d2c_mlops.registry.versions import new_model, register, version_files
from d2c_mlops.serving.app.app import ServiceContext, create_app
from d2c_mlops.serving.app.service import load_served_model
from d2c_mlops.serving.http import api_keys as keys
from d2c_mlops.serving.http.api_keys import Keyring
from d2c_mlops.serving.local.contract_check import check_service
from d2c_mlops.serving.log.log_collection import collect_log_folder, feedback_with_predictions
from d2c_mlops.serving.log.log_segments import Logbook
from d2c_mlops.serving.package.bento import _copy_code, package_model_version
from d2c_mlops.serving.package.requirements import pinned_requirements
from d2c_mlops.serving.predict import synthetic
from d2c_mlops.serving.predict.predictor import ServedModel
from d2c_mlops.serving.rollout.version_lookup import logged_answerers as served_to
from d2c_mlops.serving.state_paths import keys_file
from support.decisions_shop import CONTRACT, predicted, shop
from support.http_server import listening
from support.lead_service import ASK, Lead
from support.local_client import LocalClient
from support.rollouts import Service, going, leads
from support.training import train


class Pricer(Lead):
    """Asks ten for everything."""

    contract = CONTRACT

    def predict_records(self, records):
        return [{"sku": record["sku"], "price": 10.0} for record in records]


Pricer.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]


@pytest.fixture
def priced(tmp_path: Path) -> Iterator[Any]:
    """A shop whose prices are applied unasked into its own table, a service of its model, and what asks it."""
    own = f"sqlite:///{tmp_path / 'shop.db'}"
    held, ledger, policy = shop(tmp_path, "auto = price > 0", f"apply = {own}::prices")
    engine = sa.create_engine(own)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE prices (sku TEXT PRIMARY KEY, price FLOAT)"))
        connection.execute(sa.text("INSERT INTO prices VALUES ('P-1', 7.0)"))

    def table() -> dict[str, float]:
        with engine.connect() as connection:
            return {row.sku: row.price for row in connection.execute(sa.text("SELECT * FROM prices"))}

    book = Logbook(held.store / "serving/price/log")
    keeping = ServiceContext(keyring=Keyring(keys_file(held)), logbook=book)
    app = create_app(
        lambda: ServedModel(Pricer(), "price", 1, {}, synthetic.synthetic_record(CONTRACT), secret=b"s"), keeping
    )
    with listening(app) as url:
        yield held, ledger, policy, url, table, book
    book.close()
    ledger.close()
    engine.dispose()


def decide(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    done = CliRunner().invoke(main, ["decisions", "run", "price"])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("keyed", [True, False])
def test_what_a_contract_check_is_told_is_never_applied_to_the_shops_table(
    priced, tmp_path, monkeypatch, keyed
) -> None:
    held, ledger, _, url, table, _ = priced
    key = keys.create_key(keys_file(held), "ci", ["price"], now=now_utc(), scopes=["probe"])[1] if keyed else ""
    time.sleep(1.1 * keyed)  # a service looks at its keys once a second
    checks = check_service(url, CONTRACT, 1, key)
    assert not [each for each in checks if not each.holds], checks
    decide(tmp_path, monkeypatch)
    with ledger.read() as connection:
        rows = connection.execute(sa.select(predictions)).all()
        assert not connection.execute(sa.select(decisions)).all()
    assert len(rows) >= 3 and {row.origin for row in rows} == {"probe"} and {row.key for row in rows} == {"d2c-probe"}
    assert table() == {"P-1": 7.0}


def test_what_a_caller_is_told_is_applied(priced, tmp_path, monkeypatch) -> None:
    held, _, _, url, table, _ = priced
    token = keys.create_key(keys_file(held), "pricing", ["price"], now=now_utc(), scopes=["ask", "decide"])[1]
    time.sleep(1.1)  # a service looks at its keys once a second
    record, own = {"sku": "P-1", "current_price": 7.0, "cost": 5.0}, {"authorization": f"Bearer {token}"}
    assert httpx.post(f"{url}/predict", json={"records": [record]}, headers=own).status_code == 200
    decide(tmp_path, monkeypatch)
    assert table() == {"P-1": 10.0}


@pytest.mark.parametrize("given_", ["a caller's key", "no key", "a key that is revoked"])
def test_a_check_that_would_count_as_a_caller_asks_nothing(priced, given_: str) -> None:
    held, _, _, url, _, book = priced
    made, token = keys.create_key(keys_file(held), "crm", ["price"], now=now_utc())
    if given_ == "a key that is revoked":
        keys.create_key(keys_file(held), "other", ["price"], now=now_utc())
        keys.revoke_key(keys_file(held), made.id, now=now_utc() - timedelta(seconds=1))
    time.sleep(1.1)  # a service looks at its keys once a second
    with pytest.raises(UsageError, match="would count this check as a real caller") as refused:
        check_service(url, CONTRACT, 1, "" if given_ == "no key" else token)
    assert "--scope probe" in refused.value.next
    book.close()
    assert not [line for file in book.folder.glob("*.jsonl") for line in file.read_bytes().splitlines()]


def test_a_probe_is_only_what_a_key_or_this_machine_says(tmp_path: Path) -> None:
    def origin(keeping: ServiceContext, client: tuple[str, int], **headers: str) -> str | None:
        app = create_app(lambda: ServedModel(Lead(), "leads", 7, {}, ASK), keeping)
        asked = LocalClient(app, client=client).get("/contract", headers=headers)
        predicted_ = LocalClient(app, client=client).post("/predict", json={"records": [ASK]}, headers=headers)
        told = {each.headers.get("x-d2c-origin") for each in (asked, predicted_) if each.status_code == 200}
        assert len(told) == 1
        return told.pop()

    here, away, mark = ("127.0.0.1", 1), ("10.1.2.3", 1), {"x-d2c-probe": "1"}
    free = ServiceContext()
    assert origin(free, here, **mark) == origin(free, ("::1", 1), **mark) == "probe"
    assert origin(free, here) is None and origin(free, away, **mark) is None
    for proxy in ("x-forwarded-for", "forwarded", "x-real-ip", "via"):
        assert origin(free, here, **mark, **{proxy: "127.0.0.1"}) is None
    production = ServiceContext(settings=replace(free.settings, mode="production"))
    assert origin(production, here, **mark) is None
    file = tmp_path / "keys.json"
    tokens = {
        scope: keys.create_key(file, scope, ["leads"], now=now_utc(), scopes=[scope])[1] for scope in ("ask", "probe")
    }
    guarded = ServiceContext(keyring=Keyring(file))
    assert origin(guarded, here, **mark, authorization=f"Bearer {tokens['ask']}") is None
    assert origin(guarded, away, authorization=f"Bearer {tokens['probe']}") == "probe"


def test_a_key_that_probes_has_no_other_scope_and_opens_no_production_by_itself(tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    with pytest.raises(UsageError, match="cannot be combined with other scopes"):
        keys.create_key(file, "both", ["leads"], now=now_utc(), scopes=["ask", "probe"])
    keys.create_key(file, "ci", ["leads"], now=now_utc(), scopes=["probe"])
    assert not Keyring(file).has_valid_key("leads", now_utc())
    keys.create_key(file, "crm", ["leads"], now=now_utc())
    assert Keyring(file).has_valid_key("leads", now_utc())
    done = CliRunner().invoke(main, ["keys", "create", "x", "--scope", "probe", "--scope", "ask"])
    assert done.exit_code == 2 and "cannot be combined with other scopes" in done.output


def probing(service: Service, tmp_path: Path) -> dict[str, str]:
    file = tmp_path / "keys.json"
    token = keys.create_key(file, "ci", ["leads"], now=now_utc(), scopes=["probe"])[1]
    service.keeping.keyring = Keyring(file)
    return {"authorization": f"Bearer {token}"}


def test_probes_count_neither_for_nor_against_a_rollout(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.says(going(0.5))
    head = probing(service, tmp_path)
    told = service.ask(*leads(400, visits=13), headers=head).json()["predictions"]  # 13: the challenger fails
    assert len(told) == 400 and {each["variant"] for each in told} == {"champion"}
    stream = "\n".join(json.dumps(each) for each in leads(300, visits=13))
    service.client.post("/predict", content=stream, headers={**head, "content-type": "application/x-ndjson"})
    for each in service.ask(*leads(200), headers=head).json()["predictions"]:
        no = {"prediction_id": each["prediction_id"], "action": "overridden", "reason": "no"}
        assert service.client.post("/feedback", json=no, headers=head).status_code == 202
    service.watcher.check()
    assert service.watcher.tally.to_dict() == {} and not service.watcher.aborted
    assert {line.get("origin") for line in service.logged()} == {"probe"}


def test_a_shadow_does_not_answer_probes(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.says(going(mode="shadow"))
    assert service.ask(*leads(5), headers=probing(service, tmp_path)).status_code == 200
    service.watcher.close()
    assert {line["variant"] for line in service.logged()} == {"champion"}


def test_probes_are_on_record_and_in_no_history_adoption_or_decision(tmp_path: Path) -> None:
    held, ledger, policy = shop(tmp_path, "auto = price > 0")
    now = now_utc()
    real = predicted(ledger, "P-1", 9.0, at=now - timedelta(minutes=2))
    probe = predicted(ledger, "P-1", 8.0, at=now - timedelta(minutes=1), origin="probe")
    rows = [("a", real, None, None), ("b", probe, None, None), ("c", real, None, "probe"), ("d", None, "P-1", None)]
    with ledger.write() as connection:
        for id, about, key, origin in rows:
            row = {"id": id, "model": "price", "prediction_id": about, "key": key, "at": now, "action": "followed",
                   "origin": origin}  # fmt: skip
            connection.execute(sa.insert(feedback), row)
    assert {each["id"]: each["prediction"]["id"] for each in feedback_with_predictions(ledger, "price")} == {
        "a": real,
        "d": real,
    }
    assert create_decisions(ledger, policy, now).predictions == 1
    day = timedelta(days=1)
    given_to = served_to(ledger, "price", "P-1", CONTRACT, held, now - day, now + day)
    assert [each.prediction_id for each in given_to] == [real]


def test_a_ledger_of_before_is_read_as_it_is(tmp_path: Path) -> None:
    from alembic import command

    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        made = alembic_config()
        made.attributes["connection"] = connection
        command.upgrade(made, "0007")
        values = "'p-0', 'price', 1, '1.0.0', 'champion', 'P-1', '2026-06-01 12:00:00', '{}', '{\"price\": 1}', NULL, NULL, NULL"
        connection.execute(sa.text(f"INSERT INTO predictions VALUES ({values})"))
    ledger = Ledger(url)
    with ledger.read() as connection:
        (row,) = connection.execute(sa.select(predictions)).all()
    assert (row.id, row.origin) == ("p-0", None)


def test_collecting_says_how_many_predictions_are_those_of_probes(tmp_path: Path) -> None:
    keeping = ServiceContext(logbook=Logbook(tmp_path / "log"))
    app = create_app(lambda: ServedModel(Lead(), "leads", 7, {}, ASK, secret=b"s"), keeping)
    client = LocalClient(app, client=("127.0.0.1", 1))
    client.post("/predict", json={"records": [ASK, ASK]}, headers={"x-d2c-probe": "1"})
    client.post("/predict", json={"records": [ASK]})
    keeping.logbook.close()
    told = collect_log_folder(Ledger(f"sqlite:///{tmp_path / 'ledger.db'}"), tmp_path / "log")
    assert (told.new_predictions, told.probes) == (3, 2)


# --- the record that is asked about


FIELDS = st.one_of(
    st.builds(Field, st.just("k"), st.just("string"), st.just("x"), max_length=st.integers(1, 30)),
    st.builds(Field, st.just("k"), st.just("string"), st.just("x"), choices=st.just(("a", "b"))),
    st.builds(
        Field, st.just("k"), st.just("string"), st.just("x"),
        pattern=st.sampled_from([r"[A-Z]{2}\d{4}", r"(?:SKU|P)-[0-9]+(x|y)?", r"[^@x0-9]+@[^@]+\.[a-z]{2,}", r"\w+", r"a|b", r"[\d-]{10}"]),
    ),
    st.integers(-(10**6), 10**6).flatmap(lambda low: st.builds(Field, st.just("k"), st.just("integer"), st.just("x"), ge=st.just(low), le=st.integers(low, low + 9))),
    st.builds(Field, st.just("k"), st.just("integer"), st.just("x"), le=st.sampled_from([-5, 0, 7])),
    st.builds(Field, st.just("k"), st.just("number"), st.just("x"), ge=st.just(0.5), le=st.sampled_from([0.5, 0.75, None])),
    st.builds(Field, st.just("k"), st.sampled_from(["date", "date-time"]), st.just("x")),
)  # fmt: skip


@given_settings(max_examples=60)
@given(FIELDS, FIELDS)
def test_a_synthetic_record_keeps_any_contract(key: Field, other: Field) -> None:
    other = replace(other, name="other")
    schema = pa.DataFrameSchema({"k": key.column(), "other": other.column()})
    contract = Contract(name="any", version="1.0.0", key="k", inputs=schema, outputs=schema)
    record = synthetic.synthetic_record(contract)
    contract.request_model.model_validate_json(json.dumps(record), strict=True)


def test_a_synthetic_record_has_nobodys_key_and_no_personal_example() -> None:
    text = column("string", "x", example="jo@example.com", personal=True)
    schema = pa.DataFrameSchema({"id": column("string", "x", example="C-17"), "mail": text})
    contract = Contract(name="any", version="1.0.0", key="id", inputs=schema, outputs=schema)
    assert synthetic.synthetic_record(contract) == {"id": "d2c-probe", "mail": "text"}


@pytest.mark.slow
def test_no_training_record_is_in_a_bento_or_its_documents(settings, project) -> None:
    model = train(settings) and new_model("mean_units", settings, {})
    tables, as_of = type(model).example()
    known = pd.DataFrame({"product_id": ["P004"], "day": [pd.Timestamp("2024-02-01")]})
    fitted = model.fit(tables, as_of)
    version = register(
        "mean_units", fitted, fitted.evaluate(tables, as_of), settings=settings, as_of=as_of, example=known
    )
    record = json.loads((version_files(version, settings) / "example.json").read_text())
    bento = package_model_version(version, settings)
    assert not list(bento.folder.rglob("example.json"))
    assert record["product_id"] == "P004"  # P001 is in the contract
    served = load_served_model(bento.folder / "src/model", {"model": "mean_units", "version": 1})
    client = LocalClient(create_app(lambda: served))
    for path in ("/openapi.json", "/", "/contract", "/schema.json"):
        assert record["product_id"] not in client.get(path).text


def test_a_model_that_refuses_keys_it_does_not_know_keeps_its_contract(tmp_path: Path) -> None:
    class Strict(Lead):
        def predict_records(self, records):
            raise DataRefused("no such lead")

    keeping = ServiceContext(logbook=Logbook(tmp_path / "log"))
    with listening(create_app(lambda: ServedModel(Strict(), "leads", 7, {}, ASK), keeping)) as url:
        checks = {each.what: each for each in check_service(url, Lead.contract, 7)}
    assert not [each for each in checks.values() if not each.holds]
    told = checks["/predict answers the example, and the answer matches the contract"].said
    assert "the model refuses the synthetic record, so no prediction was compared" in told and "no such lead" in told


def test_a_service_starts_although_its_model_does_not_take_the_synthetic_record(settings, project, monkeypatch) -> None:
    version = train(settings)
    folder = version_files(version, settings)
    monkeypatch.setattr("toyshop.MeanUnits.predict", lambda *_: {}["a key that is not known"])
    assert load_served_model(folder, {"model": "mean_units", "version": 1}).version == 1


def test_the_example_of_an_observed_field_is_of_no_record_in_particular() -> None:
    frame = pd.DataFrame(
        {
            "age": [81, 30, 35, 40],
            "city": ["Bremen", "Berlin", "Berlin", "Ulm"],
            "since": pd.to_datetime(["2001-01-01", "2024-03-01", "2024-05-01", "2024-04-01"]),
        }
    )
    fields = {each["name"]: each.get("example") for each in infer_contract("m", frame, {}, [])["inputs"]}
    assert {name: fields[name] for name in frame} == {"age": 40, "city": "Berlin", "since": "2024-04-01"}
    assert not any(
        all(str(row[name]).startswith(str(fields[name])) for name in frame) for row in frame.to_dict("records")[:1]
    )


@pytest.mark.slow
def test_a_model_that_does_not_answer_its_own_record_is_not_packaged(settings, project) -> None:
    version = train(settings)
    context = project / "context"
    _copy_code(version, context)
    shutil.copytree(version_files(version, settings), context / "model")
    (context / "version.json").write_text('{"model": "mean_units", "version": 1}')
    (context / "model/example.json").write_text('{"product_id": "P001", "day": "1999-01-01"}')
    with pytest.raises(D2CError, match="days before 2000 are not answered"):
        pinned_requirements(context)
