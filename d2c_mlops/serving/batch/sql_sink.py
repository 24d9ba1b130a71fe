"""Sink for a database table: one row per key and version; each chunk and the batch's progress are one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, ClassVar

import pandas as pd
import sqlalchemy as sa

from d2c_mlops.data.sources.fetch import URL, split_location, translate_sql_errors, without_password
from d2c_mlops.errors import Failure, UsageError
from d2c_mlops.models.core.contract import Field, to_records
from d2c_mlops.serving.batch.sinks import Batch, BatchWriter, WriteCounts

TYPES: dict[str, Any] = {
    "string": sa.String,
    "integer": sa.BigInteger,
    "number": sa.Double,
    "boolean": sa.Boolean,
    "date": sa.Date,
    "date-time": sa.DateTime,
}
NOTES = "d2c_batches"  # how far each batch has come
KEY_LENGTH = 255  # characters of a text in a primary key
MOST_VALUES = 20_000  # bound values of one statement; SQLite takes 32,766, PostgreSQL 65,535


class SqlSink:
    """Sink for a table of any database that SQLAlchemy supports; a missing table is created."""

    expects: ClassVar[str] = "DIALECT://…::TABLE"
    unique: ClassVar[bool] = True  # one row per key and version

    def matches(self, location: str) -> bool:
        return bool(URL.match(location)) and not location.lower().startswith(("http://", "https://"))

    @contextmanager
    def open(self, location: str, batch: Batch) -> Iterator[BatchWriter]:
        url, table = split_location(location)
        if not table:
            raise UsageError(
                "the table name is missing",
                where=without_password(location),
                next=f"name it: {without_password(url)}::forecasts",
            )
        with translate_sql_errors(location):
            engine = sa.create_engine(url, poolclass=sa.NullPool)
            target, notes = _target_and_notes(table, batch)
            with engine.begin() as connection:
                created = _create_or_check(connection, target, without_password(location))
                notes.create(connection, checkfirst=True)
                if created:  # notes about a former table of this name are void
                    connection.execute(notes.delete().where(notes.c.sink == target.name))
                resumed_at = _begin_batch(connection, notes, target.name, batch)
        yield _Table(engine, target, notes, batch, location, resumed_at=resumed_at)


def _target_and_notes(name: str, batch: Batch) -> tuple[sa.Table, sa.Table]:
    schema, _, bare = name.rpartition(".")
    metadata = sa.MetaData()
    columns = [
        _sql_column(field, field.name in batch.identity)
        for field in batch.contract.output_fields
        if field.name not in ("model", "version")
    ]
    clash = {"model", "version", "reasons", "scored_at"} & {field.name for field in batch.contract.output_fields}
    if clash:
        raise UsageError(
            f"the output uses reserved column names: {', '.join(sorted(clash))}",
            next="rename these fields in the contract",
        )
    columns += [sa.Column("model", sa.String(64), primary_key=True)]
    columns += [sa.Column("version", sa.Integer, primary_key=True, autoincrement=False)]
    columns += [sa.Column("reasons", sa.Text)] if batch.reasons else []
    columns += [sa.Column("scored_at", sa.DateTime, nullable=False)]
    target = sa.Table(bare, metadata, *columns, schema=schema or None)
    notes = sa.Table(
        NOTES,
        metadata,
        sa.Column("batch", sa.String(32), primary_key=True),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("sink", sa.String(255), nullable=False),
        sa.Column("records", sa.BigInteger, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("at", sa.DateTime, nullable=False),
        schema=schema or None,
    )
    return target, notes


def _begin_batch(connection: sa.Connection, notes: sa.Table, sink: str, batch: Batch) -> int:
    """Record the start of a batch and return how many of its records an earlier attempt wrote that are still valid."""
    mine = notes.c.batch == batch.id
    resumed_at = connection.execute(sa.select(notes.c.records).where(mine, notes.c.records < notes.c.total)).scalar()
    connection.execute(notes.delete().where(mine | _unfinished_batches(notes, sink)))
    row = {"batch": batch.id, "model": batch.model, "version": batch.version, "sink": sink}
    now = datetime.now(UTC).replace(tzinfo=None)
    connection.execute(notes.insert(), {**row, "records": resumed_at or 0, "total": batch.records, "at": now})
    return int(resumed_at or 0)


def _unfinished_batches(notes: sa.Table, sink: str) -> sa.ColumnElement[bool]:
    """Select unfinished batches; their progress is valid only until another batch writes."""
    return (notes.c.sink == sink) & (notes.c.records < notes.c.total)


def _sql_column(field: Field, key: bool) -> sa.Column[Any]:
    kind = TYPES[field.kind]
    if field.kind == "string":
        length = field.max_length or (KEY_LENGTH if key else None)
        kind = sa.String(length) if length else sa.Text
    return sa.Column(field.name, kind, primary_key=key, nullable=not key and field.nullable, autoincrement=False)


def _create_or_check(connection: sa.Connection, target: sa.Table, where: str) -> bool:
    """Create the table, or check the columns of the existing one; return whether it was created."""
    inspector = sa.inspect(connection)
    if not inspector.has_table(target.name, schema=target.schema):
        target.create(connection)
        return True
    there = {column["name"] for column in inspector.get_columns(target.name, schema=target.schema)}
    missing = [column.name for column in target.columns if column.name not in there]
    key = inspector.get_pk_constraint(target.name, schema=target.schema)["constrained_columns"]
    key_columns = [column.name for column in target.primary_key.columns]
    failures = [Failure("is missing", name) for name in missing]
    if set(key) != set(key_columns):
        failures.append(Failure(f"is ({', '.join(key)}), expected ({', '.join(key_columns)})", "primary key"))
    if failures:
        raise UsageError(
            f"the table {target.name} does not fit these predictions", where=where, failures=failures,
            next="use a new table name: the table is created with the right columns",
        )  # fmt: skip
    return False


@dataclass
class _Table:
    engine: sa.Engine
    target: sa.Table
    notes: sa.Table
    batch: Batch
    location: str
    resumed_at: int = 0
    columns: list[str] = field(default_factory=list)
    told: WriteCounts = field(default_factory=WriteCounts)

    def write(self, frame: pd.DataFrame, first: int) -> None:
        """Insert new rows, update changed rows and record the batch's progress in one transaction."""
        rows = self._rows_to_insert(frame)
        self.columns = [column.name for column in self.target.columns]
        with translate_sql_errors(self.location):
            try:
                new, changed = self._write_batch(rows, first)
            except sa.exc.IntegrityError:  # another batch may have written these rows since they were looked for
                new, changed = self._write_batch(rows, first)
        self.told.inserted += new
        self.told.updated += changed
        self.told.unchanged += len(rows) - new - changed

    def _write_batch(self, rows: list[dict[str, Any]], first: int) -> tuple[int, int]:
        keys = [column.name for column in self.target.primary_key.columns]
        with self.engine.begin() as connection:
            existing = self._existing_rows(connection, rows, keys)
            now = datetime.now(UTC).replace(tzinfo=None)
            new = [row for row in rows if tuple(row[name] for name in keys) not in existing]
            changed = [
                row
                for row in rows
                if (old := existing.get(tuple(row[name] for name in keys))) is not None and old != row
            ]
            if new:
                connection.execute(self.target.insert(), [{**row, "scored_at": now} for row in new])
            if changed:
                where = sa.and_(*(self.target.c[name] == sa.bindparam(f"key_{name}") for name in keys))
                values: dict[str, Any] = {
                    name: sa.bindparam(f"new_{name}") for name in [*(n for n in rows[0] if n not in keys), "scored_at"]
                }
                bound = [
                    {f"key_{name}": row[name] for name in keys}
                    | {f"new_{name}": {**row, "scored_at": now}[name] for name in values}
                    for row in changed
                ]
                connection.execute(self.target.update().where(where).values(values), bound)
            self._record_progress(connection, first + len(rows), now)
        return len(new), len(changed)

    def _rows_to_insert(self, frame: pd.DataFrame) -> list[dict[str, Any]]:
        rows = to_records(self.batch.contract.output_fields, frame)
        for output in self.batch.contract.output_fields:
            if output.kind in ("date", "date-time"):
                moments = (
                    frame[output.name].dt.tz_convert("UTC").dt.tz_localize(None)
                    if output.kind == "date-time"
                    else frame[output.name]
                )
                for row, moment in zip(rows, moments, strict=True):
                    missing = pd.isna(moment)
                    row[output.name] = (
                        None if missing else moment.date() if output.kind == "date" else moment.to_pydatetime()
                    )
        extra = [name for name in ("model", "version", "reasons") if name in frame]
        for name in extra:
            for row, value in zip(rows, frame[name].tolist(), strict=True):
                row[name] = value
        return rows

    def _existing_rows(
        self, connection: sa.Connection, rows: list[dict[str, Any]], keys: list[str]
    ) -> dict[tuple[Any, ...], Any]:
        """Return existing rows by key."""
        own_keys = [name for name in keys if name not in ("model", "version")]
        columns = [self.target.c[name] for name in rows[0]]
        versions = [version for version in (self.batch.version, self.batch.challenger) if version is not None]
        ours = (self.target.c.model == self.batch.model) & self.target.c.version.in_(versions)
        existing: dict[tuple[Any, ...], Any] = {}
        step = MOST_VALUES // len(own_keys)
        for start in range(0, len(rows), step):
            part = rows[start : start + step]
            if len(own_keys) == 1:
                mine = self.target.c[own_keys[0]].in_([row[own_keys[0]] for row in part])
            else:
                mine = sa.tuple_(*(self.target.c[name] for name in own_keys)).in_(
                    [tuple(row[n] for n in own_keys) for row in part]
                )
            for old in connection.execute(sa.select(*columns).where(ours, mine)).mappings():
                existing[tuple(old[name] for name in keys)] = dict(old)
        return existing

    def _record_progress(self, connection: sa.Connection, records: int, now: datetime) -> None:
        """Record the batch's progress; no effect if another batch has written in the meantime and removed the record."""
        notes, mine = self.notes, self.notes.c.batch == self.batch.id
        connection.execute(notes.delete().where(~mine, _unfinished_batches(notes, self.target.name)))
        connection.execute(notes.update().where(mine).values(records=records, at=now))

    def finish(self) -> WriteCounts:
        self.told.unchanged += self.resumed_at
        return self.told
