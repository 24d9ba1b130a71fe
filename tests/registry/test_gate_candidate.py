"""After a change that an alert dates, a version has to beat the champion as it stands, on the days after the change."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import insert

from d2c_mlops.data.store import write_dataset
from d2c_mlops.data.tables import Tables
from d2c_mlops.data.validation import validate
from d2c_mlops.errors import DataRefused
from d2c_mlops.ledger.schema import alerts
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.contract import contract_to_dict
from d2c_mlops.models.core.model import Evaluation, class_path
from d2c_mlops.models.forecasting.forecasting import DemandForecaster
from d2c_mlops.operations.replay.history import ReplayedCandidate
from d2c_mlops.registry.evaluators import ACTUAL, CHAMPION, MODEL, EvaluationTrial
from d2c_mlops.registry.evaluators.demand import DemandEvaluator
from d2c_mlops.registry.evidence import Evidence
from d2c_mlops.registry.gate import better_than_the_baseline, judge_clauses, not_worse_than_the_champion
from d2c_mlops.registry.gate_candidate import CHANGE, OURS, change_on_record, latest_change
from d2c_mlops.registry.versions import Version, register
from d2c_mlops.settings import Settings

START, BREAK = date(2024, 1, 1), date(2024, 6, 3)
DAYS = 174  # until 22 June, 20 days after the break


@pytest.fixture(scope="module")
def tables() -> Tables:
    """Daily sales of two products, which fall by two thirds on the day of the break."""
    rng, dates = np.random.default_rng(7), pd.date_range(START, periods=DAYS)
    level = np.where(dates < pd.Timestamp(BREAK), 1.0, 1 / 3)
    parts = [
        pd.DataFrame({"keys": f'{{"product_id":"{name}"}}', "date": dates, "last_day": dates, "frequency": "D", "units": rng.poisson(mean * level).astype(float)})
        for name, mean in (("tea", 90.0), ("cup", 60.0))
    ]  # fmt: skip
    return Tables({"sales_totals": validate("sales_totals", pd.concat(parts, ignore_index=True))})


def forecaster() -> DemandForecaster:
    return DemandForecaster(by="product_id", horizon=28, sums=False)


def version(number: int, as_of: date) -> Version:
    model = forecaster()
    return Version(
        "demand", number, datetime(2024, 6, 20, tzinfo=UTC), None, class_path(type(model)), model.params(), contract_to_dict(model.contract),
        model.charter.to_dict(), Evaluation("wape", 0.2, {}, True).to_dict(), [], as_of.isoformat(), "1", "", str(number),
    )  # fmt: skip


def candidate(
    settings: Settings, evidence: Evidence, champion_day: date, past: pd.DataFrame | None = None
) -> ReplayedCandidate:
    measured = {CHANGE: evidence} | ({OURS: Evidence({}, past)} if past is not None else {})
    return ReplayedCandidate(version(2, BREAK + timedelta(days=9)), version(1, champion_day), settings, BREAK, measured)


def record_alert(settings: Settings, signals: list[dict[str, Any]]) -> None:
    at = datetime(2024, 6, 5, tzinfo=UTC)
    values = {"id": "a1", "key": "drift:sales", "status": "closed", "severity": "warning", "announced": "", "models": ["demand"], "signals": signals,
              "opened_at": at, "updated_at": at, "acknowledged_by": "", "reopenings": 0}  # fmt: skip
    with Ledger.of(settings).write() as connection:
        connection.execute(insert(alerts), [values])


def predictions(model: list[float], champion: list[float]) -> Evidence:
    frame = pd.DataFrame({"day": pd.date_range(BREAK, periods=3), ACTUAL: [30.0, 33.0, 27.0]})
    return Evidence({}, frame.assign(**{MODEL: model, CHAMPION: champion}))


def test_a_version_beats_the_champion_as_it_stands_or_is_refused(settings: Settings) -> None:
    before = BREAK - timedelta(days=5)
    better = candidate(settings, predictions([50.0, 50.0, 26.0], [90.0, 90.0, 27.0]), before)
    (clause,) = not_worse_than_the_champion(better)
    assert clause.holds
    assert "champion (version 1) as it stands" in clause.finding
    assert "on 3 periods after the change of 2024-06-03, better on 2 of them" in clause.finding
    worse = candidate(settings, predictions([95.0, 90.0, 27.0], [90.0, 90.0, 27.0]), before)
    (clause,) = not_worse_than_the_champion(worse)
    assert not clause.holds and "worse" in clause.finding
    nothing = candidate(settings, predictions([50.0, 50.0, 26.0], [np.nan] * 3), before)
    (clause,) = not_worse_than_the_champion(nothing)
    assert clause.holds and "has no predictions for the days after the change" in clause.finding


def test_the_baseline_is_compared_on_the_days_after_a_change_that_the_champion_does_not_know(
    settings: Settings,
) -> None:
    after = predictions([50.0, 50.0, 26.0], [90.0, 90.0, 27.0])
    assert after.frame is not None
    past = pd.DataFrame(
        {"cutoff": "2024-05-01", "step": [1, 2], ACTUAL: 90.0, MODEL: [80.0, 88.0], "baseline.weekday_mean_8w": 90.0}
    )
    frame = after.frame.assign(**{"baseline.weekday_mean_8w": [80.0, 70.0, 40.0]})
    for day, holds in ((BREAK - timedelta(days=5), True), (BREAK + timedelta(days=2), False)):
        found = candidate(settings, Evidence({}, frame), day, past)
        clause = next(better_than_the_baseline(found))
        assert clause.holds == holds == ("on the days after the change of 2024-06-03" in clause.finding)


def test_too_few_days_after_a_change_are_no_evidence_for_a_version(settings: Settings) -> None:
    few = Evidence({"error": "2 of the periods lie after the change"})
    (clause,) = not_worse_than_the_champion(candidate(settings, few, BREAK - timedelta(days=1)))
    assert not clause.holds and "2 of the periods lie after the change" in clause.finding


def test_the_latest_change_counts_that_the_windows_reach_back_to(settings: Settings) -> None:
    last = date(2024, 6, 30)
    days = [date(2024, 3, 1), date(2024, 6, 3), date(2024, 5, 20), date(2024, 7, 1)]
    assert latest_change(days, last, 84) == date(2024, 6, 3)
    assert latest_change(days[:1], last, 84) is None
    signals = [
        {"model": "demand", "metric": "drift", "since": BREAK.isoformat()},
        {"model": "other", "metric": "drift", "since": "2024-06-07"},
        {"model": "demand", "metric": "latency", "since": "2024-06-09"},
        {"model": "demand", "metric": "accuracy", "since": None},
    ]
    present, live = version(2, BREAK + timedelta(days=9)), version(1, BREAK - timedelta(days=1))
    assert change_on_record(present, live, settings) is None
    record_alert(settings, signals)
    assert change_on_record(present, live, settings) == BREAK
    assert change_on_record(present, None, settings) is None, "a first version replaces nothing"


def test_the_champion_is_measured_as_it_stands_and_the_model_anew(tables: Tables) -> None:
    evaluator, model, last = DemandEvaluator(), forecaster(), BREAK + timedelta(days=5)
    before = BREAK - timedelta(days=1)
    champion = forecaster().fit(tables.before(before), before)
    trial = EvaluationTrial(type(model), model.params(), model.charter.to_dict(), tables.before(last), last)
    frame = evaluator.observe_change(trial, champion, before, BREAK)
    assert set(frame["cutoff"]) == {(BREAK + timedelta(days=1)).isoformat()}
    assert sorted(frame["day"].dt.date.unique()) == [BREAK + timedelta(days=n) for n in (2, 3, 4, 5)]
    answers = champion.predict(champion.records(tables.before(before), before)).assign(
        day=champion.records(tables.before(before), before)["date"],
        series=champion.records(tables.before(before), before)["series"].astype(str),
    )
    both = frame.merge(answers, on=["day", "series"])
    assert len(both) == len(frame) == 8 and np.allclose(both[CHAMPION], both["forecast"])
    assert (frame[CHAMPION] - frame[ACTUAL]).mean() > 25
    later = BREAK + timedelta(days=3)
    with pytest.raises(DataRefused, match="2 of the periods that the champion does not know"):
        evaluator.observe_change(trial, champion, later, BREAK)
    with pytest.raises(DataRefused, match="and 3 are needed"):
        evaluator.observe_change(replace(trial, as_of=BREAK + timedelta(days=1)), champion, before, BREAK)


def test_predictions_across_a_change_do_not_count_for_the_baseline() -> None:
    cutoffs = ["2024-05-27", "2024-05-27", "2024-06-03"]
    frame = pd.DataFrame({"cutoff": cutoffs, "step": [6, 7, 28], MODEL: 1.0})
    settled = DemandEvaluator().without_change(frame, forecaster().contract, BREAK)
    assert list(settled["step"]) == [6, 28], "the 7th day after 27 May is the day of the change"


@pytest.mark.slow
def test_the_gate_measures_the_registered_champion_in_its_clean_process(settings: Settings, tables: Tables) -> None:
    manifest, _ = write_dataset(
        settings.store, "shop", dict(tables), source="made", layout="canonical", created_at=datetime.now(UTC)
    )
    inputs = [{"name": "shop", "digest": manifest.digest}]
    days = (BREAK - timedelta(days=1), START + timedelta(days=DAYS - 2))
    first, second = (
        register("demand", forecaster().fit(tables.before(day), day), Evaluation("wape", 0.2, {}, True), settings=settings, as_of=day, inputs=inputs)
        for day in days
    )  # fmt: skip
    usual = {clause.name: clause for clause in judge_clauses(second, first, settings)}
    assert "on the same rows" in usual["champion"].finding
    record_alert(settings, [{"model": "demand", "metric": "drift", "since": BREAK.isoformat()}])
    found = {clause.name: clause for clause in judge_clauses(second, first, settings)}["champion"]
    assert found.holds and "champion (version 1) as it stands" in found.finding
    assert "after the change of 2024-06-03" in found.finding
