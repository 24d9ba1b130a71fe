import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psutil
import pytest

from d2c_mlops.errors import D2CError, UsageError
from d2c_mlops.models.core.model import Model
from d2c_mlops.registry.versions import load_version
from d2c_mlops.serving.app.app import ServedModel, ServiceContext, create_app
from d2c_mlops.serving.http.api_keys import create_key
from d2c_mlops.serving.local.server import free_port, serve_bento
from d2c_mlops.serving.package.bento import package_model_version
from d2c_mlops.serving.package.requirements import FORBIDDEN, transitive_versions
from d2c_mlops.serving.rollout.promotion import promote
from d2c_mlops.serving.state_paths import keys_file
from d2c_mlops.settings import ServiceSettings, Settings
from support.local_client import LocalClient
from support.training import train


@pytest.fixture
def client(model: Model) -> LocalClient:
    served = ServedModel(model, "mean_units", 7, {"run_id": "r"}, {"product_id": "P004", "day": "2024-02-01"})
    return LocalClient(create_app(lambda: served), raise_server_exceptions=False)


def post(client: LocalClient, *records: object):
    return client.post("/predict", json={"records": list(records)})


def test_the_answer_is_the_models_own_with_ids_and_version(client: LocalClient, model: Model) -> None:
    answer = post(
        client, {"product_id": "P003", "day": "2024-01-01"}, {"product_id": "P001", "day": "2024-01-01"}
    ).json()
    assert (answer["model"], answer["version"], answer["contract"]) == ("mean_units", 7, "1.0.0")
    first, second = answer["predictions"]
    assert first["product_id"] == "P003" and first["units"] == model.units["P003"]
    assert second["units"] == model.units["P001"] and first["prediction_id"] != second["prediction_id"]


def test_every_fault_of_every_record_is_told_and_nothing_sent_is_repeated(client: LocalClient) -> None:
    answer = post(client, {"product_id": "P001", "day": "2024-01-01"}, {"product_id": 5, "day": "secret"}, {"z": 1})
    assert answer.status_code == 400 and answer.headers["content-type"] == "application/problem+json"
    faults = {(f["index"], f["field"]) for f in answer.json()["errors"]}
    assert faults == {(1, "product_id"), (1, "day"), (2, "product_id"), (2, "day"), (2, "z")}
    assert "secret" not in answer.text


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"[]", b'{"records": []}', b'{"records": {}}', b"\xff\xfe", b'{"records": [1]}']
)
def test_what_is_no_request_is_refused(client: LocalClient, body: bytes) -> None:
    assert client.post("/predict", content=body).status_code == 400


def test_ten_thousand_records_are_taken_and_one_more_is_not(client: LocalClient) -> None:
    record = {"product_id": "P001", "day": "2024-01-01"}
    assert len(post(client, *[record] * 10_000).json()["predictions"]) == 10_000
    assert post(client, *[record] * 10_001).status_code == 413


def test_a_body_that_is_too_large_is_refused(model: Model) -> None:
    served = ServedModel(model, "mean_units", 7, {}, {"product_id": "P004", "day": "2024-02-01"})
    client = LocalClient(create_app(lambda: served, ServiceContext(ServiceSettings(max_body=100))))
    assert post(client, *[{"product_id": "P001", "day": "2024-01-01"}] * 9).status_code == 413


def test_what_the_model_refuses_is_told(client: LocalClient) -> None:
    answer = post(client, {"product_id": "P001", "day": "2024-01-01"}, {"product_id": "P001", "day": "1999-01-01"})
    assert answer.status_code == 422 and answer.json()["errors"] == [{"where": "row 1", "message": "too early"}]


def test_a_fault_of_ours_shows_no_trace(client: LocalClient, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(model), "predict", lambda *_: 1 / 0)
    answer = post(client, {"product_id": "P001", "day": "2024-01-01"})
    assert answer.status_code == 500 and "ZeroDivision" not in answer.text


def test_the_example_of_the_openapi_document_works_when_pasted(client: LocalClient) -> None:
    document = client.get("/openapi.json").json()
    example = document["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert example == {"records": [{"product_id": "P004", "day": "2024-02-01"}]}
    assert client.post("/predict", json=example).status_code == 200
    units = document["components"]["schemas"]["Prediction"]["properties"]["units"]
    assert units["x-unit"] == "units" and units["minimum"] == 0 and units["description"] == "Units [units]"


def test_the_contract_and_the_page_say_what_is_taken(client: LocalClient) -> None:
    assert client.get("/contract").json()["inputs"][0]["name"] == "product_id"
    assert "curl -X POST" in client.get("/").text and "Day asked for" in client.get("/").text


@pytest.mark.slow
def test_a_bento_answers_like_the_model_and_leaves_no_process(settings: Settings, project: Path) -> None:
    version = train(settings)
    promote("mean_units", settings)
    bento = package_model_version(version, settings)
    assert bento.made and not package_model_version(version, settings).made
    pinned = (bento.folder / "env/python/requirements.txt").read_text()
    assert "pandas==" in pinned and not any(f"\n{name}==" in pinned for name in FORBIDDEN)
    port = free_port()
    (project / "mean_units.py").write_text("raise RuntimeError('a module that is called like the model')")
    with serve_bento(bento, settings, port=port) as server:
        body = json.dumps({"records": [{"product_id": "P002", "day": "2024-01-01"}]}).encode()
        request = urllib.request.Request(f"{server.url}/predict", body, {"content-type": "application/json"})
        answer = json.load(urllib.request.urlopen(request, timeout=10))
        assert answer["predictions"][0]["units"] == load_version(version, settings).units["P002"]
        for path in ("/livez", "/readyz", "/metrics", "/contract", "/openapi.json"):
            assert urllib.request.urlopen(server.url + path, timeout=10).status == 200
        tree = psutil.Process(server.process.pid).children(recursive=True)
        for process in tree:
            status = Path(f"/proc/{process.pid}/status").read_text()
            caught = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt:"))
            assert not caught >> (signal.SIGALRM - 1) & 1, "no handler interrupts a model"
        with pytest.raises(UsageError, match=f"port {port} is not available"), serve_bento(bento, settings, port=port):
            pass
    assert not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in tree)


@pytest.mark.slow
def test_a_service_in_production_starts_and_asks_for_a_key(settings: Settings, project: Path) -> None:
    bento = package_model_version(train(settings), settings)
    _, token = create_key(keys_file(settings), "shop", ["mean_units"], now=datetime.now(UTC))
    held = replace(settings, service=replace(settings.service, mode="production"))
    with serve_bento(bento, held, port=free_port()) as server:
        body = json.dumps({"records": [{"product_id": "P002", "day": "2024-01-01"}]}).encode()
        for given, status in ((token, 200), ("d2c_wrong", 401)):
            headers = {"authorization": f"Bearer {given}", "content-type": "application/json"}
            request = urllib.request.Request(f"{server.url}/predict", body, headers)
            try:
                found = urllib.request.urlopen(request, timeout=10).status
            except urllib.error.HTTPError as refused:
                found = refused.code
            assert found == status


def test_the_service_loads_nothing_that_only_training_needs(project: Path) -> None:
    code = "import sys, d2c_mlops.serving.app.service; print(*{m.partition('.')[0] for m in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "bentoml" in loaded and not set(FORBIDDEN) & set(loaded)


@pytest.mark.slow
def test_every_module_of_the_service_can_be_imported_first() -> None:
    code = """
import importlib, pkgutil, sys
import d2c_mlops.serving as room
names = [each.name for each in pkgutil.walk_packages(room.__path__, "d2c_mlops.serving.")]
for name in names:
    for loaded in [each for each in sys.modules if each.startswith("d2c_mlops.serving")]:
        del sys.modules[loaded]
    importlib.import_module(name)
print(*names)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "d2c_mlops.serving.predict.predictor" in done.stdout.split(), done.stderr


def test_pins_follow_what_distributions_require() -> None:
    found = transitive_versions(["pandas"])
    assert {"pandas", "numpy", "python-dateutil"} <= set(found) and "pytest" not in found


@pytest.mark.slow
def test_a_service_that_cannot_start_says_why(settings: Settings) -> None:
    version = train(settings)
    bento = package_model_version(version, settings)
    (bento.folder / "src" / "version.json").unlink()
    short = serve_bento(bento, settings, port=free_port(), timeout=20)
    with pytest.raises(D2CError, match="did not become ready"), short:
        pass


def test_a_taken_port_is_told_before_anything_starts(settings: Settings) -> None:
    from d2c_mlops.serving.local.server import check_port

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(UsageError, match="--port"):
            check_port("127.0.0.1", taken.getsockname()[1])
