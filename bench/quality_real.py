"""Real files: faults planted into copies of them, assessed a week after their start beside the file without them."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from aims import Aim, table
from quality_batches import in_processes, run_peers, write_batches
from quality_detection import LOOKS, Outcome, aims_of, calm_scores, hits_of, peers_of, row_of, worst_fault
from quality_faults import RANKS, REAL_CASES, Frames, RealCase, RealFile, real_files

from d2c_mlops.data.quality import QualityReport, assess_quality

HISTORY_OF_PEERS = 90  # days
REAL_STARTS = {
    "online_retail": ("2011-09-12", "2011-10-17", "2011-05-09"),
    "completejourney": ("2017-10-09", "2017-11-06", "2017-09-11"),
}


def cut_at(real: RealFile, frames: Frames, last: pd.Timestamp) -> Frames:
    """Return tables of a real file with the rows up to a day."""
    return {label: frame[real.days(frame) <= last].reset_index(drop=True) for label, frame in frames.items()}


def write_real(folder: Path, real: RealFile, cut: Frames, first: pd.Timestamp) -> None:
    """Write the lines of the last months of a real file for the peers, with their distance from the order where there is one."""
    lines = cut[real.lines][real.days(cut[real.lines]) > first - pd.Timedelta(days=HISTORY_OF_PEERS)]
    seen = lines.drop(columns=[real.order, real.at]).assign(day=real.days(lines))
    if "orders" in cut:
        of_order = lines[real.order].map(cut["orders"].set_index(real.order)[real.at]).dt.normalize()
        seen["lag"] = (real.days(lines) - of_order).dt.days
    write_batches(folder, {real.lines: seen}, [(first + pd.Timedelta(days=look)).date() for look in range(LOOKS + 1)])


@cache
def calm_report(name: str, start: str) -> QualityReport:
    """Return the report of a real file as it is, a week after a day."""
    real, last = real_files()[name], pd.Timestamp(start) + pd.Timedelta(days=LOOKS)
    return assess_quality(cut_at(real, real.frames, last), last.date())


def write_calm(name: str, start: str, folder: str) -> None:
    """Write a real file as it is for the peers."""
    real, first = real_files()[name], pd.Timestamp(start)
    write_real(Path(folder), real, cut_at(real, real.frames, first + pd.Timedelta(days=LOOKS)), first)


def real_outcome(name: str, case: RealCase, size: float, start: str, seed: int, folder: str) -> Outcome:
    """Plant a fault into a copy of a real file, and assess it a week after its start beside the file without it."""
    real, calm = real_files()[name], calm_report(name, start)
    first = pd.Timestamp(start)
    last = first + pd.Timedelta(days=LOOKS)
    cut = cut_at(real, case.plant(real, size, first, np.random.default_rng(seed)), last)
    report = assess_quality(cut, last.date())
    write_real(Path(folder) / "planted", real, cut, first)
    usual = calm_scores(calm)
    hits = [
        f for f in hits_of(report, case.checks, first.date() if case.dated else None)
        if f.score > usual.get((f.fault, f.table, f.check, f.column), 0.0) + 0.02
    ]  # fmt: skip
    if not hits:
        return Outcome()
    best = hits[0]
    told = best.share if case.name == "orders twice" else best.size
    error = abs(told / size - 1) if case.sized and told is not None and case.name != "silent table" else None
    apart = abs((best.since - first.date()).days) if best.since and case.dated else None
    return Outcome(True, worst_fault(report, calm) == case.fault, error, apart, LOOKS)


def planted_in_real_files(starts: int) -> list[Aim]:
    """Plant faults into real files and report what is found a week later."""
    jobs = []
    with tempfile.TemporaryDirectory() as place:
        for name in real_files():
            for case in (case for case in REAL_CASES if name in case.files):
                for rank, size in zip(RANKS, case.sizes, strict=True):
                    jobs += [
                        (name, case, size, start, 900 + n, f"{place}/{name} {case.name} {rank} {n}")
                        for n, start in enumerate(REAL_STARTS[name][:starts])
                    ]
        calm = {(name, start): f"{place}/calm {name} {start}" for name, _, _, start, _, _ in jobs}
        list(in_processes(write_calm, [(*key, folder) for key, folder in calm.items()]))
        outcomes = list(in_processes(real_outcome, jobs))
        run_peers(Path(place))
        outcomes = [
            Outcome(**vars(outcome) | {"peers": peers_of(Path(job[5]), job[1].fault, Path(calm[job[0], job[3]]))})
            for outcome, job in zip(outcomes, jobs, strict=True)
        ]
    rows, middle = [], []
    for number, (name, case, size, *_) in enumerate(jobs[::starts]):
        part = outcomes[number * starts : (number + 1) * starts]
        rows.append({"file": name, "fault": case.name, "size": f"{RANKS[number % 3]} {size:g}", **row_of(part)})
        middle += part if RANKS[number % 3] == "middle" else []
    print("\nfaults planted into real files, a week later\n" + table(rows))
    return aims_of(middle, "real files")
