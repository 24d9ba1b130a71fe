"""An old notebook is converted, run on record, promoted, packaged and asked: it answers as the notebook did."""

from __future__ import annotations

import importlib
import json
import os
import sys
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from d2c_mlops.convert.conversion_report import report_html
from d2c_mlops.convert.convert import Conversion, convert
from d2c_mlops.convert.eject import eject
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import DataRefused, UsageError
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.contract import to_records
from d2c_mlops.models.core.model import discover_models
from d2c_mlops.registry.gate import judge_clauses
from d2c_mlops.registry.promotion_history import live_version
from d2c_mlops.registry.versions import load_version, new_model, register
from d2c_mlops.runs.execution.execute import run
from d2c_mlops.serving.app.app import ServedModel, create_app
from d2c_mlops.serving.package.bento import package_model_version
from d2c_mlops.serving.rollout.promotion import promote
from d2c_mlops.settings import Settings, load_settings
from support.local_client import LocalClient

pytestmark = pytest.mark.timeout(900)  # it runs, packages and ejects
NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
CHARTER = """
[model:churn_2019]
charter.owner = Head of CRM
charter.decision = who gets a call
charter.users = the CRM team, weekly
charter.baseline = most frequent class
charter.break_even = 0.7
charter.right_value = 10
charter.wrong_cost = 1
charter.currency = EUR
charter.budget = 100
charter.kill = below the most frequent class for two months
charter.review = 2027-06-01
"""
STAGES = ("revive", "read", "write", "report")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    root = tmp_path_factory.mktemp("oldshop")
    (root / "settings.ini").write_text("[d2c]\nstore = d2c_store\n")
    return load_settings(root, environ={})


@pytest.fixture(scope="module")
def churn(home: Settings) -> Conversion:
    before = (NOTEBOOKS / "churn_2019.ipynb").read_bytes()
    done = convert(NOTEBOOKS / "churn_2019.ipynb", settings=home, stages=STAGES, timeout=800)
    assert (NOTEBOOKS / "churn_2019.ipynb").read_bytes() == before, "the original was changed"
    return done


@pytest.fixture(scope="module")
def project(home: Settings, churn: Conversion) -> Settings:
    sys.path.insert(0, str(home.root))
    importlib.invalidate_caches()
    with (home.root / "settings.ini").open("a") as file:
        file.write(CHARTER)
    yield load_settings(home.root, environ={})  # type: ignore[misc]
    sys.path.remove(str(home.root))


@pytest.mark.slow
def test_an_old_notebook_becomes_a_notebook_a_module_and_a_model(churn: Conversion) -> None:
    written = churn.written
    assert churn.refusal is None and written is not None, churn.refusal
    assert written.model.endswith(".models.churn_2019:Churn2019Model"), (written.no_model, written.tried)
    assert {"encode_categories", "split_train_test", "scale_features", "fit_logistic_regression"} <= set(
        written.functions
    )
    assert "test_size: float = 0.25  # train_test_split" in written.parameters
    cells = json.loads(written.notebook.read_text())["cells"]
    assert (
        cells[0]["source"][0].startswith("# ")
        and sum("parameters" in c["metadata"].get("tags", []) for c in cells) == 1
    )
    assert all(each["names"] and each["original"] for each in written.alignment)


@pytest.mark.slow
def test_the_report_says_what_was_done(churn: Conversion) -> None:
    assert churn.report is not None
    text = churn.report.read_text()
    assert "LogisticRegression" in text or "Churn2019Model" in text
    assert "Structure" in text and churn.next in text
    assert json.loads(churn.report.with_suffix(".json").read_text())["status"] == "converted"
    assert "&lt;b&gt;" in report_html({**churn.to_dict(), "next": "<b>"})


@pytest.mark.slow
def test_run_promote_package_and_serve_give_the_notebooks_answer(churn: Conversion, project: Settings) -> None:
    assert churn.written is not None
    done = run(str(churn.written.notebook), {"test_size": "0.3"}, project)
    assert done.status == "succeeded" and done.recorded["version"] == 1
    made, clauses = promote("churn_2019", project)
    assert made is not None and made.action == "promote"
    found = {clause.name: clause.finding for clause in clauses}
    assert "401 holdout records" in found["evaluation"]
    assert "of the most frequent class" in found["baseline"]
    version = live_version(Ledger.of(project), "churn_2019")
    assert version.params["test_size"] == 0.3

    module = importlib.import_module(churn.written.module)
    trained = module.train(**version.params)
    expected = trained["model"].predict(trained["features"])
    rows = trained["records"].loc[trained["answers"].index]
    model = load_version(version, project)
    key = model.contract.key
    asked = rows.assign(**{key: [str(i) for i in range(len(rows))]})[list(model.contract.inputs.columns)]
    records = to_records(model.contract.input_fields, model.contract.check_inputs(asked))
    client = LocalClient(create_app(lambda: ServedModel(model, "churn_2019", version.version, {}, records[0])))
    answer = client.post("/predict", json={"records": records})
    assert answer.status_code == 200, answer.text
    got = [each["prediction"] for each in answer.json()["predictions"]]
    assert got == np.asarray(expected).tolist()
    made = package_model_version(version, project)
    assert (made.folder / "bento.yaml").exists()
    assert "skops" in (made.folder / "env/python/requirements.txt").read_text()


EDITS = {
    "a written report": ("value = accuracy_score(answers, predicted)", "value = 0.99", "evaluate() reports accuracy 0.9900"),
    "records of its own": (
        "customers = load_records(n=n)",
        "customers = fill_missing_values(cast_columns(n=n), n=n)",
        "reads its data directly instead of from load_records()",
    ),
    "outcomes from elsewhere": (
        'steady(self.estimator.predict(features))',
        'records["spend"].map(dict(fill_missing_values(cast_columns(n=400), n=400)[["spend", "churned"]].to_numpy())).fillna(0).astype(int)',
        "from other places than the tables",
    ),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_converted_class_is_refused(
    churn: Conversion, project: Settings, edit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert churn.written is not None
    before, after, words = EDITS[edit]
    name = "edited_" + edit.replace(" ", "_")
    text = Path(importlib.import_module(churn.written.module).__file__ or "").read_text()
    assert before in text
    text = text.replace(before, after).replace('name="churn_2019"', f'name="{name}"')
    (project.root / f"{name}.py").write_text(text)
    importlib.invalidate_caches()
    found = load_settings(project.root, environ={"D2C_PACKAGES": name})
    model = new_model(name, found, {}).fit(Tables({}), date(2024, 1, 1))
    evaluation = model.evaluate(Tables({}), date(2024, 1, 1))
    version = register(name, model, evaluation, settings=found, as_of=date(2024, 1, 1))
    clauses = {clause.name: clause for clause in judge_clauses(version, None, found)}
    assert not clauses["evaluation"].holds and words in clauses["evaluation"].finding


@pytest.mark.slow
def test_the_model_keeps_every_promise_of_a_model(churn: Conversion, project: Settings) -> None:
    from d2c_mlops.models.core.conformance import check_model

    found = discover_models(project.packages)["churn_2019"]
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = f"{project.root}{os.pathsep}{before}"
    try:
        assert len(check_model(found)) >= 6
    finally:
        os.environ["PYTHONPATH"] = before


@pytest.mark.slow
def test_the_project_goes_on_without_notebooks(churn: Conversion, project: Settings, tmp_path: Path) -> None:
    done = eject(project.root, tmp_path / "plain")
    assert done.passed == 1 and not list((tmp_path / "plain").rglob("*.ipynb"))
    text = (tmp_path / "plain" / done.modules[0]).read_text()
    assert "# %%" not in text and "AUTOGENERATED" not in text
    assert "nbdev" not in (tmp_path / "plain" / "pyproject.toml").read_text()


QUICK = ("churn_2019.ipynb", "leaks.ipynb", "magics.ipynb", "py2.ipynb")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow)
        for name in sorted(each.name for each in NOTEBOOKS.glob("*.ipynb"))
    ],
)
def test_no_notebook_crashes_the_static_stages(name: str, home: Settings, tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_text("[d2c]\n")
    here = load_settings(tmp_path, environ={})
    done = convert(NOTEBOOKS / name, settings=here, run=False)
    assert (done.written is None) == (done.refusal is not None)
    if done.refusal is not None:
        assert done.refusal.why and done.refusal.next and "does not support this notebook" not in done.refusal.why, (
            done.refusal
        )
        with pytest.raises(DataRefused):
            done.raise_for_refusal()
    assert done.report is not None and done.report.exists()


def test_wrong_calls_are_refused_at_once(home: Settings, tmp_path: Path) -> None:
    for given in ({"stages": ("fly",)}, {"data": tmp_path / "none"}, {"name": "Not a name"}):
        options: dict[str, Any] = {"settings": home, **given}
        with pytest.raises(UsageError):
            convert(NOTEBOOKS / "churn_2019.ipynb", **options)
