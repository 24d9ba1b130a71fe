"""Remove a person from the ledger: predictions, feedback, decisions, and values recorded by runs."""

from __future__ import annotations

import json
import re
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
    true,
    update,
)

from d2c_mlops.errors import Temporary
from d2c_mlops.forgetting.databases import compact_database
from d2c_mlops.forgetting.person import REMOVED, Person
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
from d2c_mlops.runs.execution.run_rows import close_lost_runs, latest_runs

RECORDS = (predictions, feedback, decisions)  # each row is about one person; deleted if the person is erased
FIXED = {"id", "sha256", "notebook_sha256", "artifact_uri", "started_by", "caller"}  # columns that are not changed
CHUNK = 500
RowChanges = dict[str, dict[tuple[Any, ...], Any]]  # by table: keys of rows with new values, or REMOVED


def find_rows(connection: Connection, person: Person, models: Collection[str] | None) -> RowChanges:
    """Return the rows that name the person with their new values; only for the given models, or for all if None."""
    keys = {
        row.model: row.contract.get("key", "")
        for row in connection.execute(select(versions.c.model, versions.c.contract))
    }
    changes: RowChanges = {}
    for table in metadata.sorted_tables:
        if table is forgettings:
            continue
        rows = {key: new_values for key, new_values in _changed_rows(connection, table, person, models, keys)}
        if rows:
            changes[table.name] = rows
    if person.erased:
        _add_dependent_rows(connection, changes)
    return changes


def _changed_rows(
    connection: Connection, table: Table, person: Person, models: Collection[str] | None, keys: Mapping[str, str]
) -> Iterator[tuple[tuple[Any, ...], Any]]:
    columns = [c for c in table.columns if isinstance(c.type, (String, Text, JSON, Scalar)) and c.name not in FIXED]
    hits = [_may_name(cast(c, Text), form) for c in columns for n in person.names for form in {n, _json_text(n)}]
    query = select(table).where(or_(*hits))
    if models is not None and "model" in table.c:
        query = query.where(or_(table.c.model.in_(list(models)), table.c.model.is_(None)))
    for row in connection.execute(query).mappings():
        values = {c.name: row[c.name] for c in columns}
        new_values = _scrub_row(table, values, person, keys.get(row.get("model") or "", "key"))
        if new_values is REMOVED or new_values != values:
            key = tuple(row[c.name] for c in table.primary_key)
            yield key, new_values if new_values is REMOVED else {n: v for n, v in new_values.items() if v != values[n]}


def _may_name(text: ColumnElement[str], form: str) -> ColumnElement[bool]:
    """Return the condition that a text may name the person; e-mail addresses are compared in lower case.

    Databases change the case of ASCII letters alone, and JSON escapes others: of these forms the longest ASCII part is searched.
    """
    if not form.isascii():
        form = max(re.findall(r"[\w .@+-]+", form, re.ASCII), key=len, default="")
        if not form:
            return true()
    return (
        func.lower(text).contains(form.lower(), autoescape=True)
        if "@" in form
        else text.contains(form, autoescape=True)
    )


def _json_text(text: str) -> str:
    """Return a text as it is written in JSON."""
    return json.dumps(text)[1:-1]


def _scrub_row(table: Table, values: dict[str, Any], person: Person, key_name: str) -> Any:
    """Return the values of a row without the person; REMOVED for a row about an erased person."""
    if table in RECORDS and person.erased:
        about = {n: v for n, v in values.items() if n in ("inputs", "outputs", "value") and isinstance(v, (dict, list))}
        if person.is_value(values.get("key"), key_name) or any(
            person.remove_from_json(v) is REMOVED for v in about.values()
        ):
            return REMOVED
        if table is decisions and person.redact_cell(values["subject"], key_name) != values["subject"]:
            return REMOVED
    change = person.remove_from_json if table in RECORDS and not person.erased else person.redact_json
    return {
        n: person.redact_cell(v, key_name if n == "key" else n) if isinstance(v, str) else change(v, n)
        for n, v in values.items()
    }


def _add_dependent_rows(connection: Connection, changes: RowChanges) -> None:
    """Add feedback and decisions of erased predictions, and the events and links of these decisions."""
    ids = [key[0] for key, new_values in changes.get("predictions", {}).items() if new_values is REMOVED]
    for table in (feedback, decisions):
        _add_deletions(connection, changes, table, "prediction_id", ids)
    ids = [key[0] for key, new_values in changes.get("decisions", {}).items() if new_values is REMOVED]
    for table in (decision_events, decision_links):
        _add_deletions(connection, changes, table, "decision_id", ids)


def _add_deletions(connection: Connection, changes: RowChanges, table: Table, column: str, ids: list[str]) -> None:
    for start in range(0, len(ids), CHUNK):
        query = select(*table.primary_key).where(table.c[column].in_(ids[start : start + CHUNK]))
        for row in connection.execute(query):
            changes.setdefault(table.name, {})[tuple(row)] = REMOVED


def count_rows(changes: RowChanges) -> Counter[str]:
    """Return the number of rows by table."""
    return Counter({name: len(rows) for name, rows in changes.items()})


def scrub_ledger(ledger: Ledger, person: Person, models: Collection[str] | None) -> Counter[str]:
    """Update and delete the rows that name the person in one transaction; return their number by table."""
    with ledger.write() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA secure_delete=ON")
        changes = find_rows(connection, person, models)
        for name, rows in changes.items():
            table = metadata.tables[name]
            for key, new_values in rows.items():
                same_key = [column == value for column, value in zip(table.primary_key, key, strict=True)]
                connection.execute(
                    delete(table).where(*same_key)
                    if new_values is REMOVED
                    else update(table).where(*same_key).values(**new_values)
                )
    return count_rows(changes)


def vacuum(ledger: Ledger) -> None:
    """Remove the remains of deleted rows from the ledger's files. Raises Temporary while other processes read them."""
    url = make_url(ledger.url)
    if url.drivername.startswith("sqlite"):
        connection = ledger.engine.raw_connection()
        try:
            raw: Any = connection.driver_connection
            raw.commit()
            compact_database(raw, Path(url.database or ""), ledger.lock_wait)
        finally:
            connection.close()
        return
    with ledger.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as opened:
        for table in metadata.sorted_tables:
            opened.exec_driver_sql(f"VACUUM {table.name}")


def check_no_run_in_progress(ledger: Ledger, own_run: str | None) -> None:
    """Raise Temporary while runs are in progress: they have data in memory, and may write it again."""
    close_lost_runs(ledger, datetime.now(UTC))
    going = [run.id for run in latest_runs(ledger, 10_000, status="running") if run.id != own_run]
    if going:
        raise Temporary(
            f"{len(going)} run{'s are' if len(going) > 1 else ' is'} in progress; a run may write data that it has read before",
            where=", ".join(going[:3]),
            next="run the same command again when `d2c runs` shows none",
        )
