"""Removes the values of secrets from a run's prints, outputs and records."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from d2c_mlops.runs.run_events import EVENTS, run_events
from d2c_mlops.runs.secrets import secrets

SHORTEST = 3  # characters; what is shorter would be found everywhere


@dataclass
class Redaction:
    """The secrets of one run: those of its parameters, and those that the notebook looks up while it runs."""

    folder: Path
    names: set[str] = field(default_factory=set)
    forms: list[tuple[str, str]] = field(default_factory=list)  # what to look for and what to put there
    _size: int = -1

    @classmethod
    def of(cls, folder: Path) -> Redaction:
        """Return the redaction of the run in a folder, by its specification."""
        spec = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
        return cls(folder, secrets.secret_names_in(spec["parameters"]))

    def refresh(self) -> None:
        """Add the secrets that the notebook has looked up since."""
        file = self.folder / EVENTS
        size = file.stat().st_size if file.exists() else 0
        if size == self._size:
            return
        names = {str(event["value"]) for event in run_events(self.folder) if event["kind"] == "secret"}
        if self._size < 0 or not names <= self.names:
            self.names |= names
            self.forms = encoded_forms(secrets.values_to_redact(self.names))
        self._size = size

    def remove_secrets(self, value: Any) -> Any:
        """Return a text or JSON values without secrets, at any depth."""
        self.refresh()
        return replace_texts(value, self.forms) if self.forms else value

    def clean_bytes(self, text: bytes) -> bytes:
        """Return UTF-8 text without secrets."""
        self.refresh()
        for form, instead in self.forms:
            text = text.replace(form.encode(), instead.encode())
        return text


def replace_texts(value: Any, forms: list[tuple[str, str]]) -> Any:
    """Return a text or JSON values with some texts replaced, at any depth."""
    if isinstance(value, str):
        for form, instead in forms:
            value = value.replace(form, instead)
        return value
    if isinstance(value, Mapping):
        return {key: replace_texts(item, forms) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [replace_texts(item, forms) for item in value]
    return value


def encoded_forms(values: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the encodings of secrets, longest first, each with its replacement."""
    replacements: dict[str, str] = {}
    for name, value in values.items():
        if len(value) < SHORTEST:
            continue
        escaped = (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1])
        quoted = (quote(value), quote(value, safe=""), quote_plus(value), html.escape(value))
        encoded = base64.b64encode(value.encode()).decode()
        for form in (value, *escaped, *quoted, encoded, encoded.rstrip("=")):
            replacements.setdefault(form, f"[secret:{name}]")
    return sorted(replacements.items(), key=lambda pair: -len(pair[0]))
