"""Reading and checking a notebook takes time by its length, whatever stands in it."""

import gc
import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from d2c_mlops.convert.check.check import apply_all_rules
from d2c_mlops.convert.check.rule import read_subject
from d2c_mlops.convert.check.rules.exit_status import _QUOTED, _STRICT
from d2c_mlops.convert.check.rules.modules import _INSTALL
from d2c_mlops.convert.check.rules.pandas3 import _TEXT_COLUMN
from d2c_mlops.convert.check.rules.secrets import _TAGS
from d2c_mlops.convert.plan.naming import name_from_command
from d2c_mlops.convert.repair.fixes.python2 import python_3_line
from d2c_mlops.convert.repair.fixes.session_state import _MISMATCH
from d2c_mlops.convert.source.magics import split_magics
from d2c_mlops.convert.source.notebook import parse_notebook
from d2c_mlops.convert.source.sections import section_title, split_section_titles
from d2c_mlops.convert.verify.verify import _FIGURE, _NOT_RESULTS, _text_lines
from d2c_mlops.data.ingestion.joining import bare_file_stem
from d2c_mlops.data.sources.csv_files import NUMBER_LIKE
from d2c_mlops.data.sources.fetch import without_password
from d2c_mlops.formulas import escape_formula, unescape_formula
from d2c_mlops.models.lead_scoring.wording import plain_label
from d2c_mlops.runs.execution.cell_output import CONTROL
from d2c_mlops.runs.execution.page_body import without_external_resources
from d2c_mlops.serving.http.origins import is_own_host
from d2c_mlops.serving.package.container.builders import STEP


def grows(work: Callable[[str], object], seed: str, tail: str = "", length: int = 15_000) -> float:
    """Return how many times as long the work takes for four times as long a text; 1 where both are below a tenth of a second.

    The garbage collector is off meanwhile: it walks all objects of the process, so its time grows with the tests that ran before.
    """

    def seconds(size: int) -> float:
        text = (seed * (size // len(seed) + 1))[:size] + tail
        runs = []
        for _ in range(3):  # the shortest: other work of the machine makes one longer
            start = time.process_time()
            work(text)
            runs.append(time.process_time() - start)
            if runs[-1] > 1.0:
                break
        return min(runs)

    gc.collect()
    gc.disable()
    try:
        small = seconds(length)
        assert small < 4.0
        large = seconds(4 * length)
    finally:
        gc.enable()
    return large / max(small, 1e-9) if large > 0.1 else 1.0


def _language_of_kernel(name: str) -> object:
    """The language of a notebook whose kernel has this name."""
    cells = {"cells": [], "metadata": {"kernelspec": {"name": name}}, "nbformat": 4, "nbformat_minor": 5}
    return parse_notebook(json.dumps(cells).encode(), Path("a.ipynb"))


def notebook(text: str, kind: str = "code") -> bytes:
    cell = {"cell_type": kind, "metadata": {}, "source": text, "id": "a"}
    if kind == "code":
        cell |= {"outputs": [], "execution_count": None}
    return json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()


@pytest.mark.parametrize(
    ("seed", "tail"),
    [
        ("a.", "a?"),
        ("a[0]", "?"),
        ("a", "?"),
        ("*", "?!"),
        (" ", "="),
        ("a ", ""),
        ("%", "?"),
        ("]", "?"),
        ("a.1", "?"),
        ("!a \\\n", ""),
    ],
)
def test_magics_are_split_in_time_by_the_length_of_a_cell(seed: str, tail: str) -> None:
    assert grows(split_magics, seed, tail, 60_000) < 8


def test_what_asks_for_help_and_what_is_assigned_is_still_found() -> None:
    for line, name in {
        "df.head?": "df.head",
        "a.b[0]??": "a.b[0]",
        "x = f.g?": "f.g",
        "np.*load*?": "np.*load*",
    }.items():
        _, (magic,) = split_magics(f"x = 1\n{line}")
        assert (magic.kind, magic.name) == ("help", name)
    for line in ("'what?'", "# why?", "a?b", "3?", "a???"):
        assert not split_magics(f"x = 1\n{line}")[1] or line == "a???"
    _, (listed, timed) = split_magics("files = !ls -l\nx = %time f()")
    assert (listed.target, listed.command, timed.target, timed.name) == ("files", "ls -l", "x", "time")
    assert not split_magics("a = b\nc = 7 %d\nd = %(e)s")[1]


@pytest.mark.parametrize("kind", ["code", "markdown"])
@pytest.mark.parametrize(
    "seed", ["a\n", " a\n", "x = 1\n", "x += 1\n", "x.append(1)\n", "exit\n", "<", "$(", "a.a.a?", "password_"]
)
def test_a_notebook_is_checked_in_time_by_its_length(monkeypatch: pytest.MonkeyPatch, seed: str, kind: str) -> None:
    monkeypatch.setattr("d2c_mlops.convert.check.linter.start_ruff", lambda book: None)
    monkeypatch.setattr("d2c_mlops.convert.check.linter.read_ruff_findings", lambda lint: [])
    apply_all_rules(read_subject(notebook(seed * 20, kind), Path("a.ipynb"), Path()))  # what rules need is loaded once

    def checked(text: str) -> object:
        return apply_all_rules(read_subject(notebook(text, kind), Path("a.ipynb"), Path()))

    assert grows(checked, seed, length=4_000) < 8


PATTERNS: dict[str, tuple[Callable[[str], object], str, str]] = {
    "tags": (lambda text: _TAGS.sub(" ", text), "<", ""),
    "results": (lambda text: _NOT_RESULTS.sub(" ", text), "<", ""),
    "shapes": (lambda text: _NOT_RESULTS.sub(" ", text), "shape=(", ""),
    "figures": (_FIGURE.findall, "1", "x"),
    "styles": (_text_lines, "<style", ""),
    "blanks of a table": (_text_lines, " ", "<table"),
    "frame of a section": (section_title, "#", "!"),
    "title of a section": (section_title, "# a- ", "!"),
    "number in a frame": (split_section_titles, "#1 ", "\n####\n"),
    "quoted in a shell": (lambda text: _QUOTED.sub("", text), "$(", ""),
    "lines of a script": (_STRICT.search, "\n", "x"),
    "columns of text": (_TEXT_COLUMN.search, "\n", "x"),
    "tags of a heading": (name_from_command, "<", ""),
    "brackets of a heading": (name_from_command, "(", ""),
    "unequal in Python 2": (python_3_line, "a.", ""),
    "print in Python 2": (python_3_line, "print (a) ", ","),
    "number of a CSV file": (NUMBER_LIKE.fullmatch, "1", "x"),
    "returns of a printout": (CONTROL.split, "\r", "x"),
    "dots in a file's name": (bare_file_stem, ".", "x"),
    "digits in a file's name": (bare_file_stem, "1", "x"),
    "years in a file's name": (bare_file_stem, ".19", "x"),
    "tags of an output": (without_external_resources, "<a", ""),
    "tags that end late": (without_external_resources, "<a ", ">"),
    "tags with single quotes": (without_external_resources, "<b'", ""),
    "tags with both quotes": (without_external_resources, "<b'\"", "'>"),
    "addresses in styles": (without_external_resources, "url(//", ""),
    "blanks of an address in a style": (lambda text: without_external_resources(f"<p style='a:url({text}"), " ", ""),
    "options of a magic": (lambda text: split_magics(f"%time -a{text}"), "1", ""),
    "the name of a kernel": (_language_of_kernel, "spylon", "\n\nx"),
    "days in the name of a column": (lambda text: plain_label(f"visits_{text}"), "1", ""),
    "steps of a build": (STEP.match, "STEP 1/1]                              ", "\n"),
    "blanks of a step": (lambda text: STEP.match(f"STEP 1/1]{text}"), " ", "\n"),
    "blanks of a stage": (lambda text: STEP.match(f"[stage{text}"), " ", ""),
    "a cell that begins like a formula": (escape_formula, " \u00a0", ""),
    "a cell of apostrophes": (unescape_formula, "'", " "),
    "options of an address": (without_password, "https://a?b&", ""),
    "users of an address": (lambda text: without_password(f"https://{text}"), "a@", ""),
    "hosts": (lambda text: is_own_host(text.encode(), ()), "[::1]", ""),
    "sources in tags": (without_external_resources, "<b src='", ">"),
    "commands that install": (_INSTALL.match, "python", ""),
    "dates of a message": (_MISMATCH.search, "time data 'a' ", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_takes_time_by_the_length_of_its_text(name: str) -> None:
    work, seed, tail = PATTERNS[name]
    assert grows(work, seed, tail) < 8


def test_patterns_find_what_they_found() -> None:
    assert (
        python_3_line("if a <> b:") == "if a != b:"
        and python_3_line("    while a<>b and c <> d:") == "    while a != b and c != d:"
    )
    assert [
        NUMBER_LIKE.fullmatch(each) is not None for each in ("1", "-1.5", "1,234.5", ".5", "+,5", "", ".", "1x", "-")
    ] == [True] * 5 + [False] * 4
    assert CONTROL.split("a\r\r\nb\rc\r\nd") == ["a", "\r\r\n", "b", "\r", "c", "\r\n", "d"]
    assert _FIGURE.findall("1 -2.5 3. 4e-5 x6 7y") == ["1", "-2.5", "3.", "4e-5"]
    assert _text_lines("<style>td {a: 1}</style><table>\n<tr>\n 1 </tr>\n<tr> 2</tr></table>") == [
        "<table> <tr> 1 ",
        " <tr> 2",
        "</table>",
    ]
    assert re.sub(r"\s+", " ", _NOT_RESULTS.sub(" ", "<td>3</td> 0xff 12:30:01")).strip() == "3"
    assert [
        bare_file_stem(each) for each in ("sales_2024-01.csv", "orders (1).csv", "01 leads-part-2.csv", "a..12.csv")
    ] == [
        "sales",
        "orders",
        "leads",
        "a",
    ]
    assert _INSTALL.match("sudo /usr/bin/python3.12 -m pip install a b")[1] == " a b"
    assert _INSTALL.match("python -m uv pip install a") and not _INSTALL.match("snake -m pip install a")
    assert _MISMATCH.search("time data '1/2/17' doesn't match format '%d-%m-%y', at 3").groups() == (
        "1/2/17",
        "%d-%m-%y",
    )
    assert [plain_label(name) for name in ("visits_30d", "visits_7_days", "x7")] == [
        "visits in the last 30 days", "visits in the last 7 days", "x7",
    ]  # fmt: skip
    step = STEP.match("#12 [stage-1 3/7] : RUN pip install")
    assert step is not None and step.groups() == ("3", "7", "RUN pip install")
    assert STEP.match("STEP 2/5: COPY a b").groups() == ("2", "5", "COPY a b")
    assert section_title("# --- 2. Features ---") == "Features" and section_title("##### Model #####") == "Model"
