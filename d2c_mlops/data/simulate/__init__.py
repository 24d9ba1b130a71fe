"""Simulate a shop whose truth is known: a world, a clock, a script of events, and truth tables."""

from importlib import import_module
from typing import Any

from d2c_mlops import former_names

PUBLIC = {"Shop": "simulator", "Arrivals": "clock", "Event": "script", "read_script": "script"}


def __getattr__(name: str) -> Any:
    """Return a public name of a module here, or what the module of this name had before it became a package."""
    if name in PUBLIC:
        return getattr(import_module(f"{__name__}.{PUBLIC[name]}"), name)
    return former_names.attribute(__name__, name)
