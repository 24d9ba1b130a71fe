"""The held-out rows of an estimator are found through all its names; training rows never pass for them."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.convert.convert import convert
from d2c_mlops.convert.plan.model_plan import ModelChoice, model_choices
from d2c_mlops.convert.plan.plan import plan_notebook
from d2c_mlops.convert.plan.steps import plan_blocks
from d2c_mlops.convert.run.evaluation_overlap import overlap_share, record_fits, regression_rows
from d2c_mlops.convert.source.notebook import read_notebook
from d2c_mlops.settings import load_settings

IMPORTS = """import pandas as pd
import statsmodels.api as sm
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, classification_report, mean_absolute_error
from sklearn.model_selection import GridSearchCV, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
leads = pd.read_csv('leads.csv')"""
SPLIT = """X = leads[['visits', 'spend']]
y = leads['bought']
X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=1)"""
ASK = "pred = {}.predict(X_test)\naccuracy_score(y_test, pred)"
HELD_OUT = {
    "the name that fit returns": ("reg = LogisticRegression()\nmodel = reg.fit(X_train, y_train)", ASK.format("model")),
    "the first name after that": ("reg = LogisticRegression()\nmodel = reg.fit(X_train, y_train)", ASK.format("reg")),
    "fitted where it is built": ("model = LogisticRegression().fit(X_train, y_train)", ASK.format("model")),
    "a pipeline by another name": (
        "pipe = make_pipeline(StandardScaler(), LogisticRegression())\nfitted = pipe.fit(X_train, y_train)",
        "chance = fitted.predict_proba(X_test)[:, 1]\nlabels = (chance > 0.5).astype(int)\naccuracy_score(y_test, labels)",
    ),
    "the best of a search": (
        "gs = GridSearchCV(RandomForestClassifier(), {'max_depth': [2, 3]})\ngs.fit(X_train, y_train)\nbest = gs.best_estimator_",
        ASK.format("best"),
    ),
    "the best of a search, asked at once": (
        "gs = GridSearchCV(RandomForestClassifier(), {'max_depth': [2, 3]})\ngs.fit(X_train, y_train)",
        ASK.format("gs.best_estimator_"),
    ),
    "a second name": ("clf = LogisticRegression()\nclf.fit(X_train, y_train)\nclf2 = clf", ASK.format("clf2")),
    "names of a tuple": (
        "clf = LogisticRegression()\nclf.fit(X_train, y_train)\nfinal, n = clf, 3", ASK.format("final")),
    "a function that returns it": (
        "def train_model(X, y):\n    clf = LogisticRegression()\n    clf.fit(X, y)\n    return clf\n",
        "m = train_model(X_train, y_train)\n" + ASK.format("m"),
    ),
    "a function that returns it with a figure": (
        "def train_model(data, target):\n    clf = LogisticRegression().fit(data, target)\n    return clf, clf.score(data, target)\n",
        "m, figure = train_model(X_train, target=y_train)\n" + ASK.format("m"),
    ),
    "training rows asked first": (
        "clf = LogisticRegression()\nclf.fit(X_train, y_train)\nprint(accuracy_score(y_train, clf.predict(X_train)))",
        ASK.format("clf"),
    ),
    "prediction before truth": (
        "clf = LogisticRegression()\nclf.fit(X_train, y_train)", "p = clf.predict(X_test)\naccuracy_score(p, y_test)"),
    "a report of the author": (
        "def report(m, X, y):\n    print(classification_report(y, m.predict(X)))\n",
        "clf = LogisticRegression().fit(X_train, y_train)\nreport(clf, X_test, y_test)",
    ),
    "results of statsmodels": (
        "mod = sm.OLS(y_train, X_train)\nres = mod.fit()", "p = res.predict(X_test)\nprint(mean_absolute_error(y_test, p))"),
}  # fmt: skip


def chosen(folder: Path, *cells: str) -> ModelChoice:
    path = folder / "old.ipynb"
    made = [{"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": s, "outputs": [], "execution_count": None}
            for i, s in enumerate((IMPORTS, SPLIT, *cells))]  # fmt: skip
    path.write_text(json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    plan = plan_notebook(read_notebook(path))
    found = model_choices(plan, plan_blocks(plan))
    assert not isinstance(found, str), found
    return found[0]


@pytest.mark.parametrize("what", HELD_OUT)
def test_the_held_out_rows_are_found_through(what: str, tmp_path: Path) -> None:
    found = chosen(tmp_path, *HELD_OUT[what])
    assert found.answers is not None and found.held_out
    assert (ast.unparse(found.features), ast.unparse(found.answers)) == ("X_test", "y_test")


TRAINING = {
    "a score of training rows": "print(clf.score(X_train, y_train))",
    "cross-validation of training rows": "print(cross_val_score(clf, X_train, y_train).mean())",
    "a part of the predictions": "p = clf.predict(X)\naccuracy_score(y.iloc[:50], p[:50])",
    "predictions that are not judged": "p = clf.predict(X_test)\np[:5]",
}


@pytest.mark.parametrize("what", TRAINING)
def test_it_is_judged_on_its_training_rows_and_says_so_where_there_is_only(what: str, tmp_path: Path) -> None:
    found = chosen(tmp_path, "clf = LogisticRegression()\nclf.fit(X_train, y_train)", TRAINING[what])
    assert not found.held_out
    assert found.answers is not None
    assert (ast.unparse(found.features), ast.unparse(found.answers)) == ("X_train", "y_train")


TABLE = pd.DataFrame({"visits": range(40), "bought": [0, 1] * 20})


@pytest.mark.parametrize(("judged", "share"), [
    (TABLE.iloc[30:], 0.0), (TABLE, 0.75), (TABLE.iloc[:10], 1.0), (TABLE.iloc[30:].reset_index(drop=True), 0.0),
])  # fmt: skip
def test_rows_that_were_fitted_are_known_by_label_and_values(judged: pd.DataFrame, share: float) -> None:
    fitted = TABLE.iloc[:30]
    assert overlap_share((fitted[["visits"]], fitted["bought"]), judged[["visits"]], judged["bought"]) == share


def test_rows_of_arrays_are_known_by_their_values() -> None:
    rows, y = np.random.default_rng(1).normal(size=(50, 3)), np.arange(50) % 2
    assert overlap_share((rows[:40], y[:40]), rows, y) == 0.8
    assert overlap_share((rows[:40], y[:40]), rows[40:], y[40:]) == 0.0


def test_rows_numbered_anew_after_the_split_are_known_by_their_values() -> None:
    rows = pd.DataFrame(np.random.default_rng(2).normal(size=(50, 3)))
    y = pd.Series(np.arange(50) % 2)
    order = np.random.default_rng(3).permutation(50)
    fitted = rows.iloc[order[:40]].reset_index(drop=True), y.iloc[order[:40]].reset_index(drop=True)
    assert overlap_share(fitted, rows, y) == 0.8
    others = order[40:]
    assert overlap_share(fitted, rows.iloc[others].reset_index(drop=True), y.iloc[others].reset_index(drop=True)) == 0.0


def test_a_few_training_rows_among_arrays_count_unless_rows_repeat_by_chance() -> None:
    rows, y = np.random.default_rng(4).normal(size=(50, 3)), np.arange(50) % 2
    assert overlap_share((rows[:40], y[:40]), rows[36:], y[36:]) == pytest.approx(4 / 14)
    coarse = np.arange(200).reshape(-1, 1) % 50
    half = np.arange(200) % 2
    assert overlap_share((coarse[:100], half[:100]), np.r_[coarse[:20], coarse[:80] + 50], half[100:]) == 0.0


@pytest.mark.parametrize("alike", [0, 1, 2])
def test_rows_repeated_before_the_split_are_known_by_label(alike: int) -> None:
    table = TABLE.assign(visits=TABLE["visits"] % 10)  # rows 2 and 3 have the values of rows 32 and 33, by chance
    judged = table.iloc[30:].iloc[[0, 0, 1, 2, 3]]
    fitted = table.iloc[[0, 0, 1, 30, 31, *(2, 3)[:alike]]]
    assert overlap_share((fitted[["visits"]], fitted["bought"]), judged[["visits"]], judged["bought"]) == pytest.approx(
        0.6
    )


@pytest.mark.parametrize(("named", "share"), [("train", 1.0), ("test", 0.0), ("all", 0.75)])
def test_the_rows_of_a_statsmodels_regression_are_watched(named: str, share: float) -> None:
    import statsmodels.api as sm

    table = sm.add_constant(pd.DataFrame({"visits": np.random.default_rng(5).normal(size=40)}))
    y = table["visits"] * 2 + np.arange(40)
    rows = {"train": slice(0, 30), "test": slice(30, None), "all": slice(None)}[named]
    for fitted in (sm.OLS(y[:30], table[:30]).fit(), sm.GLM(y[:30], table[:30]).fit()):
        watched_rows = regression_rows(fitted)
        assert watched_rows is not None
        assert overlap_share(watched_rows, table[rows], y[rows]) == share


def test_watching_a_fit_leaves_the_class_as_it_was() -> None:
    from sklearn.linear_model import LinearRegression, Ridge

    before = dict(vars(Ridge))
    with record_fits(Ridge) as seen:
        model = Ridge().fit(TABLE[["visits"]], TABLE["bought"])
    assert seen[id(model)][1] is TABLE["bought"] or (seen[id(model)][1] == TABLE["bought"]).all()
    assert dict(vars(Ridge)) == before
    with record_fits(LinearRegression) as seen:
        pass
    assert not seen


@pytest.mark.slow
def test_a_metric_of_the_whole_table_is_called_one_of_training_data(tmp_path: Path) -> None:
    (tmp_path / "settings.ini").write_text("[d2c]\nstore = d2c_store\n")
    data = "import numpy as np\nleads = pd.DataFrame({'visits': np.arange(200.0), 'spend': np.arange(200.0) % 7})\nleads['bought'] = (leads['spend'] > 3).astype(int)"
    cells = (IMPORTS.replace("leads = pd.read_csv('leads.csv')", data), SPLIT,
             "clf = LogisticRegression()\nclf.fit(X_train, y_train)\npred = clf.predict(X)\naccuracy_score(y, pred)")  # fmt: skip
    path = tmp_path / "old" / "whole.ipynb"
    path.parent.mkdir()
    made = [{"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": s, "outputs": [], "execution_count": None}
            for i, s in enumerate(cells)]  # fmt: skip
    path.write_text(json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    done = convert(path, settings=load_settings(tmp_path, environ={}), stages=("read", "write"), timeout=800)
    assert done.written is not None and done.written.model, (done.refusal, done.written)
    text = Path(done.written.module_file).read_text()
    assert "accuracy_on_training_data" in text and "nothing was held out" in text
