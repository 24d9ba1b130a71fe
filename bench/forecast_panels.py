"""The panels that bench/forecast.py measures: shops of the embedded sample and of ../shared/data, with what is known of their future."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import orjson
import pandas as pd

from d2c_mlops.data.ingestion.ingest import map_tables
from d2c_mlops.data.tables import Tables
from d2c_mlops.data.validation import validate

UNTOUCHED = 2  # last horizons of the development sets that are left out


@dataclass(frozen=True)
class Case:
    """One panel to forecast."""

    dataset: str
    by: str
    freq: str
    top: int = 0

    @property
    def name(self) -> str:
        return f"{self.dataset} ({self.by.replace('_id', '')}, {'daily' if self.freq == 'D' else 'weekly'})"

    @property
    def slug(self) -> str:
        """Return a name for files."""
        return f"{self.dataset}-{self.by}-{self.freq}".replace(" ", "-").replace(",", "-")


CASES = (
    Case("sample", "category", "D"),
    Case("sample", "category", "W"),
    Case("sample", "product_id", "D", 2000),
    Case("sample", "product_id", "W", 2000),
    Case("online retail", "product_id", "D"),
    Case("online retail", "product_id", "W"),
    Case("bakery", "store_id,product_id", "D"),
    Case("gadgets", "product_id", "W"),
    Case("avocado", "store_id,product_id", "W"),
)


def shared_data() -> Path:
    """Return the folder of the data that is not part of the project."""
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    return Path(os.environ.get("D2C_SHARED_DATA", beside))


def shops() -> dict[str, tuple[Tables, date]]:
    """Return the shops that are there, with the last full day of each."""
    found = {"sample": (Tables(map_tables("sample")[0]), date(2017, 12, 31))}
    retail = shared_data() / "online_retail.parquet"
    if retail.exists():
        found["online retail"] = (Tables(map_tables(str(retail))[0]), date(2011, 12, 9))
    else:
        print(f"left out: online retail ({retail} is not there)")
    for name, (file, read, horizon) in PLANNED.items():
        if (path := shared_data() / file).exists():
            tables = read(path)
            last = pd.Timestamp(tables["sales_totals"]["last_day"].max()).date()
            found[name] = (tables, last - timedelta(days=UNTOUCHED * horizon))
        else:
            print(f"left out: {name} ({path} is not there)")
    return found


def totals(frame: pd.DataFrame, keys: list[str], days: int, **plans: pd.DataFrame) -> Tables:
    """Return tables of units by date and keys; `plans` are rows of the same keys and dates, each for `days` days."""

    def packed(rows: pd.DataFrame) -> pd.DataFrame:
        texts = [
            orjson.dumps(dict(zip(keys, map(str, row), strict=True))).decode()
            for row in rows[keys].itertuples(index=False)
        ]
        return rows.drop(columns=keys).assign(keys=texts, last_day=rows["date"] + pd.Timedelta(days=days - 1))

    sold = packed(frame).assign(frequency="D" if days == 1 else "W")
    frames = {"sales_totals": validate("sales_totals", sold)}
    for name, rows in plans.items():
        plan = packed(rows).rename(columns={"date": "first_day"}).assign(known_at=pd.NaT)
        frames[name] = validate(name, plan)
    return Tables(frames)


def events(frame: pd.DataFrame, keys: list[str], columns: dict[str, str]) -> pd.DataFrame:
    """Return a row of the calendar for each flag that is set."""
    rows = [frame.loc[frame[c] > 0, [*keys, "date"]].assign(event=event, value=1.0) for c, event in columns.items()]
    return pd.concat(rows, ignore_index=True)


def bakery(path: Path) -> Tables:
    """Return daily demand of 3 products in 35 shops with promotions and holidays."""
    raw = pd.read_parquet(path).rename(columns={"store": "store_id", "product": "product_id", "demand": "units"})
    keys = ["store_id", "product_id"]
    flags = {"promotion_currentweek": "promotion", "is_holiday": "holiday", "is_schoolholiday": "school_holiday"}
    return totals(raw[[*keys, "date", "units"]], keys, 1, calendar=events(raw, keys, flags))


def gadgets(path: Path) -> Tables:
    """Return weekly sales of 44 gadgets with the main-page feature and the price."""
    raw = pd.read_csv(path, parse_dates=["week"])
    raw = raw.rename(columns={"sku": "product_id", "week": "date", "weekly_sales": "units"})
    feature = events(raw.assign(feature=raw["feat_main_page"].astype(float)), ["product_id"], {"feature": "feature"})
    prices = raw.loc[raw["price"] > 0, ["product_id", "date", "price"]].assign(currency=None)
    return totals(raw[["product_id", "date", "units"]], ["product_id"], 7, calendar=feature, prices=prices)


def avocado(path: Path) -> Tables:
    """Return weekly volumes by region and type, regions that are sums of others included."""
    raw = pd.read_csv(path, parse_dates=["Date"])
    raw = raw.rename(columns={"region": "store_id", "type": "product_id", "Date": "date", "Total Volume": "units"})
    return totals(raw[["store_id", "product_id", "date", "units"]], ["store_id", "product_id"], 7)


PLANNED: dict[str, tuple[str, Callable[[Path], Tables], int]] = {
    "bakery": ("bakery.parquet", bakery, 28),
    "gadgets": ("gadget_raw.csv", gadgets, 56),
    "avocado": ("avocado.csv", avocado, 56),
}
