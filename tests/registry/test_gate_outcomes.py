"""The gate finds the outcome of a converted notebook's records, or says what is missing."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.errors import DataRefused
from d2c_mlops.registry.evaluators.outcome_column import Outcome, target_column

RNG = np.random.default_rng(3)
RECORDS = pd.DataFrame({
    "visits": RNG.poisson(4, 60), "region": RNG.choice(["north", "south", "west"], 60), "spend": RNG.gamma(2, 20, 60),
    "status": RNG.choice(["bought", "left"], 60), "value": RNG.gamma(3, 30, 60),
})  # fmt: skip
PART = RECORDS.iloc[[3, 50, 7, 12, 33, 41, 8, 19, 22]]
CODES = PART["status"].map({"bought": 0, "left": 1})
INPUTS = ["visits", "region", "spend"]


@pytest.mark.parametrize(
    ("answers", "column", "classes", "form"),
    [
        (PART["status"], "status", True, ""),
        (CODES.rename("y"), "status", True, ""),
        (1 - CODES, "status", True, ""),
        (CODES.to_numpy(), "status", True, ""),
        (PART["status"].to_numpy(), "status", True, ""),
        (PART["value"], "value", False, ""),
        (np.log1p(PART["value"]), "value", False, "log1p"),
        (PART["value"].to_numpy(), "value", False, ""),
        (np.log(PART["value"]).to_numpy(), "value", False, "log"),
    ],
    ids=[
        "labels",
        "codes",
        "codes turned",
        "array of codes",
        "array of labels",
        "number",
        "log1p",
        "array",
        "array of logs",
    ],
)
def test_the_column_of_the_outcome_is_found(answers: Any, column: str, classes: bool, form: str) -> None:
    found = target_column(RECORDS, answers, INPUTS, "load_records")
    assert (found.column, bool(found.classes), found.form) == (column, classes, form)
    assert np.allclose(found.values(PART), found.coded(np.asarray(answers)))
    assert found.known(RECORDS).all()


@pytest.mark.parametrize(
    ("answers", "inputs", "words"),
    [
        (
            PART["value"] * 2 + PART["spend"],
            INPUTS,
            r"no column of load_orders\(\) contains the target of the training",
        ),
        (PART["status"], [*INPUTS, "status"], "the column status, is also an input"),
        (None, INPUTS, "learns from no outcome"),
        (pd.Series([0, 1] * 4 + [0], index=PART.index, name="churned"), INPUTS, r"\(churned\)"),
    ],
    ids=["made of two", "an input", "clusters", "from another table"],
)
def test_an_outcome_that_cannot_be_had_is_named(answers: Any, inputs: list[str], words: str) -> None:
    with pytest.raises(DataRefused, match=words):
        target_column(RECORDS, answers, inputs, "load_orders")


def test_two_columns_that_could_be_the_outcome_are_not_guessed_between() -> None:
    twice = RECORDS.assign(renewed=RNG.permutation(RECORDS["status"]))
    with pytest.raises(DataRefused, match="may be its outcome: status, renewed"):
        target_column(twice, PART["status"].to_numpy(), INPUTS, "load_records")


def test_the_world_in_disguise_has_other_outcomes_and_the_same_inputs() -> None:
    classes = Outcome("status", {"bought": 0, "left": 1})
    other = classes.disguised(RECORDS)
    assert (other["status"] != RECORDS["status"]).all() and other[INPUTS].equals(RECORDS[INPUTS])
    assert (classes.values(other) == 1 - classes.values(RECORDS)).all()
    number = Outcome("value", {})
    assert np.corrcoef(number.values(number.disguised(RECORDS)), number.values(RECORDS))[0, 1] == pytest.approx(-1)


def test_a_class_that_never_came_and_no_answer_are_told_apart() -> None:
    outcome = Outcome("status", {"bought": "bought", "left": "left"})
    coded = outcome.coded(np.array(["left", "maybe", None], dtype=object))
    assert coded[0] == 1 and coded[1] == -1 and np.isnan(coded[2])
