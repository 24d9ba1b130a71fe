"""What a notebook fits becomes a model that answers as the notebook does: regressions, forecasts, learned bins."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.convert.convert import Conversion, convert
from d2c_mlops.convert.write.model_text import _metric_tolerance
from d2c_mlops.data.tables import Tables
from d2c_mlops.models.converted.statistical import Forecast, Regression
from d2c_mlops.models.core.model import Model
from d2c_mlops.models.core.model import load as load_model
from d2c_mlops.settings import Settings, load_settings

pytestmark = pytest.mark.timeout(600)
SALES = """import numpy as np
import pandas as pd
months = pd.date_range('2020-01-01', periods=48, freq='MS')
rng = np.random.default_rng(4)
sales = pd.Series(200 + 2 * np.arange(48) + 30 * np.sin(np.arange(48) * np.pi / 6) + rng.normal(0, 4, 48), index=months)"""
LEADS = """import numpy as np
import pandas as pd
rng = np.random.default_rng(5)
leads = pd.DataFrame({'visits': rng.poisson(4, 400), 'spend': rng.gamma(2, 20, 400), 'age': rng.integers(18, 80, 400)})
leads['bought'] = (leads['visits'] * 0.4 + leads['spend'] / 40 + rng.normal(0, 1, 400) > 2.8).astype(int)"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    root = tmp_path_factory.mktemp("modelshop")
    (root / "settings.ini").write_text("[d2c]\nstore = d2c_store\n")
    sys.path.insert(0, str(root))
    yield load_settings(root, environ={})
    sys.path.remove(str(root))


def converted(home: Settings, name: str, *cells: str) -> tuple[Conversion, ModuleType]:
    path = home.root / "old" / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    made = [{"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": s, "outputs": [], "execution_count": None}
            for i, s in enumerate(cells)]  # fmt: skip
    path.write_text(json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
    done = convert(path, settings=home, stages=("read", "write"), timeout=800)
    assert done.refusal is None and done.written is not None, done.refusal
    assert done.written.model, (done.written.no_model, done.written.tried)
    importlib.invalidate_caches()
    return done, importlib.import_module(done.written.module)


def fitted(done: Conversion, module: ModuleType, folder: Path) -> Model:
    """Fit, save, and load the model as a service would."""
    assert done.written is not None
    kind = getattr(module, done.written.model.rpartition(":")[2])
    model: Model = kind().fit(Tables({}), date(2024, 1, 1))
    model.save(folder)
    assert not list(folder.rglob("*.pkl"))
    return load_model(folder)


@pytest.mark.slow
def test_a_forecast_answers_for_steps_ahead_with_their_dates(home: Settings, tmp_path: Path) -> None:
    fit = ("from statsmodels.tsa.holtwinters import ExponentialSmoothing\n"
           "model = ExponentialSmoothing(sales, trend='add', seasonal='add', seasonal_periods=12)\nfit = model.fit()")  # fmt: skip
    done, module = converted(home, "holt_winters", SALES, fit, "forecast = fit.forecast(steps=6)\nforecast")
    model = fitted(done, module, tmp_path / "m")
    asked = pd.DataFrame({"record_id": ["a", "b"], "step": [6, 1]})
    answer = model.predict(model.contract.check_inputs(asked))
    space: dict[str, object] = {}
    exec(f"{SALES}\n{fit}", space)
    own = space["fit"].forecast(6)  # type: ignore[attr-defined]
    assert np.allclose(answer["prediction"], [own.iloc[5], own.iloc[0]])
    assert answer["period"].astype(str).tolist() == ["2024-06-01", "2024-01-01"]
    assert isinstance(model.estimator, Forecast)  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="step"):
        model.contract.check_inputs(pd.DataFrame({"record_id": ["a"], "step": [7]}))


@pytest.mark.slow
def test_a_regression_of_statsmodels_answers_for_one_raw_record(home: Settings, tmp_path: Path) -> None:
    fit = ("import statsmodels.api as sm\nX = sm.add_constant(leads[['visits', 'spend']])\n"
           "result = sm.Logit(leads['bought'], X).fit(disp=0)")  # fmt: skip
    done, module = converted(home, "odds", LEADS, fit, "result.params")
    model = fitted(done, module, tmp_path / "m")
    assert isinstance(model.estimator, Regression)  # type: ignore[attr-defined]
    space: dict[str, object] = {}
    exec(f"{LEADS}\n{fit}", space)
    leads = space["leads"]
    assert isinstance(leads, pd.DataFrame)
    asked = leads[["visits", "spend"]].iloc[[7]].assign(record_id=["x"])
    got = model.predict(model.contract.check_inputs(asked[list(model.contract.inputs.columns)]))
    assert "const" not in model.contract.inputs.columns, "the author's constant is no field of a record"
    assert np.allclose(got["prediction"], space["result"].predict(space["X"]).iloc[7])  # type: ignore[attr-defined]


@pytest.mark.slow
def test_a_search_among_distributions_answers_by_its_best_estimator(home: Settings, tmp_path: Path) -> None:
    search = ("from scipy.stats import randint\nfrom sklearn.tree import DecisionTreeClassifier\n"
              "from sklearn.model_selection import RandomizedSearchCV\nX, y = leads[['visits', 'spend', 'age']], leads['bought']\n"
              "search = RandomizedSearchCV(DecisionTreeClassifier(random_state=0), {'max_depth': randint(1, 5)}, n_iter=3, cv=3, random_state=1)\n"
              "search.fit(X, y)")  # fmt: skip
    done, module = converted(home, "search", LEADS, search, "chance = search.predict_proba(X)[:, 1]\nchance[:3]")
    model = fitted(done, module, tmp_path / "m")
    space: dict[str, object] = {}
    exec("\n".join((LEADS, search)), space)
    asked = pd.DataFrame({"record_id": ["a"], "visits": [4.0], "spend": [50.0], "age": [40.0]})
    answer = model.predict(model.contract.check_inputs(asked))
    said = space["search"].predict_proba(asked[["visits", "spend", "age"]])[:, 1]
    assert np.allclose(answer[model.contract.output_fields[-1].name], said), answer


@pytest.mark.slow
def test_bins_and_percentiles_of_the_training_data_are_replayed(
    home: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space: dict[str, object] = {}
    exec(LEADS, space)
    (home.root / "old").mkdir(exist_ok=True)
    space["leads"].to_csv(home.root / "old" / "leads.csv", index=False)  # type: ignore[attr-defined]
    read = "import numpy as np\nimport pandas as pd\nleads = pd.read_csv('leads.csv')\nleads.head()"
    prepare = ("leads['band'] = pd.qcut(leads['spend'], 4, labels=False)\n"
               "leads['spend'] = leads['spend'].clip(upper=np.percentile(leads['spend'], 95))\n"
               "leads['old'] = pd.cut(leads['age'], 3, labels=False)")  # fmt: skip
    fit = ("from sklearn.tree import DecisionTreeClassifier\nX = leads[['visits', 'spend', 'band', 'old']]\n"
           "tree = DecisionTreeClassifier(max_depth=4, random_state=0)\ntree.fit(X, leads['bought'])\nguess = tree.predict(X)")  # fmt: skip
    done, module = converted(home, "bands", read, prepare, fit, "(guess == leads['bought']).mean()")
    monkeypatch.chdir(home.root)
    model = fitted(done, module, tmp_path / "m")
    assert {"visits", "spend", "age"} <= set(model.contract.inputs.columns), "a record is what the shop knows"
    read = f"import pandas as pd, numpy as np\nleads = pd.read_csv({str(home.root / 'old' / 'leads.csv')!r})\nraw = leads.copy()"
    exec(f"{read}\n{prepare}\n{fit}", space)
    raw, guess = space["raw"], space["guess"]
    assert isinstance(raw, pd.DataFrame)
    for row in (0, 11, 399):
        asked = raw.iloc[[row]].assign(record_id=["x"])[list(model.contract.inputs.columns)]
        assert model.predict(model.contract.check_inputs(asked))["prediction"].tolist() == [guess[row]]  # type: ignore[index]


@pytest.mark.parametrize(
    ("again", "far"),
    [(0.87, 0.01), (0.8701, 0.087), (None, 0.087), (0.9, 0.12)],
    ids=["same", "chance", "slow", "wild"],
)
def test_a_metric_may_move_as_far_as_chance_moves_it(again: float | None, far: float) -> None:
    assert _metric_tolerance(0.87, again) == pytest.approx(far)
