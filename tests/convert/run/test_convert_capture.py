"""What a snapshot holds of the values that notebooks have: all that can be read from memory, and no more is claimed."""

from __future__ import annotations

import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from d2c_mlops.convert.run.memory_reads import plain_json
from d2c_mlops.convert.run.result_capture import IN_MEMORY, capture_values
from d2c_mlops.convert.verify.verify import ComparedName, Snapshot, _build_verdict, _compared_name
from d2c_mlops.convert.write.notebook_document import CellSource
from d2c_mlops.convert.write.write_conversion import run_model_probe


def read(value: Any) -> Snapshot:
    forms, lines, parts = capture_values({"x": value})
    return Snapshot.read(
        b"".join([plain_json({"forms": forms, "arrays": lines, "replaced": []}).encode(), b"\n", *parts])
    )


def forest(rows: int) -> RandomForestClassifier:
    return RandomForestClassifier(2, random_state=0).fit(np.arange(rows)[:, None], np.arange(rows) % 2)


days = pd.to_datetime(["2024-01-01", "2024-02-01", "2024-03-01"])
# A value, the same again, and another that differs from it in one place.
VALUES: dict[str, tuple[Any, Any, Any]] = {
    "texts": (pd.Series(["a", None]), pd.Series(["a", None]), pd.Series(["a", "b"])),
    "objects": (np.array(["a", 1, None], object), np.array(["a", 1, None], object), np.array(["a", 2, None], object)),
    "token lists": (pd.Series([["a"], ["b", "c"]]), pd.Series([["a"], ["b", "c"]]), pd.Series([["a"], ["b", "d"]])),
    "categories": (pd.Categorical(["u", None]), pd.Categorical(["u", None]), pd.Categorical(["v", None])),
    "bins": (pd.cut(pd.Series([1, 9]), [0, 5, 10]), pd.cut(pd.Series([1, 9]), [0, 5, 10]), pd.cut(pd.Series([1, 2]), [0, 5, 10])),
    "bin edges": (pd.cut(pd.Series([1, 9]), [0, 5, 10]), pd.cut(pd.Series([1, 9]), [0, 5, 10]), pd.cut(pd.Series([1, 9]), [0, 6, 10])),
    "days": (days, days + pd.Timedelta(0), days + pd.Timedelta("1h")),
    "zones": (days.tz_localize("UTC"), days.tz_localize("UTC"), days.tz_localize("Europe/Berlin")),
    "periods": (days.to_period("M"), days.to_period("M"), (days + pd.Timedelta("40D")).to_period("M")),
    "nullable": (pd.array([1, None], dtype="Int64"), pd.array([1, None], dtype="Int64"), pd.array([1, 2], dtype="Int64")),
    "levels": (pd.Series(1, index=pd.MultiIndex.from_product([[1, 2], list("ab")])), pd.Series(1, index=pd.MultiIndex.from_product([[1, 2], list("ab")])),
               pd.Series(1, index=pd.MultiIndex.from_product([[1, 3], list("ab")]))),
    "mixed table": (pd.DataFrame({"a": [1.0], "b": ["x"], "c": days[:1], "d": [True]}), pd.DataFrame({"a": [1.0], "b": ["x"], "c": days[:1], "d": [True]}),
                    pd.DataFrame({"a": [1.0], "b": ["x"], "c": days[1:2], "d": [True]})),
    "sparse": (sparse.csr_matrix([[0, 1], [2, 0]]), sparse.csr_matrix([[0, 1], [2, 0]]), sparse.csr_matrix([[1, 0], [2, 0]])),
    "nested": ({"a": [1, (2.5, "x")]}, {"a": [1, (2.5, "x")]}, {"a": [1, (2.5, "y")]}),
    "sets": ({1, "a"}, {"a", 1}, {1, "b"}),
    "timestamp": (days[0], pd.Timestamp("2024-01-01"), days[1]),
    "date": (datetime.date(2024, 1, 1), datetime.date(2024, 1, 1), datetime.date(2024, 1, 2)),
    "decimal": (Decimal("1.10"), Decimal("1.10"), Decimal("1.11")),
    "duration": (datetime.timedelta(1), datetime.timedelta(1), datetime.timedelta(1, 1)),
    "numpy scalar": (np.float32(1.5), 1.5, np.float32(2.5)),
    "large integers": (2**80, 2**80, 2**80 + 1),
    "not finite": (float("inf"), float("inf"), float("-inf")),
    "forest": (forest(20), forest(20), forest(21)),
    "vocabulary": (CountVectorizer().fit(["a few words"]), CountVectorizer().fit(["a few words"]), CountVectorizer().fit(["a few others"])),
    "list of models": ([StandardScaler().fit([[1.0], [2.0]])], [StandardScaler().fit([[1.0], [2.0]])], [StandardScaler().fit([[1.0], [3.0]])]),
}  # fmt: skip


@pytest.mark.parametrize("name", VALUES)
def test_the_same_is_equal_and_another_differs(name: str) -> None:
    value, again, another = (read(each) for each in VALUES[name])
    assert _compared_name("x", 1, [value], again).status == "equal"
    assert _compared_name("x", 1, [value], another).status == "differs"


def test_a_column_that_cannot_be_read_leaves_the_others_compared() -> None:
    class Thing:
        pass

    left, right = (read(pd.DataFrame({"a": [1, n], "b": [Thing(), Thing()]})) for n in (2, 3))
    assert left.forms["x"]["parts"][1]["t"] == "other"
    assert _compared_name("x", 1, [left], right).status == "differs"


@pytest.mark.parametrize(
    "value", [object(), lambda: 1, make_pipeline, (each for each in "ab"), int, np, pd.Series([object()])]
)
def test_what_cannot_be_read_is_not_called_equal(value: Any) -> None:
    assert _compared_name("x", 1, [read(value)], read(value)).status == "not compared"


def test_no_python_code_of_a_value_is_called() -> None:
    called = []

    class Meta(type):
        def __instancecheck__(cls, value: object) -> bool:
            called.append("instancecheck")
            return True

        def __eq__(cls, value: object) -> bool:
            called.append("eq of a class")
            return True

        __hash__ = type.__hash__

    class Loud(metaclass=Meta):
        def __getattribute__(self, name: str) -> Any:
            called.append(name)
            return object.__getattribute__(self, name)

        def __repr__(self) -> str:
            called.append("repr")
            return ""

        def __len__(self) -> int:
            called.append("len")
            return 1

    class LoudText(str):
        def __eq__(self, value: object) -> bool:
            called.append("eq")
            return True

        def __str__(self) -> str:
            called.append("str")
            return "another"

        __hash__ = str.__hash__

    class LoudList(list):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            called.append("iter")
            return iter([])

    values = {"a": Loud(), "b": LoudText("true"), "c": LoudList([1]), "d": [Loud()], "e": np.array([Loud()], object)}
    called.clear()
    found = capture_values(values)
    assert called == []
    assert found[0]["b"] == {"t": "text", "v": "true"} and found[0]["c"]["parts"] == [{"t": "number", "v": 1}]


def test_modules_of_the_folder_do_not_stand_in_for_ours_where_cells_are_tried(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("json", "d2c_mlops", "pandas", "sitecustomize", "warnings", "io"):
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / name)!r}, 'w')\nraise SystemExit\n")
    (folder / "shop.py").write_text("rows = 3\n")
    found = run_model_probe(
        [CellSource("code", "from shop import rows")], [], [], folder, 60.0, {}, [folder], isolation="none"
    )
    assert found["error"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder"]


# --- models that lie in the memory of their libraries


def boosters(rows: int) -> list[Any]:
    """LightGBM's two kinds, and what stands for a library that is not installed."""
    from lightgbm import LGBMRegressor

    made = LGBMRegressor(n_estimators=2, min_child_samples=1, verbose=-1)
    made.fit(np.arange(rows)[:, None], np.arange(rows) % 3)
    other = type("XGBRegressor", (), {"__module__": "xgboost.sklearn", "get_params": lambda self: {}})()
    other.fitted_ = True
    return [made, made.booster_, other]


def test_models_in_the_memory_of_their_library_are_not_called_equal() -> None:
    for left, right in zip(boosters(20), boosters(40), strict=True):
        for one, two in ((left, left), (left, right)):
            assert _compared_name("x", 1, [read(one)], read(two)) == ComparedName("x", 1, "not compared", 0, IN_MEMORY)


def test_a_verdict_names_the_models_that_are_not_compared() -> None:
    model, *_ = boosters(20)
    items = [_compared_name("x", 1, [read(one)], read(one)) for one in (model, np.arange(3.0))]
    verdict = _build_verdict(items)
    assert verdict.status == "equivalent" and "not compared: x (its trees are stored" in verdict.reason
    assert (
        _build_verdict(items[:1]).status == "not comparable" and "not compared" not in _build_verdict(items[1:]).reason
    )


def test_a_search_that_holds_such_a_model_is_compared_by_its_other_results() -> None:
    one, two = ({"best_estimator_": boosters(20)[0], "scores": scores} for scores in ([0.5, 0.25], [0.5, 0.75]))
    assert _compared_name("x", 1, [read(one)], read(one)) == ComparedName("x", 1, "equal", 2, "")
    assert "scores" in _compared_name("x", 1, [read(one)], read(two)).difference
