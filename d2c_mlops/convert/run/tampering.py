"""Find the functions of Python, numpy, pandas and IPython that a notebook has replaced: its results could be forged."""

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
from sys import modules as loaded_modules
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING

import numpy
import pandas
from pandas import DataFrame, Index, Series

if TYPE_CHECKING:
    Namespaces = tuple[Mapping[str, object], ...]
    Watched = tuple[
        str, Namespaces, str, object, CodeType | None
    ]  # label, namespaces, name, object, code of a function
    Parts = dict[str, object]  # of IPython's shell by label; of a list, its elements

if "." in __name__:  # imported, not executed in the child's namespace, which has these names already
    from d2c_mlops.convert.run.memory_reads import (
        MISSING,
        code_of,
        has_exact_class,
        instance_dictionary,
        is_real_instance,
        mro_of,
        namespace_of,
    )

# Attributes that decide which code a cell runs and where its names are; some exist in some releases of IPython only.
OF_SHELL = (
    "user_ns", "_user_ns", "user_module", "compile", "events", "displayhook", "display_pub", "display_trap", "builtin_trap",
    "input_transformer_manager",
)  # fmt: skip
OF_TRANSFORMERS = ("cleanup_transforms", "line_transforms", "token_transformers")
LISTS_OF_SHELL = ("ast_transformers", "input_transformers_post")
function_of = vars(MethodType)["__func__"].__get__


def protected_objects() -> list[Watched]:
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
            if public and called and (not is_real_instance(value, type) or value in clock or label == "builtins"):
                code = code_of(value) if type(value) is FunctionType else None
                rows.append((f"{label}.{name}".removeprefix("builtins."), namespaces, name, value, code))
    return rows


def look_up(namespaces: Namespaces, name: str) -> object:
    """Return the value of a name in the first namespace that has it."""
    for namespace in namespaces:
        if name in namespace:
            return namespace[name]
    return MISSING


def replaced_object_labels(rows: list[Watched]) -> list[str]:
    """Return the labels of objects that were replaced after the first cell began."""
    changed = []
    for label, namespaces, name, value, code in rows:
        if look_up(namespaces, name) is not value or (code is not None and code_of(value) is not code):
            changed.append(label)
    return changed


def watched_shell(shell: object) -> tuple[list[Watched], Parts]:
    """Return the methods of a shell and of its parts, as `protected_objects` does, and the parts themselves."""
    for name in (*OF_SHELL, *LISTS_OF_SHELL):
        getattr(shell, name, None)  # some are created when they are first used
    parts = parts_of_shell(shell)
    rows: list[Watched] = []
    of_cells = (parts[f"get_ipython().{name}"] for name in ("displayhook", "display_pub", "compile", "events"))
    for part in (shell, *of_cells):
        kind = type(part)
        for namespace in [namespace_of(base) for base in mro_of(kind)[:-1]]:
            for name, value in namespace.items():
                if has_exact_class(value, FunctionType, property, classmethod, staticmethod):
                    code = code_of(value) if type(value) is FunctionType else None
                    rows.append((f"IPython's {kind.__name__}.{name}", (namespace,), name, value, code))
    return rows, parts


def parts_of_shell(shell: object) -> Parts:
    """Return the parts of a shell that a notebook must not replace, and attributes of the shell that hide its methods."""
    attributes = instance_dictionary(shell) or {}
    traits = attributes.get("_trait_values")
    values = attributes | (traits if type(traits) is dict else {})
    namespaces = [namespace_of(base) for base in mro_of(type(shell))]
    methods = {name for namespace in namespaces for name in namespace if type(namespace[name]) is FunctionType}
    manager = instance_dictionary(values.get("input_transformer_manager")) or {}
    lists = {name: values.get(name) for name in LISTS_OF_SHELL} | {name: manager.get(name) for name in OF_TRANSFORMERS}
    parts: Parts = {f"get_ipython().{name}": list_elements(value) for name, value in lists.items()}
    parts |= {f"get_ipython().{name}": values.get(name) for name in OF_SHELL}
    parts |= {f"get_ipython().{name}": value for name, value in values.items() if name in methods}
    parts |= {"get_ipython().__class__": type(shell), "sys.modules['__main__']": loaded_modules.get("__main__")}
    callbacks = (instance_dictionary(values.get("events")) or {}).get("callbacks")
    registered = [*dict.values(callbacks)] if type(callbacks) is dict else []
    parts["get_ipython().events.callbacks"] = [
        callback for functions in registered for callback in list_elements(functions) if is_defined_in_cell(callback)
    ]
    return parts


def list_elements(value: object) -> list[object]:
    """Return the elements of a list; of another value except None, the value itself."""
    return [*list.__iter__(value)] if is_real_instance(value, list) else [] if value is None else [value]  # type: ignore[arg-type]


def is_defined_in_cell(callback: object) -> bool:
    """Return whether a cell defined a function that is called before or after cells, rather than an installed library."""
    function = function_of(callback) if type(callback) is MethodType else callback
    if type(function) is FunctionType:
        file: str = code_of(function).co_filename
        return file.startswith(("cell-", "<"))
    return type(function) is not BuiltinFunctionType


def replaced_of_shell(shell: object, original_parts: Parts) -> list[str]:
    """Return the labels of the parts of a shell that were replaced, or hidden by an attribute, after the first cell began."""
    return [
        label for label, part in parts_of_shell(shell).items() if not is_same(part, original_parts.get(label, MISSING))
    ]


def is_same(part: object, earlier: object) -> bool:
    """Return whether two parts are the same object, or lists of the same objects."""
    if type(part) is list and type(earlier) is list:
        former: list[object] = earlier
        return len(part) == len(former) and all(a is b for a, b in zip(part, former, strict=True))
    return part is earlier
