"""What tests of the service share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from d2c_mlops.serving.app.app import Keeping
from d2c_mlops.serving.http.api_keys import Keyring
from d2c_mlops.serving.http.idempotency import Kept
from d2c_mlops.serving.log.files import Logbook


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[Keeping]:
    held = Keeping(
        keyring=Keyring(tmp_path / "keys.json"), logbook=Logbook(tmp_path / "log", segment=2**16),
        kept=Kept(tmp_path / "kept.db"),
    )  # fmt: skip
    yield held
    held.logbook.close()
    held.kept.close()
