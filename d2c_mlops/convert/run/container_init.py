"""First process of a container for untrusted code: sets limits and environment; standard library only."""

# Runs with the image's own Python. The one argument is a JSON object: `command` (its first word is replaced by this interpreter),
# `environment`, `seconds`, `memory` and `file_size` (bytes), `processes`. Standard input is a pipe of the caller: when nobody holds
# its other end any more, this process ends, and the container with it. Exit codes: the command's, 128 + signal, or MEMORY, PROCESSES, LATE.
# Sources: pid_namespaces(7), poll(2), proc(5), cgroups(7).

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import sys
import time

MEMORY, PROCESSES, LATE = 201, 202, 203
TURN, LOOK = 0.02, 0.1  # seconds between two looks at the command, and at what all processes hold
GRACE = 30.0  # seconds that the caller has to end a container that is late
PAGE = os.sysconf("SC_PAGE_SIZE")
# What an image sets so that its Python finds its libraries; nothing else of the engine's environment is handed on.
KEPT = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX")
OOM = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


def environment(image_variables: dict[str, str]) -> dict[str, str]:
    """Return the variables of the command: ours, and those of the image that lead to its libraries."""
    there = {name: os.environ[name] for name in KEPT if name in os.environ}
    paths = [image_variables.get("PYTHONPATH", ""), os.environ.get("PYTHONPATH", "")]
    return there | image_variables | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def limit(seconds: float, file_size: int) -> None:
    """Limit processor time, size of files and core files for this process and all that it starts."""
    processor = int(seconds * (os.cpu_count() or 1)) + 1
    for what, ceiling in (
        (resource.RLIMIT_CPU, processor),
        (resource.RLIMIT_FSIZE, file_size),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        ceiling = ceiling if hard == resource.RLIM_INFINITY else min(ceiling, hard)
        resource.setrlimit(what, (ceiling, ceiling))


def memory_and_processes() -> tuple[int, int]:
    """Return the memory of all other processes in bytes, and their number."""
    memory = number = 0
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != os.getpid():
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/statm") as file:
                memory += int(file.read().split()[1]) * PAGE
                number += 1
    return memory, number


def killed_for_memory() -> bool:
    """Return whether the kernel ended a process of this container because it had no memory left."""
    for path in OOM:
        with contextlib.suppress(OSError), open(path) as file:
            words = file.read().split()
            if "oom_kill" in words and words[words.index("oom_kill") + 1] != "0":
                return True
    return False


def watch(command: int, seconds: float, memory: int, processes: int) -> int:
    """Collect orphans and look at the limits until the command ends; return the exit code."""
    caller = select.poll()
    caller.register(0, 0)  # only whether the other end is gone: the bytes are the command's
    began = looked = time.monotonic()
    while True:
        if caller.poll(int(TURN * 1000)):
            return LATE
        while True:
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return LATE
            if ended == command:
                code = os.waitstatus_to_exitcode(status)
                if code < 0 and killed_for_memory():
                    return MEMORY
                return code if code >= 0 else 128 - code
            if not ended:
                break
        if time.monotonic() < looked + LOOK:
            continue
        (used_bytes, number), looked = memory_and_processes(), time.monotonic()
        if used_bytes > memory:
            return MEMORY
        if number > processes:
            return PROCESSES
        if time.monotonic() - began > seconds + GRACE:
            return LATE


def main() -> None:
    """Start the command and watch it; the kernel ends all other processes with this one."""
    spec = json.loads(sys.argv[1])
    variables = environment(spec["environment"])
    command = os.fork()
    if command == 0:
        os.setsid()
        limit(spec["seconds"], spec["file_size"])
        os.execve(sys.executable, [sys.executable, *spec["command"][1:]], variables)  # noqa: S606 - what the image is for
    os._exit(watch(command, spec["seconds"], spec["memory"], spec["processes"]))


if __name__ == "__main__":
    main()
