"""Commands about past runs: runs compare, export, prune, publish."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from d2c_mlops.cli import example, json_option, settings, show, table
from d2c_mlops.cli.runs import chosen, filters, runs
from d2c_mlops.errors import UsageError

SPAN = {"d": "days", "w": "weeks", "h": "hours"}


@example("d2c runs compare 20261122T2 20261115T2")
@runs.command()
@click.argument("one")
@click.argument("other")
@json_option
def compare(one: str, other: str, as_json: bool) -> None:
    """Say in what two runs differ: parameters, recorded values, inputs, code, package versions."""
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.runs.execution.records import find
    from d2c_mlops.runs.history import compare as differ

    held = settings()
    ledger = Ledger.of(held)
    first, second = find(ledger, one), find(ledger, other)
    found = differ(held, first, second)
    if as_json:
        return show({"one": first.id, "other": second.id, "differ": found})
    if not found:
        click.echo("they differ in nothing that is on record")
        return None
    rows = [
        (f"{group}: {name}", *(_short(value) for value in pair)) for group, names in found.items() for name, pair in names.items()
    ]  # fmt: skip
    table(("", first.id, second.id), rows)
    return None


@example("d2c runs export runs.csv --since 2026-01-01", "d2c runs export demand.parquet --model demand")
@runs.command()
@click.argument("file", type=click.Path(path_type=Path))
@filters
@json_option
def export(file: Path, as_json: bool, **given: Any) -> None:
    """Write runs to a .csv, .jsonl or .parquet FILE, the newest first."""
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.runs.history import export as write
    from d2c_mlops.runs.history import found

    count = write(found(Ledger.of(settings()), chosen(given)), file)
    return show({"file": str(file), "runs": count}) if as_json else click.echo(f"{count} runs are in {file}")


@example("d2c runs prune --older-than 90d --dry-run", "d2c runs prune --older-than 52w --keep 3 --rows")
@runs.command()
@click.option("--older-than", "age", required=True, metavar="AGE", help="Such as 90d, 12w or 36h.")
@click.option("--keep", default=1, show_default=True, help="Newest runs of each job and notebook that stay anyhow.")
@click.option("--rows", is_flag=True, help="Remove the rows of the ledger, too; else only the outputs.")
@click.option("--dry-run", is_flag=True, help="Say what would go and remove nothing.")
@json_option
def prune(age: str, keep: int, rows: bool, dry_run: bool, as_json: bool) -> None:
    """Remove the outputs of old runs.

    What a version came from that is or was live, or is the newest of its model, stays, and so does the last success of
    each job and notebook.
    """
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.runs.history import prunable
    from d2c_mlops.runs.history import prune as remove

    match = re.fullmatch(r"(\d+)([hdw])", age)
    if not match:
        raise UsageError(f"{age!r} is no age", next="write 90d, 12w or 36h")
    held, now = settings(), datetime.now(UTC)
    ledger = Ledger.of(held)
    gone = prunable(ledger, now - timedelta(**{SPAN[match[2]]: int(match[1])}), keep)
    freed = 0 if dry_run else remove(ledger, held, gone, now, rows)
    if as_json:
        return show({"runs": [run.id for run in gone], "freed_bytes": freed, "dry_run": dry_run})
    for run in gone if dry_run else ():
        click.echo(run.id)
    click.echo(f"{len(gone)} run(s) {'would go' if dry_run else f'are gone, {freed / 2**20:.1f} MiB are free'}")
    return None


@example("d2c runs publish")
@runs.command()
@json_option
def publish(as_json: bool) -> None:
    """Copy the outputs that [d2c] outputs refused, now that it may take them."""
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.runs.execution.outputs import publish_left

    held = settings()
    done = publish_left(Ledger.of(held), held)
    return show({"runs": done}) if as_json else click.echo(f"{len(done)} run(s) published")


def _short(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else "" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"
