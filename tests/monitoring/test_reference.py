"""The reference of a version: by weekday and quarter, small, without persons, mergeable, and readable as it was written before."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2c_mlops.errors import DataRefused
from d2c_mlops.models.core.contract import Contract, column
from d2c_mlops.monitoring.reference import (
    REFERENCE_FILE,
    ReferenceSketches,
    compare_column,
    read_reference,
    sketch_records,
    write_reference,
)

CONTRACT = Contract(
    name="demand", version="1.0.0", key="series",
    inputs=pa.DataFrameSchema({"series": column("string", "series"), "date": column("date", "day"), "city": column("string", "city"), "price": column("number", "price")}),
    outputs=pa.DataFrameSchema({"series": column("string", "series"), "forecast": column("number", "units")}),
)  # fmt: skip


def rows(days: pd.DatetimeIndex, seed: int = 0, cities: int = 6) -> tuple[pd.DataFrame, pd.DataFrame, list[list[str]]]:
    rng = np.random.default_rng(seed)
    records = pd.DataFrame({
        "series": [f"S{n}" for n in range(len(days))], "date": days,
        "city": rng.choice([f"city {n}" for n in range(cities)], len(days)), "price": rng.lognormal(3, 1, len(days)),
    })  # fmt: skip
    answers = pd.DataFrame({"series": records["series"], "forecast": rng.poisson(5.0, len(days)).astype(float)})
    return records, answers, [["promotion: +1"] if day.day_of_week == 0 else ["weekday: +1"] for day in days]


def test_weekdays_need_two_weeks_and_quarters_two_years(tmp_path: Path) -> None:
    month = pd.date_range("2025-06-02", periods=28).repeat(60)
    write_reference(CONTRACT, *rows(month), tmp_path)
    reference = read_reference(tmp_path)
    assert reference is not None and set(reference.strata) == {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"}  # fmt: skip
    assert reference.strata["Monday"].inputs["price"].rows == 240 and reference.inputs["price"].rows == 1680
    write_reference(CONTRACT, *rows(pd.date_range("2025-06-02", periods=7).repeat(300)), tmp_path)
    week = read_reference(tmp_path)
    assert week is not None and not week.strata
    write_reference(CONTRACT, *rows(pd.date_range("2024-01-01", "2025-06-30").repeat(3)), tmp_path)
    years = read_reference(tmp_path)
    assert years is not None and {n for n in years.strata if "quarter" in n} == {"quarter 1", "quarter 2"}


@given(st.integers(0, 10_000), st.integers(1, 200), st.floats(0.1, 12), st.integers(0, 60))
@settings(max_examples=8, deadline=None)
def test_each_column_of_a_stratum_takes_at_most_four_kilobytes(seed: int, cities: int, spread: float, length: int) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    records, answers, reasons = rows(pd.date_range("2024-01-01", periods=366).repeat(8), seed, cities)
    records["price"] = np.round(np.exp(rng.normal(0, spread, len(records))), 3) * rng.choice([-1.0, 1.0], len(records))
    records["city"] = "ü" * length + records["city"]
    sketched = sketch_records(CONTRACT, records, answers, reasons)
    for part in (sketched.whole, *sketched.strata.values()):
        for name, sketch in part.for_files().columns.items():
            assert len(json.dumps(sketch.to_dict(), ensure_ascii=False).encode()) <= 4096, name
            assert sketch.rows == part.columns[name].rows


@given(
    st.lists(st.sampled_from(pd.date_range("2024-01-01", periods=500).to_list()), min_size=2, max_size=80), st.data()
)
@settings(max_examples=25, deadline=None)
def test_sketches_of_two_parts_add_up_to_those_of_all_rows(days: list[pd.Timestamp], data: st.DataObject) -> None:
    records, answers, reasons = rows(pd.DatetimeIndex(days))
    cut = data.draw(st.integers(0, len(days)))
    first, second = (
        sketch_records(CONTRACT, records[part].reset_index(drop=True), answers[part].reset_index(drop=True), reasons[part])
        for part in (slice(None, cut), slice(cut, None))
    )  # fmt: skip
    whole = sketch_records(CONTRACT, records, answers, reasons)
    assert first + second == whole
    assert ReferenceSketches.from_dict(json.loads(json.dumps((second + first).to_dict()))) == whole


def test_a_reference_that_was_written_without_strata_loads(tmp_path: Path) -> None:
    records, answers, reasons = rows(pd.date_range("2025-06-02", periods=28).repeat(60))
    former = sketch_records(CONTRACT, records, answers, reasons).whole.to_dict()
    assert set(former) == {"inputs", "outputs", "reasons"}
    (tmp_path / REFERENCE_FILE).write_text(json.dumps(former))
    reference = read_reference(tmp_path)
    assert reference is not None and not reference.strata and reference.inputs["price"].rows == 1680
    now = sketch_records(CONTRACT, records, answers, reasons)
    compared = compare_column(reference, now, "reasons")
    assert compared is not None and compared.against.startswith("all days") and compared.index < 1e-9


@pytest.mark.parametrize("text", ["[]", "{}", "not json", '{"inputs": {}, "outputs": {}, "strata": {"Monday": 3}}'])
def test_a_broken_reference_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / REFERENCE_FILE).write_text(text)
    with pytest.raises(DataRefused, match="sketches of a version cannot be read"):
        read_reference(tmp_path)


def test_mondays_are_compared_with_mondays_and_changed_reasons_are_still_seen() -> None:
    reference = sketch_records(CONTRACT, *rows(pd.date_range("2024-01-01", periods=84).repeat(30)))
    mondays = rows(pd.date_range("2024-06-03", periods=8, freq="7D").repeat(40), seed=1)
    compared = compare_column(reference, sketch_records(CONTRACT, *mondays), "reasons")
    assert compared is not None and compared.against == "the same weekdays" and compared.index < 0.01
    changed = sketch_records(CONTRACT, mondays[0], mondays[1], [["weekday: +1"]] * len(mondays[0]))
    moved = compare_column(reference, changed, "reasons")
    assert moved is not None and moved.against == "the same weekdays" and moved.index > 1
    whole = compare_column(ReferenceSketches(reference.whole), sketch_records(CONTRACT, *mondays), "reasons")
    assert whole is not None and whole.against.startswith("all days") and whole.index > 1


def test_a_key_and_a_rare_level_are_in_no_stratum_of_a_written_reference(tmp_path: Path) -> None:
    records, answers, reasons = rows(pd.date_range("2025-06-02", periods=28).repeat(60))
    records.loc[:3, "city"] = "Ebensee"
    write_reference(CONTRACT, records, answers, reasons, tmp_path)
    written = (tmp_path / REFERENCE_FILE).read_text()
    assert "Ebensee" not in written and "S17" not in written and "city 1" in written
