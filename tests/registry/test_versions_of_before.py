"""What the toolkit wrote when its modules lay elsewhere is loaded, judged, read and served: see fixtures/before_rooms."""

import json
import sqlite3
import sys
import tarfile
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from d2c_mlops.data.tables import Tables
from d2c_mlops.ledger import schema
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.contract import to_frame, to_records
from d2c_mlops.models.core.model import class_path
from d2c_mlops.registry.gate import judge_clauses
from d2c_mlops.registry.promotion_history import champion_at_time, promotions_until
from d2c_mlops.registry.versions import find_version, load_version, version_files
from d2c_mlops.serving.local.server import free_port, serve_bento
from d2c_mlops.serving.package.bento import Bento
from d2c_mlops.settings import Settings, load_settings

FIXTURE = Path(__file__).parents[1] / "fixtures" / "before_rooms"
WRITTEN_AT = "/tmp/fx/p"
ANSWERS: dict[str, Any] = json.loads((FIXTURE / "answers.json").read_text(encoding="utf-8"))


@pytest.fixture
def former(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gate_in_process: None) -> Settings:
    """The settings of a project whose store was written by the code before the modules moved."""
    with tarfile.open(FIXTURE / "project.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    with sqlite3.connect(tmp_path / "d2c_store" / "ledger.db") as ledger:  # the project lies in another folder now
        ledger.execute("UPDATE versions SET artifact_uri = replace(artifact_uri, ?, ?)", (WRITTEN_AT, str(tmp_path)))
    ledger.close()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.partition(".")[0] == "toyshop"]:
        monkeypatch.delitem(sys.modules, name)
    return load_settings(tmp_path, environ={})


@pytest.mark.parametrize(
    ("name", "former_path", "present_path"),
    [
        ("mean_units", "toyshop:MeanUnits", "toyshop:MeanUnits"),
        (
            "lead_scoring",
            "d2c_mlops.models.lead_scoring:LeadScorer",
            "d2c_mlops.models.lead_scoring.lead_scoring:LeadScorer",
        ),
    ],
)
def test_a_version_loads_by_its_former_class_path_and_answers_as_it_did(
    former: Settings, name: str, former_path: str, present_path: str
) -> None:
    version = find_version(Ledger.of(former), name)
    described = json.loads((version_files(version, former) / "model.json").read_text(encoding="utf-8"))
    assert described["class"] == version.model_class == former_path
    model = load_version(version, former)
    assert class_path(type(model)) == present_path
    contract, written = model.contract, ANSWERS[name]
    assert to_records(contract.output_fields, model.predict(_frame(model, written["records"]))) == written["answers"]
    tables = Tables.open(former.store, version.inputs[0]["name"], version.inputs[0]["digest"])
    assert (
        to_records(contract.input_fields, model.records(tables, date.fromisoformat(str(version.as_of))).head(20))
        == written["records"]
    )


def test_the_gate_judges_a_version_of_before(former: Settings) -> None:
    clauses = judge_clauses(find_version(Ledger.of(former), "mean_units"), None, former)
    assert len(clauses) >= 7 and [clause for clause in clauses if not clause.holds] == []


def test_the_ledger_is_migrated_and_its_runs_and_promotions_are_read(former: Settings) -> None:
    ledger = Ledger.of(former)
    with ledger.read() as connection:
        runs = connection.execute(select(schema.runs.c.id, schema.runs.c.status)).all()
    assert sorted(run.status for run in runs) == ["succeeded", "succeeded"]
    assert {(promotion.model, promotion.version, promotion.by) for promotion in promotions_until(ledger)} == {
        ("mean_units", 1, "Jo"),
        ("lead_scoring", 1, "Jo"),
    }
    for name in ANSWERS:
        promoted = champion_at_time(ledger, name)
        assert promoted is not None and promoted.run_id in {run.id for run in runs}


@pytest.mark.slow
def test_a_bento_of_before_is_served_as_it_was_packaged(former: Settings) -> None:
    (folder,) = (former.store / "bentoml" / "bentos" / "mean_units").glob("v1-*")
    assert (folder / "src" / "d2c_mlops" / "models" / "model.py").exists()
    written = ANSWERS["mean_units"]
    with serve_bento(Bento(f"mean_units:{folder.name}", folder, made=False), former, port=free_port()) as server:
        reply = httpx.post(f"{server.url}/predict", json={"records": written["records"]}, timeout=30)
    assert reply.status_code == 200, reply.text
    predictions = reply.json()["predictions"]
    assert [{name: row[name] for name in written["answers"][0]} for row in predictions] == written["answers"]


def _frame(model: Any, records: list[dict[str, Any]]) -> Any:
    checked = [dict(model.contract.request_model(**record)) for record in records]
    return to_frame(model.contract.input_fields, checked)
