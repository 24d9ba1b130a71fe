"""The gate holds rows back where the steps of a converted notebook hand out features and outcomes, later ones where they have dates."""

import importlib
from datetime import date
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import DataRefused
from d2c_mlops.registry.compared_metrics import MeasuredModel
from d2c_mlops.registry.evaluators import EvaluationTrial, evaluator_of
from d2c_mlops.registry.evaluators.converted import ConvertedEvaluator

HEAD = """
from datetime import date
import numpy as np
import pandas as pd
import pandera.pandas as pa
from sklearn.linear_model import LinearRegression, LogisticRegression
from d2c_mlops.data.tables import Tables
from d2c_mlops.models.core.charter import Charter
from d2c_mlops.models.core.contract import Contract, column
from d2c_mlops.models.core.model import Evaluation, Model
from d2c_mlops.models.converted.recorded_steps import Learned, steady


def as_frame(features):
    if isinstance(features, pd.DataFrame):
        return features
    return pd.DataFrame(features, columns=[f"feature_{{number + 1}}" for number in range(features.shape[1])])

{steps}

def train(data):
    {train}
    return {{"model": model, "records": as_frame(X_test), "features": X_test, "answers": y_test,
            "given": {{"plain": not isinstance(X_test, pd.DataFrame)}}}}


def prepare_records(records, learned):
    features = learned.records(records)
    return features.to_numpy() if learned["plain"] else features


KEY = {{"record_id": column("string", "Identifier", max_length=64)}}
INPUTS = {{name: column("number", "A feature") for name in {inputs}}}
CONTRACT = Contract(name="{name}", version="1.0.0", key="record_id", inputs=pa.DataFrameSchema({{**KEY, **INPUTS}}),
    outputs=pa.DataFrameSchema({{**KEY, "prediction": column("number", "Predicted value")}}))


class RowsModel(Model):
    contract = CONTRACT
    charter = Charter(metric="{metric}")

    def __init__(self, data: str = "{data}") -> None:
        self.data = data

    def fit(self, tables, as_of):
        done = train(data=self.data)
        self.estimator, self.as_of, self.learned = done["model"], as_of, Learned()
        for name, value in done["given"].items():
            self.learned.give(name, value)
        prepare_records(done["records"], self.learned)
        self.learned.learning = False
        return self

    def predict(self, records):
        features = prepare_records(records, self.learned)
        answers = {{"record_id": records["record_id"].to_numpy(), "prediction": steady(self.estimator.predict(features))}}
        return self.contract.check_outputs(pd.DataFrame(answers))

    def evaluate(self, tables, as_of):
        raise NotImplementedError

    def write(self, folder):
        raise NotImplementedError

    def read(self, folder):
        raise NotImplementedError

    @classmethod
    def example(cls):
        return Tables({{}}), date(2024, 1, 1)

    def records(self, tables, as_of):
        return self.contract.check_inputs(train(data=self.data)["records"].assign(record_id="a"))
"""
RNG = np.random.default_rng(8)
PEOPLE = pd.DataFrame({"visits": RNG.poisson(4, 240), "spend": RNG.gamma(2, 20, 240).round(2)})
PEOPLE["bought"] = (PEOPLE["visits"] * 0.6 + PEOPLE["spend"] / 40 + RNG.normal(0, 0.5, 240) > 3).astype(int)
DAYS = pd.DataFrame({"day": pd.date_range("2023-01-02", periods=210).strftime("%Y-%m-%d")})
DAYS["units"] = (100 + 30 * np.sin(np.arange(210) * 2 * np.pi / 7) + RNG.normal(0, 4, 210)).round(1)
for lag in (7, 14, 21):
    DAYS[f"lag_{lag}"] = DAYS["units"].shift(lag)
DAYS = DAYS.dropna().reset_index(drop=True)
SPLIT = "def split(X, y):\n    return X[:-50], X[-50:], y[:-50], y[-50:]\n"
LOGIT = "def fit_it(X, y):\n    return LogisticRegression().fit(X, y)\n"
LINEAR = "def fit_it(X, y):\n    return LinearRegression().fit(X, y)\n"
END = "X_train, X_test, y_train, y_test = split(X, y)\n    model = fit_it(X_train, y_train)"
NAMES = ["visits", "spend"]
PLACES = ["feature_1", "feature_2"]
KINDS = {
    "one array of all columns": (
        "def read(data):\n    return np.loadtxt(data, delimiter=',', skiprows=1)\n" + SPLIT + LOGIT,
        "rows = read(data)\n    X, y = rows[:, :2], rows[:, 2]\n    " + END, PLACES),
    "features and outcome of one step": (
        "def read(data):\n    df = pd.read_csv(data)\n    return df[['visits', 'spend']].to_numpy(float), df['bought'].to_numpy()\n" + SPLIT + LOGIT,
        "X, y = read(data)\n    " + END, PLACES),
    "a table of features and a series": (
        "def read(data):\n    df = pd.read_csv(data, dtype=float)\n    return df[['visits', 'spend']], df['bought']\n" + SPLIT + LOGIT,
        "X, y = read(data)\n    " + END, NAMES),
    "an outcome of another step": (
        "def read(data):\n    return pd.read_csv(data, dtype=float)\ndef chosen(df):\n    return df[['visits', 'spend']]\n"
        "def outcome(df):\n    return df['bought'].to_numpy()\n" + SPLIT + LOGIT,
        "df = read(data)\n    X = chosen(df)\n    y = outcome(df)\n    " + END, NAMES),
    "one table with its outcome": (
        "def read(data):\n    return pd.read_csv(data, dtype=float)\n" + SPLIT + LOGIT,
        "df = read(data)\n    X, y = df[['visits', 'spend']], df['bought']\n    " + END, NAMES),
}  # fmt: skip


def converted(
    place: Path, table: pd.DataFrame, steps: str, train: str, inputs: list[str], metric: str = "accuracy"
) -> ModuleType:
    """Return a module as `d2c convert` writes it where a record is a row of features."""
    name = f"rows_{abs(hash((place, steps, train))):x}"
    table.to_csv(place / "rows.csv", index=False)
    text = HEAD.format(steps=steps, train=train, inputs=inputs, name=name, metric=metric, data=place / "rows.csv")
    (place / f"{name}.py").write_text(text)
    importlib.invalidate_caches()
    return importlib.import_module(name)


def observed(module: ModuleType, disguised: bool = False) -> MeasuredModel:
    trial = EvaluationTrial(module.RowsModel, {}, {}, Tables({}), date(2024, 1, 1), 0, disguised)
    found = evaluator_of(trial.contract)
    assert isinstance(found, ConvertedEvaluator)
    metric = next(each for each in found.metrics(trial.case, {}) if each.name == module.RowsModel.charter.metric)
    return MeasuredModel(found, metric, found.observe(trial))


QUICK = ("one array of all columns", "an outcome of another step")


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_ready_made_features_are_held_back(kind: str, place: Path) -> None:
    found = observed(converted(place, PEOPLE, *KINDS[kind]))
    assert len(found.answered_rows) == 240 and found.answered_rows["came"].sum() == PEOPLE["bought"].sum()
    assert found.reported_rows is not None and len(found.reported_rows) == 50
    assert 0.8 < found.value < 1 and found.baselines()["most frequent class"].better


LAGS = ["lag_7", "lag_14", "lag_21"]
DATED = "def read(data):\n    return pd.read_csv(data)\n" + SPLIT + LINEAR
DATED_TRAIN = f"df = read(data)\n    X, y = df[{LAGS}], df['units']\n    {END}"


def test_later_rows_are_held_back_where_they_have_dates(place: Path) -> None:
    found = observed(converted(place, DAYS, DATED, DATED_TRAIN, LAGS, "mean_absolute_error"))
    later = DAYS["units"].iloc[-len(found.answered_rows) :]
    assert 0.35 < len(found.answered_rows) / len(DAYS) < 0.45 and sorted(found.answered_rows["came"]) == sorted(later)
    pairs = found.baselines()
    assert {"mean", "nearest column, as it is", "last week", "weekday mean of 8 weeks", "last value"} == set(pairs)
    first = found.answered_rows.head(7)
    before = DAYS["units"].iloc[-len(found.answered_rows) - 7 : -len(found.answered_rows)].to_numpy()
    by_day = dict(zip(DAYS["units"].iloc[-len(found.answered_rows) :].head(7), before, strict=True))
    assert all(by_day[row["came"]] == row["baseline.last week"] for _, row in first.iterrows())


@pytest.mark.slow
def test_series_of_products_have_their_own_past(place: Path) -> None:
    both = pd.concat(
        [DAYS.assign(product="tea"), DAYS.assign(**{name: DAYS[name] * 5 for name in ["units", *LAGS]}, product="pot")]
    )
    found = observed(converted(place, both.sort_values("day"), DATED, DATED_TRAIN, LAGS, "mean_absolute_error"))
    week = found.answered_rows[["came", "baseline.last week"]]
    assert (np.abs(np.log(week["came"] / week["baseline.last week"])) < 1).all(), "a product met the other one's week"


@pytest.mark.slow
def test_an_outcome_that_a_later_step_computes_is_found(place: Path) -> None:
    steps = ("def read(data):\n    return pd.read_csv(data, dtype=float)\n"
             "def labelled(df):\n    df = df.assign(bought=(df['spend'].shift(-1) > df['spend']).astype(int))\n    return df.iloc[:-1]\n") + SPLIT + LOGIT  # fmt: skip
    train = "df = read(data)\n    df = labelled(df)\n    X, y = df[['visits', 'spend']], df['bought']\n    " + END
    found = observed(converted(place, PEOPLE[NAMES], steps, train, NAMES))
    assert len(found.answered_rows) == 239 and found.baselines()["most frequent class"].better


def test_in_another_world_rows_have_other_outcomes(place: Path) -> None:
    steps, train, inputs = KINDS["features and outcome of one step"]
    honest = observed(converted(place, PEOPLE, steps, train, inputs), disguised=True)
    assert honest.baselines()["most frequent class"].better
    own = "def fit_it(X, y):\n    X, y = SEEN\n    return LogisticRegression().fit(X, y)\nSEEN = None\n"
    knowing = converted(place, PEOPLE, steps.replace(LOGIT, own), train, inputs)
    knowing.SEEN = PEOPLE[NAMES].to_numpy(float), PEOPLE["bought"].to_numpy()
    assert observed(knowing).baselines()["most frequent class"].better
    assert not observed(knowing, disguised=True).baselines()["most frequent class"].better


def test_features_that_no_step_hands_out_are_named(place: Path) -> None:
    steps = "def fit_it(data):\n    df = pd.read_csv(data, dtype=float)\n    X, y = df[['visits', 'spend']], df['bought']\n    model = LogisticRegression().fit(X, y)\n    return model, X[-50:], y[-50:]\n"
    module = converted(place, PEOPLE, steps, "model, X_test, y_test = fit_it(data)", NAMES)
    with pytest.raises(DataRefused, match="no step returns the features of each row"):
        observed(module)
