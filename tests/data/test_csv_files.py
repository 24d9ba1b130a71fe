"""CSV files: read as they were written, or refused with the line; nothing is cut, swallowed or guessed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from d2c_mlops.data.ingestion.ingest import MappedTables, map_tables
from d2c_mlops.data.layouts.leads import unpack_lead_fields
from d2c_mlops.data.sources.csv_files import parse_csv
from d2c_mlops.data.sources.files import FileFormat
from d2c_mlops.data.sources.text_encoding import decode_to_utf8
from d2c_mlops.errors import DataRefused

NOW = datetime(2024, 6, 1, tzinfo=UTC)
NAMES = ("order_id", "line_no", "product_id", "ordered_at", "quantity", "unit_price", "currency", "channel")


def table(tmp_path: Path, *rows: dict[str, str], separator: str = ";", **form: str) -> MappedTables:
    standard = dict(zip(NAMES, ("A", "1", "P1", "2024-01-03", "1", "5", "EUR", "web"), strict=True))
    names = list(dict.fromkeys([*NAMES, *(name for row in rows for name in row)]))
    lines = [separator.join(names)]
    for i, row in enumerate(rows, 1):
        cells = (standard | {"order_id": f"A{i}"} | row).get
        lines.append(
            separator.join(f'"{cells(n)}"' if separator in str(cells(n)) else str(cells(n, "")) for n in names)
        )
    (tmp_path / "order_lines.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return map_tables(str(tmp_path / "order_lines.csv"), file_format=FileFormat(**form))


def column(mapped: MappedTables, name: str) -> list[Any]:
    return mapped.frames["order_lines"][name].tolist()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("n,price,day\n1,5.00,2024\n2,5,95,2024\n", "line 3: 4 cells under 3 columns: 2,5,95,2024"),
        ("n,price,day\n1,5,95,2024\n2,6,95,2024\n", "line 2: 4 cells"),
        ("n,name,day\n1,Mug, big,2024\n2,Cup, big,2024\n", "line 2: 4 cells"),
        ("n,price,day\n1,5.00,2024\n\n2,5.00\n", "line 4: 2 cells under 3 columns"),
        (f"n,note,day\n1,{'x' * 200_000},2024,7\n", "line 2: 4 cells under 3 columns"),
        ("n,price,day\n1,5,2024,\n2,5,2024,\n", "line 2: 4 cells"),
        ('n,note,day\n1,"a\nb",2024\n2,x\n', "line 4: 2 cells"),
    ],
)
def test_rows_of_another_width_are_refused_with_their_line(content: str, told: str) -> None:
    with pytest.raises(DataRefused, match=told):
        parse_csv(content.encode(), "x.csv")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('n,name\n1,a\n2,"5 inch\n3,b\n', 'never closed: line 3: 2,"5 inch'),
        ('n,name\n1,"5" nail"\n', "line 2"),
        ('n,name\n1,"say \\"hi\\", ok"\n', "line 2"),
        (
            'n,p,day\n1,a,2024-01-01\n2,"5 in,2024-01-02\n3,b,2024-01-03\n4,7 in",2024-01-04\n',
            "swallows the rows after it: line 3",
        ),
        ('n,p,day\n1,"5 in,2024-01-02\n2,7 in",2024-01-04\n', "swallows the rows after it: line 2"),
        ('p,n,day\n"5 in,1,2024-01-02\nb,2,2024-01-03\n7 in",3,2024-01-04\n', "swallows the rows after it: line 2"),
        ('n,day,p\n1,2024-01-02,"5 in\n2,2024-01-03,b\n3,2024-01-04,7 in"\n', "swallows the rows after it: line 2"),
    ],
)
def test_quotation_marks_that_do_not_fit_are_refused_with_their_line(content: str, told: str) -> None:
    with pytest.raises(DataRefused, match=told):
        parse_csv(content.encode(), "x.csv")


@pytest.mark.parametrize(
    ("content", "cells"),
    [
        ('n,note\n1,"a, b\nc, d"\n2,x\n', ["a, b\nc, d", "x"]),
        ('n,note\n1,5" nail\n2,7"\n', ['5" nail', '7"']),
        ('n,note\n1,"5"" nail"\n2,""\n', ['5" nail', None]),
        ('n,note\r\n1,"a\r\nb"\r\n2,x\r\n', ["a\r\nb", "x"]),
        ("n,note\r1,a\r2,x\r", ["a", "x"]),
        ("n\tnote\n1\ta, b\n2\tx", ["a, b", "x"]),
        ("n|note\n1|a;b\n2|x\n", ["a;b", "x"]),
        ("sep=;\nn;note\n1;a,b\n2;x\n", ["a,b", "x"]),
        ('"sep=|"\r\nn|note\r\n1|a\r\n2|x\r\n', ["a", "x"]),
        ("Orders of May\n\nn,note\n1,a\n2,x\n", ["a", "x"]),
        ("\ufeffn,note,\n1,a,\n2,x,\n", ["a", "x"]),
        ("n,note\n1,a\n,\n2,x\n   \n", ["a", "x"]),
    ],
)
def test_well_formed_files_are_read_as_they_were_written(content: str, cells: list[str | None]) -> None:
    for encoding in ("utf-8", "utf-16"):
        read = parse_csv(content.encode(encoding), "x.csv").frame["note"]
        assert [None if pd.isna(cell) else cell for cell in read] == cells


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("a,b,a\n1,2,3\n", "'a' is the name of columns 1, 3"),
        (",,\n1,2,3\n", "line 1 has no column names"),
        ("\n\n", "the file is empty"),
        ("a,b\n1,\0\n", "NUL byte: line 2, column 3"),
    ],
)
def test_a_header_that_names_nothing_and_bytes_of_no_text_are_refused(content: str, told: str) -> None:
    with pytest.raises(DataRefused, match=told):
        parse_csv(content.encode(), "x.csv")


def test_a_column_without_a_name_is_left_out_and_told() -> None:
    read = parse_csv(b",n\n0,1\n", "x.csv")
    assert read.frame.columns.tolist() == ["n"] and read.notes == (
        "column 1 has no name and was left out (first cell: '0')",
    )


@pytest.mark.parametrize("title", ["Orders of May", "Report;2024", "made by ERP\n\n31.05.2024"])
def test_a_title_above_the_header_is_passed_over_and_told(title: str) -> None:
    read = parse_csv(f"{title}\nn;name;price;day;currency\n1;a;5,95;2024-01-01;EUR\n".encode(), "x.csv")
    assert read.frame["price"].tolist() == ["5,95"] and "above the header passed over" in read.notes[0]


@pytest.mark.parametrize("where", [b"Gr\xf6\xdfe", b"caf\xe9", b"\x80 5"])
def test_one_foreign_byte_in_a_utf8_file_is_refused_with_line_and_column(where: bytes) -> None:
    with pytest.raises(DataRefused, match="line 3, column"):
        decode_to_utf8("n,town\n1,Köln\n".encode() + b"2," + where + b"\n", "x.csv")


@pytest.mark.parametrize("text", ["Größe", "5 €", "don’t", "Žižek"])
def test_windows_1252_throughout_is_read_and_told(text: str) -> None:
    read = decode_to_utf8(f"n\n{text}\n".encode("cp1252"), "x.csv")
    assert read.data.decode() == f"n\n{text}\n" and "Windows-1252" in read.notes[0]
    assert decode_to_utf8(f"n\n{text}\n".encode("cp1252"), "x.csv", "cp1252").data == read.data


@pytest.mark.parametrize("encoding", ["cp850", "cp437", "mac_roman"])
def test_another_code_page_is_refused_until_it_is_declared(encoding: str) -> None:
    data = "town\nZürich\nBüro\n".encode(encoding)
    if encoding != "mac_roman":
        with pytest.raises(DataRefused, match="line 2, column 2"):
            decode_to_utf8(data, "x.csv")
    assert decode_to_utf8(data, "x.csv", encoding).data.decode() == "town\nZürich\nBüro\n"


@pytest.mark.parametrize(
    ("quantity", "beside", "separator", "value"),
    [
        ("1.200", "0,35", ";", 1200), ("1.200", "0.35", ";", 1.2), ("1,200", "0,35", ";", 1.2), ("1,200", "0.35", ";", 1200),
        ("1.200,5", "", ";", 1200.5), ("1,200.5", "", ",", 1200.5), ("1 200,5", "", ";", 1200.5), ("1'200.5", "", ",", 1200.5),
        ("1.234.567", "", "\t", 1234567), ("1,200", "", ",", 1200), ("1.200", "", ",", 1.2), ("5,95", "", "|", 5.95),
        ("12", "1.200", ";", 12),
    ],
)  # fmt: skip
def test_a_number_is_read_by_the_evidence_of_its_file(
    tmp_path: Path, quantity: str, beside: str, separator: str, value: float
) -> None:
    mapped = table(tmp_path, {"quantity": quantity, "weight": beside}, separator=separator)
    assert column(mapped, "quantity") == [value]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (
            [{"quantity": "2"}, {"quantity": "1.200"}],
            r"quantity: can be read in two ways.*--decimal.*line 3 \('1\.200'\)",
        ),
        ([{"quantity": "1,200", "unit_price": "3"}], r"line 2 \('1,200'\)"),
        ([{"unit_price": "5,95"}, {"unit_price": "5.95"}], r"unit_price: decimal point and decimal comma.*lines 2, 3"),
        ([{"unit_price": "5,95", "discount": "0.50", "quantity": "1.200"}], r"line 2 \('1\.200'\)"),
    ],
)
def test_a_number_that_can_be_read_in_two_ways_is_refused(
    tmp_path: Path, rows: list[dict[str, str]], told: str
) -> None:
    with pytest.raises(DataRefused, match=told):
        table(tmp_path, *rows)


def test_the_decimal_mark_can_be_declared_and_then_all_numbers_must_fit_it(tmp_path: Path) -> None:
    assert column(table(tmp_path, {"quantity": "1.200"}, decimal=","), "quantity") == [1200]
    assert column(table(tmp_path, {"quantity": "1.200"}, decimal="."), "quantity") == [1.2]
    with pytest.raises(DataRefused, match=r"does not fit the decimal mark ','.*line 2 \('5\.95'\)"):
        table(tmp_path, {"unit_price": "5.95"}, decimal=",")


def test_a_product_number_with_a_point_stays_as_it_is(tmp_path: Path) -> None:
    mapped = table(tmp_path, {"product_id": "1.200", "unit_price": "5,95"}, {"product_id": "1.2"})
    assert column(mapped, "product_id") == ["1.200", "1.2"]


@pytest.mark.parametrize("number", ["4.00638E+12", "4,00638E+12", "1E+15"])
@pytest.mark.parametrize("name", ["order_id", "product_id"])
def test_identifiers_in_scientific_notation_are_refused(tmp_path: Path, name: str, number: str) -> None:
    with pytest.raises(DataRefused, match=rf"{name}: an identifier in scientific notation.*line 2"):
        table(tmp_path, {name: number}, {})


@pytest.mark.parametrize(
    ("dates", "days"),
    [
        (["03/04/2024", "13/04/2024"], ["2024-04-03", "2024-04-13"]), (["04/03/2024", "04/13/2024"], ["2024-04-03", "2024-04-13"]),
        (["3.4.2024"], ["2024-04-03"]), (["03-04-2024 10:30", "31-12-2023 9:05"], ["2024-04-03", "2023-12-31"]),
        (["2024/04/03"], ["2024-04-03"]), (["12/31/2023 11:30 PM"], ["2023-12-31"]), (["2024-04-03", "13/04/2024"], ["2024-04-03", "2024-04-13"]),
    ],
)  # fmt: skip
def test_dates_are_read_in_the_order_that_their_column_shows(tmp_path: Path, dates: list[str], days: list[str]) -> None:
    mapped = table(tmp_path, *({"ordered_at": date} for date in dates))
    assert [str(day)[:10] for day in column(mapped, "ordered_at")] == days


@pytest.mark.parametrize(
    ("dates", "told"),
    [
        (["2024-01-01", "03/04/2024"], r"day and month cannot be told apart.*--dates dmy.*line 3 \('03/04/2024'\)"),
        (["13/04/2024", "04/13/2024"], "both orders.*lines 2, 3"),
        (["13/04/24"], r"the year has two digits.*line 2"),
        (["31/02/2024"], r"cannot be read as a time.*line 2"),
        (["0024-01-03"], r"the year must be from 1970 to 2100: line 2"),
        (["2024-01-03", "2204-01-03"], r"the year must be from 1970 to 2100: line 3 \('2204-01-03'\); order_id A2"),
        (["45294"], r"cannot be read as a time.*line 2"),
    ],
)
def test_dates_that_cannot_be_known_are_refused_with_line_and_order(
    tmp_path: Path, dates: list[str], told: str
) -> None:
    with pytest.raises(DataRefused, match=told) as refused:
        table(tmp_path, *({"ordered_at": date} for date in dates))
    assert "must not be empty" not in str(refused.value)


def test_the_order_of_dates_can_be_declared(tmp_path: Path) -> None:
    for order, day in (("dmy", "2024-04-03"), ("mdy", "2024-03-04")):
        mapped = table(tmp_path, {"ordered_at": "03/04/2024"}, dates=order)
        assert str(column(mapped, "ordered_at")[0])[:10] == day


def test_the_months_of_a_year_share_their_evidence(tmp_path: Path) -> None:
    for month, day in ((1, "05"), (2, "13")):
        row = f"A{month};1;P1;{day}/0{month}/2024;1.200;5;EUR;web"
        extra = ";0,5" if month == 2 else ";"
        (tmp_path / f"order_lines_2024-0{month}.csv").write_text(f"{';'.join(NAMES)};weight\n{row}{extra}\n")
    mapped = map_tables(str(tmp_path))
    assert [str(day)[:10] for day in column(mapped, "ordered_at")] == ["2024-01-05", "2024-02-13"]


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [(['"1,200"', '"950"'], [1200, 950]), (['"1,200.50"', "3"], [1200.5, 3]), (["1 200", "7"], [1200, 7])],
)
def test_lead_fields_with_separated_thousands_stay_numbers(
    tmp_path: Path, cells: list[str], numbers: list[float]
) -> None:
    rows = [f"L{i},2024-01-0{i},{cell}" for i, cell in enumerate(cells, 1)]
    (tmp_path / "leads.csv").write_text("\n".join(["lead_id,scored_at,revenue", *rows]) + "\n")
    assert unpack_lead_fields(map_tables(str(tmp_path / "leads.csv")).frames["leads"])["revenue"].tolist() == numbers


def test_a_lead_field_that_is_text_because_of_one_cell_is_told(tmp_path: Path) -> None:
    rows = [f"L{i},2024-01-0{i},{i}{'00' if i < 9 else ' approx'}" for i in range(1, 10)]
    (tmp_path / "leads.csv").write_text("\n".join(["lead_id,scored_at,revenue", *rows]) + "\n")
    notes = map_tables(str(tmp_path / "leads.csv")).notes
    assert any("revenue is text, not a number, because of row 10" in n or "line 10" in n for n in notes)


def test_a_cell_that_online_retail_cannot_read_is_not_called_empty(tmp_path: Path) -> None:
    head = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country"
    good, bad = "1,A,Mug,2,2011-01-03 10:00,5.00,7,UK", "2,A,Mug,two,yesterday,5.00,7,UK"
    (tmp_path / "x.csv").write_text(f"{head}\n{good}\n\n{bad}\n")
    with pytest.raises(DataRefused, match=r"Quantity: cannot be read as a number: line 4 \('two'\)") as refused:
        map_tables(str(tmp_path / "x.csv"))
    assert "InvoiceDate: cannot be read as a time (ISO 8601): line 4 ('yesterday')" in str(refused.value)


@pytest.mark.parametrize(
    ("dates", "days"),
    [
        (["03 Mar 2024", "29 Feb 2024"], ["2024-03-03", "2024-02-29"]),
        (["3-MAR-2024", "1. September 2024"], ["2024-03-03", "2024-09-01"]),
        (["Mar 3, 2024 11:30 PM", "December 31 2023"], ["2024-03-03", "2023-12-31"]),
        (["Sun, 03 Mar 2024 10:00:00 +0000", "Sept 4, 2024"], ["2024-03-03", "2024-09-04"]),
    ],
)
def test_dates_with_the_name_of_their_month_are_read(tmp_path: Path, dates: list[str], days: list[str]) -> None:
    mapped = table(tmp_path, *({"ordered_at": written} for written in dates))
    assert [str(moment)[:10] for moment in sorted(column(mapped, "ordered_at"))] == sorted(days)


@pytest.mark.parametrize("written", ["31 Feb 2024", "3 Mar 24", "3 mars 2024", "Mar 2024", "3 Octopus 2024"])
def test_a_date_with_a_month_that_is_not_clear_is_refused_with_its_line(tmp_path: Path, written: str) -> None:
    with pytest.raises(DataRefused, match=rf"lines? 3 \('{written}'\)"):
        table(tmp_path, {"ordered_at": "03 Mar 2024"}, {"ordered_at": written})


@pytest.mark.parametrize(
    ("prices", "read", "currency"),
    [
        (["$1,200.00", "-$0.00"], [1200.0, 0.0], "CAD"),
        (["€ 12,50", "1.200 €"], [12.5, 1200.0], "EUR"),
        (["CHF 1'234.50", "7 CHF"], [1234.5, 7.0], "CHF"),
        (["12,50\u00a0kr", "1 200 kr"], [12.5, 1200.0], "SEK"),
    ],
)
def test_money_with_the_sign_of_its_currency_is_a_number(
    tmp_path: Path, prices: list[str], read: list[float], currency: str
) -> None:
    mapped = table(tmp_path, *({"unit_price": price, "currency": currency} for price in prices))
    assert column(mapped, "unit_price") == read
    assert any("currency signs are left out (unit_price" in note for note in mapped.notes)


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"unit_price": "5,00 €", "currency": "USD"}, r"not that of the row's currency: line 3 \('5,00 €'\)"),
        ({"unit_price": "GBP 5", "currency": "EUR"}, r"not that of the row's currency: line 3"),
        ({"quantity": "€ 2", "currency": "EUR"}, r"quantity: cannot be read as a number: line 3 \('€ 2'\)"),
        ({"unit_price": "€ 5 €", "currency": "EUR"}, r"unit_price: cannot be read as a number: line 3"),
    ],
)
def test_a_sign_that_is_not_the_currency_of_its_row_is_refused(tmp_path: Path, row: dict[str, str], told: str) -> None:
    with pytest.raises(DataRefused, match=told):
        table(tmp_path, {}, row)


def test_only_the_rows_of_another_currency_are_named(tmp_path: Path) -> None:
    rows = [{"unit_price": "$5.00", "currency": code} for code in ("USD", "EUR", "USD", "CAD", "JPY")]
    with pytest.raises(DataRefused, match=r"row's currency: lines 3, 6 \('\$5.00'\)"):
        table(tmp_path, *rows)
