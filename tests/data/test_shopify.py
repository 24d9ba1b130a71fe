"""The orders export of Shopify: every order once, no tips or tests among the sales, and lines that are worth what the export says."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d2c_mlops.data.ingestion.ingest import ingest
from d2c_mlops.data.layouts.discovery import Mapped
from d2c_mlops.data.layouts.money import allocate_by_weight, currency_decimals, needed_decimals, to_minor_units
from d2c_mlops.data.layouts.shopify import Shopify
from d2c_mlops.data.layouts.shopify_money import net_line_values, order_differences
from d2c_mlops.data.layouts.shopify_rows import COLUMNS
from d2c_mlops.data.tables import Tables
from d2c_mlops.data.validation import validate_all
from d2c_mlops.errors import DataRefused
from d2c_mlops.models.segmentation.customer_features import customer_features

NOW = datetime(2024, 6, 1, tzinfo=UTC)
TIME = "2024-03-01 10:15:00 +0100"
Row = dict[str, Any]


def item(name: str, product: str, quantity: int = 1, price: str = "10.00", **fields: Any) -> Row:
    line = {"Name": name, "Lineitem name": product, "Lineitem sku": product.upper(), "Lineitem quantity": quantity}
    line |= {"Lineitem price": price, "Lineitem discount": "0.00", "Lineitem requires shipping": "true"}
    return line | {f"Lineitem {label.replace('_', ' ')}": value for label, value in fields.items()}


def order(name: str, subtotal: str, *lines: Row, **fields: Any) -> list[Row]:
    """Return the rows of an order; names of columns with underscores for spaces."""
    head = {
        "Email": "jo@example.org",
        "Financial Status": "paid",
        "Currency": "EUR",
        "Paid at": TIME,
        "Created at": TIME,
    }
    head |= {
        "Subtotal": subtotal,
        "Refunded Amount": "0.00",
        "Source": "web",
        "Shipping Country": "DE",
        "Id": name.strip("#"),
    }
    head |= {"Discount Amount": None, "Total": subtotal}
    head |= {label.replace("_", " "): value for label, value in fields.items()}
    return [head | lines[0], *lines[1:]]


def tip(name: str, price: str, product: str = "Tip") -> Row:
    return item(name, product, 1, price) | {"Lineitem sku": None, "Lineitem requires shipping": "false"}


def read(*rows: Row) -> tuple[dict[str, pd.DataFrame], str]:
    """Return the validated tables of an export and its notes."""
    frame = pd.DataFrame(list(rows))
    frame = frame.reindex(columns=list(dict.fromkeys([*COLUMNS, *frame.columns])))
    mapped: Mapped = Shopify().to_tables({"orders": frame.astype("str").where(frame.notna())})
    return validate_all(mapped.frames), "\n".join(mapped.notes)


def exact(value: float) -> Decimal:
    return Decimal(repr(float(value)))


def nets(tables: dict[str, pd.DataFrame]) -> dict[str, Decimal]:
    """Return the net of each order by the rules of the canonical table, in decimals; it fails where a line is not exact."""
    found: dict[str, Decimal] = {}
    for line in tables["order_lines"].itertuples():
        paid = exact(line.quantity) * exact(line.unit_price) - exact(line.discount)
        net = paid * (exact(line.quantity) - exact(line.returned_quantity)) / exact(line.quantity)
        found[line.order_id] = found.get(line.order_id, Decimal(0)) + (0 if line.cancelled else net)
    return found


def units(tables: dict[str, pd.DataFrame]) -> dict[str, float]:
    lines = tables["order_lines"]
    left = (lines["quantity"] - lines["returned_quantity"]).where(~lines["cancelled"], 0.0)
    return left.groupby(lines["product_id"]).sum().to_dict()  # type: ignore[no-any-return]


# ---- tips


@pytest.mark.parametrize("word", ["Tip", "TIP", "Trinkgeld", "Pourboire", "Propina"])
def test_a_tip_is_neither_a_product_nor_a_discount(word: str) -> None:
    tables, notes = read(
        *order("#1", "45.00", item("#1", "Ring", 1, "15.00"), item("#1", "Band", 2, "15.00"), tip("#1", "2.25", word))
    )
    assert set(tables["products"]["product_id"]) == {"RING", "BAND"}
    assert tables["order_lines"]["discount"].tolist() == [0.0, 0.0] and nets(tables) == {"#1": Decimal(45)}
    assert "1 tips left out: EUR 2.25" in notes and "differ" not in notes


def test_a_tip_beside_a_discount_code_leaves_the_code() -> None:
    rows = order("#1", "17.00", item("#1", "Mug", 2), tip("#1", "3.00"), Discount_Amount="3.00", Total="20.00")
    tables, notes = read(*rows)
    assert tables["order_lines"]["discount"].tolist() == [3.0] and nets(tables) == {"#1": Decimal(17)}
    assert "1 tips left out: EUR 3.00" in notes and "differ" not in notes


def test_a_product_called_tip_stays_a_product() -> None:
    cue = item("#1", "Tip", 2, "4.00")
    unmarked = tip("#2", "4.00")
    tables, notes = read(*order("#1", "8.00", cue), *order("#2", "14.00", item("#2", "Mug"), unmarked))
    assert nets(tables) == {"#1": Decimal(8), "#2": Decimal(14)} and "tips" not in notes
    assert units(tables) == {"TIP": 2.0, "Tip": 1.0, "MUG": 1.0}


def test_tips_of_several_currencies_are_never_added_up() -> None:
    rows = [*order("#1", "10.00", item("#1", "Mug"), tip("#1", "1.00"))]
    rows += order("#2", "1000", item("#2", "Mug", 1, "1000"), tip("#2", "150"), Currency="JPY")
    assert "2 tips left out: EUR 1.00, JPY 150" in read(*rows)[1]


# ---- the same order more than once


def test_identical_copies_of_an_order_count_once() -> None:
    one = order("#1", "30.00", item("#1", "Mug", 2), item("#1", "Cup"))
    tables, notes = read(*one, *order("#2", "10.00", item("#2", "Cup")), *one, *one)
    assert units(tables) == {"MUG": 2.0, "CUP": 2.0} and "2 identical copies of orders left out" in notes


def test_a_copy_of_a_one_line_order_counts_once() -> None:
    one = order("#1", "20.00", item("#1", "Mug", 2))
    assert units(read(*one, *one)[0]) == {"MUG": 2.0}


def test_two_equal_lines_of_one_order_both_count() -> None:
    rows = order("#1", "20.00", item("#1", "Mug"), item("#1", "Mug"))
    assert units(read(*rows)[0]) == {"MUG": 2.0}
    filled = [row | rows[0] for row in rows]
    assert units(read(*filled)[0]) == {"MUG": 2.0}


def test_order_fields_in_every_row_are_one_order() -> None:
    rows = order("#1", "27.00", item("#1", "Mug", 2), item("#1", "Cup"), Discount_Amount="3.00")
    head = {key: value for key, value in rows[0].items() if not key.startswith("Lineitem")}
    tables, notes = read(*[head | row for row in rows])
    assert nets(tables) == {"#1": Decimal(27)} and units(tables) == {"MUG": 2.0, "CUP": 1.0} and "copies" not in notes
    assert units(read(*[head | row for row in rows], *[head | row for row in rows])[0]) == {"MUG": 2.0, "CUP": 1.0}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"Refunded_Amount": "0.00"}, {"Refunded_Amount": "5.00", "Financial_Status": "partially_refunded"}),
        ({"Financial_Status": "pending", "Paid_at": None}, {"Financial_Status": "paid"}),
        ({"Fulfilled_at": None}, {"Fulfilled_at": "2024-03-02 10:15:00 +0100"}),
        ({"Cancelled_at": None}, {"Cancelled_at": "2024-03-02 10:15:00 +0100"}),
    ],
)
def test_the_newer_version_of_an_order_counts_wherever_it_stands(old: Row, new: Row, turned: bool) -> None:
    versions = [order("#1", "20.00", item("#1", "Mug", 2), **fields) for fields in (old, new)]
    tables, notes = read(*versions[turned], *versions[not turned])
    expected = read(*order("#1", "20.00", item("#1", "Mug", 2), **new))[0]
    for name, frame in expected.items():
        pd.testing.assert_frame_equal(tables[name], frame)
    assert "1 older versions of orders left out" in notes


def test_versions_that_tell_different_money_without_an_order_in_time_are_refused() -> None:
    rows = [*order("#1", "20.00", item("#1", "Mug", 2)), *order("#1", "30.00", item("#1", "Mug", 3))]
    with pytest.raises(DataRefused) as refused:
        read(*rows)
    assert "order #1" in str(refused.value) and "Subtotal" in str(refused.value)


def test_versions_that_contradict_each_other_are_refused() -> None:
    paid = order("#1", "20.00", item("#1", "Mug", 2), Fulfilled_at=None, Refunded_Amount="5.00")
    sent = order("#1", "20.00", item("#1", "Mug", 2), Fulfilled_at=TIME)
    with pytest.raises(DataRefused, match="nothing tells which copy is newer"):
        read(*paid, *sent)


def test_a_new_address_alone_is_taken_from_the_later_copy() -> None:
    rows = [
        *order("#1", "10.00", item("#1", "Mug"), Email="a@example.org"),
        *order("#1", "10.00", item("#1", "Mug"), Email="b@example.org"),
    ]
    tables, notes = read(*rows)
    (customer,) = tables["customers"]["customer_id"]
    assert customer == read(*rows[1:])[0]["customers"]["customer_id"].item() and "older versions" in notes


def test_one_name_in_two_stores_is_two_orders() -> None:
    rows = [
        *order("#1001", "20.00", item("#1001", "Mug", 2), Id="501"),
        *order("#1001", "10.00", item("#1001", "Cup"), Id="701"),
    ]
    tables, notes = read(*rows)
    assert nets(tables) == {"#1001 501": Decimal(20), "#1001 701": Decimal(10)}
    assert "1 order names belong to several orders (#1001); told apart by Id" in notes


def test_an_export_without_ids_is_read_by_name(tmp_path: Path) -> None:
    rows = [row | {"Id": None} for row in order("#1", "30.00", item("#1", "Mug", 2), item("#1", "Cup"))]
    pd.DataFrame(rows).reindex(columns=list(COLUMNS)).to_csv(tmp_path / "orders.csv", index=False)
    result = ingest(str(tmp_path / "orders.csv"), "shop", store=tmp_path / "s", created_at=NOW)
    assert result.manifest.layout == "shopify" and result.manifest.tables["order_lines"].rows == 2


def files(folder: Path, **rows: list[Row]) -> Path:
    """Write one export per name, with underscores for dashes."""
    folder.mkdir(exist_ok=True)
    for name, some in rows.items():
        frame = pd.DataFrame(some).reindex(columns=list(dict.fromkeys([*COLUMNS, *some[0]])))
        frame.to_csv(folder / f"{name.replace('_', '-')}.csv", index=False)
    return folder


def test_overlapping_exports_count_each_order_once(tmp_path: Path) -> None:
    first = order("#1", "20.00", item("#1", "Mug", 2))
    before = order("#2", "30.00", item("#2", "Mug", 2), item("#2", "Cup"))
    after = order(
        "#2",
        "30.00",
        item("#2", "Mug", 2),
        item("#2", "Cup"),
        Refunded_Amount="10.00",
        Financial_Status="partially_refunded",
    )
    place = files(tmp_path / "in", a=[*first, *before], b=[*after, *order("#3", "10.00", item("#3", "Cup")), *first])
    result = ingest(str(place), "shop", store=tmp_path / "s", created_at=NOW)
    tables = Tables.open(tmp_path / "s", "shop")
    assert nets(dict(tables)) == {"#1": Decimal(20), "#2": Decimal(20), "#3": Decimal(10)}
    assert any("1 identical copies of orders" in note for note in result.notes)
    assert any("1 older versions of orders" in note for note in result.notes)


@pytest.mark.parametrize("dated", [True, False])
def test_an_edited_order_is_taken_from_the_file_of_the_later_date_or_refused(dated: bool, tmp_path: Path) -> None:
    small, large = (order("#1", f"{10 * n}.00", item("#1", "Mug", n)) for n in (1, 2))
    names = ("orders_2024_01", "orders_2024_02") if dated else ("x", "y")
    place = files(tmp_path / "in", **{names[0]: large, names[1]: small})
    if dated:
        ingest(str(place), "shop", store=tmp_path / "s", created_at=NOW)
        assert nets(dict(Tables.open(tmp_path / "s", "shop"))) == {"#1": Decimal(10)}
    else:
        with pytest.raises(DataRefused, match="order #1"):
            ingest(str(place), "shop", store=tmp_path / "s", created_at=NOW)


def test_the_exports_of_two_stores_keep_their_orders_apart(tmp_path: Path) -> None:
    place = files(
        tmp_path / "in",
        berlin_2024_01=order("#1001", "20.00", item("#1001", "Mug", 2), Id="501"),
        wien_2024_02=order("#1001", "10.00", item("#1001", "Cup"), Id="701"),
    )
    ingest(str(place), "shop", store=tmp_path / "s", created_at=NOW)
    assert nets(dict(Tables.open(tmp_path / "s", "shop"))) == {"#1001 501": Decimal(20), "#1001 701": Decimal(10)}


# ---- orders that are no sales


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"Payment_Method": "(for testing) Bogus Gateway"}, "1 test orders"),
        ({"Payment_Method": "bogus + Gift Card"}, "1 test orders"),
        ({"Payment_Method": "Shopify Payments (test mode)"}, "1 test orders"),
        ({"Financial_Status": "expired", "Paid_at": None}, "1 orders never paid"),
        ({"Financial_Status": "voided", "Paid_at": None}, "1 orders never paid"),
        ({"Financial_Status": "Pending", "Paid_at": None}, "1 orders never paid"),
        ({"Cancelled_at": TIME, "Refunded_Amount": "20.00"}, "1 orders cancelled"),
    ],
)
def test_an_order_that_is_no_sale_is_counted_in_the_notes_and_sells_nothing(fields: Row, words: str) -> None:
    rows = [*order("#1", "20.00", item("#1", "Mug", 2), **fields), *order("#2", "10.00", item("#2", "Mug"))]
    tables, notes = read(*rows)
    assert units(tables) == {"MUG": 1.0} and f"{words}" in notes and "EUR 20.00" in notes
    orders = tables["orders"].set_index("order_id")
    assert "#1" not in orders.index or orders.loc["#1", "cancelled_at"] == pd.Timestamp(TIME).tz_convert("UTC")
    features = customer_features(Tables(tables), pd.Timestamp("2024-05-01").date())
    assert features["purchases"].tolist() == [1] and features["spend_90d"].tolist() == [10.0]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"Financial_Status": "authorized", "Paid_at": None}, "authorized and not captured"),
        ({"Financial_Status": "partially_paid"}, "paid in part"),
        ({"Financial_Status": "pending", "Paid_at": None, "Fulfilled_at": TIME}, "delivered before payment"),
        ({"Financial_Status": None, "Paid_at": None}, "of no known Financial Status"),
    ],
)
def test_an_order_that_is_not_paid_yet_is_a_sale_and_told(fields: Row, words: str) -> None:
    tables, notes = read(*order("#1", "20.00", item("#1", "Mug", 2), **fields))
    assert units(tables) == {"MUG": 2.0} and words in notes and "EUR 20.00" in notes


def test_a_partial_refund_without_an_amount_is_told() -> None:
    rows = order("#1", "20.00", item("#1", "Mug", 2), Financial_Status="partially_refunded", Refunded_Amount=None)
    tables, notes = read(*rows)
    assert nets(tables) == {"#1": Decimal(20)}
    assert "1 orders marked as refunded in part without a Refunded Amount, nothing taken off: EUR 20.00" in notes


def test_a_cancelled_order_whose_money_was_kept_is_told() -> None:
    rows = order("#1", "20.00", item("#1", "Mug", 2), Cancelled_at=TIME, Refunded_Amount="5.00")
    assert "1 cancelled orders were paid and not refunded in full: EUR 15.00" in read(*rows)[1]


# ---- refunds


def refunded(refund: str, *lines: Row, subtotal: str, **fields: Any) -> tuple[dict[str, pd.DataFrame], str]:
    return read(*order("#1", subtotal, *lines, Refunded_Amount=refund, Financial_Status="partially_refunded", **fields))


def test_a_refund_of_whole_units_returns_them() -> None:
    tables, notes = refunded("15.00", item("#1", "Ring", 3, "15.00"), item("#1", "Mug"), subtotal="55.00")
    assert units(tables) == {"RING": 2.0, "MUG": 1.0} and nets(tables) == {"#1": Decimal(40)}
    assert "1 orders refunded in part, as returned units: EUR 15.00" in notes and "differ" not in notes


def test_a_refund_of_units_under_a_code_is_exact_to_the_cent() -> None:
    tables, _ = refunded("3.33", item("#1", "Tea", 3, "4.00"), subtotal="10.00", Discount_Amount="2.00")
    assert units(tables) == {"TEA": 2.0} and nets(tables) == {"#1": Decimal("6.67")}


def test_a_refund_that_no_units_make_is_money_off_the_lines() -> None:
    tables, notes = refunded("5.00", item("#1", "Lamp", 1, "80.00"), item("#1", "Bulb", 2, "10.00"), subtotal="100.00")
    assert units(tables) == {"LAMP": 1.0, "BULB": 2.0} and nets(tables) == {"#1": Decimal(95)}
    assert tables["order_lines"]["discount"].tolist() == [1.0, 4.0]
    assert "as money off the lines: the amount does not tell which units came back: EUR 5.00" in notes


def test_a_refund_that_two_products_could_be_is_money() -> None:
    tables, _ = refunded("15.00", item("#1", "Ring", 1, "15.00"), item("#1", "Band", 1, "15.00"), subtotal="30.00")
    assert units(tables) == {"RING": 1.0, "BAND": 1.0} and nets(tables) == {"#1": Decimal(15)}


def test_a_refund_with_the_taxes_of_a_unit_returns_the_unit_and_tells_the_taxes() -> None:
    tables, notes = refunded(
        "54.13", item("#1", "Coat", 2, "50.00"), item("#1", "Mug", 1, "9.00"), subtotal="109.00",
        Taxes="8.99", Shipping="5.00", Total="122.99",
    )  # fmt: skip
    assert units(tables) == {"COAT": 1.0, "MUG": 1.0} and nets(tables) == {"#1": Decimal(59)}
    assert "1 orders whose lines differ from Subtotal less Refunded Amount: EUR 4.13, first #1 (4.13)" in notes


def test_prices_that_include_taxes_have_no_taxes_on_top() -> None:
    tables, notes = refunded(
        "50.00", item("#1", "Coat", 2, "50.00"), subtotal="100.00", Taxes="15.97", Shipping="5.00", Total="105.00"
    )
    assert units(tables) == {"COAT": 1.0} and nets(tables) == {"#1": Decimal(50)} and "differ" not in notes


def test_a_full_refund_with_shipping_returns_all_and_tells_the_rest() -> None:
    rows = order(
        "#1",
        "20.00",
        item("#1", "Mug", 2),
        Financial_Status="refunded",
        Refunded_Amount="24.90",
        Shipping="4.90",
        Total="24.90",
    )
    tables, notes = read(*rows)
    assert units(tables) == {"MUG": 0.0} and nets(tables) == {"#1": Decimal(0)}
    assert "1 orders were refunded more than their goods (shipping, taxes, tips): EUR 4.90" in notes


def test_the_refund_of_a_large_order_is_read_in_time() -> None:
    lines = [item("#1", f"P{i}", 9, f"{7 + i * 1.37:.2f}") for i in range(60)]
    total = sum(Decimal(line["Lineitem price"]) * 9 for line in lines)
    tables, _ = refunded("100.01", *lines, subtotal=str(total))
    assert nets(tables) == {"#1": total - Decimal("100.01")}


# ---- discounts


def test_discounts_of_lines_and_of_the_order_add_up_to_the_subtotal() -> None:
    rows = order(
        "#1",
        "25.99",
        item("#1", "Mug", 2, "10.00", discount="1.00"),
        item("#1", "Cup", 1, "10.00"),
        Discount_Amount="3.01",
    )
    tables, notes = read(*rows)
    assert nets(tables) == {"#1": Decimal("25.99")} and "differ" not in notes and "Discount Amount" not in notes
    assert tables["order_lines"].set_index("product_id")["discount"].to_dict() == {"CUP": 1.04, "MUG": 2.97}


def test_prices_that_are_after_discounts_are_not_discounted_twice() -> None:
    tables, notes = read(*order("#1", "20.00", item("#1", "Mug", 2, "10.00", discount="2.00"), Discount_Amount="2.00"))
    assert (
        nets(tables) == {"#1": Decimal(20)}
        and "1 orders tell more discounts in their lines than their Subtotal" in notes
    )


def test_a_subtotal_above_the_list_prices_is_told_with_its_order() -> None:
    rows = [*order("#7", "20.05", item("#7", "Mug", 2)), *order("#8", "10.00", item("#8", "Mug"))]
    tables, notes = read(*rows)
    assert nets(tables)["#7"] == Decimal(20)
    assert "1 orders whose lines differ from Subtotal less Refunded Amount: EUR -0.05, first #7 (-0.05)" in notes


def test_a_discount_on_shipping_is_told_and_is_none_of_the_lines() -> None:
    tables, notes = read(*order("#1", "20.00", item("#1", "Mug", 2), Discount_Amount="4.90"))
    assert tables["order_lines"]["discount"].tolist() == [0.0]
    assert "Discount Amount is above the discounts of their lines (shipping): EUR 4.90, first #1 (4.9)" in notes


def test_an_order_without_subtotal_takes_its_discount_amount() -> None:
    rows = order("#1", "", item("#1", "Mug", 2), Discount_Amount="4.00")
    assert nets(read(*rows)[0]) == {"#1": Decimal(16)}


@pytest.mark.parametrize(
    ("currency", "price", "subtotal"), [("JPY", "1000", "2333"), ("KWD", "1.250", "3.749"), ("EUR", "0.125", "0.37")]
)
def test_currencies_of_other_decimal_places_are_exact(currency: str, price: str, subtotal: str) -> None:
    tables, notes = read(
        *order("#1", subtotal, item("#1", "Mug", 2, price), item("#1", "Cup", 1, price), Currency=currency)
    )
    assert nets(tables) == {"#1": Decimal(subtotal)} and "differ" not in notes


@pytest.mark.parametrize("column", ["Subtotal", "Refunded Amount", "Discount Amount"])
def test_an_amount_of_an_order_that_is_no_number_is_refused_with_its_order(column: str) -> None:
    rows = order("#1", "20.00", item("#1", "Mug", 2))
    rows[0][column] = "about ten"
    with pytest.raises(DataRefused) as refused:
        read(*rows)
    assert f"{column} of order #1 is no number ('about ten')" in str(refused.value)


def test_lines_of_no_units_are_left_out_and_told() -> None:
    tables, notes = read(*order("#1", "10.00", item("#1", "Mug"), item("#1", "Cup", 0)))
    assert units(tables) == {"MUG": 1.0} and "1 rows without units left out" in notes


def test_a_row_without_a_line_item_is_told() -> None:
    empty = {
        key: value for key, value in order("#2", "0.00", item("#2", "x"))[0].items() if not key.startswith("Lineitem")
    }
    tables, notes = read(*order("#1", "20.00", item("#1", "Mug", 2)), empty)
    assert (
        nets(tables) == {"#1": Decimal(20)} and len(tables["orders"]) == 2 and "1 rows without units left out" in notes
    )


@pytest.mark.parametrize(("count", "words"), [(0, "there is no order"), (2, "all 2 orders are test orders")])
def test_an_export_without_orders_is_refused(count: int, words: str) -> None:
    rows = [
        *order("#1", "20.00", item("#1", "Mug", 2), Payment_Method="bogus"),
        *order("#2", "10.00", item("#2", "Mug"), Payment_Method="bogus"),
    ]
    frame = pd.DataFrame(rows)
    frame = frame.reindex(columns=list(dict.fromkeys([*COLUMNS, *frame.columns]))).iloc[:count]
    with pytest.raises(DataRefused, match=words):
        Shopify().to_tables({"orders": frame})


def test_typed_columns_of_a_parquet_file_are_read_as_text_is() -> None:
    frame = pd.DataFrame(order("#1", "20.00", item("#1", "Mug", 2)))
    frame = frame.reindex(columns=list(dict.fromkeys([*COLUMNS, *frame.columns])))
    moment = pd.Timestamp("2024-03-01 10:15", tz="Europe/Berlin")
    typed = frame.assign(
        **{
            "Created at": moment,
            "Paid at": moment,
            "Subtotal": 20.0,
            "Lineitem price": 10.0,
            "Currency": pd.Categorical(["EUR"]),
        }
    )
    for name, table in validate_all(Shopify().to_tables({"x": frame}).frames).items():
        pd.testing.assert_frame_equal(validate_all(Shopify().to_tables({"x": typed}).frames)[name], table)


def test_the_order_of_the_rows_changes_nothing() -> None:
    rows = order(
        "#1",
        "25.00",
        item("#1", "Mug", 2),
        item("#1", "Cup"),
        item("#1", "Jug", 1, "3.33"),
        Discount_Amount="8.33",
        Refunded_Amount="1.00",
    )
    rows += order("#2", "20.00", item("#2", "Mug", 2))
    tables = read(*rows)[0]
    mixed = read(*[rows[i] for i in (0, 3, 2, 1)])[0]
    for name, frame in tables.items():
        pd.testing.assert_frame_equal(mixed[name], frame)


def test_reconcile_finds_a_line_that_was_changed_afterwards() -> None:
    from d2c_mlops.data.layouts.shopify_money import order_money
    from d2c_mlops.data.layouts.shopify_rows import ORDER_FIELDS, distinct_orders, order_kinds, rows_with_all_columns

    frame = pd.DataFrame([*order("#1", "20.00", item("#1", "Mug", 2)), *order("#2", "9.00", item("#2", "Mug"))])
    rows, _ = distinct_orders(rows_with_all_columns(frame))
    heads = rows.groupby("order_id")[list(ORDER_FIELDS)].first()
    money = order_money(rows, heads, order_kinds(heads))
    lines = validate_all(Shopify().to_tables({"x": frame.reindex(columns=[*COLUMNS, "Id", "Discount Amount"])}).frames)[
        "order_lines"
    ]
    assert order_differences(money, lines)["difference"].tolist() == [0.0, 0.0] and net_line_values(lines).tolist() == [
        20.0,
        9.0,
    ]
    spoilt = lines.assign(discount=lines["discount"] + [0.01, 0.0])
    assert order_differences(money, spoilt)["difference"].tolist() == [-0.01, 0.0]


# ---- random orders


@st.composite
def an_order(draw: st.DrawFn, number: int) -> tuple[list[Row], dict[str, Any]]:
    """Return the rows of a random order, and what is true of it in minor units of its currency."""
    name = f"#{number}"
    currency, places = draw(st.sampled_from([("EUR", 2), ("USD", 2), ("JPY", 0), ("KWD", 3)]))
    unit = Decimal(1).scaleb(-places)
    cents = lambda value: str(Decimal(value) * unit)  # noqa: E731
    rows, gross, off = [], [], []
    for i in range(draw(st.integers(1, 4))):
        quantity, price = draw(st.integers(1, 5)), draw(st.integers(0, 20_000))
        less = draw(st.just(0) | st.integers(0, quantity * price))
        gross.append(quantity * price)
        off.append(less)
        rows.append(item(name, f"P{i % 3}", quantity, cents(price), discount=cents(less)))
    net = sum(gross) - sum(off)
    code = draw(st.just(0) | st.integers(0, net))
    subtotal = net - code
    refund = draw(st.just(0) | st.integers(0, subtotal) | st.just(subtotal))
    status = "paid" if not refund else "refunded" if refund == subtotal else "partially_refunded"
    kind = draw(st.sampled_from(["sale"] * 6 + ["test", "never paid", "cancelled"]))
    fields: Row = {"Currency": currency, "Refunded_Amount": cents(refund), "Financial_Status": status}
    fields |= {"test": {"Payment_Method": "(for testing) Bogus Gateway"}, "never paid": {"Financial_Status": "expired", "Paid_at": None},
               "cancelled": {"Cancelled_at": TIME}}.get(kind, {})  # fmt: skip
    fields["Discount_Amount"] = draw(st.sampled_from([cents(code), cents(code + sum(off))]))
    tips = draw(st.lists(st.integers(1, 500), max_size=2))
    shipping = draw(st.integers(0, 900))
    fields |= {
        "Shipping": cents(shipping),
        "Total": cents(subtotal + shipping + sum(tips)),
        "Taxes": cents(draw(st.integers(0, 300))),
    }
    rows += [tip(name, cents(worth)) for worth in tips]
    written = order(name, cents(subtotal), *rows, **fields)
    truth = {"name": name, "kind": kind, "net": (Decimal(subtotal - refund) if kind == "sale" else Decimal(0)) * unit}
    truth["bought"] = sum(row["Lineitem quantity"] for row in rows if row["Lineitem name"] != "Tip")
    return written * draw(st.sampled_from([1, 1, 1, 2])), truth


@st.composite
def exports(draw: st.DrawFn) -> list[tuple[list[Row], dict[str, Any]]]:
    return [draw(an_order(1000 + i)) for i in range(draw(st.integers(1, 5)))]


def reconciled(shop: list[tuple[list[Row], dict[str, Any]]]) -> None:
    lines = [row for rows, _ in shop for row in rows]
    if all(truth["kind"] == "test" for _, truth in shop):
        with pytest.raises(DataRefused, match="orders are test orders"):
            read(*lines)
        return
    tables, notes = read(*lines)
    found = nets(tables)
    for _, truth in shop:
        if truth["kind"] == "test":
            assert truth["name"] not in found
        else:
            assert found[truth["name"]] == truth["net"]
            mine = tables["order_lines"][tables["order_lines"]["order_id"] == truth["name"]]
            assert mine["quantity"].sum() == truth["bought"]
            assert mine["cancelled"].all() == (truth["kind"] != "sale")
    assert "whose lines differ" not in notes and "Discount Amount" not in notes
    assert not tables["products"]["product_id"].str.lower().eq("tip").any()


@given(exports())
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_orders_are_worth_what_the_export_says(shop: list[tuple[list[Row], dict[str, Any]]]) -> None:
    reconciled(shop)


@pytest.mark.slow
@given(exports())
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_many_random_orders_are_worth_what_the_export_says(shop: list[tuple[list[Row], dict[str, Any]]]) -> None:
    reconciled(shop)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10**12)), min_size=1),
    st.lists(st.integers(0, 10**12), min_size=4, max_size=4),
)
@settings(max_examples=100, deadline=None)
def test_shares_sum_to_their_amount_and_exceed_no_weight(rows: list[tuple[int, int]], amounts: list[int]) -> None:
    groups, weights = (np.array(values, np.int64) for values in zip(*rows, strict=True))
    shares = allocate_by_weight(np.array(amounts), weights, groups)
    for group, amount in enumerate(amounts):
        mine, weight = shares[groups == group], weights[groups == group]
        assert mine.sum() == (amount if weight.sum() else 0)
        assert amount > weight.sum() or (mine <= weight).all()


def test_amounts_are_exact_in_minor_units() -> None:
    currencies = pd.Series(["EUR", "JPY", "KWD", "EUR"])
    amounts = np.array([0.29, 1500.0, 1.005, 0.1255])
    places = needed_decimals(amounts, currency_decimals(currencies))
    assert places.tolist() == [2, 0, 3, 4] and to_minor_units(amounts, places).tolist() == [29, 1500, 1005, 1255]
