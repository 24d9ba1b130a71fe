"""Who is to be forgotten: identifiers as cells, as JSON values and as words of a text, and what stands in their place."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import quote

from ..suppression import ERASE, PERSON, PERSONAL, PSEUDONYMISE, Forgotten, canonical, identifier, keyed_hash, pseudonym

MARKER = "[erased]"  # in place of an identifier where nothing else is to stand
LONG_NUMBER = 6  # digits from which a number in running text is taken for the identifier that it is equal to
GONE: Any = object()  # in place of a value that is erased as a whole
BEFORE, AFTER = r"(?<!\w)(?<!\w[-.@+])", r"(?!\w)(?![-.@+]\w)"  # an identifier within a longer one is another one


@dataclass(frozen=True)
class Person:
    """A person's identifiers, and whether the person is erased or pseudonymised."""

    names: frozenset[str]  # canonical
    key: bytes
    erased: bool
    datasets: frozenset[str] = field(default_factory=frozenset)  # where the identifiers hold; empty: everywhere
    spellings: frozenset[str] = field(default_factory=frozenset)  # the identifiers as they are written somewhere

    @classmethod
    def of(cls, names: Collection[str], key: bytes, erased: bool, datasets: Iterable[str] = ()) -> Person:
        """Return the person of identifiers; one that is erased is also looked for under the pseudonyms of before."""
        known = {canonical(name) for name in names}
        every = known | ({pseudonym(key, n) for n in known} if erased else set())
        return cls(frozenset(every), key, erased, frozenset(datasets), frozenset(names))

    def also(self, names: Collection[str]) -> Person:
        """Return the person with further identifiers."""
        other = Person.of(names, self.key, self.erased)
        every = self.names | other.names
        return Person(every, self.key, self.erased, self.datasets, self.spellings | other.spellings)

    @cached_property
    def forgotten(self) -> Forgotten:
        """What the canonical tables are scrubbed by."""
        mode = ERASE if self.erased else PSEUDONYMISE
        return Forgotten(self.key, {keyed_hash(self.key, name): mode for name in self.names})

    def is_value(self, value: Any, name: str = "") -> bool:
        """Return whether a cell or a JSON value is an identifier of the person."""
        return identifier(value, name) in self.names

    def stand_in(self, value: Any) -> Any:
        """Return what stands in place of an identifier; a number becomes another number, or nothing."""
        if not isinstance(value, str):
            return None if self.erased else int(keyed_hash(self.key, f"number {value}")[:12], 16)
        return MARKER if self.erased else pseudonym(self.key, value)

    @cached_property
    def forms(self) -> dict[str, str]:
        """The identifiers by the forms that they have in running text, in JSON, HTML and URLs; without short numbers."""
        found: dict[str, str] = {}
        for name in sorted(self.names, key=len, reverse=True):
            if name.isdigit() and len(name) < LONG_NUMBER:
                continue
            texts = (
                name,
                json.dumps(name)[1:-1],
                html.escape(name),
                html.escape(name, quote=False),
                quote(name, safe=""),
            )
            found |= {text.casefold() if "@" in name else text: name for text in texts}
        return found

    @cached_property
    def words(self) -> re.Pattern[str] | None:
        """What finds identifiers in running text."""
        forms = [f"(?i:{re.escape(form)})" if "@" in name else re.escape(form) for form, name in self.forms.items()]
        numbers = sorted(re.escape(name) for name in self.names if name.isdigit() and len(name) < LONG_NUMBER)
        parts = [f"{BEFORE}(?:{'|'.join(forms)}){AFTER}"] if forms else []
        if numbers:  # a short number counts behind the name of an identifier alone
            words = PERSON.pattern.replace("|^key$|^subject$", "")
            label = rf"(?i:(?<![a-z])(?:{words})(?:[ _-]?(?:id|no|key|number))?)"
            parts.append(rf"{label}[\"'\\]{{0,4}}\s*[:=#]?\s*[\"'\\]{{0,4}}(?P<number>{'|'.join(numbers)}){AFTER}")
        return re.compile("|".join(parts)) if parts else None

    def in_text(self, text: str) -> bool:
        """Return whether running text names the person."""
        return self.words is not None and self.words.search(text) is not None

    def text(self, text: str) -> str:
        """Return running text without the person's identifiers."""
        return self.words.sub(self._replace, text) if self.words else text

    def masked(self, text: str) -> str:
        """Return running text of the same length in bytes without the person's identifiers."""
        return self.words.sub(lambda m: self._replace(m, masked=True), text) if self.words else text

    def _replace(self, match: re.Match[str], masked: bool = False) -> str:
        number = match.groupdict().get("number")
        found = number or self.forms.get(match[0]) or self.forms.get(match[0].casefold()) or match[0]
        made = (
            "*" * len((number or match[0]).encode("utf-8", "surrogateescape")) if masked else str(self.stand_in(found))
        )
        return match[0][: len(match[0]) - len(number)] + made if number else made

    def cell(self, value: Any, name: str = "") -> Any:
        """Return a cell without the person: an identifier is replaced, JSON and running text lose it."""
        if self.is_value(value, name):
            return self.stand_in(value)
        if not isinstance(value, str) or canonical(value).isdigit():  # a number of something else
            return value
        if value[:1] in ("{", "["):
            try:
                read = json.loads(value)
            except ValueError:
                return self.text(value)
            made = self.redact(read, name)
            return value if made == read else json.dumps(made, ensure_ascii=False)
        return self.text(value)

    def redact(self, value: Any, name: str = "") -> Any:
        """Return a JSON value in which what identifies the person is replaced, names of members too."""
        if isinstance(value, dict):
            return {self.cell(k, name): self.redact(v, k) for k, v in value.items()}
        if isinstance(value, list):
            return [self.redact(each, name) for each in value]
        return self.cell(value, name)

    def without(self, value: Any, name: str = "") -> Any:
        """Return a JSON value without the records about the person; GONE where it is one itself.

        A record is an object one of whose members, at any depth outside of lists, identifies the person. Lists of plain values keep
        their length, and a pseudonymised person is replaced everywhere.
        """
        if not self.erased:
            return self._impersonal(self.redact(value, name), value)
        if isinstance(value, dict):
            if value.get("kind") == "predictions" and isinstance(value.get("inputs"), list):
                return self._log_line(value)
            made = {}
            for member, inner in value.items():
                if self.is_value(inner, member):
                    return GONE
                if self.is_value(member, name):
                    continue
                kept = self.without(inner, member)
                if kept is GONE:
                    return GONE
                made[member] = kept
            return made
        if isinstance(value, list):
            kept = [(each, self.without(each, name)) for each in value]
            return [self.redact(old, name) if new is GONE and not isinstance(old, dict) else new
                    for old, new in kept if new is not GONE or not isinstance(old, dict)]  # fmt: skip
        return self.cell(value, name)

    def _impersonal(self, made: Any, old: Any) -> Any:
        """Return a redacted value in which records about the person lose texts whose name says that they are personal."""
        if isinstance(made, list):
            return [self._impersonal(a, b) for a, b in zip(made, old, strict=True)]
        if not isinstance(made, dict):
            return made
        pairs = [(n, self._impersonal(a, b), b) for (n, a), b in zip(made.items(), old.values(), strict=True)]
        if not any(self.is_value(value, member) for member, value in old.items()):
            return {n: a for n, a, _ in pairs}
        return {n: MARKER if isinstance(a, str) and a == b and PERSONAL.search(n) else a for n, a, b in pairs}

    def _log_line(self, line: dict[str, Any]) -> Any:
        """Return a line of the prediction log without the records about the person; the others keep their ids."""
        count = len(line["outputs"])
        rows = list(zip(line["inputs"], line["outputs"], strict=True))
        stay = [i for i, row in enumerate(rows) if not any(self.without(side) is GONE for side in row)]
        if not stay:
            return GONE
        places = line.get("indexes") or list(range(line["first"], line["first"] + count))
        lists = {
            n: [line[n][i] for i in stay]
            for n in ("inputs", "outputs", "reasons", "ids")
            if isinstance(line.get(n), list)
        }
        made = {**line, **lists}
        if len(stay) < count:
            made |= {"first": places[stay[0]], "indexes": [places[i] for i in stay]}
        return self.redact(made)
