"""Silence: how often clean simulated shops that are assessed daily raise a severe alarm."""

from __future__ import annotations

import tempfile
from collections import Counter
from datetime import date
from pathlib import Path

from aims import Aim, table
from quality_batches import WAYS, batches, in_processes, onsets, peer_alarms, run_peers, write_batches
from scipy.stats import chi2

from d2c_mlops.data.quality import assess_quality
from d2c_mlops.data.simulate import Shop

REGIMES = ("fashion", "gift", "grocer")
FIRST = 60  # days of a shop before it is assessed
SEED = 100
AlarmKey = tuple[str, str, str, str]  # fault, table, check, column


def shop_of(number: int, seed: int) -> Shop:
    """Return the clean shop of a number."""
    regime = REGIMES[number % 3]
    orders = (40.0, 120.0)[number % 2] / (1 if regime == "fashion" else 4)
    return Shop(regime=regime, seed=seed + number, days=365, orders=orders, products=120)


def severe_alarms(number: int, seed: int, part: int, parts: int, folder: str) -> dict[date, list[AlarmKey]]:
    """Return what a clean shop's daily assessments are severe about, for a part of its days."""
    shop = shop_of(number, seed)
    tables, days = shop.tables(), shop.dates[FIRST:]
    if part == 0:
        write_batches(Path(folder) / str(number), batches(tables), days)
    chosen = days[part * len(days) // parts : (part + 1) * len(days) // parts]
    return {
        day: [
            (f.fault, f.table, f.check, f.column)
            for f in assess_quality(tables, day).findings
            if f.severity == "severe"
        ]
        for day in chosen
    }


def silence(shops: int, seed: int = SEED) -> list[Aim]:
    """Assess clean shops daily and count severe alarms in a shop-year."""
    parts, rows = 4, []
    totals: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        jobs = [(number, seed, part, parts, place) for number in range(shops) for part in range(parts)]
        results = in_processes(severe_alarms, jobs)
        by_shop = [{day: alarms for _ in range(parts) for day, alarms in next(results).items()} for _ in range(shops)]
        run_peers(Path(place))
        for number, by_day in enumerate(by_shop):
            counts = onsets(by_day)
            totals["assess_quality"] += counts.total()
            row = {"shop": f"{REGIMES[number % 3]} {seed + number}", "assess_quality": str(counts.total())}
            for way, alarms in peer_alarms(Path(place) / str(number)).items():
                totals[way] += (count := onsets(alarms).total())
                row[way] = str(count)
            row["which"] = (
                ", ".join(f"{check} of {where}.{column} {n}" for (_, where, check, column), n in counts.items() if n)
                or "none"
            )
            rows.append(row)
    print("\n" + table(rows))
    years = shops * (365 - FIRST) / 365
    measured = {
        way: f"{totals[way] / years:.2f} ({poisson_interval(totals[way], years)})" for way in ("assess_quality", *WAYS)
    }
    print(
        "alarms in a shop-year with their 95 % interval: "
        + ", ".join(f"{way} {text}" for way, text in measured.items())
    )
    low = float(chi2.ppf(0.025, 2 * totals["assess_quality"]) / 2 / years) if totals["assess_quality"] else 0.0
    what = "clean shops assessed daily: at most 1 severe alarm in a shop-year"
    return [Aim(what, f"{measured['assess_quality']}, {shops} shops, {shops * (365 - FIRST):,} assessments", low <= 1)]


def poisson_interval(count: int, years: float) -> str:
    low = chi2.ppf(0.025, 2 * count) / 2 if count else 0.0
    return f"{low / years:.2f} to {chi2.ppf(0.975, 2 * count + 2) / 2 / years:.2f}"
