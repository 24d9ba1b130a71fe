"""The author's own packages are used from where they lie, and no index is asked for their names."""

from __future__ import annotations

from pathlib import Path

import pytest

from d2c_mlops.convert.check.check import check
from d2c_mlops.convert.convert import Conversion, convert
from d2c_mlops.convert.meaning.path_values import Values
from d2c_mlops.convert.repair import repair_state
from d2c_mlops.convert.repair.package_installation import InstallResult
from d2c_mlops.convert.run.local_packages import choose_local_packages, copy_packages, import_roots, local_modules
from d2c_mlops.convert.source.notebook import read_notebook
from d2c_mlops.errors import DataRefused
from d2c_mlops.runs.execution.execute import run
from d2c_mlops.settings import load_settings
from support.notebooks import notebook


def written(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


PLACES = {
    "beside the notebook": ("", {"work/src/config.py": "V = 1", "work/src/__init__.py": ""}, None),
    "a namespace package beside it": ("", {"work/src/config.py": "V = 1"}, None),
    "at the root of the repository, two levels up": (
        "", {"src/config.py": "V = 1", "src/__init__.py": "", ".git/HEAD": ""}, "work/a/x.ipynb"),
    "in a repository known by its pyproject.toml": ("", {"src/config.py": "V = 1", "pyproject.toml": ""}, None),
    "in a folder added to sys.path": ("import sys\nsys.path.append('..')", {"src/config.py": "V = 1", "setup.py": ""}, None),
    "in a folder that is joined from parts": (
        "import os, sys\nsys.path.insert(0, os.path.abspath(os.path.join(os.getcwd(), os.pardir, 'code')))",
        {"code/src/config.py": "V = 1", "requirements.txt": ""}, None),
    "in the parent of a Path": (
        "import sys\nfrom pathlib import Path\nup = Path.cwd().parent\nsys.path.append(str(up))", {"src/config.py": "V = 1", ".git/HEAD": ""}, None),
}  # fmt: skip


@pytest.mark.parametrize("where", PLACES)
def test_a_package_is_found(where: str, tmp_path: Path) -> None:
    cell, files, place = PLACES[where]
    root = written(tmp_path / "repo", files)
    path = notebook(root / (place or "work/x.ipynb"), cell, "from src.config import V")
    read = read_notebook(path)
    found = choose_local_packages(read, import_roots(path.parent, read))
    assert list(found) == ["src"] and (found["src"].place / "config.py").read_text() == "V = 1"
    assert [each.message for each in check(path, select=["D2C401", "D2C409"]).findings] == []
    names = copy_packages(found.values(), tmp_path / "local")
    assert names == ["src"] and (tmp_path / "local" / "src" / "config.py").exists()


def test_a_package_is_found_in_the_src_folder_of_a_repository(tmp_path: Path) -> None:
    root = written(tmp_path / "repo", {"src/shopkit/config.py": "V = 1", "setup.py": ""})
    path = notebook(root / "notebooks" / "x.ipynb", "from shopkit.config import V")
    read = read_notebook(path)
    assert [each.place for each in local_modules(read, import_roots(path.parent, read)).values()] == [
        root / "src" / "shopkit"
    ]


def test_a_package_is_found_in_the_folder_of_the_data(tmp_path: Path) -> None:
    root = written(tmp_path / "repo", {"lib/tables.py": "import steps\nV = 1", "steps.py": "W = 2"})
    path = notebook(tmp_path / "elsewhere" / "x.ipynb", "from lib.tables import V")
    read = read_notebook(path)
    assert list(local_modules(read, import_roots(path.parent, read, root))) == ["lib", "steps"], (
        "and what it imports itself"
    )
    assert not local_modules(read, import_roots(path.parent, read))


@pytest.mark.parametrize(("name", "files", "cells", "other"), [
    ("plotly", {"plotly.py": "x = 1"}, (), "plotly on the package index"),
    ("sklearn", {"sklearn/__init__.py": ""}, (), "the installed scikit-learn"),
    ("surprise", {"surprise/core.py": ""}, (), "scikit-surprise on the package index"),
    ("acme_tools", {"acme_tools.py": "", "requirements.txt": "pandas\nacme-tools==1.0\n"}, (), "required by requirements.txt"),
    ("acme_tools", {"acme_tools.py": ""}, ("!pip install acme-tools",), "required by cell 1"),
])  # fmt: skip
def test_a_name_that_is_local_and_on_an_index_is_refused_with_both(
    name: str, files: dict[str, str], cells: tuple[str, ...], other: str, tmp_path: Path
) -> None:
    path = notebook(written(tmp_path, files) / "x.ipynb", *cells, f"import {name}")
    read = read_notebook(path)
    roots = import_roots(path.parent, read)
    with pytest.raises(DataRefused) as refused:
        choose_local_packages(read, roots)
    text = str(refused.value.failures[0])
    assert str(tmp_path / name) in text and other in text and f"cell {len(cells) + 1}" in text
    assert f"--local {name}" in refused.value.next and f"--index {name}" in refused.value.next
    assert list(choose_local_packages(read, roots, local=[name])) == [name] and not choose_local_packages(
        read, roots, index=[name]
    )
    assert [each.cell for each in check(path, select=["D2C409"]).findings] == [len(cells)]


def test_files_that_are_no_python_are_no_package(tmp_path: Path) -> None:
    path = notebook(
        written(tmp_path, {"plotly/figure.html": "", "json.py": "x = 1"}) / "x.ipynb", "import plotly\nimport json"
    )
    read = read_notebook(path)
    assert not choose_local_packages(read, import_roots(path.parent, read))


@pytest.mark.parametrize(("cells", "files", "local"), [
    (("from src.config import V", "V"), {}, []),
    (("import acme_tools", "acme_tools.V"), {"acme_tools.py": "V = 1"}, ["acme_tools"]),
])  # fmt: skip
def test_own_names_are_never_fetched(
    cells: tuple[str, ...], files: dict[str, str], local: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fetched(distributions: list[str], folder: Path) -> InstallResult:
        asked.extend(distributions)
        return InstallResult((), dict.fromkeys(distributions, "no index is asked here"))

    monkeypatch.setattr(repair_state, "install_packages", fetched)
    path = notebook(written(tmp_path / "old", files) / "x.ipynb", *cells)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "settings.ini").write_text("[d2c]\n")
    settings = load_settings(tmp_path / "shop", environ={})
    done = convert(path, settings=settings, install=True, stages=("revive",), timeout=800)
    assert asked == [] and done.local == local
    assert (done.refusal is None) == bool(local), done.refusal
    if done.refusal is not None:
        assert "no package is installed from an index" in done.refusal.why and "--data" in done.refusal.next


def test_a_path_is_told_from_its_parts(tmp_path: Path) -> None:
    import ast

    values = Values(tmp_path)
    source = """base = Path('..') / 'data'
name = 'x'
a = base / f'{name}.csv'
b = os.path.join(str(base), 'y' + '.csv')
c = base.joinpath('z.csv')
d = os.path.dirname('in/data/w.csv')
e = unknown / 'x.csv'
name = other()
f = f'{name}.csv'"""
    for node in ast.parse(source).body:
        values.record_assignment(node)
    found = {each: values.names.get(each) for each in "abcdef"}
    assert found == {
        "a": "../data/x.csv",
        "b": "../data/y.csv",
        "c": "../data/z.csv",
        "d": "in/data",
        "e": None,
        "f": None,
    }


def repository(tmp_path: Path) -> tuple[Conversion, Path]:
    root = written(tmp_path / "repo", {
        "src/__init__.py": "", "src/config.py": "from common import more\nVALUE = 41\n", ".git/HEAD": "",
        "common.py": "def more(x):\n    return x + 1\n",
    })  # fmt: skip
    path = notebook(root / "notebooks" / "up.ipynb", "from src.config import VALUE, more", "total = more(VALUE)\ntotal")
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "settings.ini").write_text("[d2c]\nstore = d2c_store\n")
    return convert(path, settings=load_settings(tmp_path / "shop", environ={}), timeout=800), tmp_path / "shop"


@pytest.mark.slow
def test_a_notebook_with_a_package_above_it_is_converted_and_runs_on_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, shop = repository(tmp_path)
    assert done.refusal is None and done.written is not None and done.verdict.status == "equivalent", done.to_text()
    assert done.local == ["common", "src"] and "common, src copied into" in done.to_text()
    assert (shop / "shop" / "local" / "src" / "config.py").exists()
    monkeypatch.chdir(tmp_path)
    ran = run(str(done.written.notebook), {}, load_settings(shop, environ={}))
    assert ran.status == "succeeded"
