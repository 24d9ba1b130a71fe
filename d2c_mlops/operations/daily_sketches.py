"""Sketches of a version's predictions by local day: added up when logs are collected, so that a monitor need not read all rows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

import pandas as pd
from sqlalchemy import ColumnElement, delete, insert, select

from d2c_mlops.data.days import day_start, parse_zone
from d2c_mlops.data.manifest import list_datasets, read_manifest
from d2c_mlops.errors import D2CError, UsageError
from d2c_mlops.ledger.schema import by_callers, daily_sketches, predictions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.contract import Contract
from d2c_mlops.monitoring.reference import ReferenceSketches
from d2c_mlops.monitoring.sketches import LevelSketch
from d2c_mlops.operations.live_answers import COLUMNS, sketch_logged
from d2c_mlops.registry.versions import Version, find_version
from d2c_mlops.settings import Settings

REMEMBERED = 62  # days before the present whose predictions are added up; a monitor looks back 28 by default
Day = tuple[int, date]  # version and local day


def add_up_all(ledger: Ledger, settings: Settings, now: datetime | None = None) -> int:
    """Add up the sketches of all models of which a complete local day is not added up yet; return the version-days that changed.

    Logs are collected every minute; days are added up once they are over, so that the rows of a day are read once.
    """
    at = now or datetime.now(UTC)
    since = at - timedelta(days=REMEMBERED + 1)
    with ledger.read() as connection:
        query = select(predictions.c.model).where(predictions.c.at >= since).distinct()
        models = sorted(row.model for row in connection.execute(query))
    return sum(add_up(ledger, settings, model, at) for model in models if is_due(ledger, settings, model, at))


def is_due(ledger: Ledger, settings: Settings, model: str, now: datetime) -> bool:
    """Return whether a complete local day has predictions of a model and no sum; it reads one row a day at most."""
    zone = zone_of_model(ledger, settings, model)
    first, last = _complete_days(now, zone)
    stored = {day for _, day in _stored_days(ledger, model, zone)}
    with ledger.read() as connection:
        for day in pd.date_range(first, last).date:
            if day not in stored:
                query = select(predictions.c.id).where(*_of_day(model, day, zone)).limit(1)
                if connection.execute(query).first() is not None:
                    return True
    return False


def _complete_days(now: datetime, zone: str) -> tuple[date, date]:
    last = now.astimezone(parse_zone(zone)).date() - timedelta(days=1)
    return last - timedelta(days=REMEMBERED), last


def add_up(ledger: Ledger, settings: Settings, model: str, now: datetime) -> int:
    """Add up the sketches of a model's complete days whose predictions changed, such as by a later log or a person who was forgotten; return how many."""
    zone = zone_of_model(ledger, settings, model)
    first, last = _complete_days(now, zone)
    counted = predictions_by_day(ledger, model, first, last, zone)
    stored = _stored_days(ledger, model, zone)
    changed = [day for day, text in counted.items() if stored.get(day) != text]
    gone = [day for day in stored if first <= day[1] <= last and day not in counted]
    contracts: dict[int, Contract | None] = {}
    for number, day in sorted(changed):
        if number not in contracts:
            contracts[number] = _contract(ledger, model, number)
        if (contract := contracts[number]) is not None:
            logged = _predictions_of_day(ledger, model, number, day, zone)
            sketches = sketch_logged(contract, logged, zone)
            _replace(ledger, model, (number, day), zone, counted[number, day], sketches)
    for number, day in gone:
        _replace(ledger, model, (number, day), zone, "", None)
    return len(changed) + len(gone)


def sketches_of_days(ledger: Ledger, version: Version, first: date, last: date, zone: str) -> ReferenceSketches | None:
    """Return the sum of a version's sketches from one local day to another.

    None where it would not equal the sketch of all rows: a day is missing or has other predictions by now, or a column has too many levels to count exactly.
    """
    counted = predictions_by_day(ledger, version.model, first, last, zone)
    of_version = {day: text for day, text in counted.items() if day[0] == version.version}
    table = daily_sketches
    query = select(table).where(
        table.c.model == version.model, table.c.version == version.version, table.c.zone == zone,
        table.c.day >= first.isoformat(), table.c.day <= last.isoformat(),
    )  # fmt: skip
    with ledger.read() as connection:
        rows = connection.execute(query.order_by(table.c.day)).all()
    if not rows or {(row.version, date.fromisoformat(row.day)): row.summed for row in rows} != of_version:
        return None
    summed = ReferenceSketches.from_dict(rows[0].sketches)
    for row in rows[1:]:
        summed = summed + ReferenceSketches.from_dict(row.sketches)
    return summed if is_exact(summed) else None


def is_exact(sketches: ReferenceSketches) -> bool:
    """Return whether no column has more levels than are counted one by one, so that sums equal the sketch of all rows."""
    return all(s.short == 0 for s in sketches.whole.columns.values() if isinstance(s, LevelSketch))


def predictions_by_day(ledger: Ledger, model: str, first: date, last: date, zone: str) -> Mapping[Day, str]:
    """Return number and sum of times of callers' predictions by version and local day: other rows, another text. One day is read at a time."""
    texts: dict[Day, str] = {}
    with ledger.read() as connection:
        for day in pd.date_range(first, last).date:
            query = select(predictions.c.version, predictions.c.at).where(*_of_day(model, day, zone))
            rows = [tuple(row) for row in connection.execute(query)]
            if rows:
                frame = pd.DataFrame(rows, columns=["version", "at"])
                at = pd.to_datetime(frame["at"], utc=True)
                frame["time"] = at.astype("datetime64[us, UTC]").astype("int64") % 10**12
                counted = frame.groupby("version")["time"].agg(["size", "sum"])
                texts |= {(int(version), day): f"{size} {total}" for version, size, total in counted.itertuples()}
    return texts


def _of_day(model: str, day: date, zone: str) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions of callers' predictions of a model on a local day."""
    begin, end = (day_start(midnight, zone).to_pydatetime() for midnight in (day, day + timedelta(days=1)))
    return predictions.c.model == model, predictions.c.at >= begin, predictions.c.at < end, by_callers(predictions)


def zone_of_model(ledger: Ledger, settings: Settings, model: str) -> str:
    """Return the time zone of the dataset that a model's settings name, else its newest version; UTC where there is none."""
    newest = _version(ledger, model)
    inputs = newest.inputs if newest is not None else []
    name = settings.model(model).data or next((dataset["name"] for dataset in inputs), "")
    return read_manifest(settings.store, name).zone if name in list_datasets(settings.store) else "UTC"


def _contract(ledger: Ledger, model: str, number: int) -> Contract | None:
    """Return the contract of a version; None where it is unknown or cannot be read, so that logs are collected all the same."""
    version = _version(ledger, model, number)
    try:
        return None if version is None else version.schema
    except (D2CError, KeyError, TypeError, ValueError):
        return None


def _version(ledger: Ledger, model: str, number: int | None = None) -> Version | None:
    try:
        return find_version(ledger, model, number)
    except UsageError:  # a service of another project, or a version that was pruned
        return None


def _stored_days(ledger: Ledger, model: str, zone: str) -> dict[Day, str]:
    table = daily_sketches
    query = select(table.c.version, table.c.day, table.c.summed).where(table.c.model == model, table.c.zone == zone)
    with ledger.read() as connection:
        return {(row.version, date.fromisoformat(row.day)): row.summed for row in connection.execute(query)}


def _predictions_of_day(ledger: Ledger, model: str, version: int, day: date, zone: str) -> pd.DataFrame:
    columns = (predictions.c[name] for name in COLUMNS)
    query = select(*columns).where(*_of_day(model, day, zone), predictions.c.version == version)
    with ledger.read() as connection:
        return pd.DataFrame([tuple(row) for row in connection.execute(query)], columns=list(COLUMNS))


def _replace(ledger: Ledger, model: str, day: Day, zone: str, summed: str, sketches: ReferenceSketches | None) -> None:
    table = daily_sketches
    version, local_day = day[0], day[1].isoformat()
    with ledger.write_alone() as connection:
        connection.execute(
            delete(table).where(table.c.model == model, table.c.version == version, table.c.day == local_day)
        )
        if sketches is not None:
            values = {"model": model, "version": version, "day": local_day, "zone": zone, "summed": summed, "sketches": sketches.to_dict()}  # fmt: skip
            connection.execute(insert(table).values(values))
