"""A person to be forgotten: finds identifiers in cells, JSON values and texts, and replaces them."""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import quote, quote_plus

from ..suppression import (
    ERASE,
    PERSON,
    PERSONAL,
    PSEUDONYMISE,
    Forgotten,
    canonical_id,
    canonical_identifier,
    identifier_pseudonym,
    keyed_hash,
)

MARKER = "[erased]"  # replacement of an identifier
LONG_NUMBER = 6  # minimum number of digits of a number in running text that counts as an identifier
REMOVED: Any = object()  # result for a value that is removed completely
ESCAPE = re.compile(r"\\u[0-9a-f]{4}|%[0-9A-F]{2}")  # of JSON and of URLs
BEFORE, AFTER = r"(?<!\w)(?<!\w[-.@+])", r"(?!\w)(?![-.@+]\w)"  # a part of a longer identifier does not count


@dataclass(frozen=True)
class Person:
    """A person's identifiers, and whether the person is erased or pseudonymised."""

    names: frozenset[str]  # canonical
    key: bytes
    erased: bool
    datasets: frozenset[str] = field(
        default_factory=frozenset
    )  # datasets in which the identifiers are valid; empty: all
    spellings: frozenset[str] = field(default_factory=frozenset)  # the identifiers as written in the data

    @classmethod
    def of(cls, names: Collection[str], key: bytes, erased: bool, datasets: Iterable[str] = ()) -> Person:
        """Return the person with these identifiers; for erasure, earlier pseudonyms are searched, too."""
        canonical_names = {canonical_identifier(name) for name in names}
        every = canonical_names | ({identifier_pseudonym(key, n) for n in canonical_names} if erased else set())
        return cls(frozenset(every), key, erased, frozenset(datasets), frozenset(names))

    def with_names(self, names: Collection[str]) -> Person:
        """Return the person with further identifiers."""
        further = Person.of(names, self.key, self.erased)
        every = self.names | further.names
        return Person(every, self.key, self.erased, self.datasets, self.spellings | further.spellings)

    @cached_property
    def suppression(self) -> Forgotten:
        """The suppression of the person's rows in canonical tables."""
        mode = ERASE if self.erased else PSEUDONYMISE
        return Forgotten(self.key, {keyed_hash(self.key, name): mode for name in self.names})

    def is_value(self, value: Any, name: str = "") -> bool:
        """Return whether a cell or a JSON value is an identifier of the person."""
        return canonical_id(value, name) in self.names

    def replacement(self, value: Any) -> Any:
        """Return the replacement of an identifier; a number becomes another number, or None."""
        if not isinstance(value, str):
            return None if self.erased else int(keyed_hash(self.key, f"number {value}")[:12], 16)
        return MARKER if self.erased else identifier_pseudonym(self.key, value)

    @cached_property
    def text_forms(self) -> dict[str, str]:
        """The identifiers by their spelling in running text, JSON, HTML and URLs; without short numbers.

        Letters with accents may be composed or not, and stand in Windows-1252 in a file that is decoded as UTF-8.
        """
        forms: dict[str, str] = {}
        for name in sorted(self.names, key=len, reverse=True):
            if name.isdigit() and len(name) < LONG_NUMBER:
                continue
            for spelling in {name, unicodedata.normalize("NFD", name)}:
                escaped, address = json.dumps(spelling)[1:-1], quote(spelling, safe="")
                texts = {
                    spelling,
                    escaped,
                    ESCAPE.sub(lambda match: match[0].upper().replace("U", "u"), escaped),
                    html.escape(spelling),
                    html.escape(spelling, quote=False),
                    address,
                    ESCAPE.sub(lambda match: match[0].lower(), address),
                    quote_plus(spelling),
                    spelling.encode("cp1252", "replace").decode("utf-8", "surrogateescape"),
                }
                forms |= {
                    text.casefold() if "@" in name else text: name for text in texts if "?" not in text or "?" in name
                }
        return forms

    @cached_property
    def pattern(self) -> re.Pattern[str] | None:
        """The pattern that finds identifiers in running text; None if there is nothing to search."""
        forms = [
            f"(?i:{re.escape(form)})" if "@" in name else re.escape(form) for form, name in self.text_forms.items()
        ]
        numbers = sorted(re.escape(name) for name in self.names if name.isdigit() and len(name) < LONG_NUMBER)
        parts = [f"{BEFORE}(?:{'|'.join(forms)}){AFTER}"] if forms else []
        if numbers:  # a short number only counts after the name of an identifier
            words = PERSON.pattern.replace("|^key$|^subject$", "")
            label = rf"(?i:(?<![a-z])(?:{words})(?:[ _-]?(?:id|no|key|number))?)"
            parts.append(rf"{label}[\"'\\]{{0,4}}\s*[:=#]?\s*[\"'\\]{{0,4}}(?P<number>{'|'.join(numbers)}){AFTER}")
        return re.compile("|".join(parts)) if parts else None

    def is_named_in(self, text: str) -> bool:
        """Return whether running text names the person."""
        return self.pattern is not None and self.pattern.search(text) is not None

    def redact_text(self, text: str) -> str:
        """Return running text without the person's identifiers."""
        return self.pattern.sub(self._replace_match, text) if self.pattern else text

    def mask_text(self, text: str) -> str:
        """Return running text of the same length in bytes without the person's identifiers."""
        return self.pattern.sub(lambda m: self._replace_match(m, masked=True), text) if self.pattern else text

    def _replace_match(self, match: re.Match[str], masked: bool = False) -> str:
        number = match.groupdict().get("number")
        identifier_ = number or self.text_forms.get(match[0]) or self.text_forms.get(match[0].casefold()) or match[0]
        replacement = (
            "*" * len((number or match[0]).encode("utf-8", "surrogateescape"))
            if masked
            else str(self.replacement(identifier_))
        )
        return match[0][: len(match[0]) - len(number)] + replacement if number else replacement

    def redact_cell(self, value: Any, name: str = "") -> Any:
        """Return a cell without the person: identifiers are replaced, also in JSON and running text."""
        if self.is_value(value, name):
            return self.replacement(value)
        if not isinstance(value, str) or canonical_identifier(value).isdigit():  # a number of something else
            return value
        if value[:1] in ("{", "["):
            try:
                read = json.loads(value)
            except ValueError:
                return self.redact_text(value)
            redacted = self.redact_json(read, name)
            return value if redacted == read else json.dumps(redacted, ensure_ascii=False)
        return self.redact_text(value)

    def redact_json(self, value: Any, name: str = "") -> Any:
        """Return a JSON value in which identifiers of the person are replaced, also in names of members."""
        if isinstance(value, dict):
            return {self.redact_cell(k, name): self.redact_json(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [self.redact_json(item, name) for item in value]
        return self.redact_cell(value, name)

    def remove_from_json(self, value: Any, name: str = "") -> Any:
        """Return a JSON value without the records about the person; REMOVED if the value itself is such a record.

        A record is an object with a member, at any depth outside of lists, that identifies the person. Lists of plain values keep
        their length; for pseudonymisation identifiers are replaced everywhere.
        """
        if not self.erased:
            return self._mask_personal_texts(self.redact_json(value, name), value)
        if isinstance(value, dict):
            if value.get("kind") == "predictions" and isinstance(value.get("inputs"), list):
                return self._remove_from_log_line(value)
            members = {}
            for member, inner in value.items():
                if self.is_value(inner, member):
                    return REMOVED
                if self.is_value(member, name):
                    continue
                item = self.remove_from_json(inner, member)
                if item is REMOVED:
                    return REMOVED
                members[member] = item
            return members
        if isinstance(value, list):
            item = [(item, self.remove_from_json(item, name)) for item in value]
            return [self.redact_json(old, name) if new is REMOVED and not isinstance(old, dict) else new
                    for old, new in item if new is not REMOVED or not isinstance(old, dict)]  # fmt: skip
        return self.redact_cell(value, name)

    def _mask_personal_texts(self, redacted_value: Any, original: Any) -> Any:
        """Return a redacted value in which personal texts, by their names, are masked in records about the person."""
        if isinstance(redacted_value, list):
            return [self._mask_personal_texts(a, b) for a, b in zip(redacted_value, original, strict=True)]
        if not isinstance(redacted_value, dict):
            return redacted_value
        pairs = [
            (n, self._mask_personal_texts(a, b), b)
            for (n, a), b in zip(redacted_value.items(), original.values(), strict=True)
        ]
        if not any(self.is_value(value, member) for member, value in original.items()):
            return {n: a for n, a, _ in pairs}
        return {n: MARKER if isinstance(a, str) and a == b and PERSONAL.search(n) else a for n, a, b in pairs}

    def _remove_from_log_line(self, line: dict[str, Any]) -> Any:
        """Return a line of the prediction log without the records about the person; ids of other records do not change."""
        count = len(line["outputs"])
        rows = list(zip(line["inputs"], line["outputs"], strict=True))
        stay = [i for i, row in enumerate(rows) if not any(self.remove_from_json(side) is REMOVED for side in row)]
        if not stay:
            return REMOVED
        places = line.get("indexes") or list(range(line["first"], line["first"] + count))
        lists = {
            n: [line[n][i] for i in stay]
            for n in ("inputs", "outputs", "reasons", "ids")
            if isinstance(line.get(n), list)
        }
        remaining = {**line, **lists}
        if len(stay) < count:
            remaining |= {"first": places[stay[0]], "indexes": [places[i] for i in stay]}
        return self.redact_json(remaining)
