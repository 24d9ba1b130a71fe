"""In the child: write values so that another process can compare them without running any code of theirs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

DEEPEST = 6
LONGEST = 20_000  # elements of a list or dict that are looked at
MANY = 10_000  # texts beyond which only their hashes are kept
_PLAIN = (bool, int, float, str)


def save_snapshot(values: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Write the comparable form of named values to `path`.json and their arrays to `path`.npz; return the names."""
    import numpy as np

    writer = Writer()
    forms = {name: writer.form(value, 0) for name, value in values.items()}
    Path(f"{path}.json").write_text(json.dumps(forms), encoding="utf-8")
    np.savez(f"{path}.npz", **writer.arrays)
    return {"names": sorted(forms)}


class Writer:
    """Turn values into plain forms; arrays are kept aside under a key."""

    def __init__(self) -> None:
        self.arrays: dict[str, Any] = {}

    def form(self, value: Any, depth: int) -> dict[str, Any]:
        """Return the form of a value: its kind `t` and what is compared; kind `other` is not compared."""
        try:
            return self._form(value, depth)
        except Exception as error:  # a property of a foreign object may raise anything
            return {"t": "other", "why": f"{type(error).__name__} while it was read"}

    def _form(self, value: Any, depth: int) -> dict[str, Any]:
        import numpy as np
        import pandas as pd

        if value is None or isinstance(value, _PLAIN):
            return self._scalar(value)
        if isinstance(value, np.generic):
            return self._scalar(value.item()) if isinstance(value.item(), _PLAIN) else self._text(value)
        if isinstance(value, np.ndarray):
            return self._array(value)
        if isinstance(value, pd.DataFrame):
            columns = [self._array(value.iloc[:, i].to_numpy()) for i in range(value.shape[1])]
            names = [*(str(c) for c in value.columns), "index"]
            return {"t": "frame", "names": names, "rows": len(value), "parts": [*columns, self._index(value.index)]}
        if isinstance(value, pd.Series):
            return {"t": "series", "names": ["values", "index"],
                    "parts": [self._array(value.to_numpy()), self._index(value.index)]}  # fmt: skip
        if isinstance(value, pd.Index):
            return {"t": "series", "parts": [self._array(value.to_numpy())]}
        if hasattr(value, "toarray") and hasattr(value, "nnz"):
            return self._array(value.tocsr().data)
        if isinstance(value, pd.Timestamp | pd.Timedelta):
            return self._text(value)
        if depth >= DEEPEST:
            return {"t": "other", "why": "nested too deep"}
        if isinstance(value, dict) and len(value) <= LONGEST:
            parts = [self.form(each, depth + 1) for each in value.values()]
            return {"t": "dict", "names": [str(key) for key in value], "parts": parts}
        if isinstance(value, list | tuple) and len(value) <= LONGEST:
            return {"t": "list", "parts": [self.form(each, depth + 1) for each in value]}
        if isinstance(value, set | frozenset) and len(value) <= LONGEST:
            return {"t": "list", "parts": [self._text(each) for each in sorted(map(repr, value))]}
        return self._fitted(value, depth)

    def _scalar(self, value: Any) -> dict[str, Any]:
        if isinstance(value, float) and not math.isfinite(value):
            return {"t": "text", "v": str(value)}
        if isinstance(value, int) and abs(value) > 2**53:
            return {"t": "text", "v": str(value)}
        return {"t": "text", "v": value} if isinstance(value, str) or value is None else {"t": "number", "v": value}

    def _text(self, value: Any) -> dict[str, Any]:
        return {"t": "text", "v": str(value)}

    def _array(self, value: Any) -> dict[str, Any]:
        import numpy as np

        if value.dtype.kind in "mM":
            value = value.astype("int64")
        if value.dtype.kind == "O":
            numbers = _numbers(value)
            value = numbers if numbers is not None else np.array([_stable(each) for each in value.ravel()], dtype=str)
        if value.dtype.kind == "U" and value.size > MANY:
            import pandas as pd

            value = pd.util.hash_array(value.astype(object).ravel())
        if value.dtype.kind not in "biufcUS":
            value = np.array([str(each) for each in value.ravel()], dtype=str)
        key = f"a{len(self.arrays)}"
        self.arrays[key] = value
        return {"t": "array", "key": key}

    def _index(self, index: Any) -> dict[str, Any]:
        import pandas as pd

        if isinstance(index, pd.RangeIndex):
            return {"t": "text", "v": str(index)}
        return self._array(index.to_numpy())

    def _fitted(self, value: Any, depth: int) -> dict[str, Any]:
        kind = type(value)
        if isinstance(value, type):
            return {"t": "other", "why": "a class"}
        if kind.__module__ == "sklearn.tree._tree":
            return self._parts(value, ("feature", "threshold", "children_left", "value"), depth)
        if hasattr(value, "params") and hasattr(value, "model") and kind.__module__.startswith("statsmodels."):
            return self._parts(value, ("params", "fittedvalues"), depth)
        if kind.__module__.startswith(("prophet.", "fbprophet.")):
            return self._parts(value, ("params",), depth)
        if hasattr(value, "get_booster") or hasattr(value, "booster_"):
            booster = value.booster_ if hasattr(value, "booster_") else value.get_booster()
            text = booster.model_to_string() if hasattr(booster, "model_to_string") else "".join(booster.get_dump())
            return self._text(sha256(text.encode()).hexdigest())
        if kind.__module__ == "__main__" and hasattr(value, "__dict__"):
            return self._parts(value, sorted(vars(value)), depth)
        if not hasattr(value, "get_params"):
            return {"t": "other", "why": f"a {kind.__name__}"}
        names = sorted(n for n in vars(value) if n.endswith("_") and not n.startswith("_") and not n.endswith("__"))
        parts = [self.form(vars(value)[name], depth + 1) for name in names]
        return {"t": "fitted", "class": type(value).__name__, "names": names, "parts": parts}

    def _parts(self, value: Any, names: Iterable[str], depth: int) -> dict[str, Any]:
        found = {name: self.form(getattr(value, name), depth + 1) for name in names if hasattr(value, name)}
        return {"t": "fitted", "class": type(value).__name__, "names": list(found), "parts": list(found.values())}


def _numbers(value: Any) -> Any:
    import numpy as np

    try:
        return value.astype("float64") if all(isinstance(x, int | float | np.number) for x in value.ravel()) else None
    except (TypeError, ValueError):
        return None


def _stable(value: Any) -> str:
    """Return a text of a value without the address that Python shows for objects."""
    text = str(value)
    return f"<{type(value).__name__}>" if " at 0x" in text else text
