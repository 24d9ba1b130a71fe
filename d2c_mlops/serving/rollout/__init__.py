"""Rollouts of a challenger: state, routing, guardrails and history."""

from typing import Any

from d2c_mlops import former_names


def __getattr__(name: str) -> Any:
    """Return what the module of this name had before it became a package."""
    return former_names.attribute(__name__, name)
