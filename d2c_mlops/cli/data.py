"""Commands about data: ingest, datasets, settings."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import date
from getpass import getuser
from typing import TYPE_CHECKING

import click

from d2c_mlops.cli import example, here, json_option, main, section, settings, show, table

if TYPE_CHECKING:
    from d2c_mlops.data.manifest import Manifest


@example(
    "d2c ingest sample --as sample",
    "d2c ingest exports/ --as shop --zone America/Los_Angeles",
    "d2c ingest exports.zip --as shop --encoding cp1252 --decimal , --dates dmy",
    "d2c ingest sales.csv --as stores --planned promo,open",
    "d2c ingest postgresql+psycopg://me@db/shop --as shop",
    "d2c ingest simulated:seed=7,days=730,script=drift.ini --as shop",
)
@section("Data")
@main.command()
@click.argument("source")
@click.option("--as", "name", required=True, metavar="NAME", help="Name of the dataset that is written.")
@click.option("--layout", metavar="NAME", help="Layout of the source's columns; default: detected.")
@click.option("--encoding", default="", metavar="NAME", help="Encoding of text files, such as cp1252.")
@click.option("--decimal", type=click.Choice([".", ","]), default=None, help="Decimal mark of numbers in text files.")
@click.option("--dates", type=click.Choice(["dmy", "mdy", "ymd"]), help="Order of day, month and year in text files.")
@click.option(
    "--replace",
    type=click.Choice(["period", "orders", "all"]),
    default="period",
    show_default=True,
    help="Which rows of an existing dataset are replaced: those of the period in SOURCE, only the orders in SOURCE, or all.",
)
@click.option(
    "--zone",
    metavar="ZONE",
    help="Time zone of the shop, in which days are counted; default: derived from the timestamps.",
)
@click.option(
    "--planned",
    default="",
    metavar="COLUMNS",
    help="Columns of a sales file that are known ahead, separated by commas, as in promo,open,offer=discount.",
)
@json_option
def ingest(
    source: str,
    name: str,
    layout: str | None,
    encoding: str,
    decimal: str | None,
    dates: str | None,
    replace: str,
    zone: str | None,
    planned: str,
    as_json: bool,
) -> None:
    """Read SOURCE into canonical tables.

    SOURCE is a CSV or Parquet file, a folder, zip or tar file of them, a database URL, `sample`, or a simulated
    shop (`simulated:regime=fashion,seed=7,days=730,script=drift.ini`; regimes: grocer, fashion, gift). Several files of one table are combined, such as monthly files, parts, or CSV and Parquet files together. A row that is the same in
    two files counts once. If two files disagree about a row, the file with the later date in its name is used; without dates in the
    names, both files are refused. Files that were not read are listed.

    Data that does not match the tables' schemas is refused, and every failure is listed with its file and line. Encoding, decimal mark and
    order of dates are detected. If they are ambiguous, the source is refused until the option is given. Reading the same input twice
    changes nothing. If NAME exists, rows of the period in SOURCE are replaced and all other rows stay.

    Days are counted in the shop's time zone: --zone, else settings.ini ([data:NAME] zone, [d2c] zone), else the zone of the previous
    ingest, else the zone that matches the UTC offsets of the timestamps. Timestamps without an offset are UTC.

    Columns of a file of sales by day, week or month that are known ahead are named with --planned, or in settings.ini ([data:NAME] planned). A
    column called open, price or discount means that; `offer=discount` says it of another name; every other column is an event of the
    calendar. Rows at the end without units are plans alone.
    """
    from datetime import UTC, datetime

    from d2c_mlops.data.ingestion.ingest import ingest as read
    from d2c_mlops.data.manifest import read_manifest
    from d2c_mlops.data.sources.files import FileFormat
    from d2c_mlops.quality.assessment import quarantine_by_settings

    config = settings()
    zone = zone or config.dataset_zone(name)
    columns = tuple(part.strip() for part in planned.split(",") if part.strip()) or config.planned_columns(name)
    form = FileFormat(encoding, decimal or "", dates or "")
    now = datetime.now(UTC)
    result = read(
        source,
        name,
        store=config.store,
        layout=layout,
        file_format=form,
        replace=replace,
        zone=zone,
        planned=columns,
        created_at=now,
    )
    moved = quarantine_by_settings(name, config, by=getuser(), now=now)
    manifest = read_manifest(config.store, name) if moved else result.manifest
    if as_json:
        return show(
            {
                "changed": result.changed,
                "quarantined": [entry.to_dict() for entry in moved],
                "notes": list(result.notes),
                "unread": list(result.unread),
                "rows": asdict(result.news),
                "manifest": json.loads(manifest.to_json()),
            }
        )
    for note in result.notes:
        click.echo(f"  {note}")
    for entry in moved:
        click.echo(f"  {entry.rows:,} rows of {entry.table} are in quarantine: d2c quarantine show {name} {entry.id}")
    rows = [(t, f"{about.rows:,}", about.min_date, about.max_date) for t, about in manifest.tables.items()]
    table(("table", "rows", "from", "to"), rows)
    click.echo(f"rows: {result.news}")
    word = "written" if result.changed else "unchanged, nothing written"
    click.echo(f"{name} {manifest.digest[:12]}: {word}, days of {manifest.zone}, {here(config.store / 'data' / name)}")
    return None


@example("d2c datasets", "d2c datasets --json")
@section("Data")
@main.command()
@json_option
def datasets(as_json: bool) -> None:
    """List the datasets that were ingested."""
    from d2c_mlops.data.manifest import list_datasets, read_manifest

    config = settings()
    manifests = [read_manifest(config.store, name) for name in list_datasets(config.store)]
    if as_json:
        lines = [json.dumps(json.loads(manifest.to_json()), ensure_ascii=False) for manifest in manifests]
        click.echo(f"[{(',' + chr(10) + ' ').join(lines)}]")  # a line per dataset
        return None
    if not manifests:
        click.echo("no datasets yet; `d2c ingest sample --as sample` creates one")
        return None
    rows = [
        (m.name, m.digest[:12], sum(t.rows for t in m.tables.values()), *_first_and_last_day(m), m.zone, m.source)
        for m in manifests
    ]
    table(("name", "digest", "rows", "from", "to", "zone", "source"), rows)
    return None


def _first_and_last_day(manifest: Manifest) -> tuple[date | None, date | None]:
    """Return the first and the last day of any table."""
    spans = [
        (about.min_date, about.max_date) for about in manifest.tables.values() if about.min_date and about.max_date
    ]
    return min((first for first, _ in spans), default=None), max((last for _, last in spans), default=None)


def hidden_url(url: str) -> str:
    """Return a channel without what may be a password: its scheme, or the reference to a secret."""
    return url if url.startswith("secret:") else f"{url.partition('://')[0]}://…"


@example("d2c settings", "D2C_STORE=/srv/d2c d2c settings --json")
@section("Start")
@main.command("settings")
@json_option
def settings_command(as_json: bool) -> None:
    """Print the effective settings, from all sources."""
    from d2c_mlops.settings import ALERT_OPTIONS, MODEL_OPTIONS, OPTIONS, ROLLOUT_OPTIONS, SERVICE_OPTIONS

    config = settings()
    values = {"root": str(config.root), **{name: getattr(config, name) for name in OPTIONS}}
    values |= {"store": str(config.store), "packages": list(config.packages)}
    models = {
        name: {
            **{k: getattr(m, k) for k in MODEL_OPTIONS},
            "params": dict(m.params),
            "charter": dict(m.charter),
            "rollout": {k: getattr(config.guards(name), k) for k in ROLLOUT_OPTIONS} if m.rollout else {},
        }
        for name, m in config.models.items()
    }
    service = {name: getattr(config.service, name) for name in SERVICE_OPTIONS if name != "log_secret"}
    rollout = {name: getattr(config.rollout, name) for name in ROLLOUT_OPTIONS}
    alerts = {name: getattr(config.alerts, name) for name in ALERT_OPTIONS}
    alerts |= {name: [hidden_url(url) for url in alerts[name]] for name in ("notify", "notify_critical")}
    for model in models.values():
        model["notify"] = [hidden_url(url) for url in model["notify"]]
    if as_json:
        return show({**values, "service": service, "rollout": rollout, "alerts": alerts, "models": models})
    docs = {name: field.metadata["doc"] for name, field in OPTIONS.items()}
    table(("setting", "value", "meaning"), [(k, v, docs.get(k, "folder of settings.ini")) for k, v in values.items()])
    click.echo()
    table(("[service]", "value", "meaning"), [(k, v, SERVICE_OPTIONS[k].metadata["doc"]) for k, v in service.items()])
    click.echo()
    table(("[rollout]", "value", "meaning"), [(k, v, ROLLOUT_OPTIONS[k].metadata["doc"]) for k, v in rollout.items()])
    click.echo()
    table(("[alerts]", "value", "meaning"), [(k, v, ALERT_OPTIONS[k].metadata["doc"]) for k, v in alerts.items()])
    for name, keys in models.items():
        click.echo(f"\n[model:{name}]")
        for key, value in keys.items():
            click.echo(f"{key} = {value}")
    return None
