"""A category of a simulated shop that loses half of its lines over four weeks is among the slow changes, and opens no alert before."""

from datetime import date, timedelta

import pytest

from d2c_mlops.data.simulate.script import event
from d2c_mlops.data.simulate.simulator import Shop
from d2c_mlops.monitoring.slow_changes import SlowChange, slow_changes
from d2c_mlops.monitoring.table_series import table_series

START, DAYS = date(2023, 1, 2), 560
FADES = START + timedelta(days=DAYS - 28)


def changes_of(lost: float) -> list[SlowChange]:
    """Return the slow changes of drinks; they lose a share of their lines to the pantry in fourteen equal steps."""
    share = 1 - (1 - lost) ** (1 / 14)
    days = [FADES + timedelta(days=2 * step) for step in range(14)] if lost else []
    events = [event(f"fades {day}", "fashion_turn", day, share, category="drinks", to="pantry") for day in days]
    shop = Shop("grocer", seed=0, days=DAYS, start=START, orders=40.0, products=48, events=events)
    series = table_series(shop.tables(), START + timedelta(days=DAYS - 1))
    return [c for c in slow_changes(series) if (c.column, c.statistic) == ("lines.category", "drinks")]


@pytest.mark.slow
def test_a_category_that_loses_half_over_four_weeks_is_a_slow_change() -> None:
    (change,) = changes_of(0.5)
    assert change.since == FADES and change.upper < -0.05 and -0.7 < change.size < -0.2
    assert changes_of(0.0) == []
