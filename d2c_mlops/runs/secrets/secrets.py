"""Secrets by reference: a parameter `secret:NAME` is resolved inside the kernel and never stored."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from d2c_mlops.errors import UsageError
from d2c_mlops.settings import load_settings

PREFIX = "secret:"
REFERENCE = re.compile(r"secret:([A-Za-z_][A-Za-z0-9_.-]*)")
VARIABLE = "D2C_SECRET_"
MOUNTED = Path("/run/secrets")  # where containers get theirs
KEYRING = "d2c_mlops"  # the service's name in the system's keyring

_resolved: dict[str, str] = {}


def secret(name: str) -> str:
    """Return a secret: $D2C_SECRET_NAME, $NAME, a file NAME in [d2c] secrets or /run/secrets, or the keyring's.

    A run removes its value from everything that it prints or records. Raises UsageError if it is not defined.
    """
    from d2c_mlops.runs.run_events import append_event

    value = _look_up(name)
    if value is None:
        raise UsageError(
            f"secret {name!r} is not defined",
            next=f"set {VARIABLE}{name}, or put it into a file {name} in [d2c] secrets or into the keyring: "
            f"keyring set {KEYRING} {name}",
        )
    if name not in _resolved:
        _resolved[name] = value
        append_event("secret", name)
    return value


def looked_up_secrets() -> dict[str, str]:
    """Return the secrets that this process has looked up, by name."""
    return dict(_resolved)


def values_to_redact(names: Iterator[str] | set[str]) -> dict[str, str]:
    """Return the secrets of these names that can be found, and all in variables that are named as secrets."""
    marked = {key.removeprefix(VARIABLE): value for key, value in os.environ.items() if key.startswith(VARIABLE)}
    values_by_name = {name: value for name in names if (value := _look_up(name)) is not None}
    return marked | values_by_name


def secret_names_in(value: Any) -> set[str]:
    """Return the names of the secrets that a parameter refers to, at any depth."""
    if isinstance(value, str):
        match = REFERENCE.fullmatch(value)
        return {match[1]} if match else set()
    if isinstance(value, dict):
        return set().union(*(secret_names_in(item) for item in value.values()))
    if isinstance(value, list | tuple):
        return set().union(*(secret_names_in(item) for item in value))
    return set()


def resolve_reference(text: str) -> str:
    """Return the secret that a text refers to, or the text itself."""
    match = REFERENCE.fullmatch(text)
    return secret(match[1]) if match else text


def resolving_source(reference: str) -> str | None:
    """Return Python source that resolves a reference where it runs; None for other texts."""
    match = REFERENCE.fullmatch(reference)
    return f'__import__("{__name__}", fromlist=["secret"]).secret({match[1]!r})' if match else None


def _look_up(name: str) -> str | None:
    for variable in (f"{VARIABLE}{name}", name):
        if os.environ.get(variable):
            return os.environ[variable]
    config = load_settings()
    folders = [config.root / config.secrets] if config.secrets else []
    for folder in (*folders, MOUNTED):
        file = folder / name
        if file.is_file():
            return file.read_text(encoding="utf-8").rstrip("\r\n")
    return _from_keyring(name)


def _from_keyring(name: str) -> str | None:
    """Return the secret of the system's keyring; None if the package keyring is not installed or finds no keyring."""
    try:
        keyring, trouble = import_module("keyring"), import_module("keyring.errors").KeyringError
    except ImportError:
        return None
    try:
        password: str | None = keyring.get_password(KEYRING, name)
    except trouble:
        return None
    return password
