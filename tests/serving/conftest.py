"""What tests of the service share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from d2c_mlops.models.core.model import Model
from d2c_mlops.registry.versions import new_model
from d2c_mlops.serving.app.app import ServiceContext
from d2c_mlops.serving.http.api_keys import Keyring
from d2c_mlops.serving.http.idempotency import IdempotencyStore
from d2c_mlops.serving.log.log_segments import Logbook
from d2c_mlops.settings import Settings
from support.lead_service import asking
from support.local_client import LocalClient
from support.rollouts import Service


@pytest.fixture
def keeping(tmp_path: Path) -> Iterator[ServiceContext]:
    held = ServiceContext(
        keyring=Keyring(tmp_path / "keys.json"), logbook=Logbook(tmp_path / "log", segment=2**16),
        kept=IdempotencyStore(tmp_path / "kept.db"),
    )  # fmt: skip
    yield held
    held.logbook.close()
    held.kept.close()


@pytest.fixture
def client(keeping: ServiceContext) -> LocalClient:
    return asking(keeping)


@pytest.fixture
def model(settings: Settings) -> Model:
    made = new_model("mean_units", settings, {})
    return made.fit(*type(made).example())


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = Service(tmp_path)
    yield made
    made.watcher.close()
    made.keeping.logbook.close()
