"""Notebooks of old libraries come back to life: each trap is mended, the result is right, and the mend says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from d2c_mlops.convert.revive import Revived, revive

pytestmark = pytest.mark.timeout(600)
START = """import numpy as np
import pandas as pd
import matplotlib.pyplot as plt
shop = pd.DataFrame({"day": pd.date_range("2019-01-01", periods=60), "plan": ["a", "b", "c"] * 20,
                     "spend": np.arange(60.0), "visits": list(range(1, 61)), "left": ["no", "yes"] * 30})"""
# name of the mend, the old code, and what holds afterwards
OLD = {
    "numpy-alias": ("a = np.float(3) + np.int(1) + (0 if np.isnan(np.NaN) else 1)", "a == 4.0"),
    "append": ("b = shop.head(2).append(shop.tail(1), ignore_index=True)", "len(b) == 3"),
    "ix": ("c = shop.ix[0, 'plan']", "c == 'a'"),
    "frequency": ("d = shop.set_index('day')['spend'].resample('M').sum()", "len(d) == 3"),
    "corr-over-text": ("e = shop.drop('day', axis=1).corr()", "list(e.columns) == ['spend', 'visits']"),
    "groupby-mean-over-text": ("f = shop.groupby('plan').mean()", "'spend' in f.columns"),
    "mean-over-text": ("g = shop.drop('day', axis=1).mean()", "round(g['spend'], 1) == 29.5"),
    "counted-columns": ("h = shop['plan'].value_counts().reset_index()", "h['plan'].sum() == 60 and set(h['index']) == {'a', 'b', 'c'}"),
    "copy-on-write": ("i = shop.copy()\ni['spend'][i['visits'] > 30] = 0", "i['spend'].sum() == sum(range(30))"),
    "inplace-on-column": ("j = shop.copy()\nj['spend'].replace(0.0, 7.0, inplace=True)", "j['spend'][0] == 7"),
    "text-is-str": ("k = [c for c in shop.columns if shop[c].dtype == object]", "k == ['plan', 'left']"),
    "numbers-for-texts": ("l = shop['left'].replace({'no': 0, 'yes': 1})", "l.dtype.kind == 'i' and l.sum() == 30"),
    "numbers-in-place": ("m = shop.copy()\nm['left'].replace(['no', 'yes'], [0, 1], inplace=True)", "m['left'].dtype.kind == 'i'"),
    "percentile": ("n = np.percentile(shop['spend'], 25, interpolation='lower')", "n == 14"),
    "ravel": ("o = shop['spend'].ravel()", "o.shape == (60,)"),
    "datetime": ("p = pd.datetime(2019, 3, 1)", "p.year == 2019"),
    "cross-validation": ("from sklearn.cross_validation import train_test_split\nq, r = train_test_split(shop, random_state=0)", "len(q) == 45"),
    "joblib": ("from sklearn.externals import joblib\ns = joblib.hash(3)", "isinstance(s, str)"),
    "one-hot": ("from sklearn.preprocessing import OneHotEncoder\nt = OneHotEncoder(sparse=False).fit(shop[['plan']])\nu = t.get_feature_names()", "len(u) == 3"),
    "multi-class": ("from sklearn.linear_model import LogisticRegression\nv = LogisticRegression(multi_class='ovr').fit(shop[['spend']], shop['left'])", "hasattr(v, 'coef_')"),
    "plot-confusion-matrix": ("from sklearn.metrics import plot_confusion_matrix\nplot_confusion_matrix(v, shop[['spend']], shop['left'])\nplt.show()", "True"),
    "style": ("plt.style.use('seaborn-whitegrid')", "True"),
    "arima": ("from statsmodels.tsa.arima_model import ARIMA\nw = ARIMA(shop['spend'] + np.sin(shop['visits']), order=(1, 0, 0)).fit(disp=0)", "len(w.params) >= 2"),
    "week-of-year": ("x = shop['day'].dt.weekofyear", "x[0] == 1"),
    "squared": ("from sklearn.metrics import mean_squared_error\ny = mean_squared_error([1.0, 3.0], [1.0, 1.0], squared=False)", "round(y, 6) == 1.414214"),
    "dropped-already": ("z = shop.drop('Spned', axis=1)", "len(z.columns) == 5"),
    "lost-columns": ("kept = shop.copy()\nshort = shop\nshort = short[['spend', 'left']]\nbefore = short.copy()", "True"),
    "separated-otherwise": ("aa = pd.to_datetime(pd.Series(['01/05/2017', '03/05/2017']), format='%d-%m-%Y')", "aa[1].day == 3"),
    "iteritems": ("ab = [name for name, _ in shop.iteritems()]", "len(ab) == 5"),
    "get-dummies": ("ac = pd.get_dummies(shop['plan'])\nad = ac['a'] - ac['b']", "abs(ad).sum() == 40"),
}  # fmt: skip


def notebook(path: Path, *cells: str, metadata: dict[str, object] | None = None) -> Path:
    made = [{"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": s, "outputs": [], "execution_count": None}
            for i, s in enumerate(cells)]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": made, "metadata": metadata or {}, "nbformat": 4, "nbformat_minor": 5}))
    return path


@pytest.fixture(scope="module")
def museum(tmp_path_factory: pytest.TempPathFactory) -> Revived:
    """One notebook with all the old code, each with a check after it."""
    folder = tmp_path_factory.mktemp("museum")
    cells = [START]
    for name, (code, holds) in OLD.items():
        cells += [code, f"assert {holds}, {name!r}"]
    path = notebook(folder / "museum.ipynb", *cells)
    before = path.read_bytes()
    done = revive(path, folder / "work", timeout=300)
    assert path.read_bytes() == before, "the original was changed"
    return done


def test_a_museum_of_old_code_runs_again_and_computes_what_it_meant(museum: Revived) -> None:
    assert museum.refusal is None, museum.refusal
    assert museum.status == "revived"


@pytest.mark.parametrize("name", [name for name in OLD if name != "lost-columns"])
def test_each_mend_is_listed_with_before_after_and_reason(name: str, museum: Revived) -> None:
    cell = 1 + 2 * list(OLD).index(name)
    mine = [mend for mend in museum.mends if mend.cell == cell]
    assert mine, f"nothing was mended in {OLD[name][0]!r}"
    assert all(mend.before != mend.after and mend.reason for mend in mine)


def test_columns_that_the_session_still_had_come_from_the_copy(tmp_path: Path) -> None:
    cells = [START + "\nOriginal = shop.copy()", "shop = shop.reindex(columns=['spend', 'left'])",
             "X = shop[['visits', 'spend']]\ny = shop['left']\nassert X['visits'].sum() == 1830"]  # fmt: skip
    done = revive(notebook(tmp_path / "x.ipynb", *cells), tmp_path / "work", timeout=100)
    assert done.status == "revived" and "Original" in done.mends[-1].after and "visits" in done.mends[-1].reason


def test_a_plot_that_cannot_be_drawn_is_left_out_and_a_result_is_not(tmp_path: Path) -> None:
    drawn = "shop.plot(x='day', y='spend', kind='swirl')"
    done = revive(notebook(tmp_path / "x.ipynb", START, drawn + "\nn = len(shop)"), tmp_path / "work", timeout=100)
    assert done.status == "revived" and done.mends[-1].kind == "undrawn" and done.notebook is not None
    assert f"# {drawn}" in done.notebook.read_text() and "n = len(shop)" in done.notebook.read_text()
    lost = revive(
        notebook(tmp_path / "b" / "x.ipynb", START, "n = shop['none'].sum()"), tmp_path / "b" / "w", timeout=100
    )
    assert (
        lost.status == "refused" and lost.refusal is not None and lost.refusal.cell == 1 and "none" in lost.refusal.why
    )


def test_cells_run_in_the_order_that_their_names_need(tmp_path: Path) -> None:
    done = revive(notebook(tmp_path / "x.ipynb", "b = a + 1", "a = 1"), tmp_path / "work", timeout=100)
    assert done.status == "revived" and done.order == (1, 0)


def test_files_are_found_by_name_then_case_then_content(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "Weekly Sales.csv").write_text("shop,units\nBonn,3\n")
    (tmp_path / "nb").mkdir()
    cells = [
        "import pandas as pd",
        "sales = pd.read_csv('C:/Users/ann/Desktop/weekly sales (1).csv')",
        "assert sales['units'][0] == 3",
    ]
    done = revive(notebook(tmp_path / "nb" / "x.ipynb", *cells), tmp_path / "work", data=tmp_path / "data", timeout=100)
    assert done.status == "revived", done.refusal
    assert not list((tmp_path / "nb").glob("*.csv")), "a file was laid into the original's folder"


@pytest.mark.parametrize(("cells", "why", "error"), [
    (["import time\nwhile True:\n    time.sleep(0.1)"], "time", "timeout"),
    (["parts = []\nwhile True:\n    parts.append(b'x' * (64 << 20))"], "memory", ""),
    (["name = input('Who? ')"], "", ""),
    (["import pandas as pd\npd.read_csv('nowhere.csv')"], "nowhere.csv", "FileNotFoundError"),
    (["import no_such_package_at_all\nno_such_package_at_all.run()"], "missing packages: no-such-package-at-all", "ModuleNotFoundError"),
    (["import os\nos._exit(3)"], "", ""),
    ([""], "no code", ""),
])  # fmt: skip
def test_a_refusal_names_the_cell_the_reason_and_the_next_step(
    cells: list[str], why: str, error: str, tmp_path: Path
) -> None:
    done = revive(notebook(tmp_path / "x.ipynb", *cells), tmp_path / "work", timeout=20, memory=2 << 30)
    assert done.status == "refused" and done.refusal is not None
    assert why in done.refusal.why and done.refusal.next
    if error:
        assert done.refusal.error == error


def test_a_foreign_kernel_is_refused_by_name(tmp_path: Path) -> None:
    for language, kernel in (("R", "ir"), ("julia", "julia-1.9")):
        metadata = {
            "kernelspec": {"name": kernel, "display_name": language, "language": language},
            "language_info": {"name": language},
        }
        done = revive(notebook(tmp_path / kernel / "x.ipynb", "x = 1", metadata=metadata), tmp_path / kernel / "work")
        assert done.status == "refused" and done.refusal is not None and language in done.refusal.why


def test_neither_secrets_nor_the_home_folder_are_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "geheim")
    monkeypatch.setenv("SHOP_PASSWORD", "geheim")
    cells = [
        "import os\nassert 'geheim' not in os.environ.values()\nassert os.path.expanduser('~') != "
        + repr(str(Path.home()))
    ]
    assert revive(notebook(tmp_path / "x.ipynb", *cells), tmp_path / "work", timeout=60).status == "as is"


def test_nothing_is_installed_without_being_asked(tmp_path: Path) -> None:
    done = revive(notebook(tmp_path / "x.ipynb", "!pip install cowsay", "x = 1"), tmp_path / "work", timeout=60)
    assert done.installed == () and done.status in ("as is", "revived")
    assert not any((tmp_path / "work" / "packages").iterdir())
