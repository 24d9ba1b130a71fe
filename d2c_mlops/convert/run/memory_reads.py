"""Read single values from memory, without calling Python code of the notebook or its libraries."""

# All private names of pandas are used here; tested with pandas >=3.0,<3.2, to which settings.ini bounds it.
# The child executes this source before the first cell in a namespace with builtins of its own, which no module, class or frame
# of the notebook refers to. Hence the rules here: import names, not modules; define no class; read a foreign object only
# through its exact type, its instance dictionary and descriptors that are written in C.

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, timedelta
from datetime import datetime as moment
from decimal import Decimal
from json.encoder import c_make_encoder, encode_basestring_ascii  # type: ignore[attr-defined]
from math import isfinite
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType
from typing import TYPE_CHECKING

import numpy
from numpy import generic, ndarray, number
from pandas import NA, Categorical, CategoricalDtype, Index, MultiIndex, NaT, RangeIndex
from pandas._libs.arrays import NDArrayBacked as NDArrayBacked
from pandas._libs.internals import Block, BlockPlacement  # type: ignore[import-not-found]
from pandas._libs.internals import BlockManager as BlockManager
from pandas._libs.tslibs.timedeltas import _Timedelta  # type: ignore[attr-defined]
from pandas._libs.tslibs.timestamps import _Timestamp  # type: ignore[attr-defined]
from pandas.core.arrays import BaseMaskedArray
from pandas.core.internals.managers import SingleBlockManager as SingleBlockManager  # type: ignore[import-not-found]

if TYPE_CHECKING:
    from typing import Any

    from d2c_mlops.convert.run.session import Form

try:
    from pyarrow import ChunkedArray

    arrow_list = vars(ChunkedArray)["to_pylist"]
except ImportError:
    ChunkedArray = arrow_list = None

SAFE = 2**53  # integers beyond it are not exact in a float
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


def refuse_encoding(value: object) -> object:
    """Replace the encoder's default: its input is always plain."""
    raise TypeError


encode = c_make_encoder(None, refuse_encoding, encode_basestring_ascii, None, ":", ",", False, False, True)


def plain_json(value: Mapping[str, object] | list[str | None] | list[str]) -> str:
    """Return JSON of dicts, lists, texts and numbers, written by C code alone."""
    return "".join(encode(value, 0))


def has_exact_class(value: object, *kinds: type) -> bool:
    """Return whether a value is of one of these classes; `in` would ask a foreign metaclass whether they are equal."""
    kind = type(value)
    return any(kind is candidate for candidate in kinds)


def is_real_instance(value: object, kind: type) -> bool:
    """Return whether a value's real class is `kind` or a subclass; `__class__` and `__instancecheck__` are ignored."""
    return any(base is kind for base in mro_of(type(value)))


def instance_dictionary(value: object) -> dict[str, Any] | None:
    """Return a copy of the instance dictionary; None if there is none, or a class hides it."""
    for kind in mro_of(type(value)):
        descriptor = namespace_of(kind).get("__dict__")
        if descriptor is not None:
            if type(descriptor) is not GetSetDescriptorType:
                return None
            attributes = descriptor.__get__(value)
            return {key: element for key, element in dict.items(attributes) if type(key) is str}
    return None


def class_defines(value: object, name: str) -> bool:
    """Return whether a class of the value defines a name."""
    return any(name in namespace_of(kind) for kind in mro_of(type(value)))


def module_of(value: object) -> str:
    """Return the declared module of a value's class."""
    declared = declared_in(type(value))
    return declared if type(declared) is str else ""


def read_c_attribute(value: object, name: str) -> object:
    """Read an attribute of a class written in C; MISSING if there is no such attribute."""
    for kind in mro_of(type(value)):
        descriptor = namespace_of(kind).get(name)
        if descriptor is not None:
            genuine = has_exact_class(descriptor, GetSetDescriptorType, MemberDescriptorType)
            return descriptor.__get__(value) if genuine and not flags_of(kind) & HEAP_TYPE else MISSING
    return MISSING


numpy_array, numpy_bool = numpy.array, numpy.bool_
clock_fields: list[Callable[[date], int]] = [
    vars(date)["year"].__get__, vars(date)["month"].__get__, vars(date)["day"].__get__, vars(moment)["hour"].__get__,
    vars(moment)["minute"].__get__, vars(moment)["second"].__get__, vars(moment)["microsecond"].__get__,
]  # fmt: skip
whole_days, whole_seconds = vars(timedelta)["days"].__get__, vars(timedelta)["seconds"].__get__
whole_micros = vars(timedelta)["microseconds"].__get__


def uncompared_form(why: str) -> Form:
    """Return the form of a value that is not compared."""
    return {"t": "other", "why": why}


def index_length(value: object) -> int:
    """Return the length of an index."""
    attributes = instance_dictionary(value) or {}
    return len(attributes["_range"]) if is_real_instance(value, RangeIndex) else len(elements_in_memory(value))


def elements_in_memory(value: Any) -> list[object]:
    """Return the elements of an index or of an extension array, read from memory; raises TypeError for other kinds."""
    attributes = instance_dictionary(value) or {}
    if is_real_instance(value, RangeIndex):
        return list(attributes["_range"]) if type(attributes["_range"]) is range else []
    if is_real_instance(value, MultiIndex):
        levels = [elements_in_memory(level) for level in list.__iter__(attributes["_levels"])]
        codes = [object_list(codes_of_level) for codes_of_level in list.__iter__(attributes["_codes"])]
        pairs = zip(levels, codes, strict=True)
        rows = [[level[code] if code >= 0 else None for code in column] for level, column in pairs]
        return [*zip(*rows, strict=True)]
    if is_real_instance(value, Index):
        return elements_in_memory(attributes["_data"])
    if is_real_instance(value, Categorical):
        dtype = dtype_of_backed(value)
        if not is_real_instance(dtype, CategoricalDtype):
            raise TypeError
        categories = elements_in_memory((instance_dictionary(dtype) or {})["_categories"])
        return [categories[code] if code >= 0 else None for code in object_list(backing_of(value))]
    if ChunkedArray is not None and type(attributes.get("_pa_array")) is ChunkedArray:
        return ["nan" if element is None else element for element in arrow_list(attributes["_pa_array"])]
    if is_real_instance(value, NDArrayBacked):
        return list(object_list(backing_of(value)))
    if is_real_instance(value, BaseMaskedArray):
        pairs = zip(object_list(attributes["_data"]), object_list(attributes["_mask"]), strict=True)
        return [None if missing else pair for pair, missing in pairs]
    if is_real_instance(value, ndarray):
        return list(object_list(value))
    raise TypeError


def flatten_nested_list(nested: list[Any], depth: int) -> list[object]:
    """Return the elements of a nested list of so many dimensions."""
    for _ in range(depth - 1):
        nested = [element for row in nested for element in row]
    return nested if depth else [nested]


def scalar_form(value: object) -> Form:
    """Return the form of a number, a text or None."""
    plain_number = number_as_plain(value)
    if plain_number is None or not isfinite(plain_number) or abs(plain_number) > SAFE:
        word = scalar_text(value)
        return uncompared_form("an unsupported kind of scalar") if word is None else {"t": "text", "v": word}
    return {"t": "number", "v": plain_number}


def number_as_plain(value: Any) -> float | int | None:
    """Return a number as a plain Python number; None for other values."""
    if type(value) is str or value is None:
        return None
    if has_exact_class(value, int, float, bool):
        return value if type(value) is float or abs(value) <= SAFE else None
    if is_real_instance(value, number) or type(value) is numpy_bool:
        plain_value = item_of(value) if not flags_of(type(value)) & HEAP_TYPE else None
        return number_as_plain(plain_value) if has_exact_class(plain_value, int, float, bool) else None
    if is_real_instance(value, int) and not is_real_instance(value, generic):
        return int.__add__(value, 0)
    return (
        float.__add__(value, 0.0) if is_real_instance(value, float) and not is_real_instance(value, generic) else None
    )


def scalar_text(value: Any) -> str | None:
    """Return a text that represents a scalar, with C code only; None for other values."""
    kind = type(value)
    if value is None or value is NA or value is NaT:
        return "None" if value is None else "<NA>" if value is NA else "NaT"
    if is_real_instance(value, str):
        return str.__add__(value, "")
    if has_exact_class(value, int, bool, float, complex, bytes, Decimal):
        return str(value) if kind is not int or abs(value) < 1 << 2000 else hex(value)
    if is_real_instance(value, generic):
        return scalar_text(item_of(value)) if not flags_of(kind) & HEAP_TYPE else None
    if is_real_instance(value, _Timestamp) or kind is moment:
        year, month, day, hour, minute, second, micro = (read(value) for read in clock_fields)
        fraction = f" {nanoseconds(value)}" if is_real_instance(value, _Timestamp) else ""
        return f"{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{micro:06}{fraction}"
    if kind is date:
        return date.isoformat(value)
    if is_real_instance(value, _Timedelta):
        return f"{duration(value)} of its unit"
    if kind is timedelta:
        return f"{whole_days(value)} days {whole_seconds(value)}.{whole_micros(value):06} s"
    for base, elements_in in ((tuple, tuple.__iter__), (list, list.__iter__), (dict, dict.items)):
        if is_real_instance(value, base):
            inside = [scalar_text(element) for element in elements_in(value)]
            return None if None in inside else plain_json(inside)
    if is_real_instance(value, set) or is_real_instance(value, frozenset):
        inside = [
            scalar_text(element) for element in (set if is_real_instance(value, set) else frozenset).__iter__(value)
        ]
        return None if None in inside else plain_json(sorted(string or "" for string in inside))
    return repr(number_as_plain(value)) if number_as_plain(value) is not None else None
