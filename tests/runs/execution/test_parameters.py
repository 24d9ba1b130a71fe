import ast
import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from d2c_mlops.errors import UsageError
from d2c_mlops.runs.parameters.parameters import check_values, declared_parameters, to_json, to_source


def notebook(source: str, tags: tuple[str, ...] = ("parameters",)) -> dict[str, Any]:
    return {"cells": [{"cell_type": "code", "metadata": {"tags": list(tags)}, "source": source}]}


def read(source: str, **values: Any) -> dict[str, Any]:
    return check_values(declared_parameters(notebook(source)), values)


def test_text_is_read_in_the_type_of_the_annotation() -> None:
    source = "sku: str = ''\nn: int = 1\nday: date = None\nrate: float = 1\nflag: bool = False\n"
    source += "out: Path = None\nkeys: list[str] = []"
    read_ = read(source, sku="007", n="7", day="2024-02-29", rate="0.5", flag="true", out="a/b", keys='["x", "y"]')
    assert read_ == {
        "sku": "007", "n": 7, "day": dt.date(2024, 2, 29), "rate": 0.5, "flag": True, "out": Path("a/b"),
        "keys": ["x", "y"],
    }  # fmt: skip


def test_a_parameter_without_annotation_has_the_type_of_its_default() -> None:
    assert read("n = 3\nwhat = None", n="4", what="x") == {"n": 4, "what": "x"}


def test_an_optional_parameter_takes_its_type() -> None:
    assert read("day: date | None = None", day="2024-01-02") == {"day": dt.date(2024, 1, 2)}


def test_everything_wrong_is_told_at_once() -> None:
    with pytest.raises(UsageError) as caught:
        read("horizon: int = 1\nday: date = None", horizn="3", horizon="x", day="2024-13-01")
    text = str(caught.value)
    assert "did you mean 'horizon'?" in text and "'x' is not of type int" in text and "not of type date" in text


def test_a_notebook_without_parameters_takes_none() -> None:
    with pytest.raises(UsageError, match="do not match"):
        check_values(declared_parameters(notebook("n = 1", tags=())), {"n": "2"})


def test_an_annotation_cannot_run_code() -> None:
    (found,) = declared_parameters(notebook("n: __import__('os').system('false') = 1"))
    assert found.kind is None and found.read("x") == "x"


def test_two_tagged_cells_are_refused() -> None:
    twice = {"cells": notebook("n = 1")["cells"] * 2}
    with pytest.raises(UsageError, match="2 cells are tagged"):
        declared_parameters(twice)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.dates() | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)


@given(values)
def test_source_makes_the_same_value_again(value: Any) -> None:
    ast.parse(to_source(value))
    assert eval(to_source(value)) == value


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        ("int | str", "5", 5), ("int | str", "five", "five"), ("Union[float, str]", "0.5", 0.5), ("date | str", "2026-10-31", dt.date(2026, 10, 31)),
        ("date | str", "today", "today"), ("int | str | None", "7", 7), ("int | str | None", "None", None), ("str | int", "5", "5"),
        ("Literal[1, 2] | str", "2", 2), ("bytes", "grün", "grün".encode()), ("complex", "1+2j", 1 + 2j), ("Iterable[str]", '["a"]', ["a"]),
        ("Collection[int]", "[1]", [1]), ("MutableMapping[str, int]", '{"a": 1}', {"a": 1}), ("FrozenSet[int]", "[1, 1]", frozenset([1])),
    ],
)  # fmt: skip
def test_a_text_becomes_the_first_type_that_it_is(annotation: str, text: str, value: Any) -> None:
    found = read(f"x: {annotation} = None", x=text)["x"]
    assert found == value and type(found) is type(value)
    assert eval(to_source(found)) == value


@pytest.mark.parametrize(
    ("annotation", "text"), [("complex", "x"), ("Iterable[int]", '["a"]'), ("Collection[str]", "x")]
)
def test_a_text_of_another_type_is_refused(annotation: str, text: str) -> None:
    with pytest.raises(UsageError, match="is not of type"):
        read(f"x: {annotation} = None", x=text)


def test_bytes_that_are_no_text_are_on_record_all_the_same() -> None:
    assert to_json({"a": b"gr\xff", "b": [b"x"], "c": 1 + 2j}) == {"a": "gr\\xff", "b": ["x"], "c": "1+2j"}
