"""The gate measures by itself, compares like with like, and says whose charter it rests on."""

import dataclasses
import json
import re
import sys
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sqlalchemy import update

from d2c_mlops.cli import main
from d2c_mlops.data.store import write_dataset
from d2c_mlops.data.tables import Tables, validate
from d2c_mlops.errors import GateRefused
from d2c_mlops.ledger.schema import versions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.contract import Contract, contract_from_dict, contract_to_dict
from d2c_mlops.models.core.contract_changes import broken_clauses
from d2c_mlops.models.core.model import Evaluation, Model, class_path
from d2c_mlops.models.forecasting.demand_contract import demand_contract
from d2c_mlops.registry.clean_process import invalid_intervals
from d2c_mlops.registry.compared_metrics import FigurePair, MeasuredModel
from d2c_mlops.registry.evaluators import EvaluationTrial, Metric, evaluator_of
from d2c_mlops.registry.evaluators.leads import LeadEvaluator
from d2c_mlops.registry.gate import Clause, judge_clauses
from d2c_mlops.registry.promotion_history import champion_at_time, live_version, promotions_until
from d2c_mlops.registry.promotions import judge_and_promote as promote
from d2c_mlops.registry.promotions import revert_promotion as rollback
from d2c_mlops.registry.versions import Version, find_version, new_model, register
from d2c_mlops.settings import Settings, load_settings

LIARS = '''
import dataclasses
import pandas as pd
from d2c_mlops.models.forecasting.forecasting import DemandForecaster, demand_contract
from d2c_mlops.models.core.model import Evaluation


class Liar(DemandForecaster):
    """Sorts its answers and writes its own report."""

    contract = dataclasses.replace(demand_contract(), name="liar")

    def predict(self, records):
        return super().predict(records).sort_values("forecast", ignore_index=True)

    def evaluate(self, tables, as_of):
        return Evaluation("wape", 0.01, {"weekday_mean_8w": 0.5, "seasonal_naive": 0.6}, True)


class Boaster(DemandForecaster):
    """Forecasts well and writes its own report."""

    contract = dataclasses.replace(demand_contract(), name="boaster")

    def evaluate(self, tables, as_of):
        return Evaluation("wape", 0.01, {"weekday_mean_8w": 0.5, "seasonal_naive": 0.6}, True)


class Flat(DemandForecaster):
    """Forecasts the mean of the last weeks, which no season moves, and reports it as good."""

    contract = dataclasses.replace(demand_contract(), name="flat")

    def fit(self, tables, as_of):
        super().fit(tables, as_of)
        self.learned.answers[:] = self.learned.answers.mean(axis=0, keepdims=True)
        return self


class Thousands(DemandForecaster):
    """Answers in thousandths of a unit."""

    contract = dataclasses.replace(demand_contract(), name="thousands")

    def predict(self, records):
        answers = super().predict(records)
        numbers = answers.select_dtypes("number").columns
        return answers.assign(**{name: answers[name] * 1000 for name in numbers})


class Turned(DemandForecaster):
    """Turns its intervals round."""

    contract = dataclasses.replace(demand_contract(), name="turned")

    def predict(self, records):
        answers = super().predict(records)
        return answers.assign(lower_80=answers["upper_80"] + 1)

    def predict_records(self, records):
        return None

    def answer_records(self, records):
        return None


class Reader(DemandForecaster):
    """Knows what came from a fit that saw it, which it keeps for the whole process."""

    contract = dataclasses.replace(demand_contract(), name="reader")

    def predict(self, records):
        answers = super().predict(records)
        came = [KNOWN.get((str(s), str(pd.Timestamp(d).date()))) for s, d in zip(records["series"], records["date"])]
        return answers.assign(forecast=[f if c is None else float(c) for f, c in zip(answers["forecast"], came)])


KNOWN = {}


class Unknown(DemandForecaster):
    """A kind of model that nobody measures."""

    contract = dataclasses.replace(demand_contract(), name="unknown", frequency="", horizon=0)

    def __init__(self):
        super().__init__()
        self.contract = type(self).contract
'''


@pytest.fixture
def liars(settings: Settings, project: Path) -> Settings:
    """A project with models that report what they like."""
    sys.modules.pop("liars", None)
    (project / "liars.py").write_text(LIARS)
    (project / "settings.ini").write_text("[d2c]\npackages = liars\nlock_wait = 2\n")
    return load_settings(project, environ={})


@cache
def example(cls: type[Model]) -> tuple[Tables, date]:
    """Return the example of a class, made once."""
    return cls.example()


FITTED: dict[tuple[str, str, str, date], tuple[Model, Evaluation]] = {}


def fitted(model: Model, tables: Tables, digest: str, as_of: date) -> tuple[Model, Evaluation]:
    """Return a model fitted and evaluated on tables, once for all tests that want the same."""
    of = (class_path(type(model)), json.dumps(model.params() | model.charter.to_dict(), default=str), digest, as_of)
    if of not in FITTED:
        found = model.evaluate(tables, as_of)
        FITTED[of] = (model.fit(tables, as_of), found)
    return FITTED[of]


def shop_of(settings: Settings, tables: Tables, name: str = "shop") -> str:
    """Keep tables as a dataset of the project; return its digest."""
    kept, _ = write_dataset(
        settings.store,
        name,
        dict(tables),
        source="simulated",
        layout="canonical",
        created_at=datetime.now(UTC),
        zone=tables.zone,
    )
    return kept.digest


def train(
    settings: Settings, name: str = "demand", tables: Tables | None = None, as_of: date | None = None,
    data: str = "shop", evaluation: Evaluation | None = None, **params: object,
) -> Version:  # fmt: skip
    """Register a model fitted on the example's shop, or on other tables."""
    model = new_model(name, settings, params)
    own, day = example(type(model))
    tables, as_of = tables or own, as_of or day
    inputs = [{"name": data, "digest": shop_of(settings, tables, data)}]
    model, found = fitted(model, tables, inputs[0]["digest"], as_of)
    return register(name, model, evaluation or found, settings=settings, as_of=as_of, inputs=inputs)


def clauses(version: Version, current: Version | None, settings: Settings) -> dict[str, Clause]:
    """Return the broken clause of each name, else one that holds."""
    found: dict[str, Clause] = {}
    for clause in judge_clauses(version, current, settings):
        if clause.name not in found or not clause.holds:
            found[clause.name] = clause
    return found


# --- the gate measures


@pytest.mark.slow
def test_a_class_that_sorts_its_answers_and_writes_its_report_is_refused(liars: Settings, clean_process: None) -> None:
    train(liars, "liar")
    with pytest.raises(GateRefused) as caught:
        promote("liar", liars)
    broken = {failure.where: failure.what for failure in caught.value.failures}
    assert "in the same order" in broken["check_model"] and "whatever came" in broken["check_model"]
    assert "evaluate() reports wape 0.0100" in broken["evaluation"]
    assert "worse" in broken["baseline"]
    assert champion_at_time(Ledger.of(liars), "liar") is None


def test_a_good_forecast_with_a_report_of_its_own_is_refused_for_the_report(liars: Settings) -> None:
    version = train(liars, "boaster")
    found = clauses(version, None, liars)
    assert not found["evaluation"].holds and not found["check_model"].holds
    assert found["baseline"].holds  # judged by what it forecasts, not by what it says


@pytest.mark.slow
def test_answers_in_another_unit_lose_to_every_baseline(liars: Settings) -> None:
    found = clauses(train(liars, "thousands"), None, liars)
    assert not found["baseline"].holds and "worse" in found["baseline"].finding


@pytest.mark.slow
def test_intervals_that_are_turned_round_are_refused(liars: Settings) -> None:
    found = clauses(train(liars, "turned"), None, liars)["check_model"]
    assert not found.holds and "lower_80 is above upper_80" in found.finding


@pytest.mark.slow
def test_a_model_that_knows_what_came_from_elsewhere_is_refused(liars: Settings) -> None:
    cls = type(new_model("reader", liars, {}))
    tables, _ = example(cls)
    lines = tables.sql(
        "select category as series, cast(ordered_at as date)::varchar as date, sum(quantity - returned_quantity)::double as units "
        "from order_lines join products using (product_id) where not cancelled group by all"
    )
    sys.modules[cls.__module__].KNOWN.update({(row.series, row.date[:10]): row.units for row in lines.itertuples()})
    found = clauses(train(liars, "reader"), None, liars)["evaluation"]
    assert not found.holds and "three times the sales" in found.finding
    honest = clauses(train(liars), None, liars)["evaluation"]
    assert honest.holds, honest.finding


@pytest.mark.parametrize("low, high, words", [(2.0, 1.0, "turned|above"), (1.5, 2.0, "lies outside")])
def test_an_interval_that_misses_its_forecast_is_found(low: float, high: float, words: str) -> None:
    good = pd.DataFrame({"forecast": [1.0, 1.0], "lower_80": [0.0, 1.0], "upper_80": [2.0, 1.0]})
    assert list(invalid_intervals(good)) == []
    bad = pd.DataFrame({"forecast": [1.0, 1.0], "lower_80": [0.0, low], "upper_80": [2.0, high]})
    (text,) = invalid_intervals(bad)
    assert re.search(words, text) and "1 of 2 predictions" in text and "row 1" in text


def test_figures_that_nobody_can_recompute_want_an_override(liars: Settings) -> None:
    train(liars, "unknown")
    with pytest.raises(GateRefused, match=r"evaluate\(\) and could not be recomputed.*Evaluator"):
        promote("unknown", liars)
    made, found = promote("unknown", liars, override=True, by="Jo", reason="read by hand")
    assert made.action == "override" and any("as reported by evaluate()" in clause.finding for clause in found)


def test_the_measured_figure_is_what_a_forecast_at_the_cutoffs_gives(settings: Settings) -> None:
    version = train(settings)
    model = new_model("demand", settings, {})
    tables, as_of = example(type(model))
    seen = evaluator_of(version.schema).observe(EvaluationTrial(type(model), version.params, {}, tables, as_of))
    cutoff = as_of - timedelta(days=28)
    early = new_model("demand", settings, {}).fit(tables.before(cutoff), cutoff)
    asked = early.records(tables.before(cutoff), cutoff)
    expected = early.predict(asked).set_index(["series", "date"])["forecast"]
    lines = tables.before(as_of).sql(
        "select category as series, cast(ordered_at as date) as date, sum(quantity - returned_quantity)::double as units "
        "from order_lines join products using (product_id) where not cancelled group by all"
    )
    came = lines.set_index(["series", "date"])["units"]
    last = seen[seen["cutoff"] == cutoff.isoformat()]
    assert len(last) == 4 * 28
    for row in last.sample(20, random_state=0).itertuples():
        place = (row.series, pd.Timestamp(cutoff + timedelta(days=row.step)))
        assert row.model == pytest.approx(expected[place]) and row.came == came.get(place, 0.0)


def test_no_cutoff_sees_what_came_after_it(settings: Settings) -> None:
    model = new_model("demand", settings, {})
    tables, as_of = example(type(model))
    lines = tables["order_lines"].copy()
    late = lines["ordered_at"] >= pd.Timestamp(as_of - timedelta(days=27), tz="UTC")
    lines.loc[late, "quantity"] *= 1000
    other = Tables({**dict(tables), "order_lines": lines})
    evaluator = evaluator_of(model.contract)
    columns = ["cutoff", "step", "series", "model", "baseline.weekday_mean_8w"]
    honest, tempted = (
        evaluator.observe(EvaluationTrial(type(model), model.params(), {}, each, as_of))[columns]
        for each in (tables, other)
    )
    assert honest["model"].notna().all()
    pd.testing.assert_frame_equal(honest, tempted)


def test_a_model_is_handed_no_row_after_its_cutoff(settings: Settings) -> None:
    base, seen = type(new_model("demand", settings, {})), []

    class Spy(base):
        def fit(self, tables: Tables, as_of: date) -> "Spy":
            seen.append((as_of, tables["order_lines"]["ordered_at"].max()))
            return super().fit(tables, as_of)

    tables, as_of = example(base)
    evaluator_of(base.contract).observe(EvaluationTrial(Spy, base().params(), {}, tables, as_of))
    assert len(seen) == 3
    assert all(last < pd.Timestamp(cutoff + timedelta(days=1), tz="UTC") for cutoff, last in seen)


@pytest.mark.slow
def seasonal(days: int = 500, start: date = date(2022, 1, 1)) -> tuple[Tables, date]:
    """Return a shop whose sales of a week are those of the same week of last year, and differ from week to week."""
    rng = np.random.default_rng(0)
    weeks = rng.integers(2, 60, 52)
    moments = [datetime.combine(start, datetime.min.time(), UTC) + timedelta(days=d, hours=12) for d in range(days)]
    units = np.array([weeks[(d // 7) % 52] for d in range(days)])
    names = [f"L{d}" for d in range(days)]
    lines = pd.DataFrame({
        "order_id": names, "line_no": "1", "customer_id": "C1", "product_id": "P1", "ordered_at": moments,
        "quantity": units, "unit_price": 10.0, "list_price": 10.0, "discount": 0.0, "net_value": 10.0 * units,
        "currency": "EUR", "channel": "web", "returned_quantity": 0, "cancelled": False,
    })  # fmt: skip
    return Tables({"order_lines": validate("order_lines", lines)}), start + timedelta(days=days - 1)


def test_a_model_that_loses_to_last_years_week_is_refused(settings: Settings) -> None:
    tables, as_of = seasonal()
    version = train(settings, tables=tables, as_of=as_of, by="product_id", horizon=14)
    found = clauses(version, None, settings)["baseline"]
    assert not found.holds and "0.0000 of the last_year" in found.finding and "strongest" in found.finding


def test_without_a_year_there_is_no_last_year_to_beat(settings: Settings) -> None:
    tables, as_of = seasonal(days=300)
    version = train(settings, tables=tables, as_of=as_of, by="product_id", horizon=14)
    assert "last_year" not in clauses(version, None, settings)["baseline"].finding


# --- like with like


def test_a_weekly_version_does_not_replace_a_daily_one(settings: Settings) -> None:
    train(settings)
    promote("demand", settings)
    train(settings, freq="W")
    with pytest.raises(GateRefused) as caught:
        promote("demand", settings)
    broken = {failure.where: failure.what for failure in caught.value.failures}
    assert "for days and are for weeks" in broken["contract"] and "2.0.0" in broken["contract"]
    assert "not compared" in broken["champion"] and "new major version" in broken["champion"]
    assert live_version(Ledger.of(settings), "demand").version == 1


@pytest.mark.slow
def test_a_shorter_horizon_is_refused_and_a_longer_one_is_compared_on_the_same_rows(settings: Settings) -> None:
    first = train(settings)
    shorter, longer = train(settings, horizon=14), train(settings, horizon=42)
    found = clauses(shorter, first, settings)
    assert not found["contract"].holds and "28 days and is 14 days" in found["contract"].finding
    assert "on the same rows" in found["champion"].finding
    found = clauses(longer, first, settings)
    assert found["contract"].holds and "on the same rows" in found["champion"].finding


def test_a_new_major_version_may_have_another_frequency(settings: Settings) -> None:
    first = train(settings)
    weekly = train(settings, freq="W", contract_version="2.0.0")
    found = clauses(weekly, first, settings)
    assert all(clause.holds for clause in found.values()) and "not compared" in found["champion"].finding


def test_other_words_of_a_field_ask_for_no_new_number_and_another_limit_does() -> None:
    contract = demand_contract()
    described = contract_to_dict(contract)

    def changed(**terms: object) -> Contract:
        other = json.loads(json.dumps(described))
        next(field for field in other["outputs"] if field["name"] == "forecast").update(terms)
        return contract_from_dict(other)

    assert broken_clauses(contract, changed(description="Units that are expected")) == []
    (broken,) = broken_clauses(changed(le=10.0), changed(le=5.0, description="Units that are expected"))
    assert "1.1.0" in broken.what and "description" not in broken.what


@pytest.mark.slow
def test_other_series_are_another_population(settings: Settings) -> None:
    first = train(settings)
    by_product, fewer = train(settings, by="product_id"), train(settings, top=2)
    assert (
        "series by product_id instead of series by category"
        in clauses(by_product, first, settings)["population"].finding
    )
    lost = clauses(fewer, first, settings)["population"]
    assert not lost.holds and "2 that the champion answers are missing" in lost.finding


@pytest.mark.slow
def test_days_of_another_time_zone_are_not_those_of_the_champion(settings: Settings) -> None:
    tables, _ = example(type(new_model("demand", settings, {})))
    first, other = train(settings), train(settings, tables=Tables(dict(tables), "Asia/Tokyo"))
    found = clauses(other, first, settings)["population"]
    assert not found.holds and "Asia/Tokyo, the champion's in UTC" in found.finding
    again = clauses(first, first, settings)["population"]
    assert again.holds, again.finding


def test_another_dataset_is_not_compared_silently(settings: Settings) -> None:
    first, other = train(settings), train(settings, data="outlet")
    found = clauses(other, first, settings)["population"]
    assert not found.holds and "'outlet'" in found.finding and "'shop'" in found.finding


def test_a_version_registered_without_frequency_and_horizon_has_them_from_its_parameters(settings: Settings) -> None:
    first = train(settings)
    bare = {name: value for name, value in first.contract.items() if name not in ("frequency", "horizon")}
    ledger = Ledger.of(settings)
    with ledger.write() as connection:
        old = {name: value for name, value in first.params.items() if name != "contract_version"}
        connection.execute(update(versions).values(contract=bare, params=old))
    old = find_version(ledger, "demand", 1)
    assert (old.schema.frequency, old.schema.horizon) == ("D", 28)
    made, _ = promote("demand", settings)
    assert made.version == 1
    weekly = train(settings, freq="W")
    assert not clauses(weekly, old, settings)["contract"].holds
    shown = CliRunner().invoke(main, ["contract", "diff", "demand", "--version", str(weekly.version), "--json"])
    assert shown.exit_code == 4 and "for days and are for weeks" in shown.output


@pytest.mark.slow
def test_after_a_mistaken_promotion_the_daily_version_returns(settings: Settings) -> None:
    train(settings)
    promote("demand", settings)
    train(settings, freq="W")
    promote("demand", settings, override=True, by="Jo", reason="by mistake")
    again = train(settings, history=700)
    with pytest.raises(GateRefused, match=r"`d2c rollback demand --to 1` first"):
        promote("demand", settings, number=again.version)
    back = rollback("demand", settings)
    assert (back.version, back.previous) == (1, 2) and live_version(
        Ledger.of(settings), "demand"
    ).schema.frequency == "D"
    found = clauses(again, live_version(Ledger.of(settings), "demand"), settings)
    assert found["contract"].holds and "on the same rows" in found["champion"].finding


# --- the same again


def test_the_same_version_again_is_no_change(settings: Settings) -> None:
    train(settings)
    promote("demand", settings)
    train(settings)
    shown = CliRunner().invoke(main, ["promote", "demand"])
    assert shown.exit_code == 0 and "no change" in shown.output and "same data" in shown.output
    assert len(promotions_until(Ledger.of(settings), "demand")) == 1
    assert json.loads(CliRunner().invoke(main, ["promote", "demand", "--json"]).output)["promotion"] is None


def test_the_same_rows_in_another_order_are_no_change(settings: Settings) -> None:
    train(settings)
    promote("demand", settings)
    tables, _ = example(type(new_model("demand", settings, {})))
    order = np.random.default_rng(1).permutation(len(tables["order_lines"]))
    lines = tables["order_lines"].iloc[order].reset_index(drop=True)
    train(settings, tables=Tables({**dict(tables), "order_lines": lines}, tables.zone))
    made, found = promote("demand", settings)
    assert made is None and [clause.name for clause in found] == ["no change"]


@pytest.mark.parametrize(
    "what", ["params", pytest.param("data", marks=pytest.mark.slow), pytest.param("as_of", marks=pytest.mark.slow)]
)
def test_what_differs_is_judged_again(settings: Settings, what: str) -> None:
    train(settings)
    promote("demand", settings)
    tables, as_of = example(type(new_model("demand", settings, {})))
    if what == "data":
        lines = tables["order_lines"]
        tables = Tables({**dict(tables), "order_lines": lines.assign(quantity=lines["quantity"] + 1)})
    day = as_of - timedelta(days=7) if what == "as_of" else as_of
    second = train(settings, tables=tables, as_of=day, **({"history": 100} if what == "params" else {}))
    try:
        made, found = promote("demand", settings)
    except GateRefused as err:
        assert err.failures  # judged, and refused by a clause
    else:
        assert made.version == second.version and len(found) > 1


# --- figures in their units


@pytest.mark.parametrize(
    "value, other, unit, text",
    [
        (0.824, 0.0, "EUR a lead", "0.8240 EUR a lead better"),
        (1.5, -0.5, "EUR a lead", "2.0000 EUR a lead better"),
        (1.0, 2.0, "EUR", "1.0000 EUR worse"),
        (0.3, 0.0, "", "0.3000 better"),
        (0.75, 0.5, "", "50.0% better"),
    ],
)
def test_money_zero_and_less_are_compared_in_their_units(value: float, other: float, unit: str, text: str) -> None:
    said = str(FigurePair(Metric("profit", lambda seen, column: 0.0, False, unit), value, other, "call_everyone"))
    assert said.endswith(text) and ("%" in said) == ("%" in text)


@pytest.mark.slow
def test_leads_are_judged_in_money_only_where_the_shop_named_it(settings: Settings, project: Path) -> None:
    version = train(settings, "lead_scoring", data="leads")
    found = clauses(version, None, settings)
    assert "auc" in found["evaluation"].finding and "money" in found["evaluation"].finding
    with (project / "settings.ini").open("a") as file:
        file.write("[model:lead_scoring]\ncharter.right_value = 45\ncharter.wrong_cost = 5\ncharter.currency = EUR\n")
    answered = load_settings(project, environ={})
    found = clauses(version, None, answered)["baseline"]
    assert found.holds and "EUR a lead better" in found.finding and "%" not in found.finding


@pytest.mark.slow
def test_segments_are_measured_against_simple_rules(settings: Settings) -> None:
    version = train(settings, "segmentation", data="customers")
    found = clauses(version, None, settings)
    assert found["baseline"].holds and "wape_90d" in found["baseline"].finding
    assert all(name in found["baseline"].finding for name in ("carry_forward_90d", "rfm_mean_90d", "one_segment"))


def test_a_lead_without_a_score_counts_as_any_other() -> None:
    seen = pd.DataFrame({"came": [1.0, 0.0, 1.0, 0.0], "model": [0.9, 0.1, 0.8, 0.2], "baseline.prior_rate": 0.5})
    measured = MeasuredModel(LeadEvaluator(), Metric("auc", lambda s, c: float(s[c].iloc[0])), seen)
    assert measured.value == 0.9 and measured.baselines()["prior_rate"].reference == 0.5


# --- whose charter


def test_a_promotion_says_whose_charter_it_rests_on_and_how_to_answer(settings: Settings) -> None:
    version = train(settings)
    found = clauses(version, None, settings)
    assert (
        "charter of the shipped example d2c_mlops.models.forecasting.forecasting, not answered for this shop"
        in found["charter"].finding
    )
    assert "[model:demand] charter.owner = …" in found["charter"].finding
    assert found["break-even"].holds and "not checked" in found["break-even"].finding


def test_a_refusal_says_whose_charter_it_rests_on(settings: Settings) -> None:
    train(settings)
    promote("demand", settings)
    train(settings, freq="W")
    with pytest.raises(
        GateRefused, match=r"shipped example d2c_mlops\.models\.forecasting\.forecasting, not answered for this shop"
    ):
        promote("demand", settings)


def test_the_shops_own_break_even_is_judged(settings: Settings, project: Path) -> None:
    with (project / "settings.ini").open("a") as file:
        file.write("[model:demand]\ncharter.break_even = 0.2\n")
    held = load_settings(project, environ={})
    found = clauses(train(held), None, held)
    assert not found["break-even"].holds and "0.2000 of the break-even" in found["break-even"].finding
    assert "break_even" not in found["charter"].finding


# --- check_model on record and as a command


def test_check_model_is_a_command_and_its_result_lies_with_the_version(settings: Settings, liars: Settings) -> None:
    version = train(liars, "liar")
    shown = CliRunner().invoke(main, ["check-model", "liar", "--json"])
    assert shown.exit_code == 4 and "in the same order" in shown.output
    with pytest.raises(GateRefused):
        promote("liar", liars)
    kept = json.loads((Path(version.artifact_uri.removeprefix("file://")).parent / "gate.json").read_text())
    assert [c["holds"] for c in kept["clauses"] if c["name"] == "check_model"] == [False]


def test_check_model_of_a_good_version_lists_its_rules(settings: Settings) -> None:
    train(settings)
    shown = CliRunner().invoke(main, ["check-model", "demand", "--version", "1", "--json"])
    assert shown.exit_code == 0 and json.loads(shown.output)["failures"] == []
    assert len(json.loads(shown.output)["rules"]) >= 9


def test_parameters_of_settings_reach_the_model(settings: Settings, project: Path) -> None:
    with (project / "settings.ini").open("a") as file:
        file.write("[model:demand]\nparams.freq = W\nparams.horizon = 6\n")
    model = new_model("demand", load_settings(project, environ={}), {"horizon": 5})
    assert (model.freq, model.horizon, model.contract.frequency) == ("W", 5, "W")
    assert dataclasses.replace(model.contract).horizon == 5
