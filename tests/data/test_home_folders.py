"""A location in the home folder of a user who does not exist is refused as one that is not there."""

from __future__ import annotations

from pathlib import Path

import pytest

from d2c_mlops.data.ingestion.reading import read_location
from d2c_mlops.errors import UsageError
from d2c_mlops.settings.parsing import home_path


@pytest.mark.parametrize("location", ["~nobody-of-this-name/orders.csv", "~nobody-of-this-name/orders.zip", "~nobody"])
def test_it_is_no_bug(location: str) -> None:
    with pytest.raises(UsageError):
        read_location(location)


def test_home_and_other_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home_path("~/a") == tmp_path / "a"
    assert home_path("a/~b") == Path("a/~b") and home_path(Path("/c")) == Path("/c")
