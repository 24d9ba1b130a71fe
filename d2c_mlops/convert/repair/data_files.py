"""Find the file that a notebook reads in its folder and the data folder, by name and by content."""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from d2c_mlops.convert.run.folder_copies import LeftOut, files_below, is_visible_below

_COPY = re.compile(r"(?:[ _-]?\(\d+\)|[ _-]copy(?: \d+)?|[_-]\d)$", re.IGNORECASE)
_LEAST_PART = 5  # letters and digits that two names must share
LEAST_SHARE = 3  # one in so many of a table's columns must be named in a notebook that is said to mean it
_TABLES = frozenset(
    {".csv", ".tsv", ".txt", ".xls", ".xlsx", ".xlsm", ".parquet", ".json", ".data", ".zip", ".gz", ".feather", ".dat"}
)


@dataclass
class DataFiles:
    """The files that a notebook can read: in its folder, in its data folder, in the parent folders."""

    folders: Sequence[Path]  # searched in this order; the first is the copy that the notebook runs in
    original: Path | None = None  # where relative paths of the original started
    left_out: list[LeftOut] = field(default_factory=list, repr=False)  # files and folders that are not searched
    repository: Path | None = None  # its root: tables below it may be read too, and no other files
    beyond: Path | None = None  # a folder of the repository whose tables are searched last
    _listed: dict[Path, list[Path]] = field(default_factory=dict, repr=False)

    def files(self, folder: Path) -> list[Path]:
        """List a folder once."""
        if folder not in self._listed:
            listed = files_below(folder, left_out=self.left_out)
            self._listed[folder] = [file for file in listed if folder != self.beyond or file.suffix.lower() in _TABLES]
        return self._listed[folder]

    def may_read(self, path: Path) -> bool:
        """Return whether a file that a notebook names may be copied for it: a notebook must not read any file of this machine."""
        if is_visible_below(path, [*self.folders, *([self.original] if self.original is not None else [])]):
            return True
        return (
            self.repository is not None and path.suffix.lower() in _TABLES and is_visible_below(path, [self.repository])
        )

    @property
    def searched(self) -> list[Path]:
        """The folders in which files are found by their names or columns, in this order."""
        return [*self.folders, *([self.beyond] if self.beyond is not None else [])]

    def forget(self) -> None:
        """Look again: files were added."""
        self.left_out.clear()
        self._listed.clear()

    def find(self, reference: str, columns: Iterable[str] = (), results: Iterable[str] = ()) -> tuple[Path, str] | None:
        """Return the most likely file for `reference`, and how it was matched; never a result of the notebook."""
        name = file_base_name(reference)
        if self.original is not None and "://" not in reference:
            try:
                there = (self.original / reference.replace("\\", "/")).resolve()
                if there.is_file() and self.may_read(there):
                    return there, "the path relative to the original notebook"
            except (OSError, ValueError):
                pass
        if not name:
            return None
        for how, key in _KEYS:
            want = key(name)
            if not want:
                continue
            for folder in self.searched:
                same_name = [file for file in self.files(folder) if key(file.name) == want]
                if same_name:
                    return max(same_name, key=lambda file: _common_folders(file, reference)), how
        return self.find_by_partial_name(name, frozenset(results)) or self.find_by_columns(
            frozenset(columns), frozenset(results)
        )

    def find_by_partial_name(self, name: str, results: frozenset[str] = frozenset()) -> tuple[Path, str] | None:
        """Return the only table of the same kind whose name contains the reference's name, or is contained in it."""
        stem, _, suffix = _normalized_name(name).rpartition(".")
        if len(stem) < _LEAST_PART:
            return None
        for folder in self.searched:
            near: dict[str, Path] = {}
            for file in self.files(folder):
                name_stem, _, kind = _normalized_name(file.name).rpartition(".")
                if (
                    file.name not in results
                    and kind == suffix
                    and len(name_stem) >= _LEAST_PART
                    and (stem in name_stem or name_stem in stem)
                ):
                    near.setdefault(file.name, file)
            if len(near) == 1:
                return next(iter(near.values())), "a part of its name"
        return None

    def find_by_columns(
        self, columns: frozenset[str], results: frozenset[str] = frozenset()
    ) -> tuple[Path, str] | None:
        """Return the one table that has columns that the notebook names: two, a third of its own, and no other as many."""
        scored: list[tuple[int, int, Path]] = []  # columns in common, columns of its own, the file
        for folder in self.searched:
            for file in self.files(folder):
                if file.suffix.lower() in _TABLES and columns and file.name not in results:
                    file_columns = set(table_column_names(file))
                    scored.append((len(columns & file_columns), len(file_columns), file))
        shared = max((count for count, _, _ in scored), default=0)
        best = [(column_count, file) for count, column_count, file in scored if count == shared]
        if shared < 2 or len({file.name for _, file in best}) > 1 or shared * LEAST_SHARE < best[0][0]:
            return None
        return best[0][1], f"its columns ({shared} are used by the notebook)"


def file_base_name(reference: str) -> str:
    """Return the file name of a path or an address, whatever its separators."""
    if re.match(r"\w+://", reference):
        parts = urlsplit(reference)
        reference = unquote(parts.path)
    return PurePosixPath(reference.replace("\\", "/")).name


def _normalized_name(name: str) -> str:
    """A name without case, separators and the ' (1)' of a second download."""
    stem, dot, suffix = name.lower().rpartition(".")
    stem = _COPY.sub("", stem if dot else suffix)
    return re.sub(r"[\W_]+", "", stem) + (f".{suffix}" if dot else "")


def _file_stem(name: str) -> str:
    plain = _normalized_name(name)
    stem, dot, suffix = plain.rpartition(".")
    return stem if dot and f".{suffix}" in _TABLES else ""


_KEYS = (
    ("its name", lambda name: name),
    ("its name in another case", str.lower),
    ("its name without separators and copy marks", _normalized_name),
    ("its name with another suffix", _file_stem),
)


def _common_folders(file: Path, reference: str) -> int:
    """How many folders at the end of two paths agree."""
    ours, theirs = list(reversed(file.parts)), list(reversed(re.split(r"[\\/]", reference)))
    return next((n for n, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs)))


def detect_file_kind(path: Path) -> str:
    """Return the kind of a file by its content: xlsx, xls, parquet, zip, gzip, html, json, text or unknown."""
    try:
        with path.open("rb") as file:
            start = file.read(4096)
    except OSError:
        return "unknown"
    if start.startswith(b"PK\x03\x04"):
        try:
            with zipfile.ZipFile(path) as archive:
                return "xlsx" if any(member.startswith("xl/") for member in archive.namelist()) else "zip"
        except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OSError):
            return "unknown"
    for mark, kind in ((b"\xd0\xcf\x11\xe0", "xls"), (b"PAR1", "parquet"), (b"\x1f\x8b", "gzip")):
        if start.startswith(mark):
            return kind
    text = start.lstrip(b"\xef\xbb\xbf \r\n\t")
    if re.match(rb"(?i)<(!doctype html|html|table)", text):
        return "html"
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "text"
    if b"\x00" in start:
        return "unknown"
    return "json" if text.startswith((b"[{", b"{")) else "text"


def detect_encoding(path: Path) -> str:
    """Return the encoding that reads the whole of a text file: utf-8, utf-16, cp1252 or latin-1."""
    raw = path.read_bytes()
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    for encoding in ("utf-8", "cp1252"):
        try:
            raw.decode(encoding)
        except UnicodeDecodeError:
            continue
        return encoding
    return "latin-1"


def detect_separator(path: Path) -> str:
    """Return the column separator of a text file; a comma if it cannot be determined."""
    with path.open("rb") as file:
        sample = file.read(65536).decode("latin-1")
    lines = [line for line in sample.splitlines()[:20] if line.strip()]
    counts = {sign: [line.count(sign) for line in lines] for sign in (",", ";", "\t", "|")}
    best = max(counts, key=lambda sign: (min(counts[sign], default=0) > 0, sum(counts[sign])))
    return best if sum(counts[best]) else ","


def table_column_names(path: Path) -> list[str]:
    """Return the column names of a table without reading its rows; empty if this fails."""
    kind = detect_file_kind(path)
    try:
        if kind == "text":
            with path.open(encoding=detect_encoding(path), newline="") as file:
                line = file.readline(100_000)
            return [column.strip() for column in next(csv.reader([line], delimiter=detect_separator(path)), [])]
        if kind == "parquet":
            import pyarrow.parquet as parquet

            return list(parquet.read_schema(path).names)
    except (OSError, UnicodeError, csv.Error, ValueError, StopIteration):
        return []
    return []
