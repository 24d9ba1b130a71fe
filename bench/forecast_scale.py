"""The full forecasting ladder on simulated shops of 100 to 20,000 products and two years of days: time, memory, linear cost.

    python bench/forecast_scale.py [SERIES …]      FULL=1 for 5,000 and 20,000 products too

A shop is simulated, written as a dataset and forecast by processes of their own, so that the peak memory is that of the forecast alone.
The shop is a grocer with half a line a product and day; its promotions are known ahead. The forecast reads the dataset from Parquet.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from aims import Aim, close, table

DAYS, HORIZON = 731, 28
START = date(2023, 1, 1)
LINES = 0.5  # order lines a product and day
LINES_AN_ORDER = 9.4  # of the simulated grocer
MINUTES, GIGABYTES = 15, 6
LINEAR = 1.25  # CPU a series of the largest shop over that of 1,000 products, at most


def write_shop(products: int, store: Path) -> None:
    """Simulate a shop with its promotions and write it as the dataset `shop`."""
    from d2c_mlops.data.simulate import Shop
    from d2c_mlops.data.store import write_dataset
    from d2c_mlops.data.validation import validate

    shop = Shop("grocer", 1, DAYS, START, products * LINES / LINES_AN_ORDER, products)
    tables = shop.tables()
    frames = {name: tables[name] for name in ("order_lines", "products")}
    frames["promotions"] = validate("promotions", planned(shop, frames["products"]["product_id"].tolist()))
    write_dataset(store, "shop", frames, source="simulated", layout="canonical", created_at=datetime.now(UTC))


def planned(shop: object, names: Sequence[str]) -> pd.DataFrame:
    """Return each promotion of a simulated shop up to the end of the horizon."""
    from d2c_mlops.data.simulate.world.prices import promotion_depths

    world = shop.world  # type: ignore[attr-defined]
    depth = np.stack([promotion_depths(world.seed, world.regime, world.products, day) for day in range(DAYS + HORIZON)])
    none = np.zeros((1, depth.shape[1]))
    column, begin = np.nonzero(((depth > 0) & (depth != np.concatenate([none, depth[:-1]]))).T)
    last = np.nonzero(((depth > 0) & (depth != np.concatenate([depth[1:], none]))).T)[1]
    start = pd.Timestamp(START, tz="UTC")
    return pd.DataFrame(
        {
            "keys": [json.dumps({"product_id": names[number]}) for number in column],
            "first_day": start + pd.to_timedelta(begin, "D"),
            "last_day": start + pd.to_timedelta(last, "D"),
            "kind": "discount",
            "discount": depth[begin, column],
            "planned_price": np.nan,
            "known_at": pd.NaT,
        }
    )


def forecast_shop(store: Path) -> dict[str, float]:
    """Forecast every product of the dataset `shop`; return what each step cost."""
    from d2c_mlops.data.tables import Tables
    from d2c_mlops.models.forecasting.forecasting import DemandForecaster, inputs_for
    from d2c_mlops.models.forecasting.forecasts import learn

    model, as_of = DemandForecaster(by="product_id", history=DAYS), START + timedelta(days=DAYS - 1)
    marks = [(time.perf_counter(), time.process_time())]

    def step() -> None:
        marks.append((time.perf_counter(), time.process_time()))

    tables = Tables.open(store, "shop")
    model.zone = tables.zone
    panel = model.panel(tables, as_of)
    step()
    inputs = inputs_for(model, tables, panel)
    step()
    model.learned = learn(panel, model.horizon, model.min_history, inputs)
    step()
    model.predict(model.records(tables, as_of))
    step()
    names = ("read", "plan", "ladder", "score")
    walls, cpus = np.diff(np.array(marks), axis=0).T
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {
        "series": len(panel.series),
        **dict(zip(names, walls.tolist(), strict=True)),
        "wall": float(walls.sum()),
        "cpu": float(cpus.sum()),
        "gb": peak,
    }


def measure(products: int) -> dict[str, float]:
    """Return what the forecast of a simulated shop costs, measured in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        for part in ("--write", "--forecast"):
            command = [sys.executable, "-W", "ignore", __file__, part, str(products), folder]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        cost: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return cost


def scale(sizes: Sequence[int], markdown: bool = False) -> list[Aim]:
    """Measure shops of these sizes, print a table, and return the aims."""
    costs = []
    for products in sizes:
        costs.append(measure(products))
    rows = [
        {
            "series": f"{cost['series']:,.0f}",
            **{f"{name} s": f"{cost[name]:.1f}" for name in ("read", "plan", "ladder", "score", "wall", "cpu")},
            "CPU ms a series": f"{cost['cpu'] / cost['series'] * 1000:.1f}",
            "peak GB": f"{cost['gb']:.2f}",
        }
        for cost in costs
    ]
    print(table(rows, markdown))
    largest = costs[-1]
    count = f"{largest['series']:,.0f} series × 2 years, the full ladder"
    wall = largest["wall"] / 60
    aims = [
        Aim(f"{count}: < {MINUTES} minutes", f"{wall:.1f} minutes", wall < MINUTES),
        Aim(f"{count}: < {GIGABYTES} GB", f"{largest['gb']:.2f} GB", largest["gb"] < GIGABYTES),
    ]
    middle = [cost for cost in costs if cost["series"] >= 900]
    if len(middle) > 1:
        slope = (middle[-1]["cpu"] / middle[-1]["series"]) / (middle[0]["cpu"] / middle[0]["series"])
        what = (
            f"CPU a series at {middle[-1]['series']:,.0f} at most {LINEAR:g} times that at {middle[0]['series']:,.0f}"
        )
        aims.append(Aim(what, f"{slope:.2f}", slope <= LINEAR))
    return aims


def usual_sizes() -> list[int]:
    """Return the sizes that are measured: with FULL=1 up to 20,000 products."""
    return [100, 1_000, 5_000, 20_000] if os.environ.get("FULL") == "1" else [100, 1_000]


def main(arguments: list[str]) -> int:
    """Measure, or do one step in a process of its own."""
    if arguments[:1] == ["--write"]:
        write_shop(int(arguments[1]), Path(arguments[2]))
        return 0
    if arguments[:1] == ["--forecast"]:
        print(json.dumps(forecast_shop(Path(arguments[2]))))
        return 0
    return close(scale([int(size) for size in arguments] or usual_sizes()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
