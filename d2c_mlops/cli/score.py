"""Command for batch predictions: score."""

from __future__ import annotations

import sys

import click

from d2c_mlops.cli import example, json_option, main, section, settings, show
from d2c_mlops.errors import DataRefused


@example(
    "d2c score demand sales.parquet sqlite:///shop.db::forecasts",
    "d2c score lead_scoring leads.csv scored.csv --reasons",
    "d2c score lead_scoring leads.csv scored.csv --encoding cp1252 --decimal , --dates dmy",
    "d2c score price products.parquet ledger:",
    "D2C_BACKEND=loky:8 d2c score demand records/ forecasts/",
    "d2c score lead_scoring postgresql+psycopg://user@host/crm::leads https://crm.example/hooks/scores",
)
@section("Live")
@main.command()
@click.argument("model")
@click.argument("source")
@click.argument("sink")
@click.option("--version", "number", type=int, help="The version; default: the champion.")
@click.option("--reasons", is_flag=True, help="Also write the reasons of each prediction.")
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
    """Predict all records of SOURCE and write them to SINK.

    The predictions equal those of MODEL's service. SOURCE is a Parquet or CSV file, or URL::TABLE of a database. It needs the columns of the contract and may have more.
    Encoding, decimal mark and order of dates of a text file are detected; if they are ambiguous, the file is refused until the option
    is given. SINK is one of: a file (replaced as a whole); a folder, FOLDER/ (replaced as a whole; SOURCE is then a folder of Parquet files, each a job of `[d2c] backend`); URL::TABLE (one row per key and version; equal rows are not rewritten); the
    URL of a web hook (bearer token from D2C_WEBHOOK_TOKEN; refused records are saved as dead letters); or `ledger:`, from which
    `d2c decisions run` creates decisions.

    After an interruption, the same command continues where it stopped. Repeating a finished command changes nothing. During a rollout, the
    challenger predicts its keys here too.
    """
    from d2c_mlops.data.sources.files import FileFormat
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.registry.promotion_history import live_version
    from d2c_mlops.registry.versions import find_version
    from d2c_mlops.serving.batch.parts import is_parts_sink, score_parts
    from d2c_mlops.serving.batch.score import score as answer
    from d2c_mlops.serving.rollout.history import share_rollout

    config = settings()
    ledger = Ledger.of(config)
    version = find_version(ledger, model, number) if number is not None else live_version(ledger, model)
    with click.progressbar(
        length=1, label="records", file=sys.stderr, hidden=as_json or not sys.stderr.isatty()
    ) as bar:

        def progress(completed: int, total: int) -> None:
            bar.length = total
            bar.update(completed - bar.pos)

        both = share_rollout(ledger, model, config) if number is None else None
        form = FileFormat(encoding, decimal or "", dates or "")
        report = (
            score_parts(version, source, sink, config, reasons=reasons, rollout_and_challenger=both, progress=progress)
            if is_parts_sink(sink)
            else answer(
                version,
                source,
                sink,
                config,
                form=form,
                reasons=reasons,
                rollout_and_challenger=both,
                progress=progress,
            )
        )
    if as_json:
        show(report.to_dict())
    else:
        counts = report.written
        news = f"{counts.inserted} new, {counts.updated} changed, {counts.unchanged} unchanged"
        click.echo(f"{model} version {report.version} predicted {report.records} records: {news} in {report.sink}")
        for note in report.notes:
            click.echo(f"  {note}")
        if report.challenger is not None:
            failed = f"; it failed on {report.failed}, which the champion predicted" if report.failed else ""
            click.echo(f"version {report.challenger} predicted {report.challenged} of them, as in the rollout{failed}")
    if report.written.dead:
        raise DataRefused(
            f"{report.written.dead} predictions were refused by the web hook", where=report.written.letters,
            next="read the reasons in this file, fix the cause and run the same command again: it sends only these",
        )  # fmt: skip
