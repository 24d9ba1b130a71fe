"""Commands for predictions as files: score, reorder."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from d2c_mlops.cli import example, here, json_option, main, section, settings, show
from d2c_mlops.errors import DataRefused


@example(
    "d2c score demand forecasts.csv",
    "d2c score lead_scoring ledger:",
    "d2c score demand --sums forecasts.csv",
    "d2c score demand forecasts.csv --movers movers.csv",
    "d2c score demand forecasts.csv --pages pages",
    "d2c score demand asked.parquet sqlite:///shop.db::forecasts",
    "d2c score lead_scoring leads.csv scored.csv --reasons",
    "d2c score lead_scoring leads.csv scored.csv --encoding cp1252 --decimal , --dates dmy",
    "d2c score price products.parquet ledger:",
    "D2C_BACKEND=loky:8 d2c score demand records/ forecasts/",
    "d2c score lead_scoring postgresql+psycopg://user@host/crm::leads https://crm.example/hooks/scores",
)
@section("Live")
@main.command()
@click.argument("model")
@click.argument("places", nargs=-1, required=True, metavar="[SOURCE] SINK")
@click.option(
    "--horizon",
    is_flag=True,
    help="Say that there is no SOURCE: a forecast predicts every series on every day (week, month) of its horizon.",
)
@click.option(
    "--sums",
    is_flag=True,
    help="Without SOURCE: the sums of series too, such as (total) and category=tea; they add up.",
)
@click.option(
    "--movers",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also write a CSV file of the series whose forecast changed most since the version before, and why.",
)
@click.option(
    "--pages",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Also write a page for each series of a forecast, with a searchable list: open FOLDER/index.html.",
)
@click.option("--version", "number", type=int, help="The version; default: the champion.")
@click.option("--reasons", is_flag=True, help="Also write the reasons of each prediction.")
@click.option("--encoding", default="", metavar="NAME", help="Encoding of a text file, such as cp1252.")
@click.option("--decimal", type=click.Choice([".", ","]), default=None, help="Decimal mark of numbers in a text file.")
@click.option("--dates", type=click.Choice(["dmy", "mdy", "ymd"]), help="Order of day, month and year in a text file.")
@json_option
def score(
    model: str,
    places: tuple[str, ...],
    horizon: bool,
    sums: bool,
    movers: Path | None,
    pages: Path | None,
    number: int | None,
    reasons: bool,
    encoding: str,
    decimal: str | None,
    dates: str | None,
    as_json: bool,
) -> None:
    """Predict all records of SOURCE and write them to SINK.

    Without SOURCE the model itself says what is asked: a forecast all series on all days of its horizon, a segmentation all
    customers, a lead score all open leads, as of the last day of the dataset that it learned from. The predictions equal those of MODEL's service. SOURCE is a Parquet or CSV file, or URL::TABLE of a database. It needs the columns of the contract and may have more.
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
    from d2c_mlops.serving.batch.forecast_pages import write_pages
    from d2c_mlops.serving.batch.movers import write_movers
    from d2c_mlops.serving.batch.parquet_folder import is_parts_sink, score_parts
    from d2c_mlops.serving.batch.score import score as answer
    from d2c_mlops.serving.rollout.rollout_history import share_rollout

    if len(places) > (1 if horizon else 2):
        raise click.UsageError(
            f"--horizon takes SINK alone, got: {' '.join(places)}"
            if horizon
            else f"SOURCE and SINK, or SINK alone, are needed, got: {' '.join(places)}"
        )
    if sums and len(places) == 2:
        raise click.UsageError("--sums goes without SOURCE; a SOURCE may name sums as series, such as (total)")
    source, sink = (None, places[0]) if len(places) == 1 else places
    config = settings()
    ledger = Ledger.of(config)
    version = find_version(ledger, model, number) if number is not None else live_version(ledger, model)
    moved = write_movers(version, config, movers) if movers is not None else None
    drawn = write_pages(version, config, pages) if pages is not None else 0
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
            if source is not None and is_parts_sink(sink)
            else answer(
                version,
                source,
                sink,
                config,
                file_format=form,
                reasons=reasons,
                rollout_and_challenger=both,
                progress=progress,
                sums=sums,
            )
        )
    if as_json:
        files = {"movers": str(movers), "since": moved[0].version} if moved else {}
        show(report.to_dict() | files | ({"pages": str(pages)} if pages is not None else {}))
    else:
        counts = report.written
        news = f"{counts.inserted} new, {counts.updated} changed, {counts.unchanged} unchanged"
        click.echo(f"{model} version {report.version} predicted {report.records} records: {news} in {report.sink}")
        for note in report.notes:
            click.echo(f"  {note}")
        if moved is not None and movers is not None:
            click.echo(f"{here(movers)}: {len(moved[1])} series changed most since version {moved[0].version}")
        if pages is not None:
            click.echo(f"{here(pages / 'index.html')}: pages of {drawn:,} series")
        if report.challenger is not None:
            failed = f"; it failed on {report.failed}, which the champion predicted" if report.failed else ""
            click.echo(f"version {report.challenger} predicted {report.challenged} of them, as in the rollout{failed}")
    if report.written.dead:
        raise DataRefused(
            f"{report.written.dead} predictions were refused by the web hook", where=report.written.letters,
            next="read the reasons in this file, fix the cause and run the same command again: it sends only these",
        )  # fmt: skip


@example(
    "d2c reorder demand reorder.xlsx --stock stock.csv",
    "d2c reorder demand reorder.xlsx --lead-time 14 --review 7 --service-level 0.95 --pack 6",
    "d2c reorder demand reorder.csv --understock-cost 9 --overstock-cost 1 --json",
)
@section("Live")
@main.command()
@click.argument("model")
@click.argument("sheet", type=click.Path(path_type=Path))
@click.option("--lead-time", default=7, show_default=True, help="Periods of the forecast from an order to its arrival.")
@click.option("--review", default=7, show_default=True, help="Periods from an order to the next one.")
@click.option(
    "--understock-cost", default=3.0, show_default=True, help="Cost of a unit too few: lost margin and goodwill."
)
@click.option("--overstock-cost", default=1.0, show_default=True, help="Cost of a unit too many: holding, markdown.")
@click.option(
    "--service-level", type=float, help="Share of periods without a stock-out; default: what the two costs justify."
)
@click.option("--pack", default=1.0, show_default=True, help="Units in a pack; orders are whole packs.")
@click.option("--minimum", default=0.0, show_default=True, help="Units that an order has at least.")
@click.option(
    "--stock",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="CSV or Excel file with series, on_hand, on_order; default: the stock table of the dataset.",
)
@click.option("--version", "number", type=int, help="The version; default: the champion.")
@json_option
def reorder(
    model: str,
    sheet: Path,
    lead_time: int,
    review: int,
    understock_cost: float,
    overstock_cost: float,
    service_level: float | None,
    pack: float,
    minimum: float,
    stock: Path | None,
    number: int | None,
    as_json: bool,
) -> None:
    """Write order quantities of a forecast into SHEET.

    SHEET is an .xlsx or .csv file with a row for each series.

    An order has to last until the one after it arrives: lead time plus review, in periods of the forecast (days, weeks or months). The sheet has
    the demand of that time with its 80 % interval, the safety stock, the order-up-to level, the stock and the order, and two empty
    columns: the planner writes another quantity into `override`, and why into `reason`. `d2c collect --sheet SHEET` takes them in.

    A series whose stock is not known has a level and no order. The same command again replaces SHEET, with what was written into it.
    """
    from d2c_mlops.decisions.reorder_sheet import read_stock, reorder_sheet
    from d2c_mlops.ledger.store import Ledger
    from d2c_mlops.models.forecasting.ordering import OrderRules
    from d2c_mlops.registry.promotion_history import live_version
    from d2c_mlops.registry.versions import find_version

    config = settings()
    ledger = Ledger.of(config)
    version = find_version(ledger, model, number) if number is not None else live_version(ledger, model)
    rules = OrderRules(lead_time, review, understock_cost, overstock_cost, service_level, pack, minimum)
    orders = reorder_sheet(version, config, rules, read_stock(stock) if stock else None)
    orders.write(sheet)
    ordered = orders.frame["order"]
    if as_json:
        counts = {"series": len(ordered), "ordered": int((ordered > 0).sum()), "units": float(ordered.sum())}
        return show({"sheet": str(sheet), **counts, "about": orders.about})
    click.echo(
        f"{here(sheet)}: {int((ordered > 0).sum()):,} of {len(ordered):,} series to order, {ordered.sum():,.0f} units"
    )
    for what, text in orders.about.items():
        click.echo(f"  {what}: {text}")
    return None
