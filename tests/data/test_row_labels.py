"""A first column without a name in the header is read as row labels where that is certain, and else refused with its line."""

from pathlib import Path

import pytest

from d2c_mlops.data.sources.csv_files import CsvFile, parse_csv
from d2c_mlops.errors import DataRefused

AVOCADO = Path(__file__).resolve().parents[2] / "../shared/data/avocado.csv"


def read(*lines: str) -> CsvFile:
    return parse_csv("\n".join(lines).encode(), "x.csv")


def test_row_numbers_without_a_name_become_the_column_index_and_are_told() -> None:
    table = read("day,price", "0,2024-01-01,1.5", "1,2024-01-02,1.7", "2,2024-01-03,1.9")
    assert table.frame.to_dict("list") == {
        "index": ["0", "1", "2"],
        "day": ["2024-01-01", "2024-01-02", "2024-01-03"],
        "price": ["1.5", "1.7", "1.9"],
    }
    assert table.notes == ("the header has no name for the first column (first cell: '0'); it is read as 'index'",)


@pytest.mark.parametrize(
    "rows",
    [
        ('"1",3,5', '"2",4,6'),  # R: quoted numbers cannot be halves of others
        ('"Mazda RX4",3,5', '"Datsun 710",4,6'),
        ("1;3,5;5", "2;4,5;6", "3;4,5;7"),  # a decimal comma needs no separator of its own
        ("1\t3\t5", "2\t4\t6", "3\t4\t6", "1\t4\t6", "2\t4\t6", "3\t7\t6"),  # counted anew in each group
    ],
)
def test_labels_of_other_exports_are_read(rows: tuple[str, ...]) -> None:
    separator = next(mark for mark in ";\t," if mark in rows[0])
    table = read(separator.join(("x", "y")), *rows)
    assert table.frame.columns.tolist() == ["index", "x", "y"]
    assert table.frame["y"].tolist() == [row.split(separator)[-1] for row in rows]


@pytest.mark.parametrize(
    "rows",
    [
        ("1,3,5", "2,4,5", "3,6,5"),  # rank 1, score 3,5: a decimal comma
        ("5,9.5,a", "6,9.5,b", "7,9.5,c"),  # no row is the fifth of a file
        ("1,9.5,a", "2,9.5,b", "4,9.5,c"),
        ("1,9.5,a", "2,9.5,b"),  # two rows prove nothing
        ("Smith, John,5", "Miller, Ann,7", "Bush, Joe,9"),
        ("0,9.5,a", "1,9.5,b", "2,9.5"),
    ],
)
def test_what_may_be_a_decimal_comma_is_refused_with_its_line(rows: tuple[str, ...]) -> None:
    with pytest.raises(DataRefused, match="cells under 2 columns"):
        read("x,y", *rows)


def test_a_column_that_is_called_index_keeps_its_name() -> None:
    table = read("index,price", "1,a,1.5", "2,b,1.5", "3,c,1.5")
    assert table.frame.columns.tolist() == ["index_2", "index", "price"]
    assert table.frame["index"].tolist() == ["a", "b", "c"]


def test_further_columns_without_a_name_are_the_right_ones() -> None:
    table = read("day,,price", "0,2024-01-01,x,1.5", "1,2024-01-02,,1.7", "2,2024-01-03,,1.9")
    assert table.frame.columns.tolist() == ["index", "day", "price"]
    assert any("column 3 has no name" in note for note in table.notes)


@pytest.mark.skipif(not AVOCADO.exists(), reason="../shared/data/avocado.csv is absent")
def test_a_real_file_of_that_kind_is_read_whole() -> None:
    table = parse_csv(AVOCADO.read_bytes(), "avocado.csv")
    assert table.frame.shape == (18_249, 14)
    assert table.frame["region"].iloc[0] == "Albany"
