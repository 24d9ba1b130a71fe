"""Every mender: what stood there, what stands there now, and that it runs and computes what it did.

The cells of a row run in one child that all rows share; the last cell asserts what the old libraries computed.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from d2c_mlops.convert.repair import run_and_fix
from d2c_mlops.convert.repair.fix_registry import registered_fixes
from d2c_mlops.convert.repair.repair_result import RepairResult
from d2c_mlops.convert.repair.repairing import repair_notebook
from support.notebook_cells import LEARN, PANDAS, PLOT, SHOP
from support.notebooks import notebook
from support.shared_session import Shared

SERIES = f"""{PANDAS}
y = pd.Series(100 + np.arange(48.0) + 10 * np.sin(np.arange(48)), index=pd.date_range('2015-01-01', periods=48, freq='MS'))"""


@dataclass(frozen=True)
class Row:
    """A mender's id, the cells before, a text that must stand in the mended cells, a cell that asserts the result."""

    fix: str
    cells: str | list[str]
    after: str
    check: str = ""
    needs: str = ""  # a module without which the row is skipped
    data: dict[str, bytes] = field(default_factory=dict)  # files in the data folder
    metadata: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.fix}: {self.after[:40]}"


def cured(row: Row, folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[RepairResult, str]:
    """Revive the row's notebook; return what came of it and its code."""
    monkeypatch.setattr(run_and_fix, "Session", Shared)
    cells = [row.cells] if isinstance(row.cells, str) else list(row.cells)
    path = notebook(folder / "old" / "x.ipynb", *cells, *([row.check] if row.check else []), **row.metadata)
    data = folder / "data"
    data.mkdir()
    for name, content in row.data.items():
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes(content)
    made = repair_notebook(path, folder / "work", data=data, timeout=60)
    code = ""
    if made.notebook is not None:
        raw = json.loads(made.notebook.read_text())["cells"]
        code = "\n".join("".join(cell["source"]) for cell in raw[: len(cells)])
    return made, code


def _xlsx() -> bytes:
    import io

    held = io.BytesIO()
    pd.DataFrame({"sku": ["a", "b"], "units": [1, 2]}).to_excel(held, index=False)
    return held.getvalue()


CSV = b"sku,units\na,1\nb,2\n"
READ = f"{PANDAS}\ndf = pd.read_csv("
SUM = "assert df['units'].sum() == 3"

FRAMES = [
    Row("gone-attribute", [SHOP, "df = df.set_index('day')\ndf['week'] = df.index.weekofyear"], "df.index.isocalendar().week", "assert df['week'].tolist() == [1, 1, 1, 1]"),
    Row("gone-attribute", [SHOP, "df = df.set_index('day')\nn = df.index.weekday_name[0]"], "df.index.day_name()[0]", "assert n == 'Wednesday'"),
    Row("observed", [SHOP, "df['shop'] = df['shop'].astype('category')\ndf = df[df['units'] > 2]\np = df.pivot_table(index='shop', values='units', aggfunc='count')"],
        "observed=False", "assert len(p) == 2"),
    Row("grouped-keys", [SHOP, "g = df.groupby('shop').apply(lambda t: t['shop'].iloc[0] + str(len(t)))"], "df.groupby('shop')[list(df.columns)].apply(",
        "assert list(g) == ['a2', 'b2']"),
    Row("grouped-keys", [SHOP, "best = df.groupby('shop').apply(lambda t: t.nlargest(1, 'units')).reset_index(drop=True)", "n = best['shop'].tolist()"],
        "[list(df.columns)]", "assert n == ['a', 'b']"),
    Row("several-aggregates", [SHOP, "g = df.assign(t='x').groupby('shop')\ng = df.drop(columns='day')\ng['t'] = 'x'\ng = g.groupby('shop').agg(['mean', 'max'])"],
        ".select_dtypes('number').columns.difference(['shop'], sort=False)]", "assert g.loc['b', ('units', 'mean')] == 4"),
    Row("pivoted-texts", [SHOP, "df['t'] = 'x'\np = df.pivot_table(index='shop')"], "numeric_only=True", "assert p.loc['b', 'units'] == 4"),
    Row("ragged", f"{PANDAS}\na = np.array([[1], [1, 2]])", "dtype=object", "assert a.shape == (2,)"),
    Row("most-frequent", [SHOP, "from scipy import stats\nm = stats.mode(df['units'])[0][0]"], "keepdims=True", "assert m == 1"),
    Row("most-frequent", [SHOP, "from scipy import stats\nm = stats.mode(df['shop'])[0][0]"], "df['shop'].mode()[0]", "assert m == 'a'"),
    Row("labels-not-there", [SHOP, "s = df.set_index('units')['price'].loc[[1, 9]]"], ".reindex([1, 9])", "assert s[1] == 1 and np.isnan(s[9])"),
    Row("not-in-place", [SHOP, "df.set_axis(list('abcd'), axis=1, inplace=True)"], "df = df.set_axis(list('abcd'), axis=1)", "assert list(df) == list('abcd')"),
    Row("errors-ignored", [SHOP, "s = pd.to_numeric(df['shop'], errors='ignore')\nt = df.apply(pd.to_numeric, errors='ignore')"], "def to_numeric_or_same(",
        "assert list(s) == list(df['shop']) and t['units'].sum() == 11"),
    Row("api", [SHOP, "s = df.sort('units', ascending=False); v = df.get_value(0, 'units'); g = df.set_index('day').groupby(pd.TimeGrouper('M')).size()"],
        "pd.Grouper(freq='ME')", "assert s['units'].iloc[0] == 5 and v == 1 and g.iloc[0] == 4"),
    Row("api", f"{PANDAS}\ni = pd.Float64Index([1, 2]); n = pd.datetime.now().year", "from datetime import datetime", "assert i.dtype == 'float64' and n > 2000"),
    Row("numeric-only", [SHOP, "c = df.corr()"], "df.corr(numeric_only=True)", "assert list(c.columns) == ['units', 'price']"),
    Row("numeric-only", [SHOP, "m = df[['shop', 'units']].mean()"], ".mean(numeric_only=True)", "assert m['units'] == 2.75"),
    Row("numeric-only", [SHOP, "df = df.drop(columns='day')\ng = df.assign(t='x').groupby('shop').mean()"], ".mean(numeric_only=True)",
        "assert g.loc['b', 'units'] == 4 and list(g.columns) == ['units', 'price']"),
    Row("numeric-only", [SHOP, "q = df[['shop', 'units']].quantile(0.5)"], "numeric_only=True", "assert q['units'] == 2.5"),
    Row("numeric-only", [SHOP, "s = df.assign(t='x').groupby('shop').agg('mean')"], "numeric_only=True", "assert s.loc['a', 'units'] == 1.5"),
    Row("api", f"{PANDAS}\nx = [np.NaN, np.float(2), np.int(3.7), np.bool8(1)]\no = np.object", "[np.nan, float(2), int(3.7), np.bool_(1)]",
        "assert x[1:] == [2.0, 3, True] and np.isnan(x[0]) and o is object"),
    Row("api", f"{PANDAS}\np = np.percentile([1, 2, 4, 8], 40, interpolation='lower')", "method='lower'", "assert p == 2"),
    Row("api", f"{PANDAS}\na = np.asscalar(np.array([3])); m = np.msort(np.array([2, 1])); n = np.NINF", ".item()",
        "assert a == 3 and m[0] == 1 and n < -1e300"),
    Row("api", [SHOP, "m = df.set_index('day')['units'].resample('M').sum()"], "resample('ME')", "assert m.iloc[0] == 11"),
    Row("api", f"{PANDAS}\nd = pd.date_range('2020-01-31', periods=3, freq='M'); h = pd.date_range('2020', periods=2, freq='H')", "freq='ME'",
        "assert d[1] == pd.Timestamp('2020-02-29') and h[1].hour == 1"),
    Row("api", [SHOP, "g = df.groupby(pd.Grouper(key='day', freq='Y'))['units'].sum()"], "freq='YE'", "assert g.iloc[0] == 11"),
    Row("value", [SHOP, "unit = 'M'\nm = df.set_index('day')['units'].resample(unit).sum()"], "unit = 'ME'", "assert m.iloc[0] == 11"),
    Row("api", [SHOP, "a = df.append({'shop': 'c', 'units': 9}, ignore_index=True)"], "pd.concat([df, pd.DataFrame([{'shop'",
        "assert len(a) == 5 and a['units'].sum() == 20"),
    Row("api", [SHOP, "a = df.append(df).append(df, ignore_index=True)"], "pd.concat([pd.concat([df, df]), df], ignore_index=True)", "assert len(a) == 12"),
    Row("gone-attribute", [SHOP, "def grow(t):\n    return t.append(t)\na = grow(df)"], "pd.concat([t, t])", "assert len(a) == 8"),
    Row("api", [SHOP, "x = df.ix[0, 'units']; p = df.ix[0:2, 0:1]"], "df.loc[0, 'units']", "assert x == 1 and p.shape == (2, 1)"),
    Row("api", [SHOP, "r = df['units'].ravel()"], "df['units'].to_numpy()", "assert list(r) == [1, 2, 3, 5]"),
    Row("plain-array", [SHOP, "r = df['units'].reshape(-1, 1)"], ".to_numpy().reshape(-1, 1)", "assert r.shape == (4, 1)"),
    Row("rank-two", [SHOP, "r = df['units'][:, np.newaxis]"], "df['units'].to_numpy()[:, np.newaxis]", "assert r.shape == (4, 1)"),
    Row("counted-columns", [SHOP, "c = df['shop'].value_counts().reset_index()"], ".rename_axis('index').reset_index(name='shop')",
        "assert list(c.columns) == ['index', 'shop'] and c['shop'].sum() == 4"),
    Row("counted-columns", [SHOP, "c = df['shop'].value_counts().to_frame().reset_index().rename(columns={'index': 'shop', 'shop': 'n'})"],
        "rename_axis(None).rename('shop')", "assert list(c.columns) == ['shop', 'n'] and c['n'].sum() == 4"),
    Row("counted-columns", [SHOP, "c = pd.DataFrame(df['shop'].value_counts())\nn = c['shop'].sum()"], "rename('shop')", "assert n == 4"),
    Row("grouped-columns", [SHOP, "g = df.groupby('shop')['units', 'price'].sum()"], "[['units', 'price']]", "assert g.loc['b', 'units'] == 8"),
    Row("grouped-columns-late", [SHOP, "def total(g):\n    return g['units', 'price'].sum()\ng = total(df.groupby('shop'))"], "[['units', 'price']]",
        "assert g.loc['b', 'units'] == 8"),
    Row("text-is-str", [SHOP, "names = [c for c in df.columns if df[c].dtype == object]"], "== 'str')", "assert names == ['shop']"),
    Row("text-is-str", [SHOP, "names = [c for c in df if df[c].dtypes in ['object', 'bool']]"], "'bool', 'str']", "assert names == ['shop']"),
    Row("text-is-str", [SHOP, "names = df.dtypes[df.dtypes == 'O'].index.tolist()"], "'str'", "assert names == ['shop']"),
    Row("text-is-str", [SHOP, "names = list(df.columns[(df.dtypes != np.object).values])"], "!= 'str'", "assert names == ['day', 'units', 'price']"),
    Row("select-texts", [SHOP, "t = df.select_dtypes(include='object'); n = df.select_dtypes(exclude=[object])"], "['object', 'str']",
        "assert list(t) == ['shop'] and 'shop' not in n"),
    Row("copy-on-write", [SHOP, "df['units'][df['shop'] == 'a'] = 0"], "df.loc[df['shop'] == 'a', 'units'] = 0", "assert df['units'].sum() == 8"),
    Row("copy-on-write", [SHOP, "df['price'].fillna(0, inplace=True)"], "df['price'] = df['price'].fillna(0)", "assert df['price'].isna().sum() == 0"),
    Row("copy-on-write", [SHOP, "df.price.fillna(value=0, inplace=True)"], "df['price'] = df.price.fillna(value=0)", "assert df['price'].isna().sum() == 0"),
    Row("copy-on-write", [SHOP, "df['shop'].replace({'a': 'z'}, inplace=True)"], "df['shop'] = df['shop'].replace", "assert 'z' in set(df['shop'])"),
    Row("copy-on-write", [SHOP, "df.units[0] = 7\ndf['units'].iloc[1] = 8"], "df.loc[0, 'units'] = 7", "assert df['units'].sum() == 23"),
    Row("copy-on-write", [SHOP, "import warnings\nwarnings.filterwarnings('ignore')\nfor i in range(2):\n    df['units'][i] = 0"], "df.loc[i, 'units'] = 0",
        "assert df['units'].sum() == 8"),
    Row("texts-take-no-numbers", [SHOP, "df.loc[df['units'] > 2, 'shop'] = 1"], "df['shop'] = df['shop'].astype(object)",
        "assert list(df['shop']) == ['a', 'a', 1, 1]"),
    Row("texts-take-no-numbers", [SHOP, "df.loc[0, 'shop'] = None\ndf.shop.fillna(0, inplace=True)"], "df['shop'] = df.shop.fillna(0)",
        "assert list(df['shop']) == [0, 'a', 'b', 'b']"),
    Row("texts-take-no-numbers", [SHOP, "df.loc[0, 'shop'] = None\ndf.fillna(0, inplace=True)"], "df[df.select_dtypes(include='str').columns] = ",
        "assert list(df['shop']) == [0, 'a', 'b', 'b'] and df['units'].dtype == int"),
    Row("texts-take-no-numbers", [SHOP, "df[df == 'a'] = 0"], "df.select_dtypes(include='str').astype(object)",
        "assert list(df['shop']) == [0, 0, 'b', 'b'] and df['units'].dtype == int"),
    Row("texts-take-no-numbers", [SHOP, "s = df['shop'].copy()\ns[s == 'a'] = 0"], "s = s.astype(object)", "assert list(s) == [0, 0, 'b', 'b']"),
    Row("texts-take-no-numbers", [SHOP, "df.loc[0, 'units'] = 0.5"], "astype(object)", "assert df['units'].sum() == 10.5"),
    Row("numbers-for-texts", [SHOP, "df['shop'] = df['shop'].replace({'a': 0, 'b': 1})"], ".infer_objects()", "assert df['shop'].mean() == 0.5"),
    Row("numbers-for-texts", [SHOP, "df['shop'].replace(['a', 'b'], [0, 1], inplace=True)"], ".infer_objects()", "assert df['shop'].dtype == int"),
    Row("array-methods", [SHOP, "u = df['shop'].unique().flatten()"], ".to_numpy(dtype=object).flatten()", "assert list(u) == ['a', 'b']"),
    Row("read-only", [SHOP, "v = df['units'].values\nv[0] = 9"], ".values.copy()", "assert v.sum() == 19"),
    Row("positions-by-number", [SHOP, "c = df['shop'].value_counts()\nn = c[0]"], "c.iloc[0]", "assert n == 2"),
    Row("observed", [SHOP, "df['band'] = pd.cut(df['units'], [0, 2, 4, 9, 99])\ng = df.groupby('band')['units'].count()"], "observed=False",
        "assert list(g) == [2, 1, 1, 0]"),
    Row("observed", [SHOP, "g = df.groupby(pd.cut(df['units'], [0, 2, 9, 99])).size()"], "observed=False", "assert list(g) == [2, 2, 0]"),
    Row("dummies-are-true", [SHOP, "d = pd.get_dummies(df['shop'])\nx = d.values - d.values[::-1]"], "get_dummies(df['shop'], dtype=int)", "assert x.min() == -1"),
    Row("aggregate-renamed", [SHOP, "g = df.groupby('shop')['units'].agg({'total': 'sum', 'most': max})"], "agg(**{'total': 'sum'",
        "assert g.loc['b', 'total'] == 8 and g.loc['b', 'most'] == 5"),
    Row("infer-objects", [PANDAS, "pd.set_option('mode.chained_assignment', None)\npd.options.mode.use_inf_as_na = True"], "# pd.options"),
    Row("colwidth", [PANDAS, "pd.set_option('display.max_colwidth', -1)"], "None)"),
    Row("api", [SHOP, "d = df.drop('price', 1); s = df.sort_values('units', 0, False); p = df.pivot('day', 'shop', 'units')"], "axis=1",
        "assert 'price' not in d and s['units'].iloc[0] == 5 and p.shape == (4, 2)"),
    Row("api", [SHOP, "c = pd.concat([df, df], 1); f = df['price'].fillna(method='ffill'); i = [k for k, v in df.iteritems()]"], "axis=1",
        "assert c.shape == (4, 8) and f.isna().sum() == 0 and len(i) == 4"),
    Row("api", [SHOP, "a = df.as_matrix(); m = df['units'].mad(); t = df[['units']].applymap(str)"], ".to_numpy()", "assert m == 1.25 and t.iloc[0, 0] == '1'"),
    Row("api", [SHOP, "m = df.set_index(['shop', 'day']).sum(level='shop')"], "groupby(level='shop')", "assert m.loc['b', 'units'] == 8"),
    Row("api", f"{PANDAS}\nn = pd.datetime(2020, 1, 2).year; v = pd.np.nan; c = pd.value_counts(['a', 'a'])", "datetime",
        "assert n == 2020 and np.isnan(v) and c['a'] == 2"),
    Row("moved-import", "from pandas.io.json import json_normalize\nfrom pandas.tools.plotting import scatter_matrix\nt = json_normalize([{'a': {'b': 1}}])",
        "from pandas.plotting import scatter_matrix", "assert t['a.b'][0] == 1"),
    Row("moved-import", f"{PANDAS}\nfrom pandas import datetime\nd = datetime(2020, 1, 2)", "from datetime import datetime", "assert d.day == 2"),
    Row("api", [SHOP, "w = df['day'].dt.week; n = df['day'].dt.weekday_name"], "isocalendar().week", "assert w.iloc[0] == 1 and n.iloc[0] == 'Wednesday'"),
    Row("api", [SHOP, "r = pd.rolling_mean(df['units'], 2)"], "df['units'].rolling(2).mean()", "assert r.iloc[1] == 1.5"),
    Row("api", [SHOP, "s = df.set_index('day')['units'].resample('D', how='sum')"], ".resample('D').sum()", "assert s.sum() == 11"),
    Row("days-of-differences", [SHOP, "def age(d):\n    return (d.max() - d).astype('timedelta64[D]')\nage = age(df['day'])"], ".dt.days", "assert age.iloc[0] == 3.0"),
    Row("month-unit", [SHOP, "age = (df['day'].max() - df['day']) / np.timedelta64(1, 'M')"], "np.timedelta64(2629746, 's')",
        "assert 0.09 < age.iloc[0] < 0.1"),
    Row("ten-digits", [SHOP, "s = df['day'].astype('int64') // 10**9"], "datetime64[ns]", "assert s.iloc[0] == 1577836800"),
    Row("text-dates", f"{PANDAS}\nd = pd.to_datetime(pd.Series(['2020-01-02', '3 Feb 2020']))", "format='mixed'", "assert d[1].month == 2"),
    Row("separated-otherwise", f"{PANDAS}\nd = pd.to_datetime(pd.Series(['01/05/2017']), format='%d-%m-%Y')", "%d/%m/%Y", "assert d[0].month == 5"),
    Row("show-counts", [SHOP, "df.info(null_counts=True)"], "show_counts=True"),
    Row("unexpected-keyword", [SHOP, "def describe(t):\n    return t.describe(datetime_is_numeric=True)\nd = describe(df)"], "t.describe()", "assert d.loc['max', 'units'] == 5"),
    Row("positional", [SHOP, "def less(t):\n    return t.drop('price', 1)\nd = less(df)"], "t.drop('price', axis=1)", "assert 'price' not in d"),
    Row("api", "import pandas as panda\nt = panda.DataFrame({'a': [1]})\nt = t.append(t)", "panda.concat([t, t])", "assert len(t) == 2"),
    Row("dropped-already", [SHOP, "df = df.drop(['old', 'price'], axis=1)"], "errors='ignore'", "assert list(df) == ['shop', 'day', 'units']"),
    Row("lost-columns", [SHOP, "kept = df.copy()\ndf = df.drop(columns='shop')", "n = df['shop'].nunique()"], "kept['shop']", "assert n == 2"),
]  # fmt: skip

LEARNING = [
    Row("positional", [LEARN, "from sklearn import metrics\nc = metrics.confusion_matrix(y, y, [1, 0])"], "labels=[1, 0]", "assert c.tolist() == [[4, 0], [0, 4]]"),
    Row("api", [LEARN, "from sklearn.linear_model import LinearRegression\nm = LinearRegression(normalize=True).fit(X, y)"], "LinearRegression().fit", "assert m.coef_.shape == (2,)"),
    Row("api", f"{LEARN}\nfrom sklearn.linear_model import LogisticRegression\nm = LogisticRegression(multi_class='auto').fit(X, y)", "LogisticRegression()",
        "assert m.score(X, y) > 0.7"),
    Row("api", f"{LEARN}\nfrom sklearn.linear_model import LogisticRegression\nm = LogisticRegression(multi_class='multinomial', solver='lbfgs').fit(X, y)",
        "solver='lbfgs'", "assert m.score(X, y) > 0.7"),
    Row("api", f"{LEARN}\nfrom sklearn.linear_model import LogisticRegression\nm = LogisticRegression(multi_class='ovr', penalty='none').fit(X, y)", "penalty=None",
        "assert m.score(X, y) > 0.7"),
    Row("moved-import", f"{LEARN}\nfrom sklearn.cross_validation import train_test_split, cross_val_score\nfrom sklearn.externals import joblib\n"
        "a, b, c, d = train_test_split(X, y, random_state=0)", "import joblib", "assert len(a) == 6 and joblib.dump"),
    Row("moved-import", f"{PLOT}\n{LEARN}\nfrom sklearn.linear_model import LogisticRegression\nfrom sklearn.metrics import plot_confusion_matrix, plot_roc_curve\n"
        "m = LogisticRegression().fit(X, y)\ncm = plot_confusion_matrix(m, X, y)\nroc = plot_roc_curve(m, X, y)", "ConfusionMatrixDisplay.from_estimator(m, X, y)",
        "assert cm.confusion_matrix.sum() == 8 and roc.roc_auc > 0.8"),
    Row("moved-attribute", f"{PLOT}\n{LEARN}\nfrom sklearn import metrics\nfrom sklearn.linear_model import LogisticRegression\nm = LogisticRegression().fit(X, y)\n"
        "metrics.plot_confusion_matrix(m, X, y)", "metrics.ConfusionMatrixDisplay.from_estimator(m, X, y)"),
    Row("api", f"{LEARN}\nfrom sklearn.preprocessing import OneHotEncoder\ne = OneHotEncoder(sparse=False)\no = e.fit_transform(X[['b']])", "sparse_output=False",
        "assert o.shape == (8, 2)"),
    Row("feature-names", f"{LEARN}\nfrom sklearn.preprocessing import OneHotEncoder\nmaker = [OneHotEncoder()]\nn = maker[0].fit(X[['b']]).get_feature_names(['b'])",
        "get_feature_names_out", "assert list(n) == ['b_0.0', 'b_1.0']"),
    Row("api", "from sklearn.feature_extraction.text import CountVectorizer\nv = CountVectorizer().fit(['a shop', 'two shops'])\nn = v.get_feature_names()",
        "get_feature_names_out", "assert 'shops' in n"),
    Row("api", f"{LEARN}\nfrom sklearn.metrics import mean_squared_error\ne = mean_squared_error(y, y * 0, squared=False)", "** 0.5", "assert abs(e - 0.5 ** 0.5) < 1e-9"),
    Row("api", f"{LEARN}\nfrom sklearn.ensemble import RandomForestClassifier, RandomForestRegressor\nm = RandomForestClassifier(max_features='auto', random_state=0).fit(X, y)\n"
        "r = RandomForestRegressor(max_features='auto', criterion='mse', random_state=0).fit(X, y)", "max_features=1.0", "assert m.max_features == 'sqrt'"),
    Row("loaded-data", f"{LEARN}\nfrom sklearn.model_selection import GridSearchCV\nfrom sklearn.tree import DecisionTreeClassifier\n"
        "s = GridSearchCV(DecisionTreeClassifier(), {'max_features': ['auto', 'log2']}, cv=2, error_score='raise').fit(X, y)", "'sqrt'"),
    Row("old-imputer", f"{LEARN}\nfrom sklearn.preprocessing import Imputer\ni = Imputer(missing_values='NaN', strategy='mean', axis=0)\n"
        "o = i.fit_transform(pd.DataFrame({'a': [1.0, None, 3.0]}))", "SimpleImputer(missing_values=float('nan'), strategy='mean')", "assert o[1, 0] == 2"),
    Row("old-boosting", f"{LEARN}\nfrom sklearn.lda import LDA\nm = LDA().fit(X, y)", "LinearDiscriminantAnalysis()", "assert m.score(X, y) > 0.7"),
    Row("two-dimensions", f"{LEARN}\nfrom sklearn.linear_model import LinearRegression\nm = LinearRegression().fit(X['a'], y)", "X['a'].to_frame()", "assert m.coef_[0] > 0"),
    Row("two-dimensions", f"{LEARN}\nfrom sklearn.preprocessing import StandardScaler\ns = StandardScaler().fit_transform(X['a'].values)", ".reshape(-1, 1)", "assert s.shape == (8, 1)"),
    Row("names-are-text", f"{LEARN}\nfrom sklearn.linear_model import LinearRegression\nX[0] = 1\nm = LinearRegression().fit(X, y)", "X.rename(columns=str)"),
    Row("solver", f"{LEARN}\nfrom sklearn.linear_model import LogisticRegression\nm = LogisticRegression(penalty='l1').fit(X, y)", "solver='liblinear'"),
    Row("seed-without-shuffle", f"{LEARN}\nfrom sklearn.model_selection import KFold\nk = KFold(n_splits=2, random_state=7)", "KFold(n_splits=2)"),
    Row("clusters", f"{LEARN}\nfrom sklearn.cluster import KMeans\nm = KMeans(n_clusters=2, random_state=0).fit(X)", "n_init=10", "assert m.n_init == 10",
        metadata={"language_info": {"name": "python", "version": "3.7.3"}}),
    Row("api", f"{LEARN}\nfrom sklearn.cluster import KMeans\nm = KMeans(2, n_jobs=-1, precompute_distances='auto', n_init=10).fit(X)", "n_init=10"),
    Row("api", f"{LEARN}\nfrom sklearn.linear_model import LinearRegression\nm = LinearRegression(normalize=True).fit(X, y)", "LinearRegression()"),
    Row("api", f"{LEARN}\nfrom sklearn.model_selection import GridSearchCV\nfrom sklearn.tree import DecisionTreeClassifier\n"
        "s = GridSearchCV(DecisionTreeClassifier(), {'max_depth': [1]}, cv=2, iid=True).fit(X, y)", "cv=2)"),
    Row("old-arima", f"{SERIES}\nfrom statsmodels.tsa.arima_model import ARIMA, ARMA\nm = ARIMA(y, order=(1, 1, 0)).fit(disp=0)\nn = ARMA(y, (1, 0)).fit()", "order=(1, 0, 0)",
        "assert len(m.params) == 3"),
    Row("old-arima-fit", f"{SERIES}\nfrom statsmodels.tsa.arima_model import ARIMA\nm = ARIMA(y, order=(1, 0, 0))\nfit = m.fit(disp=-1, transparams=True)", "m.fit()"),
    Row("forecast-triple", f"{SERIES}\nfrom statsmodels.tsa.arima_model import ARIMA\nm = ARIMA(y, order=(1, 0, 0)).fit(disp=0)\nf, e, c = m.forecast(steps=3, alpha=0.1)", "get_forecast(steps=3)",
        "assert len(f) == 3 and c.shape == (3, 2)"),
    Row("first-forecast", f"{SERIES}\nfrom statsmodels.tsa.arima_model import ARIMA\nm = ARIMA(y, order=(1, 0, 0)).fit(disp=0)\nf = m.forecast(3)[0]", "m.forecast(3)",
        "assert len(f) == 3"),
    Row("plot-predict", f"{PLOT}\n{SERIES}\nfrom statsmodels.tsa.arima_model import ARIMA\nm = ARIMA(y, order=(1, 0, 0)).fit(disp=0)\nm.plot_predict(30, 60)", "plot_predict(m, 30, 60)"),
    Row("gone-criterion", f"{SERIES}\nfrom statsmodels.tsa.arima_model import ARIMA\nm = ARIMA(y, order=(1, 1, 0)).fit(disp=0)\np = m.predict(40, 50, typ='levels')", "m.predict(40, 50)",
        "assert len(p) == 11"),
    Row("api", f"{SERIES}\nfrom statsmodels.tsa.seasonal import seasonal_decompose\nd = seasonal_decompose(y, freq=12)", "period=12", "assert len(d.seasonal) == 48"),
    Row("three-answers", f"{SERIES}\nfrom statsmodels.tsa.arima_model import ARIMA\nm = ARIMA(y, order=(1, 0, 0)).fit(disp=0)\nf, e, c = m.forecast(3)", "get_forecast(3)",
        "assert len(f) == 3 and c.shape == (3, 2)"),
    Row("ljung-box", f"{SERIES}\nfrom statsmodels.stats.diagnostic import acorr_ljungbox\ns, p = acorr_ljungbox(y, lags=3)", ".to_numpy().T", "assert len(p) == 3"),
    Row("smoothing-names", f"{SERIES}\nfrom statsmodels.tsa.holtwinters import ExponentialSmoothing\n"
        "m = ExponentialSmoothing(y, trend='add').fit(smoothing_level=0.2, smoothing_slope=0.1, use_boxcox=False)", "smoothing_trend=0.1",
        "assert m.params['smoothing_trend'] == 0.1"),
    Row("initial-values", f"{SERIES}\nfrom statsmodels.tsa.api import Holt, SimpleExpSmoothing\nf = SimpleExpSmoothing(y).fit(smoothing_level=0.6, optimized=False)\ng = Holt(y).fit()",
        "SimpleExpSmoothing(y, initialization_method='legacy-heuristic').fit", "assert len(f.forecast(5)) == 5 and g.params['smoothing_level'] >= 0"),
    Row("initial-values", f"{SERIES}\nimport statsmodels.tsa.holtwinters as hw\ng = hw.Holt(y, damped_trend=True)\nn = g.fit().forecast(2)",
        "hw.Holt(y, damped_trend=True, initialization_method='estimated')", "assert len(n) == 2"),
    Row("axis-of-columns", [SHOP, "a = df.drop(columns=['units'], axis=1)", "df.drop(columns='shop', axis=1, inplace=True)"],
        "df.drop(columns='shop', inplace=True)", "assert 'units' not in a and 'shop' in a and 'shop' not in df"),
    Row("spelling-of-frequency", f"{SERIES}\nq = y.resample('2m').sum()\nn = len(pd.date_range('2020-01-01', periods=3, freq='m'))", "y.resample('2ME').sum()", "assert n == 3 and len(q) == 25"),
    Row("old-autoregression", f"{SERIES}\nfrom statsmodels.tsa.ar_model import AR\nm = AR(y).fit()", "AutoReg(y, lags=", "assert len(m.params) == 11"),
    Row("one-against-the-rest", f"{LEARN}\nfrom sklearn.linear_model import LogisticRegression\nm = LogisticRegression(solver='liblinear').fit(X, [0, 1, 2, 0, 1, 2, 0, 1])",
        "OneVsRestClassifier(LogisticRegression(", "assert len(m.estimators_) == 3"),
    Row("inner-module", "from sklearn.ensemble.forestry import RandomForestClassifier as R\nm = R()", "from sklearn.ensemble import RandomForestClassifier as R"),
    Row("api", f"{LEARN}\nfrom sklearn.preprocessing import OneHotEncoder\nenc = OneHotEncoder(categorical_features=[1])\no = enc.fit_transform(X.values).toarray()",
        "ColumnTransformer([('encoder', OneHotEncoder(), [1])]", "assert o.shape == (8, 3)"),
    Row("cannot-import", f"{PANDAS}\nfrom sklearn.utils import shuffle, nothing_here\ns = shuffle([1, 2], random_state=0)", "from sklearn.utils import shuffle"),
]  # fmt: skip

PLOTTING = [
    Row("api", f"{PLOT}\nplt.style.use('seaborn-whitegrid')", "seaborn-v0_8-whitegrid"),
    Row("gone-style", f"{PLOT}\nlook = plt.style\nlook.use(['seaborn-poster'])", "seaborn-v0_8-poster"),
    Row("gone-style", f"{PLOT}\nplt.style.use('acme')", "# plt.style.use('acme')"),
    Row("api", f"{PLOT}\nplt.hist([1, 2, 2], normed=True); plt.grid(b=True); plt.hold(True)\nc = plt.cm.get_cmap('jet')", "density=True"),
    Row("three-dimensions", f"{PLOT}\nfigures = [plt.figure()]\nax = figures[0].gca(projection='3d')", "add_subplot(projection='3d')", "assert ax.name == '3d'"),
    Row("plot-argument", f"{PLOT}\nplt.plot([1, 2], sparkle=3)", "plt.plot([1, 2])"),
    Row("api", f"{PLOT}\n{SHOP}\nimport seaborn as sns\nsns.distplot(df['units'])", "sns.histplot(df['units'], kde=True, stat='density')", needs="seaborn"),
    Row("named-axes", f"{PLOT}\n{SHOP}\nimport seaborn as sns\na = sns.countplot(df['shop'])", "sns.countplot(x=df['shop'])",
        "assert len(a.get_xticklabels()) == 2", needs="seaborn"),
    Row("named-axes", f"{PLOT}\n{SHOP}\nimport seaborn as sns\na = sns.barplot('shop', 'units', data=df)", "x='shop', y='units'", needs="seaborn"),
    Row("named-axes", f"{PLOT}\n{SHOP}\nimport seaborn as sns\na = sns.scatterplot(df['units'], df['price'])", "x=df['units'], y=df['price']", needs="seaborn"),
    Row("named-axes", f"{PLOT}\n{SHOP}\nimport seaborn as sns\na = sns.boxplot('shop', 'units', None, df)", "data=df", needs="seaborn"),
    Row("api", f"{PLOT}\n{SHOP}\nimport seaborn as sns\nsns.factorplot('shop', 'units', data=df, size=3)", "catplot(", needs="seaborn"),
]  # fmt: skip

FILES = [
    Row("path", READ + "'C:\\\\Users\\\\me\\\\Desktop\\\\sales.csv')", "read_csv('sales.csv')", SUM, data={"sales.csv": CSV}),
    Row("path", READ + "'Sales.CSV')", "'sales.csv'", SUM, data={"sales.csv": CSV}),
    Row("path", READ + "'sales (1).csv')", "'sales.csv'", SUM, data={"sales.csv": CSV}),
    Row("path", READ + "'../input/shop-sales/sales.csv')", "read_csv('sales.csv')", SUM, data={"deep/er/sales.csv": CSV}),
    Row("path", f"{PANDAS}\nhome = '/content/drive/My Drive/shop/'\ndf = pd.read_csv(home + 'sales.csv')", "sales.csv", SUM, data={"sales.csv": CSV}),
    Row("path", f"{PANDAS}\nimport os\ndf = pd.read_csv(os.path.join('/data', 'raw', 'sales.csv'))", "sales.csv", SUM, data={"sales.csv": CSV}),
    Row("path", f"{PANDAS}\nname = 'sales'\ndf = pd.read_csv(f'/mnt/{{name}}.csv')", "f'{name}.csv'", SUM, data={"sales.csv": CSV}),
    Row("path", f"{PANDAS}\ndf = pd.concat([pd.read_csv(f'/mnt/raw/{{name}}.csv') for name in ('a', 'b')])", "f'{name}.csv'",
        "assert list(df['units']) == [1, 4]", data={"a.csv": b"units\n1\n", "b.csv": b"units\n4\n"}),
    Row("path", READ + "'data.csv')\nn = df['sku'], df['units']", "'weekly.csv'", SUM, data={"weekly.csv": CSV, "other.csv": b"a,b\n1,2\n"}),
    Row("address", READ + "'http://localhost:9/raw/main/sales.csv')", "read_csv('sales.csv')", SUM, data={"sales.csv": CSV}),
    Row("address", f"{PANDAS}\nurl = 'http://localhost:9/sales.csv?raw=true'\ndf = pd.read_csv(url)", "url = 'sales.csv'", SUM, data={"sales.csv": CSV}),
    Row("file-type", READ + "'sales.csv')", "read_excel('sales.csv')", SUM, data={"sales.csv": _xlsx()}),
    Row("file-type", f"{PANDAS}\ndf = pd.read_excel('sales.xls', sheet_name=0)", "read_csv('sales.xls'", SUM, data={"sales.xls": CSV.replace(b",", b";")}),
    Row("engine", f"{PANDAS}\ndf = pd.read_excel('sales.xlsx', engine='xlrd')", "read_excel('sales.xlsx')", SUM, data={"sales.xlsx": _xlsx()}),
    Row("encoding", READ + "'sales.csv')", "encoding='cp1252'", SUM, data={"sales.csv": CSV.replace(b"a,1", b"caf\xe9,1")}),
    Row("separator", READ + "'sales.csv')", "sep=';'", SUM, data={"sales.csv": b"sku;units\nx;1\na,b,c;2\n"}),
    Row("one-column", READ + "'sales.csv')\nn = df['units']", "sep=';'", SUM, data={"sales.csv": CSV.replace(b",", b";")}),
    Row("padded-names", READ + "'sales.csv')\nn = df['Units'].sum()", "df['units']", "assert n == 3", data={"sales.csv": CSV}),
    Row("api", READ + "'sales.csv', error_bad_lines=False, index_col=0, squeeze=True)", "on_bad_lines='skip'", "assert df['b'] == 2", data={"sales.csv": CSV}),
    Row("no-change-of-folder", f"import os\nos.chdir('/home/me/shop')\n{READ}'sales.csv')", "# os.chdir", SUM, data={"sales.csv": CSV}),
    Row("date-parser", f"{PANDAS}\nfrom datetime import datetime\n"
        "s = pd.read_csv('s.csv', index_col=0, parse_dates=['month'], date_parser=lambda x: datetime.strptime('190' + x, '%Y-%m'), squeeze=True)",
        "converters={'month': lambda x:", "assert s.index[1] == pd.Timestamp('1901-02-01') and s.sum() == 3", data={"s.csv": b"month,units\n1-01,1\n1-02,2\n"}),
    Row("api", f"{PANDAS}\ns = pd.Series.from_csv('s.csv', header=0)", ".squeeze('columns')", "assert s.index[1].month == 2 and s.sum() == 3",
        data={"s.csv": b"month,units\n2001-01-01,1\n2001-02-01,2\n"}),
    Row("uploaded", [f"{PANDAS}\nimport io\nfrom google.colab import files", "up = files.upload()", "df = pd.read_csv(io.BytesIO(up['sales (1).csv']))"], "up['sales.csv']", SUM,
        data={"sales.csv": CSV}),
    Row("own-module", "import shopkit\nn = shopkit.twice(2)", "import shopkit", "assert n == 4", data={"shopkit.py": b"def twice(x):\n    return 2 * x\n"}),
]  # fmt: skip

CELLS = [
    Row("notebook-of-colab", ["from google.colab import drive, files\ndrive.mount('/content/drive')", "got = files.upload()\nn = len(got['sales.csv'])"],
        "from pathlib import Path", "assert n == 18", data={"sales.csv": CSV}),
    Row("install-in-a-cell", ["!pip install shopkit", "pip install shopkit", "%pip install -q shopkit\nx = 1", "%conda install -y shopkit"], "\nx = 1", "assert x == 1"),
    Row("folder-magic", "%cd /content/drive/My Drive\nx = 1", "x = 1", "assert x == 1"),
    Row("gone-extension", "%load_ext nb_black\n%matplotlib notebook\nx = 1", "%matplotlib inline", "assert x == 1"),
    Row("unused-module", "import nowhere_to_be_found\nfrom also_not_there import a, b\nx = 1", "# import nowhere_to_be_found", "assert x == 1"),
    Row("python-2", "print 'units:', 3\nif 1 <> 2: print 'ok'", "print('units:', 3)"),
    Row("python-2", "x = 0777 + 10L\ntry:\n    raise ValueError, 'no'\nexcept ValueError, e:\n    s = `x`", "except ValueError as e:", "assert s == '521'"),
    Row("python-2-module", "from StringIO import StringIO\nimport cPickle as pickle\nimport urllib2", "from io import StringIO", "assert StringIO('a').read() == 'a'"),
    Row("no-numpy-alias", "s = [i for i in xrange(3)] + [unicode('a')]", "range(3)", "assert s == [0, 1, 2, 'a']"),
    Row("old-method", "s = sorted({'a': 1}.iteritems())", ".items()", "assert s == [('a', 1)]"),
    Row("order", ["y = x + 1", "x = 1"], "x = 1\ny = x + 1", "assert y == 2"),
]  # fmt: skip

ABSENT = [  # libraries that are installed for a run only: what is mended before it
    Row("moved-import", "from fbprophet import Prophet\nm = Prophet()", "from prophet import Prophet", needs="prophet"),
    Row("moved-import", "from keras.wrappers.scikit_learn import KerasClassifier\nm = KerasClassifier(build_fn=1)",
        "from scikeras.wrappers import KerasClassifier", needs="keras"),
    Row("moved-import", "from keras.layers.core import Dense, Dropout\nd = Dense(2)", "from keras.layers import Dense, Dropout", needs="keras"),
    Row("keras-words", "from keras.models import Sequential\nfrom keras.layers import Dense\nm = Sequential()\n"
        "m.add(Dense(output_dim=6, init='uniform', input_dim=3))\nm.fit(1, 2, nb_epoch=3)", "Dense(units=6, kernel_initializer='uniform', input_dim=3)", needs="keras"),
    Row("api", "from keras.models import Sequential\nfrom keras.optimizers import Adam\nm = Sequential()\nm.compile(Adam(lr=0.1))\np = m.predict_classes(1)",
        "Adam(learning_rate=0.1)", needs="keras"),
    Row("moved-attribute", "import tensorflow as tf\ntf.set_random_seed(1)", "set_seed(1)", needs="tensorflow"),
    Row("api", "from xgboost import XGBClassifier\nm = XGBClassifier()\nm.fit(1, 2, early_stopping_rounds=3, eval_metric='auc', eval_set=[])",
        "m.set_params(early_stopping_rounds=3, eval_metric='auc').fit(1, 2, eval_set=[])", needs="xgboost"),
    Row("moved-import", "import pandas_profiling\nfrom pandas_profiling import ProfileReport\np = ProfileReport(1)", "from ydata_profiling import ProfileReport", needs="ydata_profiling"),
]  # fmt: skip
LOST = [
    Row("never-imported", ["total = pd.Series([1, 2]).sum()"], "import pandas as pd\ntotal", "assert total == 3"),
    Row("never-imported", ["%%time\nroot = np.sqrt(9.0)"], "%%time\nimport numpy as np\nroot", "assert root == 3"),
]  # fmt: skip
ALIKE = [  # failures as other libraries word them
    Row("history-names", "class History:\n    history = {'accuracy': [1], 'val_accuracy': [2]}\nhistory = History()\na = history.history['acc'], history.history['val_acc']",
        "history.history['accuracy']", "assert a == ([1], [2])"),
    Row("old-objective", "def fit(objective):\n    if objective == 'reg:' + 'linear':\n        raise ValueError('Unknown objective function: reg:linear')\nfit('reg:linear')",
        "'reg:squarederror'"),
]  # fmt: skip
ROWS = [*FRAMES, *LEARNING, *PLOTTING, *FILES, *CELLS, *LOST, *ALIKE]
ELSEWHERE = {
    "missing-module",
    "copy-on-write",
    "order",
    "interpret-index",
    "label-out-of-range",
    "plot-argument",
}  # by other tests


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_mend_runs_and_computes_what_it_did(row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if row.needs:
        pytest.importorskip(row.needs)
    made, code = cured(row, tmp_path, monkeypatch)
    assert made.status == "revived", (made.refusal, [m.to_dict() for m in made.fixes], code)
    assert row.after in code, code
    kinds = {fix.kind for fix in made.fixes}
    assert row.fix in kinds, kinds
    assert all(fix.reason for fix in made.fixes)


def test_the_call_that_fails_is_mended_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = "LogisticRegression(solver='liblinear')"
    row = Row(
        "one-against-the-rest",
        [
            f"{LEARN}\nfrom sklearn.linear_model import LogisticRegression\nodds = {called}.fit(X, y).coef_",
            f"classes = [0, 1, 2, 0, 1, 2, 0, 1]\nmany = {called}",
            "many.fit(X, classes)",
        ],
        "",
        "assert odds.shape == (1, 2) and len(many.estimators_) == 3",
    )
    made, code = cured(row, tmp_path, monkeypatch)
    assert made.status == "revived", (made.refusal, code)
    assert f"odds = {called}" in code and code.count("OneVsRestClassifier(") == 1, code


@pytest.mark.parametrize("row", ABSENT, ids=str)
def test_what_is_absent_is_mended_before_it_runs(row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, code = cured(row, tmp_path, monkeypatch)
    assert row.after in code, code


def test_every_mender_has_a_row() -> None:
    missing = {fix.id for fix in registered_fixes()} - {row.fix for row in [*ROWS, *ABSENT]} - ELSEWHERE
    assert not missing


MODERN = [
    ("counts named by the author's pandas", [SHOP, "c = df['shop'].value_counts().reset_index()\nn = c['count'].sum()"]),
    ("counts of groups", [SHOP, "c = pd.DataFrame(df.groupby('shop')['units'].value_counts())\nn = c['count'].sum()"]),
    ("a default that the author chose", [f"{LEARN}\nfrom sklearn.cluster import KMeans\nm = KMeans(2, n_init=3, random_state=0).fit(X)"]),
    ("a default of the author's own library", [f"{LEARN}\nfrom sklearn.cluster import KMeans\nm = KMeans(2, random_state=0).fit(X)"]),
    ("a list that appends", ["parts = []\nparts.append(1)\nix = {'ix': 1}['ix']"]),
    ("a function of the author's named like an old one", ["def distplot(x):\n    return x\nd = distplot(1)"]),
    ("modulo inside brackets", ["x = (7\n% 4)\nassert x == 3"]),
    ("names of IPython", ["1 + 1", "x = _ + len(Out) + len(In)\ndisplay(x)\nget_ipython().run_line_magic('pwd', '')"]),
]  # fmt: skip


@pytest.mark.parametrize(("cells"), [cells for _, cells in MODERN], ids=[name for name, _ in MODERN])
def test_what_runs_is_left_as_it_is(cells: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, code = cured(
        Row("", cells, "", metadata={"language_info": {"name": "python", "version": "3.12.1"}}), tmp_path, monkeypatch
    )
    assert (made.status, made.fixes, made.refusal) == ("as is", (), None)
    assert code == "\n".join(cells)
