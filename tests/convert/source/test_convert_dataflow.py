from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from d2c_mlops.convert.meaning.column_selection import column_selection
from d2c_mlops.convert.meaning.inference import infer_types
from d2c_mlops.convert.meaning.roles import infer_structure
from d2c_mlops.convert.source.dataflow import Flow, trace_names
from d2c_mlops.convert.source.notebook import Notebook, code_cell, read_notebook

HERE = Path(__file__).parents[2] / "notebooks"


def notebook(*cells: str) -> Notebook:
    return Notebook(Path("x.ipynb"), tuple(code_cell(i, text) for i, text in enumerate(cells)), "python", "", 4)


def flow(*cells: str) -> Flow:
    return trace_names(notebook(*cells))


def names(*cells: str) -> list[str]:
    return [one.use.name for one in flow(*cells).missing]


def test_a_cell_says_what_it_defines_reads_changes_and_deletes() -> None:
    cell = flow("df['b'] = df['a'] + rate\nrows.append(1)\nimport numpy as np\ndel old\nx, (y, *z) = 1, (2, 3)").cells[
        0
    ]
    assert set(cell.defines) == {"np", "x", "y", "z"}
    assert set(cell.reads) == {"df", "rate", "rows", "old"}
    assert set(cell.mutates) == {"df", "rows"}
    assert set(cell.deletes) == {"old"}
    assert [one.path for one in cell.imports] == ["numpy"]


def test_mutation_is_seen_through_attributes_methods_and_keywords() -> None:
    cell = flow(
        "a.b.c = 1\nd.drop(columns='x', inplace=True)\nmodel.fit(X)\ne.fillna(0)\nnp.random.shuffle(f)\ng += 1"
    ).cells[0]
    assert set(cell.mutates) == {"a", "d", "model", "f"}
    assert "g" in cell.reads and "g" in cell.defines


def test_a_fit_changes_its_estimator_whatever_else_it_gives() -> None:
    cell = flow("a.fit_predict(X)\nlabels = b.fit_predict(X)\nX, y = c.fit_resample(X, y)\nd.score(X)").cells[0]
    assert set(cell.mutates) == {"a", "b", "c"}


def test_scopes_of_comprehensions_lambdas_functions_and_classes_stay_inside() -> None:
    assert names("t = [i * k for i in range(3)]", "k = 2") == ["k"]
    assert names("f = lambda a: a + outer") == ["outer"]
    assert names("class A:\n    size = 3\n    def f(self):\n        return size_of(self)\n    g = size") == []
    assert names("def f(n):\n    total = 0\n    for i in range(n):\n        total += i\n    return total\nf(3)") == []
    assert names("try:\n    1\nexcept ValueError as e:\n    print(e)") == []
    assert names("match [1]:\n    case [x, *rest]:\n        print(x, rest)") == []
    assert names("while (n := 3) and n:\n    break") == []


def test_a_function_needs_its_globals_when_it_is_used_not_before() -> None:
    assert names("def f():\n    return late", "late = 1", "f()") == []
    missing = flow("def f():\n    return late", "f()", "late = 1").missing
    assert [(one.cell, one.use.name, one.defined_in, one.via) for one in missing] == [(1, "late", 2, "f")]


def test_a_function_that_calls_another_needs_its_globals_too() -> None:
    assert names("def f():\n    return g()\ndef g():\n    return rate", "f()") == ["rate"]


def test_globals_of_functions_are_recorded() -> None:
    functions = trace_names(read_notebook(HERE / "reads_globals.ipynb")).functions
    assert {use.name for use in functions["reorder_point"].reads} >= {"demand", "lead_time_days", "service_z"}
    assert {use.name for use in functions["table"].reads} >= {"skus", "reorder_point"}
    assert flow("def f():\n    global count\n    count = 1").functions["f"].writes == ("count",)


def test_edges_follow_the_last_definition_or_change() -> None:
    edges = {(one.name, one.definer, one.user, one.kind) for one in flow("a = []", "a.append(1)", "print(a)").edges}
    assert edges == {("a", 0, 1, "mutate"), ("a", 1, 2, "read")}
    assert flow("a = 1", "b = a", "c = 3", "d = b").feeding(3) == {0, 1}


def test_kernel_names_star_imports_and_magics_leave_no_false_alarm() -> None:
    assert names("display(_, __, In, Out, _3, _i2, get_ipython(), exit)") == []
    assert names("from math import *", "sqrt(4)") == []
    assert names("%run other.ipynb", "value") == []
    assert names("%%capture out\nprint(1)", "out.show()") == []
    assert names("exec('v = 1')", "v") == []
    assert names("x = (1 +", "x") == []


def test_order_of_execution_is_read_from_the_counts() -> None:
    order = trace_names(read_notebook(HERE / "out_of_order.ipynb")).order
    assert len(order.backwards) == 3 and order.gaps == 8
    early = {(one.use.name, one.defined_in) for one in trace_names(read_notebook(HERE / "out_of_order.ipynb")).early}
    assert early == {("lines", 3), ("discount", 4), ("threshold", 6)}


def test_use_and_definition_in_one_cell_is_an_early_use() -> None:
    (one,) = flow("total = total + 1").early
    assert (one.cell, one.defined_in) == (0, 0)


def test_expressions_are_followed_to_classes_and_columns() -> None:
    book = notebook(
        "import pandas as pd\ndf = pd.read_csv('a.csv')\nX = df.drop('y', axis=1)\nX.pop('id')\nz = X[['a']].values"
    )
    inference = infer_types(book)
    kinds = {one.name: one.thing.path for one in inference.bindings if one.thing}
    assert kinds["df"] == kinds["X"] == "pandas.DataFrame" and kinds["z"] == "numpy.ndarray"
    last = [one for one in inference.bindings if one.name == "z"][-1]
    assert last.value is not None and str(column_selection(last.value, inference)) == "df[a]"


def test_fits_are_read_with_features_and_target_through_split_and_scaler() -> None:
    book = read_notebook(HERE / "leaks.ipynb")
    found = infer_structure(book, infer_types(book))
    (model,) = found.models
    assert (model.name, model.path, model.parameters) == (
        "forest",
        "sklearn.ensemble.RandomForestClassifier",
        {"n_estimators": "20"},
    )
    assert str(model.feature_columns) == "visits without day" and str(model.target_columns) == "visits[bought]"


def test_roles_of_a_plain_story() -> None:
    book = notebook(
        "import pandas as pd\nfrom sklearn.linear_model import Ridge\nfrom sklearn.metrics import r2_score\n"
        "from sklearn.model_selection import train_test_split",
        "rate = 0.2\nshops = ['north', 'south']",
        "df = pd.read_csv('a.csv')",
        "df['net'] = df['gross'] * (1 - rate)",
        "df.describe()",
        "a, b, c, d = train_test_split(df[['net']], df['y'])",
        "model = Ridge().fit(a, c)",
        "p = model.predict(b)",
        "print(r2_score(d, p))",
        "df.to_csv('out.csv')",
    )
    roles = infer_structure(book, infer_types(book)).roles
    assert [roles[i].role for i in range(10)] == [
        "import",
        "constant",
        "load",
        "prepare",
        "explore",
        "split",
        "fit",
        "predict",
        "evaluate",
        "save",
    ]


@given(st.permutations(["a = 1", "b = a", "c = a + b", "print(c)"]))
def test_missing_names_are_exactly_those_that_running_would_miss(cells: list[str]) -> None:
    space: dict[str, object] = {"print": lambda *_: None}
    failed = False
    for cell in cells:
        try:
            exec(cell, space)
        except NameError:
            failed = True
            break
    assert bool(flow(*cells).missing) == failed
