"""Customer features: what the query says, as of a day, exactly the same each time, and what it refuses."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.data.simulate import shop
from d2c_mlops.data.store import write_dataset
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import DataRefused, UsageError
from d2c_mlops.models.segmentation.customer_features import (
    BOUGHT,
    counted_lines_sql,
    customer_features,
    habits_query,
    spend_between,
    spend_in_window,
    visits_query,
)
from support.purchases import bought, on

TODAY = date(2024, 3, 31)


def one(tables: Tables, as_of: date = TODAY) -> pd.Series[Any]:
    return customer_features(tables, as_of).iloc[0]


def test_two_orders_on_a_day_are_one_purchase() -> None:
    found = one(bought([on("03-01"), on("03-01"), on("03-21", unit_price=40)]))
    assert (found.recency_days, found.tenure_days, found.purchases) == (10, 30, 2)
    assert found.order_value == 30 and found.spend_90d == 60


def test_returns_and_discounts_leave_the_net_value() -> None:
    found = one(bought([on("03-01", quantity=4, discount=8, returned_quantity=1, returned_at="2024-03-09")]))
    assert found.order_value == 24 and found.return_share == 0.25 and found.discount_share == 0.2


def test_a_return_after_the_day_is_not_known() -> None:
    tables = bought([on("03-01", quantity=4, returned_quantity=4, returned_at="2024-03-09")])
    assert one(tables, date(2024, 3, 8)).order_value == 40
    assert one(tables).order_value == 0 and one(tables).return_share == 1


def test_a_cancelled_line_never_happened() -> None:
    found = one(bought([on("03-01"), on("03-20", cancelled=True, cancelled_at="2024-03-20T14:00")]))
    assert (found.recency_days, found.purchases) == (30, 1)


def test_guests_have_no_row() -> None:
    assert customer_features(bought([on("03-01"), on("03-02", customer_id=None)]), TODAY).customer_id.tolist() == ["c"]


def test_margin_is_known_where_costs_are() -> None:
    products = pd.DataFrame({"product_id": ["mug", "tea"], "unit_cost": [4.0, None]})
    found = customer_features(
        bought(
            [on("03-01", quantity=2, returned_quantity=1), on("03-02", product_id="tea", customer_id="d")], products
        ),
        TODAY,
    ).set_index("customer_id")
    assert found.margin_share["c"] == 0.6 and np.isnan(found.margin_share["d"])


def test_breadth_counts_categories_and_products_without_one() -> None:
    products = pd.DataFrame({"product_id": ["mug", "cup", "tea"], "category": ["home", "home", None]})
    tables = bought([on("03-01"), on("03-02", product_id="cup"), on("03-03", product_id="tea")], products)
    assert one(tables).category_breadth == 2
    assert one(bought([on("03-01"), on("03-02", product_id="cup")])).category_breadth == 2  # no table of products


@pytest.mark.parametrize("kinds", [64, 65, 127, 128])
def test_many_categories_are_counted_like_few(kinds: int) -> None:
    products = pd.DataFrame({"product_id": [f"p{i}" for i in range(kinds)]}).assign(
        category=lambda f: f.product_id + "!"
    )
    tables = bought([on("03-01", product_id=f"p{i}") for i in range(kinds)], products)
    width = {64: "1::ubigint <<", 65: "1::hugeint <<", 127: "1::hugeint <<", 128: "count(code)"}[kinds]
    assert width in habits_query(tables)
    assert one(tables).category_breadth == kinds


def test_the_main_channel_is_the_first_by_name_of_equals() -> None:
    rows = [on(f"03-0{i + 1}", channel=c) for i, c in enumerate(["web", "app", "app", "web", "shop"])]
    found = one(bought(rows))
    assert found.main_channel == "web" and found.main_channel_share == 0.4


def test_it_is_what_a_groupby_says() -> None:
    tables, today = shop(customers=150, days=300, seed=4), date(2023, 9, 30)
    known = tables.before(today)
    heads = known["orders"].dropna(subset="customer_id").query("cancelled_at.isna()")
    lines = known["order_lines"].query("not cancelled").merge(heads[["order_id", "customer_id"]])
    net = (lines.quantity * lines.unit_price - lines.discount) * (1 - lines.returned_quantity / lines.quantity)
    total = net.groupby(lines.customer_id).sum()
    found = customer_features(tables, today).set_index("customer_id")
    np.testing.assert_allclose(found.order_value * found.purchases, total.reindex(found.index), atol=0.01)
    labels = known["products"].set_index("product_id").category
    kinds = lines.product_id.map(labels).groupby(lines.customer_id).nunique()
    assert (found.category_breadth == kinds.reindex(found.index)).all()


def test_from_memory_and_from_parquet_it_is_the_same_to_the_last_digit(tmp_path: Path) -> None:
    tables, today = shop(customers=300, days=300), date(2023, 9, 30)
    write_dataset(tmp_path, "shop", dict(tables), "here", layout="test", created_at=datetime(2024, 1, 1, tzinfo=UTC))
    stored, given = customer_features(Tables.open(tmp_path, "shop"), today), customer_features(tables, today)
    pd.testing.assert_frame_equal(stored, given, check_exact=True)
    frames = {name: frame.sample(frac=1, random_state=1, ignore_index=True) for name, frame in tables.items()}
    pd.testing.assert_frame_equal(customer_features(Tables(frames), today), given, check_exact=True)


@pytest.mark.parametrize("late", [False, True])
def test_a_line_in_another_year_than_its_order_still_counts(tmp_path: Path, late: bool) -> None:
    tables, today = shop(customers=100, days=500), date(2024, 9, 30)
    lines = tables["order_lines"].reset_index(drop=True)
    if late:
        lines.loc[7, "ordered_at"] += pd.Timedelta(days=365)
    given = Tables({**tables, "order_lines": lines})
    write_dataset(tmp_path, "shop", dict(given), "here", layout="test", created_at=datetime(2024, 1, 1, tzinfo=UTC))
    stored = Tables.open(tmp_path, "shop")
    assert stored.before(today).years("orders", "order_lines") == ["2023", "2024"]
    by_year = visits_query(BOUGHT, stored.years("orders", "order_lines"))
    query = by_year.replace("$age", "0").replace("$counted", "not cancelled")
    if late:
        with pytest.raises(UsageError, match="whose order is elsewhere"):
            stored.sql(query)
    else:
        assert len(stored.sql(query)) > 100
    for habits in (False, True):
        found, wanted = (customer_features(each, today, habits) for each in (stored, given))
        pd.testing.assert_frame_equal(found, wanted, check_exact=True)


def test_tables_of_products_without_costs_still_answer() -> None:
    tables, today = shop(customers=50, days=100), date(2023, 4, 1)
    old = Tables({**tables, "products": tables["products"].drop(columns="unit_cost")})
    found, full = customer_features(old, today), customer_features(tables, today)
    assert found.margin_share.isna().all() and full.margin_share.notna().all()
    pd.testing.assert_frame_equal(found.drop(columns="margin_share"), full.drop(columns="margin_share"))


def test_negative_prices_are_refused_twice() -> None:
    with pytest.raises(DataRefused, match="negative"):
        bought([on("03-01", unit_price=-5)])
    with pytest.raises(DataRefused, match="unit_price below 0"):
        customer_features(bought([on("03-01", unit_price=-5), on("03-02")], valid=False), TODAY)


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("habits", [True, False])
@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"unit_price": -5.0}, "unit_price below 0"),
        ({"unit_price": np.inf}, "values without end"),
        ({"discount": np.nan}, "missing values"),
        ({"returned_quantity": np.nan}, "missing values"),
        ({"quantity": 0.0}, "quantity not above 0"),
        ({"returned_quantity": 2.0}, "more returned than bought"),
        ({"returned_quantity": -1.0}, "more returned than bought"),
        ({"currency": "GBP"}, "EUR and GBP"),
    ],
)
def test_a_line_that_cannot_be_is_found_among_cancelled_lines_and_guests(
    bad: dict[str, Any], said: str, habits: bool, stored: bool, tmp_path: Path
) -> None:
    tables = bought([on("03-01"), on("03-02", cancelled=True, customer_id=None)])
    lines = tables["order_lines"].copy()
    for name, value in bad.items():
        lines.loc[1, name] = value
    made = Tables({**tables, "order_lines": lines})
    if stored:
        write_dataset(tmp_path, "shop", dict(made), "here", layout="test", created_at=datetime(2024, 1, 1, tzinfo=UTC))
        made = Tables.open(tmp_path, "shop")
    with pytest.raises(DataRefused, match=said):
        customer_features(made, TODAY, habits=habits)


def test_what_the_footers_tell_is_not_tested_line_by_line(tmp_path: Path) -> None:
    tables = bought([on("03-01"), on("03-02", unit_price=5e15)])
    write_dataset(tmp_path, "shop", dict(tables), "here", layout="test", created_at=datetime(2024, 1, 1, tzinfo=UTC))
    stored = Tables.open(tmp_path, "shop")
    assert "isfinite" in counted_lines_sql(stored) and "isfinite" in counted_lines_sql(tables)
    write_dataset(
        tmp_path,
        "shop",
        dict(bought([on("03-01")])),
        "here",
        layout="test",
        created_at=datetime(2024, 1, 1, tzinfo=UTC),
    )
    assert "isfinite" not in counted_lines_sql(Tables.open(tmp_path, "shop"))


def test_a_line_that_comes_later_does_not_matter_yet() -> None:
    tables = bought([on("03-01"), on("03-20", unit_price=-5)], valid=False)
    assert one(tables, date(2024, 3, 10)).order_value == 10


def test_lines_without_a_currency_are_added() -> None:
    tables = bought([on("03-01"), on("03-02")])
    lines = tables["order_lines"].assign(currency=pd.Series([None, "O'D"], dtype="str"))
    assert one(Tables({**tables, "order_lines": lines})).spend_90d == 20


def test_two_currencies_are_not_added() -> None:
    with pytest.raises(DataRefused, match="EUR and GBP"):
        customer_features(bought([on("03-01"), on("03-02", currency="GBP")]), TODAY)


@pytest.mark.parametrize("as_of", [date(2020, 1, 1), date(2024, 2, 29)])
def test_a_day_before_the_first_order_is_refused(as_of: date) -> None:
    with pytest.raises(DataRefused, match="no known customer"):
        customer_features(bought([on("03-01")]), as_of)


def test_tables_without_orders_are_refused() -> None:
    with pytest.raises(DataRefused, match="orders: is missing"):
        customer_features(Tables({"order_lines": bought([on("03-01")])["order_lines"]}), TODAY)


def test_what_came_is_the_net_spend_of_the_window() -> None:
    tables = bought(
        [
            on("03-01"),
            on("03-10", quantity=3, returned_quantity=1, returned_at="2024-03-30"),
            on("03-20", customer_id="d"),
        ]
    )
    assert spend_between(tables, date(2024, 3, 1), TODAY).to_dict() == {"c": 20.0, "d": 10.0}
    assert spend_between(tables, date(2024, 3, 1), date(2024, 3, 29)).to_dict() == {"c": 30.0, "d": 10.0}
    known = customer_features(tables, date(2024, 3, 1))
    assert spend_in_window(known, tables, date(2024, 3, 15), TODAY).tolist() == [0.0]
    with pytest.raises(UsageError, match="not after"):
        spend_between(tables, TODAY, TODAY)
