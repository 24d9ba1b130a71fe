"""Layouts: every raw row is kept or counted, and money adds up."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2c_mlops.data import simulate
from d2c_mlops.data.ingestion.ingest import ingest
from d2c_mlops.data.layouts.complete_journey import CompleteJourney
from d2c_mlops.data.layouts.discovery import Canonical, Mapped, find_layout
from d2c_mlops.data.layouts.online_retail import COLUMNS, OnlineRetail, classify_lines, match_returns, read_lines
from d2c_mlops.data.layouts.shopify import Shopify
from d2c_mlops.data.layouts.shopify_rows import COLUMNS as SHOPIFY
from d2c_mlops.data.schemas import TIME
from d2c_mlops.data.sources.fetch import SampleSource
from d2c_mlops.data.tables import Tables
from d2c_mlops.data.validation import validate_all
from d2c_mlops.errors import DataRefused

NOW = datetime(2024, 1, 1, tzinfo=UTC)


def money(lines: pd.DataFrame) -> pd.Series[Any]:
    return lines["quantity"] * lines["unit_price"] - lines["discount"]


@pytest.fixture(scope="module")
def sample() -> dict[str, pd.DataFrame]:
    return SampleSource().read("sample")


def test_the_sample_is_worth_what_the_retailer_received(sample: dict[str, pd.DataFrame]) -> None:
    assert find_layout(sample).name == "complete-journey"
    mapped = CompleteJourney().to_tables(sample)
    raw = sample["transactions"]
    dropped = raw[raw["quantity"] == 0]
    lines = mapped.frames["order_lines"]
    assert len(lines) + len(dropped) == len(raw) == 1_469_307
    assert money(lines).sum() == pytest.approx(raw["sales_value"].sum() - dropped["sales_value"].sum(), abs=0.005)
    assert mapped.notes[0].startswith(f"{len(dropped):,} lines with quantity 0 dropped")
    by_retailer = raw.loc[raw["quantity"] > 0, ["retail_disc", "coupon_match_disc"]].sum().sum()
    assert lines["discount"].sum() == pytest.approx(by_retailer, abs=0.005)
    per_order = money(lines).groupby(lines["order_id"]).sum()
    expected = raw.loc[raw["quantity"] > 0].groupby("basket_id")["sales_value"].sum()
    assert np.allclose(per_order.sort_index(), expected.sort_index(), atol=1e-6)
    assert lines["quantity"].max() < 150
    assert mapped.frames["customers"]["customer_id"].nunique() == raw["household_id"].nunique()


@pytest.fixture(scope="module")
def retail(shared_data: Path) -> pd.DataFrame:
    return pd.read_parquet(shared_data / "online_retail.parquet")


@pytest.fixture(scope="module")
def mapped_retail(retail: pd.DataFrame) -> Mapped:
    return OnlineRetail().to_tables({"online_retail": retail})


def test_every_raw_invoice_line_has_exactly_one_fate(retail: pd.DataFrame, mapped_retail: Mapped) -> None:
    lines = read_lines(retail)
    masks = classify_lines(lines)
    assert (np.sum(list(masks.values()), axis=0) == 1).all()
    assert len(mapped_retail.frames["order_lines"]) == masks["kept"].sum()
    assert masks["duplicate"].sum() == 5_268
    assert masks["stock correction"].sum() == 1_336
    fates = masks["duplicate"] | masks["not a product"] | masks["cancellation"]
    assert (fates | ~retail["InvoiceNo"].str.startswith("C")).all()
    told = " ".join(mapped_retail.notes)
    for mask in masks.values():
        assert f"{mask.sum():,}" in told


def test_returned_units_are_the_cancelled_units_that_were_matched(retail: pd.DataFrame, mapped_retail: Mapped) -> None:
    lines = mapped_retail.frames["order_lines"]
    assert (lines["returned_quantity"] <= lines["quantity"]).all()
    returned = lines["returned_quantity"] > 0
    assert lines.loc[returned, "returned_at"].notna().all()
    assert lines.loc[~returned, "returned_at"].isna().all()
    assert (lines.loc[returned, "returned_at"] >= lines.loc[returned, "ordered_at"]).all()
    told = next(note for note in mapped_retail.notes if "became returns" in note)
    assert f"{lines['returned_quantity'].sum():,.0f} became returns" in told
    assert lines["returned_quantity"].sum() > 0.9 * 270_017


@pytest.mark.slow
def test_online_retail_passes_the_check_and_ingests_twice_without_change(shared_data: Path, tmp_path: Path) -> None:
    location = str(shared_data / "online_retail.parquet")
    first = ingest(location, "retail", store=tmp_path, created_at=NOW)
    assert first.manifest.layout == "online-retail"
    assert first.manifest.notes == first.notes
    assert not ingest(location, "retail", store=tmp_path, created_at=NOW).changed


def test_a_shuffled_export_is_the_same_dataset(retail: pd.DataFrame, tmp_path: Path) -> None:
    part = retail.iloc[:40_000]
    part.to_parquet(tmp_path / "a.parquet")
    part.sample(frac=1, random_state=0).to_parquet(tmp_path / "b.parquet")
    made = [
        ingest(str(tmp_path / f"{n}.parquet"), n, store=tmp_path / "s", created_at=NOW).manifest.digest for n in "ab"
    ]
    assert made[0] == made[1]


def by_hand(bought: list[tuple[int, int]], cancelled: list[tuple[int, int]]) -> list[int]:
    """Return units returned per purchase by walking back in time with a queue of waiting cancellations."""
    events = [(-time, 0, i, units) for i, (time, units) in enumerate(cancelled)]
    events += [(-time, 1, i, units) for i, (time, units) in enumerate(bought)]
    waiting, back = 0, [0] * len(bought)
    for _, kind, i, units in sorted(events):
        if kind == 0:
            waiting += units
        else:
            back[i] = min(units, waiting)
            waiting -= back[i]
    return back


pairs = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6)), max_size=8)


def frame_of(groups: list[list[tuple[int, int]]]) -> pd.DataFrame:
    rows = [(f"c{g}", "p", float(u), t) for g, group in enumerate(groups) for t, u in group]
    frame = pd.DataFrame(rows, columns=["customer", "product", "quantity", "time"])
    frame = frame.astype({"customer": "str", "product": "str", "quantity": "float64"})
    start = pd.Timestamp("2024-01-01", tz="UTC")
    return frame.assign(time=(start + pd.to_timedelta(frame["time"].astype(int), unit="D")).astype(TIME))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(pairs, pairs), min_size=1, max_size=3))
def test_matching_without_a_loop_equals_matching_by_hand(groups: list[tuple[Any, Any]]) -> None:
    bought, cancelled = frame_of([b for b, _ in groups]), frame_of([c for _, c in groups])
    back, when, matched = match_returns(bought, cancelled)
    assert back.tolist() == [units for b, c in groups for units in by_hand(b, c)]
    assert back.sum() == matched.sum()
    assert (matched <= cancelled["quantity"]).all()
    assert (when.notna().to_numpy() == (back > 0)).all()
    assert (when[back > 0] >= bought.loc[back > 0, "time"]).all()


def test_cancellations_without_a_customer_match_nothing() -> None:
    bought = frame_of([[(1, 5)]]).assign(customer=pd.Series([None], dtype="str"))
    back, when, matched = match_returns(bought, bought)
    assert back.tolist() == [0]
    assert matched.tolist() == [0]
    assert when.isna().all()


def test_entries_that_are_no_products_are_left_out_with_their_money() -> None:
    rows = [
        ("536365", "85123A", 2, 2.55),
        ("536366", "TEST001", 5, 4.5),
        ("536367", "ADJUST2", 1, 10.0),
        ("536368", "post", 1, 18.0),
    ]
    rows += [("536365", "85123A", 2, 2.55), ("536369", "TESTER7", 1, 3.0)]
    frame = pd.DataFrame(rows, columns=["InvoiceNo", "StockCode", "Quantity", "UnitPrice"]).assign(
        Description="x",
        InvoiceDate="2010-12-01 08:26:00",
        CustomerID=[17850, None, None, None, 17850, 17850],
        Country="UK",
    )
    mapped = OnlineRetail().to_tables({"x": frame.astype({"CustomerID": "Int64"})})
    assert mapped.frames["order_lines"]["product_id"].tolist() == ["85123A", "TESTER7"]
    assert "1 exact duplicates dropped, GBP 5.10" in mapped.notes
    assert any(note.startswith("3 lines of fees, postage") and note.endswith("GBP 50.50") for note in mapped.notes)


def test_identifiers_of_baskets_keep_every_digit() -> None:
    ids = [1239162456494753670, 1239162456494753671]
    raw = pd.DataFrame({"basket_id": ids, "household_id": pd.array([ids[0], None], dtype="Int64"), "store_id": [12.0, None]}).assign(
        product_id=[1, 2], quantity=1.0, sales_value=2.0, retail_disc=0.0, coupon_disc=0.0, coupon_match_disc=0.0,
        transaction_timestamp=pd.Timestamp("2017-01-01"),
    )  # fmt: skip
    orders = CompleteJourney().to_tables({"transactions": raw}).frames["orders"]
    assert orders["order_id"].tolist() == list(map(str, ids)) and orders["customer_id"].tolist()[0] == str(ids[0])
    assert orders["customer_id"].isna().tolist() == [False, True] and orders["store_id"].tolist()[0] == "12"


def test_online_retail_names_a_missing_column() -> None:
    frame = pd.DataFrame({c: ["1"] for c in COLUMNS}).rename(columns={"StockCode": "Stock Code"})
    with pytest.raises(DataRefused, match="column 'StockCode' is missing; the nearest column there is 'Stock Code'"):
        OnlineRetail().to_tables({"x": frame})


def shopify_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    pd.DataFrame(rows).reindex(columns=list(SHOPIFY)).to_csv(path, index=False)
    return path


def head(name: str, **fields: Any) -> dict[str, Any]:
    order = {
        "Name": name,
        "Email": "Ann@Example.org",
        "Financial Status": "paid",
        "Currency": "EUR",
        "Source": "web",
    }
    order |= {"Created at": "2024-03-31 00:30:00 +0100", "Refunded Amount": "0.00", "Subtotal": "20.00"}
    order |= {"Paid at": "2024-03-31 03:30:00 +0200", "Shipping Country": "DE", "Id": name[1:]}
    return order | item(name) | fields


def item(name: str, **fields: Any) -> dict[str, Any]:
    line = {"Name": name, "Lineitem quantity": 2, "Lineitem name": "Mug", "Lineitem price": "10.00"}
    return line | {"Lineitem sku": "MUG", "Lineitem discount": "0.00"} | fields


def test_a_shopify_export_is_mapped_with_offsets_discounts_refunds_and_cancellations(tmp_path: Path) -> None:
    rows = [
        head("#1001", Subtotal="27.00"),
        item("#1001", **{"Lineitem quantity": 1, "Lineitem sku": None, "Lineitem name": "Cup"}),
        head("#1002", Email=None, **{"Financial Status": "refunded", "Refunded Amount": "20.00"}),
        head("#1003", Email="ann@example.org", **{"Cancelled at": "2024-04-01 08:00:00 +0200"}),
        head("#1004", **{"Financial Status": "partially_refunded", "Refunded Amount": "5.00"}),
    ]
    path = shopify_csv(tmp_path / "orders_export.csv", rows)
    result = ingest(str(path), "shop", store=tmp_path / "s", created_at=NOW)
    assert result.manifest.layout == "shopify"
    tables = validate_all(Shopify().to_tables({"x": pd.read_csv(path, dtype="str")}).frames)
    orders: dict[Any, dict[str, Any]] = tables["orders"].set_index("order_id").T.to_dict()
    assert orders["#1001"]["ordered_at"] == pd.Timestamp("2024-03-30 23:30", tz="UTC")
    assert orders["#1001"]["paid_at"] == pd.Timestamp("2024-03-31 01:30", tz="UTC")
    assert orders["#1001"]["customer_id"] == orders["#1003"]["customer_id"]
    assert pd.isna(orders["#1002"]["customer_id"])
    lines = tables["order_lines"]
    per_order = money(lines).groupby(lines["order_id"]).sum()
    assert per_order.round(2).to_dict() == {"#1001": 27.0, "#1002": 20.0, "#1003": 20.0, "#1004": 15.0}
    assert lines.set_index("order_id")["returned_quantity"].to_dict()["#1002"] == 2
    assert lines.loc[lines["cancelled"], "order_id"].tolist() == ["#1003"]
    assert set(tables["products"]["product_id"]) == {"MUG", "Cup"}
    assert any("1 orders refunded in part, as money off the lines" in n and "EUR 5.00" in n for n in result.notes)
    stored = b"".join(p.read_bytes() for p in (tmp_path / "s").rglob("*") if p.is_file())
    assert b"xample.org" not in stored


def test_a_shopify_cell_that_is_no_number_or_time_is_refused_by_name(tmp_path: Path) -> None:
    rows = [head("#1"), head("#2", **{"Lineitem price": "ten", "Created at": "yesterday"})]
    path = shopify_csv(tmp_path / "orders.csv", rows)
    with pytest.raises(DataRefused) as refused:
        ingest(str(path), "shop", store=tmp_path / "s", created_at=NOW)
    told = str(refused.value)
    assert "order_lines.unit_price: cannot be read as a number: line 3 ('ten'); order_id #2" in told
    assert "orders.ordered_at: cannot be read as a time (ISO 8601): line 3 ('yesterday')" in told


def test_shopify_names_every_missing_column(tmp_path: Path) -> None:
    frame = pd.DataFrame([head("#1")]).reindex(columns=list(SHOPIFY)).drop(columns=["Currency", "Lineitem sku"])
    with pytest.raises(DataRefused) as refused:
        Shopify().to_tables({"orders": frame})
    assert len(refused.value.failures) == 2


def test_the_canonical_layout_says_what_it_assumes_and_leaves_out() -> None:
    shop = simulate.shop(customers=20, days=60)
    raw = {
        "lines of may": shop["order_lines"].drop(columns=["discount", "returned_at"]).assign(colour="red"),
        "notes": pd.DataFrame({"a": [1]}),
    }
    mapped = Canonical().to_tables(raw)
    told = "\n".join(mapped.notes)
    for part in ("colour", "no column discount, taken as 0", "notes: 1 rows left out"):
        assert part in told
    checked = validate_all(mapped.frames)
    assert checked["order_lines"]["discount"].sum() == 0
    assert len(checked["order_lines"]) == len(shop["order_lines"])


def test_a_plan_joins_the_sales_of_its_dataset_and_replaces_only_its_own_rows(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=30).strftime("%Y-%m-%d")
    sales = pd.DataFrame({"date": days, "store_id": "7", "units": range(30)})
    sales.to_csv(tmp_path / "sales.csv", index=False)
    plan = "first_day,last_day,kind,discount\n2024-02-01,2024-02-07,promotion,{}\n2024-02-20,2024-02-21,tv,\n"
    (tmp_path / "promotions.csv").write_text(plan.format("0.2"))
    now = datetime(2024, 6, 1, tzinfo=UTC)
    store = tmp_path / "store"
    zone = "America/Los_Angeles"
    ingest(str(tmp_path / "sales.csv"), "shop", store=store, zone=zone, created_at=now)
    joined = ingest(str(tmp_path / "promotions.csv"), "shop", store=store, created_at=now)
    tables = Tables.open(store, "shop")
    assert len(tables["sales_totals"]) == 30 and len(tables["promotions"]) == 2
    assert joined.manifest.zone == zone and str(joined.manifest.tables["promotions"].max_date) == "2024-02-21"
    (tmp_path / "promotions.csv").write_text(plan.format("0.5").rsplit("\n", 2)[0])
    ingest(str(tmp_path / "promotions.csv"), "shop", store=store, created_at=now)
    again = Tables.open(store, "shop")
    assert sorted(again["promotions"]["kind"]) == ["promotion", "tv"] and again["promotions"]["discount"].max() == 0.5
    ingest(str(tmp_path / "sales.csv"), "shop", store=store, created_at=now)
    assert len(Tables.open(store, "shop")["promotions"]) == 2 and len(Tables.open(store, "shop")["sales_totals"]) == 30
