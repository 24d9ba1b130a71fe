"""Models count days, recency and windows in the time zone of the shop."""

from __future__ import annotations

import json
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.data.days import parse_zone
from d2c_mlops.data.layouts.leads import pack_lead_fields, simulate_campaign
from d2c_mlops.data.simulate import shop
from d2c_mlops.data.tables import Tables
from d2c_mlops.data.validation import validate
from d2c_mlops.errors import DataRefused
from d2c_mlops.models.core.conformance import absurd_future
from d2c_mlops.models.core.model import MODEL_FILE, load
from d2c_mlops.models.forecasting.forecasting import DemandForecaster
from d2c_mlops.models.forecasting.panel import panel_of
from d2c_mlops.models.lead_scoring.lead_scoring import LeadScorer
from d2c_mlops.models.lead_scoring.leakage_guard import fields_with_late_times
from d2c_mlops.models.lead_scoring.training import learning_sample
from d2c_mlops.models.segmentation.customer_features import customer_features, spend_between

PACIFIC = "America/Los_Angeles"


def order_tables(times: list[pd.Timestamp], zone: str, customer: str = "ann") -> Tables:
    """Return orders of one line each at these instants."""
    ids = [str(i) for i in range(len(times))]
    head = {"order_id": ids, "channel": "web", "currency": "USD", "ordered_at": times}
    line = head | {"line_no": 1, "product_id": "mug", "quantity": 1.0, "returned_quantity": 0.0, "cancelled": False}
    orders = validate("orders", pd.DataFrame(head | {"customer_id": customer, "source": "test"}))
    lines = validate("order_lines", pd.DataFrame(line | {"unit_price": 5.0, "discount": 0.0}))
    return Tables({"orders": orders, "order_lines": lines}, zone)


def evenings(zone: str, first: str, last: str) -> list[pd.Timestamp]:
    return list(pd.date_range(f"{first} 21:30", f"{last} 21:30", tz=parse_zone(zone)))


@pytest.mark.parametrize("zone", [PACIFIC, "UTC-08:00", "Asia/Tokyo", "Asia/Kolkata", "Pacific/Auckland"])
def test_panels_hold_the_days_of_the_shop(zone: str) -> None:
    times = evenings(zone, "2024-02-01", "2024-03-20")
    open_days = [t for t in times if t.day_name() != "Sunday"]
    panel = panel_of(order_tables(open_days, zone), date(2024, 3, 20))
    weekdays = pd.DatetimeIndex(panel.dates).day_name()
    assert np.isnan(panel.sold[weekdays == "Sunday"]).all() and (panel.sold[weekdays != "Sunday"] == 1).all()


def test_weeks_are_seven_of_the_shops_days_over_a_change_of_clocks() -> None:
    panel = panel_of(order_tables(evenings(PACIFIC, "2024-02-18", "2024-03-16"), PACIFIC), date(2024, 3, 16), freq="W")
    assert panel.sold[:, 0].tolist() == [7.0] * 4


@pytest.mark.parametrize("zone", [PACIFIC, "UTC-07:00"])
def test_recency_and_purchase_days_are_counted_in_the_shops_days(zone: str) -> None:
    moments = ["2024-03-08T20:00-08:00", "2024-03-09T23:30-08:00", "2024-03-09T09:00-08:00", "2024-03-12T22:30-07:00"]
    tables = order_tables([pd.Timestamp(m) for m in moments], zone)
    found = customer_features(tables, date(2024, 3, 12)).iloc[0]
    shifted = 1 if zone == "UTC-07:00" else 0  # 23:30 in winter is the next day of a clock that is always in summer
    assert (found["recency_days"], found["tenure_days"], found["purchases"]) == (0.0, 4.0, 3.0 + shifted)
    narrow = customer_features(tables, date(2024, 3, 12), habits=False).iloc[0]
    assert narrow[["recency_days", "tenure_days", "purchases"]].tolist() == [0.0, 4.0, 3.0 + shifted]


def test_recency_is_the_difference_of_calendar_days_all_year() -> None:
    rng = np.random.default_rng(3)
    instants = pd.to_datetime(1.68e9 + rng.uniform(0, 3.2e7, 300), unit="s", utc=True).sort_values()
    names = [f"c{i:03d}" for i in range(300)]
    tables = order_tables(list(instants), PACIFIC)
    tables = Tables({**tables, "orders": tables["orders"].assign(customer_id=pd.array(names, dtype="str"))}, PACIFIC)
    as_of = instants[-1].tz_convert(PACIFIC).date()
    found = customer_features(tables, as_of).set_index("customer_id")["recency_days"]
    expected = [(as_of - instant.tz_convert(PACIFIC).date()).days for instant in instants]
    assert found.reindex(names).tolist() == expected


def test_money_after_a_day_begins_on_the_next_day_of_the_shop() -> None:
    tables = order_tables([pd.Timestamp("2024-03-09T23:30-08:00"), pd.Timestamp("2024-03-10T00:30-08:00")], PACIFIC)
    assert spend_between(tables, date(2024, 3, 9), date(2024, 3, 10)).tolist() == [5.0]
    assert spend_between(tables, date(2024, 3, 8), date(2024, 3, 9)).tolist() == [5.0]


def test_the_forecaster_is_as_good_in_any_zone() -> None:
    home = shop(days=200, customers=200)
    moved = Tables(
        {
            name: frame.assign(**{c: frame[c] + pd.Timedelta(hours=9) for c in frame.select_dtypes("datetimetz")})
            for name, frame in home.items()
        },
        "UTC-09:00",
    )
    day = date(2023, 7, 19)
    here, there = (DemandForecaster(horizon=7).fit(t, day) for t in (home, moved))
    records = here.records(home, day)
    pd.testing.assert_frame_equal(here.predict(records), there.predict(records))
    assert there.zone == "UTC-09:00" and there.evaluate(moved, day).value == here.evaluate(home, day).value


def test_a_saved_model_knows_its_zone_and_one_of_before_means_utc(tmp_path: Path) -> None:
    home = shop(days=200, customers=100)
    tables, day = Tables(dict(home), PACIFIC), date(2023, 7, 19)
    DemandForecaster(horizon=7).fit(tables, day).save(tmp_path / "model")
    assert load(tmp_path / "model").zone == PACIFIC
    described = json.loads((tmp_path / "model" / MODEL_FILE).read_text())
    del described["zone"]
    (tmp_path / "model" / MODEL_FILE).write_text(json.dumps(described))
    former = load(tmp_path / "model")
    assert former.zone == "UTC" and len(former.records(home, day))


def test_a_model_is_not_asked_about_the_days_of_another_zone() -> None:
    home, day = shop(days=200, customers=100), date(2023, 7, 19)
    model = DemandForecaster(horizon=7).fit(home, day)
    with pytest.raises(DataRefused, match="days of UTC, and the days of these tables are those of Asia/Tokyo"):
        model.records(Tables(dict(home), "Asia/Tokyo"), day)
    leads = simulate_campaign(leads=600)
    scorer = LeadScorer().fit(Tables({"leads": leads}), date(2023, 11, 30))
    with pytest.raises(DataRefused, match="Asia/Tokyo"):
        scorer.records(Tables({"leads": leads}, "Asia/Tokyo"), date(2023, 11, 30))


def test_the_absurd_future_begins_after_the_shops_day() -> None:
    tables = order_tables([pd.Timestamp("2024-03-09T23:30-08:00")], PACIFIC)
    poisoned = absurd_future(tables, date(2024, 3, 9))
    assert len(poisoned["order_lines"]) == 2 and len(poisoned.before(date(2024, 3, 9))["order_lines"]) == 1


# -- leads


def test_times_in_fields_are_those_of_the_shops_clocks() -> None:
    scored_at = pd.Series(pd.to_datetime(["2024-03-01T10:00+01:00"] * 50, utc=True))
    seen_before = pd.DataFrame({"last_visit": pd.Series(["2024-03-01 09:50"] * 50, dtype="str")})
    seen_after = pd.DataFrame({"last_visit": pd.Series(["2024-03-01 10:30"] * 50, dtype="str")})
    assert fields_with_late_times(seen_before, scored_at, "Europe/Berlin") == []
    assert [f.where for f in fields_with_late_times(seen_after, scored_at, "Europe/Berlin")] == ["last_visit"]
    elsewhere = pd.Series(pd.to_datetime(["2024-03-01T10:00-08:00"] * 50, utc=True))
    assert [f.where for f in fields_with_late_times(seen_after, elsewhere, PACIFIC)] == ["last_visit"]


def test_leads_of_an_evening_are_of_one_day() -> None:
    leads = simulate_campaign(leads=40).assign(
        scored_at=pd.date_range("2024-03-02T21:00", periods=40, freq="5min", tz=PACIFIC).tz_convert("UTC").as_unit("us")
    )
    leads["outcome_at"] = leads["scored_at"] + timedelta(hours=1)
    days = learning_sample(leads, PACIFIC).days
    assert (
        sorted(set(days.astype(str))) == ["2024-03-02", "2024-03-03"] and (days.astype(str) == "2024-03-02").sum() == 36
    )
    assert (learning_sample(leads, PACIFIC).rows(slice(0, 3)).days == days[:3]).all()


def test_times_with_a_zone_in_fields_are_written_in_utc() -> None:
    raw = pd.DataFrame({"lead_id": ["a"], "scored_at": ["2024-03-01"], "seen": pd.to_datetime(["2024-03-01T09:00"])})
    packed = pack_lead_fields(raw.assign(seen=raw["seen"].dt.tz_localize(PACIFIC)))
    assert json.loads(packed["fields"][0]) == {"seen": "2024-03-01T17:00:00Z"}
