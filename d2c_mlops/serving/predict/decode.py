"""Decode and validate the records of a request in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date
from functools import cached_property
from typing import Annotated, Any, Literal, overload

from msgspec import Meta, MsgspecError, defstruct
from msgspec.json import Decoder
from msgspec.structs import asdict, astuple

from d2c_mlops.models.core.contract import Field, Kind

KINDS: dict[Kind, Any] = {"string": str, "integer": int, "number": float, "boolean": bool, "date": date}
VERBATIM = 2**20  # bytes of a body whose records may be logged as sent, with whitespace


class DecodedRecords(Sequence[dict[str, Any]]):
    """Decoded records, available as columns and as dicts."""

    def __init__(self, read: list[Any]) -> None:
        self._read = read

    @cached_property
    def _as_dicts(self) -> list[dict[str, Any]]:
        return list(map(asdict, self._read))

    @cached_property
    def _column_types(self) -> dict[str, tuple[Any, ...]]:
        names = self._read[0].__struct_fields__
        return dict(zip(names, zip(*map(astuple, self._read), strict=True), strict=True))

    def column(self, name: str) -> tuple[Any, ...]:
        """Return the values of a field, None where a record has none."""
        values = self._column_types.get(name)
        return (None,) * len(self) if values is None else values

    def __len__(self) -> int:
        return len(self._read)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._as_dicts)

    @overload
    def __getitem__(self, place: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, place: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, place: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        return self._as_dicts[place]


class Reader:
    """Decodes records that match a contract; returns None for others, which pydantic then validates and reports.

    msgspec parses and checks faster than pydantic, to the same values, but stops at the first fault. Contracts with
    features that the two treat differently (a pattern, a time, a name that is not an identifier) are validated by pydantic only.
    """

    def __init__(self, columns: Sequence[Field], max_records: int) -> None:
        self.complete = not any(field.nullable for field in columns)
        self._decoders = build_decoders(columns, max_records)

    def records(self, body: bytes) -> Sequence[dict[str, Any]] | None:
        """Return the records of a body `{"records": […]}`."""
        if self._decoders is None:
            return None
        try:
            read = self._decoders[0].decode(body).records
        except (MsgspecError, UnicodeDecodeError):
            return None
        return DecodedRecords(read) if len(read) > 1 else [asdict(read[0])]

    def record(self, line: bytes) -> dict[str, Any] | None:
        """Return the record in a line."""
        if self._decoders is None:
            return None
        try:
            return asdict(self._decoders[1].decode(line))
        except (MsgspecError, UnicodeDecodeError):
            return None

    def sent(self, body: bytes) -> bytes | None:
        """Return the text of the records of a body on one line; None if it may be incomplete.

        It is the text between the brackets; a body with flat records has one pair, unless a string contains another.
        """
        start, end = body.find(b"["), body.rfind(b"]")
        if not self.complete or len(body) > VERBATIM or body.find(b"]", start) != end:
            return None
        text = body[start : end + 1]
        return text if b"\n" not in text and b"\r" not in text else None


def build_decoders(columns: Sequence[Field], max_records: int) -> tuple[Decoder[Any], Decoder[Any]] | None:
    """Return the decoders of a body and of one record; None where msgspec cannot express the contract."""
    members: list[Any] = []
    try:
        for field in columns:
            kind = msgspec_type(field)
            if kind is None or not field.name.isidentifier():
                return None
            members.append((field.name, kind | None, None) if field.nullable else (field.name, kind))
        record = defstruct("Record", members, forbid_unknown_fields=True, kw_only=True, gc=False)
        records = Annotated[list[record], Meta(min_length=1, max_length=max_records)]  # type: ignore[valid-type]
        return Decoder(defstruct("Body", [("records", records)], forbid_unknown_fields=True)), Decoder(record)
    except (TypeError, ValueError):  # a limit beyond 64 bits, or a reserved name
        return None


def msgspec_type(field: Field) -> Any:
    """Return the msgspec type of a field's values; None where pydantic treats it differently."""
    kind = KINDS.get(field.kind)
    if field.choices:
        return Literal[field.choices]
    if kind is None or field.pattern:
        return None
    exact = int if field.kind == "integer" else float
    limits: Any = {
        name: exact(value) for name, value in zip(("ge", "le"), field.limits, strict=True) if value is not None
    }
    if field.kind == "string" and field.max_length is not None:
        limits["max_length"] = field.max_length
    return Annotated[kind, Meta(**limits)]
