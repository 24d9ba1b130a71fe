"""A copy of a notebook is mended until it runs, or refused with the cell, the reason and what to do; the original stays."""

import json
from pathlib import Path
from typing import Any

import pytest

from d2c_mlops.convert.repair import last_resorts, repair_state, run_and_fix
from d2c_mlops.convert.repair.package_installation import InstallResult
from d2c_mlops.convert.repair.repair_result import RepairResult
from d2c_mlops.convert.repair.repairing import repair_notebook
from support.notebook_cells import LEARN, PLOT, SHOP
from support.notebooks import notebook
from support.shared_session import Shared


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let all notebooks run in one child: it is what they compute that matters, not where."""
    monkeypatch.setattr(run_and_fix, "Session", Shared)


def tried(folder: Path, *cells: str, outputs: dict[int, Any] | None = None, **given: Any) -> RepairResult:
    path = notebook(folder / "old" / "x.ipynb", *cells, outputs=outputs)
    before = path.read_bytes()
    made = repair_notebook(path, folder / "work", **{"timeout": 60.0, **given})
    assert path.read_bytes() == before and [one.name for one in path.parent.iterdir() if one.suffix == ".ipynb"] == [
        "x.ipynb"
    ]
    assert json.loads((folder / "work" / "revived.json").read_text())["status"] == made.status
    assert not (folder / "work" / "runs").exists()
    return made


@pytest.mark.usefixtures("shared")
def test_what_runs_is_as_it_is_and_keeps_its_outputs(tmp_path: Path) -> None:
    made = tried(tmp_path, "x = 41", "x + 1", f"{PLOT}\nplt.plot([1, 2]);")
    assert (made.status, made.fixes, made.runs, made.order) == ("as is", (), 1, (0, 1, 2))
    assert made.notebook is not None
    cells = json.loads(made.notebook.read_text())["cells"]
    assert cells[1]["outputs"][0]["data"]["text/plain"] in ("42", ["42"])
    assert json.loads((tmp_path / "work" / "reference.json").read_text()) == {}


@pytest.mark.usefixtures("shared")
def test_a_mend_says_where_what_and_why(tmp_path: Path) -> None:
    made = tried(tmp_path, SHOP, "# counts\na = df.append(df)\nn = len(a)")
    assert made.status == "revived" and len(made.fixes) == 1
    told = made.fixes[0].to_dict()
    assert told == {
        "cell": 2,
        "kind": "api",
        "before": "a = df.append(df)",
        "after": "a = pd.concat([df, df])",
        "reason": told["reason"],
    }
    assert "pandas.DataFrame.append" in told["reason"] and "concat" in told["reason"]


@pytest.mark.usefixtures("shared")
def test_cells_that_ran_out_of_order_are_moved(tmp_path: Path) -> None:
    made = tried(tmp_path, "total = price * units", "print(total)", "price = 2", "units = 3")
    assert made.status == "revived" and [fix.kind for fix in made.fixes] == ["order", "order"]
    assert sorted(made.order) == [0, 1, 2, 3] and made.order.index(2) < made.order.index(0) > made.order.index(3)
    assert "run out of order" in made.fixes[0].reason


@pytest.mark.usefixtures("shared")
def test_several_failures_in_one_cell_are_mended_one_after_the_other(tmp_path: Path) -> None:
    cell = "m = df.corr()\ndf['units'][0] = 7\nr = df['units'].reshape(-1, 1)\nq = df['shop'].value_counts()[0]"
    made = tried(tmp_path, SHOP, cell, "assert df['units'][0] == 7 and r.shape == (4, 1) and q == 2")
    assert made.status == "revived"
    assert {fix.kind for fix in made.fixes} == {"numeric-only", "copy-on-write", "plain-array", "positions-by-number"}


@pytest.mark.usefixtures("shared")
def test_a_plot_that_cannot_be_drawn_is_left_out_and_nothing_else(tmp_path: Path) -> None:
    made = tried(tmp_path, f"{PLOT}\n{SHOP}", "df['shop'].plot()\nn = 1", "assert n == 1")
    assert made.status == "revived" and made.fixes[0].kind == "undrawn" and made.fixes[0].after == "# df['shop'].plot()"
    assert tried(tmp_path / "b", SHOP, "x = df['shop'].astype(float)").status == "refused"


@pytest.mark.usefixtures("shared")
def test_what_failed_when_it_was_saved_is_left_out(tmp_path: Path) -> None:
    error = {"output_type": "error", "ename": "NameError", "evalue": "no", "traceback": ["NameError: no"]}
    made = tried(
        tmp_path,
        "x = 1\nx.nothing = 2",
        "y = nowhere\nz = 3",
        "w = x",
        outputs={0: [error | {"ename": "AttributeError", "traceback": ["AttributeError: no"]}], 1: [error]},
    )
    assert made.status == "revived" and [fix.kind for fix in made.fixes] == ["failed-before"] * 2
    assert made.fixes[0].after == "# x.nothing = 2" and made.fixes[1].after == "# y = nowhere\n# z = 3"


def test_the_data_are_read_and_never_written(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "sales.csv").write_text("units\n1\n2\n")
    cell = "import pandas as pd\ndf = pd.read_csv('/home/me/Sales.csv')\ndf.to_csv('sales.csv')\nopen('new.txt', 'w').write('a')"
    made = tried(tmp_path, cell, data=data)
    assert made.status == "revived" and {fix.kind for fix in made.fixes} == {"path"}
    assert (data / "sales.csv").read_text() == "units\n1\n2\n"
    assert [one.name for one in data.iterdir()] == ["sales.csv"]


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize(
    ("cells", "cell", "why", "next"),
    [
        (["x = 1", "import pandas as pd\ndf = pd.read_csv('lost.csv')"], 2, "lost.csv", "--data"),
        (["name = input('who?')"], 1, "waits for input", "parameters cell"),
        (["x = 1", "y = undefined_name"], 2, "undefined_name", "define the name"),
        (["import a_module_that_nobody_wrote as m", "m.go()"], 1, "missing packages: a-module-that-nobody-wrote", "--install"),
        (["import pandas as pd\npd.read_csv('http://localhost:9/sales.csv')"], 1, "refused", "download the file"),
        (["x = 1 / 0"], 1, "ZeroDivisionError", "fix line 1"),
        (["x = (1"], 1, "not valid Python", "by hand"),
        (["exec 'x = 1' in {}\nprint 'a' %"], 1, "Python 2", "by hand"),
        (["import os\nos._exit(7)"], 1, "exit code 7", "run the cell alone"),
    ],
)  # fmt: skip
def test_a_refusal_names_the_cell_the_reason_and_the_next_step(
    cells: list[str], cell: int, why: str, next: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> InstallResult:
        raise AssertionError("nothing is installed without being asked for")

    monkeypatch.setattr(repair_state, "install_packages", never)
    made = tried(tmp_path, *cells)
    assert made.status == "refused" and made.refusal is not None
    told = made.refusal.to_dict()
    assert told["cell"] == cell and why in told["why"] and next in told["next"], told
    if "os._exit" in cells[0]:
        Shared.held.clear()


def test_an_endless_cell_is_refused_in_time(tmp_path: Path) -> None:
    made = tried(tmp_path, "x = 1", "while True:\n    x += 1", timeout=4.0)
    assert made.refusal is not None and (made.refusal.cell, made.refusal.error) == (1, "timeout")
    assert "--timeout" in made.refusal.next


def test_a_cell_that_takes_too_much_memory_is_refused(tmp_path: Path) -> None:
    made = tried(
        tmp_path,
        "import time\nheld = []\nwhile True: held.append(b'x' * (20 << 20)); time.sleep(0.02)",
        memory=500 << 20,
    )
    assert made.refusal is not None and (made.refusal.cell, made.refusal.error) == (0, "memory")


@pytest.mark.parametrize(
    ("metadata", "cells", "why"),
    [
        ({"kernelspec": {"name": "ir", "language": "R"}}, ["library(dplyr)"], "language is R, not Python"),
        (
            {"kernelspec": {"name": "julia-1.6", "language": "julia"}},
            ["using DataFrames"],
            "language is julia, not Python",
        ),
        ({}, ["", "  "], "no code"),
        ({}, [], "no code"),
    ],
)
def test_what_is_not_python_is_refused_before_anything_runs(
    metadata: dict[str, Any], cells: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_and_fix, "Session", None)
    made = repair_notebook(notebook(tmp_path / "x.ipynb", *cells, **metadata), tmp_path / "work")
    assert made.status == "refused" and made.refusal is not None and why in made.refusal.why and made.refusal.next


@pytest.mark.parametrize("raw", [b"", b"{}", b"<html>", b'{"cells": 3}', b"\x89PNG", b'{"cells": [], "nbformat": 9}'])
def test_what_is_no_notebook_is_refused(raw: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.ipynb").write_bytes(raw)
    made = repair_notebook(tmp_path / "x.ipynb", tmp_path / "work")
    assert made.status == "refused" and made.refusal is not None and made.refusal.why and made.notebook is None


def test_what_is_missing_is_installed_into_the_runs_own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[list[str], Path]] = []

    def install(wanted: Any, folder: Path) -> InstallResult:
        asked.append((list(wanted), folder))
        (folder / "lifetimes.py").write_text("def fit():\n    return 3\n")
        return InstallResult(("Lifetimes==0.11.3",), {})

    monkeypatch.setattr(repair_state, "install_packages", install)
    made = tried(tmp_path, "import lifetimes", "n = lifetimes.fit()", install=True)
    assert made.status == "as is" and made.installed == ("Lifetimes==0.11.3",), made.refusal
    assert asked == [(["lifetimes"], tmp_path / "work" / "packages")]


def test_what_cannot_be_installed_is_refused_with_the_installers_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        repair_state, "install_packages", lambda wanted, _: InstallResult((), dict.fromkeys(wanted, "no version fits"))
    )
    made = tried(tmp_path, "import lifetimes\nn = lifetimes.fit()", install=True)
    assert made.refusal is not None and "no version fits" in made.refusal.why and made.missing == ("lifetimes",)


@pytest.mark.usefixtures("shared")
def test_a_default_that_the_author_was_warned_about_is_kept(tmp_path: Path) -> None:
    warning = {
        "output_type": "stream",
        "name": "stderr",
        "text": "FutureWarning: The default value of `n_init` will change from 10 to 'auto' in 1.4.",
    }
    made = tried(tmp_path, f"{LEARN}\nfrom sklearn.cluster import KMeans\nm = KMeans(2).fit(X)", outputs={0: [warning]})
    assert [fix.kind for fix in made.fixes] == ["clusters"] and "n_init=10" in made.fixes[0].after


def without_wheels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_resorts, "VIEWING", frozenset({"charts_of_nobody"}))
    none = lambda names, folder: InstallResult((), dict.fromkeys(names, "no usable wheels"))  # noqa: E731
    monkeypatch.setattr(repair_state, "install_packages", none)


@pytest.mark.usefixtures("shared")
def test_what_a_missing_package_only_shows_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_wheels(monkeypatch)
    cells = [
        "from charts_of_nobody import Elbow as E\nn = 2",
        "chart = E(n)\nchart.fit([1, 2])\nfor size in (1, 2):\n    chart.show(size)",
        "total = n + 1\nprint(chart)",
        "chart = total\nchart + 1",
    ]
    alone = tried(tmp_path / "alone", *cells)
    assert alone.status == "refused" and "--install" in alone.refusal.next, "with it, the pictures may be kept"
    made = tried(tmp_path, *cells, install=True)
    assert made.status == "revived" and {fix.kind for fix in made.fixes} == {"only-looked-at"}, made.refusal
    assert made.notebook is not None
    left = ["".join(cell["source"]) for cell in json.loads(made.notebook.read_text())["cells"]]
    assert left[0] == "# from charts_of_nobody import Elbow as E\nn = 2"
    assert all(line.startswith("# ") for line in left[1].splitlines())
    assert left[2] == "total = n + 1\n# print(chart)"
    assert left[3] == "chart = total\nchart + 1", "the name has another value from here on"


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize(
    "use",
    [
        "table['best'] = E(n)",
        "found = []\nfound.append(E(n).best)",
        "del E",
        "from charts_of_nobody import Knee as K, Elbow\ntable['k'] = K",
    ],
)
def test_what_reaches_data_is_not_left_out(use: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_wheels(monkeypatch)
    made = tried(tmp_path, "from charts_of_nobody import Elbow as E\nn = 2\ntable = {}", use, install=True)
    assert made.status == "refused" and "only-looked-at" not in {fix.kind for fix in made.fixes}


@pytest.mark.usefixtures("shared")
def test_another_missing_package_is_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_wheels(monkeypatch)
    made = tried(tmp_path, "from rules_of_nobody import rules\nprint(rules([1]))", install=True)
    assert made.status == "refused" and not made.fixes


@pytest.mark.usefixtures("shared")
def test_a_cell_that_was_saved_with_its_syntax_error_is_left_out(tmp_path: Path) -> None:
    error = {"output_type": "error", "ename": "SyntaxError", "evalue": "never closed", "traceback": ["SyntaxError"]}
    made = tried(tmp_path, "x = 1", "print(x", "x + 1", outputs={1: [error]})
    assert made.status == "revived" and [fix.kind for fix in made.fixes] == ["invalid-before"]
    assert made.notebook is not None
    assert "".join(json.loads(made.notebook.read_text())["cells"][1]["source"]) == "# print(x"
    without = tried(tmp_path / "other", "x = 1", "print(x", "x + 1")
    assert without.status == "refused" and "not valid Python" in without.refusal.why
