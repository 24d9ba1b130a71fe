"""Copy the folder of a notebook for its runs: what is copied, what is left out, and a fresh copy for each run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_LEFT_OUT = frozenset({"__pycache__", "node_modules", "site-packages", "mlruns", "venv", "env"})


def files_below(folder: Path, limit: int = 5000) -> Iterator[Path]:
    """Yield regular files below a folder, nearest first; hidden folders, environments and links that lead out are left out."""
    todo, seen = [folder], 0
    while todo:
        here = todo.pop(0)
        try:
            entries = sorted(here.iterdir())
        except OSError:
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name in _LEFT_OUT:
                continue
            if entry.is_symlink() and not entry.resolve().is_relative_to(folder.resolve()):
                continue
            if entry.is_dir() and not entry.is_symlink() and len(entry.relative_to(folder).parts) < 6:
                todo.append(entry)
            elif entry.is_file():
                seen += 1
                yield entry
                if seen >= limit:
                    return


def copy_folder(source: Path, target: Path, *, largest: int = 1 << 30, total: int = 4 << 30) -> list[Path]:
    """Copy what a notebook may need from its folder; return the files left out for their size. Other notebooks stay behind."""
    left: list[Path] = []
    for file in files_below(source):
        size = file.stat().st_size
        if file.suffix == ".ipynb" or file.resolve().is_relative_to(target.resolve()):
            continue
        if size > largest or size > total:
            left.append(file)
            continue
        total -= size
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    return left


def clone_folder(source: Path, target: Path, *, linked: int = 64 << 20) -> None:
    """Copy a copied folder for one run; large files become hard links to our own copy, never to the original."""
    target.mkdir(parents=True, exist_ok=True)
    for file in files_below(source):
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.stat().st_size > linked:
            file.chmod(0o444)
            os.link(file, place)
        else:
            shutil.copyfile(file, place)


@dataclass
class Workplace:
    """The folders of one conversion: `pristine` is copied for every run, `home` serves the children."""

    pristine: Path
    scratch: Path
    home: Path
    packages: tuple[Path, ...] = ()
    runs: int = field(default=0)

    def fresh(self) -> Path:
        """Return a new copy of the pristine folder; earlier ones are gone."""
        for old in self.scratch.glob("run-*"):
            shutil.rmtree(old, ignore_errors=True)
        self.runs += 1
        folder = self.scratch / f"run-{self.runs}"
        clone_folder(self.pristine, folder)
        return folder
