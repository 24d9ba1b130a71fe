"""A private folder for a run's temporary files, with a path short enough for sockets in it."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "d2c-"
LONGEST = 40  # bytes of the parent's path; sockets have 108 for all, multiprocessing and Ray add up to 60


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Create a private folder in the system's temporary folder or /tmp; remove it at the end."""
    candidates = (tempfile.gettempdir(), "/tmp", os.environ.get("XDG_RUNTIME_DIR", ""))  # noqa: S108
    usable = [
        candidate
        for candidate in candidates
        if candidate and len(os.fsencode(candidate)) <= LONGEST and os.access(candidate, os.W_OK)
    ]
    folder = tempfile.mkdtemp(prefix=PREFIX, dir=usable[0] if usable else None)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_scratch(folder: Path) -> None:
    """Remove the temporary files of a killed process, found by the specification in the run's folder."""
    try:
        scratch = Path(json.loads((folder / "spec.json").read_text(encoding="utf-8"))["scratch"])
        owner = scratch.lstat().st_uid
    except (OSError, ValueError, KeyError):
        return
    is_scratch = re.fullmatch(rf"{PREFIX}\w+", scratch.name)
    if is_scratch and not scratch.is_symlink() and owner == os.getuid():
        shutil.rmtree(scratch, ignore_errors=True)
