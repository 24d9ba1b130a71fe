"""Copy the folder of a notebook for its runs: what is copied, what is left out, and a fresh copy for each run."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

# The root of a repository is the nearest folder upwards that holds one of these.
MARKERS = (".git", "pyproject.toml", "setup.py", "setup.cfg", "settings.ini", "requirements.txt", "environment.yml")
LEVELS_UP = 6  # folders upwards in which it is looked for
_LEFT_OUT = frozenset({"__pycache__", "node_modules", "site-packages", "mlruns", "venv", "env"})


MOST_FILES = 5_000  # of a folder that somebody else filled
MOST_LEVELS = 6  # of folders below it
NAMED = 5  # files left out that a message names


@dataclass(frozen=True)
class LeftOut:
    """A file or folder that is not listed or copied, and why."""

    path: Path
    why: str


def files_below(
    folder: Path,
    *,
    max_files: int | None = MOST_FILES,
    max_depth: int | None = MOST_LEVELS,
    left_out: list[LeftOut] | None = None,
) -> Iterator[Path]:
    """Yield regular files below a folder, nearest first; `max_files` and `max_depth` are limits, None for no limit.

    Hidden folders and environments are skipped. Whatever else is skipped is appended to `left_out`.
    """
    omitted: list[LeftOut] = [] if left_out is None else left_out
    todo, count, top = [folder], 0, folder.resolve()
    while todo:
        directory = todo.pop(0)
        try:
            entries = sorted(directory.iterdir())
        except OSError as err:
            omitted.append(LeftOut(directory, f"cannot be read ({err.strerror})"))
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name in _LEFT_OUT:
                continue
            if entry.is_symlink() and not entry.resolve().is_relative_to(top):
                omitted.append(LeftOut(entry, "a link to a place outside the folder"))
            elif entry.is_dir() and entry.is_symlink():
                omitted.append(LeftOut(entry, "a link to a folder"))
            elif entry.is_dir():
                if max_depth is not None and len(entry.relative_to(folder).parts) >= max_depth:
                    omitted.append(LeftOut(entry, f"deeper than {max_depth} folders"))
                else:
                    todo.append(entry)
            elif entry.is_file():
                if count == max_files:
                    omitted.append(LeftOut(entry, f"this file and all after it: the limit is {max_files:,} files"))
                    return
                count += 1
                yield entry
            else:
                omitted.append(LeftOut(entry, "not a regular file"))


def repository_root(folder: Path) -> Path | None:
    """Return the root of the repository that a folder belongs to: never a home folder or one above it, which hold more than one project."""
    folder = folder.resolve()
    home = Path.home().resolve()
    for upward in [folder, *list(folder.parents)[:LEVELS_UP]]:
        if home.is_relative_to(upward):
            return None
        if any((upward / mark).exists() for mark in MARKERS):
            return upward
    return None


def is_visible_below(path: Path, roots: Iterable[Path]) -> bool:
    """Return whether a path, links resolved, lies in one of the folders and in no hidden folder of it, nor is hidden itself."""
    try:
        real = path.resolve()
    except (OSError, ValueError, RuntimeError):
        return False
    for root in roots:
        if real.is_relative_to(root.resolve()):
            return not any(part.startswith(".") for part in real.relative_to(root.resolve()).parts)
    return False


def copy_folder(
    source: Path,
    target: Path,
    *,
    max_file_bytes: int = 1 << 30,
    max_total_bytes: int = 4 << 30,
    max_files: int | None = MOST_FILES,
    max_depth: int | None = MOST_LEVELS,
) -> list[LeftOut]:
    """Copy what a notebook may need from its folder; return what is left out. Other notebooks stay behind.

    `max_file_bytes` is the limit of a file and `max_total_bytes` that of all files, in bytes; `max_files` and `max_depth` as in `files_below`.
    """
    left_out: list[LeftOut] = []
    for file in files_below(source, max_files=max_files, max_depth=max_depth, left_out=left_out):
        size = file.stat().st_size
        if file.suffix == ".ipynb" or file.resolve().is_relative_to(target.resolve()):
            continue
        if size > max_file_bytes or size > max_total_bytes:
            left_out.append(LeftOut(file, f"too large ({size / (1 << 20):,.0f} MB)"))
            continue
        max_total_bytes -= size
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    return left_out


def left_out_summary(left_out: Sequence[LeftOut], folder: Path) -> str:
    """Return what is left out of a folder in one line: the first NAMED paths with their reasons, and the number of the others."""
    texts = [
        f"{omitted.path.relative_to(folder) if omitted.path.is_relative_to(folder) else omitted.path}: {omitted.why}"
        for omitted in left_out[:NAMED]
    ]
    others = len(left_out) - NAMED
    return "; ".join(texts) + (f"; and {others} more" if others > 0 else "")


def clone_folder(source: Path, target: Path) -> None:
    """Copy a copied folder for one run; no file is a link to our own copy, which a run could write to."""
    target.mkdir(parents=True, exist_ok=True)
    for file in files_below(source, max_files=None, max_depth=None):
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)


def add_missing_file(file: Path, folder: Path, name: Path) -> bool:
    """Copy a file into a folder in which a notebook runs, where it is not there yet; no link of the notebook's is followed."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        for part in name.parts[:-1]:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, 0o755, dir_fd=descriptor)
            below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        with os.fdopen(os.open(name.name, flags, 0o644, dir_fd=descriptor), "wb") as target, file.open("rb") as source:
            shutil.copyfileobj(source, target)
    except OSError:  # the notebook has something else there
        return False
    finally:
        os.close(descriptor)
    return True


def read_result(file: Path, largest: int = 64 << 20) -> bytes | None:
    """Return what a notebook's process has written; None where it is no regular file, which could lead elsewhere, or too large."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_nlink > 1 or facts.st_size > largest:
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as opened:
            return opened.read(largest)
    finally:
        os.close(descriptor)


@dataclass
class Workplace:
    """The folders of one conversion: `pristine` is copied for every run, `home` serves the children."""

    pristine: Path
    scratch: Path
    home: Path
    packages: tuple[Path, ...] = ()
    runs: int = field(default=0)

    def fresh(self) -> Path:
        """Return a new copy of the pristine folder; earlier ones, and what earlier runs left in the home, are gone."""
        for old in (*self.scratch.glob("run-*"), self.home):
            shutil.rmtree(old, ignore_errors=True)
        self.runs += 1
        folder = self.scratch / f"run-{self.runs}"
        clone_folder(self.pristine, folder)
        return folder
