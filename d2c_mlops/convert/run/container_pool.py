"""The containers of a conversion: each executes commands one after another, each from a clean state, and is used again."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import secrets
import stat
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from d2c_mlops.convert.run.container_init import HEAD, PART, UNSEEN, RunSpec

FOLDER, HOME = "/work/notebook", "/work/home"  # under these names a container sees the caller's two folders
WAITING = 2  # containers that wait for another run
OUTPUT = 4000  # bytes of the last part of a command's output
PATIENCE = 15.0  # seconds until a container that was asked to end is ended by force

_waiting: list[Lease] = []
_ending: list[Lease] = []
_lock = threading.Lock()


class ContainerRun:
    """One command in a running container, with the interface of `subprocess.Popen` as far as it is needed."""

    def __init__(self, container: RunningContainer, number: int, pipes: tuple[int, int] | None) -> None:
        self.container, self.number = container, number
        self.returncode: int | None = None
        self.left = "it has not ended"  # what the run left behind; empty where the container may be used again
        self.output = bytearray()
        self.seen, self.over = threading.Event(), threading.Event()  # whether it has started, and ended
        self.source, self.sink = (os.dup(pipe) for pipe in pipes) if pipes else (-1, -1)
        self.stdin: IO[bytes] | None = None

    def read_input(self) -> None:
        """Hand on what is written to the command's standard input."""
        with contextlib.suppress(OSError):
            while part := os.read(self.source, PART):
                self.container.send(b"I", self.number, part)
        os.close(self.source)

    def receive(self, kind: bytes, data: bytes) -> None:
        """Take a frame of the container."""
        if kind == b"L":
            self.output += data
            del self.output[:-OUTPUT]
        elif kind == b"O" and self.sink >= 0:
            try:
                while data:
                    data = data[os.write(self.sink, data) :]
            except OSError:  # nobody reads any more
                self._close_container()
        elif kind == b"S":
            self.seen.set()
        elif kind == b"X":
            facts = json.loads(data)
            self.finish(int(facts["code"]), str(facts["left"]))

    def finish(self, code: int, left_behind: str) -> None:
        """Note how it ended."""
        if self.returncode is None:
            self.left, self.returncode = left_behind, code
        self._close_container()
        self.over.set()
        self.seen.set()

    def _close_container(self) -> None:
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
        # Engines leave files in their working folder: conmon, which podman starts, an empty `oom`.
        self.folder = tempfile.TemporaryDirectory(prefix="d2c-engine-", ignore_cleanup_errors=True)
        # It ends when its standard input is closed, with this process too: no signal is needed, which would come at a thread's end.
        self.process = subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            cwd=self.folder.name,
        )  # fmt: skip
        self.listener = threading.Thread(target=self._listen_for_runs, daemon=True)
        for thread in (self.listener, threading.Thread(target=self._read_errors, daemon=True)):
            thread.start()

    def send(self, kind: bytes, run: int, data: bytes = b"") -> None:
        """Send a frame; a container that is gone is noticed when its answer is missing."""
        assert self.process.stdin is not None
        with self.sending, contextlib.suppress(OSError, ValueError):
            self.process.stdin.write(HEAD.pack(kind, run, len(data)) + data)
            self.process.stdin.flush()

    def start(self, spec: RunSpec, pipes: tuple[int, int] | None) -> ContainerRun:
        """Start a command; the run before must be over."""
        self.runs += 1
        run = self.run = ContainerRun(self, self.runs, pipes)
        self.send(b"R", self.runs, json.dumps(spec).encode("utf-8"))
        if pipes:
            threading.Thread(target=run.read_input, daemon=True).start()
        if self.process.poll() is not None:
            run.finish(self.process.returncode, "the container has ended")
        return run

    def _listen_for_runs(self) -> None:
        stream = self.process.stdout
        assert stream is not None
        while len(head := stream.read(HEAD.size)) == HEAD.size:
            kind, number, size = HEAD.unpack(head)
            data = stream.read(size)
            if self.run is not None and self.run.number == number:
                self.run.receive(kind, data)
        code = self.process.wait()
        self.folder.cleanup()
        if self.run is not None:
            self.run.output += self.errors
            self.run.finish(code or 1, "the container has ended")

    def _read_errors(self) -> None:
        stream = self.process.stderr
        assert stream is not None
        while part := os.read(stream.fileno(), PART):
            self.errors += part
            del self.errors[:-OUTPUT]

    def close(self, timeout: float = 0.0) -> None:
        """End it: by its standard input, by force where it does not end within `timeout` seconds; 0 does not wait."""
        assert self.process.stdin is not None
        with self.sending, contextlib.suppress(OSError, ValueError):
            self.process.stdin.close()
        try:
            if timeout:
                self.process.wait(timeout)
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
        self.before = _folder_facts(path)

    def lend(self, target: Path) -> bool:
        """Put the mounted folder in the place of `target`, with its contents; False where that cannot be done."""
        if target.stat().st_dev != self.path.stat().st_dev or any(self.path.iterdir()):
            return False
        if not _move_entries(target, self.path):
            return False
        target.rmdir()
        self.path.rename(target)
        self.path = target
        return True

    def move_contents_back(self) -> bool:
        """Leave the contents in a new folder at the same place, and the mounted one empty elsewhere; False where it was changed."""
        if _folder_facts(self.path) != self.before:
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


def _folder_facts(folder: Path) -> tuple[object, ...]:
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
    source_fd, target_fd = (
        os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW) for folder in (source, target)
    )
    moved = []
    try:
        for name in os.listdir(source_fd):  # noqa: PTH208 - of a descriptor
            os.rename(name, name, src_dir_fd=source_fd, dst_dir_fd=target_fd)
            moved.append(name)
    except OSError:  # a folder without the right to write cannot change its parent
        for name in moved:
            os.rename(name, name, src_dir_fd=target_fd, dst_dir_fd=source_fd)
        return False
    finally:
        os.close(source_fd)
        os.close(target_fd)
    return True


class ContainerEngine(Protocol):
    """What starts and removes containers of one image."""

    def command(
        self, mounts: Sequence[tuple[str, str, bool]], *, name: str, memory: int, processes: int
    ) -> list[str]: ...

    def remove(self, name: str) -> None: ...


@dataclass(frozen=True)
class Limits:
    """What a run may use: seconds, bytes of memory, bytes of a file, processes."""

    seconds: float
    memory: int
    file_size: int
    processes: int


@dataclass
class Lease:
    """A container with the folders that are mounted in it, for the run that lasts."""

    key: tuple[object, ...]
    container: RunningContainer
    folders: tuple[Folder, Folder]
    names: Mapping[str, str]  # names of the caller's folders, and those inside
    run: ContainerRun | None = None

    def inside(self, text: str) -> str:
        """Return a path of the caller's as it is called inside; any other text as it is."""
        for outer, inner in self.names.items():
            if text == outer or text.startswith(f"{outer}/"):
                return inner + text[len(outer) :]
        return text

    def start(
        self, command: Sequence[str], variables: Mapping[str, str], limits: Limits, pipes: tuple[int, int] | None
    ) -> ContainerRun:
        """Start a command, whose first word is the image's interpreter."""
        mark = f".d2c-{secrets.token_hex(8)}"
        (self.folders[0].path / mark).touch()
        spec: RunSpec = {
            "command": [self.inside(text) for text in command],
            "environment": {name: self.inside(value) for name, value in variables.items()},
            "folder": self.inside(str(self.folders[0].path)),
            "mark": mark,
            "pipes": pipes is not None,
            "seconds": limits.seconds,
            "memory": limits.memory,
            "file_size": limits.file_size,
            "processes": limits.processes,
        }
        self.run = self.container.start(spec, pipes)
        return self.run

    def give_back(self) -> None:
        """Let the container wait for another run, where this one left nothing behind; else end it."""
        fit = self.run is not None and self.run.over.is_set() and not self.run.left and FOLDER in self.names.values()
        if fit and self.container.process.poll() is None and all(lease.move_contents_back() for lease in self.folders):
            with _lock:
                _waiting.append(self)
                surplus = [_waiting.pop(0)] if len(_waiting) > WAITING else []
        else:
            surplus = [self]
        for lease in surplus:
            lease.end()

    def end(self) -> None:
        """Ask the container to end; `close_waiting_containers` waits for it."""
        self.container.close()
        for folder in self.folders:
            if folder.path.name.startswith(".d2c-"):
                folder.discard()
        with _lock:
            _ending.append(self)


def start_command(
    engine: ContainerEngine,
    command: Sequence[str],
    folder: Path,
    home: Path,
    readable: Sequence[str],
    variables: Mapping[str, str],
    limits: Limits,
    pipes: tuple[int, int] | None = None,
) -> Lease:
    """Start a command that may write to the two folders and read others; `give_back` is to be called at its end.

    An engine in a virtual machine may follow the name of a folder, not the folder: there each run gets a container of its own.
    """
    lease = borrow_container(engine, folder, home, readable, limits)
    run = lease.start(command, variables, limits, pipes)
    if lease.container.runs > 1:
        run.seen.wait(PATIENCE)
        if run.returncode == UNSEEN or not run.seen.is_set():
            lease.end()
            lease = borrow_container(engine, folder, home, readable, limits, force_new=True)
            lease.start(command, variables, limits, pipes)
    return lease


def borrow_container(
    engine: ContainerEngine,
    folder: Path,
    home: Path,
    readable: Sequence[str],
    limits: Limits,
    *,
    force_new: bool = False,
) -> Lease:
    """Return a container in which the two folders can be written and others read: one that waits, or a new one.

    `force_new` starts one whose folders are mounted under their own names, as one must be that reads folders above them.
    """
    outer = [str(path_text.absolute()) for path_text in (folder, home)]
    inner = [FOLDER, HOME]
    above = [path for path in readable if any(f"{path_text}/".startswith(f"{path}/") for path_text in outer)]
    if force_new or above:
        inner = outer
    key = (engine, tuple(readable), tuple(inner), limits.memory, limits.processes)
    names = dict(zip(outer, inner, strict=True))
    while not force_new and (lease := _waiting_lease(key)) is not None:
        lease.names = names
        if lease.container.process.poll() is None and all(
            path_text.lend(Path(path)) for path_text, path in zip(lease.folders, outer, strict=True)
        ):
            return lease
        lease.end()
    mounts = [(path, path, False) for path in readable if path not in outer]
    mounts += [(path, name, True) for path, name in names.items()]
    name = f"d2c-{secrets.token_hex(8)}"
    line = engine.command(mounts, name=name, memory=limits.memory, processes=limits.processes)
    folders = (Folder(Path(outer[0])), Folder(Path(outer[1])))
    return Lease(key, RunningContainer(line, name, engine.remove), folders, names)


def _waiting_lease(key: tuple[object, ...]) -> Lease | None:
    with _lock:
        for lease in _waiting:
            if lease.key == key:
                _waiting.remove(lease)
                return lease
    return None


def close_waiting_containers() -> None:
    """End the containers that wait, and wait until all that were asked to end have ended."""
    with _lock:
        waiting, _waiting[:] = list(_waiting), []
    for lease in waiting:
        lease.end()
    with _lock:
        ending, _ending[:] = list(_ending), []
    for lease in ending:
        with contextlib.suppress(OSError):
            lease.container.close(PATIENCE)


atexit.register(close_waiting_containers)
