"""Files of the store that are searched for a person, and places that cannot be changed from here."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import make_url

from d2c_mlops.data.manifest import read_manifest
from d2c_mlops.data.sources.fetch import without_password
from d2c_mlops.data.store import write_atomic
from d2c_mlops.errors import Temporary
from d2c_mlops.file_lock import lock
from d2c_mlops.forgetting import databases
from d2c_mlops.forgetting.file_scrubbing import files_below, is_sqlite, replace_file, scrub_content
from d2c_mlops.forgetting.person import Person
from d2c_mlops.serving.log.log_segments import ROTATE, seal_abandoned_segments
from d2c_mlops.settings import Settings
from d2c_mlops.suppression import FOLDER

SQLITE_SIDE_FILES = ("-wal", "-shm", "-journal")  # SQLite's additional files of a database
SKIPPED_ENDINGS = (".lock", ".draft")
PATIENCE = ROTATE + 20.0  # seconds in which a service seals its current log file


@dataclass
class FileHits:
    """Files that name the person."""

    rows: Counter[str] = field(default_factory=Counter)  # by place: number of occurrences
    fixed: dict[Path, str] = field(default_factory=dict)  # files that cannot be changed, and why
    written: list[Path] = field(default_factory=list)  # logs that a service is writing


def ledger_file(settings: Settings) -> Path | None:
    """Return the ledger's SQLite file; None if the ledger is on a database server."""
    url = make_url(settings.ledger)
    return Path(url.database).resolve() if url.drivername.startswith("sqlite") and url.database else None


def searched_roots(settings: Settings) -> list[Path]:
    """Return the store, and the services' state folder if it is outside of the store."""
    state = settings.root / settings.service.state if settings.service.state else None
    beyond = state is not None and state.is_dir() and not state.resolve().is_relative_to(settings.store)
    return [settings.store, *([state.resolve()] if beyond and state else [])]


def searched_files(
    settings: Settings, runs: Collection[str] | None, models: Collection[str] | None
) -> Iterator[tuple[str, Path]]:
    """Yield place and path of each file that may name a person; only for the given runs and models, or for all if None."""
    ledger = ledger_file(settings)
    for root in searched_roots(settings):
        for path in files_below(root):
            parts = path.relative_to(root).parts
            if path.name.endswith((*SQLITE_SIDE_FILES, *SKIPPED_ENDINGS)) or path.resolve() == ledger:
                continue
            if root == settings.store and parts[0] in ("data", FOLDER):
                continue
            if len(parts) > 1 and parts[0] == "runs" and runs is not None and parts[1] not in runs:
                continue
            if len(parts) > 2 and parts[0] == "serving" and models is not None and parts[1] not in models:
                continue
            yield "/".join(parts[:-1] if len(parts) < 3 else parts[:2]) or parts[0], path


def is_model_file(path: Path, settings: Settings) -> bool:
    """Return whether a file belongs to a saved model or a Bento, which is protected by a digest and not changed."""
    if not path.is_relative_to(settings.store):
        return False
    parts = path.relative_to(settings.store).parts
    return parts[0] == "bentoml" or (parts[0] == "mlartifacts" and "model" in parts[1:-1])


def find_in_files(
    settings: Settings, person: Person, runs: Collection[str] | None, models: Collection[str] | None
) -> FileHits:
    """Return the files of the store that name the person; nothing is changed."""
    hits = FileHits()
    for place, path in searched_files(settings, runs, models):
        try:
            count = (
                databases.count_rows(path, person)
                if is_sqlite(path)
                else scrub_content(path.name, path.read_bytes(), person)[1]
            )
        except FileNotFoundError:  # sealed or collected in the meantime
            continue
        except ValueError as error:
            hits.fixed[path] = str(error)
            continue
        if count and is_model_file(path, settings):
            hits.fixed[path] = "a file of a model"
        elif count:
            hits.rows[place] += count
            if path.suffix == ".open":
                hits.written.append(path)
    return hits


def remove_from_files(
    settings: Settings, person: Person, runs: Collection[str] | None, models: Collection[str] | None
) -> Counter[str]:
    """Remove the person from the files of the store; return the number of occurrences by folder.

    Raises Temporary while other processes use a database, or if a service does not seal its log.
    """
    counts: Counter[str] = Counter()
    for place, path in searched_files(settings, runs, models):
        if is_model_file(path, settings):
            continue
        with _lock_of(path, settings):
            try:
                if is_sqlite(path):
                    row_count = databases.count_rows(path, person)
                    if row_count or databases.has_remains(path, person):
                        counts[place] += databases.scrub_database(path, person)
                elif path.suffix != ".open":
                    content, count = scrub_content(path.name, path.read_bytes(), person)
                    if count:
                        measured = place.split("/")[0] == "gate"  # the gate measures it again when needed
                        replace_file(path, None if measured else content)
                        counts[place] += count
            except (FileNotFoundError, ValueError):
                continue
    return +counts


def _lock_of(path: Path, settings: Settings) -> AbstractContextManager[None]:
    if path.parent.name == "log":
        return lock(path.parent, "this log", 60.0)
    if path.name == "mlflow.db":
        return lock(settings.store / "mlartifacts", "to MLflow", 120.0)
    return nullcontext()


def seal_logs(settings: Settings, person: Person, models: Collection[str] | None, timeout: float = PATIENCE) -> None:
    """Wait until services have sealed the logs that name the person. Raises Temporary after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        naming = [
            p for _, p in searched_files(settings, (), models) if p.suffix == ".open" and _names_person(p, person)
        ]
        for folder in {path.parent for path in naming}:
            with lock(folder, "this log", 60.0):
                seal_abandoned_segments(folder)
        naming = [path for path in naming if path.exists()]
        if not naming:
            return
        if time.monotonic() > deadline:
            raise Temporary(
                "a service is writing a log that names the customer",
                where=str(naming[0]),
                next="run the same command again in a minute, or stop the service",
            )
        time.sleep(1.0)


def _names_person(path: Path, person: Person) -> bool:
    try:
        return scrub_content(path.name, path.read_bytes(), person)[1] > 0
    except FileNotFoundError:
        return False


def update_source_digest(store: Path, name: str) -> None:
    """Update the digest of a dataset in the record of its source's watermark."""
    file = store / "sources" / f"{name}.json"
    if not file.exists():
        return
    with lock(store / "sources" / f".{name}", "this dataset", 30.0):
        memory = json.loads(file.read_text(encoding="utf-8"))
        former = store / "data" / name / "manifests" / f"{memory.get('digest') or '-'}.json"
        now = read_manifest(store, name, former.stem).digest if former.exists() else memory.get("digest")
        if now != memory.get("digest"):
            write_atomic(file, json.dumps(memory | {"digest": now}, indent=1).encode(), private=True)


def unreachable_places(
    settings: Settings, person: Person, sources: Collection[str], fixed: dict[Path, str]
) -> list[str]:
    """Return the places that this command cannot change and that may contain the person, each with instructions."""

    def here(path: Path) -> str:
        return str(path.relative_to(settings.store) if path.is_relative_to(settings.store) else path)

    lines = [
        "backups of the store, dumps and snapshots of databases: after one is restored, run the same command again"
    ]
    lines += [
        f"source {source}: delete the customer there; later ingests skip the customer" for source in sorted(sources)
    ]
    lines += [
        f"decisions about {name} were sent to {without_password(policy.apply)}: delete the customer there"
        for name, policy in sorted(settings.policies.items())
        if policy.apply
    ]
    if settings.outputs:
        lines.append(f"outputs of runs in {without_password(settings.outputs)}: `d2c runs prune`, or delete them there")
    if ledger_file(settings) is None:
        lines.append("the ledger's server: its write-ahead log, replicas and dumps")
    if not settings.tracking.startswith("sqlite"):
        lines.append("the MLflow server: parameters, files of models and its own backups")
    if any((settings.store / "outbox").glob("*.db")):
        lines.append("web hooks that received predictions of batches: delete the customer there")
    lines += [
        "files and tables outside of the store written by `d2c score`: run the batch again, or delete the rows there",
        "state folders of services in containers: run `d2c collect --from FOLDER`, then the same command again",
        "notebooks and other files of the project outside of the store",
    ]
    lines += [
        f"{here(path)}: {why}, not changed; {_removal_advice(path, why, settings)}"
        for path, why in sorted(fixed.items())
    ]
    named_files = [
        p
        for root in searched_roots(settings)
        for p in files_below(root)
        if person.is_named_in(p.name) or person.is_named_in(p.stem)
    ]
    lines += [f"{here(path.parent)}: a file is named after the customer; rename or delete it" for path in named_files]
    return lines


def _removal_advice(path: Path, why: str, settings: Settings) -> str:
    if not is_model_file(path, settings):
        return "delete it, or write it again without the customer"
    bento = path.is_relative_to(settings.store / "bentoml")
    return (
        "delete it and package again: `d2c package MODEL`"
        if bento
        else "train a new version, promote it, delete the old one"
    )
