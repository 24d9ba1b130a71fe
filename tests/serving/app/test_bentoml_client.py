"""BentoML's own clients ask our service, as they ask a service of BentoML's."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bentoml
import httpx
import pytest
from bentoml.exceptions import BentoMLException
from jsonschema import Draft202012Validator

from d2c_mlops.serving.app.app import ServiceContext, create_app
from d2c_mlops.serving.http import api_keys as keys
from d2c_mlops.serving.http.api_keys import Keyring
from d2c_mlops.serving.local.server import free_port, serve_bento
from d2c_mlops.serving.log.log_segments import Logbook
from d2c_mlops.serving.package.bento import package_model_version
from d2c_mlops.serving.predict.predictor import ServedModel
from support.decisions_shop import NOW
from support.http_server import listening
from support.lead_service import ASK, Lead
from support.training import train

RECORDS = [ASK, {**ASK, "lead_id": "L-2", "visits": 7}]


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[str, str]]:
    book, file = Logbook(tmp_path / "log"), tmp_path / "keys.json"
    token = keys.create_key(file, "crm", ["leads"], now=NOW)[1]
    app = create_app(
        lambda: ServedModel(Lead(), "leads", 7, {}, ASK, secret=b"s"),
        ServiceContext(keyring=Keyring(file), logbook=book),
    )
    with listening(app) as url:
        yield url, token
    book.close()


def scores(answer: dict[str, Any]) -> list[float]:
    return [one["score"] for one in answer["predictions"]]


def test_the_synchronous_client_predicts_explains_and_tells(service) -> None:
    url, token = service
    with bentoml.SyncHTTPClient(url, token=token) as client:
        assert client.is_ready()
        answer = client.predict(records=RECORDS)
        assert scores(answer) == scores(client.predict(RECORDS)) == [0.3, 0.7]
        assert [one["reasons"] for one in client.explain(records=RECORDS)["predictions"]] == [
            ["3 visits"],
            ["7 visits"],
        ]
        told = client.feedback(action="followed", prediction_id=answer["predictions"][0]["prediction_id"])
        assert len(told["feedback_id"]) == 32
        assert scores(client.call("predict", records=RECORDS[:1])) == [0.3]


def test_the_asynchronous_client_does_the_same(service) -> None:
    url, token = service

    async def ask() -> list[float]:
        async with bentoml.AsyncHTTPClient(url, token=token) as client:
            assert await client.is_ready()
            both = await asyncio.gather(client.predict(records=RECORDS), client.explain(records=RECORDS))
            return [score for answer in both for score in scores(answer)]

    assert asyncio.run(ask()) == [0.3, 0.7, 0.3, 0.7]


def test_what_the_service_refuses_the_client_raises(service) -> None:
    url, token = service
    with bentoml.SyncHTTPClient(url, token=token) as client:
        with pytest.raises(TypeError, match="record"):
            client.predict(record=RECORDS)
        with pytest.raises(TypeError, match="Missing"):
            client.predict()
        with pytest.raises(BentoMLException, match="no_such_field"):  # nothing is dropped on the way
            client.predict(records=[{**ASK, "no_such_field": 1}])
        with pytest.raises(BentoMLException, match="leads without a visit"):
            client.predict(records=[{**ASK, "visits": 0}])
    with bentoml.SyncHTTPClient(url) as client, pytest.raises(BentoMLException, match="A valid API key is required"):
        client.predict(records=RECORDS)


def test_the_schema_is_json_schema_still(service) -> None:
    url, _ = service
    schema = httpx.get(f"{url}/schema.json").json()
    Draft202012Validator.check_schema(schema)
    assert Draft202012Validator(schema).is_valid(ASK) and not Draft202012Validator(schema).is_valid(
        {**ASK, "visits": "x"}
    )
    assert [route["route"] for route in schema["routes"]] == ["/predict", "/explain", "/feedback"]


def test_healthz_answers_as_bentomls_does(service) -> None:
    url, _ = service
    answer = httpx.get(f"{url}/healthz")
    assert (answer.status_code, answer.text, answer.headers["content-type"]) == (200, "\n", "text/plain; charset=utf-8")
    assert httpx.head(f"{url}/healthz").status_code == 200 and httpx.post(f"{url}/healthz").status_code == 405


@pytest.mark.slow
def test_a_bento_that_runs_is_asked_by_bentomls_client(settings, project) -> None:
    version = train(settings)
    records = [{"product_id": key, "day": "2024-01-01"} for key in ("P001", "P002", "P003")]
    with serve_bento(package_model_version(version, settings), settings, port=free_port()) as server:
        with bentoml.SyncHTTPClient(server.url) as client:
            assert client.is_ready()
            answer = client.predict(records=records)
        plain = httpx.post(f"{server.url}/predict", json={"records": records}).json()
        assert [one["units"] for one in answer["predictions"]] == [one["units"] for one in plain["predictions"]]
        assert httpx.get(f"{server.url}/healthz").text == "\n"
