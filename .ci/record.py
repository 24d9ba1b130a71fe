"""Record a command in a terminal as an animated SVG: `make pictures`.

    python .ci/record.py OUT.svg COMMAND [ARGUMENT …]

The command runs in a pseudo-terminal. What it writes, and when, becomes the picture: nothing is edited, and time is scaled to
fit SECONDS. The picture plays once and ends with the whole screen, which is also what a viewer without animation shows.
"""

from __future__ import annotations

import os
import pty
import select
import shlex
import struct
import sys
import time
from dataclasses import dataclass
from fcntl import ioctl
from pathlib import Path
from termios import TIOCSWINSZ
from xml.sax.saxutils import escape

import pyte

COLUMNS, LINES = 112, 60
SECONDS = 24.0  # that the animation lasts
PAUSE = 0.25  # s of the animation between two states of the screen at least
FONT, WIDTH, HEIGHT, MARGIN, BAR = 13, 7.8, 18, 16, 34  # pixels
BACKGROUND, TEXT = "#0d1117", "#d7dde4"
COLOURS = {
    "black": "#6e7681",
    "red": "#ff7b72",
    "green": "#7ee787",
    "brown": "#e3b341",
    "blue": "#79c0ff",
    "magenta": "#d2a8ff",
    "cyan": "#76e3ea",
    "white": "#f0f6fc",
    "brightblack": "#8b949e",
    "brightred": "#ff7b72",
    "brightgreen": "#7ee787",
}
Run = tuple[int, str, str, bool]  # column, text, colour, bold
Row = tuple[Run, ...]


@dataclass(frozen=True)
class Span:
    """A row of the screen as it was from one moment to another; to the end where `end` is None."""

    line: int
    row: Row
    begin: float
    end: float | None


def record(command: list[str]) -> list[tuple[float, bytes]]:
    """Run a command in a pseudo-terminal; return what it wrote, with the seconds since its start."""
    child, terminal = pty.fork()
    if not child:
        os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS), LINES=str(LINES))
        os.execvp(command[0], command)  # noqa: S606
    ioctl(terminal, TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    start, events = time.monotonic(), []
    while True:
        select.select([terminal], [], [])
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            data = b""
        if not data:
            break
        events.append((time.monotonic() - start, data))
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        sys.exit(f"{shlex.join(command)} ended with exit code {status}; nothing was written")
    return events


def rows(screen: pyte.Screen) -> dict[int, Row]:
    """Return the rows of a screen that are not empty, as runs of characters of one style."""
    found: dict[int, Row] = {}
    for line in range(screen.lines):
        runs: list[Run] = []
        for column in range(screen.columns):
            cell = screen.buffer[line][column]
            style = (_colour(cell.fg), bool(cell.bold))
            if runs and runs[-1][2:] == style:
                runs[-1] = (runs[-1][0], runs[-1][1] + cell.data, *style)
            else:
                runs.append((column, cell.data, *style))
        kept = tuple((column, text.rstrip(), colour, bold) for column, text, colour, bold in runs if text.strip())
        if kept:
            found[line] = kept
    return found


def _colour(name: str) -> str:
    if name == "default":
        return TEXT
    return COLOURS.get(name, f"#{name}" if len(name) == 6 else TEXT)


def spans(events: list[tuple[float, bytes]], prompt: str) -> list[Span]:
    """Return what each row of the screen showed when, in seconds of the animation."""
    screen = pyte.Screen(COLUMNS, LINES)
    stream = pyte.ByteStream(screen)
    stream.feed(f"\x1b[1;32m$\x1b[0m {prompt}\r\n".encode())
    scale = SECONDS / events[-1][0]
    states = [(0.0, rows(screen))]
    for moment, data in events:
        stream.feed(data)
        at = 0.6 + moment * scale
        if at - states[-1][0] < PAUSE:
            at = states.pop()[0] if len(states) > 1 else at
        states.append((at, rows(screen)))
    finished: list[Span] = []
    shown: dict[int, tuple[Row, float]] = {}
    for at, state in states:
        for line in shown.keys() | state.keys():
            row, begin = shown.get(line, (None, 0.0))
            if row == state.get(line):
                continue
            if row is not None:
                finished.append(Span(line, row, begin, at))
                del shown[line]
            if line in state:
                shown[line] = (state[line], at)
    return finished + [Span(line, row, begin, None) for line, (row, begin) in shown.items()]


def svg(parts: list[Span], title: str) -> str:
    """Return the animation."""
    lines = 1 + max(part.line for part in parts)
    width, height = round(COLUMNS * WIDTH + 2 * MARGIN), BAR + lines * HEIGHT + MARGIN
    style = (
        "text{font:13px ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace;white-space:pre}"
        "@keyframes later{from,to{visibility:hidden}}@keyframes now{from,to{visibility:visible}}"
        ".k{animation-name:later}.t{visibility:hidden;animation-name:now}"
        "@media(prefers-reduced-motion:reduce){.k,.t{animation:none!important}}"
    )
    body = []
    for part in sorted(parts, key=lambda part: (part.begin, part.line)):
        y = BAR + (part.line + 1) * HEIGHT - 4
        texts = "".join(_text(run, y) for run in part.row)
        if part.end is None:  # hidden until it comes, then as everything is: visible
            body.append(f'<g class="k" style="animation-duration:{part.begin:.2f}s">{texts}</g>')
        else:
            times = f"animation-duration:{part.end - part.begin:.2f}s;animation-delay:{part.begin:.2f}s"
            body.append(f'<g class="t" style="{times}">{texts}</g>')
    dots = "".join(
        f'<circle cx="{20 + 20 * i}" cy="17" r="6" fill="{c}"/>'
        for i, c in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">'
        f"<title>{escape(title)}</title><style>{style}</style>"
        f'<rect width="{width}" height="{height}" rx="8" fill="{BACKGROUND}"/>{dots}\n' + "\n".join(body) + "</svg>\n"
    )


def _text(run: Run, y: int) -> str:
    column, text, colour, bold = run
    weight = ' font-weight="bold"' if bold else ""
    lead = len(text) - len(text.lstrip())
    text = text.strip()
    x = MARGIN + (column + lead) * WIDTH
    length = f' textLength="{len(text) * WIDTH:.1f}" lengthAdjust="spacingAndGlyphs"'
    return f'<text x="{x:.1f}" y="{y}" fill="{colour}"{weight}{length}>{escape(text)}</text>'


def main() -> None:
    """Record, and write the picture."""
    out, command = Path(sys.argv[1]), sys.argv[2:]
    shown = shlex.join([Path(command[0]).name, *command[1:]])
    events = record(command)
    parts = spans(events, shown)
    picture = svg(parts, f"Recording of `{shown}` in a terminal, {events[-1][0]:.0f} seconds shown in {SECONDS:.0f}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(picture, encoding="utf-8")
    print(f"{out}: {len(parts)} rows, {len(picture.encode()) // 1000} kB, {events[-1][0]:.0f} s in {SECONDS:.0f}")


if __name__ == "__main__":
    main()
