"""Files: what may lie in a folder is joined, counted once, or named; nothing of it is dropped without a word."""

from __future__ import annotations

import gzip
import json
import os
import tarfile
import zipfile
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.data.ingestion.increment import ingest_new
from d2c_mlops.data.ingestion.ingest import IngestResult, ingest
from d2c_mlops.data.ingestion.overlap import RowChanges
from d2c_mlops.data.tables import Tables
from d2c_mlops.errors import DataRefused, UsageError

NOW = datetime(2024, 6, 1, tzinfo=UTC)
HEAD = "order_id,line_no,product_id,ordered_at,quantity,unit_price,currency,channel"


def line(order: str, day: str, quantity: int = 1, number: int = 1) -> str:
    return f"{order},{number},P1,{day},{quantity},5.00,EUR,web"


def write(path: Path, *rows: str, head: str = HEAD) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join([head, *rows]) + "\n")
    return path


def read(tmp_path: Path, location: Path | None = None, **given: Any) -> IngestResult:
    return ingest(str(location or tmp_path / "in"), "shop", store=tmp_path / "store", created_at=NOW, **given)


def lines(tmp_path: Path) -> pd.DataFrame:
    return Tables.open(tmp_path / "store", "shop")["order_lines"].sort_values(
        ["order_id", "line_no"], ignore_index=True
    )


def months(folder: Path) -> None:
    write(folder / "order_lines_2024-01.csv", line("A1", "2024-01-03", 2))
    write(folder / "order_lines_2024-02.csv", line("A2", "2024-02-03", 3), line("A3", "2024-02-04", 4))


@pytest.mark.parametrize(
    "form", ["folder", "subfolders", "zip", "tar", "gzip", "capitals", "zip in a folder", "numbers"]
)
def test_the_files_of_one_table_are_joined_wherever_they_lie(tmp_path: Path, form: str) -> None:
    folder = tmp_path / "in"
    months(folder)
    files = sorted(folder.iterdir())
    location = folder
    if form == "subfolders":
        for file in files:
            (folder / file.stem[-7:-3]).mkdir(exist_ok=True)
            file.rename(folder / file.stem[-7:-3] / f"{file.stem[-2:]}-order_lines.csv")
    elif form in ("zip", "zip in a folder"):
        location = tmp_path / "in.zip" if form == "zip" else folder
        with zipfile.ZipFile(location if form == "zip" else folder / "all.zip", "w") as archive:
            for file in files:
                archive.write(file, f"deep/{file.name}")
                file.unlink()
    elif form == "tar":
        location = tmp_path / "in.tar.gz"
        with tarfile.open(location, "w:gz") as pack:
            pack.add(folder, ".")
    elif form == "gzip":
        for file in files:
            file.with_suffix(".csv.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    elif form == "capitals":
        for file in files:
            file.rename(folder / file.name.upper())
    elif form == "numbers":
        for number, file in enumerate(files, 1):
            file.rename(folder / f"export ({number}).csv")
    result = read(tmp_path, location)
    assert lines(tmp_path)["quantity"].tolist() == [2, 3, 4]
    assert result.unread == () and any("2 files joined, 3 rows" in note for note in result.notes)


def test_csv_beside_parquet_is_one_table_and_all_other_tables(tmp_path: Path) -> None:
    months(tmp_path / "in")
    march = pd.DataFrame(
        {"order_id": [17], "line_no": [1], "product_id": ["P1"], "ordered_at": pd.to_datetime(["2024-03-01"])}
    )
    march.assign(quantity=9, unit_price=5.0, currency="EUR", channel="web").to_parquet(
        tmp_path / "in/order_lines_2024-03.parquet"
    )
    pd.DataFrame({"product_id": ["P1"], "name": ["Mug"]}).to_parquet(tmp_path / "in/products.parquet")
    result = read(tmp_path)
    assert lines(tmp_path)["order_id"].tolist() == ["17", "A1", "A2", "A3"]
    assert result.manifest.tables["products"].rows == 1


def test_a_partitioned_data_set_keeps_what_its_path_says(tmp_path: Path) -> None:
    for channel in ("web", "app"):
        row = f"{channel}1,1,P1,2024-01-03,1,5.00,EUR"
        write(tmp_path / f"in/order_lines/channel={channel}/part-0.csv", row, head=HEAD.removesuffix(",channel"))
    read(tmp_path)
    assert lines(tmp_path)["channel"].tolist() == ["app", "web"]


@pytest.mark.parametrize("other", ["prices.xlsx", "notes.txt", "deep/report.pdf"])
def test_a_file_that_nothing_reads_is_named(tmp_path: Path, other: str) -> None:
    months(tmp_path / "in")
    (tmp_path / "in" / other).parent.mkdir(exist_ok=True)
    (tmp_path / "in" / other).write_text("x")
    result = read(tmp_path)
    assert result.unread == (other,) and any(other in note for note in result.notes)


def test_a_table_that_no_layout_uses_is_named_with_its_file(tmp_path: Path) -> None:
    months(tmp_path / "in")
    write(tmp_path / "in/campaigns.csv", "1,2", head="clicks,cost")
    result = read(tmp_path)
    assert result.unread == ("campaigns.csv",) and any("campaigns.csv" in note for note in result.notes)


def test_the_unread_files_are_in_the_json_of_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    months(tmp_path / "in")
    (tmp_path / "in/notes.txt").write_text("x")
    (tmp_path / "settings.ini").write_text("[d2c]\n")
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(main, ["ingest", "in", "--as", "shop", "--json"])
    assert json.loads(shown.output)["unread"] == ["notes.txt"] and json.loads(shown.output)["rows"]["new"] == 3


def test_an_order_that_is_the_same_in_two_files_counts_once_and_is_told(tmp_path: Path) -> None:
    months(tmp_path / "in")
    write(tmp_path / "in/order_lines_copy.csv", line("A1", "2024-01-03", 2))
    result = read(tmp_path)
    assert lines(tmp_path)["order_id"].tolist() == ["A1", "A2", "A3"]
    assert any("1 of order_id are the same" in note and "order_lines_copy.csv" in note for note in result.notes)


def test_of_an_order_that_changed_the_file_with_the_later_date_counts(tmp_path: Path) -> None:
    months(tmp_path / "in")
    write(tmp_path / "in/order_lines_2024-03.csv", line("A3", "2024-02-04", 7, number=2))
    result = read(tmp_path)
    assert lines(tmp_path)[["order_id", "quantity"]].to_numpy().tolist() == [["A1", 2], ["A2", 3], ["A3", 7]]
    assert any("the later file counts" in note for note in result.notes)


@pytest.mark.parametrize(
    "names",
    [("order_lines_a", "order_lines_b"), ("order_lines_1", "order_lines_2"), ("x/order_lines", "y/order_lines")],
)
def test_two_versions_of_an_order_without_dates_are_refused_with_both_files(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    for quantity, name in enumerate(names, 1):
        write(tmp_path / f"in/{name}.csv", line("A1", "2024-01-03", quantity))
    with pytest.raises(DataRefused) as refused:
        read(tmp_path)
    assert all(f"{name}.csv" in str(refused.value) for name in names) and "order_id A1" in str(refused.value)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("column", "values"), [("store_id", ["", "S1"]), ("discount", [0.0, 0.5]), ("returned_at", ["", "2024-03-01"])]
)
def test_a_column_that_only_some_files_have_is_filled_where_that_is_allowed(
    tmp_path: Path, column: str, values: list[Any]
) -> None:
    write(tmp_path / "in/order_lines_2024-01.csv", line("A1", "2024-01-03"))
    write(tmp_path / "in/order_lines_2024-02.csv", f"{line('A2', '2024-02-03')},{values[1]}", head=f"{HEAD},{column}")
    read(tmp_path)
    got = lines(tmp_path)[column]
    assert (got.isna()[0] or got[0] == values[0]) and str(got[1]).startswith(str(values[1]))


def test_files_that_lack_a_needed_column_are_refused_by_name(tmp_path: Path) -> None:
    months(tmp_path / "in")
    write(tmp_path / "in/order_lines_2024-03.csv", "A4,1,P1,2024-03-03,1,5.00,EUR", head=HEAD.removesuffix(",channel"))
    with pytest.raises(
        DataRefused, match=r"order_lines_2024-03\.csv: column 'channel' is missing; order_lines_2024-01\.csv has it"
    ):
        read(tmp_path)


def test_a_failure_names_file_line_and_order(tmp_path: Path) -> None:
    months(tmp_path / "in")
    write(tmp_path / "in/order_lines_2024-03.csv", line("A9", "2024-03-09"), "", line("A8", "2024-03-02", -1))
    with pytest.raises(DataRefused, match=r"must be more than 0: line order_lines_2024-03\.csv:4 .*order_id A8"):
        read(tmp_path)


def test_a_folder_without_any_table_lists_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/notes.txt").write_text("x")
    with pytest.raises(UsageError, match=r"no file there can be read; there: notes\.txt"):
        read(tmp_path)


def test_a_period_that_is_read_again_is_replaced_and_the_months_before_stay(tmp_path: Path) -> None:
    months(tmp_path / "in")
    read(tmp_path)
    again = write(
        tmp_path / "again/order_lines.csv",
        line("A2", "2024-02-03", 8), line("A5", "2024-02-10"), line("A4", "2024-03-03", 5),
    )  # fmt: skip
    result = read(tmp_path, again)
    assert lines(tmp_path)[["order_id", "quantity"]].to_numpy().tolist() == [["A1", 2], ["A2", 8], ["A4", 5], ["A5", 1]]
    assert result.news == RowChanges(new=2, changed=1, removed=1, unchanged=1)
    assert any("stay" in note for note in result.notes)
    assert not read(tmp_path, again).changed


def test_the_whole_dataset_is_replaced_when_that_is_asked_for(tmp_path: Path) -> None:
    months(tmp_path / "in")
    read(tmp_path)
    march = write(tmp_path / "march/order_lines.csv", line("A4", "2024-03-03", 5))
    result = read(tmp_path, march, replace="all")
    assert lines(tmp_path)["order_id"].tolist() == ["A4"] and result.news == RowChanges(new=1, removed=3)


def test_a_few_late_orders_do_not_replace_the_months_between_them(tmp_path: Path) -> None:
    days = pd.date_range("2024-01-01", periods=60).strftime("%Y-%m-%d")
    read(tmp_path, write(tmp_path / "all/order_lines.csv", *(line(f"A{i:02}", day) for i, day in enumerate(days))))
    late = write(tmp_path / "late/order_lines.csv", line("L1", days[5]), line("L2", days[50]))
    with pytest.raises(DataRefused, match="--replace orders"):
        read(tmp_path, late)
    read(tmp_path, late, replace="orders")
    assert len(lines(tmp_path)) == 62


def take_in(tmp_path: Path, **given: Any) -> Any:
    return ingest_new(str(tmp_path / "in"), "shop", store=tmp_path / "store", created_at=NOW, **given)


def test_the_source_job_remembers_only_what_it_took_in(tmp_path: Path) -> None:
    months(tmp_path / "in")
    (tmp_path / "in/notes.txt").write_text("x")
    write(tmp_path / "in/campaigns.csv", "1,2", head="clicks,cost")
    first = take_in(tmp_path)
    assert first.news == RowChanges(new=3) and set(first.unread) == {"notes.txt", "campaigns.csv"}
    memory = json.loads((tmp_path / "store/sources/shop.json").read_text())
    assert set(memory["files"]) == {"order_lines_2024-01.csv", "order_lines_2024-02.csv"}
    assert set(take_in(tmp_path).unread) == {"notes.txt", "campaigns.csv"}


def test_a_file_in_a_subfolder_that_comes_later_is_taken_in(tmp_path: Path) -> None:
    months(tmp_path / "in")
    take_in(tmp_path)
    write(tmp_path / "in/2024/03/order_lines.csv", line("A4", "2024-03-03", 5))
    assert take_in(tmp_path).news.new == 1 and len(lines(tmp_path)) == 4
    assert not take_in(tmp_path).news.any


def test_an_export_that_was_corrected_replaces_what_it_brought_before(tmp_path: Path) -> None:
    months(tmp_path / "in")
    take_in(tmp_path)
    write(tmp_path / "in/order_lines_2024-02.csv", line("A2", "2024-02-03", 9))
    result = take_in(tmp_path)
    assert result.news == RowChanges(changed=1, removed=1, unchanged=1)
    assert lines(tmp_path)[["order_id", "quantity"]].to_numpy().tolist() == [["A1", 2], ["A2", 9]]


def test_files_that_were_moved_away_keep_their_rows(tmp_path: Path) -> None:
    months(tmp_path / "in")
    take_in(tmp_path)
    (tmp_path / "in/order_lines_2024-01.csv").unlink()
    write(tmp_path / "in/order_lines_2024-02.csv", line("A2", "2024-02-03", 9), line("A2", "2024-02-03", 1, number=2))
    result = take_in(tmp_path)
    assert (result.news.new, result.news.changed) == (1, 1)
    assert lines(tmp_path)["order_id"].tolist() == ["A1", "A2", "A2", "A3"]


def test_the_later_export_counts_where_both_arrive_at_once(tmp_path: Path) -> None:
    write(tmp_path / "in/order_lines_2024-02.csv", line("A1", "2024-01-03", 7))
    write(tmp_path / "in/order_lines_2024-01.csv", line("A1", "2024-01-03", 2))
    os.utime(tmp_path / "in/order_lines_2024-02.csv", (1, 1))
    take_in(tmp_path)
    assert lines(tmp_path)["quantity"].tolist() == [7]


def test_a_broken_export_changes_nothing_and_is_not_remembered(tmp_path: Path) -> None:
    months(tmp_path / "in")
    take_in(tmp_path)
    write(tmp_path / "in/order_lines_2024-03.csv", line("A4", "2024-03-03") + ",7")
    with pytest.raises(DataRefused, match="line 2: 9 cells under 8 columns"):
        take_in(tmp_path)
    write(tmp_path / "in/order_lines_2024-03.csv", line("A4", "2024-03-03"))
    assert take_in(tmp_path).news.new == 1


def test_an_archive_that_is_no_archive_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(BytesIO(b"no archive").getvalue())
    with pytest.raises(DataRefused, match=r"x\.tar"):
        read(tmp_path, tmp_path / "x.tar")


def test_totals_of_a_key_in_the_files_of_two_months_are_one_series(tmp_path: Path) -> None:
    for month in (1, 2):
        days = [f"P1,2024-0{month}-0{day},{month * day}" for day in (1, 2, 3)]
        write(tmp_path / f"in/sales_totals_2024-0{month}.csv", *days, head="product,date,units")
    read(tmp_path)
    assert len(Tables.open(tmp_path / "store", "shop")["sales_totals"]) == 6
    again = write(tmp_path / "again/sales_totals.csv", "P1,2024-02-02,9", "P1,2024-02-03,9", head="product,date,units")
    assert read(tmp_path, again).news == RowChanges(changed=2, unchanged=4)


def test_an_archive_in_a_folder_that_holds_no_table_is_named(tmp_path: Path) -> None:
    months(tmp_path / "in")
    with zipfile.ZipFile(tmp_path / "in/pictures.zip", "w") as archive:
        archive.writestr("mug.png", "x")
    assert read(tmp_path).unread == ("pictures.zip/mug.png",)
