"""Orders written in any usual form are read as they were written, to the cent, and none of them is refused."""

from __future__ import annotations

import csv
import gzip
import io
import zipfile
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d2c_mlops.data.ingestion.ingest import ingest
from d2c_mlops.data.sources.files import FileFormat
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import DataRefused

HEAD = ["order_id", "line_no", "product_id", "ordered_at", "quantity", "unit_price", "currency", "channel", "note"]
LETTERS = "abcXYZ059 äöüßéñ€-_/'\"#.,;|\t"
names = st.text(LETTERS, min_size=1, max_size=12).map(str.strip).filter(lambda t: t and t.strip('"'))
notes = st.lists(st.text(LETTERS, max_size=15).map(str.strip), max_size=3).map("\n".join).map(str.strip)
START = datetime(2023, 11, 1)


@dataclass(frozen=True)
class Form:
    """How a table of orders is written."""

    separator: str
    encoding: str
    ends: str
    decimal: str
    quoting: int
    dates: str
    parts: int
    place: str
    header: str
    money: str


@st.composite
def forms(draw: st.DrawFn) -> Form:
    separator = draw(st.sampled_from(",;\t|"))
    return Form(
        separator,
        draw(st.sampled_from(["utf-8", "utf-8-sig", "cp1252", "utf-16"])),
        draw(st.sampled_from(["\n", "\r\n"])),
        "." if separator == "," else draw(st.sampled_from(".,")),
        draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        draw(
            st.sampled_from(
                [
                    "%Y-%m-%d %H:%M:%S",
                    "%Y-%m-%dT%H:%M:%S+00:00",
                    "%d.%m.%Y %H:%M:%S",
                    "%Y/%m/%d %H:%M:%S",
                    "%d %b %Y %H:%M:%S",
                    "%B %d, %Y %I:%M:%S %p",
                ]
            )
        ),
        draw(st.integers(1, 4)),
        draw(st.sampled_from(["folder", "subfolders", "zip", "gzip", "mixed", "parquet", "sql"])),
        draw(st.sampled_from(["", "sep"])),
        draw(st.sampled_from(["{}", "{}", "€{}", "{} €", "EUR {}"])),
    )


@st.composite
def orders(draw: st.DrawFn) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for number in range(draw(st.integers(1, 12))):
        day = START + timedelta(seconds=draw(st.integers(0, 180 * 86400)))
        for line in range(draw(st.integers(1, 3))):
            quantity, cents = draw(st.integers(1, 2000)), draw(st.integers(0, 200_000))
            rows.append({"order_id": f"A{number:03}", "line_no": line + 1, "product_id": draw(names), "ordered_at": day,
                         "quantity": quantity, "cents": cents, "note": draw(notes)})  # fmt: skip
    return rows


def cells_of(row: dict[str, Any], form: Form) -> list[str]:
    price = form.money.format(f"{row['cents'] / 100:.2f}".replace(".", form.decimal))
    day = row["ordered_at"].strftime(form.dates)
    return [
        row["order_id"],
        str(row["line_no"]),
        row["product_id"],
        day,
        str(row["quantity"]),
        price,
        "EUR",
        "web",
        row["note"],
    ]


def csv_bytes(rows: list[dict[str, Any]], form: Form) -> bytes:
    out = io.StringIO()
    if form.header == "sep":
        out.write(f"sep={form.separator}{form.ends}")
    writer = csv.writer(out, delimiter=form.separator, lineterminator=form.ends, quoting=form.quoting)
    writer.writerow(HEAD)
    writer.writerows(cells_of(row, form) for row in rows)
    return out.getvalue().encode(form.encoding)


def typed(rows: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(rows).assign(currency="EUR", channel="web", unit_price=lambda f: f["cents"] / 100)
    return frame[HEAD].astype({"quantity": "float64"})


def split(rows: list[dict[str, Any]], parts: int) -> list[tuple[str, list[dict[str, Any]]]]:
    by_month: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_month.setdefault(row["ordered_at"].strftime("%Y-%m") if parts > 1 else "all", []).append(row)
    return sorted(by_month.items())


def written(folder: Path, rows: list[dict[str, Any]], form: Form) -> str:
    if form.place == "sql":
        engine = sa.create_engine(f"sqlite:///{folder}/shop.db")
        typed(rows).to_sql("order_lines", engine, index=False)
        engine.dispose()
        return f"sqlite:///{folder}/shop.db"
    target = folder / "in"
    target.mkdir()
    for i, (month, some) in enumerate(split(rows, form.parts)):
        home = target / f"{form.place}-{i}" if form.place == "subfolders" else target
        home.mkdir(exist_ok=True)
        stem = home / f"order_lines_{month}"
        if form.place == "parquet" or (form.place == "mixed" and i % 2):
            typed(some).to_parquet(f"{stem}.parquet")
        elif form.place == "gzip":
            Path(f"{stem}.csv.gz").write_bytes(gzip.compress(csv_bytes(some, form)))
        else:
            Path(f"{stem}.csv").write_bytes(csv_bytes(some, form))
    if form.place != "zip":
        return str(target)
    with zipfile.ZipFile(folder / "in.zip", "w") as archive:
        for file in target.iterdir():
            archive.write(file, file.name)
    return str(folder / "in.zip")


READ = {"read": 0, "refused": 0}


def check(rows: list[dict[str, Any]], form: Form) -> None:
    with TemporaryDirectory() as folder:
        location = written(Path(folder), rows, form)
        declared = form.encoding if form.encoding == "cp1252" and form.place not in ("sql", "parquet") else ""
        try:
            store = Path(folder) / "store"
            ingest(
                location,
                "shop",
                store=store,
                file_format=FileFormat(declared),
                created_at=datetime(2024, 6, 1, tzinfo=UTC),
            )
            got = Tables.open(store, "shop")["order_lines"]
        except DataRefused:
            READ["refused"] += 1
            raise
    READ["read"] += 1
    keys = ["order_id", "line_no"]
    got = got.sort_values(keys, ignore_index=True)
    want = typed(rows).sort_values(keys, ignore_index=True)
    for column in ("order_id", "line_no", "product_id", "quantity", "currency"):
        assert got[column].tolist() == want[column].tolist(), column
    assert (got["unit_price"] * 100).round(6).tolist() == [
        row["cents"] for row in sorted(rows, key=lambda r: (r["order_id"], r["line_no"]))
    ]
    assert got["ordered_at"].dt.tz_localize(None).tolist() == want["ordered_at"].tolist()


quick = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
thorough = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))


@quick
@given(orders(), forms())
def test_orders_in_any_usual_form_are_read_as_they_were_written(rows: list[dict[str, Any]], form: Form) -> None:
    check(rows, form)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_no_well_formed_table_of_orders_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    READ.update(read=0, refused=0)
    thorough(given(orders(), forms())(check))()
    rate = READ["refused"] / sum(READ.values())
    with capsys.disabled():
        print(f"\nrefused: {READ['refused']} of {sum(READ.values())} well-formed tables ({rate:.1%})")
    assert READ["refused"] == 0 and READ["read"] >= 400
