"""How a converted notebook reads: nothing twice, nothing that nobody wants, names and words of the author and the field."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2c_mlops.convert.plan import naming
from d2c_mlops.convert.plan.block import Block
from d2c_mlops.convert.plan.model_plan import ModelChoice, find_record_entries, limit_outputs, model_choices
from d2c_mlops.convert.plan.plan import Plan, plan_notebook
from d2c_mlops.convert.plan.slicing import ColumnSet, NeededColumns
from d2c_mlops.convert.plan.steps import plan_blocks
from d2c_mlops.convert.run.model_proof import _training_rows_and_features, check_features_equal
from d2c_mlops.convert.source.notebook import parse_notebook
from d2c_mlops.convert.source.source_edits import append_return
from d2c_mlops.convert.write.charter import charter_source
from d2c_mlops.convert.write.model_source import model_sources
from d2c_mlops.convert.write.notebook_document import join_short_cells, notebook_cells
from d2c_mlops.convert.write.parameter_list import CodeParameters
from d2c_mlops.convert.write.parameters import extract_parameters
from d2c_mlops.convert.write.shared_steps import share_equal_steps
from d2c_mlops.convert.write.step_functions import call_source

IMPORTS = """import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, roc_curve, auc
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
import matplotlib.pyplot as plt"""


def plan_of(*cells: str) -> tuple[Plan, list[Block], CodeParameters]:
    """Plan cells; a cell that begins with `#:` is prose."""
    made = [
        {"cell_type": "markdown", "metadata": {}, "source": text[2:]}
        if text.startswith("#:")
        else {"cell_type": "code", "metadata": {}, "source": text, "outputs": [], "execution_count": None}
        for text in (IMPORTS, *cells)
    ]
    plan = plan_notebook(parse_notebook(json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}).encode(), Path("shop.ipynb")))  # fmt: skip
    found = plan_blocks(plan)
    return plan, found, extract_parameters(plan, found, None, "data")


def cells_of(*cells: str) -> list[str]:
    """The cells of the converted notebook, after its imports."""
    plan, found, parameters = plan_of(*cells)
    share_equal_steps(found, plan, parameters)
    return [cell.source for cell in join_short_cells(notebook_cells(plan, found, parameters, {}, "models.shop"))][3:]


def model_of(*cells: str) -> tuple[Plan, ModelChoice, CodeParameters]:
    plan, found, parameters = plan_of(*cells)
    chosen = model_choices(plan, found)
    assert not isinstance(chosen, str), chosen
    share_equal_steps(found, plan, parameters)
    chosen[0].ways = find_record_entries(plan, chosen[0], lambda block: call_source(block, parameters))
    return plan, chosen[0], parameters


def functions(cells: list[str]) -> str:
    return "\n".join(cell for cell in cells if cell.startswith("#| export"))


LOAD = "df = pd.read_csv('sales.csv')\ndf.head()"
RENAME = "# Rename the columns\ndf.rename(columns={'Unit Price': 'price'}, inplace=True)\ndf['total'] = df['price'] * df['qty']\ndf.head()"
SPLIT = "X = df[['price', 'qty']]\ny = df['late']\nX_train, X_test, y_train, y_test = train_test_split(X, y, random_state=3)\nlen(X)"
SCALE = (
    "scaler = StandardScaler()\nX_train = scaler.fit_transform(X_train)\nX_test = scaler.transform(X_test)\nX_train[:3]"
)
FIT = "clf = LogisticRegression(C=2.0)\nclf.fit(X_train, y_train)\naccuracy_score(y_test, clf.predict(X_test))"


def test_a_record_goes_through_the_step_itself_where_it_means_the_same() -> None:
    cast = "# Add the value\ndf['value'] = df['price'] * df['qty']\ndf.describe()"
    split = SPLIT.replace("['price', 'qty']", "['price', 'value']")
    _, chosen, _ = model_of(LOAD, RENAME, cast, split, SCALE, FIT)
    lines = chosen.ways[0].replay.lines
    assert chosen.ways[0].start == "df"
    assert lines[:2] == ["df = rename_columns(df)", "df = add_value(df)"]
    assert not any("'price'] *" in line for line in lines), "code twice"


def test_what_learns_is_repeated_with_the_reason_and_no_second_name() -> None:
    _, chosen, _ = model_of(LOAD, RENAME, SPLIT, SCALE, FIT)
    way = chosen.ways[0].replay
    assert way.lines[1:] == [
        "# The part of split_train_test that a record needs\nX = df[['price', 'qty']]",
        "# Same as scale_features, with the fitted values\nX = learned['scaler'].transform(X)",
    ]
    assert way.features == "X" and way.given == ["scaler"]


def test_features_are_returned_without_being_bound_first() -> None:
    plan, chosen, parameters = model_of(LOAD, RENAME, SPLIT, SCALE, FIT)
    prepare = model_sources(plan, chosen, parameters)[0].prepare
    assert prepare.endswith("return learned['scaler'].transform(X)")


def test_a_column_that_no_feature_is_made_of_is_neither_trained_for_nor_replayed() -> None:
    cells = (
        LOAD,
        "segments = KMeans(n_clusters=5, random_state=1)\nsegments.fit(df[['qty']])\ndf['segment'] = segments.predict(df[['qty']])\ndf.head()",
        SPLIT,
        FIT,
    )
    plan, chosen, parameters = model_of(*cells)
    assert [block.name for block in chosen.blocks] == ["load_sales", "split_train_test", "fit_logistic_regression"]
    first = model_sources(plan, chosen, parameters)[0]
    assert "n_clusters" not in first.train
    assert first.load == "" and first.load_name == "load_sales", "the step that loads is taken as it is"


def test_a_record_is_answered_without_what_only_chooses_rows() -> None:
    clean = (
        "df['odd'] = IsolationForest(random_state=1).fit_predict(df[['price']])\n"
        "clean = df[df['odd'] == 1].drop(columns=['odd', 'note']).reset_index(drop=True)\nclean.head()"
    )
    _, chosen, _ = model_of(LOAD, RENAME, clean, SPLIT.replace("df[", "clean["), FIT)
    lines = chosen.ways[0].replay.lines
    assert chosen.ways[0].start == "df"
    assert "IsolationForest" not in "".join(lines) and "'odd'" not in "".join(lines)
    assert any("drop(columns=['note'])" in line for line in lines)
    assert any("odd" in "".join(way.replay.lines) for way in chosen.ways[1:]), (
        "should that not hold, rows are chosen as before"
    )


def test_a_transformer_that_is_fitted_on_other_rows_is_given_and_those_rows_are_not_made() -> None:
    scale = "low = X_train.sample(frac=0.5, random_state=1)\nscaler = StandardScaler()\nscaler.fit(low)\nX_test = scaler.transform(X_test)\nlow.head()"
    _, chosen, _ = model_of(LOAD, SPLIT, scale, FIT)
    text = "\n".join(chosen.ways[0].replay.lines)
    assert "learned['scaler'].transform(X)" in text and "low" not in text


def test_a_second_fit_of_a_model_is_called_so() -> None:
    made = cells_of(LOAD, SPLIT, FIT, "clf.fit(X_test, y_test)\nclf.coef_")
    assert "def fit_logistic_regression_again(" in functions(made)
    assert functions(made).count('"""Fit LogisticRegression."""') == 2


def test_fits_in_a_loop_are_a_comparison() -> None:
    loop = "scores = []\nfor k in range(2, 5):\n    model = KMeans(n_clusters=k).fit(df[['qty']])\n    scores.append(model.inertia_)\nscores"
    made = functions(cells_of(LOAD, loop, "best = KMeans(n_clusters=3)\nbest.fit(df[['qty']])\nbest.inertia_"))
    assert "def compare_kmeans(" in made and "def fit_kmeans(" in made
    assert '"""Fit KMeans with several settings."""' in made


def test_what_an_author_function_reads_is_wanted_too() -> None:
    rate = "rate = 0.2\ndef net(frame):\n    return frame['price'] * (1 - rate)"
    plan, _, _ = plan_of(
        "df = pd.read_csv('sales.csv')\nrate = df['qty'].mean()", rate.split("\n", 1)[1], "df['net'] = net(df)"
    )
    last = next(line for line in plan.lines if "net(df)" in line.statement.source)
    wanted = NeededColumns(plan.inference)
    wanted.want("df", ColumnSet(frozenset({"net"})))
    wanted.step_back_over(last.statement, last.facts)
    assert "rate" in wanted.columns


COLUMNS = st.sampled_from("abc")
STATEMENTS = st.one_of(
    st.builds("df['{}'] = df['{}'] + {}".format, COLUMNS, COLUMNS, st.integers(0, 9)),
    st.builds("df['{}'] = len(df.columns) * {}".format, COLUMNS, st.integers(0, 9)),
    st.builds("df.loc[df['{}'] > {}, '{}'] = {}".format, COLUMNS, st.integers(0, 9), COLUMNS, st.integers(0, 9)),
    st.builds("df['{}'] += {}".format, COLUMNS, st.integers(0, 9)),
    st.builds("df[['{}', '{}']] = df[['{}', '{}']].to_numpy() * 2".format, COLUMNS, COLUMNS, COLUMNS, COLUMNS),
    st.builds("other = df[['{}', '{}']]".format, COLUMNS, COLUMNS),
    st.builds("df['{}'] = other.iloc[:, 0] - {}".format, COLUMNS, st.integers(0, 9)),
    st.sampled_from(["df = df.copy()", "other = df.copy()", "df = other.copy()", "df = df[['a', 'b', 'c']]"]),
)


@settings(max_examples=150)
@given(program=st.lists(STATEMENTS, max_size=9), column=COLUMNS)
def test_a_slice_computes_the_wanted_column_as_the_whole_program_does(program: list[str], column: str) -> None:
    start = ["df = pd.DataFrame({'a': [1, 2], 'b': [3, 4], 'c': [5, 6]})", "other = df[['a', 'b']]"]
    plan, _, _ = plan_of("\n".join([*start, *program]))
    wanted = NeededColumns(plan.inference, frozenset({"pd", "len"}), {"df": ColumnSet(frozenset({column}))})
    kept: list[str] = []
    for line in reversed(plan.lines):
        if wanted.touches(line.statement, line.facts):
            kept.insert(0, line.statement.source)
            wanted.step_back_over(line.statement, line.facts)
    whole: dict[str, Any] = {"pd": pd}
    part: dict[str, Any] = {"pd": pd}
    try:
        exec("\n".join([*start, *program]), whole)
    except Exception:  # a program that fails by itself has no values to compare
        return
    if column not in whole["df"]:
        return
    exec("\n".join(kept), part)
    assert part["df"][column].to_numpy().tolist() == whole["df"][column].to_numpy().tolist(), kept


def test_steps_that_differ_only_in_names_are_one_function() -> None:
    roc = "scores = {0}.predict_proba(X_test)\nfpr, tpr, cut = roc_curve(y_test, scores[:, 1])\narea = auc(fpr, tpr)\nplt.plot(fpr, tpr)\nprint(area)"
    again = "# Fit on everything\nwhole = LogisticRegression(C=5.0)\nwhole.fit(X_test, y_test)\nwhole.coef_"
    made = cells_of(LOAD, SPLIT, FIT, roc.format("clf"), again, roc.format("whole"))
    assert functions(made).count("= roc_curve(") == 1
    assert functions(made).count("LogisticRegression(") == 1
    assert "def fit_logistic_regression(X_train: Any, y_train: Any, C: float) -> Any:" in functions(made)
    assert "# Fit on everything\nwhole = fit_logistic_regression(X_test, y_test, C=logistic_regression_C)" in "\n".join(
        made
    )


def test_steps_that_do_something_else_stay_two_functions() -> None:
    made = cells_of(LOAD, SPLIT, FIT, "other = LogisticRegression(C=2.0)\nother.fit(X_train, 1 - y_train)\nother.coef_")
    assert functions(made).count("LogisticRegression(") == 2


def test_a_model_is_built_and_fitted_in_one_function() -> None:
    made = cells_of(LOAD, SPLIT, "clf = LogisticRegression(C=2.0)", "clf.fit(X_train, y_train)\nclf.coef_")
    assert "def build_" not in functions(made)
    assert "clf = LogisticRegression(C=C)\n    clf.fit(X_train, y_train)\n    return clf" in functions(made)


def test_a_list_that_later_cells_read_goes_into_the_function() -> None:
    fit = "groups = KMeans(n_clusters=2)\nused = ['price', 'qty']\ngroups.fit(df[used])\ndf['group'] = groups.predict(df[used])\ndf[used].mean()"
    made = cells_of(LOAD, fit, "used = ['price']\nother = KMeans(n_clusters=3)\nother.fit(df[used])\nother.inertia_")
    assert "used = ['price', 'qty']" in made
    assert functions(made).count("KMeans(n_clusters=n_clusters)") == 1
    assert "groups = fit_kmeans(df, used, n_clusters=n_clusters)" in made
    _, found, _ = plan_of(LOAD, fit, "used")
    assert next(block for block in found if block.name == "fit_kmeans").inputs == ["df", "used"]


def test_steps_hand_out_what_the_model_wants_and_no_more() -> None:
    clean = "odd = IsolationForest(random_state=1)\nbasis = df[['price']].fillna(0)\ndf['odd'] = odd.fit_predict(basis)\ndf.head()"
    plan, found, _ = plan_of(LOAD, clean, SPLIT, FIT)
    chosen = model_choices(plan, found)
    assert not isinstance(chosen, str)
    step = next(block for block in found if any("basis" in line.facts.binds for line in block.lines))
    assert "basis" in step.outputs, "it may yet become the model"
    limit_outputs(found, chosen[0])
    assert "basis" not in step.outputs and "df" in step.outputs


def test_a_few_lines_that_only_prepare_a_question_belong_to_it() -> None:
    made = cells_of(LOAD, SPLIT, FIT, "first = X_test[:3]", "guess = clf.predict(first)\nguess.mean()")
    assert "first = X_test[:3]\n    return clf.predict(first)" in functions(made)
    later = cells_of(LOAD, SPLIT, FIT, "first = X_test[:3]", "guess = clf.predict(first)\nguess.mean()", "first.sum()")
    assert "return clf.predict(first)" in functions(later) and "first = X_test[:3]\n    return clf" not in functions(
        later
    )


def test_what_only_figures_need_stays_with_them() -> None:
    figure = "colours = ['red', 'blue']\nfor colour in colours:\n    plt.plot([1], color=colour)\nplt.show()"
    made = cells_of(LOAD, "df['total'] = df['price'] * df['qty']", figure, SPLIT, FIT)
    assert figure.splitlines()[0] in next(cell for cell in made if "plt.show" in cell)
    assert "colours" not in functions(made)


@pytest.mark.parametrize(
    ("model", "exported"), [((SPLIT, FIT), False), ((), True)], ids=["beside a model", "an analysis"]
)
def test_an_aside_stays_in_the_notebook_where_there_is_a_model(model: tuple[str, ...], exported: bool) -> None:
    made = cells_of(LOAD, *model, "top = df.groupby('shop')['qty'].sum().head(3)\ntop")
    assert ("groupby" in functions(made)) is exported
    assert any("top" in cell and not cell.startswith("#| export") for cell in made)


def test_what_a_printed_figure_judges_by_is_no_aside() -> None:
    first = SCALE.split("\n")[0]
    made = cells_of(
        LOAD,
        SPLIT,
        f"{first}\nX_train = scaler.fit_transform(X_train)\nlen(X_train)",
        "X_test = scaler.transform(X_test)\nX_test[:2]",
        FIT,
    )
    assert "scaler.transform(X_test)" in functions(made)


def test_a_name_for_a_column_is_no_parameter() -> None:
    text = "target = 'late'\nregion = 'EU'\ny = df[target]\nX = df.drop(columns=[target])\nhere = X[X['region'] == region]\nhere.head()"
    _, _, parameters = plan_of(LOAD, text, "clf = LogisticRegression(C=2.0)\nclf.fit(X, y)")
    assert [each.name for each in parameters.every] == ["data_folder", "region", "C"]


def test_parameters_say_what_they_are_for_and_of_figures_there_are_none() -> None:
    figure = "from statsmodels.graphics.tsaplots import plot_acf\nplot_acf(df['qty'], lags=40)"
    _, _, parameters = plan_of(LOAD, SPLIT, FIT, figure)
    assert [str(each) for each in parameters.every[1:]] == [
        "random_state: int = 3  # train_test_split",
        "C: float = 2.0  # LogisticRegression",
    ]


def test_a_step_hands_out_the_same_the_second_time() -> None:
    text = "probs = clf.predict_proba(X_test)\nlate = probs[:, 1]\nmean = late.mean()\nprint(mean)"
    _, found, _ = plan_of(LOAD, SPLIT, FIT, text, text)
    handed = [block.outputs for block in found if block.kind == "step" and "probs" in block.lines[0].facts.binds]
    assert handed == [["mean"], ["mean"]]


@pytest.mark.parametrize(
    ("sources", "value", "said"),
    [
        (["x = 1"], "x", ["return 1"]),
        (["y = 2", "# why\nx = f(\n    y,\n)"], "x", ["y = 2", "# why\nreturn f(\n    y,\n)"]),
        (["x = y = 1"], "x", ["x = y = 1", "return x"]),
        (["x += 1"], "x", ["x += 1", "return x"]),
        (["x == 1"], "x", ["x == 1", "return x"]),
        (["x = 1"], "x, y", ["x = 1", "return x, y"]),
        (["xy = 1"], "x", ["xy = 1", "return x"]),
        ([], "x", ["return x"]),
    ],
)
def test_a_value_is_returned_without_being_bound_first(sources: list[str], value: str, said: list[str]) -> None:
    assert append_return(sources, value) == said


def test_every_heading_goes_down_where_there_are_several_titles() -> None:
    made = cells_of("#:# First\n```\n# no title\n```", LOAD, "#:# Second\n\n## Part", "df.describe()")
    assert "## First\n```\n# no title\n```" in made and "## Second\n\n### Part" in made
    once = cells_of("#:## First", LOAD, "#:### Part", "df.describe()")
    assert "## First" in once and "### Part" in once


@pytest.mark.parametrize(
    ("comment", "sentence"),
    [
        ("# Rename the columns", '"""Rename the columns."""'),
        ("# ROC curve code", '"""ROC curve code."""'),
        ("# Columns", '"""Rename columns."""'),
    ],
)
def test_a_comment_is_the_sentence_of_a_step_or_stays_in_it(comment: str, sentence: str) -> None:
    made = functions(
        cells_of(LOAD, f"{comment}\ndf['a'] = df['b'].shift(1)\ndf = df[df['a'] > 0]\ndf.head()", SPLIT, FIT)
    )
    assert (sentence in made) or (comment in made)
    assert made.count(comment.lstrip("# ")) == 1, "the author's words are kept, once"


def test_the_author_keeps_the_name_train() -> None:
    plan, chosen, parameters = model_of(
        "train = pd.read_csv('sales.csv')\ntrain.head()", SPLIT.replace("df[", "train["), FIT
    )
    assert {each.name for each in model_sources(plan, chosen, parameters)} == {"train_model"}


@pytest.mark.parametrize(
    ("naming_of", "given", "name"),
    [
        (naming.name_from_command, "Fix typo in Avg_Hours_WorkOrderOpenned column", "fix_typo"),
        (naming.name_from_command, "Drop original irrelevant columns and highly correlated/leaking columns", "drop_original_irrelevant_columns"),
        (naming.name_from_command, "Exclude the target", "exclude_target"),
        (naming.distinguishing_words, "Model 2 without Duration", "without_duration"),
        (naming.distinguishing_words, "Model 2", ""),
    ],
)  # fmt: skip
def test_names_are_the_words_of_the_author(naming_of: Callable[[str], str], given: str, name: str) -> None:
    assert naming_of(given) == name


def test_rows_chosen_by_date_are_a_split() -> None:
    day = (
        "day = pd.to_datetime('2018-05-01')\nX_train = X[df['day'] < day]\nX_test = X[df['day'] >= day]\nX_train.shape"
    )
    _, found, _ = plan_of(
        LOAD, "X = df[['price']]\nX.head()", day, "clf = KMeans(n_clusters=2)\nclf.fit(X_train)\nclf.predict(X_test)"
    )
    assert "split_train_test" in [block.name for block in found]


def test_a_charter_asks_beside_its_fields_and_knows_its_metric() -> None:
    space: dict[str, Any] = {}
    source = charter_source("r2", "mean")
    exec(f"from d2c_mlops.models.core.charter import Charter\n{source}", space)
    assert space["CHARTER"].metric == "r2"
    assert "evaluate() reports 'mean'" in source
    assert len(space["CHARTER"].open_questions()) == source.count("  # ") - 1


def test_records_are_told_by_their_features_where_rows_were_numbered_anew() -> None:
    raw = pd.DataFrame({"a": [1.0, 99.0, 3.0, 4.0]})
    whole = raw * 2
    kept, features = _training_rows_and_features(raw, whole.drop(1).reset_index(drop=True), whole)
    assert kept["a"].tolist() == [1.0, 3.0, 4.0] and features["a"].tolist() == [2.0, 6.0, 8.0]
    kept, _ = _training_rows_and_features(raw, whole.drop(1).to_numpy(), whole)
    assert kept.index.tolist() == [0, 2, 3]
    check_features_equal(whole, whole.drop(1).reset_index(drop=True))
    with pytest.raises(ValueError, match="differ"):
        check_features_equal(whole, whole + 1)


def test_a_name_that_is_taken_is_told_apart_by_what_it_gives() -> None:
    taken = {"measure_silhouette"}
    assert naming.unique_name("measure_silhouette", taken, ["ms_silhouette"]) == "measure_ms_silhouette"
    assert naming.unique_name("measure_silhouette", taken, ["linkage"]) == "measure_silhouette_linkage"
    assert naming.unique_name("measure_silhouette", taken, []) == "measure_silhouette_2"
