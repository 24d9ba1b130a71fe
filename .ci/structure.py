"""Measure the structure of a checkout from its imports: files in the largest folder, import circles, modules that a promotion reaches.

`python .ci/structure.py [CHECKOUT]` prints the figures, of this checkout when none is given.
"""

from __future__ import annotations

import ast
import sys
from collections import Counter
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
NAME = "d2c_mlops"
MOST_FILES = 20  # in a folder
MOST_REACHED = 15  # modules that act (registry, serving, runs) behind `d2c promote`
# Imported only where somebody has installed it, with a message that says so where it is missing.
OPTIONAL = frozenset({"opentelemetry"})
ACTING = ("registry", "serving", "runs", "decisions", "operations", "convert")


def graph(root: Path = ROOT) -> grimp.ImportGraph:
    """Return the imports among the modules of a checkout, those inside functions included, those for types alone left out."""
    sys.path.insert(0, str(root))
    return grimp.build_graph(NAME, exclude_type_checking_imports=True, cache_dir=None)


def circles(imports: grimp.ImportGraph) -> list[list[str]]:
    """Return the groups of modules that import each other, directly or through others (Tarjan, 1972)."""
    number: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(module: str) -> None:
        number[module] = lowest[module] = len(number)
        stack.append(module)
        for target in imports.find_modules_directly_imported_by(module):
            if target not in number:
                visit(target)
                lowest[module] = min(lowest[module], lowest[target])
            elif target in stack:
                lowest[module] = min(lowest[module], number[target])
        if lowest[module] == number[module]:
            group = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(group) > 1:
                groups.append(sorted(group))

    sys.setrecursionlimit(10_000)
    for module in sorted(imports.modules):
        if module not in number:
            visit(module)
    return groups


def largest_folders(root: Path = ROOT) -> list[tuple[str, int]]:
    """Return the folders of the package with the number of modules in each, the largest first."""
    files = [file for file in (root / NAME).rglob("*.py") if "versions" not in file.parts]
    return Counter(file.parent.relative_to(root).as_posix() for file in files).most_common()


def promotion_module(root: Path = ROOT) -> str:
    """Return the module from which the command `d2c promote` takes what it calls."""
    tree = ast.parse((root / NAME / "cli/models.py").read_text(encoding="utf-8"))
    command = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "promote")
    found = [
        node.module or ""
        for node in ast.walk(command)
        if isinstance(node, ast.ImportFrom) and any(alias.name == "promote" for alias in node.names)
    ]
    module = found[0]
    return module if module.startswith(NAME) else f"{NAME}.{module}"


def reached(imports: grimp.ImportGraph, start: str) -> set[str]:
    """Return the modules that a module imports, directly or through others, itself included."""
    return {start, *imports.find_upstream_modules(start)}


def acting(modules: set[str]) -> list[str]:
    """Return the modules of the rooms that do something at run time; packages' own files are left out."""
    rooms = tuple(f"{NAME}.{room}." for room in ACTING)
    packages = {module.rpartition(".")[0] for module in modules}
    return sorted(module for module in modules if module.startswith(rooms) and module not in packages)


def foreign_imports(root: Path = ROOT) -> dict[str, str]:
    """Return the top-level packages of others that the package imports, each with a file that does."""
    found: dict[str, str] = {}
    for file in sorted((root / NAME).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            for top in {module.partition(".")[0] for module in modules} - sys.stdlib_module_names - {NAME}:
                found.setdefault(top, file.relative_to(root).as_posix())
    return found


def main() -> None:
    """Print the figures of a checkout."""
    root = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT
    imports = graph(root)
    groups, folders = circles(imports), largest_folders(root)
    behind = acting(reached(imports, promotion_module(root)))
    print(f"modules: {len(imports.modules)}")
    print(
        f"files in the largest folder: {folders[0][1]} ({', '.join(f'{place} {count}' for place, count in folders[:5])})"
    )
    print(f"import circles: {len(groups)}")
    for group in groups:
        print(f"  {', '.join(group)}")
    print(f"modules behind `d2c promote` in {', '.join(ACTING)}: {len(behind)}")
    for module in behind:
        print(f"  {module}")


if __name__ == "__main__":
    main()
