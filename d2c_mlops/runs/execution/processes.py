"""Watch and end the processes of a run: the worker, its kernel, and whatever the notebook started."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import psutil


@dataclass
class ResourceUsage:
    """Resources that a process tree has used so far."""

    cpu_seconds: float = 0.0
    memory_bytes: float = 0.0
    peak_memory_bytes: float = 0.0
    _cpu: dict[tuple[int, float], float] = field(default_factory=dict)

    def sample(self, pid: int) -> None:
        """Add the current use of the process `pid` and its descendants."""
        memory = 0.0
        for process in process_tree(pid):
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    self._cpu[process.pid, process.create_time()] = times.user + times.system
                    memory += process.memory_info().rss
            except psutil.Error:
                continue
        self.cpu_seconds = sum(self._cpu.values())
        self.memory_bytes = memory
        self.peak_memory_bytes = max(self.peak_memory_bytes, memory)


def oom_kills() -> int:
    """Return how many processes of this control group the kernel has killed because memory ran out; 0 if unknown."""
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        for line in _read_text(path).splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def process_tree(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants; an empty list if it has ended."""
    try:
        top = psutil.Process(pid)
        return [top, *_descendant_processes(top)]
    except psutil.Error:
        return []


def _descendant_processes(top: psutil.Process) -> list[psutil.Process]:
    """Return the descendants of a process; on Linux without scanning all processes."""
    if not Path(f"/proc/{top.pid}/task/{top.pid}/children").exists():
        return list(top.children(recursive=True))
    descendants: list[psutil.Process] = []
    queue = [top.pid]
    while queue:
        for listing in Path(f"/proc/{queue.pop()}/task").glob("*/children"):
            try:
                numbers = [int(number) for number in listing.read_bytes().split()]
                descendants += [psutil.Process(number) for number in numbers]
                queue += numbers
            except (OSError, psutil.Error):
                continue
    return descendants


def host_identity() -> str:
    """Return the identity of this process's host: host name, machine and boot, process namespace.

    A process id is unique only within the same namespace and boot.
    """
    return _read_host_identity()


@cache
def _read_host_identity() -> str:
    machine = _read_text("/etc/machine-id") or _read_text("/var/lib/dbus/machine-id")
    boot = _read_text("/proc/sys/kernel/random/boot_id") or f"{psutil.boot_time():.0f}"
    try:
        namespace = str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}#{machine[:8]}.{boot.replace('-', '')[:8]}.{namespace}"


def is_before_reboot(where: str) -> bool:
    """Return whether a place is this machine before its last reboot, so that its processes have ended."""
    host, _, identity = where.partition("#")
    host_here, _, mine = host_identity().partition("#")
    machine, boot = [*identity.split("."), ""][:2]
    return bool(machine) and host == host_here and mine.split(".")[0] == machine and mine.split(".")[1] != boot


def process_start(pid: int) -> float:
    """Return the start time of a process, 0 if it has ended: pid and start time identify a process of one boot.

    On Linux in seconds since boot, which do not change if the clock is set.
    """
    try:
        if sys.platform == "linux":
            after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            return int(after_name[19]) / os.sysconf("SC_CLK_TCK")
        return float(psutil.Process(pid).create_time())
    except (OSError, psutil.Error):
        return 0.0


def is_alive(pid: int, since: float) -> bool:
    """Return whether the process `pid` that started at `since` still runs."""
    try:
        return abs(process_start(pid) - since) < 0.5 and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _read_text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def end_processes(pid: int, timeout: float = 3.0) -> None:
    """End a process and its descendants: SIGTERM first, SIGKILL after `timeout` seconds."""
    processes = process_tree(pid)
    _send_signal(processes, signal.SIGTERM)
    limit = time.monotonic() + timeout
    while any(_is_running(p) for p in processes) and time.monotonic() < limit:
        time.sleep(0.05)
    _send_signal(processes + process_tree(pid), signal.SIGKILL)


def kill_marked_processes(name: str, variable_value: str) -> int:
    """Kill every process of this user that carries an environment variable; return how many there were.

    This finds processes left by a dead supervisor: children of a kernel that were reparented to init.
    """
    ended: set[int] = set()
    clean, limit = 0, time.monotonic() + 5.0
    while clean < 2 and time.monotonic() < limit:  # a program that is just being started shows no environment yet
        marked = list(_processes_with_variable(name, variable_value))
        clean = 0 if marked else clean + 1
        ended |= {process.pid for process in marked}
        _send_signal(marked, signal.SIGKILL)
        time.sleep(0.02)
    return len(ended)


def _processes_with_variable(name: str, variable_value: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(name) == variable_value and _is_running(process):
                yield process


def _is_running(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _send_signal(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.Error:
            continue
