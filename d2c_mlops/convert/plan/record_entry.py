"""Decide whether the records of a model contain values computed from other rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd

READERS = (
    "read_csv", "read_table", "read_excel", "read_parquet", "read_json", "read_sql", "read_sql_query", "read_feather",
    "read_pickle", "read_fwf",
)  # fmt: skip
LEAST = 4  # rows of a table that is cut


def row_dependent_column(make_records: Callable[[], object], namespace: dict[str, object], used: list[str]) -> str:
    """Return a column of the records that depends on other rows; empty if none is found.

    `make_records` returns the records from the files that it reads. They are made again from some rows of each table that was read and
    whose rows are those of the records (a column is unchanged); `used` are the columns that matter. A cell that is empty in
    the file may be filled with a figure of the others: whoever asks gives a value there. Rows of which no records can be made
    show nothing.
    """
    tables: list[pd.DataFrame] = []

    def noted(place: int, table: pd.DataFrame) -> pd.DataFrame:
        tables.append(table.copy())
        return table

    with _recorded_readers(namespace, noted):
        whole = make_records()
    if not isinstance(whole, pd.DataFrame) or not whole.index.is_unique:
        return ""
    linked = {place: table for place, table in enumerate(tables) if _same_rows(table, whole)}
    fixed = list(dict.fromkeys(_unchanged_columns(whole, linked.values())))
    most = max((len(table) for table in linked.values()), default=0)
    parts = (slice(most // 2), slice(20), slice(3), slice(1), slice(most // 2, most // 2 + 1), slice(most - 1, most))
    for rows in parts if most >= LEAST else ():
        with _recorded_readers(
            namespace,
            lambda place, table, rows=rows: table.iloc[rows] if place in linked else table,  # type: ignore[misc]
        ):
            try:
                part = make_records()
            except Exception:  # noqa: S112 - the author's code may need more rows
                continue
        for name in used:
            if _column_differs(name, part, whole, fixed, linked.values()):
                return name
    return ""


def _column_differs(
    name: str,
    part: object,
    whole_table: pd.DataFrame,
    unchanged_columns: list[str],
    read_tables: Iterable[pd.DataFrame],
) -> bool:
    if not isinstance(part, pd.DataFrame) or name not in part or name not in whole_table or not part.index.is_unique:
        return False
    labels = part.index[part.index.isin(whole_table.index)]
    common = [column for column in unchanged_columns if column in part]
    if (
        not len(labels)
        or not common
        or not all(_equal_cells(part.loc[labels, c], whole_table.loc[labels, c]).all() for c in common)
    ):
        return False  # no rows in common, or numbered in another way
    wrong = ~_equal_cells(part.loc[labels, name], whole_table.loc[labels, name])
    for table in read_tables:
        if name in table:
            wrong &= ~table[name].reindex(labels).isna().to_numpy()
    return bool(wrong.any())


def _same_rows(table: pd.DataFrame, records: pd.DataFrame) -> bool:
    """Whether the rows of a table are those of the records; one key that agrees by chance may number groups from 0."""
    if not (table.index.is_unique and records.index.isin(table.index).all()):
        return False
    unchanged = len(set(_unchanged_columns(records, [table])))
    numbered = records.index.equals(pd.RangeIndex(len(records))) and len(records) < len(table)
    return unchanged > (1 if numbered else 0)


def _unchanged_columns(records: pd.DataFrame, read: Iterable[pd.DataFrame]) -> Iterator[str]:
    """The columns that identify rows and are unchanged from the file."""
    for table in read:
        labels = records.index[records.index.isin(table.index)]
        shared = [name for name in records.columns if name in table and len(labels) and len(table[name].unique()) > 1]
        yield from (name for name in shared if _equal_cells(records.loc[labels, name], table.loc[labels, name]).all())


def _equal_cells(first: pd.Series, right: pd.Series) -> np.ndarray:
    missing = first.isna().to_numpy() & right.isna().to_numpy()
    try:
        a, b = (side.to_numpy("float64", na_value=np.nan) for side in (first, right))
        return np.asarray(np.isclose(a, b) | missing)
    except (TypeError, ValueError):
        return np.asarray(first.astype(object).to_numpy() == right.astype(object).to_numpy(), bool) | missing


@contextmanager
def _recorded_readers(
    namespace: dict[str, object], change: Callable[[int, pd.DataFrame], pd.DataFrame]
) -> Iterator[None]:
    """Replace the readers of pandas, under any name, by readers that return changed DataFrames; each has the number of its call."""
    plain = {name: getattr(pd, name) for name in READERS}
    count = [0]

    def reader(read: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            table = read(*args, **kwargs)
            if not isinstance(table, pd.DataFrame):
                return table
            count[0] += 1
            return change(count[0] - 1, table)

        return call

    recorders = {name: reader(read) for name, read in plain.items()}
    originals = {name: key for name, value in namespace.items() for key, read in plain.items() if value is read}
    try:
        for name, read in recorders.items():
            setattr(pd, name, read)
        namespace.update({name: recorders[key] for name, key in originals.items()})
        yield
    finally:
        for name, read in plain.items():
            setattr(pd, name, read)
        namespace.update({name: plain[key] for name, key in originals.items()})
