"""Sketches add up: counts are exact, quantiles lie within the error that is stated, and nothing of a row is left in them."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2c_mlops.errors import DataRefused
from d2c_mlops.monitoring.sketches import LevelSketch, NumberSketch, add_sketches, sketch_frame, sketch_from_dict

NUMBERS = st.lists(st.one_of(st.none(), st.floats(-1e9, 1e9)), max_size=60)
LEVELS = st.lists(st.one_of(st.none(), st.sampled_from(["web", "app", "store", "fax"])), max_size=60)


@given(NUMBERS, NUMBERS)
@settings(max_examples=60, deadline=None)
def test_numbers_of_two_days_add_up_to_the_sketch_of_both(one: list[float | None], two: list[float | None]) -> None:
    parts = [pd.Series(values, dtype="float64") for values in (one, two)]
    whole = NumberSketch.of(pd.concat(parts, ignore_index=True))
    assert NumberSketch.of(parts[0]) + NumberSketch.of(parts[1]) == whole
    assert whole.rows == len(one) + len(two) and whole.missing == sum(v is None for v in one + two)


@given(st.lists(st.floats(1e-6, 1e9), min_size=1, max_size=200), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_a_quantile_lies_within_the_stated_error(values: list[float], share: float) -> None:
    sketch = NumberSketch.of(pd.Series(values))
    exact = float(np.quantile(values, share, method="lower"))
    assert abs(sketch.quantile(share) - exact) <= 1.01 * sketch.relative_error * exact


@given(LEVELS, LEVELS)
@settings(max_examples=40, deadline=None)
def test_levels_of_two_days_add_up(one: list[str | None], two: list[str | None]) -> None:
    both = LevelSketch.of(pd.Series(one, dtype="str")) + LevelSketch.of(pd.Series(two, dtype="str"))
    for level in ("web", "app", "store", "fax"):
        assert both.counts.get(level, 0) == (one + two).count(level)
    assert both.missing == (one + two).count(None)


def test_counts_of_many_levels_are_too_low_by_no_more_than_is_stated() -> None:
    rng = np.random.default_rng(0)
    days = [pd.Series([f"P{n}" for n in rng.zipf(1.3, 3000) % 400]) for _ in range(4)]
    whole = pd.concat(days).value_counts()
    summed = LevelSketch.of(days[0])
    for day in days[1:]:
        summed = summed + LevelSketch.of(day)
    assert summed.rows == 12_000
    for level, count in whole.items():
        assert count - summed.short <= summed.counts.get(str(level), 0) <= count


def test_buckets_are_merged_when_they_are_too_many_and_the_error_says_so() -> None:
    values = pd.Series(np.exp(np.linspace(-18, 20, 5_000)))
    sketch = NumberSketch.of(values)
    assert len(sketch.positive) <= 384 and sketch.relative_error > 0.005
    exact = float(values.quantile(0.5, interpolation="lower"))
    assert abs(sketch.quantile(0.5) / exact - 1) <= sketch.relative_error


def test_a_written_sketch_takes_at_most_four_kilobytes() -> None:
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({
        "price": rng.lognormal(3, 1.2, 200_000),
        "margin": rng.normal(0, 1000, 200_000),
        "city": rng.choice([f"city with quite a long name {n}" for n in range(400)], 200_000),
    })  # fmt: skip
    for name, sketch in sketch_frame(frame).items():
        assert len(json.dumps(sketch.to_dict())) <= 4096, name


def test_keys_rare_levels_and_personal_columns_are_not_kept() -> None:
    frame = pd.DataFrame({
        "email": [f"{n}@example.com" for n in range(100)],
        "note": [f"call {n}" for n in range(100)],
        "city": ["Graz"] * 98 + ["Ebensee"] * 2,
    })  # fmt: skip
    sketches = sketch_frame(frame, leave_out=("email",))
    city = sketches["city"]
    assert isinstance(city, LevelSketch)
    written = json.dumps({"note": sketches["note"].to_dict(), "city": city.without_rare().to_dict()})
    assert "call" not in written and "Ebensee" not in written and "Graz" in written


def test_numbers_and_levels_do_not_add_up() -> None:
    with pytest.raises(DataRefused, match="'price' holds numbers"):
        add_sketches(sketch_frame(pd.DataFrame({"price": [1.0]})), sketch_frame(pd.DataFrame({"price": ["one"]})))


@pytest.mark.parametrize(
    "broken", [{}, {"kind": "number"}, {"kind": "level", "rows": 1, "missing": 0, "short": 0, "counts": []}]
)
def test_a_broken_sketch_is_refused(broken: dict[str, object]) -> None:
    with pytest.raises(DataRefused, match="no sketch"):
        sketch_from_dict(broken)
