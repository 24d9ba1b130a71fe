"""Protection of a container's first process, and limits of the commands that it runs; standard library only."""

# `container_init` runs with the image's own Python and imports this module: standard library only.
# Sources: proc(5), cgroups(7), seccomp(2), keyrings(7).

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import signal
import struct

PAGE = os.sysconf("SC_PAGE_SIZE")
# What an image sets so that its Python finds its libraries; nothing else of the engine's environment is handed on.
KEPT = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX")
OOM = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
SET_DUMPABLE, SET_NO_NEW_PRIVILEGES, SET_SECCOMP, FILTER = 4, 38, 22, 2
# add_key, request_key and keyctl: keyrings belong to a user, not to a container, and outlive it.
KEY_CALLS = {"x86_64": (0xC000003E, (248, 249, 250)), "aarch64": (0xC00000B7, (217, 218, 219))}
LIBC = ctypes.CDLL(None, use_errno=True)


def protect_own_process() -> None:
    """Close this process to the commands that it runs: they share its user. Raises OSError where that fails."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)  # the first process of a container gets no signal that it does not handle
    if LIBC.prctl(
        SET_DUMPABLE, 0, 0, 0, 0
    ):  # no ptrace, no /proc/1/mem, no /proc/1/fd; exec sets it again for a command
        raise OSError(ctypes.get_errno(), "prctl")
    refuse_key_calls()


def refuse_key_calls() -> None:
    """Refuse the system calls of keyrings to this process and all that it starts. Raises OSError where that fails."""
    if platform.machine() not in KEY_CALLS:
        return
    architecture, calls = KEY_CALLS[platform.machine()]
    refuse, allow = 0x00050000 | 38, 0x7FFF0000  # ENOSYS
    # BPF: load the architecture, go on where it is ours; load the number, refuse those of keys; x32's numbers start at 0x40000000.
    lines = [
        (0x20, 0, 0, 4),
        (0x15, 0, len(calls) + 2, architecture),
        (0x20, 0, 0, 0),
        (0x35, len(calls) + 1, 0, 0x40000000),
    ]
    lines += [(0x15, len(calls) - place, 0, number) for place, number in enumerate(calls)]
    lines += [(0x06, 0, 0, allow), (0x06, 0, 0, refuse)]
    lines[1] = (0x15, 0, len(lines) - 3, architecture)
    code = b"".join(struct.pack("HBBI", *line) for line in lines)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HxxxxxxP", len(lines), ctypes.addressof(buffer))
    LIBC.prctl(SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if LIBC.prctl(SET_SECCOMP, FILTER, ctypes.c_char_p(program), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")


def command_environment(image_variables: dict[str, str]) -> dict[str, str]:
    """Return the variables of the command: ours, and those of the image that lead to its libraries."""
    there = {name: os.environ[name] for name in KEPT if name in os.environ}
    paths = [image_variables.get("PYTHONPATH", ""), os.environ.get("PYTHONPATH", "")]
    return there | image_variables | {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}


def limit_resources(seconds: float, file_size: int) -> None:
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


def killed_for_memory() -> int:
    """Return how often the kernel ended a process of this container because it had no memory left."""
    for path in OOM:
        with contextlib.suppress(OSError, ValueError), open(path) as file:
            words = file.read().split()
            if "oom_kill" in words:
                return int(words[words.index("oom_kill") + 1])
    return 0
