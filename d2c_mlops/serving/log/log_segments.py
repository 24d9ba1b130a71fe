"""Files of the prediction log: memory-mapped segments that survive a crash, rotated in the background.

A line is copied into a memory-mapped file; a long one by a system call, which avoids a page fault for each
4 KB. The kernel owns these pages, so an appended line survives `kill -9`; no sync blocks a request.
A thread prepares empty segments, syncs, and seals full ones as `.jsonl`. When it cannot keep up (a full disk) appending
fails, and the answer reports that the prediction was not logged.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import orjson

from d2c_mlops.private_files import file_mode, private_folder

SEGMENT = 8 * 2**20  # bytes
SPARE = 2  # empty segments kept ready
SYNC = 1.0  # seconds between two syncs: the data that a power failure may lose
LONG = 8_192  # bytes from which a line is copied by a system call; for a short line the call costs more and releases the GIL
LOG = logging.getLogger("d2c.service")
ROTATE = 60.0  # seconds after which a segment is sealed although it is not full


def open_private(path: str, flags: int) -> int:
    """Open a file of the log readable by its owner only, because it contains callers' data."""
    return os.open(path, flags, file_mode(Path(path)))


class _Segment:
    """An open file of fixed size, locked by this process and memory-mapped."""

    def __init__(self, folder: Path, size: int) -> None:
        while True:
            name = f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}"
            draft = folder / f"{name}.draft"
            self.file = open(draft, "w+b", buffering=0, opener=open_private)  # noqa: SIM115
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not draft.exists():  # another starting process removed it before it was locked
                    self.file.close()
                    continue
                os.posix_fallocate(
                    self.file.fileno(), 0, size
                )  # a full disk is detected here, not when a line is copied
                self.pages = mmap.mmap(self.file.fileno(), size)
                break
            except BlockingIOError:  # locked by another process
                self.file.close()
            except OSError:
                draft.unlink(missing_ok=True)
                self.file.close()
                raise
        self.used, self.size, self.since = 0, size, 0.0
        self.path = draft.rename(folder / f"{name}.open")

    def put(self, line: bytes) -> bool:
        """Append a line that fits and return whether it is complete; an incomplete line is overwritten by the next."""
        size = len(line) + 1
        if size < LONG:
            self.pages[self.used : self.used + size] = line + b"\n"
        else:
            try:
                if os.pwritev(self.file.fileno(), (line, b"\n"), self.used) != size:
                    return False
            except OSError:
                return False
        self.used += size
        return True

    def seal(self) -> None:
        """Truncate the file to its length and rename it to .jsonl; remove an empty one."""
        self.pages.close()
        if self.used:
            os.ftruncate(self.file.fileno(), self.used)
            os.fsync(self.file.fileno())
            self.path.rename(self.path.with_suffix(".jsonl"))
        else:
            self.path.unlink(missing_ok=True)
        self.file.close()


class Logbook:
    """Appends lines to rotating files in a folder, which several processes may share."""

    def __init__(self, folder: Path, *, segment: int = SEGMENT, spare: int = SPARE, rotate: float = ROTATE) -> None:
        self.folder, self.segment, self.spare, self.rotate = folder, segment, spare, rotate
        with _tolerate_full_disk():
            private_folder(folder)
            seal_abandoned_segments(folder)
        self.lock = threading.Lock()
        self.work = threading.Event()
        self.closing = False
        self.ready: deque[_Segment] = deque()
        with _tolerate_full_disk():  # the background thread reserves space once there is some
            self.ready.extend(_Segment(folder, segment) for _ in range(spare))
        self.full: deque[_Segment] = deque()
        self.current: _Segment | None = None
        self.refused = 0
        self.keeper = threading.Thread(target=self._run_background, name="logbook", daemon=True)
        self.keeper.start()

    def append(self, line: bytes) -> bool:
        """Append a line (without its newline) and return whether it is stored; never waits for the disk."""
        size = len(line) + 1
        with self.lock:
            now = self.current
            if now is None or now.used + size > now.size:
                now = self._next_segment(size)
            if now is None or not now.put(line):
                self.refused += 1
                return False
        return True

    def close(self) -> None:
        """Seal the open segment."""
        self.closing = True
        self.work.set()
        self.keeper.join(10.0)
        with self.lock:
            for segment in (*self.full, *([self.current] if self.current else []), *self.ready):
                segment.seal()
            self.current = None
            self.full.clear()
            self.ready.clear()

    def _next_segment(self, size: int) -> _Segment | None:
        """Switch to an empty segment; the background thread seals the full one."""
        if not self.ready or size > self.segment:
            return None
        if self.current is not None:
            self.full.append(self.current)
        self.current = self.ready.popleft()
        self.current.since = time.monotonic()
        self.work.set()
        return self.current

    def _run_background(self) -> None:
        while not self.closing:
            self.work.wait(SYNC)
            self.work.clear()
            with suppress(OSError):  # a full disk; tried again in a moment
                self._start_segment()

    def _start_segment(self) -> None:
        with self.lock:
            now = self.current
            if now is not None and now.used and time.monotonic() - now.since > self.rotate:
                self.full.append(now)
                self.current = None
        while self.full:
            self.full[0].seal()
            self.full.popleft()
        private_folder(self.folder)
        while len(self.ready) < self.spare and not self.closing:
            self.ready.append(_Segment(self.folder, self.segment))
        now = self.current
        if now is not None:
            with suppress(ValueError):  # sealed in the meantime
                _sync_to_disk(now)


def _sync_to_disk(segment: _Segment) -> None:
    """Sync a segment to the disk; mmap.flush would hold the GIL, and block every request, until it is done."""
    os.fsync(segment.file.fileno())


@contextmanager
def _tolerate_full_disk() -> Iterator[None]:
    """Tolerate and log a full disk: the service answers without prediction log until there is space."""
    try:
        yield
    except OSError as err:
        if err.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        LOG.error("no space for the prediction log", extra={"facts": {"why": str(err)}})


def seal_abandoned_segments(folder: Path) -> int:
    """Seal open segments of dead processes and return their number.

    A segment of complete lines is truncated in place, which needs no disk space.
    """
    sealed = 0
    for path in [*folder.glob("*.draft"), *folder.glob("*.open")]:
        with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # its owner is alive and holds the lock
            if not path.exists():
                continue
            data = file.read()
            lines = intact_lines(data)
            if lines and _seal_truncated(path, data, lines):
                sealed += 1
                continue
            if lines:
                draft = path.with_suffix(".part")
                with open(draft, "wb", opener=open_private) as out:
                    out.write(b"\n".join(lines) + b"\n")
                    out.flush()
                    os.fsync(out.fileno())
                draft.rename(path.with_suffix(".jsonl"))
            path.unlink(missing_ok=True)
            sealed += 1
    return sealed


def _seal_truncated(path: Path, data: bytes, lines: list[bytes]) -> bool:
    """Truncate after the last complete line and seal the segment; False, without a change, where lines in between are damaged."""
    size = sum(map(len, lines)) + len(lines)
    if data[:size] != b"\n".join(lines) + b"\n":
        return False
    try:
        with path.open("r+b") as file:
            file.truncate(size)
            os.fsync(file.fileno())
    except PermissionError:  # owned by another user, without write permission
        return False
    path.rename(path.with_suffix(".jsonl"))
    return True


def intact_lines(data: bytes) -> list[bytes]:
    """Return the complete lines of a segment; a line cut by a kill was never acknowledged."""
    return [line for line in data.split(b"\n")[:-1] if line and b"\0" not in line and _is_json(line)]


def _is_json(line: bytes) -> bool:
    try:
        orjson.loads(line)
    except orjson.JSONDecodeError:
        return False
    return True
