"""Count names that do not say what they hold, public classes that are defined twice, and uses of `Any`. As a script it prints them."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "d2c_mlops"
# Names that say what was done to a thing, or that it is one of many, instead of what it is.
VAGUE = frozenset(
    [
        "asked",
        "done",
        "each",
        "found",
        "given",
        "got",
        "heard",
        "held",
        "here",
        "kept",
        "known",
        "left",
        "made",
        "more",
        "named",
        "one",
        "other",
        "own",
        "put",
        "rest",
        "said",
        "seen",
        "taken",
        "thing",
        "told",
        "wanted",
    ]
)
DICT_CHANGES = frozenset({"update", "setdefault", "pop", "popitem", "clear", "__setitem__", "__delitem__"})
# Modules that keep the namespaces of executed cells, which are dictionaries of modules.
NAMESPACES = frozenset({"convert/run/model_probe.py"})
MOST = 10  # vague names that the package has: a change may only lower it
TYPED = "convert"  # the room in which `Any` is counted
MOST_ANY = 9  # of them, where values of unknown classes are read from memory: a change may only lower it


def modules() -> Iterator[tuple[Path, ast.Module]]:
    """Yield the modules of the package that are written by hand or exported, as syntax trees."""
    for file in sorted(PACKAGE.rglob("*.py")):
        if file.name != "_modidx.py":
            yield file, ast.parse(file.read_text(encoding="utf-8"))


def bound(tree: ast.AST) -> Iterator[str]:
    """Yield the local names and the arguments that the functions of a module bind, once for each function and name."""
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            names = set()
            for node in ast.walk(function):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    names.add(node.id)
                elif isinstance(node, ast.arg):
                    names.add(node.arg)
            yield from names


def vague() -> Counter[str]:
    """Return how often each vague name is bound in the package."""
    return Counter(name for _, tree in modules() for name in bound(tree) if name in VAGUE)


def any_lines(tree: ast.AST) -> Iterator[int]:
    """Yield the line of each use of the type `Any`; the word in a text of generated code is none."""
    for node in ast.walk(tree):
        if (isinstance(node, ast.Name) and node.id == "Any") or (
            isinstance(node, ast.Attribute) and node.attr == "Any"
        ):
            yield node.lineno


def untyped() -> Counter[str]:
    """Return how often each module of the room TYPED uses the type `Any`."""
    return Counter(
        file.relative_to(PACKAGE).as_posix()
        for file, tree in modules()
        if file.is_relative_to(PACKAGE / TYPED)
        for _ in any_lines(tree)
    )


def classes_defined_twice() -> dict[str, list[str]]:
    """Return the public classes of the package that more than one module defines, with these modules."""
    places: dict[str, list[str]] = {}
    for file, tree in modules():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(file.relative_to(PACKAGE).as_posix())
    return {name: found for name, found in sorted(places.items()) if len(found) > 1}


def changed_from_outside(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that write an object's attributes past its class: by vars(), __dict__ or object.__setattr__.

    A frozen dataclass can be changed like that, and no type checker sees it.
    """

    def is_dictionary(node: ast.AST) -> bool:
        if isinstance(node, ast.Call):
            return isinstance(node.func, ast.Name) and node.func.id == "vars" and bool(node.args)
        if isinstance(node, ast.Attribute):
            return node.attr == "__dict__"
        return isinstance(node, ast.Name) and node.id in dictionaries

    dictionaries: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and is_dictionary(node.value):
            dictionaries |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.NamedExpr) and is_dictionary(node.value):
            dictionaries.add(node.target.id)
    for node in ast.walk(tree):
        if (isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load) and is_dictionary(node.value)) or (
            isinstance(node, ast.AugAssign) and is_dictionary(node.target)
        ):
            yield node.lineno
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            method, owner = node.func.attr, node.func.value
            if (method in DICT_CHANGES and is_dictionary(owner)) or (
                method in ("__setattr__", "__delattr__") and isinstance(owner, ast.Name) and owner.id == "object"
            ):
                yield node.lineno


def main() -> None:
    """Print what was counted."""
    counts = vague()
    print(
        f"vague names: {sum(counts.values())} ({', '.join(f'{name} {count}' for name, count in counts.most_common())})"
    )
    places_of_any = untyped()
    print(
        f"Any in {TYPED}: {sum(places_of_any.values())} ({', '.join(f'{file} {n}' for file, n in places_of_any.items())})"
    )
    for name, places in classes_defined_twice().items():
        print(f"class {name}: {', '.join(places)}")


if __name__ == "__main__":
    main()
