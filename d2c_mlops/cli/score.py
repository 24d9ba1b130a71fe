"""Command that answers a whole table: score."""

from __future__ import annotations

import sys

import click

from d2c_mlops.cli import example, json_option, main, settings, show
from d2c_mlops.errors import DataRefused


@example(
    "d2c score demand sales.parquet sqlite:///shop.db::forecasts",
    "d2c score lead_scoring leads.csv scored.csv --reasons",
    "d2c score lead_scoring leads.csv scored.csv --encoding cp1252 --decimal , --dates dmy",
    "d2c score price products.parquet ledger:",
    "d2c score lead_scoring postgresql+psycopg://user@host/crm::leads https://crm.example/hooks/scores",
)
@main.command()
@click.argument("model")
@click.argument("source")
@click.argument("sink")
@click.option("--version", "number", type=int, help="The version; the champion when not given.")
@click.option("--reasons", is_flag=True, help="Write why, too.")
@click.option("--encoding", default="", metavar="NAME", help="Encoding of a text file, such as cp1252.")
@click.option("--decimal", type=click.Choice([".", ","]), default=None, help="Decimal mark of numbers in a text file.")
@click.option("--dates", type=click.Choice(["dmy", "mdy", "ymd"]), help="Order of day, month and year in a text file.")
@json_option
def score(
    model: str,
    source: str,
    sink: str,
    number: int | None,
    reasons: bool,
    encoding: str,
    decimal: str | None,
    dates: str | None,
    as_json: bool,
) -> None:
    """Answer every record of SOURCE as MODEL's service would, and write the answers to SINK.

    SOURCE is a Parquet or CSV file or URL::TABLE of a database; its columns are those of the contract, more are allowed.
    Encoding, decimal mark and order of dates are taken from a text file where they are clear, and refused where they are not, until
    they are declared. SINK is a file (replaced as a whole), URL::TABLE (one row per key and version; a row that is the same stays as it is), or
    the URL of a web hook (bearer token from D2C_WEBHOOK_TOKEN; what it refuses is kept as dead letters), or `ledger:`, from where
    `d2c decisions run` makes decisions of them. Interrupted, the same command goes on where it stopped; repeated, it changes nothing. While a rollout is going, its keys are the challenger's here too.
    """
    from d2c_mlops.data.sources.files import FileFormat
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.registry.promotion_history import live
    from d2c_mlops.registry.versions import find_version
    from d2c_mlops.serving.batch.score import score as answer
    from d2c_mlops.serving.rollout.history import beside

    held = settings()
    ledger = Ledger.of(held)
    version = find_version(ledger, model, number) if number is not None else live(ledger, model)
    with click.progressbar(
        length=1, label="records", file=sys.stderr, hidden=as_json or not sys.stderr.isatty()
    ) as bar:

        def progress(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        both = beside(ledger, model, held) if number is None else None
        form = FileFormat(encoding, decimal or "", dates or "")
        told = answer(version, source, sink, held, form=form, reasons=reasons, beside=both, progress=progress)
    if as_json:
        show(told.to_dict())
    else:
        counts = told.written
        news = f"{counts.inserted} new, {counts.updated} changed, {counts.unchanged} as they were"
        click.echo(f"{model} version {told.version} answered {told.records} records: {news} in {told.sink}")
        for note in told.notes:
            click.echo(f"  {note}")
        if told.challenger is not None:
            failed = f"; it failed on {told.failed}, the champion answered them" if told.failed else ""
            click.echo(f"version {told.challenger} answered {told.challenged} of them, as in the rollout{failed}")
    if told.written.dead:
        raise DataRefused(
            f"{told.written.dead} answers were refused by the web hook", where=told.written.letters,
            next="read why there, mend it, and run the same command again: it sends these alone",
        )  # fmt: skip
