"""A Python session in an isolated child: run cells, read values, and check that the answers come from our own code."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Required, TypedDict, cast

from d2c_mlops.convert.run.child_control import KEY_SIZE, MAC_SIZE
from d2c_mlops.convert.run.containers import PREFIX
from d2c_mlops.convert.run.isolated_run import LOOK, Child, ChildEnded, ChildLimits, Stopped
from d2c_mlops.convert.run.isolation import TRUSTED

CHILD_SOURCE = "from d2c_mlops.convert.run.child_process import main; main()"


class CodePlace(TypedDict):
    """A place in a cell: lines from 1, columns in bytes."""

    cell: int
    line: int
    end_line: int
    column: int | None
    end_column: int | None
    function: str


class CellError(TypedDict):
    """The facts of an exception that a cell raised, as the child sends them."""

    kind: str
    bases: list[str]
    message: str
    arguments: list[int | str]
    name: str  # the attribute or module that was not there
    holder: str  # class of the object without that attribute
    filename: str
    frames: list[CodePlace]
    library: list[str]  # innermost functions of libraries, as file:function
    strings: dict[str, str]
    kinds: dict[str, str]
    line: int | None


class CellAnswer(TypedDict):
    """The child's answer after a cell; `count` is the number in its prompt."""

    count: int
    seconds: float
    outputs: list[dict[str, object]]
    error: CellError | None
    chained: list[CodePlace]


Form = TypedDict(
    "Form",
    {
        "t": Required[str],  # the kind, on which the other keys depend
        "v": float | str | None,  # of a number or a text
        "why": str,  # of a value that is not compared
        "key": int,  # place of an array in the list of all arrays
        "class": str,  # of a fitted object
        "names": Sequence[str | None],
        "parts": list["Form"],
    },
    total=False,
)  # as `capture` writes a value; a call, because `class` is a keyword
ArrayLine = tuple[str, list[int], int]  # of an array: dtype, shape, bytes


class SnapshotHead(TypedDict):
    """The first line of a snapshot; the bytes of the arrays follow it in their order."""

    forms: dict[str, Form]
    arrays: list[ArrayLine]
    replaced: list[str]  # functions of Python and its libraries that were replaced


@dataclass(frozen=True)
class CellRun:
    """The result of one cell: nbformat 4 outputs, and the facts of its error."""

    index: int
    seconds: float
    outputs: tuple[dict[str, object], ...]
    error: CellError | None
    chained: tuple[CodePlace, ...] = ()
    count: int = 0


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
        trusted = limits.isolation == TRUSTED
        parent = os.getpid() if trusted else 0
        contained = limits.isolation.startswith(PREFIX)  # engines hand on no other descriptors than the standard ones
        pipe = (0, 1) if contained else (read_there, write_there)
        numbers = [str(number) for number in (*pipe, int(plots), parent, int(proof))]
        try:
            super().__init__(
                [sys.executable, "-P", "-c", CHILD_SOURCE, *numbers, *(str(folder) for folder in extra)],
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
        """Run one cell; raises Stopped if the child ended before it answered."""
        answer = cast("CellAnswer", self.ask({"do": "cell", "index": index, "source": source}))
        return CellRun(
            index,
            float(answer["seconds"]),
            tuple(answer["outputs"]),
            answer["error"],
            tuple(answer["chained"]),
            int(answer["count"]),
        )

    def kinds(self, expressions: Sequence[str]) -> dict[str, str]:
        """Return the classes of the values of expressions in the child; empty if they have no value."""
        return cast("dict[str, str]", self.ask({"do": "kinds", "names": list(expressions)}))

    def snapshot(self, names: Sequence[str]) -> bytes:
        """Return the values of names as the child reads them from memory: a line of JSON, then the bytes of all arrays."""
        return self.exchange(b"snapshot " + ",".join(names).encode("utf-8"))

    def ask(self, request: Mapping[str, object]) -> dict[str, object]:
        """Send one request and wait for its answer, watching the limits."""
        try:
            answer = json.loads(self.exchange(json.dumps(request).encode("ascii")))
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise Stopped(self.end("failed"))
        return answer

    def send(self, line: bytes) -> None:
        """Write a line to the child; an ended child is detected when its answer is read."""
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
            ready, _, _ = select.select([self.source], [], [], LOOK)
            if ready:
                self.read_available()
            if not ready or len(self.rest) < size:
                self.look()
        part = bytes(self.rest[:size])
        del self.rest[:size]
        return part

    def read_available(self) -> None:
        """Read available data; at the end of the pipe wait briefly for the process to end."""
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

    def close_stdin(self) -> None:
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
