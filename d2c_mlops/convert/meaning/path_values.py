"""Infer the file path of an expression: joined parts, parents, names of other paths."""

from __future__ import annotations

import ast
import os
from pathlib import Path

_SAME = frozenset(
    {"str", "Path", "PurePath", "PosixPath", "abspath", "realpath", "expanduser", "normpath", "fspath", "r_"}
)
_SAME_METHODS = frozenset({"resolve", "absolute", "as_posix", "expanduser", "__fspath__"})


class Values:
    """The paths of names, statement by statement; `folder` is the folder in which the notebook runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: dict[str, str] = {}

    def record_assignment(self, node: ast.stmt) -> None:
        """Record the path that an assignment binds; a name that is bound to another value is removed."""
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            node = ast.Assign([node.target], node.value)
        if not isinstance(node, ast.Assign):
            return
        for target, value_node in ((target, node.value) for target in node.targets):
            if isinstance(target, ast.Tuple) and isinstance(value_node, ast.Tuple):
                for part, part_value in zip(target.elts, value_node.elts, strict=False):
                    self.record_assignment(ast.Assign([part], part_value))
            if isinstance(target, ast.Name):
                value = self.constant_path(value_node)
                if value is None:
                    self.names.pop(target.id, None)
                else:
                    self.names[target.id] = value

    def constant_path(self, node: ast.expr) -> str | None:
        """Return the path, relative if it is written as relative; None if it cannot be inferred."""
        if isinstance(node, ast.Constant):
            return node.value if isinstance(node.value, str) else None
        if isinstance(node, ast.Name):
            return self.names.get(node.id)
        if isinstance(node, ast.JoinedStr):
            return self._joined_path(node)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Div):
            left_value, right = self.constant_path(node.left), self.constant_path(node.right)
            if left_value is None or right is None:
                return None
            return left_value + right if isinstance(node.op, ast.Add) else os.path.join(left_value, right)  # noqa: PTH118 - as written
        if isinstance(node, ast.Attribute):
            return self._attribute_path(node)
        return self._call_path(node) if isinstance(node, ast.Call) else None

    def _joined_path(self, node: ast.JoinedStr) -> str | None:
        parts = [
            self.constant_path(value.value if isinstance(value, ast.FormattedValue) else value) for value in node.values
        ]
        return None if any(part is None for part in parts) else "".join(part for part in parts if part is not None)

    def _attribute_path(self, node: ast.Attribute) -> str | None:
        if ast.unparse(node) in ("os.pardir", "os.path.pardir"):
            return ".."
        if ast.unparse(node) in ("os.curdir", "os.path.curdir"):
            return "."
        if ast.unparse(node) in ("os.sep", "os.path.sep"):
            return "/"
        value = self.constant_path(node.value)
        if node.attr == "parent" and value is not None:
            return str((self.folder / value).parent) if value in (".", "..", "") else str(Path(value).parent)
        return None

    def _call_path(self, node: ast.Call) -> str | None:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        text = ast.unparse(node.func)
        if text in ("os.getcwd", "Path.cwd", "pathlib.Path.cwd"):
            return str(self.folder)
        values = [self.constant_path(argument) for argument in node.args]
        if any(value is None for value in values):
            return None
        parts = [value for value in values if value is not None]
        if name in ("join", "joinpath") and not text.startswith("'"):
            owner = (
                self.constant_path(node.func.value)
                if name == "joinpath" and isinstance(node.func, ast.Attribute)
                else ""
            )
            return None if owner is None else os.path.join(owner, *parts) if parts else owner  # noqa: PTH118
        if name in ("Path", "PurePath", "PosixPath"):
            return os.path.join(*parts) if parts else "."  # noqa: PTH118 - as written
        if name == "dirname" and parts:
            return os.path.dirname(parts[0])  # noqa: PTH120 - as written
        if name in _SAME and len(parts) == 1:
            return parts[0]
        if name in _SAME_METHODS and isinstance(node.func, ast.Attribute):
            return self.constant_path(node.func.value)
        return None
