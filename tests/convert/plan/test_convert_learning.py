"""What learns inside the author's functions is learned once: each record alone gets its features of the whole table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.convert.conversion_report import feature_agreement_text
from d2c_mlops.convert.plan.plan import Plan, plan_notebook
from d2c_mlops.convert.plan.recorded_functions import plan_function_replay, replay_function_sources
from d2c_mlops.convert.plan.row_dependence import learning_sites, row_dependence_advice
from d2c_mlops.convert.run.feature_agreement import Disagreement, check_agreement, rare_rows_first
from d2c_mlops.convert.source.notebook import read_notebook
from d2c_mlops.models.converted.recorded_steps import Learned

rng = np.random.default_rng(7)
SHOP = pd.DataFrame({
    "visits": rng.poisson(4, 40),
    "spend": rng.gamma(2, 20, 40).round(2),
    "age": rng.integers(18, 80, 40).astype(float),
    "city": rng.choice(["Bonn", "Kiel", "Ulm"], 40),
    "bought": rng.integers(0, 2, 40),
})  # fmt: skip
SHOP.loc[7, "city"] = "Rom"
SHOP.loc[rng.choice(40, 5, replace=False), "age"] = np.nan
IMPORTS = """import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import LabelEncoder, StandardScaler
shop = pd.read_csv('shop.csv')"""


def planned(folder: Path, *cells: str) -> Plan:
    path = folder / "old.ipynb"
    made = [{"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": s, "outputs": [], "execution_count": None}
            for i, s in enumerate(cells)]  # fmt: skip
    path.write_text(json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    return plan_notebook(read_notebook(path))


LEARNING = {
    "a scaler of its own": "def f(df):\n    return StandardScaler().fit_transform(df[['visits', 'spend']])",
    "a scaler fitted on its training part": (
        "def f(df):\n    train, test = train_test_split(df[['visits', 'spend']], random_state=0)\n    sc = StandardScaler()\n"
        "    sc.fit(train)\n    return sc.transform(test)"
    ),
    "an imputer and a projection": (
        "def f(df):\n    X = SimpleImputer().fit_transform(df[['visits', 'spend', 'age']])\n"
        "    pca = PCA(2).fit(X)\n    return pca.transform(X)"
    ),
    "one encoder for every column": (
        "def f(df):\n    df = df.copy()\n    le = LabelEncoder()\n    for c in df.select_dtypes(['object', 'str']):\n"
        "        df[c] = le.fit_transform(df[c])\n    return df[['city', 'visits']]"
    ),
    "medians where something is missing": (
        "def f(df):\n    df = df.copy()\n    for c in ['spend', 'age']:\n        if df[c].isnull().sum() > 0:\n"
        "            df[c] = df[c].fillna(df[c].median())\n    return df[['spend', 'age']]"
    ),
    "z-scores of columns": (
        "def f(df):\n    X = df[['visits', 'spend']].copy()\n    for c in X.columns:\n"
        "        X[c] = (X[c] - X[c].mean()) / X[c].std()\n    return X"
    ),
    "category codes in two lines": (
        "def f(df):\n    out = df[['visits']].copy()\n    kinds = df['city'].astype('category')\n    out['c'] = kinds.cat.codes\n"
        "    out['k'] = pd.Categorical(df['city']).codes\n    return out"
    ),
    "factorize and dummies": (
        "def f(df):\n    out = pd.get_dummies(df[['visits', 'city']], columns=['city']).astype(float)\n"
        "    out['f'] = pd.factorize(df['city'])[0]\n    return out"
    ),
    "bins by quantile and by number": (
        "def f(df):\n    out = df[['visits']].copy()\n    out['q'] = pd.qcut(df['spend'], 4, labels=False)\n"
        "    out['c'] = pd.cut(df['spend'], bins=5, labels=False)\n    return out"
    ),
    "ranks": "def f(df):\n    out = df[['visits']].copy()\n    out['r'] = df['spend'].rank(pct=True)\n    return out",
    "means of groups and of the target": (
        "def means(df, by):\n    return df[by].map(df.groupby(by)['bought'].mean())\n"
        "def f(df):\n    out = df[['visits']].copy()\n    out['g'] = df.groupby('city')['spend'].transform('mean')\n"
        "    out['t'] = means(df, 'city')\n    return out"
    ),
    "frequencies": (
        "def f(df):\n    out = df[['visits']].copy()\n    counts = df['city'].value_counts()\n"
        "    out['n'] = df['city'].map(counts) / len(df)\n    return out"
    ),
    "a table of groups that is joined": (
        "def f(df):\n    per = df.groupby('city').agg(m=('spend', 'mean'), n=('visits', 'count')).reset_index()\n"
        "    return df.merge(per, on='city', how='left')[['visits', 'm', 'n']]"
    ),
    "a function applied to columns": (
        "def scale(s):\n    return (s - s.min()) / (s.max() - s.min())\n"
        "def f(df):\n    return df[['visits', 'spend']].apply(scale)"
    ),
    "a lambda applied to columns": "def f(df):\n    return df[['visits', 'spend']].apply(lambda c: c / c.max())",
    "clusters as a feature": (
        "def f(df):\n    X = df[['visits', 'spend']].copy()\n    X['seg'] = KMeans(3, n_init=2, random_state=0).fit_predict(X)\n"
        "    return X"
    ),
    "a figure for each value in a loop": (
        "def f(df):\n    df = df.copy()\n    means = {}\n    for c in df['city'].unique():\n"
        "        means[c] = df.loc[df['city'] == c, 'spend'].mean()\n"
        "    df['m'] = df['city'].apply(lambda c: means[c])\n    return df[['visits', 'm']]"
    ),
    "the list of unique values": (
        "def f(df):\n    df = df.copy()\n    for c in df['city'].unique().tolist():\n        df['is_' + c] = (df['city'] == c).astype(int)\n"
        "    return df.drop(columns=['city', 'age'])"
    ),
    "values in order, in a function of its own": (
        "def f(df):\n    def enc(s):\n        known = sorted(s.dropna().unique())\n"
        "        return s.map({c: i for i, c in enumerate(known)}).fillna(-1)\n"
        "    df = df.copy()\n    df['city'] = enc(df['city'])\n    return df[['visits', 'city']]"
    ),
    "ranks of several columns": "def f(df):\n    return df[['visits', 'spend']].rank(pct=True)",
    "codes by numpy.unique": (
        "def f(df):\n    df = df.copy()\n    df['c'] = np.unique(df['city'], return_inverse=True)[1]\n    return df[['visits', 'c']]"
    ),
    "lambdas in assign": (
        "def f(df):\n    return df[['visits', 'spend']].assign(z=lambda d: (d['visits'] - d['visits'].mean()) / d['visits'].std(),\n"
        "        top=lambda d: (d['spend'] > d['spend'].quantile(0.9)).astype(int))"
    ),
    "a pivot table that is joined": (
        "def f(df):\n    per = df.pivot_table(index='city', values='spend', aggfunc='mean').rename(columns={'spend': 'm'})\n"
        "    return df.join(per, on='city')[['visits', 'm']]"
    ),
    "a crosstab and a description": (
        "def f(df):\n    df = df.copy()\n    shares = pd.crosstab(df['city'], df['bought'], normalize='index')[1]\n"
        "    told = df['spend'].describe()\n    df['b'] = df['city'].map(shares)\n"
        "    df['s'] = (df['spend'] - told['mean']) / told['std']\n    return df[['visits', 'b', 's']]"
    ),
    "limits of columns in a dict": (
        "def f(df):\n    df = df.copy()\n    caps = {c: df[c].quantile(0.9) for c in ['visits', 'spend']}\n"
        "    for c, cap in caps.items():\n        df[c] = df[c].clip(upper=cap)\n    return df[['visits', 'spend']]"
    ),
    "numpy's statistics of values": (
        "def f(df):\n    x = df[['visits', 'spend']].values\n    return (x - x.mean(axis=0)) / np.std(x, axis=0)"
    ),
    "a share of the whole": (
        "def f(df):\n    out = df[['visits']].copy()\n    out['s'] = df['spend'] / np.sum(df['spend'])\n"
        "    out['l'] = df['spend'] > np.median(df['spend'])\n    return out.astype(float)"
    ),
    "the most frequent values": (
        "def f(df):\n    out = df[['visits']].copy()\n    top = df['city'].value_counts().nlargest(2).index\n"
        "    out['t'] = df['city'].where(df['city'].isin(top), 'other').map({'Kiel': 1, 'Bonn': 2, 'Ulm': 3}).fillna(0)\n    return out"
    ),
    "rows that it leaves out": (
        "def f(df):\n    df = df.dropna()\n    df = df[df['spend'] < df['spend'].quantile(0.9)]\n"
        "    return StandardScaler().fit_transform(df[['visits', 'spend']])"
    ),
}  # fmt: skip


def ways(tmp_path: Path, source: str) -> tuple[Any, Any]:
    """The author's function, and the one that takes what was learned."""
    plan = planned(tmp_path, IMPORTS, source, "X = f(shop)")
    functions = plan_function_replay(plan, rewrite_learning=True)
    space: dict[str, Any] = {"Learned": Learned}
    body = "\n".join(line for line in IMPORTS.split("\n") if "read_csv" not in line)
    exec(f"{body}\n{source}", space)
    for text in replay_function_sources(f"{functions.served['f']}(shop)", plan, functions):
        exec(text, space)
    return space["f"], space[functions.served["f"]]


@pytest.mark.parametrize("what", LEARNING)
def test_a_function_that_learns_gives_a_record_its_features_of_the_whole_table(what: str, tmp_path: Path) -> None:
    own, served = ways(tmp_path, LEARNING[what])
    learned = Learned()

    def prepare(records: pd.DataFrame) -> Any:
        return served(learned.records(records), learned=learned)

    trained = prepare(SHOP)
    assert np.allclose(np.asarray(trained, float), np.asarray(own(SHOP.copy()), float), equal_nan=True)
    learned.learning = False
    found = check_agreement(prepare, SHOP, prepare(SHOP), pair_count=30)
    assert (found.rows, found.singles) == (40, 40) and found.pairs == 30
    with pytest.raises(
        (Disagreement, ValueError, IndexError, KeyError)
    ):  # as the author wrote it, it depends on the batch
        check_agreement(lambda records: own(records.copy()), SHOP, own(SHOP.copy()))


NOT_LEARNED = {
    "the rows around": ("def f(df):\n    return df[['spend']].shift(1).fillna(0)", ".shift (it uses neighbouring rows)"),
    "a sum that runs": ("def f(df):\n    return df[['spend']].cumsum()", ".cumsum (it uses neighbouring rows)"),
    "a rolling mean": ("def f(df):\n    return df[['spend']].rolling(3, min_periods=1).mean()", ".rolling"),
    "a class of the author": (
        "class Prep:\n    def __init__(self):\n        self.sc = StandardScaler()\n    def fit(self, X):\n        self.sc.fit(X)\n"
        "        return self\n    def transform(self, X):\n        return self.sc.transform(X)\n"
        "def f(df):\n    p = Prep()\n    return p.fit(df[['spend']]).transform(df[['spend']])",
        "self.sc.fit",
    ),
    "a z-score of SciPy": (
        "from scipy.stats import zscore\ndef f(df):\n    return zscore(df[['spend']])", "zscore"),
}  # fmt: skip


@pytest.mark.parametrize("what", NOT_LEARNED)
def test_what_cannot_be_learned_once_is_named_with_its_cell_and_line(what: str, tmp_path: Path) -> None:
    source, named = NOT_LEARNED[what]
    plan = planned(tmp_path, IMPORTS, source, "X = f(shop)")
    found = learning_sites([line for line in plan.lines if line.statement.cell == 2], plan)
    assert any(named in each.what and each.cell == 2 and each.line >= 2 for each in found), found
    assert "cell 2, line" in row_dependence_advice(found) and "fit it once" in row_dependence_advice(found)


def test_what_answers_row_by_row_learns_nothing(tmp_path: Path) -> None:
    source = (
        "def band(v):\n    return 1 if v > 50 else 0\n"
        "def f(df):\n    out = df[['visits']].copy()\n    out['m'] = df[['visits', 'spend']].mean(axis=1)\n"
        "    out['l'] = np.log1p(df['spend']) / 2 - 1\n    out['i'] = df['city'].str.count('i')\n"
        "    out['n'] = np.sum([df['spend'], df['age']], axis=0)\n    out['b'] = df['age'].fillna(0).apply(band)\n"
        "    out['e'] = pd.cut(df['spend'], [0, 10, 50, 1000], labels=False)\n    return out"
    )  # fmt: skip
    plan = planned(tmp_path, IMPORTS, source, "X = f(shop)")
    assert learning_sites(plan.lines, plan) == []
    assert plan_function_replay(plan, rewrite_learning=True).served == {}


FIGURES = {
    "days since the last order": "{'spend': lambda x: (last - x.max()), 'visits': 'count'}",
    "a spread, named": "spread=('spend', lambda x: x.max() - x.min()), n=('visits', 'sum')",
    "shares of a list of functions": "{'spend': ['sum', lambda x: x.max() / x.sum()]}",
}


@pytest.mark.parametrize("what", FIGURES)
def test_one_row_for_each_group_is_a_record_of_its_own(what: str, tmp_path: Path) -> None:
    source = f"last = shop['spend'].max() + 1\nper = shop.groupby('city').agg({FIGURES[what]})"
    plan = planned(tmp_path, IMPORTS, source, "X = per")
    assert learning_sites(plan.lines, plan) == []


def test_features_that_depend_on_the_batch_fail_the_check_with_record_and_column() -> None:
    def scaled(records: pd.DataFrame) -> pd.DataFrame:
        return records[["spend"]] / records["spend"].max()

    with pytest.raises(Disagreement, match=r"record \d+ alone gets 1 as spend, 0\.\d+ in the whole table"):
        check_agreement(scaled, SHOP, scaled(SHOP))


def test_features_that_only_a_pair_changes_fail_the_check() -> None:
    def paired(records: pd.DataFrame) -> pd.DataFrame:
        spend = records["spend"] * (2.0 if len(records) == 2 else 1.0)
        return spend.to_frame()

    with pytest.raises(Disagreement, match="together with record"):
        check_agreement(paired, SHOP, paired(SHOP))


def test_a_column_that_follows_the_number_of_the_row_fails_the_check() -> None:
    past = SHOP["spend"] * 2

    def by_index(records: pd.DataFrame) -> pd.DataFrame:
        return records[["visits"]].assign(past=past)

    with pytest.raises(Disagreement, match="as past"):
        check_agreement(by_index, SHOP, by_index(SHOP))


@pytest.mark.parametrize(("rows", "singles", "pairs", "early"), [
    (5000, 2000, 500, False), (40, 40, 500, False), (1, 1, 0, False), (5000, 1999, 500, True), (40, 40, 499, True),
])  # fmt: skip
def test_a_check_that_stopped_early_says_so(rows: int, singles: int, pairs: int, early: bool) -> None:
    told = feature_agreement_text({"rows": rows, "singles": singles, "pairs": pairs, "rare": 1})
    assert ("reached its time limit" in told) == early
    assert f"{singles:,} of {rows:,} single-record requests" in told


def test_rare_values_and_nulls_are_asked_first() -> None:
    order, rare = rare_rows_first(SHOP[["age", "city"]])
    first = SHOP.iloc[order[:rare]]
    assert sorted(order) == list(range(40))
    assert (SHOP["city"] == "Rom").sum() == (first["city"] == "Rom").sum() > 0
    wide = SHOP.assign(age=SHOP["age"].where(SHOP.index != 30, np.nan))
    wide.loc[wide.index != 30, "age"] = 30.0
    assert rare_rows_first(wide[["age", "bought"]])[0][0] == 30


@pytest.mark.parametrize(("size", "rest", "same"), [
    (1.0, 1e-12, True), (1e6, 1e-6, True), (1e-3, 1e-15, True), (1.0, 1e-7, False), (1e6, 0.1, False), (1e-3, 1e-9, False),
])  # fmt: skip
def test_last_digits_of_a_product_are_no_difference(size: float, rest: float, same: bool) -> None:
    table = pd.DataFrame({"a": size * np.linspace(-1, 1, 60)})

    def product(
        records: pd.DataFrame,
    ) -> np.ndarray:  # as a product of matrices: its last digits depend on the number of rows
        return records.to_numpy() + rest / len(records)

    if same:
        found = check_agreement(product, table, product(table))
        assert found.singles == 60 and found.pairs == 500
    else:
        with pytest.raises(Disagreement):
            check_agreement(product, table, product(table))


def test_threads_that_ask_at_once_do_not_share_their_place_in_the_notes() -> None:
    from concurrent.futures import ThreadPoolExecutor

    learned = Learned()

    def prepare(records: pd.DataFrame) -> pd.DataFrame:
        frame = learned.records(records)
        for name in ("visits", "spend", "age"):
            frame[name] = frame[name] - learned.keep("mean", lambda name=name: frame[name].mean())  # type: ignore[misc]
        return frame[["visits", "spend", "age"]]

    prepare(SHOP)
    learned.learning = False
    expected = prepare(SHOP)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda row: prepare(SHOP.iloc[[row]]), [i % 40 for i in range(400)]))
    for place, each in enumerate(found):
        pd.testing.assert_frame_equal(each, expected.iloc[[place % 40]].reset_index(drop=True))
