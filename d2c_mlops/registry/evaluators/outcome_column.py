"""The outcome column of a converted notebook's records, and how its values become what the model predicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ...errors import DataRefused

MANY = 50  # distinct values above which an outcome is a number, not a class
FORMS: Mapping[str, Callable[[Any], Any]] = {
    "": lambda values: values, "log1p": np.log1p, "log": np.log, "log10": np.log10, "sqrt": np.sqrt,
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """A column of the records and how its values become predictions: classes by their codes, numbers with a transform such as log1p."""

    column: str
    classes: Mapping[Any, Any]  # predicted class of each value of the column; empty for numbers
    form: str = ""

    def known(self, records: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which records have an outcome."""
        if self.classes:
            return records[self.column].isin(list(self.classes)).to_numpy(bool)
        return np.asarray(np.isfinite(transform_column(records[self.column], self.form)), dtype=bool)

    def values(self, records: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the outcomes as codes of classes, or numbers as the model predicts them."""
        if self.classes:
            return self.coded(records[self.column].map(dict(self.classes)).astype(object).to_numpy())
        return transform_column(records[self.column], self.form)

    def coded(self, answers: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return predictions in the coding of `values`; an unknown class is -1, no prediction NaN."""
        series = pd.Series(answers, dtype=object)
        if not self.classes or _are_probabilities(answers, self.classes):
            return pd.to_numeric(series, errors="coerce").to_numpy(np.float64)
        codes = {value: float(place) for place, value in enumerate(sorted(set(self.classes.values()), key=_sort_key))}
        return series.map(lambda value: np.nan if value is None else codes.get(value, -1.0)).to_numpy(np.float64)

    def disguised(self, records: pd.DataFrame) -> pd.DataFrame:
        """Return the records with changed outcomes: each class becomes the next one, each number is mirrored in its range."""
        changed = records[self.column]
        if self.classes:
            names = list(self.classes)
            exchanged = changed.map(dict(zip(names, [*names[1:], names[0]], strict=True))).where(
                changed.isin(names), changed
            )
            return records.assign(**{self.column: exchanged.astype(changed.dtype)})
        return records.assign(**{self.column: changed.min() + changed.max() - changed})


def target_column(records: pd.DataFrame, answers: Any, inputs: Sequence[str], load: str) -> Outcome:
    """Return the column of the records that is the training's target. Raises DataRefused if it cannot be identified."""
    if answers is None:
        raise DataRefused(
            "the notebook learns from no outcome (it has no target), so its predictions cannot be measured"
        )
    flat = answers if isinstance(answers, pd.Series) else pd.Series(np.asarray(answers).ravel())
    aligned = isinstance(answers, pd.Series | pd.DataFrame) and records.index.is_unique
    aligned = aligned and bool(answers.index.isin(records.index).all())
    if isinstance(answers, pd.DataFrame):
        flat = answers.iloc[:, 0]
    candidates = []
    for name in records.columns:
        same = _mapping_to_answers(records[name], records.loc[flat.index, name] if aligned else None, flat)
        if same is not None:
            candidates.append(Outcome(name, *same))
    others = [candidate for candidate in candidates if candidate.column not in inputs]
    same_name = [candidate for candidate in others if candidate.column == flat.name]
    if chosen := same_name or others:
        if len({candidate.column for candidate in chosen}) == 1:
            return chosen[0]
        names = ", ".join(candidate.column for candidate in chosen)
        raise DataRefused(f"several columns of the records may be its outcome: {names}", next=_NEXT)
    if candidates:
        raise DataRefused(f"its outcome, the column {candidates[0].column}, is also an input", next=_NEXT)
    raise DataRefused(
        f"no column of {load}() contains the target of the training"
        + (f" ({flat.name})" if flat.name is not None else "")
        + ": the outcome is computed in a later step or comes from another table",
        next=_NEXT,
    )


_NEXT = "write an Evaluator in a package of [d2c] packages that returns the outcome of each record"


def _mapping_to_answers(
    column: pd.Series, aligned_column: pd.Series | None, answers: pd.Series
) -> tuple[Mapping[Any, Any], str] | None:
    """Return how the values of a column become the target; None if they do not."""
    values = column.dropna().unique()
    distinct = answers.dropna().unique()
    if len(values) <= MANY and len(distinct) <= min(len(values), MANY):
        return _class_mapping(values, aligned_column, answers, distinct)
    if not pd.api.types.is_numeric_dtype(column.dtype) or not pd.api.types.is_numeric_dtype(answers.dtype):
        return None
    targets = answers.to_numpy(np.float64)
    for form in FORMS:
        if aligned_column is not None:
            numbers = transform_column(aligned_column, form)
            agree = np.allclose(numbers, targets, equal_nan=True)
        else:
            numbers = np.sort(transform_column(column, form))
            numbers = numbers[np.isfinite(numbers)]
            place = (
                np.clip(np.searchsorted(numbers, targets), 1, max(1, len(numbers) - 1)) if len(numbers) > 1 else None
            )
            agree = place is not None and bool(
                (np.isclose(numbers[place], targets) | np.isclose(numbers[place - 1], targets)).all()
            )
        if agree:
            return {}, form
    return None


def _class_mapping(
    values: Any, aligned_column: pd.Series | None, answers: pd.Series, distinct: Any
) -> tuple[Mapping[Any, Any], str] | None:
    if len(distinct) < 2:
        return None
    if aligned_column is not None:
        pairs = (
            pd.DataFrame({"raw": aligned_column.to_numpy(object), "answer": answers.to_numpy(object)})
            .dropna()
            .drop_duplicates()
        )
        if pairs["raw"].is_unique and pairs["answer"].is_unique and len(pairs) == len(distinct):
            return dict(zip(pairs["raw"], pairs["answer"], strict=True)), ""
        return None
    if set(distinct) <= set(values):
        return {value: value for value in values}, ""
    if len(distinct) == len(values) and set(distinct) == set(range(len(values))):  # as LabelEncoder numbers them
        return dict(zip(sorted(values, key=_sort_key), range(len(values)), strict=True)), ""
    return None


def transform_column(column: pd.Series, transform_name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return a column as numbers with a transform such as log1p; NaN for values that are not numbers."""
    with np.errstate(all="ignore"):
        return np.asarray(
            FORMS[transform_name](pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan))
        )


def _sort_key(value: Any) -> tuple[bool, Any]:
    return (isinstance(value, str), value)


def _are_probabilities(answers: Any, classes: Mapping[Any, Any]) -> bool:
    """Return whether the answers are probabilities of the classes 0 and 1."""
    if set(classes.values()) != {0, 1}:
        return False
    numbers = pd.to_numeric(pd.Series(answers, dtype=object), errors="coerce").dropna()
    return len(numbers) > 0
