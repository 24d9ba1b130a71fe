"""Run untrusted code in an isolated process: a copy of its folder, a clean environment, and limits."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import resource
import secrets
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import psutil

from d2c_mlops.convert.run.child_control import FIRST_CODE, FORBIDDEN, KEY_SIZE, MAC_SIZE
from d2c_mlops.convert.run.container_init import LATE, MEMORY, PROCESSES
from d2c_mlops.convert.run.containers import PREFIX, Box, box
from d2c_mlops.convert.run.isolation import TRUSTED, View, best, mode
from d2c_mlops.parent_death import die_with_parent

TOKEN = "D2C_SANDBOX"
PACKAGE_ROOT = Path(__file__).parents[3]
_LOOK = 0.1  # seconds between two looks at the memory
_SETTLE, _PATIENCE = 0.02, 5.0  # seconds between two looks for strays, and until they are given up
_COUNT = 0.5  # seconds between two counts of the processes that a child has started
_FILE_SIZE = 4 << 30  # bytes that one file may grow to
_PROCESSES = 512  # processes that a run may have at a time
_OUTPUT = 4000  # bytes of the last part of a program's output
_CONTAINER_ENDS = {MEMORY: "memory", PROCESSES: "processes", LATE: "timeout"}
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT")
_LEFT_OUT = frozenset({"__pycache__", "node_modules", "site-packages", "mlruns", "venv", "env"})


@dataclass(frozen=True)
class ChildLimits:
    """What a run may use: seconds of wall time in all, bytes of memory of all its processes together; how it is isolated."""

    seconds: float = 600.0
    memory: int = 4 << 30
    isolation: str = ""  # name of a mode; the best that works here when empty


@dataclass(frozen=True)
class ChildEnded:
    """How a process ended: 'done', 'failed', 'timeout', 'memory', 'processes', 'forged'."""

    status: str
    returncode: int | None
    seconds: float
    output: str = ""

    @property
    def forbidden(self) -> str:
        """What it used though its results were to be proved; empty where it used nothing of the kind."""
        place = (self.returncode or 0) - FIRST_CODE
        return FORBIDDEN[place] if self.status == "failed" and 0 <= place < len(FORBIDDEN) else ""

    @property
    def says(self) -> str:
        """Why it ended, in words."""
        words = {
            "timeout": "it exceeded its time limit",
            "memory": "it exceeded its memory limit",
            "processes": f"it started more than {_PROCESSES} processes",
            "forged": "unexpected data was written to its response pipe",
        }
        if self.status in words:
            return words[self.status]
        if self.returncode is not None and self.returncode < 0:
            name = signal.Signals(-self.returncode).name
            return f"its process was ended by {name}"
        if self.forbidden:
            return f"it used {self.forbidden}, which can forge results"
        return f"its process ended with exit code {self.returncode}"


class Stopped(Exception):
    """The child is gone before it answered."""

    def __init__(self, ended: ChildEnded) -> None:
        super().__init__(ended.says)
        self.ended = ended


@dataclass(frozen=True)
class CellRun:
    """What one cell did: nbformat 4 outputs, and the facts of its error."""

    index: int
    seconds: float
    outputs: tuple[dict[str, Any], ...]
    error: Mapping[str, Any] | None
    chained: tuple[Mapping[str, Any], ...] = ()
    count: int = 0


def environment(home: Path, token: str = "", plots: bool = False) -> dict[str, str]:
    """Return the whole environment of a child: nothing of ours but the search path for programs and the threads."""
    home.mkdir(parents=True, exist_ok=True)
    temporary = home / "tmp"
    temporary.mkdir(exist_ok=True)
    _share_fonts(home)
    kept = {name: os.environ[name] for name in _THREADS if name in os.environ}
    return kept | {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "TMPDIR": str(temporary),
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONPATH": str(PACKAGE_ROOT),  # the folders of a notebook come after our own code has been imported
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline" if plots else "Agg",
        "IPYTHONDIR": str(home / "ipython"),
        "PIP_NO_INDEX": "1",
        "PIP_TARGET": str(home / "pip"),
        "UV_OFFLINE": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "CUDA_VISIBLE_DEVICES": "",
        TOKEN: token or secrets.token_hex(8),
    }


def _share_fonts(home: Path) -> None:
    """Copy matplotlib's list of fonts, which takes it seconds to make, into the child's home."""
    own = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "matplotlib"
    target = home / ".cache" / "matplotlib"
    if not target.exists() and own.is_dir():
        target.mkdir(parents=True)
        for made in own.glob("fontlist-*.json"):
            shutil.copyfile(made, target / made.name)


def files_below(folder: Path, limit: int = 5000) -> Iterator[Path]:
    """Yield regular files below a folder, nearest first; hidden folders, environments and links that lead out are left out."""
    todo, seen = [folder], 0
    while todo:
        here = todo.pop(0)
        try:
            entries = sorted(here.iterdir())
        except OSError:
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name in _LEFT_OUT:
                continue
            if entry.is_symlink() and not entry.resolve().is_relative_to(folder.resolve()):
                continue
            if entry.is_dir() and not entry.is_symlink() and len(entry.relative_to(folder).parts) < 6:
                todo.append(entry)
            elif entry.is_file():
                seen += 1
                yield entry
                if seen >= limit:
                    return


def copy_folder(source: Path, target: Path, *, largest: int = 1 << 30, total: int = 4 << 30) -> list[Path]:
    """Copy what a notebook may need from its folder; return the files left out for their size. Other notebooks stay behind."""
    left: list[Path] = []
    for file in files_below(source):
        size = file.stat().st_size
        if file.suffix == ".ipynb" or file.resolve().is_relative_to(target.resolve()):
            continue
        if size > largest or size > total:
            left.append(file)
            continue
        total -= size
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    return left


def clone_folder(source: Path, target: Path, *, linked: int = 64 << 20) -> None:
    """Copy a copied folder for one run; large files become hard links to our own copy, never to the original."""
    target.mkdir(parents=True, exist_ok=True)
    for file in files_below(source):
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.stat().st_size > linked:
            file.chmod(0o444)
            os.link(file, place)
        else:
            shutil.copyfile(file, place)


class Child:
    """One supervised, isolated process and all that it starts; leaving the `with` block ends them.

    It may write to `folder` and `home`, and read `extra`, `readable` and the installed libraries; it imports from `extra` once our
    own code has been imported.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        home: Path,
        limits: ChildLimits,
        *,
        extra: Sequence[Path] = (),
        plots: bool = False,
        readable: Sequence[Path] = (),
        pipes: tuple[int, int]
        | None = None,  # descriptors to read and write on; in a container its standard input and output
    ) -> None:
        self.limits, self.began = limits, time.monotonic()
        self.mode = mode(limits.isolation) if limits.isolation else best()
        self.box = box(self.mode.name.removeprefix(PREFIX)) if self.mode.name.startswith(PREFIX) else None
        self.family: list[psutil.Process] = []
        self.counted = 0.0
        self.token = secrets.token_hex(8)
        variables = environment(home, self.token, plots)
        self.log = home / f"log-{self.token}.txt"
        view = View(folder, (home,), (*extra, *readable))
        with self.log.open("wb") as log:
            if self.box is not None:
                self.process = self._contained(self.box, command, view, variables, log, pipes)
                return
            self.process = subprocess.Popen(
                view.command(self.mode.name, command),
                cwd=folder,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=pipes or (),
                start_new_session=True,
                preexec_fn=lambda: _confine(limits),
            )

    @property
    def container(self) -> str:
        """Name of the container."""
        return f"d2c-{self.token}"

    def _contained(
        self,
        box: Box,
        command: Sequence[str],
        view: View,
        variables: Mapping[str, str],
        log: IO[bytes],
        pipes: tuple[int, int] | None,
    ) -> subprocess.Popen[bytes]:
        """Start the engine's client, which has our own environment: the notebook does not see it."""
        line = box.command(command, view.folder, view.to_write, view.to_read, name=self.container, variables=variables,
                           seconds=self.limits.seconds, memory=self.limits.memory, file_size=_FILE_SIZE, processes=_PROCESSES)  # fmt: skip
        return subprocess.Popen(
            line,
            stdin=pipes[0] if pipes else subprocess.PIPE,
            stdout=pipes[1] if pipes else log,
            stderr=log,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )

    def look(self) -> None:
        """Raise Stopped where the child is gone or past a limit."""
        if (code := self.process.poll()) is not None:
            ends = {0: "done", **(_CONTAINER_ENDS if self.box is not None else {})}
            raise Stopped(self.end(ends.get(code, "failed")))
        if time.monotonic() - self.began > self.limits.seconds:
            raise Stopped(self.end("timeout"))
        if self.box is not None:
            return  # its first process looks at memory and processes
        if self.memory() > self.limits.memory:
            raise Stopped(self.end("memory"))
        if len(self.family) > _PROCESSES:
            raise Stopped(self.end("processes"))

    def memory(self) -> int:
        """Return the bytes that the child and its descendants hold."""
        total = 0
        with contextlib.suppress(psutil.Error):
            if time.monotonic() > self.counted + _COUNT:  # reading the table of all processes is dear
                mine = psutil.Process(self.process.pid)
                self.family, self.counted = [mine, *mine.children(recursive=True)], time.monotonic()
        for process in self.family:
            with contextlib.suppress(psutil.Error):
                total += process.memory_info().rss
        return total

    def end(self, status: str) -> ChildEnded:
        """Kill what is left of it, wherever it went, and say how it ended."""
        if self.box is not None:
            return self._end_container(self.box, status)
        if self.mode.name == "landlock":  # its launcher collects the orphans, and kills them when it is asked to stop
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_PATIENCE)
        family: list[psutil.Process] = []
        with contextlib.suppress(psutil.Error):
            family = psutil.Process(self.process.pid).children(recursive=True)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        code = self.process.wait()
        for one in family:  # the init process of a namespace among them, whose end is the end of all inside
            with contextlib.suppress(psutil.Error):
                one.kill()
        limit = time.monotonic() + _PATIENCE
        while any(map(_lives, family)) and time.monotonic() < limit:
            time.sleep(_SETTLE / 4)
        if self.mode.name != TRUSTED and code > 128:
            code = 128 - code  # launchers tell a signal as shells do
        clean, limit = 0, time.monotonic() + _PATIENCE
        while (
            self.mode.name == TRUSTED and clean < 2 and time.monotonic() < limit
        ):  # a program that is just being started shows no environment yet
            strays = marked(self.token)
            clean = 0 if strays else clean + 1
            for stray in strays:
                with contextlib.suppress(psutil.Error):
                    stray.kill()
            time.sleep(_SETTLE)
        output = self.log.read_bytes()[-_OUTPUT:].decode("utf-8", "replace") if self.log.exists() else ""
        return ChildEnded(status, code, time.monotonic() - self.began, output)

    def _end_container(self, box: Box, status: str) -> ChildEnded:
        """Stop a container: close its standard input, or kill it."""
        self.hang_up()
        try:
            code = self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            box.remove(self.container)
            self.process.kill()
            code = self.process.wait()
        output = self.log.read_bytes()[-_OUTPUT:].decode("utf-8", "replace") if self.log.exists() else ""
        return ChildEnded(status, 128 - code if 128 < code < MEMORY else code, time.monotonic() - self.began, output)

    def hang_up(self) -> None:
        """Close our end of its standard input."""
        if self.process.stdin is not None:
            self.process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end("done")
        self.log.unlink(missing_ok=True)


def _confine(limits: ChildLimits) -> None:
    """Between fork and exec: no longer life than ours, no core files, no endless files; first to go where memory runs out."""
    die_with_parent()
    processor = int(limits.seconds * (os.cpu_count() or 1)) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (processor, processor))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    limit = _FILE_SIZE if hard == resource.RLIM_INFINITY else min(_FILE_SIZE, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with contextlib.suppress(OSError), Path("/proc/self/oom_score_adj").open("w") as score:
        score.write("1000")


def _lives(process: psutil.Process) -> bool:
    """Return whether a process can still do something; one that waits to be collected by its parent cannot."""
    with contextlib.suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def marked(token: str) -> list[psutil.Process]:
    """Find the processes that were started below a child, daemons among them, by the mark in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(TOKEN) == token:
                found.append(process)
    return found


def run_program(
    command: Sequence[str], folder: Path, home: Path, limits: ChildLimits, extra: Sequence[Path] = ()
) -> ChildEnded:
    """Run a program to its end within limits; its output's last part comes with the answer."""
    with Child(command, folder, home, limits, extra=extra) as child:
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(_LOOK)
                child.look()
        except Stopped as stopped:
            return stopped.ended


class Session(Child):
    """A child that runs cells one by one and keeps their names between them."""

    def __init__(
        self,
        folder: Path,
        home: Path,
        limits: ChildLimits,
        *,
        extra: Sequence[Path] = (),
        plots: bool = False,
        readable: Sequence[Path] = (),
        proof: bool = False,  # whether results are to be compared: what could forge them ends the process
    ) -> None:
        read_here, write_there = os.pipe()
        read_there, write_here = os.pipe()
        start = "from d2c_mlops.convert.run.child import main; main()"
        trusted = limits.isolation == TRUSTED
        parent = os.getpid() if trusted else 0
        contained = limits.isolation.startswith(PREFIX)  # engines hand on no other descriptors than the standard ones
        pipe = (0, 1) if contained else (read_there, write_there)
        numbers = [str(number) for number in (*pipe, int(plots), parent, int(proof))]
        try:
            super().__init__(
                [sys.executable, "-P", "-c", start, *numbers, *(str(folder) for folder in extra)],
                folder,
                home,
                limits,
                extra=extra,
                pipes=(read_there, write_there),
                plots=plots,
                readable=readable,
            )
        finally:
            os.close(read_there)
            os.close(write_there)
        self.source, self.sink, self.rest = read_here, write_here, bytearray()
        self.key, self.answers = secrets.token_bytes(KEY_SIZE), 0
        os.set_blocking(read_here, False)
        self.send(self.key.hex().encode("ascii"))

    def run(self, index: int, source: str) -> CellRun:
        """Run one cell; raises Stopped where the child did not live to answer."""
        answer = self.ask({"do": "cell", "index": index, "source": source})
        return CellRun(
            index,
            float(answer["seconds"]),
            tuple(answer["outputs"]),
            answer["error"],
            tuple(answer["chained"]),
            int(answer["count"]),
        )

    def kinds(self, expressions: Sequence[str]) -> dict[str, str]:
        """Return the classes of what expressions stand for in the child; empty where they have no value."""
        return dict(self.ask({"do": "kinds", "names": list(expressions)}))

    def snapshot(self, names: Sequence[str]) -> bytes:
        """Return the values of names as the child reads them from memory: a line of JSON, then the bytes of all arrays."""
        return self.exchange(b"snapshot " + ",".join(names).encode("utf-8"))

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send one request and wait for its answer, watching the limits."""
        try:
            answer = json.loads(self.exchange(json.dumps(request).encode("ascii")))
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise Stopped(self.end("failed"))
        return answer

    def send(self, line: bytes) -> None:
        """Write a line to the child; one that is gone is noticed when its answer is read."""
        data = line + b"\n"
        with contextlib.suppress(BrokenPipeError):
            while data:
                data = data[os.write(self.sink, data) :]

    def exchange(self, request: bytes) -> bytes:
        """Send a request; return the answer: its length, its signature with the key that only the child's own code has, itself."""
        if self.sink < 0:
            raise Stopped(self.end("failed"))
        self.send(request)
        head = self.read(8 + MAC_SIZE)
        size = int.from_bytes(head[:8], "big")
        if size > self.limits.memory:
            raise Stopped(self.end("forged"))
        payload = self.read(size)
        self.answers += 1
        signed = hashlib.blake2b(self.answers.to_bytes(8, "big") + payload, key=self.key).digest()[:MAC_SIZE]
        if not hmac.compare_digest(signed, head[8:]):
            raise Stopped(self.end("forged"))
        return payload

    def read(self, size: int) -> bytes:
        """Read so many bytes of an answer, watching the limits."""
        while len(self.rest) < size:
            ready, _, _ = select.select([self.source], [], [], _LOOK)
            if ready:
                self.take()
            if not ready or len(self.rest) < size:
                self.look()
        part = bytes(self.rest[:size])
        del self.rest[:size]
        return part

    def take(self) -> None:
        """Read what has come; at the end of the pipe give the process a moment to be gone."""
        try:
            part = os.read(self.source, 1 << 20)
        except BlockingIOError:
            return
        self.rest += part
        if not part:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(2.0)
            self.look()
            raise Stopped(self.end("failed"))

    def hang_up(self) -> None:
        """Close our end of the requests' pipe."""
        if self.sink >= 0:
            os.close(self.sink)
            self.sink = -1

    def end(self, status: str) -> ChildEnded:
        """End the child and close both pipes."""
        ended = super().end(status)
        for name in ("source", "sink"):
            descriptor = getattr(self, name, -1)
            if descriptor >= 0:
                os.close(descriptor)
                setattr(self, name, -1)
        return ended


@dataclass
class Workplace:
    """The folders of one conversion: `pristine` is copied for every run, `home` serves the children."""

    pristine: Path
    scratch: Path
    home: Path
    packages: tuple[Path, ...] = ()
    runs: int = field(default=0)

    def fresh(self) -> Path:
        """Return a new copy of the pristine folder; earlier ones are gone."""
        for old in self.scratch.glob("run-*"):
            shutil.rmtree(old, ignore_errors=True)
        self.runs += 1
        folder = self.scratch / f"run-{self.runs}"
        clone_folder(self.pristine, folder)
        return folder
