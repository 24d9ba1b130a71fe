"""Reading alone: `d2c convert --until read` says what every cell takes and gives, and runs nothing."""

import json
import pickle
from pathlib import Path

import pytest
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.convert.convert import convert
from d2c_mlops.convert.plan.data_flow import data_flow_report, to_text
from d2c_mlops.convert.plan.plan import plan_notebook
from d2c_mlops.convert.source.notebook import read_notebook
from d2c_mlops.errors import DataRefused
from d2c_mlops.settings import Settings

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def found(name: str) -> dict:
    return data_flow_report(plan_notebook(read_notebook(NOTEBOOKS / f"{name}.ipynb")))


def test_a_cell_is_told_with_what_it_reads_and_defines():
    cells = {each["cell"]: each for each in found("reads_globals")["cells"]}
    assert cells[2]["imports"] == ["np", "pd"]
    assert cells[3]["defines"] == ["rng", "lead_time_days", "service_z", "demand"]
    assert cells[5]["reads"] == ["demand", "table"]


def test_a_function_that_reads_what_it_is_not_given_is_named():
    globals_read = found("reads_globals")["functions_that_read_globals"]
    assert globals_read["reorder_point"] == ["demand", "lead_time_days", "service_z"]


def test_every_fit_is_told_with_its_features_and_target():
    fits = found("churn_2019")["fits"]
    assert any(each["kind"] == "model" and each["features"] and each["target"] for each in fits)


def test_the_text_names_every_cell_once():
    told = found("reads_globals")
    lines = to_text(told).splitlines()[1:]
    assert [int(line[:4]) for line in lines if line[:4].strip().isdigit()] == [each["cell"] for each in told["cells"]]


def test_until_read_shows_the_reading_and_writes_no_notebook(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    notebook = str(NOTEBOOKS / "reads_globals.ipynb")
    done = CliRunner().invoke(main, ["convert", notebook, "--until", "read", "--no-run", "--json"])
    assert done.exit_code == 0, done.output
    made = json.loads(done.stdout)
    assert made["status"] == "read"
    assert made["read"]["cells"][0]["cell"] == 2
    assert not list(tmp_path.glob("nbs/**/*.ipynb"))


@pytest.mark.parametrize(
    ("name", "cells", "number"),
    [
        ("cell 7", ["x = 1", "y = (1 +"], 2),
        ("plain", ["x = 1", "x = 2", "print(cell 1)"], 3),
        ("only the name says cell 4", ["total = )"], 1),
    ],
)
def test_the_refused_cell_is_the_one_that_failed_whatever_the_texts_say(tmp_path, name, cells, number):
    path = tmp_path / f"{name}.ipynb"
    listed = [{"cell_type": "code", "source": text, "metadata": {}, "outputs": []} for text in cells]
    path.write_text(json.dumps({"cells": listed, "metadata": {}, "nbformat": 4, "nbformat_minor": 4}))
    with pytest.raises(DataRefused) as refused:
        plan_notebook(read_notebook(path))
    assert refused.value.cell == number
    assert pickle.loads(pickle.dumps(refused.value)).cell == number  # it survives the way out of another process
    assert convert(path, name="orders", settings=Settings(root=tmp_path), run=False).refusal.cell == number
