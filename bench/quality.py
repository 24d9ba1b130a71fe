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
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from math import sqrt
from pathlib import Path

import numpy as np
import pandas as pd
from aims import Aim, close, table

from d2c_mlops.data.quality import QualityReport, assess_quality
from d2c_mlops.data.quality.report import QualityFinding
from d2c_mlops.data.simulate import Shop
from d2c_mlops.data.simulate.script import PlannedEvent, event

SHARED = Path(__file__).resolve().parents[1] / "../shared/data"
FULL = os.environ.get("FULL") == "1"
REGIMES = ("fashion", "gift", "grocer")
START = date(2024, 1, 1)
FIRST = 60  # days of a shop before it is assessed
LOOKS = 7  # days after the start of a fault by which it is to be found


@dataclass(frozen=True)
class Case:
    """A fault at three sizes: how it is planted, what finds it, and its size in the unit of the finding."""

    name: str
    fault: str
    checks: tuple[str, ...]
    sizes: tuple[float | tuple[float, float], ...]  # large, middle, small
    kind: str
    options: dict[str, str]
    regime: str = "fashion"
    dated: bool = True  # whether the finding tells a day
    size_of: str = "size"

    def planted(self, size: float | tuple[float, float], start: date) -> PlannedEvent:
        """Return the event of a size."""
        options = dict(self.options)
        if self.kind == "currency_swap":
            options["to"] = {11.4: "SEK", 1.1: "USD", 7.46: "DKK", 0.86: "GBP"}.get(float(np.mean(size)), "SEK")
            return event(self.name, self.kind, start, 0.0, **options)
        return event(self.name, self.kind, start, 0.0 if self.kind == "changed_code" else size, **options)

    def truth(self, size: float | tuple[float, float]) -> float:
        """Return the size that a finding should tell."""
        return float(np.mean(size))


CASES = (
    Case("tracking", "incompleteness", ("missing_field_rose",), (0.5, 0.35, 0.1), "tracking", {}),
    Case("channel lost", "incompleteness", ("lost_rows",), (1.0, 0.6, 0.3), "channel_lost", {"channel": "app"}),
    Case("date bases", "inconsistency", ("line_dates",), ((3, 7), (2, 4), (1, 1)), "date_bases", {}),
    Case("over-represented", "bias", ("over_represented",), (5.0, 3.0, 1.5), "over_represented", {"segment": "country:FR"}),
    Case("stale category", "staleness", ("old_category",), (0.5, 0.3, 0.1), "stale_category", {"category": "shoes"}, dated=False),
    Case("returns marked sold", "mislabelling", ("returns_marked_sold",), (0.6, 0.4, 0.2), "returns_marked_sold", {}),
    Case("changed code", "schema_volume", ("changed_code",), (1.0, 1.0, 1.0), "changed_code", {"column": "channel", "code": "app", "to": "APP"}),
    Case("unit of price", "inconsistency", ("scale_changed",), (100.0, 12.0, 2.0), "unit_swap", {"column": "unit_price"}),
    Case("unit of quantity", "inconsistency", ("scale_changed",), (100.0, 12.0, 2.0), "unit_swap", {"column": "quantity"}),
    Case("currency", "inconsistency", ("scale_changed",), (11.4, 11.4, 11.4), "currency_swap", {"currency": "EUR"}),
)  # fmt: skip
HELD_OUT = (  # not looked at while the detectors were written
    Case("tracking", "incompleteness", ("missing_field_rose",), (0.7, 0.25, 0.15), "tracking", {}, "gift"),
    Case("channel lost", "incompleteness", ("lost_rows",), (0.9, 0.5, 0.25), "channel_lost", {"channel": "store"}, "grocer"),
    Case("date bases", "inconsistency", ("line_dates",), ((5, 10), (4, 6), (2, 2)), "date_bases", {}, "gift"),
    Case("over-represented", "bias", ("over_represented",), (6.0, 4.0, 2.0), "over_represented", {"segment": "channel:store"}),
    Case("stale category", "staleness", ("old_category",), (0.6, 0.4, 0.2), "stale_category", {"category": "coats"}, dated=False),
    Case("returns marked sold", "mislabelling", ("returns_marked_sold",), (0.8, 0.5, 0.3), "returns_marked_sold", {}),
    Case("changed code", "schema_volume", ("changed_code",), (1.0, 1.0, 1.0), "changed_code", {"column": "country", "code": "DE", "to": "Germany"}, "gift"),
    Case("unit of price", "inconsistency", ("scale_changed",), (1000.0, 24.0, 3.0), "unit_swap", {"column": "unit_price"}, "grocer"),
    Case("unit of quantity", "inconsistency", ("scale_changed",), (1000.0, 24.0, 3.0), "unit_swap", {"column": "quantity"}, "grocer"),
)  # fmt: skip
RANKS = ("large", "middle", "small")


def alarms(report: QualityReport) -> set[tuple[str, str, str, str]]:
    """Return what a report is severe about: fault, table, check and column."""
    return {(f.fault, f.table, f.check, f.column) for f in report.findings if f.severity == "severe"}


def severe_onsets(shop: Shop, days: list[date]) -> Counter[tuple[str, str, str, str]]:
    """Return the severe alarms of daily assessments; one that was there within the two weeks before is the same one."""
    tables = shop.tables()
    last: dict[tuple[str, str, str, str], date] = {}
    onsets: Counter[tuple[str, str, str, str]] = Counter()
    for day in days:
        for alarm in alarms(assess_quality(tables, day)):
            if alarm not in last or (day - last[alarm]).days > 14:
                onsets[alarm] += 1
            last[alarm] = day
    return onsets


def silence(shops: int) -> list[Aim]:
    """Assess clean shops daily and count severe alarms in a shop-year."""
    total, days_seen, rows = 0, 0, []
    for number in range(shops):
        regime = REGIMES[number % 3]
        shop = Shop(
            regime=regime,
            seed=100 + number,
            days=365,
            orders=(40.0, 120.0)[number % 2] / (1 if regime == "fashion" else 4),
            products=120,
        )
        began = time.perf_counter()
        onsets = severe_onsets(shop, shop.dates[FIRST:])
        total, days_seen = total + onsets.total(), days_seen + 365 - FIRST
        names = ", ".join(f"{check} of {where}.{column} {n}" for (_, where, check, column), n in onsets.items())
        rows.append(
            {
                "shop": f"{regime} {100 + number}",
                "severe": str(onsets.total()),
                "which": names or "none",
                "s a day": f"{(time.perf_counter() - began) / (365 - FIRST):.2f}",
            }
        )
        print(rows[-1], flush=True)
    print("\n" + table(rows))
    rate = total / days_seen * 365
    interval = 1.96 * sqrt(max(total, 1)) / days_seen * 365
    return [
        Aim(
            "clean shops assessed daily: at most 1 severe alarm in a shop-year",
            f"{rate:.2f} (± {interval:.2f}), {shops} shops, {days_seen:,} assessments",
            rate <= 1 or rate - interval <= 1,
        )
    ]


@dataclass(frozen=True)
class Outcome:
    """Whether a planted fault was found, attributed to its kind, and how well its size and start were told."""

    found: bool
    attributed: bool
    size: float | None
    start: int | None
    after: int | None


def outcome_of(case: Case, size: float | tuple[float, float], seed: int, rank: str) -> Outcome:
    """Plant a fault, assess daily from its start, and compare the first findings with those of the shop without it."""
    first = START + timedelta(days=120 + seed % 60)
    days = (first - START).days + LOOKS + 1
    start = START if case.kind == "stale_category" else first
    products = 300 if case.kind == "stale_category" else 80
    arguments = {
        "regime": case.regime,
        "seed": seed,
        "days": days,
        "orders": 120.0 if case.regime == "fashion" else 60.0,
        "products": products,
    }
    shop = Shop(events=[case.planted(size, start)], **arguments)
    tables, calm = shop.tables(), shop.without().tables()
    for look in range(LOOKS + 1):
        day = first + timedelta(days=look)
        report = assess_quality(tables, day)
        hits = [f for f in report.findings if f.check in case.checks and f.severity != "info"]
        hits = [f for f in hits if not case.dated or (f.since and abs((f.since - first).days) <= 14)]
        if hits and look >= min(2, LOOKS):
            at_end = assess_quality(tables, first + timedelta(days=LOOKS))
            final = [f for f in at_end.findings if f.check in case.checks and f.severity != "info"] or hits
            return _judged(case, size, first, look, final, at_end, assess_quality(calm, first + timedelta(days=LOOKS)))
    return Outcome(False, False, None, None, None)


def _judged(case: Case, size: float | tuple[float, float], first: date, look: int, hits: list[QualityFinding], report: QualityReport, calm: QualityReport) -> Outcome:  # fmt: skip
    usual = {(f.fault, f.table, f.check, f.column): f.score for f in calm.findings}
    new = [f for f in report.findings if f.score - usual.get((f.fault, f.table, f.check, f.column), 0.0) > 0.1]
    worst = max(new, key=lambda f: f.score, default=None)
    best = hits[0]
    told = best.size if case.size_of == "size" else best.share
    error = None if told is None or case.kind == "changed_code" else abs(told / case.truth(size) - 1)
    return Outcome(
        True,
        worst is not None and worst.fault == case.fault,
        error,
        abs((best.since - first).days) if best.since and case.dated else None,
        look,
    )


def detection(runs: int, cases: tuple[Case, ...], label: str) -> list[Aim]:
    """Plant each fault at three sizes and report detection, attribution, size and start."""
    rows, middle = [], []
    for case in cases:
        for rank, size in zip(RANKS, case.sizes, strict=True):
            outcomes = [outcome_of(case, size, 500 + 7 * run, rank) for run in range(runs)]
            found = [o for o in outcomes if o.found]
            sizes, starts = (
                [o.size for o in found if o.size is not None],
                [o.start for o in found if o.start is not None],
            )
            rows.append({
                "fault": case.name, "size": f"{rank} {size}", "found": f"{len(found)}/{runs}", "attributed": f"{sum(o.attributed for o in found)}/{len(found)}",
                "size error": f"{np.median(sizes):.0%}" if sizes else "", "start error": f"{np.median(starts):.0f} d" if starts else "",
                "found after": f"{np.median([o.after for o in found]):.0f} d" if found else "",
            })  # fmt: skip
            print(rows[-1], flush=True)
            if rank == "middle":
                middle += outcomes
    print("\n" + table(rows))
    found = [o for o in middle if o.found]
    share = len(found) / max(len(middle), 1)
    right = sum(o.attributed for o in found) / max(len(found), 1)
    near = [o.size <= 0.2 for o in found if o.size is not None]
    started = [o.start <= 7 for o in found if o.start is not None]
    return [
        Aim(
            f"{label}: middle sizes found within 7 days in >= 95 % of runs",
            f"{share:.0%} of {len(middle)}",
            _reached(share, 0.95, len(middle)),
        ),
        Aim(
            f"{label}: attributed to the right fault in >= 90 %",
            f"{right:.0%} of {len(found)}",
            _reached(right, 0.9, len(found)),
        ),
        Aim(
            f"{label}: size within 20 % relative (share of findings, 90 % aimed at)",
            f"{np.mean(near):.0%} of {len(near)}",
            _reached(float(np.mean(near)), 0.9, len(near)),
        ),
        Aim(
            f"{label}: start within 7 days (share of findings, 90 % aimed at)",
            f"{np.mean(started):.0%} of {len(started)}",
            _reached(float(np.mean(started)), 0.9, len(started)),
        ),
    ]


def _reached(share: float, aim: float, runs: int) -> bool:
    """Return whether a share reaches an aim, or its 95 % interval (Wilson) does not exclude it."""
    z = 1.96
    middle = (share + z * z / (2 * runs)) / (1 + z * z / runs)
    half = z * sqrt(share * (1 - share) / runs + z * z / (4 * runs * runs)) / (1 + z * z / runs)
    return middle + half >= aim


def renamed_columns(runs: int) -> list[Aim]:
    """Rename a column of daily exports, with the reports of four weeks as history."""
    found = false = 0
    for run in range(runs):
        options = {
            "table": "orders",
            "column": ("channel", "customer_id", "country", "ordered_at")[run % 4],
            "to": "renamed",
        }
        first = START + timedelta(days=35)
        shop = Shop(
            regime=REGIMES[run % 3],
            seed=300 + run,
            days=45,
            orders=40.0,
            products=60,
            events=[event("renamed", "renamed_column", first, **options)],
        )
        history: list[QualityReport] = []
        for day in shop.dates[:36]:
            report = assess_quality({"orders": shop.day(day).orders}, day, history=history)
            schema = [f for f in report.of_fault("schema_volume") if f.severity == "severe"]
            if day < first:
                false += len(schema)
                history.append(report)
            else:
                found += any(f.check == "renamed_column" and f.column == options["column"] for f in schema)
    return [
        Aim(
            "renamed columns found on their first day in >= 95 % of runs",
            f"{found} of {runs}",
            _reached(found / runs, 0.95, runs),
        ),
        Aim(
            "no severe finding of schema and volume in exports before",
            f"{false} in {35 * runs} days",
            false <= runs * 35 / 365,
        ),
    ]


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
    right = [key for key, count in RETAIL.items() if rows.get(key) == count]
    wrong = {key: rows.get(key) for key in RETAIL if key not in right}
    yield Aim("online_retail: dirt found with its counts", f"{len(right)} of {len(RETAIL)} {wrong or ''}", not wrong)
    codes = {key for f in report.findings if f.check.startswith("product_") for key in f.keys}
    needed = {"POST", "DOT", "C2", "BANK CHARGES", "AMAZONFEE", "M", "D", "S", "CRUK", "B"}
    yield Aim(
        "online_retail: postage and fees named as such", f"{len(needed & codes)} of {len(needed)}", needed <= codes
    )
    cancelled = frame["InvoiceNo"].str.startswith("C")
    refunds = frame[cancelled].rename(columns={"InvoiceDate": "refunded_at"})
    sold = frame[~cancelled]
    with_refunds = assess_quality(sold, date(2011, 12, 9), reference={"refunds": refunds.drop(columns="InvoiceNo")})
    named = next((f for f in with_refunds.findings if f.check == "refunded_lines"), None)
    known = refunds[refunds["CustomerID"].notna()].reset_index(names="refund")
    pairs = known.merge(
        sold[sold["Quantity"] > 0].dropna(subset="CustomerID"), on=["CustomerID", "StockCode"], suffixes=("", " sold")
    )
    earlier = pairs[(pairs["InvoiceDate"] <= pairs["refunded_at"]) & (pairs["Quantity sold"] >= -pairs["Quantity"])]
    possible = earlier["refund"].nunique()
    share = named.rows / max(possible, 1) if named else 0.0
    text = f"{share:.1%} of {possible:,}; {len(refunds) - possible:,} refunds have no earlier line of their customer and product"
    yield Aim("online_retail: of refunds that undo a line in the file, lines named in >= 90 %", text, share >= 0.9)


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
    """Measure the cost of an assessment by the number of lines."""
    costs = {}
    for m in millions:
        with tempfile.TemporaryDirectory() as place:
            shop = Shop(regime="fashion", seed=1, days=730, orders=5_150.0 * m / 10, products=5_000)
            folder = shop.write(Path(place) / "shop")
            (folder / "as_of").write_text(str(shop.dates[-1]))
            command = [sys.executable, "-W", "ignore", __file__, "--child", str(folder)]
            costs[m] = json.loads(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            )
        print(m, costs[m], flush=True)
    aims = []
    for m, cost in costs.items():
        if m == 10:
            text = f"{cost['wall']:.1f} s wall, {cost['cpu']:.1f} s CPU, {cost['gb']:.2f} GB, {cost['rows']:,.0f} lines"
            aims.append(
                Aim("ten million lines: < 60 s on two cores and < 4 GB", text, cost["wall"] < 60 and cost["gb"] < 4)
            )
    if len(costs) > 1:
        small, large = costs[min(costs)], costs[max(costs)]
        ratio = (large["cpu"] / large["rows"]) / (small["cpu"] / small["rows"])
        aims.append(
            Aim(
                f"CPU of a line at {max(costs):g} million at most that at {min(costs):g} million",
                f"{ratio:.2f}",
                ratio <= 1.05,
            )
        )
    return aims


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--child")
    parser.add_argument("--shops", type=int, default=200 if FULL else 3)
    parser.add_argument("--runs", type=int, default=40 if FULL else 4)
    parser.add_argument("--millions", type=float, nargs="*", default=[1, 10])
    parser.add_argument("--held-out", action="store_true", help="the sizes and segments that were not looked at before")
    parser.add_argument("--only", choices=["silence", "detection", "renamed", "retail", "speed"], nargs="*")
    args = parser.parse_args()
    if args.child:
        child(args.child)
        return 0
    parts = {
        "retail": lambda: list(retail()),
        "speed": lambda: speed(args.millions),
        "renamed": lambda: renamed_columns(3 * args.runs),
        "detection": lambda: (
            detection(args.runs, HELD_OUT, "held-out sizes")
            if args.held_out
            else detection(args.runs, CASES, "planted faults")
        ),
        "silence": lambda: silence(args.shops),
    }
    aims: list[Aim] = []
    for name, part in parts.items():
        if not args.only or name in args.only:
            aims += part()
    return close(aims)


if __name__ == "__main__":
    sys.exit(main())
