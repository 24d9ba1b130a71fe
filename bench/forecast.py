"""The demand forecast beside what planners do and beside statsmodels, out of time on real shops.

    python bench/forecast.py [--markdown]

Data: the embedded sample (The Complete Journey, a grocer) and, where they are found, shops in ../shared/data or
$D2C_SHARED_DATA: online_retail.parquet (a gift web shop), and three whose future is partly known: bakery.parquet (daily;
promotions, holidays, school holidays), gadget_raw.csv (weekly; main-page feature, price), avocado.csv (weekly, three years). Four cutoffs,
horizon 28 days or 8 weeks, all series that were alive at the cutoff. The last two horizons of the three are left out: they were
never looked at while the methods were chosen. Times are CPU time of one process. Then simulated shops of 100 and 1,000 products, and
with FULL=1 of 5,000 and 20,000 (bench/forecast_scale.py). STRICT=1 makes a missed aim an exit code of 1.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import orjson
import pandas as pd
from aims import Aim, close, table
from forecast_scale import scale, usual_sizes
from statsmodels.tsa.exponential_smoothing.ets import ETSModel

from d2c_mlops.data.ingestion.ingest import map_tables
from d2c_mlops.data.tables import Tables
from d2c_mlops.data.validation import validate
from d2c_mlops.models.forecasting.backtest import Backtest, align, backtest, summary, wape
from d2c_mlops.models.forecasting.forecasting import DemandForecaster, replay
from d2c_mlops.models.forecasting.forecasts import learn
from d2c_mlops.models.forecasting.panel import Panel
from d2c_mlops.models.forecasting.seasonal import smoothed_level
from d2c_mlops.models.forecasting.smoothing import Array

SUBSET = 40  # series that statsmodels is tried on, evenly over the range from slow to fast sellers
MOST_MS = 1.0  # of the smoothing rung
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


@dataclass(frozen=True)
class Result:
    """What was measured on one case."""

    case: Case
    series: int
    ours: dict[str, float]
    weekday_mean: float
    naive: float
    last_year: float
    ms: float
    smoothing_ms: float
    subset: dict[str, float]  # wape of ours and of statsmodels on the subset, and its ms per series


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


def ets(panel: Panel, horizon: int) -> Array:
    """Forecast each series by statsmodels: additive errors, damped trend and, for days, the week as the season."""
    out = np.zeros((horizon, len(panel.series)))
    for i in range(len(panel.series)):
        y = panel.units[:, i]
        y = np.nan_to_num(y[np.flatnonzero(~np.isnan(y))[0] :])
        seasonal = {"seasonal": "add", "seasonal_periods": 7} if panel.freq == "D" else {}
        begin = "heuristic" if len(y) >= 10 else "estimated"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = ETSModel(y, error="add", trend="add", damped_trend=True, initialization_method=begin, **seasonal)
            out[:, i] = np.maximum(model.fit(disp=False).forecast(horizon), 0.0)
    return out


def subset(panel: Panel, ours: Backtest, model: DemandForecaster, tables: Tables) -> dict[str, float]:
    """Return WAPE of ours and of statsmodels on a subset, and the milliseconds of statsmodels per series."""
    always = np.flatnonzero(~np.isnan(ours.scale).any(axis=0))
    order = always[np.argsort(np.nansum(panel.sold[:, always], axis=0))]
    chosen = order[np.linspace(0, len(order) - 1, min(SUBSET, len(order))).astype(int)]
    names = tuple(panel.series[i] for i in chosen)
    began = time.process_time()
    theirs = backtest(align(panel, names), ets, model.horizon, model.cutoffs, model.min_history)
    spent = (time.process_time() - began) * 1000 / (len(names) * len(theirs.cutoffs))
    mine = Backtest(
        ours.cutoffs,
        ours.actual[..., chosen],
        ours.forecast[..., chosen],
        ours.bounds[:, :, chosen],
        ours.scale[:, chosen],
    )
    return {"ours": float(wape(mine)), "statsmodels": float(wape(theirs)), "ms": spent}


def measure(case: Case, tables: Tables, as_of: date) -> Result:
    """Run one case."""
    model = DemandForecaster(freq=case.freq, by=case.by, top=case.top)
    panel = model.panel(tables, as_of)
    began = time.process_time()
    inputs = model.inputs(tables, panel)
    learn(panel, model.horizon, model.min_history, inputs)
    ms = (time.process_time() - began) * 1000 / len(panel.series)
    began = time.process_time()
    smoothed_level(inputs)
    smoothing_ms = (time.process_time() - began) * 1000 / len(panel.series)
    results = replay(model, tables, as_of)
    return Result(
        case,
        len(panel.series),
        summary(results["forecast"]),
        float(wape(results["weekday_mean_8w"])),
        float(wape(results["seasonal_naive"])),
        float(wape(results["last_year"])),
        ms,
        smoothing_ms,
        subset(panel, results["forecast"], model, tables),
    )


def row(result: Result) -> dict[str, str]:
    """Return a result as a row of text."""
    ours, few = result.ours, result.subset
    return {
        "data": result.case.name,
        "series": f"{result.series:,}",
        "WAPE": f"{ours['wape']:.3f}",
        "weekday mean 8w": f"{result.weekday_mean:.3f}",
        "seasonal naive": f"{result.naive:.3f}",
        "last year": f"{result.last_year:.3f}",
        "RMSSE": f"{ours['rmsse']:.3f}",
        "bias": f"{ours['bias']:+.3f}",
        "in 80 %": f"{ours['coverage_80']:.3f}",
        "in 95 %": f"{ours['coverage_95']:.3f}",
        "ms a series": f"{result.ms:.1f}",
        "smoothing": f"{result.smoothing_ms:.2f}",
        f"WAPE of {SUBSET}": f"{few['ours']:.3f}",
        "statsmodels": f"{few['statsmodels']:.3f}",
        "its ms a series": f"{few['ms']:.0f}",
    }


def aims(results: list[Result]) -> list[Aim]:
    """Return what was aimed at beside what was measured."""
    found = []
    for r in results:
        wanted = r.ours["wape"] < min(r.weekday_mean, r.naive, r.last_year)
        measured = f"{r.ours['wape']:.3f} vs {r.weekday_mean:.3f}, {r.naive:.3f}, {r.last_year:.3f}"
        found.append(Aim(f"WAPE below every baseline on {r.case.name}", measured, wanted))
    first = results[0]
    for level in (80, 95):
        share = first.ours[f"coverage_{level}"]
        met = abs(share - level / 100) <= 0.03
        found.append(Aim(f"{level} % intervals hold within 3 points on {first.case.name}", f"{share:.3f}", met))
    for r in results:
        share = r.ours["coverage_80"]
        found.append(Aim(f"80 % intervals hold 74 to 86 % on {r.case.name}", f"{share:.3f}", 0.74 <= share <= 0.86))
    pooled = float(np.mean([r.ours["coverage_80"] for r in results]))
    found.append(Aim("80 % intervals hold 78 to 82 %, mean of all", f"{pooled:.3f}", 0.78 <= pooled <= 0.82))
    slowest = max(results, key=lambda r: r.smoothing_ms)
    found.append(
        Aim(
            f"the smoothing rung takes at most {MOST_MS:g} ms CPU a series",
            f"{slowest.smoothing_ms:.2f} ms ({slowest.case.name})",
            slowest.smoothing_ms <= MOST_MS,
        )
    )
    dearest = max(results, key=lambda r: r.ms / r.subset["ms"])
    found.append(
        Aim(
            "the whole ladder is cheaper than statsmodels' ETS on the same series",
            f"{dearest.ms:.0f} ms vs {dearest.subset['ms']:.0f} ms a series ({dearest.case.name})",
            dearest.ms < dearest.subset["ms"],
        )
    )
    worse = max(results, key=lambda r: r.subset["ours"] / r.subset["statsmodels"])
    found.append(
        Aim(
            f"WAPE at most 1 % above statsmodels' ETS on {SUBSET} series of each",
            f"at worst {worse.subset['ours']:.3f} vs {worse.subset['statsmodels']:.3f} ({worse.case.name})",
            worse.subset["ours"] <= 1.01 * worse.subset["statsmodels"],
        )
    )
    return found


def main() -> int:
    """Measure, print the table and the aims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    markdown = parser.parse_args().markdown
    there = shops()
    results = [measure(case, *there[case.dataset]) for case in CASES if case.dataset in there]
    print(table([row(result) for result in results], markdown))
    return close(aims(results) + scale(usual_sizes(), markdown))


if __name__ == "__main__":
    sys.exit(main())
