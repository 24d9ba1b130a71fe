"""Another promotion, discount or price than planned: answers, reasons, refusals, and the contract."""

from __future__ import annotations

import json
from datetime import date
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.data.layouts.planned_columns import split_plans
from d2c_mlops.data.tables import Tables
from d2c_mlops.data.validation import validate
from d2c_mlops.data.zones import localize_all
from d2c_mlops.errors import DataRefused
from d2c_mlops.models.core.contract_changes import broken_clauses, contract_differences
from d2c_mlops.models.core.model import load
from d2c_mlops.models.forecasting.demand_contract import demand_contract
from d2c_mlops.models.forecasting.forecasting import DemandForecaster, horizon_records

AS_OF, AHEAD = date(2024, 5, 19), pd.date_range("2024-05-20", periods=14)


@cache
def fitted(*planned: str) -> DemandForecaster:
    """Return a forecaster of three products: a discount of d sells 1 + 3 d times as much, at a price that is d lower."""
    draws, rows = np.random.default_rng(1), []
    for number, product in enumerate(("tea", "mug", "pot")):
        dates = pd.date_range("2024-01-01", periods=154)
        discount = draws.choice([0.0, 0.0, 0.1, 0.3], 22).repeat(7) * (np.arange(154) < 140)
        units = draws.poisson(40 * (number + 1) * (1 + 3 * discount)).astype(float)
        units[140:] = np.nan
        rows.append(
            pd.DataFrame(
                {"product_id": product, "date": dates, "units": units, "discount": discount, "price": 10.0 + number}
            )
        )
    raw = pd.concat(rows, ignore_index=True)
    frames, _ = split_plans({"sales_totals": raw[["product_id", "date", "units", *planned]]}, planned)
    frames, _ = localize_all(frames, "UTC")
    tables = Tables({name: validate(name, frame) for name, frame in frames.items()})
    return DemandForecaster(by="product_id", horizon=14).fit(tables, AS_OF)


def records(**columns: object) -> pd.DataFrame:
    return pd.DataFrame({"series": "tea", "date": AHEAD[:3], **columns})


def test_a_discount_sells_more_and_all_bounds_move_with_it() -> None:
    model = fitted("discount")
    planned, asked = model.predict(records()), model.predict(records(discount=[None, 0.1, 0.3]))
    ratio = (asked.iloc[:, 2:9] / planned.iloc[:, 2:9]).to_numpy(float)
    assert ratio[0].tolist() == [1] * 7
    assert (np.ptp(ratio, axis=1) < 1e-9).all()
    assert 1.15 < ratio[1, 0] < 1.5 and 1.6 < ratio[2, 0] < 2.3  # 1.3 and 1.9


def test_what_is_planned_already_changes_nothing_when_it_is_asked_for() -> None:
    model = fitted("discount")
    asked = model.predict(records(discount=[0.0, 0.0, 0.0]))
    pd.testing.assert_frame_equal(asked, model.predict(records()))


def test_a_lower_price_is_answered_where_prices_were_planned() -> None:
    model = fitted("discount", "price")
    cheap, usual = (model.predict(records(price=price))["forecast"] for price in (8.0, 10.0))
    assert (cheap > usual).all()


def test_what_was_never_learned_is_refused_with_the_row_and_what_is_known() -> None:
    with pytest.raises(DataRefused, match="plan whose effect is not known") as refusal:
        fitted("discount").predict(records(price=[None, 8.0, None]))
    assert [failure.where for failure in refusal.value.failures] == ["row 1"]
    assert "discount" in str(refusal.value.next)


@pytest.mark.parametrize(
    ("column", "value", "allowed"),
    [
        ("price", 0.0, "above 0"),
        ("price", -3.0, "above 0"),
        ("price", np.inf, "above 0"),
        ("price", "cheap", "above 0"),
        ("discount", 1.0, "below 1"),
        ("discount", 20.0, "below 1"),
        ("discount", -0.1, "at least 0"),
        ("promotion", 2.0, "between 0"),
    ],
)
@pytest.mark.parametrize("series", ["tea", "never sold"])
def test_a_plan_that_cannot_be_is_refused_with_field_value_and_what_is_allowed(
    column: str, value: object, allowed: str, series: str
) -> None:
    with pytest.raises(DataRefused, match="1 of 3 records") as refusal:
        fitted("discount", "price").predict(
            records(**{column: pd.Series([None, value, None], dtype=object)}).assign(series=series)
        )
    (failure,) = refusal.value.failures
    assert failure.where == f"row 1, {column}"
    assert f"{column} is {value}" in str(failure) and allowed in str(failure)


@pytest.mark.parametrize(("column", "value"), [("price", 1e-9), ("price", 1e9), ("discount", 0.9999999)])
def test_a_plan_far_from_all_past_ones_is_refused_and_not_capped(column: str, value: float) -> None:
    with pytest.raises(DataRefused, match="too far from the past") as refusal:
        fitted("discount", "price").predict(records(**{column: [value, None, None]}))
    assert f"{column} {value:g} would sell" in str(refusal.value.failures[0])


def test_explain_refuses_what_predict_refuses() -> None:
    for ask in (fitted("discount").explain, fitted("discount").predict):
        with pytest.raises(DataRefused, match="cannot be"):
            ask(records(discount=1.0))


def test_an_unknown_series_stays_unknown_whatever_is_asked() -> None:
    answers = fitted("discount").predict(records(discount=0.2).assign(series="cup"))
    assert answers["forecast"].isna().all() and set(answers["basis"]) == {"unknown series"}


def test_the_reasons_tell_the_units_of_what_is_asked() -> None:
    model = fitted("discount")
    asked = records(discount=[0.3, None, None])
    planned, wanted = model.predict(records())["forecast"], model.predict(asked)["forecast"]
    reasons = model.explain(asked)
    assert f"with what is asked {wanted[0] - planned[0]:.0f} units more than planned" in reasons[0]
    assert not any("asked" in text for text in reasons[1])


def test_contributions_add_up_to_the_forecast() -> None:
    model = fitted("discount", "price")
    every = horizon_records(model.learned, AS_OF)
    parts = model.contributions(every)
    assert {"level", "weekday", "discount", "price", "rest"} <= set(parts)
    assert np.allclose(parts.sum(axis=1), model.predict(every)["forecast"])


def test_a_saved_model_answers_as_before(tmp_path: Path) -> None:
    model, asked = fitted("discount", "price"), records(discount=[None, 0.1, 0.3])
    model.save(tmp_path / "model")
    again = load(tmp_path / "model")
    pd.testing.assert_frame_equal(again.predict(asked), model.predict(asked), rtol=1e-6)
    assert again.explain(asked) == model.explain(asked)


def test_a_version_saved_without_effects_answers_and_refuses_what_it_never_learned(tmp_path: Path) -> None:
    model = fitted("discount")
    model.save(tmp_path / "model")
    file, about = tmp_path / "model/forecasts.npz", tmp_path / "model/forecasts.json"
    with np.load(file) as arrays:
        np.savez(file, **{name: arrays[name] for name in arrays.files if not name.startswith("effects_")})
    about.write_text(json.dumps({k: v for k, v in json.loads(about.read_text()).items() if k != "effects"}))
    former = load(tmp_path / "model")
    pd.testing.assert_frame_equal(former.predict(records()), model.predict(records()))
    with pytest.raises(DataRefused, match="not known"):
        former.predict(records(discount=0.2))


def test_callers_of_the_former_contract_are_served() -> None:
    old, new = demand_contract(version="1.0.0"), demand_contract()
    former = type(old)(
        **{**vars(old), "inputs": old.inputs.select_columns(["series", "date"])}  # as it was published
    )
    assert broken_clauses(former, new) == [] and new.order > former.order
    assert sorted(change.where for change in contract_differences(former, new)) == [
        "inputs.discount",
        "inputs.price",
        "inputs.promotion",
    ]
    assert new.check_inputs(pd.DataFrame({"series": ["tea"], "date": ["2024-05-20"]})) is not None
