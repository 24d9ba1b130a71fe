"""A simulated shop is the same for a seed, a day alone is the day of the whole, and its sums reconcile."""

import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2c_mlops.data.simulate import Shop
from d2c_mlops.data.simulate.fulfilment import LATEST, NEVER
from d2c_mlops.data.simulate.script import event
from d2c_mlops.data.simulate.world.draws import poisson_counts, uniform_draws
from d2c_mlops.data.validation import validate_all
from d2c_mlops.errors import UsageError
from support.simulated import SMALL, digest_of

START = date(2024, 1, 1)
# Of the columns below for SMALL: another value means that the same seed gives another shop than it gave before.
DIGEST = "8da543e1dc52623b264ef029c36cb04b6114aa29f9986537d5f292b1915b5463"
CODE = """
import sys
sys.path.insert(0, {tests!r})
from support.simulated import SMALL, digest_of
from d2c_mlops.data.simulate import Shop
print(digest_of(Shop(**SMALL)))
"""


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop(**SMALL)


def test_the_digest_of_a_seed_is_the_stored_one(shop: Shop) -> None:
    assert digest_of(shop) == DIGEST


def test_another_seed_gives_another_shop() -> None:
    assert digest_of(Shop(**{**SMALL, "seed": 4, "days": 3})) != digest_of(Shop(**{**SMALL, "days": 3}))


@pytest.mark.slow
def test_another_process_with_other_threads_and_hash_seed_gives_the_same_shop() -> None:
    code = CODE.format(tests=str(Path(__file__).parents[2]))
    env = {"PYTHONHASHSEED": "77", "OMP_NUM_THREADS": "1", "NPY_DISABLE_CPU_FEATURES": "AVX512F AVX2 FMA3"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], env=env, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == DIGEST


def test_a_day_alone_is_that_day_of_the_whole(shop: Shop) -> None:
    fresh = Shop(**SMALL)
    for number in (47,):
        day = START + timedelta(days=number)
        alone, whole = fresh.day(day), shop.day(day)
        assert set(alone) == set(whole)
        for name in whole:
            pd.testing.assert_frame_equal(alone[name], whole[name])


@pytest.mark.slow
@given(st.lists(st.integers(0, 59), min_size=1, max_size=4))
@settings(max_examples=25, deadline=None)
def test_a_day_alone_is_that_day_of_the_whole_in_any_order(shop: Shop, numbers: list[int]) -> None:
    fresh = Shop(**SMALL)
    for number in numbers:
        day = START + timedelta(days=number)
        alone, whole = fresh.day(day), shop.day(day)
        assert set(alone) == set(whole)
        for name in whole:
            pd.testing.assert_frame_equal(alone[name], whole[name])


def test_a_shop_of_fewer_customers_a_day_or_one_product_or_one_day_is_whole() -> None:
    for size in (
        {"days": 1},
        {"products": 1},
        {"orders": 0.5, "days": 20},
        {"products": 3, "regime": "grocer", "days": 5},
    ):
        tables = Shop(**{**SMALL, **size}).tables()
        assert set(validate_all(tables)) == set(tables)


@pytest.mark.parametrize("regime", ["grocer", "fashion", "gift"])
def test_the_tables_of_every_regime_keep_their_schemas(regime: str) -> None:
    tables = Shop(
        regime=regime,
        seed=1,
        days=40,
        orders=20,
        zones=("Europe/Berlin", "America/New_York"),
        currencies=("EUR", "USD"),
    ).tables()
    checked = validate_all(tables)
    assert all(checked[name].equals(tables[name]) for name in tables)
    assert set(tables["orders"]["currency"]) == {"EUR", "USD"} and tables.zone == "Europe/Berlin"


def test_days_are_those_of_the_shops_zone() -> None:
    shop = Shop(**{**SMALL, "days": 5}, zones=("America/Los_Angeles",))
    orders = shop.day(START + timedelta(days=2)).orders
    new = orders[orders["updated_at"] == orders["ordered_at"]]
    assert set(new["ordered_at"].dt.tz_convert("America/Los_Angeles").dt.date) == {date(2024, 1, 3)}
    assert len(set(new["ordered_at"].dt.date)) == 2


def test_days_have_23_and_25_hours_where_clocks_change() -> None:
    shop = Shop(**{**SMALL, "days": 2, "orders": 300}, start=date(2024, 3, 30), zones=("Europe/Berlin",))
    local = shop.tables()["orders"]["ordered_at"].dt.tz_convert("Europe/Berlin")
    assert set(local.dt.date) == {date(2024, 3, 30), date(2024, 3, 31)}


def test_every_order_arrives_once_on_its_day_or_late(shop: Shop) -> None:
    orders = pd.concat([shop.day(day).orders.assign(arrived=day) for day in shop.dates], ignore_index=True)
    first = orders.drop_duplicates("order_id")
    wait = (pd.to_datetime(first["arrived"]) - first["ordered_at"].dt.tz_localize(None).dt.floor("D")).dt.days
    assert wait.min() == 0 and 0 < (wait > 0).mean() < 0.05 and wait.max() <= 4
    again = orders[orders.duplicated("order_id")]
    assert len(again) and again["country"].notna().all()
    corrected = first[first["order_id"].isin(again["order_id"])]
    assert corrected["country"].isna().all()
    sales = first[first["tags"] == ""]
    known = shop.tables()["orders"]
    late = known[~known["order_id"].isin(sales["order_id"])]
    assert set(sales["order_id"]) <= set(known["order_id"])
    assert (late["ordered_at"] > pd.Timestamp(shop.dates[-1], tz="UTC") - pd.Timedelta(days=4)).all()


def cents(column: "pd.Series[float]") -> "pd.Series[int]":
    return (column * 100).round().astype("int64")


@pytest.mark.parametrize("regime", ["grocer", pytest.param("fashion", marks=pytest.mark.slow)])
def test_orders_equal_payments_less_refunds_to_the_cent(regime: str) -> None:
    shop = Shop(regime=regime, seed=2, days=LATEST + 15, orders=15, products=50)
    days = [shop.day(day) for day in shop.dates]
    payments = pd.concat([day.payments for day in days], ignore_index=True)
    refunds = pd.concat([day.refunds for day in days], ignore_index=True)
    signed = cents(payments["amount"]) * np.where(payments["kind"] == "payment", 1, -1)
    got = signed.groupby(payments["order_id"]).sum()
    expected, settled = {}, shop.world.starts[15]
    for number in range(15):
        happened = shop.history.full_day(number).happened
        orders, lines = happened.orders, happened.lines
        assert (np.where(orders["fulfilled"] == NEVER, 0, orders["fulfilled"]) < shop.world.starts[-1]).all()
        left = orders["net"] - np.bincount(lines["order"], lines["refund"], len(orders["net"]))
        left = np.where(orders["cancelled"] != NEVER, 0, left)
        expected |= dict(zip((f"O{n:012d}" for n in orders["number"]), left.astype(int), strict=True))
    paid_later = {order for order, amount in expected.items() if order not in got.index}
    assert all(expected[order] == 0 for order in paid_later)
    assert {order: int(got[order]) for order in expected if order in got.index} == {
        o: a for o, a in expected.items() if o in got.index
    }
    back = payments[payments["kind"] == "refund"]
    assert cents(refunds["amount"]).sum() <= cents(back["amount"]).sum() and settled > 0


def test_lines_in_the_export_of_orders_are_worth_their_payments(shop: Shop) -> None:
    days = [shop.day(day) for day in shop.dates]
    lines, payments = (pd.concat([day[name] for day in days], ignore_index=True) for name in ("lines", "payments"))
    worth = (cents(lines["unit_price"]) * lines["quantity"] - cents(lines["discount"])).groupby(lines["order_id"]).sum()
    paid = cents(payments.loc[payments["kind"] == "payment", "amount"]).groupby(payments["order_id"]).sum()
    both = worth.index.intersection(paid.index)
    assert len(both) > 0.9 * len(worth) and (worth[both] == paid[both]).all()


def test_what_is_sold_comes_from_the_stock(shop: Shop) -> None:
    demand = shop.truth.demand
    stock = pd.concat([shop.day(day).stock.assign(date=pd.Timestamp(day)) for day in shop.dates[:20]])
    both = demand.merge(stock, on=["date", "product_id"], suffixes=("", "_of_stock"))
    assert (both["opening"] - both["sold"] == both["closing"]).all() and (both["closing"] >= 0).all()
    assert (both.loc[both["lost"] > 0, "closing"] == 0).all() and demand["lost"].sum() > 0
    assert (demand["demanded"] == demand["sold"] + demand["lost"]).all()


def test_nothing_is_lost_where_stock_has_no_end() -> None:
    assert Shop(**{**SMALL, "days": 20}, stock=False).truth.demand["lost"].sum() == 0


def test_unknown_days_and_sizes_are_refused_with_the_range(shop: Shop) -> None:
    with pytest.raises(UsageError, match="no day 2023-12-31"):
        shop.day(date(2023, 12, 31))
    with pytest.raises(UsageError, match="no day 2024-03-01"):
        shop.day(date(2024, 3, 1))
    for wrong in (
        {"days": 0},
        {"products": 0},
        {"orders": 0.0},
        {"regime": "bookshop"},
        {"currencies": ("XXX",)},
        {"zones": ("Mars",)},
    ):
        with pytest.raises(UsageError):
            Shop(**{**SMALL, **wrong})


def test_exports_do_not_hold_the_truth() -> None:
    events = [
        event("mailing", "treatment", date(2024, 1, 10), 0.2),
        event("planners", "overrides", date(2024, 1, 2), 1.0, rule="category:shoes"),
        event("looser", "lead_definition", date(2024, 1, 2), 1.0),
    ]
    shop = Shop(**{**SMALL, "orders": 60}, events=events)
    day = shop.day(date(2024, 1, 10))
    columns = {column for name in day for column in day[name].columns}
    truth = {"effect", "expected", "right", "own", "cross", "demanded", "lost", "probability", "loose", "true"}
    assert len(day.treatments) and len(day.overrides) and not columns & truth


def test_draws_do_not_depend_on_order_or_company() -> None:
    numbers = np.arange(1000)
    assert np.array_equal(uniform_draws(1, "a", numbers)[::-1], uniform_draws(1, "a", numbers[::-1]))
    assert uniform_draws(1, "a", numbers[:5]).round(12).tolist() == FIRST_DRAWS
    assert (
        poisson_counts(uniform_draws(1, "a", numbers), 2.2) >= poisson_counts(uniform_draws(1, "a", numbers), 2.0)
    ).all()


FIRST_DRAWS = [0.672500393907, 0.094508185694, 0.571366467565, 0.18069986312, 0.121602548052]
