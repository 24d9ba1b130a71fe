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
    """Make a folder that only this user can enter, below the system's folder for temporary files or /tmp; remove it."""
    candidates = (tempfile.gettempdir(), "/tmp", os.environ.get("XDG_RUNTIME_DIR", ""))  # noqa: S108
    usable = [each for each in candidates if each and len(os.fsencode(each)) <= LONGEST and os.access(each, os.W_OK)]
    folder = tempfile.mkdtemp(prefix=PREFIX, dir=usable[0] if usable else None)
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_scratch(folder: Path) -> None:
    """Remove the temporary files that a killed process left; the specification in the run's folder says where they are."""
    try:
        scratch = Path(json.loads((folder / "spec.json").read_text(encoding="utf-8"))["scratch"])
        owner = scratch.lstat().st_uid
    except (OSError, ValueError, KeyError):
        return
    named = re.fullmatch(rf"{PREFIX}\w+", scratch.name)
    if named and not scratch.is_symlink() and owner == os.getuid():
        shutil.rmtree(scratch, ignore_errors=True)
