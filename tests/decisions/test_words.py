"""Who decides reads amounts in their units and rules as sentences."""

import json
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pandera.pandas as pa
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from d2c_mlops.cli import main
from d2c_mlops.decisions.app import DecisionApp, Dependencies
from d2c_mlops.decisions.decision_rows import list_decisions
from d2c_mlops.decisions.html_pages import decision_texts, reason_text
from d2c_mlops.decisions.notifications import notification_text
from d2c_mlops.decisions.rules import DecisionRule
from d2c_mlops.decisions.signed_links import action_links
from d2c_mlops.decisions.verdicts import create_decisions
from d2c_mlops.decisions.wording import Wording, display_value, input_text
from d2c_mlops.ledger.schema import decisions, versions
from d2c_mlops.models.core.contract import Contract, Field, column
from d2c_mlops.serving.http import api_keys as keys
from d2c_mlops.serving.http.api_keys import Keyring
from support.decisions_shop import AUTO, CONTRACT, NOW, clock, predicted, shop

STOCK = Contract(
    name="stock", version="1.0.0", key="sku",
    inputs=pa.DataFrameSchema({
        "sku": column("string", "The product"),
        "stock_days": column("number", "How long the stock lasts at this pace", unit="days"),
        "price": column("number", "Price today", unit="EUR", ge=0),
        "cost": column("number", "What it costs", unit="EUR", ge=0),
        "margin": column("number", "Margin", unit="share 0..1"),
        "lead_time": column("integer", "Time to deliver", unit="days"),
        "promoted": column("boolean", "On promotion"),
        "channel": column("string", "The channel that it is sold in; web, shop or wholesale", choices=["web", "shop", "wholesale"]),
    }),
    outputs=pa.DataFrameSchema({
        "sku": column("string", "The product"),
        "forecast": column("number", "Forecast", unit="units", ge=0),
        "new_price": column("number", "Price to ask", unit="EUR", ge=0),
    }),
)  # fmt: skip


def field(unit: str | None, kind: str = "number") -> Field:
    return Field("x", kind, "x", unit=unit)


@pytest.mark.parametrize(
    ("value", "unit", "kind", "text"),
    [
        (1234.5, "EUR", "number", "1,234.50 EUR"), (12.345, "EUR", "number", "12.35 EUR"), (2.675, "USD", "number", "2.68 USD"),
        (-0.001, "EUR", "number", "0.00 EUR"), (1999.5, "JPY", "number", "2,000 JPY"), (3, "EUR per unit", "number", "3.00 EUR per unit"),
        (9.5, "€", "number", "9.50 €"), (7.5, "money in the currency of the orders", "number", "7.50"),
        (12.4, "units", "number", "12 units"), (1.2, "units", "number", "1 unit"), (12345.6, "units", "number", "12,346 units"),
        (0.2, "units", "number", "less than 1 unit"), (0, "units", "number", "0 units"), (17, None, "integer", "17"), (3, "visits", "integer", "3 visits"),
        (0.0512, "share 0..1", "number", "5.1 %"), (0.5, "share 0..1", "number", "50 %"), (1, "probability", "number", "100 %"), (12.34, "%", "number", "12.3 %"),
        (6.5, "days", "number", "6.5 days"), (7.0, "days", "number", "7 days"), (1, "days", "integer", "1 day"), (90, "days", "number", "90 days"),
        (1.23456, "kg", "number", "1.23 kg"), (0.000123456, "kg", "number", "0.000123 kg"), (0.1 + 0.2, None, "number", "0.3"),
        (None, "EUR", "number", "not known"), (True, None, "boolean", "yes"), ("P-1", None, "string", "P-1"), (float("nan"), "EUR", "number", "nan"),
        ("2026-06-01", None, "date", "2026-06-01"), ("2026-06-01T14:30:00.000000Z", None, "date-time", "2026-06-01 14:30 UTC"),
    ],
)  # fmt: skip
def test_a_value_is_rounded_by_its_unit(value, unit, kind, text) -> None:
    assert display_value(value, field(unit, kind)) == text


@given(
    st.floats(-1e12, 1e12, allow_nan=False),
    st.sampled_from(["EUR", "units", "share 0..1", "days", "%", "kg", None, "JPY", "KWD"]),
)
def test_what_is_shown_is_within_half_of_its_last_digit(value, unit) -> None:
    text = display_value(value, field(unit))
    if text.startswith("less than"):
        assert abs(value) < 0.5
        return
    number = Decimal(text.split(" ")[0].replace(",", ""))
    scale = 100 if unit == "share 0..1" else 1
    step = {
        "EUR": "0.01",
        "units": "1",
        "share 0..1": "0.1",
        "days": "0.1",
        "%": "0.1",
        "JPY": "1",
        "KWD": "0.001",
    }.get(unit or "", "0.01")
    assert abs(number - Decimal(repr(value)) * scale) <= Decimal(step) / 2
    assert "e" not in text.lower().split(" ")[0] and text.split(" ")[0] != "-0"


@given(st.floats(-1e9, 1e9, allow_nan=False), st.sampled_from(["EUR", "units", "share 0..1", "days", "kg", None]))
def test_what_is_typed_can_be_read_again(value, unit) -> None:
    text = input_text(value, field(unit))
    assert abs(json.loads(text) - value) <= 0.5


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("stock_days < 7 and forecast > 10", "stock lasts less than 7 days and the forecast is above 10 units"),
        ("abs(new_price - price) / price <= 0.05", "the price to ask differs from the price today by at most 5 %"),
        ("(new_price - price) / price > 0.125", "the price to ask is more than 12.5 % above the price today"),
        ("abs(new_price - price) < 2.5", "the price to ask differs from the price today by less than 2.50 EUR"),
        ("new_price >= cost * 1.2", "the price to ask is at least 1.2 times what it costs"),
        ("new_price >= cost", "the price to ask is at least what it costs"),
        ("margin > 0.155 or promoted", "the margin is above 15.5 % or on promotion is yes"),
        ("not promoted and channel in ('web', 'shop')", "on promotion is no and the channel is web or shop"),
        ("channel not in ('web',)", "the channel is not web"),
        ("1 < cost <= 5.005", "what it costs is above 1.00 EUR and what it costs is at most 5.005 EUR"),
        ("lead_time <= 3", "the time to deliver is at most 3 days"),
        ("not (forecast > 10 and margin < 0.1)", "the forecast is at most 10 units or the margin is at least 10 %"),
        ("forecast > 1 and (margin > 0.2 or cost < 3)", "the forecast is above 1 unit and either the margin is above 20 % or what it costs is below 3.00 EUR"),
        ("margin == None", "the margin is not known"), ("margin != None", "the margin is known"),
        ("sku == 'P-1'", "the product is P-1"), ("10 < forecast", "the forecast is above 10 units"),
        ("forecast * new_price > 500", "the forecast times the price to ask is above 500"),
        ("min(price, new_price) > cost + 1", "the smallest of the price today and the price to ask is above what it costs plus 1.00 EUR"),
        ("stock_days >= 1.5", "stock lasts at least 1.5 days"),
    ],
)  # fmt: skip
def test_a_rule_is_a_sentence(rule: str, text: str) -> None:
    assert Wording.of(STOCK).sentence(DecisionRule.of(rule)) == text


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("price - cost - (forecast - lead_time) > 2", "the price today minus what it costs minus the result of the forecast minus the time to deliver is above 2.00 EUR"),
        ("forecast * (price + cost) > 500", "the forecast times the sum of the price today and what it costs is above 500"),
        ("(price + cost) * 2 > new_price", "2 times the sum of the price today and what it costs is above the price to ask"),
        ("cost / (price * forecast) <= 0.1", "what it costs divided by the product of the price today and the forecast is at most 0.1"),
        ("-(price + cost) < forecast", "minus the sum of the price today and what it costs is below the forecast"),
        ("(new_price - price) / price >= -0.05", "the price to ask is at most 5 % below the price today"),
        ("(new_price - price) / price < -0.25", "the price to ask is more than 25 % below the price today"),
        ("(forecast > 10 or promoted) and margin > 0.1", "either the forecast is above 10 units or on promotion is yes, and the margin is above 10 %"),
        ("(forecast > 10 and promoted) == False", "the forecast is at most 10 units or on promotion is no"),
        ("(forecast > 10) != promoted", "whether the forecast is above 10 units is not the on promotion"),
    ],
)  # fmt: skip
def test_a_sentence_means_what_the_brackets_of_its_rule_mean(rule: str, text: str) -> None:
    assert Wording.of(STOCK).sentence(DecisionRule.of(rule)) == text


def test_a_sentence_is_of_its_own_rule_also_where_other_rules_are_gone() -> None:
    words = Wording.of(STOCK)
    for n in range(1000):  # a rule that is gone leaves its place in memory to the next
        assert words.sentence(DecisionRule.of(f"forecast > {n + 1000}")) == f"the forecast is above {n + 1000:,} units"
    assert len(words.memory) <= 256


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.00034, "share 0..1", "less than 0.1 %"), (0.0004, "probability", "less than 0.1 %"), (0.02, "%", "less than 0.1 %"),
        (0.02, "hours", "less than 0.1 hours"), (-0.3, "units", "0 units"), (0, "share", "0 %"),
        (3, "SKU", "3 SKU"), (12.34567, "TEU", "12.35 TEU"), (12.0, "CPU", "12 CPU"),
        (12.3, "eur", "12.30 eur"), (5, "Euro", "5.00 Euro"), (7.5, "dollars", "7.50 dollars"), (7, "sek", "7.00 sek"),
        (float("inf"), "units", "inf"), (float("nan"), "EUR", "nan"),
    ],
)  # fmt: skip
def test_what_is_small_or_no_money_is_not_shown_as_nothing_or_as_money(value: float, unit: str, text: str) -> None:
    assert display_value(value, field(unit)) == text


def test_what_is_typed_of_a_small_share_is_not_zero() -> None:
    assert (
        input_text(0.000341234, field("share 0..1")) == "0.000341"
        and input_text(0.1234567, field("share 0..1")) == "0.123"
    )


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_what_is_no_number_is_typed_as_it_is(value: float) -> None:
    assert input_text(value, field("EUR")) == str(value)


def test_numbers_that_identify_have_no_separators(waiting) -> None:
    _, ledger, _ = waiting
    decision = replace(list_decisions(ledger)[0], subject='{"customer": 1234567}')
    base = {"inputs": {"store_id": 7654321}, "outputs": {}, "reasons": None}
    ask = {"customer": column("integer", "The customer"), "store_id": column("integer", "The store")}
    contract = Contract(name="x", version="1.0.0", key="customer", inputs=pa.DataFrameSchema(ask), outputs=pa.DataFrameSchema({"customer": ask["customer"]}))  # fmt: skip
    told = decision_texts(decision, base, contract)
    assert told["about"] == "1234567" and told["known"] == [["The store".removeprefix("The ").capitalize(), "7654321"]]


def test_the_terminal_shows_words_and_rounded_values(waiting, tmp_path: Path, monkeypatch) -> None:
    _, ledger, _ = waiting
    monkeypatch.chdir(tmp_path)
    (found,) = [each for each in list_decisions(ledger) if each.status == "pending"]

    def d2c(*args: str) -> str:
        done = CliRunner().invoke(main, ["decisions", *args])
        assert done.exit_code == 0, done.output
        return done.output

    for args in (("list", "--all"), ("list",), ()):
        text = d2c(*args)
        assert "price to ask 12.34 EUR" in text and "12.340000000000002" not in text, args
    assert "the price to ask differs" in d2c("list", "--all")
    text = d2c("show", found.id)
    assert "price to ask 12.34 EUR" in text and "what it costs 5.00 EUR" in text
    assert "12.340000000000002" not in text.replace(found.prediction_id, "")
    assert json.loads(d2c("list", "--json"))[0]["proposed"] == 12.340000000000002  # programs get the value itself
    monkeypatch.setattr("d2c_mlops.decisions.apply.now_utc", clock(minutes=1))
    text = d2c("edit", found.id, "12.5", "--reason", "a round price", "--by", "jo")
    assert "P-1: price to ask 12.50 EUR edited by jo" in text
    assert "12.50 EUR" in d2c("list", "--status", "edited") and ", 12.34 EUR was proposed" in d2c("show", found.id)


def test_the_terminal_lists_decisions_of_a_version_that_is_gone(waiting, tmp_path: Path, monkeypatch) -> None:
    _, ledger, _ = waiting
    monkeypatch.chdir(tmp_path)
    with ledger.write() as connection:
        connection.execute(sa.delete(versions))
    done = CliRunner().invoke(main, ["decisions", "list"])
    assert done.exit_code == 0 and "price 12.34 " in done.output


NAMES = st.sampled_from(
    ["stock_days", "price", "cost", "margin", "lead_time", "forecast", "inputs.price", "outputs.new_price"]
)
NUMBERS = st.one_of(st.integers(-99, 9999).map(str), st.decimals(0, 99, places=3).map(str))
SUMS = st.recursive(
    NAMES | NUMBERS,
    lambda inner: (
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})")
        | inner.map(lambda t: f"abs({t})")
    ),
    max_leaves=4,
)
PAIRS = st.tuples(SUMS, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), SUMS).map(" ".join)
RULES = st.recursive(
    PAIRS,
    lambda inner: (
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({t[0]}) {t[1]} ({t[2]})")
        | inner.map(lambda t: f"not ({t})")
    ),
    max_leaves=5,
)


@given(RULES)
def test_no_syntax_of_any_rule_is_in_its_sentence(rule: str) -> None:
    text = Wording.of(STOCK).sentence(DecisionRule.of(rule))
    assert not set("<>=()*_{}") & set(text) and "abs" not in text and "None" not in text and text == text.strip()


@given(
    st.sampled_from(["forecast > 10", "stock_days < 7 and forecast > 10", "not promoted", "margin > 0.1 or cost < 3"]),
    st.booleans(),
)
def test_without_a_contract_names_stand_in_the_sentence(rule: str, known: bool) -> None:
    assert "_" not in Wording.of(STOCK if known else None).sentence(DecisionRule.of(rule))


# --- where people read it


@pytest.fixture
def waiting(tmp_path: Path):
    held, ledger, policy = shop(tmp_path, f"auto = {AUTO} and price < 50", "allow = price >= cost")
    predicted(ledger, "P-1", 12.340000000000002, current=10.1)
    predicted(ledger, "P-2", 4.999)
    predicted(ledger, "P-3", 10.2)
    create_decisions(ledger, policy, NOW)
    yield held, ledger, policy
    ledger.close()


def test_reasons_are_written_down_in_words_and_name_what_does_not_hold(waiting) -> None:
    _, ledger, _ = waiting
    reasons = {each.title: each.reason for each in list_decisions(ledger)}
    assert reasons == {
        "P-1": "needs approval, because this does not hold: the price to ask differs from the price today by at most 5 %",
        "P-2": "allow does not hold: the price to ask is at least what it costs",
        "P-3": "applied automatically, because the price to ask differs from the price today by at most 5 % and the price to ask is below 50.00 EUR",
    }


def test_the_desk_and_its_messages_show_words_and_rounded_values(waiting, tmp_path: Path) -> None:
    held, ledger, policy = waiting
    (found,) = [each for each in list_decisions(ledger) if each.status == "pending"]
    token = keys.create_key(tmp_path / "keys.json", "jo", ["price"], now=NOW, scopes=["decide"])[1]
    client = TestClient(
        DecisionApp(Dependencies(held, ledger, Keyring(tmp_path / "keys.json"), [b"x" * 20], clock=clock(minutes=1)))
    )
    head = {"authorization": f"Bearer {token}"}
    (listed_,) = client.get("/decisions?status=pending", headers=head).json()["decisions"]
    assert listed_["shown"] == {
        "about": "P-1", "label": "Price to ask", "unit": " (EUR)", "proposed": "12.34 EUR", "typed": "12.34", "reason": found.reason,
        "known": [["Price today", "10.10 EUR"], ["What it costs", "5.00 EUR"]], "reasons": ["P-1 sells well"],
    }  # fmt: skip
    assert listed_["proposed"] == 12.340000000000002  # programs get the value itself
    for action, url in action_links(found, "jo", "http://testserver", b"x" * 20).items():
        page = client.get(url, headers={"accept": "text/html"}).text
        assert "Price to ask 12.34 EUR" in page and "at most 5 %" in page and "12.340000000000002" not in page
        assert "current_price" not in page and "&lt;=" not in page and ('12.34"' in page) == (action == "edit")
    title, text = notification_text(policy, held, [found], "jo", False, Wording.of(CONTRACT))
    assert "P-1: price to ask 12.34 EUR" in text and "<=" not in text and title.startswith("1 decision")


def test_a_reason_of_before_is_shown_in_words(waiting) -> None:
    _, ledger, _ = waiting
    with ledger.write() as connection:
        old = f"asked, because this does not hold: {AUTO} and price < 50"
        connection.execute(sa.update(decisions).where(decisions.c.status == "pending").values(reason=old))
    (found,) = [each for each in list_decisions(ledger) if each.status == "pending"]
    assert reason_text(found, Wording.of(CONTRACT)).endswith(
        "differs from the price today by at most 5 % and the price to ask is below 50.00 EUR"
    )
    other = replace(found, reason="round", proposed_at=NOW + timedelta(days=1))
    assert reason_text(other, Wording.of(CONTRACT)) == "round"
