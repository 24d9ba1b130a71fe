"""Take a retail notebook to production and keep it paying."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("d2c_mlops")
except PackageNotFoundError:  # a source tree that is on the path without being installed (a Bento)
    __version__ = "0+source"
