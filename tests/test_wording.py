"""Numbers agree with their nouns."""

import pytest

from d2c_mlops.wording import number_of


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 days"),
        (1, "1 day"),
        (2, "2 days"),
        (2.5, "2.5 days"),
        (1.0, "1 day"),
        (1200, "1,200 days"),
        (365.4, "365 days"),
    ],
)
def test_a_number_agrees_with_its_noun(count: float, text: str) -> None:
    assert number_of(count, "day") == text
