"""Another checkout beside this one, in turn in one run: no line of bench-serving or bench-runs slower by more than the noise.

A line is slower when the whole interval of its median ratio lies above one. The interval holds for all lines together at 95 %
(Bonferroni), and needs no distribution: it is made of order statistics, as for the sign test.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import psutil
from aims import Aim, close, table
from scipy.stats import binom

from runs import EMPTY, WORK, notebook
from serving import CONNECTIONS, WARM, Peer, bodies, measured, memory

HERE = Path(__file__).parent.parent
# Run by each checkout's own Python in its own folder `bench`: serves the bench's model until standard input ends.
SERVE = """
import json, sys
from pathlib import Path
from tempfile import TemporaryDirectory
sys.path.insert(0, sys.argv[1])
from serving import ours, trained
with TemporaryDirectory(prefix="d2c-bench-") as folder:
    with ours(*trained(Path(folder))) as peer:
        print(json.dumps({"port": peer.port, "pid": peer.process.pid, "ready": peer.ready}), flush=True)
        sys.stdin.read()
"""
# Writes a project of 1,000 jobs and 100,000 past runs.
PAST = """
import sys
from datetime import UTC, datetime
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from runs import past, project
past(project(Path(sys.argv[2]), 1000), 1000, 100, datetime.now(UTC))
"""
MEMORY = "MB of a worker"
Ratios = dict[str, list[tuple[float, float]]]  # by line: before and after of each round, both in the line's unit


@contextmanager
def served(checkout: Path) -> Iterator[Peer]:
    """Serve the bench's model with the code of a checkout."""
    process = subprocess.Popen(
        [python(checkout), "-c", SERVE, checkout / "bench"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=checkout, env=environment(checkout),
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    try:
        for line in process.stdout:  # packaging may print before it
            if line.startswith('{"port"'):
                server = json.loads(line)
                break
        else:
            raise SystemExit(f"{checkout}: its service did not start")
        yield Peer(str(checkout), server["port"], psutil.Process(server["pid"]), server["ready"], "/explain", "/explain", "ours")  # fmt: skip
    finally:
        process.stdin.close()
        process.wait(60)


def python(checkout: Path) -> str:
    return str(checkout / ".venv" / "bin" / "python")


def environment(checkout: Path) -> dict[str, str]:
    path = f"{checkout / '.venv' / 'bin'}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}


def serving_lines(before: Path, rounds: int) -> Ratios:
    """Ask the services of both checkouts in turn."""
    lines: Ratios = {}
    with TemporaryDirectory() as name, ExitStack() as stack:
        sent = bodies(Path(name))
        peers = [stack.enter_context(served(checkout)) for checkout in (before, HERE)]
        asked = [("/explain", *pair) for pair in product((1, 100), CONNECTIONS)]
        asked += [("/predict", 10_000, 1), ("/explain", 10_000, 1)]
        for number in range(rounds):
            for path, count, connections in asked:
                order = peers if number % 2 else peers[::-1]
                answers = {
                    peer.name: measured(peer, path, sent["ours", count], connections, warm_up=0 if number else WARM)
                    for peer in order}  # fmt: skip
                for figure in ("cpu", "p50", "p99"):
                    line = f"{path} {count:,} records, {connections} at once: {figure} ms"
                    pair = (answers[str(before)][figure], answers[str(HERE)][figure])
                    lines.setdefault(line, []).append(pair)
        lines[MEMORY] = [(memory(peers[0].process), memory(peers[1].process))]
    return lines


def ready_lines(before: Path, rounds: int) -> Ratios:
    """Start both services in turn."""
    pairs = []
    for _ in range(rounds):
        seconds = []
        for checkout in (before, HERE):
            with served(checkout) as peer:
                seconds.append(peer.ready)
        pairs.append((seconds[0], seconds[1]))
    return {"seconds until a service is ready": pairs}


def command(checkout: Path, folder: Path, *words: str) -> Callable[[], tuple[float, float]]:
    """Return what runs a command of a checkout's environment, with its wall and processor seconds."""

    def run() -> tuple[float, float]:
        start, spent = time.perf_counter(), _children()
        subprocess.run(
            [str(checkout / ".venv" / "bin" / words[0]), *words[1:]],
            cwd=folder, env=environment(checkout), check=True, capture_output=True,
        )  # fmt: skip
        return time.perf_counter() - start, _children() - spent

    return run


def _children() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run_lines(before: Path, rounds: int) -> Ratios:
    """Run notebooks and list the schedule with both checkouts in turn."""
    lines: Ratios = {}
    with ExitStack() as stack:
        calls: dict[str, list[Callable[[], tuple[float, float]]]] = {}
        for checkout in (before, HERE):
            folder = Path(stack.enter_context(TemporaryDirectory(ignore_cleanup_errors=True)))
            subprocess.run(
                [python(checkout), "-c", PAST, checkout / "bench", folder],
                check=True, cwd=checkout, env=environment(checkout),
            )  # fmt: skip
            calls.setdefault("`d2c schedule list` of 1,000 jobs", []).append(command(checkout, folder, "d2c", "schedule", "list"))  # fmt: skip
            own = Path(stack.enter_context(TemporaryDirectory(ignore_cleanup_errors=True)))
            (own / "settings.ini").write_text("[d2c]\n")
            notebook(own / "empty.ipynb", EMPTY)
            notebook(own / "work.ipynb", WORK)
            for name in ("empty", "work"):
                call = command(checkout, own, "d2c", "run", f"{name}.ipynb")
                call()  # makes the ledger, fills caches
                calls.setdefault(f"`d2c run {name}.ipynb`", []).append(call)
        for number in range(rounds):
            for line, both in calls.items():
                measures = [both[i]() for i in ((0, 1) if number % 2 else (1, 0))][:: 1 if number % 2 else -1]
                for figure, unit in enumerate(("wall s", "CPU s")):
                    lines.setdefault(f"{line}: {unit}", []).append((measures[0][figure], measures[1][figure]))
    return lines


def interval(ratios: list[float], level: float) -> tuple[float, float]:
    """Return an interval of the median that holds with at least `level`, (0, inf) where the rounds are too few."""
    count = len(ratios)
    below = int(binom.ppf((1 - level) / 2, count, 0.5))
    if binom.cdf(below, count, 0.5) > (1 - level) / 2:
        below -= 1
    if below < 0:
        return 0.0, float("inf")
    ordered = sorted(ratios)
    return ordered[below], ordered[count - 1 - below]


def main() -> int:
    """Measure both checkouts, print the table and the aims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path, help="the other checkout, with its own .venv")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", choices=("serving", "runs"))
    options = parser.parse_args()
    before = options.before.resolve()
    lines: Ratios = {}
    if options.only != "runs":
        lines |= serving_lines(before, options.rounds) | ready_lines(before, options.rounds)
    if options.only != "serving":
        lines |= run_lines(before, options.rounds)
    level = 1 - 0.05 / len(lines)
    rows, aims = [], []
    for line, pairs in lines.items():
        ratios = [after / earlier for earlier, after in pairs]
        low, high = interval(ratios, level)
        if line == MEMORY:  # measured once, at the end; it varies by some percent from start to start
            low = high = ratios[0] if ratios[0] > 1.05 else 1.0
        rows.append({"line": line, "before": f"{median(p[0] for p in pairs):.3g}", "now": f"{median(p[1] for p in pairs):.3g}",
                     "now / before": f"{median(ratios):.3f}", "interval": f"{low:.2f}-{high:.2f}"})  # fmt: skip
        aims.append(Aim(f"{line}: not slower than before", f"{median(ratios):.3f} ({low:.2f}-{high:.2f})", low <= 1))
    print(table(rows))
    return close(aims)


if __name__ == "__main__":
    sys.exit(main())
