"""Find the functions of Python, numpy and pandas that a notebook has replaced: its results could be forged."""

# The child executes this source in a namespace of its own before the first cell. See `memory_reads` for the rules.

from __future__ import annotations

import builtins
import datetime
import json
import random
import time
from collections.abc import Mapping
from datetime import date, timedelta
from datetime import datetime as moment
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING

import numpy
import pandas
from pandas import DataFrame, Index, Series

if TYPE_CHECKING:
    Namespaces = tuple[Mapping[str, object], ...]
    Watched = tuple[
        str, Namespaces, str, object, CodeType | None
    ]  # label, namespaces, name, object, code of a function

if "." in __name__:  # imported, not executed in the child's namespace, which has these names already
    from d2c_mlops.convert.run.memory_reads import MISSING, code_of, is_a, mro_of, namespace_of


def watched() -> list[Watched]:
    """Return the objects that a notebook must not replace: label, namespaces, name, object, and the code of a function.

    A name is looked up in the namespaces in turn: those of a class and of its bases, or the one of a module.
    """
    modules: list[ModuleType] = [builtins, time, datetime, random, json, numpy, numpy.random, numpy.linalg, pandas]
    places: list[tuple[str, Namespaces]] = [
        *((module.__name__, (vars(module),)) for module in modules),
        *(
            (f"pandas.{kind.__name__}", tuple(namespace_of(base) for base in mro_of(kind)))
            for kind in (DataFrame, Series, Index)
        ),
    ]
    clock = (moment, date, timedelta)
    rows: list[Watched] = []
    for label, namespaces in places:
        of_class = len(namespaces) > 1
        for name in dict.fromkeys(name for namespace in namespaces for name in namespace):
            value = look_up(namespaces, name)
            public = not name.startswith("_") or name in ("__import__", "__build_class__")
            public = public or (of_class and not name.startswith("_repr"))
            called = callable(value) or (of_class and type(value) is property)
            # Old notebooks give numpy and pandas names of classes back (`np.bool = bool`).
            if public and called and (not is_a(value, type) or value in clock or label == "builtins"):
                code = code_of(value) if type(value) is FunctionType else None
                rows.append((f"{label}.{name}".removeprefix("builtins."), namespaces, name, value, code))
    return rows


def look_up(namespaces: Namespaces, name: str) -> object:
    """Return the value of a name in the first namespace that has it."""
    for namespace in namespaces:
        if name in namespace:
            return namespace[name]
    return MISSING


def replaced(rows: list[Watched]) -> list[str]:
    """Return the labels of objects that were replaced after the first cell began."""
    changed = []
    for label, namespaces, name, value, code in rows:
        if look_up(namespaces, name) is not value or (code is not None and code_of(value) is not code):
            changed.append(label)
    return changed
