"""Files that only the user who runs d2c can read, or the group of a store that was set up for one, whatever the umask is."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

FOLDER, FILE = 0o700, 0o600
GROUP_FOLDER, GROUP_FILE = 0o2770, 0o660


def is_shared(folder: Path) -> bool:
    """Return whether a folder, or the nearest above that exists, is a group's: `chgrp GROUP FOLDER; chmod 2770 FOLDER`."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    mode = folder.stat().st_mode
    return bool(mode & stat.S_ISGID and mode & stat.S_IWGRP)


def private_folder(folder: Path) -> None:
    """Create a folder and those above it that are missing, closed to others; one that exists stays as it is."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    mode = GROUP_FOLDER if missing and is_shared(folder) else FOLDER
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        path.chmod(mode)


def file_mode(file: Path) -> int:
    """Return the mode of a new file."""
    return GROUP_FILE if is_shared(file.parent) else FILE


def private_file(file: Path) -> None:
    """Create an empty file, closed to others, in a private folder; one that exists stays as it is."""
    private_folder(file.parent)
    with suppress(FileExistsError):
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE))
        file.chmod(file_mode(file))


def tighten(folder: Path) -> None:
    """Close a folder and all that is in it to others; links are not followed, and files of other users stay as they are."""
    others = 0o007 if is_shared(folder) else 0o077
    for root, _, names in os.walk(folder, topdown=False):
        for path in (*(Path(root, name) for name in names), Path(root)):
            with suppress(PermissionError, FileNotFoundError):
                mode = path.lstat().st_mode
                if not stat.S_ISLNK(mode) and mode & others:
                    path.chmod(stat.S_IMODE(mode) & ~others)


def tighten_store(store: Path, project: Path) -> None:
    """Close a store that was open to others, with all that is in it; a store that holds the project is left as it is."""
    if not store.is_dir() or project.is_relative_to(store):
        return
    found = store.stat()
    others = 0o007 if is_shared(store) else 0o077
    if found.st_uid == os.getuid() and found.st_mode & others:
        tighten(store)
