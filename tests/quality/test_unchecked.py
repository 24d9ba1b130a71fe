"""A fault of which nothing could be checked gets no green light; what is absent is named on the page, in JSON and in the terminal."""

import json
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from d2c_mlops.cli import main
from d2c_mlops.data.quality import QualityReport, assess_quality
from d2c_mlops.quality.page import page
from d2c_mlops.quality.verdict import Thresholds, judge, lights

DAY = date(2024, 3, 31)
SALES = pd.DataFrame(
    {
        "order_id": [f"A{n}" for n in range(60)],
        "sku": ["MUG-1", "CUP-2"] * 30,
        "quantity": [1, 2, 3] * 20,
        "price": [5.0, 7.0] * 30,
        "day": pd.date_range("2024-02-01", periods=60),
    }
)


@pytest.mark.parametrize(
    ("frame", "reference", "unchecked"),
    [
        (SALES, (), ("schema_volume",)),
        (SALES.drop(columns="day"), (), ("bias", "staleness", "schema_volume", "mislabelling")),
        (SALES[["sku", "day"]], (), ("bias", "schema_volume", "mislabelling")),
        (SALES[["sku", "day"]], ("population",), ("schema_volume", "mislabelling")),
        (SALES.iloc[:0], (), ("incompleteness", "inconsistency", "bias", "staleness", "schema_volume", "mislabelling")),
    ],
)
def test_what_cannot_be_seen_is_not_called_good(
    frame: pd.DataFrame, reference: tuple[str, ...], unchecked: tuple[str, ...]
) -> None:
    report = assess_quality(frame, DAY, {name: SALES for name in reference})
    assert report.unchecked == unchecked
    without_findings = {fault for fault in unchecked if not report.of_fault(fault)}
    assert {fault for fault, light in lights(report, Thresholds()).items() if light == "unchecked"} == without_findings


def test_a_history_and_references_are_no_longer_absent() -> None:
    first = assess_quality(SALES, DAY)
    assert [text.split(":")[0] for text in first.absent] == [
        "no earlier report", "no reference 'population'", "no reference of totals (payments, ledger, web analytics)", "no reference 'refunds'",
    ]  # fmt: skip
    references = {"population": SALES, "refunds": SALES.head(3), "payments": SALES}
    second = assess_quality(SALES, date(2024, 4, 1), references, history=[first])
    assert (second.unchecked, second.absent) == ((), ())
    assert QualityReport.from_dict(first.to_dict()).absent == first.absent


def test_the_page_shows_a_light_of_its_own(tmp_path: Path) -> None:
    report = assess_quality(SALES.drop(columns="day"), DAY)
    html = page("x", report, judge(report, Thresholds()), Thresholds(), pd.DataFrame())
    assert html.count(": not checked</strong>") == 4 and "no column with the time of a row" in html


def test_the_terminal_names_what_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    SALES.to_csv("sales.csv", index=False)
    result = CliRunner().invoke(main, ["quality", "sales.csv"])
    assert "unchecked" in result.output and "not checked: no earlier report" in result.output


def test_what_the_reader_left_out_or_named_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    SALES.to_csv("sales.csv", index=False)
    lines = Path("sales.csv").read_text().splitlines()
    Path("sales.csv").write_text("\n".join([lines[0], *(f"{n},{line}" for n, line in enumerate(lines[1:]))]))
    result = CliRunner().invoke(main, ["quality", "sales.csv"])
    assert (
        "reading: the header has no name for the first column (first cell: '0'); it is read as 'index'" in result.output
    )
    as_json = CliRunner().invoke(main, ["quality", "sales.csv", "--json"])
    assert json.loads(as_json.output)["reading"]
