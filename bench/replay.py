"""Retraining policies, replayed over real shops and over simulated shops that break: what the chosen policy costs beside the best and the worst in hindsight.

    python bench/replay.py [--only TEXT] [--json FILE]

Real shops (../shared/data or $D2C_SHARED_DATA, and the embedded sample): a model of every policy, looked at weekly. To be cheap, the panels are samples, evenly from fast to slow
sellers: 12 series of the bakery, 24 categories of The Complete Journey, 24 products of online_retail; sums of series are not forecast. FULL=1 takes all series of the
bakery, 120 categories and 120 products. The margin of the choice was tuned on the bakery alone; the other two were replayed once with the rule as it is.

Simulated shops (d2c_mlops.data.simulate, seeds in SEEDS): a channel with a third of the orders is lost on a random day of the second half, so that the first half, on which
the policy is chosen, knows of no break. They are looked at daily.

Costs are the loss of the charter, 4 for a unit too few and 6 for a unit too many, and the price of trainings. always-fire trains at each look, never-fire never. STRICT=1 makes a missed
aim an exit code of 1.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from aims import Aim, close, table
from forecast_panels import shop_of

from d2c_mlops.data.tables import Tables
from d2c_mlops.models.forecasting.forecasting import DemandForecaster
from d2c_mlops.models.forecasting.panel import panel_of
from d2c_mlops.operations.replay.simulation import POLICIES, PolicyReplayOptions, ReplayReport, replay_tables
from d2c_mlops.settings import load_settings

FULL = os.environ.get("FULL") == "1"
REAL = {
    "bakery": ("store_id,product_id", 105 if FULL else 12),
    "sample": ("category", 120 if FULL else 24),
    "online retail": ("product_id", 120 if FULL else 24),
}
SEEDS = tuple(range(3000, 3008 if FULL else 3004))
BREAK_DAYS, BREAK_ORDERS = 500, 120.0
TRAINING_COST = 0.002  # of the mean weekly loss of the policies: what a training and a look at its result are worth
FIXED = tuple(text for text in POLICIES if "on " not in text and text != "never")
ALWAYS = "every 1 days"


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
    model: DemandForecaster, tables: Tables, step: int, policies: tuple[str, ...] = POLICIES
) -> ReplayReport:
    """Replay with a price of trainings that fits the size of the shop: TRAINING_COST of a week's loss of the charter's baseline."""
    weekly = baseline_loss(model, tables)
    options = PolicyReplayOptions(policies=policies, step=step, training_cost=round(TRAINING_COST * weekly, 2))
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
        rows.append({"policy": row["policy"] + (" (chosen)" if row["chosen"] else ""), "trainings": str(row["trainings"]), "refused": str(row["refused"]),
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
    if chosen.json:
        chosen.json.write_text(json.dumps(documents, indent=1))
    return close(aims)


if __name__ == "__main__":
    raise SystemExit(main())
