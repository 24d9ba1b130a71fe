"""What other ways of checking data say of the tables of bench/quality.py, in an environment of their own (`make bench-quality` makes it).

    .bench/quality/bin/python bench/quality_peers.py FOLDER…
    .bench/quality/bin/python bench/quality_peers.py --speed FILE

Each folder holds tables by day (TABLE.parquet with the column `day`) and days.json: the days to be judged. Four ways judge each day by its rows and
those of the days before, and write alarms.json: the way, the day, what it names, and the fault that its rule is about.

- rules in pandera, rules in Pointblank: what a careful person writes after eight weeks of the shop's data, the same rules in both;
- 3 sigma: each daily statistic against the mean and the standard deviation of the same weekday in the last twelve weeks;
- learned bounds: quality_learned_bounds.py.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
import pandas as pd
from quality_history_measures import DISTANCES, NUMBERS
from quality_learned_bounds import learned_bounds

warnings.simplefilter("ignore")
TRAINING = 56  # days that a careful person looks at
HISTORY = 84
MOST_CODES, LEAST_SHARE = 40, 0.05
Alarm = tuple[str, str, str, str]  # way, day, what, fault
Checker = Callable[[pd.DataFrame], list[str]]  # names the rules that a batch breaks
FAULT_OF = {
    "rows": "incompleteness", "empty": "incompleteness", "code": "incompleteness", "new": "schema_volume", "low": "inconsistency", "high": "inconsistency",
    "middle": "inconsistency", "mean": "inconsistency", "zero": "inconsistency", "lag": "inconsistency", "returns": "mislabelling",
    "negative": "mislabelling",
}  # fmt: skip


@dataclass(frozen=True)
class Rule:
    """One rule: a table, a column, what is tested, and what it tests with."""

    table: str
    column: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    codes: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """Name of the rule in an alarm."""
        return f"{self.table}.{self.column} {self.kind} {self.codes[0] if self.kind == 'code' else ''}".strip()

    @property
    def fault(self) -> str:
        """The fault that the rule is about."""
        kind = "returns" if self.table == "returns" else "lag" if self.column == "lag" else self.kind
        return FAULT_OF[kind]


def columns_of(frame: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Return the columns of numbers and those of codes."""
    names = [str(c) for c in frame.columns]
    numbers = [
        c
        for c in names
        if c != "day" and pd.api.types.is_numeric_dtype(frame[c]) and not c.lower().endswith(("id", "no", "week"))
    ]
    codes = [c for c in names if c != "day" and c not in numbers and 1 < frame[c].nunique() <= MOST_CODES]
    return numbers, codes


def rules_of(tables: dict[str, pd.DataFrame]) -> list[Rule]:
    """Return the rules that a careful person writes after looking at these days."""
    rules = []
    for name, frame in tables.items():
        rows = frame.groupby("day").size()
        rules.append(Rule(name, "", "rows", 0.5 * float(rows.min())))
        for column in frame.columns.drop("day"):
            most = float(frame[column].isna().groupby(frame["day"]).mean().max())
            rules.append(Rule(name, column, "empty", high=0.0 if most == 0 else min(most + 0.05, 1.0)))
        numbers, codes = columns_of(frame)
        for column in numbers:
            values = frame[column].dropna()
            daily = frame.groupby("day")[column].median()
            negative = float((frame[column] < 0).groupby(frame["day"]).mean().min()) if (values < 0).any() else 0.0
            if column == "lag":
                rules.append(Rule(name, column, "zero", float(values.min()), float(values.max())))
                continue
            rules.append(
                Rule(name, column, "low", float(values.min()) if values.min() >= 0 else 3 * float(values.min()))
            )
            rules.append(Rule(name, column, "high", high=3 * float(values.max())))
            rules.append(Rule(name, column, "middle", 0.5 * float(daily.min()), 2 * float(daily.max())))
            if negative:
                rules.append(Rule(name, column, "negative", 0.5 * negative))
        for column in codes:
            seen = frame[column].dropna().astype("str")
            rules.append(Rule(name, column, "new", codes=tuple(sorted(seen.unique()))))
            for code, share in seen.value_counts(normalize=True).items():
                if share >= LEAST_SHARE:
                    daily = (frame[column].astype("str") == code).groupby(frame["day"]).mean()
                    margin = max(0.5 * float(daily.max() - daily.min()), 0.05)
                    rules.append(
                        Rule(
                            name, column, "code", float(daily.min()) - margin, float(daily.max()) + margin, (str(code),)
                        )
                    )
    return rules


def holds(rule: Rule, frame: pd.DataFrame) -> bool:
    """Return whether a rule about the whole batch holds."""
    if rule.kind == "rows":
        return len(frame) >= rule.low
    if not len(frame):
        return True
    column = frame[rule.column]
    if rule.kind == "empty":
        return float(column.isna().mean()) <= rule.high
    if rule.kind == "middle":
        return rule.low <= float(column.median()) <= rule.high
    if rule.kind == "negative":
        return float((column < 0).mean()) >= rule.low
    return rule.low <= float((column.astype("str") == rule.codes[0]).mean()) <= rule.high


def holding(rule: Rule) -> Callable[[pd.DataFrame], bool]:
    """Return a function of a batch, by the name of the argument that Pointblank wants."""

    def check(data: pd.DataFrame) -> bool:
        return holds(rule, data)

    return check


def pandera_checker(rules: list[Rule]) -> Callable[[pd.DataFrame], list[str]]:
    """Return a function that names the rules of one table that a batch breaks."""
    import pandera.pandas as pa

    columns: dict[str, list[pa.Check]] = {}
    whole = []
    for rule in rules:
        if rule.kind == "new":
            columns.setdefault(rule.column, []).append(pa.Check.isin(list(rule.codes), name=rule.label))
        elif rule.kind == "low":
            columns.setdefault(rule.column, []).append(pa.Check.ge(rule.low, name=rule.label))
        elif rule.kind == "high":
            columns.setdefault(rule.column, []).append(pa.Check.le(rule.high, name=rule.label))
        elif rule.kind == "zero":
            columns.setdefault(rule.column, []).append(pa.Check.in_range(rule.low, rule.high, name=rule.label))
        else:
            whole.append(pa.Check(lambda frame, rule=rule: holds(rule, frame), name=rule.label))
    schema = pa.DataFrameSchema(
        {name: pa.Column(None, checks, nullable=True, required=True) for name, checks in columns.items()}, checks=whole
    )

    def broken(batch: pd.DataFrame) -> list[str]:
        try:
            schema.validate(batch, lazy=True)
        except pa.errors.SchemaErrors as error:
            return sorted({str(name) for name in error.failure_cases["check"]})
        return []

    return broken


def pointblank_checker(rules: list[Rule]) -> Callable[[pd.DataFrame], list[str]]:
    """Return a function that names the rules of one table that a batch breaks."""
    import pointblank as pb

    def broken(batch: pd.DataFrame) -> list[str]:
        if batch.empty:
            return [rule.label for rule in rules if not holds(rule, batch)]
        plan, labels = pb.Validate(batch), []
        for rule in rules:
            if rule.kind == "new":
                plan = plan.col_vals_in_set(columns=rule.column, set=[*rule.codes, None])
            elif rule.kind == "low":
                plan = plan.col_vals_ge(columns=rule.column, value=rule.low, na_pass=True)
            elif rule.kind == "high":
                plan = plan.col_vals_le(columns=rule.column, value=rule.high, na_pass=True)
            elif rule.kind == "zero":
                plan = plan.col_vals_between(columns=rule.column, left=rule.low, right=rule.high, na_pass=True)
            else:
                plan = plan.specially(expr=holding(rule))
            labels.append(rule.label)
        steps = plan.interrogate(get_first_n=0, collect_extracts=False).validation_info
        return [label for label, step in zip(labels, steps, strict=True) if not step.all_passed]

    return broken


def by_rules(
    way: str, checker: Callable[[list[Rule]], Checker], tables: dict[str, pd.DataFrame], days: list[pd.Timestamp]
) -> list[Alarm]:
    """Return the alarms of rules that were written from the first days."""
    first = min(frame["day"].min() for frame in tables.values())
    training = {name: frame[frame["day"] < first + pd.Timedelta(days=TRAINING)] for name, frame in tables.items()}
    rules = rules_of({name: frame for name, frame in training.items() if len(frame)})
    faults = {rule.label: rule.fault for rule in rules}
    alarms = []
    for name, frame in tables.items():
        broken = checker([rule for rule in rules if rule.table == name])
        batches = dict(iter(frame[frame["day"].isin(days)].groupby("day")))
        for day in days:
            batch = batches.get(day, frame.iloc[:0]).drop(columns="day")
            alarms += [(way, str(day.date()), label, faults.get(label, "schema_volume")) for label in broken(batch)]
    return alarms


def statistics_of(tables: dict[str, pd.DataFrame]) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return daily statistics (columns) by day, and the fault that each is about."""
    parts: dict[str, pd.Series] = {}
    faults: dict[str, str] = {}

    def put(rule: Rule, series: pd.Series) -> None:
        parts[rule.label], faults[rule.label] = series, rule.fault

    for name, frame in tables.items():
        days = frame["day"]
        put(Rule(name, "", "rows"), frame.groupby("day").size().astype(float))
        for column in frame.columns.drop("day"):
            put(Rule(name, column, "empty"), frame[column].isna().groupby(days).mean())
        numbers, codes = columns_of(frame)
        for column in numbers:
            put(Rule(name, column, "mean"), frame.groupby("day")[column].mean())
            put(Rule(name, column, "middle"), frame.groupby("day")[column].median())
            put(Rule(name, column, "high"), frame.groupby("day")[column].max())
            if (frame[column] < 0).any():
                put(Rule(name, column, "negative"), (frame[column] < 0).groupby(days).mean())
        for column in codes:
            text = frame[column].astype("str")
            for code in text.value_counts().index[:12]:
                put(Rule(name, column, "code", codes=(str(code),)), (text == code).groupby(days).mean())
    index = pd.date_range(min(s.index.min() for s in parts.values()), max(s.index.max() for s in parts.values()))
    frame = pd.DataFrame({label: series.reindex(index) for label, series in parts.items()})
    return frame.fillna({label: 0.0 for label in parts if label.endswith(" rows")}), faults


def three_sigma(statistics: pd.DataFrame, faults: dict[str, str], days: list[pd.Timestamp]) -> list[Alarm]:
    """Return the alarms of statistics beyond three standard deviations of their weekday."""
    alarms = []
    for day in days:
        same = statistics.reindex([day - pd.Timedelta(weeks=week) for week in range(1, HISTORY // 7 + 1)])
        enough = same.notna().sum() >= 6
        apart = (
            (statistics.loc[day] - same.mean()).abs() > 3 * same.std().clip(lower=1e-9)
            if day in statistics.index
            else enough
        )
        alarms += [
            ("3 sigma", str(day.date()), str(label), faults[str(label)])
            for label in statistics.columns[(apart & enough).to_numpy()]
        ]
    return alarms


def fault_of_measure(table: str, column: str, measure: str) -> str:
    """Return the fault that a learned bound is about."""
    if table == "returns" or column == "lag":
        return Rule(table, column, "mean").fault
    if measure in ("count", "complete"):
        return FAULT_OF["rows"]
    if measure in NUMBERS:
        return FAULT_OF["mean"]
    return FAULT_OF["code"] if measure in DISTANCES else FAULT_OF["new"]


def by_history(tables: dict[str, pd.DataFrame], days: list[pd.Timestamp]) -> list[Alarm]:
    """Return the alarms of learned bounds; rows are counted once for all columns of a table."""
    alarms = {
        (day, f"{table}.{'' if measure == 'count' else column} {measure}"): fault_of_measure(table, column, measure)
        for day, table, column, measure in learned_bounds(tables, days)
    }
    return [("learned bounds", str(day.date()), what, fault) for (day, what), fault in alarms.items()]


def judge(folder: Path) -> None:
    """Write the alarms of all ways for the tables of a folder."""
    days = [pd.Timestamp(day) for day in json.loads((folder / "days.json").read_text())]
    tables = {}
    for file in sorted(folder.glob("*.parquet")):
        frame = pd.read_parquet(file)
        frame["day"] = pd.to_datetime(frame["day"])
        tables[file.stem] = frame
    costs = {}
    alarms: list[Alarm] = []
    began = time.process_time()
    statistics, faults = statistics_of(tables)
    ways: tuple[tuple[str, Callable[[], Iterable[Alarm]]], ...] = (
        ("3 sigma", lambda: three_sigma(statistics, faults, days)),
        ("learned bounds", lambda: by_history(tables, days)),
        ("pandera", lambda: by_rules("pandera", pandera_checker, tables, days)),
        ("Pointblank", lambda: by_rules("Pointblank", pointblank_checker, tables, days)),
    )
    for way, alarmed in ways:
        alarms += alarmed()
        costs[way] = time.process_time() - began
        began = time.process_time()
    (folder / "alarms.json").write_text(json.dumps({"alarms": alarms, "cpu": costs}))


def speed(file: Path, way: str) -> None:
    """Print what one way costs on all rows of a file, its reading included."""
    began = time.perf_counter()
    frame = pd.read_parquet(file)
    frame["day"] = frame.pop("ordered_at").dt.tz_localize(None).dt.normalize()
    rules = [
        rule
        for rule in rules_of({"order_lines": frame[frame["day"] < frame["day"].min() + pd.Timedelta(days=TRAINING)]})
        if rule.kind != "rows"
    ]
    checker = {"pandera": pandera_checker, "Pointblank": pointblank_checker}[way](rules)
    broken = checker(frame.drop(columns="day"))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    cost = {
        "rows": len(frame),
        "wall": time.perf_counter() - began,
        "cpu": usage.ru_utime + usage.ru_stime,
        "gb": usage.ru_maxrss / 2**20,
    }
    print(json.dumps(cost | {"rules": len(rules), "broken": broken}))


if __name__ == "__main__":
    if sys.argv[1] == "--speed":
        speed(Path(sys.argv[2]), sys.argv[3])
    else:
        for place in sys.argv[1:]:
            judge(Path(place))
