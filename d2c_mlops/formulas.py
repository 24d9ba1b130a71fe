"""Texts in CSV files that a spreadsheet would take for formulas: written with an apostrophe in front, read without it."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# Signs with their wide and small forms, which spreadsheets read alike; blanks and invisible marks before them are dropped by some.
SIGNS = r"(?:[\t\r\n\x00]|[\s\u00ad\u180e\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff]*[=+\-@\uff1d\uff0b\uff0d\uff20\ufe62\ufe63\ufe66\ufe6b])"
FORMULA, ESCAPED = re.compile(f"'*{SIGNS}"), re.compile(f"'+{SIGNS}")
SPLITTING = ";\t\r"
NUMBER = re.compile(r" *[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)? *")


def escape_formula(text: str) -> str:
    """Return a cell's text with an apostrophe in front where a spreadsheet would take it for a formula; numbers stay as they are.

    Source: OWASP, CSV Injection. A text that begins with apostrophes before such a sign gets one more, so that
    `unescape_formula` gives every text back.
    """
    return f"'{text}" if FORMULA.match(text) and not NUMBER.fullmatch(text) else text


def unescape_formula(text: str) -> str:
    """Return the text that `escape_formula` was given."""
    return text[1:] if ESCAPED.match(text) and not NUMBER.fullmatch(text[1:]) else text


def escape_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame for a CSV file, names of columns and texts without formulas."""
    return _escape_frame(frame, escape_formula)


def unescape_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame that was read of a CSV file as it was before `escape_formulas`."""
    return _escape_frame(frame, unescape_formula)


def _escape_frame(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    def cell(value: Any) -> Any:
        return change(value) if isinstance(value, str) else value

    numbers = ("int", "uint", "Int", "UInt", "float", "Float", "double", "bool", "datetime", "timedelta")
    texts = [name for name in frame.columns if not str(frame[name].dtype).startswith(numbers)]
    changed: pd.DataFrame = frame.assign(**{name: frame[name].astype(object).map(cell) for name in texts})
    return changed.rename(columns=cell)


def csv_text(frame: pd.DataFrame, header: bool = True) -> str:
    """Return a frame as CSV. All texts are quoted if one contains a sign at which some program ends a cell or a line.

    Spreadsheets of many countries split at semicolons or tabs, so that a formula behind one would begin a cell of its own;
    a carriage return ends a line.
    """
    text = frame.to_csv(header=header, index=False, lineterminator="\n")
    if not any(sign in text for sign in SPLITTING):
        return text
    return frame.to_csv(header=header, index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
