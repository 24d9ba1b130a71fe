"""Which file of a folder a notebook means by a name that is not there."""

from pathlib import Path

import pytest

from d2c_mlops.convert.repair.data_files import DataFiles


def data_files(folder: Path, **files: str) -> DataFiles:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return DataFiles([folder])


@pytest.mark.parametrize(
    ("wanted", "there"),
    [
        ("C:/Data/Telco-Customer-Churn.csv", "WA_Fn-UseC_-Telco-Customer-Churn.csv"),
        ("http://x.example/Sales%202019.csv", "sales 2019 (1).csv"),
        ("Mall_Customers_full.csv", "mall_customers.csv"),
    ],
)
def test_a_name_is_matched_by_its_part(tmp_path, wanted, there):
    (tmp_path / there).write_text("a,b\n1,2\n")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    found = DataFiles([tmp_path]).find(wanted)
    assert found is not None
    assert found[0].name == there


def test_two_files_that_could_be_meant_are_not_guessed_between(tmp_path):
    held = data_files(tmp_path, telco_churn_march__csv="a\n", telco_churn_april__csv="a\n")
    assert held.find("telco_churn.csv") is None


def test_short_names_say_too_little(tmp_path):
    assert data_files(tmp_path, data_of_others__csv="a\n").find("data.csv") is None


def test_columns_decide_where_names_do_not(tmp_path):
    held = data_files(tmp_path, one__csv="tenure,charges\n1,2\n", two__csv="units,price\n1,2\n")
    found = held.find("prepared.csv", {"units", "price", "plot"})
    assert found is not None
    assert found[0].name == "two.csv"


def test_what_a_notebook_writes_is_not_what_it_wants(tmp_path):
    held = data_files(tmp_path, wrangled_transactions__csv="revenue,customer\n1,2\n")
    assert held.find("transactions.csv", {"revenue", "customer"}, {"wrangled_transactions.csv"}) is None
    assert held.find("transactions.csv", {"revenue", "customer"}) is not None


def test_a_few_names_in_a_wide_table_are_chance(tmp_path):
    wide = ",".join(["Sales", "Date", *(f"c{i}" for i in range(7))])
    (tmp_path / "wide.csv").write_text(f"{wide}\n")
    assert DataFiles([tmp_path]).find("orders.csv", {"Sales", "Date"}) is None
    (tmp_path / "narrow.csv").write_text("Sales,Date\n1,2\n")  # as many in common: nobody can tell
    assert DataFiles([tmp_path]).find("orders.csv", {"Sales", "Date"}) is None
    found = DataFiles([tmp_path]).find("orders.csv", {"Sales", "Date", "c0", "c1"})
    assert found is not None
    assert found[0].name == "wide.csv"
