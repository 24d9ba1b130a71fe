"""Texts in CSV files that a spreadsheet would take for formulas: written with an apostrophe in front, read without it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

SIGNS = r"[=+\-@\t\r\n\x00\uff1d\uff0b\uff0d\uff20]"  # with the wide forms, which spreadsheets read alike
FORMULA, ESCAPED = re.compile(f"'*{SIGNS}"), re.compile(f"'+{SIGNS}")
NUMBER = re.compile(r"[+-]?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?")


def no_formula(text: str) -> str:
    """Return a cell's text with an apostrophe in front where a spreadsheet would take it for a formula; numbers stay as they are.

    Source: OWASP, CSV Injection. A text that begins with apostrophes before such a sign gets one more, so that
    `with_formula` gives every text back.
    """
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def with_formula(text: str) -> str:
    """Return the text that `no_formula` was given."""
    return text[1:] if ESCAPED.match(text) and not NUMBER.fullmatch(text[1:]) else text


def no_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame for a CSV file, names of columns and texts without formulas."""
    return _changed(frame, no_formula)


def with_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame that was read of a CSV file as it was before `no_formulas`."""
    return _changed(frame, with_formula)


def _changed(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    def cell(value: Any) -> Any:
        return change(value) if isinstance(value, str) else value

    kinds = ("object", "str", "string", "category")
    texts = [name for name in frame.columns if str(frame[name].dtype).startswith(kinds)]
    changed: pd.DataFrame = frame.assign(**{name: frame[name].astype(object).map(cell) for name in texts})
    return changed.rename(columns=cell)
