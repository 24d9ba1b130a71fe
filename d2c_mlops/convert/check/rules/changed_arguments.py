"""Rules about calls that newer versions of pandas and statsmodels refuse for their arguments together."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from d2c_mlops.convert.api_changes.change import is_installed_at_least
from d2c_mlops.convert.check.rule import Subject, make_hit, make_rule_example, rule
from d2c_mlops.convert.meaning.api_signatures import FRAME
from d2c_mlops.convert.source.finding import Hit

_LOAD = "import pandas as pd\ndf = pd.read_csv('sales.csv')\n"


@rule(
    "D2C517",
    "axis-beside-columns",
    "error",
    why="pandas 3 refuses `axis` beside `columns` or `index`: the call raises ValueError",
    fix="leave `axis` out: df.drop(columns=['a'])",
    bad=make_rule_example(_LOAD + "df = df.drop(columns=['a'], axis=1)"),
    good=make_rule_example(_LOAD + "df = df.drop(columns=['a']).drop(['b'], axis=1)"),
)
def axis_beside_columns(subject: Subject) -> Iterator[Hit]:
    if not is_installed_at_least("pandas", "3.0"):
        return
    for cell, node in subject.nodes:
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        names = {word.arg for word in node.keywords}
        is_both = node.func.attr == "drop" and "axis" in names and bool(names & {"columns", "index"})
        if is_both and subject.inference.kind(node.func.value) == FRAME:
            yield make_hit(cell, node, f"`{ast.unparse(node.func)}` with `axis` beside `columns` or `index`")


_SMOOTHING = {"SimpleExpSmoothing": 1, "Holt": 3}  # positional arguments before the method


@rule(
    "D2C518",
    "initial-values-unnamed",
    "error",
    why="statsmodels 0.15 has no default for the initial values of exponential smoothing: the call raises TypeError",
    fix="say initialization_method='estimated'",
    bad=make_rule_example("from statsmodels.tsa.api import Holt\nfitted = Holt(sales).fit()"),
    good=make_rule_example(
        "from statsmodels.tsa.api import Holt\nfitted = Holt(sales, initialization_method='estimated').fit()"
    ),
)
def initial_values_unnamed(subject: Subject) -> Iterator[Hit]:
    if not is_installed_at_least("statsmodels", "0.15"):
        return
    for cell, node in subject.nodes:
        if not isinstance(node, ast.Call):
            continue
        path = subject.inference.path(node.func)
        name = path.rpartition(".")[2]
        if not path.startswith("statsmodels.tsa.") or len(node.args) > _SMOOTHING.get(name, -1):
            continue
        if not any(word.arg in ("initialization_method", None) for word in node.keywords):
            yield make_hit(cell, node, f"`{name}` without initialization_method")
