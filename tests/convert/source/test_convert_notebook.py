from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from IPython.core.inputtransformer2 import TransformerManager

from d2c_mlops.convert.source.magics import split_magics
from d2c_mlops.convert.source.notebook import code_cell, parse_notebook, read_notebook
from d2c_mlops.errors import DataRefused, UsageError

HERE = Path(__file__).parents[2] / "notebooks"


def notebook_of(*cells: dict[str, Any], **top: Any) -> bytes:
    return json.dumps({"cells": list(cells), "metadata": {}, "nbformat": 4, "nbformat_minor": 5, **top}).encode()


@pytest.mark.parametrize(
    "source",
    [
        "%matplotlib inline\nx = 1",
        "row = 7\nshade = (row\n% 3)",
        "rest = row \\\n  % 4",
        'text = """\n%not a magic\n!nor this\n"""',
        "files = !ls",
        "here = %pwd",
        "if files:\n    !echo yes",
        "np.mean?",
        "?len",
        "x = [1,\n!2]" if False else "x = [1,\n2]",
        "# is this one?\ny = 2",
        "a = 'what?'",
        "!pip install a \\\n  b\nz = 1",
        "  indented = 1\n  other = 2",
        ">>> x = 1\n>>> y = 2",
        "value = 10 %3",
        "%%time\nx = 1",
        "d = {'a': '%s' % 3}",
        "f(x)  # why?",
        "print('%d' % 3, '!')",
    ],
)
def test_ipython_reads_the_same_lines_as_magics(source: str) -> None:
    python, magics = split_magics(source)
    theirs = TransformerManager().transform_cell(source)  # type: ignore[no-untyped-call]
    assert ("get_ipython()" in theirs) == bool(magics)
    assert python.count("\n") == source.count("\n")
    ast.parse(python)


@given(
    st.lists(
        st.sampled_from(["x = 1", "%time y = 2", "!ls", "if x:", "    pass", "(", ")", "'''", "# ?", "len?", ""]),
        max_size=12,
    )
)
def test_magic_free_source_keeps_its_lines(lines: list[str]) -> None:
    source = "\n".join(lines)
    python, magics = split_magics(source)
    assert python.count("\n") == source.count("\n")
    assert all(1 <= magic.line <= magic.end_line <= len(source.split("\n")) for magic in magics)


def test_time_keeps_the_statement_and_shell_keeps_its_target() -> None:
    python, magics = split_magics("%time fitted = model.fit(X)\nfiles = !ls *.csv")
    assert python == "fitted = model.fit(X)\nfiles = get_ipython().getoutput('ls *.csv')"
    assert [(magic.kind, magic.name, magic.target) for magic in magics] == [
        ("line", "time", ""),
        ("shell", "ls", "files"),
    ]


def test_a_cell_of_another_language_has_no_python() -> None:
    python, (magic,) = split_magics("%%bash\nrm -rf build\n")
    assert python.strip() == "" and magic.name == "bash"


def test_a_bare_install_is_a_magic_only_alone() -> None:
    assert split_magics("pip install pandas")[1][0].kind == "automagic"
    problem = code_cell(0, "import os\npip install pandas").problem
    assert problem is not None and (problem.kind, problem.line) == ("automagic", 2)


@pytest.mark.parametrize(
    ("source", "kind", "line"),
    [
        ("x = 1\nprint 'a', x", "python2", 2),
        ("try:\n    x\nexcept ValueError, e:\n    pass", "python2", 3),
        ("mode = 0777", "python2", 1),
        ("x = (1 +", "invalid", 1),
        ("return 3", "invalid", 1),
        ("x = 1 +* 2", "invalid", 1),
        ("x\x00 = 1", "invalid", 1),
    ],
)
def test_syntax_is_judged_with_its_line(source: str, kind: str, line: int) -> None:
    cell = code_cell(0, source)
    assert cell.tree is None and cell.problem is not None
    assert (cell.problem.kind, cell.problem.line) == (kind, line)


@pytest.mark.parametrize(
    "source", ["await thing()", "x = 1\nfrom __future__ import annotations", "", "# only a remark"]
)
def test_what_ipython_accepts_is_no_problem(source: str) -> None:
    assert code_cell(0, source).problem is None


def test_nbformat_3_is_read_with_headings_counts_and_outputs() -> None:
    notebook = read_notebook(HERE / "nbformat3.ipynb")
    assert notebook.nbformat == 3 and notebook.language == "python"
    assert notebook.cells[0].source == "# Till receipts 2014"
    assert [cell.execution_count for cell in notebook.code] == [1, 2]
    assert "20.5" in notebook.code[1].outputs[0].text


def test_missing_language_and_raw_cells_are_python_and_kept() -> None:
    notebook = read_notebook(HERE / "raw_cells.ipynb")
    assert notebook.is_python
    assert [cell.kind for cell in notebook.cells] == ["raw", "markdown", "code", "raw", "code", "code"]


def test_an_r_kernel_is_seen_and_not_parsed() -> None:
    notebook = read_notebook(HERE / "r_kernel.ipynb")
    assert notebook.language == "r" and not notebook.is_python
    assert all(cell.tree is None and cell.problem is None for cell in notebook.code)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "empty"),
        (b"<html></html>", "web page"),
        (b'{"cells": [', "truncated"),
        (b"hello", "not valid JSON"),
        (b"[1, 2]", "not a notebook"),
        (b'{"a": 1}', "no cells"),
        (b"\x89PNG\r\n\x1a\n\xff\xfe", "binary"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "LFS"),
        (b'<<<<<<< HEAD\n{"cells": []}', "merge conflicts"),
        (b'{"cells": [], "nbformat": 5}', "newer"),
    ],
)
def test_what_is_no_notebook_is_refused_with_the_next_step(raw: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "old.ipynb"
    path.write_bytes(raw)
    with pytest.raises(DataRefused, match=said) as caught:
        read_notebook(path)
    assert caught.value.next and str(path) in caught.value.where


def test_a_wrong_path_is_bad_usage(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.ipynb"):
        with pytest.raises(UsageError):
            read_notebook(path)


def test_odd_types_in_a_cell_do_no_harm() -> None:
    odd = {
        "cell_type": "code",
        "source": 3,
        "metadata": [],
        "outputs": {"a": 1},
        "execution_count": "x",
        "id": None,
    }
    surrogate = {
        "cell_type": "code",
        "source": "x = '\ud800'",
        "metadata": {"tags": "no"},
        "outputs": [3, {"output_type": []}],
    }
    notebook = parse_notebook(
        json.dumps({"cells": [odd, surrogate, "text", None], "metadata": None, "nbformat": "4"}).encode()
    )
    assert [cell.source for cell in notebook.cells] == ["3", "x = '?'"]
    assert notebook.cells[0].execution_count is None
