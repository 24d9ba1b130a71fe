"""Sources and ingest: what is read arrives as it is, and what cannot be read is named."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest
import sqlalchemy as sa

from d2c_mlops.data import simulate
from d2c_mlops.data.ingestion.ingest import ingest
from d2c_mlops.data.layouts.discovery import installed_layouts
from d2c_mlops.data.schemas import KEYS
from d2c_mlops.data.sources.fetch import (
    CsvSource,
    ParquetSource,
    SqlSource,
    find_source,
    installed_sources,
    read_csv,
    without_password,
)
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import D2CError, DataRefused, Temporary, UsageError

NOW = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def shop() -> Tables:
    return simulate.shop(customers=40, days=100)


def same(read: Tables, shop: Tables) -> None:
    for name, frame in shop.items():
        left, right = (f.sort_values(KEYS[name], ignore_index=True) for f in (read[name], frame))
        pd.testing.assert_frame_equal(left, right)


def test_sources_and_layouts_are_found_by_their_entry_points() -> None:
    assert set(installed_sources()) >= {"csv", "parquet", "sql", "sample"}
    assert set(installed_layouts()) >= {"canonical", "complete-journey", "online-retail", "shopify"}


@pytest.mark.parametrize(
    ("encoding", "separator"),
    [("utf-8", ","), ("utf-8-sig", ";"), ("cp1252", ";"), ("latin-1", "\t"), ("utf-16", ","), ("utf-8", "|")],
)
def test_csv_encodings_and_separators_are_detected(tmp_path: Path, encoding: str, separator: str) -> None:
    frame = pd.DataFrame({"id": ["007", "8"], "town": ["Köln, Süd", "a;b"], "empty": ["", "NA"]})
    frame.to_csv(tmp_path / "x.csv", sep=separator, encoding=encoding, index=False)
    read = CsvSource().read(str(tmp_path / "x.csv"))["x"]
    assert read["id"].tolist() == ["007", "8"]
    assert read["town"].tolist() == ["Köln, Süd", "a;b"]
    assert read["empty"].isna().tolist() == [True, False]


def test_bytes_that_windows_does_not_know_are_refused_until_the_encoding_is_declared(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"id,name\n1,\x81\xe9\n")
    with pytest.raises(DataRefused, match="line 2, column 3"):
        read_csv(tmp_path / "x.csv")
    assert read_csv(tmp_path / "x.csv", "latin-1")["name"].item() == "\x81é"


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "empty"), (b"a,b\n1,2\n3,4,5,6\n", "line 3"), (b'a,b\n"1,2\n', "never closed: line 2")],
)
def test_a_broken_csv_is_named_with_its_line(tmp_path: Path, content: bytes, told: str) -> None:
    (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(DataRefused, match=told) as refused:
        read_csv(tmp_path / "x.csv")
    assert str(tmp_path / "x.csv") in str(refused.value)


def test_a_folder_of_csv_files_makes_the_round_trip_and_is_not_changed(tmp_path: Path, shop: Tables) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for name, frame in shop.items():
        frame.to_csv(folder / f"{name}.csv", index=False)
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()}
    result = ingest(str(folder), "shop", store=tmp_path / "store", created_at=NOW)
    assert result.changed
    assert result.manifest.layout == "canonical"
    same(Tables.open(tmp_path / "store", "shop"), shop)
    again = ingest(str(folder), "shop", store=tmp_path / "store", created_at=NOW)
    assert not again.changed
    assert {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.iterdir()} == before


def test_parquet_csv_and_sqlite_give_the_same_dataset(tmp_path: Path, shop: Tables) -> None:
    for name, frame in shop.items():
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
        (tmp_path / "parquet").mkdir(exist_ok=True)
        frame.to_parquet(tmp_path / "parquet" / f"{name}.parquet")
    engine = sa.create_engine(f"sqlite:///{tmp_path}/shop.db")
    for name, frame in shop.items():
        frame.to_sql(name, engine, index=False)
    engine.dispose()
    places = [str(tmp_path), str(tmp_path / "parquet"), f"sqlite:///{tmp_path}/shop.db"]
    made = [ingest(p, f"d{i}", store=tmp_path / "s", created_at=NOW).manifest for i, p in enumerate(places)]
    assert len({manifest.digest for manifest in made}) == 1


def test_a_missing_column_names_file_column_nearest_and_next_step(tmp_path: Path, shop: Tables) -> None:
    path = tmp_path / "order_lines.csv"
    shop["order_lines"].rename(columns={"unit_price": "unitprice"}).to_csv(path, index=False)
    with pytest.raises(DataRefused) as refused:
        ingest(str(path), "shop", store=tmp_path / "store", created_at=NOW)
    told = str(refused.value)
    assert str(path) in told
    assert "'unit_price' is missing; the nearest column there is 'unitprice'" in told
    assert "next:" in told
    assert not (tmp_path / "store").exists()


def test_every_failure_of_every_file_is_listed_and_nothing_written(tmp_path: Path, shop: Tables) -> None:
    shop["orders"].assign(currency="euro").to_csv(tmp_path / "orders.csv", index=False)
    shop["order_lines"].assign(quantity="many").to_csv(tmp_path / "order_lines.csv", index=False)
    with pytest.raises(DataRefused) as refused:
        ingest(str(tmp_path), "shop", store=tmp_path / "store", created_at=NOW)
    places = [failure.where for failure in refused.value.failures]
    assert any("orders.currency" in place for place in places)
    assert any("order_lines.quantity" in place for place in places)
    assert "row" in str(refused.value)
    assert not (tmp_path / "store").exists()


def test_columns_that_no_layout_knows_list_the_layouts(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UsageError) as refused:
        ingest(str(tmp_path / "x.csv"), "x", store=tmp_path / "store", created_at=NOW)
    told = str(refused.value)
    for part in ("canonical", "online-retail", "shopify", "InvoiceNo", "Lineitem price", "x (a, b)"):
        assert part in told
    with pytest.raises(UsageError, match="there is no layout 'nope'"):
        ingest(str(tmp_path / "x.csv"), "x", store=tmp_path / "store", layout="nope", created_at=NOW)


@pytest.mark.parametrize("location", ["nowhere.xlsx", "nowhere", ""])
def test_a_location_that_nothing_reads_lists_the_sources(location: str) -> None:
    with pytest.raises(UsageError, match=r"csv.*parquet.*sample.*sql"):
        find_source(location)


@pytest.mark.parametrize("location", ["gone.csv", "gone.parquet", "sqlite:///gone.db"])
def test_a_file_that_is_not_there_is_named_and_not_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="no such file"):
        find_source(location).read(location)
    assert not list(tmp_path.iterdir())


def test_a_broken_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataRefused, match=r"x\.parquet"):
        ParquetSource().read(str(tmp_path / "x.parquet"))


HOSTILE = [
    "orders; DROP TABLE orders",
    'orders" UNION SELECT 1 --',
    "orders WHERE 1=1",
    "sqlite_master",
    "nope",
]


@pytest.mark.parametrize("table", HOSTILE)
def test_a_hostile_table_name_is_only_a_name(tmp_path: Path, table: str) -> None:
    database = tmp_path / "shop.db"
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("CREATE TABLE orders (order_id TEXT)")
        connection.execute("INSERT INTO orders VALUES ('007')")
    before = database.read_bytes()
    with pytest.raises(UsageError, match="tables there: orders"):
        SqlSource().read(f"sqlite:///{database}::{table}")
    assert database.read_bytes() == before
    assert SqlSource().read(f"sqlite:///{database}::orders")["orders"]["order_id"].tolist() == ["007"]


def test_a_database_without_canonical_tables_lists_what_it_has(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "x.db")) as connection, connection:
        connection.execute("CREATE TABLE sales (a)")
    with pytest.raises(UsageError, match="tables there: sales"):
        SqlSource().read(f"sqlite:///{tmp_path}/x.db")


@pytest.mark.parametrize(
    "location",
    [
        "postgresql+psycopg://ann:s3cret@127.0.0.1:1/shop",
        "postgresql+psycopg://127.0.0.1:1/shop?user=ann&password=s3cret",
        "nosuchdb://ann:s3cret@host/shop",
        "postgresql://ann:s3cret@host:port/shop",
    ],
)
def test_a_password_never_shows(location: str) -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(D2CError) as refused:
        SqlSource().read(location)
    assert "s3cret" not in str(refused.value)
    assert "s3cret" not in str(refused.value.to_dict())
    assert refused.value.__cause__ is None
    assert "s3cret" not in without_password(location)


def test_a_server_that_is_away_is_temporary() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(Temporary, match="cannot be reached"):
        SqlSource().read("postgresql+psycopg://ann:x@127.0.0.1:1/shop")


def test_postgresql_makes_the_round_trip(postgres: str, tmp_path: Path, shop: Tables) -> None:
    engine = sa.create_engine(postgres)
    with engine.begin() as connection:
        connection.execute(sa.schema.CreateSchema("eu", if_not_exists=True))
        for name, frame in shop.items():
            frame.to_sql(name, connection, index=False, if_exists="replace")
        shop["products"].to_sql("products", connection, schema="eu", index=False, if_exists="replace")
        connection.execute(sa.text("ALTER TABLE order_lines ALTER unit_price TYPE numeric(12, 2)"))
    result = ingest(postgres, "pg", store=tmp_path, created_at=NOW)
    same(Tables.open(tmp_path, "pg"), shop)
    assert result.manifest.source == without_password(postgres)
    one = ingest(f"{postgres}::eu.products", "one", store=tmp_path, created_at=NOW)
    assert one.manifest.tables["products"].rows == len(shop["products"])
    with pytest.raises(UsageError, match="there is no table"):
        SqlSource().read(f"{postgres}::orders; DROP TABLE orders")
    with engine.connect() as connection:
        assert connection.scalar(sa.text("SELECT count(*) FROM orders")) == len(shop["orders"])
    engine.dispose()
