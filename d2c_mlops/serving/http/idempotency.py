"""Idempotency store: answers by Idempotency-Key, so that a repeated request gets the same answer and is processed once."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path

from d2c_mlops.private_files import file_mode, private_file
from d2c_mlops.settings import ServiceSettings

KEEP = 24 * 3600.0  # seconds
SWEEP = 60.0  # seconds between two sweeps of a worker
SWEPT = 5_000  # rows that a sweep removes at most; the next call continues
LOOK = 1.0  # seconds between two looks at the free space
RESERVED = 64 * 2**20  # bytes of the file system reserved for the prediction log; a tenth of a small one
AGAIN = 5.0  # seconds after which a caller may try again while the disk is full
LONGEST_WAIT = 3600.0  # seconds
ROW = 200  # bytes of a row beside its answer
CHECKPOINT = 2_000  # pages of 4 KiB in SQLite's write-ahead log; a call writes about five, many of them the same
LOG = logging.getLogger("d2c.service")
# A scope is MODEL/PATH CALLER; the size of a caller's rows is counted as they come and go, whoever writes or deletes them.
CALLER = "substr({0}.scope, instr({0}.scope, ' ') + 1)"
SIZE = f"(length({{0}}.answer) + {ROW})"
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS answers (scope TEXT, key TEXT, digest TEXT NOT NULL, answer BLOB NOT NULL, at REAL NOT NULL, "
    "PRIMARY KEY (scope, key)) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS answers_by_time ON answers (at)",
)
COUNTED = (
    "CREATE TABLE usage (caller TEXT PRIMARY KEY, bytes INTEGER NOT NULL) WITHOUT ROWID",
    f"INSERT INTO usage SELECT {CALLER.format('a')}, sum({SIZE.format('a')}) FROM answers a GROUP BY 1",  # noqa: S608
    f"CREATE TRIGGER answer_added AFTER INSERT ON answers BEGIN INSERT INTO usage VALUES ({CALLER.format('new')}, "  # noqa: S608
    f"{SIZE.format('new')}) ON CONFLICT (caller) DO UPDATE SET bytes = bytes + excluded.bytes; END",
    "CREATE TRIGGER answer_changed AFTER UPDATE ON answers BEGIN UPDATE usage SET bytes = bytes + length(new.answer) - "  # noqa: S608
    f"length(old.answer) WHERE caller = {CALLER.format('new')}; END",
    f"CREATE TRIGGER answer_removed AFTER DELETE ON answers BEGIN UPDATE usage SET bytes = bytes - {SIZE.format('old')} "  # noqa: S608
    f"WHERE caller = {CALLER.format('old')}; END",
)

LOOKED_UP = (
    "SELECT a.digest, a.answer, a.at, (SELECT bytes FROM usage WHERE caller = ?3), (SELECT sum(bytes) FROM usage) "
    "FROM (SELECT 1) LEFT JOIN answers a ON a.scope = ?1 AND a.key = ?2"
)
BEGUN = (
    "INSERT INTO answers VALUES (?, ?, ?, x'', ?) "
    "ON CONFLICT DO UPDATE SET digest = excluded.digest, answer = excluded.answer, at = excluded.at"
)
# The time of the beginning is not changed, so its index is not written again.
ANSWERED = "UPDATE answers SET answer = ? WHERE scope = ? AND key = ? AND digest = ? AND length(answer) = 0 AND at > ?"


class Conflict(Exception):
    """The Idempotency-Key was used with another body."""


class Full(Exception):
    """No further answer can be stored now."""

    def __init__(self, why: str, wait: float = AGAIN) -> None:
        super().__init__(why)
        self.why, self.wait = why, wait


class IdempotencyStore:
    """A SQLite file of answers, shared by the workers of a service and kept across restarts.

    Its size in bytes is limited for each caller and in total, and disk space is reserved for the prediction log. A file that
    cannot be opened (a full disk) is opened again at the next use.
    """

    def __init__(
        self, file: Path, *, most: int = ServiceSettings.kept_bytes, most_each: int = ServiceSettings.kept_key_bytes
    ) -> None:
        self.file, self.most, self.most_each = file, most, most_each
        self.lock = threading.Lock()
        self.db: sqlite3.Connection | None = None
        self.swept = self.looked = 0.0
        self.tight = self.refusing = False
        try:
            with self._open():
                pass
        except Full as err:
            LOG.error("idempotency store cannot be opened", extra={"facts": {"file": str(file), "why": err.why}})

    def begin(self, scope: str, key: str, digest: str, former: str = "") -> tuple[float, bytes]:
        """Begin a request: return the time at which this use of the key began, and the stored answer (empty while there is none).

        A new key, or one whose answer has expired, is in use from now on: the time distinguishes this use
        from an earlier one, and is the same when the request is repeated after a crash. `former` is the digest that an earlier release
        computed for the body. Raises Conflict when the key was used with another body, Full where no further answer can be stored.
        """
        now = time.time()
        caller = scope[scope.find(" ") + 1 :]
        with self._open() as db, _one_transaction(db):
            row, own_bytes, all_bytes = _row_with_usage(db, scope, key, caller)
            if row is None or row[2] <= now - KEEP or (row[0] not in (digest, former) and not row[1]):
                if self._remove_old_answers(db, now):
                    _, own_bytes, all_bytes = _row_with_usage(db, scope, key, caller)
                self._check_room(db, own_bytes, all_bytes, now)
                db.execute(BEGUN, (scope, key, digest, now))
                return now, b""
        return _is_same_request(row, digest, former)

    def store_answer(self, scope: str, key: str, digest: str, answer: bytes) -> bytes:
        """Store an answer and return the stored one: of concurrent answers the first. Raises Full."""
        now = time.time()
        with self._open() as db:
            if db.execute(ANSWERED, (answer, scope, key, digest, now - KEEP)).rowcount:
                return answer
            _store_row(db, (scope, key, digest, answer, now), now)  # never begun, or removed after its time
            row = _stored_answer(db, scope, key)
        return _is_same_request(row, digest)[1] or answer

    def close(self) -> None:
        """Close the file."""
        with self.lock:
            if self.db is not None:
                self.db.close()
                self.db = None

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """Yield the open file to one thread. Raises Full where it cannot be opened, read or written."""
        with self.lock:
            try:
                if self.db is None:
                    self.db = _open_database(self.file)
                yield self.db
                self.refusing = False
            except (sqlite3.DatabaseError, OSError) as err:
                self._log_failure(str(err))
                raise Full(f"the service cannot write its idempotency store ({err})") from err
            except Full as err:
                self._log_failure(err.why)
                raise

    def _log_failure(self, why: str) -> None:
        if not self.refusing:
            LOG.error("answers cannot be stored", extra={"facts": {"file": str(self.file), "why": why}})
        self.refusing = True

    def _remove_old_answers(self, db: sqlite3.Connection, now: float) -> int:
        """Remove answers that are older than a day; return their number."""
        if abs(now - self.swept) < SWEEP:
            return 0
        old = "SELECT scope, key FROM answers WHERE at <= ? LIMIT ?"
        removed = db.execute(f"DELETE FROM answers WHERE (scope, key) IN ({old})", (now - KEEP, SWEPT)).rowcount  # noqa: S608
        if removed < SWEPT:
            self.swept = now
        return removed

    def _check_room(self, db: sqlite3.Connection, own_bytes: int, all_bytes: int, now: float) -> None:
        """Raise Full where the answers of the caller or of all callers reach their limit, or the disk is nearly full."""
        over = "this API key's" if own_bytes + ROW > self.most_each else "all" if all_bytes + ROW > self.most else ""
        if over:
            oldest = db.execute("SELECT min(at) FROM answers").fetchone()[0] or now
            raise Full(
                f"{over} stored answers have reached their size limit",
                min(max(oldest + KEEP - now, 1.0), LONGEST_WAIT),
            )
        if abs(now - self.looked) >= LOOK:
            self.looked, self.tight = now, _nearly_full(self.file.parent)
        if self.tight:
            raise Full("the service's disk is nearly full")


def _open_database(file: Path) -> sqlite3.Connection:
    private_file(file)
    file.chmod(file_mode(file))  # the file contains answers; SQLite's files beside it get the same mode
    db = sqlite3.connect(file, timeout=10.0, isolation_level=None, check_same_thread=False)
    try:
        pragmas = ("journal_mode=WAL", "synchronous=NORMAL", "secure_delete=ON")
        for pragma in (*pragmas, f"wal_autocheckpoint={CHECKPOINT}", f"journal_size_limit={CHECKPOINT * 2**12}"):
            db.execute(f"PRAGMA {pragma}")
        for statement in SCHEMA:
            db.execute(statement)
        query = "SELECT 1 FROM sqlite_master WHERE name = 'usage'"
        if db.execute(query).fetchone() is None:
            db.execute("BEGIN IMMEDIATE")
            for statement in COUNTED if db.execute(query).fetchone() is None else ():
                db.execute(statement)
            db.execute("COMMIT")
    except BaseException:
        db.close()
        raise
    return db


def _nearly_full(folder: Path) -> bool:
    """Whether the free space of a file system is reserved for the prediction log."""
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize < min(RESERVED, status.f_blocks * status.f_frsize // 10)


@contextmanager
def _one_transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Run the block in one transaction, which is committed also when the block raises Full."""
    db.execute("BEGIN IMMEDIATE")
    try:
        try:
            yield
        except Full:
            db.execute("COMMIT")  # deletions of the sweep
            raise
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def _row_with_usage(
    db: sqlite3.Connection, scope: str, key: str, caller: str
) -> tuple[tuple[str, bytes, float] | None, int, int]:
    """Return the row of a key, and the bytes of the caller's answers and of all."""
    digest, answer, at, own_bytes, all_bytes = db.execute(LOOKED_UP, (scope, key, caller)).fetchone()
    return None if digest is None else (digest, answer, at), own_bytes or 0, all_bytes or 0


def _stored_answer(db: sqlite3.Connection, scope: str, key: str) -> tuple[str, bytes, float] | None:
    query = "SELECT digest, answer, at FROM answers WHERE scope = ? AND key = ?"
    row: tuple[str, bytes, float] | None = db.execute(query, (scope, key)).fetchone()
    return row


def _store_row(db: sqlite3.Connection, row: tuple[str, str, str, bytes, float], now: float) -> None:
    """Write a row unless an answer is stored or the same request is being processed."""
    db.execute(
        "INSERT INTO answers VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET digest = excluded.digest, "
        "answer = excluded.answer, at = excluded.at WHERE answers.at <= ? OR (length(answers.answer) = 0 "
        "AND (length(excluded.answer) > 0 OR answers.digest <> excluded.digest))",
        (*row, now - KEEP),
    )


def _is_same_request(row: tuple[str, bytes, float] | None, digest: str, former: str = "") -> tuple[float, bytes]:
    if row is None:
        return time.time(), b""
    if row[0] not in (digest, former) and row[1]:
        raise Conflict
    return row[2], bytes(row[1])


def request_identity(*parts: str) -> str:
    """Return a deterministic id of some parts, so that a repetition after a crash is recognised."""
    return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
