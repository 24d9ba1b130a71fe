"""Test whether a path exists; an invalid path (too long, with a null character) does not."""

from __future__ import annotations

import os
from pathlib import Path


def is_file(path: Path) -> bool:
    """Return whether a path is a file; False if access is denied."""
    return os.path.isfile(path)  # noqa: PTH113 (Path.is_file raises OSError for a name that is too long)


def is_folder(path: Path) -> bool:
    """Return whether a path is a folder; False if access is denied."""
    return os.path.isdir(path)  # noqa: PTH112


def path_exists_and_readable(path: Path) -> bool:
    """Return whether there is a file or folder at a path; False if access is denied."""
    return os.path.exists(path)  # noqa: PTH110
