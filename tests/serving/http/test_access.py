"""Who is let in, in one place: each way to be refused, over real HTTP, by the model's service and where decisions are made."""

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import jsonschema
import pytest
from sqlalchemy import func, select

from d2c_mlops.decisions.app import DecisionApp, Dependencies
from d2c_mlops.decisions.decision_rows import find_decision, list_decisions
from d2c_mlops.decisions.server import application_dependencies
from d2c_mlops.decisions.signed_links import action_links
from d2c_mlops.decisions.signed_links import link_secrets as link_keys
from d2c_mlops.decisions.verdicts import apply_deadlines, create_decisions
from d2c_mlops.errors import UsageError
from d2c_mlops.ledger.schema import decision_events, decision_links
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.serving.app.app import ServedModel, ServiceContext, create_app
from d2c_mlops.serving.http import api_keys as keys
from d2c_mlops.serving.http.api_keys import ASK as ASKING
from d2c_mlops.serving.http.api_keys import DECIDE, Keyring
from d2c_mlops.serving.state_paths import keys_file
from d2c_mlops.settings import Settings
from support.decisions_shop import predicted, shop
from support.http_server import listening
from support.lead_service import ASK, Lead

SECRET = "a-secret-for-links-of-more-than-sixteen-bytes"
NOW = datetime.now(UTC)
PAGE = {"accept": "text/html"}
REFUSED = [
    ("none", "no key", 401),
    ("wrong", "wrong key", 401),
    ("garbage", "wrong key", 401),
    ("expired", "expired key", 401),
    ("revoked", "revoked key", 401),
    ("other", "key of another model", 403),
    ("scope", "key without the scope", 403),
]


def tokens(file: Path, model: str, scope: str, other_scope: str) -> dict[str, str]:
    """Return a key of each kind."""
    day = timedelta(days=1)
    made = {
        "right": keys.create_key(file, "jo", [model], now=NOW, scopes=[scope])[1],
        "other": keys.create_key(file, "shop", ["demand"], now=NOW, scopes=[scope])[1],
        "scope": keys.create_key(file, "crm", [model], now=NOW, scopes=[other_scope])[1],
        "expired": keys.create_key(file, "old", [model], now=NOW - 2 * day, lifetime=day, scopes=[scope])[1],
    }
    gone, made["revoked"] = keys.create_key(file, "gone", [model], now=NOW, scopes=[scope])
    keys.revoke_key(file, gone.id, now=NOW)
    made["wrong"], made["garbage"] = made["right"][:-4] + "abcd", "d2c__"
    return made


def sent(made: dict[str, str], which: str) -> dict[str, str]:
    return {} if which == "none" else {"authorization": f"Bearer {made[which]}"}


def secrets_of(made: dict[str, str]) -> list[str]:
    return [token.split("_", 2)[2] for token in made.values() if len(token) > 20]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> pytest.LogCaptureFixture:
    """What is logged, as a service would write it."""
    for name in ("d2c.service", "d2c.decisions"):
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
        caplog.set_level("INFO", name)
    return caplog


def reasons(log: pytest.LogCaptureFixture) -> list[str]:
    return [record.facts["reason"] for record in log.records if record.message == "caller refused"]


def says_no_secret(log: pytest.LogCaptureFixture, *secrets: str) -> None:
    text = "\n".join(
        f"{record.getMessage()} {getattr(record, 'facts', '')} {record.exc_text}" for record in log.records
    )
    assert not [each for each in secrets if each in text]


def is_problem(answer: httpx.Response, status: int) -> None:
    """Whether an answer is an error body of RFC 9457 that tells nothing of our insides."""
    assert answer.status_code == status and answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status and body["title"] and body["detail"] and "Traceback" not in answer.text


# --- the model's service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, dict[str, str]]]:
    file = tmp_path_factory.mktemp("keys") / "keys.json"
    made = tokens(file, "leads", ASKING, DECIDE)
    served = ServedModel(Lead(), "leads", 7, {}, ASK)
    with listening(create_app(lambda: served, ServiceContext(keyring=Keyring(file)))) as url:
        yield url, made


@pytest.mark.parametrize(("which", "reason", "status"), REFUSED)
@pytest.mark.parametrize("path", ["/predict", "/explain", "/feedback"])
def test_the_service_refuses_and_logs(service: Any, log: Any, path: str, which: str, reason: str, status: int) -> None:
    url, made = service
    answer = httpx.post(url + path, json={"records": [ASK]}, headers=sent(made, which))
    is_problem(answer, status)
    assert ("www-authenticate" in answer.headers) == (status == 401)
    (said,) = reasons(log)
    assert said.startswith(reason)
    says_no_secret(log, *secrets_of(made))
    assert f'reason="{said}"' in httpx.get(f"{url}/metrics").text


def test_the_service_lets_the_right_key_in(service: Any) -> None:
    url, made = service
    answer = httpx.post(f"{url}/predict", json={"records": [ASK]}, headers=sent(made, "right"))
    assert answer.status_code == 200 and answer.json()["predictions"][0]["score"] == 0.3


# --- where decisions are made


@dataclass
class Place:
    """A desk that listens, with a decision that waits."""

    url: str
    keys: dict[str, str]
    settings: Settings
    ledger: Ledger
    id: str
    desk: Dependencies

    def link(self, action: str, by: str = "jo") -> str:
        known = link_keys(self.settings)
        return action_links(find_decision(self.ledger, self.id), by, self.url, known[0])[action]

    @property
    def status(self) -> str:
        return find_decision(self.ledger, self.id).status


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setenv("D2C_SECRET_LINKS", SECRET)
    held, ledger, policy = shop(
        tmp_path, "allow = price >= cost", "deciders = jo ann", more="[decisions]\nlinks = secret:LINKS\n"
    )
    made = tokens(keys_file(held), "price", DECIDE, ASKING)
    made["eve"] = keys.create_key(keys_file(held), "eve", ["price"], now=NOW, scopes=[DECIDE])[1]
    predicted(ledger, "P-1", 20.0, at=NOW)
    create_decisions(ledger, policy, NOW)
    at = application_dependencies(held, ledger)
    with listening(DecisionApp(at)) as url:
        yield Place(url, made, held, ledger, list_decisions(ledger)[0].id, at)
    ledger.close()


@pytest.mark.parametrize(("which", "reason", "status"), REFUSED)
def test_decisions_are_not_shown_or_made_with_such_a_key(
    place: Place, log: Any, which: str, reason: str, status: int
) -> None:
    headers = sent(place.keys, which)
    asked = [("POST", f"/decisions/{place.id}/{action}") for action in ("approve", "reject", "edit")]
    asked += [("GET", f"/decisions/{place.id}"), ("GET", "/decisions?model=price")]
    for method, path in asked:
        is_problem(httpx.request(method, place.url + path, headers=headers), status)
    assert len(reasons(log)) == len(asked) and all(each.startswith(reason) for each in reasons(log))
    assert place.status == "pending"
    says_no_secret(log, *secrets_of(place.keys))
    assert f'reason="{reasons(log)[0]}"' in httpx.get(f"{place.url}/metrics").text


def test_a_key_lists_the_decisions_of_its_models_alone(place: Place) -> None:
    def seen(which: str) -> list[dict[str, Any]]:
        return httpx.get(f"{place.url}/decisions", headers=sent(place.keys, which)).json()["decisions"]

    assert [each["id"] for each in seen("right")] == [place.id] and seen("other") == []
    assert seen("right")[0]["inputs"] == {"sku": "P-1", "current_price": 10.0, "cost": 5.0}


def test_with_the_right_key_a_decision_is_made_once(place: Place, log: Any) -> None:
    headers, path = sent(place.keys, "right"), f"{place.url}/decisions/{place.id}"
    is_problem(httpx.post(f"{path}/approve", headers=sent(place.keys, "eve")), 403)
    typed = {**headers, "content-type": "application/json"}
    for body, status in (
        (b"{", 400),
        (b'{"valeu": 1}', 400),
        (b'{"value": 3, "reason": "x"}', 422),
        (b'{"value": 9}', 422),
        (b'{"reason": 1}', 400),
    ):
        is_problem(httpx.post(f"{path}/edit", content=body, headers=typed), status)
    is_problem(httpx.post(f"{path}/approve", json={"value": 9}, headers=headers), 400)
    for limit in ("1001", "-1", "many", "1" * 9):
        is_problem(httpx.get(f"{place.url}/decisions?limit={limit}", headers=headers), 400)
    made = httpx.post(f"{path}/edit", json={"value": 19.5, "reason": "round"}, headers=headers)
    assert made.status_code == 200 and (made.json()["status"], made.json()["by"]) == ("edited", "jo")
    again = httpx.post(f"{path}/edit", json={"value": 19.5, "reason": "round"}, headers=headers)
    assert again.status_code == 200 and again.headers["idempotency-replayed"] == "true"
    is_problem(httpx.post(f"{path}/reject", headers=headers), 409)
    assert reasons(log) == ["not a decider"]
    is_problem(httpx.get(f"{place.url}/decisions/{'0' * 24}", headers=headers), 404)
    is_problem(httpx.get(f"{path}/approve", headers=headers), 405)
    assert httpx.get(f"{path}/approve").headers["allow"] == "POST"
    is_problem(httpx.post(f"{path}/approve", content=b"x" * 20_000, headers=headers), 413)


def modern(schema: Any, whole: dict[str, Any]) -> Any:
    """Return a schema of OpenAPI 3.0 as JSON Schema says it, references filled in."""
    if isinstance(schema, list):
        return [modern(each, whole) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return modern(whole["components"]["schemas"][schema["$ref"].rpartition("/")[2]], whole)
    made = {name: modern(each, whole) for name, each in schema.items()}
    if made.pop("nullable", False) and "type" in made:
        made["type"] = [made["type"], "null"]
    return made


def test_the_openapi_document_describes_what_is_answered(place: Place) -> None:
    told = httpx.get(f"{place.url}/openapi.json").json()
    patterns = [pattern for pattern, _ in DecisionApp(place.desk).routes]
    verdicts = [f"/decisions/{{id}}/{action}" for action in ("approve", "reject", "edit")]
    asked = ["/decisions", "/decisions/{id}", *verdicts, "/d/{id}/{action}"]
    assert set(told["paths"]) == set(asked), "what people open and what machines watch is not described"
    for path in asked:
        real = path.replace("{id}", place.id).replace("{action}", "edit")
        assert [each for each in patterns if each.fullmatch(real)], path
    headers, found = sent(place.keys, "right"), f"{place.url}/decisions/{place.id}"
    answers = [
        ("/decisions", "get", httpx.get(f"{place.url}/decisions?limit=5", headers=headers)),
        ("/decisions/{id}", "get", httpx.get(found, headers=headers)),
        ("/decisions/{id}/edit", "post", httpx.post(f"{found}/edit", json={"value": 3}, headers=headers)),
        (
            "/decisions/{id}/edit",
            "post",
            httpx.post(f"{found}/edit", json={"value": 19.5, "reason": "round"}, headers=headers),
        ),
        ("/decisions/{id}/reject", "post", httpx.post(f"{found}/reject", headers=headers)),
        ("/decisions/{id}", "get", httpx.get(found, headers=headers)),
        ("/decisions/{id}", "get", httpx.get(found)),
        ("/decisions/{id}", "get", httpx.get(f"{place.url}/decisions/{'0' * 24}", headers=headers)),
        ("/d/{id}/{action}", "post", httpx.post(place.link("approve"))),
    ]
    assert [answer.status_code for *_, answer in answers] == [200, 200, 422, 200, 409, 200, 401, 404, 409]
    for path, method, answer in answers:
        media = told["paths"][path][method]["responses"][str(answer.status_code)]["content"]
        schema = media[answer.headers["content-type"]]["schema"]
        jsonschema.validate(answer.json(), modern(schema, told))


def test_a_link_shows_a_page_that_decides_nothing_and_its_button_decides(place: Place, log: Any) -> None:
    link = place.link("approve")
    for _ in range(3):
        page = httpx.get(link, headers=PAGE)
        assert page.status_code == 200 and "P-1" in page.text and "Price to ask 20.00 EUR" in page.text
    assert httpx.head(link).status_code == 200 and place.status == "pending"
    assert page.headers["cache-control"] == "no-store" and page.headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    done = httpx.post(link, headers=PAGE, data={"reason": "fine"})
    assert done.status_code == 200 and "approved" in done.text
    found = find_decision(place.ledger, place.id)
    assert (found.status, found.by, found.reason) == ("approved", "jo", "fine")
    with place.ledger.read() as connection:
        hows = connection.execute(select(decision_events.c.how).order_by(decision_events.c.id)).scalars().all()
    assert hows == ["policy", "link"]
    says_no_secret(log, SECRET, *parse_qs(urlsplit(link).query)["signature"], *parse_qs(urlsplit(link).query)["nonce"])


def test_a_replayed_link_is_refused_and_logged(place: Place, log: Any) -> None:
    link = place.link("approve")
    assert httpx.post(link).status_code == 200
    for method in ("POST", "GET"):
        is_problem(httpx.request(method, link), 410)
    assert reasons(log) == ["replayed link"] * 2
    page = httpx.post(link, headers=PAGE)
    assert page.status_code == 410 and "used" in page.text and "text/html" in page.headers["content-type"]


def test_another_link_to_what_is_decided_changes_nothing(place: Place) -> None:
    approve, reject = place.link("approve"), place.link("reject", "ann")
    assert httpx.post(approve).status_code == 200
    is_problem(httpx.get(reject), 409)
    is_problem(httpx.post(reject), 409)
    assert place.status == "approved"


CHANGES = [
    {"by": ["ann"]}, {"expires": ["99999999999"]}, {"nonce": ["another"]}, {"signature": ["0" * 64]}, {"signature": [""]},
    {"signature": ["é" * 64]}, {"expires": ["soon"]}, {"expires": ["-1"]}, {"by": ["jo\nadmin"]},
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_tampered_link_is_refused_and_logged(place: Place, log: Any, change: dict[str, list[str]]) -> None:
    head, _, query = place.link("approve").partition("?")
    link = f"{head}?{urlencode(parse_qs(query) | change, doseq=True)}"
    for method in ("GET", "POST"):
        is_problem(httpx.request(method, link), 403)
    assert reasons(log) == ["tampered link"] * 2 and place.status == "pending"


def test_a_link_to_one_thing_opens_no_other(place: Place, log: Any) -> None:
    link = place.link("reject")
    for other in (link.replace("/reject?", "/approve?"), link.replace(place.id, "0" * 24), link.partition("?")[0]):
        is_problem(httpx.post(other), 403)
    assert reasons(log) == ["tampered link"] * 3 and place.status == "pending"


def test_an_expired_link_is_refused_and_logged(place: Place, log: Any) -> None:
    link = place.link("approve")
    place.desk.clock = lambda: NOW + timedelta(hours=24, seconds=1)
    for method in ("GET", "POST"):
        is_problem(httpx.request(method, link), 410)
    assert reasons(log) == ["expired link"] * 2 and place.status == "pending"


def test_a_link_of_somebody_who_may_not_decide_is_refused_and_logged(place: Place, log: Any) -> None:
    is_problem(httpx.post(place.link("approve", "eve")), 403)
    assert reasons(log) == ["not a decider"] and place.status == "pending"


def test_a_value_against_the_limits_leaves_the_link_usable(place: Place) -> None:
    link = place.link("edit")
    for value in ("3", "lots", "", "NaN", "1e999"):
        answer = httpx.post(link, headers=PAGE, data={"value": value, "reason": "x"})
        assert answer.status_code == 422 and "<form" in answer.text, value
    assert httpx.post(link, headers=PAGE, data={"value": "19.5", "reason": "round"}).status_code == 200
    assert (place.status, find_decision(place.ledger, place.id).value) == ("edited", 19.5)


def test_a_former_secret_is_accepted_and_an_unknown_one_is_not(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    link = place.link("approve")
    place.desk.links = [b"another secret of many bytes"]
    is_problem(httpx.get(link), 403)
    place.desk.links = [b"another secret of many bytes", SECRET.encode()]
    assert httpx.get(link).status_code == 200


def test_one_of_many_clicks_at_once_decides(place: Place) -> None:
    from concurrent.futures import ThreadPoolExecutor

    link = place.link("approve")
    with ThreadPoolExecutor(8) as pool:
        found = sorted(pool.map(lambda _: httpx.post(link, timeout=60).status_code, range(8)))
    assert found == [200] + [410] * 7
    with place.ledger.read() as connection:
        assert connection.execute(select(func.count()).select_from(decision_links)).scalar() == 1


def test_what_people_wrote_is_no_markup(place: Place) -> None:
    policy_now = NOW + timedelta(minutes=1)
    from d2c_mlops.decisions.policy import Policy

    bad = "<script>alert(1)</script>"
    predicted(place.ledger, "P<b>", 21.0, at=NOW, reasons=[bad])
    create_decisions(place.ledger, Policy.of("price", place.settings), policy_now)
    found = next(each for each in list_decisions(place.ledger) if each.title == "P<b>")
    link = action_links(found, "jo", place.url, SECRET.encode())["approve"]
    page = httpx.get(link, headers=PAGE).text
    assert bad not in page and "P<b>" not in page and "&lt;script&gt;" in page


def test_nobody_serves_what_nobody_could_open(tmp_path: Path) -> None:
    held, ledger, _ = shop(tmp_path)
    with pytest.raises(UsageError, match="nobody can decide"):
        application_dependencies(held, ledger)


def test_a_short_secret_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("D2C_SECRET_LINKS", "hunter2")
    held, ledger, _ = shop(tmp_path, more="[decisions]\nlinks = secret:LINKS\n")
    with pytest.raises(UsageError, match="shorter than 16") as refused:
        application_dependencies(held, ledger)
    assert "hunter2" not in json.dumps(refused.value.to_dict())


def test_settle_and_metrics_are_open_to_nobody_but_figures(place: Place) -> None:
    from d2c_mlops.decisions.policy import Policy

    apply_deadlines(place.ledger, Policy.of("price", place.settings), NOW)
    text = httpx.get(f"{place.url}/metrics").text
    assert 'd2c_decisions{model="price",status="pending"} 1.0' in text and "P-1" not in text
    assert httpx.get(f"{place.url}/readyz").text == "ok\n"
