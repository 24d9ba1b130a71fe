"""The segmentation on real customers: the published BG/NBD parameters, the value of 90 days out of time, segments with a profit.

    python bench/segments.py CDNOW_FOLDER

CDNOW_FOLDER holds CDNOW_sample.txt, the purchases of 2,357 customers (from the data of the package `lifetimes`). Online Retail is read
from ../shared/data or $D2C_SHARED_DATA; where it is absent, its part is left out and said to be. STRICT=1 makes a missed aim an
exit code of 1.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from aims import Aim, close, table

from d2c_mlops.data.ingestion.ingest import map_tables
from d2c_mlops.data.tables import Tables
from d2c_mlops.models.segmentation.lifetime_value import fit_bgnbd
from d2c_mlops.models.segmentation.plots import (
    plot_calibration,
    plot_migrations,
    plot_planned_profit,
    plot_segment_counts,
)
from d2c_mlops.models.segmentation.segmentation import METHODS, Segmenter, calibration_by_tenth, replay_cutoffs

PUBLISHED = {"r": 0.243, "alpha": 4.414, "a": 0.793, "b": 2.426}  # Fader, Hardie and Lee 2005, time in weeks
CALIBRATED = pd.Timestamp("1997-09-30")  # the last day of the paper's 39 weeks
AS_OF = date(2011, 12, 8)  # the last full day of Online Retail
PICTURES = Path(__file__).resolve().parents[1] / ".bench" / "segments"


def cdnow(folder: Path) -> list[Aim]:
    """Fit the 2,357 customers of the paper from their raw purchases."""
    names = ["master", "customer", "day", "discs", "dollars"]
    bought = pd.read_csv(folder / "CDNOW_sample.txt", sep=r"\s+", names=names, dtype={"day": str})
    bought["day"] = pd.to_datetime(bought["day"], format="%Y%m%d")
    days = bought[bought["day"] <= CALIBRATED].groupby("customer")["day"].agg(["min", "max", "nunique"])
    x = days["nunique"].to_numpy(dtype=float) - 1
    t_x, span = (
        ((days["max"] - days["min"]).dt.days / 7).to_numpy(),
        ((CALIBRATED - days["min"]).dt.days / 7).to_numpy(),
    )
    began = time.process_time()
    found = asdict(fit_bgnbd(x, t_x, span))
    spent = time.process_time() - began
    print(f"\nBG/NBD on the {len(x):,} customers of CDNOW, {spent:.1f} CPU s\n")
    print(table([{"": "published", **{k: f"{v:.3f}" for k, v in PUBLISHED.items()}}, {"": "found", **{k: f"{v:.4f}" for k, v in found.items()}}]))  # fmt: skip
    off = max(abs(found[name] / value - 1) for name, value in PUBLISHED.items())
    return [Aim("CDNOW: published BG/NBD parameters within 2 %", f"{off:.2%} off at most", off <= 0.02)]


def out_of_time(model: Segmenter, tables: Tables) -> list[Aim]:
    """Go back to several days and compare what was expected with what came."""
    past, rows = replay_cutoffs(model, tables, AS_OF), []
    for cutoff, part in past.groupby("cutoff"):
        mae = {name: (part[name] - part["came"]).abs().mean() for name in METHODS}
        ratio = part["model"].sum() / part["came"].sum()
        rows.append({"as of": str(cutoff), "customers": f"{len(part):,}", **{k: f"{v:.1f}" for k, v in mae.items()}, "expected / came": f"{ratio:.2f}"})  # fmt: skip
    print("\nMean absolute error of the next 90 days per customer, GBP\n")
    print(table(rows))
    tenths = calibration_by_tenth(past)
    print("\nExpected and come, by tenths of the customers, GBP\n")
    print(table([{"tenth": str(r.tenth), "expected": f"{r.expected:,.0f}", "came": f"{r.came:,.0f}"} for r in tenths.itertuples()]))  # fmt: skip
    plot_calibration(tenths, plt.subplots(figsize=(5, 4), layout="constrained")[1])
    plt.savefig(PICTURES / "calibration.png", dpi=100)
    ours, carried = ((past[name] - past["came"]).abs().mean() for name in ("model", "carry_forward_90d"))
    won = sum(float(row["model"]) < float(row["carry_forward_90d"]) for row in rows)
    return [
        Aim("MAE below that of carrying 90 days forward", f"{ours:.1f} against {carried:.1f}", ours < carried),
        Aim("the same on every day tried", f"{won} of {len(rows)}", won == len(rows)),
    ]  # fmt: skip


def plan(model: Segmenter, tables: Tables) -> list[Aim]:
    """Fit, print segments, choice and migration, and fit again a month earlier to see whether labels stay."""
    began = time.process_time()
    model.fit(tables, AS_OF)
    spent = time.process_time() - began
    learned = model.learned
    print(f"\nSegments as of {AS_OF}, {spent:.1f} CPU s; notes: {'; '.join(learned.notes)}\n")
    rows = []
    for one in learned.ranked():
        must = "never" if one.must_bring is None else f"{one.must_bring:,.0f}"
        rows.append({
            "": one.label, "name": one.name, "customers": f"{one.customers:,}", "revenue": f"{one.revenue_share:.0%}",
            "GBP in 90 days": f"{one.value_90d:,.0f}", "profit": f"{one.profit_90d:,.0f}", "treatment": one.treatment,
            "cost": f"{one.treatment_cost:,.0f}", "must bring": must, "planned profit": f"{one.planned_profit:,.0f}",
        })  # fmt: skip
    print(table(rows, "--markdown" in sys.argv))
    rows = [{"segments": f"{c.segments}{' *' * c.chosen}", "gain": f"{c.gain:,.0f}", "stability": f"{c.stability:.2f}",
             "migration": f"{c.migration:.2f}", "smallest": f"{c.smallest:.2f}", "silhouette": f"{c.silhouette:.2f}"}
            for c in learned.candidates]  # fmt: skip
    print(f"\n{table(rows)}")
    draw(model)
    before, after = Segmenter().fit(tables, AS_OF - timedelta(days=30)), Segmenter()
    after.follow(before)
    after.fit(tables, AS_OF)
    known = before.records(tables, AS_OF - timedelta(days=30))
    same = float((before.predict(known).segment == after.predict(known).segment).mean())
    asked = pd.concat([model.records(tables, AS_OF)] * 240, ignore_index=True).head(1_000_000)
    began = time.process_time()
    model.predict(asked)
    print(f"\n{len(asked):,} customers assigned in {time.process_time() - began:.1f} CPU s")
    chosen = next(c for c in learned.candidates if c.chosen)
    steady = f"ARI {chosen.stability:.2f}, migration {chosen.migration:.2f}, smallest {chosen.smallest:.2f}"
    limits = model.options.limits
    return [
        Aim(f"ARI ≥ {limits.stability}, migration ≤ {limits.migration}, smallest ≥ {limits.smallest}", steady, limits.keeps(chosen)),
        Aim("after a month, at least 90 % of the customers keep their label under the new model", f"{same:.1%}", same >= 0.9),
    ]  # fmt: skip


def draw(model: Segmenter) -> None:
    """Save the pictures of the plan, of the choice and of who moved."""
    for name, draw_on in (("plan", plot_planned_profit), ("choice", plot_segment_counts)):
        draw_on(model.learned, plt.subplots(1, 2, figsize=(11, 4), layout="constrained")[1])
        plt.savefig(PICTURES / f"{name}.png", dpi=100)
    plot_migrations(model.learned, plt.subplots(figsize=(6, 4), layout="constrained")[1])
    plt.savefig(PICTURES / "moves.png", dpi=100)
    plt.close("all")


def main() -> int:
    """Measure and print."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    aims = cdnow(Path(sys.argv[1]))
    beside = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    retail = Path(os.environ.get("D2C_SHARED_DATA", beside)) / "online_retail.parquet"
    if retail.exists():
        tables, model = Tables(map_tables(str(retail))[0]), Segmenter(cutoffs=6)
        aims += out_of_time(model, tables) + plan(model, tables)
        print(f"pictures: {PICTURES}")
    else:
        print(f"left out: online retail ({retail} is not there)")
    return close(aims)


if __name__ == "__main__":
    sys.exit(main())
