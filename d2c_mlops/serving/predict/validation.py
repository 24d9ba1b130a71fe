"""Validate records with pydantic, with a limit on the number of listed errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from msgspec import MsgspecError, Raw, defstruct
from msgspec.json import Decoder
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, create_model
from pydantic import Field as Limits
from pydantic_core import InitErrorDetails, PydanticCustomError

from d2c_mlops.models.core.contract import Field

LARGE = {"body": 65_536, "line": 4_096}  # bytes from which names of fields are checked before anything else
LISTED = 1_000  # faults of a body or line that are listed
MORE = "there may be more errors, listed once these are corrected"
SCALAR = str | int | float | bool | None
PLACED = re.compile(r"(.*?)(?: - at `\$(?:\.records(?:\[(\d+)\])?)?\.?(.*)`)?", re.S)  # msgspec's words
UNKNOWN = re.compile(r"Object contains unknown field `(.*)`", re.S)


class Validation:
    """Validates JSON by a contract's request model in strict mode.

    pydantic does not limit its errors: an unknown field costs seven microseconds and 1,500 bytes. In large bodies names are
    therefore checked first, and that values are scalars; this check stops at the first error.
    """

    def __init__(self, model: type[BaseModel], columns: Sequence[Field], max_records: int) -> None:
        listed = (list[model], Limits(min_length=1, max_length=max_records))  # type: ignore[valid-type]
        body: Any = create_model("PredictRequest", __config__=ConfigDict(extra="forbid"), records=listed)
        self._body, self._line = TypeAdapter(body), TypeAdapter(model)
        members = [(f"field_{i}", SCALAR, None) for i in range(len(columns))]
        names = {f"field_{i}": field.name for i, field in enumerate(columns)}
        record_type: Any = defstruct("Record", members, rename=names, forbid_unknown_fields=True, gc=False)
        self._names = {
            "body": Decoder(defstruct("Body", [("records", list[record_type])], forbid_unknown_fields=True)),
            "line": Decoder(record_type),
        }
        self._parts: Decoder[Any] = Decoder(defstruct("Parts", [("records", list[Raw])]))

    def records(self, body: bytes) -> list[dict[str, Any]]:
        """Return the records of a body `{"records": […]}`. Raises ValidationError."""
        if len(body) >= LARGE["body"]:
            self._check_names("body", body)
        try:
            read = self._body.validate_json(body, strict=True)
        except ValidationError as err:
            if err.error_count() <= LISTED:
                raise
            self._check_names("body", body)
            raise _limit_errors(self._body_errors(body)) from None
        return [record.__dict__ for record in read.records]

    def record(self, line: bytes) -> dict[str, Any]:
        """Return the record in a line. Raises ValidationError."""
        if len(line) >= LARGE["line"]:
            self._check_names("line", line)
        values: dict[str, Any] = self._line.validate_json(line, strict=True).__dict__
        return values

    def _check_names(self, kind: str, data: bytes) -> None:
        """Raise ValidationError for the first field that is unknown or not a scalar."""
        try:
            self._names[kind].decode(data)
        except (MsgspecError, UnicodeDecodeError, RecursionError) as err:
            raise _limit_errors(iter([_error_of_msgspec(str(err))])) from None

    def _body_errors(self, body: bytes) -> Iterator[InitErrorDetails]:
        """Yield the errors of a body's records in order."""
        for index, part in enumerate(self._parts.decode(body).records):
            try:
                self._line.validate_json(bytes(part), strict=True)
            except ValidationError as err:
                for error in err.errors(include_url=False, include_input=False, include_context=False):
                    yield _error_detail(error["type"], error["msg"], ("records", index, *error["loc"]))


def _limit_errors(faults: Iterator[InitErrorDetails]) -> ValidationError:
    """Return an error limited to LISTED entries, with a note that there may be more."""
    listed = [*islice(faults, LISTED), _error_detail("more", MORE, ())]
    return ValidationError.from_exception_data("PredictRequest", listed, input_type="json")


def _error_of_msgspec(text: str) -> InitErrorDetails:
    """Return an error of msgspec, with pydantic's message for an unknown field."""
    match: Any = PLACED.fullmatch(text)
    place = () if match[2] is None else ("records", int(match[2]))
    if unknown := UNKNOWN.fullmatch(match[1]):
        return _error_detail("extra_forbidden", "Extra inputs are not permitted", (*place, unknown[1]))
    return _error_detail("json_invalid", match[1], (*place, *([match[3]] if match[3] else ())))


def _error_detail(kind: str, message: str, place: tuple[int | str, ...]) -> InitErrorDetails:
    """Return an error whose message is not interpreted as a template."""
    error = PydanticCustomError(kind, "{text}", {"text": message})
    return InitErrorDetails(type=error, loc=place, input=None)
