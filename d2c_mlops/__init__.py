"""Take a retail notebook to production and keep it paying.

Each command is also a call: `import d2c_mlops as d2c`, then `d2c.ingest`, `d2c.run`, `d2c.promote`, `d2c.rollback`, `d2c.package`,
`d2c.serve`, `d2c.check`.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("d2c_mlops")
except PackageNotFoundError:  # a source tree that is on the path without being installed (a Bento)
    __version__ = "0+source"

VERBS = ("check", "ingest", "package", "promote", "rollback", "run", "serve")


def __getattr__(name: str) -> Any:
    """Import a verb when it is asked for: the package itself stays quick to import."""
    if name in VERBS:
        return getattr(import_module("d2c_mlops.verbs"), name)
    raise AttributeError(f"module 'd2c_mlops' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *VERBS]
