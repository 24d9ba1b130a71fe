"""Trees of the last training are used again while they are as good as they were."""

from __future__ import annotations

from dataclasses import replace
from datetime import date, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.data.tables import Tables
from d2c_mlops.data.validation import validate
from d2c_mlops.models.core.model import load
from d2c_mlops.models.forecasting.calibration.warm_start import (
    Trees,
    read_trees,
    reusable_trees,
    trees_as_bytes,
    trees_before,
)
from d2c_mlops.models.forecasting.forecast_inputs import ForecastInputs, from_panel
from d2c_mlops.models.forecasting.forecasting import DemandForecaster
from d2c_mlops.models.forecasting.ladder import ladder_forecast
from d2c_mlops.models.forecasting.panel import Panel

LAST = date(2024, 6, 30)


@cache
def weekly_units() -> np.ndarray:
    rng = np.random.default_rng(1)
    season = 1 + 0.4 * np.sin(np.arange(132) * 2 * np.pi / 52)[:, None]
    return rng.poisson(15 * season * rng.uniform(0.5, 2, 32)).astype(float)


def inputs_of(steps: int, changed: float = 0.0, plan: bool = False) -> ForecastInputs:
    dates = np.datetime64(LAST) - 7 * np.arange(132)[::-1]
    units = weekly_units()[:steps] + changed
    inputs = from_panel(Panel("W", dates[:steps], tuple(f"s{i}" for i in range(32)), units), 4)
    return (
        replace(inputs, flags={"promotion": (np.arange(steps + 4) % 5 < 1)[:, None] * np.ones(32)}) if plan else inputs
    )


@cache
def first() -> Trees:
    trees = ladder_forecast(inputs_of(130)).trees
    assert trees is not None and trees.past is not None
    return trees


def test_where_nothing_changed_every_number_is_the_same_also_through_files() -> None:
    cold, warm = (
        ladder_forecast(inputs_of(130)),
        ladder_forecast(inputs_of(130), former=read_trees(trees_as_bytes(first()))),
    )
    np.testing.assert_array_equal(warm.answers, cold.answers)
    np.testing.assert_array_equal(warm.weights, cold.weights)
    assert warm.trees is not None and warm.trees.digest == first().digest


def test_a_week_later_no_tree_is_learned_and_the_new_week_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    first()
    monkeypatch.setattr("d2c_mlops.models.forecasting.ladder.fit_boosted", lambda *_: pytest.fail("a tree was learned"))
    later, changed = (ladder_forecast(inputs_of(131, extra), former=first()) for extra in (0.0, 3.0))
    assert later.trees is first() and not np.allclose(later.answers, changed.answers)


@pytest.mark.parametrize(
    "case", ["older than a horizon", "another column", "changed history", "worse", "from the future"]
)
def test_trees_are_learned_anew_where_they_may_not_be_used(case: str) -> None:
    former, inputs = first(), inputs_of(131)
    if case == "older than a horizon":
        former = replace(former, end=former.end - timedelta(days=28))
    if case == "another column":
        inputs = inputs_of(131, plan=True)
    if case == "changed history":
        inputs = inputs_of(130, 1.0)
    if case == "worse":
        former = replace(former, ratio=former.ratio / 1.2)
    if case == "from the future":
        inputs = inputs_of(129)
    answer = ladder_forecast(inputs, former=former)
    np.testing.assert_array_equal(answer.answers, ladder_forecast(inputs).answers)
    assert answer.trees is not None and answer.trees.final is not former.final


def test_trees_that_were_never_tried_are_used_for_the_same_history_alone() -> None:
    untried = replace(first(), past=None, tested=0)
    assert reusable_trees(untried, inputs_of(130)) is untried and reusable_trees(untried, inputs_of(131)) is None


def test_the_newest_trees_that_saw_nothing_later_are_chosen() -> None:
    content = trees_as_bytes(first())
    stored = {"2024-06-16": content, "2024-06-09": b"", "2024-06-30": b""}
    found = trees_before(stored, date(2024, 6, 20))
    assert found is not None and found.digest == first().digest
    assert trees_before(stored, date(2024, 6, 1)) is None


def weekly_shop() -> Tables:
    dates = pd.date_range(end=LAST, periods=132, freq="W-SUN")
    frames = [
        pd.DataFrame({"keys": f'{{"product_id":"p{i}"}}', "last_day": dates, "units": weekly_units()[:, i]})
        for i in range(32)
    ]
    rows = pd.concat(frames, ignore_index=True).assign(frequency="W")
    rows["date"] = rows["last_day"] - pd.Timedelta(days=6)
    return Tables({"sales_totals": validate("sales_totals", rows)})


@pytest.mark.slow
def test_a_training_resumes_the_last_one_unless_it_is_switched_off(tmp_path: Path) -> None:
    tables, params = weekly_shop(), {"freq": "W", "by": "product_id", "horizon": 4, "cutoffs": 1, "sums": False}
    last_week = DemandForecaster(**params)
    evaluation = last_week.evaluate(tables, LAST - timedelta(days=7))
    last_week.fit(tables, LAST - timedelta(days=7)).save(tmp_path / "model")
    assert len(last_week.trees) == 2  # of the cutoff and of the day
    again = DemandForecaster(**params)
    again.resume(load(tmp_path / "model"))
    assert again.evaluate(tables, LAST - timedelta(days=7)).value == evaluation.value
    np.testing.assert_array_equal(
        again.fit(tables, LAST - timedelta(days=7)).learned.answers, last_week.learned.answers
    )
    off = DemandForecaster(**params, warm_start=False)
    other = DemandForecaster(**params | {"horizon": 3})
    for model in (again, off, other):
        model.resume(load(tmp_path / "model"))
        model.fit(tables, LAST)
    used = [any("used again" in note for note in model.notes) for model in (again, off, other)]
    assert used == [True, False, False]
