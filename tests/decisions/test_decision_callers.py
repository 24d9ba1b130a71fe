"""Only batches and API keys that may cause decisions do, and nothing new is added to a table unless somebody said so."""

from datetime import timedelta
from pathlib import Path

import orjson
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from sqlalchemy import update

from d2c_mlops.cli import main
from d2c_mlops.decisions.apply import apply_due, now_utc
from d2c_mlops.decisions.decision_rows import events_of_decision, find_decision, list_decisions
from d2c_mlops.decisions.verdicts import apply_deadlines, create_decisions, decide
from d2c_mlops.errors import UsageError
from d2c_mlops.ledger.schema import decisions, predictions
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.serving.http import api_keys as keys
from d2c_mlops.serving.log.log_collection import _prediction_rows
from d2c_mlops.serving.state_paths import keys_file
from support.decisions_shop import AUTO, NOW, Receiver, clock, predicted, shop


def key(held, name: str, *scopes: str, models: tuple[str, ...] = ("price",)) -> str:
    return keys.create_key(keys_file(held), name, models, now=NOW - timedelta(days=1), scopes=scopes)[0].id


def decided(ledger: Ledger) -> dict[str, str]:
    return {each.title: each.status for each in list_decisions(ledger)}


def table_of(folder: Path, *skus: str) -> sa.Engine:
    engine = sa.create_engine(f"sqlite:///{folder / 'shop.db'}")
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE prices (sku TEXT PRIMARY KEY, price FLOAT)"))
        for sku in skus:
            connection.execute(sa.text("INSERT INTO prices VALUES (:sku, 7.0)"), {"sku": sku})
    return engine


def rows_of(engine: sa.Engine) -> dict[str, float]:
    with engine.connect() as connection:
        return {row.sku: row.price for row in connection.execute(sa.text("SELECT * FROM prices"))}


def test_batches_and_keys_of_the_scope_decide_cause_decisions_and_nobody_else(tmp_path: Path) -> None:
    held, ledger, policy = shop(tmp_path, f"auto = {AUTO}")
    asks = {
        "batch": "batch", "decides": key(held, "pricing", "ask", "decide"), "asks": key(held, "crm", "ask"),
        "nobody": None, "probe": key(held, "ci", "probe"), "other": key(held, "x", "ask", "decide", models=("demand",)),
        "unknown": "0123456789ab",
    }  # fmt: skip
    for sku, caller in asks.items():
        predicted(ledger, sku, 10.1, caller=caller)
    told = create_decisions(ledger, policy, NOW)
    assert decided(ledger) == {"batch": "auto", "decides": "auto"}
    assert (told.predictions, told.without_scope, told.without_key) == (2, 2, 3)
    assert told.keys == "ci, crm"


@pytest.mark.parametrize("by", ["name", "id"])
def test_a_key_that_the_policy_lists_causes_decisions(by: str, tmp_path: Path) -> None:
    held, _, _ = shop(tmp_path)
    id = key(held, "crm", "ask")
    (tmp_path / "ledger").mkdir()
    other = f"sqlite:///{tmp_path / 'ledger' / 'l.db'}"
    _, ledger, policy = shop(tmp_path, f"keys = {id if by == 'id' else 'crm'} gone", url=other)
    predicted(ledger, "P-1", 10.1, caller=id)
    predicted(ledger, "P-2", 10.1, caller=key(held, "other", "ask"))
    told = create_decisions(ledger, policy, NOW)
    assert set(decided(ledger)) == {"P-1"} and told.unknown == ("gone",) and told.keys == "other"


def test_a_call_that_causes_no_decision_supersedes_none(tmp_path: Path) -> None:
    held, ledger, policy = shop(tmp_path)
    first = predicted(ledger, "P-1", 20)
    create_decisions(ledger, policy, NOW)
    for hour, caller in enumerate([None, key(held, "crm", "ask")], 1):
        predicted(ledger, "P-1", 30 + hour, at=NOW + timedelta(hours=hour), caller=caller)
    create_decisions(ledger, policy, NOW + timedelta(hours=3))
    (found,) = list_decisions(ledger)
    assert (found.prediction_id, found.status) == (first, "pending")


def test_a_revoked_key_causes_no_decision_and_what_it_caused_is_not_applied(tmp_path: Path) -> None:
    engine = table_of(tmp_path, "P-1", "P-2", "P-3")
    held, ledger, policy = shop(tmp_path, f"auto = {AUTO}", f"apply = sqlite:///{tmp_path / 'shop.db'}::prices")
    id = key(held, "pricing", "ask", "decide")
    for sku in ("P-1", "P-3"):
        predicted(ledger, sku, 10.1 if sku == "P-1" else 20.0, caller=id)
    assert create_decisions(ledger, policy, NOW).auto == 1
    asked = next(each for each in list_decisions(ledger) if each.title == "P-3")
    decide(ledger, policy, asked.id, "approve", decider="jo", now=NOW)
    keys.revoke_key(keys_file(held), id, now=NOW)
    predicted(ledger, "P-2", 10.1, caller=id)
    assert create_decisions(ledger, policy, NOW + timedelta(minutes=1)).without_scope == 1
    told = apply_due(ledger, policy, clock=clock(minutes=1))
    assert (told.applied, told.expired, rows_of(engine)) == (1, 1, {"P-1": 7.0, "P-2": 7.0, "P-3": 20.0})
    assert "causes no decision" in str(next(each for each in list_decisions(ledger) if each.title == "P-1").error)


def test_a_log_line_is_no_batch_whatever_it_says() -> None:
    line = {
        "id": "b", "first": 0, "model": "price", "version": 1, "contract": "1.0.0", "variant": "champion",
        "request_id": "r", "key": "sku", "at": NOW.isoformat(), "inputs": [{"sku": "a"}], "outputs": [{"sku": "a"}],
    }  # fmt: skip
    assert [row["caller"] for row in _prediction_rows(line | {"caller": "batch"})] == [None]
    assert [row["caller"] for row in _prediction_rows(line | {"caller": "0123456789ab"})] == ["0123456789ab"]


def test_what_is_not_considered_is_told_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, ledger, _ = shop(tmp_path, "keys = nobody")
    now = now_utc()
    for number in range(3):
        predicted(ledger, f"P-{number}", 10.1, at=now, caller=key(held, "crm", "ask") if number else None)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["decisions", "run", "price"])
    assert done.exit_code == 0, done.output
    text = " ".join(done.output.split())
    assert (
        "2 predictions from API keys without the scope `decide` were ignored (crm): create a key with that scope"
        in text
    )
    assert "or list the key under [decisions:price] keys =" in text
    assert "1 predictions without a known API key were ignored" in text
    assert "price has no API key named nobody" in text
    (told,) = orjson.loads(CliRunner().invoke(main, ["decisions", "run", "price", "--json"]).output)
    assert (told["proposed"]["without_scope"], told["proposed"]["without_key"]) == (2, 1)


def test_a_damaged_file_of_keys_lets_nobody_cause_anything(tmp_path: Path) -> None:
    held, ledger, policy = shop(tmp_path, f"auto = {AUTO}")
    predicted(ledger, "P-1", 10.1)
    keys_file(held).parent.mkdir(parents=True)
    keys_file(held).write_text("{")
    with pytest.raises(UsageError, match="not an API key file"):
        create_decisions(ledger, policy, NOW)
    assert list_decisions(ledger) == []


# --- what the target table has nothing for


def test_nothing_is_added_to_a_table_without_asking(tmp_path: Path) -> None:
    engine = table_of(tmp_path, "P-1")
    _, ledger, policy = shop(tmp_path, f"auto = {AUTO}", f"apply = sqlite:///{tmp_path / 'shop.db'}::prices")
    for sku in ("P-1", "P-new"):
        predicted(ledger, sku, 10.1)
    create_decisions(ledger, policy, NOW)
    told = apply_due(ledger, policy, clock=clock(minutes=1))
    assert (told.applied, told.asked, rows_of(engine)) == (1, 1, {"P-1": 10.1})
    found = next(each for each in list_decisions(ledger) if each.title == "P-new")
    assert (found.status, found.verdict, found.by) == ("pending", None, None) and "no row for P-new" in found.reason
    assert events_of_decision(ledger, found)[-1]["status"] == "pending"
    assert apply_due(ledger, policy, clock=clock(minutes=2)).asked == 0
    decide(ledger, policy, found.id, "approve", decider="jo", now=NOW + timedelta(minutes=3))
    assert apply_due(ledger, policy, clock=clock(minutes=4)).applied == 1
    assert rows_of(engine) == {"P-1": 10.1, "P-new": 10.1}


def test_a_policy_may_add_what_is_new(tmp_path: Path) -> None:
    engine = table_of(tmp_path)
    target = f"apply = sqlite:///{tmp_path / 'shop.db'}::prices"
    _, ledger, policy = shop(tmp_path, f"auto = {AUTO}", target, "allow_new = true")
    predicted(ledger, "P-new", 10.1)
    create_decisions(ledger, policy, NOW)
    assert apply_due(ledger, policy, clock=clock(minutes=1)).applied == 1 and rows_of(engine) == {"P-new": 10.1}


def test_what_a_deadline_approves_adds_nothing_either(tmp_path: Path) -> None:
    engine = table_of(tmp_path, "P-1")
    target = f"apply = sqlite:///{tmp_path / 'shop.db'}::prices"
    _, ledger, policy = shop(tmp_path, "deadline = 1h", "at_deadline = apply", target)
    for sku in ("P-1", "P-new"):
        predicted(ledger, sku, 20.0)
    create_decisions(ledger, policy, NOW)
    assert apply_deadlines(ledger, policy, NOW + timedelta(hours=2)) == {"approved": 2}
    told = apply_due(ledger, policy, clock=clock(hours=2))
    assert (told.applied, told.expired, rows_of(engine)) == (1, 1, {"P-1": 20.0})
    assert decided(ledger)["P-new"] == "expired"


def test_a_web_hook_is_told_whether_anybody_was_asked_and_whether_it_may_add(tmp_path: Path) -> None:
    receiver = Receiver()
    try:
        _, ledger, policy = shop(tmp_path, f"auto = {AUTO}", f"apply = {receiver.url}")
        predicted(ledger, "P-1", 10.1)
        predicted(ledger, "P-2", 20.0)
        create_decisions(ledger, policy, NOW)
        waiting = next(each for each in list_decisions(ledger) if each.status == "pending")
        decide(ledger, policy, waiting.id, "approve", decider="jo", now=NOW)
        apply_due(ledger, policy, clock=clock(minutes=1))
        told = {(body := orjson.loads(raw))["about"]["sku"]: body for _, raw in receiver.calls}
    finally:
        receiver.close()
    assert (told["P-1"]["automatic"], told["P-1"]["allow_new"]) == (True, False)
    assert (told["P-2"]["automatic"], told["P-2"]["allow_new"]) == (False, True)


def test_decisions_of_before_on_calls_without_a_key_are_not_applied_by_themselves(tmp_path: Path) -> None:
    engine = table_of(tmp_path, "P-1")
    _, ledger, policy = shop(tmp_path, f"auto = {AUTO}", f"apply = sqlite:///{tmp_path / 'shop.db'}::prices")
    id = predicted(ledger, "P-1", 10.1)
    create_decisions(ledger, policy, NOW)
    with ledger.write() as connection:  # as a release of before left it
        connection.execute(update(predictions).where(predictions.c.id == id).values(caller=None))
    assert apply_due(ledger, policy, clock=clock(minutes=1)).expired == 1 and rows_of(engine) == {"P-1": 7.0}
    (found,) = list_decisions(ledger)
    assert find_decision(ledger, found.id).status == "expired"


# --- what replaces an older decision, and which row is a subject's


def test_a_newer_decision_of_a_caller_that_causes_none_does_not_replace_a_batch(tmp_path: Path) -> None:
    engine = table_of(tmp_path, "P-1")
    _, ledger, policy = shop(tmp_path, f"auto = {AUTO}", f"apply = sqlite:///{tmp_path / 'shop.db'}::prices")
    for minutes, price in enumerate((10.1, 10.2)):
        newest = predicted(ledger, "P-1", price, at=NOW + timedelta(minutes=minutes))
        create_decisions(ledger, policy, NOW + timedelta(minutes=minutes))
    with ledger.write() as connection:
        connection.execute(update(predictions).where(predictions.c.id == newest).values(caller=None))
    counts = apply_due(ledger, policy, clock=clock(minutes=2))
    assert (counts.applied, counts.expired, rows_of(engine)) == (1, 1, {"P-1": 10.1})


def test_an_older_batch_is_not_outdated_by_what_a_revoked_key_caused(tmp_path: Path) -> None:
    held, ledger, policy = shop(tmp_path, f"auto = {AUTO}")
    id = key(held, "pricing", "ask", "decide")
    predicted(ledger, "P-1", 10.2, at=NOW + timedelta(minutes=1), caller=id)
    create_decisions(ledger, policy, NOW + timedelta(minutes=1))
    keys.revoke_key(keys_file(held), id, now=NOW)
    batch = predicted(ledger, "P-1", 10.1)
    create_decisions(ledger, policy, NOW + timedelta(minutes=2))
    assert {row.prediction_id: row.verdict for row in list_decisions(ledger)}[batch] == "auto"


def test_what_a_person_approved_for_a_revoked_key_still_replaces_older_decisions(tmp_path: Path) -> None:
    engine = table_of(tmp_path, "P-1")
    held, ledger, policy = shop(tmp_path, f"apply = sqlite:///{tmp_path / 'shop.db'}::prices")
    id = key(held, "pricing", "ask", "decide")
    predicted(ledger, "P-1", 20.0, at=NOW + timedelta(minutes=1), caller=id)
    create_decisions(ledger, policy, NOW + timedelta(minutes=1))
    (pending,) = list_decisions(ledger)
    decide(ledger, policy, pending.id, "approve", decider="jo", now=NOW + timedelta(minutes=1))
    keys.revoke_key(keys_file(held), id, now=NOW)
    predicted(ledger, "P-1", 10.1)
    assert create_decisions(ledger, policy, NOW + timedelta(minutes=2)).superseded == 1
    apply_due(ledger, policy, clock=clock(minutes=2))
    assert rows_of(engine) == {"P-1": 20.0}


def test_a_prediction_without_a_key_changes_no_row(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'shop.db'}")
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE prices (sku TEXT, price FLOAT)"))
        connection.execute(sa.text("INSERT INTO prices VALUES (NULL, 7.0), (NULL, 8.0)"))
    _, ledger, policy = shop(tmp_path, f"auto = {AUTO}", f"apply = sqlite:///{tmp_path / 'shop.db'}::prices")
    inputs = {"sku": None, "current_price": 10.0, "cost": 5.0}
    predicted(ledger, "none", 10.1, inputs=inputs, outputs={"sku": None, "price": 10.1}, key=None)
    assert create_decisions(ledger, policy, NOW).rejected == 1
    (decision,) = list_decisions(ledger)
    assert (decision.status, decision.reason) == ("rejected", "the prediction has no sku")
    with ledger.write() as connection:  # as an earlier release stored it
        connection.execute(update(decisions).values(status="auto", verdict="auto", by="policy"))
    assert apply_due(ledger, policy, clock=clock(minutes=1)).expired == 1
    with engine.connect() as connection:
        assert list(connection.execute(sa.text("SELECT price FROM prices")).scalars()) == [7.0, 8.0]


@pytest.mark.parametrize(
    ("kind", "sku"),
    [
        ("INTEGER", "007"), ("NUMERIC", "7.0"), ("FLOAT", " 7"), ("INTEGER", "+7"), ("DECIMAL(10)", "7e0"),
        ("INTEGER", "7.5"), ("BIGINT", "9" * 30), ("INTEGER", "9" * 5000), ("NUMERIC", "9" * 5000), ("NUMERIC", "9" * 30),
    ],
)  # fmt: skip
def test_a_text_that_a_column_of_numbers_takes_for_another_key_changes_no_row(
    kind: str, sku: str, tmp_path: Path
) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'shop.db'}")
    with engine.begin() as connection:
        connection.execute(sa.text(f"CREATE TABLE prices (sku {kind} PRIMARY KEY, price FLOAT)"))
        connection.execute(sa.text("INSERT INTO prices VALUES (7, 7.0), (0, 7.0)"))
    _, ledger, policy = shop(tmp_path, f"auto = {AUTO}", f"apply = sqlite:///{tmp_path / 'shop.db'}::prices")
    predicted(ledger, sku, 10.1, id="lookalike")
    predicted(ledger, "0", 10.1, id="right", at=NOW + timedelta(seconds=1))
    create_decisions(ledger, policy, NOW)
    assert apply_due(ledger, policy, clock=clock(minutes=1)).applied == 1
    assert next(row.status for row in list_decisions(ledger) if row.prediction_id == "lookalike") in (
        "failed",
        "pending",
    )
    with engine.connect() as connection:
        assert dict(connection.execute(sa.text("SELECT sku, price FROM prices")).all()) == {7: 7.0, 0: 10.1}
