"""Commands about data: ingest, datasets, settings."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import date
from typing import TYPE_CHECKING

import click

from d2c_mlops.cli import example, here, json_option, main, settings, show, table

if TYPE_CHECKING:
    from d2c_mlops.data.manifest import Manifest


@example(
    "d2c ingest sample --as sample",
    "d2c ingest exports/ --as shop --zone America/Los_Angeles",
    "d2c ingest exports.zip --as shop --encoding cp1252 --decimal , --dates dmy",
    "d2c ingest postgresql+psycopg://me@db/shop --as shop",
)
@main.command()
@click.argument("source")
@click.option("--as", "name", required=True, metavar="NAME", help="Name of the dataset that is written.")
@click.option("--layout", metavar="NAME", help="How the source's columns are laid out; recognised when not given.")
@click.option("--encoding", default="", metavar="NAME", help="Encoding of text files, such as cp1252.")
@click.option("--decimal", type=click.Choice([".", ","]), default=None, help="Decimal mark of numbers in text files.")
@click.option("--dates", type=click.Choice(["dmy", "mdy", "ymd"]), help="Order of day, month and year in text files.")
@click.option(
    "--replace",
    type=click.Choice(["period", "orders", "all"]),
    default="period",
    show_default=True,
    help="What an existing dataset gives up: rows of the period that is read, only orders that are read again, or all rows.",
)
@click.option("--zone", metavar="ZONE", help="Time zone in which days are counted; found in the times when not given.")
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
    as_json: bool,
) -> None:
    """Read SOURCE into canonical tables: CSV and Parquet files, a folder or a zip or tar file of them, a database URL, or `sample`.

    Files of one table are joined: a file a month, parts, CSV beside Parquet. Rows that are the same in two files count once; where they
    differ, the file with the later date in its name counts, and without dates both files are refused by name. Files that are not read
    are named.

    What does not fit the tables' schemas is refused with every failure listed, by file and line. Encoding, decimal mark and order of
    dates are taken from the files where they are clear, and refused where they are not, until they are declared. The same input twice
    changes nothing. Where NAME exists, rows of the period that is read are replaced, and the rest stays.

    Days are those of the shop: in the zone given here or in settings.ini ([data:NAME] zone, [d2c] zone), that of the last time,
    or the one whose clocks have the UTC offsets of the times. Times without any are UTC.
    """
    from datetime import UTC, datetime

    from d2c_mlops.data.ingestion.ingest import ingest as read
    from d2c_mlops.data.sources.files import FileFormat

    held = settings()
    zone = zone or held.dataset_zone(name)
    form = FileFormat(encoding, decimal or "", dates or "")
    now = datetime.now(UTC)
    result = read(source, name, store=held.store, layout=layout, form=form, replace=replace, zone=zone, created_at=now)
    manifest = result.manifest
    if as_json:
        return show(
            {
                "changed": result.changed,
                "notes": list(result.notes),
                "unread": list(result.unread),
                "rows": asdict(result.news),
                "manifest": json.loads(manifest.to_json()),
            }
        )
    for note in result.notes:
        click.echo(f"  {note}")
    rows = [(t, f"{about.rows:,}", about.min_date, about.max_date) for t, about in manifest.tables.items()]
    table(("table", "rows", "from", "to"), rows)
    click.echo(f"rows: {result.news}")
    word = "written" if result.changed else "unchanged, nothing written"
    click.echo(f"{name} {manifest.digest[:12]}: {word}, days of {manifest.zone}, {here(held.store / 'data' / name)}")
    return None


@example("d2c datasets", "d2c datasets --json")
@main.command()
@json_option
def datasets(as_json: bool) -> None:
    """List the datasets that were ingested."""
    from d2c_mlops.data.manifest import list_datasets, read_manifest

    held = settings()
    found = [read_manifest(held.store, name) for name in list_datasets(held.store)]
    if as_json:
        lines = [json.dumps(json.loads(each.to_json()), ensure_ascii=False) for each in found]
        click.echo(f"[{(',' + chr(10) + ' ').join(lines)}]")  # a line per dataset
        return None
    if not found:
        click.echo("no datasets yet; `d2c ingest sample --as sample` makes one")
        return None
    rows = [(m.name, m.digest[:12], sum(t.rows for t in m.tables.values()), *_days(m), m.zone, m.source) for m in found]
    table(("name", "digest", "rows", "from", "to", "zone", "source"), rows)
    return None


def _days(manifest: Manifest) -> tuple[date | None, date | None]:
    """Return the first and the last day of any table."""
    spans = [
        (about.min_date, about.max_date) for about in manifest.tables.values() if about.min_date and about.max_date
    ]
    return min((first for first, _ in spans), default=None), max((last for _, last in spans), default=None)


@example("d2c settings", "D2C_STORE=/srv/d2c d2c settings --json")
@main.command("settings")
@json_option
def settings_command(as_json: bool) -> None:
    """Print the settings that hold here, wherever they come from."""
    from d2c_mlops.settings import MODEL_OPTIONS, OPTIONS, ROLLOUT_OPTIONS, SERVICE_OPTIONS

    held = settings()
    values = {"root": str(held.root), **{name: getattr(held, name) for name in OPTIONS}}
    values |= {"store": str(held.store), "packages": list(held.packages)}
    models = {
        name: {
            **{k: getattr(m, k) for k in MODEL_OPTIONS},
            "params": dict(m.params),
            "charter": dict(m.charter),
            "rollout": {k: getattr(held.guards(name), k) for k in ROLLOUT_OPTIONS} if m.rollout else {},
        }
        for name, m in held.models.items()
    }
    service = {name: getattr(held.service, name) for name in SERVICE_OPTIONS if name != "log_secret"}
    rollout = {name: getattr(held.rollout, name) for name in ROLLOUT_OPTIONS}
    if as_json:
        return show({**values, "service": service, "rollout": rollout, "models": models})
    docs = {name: field.metadata["doc"] for name, field in OPTIONS.items()}
    table(
        ("setting", "value", "what it is"), [(k, v, docs.get(k, "folder of settings.ini")) for k, v in values.items()]
    )
    click.echo()
    table(
        ("[service]", "value", "what it is"), [(k, v, SERVICE_OPTIONS[k].metadata["doc"]) for k, v in service.items()]
    )
    click.echo()
    table(
        ("[rollout]", "value", "what it is"), [(k, v, ROLLOUT_OPTIONS[k].metadata["doc"]) for k, v in rollout.items()]
    )
    for name, keys in models.items():
        click.echo(f"\n[model:{name}]")
        for key, value in keys.items():
            click.echo(f"{key} = {value}")
    return None
