"""Files are found by converted notebooks however their paths are written, and verify runs where `d2c run` will."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from d2c_mlops.convert.convert import convert
from d2c_mlops.convert.verify.verify import project_copy
from d2c_mlops.runs.execution.execute import run
from d2c_mlops.settings import Settings, load_settings

READS = {
    "a constant": (
        "import pandas as pd\npath = 'data/x.csv'\ndf = pd.read_csv(path)\nn = len(df)",
        ["pd.read_csv(in_data(data_folder, path))"]),
    "a folder that is a Path": (
        "import pandas as pd\nfrom pathlib import Path\nBASE = Path('..') / 'old' / 'data'\ndf = pd.read_csv(BASE / 'x.csv')\nn = len(df)",
        ["in_data(data_folder, BASE / 'x.csv')"]),
    "an f-string in a loop": (
        "import pandas as pd\nn = 0\nfor name in ['x', 'y']:\n    n += len(pd.read_csv(f'data/{name}.csv'))",
        ["in_data(data_folder, f'data/{name}.csv')"]),
    "os.path.join and a dict": (
        "import os\nimport pandas as pd\nfiles = {'one': 'x.csv'}\ndf = pd.read_csv(os.path.join('data', files['one']))\nn = len(df)",
        ["in_data(data_folder, os.path.join('data', files['one']))"]),
    "a function's default": (
        "import pandas as pd\ndef get(path='data/x.csv'):\n    return pd.read_csv(path)\ndf = get()\nn = len(df)",
        ["def get(path='data/x.csv', *, data_folder)", "in_data(data_folder, path)", "get(data_folder=data_folder)"]),
    "a function passed on": (
        "import pandas as pd\ndef get(path):\n    return pd.read_csv(path)\ndf = pd.concat(map(get, ['data/x.csv', 'data/y.csv']))\nn = len(df)",
        ["in_data('data/read', path)"]),
    "a constant of a class": (
        "import pandas as pd\nclass Config:\n    PATH = 'data/x.csv'\ndf = pd.read_csv(Config.PATH)\nn = len(df)",
        ["in_data(data_folder, Config.PATH)"]),
    "a pattern": (
        "import glob\nimport pandas as pd\nfound = sorted(glob.glob('data/*.csv'))\nn = sum(len(pd.read_csv(each)) for each in found)",
        ["glob.glob(str(find_data(data_folder) / 'data/*.csv'))"]),
    "the files of a Path": (
        "import pandas as pd\nfrom pathlib import Path\nfound = sorted(Path('data').glob('*.csv'))\nn = sum(len(pd.read_csv(each)) for each in found)",
        ["in_data(data_folder, Path('data')).glob('*.csv')"]),
    "open": (
        "import json\nSETTINGS = 'data/s.json'\nwith open(SETTINGS) as file:\n    n = json.load(file)['v']",
        ["open(in_data(data_folder, SETTINGS))"]),
    "what it has written itself": (
        "import pandas as pd\npath, out = 'data/x.csv', 'clean.csv'\ndf = pd.read_csv(path)\ndf.to_csv(out, index=False)\nagain = pd.read_csv(out)\nn = len(again)",
        ["pd.read_csv(out)", "in_data(data_folder, path)"]),
}  # fmt: skip


def shop(folder: Path, source: str, last: str = "n") -> tuple[Settings, Path]:
    root = folder / "shop"
    for name, text in {"x.csv": "a\n1\n2\n", "y.csv": "a\n3\n", "s.json": '{"v": 3}'}.items():
        (root / "old" / "data").mkdir(parents=True, exist_ok=True)
        (root / "old" / "data" / name).write_text(text)
    (root / "settings.ini").write_text("[d2c]\nstore = d2c_store\n")
    path = root / "old" / "read.ipynb"
    made = [{"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": s, "outputs": [], "execution_count": None}
            for i, s in enumerate((source, last))]  # fmt: skip
    path.write_text(json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return load_settings(root, environ={}), path


def code(notebook: Path) -> str:
    cells = json.loads(notebook.read_text())["cells"]
    return "\n".join("".join(each["source"]) for each in cells).replace('"', "'")


@pytest.mark.parametrize("how", ["a constant", "a function's default", "a function passed on", "a pattern"])
def test_a_path_is_looked_up_in_the_folder_of_the_parameter(how: str, tmp_path: Path) -> None:
    source, expected = READS[how]
    settings, path = shop(tmp_path, source)
    done = convert(path, settings=settings, run=False)
    assert done.written is not None, done.refusal
    text = code(done.written.notebook)
    for each in expected:
        assert each in text, text
    assert done.written.parameters[0].startswith("data_folder: str = 'data/read'")
    told = [each.what for each in done.written.plain if "reads its files from data/read" in each.what]
    assert bool(told) == (how == "a function passed on"), "what no parameter reaches is said"


FIXED = {
    "get": READS["a function passed on"][0],
    "Shop": "import pandas as pd\nclass Shop:\n    def read(self):\n        return pd.read_csv('data/x.csv')\ndf = Shop().read()\nn = len(df)",
    "get, Shop": "import pandas as pd\ndef get(**more):\n    return pd.read_csv('data/x.csv', **more)\nclass Shop:\n    def read(self):\n        return pd.read_csv('data/y.csv')\ndf = pd.concat([get(**{}), Shop().read()])\nn = len(df)",
}  # fmt: skip


@pytest.mark.parametrize("names", FIXED)
def test_another_folder_is_refused_where_code_reads_from_the_default_one_only(names: str, tmp_path: Path) -> None:
    settings, path = shop(tmp_path, FIXED[names])
    written = convert(path, settings=settings, run=False).written
    assert written is not None
    cells = ["".join(each["source"]) for each in json.loads(written.notebook.read_text())["cells"]]
    (guard,) = [cell for cell in cells if cell.startswith("if find_data(data_folder)")]
    (find,) = [cell for cell in cells if "def find_data(" in cell]
    space: dict[str, object] = {"Path": Path, "data_folder": "data/read"}
    exec(find, space)
    exec(guard, space)
    space["data_folder"] = str(tmp_path)
    with pytest.raises(ValueError, match=rf"^the files of {names} are read from data/read, independent of data_folder"):
        exec(guard, space)


@pytest.mark.parametrize("how", ["a constant", "a constant of a class", "a function's default"])
def test_a_notebook_that_reads_from_the_folder_of_the_parameter_has_no_guard(how: str, tmp_path: Path) -> None:
    settings, path = shop(tmp_path, READS[how][0])
    written = convert(path, settings=settings, run=False).written
    assert written is not None and "independent of data_folder" not in code(written.notebook)


@pytest.mark.slow
@pytest.mark.parametrize("how", READS)
def test_a_converted_notebook_runs_from_the_project_and_from_elsewhere(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, expected = READS[how]
    settings, path = shop(tmp_path, source)
    done = convert(path, settings=settings, timeout=800)
    assert done.written is not None and done.verdict.status == "equivalent", done.to_text()
    text = code(done.written.notebook)
    if how != "a folder that is a Path":  # the copy in which it is revived has no folder above it
        for each in expected:
            assert each in text, text
    for place in (settings.root, tmp_path):
        monkeypatch.chdir(place)
        assert run(str(done.written.notebook), {}, load_settings(settings.root, environ={})).status == "succeeded"
    assert (settings.root / "old" / "data" / "x.csv").read_text() == "a\n1\n2\n"


def test_verify_runs_in_a_copy_of_the_project_where_a_run_would(tmp_path: Path) -> None:
    root = tmp_path / "shop"
    for name in (
        "shop/__init__.py",
        "shop/models/x.py",
        "nbs/models/x.ipynb",
        "data/x/in.csv",
        "data/y/other.csv",
        "old/z.csv",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    (root / "settings.ini").write_text("[d2c]\n")
    written = SimpleNamespace(
        notebook=root / "nbs/models/x.ipynb", module_file=root / "shop/models/x.py",
        parameters=("data_folder: str = 'data/x'  # folder of the input files", "n: int = 3"),
    )  # fmt: skip
    here = project_copy(written, tmp_path / "copy")  # type: ignore[arg-type]
    assert here == tmp_path / "copy" / "nbs" / "models"
    found = sorted(
        str(each.relative_to(tmp_path / "copy")) for each in (tmp_path / "copy").rglob("*") if each.is_file()
    )
    assert found == ["data/x/in.csv", "settings.ini", "shop/__init__.py", "shop/models/x.py"]
