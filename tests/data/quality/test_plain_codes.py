"""Products that are no goods, by codes that are nothing but a word."""

from __future__ import annotations

from datetime import date

import pandas as pd
import pytest

from d2c_mlops.data.quality.inputs import Inputs
from d2c_mlops.data.quality.not_sales import products_that_are_no_goods


@pytest.mark.parametrize(
    ("code", "kind"),
    [("POSTAGE", "postage"), ("Shipping", "postage"), ("VERSAND", "postage"), ("gift-card", "gift_card")],
)
def test_postage_in_half_of_the_lines_is_no_product(code: str, kind: str) -> None:
    lines = pd.DataFrame({"order_id": [f"O{n // 2}" for n in range(200)], "product_id": [code if n % 2 else f"mug-{n}" for n in range(200)], "quantity": 1,
                          "price": 4.5, "ordered_at": pd.date_range("2026-01-01", periods=200, freq="h")})  # fmt: skip
    inputs = Inputs.of({"lines": lines}, date(2026, 1, 31))
    assert products_that_are_no_goods(inputs, inputs.tables[0]) == {kind: [code]}


@pytest.mark.parametrize("code", ["sample-red", "test", "handling", "post-card", "delivery van 7"])
def test_goods_named_by_words_stay_goods_where_codes_are_words(code: str) -> None:
    lines = pd.DataFrame({"order_id": [f"O{n // 2}" for n in range(200)], "product_id": [code if n % 2 else "cup" for n in range(200)], "quantity": 1,
                          "price": 4.5, "ordered_at": pd.date_range("2026-01-01", periods=200, freq="h")})  # fmt: skip
    inputs = Inputs.of({"lines": lines}, date(2026, 1, 31))
    assert products_that_are_no_goods(inputs, inputs.tables[0]) == {}
