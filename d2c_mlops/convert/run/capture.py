"""Read values from memory in the child process, without calling Python code of the notebook or its libraries."""

# All private names of pandas are used here; tested with pandas >=3.0,<3.2, to which settings.ini bounds it.
# The child executes this source before the first cell in a namespace with builtins of its own, which no module, class or frame
# of the notebook refers to. Hence the rules here: import names, not modules; define no class; read a foreign object only
# through its exact type, its instance dictionary and descriptors that are written in C.

from __future__ import annotations

import builtins
import datetime
import json
import random
import time
from collections.abc import Callable, Mapping
from datetime import date, timedelta
from datetime import datetime as moment
from decimal import Decimal
from json.encoder import c_make_encoder, encode_basestring_ascii  # type: ignore[attr-defined]
from math import isfinite
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any

import numpy
import pandas
from numpy import generic, ndarray, number
from pandas import NA, Categorical, CategoricalDtype, DataFrame, Index, MultiIndex, NaT, RangeIndex, Series
from pandas._libs.arrays import NDArrayBacked
from pandas._libs.internals import Block, BlockManager, BlockPlacement  # type: ignore[import-not-found]
from pandas._libs.tslibs.timedeltas import _Timedelta  # type: ignore[attr-defined]
from pandas._libs.tslibs.timestamps import _Timestamp  # type: ignore[attr-defined]
from pandas.core.arrays import BaseMaskedArray, IntervalArray
from pandas.core.internals.managers import SingleBlockManager  # type: ignore[import-not-found]

try:
    from pyarrow import ChunkedArray

    arrow_list = vars(ChunkedArray)["to_pylist"]
except ImportError:
    ChunkedArray = arrow_list = None

DEEPEST = 6
LONGEST = 20_000  # elements of a list or dict that are looked at
SAFE = 2**53  # integers beyond it are not exact in a float
IN_MEMORY = (
    "its trees are stored inside its library; its predictions are compared where the notebook assigns them to a name"
)
HEAP_TYPE = 1 << 9  # set for classes that Python code made, and can change

mro_of = vars(type)["__mro__"].__get__
namespace_of = vars(type)["__dict__"].__get__
flags_of = vars(type)["__flags__"].__get__
name_of, declared_in = vars(type)["__name__"].__get__, vars(type)["__module__"].__get__
code_of = vars(FunctionType)["__code__"].__get__
dtype_of, shape_of = vars(ndarray)["dtype"].__get__, vars(ndarray)["shape"].__get__
kind_of_dtype, text_of_dtype = vars(numpy.dtype)["kind"].__get__, vars(numpy.dtype)["str"].__get__
object_bytes, object_list, item_of = ndarray.tobytes, ndarray.tolist, generic.item
blocks_of, axes_of = vars(BlockManager)["blocks"].__get__, vars(BlockManager)["axes"].__get__
values_of, places_of = vars(Block)["values"].__get__, vars(Block)["_mgr_locs"].__get__
numbers_of = vars(BlockPlacement)["as_array"].__get__
backing_of, dtype_of_backed = vars(NDArrayBacked)["_ndarray"].__get__, vars(NDArrayBacked)["_dtype"].__get__
nanoseconds, duration = vars(_Timestamp)["_value"].__get__, vars(_Timedelta)["_value"].__get__
MISSING = object()


def refuse(value: object) -> object:
    """Stand for the encoder's default: what is given to it is plain."""
    raise TypeError


encode = c_make_encoder(None, refuse, encode_basestring_ascii, None, ":", ",", False, False, True)


def plain_json(value: Any) -> str:
    """Return JSON of dicts, lists, texts and numbers, written by C code alone."""
    return "".join(encode(value, 0))


def exactly(value: object, *kinds: type) -> bool:
    """Return whether a value is of one of these classes; `in` would ask a foreign metaclass whether they are equal."""
    kind = type(value)
    return any(kind is each for each in kinds)


def is_a(value: object, kind: type) -> bool:
    """Return whether a value's real class is `kind` or below it; `__class__` and `__instancecheck__` have no say."""
    return any(each is kind for each in mro_of(type(value)))


def state(value: object) -> dict[str, Any] | None:
    """Return a copy of the instance dictionary; None where there is none, or a class hides it."""
    for kind in mro_of(type(value)):
        descriptor = namespace_of(kind).get("__dict__")
        if descriptor is not None:
            if type(descriptor) is not GetSetDescriptorType:
                return None
            found = descriptor.__get__(value)
            return {key: each for key, each in dict.items(found) if type(key) is str}
    return None


def has(value: object, name: str) -> bool:
    """Return whether a class of the value defines a name."""
    return any(name in namespace_of(kind) for kind in mro_of(type(value)))


def module_of(value: object) -> str:
    """Return the module that a value's class says it is from."""
    found = declared_in(type(value))
    return found if type(found) is str else ""


def field(value: object, name: str) -> Any:
    """Read an attribute of a class written in C; MISSING where it is none."""
    for kind in mro_of(type(value)):
        descriptor = namespace_of(kind).get(name)
        if descriptor is not None:
            genuine = exactly(descriptor, GetSetDescriptorType, MemberDescriptorType)
            return descriptor.__get__(value) if genuine and not flags_of(kind) & HEAP_TYPE else MISSING
    return MISSING


def snapshot(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[list[Any]], list[bytes]]:
    """Return the form of each named value, a line (dtype, shape, bytes) for each array, and the arrays' bytes.

    The kind of a form is `t`; kind `other` is not compared. Arrays of texts have the dtype 'text' and are a JSON list.
    """
    lines: list[list[Any]] = []
    parts: list[bytes] = []

    def keep(dtype: str, shape: list[int], data: bytes) -> dict[str, Any]:
        lines.append([dtype, shape, len(data)])
        parts.append(data)
        return {"t": "array", "key": len(lines) - 1}

    def texts(found: list[str], shape: list[int] | None = None) -> dict[str, Any]:
        return keep("text", [len(found)] if shape is None else shape, plain_json(found).encode("ascii"))

    def attempt(read: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any]:
        try:
            return read(*given)
        except (Exception, RecursionError):
            return other("a value whose memory layout is not supported")

    def form(value: Any, depth: int) -> dict[str, Any]:
        return attempt(form_of, value, depth)

    def form_of(value: Any, depth: int) -> dict[str, Any]:
        kind = type(value)
        if value is None or exactly(value, bool, int, float, str) or is_a(value, generic):
            return scalar(value)
        if is_a(value, ndarray):
            return array(value)
        if is_a(value, DataFrame):
            return frame(value)
        if is_a(value, Series):
            manager = (state(value) or {})["_mgr"]
            held = state(manager) if is_a(manager, SingleBlockManager) else None
            if held is None:
                return other("an unsupported kind of Series")
            values = column(values_of(held["blocks"][0]))
            if values["t"] == "other":
                return values
            return {"t": "series", "names": ["values", "index"], "parts": [values, index(held["axes"][0])]}
        if is_a(value, Index):
            return {"t": "series", "parts": [index(value)]}
        if is_a(value, moment) or is_a(value, date) or is_a(value, timedelta) or kind is Decimal:
            return {"t": "text", "v": text(value)}
        if depth >= DEEPEST:
            return other("nested too deeply")
        for base, read in ((dict, dict.items), (list, list.__iter__), (tuple, tuple.__iter__), (set, set.__iter__),
                           (frozenset, frozenset.__iter__)):  # fmt: skip
            if is_a(value, base):
                return collection(base, list(read(value)), depth)
        if is_a(value, int) or is_a(value, float) or is_a(value, str):
            return scalar(value)
        column_form = column(value)
        return fitted(value, depth) if column_form["t"] == "other" else column_form

    def collection(base: type, elements: list[Any], depth: int) -> dict[str, Any]:
        if len(elements) > LONGEST:
            return other("too long")
        if base is dict:
            names = [text(key) for key, _ in elements]
            if any(name is None for name in names):
                return other("a dict with unsupported keys")
            return {"t": "dict", "names": names, "parts": [form(element, depth + 1) for _, element in elements]}
        if base in (list, tuple):
            return {"t": "list", "parts": [form(item, depth + 1) for item in elements]}
        found = [text(element) for element in elements]
        return other("a set with unsupported values") if None in found else texts(sorted(each or "" for each in found))

    def frame(value: Any) -> dict[str, Any]:
        manager = (state(value) or {})["_mgr"]
        if not is_a(manager, BlockManager):
            return other("an unsupported kind of DataFrame")
        columns, rows = axes_of(manager)
        parts: list[dict[str, Any]] = [other("")] * length(columns)
        for block in blocks_of(manager):
            held, places = values_of(block), object_list(numbers_of(places_of(block)))
            if type(held) is not ndarray and is_a(held, NDArrayBacked) and not is_a(held, Categorical):
                held = backing_of(held)
            many = type(held) is ndarray and len(shape_of(held)) == 2
            for row, place in enumerate(places):
                parts[place] = array(held[row]) if many else attempt(column, held)
        if parts and all(part["t"] == "other" for part in parts):
            return other("a DataFrame with unsupported objects")
        names = [text(element) for element in elements(columns)]
        whole = [name if name is not None else "?" for name in names]
        return {"t": "frame", "names": [*whole, "index"], "parts": [*parts, attempt(index, rows)]}

    def index(value: Any) -> dict[str, Any]:
        held = state(value) or {}
        if is_a(value, RangeIndex):
            return {"t": "text", "v": repr(held["_range"]) if type(held["_range"]) is range else ""}
        if is_a(value, MultiIndex):
            levels = [index(each) for each in list.__iter__(held["_levels"])]
            return {"t": "list", "parts": [*levels, *(array(each) for each in list.__iter__(held["_codes"]))]}
        return column(held["_data"])

    def sides(value: Any) -> dict[str, Any]:
        return index(value) if is_a(value, Index) else column(value)

    def column(value: Any) -> dict[str, Any]:
        """The form of a column's array, numpy's or an extension of pandas."""
        if is_a(value, ndarray):
            return array(value)
        held = state(value) or {}
        if is_a(value, Categorical):
            categories = (state(dtype_of_backed(value)) or {})["_categories"]
            if is_a((state(categories) or {}).get("_data"), IntervalArray):
                return {"t": "list", "parts": [array(backing_of(value)), index(categories)]}
            return listed(elements(value))
        if ChunkedArray is not None and type(held.get("_pa_array")) is ChunkedArray:
            return listed(elements(value))
        if is_a(value, NDArrayBacked):
            return array(backing_of(value))
        if is_a(value, BaseMaskedArray):
            return {"t": "list", "parts": [array(held["_data"]), array(held["_mask"])]}
        if is_a(value, IntervalArray):
            return {"t": "list", "parts": [sides(held["_left"]), sides(held["_right"])]}
        return other("an unsupported kind of array")

    def array(value: Any) -> dict[str, Any]:
        dtype, shape = dtype_of(value), [*shape_of(value)]
        kind = kind_of_dtype(dtype)
        if kind in "biufcmM":
            return keep(text_of_dtype(dtype), shape, object_bytes(value))
        found: list[Any] = object_list(value) if len(shape) == 1 else flat(object_list(value), len(shape))
        return listed(found, shape) if kind in "OSUT" else other("an array of records")

    def listed(found: list[Any], shape: list[int] | None = None) -> dict[str, Any]:
        numbers = []
        for each in found:
            if (plain := real(each)) is None:
                break
            numbers.append(plain)
        if found and len(numbers) == len(found):
            data = object_bytes(numpy_array(numbers, "float64"))
            return keep("<f8", [len(found)] if shape is None else shape, data)
        words = [each if type(each) is str else text(each) for each in found]
        return (
            other("an array of unsupported objects") if None in words else texts([word or "" for word in words], shape)
        )

    def fitted(value: Any, depth: int) -> dict[str, Any]:
        if is_a(value, type):
            return other("a class")
        held, module = state(value), module_of(value)
        if module.startswith(("lightgbm.", "xgboost.", "catboost.")) or module == "_catboost":
            return other(IN_MEMORY)  # what its attributes hold (fitted: yes) would prove nothing
        if module == "sklearn.tree._tree" and not flags_of(type(value)) & HEAP_TYPE:
            names = ["feature", "threshold", "children_left", "value"]
            return parts_of(value, {name: field(value, name) for name in names}, depth)
        if held is None:
            return other(f"a {name_of(type(value))}")
        if module.startswith("statsmodels.") and "_results" in held:
            held = state(held["_results"]) or {}
            return parts_of(value, {"params": held["params"]} if "params" in held else {}, depth)
        if module.startswith(("prophet.", "fbprophet.")):
            return parts_of(value, {"params": held.get("params")}, depth)
        if module.startswith("scipy.sparse"):
            names = ["data", "indices", "indptr", "row", "col", "coords", "offsets"]
            return parts_of(value, {name: held[name] for name in names if name in held}, depth)
        if module == "__main__":
            return parts_of(value, {name: held[name] for name in sorted(held)}, depth)
        if not has(value, "get_params"):
            return other(f"a {name_of(type(value))}")
        names = sorted(n for n in held if n.endswith("_") and not n.startswith("_") and not n.endswith("__"))
        return parts_of(value, {name: held[name] for name in names}, depth)

    def parts_of(value: Any, held: Mapping[str, Any], depth: int) -> dict[str, Any]:
        inside = [form(each, depth + 1) for each in held.values()]
        return {"t": "fitted", "class": name_of(type(value)), "names": [*held], "parts": inside}

    return {name: form(value, 0) for name, value in values.items()}, lines, parts


def other(why: str) -> dict[str, Any]:
    """Return the form of what is not compared."""
    return {"t": "other", "why": why}


def length(value: Any) -> int:
    """Return the length of an index."""
    held = state(value) or {}
    return len(held["_range"]) if is_a(value, RangeIndex) else len(elements(value))


def elements(value: Any) -> list[Any]:
    """Return the elements of an index or of an extension array, read from memory; raises TypeError for other kinds."""
    held = state(value) or {}
    if is_a(value, RangeIndex):
        return list(held["_range"]) if type(held["_range"]) is range else []
    if is_a(value, MultiIndex):
        levels = [elements(each) for each in list.__iter__(held["_levels"])]
        codes = [object_list(each) for each in list.__iter__(held["_codes"])]
        pairs = zip(levels, codes, strict=True)
        rows = [[level[code] if code >= 0 else None for code in column] for level, column in pairs]
        return [*zip(*rows, strict=True)]
    if is_a(value, Index):
        return elements(held["_data"])
    if is_a(value, Categorical):
        dtype = dtype_of_backed(value)
        if not is_a(dtype, CategoricalDtype):
            raise TypeError
        categories = elements((state(dtype) or {})["_categories"])
        return [categories[code] if code >= 0 else None for code in object_list(backing_of(value))]
    if ChunkedArray is not None and type(held.get("_pa_array")) is ChunkedArray:
        return ["nan" if each is None else each for each in arrow_list(held["_pa_array"])]
    if is_a(value, NDArrayBacked):
        return list(object_list(backing_of(value)))
    if is_a(value, BaseMaskedArray):
        pairs = zip(object_list(held["_data"]), object_list(held["_mask"]), strict=True)
        return [None if missing else pair for pair, missing in pairs]
    if is_a(value, ndarray):
        return list(object_list(value))
    raise TypeError


def flat(nested: list[Any], depth: int) -> list[Any]:
    """Return the elements of a nested list of so many dimensions."""
    for _ in range(depth - 1):
        nested = [each for row in nested for each in row]
    return nested if depth else [nested]


def scalar(value: Any) -> dict[str, Any]:
    """Return the form of a number, a text or None."""
    found = real(value)
    if found is None or not isfinite(found) or abs(found) > SAFE:
        word = text(value)
        return other("an unsupported kind of scalar") if word is None else {"t": "text", "v": word}
    return {"t": "number", "v": found}


def real(value: Any) -> float | int | None:
    """Return a number as a plain one; None for what is none."""
    if type(value) is str or value is None:
        return None
    if exactly(value, int, float, bool):
        return value if type(value) is float or abs(value) <= SAFE else None
    if is_a(value, number) or type(value) is numpy_bool:
        found = item_of(value) if not flags_of(type(value)) & HEAP_TYPE else None
        return real(found) if exactly(found, int, float, bool) else None
    if is_a(value, int) and not is_a(value, generic):
        return int.__add__(value, 0)
    return float.__add__(value, 0.0) if is_a(value, float) and not is_a(value, generic) else None


def text(value: Any) -> str | None:
    """Return a text that stands for a scalar, by C code alone; None for other kinds of value."""
    kind = type(value)
    if value is None or value is NA or value is NaT:
        return "None" if value is None else "<NA>" if value is NA else "NaT"
    if is_a(value, str):
        return str.__add__(value, "")
    if exactly(value, int, bool, float, complex, bytes, Decimal):
        return str(value) if kind is not int or abs(value) < 1 << 2000 else hex(value)
    if is_a(value, generic):
        return text(item_of(value)) if not flags_of(kind) & HEAP_TYPE else None
    if is_a(value, _Timestamp) or kind is moment:
        year, month, day, hour, minute, second, micro = (read(value) for read in clock_fields)
        more = f" {nanoseconds(value)}" if is_a(value, _Timestamp) else ""
        return f"{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micro:06}{more}"
    if kind is date:
        return date.isoformat(value)
    if is_a(value, _Timedelta):
        return f"{duration(value)} of its unit"
    if kind is timedelta:
        return f"{whole_days(value)} days {whole_seconds(value)}.{whole_micros(value):06} s"
    for base, elements_in in ((tuple, tuple.__iter__), (list, list.__iter__), (dict, dict.items)):
        if is_a(value, base):
            inside = [text(each) for each in elements_in(value)]
            return None if None in inside else plain_json(inside)
    if is_a(value, set) or is_a(value, frozenset):
        inside = [text(each) for each in (set if is_a(value, set) else frozenset).__iter__(value)]
        return None if None in inside else plain_json(sorted(each or "" for each in inside))
    return repr(real(value)) if real(value) is not None else None


numpy_array, numpy_bool = numpy.array, numpy.bool_
clock_fields: list[Callable[[Any], Any]] = [
    vars(date)["year"].__get__, vars(date)["month"].__get__, vars(date)["day"].__get__, vars(moment)["hour"].__get__,
    vars(moment)["minute"].__get__, vars(moment)["second"].__get__, vars(moment)["microsecond"].__get__,
]  # fmt: skip
whole_days, whole_seconds = vars(timedelta)["days"].__get__, vars(timedelta)["seconds"].__get__
whole_micros = vars(timedelta)["microseconds"].__get__


def watched() -> list[tuple[str, tuple[Any, ...], str, Any, Any]]:
    """Return what a notebook has no reason to replace: label, namespaces, name, object, and its code where it is a function.

    A name is looked up in the namespaces in turn: those of a class and of its bases, or the one of a module.
    """
    modules: list[ModuleType] = [builtins, time, datetime, random, json, numpy, numpy.random, numpy.linalg, pandas]
    places: list[tuple[str, tuple[Any, ...]]] = [
        *((module.__name__, (vars(module),)) for module in modules),
        *(
            (f"pandas.{kind.__name__}", tuple(namespace_of(base) for base in mro_of(kind)))
            for kind in (DataFrame, Series, Index)
        ),
    ]
    clock = (moment, date, timedelta)
    rows = []
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


def look_up(namespaces: tuple[Any, ...], name: str) -> Any:
    """Return what a name stands for in the first namespace that has it."""
    for namespace in namespaces:
        if name in namespace:
            return namespace[name]
    return MISSING


def replaced(rows: list[tuple[str, tuple[Any, ...], str, Any, Any]]) -> list[str]:
    """Return the labels of what is no longer what it was before the first cell."""
    changed = []
    for label, namespaces, name, value, code in rows:
        if look_up(namespaces, name) is not value or (code is not None and code_of(value) is not code):
            changed.append(label)
    return changed
