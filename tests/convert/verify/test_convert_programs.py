"""Random straight-line programs: the converted notebook binds what the original binds, to the same values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d2c_mlops.convert.plan.plan import plan_notebook
from d2c_mlops.convert.plan.steps import plan_blocks
from d2c_mlops.convert.source.notebook import parse_notebook
from d2c_mlops.convert.write.notebook_document import join_short_cells, notebook_cells
from d2c_mlops.convert.write.parameters import extract_parameters

NAMES = ("a", "b", "c", "total", "rate")
FRAMES = ("df", "sales")


def notebook(cells: list[str]) -> bytes:
    made = [
        {"cell_type": "code", "metadata": {}, "source": text, "outputs": [], "execution_count": None} for text in cells
    ]
    return json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode()


def converted(cells: list[str]) -> list[str]:
    plan = plan_notebook(parse_notebook(notebook(cells), Path("program.ipynb")))
    found = plan_blocks(plan)
    parameters = extract_parameters(plan, found, None, ".")
    out = join_short_cells(notebook_cells(plan, found, parameters, {}, "models.program"))
    return [cell.source for cell in out if cell.kind == "code"]


def run(cells: list[str]) -> dict[str, Any]:
    space: dict[str, Any] = {"__name__": "program"}
    for source in cells:
        exec(compile(source, "<cell>", "exec", dont_inherit=True), space)
    return {
        k: v for k, v in space.items() if not k.startswith("__") and not callable(v) and type(v).__name__ != "module"
    }


def same(left: Any, right: Any) -> bool:
    if isinstance(left, pd.DataFrame):
        return isinstance(right, pd.DataFrame) and left.equals(right)
    return type(left) is type(right) and left == right


def check(cells: list[str]) -> None:
    try:
        before = run(cells)
    except Exception:  # a program that fails by itself has no values to compare
        return
    made = converted(cells)
    after = run(made)
    different = {k: (before[k], after[k]) for k in before.keys() & after.keys() if not same(before[k], after[k])}
    assert not different, "\n# ---\n".join(made)


@st.composite
def statement(draw: st.DrawFn) -> str:
    name, other, third = (draw(st.sampled_from(NAMES)) for _ in range(3))
    number = draw(st.integers(-5, 9))
    frame, source = (draw(st.sampled_from(FRAMES)) for _ in range(2))
    kinds = [
        f"{name} = {number}",
        f"{name} = {other} + {number}",
        f"{name} = {other} * 2 - {third}",
        f"{name} += {number}",
        f"items = [{number}, {other}]",
        f"items.append({other})",
        f"{name} = sum(items)",
        f"{name} = len(items)",
        f"box = {{'k': {other}}}",
        f"box['m'] = {number}",
        f"{name} = box['k']",
        f"{frame} = pd.DataFrame({{'x': [1, 2, {number}], 'y': [3, {other}, 5]}})",
        f"{frame}['z'] = {frame}['x'] * {other}",
        f"{frame} = {source}",
        f"{frame} = {source}.copy()",
        f"{frame}.loc[0, 'x'] = {number}",
        f"{frame}.drop(columns=['y'], inplace=True)",
        f"{name} = int({frame}['x'].sum())",
        f"for i in range({abs(number)}):\n    {name} = {other} + i",
        f"for i in items:\n    {name} += i\n    {third} = i",
        f"if {other} > {number}:\n    {name} = {third}\nelse:\n    {name} = {number}",
        f"if {other} > {number}:\n    {name} = {third}",
        f"while {name} > 0:\n    {name} -= 3",
        f"try:\n    {name} = 1 // {other}\nexcept ZeroDivisionError:\n    {name} = {number}",
        f"def scaled(v):\n    return v * {other} + {number}",
        f"{name} = scaled({third})",
        f"{name} = sum([scaled(v) for v in items])",
        f"def grow(v, by={number}):\n    items.append(v)\n    return len(items) + by",
        f"{name} = grow({third})",
        f"print({name}, {other})",
        f"{name}",
        f"key = lambda v: v + {other}",
        f"{name} = key({third})",
        f"{name}, {other} = {other}, {name}",
        f"{frame}.head()",
        f"del {name}",
        f"{name} = [{other} for {other} in items][-1]",
        f"{name} = max(items, key=lambda v: v * {other})",
        f"text = f'{{{name}}} of {{{other}}}'",
        f"{name}: int = {number}",
        "alias = items",
        f"alias.append({number})",
        "import math",
        f"{name} = math.floor({other} / 2)",
        "from math import floor",
        f"{name} = floor({other} / 3)",
    ]
    return draw(st.sampled_from(kinds))


programs = st.lists(st.lists(statement(), min_size=1, max_size=5), min_size=1, max_size=7)
START = "import pandas as pd\na, b, c = 1, 2, 3\ntotal = 0\nrate = 4\nitems = [1, 2]\nbox = {'k': 1}\ndf = pd.DataFrame({'x': [1, 2], 'y': [3, 4]})\nsales = df.copy()"


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs)
def test_converted_programs_compute_the_same(cells: list[list[str]]) -> None:
    check([START, *("\n".join(lines) for lines in cells)])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(programs)
def test_programs_without_a_beginning_convert_without_a_crash(cells: list[list[str]]) -> None:
    check(["import pandas as pd", *("\n".join(lines) for lines in cells)])


@pytest.mark.parametrize(
    "cells",
    [
        ["rate = 2", "def f(x):\n    return x * rate", "a = f(3)", "rate = 5", "b = f(3)"],
        ["rate = 2", "f = lambda x: x * rate", "rate = 5", "a = f(3)"],
        ["xs = []", "def put(x):\n    xs.append(x)\n    return len(xs)", "a = put(1)\nb = put(2)", "c = list(xs)"],
        ["n = 0", "def bump():\n    global n\n    n = n + 1", "bump()\nbump()", "m = n"],
        ["def outer(x):\n    return inner(x) + k", "k = 3\ndef inner(x):\n    return x * k", "a = outer(2)", "k = 4\nb = outer(2)"],
        ["rate = 2\ndef f(x):\n    return x * rate", "def g(rate):\n    return f(rate)", "a = g(10)"],
        ["import datetime\na = datetime.date(2020, 1, 2).year", "from datetime import datetime\nb = datetime(2021, 1, 1).year"],
        ["from math import *\na = floor(sqrt(17))", "b = pi > 3"],
        ["x = 1; y = x + 1; x = y"],
        ["text = '''one\n  two'''", "n = len(text)"],
        ["sum_ = sum([1, 2])", "sum = 5", "a = sum + 1"],
    ],
)  # fmt: skip
def test_the_traps(cells: list[str]) -> None:
    before, made = run(cells), converted(cells)
    after = run(made)
    shared = before.keys() & after.keys()
    assert shared and all(same(before[name], after[name]) for name in shared), "\n# ---\n".join(made)
    assert before.keys() & {"a", "b", "c", "m"} <= after.keys()


def test_a_function_of_the_author_gets_what_it_read_as_an_argument() -> None:
    made = "\n".join(converted(["rate = 2\nrate = 3", "def f(x):\n    return x * rate  # kept", "a = f(3)"]))
    assert "def f(x, *, rate):" in made and "# kept" in made and "f(3, rate=rate)" in made


def test_literals_become_typed_parameters() -> None:
    made = converted(
        [
            "from sklearn.model_selection import train_test_split\nparts = train_test_split([1, 2, 3, 4], test_size=0.5, random_state=1)"
        ]
    )
    cell = next(source for source in made if "test_size: float = 0.5" in source)
    assert "random_state: int = 1" in cell
    assert any("test_size=test_size, random_state=random_state" in source for source in made)
