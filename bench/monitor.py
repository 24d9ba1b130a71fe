"""Drift, beside Kolmogorov–Smirnov and PSI on the same weeks: silence on healthy shops, speed on sick ones, a first summer, real data, scores with late outcomes, cost.

`make bench-monitor`. Shops are simulated, with seeds that are fixed here; FULL=1 takes 200 healthy shops and 60 for each change.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from aims import Aim, close, interval, share, table
from monitor_june import june
from monitor_outcomes import relations, without_labels
from scipy import stats

from d2c_mlops.data.days import local_days
from d2c_mlops.data.simulate.script import PlannedEvent, event
from d2c_mlops.data.simulate.simulator import Shop
from d2c_mlops.data.simulate.world.regimes import Regime, regime_of
from d2c_mlops.data.tables import Tables
from d2c_mlops.monitoring.daily_series import daily_series, join_series
from d2c_mlops.monitoring.drift import Acknowledged, DriftReport, find_drift
from d2c_mlops.monitoring.sketches import sketch_frame, stability_index
from d2c_mlops.monitoring.slow_changes import slow_changes
from d2c_mlops.monitoring.table_series import table_series

FULL = os.environ.get("FULL") == "1"
START, DAYS, LAST = date(2024, 1, 1), 730, date(2025, 12, 29)
REGIMES = ("grocer", "fashion", "gift")
WORLDS: dict[str, Callable[[Regime], Regime]] = {
    "usual": lambda regime: regime,
    # three times the styles on promotion, and a display that lifts demand by as much again
    "promotion-heavy": lambda r: replace(r, promotion=(min(3 * r.promotion[0], 0.8), 2 * r.promotion[1] - 1)),
    "wandering": lambda r: replace(r, level=(r.level[0], 2 * r.level[1]), product=(r.product[0], 2 * r.product[1])),
}
SILENT = {"usual": 0.05, "promotion-heavy": 0.05, "wandering": 0.12}  # share of shops that may alarm in a year
HEALTHY, SICK = (1000, 200 if FULL else 48), (2000, 60 if FULL else 12)  # first seed, shops
OTHER_WORLDS = 200 if FULL else 24  # healthy shops of each
FADING = "a category loses 80 % over four weeks"
HALVED = "a category loses 50 % over four weeks"
FADES = {FADING: 0.8, HALVED: 0.5}
ORDERS = (30.0, 800.0 if FULL else 300.0)  # a day, drawn evenly by logarithm
REFERENCE = 20_000  # rows that the peers compare each week with
PARTS = ("cost", "retail", "bank", "leads", "june", "silence", "speed", "fading")
Event = Callable[[date], PlannedEvent]
CHANGES: dict[str, tuple[Event, str, tuple[float, float]]] = {
    "prices + 10 %": (lambda d: event("x", "price", d, 0.10), "lines.unit_price", (0.85, 0.97)),
    "prices - 10 %": (lambda d: event("x", "price", d, -0.10), "lines.unit_price", (0.85, 0.97)),
    "currency swapped": (
        lambda d: event("x", "currency_swap", d, currency="EUR", to="USD"),
        "lines.unit_price",
        (0.85, 0.97),
    ),
    "channel lost": (lambda d: event("x", "channel_lost", d, 1.0, channel="app"), "orders.channel", (0.85, 0.97)),
    "new channel of 30 %": (
        lambda d: event("x", "channel_new", d, 0.30, channel="mobile"),
        "orders.channel",
        (0.85, 0.97),
    ),
    "mix + 15 points": (
        lambda d: event("x", "customer_mix", d, 0.15, segment="country:AT"),
        "orders.country",
        (0.75, 0.95),
    ),
}


@dataclass(frozen=True)
class Look:
    """What detectors said of one shop: days after the change until the first alarm (None: none), and the columns named."""

    ours: int | None
    early: bool  # an alarm before the change
    rank: int | None  # of the right column
    ks: float  # share of weeks of the second year, or of those before the change
    psi: float
    slow: bool = False  # the category is among the slow changes after four weeks


def fade(regime: Regime, lost: float, day: date) -> list[PlannedEvent]:
    """Return the events by which the first category loses a share of its lines to the second over four weeks, in fourteen equal steps."""
    old, new = regime.categories[:2]
    share_of_step = 1 - (1 - lost) ** (1 / 14)
    days = [day + timedelta(days=2 * step) for step in range(14)]
    return [event(f"fades {first}", "fashion_turn", first, share_of_step, category=old, to=new) for first in days]


def shop_of(seed: int, change: str = "", world: str = "usual") -> tuple[Shop, int]:
    """Return a shop and the day of its change, counted from its start."""
    regime = WORLDS[world](regime_of(REGIMES[seed % 3]))
    rng = np.random.default_rng(seed)
    orders = float(np.exp(rng.uniform(*np.log(ORDERS))))
    day = int(rng.integers(400, 660))
    since = START + timedelta(days=day)
    events = fade(regime, FADES[change], since) if change in FADES else [CHANGES[change][0](since)] if change else []
    return Shop(regime, seed=seed, days=DAYS, start=START, orders=orders, events=events), day


def first_alarm(report: DriftReport) -> int | None:
    alarms = np.flatnonzero(report.evidence >= report.threshold)
    return int(alarms[0]) if len(alarms) else None


def look_at(task: tuple[int, str, str]) -> tuple[str, Look]:
    seed, change, world = task
    shop, day = shop_of(seed, change, world)
    tables = shop.tables()
    series = table_series(tables, LAST if not change else START + timedelta(days=min(day + 28, DAYS - 2)))
    alarm = first_alarm(find_drift(series))
    rank = None
    if change and alarm is not None and alarm >= day:
        named = [c.column for c in find_drift(series.until(series.days[alarm])).changes]
        column = "lines.category" if change in FADES else CHANGES[change][1]
        rank = named.index(column) + 1 if column in named else 99
    ks, psi = weekly_peers(tables, 365, day if change else DAYS)
    ours = None if alarm is None else alarm - day if change else alarm
    slow = change in FADES and any(c.column == "lines.category" for c in slow_changes(series))
    return change, Look(ours, bool(change) and ours is not None and ours < 0, rank, ks, psi, slow)


def weekly_peers(tables: Tables, first: int, end: int) -> tuple[float, float]:
    """Return the share of weeks in which a KS or χ² test at p < .05 or a PSI above .2 calls some column changed; reference: the first year."""
    orders, lines = tables["orders"], tables["order_lines"]
    order_day = (pd.DatetimeIndex(local_days(orders["ordered_at"], tables.zone)) - pd.Timestamp(START)).days.to_numpy()
    line_day = (pd.DatetimeIndex(local_days(lines["ordered_at"], tables.zone)) - pd.Timestamp(START)).days.to_numpy()
    value = orders["order_id"].map((lines["unit_price"] * lines["quantity"]).groupby(lines["order_id"]).sum())
    frames = [
        (orders[["channel", "country"]].assign(value=value), order_day),
        (lines[["quantity", "unit_price"]], line_day),
    ]
    weeks = range(first, end - 6, 7)
    ks, psi = np.zeros(len(weeks), bool), np.zeros(len(weeks), bool)
    rng = np.random.default_rng(0)
    for frame, day in frames:
        chosen = np.flatnonzero(day < first)
        reference = frame.iloc[rng.choice(chosen, min(len(chosen), REFERENCE), replace=False)]
        sketches = sketch_frame(reference)
        for number, start in enumerate(weeks):
            week = frame[(day >= start) & (day < start + 7)]
            now = sketch_frame(week)
            for name in frame.columns:
                psi[number] |= stability_index(sketches[name], now[name]) > 0.2
                ks[number] |= _p_value(reference[name], week[name]) < 0.05
    return float(ks.mean()), float(psi.mean())


def _p_value(one: pd.Series, two: pd.Series) -> float:
    if pd.api.types.is_numeric_dtype(one):
        return float(stats.ks_2samp(one.dropna(), two.dropna()).pvalue)
    counts = pd.DataFrame({"one": one.value_counts(), "two": two.value_counts()}).fillna(0)
    return float(stats.chi2_contingency(counts.to_numpy()).pvalue) if len(counts) > 1 else 1.0


def silence(pool: ProcessPoolExecutor) -> list[Aim]:
    aims = []
    for world, most in SILENT.items():
        first, count = HEALTHY if world == "usual" else (HEALTHY[0], OTHER_WORLDS)
        looks = [look for _, look in pool.map(look_at, [(seed, "", world) for seed in range(first, first + count)])]
        alarmed = sum(look.ours is not None for look in looks)
        rows = [
            {"detector": "always", "shops ever alarmed": "1.000", "weeks alarmed": "1.000"},
            {"detector": "never", "shops ever alarmed": "0.000", "weeks alarmed": "0.000"},
            {"detector": "KS or χ², p < .05", "shops ever alarmed": share(sum(look.ks > 0 for look in looks), count), "weeks alarmed": f"{np.mean([look.ks for look in looks]):.3f}"},
            {"detector": "PSI > .2", "shops ever alarmed": share(sum(look.psi > 0 for look in looks), count), "weeks alarmed": f"{np.mean([look.psi for look in looks]):.3f}"},
            {"detector": "d2c_mlops, daily", "shops ever alarmed": share(alarmed, count), "weeks alarmed": ""},
        ]  # fmt: skip
        print(f"\nhealthy shops, {world} world, seeds {first} to {first + count - 1}, the second of two years\n" + table(rows), flush=True)  # fmt: skip
        aims.append(
            Aim(f"{world} world: shops that ever get a drift alarm in a healthy year ≤ {most}", share(alarmed, count), interval(alarmed, count)[0] <= most)
        )  # fmt: skip
    return aims


def fading(pool: ProcessPoolExecutor) -> list[Aim]:
    """Let a category fade over four weeks: by 80 %, for an alarm, and by 50 %, for the list of slow changes."""
    first, count = SICK
    looks: dict[str, list[Look]] = {change: [] for change in FADES}
    tasks = [(seed, change, "usual") for change in FADES for seed in range(first, first + count)]
    for change, look in pool.map(look_at, tasks):
        looks[change].append(look)
    alarms = {change: sum(look.ours is not None and 0 <= look.ours <= 28 for look in part) for change, part in looks.items()}  # fmt: skip
    listed = {change: sum(look.slow for look in part) for change, part in looks.items()}
    rows = [
        {"change": change, "alarm by day 28": share(alarms[change], count), "among slow changes": share(listed[change], count), "alarm before": str(sum(look.early for look in part))}
        for change, part in looks.items()
    ]  # fmt: skip
    print(f"\na category fades, seeds {first} to {first + count - 1}\n" + table(rows), flush=True)
    return [
        Aim(f"{FADING}: alarm by day 28 ≥ .75", share(alarms[FADING], count), interval(alarms[FADING], count)[1] >= 0.75),
        Aim(f"{HALVED}: among the slow changes ≥ .75", share(listed[HALVED], count), interval(listed[HALVED], count)[1] >= 0.75),
    ]  # fmt: skip


def speed(pool: ProcessPoolExecutor) -> list[Aim]:
    first, count = SICK
    tasks = [(seed, change, "usual") for change in CHANGES for seed in range(first, first + count)]
    results = list(pool.map(look_at, tasks))
    rows, aims, ranks = [], [], []
    for change, (_, _, (week, month)) in CHANGES.items():
        looks = [look for name, look in results if name == change]
        delays = [look.ours for look in looks if look.ours is not None and look.ours >= 0]
        in_week, in_month = sum(d <= 7 for d in delays), sum(d <= 28 for d in delays)
        ranks += [look.rank for look in looks if look.rank is not None]
        rows.append({"change": change, "in 7 days": share(in_week, count), "in 28 days": share(in_month, count), "median days": f"{np.median(delays):.0f}" if delays else "-",
                     "alarm before": str(sum(look.early for look in looks)), "KS before": f"{np.mean([look.ks for look in looks]):.2f}", "PSI before": f"{np.mean([look.psi for look in looks]):.2f}"})  # fmt: skip
        for days, hits, aim in ((7, in_week, week), (28, in_month, month)):
            aims.append(
                Aim(f"{change}: found within {days} days ≥ {aim}", share(hits, count), interval(hits, count)[1] >= aim)
            )
    print(
        f"\nchanges on a random day of the second year, seeds {first} to {first + count - 1}; KS, PSI: share of healthy weeks before it that they alarm\n"
        + table(rows),
        flush=True,
    )
    right = sum(rank <= 3 for rank in ranks)
    aims.append(
        Aim("right column among the first three ≥ .9", share(right, len(ranks)), interval(right, len(ranks))[1] >= 0.9)
    )
    return aims


def retail_series(file: Path, factor: float = 1.0, since: pd.Timestamp | None = None):  # type: ignore[no-untyped-def]
    rows = pd.read_parquet(file)
    day = rows["InvoiceDate"].dt.normalize()
    sold = ~rows["InvoiceNo"].str.startswith("C")
    price = rows["UnitPrice"] * np.where(day < since, 1.0, factor) if since is not None else rows["UnitPrice"]
    days = pd.date_range(day.min(), day.max())
    lines = pd.DataFrame(
        {"quantity": rows["Quantity"].where(rows["Quantity"] > 0), "price": price, "stock": rows["StockCode"]}
    )
    invoices = pd.DataFrame(
        {
            "invoice": rows["InvoiceNo"],
            "day": day,
            "guest": rows["CustomerID"].isna(),
            "country": rows["Country"],
            "cancelled": ~sold,
            "value": rows["Quantity"] * price,
        }
    )
    grouped = invoices.groupby("invoice").agg(
        day=("day", "first"),
        guest=("guest", "first"),
        country=("country", "first"),
        cancelled=("cancelled", "first"),
        value=("value", "sum"),
        lines=("value", "size"),
    )
    by_order = daily_series(grouped.drop(columns="day"), grouped["day"], reference=56, days=days, prefix="orders.")
    return join_series(
        [daily_series(lines, day, reference=56, days=days, price_of={"price": "stock"}, prefix="lines."), by_order]
    )


def retail(data: Path) -> list[Aim]:
    """Count the weeks of online_retail with an alarm, each acknowledged on its day, and find planted price changes."""
    file = data / "online_retail.parquet"
    series = retail_series(file)
    known: list[Acknowledged] = []
    weeks: set[int] = set()
    while True:  # each alarm is acknowledged on its day; the next one counts from there on
        report = find_drift(series, acknowledged=known)
        later = np.flatnonzero(
            (report.evidence >= report.threshold)
            & (series.days > (pd.Timestamp(known[-1].day) if known else series.days[0]))
        )
        if not len(later):
            break
        alarm = int(later[0])
        weeks.add(alarm // 7)
        moved = find_drift(series.until(series.days[alarm]), acknowledged=known).changes
        known += [Acknowledged(change.column, series.days[alarm].date()) for change in moved[:1]]
    count = (len(series.days) - 56) // 7
    rng = np.random.default_rng(11)
    delays = []
    for number in range(40 if FULL else 16):
        since = series.days[int(rng.integers(24 * 7, len(series.days) - 14))]
        evidence = find_drift(retail_series(file, 1.1 if number % 2 else 0.9, since)).evidence
        found = np.flatnonzero(evidence[series.days.get_loc(since) :] >= 20)
        delays.append(int(found[0]) if len(found) else 999)
    hits = sum(delay <= 7 for delay in delays)
    print(
        f"\nonline_retail: alarms in {len(weeks)} of {count} weeks after the first eight; {[f'{k.column} {k.day}' for k in known]}; planted ± 10 %: {hits} of {len(delays)} within 7 days"
    )
    return [
        Aim(
            "weeks of online_retail with an alarm ≤ .05",
            share(len(weeks), count),
            interval(len(weeks), count)[0] <= 0.05,
        ),
        Aim(
            "prices ± 10 % planted after week 24, found within 7 days ≥ .85",
            share(hits, len(delays)),
            interval(hits, len(delays))[1] >= 0.85,
        ),
    ]


def cost() -> list[Aim]:
    """Sketch a million rows of forty columns and compare them."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame(
        {f"number {n}": rng.lognormal(3, 1, 1_000_000) for n in range(30)}
        | {
            f"level {n}": pd.Categorical.from_codes(rng.integers(0, 12, 1_000_000), [f"L{k}" for k in range(12)])
            for n in range(10)
        }
    )
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    sketches = sketch_frame(frame)
    indexes = [stability_index(sketch, sketch) for sketch in sketches.values()]
    seconds, grown = (
        time.process_time() - start,
        (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024**2,
    )
    assert max(indexes) < 1e-9
    return [
        Aim("1 M rows × 40 columns compared in < 5 CPU s", f"{seconds:.2f}", seconds < 5),
        Aim("… with < 0.5 GB beyond the rows", f"{grown:.2f} GB", grown < 0.5),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, action="append")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    chosen = parser.parse_args()
    wanted = chosen.only or PARTS
    aims: list[Aim] = []
    with ProcessPoolExecutor(2) as pool:
        parts: dict[str, Callable[[], list[Aim]]] = {
            "cost": cost,
            "retail": lambda: retail(chosen.data),
            "bank": lambda: without_labels(chosen.data, Path(".bench/nannyml/bin/python")),
            "leads": lambda: relations(pool.map, 200 if FULL else 40),
            "june": lambda: june(pool.map),
            "silence": lambda: silence(pool),
            "speed": lambda: speed(pool),
            "fading": lambda: fading(pool),
        }
        for name, part in parts.items():
            if name in wanted:
                begun = time.monotonic()
                aims += part()
                print(f"{name}: {(time.monotonic() - begun) / 60:.1f} minutes", flush=True)
    print(
        f"\nCPU seconds: {sum(resource.getrusage(who).ru_utime for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)):.0f}"
    )
    return close(aims)


if __name__ == "__main__":
    raise SystemExit(main())
