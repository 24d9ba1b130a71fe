"""An older major version of a contract is answered beside the newer one until its day, and callers are told which day that is."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.message import Message
from pathlib import Path

import pytest
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.errors import SettingsError, UsageError
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.registry.versions import find_version
from d2c_mlops.serving.app.app import App, ServedModel, ServiceContext, create_app
from d2c_mlops.serving.http.api_keys import Keyring
from d2c_mlops.serving.local.server import free_port, serve_bento
from d2c_mlops.serving.log.log_segments import Logbook
from d2c_mlops.serving.package.bento import package_model_version
from d2c_mlops.serving.predict.older_contracts import OlderContract
from d2c_mlops.serving.predict.sunsets import sunset_texts, supported_older_contracts
from d2c_mlops.serving.rollout.promotion import promote
from d2c_mlops.settings import Settings, load_settings
from support.lead_service import Lead
from support.local_client import LocalClient
from support.training import train

SINCE, UNTIL = datetime(2026, 11, 1, 12, tzinfo=UTC), datetime(2099, 3, 31, 23, 59, 59, tzinfo=UTC)
RECORD = {"lead_id": "L-1", "visits": 3}


class Percent(Lead):
    """The next major version: a score from 0 to 100."""

    contract = replace(Lead.contract, version="2.0.0")

    def predict_records(self, records):
        return [{**row, "score": row["score"] * 100} for row in super().predict_records(records)]


@pytest.fixture
def app(tmp_path: Path) -> App:
    old = ServedModel(Lead(), "leads", 3, {}, RECORD, secret=b"s")
    keeping = ServiceContext(logbook=Logbook(tmp_path / "log"))
    keeping.majors[1] = OlderContract(1, 3, "1.0.0", 2, SINCE, UNTIL, old)
    new = ServedModel(Percent(), "leads", 7, {}, RECORD, secret=b"s")
    return create_app(lambda: new, keeping)


def ask(app: App, path: str, **more: object):
    return LocalClient(app).post(path, json={"records": [RECORD]}, **more)


def test_the_path_chooses_the_version_of_the_contract(app: App) -> None:
    for path, version, score in (("/predict", 7, 30.0), ("/v2/predict", 7, 30.0), ("/v1/predict", 3, 0.3)):
        told = ask(app, path).json()
        assert (told["version"], told["predictions"][0]["score"]) == (version, score)
        assert told["contract"] == ("1.0.0" if version == 3 else "2.0.0")
    assert ask(app, "/v1/explain").json()["predictions"][0]["reasons"] == ["3 visits"]


def test_answers_of_the_older_one_say_how_long_there_will_be_any(app: App) -> None:
    for told in (ask(app, "/v1/predict"), ask(app, "/v1/predict", headers={"x-request-id": "a b"}),
                 LocalClient(app).get("/v1/contract"), LocalClient(app).post("/v1/predict", content=b"{")):  # fmt: skip
        assert told.headers["deprecation"] == "@1793534400"  # RFC 9745
        assert told.headers["sunset"] == "Tue, 31 Mar 2099 23:59:59 GMT"  # RFC 8594
        assert told.headers["link"] == '</v2/contract>; rel="successor-version"'
    for path in ("/predict", "/v2/predict"):
        assert not {"deprecation", "sunset"} & set(ask(app, path).headers)


def test_after_its_day_callers_are_told_that_it_is_gone(app: App) -> None:
    app.keeping.majors[1] = replace(app.keeping.majors[1], sunset=datetime.now(UTC) - timedelta(seconds=1))
    told = ask(app, "/v1/predict")
    assert told.status_code == 410
    assert told.headers["content-type"] == "application/problem+json"
    assert "/v2/contract" in told.json()["detail"]
    assert "sunset" in told.headers
    app.keeping.majors[1] = replace(app.keeping.majors[1], served=None, sunset=UNTIL)
    assert ask(app, "/v1/predict").status_code == 410
    assert ask(app, "/predict").status_code == 200


@pytest.mark.parametrize(
    "path", ["/v3/predict", "/v1/livez", "/v1/metrics", "/v1/v1/predict", "/v1predict", "/v/predict"]
)
def test_there_is_nothing_at_other_paths(app: App, path: str) -> None:
    assert ask(app, path).status_code == 404


def test_a_stream_stays_with_its_version(app: App) -> None:
    body = b"\n".join([json.dumps(RECORD).encode()] * 1200)
    told = LocalClient(app).post("/v1/predict", content=body, headers={"content-type": "application/x-ndjson"})
    rows = [json.loads(line) for line in told.text.splitlines()]
    assert {row["version"] for row in rows[:-1]} == {3}
    assert rows[-1]["complete"]
    assert told.headers["deprecation"] == "@1793534400"


def test_it_is_logged_and_counted_as_what_it_is(app: App, tmp_path: Path) -> None:
    def counted() -> float:
        labels = {"model": "leads", "version": "3", "path": "/predict", "status": "200"}
        from prometheus_client import REGISTRY

        return REGISTRY.get_sample_value("d2c_requests_total", labels) or 0.0

    before = counted()
    ask(app, "/v1/predict")
    ask(app, "/predict")
    assert counted() == before + 1
    app.keeping.logbook.close()
    lines = [json.loads(line) for file in (tmp_path / "log").glob("*.jsonl") for line in file.read_text().splitlines()]
    assert sorted((line["version"], line["contract"]) for line in lines) == [(3, "1.0.0"), (7, "2.0.0")]


def test_it_wants_a_key_as_the_newer_one_does(app: App, tmp_path: Path) -> None:
    app.keeping.keyring = Keyring(tmp_path / "keys.json")
    app.keeping.settings = app.settings = replace(app.settings, mode="production")
    assert ask(app, "/v1/predict").status_code == 401


def test_its_documents_are_its_own(tmp_path: Path, app: App) -> None:
    from d2c_mlops.serving.predict.older_contracts import older_openapi_document

    older = app.keeping.majors[1]
    served = replace(older.served, openapi_document=json.dumps(older_openapi_document(older.served)).encode())
    app.keeping.majors[1] = replace(older, served=served)
    client = LocalClient(app)
    told = client.get("/v1/openapi.json").json()
    assert told["info"]["version"] == "1.0.0"
    assert told["servers"] == [{"url": "/v1"}]
    assert told["paths"]["/predict"]["post"]["deprecated"] is True
    assert not {"/livez", "/metrics"} & set(told["paths"])
    assert client.get("/v1/contract").json()["version"] == "1.0.0"
    (listed,) = client.get("/contract").json()["older"]
    assert (listed["path"], listed["version"], listed["sunset"]) == ("/v1", 3, UNTIL.isoformat())
    assert "/v1/predict" in client.get("/v1/").text


# --- what is promised

NEXT = '''



class NextUnits(MeanUnits):
    """Also for a shop."""

    contract = Contract(
        name="mean_units", version="2.0.0", key="product_id",
        inputs=pa.DataFrameSchema({"product_id": PRODUCT, "day": DAY, "shop": PRODUCT}),
        outputs=MeanUnits.contract.outputs,
    )

    def predict(self, records):
        found = super().predict(records)
        return found.assign(units=found["units"] + 1000)

    def records(self, tables, as_of):
        return super().records(tables, as_of).assign(shop="P001")
'''


@pytest.fixture
def moved(settings: Settings, project: Path) -> Settings:
    """A project whose champion speaks contract 2.0.0, the one before it 1.0.0."""
    train(settings)
    promote("mean_units", settings)
    module = project / "toyshop" / "__init__.py"
    module.write_text(module.read_text() + NEXT)
    text = "from support.training import train; from d2c_mlops.settings import load_settings; train(load_settings())"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, cwd=project,
                          env={**__import__("os").environ, "PYTHONPATH": f"{project}:{Path(__file__).parents[2]}"})  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in [name for name in sys.modules if name.partition(".")[0] == "toyshop"]:
        del sys.modules[name]
    return settings


def test_the_former_champion_of_an_older_major_version_is_kept_for_its_days(moved: Settings, project: Path) -> None:
    ledger, second = Ledger.of(moved), find_version(Ledger.of(moved), "mean_units", 2)
    ((old, version),) = supported_older_contracts(ledger, second, moved)
    assert (old.major, old.version, old.newest, old.deprecated, old.sunset) == (1, 1, 2, None, None)
    assert version.schema.version == "1.0.0"
    done = CliRunner().invoke(main, ["promote", "mean_units", "--override", "--by", "Jo", "--reason", "shops"])
    assert done.exit_code == 0, done.output
    ((old, _),) = supported_older_contracts(ledger, second, moved)
    day = (datetime.now(UTC) + timedelta(days=90)).date()
    assert old.sunset is not None and old.sunset.date() == day
    assert f"served by version 1 at /v1 until {day}" in done.output
    (project / "settings.ini").write_text((project / "settings.ini").read_text() + "sunset.1 = 2027-03-31\n")
    ((old, _),) = supported_older_contracts(ledger, second, load_settings(project, environ={}))
    assert old.sunset == datetime(2027, 3, 31, 23, 59, 59, tzinfo=UTC)
    (project / "settings.ini").write_text((project / "settings.ini").read_text().replace("2027", "2020"))
    assert "ended on 2020-03-31" in sunset_texts(ledger, second, load_settings(project, environ={}))[0]
    assert supported_older_contracts(ledger, find_version(ledger, "mean_units", 1), moved) == []


def test_a_date_that_is_none_is_told(tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_text("[d2c]\n[model:demand]\nsunset.1 = spring\n")
    with pytest.raises(SettingsError) as told:
        load_settings(tmp_path, environ={})
    assert told.value.failures[0].where == "[model:demand] sunset.1"


def get(url: str, body: object = None) -> tuple[int, Message, dict]:
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, {"content-type": "application/json"})) as answer:
            return answer.status, answer.headers, json.loads(answer.read())
    except urllib.error.HTTPError as err:
        return err.code, err.headers, json.loads(err.read())


@pytest.mark.slow
def test_both_answer_over_http_until_the_older_ones_day(moved: Settings, project: Path) -> None:
    promote("mean_units", moved, override=True, by="Jo", reason="shops")
    second = find_version(Ledger.of(moved), "mean_units", 2)
    bento = package_model_version(second, moved)
    old = {"records": [{"product_id": "P002", "day": "2024-01-01"}]}
    new = {"records": [{**old["records"][0], "shop": "P001"}]}
    with serve_bento(bento, moved, port=free_port()) as server:
        status, headers, first = get(f"{server.url}/v1/predict", old)
        assert (status, first["version"], first["contract"]) == (200, 1, "1.0.0")
        assert headers["Sunset"].endswith("23:59:59 GMT")
        status, headers, then = get(f"{server.url}/predict", new)
        assert (status, then["version"], then["contract"]) == (200, 2, "2.0.0")
        assert "Sunset" not in headers
        assert then["predictions"][0]["units"] == first["predictions"][0]["units"] + 1000
        assert get(f"{server.url}/predict", old)[0] == 400
        assert get(f"{server.url}/v1/predict", new)[0] == 400
    ended = replace(moved, models={"mean_units": replace(moved.model("mean_units"), sunset={"1": "2020-03-31"})})
    again = package_model_version(second, ended)
    assert again.tag != bento.tag
    assert not (again.folder / "src" / "older" / "1").exists()
    with serve_bento(again, ended, port=free_port()) as server:
        assert get(f"{server.url}/v1/predict", old)[0] == 410


@pytest.mark.slow
def test_code_that_does_not_keep_an_older_contract_is_not_packaged(moved: Settings, project: Path) -> None:
    promote("mean_units", moved, override=True, by="Jo", reason="shops")
    module = project / "toyshop" / "__init__.py"
    text = module.read_text()
    renamed = 'return pd.DataFrame({"product_id": records["product_id"], "units": units})'
    assert renamed in text
    module.write_text(
        text.replace(renamed, 'return pd.DataFrame({"product_id": records["product_id"], "pieces": units})')
    )
    with pytest.raises(UsageError, match="older version of the contract that is still supported") as told:
        package_model_version(find_version(Ledger.of(moved), "mean_units", 2), moved)
    assert [each.where for each in told.value.failures] == ["contract 1"]
    assert "sunset" in (told.value.next or "")
