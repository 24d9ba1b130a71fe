"""Planned launches of products without history, and planned last days."""

from __future__ import annotations

from datetime import date
from functools import cache

import numpy as np
import pandas as pd

from d2c_mlops.data.tables import Tables
from d2c_mlops.data.validation import validate
from d2c_mlops.models.forecasting.forecasting import DemandForecaster

AS_OF = date(2024, 6, 30)


@cache
def shop(known_at: str | None = None) -> Tables:
    """Return 40 weeks of six teas that were launched one after the other and fade, six mugs that always sold; a tea is launched, a mug ends."""
    rng, rows = np.random.default_rng(1), []
    dates = pd.date_range(end=AS_OF, periods=40, freq="W-SUN")
    for number in range(6):
        age = np.arange(40) - 6 - 3 * number
        tea = np.where(age >= 0, rng.poisson(20 + 80 * np.exp(-np.maximum(age, 0) / 3)), np.nan)
        for name, units in ((f"tea{number}", tea), (f"mug{number}", rng.poisson(200, 40).astype(float))):
            rows.append(pd.DataFrame({"product_id": name, "last_day": dates, "units": units}).dropna())
    sold = pd.concat(rows, ignore_index=True)
    sold["keys"] = [f'{{"product_id":"{name}"}}' for name in sold["product_id"]]
    sold["date"] = sold["last_day"] - pd.Timedelta(days=6)
    names = [*sold["product_id"].unique(), "tea9"]
    products = pd.DataFrame({"product_id": names, "category": [name[:3] for name in names]})
    calendar = pd.DataFrame(
        {
            "keys": ['{"product_id":"tea9"}', '{"product_id":"mug0"}'],
            "first_day": pd.to_datetime(["2024-07-15", "2024-01-01"]),
            "last_day": pd.to_datetime(["2024-07-15", "2024-07-17"]),
            "event": ["launch", "end_of_life"],
            "value": 1.0,
            "known_at": pd.to_datetime([known_at, None]),
        }
    )
    frames = {
        "sales_totals": sold.drop(columns="product_id").assign(frequency="W"),
        "products": products,
        "calendar": calendar,
    }
    return Tables({name: validate(name, frame) for name, frame in frames.items()})


@cache
def fitted() -> DemandForecaster:
    return DemandForecaster(freq="W", by="product_id").fit(shop(), AS_OF)


def forecasts_of(model: DemandForecaster, series: str) -> pd.DataFrame:
    records = model.records(shop(), AS_OF)
    return model.predict(records[records["series"] == series])


def test_a_planned_product_sells_nothing_before_its_day_and_then_as_the_launches_of_its_category() -> None:
    answers = forecasts_of(fitted(), "tea9")
    forecast = answers["forecast"].to_numpy(float)
    assert (answers.iloc[:2].filter(regex="forecast|lower|upper") == 0).all(axis=None)
    assert 70 < forecast[2] < 130 and 15 < forecast[-1] < 60  # not the 200 of mugs
    assert (answers["lower_80"] < answers["forecast"])[2:].all() and (answers["upper_80"] > answers["forecast"])[
        2:
    ].all()
    assert any(note.startswith("tea9: planned from 2024-07-15 on") for note in fitted().notes)


def test_a_planned_last_day_ends_the_forecast_and_is_told() -> None:
    forecast = forecasts_of(fitted(), "mug0")["forecast"].to_numpy(float)
    assert (forecast[:2] > 150).all() and 50 < forecast[2] < 130 and (forecast[3:] == 0).all()
    assert any("not sold to the end of the horizon, as planned (mug0)" in note for note in fitted().notes)
    assert forecasts_of(fitted(), "mug1")["forecast"].min() > 150


def test_sums_hold_the_launched_product() -> None:
    learned = fitted().learned
    assert "tea9" in learned.panel.series
    total = learned.sums.answers[..., list(learned.sums.names).index("(total)"), 0]
    np.testing.assert_allclose(total, learned.answers[..., 0].sum(axis=1), rtol=1e-6)


def test_a_launch_that_is_not_known_yet_is_not_forecast() -> None:
    model = DemandForecaster(freq="W", by="product_id").fit(shop("2024-07-05"), AS_OF)
    assert "tea9" not in model.learned.panel.series
