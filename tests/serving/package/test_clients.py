"""Typed clients say what the contract says, and get what the service answers; contracts are compared before anybody breaks."""

import importlib.util
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import httpx
import pandera.pandas as pa
import pytest
import uvicorn
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.errors import UsageError
from d2c_mlops.models.core.contract import Contract, column
from d2c_mlops.models.core.model import Model
from d2c_mlops.serving.app.app import ServedModel, create_app
from d2c_mlops.serving.clients import client, languages
from d2c_mlops.serving.rollout.promotion import promote
from support.local_client import LocalClient
from support.training import train

HERE = Path(__file__).parents[2]
TSC = HERE.parent / ".bench" / "node" / "node_modules" / ".bin" / "tsc"
AWKWARD = Contract(
    name="awkward", version="2.1.0", key="customer id",
    inputs=pa.DataFrameSchema({
        "customer id": column("string", "Who */ asks", max_length=20),
        "class": column("string", "A word\nof Python", choices=["a", 'b"'], nullable=True),
        "2nd": column("integer", "Begins with a digit <&>"),
    }),
    outputs=pa.DataFrameSchema({"customer id": column("string", "Who"), "day": column("date", "When", nullable=True)}),
)  # fmt: skip


@pytest.fixture
def app(model: Model):
    served = ServedModel(model, "mean_units", 7, {}, {"product_id": "P004", "day": "2024-02-01"})
    return create_app(lambda: served)


def imported(source: str, folder: Path) -> ModuleType:
    path = folder / "made_client.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("made_client", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_python_client_gets_the_answers_of_the_service(app, model, tmp_path):
    made = imported(client("python", "mean_units", model.contract, False), tmp_path)
    inner = LocalClient(app)

    def forward(request: httpx.Request) -> httpx.Response:
        answer = inner.request(request.method, request.url.path, content=request.content, headers=dict(request.headers))
        return httpx.Response(answer.status_code, content=answer.content)

    with made.Client("http://localhost", transport=httpx.MockTransport(forward)) as asks:
        (said,) = asks.predict([{"product_id": "P002", "day": "2024-01-01"}])
        assert said["units"] == model.units["P002"]
        with pytest.raises(made.Refused) as refused:
            asks.predict([{"product_id": 5}])
    assert refused.value.status == 400
    assert refused.value.problem["errors"]


def test_a_client_does_not_take_the_answers_of_another_contract(model, tmp_path):
    made = imported(client("python", "mean_units", model.contract, False), tmp_path)
    other = httpx.MockTransport(lambda _: httpx.Response(200, json={"contract": "2.0.0", "predictions": []}))
    with made.Client("http://service", transport=other) as asks, pytest.raises(made.Refused, match=r"2\.0\.0"):
        asks.predict([])


TYPED = """
from made_client import Client

def who(asks: Client) -> tuple[int, str]:
    (said,) = asks.predict([{"product_id": "P002", "day": "2024-01-01"}])
    if "version" in said and "variant" in said:
        reveal: int = said["version"]
        return reveal, said["variant"]
    return 0, ""
"""


@pytest.mark.slow
def test_a_client_sees_which_of_two_versions_answered_and_asks_for_its_own_contract(model, tmp_path):
    made = imported(client("python", "mean_units", model.contract, False), tmp_path)
    said = {"prediction_id": "a.2-0", "version": 2, "variant": "challenger", "product_id": "P002", "units": 1.0}
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(200, json={"contract": "1.0.0", "version": 1, "predictions": [said]})

    with made.Client("http://service", transport=httpx.MockTransport(answer)) as asks:
        assert asks.predict([{"product_id": "P002", "day": "2024-01-01"}]) == [said]
    assert asked == ["/v1/predict"]  # so that a service of contract 2 goes on answering it
    (tmp_path / "who.py").write_text(TYPED)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "who.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout


@pytest.mark.slow
def test_a_python_client_is_well_typed_whatever_the_names(tmp_path):
    for name, contract, explains in (("awkward", AWKWARD, True),):
        (tmp_path / f"{name}.py").write_text(client("python", name, contract, explains))
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(tmp_path / "awkward.py")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_csharp_client_is_the_one_that_was_read_by_a_person(model):
    golden = HERE / "golden" / "mean_units.cs"
    assert client("csharp", "mean_units", model.contract, True) == golden.read_text()


def test_names_that_no_language_takes_are_mapped():
    csharp = client("csharp", "awkward", AWKWARD, False)
    assert '[JsonPropertyName("customer id")]\n    public required string CustomerId' in csharp
    assert '[JsonPropertyName("2nd")]\n    public required long N2nd' in csharp
    assert "Begins with a digit &lt;&amp;&gt;" in csharp
    typescript = client("typescript", "awkward", AWKWARD, False)
    assert '"customer id": string;' in typescript
    assert 'class?: "a" | "b\\"" | null;' in typescript
    assert "Who * / asks" in typescript


def test_an_unknown_language_is_told_which_there_are():
    with pytest.raises(UsageError, match=", ".join(sorted(languages()))):
        client("cobol", "awkward", AWKWARD, False)


@pytest.fixture
def url(app) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    until = time.monotonic() + 30
    while not server.started and time.monotonic() < until:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


ASK = """
import { Client, Refused } from "./client.js";
const asks = new Client(process.argv[2]);
const said = await asks.predict([{ product_id: "P002", day: "2024-01-01" }]);
let status = 0;
try {
  await asks.predict([{ product_id: "P002", day: "yesterday" }]);
} catch (error) {
  if (error instanceof Refused) status = error.status;
}
const version: number | undefined = said[0]?.version;
const variant: "champion" | "challenger" | undefined = said[0]?.variant;
console.log(JSON.stringify({ said, status, version: version ?? 0, variant: variant ?? "" }));
"""


@pytest.mark.skipif(not TSC.exists() or not shutil.which("node"), reason="`make test-clients` installs TypeScript")
def test_the_typescript_client_is_compiled_and_run_by_node(model, url, tmp_path):
    (tmp_path / "package.json").write_text('{"type": "module"}')
    (tmp_path / "client.ts").write_text(client("typescript", "mean_units", model.contract, False))
    (tmp_path / "awkward.ts").write_text(client("typescript", "awkward", AWKWARD, True))
    (tmp_path / "ask.ts").write_text(ASK)
    options = ["--strict", "--target", "es2022", "--module", "nodenext", "--lib", "es2022,dom", "--types", "node",
               "--typeRoots", str(TSC.parents[1] / "@types")]  # fmt: skip
    made = subprocess.run([TSC, *options, "ask.ts", "awkward.ts"], cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout
    done = subprocess.run(["node", "ask.js", url], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["said"][0]["units"] == model.units["P002"]
    assert told["status"] == 400
    assert (told["version"], told["variant"]) == (0, "")  # one version answers


def test_a_breaking_change_without_a_major_version_is_refused_before_any_training(settings, project):
    train(settings)
    promote("mean_units", settings)
    same = CliRunner().invoke(main, ["contract", "diff", "mean_units"])
    assert same.exit_code == 0, same.output
    assert "0 changes" in same.output
    module = project / "toyshop" / "__init__.py"
    text = module.read_text()
    module.write_text(
        text.replace('"product_id": PRODUCT, "day": DAY', '"product_id": PRODUCT, "day": DAY, "shop": PRODUCT')
    )
    command = [sys.executable, "-m", "d2c_mlops", "contract", "diff", "mean_units"]
    broken = subprocess.run(command, capture_output=True, text=True, cwd=project)
    assert broken.returncode == 4, broken.stderr
    assert "inputs.shop" in broken.stderr
    module.write_text(module.read_text().replace('version="1.0.0"', 'version="2.0.0"'))
    major = subprocess.run(command, capture_output=True, text=True, cwd=project)
    assert major.returncode == 0, major.stderr
    assert "breaking: inputs.shop" in major.stdout


def test_the_command_writes_a_client(settings, project):
    done = CliRunner().invoke(
        main, ["contract", "client", "mean_units", "--to", "typescript", "--out", "web/client.ts"]
    )
    assert done.exit_code == 0, done.output
    assert "export class Client" in (project / "web" / "client.ts").read_text()
    shown = CliRunner().invoke(main, ["contract", "show", "mean_units"])
    assert "product_id" in shown.output
    assert "units" in shown.output
