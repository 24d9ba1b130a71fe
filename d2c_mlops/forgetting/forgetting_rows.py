"""Records of forgotten customers: append-only rows of the ledger, and the suppression list that ingest applies."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import insert, select

from d2c_mlops.data.store import write_atomic
from d2c_mlops.file_lock import lock
from d2c_mlops.forgetting.person import Person
from d2c_mlops.ledger.schema import forgettings
from d2c_mlops.ledger.store import Ledger
from d2c_mlops.private_files import private_folder
from d2c_mlops.suppression import ERASE, FOLDER, KEY_FILE, LIST_FILE, keyed_hash, read_entries, read_key

BEGUN, DONE = "begun", "done"


def hash_key(store: Path, create: bool) -> bytes:
    """Return the key of the store's hashes; if there is none, a new key, which is stored with `create`."""
    file = store / FOLDER / KEY_FILE
    if file.exists() or (store / FOLDER / LIST_FILE).exists():
        return read_key(store)
    if not create:
        return secrets.token_bytes(32)
    private_folder(file.parent)
    with lock(file.parent, "the list of forgotten customers", 30.0):
        if not file.exists():
            write_atomic(file, secrets.token_hex(32).encode(), private=True)
    return read_key(store)


def add_to_suppression_list(store: Path, person: Person, time: datetime) -> None:
    """Add the person to the suppression list, by which ingest skips or pseudonymises rows; it contains only keyed hashes."""
    folder = store / FOLDER
    with lock(folder, "the list of forgotten customers", 30.0):
        entries = read_entries(store)
        mine = set(person.suppression.modes)
        scope = sorted(person.datasets)
        others = [e for e in entries if e["hash"] not in mine or (scope and e.get("datasets", []) != scope)]
        new = [
            {"hash": digest, "mode": mode, "datasets": scope, "at": time.isoformat()}
            for digest, mode in sorted(person.suppression.modes.items())
        ]
        erased = {e["hash"]: e for e in entries if e["mode"] == ERASE and e.get("datasets", []) == scope}
        content = {"entries": [*others, *[erased.get(e["hash"], e) for e in new]]}
        write_atomic(folder / LIST_FILE, json.dumps(content, indent=1).encode(), private=True)


def is_suppressed(store: Path, person: Person) -> bool:
    """Return whether all identifiers of the person are already on the list, with the same mode and datasets."""
    scope = sorted(person.datasets)
    there = {(e["hash"], e["mode"]) for e in read_entries(store) if e.get("datasets", []) in ([], scope)}
    return all((digest, mode) in there or (digest, ERASE) in there for digest, mode in person.suppression.modes.items())


def add_record(ledger: Ledger, values: Mapping[str, Any]) -> None:
    """Append a row to the record."""
    with ledger.write() as connection:
        connection.execute(insert(forgettings).values(**values))


def records_of(ledger: Ledger, key: bytes, names: Iterable[str]) -> list[dict[str, Any]]:
    """Return the records of a person, oldest first."""
    hashes = [keyed_hash(key, name) for name in names]
    query = select(forgettings).where(forgettings.c.subject.in_(hashes)).order_by(forgettings.c.id)
    with ledger.read() as connection:
        return [dict(row) for row in connection.execute(query).mappings()]
