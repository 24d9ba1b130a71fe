"""Check that a record gets the same features alone, in a pair, and in the whole table."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Protocol, Self, TypedDict, TypeGuard, cast

import numpy as np
import pandas as pd

SINGLES = 2000  # records that are asked alone
PAIRS = 500  # of records that are asked together
MOST_RARE = 1000  # records that are asked first for their rare values
RARE = 0.05  # share of rows up to which a value is rare
MOST_VALUES = 50  # of a numeric column whose values are compared as categories
SECONDS = 480.0  # for all of it; at least LEAST records are compared
LEAST = 200
RTOL = 1e-9  # of a feature's largest value


class SparseMatrix(Protocol):
    """A sparse matrix of scipy, as far as it is used here."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""

    def __abs__(self) -> Self: ...
    def __getitem__(self, rows: object, /) -> Self: ...
    def max(self, axis: int) -> Self:
        """The largest value of each column (0) or row (1)."""

    def toarray(self) -> np.ndarray:
        """The same matrix with its zeros."""


Features = pd.DataFrame | pd.Series | np.ndarray | SparseMatrix  # one row for each record
Prepare = Callable[[pd.DataFrame], Features]


class AgreementFigures(TypedDict):
    """The figures of an Agreement as JSON values."""

    rows: int
    singles: int
    pairs: int
    rare: int
    seconds: float


@dataclass(frozen=True)
class Agreement:
    """How many records got the same features alone and in pairs as in the whole table."""

    rows: int  # of the whole table
    singles: int
    pairs: int
    rare: int  # singles with a missing or rare value, asked first
    seconds: float

    def to_dict(self) -> AgreementFigures:
        """Return the figures as JSON values."""
        return cast("AgreementFigures", asdict(self))


class Disagreement(ValueError):
    """A record's features depend on the other records of the request."""


def check_agreement(
    prepare: Prepare,
    raw_records: pd.DataFrame,
    all_features: Features,
    *,
    single_count: int = SINGLES,
    pair_count: int = PAIRS,
) -> Agreement:
    """Compare the features of single records and of pairs with those of the whole table.

    `prepare` returns the features of records; `all_features` holds those of all rows of `raw_records`, in their order. Raises
    Disagreement where a record alone or in a pair gets other features, with the row and the columns.
    """
    began = time.monotonic()
    order, rare = rare_rows_first(raw_records)
    scale = _feature_scale(all_features)
    alone = together = 0
    for row in order[:single_count]:
        if alone >= LEAST and time.monotonic() - began > SECONDS * 0.8:
            break
        _compare_features(prepare, raw_records, all_features, [int(row)], scale)
        alone += 1
    for pair in _row_pairs(order, pair_count):
        if together >= LEAST // 4 and time.monotonic() - began > SECONDS:
            break
        _compare_features(prepare, raw_records, all_features, pair, scale)
        together += 1
    return Agreement(len(raw_records), alone, together, min(rare, alone), round(time.monotonic() - began, 2))


def rare_rows_first(raw_records: pd.DataFrame) -> tuple[np.ndarray, int]:
    """Return the positions of all rows: first those with a missing value or a rare category, then the others, spread.

    Of each column the smallest and the largest value come first, too. The second value counts these rows.
    """
    first = np.ones(len(raw_records))  # the share of the rarest value of a row
    for name in raw_records.columns:
        values = raw_records[name]
        empty = values.isna().to_numpy()
        first[empty] = np.minimum(first[empty], min(empty.mean(), RARE))
        texts = not pd.api.types.is_numeric_dtype(values)
        codes, uniques = pd.factorize(values.astype(str) if texts else values)
        if (texts or len(uniques) <= MOST_VALUES) and len(uniques):
            shares = np.bincount(codes[~empty], minlength=len(uniques)) / len(raw_records)
            first[~empty] = np.minimum(first[~empty], shares[codes[~empty]])
        if not texts and not empty.all():
            numbers = values.to_numpy("float64", na_value=np.nan)
            for extreme in (np.nanargmin(numbers), np.nanargmax(numbers)):
                first[extreme] = min(first[extreme], RARE)
    rare = np.flatnonzero(first <= RARE)
    rare = rare[np.argsort(first[rare], kind="stable")][:MOST_RARE]
    others = np.setdiff1d(np.arange(len(raw_records)), rare)
    return np.concatenate([rare, np.random.default_rng(0).permutation(others)]), len(rare)


def _row_pairs(order: np.ndarray, count: int) -> list[list[int]]:
    """Pairs of two different rows, the rarest with any others, by a fixed draw."""
    if len(order) < 2:
        return []
    first_rows = np.resize(order, count)
    shifts = np.random.default_rng(1).integers(1, len(order), count)
    places = (np.arange(count) % len(order) + shifts) % len(order)
    return [[int(a), int(b)] for a, b in zip(first_rows, order[places], strict=True)]


def _compare_features(
    prepare: Prepare, raw: pd.DataFrame, whole: Features, rows: list[int], scale: np.ndarray | None
) -> None:
    grouping = "alone" if len(rows) == 1 else f"together with record {rows[1] + 1}"
    features = prepare(raw.iloc[rows].reset_index(drop=True))  # as records come: numbered anew
    expected = _select_rows(whole, rows)
    if isinstance(features, pd.DataFrame) and isinstance(expected, pd.DataFrame):
        if list(features.columns) != list(expected.columns):
            raise Disagreement(f"record {rows[0] + 1} {grouping} has different columns from those in the whole table")
    ours, right = as_dense_array(features), as_dense_array(expected)
    if ours.shape != right.shape:
        raise Disagreement(f"record {rows[0] + 1} {grouping} has features of shape {ours.shape}, not {right.shape}")
    wrong = differing_features(ours, right, scale)
    if wrong.any():
        where = tuple(int(indices[0]) for indices in np.nonzero(wrong))
        names = getattr(expected, "columns", None)
        column = str(names[where[-1]]) if names is not None else f"feature {where[-1] + 1}"
        raise Disagreement(
            f"record {rows[where[0]] + 1} {grouping} gets {_value_text(ours[where])} as {column}, "
            f"{_value_text(right[where])} in the whole table"
        )


def _select_rows(whole: Features, rows: list[int]) -> Features:
    return whole.iloc[rows] if isinstance(whole, pd.DataFrame | pd.Series) else whole[rows]


def is_sparse(values: object) -> TypeGuard[SparseMatrix]:
    """Return whether features are a sparse matrix."""
    return hasattr(values, "toarray")


def as_dense_array(values: object) -> np.ndarray:
    """Return features as an array, sparse ones too."""
    return np.asarray(values.toarray() if is_sparse(values) else values)


def _feature_scale(whole: Features) -> np.ndarray | None:
    """Return the largest value of each feature, the scale for rounding differences."""
    if is_sparse(whole):
        return np.asarray(abs(whole).max(axis=0).toarray()).ravel()
    values = np.asarray(whole)
    try:
        numbers = np.abs(values.astype(float))
    except (TypeError, ValueError):
        return None
    numbers = np.where(np.isfinite(numbers), numbers, 0.0)
    return np.asarray(numbers.max(axis=0)) if len(numbers) else None


def differing_features(first_features: np.ndarray, second_features: np.ndarray, scale: np.ndarray | None) -> np.ndarray:
    """Return which features differ by more than the last digits of their column."""
    if scale is None:
        missing = pd.isna(first_features) & pd.isna(second_features)
        return np.asarray((first_features != second_features) & ~missing)
    a, b = first_features.astype(float), second_features.astype(float)
    same = (np.abs(a - b) <= RTOL * np.maximum(np.broadcast_to(scale, b.shape), 1e-3)) | (a == b)
    return np.asarray(~(same | (np.isnan(a) & np.isnan(b))))


def _value_text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float | np.floating) else str(value)
