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


ROWS = 150
SHAPES = {
    "one value": lambda values: [values[0]] * ROWS,
    "each its own": lambda values: list(values),
    "two values": lambda values: [values[number % 2] for number in range(ROWS)],
    "half missing": lambda values: [None if number % 2 else value for number, value in enumerate(values)],
    "none": lambda values: [None] * ROWS,
    "first only": lambda values: [values[0], *[None] * (ROWS - 1)],
}
CONTENTS = {
    "days": list(pd.date_range("2024-01-01", periods=ROWS)),
    "times": list(pd.date_range("2024-05-01", periods=ROWS, freq="h", tz="UTC")),
    "day texts": [f"2024-0{1 + number % 6}-{1 + number // 6:02d}" for number in range(ROWS)],
    "codes": [f"L{number}" for number in range(ROWS)],
    "integers": list(range(ROWS)),
    "numbers": [number / 7 - 3 for number in range(ROWS)],
    "number texts": [f"{number},5" for number in range(ROWS)],
    "truths": [number % 3 == 0 for number in range(ROWS)],
}


@pytest.mark.slow
@given(
    st.dictionaries(
        st.sampled_from([*NAMES, "day", "shop", "created_at", "refunded"]),
        st.tuples(st.sampled_from(sorted(CONTENTS)), st.sampled_from(sorted(SHAPES))),
        min_size=1,
        max_size=7,
    )
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_columns_of_one_value_of_none_and_of_many_are_assessed(columns: dict[str, tuple[str, str]]) -> None:
    frame = pd.DataFrame({name: SHAPES[shape](CONTENTS[content]) for name, (content, shape) in columns.items()})
    report = assess_quality(frame, date(2024, 6, 30), name="anything")
    assert report.rows["anything"] == ROWS


def test_series_of_a_single_day_have_no_gaps() -> None:
    frame = pd.DataFrame({"lead_id": CONTENTS["codes"], "scored_at": pd.Timestamp("2024-05-01", tz="UTC")})
    assert [
        f.check for f in assess_quality({"leads": frame}, date(2024, 6, 1)).findings if f.check == "series_gaps"
    ] == []
