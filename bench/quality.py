"""Data quality measured: silence on clean shops looked at daily, planted faults found, a real file's dirt, ten million lines."""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cache
from math import sqrt
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from aims import Aim, close, table
from quality_faults import (
    CASES,
    HELD_OUT,
    HELD_OUT_SEED,
    HELD_OUT_STEP,
    RANKS,
    REAL_CASES,
    SEED,
    SHARED,
    STEP,
    Case,
    Frames,
    RealCase,
    RealFile,
    Size,
    real_files,
)
from scipy.stats import chi2

from d2c_mlops.data.quality import QualityReport, assess_quality
from d2c_mlops.data.quality.report import QualityFinding
from d2c_mlops.data.quality.returns import match_returns
from d2c_mlops.data.simulate import Shop
from d2c_mlops.data.simulate.script import event

PEERS = Path(__file__).resolve().parents[1] / ".bench/quality/bin/python"
WAYS = ("pandera", "Pointblank", "3 sigma", "learned bounds")
FULL = os.environ.get("FULL") == "1"
PROCESSES = int(os.environ.get("PROCESSES", "2"))
REGIMES = ("fashion", "gift", "grocer")
START = date(2024, 1, 1)
FIRST = 60  # days of a shop before it is assessed
LOOKS = 7  # days after the start of a fault by which it is to be found
FIRST_LOOK = 2
AlarmKey = tuple[str, str, str, str]  # fault, table, check, column


def in_processes(function: Callable[..., Any], jobs: Sequence[tuple[Any, ...]]) -> Iterator[Any]:
    """Yield the results of a function in the order of its jobs, two at once."""
    with ProcessPoolExecutor(PROCESSES, mp_context=get_context("spawn")) as pool:
        yield from pool.map(function, *zip(*jobs, strict=True))


# What peers see.


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


def onsets(alarms_by_day: dict[date, Iterable[Any]]) -> Counter[Any]:
    """Return how often each alarm began; one that was there within the two weeks before is the same one."""
    last: dict[Any, date] = {}
    counts: Counter[Any] = Counter()
    for day in sorted(alarms_by_day):
        for alarm in alarms_by_day[day]:
            counts[alarm] += alarm not in last or (day - last[alarm]).days > 14
            last[alarm] = day
    return counts


# Silence.


def shop_of(number: int) -> Shop:
    """Return the clean shop of a number."""
    regime = REGIMES[number % 3]
    orders = (40.0, 120.0)[number % 2] / (1 if regime == "fashion" else 4)
    return Shop(regime=regime, seed=100 + number, days=365, orders=orders, products=120)


def severe_alarms(number: int, part: int, parts: int, folder: str) -> dict[date, list[AlarmKey]]:
    """Return what a clean shop's daily assessments are severe about, for a part of its days."""
    shop = shop_of(number)
    tables, days = shop.tables(), shop.dates[FIRST:]
    if part == 0:
        write_batches(Path(folder) / str(number), batches(tables), days)
    chosen = days[part * len(days) // parts : (part + 1) * len(days) // parts]
    return {
        day: [
            (f.fault, f.table, f.check, f.column)
            for f in assess_quality(tables, day).findings
            if f.severity == "severe"
        ]
        for day in chosen
    }


def silence(shops: int) -> list[Aim]:
    """Assess clean shops daily and count severe alarms in a shop-year."""
    parts, rows = 4, []
    totals: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        jobs = [(number, part, parts, place) for number in range(shops) for part in range(parts)]
        results = in_processes(severe_alarms, jobs)
        by_shop = [{day: alarms for _ in range(parts) for day, alarms in next(results).items()} for _ in range(shops)]
        run_peers(Path(place))
        for number, by_day in enumerate(by_shop):
            counts = onsets(by_day)
            totals["assess_quality"] += counts.total()
            row = {"shop": f"{REGIMES[number % 3]} {100 + number}", "assess_quality": str(counts.total())}
            for way, alarms in peer_alarms(Path(place) / str(number)).items():
                totals[way] += (count := onsets(alarms).total())
                row[way] = str(count)
            row["which"] = (
                ", ".join(f"{check} of {where}.{column} {n}" for (_, where, check, column), n in counts.items() if n)
                or "none"
            )
            rows.append(row)
    print("\n" + table(rows))
    years = shops * (365 - FIRST) / 365
    measured = {way: f"{totals[way] / years:.2f} ({_poisson(totals[way], years)})" for way in ("assess_quality", *WAYS)}
    print(
        "alarms in a shop-year with their 95 % interval: "
        + ", ".join(f"{way} {text}" for way, text in measured.items())
    )
    low = float(chi2.ppf(0.025, 2 * totals["assess_quality"]) / 2 / years) if totals["assess_quality"] else 0.0
    what = "clean shops assessed daily: at most 1 severe alarm in a shop-year"
    return [Aim(what, f"{measured['assess_quality']}, {shops} shops, {shops * (365 - FIRST):,} assessments", low <= 1)]


def _poisson(count: int, years: float) -> str:
    low = chi2.ppf(0.025, 2 * count) / 2 if count else 0.0
    return f"{low / years:.2f} to {chi2.ppf(0.975, 2 * count + 2) / 2 / years:.2f}"


# Planted faults.


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
        _share_aim(f"{label}: middle sizes found within 7 days in >= 95 % of runs", [o.found for o in outcomes], 0.95),
        _share_aim(f"{label}: attributed to the right fault in >= 90 %", [o.attributed for o in found], 0.9),
        _share_aim(f"{label}: size within 20 % relative (of 90 % of findings)", near, 0.9),
        _share_aim(f"{label}: start within 7 days (of 90 % of findings)", started, 0.9),
    ]


def _share_aim(what: str, flags: Sequence[bool], aim: float) -> Aim:
    """Return an aim about a share; it is missed where the 95 % interval (Wilson) excludes it."""
    share, high = float(np.mean(flags)) if flags else 0.0, _upper(flags)
    return Aim(what, f"{share:.0%} of {len(flags)} (at most {high:.0%} by the 95 % interval)", high >= aim)


def _upper(flags: Sequence[bool]) -> float:
    if not flags:
        return 0.0
    z, share, runs = 1.96, float(np.mean(flags)), len(flags)
    middle = (share + z * z / (2 * runs)) / (1 + z * z / runs)
    half = z * sqrt(share * (1 - share) / runs + z * z / (4 * runs * runs)) / (1 + z * z / runs)
    return float(middle + half)


# The same faults in real files.

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


# Renamed columns.


def renamed_column(run: int) -> tuple[bool, int]:
    """Return whether a renamed column of a daily export is found on its first day, and the severe alarms in 35 days before."""
    column = ("channel", "customer_id", "country", "ordered_at")[run % 4]
    first = START + timedelta(days=35)
    events = [event("renamed", "renamed_column", first, table="orders", column=column, to="renamed")]
    shop = Shop(regime=REGIMES[run % 3], seed=300 + run, days=45, orders=40.0, products=60, events=events)
    history: list[QualityReport] = []
    false = 0
    for day in shop.dates[:36]:
        report = assess_quality({"orders": shop.day(day).orders}, day, history=history)
        schema = [f for f in report.of_fault("schema_volume") if f.severity == "severe"]
        if day == first:
            return any(f.check == "renamed_column" and f.column == column for f in schema), false
        false += len(schema)
        history.append(report)
    return False, false


def renamed_columns(runs: int) -> list[Aim]:
    """Rename a column of daily exports, with the reports of five weeks as history."""
    results = list(in_processes(renamed_column, [(run,) for run in range(runs)]))
    false = sum(count for _, count in results)
    return [
        _share_aim("renamed columns found on their first day in >= 95 % of runs", [hit for hit, _ in results], 0.95),
        Aim("no severe finding of schema and volume in exports before", f"{false} in {35 * runs} days", false <= runs * 35 / 365),
    ]  # fmt: skip


# A real file's dirt.

RETAIL = {
    ("cancellation", ""): 9_288, ("negative_quantity", ""): 10_624, ("price_not_positive", ""): 2_517, ("missing_field", "CustomerID"): 135_080,
    ("missing_field", "Description"): 1_454, ("exact_duplicates", ""): 5_268,
}  # fmt: skip


def retail() -> Iterator[Aim]:
    """Assess a real file whose dirt is listed, and delete its cancellations."""
    file = SHARED / "online_retail.parquet"
    if not file.exists():
        print("left out: ../shared/data/online_retail.parquet is absent")
        return
    frame = pd.read_parquet(file)
    report = assess_quality(frame, date(2011, 12, 9))
    rows = {(f.check, f.column): f.rows for f in report.findings}
    wrong = {key: rows.get(key) for key, count in RETAIL.items() if rows.get(key) != count}
    yield Aim(
        "online_retail: dirt found with its counts",
        f"{len(RETAIL) - len(wrong)} of {len(RETAIL)} {wrong or ''}",
        not wrong,
    )
    codes = {key for f in report.findings if f.check.startswith("product_") for key in f.keys}
    needed = {"POST", "DOT", "C2", "BANK CHARGES", "AMAZONFEE", "M", "D", "S", "CRUK", "B"}
    yield Aim(
        "online_retail: postage and fees named as such", f"{len(needed & codes)} of {len(needed)}", needed <= codes
    )
    yield from deleted_cancellations(frame)


def deleted_cancellations(frame: pd.DataFrame) -> Iterator[Aim]:
    """Delete the cancellations; estimate their share without a table of refunds, and name the lines that they undo with one."""
    cancelled = frame["InvoiceNo"].str.startswith("C")
    sold = frame[~cancelled].reset_index(drop=True)
    refunds = frame[cancelled].rename(columns={"InvoiceDate": "refunded_at"}).reset_index(drop=True)
    blind = next((f for f in assess_quality(sold, date(2011, 12, 9)).findings if f.check == "no_returns"), None)
    share = 0.0 if blind is None else blind.share
    truth = len(refunds) / len(sold)
    what = "online_retail: share of returns within 3 points without refunds"
    yield Aim(what, f"{share:.1%}, and {truth:.1%} were deleted", abs(share - truth) <= 0.03)
    report = assess_quality(sold, date(2011, 12, 9), reference={"refunds": refunds.drop(columns="InvoiceNo")})
    named = next((f for f in report.findings if f.check == "refunded_lines"), None)
    known = refunds[refunds["CustomerID"].notna()].reset_index(names="refund")
    buys = sold[(sold["Quantity"] > 0) & sold["CustomerID"].notna()].reset_index(names="line")
    pairs = known.merge(buys, on=["CustomerID", "StockCode"], suffixes=("", " sold"))
    pairs = pairs[(pairs["InvoiceDate"] <= pairs["refunded_at"]) & (pairs["Quantity sold"] >= -pairs["Quantity"])]
    possible = pairs["refund"].nunique()
    text = f"{named.rows if named else 0:,} of {possible:,} that undo a line of the file; {len(refunds) - possible:,} undo lines before its first day"
    yield Aim(
        "online_retail: refunds whose line is named, recall >= .90", text, bool(named) and named.rows >= 0.9 * possible
    )
    single = pairs.groupby("refund").filter(lambda part: len(part) == 1)
    rows = refunds.rename(
        columns={"CustomerID": "customer_id", "StockCode": "product_id", "UnitPrice": "price", "refunded_at": "at"}
    )
    rows = rows.assign(quantity=-rows["Quantity"]).dropna(subset=["customer_id"])
    lines = buys.set_index("line").rename(columns={"CustomerID": "customer_id", "StockCode": "product_id", "Quantity": "quantity", "UnitPrice": "price", "InvoiceDate": "at"})  # fmt: skip
    matched = match_returns(lines, rows)
    told = matched.reindex(single["refund"]).to_numpy()
    right, wrong = (
        int((told == single["line"].to_numpy()).sum()),
        int(((told != single["line"].to_numpy()) & (told >= 0)).sum()),
    )
    precision, recall = right / max(right + wrong, 1), right / max(len(single), 1)
    text = f"precision {precision:.3f}, recall {recall:.3f} of {len(single):,} refunds that only one line can have"
    yield Aim(
        "online_retail: lines of refunds found at precision >= .95 and recall >= .90",
        text,
        precision >= 0.95 and recall >= 0.9,
    )


# Cost.


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
            ways = {"assess_quality": [sys.executable, "-W", "ignore", __file__, "--child", str(folder)]}
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


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--child")
    parser.add_argument("--shops", type=int, default=200 if FULL else 3)
    parser.add_argument("--runs", type=int, default=40 if FULL else 3)
    parser.add_argument(
        "--starts", type=int, default=3 if FULL else 1, help="weeks of the real files that faults are planted into"
    )
    parser.add_argument("--millions", type=float, nargs="*", default=[1, 10])
    parser.add_argument(
        "--only", choices=["retail", "speed", "renamed", "real", "detection", "held-out", "silence"], nargs="*"
    )
    parser.add_argument("--sizes", choices=RANKS, nargs="*", default=RANKS, help="sizes of faults in simulated shops")
    args = parser.parse_args()
    if args.child:
        child(args.child)
        return 0
    print(
        f"seeds: shops 100 to {99 + args.shops}, planted faults {SEED} + {STEP} x run, held out {HELD_OUT_SEED} + {HELD_OUT_STEP} x run, renamed 300 + run; "
        f"{args.shops} shops x {365 - FIRST} days, {args.runs} runs of each size, {args.starts} weeks of each real file, {PROCESSES} processes"
    )
    os.environ["OMP_NUM_THREADS"] = "1"
    parts = {
        "retail": lambda: list(retail()),
        "speed": lambda: speed(args.millions),
        "renamed": lambda: renamed_columns(4 * args.runs),
        "real": lambda: planted_in_real_files(args.starts),
        "detection": lambda: detection(args.runs, CASES, "planted faults", SEED, STEP, args.sizes),
        "held-out": lambda: detection(args.runs, HELD_OUT, "held-out sizes", HELD_OUT_SEED, HELD_OUT_STEP, args.sizes),
        "silence": lambda: silence(args.shops),
    }
    aims: list[Aim] = []
    for name, part in parts.items():
        if not args.only or name in args.only:
            began, cpu = time.perf_counter(), _cpu_seconds()
            aims += part()
            print(f"{name}: {time.perf_counter() - began:.0f} s, {_cpu_seconds() - cpu:.0f} s of CPU", flush=True)
    return close(aims)


if __name__ == "__main__":
    sys.exit(main())
