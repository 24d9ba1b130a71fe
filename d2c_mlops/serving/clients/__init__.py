"""Generators of typed clients for a contract: one source file per language, with no dependency but an HTTP library."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from d2c_mlops.errors import UsageError
from d2c_mlops.models.core.contract import Contract, Field
from d2c_mlops.serving.predict.openapi import ROLLOUT


@dataclass(frozen=True)
class Language:
    """A client generator of one language."""

    name: str
    suffix: str
    write: Callable[[str, Contract, bool], str]  # model's name, contract, whether it gives reasons -> source


def languages() -> dict[str, Language]:
    """Find the languages: each module of this package that has a LANGUAGE."""
    modules = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
    return {module.LANGUAGE.name: module.LANGUAGE for module in modules}


def client(language: str, model: str, contract: Contract, explains: bool) -> str:
    """Return the source of a client. Raises UsageError for an unknown language."""
    generators = languages()
    if language not in generators:
        raise UsageError(f"no client generator for {language!r}", next=f"use one of: {', '.join(sorted(generators))}")
    return generators[language].write(model, contract, explains)


def rollout_fields(fields: Sequence[Field]) -> dict[str, dict[str, Any]]:
    """Return the JSON Schema of the additional fields of a prediction while two versions answer."""
    field_names = {field.name for field in fields}
    return {name: property_ for name, property_ in ROLLOUT.items() if name not in field_names}


def pascal(name: str) -> str:
    """Return `LeadScoring` for lead_scoring or `First half of month`."""
    pascal_name = "".join(part[:1].upper() + part[1:] for part in re.split(r"\W+|_", name) if part)
    return pascal_name if pascal_name[:1].isalpha() else f"N{pascal_name}"


def field_comment(field: Field) -> str:
    """Return a field's description with its unit, on one line and safe inside a comment."""
    unit = f" [{field.unit}]" if field.unit else ""
    return re.sub(r"\s+", " ", f"{field.description}{unit}").replace("*/", "* /")
