"""Renamed columns: found on the first day of a daily export by the reports of the days before."""

from __future__ import annotations

from datetime import timedelta

from aims import Aim
from quality_batches import in_processes
from quality_detection import START, share_aim
from quality_silence import REGIMES

from d2c_mlops.data.quality import QualityReport, assess_quality
from d2c_mlops.data.simulate import Shop
from d2c_mlops.data.simulate.script import event


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
        share_aim("renamed columns found on their first day in >= 95 % of runs", [hit for hit, _ in results], 0.95),
        Aim("no severe finding of schema and volume in exports before", f"{false} in {35 * runs} days", false <= runs * 35 / 365),
    ]  # fmt: skip
