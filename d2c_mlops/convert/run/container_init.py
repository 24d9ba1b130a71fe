"""First process of a container for untrusted code: runs one command after another, each from a clean state; standard library only."""

# Runs with the image's own Python. Standard input and output carry frames: a letter, the number of a run (4 bytes) and a length (4 bytes),
# then so many bytes. From the caller: R starts a run (a JSON object: `command`, whose first word is replaced by this interpreter,
# `environment`, `folder`, `mark` (a file that must be seen in it), `pipes` (whether standard output carries answers), `seconds`, `memory`
# and `file_size` (bytes), `processes`), I is standard input of the command, E ends the run. To the caller: S when it has started, O is standard output
# of the command, L what it shows otherwise, X the end: `code` (the command's, 128 + signal, MEMORY, PROCESSES, LATE, UNSEEN) and `left`: what
# could not be brought back to its first state; empty where the next run may follow. When nobody holds the other end of standard
# input any more, this process ends, and the container with it.
# Sources: pid_namespaces(7), poll(2).

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import struct
import sys
import time
from typing import TypedDict

if not __package__:  # run as a program by isolated Python, which looks for no modules of ours
    sys.path.append(os.path.abspath(__file__).rsplit(os.sep, 4)[0])

from d2c_mlops.convert.run.first_process.limits import (
    command_environment,
    killed_for_memory,
    limit_resources,
    memory_and_processes,
    protect_own_process,
)
from d2c_mlops.convert.run.first_process.state import ContainerState

MEMORY, PROCESSES, LATE, UNSEEN = 201, 202, 203, 204
TURN, LOOK = 0.02, 0.1  # seconds between two looks at the command, and at what all processes hold
GRACE = 30.0  # seconds that the caller has to end a run that is late
SETTLE = 5.0  # seconds until all processes of a run must be gone
PART = 1 << 16  # bytes that are read at once
WAITING = 1 << 22  # bytes that wait for the caller before a command is read no further
HEAD = struct.Struct(">cII")


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


class RunSpec(TypedDict):
    """A command and its limits, as the caller sends them."""

    command: list[str]
    environment: dict[str, str]
    folder: str
    mark: str  # a file that is in the folder if it is the caller's
    pipes: bool
    seconds: float
    memory: int
    file_size: int
    processes: int


class CommandRun:
    """One command: its process, its pipes, and the limits that are watched."""

    def __init__(self, number: int, spec: RunSpec, channel: Channel) -> None:
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

    def execute(self, source: int, answers: int, output_descriptor: int) -> None:
        """Become the command."""
        try:
            os.setsid()
            for place, descriptor in enumerate((source, answers, output_descriptor)):
                os.dup2(descriptor, place)
            os.closerange(3, 1 << 16)
            os.chdir(self.spec["folder"])
            limit_resources(self.spec["seconds"], self.spec["file_size"])
            command = [sys.executable, *self.spec["command"][1:]]
            os.execve(sys.executable, command, command_environment(self.spec["environment"]))  # noqa: S606 - what the image is for
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
            self.forward_output(descriptor)
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

    def forward_output(self, source: int) -> bool:
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
            while descriptor in self.open and self.forward_output(descriptor):
                pass
        for descriptor in (self.input, *self.open):
            os.close(descriptor)
        return gone


def run_to_end(number: int, spec: RunSpec, channel: Channel, state: ContainerState) -> None:
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
        unrestored = f"its state cannot be determined: {error}"
    channel.send(b"X", number, json.dumps({"code": run.code, "left": unrestored}).encode())


def main() -> None:
    """Serve the caller; the kernel ends all other processes with this one."""
    with contextlib.suppress(CallerGone, KeyboardInterrupt):
        protect_own_process()
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
                    run_to_end(number, json.loads(data), channel, state)
    os._exit(0)


if __name__ == "__main__":
    main()
