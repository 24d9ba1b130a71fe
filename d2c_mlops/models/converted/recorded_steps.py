"""Replay on new records what a notebook's preparation learned from the training data.

A scaler takes a mean, an encoder lists categories, `get_dummies` makes a column per value, `fillna` fills in an average. Run again on
one record, the same code would learn from that record. `Learned` records what each step took from the training data, in the order of
the steps, and returns it at every replay.
"""

from __future__ import annotations

import copy
import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from d2c_mlops.errors import DataRefused, UsageError
from d2c_mlops.models.converted.learned_columns import (
    category_codes,
    codes_among,
    columns_among,
    cut_at,
    group_figures,
    of_groups,
    ranks_among,
)
from d2c_mlops.models.converted.statistical import Forecast, Regression, read_statistical, write_statistical


def to_plain(value: Any) -> Any:
    """Return a statistic as JSON values; raises UsageError for what JSON cannot hold."""
    if isinstance(value, pd.DataFrame | pd.Series) and (
        value.index.nlevels > 1 or getattr(value, "columns", value.index).nlevels > 1
    ):
        raise UsageError("a table with several levels of names cannot be kept", next="reset its index first")
    if isinstance(value, pd.DataFrame):
        columns = [[to_plain(name), [to_plain(element) for element in value[name].tolist()]] for name in value.columns]
        return {
            "frame": columns,
            "index": [to_plain(element) for element in value.index],
            "named": [None, _text_or_none(value.index.name)],
        }
    if isinstance(value, pd.Series):
        return {
            "series": [to_plain(element) for element in value.tolist()],
            "index": [to_plain(element) for element in value.index],
            "named": [_text_or_none(value.name), _text_or_none(value.index.name)],
        }
    if isinstance(value, pd.Timestamp):
        return {"timestamp": value.isoformat()}
    if isinstance(value, np.ndarray | pd.api.extensions.ExtensionArray) and value.ndim:
        return {"array": [to_plain(element) for element in (value if value.ndim > 1 else pd.Series(value)).tolist()]}
    if isinstance(value, pd.Index | list | tuple):
        return [to_plain(element) for element in value]
    if isinstance(value, np.generic):
        return to_plain(value.item())
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, float) and value != value:
        return {"nan": True}
    if isinstance(value, str | int | float | bool):
        return value
    raise UsageError(f"a value of type {type(value).__name__} cannot be kept", next="keep numbers, texts or lists")


def _text_or_none(name: Any) -> str | None:
    return name if isinstance(name, str) else None


def from_plain(value: Any) -> Any:
    """Return the statistic that `to_plain` wrote."""
    if isinstance(value, list):
        return [from_plain(element) for element in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        cells = from_plain(value["array"])
        return np.array(cells, dtype=None if np.array(cells).dtype.kind in "biuf" else object)
    name, index_name = value.get("named", (None, None))
    index = pd.Index(from_plain(value.get("index", [])), name=index_name)
    if "frame" in value:
        return pd.DataFrame({from_plain(column): from_plain(cells) for column, cells in value["frame"]}).set_index(
            index
        )
    if "series" in value:
        return pd.Series(from_plain(value["series"]), index=index, name=name)
    return pd.Timestamp(value["timestamp"]) if "timestamp" in value else float("nan")


def written(fitted: Any) -> bytes:
    """Return a fitted scikit-learn object as skops writes it; a search that skops cannot write as its best estimator."""
    from skops.io import dumps

    try:
        return bytes(dumps(fitted))
    except RecursionError:  # of a search over SciPy's distributions
        if not hasattr(fitted, "best_estimator_"):
            raise
        return bytes(dumps(fitted.best_estimator_))


def save_fitted(fitted: Any, file: Path) -> None:
    """Write a fitted scikit-learn object by skops; a forecast or a regression as JSON beside that name."""
    if isinstance(fitted, Forecast | Regression):
        return write_statistical(fitted, file.with_suffix(".json"))
    file.write_bytes(written(fitted))


def load_fitted(file: Path, trusted: Sequence[str]) -> Any:
    """Read a fitted object; raises DataRefused when it holds types beyond `trusted`."""
    if file.with_suffix(".json").exists():
        return read_statistical(file.with_suffix(".json"))
    from skops.io import get_untrusted_types, load

    beyond = sorted(set(get_untrusted_types(file=file)) - set(trusted))
    if beyond:
        raise DataRefused(f"the file holds types that are not trusted: {', '.join(beyond)}", where=str(file))
    return load(file, trusted=list(trusted))


class Learned:
    """What a preparation took from the training data: statistics, categories, fitted objects, the shape of a record.

    It is given back in the same order.
    """

    def __init__(self) -> None:
        self.learning = True
        self.notes: dict[str, list[Any]] = {}
        self.fitted: dict[str, Any] = {}
        self.columns: list[dict[str, Any]] = []
        self._turns: dict[int, Counter[str]] = {}  # of each thread: requests are answered side by side

    def next_turn(self, key: str) -> int:
        """Return how often this thread has come by a key since the records began, and count once more."""
        turns = self._turns.setdefault(threading.get_ident(), Counter())
        turns[key] += 1
        return turns[key] - 1

    def __getitem__(self, name: str) -> Any:
        """Return a fitted object, or a value that the training gave."""
        return self.fitted[name] if name in self.fitted else from_plain(self.notes[name][0])

    def give(self, name: str, value: Any) -> None:
        """Take over a fitted object or a plain value from the training."""
        _store_value(self, name, value)

    def keep(self, key: str, learn: Callable[[], Any]) -> Any:
        """Return a statistic of the training data."""
        turn = self.next_turn(key)
        if self.learning:
            self.notes.setdefault(key, []).append(to_plain(learn()))
        return from_plain(self.notes[key][turn])

    def records(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Begin: return a copy of `frame` with the columns and types of the training data, new records numbered from 0."""
        self._turns.pop(threading.get_ident(), None)
        return _as_recorded_columns(self, frame)

    def rows(self, frame: Any, chosen: Any) -> Any:
        """Return the rows that the training chose; every row of new records."""
        return chosen if self.learning else frame

    def codes(self, key: str, values: pd.Series) -> pd.Series:
        """Return `values.astype("category").cat.codes`; a value that the training did not see is -1."""
        return category_codes(values, self.keep(key, lambda: values.astype("category").cat.categories))

    def dummies(self, key: str, *args: Any, **options: Any) -> pd.DataFrame:
        """Return `pd.get_dummies(...)` with the columns of the training data."""
        return _replay_get_dummies(self, key, args, options)

    def cut(self, key: str, function: Callable[..., Any], values: Any, *args: Any, **options: Any) -> Any:
        """Return `pd.cut(values, ...)` or `pd.qcut(values, ...)`; the edges are those of the training data."""
        options = dict(zip(("q" if function is pd.qcut else "bins", "labels"), args, strict=False)) | options
        return _replay_cut(self, key, function, values, options)

    def constant(self, key: str, data: Any, **options: Any) -> Any:
        """Return `sm.add_constant(data)`; a single record gets the column too, though all its columns are constant."""
        return _replay_add_constant(self, key, data, options)

    def encode(self, key: str, transformer: Any, *values: Any) -> Any:
        """Return `transformer.fit_transform(values)`; the fitted copy is kept."""
        return _transformer_of_training(self, key, transformer, values, {}).transform(values[0])

    def fit(self, key: str, transformer: Any, *values: Any, **options: Any) -> Any:
        """Return the transformer as `transformer.fit(...)` left it in the training."""
        return _transformer_of_training(self, key, transformer, values, options)

    def predict(self, key: str, estimator: Any, values: Any) -> Any:
        """Return `estimator.fit_predict(values)` in the training, afterwards what the fitted estimator predicts."""
        return self.fit(key, estimator, values).predict(values)

    def rank(self, key: str, values: Any, **options: Any) -> Any:
        """Return `values.rank(...)` among the values of the training data, each column of a table for itself."""
        return _replay_rank(self, key, values, options)

    def groups(self, key: str, frame: pd.DataFrame, keys: Any, column: str, statistic: str) -> pd.Series:
        """Return `frame.groupby(keys)[column].transform(how)` with the figures of the training data."""
        return _replay_group_statistic(
            self, key, frame, [keys] if isinstance(keys, str) else list(keys), column, statistic
        )

    def factorize(self, key: str, values: Any) -> tuple[np.ndarray, pd.Index]:
        """Return `pd.factorize(values)` with the codes of the training data; -1 for a value that it did not know."""
        return _replay_factorize(self, key, values)

    def inverse(self, key: str, values: Any) -> np.ndarray:
        """Return `np.unique(values, return_inverse=True)[1]` among the values of the training data; -1 for an unknown one."""
        return codes_among(np.asarray(values).ravel(), self.keep(key, lambda: np.unique(values)))

    def parts(self, choose: Callable[[], Any], *wholes: Any, each: int = 1) -> Any:
        """Return what a split or a resampling chose in the training; afterwards `each` times every whole table."""
        return choose() if self.learning else tuple(whole for whole in wholes for _ in range(each))

    def write(self, folder: Path) -> None:
        """Write notes as JSON, fitted objects by skops."""
        write_steps(self, folder)

    @classmethod
    def read(cls, folder: Path, trusted: Sequence[str]) -> Learned:
        """Read what `write` wrote."""
        return read_steps(cls(), folder, trusted)


STEPS_FILE = "learned.json"


def write_steps(steps: Learned, folder: Path) -> None:
    """Write notes as JSON, fitted objects by skops, into `folder`."""
    document = {"notes": steps.notes, "columns": steps.columns, "fitted": sorted(steps.fitted)}
    (folder / STEPS_FILE).write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
    for name, fitted in steps.fitted.items():
        save_fitted(fitted, folder / f"{name}.skops")


def read_steps(steps: Learned, folder: Path, trusted: Sequence[str]) -> Learned:
    """Fill empty steps with what `write_steps` wrote, and return them; raises DataRefused for types beyond `trusted`."""
    document = json.loads((folder / STEPS_FILE).read_text(encoding="utf-8"))
    steps.learning, steps.notes, steps.columns = False, document["notes"], document["columns"]
    steps.fitted = {name: load_fitted(folder / f"{name}.skops", trusted) for name in document["fitted"]}
    return steps


def _store_value(steps: Learned, name: str, value: Any) -> None:
    if hasattr(value, "get_params"):
        steps.fitted[name] = value
    else:
        steps.notes[name] = [to_plain(value)]


def _as_recorded_columns(steps: Learned, frame: pd.DataFrame) -> pd.DataFrame:
    if steps.learning:
        steps.columns = [_column_record(name, frame[name]) for name in frame.columns]
        return frame.copy()
    frame = frame.reset_index(drop=True)  # the author's code may join tables by the number of the row
    return pd.DataFrame(
        {column["name"]: _recorded_column(frame, column) for column in steps.columns}, index=frame.index
    )


def _transformer_of_training(
    steps: Learned, key: str, transformer: Any, values: Sequence[Any], options: Mapping[str, Any]
) -> Any:
    """Return the transformer as it was fitted in the training."""
    name = f"{key}_{steps.next_turn(key)}"
    if steps.learning:
        result = transformer.fit(*values, **options)
        steps.fitted[name] = copy.deepcopy(transformer if result is None else result)
    return steps.fitted[name]


def _replay_get_dummies(steps: Learned, key: str, args: Sequence[Any], options: Mapping[str, Any]) -> pd.DataFrame:
    dummies = pd.get_dummies(*args, **(options if steps.learning else {**options, "drop_first": False}))
    columns = steps.keep(key, lambda: dummies.columns)
    return dummies if steps.learning else columns_among(dummies, columns)


def _replay_cut(steps: Learned, key: str, function: Callable[..., Any], values: Any, options: Mapping[str, Any]) -> Any:
    edges = steps.keep(key, lambda: function(values, **{**options, "retbins": True})[1])
    return function(values, **options) if steps.learning else cut_at(function, values, edges, options)


def _replay_rank(steps: Learned, key: str, values: Any, options: Mapping[str, Any]) -> Any:
    if isinstance(values, pd.DataFrame):
        return pd.DataFrame({name: _replay_rank(steps, key, values[name], options) for name in values.columns})
    return ranks_among(values, steps.keep(key, lambda: values.dropna().tolist()), **options)


def _replay_group_statistic(
    steps: Learned, key: str, frame: pd.DataFrame, keys: list[str], column: str, statistic: str
) -> pd.Series:
    return of_groups(frame, keys, steps.keep(key, lambda: group_figures(frame, keys, column, statistic)))


def _replay_factorize(steps: Learned, key: str, values: Any) -> tuple[np.ndarray, pd.Index]:
    uniques = steps.keep(key, lambda: pd.factorize(values)[1])
    return codes_among(values, uniques), pd.Index(uniques)


def _replay_add_constant(steps: Learned, key: str, data: Any, options: Mapping[str, Any]) -> Any:
    from statsmodels.tools import add_constant

    table = add_constant(data, **options)
    grown = steps.keep(key, lambda: np.shape(table)[-1] > np.shape(data)[-1] or np.ndim(data) < 2)
    return table if steps.learning else add_constant(data, **{**options, "has_constant": "add"}) if grown else data


def _column_record(name: Any, values: pd.Series) -> dict[str, Any]:
    present = values.dropna()
    return {"name": name, "dtype": str(values.dtype), "first": to_plain(present.iloc[0]) if len(present) else None}


def _recorded_column(frame: pd.DataFrame, column: dict[str, Any]) -> pd.Series:
    if column["name"] in frame:
        return as_type(frame[column["name"]], column["dtype"])
    return as_type(
        pd.Series([from_plain(column["first"])] * len(frame), index=frame.index, dtype=object), column["dtype"]
    )


def as_type(values: pd.Series, dtype: str) -> pd.Series:
    """Return a column in the type that the training data had."""
    if dtype.startswith("datetime64"):
        times = pd.to_datetime(values)
        return times.dt.tz_localize(None) if "UTC" not in dtype and times.dt.tz is not None else times
    if dtype in ("object", "str", "string", "category"):
        converted: pd.Series = (
            values.astype(object).where(values.notna(), np.nan).astype(pd.api.types.pandas_dtype(dtype))
        )
        return converted
    if values.isna().any():
        return pd.Series(values.astype("Float64").to_numpy("float64", na_value=np.nan), index=values.index)
    typed: pd.Series = values.astype(pd.api.types.pandas_dtype(dtype))
    return typed


def steady(values: Any) -> np.ndarray:
    """Return one answer per record; floats to twelve significant digits.

    A product of matrices adds up in another order when its rows come in another order, which moves the last digits.
    """
    flat = np.asarray(values).ravel()
    return np.array([float(f"{value:.12g}") for value in flat]) if flat.dtype.kind == "f" else flat
