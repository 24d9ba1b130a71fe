"""Every module that a service or a model imports is packaged with it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import d2c_mlops
from d2c_mlops.serving.package.bento import PARTS

PACKAGE = Path(d2c_mlops.__file__).parent


def packaged(parts: tuple[str, ...] = PARTS) -> set[Path]:
    """Return the modules that a Bento brings along."""
    files = [path for part in parts for path in PACKAGE.glob(part)]
    return {file for path in files for file in (path.rglob("*.py") if path.is_dir() else [path])}


def imported(file: Path) -> Iterator[str]:
    """Yield the modules below d2c_mlops that a module imports at its top, in ifs and trys too, but not for types alone."""
    waiting: list[ast.AST] = list(ast.parse(file.read_text(encoding="utf-8")).body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            waiting += node.orelse
            continue
        if isinstance(node, ast.ImportFrom):
            home = file.relative_to(PACKAGE.parent).parts[: -node.level] if node.level else ()
            base = ".".join((*home, *([node.module] if node.module else ())))
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        waiting += ast.iter_child_nodes(node)


def file_of(name: str) -> Path | None:
    """Return the file of a module or package; None for a name inside a module."""
    path = PACKAGE.parent / name.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def absent(parts: tuple[str, ...] = PARTS) -> set[str]:
    """Return the modules that a service and the models import, one through the other, and that are not packaged."""
    files = packaged(parts)
    rooms = ("serving/app", "models", "data/sources", "data/layouts")  # converted models read files too
    waiting = [file for room in rooms for file in (PACKAGE / room).rglob("*.py")] + [
        PACKAGE / "data/ingestion/reading.py"
    ]
    reached = set(waiting)
    while waiting:
        for name in imported(waiting.pop()):
            file = file_of(name) if name.startswith("d2c_mlops") else None
            if file is not None and file not in reached:
                reached.add(file)
                waiting.append(file)
    return {str(file.relative_to(PACKAGE)) for file in reached - files}


def test_no_module_is_left_out() -> None:
    assert absent() == set()


@pytest.mark.parametrize("part", ["parallel.py", "memory_limit.py", "settings", "serving/predict"])
def test_a_part_that_is_left_out_is_found(part: str) -> None:
    assert absent(tuple(name for name in PARTS if name != part))
