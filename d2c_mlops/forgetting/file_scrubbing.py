"""Remove a person from files of the store: texts, JSON, logs, tables, compressed files. Files are replaced atomically."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from d2c_mlops.data.store import write_atomic
from d2c_mlops.forgetting.person import REMOVED, Person
from d2c_mlops.memory_limit import memory_limit
from d2c_mlops.serving.log.log_segments import intact_lines

SQLITE = b"SQLite format 3\0"
PARQUET = b"PAR1"
LINE_FORMATS = (".jsonl", ".ndjson", ".faulty", ".open", ".part")  # one JSON document per line
PACKED: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {  # by suffix: unpack, pack
    ".gz": (gzip.decompress, lambda content: gzip.compress(content, mtime=0)),
    ".bz2": (bz2.decompress, bz2.compress),
    ".xz": (lzma.decompress, lzma.compress),
}
UNREADABLE = (
    b"\x28\xb5\x2f\xfd",
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!",
    b"\x04\x22\x4d\x18",
    b"ARROW1",
    b"FEA1",
    b"\x89HDF",
    b"ORC",
    b"\x1f\x8b",
    b"BZh",
    b"\xfd7zXZ",
)  # first bytes of compressed formats
ARCHIVE_ERRORS = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, NotImplementedError, RuntimeError, EOFError, OSError,
    UnicodeDecodeError,
)  # fmt: skip
SMALL_MEMORY, GROWTH = 2**31, 2_000  # bytes of memory that any file may take, and bytes for each byte of a file
DUCKDB = b"DUCK"  # at byte 8
APPENDED = (".log", ".out", ".err")  # other processes may append to these files, so their length does not change
Content = tuple[bytes | None, int]  # new content, None to remove the file; and the number of occurrences of the person


def files_below(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder, in order; links are not followed."""
    for root, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            if path.is_file() and not path.is_symlink():
                yield path


def is_sqlite(path: Path) -> bool:
    """Return whether a file is a SQLite database."""
    with path.open("rb") as file:
        return file.read(16) == SQLITE


def scrub_content(name: str, content: bytes, person: Person) -> Content:
    """Return the content of a file without the person.

    Raises ValueError if the file names the person and cannot be changed, or cannot be searched: it is damaged, encrypted, nested too
    deeply, or unpacks to far more memory than a file of its size may take.
    """
    try:
        with memory_limit(max(SMALL_MEMORY, GROWTH * len(content))):
            return _scrub_content(name, content, person)
    except MemoryError:
        raise ValueError("a file that unpacks to more memory than a file of its size may take") from None
    except RecursionError:
        raise ValueError("a file that is nested too deeply to be searched") from None


def _scrub_content(name: str, content: bytes, person: Person) -> Content:
    suffix = Path(name).suffix.lower()
    if suffix in PACKED:
        return _scrub_packed(name, content, person, *PACKED[suffix])
    if content[:4] == PARQUET:
        return _scrub_parquet(content, person)
    if content[:2] == b"PK" and zipfile.is_zipfile(io.BytesIO(content)):
        return _check_archive(content, person)
    if suffix in LINE_FORMATS:
        return _scrub_lines(content, person)
    if suffix in APPENDED:
        return _scrub_text(content, person, person.mask_text)
    if content.startswith(UNREADABLE) or content[8:12] == DUCKDB:
        raise ValueError("a compressed file that cannot be searched")
    if encoding := _wide_encoding(content):
        return _scrub_wide(name, content, person, encoding)
    if b"\0" in content[:8192]:
        return _check_binary(content, person)
    if suffix in (".json", ".ipynb"):
        return _scrub_json(content, person, records=suffix == ".json")
    if suffix in (".csv", ".tsv"):
        return _scrub_csv(content, person)
    return _scrub_text(content, person, person.redact_text)


def _scrub_packed(
    name: str, content: bytes, person: Person, unpack: Callable[[bytes], bytes], pack: Callable[[bytes], bytes]
) -> Content:
    try:
        unpacked = unpack(content)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise ValueError("a damaged compressed file that cannot be searched") from error
    inner, count = scrub_content(name.rpartition(".")[0], unpacked, person)
    return (None if inner is None else pack(inner)) if count else content, count


def _wide_encoding(content: bytes) -> str:
    """Return the encoding of a text in UTF-16, with a mark or of letters whose every second byte is 0; "" for other content."""
    head = content[:400]
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding = "utf-16"
    elif len(head) >= 4 and b"\0" in head and not (any(head[1::2]) and any(head[::2])):
        encoding = "utf-16-be" if head[0] == 0 else "utf-16-le"
    else:
        return ""
    try:
        content.decode(encoding)
    except UnicodeDecodeError:
        return ""
    return encoding


def _scrub_wide(name: str, content: bytes, person: Person, encoding: str) -> Content:
    text = content.decode(encoding)
    if "\0" in text:
        return _check_binary(content, person)
    inner, count = scrub_content(name, text.encode(), person)
    return (
        (None if inner is None else inner.decode("utf-8", "surrogateescape").encode(encoding, "replace"), count)
        if count
        else (content, 0)
    )


def _decode_text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _scrub_text(content: bytes, person: Person, change: Callable[[str], str]) -> Content:
    text = _decode_text(content)
    redacted = change(text)
    if redacted == text:
        return content, 0
    count = len(person.pattern.findall(text)) if person.pattern else 0
    return redacted.encode("utf-8", "surrogateescape"), count


def _check_binary(content: bytes, person: Person) -> Content:
    texts = [content.decode("latin-1"), content.decode("utf-8", "ignore")]
    texts += [content[start:].decode("utf-16-le", "ignore") for start in (0, 1)]
    if any(person.is_named_in(text) for text in texts):
        raise ValueError("a binary file")
    return content, 0


def _check_archive(content: bytes, person: Person) -> Content:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for member in archive.infolist():
                if (
                    person.is_named_in(member.filename)
                    or scrub_content(member.filename, archive.read(member), person)[1]
                ):
                    raise ValueError(f"an archive, {member.filename}")
    except ARCHIVE_ERRORS as error:
        raise ValueError(f"an archive that cannot be searched ({error})") from error
    return content, 0


def _scrub_lines(content: bytes, person: Person) -> Content:
    lines, count = [], 0
    raw_lines = intact_lines(content) if b"\0" in content else content.split(b"\n")
    for line in raw_lines:
        new_line = line
        try:
            value = json.loads(line)
        except ValueError:
            new_line = person.redact_text(_decode_text(line)).encode("utf-8", "surrogateescape")
        else:
            new = person.remove_from_json(value)
            new_line = b"" if new is REMOVED else line if new == value else json.dumps(new, ensure_ascii=False).encode()
            if new is REMOVED:
                count += 1
                continue
        count += new_line != line
        lines.append(new_line)
    return (b"\n".join(lines), count) if count else (content, 0)


def _scrub_json(content: bytes, person: Person, records: bool) -> Content:
    try:
        value = json.loads(content)
    except ValueError:
        return _scrub_text(content, person, person.redact_text)
    redacted = person.remove_from_json(value) if records else person.redact_json(value)
    redacted = person.redact_json(value) if redacted is REMOVED else redacted
    if redacted == value:
        return content, 0
    indent = 1 if b"\n" in content.strip() else None
    end = "\n" if content.endswith(b"\n") else ""
    return (json.dumps(redacted, ensure_ascii=False, indent=indent) + end).encode(), _count_differences(value, redacted)


def _count_differences(before: Any, after: Any) -> int:
    """Return the number of differences between two JSON values."""
    if isinstance(before, dict) and isinstance(after, dict):
        return sum(_count_differences(v, after[k]) if k in after else 1 for k, v in before.items())
    if isinstance(before, list) and isinstance(after, list):
        same = len(before) == len(after)
        return sum(map(_count_differences, before, after)) if same else abs(len(before) - len(after))
    return int(before != after)


def _scrub_csv(content: bytes, person: Person) -> Content:
    text = _decode_text(content)
    rows = text.splitlines(keepends=True)
    separator = max(",;\t", key=rows[0].count) if rows else ","
    head = next(csv.reader([rows[0]], delimiter=separator), []) if rows else []
    if text.count('"') and any(row.count('"') % 2 for row in rows):  # a cell that spans lines
        return _scrub_text(content, person, person.redact_text)
    new_rows, count = [], 0
    for number, row in enumerate(rows):
        cells = next(csv.reader([row], delimiter=separator), [])
        names = head if len(head) == len(cells) else [""] * len(cells)
        hits = [i for i, (cell, name) in enumerate(zip(cells, names, strict=True)) if person.is_value(cell, name)]
        if number and hits and person.erased:
            count += 1
            continue
        if number and hits:
            changed = [person.replacement(c) if i in hits else person.redact_text(c) for i, c in enumerate(cells)]
            out = io.StringIO()
            csv.writer(out, delimiter=separator, lineterminator="").writerow(changed)
            new = out.getvalue() + row[len(row.rstrip("\r\n")) :]
        else:
            new = person.redact_text(row)
        count += new != row
        new_rows.append(new)
    return ("".join(new_rows).encode("utf-8", "surrogateescape"), count) if count else (content, 0)


def _scrub_parquet(content: bytes, person: Person) -> Content:
    try:
        table = pq.read_table(pa.BufferReader(content))
    except OSError as error:
        raise ValueError("a damaged Parquet file that cannot be searched") from error
    columns = {}
    hits = [False] * len(table)
    for name in table.column_names:
        column = table.column(name)
        kind = column.type.value_type if isinstance(column.type, pa.DictionaryType) else column.type
        if pa.types.is_temporal(kind) or pa.types.is_boolean(kind) or pa.types.is_null(kind):
            continue
        values = column.to_pylist()
        if (
            pa.types.is_nested(kind)
            or pa.types.is_binary(kind)
            or pa.types.is_large_binary(kind)
            or pa.types.is_fixed_size_binary(kind)
        ):
            nested_values, nested_hits = _scrub_nested(values, name, person)
            if nested_values != values:
                hits = [a or b for a, b in zip(hits, nested_hits, strict=True)]
                columns[name] = nested_values
            continue
        memo: dict[Any, Any] = {}
        new_values = [memo[v] if v in memo else memo.setdefault(v, person.redact_cell(v, name)) for v in values]
        if new_values != values:
            rows = [person.is_value(v, name) for v in values]
            hits = [a or b for a, b in zip(hits, rows, strict=True)]
            columns[name] = new_values
    if not columns:
        return content, 0
    count = max(sum(hits), 1)
    for name, new_values in columns.items():
        field = table.schema.field(name)
        table = table.set_column(table.schema.get_field_index(name), field, pa.array(new_values, pa.string() if isinstance(field.type, pa.DictionaryType) else field.type).cast(field.type))  # fmt: skip
    if person.erased and any(hits):
        table = table.filter(pa.array([not hit for hit in hits]))
    meta = {k: v for k, v in (table.schema.metadata or {}).items() if not person.is_named_in(_decode_text(v))}
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata(meta), sink)
    return sink.getvalue().to_pybytes(), count


def _scrub_nested(values: list[Any], name: str, person: Person) -> tuple[list[Any], list[bool]]:
    """Return the cells of a column of lists or records without the person, and whether each is a record about the person.

    Raises ValueError if a map or bytes name the person.
    """
    new_values: list[Any] = []
    hits: list[bool] = []
    for value in values:
        if isinstance(value, bytes) or (isinstance(value, list) and any(isinstance(pair, tuple) for pair in value)):
            text = value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
            if person.is_named_in(text) or person.is_value(text, name):
                raise ValueError(f"column {name!r} holds bytes or a map with the customer")
            new_values.append(value)
            hits.append(False)
            continue
        new = person.remove_from_json(value, name)
        hits.append(new is REMOVED)
        new_values.append(None if new is REMOVED else new)
    return new_values, hits


def replace_file(path: Path, content: bytes | None) -> None:
    """Replace a file atomically with its mode, or remove it; a file that other processes append to is changed in place."""
    if content is None:
        path.unlink()
        return
    old = path.read_bytes()[: len(content)]  # content that was appended in the meantime stays
    if path.suffix.lower() in APPENDED and len(old) == len(content):
        with path.open("r+b", buffering=0) as file:
            for match in re.finditer(rb"[^\n]*\n?", content):
                start, end = match.span()
                if old[start:end] != content[start:end]:
                    file.seek(start)
                    file.write(content[start:end])
            os.fsync(file.fileno())
        return
    mode = path.stat().st_mode & 0o777
    write_atomic(path, content, private=True)
    path.chmod(mode)
