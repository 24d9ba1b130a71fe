"""Ranks, group figures, codes and bins of new records, looked up among those of the training data."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.errors import UsageError
from d2c_mlops.models.converted.learned_columns import (
    category_codes,
    codes_among,
    columns_among,
    cut_at,
    group_figures,
    of_groups,
    ranks_among,
)

PAST = pd.Series([30.0, 10.0, 20.0, 20.0])
SHOP = pd.DataFrame({"town": ["Bonn", "Kiel", "Bonn"], "spend": [1.0, 5.0, 3.0]})


@pytest.mark.parametrize("options", [{}, {"pct": True}, {"method": "dense"}, {"ascending": False, "method": "min"}])
def test_known_values_rank_as_pandas_ranks_them(options: dict[str, Any]) -> None:
    pd.testing.assert_series_equal(ranks_among(PAST, PAST.tolist(), **options), PAST.rank(**options))


def test_a_new_value_ranks_between_its_neighbours() -> None:
    assert ranks_among(pd.Series([25.0]), PAST.tolist()).tolist() == [3.5]


def test_a_rank_by_the_order_of_rows_is_refused() -> None:
    with pytest.raises(UsageError, match="order of rows"):
        ranks_among(PAST, PAST.tolist(), method="first")


def test_a_row_gets_the_figure_of_its_group_and_nan_for_an_unknown_group() -> None:
    figures = group_figures(SHOP, ["town"], "spend", "mean")
    assert of_groups(SHOP, ["town"], figures).tolist() == SHOP.groupby("town")["spend"].transform("mean").tolist()
    assert of_groups(pd.DataFrame({"town": ["Rome"]}), ["town"], figures).isna().all()


def test_codes_are_those_of_factorize_and_minus_one_for_unknown_values() -> None:
    codes, uniques = pd.factorize(pd.Series(["b", "a", None, "b"]))
    assert codes_among(["b", "a", None, "b"], list(uniques)).tolist() == codes.tolist()
    assert codes_among(["z"], list(uniques)).tolist() == [-1]


def test_category_codes_are_those_of_the_training() -> None:
    towns = pd.Series(["Ulm", "Bonn", "Ulm"])
    assert category_codes(towns, ["Bonn", "Ulm"]).tolist() == towns.astype("category").cat.codes.tolist()
    assert category_codes(pd.Series(["Ulm"]), ["Bonn", "Ulm"]).tolist() == [1]


def test_dummies_of_a_record_have_the_columns_of_the_training() -> None:
    dummies = columns_among(pd.get_dummies(pd.DataFrame({"town": ["Ulm"]})), ["town_Bonn", "town_Ulm"])
    assert dummies.iloc[0].tolist() == [False, True]
    numbers = columns_among(pd.get_dummies(pd.DataFrame({"town": ["Ulm"]}), dtype=float), ["town_Bonn", "town_Ulm"])
    assert numbers.dtypes.tolist() == [np.dtype("float64")] * 2


def test_a_record_falls_into_the_bin_that_it_had_in_the_training() -> None:
    amounts = pd.Series([1.0, 2.0, 5.0, 9.0])
    halves, edges = pd.qcut(amounts, 2, labels=False, retbins=True)
    for row in range(4):
        assert cut_at(pd.qcut, amounts.iloc[[row]], edges, {"labels": False}).tolist() == [halves[row]]
