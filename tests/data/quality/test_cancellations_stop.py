"""Rows with negative units that stop coming are found in raw tables, without columns for returns and without a table of refunds."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.data.quality import assess_quality
from d2c_mlops.data.quality.report import QualityFinding

TODAY = date(2024, 6, 10)
STOP = pd.Timestamp("2024-05-27")


def sales(lost: float, lines: int = 1, order_ids: bool = True) -> pd.DataFrame:
    """Return 60 sales and 15 orders that take something back a day; a share of these is sold from STOP on."""
    draw = np.random.default_rng(6)
    parts = []
    for day in pd.date_range("2024-01-25", TODAY):
        back = draw.poisson(15)
        back -= draw.binomial(back, lost) if day >= STOP else 0
        parts += [(day, f"S{day:%j}-{n}", 1) for n in range(60)]
        parts += [(day, f"C{day:%j}-{n // lines}", -1) for n in range(back * lines)]
    frame = pd.DataFrame(parts, columns=["date", "order_id", "quantity"])
    frame["sku"] = draw.choice(["MUG-1", "CUP-2", "POT-3"], len(frame))
    return frame if order_ids else frame.drop(columns="order_id")


def stopped(frame: pd.DataFrame) -> list[QualityFinding]:
    return [f for f in assess_quality(frame, TODAY).findings if f.check == "returns_marked_sold"]


@pytest.mark.parametrize("options", [{}, {"lines": 9}, {"order_ids": False}])
def test_returns_that_stop_are_dated_and_sized(options: dict[str, int]) -> None:
    found = stopped(sales(0.6, **options))
    assert len(found) == 1 and found[0].severity == "severe"
    assert found[0].since is not None and abs((pd.Timestamp(found[0].since) - STOP).days) <= 2
    assert found[0].size == pytest.approx(0.6, abs=0.12)


def test_returns_that_go_on_are_no_finding() -> None:
    assert stopped(sales(0.0)) == []


def test_the_estimate_without_refunds_is_called_a_lower_bound() -> None:
    frame = sales(0.0)
    frame = frame[frame["quantity"] > 0].assign(
        customer_id=[f"C{n % 900}" for n in range(len(frame[frame["quantity"] > 0]))]
    )
    found = next(f for f in assess_quality(frame, TODAY).findings if f.check == "no_returns")
    assert "a lower bound" in found.message
