"""Look up ranks, group figures, codes, categories and bins of new records among those of the training data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from d2c_mlops.errors import UsageError


def ranks_among(
    values: pd.Series, reference: Sequence[float], method: str = "average", ascending: bool = True, pct: bool = False
) -> pd.Series:
    """Return `Series.rank(...)` of numbers among the `reference` values of the training data, missing ones as NaN.

    Raises UsageError for a method other than average, min, max and dense.
    """
    if method not in ("average", "min", "max", "dense"):
        raise UsageError(f"rank by {method!r} depends on the order of rows", next="use average, min, max or dense")
    sign = 1.0 if ascending else -1.0
    ordered = np.sort(sign * np.asarray(reference, float))
    ordered = np.unique(ordered) if method == "dense" else ordered
    signed = sign * values.to_numpy("float64", na_value=np.nan)
    low, high = np.searchsorted(ordered, signed, "left") + 1, np.searchsorted(ordered, signed, "right")
    ranks = {"min": low, "max": np.maximum(high, low - 1), "dense": low}.get(method, (low + high) / 2)
    shares = np.where(np.isnan(signed), np.nan, np.asarray(ranks, float) / (len(ordered) if pct else 1))
    return pd.Series(shares, index=values.index, name=values.name)


def group_figures(frame: pd.DataFrame, keys: Sequence[str], column: str, statistic: str) -> pd.DataFrame:
    """Return a table with the keys of each group and its figure (column `figure`)."""
    grouped = frame.groupby(list(keys), observed=True)[column].agg(statistic)
    return grouped.rename("figure").reset_index()


def of_groups(frame: pd.DataFrame, keys: Sequence[str], figures: pd.DataFrame) -> pd.Series:
    """Return the figure of each row's group, NaN where the group is unknown."""
    figure_by_key = {tuple(row[:-1]): row[-1] for row in figures.itertuples(index=False, name=None)}
    keys_of_rows = frame[list(keys)].astype(object).itertuples(index=False, name=None)
    return pd.Series([figure_by_key.get(tuple(row), np.nan) for row in keys_of_rows], index=frame.index)


def codes_among(values: Any, uniques: Sequence[Any]) -> np.ndarray:
    """Return the place of each value in `uniques`; -1 if it is missing or not in them."""
    places = {value: place for place, value in enumerate(uniques)}
    flat = pd.Series(values).astype(object)
    return np.array([-1 if pd.isna(value) else places.get(value, -1) for value in flat], dtype="int64")


def category_codes(values: pd.Series, categories: Sequence[Any]) -> pd.Series:
    """Return the code of each value in `categories` of the training data; -1 if it is not in them."""
    kind = values.cat.categories.dtype if isinstance(values.dtype, pd.CategoricalDtype) else values.dtype
    plain = values.astype(kind) if kind is not values.dtype else values
    return plain.astype(pd.CategoricalDtype(pd.Index(categories, dtype=kind))).cat.codes


def columns_among(dummies: pd.DataFrame, trained_columns: pd.Index | list[str]) -> pd.DataFrame:
    """Return dummy columns as those of the training data: further ones dropped, missing ones 0 (or False)."""
    empty = 0.0 if dummies.dtypes.map(lambda kind: kind == "float64").all() else False
    return dummies.reindex(columns=trained_columns, fill_value=empty)


def cut_at(function: Callable[..., Any], values: Any, edges: Any, options: Mapping[str, Any]) -> Any:
    """Return `pd.cut` or `pd.qcut` of values with the options that it was called with, at the edges of the training data."""
    further = {name: options[name] for name in ("labels", "right", "ordered", "precision") if name in options}
    lowest = function is pd.qcut or bool(options.get("include_lowest"))
    return pd.cut(values, edges, include_lowest=lowest, **further)
