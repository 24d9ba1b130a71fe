"""Whatever is sent is answered with a refusal that says what is wrong, never with a failure of the service."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from d2c_mlops.decisions.app import DecisionApp, Dependencies
from d2c_mlops.decisions.decision_rows import list_decisions
from d2c_mlops.decisions.policy import parse_value
from d2c_mlops.decisions.rules import DecisionRule
from d2c_mlops.decisions.verdicts import create_decisions
from d2c_mlops.errors import DataRefused, UsageError
from d2c_mlops.models.core.contract import Field
from d2c_mlops.serving.app.app import ServiceContext
from d2c_mlops.serving.http import api_keys as keys
from d2c_mlops.serving.http.api_keys import Keyring
from d2c_mlops.serving.log.log_segments import Logbook
from support.decisions_shop import NOW, clock, predicted, shop
from support.lead_service import ASK, asking

REPEATED = given_settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
HUGE = "9" * 5000
NUMBERS = ["1e999", "-1e999", "1e-999", HUGE, f"-{HUGE}", f"{HUGE}.5", f"1e{HUGE}", str(2**63), str(2**64), str(-(2**64)), "NaN", "Infinity", "1" * 900]  # fmt: skip
TEXTS = ["", "\x00", "²", "🙂" * 50, "a" * 10_000, "a.²-0", "%00", "../..", "' OR 1=1 --", "\u202e", "1\n2"]
RAW = st.one_of(st.sampled_from(NUMBERS), st.sampled_from(TEXTS).map(json.dumps), st.sampled_from(['"\\ud800"', "[" * 3000, "null", "true", "{}", "[]"]),
                st.text(max_size=20).map(json.dumps))  # fmt: skip


def body(fields: dict[str, str]) -> bytes:
    return ("{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in fields.items()) + "}").encode()


def refused_or_taken(status: int) -> bool:
    return 200 <= status < 300 or 400 <= status < 500


# --- the model's service


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    book = Logbook(tmp_path_factory.mktemp("log"))
    yield asking(ServiceContext(logbook=book))
    book.close()


@REPEATED
@given(
    st.dictionaries(st.sampled_from(["action", "prediction_id", "key", "reason", "value", "at", "²"]), RAW),
    st.sampled_from(["followed", "overridden", "outcome"]),
)
def test_any_feedback_is_taken_or_refused(client, fields: dict[str, str], action: str) -> None:
    answer = client.post("/feedback", content=body({**fields, "action": json.dumps(action)}))
    assert refused_or_taken(answer.status_code), answer.text
    assert refused_or_taken(client.post("/feedback", content=body(fields)).status_code)


@REPEATED
@given(
    st.dictionaries(st.sampled_from(["lead_id", "visits", "mail", "day", "²"]), RAW),
    st.sampled_from(["/predict", "/explain", "/v1/predict"]),
    st.booleans(),
)
def test_any_record_is_answered_or_refused(client, fields: dict[str, str], path: str, stream: bool) -> None:
    record = body({"lead_id": '"L-1"', "visits": "3", **fields})
    sent = record if stream else b'{"records": [%s]}' % record
    head = {"content-type": "application/x-ndjson"} if stream else {}
    answer = client.post(path, content=sent, headers=head)
    assert refused_or_taken(answer.status_code), answer.text


@REPEATED
@given(st.one_of(st.binary(max_size=60), RAW.map(str.encode)), st.sampled_from(["/predict", "/explain", "/feedback"]))
def test_any_body_is_refused(client, sent: bytes, path: str) -> None:
    assert 400 <= client.post(path, content=sent).status_code < 500


@pytest.mark.parametrize(
    "path",
    [
        f"/v{HUGE}/predict",
        "/v²/predict",
        "/v0/predict",
        f"/predict?{'&'.join(f'a{i}=1' for i in range(50))}",
        "/%00",
        "/v1/v1/predict",
    ],
)
@pytest.mark.parametrize("length", ["3", "9" * 30, HUGE, "-1", "²".encode(), "x"])
def test_any_path_and_length_is_answered(client, path: str, length: str) -> None:
    answer = client.post(path, content=json.dumps({"records": [ASK]}), headers={"content-length": length})
    assert refused_or_taken(answer.status_code), answer.text


@pytest.mark.parametrize(
    "header",
    [
        "authorization",
        "x-api-key",
        "idempotency-key",
        "x-request-id",
        "traceparent",
        "x-d2c-probe",
        "accept-encoding",
        "content-encoding",
        "host",
    ],
)
@pytest.mark.parametrize(
    "text",
    ["Bearer d2c_²_x".encode(), b"d2c_\xff_\xfe", b"x" * 5000, b"", b"d2c_" + HUGE.encode(), b"q=1;;;=,gzip;q=9"],
)
def test_any_header_is_answered(tmp_path: Path, header: str, text: bytes) -> None:
    file = tmp_path / "keys.json"
    keys.create_key(file, "crm", ["leads"], now=NOW)
    for keeping in (ServiceContext(), ServiceContext(keyring=Keyring(file))):
        client = asking(keeping)
        for path in ("/predict", "/contract", "/"):
            answer = client.request(
                "GET" if path != "/predict" else "POST",
                path,
                headers={header: text},
                content=json.dumps({"records": [ASK]}),
            )
            assert refused_or_taken(answer.status_code), answer.text


# --- where decisions are made


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TestClient, str, dict[str, str]]]:
    folder = tmp_path_factory.mktemp("shop")
    held, ledger, policy = shop(folder, "auto = price < 0")
    predicted(ledger, "P-1", 20.0)
    create_decisions(ledger, policy, NOW)
    (found,) = list_decisions(ledger)
    file = folder / "keys.json"
    token = keys.create_key(file, "jo", ["price"], now=NOW, scopes=["decide"])[1]
    app = DecisionApp(Dependencies(held, ledger, Keyring(file), [b"x" * 20], clock=clock(minutes=1)))
    yield TestClient(app, raise_server_exceptions=False), found.id, {"authorization": f"Bearer {token}"}
    ledger.close()


MANY = "&".join(f"a{i}=1" for i in range(21))
QUERIES = [MANY, f"limit={HUGE}", "limit=²", "limit=-1", "limit=1e3", "status=²", "model=%00", "status=%ff", "&" * 3000, f"expires={HUGE}&signature=x",
           "expires=²&signature=²", "expires=999999999999&signature=%F0%9F%99%82", f"by={'a' * 5000}"]  # fmt: skip


@pytest.mark.parametrize("query", QUERIES)
@pytest.mark.parametrize("path", ["/decisions", "/decisions/{id}", "/d/{id}/approve", "/d/{id}/edit", "/", "/metrics"])
def test_any_query_is_answered(desk: Any, path: str, query: str) -> None:
    client, id, head = desk
    for headers in ({}, head, {**head, "accept": "text/html"}):
        answer = client.get(f"{path.format(id=id)}?{query}", headers=headers)
        assert refused_or_taken(answer.status_code), answer.text
    assert query != MANY or answer.status_code == 400


@REPEATED
@given(st.dictionaries(st.sampled_from(["reason", "value", "²"]), RAW), st.sampled_from(["edit"]))
def test_any_edit_is_refused_that_is_no_price(desk: Any, fields: dict[str, str], action: str) -> None:
    client, id, head = desk
    typed = {**head, "content-type": "application/json"}
    answer = client.post(f"/decisions/{id}/{action}", content=body({**fields, "reason": '"why"'}), headers=typed)
    value = fields.get("value", "null")
    price = value.replace(".", "").isdigit() and len(value) < 10 and 0 <= float(value) <= 1000
    assert answer.status_code in (400, 413, 422) or price or value == "1e-999", (value[:50], answer.text[:200])


@pytest.mark.parametrize(
    "sent", [b"a=1&" * 30, b"\xff" * 100, b"value=" + HUGE.encode(), b"&" * 10_000, b"value=" + quote("²").encode()]
)
def test_any_form_of_a_link_is_answered(desk: Any, sent: bytes) -> None:
    client, id, _ = desk
    for action in ("approve", "edit"):
        assert 400 <= client.post(f"/d/{id}/{action}?by=jo", content=sent).status_code < 500


@pytest.mark.parametrize("text", [*NUMBERS, *TEXTS, "[" * 3000, "{}", "yes"])
def test_any_typed_value_is_read_or_refused(text: str) -> None:
    for kind in ("integer", "number", "boolean", "date", "date-time", "string"):
        try:
            parse_value(Field("price", kind, "x", max_length=20 if kind == "string" else None), text)
        except DataRefused as err:
            assert len(err.what) < 400


# --- rules


LONG = {
    "a sum of 800 characters": "price" + "+1" * 396 + " > 3",
    "800 minus signs": "-" * 790 + "1 > price",
    "brackets": "(" * 390 + "1" + ")" * 390 + " > price",
    "attributes": "inputs" + ".a" * 390 + " > 1",
    "not after not": "not " * 198 + "price > 1",
    "a literal of 900 digits": "price > " + "9" * 900,
    "a negative literal of 900 digits": "price > -" + "9" * 900,
    "a hexadecimal one": "price > 0x" + "f" * 700,
    "one in a list": "price in (1, " + "9" * 900 + ")",
    "a fraction that is infinite": "price > 1" + "0" * 400 + ".5",
    "a literal of 5,000 digits": "price > " + HUGE,
    "a power written in words": "price" + "*9" * 390 + " > 1",
}  # fmt: skip


@pytest.mark.parametrize("text", LONG.values(), ids=LONG.keys())
def test_a_long_rule_is_refused_with_what_is_wrong(text: str) -> None:
    with pytest.raises(UsageError) as err:
        DecisionRule.of(text, "[decisions:price] auto")
    assert "rule" in err.value.what and "[decisions:price] auto" in err.value.where


@pytest.mark.parametrize("value", [10**5000, -(10**400), 2**64, 1e308, 10**34 - 1], ids="abcde")
def test_a_rule_holds_for_any_number_of_a_prediction(value: float) -> None:
    rule = DecisionRule.of("price * 2 > 1 or price < 0")
    assert rule.holds({}, {"price": value}) is True


def test_a_wide_rule_of_a_thousand_characters_is_read() -> None:
    assert DecisionRule.of("price in (" + "1, " * 300 + "10)").holds({}, {"price": 10.0})
    assert not DecisionRule.of("price > 1" + " and price > 1" * 60 + " and price > 99").holds({}, {"price": 10.0})
