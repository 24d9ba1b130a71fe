"""Whatever a frame holds, an assessment answers or refuses clearly, and leaves the frame alone."""

import json
from datetime import date

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d2c_mlops.data.quality import assess_quality
from d2c_mlops.errors import D2CError

NAMES = [
    "order_id",
    "sku",
    "quantity",
    "price",
    "date",
    "customer_id",
    "channel",
    "Currency",
    "paid_at",
    "status",
    "é ü",
    "",
    "name",
    "total",
]
VALUES = st.one_of(
    st.none(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=6),
    st.sampled_from(
        [
            "2024-01-01",
            "01/02/2024",
            "2024-01-01T10:00:00+09:00",
            "9999-12-31",
            "0000-00-00",
            "1,5",
            "n/a",
            "C123",
            "😀" * 9,
        ]
    ),
    st.datetimes().map(pd.Timestamp),
    st.booleans(),
    st.sampled_from([[1], {"a": 1}, b"\xff", np.nan, pd.NaT, pd.NA]),
)


@st.composite
def frames(draw: st.DrawFn) -> pd.DataFrame:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=0, max_size=6))
    rows = draw(st.integers(0, 8))
    columns = [pd.Series(draw(st.lists(VALUES, min_size=rows, max_size=rows)), dtype=object) for _ in names]
    frame = pd.concat(columns, axis=1) if columns else pd.DataFrame(index=range(rows))
    return frame.set_axis(names, axis=1)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(frames(), st.integers(1, 60))
def test_any_frame_is_assessed_or_refused(frame: pd.DataFrame, times: int) -> None:
    many = pd.concat([frame] * times, ignore_index=True) if len(frame.columns) else frame
    before = many.copy(deep=True)
    try:
        report = assess_quality(many, date(2024, 3, 1))
    except D2CError as error:
        assert str(error)
        return
    json.loads(report.to_json())
    assert report.rows == {"rows": len(many) if len(many.columns) else 0}
    assert all(0 <= finding.score <= 1 and finding.rows >= 0 for finding in report.findings)
    pd.testing.assert_frame_equal(many, before)
