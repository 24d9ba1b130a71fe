"""Zones that are mixed, days in the future, very many columns, emoji and texts of a megabyte, text among numbers: answered, and the rows are all counted."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from d2c_mlops.data.quality import QualityReport, assess_quality

DAY, ROWS = date(2024, 6, 30), 300
SLOW = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def sales(**columns: object) -> pd.DataFrame:
    """Return lines of a shop over a hundred days, with columns replaced or added."""
    numbers = np.arange(ROWS)
    frame = pd.DataFrame(
        {
            "order_id": [f"A{n // 2}" for n in numbers],
            "sku": [f"S{n % 7}" for n in numbers],
            "quantity": 1 + numbers % 3,
            "price": 5.0 + numbers % 11,
            "ordered_at": pd.date_range("2024-03-20", periods=ROWS, freq="8h"),
            "channel": np.where(numbers % 4, "web", "shop"),
        }
    )
    return frame.assign(**columns)


def assessed(frame: pd.DataFrame) -> QualityReport:
    """Return the report of a frame, after what must hold of any: all rows, plain JSON, the same when it is read again, nothing changed."""
    before = frame.copy(deep=True)
    report = assess_quality({"sales": frame}, DAY)
    values = json.loads(report.to_json())
    assert report.rows == {"sales": len(frame)}
    assert QualityReport.from_dict(values).to_dict() == values
    assert all(
        0 <= f.rows <= len(frame) and len(f.message) < 2_000 and all(len(k) <= 80 for k in f.keys)
        for f in report.findings
    )
    pd.testing.assert_frame_equal(frame, before)
    return report


OFFSETS = st.integers(-12 * 4, 14 * 4).map(lambda quarters: timezone(timedelta(minutes=15 * quarters)))


@pytest.mark.slow
@SLOW
@given(st.lists(OFFSETS, min_size=2, max_size=6, unique=True), st.booleans(), st.booleans())
def test_mixed_time_zones_are_one_clock_or_named(zones: list[timezone], as_text: bool, some_without: bool) -> None:
    start = datetime(2024, 3, 20, 12, tzinfo=UTC)
    times: list[object] = [(start + timedelta(hours=8 * n)).astimezone(zones[n % len(zones)]) for n in range(ROWS)]
    if some_without:
        times[::5] = [time.replace(tzinfo=None) for time in times[::5] if isinstance(time, datetime)]
    if as_text:
        times = [str(time) for time in times]
    report = assessed(sales(ordered_at=pd.Series(times, dtype=object)))
    assert "missing_days" not in {f.check for f in report.findings if f.severity == "severe"}


@pytest.mark.slow
@SLOW
@given(st.integers(1, 60), st.sampled_from(["2D", "30D", "400D", "2999-12-31", "9999-12-31"]))
def test_rows_of_the_future_are_counted(count: int, when: str) -> None:
    times = sales()["ordered_at"].astype("datetime64[us]")
    future = pd.Timestamp(DAY) + pd.Timedelta(when) if when.endswith("D") else pd.Timestamp(when)
    times.iloc[-count:] = future
    report = assessed(sales(ordered_at=times))
    [named] = [f for f in report.findings if f.check == "future_rows"]
    assert named.rows == count


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["empty", "mixed"])
def test_two_thousand_columns_are_assessed(kind: str) -> None:
    contents = {
        "numbers": lambda n: np.arange(ROWS) * n,
        "texts": lambda n: [f"t{n % 5}"] * ROWS,
        "empty": lambda n: [None] * ROWS,
        "times": lambda n: pd.date_range("2024-03-20", periods=ROWS, freq="8h"),
    }
    names = list(contents)
    wide = {f"column {n}": contents[names[n % 4] if kind == "mixed" else kind](n) for n in range(1_994)}
    frame = pd.concat([sales(), pd.DataFrame(wide)], axis=1)
    assert frame.shape[1] == 2_000 and len(assessed(frame).to_json()) < 20_000_000


TEXT = st.one_of(
    st.text(st.characters(categories=["So", "Sk", "Mn", "Cf", "Lo"]), min_size=1, max_size=12),
    st.sampled_from(
        ["👩‍👩‍👧‍👦", "🏳️‍🌈", "e\u0301", "\u202eabc", "\ufeff", "'", '"', "%", "{0}", "\\", ";--", "a\nb\tc"]
    ),
)


@pytest.mark.slow
@SLOW
@given(st.lists(TEXT, min_size=1, max_size=8), st.sampled_from(["sku", "channel", "order_id"]), st.booleans())
def test_emoji_and_marks_are_values_and_names(texts: list[str], column: str, in_name: bool) -> None:
    frame = sales(**{column: [texts[n % len(texts)] for n in range(ROWS)]})
    if in_name:
        frame = frame.rename(columns={"channel": f"channel {texts[0]}"})
    assessed(frame)


@pytest.mark.slow
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["sku", "channel", "order_id", "note"]), st.sampled_from(["x", "é", "😀", "1"]), st.integers(1, 20)
)
def test_texts_of_a_megabyte_are_told_in_short(column: str, char: str, count: int) -> None:
    frame = sales()
    values = frame[column].astype("object").copy() if column in frame else pd.Series([None] * ROWS, dtype=object)
    values.iloc[-count:] = char * (1_000_000 // len(char.encode()))
    assert len(assessed(frame.assign(**{column: values})).to_json()) < 1_000_000


@pytest.mark.slow
@SLOW
@given(
    st.sampled_from(["quantity", "price"]),
    st.lists(
        st.sampled_from(["n/a", "12 pcs", "1.234,50 €", "?", "😀", "", "NaN", "inf", "1e400", "0x1F", "٣"]),
        min_size=1,
        max_size=6,
    ),
    st.integers(1, 40),
)
def test_text_in_a_column_of_numbers_is_assessed(column: str, texts: list[str], count: int) -> None:
    values = sales()[column].astype("object")
    values.iloc[:count] = [texts[n % len(texts)] for n in range(count)]
    assessed(sales(**{column: values}))
