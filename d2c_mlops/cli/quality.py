"""Commands about data quality: quality, quarantine."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from d2c_mlops.cli import example, here, json_option, main, section, settings, show, table

if TYPE_CHECKING:
    from d2c_mlops.quality.quarantine import QuarantineEntry

COLOURS = {"pass": "green", "warn": "yellow", "refuse": "red"}


@example(
    "d2c quality shop",
    "d2c quality exports/orders.csv --html",
    "d2c quality shop --reference payments.csv --reference refunds.csv --json",
    "d2c quality shop --history",
)
@section("Data")
@main.command()
@click.argument("target", metavar="DATASET|SOURCE")
@click.option(
    "--reference",
    "references",
    multiple=True,
    metavar="LOCATION",
    help="Tables to compare with, by name: refunds.csv, population.csv (what is scored), any other for totals or payments that others counted. May be repeated.",
)
@click.option(
    "--as-of", type=click.DateTime(["%Y-%m-%d"]), help="Day at whose end the data are assessed; default: the last day."
)
@click.option("--html", is_flag=True, help="Write the page beside the reports, and print its path.")
@click.option(
    "--history", is_flag=True, help="Print the scores of earlier assessments of DATASET instead of assessing it."
)
@click.option("--encoding", default="", metavar="NAME", help="Encoding of text files of SOURCE, such as cp1252.")
@click.option("--decimal", type=click.Choice([".", ","]), default=None, help="Decimal mark of text files of SOURCE.")
@click.option(
    "--dates", type=click.Choice(["dmy", "mdy", "ymd"]), help="Order of day, month and year in text files of SOURCE."
)
@json_option
def quality(
    target: str,
    references: tuple[str, ...],
    as_of: datetime | None,
    html: bool,
    history: bool,
    encoding: str,
    decimal: str | None,
    dates: str | None,
    as_json: bool,
) -> None:
    """Find missing, stale or mislabelled rows.

    Six faults: incompleteness, inconsistency, bias, staleness, changed form, and mislabelling.

    DATASET is a name given to `d2c ingest … --as`. SOURCE is a file, a folder, an archive or a database that was not ingested; it
    is only read. Each finding says which rows, since when, how much money is in them, and what to do.

    The verdict is pass, warn or refuse, by the scores in settings.ini (quality_warn, quality_refuse, quality_ignore of [d2c] or
    [data:NAME]). A refusal ends with exit code 3. Reports of a dataset are kept in the store.
    """
    from d2c_mlops.data.sources.files import FileFormat
    from d2c_mlops.quality.assessment import assess, score_rows
    from d2c_mlops.quality.history import score_history

    config = settings()
    if history:
        scores = score_history(config.store, target)
        if as_json:
            return show(scores.to_dict("records"))
        if scores.empty:
            click.echo(f"no assessments yet; `d2c quality {target}` makes one")
            return None
        table(tuple(scores.columns), scores.astype(str).to_numpy().tolist())
        return None
    result = assess(
        target,
        config,
        now=datetime.now().astimezone(),
        as_of=as_of.date() if as_of else None,
        references=references,
        file_format=FileFormat(encoding, decimal or "", dates or ""),
        write_page=html,
    )
    if as_json:
        show(result.to_dict())
    else:
        for name in result.target.unread:
            click.echo(f"  not read: {name}")
        for note in result.target.notes:
            click.echo(f"  reading: {note}")
        table(("", "fault", "score", "findings"), score_rows(result))
        for finding in result.shown():
            status = result.thresholds.status(finding)
            click.echo()
            click.secho(
                f"{status.upper()}  {finding.fault}: {finding.table}.{finding.check}", fg=COLOURS[status], bold=True
            )
            click.echo(f"  {finding.message}")
            click.echo(f"  what to do: {finding.advice}")
            if finding.keys:
                click.echo(f"  for example {', '.join(finding.keys)}")
        for note in result.report.notes:
            click.echo(f"  {note}")
        for note in result.report.absent:
            click.secho(f"  not checked: {note}", dim=True)
        hidden = len(result.report.findings) - len(result.shown())
        click.echo(f"\n{hidden} more below the threshold or ignored (--json lists all)" if hidden else "")
        click.secho(
            f"{result.verdict.status}: {target} as of {result.report.as_of}",
            fg=COLOURS[result.verdict.status],
            bold=True,
        )
        if result.page is not None:
            click.echo(here(result.page))
    if result.verdict.status == "refuse":
        raise click.exceptions.Exit(3)
    return None


@section("Data")
@main.group()
def quarantine() -> None:
    """Move bad rows out of a dataset, and back.

    No row is lost: what was in the dataset is in its next version or in quarantine, counted in the written files. Each change stays
    on record with its person and time.
    """


@example(
    "d2c quarantine add shop order_lines product_postage product_fee", "d2c quarantine add shop orders test_customer_id"
)
@quarantine.command()
@click.argument("dataset")
@click.argument("table_name", metavar="TABLE")
@click.argument("checks", nargs=-1, required=True, metavar="CHECK…")
@json_option
def add(dataset: str, table_name: str, checks: tuple[str, ...], as_json: bool) -> None:
    """Move the rows of a CHECK of `d2c quality` out of TABLE."""
    from getpass import getuser

    from d2c_mlops.quality.quarantine import quarantine as move

    entry, manifest = move(settings().store, dataset, table_name, checks, by=getuser(), now=datetime.now().astimezone())
    if as_json:
        return show({"entry": None if entry is None else entry.to_dict(), "digest": manifest.digest})
    if entry is None:
        click.echo(f"no rows: {dataset} {manifest.digest[:12]} is unchanged")
        return None
    for check, rows in entry.checks.items():
        click.echo(f"  {rows:,} rows: {check}")
    click.echo(f"{entry.id}: in quarantine; {dataset} is {manifest.digest[:12]} now")
    return None


@example("d2c quarantine list shop")
@quarantine.command("list")
@click.argument("dataset")
@json_option
def list_quarantine(dataset: str, as_json: bool) -> None:
    """List what was put into quarantine."""
    from d2c_mlops.quality.quarantine import entries

    listed = entries(settings().store, dataset)
    if as_json:
        return show([entry.to_dict() for entry in listed])
    if not listed:
        click.echo("nothing is in quarantine")
        return None
    table(("id", "table", "rows", "state", "by", "at", "checks"), [_entry_row(entry) for entry in listed])
    return None


def _entry_row(entry: QuarantineEntry) -> tuple[str, ...]:
    last = entry.history[-1]
    checks = ", ".join(f"{check} {rows:,}" for check, rows in entry.checks.items())
    return (entry.id, entry.table, f"{entry.rows:,}", entry.state, last["by"], last["at"][:16], checks)


@example("d2c quarantine show shop 20261130T1416 --to rows.csv")
@quarantine.command("show")
@click.argument("dataset")
@click.argument("entry_id", metavar="ID")
@click.option("--to", "file", type=click.Path(dir_okay=False), help="Write all rows to this CSV file.")
@json_option
def show_rows(dataset: str, entry_id: str, file: str | None, as_json: bool) -> None:
    """Show the rows of an entry with their reasons."""
    from d2c_mlops.data.store import write_atomic
    from d2c_mlops.formulas import csv_text, escape_formulas
    from d2c_mlops.quality.quarantine import find_entry, quarantined_rows

    store = settings().store
    rows = quarantined_rows(store, dataset, find_entry(store, dataset, entry_id))
    if file:
        write_atomic(Path(file), csv_text(escape_formulas(rows)).encode("utf-8-sig"))
        click.echo(f"{len(rows):,} rows in {file}")
        return None
    rows = rows[[rows.columns[-1], *rows.columns[:-1]]].dropna(axis=1, how="all")
    if as_json:
        return show(rows.head(1000).astype(str).to_dict("records"))
    table(tuple(rows.columns), rows.head(10).astype(str).to_numpy().tolist())
    click.echo(f"{len(rows):,} rows" + ("; the first ten are shown" if len(rows) > 10 else ""))
    return None


@example("d2c quarantine release shop 20261130T1416")
@quarantine.command()
@click.argument("dataset")
@click.argument("entry_id", metavar="ID")
@json_option
def release(dataset: str, entry_id: str, as_json: bool) -> None:
    """Put the rows of an entry back.

    The same checks do not take them out again.
    """
    from getpass import getuser

    from d2c_mlops.quality.quarantine import release as put_back

    entry, manifest = put_back(settings().store, dataset, entry_id, by=getuser(), now=datetime.now().astimezone())
    if as_json:
        return show({"entry": entry.to_dict(), "digest": manifest.digest})
    click.echo(f"{entry.id}: {entry.rows:,} rows released; {dataset} is {manifest.digest[:12]} now")
    return None


@example("d2c quarantine drop shop 20261130T1416")
@quarantine.command()
@click.argument("dataset")
@click.argument("entry_id", metavar="ID")
@json_option
def drop(dataset: str, entry_id: str, as_json: bool) -> None:
    """Delete the rows of an entry for good; the record stays."""
    from getpass import getuser

    from d2c_mlops.quality.quarantine import drop as delete

    entry = delete(settings().store, dataset, entry_id, by=getuser(), now=datetime.now().astimezone())
    if as_json:
        return show({"entry": entry.to_dict()})
    click.echo(f"{entry.id}: {entry.rows:,} rows dropped")
    return None
