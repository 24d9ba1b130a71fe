"""What a benchmark aims at, beside what it measured: one line per aim, and an exit code for machines."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Aim:
    """One aim of a benchmark, what was measured, and whether it was met."""

    what: str
    measured: str
    met: bool

    def __str__(self) -> str:
        return f"aim: {self.what} | measured: {self.measured} | {'met' if self.met else 'missed'}"


def close(aims: Iterable[Aim]) -> int:
    """Print the aims; return 1 when one was missed and the environment says STRICT=1, else 0."""
    listed = list(aims)
    print()
    for aim in listed:
        print(aim)
    return int(os.environ.get("STRICT") == "1" and not all(aim.met for aim in listed))


def table(rows: list[dict[str, str]], markdown: bool = False) -> str:
    """Return rows of text as a table: aligned columns, or Markdown."""
    names = list(rows[0])
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in names}
    lines = [[name.ljust(widths[name]) for name in names]]
    if markdown:
        lines.append(["-" * widths[name] for name in names])
    lines += [[row[name].ljust(widths[name]) for name in names] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" if markdown else "  ".join(line).rstrip() for line in lines)


def interval(hits: int, count: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Clopper and Pearson)."""
    from scipy import stats

    low, high = stats.binomtest(hits, count).proportion_ci(0.95)
    return float(low), float(high)


def share(hits: int, count: int) -> str:
    """Return a share with its counts and interval as text."""
    low, high = interval(hits, count)
    return f"{hits / count:.3f} ({hits} of {count}; 95 %: {low:.3f} to {high:.3f})"
