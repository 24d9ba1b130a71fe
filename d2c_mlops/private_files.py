"""Private files: readable only by the current user, or by the group of a shared store, whatever the umask is."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

FOLDER, FILE = 0o700, 0o600
GROUP_FOLDER, GROUP_FILE = 0o2770, 0o660


def is_shared(folder: Path) -> bool:
    """Return whether a folder, or the nearest existing one above it, is shared by a group: `chgrp GROUP FOLDER; chmod 2770 FOLDER`."""
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    mode = folder.stat().st_mode
    return bool(mode & stat.S_ISGID and mode & stat.S_IWGRP)


def private_folder(folder: Path) -> None:
    """Create a private folder and missing folders above it; an existing folder is not changed."""
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
    """Create an empty private file in a private folder; an existing file is not changed."""
    private_folder(file.parent)
    with suppress(FileExistsError):
        os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, FILE))
        file.chmod(file_mode(file))


def make_private(folder: Path) -> None:
    """Make a folder and its contents private; links are not followed, and files of other users are not changed."""
    others = 0o007 if is_shared(folder) else 0o077
    for root, _, names in os.walk(folder, topdown=False):
        for path in (*(Path(root, name) for name in names), Path(root)):
            with suppress(PermissionError, FileNotFoundError):
                mode = path.lstat().st_mode
                if not stat.S_ISLNK(mode) and mode & others:
                    path.chmod(stat.S_IMODE(mode) & ~others)


def tighten_store(store: Path, project: Path) -> None:
    """Make a store and its contents private; a store that contains the project is not changed."""
    if not store.is_dir() or project.is_relative_to(store):
        return
    status = store.stat()
    others = 0o007 if is_shared(store) else 0o077
    if status.st_uid == os.getuid() and status.st_mode & others:
        make_private(store)
