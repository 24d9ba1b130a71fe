"""`assess_quality` on raw tables: the dirt of a known file, and input that is hardly a table."""

import json
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.data.quality import Finding, QualityReport, assess_quality
from d2c_mlops.errors import UsageError

RETAIL = Path(__file__).resolve().parents[3] / "../shared/data/online_retail.parquet"
DAY = date(2024, 3, 1)


def test_package_exports_the_public_names() -> None:
    assert {Finding.__module__, QualityReport.__module__} == {"d2c_mlops.data.quality.report"}


@pytest.mark.slow
@pytest.mark.skipif(not RETAIL.exists(), reason="../shared/data/online_retail.parquet is absent")
def test_dirt_of_the_british_retailer_is_found_with_its_counts() -> None:
    report = assess_quality(pd.read_parquet(RETAIL), date(2011, 12, 9))
    rows = {(finding.check, finding.column): finding.rows for finding in report.findings}
    assert rows["cancellation", ""] == 9_288
    assert rows["negative_quantity", ""] == 10_624
    assert rows["price_not_positive", ""] == 2_517
    assert rows["missing_field", "CustomerID"] == 135_080
    assert rows["missing_field", "Description"] == 1_454
    products = {key for finding in report.findings if finding.check.startswith("product_") for key in finding.keys}
    assert {"POST", "DOT", "C2", "BANK CHARGES", "AMAZONFEE", "B"} <= products


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame(),
        pd.DataFrame({"order_id": []}),
        pd.DataFrame({"order_id": ["1"], "date": ["2024-01-01"], "sku": ["a"], "quantity": [1], "price": [2.0]}),
        pd.DataFrame({"date": [pd.NaT] * 5, "quantity": [None] * 5}),
        pd.DataFrame(
            {"date": ["9999-12-31", "0001-01-01", "no day"] * 50, "sku": ["a"] * 150, "quantity": ["x"] * 150}
        ),
        pd.DataFrame({f"c{n}": [1, None] for n in range(2_000)}),
        pd.DataFrame(
            {
                "sku": ["😀" * 10, "x" * 1_000_000, None],
                "quantity": [1, 2, 3],
                "date": pd.to_datetime(["2024-01-01"] * 3),
            }
        ),
        pd.DataFrame(
            {
                "date": [pd.Timestamp("2024-01-01", tz="UTC"), pd.Timestamp("2024-01-01", tz="Asia/Tokyo")],
                "sku": ["a", "b"],
            }
        ),
        pd.DataFrame([[1, 2], [3, 4]], columns=["date", "date"]),
        pd.DataFrame(
            {
                "quantity": [np.inf, -np.inf, np.nan],
                "price": [1e308, 1e308, 0],
                "sku": list("abc"),
                "date": ["2024-01-01"] * 3,
            }
        ),
    ],
)
def test_odd_tables_get_an_answer_that_is_json(frame: pd.DataFrame) -> None:
    report = assess_quality(frame, DAY)
    assert json.loads(report.to_json())["as_of"] == "2024-03-01"
    assert report.notes == ()


@pytest.mark.parametrize("tables", [None, 5, [1, 2], {"orders": [1, 2]}])
def test_what_is_no_table_is_refused(tables: object) -> None:
    with pytest.raises(UsageError):
        assess_quality(tables, DAY)  # type: ignore[arg-type]


def test_a_day_must_be_a_date() -> None:
    with pytest.raises(UsageError, match="as_of"):
        assess_quality(pd.DataFrame(), pd.Timestamp("2024-01-01"))
