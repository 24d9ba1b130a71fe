"""check_model: the last bits of a sum break no promise; what breaks one is named with its size, column and record."""

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.errors import DataRefused
from d2c_mlops.models.core.conformance import EXPORT_FIRST, check_model, frame_differences
from d2c_mlops.models.core.model import Model

ASKED = pd.DataFrame({"sku": ["P-1", "P-2", "P-3"], "units": [0.1, 1e6, 250.0], "basis": ["model", "model", "rate"]})


@pytest.fixture
def mean_units(project: Path) -> type[Model]:
    """The toy shop's model."""
    return importlib.import_module("toyshop").MeanUnits


def shaken(size: float, seed: int = 0) -> pd.DataFrame:
    """Return the answers with every number moved by a share of itself."""
    return ASKED.assign(units=ASKED["units"] * (1 + size * np.random.default_rng(seed).choice([-1, 1], len(ASKED))))


@pytest.mark.parametrize("size", [1e-16, 1e-14, 1e-12])
def test_last_bits_are_no_difference(size: float) -> None:
    assert list(frame_differences(shaken(size), ASKED, "sku")) == []


@pytest.mark.parametrize("size", [1e-6, 1e-3, 1.0])
def test_more_than_the_last_bits_is_a_difference_with_its_size(size: float) -> None:
    (what,) = frame_differences(shaken(size), ASKED, "sku")
    assert "column units" in what and "sku 'P-2' (row 1)" in what and f"{size:.2g} of the value" in what


def test_numbers_of_32_bits_differ_in_their_own_last_bits() -> None:
    single = ASKED.assign(units=np.array([0.1, 1e6, 250.0], np.float32).astype(float))
    moved = single.assign(units=np.nextafter(single["units"].to_numpy(np.float32), np.float32(np.inf)).astype(float))
    assert list(frame_differences(moved, single)) == []
    assert list(frame_differences(single.assign(units=single["units"] * 1.01), single))


def test_a_sum_near_zero_is_measured_by_its_column() -> None:
    near = ASKED.assign(units=[1e-13, 1e6, 250.0])
    assert list(frame_differences(near.assign(units=[3e-13, 1e6, 250.0]), near)) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_is_a_difference(value: float) -> None:
    (what,) = frame_differences(ASKED.assign(units=[0.1, value, 250.0]), ASKED, "sku")
    assert "1 of 3 differ" in what and "P-2" in what


def test_texts_are_compared_to_the_letter_and_shapes_at_all() -> None:
    (what,) = frame_differences(ASKED.assign(basis=["model", "model", "Rate"]), ASKED, "sku")
    assert "column basis" in what and "'Rate' instead of 'rate'" in what and "P-3" in what
    assert "2 rows" in next(frame_differences(ASKED.head(2), ASKED))
    assert "int64 instead of float64" in next(frame_differences(ASKED.assign(units=[1, 2, 3]), ASKED))


def test_a_model_whose_sums_are_reordered_keeps_its_promises(mean_units: type[Model]) -> None:
    class Reordered(mean_units):
        def predict(self, records: pd.DataFrame) -> pd.DataFrame:
            answers = super().predict(records)
            return answers.assign(units=answers["units"] * (1 + 1e-15 * len(records)))

    assert len(check_model(Reordered)) >= 9


def test_a_model_that_answers_otherwise_alone_is_refused_with_the_record(mean_units: type[Model]) -> None:
    class Moody(mean_units):
        def predict(self, records: pd.DataFrame) -> pd.DataFrame:
            answers = super().predict(records)
            return answers.assign(units=answers["units"] * (1 + 0.01 * (len(records) == 1)))

    with pytest.raises(DataRefused, match=r"column units: 1 of 1 differ, most at product_id '.*0\.01 of the value"):
        check_model(Moody)


def test_a_class_of_a_notebook_is_checked_and_told_to_be_exported(mean_units: type[Model]) -> None:
    cell = type("InCell", (mean_units,), {"__module__": "__main__"})
    assert sum(EXPORT_FIRST in rule for rule in check_model(cell)) == 1
    assert not any(EXPORT_FIRST in rule for rule in check_model(mean_units))


@pytest.mark.parametrize("figure", [0.0, 0.25, 1e-9])
def test_an_evaluation_that_is_written_down_is_refused(mean_units: type[Model], figure: float) -> None:
    class Written(mean_units):
        def evaluate(self, tables: object, as_of: object) -> object:
            found = super().evaluate(tables, as_of)
            return type(found)(found.metric, figure, found.baselines, True)

    with pytest.raises(DataRefused, match="whatever came"):
        check_model(Written)


def test_a_class_that_a_clean_process_cannot_load_says_why(mean_units: type[Model]) -> None:
    class Lost(mean_units):
        pass

    Lost.__qualname__ = "Lost"
    with pytest.raises(DataRefused, match=r"test_conformance.*does not load in a clean process: .*cannot be imported"):
        check_model(Lost)
