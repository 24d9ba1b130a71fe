"""Report what in a notebook would break production, without running it."""

from d2c_mlops import former_names


def __getattr__(name: str) -> object:
    """Return an attribute that was in the module of this name before it became a package."""
    return former_names.attribute(__name__, name)
