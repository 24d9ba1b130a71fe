"""Commands for past runs: runs compare, export, prune, publish."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from d2c_mlops.cli import example, json_option, settings, show, table
from d2c_mlops.cli.runs import add_filter_options, run_filter_from_options, runs
from d2c_mlops.errors import UsageError

SPAN = {"d": "days", "w": "weeks", "h": "hours"}


@example("d2c runs compare 20261122T2 20261115T2")
@runs.command()
@click.argument("first_id", metavar="RUN_1")
@click.argument("second_id", metavar="RUN_2")
@json_option
def compare(first_id: str, second_id: str, as_json: bool) -> None:
    """Show the differences of two runs.

    Compares parameters, recorded values, inputs, code and package versions.
    """
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.runs.execution.run_rows import find_run
    from d2c_mlops.runs.run_history import compare_runs as differ

    config = settings()
    ledger = Ledger.of(config)
    first, second = find_run(ledger, first_id), find_run(ledger, second_id)
    differences = differ(config, first, second)
    if as_json:
        return show({"one": first.id, "other": second.id, "differ": differences})
    if not differences:
        click.echo("no recorded differences")
        return None
    rows = [
        (f"{group}: {name}", *(_shorten_value(value) for value in pair)) for group, names in differences.items() for name, pair in names.items()
    ]  # fmt: skip
    table(("", first.id, second.id), rows)
    return None


@example("d2c runs export runs.csv --since 2026-01-01", "d2c runs export demand.parquet --model demand")
@runs.command()
@click.argument("file", type=click.Path(path_type=Path))
@add_filter_options
@json_option
def export(file: Path, as_json: bool, **options: Any) -> None:
    """Write runs to a .csv, .jsonl or .parquet FILE, the newest first."""
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.runs.run_history import export_runs as write
    from d2c_mlops.runs.run_history import find_runs

    count = write(find_runs(Ledger.of(settings()), run_filter_from_options(options)), file)
    return show({"file": str(file), "runs": count}) if as_json else click.echo(f"{count} runs are in {file}")


@example("d2c runs prune --older-than 90d --dry-run", "d2c runs prune --older-than 52w --keep 3 --rows")
@runs.command()
@click.option("--older-than", "age", required=True, metavar="AGE", help="Such as 90d, 12w or 36h.")
@click.option("--keep", default=1, show_default=True, help="Number of newest runs per job and notebook to keep.")
@click.option("--rows", is_flag=True, help="Also remove the ledger rows; default: only the outputs.")
@click.option("--dry-run", is_flag=True, help="List the runs without removing anything.")
@json_option
def prune(age: str, keep: int, rows: bool, dry_run: bool, as_json: bool) -> None:
    """Remove the outputs of old runs.

    Runs that produced a version which is or was live, or the newest version of a model, are kept. The last successful run of
    each job and notebook is kept too.
    """
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.runs.run_history import prunable_runs
    from d2c_mlops.runs.run_history import prune_runs as remove

    match = re.fullmatch(r"(\d+)([hdw])", age)
    if not match:
        raise UsageError(f"{age!r} is not a valid age", next="write 90d, 12w or 36h")
    config, now = settings(), datetime.now(UTC)
    ledger = Ledger.of(config)
    gone = prunable_runs(ledger, now - timedelta(**{SPAN[match[2]]: int(match[1])}), keep)
    freed = 0 if dry_run else remove(ledger, config, gone, now, rows)
    if as_json:
        return show({"runs": [run.id for run in gone], "freed_bytes": freed, "dry_run": dry_run})
    for run in gone if dry_run else ():
        click.echo(run.id)
    click.echo(f"{len(gone)} run(s) {'would be pruned' if dry_run else f'pruned, {freed / 2**20:.1f} MiB freed'}")
    return None


@example("d2c runs publish")
@runs.command()
@json_option
def publish(as_json: bool) -> None:
    """Retry copying outputs that could not be written to [d2c] outputs."""
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.runs.execution.output_storage import publish_remaining

    config = settings()
    published = publish_remaining(Ledger.of(config), config)
    return show({"runs": published}) if as_json else click.echo(f"{len(published)} run(s) published")


def _shorten_value(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
