"""Read a notebook's parameters cell and check what is passed against it, before any kernel starts."""

from __future__ import annotations

import ast
import datetime as dt
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from d2c_mlops.errors import Failure, UsageError, did_you_mean
from d2c_mlops.runs.parameters.types import (
    UNKNOWN,
    Constructed,
    convert_value,
    default_kind,
    kind_of,
    literal_value,
    members_of_enums,
)
from d2c_mlops.runs.secrets import secrets

TAG = "parameters"
OTHER_TYPE = re.compile(r"-?\d+(\.\d*)?([eE]-?\d+)?|true|false|True|False|null|nan|-?inf|[\[{].*|\d{4}-\d\d-\d\d.*")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook: its name, its type as written, its default as written."""

    name: str
    annotation: str
    default: str
    kind: Any = None  # the type; the name of a class that only the kernel knows; None when it has no type

    def read(self, value: Any) -> Any:
        """Return `value` converted to this parameter's type. Raises ValueError if that is not possible."""
        return convert_value(self.kind, value)


def load_notebook(path: Path) -> dict[str, Any]:
    """Read a notebook file. Raises UsageError if it is not a notebook."""
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError("there is no such notebook", where=str(path), next="check the path") from None
    except (OSError, ValueError) as err:
        raise UsageError(f"this is not a notebook: {err}", where=str(path)) from None
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise UsageError(
            "this is not a notebook of format 4", where=str(path), next="open it in JupyterLab and save it again"
        )
    return notebook


def declared_parameters(notebook: Mapping[str, Any], where: str = "") -> list[Parameter]:
    """Return the parameters declared in the cell tagged `parameters`; an empty list if there is no such cell."""
    cells = [c for c in notebook["cells"] if TAG in c.get("metadata", {}).get("tags", [])]
    if len(cells) > 1:
        raise UsageError(
            f"{len(cells)} cells are tagged {TAG!r}; papermill reads only the first",
            where=where,
            next="keep the tag on one cell",
        )
    if not cells:
        return []
    source = cells[0]["source"]
    try:
        tree = ast.parse(source if isinstance(source, str) else "".join(source))
    except SyntaxError as err:
        raise UsageError(f"the parameters cell is not Python: {err}", where=where) from None
    enums = members_of_enums(tree)
    return [parameter for node in tree.body for parameter in _statement_parameters(node, enums)]


def check_values(
    parameters: Sequence[Parameter],  # what the notebook declares
    texts: Mapping[str, Any],  # what is passed, texts from a command line included
    where: str = "",  # the notebook, for messages
) -> dict[str, Any]:
    """Return the values converted to their parameters' types. Raises UsageError with all failures."""
    declared = {parameter.name: parameter for parameter in parameters}
    failures, values = [], {}
    for name, value in texts.items():
        if name not in declared:
            hint = did_you_mean(name, declared, cutoff=0.5)
            failures.append(Failure(f"is not a parameter of this notebook{hint}", name))
            continue
        try:
            values[name] = declared[name].read(value)
        except (ValidationError, ValueError) as err:
            reason = err.errors()[0]["msg"] if isinstance(err, ValidationError) else str(err)
            failures.append(Failure(f"{value!r} is not of type {declared[name].annotation} ({reason})", name))
        except UsageError as err:
            failures.append(Failure(err.what, name))
    if failures:
        listed = ", ".join(f"{p.name}: {p.annotation} = {p.default}" for p in parameters)
        hint = f"the parameters are {listed}" if listed else f"tag a cell with {TAG!r} to define parameters"
        raise UsageError("the parameters do not match the notebook", where=where, failures=failures, next=hint)
    return values


def default_text(parameter: Parameter) -> str:
    """Return a parameter's default as text that can be passed back; empty if only the notebook can evaluate it."""
    value = literal_value(parameter.default)
    if value is UNKNOWN:
        return ""
    if isinstance(value, list | tuple | dict | set):
        return json.dumps(to_json(value), ensure_ascii=False)
    return str(to_json(value))


def default_model(parameters: Sequence[Parameter]) -> str | None:
    """Return the default of the parameter `model`; None if there is none or it is not a text."""
    value = literal_value(next((parameter.default for parameter in parameters if parameter.name == "model"), "None"))
    return value[:64] if isinstance(value, str) and value else None


def untyped_notes(parameters: Sequence[Parameter], values: Mapping[str, Any]) -> list[str]:
    """Return a note for each text that looks like another type but is passed to a parameter of unknown type."""
    notes = []
    for parameter in parameters:
        text = values.get(parameter.name)
        if parameter.kind is None and isinstance(text, str) and OTHER_TYPE.fullmatch(text):
            notes.append(
                f"the type of parameter {parameter.name} is unknown, so {text!r} is passed as text; "
                f"annotate it in the parameters cell, e.g. {parameter.name}: int | None = None"
            )
    return notes


def to_json(value: Any) -> Any:
    """Return a parameter's value as valid JSON values for the ledger: NaN and infinities become text."""
    if isinstance(value, Constructed):
        return value.text
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Enum):
        return to_json(value.value)
    if isinstance(value, Mapping):
        return {str(to_json(key)): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, set | frozenset):
        return [to_json(item) for item in sorted(value, key=repr)]
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return TypeAdapter(Any).dump_python(value, mode="json")


def to_source(value: Any) -> str:
    """Return Python source of `value`, also for types that papermill would turn into text.

    Raises UsageError for a value that cannot be written as source.
    """
    if isinstance(value, Constructed):
        return value.source(to_source(value.text))
    if isinstance(value, Enum):
        return to_source(value.value)
    for kind, write in SOURCES.items():
        if isinstance(value, kind):
            return write(value)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{to_source(k)}: {to_source(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(to_source, value)) + "]"
    if isinstance(value, tuple):
        return "(" + "".join(f"{to_source(v)}, " for v in value) + ")"
    if isinstance(value, set | frozenset):
        return f"{type(value).__name__}([" + ", ".join(map(to_source, sorted(value, key=repr))) + "])"
    if value is None or isinstance(value, bool | int | bytes | complex):
        return repr(value)
    if hasattr(value, "item"):  # a scalar of NumPy
        return to_source(value.item())
    raise UsageError(f"a value of type {type(value).__name__} cannot be passed to a notebook",
                     next="pass texts, numbers, dates, paths, lists or dicts")  # fmt: skip


def _float_source(value: float) -> str:
    return repr(float(value)) if math.isfinite(value) else f"float({str(float(value))!r})"


def _duration_source(value: dt.timedelta) -> str:
    return f'__import__("datetime").timedelta({value.days}, {value.seconds}, {value.microseconds})'


SOURCES: dict[type, Callable[[Any], str]] = {
    dt.datetime: lambda value: f'__import__("datetime").datetime.fromisoformat({value.isoformat()!r})',
    dt.date: lambda value: f'__import__("datetime").date.fromisoformat({value.isoformat()!r})',
    dt.time: lambda value: f'__import__("datetime").time.fromisoformat({value.isoformat()!r})',
    dt.timedelta: _duration_source,
    Path: lambda value: f'__import__("pathlib").Path({str(value)!r})',
    Decimal: lambda value: f'__import__("decimal").Decimal({str(value)!r})',
    float: _float_source,
    str: lambda value: secrets.resolving_source(value) or repr(str(value)),
}


def _statement_parameters(node: ast.stmt, enums: Mapping[str, tuple[str, ...]]) -> list[Parameter]:
    """Return the parameters that a statement declares."""
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        written = ast.unparse(node.annotation)
        default = ast.unparse(node.value) if node.value else ""
        return [Parameter(node.target.id, written, default, kind_of(node.annotation, enums))]
    if isinstance(node, ast.Assign):
        default = ast.unparse(node.value)
        kind, name = default_kind(node.value, enums)
        return [Parameter(target.id, name, default, kind) for target in node.targets if isinstance(target, ast.Name)]
    return []
