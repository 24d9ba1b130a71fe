"""What several tables tell of one cause is one finding; assessing stored tables uses no private names and warns of nothing."""

import warnings
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from d2c_mlops.data.quality import Finding, QualityReport, assess_quality
from d2c_mlops.data.quality.assess import one_for_all_tables
from d2c_mlops.data.quality.inputs import Inputs
from d2c_mlops.data.simulate import Shop
from d2c_mlops.data.store import write_dataset
from d2c_mlops.data.tables import Tables
from d2c_mlops.quality.verdict import Thresholds

DAY = date(2024, 3, 31)
SHOP = Shop(regime="fashion", seed=5, days=91, orders=40.0, products=30)


def finding(
    table: str, check: str = "lost_rows", keys: tuple[str, ...] = ("app",), day: date = DAY, score: float = 0.6
) -> Finding:
    fault = "incompleteness"
    return Finding(
        fault, table, check, score, "channel 'app' is silent", "ask", "channel", 10, 0.2, 1.0, day, keys=keys
    )


def test_a_silent_channel_is_told_once_of_all_tables() -> None:
    merged = one_for_all_tables([finding("customers", score=0.8), finding("order_lines"), finding("orders")])
    assert [(f.table, f.also, f.score) for f in merged] == [("orders", ("order_lines", "customers"), 0.8)]
    assert merged[0].message == "channel 'app' is silent (also in order_lines, customers)"


@pytest.mark.parametrize(
    "other",
    [
        finding("orders", keys=("web",)),
        finding("orders", day=date(2024, 3, 20)),
        finding("order_lines", keys=("app",)),  # the same table again
        finding("orders", check="missing_field"),  # each table's own rows
    ],
)
def test_what_is_another_cause_stays_apart(other: Finding) -> None:
    assert len(one_for_all_tables([finding("order_lines"), other])) == 2


def test_lost_days_of_a_shop_are_one_finding_in_report_and_json() -> None:
    tables = dict(SHOP.tables())
    for name in ("orders", "order_lines"):
        tables[name] = tables[name][~tables[name]["ordered_at"].between("2024-03-24", "2024-03-27")]
    report = assess_quality(tables, DAY)
    gaps = [f for f in report.findings if f.check == "missing_days"]
    assert [(f.table, "order_lines" in f.also) for f in gaps] == [("orders", True)]
    stored = QualityReport.from_dict(report.to_dict())
    assert [(f.check, f.also) for f in stored.findings] == [(f.check, f.also) for f in report.findings]


def test_reports_of_before_are_still_read() -> None:
    values = QualityReport.of(DAY, {"orders": 10}, [finding("orders")]).to_dict()
    del values["findings"][0]["also"]
    assert QualityReport.from_dict(values).findings[0].also == ()


def test_the_strictest_table_of_a_shared_finding_decides() -> None:
    merged = one_for_all_tables([finding("orders"), finding("order_lines")])[0]
    assert Thresholds(0.2, 0.9, {"order_lines": 0.5}).status(merged) == "refuse"
    assert Thresholds(0.7, 0.9, {}, {"order_lines": 0.5}).status(merged) == "warn"
    assert Thresholds(0.2, 0.9, {"order_lines": 0.5}, {}, ("orders.lost_rows",)).status(merged) == "refuse"
    assert Thresholds(0.2, 0.5, {}, {}, ("orders.lost_rows", "order_lines.lost_rows")).status(merged) == "pass"


def test_stored_tables_are_read_by_a_public_query_as_known_on_a_day(tmp_path: Path) -> None:
    write_dataset(
        tmp_path, "shop", dict(SHOP.tables()), "test", layout="canonical", created_at=datetime(2024, 5, 1, tzinfo=UTC)
    )
    stored = Tables.open(tmp_path, "shop")
    query = stored.before(date(2024, 2, 10)).file_query("orders")
    assert query is not None and "2024-03" not in query and "2024-02-1" in query
    assert SHOP.tables().file_query("orders") is None
    assert assess_quality(stored, DAY).findings == assess_quality(SHOP.tables(), DAY).findings


def test_an_assessment_of_instants_warns_of_nothing() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assess_quality({"orders": SHOP.tables()["orders"]}, DAY)
    assert [str(warning.message) for warning in caught] == []


def test_long_queries_write_no_progress_among_the_answer() -> None:
    setting = "SELECT current_setting('enable_progress_bar') AS enabled"
    assert not Inputs.of(SHOP.tables(), DAY).value(setting)
    assert not SHOP.tables().sql(setting)["enabled"].item()
