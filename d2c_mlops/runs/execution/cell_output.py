"""Output of cells: secrets removed, adjacent prints merged, progress bars in their final state, size limited."""

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
    """The text of one output as a terminal finally shows it: a carriage return restarts the line."""

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
        """Add printed text."""
        self.size += len(text)
        if not self.replace and self.row == len(self.rows) - 1 and not CONTROL.search(text.replace("\n", "")):
            first, *lines = text.split("\n")
            self.rows[-1] += first
            self.rows += lines
            self.row = len(self.rows) - 1
        else:
            for part in CONTROL.split(text):
                self._print_text(part)
        if self.size > 2 * LIVE:
            self._release_lines()

    @property
    def unfinished(self) -> bool:
        """Whether the last line may still be replaced, as in a progress bar."""
        return self.replace or self.rows[-1] != ""

    @property
    def text(self) -> str:
        """The text; if it is too long, the middle is replaced by the number of removed characters."""
        live = self.redaction.remove_secrets("\n".join(self.rows))
        head, tail = "".join(self.head), self.tail + live
        room = HEAD - self.head_size
        head, tail = head + tail[:room], tail[room:]
        omitted = self.left_out + max(0, len(tail) - HEAD)
        return f"{head}\n[{omitted:,} characters left out]\n{tail[-HEAD:]}" if omitted else head + tail

    def _print_text(self, part: str) -> None:
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
            self._apply_cursor(part)
        elif part:
            fresh = "" if part.isspace() else part  # blanks wipe a bar off the screen
            self.rows[self.row] = fresh if self.replace else self.rows[self.row] + part
            self.replace = False

    def _apply_cursor(self, sequence: str) -> None:
        """Apply cursor movements up and down, and erased lines."""
        digits = sequence[2:-1]
        count = int(digits[:6]) if digits.isdecimal() and digits.isascii() else 1  # no screen has a million lines
        if sequence[-1] == "A":
            self.row = max(0, self.row - count)
        elif sequence[-1] == "B":
            self.row = min(len(self.rows) - 1, self.row + count)
        elif sequence[-1] == "K" and (self.replace or sequence[2:-1] == "2"):
            self.rows[self.row] = ""

    def _release_lines(self) -> None:
        """Release the lines that the cursor can no longer reach, with secrets removed."""
        cut = max(0, len(self.rows) - ROWS)
        lines = self.redaction.remove_secrets("\n".join(self.rows)).split("\n")
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


class CellOutput:
    """The output of the running cell so far."""

    def __init__(self, redaction: Redaction) -> None:
        self.redaction = redaction
        self.streams: dict[
            int, tuple[Any, PrintedStream]
        ] = {}  # by the identity of the output, which is kept alive here

    def content(self, content: dict[str, Any]) -> dict[str, Any]:
        """Return the displayed parts of a kernel's message, without secrets and oversized parts."""
        names = {"text", "data", "ename", "evalue", "traceback"} & content.keys()
        clean: dict[str, Any] = {name: utf8_safe(self.redaction.remove_secrets(content[name])) for name in names}
        if isinstance(clean.get("data"), dict):
            clean["data"] = {kind: _limit_size(value, kind) for kind, value in clean["data"].items()}
        return clean

    def merged(self, cell_outputs: list[Any], new_output: Any) -> Any:
        """Merge a print with the previous one in the cell's outputs; `finish` sets the text."""
        if (
            new_output is None
            or new_output.output_type != "stream"
            or len(cell_outputs) < 1
            or cell_outputs[-1] is not new_output
        ):
            return new_output
        stream = self._continued_output(cell_outputs, new_output)
        if stream is None:
            stream = new_output, PrintedStream(self.redaction)
            self.streams[id(new_output)] = stream
        else:
            cell_outputs.pop()
        stream[1].feed(new_output.text)
        return stream[0]

    def finish(self, cell: Any) -> None:
        """Set the texts of the outputs of a finished cell."""
        for out in cell.get("outputs", ()):
            if id(out) in self.streams:
                out.text = self.streams[id(out)][1].text
        self.streams.clear()

    def _continued_output(self, outs: list[Any], out: Any) -> tuple[Any, PrintedStream] | None:
        """Return the output that a print continues: the previous one, or the progress bar that it updates."""
        if len(outs) > 1 and (stream := self.streams.get(id(outs[-2]))) and stream[0].name == out.name:
            return stream
        if out.text.startswith("\r"):
            for earlier in reversed(outs[:-1]):
                stream = self.streams.get(id(earlier))
                if stream and stream[0].name == out.name:
                    return stream if stream[1].unfinished else None
        return None


def utf8_safe(value: Any) -> Any:
    """Return a text or JSON values in which everything can be written as UTF-8."""
    if isinstance(value, str):
        return SURROGATES.sub("\ufffd", value) if not value.isascii() else value
    if isinstance(value, dict):
        return {key: utf8_safe(item) for key, item in value.items()}
    return [utf8_safe(item) for item in value] if isinstance(value, list) else value


def _limit_size(value: Any, kind: str) -> Any:
    if not isinstance(value, str) or len(value) <= SHOWN:
        return value
    if kind == "text/plain":
        return f"{value[:HEAD]}\n[{len(value) - 2 * HEAD:,} characters left out]\n{value[-HEAD:]}"
    return f"[{len(value):,} characters of {kind} left out]" if kind.startswith("text/") else ""
