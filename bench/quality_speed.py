"""Cost: seconds and memory of an assessment of millions of lines, beside the rules of the peers on the same rows."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

from aims import Aim, table
from quality_batches import PEERS, WAYS

from d2c_mlops.data.quality import assess_quality
from d2c_mlops.data.simulate import Shop


def child(folder: str) -> None:
    """Assess Parquet files of a folder and print what it cost."""
    began = time.perf_counter()
    files = {name: Path(folder) / f"{name}.parquet" for name in ("orders", "order_lines", "products", "customers")}
    report = assess_quality(files, date.fromisoformat(Path(folder, "as_of").read_text()))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cost = {
        "rows": report.rows["order_lines"],
        "wall": time.perf_counter() - began,
        "cpu": usage.ru_utime + usage.ru_stime,
    }
    print(json.dumps(cost | {"gb": usage.ru_maxrss / 2**20, "notes": list(report.notes)}))


def speed(millions: list[float]) -> list[Aim]:
    """Measure the cost of an assessment by the number of lines, and that of the peers' rules on the most."""
    costs: dict[float, dict[str, Any]] = {}
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    rows = []
    for m in millions:
        with tempfile.TemporaryDirectory() as place:
            shop = Shop(regime="fashion", seed=1, days=730, orders=5_150.0 * m / 10, products=5_000)
            folder = shop.write(Path(place) / "shop")
            (folder / "as_of").write_text(str(shop.dates[-1]))
            ways = {"assess_quality": [sys.executable, "-W", "ignore", __file__, str(folder)]}
            if PEERS.exists():
                peers = str(Path(__file__).with_name("quality_peers.py"))
                ways |= {
                    way: [str(PEERS), "-W", "ignore", peers, "--speed", str(folder / "order_lines.parquet"), way]
                    for way in WAYS[:2]
                }
            for way, command in ways.items():
                if way != "assess_quality" and m < max(millions):
                    continue
                answer = subprocess.run(command, capture_output=True, text=True, env=environment)
                if answer.returncode:
                    rows.append({"lines": f"{m:g} M", "way": way, "wall": "failed", "CPU": "", "GB": (answer.stderr.strip().splitlines() or ["killed"])[-1][:60]})  # fmt: skip
                    continue
                cost = json.loads(answer.stdout.splitlines()[-1])
                rows.append(
                    {
                        "lines": f"{m:g} M",
                        "way": way,
                        "wall": f"{cost['wall']:.1f} s",
                        "CPU": f"{cost['cpu']:.1f} s",
                        "GB": f"{cost['gb']:.2f}",
                    }
                )
                if way == "assess_quality":
                    costs[m] = cost
    print("\n" + table(rows))
    aims = []
    most, least = costs[max(costs)], costs[min(costs)]
    if max(costs) >= 10:
        text = f"{most['wall']:.1f} s wall, {most['cpu']:.1f} s CPU, {most['gb']:.2f} GB, {most['rows']:,.0f} lines"
        aims.append(
            Aim("ten million lines: < 60 s on two cores and < 4 GB", text, most["wall"] < 60 and most["gb"] < 4)
        )
    if len(costs) > 1:
        ratio = (most["cpu"] / most["rows"]) / (least["cpu"] / least["rows"])
        aims.append(
            Aim(
                f"CPU of a line at {max(costs):g} million at most that at {min(costs):g} million",
                f"{ratio:.2f}",
                ratio <= 1.05,
            )
        )
    return aims


if __name__ == "__main__":
    child(sys.argv[1])
