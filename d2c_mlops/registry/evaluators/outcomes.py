"""The outcome of the records of a converted notebook: which column holds it, and how it becomes what the model predicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ...errors import DataRefused

MANY = 50  # values above which an outcome is a number and no class
FORMS: Mapping[str, Callable[[Any], Any]] = {
    "": lambda values: values, "log1p": np.log1p, "log": np.log, "log10": np.log10, "sqrt": np.sqrt,
}  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """A column of the records and how its values become answers: classes by their codes, numbers in a form such as log1p."""

    column: str
    classes: Mapping[Any, Any]  # answer of each value of the column; empty for numbers
    form: str = ""

    def known(self, records: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which records have an outcome."""
        if self.classes:
            return records[self.column].isin(list(self.classes)).to_numpy(bool)
        return np.asarray(np.isfinite(in_form(records[self.column], self.form)), dtype=bool)

    def values(self, records: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the outcomes as codes of classes, or numbers as the model predicts them."""
        if self.classes:
            return self.coded(records[self.column].map(dict(self.classes)).astype(object).to_numpy())
        return in_form(records[self.column], self.form)

    def coded(self, answers: np.ndarray[Any, Any]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return answers as `values` gives outcomes; a class that never came is -1, no answer NaN."""
        found = pd.Series(answers, dtype=object)
        if not self.classes or _shares(answers, self.classes):
            return pd.to_numeric(found, errors="coerce").to_numpy(np.float64)
        codes = {value: float(place) for place, value in enumerate(sorted(set(self.classes.values()), key=_order))}
        return found.map(lambda value: np.nan if value is None else codes.get(value, -1.0)).to_numpy(np.float64)

    def disguised(self, records: pd.DataFrame) -> pd.DataFrame:
        """Return the records with another outcome: each class that of the next, each number mirrored in its range."""
        changed = records[self.column]
        if self.classes:
            names = list(self.classes)
            other = changed.map(dict(zip(names, [*names[1:], names[0]], strict=True))).where(
                changed.isin(names), changed
            )
            return records.assign(**{self.column: other.astype(changed.dtype)})
        return records.assign(**{self.column: changed.min() + changed.max() - changed})


def outcome_of(records: pd.DataFrame, answers: Any, inputs: Sequence[str], load: str) -> Outcome:
    """Return the column of the records that the training calls its answers; raises DataRefused where none can be named."""
    if answers is None:
        raise DataRefused("the notebook predicts nothing that comes true later (it has no answers to learn from)")
    flat = answers if isinstance(answers, pd.Series) else pd.Series(np.asarray(answers).ravel())
    aligned = isinstance(answers, pd.Series | pd.DataFrame) and records.index.is_unique
    aligned = aligned and bool(answers.index.isin(records.index).all())
    if isinstance(answers, pd.DataFrame):
        flat = answers.iloc[:, 0]
    found = []
    for name in records.columns:
        same = _same(records[name], records.loc[flat.index, name] if aligned else None, flat)
        if same is not None:
            found.append(Outcome(name, *same))
    others = [each for each in found if each.column not in inputs]
    named = [each for each in others if each.column == flat.name]
    if chosen := named or others:
        if len({each.column for each in chosen}) == 1:
            return chosen[0]
        names = ", ".join(each.column for each in chosen)
        raise DataRefused(f"several columns of the records may be its outcome: {names}", next=_NEXT)
    if found:
        raise DataRefused(f"its outcome, the column {found[0].column}, is asked for as an input too", next=_NEXT)
    raise DataRefused(
        f"no column of {load}() holds what the training calls its answers"
        + (f" ({flat.name})" if flat.name is not None else "")
        + ": the outcome is made in a later step or comes from another table",
        next=_NEXT,
    )


_NEXT = "write an Evaluator in a package of [d2c] packages that says what came of each record"


def _same(column: pd.Series, beside: pd.Series | None, answers: pd.Series) -> tuple[Mapping[Any, Any], str] | None:
    """Return how the values of a column become answers; None where they do not."""
    values = column.dropna().unique()
    distinct = answers.dropna().unique()
    if len(values) <= MANY and len(distinct) <= min(len(values), MANY):
        return _classes(values, beside, answers, distinct)
    if not pd.api.types.is_numeric_dtype(column.dtype) or not pd.api.types.is_numeric_dtype(answers.dtype):
        return None
    wanted = answers.to_numpy(np.float64)
    for form in FORMS:
        if beside is not None:
            made = in_form(beside, form)
            agree = np.allclose(made, wanted, equal_nan=True)
        else:
            made = np.sort(in_form(column, form))
            made = made[np.isfinite(made)]
            place = np.clip(np.searchsorted(made, wanted), 1, max(1, len(made) - 1)) if len(made) > 1 else None
            agree = place is not None and bool(
                (np.isclose(made[place], wanted) | np.isclose(made[place - 1], wanted)).all()
            )
        if agree:
            return {}, form
    return None


def _classes(
    values: Any, beside: pd.Series | None, answers: pd.Series, distinct: Any
) -> tuple[Mapping[Any, Any], str] | None:
    if len(distinct) < 2:
        return None
    if beside is not None:
        pairs = (
            pd.DataFrame({"raw": beside.to_numpy(object), "answer": answers.to_numpy(object)})
            .dropna()
            .drop_duplicates()
        )
        if pairs["raw"].is_unique and pairs["answer"].is_unique and len(pairs) == len(distinct):
            return dict(zip(pairs["raw"], pairs["answer"], strict=True)), ""
        return None
    if set(distinct) <= set(values):
        return {value: value for value in values}, ""
    if len(distinct) == len(values) and set(distinct) == set(range(len(values))):  # as LabelEncoder numbers them
        return dict(zip(sorted(values, key=_order), range(len(values)), strict=True)), ""
    return None


def in_form(column: pd.Series, form: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return a column as numbers in a form such as log1p; NaN for what is no number."""
    with np.errstate(all="ignore"):
        return np.asarray(FORMS[form](pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)))


def _order(value: Any) -> tuple[bool, Any]:
    return (isinstance(value, str), value)


def _shares(answers: Any, classes: Mapping[Any, Any]) -> bool:
    """Return whether classes 0 and 1 are answered by probabilities."""
    if set(classes.values()) != {0, 1}:
        return False
    numbers = pd.to_numeric(pd.Series(answers, dtype=object), errors="coerce").dropna()
    return len(numbers) > 0
