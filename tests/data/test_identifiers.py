"""Identifiers keep every digit: from Parquet and databases through the store, the models, `d2c score` and its sinks."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st

from d2c_mlops.data.ingestion.increment import ingest_new
from d2c_mlops.data.ingestion.ingest import ingest
from d2c_mlops.data.layouts.discovery import installed_layouts
from d2c_mlops.data.layouts.leads import pack_lead_fields, unpack_lead_fields
from d2c_mlops.data.layouts.shopify_rows import COLUMNS
from d2c_mlops.data.sources.fetch import SqlSource, find_source, read_parquet
from d2c_mlops.data.sources.frames import arrow_frame, frame_of_rows
from d2c_mlops.data.tables import Tables
from d2c_mlops.data.validation import read_text, validate
from d2c_mlops.errors import DataRefused
from d2c_mlops.models.core.contract import Contract, column, to_records
from d2c_mlops.serving.batch.contract_coercion import coerce_inputs
from d2c_mlops.serving.batch.sinks import Batch, FileSink
from d2c_mlops.serving.batch.sql_sink import SqlSink
from d2c_mlops.serving.log.log_collection import READERS

NOW = datetime(2024, 6, 1, tzinfo=UTC)
TWINS = [1239162456494753670, 1239162456494753671]


def orders(ids: Any) -> dict[str, Any]:
    size = len(ids)
    return {"order_id": list(range(1, size + 1)), "customer_id": ids, "channel": ["web"] * size,
            "currency": ["EUR"] * size, "ordered_at": ["2024-01-03"] * size}  # fmt: skip


def customers(store: Path, location: str) -> list[str | None]:
    ingest(location, "shop", store=store, created_at=NOW)
    frame = Tables.open(store, "shop")["orders"].sort_values("order_id")
    return [None if pd.isna(v) else v for v in frame["customer_id"]]


@pytest.mark.parametrize(
    ("kind", "values", "texts"),
    [
        (pa.int64(), [*TWINS, None], ["1239162456494753670", "1239162456494753671", None]),
        (pa.uint64(), [2**64 - 1, None, 2**64 - 2], ["18446744073709551615", None, "18446744073709551614"]),
        (pa.decimal128(38, 0), [Decimal(10**30 + 1), None], [str(10**30 + 1), None]),
        (pa.decimal128(20, 2), [Decimal("1239162456494753.00"), None], ["1239162456494753", None]),
        (pa.float64(), [12345.0, None], ["12345", None]),
        (pa.string(), ["007", None, "7"], ["007", None, "7"]),
        (pa.binary(), [b"A-7", None], ["A-7", None]),
        (pa.uuid(), [UUID(int=2).bytes, None], [str(UUID(int=2)), None]),
        (pa.dictionary(pa.int32(), pa.int64()), [*TWINS, None], ["1239162456494753670", "1239162456494753671", None]),
        (pa.dictionary(pa.int32(), pa.string()), ["007", None], ["007", None]),
        (pa.int32(), [7, None], ["7", None]),
    ],
)  # fmt: skip
def test_parquet_identifiers_keep_every_digit_beside_missing_ones(
    tmp_path: Path, kind: pa.DataType, values: list[Any], texts: list[str | None]
) -> None:
    (tmp_path / "in").mkdir()
    table = pa.table(
        orders(pa.array(values, kind.storage_type).cast(kind) if kind == pa.uuid() else pa.array(values, kind))
    )
    pq.write_table(table, tmp_path / "in" / "orders.parquet")
    assert customers(tmp_path / "store", str(tmp_path / "in")) == texts


@pytest.mark.parametrize("kind", ["bigint", "numeric", "integer", "text", ""])
def test_sqlite_identifiers_keep_every_digit_beside_missing_ones(tmp_path: Path, kind: str) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as db:
        db.execute(
            f"create table orders(order_id bigint, customer_id {kind}, channel text, currency text, ordered_at text)"
        )
        rows = zip(*orders([*TWINS, None]).values(), strict=True)
        db.executemany("insert into orders values(?,?,?,?,?)", list(rows))
        db.commit()
    assert customers(tmp_path, f"sqlite:///{tmp_path / 'shop.db'}") == [*map(str, TWINS), None]


def test_a_watermark_reads_identifiers_exactly_too(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as db:
        db.execute(
            "create table orders(order_id bigint, customer_id bigint, channel text, currency text, ordered_at text)"
        )
        for step, day in enumerate(("2024-01-03", "2024-01-04"), 1):
            rows = [
                (10 * step, TWINS[0], "web", "EUR", day),
                (10 * step + 1, None, "web", "EUR", day),
                (10 * step + 2, TWINS[1], "web", "EUR", day),
            ]
            db.executemany("insert into orders values(?,?,?,?,?)", rows)
            db.commit()
            ingest_new(f"sqlite:///{tmp_path / 'shop.db'}", "shop", store=tmp_path, column="ordered_at", created_at=NOW)
    read = Tables.open(tmp_path, "shop")["orders"]
    assert read["customer_id"].dropna().value_counts().to_dict() == {str(TWINS[0]): 2, str(TWINS[1]): 2}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "values", "texts"),
    [
        ("bigint", [*TWINS, None], [*map(str, TWINS), None]),
        ("numeric", [Decimal(TWINS[0]), Decimal(2**64 + 1), None], [str(TWINS[0]), str(2**64 + 1), None]),
        ("numeric(24,2)", [Decimal(TWINS[0]), Decimal(TWINS[1]), None], [*map(str, TWINS), None]),
        ("uuid", [UUID(int=5), UUID(int=6), None], [str(UUID(int=5)), str(UUID(int=6)), None]),
        ("varchar", ["007", "7", None], ["007", "7", None]),
        ("double precision", [12345.0, 6.0, None], ["12345", "6", None]),
        ("bytea", [b"A-7", b"A-8", None], ["A-7", "A-8", None]),
    ],
)
def test_postgresql_identifiers_keep_every_digit_beside_missing_ones(
    postgres: str, tmp_path: Path, kind: str, values: list[Any], texts: list[str | None]
) -> None:
    engine = sa.create_engine(postgres)
    with engine.begin() as connection:
        connection.execute(
            sa.text(
                f"create table orders(order_id bigint, customer_id {kind}, channel text, currency text, ordered_at timestamptz)"
            )
        )
        for row in zip(*orders(values).values(), strict=True):
            connection.execute(
                sa.text("insert into orders values(:a,:b,:c,:d,:e)"), dict(zip("abcde", row, strict=True))
            )
    engine.dispose()
    assert customers(tmp_path, postgres) == texts


@pytest.mark.parametrize("kind", [pa.float64(), pa.float32()])
def test_a_float_column_that_has_lost_digits_is_refused_with_its_row(tmp_path: Path, kind: pa.DataType) -> None:
    (tmp_path / "in").mkdir()
    large = 2.0**53 if kind == pa.float64() else 2.0**24
    pq.write_table(pa.table(orders(pa.array([large - 1, None, large], kind))), tmp_path / "in" / "orders.parquet")
    with pytest.raises(DataRefused) as refused:
        ingest(str(tmp_path / "in"), "shop", store=tmp_path / "store", created_at=NOW)
    (failure,) = refused.value.failures
    assert "digits" in failure.what and "row 3" in failure.what and failure.where.endswith("orders.customer_id")
    assert not (tmp_path / "store" / "data").exists()


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="1 failure"):
        validate("orders", pd.DataFrame(orders([b"\xff\xfe\x00", None])).assign(source="x"))


@given(st.lists(st.none() | st.integers(-(2**63), 2**64), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_integers_of_a_database_are_what_they_were(values: list[int | None]) -> None:
    texts = read_text(frame_of_rows(["id"], [(v,) for v in values])["id"])[0]
    assert [None if pd.isna(t) else t for t in texts] == [None if v is None else str(v) for v in values]


def test_money_of_a_database_is_a_number_as_before() -> None:
    frame = frame_of_rows(["price", "share"], [(Decimal("5.95"), 1), (None, 0.5), (Decimal("12.00"), None)])
    assert frame.dtypes.astype(str).tolist() == ["float64", "float64"]
    assert frame["price"].tolist()[::2] == [5.95, 12.0] and frame["share"].tolist()[:2] == [1.0, 0.5]
    assert frame_of_rows(["a", "b"], []).columns.tolist() == ["a", "b"]


def test_a_column_that_pandas_kept_as_index_is_a_column(tmp_path: Path) -> None:
    pd.DataFrame({"order_id": TWINS, "n": [1, 2]}).set_index("order_id").to_parquet(tmp_path / "x.parquet")
    assert read_parquet(tmp_path / "x.parquet")["order_id"].tolist() == TWINS
    assert arrow_frame(pa.table({"n": [1, 2]})).dtypes.tolist() == ["int64"]


def test_sql_views_and_mixed_cells_are_read_by_cell(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "shop.db")) as db:
        db.execute("create table t(id)")
        db.executemany("insert into t values(?)", [(TWINS[0],), ("007",), (2.5,), (None,)])
        db.commit()
    read = SqlSource().read(f"sqlite:///{tmp_path / 'shop.db'}::t")["t"]["id"]
    assert read_text(read)[0].dropna().tolist() == [str(TWINS[0]), "007", "2.5"]


# ---- d2c score


def contract(kind: Any, nullable: bool = False) -> Contract:
    schema = pandera.DataFrameSchema({"id": column(kind, "whom", nullable=nullable)})
    return Contract(name="a", version="1.0.0", key="id", inputs=schema, outputs=schema)


def ids_of(kind: Any, values: pd.Series[Any], nullable: bool = True) -> list[Any]:
    terms = contract(kind, nullable)
    return [
        r["id"] for r in to_records(terms.input_fields, coerce_inputs(terms, pd.DataFrame({"id": values}), "x", False))
    ]


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (pd.Series([*TWINS, None], dtype="Int64"), [*map(str, TWINS), None]),
        (pd.Series([12345.0, None]), ["12345", None]),
        (pd.Series([Decimal(TWINS[0]), Decimal(2**64 + 1)], dtype=object), [str(TWINS[0]), str(2**64 + 1)]),
        (pd.Series([2**64 - 1], dtype="uint64"), [str(2**64 - 1)]),
        (pd.Series([b"A-7", None], dtype=object), ["A-7", None]),
        (pd.Series(["007", 7, None], dtype=object), ["007", "7", None]),
    ],
)
def test_a_key_of_text_keeps_every_digit_of_a_number(values: pd.Series[Any], texts: list[Any]) -> None:
    assert ids_of("string", values) == texts


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("string", pd.Series([1.0, 2.0**53])),
        ("string", pd.Series([1.0, 1.5])),
        ("integer", pd.Series([1.0, 1.239162456494753671e18])),
        ("integer", pd.Series([1, 2**64 - 1], dtype="uint64")),
        ("integer", pd.Series([1, 2**63], dtype=object)),
        ("integer", pd.Series([Decimal(1), Decimal(2**63)], dtype=object)),
    ],
)
def test_a_key_that_is_not_exact_is_refused_with_its_row(kind: str, values: pd.Series[Any]) -> None:
    with pytest.raises(DataRefused) as refused:
        ids_of(kind, values)
    (failure,) = refused.value.failures
    assert failure.where == "id" and "1 value(s), rows 2," in failure.what


@pytest.mark.parametrize("kind", ["string", "integer"])
def test_one_missing_key_is_named_by_its_row(kind: str) -> None:
    with pytest.raises(DataRefused) as refused:
        ids_of(kind, pd.Series([TWINS[0], None, TWINS[1]], dtype="Int64"), nullable=False)
    (failure,) = refused.value.failures
    assert failure.what == "must not be empty: 1 value(s), rows 2" and failure.where == "id"
    assert ids_of("integer", pd.Series([TWINS[0], None], dtype="Int64")) == [TWINS[0], None]


# ---- fields of leads


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([*TWINS, None], dtype="Int64"),
        pd.Series([*map(str, TWINS), None], dtype="str"),
        pd.Series([Decimal(TWINS[0]), Decimal(TWINS[1]), None], dtype=object),
        pd.Series([2**64 + 1, 2**64 + 2, None], dtype=object),
        pd.Series([2**64 - 1, 2**64 - 2, None], dtype="UInt64"),
    ],
)
def test_a_field_of_leads_that_is_an_identifier_keeps_its_digits(values: pd.Series[Any]) -> None:
    packed = pack_lead_fields(pd.DataFrame({"lead_id": ["a", "b", "c"], "scored_at": "2024-01-03", "account": values}))
    back = unpack_lead_fields(validate("leads", packed))["account"]
    assert back.dropna().tolist() == [str(v) for v in values.dropna()] and back.isna().tolist() == [False, False, True]


def test_identifiers_that_stand_as_numbers_in_json_keep_their_digits() -> None:
    texts = [json.dumps({"account": v, "visits": 3}) for v in (2**64 + 1, TWINS[0], 7)]
    frame = pd.DataFrame({"lead_id": ["a", "b", "c"], "scored_at": "2024-01-03", "fields": texts})
    back = unpack_lead_fields(validate("leads", frame))
    assert back["account"].tolist() == [str(2**64 + 1), str(TWINS[0]), "7"] and back["visits"].tolist() == [3.0] * 3


def test_measures_of_leads_stay_numbers() -> None:
    frame = pd.DataFrame({"lead_id": ["a", "b"], "scored_at": "2024-01-03", "worth": ["1.5E+20", "3"], "n": ["5", "6"]})
    back = unpack_lead_fields(validate("leads", pack_lead_fields(frame)))
    assert back["worth"].tolist() == [1.5e20, 3.0] and back["n"].tolist() == [5.0, 6.0]


# ---- answers of queries and of batches


def test_a_query_gives_integers_with_gaps_every_digit() -> None:
    frame = Tables({}).sql(
        "select * from (values (1239162456494753671, 7), (null, null), (1239162456494753670, 1)) t(big, small)"
    )
    assert frame["big"].dropna().tolist() == TWINS[::-1] and frame["small"].dtype == "float64"
    whole = Tables({}).sql(
        "select 1239162456494753671::decimal(20, 0) as id, sum(2::bigint) as n, 1.25::decimal(5, 2) as m"
    )
    assert whole["id"].item() == TWINS[1] and whole["n"].item() == 2 and whole["m"].item() == 1.25


@pytest.mark.parametrize("kind", ["integer", "string"])
@pytest.mark.parametrize("place", ["out.parquet", "out.csv", "sqlite:///out.db::answers"])
def test_sinks_keep_every_digit_of_a_key(
    kind: str, place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    values = pd.array([*TWINS, 2**63 - 1], dtype="Int64") if kind == "integer" else [*map(str, TWINS), "007"]
    frame = pd.DataFrame({"id": values}).assign(model="a", version=1)
    sink: Any = SqlSink() if "::" in place else FileSink()
    for turn in range(2):
        batch = Batch(f"batch{turn}", "a", 1, contract(kind), ("id",), False, len(frame))
        with sink.open(place, batch) as out:
            out.write(frame, 0)
            written = out.finish()
    assert (written.inserted, written.updated, written.unchanged) == (0, 0, 3)
    read = next(iter(find_source(place).read(place).values()))["id"]
    assert sorted(read_text(read)[0]) == sorted(map(str, values))


def test_a_web_hook_gets_every_digit_of_a_key() -> None:
    rows = to_records(
        contract("integer", True).output_fields, pd.DataFrame({"id": pd.array([*TWINS, None], dtype="Int64")})
    )
    assert json.dumps(rows) == f'[{{"id": {TWINS[0]}}}, {{"id": {TWINS[1]}}}, {{"id": null}}]'


@pytest.mark.parametrize("key", [TWINS[1], 2**63 - 1, str(TWINS[1]), "007"])
def test_the_prediction_log_keeps_every_digit_of_a_key(key: Any) -> None:
    head = {
        "id": "p",
        "model": "a",
        "version": 1,
        "contract": "1.0.0",
        "variant": "champion",
        "caller": "x",
        "request_id": "r",
    }
    line = orjson.dumps(
        {**head, "at": NOW.isoformat(), "key": "id", "first": 0, "inputs": [{"id": key}], "outputs": [{"id": key}]}
    )
    (row,) = READERS["predictions"](orjson.loads(line))
    assert row["key"] == str(key) and row["inputs"] == {"id": key}


# ---- layouts and joined files


def test_joined_files_keep_refusing_what_has_lost_digits(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table(orders(pa.array([*TWINS, None]))), tmp_path / "in" / "orders_2024-01.parquet")
    floats = pa.table({**orders(pa.array([float(TWINS[0]), None], pa.float64())), "order_id": [8, 9]})
    pq.write_table(floats, tmp_path / "in" / "orders_2024-02.parquet")
    with pytest.raises(DataRefused) as refused:
        ingest(str(tmp_path / "in"), "shop", store=tmp_path / "store", created_at=NOW)
    assert "lost digits" in str(refused.value) and "orders.customer_id" in str(refused.value)


def test_joined_files_with_and_without_missing_ids_keep_every_digit(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table(orders(pa.array([*TWINS]))), tmp_path / "in" / "orders_2024-01.parquet")
    gaps = pa.table({**orders(pa.array([None, TWINS[0]])), "order_id": [8, 9]})
    pq.write_table(gaps, tmp_path / "in" / "orders_2024-02.parquet")
    assert customers(tmp_path / "store", str(tmp_path / "in")) == [*map(str, TWINS), None, str(TWINS[0])]


@pytest.mark.parametrize("layout", ["online-retail", "shopify", "complete-journey"])
def test_a_layout_refuses_identifiers_that_have_lost_digits(layout: str) -> None:
    lost = pd.Series([1239162456494753671.0, 7.0])
    frames: dict[str, dict[str, pd.DataFrame]] = {
        "online-retail": {"x": pd.DataFrame({"InvoiceNo": ["1", "2"], "StockCode": "85123A", "Quantity": 1, "UnitPrice": 1.0})
            .assign(Description="x", InvoiceDate="2010-12-01 08:26:00", CustomerID=lost, Country="UK")},
        "shopify": {"x": pd.DataFrame({"Name": ["#1", "#2"], "Id": lost}).reindex(columns=[*COLUMNS, "Id"])},
        "complete-journey": {"transactions": pd.DataFrame({"basket_id": [1, 2], "household_id": lost, "store_id": 1, "product_id": 1})
            .assign(quantity=1.0, sales_value=2.0, retail_disc=0.0, coupon_disc=0.0, coupon_match_disc=0.0,
                    transaction_timestamp=pd.Timestamp("2017-01-01"))},
    }  # fmt: skip
    with pytest.raises(DataRefused, match="lost digits"):
        installed_layouts()[layout].to_tables(frames[layout])
