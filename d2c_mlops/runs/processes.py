"""Watch and end the processes of a run: the worker, its kernel, and whatever the notebook started."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, field

import psutil


@dataclass
class Usage:
    """What a tree of processes has used so far."""

    cpu_seconds: float = 0.0
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
        self.peak_memory_bytes = max(self.peak_memory_bytes, memory)


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and all its descendants; an empty list when it is gone."""
    try:
        top = psutil.Process(pid)
        return [top, *top.children(recursive=True)]
    except psutil.Error:
        return []


def started(pid: int) -> float:
    """Return when a process started (seconds since the epoch), 0 when it is gone: pid and start name a process."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def alive(pid: int, since: float) -> bool:
    """Return whether the process `pid` that started at `since` still runs."""
    try:
        process = psutil.Process(pid)
        return bool(abs(process.create_time() - since) < 1.0 and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


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
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(name) == value:
                found.append(process)
        except psutil.Error:
            continue
    _signal(found, signal.SIGKILL)
    return len(found)


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
