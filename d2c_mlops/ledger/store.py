"""Open the ledger: one engine, migrated on first use; database errors are converted to D2CError."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Table, create_engine, event, inspect, make_url, text
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError

from ..errors import D2CError, Temporary, UsageError
from ..private_files import private_file, tighten_store
from ..settings import Settings

HEAD = "0013"  # the newest migration; a test compares it with the migrations folder
LOCKED = ("database is locked", "database table is locked", "database schema is locked")
PATIENCE = 600.0  # seconds that what has happened waits to be written down while the ledger is away
T = TypeVar("T")
CHUNK = 2000  # rows that are inserted by one statement
FULL = ("database or disk is full", "disk i/o error", "no space left")


class Ledger:
    """The ledger of a project. Safe to open many times; writers on SQLite queue for at most `lock_wait` seconds."""

    def __init__(self, url: str, lock_wait: float = 10.0) -> None:
        self.url = url
        self.lock_wait = lock_wait
        self.engine = self._create_engine()
        with self._mapped_errors():
            self._migrate_schema()

    @classmethod
    def of(cls, settings: Settings) -> Ledger:
        """Open the ledger of the settings."""
        tighten_store(settings.store, settings.root)
        return cls(settings.ledger, settings.lock_wait)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A connection to read from."""
        with self._mapped_errors(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A write transaction."""
        with self._mapped_errors(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def write_alone(self) -> Iterator[Connection]:
        """A write transaction that no other one of its kind overlaps: for writes that follow from rows read in it."""
        with self.write() as connection:
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql("BEGIN IMMEDIATE")
            elif connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(5023062)"))
            yield connection

    def with_retries(
        self, call: Callable[[], T], timeout: float = PATIENCE, print_line: Callable[[str], None] | None = None
    ) -> T:
        """Return the result of `call`; if the ledger is unavailable, retry for `timeout` seconds.

        For events that must be recorded. Raises Temporary if the ledger stays unavailable.
        """
        limit, wait = time.monotonic() + timeout, 0.2
        while True:
            try:
                return call()
            except Temporary as err:
                if time.monotonic() >= limit:
                    raise
                if print_line is not None and wait == 0.2:
                    print_line(f"{err.what}; retrying for {timeout:g} s")
                time.sleep(wait)
                wait = min(2 * wait, 5.0)

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    @property
    def display_url(self) -> str:
        """The URL without its password."""
        return make_url(self.url).render_as_string(hide_password=True)

    def _create_engine(self) -> Engine:
        try:
            url = make_url(self.url)
            if not url.drivername.startswith("sqlite"):
                impatient = {"connect_timeout": 10} if url.drivername.startswith("postgresql") else {}
                return create_engine(url, pool_pre_ping=True, connect_args=impatient)
            if url.database and url.database != ":memory:" and not url.database.startswith("file:"):
                private_file(Path(url.database))
            engine = create_engine(url, connect_args={"timeout": self.lock_wait})
        except (ArgumentError, NoSuchModuleError, ImportError) as err:
            raise UsageError(
                f"the ledger cannot be opened: {err}",
                where="ledger_url",
                next="give a SQLAlchemy URL such as postgresql+psycopg://user@host/db, with its driver installed",
            ) from None
        except OSError as err:
            raise error_of_os_error(err, str(url.database)) from None
        event.listen(engine, "connect", _tune_sqlite)
        return engine

    def _migrate_schema(self) -> None:
        with self.engine.connect() as connection:
            is_versioned = inspect(connection).has_table("alembic_version")
            now = connection.execute(text("SELECT version_num FROM alembic_version")).scalar() if is_versioned else None
        if now == HEAD:
            return
        from .migrate import upgrade_ledger

        upgrade_ledger(self.engine)

    @contextmanager
    def _mapped_errors(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, InterfaceError) as err:
            raise self._error_of(err) from err
        except DatabaseError as err:
            if "file is not a database" in str(err.orig):
                raise UsageError("this file is not a ledger", where=self.display_url, next="move it away") from None
            raise

    def _error_of(self, err: DBAPIError) -> D2CError:
        reason = str(err.orig).strip()
        if any(word in reason.lower() for word in LOCKED):
            what = f"the ledger was locked for {self.lock_wait:g} s by another process"
            return Temporary(what, where=self.display_url, next="try again, or raise [d2c] lock_wait")
        if any(word in reason.lower() for word in FULL):
            return Temporary(
                f"the ledger cannot be written: {reason}", where=self.display_url, next="free some disk space"
            )
        return Temporary(
            f"the ledger cannot be reached: {reason}", where=self.display_url, next="check [d2c] ledger_url"
        )


def insert_new(connection: Connection, table: Table, rows: Iterable[Mapping[str, Any]]) -> list[Any]:
    """Insert the rows whose key does not exist yet and return their keys; a unique key resolves concurrent writes."""
    insert = import_module(f"sqlalchemy.dialects.{connection.dialect.name}").insert
    statement = insert(table).on_conflict_do_nothing().returning(*table.primary_key)
    added: list[Any] = []
    waiting = iter(rows)
    while chunk := list(islice(waiting, CHUNK)):
        added += connection.execute(statement, chunk).all()
    return added


def error_of_os_error(err: OSError, where: str) -> D2CError:
    """Return the error for an OSError: Temporary for a full disk or a lock, else UsageError."""
    if err.errno in (11, 28, 122):  # EAGAIN, ENOSPC, EDQUOT
        return Temporary(f"nothing can be written: {err.strerror}", where=where, next="free some disk space, try again")
    return UsageError(f"nothing can be written: {err.strerror}", where=where, next="choose another [d2c] store")


def _tune_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()
