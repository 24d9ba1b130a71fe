"""The measures of the house find what they are there to find."""

import ast
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from d2c_mlops.serving.package.bento import code_files

ROOT = Path(__file__).resolve().parents[1]


def script(name: str) -> ModuleType:
    """Return a script of .ci as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f".ci/{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Imports:
    """An import graph from a dictionary, with the two questions that are asked of grimp's."""

    def __init__(self, edges: dict[str, list[str]]) -> None:
        self.edges = edges
        self.modules = set(edges)

    def find_modules_directly_imported_by(self, module: str) -> list[str]:
        return self.edges[module]


def test_modules_that_import_each_other_are_found_directly_and_through_others() -> None:
    circles = script("structure").circles
    assert circles(Imports({"a": ["b"], "b": ["c"], "c": []})) == []
    assert circles(Imports({"a": ["b"], "b": ["a"], "c": ["a"]})) == [["a", "b"]]
    assert circles(Imports({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["e"], "e": ["d"]})) == [
        ["a", "b", "c"],
        ["d", "e"],
    ]


def test_the_type_any_is_counted_where_it_is_used_and_not_where_code_is_written_as_text() -> None:
    source = 'from typing import Any\nx: dict[str, Any]\ndef f(a: Any) -> "list[int]":\n    return "def g(b: Any): ..."\ny: typing.Any\n'
    assert sorted(script("names").any_lines(ast.parse(source))) == [2, 3, 5]


def test_vague_names_are_counted_once_a_function_and_attributes_are_not() -> None:
    import ast

    bound = script("names").bound
    tree = ast.parse(
        "def f(found, *each):\n    for one in found:\n        self.kept = one\n    found = 1\n    return [row for row in each]\n"
    )
    assert sorted(bound(tree)) == ["each", "found", "one", "row"]


@pytest.mark.parametrize(
    "line",
    [
        "vars(pair)['mask'] = None",
        "vars(pair)['count'] += 1",
        "vars(a)['x'], vars(b)['x'] = 1, 2",
        "vars(pair).update(counted=False)",
        "vars(pair).pop('estimates', None)",
        "del vars(pair)['mask']",
        "pair.__dict__['mask'] = None",
        "pair.__dict__.setdefault('mask', None)",
        "pair.__dict__ |= {'mask': None}",
        "object.__setattr__(pair, 'mask', None)",
        "values = vars(pair)\nvalues['mask'] = None",
    ],
)
def test_attributes_that_are_written_past_their_class_are_found(line: str) -> None:
    import ast

    assert len(list(script("names").changed_from_outside(ast.parse(line)))) >= 1


@pytest.mark.parametrize(
    "line", ["rows = dict(vars(pair))", "vars(pair)['mask']", "vars()['x'] = 1", "pair.mask = None", "row.update(a=1)"]
)
def test_attributes_that_are_read_or_set_in_the_open_are_left_alone(line: str) -> None:
    import ast

    assert not list(script("names").changed_from_outside(ast.parse(line)))


def test_every_module_that_the_service_imports_enters_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])
    imports = script("structure").graph()
    needed = imports.find_upstream_modules("d2c_mlops.serving.app.service") | {"d2c_mlops.serving.app.service"}
    places = {place.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for place in code_files()}
    lazily = {"d2c_mlops.verbs"}  # of the package's own __getattr__; a service calls none
    assert not needed - places - lazily
    assert {"d2c_mlops.former_names", "d2c_mlops.serving.http.messages"} <= places
    assert not any(
        place.startswith(("d2c_mlops.cli", "d2c_mlops.convert", "d2c_mlops.serving.package")) for place in places
    )
