"""A replay of history: days know what was known then, policies share fits, and nothing is left behind."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sqlalchemy import insert

from d2c_mlops.cli import main
from d2c_mlops.cli.live_models.monitor import _print_replay
from d2c_mlops.data.simulate import shop
from d2c_mlops.data.store import write_dataset
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import DataRefused, UsageError
from d2c_mlops.ledger.schema import predictions, promotions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.forecasting.forecasting import DemandForecaster
from d2c_mlops.monitoring.policy_choice import choose_policy
from d2c_mlops.monitoring.replay import Champion, Clock, PolicyWalk, StepSums
from d2c_mlops.monitoring.retraining import RetrainingPolicy
from d2c_mlops.operations.monitor import monitor_model
from d2c_mlops.operations.replay.fits import FitStore
from d2c_mlops.operations.replay.history import ForecastHistory, Prices
from d2c_mlops.operations.replay.known_sales import DatasetEvidence, KnownSales
from d2c_mlops.operations.replay.page import page
from d2c_mlops.operations.replay.report import ReplayReport
from d2c_mlops.operations.replay.simulation import (
    PolicyReplayOptions,
    _phases,
    _planned_fits,
    replay_tables,
)
from d2c_mlops.operations.retraining.expected_loss import expected_loss
from d2c_mlops.parallel import use_backend
from d2c_mlops.registry.evaluators.demand import DemandEvaluator
from d2c_mlops.registry.versions import find_version, model_class, register
from d2c_mlops.settings import Settings, load_settings

START, LAST = date(2023, 1, 1), date(2023, 9, 27)
POLICIES = ("never", "every 28 days or on drift", "on expected loss")
FIRST = date(2023, 5, 22)


@pytest.fixture(scope="module")
def tables() -> Tables:
    """A simulated shop of 270 days, with returns that become known later than their sale."""
    return shop(seed=4, days=270, customers=250, start=START)


def forecaster() -> DemandForecaster:
    return DemandForecaster(by="category", horizon=14, sums=False)


def replayed(tables: Tables, settings: Settings, **options: Any) -> ReplayReport:
    chosen = PolicyReplayOptions(policies=POLICIES, step=7, training_cost=2.0)
    return replay_tables("demand", forecaster(), tables, settings, replace(chosen, **options))


def history_of(tables: Tables, settings: Settings, folder: Path, looks: list[date]) -> ForecastHistory:
    model = forecaster()
    fits = FitStore(type(model), model.params(), model.charter, tables, folder)
    sales = KnownSales(tables, LAST - timedelta(days=1), "category", "D")
    evidence = DatasetEvidence(tables, looks, settings.monitor_limits("demand").false_alarms)
    return ForecastHistory(
        "demand", model, DemandEvaluator(), fits, sales, evidence, settings, Prices(4.0, 6.0), 7, 2.0
    )


def test_too_short_a_history_is_refused_with_what_is_needed(tables: Tables, settings: Settings) -> None:
    with pytest.raises(DataRefused, match="16 are needed") as caught:
        replayed(tables, settings, end=date(2023, 4, 30))
    assert "ingest older data" in caught.value.next
    with pytest.raises(DataRefused, match="periods of history lie before 2023-01-20"):
        replayed(tables, settings, start=date(2023, 1, 20))


def test_an_error_of_the_project_is_no_failed_training(tables: Tables, settings: Settings) -> None:
    with pytest.raises(UsageError, match="no model has a contract"):
        replay_tables(
            "unheard-of", forecaster(), tables, settings, PolicyReplayOptions(("every 28 days",), FIRST, None, 7)
        )


def test_policies_that_cannot_be_read_are_told_together(tables: Tables, settings: Settings) -> None:
    with pytest.raises(UsageError) as caught:
        replayed(tables, settings, policies=("on drfit", "every blue moon", "never"))
    assert len(caught.value.failures) == 2


def test_phases_of_cadences_share_the_fits_of_the_shortest() -> None:
    policies = [
        RetrainingPolicy.parse(text)
        for text in ("never", "every 7 days", "every 14 days", "every 28 days or on drift", "every 91 days")
    ]
    phases = [_phases(policy, policies) for policy in policies]
    assert phases == [[0], [0], [0, 7], [0, 7, 14, 21], [0, 21, 42, 70]]
    looks = [date(2024, 1, 1) + timedelta(days=7 * week) for week in range(30)]
    plans = list(zip(policies, phases, strict=True))
    weekly = _planned_fits([(policies[1], [0])], looks, 28, "D")
    assert _planned_fits(plans, looks, 28, "D") == weekly, (
        "every 7 days fits on each look, and the others on some of them"
    )


def test_only_forecasts_can_be_replayed(tables: Tables, settings: Settings) -> None:
    other = model_class("mean_units", settings)()
    with pytest.raises(UsageError, match="not a forecast"):
        replay_tables("mean_units", other, tables, settings, PolicyReplayOptions())


def test_a_day_knows_only_what_was_known_on_it(tables: Tables) -> None:
    day = date(2023, 7, 2)
    sales = KnownSales(tables, LAST, "category", "D")
    assert sales.has_late_rows
    early = KnownSales(tables.before(day), day, "category", "D")
    known = sales.panel(day)
    place = [known.series.index(name) for name in early.hindsight.series]
    np.testing.assert_array_equal(known.sold[:, place][-len(early.hindsight.dates) :], early.hindsight.sold)
    assert not np.array_equal(np.nan_to_num(known.sold), np.nan_to_num(sales.hindsight.sold[: len(known.dates)])), (
        "returns"
    )


def test_evidence_of_one_pass_is_that_of_each_look(tables: Tables) -> None:
    looks = [LAST - timedelta(days=back) for back in (60, 40, 20, 0)]
    shared, single = (DatasetEvidence(tables, looks, 0.05) for _ in range(2))
    single.__dict__["is_shared"] = False
    series = shared.series(looks[-1])
    shared.__dict__["is_shared"] = True
    shared._series[looks[-1]] = series
    single._series |= {look: series.until(np.datetime64(look)) for look in looks}  # type: ignore[arg-type]
    for look in looks[1:]:
        one, two = (evidence.report(look, looks[0]) for evidence in (shared, single))
        assert one.has_drifted == two.has_drifted and one.days[-1] == two.days[-1]
        assert one.evidence[-1] == two.evidence[-1] and one.changes == two.changes


@pytest.mark.slow
def test_a_replay_is_the_same_each_time_whatever_the_number_of_processes(tables: Tables, settings: Settings) -> None:
    first = replayed(tables, settings, start=FIRST)
    with use_backend("loky:2"):
        second = replayed(tables, settings, start=FIRST)
    assert first.to_dict() == second.to_dict()
    never, regular, _ = first.walks
    assert never.trainings == 0 and len(set(never.champions)) == 1
    assert [len(walks) for walks in first.phases] == [1, 1, 1], (
        "one cadence alone has no other phases that share its fits"
    )
    assert regular.trainings >= 4 and regular.trainings == regular.count("promoted") + regular.count("refused")
    assert first.fits < 3 * len(never.days), "fits are shared"
    assert first.choice.chosen in page(first) and 'style="stroke: #d55e00' in page(first)


@pytest.mark.slow
def test_what_comes_later_changes_nothing_before(tables: Tables, settings: Settings) -> None:
    end = date(2023, 9, 17)
    whole = replayed(tables, settings, end=end, start=FIRST)
    cut = replayed(tables.before(end + timedelta(days=1)), settings, end=end, start=FIRST)
    for one, two in zip(whole.walks, cut.walks, strict=True):
        assert one.events == two.events and one.champions == two.champions


@pytest.mark.slow
def test_a_replayed_day_is_a_live_day(tables: Tables, settings: Settings, project: Path, tmp_path: Path) -> None:
    with (project / "settings.ini").open("a") as file:
        file.write("[model:demand]\ndata = shop\n")
    settings = load_settings(project, environ={})
    trained, day = date(2023, 8, 6), date(2023, 8, 20)
    history = history_of(tables, settings, tmp_path / "fits", [trained + timedelta(days=n) for n in range(15)])
    champion, clock = Champion(trained, Clock.at_end_of(trained).now), Clock.at_end_of(day)
    manifest, _ = write_dataset(
        settings.store, "shop", dict(tables), source="simulated", layout="canonical", created_at=datetime.now(UTC)
    )
    fitted = history.fits.model(trained)
    inputs = [{"name": "shop", "digest": manifest.digest}]
    register("demand", fitted, history.evaluation(trained), settings=settings, as_of=trained, inputs=inputs)
    records = fitted.own_records()
    assert records is not None
    answers = fitted.predict(records)
    rows = [
        {"id": f"p{number}", "model": "demand", "version": 1, "contract": "1.1.0", "variant": "champion", "key": row.series, "at": champion.since,
         "inputs": {"series": row.series, "date": f"{row.date:%Y-%m-%d}"}, "outputs": {"forecast": row.forecast, "lower_80": row.lower_80, "upper_80": row.upper_80},
         "reasons": None, "caller": "shop", "request_id": f"r{number}", "origin": None}
        for number, row in enumerate(answers.itertuples())
    ]  # fmt: skip
    promotion = {
        "model": "demand",
        "version": 1,
        "previous": None,
        "action": "promote",
        "at": champion.since,
        "by": "Jo",
        "reason": "",
        "gate": [],
    }
    ledger = Ledger.of(settings)
    with ledger.write() as connection:
        connection.execute(insert(promotions), [promotion])
        connection.execute(insert(predictions), rows)
    live = monitor_model("demand", settings, now=clock.now)
    assert live.as_of == clock.day == day
    accuracy, drift = history.signs(champion, clock)
    by_metric = {sign.metric: sign for sign in live.signs}
    assert accuracy.value is not None and by_metric["accuracy"].value == pytest.approx(accuracy.value, rel=1e-12)
    assert replace(by_metric["accuracy"], value=accuracy.value) == accuracy
    assert by_metric["drift"] == drift and drift.value is not None
    loss, state = (
        expected_loss(find_version(ledger, "demand"), "train", settings, clock.now),
        history.state(champion, clock),
    )
    assert loss is not None and state.loss_without is not None
    assert (loss.without, loss.after_training) == pytest.approx((state.loss_without, state.loss_with), rel=1e-12)
    assert set(history.breaches(champion, clock)) == {
        sign.cause for sign in (accuracy, drift) if sign.state == "breach"
    }


@pytest.mark.slow
def test_the_command_leaves_nothing_but_its_page(tables: Tables, settings: Settings, project: Path) -> None:
    text = (project / "settings.ini").read_text()
    section = "[model:demand]\ndata = shop\nparams.by = category\nparams.horizon = 14\nparams.sums = false\n"
    (project / "settings.ini").write_text(text + section)
    write_dataset(
        settings.store, "shop", dict(tables), source="simulated", layout="canonical", created_at=datetime.now(UTC)
    )
    before = {path for path in settings.store.rglob("*") if path.is_file()}
    command = ["replay", "demand", "--policy", "never", "--policy", "every 28 days", "--step", "7", "--html", "--json"]
    answer = CliRunner().invoke(main, command)
    assert answer.exit_code == 0, answer.output
    document = json.loads(answer.output)
    assert document["choice"]["chosen"] in ("never", "every 28 days")
    after = {path for path in settings.store.rglob("*") if path.is_file()}
    assert {path.name for path in after - before} == {"demand.html"}


def small_report(notes: tuple[str, ...], without_reasons: dict[str, str]) -> ReplayReport:
    looks = tuple(date(2024, 1, 1) + timedelta(days=7 * week) for week in range(16))
    walks = tuple(
        PolicyWalk(text, looks, looks, (StepSums(loss, 2.0, 10.0, 5.0, 5.0),) * 16, 1.0, 10.0, ())
        for text, loss in (("never", 3.0), ("on expected loss", 2.0))
    )
    choice = choose_policy(pd.DataFrame({walked.policy: walked.weekly() for walked in walks}), {})
    return ReplayReport(
        "demand", "shop", "EUR", looks[0], looks[-1], 7, 7, 2.0, walks, tuple((walked,) for walked in walks), choice, 3, 1.0, 1.0,
        notes, without_reasons,
    )  # fmt: skip


def test_prices_that_the_charter_does_not_have_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    whole = DemandForecaster.charter
    assert Prices.of(whole) == Prices(whole.right_value or 0, whole.wrong_cost or 0) and not Prices.of(whole).notes()
    assert Prices.of(replace(whole, wrong_cost=0.0)).too_many == 0.0, "a price of 0 is a price"
    prices = Prices.of(replace(whole, wrong_cost=None))
    assert (prices.too_few, prices.too_many) == (whole.right_value, 1.0)
    (note,) = prices.notes()
    assert note == "the charter has no wrong_cost: a unit too many counts as 1"
    blind = {"on expected loss": "on expected loss: the charter has no wrong_cost"}
    report = small_report(prices.notes(), blind)
    _print_replay(report)
    printed = capsys.readouterr().out
    rows = {line.split("  ")[0]: line for line in printed.splitlines()}
    assert f"note: {note}" in printed and blind["on expected loss"] in printed
    assert rows["on expected loss"].endswith("no reasons, see below") and "no reasons" not in rows["never"]
    assert note in page(report) and blind["on expected loss"] in page(report)
    document = report.to_dict()
    assert document["notes"] == [note]
    assert [row["without_reasons"] for row in document["policies"]] == ["", blind["on expected loss"]]


@pytest.mark.slow
def test_without_prices_no_expected_loss_is_known_as_in_production(tables: Tables, settings: Settings) -> None:
    model = forecaster()
    model.charter = replace(model.charter, right_value=None)  # type: ignore[misc]
    options = PolicyReplayOptions(("never", "on expected loss"), FIRST, None, 7, training_cost=0.0)
    report = replay_tables("demand", model, tables, settings, options)
    assert report.notes == ("the charter has no right_value: a unit too few counts as 1",)
    assert report.without_reasons == {"on expected loss": "on expected loss: the charter has no right_value"}
    reasons = [event.reason for event in report.walks[1].events if event.action == "trained"]
    assert reasons and all(reason.startswith("its answers end on") for reason in reasons), (
        "trained only as its horizon ends"
    )
    assert not replay_tables("demand", forecaster(), tables, settings, options).without_reasons


@pytest.mark.parametrize("cost", [float("nan"), float("inf"), -1.0])
def test_a_cost_that_is_no_amount_is_refused(cost: float) -> None:
    with pytest.raises(UsageError, match="is not the cost of a training"):
        PolicyReplayOptions(training_cost=cost)


def test_a_replay_that_ends_before_it_begins_is_refused() -> None:
    with pytest.raises(UsageError, match="is not after the first look"):
        PolicyReplayOptions(start=date(2024, 5, 1), end=date(2024, 1, 1))
