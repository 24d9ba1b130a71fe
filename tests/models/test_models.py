"""Every model that is found keeps the promises of a model."""

import pandas as pd
import pandera.pandas as pa
import pytest

from d2c_mlops.models.core.conformance import RULES, check_model
from d2c_mlops.models.core.contract import Contract, column
from d2c_mlops.models.core.model import Model, discover_models

FOUND = discover_models()


@pytest.mark.parametrize("cls", FOUND.values(), ids=FOUND)
def test_every_model_found_keeps_its_promises(cls: type[Model]) -> None:
    assert len(check_model(cls)) == len(RULES)


@pytest.mark.parametrize("cls", FOUND.values(), ids=FOUND)
def test_every_shipped_charter_is_complete(cls: type[Model]) -> None:
    assert cls.charter.open_questions() == []


def test_a_number_that_may_be_missing_may_be_absent() -> None:
    inputs = {"key": column("string", "Key"), "size": column("number", "Size", nullable=True)}
    outputs = {"key": column("string", "Key")}
    contract = Contract("sizes", "1.0.0", "key", pa.DataFrameSchema(inputs), pa.DataFrameSchema(outputs))
    checked = contract.check_inputs(pd.DataFrame({"key": ["a", "b"]}))
    assert checked["size"].isna().all() and checked["size"].dtype == "float64"
