"""Drift is found in the column that moved, on a day that is right, and never where season, week or promotion explain it."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.monitoring.daily_series import DailySeries, daily_series, join_series
from d2c_mlops.monitoring.drift import Acknowledged, find_drift

DAYS = pd.date_range("2024-01-01", periods=500)
SINCE = pd.Timestamp("2025-03-10")


def shop(seed: int = 0, orders: int = 80) -> pd.DataFrame:
    """Two years less a half of a shop with a week, a season, and prices that hold."""
    rng = np.random.default_rng(seed)
    season = 1 + 0.4 * np.sin(2 * np.pi * np.arange(len(DAYS)) / 365.25) + 0.3 * (DAYS.day_of_week >= 5)
    day = np.repeat(DAYS, rng.poisson(orders * season))
    product = rng.integers(0, 30, len(day))
    price = np.exp(rng.normal(3, 0.5, 30)).round(2)
    return pd.DataFrame({
        "day": day,
        "channel": rng.choice(["web", "app", "store"], len(day), p=[0.55, 0.3, 0.15]),
        "value": rng.lognormal(3.5, 0.6, len(day)),
        "product": product,
        "price": price[product],
    })  # fmt: skip


def look(
    rows: pd.DataFrame, until: str = "2025-05-14", **more: object
) -> tuple[pd.DatetimeIndex, np.ndarray, tuple[str, ...]]:
    report = find_drift(series_of(rows).until(pd.Timestamp(until)), **more)  # type: ignore[arg-type]
    return report.days[report.evidence >= report.threshold], report.evidence, tuple(c.column for c in report.changes)


def series_of(rows: pd.DataFrame) -> DailySeries:
    return daily_series(rows.drop(columns="day"), rows["day"], price_of={"price": "product"})


def test_a_healthy_shop_is_silent_over_season_week_and_growth() -> None:
    alarms, _, _ = look(shop())
    assert not len(alarms)


CHANGES = {
    "prices": lambda rows, after: rows.assign(price=rows["price"].where(~after, rows["price"] * 1.1)),
    "value": lambda rows, after: rows.assign(value=rows["value"].where(~after, rows["value"] * 0.75)),
    "lost": lambda rows, after: rows[~(after & (rows["channel"] == "store") & (np.arange(len(rows)) % 4 > 0))],
    "new": lambda rows, after: rows.assign(channel=rows["channel"].where(~(after & (np.arange(len(rows)) % 5 == 0)), "fax")),
    "missing": lambda rows, after: rows.assign(value=rows["value"].where(np.arange(len(rows)) % np.where(after, 5, 20) > 0)),
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "column"),
    [("prices", "price"), ("value", "value"), ("lost", "channel"), ("new", "channel"), ("missing", "value")],
)
def test_a_change_is_found_within_a_week_in_its_column(change: str, column: str) -> None:
    rows = shop(1)
    changed = CHANGES[change](rows, rows["day"] >= SINCE)
    alarms, _, columns = look(changed, "2025-03-17")
    assert len(alarms) and SINCE <= alarms[0] <= SINCE + pd.Timedelta(days=7)
    assert columns[0] == column


def test_looking_every_day_finds_what_one_look_finds() -> None:
    rows = shop(2)
    series = series_of(CHANGES["prices"](rows, rows["day"] >= SINCE))
    whole = find_drift(series).evidence
    for until in ("2025-03-11", "2025-03-20"):
        part = find_drift(series.until(pd.Timestamp(until)), start=date(2024, 12, 31)).evidence
        assert part == pytest.approx(whole[: len(part)], rel=1e-9)


@pytest.mark.slow
def test_an_acknowledged_change_is_silent_and_the_next_one_is_not() -> None:
    rows = shop(3)
    once = CHANGES["prices"](rows, rows["day"] >= SINCE)
    again = once.assign(price=once["price"].where(once["day"] < "2025-04-28", once["price"] * 1.1))
    known = [Acknowledged("price", date(2025, 3, 14))]
    alarms, _, _ = look(again, acknowledged=known)
    late = alarms[alarms > "2025-03-14"]
    assert len(late) and late[0] >= pd.Timestamp("2025-04-28")


def test_a_change_that_is_acknowledged_on_the_last_day_is_silent_at_once() -> None:
    rows = shop(3)
    series = series_of(CHANGES["prices"](rows, rows["day"] >= SINCE)).until(pd.Timestamp("2025-03-20"))
    assert find_drift(series).has_drifted
    report = find_drift(series, acknowledged=[Acknowledged("price", date(2025, 3, 20))])
    assert not report.has_drifted and not report.changes


def test_a_promotion_that_the_rows_show_is_no_drift() -> None:
    rng = np.random.default_rng(5)
    rows = shop(4)
    weeks = {week: rng.random() < 0.35 for week in range(80)}
    promoted = np.array([weeks[n] for n in ((rows["day"] - DAYS[0]).dt.days // 7)]) & (rows["product"] < 10).to_numpy()
    category = pd.Series(np.where(rows["product"] < 15, "tea", "mugs"))
    more = promoted & (rng.random(len(rows)) < 0.8)
    grown = pd.concat(
        [rows.assign(category=category, promoted=promoted), rows.assign(category=category, promoted=promoted)[more]]
    )
    series = daily_series(grown[["category", "channel"]], grown["day"], promoted=grown["promoted"].to_numpy())
    report = find_drift(series)
    assert report.evidence.max() < report.threshold


def test_too_little_data_is_said_and_never_called_healthy() -> None:
    few = find_drift(series_of(shop().query("day < '2024-02-10'")))
    none = find_drift(join_series(()))
    assert "56 are needed" in few.too_little and not few.has_drifted
    assert "no column" in none.too_little


@pytest.mark.slow
def test_one_broken_day_is_no_change() -> None:
    rows = shop(6)
    broken = rows.assign(value=rows["value"].where(rows["day"] != SINCE, rows["value"] * 100))
    alarms, _, _ = look(broken)
    assert not len(alarms)
