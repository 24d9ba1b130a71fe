"""Read a notebook's parameters cell and check what is passed against it, before any kernel starts."""

from __future__ import annotations

import ast
import datetime as dt
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Optional, Union

from pydantic import TypeAdapter, ValidationError

from ..errors import Failure, UsageError
from . import secrets

TAG = "parameters"
# The names that an annotation may use; anything else leaves the parameter untyped.
NAMES: dict[str, Any] = {
    "str": str, "int": int, "float": float, "bool": bool, "list": list, "dict": dict, "tuple": tuple, "None": None,
    "date": dt.date, "datetime": dt.datetime, "Path": Path, "Literal": Literal, "Optional": Optional, "Union": Union,
}  # fmt: skip


@dataclass(frozen=True)
class Parameter:
    """One parameter of a notebook: its name, its type as written, its default as written."""

    name: str
    annotation: str
    default: str
    kind: Any = None

    def read(self, value: Any) -> Any:
        """Return `value` as this parameter's type. Raises ValueError when it is not one."""
        if self.kind is None:
            return value
        if isinstance(value, str) and _wants_json(self.annotation):
            value = json.loads(value)
        strict = self.annotation == "bool" and not isinstance(value, str)
        return TypeAdapter(self.kind).validate_python(value, strict=strict)


def load_notebook(path: Path) -> dict[str, Any]:
    """Return a notebook as it is on disk. Raises UsageError when it is none."""
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


def parameters_of(notebook: Mapping[str, Any], where: str = "") -> list[Parameter]:
    """Return the parameters that the cell tagged `parameters` declares; an empty list when there is no such cell."""
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
    return [found for node in tree.body if (found := _parameter(node))]


def check(
    parameters: Sequence[Parameter],  # what the notebook declares
    given: Mapping[str, Any],  # what is passed, texts from a command line included
    where: str = "",  # the notebook, for messages
) -> dict[str, Any]:
    """Return `given` with every value in its parameter's type. Raises UsageError with all that is wrong."""
    known = {parameter.name: parameter for parameter in parameters}
    failures, values = [], {}
    for name, value in given.items():
        if name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            failures.append(Failure(f"is not a parameter of this notebook{hint}", name))
            continue
        try:
            values[name] = known[name].read(value)
        except (ValidationError, ValueError) as err:
            reason = err.errors()[0]["msg"] if isinstance(err, ValidationError) else str(err)
            failures.append(Failure(f"{value!r} is not of type {known[name].annotation} ({reason})", name))
    if failures:
        listed = ", ".join(f"{p.name}: {p.annotation} = {p.default}" for p in parameters)
        hint = f"it takes {listed}" if listed else f"tag a cell with {TAG!r} to give the notebook parameters"
        raise UsageError("the parameters do not fit the notebook", where=where, failures=failures, next=hint)
    return values


def to_json(value: Any) -> Any:
    """Return a parameter's value as JSON values, for the ledger."""
    return TypeAdapter(Any).dump_python(value, mode="json")


def to_source(value: Any) -> str:
    """Return Python source that makes `value` again; dates and paths too, which papermill would turn into text."""
    if isinstance(value, dt.datetime):
        return f'__import__("datetime").datetime.fromisoformat({value.isoformat()!r})'
    if isinstance(value, dt.date):
        return f'__import__("datetime").date.fromisoformat({value.isoformat()!r})'
    if isinstance(value, Path):
        return f'__import__("pathlib").Path({str(value)!r})'
    if isinstance(value, float) and not math.isfinite(value):
        return f"float({str(value)!r})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{to_source(k)}: {to_source(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(to_source, value)) + "]"
    if isinstance(value, tuple):
        return "(" + "".join(f"{to_source(v)}, " for v in value) + ")"
    if isinstance(value, str) and (lookup := secrets.source(value)):
        return lookup
    return repr(value)


def _parameter(node: ast.stmt) -> Parameter | None:
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        written = ast.unparse(node.annotation)
        default = ast.unparse(node.value) if node.value else ""
        return Parameter(node.target.id, written, default, _kind(written))
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        default = ast.unparse(node.value)
        try:
            kind: Any = type(ast.literal_eval(node.value))
        except ValueError:
            return Parameter(node.targets[0].id, "any", default)
        if kind is type(None):
            return Parameter(node.targets[0].id, "any", default)
        return Parameter(node.targets[0].id, kind.__name__, default, kind)
    return None


def _kind(annotation: str) -> Any:
    """Return the type that an annotation names; None when it uses names beyond NAMES."""
    tree = ast.parse(annotation.replace("datetime.date", "date").replace("datetime.datetime", "datetime"), mode="eval")
    allowed = (ast.Expression, ast.Name, ast.Subscript, ast.Tuple, ast.Constant, ast.BinOp, ast.BitOr, ast.Load)
    nodes = list(ast.walk(tree))
    plain = all(isinstance(node, allowed) for node in nodes)
    if not plain or any(isinstance(node, ast.Name) and node.id not in NAMES for node in nodes):
        return None
    # Only names of NAMES, subscripts and `|` are left, so nothing but types can come of it.
    return eval(compile(tree, "<annotation>", "eval"), {"__builtins__": {}}, NAMES)  # noqa: S307


def _wants_json(annotation: str) -> bool:
    return annotation.startswith(("list", "dict", "tuple"))
