"""Detection: whether planted faults are found within a week, named rightly, and how well their size and start are told."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from math import sqrt
from pathlib import Path

import numpy as np
from aims import Aim, table
from quality_batches import WAYS, batches, in_processes, peer_alarms, run_peers, write_batches
from quality_faults import RANKS, Case, Size

from d2c_mlops.data.quality import QualityReport, assess_quality
from d2c_mlops.data.quality.report import QualityFinding
from d2c_mlops.data.simulate import Shop

START = date(2024, 1, 1)
LOOKS = 7  # days after the start of a fault by which it is to be found
FIRST_LOOK = 2
AlarmKey = tuple[str, str, str, str]  # fault, table, check, column


@dataclass(frozen=True)
class Outcome:
    """Whether a planted fault was found, attributed to its kind, and how well its size and start were told."""

    found: bool = False
    attributed: bool = False
    size: float | None = None  # relative error
    start: int | None = None  # days
    after: int | None = None  # days until it was found
    peers: dict[str, tuple[bool, bool]] = field(default_factory=dict)  # found, attributed


def calm_scores(report: QualityReport) -> dict[AlarmKey, float]:
    """Return the scores of the findings of a shop without the fault."""
    return {(f.fault, f.table, f.check, f.column): f.score for f in report.findings}


def worst_fault(report: QualityReport, calm: QualityReport) -> str:
    """Return the fault of the worst finding that the shop without the fault has not."""
    usual = calm_scores(calm)
    new = [f for f in report.findings if f.score - usual.get((f.fault, f.table, f.check, f.column), 0.0) > 0.1]
    worst = max(new, key=lambda f: f.score, default=None)
    return "" if worst is None else worst.fault


def outcome_of(case: Case, size: Size, seed: int, folder: str) -> Outcome:
    """Plant a fault, assess daily from its start, and compare the first findings with those of the shop without it."""
    first = START + timedelta(days=120 + seed % 60)
    last = first + timedelta(days=LOOKS)
    is_stale = case.kind == "stale_category"
    shop = Shop(
        regime=case.regime,
        seed=seed,
        days=(last - START).days + 1,
        orders=120.0 if case.regime == "fashion" else 60.0,
        products=300 if is_stale else 80,
        events=[case.planted(size, START if is_stale else first)],
    )
    tables, calm = shop.tables(), shop.without().tables()
    days = [first + timedelta(days=look) for look in range(LOOKS + 1)]
    for name, part in (("planted", tables), ("calm", calm)):
        write_batches(Path(folder) / name, batches(part), days)
    for look in range(FIRST_LOOK, LOOKS + 1):
        report = assess_quality(tables, days[look])
        if hits := hits_of(report, case.checks, first if case.dated else None):
            report = report if look == LOOKS else assess_quality(tables, last)
            hits = hits_of(report, case.checks, None) or hits
            best = hits[0]
            error = None if best.size is None or case.kind == "changed_code" else abs(best.size / case.truth(size) - 1)
            apart = abs((best.since - first).days) if best.since and case.dated else None
            return Outcome(True, worst_fault(report, assess_quality(calm, last)) == case.fault, error, apart, look)
    return Outcome()


def hits_of(report: QualityReport, checks: tuple[str, ...], first: date | None) -> list[QualityFinding]:
    """Return the findings of some checks, those of about a day where one is given."""
    hits = [f for f in report.findings if f.check in checks and f.severity != "info"]
    return [f for f in hits if first is None or (f.since and abs((f.since - first).days) <= 14)]


def peers_of(folder: Path, fault: str, calm_folder: Path | None = None) -> dict[str, tuple[bool, bool]]:
    """Return for each peer whether it names anything that it does not name in the twin without the fault, and whether mostly the right fault."""
    planted, calm = peer_alarms(folder / "planted"), peer_alarms(calm_folder or folder / "calm")
    outcomes = {}
    for way in WAYS:
        usual = {what for named in calm[way].values() for what in named}
        new = [kind for named in planted[way].values() for what, kind in named.items() if what not in usual]
        outcomes[way] = bool(new), bool(new) and Counter(new).most_common(1)[0][0] == fault
    return outcomes


def detection(
    runs: int, cases: tuple[Case, ...], label: str, seed: int, step: int, ranks: Sequence[str] = RANKS
) -> list[Aim]:
    """Plant each fault at three sizes and report detection, attribution, size and start."""
    jobs: list[tuple[Case, Size, int, str]] = []
    with tempfile.TemporaryDirectory() as place:
        for case in cases:
            for rank in ranks:
                size = case.sizes[RANKS.index(rank)]
                jobs += [(case, size, seed + step * run, f"{place}/{case.name} {rank} {run}") for run in range(runs)]
        outcomes = list(in_processes(outcome_of, jobs))
        run_peers(Path(place))
        outcomes = [
            Outcome(**vars(outcome) | {"peers": peers_of(Path(folder), case.fault)})
            for outcome, (case, _, _, folder) in zip(outcomes, jobs, strict=True)
        ]
    rows, middle = [], []
    for number, (case, size, _, _) in enumerate(jobs[::runs]):
        part, rank = outcomes[number * runs : (number + 1) * runs], ranks[number % len(ranks)]
        rows.append({"fault": case.name, "size": f"{rank} {size}", **row_of(part)})
        middle += part if rank == "middle" else []
    print(f"\n{label}: found in 7 days of so many runs, attributed to the right fault (in brackets)\n" + table(rows))
    return aims_of(middle, label)


def row_of(outcomes: list[Outcome]) -> dict[str, str]:
    """Return the row of a table of detection."""
    found = [o for o in outcomes if o.found]
    sizes = [o.size for o in found if o.size is not None]
    starts = [o.start for o in found if o.start is not None]
    row = {
        "assess_quality": f"{len(found)}/{len(outcomes)} ({sum(o.attributed for o in found)})",
        "size error": f"{np.median(sizes):.0%}" if sizes else "",
        "start error": f"{np.median(starts):.0f} d" if starts else "",
        "after": f"{np.median([o.after for o in found]):.0f} d" if found else "",
    }
    for way in WAYS:
        judged = [o.peers[way] for o in outcomes if way in o.peers]
        row[way] = f"{sum(f for f, _ in judged)}/{len(judged)} ({sum(right for _, right in judged)})"
    return row


def aims_of(outcomes: list[Outcome], label: str) -> list[Aim]:
    """Return the aims about faults of the middle size."""
    found = [o for o in outcomes if o.found]
    near = [o.size <= 0.2 for o in found if o.size is not None]
    started = [o.start <= 7 for o in found if o.start is not None]
    return [
        share_aim(f"{label}: middle sizes found within 7 days in >= 95 % of runs", [o.found for o in outcomes], 0.95),
        share_aim(f"{label}: attributed to the right fault in >= 90 %", [o.attributed for o in found], 0.9),
        share_aim(f"{label}: size within 20 % relative (of 90 % of findings)", near, 0.9),
        share_aim(f"{label}: start within 7 days (of 90 % of findings)", started, 0.9),
    ]


def share_aim(what: str, flags: Sequence[bool], aim: float) -> Aim:
    """Return an aim about a share; it is missed where the 95 % interval (Wilson) excludes it."""
    share, high = float(np.mean(flags)) if flags else 0.0, wilson_upper(flags)
    return Aim(what, f"{share:.0%} of {len(flags)} (at most {high:.0%} by the 95 % interval)", high >= aim)


def wilson_upper(flags: Sequence[bool]) -> float:
    if not flags:
        return 0.0
    z, share, runs = 1.96, float(np.mean(flags)), len(flags)
    middle = (share + z * z / (2 * runs)) / (1 + z * z / runs)
    half = z * sqrt(share * (1 - share) / runs + z * z / (4 * runs * runs)) / (1 + z * z / runs)
    return float(middle + half)
