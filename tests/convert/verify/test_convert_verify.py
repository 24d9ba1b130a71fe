import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from d2c_mlops.convert.repair.repair_result import RepairResult
from d2c_mlops.convert.verify.verify import verify
from support.conversions import compared
from support.notebooks import notebook

FRAME = "import pandas as pd, numpy as np\ndf = pd.DataFrame({'a': [1.0, 2.0, np.nan], 'b': ['x', 'y', None]})\nn = 3"


def test_the_same_results_are_equivalent(tmp_path: Path) -> None:
    found = compared(tmp_path, [FRAME, "total = df['a'].sum()"], [FRAME, "total = 1.0 + 2.0"], [["df", "n"], ["total"]])
    assert found.status == "equivalent"
    assert [(i.name, i.status) for i in found.items] == [("df", "equal"), ("n", "equal"), ("total", "equal")]
    assert sum(i.values for i in found.items) == (6 + 1) + 1 + 1  # the frame has an index too


def test_a_difference_says_what_where_and_how_much(tmp_path: Path) -> None:
    found = compared(tmp_path, [FRAME, "total = df['a'].sum()"], [FRAME, "total = 3.1"], [["df"], ["total"]])
    assert found.status == "differs" and "total after cell 2 (3.0 became 3.1)" in found.reason


def test_another_cell_of_a_frame_differs(tmp_path: Path) -> None:
    found = compared(tmp_path, [FRAME], [FRAME + "\ndf.loc[1, 'b'] = 'z'"], [["df"]])
    assert found.status == "differs" and "b: 1 of 3 values differ, first y became z" in found.reason


def test_what_is_random_by_itself_is_left_out_by_name(tmp_path: Path) -> None:
    cell = "import numpy as np\nnoise = np.random.random(4)\nn = 4"
    found = compared(tmp_path, [cell], [cell], [["noise", "n"]])
    assert found.status == "equivalent" and "random and not compared: noise" in found.reason


def test_nothing_to_compare_is_not_comparable(tmp_path: Path) -> None:
    assert compared(tmp_path, ["f = object()"], ["f = object()"], [["f"]]).status == "not comparable"
    assert compared(tmp_path / "b", ["x = 1"], ["y = 1"], [["x"]]).status == "not comparable"
    assert compared(tmp_path / "c", ["x = 1"], ["x = 1"], [[]]).status == "not comparable"


def test_a_conversion_that_raises_is_not_comparable_and_says_where(tmp_path: Path) -> None:
    found = compared(tmp_path, ["x = 1"], ["x = 1 / 0"], [["x"]])
    assert found.status == "not comparable" and "cell 1 of the conversion raised ZeroDivisionError" in found.reason


@pytest.mark.slow
def test_a_fitted_estimator_is_compared_by_what_it_learned(tmp_path: Path) -> None:
    fit = "from sklearn.linear_model import Ridge\nmodel = Ridge(alpha={}).fit([[0.0], [1.0], [2.0]], [0.0, 1.0, 2.5])"
    same = compared(tmp_path, [fit.format(1)], [fit.format(1)], [["model"]])
    other = compared(tmp_path / "b", [fit.format(1)], [fit.format(2)], [["model"]])
    assert same.status == "equivalent" and other.status == "differs" and "coef_" in other.reason


@pytest.mark.parametrize(("one", "other", "where"), [
    pytest.param("from sklearn.tree import DecisionTreeRegressor as T\nm = T(max_depth=1).fit([[0], [1], [2]], [0, 1, 1])",
     "from sklearn.tree import DecisionTreeRegressor as T\nm = T(max_depth=1).fit([[0], [1], [2]], [0, 0, 1])", "tree_", marks=pytest.mark.slow),
    pytest.param("import statsmodels.api as sm\nm = sm.OLS([1.0, 2, 4], [1.0, 2, 3]).fit()",
     "import statsmodels.api as sm\nm = sm.OLS([1.0, 2, 5], [1.0, 2, 3]).fit()", "params", marks=pytest.mark.slow),
    ("import pandas as pd\nm = pd.Series([1, 2], index=['a', 'b'])",
     "import pandas as pd\nm = pd.Series([1, 2], index=['a', 'c'])", "index"),
    ("class Rule:\n    def __init__(self): self.least = 3\nm = Rule()",
     "class Rule:\n    def __init__(self): self.least = 4\nm = Rule()", "least"),
])  # fmt: skip
def test_what_is_inside_an_object_is_compared(one: str, other: str, where: str, tmp_path: Path) -> None:
    assert compared(tmp_path, [one], [one], [["m"]]).status == "equivalent"
    found = compared(tmp_path / "b", [one], [other], [["m"]])
    assert found.status == "differs" and where in found.reason


def test_saved_figures_are_compared_with_those_of_today(tmp_path: Path) -> None:
    old = notebook(tmp_path / "old.ipynb", "1 / 3", "7", "'text'")
    new = notebook(tmp_path / "new" / "x.ipynb", "1 / 3", "7", "'text'")
    for path, figures in ((old, ("0.3333", "8", "'text'")), (new, ("0.3333333333", "7", "'text'"))):
        raw = json.loads(path.read_text())
        for cell, text in zip(raw["cells"], figures, strict=True):
            shown = {
                "output_type": "execute_result",
                "data": {"text/plain": text},
                "metadata": {},
                "execution_count": 1,
            }
            cell["outputs"] = [shown]
        path.write_text(json.dumps(raw))
    repair = RepairResult("as is", old, new, order=(0, 1, 2))
    written = SimpleNamespace(
        notebook=new, alignment=[{"converted": 1, "original": [1], "names": ["x"]}], parameters=()
    )
    assert verify(repair, written, tmp_path / "w", timeout=300).saved == {"cells": 2, "same": 1, "other": [2]}  # type: ignore[arg-type]


def test_the_conversion_keeps_what_its_run_showed(tmp_path: Path) -> None:
    cells = ["x = 41", "x + 1"]
    compared(tmp_path, cells, cells, [["x"], []])
    kept = json.loads((tmp_path / "new" / "x.ipynb").read_text())["cells"]
    assert kept[1]["outputs"][0]["data"]["text/plain"] in ("42", ["42"]) and kept[1]["source"] == ["x + 1"]


def test_a_secret_of_the_environment_is_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_TOKEN", "geheim")
    cell = "import os\nseen = os.environ.get('SHOP_TOKEN', 'nothing')"
    found = compared(tmp_path, [cell], ["seen = 'nothing'"], [["seen"]])
    assert os.environ["SHOP_TOKEN"] == "geheim" and found.status == "equivalent"


def test_a_notebook_that_does_not_run_is_not_comparable(tmp_path: Path) -> None:
    repair = replace(RepairResult("refused", tmp_path / "x.ipynb", None))
    assert verify(repair, SimpleNamespace(alignment=()), tmp_path).status == "not comparable"  # type: ignore[arg-type]
