"""Remove a person from SQLite files of the store: stored responses, web hook deliveries, MLflow's database, JupyterLab's jobs."""

from __future__ import annotations

import json
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..errors import Temporary
from .person import REMOVED, Person

WAIT = 10.0  # seconds to wait for a database that other processes use
LONG_NAME = 6  # minimum length of an identifier that is searched in composed keys
DELETED = ("answers", "sent")  # tables whose rows are deleted with the person, as whole rows


@contextmanager
def temporary_copy(path: Path) -> Iterator[Path]:
    """Yield a temporary copy of a SQLite file with its log, so that reading does not change the original."""
    with TemporaryDirectory() as folder:
        copy = Path(folder, path.name)
        shutil.copyfile(path, copy)
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size:
            shutil.copyfile(log, copy.with_name(log.name))
        yield copy


def count_rows(path: Path, person: Person) -> int:
    """Return the number of rows of a database that name the person."""
    with temporary_copy(path) as copy, closing(sqlite3.connect(copy)) as database:
        return _scrub_tables(database, person, write=False)


def scrub_database(path: Path, person: Person) -> int:
    """Remove the person from a database, its free pages and its log; return the number of rows that named the person.

    Raises Temporary while other processes use it.
    """
    try:
        with closing(sqlite3.connect(path, timeout=WAIT, isolation_level=None)) as database:
            database.execute("PRAGMA secure_delete=ON")
            database.execute("BEGIN IMMEDIATE")
            rows = _scrub_tables(database, person, write=True)
            database.execute("COMMIT")
            compact_database(database, path)
        return rows
    except sqlite3.OperationalError as error:
        raise Temporary(
            f"the database cannot be changed at the moment ({error})",
            where=str(path),
            next="run the same command again",
        ) from error


def compact_database(database: sqlite3.Connection, path: Path, wait: float = WAIT) -> None:
    """Rewrite a database without free pages and empty its log. Raises Temporary while other processes read it."""
    deadline = time.monotonic() + wait
    while True:
        try:
            database.execute("VACUUM")
            busy = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) and "busy" not in str(error):
                raise
            busy = 1
        if not busy:
            return
        if time.monotonic() > deadline:
            raise Temporary("another process reads the database", where=str(path), next="run the same command again")
        time.sleep(0.2)


def has_remains(path: Path, person: Person) -> bool:
    """Return whether the bytes of a database, including free pages and log, contain an identifier."""
    needles = [n.encode() for n in person.names if len(n) >= 4]
    files = [path, *(path.with_name(path.name + end) for end in ("-wal", "-journal"))]
    contents = [file.read_bytes().lower() for file in files if file.exists()]
    return any(needle.lower() in content for needle in needles for content in contents)


def _scrub_tables(database: sqlite3.Connection, person: Person, write: bool) -> int:
    tables = database.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    return sum(
        _scrub_table(database, name, sql or "", person, write) for name, sql in tables if not _is_virtual_table(sql)
    )


def _is_virtual_table(sql: str | None) -> bool:
    return (sql or "").upper().startswith("CREATE VIRTUAL")


def _scrub_table(database: sqlite3.Connection, table: str, sql: str, person: Person, write: bool) -> int:
    about = database.execute(f"PRAGMA table_info({_quoted_identifier(table)})").fetchall()
    columns = [row[1] for row in about]
    keys = [row[1] for row in about if row[5]] if "WITHOUT ROWID" in sql.upper() else ["rowid"]
    chosen = ", ".join(map(_quoted_identifier, columns))
    key_list = ", ".join(k if k == "rowid" else _quoted_identifier(k) for k in keys)
    rows = database.execute(f"SELECT {key_list}, {chosen} FROM {_quoted_identifier(table)}")  # noqa: S608 - names of the file's own schema
    changes: list[tuple[Any, Any]] = []
    for row in rows:
        key, cells = row[: len(keys)], dict(zip(columns, row[len(keys) :], strict=True))
        changed = _scrub_row(table, cells, person)
        if changed is REMOVED or changed != cells:
            changes.append(
                (key, changed if changed is REMOVED else {n: v for n, v in changed.items() if v != cells[n]})
            )
    where = " AND ".join(f"{k if k == 'rowid' else _quoted_identifier(k)} IS ?" for k in keys)
    for key, changed in changes if write else ():
        if changed is REMOVED:
            database.execute(f"DELETE FROM {_quoted_identifier(table)} WHERE {where}", key)  # noqa: S608
        else:
            key_list = ", ".join(f"{_quoted_identifier(n)} = ?" for n in changed)
            database.execute(
                f"UPDATE {_quoted_identifier(table)} SET {key_list} WHERE {where}",  # noqa: S608
                (*changed.values(), *key),
            )
    return len(changes)


def _scrub_row(table: str, cells: dict[str, Any], person: Person) -> Any:
    if table == "sent" and {"model", "name", "digest"} <= set(cells):
        return REMOVED if cells["name"].rpartition("-")[0] in sent_digests(person) else cells
    redacted = {}
    for name, value in cells.items():
        new = _scrub_bytes(value, name, person) if isinstance(value, bytes) else person.redact_cell(value, name)
        if table in DELETED and (new is REMOVED or (name == "key" and _key_names_person(value, person))):
            return REMOVED
        redacted[name] = value if new is REMOVED else new
    return redacted


def _key_names_person(value: Any, person: Person) -> bool:
    """Return whether a key composed by a caller contains an identifier; deleting a stored response too early does no harm."""
    text = str(value).casefold()
    return person.is_value(value, "key") or any(len(n) >= LONG_NAME and n.casefold() in text for n in person.names)


def _scrub_bytes(value: bytes, name: str, person: Person) -> Any:
    """Return JSON bytes (one document, or one per line) without the person; other bytes are returned unchanged."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return value
    try:
        read = json.loads(text)
    except ValueError:
        lines = [person.redact_cell(line, name) for line in text.split("\n")]
        redacted = "\n".join(lines)
        return value if redacted == text else redacted.encode()
    new = person.remove_from_json(read, name)
    if new is REMOVED or (
        new != read and isinstance(read, dict) and read.get("predictions") and not new["predictions"]
    ):
        return REMOVED
    return value if new == read else json.dumps(new, ensure_ascii=False, separators=(",", ":")).encode()


def sent_digests(person: Person) -> set[str]:
    """Return the digests of the person's records in a web hook's delivery log."""
    spelled = person.names | person.spellings
    keys: list[Any] = [*spelled, *(int(name) for name in spelled if name.isdecimal())]
    return {blake2b(json.dumps([key]).encode(), digest_size=12).hexdigest() for key in keys}


def _quoted_identifier(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
