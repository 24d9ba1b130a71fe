"""Write the results of a notebook as forms and arrays in the child process, read from memory alone."""

# The child executes this source after that of `memory_reads`, in the same namespace. See there for the rules and for the
# versions of pandas whose private names are used.

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import date, timedelta
from datetime import datetime as moment
from decimal import Decimal
from typing import TYPE_CHECKING

from numpy import generic, ndarray
from pandas import Categorical, DataFrame, Index, MultiIndex, RangeIndex, Series
from pandas.core.arrays import BaseMaskedArray, IntervalArray

if TYPE_CHECKING:
    from typing import Any

    from d2c_mlops.convert.run.session import ArrayLine, Form

try:
    from pyarrow import ChunkedArray
except ImportError:
    ChunkedArray = None

if "." in __name__:  # imported, not executed in the child's namespace, which has these names already
    from d2c_mlops.convert.run.memory_reads import (
        HEAP_TYPE,
        BlockManager,
        NDArrayBacked,
        SingleBlockManager,
        axes_of,
        backing_of,
        blocks_of,
        class_defines,
        dtype_of,
        dtype_of_backed,
        elements_in_memory,
        flags_of,
        flatten_nested_list,
        has_exact_class,
        index_length,
        instance_dictionary,
        is_real_instance,
        kind_of_dtype,
        module_of,
        name_of,
        number_as_plain,
        numbers_of,
        numpy_array,
        object_bytes,
        object_list,
        places_of,
        plain_json,
        read_c_attribute,
        scalar_form,
        scalar_text,
        shape_of,
        text_of_dtype,
        uncompared_form,
        values_of,
    )

DEEPEST = 6
LONGEST = 20_000  # elements of a list or dict that are looked at
COLLECTIONS: tuple[tuple[type, Callable[[Any], Iterable[object]]], ...] = (
    (dict, dict.items),
    (list, list.__iter__),
    (tuple, tuple.__iter__),
    (set, set.__iter__),
    (frozenset, frozenset.__iter__),
)
IN_MEMORY = (
    "its trees are stored inside its library; its predictions are compared where the notebook assigns them to a name"
)


def capture_values(values: Mapping[str, object]) -> tuple[dict[str, Form], list[ArrayLine], list[bytes]]:
    """Return the form of each named value, a line (dtype, shape, bytes) for each array, and the arrays' bytes.

    The kind of a form is `t`; kind `uncompared_form` is not compared. Arrays of texts have the dtype 'text' and are a JSON list.
    """
    lines: list[ArrayLine] = []
    parts: list[bytes] = []

    def array_bytes_form(dtype: str, shape: list[int], data: bytes) -> Form:
        lines.append((dtype, shape, len(data)))
        parts.append(data)
        return {"t": "array", "key": len(lines) - 1}

    def texts(strings: list[str], shape: list[int] | None = None) -> Form:
        return array_bytes_form("text", [len(strings)] if shape is None else shape, plain_json(strings).encode("ascii"))

    def form_or_other(read: Callable[..., Form], *args: object) -> Form:
        try:
            return read(*args)
        except (Exception, RecursionError):
            return uncompared_form("a value whose memory layout is not supported")

    def form_within_depth(value: object, depth: int) -> Form:
        return form_or_other(form_of, value, depth)

    def form_of(value: object, depth: int) -> Form:
        kind = type(value)
        if value is None or has_exact_class(value, bool, int, float, str) or is_real_instance(value, generic):
            return scalar_form(value)
        if is_real_instance(value, ndarray):
            return array(value)
        if is_real_instance(value, DataFrame):
            return frame(value)
        if is_real_instance(value, Series):
            manager = (instance_dictionary(value) or {})["_mgr"]
            attributes = instance_dictionary(manager) if is_real_instance(manager, SingleBlockManager) else None
            if attributes is None:
                return uncompared_form("an unsupported kind of Series")
            values = column(values_of(attributes["blocks"][0]))
            if values["t"] == "other":
                return values
            return {"t": "series", "names": ["values", "index"], "parts": [values, index(attributes["axes"][0])]}
        if is_real_instance(value, Index):
            return {"t": "series", "parts": [index(value)]}
        if (
            is_real_instance(value, moment)
            or is_real_instance(value, date)
            or is_real_instance(value, timedelta)
            or kind is Decimal
        ):
            return {"t": "text", "v": scalar_text(value)}
        if depth >= DEEPEST:
            return uncompared_form("nested too deeply")
        for base, read in COLLECTIONS:
            if is_real_instance(value, base):
                return collection_form(base, list(read(value)), depth)
        if is_real_instance(value, int) or is_real_instance(value, float) or is_real_instance(value, str):
            return scalar_form(value)
        column_form = column(value)
        return estimator_form(value, depth) if column_form["t"] == "other" else column_form

    def collection_form(base: type, elements: list[Any], depth: int) -> Form:
        if len(elements) > LONGEST:
            return uncompared_form("too long")
        if base is dict:
            names = [scalar_text(key) for key, _ in elements]
            if any(name is None for name in names):
                return uncompared_form("a dict with unsupported keys")
            return {
                "t": "dict",
                "names": names,
                "parts": [form_within_depth(element, depth + 1) for _, element in elements],
            }
        if base in (list, tuple):
            return {"t": "list", "parts": [form_within_depth(item, depth + 1) for item in elements]}
        strings = [scalar_text(element) for element in elements]
        return (
            uncompared_form("a set with unsupported values")
            if None in strings
            else texts(sorted(string or "" for string in strings))
        )

    def frame(value: object) -> Form:
        manager = (instance_dictionary(value) or {})["_mgr"]
        if not is_real_instance(manager, BlockManager):
            return uncompared_form("an unsupported kind of DataFrame")
        columns, rows = axes_of(manager)
        parts: list[Form] = [uncompared_form("")] * index_length(columns)
        for block in blocks_of(manager):
            block_values, places = values_of(block), object_list(numbers_of(places_of(block)))
            if (
                type(block_values) is not ndarray
                and is_real_instance(block_values, NDArrayBacked)
                and not is_real_instance(block_values, Categorical)
            ):
                block_values = backing_of(block_values)
            many = type(block_values) is ndarray and len(shape_of(block_values)) == 2
            for row, place in enumerate(places):
                parts[place] = array(block_values[row]) if many else form_or_other(column, block_values)
        if parts and all(part["t"] == "other" for part in parts):
            return uncompared_form("a DataFrame with unsupported objects")
        names = [scalar_text(element) for element in elements_in_memory(columns)]
        whole = [name if name is not None else "?" for name in names]
        return {"t": "frame", "names": [*whole, "index"], "parts": [*parts, form_or_other(index, rows)]}

    def index(value: object) -> Form:
        attributes = instance_dictionary(value) or {}
        if is_real_instance(value, RangeIndex):
            return {"t": "text", "v": repr(attributes["_range"]) if type(attributes["_range"]) is range else ""}
        if is_real_instance(value, MultiIndex):
            levels = [index(level) for level in list.__iter__(attributes["_levels"])]
            return {
                "t": "list",
                "parts": [*levels, *(array(codes_of_level) for codes_of_level in list.__iter__(attributes["_codes"]))],
            }
        return column(attributes["_data"])

    def index_or_column_form(value: object) -> Form:
        return index(value) if is_real_instance(value, Index) else column(value)

    def column(value: object) -> Form:
        """The form of a column's array, numpy's or an extension of pandas."""
        if is_real_instance(value, ndarray):
            return array(value)
        attributes = instance_dictionary(value) or {}
        if is_real_instance(value, Categorical):
            categories = (instance_dictionary(dtype_of_backed(value)) or {})["_categories"]
            if is_real_instance((instance_dictionary(categories) or {}).get("_data"), IntervalArray):
                return {"t": "list", "parts": [array(backing_of(value)), index(categories)]}
            return element_list_form(elements_in_memory(value))
        if ChunkedArray is not None and type(attributes.get("_pa_array")) is ChunkedArray:
            return element_list_form(elements_in_memory(value))
        if is_real_instance(value, NDArrayBacked):
            return array(backing_of(value))
        if is_real_instance(value, BaseMaskedArray):
            return {"t": "list", "parts": [array(attributes["_data"]), array(attributes["_mask"])]}
        if is_real_instance(value, IntervalArray):
            return {
                "t": "list",
                "parts": [index_or_column_form(attributes["_left"]), index_or_column_form(attributes["_right"])],
            }
        return uncompared_form("an unsupported kind of array")

    def array(value: Any) -> Form:
        dtype, shape = dtype_of(value), [*shape_of(value)]
        kind = kind_of_dtype(dtype)
        if kind in "biufcmM":
            return array_bytes_form(text_of_dtype(dtype), shape, object_bytes(value))
        elements_found: list[object] = (
            object_list(value) if len(shape) == 1 else flatten_nested_list(object_list(value), len(shape))
        )
        return element_list_form(elements_found, shape) if kind in "OSUT" else uncompared_form("an array of records")

    def element_list_form(elements_found: list[object], shape: list[int] | None = None) -> Form:
        numbers = []
        for element in elements_found:
            if (plain := number_as_plain(element)) is None:
                break
            numbers.append(plain)
        if elements_found and len(numbers) == len(elements_found):
            data = object_bytes(numpy_array(numbers, "float64"))
            return array_bytes_form("<f8", [len(elements_found)] if shape is None else shape, data)
        words = [element if type(element) is str else scalar_text(element) for element in elements_found]
        return (
            uncompared_form("an array of unsupported objects")
            if None in words
            else texts([word or "" for word in words], shape)
        )

    def estimator_form(value: object, depth: int) -> Form:
        if is_real_instance(value, type):
            return uncompared_form("a class")
        attributes, module = instance_dictionary(value), module_of(value)
        if module.startswith(("lightgbm.", "xgboost.", "catboost.")) or module == "_catboost":
            return uncompared_form(IN_MEMORY)  # what its attributes hold (fitted: yes) would prove nothing
        if module == "sklearn.tree._tree" and not flags_of(type(value)) & HEAP_TYPE:
            names = ["feature", "threshold", "children_left", "value"]
            return attribute_forms(value, {name: read_c_attribute(value, name) for name in names}, depth)
        if attributes is None:
            return uncompared_form(f"a {name_of(type(value))}")
        if module.startswith("statsmodels.") and "_results" in attributes:
            attributes = instance_dictionary(attributes["_results"]) or {}
            return attribute_forms(value, {"params": attributes["params"]} if "params" in attributes else {}, depth)
        if module.startswith(("prophet.", "fbprophet.")):
            return attribute_forms(value, {"params": attributes.get("params")}, depth)
        if module.startswith("scipy.sparse"):
            names = ["data", "indices", "indptr", "row", "col", "coords", "offsets"]
            return attribute_forms(value, {name: attributes[name] for name in names if name in attributes}, depth)
        if module == "__main__":
            return attribute_forms(value, {name: attributes[name] for name in sorted(attributes)}, depth)
        if not class_defines(value, "get_params"):
            return uncompared_form(f"a {name_of(type(value))}")
        names = sorted(n for n in attributes if n.endswith("_") and not n.startswith("_") and not n.endswith("__"))
        return attribute_forms(value, {name: attributes[name] for name in names}, depth)

    def attribute_forms(value: object, attributes: Mapping[str, object], depth: int) -> Form:
        inside = [form_within_depth(attribute, depth + 1) for attribute in attributes.values()]
        return {"t": "fitted", "class": name_of(type(value)), "names": [*attributes], "parts": inside}

    return {name: form_within_depth(value, 0) for name, value in values.items()}, lines, parts
