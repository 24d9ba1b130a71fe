"""What cells print and show: without secrets, neighbouring prints as one, progress bars as they ended, within bounds."""

from __future__ import annotations

import re
from typing import Any

from d2c_mlops.runs.secrets.redaction import Redaction

HEAD = 2**19  # characters of the beginning and of the end of what a cell prints; what is between them is left out
SHOWN = 2**24  # characters of one picture or table
LIVE = 2**16  # characters that are held back: a carriage return may replace them, a secret may go on
ROWS = 64  # lines that stay within reach of a terminal's cursor
CONTROL = re.compile(r"((?<!\r)\r+\n|[\r\n\b]|\x1b\[[0-9;?]*[A-Za-ln-z])")  # without colours (m)
SURROGATES = re.compile(r"[\ud800-\udfff]")  # halves of characters, which UTF-8 cannot hold


class PrintedStream:
    """The text of one output, as a terminal shows it at the end: a carriage return starts the line anew."""

    def __init__(self, redaction: Redaction) -> None:
        self.redaction = redaction
        self.head: list[str] = []
        self.head_size = 0
        self.tail = ""
        self.left_out = 0
        self.rows = [""]
        self.row = 0
        self.replace = False  # the next text takes the place of the row
        self.size = 0

    def feed(self, text: str) -> None:
        """Add what was printed."""
        self.size += len(text)
        if not self.replace and self.row == len(self.rows) - 1 and not CONTROL.search(text.replace("\n", "")):
            first, *more = text.split("\n")
            self.rows[-1] += first
            self.rows += more
            self.row = len(self.rows) - 1
        else:
            for part in CONTROL.split(text):
                self._take(part)
        if self.size > 2 * LIVE:
            self._settle()

    @property
    def unfinished(self) -> bool:
        """Whether the last line may still be replaced, as a progress bar's."""
        return self.replace or self.rows[-1] != ""

    @property
    def text(self) -> str:
        """The text, with how much was left out of its middle."""
        live = self.redaction.clean("\n".join(self.rows))
        head, tail = "".join(self.head), self.tail + live
        room = HEAD - self.head_size
        head, tail = head + tail[:room], tail[room:]
        left = self.left_out + max(0, len(tail) - HEAD)
        return f"{head}\n[{left:,} characters left out]\n{tail[-HEAD:]}" if left else head + tail

    def _take(self, part: str) -> None:
        if part.endswith("\n") and CONTROL.fullmatch(part):
            self.replace = False
            self.row += 1
            if self.row == len(self.rows):
                self.rows.append("")
        elif part == "\r":
            self.replace = True
        elif part == "\b":
            self.rows[self.row] = self.rows[self.row][:-1]
        elif CONTROL.fullmatch(part):
            self._move(part)
        elif part:
            fresh = "" if part.isspace() else part  # blanks wipe a bar off the screen
            self.rows[self.row] = fresh if self.replace else self.rows[self.row] + part
            self.replace = False

    def _move(self, sequence: str) -> None:
        """Follow the cursor upwards and downwards, and lines that are erased."""
        count = int(sequence[2:-1]) if sequence[2:-1].isdigit() else 1
        if sequence[-1] == "A":
            self.row = max(0, self.row - count)
        elif sequence[-1] == "B":
            self.row = min(len(self.rows) - 1, self.row + count)
        elif sequence[-1] == "K" and (self.replace or sequence[2:-1] == "2"):
            self.rows[self.row] = ""

    def _settle(self) -> None:
        """Give up the lines that are out of the cursor's reach, without secrets."""
        cut = max(0, len(self.rows) - ROWS)
        lines = self.redaction.clean("\n".join(self.rows)).split("\n")
        if len(lines) != len(self.rows):  # a secret of several lines was taken out
            cut = max(0, len(lines) - ROWS)
            self.row = len(lines) - 1
        self.row = max(0, self.row - cut)
        settled, self.rows = "".join(f"{line}\n" for line in lines[:cut]), lines[cut:]
        if self.row == len(self.rows) - 1 and len(self.rows[-1]) > LIVE:  # one line without an end
            settled += "\n".join([*self.rows[:-1], self.rows[-1][:-LIVE]])
            self.rows, self.row = [self.rows[-1][-LIVE:]], 0
        self.size = sum(map(len, self.rows))
        room = HEAD - self.head_size
        if room > 0 and settled:
            self.head.append(settled[:room])
            self.head_size += len(self.head[-1])
            settled = settled[room:]
        self.tail += settled
        if len(self.tail) > 2 * HEAD:
            self.left_out += len(self.tail) - HEAD
            self.tail = self.tail[-HEAD:]


class Printed:
    """What the cell that runs has printed so far."""

    def __init__(self, redaction: Redaction) -> None:
        self.redaction = redaction
        self.streams: dict[
            int, tuple[Any, PrintedStream]
        ] = {}  # by the identity of the output, which is kept alive here

    def content(self, content: dict[str, Any]) -> dict[str, Any]:
        """Return the parts of a kernel's message that are shown, without secrets and without what is far too large."""
        names = {"text", "data", "ename", "evalue", "traceback"} & content.keys()
        clean: dict[str, Any] = {name: encodable(self.redaction.clean(content[name])) for name in names}
        if isinstance(clean.get("data"), dict):
            clean["data"] = {kind: _bounded(value, kind) for kind, value in clean["data"].items()}
        return clean

    def merged(self, outs: list[Any], out: Any) -> Any:
        """Join a print with the one before it in the cell's outputs; `finish` puts the text there."""
        if out is None or out.output_type != "stream" or len(outs) < 1 or outs[-1] is not out:
            return out
        held = self._before(outs, out)
        if held is None:
            held = out, PrintedStream(self.redaction)
            self.streams[id(out)] = held
        else:
            outs.pop()
        held[1].feed(out.text)
        return held[0]

    def finish(self, cell: Any) -> None:
        """Put the texts into the outputs of a cell that has ended."""
        for out in cell.get("outputs", ()):
            if id(out) in self.streams:
                out.text = self.streams[id(out)][1].text
        self.streams.clear()

    def _before(self, outs: list[Any], out: Any) -> tuple[Any, PrintedStream] | None:
        """Return the output that a print goes on with: the one before it, or the progress bar that it renews."""
        if len(outs) > 1 and (held := self.streams.get(id(outs[-2]))) and held[0].name == out.name:
            return held
        if out.text.startswith("\r"):
            for earlier in reversed(outs[:-1]):
                held = self.streams.get(id(earlier))
                if held and held[0].name == out.name:
                    return held if held[1].unfinished else None
        return None


def encodable(value: Any) -> Any:
    """Return a text or JSON values in which everything can be written as UTF-8."""
    if isinstance(value, str):
        return SURROGATES.sub("\ufffd", value) if not value.isascii() else value
    if isinstance(value, dict):
        return {key: encodable(item) for key, item in value.items()}
    return [encodable(item) for item in value] if isinstance(value, list) else value


def _bounded(value: Any, kind: str) -> Any:
    if not isinstance(value, str) or len(value) <= SHOWN:
        return value
    if kind == "text/plain":
        return f"{value[:HEAD]}\n[{len(value) - 2 * HEAD:,} characters left out]\n{value[-HEAD:]}"
    return f"[{len(value):,} characters of {kind} left out]" if kind.startswith("text/") else ""
