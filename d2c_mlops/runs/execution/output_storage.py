"""Storage of run outputs: in the store, or at an fsspec URL such as s3://bucket/runs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from d2c_mlops.errors import Temporary, UsageError
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.runs.execution.run_rows import find_run, move_outputs
from d2c_mlops.settings import Settings

TRIES = 3
BUCKETS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"}  # without folders; a missing bucket is not to be made


def publish_outputs(folder: Path, files: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Copy a run's folder to [d2c] outputs and return the locations of its files; without this setting, the local ones.

    Raises Temporary if the output store fails; the local folder is kept until the copy is complete.
    """
    if not settings.outputs:
        return dict(files)
    target = f"{settings.outputs.rstrip('/')}/{folder.name}"
    system, path = file_system_of(target)
    for tries_remaining in reversed(range(TRIES)):
        try:
            for file in sorted(f for f in folder.rglob("*") if f.is_file()):
                remote = f"{path}/{file.relative_to(folder).as_posix()}"
                if not BUCKETS & {system.protocol, *system.protocol}:
                    system.makedirs(remote.rpartition("/")[0], exist_ok=True)
                system.put_file(str(file), remote)
                if system.size(remote) != file.stat().st_size:
                    raise OSError(f"the copy of {remote} is incomplete")
            break
        except Exception as err:  # each file system has its own errors; all of them mean that it refused
            if not tries_remaining:
                what = f"the output store failed: {type(err).__name__}: {err}"
                raise Temporary(what, where=target, next="d2c runs publish") from None
            time.sleep(0.5)
    shutil.rmtree(folder)
    return {kind: f"{target}{file.removeprefix(str(folder))}" for kind, file in files.items()}


def publish_remaining(ledger: Ledger, settings: Settings) -> list[str]:
    """Publish the folders of ended runs that could not be copied before; return the runs' ids."""
    published = []
    for folder in sorted((settings.store / "runs").glob("*/")) if settings.outputs else ():
        try:
            run = find_run(ledger, folder.name)
        except UsageError:  # not a run of this ledger
            continue
        if run.status != "running" and run.outputs["folder"] == str(folder):
            files = {kind: file for kind, file in run.outputs.items() if kind != "refused"}
            move_outputs(ledger, run.id, publish_outputs(folder, files, settings))
            published.append(run.id)
    return published


def file_system_of(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path in it. Raises UsageError without its driver."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)  # type: ignore[no-any-return]
    except (ImportError, ValueError) as err:
        raise UsageError(f"the output store cannot be opened: {err}", where="[d2c] outputs",
                         next="give an fsspec URL, with its driver installed: pip install s3fs") from None  # fmt: skip


def read_output(location: str) -> bytes:
    """Return the content of an output, local or remote."""
    if "://" not in location:
        return Path(location).read_bytes()
    system, path = file_system_of(location)
    content: bytes = system.cat_file(path)
    return content


def output_exists(location: str) -> bool:
    """Return whether an output exists; if the output store does not respond, False."""
    if "://" not in location:
        return Path(location).exists()
    system, path = file_system_of(location)
    try:
        return bool(system.exists(path))
    except Exception:  # each file system has its own errors
        return False


def remove_outputs(folder: str, settings: Settings) -> None:
    """Remove the outputs of a run, only inside the output folders of runs."""
    if "://" in folder:
        if not settings.outputs or not folder.startswith(f"{settings.outputs.rstrip('/')}/"):
            raise UsageError("these outputs are not in [d2c] outputs and are not removed", where=folder)
        system, path = file_system_of(folder)
        system.rm(path, recursive=True)
        return
    if not Path(folder).resolve().is_relative_to((settings.store / "runs").resolve()):
        raise UsageError("these outputs are not in the store and are not removed", where=folder)
    shutil.rmtree(folder)
