"""Every finding has a plot: on the page, in JSON, and in reports that are read again; reports without plots are still read."""

from __future__ import annotations

import json
import re
from datetime import date

import pandas as pd
import pytest

from d2c_mlops.data.quality import QualityReport, assess_quality
from d2c_mlops.data.simulate import Shop
from d2c_mlops.data.simulate.script import event
from d2c_mlops.quality.page import chart_values, page
from d2c_mlops.quality.verdict import Thresholds, judge

START, TODAY = date(2024, 4, 22), date(2024, 4, 28)


@pytest.fixture(scope="module")
def report() -> QualityReport:
    fault = event("lost", "channel_lost", START, 1.0, channel="app")
    shop = Shop(regime="fashion", seed=4, days=119, orders=80.0, products=40, events=[fault])
    tables = {name: shop.tables()[name] for name in ("orders", "products")}
    return assess_quality(tables, TODAY)


def test_every_finding_is_plotted_on_the_page(report: QualityReport) -> None:
    thresholds = Thresholds(warn=0.0, refuse=0.5)
    html = page("shop", report, judge(report, thresholds), thresholds, pd.DataFrame())
    assert report.findings and html.count('class="plot"') == len(report.findings)
    assert re.search(r"share of rows with channel &#39;app&#39;, 0 to [\d.]+, by day", html)
    assert "the line marks 2024-04-22" in html


def test_the_plot_of_a_silent_channel_falls_to_zero_where_the_line_is(report: QualityReport) -> None:
    [lost] = [finding for finding in report.findings if finding.check == "lost_rows"]
    assert lost.chart is not None and lost.since == START
    drawn = chart_values(lost.chart, lost.since)
    [line] = drawn["lines"]
    assert drawn["low"] == "0" and {y for x, y in line if x >= drawn["mark"]} == {88.0}
    assert all(y < 80 for x, y in line if x < drawn["mark"])


def test_plots_are_in_json_and_are_read_again(report: QualityReport) -> None:
    values = json.loads(report.to_json())
    assert [f.chart for f in QualityReport.from_dict(values).findings] == [f.chart for f in report.findings]
    for finding in values["findings"]:
        del finding["chart"]
    assert [f.chart for f in QualityReport.from_dict(values).findings] == [None] * len(report.findings)


def test_an_old_gap_is_plotted_where_it_was() -> None:
    days = [
        day for day in pd.date_range("2023-03-01", "2024-04-28") if not "2023-06-05" <= str(day.date()) <= "2023-06-09"
    ]
    sales = pd.DataFrame(
        {
            "order_id": range(20 * len(days)),
            "sku": "A",
            "quantity": 1,
            "price": 2.0,
            "day": pd.DatetimeIndex(days).repeat(20),
        }
    )
    [gap] = [f for f in assess_quality({"sales": sales}, TODAY).findings if f.check == "missing_days"]
    assert gap.chart is not None and gap.chart.title == "rows of sales" and gap.since == date(2023, 6, 5)
    place = gap.chart.labels.index("2023-06-05")
    assert gap.chart.values[place - 1 : place + 6] == (20, 0, 0, 0, 0, 0, 20)


def test_numbers_that_are_keys_are_not_plotted_as_levels() -> None:
    days = pd.date_range("2024-03-01", "2024-04-28").repeat(10)
    sales = pd.DataFrame(
        {
            "order_id": range(len(days)),
            "product_id": [n % 9 for n in range(len(days))],
            "quantity": 1,
            "price": 2.0,
            "day": days,
        }
    )
    products = pd.DataFrame({"product_id": range(1, 9), "name": [f"mug {n}" for n in range(1, 9)]})
    [gone] = [
        f for f in assess_quality({"sales": sales, "products": products}, TODAY).findings if f.check == "survivors"
    ]
    assert gone.chart is not None and (gone.chart.title, gone.chart.by_day) == ("rows of sales", False)
    assert gone.chart.values == (gone.rows, len(sales) - gone.rows)
