"""What `make check` says of the outputs that a notebook stores: missing, stale, or as they are shown."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[1]
PLOT = """import matplotlib.pyplot as plt
axes = plt.subplots(figsize=(4, 2))[1]
axes.plot([1, 2, {last}], label="{label}")
axes.set(xlabel="day", ylabel="units")
axes.legend()
plt.show()"""


@pytest.fixture(scope="module")
def outputs() -> ModuleType:
    sys.path.insert(0, str(ROOT / ".ci"))
    spec = importlib.util.spec_from_file_location("outputs", ROOT / ".ci/outputs.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["outputs"] = module
    spec.loader.exec_module(module)
    sys.path.remove(str(ROOT / ".ci"))
    return module


def notebook(file: Path, *cells: tuple[str, list[dict[str, Any]]]) -> Path:
    made = [
        {
            "cell_type": "code",
            "id": f"c{i}",
            "metadata": {},
            "execution_count": None,
            "source": source,
            "outputs": shown,
        }
        for i, (source, shown) in enumerate(cells)
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "python3", "language": "python"}}
    file.write_text(json.dumps({"cells": made, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))
    return file


def printed(text: str) -> dict[str, Any]:
    return {"output_type": "stream", "name": "stdout", "text": [text]}


def value(text: str) -> dict[str, Any]:
    return {"output_type": "execute_result", "data": {"text/plain": [text]}, "metadata": {}, "execution_count": None}


def picture(x: int, shade: int = 0) -> dict[str, Any]:
    image = Image.new("RGB", (400, 200), "white")
    ImageDraw.Draw(image).line([(0, 0), (x, 199)], fill=(shade, shade, shade), width=3)
    written = io.BytesIO()
    image.save(written, "png")
    data = {"image/png": base64.b64encode(written.getvalue()).decode(), "text/plain": "<Figure>"}
    return {"output_type": "display_data", "data": data, "metadata": {}}


def table(cell: str) -> dict[str, Any]:
    data = {"text/html": [f"<table><td>{cell}</td></table>"], "text/plain": [cell]}
    return {"output_type": "execute_result", "data": data, "metadata": {}, "execution_count": None}


def found(outputs: ModuleType, folder: Path, stored: list[dict[str, Any]], shown: list[dict[str, Any]]) -> list[str]:
    file = notebook(folder / "n.ipynb", ("x", stored))
    return list(outputs.differences(file, outputs.Outcome(file, {0: outputs.plain(shown)}, [], 0.0)))


def test_a_plot_that_is_not_stored_is_named(outputs: ModuleType, tmp_path: Path) -> None:
    assert found(outputs, tmp_path, [], [picture(300)]) == ["cell 0 (c0) stores no output and shows a picture"]


def test_a_table_that_is_not_stored_is_named(outputs: ModuleType, tmp_path: Path) -> None:
    assert found(outputs, tmp_path, [], [table("7")]) == ["cell 0 (c0) stores no output and shows a table"]


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (printed("12 lines"), printed("13 lines")),
        (value("0.301"), value("0.302")),
        (value("0.301"), value("0.3010004")),
        (table("Bonn"), table("Kiel")),
        (picture(300), picture(380)),
        (picture(300), table("7")),
        (value("[1, 2]"), printed("[1, 2]")),
    ],
)
def test_another_output_than_the_stored_one_is_stale(
    outputs: ModuleType, tmp_path: Path, stored: dict[str, Any], shown: dict[str, Any]
) -> None:
    [fault] = found(outputs, tmp_path, [stored], [shown])
    assert fault.startswith("cell 0 (c0) is stale: ")


@pytest.mark.parametrize(
    ("stored", "shown"),
    [
        (printed("12 lines"), printed("12 lines\n")),
        (value("0.30112345678"), value("0.30112345679")),
        (value("1e-05 and -3.5"), value("1.0000000001e-05 and -3.5")),
        (table("7"), {**table("7"), "data": {**table("7")["data"], "text/plain": ["   7"]}}),
        (picture(300), picture(300, shade=20)),
    ],
)
def test_what_a_reader_cannot_tell_apart_is_not_stale(
    outputs: ModuleType, tmp_path: Path, stored: dict[str, Any], shown: dict[str, Any]
) -> None:
    assert found(outputs, tmp_path, [stored], [shown]) == []


def test_an_output_that_is_shown_no_more_is_stale(outputs: ModuleType, tmp_path: Path) -> None:
    assert found(outputs, tmp_path, [value("7")], []) == ["cell 0 (c0) stores a value and shows nothing"]


def test_a_stored_warning_is_refused(outputs: ModuleType, tmp_path: Path) -> None:
    warning = {"output_type": "stream", "name": "stderr", "text": ["DeprecationWarning: old"]}
    assert found(outputs, tmp_path, [warning, value("7")], [value("7")]) == ["cell 0 (c0) stores a warning"]


def test_values_that_only_name_their_place_in_memory_are_not_stored(outputs: ModuleType) -> None:
    assert outputs.plain([value("<Axes: xlabel='day'>"), value("<object at 0x7f00>"), value("'a <b> c'")]) == [
        {**value("'a <b> c'"), "data": {"text/plain": "'a <b> c'"}}
    ]


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ([("x = 1\n" * 60, []), ("x", [value("1")])], "at line 64, below the first screen"),
        ([("x = 1", []), ("# text\n" * 44, [value("1")])], "at line 48, below"),
        ([("x = 1", []), ("y = 2", [])], "shows nothing"),
    ],
)
def test_a_notebook_whose_first_output_comes_late_is_refused(
    outputs: ModuleType, tmp_path: Path, cells: list[tuple[str, list[dict[str, Any]]]], words: str
) -> None:
    (fault,) = outputs.late_outputs([notebook(tmp_path / "n.ipynb", *cells)])
    assert words in fault and "open with an example" in fault


def test_a_notebook_that_opens_with_an_example_or_a_picture_passes(outputs: ModuleType, tmp_path: Path) -> None:
    rest = ("x = 1\n" * 60, [])
    shown = notebook(tmp_path / "shown.ipynb", ("x\n" * 40, [value("1")]), rest)
    drawn = notebook(tmp_path / "drawn.ipynb", rest)
    document = json.loads(drawn.read_text())
    document["cells"].insert(0, {"cell_type": "markdown", "metadata": {}, "source": ["# A\n", "![a plot](plot.png)"]})
    drawn.write_text(json.dumps(document))
    assert list(outputs.late_outputs([shown, drawn])) == []


def test_long_paragraphs_of_a_notebook_count_as_the_lines_that_a_browser_makes_of_them(
    outputs: ModuleType, tmp_path: Path
) -> None:
    file = notebook(tmp_path / "n.ipynb", ("x", [value("1")]))
    document = json.loads(file.read_text())
    document["cells"].insert(0, {"cell_type": "markdown", "metadata": {}, "source": ["word " * 1000]})
    file.write_text(json.dumps(document))
    assert "at line 54" in next(outputs.late_outputs([file]))


def compare(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, ROOT / ".ci/outputs.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.slow
def test_a_run_finds_a_missing_and_a_stale_picture_and_writing_repairs_them(tmp_path: Path) -> None:
    file = notebook(tmp_path / "n.ipynb", (PLOT.format(last=3, label="sold"), []), ("1 + 1", [value("3")]))
    done = compare(file)
    assert done.returncode == 1
    assert "cell 0 (c0) stores no output and shows a picture" in done.stdout
    assert "cell 1 (c1) is stale: '3' is stored, '2' is shown" in done.stdout
    assert compare("--write", file).returncode == 0
    assert compare(file).returncode == 0
    stored = [cell["outputs"] for cell in json.loads(file.read_text())["cells"]]
    size = len(base64.b64decode("".join(stored[0][0]["data"]["image/png"])))
    assert size < 60_000 and 350 < stored[0][0]["metadata"]["image/png"]["width"] < 450
    changed = json.loads(file.read_text())
    changed["cells"][0]["source"] = PLOT.format(last=4, label="sold")
    file.write_text(json.dumps(changed))
    assert "cell 0 (c0) is stale: a picture" in compare(file).stdout


@pytest.mark.slow
def test_a_picture_labelled_with_a_code_name_and_a_cell_that_fails_are_refused(tmp_path: Path) -> None:
    coded = notebook(tmp_path / "coded.ipynb", (PLOT.format(last=3, label="weekday_mean"), []))
    failing = notebook(tmp_path / "failing.ipynb", ("1 / 0", []), ("print('never')", []))
    done = compare("--write", coded, failing)
    assert done.returncode == 1
    assert "a picture is labelled 'weekday_mean': label it in words" in done.stdout
    assert "failing.ipynb: cell 0 (c0) failed" in done.stdout and "ZeroDivisionError" in done.stdout
    assert json.loads(failing.read_text())["cells"][0]["outputs"] == []
