"""A person in the ledger: predictions, feedback and decisions, and what runs and others wrote beside them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import (
    JSON,
    ColumnElement,
    Connection,
    String,
    Table,
    Text,
    cast,
    delete,
    func,
    make_url,
    or_,
    select,
    update,
)

from d2c_mlops.errors import Temporary
from d2c_mlops.forgetting.databases import compact
from d2c_mlops.forgetting.person import GONE, Person
from d2c_mlops.ledger.schema import (
    Scalar,
    decision_events,
    decision_links,
    decisions,
    feedback,
    forgettings,
    metadata,
    predictions,
    versions,
)
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution.records import close_lost, latest

RECORDS = (predictions, feedback, decisions)  # rows about one person each, which are deleted where the person is erased
FIXED = {"id", "sha256", "notebook_sha256", "artifact_uri", "started_by", "caller"}  # columns that are left as they are
CHUNK = 500
Found = dict[str, dict[tuple[Any, ...], Any]]  # by table: keys of rows with new values, or GONE


def find(connection: Connection, person: Person, models: Collection[str] | None) -> Found:
    """Return the rows that name the person, with what they become; of models that are given, or of all."""
    keys = {
        row.model: row.contract.get("key", "")
        for row in connection.execute(select(versions.c.model, versions.c.contract))
    }
    found: Found = {}
    for table in metadata.sorted_tables:
        if table is forgettings:
            continue
        rows = {key: made for key, made in _rows(connection, table, person, models, keys)}
        if rows:
            found[table.name] = rows
    if person.erased:
        _follow(connection, found)
    return found


def _rows(
    connection: Connection, table: Table, person: Person, models: Collection[str] | None, keys: Mapping[str, str]
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    columns = [c for c in table.columns if isinstance(c.type, (String, Text, JSON, Scalar)) and c.name not in FIXED]
    hits = [_contains(cast(c, Text), form) for c in columns for n in person.names for form in {n, _escaped(n)}]
    query = select(table).where(or_(*hits))
    if models is not None and "model" in table.c:
        query = query.where(or_(table.c.model.in_(list(models)), table.c.model.is_(None)))
    for row in connection.execute(query).mappings():
        values = {c.name: row[c.name] for c in columns}
        made = _row(table, values, person, keys.get(row.get("model") or "", "key"))
        if made is GONE or made != values:
            key = tuple(row[c.name] for c in table.primary_key)
            yield key, made if made is GONE else {n: v for n, v in made.items() if v != values[n]}


def _contains(text: ColumnElement[str], form: str) -> ColumnElement[bool]:
    """Return the condition that a text may name the person: small letters where an e-mail address is looked for."""
    return (
        func.lower(text).contains(form.lower(), autoescape=True)
        if "@" in form
        else text.contains(form, autoescape=True)
    )


def _escaped(text: str) -> str:
    """Return a text as it stands in JSON."""
    return json.dumps(text)[1:-1]


def _row(table: Table, values: dict[str, Any], person: Person, key_name: str) -> Any:
    """Return the values of a row without the person; GONE for a record about the person that is erased."""
    if table in RECORDS and person.erased:
        about = {n: v for n, v in values.items() if n in ("inputs", "outputs", "value") and isinstance(v, (dict, list))}
        if person.is_value(values.get("key"), key_name) or any(person.without(v) is GONE for v in about.values()):
            return GONE
        if table is decisions and person.cell(values["subject"], key_name) != values["subject"]:
            return GONE
    change = person.without if table in RECORDS and not person.erased else person.redact
    return {
        n: person.cell(v, key_name if n == "key" else n) if isinstance(v, str) else change(v, n)
        for n, v in values.items()
    }


def _follow(connection: Connection, found: Found) -> None:
    """Add feedback on, and decisions of, predictions that are erased, and what was written about these decisions."""
    ids = [key[0] for key, made in found.get("predictions", {}).items() if made is GONE]
    for table in (feedback, decisions):
        _add(connection, found, table, "prediction_id", ids)
    ids = [key[0] for key, made in found.get("decisions", {}).items() if made is GONE]
    for table in (decision_events, decision_links):
        _add(connection, found, table, "decision_id", ids)


def _add(connection: Connection, found: Found, table: Table, column: str, ids: list[str]) -> None:
    for start in range(0, len(ids), CHUNK):
        query = select(*table.primary_key).where(table.c[column].in_(ids[start : start + CHUNK]))
        for row in connection.execute(query):
            found.setdefault(table.name, {})[tuple(row)] = GONE


def counts(found: Found) -> Counter[str]:
    """Return the number of rows by table."""
    return Counter({name: len(rows) for name, rows in found.items()})


def scrub(ledger: Ledger, person: Person, models: Collection[str] | None) -> Counter[str]:
    """Change and delete the rows that name the person in one transaction; return their number by table."""
    with ledger.write() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA secure_delete=ON")
        found = find(connection, person, models)
        for name, rows in found.items():
            table = metadata.tables[name]
            for key, made in rows.items():
                here = [column == value for column, value in zip(table.primary_key, key, strict=True)]
                connection.execute(
                    delete(table).where(*here) if made is GONE else update(table).where(*here).values(**made)
                )
    return counts(found)


def clean(ledger: Ledger) -> None:
    """Remove what deleted rows leave in the ledger's files; raises Temporary while others read there."""
    url = make_url(ledger.url)
    if url.drivername.startswith("sqlite"):
        connection = ledger.engine.raw_connection()
        try:
            raw: Any = connection.driver_connection
            raw.commit()
            compact(raw, Path(url.database or ""), ledger.lock_wait)
        finally:
            connection.close()
        return
    with ledger.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as opened:
        for table in metadata.sorted_tables:
            opened.exec_driver_sql(f"VACUUM {table.name}")


def no_run_is_going(ledger: Ledger, own: str | None) -> None:
    """Raise Temporary while runs are going: they have data in memory, and may write what they read."""
    close_lost(ledger, datetime.now(UTC))
    going = [run.id for run in latest(ledger, 10_000, status="running") if run.id != own]
    if going:
        raise Temporary(
            f"{len(going)} run{'s are' if len(going) > 1 else ' is'} going; a run may write what it has read before",
            where=", ".join(going[:3]),
            next="run the same command again when `d2c runs` shows none",
        )
