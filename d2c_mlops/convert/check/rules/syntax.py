"""Rules about cells that cannot be parsed as Python 3."""

from __future__ import annotations

from collections.abc import Iterator

from d2c_mlops.convert.check.rule import Subject, make_rule_example, rule
from d2c_mlops.convert.source.finding import Hit
from d2c_mlops.convert.source.magics import PYTHON_CELL_MAGICS

_SILENT_MAGICS = frozenset({"html", "HTML", "javascript", "js", "latex", "markdown", "svg", "SVG"})


@rule(
    "D2C000",
    "unreadable-notebook",
    "error",
    why="an unreadable notebook cannot be run or converted",
    fix="download or export the file again",
    bad=make_rule_example(raw_notebook="<!DOCTYPE html><html><body>sales.ipynb</body></html>"),
    good=make_rule_example("x = 1"),
)
def unreadable_notebook(subject: Subject) -> Iterator[Hit]:
    if subject.refusal:
        yield Hit(None, 1, 1, subject.refusal)


@rule(
    "D2C999",
    "rule-failed",
    "info",
    why="another rule failed on this notebook, so its findings are missing",
    fix="report this bug of d2c together with the notebook",
    bad=make_rule_example("x = 1", failed_cell={"D2C101": "KeyError: 'x'"}),
    good=make_rule_example("x = 1"),
)
def rule_failed(subject: Subject) -> Iterator[Hit]:
    for name, reason in subject.failed.items():
        yield Hit(None, 1, 1, f"{name} raised {reason}")


@rule(
    "D2C001",
    "kernel-not-python",
    "error",
    why="runs, packages and services are Python; a notebook in another language cannot be converted",
    fix="port the model to Python, or let this notebook write its results to a file",
    bad=make_rule_example("x <- read.csv('sales.csv')", language="r"),
    good=make_rule_example("x = 1"),
)
def kernel_not_python(subject: Subject) -> Iterator[Hit]:
    if not subject.notebook.is_python:
        yield Hit(None, 1, 1, f"the kernel language is {subject.notebook.language}, not Python")


@rule(
    "D2C002",
    "python-2",
    "error",
    why="Python 2 ended in 2020 and no current library runs on it",
    fix="rewrite the statement for Python 3: print(...), except E as e, integer division by //",
    bad=make_rule_example("print 'total', 3"),
    good=make_rule_example("print('total', 3)"),
)
def python_2(subject: Subject) -> Iterator[Hit]:
    for cell in subject.notebook.code:
        if cell.problem is not None and cell.problem.kind == "python2":
            yield Hit(cell.index, cell.problem.line, cell.problem.column, f"Python 2: {cell.problem.message}")


@rule(
    "D2C003",
    "invalid-syntax",
    "error",
    why="an unattended run stops at this cell; the cells below do not run",
    fix="fix the statement, or make it a Markdown cell if it is a note",
    bad=make_rule_example("total = (1 +"),
    good=make_rule_example("total = (1 +\n         2)"),
)
def invalid_syntax(subject: Subject) -> Iterator[Hit]:
    for cell in subject.notebook.code:
        problem = cell.problem
        if problem is not None and problem.kind == "invalid":
            yield Hit(
                cell.index, problem.line, problem.column, f"invalid syntax in every Python version: {problem.message}"
            )


@rule(
    "D2C004",
    "bare-install",
    "error",
    why="`pip install` without `%` works only alone in a cell; together with other lines it is a syntax error",
    fix="move the package to the project's requirements and remove the line",
    bad=make_rule_example("pip install pandas\nimport pandas as pd"),
    good=make_rule_example("%pip install pandas==3.0.0\nimport pandas as pd"),
)
def bare_install(subject: Subject) -> Iterator[Hit]:
    for cell in subject.notebook.code:
        if cell.problem is not None and cell.problem.kind == "automagic":
            yield Hit(cell.index, cell.problem.line, 1, "an install command without `%` among other lines")


@rule(
    "D2C005",
    "foreign-cell",
    "warning",
    why="the cell runs outside Python, so it cannot become part of a module",
    fix="do the same in Python, or before the notebook starts",
    bad=make_rule_example("%%bash\nunzip sales.zip"),
    good=make_rule_example("%%time\ntotal = sum(range(3))"),
)
def foreign_cell(subject: Subject) -> Iterator[Hit]:
    for cell in subject.notebook.code:
        for magic in cell.magics:
            if magic.kind == "cell" and magic.name not in PYTHON_CELL_MAGICS | _SILENT_MAGICS:
                yield Hit(cell.index, magic.line, 1, f"%%{magic.name} runs the cell outside Python")
