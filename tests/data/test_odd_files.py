"""Files that are almost as they should be: each is read right, refused with its place, or what was left out is told."""

import gzip
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from d2c_mlops.data.ingestion.ingest import IngestResult, ingest
from d2c_mlops.data.sources.csv_files import parse_csv
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import DataRefused, UsageError

HEADER = "order_id,line_no,product_id,ordered_at,quantity,unit_price,currency,channel\n"
JANUARY = HEADER + "o1,1,A,2024-01-05T10:00:00Z,1,5.95,EUR,web\no1,2,B,2024-01-05T10:00:00Z,2,7.50,EUR,web\n"
FEBRUARY = HEADER + "o2,1,A,2024-02-05T10:00:00Z,3,5.95,EUR,web\n"
TOTALS = "date,store_id,units\n"


def read(folder: Path, files: dict[str, str | bytes], zone: str | None = None) -> tuple[Tables, IngestResult]:
    for name, content in files.items():
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "in" / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    now = datetime(2026, 1, 1, tzinfo=UTC)
    result = ingest(str(folder / "in"), "shop", store=folder / "store", zone=zone, created_at=now)
    return Tables.open(folder / "store", "shop"), result


def lines(folder: Path, content: str | bytes) -> tuple[pd.DataFrame, str]:
    tables, result = read(folder, {"order_lines.csv": content})
    return tables["order_lines"], "\n".join(result.notes)


@pytest.mark.parametrize("between", ["", "\ufeff", "\n\n"])
def test_headers_of_appended_exports_are_no_rows(tmp_path, between):
    frame, notes = lines(tmp_path, "\ufeff" + JANUARY + between + FEBRUARY)
    assert frame["order_id"].tolist() == ["o1", "o1", "o2"]
    assert f"the header is repeated in line {4 + between.count(chr(10))}" in notes


def test_a_quoted_header_behind_a_byte_order_mark_is_no_row(tmp_path):
    quoted = ",".join(f'"{name}"' for name in HEADER.strip().split(",")) + "\n"
    body = FEBRUARY.removeprefix(HEADER)
    frame, _ = lines(tmp_path, quoted + JANUARY.removeprefix(HEADER) + "\ufeff" + quoted + body)
    assert frame["quantity"].tolist() == [1, 2, 3]


@pytest.mark.parametrize("mark", [";", "\t", "|", ","])
@pytest.mark.parametrize("more", [1, 3])
def test_separators_at_the_end_of_every_row_are_no_cells(tmp_path, mark, more):
    text = JANUARY.replace(",", mark).replace("web\n", "web" + mark * more + "\n")
    frame, notes = lines(tmp_path, text)
    assert frame["unit_price"].tolist() == [5.95, 7.5]
    assert f"each row ends with {more} more" in notes


@pytest.mark.parametrize(
    "body",
    [
        "o1,A,2024-01-05,1,5,95,EUR,\no2,A,2024-01-06,2,7,50,EUR,\n",  # a decimal comma, and an empty last column
        "o1,A,2024-01-05,1,5.95,EUR,web,\no2,A,2024-01-06,2,7.50,EUR,web,app\n",
        "o1,A,2024-01-05,1,5.95,EUR,web,\no2,A,2024-01-06,2,7.50,EUR,web\n",
    ],
)
def test_surplus_cells_that_may_mean_something_are_refused_with_their_line(tmp_path, body):
    header = "order_id,product_id,ordered_at,quantity,unit_price,currency,channel\n"
    with pytest.raises(DataRefused, match="not as many cells as the header") as refused:
        lines(tmp_path, header + body)
    assert refused.value.failures[0].where == "line 2"


@pytest.mark.parametrize("written", ["2024", "2024-01", " 2024-03 "])
def test_a_year_or_a_month_is_no_day_of_an_order(tmp_path, written):
    with pytest.raises(DataRefused) as refused:
        lines(tmp_path, JANUARY.replace("2024-01-05T10:00:00Z", written))
    assert "cannot be read as a time (ISO 8601): lines 2, 3" in refused.value.failures[0].what


def test_a_month_is_a_date_of_monthly_totals(tmp_path):
    tables, _ = read(tmp_path, {"sales_totals.csv": TOTALS + "2024-01,s1,5\n2024-02,s1,6\n"})
    frame = tables["sales_totals"]
    assert frame["frequency"].unique().tolist() == ["M"]
    assert frame["date"].dt.strftime("%Y-%m-%d").tolist() == ["2024-01-01", "2024-02-01"]


@pytest.mark.parametrize("written", [" 2024-01-05T10:00:00Z ", "2024-01-05 10:00:00 UTC", "2024-01-05 10:00:00 GMT"])
def test_blanks_and_utc_around_a_time_do_not_change_it(tmp_path, written):
    frame, notes = lines(tmp_path, JANUARY.replace("2024-01-05T10:00:00Z", written))
    assert frame["ordered_at"].unique().tolist() == [pd.Timestamp("2024-01-05 10:00", tz="UTC")]
    assert "days are those of UTC, the only UTC offset" in notes


def test_times_without_an_offset_beside_those_in_utc_are_told(tmp_path):
    _, notes = lines(tmp_path, JANUARY.replace("2024-01-05T10:00:00Z", "2024-01-05T10:00:00", 1))
    assert "order_lines.ordered_at: 1 times without a UTC offset, taken as UTC" in notes


def parquet(path: Path, times: pa.Array) -> None:
    size = len(times)
    path.parent.mkdir(exist_ok=True)
    columns = {name: pa.array(["x"] * size) for name in ("product_id", "channel")}
    columns |= {"order_id": pa.array([f"p{i}" for i in range(size)]), "currency": pa.array(["EUR"] * size)}
    columns |= {name: pa.array([1] * size) for name in ("line_no", "quantity", "unit_price")}
    pq.write_table(pa.table(columns | {"ordered_at": times}), path)


@pytest.mark.parametrize("kind", [pa.timestamp("ms"), pa.timestamp("ns"), pa.string()])
def test_an_offset_in_one_of_two_files_says_whose_days_count(tmp_path, kind):
    midnight = pa.array([datetime(2024, 1, 1, 0, 30)], pa.timestamp("us"))
    times = midnight.cast(kind) if kind != pa.string() else pa.array(["2024-01-01 00:30:00"])
    parquet(tmp_path / "in" / "order_lines_2024-01.parquet", times)
    tables, result = read(tmp_path, {"order_lines_2024-02.csv": FEBRUARY.replace("10:00:00Z", "10:00:00+02:00")})
    assert result.manifest.zone == "UTC+02:00"
    first = tables["order_lines"]["ordered_at"].iloc[0]
    assert first == pd.Timestamp("2023-12-31 22:30", tz="UTC")


def test_the_zone_of_a_file_beside_another_with_offsets_is_found(tmp_path):
    summer = pa.array([datetime(2024, 7, 1, 5, 30)], pa.timestamp("us", "America/Denver"))
    parquet(tmp_path / "in" / "order_lines_2024-07.parquet", summer)
    _, result = read(tmp_path, {"order_lines_2024-02.csv": FEBRUARY.replace("10:00:00Z", "10:00:00-07:00")})
    assert result.manifest.zone == "America/Denver"


def test_offsets_in_a_dictionary_column_count(tmp_path):
    texts = ["2024-01-01T00:10:00+05:30", "2024-01-02T00:10:00+05:30", "2024-01-02T00:10:00+05:30"]
    parquet(tmp_path / "in" / "order_lines.parquet", pa.array(texts).dictionary_encode())
    tables, result = read(tmp_path, {})
    assert result.manifest.zone == "UTC+05:30"
    assert tables["order_lines"]["ordered_at"].iloc[0] == pd.Timestamp("2023-12-31 18:40", tz="UTC")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("totals_2024-01.csv", "totals_2024-02.csv"),
        ("sales_totals_1.csv", "sales_totals_2.csv"),
        ("2024-01/sales_totals.csv", "2024-02/sales_totals.csv.gz"),
    ],
)
def test_the_same_total_in_two_files_counts_once(tmp_path, first, second):
    later = TOTALS + "2024-01-02,s1,5.0\n2024-01-03,s1,-2\n"
    content = gzip.compress(later.encode()) if second.endswith(".gz") else later
    tables, result = read(tmp_path, {first: TOTALS + "2024-01-01,s1,4\n2024-01-02,s1,5\n", second: content})
    assert tables["sales_totals"]["units"].tolist() == [4, 5, -2]
    assert "1 of store_id, date are the same in" in "\n".join(result.notes)


def test_of_two_totals_that_differ_the_later_file_counts(tmp_path):
    names = ("totals_2024-01.csv", "totals_2024-02.csv")
    rows = ("2024-01-01,s1,4\n2024-01-02,s1,5\n", "2024-01-02,s1,9\n2024-01-03,s1,1\n")
    tables, _ = read(tmp_path, {name: TOTALS + body for name, body in zip(names, rows, strict=True)})
    assert tables["sales_totals"]["units"].tolist() == [4, 9, 1]


def test_of_two_totals_that_differ_in_files_without_dates_none_is_taken(tmp_path):
    rows = {"totals_a.csv": "2024-01-01,s1,4\n2024-01-02,s1,5\n", "totals_b.csv": "2024-01-02,s1,9\n2024-01-03,s1,1\n"}
    with pytest.raises(DataRefused, match="nothing says which file is later") as refused:
        read(tmp_path, {name: TOTALS + body for name, body in rows.items()})
    assert "totals_a.csv and totals_b.csv" in refused.value.failures[0].what


def test_a_total_twice_in_one_file_is_refused(tmp_path):
    with pytest.raises(DataRefused) as refused:
        read(tmp_path, {"sales_totals.csv": TOTALS + "2024-01-01,s1,4\n2024-01-01,s1,4\n2024-01-02,s1,1\n"})
    assert "must be unique: line 3" in refused.value.failures[0].what


@pytest.mark.parametrize("twin", [" A", "A ", "A\u00a0"])
def test_identifiers_that_only_blanks_tell_apart_are_told(tmp_path, twin):
    frame, notes = lines(tmp_path, JANUARY.replace(",B,", f",{twin},"))
    assert set(frame["product_id"]) == {"A", twin}
    assert "product_id: identifiers that only blanks around them tell from others are kept apart: line 3" in notes


@pytest.mark.parametrize("cell", ["$100", "10%", "(100)", "5-", "inf", "NA", "EUR 12.50"])
def test_a_field_of_leads_that_is_text_because_of_some_cells_is_told(tmp_path, cell):
    rows = "".join(f"l{i},2024-01-0{i}T10:00:00Z,won,{i}\n" for i in range(1, 6))
    text = f"lead_id,scored_at,outcome,balance\n{rows}l6,2024-01-06T10:00:00Z,lost,{cell}\n"
    _, result = read(tmp_path, {"leads.csv": text})
    assert f"balance is text, not a number, because of line 7 ({cell!r})" in "\n".join(result.notes)


def test_texts_with_numbers_in_them_are_no_numbers_to_tell_of(tmp_path):
    cells = ["SKU123", "+49 30 123", "12.03.2024", "A-1", "5 pieces"]
    rows = "".join(f"l{i},2024-01-0{i}T10:00:00Z,won,{cell}\n" for i, cell in enumerate(cells, 1))
    _, result = read(tmp_path, {"leads.csv": "lead_id,scored_at,outcome,code\n" + rows})
    assert "is text" not in "\n".join(result.notes)


def test_only_columns_with_a_decimal_comma_are_told(tmp_path):
    _, notes = lines(tmp_path, JANUARY.replace(",", ";").replace("5.95", "5,95").replace("7.50", "1\u2009007,50"))
    assert "numbers have a decimal comma (unit_price)" in notes


@pytest.mark.parametrize("cut", [2, 3, 4])
@pytest.mark.parametrize(
    "names", [("order_lines_part1.csv", "order_lines_part2.csv"), ("2024-01/a.csv", "2024-01/b.csv.gz")]
)
def test_an_order_that_is_cut_in_two_by_the_end_of_a_file_keeps_all_its_lines(tmp_path, cut, names):
    rows = [f"o{i},{line},A,2024-01-05T10:00:00Z,{10 * i + line},1,EUR,web\n" for i in (1, 2) for line in (1, 2, 3)]
    first, second = HEADER + "".join(rows[:cut]), HEADER + "".join(rows[cut:])
    packed = gzip.compress(second.encode()) if names[1].endswith(".gz") else second
    tables, result = read(tmp_path, {names[0]: first, names[1]: packed})
    assert sorted(tables["order_lines"]["quantity"]) == [11, 12, 13, 21, 22, 23]
    assert ("some rows in one file and others in another" in "\n".join(result.notes)) == (cut != 3)


def test_an_invoice_that_is_cut_in_two_keeps_all_its_products(tmp_path):
    names = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
    rows = [f"536365,8512{i},MUG {i},{i},2010-12-01 08:26:00,2.5,17850,United Kingdom\n" for i in (1, 2, 3)]
    files = {"retail_1.csv": names + rows[0], "retail_2.csv": names + "".join(rows[1:])}
    tables, _ = read(tmp_path, files)
    assert sorted(tables["order_lines"]["quantity"]) == [1, 2, 3]


def test_a_changed_order_in_a_later_file_replaces_the_former(tmp_path):
    later = JANUARY.replace(",2,B,", ",3,C,").replace("5.95", "5.90")
    tables, _ = read(tmp_path, {"order_lines_2024-01.csv": JANUARY, "order_lines_2024-02.csv": later})
    assert tables["order_lines"]["product_id"].tolist() == ["A", "C"]


@pytest.mark.parametrize("lines_before", [1, 2, 3])
def test_rows_that_a_later_file_replaces_are_counted(tmp_path, lines_before):
    row = "o7,{},A,2024-01-31T10:00:00Z,1,5,EUR,web\n"
    former = HEADER + "".join(row.format(n) for n in range(1, lines_before + 1))
    files = {"order_lines_2024-01.csv": former, "order_lines_2024-02.csv": HEADER + row.format(9)}
    tables, result = read(tmp_path, files)
    assert tables["order_lines"]["line_no"].tolist() == [9]
    assert f"{lines_before} rows of earlier files are left out (first order_id o7)" in "\n".join(result.notes)


@pytest.mark.parametrize(
    "above",
    [
        "Orders of January,,,,,,,\n",
        "Orders,,,,,,,\n,,,,,,,\n",
        "From,2024-01-01,,,,,,\nTo,2024-01-31,,,,,,\n,,,,,,,\n\n",
    ],
)
@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_titles_that_are_filled_up_with_separators_are_no_header(tmp_path, above, mark):
    frame, notes = lines(tmp_path, (above + JANUARY).replace(",", mark))
    assert frame["quantity"].tolist() == [1, 2]
    assert "above the header passed over" in notes


@pytest.mark.parametrize("header", [",a,b\n", "id,,\n"])
def test_a_header_with_empty_names_is_a_header(header):
    read = parse_csv((header + "0,x,y\n1,z,w\n").encode(), "x.csv")
    assert read.frame.index.tolist() == [2, 3]


@pytest.mark.parametrize("name", ["Order ID", "ORDER_ID", "order-id"])
def test_a_column_of_another_spelling_is_named_as_the_nearest(tmp_path, name):
    with pytest.raises(DataRefused) as refused:
        lines(tmp_path, JANUARY.replace("order_id", name))
    (failure,) = refused.value.failures
    assert f"column 'order_id' is missing; the nearest column there is {name!r}" in failure.what


@pytest.mark.parametrize(
    ("inside", "told", "advice"),
    [
        (["jan.zip", "feb.tar.gz"], "there: feb.tar.gz, jan.zip", "unpack it"),
        (["orders.xlsx"], "there: orders.xlsx", "export CSV or Parquet"),
        ([], "there: nothing", "export CSV or Parquet"),
    ],
)
def test_an_archive_without_a_table_says_what_is_in_it(tmp_path, inside, told, advice):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as pack:
        for name in inside:
            pack.writestr(name, b"x")
    with pytest.raises(UsageError, match=rf"no CSV or Parquet file in it; {told}") as refused:
        ingest(str(tmp_path / "all.zip"), "shop", store=tmp_path / "store", created_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert advice in refused.value.next
