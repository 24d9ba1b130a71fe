"""Drift, beside Kolmogorov–Smirnov, PSI and NannyML on the same weeks: silence on healthy shops, speed on sick ones, a first summer, real data, scores with late outcomes, cost.

`make bench-monitor`. Shops are simulated, with seeds that are fixed here; FULL=1 takes 200 healthy shops and 60 for each change.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from aims import Aim, close, interval, share, table
from monitor_june import june
from monitor_outcomes import relations, without_labels
from monitor_peers import (
    AFTER,
    DETECTORS,
    NANNYML,
    PYTHON,
    Windows,
    alarms,
    nannyml_alarms,
    shop_windows,
    write_windows,
)

from d2c_mlops.data.simulate.script import PlannedEvent, event
from d2c_mlops.data.simulate.simulator import Shop
from d2c_mlops.data.simulate.world.regimes import Regime, regime_of
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
FIRST = 365  # day on which the year that is watched begins
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
    weeks: int  # healthy weeks that the peers looked at: of the second year, or of those before the change
    calls: dict[str, set[int]]  # the windows in which each peer alarmed
    slow: bool = False  # the category is among the slow changes after four weeks

    def early_share(self, peer: str) -> float:
        """Return the share of healthy weeks in which a peer alarmed."""
        return len([number for number in self.calls[peer] if number < AFTER]) / self.weeks

    def late(self, peer: str) -> bool:
        """Tell whether a peer alarmed after the change."""
        return any(number >= AFTER for number in self.calls[peer])


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


def watch(pool: ProcessPoolExecutor, tasks: list[tuple[int, str, str]]) -> list[tuple[str, Look]]:
    """Return what all detectors say of the shops; NannyML looks at their rows after the others, in one process of its own."""
    with tempfile.TemporaryDirectory() as place:
        looks = list(pool.map(partial(look_at, Path(place)), enumerate(tasks)))
        called = nannyml_alarms(Path(place))
    return [
        (change, replace(look, calls=look.calls | {NANNYML: called[str(number)]}))
        for number, (change, look) in enumerate(looks)
    ]


def look_at(folder: Path, numbered: tuple[int, tuple[int, str, str]]) -> tuple[str, Look]:
    number, (seed, change, world) = numbered
    shop, day = shop_of(seed, change, world)
    tables = shop.tables()
    series = table_series(tables, LAST if not change else START + timedelta(days=min(day + 28, DAYS - 2)))
    alarm = first_alarm(find_drift(series))
    rank = None
    if change and alarm is not None and alarm >= day:
        named = [c.column for c in find_drift(series.until(series.days[alarm])).changes]
        column = "lines.category" if change in FADES else CHANGES[change][1]
        rank = named.index(column) + 1 if column in named else 99
    end, after = (day, 4 if change in FADES else 1) if change else (DAYS, 0)
    windows = shop_windows(tables, START, FIRST, end, after, with_category=change in FADES)
    write_windows(folder, str(number), windows)
    weeks = (end - FIRST) // 7
    calls = alarms(windows, [*range(weeks), *range(AFTER, AFTER + after)])
    ours = None if alarm is None else alarm - day if change else alarm
    slow = change in FADES and any(c.column == "lines.category" for c in slow_changes(series))
    return change, Look(ours, bool(change) and ours is not None and ours < 0, rank, weeks, calls, slow)


def peer_columns(looks: list[Look]) -> dict[str, str]:
    """Return, for each peer, the share of shops in which it alarms after the change, and the share of healthy weeks before it in which it does."""
    return {peer: f"{np.mean([look.late(peer) for look in looks]):.2f} / {np.mean([look.early_share(peer) for look in looks]):.2f}" for peer in DETECTORS}  # fmt: skip


def silence(pool: ProcessPoolExecutor, shops: int | None = None) -> list[Aim]:
    aims = []
    for world, most in SILENT.items():
        first, count = HEALTHY if world == "usual" else (HEALTHY[0], OTHER_WORLDS)
        count = shops or count
        looks = [look for _, look in watch(pool, [(seed, "", world) for seed in range(first, first + count)])]
        alarmed = sum(look.ours is not None for look in looks)
        rows = []
        for peer in DETECTORS:
            shares = [look.early_share(peer) for look in looks]
            rows.append({"detector": peer, "shops ever alarmed": share(sum(part > 0 for part in shares), count), "weeks alarmed": f"{np.mean(shares):.3f}"})  # fmt: skip
        rows.append({"detector": "d2c_mlops, daily", "shops ever alarmed": share(alarmed, count), "weeks alarmed": ""})
        print(f"\nhealthy shops, {world} world, seeds {first} to {first + count - 1}, the second of two years\n" + table(rows), flush=True)  # fmt: skip
        aims.append(
            Aim(f"{world} world: shops that ever get a drift alarm in a healthy year ≤ {most}", share(alarmed, count), interval(alarmed, count)[0] <= most)
        )  # fmt: skip
    return aims


def fading(pool: ProcessPoolExecutor, shops: int | None = None) -> list[Aim]:
    """Let a category fade over four weeks: by 80 %, for an alarm, and by 50 %, for the list of slow changes."""
    first, count = SICK[0], shops or SICK[1]
    looks: dict[str, list[Look]] = {change: [] for change in FADES}
    tasks = [(seed, change, "usual") for change in FADES for seed in range(first, first + count)]
    for change, look in watch(pool, tasks):
        looks[change].append(look)
    alarms = {change: sum(look.ours is not None and 0 <= look.ours <= 28 for look in part) for change, part in looks.items()}  # fmt: skip
    listed = {change: sum(look.slow for look in part) for change, part in looks.items()}
    rows = [
        {"change": change, "alarm by day 28": share(alarms[change], count), "among slow changes": share(listed[change], count), "alarm before": str(sum(look.early for look in part))} | peer_columns(part)
        for change, part in looks.items()
    ]  # fmt: skip
    print(f"\na category fades, seeds {first} to {first + count - 1}; peers: share of shops with an alarm in the four weeks of fading / share of healthy weeks with one\n" + table(rows), flush=True)  # fmt: skip
    return [
        Aim(f"{FADING}: alarm by day 28 ≥ .75", share(alarms[FADING], count), interval(alarms[FADING], count)[1] >= 0.75),
        Aim(f"{HALVED}: among the slow changes ≥ .75", share(listed[HALVED], count), interval(listed[HALVED], count)[1] >= 0.75),
    ]  # fmt: skip


def speed(pool: ProcessPoolExecutor, shops: int | None = None) -> list[Aim]:
    first, count = SICK[0], shops or SICK[1]
    tasks = [(seed, change, "usual") for change in CHANGES for seed in range(first, first + count)]
    results = watch(pool, tasks)
    rows, aims, ranks = [], [], []
    for change, (_, _, (week, month)) in CHANGES.items():
        looks = [look for name, look in results if name == change]
        delays = [look.ours for look in looks if look.ours is not None and look.ours >= 0]
        in_week, in_month = sum(d <= 7 for d in delays), sum(d <= 28 for d in delays)
        ranks += [look.rank for look in looks if look.rank is not None]
        rows.append({"change": change, "in 7 days": share(in_week, count), "in 28 days": share(in_month, count), "median days": f"{np.median(delays):.0f}" if delays else "-",
                     "alarm before": str(sum(look.early for look in looks))} | peer_columns(looks))  # fmt: skip
        for days, hits, aim in ((7, in_week, week), (28, in_month, month)):
            aims.append(
                Aim(f"{change}: found within {days} days ≥ {aim}", share(hits, count), interval(hits, count)[1] >= aim)
            )
    print(
        f"\nchanges on a random day of the second year, seeds {first} to {first + count - 1}; peers: share of shops with an alarm in the seven days after / share of healthy weeks before with one\n"
        + table(rows),
        flush=True,
    )
    right = sum(rank <= 3 for rank in ranks)
    aims.append(
        Aim("right column among the first three ≥ .9", share(right, len(ranks)), interval(right, len(ranks))[1] >= 0.9)
    )
    return aims


def retail_tables(
    file: Path, factor: float = 1.0, since: pd.Timestamp | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the lines and the invoices of online_retail with their days; prices since a day are multiplied by the factor."""
    rows = pd.read_parquet(file)
    day = rows["InvoiceDate"].dt.normalize()
    sold = ~rows["InvoiceNo"].str.startswith("C")
    price = rows["UnitPrice"] * np.where(day < since, 1.0, factor) if since is not None else rows["UnitPrice"]
    lines = pd.DataFrame({"day": day, "quantity": rows["Quantity"].where(rows["Quantity"] > 0), "price": price, "stock": rows["StockCode"]})  # fmt: skip
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
    return lines, grouped


def retail_series(file: Path, factor: float = 1.0, since: pd.Timestamp | None = None):  # type: ignore[no-untyped-def]
    lines, invoices = retail_tables(file, factor, since)
    days = pd.date_range(lines["day"].min(), lines["day"].max())
    by_order = daily_series(invoices.drop(columns="day"), invoices["day"], reference=56, days=days, prefix="orders.")
    by_line = daily_series(lines.drop(columns="day"), lines["day"], reference=56, days=days, price_of={"price": "stock"}, prefix="lines.")  # fmt: skip
    return join_series([by_line, by_order])


def retail_peers(file: Path, planted: list[tuple[float, pd.Timestamp]]) -> tuple[int, dict[str, set[int]]]:
    """Return the weeks after the first eight, and the windows in which each peer alarms: these weeks, and from `AFTER` on the seven days after each planted change."""
    healthy = retail_tables(file)
    start = healthy[0]["day"].min()
    weeks = ((healthy[0]["day"].max() - start).days + 1 - 56) // 7
    windows = []
    for place, name in enumerate(("lines", "orders")):
        table_ = healthy[place].drop(columns=["stock"], errors="ignore")
        number = ((table_["day"] - start).dt.days - 56) // 7
        parts = [table_[number < weeks].assign(window=number[number < weeks])]
        for trial, (factor, since) in enumerate(planted):
            changed = retail_tables(file, factor, since)[place].drop(columns=["stock"], errors="ignore")
            week = (changed["day"] >= since) & (changed["day"] < since + pd.Timedelta(days=7))
            parts.append(changed[week].assign(window=AFTER + trial))
        rows = pd.concat(parts, ignore_index=True)
        windows.append(Windows(rows.drop(columns=["day", "window"]).add_prefix(f"{name}."), rows["window"].to_numpy()))
    calls = alarms(windows, [*range(weeks), *range(AFTER, AFTER + len(planted))])
    with tempfile.TemporaryDirectory() as folder:
        write_windows(Path(folder), "online_retail", windows)
        calls[NANNYML] = nannyml_alarms(Path(folder))["online_retail"]
    return weeks, calls


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
    delays, planted = [], []
    for number in range(40 if FULL else 16):
        since = series.days[int(rng.integers(24 * 7, len(series.days) - 14))]
        planted.append((1.1 if number % 2 else 0.9, since))
        evidence = find_drift(retail_series(file, *planted[-1])).evidence
        found = np.flatnonzero(evidence[series.days.get_loc(since) :] >= 20)
        delays.append(int(found[0]) if len(found) else 999)
    hits = sum(delay <= 7 for delay in delays)
    looked, calls = retail_peers(file, planted)
    rows = [
        {
            "detector": peer,
            "weeks alarmed": share(len({n for n in calls[peer] if n < AFTER}), looked),
            "planted ± 10 %, alarm within 7 days": share(len({n for n in calls[peer] if n >= AFTER}), len(planted)),
        }
        for peer in DETECTORS
    ]
    rows.append({"detector": "d2c_mlops, daily", "weeks alarmed": share(len(weeks), count), "planted ± 10 %, alarm within 7 days": share(hits, len(delays))})  # fmt: skip
    print(
        f"\nonline_retail, weeks after the first eight; acknowledged: {[f'{k.column} {k.day}' for k in known]}\n"
        + table(rows),
        flush=True,
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
    parser.add_argument("--workers", type=int, default=2, help="processes that simulate shops")
    parser.add_argument("--shops", type=int, help="shops of each world and of each change")
    chosen = parser.parse_args()
    wanted = chosen.only or PARTS
    aims: list[Aim] = []
    with ProcessPoolExecutor(chosen.workers) as pool:
        parts: dict[str, Callable[[], list[Aim]]] = {
            "cost": cost,
            "retail": lambda: retail(chosen.data),
            "bank": lambda: without_labels(chosen.data, PYTHON),
            "leads": lambda: relations(pool.map, 200 if FULL else 40),
            "june": lambda: june(pool.map),
            "silence": lambda: silence(pool, chosen.shops),
            "speed": lambda: speed(pool, chosen.shops),
            "fading": lambda: fading(pool, chosen.shops),
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
