"""The tables: what validate refuses, what before() hides, in memory and in SQL alike."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pandera.errors
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2c_mlops.data import simulate
from d2c_mlops.data.schemas import INTERVALS, KEYS, SCHEMAS, TIME_COLUMN
from d2c_mlops.data.store import write_dataset
from d2c_mlops.data.tables import Tables, day_end, is_unchanged_since, parts_before, parts_sql
from d2c_mlops.data.validation import check_table, read_text, validate, validate_all
from d2c_mlops.errors import DataRefused, UsageError


def lines(**changes: Any) -> pd.DataFrame:
    row: dict[str, Any] = {
        "order_id": "1",
        "line_no": 1,
        "product_id": "mug",
        "ordered_at": "2024-02-29T12:00",
    }
    row |= {"quantity": 2, "returned_quantity": 0, "cancelled": False, "unit_price": 5, "discount": 0}
    row |= {"currency": "EUR", "channel": "web"} | changes
    length = max((len(v) for v in row.values() if isinstance(v, list)), default=1)
    return pd.DataFrame({k: v if isinstance(v, list) else [v] * length for k, v in row.items()})


def same(left: pd.DataFrame, right: pd.DataFrame, key: list[str]) -> None:
    pd.testing.assert_frame_equal(left.sort_values(key, ignore_index=True), right.sort_values(key, ignore_index=True))


def test_every_column_has_a_description_and_a_unit() -> None:
    for schema in SCHEMAS.values():
        for column in schema.columns.values():
            assert column.description and column.metadata and column.metadata["unit"]
    assert set(TIME_COLUMN) <= set(SCHEMAS)
    assert set(KEYS) == set(SCHEMAS)


def test_identifiers_keep_leading_zeros_and_lose_the_float() -> None:
    read = validate("order_lines", lines(product_id=["007", 7, 7.0], line_no=[1, 2, 3]))
    assert read["product_id"].tolist() == ["007", "7", "7"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"quantity": 0}, "order_lines.quantity: must be more than 0: row 1"),
        ({"unit_price": -0.001}, "order_lines.unit_price: must not be negative"),
        ({"unit_price": "5,00"}, "order_lines.unit_price: cannot be read as a number: row 1 ('5,00')"),
        ({"unit_price": float("inf")}, "cannot be read as a number"),
        ({"discount": 10.02}, "discount must not be more than quantity * unit_price"),
        ({"returned_quantity": 3}, "returned_quantity must not be more than quantity"),
        ({"currency": "euro"}, "three capital letters"),
        ({"currency": None}, "order_lines.currency: must not be empty"),
        ({"ordered_at": None}, "order_lines.ordered_at: must not be empty"),
        ({"ordered_at": 20240229}, "cannot be read as a time"),
        ({"ordered_at": "29/02/2024"}, "cannot be read as a time"),
        ({"cancelled": "perhaps"}, "must be true or false"),
        ({"cancelled": None}, "must be true or false"),
        ({"line_no": 1.5}, "must be a whole number"),
        ({"order_id": ["1", "2", "1"]}, "order_id, line_no must be unique: row 3"),
    ],
)
def test_a_broken_rule_is_refused_with_column_and_row(change: dict[str, Any], told: str) -> None:
    with pytest.raises(DataRefused) as refused:
        validate("order_lines", lines(**change), source_name="lines.csv")
    assert told in str(refused.value)
    assert "lines.csv" in str(refused.value)
    assert len(refused.value.failures) == 1


def test_a_discount_may_be_off_by_a_cent() -> None:
    assert validate("order_lines", lines(discount=10.01))["discount"].item() == 10.01


def test_all_failures_are_collected_before_anything_is_refused() -> None:
    bad = lines(quantity=-1, currency="x", ordered_at="never", line_no=[1, 1]).drop(columns="discount")
    _, failures = check_table("order_lines", bad.rename(columns={"channel": "chanel"}))
    told = "\n".join(str(f) for f in failures)
    for part in (
        "'discount' is missing",
        "nearest column there is 'chanel'",
        "quantity",
        "currency",
        "ordered_at",
    ):
        assert part in told
    assert "order_id, line_no must be unique" in told


def test_naive_times_are_utc_and_offsets_are_honoured() -> None:
    read = validate("order_lines", lines(ordered_at=["2024-03-01T00:30:00+01:00", "2024-02-29 23:30"], line_no=[1, 2]))
    assert len(set(read["ordered_at"])) == 1
    assert str(read["ordered_at"].dtype) == "datetime64[us, UTC]"


def test_decimals_and_python_dates_from_a_database_are_read() -> None:
    read = validate("order_lines", lines(unit_price=Decimal("5.10"), ordered_at=date(2024, 2, 29)))
    assert read["unit_price"].item() == 5.10
    assert read["ordered_at"].item() == pd.Timestamp("2024-02-29", tz="UTC")


def test_a_line_without_its_order_is_refused() -> None:
    tables = dict(simulate.shop(customers=20, days=60))
    tables["orders"] = tables["orders"].iloc[1:]
    with pytest.raises(DataRefused, match="must exist in table 'orders'"):
        validate_all(tables)


@given(st.lists(st.one_of(st.none(), st.text(), st.integers(), st.floats()), max_size=20))
def test_reading_text_twice_changes_nothing(values: list[object]) -> None:
    once, _ = read_text(pd.Series(values, dtype=object))
    twice, _ = read_text(once)
    assert once.dtype == "str"
    assert once.equals(twice)


cells = {
    "quantity": st.sampled_from([1.0, 0.0, -1.0, 2.5, None]),
    "returned_quantity": st.sampled_from([0.0, 1.0, 3.0]),
    "discount": st.sampled_from([0.0, 5.0, 5.01, 6.0, None]),
    "currency": st.sampled_from(["EUR", "eur", None]),
    "line_no": st.integers(0, 3),
}


@settings(max_examples=25, deadline=None)
@given(st.lists(st.fixed_dictionaries(cells), min_size=1, max_size=4))
def test_validate_and_the_pandera_schema_agree(rows: list[dict[str, object]]) -> None:
    frame = pd.concat([lines(**row) for row in rows], ignore_index=True)
    coerced, failures = check_table("order_lines", frame)
    try:
        SCHEMAS["order_lines"].validate(coerced, lazy=True)
        fine = True
    except pandera.errors.SchemaErrors:
        fine = False
    assert fine == (not failures)


def test_before_keeps_the_last_microsecond_of_the_day_and_nothing_later() -> None:
    frame = lines(ordered_at=["2024-02-29T23:59:59.999999", "2024-03-01T00:00:00"], line_no=[1, 2])
    known = Tables({"order_lines": validate("order_lines", frame)}).before(date(2024, 2, 29))
    assert known["order_lines"]["line_no"].tolist() == [1]
    assert known.sql("SELECT line_no FROM order_lines")["line_no"].tolist() == [1]


def test_returns_and_cancellations_of_later_days_have_not_happened() -> None:
    frame = lines(
        line_no=[1, 2, 3, 4],
        returned_quantity=[1, 1, 1, 0],
        returned_at=["2024-02-29T23:59:59", "2024-03-01T00:00:00", None, None],
        cancelled=[False, False, False, True],
        cancelled_at=[None, None, None, "2024-03-02"],
    )
    known = Tables({"order_lines": validate("order_lines", frame)}).before(date(2024, 2, 29))
    assert known["order_lines"]["returned_quantity"].tolist() == [1, 0, 1, 0]
    assert known["order_lines"]["returned_at"].notna().tolist() == [True, False, False, False]
    assert not known["order_lines"]["cancelled"].any()
    assert known["order_lines"]["cancelled_at"].isna().all()
    same(known.sql("SELECT * FROM order_lines"), known["order_lines"], ["line_no"])
    later = Tables({"order_lines": validate("order_lines", frame)}).before(date(2024, 3, 2))
    assert later["order_lines"]["returned_quantity"].tolist() == [1, 1, 1, 0]
    assert later["order_lines"]["cancelled"].tolist() == [False, False, False, True]


@cache
def small_shop() -> Tables:
    return simulate.shop(customers=30, days=120)


@settings(max_examples=15, deadline=None)
@given(st.dates(date(2022, 12, 30), date(2023, 6, 10)))
def test_before_in_memory_and_in_sql_agree(as_of: date) -> None:
    known = small_shop().before(as_of)
    for name, frame in known.items():
        same(known.sql(f"SELECT * FROM {name}"), frame, KEYS[name])


def test_before_twice_keeps_the_earlier_day() -> None:
    shop = simulate.shop(customers=30, days=120)
    first, second = date(2023, 2, 1), date(2023, 3, 1)
    assert shop.before(first).before(second)["orders"].equals(shop.before(first)["orders"])
    assert shop.before(second).before(first)["orders"].equals(shop.before(first)["orders"])


@pytest.mark.parametrize("wrong", ["2024-02-29", pd.Timestamp("2024-02-29"), None])
def test_as_of_must_be_a_plain_date(wrong: Any) -> None:
    with pytest.raises(UsageError, match=r"datetime\.date"):
        simulate.shop(customers=5, days=20).before(wrong)


def test_frames_handed_out_cannot_change_the_tables() -> None:
    shop = simulate.shop(customers=20, days=60)
    frame = shop["order_lines"]
    frame.loc[:, "quantity"] = -1.0
    assert shop["order_lines"]["quantity"].min() >= 1


def test_frames_with_naive_times_are_refused_by_the_constructor() -> None:
    with pytest.raises(DataRefused, match="validate"):
        Tables({"orders": pd.DataFrame({"ordered_at": pd.to_datetime(["2024-01-01"])})})


def test_sql_binds_parameters_and_answers_in_plain_types() -> None:
    shop = simulate.shop(customers=30, days=120)
    hostile = "'; DROP VIEW orders; --"
    assert shop.sql("SELECT count(*) AS n FROM orders WHERE order_id = ?", [hostile])["n"].item() == 0
    answer = shop.sql("SELECT sum(line_no) AS whole, max(ordered_at) AS last, sum(quantity) AS units FROM order_lines")
    assert answer["whole"].dtype == "int64"
    assert str(answer["last"].dtype) == "datetime64[us, UTC]"
    assert answer["units"].item() == shop["order_lines"]["quantity"].sum()


def test_sql_truncates_days_in_utc() -> None:
    frame = lines(ordered_at="2024-02-29T23:30:00+00:00")
    tables = Tables({"order_lines": validate("order_lines", frame)})
    day = tables.sql("SELECT date_trunc('day', ordered_at) AS day FROM order_lines")["day"].item()
    assert day == pd.Timestamp("2024-02-29", tz="UTC")


@pytest.mark.parametrize("transport", [lambda t: t, lambda t: pickle.loads(pickle.dumps(t))])
def test_tables_can_be_used_from_several_threads_and_pickled(transport: Callable[[Tables], Tables]) -> None:
    shop = transport(simulate.shop(customers=30, days=120).before(date(2023, 3, 1)))
    query = "SELECT sum(quantity) AS units FROM order_lines"
    with ThreadPoolExecutor(4) as pool:
        units = list(pool.map(lambda _: shop.sql(query)["units"].item(), range(12)))
    assert set(units) == {shop["order_lines"]["quantity"].sum()}


def test_the_simulated_shop_is_deterministic_valid_and_varied() -> None:
    shop, again = simulate.shop(seed=3), simulate.shop(seed=3)
    for name, frame in validate_all(shop).items():
        assert frame.equals(again[name])
    frame = shop["order_lines"]
    assert 0.02 < (frame["returned_quantity"] > 0).mean() < 0.15
    assert 0.005 < frame["cancelled"].mean() < 0.08
    assert frame["channel"].nunique() == 3
    assert shop["orders"]["customer_id"].isna().any()
    assert (frame["discount"] > 0).any()


@pytest.mark.parametrize("size", [{"customers": 1}, {"products": 1}, {"days": 1}, {"days": 3, "customers": 2}])
def test_the_smallest_shops_are_valid(size: dict[str, Any]) -> None:
    assert set(validate_all(simulate.shop(**size))) == set(SCHEMAS) - {"leads", "sales_totals", *INTERVALS}


def test_a_shop_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="days must be at least 1"):
        simulate.shop(days=0)


def test_a_query_that_cannot_be_answered_says_why() -> None:
    shop = simulate.shop(customers=5, days=20)
    with pytest.raises(UsageError, match="no_such_column"):
        shop.sql("SELECT no_such_column FROM orders")
    with pytest.raises(UsageError, match="gives no rows"):
        shop.sql("-- nothing")


@pytest.mark.parametrize("as_of", [date(2023, 3, 15), date(2023, 6, 30), date(2024, 6, 30)])
def test_parts_are_rewound_in_sql_only_where_they_changed(tmp_path: Path, as_of: date) -> None:
    write_dataset(
        tmp_path,
        "shop",
        dict(simulate.shop(customers=60, days=300)),
        "here",
        layout="test",
        created_at=datetime(2024, 1, 1, tzinfo=UTC),
    )
    known, end = Tables.open(tmp_path, "shop").before(as_of), day_end(as_of)
    assert known.manifest is not None
    for name in ("orders", "order_lines"):
        key = KEYS[name]
        same(known.sql(f"select * from {name}")[list(known[name].columns)], known[name], key)
    years = known.years("orders", "order_lines")
    assert years and known.years("orders", "products") == []
    assert known["order_lines"].ordered_at.dt.strftime("%Y").unique().tolist() == years
    each = [known.sql(f'select count(*) as n from "order_lines {year}"')["n"].item() for year in years]
    assert sum(each) == len(known["order_lines"]) and all(each)
    paths = [path for _, path in parts_before(tmp_path, known.manifest, "order_lines", end)]
    whole = [is_unchanged_since(path, "order_lines", end) for path in paths]
    told = parts_sql("order_lines", paths, end)
    assert ("REPLACE" in told) == (not all(whole)) and all(whole) == (as_of.year == 2024)


def test_bounds_are_those_of_the_rows_and_silent_where_a_value_is_missing(tmp_path: Path) -> None:
    shop = simulate.shop(customers=60, days=300)
    lines = shop["order_lines"].assign(discount=shop["order_lines"]["discount"].mask(shop["order_lines"].index == 3))
    frames = {**shop, "order_lines": lines.assign(returned_quantity=lines["quantity"])}
    write_dataset(tmp_path, "shop", frames, "here", layout="test", created_at=datetime(2024, 1, 1, tzinfo=UTC))
    stored, names = Tables.open(tmp_path, "shop"), ["unit_price", "discount", "currency", "returned_quantity"]
    prices, counts = lines["unit_price"], lines["quantity"]
    told = {"unit_price": (prices.min(), prices.max()), "currency": ("EUR", "EUR")}
    assert stored.bounds("order_lines", names) == told | {"returned_quantity": (counts.min(), counts.max())}
    earlier = stored.before(date(2024, 6, 30)).bounds("order_lines", names)
    assert earlier == told | {"returned_quantity": (0.0, counts.max())}, "what was not yet sent back is none"
    assert shop.bounds("order_lines", names) == stored.bounds("products", ["unit_cost"]) == {}


def test_a_query_keeps_to_the_threads_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    told = Tables({}).sql("select current_setting('threads') as threads, current_setting('worker_threads') as workers")
    assert told.astype(int).to_numpy().tolist() == [[1, 1]]
