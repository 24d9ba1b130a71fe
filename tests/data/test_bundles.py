"""Bundles become the products that are in them: units and money are conserved, wrong lists are refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.data.ingestion.bundles import explode_bundles
from d2c_mlops.data.simulate import shop
from d2c_mlops.data.validation import validate
from d2c_mlops.errors import DataRefused


def parts(*rows: tuple[str, str, float], **columns: list[float]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=["bundle_id", "product_id", "quantity"]).assign(**columns)


def paid(lines: pd.DataFrame) -> float:
    return float((lines["quantity"] * lines["unit_price"] - lines["discount"]).sum())


@pytest.fixture(scope="module")
def lines() -> pd.DataFrame:
    return shop(days=60, customers=80)["order_lines"]


@pytest.mark.parametrize("priced", [True, False])
def test_units_and_money_are_conserved_and_lines_stay_unique(lines: pd.DataFrame, priced: bool) -> None:
    bundle, *others = lines["product_id"].unique()
    components = parts((bundle, "pot", 1), (bundle, "mug", 4), (bundle, others[0], 2))
    exploded = explode_bundles(lines, components.assign(unit_price=[20.0, 5.0, 3.0]) if priced else components)
    for column in ("quantity", "returned_quantity"):
        before, after = (frame.groupby("product_id")[column].sum() for frame in (lines, exploded))
        assert after["mug"] == 4 * before[bundle] and after["pot"] == before[bundle]
        assert after[others[0]] == before[others[0]] + 2 * before[bundle] and bundle not in after
    assert paid(exploded) == pytest.approx(paid(lines), abs=1e-6)
    assert not exploded.duplicated(["order_id", "line_no"]).any()
    pd.testing.assert_frame_equal(validate("order_lines", exploded), exploded)


def test_other_lines_stay_as_they_are_in_their_order(lines: pd.DataFrame) -> None:
    bundle = lines["product_id"].iloc[0]
    exploded = explode_bundles(lines, parts((bundle, "pot", 1), (bundle, "mug", 1)))
    singles = lines[lines["product_id"] != bundle].reset_index(drop=True)
    pd.testing.assert_frame_equal(
        exploded[~exploded["product_id"].isin(["pot", "mug"])].reset_index(drop=True), singles
    )
    pd.testing.assert_frame_equal(explode_bundles(lines, parts(("never sold", "pot", 1))), lines)


def test_bundles_within_bundles_are_opened(lines: pd.DataFrame) -> None:
    bundle = lines["product_id"].iloc[0]
    exploded = explode_bundles(
        lines, parts((bundle, "set", 2), (bundle, "mug", 1), ("set", "mug", 3), ("set", "pot", 1))
    )
    sold = lines.loc[lines["product_id"] == bundle, "quantity"].sum()
    units = exploded.groupby("product_id")["quantity"].sum()
    assert units["mug"] == 7 * sold and units["pot"] == 2 * sold and "set" not in units
    assert paid(exploded) == pytest.approx(paid(lines), abs=1e-6)


@pytest.mark.parametrize(
    ("components", "message"),
    [
        (parts(("a", "b", 0)), "must be above 0"),
        (parts(("a", "b", float("nan"))), "must be above 0"),
        (parts(("a", "b", float("inf"))), "must be above 0"),
        (parts(("a", "a", 1)), "contains itself"),
        (parts(("a", "b", 1), ("b", "a", 1)), "contain themselves"),
        (parts(("a", "b", 1), ("a", "b", 2)), "twice"),
        (parts(("a", "b", 1)).assign(product_id=None), "must be there"),
        (parts(("a", "b", 1)).drop(columns="quantity"), "is missing"),
    ],
)
def test_a_wrong_list_is_refused_with_its_row(lines: pd.DataFrame, components: pd.DataFrame, message: str) -> None:
    with pytest.raises(DataRefused) as refusal:
        explode_bundles(lines, components)
    assert message in str(refusal.value)


def test_the_input_is_not_changed(lines: pd.DataFrame) -> None:
    before, components = lines.copy(), parts((lines["product_id"].iloc[0], "pot", 2))
    explode_bundles(lines, components)
    pd.testing.assert_frame_equal(lines, before)
    assert np.array_equal(components["quantity"], [2])
