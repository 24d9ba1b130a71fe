"""Every model that is found keeps the promises of a model."""

import pytest

from d2c_mlops.models.conformance import RULES, check_model
from d2c_mlops.models.model import Model, discover

FOUND = discover()


@pytest.mark.parametrize("cls", FOUND.values(), ids=FOUND)
def test_every_model_found_keeps_its_promises(cls: type[Model]) -> None:
    assert len(check_model(cls)) == len(RULES)


@pytest.mark.parametrize("cls", FOUND.values(), ids=FOUND)
def test_every_shipped_charter_is_complete(cls: type[Model]) -> None:
    assert cls.charter.open_questions() == []
