"""Digests of a Bento's files: listed when it is built, verified before anything is loaded."""

from __future__ import annotations

import json
import marshal
from collections.abc import Iterator
from hashlib import sha256
from importlib.util import source_from_cache
from pathlib import Path

from ..errors import DataRefused, Failure

LIST = "files.json"  # in the folder of the files that it lists
BUILT = "bentofile.yaml"  # written by BentoML; read only when a Bento is built
VARIABLE = "D2C_BENTO_SHA256"  # environment variable with the digest of the list, which `d2c package` prints
CACHE = "__pycache__"
HEADER = 16  # bytes of a compiled file before its code (PEP 552)


def file_digests(root: Path) -> dict[str, str]:
    """Return the SHA-256 of each file below a folder by its path; the list itself, compiled files and BUILT are excluded."""
    files = sorted(path for path in root.rglob("*") if path.is_file() and CACHE not in path.relative_to(root).parts)
    digests = {path.relative_to(root).as_posix(): sha256(path.read_bytes()).hexdigest() for path in files}
    return {name: value for name, value in digests.items() if name not in (LIST, BUILT)}


def digests_as_bytes(digests: dict[str, str]) -> bytes:
    """Return a list of files as bytes."""
    return json.dumps(digests, indent=0, sort_keys=True).encode()


def file_list_digest(packed_list: bytes) -> str:
    """Return the SHA-256 of a list of files."""
    return sha256(packed_list).hexdigest()


def check_bento_files(root: Path, expected_digest: str) -> None:
    """Raise DataRefused, with each file, where the files below a folder differ from the packaged ones.

    `expected_digest` is that of their list. Links are refused: their targets can change later. Compiled files are compared with their compiled sources, because Python runs them instead.
    """
    file = root / LIST
    text = file.read_bytes() if file.is_file() else b""
    if file_list_digest(text) != expected_digest:
        what = "was changed" if text else "is missing"
        raise _changed_files_error(root, [Failure(f"{what}: its SHA-256 is not {expected_digest}", LIST)])
    listed: dict[str, str] = json.loads(text)
    digests = file_digests(root)
    failures = [Failure("was changed", name) for name, value in digests.items() if listed.get(name, value) != value]
    failures += [Failure("is missing", name) for name in listed if name not in digests]
    failures += [Failure("was added", name) for name in digests if name not in listed]
    failures += [Failure(f"is {what}", name) for name, what in _unusual_entries(root)]
    failures += [Failure("does not match its source", name) for name in _foreign_code(root)]
    if failures:
        raise _changed_files_error(root, failures)


def _changed_files_error(root: Path, failures: list[Failure]) -> DataRefused:
    return DataRefused(
        "the files of the service differ from the packaged ones", where=str(root), failures=failures,
        next="do not run them: remove the Bento or the image, then run `d2c package` and `d2c deploy` again",
    )  # fmt: skip


def _unusual_entries(root: Path) -> Iterator[tuple[str, str]]:
    """Yield links, to folders too, and what is neither a file nor a folder, each with what it is."""
    for path in sorted(root.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            yield path.relative_to(root).as_posix(), "a link" if path.is_symlink() else "a special file"


def _foreign_code(root: Path) -> Iterator[str]:
    """Yield compiled files that do not match the source beside them."""
    for path in sorted(root.rglob(f"{CACHE}/*")):
        if path.is_file() and not _compiled_from_source(path):
            yield path.relative_to(root).as_posix()


def _compiled_from_source(path: Path) -> bool:
    try:
        source = Path(source_from_cache(str(path)))
        level = path.name.rpartition(".opt-")[2].removesuffix(".pyc") if ".opt-" in path.name else "0"
        code = compile(source.read_bytes(), str(source), "exec", dont_inherit=True, optimize=int(level))
        stored_code = path.read_bytes()[HEADER:]
        return stored_code == marshal.dumps(code) or marshal.loads(stored_code) == code  # noqa: S302 - Python would load it as well
    except (OSError, ValueError, SyntaxError, EOFError, TypeError):
        return False
