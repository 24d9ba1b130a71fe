"""The gate holds the last periods of a converted forecast back, asks for them, and compares with what came."""

import importlib
import json
import sys
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.convert.convert import convert
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import DataRefused, GateRefused
from d2c_mlops.registry.compared_metrics import MeasuredModel
from d2c_mlops.registry.evaluators import EvaluationTrial, evaluator_of
from d2c_mlops.registry.evaluators.converted_forecasts import ForecastEvaluator
from d2c_mlops.registry.promotions import judge_and_promote as promote
from d2c_mlops.registry.versions import new_model, register
from d2c_mlops.settings import load_settings

HEAD = '''
from datetime import date
import numpy as np
import pandas as pd
import pandera.pandas as pa
from d2c_mlops.data.tables import Tables
from d2c_mlops.models.core.charter import Charter
from d2c_mlops.models.core.contract import Contract, column
from d2c_mlops.models.core.model import Evaluation, Model
from d2c_mlops.models.converted.recorded_steps import Learned, steady
from d2c_mlops.models.converted.statistical import forecast_of


class Season:
    """The mean of each place in a season, as a fitted model of statsmodels is asked."""

    def __init__(self, series, periods):
        self.values = np.asarray(series, float)
        index = getattr(series, "index", None)
        self.index = index if isinstance(index, (pd.DatetimeIndex, pd.PeriodIndex)) else None
        self.model = type("model", (), {"endog": self.values, "data": type("data", (), {"dates": self.index}), "seasonal_periods": periods})
        places = np.arange(len(self.values)) % periods
        self.means = np.array([np.nanmean(self.values[places == place]) for place in range(periods)])
        self.fittedvalues, self.periods = self.means[places], periods

    def forecast(self, steps):
        values = self.means[(len(self.values) + np.arange(steps)) % self.periods]
        if self.index is None:
            return values
        start = self.index[-1]
        step = pd.infer_freq(self.index) if isinstance(self.index, pd.DatetimeIndex) else self.index.freq
        make = pd.date_range if isinstance(self.index, pd.DatetimeIndex) else pd.period_range
        return pd.Series(values, index=make(start, periods=steps + 1, freq=step)[1:])


def load_sales(data):
    return pd.read_csv(data)
'''
CLASS = """

def train(data):
    {train}
    table = forecast_of(fit, {horizon})
    return {{"model": table, "records": table.records(), "features": table.records(), "answers": None, "given": {{}}}}


def prepare_records(records, learned):
    return learned.records(records)


KEY = {{"record_id": column("string", "Identifier", max_length=64)}}
CONTRACT = Contract(name="{name}", version="1.0.0", key="record_id",
    inputs=pa.DataFrameSchema({{**KEY, "step": column("integer", "Periods ahead", ge=1, le={horizon}, unit="periods")}}),
    outputs=pa.DataFrameSchema({{**KEY, "prediction": column("number", "Forecast of that period")}}))


class AheadModel(Model):
    contract = CONTRACT
    charter = Charter(metric="mean_absolute_error_in_sample", baseline="last value")

    def __init__(self, data: str = "{data}") -> None:
        self.data = data

    def fit(self, tables, as_of):
        done = train(data=self.data)
        self.estimator, self.as_of, self.learned = done["model"], as_of, Learned()
        prepare_records(done["records"], self.learned)
        self.learned.learning = False
        return self

    def predict(self, records):
        features = prepare_records(records, self.learned)
        answers = {{"record_id": records["record_id"].to_numpy(), "prediction": {answer}}}
        return self.contract.check_outputs(pd.DataFrame(answers))

    def evaluate(self, tables, as_of):
        table = train(data=self.data)["model"]
        return Evaluation("mean_absolute_error_in_sample", table.error, {{"last value": table.naive}}, True)

    def write(self, folder):
        raise NotImplementedError

    def read(self, folder):
        raise NotImplementedError

    @classmethod
    def example(cls):
        return Tables({{}}), date(2024, 1, 1)

    def records(self, tables, as_of):
        return self.contract.check_inputs(self.estimator.records().assign(record_id="a"))
"""
ANSWER = "steady(self.estimator.predict(features))"
RNG = np.random.default_rng(6)


def sales(start: str, periods: int, freq: str, season: int, name: str = "day") -> pd.DataFrame:
    """Return a series with a season and a little noise, its dates as texts."""
    number = np.arange(periods)
    units = 100 + 40 * np.sin(2 * np.pi * number / season) + RNG.normal(0, 2, periods)
    dates = pd.date_range(start, periods=periods, freq=freq)
    return pd.DataFrame({name: dates.strftime("%Y-%m-%d"), "units": units.round(1)})


def converted(
    place: Path, table: pd.DataFrame, steps: str, train: str, horizon: int = 6, answer: str = ANSWER
) -> ModuleType:
    """Return a module as `d2c convert` writes it for a forecast."""
    name = f"ahead_{abs(hash((place, steps, train, answer))):x}"
    table.to_csv(place / "sales.csv", index=False)
    text = HEAD + steps + CLASS.format(train=train, horizon=horizon, answer=answer, name=name, data=place / "sales.csv")
    (place / f"{name}.py").write_text(text)
    importlib.invalidate_caches()
    return importlib.import_module(name)


def observed(module: ModuleType, disguised: bool = False, spacing: int = 0) -> MeasuredModel:
    trial = EvaluationTrial(module.AheadModel, {}, {}, Tables({}), date(2024, 1, 1), spacing, disguised)
    found = evaluator_of(trial.contract)
    assert isinstance(found, ForecastEvaluator)
    return MeasuredModel(found, found.metrics(trial.case, {})[0], found.observe(trial))


MONTHS = ("def monthly(df):\n    df['day'] = pd.to_datetime(df['day'])\n    return df.set_index('day')['units'].asfreq('MS')\n",
          "df = load_sales(data)\n    series = monthly(df)\n    fit = fit_it(series)")  # fmt: skip
FIT = "def fit_it(series):\n    return Season(series, 12)\n"


def test_a_forecast_is_compared_with_the_periods_that_it_did_not_see(place: Path) -> None:
    table = sales("2019-01-01", 60, "MS", 12)
    found = observed(converted(place, table, MONTHS[0] + FIT, MONTHS[1]))
    units = table["units"].to_numpy()
    for back in (18, 12, 6):
        rows = found.answered_rows[found.answered_rows["cutoff"] == table["day"][60 - back - 1]].reset_index(drop=True)
        assert rows["period"].tolist() == table["day"][60 - back : 66 - back].tolist()
        assert rows["came"].tolist() == units[60 - back : 66 - back].tolist()
        known = units[: 60 - back]
        means = [known[np.arange(len(known)) % 12 == (60 - back + step) % 12].mean() for step in range(6)]
        assert np.allclose(rows["model"], means), "a later period was seen"
        assert np.allclose(rows["baseline.last value"], known[-1])
        assert np.allclose(rows["baseline.same period of last year"], known[-12:-6])
    assert all(pair.better for pair in found.baselines().values()) and len(found.answered_rows) == 18


WEEKS = "def weekly(df):\n    df['day'] = pd.to_datetime(df['day'])\n    return df.set_index('day')['units'].resample('W').sum()\n"
SERIES: dict[str, tuple[pd.DataFrame, str, str, int, str]] = {
    "weeks of days, labelled by their end": (
        sales("2021-01-04", 7 * 80, "D", 84), WEEKS + "def fit_it(s):\n    return Season(s, 12)\n",
        "df = load_sales(data)\n    s = weekly(df)\n    fit = fit_it(s)", 6, "2022-07-17"),
    "a week that is not over is left out": (
        sales("2021-01-04", 7 * 80 + 3, "D", 84), WEEKS + "def whole(s):\n    return s.iloc[:-1]\ndef fit_it(s):\n    return Season(s, 12)\n",
        "df = load_sales(data)\n    s = weekly(df)\n    s = whole(s)\n    fit = fit_it(s)", 6, "2022-07-10"),
    "days with the author's own test set": (
        sales("2023-01-02", 140, "D", 7),
        "def parsed(df):\n    df['day'] = pd.to_datetime(df['day'])\n    return df.set_index('day')['units'].asfreq('D')\n"
        "def fit_it(s):\n    train, test = s[:-14], s[-14:]\n    return Season(train, 7)\n",
        "df = load_sales(data)\n    s = parsed(df)\n    fit = fit_it(s)", 14, "2023-05-07"),
    "logs of months": (
        sales("2019-01-01", 60, "MS", 12), MONTHS[0] + "def fit_it(s):\n    return Season(np.log1p(s), 12)\n",
        "df = load_sales(data)\n    s = monthly(df)\n    fit = fit_it(s)", 6, "2023-12-01"),
    "quarters by periods": (
        sales("2010-01-01", 48, "QS", 4),
        "def quarterly(df):\n    df['day'] = pd.PeriodIndex(df['day'], freq='Q')\n    return df.set_index('day')['units']\n"
        "def fit_it(s):\n    return Season(s, 4)\n",
        "df = load_sales(data)\n    s = quarterly(df)\n    fit = fit_it(s)", 4, "2021-10-01"),
    "an array beside its dates": (
        sales("2023-01-02", 140, "D", 7), "def fit_it(df):\n    return Season(df['units'].values, 7)\n",
        "df = load_sales(data)\n    fit = fit_it(df)", 14, "2023-05-21"),
    "an array without dates": (
        sales("2023-01-02", 140, "D", 7)[["units"]], "def numbers(df):\n    return df['units'].to_numpy()\ndef fit_it(s):\n    return Season(s, 7)\n",
        "df = load_sales(data)\n    s = numbers(df)\n    fit = fit_it(s)", 14, "period 000140"),
    "totals of rows that no step hands out": (
        pd.concat([sales("2019-01-01", 60, "MS", 12)] * 2).sort_values("day"), "def fit_it(df):\n    return Season(df.groupby('day')['units'].sum().values, 12)\n",
        "df = load_sales(data)\n    fit = fit_it(df)", 6, "period 000060"),
}  # fmt: skip


def slow_but(kinds: Iterable[str], *quick: str) -> list[Any]:
    """Return all kinds as parameters, of which all but the quick ones are marked slow."""
    return [kind if kind in quick else pytest.param(kind, marks=pytest.mark.slow) for kind in kinds]


@pytest.mark.parametrize(
    "kind",
    slow_but(SERIES, "weeks of days, labelled by their end", "an array beside its dates", "an array without dates"),
)
def test_every_kind_of_series_is_held_back(kind: str, place: Path) -> None:
    table, steps, train, horizon, last = SERIES[kind]
    found = observed(converted(place, table, steps, train, horizon))
    assert found.observations["period"].dropna().max() == last
    assert len(found.answered_rows) >= 2 * horizon and found.value < 0.1
    assert found.baselines()["last value"].better
    then = {"days": "weekday mean of 8 weeks", "logs": "same period of last year", "quar": "same period of last year"}
    assert then.get(kind[:4], "last value") in found.baselines()


def test_the_report_is_computed_again(place: Path) -> None:
    module = converted(place, sales("2019-01-01", 60, "MS", 12), MONTHS[0] + FIT, MONTHS[1])
    found = observed(module)
    own = next(
        each
        for each in found.evaluator.metrics(
            EvaluationTrial(module.AheadModel, {}, {}, Tables({}), date(2024, 1, 1)).case, {}
        )
        if each.judged_as
    )
    report = module.AheadModel().evaluate(Tables({}), date(2024, 1, 1))
    assert (
        own.name == report.metric
        and own.judged_as == "mae"
        and own.score(found.reported_rows, "model") == pytest.approx(report.value, rel=1e-9)
    )


@pytest.mark.slow
def test_a_longer_forecast_is_compared_on_the_days_of_a_shorter_one(place: Path) -> None:
    table = sales("2019-01-01", 60, "MS", 12)
    long, short = (
        converted(place, table, MONTHS[0] + FIT + "#" * horizon + "\n", MONTHS[1], horizon) for horizon in (12, 6)
    )
    pair = observed(long, spacing=6).compared_with(observed(short), "the shorter")
    assert pair is not None and pair.value == pytest.approx(pair.reference)


@pytest.mark.slow
def test_weeks_and_days_have_no_row_in_common(place: Path) -> None:
    days, weeks = SERIES["days with the author's own test set"], SERIES["weeks of days, labelled by their end"]
    table = sales("2021-01-04", 7 * 80, "D", 84)
    daily = observed(converted(place, table, *days[1:4]))
    weekly = observed(converted(place, table, *weeks[1:4]))
    assert daily.compared_with(weekly, "the other") is None


LIES = {
    "answers are shuffled": (
        MONTHS[0] + FIT, MONTHS[1], "steady(self.estimator.predict(features))[::-1] if len(features) > 1 else 1.0", "for other steps than requested"),
    "the training reads the file by itself": (
        MONTHS[0] + FIT, "fit = Season(pd.read_csv(data, parse_dates=['day']).set_index('day')['units'].asfreq('MS'), 12)", ANSWER,
        "so no period can be held out"),
    "a step beside the others reads the file": (
        MONTHS[0] + "def fit_it(series, data):\n    return Season(monthly(pd.read_csv(data)), 12)\n",
        "df = load_sales(data)\n    series = monthly(df)\n    fit = fit_it(series, data)", ANSWER, r"train\(\) reads its data directly"),
    "a step uses later periods": (
        MONTHS[0] + "def scaled(s):\n    return s / s.iloc[-1]\n" + FIT,
        "df = load_sales(data)\n    series = monthly(df)\n    series = scaled(series)\n    fit = fit_it(series)", ANSWER,
        "uses later periods"),
    "it cannot be trained on less": (
        MONTHS[0] + "def fit_it(series):\n    assert len(series) == 60\n    return Season(series, 12)\n", MONTHS[1], ANSWER,
        "cannot be trained without the last 6 of its 60 periods"),
}  # fmt: skip


@pytest.mark.parametrize(
    "lie",
    slow_but(LIES, "answers are shuffled", "a step beside the others reads the file", "a step uses later periods"),
)
def test_what_cannot_be_measured_is_named(lie: str, place: Path) -> None:
    steps, train, answer, words = LIES[lie]
    module = converted(place, sales("2019-01-01", 60, "MS", 12), steps, train, answer=answer)
    with pytest.raises(DataRefused, match=words):
        observed(module)


@pytest.mark.parametrize(
    "kind",
    slow_but(["weeks of days, labelled by their end", "logs of months", "an array without dates"], "logs of months"),
)
def test_in_another_world_a_forecast_is_as_good_and_what_was_read_elsewhere_is_not(kind: str, place: Path) -> None:
    table, steps, train, horizon, _ = SERIES[kind]
    plain = observed(converted(place, table, steps, train, horizon), disguised=True)
    assert all(pair.better for pair in plain.baselines().values())
    read = "np.resize(CAME, len(features))"
    came = f"\nCAME = fit_of({str(place / 'sales.csv')!r})[-{horizon}:]\n"
    known = f"\ndef fit_of(data):\n    {train}\n    return fit.values\n"
    knowing = converted(place, table, steps + known + came, train, horizon, answer=read)
    here, there = observed(knowing), observed(knowing, disguised=True)
    assert here.value < there.value and not all(pair.better for pair in there.baselines().values())


def test_a_few_periods_are_too_few(place: Path) -> None:
    module = converted(place, sales("2023-01-01", 3, "MS", 12), MONTHS[0] + FIT.replace("12", "2"), MONTHS[1])
    with pytest.raises(DataRefused, match="3 periods, too few"):
        observed(module)
    module = converted(place, sales("2023-01-01", 7, "MS", 12), MONTHS[0] + FIT.replace("12", "3"), MONTHS[1])
    with pytest.raises(DataRefused, match="too few to hold out the last 6"):
        observed(module)


NOTEBOOK = (
    "import numpy as np\nimport pandas as pd\nfrom statsmodels.tsa.holtwinters import ExponentialSmoothing",
    "df = pd.read_csv('sales.csv', parse_dates=['day'])\nseries = df.set_index('day')['units'].asfreq('MS')",
    "fit = ExponentialSmoothing(series, seasonal='add', seasonal_periods=12).fit()",
    "fit.forecast(6)",
)
CHARTER = """
[model:{name}]
charter.owner = Head of Operations
charter.decision = what is ordered
charter.users = the buyers, weekly
charter.baseline = last value
charter.break_even = 12
charter.right_value = 10
charter.wrong_cost = 1
charter.currency = EUR
charter.budget = 100
charter.kill = worse than the last value for two months
charter.review = 2027-06-01
"""
EDITS = {
    "": ("", "", ""),
    "a written report": ("table.error, baselines", "0.01, baselines", "evaluate() reports mean_absolute_error_in_sample 0.0100"),
    "shuffled answers": ("steady(self.estimator.predict(features))", "steady(self.estimator.predict(features))[::-1]", "for other steps than requested"),
    "outcomes from elsewhere": (
        "steady(self.estimator.predict(features))",
        "pd.to_datetime(self.estimator.dates(features)).map(load_sales(data_folder=self.data).set_index('day')['units']).fillna(1.0).astype(float)",
        "from other places than the tables",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A notebook of Holt-Winters, converted: its module and the project's folder."""
    root = tmp_path_factory.mktemp("aheadshop")
    (root / "settings.ini").write_text("[d2c]\nstore = d2c_store\n")
    (root / "old").mkdir()
    sales("2017-01-01", 84, "MS", 12).to_csv(root / "old" / "sales.csv", index=False)
    cells = [{"cell_type": "code", "id": f"c{i}", "metadata": {}, "source": s, "outputs": [], "execution_count": None}
             for i, s in enumerate(NOTEBOOK)]  # fmt: skip
    (root / "old" / "ahead.ipynb").write_text(
        json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})
    )
    done = convert(
        root / "old" / "ahead.ipynb", settings=load_settings(root, environ={}), stages=("read", "write"), timeout=200
    )
    assert done.written is not None and done.written.model, done.refusal
    with (root / "settings.ini").open("a") as file:
        file.writelines(CHARTER.format(name=name) for name in ["ahead", *(_name(edit) for edit in EDITS)])
    sys.path.insert(0, str(root))
    yield done.written.module, root
    sys.path.remove(str(root))


def _name(edit: str) -> str:
    return "ahead_" + edit.replace(" ", "_") if edit else "ahead_plain"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("edit", EDITS)
def test_a_converted_forecast_is_promoted_without_override_and_an_edited_one_is_not(
    notebook: tuple[str, Path], edit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, root = notebook
    monkeypatch.chdir(root)
    before, after, words = EDITS[edit]
    name = _name(edit)
    importlib.invalidate_caches()
    text = Path(importlib.import_module(module).__file__ or "").read_text()
    assert before in text
    (root / f"{name}.py").write_text(text.replace(before, after).replace('name="ahead"', f'name="{name}"'))
    importlib.invalidate_caches()
    found = load_settings(root, environ={"D2C_PACKAGES": name})
    model = new_model(name, found, {}).fit(Tables({}), date(2024, 1, 1))
    register(name, model, model.evaluate(Tables({}), date(2024, 1, 1)), settings=found, as_of=date(2024, 1, 1))
    if not words:
        done, clauses = promote(name, found)
        assert done is not None and done.action == "promote"
        assert "measured at 3 past cutoffs on 18 predictions" in next(str(c) for c in clauses if c.name == "evaluation")
        return
    with pytest.raises(GateRefused) as refused:
        promote(name, found)
    assert any(failure.where == "evaluation" and words in failure.what for failure in refused.value.failures), (
        refused.value
    )
