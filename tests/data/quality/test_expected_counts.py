"""What a day is expected to count."""

from __future__ import annotations

import warnings

import numpy as np

from d2c_mlops.data.quality.daily import expected_counts


def test_every_day_after_three_weeks_has_an_expectation() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = expected_counts(np.full(800, 50.0))
    assert np.isnan(expected[:21]).all() and np.allclose(expected[21:], 50.0)
