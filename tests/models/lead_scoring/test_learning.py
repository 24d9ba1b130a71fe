"""Learning a lead score: what may be learned from, the contract, the fallback, the JSON form."""

import json

import pandas as pd
import pytest

from d2c_mlops.data.layouts.leads import simulate_campaign
from d2c_mlops.errors import DataRefused, UsageError
from d2c_mlops.models.lead_scoring.answers import score_leads
from d2c_mlops.models.lead_scoring.learning import (
    Money,
    Prepared,
    Recipe,
    lead_contract,
    leads_with_contract_fields,
    learn_lead_score,
    learned_from_dict,
    learned_to_dict,
    prepare_leads,
)
from d2c_mlops.models.lead_scoring.training import PACES
from d2c_mlops.models.lead_scoring.wording import Word

MONEY = Money(45, 5)


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    return prepare_leads(Recipe(), simulate_campaign(leads=1500))


def test_a_code_for_missing_values_is_noted(prepared: Prepared) -> None:
    assert prepared.clocks == ()
    assert "company_size: 999 stands for not known" in prepared.notes


@pytest.fixture(scope="module")
def leaking() -> pd.DataFrame:
    return simulate_campaign(1500, leak=True)


def test_a_field_that_is_known_only_after_the_outcome_is_refused(leaking: pd.DataFrame) -> None:
    with pytest.raises(DataRefused, match="call_minutes"):
        prepare_leads(Recipe(), leaking)


def test_a_misspelt_field_to_drop_is_refused_with_the_fields_there_are(leaking: pd.DataFrame) -> None:
    with pytest.raises(UsageError, match="call_minuts") as refused:
        prepare_leads(Recipe(drop=("call_minuts",)), leaking)
    assert "call_minutes" in str(refused.value)


def test_a_leak_that_is_dropped_leaves_the_other_fields(leaking: pd.DataFrame, prepared: Prepared) -> None:
    assert len(prepare_leads(Recipe(drop=("call_minutes",)), leaking).fields) == len(prepared.fields)


def test_the_contract_has_an_optional_input_per_field_in_the_words_of_the_owner(prepared: Prepared) -> None:
    words = {"visits_30d": Word("visits in 30 days", "visits", more_is="better")}
    contract = lead_contract(leads_with_contract_fields(prepared), words)
    inputs = {field.name: field for field in contract.input_fields}
    visits = inputs["visits_30d"]
    assert (visits.kind, visits.unit, visits.description) == ("number", "visits", "visits in 30 days; more is better")
    assert all(field.nullable for name, field in inputs.items() if name != "lead_id")


def test_a_score_read_from_json_answers_to_the_last_digit(prepared: Prepared) -> None:
    learned = learn_lead_score(Recipe(paces=PACES[:1], pairs=(("source", "n_demo_7d"),)), prepared, MONEY)
    again = learned_from_dict(json.loads(json.dumps(learned_to_dict(learned))), learned.contract)
    leads = prepared.sample.frame.head(500)
    before, after = (
        score_leads(learned.sheet, leads, with_reasons=True),
        score_leads(again.sheet, leads, with_reasons=True),
    )
    assert (before.margin == after.margin).all()
    assert before.reasons == after.reasons


def test_with_few_won_leads_the_rate_by_source_answers_and_says_so(prepared: Prepared) -> None:
    learned = learn_lead_score(Recipe(min_wins=5000), prepared, MONEY)
    assert [field.name for field in learned.sheet.fields] == ["source"]
    assert learned.sheet.baseline.startswith("rate by source only: ")


def test_a_limit_of_calls_a_day_raises_the_threshold(prepared: Prepared) -> None:
    learned = learn_lead_score(Recipe(paces=PACES[:1], capacity=1), prepared, MONEY)
    assert learned.sheet.bar > learned.sheet.break_even


def test_leads_that_were_all_lost_are_refused() -> None:
    lost = prepare_leads(Recipe(), simulate_campaign(leads=400, rate=0.0))
    with pytest.raises(DataRefused, match="400 leads were lost"):
        learn_lead_score(Recipe(), lost, MONEY)
