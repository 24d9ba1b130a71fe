"""What tests of the repair share."""

from collections.abc import Iterator

import pytest

from support.shared_session import Shared


@pytest.fixture(scope="module", autouse=True)
def _one_child() -> Iterator[None]:
    yield
    while Shared.held:
        Shared.held.pop().end("done")
