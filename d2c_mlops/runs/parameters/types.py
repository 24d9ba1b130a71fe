"""Types of notebook parameters: derived from annotations and defaults; conversion of texts and values."""

from __future__ import annotations

import ast
import datetime as dt
import json
import types
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union, get_args, get_origin

from pydantic import BeforeValidator, TypeAdapter

NULLS = ("None", "null")  # texts that mean None for a parameter that may be None
MODULES = frozenset(["typing", "t", "datetime", "dt", "pathlib", "decimal"])  # prefixes that add nothing to a name
CONTAINERS = (list, dict, tuple, set, frozenset)


def _parse_time(value: Any) -> Any:
    return dt.datetime.fromisoformat(value.strip()) if isinstance(value, str) else _refuse_number(value)


def _parse_day(value: Any) -> Any:
    if not isinstance(value, str):
        return _refuse_number(value)
    try:
        return dt.date.fromisoformat(value.strip())
    except ValueError:
        moment = dt.datetime.fromisoformat(value.strip())
    if moment.time() != dt.time():
        raise ValueError("a date has no time of day")
    return moment.date()


def _refuse_number(value: Any) -> Any:
    """Return the value. Raises ValueError for a number, which pydantic would take as seconds since 1970."""
    if isinstance(value, int | float):
        raise ValueError("write a date as 2026-10-31")
    return value


def _refuse_bool(value: Any) -> Any:
    """Return the value. Raises ValueError for True and False, which Python takes as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError(f"{value} is not a number")
    return value


Date = Annotated[dt.date, BeforeValidator(_parse_day)]
Datetime = Annotated[dt.datetime, BeforeValidator(_parse_time)]
Integer = Annotated[int, BeforeValidator(_refuse_bool)]
Float = Annotated[float, BeforeValidator(_refuse_bool)]

# The names that an annotation may use. A class beyond them is called with the text, in the kernel.
NAMES: dict[str, Any] = {
    "str": str, "int": Integer, "float": Float, "bool": bool, "None": None,
    "list": list, "dict": dict, "tuple": tuple, "set": set, "frozenset": frozenset,
    "List": list, "Dict": dict, "Tuple": tuple, "Set": set, "FrozenSet": frozenset, "Sequence": list, "Mapping": dict,
    "Iterable": list, "Collection": list, "MutableSequence": list, "MutableMapping": dict, "bytes": bytes, "complex": complex,
    "date": Date, "datetime": Datetime, "time": dt.time, "timedelta": dt.timedelta, "Path": Path, "Decimal": Decimal,
    "Literal": Literal, "Optional": Optional, "Union": Union, "Any": Any,
}  # fmt: skip


UNKNOWN = object()  # the value of a default that only the notebook can tell
CALLS = {"date": dt.date, "datetime": dt.datetime, "time": dt.time, "timedelta": dt.timedelta, "Path": Path,
         "Decimal": Decimal, "float": float, "int": int, "str": str}  # fmt: skip


@dataclass(frozen=True)
class InKernel:
    """A class that is defined only in the notebook; `members` are the names of an enumeration's members."""

    name: str
    members: tuple[str, ...] = ()
    optional: bool = False


@dataclass(frozen=True)
class Constructed:
    """A value that the kernel constructs from a text: `pd.Timestamp('2026-10-31')`, `Mode['FAST']`."""

    name: str
    text: str
    member: bool = False

    def source(self, text: str) -> str:
        """Return Python source of the value; `text` is the source of its text."""
        return f"{self.name}[{text}]" if self.member else f"{self.name}({text})"


def kind_of(annotation: ast.expr, enums: Mapping[str, tuple[str, ...]]) -> Any:
    """Return the type of an annotation: a type, an InKernel, or None if it cannot be parsed."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            return kind_of(ast.parse(annotation.value, mode="eval").body, enums)
        except SyntaxError:
            return None
    plain = _without_modules(annotation)
    if isinstance(plain, ast.Subscript) and ast.unparse(plain.value) in ("Annotated", "Final", "ClassVar"):
        first = plain.slice.elts[0] if isinstance(plain.slice, ast.Tuple) else plain.slice
        return kind_of(first, enums)
    if isinstance(plain, ast.Name) and plain.id in enums:
        return InKernel(plain.id, enums[plain.id])
    if isinstance(plain, ast.Name | ast.Attribute) and not (isinstance(plain, ast.Name) and plain.id in NAMES):
        return InKernel(ast.unparse(plain)) if _is_class_name(plain) else None
    if (only := _optional_type(plain)) and isinstance(kind := kind_of(only, enums), InKernel):
        return replace(kind, optional=True)
    allowed = (ast.Name, ast.Subscript, ast.Tuple, ast.Constant, ast.BinOp, ast.BitOr, ast.Load, ast.UnaryOp, ast.USub)
    nodes = list(ast.walk(plain))
    is_known = all(isinstance(node, allowed) for node in nodes)
    if not is_known or any(isinstance(node, ast.Name) and node.id not in NAMES for node in nodes):
        return None
    # Only names of NAMES, constants, subscripts and `|` are left, so the result can only be a type.
    expression = ast.fix_missing_locations(ast.Expression(plain))
    try:
        return eval(compile(expression, "<annotation>", "eval"), {"__builtins__": {}}, NAMES)  # noqa: S307
    except TypeError:
        return None


def _optional_type(annotation: ast.expr) -> ast.expr | None:
    """Return X of `X | None`, `None | X` and `Optional[X]`; None for other annotations."""
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Optional":
        return annotation.slice
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        arms = [arm for arm in (annotation.left, annotation.right) if ast.unparse(arm) != "None"]
        return arms[0] if len(arms) == 1 else None
    return None


def default_kind(value: ast.expr, enums: Mapping[str, tuple[str, ...]]) -> tuple[Any, str]:
    """Return the type of a default without an annotation, and its name for messages; None and "any" if unknown."""
    try:
        literal = ast.literal_eval(value)
    except (ValueError, TypeError):
        return _constructor_kind(value, enums)
    name = type(literal).__name__
    return (None, "any") if literal is None else (NAMES.get(name), name)


def _constructor_kind(value: ast.expr, enums: Mapping[str, tuple[str, ...]]) -> tuple[Any, str]:
    """Return the type of defaults such as float("inf"), date(2026, 1, 1), date.today(), np.nan, Mode.FAST."""
    if isinstance(value, ast.UnaryOp):
        return _constructor_kind(value.operand, enums)
    if isinstance(value, ast.Attribute) and value.attr in ("nan", "inf", "NaN", "Inf"):
        return Float, "float"
    if isinstance(value, ast.Attribute) and isinstance(value.value, ast.Name) and value.value.id in enums:
        return InKernel(value.value.id, enums[value.value.id]), value.value.id
    if not isinstance(value, ast.Call):
        return None, "any"
    called = _without_modules(value.func)
    for candidate in (called, getattr(called, "value", None)):  # date(…), then date.today()
        if isinstance(candidate, ast.Name) and candidate.id in NAMES:
            return NAMES[candidate.id], candidate.id
    if isinstance(called, ast.Name | ast.Attribute) and _is_class_name(called):
        return InKernel(ast.unparse(called)), ast.unparse(called)
    return None, "any"


def literal_value(source: str) -> Any:
    """Return the value of a default such as 3, ["a"], -1.5, date(2026, 1, 31), Path("x"), float("nan"); else UNKNOWN."""
    try:
        node = ast.parse(source, mode="eval").body
        if not isinstance(node, ast.Call):
            return ast.literal_eval(node)
        called = _without_modules(node.func)
        arguments = [ast.literal_eval(argument) for argument in node.args]
        keywords = {word.arg: ast.literal_eval(word.value) for word in node.keywords if word.arg}
        return CALLS[ast.unparse(called)](*arguments, **keywords)
    except (ValueError, TypeError, SyntaxError, KeyError, ArithmeticError):
        return UNKNOWN


def members_of_enums(tree: ast.Module) -> dict[str, tuple[str, ...]]:
    """Return the members of the enumerations that a cell defines."""
    members = {}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith(("Enum", "Flag")) for base in node.bases):
            targets = [t for part in node.body if isinstance(part, ast.Assign) for t in part.targets]
            members[node.name] = tuple(t.id for t in targets if isinstance(t, ast.Name))
    return members


def convert_value(kind: Any, value: Any) -> Any:
    """Return `value` converted to a type. Raises ValueError (such as pydantic's ValidationError) if that is not possible."""
    if kind is None or kind is Any:
        return None if isinstance(value, str) and value == "None" else value
    if isinstance(kind, InKernel):
        return _in_kernel(kind, value)
    if isinstance(value, str):
        if value in NULLS and _may_be_none(kind):
            return None
        if (earlier := _before_text(kind)) is not None:
            try:
                return _type_adapter(earlier).validate_python(value)
            except ValueError:  # pydantic's ValidationError is one
                pass
        value = _parse_structure(value) if _only_containers(kind) else _literal_choice(kind, value)
    strict = kind is bool and not isinstance(value, str)
    return _type_adapter(kind).validate_python(value, strict=strict)


def _in_kernel(kind: InKernel, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if kind.optional and value in NULLS:
        return None
    if kind.members and value in kind.members:
        return Constructed(kind.name, value, member=True)
    return Constructed(kind.name, value)


def _parse_structure(text: str) -> Any:
    """Parse a text as JSON, else as a Python literal. Raises ValueError."""
    try:
        return json.loads(text)
    except ValueError:
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError):
            raise ValueError('write it as JSON, such as ["a", "b"] or {"a": 1}') from None


def _literal_choice(kind: Any, text: str) -> Any:
    """Return the choice of a Literal for a text: 1 for "1", True for "True"."""
    choices = [choice for arm in _union_members(kind) if get_origin(arm) is Literal for choice in get_args(arm)]
    if text in choices:
        return text
    written = [choice for choice in choices if str(choice) == text or (choice is None and text in NULLS)]
    return written[0] if written else text


def _before_text(kind: Any) -> Any:
    """Return the types that a union lists before str, which are tried first; None if there are none."""
    arms = [arm for arm in _union_members(kind) if arm is not type(None)]
    place = arms.index(str) if str in arms else 0
    candidates = [arm for arm in arms[:place] if (get_origin(arm) or arm) not in CONTAINERS]
    return Union[tuple(candidates)] if candidates else None  # noqa: UP007


def _union_members(kind: Any) -> tuple[Any, ...]:
    return get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)


def _may_be_none(kind: Any) -> bool:
    return any(arm is type(None) or arm is None for arm in _union_members(kind))


def _only_containers(kind: Any) -> bool:
    arms = [arm for arm in _union_members(kind) if arm is not type(None)]
    return bool(arms) and all((get_origin(arm) or arm) in CONTAINERS for arm in arms)


def _is_class_name(node: ast.expr) -> bool:
    """Return whether a name looks like a class name by Python's convention: `pd.Timestamp`, `np.float64`, `Mode`."""
    parts = ast.unparse(node).split(".")
    simple = all(part.isidentifier() for part in parts)
    return simple and (parts[-1][:1].isupper() or (parts[0] in ("np", "numpy") and parts[-1][-1:].isdigit()))


class _WithoutModules(ast.NodeTransformer):
    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        is_known = isinstance(node.value, ast.Name) and node.value.id in MODULES and node.attr in {*NAMES, "Annotated"}
        return ast.copy_location(ast.Name(node.attr, ast.Load()), node) if is_known else node


def _without_modules(annotation: ast.expr) -> ast.expr:
    """Return an annotation without `typing.`, `dt.` and similar prefixes."""
    plain: ast.expr = _WithoutModules().visit(ast.parse(ast.unparse(annotation), mode="eval").body)
    return plain


@cache
def _type_adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
