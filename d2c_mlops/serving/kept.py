"""Answers kept under their Idempotency-Key, so that a call that is repeated gets the same answer and does nothing twice."""

from __future__ import annotations

import sqlite3
import threading
import time
from hashlib import blake2b
from pathlib import Path

KEEP = 24 * 3600.0  # seconds
SWEEP = 1000  # kept answers between two sweeps


class Conflict(Exception):
    """The key was used for another body."""


class Kept:
    """A file of answers, shared by the workers of a service; it survives all of them."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self.lock = threading.Lock()
        self.db = sqlite3.connect(file, timeout=10.0, isolation_level=None, check_same_thread=False)
        self.db.execute("PRAGMA journal_mode=WAL")
        self.db.execute("PRAGMA synchronous=NORMAL")
        columns = "scope TEXT, key TEXT, digest TEXT NOT NULL, answer BLOB NOT NULL, at REAL NOT NULL"
        self.db.execute(f"CREATE TABLE IF NOT EXISTS answers ({columns}, PRIMARY KEY (scope, key)) WITHOUT ROWID")
        self.added = 0

    def find(self, scope: str, key: str, digest: str) -> bytes | None:
        """Return the answer that was given. Raises Conflict when it was given to another body."""
        with self.lock:
            row = self.db.execute(
                "SELECT digest, answer FROM answers WHERE scope = ? AND key = ? AND at > ?",
                (scope, key, time.time() - KEEP),
            ).fetchone()
        if row is None:
            return None
        if row[0] != digest:
            raise Conflict
        return bytes(row[1])

    def keep(self, scope: str, key: str, digest: str, answer: bytes) -> bytes:
        """Keep an answer and return the one that holds: the first of those that were made at the same time."""
        now = time.time()
        with self.lock:
            if self.added % SWEEP == 0:
                self.db.execute("DELETE FROM answers WHERE at <= ?", (now - KEEP,))
            self.added += 1
            self.db.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?)", (scope, key, digest, answer, now))
        return self.find(scope, key, digest) or answer

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            self.db.close()


def identity(*parts: str) -> str:
    """Return an id that is the same for the same parts, so that what is repeated after a crash is known as the same."""
    return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
