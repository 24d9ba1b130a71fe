"""Find the faults of data that a model would learn: six detectors, one report."""

from importlib import import_module
from typing import Any

PUBLIC = {"assess_quality": "assess", "QualityReport": "report", "Finding": "report"}


def __getattr__(name: str) -> Any:
    """Return a public name of a module here."""
    if name in PUBLIC:
        return getattr(import_module(f"{__name__}.{PUBLIC[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
