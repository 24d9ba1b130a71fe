"""Predictions become decisions once, inside guardrails, and what is decided is applied once, whatever is killed when."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st
from sqlalchemy import func, select

from d2c_mlops.cli import main
from d2c_mlops.decisions.apply import apply_again, apply_due
from d2c_mlops.decisions.apply_targets import webhook_signature
from d2c_mlops.decisions.cycle import run_cycle
from d2c_mlops.decisions.decision_rows import decision_id_of, find_decision, list_decisions
from d2c_mlops.decisions.decision_statistics import decision_stats, metrics_text, quantile
from d2c_mlops.decisions.notifications import notify_deciders
from d2c_mlops.decisions.rules import DecisionRule, NotEvaluable
from d2c_mlops.decisions.verdicts import DecisionClosed, NotAllowed, apply_deadlines, create_decisions, decide
from d2c_mlops.errors import DataRefused, SettingsError, UsageError
from d2c_mlops.ledger.schema import decision_events, decisions, feedback, versions
from d2c_mlops.ledger.store import Ledger
from support.decisions_shop import AUTO, CONTRACT, NOW, Receiver, clock, predicted, shop

TRIALS = int(os.environ.get("CRASH_TRIALS", "2"))


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def statuses(ledger: Ledger) -> dict[str, str]:
    return {each.title: each.status for each in list_decisions(ledger) if each.verdict != "superseded"}


# --- the language of rules


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')", "price.__class__ == 1", "().__class__.__bases__", "open('x') == 1", "price[0] > 1",
        "lambda: 1", "[p for p in (1, 2)] == 1", "price ** 9 > 1", "f'{price}' == 'x'", "abs(*x) > 1", "max(1, 2, key=abs) > 1",
        "(price := 3) > 1", "price if price else 1", "inputs.cost.real > 1", "abs.__call__(1) > 1", "outputs > 1 < eval('1')",
        "price + 1", "abs(price)", "1", "'yes'", "price > 1; price", "", "not " * 60 + "price", "price in inputs", "price is None",
        "price % 2 == 0", "price << 9 > 1", "{1: 2} == 1", "await price", "print(price)", "1e999 > price", "b'x' == price",
    ],
)  # fmt: skip
def test_what_could_run_code_is_no_rule(text: str) -> None:
    with pytest.raises(UsageError, match="rule"):
        DecisionRule.of(text)


WORDS = ["price", "cost", "inputs", "outputs", "abs", "min", "eval", "__class__", "__import__", "1", "2.5", "'a'", "(", ")",
         ".", ",", "+", "-", "*", "/", "<=", "==", "in", "not", "and", "or", "[", "]", "lambda", ":", "if", "else", "for"]  # fmt: skip


class Trap(dict):
    """Values that shout when anything but a look-up by name is done with them."""

    def __getattribute__(self, name: str) -> object:
        assert name in ("get", "__class__", "__contains__"), name
        return super().__getattribute__(name)


@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)))
def test_any_text_is_refused_as_a_rule_or_walks_known_names_only(text: str) -> None:
    try:
        rule = DecisionRule.of(text)
    except UsageError:
        return
    assert all(side in ("", "inputs", "outputs") for side, _ in rule.names)
    with suppress(NotEvaluable):
        assert rule.holds(Trap(cost=5.0), Trap(price=4.0)) in (True, False)


@given(st.decimals(1, 1000, places=2), st.integers(-5000, 5000))
def test_five_percent_is_within_five_percent_to_the_last_cent(current, points) -> None:
    price = float(current * (10_000 + points) / 10_000)
    inside = DecisionRule.of(AUTO).holds({"current_price": float(current)}, {"price": price})
    from decimal import Decimal

    assert inside == (abs(Decimal(repr(price)) - current) / current <= Decimal("0.05"))


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("price > cost and not price > 100", True), ("inputs.cost < outputs.price", True), ("sku in ('P-1', 'P-2')", True),
        ("sku not in ('P-1',)", False), ("1 < cost <= 5", True), ("-price < 0 or price / 0 > 1", True), ("missing == None", True),
        ("min(price, cost) == 5", True), ("max(price, cost, 11) == 11", True), ("call", True), ("not call", False),
        ("price / 0 > 1", None), ("missing == inputs.missing", None), ("not missing > 1", None), ("sku > 1", None), ("not odd > 1", None), ("call + 1 > 1", None),
        ("sku * 3 == 'x'", None), ("not sku", None),
    ],
)  # fmt: skip
def test_a_rule_holds_does_not_or_cannot_be_told(text: str, holds: bool | None) -> None:
    inputs = {"sku": "P-1", "cost": 5, "missing": None, "odd": float("nan")}
    rule = DecisionRule.of(text)
    if holds is None:
        with pytest.raises(NotEvaluable):
            rule.holds(inputs, {"price": 10.0, "call": True})
    else:
        assert rule.holds(inputs, {"price": 10.0, "call": True}) is holds


# --- proposing


@given_settings(max_examples=20)
@given(st.lists(st.tuples(st.sampled_from(["A", "B", "C"]), st.integers(1, 2000)), max_size=12), st.integers(0, 3))
def test_nothing_outside_the_guardrails_is_applied_unasked(rows, most) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as name:
        _, ledger, policy = shop(Path(name), f"auto = {AUTO}", "allow = price >= cost", f"max_auto = {most}")
        for i, (sku, cents) in enumerate(rows):
            predicted(ledger, sku, cents / 100, at=NOW + timedelta(seconds=i))
        create_decisions(ledger, policy, NOW + timedelta(minutes=1))
        found = list_decisions(ledger)
        assert len(found) == len(rows)
        for each in found:
            assert each.status != "auto" or 9.5 <= each.proposed <= 10.5
            assert each.status not in ("auto", "pending") or each.proposed >= 5
        live = [each for each in found if each.verdict != "superseded"]
        assert len({each.subject for each in live}) == len(live) == len({sku for sku, _ in rows})
        assert not most or sum(each.verdict == "auto" for each in found) <= most
        ledger.close()


@pytest.mark.parametrize("server", ["sqlite", "postgresql"])
def test_a_prediction_becomes_one_decision_whoever_else_proposes(server: str, tmp_path: Path, request) -> None:
    url = request.getfixturevalue("postgres") if server == "postgresql" else ""
    _, ledger, policy = shop(tmp_path, f"auto = {AUTO}", "max_auto = 5", url=url)
    for i in range(30):
        predicted(ledger, f"P-{i}", 10.1)
    predicted(ledger, "P-99", 10.1, variant="shadow")
    predicted(ledger, "P-98", 10.1, at=NOW - timedelta(days=8))
    others = [Ledger(ledger.url, 20) for _ in range(4)]
    together = [threading.Thread(target=create_decisions, args=(each, policy, NOW)) for each in others]
    for each in together:
        each.start()
    for each in together:
        each.join()
    found = list_decisions(ledger)
    assert sorted(each.title for each in found) == sorted(f"P-{i}" for i in range(30))
    assert sum(each.verdict == "auto" for each in found) == 5
    with ledger.read() as connection:
        assert connection.execute(select(func.count()).select_from(decision_events)).scalar() == 30
    for each in (*others, ledger):
        each.close()


def test_a_day_has_its_limit_and_the_next_day_another(tmp_path: Path) -> None:
    _, ledger, policy = shop(tmp_path, f"auto = {AUTO}", "max_auto = 2")
    for day in range(2):
        now = NOW + timedelta(days=day)
        for i in range(3):
            predicted(ledger, f"P-{day}{i}", 10.1, at=now + timedelta(seconds=i))
        told = create_decisions(ledger, policy, now + timedelta(minutes=1))
        assert (told.auto, told.pending) == (2, 1)
    predicted(ledger, "P-more", 10.1, at=now + timedelta(minutes=2))
    assert create_decisions(ledger, policy, now + timedelta(minutes=3)).pending == 1  # the same day again
    assert "max_auto" in next(each for each in list_decisions(ledger) if each.status == "pending").reason


def test_a_newer_prediction_closes_what_waits_and_an_older_one_does_not(tmp_path: Path) -> None:
    _, ledger, policy = shop(tmp_path, f"auto = {AUTO}")
    first = predicted(ledger, "P-1", 20)
    create_decisions(ledger, policy, NOW)
    second, late = (
        predicted(ledger, "P-1", 30, at=NOW + timedelta(hours=1)),
        predicted(ledger, "P-1", 40, at=NOW - timedelta(hours=1)),
    )
    create_decisions(ledger, policy, NOW + timedelta(hours=2))
    verdicts = {each.prediction_id: (each.status, each.verdict) for each in list_decisions(ledger)}
    assert verdicts == {first: ("expired", "superseded"), second: ("pending", None), late: ("expired", "superseded")}
    with pytest.raises(DecisionClosed, match="superseded"):
        decide(ledger, policy, decision_id_of(first), "approve", decider="jo", now=NOW + timedelta(hours=2))


def test_what_cannot_be_told_is_asked_and_what_is_not_allowed_is_rejected(tmp_path: Path) -> None:
    _, ledger, policy = shop(tmp_path, f"auto = {AUTO}", "allow = price >= cost")
    predicted(ledger, "unknown", 10.0, current=None)
    predicted(ledger, "cheap", 4.0)
    predicted(ledger, "no-cost", 10.0, inputs={"sku": "no-cost", "current_price": 10.0, "cost": None})
    create_decisions(ledger, policy, NOW)
    assert statuses(ledger) == {"unknown": "pending", "cheap": "rejected", "no-cost": "rejected"}


def test_looking_at_what_would_be_proposed_keeps_nothing(tmp_path: Path) -> None:
    _, ledger, policy = shop(tmp_path, f"auto = {AUTO}")
    predicted(ledger, "P-1", 10.1)
    assert create_decisions(ledger, policy, NOW, write=False).auto == 1
    assert list_decisions(ledger) == [] and create_decisions(ledger, policy, NOW).auto == 1


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["auto = cst > 1"], "cst: is neither"), (["auto = inputs.price > 1"], "price: is not one of the inputs"),
        (["auto = price + 1"], "is a value, not a condition"), (["apply = prices.csv"], "URL::TABLE"),
        (["apply = http://shop.example/x"], "unencrypted connection"),
    ],
)  # fmt: skip
def test_a_policy_that_does_not_fit_is_told(lines: list[str], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        _, ledger, policy = shop(tmp_path, *lines)
        predicted(ledger, "P-1", 10.0)
        create_decisions(ledger, policy, NOW)
        decide(ledger, policy, list_decisions(ledger)[0].id, "approve", decider="jo", now=NOW)
        apply_due(ledger, policy, clock=clock())
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "line",
    ["deadline = soon", "at_deadline = shrug", "sign = hunter2", "max_auto = -1", "nonsense = 1", "auto_apply = x"],
)
def test_settings_that_cannot_be_meant_are_refused(line: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as refused:
        shop(tmp_path, line)
    assert "[decisions:price]" in str(refused.value)


# --- deciding


@pytest.mark.parametrize(
    ("at_deadline", "status"), [("expire", "expired"), ("apply", "approved"), ("reject", "rejected")]
)
def test_at_the_deadline_happens_what_the_policy_says(at_deadline: str, status: str, tmp_path: Path) -> None:
    _, ledger, policy = shop(tmp_path, "deadline = 2h", f"at_deadline = {at_deadline}")
    predicted(ledger, "P-1", 20)
    create_decisions(ledger, policy, NOW)
    assert apply_deadlines(ledger, policy, NOW + timedelta(minutes=119)) == {status: 0}
    with pytest.raises(DecisionClosed, match="deadline"):
        decide(ledger, policy, list_decisions(ledger)[0].id, "approve", decider="jo", now=NOW + timedelta(hours=2))
    assert apply_deadlines(ledger, policy, NOW + timedelta(hours=2)) == {status: 1}
    assert apply_deadlines(ledger, policy, NOW + timedelta(hours=3)) == {status: 0}
    (found,) = list_decisions(ledger)
    assert (found.status, found.by) == (status, "deadline")


def test_only_those_who_may_decide_once_and_within_the_limits(tmp_path: Path) -> None:
    _, ledger, policy = shop(tmp_path, "allow = price >= cost", "deciders = jo ann")
    predicted(ledger, "P-1", 20)
    create_decisions(ledger, policy, NOW)
    id = list_decisions(ledger)[0].id
    with pytest.raises(NotAllowed):
        decide(ledger, policy, id, "approve", decider="eve", now=NOW)
    for value, said in (
        (4.0, "allow does not hold"),
        (2000.0, "less than or equal"),
        ("ten", "valid number"),
        (None, "required"),
    ):
        with pytest.raises(DataRefused, match=said):
            decide(ledger, policy, id, "edit", decider="jo", now=NOW, value=value, reason="x")
    made, new = decide(ledger, policy, id, "edit", decider="jo", now=NOW, value=15.0, reason="round")
    assert new and (made.status, made.value, made.proposed, made.reason) == ("edited", 15.0, 20, "round")
    assert decide(ledger, policy, id, "edit", decider="jo", now=NOW, value=15.0, reason="round") == (made, False)
    for action, by in (("approve", "jo"), ("reject", "ann")):
        with pytest.raises(DecisionClosed, match="already"):
            decide(ledger, policy, id, action, decider=by, now=NOW)


def test_two_who_decide_at_once_do_not_both(tmp_path: Path) -> None:
    _, ledger, policy = shop(tmp_path)
    predicted(ledger, "P-1", 20)
    create_decisions(ledger, policy, NOW)
    id, done = list_decisions(ledger)[0].id, []

    def one(by: str, action: str) -> None:
        try:
            done.append(decide(Ledger(ledger.url, 20), policy, id, action, decider=by, now=NOW)[1])
        except DecisionClosed:
            done.append(False)

    together = [threading.Thread(target=one, args=(f"p{i}", "approve" if i % 2 else "reject")) for i in range(8)]
    for each in together:
        each.start()
    for each in together:
        each.join()
    assert sorted(done) == [False] * 7 + [True]


# --- applying


def approved(ledger: Ledger, policy, sku: str = "P-1", price: float = 20.0):
    predicted(ledger, sku, price)
    create_decisions(ledger, policy, NOW)
    id = next(each.id for each in list_decisions(ledger) if each.title == sku)
    return decide(ledger, policy, id, "approve", decider="jo", now=NOW + timedelta(minutes=1))[0]


def test_a_web_hook_is_called_once_signed_with_the_decision_as_key(
    tmp_path: Path, receiver: Receiver, monkeypatch
) -> None:
    monkeypatch.setenv("D2C_SECRET_HOOK", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    _, ledger, policy = shop(tmp_path, f"apply = {receiver.url}", "sign = secret:HOOK")
    made = approved(ledger, policy)
    for expected in (1, 0):
        assert apply_due(ledger, policy, clock=clock(minutes=2)).applied == expected
    ((headers, body),) = receiver.calls
    told = json.loads(body)
    assert headers["idempotency-key"] == headers["webhook-id"] == told["decision_id"] == made.id
    assert (told["about"], told["field"], told["value"], told["by"]) == ({"sku": "P-1"}, "price", 20.0, "jo")
    moment = int(headers["webhook-timestamp"])
    assert headers["webhook-signature"] == webhook_signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", made.id, moment, body
    )
    found = find_decision(ledger, made.id)
    assert found.status == "applied" and found.applied_at == NOW + timedelta(minutes=2)
    with ledger.read() as connection:
        (heard,) = connection.execute(select(feedback)).all()
    assert (heard.action, heard.prediction_id) == ("followed", found.prediction_id)


def test_two_who_apply_at_once_call_once_each(tmp_path: Path, receiver: Receiver) -> None:
    _, ledger, policy = shop(tmp_path, f"auto = {AUTO}", f"apply = {receiver.url}")
    for i in range(10):
        predicted(ledger, f"P-{i}", 10.1)
    create_decisions(ledger, policy, NOW)
    receiver.slow, told = 0.02, []
    others = [Ledger(ledger.url, 20) for _ in range(3)]
    together = [
        threading.Thread(target=lambda each=each: told.append(apply_due(each, policy, clock=clock(minutes=1)).applied))
        for each in others
    ]
    for each in together:
        each.start()
    for each in together:
        each.join()
    assert sum(told) == len(receiver.calls) == len(receiver.applied) == 10


def test_a_signature_is_that_of_the_published_example() -> None:
    body = b'{"test": 2432232314}'
    made = webhook_signature("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_other_side_away_is_tried_again_later_and_then_a_dead_letter(tmp_path: Path, receiver: Receiver) -> None:
    _, ledger, policy = shop(tmp_path, f"apply = {receiver.url}", "tries = 3")
    made = approved(ledger, policy)
    receiver.status = 503
    assert apply_due(ledger, policy, clock=clock(minutes=1)).waiting == 1
    assert apply_due(ledger, policy, clock=clock(minutes=1, seconds=14)).waiting == 0 and len(receiver.calls) == 1
    receiver.headers = {"retry-after": "600"}
    assert apply_due(ledger, policy, clock=clock(minutes=2)).waiting == 1
    assert apply_due(ledger, policy, clock=clock(minutes=11)).waiting == 0 and len(receiver.calls) == 2
    assert apply_due(ledger, policy, clock=clock(minutes=13)).failed == 1
    assert find_decision(ledger, made.id).error == "HTTP 503"
    receiver.status = 200
    assert apply_again(ledger, policy, made.id, clock=clock(minutes=14)).status == "applied"
    assert receiver.applied == {made.id: [20.0]}


@pytest.mark.parametrize("status", [400, 302, 401])
def test_a_refusal_is_a_dead_letter_at_once_and_a_redirect_is_one(
    status: int, tmp_path: Path, receiver: Receiver
) -> None:
    _, ledger, policy = shop(tmp_path, f"apply = {receiver.url}")
    made = approved(ledger, policy)
    receiver.status, receiver.headers = status, {"location": "/login"}
    assert apply_due(ledger, policy, clock=clock(minutes=2)).failed == 1 and len(receiver.calls) == 1
    assert (find_decision(ledger, made.id).status, find_decision(ledger, made.id).error) == ("failed", f"HTTP {status}")


def test_what_is_outdated_is_not_applied(tmp_path: Path, receiver: Receiver) -> None:
    _, ledger, policy = shop(tmp_path, f"apply = {receiver.url}", "max_age = 1d")
    old = approved(ledger, policy)
    predicted(ledger, "P-1", 30, at=NOW + timedelta(hours=1))
    create_decisions(ledger, policy, NOW + timedelta(hours=2))
    newer = next(each for each in list_decisions(ledger) if each.proposed == 30)
    decide(ledger, policy, newer.id, "approve", decider="jo", now=NOW + timedelta(hours=2))
    told = apply_due(ledger, policy, clock=clock(hours=3))
    assert (told.applied, told.expired, receiver.applied) == (1, 1, {newer.id: [30]})
    assert find_decision(ledger, old.id).status == "expired"
    stale = approved(ledger, policy, "P-2")
    assert apply_due(ledger, policy, clock=clock(days=2)).expired == 1 and stale.id not in receiver.applied


def test_on_trial_all_is_decided_and_nothing_applied_not_even_afterwards(tmp_path: Path, receiver: Receiver) -> None:
    _, ledger, policy = shop(tmp_path, f"auto = {AUTO}", f"apply = {receiver.url}", "dry_run = true")
    predicted(ledger, "P-1", 10.1)
    create_decisions(ledger, policy, NOW)
    assert apply_due(ledger, policy, clock=clock(minutes=1)).dry_run == 1
    from dataclasses import replace

    real = replace(policy, options=replace(policy.options, dry_run=False))
    assert apply_due(ledger, real, clock=clock(minutes=1)).applied == 0 and receiver.calls == []


@pytest.mark.parametrize("server", ["sqlite", "postgresql"])
def test_a_table_has_the_decided_value_and_names_are_no_sql(server: str, tmp_path: Path, request) -> None:
    url = request.getfixturevalue("postgres") if server == "postgresql" else f"sqlite:///{tmp_path / 'shop.db'}"
    _, ledger, policy = shop(tmp_path, f"apply = {url}::prices")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE prices (sku VARCHAR(60) PRIMARY KEY, price FLOAT, name VARCHAR(20))"))
        connection.execute(sa.text("INSERT INTO prices VALUES ('P-1', 10, 'soap'), ('P-2', 10, 'tea')"))
    for sku in ("P-1", "x'); DROP TABLE prices; --"):
        approved(ledger, policy, sku)
    for expected in (2, 0):
        assert apply_due(ledger, policy, clock=clock(minutes=2)).applied == expected
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT sku, price, name FROM prices ORDER BY sku")).all()
    assert rows == [("P-1", 20.0, "soap"), ("P-2", 10.0, "tea"), ("x'); DROP TABLE prices; --", 20.0, None)]
    ledger.close()


@pytest.mark.parametrize("server", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["BIGINT", "NUMERIC(20)"])
def test_a_decision_changes_the_row_of_its_own_number_of_19_digits(
    server: str, kind: str, tmp_path: Path, request
) -> None:
    url = request.getfixturevalue("postgres") if server == "postgresql" else f"sqlite:///{tmp_path / 'shop.db'}"
    _, ledger, policy = shop(tmp_path, f"apply = {url}::prices")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE TABLE prices (sku {kind} PRIMARY KEY, price FLOAT)"))
        connection.execute(sa.text("INSERT INTO prices VALUES (1239162456494753670, 10), (1239162456494753671, 10)"))
    approved(ledger, policy, "1239162456494753671")
    assert apply_due(ledger, policy, clock=clock(minutes=2)).applied == 1
    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT sku, price FROM prices ORDER BY sku")).all()
    assert rows == [(1239162456494753670, 10.0), (1239162456494753671, 20.0)]
    ledger.close()


def test_a_table_whose_key_is_a_float_takes_no_number_of_19_digits(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    _, ledger, policy = shop(tmp_path, f"apply = {url}::prices")
    with (engine := sa.create_engine(url)).begin() as connection:
        connection.execute(sa.text("CREATE TABLE prices (sku REAL PRIMARY KEY, price FLOAT)"))
        connection.execute(sa.text("INSERT INTO prices VALUES (1239162456494753670, 10)"))
    made = approved(ledger, policy, "1239162456494753671")
    assert apply_due(ledger, policy, clock=clock(minutes=2)).failed == 1
    assert "cannot store the key 1239162456494753671 exactly" in (find_decision(ledger, made.id).error or "")
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT price FROM prices")).scalars().all() == [10.0]


def test_a_table_is_made_and_one_of_another_shape_is_a_dead_letter(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    _, ledger, policy = shop(tmp_path, f"apply = {url}::prices")
    made = approved(ledger, policy)
    assert apply_due(ledger, policy, clock=clock(minutes=2)).applied == 1
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        assert connection.execute(sa.text("SELECT sku, price, decision_id FROM prices")).all() == [
            ("P-1", 20.0, made.id)
        ]
        connection.execute(sa.text("ALTER TABLE prices RENAME COLUMN price TO cost"))
    other = approved(ledger, policy, "P-2")
    assert apply_due(ledger, policy, clock=clock(minutes=2)).failed == 1
    assert "no column price" in (find_decision(ledger, other.id).error or "")


APPLIER = """
import os, signal, sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from d2c_mlops.decisions import apply
from d2c_mlops.decisions.policy import Policy
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.settings import load_settings
held, dies = load_settings(Path(sys.argv[1]), environ={}), int(sys.argv[2])
close, done = apply._close_decision, []
def closing(*args):
    done.append(1)
    if len(done) == dies:
        os.kill(os.getpid(), signal.SIGKILL)
    return close(*args)
apply._close_decision = closing
moment = datetime.fromisoformat(sys.argv[3])
apply.apply_due(Ledger.of(held), Policy.of("price", held), clock=lambda: moment, lease=timedelta(seconds=30))
"""


def applier(folder: Path, dies: int, minutes: float) -> subprocess.Popen[bytes]:
    moment = (NOW + timedelta(minutes=minutes)).isoformat()
    return subprocess.Popen([sys.executable, "-c", APPLIER, str(folder), str(dies), moment])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_kill_9_between_applying_and_recording_applies_each_decision_once(tmp_path: Path, receiver: Receiver) -> None:
    url = f"sqlite:///{tmp_path / 'shop.db'}"
    for place, target in (("hook", receiver.url), ("table", f"{url}::prices")):
        folder = tmp_path / place
        folder.mkdir()
        _, ledger, policy = shop(folder, f"auto = {AUTO}", f"apply = {target}")
        for i in range(6):
            predicted(ledger, f"P-{i}", 10.1 + i / 100)
        create_decisions(ledger, policy, NOW)
        if place == "table":
            with sa.create_engine(url).begin() as connection:
                connection.execute(sa.text("CREATE TABLE prices (sku TEXT PRIMARY KEY, price REAL)"))
                rows = [{"sku": f"P-{i}", "price": 9.9} for i in range(6)]  # a decision about no row is put to a person
                connection.execute(sa.text("INSERT INTO prices VALUES (:sku, :price)"), rows)
                connection.execute(sa.text("CREATE TABLE changes (sku TEXT)"))
                for when in ("UPDATE", "INSERT"):
                    connection.execute(
                        sa.text(
                            f"CREATE TRIGGER t{when} AFTER {when} ON prices BEGIN INSERT INTO changes VALUES (new.sku); END"
                        )
                    )
        for trial, dies in enumerate((1, 3)):
            assert applier(folder, dies, minutes=1 + trial).wait(120) == -signal.SIGKILL
        assert applier(folder, 0, minutes=10).wait(120) == 0
        found = list_decisions(ledger)
        assert {each.status for each in found} == {"applied"} and len(found) == 6
        ledger.close()
    assert len(receiver.calls) > 6 and len(receiver.applied) == 6
    with sa.create_engine(url).connect() as connection:
        assert sorted(connection.execute(sa.text("SELECT sku FROM changes")).scalars()) == [f"P-{i}" for i in range(6)]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_kill_9_at_random_of_two_appliers_loses_nothing(tmp_path: Path, receiver: Receiver) -> None:
    import numpy as np

    chance = np.random.default_rng(3)
    _, ledger, policy = shop(tmp_path, f"auto = {AUTO}", f"apply = {receiver.url}")
    receiver.slow = 0.02
    for trial in range(TRIALS):
        for i in range(8):
            predicted(ledger, f"P-{trial}-{i}", 10.1)
        create_decisions(ledger, policy, NOW)
        running = [applier(tmp_path, 0, minutes=trial + 1) for _ in range(2)]
        before, limit = len(receiver.calls), time.monotonic() + 30
        while len(receiver.calls) == before and time.monotonic() < limit:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, 0.2))
        for each in running:
            each.kill()
            each.wait(20)
    assert applier(tmp_path, 0, minutes=TRIALS + 5).wait(120) == 0
    found = list_decisions(ledger, limit=1000)
    assert len(found) == 8 * TRIALS and {each.status for each in found} == {"applied"}
    assert set(receiver.applied) == {each.id for each in found}


# --- figures, commands


def test_the_median_from_prediction_to_action_is_told(tmp_path: Path, receiver: Receiver) -> None:
    _, ledger, policy = shop(tmp_path, f"auto = {AUTO}", f"apply = {receiver.url}")
    for i, (price, _) in enumerate(
        [(10.1, "auto"), (10.2, "auto"), (20, "approve"), (30, "edit"), (40, "reject"), (50, "wait")]
    ):
        predicted(ledger, f"P-{i}", price)
    create_decisions(ledger, policy, NOW + timedelta(minutes=1))
    assert apply_due(ledger, policy, clock=clock(minutes=2)).applied == 2
    ids = {each.title: each.id for each in list_decisions(ledger)}
    decide(ledger, policy, ids["P-2"], "approve", decider="jo", now=NOW + timedelta(minutes=11))
    decide(
        ledger, policy, ids["P-3"], "edit", decider="jo", now=NOW + timedelta(minutes=21), value=31.0, reason="round"
    )
    decide(ledger, policy, ids["P-4"], "reject", decider="jo", now=NOW + timedelta(minutes=31), reason="no")
    assert apply_due(ledger, policy, clock=clock(hours=1)).applied == 2
    told = decision_stats(ledger, "price", NOW + timedelta(hours=2), timedelta(days=30))
    assert (told.median_seconds, told.p90_seconds, told.median_decision_seconds) == (120.0, 3600.0, 1200.0)
    assert (told.share_auto, told.share_overridden) == (2 / 5, 2 / 3) and told.oldest_pending_seconds == 7140.0
    text = metrics_text([told]).decode()
    assert 'd2c_decision_seconds{model="price",quantile="0.5"} 120.0' in text
    assert 'd2c_decisions{model="price",status="pending"} 1.0' in text
    with ledger.read() as connection:
        heard = dict(connection.execute(select(feedback.c.action, func.count()).group_by(feedback.c.action)).all())
    assert heard == {"followed": 3, "overridden": 2}


@given(st.lists(st.integers(0, 100), min_size=1), st.floats(0.01, 1))
def test_a_quantile_is_a_value_that_the_share_does_not_exceed(values: list[int], share: float) -> None:
    found = quantile(values, share)
    assert sum(v <= found for v in values) >= share * len(values) - 1e-9 and found in values
    assert sum(v < found for v in values) < share * len(values) + 1e-9


def test_the_commands_lead_from_a_prediction_to_its_action(tmp_path: Path, monkeypatch, receiver: Receiver) -> None:
    from datetime import UTC, datetime

    monkeypatch.chdir(tmp_path)
    _, ledger, _ = shop(tmp_path, f"auto = {AUTO}", f"apply = {receiver.url}", "allow = price >= cost")
    now = datetime.now(UTC)
    for sku, price in (("P-1", 10.2), ("P-2", 20.0), ("P-3", 30.0), ("P-4", 40.0)):
        predicted(ledger, sku, price, at=now)

    def d2c(*args: str, code: int = 0) -> str:
        done = CliRunner().invoke(main, ["decisions", *args])
        assert done.exit_code == code, done.output
        return done.output

    assert json.loads(d2c("collect", "--dry-run", "--json"))[0]["proposed"]["auto"] == 1
    assert "4 new: 1 applied automatically, 3 need approval, 1 applied" in d2c("run")
    ids = {each["about"]["sku"]: each["id"] for each in json.loads(d2c("list", "--json"))}
    assert set(ids) == {"P-2", "P-3", "P-4"}
    d2c("approve", ids["P-2"][:8], "--by", "jo")
    assert "violates the policy" in d2c("edit", ids["P-3"], "3", "--reason", "x", code=3)
    assert "edited by jo" in d2c("edit", ids["P-3"], "31.5", "--reason", "round", "--by", "jo")
    d2c("reject", ids["P-4"], "--reason", "no")
    d2c("approve", ids["P-4"], code=2)
    assert "2 applied" in d2c("apply")
    shown = json.loads(d2c("show", ids["P-3"], "--json"))
    assert [each["status"] for each in shown["events"]] == ["pending", "edited", "applied"] and shown["value"] == 31.5
    assert sorted(v for each in receiver.applied.values() for v in each) == [10.2, 20.0, 31.5]
    (figures,) = json.loads(d2c("stats", "--json"))
    assert figures["statuses"]["applied"] == 3 and figures["share_auto"] == 0.25 and figures["median_seconds"] < 60
    assert "P-3" in d2c("show", ids["P-3"]) and "price" in d2c("stats") and "no decision needs approval" in d2c()
    d2c("show", "nope", code=2)


def test_a_batch_becomes_decisions(settings, tmp_path: Path) -> None:
    from d2c_mlops.serving.batch.score import score
    from d2c_mlops.serving.rollout.promotion import promote
    from d2c_mlops.settings import load_settings
    from support.batches import asked
    from support.training import train

    version = train(settings)
    promote("mean_units", settings)
    ini = settings.root / "settings.ini"
    ini.write_text(
        ini.read_text()
        + "[decisions:mean_units]\nfield = units\nauto = units <= 100\napply = sqlite:///shop.db::packs\nallow_new = true\n"
    )
    held = load_settings(settings.root, environ={})
    source = asked(tmp_path, 40)
    assert score(version, source, "ledger:", held, chunk=7).written.inserted == 40
    assert score(version, source, "ledger:", held, chunk=7).written.unchanged == 40
    ledger = Ledger.of(held)
    assert run_cycle(ledger, held)[0].applied.applied == 40 and run_cycle(ledger, held)[0].applied.applied == 0
    with sa.create_engine("sqlite:///shop.db").connect() as connection:
        assert connection.execute(sa.text("SELECT count(*), count(DISTINCT product_id) FROM packs")).one() == (40, 40)
    with ledger.read() as connection:
        assert connection.execute(select(func.count()).select_from(decisions)).scalar() == 40


# --- telling people, serving them


def test_who_decides_is_told_once_with_links_of_their_own(tmp_path: Path, receiver: Receiver, monkeypatch) -> None:
    pytest.importorskip("apprise")
    monkeypatch.setenv("D2C_SECRET_LINKS", "a secret of more than sixteen bytes")
    monkeypatch.setenv("D2C_SECRET_ANN", receiver.url.replace("http://", "json://"))
    more = "[decisions]\nurl = https://decide.example/\nlinks = secret:LINKS\n"
    held, ledger, policy = shop(tmp_path, "deciders = jo ann", "notify.ann = secret:ANN", more=more)
    for sku in ("P-1", "P-2"):
        predicted(ledger, sku, 20.0)
    create_decisions(ledger, policy, NOW)
    assert (
        notify_deciders(ledger, policy, held, NOW, print) == 2
        and notify_deciders(ledger, policy, held, NOW, print) == 0
    )
    (said,) = [json.loads(body) for _, body in receiver.calls]
    assert said["title"] == "2 decisions about price" and said["message"].count("https://decide.example/d/") == 6
    assert "by=ann" in said["message"] and "by=jo" not in said["message"]


def test_a_channel_that_is_away_is_tried_again(tmp_path: Path, receiver: Receiver) -> None:
    pytest.importorskip("apprise")
    held, ledger, policy = shop(tmp_path, f"notify.ann = {receiver.url.replace('http://', 'json://')}")
    predicted(ledger, "P-1", 20.0)
    create_decisions(ledger, policy, NOW)
    receiver.status, heard = 500, []
    assert notify_deciders(ledger, policy, held, NOW, heard.append) == 0 and "did not accept the message" in heard[0]
    assert receiver.url.split("//")[1] not in heard[0]
    receiver.status = 200
    assert notify_deciders(ledger, policy, held, NOW, heard.append) == 1


def test_what_is_served_applies_at_once_what_people_decide(tmp_path: Path, receiver: Receiver) -> None:
    from datetime import UTC, datetime

    import httpx

    from d2c_mlops.serving.http import api_keys as keys
    from d2c_mlops.serving.local.server import free_port
    from d2c_mlops.serving.state_paths import keys_file

    held, ledger, _ = shop(tmp_path, f"apply = {receiver.url}")
    predicted(ledger, "P-1", 20.0, at=datetime.now(UTC))
    token = keys.create_key(keys_file(held), "jo", ["price"], now=datetime.now(UTC), scopes=["decide"])[1]
    port, log = free_port(), tmp_path / "log"
    command = [sys.executable, "-m", "d2c_mlops", "decisions", "serve", "--port", str(port), "--every", "1000"]
    with log.open("wb") as out:
        served = subprocess.Popen(command, cwd=tmp_path, stdout=out, stderr=out)
    try:
        limit, headers, waiting = time.monotonic() + 60, {"authorization": f"Bearer {token}"}, []
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
            while not waiting:
                assert time.monotonic() < limit and served.poll() is None, log.read_text()
                time.sleep(0.1)
                try:
                    waiting = client.get("/decisions", params={"status": "pending"}).json()["decisions"]
                except httpx.TransportError:
                    continue
            assert client.post(f"/decisions/{waiting[0]['id']}/approve").status_code == 200
            told = client.get("/metrics").text
            assert 'd2c_desk_requests_total{model="price",path="/decisions/ID/approve",status="200"} 1.0' in told
            assert not re.search(r"^d2c_(request|refused)", told, re.MULTILINE)  # those are the model's own
            while not receiver.applied:
                assert time.monotonic() < limit
                time.sleep(0.05)
        served.send_signal(signal.SIGTERM)
        assert served.wait(30) in (0, 130, -signal.SIGTERM)
    finally:
        served.kill()
    assert receiver.applied == {waiting[0]["id"]: [20.0]} and token not in log.read_text()


def test_a_personal_key_is_nothing_to_decide_by(tmp_path: Path) -> None:
    from d2c_mlops.models.core.contract import contract_to_dict

    _, ledger, policy = shop(tmp_path)
    hidden = contract_to_dict(CONTRACT)
    for side in ("inputs", "outputs"):
        hidden[side][0]["personal"] = True
    with ledger.write() as connection:
        connection.execute(sa.update(versions).values(contract=hidden))
    predicted(ledger, "P-1", 20.0)
    with pytest.raises(UsageError, match="personal"):
        create_decisions(ledger, policy, NOW)
