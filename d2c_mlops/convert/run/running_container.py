"""A running container: it executes commands one after another for one conversion, each from a clean state."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from d2c_mlops.convert.run.container_init import HEAD, PART

OUTPUT = 4000  # bytes of the last part of a command's output


class ContainerRun:
    """One command in a running container, with the interface of `subprocess.Popen` as far as it is needed."""

    def __init__(self, container: RunningContainer, number: int, pipes: tuple[int, int] | None) -> None:
        self.container, self.number = container, number
        self.returncode: int | None = None
        self.left = "it has not ended"  # what the run left behind; empty where the container may be used again
        self.output = bytearray()
        self.seen, self.over = threading.Event(), threading.Event()  # whether it has started, and ended
        self.source, self.sink = (os.dup(each) for each in pipes) if pipes else (-1, -1)
        self.stdin: IO[bytes] | None = None

    def read_input(self) -> None:
        """Hand on what is written to the command's standard input."""
        with contextlib.suppress(OSError):
            while part := os.read(self.source, PART):
                self.container.send(b"I", self.number, part)
        os.close(self.source)

    def take(self, kind: bytes, data: bytes) -> None:
        """Take a frame of the container."""
        if kind == b"L":
            self.output += data
            del self.output[:-OUTPUT]
        elif kind == b"O" and self.sink >= 0:
            try:
                while data:
                    data = data[os.write(self.sink, data) :]
            except OSError:  # nobody reads any more
                self._close()
        elif kind == b"S":
            self.seen.set()
        elif kind == b"X":
            facts = json.loads(data)
            self.finish(int(facts["code"]), str(facts["left"]))

    def finish(self, code: int, left: str) -> None:
        """Note how it ended."""
        if self.returncode is None:
            self.left, self.returncode = left, code
        self._close()
        self.over.set()
        self.seen.set()

    def _close(self) -> None:
        if self.sink >= 0:
            os.close(self.sink)
            self.sink = -1

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self.returncode if self.over.is_set() else None

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code; raises subprocess.TimeoutExpired."""
        if not self.over.wait(timeout) or self.returncode is None:
            raise subprocess.TimeoutExpired("container", timeout or 0.0)
        return self.returncode

    def kill(self) -> None:
        """End it, and all that it started."""
        self.container.send(b"E", self.number)


class RunningContainer:
    """The client process of an engine, which speaks with the first process of a container over standard streams."""

    def __init__(self, line: Sequence[str], name: str, remove: Callable[[str], None]) -> None:
        self.name, self._remove = name, remove
        self.runs = 0
        self.run: ContainerRun | None = None
        self.errors = bytearray()
        self.sending = threading.Lock()
        # It ends when its standard input is closed, with this process too: no signal is needed, which would come at a thread's end.
        self.process = subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
        for work in (self._listen, self._read_errors):
            threading.Thread(target=work, daemon=True).start()

    def send(self, kind: bytes, run: int, data: bytes = b"") -> None:
        """Send a frame; a container that is gone is noticed when its answer is missing."""
        assert self.process.stdin is not None
        with self.sending, contextlib.suppress(OSError, ValueError):
            self.process.stdin.write(HEAD.pack(kind, run, len(data)) + data)
            self.process.stdin.flush()

    def start(self, spec: Mapping[str, Any], pipes: tuple[int, int] | None) -> ContainerRun:
        """Start a command; the run before must be over."""
        self.runs += 1
        run = self.run = ContainerRun(self, self.runs, pipes)
        self.send(b"R", self.runs, json.dumps(dict(spec)).encode("utf-8"))
        if pipes:
            threading.Thread(target=run.read_input, daemon=True).start()
        if self.process.poll() is not None:
            run.finish(self.process.returncode, "the container has ended")
        return run

    def _listen(self) -> None:
        stream = self.process.stdout
        assert stream is not None
        while len(head := stream.read(HEAD.size)) == HEAD.size:
            kind, number, size = HEAD.unpack(head)
            data = stream.read(size)
            if self.run is not None and self.run.number == number:
                self.run.take(kind, data)
        code = self.process.wait()
        if self.run is not None:
            self.run.output += self.errors
            self.run.finish(code or 1, "the container has ended")

    def _read_errors(self) -> None:
        stream = self.process.stderr
        assert stream is not None
        while part := os.read(stream.fileno(), PART):
            self.errors += part
            del self.errors[:-OUTPUT]

    def close(self, patience: float = 0.0) -> None:
        """End it: by its standard input, by force where it does not end within `patience` seconds; 0 does not wait."""
        assert self.process.stdin is not None
        with self.sending, contextlib.suppress(OSError, ValueError):
            self.process.stdin.close()
        try:
            if patience:
                self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self._remove(self.name)
            self.process.kill()
            self.process.wait()


class Folder:
    """A folder of the caller that is mounted in a container: between two runs its contents are exchanged.

    A mount follows the folder, not its name: the mounted one takes the place of the caller's folder while a run lasts.
    """

    def __init__(self, path: Path) -> None:
        self.path = path  # where the mounted folder is now
        self.before = _facts(path)

    def lend(self, wanted: Path) -> bool:
        """Put the mounted folder in the place of `wanted`, with its contents; False where that cannot be done."""
        if wanted.stat().st_dev != self.path.stat().st_dev or any(self.path.iterdir()):
            return False
        if not _move_entries(wanted, self.path):
            return False
        wanted.rmdir()
        self.path.rename(wanted)
        self.path = wanted
        return True

    def take_back(self) -> bool:
        """Leave the contents in a new folder at the same place, and the mounted one empty elsewhere; False where it was changed."""
        if _facts(self.path) != self.before:
            return False
        place = _waiting_room(self.path)
        new = Path(tempfile.mkdtemp(prefix=".d2c-", dir=place))
        if not _move_entries(self.path, new):
            new.rmdir()
            return False
        new.chmod(stat.S_IMODE(self.path.stat().st_mode))
        away = new.with_name(f"{new.name}-mounted")
        self.path.rename(away)
        new.rename(self.path)
        self.path = away
        return True

    def discard(self) -> None:
        """Remove the mounted folder, which is empty while it waits."""
        with contextlib.suppress(OSError):
            self.path.rmdir()


def _facts(folder: Path) -> tuple[object, ...]:
    """Return what a command could change of a folder itself; its entries and times are none of it."""
    facts = folder.lstat()
    marks: dict[str, bytes] = {}
    if hasattr(os, "listxattr"):
        with contextlib.suppress(OSError):
            marks = {name: os.getxattr(folder, name) for name in os.listxattr(folder)}
    return facts.st_ino, facts.st_dev, facts.st_mode, facts.st_uid, facts.st_gid, marks


def _waiting_room(folder: Path) -> Path:
    """Return a folder of the same file system that outlives `folder`."""
    common = Path(tempfile.gettempdir())
    return common if common.stat().st_dev == folder.stat().st_dev else folder.parent


def _move_entries(source: Path, target: Path) -> bool:
    """Move all that is in a folder; links are moved, not followed. False where an entry cannot be moved: then none is."""
    here, there = (os.open(each, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW) for each in (source, target))
    moved = []
    try:
        for name in os.listdir(here):  # noqa: PTH208 - of a descriptor
            os.rename(name, name, src_dir_fd=here, dst_dir_fd=there)
            moved.append(name)
    except OSError:  # a folder without the right to write cannot change its parent
        for name in moved:
            os.rename(name, name, src_dir_fd=there, dst_dir_fd=here)
        return False
    finally:
        os.close(here)
        os.close(there)
    return True
