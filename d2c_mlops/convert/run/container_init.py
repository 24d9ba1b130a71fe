"""First process of a container for untrusted code: runs one command after another, each from a clean state; standard library only."""

# Runs with the image's own Python. Standard input and output carry frames: a letter, the number of a run (4 bytes) and a length (4 bytes),
# then so many bytes. From the caller: R starts a run (a JSON object: `command`, whose first word is replaced by this interpreter,
# `environment`, `folder`, `mark` (a file that must be seen in it), `pipes` (whether standard output carries answers), `seconds`, `memory`
# and `file_size` (bytes), `processes`), I is standard input of the command, E ends the run. To the caller: S when it has started, O is standard output
# of the command, L what it shows otherwise, X the end: `code` (the command's, 128 + signal, MEMORY, PROCESSES, LATE, UNSEEN) and `left`: what
# could not be brought back to its first state; empty where the next run may follow. When nobody holds the other end of standard
# input any more, this process ends, and the container with it.
# Sources: pid_namespaces(7), poll(2), proc(5), cgroups(7), seccomp(2), keyrings(7), sysvipc(7), mq_overview(7).

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import platform
import resource
import select
import signal
import stat
import struct
import sys
import time
from typing import Any

MEMORY, PROCESSES, LATE, UNSEEN = 201, 202, 203, 204
TURN, LOOK = 0.02, 0.1  # seconds between two looks at the command, and at what all processes hold
GRACE = 30.0  # seconds that the caller has to end a run that is late
SETTLE = 5.0  # seconds until all processes of a run must be gone
PART, WAITING = (
    1 << 16,
    1 << 22,
)  # bytes that are read at once, and that wait for the caller before a command is read no further
PAGE = os.sysconf("SC_PAGE_SIZE")
HEAD = struct.Struct(">cII")
# What an image sets so that its Python finds its libraries; nothing else of the engine's environment is handed on.
KEPT = ("PATH", "LD_LIBRARY_PATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX")
OOM = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")
SET_DUMPABLE, SET_NO_NEW_PRIVILEGES, SET_SECCOMP, FILTER = 4, 38, 22, 2
# add_key, request_key and keyctl: keyrings belong to a user, not to a container, and outlive it.
KEY_CALLS = {"x86_64": (0xC000003E, (248, 249, 250)), "aarch64": (0xC00000B7, (217, 218, 219))}
LIBC = ctypes.CDLL(None, use_errno=True)


def protect() -> None:
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


def killed_for_memory() -> int:
    """Return how often the kernel ended a process of this container because it had no memory left."""
    for path in OOM:
        with contextlib.suppress(OSError, ValueError), open(path) as file:
            words = file.read().split()
            if "oom_kill" in words:
                return int(words[words.index("oom_kill") + 1])
    return 0


class CallerGone(Exception):
    """The caller holds the other end no more."""


class Channel:
    """Frames to and from the caller; writing never waits, so that limits are watched while the caller is slow."""

    def __init__(self) -> None:
        self.read_bytes, self.unsent = bytearray(), bytearray()
        self.frames: list[tuple[bytes, int, bytes]] = []
        os.set_blocking(0, False)
        os.set_blocking(1, False)

    def send(self, kind: bytes, run: int, data: bytes = b"") -> None:
        """Add a frame to what is to be written."""
        self.unsent += HEAD.pack(kind, run, len(data)) + data

    def flush(self) -> None:
        """Write what the caller takes now; raises CallerGone where it takes nothing any more."""
        try:
            while self.unsent:
                del self.unsent[: os.write(1, memoryview(self.unsent)[:PART])]
        except BlockingIOError:
            pass
        except OSError:
            raise CallerGone from None

    def receive(self) -> None:
        """Read the frames that have come into `frames`; raises CallerGone at the end of standard input."""
        with contextlib.suppress(BlockingIOError):
            while True:
                part = os.read(0, PART)
                if not part:
                    raise CallerGone
                self.read_bytes += part
        while len(self.read_bytes) >= HEAD.size:
            kind, run, size = HEAD.unpack_from(self.read_bytes)
            if len(self.read_bytes) < HEAD.size + size:
                break
            self.frames.append((kind, run, bytes(self.read_bytes[HEAD.size : HEAD.size + size])))
            del self.read_bytes[: HEAD.size + size]


# --- the state that a run must leave as it was ------------------------------------------------------------------------


def places() -> list[str]:
    """Return the mount points in memory that can be written: /tmp, /dev, /dev/shm, message queues and the like."""
    points = []
    with open("/proc/self/mountinfo") as file:
        for line in file:
            fields, _, kind = line.partition(" - ")
            point, options = fields.split()[4:6]
            if (
                options.split(",")[0] == "rw"
                and kind.split()[0] in ("tmpfs", "ramfs", "mqueue", "hugetlbfs")
                and os.path.isdir(point)
            ):
                points.append(point)
    return points


def listed(point: str) -> dict[str, tuple[object, ...]]:
    """Return the entries of a mount point, itself too, not of mounts below, with what a command could change of them."""
    entries: dict[str, tuple[object, ...]] = {}
    device = os.lstat(point).st_dev
    todo = [point]
    while todo:
        path = todo.pop()
        facts = os.lstat(path)
        if facts.st_dev != device:
            continue  # what the caller mounted
        size = facts.st_size if stat.S_ISREG(facts.st_mode) else 0
        marks: list[str] = []
        with contextlib.suppress(OSError):
            marks = os.listxattr(path, follow_symlinks=False)
        target = os.readlink(path) if stat.S_ISLNK(facts.st_mode) else ""
        entries[path] = (facts.st_mode, facts.st_uid, facts.st_gid, size, *marks, target)
        if stat.S_ISDIR(facts.st_mode):
            todo += [f"{path.rstrip('/')}/{name}" for name in os.listdir(path)]
    return entries


def remove(path: str) -> None:
    """Remove a file or a folder with all that is in it, whatever its mode; links are not followed."""
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        os.unlink(path)
        return
    os.chmod(path, 0o700)
    for name in os.listdir(path):
        remove(f"{path}/{name}")
    os.rmdir(path)


def queues() -> dict[str, list[str]]:
    """Return the ids of System V shared memory, semaphores and message queues."""
    ids = {}
    for kind, at in (("shm", 1), ("sem", 1), ("msg", 1)):
        with contextlib.suppress(OSError), open(f"/proc/sysvipc/{kind}") as file:
            ids[kind] = [line.split()[at] for line in file.read().splitlines()[1:]]
    return ids


def sockets() -> list[str]:
    """Return connections that the kernel still holds, those that wait after their end among them: their ports are taken."""
    lines = []
    for kind in ("tcp", "tcp6", "udp", "udp6", "unix"):
        with contextlib.suppress(OSError), open(f"/proc/net/{kind}") as file:
            lines += file.read().splitlines()[1:]
    return lines


def facts() -> dict[str, object]:
    """Return what a command could change of this process, from which the next command would inherit it."""
    properties: dict[str, object] = {f"limit {what}": resource.prlimit(0, what) for what in range(16)}
    properties |= {
        "priority": os.getpriority(os.PRIO_PROCESS, 0),
        "processors": os.sched_getaffinity(0),
        "scheduler": os.sched_getscheduler(0),
    }
    for name in ("oom_score_adj", "coredump_filter", "timerslack_ns"):
        with contextlib.suppress(OSError), open(f"/proc/self/{name}") as file:
            properties[name] = file.read()
    return properties


class ContainerState:
    """The state of the container before the first run, and the way back to it."""

    def __init__(self) -> None:
        self.mounts = places()
        self.entries = {point: listed(point) for point in self.mounts}
        self.facts, self.queues, self.sockets = facts(), queues(), sockets()
        # Of the machine's own namespaces nothing may be cleared.
        self.own = os.getpid() == 1 and not any(self.queues.values()) and not self.sockets

    def restore(self) -> str:
        """Remove what a run differs; return what differs still, empty where nothing does."""
        if not self.own:
            return "the container has no namespaces of its own"
        for point in self.mounts:
            entries = self.entries[point]
            for folder in [path for path, (mode, *_) in entries.items() if stat.S_ISDIR(int(str(mode)))]:
                for path in [f"{folder.rstrip('/')}/{name}" for name in os.listdir(folder)]:
                    if path not in entries and os.lstat(path).st_dev == os.lstat(point).st_dev:
                        remove(path)
            if listed(point) != entries:
                return f"{point} is not as it was"
        for kind, calls in (("shm", (LIBC.shmctl, 0)), ("msg", (LIBC.msgctl, 0))):
            for number in queues().get(kind, []):
                calls[0](int(number), calls[1], None)
        for number in queues().get("sem", []):
            LIBC.semctl(int(number), 0, 0)
        for what, differs in (("objects of System V", queues() != self.queues), ("sockets", sockets() != self.sockets),
                           ("mounts", places() != self.mounts), ("properties of its first process", facts() != self.facts)):  # fmt: skip
            if differs:
                return f"{what} are not as they were"
        return ""


# --- runs -------------------------------------------------------------------------------------------------------------


class CommandRun:
    """One command: its process, its pipes, and the limits that are watched."""

    def __init__(self, number: int, spec: dict[str, Any], channel: Channel) -> None:
        self.number, self.spec, self.channel = number, spec, channel
        self.killed = killed_for_memory()
        self.began = self.looked = time.monotonic()
        self.code: int | None = None
        self.given = bytearray()
        there, self.input = os.pipe()
        self.output, answers = os.pipe()
        self.log, shown = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            self.execute(there, answers if spec["pipes"] else shown, shown)
        for descriptor in (there, answers, shown):
            os.close(descriptor)
        for descriptor in (self.input, self.output, self.log):
            os.set_blocking(descriptor, False)
        self.open = {self.output: b"O", self.log: b"L"}

    def execute(self, source: int, answers: int, shown: int) -> None:
        """Become the command."""
        try:
            os.setsid()
            for place, descriptor in enumerate((source, answers, shown)):
                os.dup2(descriptor, place)
            os.closerange(3, 1 << 16)
            os.chdir(self.spec["folder"])
            limit(self.spec["seconds"], self.spec["file_size"])
            command = [sys.executable, *self.spec["command"][1:]]
            os.execve(sys.executable, command, environment(self.spec["environment"]))  # noqa: S606 - what the image is for
        finally:
            os._exit(127)

    def turn(self) -> None:
        """Hand on what has come, wait a moment for more, and look at the limits."""
        poller = select.poll()
        poller.register(0, select.POLLIN)
        if self.channel.unsent:
            poller.register(1, select.POLLOUT)
        if self.given and self.input >= 0:
            poller.register(self.input, select.POLLOUT)
        for descriptor in self.open if len(self.channel.unsent) < WAITING else ():
            poller.register(descriptor, select.POLLIN)
        ready = {descriptor for descriptor, _ in poller.poll(int(TURN * 1000))}
        if 0 in ready:
            self.channel.receive()
        while self.channel.frames:
            kind, number, data = self.channel.frames.pop(0)
            if number == self.number and kind == b"I":
                self.given += data
            elif number == self.number and kind == b"E":
                self.code = 128 + signal.SIGKILL
        self.feed()
        for descriptor in ready & self.open.keys():
            self.hand_on(descriptor)
        self.channel.flush()
        self.collect()
        self.look()

    def feed(self) -> None:
        """Write what the command is to read."""
        try:
            while self.given and self.input >= 0:
                del self.given[: os.write(self.input, memoryview(self.given)[:PART])]
        except BlockingIOError:
            pass
        except OSError:
            self.given.clear()

    def hand_on(self, source: int) -> bool:
        """Hand on a part of what the command wrote; False where there is nothing."""
        try:
            part = os.read(source, PART)
        except BlockingIOError:
            return False
        if part:
            self.channel.send(self.open[source], self.number, part)
        else:
            self.open.pop(source)
            os.close(source)
        return bool(part)

    def collect(self) -> None:
        """Collect processes that have ended, orphans too."""
        while True:
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not ended:
                return
            if ended == self.process and self.code is None:
                code = os.waitstatus_to_exitcode(status)
                self.code = code if code >= 0 else 128 - code
                if code < 0 and killed_for_memory() > self.killed:
                    self.code = MEMORY

    def look(self) -> None:
        """End the run where it is past a limit."""
        if self.code is not None or os.getpid() != 1 or time.monotonic() < self.looked + LOOK:
            return
        (used_bytes, number), self.looked = memory_and_processes(), time.monotonic()
        if used_bytes > self.spec["memory"]:
            self.code = MEMORY
        elif number > self.spec["processes"]:
            self.code = PROCESSES
        elif time.monotonic() - self.began > self.spec["seconds"] + GRACE:
            self.code = LATE

    def finish(self) -> bool:
        """Kill all that is left and hand on its last words; return whether all is gone."""
        end, gone = time.monotonic() + SETTLE, False
        while not gone and time.monotonic() < end:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if os.getpid() == 1:
                    os.kill(-1, signal.SIGKILL)
                else:
                    os.killpg(self.process, signal.SIGKILL)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
                time.sleep(0.001)
            except ChildProcessError:
                gone = True
        for descriptor in list(self.open):
            while descriptor in self.open and self.hand_on(descriptor):
                pass
        for descriptor in (self.input, *self.open):
            os.close(descriptor)
        return gone


def executed(number: int, spec: dict[str, Any], channel: Channel, state: ContainerState) -> None:
    """Run a command to its end, bring the container back to its first state, and tell the caller."""
    mark = os.path.join(spec["folder"], spec["mark"])
    try:
        os.unlink(mark)
    except OSError:  # another folder than the caller's is mounted there
        channel.send(b"X", number, json.dumps({"code": UNSEEN, "left": "its folder is not the caller's"}).encode())
        return
    channel.send(b"S", number)
    run = CommandRun(number, spec, channel)
    while run.code is None:
        run.turn()
    unrestored = "" if run.finish() else "processes did not end"
    try:
        unrestored = unrestored or state.restore()
    except (OSError, ValueError, RecursionError) as error:
        unrestored = f"its state cannot be told: {error}"
    channel.send(b"X", number, json.dumps({"code": run.code, "left": unrestored}).encode())


def main() -> None:
    """Serve the caller; the kernel ends all other processes with this one."""
    with contextlib.suppress(CallerGone, KeyboardInterrupt):
        protect()
        channel, state = Channel(), ContainerState()
        while True:
            poller = select.poll()
            poller.register(0, select.POLLIN)
            if channel.unsent:
                poller.register(1, select.POLLOUT)
            poller.poll()
            channel.flush()
            channel.receive()
            while channel.frames:
                kind, number, data = channel.frames.pop(0)
                if kind == b"R":
                    executed(number, json.loads(data), channel, state)
    os._exit(0)


if __name__ == "__main__":
    main()
