"""Retraining policies, replayed over real shops and over simulated shops that break: what the chosen policy costs beside the best and the worst in hindsight.

    python bench/replay.py [--only TEXT] [--json FILE]

Real shops (../shared/data or $D2C_SHARED_DATA, and the embedded sample): a model of every policy, looked at weekly. To be cheap, the panels are samples, evenly from fast to slow
sellers: 24 series of the bakery, 100 categories of The Complete Journey, 60 products of online_retail; sums of series are not forecast. FULL=1 takes all series of the
bakery, 300 categories and 200 products. The margin of the choice was set on the bakery alone. That costs are means over the
days on which a cadence may begin was added after a first replay of smaller samples of all three, so the other two are not quite unseen; FULL=1 has other samples.

Simulated shops (d2c_mlops.data.simulate, seeds in SEEDS): nine in ten orders of the channel web are lost on a random day of the second half, so that the first half, on which
the policy is chosen, knows of no break. They are looked at daily.

Costs are the loss of the charter, 4 for a unit too few and 6 for a unit too many, and the price of trainings. every 7 days trains at each weekly look (always-fire), never at none (never-fire); daily looks have no always-fire. STRICT=1 makes a missed
aim an exit code of 1.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from aims import Aim, close, table
from forecast_panels import shop_of

from d2c_mlops.data.simulate.script import event
from d2c_mlops.data.simulate.simulator import Shop
from d2c_mlops.data.tables import Tables
from d2c_mlops.models.forecasting.forecasting import DemandForecaster
from d2c_mlops.models.forecasting.panel import panel_of
from d2c_mlops.operations.replay.report import ReplayReport
from d2c_mlops.operations.replay.simulation import POLICIES, PolicyReplayOptions, replay_tables
from d2c_mlops.parallel import use_backend
from d2c_mlops.settings import load_settings

FULL = os.environ.get("FULL") == "1"
REAL = {
    "bakery": ("store_id,product_id", 105 if FULL else 24),
    "sample": ("category", 300 if FULL else 100),
    "online retail": ("product_id", 200 if FULL else 60),
}
SEEDS = tuple(range(3000, 3008 if FULL else 3003))
BREAK_POLICIES = tuple(text for text in POLICIES if "expected" not in text)
BREAK_LOOKS = 206  # days
BREAK_DAYS, BREAK_ORDERS, LOST = 600, 60.0, 0.9  # LOST: share of the orders of the web shop that does not come any more
TRAINING_COST = 0.002  # of the mean weekly loss of the policies: what a training and a look at its result are worth
FIXED = tuple(text for text in POLICIES if "on " not in text and text != "never")


def sampled(tables: Tables, last: date, by: str, count: int) -> Tables:
    """Return the tables with `count` series, evenly from fast to slow sellers among those that sell on most days."""
    panel = panel_of(tables, last, by, "D", 20_000)
    sold = np.nansum(panel.sold, axis=0)
    usual = (np.nan_to_num(panel.sold[-364:]) > 0).mean(axis=0) > 0.3
    order = [place for place in np.argsort(-sold, kind="stable") if usual[place]]
    chosen = {
        panel.series[order[place]] for place in np.linspace(0, len(order) - 1, min(count, len(order))).astype(int)
    }
    if "sales_totals" in tables:
        frames = {}
        for name, frame in tables.items():
            if "keys" not in frame:
                frames[name] = frame
                continue
            keys = frame["keys"].map({text: "|".join(json.loads(text).values()) for text in frame["keys"].unique()})
            frames[name] = frame[keys.isin(chosen)].reset_index(drop=True)
        return Tables(frames, tables.zone)
    lines, products = tables["order_lines"], tables["products"]
    named = products.set_index("product_id")[by] if by in products and by != "product_id" else None
    series = lines["product_id"] if named is None else lines["product_id"].map(named)
    kept = lines[series.isin(chosen)].reset_index(drop=True)
    orders = tables["orders"]
    return Tables(
        {
            **dict(tables),
            "order_lines": kept,
            "orders": orders[orders["order_id"].isin(kept["order_id"])].reset_index(drop=True),
        },
        tables.zone,
    )


def real(name: str) -> ReplayReport | None:
    """Replay one real shop; None where its data are not there."""
    by, count = REAL[name]
    shop = shop_of(name, untouched=0)
    if shop is None:
        return None
    tables, last = shop
    model = DemandForecaster(by=by, sums=False, history=730)
    return replay_with_price(model, sampled(tables, last, by, count), step=7)


def replay_with_price(
    model: DemandForecaster, tables: Tables, step: int, policies: tuple[str, ...] = POLICIES, start: date | None = None
) -> ReplayReport:
    """Replay with a price of trainings that fits the size of the shop: TRAINING_COST of a week's loss of the charter's baseline."""
    weekly = baseline_loss(model, tables)
    options = PolicyReplayOptions(
        policies=policies, start=start, step=step, training_cost=round(TRAINING_COST * weekly, 2)
    )
    return replay_tables("demand", model, tables, load_settings(), options)


def baseline_loss(model: DemandForecaster, tables: Tables) -> float:
    """Return about what a week of forecasts by the weekday mean loses, from the first half of the history."""
    last = tables.last_sale()
    assert last is not None
    panel = panel_of(tables, last, model.by, model.freq, 20_000)
    units = np.nan_to_num(panel.sold[: len(panel.dates) // 2])
    mean = np.stack([units[k::7][-9:-1].mean(axis=0) for k in range(7)])
    now = np.stack([units[k::7][-1] for k in range(7)])
    return float((4 * np.maximum(now - mean, 0) + 6 * np.maximum(mean - now, 0)).sum())


def figures(report: ReplayReport) -> list[dict[str, str]]:
    """Return the table of a replay."""
    rows = []
    for row in report.rows():
        rows.append({"policy": row["policy"] + (" (chosen)" if row["chosen"] else ""), "trainings": f"{row['trainings']:.3g}", "refused": f"{row['refused']:.3g}",
                     "WAPE": f"{row['wape']:.4f}", "answered": f"{row['answered']:.2f}", "revision": f"{row['revision']:.3f}",
                     "cost a week, first half": f"{row['cost_first_half']:,.0f}", "second half": f"{row['cost_second_half']:,.0f}"})  # fmt: skip
    return rows


def describe(name: str, report: ReplayReport, seconds: float) -> None:
    choice = report.choice
    print(f"\n{name}: looks {report.first} to {report.walks[0].days[-1]}, {report.fits} fits of {report.fit_seconds / report.fits:.1f} CPU s, "
          f"replay {seconds:.0f} CPU s = {seconds / report.fit_seconds:.2f} times the fits; a training costs {report.training_cost:,.2f}; second half from {choice.split.date()}")  # fmt: skip
    print(table(figures(report)))
    print(
        f"chosen: {choice.chosen}; best in hindsight: {choice.best}; regret {choice.regret:.2%}; equal on the first half: {', '.join(choice.equal)}",
        flush=True,
    )


def cpu() -> float:
    return sum(
        resource.getrusage(who).ru_utime + resource.getrusage(who).ru_stime
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )


def broken(seed: int, policies: tuple[str, ...] = BREAK_POLICIES) -> tuple[ReplayReport, date, float]:
    """Replay a simulated shop that loses most orders of one channel on a random day of the second half; the day, and CPU seconds without the simulation."""
    rng = np.random.default_rng(seed)
    start = date(2023, 1, 2)
    day = start + timedelta(days=BREAK_DAYS - int(rng.integers(50, 90)))
    breakdown = event("break", "channel_lost", day, LOST, channel="web")
    shop = Shop("grocer", seed=seed, days=BREAK_DAYS, start=start, orders=BREAK_ORDERS, products=24, events=[breakdown])
    tables = shop.tables()
    begun = cpu()
    model = DemandForecaster(by="category", sums=False, history=550)
    report = replay_with_price(model, tables, 1, policies, start + timedelta(days=BREAK_DAYS - BREAK_LOOKS))
    return report, day, cpu() - begun


def breaks(seeds: tuple[int, ...]) -> tuple[list[Aim], dict[str, Any]]:
    """Compare the policies in shops that break: costs of the second half over those of the best fixed cadence of the same shop."""
    shares: dict[str, list[float]] = {}
    beaten, delays, documents, seconds, fits = 0, [], {}, 0.0, 0.0
    for seed in seeds:
        report, day, spent = broken(seed)
        seconds, fits = seconds + spent, fits + report.fit_seconds
        describe(f"simulated break, seed {seed}, on {day}", report, spent)
        second = report.choice.second
        best = min(float(second[name]) for name in FIXED)
        chosen = float(second[report.choice.chosen])
        beaten += chosen < best
        for name in second.index:
            shares.setdefault(name, []).append(float(second[name]) / best)
        shares.setdefault("chosen on the first half", []).append(chosen / best)
        walked = next(w for w in report.walks if w.policy == "every 28 days or on drift")
        after = [e.day for e in walked.events if e.action == "trained" and e.day >= day and "drift" in e.reason]
        delays.append((min(after) - day).days if after else None)
        documents[f"break {seed}"] = report.to_dict()
    rows = [
        {
            "policy": name,
            "cost over that of the best fixed cadence": f"{np.mean(values):.4f}",
            "by seed": " ".join(f"{value:.3f}" for value in values),
        }
        for name, values in sorted(shares.items(), key=lambda item: float(np.mean(item[1])))
    ]
    print(
        f"\nsimulated breaks, seeds {seeds[0]} to {seeds[-1]}; days from the break to the first training on drift: {delays}\n"
        + table(rows),
        flush=True,
    )
    means = {name: float(np.mean(values)) for name, values in shares.items()}
    best_fixed = min(FIXED, key=lambda name: means[name])
    chosen_mean = means["chosen on the first half"]
    return [
        Aim("abrupt break: the chosen policy costs less than every fixed cadence", f"{chosen_mean:.4f} of the best cadence of each shop; {beaten} of {len(seeds)} shops; best cadence over all: {best_fixed} {means[best_fixed]:.4f}", chosen_mean < 1),
        Aim("abrupt break: time ≤ 1.2 times the fits", f"{seconds / fits:.2f}", seconds <= 1.2 * fits),
    ], documents  # fmt: skip


def determinism() -> list[Aim]:
    """Replay one shop with one process and with two."""
    documents = []
    for backend in ("sequential", "loky:2"):
        with use_backend(backend):
            report, _, _ = broken(SEEDS[0], ("never", "every 28 days or on drift"))
        documents.append(report.to_dict())
    same = documents[0] == documents[1]
    return [Aim("the same report twice, with one process and with two", "equal" if same else "different", same)]


def real_aims(name: str, report: ReplayReport, seconds: float) -> list[Aim]:
    choice = report.choice
    return [
        Aim(f"{name}: the chosen policy costs ≤ 1.02 times the best in hindsight", f"{1 + choice.regret:.4f} ({choice.chosen}; best: {choice.best})", choice.regret <= 0.02),
        Aim(f"{name}: less than the worst", f"{choice.second[choice.chosen]:,.0f} against {choice.second[choice.worst]:,.0f} ({choice.worst})", bool(choice.second[choice.chosen] < choice.second[choice.worst])),
        Aim(f"{name}: time ≤ 1.2 times the fits", f"{seconds / report.fit_seconds:.2f}", seconds <= 1.2 * report.fit_seconds),
    ]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    aims: list[Aim] = []
    documents: dict[str, Any] = {}
    for name in REAL:
        if chosen.only in name:
            begun = cpu()
            report = real(name)
            if report is not None:
                seconds = cpu() - begun
                describe(name, report, seconds)
                aims += real_aims(name, report, seconds)
                documents[name] = report.to_dict()
    if chosen.only in "determinism":
        aims += determinism()
    if chosen.only in "breaks":
        break_aims, of_breaks = breaks(SEEDS)
        aims += break_aims
        documents |= of_breaks
    if chosen.json:
        chosen.json.write_text(json.dumps(documents, indent=1))
    return close(aims)


if __name__ == "__main__":
    raise SystemExit(main())
