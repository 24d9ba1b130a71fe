"""Answers kept under their Idempotency-Key, so that a call that is repeated gets the same answer and does nothing twice."""

from __future__ import annotations

import sqlite3
import threading
import time
from hashlib import blake2b
from pathlib import Path

from ..private_files import file_mode, private_file

KEEP = 24 * 3600.0  # seconds
SWEEP = 1000  # kept answers between two sweeps


class Conflict(Exception):
    """The key was used for another body."""


class Kept:
    """A file of answers, shared by the workers of a service; it survives all of them."""

    def __init__(self, file: Path) -> None:
        private_file(file)
        file.chmod(file_mode(file))  # it holds answers; what SQLite lays beside it gets the same mode
        self.lock = threading.Lock()
        self.db = sqlite3.connect(file, timeout=10.0, isolation_level=None, check_same_thread=False)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=NORMAL")
        columns = "scope TEXT, key TEXT, digest TEXT NOT NULL, answer BLOB NOT NULL, at REAL NOT NULL"
        self.db.execute(f"CREATE TABLE IF NOT EXISTS answers ({columns}, PRIMARY KEY (scope, key)) WITHOUT ROWID")
        self.added = 0

    def begin(self, scope: str, key: str, digest: str) -> tuple[float, bytes]:
        """Return when this use of the key began, and the answer that was given (empty while there is none).

        A key that was never used, or so long ago that nothing is kept of it, is in use from now on: the moment tells this use
        from an earlier one, and is the same when the call is repeated after a crash. Raises Conflict when the answer was
        given to another body.
        """
        now = time.time()
        with self.lock:
            row = self._row(scope, key)
            if row is None or row[2] <= now - KEEP or (row[0] != digest and not row[1]):
                self._put((scope, key, digest, b"", now), now)
                row = self._row(scope, key)
        return self._same(row, digest)

    def keep(self, scope: str, key: str, digest: str, answer: bytes) -> bytes:
        """Keep an answer and return the one that holds: the first of those that were made at the same time."""
        now = time.time()
        with self.lock:
            if self.added % SWEEP == 0:
                self.db.execute("DELETE FROM answers WHERE at <= ?", (now - KEEP,))
            self.added += 1
            self._put((scope, key, digest, answer, now), now)
            row = self._row(scope, key)
        return self._same(row, digest)[1] or answer

    def _row(self, scope: str, key: str) -> tuple[str, bytes, float] | None:
        asked = "SELECT digest, answer, at FROM answers WHERE scope = ? AND key = ?"
        found: tuple[str, bytes, float] | None = self.db.execute(asked, (scope, key)).fetchone()
        return found

    def _put(self, row: tuple[str, str, str, bytes, float], now: float) -> None:
        """Write a row unless an answer holds, or the same call is under way already."""
        self.db.execute(
            "INSERT INTO answers VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET digest = excluded.digest, "
            "answer = excluded.answer, at = excluded.at WHERE answers.at <= ? OR (length(answers.answer) = 0 "
            "AND (length(excluded.answer) > 0 OR answers.digest <> excluded.digest))",
            (*row, now - KEEP),
        )

    @staticmethod
    def _same(row: tuple[str, bytes, float] | None, digest: str) -> tuple[float, bytes]:
        if row is None:
            return time.time(), b""
        if row[0] != digest and row[1]:
            raise Conflict
        return row[2], bytes(row[1])

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            self.db.close()


def identity(*parts: str) -> str:
    """Return an id that is the same for the same parts, so that what is repeated after a crash is known as the same."""
    return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
