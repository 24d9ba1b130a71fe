"""The containers of a conversion: one that waits is used again where its folders, its image and its limits are those wanted."""

from __future__ import annotations

import atexit
import secrets
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from d2c_mlops.convert.run.container_init import UNSEEN
from d2c_mlops.convert.run.running_container import ContainerRun, Folder, RunningContainer

FOLDER, HOME = "/work/notebook", "/work/home"  # under these names a container sees the caller's two folders
WAITING = 2  # containers that wait for another run
PATIENCE = 15.0  # seconds until a container that was asked to end is ended by force

_waiting: list[Lease] = []
_ending: list[Lease] = []
_lock = threading.Lock()


class Engine(Protocol):
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
        spec = {
            "command": [self.inside(each) for each in command],
            "environment": {name: self.inside(value) for name, value in variables.items()},
            "folder": self.inside(str(self.folders[0].path)),
            "mark": mark,
            "pipes": pipes is not None,
            **vars(limits),
        }
        self.run = self.container.start(spec, pipes)
        return self.run

    def give_back(self) -> None:
        """Let the container wait for another run, where this one left nothing behind; else end it."""
        fit = self.run is not None and self.run.over.is_set() and not self.run.left and FOLDER in self.names.values()
        if fit and self.container.process.poll() is None and all(each.take_back() for each in self.folders):
            with _lock:
                _waiting.append(self)
                surplus = [_waiting.pop(0)] if len(_waiting) > WAITING else []
        else:
            surplus = [self]
        for each in surplus:
            each.end()

    def end(self) -> None:
        """Ask the container to end; `close_all` waits for it."""
        self.container.close()
        for each in self.folders:
            if each.path.name.startswith(".d2c-"):
                each.discard()
        with _lock:
            _ending.append(self)


def start(
    engine: Engine,
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
    lease = borrow(engine, folder, home, readable, limits)
    run = lease.start(command, variables, limits, pipes)
    if lease.container.runs > 1:
        run.seen.wait(PATIENCE)
        if run.returncode == UNSEEN or not run.seen.is_set():
            lease.end()
            lease = borrow(engine, folder, home, readable, limits, anew=True)
            lease.start(command, variables, limits, pipes)
    return lease


def borrow(
    engine: Engine, folder: Path, home: Path, readable: Sequence[str], limits: Limits, *, anew: bool = False
) -> Lease:
    """Return a container in which the two folders can be written and others read: one that waits, or a new one.

    `anew` starts one whose folders are mounted under their own names, as one must be that reads folders above them.
    """
    outer = [str(each.absolute()) for each in (folder, home)]
    inner = [FOLDER, HOME]
    above = [path for path in readable if any(f"{each}/".startswith(f"{path}/") for each in outer)]
    if anew or above:
        inner = outer
    key = (engine, tuple(readable), tuple(inner), limits.memory, limits.processes)
    names = dict(zip(outer, inner, strict=True))
    while not anew and (lease := _taken(key)) is not None:
        lease.names = names
        if lease.container.process.poll() is None and all(
            each.lend(Path(path)) for each, path in zip(lease.folders, outer, strict=True)
        ):
            return lease
        lease.end()
    mounts = [(path, path, False) for path in readable if path not in outer]
    mounts += [(path, name, True) for path, name in names.items()]
    name = f"d2c-{secrets.token_hex(8)}"
    line = engine.command(mounts, name=name, memory=limits.memory, processes=limits.processes)
    folders = (Folder(Path(outer[0])), Folder(Path(outer[1])))
    return Lease(key, RunningContainer(line, name, engine.remove), folders, names)


def _taken(key: tuple[object, ...]) -> Lease | None:
    with _lock:
        for lease in _waiting:
            if lease.key == key:
                _waiting.remove(lease)
                return lease
    return None


def close_all() -> None:
    """End the containers that wait, and wait until all that were asked to end have ended."""
    with _lock:
        waiting, _waiting[:] = list(_waiting), []
    for lease in waiting:
        lease.end()
    with _lock:
        ending, _ending[:] = list(_ending), []
    for lease in ending:
        with suppress(OSError):
            lease.container.close(PATIENCE)


atexit.register(close_all)
