"""A lead score for one lead and for a batch."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from d2c_mlops.data.layouts.leads import simulate_campaign
from d2c_mlops.models.lead_scoring.additive import additive_terms
from d2c_mlops.models.lead_scoring.answers import Sheet, score_leads, tag_with_term
from d2c_mlops.models.lead_scoring.fields import learn_fields
from d2c_mlops.models.lead_scoring.outputs import (
    answers_frame,
    explained_answers,
    record_answers,
    record_parts,
    record_reasons,
)
from d2c_mlops.models.lead_scoring.training import PACES, TrainingPlan, fit_score_tables, learning_sample
from d2c_mlops.models.lead_scoring.wording import code_phrases, words_for


@pytest.fixture(scope="module")
def scored() -> tuple[Sheet, pd.DataFrame]:
    """A score sheet learned from 1,200 leads, and these leads."""
    sample = learning_sample(simulate_campaign(leads=1200))
    fields, _ = learn_fields(sample.frame)
    plan = TrainingPlan(tuple(fields), additive_terms(fields), {}, paces=PACES[:1])
    fitted = fit_score_tables(plan, sample)
    words = words_for(fields, {})
    sheet = Sheet(
        plan.fields,
        plan.terms,
        fitted.model.level,
        tuple(tag_with_term(table, i) for i, table in enumerate(fitted.model.tables)),
        fitted.level_variance,
        fitted.variances,
        tuple(
            tuple(code_phrases(field, words[field.name], table))
            for field, table in zip(fields, fitted.model.tables, strict=True)
        ),
        (True,) * len(fields),
        tuple(np.arange(field.size) < field.size - 1 for field in fields),
        0.1,
        0.1,
        2,
    )
    return sheet, sample.frame.reset_index(drop=True)


def records_of(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): None if v != v else v for k, v in row.items()} for row in frame.to_dict("records")]


def test_a_service_answers_each_lead_as_the_batch_does(scored: tuple[Sheet, pd.DataFrame]) -> None:
    sheet, frame = scored
    batch = score_leads(sheet, frame, with_reasons=True)
    table = answers_frame(sheet, frame["lead_id"], batch)
    records = records_of(frame)
    single = pd.DataFrame(record_answers(sheet, records)).astype(table.dtypes)
    pd.testing.assert_frame_equal(single, table, check_exact=True)
    assert [record_reasons(sheet, record_parts(sheet, record)) for record in records] == batch.reasons


def test_answers_with_reasons_are_the_answers_and_the_reasons(scored: tuple[Sheet, pd.DataFrame]) -> None:
    sheet, frame = scored
    records = records_of(frame.head(50))
    outputs, reasons = explained_answers(sheet, records)
    assert outputs == record_answers(sheet, records)
    assert reasons == [record_reasons(sheet, record_parts(sheet, record)) for record in records]


def test_a_lead_without_known_fields_gets_too_little_data_and_no_score(scored: tuple[Sheet, pd.DataFrame]) -> None:
    sheet, _ = scored
    empty = record_answers(sheet, [{"lead_id": "x"}])[0]
    assert (empty["score"], empty["tier"], empty["call"], empty["basis"]) == (None, None, None, "too little data")


def test_a_score_from_few_won_leads_says_that_it_is_a_baseline(scored: tuple[Sheet, pd.DataFrame]) -> None:
    sheet, frame = scored
    few = replace(sheet, baseline="only 3 leads were won")
    record = records_of(frame.head(1))[0]
    assert record_answers(few, [record])[0]["basis"] == "baseline"
    assert record_reasons(few, record_parts(few, record))[-1] == "only 3 leads were won"
