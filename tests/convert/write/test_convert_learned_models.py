"""A notebook whose functions learn is converted, served one by one and in a batch, and refused where that cannot be."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.convert.convert import Conversion, convert
from d2c_mlops.data.tables import Tables
from d2c_mlops.models.core.model import load as load_model
from d2c_mlops.settings import Settings, load_settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
READ = "import numpy as np\nimport pandas as pd\nleads = pd.read_csv('leads.csv')\nleads.head()"
IMPORTS = """from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import LabelEncoder, StandardScaler
"""
FIT = """X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=1)
clf = RandomForestClassifier(n_estimators=10, random_state=0)
clf.fit(X_train, y_train)
pred = clf.predict(X_test)
accuracy_score(y_test, pred)"""
SCALED = """def prepare(df):
    return StandardScaler().fit_transform(df[['visits', 'spend', 'age']].fillna(0))
X = prepare(leads)
y = leads['bought']
"""
MIXED = """def codes(df):
    for c in ['city', 'plan']:
        if df[c].isnull().any():
            df[c] = df[c].fillna(df[c].mode()[0])
        df[c] = LabelEncoder().fit_transform(df[c])
    return df
def prepare(df):
    df = codes(df.copy())
    df['age'] = df['age'].fillna(df.groupby('city')['age'].transform('median'))
    df['band'] = pd.qcut(df['spend'], 4, labels=False)
    df['rank'] = df['spend'].rank(pct=True)
    return df[['visits', 'age', 'city', 'plan', 'band', 'rank']]
X = prepare(leads)
y = leads['bought']
"""
AROUND = """def prepare(df):
    df = df.fillna(0)
    df['last'] = df['spend'].shift(1).fillna(0)
    return df[['visits', 'last']]
X = prepare(leads)
y = leads['bought']
"""
OWN_CLASS = """class Prep:
    def __init__(self):
        self.scaler = StandardScaler()
    def fit(self, X):
        self.scaler.fit(X)
        return self
    def transform(self, X):
        return self.scaler.transform(X)
raw = leads[['visits', 'spend']]
X = Prep().fit(raw).transform(raw)
y = leads['bought']
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    root = tmp_path_factory.mktemp("learnedshop")
    (root / "settings.ini").write_text("[d2c]\nstore = d2c_store\n")
    rng = np.random.default_rng(7)
    n = 240
    leads = pd.DataFrame({
        "visits": rng.poisson(4, n), "spend": rng.gamma(2, 20, n).round(2), "age": rng.integers(18, 80, n).astype(float),
        "city": rng.choice(["Bonn", "Kiel", "Ulm"], n), "plan": rng.choice(["s", "m", None], n),
    })  # fmt: skip
    leads.loc[rng.choice(n, 20, replace=False), "age"] = np.nan
    leads["bought"] = (leads["visits"] * 0.4 + leads["spend"] / 40 + rng.normal(0, 1, n) > 2.8).astype(int)
    (root / "old").mkdir()
    leads.to_csv(root / "old" / "leads.csv", index=False)
    sys.path.insert(0, str(root))
    yield load_settings(root, environ={})
    sys.path.remove(str(root))


def converted(home: Settings, name: str, *cells: str) -> Conversion:
    path = home.root / "old" / f"{name}.ipynb"
    made = [{"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": s, "outputs": [], "execution_count": None}
            for i, s in enumerate(cells)]  # fmt: skip
    path.write_text(json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    done = convert(path, settings=home, stages=("read", "write", "report"), timeout=800)
    assert done.refusal is None and done.written is not None, done.refusal
    return done


@pytest.mark.parametrize(("name", "source"), [("scaled", SCALED), ("mixed", MIXED)])
def test_raw_records_get_the_notebooks_answer_alone_and_in_a_batch(
    name: str, source: str, home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = converted(home, name, READ, IMPORTS + source, FIT)
    assert done.written is not None and done.written.model, (done.written.no_model, done.written.tried)
    assert done.written.agreement["singles"] == 240 and done.written.agreement["pairs"] == 500
    assert "240 of 240 single-record requests" in done.to_text()
    assert done.report is not None and "Served and training features compared" in done.report.read_text()
    importlib.invalidate_caches()
    module = importlib.import_module(done.written.module)
    monkeypatch.chdir(home.root)
    model = getattr(module, done.written.model.rpartition(":")[2])().fit(Tables({}), date(2024, 1, 1))
    model.save(tmp_path / "m")
    model = load_model(tmp_path / "m")
    raw = pd.read_csv(home.root / "old" / "leads.csv")
    space: dict[str, object] = {"leads": raw.copy()}
    exec("\n".join(("import pandas as pd, numpy as np", IMPORTS, source, FIT)), space)
    own = space["clf"].predict(space["X"])  # type: ignore[attr-defined]
    names = list(model.contract.inputs.columns)
    asked = model.contract.check_inputs(raw.assign(record_id=[str(i) for i in range(len(raw))])[names])
    batch = model.predict(asked)["prediction"].to_numpy()
    assert batch.tolist() == own.tolist()
    for row in range(0, 240, 6):
        assert model.predict(asked.iloc[[row]])["prediction"].tolist() == [own[row]]


@pytest.mark.parametrize(("name", "source", "what"), [
    ("around", AROUND, "`.shift (it uses neighbouring rows)` in prepare() (cell 2, line 7)"),
    ("own_class", OWN_CLASS, "(cell 2, line"),
])  # fmt: skip
def test_a_model_that_cannot_be_served_as_trained_is_refused_with_the_place(
    name: str, source: str, what: str, home: Settings
) -> None:
    done = converted(home, name, READ, IMPORTS + source, FIT)
    assert done.written is not None and not done.written.model
    assert what in done.written.no_model and "fit it once" in done.written.no_model
    assert done.report is not None and "learns from all rows at once" in done.report.read_text()
