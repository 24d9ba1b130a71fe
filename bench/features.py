"""Customer features of ten million order lines: DuckDB out of core beside the pandas groupby that people write.

    python bench/features.py [--lines 10000000]

Both sides, in turn and five times each, read the same Parquet parts in a process of their own and give the same table of one row
per customer; that they agree is checked. The aims compare medians, one thread with one thread. CPU time is that of the work,
what it costs to import stands beside it; peak memory is that of the child, imports included. STRICT=1 makes a missed aim an exit
code of 1.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from datetime import UTC, date, datetime
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
from aims import Aim, close, table

STORE = Path(__file__).resolve().parents[1] / ".bench" / "features"
AS_OF = date(2024, 12, 31)
SINCE = date(2024, 10, 2)
RFM = ["recency_days", "purchases", "order_value"]
TIMES = 5  # each side runs in turn; the median counts
SIDES = {"ours": "d2c_mlops (DuckDB)", "pandas": "pandas groupby"}
DAYS, CHANNELS = 730, np.array(["web", "app", "marketplace", "store"], dtype=object)


def generate(lines: int) -> None:
    """Write a shop of `lines` order lines as a dataset of the store, unless it is there."""
    from d2c_mlops.data.schemas import SCHEMAS, TIME
    from d2c_mlops.data.store import write_dataset
    from d2c_mlops.data.validation import validate

    if (STORE / "data" / f"lines_{lines}" / "manifest.json").exists():
        return
    rng = np.random.default_rng(0)
    orders, customers, products = lines // 4, max(lines // 33, 1), 20_000
    buyer = np.minimum(rng.pareto(1.3, orders) * customers / 8, customers - 1).astype(np.int64)
    moment = np.sort(rng.integers(0, DAYS * 86400, orders)) * 1_000_000 + 1_672_531_200_000_000
    when = pd.Series(moment.astype("datetime64[us]")).dt.tz_localize("UTC").astype(TIME)
    channel = pd.Series(CHANNELS[rng.choice(4, orders, p=[0.5, 0.25, 0.15, 0.1])], dtype="str")
    ids = pd.Series(np.char.add("O", np.arange(orders).astype(str)).astype(object), dtype="str")
    names = pd.Series(np.char.add("C", np.arange(customers).astype(str)).astype(object), dtype="str")
    heads = pd.DataFrame(
        {"order_id": ids, "customer_id": names.take(buyer).to_numpy(), "channel": channel, "ordered_at": when}
    )
    heads = heads.assign(currency="EUR", source="bench")
    of = np.sort(rng.integers(0, orders, lines))
    product = (rng.pareto(1.1, lines) * products / 20).astype(np.int64) % products
    labels = pd.Series(np.char.add("P", np.arange(products).astype(str)).astype(object), dtype="str")
    quantity = 1.0 + rng.poisson(0.5, lines)
    price = np.round(rng.lognormal(2.5, 0.6, products), 2)[product]
    back = np.where(rng.random(lines) < 0.08, quantity, 0.0)
    body = pd.DataFrame({
        "order_id": ids.take(of).to_numpy(), "line_no": np.arange(lines) - np.searchsorted(of, of) + 1,
        "product_id": labels.take(product).to_numpy(), "ordered_at": when.take(of).to_numpy(), "quantity": quantity,
        "returned_quantity": back, "cancelled": rng.random(lines) < 0.03, "unit_price": price,
        "discount": np.round(price * quantity * 0.1 * (rng.random(lines) < 0.3), 2), "channel": channel.take(of).to_numpy(),
    }).assign(currency="EUR")  # fmt: skip
    body["ordered_at"] = body["ordered_at"].astype(TIME)
    for name in ("returned_at", "cancelled_at"):
        body[name] = pd.Series(pd.NaT, index=body.index, dtype=TIME)
    body["store_id"] = pd.Series(pd.NA, index=body.index, dtype="str")
    numbers = np.arange(products)
    catalogue = pd.DataFrame({"product_id": labels, "category": np.char.add("K", (numbers % 60).astype(str))})
    catalogue["unit_cost"] = np.round(5.0 + numbers % 7, 2)
    frames = {
        "orders": validate("orders", heads),
        "order_lines": body[list(SCHEMAS["order_lines"].columns)],
        "products": validate("products", catalogue),
    }
    write_dataset(STORE, f"lines_{lines}", frames, "bench", layout="bench", created_at=datetime.now(UTC))


def parts(lines: int, name: str) -> list[Path]:
    """Return the Parquet files of a table."""
    from d2c_mlops.data.manifest import dataset_folder, read_manifest

    manifest = read_manifest(STORE, f"lines_{lines}")
    return [dataset_folder(STORE, manifest.name) / part.path for part in manifest.tables[name].parts]


def ours(lines: int, only_rfm: bool) -> pd.DataFrame:
    """Return the features by the package."""
    from d2c_mlops.data.tables import Tables
    from d2c_mlops.models.segmentation.customer_features import customer_features

    found = customer_features(Tables.open(STORE, f"lines_{lines}"), AS_OF, habits=not only_rfm)
    return found[["customer_id", *RFM]] if only_rfm else found


def by_pandas(lines: int, only_rfm: bool) -> pd.DataFrame:
    """Return the features as a notebook makes them: read, merge, groupby. Only the columns needed are read."""

    def read(name: str, columns: list[str]) -> pd.DataFrame:
        return pd.concat([pd.read_parquet(path, columns=columns) for path in parts(lines, name)], ignore_index=True)

    wanted = ["order_id", "quantity", "returned_quantity", "unit_price", "discount", "cancelled"]
    body = read("order_lines", wanted if only_rfm else [*wanted, "product_id"])
    heads = read("orders", ["order_id", "customer_id", "ordered_at", *([] if only_rfm else ["channel"])])
    body = body[~body["cancelled"]]
    body["paid"] = body["quantity"] * body["unit_price"] - body["discount"]
    body["back"] = body["paid"] * body["returned_quantity"] / body["quantity"]
    body["net"] = body["paid"] - body["back"]
    body = body.merge(heads, on="order_id")
    body["day"] = body["ordered_at"].dt.floor("D")
    today = pd.Timestamp(AS_OF, tz="UTC")
    if only_rfm:
        found = body.groupby("customer_id").agg(last=("day", "max"), purchases=("day", "nunique"), net=("net", "sum"))
        found["recency_days"] = (today - found["last"]).dt.days
        found["order_value"] = found["net"] / found["purchases"]
        return found.reset_index()[["customer_id", *RFM]]
    products = pd.concat([pd.read_parquet(path) for path in parts(lines, "products")])
    body = body.merge(products[["product_id", "category", "unit_cost"]], on="product_id", how="left")
    body["cost"] = (body["quantity"] - body["returned_quantity"]) * body["unit_cost"]
    found = body.groupby("customer_id").agg(
        first=("day", "min"), last=("day", "max"), purchases=("day", "nunique"), paid=("paid", "sum"),
        back=("back", "sum"), waived=("discount", "sum"), cost=("cost", "sum"), category_breadth=("category", "nunique"),
    )  # fmt: skip
    found["net"] = found["paid"] - found["back"]
    found["recency_days"] = (today - found["last"]).dt.days
    found["tenure_days"] = (today - found["first"]).dt.days
    found["order_value"] = found["net"] / found["purchases"]
    found["return_share"] = found["back"] / found["paid"]
    found["discount_share"] = found["waived"] / (found["paid"] + found["waived"])
    found["margin_share"] = (found["net"] - found["cost"]) / found["net"]
    late = body[body["day"] > pd.Timestamp(SINCE, tz="UTC")]
    found["spend_90d"] = late.groupby("customer_id")["net"].sum()
    found["spend_90d"] = found["spend_90d"].fillna(0.0)
    placed = body.drop_duplicates("order_id").groupby(["customer_id", "channel"]).size().groupby("customer_id")
    found["main_channel_share"] = placed.max() / placed.sum()
    return found.drop(columns=["first", "last", "paid", "back", "waived", "cost", "net"]).reset_index()


def child(side: str, lines: int, only_rfm: bool, out: Path) -> None:
    """Run one side and write its table and its cost."""
    import duckdb  # noqa: F401 - what both sides import is loaded before the clock starts

    import d2c_mlops.models.segmentation.customer_features  # noqa: F401

    began, loaded = time.perf_counter(), time.process_time()
    frame = (ours if side == "ours" else by_pandas)(lines, only_rfm)
    wall = time.perf_counter() - began
    work, peak = time.process_time() - loaded, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cost = {"cpu": work, "imports": loaded, "wall": wall, "gb": peak / 1e6}
    frame.to_parquet(out / f"{side}.parquet")
    (out / f"{side}.json").write_text(json.dumps(cost))


def measure(lines: int, only_rfm: bool, threads: int) -> dict[str, dict[str, float]]:
    """Run both sides in processes of their own; raises where their tables differ."""
    what = "rfm" if only_rfm else "all"
    env = {**os.environ, "OMP_NUM_THREADS": str(threads)}  # Arrow, which reads for pandas, keeps to it as well
    costs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for side in [*SIDES] * TIMES:
        subprocess.run([sys.executable, __file__, "--lines", str(lines), "--child", side, what], check=True, env=env)
        costs[side].append(json.loads((STORE / f"{side}.json").read_text()))
    left, right = (pd.read_parquet(STORE / f"{s}.parquet").sort_values("customer_id") for s in ("ours", "pandas"))
    assert left["customer_id"].tolist() == right["customer_id"].tolist(), "not the same customers"
    for frame in (left, right):  # a margin of nothing sold
        if "margin_share" in right:
            frame["margin_share"] = frame["margin_share"].where(frame["order_value"] > 0.01)
    for name in right.columns.drop("customer_id"):
        np.testing.assert_allclose(left[name], right[name], rtol=1e-4, atol=1e-3, err_msg=name)
    return {side: {name: median(cost[name] for cost in found) for name in found[0]} for side, found in costs.items()}


def row(features: str, by: str, threads: int, cost: dict[str, float]) -> dict[str, str]:
    """Return a line of the table."""
    seconds = {"CPU s": "cpu", "and to import": "imports", "wall s": "wall"}
    told = {name: f"{cost[key]:.1f}" for name, key in seconds.items()}
    return {"features": features, "by": by, "threads": str(threads), **told, "peak GB": f"{cost['gb']:.2f}"}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lines", type=int, default=10_000_000)
    parser.add_argument("--child", nargs=2, metavar=("SIDE", "WHAT"))
    args = parser.parse_args()
    if args.child and args.child[0] == "generate":
        generate(args.lines)
        return 0
    if args.child:
        child(args.child[0], args.lines, args.child[1] == "rfm", STORE)
        return 0
    subprocess.run([sys.executable, __file__, "--lines", str(args.lines), "--child", "generate", "all"], check=True)
    rows, aims = [], []
    for what, label in ((True, "RFM"), (False, "all features")):
        for threads in dict.fromkeys((1, os.cpu_count() or 1)):
            cost = measure(args.lines, what, threads)
            rows += [row(label, name, threads, cost[side]) for side, name in SIDES.items()]
            if threads == 1:
                cpu, memory = (cost["pandas"][key] / cost["ours"][key] for key in ("cpu", "gb"))
                aims.append(Aim(f"{label}: CPU at most 1/2.5 of pandas, a thread each", f"1/{cpu:.1f}", cpu >= 2.5))
                aims.append(Aim(f"{label}: memory at most 1/3 of pandas", f"1/{memory:.1f}", memory >= 3))
    print(f"\n{args.lines:,} order lines, customers as of {AS_OF}; memory with imports\n")
    print(table(rows))
    return close(aims)


if __name__ == "__main__":
    sys.exit(main())
