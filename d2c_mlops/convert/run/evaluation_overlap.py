"""Check at training time whether the evaluation rows were used in the fit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pandas as pd

from d2c_mlops.convert.run.feature_agreement import as_dense_array

SHARED = 0.5  # share of equal rows from which tables without labels always overlap
CHANCE = 0.05  # share of equal rows that chance may give where no fitted row repeats another
FittedRows = tuple[object, object]  # features and target, as a caller passed them
RowsByModel = dict[int, FittedRows]  # by the identity of the fitted object


def regression_rows(results: object) -> FittedRows | None:
    """Return the features and the target of a statsmodels regression, as they were passed."""
    data = getattr(getattr(results, "model", None), "data", None)
    features = getattr(data, "orig_exog", None)
    return None if features is None else (features, getattr(data, "orig_endog", None))


@contextmanager
def record_fits(kind: type) -> Iterator[RowsByModel]:
    """Note features and target of every `fit` of a class, by the identity of the object that was fitted last."""
    rows_by_model: RowsByModel = {}
    plain = {name: getattr(kind, name) for name in ("fit", "fit_predict") if callable(getattr(kind, name, None))}

    def recording(name: str) -> Callable[..., object]:
        def call(self: object, X: object = None, y: object = None, *args: object, **kwargs: object) -> object:  # noqa: N803
            rows_by_model[id(self)] = (X, y)
            return plain[name](self, X, y, *args, **kwargs) if y is not None else plain[name](self, X, *args, **kwargs)

        return call

    own_methods = {name: name in vars(kind) for name in plain}
    try:
        for name in plain:
            setattr(kind, name, recording(name))
        yield rows_by_model
    finally:
        for name, inherited in own_methods.items():
            if inherited:
                setattr(kind, name, plain[name])
            else:
                delattr(kind, name)


def overlap_share(fitted: FittedRows, features: object, answers: object) -> float:
    """Return the share of judged rows that are among the fitted ones: same label and same values where labels hold.

    Labels do not hold where a table was numbered anew after the split: one label then belongs to two different rows. Such
    tables and arrays are compared by their values alone; a share counts from SHARED on, or where it is far above the share of
    fitted rows that repeat each other, which may be equal by chance.
    """
    labels, judged = _index_labels(*fitted), _index_labels(features, answers)
    mine, theirs = _row_bytes(fitted[0], fitted[1]), _row_bytes(features, answers)
    if not len(theirs):
        return 0.0
    if labels is not None and judged is not None:
        pairs, judged_labels = set(zip(labels, mine, strict=True)), set(labels)
        among = [(label, row) for label, row in zip(judged, theirs, strict=True) if label in judged_labels]
        if all(pair in pairs for pair in among):
            return len(among) / len(theirs)
    counts = Counter(mine)
    share = float(sum(row in counts for row in theirs)) / len(theirs)
    repeated = sum(count for count in counts.values() if count > 1) / max(len(mine), 1)
    return share if share >= min(SHARED, 2 * repeated + CHANCE) else 0.0


def _index_labels(features: object, answers: object) -> pd.Index | None:
    for table in (features, answers):
        if isinstance(table, pd.DataFrame | pd.Series):
            return table.index
    return None


def _row_bytes(features: object, answers: object) -> list[bytes]:
    parts = [_value_bytes(as_dense_array(features))]
    if answers is not None and (target := as_dense_array(answers)).ndim:
        parts.append(_value_bytes(target))
    return [b"|".join(row) for row in zip(*parts, strict=True)]


def _value_bytes(values: np.ndarray) -> list[bytes]:
    flat = values.reshape(len(values), -1)
    try:
        return [row.tobytes() for row in np.round(flat.astype(float), 9) + 0.0]
    except (TypeError, ValueError):
        return [repr(row.tolist()).encode() for row in flat]
