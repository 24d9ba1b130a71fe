"""Synthetic records, generated from a contract for checks, load tests and documentation."""

from __future__ import annotations

import logging
import re
from functools import cache
from typing import Any

from d2c_mlops.models.core.contract import Contract, Field

try:  # private modules of the standard library, tested with Python 3.11 to 3.13
    from re import _constants as codes  # type: ignore[attr-defined]
    from re import _parser as patterns  # type: ignore[attr-defined]
except ImportError:
    codes = patterns = None

LOG = logging.getLogger("d2c.service")
KEY = "d2c-probe"
LARGEST = 2**53 - 1  # the largest integer that JSON parsers of all languages represent exactly


def synthetic_record(contract: Contract) -> dict[str, Any]:
    """Return a valid input record as JSON values, with a synthetic key."""
    return {
        field.name: synthetic_key(field) if field.name == contract.key else synthetic_value(field)
        for field in contract.input_fields
    }


def synthetic_key(field: Field) -> Any:
    """Return a synthetic key that no real record has, as far as the contract allows one."""
    if field.choices:
        return field.choices[0]
    if field.kind == "string":
        return text_matching(field.pattern, field) if field.pattern else KEY[: field.max_length]
    if field.kind in ("integer", "number"):
        high = field.limits[1]
        most = LARGEST if high is None else min(high, LARGEST)
        return int(most) if field.kind == "integer" else float(most)
    return field.sample()


def synthetic_value(field: Field) -> Any:
    """Return a valid value of a field: its example unless personal, else one generated from its limits."""
    if field.example is not None and not field.personal:
        return field.example
    if field.kind == "string" and not field.choices:
        return text_matching(field.pattern, field) if field.pattern else "text"[: field.max_length]
    return Field(field.name, field.kind, "", ge=field.ge, le=field.le, choices=field.choices).sample()


def text_matching(pattern: str, field: Field) -> Any:
    """Return a text that matches the pattern, with the shortest choice at each place; the field's sample where that fails."""
    if patterns is None:
        _warn_no_pattern_parser()
        return field.sample()
    try:
        text = "".join(_candidate_texts(patterns.parse(pattern)))
    except (KeyError, ValueError, TypeError, RecursionError, re.error):
        return field.sample()
    fits = re.fullmatch(pattern, text) and (field.max_length is None or len(text) <= field.max_length)
    return text if fits else field.sample()


@cache
def _warn_no_pattern_parser() -> None:
    LOG.warning("re._parser is missing in this Python: keys of probes do not follow the pattern of their field")


def _candidate_texts(parsed: Any) -> list[str]:
    return [_pattern_text(kind, value) for kind, value in parsed]


def _pattern_text(kind: Any, value: Any) -> str:
    """Return a text for one part of a parsed pattern. Raises KeyError for an unknown part."""
    if kind is codes.LITERAL:
        return chr(value)
    if kind in (codes.ANY, codes.NOT_LITERAL):
        return "x" if value != ord("x") else "y"
    if kind is codes.IN:
        return _character_of(value)
    if kind in (codes.MAX_REPEAT, codes.MIN_REPEAT):
        least, most, inner = value
        return "".join(_candidate_texts(inner)) * int(max(least, min(1, most)))
    if kind is codes.SUBPATTERN:
        return "".join(_candidate_texts(value[-1]))
    if kind is codes.BRANCH:
        return "".join(_candidate_texts(value[1][0]))
    if kind is codes.AT:
        return ""
    raise KeyError(kind)


def _character_of(value: Any) -> str:
    classes = {codes.CATEGORY_DIGIT: "0", codes.CATEGORY_WORD: "x", codes.CATEGORY_SPACE: " "}
    kind, argument = value[0]
    if kind is codes.NEGATE:
        candidates = "x0-_ .A"
        negated = re.compile(f"[{''.join(_escape_character(part) for part in value[1:])}]")
        return next(character for character in candidates if not negated.fullmatch(character))
    if kind is codes.LITERAL:
        return chr(argument)
    if kind is codes.RANGE:
        return chr(argument[0])
    return str(classes[argument])


def _escape_character(part: Any) -> str:
    kind, argument = part
    if kind is codes.LITERAL:
        return re.escape(chr(argument))
    if kind is codes.RANGE:
        return f"{re.escape(chr(argument[0]))}-{re.escape(chr(argument[1]))}"
    return str({codes.CATEGORY_DIGIT: r"\d", codes.CATEGORY_WORD: r"\w", codes.CATEGORY_SPACE: r"\s"}[argument])
