"""Stages of a notebook: completed stages of a failed run are reused by the next attempt."""

from __future__ import annotations

import functools
import inspect
import json
import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from d2c_mlops.errors import UsageError
from d2c_mlops.runs.run_events import FOLDER, append_event

P = ParamSpec("P")
R = TypeVar("R")
RESUME = "D2C_RESUME"  # the folder of the run that is gone on with
STAGES = "stages"


def stage(function: Callable[P, R]) -> Callable[P, R]:
    """Make a function a stage: its result is saved with the run, and a resumed run loads it.

    It is computed again if the function's source or its arguments differ. Results are frames, arrays or JSON values.
    Outside of a run it is an ordinary function.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        folder = os.environ.get(FOLDER)
        if folder is None:
            return function(*args, **kwargs)
        name = f"{function.__name__}-{_stage_digest(function, args, kwargs)}"
        stage_folder = Path(folder) / STAGES / name
        former = Path(os.environ[RESUME]) / STAGES / name if os.environ.get(RESUME) else None
        if not stage_folder.exists() and former is not None and former.exists():
            shutil.copytree(former, stage_folder)
            append_event("stage", {"name": function.__name__, "resumed": True})
            print(f"stage {function.__name__}: reused from the previous run")
        if stage_folder.exists():
            result: R = _load_result(stage_folder)
            return result
        value = function(*args, **kwargs)
        _save_result(stage_folder, value)
        append_event("stage", {"name": function.__name__, "resumed": False})
        return value

    return wrapper


def _stage_digest(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    digest = sha256(inspect.getsource(function).encode())
    for value in (*args, *sorted(kwargs.items())):
        digest.update(_value_fingerprint(value))
    return digest.hexdigest()[:16]


def _value_fingerprint(value: Any) -> bytes:
    if hasattr(value, "to_parquet"):
        import pandas as pd

        return bytes(pd.util.hash_pandas_object(value).to_numpy().tobytes()) + repr(list(value.columns)).encode()
    if hasattr(value, "tobytes"):
        return bytes(value.tobytes())
    if isinstance(value, list | tuple):
        return b"".join(_value_fingerprint(item) for item in value)
    return repr(value).encode()


def _save_result(target: Path, value: Any) -> None:
    """Write a result atomically: to a temporary name, then rename."""
    draft = target.with_name(f".{target.name}.{os.getpid()}")
    draft.mkdir(parents=True)
    if hasattr(value, "to_parquet"):
        value.to_parquet(draft / "value.parquet")
    elif hasattr(value, "tobytes"):
        import numpy as np

        np.save(draft / "value.npy", value, allow_pickle=False)
    else:
        try:
            text = json.dumps(value)
        except TypeError:
            shutil.rmtree(draft)
            raise UsageError(f"a stage cannot save a {type(value).__name__}", where=target.name.rpartition("-")[0],
                             next="return a frame, an array or JSON values") from None  # fmt: skip
        (draft / "value.json").write_text(text, encoding="utf-8")
    draft.rename(target)


def _load_result(folder: Path) -> Any:
    if (folder / "value.parquet").exists():
        import pandas as pd

        return pd.read_parquet(folder / "value.parquet")
    if (folder / "value.npy").exists():
        import numpy as np

        return np.load(folder / "value.npy", allow_pickle=False)
    return json.loads((folder / "value.json").read_text(encoding="utf-8"))
