"""Data quality measured: silence on clean shops looked at daily, planted faults found, a real file's dirt, ten million lines."""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from collections.abc import Callable

from aims import Aim, close
from quality_batches import PROCESSES
from quality_detection import detection
from quality_faults import CASES, HELD_OUT, HELD_OUT_SEED, HELD_OUT_STEP, RANKS, SEED, STEP
from quality_real import planted_in_real_files
from quality_renamed import renamed_columns
from quality_retail import retail
from quality_silence import FIRST, silence
from quality_silence import SEED as SHOPS_SEED
from quality_speed import speed

FULL = os.environ.get("FULL") == "1"


def cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shops", type=int, default=200 if FULL else 3)
    parser.add_argument("--seed", type=int, default=SHOPS_SEED, help="seed of the first clean shop")
    parser.add_argument("--runs", type=int, default=40 if FULL else 3)
    parser.add_argument(
        "--starts", type=int, default=3 if FULL else 1, help="weeks of the real files that faults are planted into"
    )
    parser.add_argument("--millions", type=float, nargs="*", default=[1, 10])
    parser.add_argument(
        "--only",
        help="parts to measure; held-out sizes only where they are named, or with FULL=1",
        choices=["retail", "speed", "renamed", "real", "detection", "held-out", "silence"],
        nargs="*",
    )
    parser.add_argument("--sizes", choices=RANKS, nargs="*", default=RANKS, help="sizes of faults in simulated shops")
    args = parser.parse_args()
    print(
        f"seeds: shops {args.seed} to {args.seed + args.shops - 1}, planted faults {SEED} + {STEP} x run, held out {HELD_OUT_SEED} + {HELD_OUT_STEP} x run, renamed 300 + run; "
        f"{args.shops} shops x {365 - FIRST} days, {args.runs} runs of each size, {args.starts} weeks of each real file, {PROCESSES} processes"
    )
    os.environ["OMP_NUM_THREADS"] = "1"
    parts: dict[str, Callable[[], list[Aim]]] = {
        "retail": lambda: list(retail()),
        "speed": lambda: speed(args.millions),
        "renamed": lambda: renamed_columns(4 * args.runs),
        "real": lambda: planted_in_real_files(args.starts),
        "detection": lambda: detection(args.runs, CASES, "planted faults", SEED, STEP, args.sizes),
        "held-out": lambda: detection(args.runs, HELD_OUT, "held-out sizes", HELD_OUT_SEED, HELD_OUT_STEP, args.sizes),
        "silence": lambda: silence(args.shops, args.seed),
    }
    aims: list[Aim] = []
    for name, part in parts.items():
        if name in (args.only or [part for part in parts if part != "held-out" or FULL]):
            began, cpu = time.perf_counter(), cpu_seconds()
            aims += part()
            print(f"{name}: {time.perf_counter() - began:.0f} s, {cpu_seconds() - cpu:.0f} s of CPU", flush=True)
    return close(aims)


if __name__ == "__main__":
    sys.exit(main())
