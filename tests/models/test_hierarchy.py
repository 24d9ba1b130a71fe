"""Forecasts of series and of their sums: which sums there are, how they add up, and what is never added up."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pandas as pd
import pytest

from d2c_mlops.data.tables import Tables
from d2c_mlops.data.validation import validate
from d2c_mlops.errors import DataRefused
from d2c_mlops.models.core.model import load
from d2c_mlops.models.forecasting.forecast_inputs import from_panel
from d2c_mlops.models.forecasting.forecasting import DemandForecaster
from d2c_mlops.models.forecasting.hierarchy.coherence import moved_to, reconcile, share_that_pays
from d2c_mlops.models.forecasting.hierarchy.levels import Levels, levels_by, overlapping, styles_of, summed_inputs
from d2c_mlops.models.forecasting.hierarchy.panel_forecast import forecast_panel
from support.panels import panel

AS_OF = date(2024, 12, 29)


def two_ways(stores: int = 3, products: int = 4) -> Levels:
    pairs = [(f"s{i}", f"p{j}") for i in range(stores) for j in range(products)]
    columns = {name: np.array(values, object) for name, values in zip(("store_id", "product_id"), zip(*pairs, strict=True), strict=True)}  # fmt: skip
    return levels_by(columns, len(pairs))


def totals(frame: pd.DataFrame, keys: list[str]) -> Tables:
    texts = [orjson.dumps(dict(zip(keys, row, strict=True))).decode() for row in frame[keys].itertuples(index=False)]
    sold = frame.drop(columns=keys).assign(keys=texts, last_day=frame["date"] + pd.Timedelta(days=6), frequency="W")
    return Tables({"sales_totals": validate("sales_totals", sold)})


@cache
def shop(with_total: bool = False) -> Tables:
    """Return 104 weeks of three stores and two products; a row of all stores where `with_total`."""
    rng, rows = np.random.default_rng(1), []
    weeks = pd.date_range("2023-01-02", periods=104, freq="7D")
    for number, store in enumerate(("north", "south", "west")):
        for product in ("tea", "mug"):
            units = rng.poisson(20.0 * (number + 1), 104).astype(float)
            rows.append(pd.DataFrame({"store_id": store, "product_id": product, "date": weeks, "units": units}))
    frame = pd.concat(rows, ignore_index=True)
    if with_total:
        country = frame.groupby(["product_id", "date"], as_index=False)["units"].sum().assign(store_id="country")
        frame = pd.concat([frame, country], ignore_index=True)
    return totals(frame, ["store_id", "product_id"])


def fitted(**tables: bool) -> DemandForecaster:
    return DemandForecaster(freq="W", by="store_id,product_id").fit(shop(**tables), AS_OF)


# -- what is added up


def test_crossed_columns_are_levels_beside_the_total() -> None:
    levels = two_ways()
    assert levels.names == ("(total)", "store_id", "product_id") and len(levels.sums) == 1 + 3 + 4
    assert levels.add_up(np.ones(12)).tolist() == [12, 4, 4, 4, 3, 3, 3, 3]


def test_columns_that_divide_alike_are_one_level_and_missing_values_a_group() -> None:
    same = {"a": ["x", "x", "y", None], "b": ["1", "1", "2", "3"], "each": list("wxyz")}
    levels = levels_by({name: np.array(values, object) for name, values in same.items()}, 4)
    assert levels.names == ("(total)", "a") and "a=(none)" in levels.sums


@pytest.mark.parametrize("count", [2, 5, 12])
def test_a_row_that_is_the_sum_of_others_is_found(count: int) -> None:
    units = np.random.default_rng(count).gamma(2.0, 50.0, (80, count))
    rounded = np.round(units.sum(axis=1))
    assert overlapping(np.column_stack([rounded, units]), np.arange(count + 1)) == (0, list(range(1, count + 1)))


@pytest.mark.parametrize("seed", range(5))
def test_series_that_only_move_together_are_not_taken_for_sums(seed: int) -> None:
    rng = np.random.default_rng(seed)
    season = 30 + 20 * np.sin(np.arange(100) / 8)[:, None]
    units = rng.poisson(season * np.array([1, 1, 2, 3, 6.9])).astype(float)
    assert overlapping(units, np.arange(5)) is None


def test_sales_that_overlap_are_not_added_up_and_the_note_says_which() -> None:
    model = fitted(with_total=True)
    assert any("country is the sum of 3 other values of store_id" in note for note in model.notes)
    assert set(model.learned.sums.levels) == {"store_id"}
    assert "(total)" not in model.learned.sums.names


def test_a_sum_is_not_known_only_where_none_of_its_series_is() -> None:
    values = np.array([[np.nan, 1.0], [np.nan, np.nan], [2.0, 3.0]])
    summed = summed_inputs(from_panel(replace(panel(values), gaps=True), 2), levels_by({}, 2))
    np.testing.assert_array_equal(summed.units[:, 0], [1.0, np.nan, 5.0])


@pytest.mark.parametrize(
    ("sizes", "others"),
    [(("S", "M", "XL"), "tea"), (("38", "39.5", "42"), "85-99"), (("one size", "2XL"), "A-1"), (("xs", "XXL"), "M")],
)
@pytest.mark.parametrize("separator", ["-", "_", " ", " / "])
def test_products_that_end_in_a_size_are_added_up_by_style(sizes: tuple[str, ...], others: str, separator: str) -> None:
    products = [f"TEE-RED{separator}{size}" for size in sizes]
    assert styles_of([*products, others, f"cap{separator}M"]).tolist() == ["TEE-RED"] * len(sizes) + [None, None]  # type: ignore[union-attr]


@pytest.mark.parametrize("products", [["85123A", "85123B"], ["pot-12", "pot-13"], ["M", "L"], ["tea-S", "mug-M"], []])
def test_other_endings_are_no_sizes(products: list[str]) -> None:
    assert styles_of(products) is None


def test_the_sizes_of_a_style_add_up_to_it_in_the_model() -> None:
    rng, weeks = np.random.default_rng(2), pd.date_range("2023-01-02", periods=104, freq="7D")
    products = ["TEE-S", "TEE-M", "boot_41", "boot_42", "mug"]
    rows = [pd.DataFrame({"product_id": p, "date": weeks, "units": rng.poisson(9.0, 104) * 1.0}) for p in products]
    model = DemandForecaster(freq="W", by="product_id").fit(totals(pd.concat(rows), ["product_id"]), AS_OF)
    assert {"style=TEE", "style=boot", "style=(none)"} <= set(model.learned.sums.names)
    series, sums = (model.predict(asked) for asked in (model.own_records(), model.sum_records()))
    boots = series[series["series"].str.startswith("boot")].groupby("date")["forecast"].sum()
    of_style = sums[sums["series"] == "style=boot"].set_index("date")["forecast"]
    np.testing.assert_allclose(of_style, boots, rtol=0, atol=1e-9)


# -- how forecasts add up


def test_reconciled_forecasts_are_those_of_the_published_formula() -> None:
    rng, levels = np.random.default_rng(3), two_ways()
    base, sums = rng.gamma(5.0, 20.0, (1, 12)), rng.gamma(20.0, 20.0, (1, 8))
    variance, of_sums = rng.gamma(2.0, 9.0, 12), rng.gamma(2.0, 30.0, 8)
    summing = np.vstack([levels.matrix.toarray(), np.eye(12)])
    precision = np.diag(1 / np.concatenate([of_sums, variance]))
    expected = np.linalg.solve(summing.T @ precision @ summing, summing.T @ precision @ np.append(sums[0], base[0]))
    assert (expected > 0).all()
    np.testing.assert_allclose(reconcile(base, sums, variance, of_sums, levels)[0], expected, rtol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_no_forecast_becomes_negative_and_nothing_is_added_on_a_closed_day(seed: int) -> None:
    rng, levels = np.random.default_rng(seed), two_ways()
    base = rng.gamma(0.3, 20.0, (6, 12))
    base[2] = 0.0
    moved = reconcile(base, levels.add_up(base) * rng.uniform(0, 2, (6, 8)), np.full(12, 50.0), np.full(8, 1.0), levels)
    assert (moved >= 0).all() and np.isfinite(moved).all() and (moved[2] == 0).all()


def test_bounds_move_with_the_forecast_and_stay_around_it() -> None:
    answers = np.array([[[10.0, 8, 12, 6, 15, 2, 30], [0.0, 0, 0, 0, 2, 0, 4]]])
    moved = moved_to(answers, np.array([[20.0, 1.0]]))
    assert moved[0, 0].tolist() == [20, 16, 24, 12, 30, 4, 60]
    assert moved[0, 1, 0] == 1 and (moved[0, 1, 1::2] <= 1).all() and (moved[0, 1, 2::2] >= 1).all()


def ladder_like(past: Any, units: Any) -> Any:
    return SimpleNamespace(past=past, past_units=units)


@pytest.mark.parametrize(
    ("lowest", "highest", "error_of_sums", "moves"), [(0.4, 0.8, 0.01, True), (0.9, 1.1, 0.9, False)]
)
def test_forecasts_move_only_where_the_sums_knew_better(
    lowest: float, highest: float, error_of_sums: float, moves: bool
) -> None:
    rng, levels = np.random.default_rng(5), levels_by({}, 8)
    units = rng.poisson(40.0, (3, 8, 8)).astype(float)
    base = units * rng.uniform(lowest, highest, (3, 8, 1))  # all series of a step by the same share
    sums = levels.add_up(units)
    known_sums = sums * (1 + error_of_sums * rng.choice([-1, 1], sums.shape))
    share = share_that_pays(ladder_like(base, units), ladder_like(known_sums, sums), levels)
    assert (share > 0) == moves


def test_nothing_moves_where_series_got_worse_from_one_past_origin() -> None:
    rng, levels = np.random.default_rng(5), levels_by({}, 8)
    units = rng.poisson(40.0, (3, 8, 8)).astype(float)
    factor = np.array([0.6, 0.6, 1.0])[
        :, None, None
    ]  # from the last origin the series were right and their sum was not
    sums = levels.add_up(units) * np.array([1.0, 1.0, 1.2])[:, None, None]
    all_origins = ladder_like(units * factor, units), ladder_like(sums, levels.add_up(units))
    first_two = [ladder_like(part.past[:2], part.past_units[:2]) for part in all_origins]
    assert share_that_pays(*first_two, levels) > 0 == share_that_pays(*all_origins, levels)


def test_without_past_origins_nothing_moves() -> None:
    values = np.random.default_rng(1).poisson(9.0, (9, 4)).astype(float)
    forecast = forecast_panel(panel(values, "W"), from_panel(panel(values, "W"), 4), levels_by({}, 4))
    assert forecast.sums.moved == 0
    np.testing.assert_allclose(forecast.sums.answers[:, 0, 0], forecast.answers[..., 0].sum(axis=1), rtol=0, atol=1e-9)


# -- the model


def test_the_model_answers_for_sums_which_add_up_to_the_last_digit() -> None:
    model = fitted()
    assert {"(total)", "store_id=north", "product_id=tea"} <= set(model.learned.sums.names)
    series, sums = model.predict(model.own_records()), model.predict(model.sum_records())
    by_day = series.groupby("date")["forecast"].sum()
    total = sums[sums["series"] == "(total)"].set_index("date")["forecast"]
    np.testing.assert_allclose(total, by_day, rtol=0, atol=1e-9)
    tea = series[series["series"].str.endswith("|tea")].groupby("date")["forecast"].sum()
    np.testing.assert_allclose(sums[sums["series"] == "product_id=tea"].set_index("date")["forecast"], tea, rtol=0, atol=1e-9)  # fmt: skip
    assert model.contract.check_outputs(sums) is not None
    assert model.explain(model.sum_records().head(1))[0][0] == "the sum of the forecasts of its series"


def test_another_plan_is_refused_for_a_sum() -> None:
    model = fitted()
    with pytest.raises(DataRefused, match="not for a sum") as refusal:
        model.predict(model.sum_records().head(2).assign(discount=[None, 0.2]))
    assert [failure.where for failure in refusal.value.failures] == ["row 1"]


def test_a_saved_model_answers_for_sums_and_one_saved_before_does_not(tmp_path: Path) -> None:
    model = fitted()
    model.save(tmp_path / "model")
    asked = model.sum_records()
    pd.testing.assert_frame_equal(load(tmp_path / "model").predict(asked), model.predict(asked))
    file, about = tmp_path / "model/forecasts.npz", tmp_path / "model/forecasts.json"
    with np.load(file) as arrays:
        np.savez(file, **{name: arrays[name] for name in arrays.files if name != "sums"})
    before = {k: v for k, v in json.loads(about.read_text()).items() if k not in ("sums", "sum_levels", "moved")}
    about.write_text(json.dumps(before))
    former = load(tmp_path / "model")
    assert set(former.predict(asked)["basis"]) == {"unknown series"} and former.sum_records() is None
    pd.testing.assert_frame_equal(former.predict(model.own_records()), model.predict(model.own_records()))


def test_the_evaluation_has_the_error_of_every_level_and_series_get_no_worse() -> None:
    levels = DemandForecaster(freq="W", by="store_id,product_id", cutoffs=2).evaluate(shop(), AS_OF).details["levels"]
    assert [row["level"] for row in levels] == ["series", "(total)", "product_id", "store_id"]
    assert levels[0]["reconciled"] <= levels[0]["base"] * 1.005
    assert levels[1]["reconciled"] < levels[0]["reconciled"]  # errors of series cancel out


def test_sums_may_be_left_out() -> None:
    model = DemandForecaster(freq="W", by="store_id,product_id", sums=False).fit(shop(), AS_OF)
    assert model.sum_records() is None and model.learned.sums.names == ()
