"""How much the schedule costs, and a run on record beside bare papermill: `make bench-runs`."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from aims import Aim, close, table
from sqlalchemy import insert, select

from d2c_mlops.ledger.schema import runs, slots
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution.slot_rows import add_slots, known_jobs, running_slots

BIN = Path(sys.executable).parent
CADENCES = ("daily at {h:02}:{m:02}", "weekly on Monday {h:02}:{m:02}", "monthly on 1 {h:02}:{m:02}", "{m} {h} * * 1-5")
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata")
EMPTY = ("n: int = 1", "print(n)")
# What a small training does: a frame, a model, a plot, some seconds.
WORK = (
    "n: int = 40_000",
    "import numpy as np\nimport pandas as pd\nfrom sklearn.ensemble import RandomForestRegressor",
    "rng = np.random.default_rng(1)\nframe = pd.DataFrame(rng.normal(size=(n, 12)))\ny = frame.sum(axis=1)",
    "model = RandomForestRegressor(40, max_depth=12, random_state=1).fit(frame, y)\nmodel.score(frame, y)",
    "frame.describe()",
)


def notebook(path: Path, cells: tuple[str, ...]) -> None:
    made = [
        {"cell_type": "code", "id": f"c{i}", "metadata": {"tags": ["parameters"]} if i == 0 else {}, "source": source,
         "outputs": [], "execution_count": None}
        for i, source in enumerate(cells)
    ]  # fmt: skip
    path.write_text(json.dumps({"cells": made, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))


def project(folder: Path, count: int) -> Ledger:
    """Write a project with many jobs on many cadences, on ten notebooks."""
    for number in range(10):
        notebook(folder / f"nb{number}.ipynb", EMPTY)
    sections = ["[d2c]\nrun_slots = 8\n"]
    for number in range(count):
        at = CADENCES[number % 4].format(h=number % 24, m=number % 60)
        sections.append(
            f"[schedule:job{number}]\nrun = nb{number % 10}.ipynb\nat = {at}\nzone = {ZONES[number % 4]}\nparams.n = 2\n"
        )
    (folder / "settings.ini").write_text("".join(sections))
    return Ledger(f"sqlite:///{folder / 'd2c_store/ledger.db'}")


def past(ledger: Ledger, count: int, each: int, now: datetime) -> None:
    """Put past runs of every job on record."""
    names = [f"job{number}" for number in range(count)]
    known_jobs(ledger, names, now)
    for name in names:
        times = [now - timedelta(hours=n + 1) for n in range(each)]
        base = {"runbook": "nb", "notebook": "nb.ipynb", "notebook_sha256": "0", "parameters": {"n": 2}, "inputs": [],
                "package_version": "0", "outputs": {"folder": "x"}, "recorded": {"n": 1}, "host": "h", "pid": 1,
                "pid_started": 1.0, "status": "succeeded", "attempt": 1, "exit_code": 0}  # fmt: skip
        with ledger.write() as connection:
            connection.execute(insert(runs), [{**base, "id": f"{name}-{n}", "job": name, "slot": at, "started_at": at,
                                               "ended_at": at} for n, at in enumerate(times)])  # fmt: skip
            connection.execute(insert(slots), [{"job": name, "slot": at, "status": "succeeded", "reason": "attempt 1",
                                                "attempt": 1, "not_before": at, "run_id": f"{name}-{n}",
                                                "changed_at": at} for n, at in enumerate(times)])  # fmt: skip


def timed(call: Callable[[], object], times: int) -> float:
    """Return the median seconds of a call."""
    taken = []
    for _ in range(times):
        start = time.monotonic()
        call()
        taken.append(time.monotonic() - start)
    return statistics.median(taken)


def command(*args: str, folder: Path) -> None:
    subprocess.run([str(BIN / args[0]), *args[1:]], cwd=folder, check=True, capture_output=True)


def many_jobs(folder: Path, count: int, each: int, idle: float, dispatches: int) -> list[Aim]:
    """List, idle and dispatch with many jobs and a long past."""
    ledger = project(folder, count)
    past(ledger, count, each, datetime.now(UTC))
    listing = timed(lambda: command("d2c", "schedule", "list", folder=folder), 5)
    daemon = subprocess.Popen([str(BIN / "d2c"), "schedule", "run"], cwd=folder, stdout=subprocess.DEVNULL)
    try:
        process = psutil.Process(daemon.pid)
        time.sleep(15)
        before, start = sum(process.cpu_times()[:2]), time.monotonic()
        time.sleep(idle)
        share = (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - start)
        memory = process.memory_info().rss
        waits = dispatched(ledger, dispatches)
    finally:
        daemon.send_signal(signal.SIGTERM)
        daemon.wait(300)
    waits.sort()
    p99 = waits[min(len(waits) - 1, int(0.99 * len(waits)))]
    what = f"{count:,} jobs and {count * each:,} past runs"
    print(f"dispatch over {len(waits)} slots: median {statistics.median(waits):.3f} s, longest {waits[-1]:.3f} s")
    return [
        Aim(f"`d2c schedule list` of {what} < 1 s", f"{listing:.2f} s (median of 5)", listing < 1),
        Aim("the scheduler idle < 1 % CPU", f"{share:.2%} over {idle:.0f} s", share < 0.01),
        Aim("the scheduler idle < 150 MB", f"{memory / 1e6:.0f} MB", memory < 150e6),
        Aim("from due to started, p99 < 1 s", f"{p99:.3f} s", p99 < 1),
    ]


def dispatched(ledger: Ledger, count: int) -> list[float]:
    """Return the seconds from when slots are due to when their runs start, at random moments, some at a time."""
    wanted = []
    for number in range(count):
        while len(running_slots(ledger)) >= 4:  # half of the room: a queue is no latency
            time.sleep(0.5)
        now = datetime.now(UTC)
        slot = now + timedelta(seconds=random.uniform(0.1, 1.0))
        add_slots(ledger, f"job{number % 1000}", {slot: ("waiting", "bench")}, now)
        wanted.append(slot)
        time.sleep(random.uniform(1.0, 4.0))
    limit = time.monotonic() + 120
    while time.monotonic() < limit:
        with ledger.read() as connection:
            found = connection.execute(select(runs.c.slot, runs.c.started_at).where(runs.c.slot.in_(wanted))).all()
        if len(found) == count:
            return [(row.started_at - row.slot).total_seconds() for row in found]
        time.sleep(1)
    raise SystemExit(f"{len(found)} of {count} slots were started")


def beside_papermill(folder: Path, times: int) -> tuple[list[Aim], list[dict[str, str]]]:
    """Time the same notebooks by bare papermill and by `d2c run`, one after the other, and four at a time."""
    notebook(folder / "empty.ipynb", EMPTY)
    notebook(folder / "work.ipynb", WORK)
    (folder / "settings.ini").write_text("[d2c]\n")
    os.environ["OMP_NUM_THREADS"] = "1"
    command("d2c", "run", "empty.ipynb", folder=folder)  # makes the ledger
    rows, aims = [], []
    for name in ("empty", "work"):
        bare, ours = [], []
        for _ in range(times):
            bare.append(
                timed(lambda n=name: command("papermill", "-k", "python3", f"{n}.ipynb", "out.ipynb", folder=folder), 1)
            )
            ours.append(timed(lambda n=name: command("d2c", "run", f"{n}.ipynb", folder=folder), 1))
        more = statistics.median(ours) / statistics.median(bare) - 1
        rows.append({"notebook": name, "papermill": f"{statistics.median(bare):.2f} s",
                     "d2c run": f"{statistics.median(ours):.2f} s", "more": f"{more:+.1%}"})  # fmt: skip
        aims.append(Aim(f"`d2c run` at most 10 % slower than papermill ({name})", f"{more:+.1%}", more <= 0.10))
    run = lambda _: command("d2c", "run", "work.ipynb", folder=folder)  # noqa: E731
    row = timed(lambda: [run(n) for n in range(4)], 1)
    with ThreadPoolExecutor(4) as pool:
        together = timed(lambda: list(pool.map(run, range(4))), 1)
    return [*aims, Aim("four at a time beat four in a row", f"{together:.1f} s, {row:.1f} s", together < row)], rows


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--past", type=int, default=100, help="runs of each job")
    parser.add_argument("--idle", type=float, default=60)
    parser.add_argument("--dispatches", type=int, default=100)
    parser.add_argument("--times", type=int, default=5)
    parser.add_argument("--only", choices=("schedule", "papermill"))
    given = parser.parse_args()
    aims: list[Aim] = []
    if given.only != "papermill":
        with TemporaryDirectory(ignore_cleanup_errors=True) as name:
            aims += many_jobs(Path(name), given.jobs, given.past, given.idle, given.dispatches)
    if given.only != "schedule":
        with TemporaryDirectory(ignore_cleanup_errors=True) as name:
            found, rows = beside_papermill(Path(name), given.times)
            aims += found
            print(table(rows))
    return close(aims)


if __name__ == "__main__":
    sys.exit(main())
