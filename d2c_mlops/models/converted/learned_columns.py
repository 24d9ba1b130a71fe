"""Look up ranks, group figures, codes, categories and bins of new records among those of the training data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from d2c_mlops.errors import UsageError


def ranks_among(
    values: pd.Series, known: Sequence[float], method: str = "average", ascending: bool = True, pct: bool = False
) -> pd.Series:
    """Return `Series.rank(...)` of numbers among the `known` ones of the training data, missing ones as NaN.

    Raises UsageError for a method other than average, min, max and dense.
    """
    if method not in ("average", "min", "max", "dense"):
        raise UsageError(f"rank by {method!r} depends on the order of rows", next="use average, min, max or dense")
    sign = 1.0 if ascending else -1.0
    ordered = np.sort(sign * np.asarray(known, float))
    ordered = np.unique(ordered) if method == "dense" else ordered
    asked = sign * values.to_numpy("float64", na_value=np.nan)
    low, high = np.searchsorted(ordered, asked, "left") + 1, np.searchsorted(ordered, asked, "right")
    found = {"min": low, "max": np.maximum(high, low - 1), "dense": low}.get(method, (low + high) / 2)
    made = np.where(np.isnan(asked), np.nan, np.asarray(found, float) / (len(ordered) if pct else 1))
    return pd.Series(made, index=values.index, name=values.name)


def group_figures(frame: pd.DataFrame, keys: Sequence[str], column: str, how: str) -> pd.DataFrame:
    """Return a table with the keys of each group and its figure (column `figure`)."""
    made = frame.groupby(list(keys), observed=True)[column].agg(how)
    return made.rename("figure").reset_index()


def of_groups(frame: pd.DataFrame, keys: Sequence[str], figures: pd.DataFrame) -> pd.Series:
    """Return the figure of each row's group, NaN where the group is unknown."""
    known = {tuple(row[:-1]): row[-1] for row in figures.itertuples(index=False, name=None)}
    asked = frame[list(keys)].astype(object).itertuples(index=False, name=None)
    return pd.Series([known.get(tuple(row), np.nan) for row in asked], index=frame.index)


def codes_among(values: Any, known: Sequence[Any]) -> np.ndarray:
    """Return the place of each value among the `known` ones; -1 where it is not among them, or missing."""
    places = {value: place for place, value in enumerate(known)}
    flat = pd.Series(values).astype(object)
    return np.array([-1 if pd.isna(each) else places.get(each, -1) for each in flat], dtype="int64")


def category_codes(values: pd.Series, known: Sequence[Any]) -> pd.Series:
    """Return the code of each value among the `known` categories of the training data; -1 where it is not among them."""
    kind = values.cat.categories.dtype if isinstance(values.dtype, pd.CategoricalDtype) else values.dtype
    plain = values.astype(kind) if kind is not values.dtype else values
    return plain.astype(pd.CategoricalDtype(pd.Index(known, dtype=kind))).cat.codes


def columns_among(dummies: pd.DataFrame, known: pd.Index | list[str]) -> pd.DataFrame:
    """Return dummy columns as those of the training data: further ones dropped, missing ones 0 (or False)."""
    empty = 0.0 if dummies.dtypes.map(lambda kind: kind == "float64").all() else False
    return dummies.reindex(columns=known, fill_value=empty)


def cut_at(function: Callable[..., Any], values: Any, edges: Any, options: Mapping[str, Any]) -> Any:
    """Return `pd.cut` or `pd.qcut` of values with the options that it was called with, at the edges of the training data."""
    further = {name: options[name] for name in ("labels", "right", "ordered", "precision") if name in options}
    lowest = function is pd.qcut or bool(options.get("include_lowest"))
    return pd.cut(values, edges, include_lowest=lowest, **further)
