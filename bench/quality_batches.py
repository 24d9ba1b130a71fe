"""What the peers of data quality take and give: tables by day in a folder, and alarms by way and day; work in processes."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
from quality_faults import Frames

PEERS = Path(__file__).resolve().parents[1] / ".bench/quality/bin/python"
WAYS = ("pandera", "Pointblank", "3 sigma", "learned bounds")
PROCESSES = int(os.environ.get("PROCESSES", "2"))


def in_processes(function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    """Yield the results of a function in the order of its jobs, two at once."""
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        yield from pool.map(function, *zip(*jobs, strict=True))


def batches(tables: Frames) -> Frames:
    """Return tables of a simulated shop by day, as the peers take them: orders, lines with their distance from the order, returns."""
    orders, lines = tables["orders"], tables["order_lines"]
    day = orders["ordered_at"].dt.tz_localize(None).dt.normalize()
    line_day = lines["ordered_at"].dt.tz_localize(None).dt.normalize()
    of_order = lines["order_id"].map(pd.Series(day.to_numpy(), orders["order_id"]))
    columns = ["product_id", "quantity", "unit_price", "discount", "currency", "channel"]
    back = lines["returned_at"].dt.tz_localize(None).dt.normalize()
    return {
        "orders": orders[["customer_id", "channel", "currency", "country"]].assign(day=day),
        "order_lines": lines[columns].assign(lag=(line_day - of_order).dt.days, day=line_day),
        "returns": lines[["product_id", "returned_quantity"]].assign(day=back)[back.notna()],
    }


def write_batches(folder: Path, tables: Frames, days: Iterable[date]) -> None:
    """Write tables by day, and the days that are judged, for bench/quality_peers.py."""
    folder.mkdir(parents=True)
    judged = sorted(days)
    for name, frame in tables.items():
        frame[frame["day"] <= pd.Timestamp(judged[-1])].to_parquet(folder / f"{name}.parquet")
    (folder / "days.json").write_text(json.dumps([day.isoformat() for day in judged]))


def run_peers(folder: Path) -> None:
    """Let the peers judge all folders below one, in two processes; nothing where their environment is absent."""
    places = sorted(path.parent for path in folder.rglob("days.json"))
    if not PEERS.exists():
        print(f"left out: peers ({PEERS} is absent; `make bench-quality` makes it)")
        return
    command = [str(PEERS), "-W", "ignore", str(Path(__file__).with_name("quality_peers.py"))]
    started = [
        subprocess.Popen([*command, *map(str, places[n::PROCESSES])]) for n in range(PROCESSES) if places[n::PROCESSES]
    ]
    for process in started:
        if process.wait():
            raise SystemExit(f"the peers failed with exit code {process.returncode}")


def peer_alarms(folder: Path) -> dict[str, dict[date, dict[str, str]]]:
    """Return by way and day what was named in a folder, and the fault of each."""
    alarms: dict[str, dict[date, dict[str, str]]] = {way: defaultdict(dict) for way in WAYS}
    if (folder / "alarms.json").exists():
        for way, day, what, fault in json.loads((folder / "alarms.json").read_text())["alarms"]:
            alarms[way][date.fromisoformat(day)][what] = fault
    return alarms


def onsets(alarms_by_day: Mapping[date, Iterable[Any]]) -> Counter[Any]:
    """Return how often each alarm began; one that was there within the two weeks before is the same one."""
    last: dict[Any, date] = {}
    counts: Counter[Any] = Counter()
    for day in sorted(alarms_by_day):
        for alarm in alarms_by_day[day]:
            counts[alarm] += alarm not in last or (day - last[alarm]).days > 14
            last[alarm] = day
    return counts
