"""Records are read by msgspec, for speed, and never otherwise than by pydantic, which tells the faults."""

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import orjson
import pandas as pd
import pandera.pandas as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from d2c_mlops.models.core.contract import Contract, column, to_frame, values_of
from d2c_mlops.registry.versions import load_version
from d2c_mlops.serving.app.app import ServiceContext, create_app
from d2c_mlops.serving.log.log_segments import Logbook
from d2c_mlops.serving.predict.decode import Reader
from d2c_mlops.serving.predict.predictor import LINE, ServedModel
from d2c_mlops.settings import Settings
from support.local_client import LocalClient
from support.training import train

COLUMNS: dict[str, Any] = {
    "key": column("string", "Key", max_length=5),
    "grade": column("string", "Grade", choices=["a", "b"]),
    "count": column("integer", "Count"),
    "few": column("integer", "Few", ge=0, le=5),
    "share": column("number", "Share", ge=-1, le=100),
    "any": column("number", "Any number"),
    "known": column("boolean", "Known"),
    "day": column("date", "Day"),
    "maybe": column("number", "Maybe", nullable=True),
}
RECORD = {"key": "K", "grade": "a", "count": 1, "few": 0, "share": 0.5, "any": 1e9, "known": True, "day": "2026-01-02"}
ODD = [
    "1", "1.0", "-0", "-0.0", "0.1e1", "1e2", "1E+2", "1e400", "-1e400", "1e-400", "4.9e-324", "5.0", "100.00000000000001",
    "9223372036854775807", "9223372036854775808", "-9223372036854775809", "1" * 400, "0." + "1" * 400, "01", "+1", ".5", "1.",
    "NaN", "Infinity", "true", "null", "[]", "{}", '""', '"a"', '"abcdef"', '"\\u00e9"', '"\\ud83d\\ude00abcd"', '"\\ud800"',
    '"\\u0000"', '"a\x01"', '"2026-01-02"', '"2026-1-2"', '"2026-02-30"', '"0000-01-01"', '"2026-01-02T00:00:00"', '"1"', '"]"',
    "1767312000", "\xff", '"\xff"', '"\xc3("', '"\xed\xa0\x80"', '"\xf0\x9f\x98\x80"', "1" * 30, "0e999999999", "1e-999999999",
]  # fmt: skip


def contract(**columns: Any) -> Contract:
    """Return a contract that takes some columns."""
    key = next(iter(columns))
    asked, said = pa.DataFrameSchema(columns), pa.DataFrameSchema({key: column("string", "Key")})
    return Contract(name="odd", version="1.0.0", key=key, inputs=asked, outputs=said)


ALL = contract(**COLUMNS)
READER = Reader(ALL.input_fields, 3)
REQUIRED = Reader(contract(**{name: each for name, each in COLUMNS.items() if name != "maybe"}).input_fields, 3)
LISTED: TypeAdapter[list[Any]] = ALL.request_list


def by_pydantic(texts: list[str]) -> list[dict[str, Any]] | None:
    """Return the records as pydantic reads them; None where it refuses."""
    try:
        return [one.__dict__ for one in LISTED.validate_json(f"[{','.join(texts)}]".encode("latin-1"), strict=True)]
    except ValidationError:
        return None


def same(one: Any, other: Any) -> bool:
    """Return whether two lists of records hold the same values, of the same types, in the same order."""
    return repr(one if one is None else list(one)) == repr(other if other is None else list(other))


def body(*texts: str) -> bytes:
    return f'{{"records": [{",".join(texts)}]}}'.encode("latin-1")


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("value", ODD)
def test_a_value_is_read_as_pydantic_reads_it_or_left_to_it(name: str, value: str) -> None:
    members = {each: json.dumps(given) for each, given in RECORD.items()} | {name: value}
    text = "{" + ", ".join(f'"{each}": {given}' for each, given in members.items()) + "}"
    read, expected = READER.records(body(text)), by_pydantic([text])
    assert read is None or same(read, expected)
    assert READER.record(text.encode("latin-1")) == (None if read is None else read[0])
    if read is not None and name != "maybe" and (kept := REQUIRED.sent(body(text))) is not None:
        collected = orjson.dumps({"records": orjson.loads(kept)})
        assert same(REQUIRED.records(collected), REQUIRED.records(body(text)))


VALUES = {
    "key": st.text(max_size=6), "grade": st.sampled_from(["a", "b", "c"]), "count": st.integers() | st.floats(),
    "few": st.integers(-1, 6), "share": st.floats(-2, 101) | st.integers(-2, 101), "any": st.floats(allow_nan=False),
    "known": st.booleans() | st.none(), "day": st.dates().map(str), "maybe": st.floats(allow_nan=False) | st.none(),
    "other": st.none(),
}  # fmt: skip


@given(st.fixed_dictionaries({}, optional=VALUES).map(lambda some: {**RECORD, **some}))
@example({**RECORD, "maybe": None})
@example(RECORD)
def test_a_record_is_read_as_pydantic_reads_it_or_left_to_it(record: dict[str, Any]) -> None:
    text = json.dumps(record)
    read = READER.records(body(text))
    assert read is None or same(read, by_pydantic([text]))


def test_what_keeps_the_contract_is_read_at_once() -> None:
    text = json.dumps(RECORD)
    assert same(READER.records(body(text, text)), by_pydantic([text, text]))
    assert READER.record(text.encode()) == READER.records(body(text))[0]


@pytest.mark.parametrize(
    "sent",
    [b"", b"[]", b"{}", b'{"records": []}', b'{"records": [{}]}', b"\xef\xbb\xbf" + body(json.dumps(RECORD)),
     body(*[json.dumps(RECORD)] * 4), body(json.dumps({**RECORD, "other": 1})), body(json.dumps(RECORD)) + b"x",
     b'{"more": 1, ' + body(json.dumps(RECORD))[1:]],
)  # fmt: skip
def test_what_breaks_the_contract_is_left_to_pydantic(sent: bytes) -> None:
    assert READER.records(sent) is None


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("key", column("string", "Key", pattern="K[0-9]"), "K1"),
        ("key", column("date-time", "Moment"), "2026-01-01T00:00:00Z"),
        ("a key", column("string", "Key"), "K1"),
        ("__dict__", column("string", "Key"), "K1"),
        ("key", column("integer", "Key", ge=-(10**30)), 1),
    ],
)
def test_a_contract_that_the_two_understand_differently_is_pydantics(name: str, field: pa.Column, value: Any) -> None:
    reader, text = Reader(contract(**{name: field}).input_fields, 3), json.dumps({name: value})
    assert reader.records(body(text)) is None and reader.record(text.encode()) is None


@pytest.mark.parametrize("field", [column("integer", "Key", ge=0.0, le=5.0), column("number", "Key", ge=0, le=5)])
def test_limits_may_be_written_either_way(field: pa.Column) -> None:
    reader = Reader(contract(key=field).input_fields, 3)
    assert reader.records(body('{"key": 5}')) == [{"key": 5}] and reader.records(body('{"key": 6}')) is None


PLAIN = Reader(contract(key=COLUMNS["key"], share=COLUMNS["share"]).input_fields, 9)
ONE = b'{"key": "K", "share": 1}'


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (b'{"records": [' + ONE + b"]}", b"[" + ONE + b"]"),
        (b' {"r\\u0065cords" :[' + ONE + b"," + ONE + b"] } ", b"[" + ONE + b"," + ONE + b"]"),
        (b'{"records": [{"key": "[", "share": 1}]}', b'[{"key": "[", "share": 1}]'),
        (b'{"records": [{"key": "]", "share": 1}]}', None),
        (b'{"records": [' + ONE + b",\n" + ONE + b"]}", None),
        (b'{"records": [' + ONE + b",\r" + ONE + b"]}", None),
        (b'{"records": [' + ONE + b'], "records": [' + ONE + b"]}", None),
        (b'{"records": [' + ONE + b'], "r\\u0065cords": [' + ONE + b"]}", None),
        (b'{"records": [' + ONE + b" " * 2**20 + b"]}", None),
    ],
)
def test_only_the_text_of_what_was_read_is_kept_on_one_line(sent: bytes, kept: bytes | None) -> None:
    assert PLAIN.sent(sent) == kept
    if kept is not None:
        assert list(PLAIN.records(sent) or ()) == orjson.loads(kept)


def test_the_text_is_not_kept_where_it_may_leave_something_out() -> None:
    reader = Reader(contract(key=COLUMNS["key"], share=column("number", "Share", nullable=True)).input_fields, 9)
    sent = b'{"records": [{"key": "K"}]}'
    assert reader.records(sent) == [{"key": "K", "share": None}] and reader.sent(sent) is None


def test_records_are_columns_and_dicts() -> None:
    first, second = {**RECORD, "maybe": None}, {**RECORD, "key": "L", "maybe": 2.5}
    text = orjson.dumps({"records": [RECORD, second]})
    read, dicts = READER.records(text), [each | {"day": date(2026, 1, 2)} for each in (first, second)]
    assert read is not None and len(read) == 2 and list(read) == dicts == read[:] and read[1] == read[-1] == dicts[1]
    assert [list(values_of(read, name)) for name in (*COLUMNS, "other")] == [
        list(values_of(dicts, name)) for name in (*COLUMNS, "other")
    ]
    assert to_frame(ALL.input_fields, read).equals(to_frame(ALL.input_fields, dicts))
    assert pd.DataFrame(read).equals(pd.DataFrame(dicts))


def logged(model: Any, folder: Path, *texts: str) -> list[bytes]:
    """Return the lines that a service logs of some bodies."""
    served, book = ServedModel(model, "mean_units", 1, {}, {}), Logbook(folder)
    client = LocalClient(create_app(lambda: served, ServiceContext(logbook=book)))
    assert [client.post("/predict", content=text).status_code for text in texts] == [200] * len(texts)
    book.close()
    (file,) = folder.glob("*.jsonl")
    return file.read_bytes().splitlines()


@pytest.mark.parametrize("side", ["inputs", "outputs"])
def test_a_personal_value_is_not_logged_as_it_was_sent(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str
) -> None:
    model = load_version(train(settings), settings)
    schema = getattr(model.contract, side)
    hidden = schema.update_column("product_id", metadata={**schema.columns["product_id"].metadata, "personal": "drop"})
    monkeypatch.setattr(model, "contract", replace(model.contract, **{side: hidden}))
    (line,) = logged(model, tmp_path, '{"records": [{"product_id": "P001", "day": "2024-01-01"}]}')
    assert b"P001" not in line and b"2024-01-01" in line


def test_the_log_holds_what_was_sent_and_what_was_meant(settings: Settings, tmp_path: Path) -> None:
    once, twice = (
        '{"product_id": "P001", "day": "2024-01-01"}',
        '{"day": "2024-01-03", "product_id": "P002",  "day": "2024-01-02"}',
    )
    model = load_version(train(settings), settings)
    texts = [f'{{"records": [{once},{twice}]}}', f'{{"records": [{once},\n{twice}]}}']
    verbatim, rewritten = logged(model, tmp_path, *texts)
    assert f'"inputs":[{once},{twice}]'.encode() in verbatim and twice.encode() not in rewritten
    assert orjson.loads(verbatim)["inputs"] == orjson.loads(rewritten)["inputs"]


def test_what_takes_several_lines_is_logged_a_part_in_each(settings: Settings, tmp_path: Path) -> None:
    once = '{"product_id": "P001", "day": "2024-01-01"}'
    model = load_version(train(settings), settings)
    lines = logged(model, tmp_path, f'{{"records": [{",".join([once] * (LINE + 2))}]}}')
    assert [len(orjson.loads(each)["inputs"]) for each in lines] == [LINE, 2]
