"""Numbers with their nouns in messages."""

from __future__ import annotations


def number_of(count: float, noun: str) -> str:
    """Return a number with its noun in the singular or plural: `1 day`, `2.5 days`, `1,200 rows`."""
    number = f"{count:,.3g}" if abs(count) < 100 and count != int(count) else f"{count:,.0f}"
    return f"{number} {noun}" if number == "1" else f"{number} {noun}s"
