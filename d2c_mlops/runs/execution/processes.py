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
class Usage:
    """What a tree of processes has used so far."""

    cpu_seconds: float = 0.0
    memory_bytes: float = 0.0
    peak_memory_bytes: float = 0.0
    _cpu: dict[tuple[int, float], float] = field(default_factory=dict)

    def sample(self, pid: int) -> None:
        """Add what the process `pid` and all below it use now."""
        memory = 0.0
        for process in tree(pid):
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
    """Return how many processes of this control group the kernel has killed for want of memory; 0 where it is unknown."""
    for path in ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"):
        for line in _text(path).splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants; an empty list when it is gone."""
    try:
        top = psutil.Process(pid)
        return [top, *_below(top)]
    except psutil.Error:
        return []


def _below(top: psutil.Process) -> list[psutil.Process]:
    """Return the descendants of a process; where Linux lists them, without a look at every process there is."""
    if not Path(f"/proc/{top.pid}/task/{top.pid}/children").exists():
        return list(top.children(recursive=True))
    found: list[psutil.Process] = []
    left = [top.pid]
    while left:
        for listing in Path(f"/proc/{left.pop()}/task").glob("*/children"):
            try:
                numbers = [int(number) for number in listing.read_bytes().split()]
                found += [psutil.Process(number) for number in numbers]
                left += numbers
            except (OSError, psutil.Error):
                continue
    return found


def place() -> str:
    """Return where this process lives: host name, machine and boot, process namespace.

    A process number means the same process only to those that see the same namespace since the same boot.
    """
    return _place()


@cache
def _place() -> str:
    machine = _text("/etc/machine-id") or _text("/var/lib/dbus/machine-id")
    boot = _text("/proc/sys/kernel/random/boot_id") or f"{psutil.boot_time():.0f}"
    try:
        namespace = str(Path("/proc/self/ns/pid").stat().st_ino)
    except OSError:
        namespace = ""
    return f"{socket.gethostname()}#{machine[:8]}.{boot.replace('-', '')[:8]}.{namespace}"


def rebooted(where: str) -> bool:
    """Return whether a place was this machine before it was started again: nothing of then is left."""
    host, _, rest = where.partition("#")
    here, _, mine = place().partition("#")
    machine, boot = [*rest.split("."), ""][:2]
    return bool(machine) and host == here and mine.split(".")[0] == machine and mine.split(".")[1] != boot


def started(pid: int) -> float:
    """Return when a process started, 0 when it is gone: pid and start name a process of one boot.

    Seconds since the boot where Linux tells them: those do not change when somebody sets the clock.
    """
    try:
        if sys.platform == "linux":
            after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
            return int(after_name[19]) / os.sysconf("SC_CLK_TCK")
        return float(psutil.Process(pid).create_time())
    except (OSError, psutil.Error):
        return 0.0


def alive(pid: int, since: float) -> bool:
    """Return whether the process `pid` that started at `since` still runs."""
    try:
        return abs(started(pid) - since) < 0.5 and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _text(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""


def end(pid: int, patience: float = 3.0) -> None:
    """End a process and all below it: politely, then after `patience` seconds for good."""
    found = tree(pid)
    _signal(found, signal.SIGTERM)
    limit = time.monotonic() + patience
    while any(_running(p) for p in found) and time.monotonic() < limit:
        time.sleep(0.05)
    _signal(found + tree(pid), signal.SIGKILL)


def end_marked(name: str, value: str) -> int:
    """Kill every process of this user that carries an environment variable; return how many there were.

    This reaches what a dead supervisor left behind: children of a kernel that were given to init.
    """
    found: set[int] = set()
    clean, limit = 0, time.monotonic() + 5.0
    while clean < 2 and time.monotonic() < limit:  # a program that is just being started shows no environment yet
        left = list(_marked(name, value))
        clean = 0 if left else clean + 1
        found |= {process.pid for process in left}
        _signal(left, signal.SIGKILL)
        time.sleep(0.02)
    return len(found)


def _marked(name: str, value: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(name) == value and _running(process):
                yield process


def _running(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _signal(processes: list[psutil.Process], number: int) -> None:
    for process in processes:
        try:
            process.send_signal(number)
        except psutil.Error:
            continue
