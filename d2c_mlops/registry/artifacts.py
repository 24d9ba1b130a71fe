"""Files of versions in MLflow; the only module that imports mlflow."""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from d2c_mlops.data.store import write_atomic
from d2c_mlops.errors import Temporary
from d2c_mlops.file_lock import lock
from d2c_mlops.private_files import make_private, private_file
from d2c_mlops.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
ARTIFACT = "model"
LOCK_WAIT = 120.0  # seconds; a first use migrates MLflow's database


@contextmanager
def mlflow_client(settings: Settings) -> Iterator[MlflowClient]:
    """An MLflow client for the settings' tracking store, without MLflow's log messages."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="mlflow")
    warnings.filterwarnings("ignore", message="IProgress not found")
    logging.getLogger("alembic").setLevel(logging.ERROR)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    # A SQLite file is created and migrated on first use, which two processes must not do at once.
    mine = lock(settings.store / "mlartifacts", "to MLflow", LOCK_WAIT) if _is_local(settings) else nullcontext()
    if settings.tracking.startswith("sqlite:///"):
        private_file(Path(settings.tracking.removeprefix("sqlite:///")))
    try:
        with mine:
            yield MlflowClient(tracking_uri=settings.tracking, registry_uri=settings.tracking)
    except MlflowException as err:
        where = settings.tracking if "@" not in settings.tracking else urlsplit(settings.tracking).hostname or ""
        raise Temporary(f"MLflow refused: {err.message}", where=where, next="check [d2c] tracking_uri") from err


def log_model_files(
    settings: Settings,
    name: str,  # of the model
    folder: Path,  # the saved model
    *,
    params: Mapping[str, Any],
    metrics: Mapping[str, float],
    documents: Mapping[str, Any],  # JSON files to keep beside the model: contract.json, charter.json, …
    tags: Mapping[str, str],
) -> tuple[int, str]:
    """Log a saved model in MLflow and register it; return its version number and the URI of its files."""
    from mlflow.entities import Metric, Param
    from mlflow.exceptions import MlflowException

    with mlflow_client(settings) as mlflow:
        experiment = mlflow.get_experiment_by_name(name)
        place = (settings.store / "mlartifacts").as_uri() if _is_local(settings) else None
        id = experiment.experiment_id if experiment else mlflow.create_experiment(name, artifact_location=place)
        run = mlflow.create_run(id, tags=dict(tags)).info
        now = int(time.time() * 1000)
        mlflow.log_batch(
            run.run_id,
            metrics=[Metric(key, value, now, 0) for key, value in metrics.items()],
            params=[Param(key, json.dumps(value)[:6000]) for key, value in params.items()],
        )
        mlflow.log_artifacts(run.run_id, str(folder), ARTIFACT)
        for file, content in documents.items():
            mlflow.log_dict(run.run_id, content, file)
        if place:
            make_private(Path(urlsplit(run.artifact_uri).path))
        mlflow.set_terminated(run.run_id)
        try:
            mlflow.create_registered_model(name)
        except MlflowException as err:
            if err.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        uri = f"{run.artifact_uri}/{ARTIFACT}"
        registered = mlflow.create_model_version(name, uri, run.run_id, tags=dict(tags))
        return int(registered.version), uri


def store_document(settings: Settings, uri: str, name: str, content: Any) -> None:
    """Store a JSON document with a version's files, in the run that logged them; replaces a document of the same name."""
    place = uri.rstrip("/").removesuffix(f"/{ARTIFACT}")
    parts = urlsplit(place)
    if parts.scheme in ("", "file"):
        write_atomic(Path(parts.path, name), json.dumps(content, ensure_ascii=False, indent=1).encode(), private=True)
        return
    with mlflow_client(settings), TemporaryDirectory() as folder:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        file = Path(folder, name)
        file.write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
        repository: Any = get_artifact_repository(place, tracking_uri=settings.tracking)
        repository.log_artifact(str(file))


def _is_local(settings: Settings) -> bool:
    return settings.tracking.startswith("sqlite")


def set_alias(settings: Settings, name: str, alias: str, version: int) -> None:
    """Point an alias of a registered model at a version."""
    with mlflow_client(settings) as mlflow:
        mlflow.set_registered_model_alias(name, alias, str(version))


def drop_alias(settings: Settings, name: str, alias: str) -> None:
    """Delete an alias, if it exists."""
    with mlflow_client(settings) as mlflow:
        mlflow.delete_registered_model_alias(name, alias)


def version_of_alias(settings: Settings, name: str, alias: str) -> int | None:
    """Return the version of an alias; None if the alias does not exist."""
    with mlflow_client(settings) as mlflow:
        version = mlflow.get_registered_model(name).aliases.get(alias)
    return int(version) if version is not None else None


def local_folder(settings: Settings, uri: str) -> Path:
    """Return a local folder with the files of `uri`; remote files are downloaded."""
    parts = urlsplit(uri)
    if parts.scheme in ("", "file"):
        return Path(parts.path)
    with mlflow_client(settings):
        from mlflow.artifacts import download_artifacts

        return Path(download_artifacts(artifact_uri=uri, tracking_uri=settings.tracking))
