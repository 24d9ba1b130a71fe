"""Functions with which a notebook records values and the datasets that it reads."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from d2c_mlops import former_names
from d2c_mlops.errors import UsageError
from d2c_mlops.runs.run_events import RUN_ID, SLOT_KEY, append_event
from d2c_mlops.runs.secrets.redaction import encoded_forms, replace_texts
from d2c_mlops.runs.secrets.secrets import looked_up_secrets
from d2c_mlops.settings import load_settings

if TYPE_CHECKING:
    from d2c_mlops.data.tables import Tables


def record(**values: Any) -> None:
    """Record named values (numbers, texts, lists, dicts) with the run; outside of a run they are only printed."""
    plain = replace_texts(
        {name: _json_value(value, name) for name, value in values.items()}, encoded_forms(looked_up_secrets())
    )
    append_event("values", plain)
    print(" · ".join(f"{name} = {_shorten_value(value)}" for name, value in plain.items()))


def open_tables(name: str, digest: str | None = None) -> Tables:
    """Open a dataset that `d2c ingest` wrote and record its content hash with the run."""
    from d2c_mlops.data.tables import Tables

    tables = Tables.open(load_settings().store, name, digest)
    if tables.manifest is not None:
        append_event("input", {"name": name, "digest": tables.manifest.digest})
    return tables


def run_id() -> str | None:
    """Return the id of the run that executes this notebook; None in JupyterLab."""
    return os.environ.get(RUN_ID)


def slot_key() -> str:
    """Return the key of this run's job and slot, the same at every attempt; empty outside of a schedule."""
    return os.environ.get(SLOT_KEY, "")


def _json_value(value: Any, name: str) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _json_value(item, name) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(item, name) for item in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if hasattr(value, "isoformat"):
        return value.isoformat()
    raise UsageError(f"a value of type {type(value).__name__} cannot be recorded", where=name,
                     next="record numbers, texts, dates, lists or dicts")  # fmt: skip


def _shorten_value(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def __getattr__(name: str) -> Any:
    """Return a class or function of this module by its former name."""
    return former_names.renamed_class(__name__, name)
