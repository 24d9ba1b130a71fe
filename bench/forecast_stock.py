"""Units that would have sold without stock-outs beside what was wanted: on simulated shops, and on real days that are censored by hand.

    python bench/forecast_stock.py

The simulated shops know the demand before stock. Of FreshRetailNet, days with stock at all hours are censored by hand, and all other days are left out, because nobody
knows what was wanted then: some days lose the share of hours that real stock-outs there last (sales are taken as even over the hours), or, with a flag only, everything
above a stock that is drawn around the usual sales.
"""

from __future__ import annotations

import sys
from datetime import date

import numpy as np
import pandas as pd
from aims import Aim, close, table
from forecast_metrics import Array
from forecast_panels import FILES, SELLING_HOURS, shared_data

from d2c_mlops.models.forecasting.baselines import weekday_profile
from d2c_mlops.models.forecasting.forecast_inputs import mean_of
from d2c_mlops.models.forecasting.plans.stock_outs import StockOuts, recovered_units

REGIMES, SEEDS, DAYS = ("gift", "grocer"), (1, 2), 150
WINDOW = 14  # days around each that its level comes from, as in with_recovered
CENSORED = 0.2  # share of the days with stock that are censored by hand
MOST = {"hours": 0.03, "flag": 0.05}  # bias of the demand of a simulated shop
MOST_REAL = 0.05  # bias of days that are censored by hand


def recovered(sold: Array, share: Array, by_hours: bool) -> Array:
    """Return the units that would have sold [day, series]; `share` is that of the day without stock."""
    out = share > 0
    stock = StockOuts(share, np.zeros_like(out)) if by_hours else StockOuts(np.zeros_like(share), out)
    usual = weekday_profile(np.where(out, np.nan, sold), 7)[(np.arange(len(sold)) - len(sold)) % 7]
    return recovered_units(sold, stock, usual, WINDOW)


def simulated(regime: str, seed: int) -> tuple[Array, Array, Array]:
    """Return units wanted and sold, and the share of the day's orders after the stock was out [day, product]."""
    from d2c_mlops.data.simulate.simulator import Shop

    shop = Shop(regime, seed=seed, days=DAYS, start=date(2023, 1, 1), orders=100, products=40)
    demand = shop.truth.demand
    moments = pd.to_datetime(demand["out_of_stock_at"], utc=True).dt.tz_convert(shop.zone)
    orders = pd.to_datetime(shop.tables()["orders"]["ordered_at"], utc=True).dt.tz_convert(shop.zone)
    minutes = np.sort((orders.dt.hour * 60 + orders.dt.minute).to_numpy())
    minute = (moments.dt.hour * 60 + moments.dt.minute).fillna(1440)
    after = 1 - np.searchsorted(minutes, minute.to_numpy()) / len(minutes)
    days = demand.assign(share=np.where(moments.isna(), 0.0, np.maximum(after, 1e-6)))
    wanted, sold, share = (
        days.pivot_table(index="date", columns="product_id", values=name, aggfunc="first").to_numpy(float)
        for name in ("demanded", "sold", "share")
    )
    return wanted, sold, share


def censored_by_hand(by_hours: bool) -> tuple[Array, Array, Array, Array] | None:
    """Return units wanted, units sold, the share without stock, and which days were censored by hand [day, series]; None without the data."""
    if not (path := shared_data() / FILES["freshretail"][0]).exists():
        return None
    raw = pd.read_parquet(path)
    raw["share"] = (raw["stockout_hours_6_22"] / SELLING_HOURS).clip(0, 1)
    wanted, share = (
        raw.pivot_table(index="dt", columns=["store_id", "product_id"], values=name, aggfunc="sum").to_numpy(float)
        for name in ("sale_amount", "share")
    )
    durations = share[share > 0]
    wanted = np.where(share > 0, np.nan, wanted)
    chance = np.random.default_rng(1)
    chosen = (share == 0) & ~np.isnan(wanted) & (chance.random(wanted.shape) < CENSORED)
    if by_hours:
        lost = chance.choice(durations, wanted.shape)
        return wanted, np.where(chosen, wanted * (1 - lost), wanted), np.where(chosen, lost, 0.0), chosen
    level = np.nan_to_num(mean_of(wanted))
    stock = np.where(chosen, level * chance.uniform(0.5, 1.5, wanted.shape), np.inf)
    chosen = wanted >= stock
    return wanted, np.minimum(wanted, stock), np.where(chosen, 1.0, 0.0), chosen


def stock_aims(markdown: bool = False) -> list[Aim]:
    """Measure, print a table, and return the aims."""
    rows, biases = [], {"hours": [], "flag": []}
    aims = []

    def add(what: str, known: str, wanted: Array, sold: Array, units: Array, cells: Array) -> tuple[float, float]:
        of_all, of_cells = (float(np.nansum(units[c]) / np.nansum(wanted[c]) - 1) for c in (~np.isnan(wanted), cells))
        lost = 1 - float(np.nansum(sold[cells]) / np.nansum(wanted[cells]))
        rows.append(
            {"demand": what, "known": known, "days censored": f"{cells.mean():.1%}", "lost on them": f"{lost:.1%}",
             "bias on them": f"{of_cells:+.1%}", "bias of all days": f"{of_all:+.1%}"}
        )  # fmt: skip
        return of_all, of_cells

    for regime in REGIMES:
        for seed in SEEDS:
            wanted, sold, share = simulated(regime, seed)
            for known in biases:
                units = recovered(sold, share, known == "hours")
                biases[known].append(add(f"simulated {regime} {seed}", known, wanted, sold, units, share > 0)[0])
    for known, values in biases.items():
        worst = max(values, key=abs)
        what = f"bias of the demand of simulated shops with {known} of stock-outs at most {MOST[known]:.0%}"
        aims.append(Aim(what, f"at worst {worst:+.1%} of {len(values)} shops", abs(worst) <= MOST[known]))
    for known in biases:
        if censored := censored_by_hand(known == "hours"):
            wanted, sold, share, chosen = censored
            units = recovered(sold, share, known == "hours")
            of_chosen = add("freshretail, censored by hand", known, wanted, sold, units, chosen)[1]
            what = f"bias on days of freshretail that are censored by hand, {known} known, at most {MOST_REAL:.0%}"
            aims.append(Aim(what, f"{of_chosen:+.1%}", abs(of_chosen) <= MOST_REAL))
    print(table(rows, markdown))
    return aims


if __name__ == "__main__":
    sys.exit(close(stock_aims()))
