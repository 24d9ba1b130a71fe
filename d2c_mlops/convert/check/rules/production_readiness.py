"""Rules about what a notebook needs to run unattended and to be readable."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from d2c_mlops.convert.check.rule import Subject, make_hit, make_rule_example, rule
from d2c_mlops.convert.meaning.roles import METRICS, MODEL_SAVES
from d2c_mlops.convert.source.finding import Hit

_LONG = 60  # lines of code
_FIT = "import pandas as pd\nfrom sklearn.linear_model import Ridge\ndf = pd.read_csv('s.csv')\nmodel = Ridge().fit(df[['a']], df['b'])"
_BASELINE = re.compile(
    r"(?i)\b(?:baseline|naive|dummy|benchmark|champion|status quo|null model|no.?skill)|naive|baseline"
)
_WIDGETS = ("ipywidgets", "google.colab.widgets", "qgrid", "bqplot")


@rule(
    "D2C801",
    "fit-never-saved",
    "warning",
    why="the fitted model is lost when the session ends; it cannot be served or compared",
    fix="save it with skops or joblib, or convert the notebook: d2c convert",
    bad=make_rule_example(_FIT),
    good=make_rule_example(_FIT + "\nimport joblib\njoblib.dump(model, 'model.joblib')"),
)
def fit_never_saved(subject: Subject) -> Iterator[Hit]:
    models = subject.structure.models
    if not models or any(MODEL_SAVES.match(path) for _, _, path in subject.calls):
        return
    methods = {call.func.attr for _, call, _ in subject.calls if isinstance(call.func, ast.Attribute)}
    if methods & {"save_model", "save_weights", "booster_", "save"} - ({"save"} if _saves_picture(subject) else set()):
        return
    last = models[-1]
    what = last.name or last.path.rpartition(".")[2] or "a model"
    others = f" (and {len(models) - 1} more)" if len(models) > 1 else ""
    yield Hit(last.cell, last.line, last.column, f"`{what}` is fitted and never saved{others}")


def _saves_picture(subject: Subject) -> bool:
    return not any(
        isinstance(call.func, ast.Attribute)
        and call.func.attr == "save"
        and not subject.inference.kind(call.func.value).startswith(("matplotlib", "PIL", "numpy"))
        for _, call, _ in subject.calls
    )


@rule(
    "D2C802",
    "no-parameters",
    "info",
    why="a scheduled run cannot use another date, file or horizon",
    fix="put such values in one cell and tag it `parameters`",
    bad=make_rule_example(_FIT),
    good=make_rule_example("rate = 0.2"),
)
def no_parameters(subject: Subject) -> Iterator[Hit]:
    tagged = any("parameters" in cell.tags for cell in subject.notebook.cells)
    if not tagged and (subject.structure.cells("load") or subject.structure.models):
        yield Hit(None, 1, 1, "no cell is tagged `parameters`")


@rule(
    "D2C803",
    "no-assertion",
    "info",
    why="a run that fails without an exception counts as successful",
    fix="assert what must be true of the data and of the result",
    bad=make_rule_example(_FIT),
    good=make_rule_example(_FIT + "\nassert len(df)"),
)
def no_assertion(subject: Subject) -> Iterator[Hit]:
    if not subject.structure.models:
        return
    tested = any(
        isinstance(node, ast.Assert | ast.Raise)
        or (isinstance(node, ast.Attribute) and node.attr.startswith(("assert_", "validate")))
        for _, node in subject.nodes
    )
    if not tested:
        yield Hit(None, 1, 1, "no assertion about the data or the result")


@rule(
    "D2C804",
    "no-baseline",
    "info",
    why="without a baseline it is unknown whether the model is better than current practice",
    fix="also score a baseline: last year's value, the mean or a DummyClassifier",
    bad=make_rule_example(
        _FIT + "\nfrom sklearn.metrics import r2_score\nprint(r2_score(df['b'], model.predict(df[['a']])))"
    ),
    good=make_rule_example(
        _FIT + "\nfrom sklearn.metrics import r2_score\nnaive_b = df['b'].shift(1)\nprint(r2_score(df['b'], naive_b))"
    ),
)
def no_baseline(subject: Subject) -> Iterator[Hit]:
    scored = any(METRICS.match(path) for _, _, path in subject.calls)
    supervised = any(fit.kind == "model" for fit in subject.structure.models)
    if scored and supervised and not any(_BASELINE.search(cell.source) for cell in subject.notebook.cells):
        yield Hit(None, 1, 1, "metrics are computed only for the model")


@rule(
    "D2C805",
    "silenced-warnings",
    "warning",
    why="warnings about future breaking changes are hidden",
    fix="remove the line, or ignore one category where it occurs",
    bad=make_rule_example("import warnings\nwarnings.filterwarnings('ignore')"),
    good=make_rule_example(
        "import warnings\nwarnings.filterwarnings('ignore', category=FutureWarning, module='seaborn')"
    ),
)
def silenced_warnings(subject: Subject) -> Iterator[Hit]:
    for cell, call, path in subject.calls:
        if path not in ("warnings.filterwarnings", "warnings.simplefilter") or not call.args:
            continue
        ignores = isinstance(call.args[0], ast.Constant) and call.args[0].value == "ignore"
        narrow = len(call.args) > 1 or any(word.arg in ("category", "message", "module") for word in call.keywords)
        if (
            ignores
            and not narrow
            and not any(isinstance(node, ast.With) and call in ast.walk(node) for _, node in subject.nodes)
        ):
            yield make_hit(cell, call, "all warnings are ignored")


@rule(
    "D2C806",
    "late-import",
    "info",
    why="a missing package is noticed only after part of the notebook has run",
    fix="move all imports to the first code cell",
    bad=make_rule_example("x = 1\nprint(x)", "import json"),
    good=make_rule_example("import os\nos.environ['A'] = '1'\nimport json", "x = 1"),
)
def late_import(subject: Subject) -> Iterator[Hit]:
    worked = False
    late: list[Hit] = []
    for cell in subject.notebook.code:
        role = subject.structure.roles[cell.index]
        imports = (
            [node for node in cell.tree.body if isinstance(node, ast.Import | ast.ImportFrom)] if cell.tree else []
        )
        if worked and imports:
            late.append(make_hit(cell, imports[0], "imports after other code"))
        worked = worked or bool(role.plays - {"import", "constant"})
    if late:
        others = f"; so do {len(late) - 1} more cells" if len(late) > 1 else ""
        yield Hit(late[0].cell, late[0].line, late[0].column, late[0].message + others)


@rule(
    "D2C807",
    "no-heading",
    "info",
    why="the notebook is hard to navigate, and its steps have no names",
    fix="put a heading (## Load the sales) above each step",
    bad=make_rule_example(*["x = 1"] * 8),
    good=make_rule_example("md:# Sales\n## Load", *["x = 1"] * 8),
)
def no_heading(subject: Subject) -> Iterator[Hit]:
    if len(subject.notebook.code) < 8:
        return
    heads = any(
        cell.kind == "markdown" and re.search(r"^\s{0,3}#{1,6}\s|<h[1-6]|^[=-]{3,}\s*$", cell.source, re.MULTILINE)
        for cell in subject.notebook.cells
    )
    if not heads:
        yield Hit(None, 1, 1, f"{len(subject.notebook.code)} code cells and no heading")


@rule(
    "D2C808",
    "long-cell",
    "info",
    why="a step of this size cannot be tested or reused on its own",
    fix="split it into cells of one step each",
    bad=make_rule_example("\n".join(f"x{number} = {number}" for number in range(61))),
    good=make_rule_example("\n".join(f"x{number} = {number}" for number in range(20))),
)
def long_cell(subject: Subject) -> Iterator[Hit]:
    for cell in subject.notebook.code:
        lines = sum(1 for line in cell.source.split("\n") if line.strip() and not line.strip().startswith("#"))
        if lines > _LONG:
            yield Hit(cell.index, 1, 1, f"{lines} lines of code in one cell")


@rule(
    "D2C809",
    "waits-for-a-person",
    "error",
    why="nobody answers in an unattended run: it hangs or fails here",
    fix="make the input a parameter",
    bad=make_rule_example("shop = input('Which shop? ')"),
    good=make_rule_example("shop = 'north'"),
)
def waits_for_a_person(subject: Subject) -> Iterator[Hit]:
    for index, flow in subject.flow.cells.items():
        for imported in flow.imports:
            if imported.module.startswith(_WIDGETS):
                yield Hit(
                    index,
                    imported.line,
                    imported.column,
                    f"`{imported.module.split('.')[0]}` waits for a person to click",
                )
    for cell, call, path in subject.calls:
        asks = isinstance(call.func, ast.Name) and call.func.id in ("input", "raw_input")
        if (
            asks and call.func.id not in subject.flow.definers if isinstance(call.func, ast.Name) else False
        ) or path in (
            "getpass.getpass",
            "google.colab.files.upload",
        ):
            yield make_hit(cell, call, f"`{ast.unparse(call.func)}()` waits for a person to type")


@rule(
    "D2C810",
    "endless-loop",
    "warning",
    why="a run that never ends occupies its slot forever",
    fix="give the loop a condition that ends it",
    bad=make_rule_example("import time\nwhile True:\n    time.sleep(60)"),
    good=make_rule_example("while True:\n    line = next(lines, None)\n    if line is None:\n        break"),
)
def endless_loop(subject: Subject) -> Iterator[Hit]:
    for cell, node in subject.nodes:
        if not (isinstance(node, ast.While) and isinstance(node.test, ast.Constant) and node.test.value):
            continue
        if not any(isinstance(part, ast.Break | ast.Return | ast.Raise | ast.Yield) for part in ast.walk(node)):
            yield make_hit(cell, node, "`while True` without break, return or raise")
