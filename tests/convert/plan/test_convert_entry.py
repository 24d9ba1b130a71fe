"""A record that holds what was learned from other rows is no raw record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.convert.plan.record_entry import row_dependent_column

rng = np.random.default_rng(11)
SHOP = pd.DataFrame({
    "customer": rng.integers(1, 30, 200), "spend": rng.gamma(2, 20, 200).round(2), "visits": rng.poisson(4, 200),
    "age": rng.integers(18, 80, 200).astype(float), "city": rng.choice(["Bonn", "Kiel", "Ulm"], 200),
})  # fmt: skip
SHOP.loc[[3, 50, 150], "age"] = np.nan


def codes(values: pd.Series) -> pd.Series:
    known = sorted(values.unique())
    return values.map({value: place for place, value in enumerate(known)})


LEARNED: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "city": lambda df: df.assign(city=codes(df["city"])),
    "spend": lambda df: df.assign(spend=df["spend"].clip(upper=df["spend"].quantile(0.95))),
    "mean": lambda df: df.merge(df.groupby("city").agg(mean=("spend", "mean")).reset_index(), on="city", how="left"),
    "number": lambda df: df.assign(number=df["city"].map(df.groupby("city").size())),
    "visits": lambda df: df.assign(visits=(df["visits"] - df["visits"].mean()) / df["visits"].std()),
    "band": lambda df: df.assign(band=np.digitize(df["spend"], np.linspace(df["spend"].min(), df["spend"].max(), 5))),
}  # fmt: skip
RAW: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "as it was read": lambda df: df,
    "missing ages filled by the median": lambda df: df.assign(age=df["age"].fillna(df["age"].median())),
    "rows left out": lambda df: df[df["spend"] < df["spend"].quantile(0.9)].dropna(),
    "columns of the same row": lambda df: df.assign(rate=df["spend"] / (df["visits"] + 1), big=df["spend"] > 50),
    "one row for each customer": lambda df: df.groupby("customer").agg(sum=("spend", "sum"), n=("visits", "sum")).reset_index(),
    "rows in another order": lambda df: df.sort_values("spend").reset_index(drop=True).assign(z=lambda d: d["spend"] * 2),
}  # fmt: skip


def test_customers_who_are_numbered_as_the_rows_are_have_rows_of_their_own(tmp_path: Path) -> None:
    orders = SHOP.assign(customer=np.arange(200) % 40)
    orders.to_csv(tmp_path / "orders.csv", index=False)
    make = lambda: RAW["one row for each customer"](pd.read_csv(tmp_path / "orders.csv"))  # noqa: E731
    assert row_dependent_column(make, {}, ["customer", "sum", "n"]) == ""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    SHOP.to_csv(tmp_path / "shop.csv", index=False)
    return tmp_path / "shop.csv"


@pytest.mark.parametrize("column", LEARNED)
def test_a_column_that_depends_on_other_rows_is_named(column: str, file: Path) -> None:
    change = LEARNED[column]
    used = list(change(SHOP).columns)
    assert row_dependent_column(lambda: change(pd.read_csv(file)), {}, used) == column
    assert row_dependent_column(lambda: change(pd.read_csv(file)), {}, [name for name in used if name != column]) == ""


@pytest.mark.parametrize("what", RAW)
def test_what_rests_on_its_own_row_is_raw(what: str, file: Path) -> None:
    change = RAW[what]
    assert row_dependent_column(lambda: change(pd.read_csv(file)), {}, list(change(SHOP).columns)) == ""


def test_readers_are_known_by_other_names_and_left_as_they_were(file: Path) -> None:
    space: dict[str, object] = {"read_csv": pd.read_csv}
    before = pd.read_csv
    make = lambda: LEARNED["number"](space["read_csv"](file))  # type: ignore[operator] # noqa: E731
    assert row_dependent_column(make, space, ["number"]) == "number"
    assert pd.read_csv is before and space["read_csv"] is before


def test_a_table_that_is_looked_up_is_read_whole(file: Path) -> None:
    places = file.with_name("places.csv")
    pd.DataFrame({"city": ["Ulm", "Kiel", "Bonn", "Rom"], "people": [1, 2, 3, 4]}).to_csv(places, index=False)
    make = lambda: pd.read_csv(file).merge(pd.read_csv(places), on="city", how="left")  # noqa: E731
    assert row_dependent_column(make, {}, ["people", "spend"]) == ""
