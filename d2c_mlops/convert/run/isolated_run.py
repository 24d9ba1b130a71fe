"""Run untrusted code in an isolated process: a copy of its folder, a clean environment, and limits."""

from __future__ import annotations

import contextlib
import os
import resource
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import psutil

from d2c_mlops.convert.run import container_init, container_pool
from d2c_mlops.convert.run.child_control import FIRST_CODE, FORBIDDEN
from d2c_mlops.convert.run.container_pool import ContainerRun
from d2c_mlops.convert.run.containers import CODE, FILE_SIZE, MEMORY, PREFIX, PROCESSES, ContainerImage, isolating_image
from d2c_mlops.convert.run.first_process.limits import refuse_key_calls
from d2c_mlops.convert.run.isolation import TRUSTED, IsolatedView, best_mode, find_mode
from d2c_mlops.parent_death import die_with_parent
from d2c_mlops.settings.parsing import home_path

TOKEN = "D2C_SANDBOX"
PACKAGE_ROOT = Path(__file__).parents[3]
LOOK = 0.1  # seconds between two looks at the memory
_SETTLE, _PATIENCE = 0.02, 5.0  # seconds between two looks for strays, and until they are given up
_COUNT = 0.5  # seconds between two counts of the processes that a child has started
_OUTPUT = 4000  # bytes of the last part of a program's output
_CONTAINER_ENDS = {
    container_init.MEMORY: "memory",
    container_init.PROCESSES: "processes",
    container_init.LATE: "timeout",
}
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LOKY_MAX_CPU_COUNT")


@dataclass(frozen=True)
class ChildLimits:
    """The limits of a run: total seconds of wall time, bytes of memory of all its processes; and its isolation."""

    seconds: float = 600.0
    memory: int = MEMORY
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
        """The forbidden operation that the run used; empty if none."""
        place = (self.returncode or 0) - FIRST_CODE
        return FORBIDDEN[place] if self.status == "failed" and 0 <= place < len(FORBIDDEN) else ""

    @property
    def says(self) -> str:
        """Why it ended, in words."""
        words = {
            "timeout": "it exceeded its time limit",
            "memory": "it exceeded its memory limit",
            "processes": f"it started more than {PROCESSES} processes",
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
    """The child process ended before it answered."""

    def __init__(self, ended: ChildEnded) -> None:
        super().__init__(ended.says)
        self.ended = ended


def child_environment(home: Path, token: str = "", plots: bool = False) -> dict[str, str]:
    """Return the whole environment of a child: nothing of ours but the search path for programs and the threads."""
    home.mkdir(parents=True, exist_ok=True)
    temporary = home / "tmp"
    temporary.mkdir(exist_ok=True)
    _share_fonts(home)
    thread_settings = {name: os.environ[name] for name in _THREADS if name in os.environ}
    return thread_settings | {
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
    """Copy matplotlib's font list into the child's home; creating it would take seconds."""
    user_cache = home_path(os.environ.get("XDG_CACHE_HOME", "~/.cache")) / "matplotlib"
    target = home / ".cache" / "matplotlib"
    if not target.exists() and user_cache.is_dir():
        target.mkdir(parents=True)
        for font_list in user_cache.glob("fontlist-*.json"):
            shutil.copyfile(font_list, target / font_list.name)


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
        self.mode = find_mode(limits.isolation) if limits.isolation else best_mode()
        self.box = isolating_image(self.mode.name.removeprefix(PREFIX)) if self.mode.name.startswith(PREFIX) else None
        self.family: list[psutil.Process] = []
        self.counted = 0.0
        self.ended_container = False
        self.token = secrets.token_hex(8)
        variables = child_environment(home, self.token, plots)
        self.inside = folder  # the working directory as the code sees it
        # Its output goes to a file without a name: under a name it could be replaced by a link to a file of yours.
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed at the end of the run
        view = IsolatedView(folder, (home,), (*extra, *readable))
        self.process: subprocess.Popen[bytes] | ContainerRun
        if self.box is not None:
            self.process = self._start_in_container(self.box, command, folder, home, view.to_read, variables, pipes)
            return
        self.process = subprocess.Popen(
            view.command(self.mode.name, command),
            cwd=folder,
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            pass_fds=pipes or (),
            start_new_session=True,
            preexec_fn=lambda: _limit_child(limits),
        )

    @property
    def container(self) -> str:
        """Name of the container."""
        return self.lease.container.name

    def _start_in_container(
        self,
        container_image: ContainerImage,
        command: Sequence[str],
        folder: Path,
        home: Path,
        readable: Sequence[str],
        variables: Mapping[str, str],
        pipes: tuple[int, int] | None,
    ) -> ContainerRun:
        """Start the command in a container: the notebook does not see the environment of the engine's client."""
        variables = {**variables, "PYTHONPATH": CODE}
        limits = container_pool.Limits(self.limits.seconds, self.limits.memory, FILE_SIZE, PROCESSES)
        self.lease = container_pool.start_command(
            container_image, command, folder, home, readable, variables, limits, pipes
        )
        self.inside = Path(self.lease.inside(str(folder.absolute())))
        assert self.lease.run is not None
        return self.lease.run

    def look(self) -> None:
        """Raise Stopped if the child has ended or exceeds a limit."""
        if (code := self.process.poll()) is not None:
            ends = {0: "done", **(_CONTAINER_ENDS if self.box is not None else {})}
            raise Stopped(self.end(ends.get(code, "failed")))
        if time.monotonic() - self.began > self.limits.seconds:
            raise Stopped(self.end("timeout"))
        if self.box is not None:
            return  # its first process looks at memory and processes
        if self.memory() > self.limits.memory:
            raise Stopped(self.end("memory"))
        if len(self.family) > PROCESSES:
            raise Stopped(self.end("processes"))

    def memory(self) -> int:
        """Return the memory of the child and its descendants in bytes."""
        total = 0
        assert isinstance(self.process, subprocess.Popen)
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
        if isinstance(self.process, ContainerRun):
            return self._end_container(self.process, status)
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
        for process in family:  # the init process of a namespace among them, whose end is the end of all inside
            with contextlib.suppress(psutil.Error):
                process.kill()
        limit = time.monotonic() + _PATIENCE
        while any(map(_is_alive, family)) and time.monotonic() < limit:
            time.sleep(_SETTLE / 4)
        if self.mode.name != TRUSTED and code > 128:
            code = 128 - code  # launchers tell a signal as shells do
        clean, limit = 0, time.monotonic() + _PATIENCE
        while (
            self.mode.name == TRUSTED and clean < 2 and time.monotonic() < limit
        ):  # a program that is just being started shows no environment yet
            strays = processes_with_mark(self.token)
            clean = 0 if strays else clean + 1
            for stray in strays:
                with contextlib.suppress(psutil.Error):
                    stray.kill()
            time.sleep(_SETTLE)
        return ChildEnded(status, code, time.monotonic() - self.began, self._last_output())

    def _last_output(self) -> str:
        """Return the last part of what it wrote."""
        if isinstance(self.process, ContainerRun):
            return self.process.output.decode("utf-8", "replace")
        if self.log.closed:
            return ""
        descriptor = self.log.fileno()
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, _OUTPUT, max(0, size - _OUTPUT)).decode("utf-8", "replace")

    def _end_container(self, run: ContainerRun, status: str) -> ChildEnded:
        """End the command and all that it started; the container may wait for another run."""
        self.close_stdin()
        if not self.ended_container:
            self.ended_container = True
            run.kill()
            try:
                run.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self.lease.container.close(1.0)
                run.finish(128 + signal.SIGKILL, "it did not end")
            self.lease.give_back()
        code = run.wait()
        code = 128 - code if 128 < code < container_init.MEMORY else code
        return ChildEnded(status, code, time.monotonic() - self.began, self._last_output())

    def close_stdin(self) -> None:
        """Close our end of its standard input."""
        if self.process.stdin is not None:
            self.process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end("done")
        self.log.close()


def _limit_child(limits: ChildLimits) -> None:
    """Between fork and exec: no longer life than ours, no core files, no endless files; first to go where memory runs out.

    Keyrings belong to a user, whom a namespace does not change: an isolated process gets none.
    """
    die_with_parent()
    if limits.isolation != TRUSTED and sys.platform == "linux":
        refuse_key_calls()
    processor = int(limits.seconds * (os.cpu_count() or 1)) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (processor, processor))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    limit = FILE_SIZE if hard == resource.RLIM_INFINITY else min(FILE_SIZE, hard)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    with contextlib.suppress(OSError), Path("/proc/self/oom_score_adj").open("w") as score:
        score.write("1000")


def _is_alive(process: psutil.Process) -> bool:
    """Return whether a process can still do something; one that waits to be collected by its parent cannot."""
    with contextlib.suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


def processes_with_mark(token: str) -> list[psutil.Process]:
    """Find the processes that were started below a child, daemons among them, by the mark in their environment."""
    processes = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid != os.getpid() and process.environ().get(TOKEN) == token:
                processes.append(process)
    return processes


def run_program(
    command: Sequence[str], folder: Path, home: Path, limits: ChildLimits, extra: Sequence[Path] = ()
) -> ChildEnded:
    """Run a program to its end within limits; the result contains the last part of its output."""
    with Child(command, folder, home, limits, extra=extra) as child:
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.process.wait(LOOK)
                child.look()
        except Stopped as stopped:
            return stopped.ended
