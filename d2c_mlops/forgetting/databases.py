"""A person in SQLite files of the store: kept answers, what web hooks were sent, MLflow's database, jobs of JupyterLab."""

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
from .person import GONE, Person

WAIT = 10.0  # seconds for a database that others use
LONG_NAME = 6  # characters from which an identifier within a composed key is one
DELETED = ("answers", "sent")  # tables whose rows are deleted with the person, as whole rows


@contextmanager
def copied(path: Path) -> Iterator[Path]:
    """Yield a copy of a SQLite file with its log, so that reading leaves the original as it is."""
    with TemporaryDirectory() as folder:
        copy = Path(folder, path.name)
        shutil.copyfile(path, copy)
        log = path.with_name(f"{path.name}-wal")
        if log.exists() and log.stat().st_size:
            shutil.copyfile(log, copy.with_name(log.name))
        yield copy


def count(path: Path, person: Person) -> int:
    """Return how many rows of a database name the person."""
    with copied(path) as copy, closing(sqlite3.connect(copy)) as database:
        return _rows(database, person, write=False)


def scrub(path: Path, person: Person) -> int:
    """Remove the person from a database, from its free pages and its log; return how many rows named the person.

    Raises Temporary while others use it.
    """
    try:
        with closing(sqlite3.connect(path, timeout=WAIT, isolation_level=None)) as database:
            database.execute("PRAGMA secure_delete=ON")
            database.execute("BEGIN IMMEDIATE")
            rows = _rows(database, person, write=True)
            database.execute("COMMIT")
            compact(database, path)
        return rows
    except sqlite3.OperationalError as error:
        raise Temporary(
            f"the database cannot be changed now ({error})", where=str(path), next="run the same command again"
        ) from error


def compact(database: sqlite3.Connection, path: Path, wait: float = WAIT) -> None:
    """Write a database anew without its free pages and empty its log; raises Temporary while others read in it."""
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
            raise Temporary("another process reads in the database", where=str(path), next="run the same command again")
        time.sleep(0.2)


def has_remains(path: Path, person: Person) -> bool:
    """Return whether the bytes of a database, free pages and log included, hold an identifier at all."""
    needles = [n.encode() for n in person.names if len(n) >= 4]
    files = [path, *(path.with_name(path.name + end) for end in ("-wal", "-journal"))]
    contents = [file.read_bytes().lower() for file in files if file.exists()]
    return any(needle.lower() in content for needle in needles for content in contents)


def _rows(database: sqlite3.Connection, person: Person, write: bool) -> int:
    tables = database.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
    ).fetchall()
    return sum(_table(database, name, sql or "", person, write) for name, sql in tables if not _virtual(sql))


def _virtual(sql: str | None) -> bool:
    return (sql or "").upper().startswith("CREATE VIRTUAL")


def _table(database: sqlite3.Connection, table: str, sql: str, person: Person, write: bool) -> int:
    about = database.execute(f"PRAGMA table_info({_name(table)})").fetchall()
    columns = [row[1] for row in about]
    keys = [row[1] for row in about if row[5]] if "WITHOUT ROWID" in sql.upper() else ["rowid"]
    chosen = ", ".join(map(_name, columns))
    named = ", ".join(k if k == "rowid" else _name(k) for k in keys)
    rows = database.execute(f"SELECT {named}, {chosen} FROM {_name(table)}")  # noqa: S608 - names of the file's own schema
    found: list[tuple[Any, Any]] = []
    for row in rows:
        key, cells = row[: len(keys)], dict(zip(columns, row[len(keys) :], strict=True))
        made = _row(table, cells, person)
        if made is GONE or made != cells:
            found.append((key, made if made is GONE else {n: v for n, v in made.items() if v != cells[n]}))
    where = " AND ".join(f"{k if k == 'rowid' else _name(k)} IS ?" for k in keys)
    for key, made in found if write else ():
        if made is GONE:
            database.execute(f"DELETE FROM {_name(table)} WHERE {where}", key)  # noqa: S608
        else:
            named = ", ".join(f"{_name(n)} = ?" for n in made)
            database.execute(f"UPDATE {_name(table)} SET {named} WHERE {where}", (*made.values(), *key))  # noqa: S608
    return len(found)


def _row(table: str, cells: dict[str, Any], person: Person) -> Any:
    if table == "sent" and {"model", "name", "digest"} <= set(cells):
        return GONE if cells["name"].rpartition("-")[0] in sent_names(person) else cells
    made = {}
    for name, value in cells.items():
        new = _blob(value, name, person) if isinstance(value, bytes) else person.cell(value, name)
        if table in DELETED and (new is GONE or (name == "key" and _in_key(value, person))):
            return GONE
        made[name] = value if new is GONE else new
    return made


def _in_key(value: Any, person: Person) -> bool:
    """Return whether a key that a caller composed has an identifier in it; an answer that is forgotten early harms nobody."""
    text = str(value).casefold()
    return person.is_value(value, "key") or any(len(n) >= LONG_NAME and n.casefold() in text for n in person.names)


def _blob(value: bytes, name: str, person: Person) -> Any:
    """Return bytes that are JSON, a document or one a line, without the person; other bytes as they are."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return value
    try:
        read = json.loads(text)
    except ValueError:
        lines = [person.cell(line, name) for line in text.split("\n")]
        made = "\n".join(lines)
        return value if made == text else made.encode()
    new = person.without(read, name)
    if new is GONE or (new != read and isinstance(read, dict) and read.get("predictions") and not new["predictions"]):
        return GONE
    return value if new == read else json.dumps(new, ensure_ascii=False, separators=(",", ":")).encode()


def sent_names(person: Person) -> set[str]:
    """Return the digests under which a web hook's file knows records of the person."""
    spelled = person.names | person.spellings
    keys: list[Any] = [*spelled, *(int(name) for name in spelled if name.isdecimal())]
    return {blake2b(json.dumps([key]).encode(), digest_size=12).hexdigest() for key in keys}


def _name(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'
